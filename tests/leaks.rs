//! What a container's process receives, and what a container changes outside of itself: nothing.
//!
//! The whole suite is held to the same by `tests/host-snapshot`, before and after.

use crate::harness::{Test, is_rrun};
use crate::{requires, rrun_only};
use serde_json::json;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt, symlink};

/// A directory outside the rootfs that a path trick would reach, with what must stay as it is.
struct Canary {
    dir: std::path::PathBuf,
    before: String,
}

impl Canary {
    fn new(t: &Test) -> Self {
        let dir = t.dir.join("canary");
        fs::create_dir(&dir).unwrap();
        for name in ["victim", "null", "ptmx", "console", "core", "passwd"] {
            fs::write(dir.join(name), format!("{name} {}", t.id)).unwrap();
        }
        let mut canary = Self { dir, before: String::new() };
        canary.before = canary.now();
        canary
    }

    fn now(&self) -> String {
        let mut lines = Vec::new();
        for entry in fs::read_dir(&self.dir).unwrap().flatten() {
            let m = entry.metadata().unwrap();
            let text = fs::read_to_string(entry.path()).unwrap();
            let times = (m.ctime(), m.ctime_nsec(), m.mtime(), m.mtime_nsec());
            lines.push(format!(
                "{:?} {text} {} {:o} {} {times:?}",
                entry.file_name(),
                m.ino(),
                m.mode(),
                m.uid()
            ));
        }
        lines.sort();
        lines.join("\n")
    }

    fn unchanged(&self) {
        assert_eq!(self.now(), self.before, "a file outside the rootfs was changed");
    }
}

#[test]
fn the_process_has_no_descriptor_of_the_runtimes() {
    requires!(root);
    let t = Test::new("leakfds");
    t.sh("ls /proc/self/fd | tr '\\n' ' '; cat /proc/self/status | grep -c . >/dev/null");
    let out = t.bundle_command("run", &[]).through("exec 7</dev/null 8</dev/null; exec \"$@\"").go();
    assert_eq!(out.ok().stdout(), "0 1 2 3 ");
}

#[test]
fn a_created_containers_init_holds_no_descriptor_into_the_host() {
    requires!(root);
    let t = Test::new("initfds");
    t.sh("exec sleep 1000").create();
    for entry in fs::read_dir(format!("/proc/{}/fd", t.pid())).unwrap().flatten() {
        let target = fs::read_link(entry.path()).unwrap_or_default();
        let fd: u32 = entry.file_name().to_str().unwrap().parse().unwrap();
        let target = target.to_string_lossy().into_owned();
        let harmless = fd < 3
            || ["pipe:", "socket:", "anon_inode:", "/memfd:"].iter().any(|k| target.starts_with(k))
            || target.ends_with("/exec.fifo")
            || target.ends_with("/start")
            // On procfs and cgroupfs a descriptor leads nowhere but to the container itself.
            || target.starts_with("/proc");
        assert!(harmless || (!is_rrun() && target.starts_with("/sys")), "fd {fd} is {target}");
    }
    t.end();
}

#[test]
fn the_process_is_not_the_runtimes_binary() {
    requires!(root);
    let t = Test::new("selfexe");
    t.sh("exec sleep 1000").create();
    let exe = fs::metadata(format!("/proc/{}/exe", t.pid())).unwrap();
    let own = fs::metadata(crate::harness::runtime()).unwrap();
    if is_rrun() {
        // CVE-2019-5736: whoever opens /proc/PID/exe for writing must not reach the host's file. A read-only
        // clone of its mount has the same inode: writing must fail then.
        let same = (exe.dev(), exe.ino()) == (own.dev(), own.ino());
        let writable = fs::OpenOptions::new().write(true).open(format!("/proc/{}/exe", t.pid()));
        assert!(
            !same || writable.is_err_and(|e| e.raw_os_error() != Some(26)),
            "init runs the host's binary"
        );
    }
    t.end();
}

/// The ways without a second execve: nothing of the file is mapped, and what stands in its place is empty and sealed.
#[test]
fn nothing_of_the_runtimes_binary_is_in_the_process() {
    requires!(root);
    rrun_only!("how it protects itself is its own affair");
    // There with CONFIG_CHECKPOINT_RESTORE alone.
    requires!(
        std::path::Path::new("/proc/sys/kernel/ns_last_pid").exists(),
        "needs a kernel with CONFIG_CHECKPOINT_RESTORE"
    );
    let resident = |unmapped: bool| {
        let t = Test::new(if unmapped { "unmapped" } else { "copied" });
        t.sh("exec sleep 1000");
        if !unmapped {
            // rrun runs these hooks in the process when it is confined, so it needs its program to the end.
            t.edit(|c| {
                c["hooks"] = json!({ "startContainer": [{ "path": "/bin/true", "args": ["true"] }] });
            });
        }
        t.create();
        let file = |name: &str| format!("/proc/{}/{name}", t.pid());
        assert_eq!(fs::metadata(file("exe")).unwrap().len(), 0);
        let e = fs::OpenOptions::new().write(true).open(file("exe")).and_then(|mut f| f.write_all(b"x"));
        // ETXTBSY as long as it stands there, EPERM of the seal then.
        assert!(matches!(e.unwrap_err().raw_os_error(), Some(1 | 26)));
        let maps = fs::read_to_string(file("maps")).unwrap();
        let files: Vec<_> =
            maps.lines().filter(|line| line.split_ascii_whitespace().nth(4) != Some("0")).collect();
        assert!(files.is_empty(), "{files:?}");
        // ps(1) shows the command line still.
        assert!(fs::read_to_string(file("cmdline")).unwrap().contains("create"));
        let status = fs::read_to_string(file("status")).unwrap();
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        t.rt(&["start", &t.id]).go().ok();
        t.end();
        rss.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
    };
    let (unmapped, copied) = (resident(true), resident(false));
    assert!(unmapped < 512 && copied > 2048, "{unmapped} and {copied} kB");
}

/// The same of a further process, from the first moment at which the container sees it: its last steps are drawn out.
#[test]
fn nothing_of_the_runtimes_binary_is_in_a_further_process() {
    requires!(root);
    rrun_only!("how it protects itself is its own affair");
    let t = Test::new("unmappedexec");
    t.sh("exec sleep 1000").create();
    t.rt(&["start", &t.id]).go().ok();
    let seen = t.dir.join("seen");
    let watch = format!(
        "while ! [ -e {0}.end ]; do for p in /proc/[0-9]*; do readlink $p/exe >>{0}; cat $p/maps >>{0}.maps; done; done",
        seen.display()
    );
    // Inside the pid namespace, with the host's root and every capability.
    let pid = t.pid().to_string();
    let mut watcher = std::process::Command::new("nsenter")
        .args(["-t", &pid, "-p", "unshare", "-m", "sh", "-c"])
        .arg(format!("mount -t proc proc /proc; {watch}"))
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let met = || fs::read_to_string(&seen).unwrap_or_default().contains("/memfd:rrun (deleted)");
    // As often as it takes until the two meet, and then some more.
    for round in 0..100 {
        if round >= 5 && met() {
            break;
        }
        let slow =
            "strace -f -qq -o /dev/null -e inject=setsid,capset,prlimit64,execve:delay_enter=50000 \"$@\"";
        t.rt(&["exec", &t.id, "true"]).through(slow).go().ok();
    }
    fs::write(seen.with_extension("end"), "").unwrap();
    watcher.wait().unwrap();
    let (exes, maps) =
        (fs::read_to_string(&seen).unwrap(), fs::read_to_string(seen.with_extension("maps")).unwrap());
    assert!(met(), "nothing was seen in time: {exes}");
    let own = crate::harness::runtime();
    let name = own.file_name().unwrap().to_str().unwrap();
    let leaked = |text: &str| text.lines().any(|line| line.ends_with(&format!("/{name}")));
    assert!(!leaked(&exes) && !leaked(&maps), "{exes}");
    t.end();
}

#[test]
fn symlinks_in_the_image_lead_nowhere_outside() {
    requires!(root);
    let t = Test::new("symlinks");
    let canary = Canary::new(&t);
    let outside = canary.dir.to_str().unwrap();
    for (name, target) in [("evil", outside.to_owned()), ("up", format!("../../..{outside}"))] {
        symlink(target, t.rootfs.join(name)).unwrap();
    }
    t.add_mount(json!({ "destination": "/evil/dir", "type": "tmpfs", "source": "x" }));
    t.add_mount(json!({ "destination": "/up/victim", "source": "/etc/hostname", "options": ["bind"] }));
    t.edit(|c| {
        c["process"]["cwd"] = json!("/evil/cwd");
        c["linux"]["maskedPaths"] = json!(["/evil/victim"]);
        c["linux"]["readonlyPaths"] = json!(["/up"]);
    });
    let _ = t.run();
    canary.unchanged();
    t.nothing_left();
}

/// CVE-2026-41579 and its kin: /dev of an image is a symlink, and no tmpfs covers it.
#[test]
fn a_dev_that_is_a_symlink_leads_nowhere_outside() {
    requires!(root);
    rrun_only!("Debian's runc 1.1.5 follows the link and replaces the files: it was seen to fail this");
    let t = Test::new("devlink");
    let canary = Canary::new(&t);
    fs::remove_dir_all(t.rootfs.join("dev")).unwrap();
    symlink(&canary.dir, t.rootfs.join("dev")).unwrap();
    t.edit(|c| {
        c["mounts"]
            .as_array_mut()
            .unwrap()
            .retain(|m| !m["destination"].as_str().unwrap().starts_with("/dev"));
        c["linux"]["devices"] = json!([{ "path": "/dev/own", "type": "c", "major": 1, "minor": 3 }]);
    });
    let _ = t.run();
    canary.unchanged();
    t.nothing_left();
}

#[test]
fn the_rootfs_of_a_failed_create_is_as_it_was() {
    requires!(root);
    let t = Test::new("rootfsafter");
    let before = t.rootfs_listing();
    t.edit(|c| c["hooks"] = json!({ "createRuntime": [{ "path": "/bin/false" }] }));
    t.run().fails("hook");
    t.nothing_left();
    assert_eq!(t.rootfs_listing(), before);
}

#[test]
fn the_hosts_settings_stay() {
    requires!(root);
    let read = || {
        [
            "kernel/hostname",
            "kernel/domainname",
            "kernel/shmmni",
            "kernel/core_pattern",
            "net/ipv4/ip_forward",
        ]
        .map(|f| fs::read_to_string(format!("/proc/sys/{f}")).unwrap_or_default())
    };
    let before = read();
    let t = Test::new("settings");
    t.edit(|c| c["linux"]["sysctl"] = json!({ "kernel.shmmni": "55", "net.ipv4.ip_forward": "1" }));
    t.run().ok();
    assert_eq!(read(), before);
}

#[test]
fn the_session_keyring_is_the_containers_own() {
    requires!(root);
    let t = Test::new("keyring");
    let own = fs::read_to_string("/proc/keys").unwrap_or_default();
    requires!(!own.is_empty(), "needs /proc/keys");
    t.edit(|c| c["linux"]["maskedPaths"] = json!([]));
    let inside = t.output("cat /proc/keys");
    if is_rrun() {
        assert!(inside.contains(&format!("_ses.{}", t.id)), "{inside}");
    }
}

#[test]
fn a_hundred_runs_leave_nothing() {
    requires!(root);
    let t = Test::new("hundred");
    let before = t.rootfs_listing();
    for _ in 0..100 {
        t.run().ok();
    }
    t.nothing_left();
    assert_eq!(t.rootfs_listing(), before);
}
