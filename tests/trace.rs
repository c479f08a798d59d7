//! Path safety and cost, read off strace: no path string into the rootfs before pivot_root, no /proc by path once
//! the container has a say in what is mounted there, no descriptor in a container without a reason, and no more
//! processes and system calls than `budget.txt` allows.
//!
//! Lines count up to the execve of a program in the container; what that program does is its own affair. The
//! runtime's first process stays in the host's mount namespace, where the container mounts nothing, so the
//! rule about /proc is for the others: after the first mount, or after they have entered a container's.

use crate::harness::{SECONDS_5, Test, compiled, is_rrun, probe, processes_marked, script, wait_for};
use crate::pty::FdSocket;
use crate::{requires, rrun_only};
use serde_json::json;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};

/// Stands in the argv of the container's program.
const MARK: &str = "rrun-trace-mark";

#[derive(Debug, Default, PartialEq)]
struct Findings {
    processes: usize,
    syscalls: usize,
    /// Lines that break a rule, with the rule.
    broken: Vec<String>,
}

/// The strings in quotes of a line of strace.
fn strings(line: &str) -> impl Iterator<Item = &str> {
    line.split('"').skip(1).step_by(2)
}

fn is_mount(call: &str) -> bool {
    ["mount(", "move_mount(", "fsmount("].iter().any(|c| call.starts_with(c))
}

/// A path that is looked up from the root or the working directory: strace shows no descriptor before it.
fn is_proc_by_path(call: &str) -> bool {
    let Some((before, _)) = call.split_once('"') else { return false };
    let Some((name, before)) = before.split_once('(') else { return false };
    let is_proc = |path: &str| path == "/proc" || path.starts_with("/proc/");
    match name {
        // The text of a link, the name of a thread; what is executed is the container's choice.
        "symlink" | "symlinkat" | "prctl" | "execve" | "execveat" => false,
        "mount" => strings(call).any(is_proc),
        _ => (before.is_empty() || before == "AT_FDCWD, ") && strings(call).next().is_some_and(is_proc),
    }
}

/// The process that a call of the clone family has made.
fn made(call: &str) -> Option<&str> {
    let call = call.strip_prefix("<... ").unwrap_or(call);
    let family = ["clone3", "clone", "fork", "vfork"];
    let name = call.split(['(', ' ']).next()?;
    let pid = call.rsplit_once(" = ")?.1;
    (family.contains(&name) && pid.bytes().all(|b| b.is_ascii_digit())).then_some(pid)
}

/// Reads the output of `strace -f -o`: each line begins with the pid.
fn lint(log: &str, rootfs: &str) -> Findings {
    let mut findings = Findings::default();
    let lines =
        || log.lines().filter_map(|l| l.split_once(' ').map(|(pid, call)| (pid, call.trim_start(), l)));
    let parents: HashMap<&str, &str> =
        lines().filter_map(|(pid, call, _)| Some((made(call)?, pid))).collect();
    let mut seen = HashSet::new();
    let mut done = HashSet::new();
    // In the mount namespace of a container that runs already.
    let mut inside: HashSet<&str> = HashSet::new();
    let mut first = None;
    let (mut pivoted, mut mounted) = (false, false);
    let below = format!("{rootfs}/");
    for (pid, call, line) in lines() {
        let first = *first.get_or_insert(pid);
        if done.contains(pid)
            || call.starts_with("+++")
            || call.starts_with("---")
            || call.starts_with("<...")
        {
            continue;
        }
        if seen.insert(pid) && parents.get(pid).is_some_and(|parent| inside.contains(parent)) {
            inside.insert(pid);
        }
        findings.syscalls += 1;
        if call.starts_with("execve") && !call.contains(" = -1") && pid != first {
            done.insert(pid);
            continue;
        }
        // What readlink answers is no path that was looked up.
        let answer = call.starts_with("readlink");
        if !pivoted && !answer && strings(call).any(|s| s.starts_with(&below) || s.starts_with("rootfs/")) {
            findings.broken.push(format!("a path string into the rootfs before pivot_root: {line}"));
        }
        if (mounted && pid != first || inside.contains(pid)) && is_proc_by_path(call) {
            findings.broken.push(format!("/proc by path where the container decides what it is: {line}"));
        }
        pivoted |= call.starts_with("pivot_root(");
        mounted |= is_mount(call);
        if call.starts_with("setns(") && call.contains("CLONE_NEWNS") && !call.contains(" = -1") {
            inside.insert(pid);
        }
    }
    findings.processes = seen.len();
    findings
}

fn budget() -> BTreeMap<(String, String), Option<usize>> {
    let text = include_str!("budget.txt");
    let rows = text.lines().filter(|l| !l.starts_with('#') && !l.trim().is_empty());
    rows.map(|row| {
        let words: Vec<_> = row.split_whitespace().collect();
        let [command, what, most] = words[..] else { panic!("budget.txt: {row}") };
        ((command.to_owned(), what.to_owned()), most.parse().ok())
    })
    .collect()
}

/// `run` and `create` of the reference bundle, or what is done to its container afterwards.
fn traced(command: &str) -> Findings {
    let t = Test::new("trace");
    let run = command == "run";
    t.edit(|c| c["process"]["args"] = if run { json!(["echo", MARK]) } else { json!(["sleep", "1000"]) });
    let log = t.dir.join("strace");
    let strace = ["strace", "-f", "-s", "4096", "-o", log.to_str().unwrap()];
    match command {
        "run" => drop(t.bundle_command("run", &[]).under(&strace).spawn().wait()),
        "create" => {
            let running = t.bundle_command("create", &[]).under(&strace).spawn();
            // strace stays as long as init, which waits for `start`.
            wait_for("the created container", SECONDS_5 * 2, || {
                let out = t.rt(&["state", &t.id]).go();
                out.stdout().contains("\"status\": \"created\"").then_some(())
            });
            t.end();
            running.wait();
        }
        _ => {
            t.create();
            if command != "start" {
                t.start();
            }
            if command == "delete" {
                t.kill("KILL").ok();
                t.wait_status("stopped");
            }
            let args = match command {
                "exec" => vec!["exec", &t.id, "echo", MARK],
                "kill" => vec!["kill", &t.id, "KILL"],
                _ => vec![command, &t.id],
            };
            t.rt(&args).under(&strace).go().ok();
            if command != "delete" {
                t.end();
            }
        }
    }
    lint(&fs::read_to_string(&log).unwrap(), t.rootfs.to_str().unwrap())
}

fn check(command: &str) {
    let findings = traced(command);
    println!("{command}: {} processes, {} system calls", findings.processes, findings.syscalls);
    if !is_rrun() {
        // The peers break the rules: that is what the linter must see, were it to look at them.
        return;
    }
    assert!(findings.broken.is_empty(), "{}", findings.broken.join("\n"));
    for (what, count) in [("processes", findings.processes), ("syscalls", findings.syscalls)] {
        if let Some(Some(most)) = budget().get(&(command.to_owned(), what.to_owned())) {
            assert!(count <= *most, "{command}: {count} {what}, the budget is {most}");
        }
    }
}

/// A test for each command of `budget.txt`.
macro_rules! budgets {
    ($($name:ident: $command:literal;)*) => {$(
        #[test]
        fn $name() {
            requires!(root);
            requires!(unfiltered);
            requires!(program "strace");
            check($command);
        }
    )*};
}

budgets! {
    run_of_the_reference_bundle: "run";
    create_of_the_reference_bundle: "create";
    start_of_the_reference_bundle: "start";
    exec_into_the_reference_bundle: "exec";
    state_of_the_reference_bundle: "state";
    kill_of_the_reference_bundle: "kill";
    delete_of_the_reference_bundle: "delete";
}

/// What a configuration adds, each of which takes other ways through the runtime.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Plain,
    Terminal,
    UserNamespace,
    Hooks,
    Listener,
    User,
}

const KINDS: [Kind; 6] =
    [Kind::Plain, Kind::Terminal, Kind::UserNamespace, Kind::Hooks, Kind::Listener, Kind::User];

/// A bundle of a kind, and what has to go on beside it.
struct Bundle {
    t: Test,
    socket: Option<FdSocket>,
    agent: Option<Child>,
    /// Of its terminals: a container ends with its terminal.
    masters: RefCell<Vec<OwnedFd>>,
}

impl Bundle {
    fn new(kind: Kind) -> Self {
        let t = Test::new("trace");
        t.edit(|c| {
            c["process"]["args"] = json!(["sleep", "1000"]);
            c["linux"]["sysctl"] = json!({ "net.ipv4.ip_forward": "1" });
            c["mounts"]
                .as_array_mut()
                .unwrap()
                .push(json!({ "destination": "/sys/fs/cgroup", "type": "cgroup",
                "source": "cgroup", "options": ["ro"] }));
        });
        let (mut socket, mut agent) = (None, None);
        match kind {
            Kind::Plain => {}
            Kind::Terminal => {
                t.edit(|c| c["process"]["terminal"] = json!(true));
                socket = Some(FdSocket::bind(&t.dir.join("tty")));
            }
            Kind::UserNamespace => drop(t.map_users()),
            Kind::Hooks => {
                let (host, inside) = (t.dir.join("hook"), t.rootfs.join("hook"));
                script(&host, "#!/bin/sh\ncat >/dev/null\n");
                script(&inside, "#!/bin/sh\n/bin/cat >/dev/null\n");
                let (host, inside) = (json!([{ "path": host }]), json!([{ "path": "/hook" }]));
                t.edit(|c| {
                    c["hooks"] = json!({ "prestart": host, "createRuntime": host, "createContainer": host,
                        "startContainer": inside, "poststart": host, "poststop": host });
                });
            }
            Kind::Listener => {
                let path = t.dir.join("agent");
                let mut command = Command::new(probe());
                let mut child =
                    command.arg("agent").arg(&path).arg(&t.dir).stdout(Stdio::piped()).spawn().unwrap();
                BufReader::new(child.stdout.take().unwrap()).read_line(&mut String::new()).unwrap();
                agent = Some(child);
                t.edit(|c| {
                    c["linux"]["seccomp"] = json!({ "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": path,
                        "syscalls": [{ "names": ["sethostname"], "action": "SCMP_ACT_NOTIFY" }] });
                });
            }
            Kind::User => {
                t.edit(|c| {
                    c["process"]["user"] = json!({ "uid": 1000, "gid": 1000, "additionalGids": [7] });
                    c["process"]["cwd"] = json!("/made/for/it");
                });
            }
        }
        Self { t, socket, agent, masters: RefCell::default() }
    }

    /// `verb`, detached where it can be, under `wrapper`.
    fn go(&self, verb: &str, wrapper: &[&str]) {
        let t = &self.t;
        let socket = self.socket.as_ref().map(|s| s.path.to_str().unwrap());
        let mut flags = if verb == "create" || verb == "start" { vec![] } else { vec!["--detach"] };
        if let (Some(socket), true) = (socket, verb != "start") {
            flags.extend(["--console-socket", socket]);
        }
        let run = match verb {
            "start" => t.rt(&["start", &t.id]),
            "exec" => {
                let mut args = vec!["exec"];
                args.extend(if socket.is_some() { &["--tty"][..] } else { &[] });
                args.extend(&flags);
                args.extend([t.id.as_str(), "sleep", "1000"]);
                t.rt(&args)
            }
            _ => t.bundle_command(verb, &flags),
        };
        let running = run.under(wrapper).spawn();
        if let (Some(socket), true) = (&self.socket, verb != "start") {
            self.masters.borrow_mut().extend(socket.receive().1);
        }
        running.wait().ok();
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            agent.kill().unwrap();
            agent.wait().unwrap();
        }
    }
}

/// strace in the background, as it stays as long as what it has seen start: the runtime goes on without it.
fn strace(log: &str) -> Vec<String> {
    ["strace", "-D", "-f", "-s", "4096", "-o", log].map(str::to_owned).to_vec()
}

#[test]
fn paths_of_every_command_and_kind() {
    requires!(root);
    requires!(unfiltered);
    requires!(program "strace");
    rrun_only!("the peers break these rules");
    for kind in KINDS {
        let b = Bundle::new(kind);
        let clean = |verb: &str| {
            let log = b.t.dir.join(format!("strace-{verb}"));
            let words = strace(log.to_str().unwrap());
            b.go(verb, &words.iter().map(String::as_str).collect::<Vec<_>>());
            log
        };
        let mut logs = vec![clean("create"), clean("start"), clean("exec")];
        b.t.end();
        logs.push(clean("run"));
        b.t.end();
        for log in logs {
            // create's has what init does at start, too, up to its program.
            let text = wait_for("strace to end", SECONDS_5, || {
                fs::read_to_string(&log).ok().filter(|text| text.trim_end().ends_with("+++"))
            });
            let findings = lint(&text, b.t.rootfs.to_str().unwrap());
            assert!(findings.syscalls > 20, "{kind:?}: {}: {text}", log.display());
            assert!(findings.broken.is_empty(), "{kind:?}: {}", findings.broken.join("\n"));
        }
    }
}

/// The descriptors that may be open in a process that the container can see, and why none of them leads out of it.
const OPEN: [(&str, &str); 9] = [
    ("socket:", "between the process and rrun: end of file there ends the process, and nothing else is read"),
    ("anon_inode:[pidfd]", "of the container's own init, for setns(2); closed by the process's first steps"),
    (
        "anon_inode:seccomp notify",
        "of the process's own filter, until rrun has taken it; its program has not run",
    ),
    ("/dev/null", "the container's, on its way to a standard stream; the host's where the image has none"),
    ("/dev/pts", "the container's devpts"),
    ("/dev/ptmx", "its master, on its way to the console socket"),
    ("/", "the container's root, as it is looked up after setns(2)"),
    ("/etc/passwd", "the container's, for HOME"),
    ("pipe:", "of a hook's standard streams"),
];

/// The lines NUMBER TARGET that have no reason. Standard streams are the caller's.
fn without_reason<'a>(fds: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let known = |target: &str| {
        OPEN.iter().any(|(open, _)| match *open {
            "/" => target == "/",
            open => target.starts_with(open),
        })
    };
    fds.filter(|line| {
        let (number, target) = line.split_once(' ').unwrap();
        !["0", "1", "2"].contains(&number) && !known(target)
    })
    .collect()
}

fn fds_of(pid: u32) -> Vec<String> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let line = |e: fs::DirEntry| {
        let target = fs::read_link(e.path()).ok()?;
        Some(format!("{} {}", e.file_name().to_string_lossy(), target.display()))
    };
    entries.filter_map(line).collect()
}

#[test]
fn descriptors_in_the_container_have_a_reason() {
    requires!(root);
    requires!(unfiltered);
    rrun_only!("the list is rrun's");
    let tracer = compiled("attacks/tracer");
    // Those of the caller are not rrun's to pass on.
    let leaking = |words: &[&str]| {
        let mut all = vec!["sh", "-c", "exec 7</ 8</etc/passwd; exec \"$@\"", "sh"]
            .into_iter()
            .map(str::to_owned)
            .collect::<Vec<_>>();
        all.extend(words.iter().map(|w| (*w).to_owned()));
        all
    };
    let check = |kind: Kind, when: &str, fds: &[String]| {
        assert!(fds.len() > 2, "{kind:?}, {when}: {fds:?}");
        let bad = without_reason(fds.iter().map(String::as_str));
        assert!(bad.is_empty(), "{kind:?}, {when}: {bad:?}");
    };
    for kind in KINDS {
        let b = Bundle::new(kind);
        let go = |verb: &str, words: &[&str]| {
            let all = leaking(words);
            b.go(verb, &all.iter().map(String::as_str).collect::<Vec<_>>());
        };
        go("create", &[]);
        let created = || fds_of(b.t.pid());
        check(kind, "created", &created());
        // The one on which it waits for `start`; that of `create` is closed when it knows that it is on record.
        let sockets = || created().iter().filter(|fd| fd.contains("socket:")).count();
        wait_for("a single socket", SECONDS_5, || (sockets() == 1).then_some(()));
        go("start", &[]);
        let program = |pid: u32| {
            let exe = || fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
            wait_for("the program", SECONDS_5, || exe().ends_with("bin/busybox").then_some(()));
            assert_eq!(fds_of(pid).len(), 3, "{kind:?}: {:?}", fds_of(pid));
        };
        program(b.t.pid());
        let out = b.t.dir.join("fds");
        go("exec", &[tracer.to_str().unwrap(), "fds", out.to_str().unwrap()]);
        let seen: Vec<_> = fs::read_to_string(&out).unwrap().lines().map(str::to_owned).collect();
        check(kind, "exec", &seen);
        let all = processes_marked(&b.t.id).into_iter().map(|(pid, _)| pid.cast_unsigned());
        for pid in all.filter(|pid| *pid != b.t.pid()) {
            program(pid);
        }
        b.t.end();
    }
}

#[test]
fn the_list_of_descriptors_is_a_list() {
    let fds =
        ["0 /dev/pts/0", "2 /", "3 socket:[7]", "4 /sys/fs/cgroup/x", "7 /", "8 /etc/shadow", "9 /proc/1"];
    assert_eq!(without_reason(fds.into_iter()), ["4 /sys/fs/cgroup/x", "8 /etc/shadow", "9 /proc/1"]);
}

#[test]
fn the_linter_sees_a_path_into_the_rootfs() {
    let log = "1 openat(AT_FDCWD, \"/b/rootfs\", O_PATH) = 3\n\
               2 mkdir(\"/b/rootfs/proc\", 0755) = 0\n\
               2 pivot_root(\".\", \".\") = 0\n\
               2 open(\"/b/rootfs/x\", O_RDONLY) = 3\n";
    let findings = lint(log, "/b/rootfs");
    assert_eq!(findings.broken.len(), 1);
    assert!(findings.broken[0].contains("mkdir"));
    assert_eq!((findings.processes, findings.syscalls), (2, 4));
}

#[test]
fn the_linter_sees_proc_opened_after_a_mount() {
    let log = "1 openat(AT_FDCWD, \"/proc/self/exe\", O_RDONLY) = 3\n\
               2 openat(AT_FDCWD, \"/proc/self/fd\", O_RDONLY) = 3\n\
               2 move_mount(5, \"\", 6, \"\", MOVE_MOUNT_F_EMPTY_PATH) = 0\n\
               1 openat(AT_FDCWD, \"/proc/7/stat\", O_RDONLY) = 3\n\
               2 openat(AT_FDCWD, \"/proc/self/attr/exec\", O_WRONLY) = 3\n\
               2 openat(9, \"self/fd\", O_RDONLY) = 3\n";
    let findings = lint(log, "/b/rootfs");
    assert_eq!(findings.broken.len(), 1);
    assert!(findings.broken[0].contains("attr/exec"));
}

#[test]
fn the_linter_stops_at_the_containers_program() {
    let log = format!(
        "1 execve(\"/usr/bin/rrun\", [\"rrun\"], 0x1) = 0\n\
         2 execve(\"/bin/echo\", [\"echo\", \"{MARK}\"], 0x1) = 0\n\
         2 open(\"/proc/self/maps\", O_RDONLY) = 3\n"
    );
    assert_eq!(lint(&log, "/b/rootfs"), Findings { processes: 2, syscalls: 2, broken: vec![] });
}

#[test]
fn the_linter_sees_proc_of_the_container_that_is_entered() {
    let log = "1 clone3({flags=0}, 88) = 2\n\
               2 openat(AT_FDCWD, \"/proc/self/attr/exec\", O_WRONLY) = 3\n\
               2 setns(5, CLONE_NEWNS|CLONE_NEWPID) = 0\n\
               2 clone3({flags=CLONE_PARENT}, 88 <unfinished ...>\n\
               3 readlink(\"/proc/self/exe\", \"/x\", 9) = 2\n\
               2 <... clone3 resumed>) = 3\n\
               3 symlinkat(\"/proc/self/fd\", 5, \"fd\") = 0\n\
               3 mount(\"proc\", \"/proc\", \"proc\", 0, NULL) = 0\n\
               1 openat(AT_FDCWD, \"/proc/2/stat\", O_RDONLY) = 3\n\
               3 execve(\"/bin/true\", [\"true\"], 0x1) = 0\n\
               3 openat(AT_FDCWD, \"/proc/self/maps\", O_RDONLY) = 3\n";
    let findings = lint(log, "/b/rootfs");
    assert_eq!(findings.broken.len(), 2, "{:?}", findings.broken);
    assert!(findings.broken[0].contains("readlink") && findings.broken[1].contains("mount"));
}
