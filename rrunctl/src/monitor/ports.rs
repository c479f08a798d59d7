//! Published ports: the host's sockets are held, so that no other program gets them, and what reaches one of them all
//! the same, because no rule of the firewall took it (`[::1]`, or no rules at all), is passed to the container.

#![forbid(unsafe_code)]

use super::Port;
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::sockopt::socket_error;
use rustix::net::{
    AddressFamily, Shutdown, SocketFlags, SocketType, accept_with, connect, ipproto, shutdown, socket_with,
};
use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, splice};
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, OwnedFd};

/// How many connections are passed on at once; more wait to be accepted.
const CONNECTIONS: usize = 64;
/// How much is taken at once: what a pipe holds.
const AT_ONCE: usize = 64 * 1024;

/// The ports of one container.
#[derive(Debug, Default)]
pub(super) struct Ports {
    sockets: Vec<(OwnedFd, Option<SocketAddr>)>,
    connections: Vec<Connection>,
    /// The last accept(2) failed for want of something that only time brings back, so one end of a connection has to
    /// come first.
    exhausted: bool,
}

impl Ports {
    /// Holds `sockets`, which are for `ports`.
    pub fn new(sockets: Vec<OwnedFd>, ports: &[Port]) -> Self {
        let to = |n: usize| ports.get(n).filter(|port| port.protocol == "tcp").and_then(|port| port.to);
        let sockets = sockets.into_iter().enumerate().map(|(n, socket)| {
            let _ = rustix::io::ioctl_fionbio(&socket, true);
            (socket, to(n))
        });
        Self { sockets: sockets.collect(), ..Self::default() }
    }

    /// What to wait for.
    pub fn poll<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) {
        let room = self.connections.len() < CONNECTIONS && !self.exhausted;
        for (socket, to) in &self.sockets {
            if room && to.is_some() {
                fds.push(PollFd::new(socket, PollFlags::IN));
            }
        }
        for connection in &self.connections {
            let [client, server] = connection.interest();
            for (socket, flags) in [(&connection.client, client), (&connection.server, server)] {
                // POLLHUP comes whether it is asked for or not, and again and again.
                if !flags.is_empty() {
                    fds.push(PollFd::new(socket, flags));
                }
            }
        }
    }

    /// Does what can be done without waiting; every call that would wait says so itself.
    pub fn ready(&mut self) {
        let before = self.connections.len();
        self.connections.retain_mut(|connection| connection.pass().unwrap_or(false));
        if self.connections.len() < before {
            self.exhausted = false;
            self.connections.shrink_to(8);
        }
        for (socket, to) in &self.sockets {
            let Some(to) = to else { continue };
            while self.connections.len() < CONNECTIONS && !self.exhausted {
                match accept_with(socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                    Ok(client) => self.connections.extend(Connection::open(client, *to).ok()),
                    Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                        self.exhausted = !self.connections.is_empty();
                        break;
                    }
                    Err(_) => break,
                }
            }
        }
    }
}

/// One connection and the one to the container.
#[derive(Debug)]
struct Connection {
    client: OwnedFd,
    server: OwnedFd,
    connected: bool,
    /// From client to server, and back.
    flows: [Flow; 2],
}

/// One direction, by way of a pipe, as splice(2) needs one.
#[derive(Debug)]
struct Flow {
    pipe: (OwnedFd, OwnedFd),
    inside: usize,
    /// The source has ended.
    ended: bool,
    /// And the sink has been told.
    told: bool,
}

impl Flow {
    fn new() -> Result<Self, Errno> {
        let pipe = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        Ok(Self { pipe, inside: 0, ended: false, told: false })
    }

    /// Moves what there is.
    fn pass(&mut self, from: &OwnedFd, to: &OwnedFd) -> Result<(), Errno> {
        let moving = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        // A connection that never rests may not keep the container's output waiting.
        for _ in 0..16 {
            if self.inside == 0 && !self.ended {
                match splice(from, None, &self.pipe.1, None, AT_ONCE, moving) {
                    Ok(0) => self.ended = true,
                    Ok(n) => self.inside = n,
                    Err(Errno::AGAIN) => return Ok(()),
                    Err(e) => return Err(e),
                }
            }
            while self.inside > 0 {
                match splice(&self.pipe.0, None, to, None, self.inside, moving) {
                    Ok(n) => self.inside -= n,
                    Err(Errno::AGAIN) => return Ok(()),
                    Err(e) => return Err(e),
                }
            }
            if self.ended {
                if !self.told {
                    self.told = true;
                    let _ = shutdown(to, Shutdown::Write);
                }
                return Ok(());
            }
        }
        Ok(())
    }
}

impl Connection {
    fn open(client: OwnedFd, to: SocketAddr) -> Result<Self, Errno> {
        let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let server = socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
        let connected = match connect(&server, &to) {
            Ok(()) => true,
            Err(Errno::INPROGRESS) => false,
            Err(e) => return Err(e),
        };
        Ok(Self { client, server, connected, flows: [Flow::new()?, Flow::new()?] })
    }

    fn interest(&self) -> [PollFlags; 2] {
        if !self.connected {
            return [PollFlags::empty(), PollFlags::OUT];
        }
        let [there, back] = &self.flows;
        let side = |reads: &Flow, writes: &Flow| {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::IN, !reads.ended && reads.inside == 0);
            flags.set(PollFlags::OUT, writes.inside > 0);
            flags
        };
        [side(there, back), side(back, there)]
    }

    /// Whether it goes on.
    fn pass(&mut self) -> Result<bool, Errno> {
        if !self.connected {
            let mut fds = [PollFd::new(&self.server, PollFlags::OUT)];
            let now = rustix::event::Timespec::default();
            if rustix::event::poll(&mut fds, Some(&now))? == 0 {
                return Ok(true);
            }
            socket_error(self.server.as_fd())??;
            self.connected = true;
        }
        let [there, back] = &mut self.flows;
        there.pass(&self.client, &self.server)?;
        back.pass(&self.server, &self.client)?;
        Ok(!(self.flows[0].told && self.flows[1].told))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::net::{Ipv6Addr, TcpListener, TcpStream, UdpSocket};

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
        Port { protocol: "tcp".to_owned(), to: Some(to) }
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

    #[test]
    fn sockets_that_are_not_passed_on_are_held_and_nothing_more() {
        let udp = UdpSocket::bind("127.0.0.1:0").expect("bind");
        let address = udp.local_addr().expect("an address");
        let port = Port { protocol: "udp".to_owned(), to: Some(address) };
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
