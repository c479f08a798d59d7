//! `attach`, `exec` and `start -ai`: what is typed and seen at real pseudo-terminals, and much data through pipes.

use crate::containers::with_site;
use crate::harness::*;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, open};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcgetattr, tcsetwinsize};
use std::fs::{self, File};
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The machine may have much else to do.
const PATIENCE: Duration = Duration::from_secs(90);

/// A terminal with a command at it.
struct Screen {
    master: OwnedFd,
    terminal: OwnedFd,
    child: Child,
    seen: Vec<u8>,
    /// How much of it was looked at.
    at: usize,
}

impl Screen {
    fn new(engine: &Engine, (rows, columns): (u16, u16), arguments: &[&str]) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("openpt");
        grantpt(&master).expect("grantpt");
        unlockpt(&master).expect("unlockpt");
        let name = ptsname(&master, Vec::new()).expect("ptsname");
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let terminal = open(&name, flags, Mode::empty()).expect("open");
        let command = engine.command(arguments);
        // setsid(1) makes it the terminal of the session, so that its signals come, and executes the command itself.
        let mut session = Command::new("setsid");
        session.arg("--ctty").arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => session.env(name, value),
                None => session.env_remove(name),
            };
        }
        let end = || Stdio::from(terminal.try_clone().expect("dup"));
        let mut screen = Self {
            child: {
                tcsetwinsize(&master, size(rows, columns)).expect("a size");
                session.stdin(end()).stdout(end()).stderr(end()).spawn().expect("apt-get install util-linux")
            },
            master,
            terminal,
            seen: Vec::new(),
            at: 0,
        };
        screen.read(Duration::ZERO);
        screen
    }

    /// Reads what there is, or comes within `patience`; whether there was something.
    fn read(&mut self, patience: Duration) -> bool {
        let patience =
            Timespec { tv_sec: patience.as_secs().cast_signed(), tv_nsec: patience.subsec_nanos().into() };
        if poll(&mut [PollFd::new(&self.master, PollFlags::IN)], Some(&patience)) != Ok(1) {
            return false;
        }
        let mut piece = [0; 4096];
        let length = rustix::io::read(&self.master, &mut piece).expect("read");
        self.seen.extend_from_slice(&piece[..length]);
        true
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.seen[self.at..]).into_owned()
    }

    #[track_caller]
    fn sees(&mut self, wanted: &str) -> &mut Self {
        let until = Instant::now() + PATIENCE;
        loop {
            let found =
                self.seen[self.at..].windows(wanted.len()).position(|window| window == wanted.as_bytes());
            if let Some(at) = found {
                self.at += at + wanted.len();
                return self;
            }
            assert!(Instant::now() < until, "no {wanted:?}: {:?}", self.text());
            self.read(Duration::from_millis(100));
        }
    }

    fn types(&mut self, keys: &str) -> &mut Self {
        let mut keys = keys.as_bytes();
        while !keys.is_empty() {
            keys = &keys[rustix::io::write(&self.master, keys).expect("write")..];
        }
        self
    }

    fn resize(&mut self, rows: u16, columns: u16) -> &mut Self {
        tcsetwinsize(&self.master, size(rows, columns)).expect("a size");
        self
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it is there");
    }

    fn is_raw(&self) -> bool {
        !tcgetattr(&self.terminal).expect("termios").local_modes.contains(rustix::termios::LocalModes::ICANON)
    }

    /// Its exit code, or -n of a signal; the terminal is as it was.
    #[track_caller]
    fn ends(&mut self) -> i32 {
        let until = Instant::now() + PATIENCE;
        let status = loop {
            self.read(Duration::from_millis(20));
            if let Some(status) = self.child.try_wait().expect("waitpid") {
                break status;
            }
            assert!(Instant::now() < until, "it does not end: {:?}", self.text());
        };
        while self.read(Duration::ZERO) {}
        assert!(!self.is_raw(), "the terminal is given back");
        status.code().unwrap_or_else(|| -status.signal().expect("one of the two"))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn size(rows: u16, columns: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

/// Waits for something that comes by itself.
#[track_caller]
fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < until, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Runs a command to its end: its code and both outputs.
fn ran(engine: &Engine, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = engine.run(arguments);
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn is_running(engine: &Engine, name: &str) -> bool {
    engine.prints(&["inspect", "-f", "{{.State.Running}}", name]) == "true\n"
}

/// 10 MiB of which no two places are alike.
fn much() -> Vec<u8> {
    (0..10_u32 << 18).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect()
}

#[test]
fn c7_a_terminal_is_typed_at_resized_left_and_taken_again() {
    with_site(|engine| {
        let mut screen = Screen::new(engine, (24, 80), &["run", "-it", "--name", "box", "site", "sh"]);
        screen.sees("# ").types("stty size\r").sees("24 80").sees("# ");
        assert!(screen.is_raw());
        screen.resize(31, 101).types("stty size\r").sees("31 101").sees("# ");
        // One ctrl-p is the container's if no ctrl-q follows.
        screen.types("\x10\x10\x11").sees("read escape sequence");
        assert_eq!(screen.ends(), 0);
        assert!(is_running(engine, "box"));

        let mut screen = Screen::new(engine, (20, 60), &["attach", "box"]);
        screen.types("\r").sees("# ").types("stty size\r").sees("20 60").sees("# ");
        // What is echoed and what cat says: it runs, and ctrl-c is for it.
        screen.types("echo re''ady; cat\r").sees("ready").types("marker\r").sees("marker").sees("marker");
        screen.types("\x03");
        screen.sees("# ").types("echo code $?\r").sees("code 130").sees("# ");
        screen.types("exit 7\r");
        assert_eq!(screen.ends(), 7);
        assert_eq!(
            ran(engine, &["attach", "box"]),
            (
                Some(1),
                String::new(),
                "Error: You cannot attach to a stopped container, start it first\n".to_owned()
            )
        );
        assert_eq!(engine.prints(&["inspect", "-f", "{{.State.ExitCode}}", "box"]), "7\n");

        let keys = ["start", "-ai", "--detach-keys", "ctrl-x,q", "box"];
        let mut screen = Screen::new(engine, (24, 80), &keys);
        screen
            .sees("# ")
            .types("echo re''ady; cat\r")
            .sees("ready")
            .types("\x10\x11go\r")
            .sees("go\r\n")
            .sees("go\r\n");
        screen.types("\x18q").sees("read escape sequence");
        assert_eq!(screen.ends(), 0);
        // Without a terminal here there is none to be had there.
        let output = engine.fed(&["attach", "box"], b"");
        assert_eq!(refusal(&output, &[]), "the input device is not a TTY");
        let output = engine.fed(&["exec", "-it", "box", "sh"], b"");
        assert_eq!(refusal(&output, &[]), "the input device is not a TTY");
        engine.prints(&["rm", "-f", "box"]);
    });
}

#[test]
fn c2_c7_ctrl_c_ends_the_server_that_is_attached_to() {
    with_site(|engine| {
        let server = "trap 'echo bye; exit 3' INT; echo early; while :; do sleep 0.1; done";
        engine.prints(&["run", "-dit", "--name", "web", "site", "sh", "-c", server]);
        eventually("it runs", || engine.prints(&["logs", "web"]).contains("early"));
        let mut screen = Screen::new(engine, (24, 80), &["attach", "web"]);
        eventually("it is attached", || screen.is_raw());
        screen.types("\x03").sees("bye");
        assert_eq!(screen.ends(), 3);
        // What it wrote before is the log's.
        assert!(!screen.text().contains("early"), "{}", screen.text());
    });
}

#[test]
fn a_signal_that_ends_the_client_leaves_the_terminal_as_it_was_and_the_container_running() {
    with_site(|engine| {
        let mut screen = Screen::new(engine, (24, 80), &["run", "-it", "--name", "box", "site", "sh"]);
        screen.sees("# ");
        assert!(screen.is_raw());
        screen.signal(Signal::TERM);
        assert_eq!(screen.ends(), -Signal::TERM.as_raw());
        assert!(is_running(engine, "box"));
        engine.prints(&["rm", "-f", "box"]);
    });
}

#[test]
fn signals_go_to_a_container_without_a_terminal_unless_that_is_not_wanted() {
    with_site(|engine| {
        let script = "trap 'echo got; exit 5' TERM; echo up; while :; do sleep 0.05; done";
        let spawn = |arguments: &[&str]| {
            let mut command = engine.command(arguments);
            command.stdout(Stdio::piped()).spawn().expect("rrunctl starts")
        };
        let line = |child: &mut Child| {
            let mut got = [0; 3];
            child.stdout.as_mut().expect("a pipe").read_exact(&mut got).expect("a line");
            assert_eq!(&got, b"up\n");
        };
        let mut run = spawn(&["run", "--name", "box", "site", "sh", "-c", script]);
        line(&mut run);

        let quiet = ["attach", "--no-stdin", "--sig-proxy=false", "box"];
        let mut quiet = spawn(&quiet);
        let mut proxy = spawn(&["attach", "--no-stdin", "box"]);
        // From then on they take signals.
        for child in [&quiet, &proxy] {
            eventually("it waits for signals", || {
                let fds = fs::read_dir(format!("/proc/{}/fd", child.id())).expect("it is there");
                let targets = fds.flatten().filter_map(|fd| fs::read_link(fd.path()).ok());
                targets.into_iter().any(|target| target.to_string_lossy().contains("[signalfd]"))
            });
        }
        kill_process(Pid::from_child(&quiet), Signal::TERM).expect("it is there");
        assert_eq!(quiet.wait().expect("waitpid").signal(), Some(Signal::TERM.as_raw()));
        assert!(is_running(engine, "box"));
        kill_process(Pid::from_child(&proxy), Signal::TERM).expect("it is there");
        assert_eq!(proxy.wait().expect("waitpid").code(), Some(5));
        let mut rest = String::new();
        run.stdout.take().expect("a pipe").read_to_string(&mut rest).expect("read");
        assert_eq!((run.wait().expect("waitpid").code(), &*rest), (Some(5), "got\n"));
        engine.prints(&["rm", "box"]);
    });
}

#[test]
fn ten_megabytes_come_through_whole() {
    with_site(|engine| {
        let bytes = much();
        let same = |output: std::process::Output| {
            assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(0), ""));
            assert!(output.stdout == bytes, "{} bytes of {}", output.stdout.len(), bytes.len());
        };
        same(engine.fed(&["run", "--rm", "-i", "site", "cat"], &bytes));
        engine.prints(&["create", "-i", "--name", "once", "site", "cat"]);
        same(engine.fed(&["start", "-ai", "once"], &bytes));

        engine.prints(&["run", "-d", "--name", "box", "site", "sleep", "1000"]);
        same(engine.fed(&["exec", "-i", "box", "cat"], &bytes));
        // Files are copied, for nobody inside shall have the host's.
        fs::write(engine.path("in"), &bytes).expect("write");
        let file = |name: &str| File::open(engine.path(name)).expect("open");
        let mut command =
            engine.command(&["exec", "-i", "box", "sh", "-c", "cat; readlink /proc/self/fd/0 >&2"]);
        let out = File::create(engine.path("out")).expect("create");
        let output =
            command.stdin(file("in")).stdout(out).stderr(Stdio::piped()).output().expect("rrunctl starts");
        assert_eq!(output.status.code(), Some(0));
        assert!(text(&output.stderr).starts_with("pipe:"), "{}", text(&output.stderr));
        assert!(fs::read(engine.path("out")).expect("read") == bytes);
        engine.prints(&["rm", "-f", "box", "once"]);
    });
}

#[test]
fn c6_a_further_process_is_run_as_it_is_asked_for() {
    with_site(|engine| {
        engine.prints(&["run", "-d", "--name", "box", "-e", "A=1", "site", "sleep", "1000"]);
        let says = |arguments: &[&str]| engine.prints(&[&["exec"], arguments].concat());
        assert_eq!(says(&["box", "pwd"]), "/www\n");
        assert_eq!(says(&["-w", "/tmp", "box", "pwd"]), "/tmp\n");
        assert_eq!(
            says(&["-e", "A=2", "-e", "B=3", "box", "sh", "-c", "echo $A $B $LEVEL $HOME"]),
            "2 3 1 /root\n"
        );
        assert_eq!(
            says(&["-u", "alice", "box", "sh", "-c", "id; echo $HOME"]),
            "uid=1000(alice) gid=1001(staff) groups=29(audio),1001(staff)\n/home/alice\n"
        );
        assert_eq!(says(&["-u", "7:8", "box", "id"]), "uid=7 gid=8 groups=8\n");
        let capabilities = |arguments: &[&str]| {
            let status = says(&[arguments, &["box", "cat", "/proc/self/status"]].concat());
            let line = status.lines().find(|line| line.starts_with("CapEff:")).expect("a line").to_owned();
            u64::from_str_radix(line.trim_start_matches("CapEff:").trim(), 16).expect("a number")
        };
        assert_eq!(capabilities(&[]), 0xa804_25fb);
        assert!(capabilities(&["--privileged"]) & (1 << 21) != 0, "CAP_SYS_ADMIN");
        assert_eq!(capabilities(&["-u", "alice"]), 0);
        // Nobody types at it.
        assert_eq!(says(&["box", "cat"]), "");

        for (arguments, code, words) in [
            (&["box", "sh", "-c", "exit 3"][..], 3, ""),
            (&["box", "sh", "-c", "kill -9 $$"], 137, ""),
            (
                &["box", "nosuch"],
                127,
                "OCI runtime exec failed: exec failed: unable to start container process: exec: \"nosuch\": executable file not found in $PATH: unknown",
            ),
            (&["box", "/etc/passwd"], 126, "permission denied"),
            (
                &["-u", "nosuch", "box", "id"],
                126,
                "unable to find user nosuch: no matching entries in passwd file",
            ),
            (&["-w", "tmp", "box", "id"], 126, "Cwd must be an absolute path"),
            (&["nosuch", "id"], 1, "No such container: nosuch"),
        ] {
            let (got, out, err) = ran(engine, &[&["exec"], arguments].concat());
            assert_eq!((got, out.as_str()), (Some(code), ""), "{arguments:?}: {err}");
            assert!(err.contains(words) && err.is_empty() == words.is_empty(), "{arguments:?}: {err}");
        }
        engine.prints(&["pause", "box"]);
        let refused = |arguments: &[&str]| engine.refuses(arguments);
        assert!(refused(&["exec", "box", "id"]).ends_with(" is paused, unpause the container before exec"));
        assert_eq!(
            refused(&["attach", "--no-stdin", "box"]),
            "You cannot attach to a paused container, unpause it first"
        );
        engine.prints(&["unpause", "box"]);
        engine.prints(&["kill", "box"]);
        engine.run(&["wait", "box"]);
        assert!(refused(&["exec", "box", "id"]).ends_with(" is not running"));
        engine.prints(&["rm", "box"]);
    });
}

#[test]
fn c6_a_process_with_a_terminal_is_left_and_goes_on() {
    with_site(|engine| {
        engine.prints(&["run", "-d", "--name", "box", "site", "sleep", "1000"]);
        let mut screen = Screen::new(engine, (24, 80), &["exec", "-it", "box", "sh"]);
        screen.sees("# ").types("stty size; echo $TERM\r").sees("24 80\r\nxterm\r\n").sees("# ");
        screen.resize(31, 101).types("stty size\r").sees("31 101").sees("# ");
        screen.types("exit 9\r");
        assert_eq!(screen.ends(), 9);

        // It writes more than a terminal keeps, and waits for nobody.
        let script =
            "n=0; while :; do n=$((n+1)); echo a line that fills the terminal $n; echo $n >/dev/shm/n; done";
        let mut screen = Screen::new(engine, (24, 80), &["exec", "-it", "box", "sh", "-c", script]);
        screen.sees("terminal 10\r\n").types("\x10\x11");
        assert_eq!(screen.ends(), 0);
        let count = || {
            let text = engine.prints(&["exec", "box", "cat", "/dev/shm/n"]);
            text.trim().parse::<u64>().unwrap_or(0)
        };
        let before = count();
        eventually("it goes on", || count() > before + 5_000);

        // Whose client dies has lost its terminal.
        let mut screen = Screen::new(
            engine,
            (24, 80),
            &["exec", "-it", "box", "sh", "-c", "echo $$ >/tmp/pid; echo ready; cat"],
        );
        screen.sees("ready\r\n").types("x\r").sees("x\r\nx\r\n");
        screen.signal(Signal::TERM);
        assert_eq!(screen.ends(), -Signal::TERM.as_raw());
        let is_there =
            || ran(engine, &["exec", "box", "sh", "-c", "test -e /proc/$(cat /tmp/pid)"]).0 == Some(0);
        eventually("it has ended", || !is_there());

        // Without -t nobody inside has the terminal.
        let mut screen = Screen::new(
            engine,
            (24, 80),
            &["exec", "-i", "box", "sh", "-c", "readlink /proc/self/fd/0; cat"],
        );
        screen.sees("pipe:").sees("]\r\n").types("typed\r").sees("typed\r\ntyped\r\n").types("\x04");
        assert_eq!(screen.ends(), 0);
        engine.prints(&["rm", "-f", "box"]);
    });
}

#[test]
fn a_process_that_nobody_waits_for_outlives_its_client_and_is_reaped() {
    with_site(|engine| {
        engine.prints(&["run", "-d", "--name", "box", "site", "sleep", "1000"]);
        let script = "echo $$ >/tmp/pid; while ! test -e /tmp/go; do sleep 0.02; done; echo done >/tmp/done";
        assert_eq!(engine.prints(&["exec", "-d", "box", "sh", "-c", script]), "");
        let inside = |script: &str| ran(engine, &["exec", "box", "sh", "-c", script]).0 == Some(0);
        eventually("it runs", || inside("test -s /tmp/pid && test -e /proc/$(cat /tmp/pid)"));
        assert!(inside("touch /tmp/go"));
        eventually("it ends, and nothing is left of it", || {
            inside("test -e /tmp/done && ! test -e /proc/$(cat /tmp/pid)")
        });
        // With a terminal, and with nobody at it.
        engine.prints(&["exec", "-d", "-t", "box", "sh", "-c", "readlink /proc/self/fd/0 >/tmp/tty"]);
        eventually("it had a terminal", || {
            inside("read line </tmp/tty && case $line in /dev/pts/*) ;; *) false ;; esac")
        });
        assert_eq!(ran(engine, &["exec", "-d", "box", "nosuch"]).0, Some(127));
        engine.prints(&["rm", "-f", "box"]);
    });
}

#[test]
fn signals_to_the_client_are_the_processs() {
    with_site(|engine| {
        engine.prints(&["run", "-d", "--name", "box", "site", "sleep", "1000"]);
        let script = "trap 'echo got; exit 6' TERM; echo up; while :; do sleep 0.05; done";
        let mut command = engine.command(&["exec", "box", "sh", "-c", script]);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("rrunctl starts");
        let mut out = child.stdout.take().expect("a pipe");
        let mut up = [0; 3];
        out.read_exact(&mut up).expect("a line");
        // Not SIGINT: whoever runs the tests in the background has it ignored, and what is ignored is not sent on.
        kill_process(Pid::from_child(&child), Signal::TERM).expect("it is there");
        let mut rest = String::new();
        out.read_to_string(&mut rest).expect("read");
        assert_eq!((child.wait().expect("waitpid").code(), &*rest), (Some(6), "got\n"));
        engine.prints(&["rm", "-f", "box"]);
    });
}
