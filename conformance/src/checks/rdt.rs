//! config-linux.md on Intel RDT. Most of it needs hardware that has it, and resctrl mounted.

#![forbid(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{Check, check};
use crate::case::{Case, Container, Verdict, Why, expect, lacks, own};

pub fn checks() -> Vec<Check> {
    vec![
        check("rdt-missing", &["configLinuxIntelRdt.2"], |case| match case.machine().resctrl() {
            Some(_) => lacks("a machine without resctrl"),
            None => case.refuses("intelRdt without resctrl", |config| {
                config["linux"]["intelRdt"] = json!({"closID": "x"})
            }),
        }),
        check("rdt-untouched", &["configLinuxIntelRdt.3"], |case| {
            let root = resctrl(case)?;
            let before = tree(&root);
            let _container = created(case, Value::Null)?;
            expect(tree(&root) == before, "resctrl changed")
        }),
        check(
            "rdt-of-container",
            &[
                "configLinuxIntelRdt.1",
                "configLinuxIntelRdt.10",
                "configLinuxIntelRdt.16",
                "configLinuxIntelRdt.21",
            ],
            |case| {
                let root = resctrl(case)?;
                let container = created(case, json!({"schemata": [schema(&root)?]}))?;
                let group = root.join(&container.id);
                has_task(&group, &container)?;
                container.ended()?;
                container.deleted()?;
                expect(!group.exists(), "the group is still there")
            },
        ),
        check("rdt-root", &["configLinuxIntelRdt.4"], |case| {
            let root = resctrl(case)?;
            let container = created(case, json!({"closID": "/"}))?;
            has_task(&root, &container)
        }),
        check(
            "rdt-schemas",
            &["configLinuxIntelRdt.11", "configLinuxIntelRdt.13", "configLinuxIntelRdt.14"],
            |case| {
                let root = resctrl(case)?;
                let line = schema(&root)?;
                let name = if line.starts_with("MB:") { "memBwSchema" } else { "l3CacheSchema" };
                for rdt in [json!({name: line}), json!({"schemata": [line]})] {
                    let container = created(case, rdt)?;
                    let file = root.join(&container.id).join("schemata");
                    let text = fs::read_to_string(&file).map_err(own(&file))?;
                    expect(
                        text.lines().any(|have| have.trim() == line),
                        format!("schemata: {text:?}, want {line:?}"),
                    )?;
                }
                Ok(())
            },
        ),
        check("rdt-named-made", &["configLinuxIntelRdt.17", "configLinuxIntelRdt.22"], |case| {
            let root = resctrl(case)?;
            let name = format!("conformance-{}", std::process::id());
            let container = created(case, json!({"closID": name, "schemata": [schema(&root)?]}))?;
            has_task(&root.join(&name), &container)?;
            container.ended()?;
            container.deleted()?;
            let kept = root.join(&name).exists();
            let _ = fs::remove_dir(root.join(&name));
            expect(kept, "the group of closID is gone")
        }),
        check(
            "rdt-named-there",
            &[
                "configLinuxIntelRdt.15",
                "configLinuxIntelRdt.18",
                "configLinuxIntelRdt.19",
                "configLinuxIntelRdt.20",
            ],
            |case| {
                let root = resctrl(case)?;
                let name = format!("conformance-there-{}", std::process::id());
                case.refuses("a closID that is not there", |config| {
                    config["linux"]["intelRdt"] = json!({"closID": name})
                })?;
                let group = root.join(&name);
                fs::create_dir(&group).map_err(own(&group))?;
                let judged = there(case, &group, &name);
                let _ = fs::remove_dir(&group);
                judged
            },
        ),
        check(
            "rdt-monitoring",
            &["configLinuxIntelRdt.23", "configLinuxIntelRdt.24", "configLinuxIntelRdt.25"],
            |case| {
                let root = resctrl(case)?;
                let container = created(case, json!({"closID": "/", "enableMonitoring": true}))?;
                let group = root.join("mon_groups").join(&container.id);
                expect(group.is_dir(), format!("there is no {}", group.display()))?;
                container.ended()?;
                container.deleted()?;
                expect(!group.exists(), "the monitoring group is still there")
            },
        ),
    ]
}

fn resctrl(case: &Case) -> Result<PathBuf, Why> {
    case.machine().needs_root()?;
    case.machine().resctrl().map(Path::to_owned).ok_or_else(|| Why::Lacks("needs a mounted resctrl".into()))
}

fn created<'a>(case: &'a Case<'a>, rdt: Value) -> Result<Container<'a>, Why> {
    case.create(&case.bundle(&["/probe", "probe", "wait"], |config| {
        if !rdt.is_null() {
            config["linux"]["intelRdt"] = rdt;
        }
    })?)
}

/// A line that the machine has, so that writing it is always allowed.
fn schema(root: &Path) -> Result<String, Why> {
    let file = root.join("schemata");
    let text = fs::read_to_string(&file).map_err(own(&file))?;
    let line = text.lines().map(str::trim).find(|line| line.starts_with("L3:") || line.starts_with("MB:"));
    line.map(str::to_owned).ok_or_else(|| Why::Lacks("needs L3 or MB in schemata".into()))
}

fn has_task(group: &Path, container: &Container) -> Verdict {
    let file = group.join("tasks");
    let text = fs::read_to_string(&file).map_err(own(&file))?;
    let pid = container.pid()?;
    expect(text.lines().any(|line| line == pid), format!("{} does not have {pid}", file.display()))
}

/// A group that was there before, with the schemas of the root.
fn there(case: &Case, group: &Path, name: &str) -> Verdict {
    let file = group.join("schemata");
    let before = fs::read_to_string(&file).map_err(own(&file))?;
    let container = created(case, json!({"closID": name}))?;
    has_task(group, &container)?;
    let after = fs::read_to_string(&file).map_err(own(&file))?;
    expect(before == after, "schemata was written")?;
    drop(container);
    if !before.lines().any(|line| line.trim().starts_with("L3:")) {
        return Ok(());
    }
    case.refuses("another schema than the group has", |config| {
        config["linux"]["intelRdt"] = json!({"closID": name, "l3CacheSchema": "L3:0=1"});
    })
}

/// The names of the groups, and the text of every schema.
fn tree(root: &Path) -> Vec<(PathBuf, String)> {
    let groups = fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut all: Vec<_> = groups
        .chain([root.to_owned()])
        .map(|group| (group.clone(), fs::read_to_string(group.join("schemata")).unwrap_or_default()))
        .collect();
    all.sort();
    all
}
