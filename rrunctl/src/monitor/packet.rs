//! The words: one JSON object a packet of a SOCK_SEQPACKET socket, with descriptors beside it.

#![forbid(unsafe_code)]

use super::restart::Restart;
use super::{Dns, Port};
use crate::error::{Error, Result};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// How many descriptors go with one packet; the kernel's limit (SCM_MAX_FD) is 253.
pub(super) const FDS: usize = 128;

/// What a client asks. Each is answered by one [`Reply`], `Wait` by a second one when it has come to that.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Request {
    /// From [`super::spawn`]: some of the sockets of the ports come with it.
    Ports,
    /// From [`super::spawn`]: the two sockets of the name server come with it.
    Dns,
    /// From [`super::spawn`]: make the container. Answered by `Created`.
    Begin,
    /// From [`super::adopt`]: take over what a monitor has left that was killed, with the pidfd of init if it lives.
    /// Answered by `Done`.
    Adopt { pid: Option<i32> },
    /// Execute its program.
    Start,
    /// Tell how it ends.
    Wait { until: Until },
    /// The terminal's size.
    Resize { rows: u16, columns: u16 },
    /// Streams; one socket comes with it for all of them, or a second one for standard error.
    Attach { stdin: bool, stdout: bool, stderr: bool, framed: bool },
    /// No policy starts it again.
    StopRestarting,
    /// Another policy.
    Policy { restart: Restart },
    /// What its name server knows.
    Names { dns: Dns },
    /// Its ports are held no longer.
    Release,
    /// Further ports, whose sockets come with it.
    Publish { ports: Vec<Port> },
    /// From now on it has a name server, or another one; its two sockets come with it.
    Serve { dns: Dns },
    /// What it does.
    Status,
}

/// What the monitor says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Reply {
    /// The container waits to be started.
    Created { pid: i32 },
    /// It is done.
    Done,
    /// It has ended.
    Exit(Exit),
    /// What it does.
    Status(Status),
    /// It is not done, and why.
    Error { text: String },
}

/// What a waiter waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Until {
    /// The end of the run that is under way, or of the next one: `next-exit`, and of a container that runs
    /// `not-running`.
    Exit,
    /// That no policy starts it again and [`super::Settings::ended`] is done: `removed`.
    Ended,
}

/// How a run ended: `exit.json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// The exit code, or 128 and the signal.
    pub code: i32,
    /// The signal that killed it.
    pub signal: Option<i32>,
    /// The kernel killed a process of its cgroup for want of memory.
    pub oom: bool,
    /// When its program was executed, RFC 3339; empty if never.
    pub started_at: String,
    /// When it ended, RFC 3339.
    pub finished_at: String,
    /// `RestartCount`.
    pub restarts: u32,
    /// It will be started again.
    pub restarting: bool,
    /// Why it could not be started (again).
    pub error: String,
}

/// What a monitor does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Which part of its life.
    pub phase: Phase,
    /// The container's first process, on the host; 0 if there is none.
    pub pid: i32,
    /// When its program was executed, RFC 3339; empty if it was not.
    pub started_at: String,
    /// `RestartCount`.
    pub restarts: u32,
}

/// Which part of its life a container is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Made, not started.
    Created,
    /// It runs (or is paused: rrun knows).
    Running,
    /// It has ended and is started again by policy.
    Restarting,
    /// It has ended for good, and is taken down.
    Ending,
}

/// Sends `words` with `fds`.
///
/// # Errors
/// Those of sendmsg(2).
pub(super) fn send(
    socket: BorrowedFd<'_>,
    words: &impl Serialize,
    fds: &[BorrowedFd<'_>],
    flags: SendFlags,
) -> Result<()> {
    let bytes = serde_json::to_vec(words).map_err(|e| Error::system(e.to_string()))?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Error::invalid("too many descriptors for one packet"));
    }
    loop {
        match sendmsg(socket, &[IoSlice::new(&bytes)], &mut control, flags | SendFlags::NOSIGNAL) {
            Err(Errno::INTR) => {}
            sent => return sent.map(drop).map_err(Error::from),
        }
    }
}

/// Receives words into `buffer`, with up to `FDS` descriptors; `None` at the end of the connection.
///
/// # Errors
/// Those of recvmsg(2), and packets that are too long or not what is expected.
pub(super) fn receive<T: DeserializeOwned>(
    socket: impl AsFd,
    buffer: &mut [u8],
    flags: RecvFlags,
) -> Result<Option<(T, Vec<OwnedFd>)>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        let mut into = [IoSliceMut::new(buffer)];
        match recvmsg(&socket, &mut into, &mut control, flags | RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => {}
            received => break received?,
        }
    };
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            fds.extend(received);
        }
    }
    if received.bytes == 0 {
        return Ok(None);
    }
    if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(Error::invalid("packet too long"));
    }
    let words = serde_json::from_slice(&buffer[..received.bytes])
        .map_err(|e| Error::invalid(format!("packet not understood: {e}")))?;
    Ok(Some((words, fds)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .expect("socketpair")
    }

    fn next<T: DeserializeOwned>(socket: &OwnedFd) -> Result<Option<(T, Vec<OwnedFd>)>> {
        receive(socket, &mut [0; 200], RecvFlags::DONTWAIT)
    }

    #[test]
    fn a_message_is_one_packet_and_brings_its_descriptors() {
        let (ours, theirs) = pair();
        let attach = Request::Attach { stdin: true, stdout: true, stderr: false, framed: true };
        send(ours.as_fd(), &attach, &[theirs.as_fd(), ours.as_fd()], SendFlags::empty()).expect("send");
        send(ours.as_fd(), &Request::Start, &[], SendFlags::empty()).expect("send");
        let (words, fds) = next::<Request>(&theirs).expect("a packet").expect("no end");
        assert!(matches!(words, Request::Attach { stdin: true, stdout: true, stderr: false, framed: true }));
        assert_eq!(fds.len(), 2);
        drop(fds);
        let (words, fds) = next::<Request>(&theirs).expect("a packet").expect("no end");
        assert!(matches!(words, Request::Start) && fds.is_empty());
        drop(ours);
        assert!(next::<Request>(&theirs).expect("the end").is_none());
    }

    #[test]
    fn packets_that_are_broken_or_too_long_are_errors_and_the_next_one_is_whole() {
        let (ours, theirs) = pair();
        for bytes in [&b"{\"start\":"[..], b"\"fly\"", b"\xff", &[b' '; 300]] {
            rustix::net::send(&ours, bytes, SendFlags::empty()).expect("send");
        }
        send(ours.as_fd(), &Request::Status, &[], SendFlags::empty()).expect("send");
        for _ in 0..4 {
            next::<Request>(&theirs).expect_err("broken");
        }
        assert!(matches!(next(&theirs), Ok(Some((Request::Status, _)))));
    }

    #[test]
    fn the_words_are_what_a_person_would_guess() {
        let words = |request: &Request| serde_json::to_string(request).expect("JSON");
        assert_eq!(words(&Request::Start), r#""start""#);
        assert_eq!(words(&Request::Wait { until: Until::Ended }), r#"{"wait":{"until":"ended"}}"#);
        assert_eq!(
            words(&Request::Resize { rows: 24, columns: 80 }),
            r#"{"resize":{"rows":24,"columns":80}}"#
        );
    }
}
