//! config.md, POSIX-platform Hooks, and runtime.md, Lifecycle: when each kind runs and what its failure does.

use crate::harness::{SECONDS_5, Test, patiently, script};
use crate::{requires, rrun_only};
use serde_json::{Value, json};
use std::fs;

/// A hook that notes its name, and the state on its stdin, outside the container.
fn noting(t: &Test, name: &str, code: i32) -> Value {
    let path = t.dir.join(format!("hook-{name}"));
    let dir = t.dir.display();
    script(&path, &format!("#!/bin/sh\necho {name} >> {dir}/order\ncat > {dir}/state-{name}\nexit {code}\n"));
    json!({ "path": path })
}

fn order(t: &Test) -> Vec<String> {
    fs::read_to_string(t.dir.join("order")).unwrap_or_default().lines().map(str::to_owned).collect()
}

fn hook_state(t: &Test, name: &str) -> Value {
    serde_json::from_slice(&fs::read(t.dir.join(format!("state-{name}"))).unwrap()).unwrap()
}

/// Hooks of the container namespace are looked up inside; they note into the rootfs.
fn inside(t: &Test, name: &str, code: i32) -> Value {
    script(
        &t.rootfs.join(name),
        &format!("#!/bin/sh\necho {name} >> /order\n/bin/cat > /state-{name}\nexit {code}\n"),
    );
    json!({ "path": format!("/{name}") })
}

#[test]
fn the_hooks_run_in_the_lifecycles_order_with_the_state_on_stdin() {
    requires!(root);
    let t = Test::new("hooks");
    let hooks = json!({
        "prestart": [noting(&t, "prestart", 0)],
        "createRuntime": [noting(&t, "createRuntime1", 0), noting(&t, "createRuntime2", 0)],
        "createContainer": [noting(&t, "createContainer", 0)],
        "startContainer": [inside(&t, "startContainer", 0)],
        "poststart": [noting(&t, "poststart", 0)],
        "poststop": [noting(&t, "poststop", 0)]
    });
    t.edit(|c| c["hooks"] = hooks).sh("exec sleep 1000").create();
    let created = ["prestart", "createRuntime1", "createRuntime2", "createContainer"];
    // runc 1.1 runs poststart hooks in create.
    if crate::harness::is_rrun() {
        assert_eq!(order(&t), created);
    }
    let pid = t.pid();
    for name in ["prestart", "createRuntime1"] {
        let state = hook_state(&t, name);
        assert_eq!(state["id"], t.id.as_str(), "{name}");
        assert_eq!(state["pid"], pid, "{name}: the pid as the runtime sees it (runtime.md, State)");
        assert_eq!(state["bundle"], t.bundle.to_str().unwrap(), "{name}");
    }
    t.start();
    assert_eq!(order(&t)[4..], ["poststart"]);
    if crate::harness::is_rrun() {
        assert_eq!(hook_state(&t, "poststart")["status"], "running");
    }
    assert_eq!(fs::read_to_string(t.rootfs.join("order")).unwrap(), "startContainer\n");
    t.rt(&["delete", "--force", &t.id]).go().ok();
    assert_eq!(order(&t)[5..], ["poststop"]);
    assert_eq!(hook_state(&t, "poststop")["status"], "stopped");
    t.nothing_left();
}

/// As runc's: its suite's hook mounts a library by a relative path.
#[test]
fn create_container_hooks_begin_in_the_root_filesystem() {
    requires!(root);
    let t = Test::new("hookcwd");
    let path = t.dir.join("here");
    script(&path, "#!/bin/sh\nexec touch made-by-hook\n");
    t.edit(|c| c["hooks"] = json!({ "createContainer": [{ "path": path }] }));
    t.sh("test -e /made-by-hook").run().ok();
    t.nothing_left();
}

#[test]
fn the_state_status_is_creating_or_created_before_start() {
    requires!(root);
    let t = Test::new("hookstatus");
    let hooks = json!({
        "prestart": [noting(&t, "prestart", 0)],
        "createRuntime": [noting(&t, "createRuntime", 0)],
    });
    t.edit(|c| c["hooks"] = hooks).create();
    for hook in ["prestart", "createRuntime"] {
        let status = hook_state(&t, hook)["status"].clone();
        assert!(status == "creating" || status == "created", "{hook}: {status}");
        // runtime-tools' hooks_stdin asks for it.
        assert!(hook != "prestart" || status == "created" || !crate::harness::is_rrun(), "{status}");
    }
    t.end();
}

/// runtime.md, Lifecycle 4-6: an error, the container is stopped, poststop hooks run.
fn create_fails_with(kind: &str) {
    let t = Test::new("hookfail");
    let hooks = json!({ kind: [noting(&t, "bad", 3), noting(&t, "never", 0)], "poststop": [noting(&t, "poststop", 0)] });
    t.edit(|c| c["hooks"] = hooks);
    t.bundle_command("create", &[]).go().fails("hook").one_line();
    t.rt(&["state", &t.id]).go().fails("does not exist");
    t.nothing_left();
    assert_eq!(order(&t)[0], "bad");
    assert!(!order(&t).contains(&"never".to_owned()), "hooks behind a failed one do not run");
    if crate::harness::is_rrun() {
        assert_eq!(order(&t)[1..], ["poststop"]);
    }
}

#[test]
fn a_failing_prestart_hook_fails_create() {
    requires!(root);
    create_fails_with("prestart");
}

#[test]
fn a_failing_create_runtime_hook_fails_create() {
    requires!(root);
    create_fails_with("createRuntime");
}

#[test]
fn a_failing_create_container_hook_fails_create() {
    requires!(root);
    create_fails_with("createContainer");
}

/// runtime.md, Lifecycle 8: MUST generate an error, stop the container, and continue at 12 (destroy, poststop).
#[test]
fn a_failing_start_container_hook_fails_start() {
    requires!(root);
    rrun_only!("runc and crun let `start` succeed");
    let t = Test::new("startfail");
    let hooks = json!({ "startContainer": [inside(&t, "bad", 4)], "poststop": [noting(&t, "poststop", 0)] });
    t.edit(|c| c["hooks"] = hooks).sh("echo ran > /ran").create();
    t.rt(&["start", &t.id]).go().fails("startContainer hook").one_line();
    assert!(!t.rootfs.join("ran").exists());
    assert_eq!(order(&t), ["poststop"]);
    t.nothing_left();
}

/// runtime.md, Lifecycle 10.
#[test]
fn a_failing_poststart_hook_stops_the_container() {
    requires!(root);
    rrun_only!("runc 1.1 leaves the container running");
    let t = Test::new("poststartfail");
    let hooks = json!({ "poststart": [noting(&t, "bad", 4)], "poststop": [noting(&t, "poststop", 0)] });
    t.edit(|c| c["hooks"] = hooks).sh("exec sleep 1000").create();
    t.rt(&["start", &t.id]).go().fails("poststart hook").one_line();
    assert_eq!(order(&t), ["bad", "poststop"]);
    t.nothing_left();
}

/// runtime.md, Lifecycle 13: a warning, but the remaining hooks and the lifecycle continue.
#[test]
fn a_failing_poststop_hook_is_a_warning_and_the_remaining_ones_run() {
    requires!(root);
    rrun_only!("runc stops at the first failing poststop hook");
    let t = Test::new("poststopfail");
    let hooks = json!({ "poststop": [noting(&t, "bad", 5), noting(&t, "good", 0)] });
    t.edit(|c| c["hooks"] = hooks).create();
    t.rt(&["delete", "--force", &t.id]).go().ok();
    assert_eq!(order(&t), ["bad", "good"]);
    t.nothing_left();
}

#[test]
fn a_hook_has_its_own_args_and_env_only() {
    requires!(root);
    let t = Test::new("hookenv");
    let path = t.dir.join("h");
    let out = t.dir.join("out");
    script(&path, &format!("#!/bin/bash\n{{ echo \"$0 $*\"; /usr/bin/env; }} > {}\n", out.display()));
    t.edit(|c| {
        c["hooks"] = json!({ "createRuntime": [{ "path": path, "args": ["zero", "one"], "env": ["A=b"] }] })
    });
    t.run().ok();
    let text = fs::read_to_string(&out).unwrap();
    assert!(text.lines().next().unwrap().ends_with(" one"), "{text}");
    assert!(text.contains("A=b\n") && !text.contains("RRUN_TEST") && !text.contains("HOME="), "{text}");
}

#[test]
fn a_hook_that_does_not_end_is_ended_after_its_timeout() {
    requires!(root);
    let t = Test::new("hooktimeout");
    t.edit(|c| {
        c["hooks"] =
            json!({ "createRuntime": [{ "path": "/bin/sleep", "args": ["sleep", "1000"], "timeout": 1 }] })
    });
    let out = t.run();
    out.fails("hook").one_line();
    assert!(out.took < patiently(SECONDS_5), "{out:?}");
    t.nothing_left();
}

#[test]
fn a_hooks_stderr_is_told() {
    requires!(root);
    let t = Test::new("hookstderr");
    let path = t.dir.join("h");
    script(&path, "#!/bin/sh\necho the reason >&2\nexit 1\n");
    t.edit(|c| c["hooks"] = json!({ "createRuntime": [{ "path": path }] }));
    t.run().fails("the reason");
    t.nothing_left();
}

#[test]
fn create_container_hooks_run_in_the_containers_namespaces_before_pivot() {
    requires!(root);
    let t = Test::new("hookns");
    let path = t.dir.join("h");
    let out = t.dir.join("out");
    script(
        &path,
        &format!("#!/bin/sh\nhostname > {o}\nreadlink /proc/self/ns/mnt >> {o}\n", o = out.display()),
    );
    t.edit(|c| c["hooks"] = json!({ "createContainer": [{ "path": path }] }));
    t.run().ok();
    let text = fs::read_to_string(&out).unwrap();
    let own = fs::read_link("/proc/self/ns/mnt").unwrap();
    assert!(!text.contains(own.to_str().unwrap()), "{text}");
}
