//! The program of `--init`: process 1 of a container, which hands on signals and waits for orphans.
//!
//! It is rrunmon's file under another name, bound to /sbin/docker-init, so that it is there on every machine and needs
//! nothing of the image.

#![forbid(unsafe_code)]

use crate::sys::{self, Signals};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, Signal, WaitOptions, kill_process_group, wait};
use std::ffi::OsString;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Command, ExitCode};

/// Whether this process was started as an init.
pub fn is_init(name: &OsString) -> bool {
    name.as_encoded_bytes().rsplit(|byte| *byte == b'/').next() == Some(b"docker-init")
}

/// Runs `words` as the only child that counts, and ends as it does.
pub fn init(words: impl Iterator<Item = OsString>) -> ExitCode {
    let mut words = words.skip_while(|word| word == "--");
    let Some(program) = words.next() else { return complain("no command", 1) };
    let signals = match Signals::take(1..=64) {
        Ok(signals) => signals,
        Err(e) => return complain(&format!("take signals: {e}"), 1),
    };
    // A group of its own: what the terminal's keys send is for it and its children, and not for this process twice.
    let mut child = Command::new(&program);
    child.args(words).process_group(0);
    signals.left_to(&mut child);
    let child = match child.spawn() {
        Ok(child) => child,
        Err(e) => {
            let code = if e.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 };
            return complain(&format!("exec {} failed: {e}", program.display()), code);
        }
    };
    let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) else { return ExitCode::FAILURE };
    if rustix::termios::tcsetpgrp(rustix::stdio::stdin(), pid).is_ok() {
        // It may have read before, and been stopped for it.
        let _ = kill_process_group(pid, Signal::CONT);
    }
    loop {
        while let Some(signal) = signals.next() {
            if i32::from(signal) != Signal::CHILD.as_raw() {
                let _ = sys::kill(pid, signal);
            }
        }
        while let Ok(Some((ended, status))) = wait(WaitOptions::NOHANG) {
            if ended == pid {
                let status = std::process::ExitStatus::from_raw(status.as_raw());
                let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
                return ExitCode::from(u8::try_from(code).unwrap_or(255));
            }
        }
        let _ = poll(&mut [PollFd::new(&signals, PollFlags::IN)], None);
    }
}

fn complain(text: &str, code: u8) -> ExitCode {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "docker-init: {text}");
    ExitCode::from(code)
}
