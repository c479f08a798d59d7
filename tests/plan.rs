//! Golden tests of the decisions: what `rrun plan` prints for `tests/plan/NAME/config.json` stands in
//! `plan.txt` beside it, and in `plan.err` where the bundle is refused. `UPDATE=1` rewrites both: read the
//! difference before it is committed.

use crate::harness::{Test, controller};
use crate::{requires, rrun_only};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

fn cases() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plan")
}

/// The name of the hierarchy that a path under /sys/fs/cgroup begins with, and what follows it.
fn hierarchy(path: &str) -> (&str, &str) {
    path.split_at(path.find(['/', ' ', ')', '"']).unwrap_or(path.len()))
}

/// Removes what differs between machines: which hierarchies there are, where in each the tests run, the
/// bundle's directory, and warnings about capabilities that the tests themselves lack.
fn normalised(text: &str, t: &Test) -> String {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap();
    let own: Vec<_> = own.lines().filter_map(|l| l.splitn(3, ':').nth(2)).filter(|p| *p != "/").collect();
    let mut lines: Vec<String> = Vec::new();
    for line in text.replace(t.bundle.to_str().unwrap(), "BUNDLE").lines() {
        let mut line = line.to_owned();
        // Each hierarchy has a mount of its own in a cgroup namespace, whose options name its controllers.
        if let Some((mount, _)) = line.split_once(" cgroup on /sys/fs/cgroup/") {
            line = format!("{mount} cgroup on /sys/fs/cgroup/*");
        }
        let is_place = ["cgroup /", "bind /sys/fs/cgroup/", " cgroup on "].iter().any(|k| line.contains(k));
        if is_place {
            let mut short = String::new();
            let mut parts = line.split("/sys/fs/cgroup/");
            short += parts.next().unwrap_or_default();
            for part in parts {
                let (_, rest) = hierarchy(part);
                let below = own.iter().find_map(|p| rest.strip_prefix(p)).unwrap_or(rest);
                short += "/sys/fs/cgroup/*";
                short += below;
            }
            line = short;
        }
        let seen = is_place && lines.contains(&line);
        if !seen && !line.contains("this process itself lacks") {
            lines.push(line);
        }
    }
    lines.join("\n") + "\n"
}

/// Compares with the file, or writes it; says what is wrong.
fn golden(file: &Path, got: Option<&str>, wrong: &mut Vec<String>) {
    if std::env::var_os("UPDATE").is_some() {
        match got {
            Some(text) => fs::write(file, text).unwrap(),
            None => drop(fs::remove_file(file)),
        }
        return;
    }
    let want = fs::read_to_string(file).ok();
    if want.as_deref() == got {
        return;
    }
    let (want, got) = (want.unwrap_or_default(), got.unwrap_or_default());
    let only = |a: &str, b: &str, mark: &str| {
        a.lines().filter(|l| !b.lines().any(|m| m == *l)).map(|l| format!("{mark}{l}\n")).collect::<String>()
    };
    let (lost, new) = (only(&want, got, "-"), only(got, &want, "+"));
    let order = if lost.is_empty() && new.is_empty() { "the order differs\n" } else { "" };
    wrong.push(format!("{}\n{lost}{new}{order}", file.display()));
}

#[test]
fn every_plan_is_as_written_down() {
    requires!(root);
    rrun_only!("no peer has plan");
    requires!(controller("memory") && controller("blkio"), "needs cgroup v1");
    requires!(cfg!(target_arch = "x86_64"), "needs x86_64: filters are compiled for the machine");
    let t = Test::new("goldenplan");
    let before = t.rootfs_listing();
    let mut names: Vec<_> = fs::read_dir(cases()).unwrap().map(|e| e.unwrap().path()).collect();
    names.sort();
    assert!(names.len() > 50, "the cases are not where they should be");
    let mut wrong = Vec::new();
    for case in names {
        fs::copy(case.join("config.json"), t.bundle.join("config.json")).unwrap();
        let log = t.dir.join("log");
        let _ = fs::remove_file(&log);
        let flags = ["--log", log.to_str().unwrap(), "--log-format", "json", "plan", "--bundle"];
        let out = t.rt(&flags).arg(&t.bundle).go();
        let refused = case.file_name().unwrap().to_str().unwrap().starts_with("error-");
        let text = fs::read_to_string(&log).unwrap_or_default();
        let message = text.lines().next().and_then(|line| {
            let line: Value = serde_json::from_str(line).unwrap();
            Some(format!("{}\n", line["msg"].as_str()?))
        });
        if refused {
            out.code_is(1);
        } else {
            out.ok();
        }
        let plan = (!refused).then(|| normalised(&out.stdout(), &t));
        golden(&case.join("plan.txt"), plan.as_deref(), &mut wrong);
        golden(&case.join("plan.err"), message.filter(|_| refused).as_deref(), &mut wrong);
    }
    assert!(wrong.is_empty(), "{} (UPDATE=1 rewrites them)", wrong.join("\n"));
    assert_eq!(t.rootfs_listing(), before, "plan has changed the rootfs");
}
