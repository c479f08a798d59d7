//! The name server that a container finds at 127.0.0.11: names of its networks, and for all others the host's servers.
//!
//! It listens at ports that the kernel chose, in the container's network namespace, where nf_tables leads port 53 to them:
//! so 53 is free for a name server that runs in the container. [`listen`] makes the sockets and the rules, a [`Responder`]
//! serves them from any process. It has no thread and waits for nothing; whoever holds it polls what [`Responder::poll`]
//! says and calls [`Responder::ready`]. Names are read from the leases' files when somebody asks, so that there is nothing
//! to be told and nothing that could be out of date.
//!
//! A container can send what it likes: it costs a turn of the loop ([`TURN`] questions), one look at the leases in it, and
//! no more memory and descriptors than the limits below say.

#![forbid(unsafe_code)]

use super::leases::Leases;
use super::netlink::Socket;
use super::netns::Netns;
use super::nft::{Batch, Family, Hook, Step};
use crate::error::{Context as _, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What containers have in resolv.conf.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

/// Docker's, in seconds.
const TTL: u32 = 600;
/// RFC 1035, 4.2.1: what every client takes.
const DATAGRAM: usize = 512;
/// How long a server of the host has before the next one is asked.
const PATIENCE: Duration = Duration::from_secs(2);
/// How many questions may wait for an answer of the host's servers. More are not heard, so that a container asks those no
/// faster than they answer.
const MOST_PENDING: usize = 128;
/// How many datagrams are read, and how many pieces of a connection, before others have their turn.
const TURN: usize = 128;
/// How many connections it may have; more wait to be accepted.
const MOST_STREAMS: usize = 16;
/// How long one may last.
const STREAM: Duration = Duration::from_secs(20);
/// How much a connection may have sent that is neither answered nor passed on.
const MOST_RECEIVED: usize = 8192;
/// After how long accept(2) is tried again that failed for want of descriptors or memory.
const REST: Duration = Duration::from_secs(1);

const A: u16 = 1;
const PTR: u16 = 12;
const AAAA: u16 = 28;
const ANY: u16 = 255;

const NO_ERROR: u8 = 0;
const FORMAT_ERROR: u8 = 1;
const SERVER_FAILURE: u8 = 2;
const NO_SUCH_NAME: u8 = 3;
const NOT_IMPLEMENTED: u8 = 4;

/// What a packet asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// In lower case, without the last dot; bytes that are no letters of a host name are kept.
    pub name: String,
    /// The type of record.
    pub kind: u16,
    /// 1 is the Internet.
    pub class: u16,
    /// Where the question ends in the packet.
    end: usize,
}

/// Why a packet has no question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// Nothing that can be answered: too short, or an answer itself.
    Ignore,
    /// It gets this code.
    Refuse(u8),
}

/// Reads the question of a packet (RFC 1035, 4.1).
///
/// # Errors
/// What to do where there is none.
pub fn question(packet: &[u8]) -> Result<Question, Broken> {
    let header: [u8; 12] =
        packet.get(..12).and_then(|header| header.try_into().ok()).ok_or(Broken::Ignore)?;
    // Who answers answers lets two servers talk to each other for ever.
    if header[2] & 0x80 != 0 {
        return Err(Broken::Ignore);
    }
    if header[2] & 0x78 != 0 {
        return Err(Broken::Refuse(NOT_IMPLEMENTED));
    }
    if header[4..6] != [0, 1] {
        return Err(Broken::Refuse(FORMAT_ERROR));
    }
    let (mut at, mut name) = (12, String::new());
    loop {
        let length = usize::from(*packet.get(at).ok_or(Broken::Refuse(FORMAT_ERROR))?);
        at += 1;
        if length == 0 {
            break;
        }
        // Nothing stands before a question that it could point to.
        let label =
            packet.get(at..at + length).filter(|_| length < 64).ok_or(Broken::Refuse(FORMAT_ERROR))?;
        at += length;
        if at - 12 > 254 {
            return Err(Broken::Refuse(FORMAT_ERROR));
        }
        if !name.is_empty() {
            name.push('.');
        }
        // A dot within a label would make one name look like another.
        name.extend(
            label
                .iter()
                .map(|byte| if *byte == b'.' { '\u{fffd}' } else { byte.to_ascii_lowercase().into() }),
        );
    }
    let rest: [u8; 4] =
        packet.get(at..at + 4).and_then(|rest| rest.try_into().ok()).ok_or(Broken::Refuse(FORMAT_ERROR))?;
    let word = |at: usize| u16::from_be_bytes([rest[at], rest[at + 1]]);
    Ok(Question { name, kind: word(0), class: word(2), end: at + 4 })
}

/// The names of a container's networks.
#[derive(Debug, Clone, Default)]
pub struct Names(Vec<(String, IpAddr)>);

impl Names {
    /// From pairs; the first name of an address is the one that it has the other way round.
    pub fn new(names: impl IntoIterator<Item = (String, IpAddr)>) -> Self {
        Self(names.into_iter().map(|(name, ip)| (name.to_ascii_lowercase(), ip)).collect())
    }

    /// Reads the leases of networks: their directories, and their names.
    ///
    /// # Errors
    /// Those of the files.
    pub fn read(networks: &[(PathBuf, String)]) -> Result<Self> {
        let mut names = Vec::new();
        for (dir, network) in networks {
            for (id, lease) in Leases::read(dir)?.active()? {
                let short = id.get(..12).unwrap_or(&id);
                let all = [&lease.name, short].into_iter().chain(lease.aliases.iter().map(String::as_str));
                for name in all {
                    for ip in [Some(lease.ip.into()), lease.ip6.map(IpAddr::from)].into_iter().flatten() {
                        names.push((format!("{name}.{network}"), ip));
                        names.push((name.to_owned(), ip));
                    }
                }
            }
        }
        Ok(Self::new(names))
    }

    fn addresses<'a>(&'a self, name: &'a str) -> impl Iterator<Item = IpAddr> + 'a {
        self.0.iter().filter(move |(other, _)| other == name).map(|(_, ip)| *ip)
    }

    fn name(&self, ip: IpAddr) -> Option<&str> {
        self.0.iter().find(|(_, other)| *other == ip).map(|(name, _)| name.as_str())
    }
}

/// The answer to a question that the names know, at most `limit` bytes; nothing where the host's servers have to be asked.
pub fn answer(packet: &[u8], question: &Question, names: &Names, limit: usize) -> Option<Vec<u8>> {
    if question.class != 1 && question.class != ANY {
        return None;
    }
    let mut records = Vec::new();
    if question.kind == PTR {
        let name = names.name(reversed(&question.name)?)?;
        let mut data = Vec::new();
        for label in name.split('.') {
            // What cannot be a name on the wire is none; Docker's container names have at most 63 letters only by habit.
            data.push(u8::try_from(label.len()).ok().filter(|length| (1..64).contains(length))?);
            data.extend_from_slice(label.as_bytes());
        }
        data.push(0);
        records.push((PTR, data));
    } else {
        let known: Vec<IpAddr> = names.addresses(&question.name).collect();
        if known.is_empty() {
            return None;
        }
        for ip in known {
            match ip {
                IpAddr::V4(ip) if matches!(question.kind, A | ANY) => records.push((A, ip.octets().to_vec())),
                IpAddr::V6(ip) if matches!(question.kind, AAAA | ANY) => {
                    records.push((AAAA, ip.octets().to_vec()))
                }
                // There is such a name, and nothing of this type: no other server knows better.
                _ => {}
            }
        }
    }
    let mut reply = reply(packet, question.end, 0);
    let mut count: u16 = 0;
    for (kind, data) in records {
        let mut record = vec![0xc0, 12];
        for word in [kind, 1] {
            record.extend_from_slice(&word.to_be_bytes());
        }
        record.extend_from_slice(&TTL.to_be_bytes());
        record.extend_from_slice(&(data.len() as u16).to_be_bytes());
        record.extend_from_slice(&data);
        if reply.len() + record.len() > limit {
            reply[2] |= 2; // TC: the client asks again by TCP
            break;
        }
        reply.extend_from_slice(&record);
        count += 1;
    }
    reply[6..8].copy_from_slice(&count.to_be_bytes());
    Some(reply)
}

/// The header of an answer with the question repeated.
fn reply(packet: &[u8], end: usize, code: u8) -> Vec<u8> {
    let mut reply = packet.get(..end).unwrap_or_default().to_vec();
    reply.resize(reply.len().max(12), 0);
    reply[2] = 0x80 | (reply[2] & 0x79); // QR, the opcode, RD
    reply[3] = 0x80 | code; // RA
    reply[6..12].fill(0);
    reply
}

/// An answer that has a code only.
fn refusal(packet: &[u8], code: u8) -> Vec<u8> {
    match question(packet) {
        Ok(question) => reply(packet, question.end, code),
        Err(_) => {
            let mut reply = reply(packet, 12, code);
            reply[4..6].fill(0);
            reply
        }
    }
}

/// `2.0.17.172.in-addr.arpa`, and the nibbles of `ip6.arpa`.
fn reversed(name: &str) -> Option<IpAddr> {
    if let Some(name) = name.strip_suffix(".in-addr.arpa") {
        let mut octets = name.rsplit('.').map(|octet| octet.parse::<u8>().ok());
        let ip = [octets.next()??, octets.next()??, octets.next()??, octets.next()??];
        return octets.next().is_none().then_some(ip.into());
    }
    let mut number: u128 = 0;
    let mut count = 0;
    for nibble in name.strip_suffix(".ip6.arpa")?.rsplit('.') {
        let mut digits = nibble.chars();
        let digit = digits.next()?.to_digit(16)?;
        if digits.next().is_some() || count == 32 {
            return None;
        }
        number = (number << 4) | u128::from(digit);
        count += 1;
    }
    (count == 32).then_some(Ipv6Addr::from(number).into())
}

/// The name servers in a resolv.conf, except those that only the host itself would find at 127.0.0.11.
pub fn servers(resolv_conf: &str) -> Vec<SocketAddr> {
    resolv_conf
        .lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver"))
        .filter_map(|rest| rest.strip_prefix([' ', '\t'])?.split_whitespace().next()?.parse().ok())
        .filter(|ip: &IpAddr| *ip != SERVER)
        .map(|ip| SocketAddr::new(ip, 53))
        .take(3)
        .collect()
}

/// A question that a server of the host has.
#[derive(Debug)]
struct Pending {
    socket: UdpSocket,
    packet: Vec<u8>,
    client: SocketAddr,
    server: usize,
    until: Instant,
}

/// A connection of a client; with the one to a server, once that has to be asked.
#[derive(Debug)]
struct Stream {
    client: TcpStream,
    server: Option<Server>,
    /// Neither answered nor passed on.
    received: Vec<u8>,
    /// What the client has not taken yet; until it has, nothing more is read for it.
    unsent: Vec<u8>,
    until: Instant,
}

/// A connection to a server of the host.
#[derive(Debug)]
struct Server {
    socket: TcpStream,
    /// Which one.
    number: usize,
    /// It is being made until then.
    connecting: Option<Instant>,
}

/// Makes the sockets of a name server in the network namespace at `netns`, for UDP and for TCP, and leads port 53 to
/// them there; what led it elsewhere before is replaced.
///
/// # Errors
/// Those of bind(2) and nf_tables.
pub fn listen(netns: &Path) -> Result<[OwnedFd; 2]> {
    Netns::open(netns)?.enter(|| {
        let udp = UdpSocket::bind((SERVER, 0)).context(|| format!("bind {SERVER}"))?;
        let tcp = TcpListener::bind((SERVER, 0)).context(|| format!("bind {SERVER}"))?;
        lead(&[(17, udp.local_addr()?.port()), (6, tcp.local_addr()?.port())])?;
        Ok([udp.into(), tcp.into()])
    })
}

/// A name server for the processes of a network namespace.
#[derive(Debug)]
pub struct Responder {
    udp: UdpSocket,
    tcp: TcpListener,
    servers: Vec<SocketAddr>,
    networks: Vec<(PathBuf, String)>,
    pending: Vec<Pending>,
    streams: Vec<Stream>,
    /// The last accept(2) failed for want of something, and is not tried again until then.
    resting: Option<Instant>,
}

impl Responder {
    /// Serves the sockets of [`listen`]. `servers` are asked from the network namespace of the calling thread; `networks`
    /// are the directories of leases, with the networks' names.
    ///
    /// # Errors
    /// Descriptors that are no sockets.
    pub fn new(
        sockets: [OwnedFd; 2],
        servers: Vec<SocketAddr>,
        networks: Vec<(PathBuf, String)>,
    ) -> Result<Self> {
        let [udp, tcp] = sockets;
        let (udp, tcp) = (UdpSocket::from(udp), TcpListener::from(tcp));
        udp.set_nonblocking(true).context(|| "name server's socket for UDP")?;
        tcp.set_nonblocking(true).context(|| "name server's socket for TCP")?;
        let (pending, streams) = (Vec::new(), Vec::new());
        Ok(Self { udp, tcp, servers, networks, pending, streams, resting: None })
    }

    /// Asks other servers, and has the names of other networks, from the next question on.
    pub fn set(&mut self, servers: Vec<SocketAddr>, networks: Vec<(PathBuf, String)>) {
        (self.servers, self.networks) = (servers, networks);
    }

    /// What to poll for.
    pub fn poll<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) {
        fds.push(PollFd::new(&self.udp, PollFlags::IN));
        if self.streams.len() < MOST_STREAMS && self.resting.is_none() {
            fds.push(PollFd::new(&self.tcp, PollFlags::IN));
        }
        fds.extend(self.pending.iter().map(|pending| PollFd::new(&pending.socket, PollFlags::IN)));
        for stream in &self.streams {
            let taken = stream.unsent.is_empty();
            fds.push(PollFd::new(&stream.client, if taken { PollFlags::IN } else { PollFlags::OUT }));
            if let Some(server) = &stream.server {
                let mut flags = PollFlags::empty();
                flags.set(PollFlags::IN, taken && server.connecting.is_none());
                flags.set(PollFlags::OUT, !stream.received.is_empty() || server.connecting.is_some());
                // POLLHUP comes whether it is asked for or not, and again and again.
                if !flags.is_empty() {
                    fds.push(PollFd::new(&server.socket, flags));
                }
            }
        }
    }

    /// When [`Responder::ready`] has to be called although nothing is ready.
    pub fn deadline(&self) -> Option<Instant> {
        let pending = self.pending.iter().map(|pending| pending.until);
        let connecting = self.streams.iter().filter_map(|stream| stream.server.as_ref()?.connecting);
        let streams = self.streams.iter().map(|stream| stream.until);
        pending.chain(connecting).chain(streams).chain(self.resting).min()
    }

    /// Does all that can be done now.
    pub fn ready(&mut self) {
        let mut names = None;
        self.answered();
        self.asked(&mut names);
        self.connected(&mut names);
    }

    fn asked(&mut self, names: &mut Option<Names>) {
        // Longer ones are cut, and then not understood.
        let mut buffer = [0; DATAGRAM + 1];
        for _ in 0..TURN {
            let Ok((length, client)) = self.udp.recv_from(&mut buffer) else { return };
            let packet = &buffer[..length];
            let reply = match length <= DATAGRAM {
                true => self.local(packet, DATAGRAM, names),
                false => Some(refusal(packet, FORMAT_ERROR)),
            };
            match reply {
                Some(reply) if reply.is_empty() => {}
                Some(reply) => drop(self.udp.send_to(&reply, client)),
                None if self.pending.len() >= MOST_PENDING => {}
                None => self.forward(packet.to_vec(), client, 0),
            }
        }
    }

    /// An answer; an empty one to what gets none, and nothing where a server has to be asked. `names` are those of this
    /// turn: who asks a thousand times at once has one look at the leases.
    fn local(&self, packet: &[u8], limit: usize, names: &mut Option<Names>) -> Option<Vec<u8>> {
        match question(packet) {
            Ok(question) => {
                let names = names.get_or_insert_with(|| Names::read(&self.networks).unwrap_or_default());
                answer(packet, &question, names, limit)
            }
            Err(Broken::Refuse(code)) => Some(refusal(packet, code)),
            Err(Broken::Ignore) => Some(Vec::new()),
        }
    }

    /// Asks the server at `first`, or the next one that can be asked.
    fn forward(&mut self, packet: Vec<u8>, client: SocketAddr, first: usize) {
        for server in first..self.servers.len() {
            let to = self.servers[server];
            // A socket of its own for each question: the port is as hard to guess as the kernel makes it, and what is
            // not from this server does not arrive.
            let any: IpAddr =
                if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
            let asked = UdpSocket::bind((any, 0)).and_then(|socket| {
                socket.set_nonblocking(true)?;
                socket.connect(to)?;
                socket.send(&packet)?;
                Ok(socket)
            });
            if let Ok(socket) = asked {
                self.pending.push(Pending {
                    socket,
                    packet,
                    client,
                    server,
                    until: Instant::now() + PATIENCE,
                });
                return;
            }
        }
        let _ = self.udp.send_to(&refusal(&packet, SERVER_FAILURE), client);
    }

    fn answered(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let mut buffer = [0; 4096];
        let now = Instant::now();
        for pending in std::mem::take(&mut self.pending) {
            match pending.socket.recv(&mut buffer) {
                // Another id is a guess of somebody who forges the server's address.
                Ok(length) if length >= 12 && buffer[..2] == pending.packet[..2] && buffer[2] & 0x80 != 0 => {
                    // One that refuses or fails is no reason not to ask the next one, as resolv.conf(5) has it.
                    let answers = [NO_ERROR, NO_SUCH_NAME].contains(&(buffer[3] & 0xf));
                    if !answers && pending.server + 1 < self.servers.len() {
                        self.forward(pending.packet, pending.client, pending.server + 1);
                        continue;
                    }
                    let _ = self.udp.send_to(&buffer[..length], pending.client);
                }
                Err(e) if e.kind() != ErrorKind::WouldBlock => {
                    self.forward(pending.packet, pending.client, pending.server + 1);
                }
                _ if pending.until <= now => self.forward(pending.packet, pending.client, pending.server + 1),
                _ => self.pending.push(pending),
            }
        }
    }

    fn connected(&mut self, names: &mut Option<Names>) {
        let now = Instant::now();
        self.resting.take_if(|until| *until <= now);
        while self.streams.len() < MOST_STREAMS && self.resting.is_none() {
            match self.tcp.accept() {
                Ok((client, _)) if client.set_nonblocking(true).is_ok() => self.streams.push(Stream {
                    client,
                    server: None,
                    received: Vec::new(),
                    unsent: Vec::new(),
                    until: now + STREAM,
                }),
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                // Of one that has gone again.
                Err(e) if matches!(e.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted) => {}
                // It would be ready again and again.
                Ok(_) | Err(_) => self.resting = Some(now + REST),
            }
        }
        let mut streams = std::mem::take(&mut self.streams);
        streams.retain_mut(|stream| stream.until > now && self.serve(stream, now, names).is_some());
        self.streams = streams;
    }

    /// Goes on with a connection; nothing where it is over.
    fn serve(&self, stream: &mut Stream, now: Instant, names: &mut Option<Names>) -> Option<()> {
        stream.send()?;
        let mut buffer = [0; 4096];
        while stream.unsent.is_empty()
            && let Some(length) = moved(stream.client.read(&mut buffer))?
        {
            stream.received.extend_from_slice(&buffer[..length]);
            if stream.received.len() > MOST_RECEIVED {
                return None;
            }
        }
        while stream.server.is_none()
            && stream.unsent.is_empty()
            && let Some(length) =
                stream.received.first_chunk().map(|length| usize::from(u16::from_be_bytes(*length)))
            && let Some(packet) = stream.received.get(2..2 + length).map(<[u8]>::to_vec)
        {
            match self.local(&packet, usize::from(u16::MAX), names) {
                Some(reply) if reply.is_empty() => return None,
                Some(reply) => {
                    stream.received.drain(..2 + length);
                    stream.unsent.extend_from_slice(&(reply.len() as u16).to_be_bytes());
                    stream.unsent.extend_from_slice(&reply);
                    stream.send()?;
                }
                None => stream.server = Some(self.connect(0, now)?),
            }
        }
        let Some(server) = &mut stream.server else { return Some(()) };
        if let Some(until) = server.connecting {
            match server.is_connected() {
                Ok(true) => server.connecting = None,
                Ok(false) if now < until => return Some(()),
                Ok(false) | Err(_) => {
                    *server = self.connect(server.number + 1, now)?;
                    return Some(());
                }
            }
        }
        // From the first question on that only a server knows, it has all of them.
        while !stream.received.is_empty()
            && let Some(length) = moved(server.socket.write(&stream.received))?
        {
            stream.received.drain(..length);
        }
        for _ in 0..TURN {
            if !stream.unsent.is_empty() {
                break;
            }
            let server = stream.server.as_mut()?;
            let Some(length) = moved(server.socket.read(&mut buffer))? else { break };
            stream.unsent.extend_from_slice(&buffer[..length]);
            stream.send()?;
        }
        Some(())
    }

    /// Begins a connection to the server at `first`, or to the next one that can be asked.
    fn connect(&self, first: usize, now: Instant) -> Option<Server> {
        (first..self.servers.len()).find_map(|number| {
            let to = self.servers[number];
            let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let socket = socket_with(family, SocketType::STREAM, flags, None).ok()?;
            match connect(&socket, &to) {
                Ok(()) | Err(Errno::INPROGRESS) => {
                    Some(Server { socket: socket.into(), number, connecting: Some(now + PATIENCE) })
                }
                Err(_) => None,
            }
        })
    }
}

impl Stream {
    /// Sends what the client takes; nothing where it has gone.
    fn send(&mut self) -> Option<()> {
        while !self.unsent.is_empty()
            && let Some(length) = moved(self.client.write(&self.unsent))?
        {
            self.unsent.drain(..length);
        }
        Some(())
    }
}

impl Server {
    /// Whether the connection is made.
    ///
    /// # Errors
    /// Those of connect(2).
    fn is_connected(&self) -> std::io::Result<bool> {
        let mut fds = [PollFd::new(&self.socket, PollFlags::OUT)];
        if poll(&mut fds, Some(&Timespec::default()))? == 0 {
            return Ok(false);
        }
        self.socket.take_error()?.map_or(Ok(true), Err)
    }
}

/// How many bytes were moved, nothing of them where that would have to be waited for, and nothing at all where the
/// connection is over.
fn moved(result: std::io::Result<usize>) -> Option<Option<usize>> {
    match result {
        Ok(0) => None,
        Ok(length) => Some(Some(length)),
        Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Some(None),
        Err(_) => None,
    }
}

/// Leads port 53 of [`SERVER`] in this network namespace to where it is listened.
fn lead(ports: &[(u8, u16)]) -> Result<()> {
    const TABLE: &str = "rrun-dns";
    let mut batch = Batch::new(Family::V4, TABLE);
    // Whatever one before left, which listened elsewhere.
    batch.add_table(TABLE);
    batch.remove_table();
    batch.add_table(TABLE);
    batch.add_chain("output", Hook { kind: "nat", number: 3, priority: -100 });
    for (protocol, port) in ports {
        let steps = [
            Step::Network(16, 4, 0),
            Step::Is(0, SERVER.octets().to_vec()),
            Step::Protocol(0),
            Step::Is(0, vec![*protocol]),
            Step::Port(0),
            Step::Is(0, 53u16.to_be_bytes().to_vec()),
            Step::Load(0, SERVER.octets().to_vec()),
            Step::Load(1, port.to_be_bytes().to_vec()),
            Step::Dnat(0, 1),
        ];
        batch.add_rule("output", &steps);
    }
    batch.commit(&mut Socket::netfilter()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A question as a resolver sends it.
    pub fn ask(name: &str, kind: u16) -> Vec<u8> {
        let mut packet = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.').filter(|label| !label.is_empty()) {
            packet.push(label.len() as u8);
            packet.extend_from_slice(label.as_bytes());
        }
        packet.push(0);
        packet.extend_from_slice(&kind.to_be_bytes());
        packet.extend_from_slice(&[0, 1]);
        packet
    }

    fn names() -> Names {
        Names::new([
            ("db.net".into(), "10.0.0.2".parse().expect("ip")),
            ("DB".into(), "10.0.0.2".parse().expect("ip")),
            ("db".into(), "fd00::2".parse().expect("ip")),
            ("web".into(), "10.0.0.3".parse().expect("ip")),
        ])
    }

    fn reply_to(name: &str, kind: u16) -> Option<Vec<u8>> {
        let packet = ask(name, kind);
        answer(&packet, &question(&packet).expect("a question"), &names(), DATAGRAM)
    }

    #[test]
    fn names_are_answered_in_any_case_and_unknown_ones_are_passed_on() {
        let reply = reply_to("dB", A).expect("known");
        assert_eq!(reply[..8], [0x12, 0x34, 0x81, 0x80, 0, 1, 0, 1]);
        assert_eq!(reply[reply.len() - 4..], [10, 0, 0, 2]);
        assert_eq!(reply_to("db", AAAA).expect("known")[7], 1);
        assert_eq!(reply_to("db", ANY).expect("known")[7], 2);
        // Known, and without such an address: no error, and no answer.
        assert_eq!(reply_to("web", AAAA).expect("known")[3..8], [0x80, 0, 1, 0, 0]);
        assert_eq!(reply_to("example.org", A), None);
        assert_eq!(reply_to("", A), None);
        let back = reply_to("2.0.0.10.in-addr.arpa", PTR).expect("known");
        assert!(back.ends_with(b"\x02db\x03net\x00"), "{back:?}");
        assert_eq!(reply_to("9.0.0.10.in-addr.arpa", PTR), None);
        assert_eq!(reversed("1.2.3.4.5.in-addr.arpa"), None);
        let six = format!("2.{}d.f.ip6.arpa", "0.".repeat(29));
        assert_eq!(reversed(&six), Some("fd00::2".parse().expect("ip")));
    }

    #[test]
    fn an_answer_that_does_not_fit_says_so() {
        let many = Names::new((1..200).map(|n| ("db".to_owned(), Ipv4Addr::new(10, 0, 0, n).into())));
        let packet = ask("db", A);
        let question = question(&packet).expect("a question");
        let short = answer(&packet, &question, &many, DATAGRAM).expect("known");
        assert!(short.len() <= DATAGRAM && short[2] & 2 != 0);
        let count = usize::from(u16::from_be_bytes([short[6], short[7]]));
        assert_eq!(short.len(), packet.len() + count * 16);
        let all = answer(&packet, &question, &many, 65535).expect("known");
        assert_eq!((all[2] & 2, all[7]), (0, 199));
    }

    #[test]
    fn hostile_packets_are_refused_and_none_ends_the_server() {
        assert_eq!(question(&[]), Err(Broken::Ignore));
        assert_eq!(question(&[0; 11]), Err(Broken::Ignore));
        let good = ask("db", A);
        for end in 12..good.len() {
            assert_eq!(question(&good[..end]), Err(Broken::Refuse(FORMAT_ERROR)), "{end}");
        }
        let change = |at: usize, to: u8| {
            let mut packet = good.clone();
            packet[at] = to;
            packet
        };
        assert_eq!(question(&change(2, 0x81)), Err(Broken::Ignore));
        assert_eq!(question(&change(2, 0x28)), Err(Broken::Refuse(NOT_IMPLEMENTED)));
        assert_eq!(question(&change(5, 0)), Err(Broken::Refuse(FORMAT_ERROR)));
        assert_eq!(question(&change(5, 2)), Err(Broken::Refuse(FORMAT_ERROR)));
        // A pointer to itself, and a label that is too long.
        assert_eq!(question(&change(12, 0xc0)), Err(Broken::Refuse(FORMAT_ERROR)));
        assert_eq!(question(&change(12, 64)), Err(Broken::Refuse(FORMAT_ERROR)));
        let long = ask(&"a.".repeat(128), A);
        assert_eq!(question(&long), Err(Broken::Refuse(FORMAT_ERROR)));
        // `db.net` as one label is not the name of two.
        let mut packet = ask("dbxnet", A);
        packet[15] = b'.';
        let asked = question(&packet).expect("a question");
        assert_eq!(answer(&packet, &asked, &names(), DATAGRAM), None);
        for (code, packet) in [(FORMAT_ERROR, change(5, 0)), (NOT_IMPLEMENTED, change(2, 0x28))] {
            let reply = refusal(&packet, code);
            assert_eq!((reply.len(), reply[3] & 15, reply[2] & 0x80), (12, code, 0x80));
        }
        // Whatever bytes come, in a fixed order: nothing panics, and an answer answers the question.
        let mut state: u32 = 1;
        for length in 0..2000 {
            let packet: Vec<u8> = (0..length % 80)
                .map(|at| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    good.get(at).copied().filter(|_| state >> 28 != 0).unwrap_or((state >> 24) as u8)
                })
                .collect();
            match question(&packet) {
                Ok(asked) => {
                    if let Some(reply) = answer(&packet, &asked, &names(), DATAGRAM) {
                        assert_eq!(reply[..2], packet[..2]);
                    }
                }
                Err(Broken::Refuse(code)) => assert!(refusal(&packet, code).len() >= 12),
                Err(Broken::Ignore) => {}
            }
        }
    }

    #[test]
    fn the_hosts_servers_are_read_without_ourselves() {
        let text = "# x\nnameserver 10.0.0.53\nnameserver 127.0.0.11\nnameserverx 1.1.1.1\nnameserver\tfd00::53 # y\n\
                    search a\nnameserver 1.1.1.1\nnameserver 2.2.2.2\n";
        let found: Vec<String> = servers(text).iter().map(SocketAddr::to_string).collect();
        assert_eq!(found, ["10.0.0.53:53", "[fd00::53]:53", "1.1.1.1:53"]);
    }

    fn loopback() -> SocketAddr {
        (Ipv4Addr::LOCALHOST, 0).into()
    }

    /// A responder without a network namespace of its own, and where it listens.
    fn responder(servers: Vec<SocketAddr>) -> (Responder, [SocketAddr; 2]) {
        let udp = UdpSocket::bind(loopback()).expect("bind");
        let tcp = TcpListener::bind(loopback()).expect("bind");
        let at = [udp.local_addr().expect("address"), tcp.local_addr().expect("address")];
        (Responder::new([udp.into(), tcp.into()], servers, Vec::new()).expect("sockets"), at)
    }

    /// A turn of whoever holds it: how many descriptors were ready within so many milliseconds.
    fn turn(responder: &mut Responder, wait: u64) -> usize {
        let mut fds = Vec::new();
        responder.poll(&mut fds);
        let left = responder.deadline().map(|until| until.saturating_duration_since(Instant::now()));
        let wait = left.unwrap_or(STREAM).min(Duration::from_millis(wait));
        let wait = Timespec { tv_sec: wait.as_secs().cast_signed(), tv_nsec: wait.subsec_nanos().into() };
        let ready = poll(&mut fds, Some(&wait)).expect("poll");
        drop(fds);
        responder.ready();
        ready
    }

    /// Turns until nothing is ready any more.
    fn settle(responder: &mut Responder) {
        let settled = (0..10_000).any(|_| turn(responder, 20) == 0);
        assert!(settled, "something is ready again and again");
    }

    fn framed(packet: &[u8]) -> Vec<u8> {
        [&(packet.len() as u16).to_be_bytes()[..], packet].concat()
    }

    /// Nothing that a local answer is needs a name: a packet with a code.
    fn refused() -> Vec<u8> {
        let mut packet = ask("db", A);
        packet[5] = 2;
        packet
    }

    #[test]
    fn who_refuses_is_not_the_last_one_to_be_asked() {
        let (refuses, knows) = (UdpSocket::bind(loopback()), UdpSocket::bind(loopback()));
        let (refuses, knows) = (refuses.expect("bind"), knows.expect("bind"));
        let at = |socket: &UdpSocket| socket.local_addr().expect("address");
        let (mut responder, [udp, _]) = responder(vec![at(&refuses), at(&knows)]);
        let client = UdpSocket::bind(loopback()).expect("bind");
        for socket in [&refuses, &knows, &client] {
            socket.set_read_timeout(Some(Duration::from_secs(10))).expect("setsockopt");
        }
        let answers = |server: &UdpSocket, code: u8| {
            let mut packet = [0; 600];
            let (length, from) = server.recv_from(&mut packet).expect("a question");
            (packet[2], packet[3]) = (0x80, code);
            server.send_to(&packet[..length], from).expect("send");
        };
        client.send_to(&ask("example.org", A), udp).expect("send");
        turn(&mut responder, 1000);
        answers(&refuses, 5);
        turn(&mut responder, 1000);
        answers(&knows, NO_ERROR);
        turn(&mut responder, 1000);
        let mut answer = [0; 600];
        client.recv(&mut answer).expect("an answer");
        assert_eq!(answer[3] & 0xf, NO_ERROR);
        // That there is no such name is an answer, and the last one's words are those that there are.
        for (code, asked) in [(NO_SUCH_NAME, false), (SERVER_FAILURE, true)] {
            client.send_to(&ask("example.org", A), udp).expect("send");
            turn(&mut responder, 1000);
            answers(&refuses, code);
            turn(&mut responder, 1000);
            if asked {
                answers(&knows, 5);
                turn(&mut responder, 1000);
            }
            client.recv(&mut answer).expect("an answer");
            assert_eq!(answer[3] & 0xf, if asked { 5 } else { code });
        }
    }

    #[test]
    fn a_flood_is_bounded_and_what_is_known_is_answered_in_it() {
        let silent = UdpSocket::bind(loopback()).expect("bind");
        silent.set_nonblocking(true).expect("fcntl");
        let (mut responder, [udp, tcp]) = responder(vec![silent.local_addr().expect("address")]);
        let client = UdpSocket::bind(loopback()).expect("bind");
        client.set_read_timeout(Some(Duration::from_secs(10))).expect("setsockopt");
        let mut asked = 0;
        for n in 0..1000 {
            client.send_to(&ask(&format!("n{n}.example.org"), A), udp).expect("send");
            client.send_to(&vec![n as u8; n], udp).expect("send");
            turn(&mut responder, 0);
            while silent.recv(&mut [0; 600]).is_ok() {
                asked += 1;
            }
        }
        assert_eq!((responder.pending.len(), asked), (MOST_PENDING, MOST_PENDING));
        let mut streams: Vec<_> = (0..40).map(|_| TcpStream::connect(tcp).expect("connect")).collect();
        // Half a length, half a packet, and a foreign question to a server that has nobody at its port.
        for (n, stream) in streams.iter_mut().enumerate() {
            let bytes = framed(&ask("example.org", A));
            stream.write_all(&bytes[..[1, 9, bytes.len()][n % 3]]).expect("write");
        }
        settle(&mut responder);
        assert!(responder.streams.len() == MOST_STREAMS, "{}", responder.streams.len());
        // Endless input is the end of the connection that it comes by.
        let hostile = streams.iter_mut().find(|stream| {
            responder.streams[0]
                .client
                .peer_addr()
                .is_ok_and(|peer| stream.local_addr().is_ok_and(|ours| ours == peer))
        });
        let hostile = hostile.expect("the first one");
        while hostile.write(&[0x7f; 4096]).is_ok() {
            turn(&mut responder, 0);
        }
        settle(&mut responder);
        while client.set_nonblocking(true).is_ok() && client.recv(&mut [0; 600]).is_ok() {}
        client.set_nonblocking(false).expect("fcntl");
        client.send_to(&refused(), udp).expect("send");
        settle(&mut responder);
        let mut reply = [0; 600];
        let length = client.recv(&mut reply).expect("an answer");
        assert_eq!(reply[..length], refusal(&refused(), FORMAT_ERROR));
        drop(streams);
        settle(&mut responder);
        assert_eq!(responder.streams.len(), 0);
        // The server's time is over: it was the last one.
        while !responder.pending.is_empty() {
            turn(&mut responder, 100);
        }
        client.recv(&mut reply).expect("an answer");
        assert_eq!(reply[3] & 15, SERVER_FAILURE);
    }

    #[test]
    fn a_server_that_does_not_take_the_connection_keeps_nobody_waiting() {
        // A queue that is full drops what asks to be in it: connect(2) goes on for minutes.
        let full =
            socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None).expect("socket");
        rustix::net::bind(&full, &loopback()).expect("bind");
        rustix::net::listen(&full, 0).expect("listen");
        let full = TcpListener::from(full);
        let address = full.local_addr().expect("address");
        let near = Duration::from_millis(100);
        let mut queue = Vec::new();
        while let Ok(one) = TcpStream::connect_timeout(&address, near) {
            queue.push(one);
        }
        let good = TcpListener::bind(loopback()).expect("bind");
        let (mut responder, [_, tcp]) = responder(vec![address, good.local_addr().expect("address")]);
        let question = framed(&ask("example.org", A));
        let mut foreign = TcpStream::connect(tcp).expect("connect");
        foreign.write_all(&question).expect("write");
        settle(&mut responder);
        // It was begun, and nobody has waited for it.
        assert!(responder.streams[0].server.as_ref().is_some_and(|server| server.number == 0));
        let mut local = TcpStream::connect(tcp).expect("connect");
        // Two at once are answered one after the other.
        local.write_all(&[framed(&refused()), framed(&refused())].concat()).expect("write");
        settle(&mut responder);
        let mut replies = vec![0; 2 * 14];
        local.read_exact(&mut replies).expect("answers");
        assert_eq!(replies, framed(&refusal(&refused(), FORMAT_ERROR)).repeat(2));
        let server = std::thread::spawn(move || {
            let (mut stream, _) = good.accept().expect("accept");
            let mut asked = vec![0; question.len()];
            stream.read_exact(&mut asked).expect("read");
            assert_eq!(asked, question);
            stream.write_all(b"\x00\x05world").expect("write");
        });
        while !server.is_finished() {
            turn(&mut responder, 100);
        }
        server.join().expect("no panic");
        settle(&mut responder);
        let mut reply = Vec::new();
        foreign.read_to_end(&mut reply).expect("read");
        assert_eq!(reply, b"\x00\x05world");
    }

    #[test]
    fn a_client_that_does_not_read_makes_the_server_wait_and_loses_nothing() {
        let listener = TcpListener::bind(loopback()).expect("bind");
        let (mut responder, [_, tcp]) = responder(vec![listener.local_addr().expect("address")]);
        let mut client = TcpStream::connect(tcp).expect("connect");
        client.write_all(&framed(&ask("example.org", A))).expect("write");
        let size = 16 << 20;
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("accept");
            // The question, so that nothing unread resets the connection.
            stream.read_exact(&mut [0; 31]).expect("read");
            let all: Vec<u8> = (0..size).map(|n: usize| (n / 7) as u8).collect();
            stream.write_all(&all).expect("write");
        });
        while responder.streams.first().is_none_or(|stream| stream.unsent.is_empty()) {
            turn(&mut responder, 100);
        }
        settle(&mut responder);
        assert!(responder.streams[0].unsent.capacity() < 1 << 16);
        let reader = std::thread::spawn(move || {
            let mut all = Vec::new();
            client.read_to_end(&mut all).expect("read");
            all
        });
        while !reader.is_finished() {
            turn(&mut responder, 100);
        }
        server.join().expect("no panic");
        let all = reader.join().expect("no panic");
        assert!(
            all.len() == size && all.iter().enumerate().all(|(n, byte)| *byte == (n / 7) as u8),
            "{}",
            all.len()
        );
    }
}
