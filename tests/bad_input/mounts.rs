//! Rows 52-72: mounts.

use super::Row;
use crate::harness::is_rrun;
use crate::{requires, rrun_only};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::symlink;

fn tmpfs(destination: &str) -> Value {
    json!({ "destination": destination, "type": "tmpfs", "source": "tmpfs" })
}

fn bind(source: &str, destination: &str) -> Value {
    json!({ "destination": destination, "type": "bind", "source": source, "options": ["bind"] })
}

const END: &str = "/mounts/-";

#[test]
fn row_052_destination_missing() {
    requires!(root);
    let r = Row::new(52);
    r.bad("mounts[6].destination", END, json!({ "type": "tmpfs", "source": "tmpfs" }));
    r.bad("mounts[6].destination", END, tmpfs(""));
}

#[test]
fn row_053_a_relative_destination_is_below_the_root() {
    requires!(root);
    let r = Row::new(53);
    r.with(|c| {
        super::put(c, END, tmpfs("rel"));
        c["process"]["args"] = json!(["grep", "-q", " /rel tmpfs", "/proc/mounts"]);
    });
    r.accepted();
}

#[test]
fn row_054_the_root_as_destination() {
    requires!(root);
    let r = Row::new(54);
    for path in ["/", "/..", "/."] {
        r.ours("mounts[6].destination", END, tmpfs(path));
    }
}

#[test]
fn row_055_destinations_to_clean() {
    requires!(root);
    let r = Row::new(55);
    for (path, clean) in
        [("/../../tmp", "/tmp"), ("//usr//x", "/usr/x"), ("/usr/./y/../z", "/usr/z"), ("/run/", "/run")]
    {
        fs::create_dir_all(r.t.rootfs.join(clean.trim_start_matches('/'))).unwrap();
        fs::create_dir_all(r.t.rootfs.join("usr/y")).unwrap();
        r.with(|c| {
            super::put(c, END, tmpfs(path));
            c["process"]["args"] = json!(["grep", "-q", &format!(" {clean} tmpfs"), "/proc/mounts"]);
        });
        r.accepted();
    }
}

#[test]
fn row_056_destinations_through_symlinks() {
    requires!(root);
    let r = Row::new(56);
    symlink("/usr", r.t.rootfs.join("absolute")).unwrap();
    symlink("loop", r.t.rootfs.join("loop")).unwrap();
    symlink("../../../../../../../../../../../etc", r.t.rootfs.join("up")).unwrap();
    r.with(|c| {
        super::put(c, END, tmpfs("/absolute/in"));
        super::put(c, END, tmpfs("/up/in"));
        c["process"]["args"] = json!([
            "sh",
            "-c",
            "grep -q ' /usr/in tmpfs' /proc/mounts && grep -q ' /etc/in tmpfs' /proc/mounts"
        ]);
    });
    r.accepted();
    r.bad("mounts[6]|/loop", END, tmpfs("/loop/x"));
    r.bad("mounts[6]|not a directory", END, tmpfs("/etc/passwd/x"));
    assert!(!std::path::Path::new("/etc/in").exists());
}

#[test]
fn row_057_destinations_too_long() {
    requires!(root);
    let r = Row::new(57);
    r.bad("name too long", END, tmpfs(&format!("/{}", "x".repeat(256))));
    r.bad("name too long", END, tmpfs(&"/xxxxxxx".repeat(600)));
}

#[test]
fn row_058_a_bind_source_that_does_not_exist() {
    requires!(root);
    let r = Row::new(58);
    r.bad("/no/such/source", END, bind("/no/such/source", "/new"));
    if crate::harness::is_rrun() {
        assert!(!r.t.rootfs.join("new").exists(), "the mount point was made before the source was looked at");
    }
}

#[test]
fn row_059_file_and_directory_do_not_fit() {
    requires!(root);
    let r = Row::new(59);
    r.bad("not a directory|is a directory", END, bind("/etc/passwd", "/tmp"));
    r.bad("not a directory", END, bind("/usr", "/etc/passwd"));
}

#[test]
fn row_060_an_unknown_type() {
    requires!(root);
    Row::new(60).bad("foofs", END, json!({ "destination": "/tmp", "type": "foofs", "source": "x" }));
}

#[test]
fn row_061_a_bind_with_data() {
    requires!(root);
    let mount =
        json!({ "destination": "/tmp", "type": "bind", "source": "/usr", "options": ["bind", "size=1m"] });
    // runtime-tools' mounts has such binds, and wants them.
    let r = Row::new(61);
    r.good(END, mount);
    if is_rrun() {
        let out = r.t.bundle_command("run", &[]).go();
        out.says("mounts[6].options: \\\"size=1m\\\" means nothing to a bind mount");
    }
}

#[test]
fn row_062_an_unknown_option_goes_to_the_file_system() {
    requires!(root);
    let mount = json!({ "destination": "/tmp", "type": "tmpfs", "source": "x", "options": ["foo=bar"] });
    Row::new(62).bad("foo|mounts[6]|/tmp", END, mount);
}

#[test]
fn row_063_of_contradictory_options_the_last_wins() {
    requires!(root);
    let r = Row::new(63);
    for (options, script) in [
        (json!(["ro", "rw"]), "touch /tmp/x"),
        (json!(["rw", "ro"]), "! touch /tmp/x 2>/dev/null"),
        (json!(["noexec", "exec", "exec"]), "cp /bin/busybox /tmp/true && /tmp/true"),
    ] {
        r.with(|c| {
            super::put(
                c,
                END,
                json!({ "destination": "/tmp", "type": "tmpfs", "source": "x", "options": options }),
            );
            c["process"]["args"] = json!(["sh", "-c", script]);
        });
        r.accepted();
    }
    let both =
        json!({ "destination": "/tmp", "source": "/usr", "options": ["rbind", "bind", "private", "slave"] });
    r.good(END, both);
}

#[test]
fn row_064_recursive_options_on_what_is_no_bind() {
    requires!(root);
    let r = Row::new(64);
    r.any(
        END,
        json!({ "destination": "/tmp", "type": "tmpfs", "source": "x", "options": ["rro", "rnoexec"] }),
    );
}

#[test]
fn row_065_idmap_without_mappings() {
    requires!(root);
    rrun_only!("runc 1.1 has no idmap");
    let r = Row::new(65);
    let mount = |options: Value| json!({ "destination": "/tmp", "source": "/usr", "options": options });
    r.bad("mounts[6]", END, mount(json!(["bind", "idmap"])));
    let mut half = mount(json!(["bind"]));
    half["uidMappings"] = json!([{ "containerID": 0, "hostID": 1, "size": 1 }]);
    r.bad("mounts[6]", END, half);
    let map = json!([{ "containerID": 0, "hostID": 1, "size": 1 }]);
    let tmpfs = json!({ "destination": "/tmp", "type": "tmpfs", "source": "x", "options": ["ridmap"],
        "uidMappings": map, "gidMappings": map });
    r.bad("mounts[6]", END, tmpfs);
}

#[test]
fn row_066_tmpfs_values() {
    requires!(root);
    let r = Row::new(66);
    for option in ["size=-1x", "mode=99999", "uid=foo", "nr_inodes=x"] {
        r.bad(
            "mounts[6]|/tmp",
            END,
            json!({ "destination": "/tmp", "type": "tmpfs", "source": "x", "options": [option] }),
        );
    }
}

#[test]
fn row_067_proc_onto_something_else() {
    requires!(root);
    let r = Row::new(67);
    fs::remove_dir(r.t.rootfs.join("proc")).unwrap();
    symlink("tmp", r.t.rootfs.join("proc")).unwrap();
    r.with(|_| ()).refused("must be mounted on ordinary directory|ordinary directory");
    fs::remove_file(r.t.rootfs.join("proc")).unwrap();
    fs::write(r.t.rootfs.join("proc"), "").unwrap();
    r.with(|_| ()).refused("must be mounted on ordinary directory|ordinary directory|not a directory");
}

#[test]
fn row_068_a_mount_inside_proc() {
    requires!(root);
    let r = Row::new(68);
    let text = "cannot be mounted because it is inside /proc|inside /proc";
    r.bad(text, END, bind("/etc/passwd", "/proc/sys/kernel/core_pattern"));
    r.bad(text, END, tmpfs("/proc/self"));
    r.good(END, bind("/dev/null", "/proc/uptime"));
}

#[test]
fn row_069_cgroup_twice() {
    requires!(root);
    let r = Row::new(69);
    let mount =
        json!({ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"] });
    r.with(|c| {
        super::put(c, END, mount.clone());
        c["linux"]["namespaces"].as_array_mut().unwrap().retain(|n| n["type"] != "cgroup");
    });
    r.accepted();
}

#[test]
fn row_070_many_mounts_and_long_data() {
    requires!(root);
    let r = Row::new(70);
    r.with(|c| {
        for n in 0..300 {
            super::put(c, END, tmpfs(&format!("/tmp/{n}")));
        }
    });
    r.survives(r.t.bundle_command("run", &[]));
    r.t.nothing_left();
    let long = format!("mpol=prefer:{}", "0,".repeat(32_000));
    r.any(END, json!({ "destination": "/tmp", "type": "tmpfs", "source": "x", "options": [long] }));
}

#[test]
fn row_071_extensions_to_the_options() {
    requires!(root);
    let r = Row::new(71);
    fs::write(r.t.rootfs.join("usr/file"), "kept\n").unwrap();
    r.with(|c| {
        super::put(
            c,
            END,
            json!({ "destination": "/usr", "type": "tmpfs", "source": "x", "options": ["tmpcopyup"] }),
        );
        c["process"]["args"] = json!(["grep", "-q", "kept", "/usr/file"]);
    });
    r.accepted();
    r.bad(
        "mounts[6]|/usr",
        END,
        json!({ "destination": "/usr", "type": "tmpfs", "source": "x", "options": ["nonsense"] }),
    );
}

#[test]
fn row_072_no_mounts_at_all() {
    requires!(root);
    rrun_only!("runc 1.1 needs /proc");
    let r = Row::new(72);
    r.with(|c| {
        c["mounts"] = json!([]);
        c["linux"]["maskedPaths"] = json!([]);
        c["linux"]["readonlyPaths"] = json!([]);
        c["process"]["args"] = json!(["sh", "-c", "[ ! -e /proc/self ]"]);
    });
    r.accepted();
}
