//! A D-Bus client for one conversation: connect, call, wait for a signal. No thread, no reconnection, no object.
//!
//! Everything ends: each wait has a deadline, as a runtime that hangs with its bus takes the node with it
//! (runc #3904, #4481). A peer that breaks the protocol is an error like one that is silent.

#![forbid(unsafe_code)]

pub mod wire;

pub use wire::{Kind, Message, Value};

use crate::error::{Call as _, Error, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};
use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

/// How long one answer may take. systemd answers in milliseconds; under load it has taken many seconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// Signals that are kept for later; a peer that sends more than this before an answer is broken.
const BACKLOG: usize = 4096;

/// A connection.
#[derive(Debug)]
pub struct Bus {
    socket: OwnedFd,
    /// Its address, for errors.
    pub address: String,
    /// Whether systemd itself is at the other end and no message bus.
    pub direct: bool,
    serial: u32,
    input: Vec<u8>,
    signals: VecDeque<Message>,
}

/// What is called.
#[derive(Debug, Clone, Copy)]
pub struct Method<'a> {
    /// Bus name of the service.
    pub destination: &'a str,
    /// Object.
    pub path: &'a str,
    /// Interface.
    pub interface: &'a str,
    /// Method.
    pub member: &'a str,
}

/// An error reply: the name of the error and its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// As in `org.freedesktop.systemd1.UnitExists`.
    pub name: String,
    /// For people.
    pub text: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.text.as_str() {
            "" => f.write_str(&self.name),
            text => write!(f, "{text} ({})", self.name.rsplit('.').next().unwrap_or_default()),
        }
    }
}

/// Where to connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// A D-Bus address: `unix:path=…` and `unix:abstract=…`, more than one with `;`.
    pub text: String,
    /// Whether it is systemd's own socket, where nobody is greeted and signals come unasked.
    pub direct: bool,
}

impl Bus {
    /// Connects to the first address where somebody answers.
    ///
    /// # Errors
    /// The first failure, with its address.
    pub fn connect(addresses: &[Address]) -> Result<Self> {
        let mut failure = None;
        for address in addresses {
            for text in address.text.split(';').filter(|text| !text.is_empty()) {
                match Self::open(text, address.direct) {
                    Ok(bus) => return Ok(bus),
                    Err(e) => failure = failure.or(Some(e)),
                }
            }
        }
        Err(failure.unwrap_or_else(|| Error::new("no D-Bus address is known")))
    }

    fn open(address: &str, direct: bool) -> Result<Self> {
        let called = || format!("connect to {address}");
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
            .call(|| "socket")?;
        let to = parse(address).ok_or_else(|| Error::new(format!("{address}: not a unix socket")))?;
        rustix::net::connect(&socket, &to.call(called)?).call(called)?;
        Self::greet(socket, address, direct)
    }

    /// Authenticates on a fresh socket. The identity is left to the socket's credentials: a uid in words would
    /// have to be that outside of the user namespace.
    fn greet(socket: OwnedFd, address: &str, direct: bool) -> Result<Self> {
        let mut bus = Self {
            socket,
            address: address.to_owned(),
            direct,
            serial: 0,
            input: Vec::new(),
            signals: VecDeque::new(),
        };
        let doing = |e: Error| e.context(format!("authenticate at {address}"));
        let deadline = after(PATIENCE);
        // BEGIN goes ahead and the first message waits for OK, as with sd-bus: a message that systemd reads in one
        // piece with BEGIN lies there until another one comes.
        bus.send(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n", deadline).map_err(doing)?;
        let first = bus.line(deadline).map_err(doing)?;
        let second = match first.as_str() {
            "DATA" => bus.line(deadline).map_err(doing)?,
            // Older ones need no DATA, and complain of it then.
            _ if first.starts_with("OK ") => bus.line(deadline).map(|_| first).map_err(doing)?,
            _ => first,
        };
        if !second.starts_with("OK ") {
            return Err(doing(Error::new(format!("refused: {second}"))));
        }
        if !direct {
            bus.call(&BUS.method("Hello"), Vec::new())?
                .map_err(|refusal| doing(Error::new(refusal.to_string())))?;
        }
        Ok(bus)
    }

    /// Asks for a signal, before what causes it is called.
    ///
    /// # Errors
    /// Those of [`Bus::call`].
    pub fn watch(&mut self, rule: &str) -> Result<()> {
        if self.direct {
            return Ok(());
        }
        let reply = self.call(&BUS.method("AddMatch"), vec![rule.into()])?;
        reply.map(drop).map_err(|refusal| Error::new(format!("{}: AddMatch: {refusal}", self.address)))
    }

    /// Calls a method and returns the values of its answer, or the error with which it was answered.
    ///
    /// # Errors
    /// No answer within thirty seconds, a broken connection or a broken message.
    pub fn call(&mut self, method: &Method<'_>, body: Vec<Value>) -> Result<Result<Vec<Value>, Refusal>> {
        self.serial = self.serial.wrapping_add(1).max(1);
        let serial = self.serial;
        let message = Message {
            kind: Kind::Call,
            serial,
            reply_to: 0,
            path: method.path.into(),
            interface: method.interface.into(),
            member: method.member.into(),
            error: String::new(),
            destination: if self.direct { String::new() } else { method.destination.into() },
            body,
        };
        let doing =
            |e: Error, bus: &Self| e.context(format!("D-Bus call {} at {}", method.member, bus.address));
        let bytes = wire::encode(&message).map_err(|e| doing(Error::new(e.to_string()), self))?;
        let deadline = after(PATIENCE);
        self.send(&bytes, deadline).map_err(|e| doing(e, self))?;
        loop {
            let message = self.receive(deadline).map_err(|e| doing(e, self))?;
            match message.kind {
                Kind::Return if message.reply_to == serial => return Ok(Ok(message.body)),
                Kind::Error if message.reply_to == serial => {
                    let text = message.body.first().and_then(Value::text).unwrap_or_default().to_owned();
                    return Ok(Err(Refusal { name: message.error, text }));
                }
                Kind::Signal if self.signals.len() < BACKLOG => self.signals.push_back(message),
                Kind::Signal => return Err(doing(Error::new("a flood of signals"), self)),
                _ => {}
            }
        }
    }

    /// Waits for a signal of which `wanted` makes something; the others are dropped. Those that came since the
    /// last call are looked at first.
    ///
    /// # Errors
    /// `what` has not come within thirty seconds, or a broken connection.
    pub fn signal<T>(&mut self, what: &str, wanted: impl Fn(&Message) -> Option<T>) -> Result<T> {
        let deadline = after(PATIENCE);
        loop {
            let message = match self.signals.pop_front() {
                Some(message) => message,
                None => self
                    .receive(deadline)
                    .map_err(|e| e.context(format!("wait for {what} at {}", self.address)))?,
            };
            if message.kind == Kind::Signal
                && let Some(found) = wanted(&message)
            {
                return Ok(found);
            }
        }
    }

    fn send(&self, mut bytes: &[u8], deadline: Instant) -> Result<()> {
        while !bytes.is_empty() {
            match rustix::net::send(&self.socket, bytes, SendFlags::NOSIGNAL) {
                Ok(n) => bytes = bytes.get(n..).unwrap_or_default(),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.wait(PollFlags::OUT, deadline)?,
                Err(e) => return Err(Error::sys("send", e)),
            }
        }
        Ok(())
    }

    fn wait(&self, flags: PollFlags, deadline: Instant) -> Result<()> {
        let left = deadline.saturating_duration_since(Instant::now());
        let limit = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: 0, tv_nsec: 0 });
        match poll(&mut [PollFd::new(&self.socket, flags)], Some(&limit)) {
            Ok(0) => Err(Error::new(format!("no answer within {} seconds", PATIENCE.as_secs()))
                .remedy("see whether systemd and the bus are well: systemctl status, busctl status")),
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(e) => Err(Error::sys("poll", e)),
        }
    }

    /// Reads until so many bytes are there.
    fn fill(&mut self, size: usize, deadline: Instant) -> Result<()> {
        while self.input.len() < size {
            let mut buffer = [0; 8192];
            match rustix::net::recv(&self.socket, &mut buffer[..], RecvFlags::empty()) {
                Ok((0, _)) => return Err(Error::new("the connection was closed")),
                Ok((n, _)) => self.input.extend_from_slice(buffer.get(..n).unwrap_or_default()),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.wait(PollFlags::IN, deadline)?,
                Err(e) => return Err(Error::sys("recv", e)),
            }
        }
        Ok(())
    }

    /// One line of the authentication.
    fn line(&mut self, deadline: Instant) -> Result<String> {
        for end in 2..=16384 {
            self.fill(end, deadline)?;
            if self.input.get(end - 2..end) == Some(b"\r\n") {
                let line: Vec<u8> = self.input.drain(..end).collect();
                return Ok(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
        }
        Err(Error::new("a line without end"))
    }

    fn receive(&mut self, deadline: Instant) -> Result<Message> {
        let broken = |e: wire::Broken| Error::new(e.to_string());
        self.fill(wire::HEADER, deadline)?;
        let size = wire::size(&self.input).map_err(broken)?;
        self.fill(size, deadline)?;
        let bytes: Vec<u8> = self.input.drain(..size).collect();
        wire::decode(&bytes).map_err(broken)
    }
}

/// The message bus itself.
const BUS: Method<'static> = Method {
    destination: "org.freedesktop.DBus",
    path: "/org/freedesktop/DBus",
    interface: "org.freedesktop.DBus",
    member: "",
};

impl<'a> Method<'a> {
    /// Another method of the same object.
    pub fn method(&self, member: &'a str) -> Self {
        Self { member, ..*self }
    }
}

fn after(time: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(time).unwrap_or(now)
}

/// One address (D-Bus specification, "Server Addresses"); `None` for a transport other than unix sockets.
fn parse(address: &str) -> Option<Result<SocketAddrUnix, Errno>> {
    let pairs = address.strip_prefix("unix:")?;
    pairs.split(',').filter_map(|pair| pair.split_once('=')).find_map(|(key, value)| {
        let value = unescape(value)?;
        match key {
            "path" => Some(SocketAddrUnix::new(value)),
            "abstract" => Some(SocketAddrUnix::new_abstract_name(&value)),
            _ => None,
        }
    })
}

fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                out.push(u8::try_from(digit()? * 16 + digit()?).ok()?);
            }
            byte => out.push(byte),
        }
    }
    Some(out)
}

/// A path as an address.
pub fn path_address(path: &str) -> String {
    let mut out = String::from("unix:path=");
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'/' | b'.' | b'\\' | b'*' => {
                out.push(byte.into());
            }
            byte => out.push_str(&format!("%{byte:02x}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream;

    fn message(kind: Kind, reply_to: u32, member: &str, body: Vec<Value>) -> Vec<u8> {
        let error = if kind == Kind::Error { "org.x.Refused".into() } else { String::new() };
        let (path, interface, destination) = ("/x".into(), "x.y".into(), String::new());
        let member = member.to_owned();
        wire::encode(&Message {
            kind,
            serial: 1,
            reply_to,
            path,
            interface,
            member,
            error,
            destination,
            body,
        })
        .expect("fits")
    }

    /// A bus whose peer has said everything already.
    fn bus(said: &[u8], direct: bool) -> (Result<Bus>, UnixStream) {
        let (ours, mut theirs) = UnixStream::pair().expect("socketpair");
        ours.set_nonblocking(true).expect("nonblocking");
        theirs.write_all(said).expect("write");
        (Bus::greet(ours.into(), "unix:path=/test", direct), theirs)
    }

    const ANY: Method<'static> = Method { destination: "d.e", path: "/p", interface: "i.f", member: "Do" };

    #[test]
    fn the_identity_is_left_to_the_socket() {
        let (bus, mut peer) = bus(b"DATA\r\nOK 1234\r\n", true);
        drop(bus.expect("greeted"));
        let mut said = String::new();
        peer.read_to_string(&mut said).expect("read");
        assert_eq!(said, "\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n");
        assert!(self::bus(b"OK 1234\r\nERROR\r\n", true).0.is_ok(), "older ones need no DATA");
    }

    #[test]
    fn a_bus_is_greeted_and_its_answers_are_matched_by_number() {
        let mut said = b"DATA\r\nOK 1\r\n".to_vec();
        said.extend(message(Kind::Signal, 0, "NameAcquired", vec![":1.5".into()]));
        said.extend(message(Kind::Return, 1, "", vec![":1.5".into()]));
        said.extend(message(Kind::Return, 77, "", vec!["of another".into()]));
        said.extend(message(Kind::Signal, 0, "JobRemoved", vec![Value::U32(3), "done".into()]));
        said.extend(message(Kind::Return, 2, "", vec![Value::Path("/job/3".into())]));
        said.extend(message(Kind::Error, 3, "", vec!["no such unit".into()]));
        let (bus, _peer) = bus(&said, false);
        let mut bus = bus.expect("greeted");
        let reply = bus.call(&ANY, vec!["x".into()]).expect("answered");
        assert_eq!(reply, Ok(vec![Value::Path("/job/3".into())]));
        // It came before the answer and is not lost.
        let found = bus.signal("a job", |signal| {
            (signal.member == "JobRemoved").then(|| signal.body.get(1)?.text().map(str::to_owned))
        });
        assert_eq!(found.expect("there"), Some("done".into()));
        let refusal = bus.call(&ANY, vec![]).expect("answered").expect_err("refused");
        assert_eq!(refusal.to_string(), "no such unit (Refused)");
    }

    #[test]
    fn a_broken_peer_is_an_error() {
        for (said, text) in [
            (&b"REJECTED EXTERNAL\r\n"[..], "refused: REJECTED EXTERNAL"),
            (b"DATA\r\nOK 1\r\nl\x02\x00\x01\xff\xff\xff\xff\x01\0\0\0\0\0\0\0", "too long"),
            (b"DATA\r\nOK 1\r\nHTTP/1.1 400 Bad Request\r\n", "neither little nor big endian"),
            (b"DATA\r\nOK 1\r\nl\x02\x00\x01\x01\0\0\0\x01\0\0\0", "the connection was closed"),
            (b"", "the connection was closed"),
        ] {
            let (ours, mut theirs) = UnixStream::pair().expect("socketpair");
            ours.set_nonblocking(true).expect("nonblocking");
            theirs.write_all(said).expect("write");
            // Ours is read to its end, as a stream that is closed with unread data is reset.
            theirs.shutdown(std::net::Shutdown::Write).expect("shutdown");
            let e = Bus::greet(ours.into(), "unix:path=/test", false).expect_err(text).to_string();
            assert!(e.contains(text) && e.contains("unix:path=/test"), "{e}");
        }
    }

    #[test]
    fn addresses() {
        let path = |text: &str| parse(text).map(|to| to.expect("short").path_bytes().map(<[u8]>::to_vec));
        assert_eq!(path("unix:path=/run/a%20b,guid=1"), Some(Some(b"/run/a b".to_vec())));
        let name = parse("unix:guid=1,abstract=/tmp/x").expect("unix").expect("short");
        assert_eq!(name.abstract_name(), Some(&b"/tmp/x"[..]));
        assert_eq!(path("tcp:host=localhost,port=1"), None);
        assert_eq!(path("unix:path=%zz"), None);
        assert_eq!(path_address("/run/a b"), "unix:path=/run/a%20b");
        let e = Bus::connect(&[Address { text: "tcp:host=x".into(), direct: false }]).expect_err("no socket");
        assert!(e.to_string().contains("not a unix socket"), "{e}");
    }
}
