//! config.json → `Spec` → `Plan`. The input is the text of the file; how many blanks it begins with says for which of
//! the machines in `machine.rs` it is planned.

#![forbid(unsafe_code)]

use super::{machine, report, schema};
use rrun::plan::exec::ExecPlan;
use rrun::plan::rootfs::{RootfsOp, Source};
use rrun::plan::{Plan, Request, annotations, seccomp};
use rrun::spec::Spec;
use rrun::spec::read::document;
use serde_json::Value;
use std::ffi::CStr;

pub fn check(data: &[u8]) {
    let spec = document::<Spec>(data);
    same_in_canonical_form(data, spec.as_ref());
    let mut spec = match spec {
        Ok(spec) => spec,
        Err(text) => {
            report::one_line(&rrun::error::OneLine(&text).to_string(), data.len());
            return report::path(&text, "", data);
        }
    };
    annotations::apply(&mut spec);
    if let Some(process) = spec.process.as_deref()
        && let Err(e) = ExecPlan::build(&spec, "fuzzed", process, false)
    {
        report::config(&e, "config.json", "", data);
    }
    let blanks = data.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
    match (plan(&spec, blanks), plan(&spec, blanks)) {
        (Ok(one), Ok(two)) => {
            same(&one, &two);
            sound(&one);
        }
        (Err(one), Err(two)) => {
            assert_eq!(one.to_string(), two.to_string());
            report::config(&one, "config.json", "", data);
        }
        (one, two) => panic!("planned twice: {one:?} {two:?}"),
    }
}

fn plan(spec: &Spec, blanks: usize) -> rrun::error::Result<Plan> {
    let (host, driver) = machine::machine(blanks % machine::COUNT);
    let request = Request { no_pivot: blanks % 7 == 6, ..machine::request(driver) };
    Plan::build(spec, &request, &host)
}

/// Whatever order, spacing and escapes a text has, it means what its canonical form means.
fn same_in_canonical_form(data: &[u8], spec: Result<&Spec, &String>) {
    // Without a number beyond a float, lone surrogates and their like, which an unknown key may hold.
    let Ok(value) = serde_json::from_slice::<Value>(data) else { return };
    // Of two keys that differ in case the last counts, and the canonical form has another order.
    if schema::repeats(data, &value) {
        return;
    }
    let again = document::<Spec>(value.to_string().as_bytes());
    assert_eq!(spec.ok(), again.as_ref().ok(), "{spec:?} {again:?}");
}

fn same(one: &Plan, two: &Plan) {
    assert_eq!(one.to_string(), two.to_string());
    assert_eq!(one.rootfs.ops, two.rootfs.ops);
    assert_eq!(one.cgroup, two.cgroup);
    assert_eq!(one.seccomp, two.seccomp);
    assert_eq!(one.warnings, two.warnings);
}

/// What must be true of every plan, as the code that follows it trusts in it.
fn sound(plan: &Plan) {
    for op in &plan.rootfs.ops {
        match op {
            RootfsOp::Mount(mount) => {
                inside(&mount.destination);
                assert_ne!(mount.destination.as_bytes(), b"/");
                assert_eq!(mount.attrs.set & mount.attrs.clear & !rrun::plan::rootfs::attr::ATIME, 0);
                if let Source::Bind(bind) = &mount.source {
                    assert!(bind.source.as_bytes().starts_with(b"/"));
                }
            }
            RootfsOp::Device(device) => {
                inside(&device.path);
                assert_eq!(device.mode & !0o7777, 0, "{device:?}");
            }
            RootfsOp::Symlink(link) => inside(&link.path),
        }
    }
    plan.rootfs.masked_paths.iter().chain(&plan.rootfs.readonly_paths).for_each(|path| inside(path));
    for place in &plan.cgroup.places {
        inside_text(&place.path);
    }
    super::update::sound(&plan.cgroup.limits);
    for sysctl in &plan.sysctls.list {
        let bad = |part: &String| part.contains(['/', '\0']) || ["", ".", ".."].contains(&part.as_str());
        assert!(!sysctl.path.is_empty() && !sysctl.path.iter().any(bad), "{sysctl:?}");
    }
    assert!(!plan.process.argv.is_empty() && plan.process.cwd.as_bytes().starts_with(b"/"));
    if let Some(filter) = &plan.seccomp {
        super::seccomp::valid(&filter.program);
        assert_eq!(filter.listener.is_some(), filter.flags & seccomp::NEW_LISTENER != 0);
    }
    for warning in &plan.warnings {
        assert!(!warning.is_empty());
    }
}

/// Absolute, with no part that goes up or nowhere.
fn inside(path: &CStr) {
    inside_text(path.to_str().unwrap());
}

fn inside_text(path: &str) {
    let below = path.strip_prefix('/').unwrap_or_else(|| panic!("{path:?} is not absolute"));
    assert!(path == "/" || below.split('/').all(|part| !["", ".", ".."].contains(&part)), "{path:?}");
}
