//! AppArmor where the machine has it, as the guest of tests/vm has. SELinux where it has it with a policy; where not,
//! what is written and when, read off strace.

use crate::harness::{Test, program};
use crate::{requires, rrun_only};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn apparmor() -> bool {
    fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with('Y'))
        && program("apparmor_parser").is_some()
}

/// A profile in the kernel, which forbids to write one file.
struct Profile {
    name: String,
    file: PathBuf,
}

impl Profile {
    fn load(t: &Test, name: &str, denied: &str) -> Self {
        let name = format!("{}-{name}", t.id);
        let file = t.dir.join(&name);
        let text = format!(
            "profile {name} flags=(attach_disconnected,mediate_deleted) {{\n  file,\n  capability,\n  network,\n  \
             signal,\n  ptrace,\n  unix,\n  mount,\n  deny {denied} wl,\n}}\n"
        );
        fs::write(&file, text).unwrap();
        let profile = Self { name, file };
        assert!(profile.parser("-r"), "apparmor_parser");
        profile
    }

    fn parser(&self, what: &str) -> bool {
        Command::new("apparmor_parser").args([what, "-K"]).arg(&self.file).status().unwrap().success()
    }
}

impl Drop for Profile {
    fn drop(&mut self) {
        self.parser("-R");
    }
}

const LOOK: &str =
    "cat /proc/self/attr/current; (: > /tmp/free) && echo free; (: > /tmp/denied) && echo not denied";

#[test]
fn an_apparmor_profile_confines_run_and_exec() {
    requires!(root);
    requires!(apparmor(), "needs AppArmor and apparmor_parser");
    let t = Test::new("apparmor");
    let first = Profile::load(&t, "first", "/tmp/denied");
    let second = Profile::load(&t, "second", "/tmp/free");
    for no_new_privileges in [true, false] {
        t.edit(|c| {
            c["process"]["apparmorProfile"] = json!(first.name);
            c["process"]["noNewPrivileges"] = json!(no_new_privileges);
        });
        let out = t.sh(&format!("{LOOK}; true")).run();
        assert_eq!(out.ok().stdout(), format!("{} (enforce)\nfree\n", first.name), "{out:?}");
        // With a filter as well, which comes behind the label.
        t.edit(|c| {
            c["linux"]["seccomp"] = json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            { "names": ["sync"], "action": "SCMP_ACT_ERRNO" }] })
        });
        t.detached("exec sleep 1000");
        let host = fs::read_to_string(format!("/proc/{}/attr/current", t.pid())).unwrap();
        assert_eq!(host.trim(), format!("{} (enforce)", first.name));
        let out = t.exec(&["sh", "-c", &format!("{LOOK}; true")]);
        assert_eq!(out.ok().stdout(), format!("{} (enforce)\nfree\n", first.name), "{out:?}");
        let out = t.rt(&["exec", "--apparmor", &second.name, &t.id, "cat", "/proc/self/attr/current"]).go();
        assert_eq!(out.ok().stdout(), format!("{} (enforce)\n", second.name));
        let process = t.dir.join("process.json");
        let text = json!({ "args": ["sh", "-c", "cat /proc/self/attr/current; (: > /tmp/free) || echo denied"],
                           "cwd": "/", "env": ["PATH=/bin"], "user": { "uid": 0, "gid": 0 },
                           "apparmorProfile": second.name });
        fs::write(&process, text.to_string()).unwrap();
        let out = t.rt(&["exec", "--process", process.to_str().unwrap(), &t.id]).go();
        assert_eq!(out.ok().stdout(), format!("{} (enforce)\ndenied\n", second.name), "{out:?}");
        t.rt(&["exec", "--apparmor", "nosuch", &t.id, "true"]).go().code_is(255).says("nosuch").one_line();
        t.end();
    }
    t.edit(|c| c["process"]["apparmorProfile"] = json!("unconfined"));
    assert_eq!(t.output("cat /proc/self/attr/current"), "unconfined\n");
}

#[test]
fn an_unknown_apparmor_profile_is_one_line() {
    requires!(root);
    requires!(apparmor(), "needs AppArmor and apparmor_parser");
    let t = Test::new("noprofile");
    t.edit(|c| c["process"]["apparmorProfile"] = json!("nosuch-profile"));
    let out = t.sh("echo unconfined").run();
    assert!(out.code != Some(0) && out.stdout().is_empty(), "{out:?}");
    out.says("nosuch-profile").says("no such file or directory").one_line();
    if crate::harness::is_rrun() {
        out.says("apparmor failed to apply profile").says("not loaded");
    }
    t.nothing_left();
}

/// CVE-2019-16884: the image's /proc was written to, and the container ran unconfined.
#[test]
fn the_label_goes_to_the_hosts_procfs() {
    requires!(root);
    requires!(apparmor(), "needs AppArmor and apparmor_parser");
    rrun_only!("others want the procfs of the container");
    let t = Test::new("fakeproc");
    let profile = Profile::load(&t, "profile", "/tmp/denied");
    let mut fakes: Vec<PathBuf> =
        ["self", "thread-self"].iter().map(|name| t.rootfs.join("proc").join(name)).collect();
    fakes.push(t.rootfs.join("proc/1"));
    for fake in fakes {
        fs::create_dir_all(fake.join("attr/apparmor")).unwrap();
        for file in ["attr/exec", "attr/apparmor/exec"] {
            fs::write(fake.join(file), "").unwrap();
        }
    }
    t.edit(|c| {
        c["process"]["apparmorProfile"] = json!(profile.name);
        c["mounts"].as_array_mut().unwrap().retain(|m| m["destination"] != "/proc");
        c["linux"]["maskedPaths"] = json!([]);
        c["linux"]["readonlyPaths"] = json!([]);
    });
    let label = |pid: &str| fs::read_to_string(format!("/proc/{pid}/attr/current")).unwrap();
    t.detached("exec sleep 1000");
    assert!(label(&t.pid().to_string()).starts_with(&profile.name));
    let file = t.dir.join("pid");
    t.rt(&["exec", "--detach", "--pid-file", file.to_str().unwrap(), &t.id, "sleep", "1000"]).go().ok();
    assert!(label(&fs::read_to_string(&file).unwrap()).starts_with(&profile.name));
    assert_eq!(fs::read(t.rootfs.join("proc/self/attr/exec")).unwrap(), b"");
    t.end();
    // A volume on /proc would be a fake of another kind.
    t.add_mount(json!({ "destination": "/proc", "type": "tmpfs", "source": "tmpfs" }));
    t.sh("true").run().fails("not of type proc");
    t.nothing_left();
}

#[test]
fn podmans_default_profile_is_applied() {
    requires!(root);
    requires!(apparmor(), "needs AppArmor and apparmor_parser");
    requires!(program "podman");
    let t = Test::new("podmanprofile");
    let tar = t.rootfs_tar();
    let podman = |args: &str| {
        let dir = t.dir.display();
        let runtime = crate::harness::runtime().display();
        let line = format!(
            "podman --storage-driver vfs --root {dir}/graph --runroot {dir}/runroot --runtime {runtime} {args}"
        );
        let out = Command::new("sh").args(["-c", &line]).output().unwrap();
        assert!(out.status.success(), "{args}: {out:?}");
        String::from_utf8(out.stdout).unwrap()
    };
    podman(&format!("import {} bb", tar.display()));
    let label = podman("run --rm --network none bb cat /proc/self/attr/current");
    assert!(label.starts_with("containers-default-") && label.trim().ends_with("(enforce)"), "{label}");
    let label =
        podman("run --rm --network none --security-opt apparmor=unconfined bb cat /proc/self/attr/current");
    assert_eq!(label.trim(), "unconfined");
}

/// What pretends that SELinux is there: the kernel then refuses each write, and so the container.
const PRETEND: &str = r#"
    d=$1; shift
    mkdir -p "$d/selinux" "$d/cgroup" && echo 0 > "$d/selinux/enforce"
    mount --rbind /sys/fs/cgroup "$d/cgroup" && mount --rbind "$d" /sys/fs || exit 99
    exec strace -f -qq -s 200 -o "$0" "$@"
"#;

const LABEL: &str = "system_u:system_r:container_t:s0:c1,c2";

#[test]
fn selinux_labels_are_written_in_their_order_and_fail_closed() {
    requires!(root);
    requires!(program "strace");
    requires!(!Path::new("/sys/fs/selinux/enforce").exists(), "needs a kernel without SELinux");
    requires!(Path::new("/proc/self/attr/keycreate").exists(), "needs a kernel with security modules");
    requires!(unfiltered);
    rrun_only!("the order is rrun's");
    let t = Test::new("selinux");
    t.edit(|c| {
        c["process"]["selinuxLabel"] = json!(LABEL);
        c["linux"]["seccomp"] = json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            { "names": ["sync"], "action": "SCMP_ACT_ERRNO" }] });
    });
    t.sh("echo unlabelled").run().fails("selinux").one_line();
    let log = t.dir.join("strace");
    let (log_name, fake) = (log.to_str().unwrap(), t.dir.join("fs"));
    let traced = |flags: &[&str]| {
        let pretend = ["unshare", "-m", "sh", "-c", PRETEND, log_name, fake.to_str().unwrap()];
        let out = t.bundle_command("run", flags).under(&pretend).go();
        assert!(out.code != Some(0) && out.stdout().is_empty(), "{out:?}");
        out.says("selinuxLabel").says(LABEL).one_line();
        t.nothing_left();
        fs::read_to_string(&log).unwrap()
    };
    let at = |text: &str, what: &str| text.lines().position(|line| line.contains(what));
    let written = format!("\"{LABEL}\"");
    // The keyring's label comes first, and without it no keyring is made.
    let text = traced(&[]);
    let keycreate = at(&text, "/proc/self/attr/keycreate").unwrap();
    assert!(at(&text, "/proc/self/attr/exec").unwrap() < keycreate);
    assert!(at(&text, &written).unwrap() > keycreate);
    assert_eq!(at(&text, "KEYCTL_JOIN_SESSION_KEYRING"), None);
    assert_eq!(at(&text, "pivot_root("), None);
    // The process's label: opened before the first mount, written after the last, before no_new_privs and the filter.
    let text = traced(&["--no-new-keyring"]);
    let (opened, label) = (at(&text, "/proc/self/attr/exec").unwrap(), at(&text, &written).unwrap());
    assert!(opened < at(&text, "mount(").unwrap());
    assert!(label > at(&text, "pivot_root(").unwrap());
    assert_eq!(at(&text, "PR_SET_NO_NEW_PRIVS"), None);
    assert_eq!(at(&text, "SECCOMP_SET_MODE_FILTER"), None);
}

/// On a machine with SELinux and a policy, as that of tests/vm/selinux.conf; `RRUN_SELINUX` names a label that it knows.
#[test]
fn selinux_labels_process_mounts_and_keyring() {
    requires!(root);
    let label = std::env::var("RRUN_SELINUX").unwrap_or_default();
    requires!(Path::new("/sys/fs/selinux/enforce").exists(), "needs SELinux");
    requires!(!label.is_empty(), "needs RRUN_SELINUX=LABEL");
    let t = Test::new("selinuxlabel");
    t.edit(|c| {
        c["process"]["selinuxLabel"] = json!(label);
        c["linux"]["mountLabel"] = json!(label);
    });
    t.detached("exec sleep 1000");
    let read = |pid: u32| fs::read_to_string(format!("/proc/{pid}/attr/current")).unwrap();
    assert_eq!(read(t.pid()).trim_end_matches('\0').trim(), label);
    let inside = t.exec(&["sh", "-c", "cat /proc/self/attr/current; echo; grep ' /dev ' /proc/mounts"]);
    let text = inside.ok().stdout();
    assert!(text.starts_with(&label) && text.contains(&format!("context=\"{label}\"")), "{text}");
    t.rt(&["exec", "--process-label", "no_such:label", &t.id, "true"])
        .go()
        .code_is(255)
        .says("no_such:label");
    t.end();
}
