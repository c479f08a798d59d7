//! What callers parse and pass: version, help, usage errors, global flags, log file, pid file.

use crate::harness::{Run, Test, is_rrun};
use crate::{requires, rrun_only};
use serde_json::{Value, json};
use std::fs;

/// moby's and go-runc's parsers: the lines `NAME version V`, `commit: C`, `spec: S`.
#[test]
fn version_has_the_lines_that_go_runc_and_moby_parse() {
    let t = Test::new("version");
    for flag in ["--version", "-v"] {
        let out = Run::bare(&t).arg(flag).go();
        let text = out.ok().stdout();
        let first = text.lines().next().unwrap();
        let words: Vec<_> = first.split(' ').collect();
        assert_eq!((words.len(), words[1]), (3, "version"), "{text}");
        assert!(text.lines().any(|l| l.starts_with("commit: ") || l.starts_with("spec: ")), "{text}");
        assert!(text.lines().any(|l| l.starts_with("spec: ")), "{text}");
    }
}

#[test]
fn help_succeeds_for_every_command() {
    let t = Test::new("help");
    let out = Run::bare(&t).arg("--help").go();
    out.ok();
    for command in [
        "create",
        "start",
        "run",
        "exec",
        "state",
        "kill",
        "delete",
        "list",
        "ps",
        "pause",
        "resume",
        "update",
        "events",
        "spec",
        "features",
        "checkpoint",
        "restore",
    ] {
        assert!(out.stdout().contains(command), "{command} is not in the help");
        let out = Run::bare(&t).arg(command).arg("--help").go();
        assert!(out.ok().stdout().contains(command), "{out:?}");
    }
}

#[test]
fn a_usage_error_exits_1_and_names_what_is_wrong() {
    let t = Test::new("usage");
    Run::bare(&t).arg("state").go().fails("requires exactly 1 argument|requires exactly one argument|state");
    Run::bare(&t).arg("state").arg("a").arg("b").go().fails("requires exactly 1 argument|argument");
    let unknown = Run::bare(&t).arg("state").arg("--nosuch").arg("x").go();
    assert_ne!(unknown.code, Some(0));
    assert!(format!("{}{}", unknown.stderr(), unknown.stdout()).contains("nosuch"), "{unknown:?}");
    let unknown = Run::bare(&t).arg("nosuch").go();
    assert!(format!("{}{}", unknown.stderr(), unknown.stdout()).contains("nosuch"), "{unknown:?}");
    if is_rrun() {
        unknown.code_is(1);
    }
}

/// go-runc passes `-no-subreaper` with one dash, and old releases `--criu X`.
#[test]
fn flags_as_go_runc_writes_them() {
    requires!(root);
    rrun_only!("--detach on create and --criu at once are accepted by no single peer");
    let t = Test::new("gorunc");
    t.sh("exec sleep 1000");
    let log = t.dir.join("log.json");
    t.rt(&["--criu", "criu", "--log", log.to_str().unwrap(), "--log-format", "json", "--rootless=auto"])
        .arg("create")
        .arg("--bundle")
        .arg(&t.bundle)
        .arg("-no-new-keyring")
        .arg("--detach")
        .arg(&t.id)
        .go()
        .ok();
    t.end();
}

#[test]
fn root_must_not_be_the_root_directory() {
    rrun_only!("runc 1.1 takes every directory of / for a container");
    let t = Test::new("rootflag");
    Run::bare(&t)
        .arg("--root")
        .arg("/")
        .arg("list")
        .go()
        .fails("--root argument should not be set to /|root");
}

/// containerd's shim reads the last `level=error` line and needs its `time` as RFC 3339.
#[test]
fn the_json_log_holds_one_object_with_level_msg_and_time() {
    let t = Test::new("jsonlog");
    let log = t.dir.join("log.json");
    let out = t.rt(&["--log", log.to_str().unwrap(), "--log-format", "json", "state", "none"]).go();
    out.fails("does not exist");
    let text = fs::read_to_string(&log).unwrap();
    assert_eq!(text.lines().count(), 1, "podman unmarshals the whole file: {text}");
    let line: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(line["level"], "error");
    assert!(line["msg"].as_str().unwrap().contains("does not exist"), "{line}");
    let time = line["time"].as_str().unwrap();
    assert!(time.len() >= 20 && &time[4..5] == "-" && &time[10..11] == "T", "{time}");
    assert!(time.ends_with('Z') || time[19..].contains(['+', '-']), "{time}");
}

/// In runc's words, which its suite looks for.
#[test]
fn the_debug_log_tells_the_steps_of_a_launch() {
    requires!(root);
    rrun_only!("crun has other words");
    let t = Test::new("debuglog");
    let log = t.dir.join("log");
    let logged = |args: &[&str], words: &[&str]| {
        let _ = fs::remove_file(&log);
        let mut all = vec!["--debug", "--log", log.to_str().unwrap()];
        all.extend(args);
        let out = t.rt(&all).go();
        out.ok();
        assert!(!out.stderr().contains("level="), "{}", out.stderr());
        let text = fs::read_to_string(&log).unwrap();
        let missing: Vec<_> = words.iter().filter(|word| !text.contains(**word)).collect();
        assert!(missing.is_empty(), "{missing:?} in {text}");
    };
    let init = ["exeseal: using /proc/self/exe clone", "nsexec container setup", "child process in init()"];
    t.sh("exec sleep 1000");
    logged(
        &["run", "--detach", "--bundle", t.bundle.to_str().unwrap(), &t.id],
        &[&init[..], &["init: closing the pipe to signal completion"]].concat(),
    );
    let process = t.dir.join("process.json");
    let text = r#"{"args":["true"],"cwd":"/","env":["PATH=/bin"],"execCPUAffinity":{"initial":"0"}}"#;
    fs::write(&process, text).unwrap();
    logged(
        &["exec", "--process", process.to_str().unwrap(), &t.id],
        &[&init[..], &["nsexec container setup: affinity: 0x1", "setns_init: about to exec"]].concat(),
    );
    t.end();
    // All flags of the filter, the listener's (8) among them.
    t.edit(|c| {
        c["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "listenerPath": "/nonexistent",
            "flags": [],
            "syscalls": [{ "names": ["sethostname"], "action": "SCMP_ACT_NOTIFY" }],
        });
    });
    let out = t.rt(&["--debug", "run", "--bundle", t.bundle.to_str().unwrap(), &t.id]).go();
    assert!(out.stderr().contains("seccomp filter flags: 8\""), "{}", out.stderr());
    t.nothing_left();
}

#[test]
fn the_log_is_appended_to() {
    let t = Test::new("logappend");
    let log = t.dir.join("log");
    fs::write(&log, "before\n").unwrap();
    for _ in 0..2 {
        t.rt(&["--log", log.to_str().unwrap(), "state", "none"]).go().fails("does not exist");
    }
    let text = fs::read_to_string(&log).unwrap();
    assert!(text.starts_with("before\n"), "{text}");
    assert_eq!(text.matches("does not exist").count(), 2, "{text}");
}

#[test]
fn an_unknown_log_format_is_an_error() {
    let t = Test::new("logformat");
    t.rt(&["--log-format", "yaml", "list"]).go().fails("log-format|log format");
}

/// go-runc and conmon read the pid file with Atoi: decimal digits and nothing else.
#[test]
fn the_pid_file_holds_digits_only() {
    requires!(root);
    let t = Test::new("pidfile");
    let file = t.dir.join("init.pid");
    t.sh("exec sleep 1000");
    t.bundle_command("create", &["--pid-file", file.to_str().unwrap()]).go().ok();
    assert_eq!(fs::read_to_string(&file).unwrap(), t.pid().to_string());
    assert!(!t.dir.join(".init.pid").exists(), "the temporary name stayed");
    t.end();
}

#[test]
fn a_pid_file_is_relative_to_the_callers_directory() {
    requires!(root);
    let t = Test::new("pidrelative");
    t.sh("exec sleep 1000");
    t.bundle_command("create", &["--pid-file", "rel.pid"]).cwd(&t.dir).go().ok();
    assert_eq!(fs::read_to_string(t.dir.join("rel.pid")).unwrap(), t.pid().to_string());
    t.end();
}

/// conmon takes a present pid file for success.
#[test]
fn no_pid_file_when_create_fails() {
    requires!(root);
    let t = Test::new("nopidfile");
    let file = t.dir.join("init.pid");
    t.edit(|c| c["process"]["args"] = serde_json::json!(["/no/such"]));
    let out = t.bundle_command("create", &["--pid-file", file.to_str().unwrap()]).go();
    out.fails("no such file");
    assert!(!file.exists());
}

#[test]
fn spec_writes_a_config_that_runs_and_refuses_to_overwrite() {
    requires!(root);
    let t = Test::new("spec");
    fs::remove_file(t.bundle.join("config.json")).unwrap();
    Run::bare(&t).arg("spec").arg("--bundle").arg(&t.bundle).go().ok();
    let again = Run::bare(&t).arg("spec").cwd(&t.bundle).go();
    again.fails("exists");
    t.edit(|c| {
        c["process"]["terminal"] = false.into();
        c["process"]["args"] = serde_json::json!(["echo", "made by spec"]);
        c["root"]["readonly"] = false.into();
    });
    let out = t.run();
    assert_eq!(out.ok().stdout(), "made by spec\n");
}

#[test]
fn spec_rootless_maps_the_caller() {
    let t = Test::new("specrootless");
    fs::remove_file(t.bundle.join("config.json")).unwrap();
    Run::bare(&t).arg("spec").arg("--rootless").cwd(&t.bundle).go().ok();
    let config = t.config();
    assert_eq!(config["linux"]["uidMappings"][0]["hostID"], rustix::process::geteuid().as_raw());
    assert_eq!(config["linux"]["uidMappings"][0]["containerID"], 0);
    let kinds: Vec<_> =
        config["linux"]["namespaces"].as_array().unwrap().iter().map(|n| &n["type"]).collect();
    assert!(kinds.iter().any(|k| *k == "user") && !kinds.iter().any(|k| *k == "network"), "{kinds:?}");
    assert!(config["linux"]["resources"].is_null());
}

#[test]
fn a_closed_stdout_is_no_panic() {
    let t = Test::new("sigpipe");
    let out = t.rt(&["features"]).through(r#""$@" | true; "$@" >&-; "$@" >/dev/full; true"#).go();
    assert!(!out.stderr().contains("panicked"), "{out:?}");
}

#[test]
fn the_completions_name_every_command() {
    rrun_only!("runc has no completion command");
    let t = Test::new("completion");
    for shell in ["bash", "zsh", "fish"] {
        let out = Run::bare(&t).arg("completion").arg(shell).go();
        let text = out.ok().stdout();
        for word in ["checkpoint", "no-pivot", "console-socket", "systemd-cgroup"] {
            assert!(text.contains(word), "{shell} lacks {word}");
        }
    }
    let man = t.dir.join("man");
    fs::create_dir(&man).unwrap();
    Run::bare(&t).arg("generate").arg("man").arg(&man).go().ok();
    assert!(man.join("rrun.8").exists() && man.join("rrun-create.8").exists());
}

#[test]
fn plan_does_nothing_and_check_speaks() {
    requires!(root);
    rrun_only!("no peer has plan or check");
    let t = Test::new("plan");
    let before = t.rootfs_listing();
    let text = t.rt(&["plan", "--bundle", t.bundle.to_str().unwrap()]).go();
    assert!(text.ok().stdout().contains("/dev/shm"), "{text:?}");
    let json = t.rt(&["plan", "--json", "--bundle", t.bundle.to_str().unwrap()]).go();
    let _: Value = serde_json::from_str(&json.ok().stdout()).unwrap();
    assert_eq!(t.rootfs_listing(), before);
    t.nothing_left();
    let check = Run::bare(&t).arg("check").arg("--json").go();
    let _: Value = serde_json::from_str(&check.stdout()).unwrap();
}

/// A rootless container of one mapping, as a user without any privilege.
#[test]
fn a_user_without_root_runs_a_container() {
    requires!(root);
    let t = Test::new("rootless");
    crate::harness::chmod(t.dir.parent().unwrap(), 0o755);
    let state = t.dir.join("rs");
    fs::create_dir(&state).unwrap();
    for path in [&t.dir, &t.bundle, &t.rootfs, &state] {
        std::os::unix::fs::chown(path, Some(65534), Some(65534)).unwrap();
    }
    fs::remove_file(t.bundle.join("config.json")).unwrap();
    let as_user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    Run::bare(&t).arg("spec").arg("--rootless").cwd(&t.bundle).under(&as_user).go().ok();
    t.edit(|c| {
        c["process"]["terminal"] = false.into();
        c["process"]["args"] = serde_json::json!(["sh", "-c", "id -u; cat /proc/self/uid_map"]);
        c["root"]["readonly"] = false.into();
    });
    let out = Run::bare(&t)
        .arg("--root")
        .arg(&state)
        .arg("run")
        .arg("--bundle")
        .arg(&t.bundle)
        .arg(&t.id)
        .env("XDG_RUNTIME_DIR", t.dir.to_str().unwrap())
        .under(&as_user)
        .go();
    let words: Vec<_> = out.ok().stdout().split_whitespace().map(str::to_owned).collect();
    assert_eq!(words, ["0", "0", "65534", "1"]);
    t.nothing_left();
}
