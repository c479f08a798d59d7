//! Terminals and descriptors: foreground pty, console socket, detach, preserved fds, socket activation, sd_notify.

use crate::harness::{SECONDS_5, Test, wait_for};
use crate::pty::{FdSocket, Pty, settings};
use crate::{requires, rrun_only};
use serde_json::json;
use std::fs;
use std::os::unix::net::UnixDatagram;

fn terminal(name: &str, script: &str) -> Test {
    let t = Test::new(name);
    t.sh(script).edit(|c| c["process"]["terminal"] = json!(true));
    t
}

#[test]
fn a_foreground_terminal_is_a_real_one_and_follows_resizes() {
    requires!(root);
    let t =
        terminal("tty", "tty; test -c /dev/console && echo console; stty size; read x; stty size; exit 6");
    let run = t.bundle_command("run", &[]);
    let (mut pty, slave, mut child) = Pty::spawn_run(&run);
    let before = settings(&slave);
    pty.expect("/dev/pts/0");
    pty.expect("console");
    pty.resize(44, 133);
    wait_for("the new size", SECONDS_5, || {
        let out = t.exec(&["stty", "-F", "/dev/pts/0", "size"]);
        (out.stdout().trim() == "44 133").then_some(())
    });
    assert_ne!(settings(&slave), before, "the caller's terminal must be raw meanwhile");
    pty.send("go\n");
    pty.expect("44 133");
    assert_eq!(child.wait().unwrap().code(), Some(6));
    assert_eq!(settings(&slave), before, "the caller's terminal was not restored");
    t.nothing_left();
}

#[test]
fn the_terminal_is_restored_when_create_fails() {
    requires!(root);
    let t = terminal("ttyfail", "true");
    t.edit(|c| c["process"]["args"] = json!(["/no/such"]));
    let (mut pty, slave, mut child) = Pty::spawn_run(&t.bundle_command("run", &[]));
    let before = settings(&slave);
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert_eq!(settings(&slave), before);
    drop(slave);
    pty.drain();
    assert!(pty.seen.contains("no such file"), "{}", pty.seen);
    t.nothing_left();
}

#[test]
fn interrupt_reaches_the_container_through_the_terminal() {
    requires!(root);
    let t = terminal("ttyint", "trap 'echo caught; exit 9' INT; echo up; while :; do sleep 0.05; done");
    let (mut pty, _slave, mut child) = Pty::spawn_run(&t.bundle_command("run", &[]));
    pty.expect("up");
    pty.send("\x03");
    pty.expect("caught");
    assert_eq!(child.wait().unwrap().code(), Some(9));
    t.nothing_left();
}

#[test]
fn the_console_size_is_set() {
    requires!(root);
    let t = terminal("ttysize", "stty size; sleep 1000");
    t.edit(|c| c["process"]["consoleSize"] = json!({ "height": 21, "width": 77 }));
    let socket = FdSocket::bind(&t.dir.join("c"));
    let create = t.bundle_command("create", &["--console-socket", socket.path.to_str().unwrap()]).spawn();
    let (_, mut fds) = socket.receive();
    let mut pty = Pty::of(fds.remove(0));
    create.wait().ok();
    t.start();
    pty.expect("21 77");
    t.end();
}

/// go-runc and conmon: one message, the pty's name and exactly one descriptor.
#[test]
fn the_console_socket_gets_one_descriptor() {
    requires!(root);
    let t = terminal("console", "tty; id -u; ls -l /dev/console; read x; echo got $x; sleep 1000");
    let socket = FdSocket::bind(&t.dir.join("c"));
    let run =
        t.bundle_command("run", &["--detach", "--console-socket", socket.path.to_str().unwrap()]).spawn();
    let (name, mut fds) = socket.receive();
    assert_eq!(fds.len(), 1);
    assert!(name.contains("pt"), "{name:?}");
    run.wait().ok();
    let mut pty = Pty::of(fds.remove(0));
    pty.expect("/dev/pts/0");
    pty.send("word\n");
    pty.expect("got word");
    t.end();
}

#[test]
fn the_pidfd_socket_gets_the_inits_pidfd() {
    requires!(root);
    rrun_only!("--pidfd-socket is newer than runc 1.1");
    let t = Test::new("pidfd");
    let socket = FdSocket::bind(&t.dir.join("p"));
    t.sh("exec sleep 1000");
    let create = t.bundle_command("create", &["--pidfd-socket", socket.path.to_str().unwrap()]).spawn();
    let (text, fds) = socket.receive();
    assert_eq!((text.as_str(), fds.len()), ("standard", 1));
    create.wait().ok();
    t.kill("KILL").ok();
    let mut poll = [rustix::event::PollFd::new(&fds[0], rustix::event::PollFlags::IN)];
    let limit = rustix::event::Timespec { tv_sec: 5, tv_nsec: 0 };
    assert_eq!(rustix::event::poll(&mut poll, Some(&limit)).unwrap(), 1, "it is not init's pidfd");
    t.end();
}

#[test]
fn detach_returns_while_the_container_runs() {
    requires!(root);
    let t = Test::new("detach");
    t.sh("sleep 1000");
    let out = t.bundle_command("run", &["--detach"]).limit(SECONDS_5).go();
    out.ok();
    assert_eq!(t.status(), "running");
    t.end();
}

#[test]
fn preserved_fds_and_no_others_reach_the_process() {
    requires!(root);
    let t = Test::new("fds");
    t.sh("cat <&3; cat <&4; ls /proc/self/fd | tr '\\n' ' '");
    fs::write(t.dir.join("three"), "three\n").unwrap();
    fs::write(t.dir.join("four"), "four\n").unwrap();
    let run = t.bundle_command("run", &["--preserve-fds", "2"]);
    let out = run.through("exec 3<three 4<four 5<four 9<four; exec \"$@\"").go();
    // ls itself opens one more, the lowest that is free.
    assert_eq!(out.ok().stdout(), "three\nfour\n0 1 2 3 4 5 ");
}

#[test]
fn listen_fds_are_passed_with_listen_pid_1() {
    requires!(root);
    let t = Test::new("listen");
    t.sh("echo $LISTEN_FDS $LISTEN_PID; cat <&3");
    fs::write(t.dir.join("three"), "three\n").unwrap();
    let run = t.bundle_command("run", &[]).env("LISTEN_FDS", "1");
    let out = run.through("exec 3<three; export LISTEN_PID=$$; exec \"$@\"").go();
    assert_eq!(out.ok().stdout(), "1 1\nthree\n");
}

#[test]
fn ready_is_forwarded_to_the_notify_socket() {
    requires!(root);
    requires!(crate::harness::program("python3").is_some(), "needs python3");
    let t = Test::new("notify");
    let path = t.dir.join("n");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(SECONDS_5 * 2)).unwrap();
    // busybox cannot send datagrams: the sender enters the container's mount namespace from outside.
    t.sh("echo $NOTIFY_SOCKET > /where; exec sleep 1000");
    let run = t.bundle_command("run", &["--detach"]).env("NOTIFY_SOCKET", path.to_str().unwrap()).spawn();
    let inside = wait_for("NOTIFY_SOCKET inside", SECONDS_5, || {
        fs::read_to_string(t.rootfs.join("where")).ok().filter(|w| !w.is_empty())
    });
    let pid = wait_for("the container", SECONDS_5, || {
        let out = t.rt(&["state", &t.id]).go();
        let state: serde_json::Value = serde_json::from_str(&out.stdout()).ok()?;
        state["pid"].as_u64().filter(|p| *p > 0)
    });
    let socket_inside = format!("/proc/{pid}/root{}", inside.trim());
    let python = "import socket,sys; s=socket.socket(socket.AF_UNIX,socket.SOCK_DGRAM); s.sendto(b'READY=1\\n',sys.argv[1])";
    let status = std::process::Command::new("python3").args(["-c", python, &socket_inside]).status().unwrap();
    assert!(status.success());
    let mut text = String::new();
    let mut buffer = [0; 512];
    while !(text.contains("READY=1") && text.contains("MAINPID=")) {
        let n = socket.recv(&mut buffer).unwrap_or_else(|e| panic!("{e}, after {text:?}"));
        text += &String::from_utf8_lossy(&buffer[..n]);
    }
    drop(socket);
    let _ = run.wait();
    t.end();
}

#[test]
fn a_console_socket_that_nobody_serves_is_an_error() {
    requires!(root);
    let t = terminal("noconsole", "true");
    let out = t.bundle_command("create", &["--console-socket", "/no/such/socket"]).go();
    out.fails("no such file|console");
    t.nothing_left();
}
