//! Starting processes in containers: who forks, who waits for whom, and who says what went wrong.
//!
//! [`parent`] is rrun's side, [`init`] and [`exec`] are the two kinds of child, each one flat function up to its
//! [`last`] steps; what both do is in [`steps`]. The words between the sides are in [`protocol`]. The parent and the child
//! hold the same plan, as the child is a copy of the parent, so that a failure crosses as numbers
//! ([`fault`]) and is worded by the parent ([`words`]).

#![forbid(unsafe_code)]

mod diagnose;
pub mod exec;
pub mod fault;
pub mod init;
pub mod last;
pub mod parent;
pub mod protocol;
pub mod relay;
pub mod start;
pub mod steps;
pub mod words;

pub use fault::{At, Fault, Step};

use crate::plan::Kind;
use crate::sys::launch::{Cloned, clone3};
use crate::sys::{self, Named as _, SysError};
use protocol::{Lost, Message};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsRawFd as _, BorrowedFd, OwnedFd, RawFd};
use rustix::io::Errno;

/// What a child has of its parent beside the plan.
#[derive(Debug)]
pub struct Child {
    /// Its end of the socket.
    pub socket: OwnedFd,
    /// The kinds of namespaces that it makes itself (`CLONE_NEW*`).
    pub unshares: u32,
    /// Namespaces that it joins itself.
    pub joins: Vec<(Kind, OwnedFd)>,
    /// pidfd of the container's init, for exec.
    pub target: Option<OwnedFd>,
    /// Init's root, for exec where the mount namespace has another.
    pub root: Option<OwnedFd>,
    /// Whether it is a relay, or one has entered the namespaces already.
    pub relayed: bool,
    /// Whether it leaves rrun's file behind; if not, that has been done.
    pub forgets: bool,
    /// How many fds from 3 on the caller hands to the process.
    pub preserve: u32,
    /// The signals that rrun or its caller ignores: what is ignored stays so through execve.
    pub ignored: u64,
}

/// Makes a process in this cgroup of v2, so that it never is without the limits, and says whether it is there.
///
/// The kernel refuses for many reasons: it is older than 5.7, the cgroup is threaded or has controllers enabled for
/// its children, its limit on processes is reached, which writing to cgroup.procs passes over. Where it does not even
/// make the process elsewhere, that is the error.
///
/// # Errors
/// Those of clone3(2).
pub fn clone_into(flags: u32, cgroup: Option<BorrowedFd<'_>>) -> sys::Result<(Cloned, bool)> {
    if cgroup.is_some()
        && let Ok(cloned) = clone3(flags, cgroup)
    {
        return Ok((cloned, true));
    }
    clone3(flags, None).map(|cloned| (cloned, false))
}

/// Whether the process behind a pidfd has ended.
fn has_ended(pidfd: &OwnedFd) -> sys::Result<bool> {
    let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    protocol::retry(|| poll(&mut fds, Some(&now))).named("poll").map(|ready| ready > 0)
}

impl Child {
    /// The fds that must stay open for now; beside them a container's process has none.
    pub fn keep(&self) -> Vec<RawFd> {
        let mut keep = vec![0, 1, 2, self.socket.as_raw_fd()];
        keep.extend(self.joins.iter().map(|(_, fd)| fd.as_raw_fd()));
        keep.extend(self.target.iter().chain(&self.root).map(|fd| fd.as_raw_fd()));
        keep.extend((0..self.preserve).filter_map(|i| RawFd::try_from(i + 3).ok()));
        keep
    }

    /// The first steps: to die with the parent, and to hold nothing that is not needed.
    ///
    /// # Errors
    /// Those of prctl(2).
    pub fn begin(&self, keep: &[RawFd]) -> Result<(), Fault> {
        sys::task::set_parent_death_signal(libc::SIGKILL).at(Step::Protocol)?;
        sys::launch::default_signals(self.ignored).at(Step::Protocol)?;
        sys::launch::close_all_but(keep).at(Step::Protocol)
    }

    /// The next message. A parent that is gone has been killed: nobody is left to hear of it.
    ///
    /// # Errors
    /// A broken message.
    pub fn receive(&self) -> Result<(Message, Vec<OwnedFd>), Fault> {
        match protocol::receive(&self.socket) {
            Ok(got) => Ok(got),
            Err(Lost::Closed) => sys::launch::exit_now(1),
            Err(Lost::Broken(errno)) => Err(SysError { call: "recvmsg", errno }).at(Step::Protocol),
        }
    }

    /// Waits for this very message.
    ///
    /// # Errors
    /// Any other message.
    pub fn expect(&self, message: &Message) -> Result<(), Fault> {
        match self.receive()? {
            (got, _) if got == *message => Ok(()),
            _ => Err(SysError { call: "recvmsg", errno: Errno::PROTO }).at(Step::Protocol),
        }
    }

    /// Says something and waits for Go.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn ask(&self, message: &Message) -> Result<(), Fault> {
        self.ask_with(message, &[])
    }

    /// As [`Child::ask`], with fds.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn ask_with(&self, message: &Message, fds: &[BorrowedFd<'_>]) -> Result<(), Fault> {
        protocol::send(&self.socket, message, fds).at(Step::Protocol)?;
        self.expect(&Message::Go)
    }

    /// Becomes the ids 0 of the user namespace, so that what is made belongs to the container's root.
    ///
    /// # Errors
    /// Those of setresuid(2).
    pub fn become_root_inside(&self) -> Result<(), Fault> {
        sys::task::setresgid(0).at(Step::User)?;
        sys::task::setresuid(0).at(Step::User)?;
        // The change of ids has cleared it.
        sys::task::set_parent_death_signal(libc::SIGKILL).at(Step::Protocol)
    }
}

/// A hook's failure has a text of its own, which travels as the note.
fn hook_fault(step: Step, result: crate::error::Result<()>) -> Result<(), Fault> {
    result.map_err(|e| Fault {
        step,
        index: 0,
        call: "hook",
        errno: e.errno().unwrap_or(Errno::CANCELED),
        note: e.to_string(),
    })
}
