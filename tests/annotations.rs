//! The annotations of crun's that rrun heeds.

use crate::harness::{Test, script};
use crate::pty::FdSocket;
use crate::{requires, rrun_only};
use serde_json::{Value, json};
use std::fs;

fn annotated(name: &str, annotations: Value) -> Test {
    let t = Test::new(name);
    t.edit(|c| c["annotations"] = annotations);
    t
}

/// For files of the host that only a supplementary group of the caller may read.
#[test]
fn keep_original_groups() {
    requires!(root);
    let groups = |annotations: Value| {
        let t = annotated("groups", annotations);
        t.sh("id -G");
        let run = t.bundle_command("run", &[]).under(&["setpriv", "--groups=0,77,88"]);
        run.go().ok().stdout()
    };
    assert_eq!(groups(json!({})).trim(), "0");
    assert_eq!(groups(json!({ "run.oci.keep_original_groups": "0" })).trim(), "0");
    assert_eq!(groups(json!({ "run.oci.keep_original_groups": "1" })).trim(), "0 77 88");
}

#[test]
fn pidfd_receiver() {
    requires!(root);
    rrun_only!("crun 1.8 sends the pidfd of a process that may end before it is read");
    let t = Test::new("pidfdreceiver");
    let socket = FdSocket::bind(&t.dir.join("p"));
    t.edit(|c| c["annotations"] = json!({ "run.oci.pidfd_receiver": socket.path })).sh("exec sleep 1000");
    let create = t.bundle_command("create", &[]).spawn();
    let (_, fds) = socket.receive();
    create.wait().ok();
    assert_eq!(fds.len(), 1);
    let mut poll = [rustix::event::PollFd::new(&fds[0], rustix::event::PollFlags::IN)];
    let none = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    assert_eq!(rustix::event::poll(&mut poll, Some(&none)).unwrap(), 0, "init still lives");
    t.kill("KILL").ok();
    let limit = rustix::event::Timespec { tv_sec: 5, tv_nsec: 0 };
    assert_eq!(rustix::event::poll(&mut poll, Some(&limit)).unwrap(), 1, "it is not init's pidfd");
    t.end();
}

/// Where `listenerPath` is given it stands, whatever the annotation says.
#[test]
fn seccomp_receiver_stands_in_for_the_listener_path() {
    requires!(root);
    for own in [false, true] {
        let t = Test::new("secreceiver");
        let socket = FdSocket::bind(&t.dir.join("l"));
        let annotation = if own { t.dir.join("nobody") } else { socket.path.clone() };
        t.edit(|c| {
            c["annotations"] = json!({ "run.oci.seccomp.receiver": annotation });
            c["linux"]["seccomp"] = json!({ "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{ "names": ["sethostname"], "action": "SCMP_ACT_NOTIFY" }] });
            if own {
                c["linux"]["seccomp"]["listenerPath"] = json!(socket.path);
            }
        });
        t.sh("exec sleep 1000");
        let run = t.bundle_command("run", &["--detach"]).spawn();
        let (text, fds) = socket.receive();
        run.wait().ok();
        let state: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((state["state"]["id"].as_str(), fds.len()), (Some(t.id.as_str()), 1));
        drop(fds);
        t.end();
    }
}

/// By default such a name is of a newer kernel or another machine, and ignored.
#[test]
fn seccomp_fail_unknown_syscall() {
    requires!(root);
    let t = Test::new("secunknown");
    t.edit(|c| {
        c["linux"]["seccomp"] = json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            { "names": ["mkdir", "no_such_call"], "action": "SCMP_ACT_ERRNO" }] });
    });
    assert_eq!(t.output("echo runs"), "runs\n");
    t.edit(|c| c["annotations"] = json!({ "run.oci.seccomp_fail_unknown_syscall": "1" }));
    let out = t.run();
    if crate::harness::is_rrun() {
        out.fails("linux.seccomp.syscalls[0].names[1]").says("no_such_call").one_line();
    } else {
        assert_ne!(out.code, Some(0), "{out:?}");
    }
    t.nothing_left();
}

#[test]
fn hooks_stdout_and_stderr() {
    requires!(root);
    let t = Test::new("hookout");
    let hook = t.dir.join("hook");
    script(&hook, "#!/bin/sh\necho to stdout $1\necho to stderr $1 >&2\n");
    let (stdout, stderr) = (t.dir.join("stdout"), t.dir.join("stderr"));
    t.edit(|c| {
        c["annotations"] = json!({ "run.oci.hooks.stdout": stdout, "run.oci.hooks.stderr": stderr });
        c["hooks"] = json!({ "createRuntime": [{ "path": hook, "args": ["hook", "one"] }],
            "poststop": [{ "path": hook, "args": ["hook", "two"] }] });
    });
    fs::write(&stdout, "before\n").unwrap();
    let out = t.run();
    assert_eq!(out.ok().stdout(), "", "a hook's output is not the container's");
    assert_eq!(fs::read_to_string(&stdout).unwrap(), "before\nto stdout one\nto stdout two\n");
    assert_eq!(fs::read_to_string(&stderr).unwrap(), "to stderr one\nto stderr two\n");
}
