//! The bundles: a directory each, with `true` and `sleep`, which are the same but for what runs in the container.

use serde_json::{Value, json};
use std::fs;
use std::io;
use std::os::unix::fs::{chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The user of the rootless bundle: nobody.
pub const USER: u32 = 65534;

pub struct Bundle {
    pub name: &'static str,
    pub title: &'static str,
    /// Whether the runtime is run as [`USER`].
    pub rootless: bool,
    /// Whether what is done to a running container is measured, too, and with pauses.
    pub thorough: bool,
    dir: PathBuf,
}

impl Bundle {
    /// That runs /bin/true.
    pub fn ends(&self) -> PathBuf {
        self.dir.join("true")
    }

    /// That runs until it is killed.
    pub fn stays(&self) -> PathBuf {
        self.dir.join("sleep")
    }
}

/// Writes the bundles below `dir`; the configurations start from what `rrun spec` writes.
pub fn write_all(dir: &Path, rrun: &Path) -> io::Result<Vec<Bundle>> {
    let rootfs = rootfs(&dir.join("rootfs"))?;
    let default = spec(rrun, dir, None)?;
    let rows: [(&str, &str, Value); 5] = [
        ("default", "the default spec", default.clone()),
        ("docker", "Docker's default configuration, with seccomp and a network namespace", docker()?),
        ("userns", "a user namespace with 64 mappings", user_namespace(default.clone())),
        ("mounts", "the default spec with 200 mounts more", many_mounts(default, &rootfs)),
        ("rootless", "rootless, as nobody", spec(rrun, dir, Some(USER))?),
    ];
    let written = rows.into_iter().map(|(name, title, config)| {
        let bundle = Bundle {
            name,
            title,
            rootless: name == "rootless",
            thorough: matches!(name, "default" | "docker"),
            dir: dir.join(name),
        };
        for (at, args) in
            [(bundle.ends(), json!(["/bin/true"])), (bundle.stays(), json!(["/bin/sleep", "1000"]))]
        {
            let mut config = config.clone();
            config["process"]["args"] = args;
            write(&at, config, &rootfs)?;
        }
        Ok(bundle)
    });
    written.collect()
}

/// Completes `config` and makes `at` a bundle of it.
pub fn write(at: &Path, mut config: Value, rootfs: &Path) -> io::Result<()> {
    // The newest that crun 1.8 takes.
    config["ociVersion"] = json!("1.0.2");
    config["root"]["path"] = json!(rootfs);
    config["process"]["terminal"] = json!(false);
    fs::create_dir_all(at)?;
    fs::write(at.join("config.json"), serde_json::to_vec_pretty(&config)?)
}

pub fn read(at: &Path) -> io::Result<Value> {
    Ok(serde_json::from_slice(&fs::read(at.join("config.json"))?)?)
}

/// Debian's static busybox, and every mount point: a user namespace's root cannot make them here.
fn rootfs(at: &Path) -> io::Result<PathBuf> {
    for dir in ["bin", "dev", "etc", "proc", "sys", "tmp", "many"] {
        fs::create_dir_all(at.join(dir))?;
    }
    for number in 0..200 {
        fs::create_dir_all(at.join(format!("many/{number}")))?;
    }
    fs::copy("/bin/busybox", at.join("bin/busybox"))?;
    for applet in ["true", "sleep"] {
        symlink("busybox", at.join("bin").join(applet))?;
    }
    for file in ["etc/resolv.conf", "etc/hostname"] {
        fs::write(at.join(file), "")?;
    }
    Ok(at.to_owned())
}

fn spec(rrun: &Path, dir: &Path, user: Option<u32>) -> io::Result<Value> {
    let at = dir.join(if user.is_some() { "spec-rootless" } else { "spec" });
    fs::create_dir_all(&at)?;
    let mut command = Command::new(rrun);
    command.arg("spec").arg("--bundle").arg(&at);
    if let Some(user) = user {
        use std::os::unix::process::CommandExt;
        chown(&at, Some(user), Some(user))?;
        command.arg("--rootless").uid(user).gid(user);
    }
    let status = command.status()?;
    if !status.success() {
        return Err(io::Error::other(format!("{} spec: {status}", rrun.display())));
    }
    read(&at)
}

fn user_namespace(mut config: Value) -> Value {
    let mappings: Vec<_> = (0..64)
        .map(|n| json!({ "containerID": n * 1000, "hostID": 100_000 + n * 1000, "size": 1000 }))
        .collect();
    let linux = &mut config["linux"];
    linux["uidMappings"] = json!(mappings);
    linux["gidMappings"] = json!(mappings);
    push(&mut linux["namespaces"], json!({ "type": "user" }));
    config
}

/// Half of them tmpfs, half of them binds.
fn many_mounts(mut config: Value, rootfs: &Path) -> Value {
    for number in 0..200 {
        let destination = format!("/many/{number}");
        let mount = if number % 2 == 0 {
            json!({ "destination": destination, "type": "tmpfs", "source": "tmpfs",
                    "options": ["nosuid", "nodev", "mode=755"] })
        } else {
            json!({ "destination": destination, "type": "bind", "source": rootfs.join("bin"),
                    "options": ["rbind", "ro", "nosuid"] })
        };
        push(&mut config["mounts"], mount);
    }
    config
}

fn push(array: &mut Value, value: Value) {
    array.as_array_mut().expect("an array").push(value);
}

/// The tests' configuration as dockerd writes it, without its hook into dockerd, and with a whole profile.
fn docker() -> io::Result<Value> {
    let mut config: Value = serde_json::from_str(include_str!("../../../tests/plan/docker/config.json"))?;
    let top = config.as_object_mut().expect("an object");
    top.remove("hooks");
    let process = config["process"].as_object_mut().expect("an object");
    process.remove("consoleSize");
    let linux = config["linux"].as_object_mut().expect("an object");
    linux.remove("cgroupsPath");
    linux.insert("seccomp".to_owned(), profile());
    Ok(config)
}

/// What Docker's default profile denies a container without further capabilities, or allows with some arguments only.
const DENIED: &str = "acct add_key bpf clock_adjtime clock_settime clone clone3 create_module delete_module fanotify_init \
    finit_module fsconfig fsmount fsopen fspick get_kernel_syms get_mempolicy init_module ioperm iopl kcmp kexec_file_load \
    kexec_load keyctl lookup_dcookie mbind mount mount_setattr move_mount move_pages nfsservctl open_by_handle_at \
    open_tree perf_event_open personality pidfd_getfd pivot_root process_madvise process_vm_readv process_vm_writev \
    ptrace query_module quotactl quotactl_fd reboot request_key set_mempolicy set_mempolicy_home_node sethostname \
    setdomainname setns settimeofday socket stime swapoff swapon sysfs _sysctl syslog umount umount2 unshare uselib \
    userfaultfd ustat vhangup vm86 vm86old";

/// rrun's table: a name and its numbers, those of x86 and x86_64 first.
pub fn syscalls() -> impl Iterator<Item = (&'static str, Vec<&'static str>)> {
    let table = include_str!("../../../src/plan/seccomp/table.rs").split("pub static SYSCALLS").nth(1);
    table.expect("SYSCALLS").lines().filter_map(|line| {
        let (name, numbers) = line.trim().strip_prefix("(\"")?.split_once("\", [")?;
        Some((name, numbers.trim_end_matches("]),").split(", ").collect()))
    })
}

/// A profile of the size and shape of Docker's default one: nearly every name that Linux 5.18 had is allowed whatever
/// its arguments, few by their arguments, and the rest fail with EPERM.
fn profile() -> Value {
    let denied: Vec<_> = DENIED.split_whitespace().collect();
    let known = |(name, numbers): (&'static str, Vec<&str>)| {
        let last = numbers.iter().take(2).filter_map(|n| n.parse::<u32>().ok()).max()?;
        (last <= 450 && !denied.contains(&name)).then_some(name)
    };
    let allowed: Vec<_> = syscalls().filter_map(known).collect();
    let argument = |name: &str, op: &str, value: u64, two: u64| {
        json!({ "names": [name], "action": "SCMP_ACT_ALLOW",
                "args": [{ "index": 0, "op": op, "value": value, "valueTwo": two }] })
    };
    let mut rules = vec![json!({ "names": allowed, "action": "SCMP_ACT_ALLOW" })];
    // Not AF_VSOCK; the personalities of Linux, of 32 bits and of uname 2.6; no new namespaces.
    rules.push(argument("socket", "SCMP_CMP_NE", 40, 0));
    rules.extend(
        [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff].map(|p| argument("personality", "SCMP_CMP_EQ", p, 0)),
    );
    rules.push(argument("clone", "SCMP_CMP_MASKED_EQ", 0x7e02_0000, 0));
    rules.push(json!({ "names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38 }));
    json!({
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1,
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": rules,
    })
}
