//! Published ports: the host's sockets are held, so that no other program gets them, and what reaches one of them all
//! the same, because no rule of the firewall took it (`[::1]`, or no rules at all), is passed to the container.

#![forbid(unsafe_code)]

use super::Port;
use super::datagrams::Datagrams;
use crate::error::Result;
use crate::network::Netns;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt::{set_socket_keepalive, set_tcp_keepidle, set_tcp_keepintvl, socket_error};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType, accept_with, connect,
    getpeername, listen, recv, send, shutdown, socket_with,
};
use rustix::process::{Resource, getrlimit};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How many connections are passed on at once, where there are descriptors for so many.
const MOST: usize = 4096;
/// Descriptors for everything else: attached clients, streams, the log.
const OTHERS: usize = 128;
/// How much is taken at once, and so how much waits for one that does not read.
const AT_ONCE: usize = 32 * 1024;
/// How long a connection of which one side has ended may rest. Those that the firewall translates rest one or two
/// minutes (nf_conntrack_tcp_timeout_fin_wait). One that is open may rest for ever.
const HALF_CLOSED: Duration = Duration::from_secs(300);
/// How long nothing is accepted for want of descriptors or memory.
const EXHAUSTED: Duration = Duration::from_millis(100);
/// Whether the other side is still there is asked as often as Go's sockets do it, and so Docker's proxy.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// The ports of one container.
#[derive(Debug, Default)]
pub(super) struct Ports {
    sockets: Vec<(OwnedFd, Option<SocketAddr>)>,
    /// From where the container is reached, if not from here.
    netns: Option<PathBuf>,
    connections: Vec<Connection>,
    most: usize,
    /// The last accept(2) failed for want of something, and would again and again.
    exhausted: Option<Instant>,
    datagrams: Datagrams,
}

impl Ports {
    /// Holds `sockets`, which are for `ports`.
    pub fn new(sockets: Vec<OwnedFd>, ports: &[Port]) -> Self {
        let mut held = Self::default();
        held.add(sockets, ports);
        held
    }

    /// Holds further ones.
    pub fn add(&mut self, sockets: Vec<OwnedFd>, ports: &[Port]) {
        self.netns = ports.iter().find_map(|port| port.netns.clone()).or_else(|| self.netns.take());
        let descriptors = getrlimit(Resource::Nofile).current.map_or(usize::MAX, |most| most as usize);
        let mut of_udp = Vec::new();
        for (n, socket) in sockets.into_iter().enumerate() {
            let _ = rustix::io::ioctl_fionbio(&socket, true);
            match ports.get(n).and_then(|port| Some((port.protocol.as_str(), port.to?))) {
                Some(("udp", to)) => of_udp.push((socket, to)),
                // One that does not listen has hung up, says poll(2), and says it at once for ever.
                Some(("tcp", to)) if listen(&socket, 128).is_ok() => self.sockets.push((socket, Some(to))),
                _ => self.sockets.push((socket, None)),
            }
        }
        self.datagrams.add(of_udp, self.netns.clone());
        let held = self.sockets.len() + self.datagrams.held();
        let rest = descriptors.saturating_sub(OTHERS + held);
        // A connection has two descriptors, a client of UDP one.
        let share = if self.datagrams.held() == 0 { rest / 2 } else { rest / 3 };
        self.most = share.clamp(8, MOST);
        self.datagrams.most = self.most;
    }

    /// What to wait for.
    pub fn poll<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) {
        for (socket, to) in &self.sockets {
            if to.is_some() && self.exhausted.is_none() {
                fds.push(PollFd::new(socket, PollFlags::IN));
            }
        }
        fds.extend(self.connections.iter().flat_map(Connection::poll));
        self.datagrams.poll(fds);
    }

    /// When [`Ports::ready`] has to be called although nothing is ready.
    pub fn deadline(&self) -> Option<Instant> {
        let half = self.connections.iter().filter(|connection| connection.is_half_closed());
        half.map(|connection| connection.moved + HALF_CLOSED)
            .chain(self.exhausted)
            .chain(self.datagrams.deadline())
            .min()
    }

    /// Does what can be done without waiting.
    pub fn ready(&mut self) {
        let now = Instant::now();
        self.datagrams.ready(now);
        self.exhausted = self.exhausted.filter(|until| *until > now);
        if !self.connections.is_empty() {
            self.pass(now);
        }
        for n in 0..self.sockets.len() {
            let (socket, to) = &self.sockets[n];
            let Some(to) = *to else { continue };
            // As many as wait to be accepted: who comes meanwhile has the next turn.
            for _ in 0..128 {
                if self.exhausted.is_some() {
                    return;
                }
                match accept_with(socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                    Ok(client) => {
                        let from = from(&client);
                        if let Some(place) = place(&mut self.connections, self.most, from) {
                            place.extend(Connection::open(client, from, to, self.netns.as_deref()).ok());
                        }
                    }
                    Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                        self.exhausted = Some(now + EXHAUSTED);
                    }
                    Err(Errno::AGAIN) => break,
                    // One connection's failure (accept(2)).
                    Err(_) => {}
                }
            }
        }
    }

    /// Passes on what there is. The ready ones are asked for once, so that those that rest cost next to nothing.
    fn pass(&mut self, now: Instant) {
        let mut fds: Vec<_> = self.connections.iter().flat_map(Connection::poll).collect();
        let counts: Vec<_> = self.connections.iter().map(|connection| connection.poll().count()).collect();
        let ready = ready(&mut fds);
        let mut ready = ready.iter();
        let ready: Vec<_> = counts
            .iter()
            .map(|count| ready.by_ref().take(*count).filter(|ready| **ready).count() > 0)
            .collect();
        let (mut ready, mut buffer) = (ready.into_iter(), vec![0; AT_ONCE]);
        let before = self.connections.len();
        self.connections.retain_mut(|connection| {
            if ready.next() == Some(true) {
                return connection.pass(now, &mut buffer).unwrap_or(false);
            }
            !connection.is_half_closed() || now < connection.moved + HALF_CLOSED
        });
        if self.connections.len() < before {
            self.exhausted = None;
            self.connections.shrink_to(8);
        }
    }
}

/// Which of `fds` are ready now; where poll(2) fails none, and the next turn comes soon.
pub(super) fn ready(fds: &mut [PollFd<'_>]) -> Vec<bool> {
    let _ = poll(fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
    fds.iter().map(|fd| !fd.revents().is_empty()).collect()
}

/// A socket from which `to` is reached, an address in `netns` or here. A socket is of the network namespace in which it is
/// made.
pub(super) fn socket_to(to: SocketAddr, kind: SocketType, netns: Option<&Path>) -> Result<OwnedFd> {
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = || Ok(socket_with(family, kind, flags, None)?);
    netns.map_or_else(socket, |netns| Netns::open(netns)?.enter(socket))
}

/// Whom something is from: an IPv4 address, or what one subscriber has of IPv6 (RFC 6177).
pub(super) type From = [u8; 8];

pub(super) fn subscriber(ip: IpAddr) -> From {
    let mut from = [0; 8];
    match ip {
        IpAddr::V4(ip) => from[..4].copy_from_slice(&ip.octets()),
        IpAddr::V6(ip) => from.copy_from_slice(&ip.octets()[..8]),
    }
    from
}

fn from(client: &OwnedFd) -> From {
    let address = getpeername(client).ok().flatten().and_then(|address| SocketAddr::try_from(address).ok());
    address.map_or([0; 8], |address| subscriber(address.ip()))
}

/// What takes a place.
pub(super) trait Guest {
    /// Whose it is.
    fn from(&self) -> From;
}

impl Guest for Connection {
    fn from(&self) -> From {
        self.from
    }
}

/// Who has the most places, unless that is `from`, who wants one more: who takes all places shall not keep the others out.
pub(super) fn greedy<'a>(guests: impl Iterator<Item = &'a (impl Guest + 'a)>, from: From) -> Option<From> {
    let mut counts: HashMap<From, usize> = HashMap::new();
    for guest in guests {
        *counts.entry(guest.from()).or_default() += 1;
    }
    let own = counts.get(&from).copied().unwrap_or_default();
    let more = counts.into_iter().filter(|(_, count)| *count > own + 1);
    more.max_by_key(|(_, count)| *count).map(|(greedy, _)| greedy)
}

/// Where one more connection of `from` finds room. If there is none, the greedy one's that has rested longest makes room.
fn place(connections: &mut Vec<Connection>, most: usize, from: From) -> Option<&mut Vec<Connection>> {
    if connections.len() >= most {
        let greedy = greedy(connections.iter(), from)?;
        let of_greedy = connections.iter().enumerate().filter(|(_, connection)| connection.from == greedy);
        let (rests, _) = of_greedy.min_by_key(|(_, connection)| connection.moved)?;
        connections.swap_remove(rests);
    }
    Some(connections)
}

/// One connection and the one to the container.
#[derive(Debug)]
struct Connection {
    client: OwnedFd,
    server: OwnedFd,
    from: From,
    connected: bool,
    /// From client to server, and back.
    flows: [Flow; 2],
    /// When anything was last passed on.
    moved: Instant,
}

/// One direction.
#[derive(Debug, Default)]
struct Flow {
    /// What the sink has not taken yet.
    left: Vec<u8>,
    /// The source has ended.
    ended: bool,
    /// And the sink has been told.
    told: bool,
}

impl Flow {
    /// Moves what there is; whether it was anything.
    fn pass(&mut self, from: &OwnedFd, to: &OwnedFd, buffer: &mut [u8]) -> Result<bool, Errno> {
        let mut moved = false;
        // A connection that never rests may not keep the container's output waiting.
        for _ in 0..16 {
            let mut rest: &[u8] = if self.left.is_empty() && !self.ended {
                match recv(from, &mut *buffer, RecvFlags::DONTWAIT) {
                    Ok((0, _)) => {
                        self.ended = true;
                        &[]
                    }
                    Ok((n, _)) => &buffer[..n],
                    Err(Errno::AGAIN) => return Ok(moved),
                    Err(e) => return Err(e),
                }
            } else {
                &self.left[..]
            };
            let whole = rest.len();
            while !rest.is_empty() {
                match send(to, rest, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                    Ok(n) => rest = &rest[n..],
                    Err(Errno::AGAIN) => break,
                    Err(e) => return Err(e),
                }
            }
            moved |= rest.len() < whole || self.ended && !self.told;
            if !rest.is_empty() {
                self.left = rest.to_vec();
                return Ok(moved);
            }
            self.left = Vec::new();
            if self.ended {
                if !self.told {
                    self.told = true;
                    let _ = shutdown(to, Shutdown::Write);
                }
                return Ok(moved);
            }
        }
        Ok(moved)
    }
}

impl Connection {
    fn open(client: OwnedFd, from: From, to: SocketAddr, netns: Option<&Path>) -> Result<Self> {
        let server = socket_to(to, SocketType::STREAM, netns)?;
        for socket in [&client, &server] {
            // Who has gone without a word would have its place for ever.
            set_socket_keepalive(socket, true)?;
            set_tcp_keepidle(socket, KEEPALIVE)?;
            set_tcp_keepintvl(socket, KEEPALIVE)?;
        }
        let connected = match connect(&server, &to) {
            Ok(()) => true,
            Err(Errno::INPROGRESS) => false,
            Err(e) => return Err(e.into()),
        };
        Ok(Self { client, server, from, connected, flows: Default::default(), moved: Instant::now() })
    }

    fn poll(&self) -> impl Iterator<Item = PollFd<'_>> {
        let interest = if self.connected {
            let [there, back] = &self.flows;
            let side = |reads: &Flow, writes: &Flow| {
                let mut flags = PollFlags::empty();
                flags.set(PollFlags::IN, !reads.ended && reads.left.is_empty());
                flags.set(PollFlags::OUT, !writes.left.is_empty());
                flags
            };
            [side(there, back), side(back, there)]
        } else {
            [PollFlags::empty(), PollFlags::OUT]
        };
        let both = [&self.client, &self.server].into_iter().zip(interest);
        // POLLHUP comes whether it is asked for or not, and again and again.
        both.filter(|(_, flags)| !flags.is_empty()).map(|(socket, flags)| PollFd::new(socket, flags))
    }

    fn is_half_closed(&self) -> bool {
        self.flows.iter().any(|flow| flow.told)
    }

    /// Whether it goes on.
    fn pass(&mut self, now: Instant, buffer: &mut [u8]) -> Result<bool, Errno> {
        if !self.connected {
            // It is ready, one way or the other.
            socket_error(self.server.as_fd())??;
            self.connected = true;
        }
        let [there, back] = &mut self.flows;
        let moved = there.pass(&self.client, &self.server, buffer)?;
        if back.pass(&self.server, &self.client, buffer)? || moved {
            self.moved = now;
        }
        Ok(!(self.flows[0].told && self.flows[1].told))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream, UdpSocket};

    /// Runs the loop until `done` says so.
    fn run(ports: &mut Ports, done: impl Fn() -> bool) {
        while !done() {
            let mut fds = Vec::new();
            ports.poll(&mut fds);
            let wait = rustix::event::Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
            rustix::event::poll(&mut fds, Some(&wait)).expect("poll");
            ports.ready();
        }
    }

    fn tcp(to: SocketAddr) -> Port {
        Port { protocol: "tcp".to_owned(), to: Some(to), netns: None }
    }

    #[test]
    fn many_connections_are_passed_on_whole_with_their_half_closes() {
        let server = TcpListener::bind("127.0.0.1:0").expect("bind");
        let to = server.local_addr().expect("an address");
        let held = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).expect("bind");
        let address = held.local_addr().expect("an address");
        let mut ports = Ports::new(vec![held.into()], &[tcp(to)]);
        let (clients, size) = (80, 300_000);
        // Answers with as much as it got, once that has ended.
        std::thread::spawn(move || {
            let mut threads = Vec::new();
            for stream in server.incoming().take(clients) {
                let mut stream = stream.expect("a connection");
                threads.push(std::thread::spawn(move || {
                    let mut all = Vec::new();
                    stream.read_to_end(&mut all).expect("read");
                    all.reverse();
                    stream.write_all(&all).expect("write");
                }));
            }
            for thread in threads {
                thread.join().expect("no panic");
            }
        });
        let clients: Vec<_> = (0..clients)
            .map(|n| {
                std::thread::spawn(move || {
                    let mut stream = TcpStream::connect(address).expect("connect");
                    let sent: Vec<u8> = (0..size).map(|at| (at * (n + 3)) as u8).collect();
                    stream.write_all(&sent).expect("write");
                    stream.shutdown(std::net::Shutdown::Write).expect("shutdown");
                    let mut got = Vec::new();
                    stream.read_to_end(&mut got).expect("read");
                    got.reverse();
                    assert!(got == sent, "connection {n}: {} bytes", got.len());
                })
            })
            .collect();
        run(&mut ports, || clients.iter().all(std::thread::JoinHandle::is_finished));
        for client in clients {
            client.join().expect("no panic");
        }
        run(&mut ports, || true);
        assert!(ports.connections.is_empty(), "{:?}", ports.connections.len());
    }

    #[test]
    fn a_container_that_does_not_listen_ends_the_connection() {
        let nobody = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("bind");
        let held = TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = held.local_addr().expect("an address");
        let mut ports = Ports::new(vec![held.into()], &[tcp(nobody)]);
        let client = std::thread::spawn(move || {
            TcpStream::connect(address).and_then(|mut stream| stream.read(&mut [0])).unwrap_or(0)
        });
        run(&mut ports, || client.is_finished());
        assert_eq!(client.join().expect("no panic"), 0);
    }

    /// Four places; a held socket at each address, whose connections go to `server`.
    fn narrow(held: &[IpAddr], server: &TcpListener) -> (Ports, Vec<SocketAddr>) {
        let to = server.local_addr().expect("an address");
        let held: Vec<_> = held.iter().map(|ip| TcpListener::bind((*ip, 0)).expect("bind")).collect();
        let at = held.iter().map(|held| held.local_addr().expect("an address")).collect();
        let all: Vec<_> = held.iter().map(|_| tcp(to)).collect();
        let mut ports = Ports::new(held.into_iter().map(Into::into).collect(), &all);
        ports.most = 4;
        (ports, at)
    }

    #[test]
    fn who_takes_all_places_does_not_keep_others_out() {
        let server = TcpListener::bind("127.0.0.1:0").expect("bind");
        let (mut ports, at) = narrow(&[Ipv6Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()], &server);
        let mut greedy = Vec::new();
        for n in 1..=4 {
            greedy.push(TcpStream::connect(at[0]).expect("connect"));
            while ports.connections.len() < n {
                ports.ready();
            }
        }
        // Its own fifth one finds no place.
        let mut fifth = TcpStream::connect(at[0]).expect("connect");
        while fifth.set_nonblocking(true).is_ok() && would_block(&mut fifth) {
            ports.ready();
        }
        // The longest at rest makes room for another one's, who then has as much room as anybody.
        let mut other = TcpStream::connect(at[1]).expect("connect");
        greedy[0].set_nonblocking(true).expect("nonblocking");
        while would_block(&mut greedy[0]) {
            ports.ready();
        }
        assert_eq!(ports.connections.len(), 4);
        other.write_all(b"x").expect("write");
        for mut rests in greedy.drain(1..) {
            rests.set_nonblocking(true).expect("nonblocking");
            assert!(would_block(&mut rests));
        }
        let mut met = (0..5).map(|_| server.accept().expect("accept").0);
        let mut last = met.by_ref().last().expect("a connection");
        last.set_nonblocking(true).expect("nonblocking");
        run(&mut ports, || matches!(last.peek(&mut [0]), Ok(1)));
        let mut byte = [0];
        last.read_exact(&mut byte).expect("read");
        assert_eq!(&byte, b"x");
    }

    /// Whether it is open and has nothing to read.
    fn would_block(stream: &mut TcpStream) -> bool {
        stream.read(&mut [0]).is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock)
    }

    #[test]
    fn an_open_connection_may_rest_and_a_half_closed_one_not_for_ever() {
        let server = TcpListener::bind("127.0.0.1:0").expect("bind");
        let (mut ports, at) = narrow(&[Ipv4Addr::LOCALHOST.into()], &server);
        let connect = || TcpStream::connect(at[0]).expect("connect");
        let (_open, half) = (connect(), connect());
        half.shutdown(std::net::Shutdown::Write).expect("shutdown");
        while !ports.connections.iter().any(Connection::is_half_closed) || ports.connections.len() < 2 {
            ports.ready();
        }
        let left = ports.deadline().expect("a deadline").saturating_duration_since(Instant::now());
        assert!(left > HALF_CLOSED / 2 && left <= HALF_CLOSED, "{left:?}");
        for connection in &mut ports.connections {
            connection.moved = connection.moved.checked_sub(HALF_CLOSED).expect("an earlier time");
        }
        ports.ready();
        assert_eq!((ports.connections.len(), ports.deadline()), (1, None));
        assert!(!ports.connections[0].is_half_closed());
    }

    #[test]
    fn without_descriptors_nothing_is_accepted_and_nothing_spins() {
        struct Limit(rustix::process::Rlimit);
        impl Drop for Limit {
            fn drop(&mut self) {
                rustix::process::setrlimit(Resource::Nofile, self.0).expect("setrlimit");
            }
        }
        let server = TcpListener::bind("127.0.0.1:0").expect("bind");
        let (mut ports, at) = narrow(&[Ipv4Addr::LOCALHOST.into()], &server);
        let _client = TcpStream::connect(at[0]).expect("connect");
        let limit = Limit(getrlimit(Resource::Nofile));
        rustix::process::setrlimit(
            Resource::Nofile,
            rustix::process::Rlimit { current: Some(0), maximum: limit.0.maximum },
        )
        .expect("setrlimit");
        ports.ready();
        let mut fds = Vec::new();
        ports.poll(&mut fds);
        assert!(fds.is_empty() && ports.connections.is_empty());
        drop(fds);
        let until = ports.deadline().expect("a deadline");
        drop(limit);
        while Instant::now() < until {
            std::thread::sleep(until - Instant::now());
        }
        ports.ready();
        assert_eq!(ports.connections.len(), 1);
    }

    #[test]
    fn a_port_that_nobody_listens_at_yet_is_listened_at() {
        let server = TcpListener::bind("127.0.0.1:0").expect("bind");
        let held =
            socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None).expect("socket");
        rustix::net::bind(&held, &SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("bind");
        let at = SocketAddr::try_from(rustix::net::getsockname(&held).expect("a name")).expect("an address");
        let mut ports = Ports::new(vec![held], &[tcp(server.local_addr().expect("an address"))]);
        let _client = TcpStream::connect(at).expect("connect");
        while ports.connections.is_empty() {
            ports.ready();
        }
        assert_eq!(ports.connections.len(), 1);
    }

    #[test]
    fn datagrams_are_passed_on_beside_connections() {
        let (server, udp) = (UdpSocket::bind("127.0.0.1:0"), UdpSocket::bind("[::1]:0"));
        let (server, udp) = (server.expect("bind"), udp.expect("bind"));
        let (to, at) = (server.local_addr().expect("an address"), udp.local_addr().expect("an address"));
        let port = Port { protocol: "udp".to_owned(), to: Some(to), netns: None };
        let held = TcpListener::bind("127.0.0.1:0").expect("bind");
        let mut ports = Ports::new(vec![held.into(), udp.into()], &[tcp(to), port]);
        let client = std::thread::spawn(move || {
            let client = UdpSocket::bind("[::1]:0").expect("bind");
            client.set_read_timeout(Some(Duration::from_secs(10))).expect("a time");
            client.send_to(b"a question", at).expect("send");
            let mut answer = [0; 100];
            let (n, from) = client.recv_from(&mut answer).expect("an answer");
            assert_eq!((&answer[..n], from), (&b"an answer"[..], at));
        });
        std::thread::spawn(move || {
            let (_, from) = server.recv_from(&mut [0; 100]).expect("a question");
            server.send_to(b"an answer", from).expect("send");
        });
        run(&mut ports, || client.is_finished());
        client.join().expect("an answer");
        assert!(ports.deadline().is_some());
    }

    #[test]
    fn sockets_that_are_not_passed_on_are_held_and_nothing_more() {
        let udp = UdpSocket::bind("127.0.0.1:0").expect("bind");
        let address = udp.local_addr().expect("an address");
        let port = Port { protocol: "udp".to_owned(), to: None, netns: None };
        let ports = Ports::new(vec![udp.into()], &[port]);
        let mut fds = Vec::new();
        ports.poll(&mut fds);
        assert!(fds.is_empty());
        UdpSocket::bind(address).expect_err("taken");
        drop(fds);
        drop(ports);
        UdpSocket::bind(address).expect("free");
    }
}
