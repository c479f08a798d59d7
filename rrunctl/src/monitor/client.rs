//! A monitor from outside: starting one, and talking to it.

#![forbid(unsafe_code)]

use super::packet::{Exit, FDS, Reply, Request, Status, Until, receive, send};
use super::restart::Restart;
use super::{Settings, run_dir};
use crate::error::{Context as _, Error, Result};
use crate::home;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::Deserialize;
use std::fs::DirBuilder;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The longest reply: rrun's error texts have no limit of their own.
const PACKET: usize = 64 * 1024;
/// How long a monitor may take to listen, and how long to answer what needs no rrun: together what whoever lists
/// containers waits for one that is stopped or otherwise broken.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a monitor is started with.
#[derive(Debug)]
pub struct Setup {
    /// `rrunmon`.
    pub monitor: PathBuf,
    /// Where the settings are written for it: `containers/ID/monitor.json`. `exit.json` comes to be beside it.
    pub file: PathBuf,
    /// The settings.
    pub settings: Settings,
    /// The sockets of the published ports, bound, and those of TCP listening; as many as [`Settings::ports`].
    pub ports: Vec<OwnedFd>,
    /// The sockets of the name server, as [`crate::network::dns::listen`] makes them; with [`Settings::dns`] only.
    pub dns: Option<[OwnedFd; 2]>,
}

/// Starts a monitor, and returns when its container is created. Until somebody starts it, the container is there for
/// as long as a client is connected.
///
/// # Errors
/// rrun's own words if it could not create the container; then nothing of it is left, and `ended` is not run.
pub fn spawn(setup: &Setup) -> Result<Client> {
    launch(setup, &Request::Begin, &[])
}

/// Starts a monitor for a container whose own one was killed ([`Found::Orphaned`]), and returns when it has taken over.
/// [`Settings::read`] has what the other one had; ports and the name server have new sockets.
///
/// * A container that runs goes on to. Its streams are gone: what it writes gets EPIPE or SIGPIPE, the log has nothing
///   of it, and nobody is attached until it is started again by policy. A terminal has hung up.
/// * How it ends is known from Linux 6.15 on. On an older kernel, and where it has ended before, nobody may have seen it:
///   then [`Exit::code`] is 255, for the policy as well, and [`Exit::error`] says so.
/// * What ended meanwhile is treated as if it ended now, and what the other monitor had begun, restarting or taking
///   down, is gone on with. That somebody had stopped restarting is not known.
///
/// # Errors
/// There is no such container, or its monitor is alive.
pub fn adopt(setup: &Setup) -> Result<Client> {
    let alive = || match find(&setup.settings)? {
        Found::Monitored(_) => Err(Error::conflict(format!("{}: a monitor is alive", setup.settings.id))),
        Found::Orphaned { status, pid } if status == "running" || status == "paused" => {
            Ok(Pid::from_raw(pid))
        }
        Found::Orphaned { .. } | Found::Gone => Ok(None),
    };
    let init = match alive()? {
        Some(pid) => match pidfd_open(pid, PidfdFlags::empty()) {
            // Asked again, as the pid may have been another process's by the time that it was opened.
            Ok(pidfd) => Some((pid, pidfd)).filter(|_| alive().is_ok_and(|now| now == Some(pid))),
            Err(Errno::SRCH) => None,
            Err(e) => return Err(Error::from(e).context(format!("pidfd_open {}", pid.as_raw_nonzero()))),
        },
        None => None,
    };
    let pid = init.as_ref().map(|(pid, _)| pid.as_raw_nonzero().get());
    let pidfd: Vec<_> = init.iter().map(|(_, pidfd)| pidfd.as_fd()).collect();
    launch(setup, &Request::Adopt { pid }, &pidfd)
}

/// Starts a monitor and tells it what to do.
fn launch(setup: &Setup, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<Client> {
    let Setup { monitor, file, settings, ports, dns } = setup;
    if ports.len() != settings.ports.len() {
        return Err(Error::invalid("as many sockets as ports"));
    }
    if dns.is_some() != settings.dns.is_some() {
        return Err(Error::invalid("a name server has its sockets and its settings, or neither"));
    }
    DirBuilder::new()
        .recursive(true)
        .mode(0o711)
        .create(&settings.run)
        .context(|| format!("mkdir {}", settings.run.display()))?;
    let json = serde_json::to_vec(settings).map_err(|e| Error::system(e.to_string()))?;
    // Of a container that runs, and a boot leaves none.
    home::replace_until_boot(file, 0o600, &json)?;
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .context(|| "socketpair")?;
    // Nothing of the caller's surroundings is the container's: rrun passes NOTIFY_SOCKET and LISTEN_FDS on.
    let mut child = Command::new(monitor)
        .arg(file)
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .current_dir("/")
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context(|| format!("execute {}", monitor.display()))?;
    child.wait().context(|| "wait for rrunmon")?;
    let client = Client { socket: ours, run: settings.run.clone() };
    for some in ports.chunks(FDS) {
        let some: Vec<_> = some.iter().map(AsFd::as_fd).collect();
        client.send(&Request::Ports, &some)?;
    }
    if let Some(dns) = dns {
        client.send(&Request::Dns, &dns.each_ref().map(AsFd::as_fd))?;
    }
    client.send(request, fds)?;
    match client.reply()? {
        Reply::Created { .. } | Reply::Done => Ok(client),
        reply => Err(unexpected(&reply)),
    }
}

/// A connection to a living monitor.
#[derive(Debug)]
pub struct Client {
    socket: OwnedFd,
    run: PathBuf,
}

/// Which streams an attached client has.
#[derive(Debug, Clone, Copy, Default)]
pub struct Attach {
    /// What it sends is the container's input.
    pub stdin: bool,
    /// It gets standard output; of a terminal, all output.
    pub stdout: bool,
    /// It gets standard error.
    pub stderr: bool,
    /// Both outputs come in Docker's frames, `[stream, 0, 0, 0, length (big-endian)]` and so many bytes.
    pub framed: bool,
}

impl Client {
    /// Connects to the monitor of the container with the run directory `run`; `None` if none is alive: see [`find`].
    ///
    /// # Errors
    /// Those of open(2), flock(2) and connect(2), and a monitor that does not listen for 5 s.
    pub fn connect(run: &Path) -> Result<Option<Self>> {
        let until = Instant::now() + PATIENCE;
        // It may be about to listen, or about to leave.
        loop {
            if !run_dir::is_alive(run)? {
                return Ok(None);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(silent(run, "listen"));
            }
            if let Some(socket) = run_dir::connection(run, left)? {
                return Ok(Some(Self { socket, run: run.to_owned() }));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Executes the container's program.
    ///
    /// # Errors
    /// rrun's words, or that it was started before.
    pub fn start(&self) -> Result<()> {
        self.send(&Request::Start, &[])?;
        done(&self.reply()?)
    }

    /// Begins to wait: how the container ends is not missed from here on. It has a connection of its own.
    ///
    /// # Errors
    /// The monitor has gone.
    pub fn wait(&self, until: Until) -> Result<Waiter> {
        let client = Self::connect(&self.run)?.ok_or_else(gone)?;
        client.ask(&Request::Wait { until }, &[])?;
        Ok(Waiter(client))
    }

    /// Sets the size of the terminal.
    ///
    /// # Errors
    /// There is none.
    pub fn resize(&self, rows: u16, columns: u16) -> Result<()> {
        self.ask(&Request::Resize { rows, columns }, &[])
    }

    /// Hands over the other end of a connection, a stream socket: what comes out of it is input, output goes into it.
    /// Standard error has a socket of its own if one is given. The monitor ends its side when the run ends; who closes
    /// it is detached, who shuts down writing has ended its input.
    ///
    /// # Errors
    /// The container has ended, or there are too many clients.
    pub fn attach(
        &self,
        attach: Attach,
        socket: BorrowedFd<'_>,
        stderr: Option<BorrowedFd<'_>>,
    ) -> Result<()> {
        let Attach { stdin, stdout, stderr: errors, framed } = attach;
        let request = Request::Attach { stdin, stdout, stderr: errors, framed };
        match stderr {
            Some(stderr) => self.ask(&request, &[socket, stderr]),
            None => self.ask(&request, &[socket]),
        }
    }

    /// The same with new sockets: one for input and output, and one for standard error unless it is framed or not
    /// wanted.
    ///
    /// # Errors
    /// Those of socketpair(2) and [`Self::attach`].
    pub fn streams(&self, attach: Attach) -> Result<(UnixStream, Option<UnixStream>)> {
        let (ours, theirs) = UnixStream::pair().context(|| "socketpair")?;
        let second = match attach.stderr && !attach.framed {
            true => Some(UnixStream::pair().context(|| "socketpair")?),
            false => None,
        };
        self.attach(attach, theirs.as_fd(), second.as_ref().map(|(_, theirs)| theirs.as_fd()))?;
        Ok((ours, second.map(|(ours, _)| ours)))
    }

    /// Ends restarting, before somebody stops the container by hand. If it is between two runs, that was its end; if
    /// one is about to begin, it is waited for. What is returned says whether there is something to kill.
    ///
    /// # Errors
    /// The monitor has gone.
    pub fn stop_restarting(&self) -> Result<Status> {
        self.send(&Request::StopRestarting, &[])?;
        status(self.reply()?)
    }

    /// Changes the restart policy.
    ///
    /// # Errors
    /// The monitor has gone.
    pub fn set_restart(&self, restart: Restart) -> Result<()> {
        self.ask(&Request::Policy { restart }, &[])
    }

    /// Changes whom the container's name server asks and whose names it answers, from the next question on. It keeps that
    /// over restarts.
    ///
    /// # Errors
    /// There is no name server, there are more networks than find room in a packet (about a hundred), or the monitor
    /// has gone.
    pub fn set_names(&self, dns: super::Dns) -> Result<()> {
        self.ask(&Request::Names { dns }, &[])
    }

    /// Has it hold other ports than those that it has; `sockets` is asked for them when those are free.
    ///
    /// # Errors
    /// The monitor has gone; those of `sockets`.
    pub fn set_ports(
        &self,
        sockets: impl FnOnce() -> Result<(Vec<super::Port>, Vec<OwnedFd>)>,
    ) -> Result<()> {
        self.ask(&Request::Release, &[])?;
        let (ports, sockets) = sockets()?;
        self.add_ports(&ports, &sockets)
    }

    /// Has it hold further ports.
    ///
    /// # Errors
    /// The monitor has gone.
    pub fn add_ports(&self, ports: &[super::Port], sockets: &[OwnedFd]) -> Result<()> {
        // As many as a packet has room for.
        for (ports, sockets) in ports.chunks(32).zip(sockets.chunks(32)) {
            let sockets: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
            self.ask(&Request::Publish { ports: ports.to_vec() }, &sockets)?;
        }
        Ok(())
    }

    /// Gives the container a name server at `sockets`, which [`crate::network::dns::listen`] made, if it had none when it
    /// was started.
    ///
    /// # Errors
    /// Those of [`Self::set_names`].
    pub fn set_dns(&self, dns: super::Dns, sockets: &[OwnedFd; 2]) -> Result<()> {
        self.ask(&Request::Serve { dns }, &sockets.each_ref().map(AsFd::as_fd))
    }

    /// What the container is in; answered while rrun is at work, too.
    ///
    /// # Errors
    /// The monitor has gone, or does not answer for 5 s.
    pub fn status(&self) -> Result<Status> {
        self.send(&Request::Status, &[])?;
        status(self.reply_soon()?)
    }

    /// Asks what is done at once.
    fn ask(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<()> {
        self.send(request, fds)?;
        done(&self.reply_soon()?)
    }

    fn reply_soon(&self) -> Result<Reply> {
        let until = Instant::now() + PATIENCE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let left = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
            match poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], Some(&left)) {
                Ok(0) => return Err(silent(&self.run, "answer")),
                Err(Errno::INTR) => {}
                Ok(_) | Err(_) => return self.reply(),
            }
        }
    }

    fn send(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<()> {
        send(self.socket.as_fd(), request, fds, SendFlags::empty()).map_err(|e| match e.errno() {
            Some(Errno::PIPE | Errno::CONNRESET) => gone(),
            // SO_SNDTIMEO: so much was asked already that is not read.
            Some(Errno::AGAIN) => silent(&self.run, "read what it is asked"),
            _ => e,
        })
    }

    fn reply(&self) -> Result<Reply> {
        match receive(&self.socket, &mut vec![0; PACKET], RecvFlags::empty()) {
            Ok(Some((Reply::Error { text }, _))) => Err(Error::system(text)),
            Ok(Some((reply, _))) => Ok(reply),
            Ok(None) => Err(gone()),
            Err(e) if e.errno() == Some(Errno::CONNRESET) => Err(gone()),
            Err(e) => Err(e),
        }
    }
}

/// The connection is readable when the monitor has gone.
impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Somebody who waits for the container's end.
#[derive(Debug)]
pub struct Waiter(Client);

impl Waiter {
    /// How it ended.
    ///
    /// # Errors
    /// The monitor has gone without telling: it was killed, or it left while the question was on its way, and then
    /// `exit.json` has the answer.
    pub fn wait(self) -> Result<Exit> {
        match self.0.reply()? {
            Reply::Exit(exit) => Ok(exit),
            reply => Err(unexpected(&reply)),
        }
    }
}

/// Readable when the answer is there.
impl AsFd for Waiter {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Who looks after a container.
#[derive(Debug)]
pub enum Found {
    /// A living monitor.
    Monitored(Client),
    /// The container is there and its monitor is not: it was killed. Nobody reads its output, reaps it or restarts it
    /// until it is [adopted](adopt); `rrun kill` and `rrun delete` end it.
    Orphaned {
        /// rrun's: `created`, `running`, `paused` or `stopped`.
        status: String,
        /// The container's first process; 0 when it has stopped.
        pid: i32,
    },
    /// Neither.
    Gone,
}

/// Finds out who looks after a container, by the lock and by `rrun state`.
///
/// # Errors
/// Those of [`Client::connect`], and a runtime that cannot be executed or says something that is no state.
pub fn find(settings: &Settings) -> Result<Found> {
    #[derive(Deserialize)]
    struct State {
        status: String,
        #[serde(default)]
        pid: i32,
    }

    if let Some(client) = settings.run.exists().then(|| Client::connect(&settings.run)).transpose()?.flatten()
    {
        return Ok(Found::Monitored(client));
    }
    let [program, options @ ..] = &settings.runtime[..] else { return Err(Error::invalid("no runtime")) };
    let output = Command::new(program)
        .args(options)
        .args(["state", &settings.id])
        .stdin(Stdio::null())
        .output()
        .context(|| format!("execute {program}"))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        // runc's words, which rrun has too.
        return if text.contains("does not exist") { Ok(Found::Gone) } else { Err(Error::system(text)) };
    }
    let State { status, pid } = serde_json::from_slice(&output.stdout)
        .map_err(|e| Error::system(e.to_string()).context(format!("{program} state {}", settings.id)))?;
    Ok(Found::Orphaned { status, pid })
}

fn gone() -> Error {
    Error::not_found("the container's monitor has gone")
}

fn silent(run: &Path, what: &str) -> Error {
    Error::system(format!("{}: the monitor is alive but does not {what}", run.display()))
        .remedy("is it stopped? its pid is in `pid` there")
}

fn done(reply: &Reply) -> Result<()> {
    if matches!(reply, Reply::Done) { Ok(()) } else { Err(unexpected(reply)) }
}

fn status(reply: Reply) -> Result<Status> {
    match reply {
        Reply::Status(status) => Ok(status),
        reply => Err(unexpected(&reply)),
    }
}

fn unexpected(reply: &Reply) -> Error {
    Error::system(format!("the monitor said what was not asked: {reply:?}"))
}
