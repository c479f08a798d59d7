//! Rows 114-125: the command line and what the caller's environment does to it.

use super::Row;
use crate::harness::{Run, is_rrun};
use crate::{requires, rrun_only};
use serde_json::json;
use std::fs;

impl Row {
    fn sleeper(number: u32) -> Self {
        let r = Self::new(number);
        r.t.detached("exec sleep 1000");
        r
    }

    /// `ROOT args…` must fail.
    #[track_caller]
    fn no(&self, code: i32, texts: &str, args: &[&str]) {
        self.fails(code, texts, self.t.rt(args));
    }
}

#[test]
fn row_114_ids() {
    requires!(root);
    let r = Row::new(114);
    let bundle = r.t.bundle.to_str().unwrap();
    let long = "x".repeat(300);
    let longer = "x".repeat(5000);
    for id in ["", ".", "..", "../x", "a/b", "a b", "\u{e9}", "a\n", "a:b", "@", &long, &longer] {
        r.no(
            1,
            "invalid container ID format|container id cannot be empty|container id",
            &["run", "--bundle", bundle, "--", id],
        );
    }
    assert!(!r.t.dir.join("x").exists());
    for id in ["+", ".hidden", "_", "-x"] {
        let id = format!("{id}{}", r.t.id);
        r.survives(r.t.rt(&["run", "--bundle", bundle, "--", &id])).ok();
    }
    r.t.nothing_left();
}

#[test]
fn row_115_an_id_that_is_taken() {
    requires!(root);
    let r = Row::sleeper(115);
    r.fails(1, "container with given ID already exists|already exists", r.t.bundle_command("create", &[]));
    assert_eq!(r.t.status(), "running");
    r.t.kill("KILL").ok();
    r.t.wait_status("stopped");
    r.fails(1, "container with given ID already exists|already exists", r.t.bundle_command("run", &[]));
    assert_eq!(r.t.status(), "stopped");
    r.t.end();
}

#[test]
fn row_116_usage() {
    requires!(root);
    let r = Row::new(116);
    for args in [&["state"][..], &["state", "a", "b"], &["start"], &["create"], &["delete"], &["kill"]] {
        let out = r.survives(r.t.rt(args));
        assert_ne!(out.code, Some(0), "{out:?}");
        if is_rrun() {
            out.code_is(1);
        }
    }
    for args in [&["--root", "/", "list"][..], &["--root", "/etc/passwd", "list"]] {
        let out = r.survives(args.iter().fold(Run::bare(&r.t), |run, a| run.arg(a)));
        assert!(!is_rrun() || out.code == Some(1), "{out:?}");
    }
    let out = r.survives(
        Run::bare(&r.t).arg("--root").arg("/proc/nosuch").arg("run").arg("-b").arg(&r.t.bundle).arg("x"),
    );
    assert_ne!(out.code, Some(0));
}

#[test]
fn row_117_paths_in_flags() {
    requires!(root);
    let r = Row::new(117);
    r.no(1, "/no/such", &["run", "--bundle", "/no/such", &r.t.id]);
    r.no(1, "/etc/passwd|config.json", &["run", "--bundle", "/etc/passwd", &r.t.id]);
    for file in ["/no/such/pid", "/proc/pid", "/tmp"] {
        r.with(|c| c["process"]["args"] = json!(["sleep", "1"]));
        r.fails(
            1,
            "pid-file|pid file|/no/such|/proc|/tmp",
            r.t.bundle_command("create", &["--pid-file", file]),
        );
        let _ = r.t.rt(&["delete", "--force", &r.t.id]).go();
        r.t.nothing_left();
    }
    r.with(|c| c["process"]["terminal"] = json!(true));
    let long = format!("/tmp/{}", "x".repeat(200));
    for socket in ["/no/such/socket", "/etc/passwd", &long] {
        let text = "console-socket|console socket|/no/such|/etc/passwd|name too long|xxx|connection refused";
        r.fails(1, text, r.t.bundle_command("create", &["--console-socket", socket]));
        r.t.nothing_left();
    }
}

#[test]
fn row_118_preserve_fds() {
    requires!(root);
    let r = Row::new(118);
    r.survives(r.t.bundle_command("run", &["--preserve-fds", "5"]));
    for n in ["-1", "1000000", "x"] {
        let out = r.survives(r.t.bundle_command("run", &["--preserve-fds", n]));
        assert!(!is_rrun() || out.code == Some(1), "{out:?}");
    }
    r.t.nothing_left();
}

#[test]
fn row_119_signals() {
    requires!(root);
    let r = Row::sleeper(119);
    for signal in if is_rrun() { &["FOO", "SIGFOO", ""][..] } else { &["FOO", "SIGFOO"] } {
        r.no(1, "unknown signal", &["kill", &r.t.id, signal]);
    }
    for signal in ["65", "9999"] {
        r.no(1, "unknown signal|invalid argument", &["kill", &r.t.id, signal]);
    }
    let out = r.survives(r.t.rt(&["kill", "--", &r.t.id, "-1"]));
    assert_ne!(out.code, Some(0));
    r.survives(r.t.rt(&["kill", &r.t.id, "0"]));
    assert_eq!(r.t.status(), "running");
    r.t.end();
}

#[test]
fn row_120_operations_in_the_wrong_state() {
    requires!(root);
    let r = Row::sleeper(120);
    let id = r.t.id.as_str();
    r.no(1, "cannot start an already running container", &["start", id]);
    r.no(1, "container not paused", &["resume", id]);
    r.no(1, "that is not stopped", &["delete", id]);
    r.t.rt(&["pause", id]).go().ok();
    if is_rrun() {
        r.no(1, "container not running or created|container not running", &["pause", id]);
        r.no(
            255,
            "cannot exec in a paused container (use --ignore-paused to override)",
            &["exec", id, "true"],
        );
    }
    r.t.rt(&["resume", id]).go().ok();
    r.t.kill("KILL").ok();
    r.t.wait_status("stopped");
    r.no(1, "cannot start a container that has stopped", &["start", id]);
    r.no(255, "cannot exec in a stopped container", &["exec", id, "true"]);
    r.no(1, "container not running", &["pause", id]);
    r.no(1, "container not running", &["kill", id, "TERM"]);
    r.no(1, "not running", &["update", "--pids-limit", "5", id]);
    r.no(1, "is not running", &["events", "--stats", id]);
    r.t.end();
    for command in
        [&["state", id][..], &["start", id], &["kill", id], &["pause", id], &["ps", id], &["delete", id]]
    {
        r.no(1, "container does not exist|does not exist", command);
    }
}

#[test]
fn row_121_exec() {
    requires!(root);
    let r = Row::sleeper(121);
    let id = r.t.id.as_str();
    let junk = r.t.dir.join("junk");
    fs::write(&junk, "{").unwrap();
    r.no(255, "no such file", &["exec", "--process", "/no/such", id]);
    r.no(255, "junk|process|line 1", &["exec", "--process", junk.to_str().unwrap(), id]);
    r.no(255, "exec args cannot be empty|args", &["exec", id]);
    r.no(255, "user", &["exec", "--user", "nosuch:x", id, "true"]);
    r.no(255, "Cwd must be an absolute path|cwd", &["exec", "--cwd", "tmp", id, "true"]);
    for args in [
        &["--additional-gids", "-1"][..],
        &["--cap", "CAP_FOO"],
        &["--env", "NOEQUALS"],
        &["--cgroup", "../x"],
    ] {
        let args: Vec<_> = ["exec"].iter().chain(args).chain(&[id, "true"]).copied().collect();
        r.survives(r.t.rt(&args));
    }
    if is_rrun() {
        r.no(
            255,
            "additional-gids must be a positive number",
            &["exec", "--additional-gids", "-1", id, "true"],
        );
    }
    r.t.end();
    // A container without capabilities at all, and --cap: runc dereferenced nil.
    r.with(|c| drop(c["process"].as_object_mut().unwrap().remove("capabilities")));
    r.t.sh("exec sleep 1000");
    r.t.bundle_command("run", &["--detach"]).go().ok();
    if is_rrun() {
        r.survives(r.t.rt(&["exec", "--cap", "CAP_KILL", id, "true"]));
    }
    r.t.end();
}

#[test]
fn row_122_update() {
    requires!(root);
    let r = Row::sleeper(122);
    let id = r.t.id.as_str();
    r.fails(1, "resources|line 1|json", r.t.rt(&["update", "--resources", "-", id]).stdin("junk"));
    r.fails(
        1,
        "resources|line 1|json",
        r.t.rt(&["update", "--resources", "-", id]).through("exec \"$@\" <&-"),
    );
    r.no(1, "memory", &["update", "--memory", "foo", id]);
    r.no(1, "cpu.cpus", &["update", "--cpuset-cpus", "x", id]);
    r.no(1, "no such file", &["update", "--resources", "/no/such", id]);
    assert_eq!(r.t.status(), "running");
    r.t.end();
}

#[test]
fn row_123_a_poor_environment() {
    requires!(root);
    let r = Row::new(123);
    r.with(|c| c["process"]["args"] = json!(["sh", "-c", "exit 0"]));
    for script in [
        "exec \"$@\" >&-",
        "exec \"$@\" <&-",
        "exec \"$@\" 2>&-",
        "exec \"$@\" <&- >&- 2>&-",
        "exec env -i \"$@\"",
    ] {
        r.survives(r.t.bundle_command("run", &[]).through(script)).ok();
        r.t.nothing_left();
    }
    for command in ["list", "features"] {
        r.survives(r.t.rt(&[command]).through("exec \"$@\" >&-"));
    }
    r.survives(r.t.rt(&["features"]).through("\"$@\" | head -c 1 >/dev/null"));
    // argc = 0.
    let python = "import os,sys; os.execv(sys.argv[1], [''])";
    let mut run = Run::bare(&r.t);
    run = run.arg("--version").under(&["python3", "-c", python]);
    if crate::harness::program("python3").is_some() {
        r.survives(run);
    }
}

#[test]
fn row_124_log_files() {
    requires!(root);
    let r = Row::new(124);
    for path in ["/no/such/log", "/tmp"] {
        let out = r.survives(r.t.rt(&["--log", path, "list"]));
        assert_eq!(out.code, Some(1), "{out:?}");
    }
    let bundle = r.t.bundle.to_str().unwrap();
    r.survives(r.t.rt(&["--log", "/dev/full", "run", "--bundle", bundle, &r.t.id])).ok();
    r.no(1, "log-format|log format", &["--log-format", "foo", "list"]);
    if is_rrun() {
        let fifo = r.t.dir.join("fifo");
        std::process::Command::new("mkfifo").arg(&fifo).status().unwrap();
        r.survives(r.t.rt(&["--log", fifo.to_str().unwrap(), "list"]));
    }
}

#[test]
fn row_125_hard_limits_around_the_runtime() {
    requires!(root);
    rrun_only!("a Go program does not start in 64 MB of address space");
    let r = Row::new(125);
    for script in [
        "ulimit -v 65536; exec \"$@\"",
        "ulimit -s 64; exec \"$@\"",
        "umask 0777; exec \"$@\"",
        "nice -n 19 \"$@\"",
        "mkdir gone && cd gone && rmdir ../gone && exec \"$@\"",
        "ulimit -n 8; exec \"$@\"",
        "ulimit -n 32; exec \"$@\"",
    ] {
        r.survives(r.t.bundle_command("run", &[]).through(script));
        r.t.nothing_left();
    }
    // SIGXFSZ must not end the runtime between two writes.
    let out = r.t.bundle_command("run", &[]).through("ulimit -f 0; exec \"$@\" >/dev/null 2>&1").go();
    assert!(out.signal.is_none(), "{out:?}");
    r.t.nothing_left();
}
