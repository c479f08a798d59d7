//! `ps`, `inspect`, `logs`, `top`, `port`, `stats`, `container prune` and `system`, each test in a network namespace
//! of its own.

use crate::harness::*;
use serde_json::Value;
use std::io::Read as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// An engine with the image `busybox`, and containers that go with it.
struct Shown(Engine);

impl std::ops::Deref for Shown {
    type Target = Engine;

    fn deref(&self) -> &Engine {
        &self.0
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        let ids = self.run(&["ps", "-aq", "--no-trunc"]);
        for id in text(&ids.stdout).lines() {
            self.run(&["rm", "-f", id]);
        }
    }
}

impl Shown {
    fn new() -> Self {
        let engine = Engine::new();
        let mut made = tar::Builder::new(Vec::new());
        let mut busybox = std::fs::File::open("/bin/busybox").expect("apt-get install busybox-static");
        made.append_file("bin/busybox", &mut busybox).expect("tar");
        for applet in ["sh", "sleep", "dd"] {
            let mut header = tar::Header::new_ustar();
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_mode(0o777);
            header.set_size(0);
            made.append_link(&mut header, format!("bin/{applet}"), "busybox").expect("tar");
        }
        let made = made.into_inner().expect("tar");
        let output =
            engine.fed(&["import", "-c", "ENV PATH=/bin", "-c", "CMD [\"sh\"]", "-", "busybox"], &made);
        assert_eq!(text(&output.stderr), "");
        Self(engine)
    }

    /// Starts a shell, and says the container's id.
    #[track_caller]
    fn runs(&self, flags: &[&str], script: &str) -> String {
        let arguments = [&["run", "-d"], flags, &["busybox", "sh", "-c", script]].concat();
        self.prints(&arguments).trim().to_owned()
    }

    /// Waits until a command prints what is looked for.
    #[track_caller]
    fn until(&self, arguments: &[&str], found: impl Fn(&str) -> bool) -> String {
        let begin = Instant::now();
        loop {
            let said = self.prints(arguments);
            if found(&said) {
                return said;
            }
            assert!(begin.elapsed() < Duration::from_secs(60), "{arguments:?} says for ever: {said}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The names that `ps` has with these flags.
    #[track_caller]
    fn names(&self, flags: &[&str]) -> String {
        let said = self.prints(&[&["ps", "--format", "{{.Names}}"], flags].concat());
        said.split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

#[test]
fn c3_containers_are_listed() {
    alone(|| {
        let engine = Shown::new();
        let header = "CONTAINER ID   IMAGE     COMMAND   CREATED   STATUS    PORTS     NAMES\n";
        assert_eq!(engine.prints(&["ps"]), header);
        let old = engine.runs(&["--name", "old", "-l", "team=a", "-v", "data:/data"], "exit 3");
        engine.prints(&["wait", "old"]);
        let web = engine
            .runs(&["--name", "web", "-l", "team=b", "-p", "8080:80", "--expose", "9000-9002"], "sleep 600");
        engine.prints(&["create", "--name", "new", "--network", "none", "busybox"]);
        let shown = engine.prints(&["ps"]);
        assert_eq!(shown.lines().count(), 2, "{shown}");
        let row = shown.lines().nth(1).expect("a row");
        assert!(row.starts_with(&format!("{}   busybox   \"sh -c 'sleep 600'\"   ", &web[..12])), "{shown}");
        assert!(row.contains("   Up ") && row.ends_with("   web"), "{shown}");
        assert!(
            row.contains("0.0.0.0:8080->80/tcp, [::]:8080->80/tcp") && row.contains("9000-9002/tcp"),
            "{shown}"
        );
        assert_eq!(engine.prints(&["container", "ls"]).lines().count(), 2);
        let all = engine.prints(&["ps", "-a", "--format", "{{.Names}} {{.State}} {{.Status}}|{{.Ports}}"]);
        let lines: Vec<&str> = all.lines().collect();
        assert_eq!(lines[0], "new created Created|");
        assert!(lines[1].starts_with("web running Up "), "{all}");
        assert!(lines[2].starts_with("old exited Exited (3) ") && lines[2].ends_with(" ago|"), "{all}");
        let ids = engine.prints(&["ps", "-aq"]);
        assert!(ids.lines().count() == 3 && ids.contains(&old[..12]), "{ids}");
        assert_eq!(engine.prints(&["ps", "-q", "--no-trunc"]), format!("{web}\n"));
        for (flags, names) in [
            (&["-l"][..], "new"),
            (&["-n", "2"], "new web"),
            (&["-n", "-1"], "web"),
            (&["-f", "status=exited"], "old"),
            (&["-f", "status=exited", "-f", "status=created"], "new old"),
            (&["-a", "-f", "exited=3"], "old"),
            (&["-a", "-f", "exited=0"], ""),
            (&["-a", "-f", "name=^/?(old|new)$"], "new old"),
            (&["-a", "-f", "label=team"], "web old"),
            (&["-a", "-f", "label=team=b"], "web"),
            (&["-a", "-f", "before=web"], "old"),
            (&["-a", "-f", "since=web"], "new"),
            (&["-a", "-f", "ancestor=busybox"], "new web old"),
            (&["-a", "-f", "ancestor=nothing"], ""),
            (&["-a", "-f", "volume=data"], "old"),
            (&["-a", "-f", "network=none"], "new"),
            (&["-a", "-f", "publish=80"], "web"),
            (&["-a", "-f", "expose=9001-9100/tcp"], "web"),
            (&["-a", "-f", "health=none"], "new web old"),
            (&["-a", "-f", "is-task=true"], ""),
            (&["-a", "-f", &format!("id={}", &old[..5])], "old"),
        ] {
            assert_eq!(engine.names(flags), names, "{flags:?}");
        }
        let json: Value = serde_json::from_str(&engine.prints(&["ps", "--format", "json"])).expect("JSON");
        assert_eq!(
            (&json["Names"], &json["Labels"], &json["Networks"]),
            (&"web".into(), &"team=b".into(), &"bridge".into())
        );
        let size = engine.prints(&["ps", "-as", "--format", "{{.Names}} {{.Size}}"]);
        assert!(size.contains("web 0B (virtual ") || size.contains("B (virtual "), "{size}");
        assert_eq!(engine.prints(&["ps", "--format", "{{.Label \"team\"}}"]), "b\n");
        for (bad, said) in [
            (&["ps", "-f", "x=1"][..], "invalid filter \"x\" (there are ancestor before"),
            (&["ps", "-f", "status=x"], "invalid filter 'status=x'"),
            (&["ps", "-f", "before=nobody"], "No such container: nobody"),
            (&["ps", "-f", "name=("], "invalid filter 'name=('"),
            (&["ps", "--format", "{{.Foo}}"], "template parsing error"),
        ] {
            let e = engine.refuses(bad);
            assert!(e.starts_with(said), "{e}");
        }
        let quiet = engine.run(&["ps", "-q", "--format", "{{.Names}}"]);
        assert_eq!(text(&quiet.stdout), format!("{}\n", &web[..12]));
        assert!(text(&quiet.stderr).starts_with("WARNING: Ignoring custom format"));
        engine.prints(&["pause", "web"]);
        assert!(engine.prints(&["ps", "-f", "status=paused"]).contains(" (Paused) "));
        // As info counts them.
        let counts = "{{.Containers}} {{.ContainersRunning}} {{.ContainersPaused}} {{.ContainersStopped}}";
        assert_eq!(engine.prints(&["info", "-f", counts]), "3 0 1 2\n");
        engine.prints(&["unpause", "web"]);
        assert_eq!(engine.prints(&["info", "-f", counts]), "3 1 0 2\n");
    });
}

// moby 41834.
#[test]
fn a_container_that_exposes_every_port_does_not_slow_ps() {
    alone(|| {
        let engine = Shown::new();
        engine.runs(&["--name", "all", "--network", "none", "--expose", "1025-65535"], "sleep 600");
        let begin = Instant::now();
        assert_eq!(engine.prints(&["ps", "--format", "{{.Ports}}"]), "1025-65535/tcp\n");
        assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    });
}

#[test]
fn c5_containers_come_before_images_networks_and_volumes() {
    alone(|| {
        let engine = Shown::new();
        let id = engine.runs(&["--name", "busybox", "-v", "data:/data"], "echo 12345 >/file; sleep 600");
        let one = |arguments: &[&str]| -> Value {
            let all: Value = serde_json::from_str(&engine.prints(arguments)).expect("JSON");
            assert_eq!(all.as_array().map(Vec::len), Some(1));
            all[0].clone()
        };
        let shown = one(&["inspect", "busybox"]);
        assert_eq!((&shown["Id"], &shown["State"]["Running"]), (&id.as_str().into(), &true.into()));
        let settings = &shown["NetworkSettings"];
        assert_eq!(settings["IPAddress"], settings["Networks"]["bridge"]["IPAddress"]);
        assert!(settings["IPAddress"].as_str().is_some_and(|ip| ip.starts_with("172.17.0.")), "{settings}");
        assert_eq!((&settings["Gateway"], &settings["IPPrefixLen"]), (&"172.17.0.1".into(), &16.into()));
        assert!(shown.get("SizeRw").is_none());
        engine.until(&["inspect", "-s", "-f", "{{.SizeRw}}", "busybox"], |size| {
            size.trim().parse().is_ok_and(|n: u64| n >= 6)
        });
        assert_eq!(one(&["container", "inspect", &id[..5]])["Name"], "/busybox");
        assert!(one(&["inspect", "--type", "image", "busybox"])["RootFS"].is_object());
        assert_eq!(one(&["inspect", "bridge"])["Driver"], "bridge");
        assert_eq!(one(&["inspect", "data"])["Scope"], "local");
        let several = engine.prints(&["inspect", "-f", "{{.Name}}", "busybox", "data"]);
        assert_eq!(several, "/busybox\ndata\n");
        assert_eq!(engine.run(&["inspect", "--type", "volume", "busybox"]).status.code(), Some(1));
        assert_eq!(refusal(&engine.run(&["container", "inspect", "no"]), &[]), "No such container: no");
        assert_eq!(refusal(&engine.run(&["inspect", "no"]), &[]), "No such object: no");
    });
}

#[test]
fn c10_what_a_container_wrote_is_shown() {
    alone(|| {
        let engine = Shown::new();
        let script = "echo one; echo two >&2; echo three";
        engine.runs(&["--name", "both", "--network", "none"], script);
        engine.prints(&["wait", "both"]);
        let output = engine.run(&["logs", "both"]);
        assert_eq!((text(&output.stdout).as_str(), text(&output.stderr).as_str()), ("one\nthree\n", "two\n"));
        // Both in one place are in their order.
        let log = engine.path("log");
        let file = std::fs::File::create(&log).expect("create");
        let status = engine
            .command(&["logs", "--details", "both"])
            .stdout(file.try_clone().expect("dup"))
            .stderr(file)
            .status();
        assert!(status.expect("rrunctl starts").success());
        let written = std::fs::read_to_string(&log).expect("read");
        let mut lines: Vec<&str> = written.lines().collect();
        lines.sort_unstable();
        assert_eq!(lines, [" one", " three", " two"], "{written}");
        // Which of two streams came last nobody can say.
        engine.runs(&["--name", "plain", "--network", "none"], "echo one; echo three");
        engine.prints(&["wait", "plain"]);
        assert_eq!(engine.prints(&["logs", "-n", "1", "plain"]), "three\n");
        assert_eq!(engine.prints(&["logs", "--tail", "0", "plain"]), "");
        let last = engine.run(&["logs", "--since", "1h", "--tail", "1", "plain"]);
        assert_eq!(text(&last.stdout), "three\n");
        assert_eq!(engine.prints(&["logs", "--until", "1h", "plain"]), "");
        assert_eq!(engine.prints(&["logs", "--since", "4000000000.5", "plain"]), "");
        let timed = engine.prints(&["logs", "-t", "-n", "1", "plain"]);
        let (time, rest) = timed.split_once(' ').expect("a time");
        assert!(time.len() == "2026-11-23T06:00:00.123456789Z".len() && rest == "three\n", "{timed}");
        // A terminal has but one output.
        engine.runs(&["--name", "tty", "-t", "--network", "none"], script);
        engine.prints(&["wait", "tty"]);
        let output = engine.run(&["logs", "tty"]);
        assert_eq!(
            (text(&output.stdout).as_str(), text(&output.stderr).as_str()),
            ("one\r\ntwo\r\nthree\r\n", "")
        );
        engine.runs(&["--name", "none", "--log-driver", "none", "--network", "none"], "echo lost");
        assert_eq!(engine.refuses(&["logs", "none"]), "configured logging driver does not support reading");
        assert_eq!(engine.refuses(&["logs", "nobody"]), "No such container: nobody");
        engine.refuses(&["logs", "--since", "x", "plain"]);
        engine.refuses(&["logs", "--tail", "x", "plain"]);
        engine.prints(&["create", "--name", "never", "busybox"]);
        assert_eq!(engine.prints(&["logs", "-f", "never"]), "");
    });
}

#[test]
fn a_log_is_followed_until_the_container_ends() {
    alone(|| {
        let engine = Shown::new();
        let shared = engine.path("shared");
        std::fs::create_dir(&shared).expect("mkdir");
        let bind = format!("{}:/shared", shared.display());
        let script = "echo begin; while [ ! -e /shared/go ]; do sleep 0.05; done; echo end";
        engine.runs(&["--name", "talks", "--network", "none", "-v", &bind], script);
        let mut follower =
            engine.command(&["logs", "-f", "talks"]).stdout(Stdio::piped()).spawn().expect("rrunctl starts");
        let mut output = follower.stdout.take().expect("a pipe");
        let mut seen = [0; 6];
        output.read_exact(&mut seen).expect("what was written before");
        assert_eq!(&seen, b"begin\n");
        std::fs::write(shared.join("go"), "").expect("write");
        let mut rest = String::new();
        output.read_to_string(&mut rest).expect("read");
        assert_eq!(rest, "end\n");
        assert!(follower.wait().expect("wait").success());
    });
}

#[test]
fn a_container_without_its_monitor_is_still_shown() {
    alone(|| {
        let engine = Shown::new();
        let id = engine.runs(&["--name", "orphan", "--network", "none"], "echo hello; sleep 600");
        engine.until(&["logs", "orphan"], |said| said == "hello\n");
        let pid = std::fs::read_to_string(engine.path("run").join(&id).join("pid")).expect("a pid");
        let pid = pid
            .split_whitespace()
            .next()
            .and_then(|pid| pid.parse().ok())
            .and_then(rustix::process::Pid::from_raw);
        rustix::process::kill_process(pid.expect("a pid"), rustix::process::Signal::KILL).expect("kill");
        assert_eq!(engine.prints(&["logs", "-f", "orphan"]), "hello\n");
        assert_eq!(engine.names(&[]), "orphan");
        assert!(engine.prints(&["top", "orphan"]).contains("sleep 600"));
        // Who waits is told when it ends, and that nobody has seen how.
        let mut waits = engine.command(&["wait", "orphan"]);
        let waits = waits.stdout(std::process::Stdio::piped()).spawn().expect("rrunctl");
        engine.prints(&["kill", "orphan"]);
        assert_eq!(text(&waits.wait_with_output().expect("it ends").stdout), "255\n");
        engine.prints(&["start", "orphan"]);
        engine.until(&["logs", "orphan"], |said| said == "hello\nhello\n");
        let stats = engine.prints(&["stats", "--no-stream", "--format", "{{.Name}} {{.PIDs}}"]);
        assert_eq!(stats, "orphan 1\n");
    });
}

#[test]
fn c11_the_processes_of_a_container_are_shown() {
    alone(|| {
        let engine = Shown::new();
        engine.runs(&["--name", "web", "--network", "none"], "sleep 601 & sleep 602 & wait");
        let shown = engine.until(&["top", "web"], |said| said.contains("601") && said.contains("602"));
        let title = "UID                 PID                 PPID                C                   STIME               TTY";
        assert!(shown.starts_with(title) && shown.lines().count() == 4, "{shown}");
        assert!(shown.lines().nth(1).is_some_and(|line| line.contains("sh -c sleep 601")), "{shown}");
        let pids = engine.prints(&["top", "web", "-o", "pid,ppid"]);
        assert!(pids.starts_with("PID                 PPID\n") && pids.lines().count() == 4, "{pids}");
        assert_eq!(engine.prints(&["top", "web", "-eo pid"]).lines().count(), 4);
        assert_eq!(
            engine.refuses(&["top", "web", "-o", "comm"]),
            "Couldn't find PID field in ps output (let ps print the column pid)"
        );
        assert_eq!(
            engine.refuses(&["top", "web", "-o", "ppid=PID"]),
            "specifying \"ppid=PID\" is not allowed"
        );
        assert!(engine.refuses(&["top", "web", "--nonsense"]).starts_with("ps: "));
        engine.prints(&["kill", "web"]);
        engine.prints(&["wait", "web"]);
        let e = engine.refuses(&["top", "web"]);
        assert!(e.starts_with("container ") && e.ends_with(" is not running"), "{e}");
    });
}

#[test]
fn ports_are_shown() {
    alone(|| {
        let engine = Shown::new();
        let flags = [
            "--name",
            "web",
            "-p",
            "8080:80",
            "-p",
            "127.0.0.1:53:53/udp",
            "-p",
            "9:1000",
            "--expose",
            "443",
        ];
        engine.runs(&flags, "sleep 600");
        assert_eq!(
            engine.prints(&["port", "web"]),
            "53/udp -> 127.0.0.1:53\n80/tcp -> 0.0.0.0:8080\n80/tcp -> [::]:8080\n1000/tcp -> 0.0.0.0:9\n1000/tcp -> [::]:9\n"
        );
        assert_eq!(engine.prints(&["port", "web", "80"]), "0.0.0.0:8080\n[::]:8080\n");
        assert_eq!(engine.prints(&["container", "port", "web", "53/udp"]), "127.0.0.1:53\n");
        for (port, told) in [("443", "443/tcp"), ("80/udp", "80/udp"), ("9", "9/tcp")] {
            assert_eq!(
                engine.refuses(&["port", "web", port]),
                format!("No public port '{told}' published for web")
            );
        }
        assert_eq!(engine.refuses(&["port", "web", "foo"]), "invalid port (foo)");
        engine.prints(&["kill", "web"]);
        engine.prints(&["wait", "web"]);
        assert_eq!(engine.prints(&["port", "web"]), "");
    });
}

#[test]
fn c12_what_containers_use_is_shown() {
    alone(|| {
        let engine = Shown::new();
        let header =
            "CONTAINER ID   NAME      CPU %     MEM USAGE / LIMIT   MEM %     NET I/O   BLOCK I/O   PIDS\n";
        assert_eq!(engine.prints(&["stats", "--no-stream"]), header);
        let busy = engine.runs(&["--name", "busy", "-m", "64m", "--cpus", "0.2"], "while :; do :; done");
        let shown = engine.prints(&["stats", "--no-stream", "--format", "json"]);
        let shown: Value = serde_json::from_str(&shown).expect("JSON");
        assert_eq!(
            (&shown["Name"], &shown["ID"], &shown["PIDs"]),
            (&"busy".into(), &busy[..12].into(), &"1".into())
        );
        let percent = |key: &str| -> f64 {
            let text = shown[key].as_str().and_then(|text| text.strip_suffix('%')).expect("percents");
            text.parse().expect("a number")
        };
        // Of a fifth of a processor, on a machine where others are at work, too.
        assert!(percent("CPUPerc") > 0.5 && percent("CPUPerc") < 40.0, "{shown}");
        assert!(percent("MemPerc") > 0.0 && percent("MemPerc") < 50.0, "{shown}");
        assert!(shown["MemUsage"].as_str().is_some_and(|text| text.ends_with("B / 64MiB")), "{shown}");
        assert!(shown["NetIO"].as_str().is_some_and(|text| text.contains("B / ")), "{shown}");
        // Files in the page cache are none of its memory.
        let script = "dd if=/dev/zero of=/big bs=1M count=24 2>/dev/null; echo written; exec sleep 600";
        engine.runs(&["--name", "cache", "-m", "64m", "--network", "none"], script);
        engine.until(&["logs", "cache"], |said| said == "written\n");
        let used =
            engine.prints(&["stats", "--no-stream", "--format", "{{.Container}} {{.MemUsage}}", "cache"]);
        let mib: f64 = used
            .strip_prefix("cache ")
            .and_then(|used| used.split_once("iB"))
            .map(|(n, _)| if let Some(n) = n.strip_suffix('M') { n.parse().expect("a number") } else { 0.0 })
            .expect("a size");
        // Those of a tmpfs have no other place.
        const TMPFS: i64 = 0x0102_1994;
        match rustix::fs::statfs(&engine.dir).expect("statfs").f_type == TMPFS {
            true => eprintln!("skipped: the page cache, as {} is on a tmpfs", engine.dir.display()),
            false => assert!(mib < 20.0, "{used}"),
        }
        engine.prints(&["create", "--name", "made", "busybox"]);
        let all = engine.prints(&[
            "stats",
            "--no-stream",
            "-a",
            "--format",
            "{{.Name}} {{.CPUPerc}} {{.MemUsage}} {{.PIDs}}",
        ]);
        assert!(all.starts_with("made 0.00% 0B / 0B 0\n") && all.lines().count() == 3, "{all}");
        assert_eq!(engine.refuses(&["stats", "--no-stream", "nobody"]), "No such container: nobody");
        engine.refuses(&["stats", "--format", "{{.Foo}}"]);
        // A reader who goes away ends it.
        let mut stream =
            engine.command(&["stats", "busy"]).stdout(Stdio::piped()).spawn().expect("rrunctl starts");
        let mut output = stream.stdout.take().expect("a pipe");
        let mut seen = String::new();
        while seen.matches("busy").count() < 2 {
            let mut piece = [0; 4096];
            let n = output.read(&mut piece).expect("read");
            assert!(n > 0, "it ended: {seen}");
            seen.push_str(&text(&piece[..n]));
        }
        drop(output);
        stream.wait().expect("wait");
        assert!(!seen.contains('\x1b'), "no terminal, no control characters: {seen}");
        // Docker has no `status`; whoever writes it means this.
        let said = text(&engine.run(&["status"]).stderr);
        assert!(said.contains("stats"), "{said}");
    });
}

#[test]
fn containers_that_do_not_run_are_pruned() {
    alone(|| {
        let engine = Shown::new();
        for name in ["one", "two"] {
            engine.runs(
                &["--name", name, "-l", name, "--network", "none", "-v", "/anonymous"],
                "echo 12345678 >/file",
            );
            engine.prints(&["wait", name]);
        }
        engine.runs(&["--name", "runs", "--network", "none"], "sleep 600");
        engine.runs(&["--name", "frozen", "--network", "none"], "sleep 600");
        engine.prints(&["pause", "frozen"]);
        let output = engine.fed(&["container", "prune"], b"n\n");
        let question =
            "WARNING! This will remove all stopped containers.\nAre you sure you want to continue? [y/N] \n";
        assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(0), question));
        assert_eq!(
            engine.prints(&["container", "prune", "-f", "--filter", "until=24h"]),
            "Total reclaimed space: 0B\n"
        );
        let two = engine.prints(&["ps", "-aq", "--no-trunc", "-f", "name=two"]);
        assert_eq!(
            engine.prints(&["container", "prune", "-f", "--filter", "label!=one"]),
            format!("Deleted Containers:\n{two}\nTotal reclaimed space: 9B\n")
        );
        assert_eq!(engine.names(&["-a"]), "frozen runs one");
        engine.refuses(&["container", "prune", "-f", "--filter", "name=x"]);
        let output = engine.fed(&["container", "prune"], b"y\n");
        assert!(text(&output.stdout).contains("Deleted Containers:\n"));
        assert_eq!(engine.names(&["-a"]), "frozen runs");
    });
}

#[test]
fn what_the_engine_holds_is_told_and_given_back() {
    alone(|| {
        let engine = Shown::new();
        engine.runs(
            &["--name", "one", "-v", "/anonymous", "-v", "named:/named"],
            "echo 12345678 >/file; echo x >/anonymous/x",
        );
        engine.prints(&["wait", "one"]);
        engine.runs(&["--name", "runs"], "echo 1234 >/file; echo done; exec sleep 600");
        engine.until(&["logs", "runs"], |said| said == "done\n");
        engine.prints(&["network", "create", "unused"]);
        let df = engine.prints(&[
            "system",
            "df",
            "--format",
            "{{.Type}}: {{.TotalCount}} {{.Active}} {{.Size}} {{.Reclaimable}}",
        ]);
        assert!(df.starts_with("Images: 1 1 "), "{df}");
        assert!(df.contains("\nContainers: 2 1 14B 9B (64%)\nLocal Volumes: 2 2 2B 0B (0%)\n"), "{df}");
        let verbose = engine.prints(&["system", "df", "-v"]);
        let containers = "\n\nContainers space usage:\n\nCONTAINER ID   IMAGE     COMMAND ";
        assert!(
            verbose.contains(containers)
                && verbose.contains("\n\nLocal Volumes space usage:\n\nVOLUME NAME "),
            "{verbose}"
        );
        assert!(
            verbose.contains("\nnamed ")
                && verbose.lines().any(|line| line.ends_with("   one") && line.contains("   9B   ")),
            "{verbose}"
        );
        let output = engine.fed(&["system", "prune", "--volumes", "--filter", "label!=keep"], b"n\n");
        assert_eq!(
            text(&output.stdout),
            "WARNING! This will remove:\n  - all stopped containers\n  - all networks not used by at least one \
             container\n  - all anonymous volumes not used by at least one container\n  - all dangling images\n  - what \
             killed commands left\n\n  Items to be pruned will be filtered with:\n  - label!=keep\n\nAre you sure you \
             want to continue? [y/N] \n"
        );
        let e = engine.refuses(&["system", "prune", "-f", "--volumes", "--filter", "until=1h"]);
        assert_eq!(e, "The \"until\" filter is not supported with \"--volumes\"");
        let one = engine.prints(&["ps", "-aq", "--no-trunc", "-f", "name=one"]);
        // What a command that was killed would leave.
        let left = engine.path("run").join("0123456789abcdef".repeat(4));
        std::fs::create_dir(&left).expect("mkdir");
        let said = engine.prints(&["system", "prune", "-f", "--volumes"]);
        assert!(
            said.starts_with(&format!(
                "Deleted Containers:\n{one}\nDeleted Networks:\nunused\n\nDeleted Volumes:\n"
            )),
            "{said}"
        );
        assert!(said.ends_with("\n\nTotal reclaimed space: 11B\n"), "{said}");
        assert!(!left.exists());
        assert_eq!(engine.names(&["-a"]), "runs");
        assert_eq!(engine.prints(&["volume", "ls", "-q"]), "named\n");
        assert_eq!(engine.prints(&["images", "-q"]).lines().count(), 1);
    });
}
