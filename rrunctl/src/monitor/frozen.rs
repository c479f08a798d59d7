//! A container that is frozen while somebody looks at its files, and who thaws it when they were killed.
//!
//! ```text
//!  rrunctl ── spawn ─► rrunmon --frozen rrun … ID
//!     │                   │  rrun pause ID
//!     │ ◄── "\n" ─────────┤
//!     │                   │  reads, until nobody holds the other end
//!     └─ done, or killed ─┤  rrun resume ID
//! ```

#![forbid(unsafe_code)]

use super::last_error;
use crate::error::{Context as _, Error, Result};
use crate::home::Lock;
use crate::sys::{self, Signals};
use std::ffi::{OsStr, OsString};
use std::io::{self, Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};

/// What tells this process from a monitor.
const WORD: &str = "--frozen";

/// A container that is frozen until this is dropped, or until this process ends.
#[derive(Debug)]
pub struct Frozen {
    freezer: Child,
    runtime: Vec<OsString>,
    id: OsString,
}

impl Frozen {
    /// Freezes the container `id`, which is locked by `lock`, by `runtime`, rrun and its global options; `monitor` is
    /// rrunmon.
    ///
    /// # Errors
    /// rrun's words.
    pub fn new(monitor: &Path, runtime: &[String], id: &str, lock: &Lock) -> Result<Self> {
        let mut command = Command::new(monitor);
        // Who comes when this process was killed waits until the container is thawed.
        sys::hand_on(&mut command, lock);
        let mut child = command
            .arg(WORD)
            .args(runtime)
            .arg(id)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // What a terminal's keys send is not for it.
            .process_group(0)
            .spawn()
            .context(|| format!("execute {}", monitor.display()))?;
        let told = child.stdout.as_mut().is_some_and(|stdout| stdout.read_exact(&mut [0]).is_ok());
        if told {
            let runtime = runtime.iter().map(OsString::from).collect();
            return Ok(Self { freezer: child, runtime, id: id.into() });
        }
        let output = child.wait_with_output().context(|| "wait for rrunmon")?;
        let text = String::from_utf8_lossy(&output.stderr);
        Err(Error::system(last_error(&text).unwrap_or_else(|| text.trim().to_owned())))
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        drop(self.freezer.stdin.take());
        // Where that one was killed itself, nobody else would do it.
        if !self.freezer.wait().is_ok_and(|status| status.success()) {
            let _ = rrun(&self.runtime, "resume", &self.id, Stdio::null());
        }
    }
}

/// Whether this process was started to freeze a container.
pub fn is_freezer(word: &OsStr) -> bool {
    word == WORD
}

/// Freezes the container that the last of `words` names by the runtime that the others are, and thaws it at the end of
/// standard input.
pub fn freeze(words: impl Iterator<Item = OsString>) -> ExitCode {
    let mut runtime: Vec<_> = words.collect();
    let Some(id) = runtime.pop() else { return ExitCode::from(2) };
    // Whoever tells all processes to end thaws the container by ending the one that has the other end. rrun has them
    // blocked too: neither is ended half-way.
    let _signals = Signals::take(1..=64);
    match rrun(&runtime, "pause", &id, Stdio::inherit()) {
        Ok(status) if status.success() => {}
        // It thaws what it could not freeze.
        Ok(status) if status.code().is_some() => return ExitCode::FAILURE,
        // It was killed, or that is not known.
        _ => {
            let _ = rrun(&runtime, "resume", &id, Stdio::null());
            return ExitCode::FAILURE;
        }
    }
    let _ = io::stdout().write_all(b"\n").and_then(|()| io::stdout().flush());
    let _ = io::copy(&mut io::stdin(), &mut io::sink());
    let thawed = rrun(&runtime, "resume", &id, Stdio::null());
    if thawed.is_ok_and(|status| status.success()) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn rrun(runtime: &[OsString], command: &str, id: &OsStr, errors: Stdio) -> io::Result<ExitStatus> {
    let (program, options) = runtime.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let mut rrun = Command::new(program);
    rrun.args(options).args(["--log-format", "json", command]).arg(id);
    rrun.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors).status()
}
