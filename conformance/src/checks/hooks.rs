//! config.md on hooks, and the lifecycle of runtime.md on their failures.

#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use serde_json::{Value, json};

use super::{Check, bind};
use crate::case::{Bundle, Case, Verdict, Why, expect, expect_eq, fails};

pub const CHECKS: &[Check] = &[
    Check {
        name: "hooks-order",
        clause: "config.md#configHooks",
        says: "hooks run at their operations, kind after kind and in the listed order",
        run: hooks_order,
    },
    Check {
        name: "hooks-state",
        clause: "config.md#configHooks",
        says: "every hook gets the state of the container on its standard input",
        run: hooks_state,
    },
    Check {
        name: "hooks-path-absolute",
        clause: "config.md#configHooks",
        says: "a hook whose path is not absolute is an error",
        run: hooks_path_absolute,
    },
    Check {
        name: "hooks-create-failure",
        clause: "runtime.md#runtimeLifecycle",
        says: "a hook of create that fails makes create fail, ends the container and runs poststop",
        run: hooks_create_failure,
    },
    Check {
        name: "hooks-start-failure",
        clause: "runtime.md#runtimeLifecycle",
        says: "a startContainer hook that fails keeps the program from running and stops the container",
        run: hooks_start_failure,
    },
    Check {
        name: "hooks-poststop-failure",
        clause: "runtime.md#runtimeLifecycle",
        says: "a poststop hook that fails is a warning: the others run and the container is deleted",
        run: hooks_poststop_failure,
    },
];

/// A hook that puts its standard input into `<log>/<name>` and its name at the end of `<log>/order`.
fn hook(busybox: &str, log: &Path, name: &str, status: u8) -> Value {
    let script = r#""$BUSYBOX" cat >"$LOG/$NAME"; echo "$NAME" >>"$LOG/order"; exit "$STATUS""#;
    let text = |name: &str, value: &str| format!("{name}={value}");
    json!({
        "path": busybox, "args": ["sh", "-c", script],
        "env": [
            text("BUSYBOX", busybox), text("LOG", &log.display().to_string()),
            text("NAME", name), text("STATUS", &status.to_string()),
        ],
    })
}

fn order(log: &Path) -> String {
    fs::read_to_string(log.join("order")).unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A bundle with hooks of every kind, two of the first. The log is a volume, because startContainer
/// hooks see only the container's root.
fn with_all(case: &Case, log: &Path) -> Result<Bundle, Why> {
    let here = |name: &str| hook(&case.busybox(), log, name, 0);
    case.bundle("exec sleep 1000", |config| {
        bind(config, "/log", log);
        config["hooks"] = json!({
            "prestart": [here("prestart")],
            "createRuntime": [here("createRuntime1"), here("createRuntime2")],
            "createContainer": [here("createContainer")],
            "startContainer": [hook("/bin/busybox", Path::new("/log"), "startContainer", 0)],
            "poststart": [here("poststart")],
            "poststop": [here("poststop")],
        });
    })
}

fn hooks_order(case: &Case) -> Verdict {
    let log = case.directory("log")?;
    let container = case.create(&with_all(case, &log)?)?;
    let created = "prestart createRuntime1 createRuntime2 createContainer";
    expect_eq("hooks run by create", &order(&log), created)?;
    container.started()?;
    let started = format!("{created} startContainer poststart");
    expect_eq("hooks run by start", &order(&log), &started)?;
    expect(container.kill("KILL")?.ok(), "kill failed")?;
    container.stopped()?;
    expect_eq("hooks run before delete", &order(&log), &started)?;
    container.deleted()?;
    expect_eq("hooks run by delete", &order(&log), &format!("{started} poststop"))
}

fn hooks_state(case: &Case) -> Verdict {
    let log = case.directory("log")?;
    let bundle = with_all(case, &log)?;
    let container = case.create(&bundle)?;
    let pid = container.state()?["pid"].clone();
    container.started()?;
    expect(container.kill("KILL")?.ok(), "kill failed")?;
    container.stopped()?;
    container.deleted()?;
    // Which status the hooks of create and start see is left open: the container is between two.
    let kinds = [
        ("prestart", &pid, ""),
        ("createRuntime2", &pid, ""),
        ("createContainer", &Value::Null, ""),
        ("startContainer", &Value::Null, ""),
        ("poststart", &pid, "running"),
        ("poststop", &Value::Null, "stopped"),
    ];
    for (name, pid, status) in kinds {
        let text = fs::read_to_string(log.join(name)).unwrap_or_default();
        let Ok(state) = serde_json::from_str::<Value>(&text) else {
            return fails(format!("{name} got no JSON: {text:?}"));
        };
        let path = bundle.path.display().to_string();
        expect(state["ociVersion"].is_string(), format!("{name}: no ociVersion: {state}"))?;
        expect_eq(&format!("{name}: id"), state["id"].as_str().unwrap_or_default(), &container.id)?;
        expect_eq(&format!("{name}: bundle"), state["bundle"].as_str().unwrap_or_default(), &path)?;
        let seen = state["status"].as_str().unwrap_or_default();
        expect(
            !seen.is_empty() && (status.is_empty() || seen == status),
            format!("{name}: status {seen:?}"),
        )?;
        expect(pid.is_null() || state["pid"] == *pid, format!("{name}: pid {}, want {pid}", state["pid"]))?;
    }
    Ok(())
}

fn hooks_path_absolute(case: &Case) -> Verdict {
    let bundle = case.bundle("", |config| {
        config["hooks"] = json!({"createRuntime": [{"path": "busybox", "args": ["true"]}]});
    })?;
    // It could be run from where the runtime may look.
    for dir in [&case.dir, &bundle.path] {
        let made = symlink(case.busybox(), dir.join("busybox"));
        expect(made.is_ok(), format!("conformance itself: {}: {made:?}", dir.display()))?;
    }
    case.refused("a hook with the path \"busybox\"", &bundle)
}

fn hooks_create_failure(case: &Case) -> Verdict {
    for kind in ["prestart", "createRuntime", "createContainer"] {
        let log = case.directory(kind)?;
        let here = |name: &str, status| hook(&case.busybox(), &log, name, status);
        let bundle = case.bundle("", |config| {
            config["hooks"] =
                json!({kind: [here("first", 0), here("second", 3), here("third", 0)], "poststop": [here("poststop", 0)]});
        })?;
        case.refused(&format!("a {kind} hook that exits with 3"), &bundle)?;
        expect_eq(&format!("hooks run after {kind} failed"), &order(&log), "first second poststop")?;
    }
    Ok(())
}

fn hooks_start_failure(case: &Case) -> Verdict {
    let log = case.directory("log")?;
    let bundle = case.bundle("touch /log/ran; exec sleep 1000", |config| {
        bind(config, "/log", &log);
        config["hooks"] = json!({"startContainer": [hook("/bin/busybox", Path::new("/log"), "failing", 3)]});
    })?;
    let container = case.create(&bundle)?;
    // How the error is told is left open, so the exit status of start is not looked at.
    container.invoke("start")?;
    expect_eq("output", &container.output.rest()?, "")?;
    expect_eq("hooks run", &order(&log), "failing")?;
    expect(!log.join("ran").exists(), "the program ran")?;
    if container.invoke("state")?.ok() { container.stopped() } else { Ok(()) }
}

fn hooks_poststop_failure(case: &Case) -> Verdict {
    let log = case.directory("log")?;
    let here = |name: &str, status| hook(&case.busybox(), &log, name, status);
    let bundle = case.bundle("", |config| {
        config["hooks"] = json!({"poststop": [here("first", 3), here("second", 0)]});
    })?;
    let container = case.create(&bundle)?;
    container.started()?;
    container.stopped()?;
    container.invoke("delete")?;
    expect_eq("hooks run", &order(&log), "first second")?;
    expect(!container.invoke("state")?.ok(), "the container still exists")
}
