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

/// How a `run` starts what it has made: on the pair.
#[derive(Debug)]
pub struct Attended {
    /// Its end.
    pub socket: OwnedFd,
    /// Whether Start has been said already.
    pub started: bool,
}

/// Lets init go on, unless that has been said; returns once it has executed the process.
///
/// # Errors
/// Somebody else has started it, or the process could not be executed.
pub fn start(slot: &Slot, attended: Option<Attended>) -> Result<(), Failed> {
    let running = || Error::kind(Kind::State, "cannot start an already running container");
    let connected = || connect(slot).map(|socket| Attended { socket, started: false });
    let Attended { socket, started } = match attended.map_or_else(connected, Ok) {
        Ok(attended) => attended,
        Err(e) if matches!(e.errno, Errno::NOENT | Errno::CONNREFUSED) => return Err(running().into()),
        Err(e) => return Err(Error::from(e).context("start.sock").into()),
    };
    match if started { Ok(()) } else { protocol::send(&socket, &Message::Start, &[]) } {
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
