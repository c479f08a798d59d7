//! `spec`, `features`, `plan` and `check`: what could be done, without doing it.

#![forbid(unsafe_code)]

use super::print;
use crate::check::Report;
use crate::cli::help::COMMIT;
use crate::cli::{Check, Create, Global, Plan, Spec};
use crate::default_spec::{self, Rootless};
use crate::error::{Call as _, Error, Result};
use crate::features::{Features, Tables};
use crate::plan::seccomp;
use rustix::fs::{Mode, OFlags};
use serde::Serialize;
use std::io::Write;
use std::path::Path;

/// `spec`: writes a config.json to start from.
///
/// # Errors
/// A file of that name exists.
#[inline(never)]
pub fn spec(args: &Spec) -> Result<u8> {
    let rootless = args.rootless.then(|| Rootless {
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
    });
    let v2 = crate::cgroup::layout::Layout::read().is_ok_and(|layout| layout.is_v2());
    let name = args.config.as_deref().unwrap_or_else(|| Path::new("config.json"));
    let path = args.bundle.as_deref().unwrap_or_else(|| Path::new("")).join(name);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = match rustix::fs::open(&path, flags, Mode::from_raw_mode(0o666)) {
        Err(rustix::io::Errno::EXIST) => {
            return Err(Error::new(format!("File {} exists. Remove it first", path.display())));
        }
        other => other.call(|| format!("open {}", path.display()))?,
    };
    std::fs::File::from(file)
        .write_all(default_spec::text(rootless, v2).as_bytes())
        .call(|| format!("write {}", path.display()))?;
    Ok(0)
}

/// `features`.
///
/// # Errors
/// Those of standard output.
#[inline(never)]
pub fn features(out: &mut dyn Write) -> Result<u8> {
    let actions: Vec<_> = seccomp::ACTIONS.iter().map(|(name, _)| *name).collect();
    let flags: Vec<_> = seccomp::FLAGS.iter().map(|(name, _)| *name).collect();
    let operators: Vec<_> = seccomp::operators().collect();
    let archs: Vec<_> = seccomp::archs().collect();
    let tables = Tables {
        mount_options: &crate::plan::rootfs::OPTIONS,
        seccomp_actions: &actions,
        seccomp_operators: &operators,
        seccomp_archs: &archs,
        seccomp_flags: &flags,
    };
    indented(&Features::new(&tables, env!("CARGO_PKG_VERSION"), COMMIT), out)
}

fn indented(value: &impl Serialize, out: &mut dyn Write) -> Result<u8> {
    let mut text = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut text, formatter);
    value.serialize(&mut serializer).map_err(|e| Error::new(format!("JSON: {e}")))?;
    text.push(b'\n');
    print(out, &String::from_utf8_lossy(&text))
}

/// `plan`: the decisions for a bundle, a line each.
///
/// # Errors
/// Those that `create` would have over config.json.
#[inline(never)]
pub fn plan(global: &Global, args: &Plan, out: &mut dyn Write) -> Result<u8> {
    let create = Create {
        id: args.id.clone().unwrap_or_else(|| "plan".to_owned()),
        bundle: args.bundle.clone(),
        config: args.config.clone(),
        ..Create::default()
    };
    crate::cli::id(&create.id)?;
    let text = super::create::plan(global, &create)?.to_string();
    if args.json {
        let lines: Vec<&str> = text.lines().collect();
        return indented(&serde_json::json!({ "id": create.id, "decisions": lines }), out);
    }
    print(out, &text)
}

/// `check`.
///
/// # Errors
/// Those of standard output.
#[inline(never)]
pub fn check(args: &Check, out: &mut dyn Write) -> Result<u8> {
    let report: Report = crate::check::run();
    if args.json { indented(&report, out) } else { print(out, &report.to_string()) }
}
