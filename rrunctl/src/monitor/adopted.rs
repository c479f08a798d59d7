//! The first process of a container that was made by another monitor, which was killed: a child of somebody else.
//!
//! It is watched by a pidfd. wait(2) is its parent's, and how it ended is seen in two other ways: before its parent has
//! waited for it in `/proc/PID/stat`, and after that in what the kernel keeps for pidfds since Linux 6.15. On an older one
//! a parent that is faster is all that has seen it.

#![forbid(unsafe_code)]

use super::supervise::End;
use crate::sys;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Pid;
use std::fs;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

/// Somebody else's child.
#[derive(Debug)]
pub(super) struct Adopted {
    pub pid: Pid,
    pidfd: OwnedFd,
}

impl Adopted {
    /// The process `pid`, which `pidfd` is of.
    pub fn new(pid: Pid, pidfd: OwnedFd) -> Self {
        Self { pid, pidfd }
    }

    /// What to wait for.
    pub fn poll<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) {
        fds.push(PollFd::new(&self.pidfd, PollFlags::IN));
    }

    /// How it has ended; nothing while it lives.
    pub fn end(&self) -> Option<End> {
        let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
        match poll(&mut fds, Some(&Timespec::default())) {
            Ok(0) | Err(_) => return None,
            Ok(_) => {}
        }
        let status = self.of_zombie().or_else(|| sys::pidfd_exit(self.pidfd.as_fd()));
        Some(status.map_or(End::Unknown, End::of))
    }

    fn of_zombie(&self) -> Option<i32> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid.as_raw_nonzero())).ok()?;
        let status = exit_code(&stat)?;
        // Nobody has waited for it, so what was read is not of another one that has its pid by now.
        let fdinfo = fs::read_to_string(format!("/proc/self/fdinfo/{}", self.pidfd.as_raw_fd())).ok()?;
        let pid = fdinfo.lines().find_map(|line| line.strip_prefix("Pid:"))?.trim();
        (pid == self.pid.as_raw_nonzero().to_string()).then_some(status)
    }
}

/// The 52nd field of `/proc/PID/stat`, of a zombie. The second one can have spaces and parentheses.
fn exit_code(stat: &str) -> Option<i32> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    (fields.next()? == "Z").then(|| fields.nth(48)?.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{PidfdFlags, pidfd_open};
    use std::process::Command;

    #[test]
    fn how_somebody_elses_child_ended_is_known_before_and_after_it_was_waited_for() {
        for (script, code) in [("read x; exit 7", End::Code(7)), ("read x; kill -9 $$", End::Signal(9))] {
            let mut child = Command::new("/bin/sh")
                .args(["-c", script])
                .stdin(std::process::Stdio::piped())
                .spawn()
                .expect("sh");
            let pid = Pid::from_child(&child);
            let adopted = Adopted::new(pid, pidfd_open(pid, PidfdFlags::empty()).expect("pidfd"));
            assert_eq!(adopted.end(), None);
            drop(child.stdin.take());
            poll(&mut [PollFd::new(&adopted.pidfd, PollFlags::IN)], None).expect("poll");
            assert_eq!((adopted.of_zombie().map(End::of), adopted.end()), (Some(code), Some(code)));
            child.wait().expect("wait");
            assert_eq!(adopted.of_zombie(), None);
            // Linux before 6.15 has forgotten it.
            if sys::pidfd_exit(adopted.pidfd.as_fd()).is_some() {
                assert_eq!(adopted.end(), Some(code));
            } else {
                eprintln!("skipped: how it ended after it was waited for needs Linux 6.15");
                assert_eq!(adopted.end(), Some(End::Unknown));
            }
        }
    }

    #[test]
    fn the_exit_code_is_a_zombies_whatever_its_name_is() {
        let rest = (4..52).map(|n| n.to_string()).collect::<Vec<_>>().join(" ");
        assert_eq!(exit_code(&format!("9 (a) Z 1) Z {rest} 256")), Some(256));
        assert_eq!(exit_code(&format!("9 (a) Z 1) S {rest} 256")), None);
        assert_eq!(exit_code("9 (a) Z 1 2"), None);
        assert_eq!(exit_code(""), None);
    }
}
