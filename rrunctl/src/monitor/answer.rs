//! Who is connected to a monitor, what they ask, and what they are told.

#![forbid(unsafe_code)]

use super::packet::{Exit, Reply, Request, Status, Until, receive, send};
use super::streams::Wanted;
use super::supervise::{At, Monitor};
use crate::error::{Error, Kind, Result};
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags, accept_with};
use std::os::fd::{AsFd as _, OwnedFd};

/// How many there are at most; more wait to be accepted.
const CLIENTS: usize = 128;
/// The longest packet that anybody has reason to send: the names of a hundred networks.
const PACKET: usize = 16 * 1024;

/// All clients.
#[derive(Debug)]
pub(super) struct Clients {
    listener: OwnedFd,
    clients: Vec<Client>,
}

/// A connection. It is answered in the order of its questions, but for what it waits for.
#[derive(Debug)]
struct Client {
    socket: OwnedFd,
    waits: Option<Until>,
    /// It is told when the container is created, when it is started, and when it is stopped.
    creates: bool,
    starts: bool,
    stops: bool,
    gone: bool,
}

impl Client {
    fn new(socket: OwnedFd) -> Self {
        Self { socket, waits: None, creates: false, starts: false, stops: false, gone: false }
    }

    /// Who does not read what it has asked for is not waited for.
    fn tell(&mut self, reply: &Reply) {
        self.gone |= send(self.socket.as_fd(), reply, &[], SendFlags::DONTWAIT).is_err();
    }
}

impl Clients {
    pub fn new(listener: OwnedFd) -> Self {
        Self { listener, clients: Vec::new() }
    }

    pub fn add_creator(&mut self, socket: OwnedFd) {
        self.clients.push(Client { creates: true, ..Client::new(socket) });
    }

    pub fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    pub fn poll<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) {
        if self.clients.len() < CLIENTS {
            fds.push(PollFd::new(&self.listener, PollFlags::IN));
        }
        fds.extend(self.clients.iter().map(|client| PollFd::new(&client.socket, PollFlags::IN)));
    }

    fn accept(&mut self) {
        while self.clients.len() < CLIENTS {
            let Ok(socket) = accept_with(&self.listener, SocketFlags::CLOEXEC) else { break };
            self.clients.push(Client::new(socket));
        }
    }

    pub fn answer_creator(&mut self, reply: &Reply) {
        self.answer(|client| std::mem::take(&mut client.creates), reply);
    }

    pub fn answer_starter(&mut self, reply: &Reply) {
        self.answer(|client| std::mem::take(&mut client.starts), reply);
    }

    pub fn answer_stoppers(&mut self, status: &Status) {
        self.answer(|client| std::mem::take(&mut client.stops), &Reply::Status(status.clone()));
    }

    pub fn answer_waiters(&mut self, until: Until, exit: &Exit) {
        self.answer(
            |client| client.waits.take_if(|waits| *waits == until).is_some(),
            &Reply::Exit(exit.clone()),
        );
    }

    fn answer(&mut self, whom: impl Fn(&mut Client) -> bool, reply: &Reply) {
        for client in &mut self.clients {
            if whom(client) {
                client.tell(reply);
            }
        }
    }
}

impl Monitor {
    /// Hears everybody.
    pub fn hear(&mut self) {
        self.clients.accept();
        for n in 0..self.clients.clients.len() {
            // Who asks without end is heard again after the container's output.
            for _ in 0..16 {
                let client = &mut self.clients.clients[n];
                let reply = match receive(&client.socket, &mut [0; PACKET], RecvFlags::DONTWAIT) {
                    Ok(Some((request, fds))) => self.answer(n, request, fds),
                    Err(e) if e.errno() == Some(Errno::AGAIN) => break,
                    Err(e) if e.kind() == Kind::Invalid => Err(e),
                    Ok(None) | Err(_) => {
                        client.gone = true;
                        break;
                    }
                };
                let reply = match reply {
                    Ok(reply) => reply,
                    Err(e) => Some(Reply::Error { text: e.to_string() }),
                };
                if let Some(reply) = reply {
                    self.clients.clients[n].tell(&reply);
                }
                self.answer_late_waiter(n);
            }
        }
        self.clients.clients.retain(|client| !client.gone);
        self.clients.clients.shrink_to(8);
    }

    /// What is answered at once, if it is.
    fn answer(&mut self, n: usize, request: Request, fds: Vec<OwnedFd>) -> Result<Option<Reply>> {
        match request {
            Request::Ports | Request::Dns | Request::Begin | Request::Adopt { .. } => {
                return Err(Error::conflict("the container is created already"));
            }
            Request::Start if self.at != At::Created => {
                return Err(Error::conflict("the container is not one that waits to be started"));
            }
            Request::Start => {
                self.clients.clients[n].starts = true;
                self.start();
                return Ok(None);
            }
            Request::Wait { until } => self.clients.clients[n].waits = Some(until),
            Request::Resize { rows, columns } => self.streams.resize(rows, columns)?,
            Request::Attach { .. } if self.is_over() => {
                return Err(Error::conflict("the container has ended"));
            }
            Request::Attach { .. } if self.adopted.is_some() => {
                return Err(Error::conflict("the container's streams are gone with the monitor that it had"));
            }
            Request::Attach { stdin, stdout, stderr, framed } => {
                let stdin = stdin && self.settings.open_stdin;
                self.streams.attach(fds, Wanted { stdin, output: [stdout, stderr], framed })?;
            }
            Request::StopRestarting => {
                self.stop_restarting();
                if matches!(self.at, At::Creating(_) | At::Starting(_)) {
                    // A signal now would find no container, or one whose program is not there to get it.
                    self.clients.clients[n].stops = true;
                    return Ok(None);
                }
                return Ok(Some(Reply::Status(self.status())));
            }
            Request::Policy { restart } => {
                self.settings.restart = restart;
                self.keep_settings();
            }
            Request::Names { dns } => self.set_names(dns)?,
            Request::Release => self.set_ports(Vec::new(), Vec::new()),
            Request::Publish { ports } => self.set_ports(ports, fds),
            Request::Serve { dns } => self.set_dns(dns, fds)?,
            Request::Status => return Ok(Some(Reply::Status(self.status()))),
        }
        Ok(Some(Reply::Done))
    }

    /// Who begins to wait when all is over is told how it ended.
    fn answer_late_waiter(&mut self, n: usize) {
        let over = self.is_over();
        let client = &mut self.clients.clients[n];
        if let Some(last) = self.last.as_ref().filter(|_| over && client.waits == Some(Until::Exit)) {
            client.waits = None;
            client.tell(&Reply::Exit(last.clone()));
        }
    }
}
