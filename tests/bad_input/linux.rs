//! Rows 73-90: namespaces, ids, sysctls, propagation, personality.

use super::Row;
use crate::{requires, rrun_only};
use serde_json::{Value, json};
use std::fs;

const NS: &str = "/linux/namespaces/-";

fn without(r: &Row, kind: &str, change: impl FnOnce(&mut Value)) {
    r.with(|c| {
        c["linux"]["namespaces"].as_array_mut().unwrap().retain(|n| n["type"] != kind);
        change(c);
    });
}

#[test]
fn row_073_a_duplicate_namespace() {
    Row::new(73).bad("linux.namespaces[6]", NS, json!({ "type": "pid" }));
}

#[test]
fn row_074_an_unknown_namespace() {
    let r = Row::new(74);
    r.bad("linux.namespaces[6]", NS, json!({ "type": "foo" }));
    r.bad("linux.namespaces[6]", NS, json!({ "type": "" }));
}

#[test]
fn row_075_namespace_paths() {
    requires!(root);
    let r = Row::new(75);
    let path = "/linux/namespaces/1/path";
    r.bad("/no/such", path, json!("/no/such"));
    r.bad("linux.namespaces[1]", path, json!("proc/self/ns/net"));
    r.bad("linux.namespaces[1]", path, json!("/proc/self/ns/net,x"));
    r.bad("linux.namespaces[1]|namespace", path, json!("/etc/passwd"));
    r.bad("linux.namespaces[1]|namespace", path, json!("/proc/self/ns/uts"));
}

#[test]
fn row_076_the_hosts_mount_namespace() {
    requires!(root);
    let r = Row::new(76);
    let before = fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count();
    r.any("/linux/namespaces/4/path", json!("/proc/1/ns/mnt"));
    let after = fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count();
    assert!(after <= before + 8, "mounts reached the host: {before} before, {after} after");
}

#[test]
fn row_077_names_without_uts_namespace() {
    let r = Row::new(77);
    without(&r, "uts", |_| ());
    r.refused("hostname");
    if crate::harness::is_rrun() {
        without(&r, "uts", |c| {
            c.as_object_mut().unwrap().remove("hostname");
            c["domainname"] = json!("d");
        });
        r.refused("domainname");
    }
}

#[test]
fn row_078_masks_without_mount_namespace() {
    let r = Row::new(78);
    without(&r, "mount", |_| ());
    if crate::harness::is_rrun() {
        // With a root of its own on the way there, and without one.
        r.survives(r.t.bundle_command("run", &[]));
        r.t.nothing_left();
        r.t.edit(|c| c["root"]["path"] = json!("/"));
    }
    r.refused("maskedPaths|mount namespace");
}

#[test]
fn row_079_relative_masks() {
    rrun_only!("runc does not look");
    let r = Row::new(79);
    r.bad("linux.maskedPaths[2]", "/linux/maskedPaths/-", json!("proc/kcore"));
    r.bad("linux.readonlyPaths[2]", "/linux/readonlyPaths/-", json!("proc/sys"));
}

#[test]
fn row_080_id_mappings() {
    requires!(root);
    let r = Row::new(80);
    let map = |c: u64, h: u64, s: u64| json!({ "containerID": c, "hostID": h, "size": s });
    let user = |uids: Value, gids: Value| {
        r.with(|c| {
            super::put(c, NS, json!({ "type": "user" }));
            c["linux"]["uidMappings"] = uids;
            c["linux"]["gidMappings"] = gids;
        });
    };
    let good = json!([map(0, 100_000, 65_536)]);
    user(json!([]), json!([]));
    r.refused("linux.uidMappings|mapping");
    user(json!([map(0, 100_000, 0)]), good.clone());
    r.refused("linux.uidMappings[0]|mapping");
    user(json!([map(0, 100_000, 10), map(5, 200_000, 10)]), good.clone());
    r.refused("overlap");
    user(json!([map(0, 100_000, 10), map(10, 100_005, 10)]), good.clone());
    r.refused("overlap");
    user(json!([map(0, 4_294_967_295, 2)]), good.clone());
    r.refused("linux.uidMappings[0]|mapping");
    let many: Vec<_> = (0..341).map(|n| map(n, 100_000 + n, 1)).collect();
    user(json!(many), good.clone());
    r.refused("340|linux.uidMappings");
    r.ours("linux.uidMappings", "/linux/uidMappings", good);
}

#[test]
fn row_081_mappings_that_are_not_the_joined_namespaces() {
    requires!(root);
    rrun_only!("runc 1.1 ignores the mappings of a joined namespace");
    let r = Row::new(81);
    let first = crate::harness::Test::new("row081first");
    first.map_users().detached("exec sleep 1000");
    r.with(|c| {
        super::put(c, NS, json!({ "type": "user", "path": format!("/proc/{}/ns/user", first.pid()) }));
        c["linux"]["uidMappings"] = json!([{ "containerID": 0, "hostID": 5, "size": 1 }]);
        c["linux"]["gidMappings"] = json!([{ "containerID": 0, "hostID": 5, "size": 1 }]);
    });
    r.refused("linux.uidMappings|mapping|user namespace");
    first.end();
}

#[test]
fn row_082_more_than_one_mapping_without_newuidmap() {
    requires!(root);
    let r = Row::new(82);
    let t = &r.t;
    crate::harness::chmod(t.dir.parent().unwrap(), 0o755);
    let state = t.dir.join("rs");
    fs::create_dir(&state).unwrap();
    for path in [&t.dir, &t.bundle, &t.rootfs, &state] {
        std::os::unix::fs::chown(path, Some(65534), Some(65534)).unwrap();
    }
    r.with(|c| {
        super::put(c, NS, json!({ "type": "user" }));
        c["linux"]["uidMappings"] = json!([{ "containerID": 0, "hostID": 100_000, "size": 65_536 }]);
        c["linux"]["gidMappings"] = json!([{ "containerID": 0, "hostID": 100_000, "size": 65_536 }]);
        c["linux"].as_object_mut().unwrap().remove("resources");
    });
    let mut run =
        crate::harness::Run::bare(t).arg("--root").arg(&state).arg("run").arg("--bundle").arg(&t.bundle);
    run =
        run.arg(&t.id).env("PATH", "/nowhere").under(&["/usr/bin/setpriv", "--reuid=65534", "--regid=65534"]);
    let run = run.under(&["/usr/bin/setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]);
    r.fails(1, "newuidmap", run);
    t.nothing_left();
}

#[test]
fn row_083_time_offsets() {
    requires!(root);
    rrun_only!("runc 1.1 has no time namespace");
    let r = Row::new(83);
    r.bad("linux.timeOffsets", "/linux/timeOffsets", json!({ "monotonic": { "secs": 1 } }));
    let with = |offsets: Value, path: Value| {
        r.with(|c| {
            super::put(c, NS, json!({ "type": "time", "path": path }));
            c["linux"]["timeOffsets"] = offsets;
        });
        r.refused("linux.timeOffsets");
    };
    with(json!({ "monotonic": { "secs": 1 } }), json!("/proc/self/ns/time"));
    with(json!({ "monotonic": { "nanosecs": 1_000_000_000 } }), Value::Null);
    with(json!({ "realtime": { "secs": 1 } }), Value::Null);
}

#[test]
fn row_084_sysctls_of_the_whole_machine() {
    let r = Row::new(84);
    for key in ["kernel.foo", "vm.swappiness", "fs.file-max"] {
        r.bad("is not in a separate kernel namespace", "/linux/sysctl", json!({ key: "1" }));
    }
}

#[test]
fn row_085_sysctls_of_a_namespace_that_is_not_the_containers() {
    let r = Row::new(85);
    for (kind, key) in [("ipc", "kernel.shmmax"), ("network", "net.ipv4.ip_forward")] {
        without(&r, kind, |c| c["linux"]["sysctl"] = json!({ key: "1" }));
        r.refused("sysctl");
    }
    r.bad("sysctl", "/linux/sysctl", json!({ "kernel.hostname": "x" }));
    r.ours("sysctl", "/linux/sysctl", json!({ "user.max_user_namespaces": "5" }));
    requires!(root);
    // A namespace of its own by the letters, but the host's in fact. The value is the one it has.
    let value = fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap();
    r.with(|c| {
        let namespaces = c["linux"]["namespaces"].as_array_mut().unwrap();
        let network = namespaces.iter_mut().find(|n| n["type"] == "network").unwrap();
        network["path"] = json!("/proc/self/ns/net");
        c["linux"]["sysctl"] = json!({ "net.ipv4.ip_forward": value.trim() });
    });
    r.refused("host network namespace");
}

#[test]
fn row_086_sysctl_keys() {
    requires!(root);
    let r = Row::new(86);
    r.with(|c| {
        c["linux"]["sysctl"] = json!({ "net/ipv4/ip_forward": "1" });
        c["process"]["args"] = json!(["grep", "-q", "1", "/proc/sys/net/ipv4/ip_forward"]);
    });
    r.accepted();
    let core = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    for key in ["net.ipv4.../../../kernel/core_pattern", "net/../kernel/core_pattern", ""] {
        r.bad("sysctl", "/linux/sysctl", json!({ key: "1" }));
    }
    r.any("/linux/sysctl", json!({ "net.ipv4..ip_forward": "1" }));
    assert_eq!(fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap(), core);
}

#[test]
fn row_087_sysctl_values() {
    requires!(root);
    let r = Row::new(87);
    for value in ["word".to_owned(), "9".repeat(100_000)] {
        r.bad("sysctl|shmmni", "/linux/sysctl", json!({ "kernel.shmmni": value }));
    }
    r.any("/linux/sysctl", json!({ "kernel.shmmni": "1\n2" }));
    r.any("/linux/sysctl", json!({ "kernel.shmmni": "" }));
}

#[test]
fn row_088_root_propagation() {
    requires!(root);
    let r = Row::new(88);
    r.bad(
        "rootfsPropagation=foo is not supported|linux.rootfsPropagation",
        "/linux/rootfsPropagation",
        json!("foo"),
    );
    r.with(|c| c["linux"]["rootfsPropagation"] = json!("private"));
    r.survives(r.t.bundle_command("run", &["--no-pivot"]));
    r.t.nothing_left();
}

#[test]
fn row_089_personality() {
    requires!(root);
    rrun_only!("runc 1.1 has no personality");
    let r = Row::new(89);
    r.good("/linux/personality", json!({ "domain": "LINUX", "flags": ["FOO"] }));
    r.bad("linux.personality", "/linux/personality", json!({ "domain": "BSD" }));
}

#[test]
fn row_090_linux_missing() {
    requires!(root);
    let r = Row::new(90);
    let before = fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count();
    r.any("/linux", Value::Null);
    assert!(fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count() <= before + 8);
    assert_ne!(fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim(), "rrun-test");
}
