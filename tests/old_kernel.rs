//! Kernels that lack newer system calls: the same behaviour, or one line that says which kernel is needed. The
//! whole suite on such a kernel is `make suite-old-kernel`.

use crate::harness::*;
use crate::requires;
use serde_json::json;
use std::fs::File;
use std::os::fd::AsRawFd;

fn lacking(calls: &str) -> [&str; 2] {
    [old_kernel().to_str().unwrap(), calls]
}

#[test]
fn create_without_a_call_that_has_no_substitute_names_the_kernel() {
    requires!(root);
    requires!(unfiltered);
    for (call, version) in [("openat2", "5.6"), ("move_mount", "5.2")] {
        let t = Test::new("oldcreate");
        let out = t.bundle_command("create", &[]).under(&lacking(call)).go();
        out.fails(&format!("function not implemented (needs Linux {version}, or a seccomp filter"))
            .one_line();
        assert!(out.stderr().contains(call), "{out:?}");
        t.nothing_left();
    }
}

#[test]
fn a_container_whose_init_cannot_be_told_is_not_taken_for_ended() {
    requires!(root);
    requires!(unfiltered);
    let t = Test::new("oldpidfd");
    t.detached("exec sleep 1000");
    let id = t.id.as_str();
    for args in
        [&["state", id][..], &["kill", id], &["delete", id], &["delete", "-f", id], &["exec", id, "true"]]
    {
        let out = t.rt(args).under(&lacking("pidfd_open")).go();
        assert_ne!(out.code, Some(0), "{args:?}");
        out.says(": function not implemented (needs Linux 5.3").one_line();
        assert_eq!(t.status(), "running", "after {args:?}");
    }
    let out = t.rt(&["kill", &t.id, "KILL"]).under(&lacking("pidfd_send_signal")).go();
    out.fails("pidfd_send_signal: function not implemented (needs Linux 5.1").one_line();
    assert_eq!(t.status(), "running");
    t.end();
}

#[test]
fn options_of_newer_kernels_name_them() {
    requires!(root);
    requires!(unfiltered);
    let t = Test::new("oldmount");
    let source = t.dir.join("source");
    std::fs::create_dir(&source).unwrap();
    t.add_mount(json!({ "destination": "/m", "source": source, "options": ["rbind", "rro"] }));
    let out = t.bundle_command("create", &[]).under(&lacking("mount_setattr")).go();
    out.fails("mount_setattr: function not implemented (needs Linux 5.12").one_line();
    t.nothing_left();
}

#[test]
fn no_fd_leaks_without_close_range() {
    requires!(root);
    requires!(unfiltered);
    let t = Test::new("oldfds");
    t.sh("for fd in /proc/self/fd/*; do echo $fd; done");
    let leak = File::open("/").unwrap();
    rustix::io::fcntl_setfd(&leak, rustix::io::FdFlags::empty()).unwrap();
    assert!(leak.as_raw_fd() > 2);
    let plain = t.bundle_command("run", &[]).go().ok().stdout();
    let old = t.bundle_command("run", &[]).under(&lacking("close_range")).go().ok().stdout();
    assert_eq!(old, plain);
    t.end();
}
