//! config.md on hooks, and the lifecycle of runtime.md on their failures.

#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Check, check};
use crate::case::{Bundle, Case, Facts, Shared, Verdict, Why, bind, expect, expect_eq, fails, own, push};
use crate::probe;

/// A kind of hook, and what the specification says of it.
struct Kind {
    name: &'static str,
    /// Whether it runs in the container's namespaces.
    inside: bool,
    /// It is run at all.
    runs: &'static [&'static str],
    /// Its moment.
    moment: &'static str,
    path: &'static [&'static str],
    namespaces: &'static [&'static str],
    failure: &'static str,
}

const KINDS: &[Kind] = &[
    Kind {
        name: "prestart",
        inside: false,
        runs: &["runtimeLifecycle.6"],
        moment: "configHooksPrestart.1",
        path: &["configHooks.5", "configHooksPrestart.3"],
        namespaces: &["configHooks.6", "configHooksPrestart.4"],
        failure: "runtimeLifecycle.7",
    },
    Kind {
        name: "createRuntime",
        inside: false,
        runs: &["runtimeLifecycle.8"],
        moment: "configHooksCreateRuntime.1",
        path: &["configHooks.10", "configHooksCreateRuntime.2"],
        namespaces: &["configHooks.11", "configHooksCreateRuntime.3"],
        failure: "runtimeLifecycle.9",
    },
    Kind {
        name: "createContainer",
        inside: true,
        runs: &["runtimeLifecycle.10"],
        moment: "configHooksCreateContainer.1",
        path: &["configHooks.12", "configHooksCreateContainer.3"],
        namespaces: &["configHooks.13", "configHooksCreateContainer.4"],
        failure: "runtimeLifecycle.11",
    },
    Kind {
        name: "startContainer",
        inside: true,
        runs: &["runtimeLifecycle.12"],
        moment: "configHooksStartContainer.1",
        path: &["configHooks.14", "configHooksStartContainer.2"],
        namespaces: &["configHooks.15", "configHooksStartContainer.3"],
        failure: "runtimeLifecycle.13",
    },
    Kind {
        name: "poststart",
        inside: false,
        runs: &["runtimeLifecycle.15"],
        moment: "configHooksPoststart.1",
        path: &["configHooks.16", "configHooksPoststart.2"],
        namespaces: &["configHooks.17", "configHooksPoststart.3"],
        failure: "runtimeLifecycle.16",
    },
    Kind {
        name: "poststop",
        inside: false,
        runs: &["runtimeLifecycle.19"],
        moment: "configHooksPoststop.1",
        path: &["configHooks.18", "configHooksPoststop.2"],
        namespaces: &["configHooks.19", "configHooksPoststop.3"],
        failure: "runtimeLifecycle.20",
    },
];

pub fn checks() -> Vec<Check> {
    let mut all = Vec::new();
    for kind in KINDS {
        let name = kind.name;
        let judges = |what: &str| format!("hook-{name}-{what}");
        all.push(check(judges("runs"), kind.runs, |case| {
            expect(lived(case)?.0[kind.name].is_object(), "the hook did not run")
        }));
        all.push(check(judges("moment"), &[kind.moment], |case| moment(kind, &*lived(case)?)));
        // The path of an inner hook is one of the container's root, of the others the host's.
        all.push(check(judges("path"), kind.path, |case| {
            expect(lived(case)?.0[kind.name].is_object(), "the hook's program was not found")
        }));
        all.push(check(judges("namespaces"), kind.namespaces, |case| namespaces(kind, &*lived(case)?)));
        all.push(check(judges("failure"), &[kind.failure], |case| failure(case, kind.name)));
    }
    all.extend([
        check("hook-poststop-warning", &["runtimeWarnings.1"], |case| failure(case, "poststop")),
        check("hooks-prestart-first", &["configHooksPrestart.2"], |case| {
            precedes(case, "prestart", "createRuntime")
        }),
        check("hooks-createContainer-later", &["configHooksCreateContainer.2"], |case| {
            precedes(case, "createRuntime", "createContainer")
        }),
        check("hooks-order", &["configHooks.20"], |case| {
            for kind in KINDS {
                precedes(case, kind.name, &format!("{}2", kind.name))?;
            }
            Ok(())
        }),
        check("hooks-state", &["configHooks.21"], |case| hooks_state(&*lived(case)?)),
        check("hooks-state-pid", &["runtimeState.pid-in-hooks"], |case| hooks_pid(&*lived(case)?)),
        check("hooks-args", &["configHooks.args"], |case| {
            for kind in KINDS {
                let facts = lived(case)?;
                let args = &facts.0[kind.name]["args"];
                expect(
                    args[0] == "its own name" && args[2] == "hook",
                    format!("{}: args {args}", kind.name),
                )?;
            }
            Ok(())
        }),
        check("hooks-env", &["configHooks.env"], |case| {
            for kind in KINDS {
                let facts = lived(case)?;
                let env = &facts.0[kind.name]["env"];
                expect(*env == json!({"A": "b=c"}), format!("{}: env {env}", kind.name))?;
            }
            Ok(())
        }),
        check("hooks-timeout", &["configHooks.timeout"], hooks_timeout),
        check("hooks-prestart-path-relative", &["configHooks.3"], |case| relative(case, "prestart")),
        check("hooks-createRuntime-path-relative", &["configHooks.8"], |case| {
            relative(case, "createRuntime")
        }),
        check("hooks-prestart-timeout-zero", &["configHooks.4"], |case| no_time(case, "prestart")),
        check("hooks-createRuntime-timeout-zero", &["configHooks.9"], |case| no_time(case, "createRuntime")),
    ]);
    all
}

/// A hook that tells what it sees in `<log>/<name>`, and then ends with `status`.
fn hook(case: &Case, inside: bool, log: &Path, name: &str, status: &str) -> Value {
    let (program, log) =
        if inside { ("/probe".into(), "/log".into()) } else { (case.probe(), log.display().to_string()) };
    json!({"path": program, "args": ["its own name", "probe", "hook", log, name, status], "env": ["A=b=c"]})
}

fn order(log: &Path) -> String {
    fs::read_to_string(log.join("order")).unwrap_or_default().trim_end().to_owned()
}

/// A directory that every hook can write to, whatever its user namespace.
fn log(case: &Case) -> Result<PathBuf, Why> {
    let log = case.directory(&format!("log{}", case.number()))?;
    fs::set_permissions(&log, PermissionsExt::from_mode(0o777)).map_err(own(&log))?;
    Ok(log)
}

/// A container with two hooks of every kind, from create to delete: what each hook told, and in what
/// order they had run after each operation.
fn lived(case: &Case) -> Shared {
    case.shared("hooks", |case| {
        let log = log(case)?;
        let bundle = case.bundle(&["/probe", "probe", "wait"], |config| {
            // startContainer hooks see only the container's root.
            bind(config, "/log", &log, &["bind"]);
            for kind in KINDS {
                let inside = kind.name == "startContainer";
                let mut one = hook(case, inside, &log, kind.name, "0");
                if kind.name == "poststop" {
                    let mut command = std::process::Command::new(&case.subject.runtime);
                    case.global(&mut command);
                    let words = [command.get_program()].into_iter().chain(command.get_args());
                    words.for_each(|word| push(&mut one["args"], json!(word.to_string_lossy())));
                }
                config["hooks"][kind.name] =
                    json!([one, hook(case, inside, &log, &format!("{}2", kind.name), "0")]);
            }
        })?;
        let container = case.create(&bundle)?;
        let mut told = json!({"id": container.id, "bundle": bundle.path});
        told["after create"] = json!(order(&log));
        let pid = container.pid()?;
        told["pid"] = json!(pid);
        told["runtime's"] = json!(probe::namespaces("self"));
        container.started()?;
        told["after start"] = json!(order(&log));
        container.output.line()?;
        told["when the program runs"] = json!(order(&log));
        told["container's"] = json!(probe::namespaces(&pid));
        container.ended()?;
        told["before delete"] = json!(order(&log));
        container.deleted()?;
        told["after delete"] = json!(order(&log));
        for kind in KINDS {
            let text = fs::read_to_string(log.join(kind.name)).unwrap_or_default();
            told[kind.name] = serde_json::from_str(&text).unwrap_or(Value::Null);
        }
        Ok(Facts(told))
    })
}

fn position(facts: &Facts, when: &str, name: &str) -> Option<usize> {
    facts.0[when].as_str()?.split(' ').position(|word| word == name)
}

fn precedes(case: &Case, first: &str, second: &str) -> Verdict {
    let facts = lived(case)?;
    let (one, other) = (position(&facts, "after delete", first), position(&facts, "after delete", second));
    let holds = matches!((one, other), (Some(one), Some(other)) if one < other);
    expect(holds, format!("{first} is not before {second}: {}", facts.0["after delete"]))
}

fn moment(kind: &Kind, facts: &Facts) -> Verdict {
    let told = &facts.0[kind.name];
    let (before, after) = match kind.name {
        "prestart" | "createRuntime" | "createContainer" => ("", "after create"),
        "startContainer" => ("after create", "when the program runs"),
        "poststart" => ("after create", "after start"),
        _ => ("before delete", "after delete"),
    };
    let name = kind.name;
    expect(
        before.is_empty() || position(facts, before, name).is_none(),
        format!("it had run before: {}", facts.0[before]),
    )?;
    expect(position(facts, after, name).is_some(), format!("it had not run {after}: {}", facts.0[after]))?;
    match name {
        "prestart" | "createRuntime" => {
            let (there, here) = (&told["namespaces of pid"], &facts.0["runtime's"]);
            // Before the program is executed, a runtime may hide its process from a user.
            let hidden = there.as_object().is_some_and(serde_json::Map::is_empty)
                && rustix::process::geteuid().as_raw() != 0;
            expect(
                hidden || there["mnt"].is_string() && there["mnt"] != here["mnt"],
                format!("the mount namespace is not made: {there}"),
            )?;
            expect(told["pid's root has the probe"] == false, "the root is that of the container already")
        }
        "createContainer" => {
            expect(told["root has the probe"] == false, "the root is that of the container already")
        }
        "poststart" => {
            let command = told["pid's command"].to_string();
            expect(
                command.contains("wait"),
                format!("the program is not executed yet: pid {} is {command}", told["state"]["pid"]),
            )
        }
        "poststop" => expect(told["runtime knows it"] == false, "the runtime still knows the container"),
        _ => Ok(()),
    }
}

fn namespaces(kind: &Kind, facts: &Facts) -> Verdict {
    let (seen, whose) =
        (&facts.0[kind.name]["namespaces"], if kind.inside { "container's" } else { "runtime's" });
    for name in ["mnt", "pid", "ipc", "uts"] {
        expect(seen[name].is_string(), "the hook did not run")?;
        // Through a proc of its own mount namespace, the hook is there with the number that it has there.
        expect(
            seen[name] == facts.0[whose][name],
            format!("{name} is {}, the {whose} is {}", seen[name], facts.0[whose][name]),
        )?;
    }
    Ok(())
}

fn hooks_state(facts: &Facts) -> Verdict {
    // While create or start is under way, whether it is already done is left open.
    let statuses: [(&str, &[&str]); 6] = [
        ("prestart", &["creating", "created"]),
        ("createRuntime", &["creating", "created"]),
        ("createContainer", &["creating", "created"]),
        ("startContainer", &["created", "running"]),
        ("poststart", &["running"]),
        ("poststop", &["stopped"]),
    ];
    for (name, want) in statuses {
        let state = &facts.0[name]["state"];
        if !state.is_object() {
            return fails(format!("{name} got no JSON: {}", facts.0[name]["input"]));
        }
        expect(state["ociVersion"].is_string(), format!("{name}: no ociVersion: {state}"))?;
        expect(state["id"] == facts.0["id"], format!("{name}: id {}, want {}", state["id"], facts.0["id"]))?;
        expect(state["bundle"] == facts.0["bundle"], format!("{name}: bundle {}", state["bundle"]))?;
        let status = state["status"].as_str().unwrap_or_default();
        expect(want.contains(&status), format!("{name}: status {status:?}, want {want:?}"))?;
    }
    Ok(())
}

fn hooks_pid(facts: &Facts) -> Verdict {
    for kind in KINDS.iter().filter(|kind| kind.name != "poststop") {
        let state = &facts.0[kind.name]["state"];
        let pid = state["pid"].to_string();
        if state["status"] == "creating" && ["null", "0"].contains(&pid.as_str()) {
            // It has to be there only once the container is created.
            continue;
        }
        let want = if kind.inside { "1" } else { facts.text("/pid") };
        expect_eq(&format!("{}: pid", kind.name), &pid, want)?;
    }
    Ok(())
}

/// Three hooks of the kind, of which the second fails.
fn failure(case: &Case, kind: &str) -> Verdict {
    let log = log(case)?;
    let inside = kind == "startContainer";
    let one = |name: &str, status| hook(case, inside, &log, name, status);
    let bundle: Bundle = case.bundle(&["/probe", "probe", "wait", "write:/log/ran"], |config| {
        bind(config, "/log", &log, &["bind"]);
        config["hooks"] = json!({"poststop": [hook(case, false, &log, "poststop", "0")]});
        let failing = json!([one("first", "0"), one("second", "3"), one("third", "0")]);
        config["hooks"][kind] = failing;
    })?;
    match kind {
        "prestart" | "createRuntime" | "createContainer" => {
            case.refused(&format!("a {kind} hook that fails"), &bundle)?;
            return expect_eq("hooks that ran", &order(&log), "first second poststop");
        }
        "poststop" => {
            let container = case.create(&bundle)?;
            container.started()?;
            container.facts()?;
            container.ended()?;
            container.invoke("delete")?;
            expect_eq("hooks that ran", &order(&log), "first second third")?;
            return expect(!container.invoke("state")?.ok(), "the container still exists");
        }
        _ => {}
    }
    let container = case.create(&bundle)?;
    // How the error is told is left open, so the exit status of start is not looked at.
    container.invoke("start")?;
    if container.invoke("state")?.ok() {
        container.stopped()?;
        container.deleted()?;
    }
    expect_eq("hooks that ran", &order(&log), "first second poststop")?;
    expect(kind == "poststart" || !log.join("ran").exists(), "the program ran")
}

fn hooks_timeout(case: &Case) -> Verdict {
    let log = log(case)?;
    let mut slow = hook(case, false, &log, "slow", "15s");
    // An emulated machine takes a second to start the hook.
    slow["timeout"] = json!(3);
    let begin = Instant::now();
    case.refuses("a hook that lasts longer than its timeout", |config| {
        config["hooks"] = json!({"createRuntime": [slow]})
    })?;
    expect(begin.elapsed() < Duration::from_secs(12), "the hook was waited for")?;
    expect_eq("hooks that ran", &order(&log), "slow")
}

fn relative(case: &Case, kind: &str) -> Verdict {
    let bundle = case.bundle(&["/probe"], |config| {
        config["hooks"] = json!({kind: [{"path": "hook", "args": ["hook", "probe", "facts"]}]});
    })?;
    // It could be run from where the runtime may look.
    for dir in [&case.dir, &bundle.path] {
        symlink(case.probe(), dir.join("hook")).map_err(own(dir))?;
    }
    case.refused("a hook whose path is \"hook\"", &bundle)
}

fn no_time(case: &Case, kind: &str) -> Verdict {
    for timeout in [0, -1] {
        let hook = json!({"path": case.probe(), "args": ["hook", "probe", "facts"], "timeout": timeout});
        case.refuses(&format!("a hook whose timeout is {timeout}"), |config| {
            config["hooks"] = json!({kind: [hook]})
        })?;
    }
    Ok(())
}
