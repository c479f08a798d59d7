//! runtime.md: the operations, and what each refuses.

#![forbid(unsafe_code)]

use std::fs;

use serde_json::json;

use super::{Check, bind};
use crate::case::{Case, Verdict, expect, expect_eq};

/// Says that it runs, and then does so until it is killed.
const RUNS_ON: &str = "echo ran; exec sleep 1000";

pub const CHECKS: &[Check] = &[
    Check {
        name: "state-missing",
        clause: "runtime.md#runtimeQueryState",
        says: "the state of a container that does not exist is an error",
        run: |case| expect(!case.invoke(&["state", "no-such-container"])?.ok(), "state succeeded"),
    },
    Check {
        name: "state-properties",
        clause: "runtime.md#runtimeState",
        says: "state tells version, id, status, pid and bundle, and follows the lifecycle",
        run: state_properties,
    },
    Check {
        name: "create-runs-nothing",
        clause: "runtime.md#runtimeCreate",
        says: "create makes the environment but does not run the program",
        run: create_runs_nothing,
    },
    Check {
        name: "create-duplicate-id",
        clause: "runtime.md#runtimeCreate",
        says: "a second container with an id in use is refused, and the first stays as it was",
        run: create_duplicate_id,
    },
    Check {
        name: "create-error-leaves-nothing",
        clause: "runtime.md#runtimeErrors",
        says: "a create that fails leaves no container, and its id is free",
        run: create_error_leaves_nothing,
    },
    Check {
        name: "config-fixed-at-create",
        clause: "runtime.md#runtimeLifecycle",
        says: "a change of config.json after create has no effect",
        run: config_fixed_at_create,
    },
    Check {
        name: "start-not-created",
        clause: "runtime.md#runtimeStart",
        says: "start of a running or stopped container is an error and has no effect",
        run: start_not_created,
    },
    Check {
        name: "start-without-process",
        clause: "runtime.md#runtimeStart",
        says: "start is an error if the configuration has no process",
        run: start_without_process,
    },
    Check {
        name: "kill-sends-signal",
        clause: "runtime.md#runtimeKill",
        says: "kill sends the given signal to the container's process",
        run: kill_sends_signal,
    },
    Check {
        name: "kill-created",
        clause: "runtime.md#runtimeKill",
        says: "kill reaches a container that is created and not started",
        run: kill_created,
    },
    Check {
        name: "kill-stopped",
        clause: "runtime.md#runtimeKill",
        says: "kill of a stopped container is an error",
        run: kill_stopped,
    },
    Check {
        name: "delete-running",
        clause: "runtime.md#runtimeDelete",
        says: "delete of a running container is an error and has no effect",
        run: delete_running,
    },
    Check {
        name: "delete-frees-id",
        clause: "runtime.md#runtimeDelete",
        says: "after delete the container is unknown and its id can be used again",
        run: delete_frees_id,
    },
    Check {
        name: "delete-keeps-foreign",
        clause: "runtime.md#runtimeDelete",
        says: "delete keeps what the container used but did not make: root file system and volumes",
        run: delete_keeps_foreign,
    },
];

fn state_properties(case: &Case) -> Verdict {
    let bundle = case.bundle(RUNS_ON, |_| {})?;
    let container = case.create(&bundle)?;
    let state = container.state()?;
    expect(state["ociVersion"].is_string(), format!("ociVersion is not a string: {state}"))?;
    expect_eq("id", state["id"].as_str().unwrap_or_default(), &container.id)?;
    expect_eq("status", state["status"].as_str().unwrap_or_default(), "created")?;
    expect_eq("bundle", state["bundle"].as_str().unwrap_or_default(), &bundle.path.display().to_string())?;
    let pid = state["pid"].as_u64().unwrap_or_default();
    expect(fs::exists(format!("/proc/{pid}")).unwrap_or(false), format!("pid {pid} is no process"))?;
    container.started()?;
    container.has_status("running")?;
    expect(container.kill("KILL")?.ok(), "kill failed")?;
    container.stopped()
}

fn create_runs_nothing(case: &Case) -> Verdict {
    let bundle = case.bundle("touch /ran", |_| {})?;
    let container = case.create(&bundle)?;
    container.has_status("created")?;
    let mark = bundle.path.join("rootfs/ran");
    expect(!mark.exists(), "the program ran before start")?;
    container.started()?;
    container.stopped()?;
    expect(mark.exists(), "the program did not run after start")
}

fn create_duplicate_id(case: &Case) -> Verdict {
    let bundle = case.bundle(RUNS_ON, |_| {})?;
    let container = case.create(&bundle)?;
    let before = container.state()?;
    let other = case.bundle("echo other", |_| {})?;
    let path = other.path.display().to_string();
    let answer = case.invoke(&["create", "--bundle", &path, &container.id])?;
    expect(!answer.ok(), "create accepted an id in use")?;
    expect_eq("state of the first", &container.state()?.to_string(), &before.to_string())?;
    container.started()?;
    expect_eq("output of the first", &container.output.line()?, "ran")
}

fn create_error_leaves_nothing(case: &Case) -> Verdict {
    let mut bundle = case.bundle("echo ran", |config| config["root"]["path"] = json!("no-such-directory"))?;
    let (container, answer) = case.attempt(&bundle)?;
    expect(!answer.ok(), "create accepted a root that does not exist")?;
    expect(!container.invoke("state")?.ok(), "create failed, but the container exists")?;
    bundle.config["root"]["path"] = json!("rootfs");
    bundle.write()?;
    let path = bundle.path.display().to_string();
    let again = case.invoke(&["create", "--bundle", &path, &container.id])?;
    expect(again.ok(), format!("the id is not free: {}", again.stderr))
}

fn config_fixed_at_create(case: &Case) -> Verdict {
    let mut bundle =
        case.bundle("echo old $V", |config| config["process"]["env"] = json!(["PATH=/bin", "V=1"]))?;
    let container = case.create(&bundle)?;
    bundle.config["process"]["args"] = json!(["sh", "-c", "echo new $V"]);
    bundle.config["process"]["env"] = json!(["PATH=/bin", "V=2"]);
    bundle.write()?;
    container.started()?;
    expect_eq("output", &container.output.line()?, "old 1")
}

fn start_not_created(case: &Case) -> Verdict {
    let bundle = case.bundle(RUNS_ON, |_| {})?;
    let container = case.create(&bundle)?;
    container.started()?;
    expect_eq("output", &container.output.line()?, "ran")?;
    let pid = container.state()?["pid"].to_string();
    expect(!container.invoke("start")?.ok(), "start of a running container succeeded")?;
    container.has_status("running")?;
    expect_eq("pid", &container.state()?["pid"].to_string(), &pid)?;
    expect(container.kill("KILL")?.ok(), "kill failed")?;
    container.stopped()?;
    expect(!container.invoke("start")?.ok(), "start of a stopped container succeeded")?;
    container.has_status("stopped")?;
    expect_eq("further output", &container.output.rest()?, "")
}

fn start_without_process(case: &Case) -> Verdict {
    let bundle = case.bundle("", |config| {
        config.as_object_mut().map(|config| config.remove("process"));
    })?;
    let (container, answer) = case.attempt(&bundle)?;
    // A runtime may validate at create already.
    expect(!answer.ok() || !container.invoke("start")?.ok(), "start succeeded without a process")
}

fn kill_sends_signal(case: &Case) -> Verdict {
    let bundle = case.bundle("trap 'echo got USR1; exit' USR1; echo ready; sleep 1000 & wait", |_| {})?;
    let container = case.create(&bundle)?;
    container.started()?;
    expect_eq("output", &container.output.line()?, "ready")?;
    let answer = container.kill("USR1")?;
    expect(answer.ok(), format!("kill: {}: {}", answer.status, answer.stderr))?;
    expect_eq("output", &container.output.line()?, "got USR1")?;
    container.stopped()
}

fn kill_created(case: &Case) -> Verdict {
    let container = case.create(&case.bundle("echo ran", |_| {})?)?;
    let answer = container.kill("KILL")?;
    expect(answer.ok(), format!("kill: {}: {}", answer.status, answer.stderr))?;
    container.stopped()?;
    expect_eq("output", &container.output.rest()?, "")
}

fn kill_stopped(case: &Case) -> Verdict {
    let container = case.create(&case.bundle("", |_| {})?)?;
    container.started()?;
    container.stopped()?;
    expect(!container.kill("KILL")?.ok(), "kill of a stopped container succeeded")?;
    container.has_status("stopped")
}

fn delete_running(case: &Case) -> Verdict {
    let container = case.create(&case.bundle(RUNS_ON, |_| {})?)?;
    container.started()?;
    let pid = container.state()?["pid"].to_string();
    expect(!container.invoke("delete")?.ok(), "delete of a running container succeeded")?;
    container.has_status("running")?;
    expect_eq("pid", &container.state()?["pid"].to_string(), &pid)
}

fn delete_frees_id(case: &Case) -> Verdict {
    let bundle = case.bundle("", |_| {})?;
    let container = case.create(&bundle)?;
    container.started()?;
    container.stopped()?;
    container.deleted()?;
    expect(!container.invoke("state")?.ok(), "the container is still known")?;
    let path = bundle.path.display().to_string();
    let again = case.invoke(&["create", "--bundle", &path, &container.id])?;
    expect(again.ok(), format!("the id is not free: {}", again.stderr))
}

fn delete_keeps_foreign(case: &Case) -> Verdict {
    let volume = case.directory("volume")?;
    case.prints("touch /volume/file /file", |config| bind(config, "/volume", &volume))?;
    expect(volume.join("file").exists(), "the volume lost its file")?;
    expect(case.dir.join("bundle1/rootfs/file").exists(), "the root file system lost its file")
}
