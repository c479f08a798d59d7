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
use crate::sys::Signals;
use std::ffi::{OsStr, OsString};
use std::io::{Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};

/// What tells this process from a monitor.
const WORD: &str = "--frozen";

/// A container that is frozen until this is dropped, or until this process ends.
#[derive(Debug)]
pub struct Frozen(Child);

impl Frozen {
    /// Freezes the container `id` by `runtime`, rrun and its global options; `monitor` is rrunmon.
    ///
    /// # Errors
    /// rrun's words.
    pub fn new(monitor: &Path, runtime: &[String], id: &str) -> Result<Self> {
        let mut child = Command::new(monitor)
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
            return Ok(Self(child));
        }
        let output = child.wait_with_output().context(|| "wait for rrunmon")?;
        let text = String::from_utf8_lossy(&output.stderr);
        Err(Error::system(last_error(&text).unwrap_or_else(|| text.trim().to_owned())))
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
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
    let (Some(id), Some((program, options))) = (runtime.pop(), runtime.split_first()) else {
        return ExitCode::from(2);
    };
    // Whoever tells all processes to end thaws the container by ending the one that has the other end. What is taken is
    // not taken from rrun.
    let _signals = Signals::take(1..=64);
    let run = |command: &str, errors: Stdio| {
        let words = ["--log-format", "json", command];
        let mut rrun = Command::new(program);
        rrun.args(options).args(words).arg(&id).stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors);
        rrun.status().is_ok_and(|status| status.success())
    };
    if !run("pause", Stdio::inherit()) {
        return ExitCode::FAILURE;
    }
    let _ = std::io::stdout().write_all(b"\n").and_then(|()| std::io::stdout().flush());
    let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
    if run("resume", Stdio::null()) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
