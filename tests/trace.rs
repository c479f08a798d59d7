//! Path safety and cost, read off strace: no path string into the rootfs before pivot_root, no /proc opened by
//! path after the first mount, and no more processes and system calls than `budget.txt` allows.
//!
//! Lines count up to the execve of the container's program; what that program does is its own affair. The
//! runtime's first process stays in the host's mount namespace, where the container mounts nothing, so the
//! rule about /proc is for the others.

use crate::harness::{SECONDS_5, Test, is_rrun, wait_for};
use crate::requires;
use std::collections::{BTreeMap, HashSet};
use std::fs;

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

fn opens_proc_by_path(call: &str) -> bool {
    ["open(", "openat(AT_FDCWD", "openat2(AT_FDCWD", "readlink(", "readlinkat(AT_FDCWD", "stat(", "access("]
        .iter()
        .any(|c| call.starts_with(c))
        && strings(call).next().is_some_and(|p| p == "/proc" || p.starts_with("/proc/"))
}

/// Reads the output of `strace -f -o`: each line begins with the pid.
fn lint(log: &str, rootfs: &str) -> Findings {
    let mut findings = Findings::default();
    let mut seen = HashSet::new();
    let mut done = HashSet::new();
    let mut first = None;
    let (mut pivoted, mut mounted) = (false, false);
    let below = format!("{rootfs}/");
    for line in log.lines() {
        let Some((pid, call)) = line.split_once(' ') else { continue };
        let call = call.trim_start();
        let first = *first.get_or_insert(pid);
        if done.contains(pid)
            || call.starts_with("+++")
            || call.starts_with("---")
            || call.starts_with("<...")
        {
            continue;
        }
        seen.insert(pid);
        findings.syscalls += 1;
        if call.starts_with("execve") && call.contains(MARK) && !call.contains(" = -1") && pid != first {
            done.insert(pid);
            continue;
        }
        // What readlink answers is no path that was looked up.
        let answer = call.starts_with("readlink");
        if !pivoted && !answer && strings(call).any(|s| s.starts_with(&below) || s.starts_with("rootfs/")) {
            findings.broken.push(format!("a path string into the rootfs before pivot_root: {line}"));
        }
        if mounted && pid != first && opens_proc_by_path(call) {
            findings.broken.push(format!("/proc by path after a mount: {line}"));
        }
        pivoted |= call.starts_with("pivot_root(");
        mounted |= is_mount(call);
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

fn traced(command: &str) -> Findings {
    let t = Test::new("trace");
    t.edit(|c| c["process"]["args"] = serde_json::json!(["echo", MARK]));
    let log = t.dir.join("strace");
    let strace = ["strace", "-f", "-s", "4096", "-o", log.to_str().unwrap()];
    let running = t.bundle_command(command, &[]).under(&strace).spawn();
    if command == "create" {
        // strace stays as long as init, which waits for `start`.
        wait_for("the created container", SECONDS_5 * 2, || {
            let out = t.rt(&["state", &t.id]).go();
            out.stdout().contains("\"status\": \"created\"").then_some(())
        });
        t.end();
        running.wait();
    } else {
        running.wait().ok();
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

#[test]
fn run_of_the_reference_bundle() {
    requires!(root);
    requires!(unfiltered);
    requires!(program "strace");
    check("run");
}

#[test]
fn create_of_the_reference_bundle() {
    requires!(root);
    requires!(unfiltered);
    requires!(program "strace");
    check("create");
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
