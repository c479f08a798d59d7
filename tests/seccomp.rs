//! config-linux.md, Seccomp: every action, arguments, errno, the listener.

use crate::harness::Test;
use crate::pty::FdSocket;
use crate::requires;
use serde_json::{Value, json};

fn with(syscalls: Value) -> Test {
    let t = Test::new("seccomp");
    t.edit(|c| c["linux"]["seccomp"] = json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": syscalls }));
    t
}

#[test]
fn errno_is_the_one_given_or_eperm() {
    requires!(root);
    let mkdir = |errno: Value| {
        let mut rule = json!({ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO" });
        if !errno.is_null() {
            rule["errnoRet"] = errno;
        }
        with(json!([rule])).output("mkdir /x 2>&1 || true").to_lowercase()
    };
    assert!(mkdir(Value::Null).contains("operation not permitted"));
    assert!(mkdir(json!(122)).contains("quota exceeded"));
}

#[test]
fn kill_ends_the_process_by_sigsys() {
    requires!(root);
    for action in ["SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD"] {
        let t = with(json!([{ "names": ["mkdir", "mkdirat"], "action": action }]));
        // 31 is SIGSYS.
        assert_eq!(t.output("mkdir /x 2>/dev/null; echo $?"), "159\n", "{action}");
    }
}

#[test]
fn trap_log_and_trace() {
    requires!(root);
    let t = with(json!([{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_TRAP" }]));
    assert_eq!(t.output("mkdir /x 2>/dev/null; echo $?"), "159\n");
    let t = with(json!([{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_LOG" }]));
    assert_eq!(t.output("mkdir /x; echo $?"), "0\n");
    // Without a tracer a traced call gives ENOSYS.
    let t = with(json!([{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_TRACE", "errnoRet": 1 }]));
    assert!(t.output("mkdir /x 2>&1 || true").to_lowercase().contains("not implemented"));
}

#[test]
fn arguments_are_compared() {
    requires!(root);
    // kill(2)'s second argument is the signal: 0 fails, others pass.
    for (op, value, two, refused) in [
        ("SCMP_CMP_EQ", 0, 0, "0"),
        ("SCMP_CMP_NE", 18, 0, "0"),
        ("SCMP_CMP_LT", 1, 0, "0"),
        ("SCMP_CMP_LE", 0, 0, "0"),
        ("SCMP_CMP_GT", 17, 0, "18"),
        ("SCMP_CMP_GE", 18, 0, "18"),
        ("SCMP_CMP_MASKED_EQ", 16, 16, "18"),
    ] {
        let t = with(json!([{ "names": ["kill"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1,
            "args": [{ "index": 1, "value": value, "valueTwo": two, "op": op }] }]));
        let passed = if refused == "0" { "18" } else { "0" };
        let text = t.output(&format!(
            "kill -{passed} $$ && echo passes; kill -{refused} $$ 2>/dev/null || echo refused"
        ));
        assert_eq!(text, "passes\nrefused\n", "{op}");
    }
}

#[test]
fn the_default_action_applies_to_what_is_not_listed() {
    requires!(root);
    let t = Test::new("seccompdefault");
    t.edit(|c| {
        c["linux"]["seccomp"] = json!({ "defaultAction": "SCMP_ACT_LOG",
            "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5 }] });
    });
    assert!(t.output("mkdir /x 2>&1 || true").to_lowercase().contains("input/output error"));
}

#[test]
fn the_filter_holds_with_and_without_no_new_privileges() {
    requires!(root);
    for value in [true, false] {
        let t = with(json!([{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO" }]));
        t.edit(|c| c["process"]["noNewPrivileges"] = json!(value));
        assert!(t.output("mkdir /x 2>/dev/null || grep Seccomp: /proc/self/status").contains('2'));
    }
}

/// config-linux.md, The Container Process State: one connection, one state, one descriptor.
#[test]
fn the_listener_receives_the_descriptor_and_the_state() {
    requires!(root);
    let t = with(json!([{ "names": ["sethostname"], "action": "SCMP_ACT_NOTIFY" }]));
    let socket = FdSocket::bind(&t.dir.join("l"));
    t.edit(|c| {
        c["linux"]["seccomp"]["listenerPath"] = json!(socket.path);
        c["linux"]["seccomp"]["listenerMetadata"] = json!("some metadata");
    });
    t.sh("exec sleep 1000");
    let create = t.bundle_command("run", &["--detach"]).spawn();
    let (text, fds) = socket.receive();
    create.wait().ok();
    let state: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(state["metadata"], "some metadata");
    assert_eq!(state["state"]["id"], t.id.as_str());
    assert_eq!(state["fds"], json!(["seccompFd"]));
    assert_eq!(fds.len(), 1);
    assert_eq!(state["pid"], t.pid());
    drop(fds);
    t.end();
}
