//! config-linux.md, Namespaces: every kind created, inherited and joined; user namespaces; time offsets.

use crate::harness::{Test, wait_for};
use crate::{requires, rrun_only};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::time::Duration;

/// (type in config.json, name under /proc/PID/ns)
const KINDS: [(&str, &str); 8] = [
    ("pid", "pid"),
    ("network", "net"),
    ("ipc", "ipc"),
    ("uts", "uts"),
    ("mount", "mnt"),
    ("cgroup", "cgroup"),
    ("user", "user"),
    ("time", "time"),
];

fn inode(path: &str) -> String {
    fs::read_link(path).unwrap().to_string_lossy().into_owned()
}

fn namespaces(config: &mut Value) -> &mut Vec<Value> {
    config["linux"]["namespaces"].as_array_mut().unwrap()
}

/// A type without path is created; a type that is not listed is inherited from the runtime.
fn created_or_inherited(kinds: &[&str]) {
    let t = Test::new("nskinds");
    if kinds.contains(&"user") {
        t.map_users();
    }
    t.edit(|c| *namespaces(c) = kinds.iter().map(|k| json!({ "type": k })).collect());
    if !kinds.contains(&"uts") {
        t.edit(|c| drop(c.as_object_mut().unwrap().remove("hostname")));
    }
    if !kinds.contains(&"network") || !kinds.contains(&"ipc") {
        // sysfs and mqueue of a namespace that the container does not own cannot be mounted.
        t.edit(|c| {
            c["mounts"].as_array_mut().unwrap().retain(|m| m["type"] != "sysfs" && m["type"] != "mqueue")
        });
    }
    let text = t.output("for n in pid net ipc uts mnt cgroup user time; do readlink /proc/self/ns/$n; done");
    for ((kind, name), inside) in KINDS.iter().zip(text.lines()) {
        let same = inside == inode(&format!("/proc/self/ns/{name}"));
        assert_eq!(same, !kinds.contains(kind), "{kind}: {inside}");
    }
}

#[test]
fn the_usual_namespaces_are_created() {
    requires!(root);
    created_or_inherited(&["pid", "network", "ipc", "uts", "mount", "cgroup"]);
}

#[test]
fn a_namespace_not_listed_is_inherited() {
    requires!(root);
    created_or_inherited(&["pid", "mount"]);
}

#[test]
fn all_eight_namespaces_are_created() {
    requires!(root);
    rrun_only!("runc 1.1 has no time namespace");
    created_or_inherited(&["pid", "network", "ipc", "uts", "mount", "cgroup", "user", "time"]);
}

/// config-linux.md: the runtime MUST place the container process in the namespace of that path.
#[test]
fn a_namespace_of_another_container_is_joined() {
    requires!(root);
    let first = Test::new("nsfirst");
    first.detached("exec sleep 1000");
    let pid = first.pid();
    for (kind, name) in KINDS.iter().take(4) {
        let t = Test::new("nsjoin");
        let path = format!("/proc/{pid}/ns/{name}");
        t.edit(|c| {
            for n in namespaces(c).iter_mut().filter(|n| n["type"] == *kind) {
                n["path"] = json!(path);
            }
            if *kind == "uts" {
                c.as_object_mut().unwrap().remove("hostname");
            }
        });
        let script = if *kind == "pid" { "cat /proc/1/cmdline" } else { "readlink /proc/self/ns/NAME" };
        let text = t.output(&script.replace("NAME", name));
        if *kind == "pid" {
            assert!(text.starts_with("sleep"), "{text:?}");
        } else {
            assert_eq!(text.trim(), inode(&path), "{kind}");
        }
        t.nothing_left();
    }
    first.end();
}

#[test]
fn a_user_namespace_maps_ids_and_owns_the_rest() {
    requires!(root);
    let t = Test::new("userns");
    t.map_users();
    let text = t.output("id -u; cat /proc/self/uid_map; cat /proc/self/setgroups; touch /tmp/x");
    let words: Vec<_> = text.split_whitespace().collect();
    assert_eq!(words[..4], ["0", "0", "100000", "65536"], "{text}");
    use std::os::unix::fs::MetadataExt;
    assert_eq!(fs::metadata(t.rootfs.join("tmp/x")).unwrap().uid(), 100_000);
    t.nothing_left();
}

#[test]
fn a_user_namespace_of_another_container_is_joined() {
    requires!(root);
    let first = Test::new("userfirst");
    first.map_users().detached("exec sleep 1000");
    let path = format!("/proc/{}/ns/user", first.pid());
    let t = Test::new("userjoin");
    t.map_users().edit(|c| {
        for n in namespaces(c).iter_mut().filter(|n| n["type"] == "user") {
            n["path"] = json!(path);
        }
        let linux = c["linux"].as_object_mut().unwrap();
        linux.remove("uidMappings");
        linux.remove("gidMappings");
    });
    if crate::harness::is_rrun() {
        let text = t.output("readlink /proc/self/ns/user; id -u");
        assert_eq!(text, format!("{}\n0\n", inode(&path)));
    }
    first.end();
}

#[test]
fn exec_joins_a_user_namespace() {
    requires!(root);
    let t = Test::new("userexec");
    t.map_users().detached("exec sleep 1000");
    let out = t.exec(&["sh", "-c", "id -u; cat /proc/self/uid_map"]);
    assert!(out.ok().stdout().contains("100000"), "{out:?}");
    t.end();
}

#[test]
fn time_offsets_move_the_clocks() {
    requires!(root);
    rrun_only!("runc 1.1 has no time namespace");
    let t = Test::new("timens");
    t.edit(|c| {
        namespaces(c).push(json!({ "type": "time" }));
        c["linux"]["timeOffsets"] =
            json!({ "monotonic": { "secs": 7881, "nanosecs": 2_718_281 }, "boottime": { "secs": 1_000_000, "nanosecs": 5 } });
    });
    let text = t.output("cat /proc/self/timens_offsets; cut -d. -f1 /proc/uptime");
    let words: Vec<_> = text.split_whitespace().collect();
    assert_eq!(words[..6], ["monotonic", "7881", "2718281", "boottime", "1000000", "5"], "{text}");
    assert!(words[6].parse::<u64>().unwrap() >= 1_000_000, "{text}");
    t.detached("exec sleep 1000");
    let exec = t.exec(&["cut", "-d.", "-f1", "/proc/uptime"]);
    assert!(
        exec.ok().stdout().trim().parse::<u64>().unwrap() >= 1_000_000,
        "exec did not join the time namespace"
    );
    t.end();
}

#[test]
fn hostname_and_domainname() {
    requires!(root);
    let t = Test::new("names");
    t.edit(|c| {
        c["hostname"] = json!("some-host");
        c["domainname"] = json!("some.domain");
    });
    let text = t.output("hostname; cat /proc/sys/kernel/domainname");
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("some-host"));
    if crate::harness::is_rrun() {
        assert_eq!(lines.next(), Some("some.domain"));
    }
}

#[test]
fn a_path_of_another_type_is_an_error() {
    requires!(root);
    let t = Test::new("nstype");
    t.edit(|c| namespaces(c)[1]["path"] = json!("/proc/self/ns/uts"));
    t.run().fails("namespace|invalid argument").one_line();
    t.nothing_left();
}

/// The runtime's mount namespace, or one that is joined, and one tmpfs beside the usual mounts.
fn shares_mounts(name: &str, namespace: Option<&str>) -> Test {
    let t = Test::new(name);
    t.edit(|c| {
        let listed = namespaces(c);
        listed.retain(|n| n["type"] != "mount");
        listed.extend(namespace.map(|path| json!({ "type": "mount", "path": path })));
        c["linux"]["maskedPaths"] = json!([]);
        c["linux"]["readonlyPaths"] = json!([]);
        c["root"]["readonly"] = json!(false);
    });
    t.add_mount(json!({ "destination": "/tmp", "type": "tmpfs", "source": "shared" }));
    t
}

/// The mounts in the test's directory as `pid` sees them.
fn mounts_of(pid: &str, t: &Test) -> usize {
    let dir = format!("{}/", t.dir.display());
    fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap().lines().filter(|l| l.contains(&dir)).count()
}

/// config-linux.md, Namespaces: not listed is inherited, the mount namespace too.
#[test]
fn mounts_in_the_runtimes_namespace_go_with_the_container() {
    requires!(root);
    rrun_only!("runc leaves them");
    let t = shares_mounts("nsmounts", None);
    t.edit(|c| c["root"]["readonly"] = json!(true));
    // What an engine has mounted there stays. Private: below a shared one that shows the same directory, the kernel
    // takes a mount along that another mount on it was taken from.
    rustix::mount::mount_bind(&t.rootfs, &t.rootfs).unwrap();
    rustix::mount::mount_change(&t.rootfs, rustix::mount::MountPropagationFlags::PRIVATE).unwrap();
    t.detached("exec sleep 1000");
    assert_eq!(inode(&format!("/proc/{}/ns/mnt", t.pid())), inode("/proc/self/ns/mnt"));
    assert!(mounts_of("self", &t) > 2);
    // A further process is below init's root, which is not the namespace's.
    let ino = fs::metadata(&t.rootfs).unwrap().ino().to_string();
    assert_eq!(t.exec(&["stat", "-c", "%i", "/"]).stdout().trim(), ino);
    t.exec(&["grep", "-q", "shared /tmp", "/proc/mounts"]).ok();
    // The root alone is read-only, and only while it is the container's.
    t.exec(&["sh", "-c", "touch /tmp/x && ! touch /x"]).ok().says("Read-only file system");
    t.rt(&["delete", "--force", &t.id]).go().ok();
    assert_eq!(mounts_of("self", &t), 1);
    fs::write(t.rootfs.join("x"), "").unwrap();
    // A failure on the way.
    t.add_mount(json!({ "destination": "/tmp", "type": "nosuch", "source": "x" }));
    t.bundle_command("create", &[]).go().fails("nosuch").one_line();
    assert_eq!(mounts_of("self", &t), 1);
    rustix::mount::unmount(&t.rootfs, rustix::mount::UnmountFlags::empty()).unwrap();
    t.nothing_left();
}

/// runc leaves out there what would make things read-only or hide them; runtime.md, create: all of `root` is applied.
#[test]
fn a_readonly_root_and_masks_without_a_mount_namespace_change_nothing_of_the_hosts() {
    requires!(root);
    rrun_only!("runc leaves them out");
    let t = shares_mounts("nsreadonly", None);
    t.edit(|c| {
        c["root"]["readonly"] = json!(true);
        c["linux"]["maskedPaths"] = json!(["/bin/busybox.masked", "/etc"]);
        c["linux"]["readonlyPaths"] = json!(["/proc/sys"]);
    });
    for dir in ["etc", "var"] {
        fs::create_dir_all(t.rootfs.join(dir)).unwrap();
    }
    fs::write(t.rootfs.join("etc/secret"), "x").unwrap();
    fs::write(t.rootfs.join("bin/busybox.masked"), "x").unwrap();
    t.detached("exec sleep 1000");
    t.exec(&["sh", "-c", "touch /var/x"]).fails("Read-only");
    t.exec(&["sh", "-c", "echo x > /proc/sys/kernel/hostname"]).fails("Read-only");
    t.exec(&["sh", "-c", "test ! -e /etc/secret && test ! -s /bin/busybox.masked && touch /tmp/x"]).ok();
    let pattern = "/proc/sys/kernel/core_pattern";
    fs::write(pattern, fs::read(pattern).unwrap()).unwrap();
    t.rt(&["delete", "--force", &t.id]).go().ok();
    fs::write(t.rootfs.join("var/x"), fs::read(t.rootfs.join("etc/secret")).unwrap()).unwrap();
    t.nothing_left();
}

#[test]
fn mounts_in_a_joined_namespace_go_with_the_container() {
    requires!(root);
    rrun_only!("runc leaves them");
    let own = inode("/proc/self/ns/mnt");
    let mut owner = Command::new("unshare").args(["--mount", "sleep", "1000"]).spawn().unwrap();
    let pid = owner.id().to_string();
    wait_for("its namespace", Duration::from_secs(10), || {
        (inode(&format!("/proc/{pid}/ns/mnt")) != own).then_some(())
    });
    let t = shares_mounts("nsjoin", Some(&format!("/proc/{pid}/ns/mnt")));
    t.detached("exec sleep 1000");
    assert_eq!(inode(&format!("/proc/{}/ns/mnt", t.pid())), inode(&format!("/proc/{pid}/ns/mnt")));
    assert!(mounts_of(&pid, &t) > 2 && mounts_of("self", &t) == 0);
    t.exec(&["sh", "-c", "test -e /dev/null && touch /tmp/x"]).ok();
    t.rt(&["delete", "--force", &t.id]).go().ok();
    assert_eq!(mounts_of(&pid, &t), 0);
    t.nothing_left();
    owner.kill().unwrap();
    owner.wait().unwrap();
}
