//! What callers parse, key by key beside Debian's runc on the same bundle: every key of runc's stands in ours
//! with the same JSON type; what differs on purpose is in `DIFFERENCES`, with the reason.

use crate::harness::{Run, SECONDS_5, Test, is_rrun, program, runtime, wait_for};
use crate::requires;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// (document, key path, why it may be missing or of another type here)
const DIFFERENCES: &[(&str, &str, &str)] = &[
    ("features", "annotations.io.github.seccomp.libseccomp.version", "rrun compiles its filters itself"),
    ("features", "annotations.org.opencontainers.runc.commit", "says which build of runc it is"),
    ("features", "annotations.org.opencontainers.runc.version", "says which version of runc it is"),
    ("stats", "data.intel_rdt", "a struct without content where resctrl is not mounted"),
    ("stats", "data.network_interfaces", "null in runc: libnetwork's, never filled by the command line"),
];

fn runc() -> Option<PathBuf> {
    program("runc").filter(|p| p != runtime())
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Says where `theirs` has a key that `ours` lacks or holds as another type.
fn compare(document: &str, path: &str, theirs: &Value, ours: &Value, wrong: &mut Vec<String>) {
    let allowed = DIFFERENCES.iter().any(|(d, p, _)| *d == document && *p == path);
    if allowed {
        return;
    }
    if kind(theirs) != kind(ours) && !theirs.is_null() {
        wrong.push(format!("{document} {path}: {} in runc, {} here", kind(theirs), kind(ours)));
        return;
    }
    let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match (theirs, ours) {
        (Value::Object(theirs), Value::Object(ours)) => {
            for (key, value) in theirs {
                match ours.get(key) {
                    Some(own) => compare(document, &below(key), value, own, wrong),
                    None if DIFFERENCES.iter().any(|(d, p, _)| *d == document && *p == below(key)) => {}
                    None => wrong.push(format!("{document} {}: missing here", below(key))),
                }
            }
        }
        (Value::Array(theirs), Value::Array(ours)) => {
            if let (Some(a), Some(b)) = (theirs.first(), ours.first()) {
                compare(document, &format!("{path}[]"), a, b, wrong);
            }
        }
        _ => {}
    }
}

fn under(binary: &Path, t: &Test, args: &[&str]) -> Value {
    let out = Command::new(binary).arg("--root").arg(&t.state).args(args).output().unwrap();
    assert!(out.status.success(), "{} {args:?}: {}", binary.display(), String::from_utf8_lossy(&out.stderr));
    serde_json::from_slice(&out.stdout)
        .unwrap_or_else(|e| panic!("{args:?}: {e}: {}", String::from_utf8_lossy(&out.stdout)))
}

/// The same document of a running container of each, compared.
fn same_keys(document: &str, args: &[&str]) -> Option<(Value, Value)> {
    let runc = runc()?;
    let theirs = Test::new("outtheirs");
    theirs.sh("exec sleep 1000");
    let status = Command::new(&runc)
        .arg("--root")
        .arg(&theirs.state)
        .args(["run", "--detach", "--bundle"])
        .arg(&theirs.bundle)
        .arg(&theirs.id)
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    let ours = Test::new("outours");
    ours.detached("exec sleep 1000");
    let with_id = |t: &Test| -> Vec<String> { args.iter().map(|a| a.replace("ID", &t.id)).collect() };
    fn words(all: &[String]) -> Vec<&str> {
        all.iter().map(String::as_str).collect()
    }
    let a = under(&runc, &theirs, &words(&with_id(&theirs)));
    let b = under(runtime(), &ours, &words(&with_id(&ours)));
    let mut wrong = Vec::new();
    compare(document, "", &a, &b, &mut wrong);
    let status =
        Command::new(&runc).arg("--root").arg(&theirs.state).args(["delete", "--force", &theirs.id]).status();
    assert!(status.unwrap().success());
    ours.end();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Some((a, b))
}

macro_rules! need_runc {
    () => {
        requires!(root);
        requires!(runc().is_some(), "needs Debian's runc beside the runtime under test");
    };
}

#[test]
fn state() {
    need_runc!();
    let (_, ours) = same_keys("state", &["state", "ID"]).unwrap();
    let created = ours["created"].as_str().unwrap();
    assert!(created.ends_with('Z') && created.contains('T'), "{created}");
}

#[test]
fn list() {
    need_runc!();
    same_keys("list", &["list", "--format", "json"]);
}

#[test]
fn list_of_nothing_is_null() {
    let t = Test::new("listnull");
    std::fs::create_dir(&t.state).unwrap();
    assert_eq!(t.rt(&["list", "--format", "json"]).go().ok().stdout().trim(), "null");
}

#[test]
fn ps() {
    need_runc!();
    same_keys("ps", &["ps", "--format", "json", "ID"]);
}

#[test]
fn events_stats() {
    need_runc!();
    let (theirs, ours) = same_keys("stats", &["events", "--stats", "ID"]).unwrap();
    // Values that the same container must share, whatever its age.
    for path in ["/data/memory/usage/limit", "/data/pids/current", "/data/cpuset/cpus", "/data/cpuset/mems"] {
        assert_eq!(theirs.pointer(path), ours.pointer(path), "{path}");
    }
}

#[test]
fn features() {
    requires!(runc().is_some(), "needs Debian's runc beside the runtime under test");
    let t = Test::new("features");
    let theirs = under(&runc().unwrap(), &t, &["features"]);
    let ours = under(runtime(), &t, &["features"]);
    let mut wrong = Vec::new();
    compare("features", "", &theirs, &ours, &mut wrong);
    for path in [
        "/hooks",
        "/mountOptions",
        "/linux/namespaces",
        "/linux/capabilities",
        "/linux/seccomp/actions",
        "/linux/seccomp/operators",
        "/linux/seccomp/archs",
    ] {
        let list = |v: &Value| v.pointer(path).and_then(Value::as_array).cloned().unwrap_or_default();
        let have = list(&ours);
        wrong.extend(list(&theirs).iter().filter(|v| !have.contains(v)).map(|v| format!("{path} lacks {v}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// go-runc decodes `state` from stdout and stderr together.
#[test]
fn state_says_nothing_on_stderr() {
    requires!(root);
    let t = Test::new("quiet");
    t.detached("exec sleep 1000");
    let out = t.rt(&["state", &t.id]).go();
    assert_eq!(out.ok().stderr(), "");
    let keys: Vec<_> =
        out.stdout().lines().filter_map(|l| l.trim().split('"').nth(1).map(str::to_owned)).collect();
    assert_eq!(keys[..4], ["ociVersion", "id", "pid", "status"], "the order of runc's");
    t.end();
}

#[test]
fn a_stopped_container_has_pid_0_and_is_listed() {
    requires!(root);
    let t = Test::new("stoppedlist");
    t.sh("exit 0").create();
    t.start();
    wait_for("its end", SECONDS_5, || (t.status() == "stopped").then_some(()));
    let list: Value = serde_json::from_str(&t.rt(&["list", "--format", "json"]).go().ok().stdout()).unwrap();
    assert_eq!((&list[0]["status"], &list[0]["pid"]), (&Value::from("stopped"), &Value::from(0)));
    t.end();
}

#[test]
fn the_oci_version_of_features_is_a_range() {
    let t = Test::new("range");
    let out = Run::bare(&t).arg("features").go();
    let features: Value = serde_json::from_str(&out.ok().stdout()).unwrap();
    assert_eq!(features["ociVersionMin"], "1.0.0");
    if is_rrun() {
        assert!(features["ociVersionMax"].as_str().unwrap().starts_with("1.3"));
        assert_eq!(features["linux"]["namespaces"].as_array().unwrap().len(), 8);
        assert_eq!(features["linux"]["mountExtensions"]["idmap"]["enabled"], true);
    }
}
