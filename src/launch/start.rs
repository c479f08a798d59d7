//! The side of `start`: tells the waiting init to go on and hears what becomes of it.

#![forbid(unsafe_code)]

use super::fault::Step;
use super::protocol::{self, Lost, Message, Report};
use crate::error::{Call as _, Context as _, Error, Kind, Result};
use crate::state::{Slot, connect};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::io::Errno;

/// How long init may take to answer.
const PATIENCE: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };

/// Why a start came to nothing.
#[derive(Debug)]
pub enum Failed {
    /// The process reports this.
    Reported(Report),
    /// Anything else.
    Other(Error),
}

impl From<Error> for Failed {
    fn from(e: Error) -> Self {
        Self::Other(e)
    }
}

/// Lets init go on; returns once it has executed the process. `attended` is the socket of a `run` ([`Message::Attended`]).
///
/// # Errors
/// Somebody else has started it, or the process could not be executed.
pub fn start(slot: &Slot, attended: Option<OwnedFd>) -> Result<(), Failed> {
    let running = || Error::kind(Kind::State, "cannot start an already running container");
    let socket = match attended.map_or_else(|| connect(slot), Ok) {
        Ok(socket) => socket,
        Err(e) if matches!(e.errno, Errno::NOENT | Errno::CONNREFUSED) => return Err(running().into()),
        Err(e) => return Err(Error::from(e).context("start.sock").into()),
    };
    match protocol::send(&socket, &Message::Start, &[]) {
        // It may have said why before it closed its end.
        Err(e) if matches!(e.errno, Errno::PIPE | Errno::CONNRESET) => {}
        sent => sent.context(|| "tell init to start")?,
    }
    // An init that waits answers at once; one that was stopped by a signal, never.
    let mut ready = [PollFd::new(&socket, PollFlags::IN)];
    if protocol::retry(|| poll(&mut ready, Some(&PATIENCE))).call(|| "poll")? == 0 {
        return Err(Error::new("container init does not answer").remedy("is it stopped by a signal?").into());
    }
    match protocol::receive(&socket) {
        Ok((Message::Accepted, _)) => {}
        Ok((Message::Fault(report), _)) => return Err(Failed::Reported(report)),
        // Init has accepted another start and closed the socket behind it.
        Ok(_) | Err(Lost::Closed | Lost::Broken(Errno::CONNRESET)) => return Err(running().into()),
        Err(Lost::Broken(e)) => return Err(Error::sys("recvmsg", e).context("hear from init").into()),
    }
    match protocol::receive(&socket) {
        Ok((Message::Fault(report), _)) => Err(Failed::Reported(report)),
        Ok((other, _)) => Err(protocol::unexpected(&other).into()),
        Err(Lost::Closed) => {
            crate::log::debug(|| "init: closing the pipe to signal completion");
            slot.started();
            Ok(())
        }
        Err(Lost::Broken(e)) => Err(Error::sys("recvmsg", e).context("hear from init").into()),
    }
}

/// Whether the container must be destroyed, and not merely be stopped (runtime.md, "Lifecycle", step 8).
pub fn is_fatal(report: &Report) -> bool {
    report.step == Step::StartContainerHook
}
