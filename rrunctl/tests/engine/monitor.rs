//! `rrunmon` with rrun and a root of busybox; as root. `RRUN` names the runtime if it is not `../target/release/rrun`.

use rrunctl::home;
use rrunctl::monitor::logs::{self, LogOptions, Stream};
use rrunctl::monitor::{
    Attach, Client, Dns, Driver, Exit, Found, Log, Phase, Policy, Port, Restart, Root, Settings, Setup,
    Until, adopt, find, spawn,
};
use rrunctl::network::{Netns, dns, make_netns, remove_netns};
use rustix::fs::{FlockOperation, flock};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::{Read, Write as _};
use std::net::{Ipv6Addr, Shutdown, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Standard output and error.
const OUTPUT: Attach = Attach { stdin: false, stdout: true, stderr: true, framed: false };
/// Input and output.
const BOTH: Attach = Attach { stdin: true, stdout: true, stderr: false, framed: false };

/// A container with its directories, of which nothing is left in the end.
struct Container {
    dir: PathBuf,
    setup: Setup,
    config: Value,
}

impl Container {
    /// One that executes `script` in a shell.
    fn new(script: &str) -> Self {
        assert!(rustix::process::geteuid().is_root(), "these tests need root");
        let runtime = std::env::var_os("RRUN").map_or_else(
            || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release/rrun"),
            PathBuf::from,
        );
        assert!(runtime.exists(), "no rrun at {}: build it or set RRUN", runtime.display());
        let id = format!("mon-{}", home::unique().expect("random"));
        let dir = std::env::temp_dir().join(format!("rrunctl-{id}"));
        let made = |name: &str| {
            fs::DirBuilder::new().recursive(true).create(dir.join(name)).expect("mkdir");
            dir.join(name)
        };
        let lower = made("lower");
        for path in ["lower/bin", "lower/proc", "lower/dev", "bundle", "containers"] {
            made(path);
        }
        fs::copy("/bin/busybox", lower.join("bin/busybox")).expect("busybox-static in /bin");
        for applet in ["sh", "cat", "dd", "head", "nc", "nslookup", "sleep", "stty", "yes"] {
            std::os::unix::fs::symlink("busybox", lower.join("bin").join(applet)).expect("symlink");
        }
        let settings = Settings {
            id: id.clone(),
            bundle: dir.join("bundle"),
            runtime: vec![
                runtime.display().to_string(),
                "--root".to_owned(),
                dir.join("rrun").display().to_string(),
            ],
            run: made("run"),
            root: Some(Root {
                lower: vec![lower],
                upper: made("upper"),
                work: made("work"),
                merged: made("merged"),
                options: Vec::new(),
            }),
            tty: false,
            open_stdin: false,
            stdin_once: false,
            log: Log { path: dir.join("containers/json.log"), ..Log::default() },
            restart: Restart::default(),
            ports: Vec::new(),
            dns: None,
            // Shows that the end is written down before.
            ended: ["/bin/busybox", "cp", "containers/exit.json", "ended"]
                .map(|word| if word.contains('/') || word == "ended" { dir.join(word) } else { word.into() })
                .map(|word| word.display().to_string())
                .into(),
        };
        let mounts = json!([
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance", "ptmxmode=0666"]},
        ]);
        let namespaces: Vec<_> = ["pid", "ipc", "uts", "mount"].map(|kind| json!({ "type": kind })).into();
        let config = json!({
            "ociVersion": "1.2.0",
            "process": {
                "args": ["sh", "-c", script], "cwd": "/", "env": ["PATH=/bin"], "oomScoreAdj": 0,
                "user": {"uid": 0, "gid": 0}, "terminal": false,
            },
            "root": {"path": dir.join("merged")},
            "mounts": mounts,
            "linux": {"namespaces": namespaces, "cgroupsPath": format!("/{id}"), "resources": {}},
        });
        let monitor = crate::harness::program("rrunmon");
        let file = dir.join("containers/monitor.json");
        Self { setup: Setup { monitor, file, settings, ports: Vec::new(), dns: None }, dir, config }
    }

    fn with(mut self, change: impl FnOnce(&mut Settings, &mut Value)) -> Self {
        change(&mut self.setup.settings, &mut self.config);
        self
    }

    fn spawn(&self) -> rrunctl::Result<Client> {
        fs::write(self.dir.join("bundle/config.json"), self.config.to_string()).expect("write");
        spawn(&self.setup)
    }

    fn created(&self) -> Client {
        self.spawn().expect("created")
    }

    /// Runs it to its end, with all that it said on both streams.
    fn run(&self) -> (Exit, Vec<u8>, Vec<u8>) {
        let client = self.created();
        let (stdout, stderr) = client.streams(OUTPUT).expect("attached");
        let end = client.wait(Until::Ended).expect("waiting");
        client.start().expect("started");
        let reader = reader(stderr.expect("a stream"), 4096);
        let out = all(stdout);
        // Not earlier than this is written may streams end.
        let written = self.exit();
        let exit = end.wait().expect("an exit");
        assert_eq!(written, exit);
        (exit, out, reader.join().expect("no panic"))
    }

    fn exit(&self) -> Exit {
        serde_json::from_slice(&fs::read(self.dir.join("containers/exit.json")).expect("exit.json"))
            .expect("JSON")
    }

    /// What `ended` has copied.
    fn ended(&self) -> Option<Exit> {
        Some(serde_json::from_slice(&fs::read(self.dir.join("ended")).ok()?).expect("JSON"))
    }

    fn rrun(&self, args: &[&str]) -> std::process::Output {
        let [program, options @ ..] = &self.setup.settings.runtime[..] else { unreachable!() };
        Command::new(program).args(options).args(args).output().expect("rrun")
    }

    fn fifo(&self) -> PathBuf {
        let fifo = self.dir.join("fifo");
        assert!(Command::new("/bin/busybox").arg("mkfifo").arg(&fifo).status().expect("mkfifo").success());
        fifo
    }

    fn id(&self) -> &str {
        &self.setup.settings.id
    }

    fn monitor(&self) -> Option<Pid> {
        let text = fs::read_to_string(self.setup.settings.run.join("pid")).ok()?;
        Pid::from_raw(text.trim().parse().expect("a pid"))
    }

    /// Waits until no monitor has the lock.
    fn left(&self) {
        if let Ok(pid) = File::open(self.setup.settings.run.join("pid")) {
            flock(&pid, FlockOperation::LockShared).expect("flock");
        }
    }

    fn log(&self, options: &LogOptions) -> (Vec<u8>, Vec<u8>) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        logs::read(&self.setup.settings.log.path, options, &mut |stream, line| {
            if stream == Stream::Stdout { &mut out } else { &mut err }.extend_from_slice(line);
            Ok(())
        })
        .expect("read");
        (out, err)
    }

    /// Nothing of it is on the host, at the latest when the monitor's process is gone, which is a little after it has
    /// told so.
    fn assert_gone(&self) {
        let begun = Instant::now();
        while !self.traces().is_empty() {
            assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", self.traces());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// What is on the host of this container.
    fn traces(&self) -> Vec<String> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
        let mounts = mounts.lines().filter(|line| line.contains(self.id())).map(str::to_owned);
        let cgroups = fs::read_dir("/sys/fs/cgroup").expect("cgroups").flatten().filter_map(|entry| {
            let path = entry.path().join(self.id());
            path.exists().then(|| path.display().to_string())
        });
        let processes = fs::read_dir("/proc").expect("proc").flatten().filter_map(|entry| {
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            line.contains(self.id()).then_some(line)
        });
        let run = fs::read_dir(&self.setup.settings.run).into_iter().flatten().flatten();
        let run =
            run.map(|entry| entry.file_name().display().to_string()).filter(|name| name != "rrunmon.log");
        let state = fs::read_dir(self.dir.join("rrun")).into_iter().flatten().flatten();
        let state =
            state.map(|entry| entry.path().display().to_string()).filter(|path| path.contains(self.id()));
        mounts.chain(cgroups).chain(processes).chain(run).chain(state).collect()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if std::thread::panicking() {
            if let Ok(Found::Monitored(client)) = find(&self.setup.settings) {
                let _ = client.stop_restarting();
            }
            let messages =
                fs::read_to_string(self.setup.settings.run.join("rrunmon.log")).unwrap_or_default();
            eprintln!("rrunmon said: {messages}");
        }
        self.rrun(&["delete", "--force", self.id()]);
        self.left();
        if !std::thread::panicking() {
            self.assert_gone();
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn all(mut from: impl Read) -> Vec<u8> {
    let mut all = Vec::new();
    from.read_to_end(&mut all).expect("read");
    all
}

/// Reads all of it in pieces of so many bytes.
fn reader(mut from: UnixStream, at_once: usize) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let (mut all, mut buffer) = (Vec::new(), vec![0; at_once]);
        loop {
            match from.read(&mut buffer).expect("read") {
                0 => return all,
                n => all.extend_from_slice(&buffer[..n]),
            }
        }
    })
}

/// Reads until `text` has come.
fn until(from: &mut UnixStream, text: &str) -> String {
    let mut all = Vec::new();
    while !String::from_utf8_lossy(&all).contains(text) {
        let mut byte = [0];
        assert_eq!(
            from.read(&mut byte).expect("read"),
            1,
            "no {text:?} in {:?}",
            String::from_utf8_lossy(&all)
        );
        all.push(byte[0]);
    }
    String::from_utf8(all).expect("text")
}

fn text(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).expect("text")
}

#[test]
fn a_container_ends_with_the_code_of_its_program_and_both_streams_are_whole() {
    for code in [0, 7] {
        let container = Container::new(&format!("echo out; echo err >&2; printf end; exit {code}"));
        let (exit, out, err) = container.run();
        assert_eq!((exit.code, exit.signal, exit.oom, exit.restarting), (code, None, false, false));
        let [started, finished] = [&exit.started_at, &exit.finished_at].map(|at| time(at));
        assert!(started < finished && exit.error.is_empty(), "{exit:?}");
        assert_eq!((text(&out), text(&err)), ("out\nend", "err\n"));
        assert_eq!(container.log(&LogOptions::default()), (out, err));
        assert_eq!(container.ended(), Some(exit));
    }
}

#[test]
fn a_container_that_is_killed_ends_with_128_and_the_signal() {
    let container = Container::new("echo up; sleep 1000");
    let client = container.created();
    let (mut stdout, _) = client.streams(OUTPUT).expect("attached");
    let end = client.wait(Until::Exit).expect("waiting");
    client.start().expect("started");
    until(&mut stdout, "up");
    let status = client.status().expect("a status");
    assert_eq!((status.phase, status.restarts), (Phase::Running, 0));
    assert!(Path::new(&format!("/proc/{}", status.pid)).exists());
    assert!(client.start().expect_err("it runs").to_string().contains("waits to be started"));
    assert!(container.rrun(&["kill", container.id(), "KILL"]).status.success());
    let exit = end.wait().expect("an exit");
    assert_eq!((exit.code, exit.signal, exit.oom), (137, Some(9), false));
}

#[test]
fn what_the_kernel_kills_for_want_of_memory_is_told() {
    let container = Container::new("exec dd if=/dev/zero of=/dev/null bs=200M count=1").with(|_, config| {
        config["linux"]["resources"]["memory"] = json!({"limit": 32 << 20, "swap": 32 << 20});
    });
    let (exit, _, _) = container.run();
    assert_eq!((exit.code, exit.signal, exit.oom), (137, Some(9), true));
}

#[test]
fn a_program_that_is_missing_is_told_in_the_words_of_rrun_and_nothing_is_left() {
    let container = Container::new("").with(|_, config| config["process"]["args"] = json!(["nosuch"]));
    let told = container.spawn().expect_err("no such program").to_string();
    let expected = "rrun create failed: unable to start container process: error during container init: \
                    exec: \"nosuch\": executable file not found in $PATH";
    assert_eq!(told, expected);
    assert!(matches!(find(&container.setup.settings), Ok(Found::Gone)));
    assert_eq!(container.ended(), None);
    container.assert_gone();
}

#[test]
fn settings_that_are_wrong_are_told() {
    let container = Container::new("").with(|settings, _| {
        settings.root.as_mut().expect("a root").lower = vec!["/nosuch/layer".into()];
    });
    let told = container.spawn().expect_err("no layer").to_string();
    assert_eq!(told, "open /nosuch/layer: no such file or directory");
}

#[test]
fn two_clients_and_the_log_have_64_mib_byte_for_byte() {
    let size = 64 << 20;
    let line = format!("{}\n", "0123456789abcdef".repeat(60));
    let container = Container::new(&format!("yes {} | head -c {size}", line.trim_end()));
    let client = container.created();
    let end = client.wait(Until::Ended).expect("waiting");
    let readers: Vec<_> = [700, 1 << 20]
        .map(|at_once| (client.streams(OUTPUT).expect("attached"), at_once))
        .map(|((stdout, stderr), at_once)| (reader(stdout, at_once), stderr))
        .into();
    client.start().expect("started");
    let expected: Vec<u8> = line.bytes().cycle().take(size).collect();
    for (reader, _stderr) in readers {
        let got = reader.join().expect("no panic");
        assert!(got == expected, "{} bytes of {size}", got.len());
    }
    assert_eq!(end.wait().expect("an exit").code, 0);
    let (logged, _) = container.log(&LogOptions::default());
    assert!(logged == expected, "{} bytes of {size}", logged.len());
}

#[test]
fn frames_keep_the_streams_apart_on_one_socket() {
    let container = Container::new("yes out | head -c 300000 & yes err | head -c 300000 >&2; wait");
    let client = container.created();
    let framed = Attach { framed: true, ..OUTPUT };
    let (mut socket, None) = client.streams(framed).expect("attached") else { panic!("two sockets") };
    let end = client.wait(Until::Exit).expect("waiting");
    client.start().expect("started");
    let mut streams = [Vec::new(), Vec::new()];
    let mut header = [0; 8];
    socket.read_exact(&mut header).expect("a header");
    loop {
        let length = u32::from_be_bytes([header[4], header[5], header[6], header[7]]) as usize;
        let mut payload = vec![0; length];
        socket.read_exact(&mut payload).expect("a payload");
        streams[usize::from(header[0]) - 1].extend(payload);
        if socket.read(&mut header[..1]).expect("read") == 0 {
            break;
        }
        socket.read_exact(&mut header[1..]).expect("a header");
    }
    assert_eq!(end.wait().expect("an exit").code, 0);
    for (stream, word) in streams.iter().zip(["out\n", "err\n"]) {
        assert!(*stream == word.bytes().cycle().take(300_000).collect::<Vec<_>>(), "{} bytes", stream.len());
    }
}

#[test]
fn input_that_a_client_ends_is_ended_for_the_container_and_its_output_still_comes() {
    let container = Container::new("cat; echo end").with(|settings, _| {
        (settings.open_stdin, settings.stdin_once) = (true, true);
    });
    let client = container.created();
    let (mut stream, _) = client.streams(BOTH).expect("attached");
    let end = client.wait(Until::Exit).expect("waiting");
    client.start().expect("started");
    let sent: Vec<u8> = (0..3_000_000).map(|n| (n * 7 / 3) as u8).collect();
    let reader = reader(stream.try_clone().expect("dup"), 4096);
    stream.write_all(&sent).expect("write");
    stream.shutdown(Shutdown::Write).expect("shutdown");
    let got = reader.join().expect("no panic");
    assert!(got == [&sent[..], b"end\n"].concat(), "{} bytes of {}", got.len(), sent.len());
    assert_eq!(end.wait().expect("an exit").code, 0);
}

#[test]
fn a_client_that_goes_takes_nothing_with_it_unless_its_input_was_the_containers() {
    let container =
        Container::new("while read line; do echo got $line; done; echo end").with(|settings, _| {
            settings.open_stdin = true;
        });
    let client = container.created();
    let (mut first, _) = client.streams(BOTH).expect("attached");
    let waiter = client.wait(Until::Exit).expect("waiting");
    client.start().expect("started");
    first.write_all(b"one\n").expect("write");
    until(&mut first, "got one\n");
    // As kill -9 of the client's process leaves them: closed.
    drop((first, waiter));
    let (mut second, _) = client.streams(BOTH).expect("attached");
    second.write_all(b"two\n").expect("write");
    assert_eq!(until(&mut second, "\n"), "got two\n");
    // Input that the client does not wait for is the container's all the same.
    let (mut third, _) = client.streams(BOTH).expect("attached");
    third.write_all(b"three\n").expect("write");
    drop(third);
    assert_eq!(until(&mut second, "\n"), "got three\n");
    let end = client.wait(Until::Exit).expect("waiting");
    assert!(container.rrun(&["kill", container.id(), "KILL"]).status.success());
    assert_eq!(end.wait().expect("an exit").code, 137);
    assert_eq!(all(second), b"");
}

#[test]
fn a_terminal_has_the_size_that_it_is_given_before_and_while_it_runs() {
    let container = Container::new("stty size; read line; stty size; exit 6").with(|settings, config| {
        (settings.tty, settings.open_stdin) = (true, true);
        config["process"]["terminal"] = json!(true);
    });
    let client = container.created();
    let (mut terminal, _) = client.streams(BOTH).expect("attached");
    client.resize(33, 101).expect("resized");
    let end = client.wait(Until::Exit).expect("waiting");
    client.start().expect("started");
    assert_eq!(until(&mut terminal, "\n"), "33 101\r\n");
    client.resize(44, 55).expect("resized");
    terminal.write_all(b"go\n").expect("write");
    let rest = all(terminal);
    assert!(text(&rest).contains("44 55\r\n"), "{:?}", text(&rest));
    assert_eq!(end.wait().expect("an exit").code, 6);
    let (log, _) = container.log(&LogOptions::default());
    assert!(text(&log).starts_with("33 101\r\ngo\r\n44 55\r\n"), "{:?}", text(&log));
}

#[test]
fn all_that_a_terminal_got_before_the_end_comes_out_of_it() {
    let container = Container::new("yes 0123456789abcde | head -c 160000").with(|settings, config| {
        settings.tty = true;
        config["process"]["terminal"] = json!(true);
    });
    let (exit, out, _) = container.run();
    let expected: Vec<u8> = b"0123456789abcde\r\n".iter().copied().cycle().take(170_000).collect();
    assert!(exit.code == 0 && out == expected, "{} bytes", out.len());
    assert_eq!(container.log(&LogOptions::default()).0, expected);
}

fn time(text: &str) -> OffsetDateTime {
    OffsetDateTime::parse(text, &Rfc3339).expect("a time")
}

#[test]
fn a_terminal_that_nobody_has_open_for_a_while_has_not_ended() {
    let script = "echo one; exec 0<&- 1>&- 2>&-; sleep 0.2; echo two > /dev/pts/0";
    let container = Container::new(script).with(|settings, config| {
        settings.tty = true;
        config["process"]["terminal"] = json!(true);
    });
    assert_eq!(text(&container.run().1), "one\r\ntwo\r\n");
}

/// When each run said something.
fn runs(container: &Container) -> Vec<OffsetDateTime> {
    let timestamps = LogOptions { timestamps: true, ..LogOptions::default() };
    let (log, _) = container.log(&timestamps);
    text(&log).lines().map(|line| time(line.split(' ').next().expect("a time"))).collect()
}

#[test]
fn failures_are_restarted_so_often_as_is_said_after_delays_that_double() {
    let container = Container::new("echo run; exit 3").with(|settings, _| {
        settings.restart = Restart { name: Policy::OnFailure, maximum: 3 };
    });
    let client = container.created();
    let (end, first) =
        (client.wait(Until::Ended).expect("waiting"), client.wait(Until::Exit).expect("waiting"));
    client.start().expect("started");
    let first = first.wait().expect("an exit");
    assert_eq!((first.code, first.restarts, first.restarting), (3, 1, true));
    let last = end.wait().expect("an exit");
    assert_eq!((last.code, last.restarts, last.restarting), (3, 3, false));
    assert_eq!(container.ended(), Some(last));
    let runs = runs(&container);
    let between: Vec<_> = runs.windows(2).map(|two| (two[1] - two[0]).whole_milliseconds()).collect();
    assert_eq!(between.len(), 3);
    for (between, delay) in between.iter().zip([100, 200, 400]) {
        assert!((delay..delay + 3000).contains(between), "{between} ms instead of {delay}");
    }
}

#[test]
fn a_stop_while_it_waits_for_its_restart_is_its_end() {
    let container = Container::new("echo run").with(|settings, _| {
        settings.restart = Restart { name: Policy::Always, maximum: 0 };
    });
    let client = container.created();
    let mut waiter = client.wait(Until::Exit).expect("waiting");
    client.start().expect("started");
    // After the fifth run it waits for 1.6 s.
    while waiter.wait().expect("an exit").restarts < 5 {
        waiter = client.wait(Until::Exit).expect("waiting");
    }
    assert_eq!(client.status().expect("a status").phase, Phase::Restarting);
    let (next, end) =
        (client.wait(Until::Exit).expect("waiting"), client.wait(Until::Ended).expect("waiting"));
    client.stop_restarting().expect("stopped");
    let (next, last) = (next.wait().expect("an exit"), end.wait().expect("an exit"));
    assert_eq!((last.code, last.restarts, last.restarting), (0, 5, false));
    assert_eq!((&next, runs(&container).len()), (&last, 5));
    assert_eq!(container.exit(), last);
}

#[test]
fn a_stop_by_hand_is_not_followed_by_a_restart() {
    let container = Container::new("echo run; sleep 1000").with(|settings, _| {
        settings.restart = Restart { name: Policy::UnlessStopped, maximum: 0 };
    });
    let client = container.created();
    let (mut out, _) = client.streams(OUTPUT).expect("attached");
    client.start().expect("started");
    until(&mut out, "run\n");
    let kill = || assert!(container.rrun(&["kill", container.id(), "KILL"]).status.success());
    // The first death is not by hand, and input and output of the next run are those of who attaches meanwhile.
    let exit = client.wait(Until::Exit).expect("waiting");
    kill();
    assert!(exit.wait().expect("an exit").restarting);
    let (mut out, _) = client.streams(OUTPUT).expect("attached");
    until(&mut out, "run\n");
    let end = client.wait(Until::Ended).expect("waiting");
    assert_eq!(client.stop_restarting().expect("stopped").phase, Phase::Running);
    kill();
    let last = end.wait().expect("an exit");
    assert_eq!((last.code, last.restarts, last.restarting), (137, 1, false));
}

#[test]
fn many_wait_and_who_comes_while_it_is_taken_down_is_told_at_once() {
    let container = Container::new("exit 4");
    let fifo = container.fifo();
    let container = container.with(|settings, _| {
        settings.ended = vec!["/bin/busybox".to_owned(), "cat".to_owned(), fifo.display().to_string()];
    });
    let client = container.created();
    let waiters: Vec<_> = (0..20).map(|_| client.wait(Until::Exit).expect("waiting")).collect();
    let ends: Vec<_> = (0..20).map(|_| client.wait(Until::Ended).expect("waiting")).collect();
    client.start().expect("started");
    for waiter in waiters {
        assert_eq!(waiter.wait().expect("an exit").code, 4);
    }
    // The command has the fifo open when this returns.
    let mut fifo = fs::OpenOptions::new().write(true).open(&fifo).expect("open");
    assert_eq!(client.status().expect("a status").phase, Phase::Ending);
    assert_eq!(client.wait(Until::Exit).expect("waiting").wait().expect("an exit").code, 4);
    assert_eq!(client.streams(OUTPUT).expect_err("it has ended").to_string(), "the container has ended");
    assert!(!container.rrun(&["state", container.id()]).status.success());
    fifo.write_all(b"x").expect("write");
    drop(fifo);
    for end in ends {
        assert_eq!(end.wait().expect("an exit").code, 4);
    }
    assert!(matches!(find(&container.setup.settings), Ok(Found::Gone)));
}

#[test]
fn a_container_that_nobody_starts_goes_with_who_made_it() {
    let container = Container::new("exit 0");
    let client = container.created();
    assert_eq!(client.status().expect("a status").phase, Phase::Created);
    drop(client);
    container.left();
    assert!(container.ended().expect("ended").error.contains("nobody started it"));
}

#[test]
fn a_killed_monitor_leaves_the_container_running_and_that_is_told() {
    let container = Container::new("echo up; sleep 1000");
    fs::write(container.dir.join("containers/exit.json"), "{}").expect("write");
    let client = container.created();
    let (mut stdout, _) = client.streams(OUTPUT).expect("attached");
    let end = client.wait(Until::Exit).expect("waiting");
    client.start().expect("started");
    until(&mut stdout, "up");
    let init = client.status().expect("a status").pid;
    kill_process(container.monitor().expect("a monitor"), Signal::KILL).expect("kill");
    assert_eq!(end.wait().expect_err("killed").to_string(), "the container's monitor has gone");
    assert_eq!(all(stdout), b"\n");
    container.left();
    assert!(Client::connect(&container.setup.settings.run).expect("known").is_none());
    match find(&container.setup.settings).expect("known") {
        Found::Orphaned { status, pid } => assert_eq!((&*status, pid), ("running", init)),
        found => panic!("{found:?}"),
    }
    assert_eq!(container.log(&LogOptions::default()).0, b"up\n");
    assert!(container.rrun(&["delete", "--force", container.id()]).status.success());
    assert!(matches!(find(&container.setup.settings), Ok(Found::Gone)));
    // How an earlier run ended is not how this one will have ended.
    assert!(!container.dir.join("containers/exit.json").exists());
    // What SIGKILL left in the run directory is no hindrance for the next one.
    let container = container.with(|_, config| config["process"]["args"] = json!(["sh", "-c", "echo again"]));
    let (exit, out, _) = container.run();
    assert_eq!((exit.code, out), (0, b"again\n".to_vec()));
}

#[test]
fn signals_do_not_end_a_monitor_and_sighup_opens_the_log_anew() {
    let container = Container::new("exec cat").with(|settings, config| {
        settings.open_stdin = true;
        config["process"].as_object_mut().expect("an object").remove("oomScoreAdj");
    });
    let client = container.created();
    let (mut stream, _) = client.streams(BOTH).expect("attached");
    client.start().expect("started");
    stream.write_all(b"before\n").expect("write");
    until(&mut stream, "before\n");
    let (log, moved) = (&container.setup.settings.log.path, container.dir.join("moved"));
    fs::rename(log, &moved).expect("rename");
    let monitor = container.monitor().expect("a monitor");
    for signal in [Signal::TERM, Signal::INT, Signal::QUIT, Signal::USR1, Signal::ALARM, Signal::HUP] {
        kill_process(monitor, signal).expect("kill");
    }
    // It has looked for signals before it answers.
    client.status().expect("a status");
    stream.write_all(b"after\n").expect("write");
    until(&mut stream, "after\n");
    assert_eq!(container.log(&LogOptions::default()).0, b"after\n");
    assert!(fs::read_to_string(moved).expect("a log").contains("before"));
    // The container has not inherited what the monitor does with them.
    let init = client.status().expect("a status").pid;
    let status = fs::read_to_string(format!("/proc/{init}/status")).expect("status");
    for field in ["SigBlk", "SigIgn"] {
        let line = status.lines().find(|line| line.starts_with(field)).expect("a field");
        assert!(line.ends_with("0000000000000000"), "{line}");
    }
    assert!(status.contains("Umask:\t0022\n"));
    let score = |pid: &str| fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).expect("a score");
    assert_eq!(score(&init.to_string()), score("self"));
    let mut lower = Command::new("/bin/sh");
    if lower.args(["-c", "echo -999 > /proc/self/oom_score_adj"]).output().expect("sh").status.success() {
        assert_eq!(score(&monitor.as_raw_nonzero().to_string()), "-999\n");
    } else {
        eprintln!("skipped: the monitor's own oom_score_adj, as lowering it needs CAP_SYS_RESOURCE");
    }
    let end = client.wait(Until::Exit).expect("waiting");
    assert!(container.rrun(&["kill", container.id(), "KILL"]).status.success());
    end.wait().expect("an exit");
}

#[test]
fn a_log_that_cannot_be_written_is_told_once_and_output_goes_on() {
    let container =
        Container::new("for n in 1 2 3 4 5 6 7 8 9; do echo $n; sleep 0.02; done").with(|settings, _| {
            settings.log.path = "/dev/full".into();
        });
    let (exit, out, _) = container.run();
    assert_eq!((exit.code, text(&out)), (0, "1\n2\n3\n4\n5\n6\n7\n8\n9\n"));
    let messages = fs::read_to_string(container.setup.settings.run.join("rrunmon.log")).expect("messages");
    assert_eq!(messages.matches("write /dev/full: no space left on device").count(), 1, "{messages}");
}

#[test]
fn without_a_log_output_reaches_clients_and_a_pipe_reader_that_stops_early_does_no_harm() {
    let container = Container::new("yes | head -c 1000000; exit 5").with(|settings, _| {
        settings.log = Log { driver: Driver::None, path: "/nosuch/log".into(), ..Log::default() };
    });
    let client = container.created();
    let (mut stdout, _stderr) = client.streams(OUTPUT).expect("attached");
    let end = client.wait(Until::Exit).expect("waiting");
    client.start().expect("started");
    until(&mut stdout, "y\ny\n");
    drop(stdout);
    assert_eq!(end.wait().expect("an exit").code, 5);
}

#[test]
fn a_log_is_followed_over_rotations_until_the_monitor_leaves() {
    let container = Container::new("n=0; while [ $n -lt 3000 ]; do echo line $n; n=$((n+1)); done").with(
        |settings, _| {
            (settings.log.max_size, settings.log.max_file) = (Some(20_000), Some(50));
        },
    );
    let client = container.created();
    let path = container.setup.settings.log.path.clone();
    let follow = LogOptions { follow: Some(container.setup.settings.run.clone()), ..LogOptions::default() };
    let follower = std::thread::spawn(move || {
        let mut lines = Vec::new();
        logs::read(&path, &follow, &mut |_, line| {
            lines.extend_from_slice(line);
            Ok(())
        })
        .map(|()| lines)
    });
    client.start().expect("started");
    let lines = follower.join().expect("no panic").expect("read");
    let expected: String = (0..3000).map(|n| format!("line {n}\n")).collect();
    assert_eq!(text(&lines), expected);
    assert_eq!(container.log(&LogOptions::default()).0, lines);
    let tail = LogOptions { tail: Some(1000), ..LogOptions::default() };
    assert_eq!(text(&container.log(&tail).0).lines().next(), Some("line 2000"));
}

#[test]
fn a_port_is_held_and_what_reaches_it_is_passed_to_the_container() {
    let free = TcpListener::bind("127.0.0.1:0").expect("bind").local_addr().expect("an address");
    let mut container =
        Container::new(&format!("echo up; exec nc -l -p {} -e cat", free.port())).with(|settings, _| {
            settings.ports = vec![Port { protocol: "tcp".to_owned(), to: Some(free), netns: None }];
        });
    let held = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).expect("bind");
    let address = held.local_addr().expect("an address");
    container.setup.ports = vec![OwnedFd::from(held)];
    let client = container.created();
    container.setup.ports.clear();
    let end = client.wait(Until::Ended).expect("waiting");
    client.start().expect("started");
    TcpListener::bind(address).expect_err("taken");
    let said = loop {
        // Until nc listens, the connection is ended.
        let mut stream = TcpStream::connect(address).expect("connect");
        let sent = stream.write_all(b"through").and_then(|()| stream.shutdown(Shutdown::Write));
        let mut said = Vec::new();
        if sent.and_then(|()| stream.read_to_end(&mut said)).is_ok_and(|n| n > 0) {
            break said;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    assert_eq!(text(&said), "through");
    end.wait().expect("an exit");
    TcpListener::bind(address).expect("free");
}

/// A tmpfs of the host that is a shared mount, as `/` is where systemd runs.
struct SharedMount(PathBuf);

impl SharedMount {
    fn new() -> Self {
        use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
        let unique = rrunctl::home::unique().expect("random");
        let at = std::env::temp_dir().join(format!("rrunctl-shared-{unique}"));
        fs::create_dir(&at).expect("mkdir");
        mount("none", &at, "tmpfs", MountFlags::empty(), c"").expect("mount");
        mount_change(&at, MountPropagationFlags::SHARED).expect("share");
        Self(at)
    }
}

impl Drop for SharedMount {
    fn drop(&mut self) {
        rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH).expect("unmount");
        fs::remove_dir(&self.0).expect("remove");
    }
}

#[test]
fn what_a_container_mounts_below_a_shared_bind_mount_appears_on_the_host() {
    let shared = SharedMount::new();
    fs::create_dir(shared.0.join("in")).expect("mkdir");
    let script = "busybox mount -t tmpfs none /shared/in && echo x > /shared/in/file";
    let container = Container::new(script).with(|_, config| {
        let mount = json!({
            "destination": "/shared", "type": "bind", "source": shared.0, "options": ["rbind", "rshared"],
        });
        config["mounts"].as_array_mut().expect("a list").push(mount);
        config["linux"]["rootfsPropagation"] = "shared".into();
        let all = ["CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE"];
        config["process"]["capabilities"] = json!({"bounding": all, "permitted": all, "effective": all});
    });
    let (exit, _, err) = container.run();
    assert_eq!((exit.code, text(&err)), (0, ""));
    assert_eq!(fs::read_to_string(shared.0.join("in/file")).expect("mounted here too"), "x\n");
    // Nothing else came with it.
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    let here = shared.0.display().to_string();
    assert_eq!(mounts.lines().filter(|line| line.contains(&here)).count(), 2, "{mounts}");
}

#[test]
fn a_stop_while_the_next_run_is_being_made_is_answered_when_there_is_none() {
    let container = Container::new("echo run");
    let fifo = container.fifo();
    // A hook waits until the fifo is open for writing on the other side, and closed.
    let container = container.with(|settings, config| {
        settings.restart = Restart { name: Policy::Always, maximum: 0 };
        let hook = json!({"path": "/bin/busybox", "args": ["busybox", "cat", fifo]});
        config["hooks"] = json!({"createRuntime": [hook]});
    });
    let release = |fifo: &Path| fs::OpenOptions::new().write(true).open(fifo).expect("open");
    let client = std::thread::scope(|scope| {
        let first = scope.spawn(|| drop(release(&fifo)));
        let client = container.created();
        first.join().expect("no panic");
        client
    });
    let end = client.wait(Until::Ended).expect("waiting");
    client.start().expect("started");
    let second = release(&fifo);
    let socket =
        socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).expect("socket");
    let path = container.setup.settings.run.join("ctl.sock");
    connect(&socket, &SocketAddrUnix::new(&path).expect("an address")).expect("connect");
    for words in [&b"\"stop_restarting\""[..], b"\"status\""] {
        rustix::net::send(&socket, words, SendFlags::empty()).expect("send");
    }
    let reply = || {
        let mut reply = [0; 1000];
        let (n, _) = rustix::net::recv(&socket, &mut reply, RecvFlags::empty()).expect("recv");
        serde_json::from_slice::<Value>(&reply[..n]).expect("JSON")["status"]["phase"].clone()
    };
    assert_eq!(reply(), "restarting", "of the second question");
    drop(second);
    assert_eq!(reply(), "ending", "of the first one");
    let last = end.wait().expect("an exit");
    assert_eq!((last.code, last.restarts, last.restarting), (0, 1, false));
    assert_eq!(runs(&container).len(), 1);
}

#[test]
fn the_command_at_the_end_can_remove_everything() {
    let container = Container::new("echo run").with(|settings, _| {
        let dirs = ["run", "containers", "upper", "work", "merged"];
        let dirs = dirs.map(|dir| settings.bundle.with_file_name(dir).display().to_string());
        settings.ended = ["/bin/busybox", "rm", "-r"].map(str::to_owned).into_iter().chain(dirs).collect();
    });
    let client = container.created();
    let end = client.wait(Until::Ended).expect("waiting");
    client.start().expect("started");
    assert_eq!(end.wait().expect("an exit").code, 0);
    let left: Vec<_> =
        fs::read_dir(&container.dir).expect("readdir").flatten().map(|dir| dir.file_name()).collect();
    assert!(
        ["run", "containers", "upper", "work", "merged"].iter().all(|dir| !left.contains(&(*dir).into())),
        "{left:?}"
    );
    assert!(matches!(find(&container.setup.settings), Ok(Found::Gone)));
}

#[test]
fn descriptors_of_the_callers_caller_are_not_held() {
    let container = Container::new("echo up; sleep 1000");
    // Without O_CLOEXEC, as a shell passes them on.
    let (read, write) = rustix::pipe::pipe().expect("pipe");
    let client = container.created();
    drop(write);
    client.start().expect("started");
    assert_eq!(all(File::from(read)), b"");
    assert_eq!(client.status().expect("a status").phase, Phase::Running);
    let end = client.wait(Until::Exit).expect("waiting");
    assert!(container.rrun(&["kill", container.id(), "KILL"]).status.success());
    end.wait().expect("an exit");
}

/// A container with a network namespace, in which its monitor answers names.
struct Named {
    container: Container,
    netns: PathBuf,
}

impl Named {
    /// One that does what each line of its input says. Its network `net` has `db` at 10.9.9.2, `more` has `late` at
    /// 10.8.8.2; `server` is asked for all others.
    fn new(server: &UdpSocket) -> Self {
        let container = Container::new("while read -r line; do $line 2>&1; echo end; done");
        let netns = container.dir.join("netns");
        let mut named = Self { container, netns };
        make_netns(&named.netns).expect("netns");
        named.lease("net", "db", "10.9.9.2");
        named.lease("more", "late", "10.8.8.2");
        let networks = named.networks(&["net"]);
        let Container { setup, config, .. } = &mut named.container;
        let servers = vec![server.local_addr().expect("an address")];
        setup.settings.dns = Some(Dns { servers, networks });
        setup.settings.open_stdin = true;
        setup.dns = Some(dns::listen(&named.netns).expect("sockets"));
        let namespace = json!({"type": "network", "path": named.netns});
        config["linux"]["namespaces"].as_array_mut().expect("an array").push(namespace);
        named
    }

    /// What its name server had, but for the networks.
    fn dns(&self, names: &[&str]) -> Dns {
        let before = self.container.setup.settings.dns.clone().expect("a name server");
        Dns { networks: self.networks(names), ..before }
    }

    fn networks(&self, names: &[&str]) -> Vec<(PathBuf, String)> {
        names.iter().map(|name| (self.container.dir.join(name), (*name).to_owned())).collect()
    }

    fn lease(&self, network: &str, name: &str, ip: &str) {
        let dir = self.container.dir.join(network);
        fs::create_dir_all(&dir).expect("mkdir");
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("boot_id");
        fs::write(dir.join(".boot"), boot.trim()).expect("write");
        let lease = json!({"name": name, "hostname": name, "aliases": [], "endpoint": "", "ip": ip, "ip6": null,
            "mac": "", "veth": "", "netns": "", "ports": []});
        let id = "c0ffee".repeat(11)[..64].to_owned();
        fs::write(dir.join(format!("{id},{ip},,up")), lease.to_string()).expect("write");
    }

    fn spawn(&mut self) -> Client {
        let client = self.container.created();
        self.container.setup.dns = None;
        client
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        let _ = remove_netns(&self.netns);
    }
}

/// A server that knows `example.org` alone, at 192.0.2.7; the socket by which it is ended and asked how often it was.
fn upstream() -> (UdpSocket, std::thread::JoinHandle<Vec<String>>) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("bind");
    let server = socket.try_clone().expect("dup");
    let thread = std::thread::spawn(move || {
        let (mut bytes, mut asked) = ([0; 512], Vec::new());
        while let Ok((length, from)) = server.recv_from(&mut bytes)
            && length > 0
        {
            let mut reply = bytes[..length].to_vec();
            (reply[2], reply[3]) = (0x81, 0x80);
            let question = dns::question(&bytes[..length]).expect("a question");
            if question.name != "example.org" {
                reply[3] |= 3;
            } else if question.kind == 1 {
                reply[7] = 1;
                reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 192, 0, 2, 7]);
            }
            asked.push(question.name);
            server.send_to(&reply, from).expect("send");
        }
        asked
    });
    (socket, thread)
}

fn end_of((socket, thread): (UdpSocket, std::thread::JoinHandle<Vec<String>>)) -> Vec<String> {
    socket.send_to(b"", socket.local_addr().expect("an address")).expect("send");
    thread.join().expect("no panic")
}

/// What a command in a [`Named`] says.
fn said(stream: &mut UnixStream, command: &str) -> String {
    stream.write_all(format!("{command}\n").as_bytes()).expect("write");
    until(stream, "end\n")
}

#[test]
fn a_container_asks_its_monitor_for_names_and_goes_on_to_after_a_restart() {
    let upstream = upstream();
    let mut named = Named::new(&upstream.0);
    named.container.setup.settings.restart = Restart { name: Policy::Always, maximum: 0 };
    let client = named.spawn();
    let (mut stream, _) = client.streams(BOTH).expect("attached");
    client.start().expect("started");
    for (asked, answered) in [
        ("db", "Address: 10.9.9.2\n"),
        ("DB.net", "Address: 10.9.9.2\n"),
        ("10.9.9.2", "name = db.net\n"),
        ("example.org", "Address: 192.0.2.7\n"),
        ("late", "can't find late: NXDOMAIN\n"),
    ] {
        let said = said(&mut stream, &format!("nslookup {asked} 127.0.0.11"));
        assert!(said.contains(answered), "{asked}: {said}");
    }
    client.set_names(named.dns(&["net", "more"])).expect("other names");
    let both = |stream: &mut UnixStream| {
        for (asked, answered) in [("late", "10.8.8.2"), ("db", "10.9.9.2"), ("late.more", "10.8.8.2")] {
            let said = said(stream, &format!("nslookup {asked} 127.0.0.11"));
            assert!(said.contains(&format!("Address: {answered}\n")), "{asked}: {said}");
        }
    };
    both(&mut stream);
    let kept: Settings =
        serde_json::from_slice(&fs::read(&named.container.setup.file).expect("monitor.json"))
            .expect("settings");
    assert_eq!(kept.dns.expect("a name server").networks, named.networks(&["net", "more"]));
    let exit = client.wait(Until::Exit).expect("waiting");
    let kill = || assert!(named.container.rrun(&["kill", named.container.id(), "KILL"]).status.success());
    kill();
    assert!(exit.wait().expect("an exit").restarting);
    let (mut stream, _) = client.streams(BOTH).expect("attached");
    both(&mut stream);
    // Port 53 of all addresses but the one is the container's.
    let bound =
        Netns::open(&named.netns).expect("netns").enter(|| Ok(UdpSocket::bind("127.0.0.1:53").map(drop)?));
    bound.expect("bind");
    let end = client.wait(Until::Ended).expect("waiting");
    client.stop_restarting().expect("stopped");
    kill();
    end.wait().expect("an exit");
    let asked = end_of(upstream);
    assert!(!asked.iter().any(|name| name.starts_with("db")), "{asked:?}");
}

#[test]
fn names_are_for_containers_with_a_name_server_and_all_networks_find_room_in_a_packet() {
    let container = Container::new("exec sleep 1000");
    let client = container.created();
    let told = client.set_names(Dns::default()).expect_err("none").to_string();
    assert_eq!(told, "the container has no name server");
    let long =
        |n| (PathBuf::from(format!("/var/lib/rrunctl/networks/{}.leases", "a".repeat(64))), format!("n{n}"));
    let of = |count| Dns { networks: (0..count).map(long).collect(), ..Dns::default() };
    let told = client.set_names(of(100)).expect_err("none").to_string();
    assert_eq!(told, "the container has no name server");
    let told = client.set_names(of(1000)).expect_err("too many").to_string();
    assert_eq!(told, "packet too long");
    let mut container = container;
    container.setup.settings.dns = Some(Dns::default());
    let told = spawn(&container.setup).expect_err("no sockets").to_string();
    assert_eq!(told, "a name server has its sockets and its settings, or neither");
}

#[test]
fn what_a_container_sends_to_its_name_server_does_no_harm_to_its_monitor() {
    // A server that never answers.
    let silent = UdpSocket::bind("127.0.0.1:0").expect("bind");
    let mut named = Named::new(&silent);
    let client = named.spawn();
    let (mut stream, _) = client.streams(BOTH).expect("attached");
    client.start().expect("started");
    let monitor = named.container.monitor().expect("a monitor").as_raw_nonzero();
    let fds = || fs::read_dir(format!("/proc/{monitor}/fd")).expect("fds").count();
    let before = fds();
    let question = |name: String| {
        let mut packet = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, name.len() as u8];
        packet.extend_from_slice(name.as_bytes());
        packet.extend_from_slice(&[0, 0, 1, 0, 1]);
        packet
    };
    let streams = Netns::open(&named.netns)
        .expect("netns")
        .enter(|| {
            let socket = UdpSocket::bind("127.0.0.1:0")?;
            socket.connect((dns::SERVER, 53))?;
            for n in 0..20_000u32 {
                let packet = if n % 2 == 0 {
                    question(format!("n{n}"))
                } else {
                    n.to_be_bytes().repeat(n as usize % 300)
                };
                // It is not read as fast as it is sent.
                let _ = socket.send(&packet);
            }
            let mut streams = Vec::new();
            for n in 0..60 {
                let mut stream = TcpStream::connect((dns::SERVER, 53))?;
                let packet = question(format!("t{n}"));
                stream.write_all(&(packet.len() as u16 + n % 2).to_be_bytes())?;
                stream.write_all(&packet)?;
                streams.push(stream);
            }
            Ok(streams)
        })
        .expect("a flood");
    let answer = said(&mut stream, "nslookup db 127.0.0.11");
    assert!(answer.contains("Address: 10.9.9.2\n"), "{answer}");
    assert_eq!(client.status().expect("a status").phase, Phase::Running);
    let held = fds();
    assert!(held <= before + 128 + 2 * 16, "{held} descriptors, {before} before");
    drop(streams);
    // All is over after the two seconds that a server has, and nothing is held for it.
    let begun = Instant::now();
    while fds() > before {
        assert!(begun.elapsed() < Duration::from_secs(60), "{} descriptors, {before} before", fds());
        std::thread::sleep(Duration::from_millis(20));
    }
    let rss = fs::read_to_string(format!("/proc/{monitor}/status")).expect("status");
    let rss = rss.lines().find(|line| line.starts_with("RssAnon")).expect("a field");
    let kib: u64 = rss.split_whitespace().nth(1).expect("a number").parse().expect("a number");
    assert!(kib < 1024, "{rss}");
    let end = client.wait(Until::Exit).expect("waiting");
    assert!(named.container.rrun(&["kill", named.container.id(), "KILL"]).status.success());
    end.wait().expect("an exit");
}

#[test]
fn a_monitor_that_does_not_answer_is_told_after_a_while_and_one_that_waits_for_rrun_answers() {
    let container = Container::new("exec sleep 1000");
    let fifo = container.fifo();
    let container = container.with(|_, config| {
        let hook = json!({"path": "/bin/busybox", "args": ["busybox", "cat", fifo]});
        config["hooks"] = json!({"createRuntime": [hook], "poststop": [hook]});
    });
    let release = || drop(fs::OpenOptions::new().write(true).open(&fifo).expect("open"));
    let run = &container.setup.settings.run;
    let client = std::thread::scope(|scope| {
        let made = scope.spawn(|| container.created());
        let other = loop {
            if let Some(other) =
                run.join("pid").exists().then(|| Client::connect(run).expect("known")).flatten()
            {
                break other;
            }
            std::thread::yield_now();
        };
        assert_eq!(other.status().expect("a status").phase, Phase::Created);
        assert!(!made.is_finished());
        release();
        made.join().expect("no panic")
    });
    client.start().expect("started");
    let monitor = container.monitor().expect("a monitor");
    kill_process(monitor, Signal::STOP).expect("kill");
    let begun = Instant::now();
    let told = client.status().expect_err("it is stopped").to_string();
    assert!(told.contains("the monitor is alive but does not answer"), "{told}");
    // Its queue is full: nobody is connected any more.
    let mut queue = Vec::new();
    let told = loop {
        match Client::connect(run) {
            Ok(other) => queue.push(other),
            Err(e) => break e.to_string(),
        }
    };
    assert!(told.contains("the monitor is alive but does not listen"), "{told}");
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    kill_process(monitor, Signal::CONT).expect("kill");
    drop(queue);
    let end = client.wait(Until::Ended).expect("waiting");
    assert!(container.rrun(&["kill", container.id(), "KILL"]).status.success());
    // In the hook of `rrun delete`.
    let other = client.wait(Until::Exit).expect("waiting");
    assert_eq!(other.wait().expect("an exit").code, 137);
    let fresh = Client::connect(run).expect("known").expect("alive");
    assert_eq!(fresh.status().expect("a status").phase, Phase::Ending);
    release();
    assert_eq!(end.wait().expect("an exit").code, 137);
}

/// Kills the monitor, and waits until it is gone.
fn kill_monitor(container: &Container) {
    kill_process(container.monitor().expect("a monitor"), Signal::KILL).expect("kill");
    container.left();
}

/// The kernel closes a killed process's sockets after the lock by which [`Container::left`] knows that it is gone.
fn when_free(address: std::net::SocketAddr) -> TcpListener {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        match TcpListener::bind(address) {
            Ok(held) => return held,
            Err(e) => assert!(Instant::now() < end, "{address}: {e}"),
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_container_whose_monitor_was_killed_is_taken_over_and_its_policy_goes_on() {
    let upstream = upstream();
    let mut named = Named::new(&upstream.0);
    let settings = &mut named.container.setup.settings;
    settings.restart = Restart { name: Policy::OnFailure, maximum: 5 };
    settings.ports = vec![Port { protocol: "tcp".to_owned(), to: None, netns: None }];
    // The kernel takes no such work directory a second time as it is.
    settings.root.as_mut().expect("a root").options = vec!["volatile".to_owned()];
    named.container.config["process"]["args"] = json!([
        "sh",
        "-c",
        "trap '' PIPE; echo run; while read -r line; do $line 2>&1; echo end; done; sleep 1000"
    ]);
    let held = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = held.local_addr().expect("an address");
    named.container.setup.ports = vec![OwnedFd::from(held)];
    let client = named.spawn();
    named.container.setup.ports.clear();
    let (mut stream, _) = client.streams(BOTH).expect("attached");
    client.start().expect("started");
    until(&mut stream, "run\n");
    client.set_names(named.dns(&["net", "more"])).expect("other names");
    let mut before = client.status().expect("a status");
    for restarts in 0..2 {
        kill_monitor(&named.container);
        // Nobody holds the port, and nobody answers.
        let held = when_free(address);
        let container = &mut named.container;
        container.setup.settings = Settings::read(&container.setup.file).expect("settings");
        container.setup.ports = vec![OwnedFd::from(held)];
        container.setup.dns = Some(dns::listen(&named.netns).expect("sockets"));
        let client = adopt(&container.setup).expect("taken over");
        (container.setup.ports, container.setup.dns) = (Vec::new(), None);
        assert_eq!(client.status().expect("a status"), before);
        TcpListener::bind(address).expect_err("taken");
        let told = client.streams(OUTPUT).expect_err("no streams").to_string();
        assert_eq!(told, "the container's streams are gone with the monitor that it had");
        let exit = client.wait(Until::Exit).expect("waiting");
        assert!(container.rrun(&["kill", container.id(), "KILL"]).status.success());
        let exit = exit.wait().expect("an exit");
        assert_eq!(
            (&exit.started_at, exit.restarts, exit.restarting),
            (&before.started_at, restarts + 1, true)
        );
        match exit.code {
            255 => assert_eq!(exit.error, "its monitor was killed, and how it ended was not seen"),
            code => assert_eq!((code, exit.signal, &*exit.error), (137, Some(9), "")),
        }
        // The next run has streams, names and what the one before has left.
        let (mut stream, _) = client.streams(BOTH).expect("attached");
        until(&mut stream, "run\n");
        let said = said(&mut stream, "nslookup late 127.0.0.11");
        assert!(said.contains("Address: 10.8.8.2\n"), "{said}");
        before = client.status().expect("a status");
        assert_eq!((before.phase, before.restarts), (Phase::Running, restarts + 1));
    }
    let client = Client::connect(&named.container.setup.settings.run).expect("known").expect("alive");
    let end = client.wait(Until::Ended).expect("waiting");
    client.stop_restarting().expect("stopped");
    assert!(named.container.rrun(&["kill", named.container.id(), "KILL"]).status.success());
    let last = end.wait().expect("an exit");
    assert_eq!((last.code, last.restarts, last.restarting), (137, 2, false));
    assert_eq!(named.container.ended(), Some(last));
    assert_eq!(text(&named.container.log(&LogOptions::default()).0).matches("run\n").count(), 3);
    TcpListener::bind(address).expect("free");
    end_of(upstream);
}

#[test]
fn a_container_that_ended_while_nobody_saw_it_is_restarted_by_who_takes_it_over() {
    let container = Container::new("echo run; sleep 1000").with(|settings, _| {
        settings.restart = Restart { name: Policy::OnFailure, maximum: 1 };
    });
    let client = container.created();
    let (mut stream, _) = client.streams(OUTPUT).expect("attached");
    client.start().expect("started");
    until(&mut stream, "run\n");
    let told = adopt(&container.setup).expect_err("it has one").to_string();
    assert!(told.ends_with("a monitor is alive"), "{told}");
    let end = || {
        kill_monitor(&container);
        let pid = match find(&container.setup.settings).expect("known") {
            Found::Orphaned { pid, .. } => Pid::from_raw(pid).expect("a pid"),
            found => panic!("{found:?}"),
        };
        kill_process(pid, Signal::KILL).expect("kill");
        let begun = Instant::now();
        while !matches!(find(&container.setup.settings), Ok(Found::Orphaned { status, .. }) if status == "stopped")
        {
            assert!(begun.elapsed() < Duration::from_secs(30), "it does not end");
            std::thread::sleep(Duration::from_millis(2));
        }
    };
    end();
    let client = adopt(&container.setup).expect("taken over");
    let exit = container.exit();
    assert_eq!((exit.code, exit.signal, exit.restarts, exit.restarting), (255, None, 1, true));
    assert_eq!(exit.error, "its monitor was killed, and how it ended was not seen");
    // What it says may have come before anybody could attach.
    let begun = Instant::now();
    while client.status().expect("alive").phase != Phase::Running {
        assert!(begun.elapsed() < Duration::from_secs(30), "it does not run again");
        std::thread::sleep(Duration::from_millis(2));
    }
    // And so often as the policy says.
    end();
    let client = adopt(&container.setup).expect("taken over");
    if let Ok(end) = client.wait(Until::Ended) {
        let _ = end.wait();
    }
    container.left();
    let last = container.exit();
    assert_eq!((last.code, last.restarts, last.restarting), (255, 1, false));
    assert_eq!(container.ended(), Some(last));
    assert!(matches!(find(&container.setup.settings), Ok(Found::Gone)));
}

#[test]
fn what_a_killed_monitor_had_begun_is_gone_on_with() {
    let container = Container::new("echo run; exit 3").with(|settings, _| {
        settings.restart = Restart { name: Policy::OnFailure, maximum: 6 };
    });
    let told = adopt(&container.setup).expect_err("nothing is there").to_string();
    assert!(told.ends_with("nothing to take over"), "{told}");
    container.assert_gone();
    let client = container.created();
    let mut waiter = client.wait(Until::Exit).expect("waiting");
    client.start().expect("started");
    // After the fifth run it waits for 1.6 s.
    while waiter.wait().expect("an exit").restarts < 5 {
        waiter = client.wait(Until::Exit).expect("waiting");
    }
    kill_monitor(&container);
    let client = adopt(&container.setup).expect("taken over");
    let last = client.wait(Until::Ended).expect("waiting").wait().expect("an exit");
    assert_eq!((last.code, last.restarts, last.restarting), (3, 6, false));
    assert_eq!(runs(&container).len(), 7);
    assert_eq!(container.ended(), Some(last.clone()));
    // It is killed while the end is taken down: that is done again, and no run.
    fs::remove_file(container.dir.join("ended")).expect("remove");
    let client = adopt(&container.setup).expect("taken over");
    if let Ok(end) = client.wait(Until::Ended) {
        let _ = end.wait();
    }
    container.left();
    assert_eq!((container.ended(), runs(&container).len()), (Some(last), 7));
}
