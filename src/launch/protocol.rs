//! The words between rrun and the processes that it starts, on one `SOCK_SEQPACKET` pair.
//!
//! ```text
//!  parent (rrun create, run, exec)             child (init, or an exec'd process)
//!  clone3(NEWUSER | NEWPID | PIDFD) ─────────► PDEATHSIG=KILL, unshares the rest
//!  uid_map, gid_map; Go ─────────────────────► only with a new user namespace
//!  cgroups (on v2 it begins in one),          joins namespaces, session, keyring,
//!  limits, network devices                    its root becomes a mount; waits
//!  Cgroups + fds, Sources + fds, Go ─────────► enters those of v1; mounts
//!                                           ◄─ Idmap+fd   only for a source in the container's own tree
//!  maps its ids; Go ─────────────────────────►
//!                                           ◄─ Hooks      only with prestart or createRuntime hooks
//!  runs them; Go ────────────────────────────► createContainer hooks, console
//!                                           ◄─ Console+fd only with a terminal
//!                                              pivot_root, sysctl, masks, user, lookup of args[0];
//!                                              PDEATHSIG off: now the end of file says that the parent died
//!                                           ◄─ Listener   only with SCMP_ACT_NOTIFY, once limits, capabilities
//!                                                         and seccomp are set; the fd's number
//!  pidfd_getfd, sends it on; Go ─────────────►
//!                                              unmaps rrun's file; from here on it is a script (super::last)
//!                                           ◄─ Ready | Fault
//!  state.json says `created`; Committed ─────► accepts on start.sock
//!
//!  rrun start
//!  connects to start.sock; Start ────────────►
//!                                           ◄─ Accepted
//!                                              limits, capabilities, seccomp, startContainer hooks, execve
//!                                           ◄─ Fault, or the end of file that close-on-exec makes
//! ```
//!
//! A `run` says Start in the place of Committed; or Attended, if it has something to do before, and Start on the pair too:
//! if that ends before, init accepts.
//!
//! exec is the same without Hooks, Ready, Committed and Start: an exec'd process has no `created` state. Go is for its
//! relay, and Pid, with a pidfd, says that the relay has made it ([`super::exec`]); where rrun has something to do with
//! the process itself, Go is for that and comes after Pid. A relay of init says Pid before anything else
//! ([`super::relay`]).
//!
//! Everything after Start is on the connection of start.sock, so that whoever starts the container, and not
//! whoever made it, hears of a failed startContainer hook or execve; a fifo, as other runtimes have it, can
//! only say that init went on. Init is the one that accepts, so of two concurrent starts exactly one wins.

#![forbid(unsafe_code)]

use super::fault::{Fault, Step};
use crate::error::{Call as _, Error, Result};
use crate::sys::{self, Named as _};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;

/// Fds in one message; the kernel's most is 253 (SCM_MAX_FD).
pub const FDS_PER_MESSAGE: usize = 128;
/// Bytes of every message.
pub const SIZE: usize = 512;
const CALL: usize = 24;
const HEAD: usize = 12;

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// From a relay: the pid of the process that it made; with a pidfd, if for exec.
    Pid(u32),
    /// Fds of mount sources, by index of the operation; more follow.
    Sources(Vec<u16>),
    /// Fds of the `tasks` files of the cgroups of v1, in the order of the plan.
    Cgroups,
    /// Go on.
    Go,
    /// The hooks of the runtime's namespaces are due.
    Hooks,
    /// The master of the terminal comes with this message.
    Console,
    /// The detached mount with this message, of that operation, is to get its id map.
    Idmap(u16),
    /// Everything that can be done before `start` is done.
    Ready,
    /// The container is on record.
    Committed,
    /// So it is, and Start comes here from who has put it there, if at all.
    Attended,
    /// Execute the process.
    Start,
    /// This start is the one that counts.
    Accepted,
    /// The seccomp notification fd has this number.
    Listener(i32),
    /// It failed.
    Fault(Report),
}

/// A [`Fault`] as received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// What was being done.
    pub step: Step,
    /// Which one.
    pub index: u16,
    /// The call.
    pub call: String,
    /// Its errno.
    pub errno: Errno,
    /// What else there is to say.
    pub note: String,
}

impl From<Fault> for Report {
    fn from(fault: Fault) -> Self {
        let Fault { step, index, call, errno, note } = fault;
        Self { step, index, call: call.to_owned(), errno, note }
    }
}

impl Message {
    /// As it is sent: tag u8, step u8, index u16, value i32, count u32, then text or indices. What does not fit is
    /// cut off.
    pub fn encode(&self) -> [u8; SIZE] {
        let mut out = [0; SIZE];
        let (tag, value) = match self {
            Self::Pid(pid) => (1, *pid as i32),
            Self::Sources(indices) => {
                for (slot, index) in out[HEAD..].chunks_exact_mut(2).zip(indices) {
                    slot.copy_from_slice(&index.to_le_bytes());
                }
                out[8..12].copy_from_slice(&u32::try_from(indices.len()).unwrap_or(0).to_le_bytes());
                (2, 0)
            }
            Self::Go => (3, 0),
            Self::Hooks => (4, 0),
            Self::Console => (5, 0),
            Self::Ready => (6, 0),
            Self::Committed => (7, 0),
            Self::Start => (8, 0),
            Self::Accepted => (9, 0),
            Self::Listener(fd) => (10, *fd),
            Self::Fault(report) => {
                out[1] = report.step as u8;
                out[2..4].copy_from_slice(&report.index.to_le_bytes());
                copy_text(&mut out[HEAD..HEAD + CALL], &report.call);
                copy_text(&mut out[HEAD + CALL..], &report.note);
                (11, report.errno.raw_os_error())
            }
            Self::Idmap(index) => (12, i32::from(*index)),
            Self::Attended => (13, 0),
            Self::Cgroups => (14, 0),
        };
        out[0] = tag;
        out[4..8].copy_from_slice(&value.to_le_bytes());
        out
    }

    /// What was sent; `None` for what no message looks like. The sender may be a container's process.
    pub fn decode(bytes: &[u8; SIZE]) -> Option<Self> {
        let value = i32::from_le_bytes(bytes[4..8].try_into().ok()?);
        Some(match bytes[0] {
            1 => Self::Pid(u32::try_from(value).ok()?),
            2 => {
                let count = u32::from_le_bytes(bytes[8..12].try_into().ok()?) as usize;
                let list = bytes[HEAD..].chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
                Self::Sources(list.take(count).collect())
            }
            3 => Self::Go,
            4 => Self::Hooks,
            5 => Self::Console,
            6 => Self::Ready,
            7 => Self::Committed,
            8 => Self::Start,
            9 => Self::Accepted,
            10 => Self::Listener(value),
            11 => Self::Fault(Report {
                step: Step::from_u8(bytes[1])?,
                index: u16::from_le_bytes([bytes[2], bytes[3]]),
                call: text(&bytes[HEAD..HEAD + CALL]),
                errno: sys::errno(value)?,
                note: text(&bytes[HEAD + CALL..]),
            }),
            12 => Self::Idmap(u16::try_from(value).ok()?),
            13 => Self::Attended,
            14 => Self::Cgroups,
            _ => return None,
        })
    }
}

fn copy_text(into: &mut [u8], from: &str) {
    // A part of a character would come out as another one.
    let end = from.floor_char_boundary(into.len());
    for (slot, byte) in into.iter_mut().zip(from.bytes().take(end)) {
        *slot = byte;
    }
}

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// Sends a message, with fds.
///
/// # Errors
/// EPIPE or ECONNRESET if the other side is gone.
pub fn send(socket: impl AsFd, message: &Message, fds: &[BorrowedFd<'_>]) -> sys::Result<()> {
    let bytes = message.encode();
    if fds.is_empty() {
        return retry(|| rustix::net::send(&socket, &bytes, SendFlags::NOSIGNAL)).named("sendto").map(drop);
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_PER_MESSAGE))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(fds));
    retry(|| rustix::net::sendmsg(&socket, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL))
        .named("sendmsg")
        .map(drop)
}

/// What [`receive`] may also say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    /// The other side closed the socket: it died, or its execve succeeded.
    Closed,
    /// The receive failed, or what came was no message; `ECONNRESET` if the other side closed the socket before it had
    /// read all.
    Broken(Errno),
}

/// Receives a message and its fds.
///
/// # Errors
/// [`Lost`].
pub fn receive(socket: impl AsFd) -> Result<(Message, Vec<OwnedFd>), Lost> {
    receive_with(socket, RecvFlags::empty())
}

/// As [`receive`], for a message that must have come by now.
///
/// # Errors
/// [`Lost`].
pub fn receive_now(socket: impl AsFd) -> Result<(Message, Vec<OwnedFd>), Lost> {
    receive_with(socket, RecvFlags::DONTWAIT)
}

fn receive_with(socket: impl AsFd, flags: RecvFlags) -> Result<(Message, Vec<OwnedFd>), Lost> {
    let mut bytes = [0; SIZE];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_PER_MESSAGE))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut next = || {
        let flags = flags | RecvFlags::CMSG_CLOEXEC;
        retry(|| rustix::net::recvmsg(&socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags))
    };
    let got = match next() {
        // The kernel tells this first, and what the other side said before it closed only then.
        Err(Errno::CONNRESET) => match next() {
            Ok(got) if got.bytes == 0 => return Err(Lost::Broken(Errno::CONNRESET)),
            other => other,
        },
        other => other,
    };
    match got {
        Ok(got) if got.bytes == 0 => return Err(Lost::Closed),
        Ok(got) if got.bytes != SIZE || got.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) => {
            return Err(Lost::Broken(Errno::PROTO));
        }
        Ok(_) => {}
        Err(errno) => return Err(Lost::Broken(errno)),
    }
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            fds.extend(received);
        }
    }
    let message = Message::decode(&bytes).ok_or(Lost::Broken(Errno::PROTO))?;
    Ok((message, fds))
}

/// A connected pair.
///
/// # Errors
/// Those of socketpair(2).
pub fn pair() -> Result<(OwnedFd, OwnedFd)> {
    rustix::net::socketpair(
        rustix::net::AddressFamily::UNIX,
        rustix::net::SocketType::SEQPACKET,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )
    .call(|| "socketpair")
}

/// As [`send`], by write(2), for a process that a filter confines.
///
/// # Errors
/// Those of write(2).
pub fn write(socket: impl AsFd, message: &Message) -> sys::Result<()> {
    retry(|| rustix::io::write(&socket, &message.encode())).named("write").map(drop)
}

/// Repeats a call that a signal interrupted.
pub fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

/// The error of a message that should not have come now.
pub fn unexpected(message: &Message) -> Error {
    Error::new(format!("the container's process sent {message:?} out of turn"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_survives_the_wire() {
        let (a, b) = pair().expect("socketpair");
        let report = Report {
            step: Step::Exec,
            index: 300,
            call: "execve".into(),
            errno: Errno::NOENT,
            note: "e tmpfs: Unknown parameter".into(),
        };
        let messages = [
            Message::Pid(4_194_304),
            Message::Sources(vec![0, 7, 65_535]),
            Message::Go,
            Message::Hooks,
            Message::Console,
            Message::Idmap(65_535),
            Message::Ready,
            Message::Cgroups,
            Message::Committed,
            Message::Attended,
            Message::Start,
            Message::Accepted,
            Message::Listener(9),
            Message::Fault(report),
        ];
        for message in messages {
            send(&a, &message, &[]).expect("send");
            assert_eq!(receive(&b).expect("receive").0, message);
        }
    }

    #[test]
    fn what_was_said_before_a_reset_is_heard() {
        let (a, b) = pair().expect("socketpair");
        send(&a, &Message::Go, &[]).expect("send");
        send(&b, &Message::Ready, &[]).expect("send");
        // Closed before it has read Go.
        drop(b);
        assert_eq!(receive(&a).expect("receive").0, Message::Ready);
        assert_eq!(receive(&a).map(|_| ()), Err(Lost::Closed));
        let (a, b) = pair().expect("socketpair");
        send(&a, &Message::Go, &[]).expect("send");
        drop(b);
        assert_eq!(receive(&a).map(|_| ()), Err(Lost::Broken(Errno::CONNRESET)));
    }

    #[test]
    fn fds_come_with_their_message() {
        let (a, b) = pair().expect("socketpair");
        let many = vec![a.as_fd(); FDS_PER_MESSAGE];
        send(&a, &Message::Sources((0..FDS_PER_MESSAGE as u16).collect()), &many).expect("send");
        let (message, fds) = receive(&b).expect("receive");
        assert_eq!(fds.len(), FDS_PER_MESSAGE);
        assert!(matches!(message, Message::Sources(list) if list.len() == FDS_PER_MESSAGE));
    }

    #[test]
    fn a_closed_socket_and_junk_are_told_apart() {
        let (a, b) = pair().expect("socketpair");
        rustix::net::send(&a, &[1, 2, 3], SendFlags::empty()).expect("send");
        assert_eq!(receive(&b).map(|_| ()), Err(Lost::Broken(Errno::PROTO)));
        // A message with more behind it, which would else be cut off without a word.
        let mut longer = Message::Go.encode().to_vec();
        longer.push(0);
        rustix::net::send(&a, &longer, SendFlags::empty()).expect("send");
        assert_eq!(receive(&b).map(|_| ()), Err(Lost::Broken(Errno::PROTO)));
        drop(a);
        assert_eq!(receive(&b).map(|_| ()), Err(Lost::Closed));
    }

    #[test]
    fn an_errno_that_the_kernel_cannot_give_is_junk() {
        let report =
            |errno| Report { step: Step::Root, index: 0, call: "x".into(), errno, note: String::new() };
        let mut bytes = Message::Fault(report(Errno::IO)).encode();
        for (number, taken) in
            [(1, true), (4095, true), (0, false), (4096, false), (-5, false), (i32::MIN, false)]
        {
            bytes[4..8].copy_from_slice(&i32::to_le_bytes(number));
            assert_eq!(Message::decode(&bytes).is_some(), taken, "{number}");
        }
    }

    #[test]
    fn long_texts_are_cut_and_not_lost() {
        let report = Report {
            step: Step::Rootfs,
            index: 1,
            call: "x".repeat(99),
            errno: Errno::IO,
            note: "é".repeat(999),
        };
        let Some(Message::Fault(back)) = Message::decode(&Message::Fault(report).encode()) else {
            panic!("not a fault");
        };
        assert_eq!(back.call.len(), CALL);
        assert!(back.note.starts_with("éé"));
        for note in ["x".to_owned() + &"é".repeat(999), "\u{fffd}".repeat(999)] {
            let sent = Report { step: Step::Rootfs, index: 1, call: String::new(), errno: Errno::IO, note };
            let Some(Message::Fault(got)) = Message::decode(&Message::Fault(sent.clone()).encode()) else {
                panic!("not a fault");
            };
            assert!(sent.note.starts_with(&got.note) && got.note.len() > 470, "{got:?}");
        }
    }
}
