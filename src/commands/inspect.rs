//! `state`, `list` and `ps`: what is there.

#![forbid(unsafe_code)]

use super::print;
use crate::cli::{Global, List, OutputFormat, Ps};
use crate::container::{self, Container};
use crate::error::{Call as _, Context as _, Error, Kind, Result};
use crate::oci_state::Listed;
use crate::state::Root;
use crate::sys::spawn::{Program, spawn};
use rustix::fd::AsFd as _;
use rustix::fs::{Mode, OFlags};
use std::ffi::CString;
use std::fmt::Write as _;
use std::io::Write;

/// `state ID`.
///
/// # Errors
/// `container does not exist`.
#[inline(never)]
pub fn state(global: &Global, id: &str, out: &mut dyn Write) -> Result<u8> {
    let listed = listed(Container::open(global.root.as_deref(), id)?)?;
    let text = serde_json::to_string_pretty(&listed).map_err(json)?;
    print(out, &text)
}

fn json(e: serde_json::Error) -> Error {
    Error::new(format!("JSON: {e}"))
}

fn listed(container: Container) -> Result<Listed> {
    let status = container.status()?;
    let owner = user_name(container.record.owner);
    Ok(Listed::new(container.record, status, owner))
}

/// A user's name on the host, empty if it has none; runc reads /etc/passwd too and no other source.
fn user_name(uid: u32) -> String {
    let text = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let line = text.lines().find(|line| line.split(':').nth(2).is_some_and(|id| id.parse() == Ok(uid)));
    line.and_then(|line| line.split(':').next()).unwrap_or_default().to_owned()
}

/// `list`.
///
/// # Errors
/// A root that was named and cannot be read; the default one need not exist.
#[inline(never)]
pub fn list(global: &Global, args: &List, out: &mut dyn Write) -> Result<u8> {
    let path = container::root(global.root.as_deref())?;
    let ids = match Root::open(&path) {
        Ok(root) => root.ids()?,
        Err(e) if global.root.is_none() && e.errno() == Some(rustix::io::Errno::NOENT) => Vec::new(),
        Err(e) => return Err(e),
    };
    if args.quiet {
        return print(out, &ids.iter().fold(String::new(), |text, id| text + id + "\n"));
    }
    let mut found = Vec::new();
    for id in ids {
        let one = Container::open(Some(&path), &id).and_then(|container| {
            let owner = container.record.owner;
            Ok((owner, listed(container)?))
        });
        match one {
            Ok(one) => found.push(one),
            // Deleted since its name was read (runc #4231), or no container's directory.
            Err(e) if e.what() == Kind::NoContainer || e.what() == Kind::Usage => {}
            Err(e) => crate::log::warning(e),
        }
    }
    match args.format {
        // null for none, as Go prints an empty list and its readers expect.
        OutputFormat::Json if found.is_empty() => print(out, "null"),
        OutputFormat::Json => {
            let list: Vec<_> = found.into_iter().map(|(_, listed)| listed).collect();
            print(out, &serde_json::to_string(&list).map_err(json)?)
        }
        OutputFormat::Table => {
            let mut rows = vec![["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned)];
            rows.extend(found.into_iter().map(|(uid, listed)| {
                let name = user_name(uid);
                listed.row(if name.is_empty() { format!("#{uid}") } else { name }.as_str())
            }));
            print(out, &table(&rows))
        }
    }
}

/// Columns at least 12 wide with 3 blanks between them, as runc's.
fn table(rows: &[[String; 6]]) -> String {
    let mut widths = [12; 6];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count() + 3);
        }
    }
    let mut text = String::new();
    for row in rows {
        for (i, (cell, width)) in row.iter().zip(widths).enumerate() {
            let _ = match i {
                5 => writeln!(text, "{cell}"),
                _ => write!(text, "{cell:width$}"),
            };
        }
    }
    text
}

/// `ps`.
///
/// # Errors
/// No ps(1) on the host, or one whose output has no column PID.
#[inline(never)]
pub fn ps(global: &Global, args: &Ps, out: &mut dyn Write) -> Result<u8> {
    let container = Container::open(global.root.as_deref(), &args.id)?;
    let pids = container.cgroup().procs()?;
    if args.format == OutputFormat::Json {
        return print(out, &serde_json::to_string(&pids).map_err(json)?);
    }
    let text = run_ps(&args.args).context(|| "ps")?;
    let mut lines = text.lines();
    let header = lines.next().unwrap_or_default();
    let column = header
        .split_ascii_whitespace()
        .position(|name| name == "PID")
        .ok_or_else(|| Error::new("ps: its output has no column PID"))?;
    let mut shown = format!("{header}\n");
    for line in lines {
        let pid = line.split_ascii_whitespace().nth(column).and_then(|field| field.parse::<u32>().ok());
        if pid.is_some_and(|pid| pids.contains(&pid)) {
            shown.push_str(line);
            shown.push('\n');
        }
    }
    print(out, &shown)
}

fn run_ps(args: &[String]) -> Result<String> {
    let default = ["-ef".to_owned()];
    let args = if args.is_empty() { &default[..] } else { args };
    // containerd gives all arguments as one word.
    let words = args.iter().flat_map(|arg| arg.split_ascii_whitespace());
    let argv: Vec<CString> =
        std::iter::once("ps").chain(words).filter_map(|arg| CString::new(arg).ok()).collect();
    let path = [c"/usr/bin/ps", c"/bin/ps", c"/usr/local/bin/ps"]
        .into_iter()
        .find(|path| rustix::fs::stat(*path).is_ok())
        .ok_or_else(|| Error::new("not installed").remedy("install procps, or use --format json"))?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .call(|| "open /dev/null")?;
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).call(|| "pipe2")?;
    let env = crate::hooks::own_environment();
    let stderr = rustix::stdio::stderr();
    let fds = [null.as_fd(), write.as_fd(), stderr];
    let mut child = spawn(&Program { path, argv: &argv, envp: &env, cwd: None, fds: &fds, group: false })?;
    drop(write);
    let text = crate::file::read_to_end(read).call(|| "read")?;
    let end = child.wait()?;
    if !end.success() {
        return Err(Error::new(end.to_string()));
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}
