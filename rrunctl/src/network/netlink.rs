//! Netlink (RFC 3549): messages, attributes, and a socket that asks and waits for the answer.
//!
//! Written out here because nf_tables needs the same few lines as rtnetlink, the netlink crates know only rtnetlink, and
//! what is used of it are seven messages.

#![forbid(unsafe_code)]

use crate::error::{Context as _, Error, Result};
use rustix::io::Errno;
use rustix::net::netlink::NETFILTER;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with, sockopt,
};
use std::os::fd::OwnedFd;

/// `NLM_F_REQUEST`.
pub const REQUEST: u16 = 1;
/// `NLM_F_ACK`.
pub const ACK: u16 = 4;
/// `NLM_F_DUMP`.
pub const DUMP: u16 = 0x300;
/// `NLM_F_EXCL`.
pub const EXCL: u16 = 0x200;
/// `NLM_F_CREATE`.
pub const CREATE: u16 = 0x400;
/// `NLM_F_APPEND`.
pub const APPEND: u16 = 0x800;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLA_F_NESTED: u16 = 0x8000;
const HEADER: usize = 16;

/// One message, being written.
#[derive(Debug, Clone)]
pub struct Message(Vec<u8>);

impl Message {
    /// A message of `kind`, followed by the fixed header of its family.
    pub fn new(kind: u16, flags: u16, fixed: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&(flags | REQUEST).to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(fixed);
        let mut message = Self(bytes);
        message.pad();
        message
    }

    /// An attribute.
    pub fn attr(&mut self, kind: u16, payload: &[u8]) -> &mut Self {
        self.0.extend_from_slice(&((payload.len() + 4) as u16).to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(payload);
        self.pad();
        self
    }

    /// A string, with its NUL.
    pub fn text(&mut self, kind: u16, text: &str) -> &mut Self {
        let mut bytes = text.as_bytes().to_vec();
        bytes.push(0);
        self.attr(kind, &bytes)
    }

    /// A number as rtnetlink has it.
    pub fn native(&mut self, kind: u16, number: u32) -> &mut Self {
        self.attr(kind, &number.to_ne_bytes())
    }

    /// A number as nfnetlink has it.
    pub fn big(&mut self, kind: u16, number: u32) -> &mut Self {
        self.attr(kind, &number.to_be_bytes())
    }

    /// Attributes within an attribute; their length must stay below 64 KiB.
    pub fn nest(&mut self, kind: u16, inner: impl FnOnce(&mut Self) -> &mut Self) -> &mut Self {
        let start = self.0.len();
        self.attr(kind | NLA_F_NESTED, &[]);
        inner(self);
        let length = self.0.len() - start;
        debug_assert!(length <= usize::from(u16::MAX));
        self.0[start..start + 2].copy_from_slice(&(length as u16).to_ne_bytes());
        self
    }

    /// Raw bytes, for a structure inside an attribute.
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self.pad();
        self
    }

    /// The same, asking for an acknowledgement.
    pub fn acknowledged(mut self) -> Self {
        self.0[6] |= ACK as u8;
        self
    }

    fn pad(&mut self) {
        while !self.0.len().is_multiple_of(4) {
            self.0.push(0);
        }
    }

    fn finish(&mut self, sequence: u32) -> &[u8] {
        let length = self.0.len() as u32;
        self.0[..4].copy_from_slice(&length.to_ne_bytes());
        self.0[8..12].copy_from_slice(&sequence.to_ne_bytes());
        &self.0
    }
}

/// A message that was received.
#[derive(Debug, Clone, Copy)]
struct Received<'a> {
    kind: u16,
    sequence: u32,
    payload: &'a [u8],
}

/// The messages of one datagram; what is cut off is not returned.
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Received<'_>> {
    std::iter::from_fn(move || {
        let length = u32_at(bytes, 0)? as usize;
        let message = bytes.get(..length).filter(|message| message.len() >= HEADER)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Received {
            kind: u16_at(message, 4)?,
            sequence: u32_at(message, 8)?,
            payload: message.get(HEADER..)?,
        })
    })
}

/// The attributes in `bytes`, their kinds without the flags; what is cut off is not returned.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(bytes, 0)?);
        let attribute = bytes.get(..length).filter(|attribute| attribute.len() >= 4)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16_at(attribute, 2)? & 0x3fff, attribute.get(4..)?))
    })
}

/// The attribute of `kind` in `bytes`.
pub fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(k, _)| *k == kind).map(|(_, payload)| payload)
}

/// A number of this machine's order.
pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// A string without its NUL.
pub fn string(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// A socket of the network namespace in which it was opened, wherever it is used.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Socket {
    /// Links, addresses, routes.
    ///
    /// # Errors
    /// Those of socket(2).
    pub fn route() -> Result<Self> {
        // NETLINK_ROUTE is 0.
        Self::open(None)
    }

    /// nf_tables and conntrack.
    ///
    /// # Errors
    /// Those of socket(2).
    pub fn netfilter() -> Result<Self> {
        let socket = Self::open(Some(NETFILTER))?;
        // A batch is one send; the default of 208 KiB ends at two thousand ports.
        let _ = sockopt::set_socket_send_buffer_size_force(&socket.fd, 4 << 20);
        let _ = sockopt::set_socket_recv_buffer_size_force(&socket.fd, 4 << 20);
        Ok(socket)
    }

    fn open(protocol: Option<rustix::net::Protocol>) -> Result<Self> {
        let fd = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)
            .context(|| "socket AF_NETLINK")?;
        Ok(Self { fd, sequence: 0, buffer: vec![0; 32 << 10] })
    }

    /// Sends all in one go; what each of those came to that asked for an acknowledgement.
    ///
    /// # Errors
    /// Those of send(2) and recv(2), not those of a request.
    pub fn exchange(&mut self, requests: Vec<Message>) -> Result<Vec<Result<(), Errno>>> {
        let first = self.sequence + 1;
        let count = requests.len();
        self.send(requests.into_iter().map(Message::acknowledged))?;
        let mut results = vec![None; count];
        while results.iter().any(Option::is_none) {
            self.receive(RecvFlags::empty(), |message| {
                if message.kind == NLMSG_ERROR
                    && let Some(slot) = results.get_mut(message.sequence.wrapping_sub(first) as usize)
                {
                    *slot = Some(outcome(message.payload));
                }
                Ok(())
            })?;
        }
        Ok(results.into_iter().flatten().collect())
    }

    /// One request that has no answer but its acknowledgement.
    ///
    /// # Errors
    /// The kernel's, and those of send(2) and recv(2).
    pub fn request(&mut self, request: Message) -> Result<()> {
        match self.exchange(vec![request])?.pop() {
            Some(Err(e)) => Err(e.into()),
            _ => Ok(()),
        }
    }

    /// Calls `each` with the payload of every answer; `NLM_F_DUMP` or not is in the request.
    ///
    /// # Errors
    /// The kernel's, and those of send(2) and recv(2).
    pub fn ask(&mut self, request: Message, mut each: impl FnMut(&[u8])) -> Result<()> {
        let sequence = self.sequence + 1;
        self.send([request.acknowledged()])?;
        let mut done = false;
        while !done {
            self.receive(RecvFlags::empty(), |message| {
                if message.sequence != sequence {
                    return Ok(());
                }
                match message.kind {
                    NLMSG_ERROR => {
                        done = true;
                        outcome(message.payload)
                    }
                    NLMSG_DONE => {
                        done = true;
                        Ok(())
                    }
                    _ => {
                        each(message.payload);
                        Ok(())
                    }
                }
            })?;
        }
        Ok(())
    }

    /// Sends a batch of which only the last request before the end asks for an acknowledgement; the kernel has worked
    /// on all of it when send(2) returns, and answers every request that failed.
    ///
    /// # Errors
    /// The first that the kernel reported, with the number of its message within the batch.
    pub fn batch(&mut self, requests: Vec<Message>) -> Result<Result<(), (usize, Errno)>> {
        let first = self.sequence + 1;
        self.send(requests)?;
        let mut answered = false;
        let mut failed: Option<(usize, Errno)> = None;
        loop {
            let received = self.receive(RecvFlags::DONTWAIT, |message| {
                if message.kind == NLMSG_ERROR {
                    let at = message.sequence.wrapping_sub(first) as usize;
                    match outcome(message.payload) {
                        Ok(()) => answered = true,
                        Err(errno) if failed.is_none_or(|(other, _)| at < other) => {
                            failed = Some((at, errno))
                        }
                        Err(_) => {}
                    }
                }
                Ok(())
            });
            match received {
                Ok(()) => {}
                Err(e) if e.errno() == Some(Errno::AGAIN) => break,
                Err(e) => return Err(e),
            }
        }
        match failed {
            Some(failure) => Ok(Err(failure)),
            None if answered => Ok(Ok(())),
            None => Err(Error::system("netlink: no answer to a batch")),
        }
    }

    fn send(&mut self, requests: impl IntoIterator<Item = Message>) -> Result<()> {
        let mut bytes = Vec::new();
        for mut request in requests {
            self.sequence += 1;
            bytes.extend_from_slice(request.finish(self.sequence));
        }
        send(&self.fd, &bytes, SendFlags::empty()).context(|| "netlink: send")?;
        Ok(())
    }

    fn receive(
        &mut self,
        flags: RecvFlags,
        mut each: impl FnMut(Received<'_>) -> Result<(), Errno>,
    ) -> Result<()> {
        let length = loop {
            match recv(&self.fd, &mut self.buffer[..], flags) {
                Ok((length, _)) => break length,
                Err(Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        };
        for message in messages(&self.buffer[..length]) {
            each(message)?;
        }
        Ok(())
    }
}

fn outcome(payload: &[u8]) -> Result<(), Errno> {
    match u32_at(payload, 0).map(|number| (number as i32).unsigned_abs()) {
        Some(0) => Ok(()),
        Some(errno) => Err(Errno::from_raw_os_error(errno as i32)),
        None => Err(Errno::PROTO),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_and_their_length_is_not() {
        let mut message = Message::new(16, CREATE, &[1, 2, 3, 4]);
        message.text(3, "ab").nest(18, |m| m.native(1, 7));
        let bytes = message.finish(9).to_vec();
        assert_eq!(&bytes[..4], &(bytes.len() as u32).to_ne_bytes());
        let read = messages(&bytes).next().expect("a message");
        assert_eq!((read.kind, read.sequence), (16, 9));
        let attrs: Vec<_> = attributes(&read.payload[4..]).collect();
        assert_eq!(attrs[0], (3, &b"ab\0"[..]));
        assert_eq!(attrs[1].0, 18);
        assert_eq!(attribute(attrs[1].1, 1), Some(&7u32.to_ne_bytes()[..]));
    }

    #[test]
    fn cut_and_lying_lengths_end_the_reading() {
        for bytes in
            [&[][..], &[3, 0, 1, 0], &[255, 255, 1, 0, 1], &[0, 0, 0, 0], &[4], &[8, 0, 1, 0, 1, 2, 3]]
        {
            assert_eq!(attributes(bytes).count(), 0, "{bytes:?}");
            assert_eq!(messages(bytes).count(), 0, "{bytes:?}");
        }
    }
}
