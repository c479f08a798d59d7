//! config-linux.md, Seccomp: every action, arguments, errno, the listener.

use crate::harness::{SECONDS_5, Test, probe, wait_for};
use crate::pty::FdSocket;
use crate::{requires, rrun_only};
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

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
    let create = t.bundle_command("create", &[]).spawn();
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

/// An agent of the test's own: it lets every call pass, but for the first mkdir under each filter.
struct Agent {
    child: Child,
    socket: PathBuf,
    dir: PathBuf,
}

impl Agent {
    fn new(t: &Test) -> Self {
        let (socket, dir) = (t.dir.join("agent"), t.dir.clone());
        let mut command = Command::new(probe());
        command.arg("agent").arg(&socket).arg(&dir).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "listening\n");
        Self { child, socket, dir }
    }

    /// The state that came with the descriptor of the filter `n`.
    fn state(&self, n: u32) -> Value {
        serde_json::from_slice(&fs::read(self.dir.join(format!("state.{n}"))).unwrap()).unwrap()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[test]
fn an_agent_answers_for_run_and_for_exec_with_and_without_no_new_privileges() {
    requires!(root);
    for value in [true, false] {
        let t = with(json!([{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY" }]));
        let agent = Agent::new(&t);
        t.edit(|c| {
            c["process"]["noNewPrivileges"] = json!(value);
            c["linux"]["seccomp"]["listenerPath"] = json!(agent.socket);
        });
        let twice = |name: &str| format!("mkdir /{name} 2>&1; mkdir /{name} && ls -d /{name}");
        t.detached(&format!("({}) > /said 2>&1; exec sleep 1000", twice("one")));
        let said = wait_for("the answers", SECONDS_5, || {
            fs::read_to_string(t.rootfs.join("said")).ok().filter(|s| s.ends_with("/one\n"))
        });
        assert!(said.to_lowercase().contains("quota exceeded"), "{said}");
        let state = agent.state(0);
        assert_eq!((&state["state"]["id"], &state["pid"]), (&json!(t.id), &json!(t.pid())));
        // It is handed over before create is done.
        assert_eq!(state["state"]["status"], "creating");

        let exec = t.exec(&["sh", "-c", &twice("two")]).ok().stdout();
        assert!(exec.to_lowercase().contains("quota exceeded") && exec.ends_with("/two\n"), "{exec}");
        // An exec has a filter of its own, so the agent gets another descriptor, in a running container.
        let state = agent.state(1);
        assert_eq!((&state["state"]["status"], &state["state"]["id"]), (&json!("running"), &json!(t.id)));
        assert_ne!(state["pid"], t.pid());
        assert!(state["pid"].as_u64() > Some(0), "{state}");
        t.end();
    }
}

#[test]
fn a_listener_that_nobody_serves_fails_create() {
    requires!(root);
    let t = with(json!([{ "names": ["mkdir"], "action": "SCMP_ACT_NOTIFY" }]));
    t.edit(|c| c["linux"]["seccomp"]["listenerPath"] = json!(t.dir.join("nobody")));
    t.run().fails("no such file").one_line();
    t.nothing_left();
}

/// What a static program and its start need; the newest is rseq (4.18).
const PROBE_CALLS: [&str; 28] = [
    "execve",
    "brk",
    "arch_prctl",
    "set_tid_address",
    "set_robust_list",
    "rseq",
    "prlimit64",
    "readlink",
    "readlinkat",
    "getrandom",
    "mprotect",
    "mmap",
    "munmap",
    "write",
    "writev",
    "read",
    "close",
    "fstat",
    "newfstatat",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "sigreturn",
    "exit",
    "exit_group",
    "futex",
    "gettid",
    "getpid",
];

/// A C library asks whether a new call exists and falls back on ENOSYS, but gives up on EPERM. So a call newer
/// than all that the profile names gets ENOSYS, and an older one what the profile says.
#[test]
fn calls_newer_than_the_profile_do_not_exist() {
    requires!(root);
    requires!(cfg!(target_arch = "x86_64"), "needs x86_64: the numbers are its own");
    rrun_only!("the peers need calls of their own behind the filter, which then are the newest named");
    let t = Test::new("enosys");
    t.add_probe();
    let call = |default: &str, named: &[&str], number: &str| {
        t.edit(|c| {
            let names: Vec<_> = PROBE_CALLS.iter().chain(named).collect();
            c["linux"]["seccomp"] = json!({ "defaultAction": default, "architectures": ["SCMP_ARCH_X86_64"],
                "syscalls": [{ "names": names, "action": "SCMP_ACT_ALLOW" }] });
            c["process"]["args"] = json!(["probe", "call64", number]);
        });
        t.run().ok().stdout()
    };
    // mkdir 83, openat2 437, and one that no kernel has.
    assert_eq!(call("SCMP_ACT_ERRNO", &[], "83"), "1\n");
    assert_eq!(call("SCMP_ACT_ERRNO", &[], "437"), "38\n");
    assert_eq!(call("SCMP_ACT_ERRNO", &[], "9999"), "38\n");
    // faccessat2 (439) is newer than openat2: the author of the profile knew of openat2.
    assert_eq!(call("SCMP_ACT_ERRNO", &["faccessat2"], "437"), "1\n");
    assert_eq!(call("SCMP_ACT_ERRNO", &["faccessat2"], "9999"), "38\n");
}

#[test]
fn a_rule_holds_on_each_architecture_listed_and_no_other_gets_in() {
    requires!(root);
    requires!(cfg!(target_arch = "x86_64"), "needs x86_64 with its 32-bit entry");
    // On the host getpid (20 there) works, or the kernel has no such entry.
    let works = Command::new(probe()).args(["call32", "20"]).output().unwrap();
    requires!(works.stdout == b"0\n", "needs a kernel with the 32-bit entry");
    let t = with(json!([{ "names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 122 }]));
    t.add_probe();
    let script = "probe call64 83; probe call32 39; echo $?";
    let run = |archs: Value| {
        t.edit(|c| c["linux"]["seccomp"]["architectures"] = archs);
        t.output(script)
    };
    assert_eq!(run(json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"])), "122\n122\n0\n");
    // 159: ended by SIGSYS.
    assert_eq!(run(json!(["SCMP_ARCH_X86_64"])), "122\n159\n");
}
