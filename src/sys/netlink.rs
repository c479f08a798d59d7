//! rtnetlink(7) in plain bytes: as much of it as moving a network device takes.
//!
//! A socket belongs to the network namespace in which it was opened, whatever its owner joins later; so two
//! of them are enough to see a device on both sides of the move.

#![allow(unsafe_code)]

use super::{Named, Result, SysError, check};
use rustix::fd::{AsRawFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};
use std::time::Duration;

/// An answer never takes long; a kernel that does not give one must not hang the runtime.
const PATIENCE: Duration = Duration::from_secs(10);

/// A socket of family NETLINK_ROUTE.
#[derive(Debug)]
pub struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

/// What the kernel said about one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// `RTM_*`
    pub kind: u16,
    /// Fixed header of the kind, then attributes.
    pub body: Vec<u8>,
}

impl Netlink {
    /// Opens a socket in the network namespace of this thread.
    ///
    /// # Errors
    /// EAFNOSUPPORT, or a limit on open files.
    pub fn open() -> Result<Self> {
        // No protocol is protocol 0, NETLINK_ROUTE.
        let socket =
            rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)
                .named("socket NETLINK_ROUTE")?;
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(PATIENCE))
            .named("setsockopt SO_RCVTIMEO")?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Opens a socket in another network namespace, going there and back.
    ///
    /// # Errors
    /// EPERM without CAP_SYS_ADMIN in either namespace. If the way back fails, the thread stays there, and
    /// must not go on.
    pub fn open_in(namespace: BorrowedFd<'_>) -> Result<Self> {
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC;
        let here = rustix::fs::open("/proc/thread-self/ns/net", flags, rustix::fs::Mode::empty())
            .named("open /proc/thread-self/ns/net")?;
        enter(namespace)?;
        let there = Self::open();
        enter(rustix::fd::AsFd::as_fd(&here))?;
        there
    }

    /// Sends a request and returns what the kernel tells before its acknowledgement.
    ///
    /// # Errors
    /// The errno of the answer, under the name `call`.
    pub fn request(&mut self, call: &'static str, request: &Request) -> Result<Vec<Message>> {
        self.sequence = self.sequence.wrapping_add(1);
        let bytes = request.bytes(self.sequence).ok_or(SysError { call, errno: Errno::MSGSIZE })?;
        rustix::net::send(&self.socket, &bytes, SendFlags::empty()).named(call)?;
        let mut out = Vec::new();
        // The kernel's answers to a dump are at most 32 KiB each, however much room there is.
        let mut buffer = vec![0; 1 << 16];
        loop {
            let (length, _) =
                rustix::net::recv(&self.socket, buffer.as_mut_slice(), RecvFlags::empty()).named(call)?;
            let mut rest = buffer.get(..length).unwrap_or_default();
            while let Some((kind, sequence, body, after)) = next_message(rest) {
                rest = after;
                if sequence != self.sequence {
                    continue;
                }
                match i32::from(kind) {
                    libc::NLMSG_ERROR => return done(call, body).map(|()| out),
                    libc::NLMSG_DONE => return Ok(out),
                    _ => out.push(Message { kind, body: body.to_vec() }),
                }
            }
        }
    }
}

/// The answer's errno, negative; zero is the acknowledgement.
fn done(call: &'static str, body: &[u8]) -> Result<()> {
    match i32_at(body, 0) {
        Some(0) => Ok(()),
        Some(errno) => Err(SysError { call, errno: Errno::from_raw_os_error(errno.wrapping_neg()) }),
        None => Err(SysError { call, errno: Errno::BADMSG }),
    }
}

fn enter(namespace: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: no pointers; the fd is open as it is borrowed.
    let ret = unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) };
    check("setns CLONE_NEWNET", ret.into()).map(drop)
}

/// Sets the loopback device of this thread's network namespace up, as the interface of a new one is not.
///
/// # Errors
/// EPERM without CAP_NET_ADMIN over the namespace.
pub fn loopback_up() -> Result<()> {
    let (family, kind) = (AddressFamily::UNIX, SocketType::DGRAM);
    // Any socket takes the ioctls of devices; this family is never absent.
    let socket = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, None).named("socket")?;
    // SAFETY: all zeroes is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(*b"lo\0") {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: `request` is an ifreq with a terminated name, which is what SIOCSIFFLAGS reads.
    let ret = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) };
    check("ioctl SIOCSIFFLAGS lo", ret.into()).map(drop)
}

/// A request; `NLM_F_REQUEST` and `NLM_F_ACK` are added to its flags.
#[derive(Debug, Clone)]
pub struct Request {
    kind: u16,
    flags: u16,
    body: Vec<u8>,
}

impl Request {
    /// A request of kind `RTM_*` with the fixed header of that kind.
    pub fn new(kind: u16, flags: i32, header: &[u8]) -> Self {
        let mut out = Self { kind, flags: flags as u16, body: header.to_vec() };
        out.pad();
        out
    }

    /// Adds an attribute.
    #[must_use]
    pub fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        // A longer one makes the length field wrong, so `bytes` refuses the whole request.
        let length = u16::try_from(value.len().saturating_add(4)).unwrap_or(0);
        self.body.extend_from_slice(&length.to_ne_bytes());
        self.body.extend_from_slice(&kind.to_ne_bytes());
        self.body.extend_from_slice(value);
        self.pad();
        self
    }

    fn pad(&mut self) {
        self.body.resize(self.body.len().next_multiple_of(4), 0);
    }

    fn bytes(&self, sequence: u32) -> Option<Vec<u8>> {
        let length = u32::try_from(self.body.len().checked_add(16)?).ok().filter(|n| *n <= 1 << 15)?;
        let flags = self.flags | (libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16;
        let mut out = Vec::with_capacity(length as usize);
        out.extend_from_slice(&length.to_ne_bytes());
        out.extend_from_slice(&self.kind.to_ne_bytes());
        out.extend_from_slice(&flags.to_ne_bytes());
        out.extend_from_slice(&sequence.to_ne_bytes());
        // Port 0: the kernel.
        out.extend_from_slice(&0_u32.to_ne_bytes());
        out.extend_from_slice(&self.body);
        Some(out)
    }
}

/// Kind, sequence number, body, and what follows.
fn next_message(bytes: &[u8]) -> Option<(u16, u32, &[u8], &[u8])> {
    let length = u32_at(bytes, 0)? as usize;
    let body = bytes.get(16..length)?;
    let rest = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((u16_at(bytes, 4)?, u32_at(bytes, 8)?, body, rest))
}

/// The attributes behind a fixed header of `header` bytes, as kind and value.
pub fn attributes(body: &[u8], header: usize) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = body.get(header.next_multiple_of(4)..).unwrap_or_default();
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(rest, 0)?);
        let kind = u16_at(rest, 2)?;
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        // The two highest bits say how the value is encoded.
        Some((kind & 0x3fff, value))
    })
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().copied().map(u16::from_ne_bytes)
}

/// A number in a header or attribute.
pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_ne_bytes)
}

/// A number in a header or attribute.
pub fn i32_at(bytes: &[u8], at: usize) -> Option<i32> {
    bytes.get(at..)?.first_chunk().copied().map(i32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_read_as_they_are_written() {
        let request = Request::new(16, 0, &[0; 16]).attribute(3, b"lo\0").attribute(28, &7_u32.to_ne_bytes());
        let bytes = request.bytes(5).expect("bytes");
        let (kind, sequence, body, rest) = next_message(&bytes).expect("a message");
        assert_eq!((kind, sequence, rest.len()), (16, 5, 0));
        let list: Vec<_> = attributes(body, 16).collect();
        assert_eq!(list, [(3, &b"lo\0"[..]), (28, &7_u32.to_ne_bytes()[..])]);
    }

    #[test]
    fn cut_messages_end_the_reading() {
        let bytes = Request::new(16, 0, &[0; 16]).attribute(3, b"lo\0").bytes(1).expect("bytes");
        for n in 0..bytes.len() - 4 {
            assert!(next_message(bytes.get(..n).expect("shorter")).is_none(), "{n}");
        }
        // A length below its own header must not loop.
        assert!(next_message(&[0; 64]).is_none());
        assert_eq!(attributes(&[0; 64], 16).count(), 0);
    }
}
