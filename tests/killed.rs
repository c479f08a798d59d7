//! A sample of what a SIGKILL of rrun leaves: `create` is killed at points spread over its system calls; then
//! the container has a state of the specification or is unknown, `delete --force` succeeds and leaves nothing,
//! and the id can be used again. The whole sweep is not for every run of the suite.

use crate::harness::{SECONDS_5, Test, wait_for};
use crate::{requires, rrun_only};
use serde_json::Value;
use std::collections::HashMap;
use std::fs;

const POINTS: usize = 12;

/// The system calls of rrun itself, each with how often it was called until then: `(name, n)` is what
/// strace's `when=` wants, and means the same place in every run, unlike a number over all calls.
fn calls(t: &Test) -> Vec<(String, u32)> {
    let log = t.dir.join("clean");
    let strace = ["strace", "-o", log.to_str().unwrap()];
    t.bundle_command("create", &[]).under(&strace).go().ok();
    t.end();
    let mut counts: HashMap<String, u32> = HashMap::new();
    let text = fs::read_to_string(log).unwrap();
    let names = text.lines().filter_map(|line| Some(line.split_once('(')?.0));
    let known = names.filter(|name| name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'));
    known
        .map(|name| {
            let count = counts.entry(name.to_owned()).or_insert(0);
            *count += 1;
            (name.to_owned(), *count)
        })
        .collect()
}

#[test]
fn a_killed_create_can_be_cleaned_up() {
    requires!(root);
    requires!(program "strace");
    rrun_only!("runc 1.1 leaves cgroups behind that its delete does not find");
    let t = Test::new("killed");
    t.sh("exec sleep 1000");
    let all = calls(&t);
    assert!(all.len() > POINTS, "{all:?}");
    // From after the execve to the last call, exit_group.
    let points = (1..=POINTS).map(|i| &all[i * (all.len() - 1) / POINTS]);
    let log = t.dir.join("killed");
    for (name, n) in points {
        let at = format!("{name} #{n}");
        let inject = format!("inject={name}:signal=KILL:when={n}");
        let strace = ["strace", "-o", log.to_str().unwrap(), "-e", &inject];
        let out = t.bundle_command("create", &[]).under(&strace).go();
        assert_eq!(out.signal, Some(9), "{at} was not reached: {out:?}");
        let state = t.rt(&["state", &t.id]).go();
        if state.code == Some(0) {
            let state: Value = serde_json::from_str(&state.stdout()).unwrap();
            let status = state["status"].as_str().unwrap();
            assert!(["creating", "created", "stopped"].contains(&status), "{at}: {status}");
        } else {
            state.fails("does not exist");
        }
        t.rt(&["list"]).go().ok();
        let delete = t.rt(&["delete", "--force", &t.id]).go();
        assert_eq!((delete.code, delete.stderr().as_str()), (Some(0), ""), "{at}");
        t.nothing_left();
        t.create();
        wait_for("created", SECONDS_5, || (t.status() == "created").then_some(()));
        t.end();
    }
}
