//! Terminals and descriptors: foreground pty, console socket, detach, preserved fds, socket activation, sd_notify.

use crate::harness::{Run, SECONDS_5, Test, ends_within, is_rrun, patiently, wait_for};
use crate::pty::{FdSocket, Pty, receive, settings};
use crate::{requires, rrun_only};
use serde_json::json;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

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

/// Those that the caller has not open are not in the container either, as by crun and youki: neither an error nor, in
/// their place, what the runtime has open.
#[test]
fn a_preserved_fd_that_is_not_open_is_not_there() {
    requires!(root);
    rrun_only!("an error of runc's");
    let t = Test::new("fdgap");
    t.sh("cat <&4; ls /proc/self/fd | tr '\\n' ' '");
    fs::write(t.dir.join("four"), "four\n").unwrap();
    let run = t.bundle_command("run", &["--preserve-fds", "5"]);
    let out = run.through("exec 3<&- 4<four 5<&- 6<&- 7<&-; exec \"$@\"").go();
    assert_eq!(out.ok().stdout(), "four\n0 1 2 3 4 ");
    t.nothing_left();
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

/// sd_notify(3): READY=1 comes with the pid of init; behind it a barrier, whose descriptor systemd closes when
/// it has seen everything before. `run` and `start` return no sooner: systemd looks up the sender.
fn ready(t: &Test, command: impl FnOnce(&Test) -> Run<'_>) {
    let path = t.dir.join("n");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(patiently(SECONDS_5 * 2))).unwrap();
    let run = command(t).env("NOTIFY_SOCKET", path.to_str().unwrap()).spawn();
    let (text, fds) = receive(&socket);
    if is_rrun() {
        let pid = t.pid();
        assert_eq!((text.as_str(), fds.len()), (format!("READY=1\nMAINPID={pid}\n").as_str(), 0));
        let (text, fds) = receive(&socket);
        assert_eq!((text.trim_end(), fds.len()), ("BARRIER=1", 1));
        assert!(!ends_within(&run.child, Duration::from_millis(100)), "it did not wait for systemd");
        drop(fds);
    } else {
        // runc 1.1 sends the pid in a datagram of its own, and waits without a barrier.
        assert_eq!(text, "READY=1\n");
    }
    run.wait().ok();
    t.end();
}

const READY: &str = "probe notify 'STATUS=half way'; probe notify 'READY=1\nSTATUS=up'; exec sleep 1000";

#[test]
fn run_forwards_ready_to_the_notify_socket_and_waits_for_the_barrier() {
    requires!(root);
    let t = Test::new("notify");
    t.add_probe().sh(READY);
    ready(&t, |t| t.bundle_command("run", &["--detach"]));
}

#[test]
fn start_forwards_ready_too() {
    requires!(root);
    let t = Test::new("notifystart");
    t.add_probe().sh(READY);
    // The variable stands in the environment of create as well, as systemd sets it for a whole service.
    let path = t.dir.join("n");
    t.bundle_command("create", &[]).env("NOTIFY_SOCKET", path.to_str().unwrap()).go().ok();
    ready(&t, |t| t.rt(&["start", &t.id]));
}

#[test]
fn a_container_that_ends_without_ready_does_not_hold_run_up() {
    requires!(root);
    let t = Test::new("notifynone");
    let path = t.dir.join("n");
    let _socket = UnixDatagram::bind(&path).unwrap();
    t.sh("exit 0");
    let run = t.bundle_command("run", &["--detach"]).env("NOTIFY_SOCKET", path.to_str().unwrap());
    run.limit(SECONDS_5 * 2).go().ok();
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
