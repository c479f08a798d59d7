//! Published ports of UDP: what comes to a held socket goes on from a socket that is this client's alone, and what the
//! container answers there goes back to the client, from the address that it has written to.

#![forbid(unsafe_code)]

use super::ports::{From, Guest, greedy, ready, socket_to, subscriber};
use crate::sys::{self, Arrival};
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketType, connect, recv, send};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The longest datagram there is.
const LONGEST: usize = 64 * 1024;
/// How long a client that is silent, and to whom nothing is said, keeps its socket: as long as with Docker's proxy.
const SILENT: Duration = Duration::from_secs(90);
/// How much of one client is passed on, how much of all of a port's, and how many of them may be new, before the
/// container's output has its turn again.
const AT_ONCE: usize = 8;
const OF_ALL: usize = 64;
const NEW: usize = 16;

/// The ports of UDP of one container.
#[derive(Debug, Default)]
pub(super) struct Datagrams {
    held: Vec<(OwnedFd, SocketAddr)>,
    netns: Option<PathBuf>,
    exchanges: HashMap<Key, Exchange>,
    /// How many clients there may be at a time.
    pub most: usize,
}

/// Which held socket, who writes to it, and to which of the host's addresses.
type Key = (usize, Arrival);

/// A client and the container.
#[derive(Debug)]
struct Exchange {
    server: OwnedFd,
    from: From,
    /// When anything was last passed on.
    moved: Instant,
}

impl Guest for Exchange {
    fn from(&self) -> From {
        self.from
    }
}

impl Datagrams {
    /// Passes on what comes to each of `held` to the address beside it, which is one in `netns`, too.
    pub fn add(&mut self, held: Vec<(OwnedFd, SocketAddr)>, netns: Option<PathBuf>) {
        for (socket, _) in &held {
            let _ = sys::tell_destinations(socket.as_fd());
        }
        self.held.extend(held);
        self.netns = netns;
    }

    /// How many sockets are held.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// What to wait for.
    pub fn poll<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) {
        fds.extend(self.held.iter().map(|(socket, _)| PollFd::new(socket, PollFlags::IN)));
        fds.extend(self.exchanges.values().map(|exchange| PollFd::new(&exchange.server, PollFlags::IN)));
    }

    /// When [`Datagrams::ready`] has to be called although nothing is ready.
    pub fn deadline(&self) -> Option<Instant> {
        self.exchanges.values().map(|exchange| exchange.moved + SILENT).min()
    }

    /// Does what can be done without waiting.
    pub fn ready(&mut self, now: Instant) {
        if self.held.is_empty() {
            return;
        }
        let mut fds = Vec::new();
        self.poll(&mut fds);
        let ready = ready(&mut fds);
        drop(fds);
        if ready.iter().any(|ready| *ready) {
            let (mut buffer, mut ready) = (vec![0; LONGEST], ready.into_iter());
            let asked: Vec<_> = ready.by_ref().take(self.held.len()).collect();
            for ((key, exchange), _) in self.exchanges.iter_mut().zip(ready).filter(|(_, ready)| *ready) {
                exchange.answer(&self.held[key.0].0, &key.1, now, &mut buffer);
            }
            for (n, _) in asked.iter().enumerate().filter(|(_, asked)| **asked) {
                self.hear(n, now, &mut buffer);
            }
        }
        self.exchanges.retain(|_, exchange| now < exchange.moved + SILENT);
        self.exchanges.shrink_to(8);
    }

    /// Passes on what clients have sent.
    fn hear(&mut self, n: usize, now: Instant, buffer: &mut [u8]) {
        let mut new = 0;
        for _ in 0..OF_ALL {
            if new == NEW {
                return;
            }
            let (socket, to) = &self.held[n];
            let Ok((length, arrival)) = sys::receive_datagram(socket.as_fd(), buffer) else { return };
            let (key, to) = ((n, arrival), *to);
            if !self.exchanges.contains_key(&key) {
                new += 1;
                let from = subscriber(arrival.client.ip());
                self.make_room(from);
                // A datagram may be lost, and who cares sends it again.
                let Ok(server) = open(to, self.netns.as_deref()) else { continue };
                self.exchanges.insert(key, Exchange { server, from, moved: now });
            }
            let Some(exchange) = self.exchanges.get_mut(&key) else { continue };
            exchange.moved = now;
            if !exchange.ask(&buffer[..length]) {
                self.exchanges.remove(&key);
            }
        }
    }

    /// Those that have been silent longest of whoever has the most make room, several, as they are looked for among all.
    /// They may be `from`'s own: a client that asks from a new port each time shall not wait for its old ones to be
    /// forgotten.
    fn make_room(&mut self, from: From) {
        if self.exchanges.len() < self.most {
            return;
        }
        let of = greedy(self.exchanges.values(), from).unwrap_or(from);
        let anybodys = !self.exchanges.values().any(|exchange| exchange.from == of);
        let those = self.exchanges.iter().filter(|(_, exchange)| anybodys || exchange.from == of);
        let mut those: Vec<_> = those.map(|(key, exchange)| (exchange.moved, *key)).collect();
        those.sort_unstable_by_key(|(moved, _)| *moved);
        for (_, key) in those.iter().take((self.most / 16).max(1)) {
            self.exchanges.remove(key);
        }
    }
}

impl Exchange {
    /// Passes on what the client has sent; whether the socket is still good for anything.
    fn ask(&self, bytes: &[u8]) -> bool {
        // What is told first is that nobody listened to the one before.
        for _ in 0..2 {
            match send(&self.server, bytes, SendFlags::DONTWAIT) {
                Err(Errno::CONNREFUSED) => {}
                Ok(_) | Err(Errno::AGAIN | Errno::NOBUFS | Errno::MSGSIZE) => return true,
                // It was destroyed (ss -K), or its address is gone.
                Err(_) => return false,
            }
        }
        true
    }

    /// Passes on what the container has answered.
    fn answer(&mut self, held: &OwnedFd, arrival: &Arrival, now: Instant, buffer: &mut [u8]) {
        for _ in 0..AT_ONCE {
            match recv(&self.server, &mut *buffer, RecvFlags::DONTWAIT) {
                Ok((length, _)) => {
                    self.moved = now;
                    let _ = sys::send_datagram(held.as_fd(), &buffer[..length], arrival);
                }
                // An answer, too: nobody listens there (yet).
                Err(Errno::CONNREFUSED) => {}
                Err(_) => return,
            }
        }
    }
}

fn open(to: SocketAddr, netns: Option<&Path>) -> crate::error::Result<OwnedFd> {
    let server = socket_to(to, SocketType::DGRAM, netns)?;
    connect(&server, &to)?;
    Ok(server)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

    fn bound(at: impl Into<IpAddr>) -> UdpSocket {
        let socket = UdpSocket::bind((at.into(), 0)).expect("bind");
        socket.set_read_timeout(Some(Duration::from_secs(5))).expect("a time");
        socket
    }

    /// A held socket at `at`, whose datagrams go to `server`.
    fn held(at: impl Into<IpAddr>, server: &UdpSocket, most: usize) -> (Datagrams, u16) {
        let (held, to) = (bound(at), server.local_addr().expect("an address"));
        let port = held.local_addr().expect("an address").port();
        let mut datagrams = Datagrams { most, ..Datagrams::default() };
        datagrams.add(vec![(held.into(), to)], None);
        (datagrams, port)
    }

    /// Passes on until `socket` has something, and takes it.
    fn next(datagrams: &mut Datagrams, socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
        socket.set_nonblocking(true).expect("nonblocking");
        let (until, mut buffer) = (Instant::now() + Duration::from_secs(5), vec![0; LONGEST]);
        loop {
            datagrams.ready(Instant::now());
            match socket.recv_from(&mut buffer) {
                Ok((n, from)) => return (buffer[..n].to_vec(), from),
                Err(e) => assert!(e.kind() == std::io::ErrorKind::WouldBlock, "{e}"),
            }
            assert!(Instant::now() < until, "nothing came");
        }
    }

    #[test]
    fn each_client_has_its_own_answers_from_the_address_that_it_asked() {
        let server = bound(Ipv4Addr::LOCALHOST);
        // Of a socket for all addresses the kernel would answer from the one that it likes best.
        let (mut datagrams, port) = held(Ipv4Addr::UNSPECIFIED, &server, 8);
        let asked = [Ipv4Addr::new(127, 0, 0, 1), Ipv4Addr::new(127, 0, 0, 7)];
        let clients = asked.map(|at| (bound(Ipv4Addr::LOCALHOST), SocketAddr::from((at, port))));
        for (n, (client, at)) in clients.iter().enumerate() {
            client.send_to(&vec![n as u8; 1 + n * 60_000], at).expect("send");
        }
        let heard: Vec<_> = clients.iter().map(|_| next(&mut datagrams, &server)).collect();
        assert_ne!(heard[0].1, heard[1].1);
        for (said, from) in heard.iter().rev() {
            server.send_to(&[said[0], said.len().to_be_bytes()[6]], from).expect("send");
        }
        for (n, (client, at)) in clients.iter().enumerate() {
            let (answer, from) = next(&mut datagrams, client);
            assert_eq!((answer, from), (vec![n as u8, ((1 + n * 60_000) >> 8) as u8], *at));
        }
        // The one exchange goes on, also with an empty datagram.
        clients[0].0.send_to(b"", clients[0].1).expect("send");
        let (said, from) = next(&mut datagrams, &server);
        assert!(said.is_empty() && heard.iter().any(|(_, before)| *before == from));
        assert_eq!(datagrams.exchanges.len(), 2);
    }

    #[test]
    fn ipv6_is_passed_on_to_ipv4_and_answered_likewise() {
        let server = bound(Ipv4Addr::LOCALHOST);
        let (mut datagrams, port) = held(Ipv6Addr::UNSPECIFIED, &server, 8);
        let client = bound(Ipv6Addr::LOCALHOST);
        client.send_to(b"who", (Ipv6Addr::LOCALHOST, port)).expect("send");
        let (said, from) = next(&mut datagrams, &server);
        assert_eq!(said, b"who");
        server.send_to(b"me", from).expect("send");
        let (answer, from) = next(&mut datagrams, &client);
        assert_eq!((answer, from), (b"me".to_vec(), SocketAddr::from((Ipv6Addr::LOCALHOST, port))));
    }

    #[test]
    fn a_container_that_does_not_listen_yet_is_written_to_again() {
        let server = bound(Ipv4Addr::LOCALHOST);
        let to = server.local_addr().expect("an address");
        let (mut datagrams, port) = held(Ipv4Addr::LOCALHOST, &server, 8);
        drop(server);
        let client = bound(Ipv4Addr::LOCALHOST);
        for _ in 0..3 {
            client.send_to(b"early", (Ipv4Addr::LOCALHOST, port)).expect("send");
            datagrams.ready(Instant::now());
        }
        let server = UdpSocket::bind(to).expect("bind");
        client.send_to(b"late", (Ipv4Addr::LOCALHOST, port)).expect("send");
        assert_eq!(next(&mut datagrams, &server).0, b"late");
        assert_eq!(datagrams.exchanges.len(), 1);
    }

    #[test]
    fn who_asks_from_many_ports_forgets_its_own_and_nobody_elses() {
        let server = bound(Ipv4Addr::LOCALHOST);
        let (mut datagrams, port) = held(Ipv4Addr::UNSPECIFIED, &server, 4);
        let ask = |datagrams: &mut Datagrams, from: Ipv4Addr| {
            let client = bound(from);
            client.send_to(b"x", (Ipv4Addr::LOCALHOST, port)).expect("send");
            next(datagrams, &server);
            client
        };
        let (one, many) = (Ipv4Addr::new(127, 0, 0, 2), Ipv4Addr::new(127, 0, 0, 3));
        let quiet = ask(&mut datagrams, one);
        let clients: Vec<_> = (0..20).map(|_| ask(&mut datagrams, many)).collect();
        assert_eq!(datagrams.exchanges.len(), 4);
        let of = |datagrams: &Datagrams, client: &UdpSocket| {
            let at = client.local_addr().expect("an address");
            datagrams.exchanges.keys().any(|(_, arrival)| arrival.client == at)
        };
        assert!(of(&datagrams, &quiet) && clients[17..].iter().all(|client| of(&datagrams, client)));
        // And where all have one, the one that has been silent longest goes.
        let mut others = Vec::new();
        for n in 4..8 {
            others.push(ask(&mut datagrams, Ipv4Addr::new(127, 0, 0, n)));
        }
        assert_eq!(datagrams.exchanges.len(), 4);
        assert!(others.iter().all(|client| of(&datagrams, client)));
    }

    #[test]
    fn who_is_silent_is_forgotten_in_time() {
        let server = bound(Ipv4Addr::LOCALHOST);
        let (mut datagrams, port) = held(Ipv4Addr::LOCALHOST, &server, 4);
        assert_eq!(datagrams.deadline(), None);
        let client = bound(Ipv4Addr::LOCALHOST);
        client.send_to(b"x", (Ipv4Addr::LOCALHOST, port)).expect("send");
        next(&mut datagrams, &server);
        let until = datagrams.deadline().expect("a deadline");
        datagrams.ready(until - Duration::from_millis(1));
        assert_eq!(datagrams.exchanges.len(), 1);
        datagrams.ready(until);
        assert_eq!((datagrams.exchanges.len(), datagrams.deadline()), (0, None));
    }
}
