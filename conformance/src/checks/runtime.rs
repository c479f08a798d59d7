//! runtime.md and runtime-linux.md: the state, the operations, and what each refuses.

#![forbid(unsafe_code)]

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::{Check, check};
use crate::case::{Bundle, Case, Verdict, Why, bind, expect, expect_eq, fails, lacks, own};
use crate::probe;

const WAIT: &[&str] = &["/probe", "probe", "wait"];
const FACTS: &[&str] = &["/probe", "probe", "facts"];

pub fn checks() -> Vec<Check> {
    vec![
        check(
            "operations",
            &["runtimeScopeContainer.1", "runtimeOperations.1", "runtimeCreate.4"],
            operations,
        ),
        check("state-ociVersion", &["runtimeState.1"], |case| {
            let version = state(case)?["ociVersion"].clone();
            expect(version.as_str().is_some_and(|text| text.starts_with("1.")), format!("got {version}"))
        }),
        check("state-id", &["runtimeState.2", "runtimeQueryState.3"], |case| {
            let state = state(case)?;
            expect(state["id"] == state["test id"], format!("got {}, want {}", state["id"], state["test id"]))
        }),
        check("state-status", &["runtimeState.4", "runtimeState.5", "runtimeState.7"], |case| {
            let seen = state(case)?["test statuses"].to_string();
            expect_eq("statuses from create to the end", &seen, r#"["created","running","stopped"]"#)
        }),
        check("state-pid", &["runtimeState.8"], |case| {
            let state = state(case)?;
            let namespace = state["test namespace"].as_str().unwrap_or_default();
            if namespace.is_empty() && !case.machine().is_root() {
                // Before the program is executed, a runtime may hide its process from a user.
                return expect(
                    state["test pid exists"] == true,
                    format!("there is no process {}", state["pid"]),
                );
            }
            expect_eq(
                "the uts namespace of pid",
                namespace,
                state["test namespace inside"].as_str().unwrap_or("?"),
            )
        }),
        check("state-bundle", &["runtimeState.9"], |case| {
            let state = state(case)?;
            let (got, want) = (&state["bundle"], &state["test bundle"]);
            expect(got == want, format!("got {got}, want {want}"))
        }),
        check("state-annotations", &["runtimeState.annotations"], |case| {
            let annotations = &state(case)?["annotations"];
            expect(annotations["com.example.key"] == "its value", format!("got {annotations}"))
        }),
        check("state-schema", &["runtimeState.12"], state_schema),
        check("state-without-id", &["runtimeQueryState.1"], |case| without_id(case, "state")),
        check("start-without-id", &["runtimeStart.1"], |case| without_id(case, "start")),
        check("kill-without-id", &["runtimeKill.1"], |case| without_id(case, "kill")),
        check("delete-without-id", &["runtimeDelete.1"], |case| without_id(case, "delete")),
        check("create-without-id", &["runtimeCreate.1"], |case| {
            let bundle = case.bundle(FACTS, |_| {})?.path.display().to_string();
            expect(!case.invoke(&["create", "--bundle", &bundle])?.ok(), "create without an id succeeded")?;
            // The directory that it runs in is no bundle.
            expect(!case.invoke(&["create", "conformance-none"])?.ok(), "create without a bundle succeeded")
        }),
        check("state-unknown", &["runtimeQueryState.2"], |case| {
            expect(!case.invoke(&["state", "no-such-container"])?.ok(), "state succeeded")
        }),
        check("id-in-use", &["runtimeState.3", "runtimeCreate.2", "runtimeCreate.3"], id_in_use),
        check("id-invalid", &["runtimeCreate.2", "runtimeCreate.3"], id_invalid),
        check(
            "create-makes-environment",
            &["runtimeLifecycle.1", "runtimeLifecycle.3", "runtimeCreate.5"],
            |case| {
                // A runtime may hide its process from a user until the program is executed.
                case.machine().needs_root()?;
                let mut bundle = case.bundle(WAIT, |_| {})?;
                let mount = json!({"destination": "/made", "type": "tmpfs", "source": "tmpfs"});
                crate::case::push(&mut bundle.config["mounts"], mount);
                bundle.write()?;
                let container = case.create(&bundle)?;
                let pid = container.pid()?;
                let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
                expect(mounts.contains(" /made "), "the mount is not there after create")?;
                let (inside, here) = (probe::namespaces(&pid), probe::namespaces("self"));
                let new = |kind: &str| inside.get(kind).is_some_and(|link| here.get(kind) != Some(link));
                expect(
                    new("uts") && new("ipc") && new("mnt") && new("pid"),
                    format!("namespaces: {inside:?}"),
                )
            },
        ),
        check("create-runs-nothing", &["runtimeLifecycle.4", "runtimeCreate.6"], |case| {
            let bundle = case.bundle(&["/probe", "probe", "facts", "write:/ran"], |_| {})?;
            let container = case.create(&bundle)?;
            container.has_status("created")?;
            expect(!bundle.rootfs().join("ran").exists(), "the program ran before start")
        }),
        check("start-runs-program", &["runtimeLifecycle.14", "runtimeStart.4"], |case| {
            let bundle = case.bundle(&["/probe", "probe", "facts", "write:/ran"], |_| {})?;
            let container = case.create(&bundle)?;
            container.started()?;
            container.stopped()?;
            expect(bundle.rootfs().join("ran").exists(), "the program did not run after start")
        }),
        check("create-impossible", &["runtimeLifecycle.2", "runtimeCreate.8", "runtimeCreate.9"], |case| {
            case.refuses("a mount of a filesystem that does not exist", |config| {
                let mount = json!({"destination": "/m", "type": "no-such-filesystem", "source": "none"});
                crate::case::push(&mut config["mounts"], mount);
            })
        }),
        check("error-changes-nothing", &["runtimeErrors.1"], error_changes_nothing),
        check("config-fixed-at-create", &["runtimeLifecycle.5"], |case| {
            let mut bundle =
                case.bundle(FACTS, |config| config["process"]["env"] = json!(["PATH=/", "V=1"]))?;
            let container = case.create(&bundle)?;
            bundle.config["process"]["args"] = json!(["/probe", "probe", "facts", "cwd:"]);
            bundle.config["process"]["env"] = json!(["PATH=/", "V=2"]);
            bundle.write()?;
            container.started()?;
            let facts = container.facts()?;
            expect_eq("V", facts.text("/env/V"), "1")?;
            expect(facts.0["args"].as_array().is_some_and(|args| args.len() == 3), "the arguments changed")
        }),
        check("start-running", &["runtimeStart.2", "runtimeStart.3"], |case| {
            let container = case.create(&case.bundle(WAIT, |_| {})?)?;
            container.started()?;
            container.facts()?;
            let pid = container.pid()?;
            expect(!container.invoke("start")?.ok(), "start of a running container succeeded")?;
            container.has_status("running")?;
            expect_eq("pid", &container.pid()?, &pid)
        }),
        check("start-stopped", &["runtimeStart.2", "runtimeStart.3"], |case| {
            let container = case.create(&case.bundle(FACTS, |_| {})?)?;
            container.started()?;
            container.facts()?;
            container.stopped()?;
            expect(!container.invoke("start")?.ok(), "start of a stopped container succeeded")?;
            container.has_status("stopped")?;
            container.output.ends()
        }),
        check("start-without-process", &["runtimeStart.5", "configProcess.1"], |case| {
            let bundle = case.bundle(FACTS, |config| {
                config.as_object_mut().map(|config| config.remove("process"));
            })?;
            // A runtime may validate at create already.
            case.refused("a configuration without process", &bundle)
        }),
        check("kill-sends-signal", &["runtimeKill.4"], kill_sends_signal),
        check("kill-created", &["runtimeKill.4"], |case| {
            let container = case.create(&case.bundle(FACTS, |_| {})?)?;
            container.ended()?;
            container.output.ends()
        }),
        check("kill-stopped", &["runtimeKill.2", "runtimeKill.3"], |case| {
            let container = case.create(&case.bundle(FACTS, |_| {})?)?;
            container.started()?;
            container.stopped()?;
            let before = container.state()?.to_string();
            expect(!container.kill("KILL")?.ok(), "kill of a stopped container succeeded")?;
            expect_eq("state", &container.state()?.to_string(), &before)
        }),
        check("delete-created", &["runtimeDelete.2", "runtimeDelete.3"], |case| not_deleted(case, "created")),
        check("delete-running", &["runtimeDelete.2", "runtimeDelete.3"], |case| not_deleted(case, "running")),
        check("delete-removes", &["runtimeLifecycle.18", "runtimeDelete.4"], |case| {
            let container = case.create(&case.bundle(FACTS, |_| {})?)?;
            container.started()?;
            container.stopped()?;
            container.deleted()?;
            expect(!container.invoke("state")?.ok(), "the container is still known")?;
            let left = fs::read_dir(case.dir.join("state")).into_iter().flatten().flatten();
            let left: Vec<_> =
                left.filter(|entry| entry.file_name().to_string_lossy().contains(&container.id)).collect();
            expect(left.is_empty(), format!("its state is still there: {left:?}"))
        }),
        check("delete-keeps-foreign", &["runtimeDelete.5"], delete_keeps_foreign),
        check("id-again", &["runtimeDelete.6"], |case| {
            let bundle = case.bundle(FACTS, |_| {})?;
            let container = case.create(&bundle)?;
            container.started()?;
            container.stopped()?;
            container.deleted()?;
            let path = bundle.path.display().to_string();
            case.invoke(&["create", "--bundle", &path, &container.id])?
                .done("create with the id again")
                .map(drop)
        }),
        check("descriptors", &["runtimeLinuxFileDescriptors.only-three"], |case| {
            let container = case.create_as("-", "-", &case.bundle(FACTS, |_| {})?)?;
            container.started()?;
            let open = container.facts()?.0["descriptors"].clone();
            let names: Vec<_> = open.as_object().map(|map| map.keys().cloned().collect()).unwrap_or_default();
            expect(names == ["0", "1", "2"], format!("open descriptors: {open}"))
        }),
        check("dev-links", &["runtimeLinuxDevSymbolicLinks.1"], |case| {
            let links = [
                ("fd", "/proc/self/fd"),
                ("stdin", "/proc/self/fd/0"),
                ("stdout", "/proc/self/fd/1"),
                ("stderr", "/proc/self/fd/2"),
            ];
            let operations = links.map(|(name, _)| format!("link:/dev/{name}"));
            let facts = case.facts(&operations.each_ref().map(String::as_str), |_| {})?;
            for ((name, want), operation) in links.iter().zip(&operations) {
                expect_eq(&format!("/dev/{name}"), facts.done(operation), want)?;
            }
            Ok(())
        }),
    ]
}

fn operations(case: &Case) -> Verdict {
    let container = case.create(&case.bundle(WAIT, |_| {})?)?;
    container.has_status("created")?;
    container.started()?;
    container.facts()?;
    container.ended()?;
    container.deleted()
}

fn without_id(case: &Case, command: &str) -> Verdict {
    expect(!case.invoke(&[command])?.ok(), format!("{command} without an id succeeded"))
}

/// The state of a container that is created, with what it ought to be under names that begin with
/// `test`.
fn state(case: &Case) -> Result<Value, Why> {
    let facts = case.shared("state", |case| {
        let annotations = json!({"com.example.key": "its value"});
        let bundle = case.bundle(WAIT, |config| config["annotations"] = annotations)?;
        let container = case.create(&bundle)?;
        let mut state = container.state()?;
        let pid = state["pid"].to_string();
        let mut statuses = vec![state["status"].clone()];
        let namespace = fs::read_link(format!("/proc/{pid}/ns/uts")).unwrap_or_default();
        let exists = Path::new(&format!("/proc/{pid}")).exists();
        container.started()?;
        let inside = container.facts()?;
        statuses.push(container.state()?["status"].clone());
        container.ended()?;
        statuses.push(container.state()?["status"].clone());
        state["test id"] = json!(container.id);
        state["test bundle"] = json!(bundle.path);
        state["test statuses"] = json!(statuses);
        state["test pid exists"] = json!(exists);
        state["test namespace"] = json!(namespace);
        state["test namespace inside"] = json!(inside.namespace("uts"));
        Ok(crate::case::Facts(state))
    })?;
    Ok(facts.0.clone())
}

fn state_schema(case: &Case) -> Verdict {
    let state = state(case)?;
    let text = |name: &str| state[name].is_string();
    expect(
        text("ociVersion") && text("id") && text("status") && text("bundle"),
        format!("not a string: {state}"),
    )?;
    expect(state["pid"].as_u64().is_some(), format!("pid is no number: {}", state["pid"]))?;
    let annotations = &state["annotations"];
    let strings = annotations.as_object().is_some_and(|map| map.values().all(Value::is_string));
    expect(strings || annotations.is_null(), format!("annotations are no map of strings: {annotations}"))
}

fn id_in_use(case: &Case) -> Verdict {
    let container = case.create(&case.bundle(WAIT, |_| {})?)?;
    let before = container.state()?;
    let other = case.bundle(FACTS, |_| {})?.path.display().to_string();
    let answer = case.invoke(&["create", "--bundle", &other, &container.id])?;
    expect(!answer.ok(), "create accepted an id in use")?;
    expect_eq("state of the first", &container.state()?.to_string(), &before.to_string())?;
    container.started()?;
    container.facts().map(drop)
}

fn id_invalid(case: &Case) -> Verdict {
    let bundle = case.bundle(FACTS, |_| {})?.path.display().to_string();
    for id in ["", "..", "../outside", "a/b"] {
        let answer = case.invoke(&["create", "--bundle", &bundle, id])?;
        if answer.ok() {
            let _ = case.invoke(&["delete", "--force", id]);
        }
        expect(!answer.ok(), format!("create accepted the id {id:?}"))?;
    }
    Ok(())
}

/// A create that fails at the last moment, when a program of a hook does not exist, has made almost
/// everything.
fn error_changes_nothing(case: &Case) -> Verdict {
    let hook = json!({"createContainer": [{"path": "/no/such/program"}]});
    let mut bundle = case.bundle(FACTS, |config| config["hooks"] = hook)?;
    let mounts = || fs::read_to_string("/proc/self/mountinfo").map_err(own(&bundle.path));
    let before = mounts()?.lines().filter(|line| line.contains(&*case.dir.to_string_lossy())).count();
    let (container, answer) = case.attempt(&bundle)?;
    expect(!answer.ok(), "create accepted a hook that does not exist")?;
    expect(!container.invoke("state")?.ok(), "create failed, but the container exists")?;
    let after = mounts()?.lines().filter(|line| line.contains(&*case.dir.to_string_lossy())).count();
    expect(after == before, format!("{after} mounts instead of {before}"))?;
    for controller in ["cgroup2", "pids", "memory", "devices"] {
        let Some(root) = case.machine().hierarchy(controller) else { continue };
        let left = [root.join(&container.id), root.join("user.slice").join(&container.id)];
        expect(!left.iter().any(|dir| dir.exists()), format!("a cgroup is left: {left:?}"))?;
    }
    bundle.config.as_object_mut().map(|config| config.remove("hooks"));
    bundle.write()?;
    let path = bundle.path.display().to_string();
    case.invoke(&["create", "--bundle", &path, &container.id])?.done("create with the id again").map(drop)
}

/// A process that is stopped keeps the signals that come, where they can be read. It is not the first
/// of a pid namespace, for which the kernel drops signals without a handler.
fn kill_sends_signal(case: &Case) -> Verdict {
    // Only a new pid namespace would let a user mount proc.
    case.machine().needs_root()?;
    let bundle = case.bundle(WAIT, |config| {
        if let Some(all) = config["linux"]["namespaces"].as_array_mut() {
            all.retain(|namespace| namespace["type"] != "pid");
        }
    })?;
    let container = case.create(&bundle)?;
    container.started()?;
    container.output.line()?;
    let pid = container.pid()?;
    let status = |name: &str| {
        let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line =
            text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap_or_default();
        line.trim().to_owned()
    };
    container.kill("STOP")?.done("kill STOP")?;
    for _ in 0..200 {
        if status("State").starts_with('T') {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    expect(status("State").starts_with('T'), format!("not stopped by STOP: {}", status("State")))?;
    container.kill("USR1")?.done("kill USR1")?;
    container.kill("15")?.done("kill 15")?;
    let pending = u64::from_str_radix(&status("ShdPnd"), 16).unwrap_or(0);
    expect(pending == (1 << 9) | (1 << 14), format!("pending after USR1 and 15: {pending:#x}"))
}

fn not_deleted(case: &Case, status: &str) -> Verdict {
    let container = case.create(&case.bundle(WAIT, |_| {})?)?;
    if status == "running" {
        container.started()?;
        container.facts()?;
    }
    let pid = container.pid()?;
    expect(!container.invoke("delete")?.ok(), format!("delete of a {status} container succeeded"))?;
    container.has_status(status)?;
    expect_eq("pid", &container.pid()?, &pid)
}

fn delete_keeps_foreign(case: &Case) -> Verdict {
    let volume = case.directory("volume")?;
    let args = ["/probe", "probe", "facts", "write:/volume/file", "write:/file"];
    let bundle: Bundle = case.bundle(&args, |config| bind(config, "/volume", &volume, &["bind"]))?;
    let container = case.create(&bundle)?;
    container.started()?;
    container.facts()?;
    container.stopped()?;
    container.deleted()?;
    expect(volume.join("file").exists(), "the volume lost its file")?;
    expect(bundle.rootfs().join("file").exists(), "the root file system lost its file")?;
    if !case.machine().is_root() {
        return Ok(());
    }
    // A network namespace that is kept by a mount, as callers do.
    let kept = case.dir.join("netns");
    case.file(&kept, "")?;
    let mut command = Command::new("unshare");
    command.arg(format!("--net={}", kept.display())).arg("true");
    if !command.status().is_ok_and(|status| status.success()) {
        return lacks("unshare of util-linux");
    }
    let inside = |path: &Path| fs::metadata(path).map(|data| std::os::unix::fs::MetadataExt::ino(&data));
    let before = inside(&kept).map_err(own(&kept))?;
    let joined = case.bundle(FACTS, |config| {
        let namespace = json!({"type": "network", "path": kept});
        crate::case::push(&mut config["linux"]["namespaces"], namespace);
    })?;
    let ran = case.create(&joined).and_then(|container| {
        container.started()?;
        container.stopped()?;
        container.deleted()
    });
    let after = inside(&kept).map_err(own(&kept))?;
    let _ = rustix::mount::unmount(&kept, rustix::mount::UnmountFlags::DETACH);
    ran?;
    if before == after { Ok(()) } else { fails("the joined namespace is gone") }
}
