//! How many instructions a plan costs, as valgrind counts them: what a loaded machine cannot blur.
//!
//! The counts stand in `budget.txt`. They are of the release binary; another compiler, or a processor for which libc
//! has other functions, changes them by a few in a hundred.

use crate::harness::{Test, runtime};
use crate::{requires, rrun_only};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::Command;

/// In hundredths of the budget.
const TOLERANCE: u64 = 5;

fn instructions(t: &Test) -> u64 {
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(runtime());
    let out = command.args(["plan", "--bundle"]).arg(&t.bundle).output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{said}");
    let count = said.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok());
    count.unwrap_or_else(|| panic!("valgrind says no number: {said}"))
}

fn check(bundle: &str, edit: impl FnOnce(&mut Value)) {
    let t = Test::new("instructions");
    t.edit(edit);
    let count = instructions(&t);
    println!("plan of {bundle}: {count} instructions");
    let row = format!("plan {bundle} ");
    let most =
        include_str!("budget.txt").lines().find_map(|line| line.strip_prefix(&row)?.parse::<u64>().ok());
    let most = most.unwrap_or_else(|| panic!("budget.txt has no {row:?}"));
    assert!(count <= most + most * TOLERANCE / 100, "{bundle}: {count} instructions, the budget is {most}");
    assert!(count >= most - most * 4 * TOLERANCE / 100, "{bundle}: {count} instructions: lower the budget");
}

/// The program itself and not a wrapper, as it is shipped.
macro_rules! measurable {
    () => {
        requires!(root);
        requires!(unfiltered);
        requires!(program "valgrind");
        rrun_only!("the budget is rrun's");
        requires!(!runtime().components().any(|c| c.as_os_str() == "debug"), "needs the release binary");
    };
}

#[test]
fn plan_of_the_reference_bundle() {
    measurable!();
    check("reference", |_| {});
}

#[test]
fn plan_of_dockers_configuration() {
    measurable!();
    let docker = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plan/docker/config.json");
    let docker: Value = serde_json::from_slice(&fs::read(docker).unwrap()).unwrap();
    check("docker", |c| {
        *c = docker;
        c["root"]["path"] = json!("rootfs");
    });
}

#[test]
fn plan_of_two_hundred_mounts() {
    measurable!();
    check("mounts", |c| {
        let mounts = c["mounts"].as_array_mut().unwrap();
        mounts.extend((0..200).map(|n| {
            json!({"destination": format!("/m/{n}"), "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "size=64k"]})
        }));
    });
}

#[test]
fn plan_of_sixty_four_mappings() {
    measurable!();
    check("mappings", |c| {
        let maps: Vec<_> = (0..64)
            .map(|n| json!({"containerID": n * 1000, "hostID": 100_000 + n * 1000, "size": 1000}))
            .collect();
        c["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
        c["linux"]["uidMappings"] = json!(maps);
        c["linux"]["gidMappings"] = json!(maps);
    });
}
