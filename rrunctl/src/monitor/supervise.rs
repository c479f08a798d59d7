//! What `rrunmon` does: one loop around poll(2), and what the container is in.
//!
//! ```text
//! Creating ─► Created ─► Starting ─► Running ─► Deleting ─► Delay ─► Creating …
//!     └───────── a failure ────────────┴───────────┘└─────► Ending ─► Gone
//! ```

#![forbid(unsafe_code)]

use super::adopted::Adopted;
use super::answer::Clients;
use super::cgroup::OomKills;
use super::json_file::JsonFile;
use super::packet::{Exit, Phase, Reply, Request, Status, Until, receive, send};
use super::ports::Ports;
use super::restart::Restarts;
use super::root::{self, HostMounts};
use super::run_dir::RunDir;
use super::runtime::Runtime;
use super::streams::Streams;
use super::{Dns, Driver, Settings, now};
use crate::error::{Context as _, Error, Result};
use crate::network::dns::Responder;
use crate::sys;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, SocketFlags, accept_with, recvmsg,
};
use rustix::process::{Pid, WaitOptions, WaitStatus, getpid, setsid, umask, wait, waitpid};
use serde::Serialize;
use std::fs;
use std::io::{IoSliceMut, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Why the exit code of a container is 255 that may have had another one.
const UNSEEN: &str = "its monitor was killed, and how it ended was not seen";

/// What the container is in; where rrun or another program is at work, its pid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum At {
    Creating(Pid),
    Created,
    Starting(Pid),
    Running,
    Deleting(Pid),
    /// Until it is created again.
    Delay(Instant),
    Ending(Pid),
    Gone,
}

/// How a container's first process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Code(i32),
    Signal(i32),
    /// It was somebody else's child, and is gone.
    Unknown,
}

impl End {
    /// From what wait(2) says.
    pub fn of(status: i32) -> Self {
        match status & 0x7f {
            0 => Self::Code(status >> 8 & 0xff),
            signal => Self::Signal(signal),
        }
    }
}

#[derive(Debug)]
pub(super) struct Monitor {
    pub settings: Settings,
    settings_path: PathBuf,
    exit_path: PathBuf,
    /// Where it is while the disk is full.
    exit_aside: PathBuf,
    runtime: Runtime,
    host: HostMounts,
    run: RunDir,
    wake: OwnedFd,
    console: Option<OwnedFd>,
    pub clients: Clients,
    pub streams: Streams,
    log: Option<JsonFile>,
    /// The log cannot be written, and that was told.
    log_fails: bool,
    ports: Ports,
    dns: Option<Responder>,

    pub at: At,
    init: Option<Pid>,
    /// Init has ended while rrun is at work.
    init_ended: Option<End>,
    /// Init, as long as it is one that another monitor has made.
    pub adopted: Option<Adopted>,
    /// The root file system is that of an earlier monitor's mount namespace, and has to be mounted for the next run.
    to_mount: bool,
    oom: Option<OomKills>,
    started: Option<(String, Instant)>,
    pub restarts: Restarts,
    /// It is to be created again then.
    restart_at: Option<Instant>,
    /// How the last run ended.
    pub last: Option<Exit>,
    /// Why it could not be created at all: told to its creator when nothing is left of it.
    failure: Option<Error>,
}

/// Runs the monitor of the container whose settings are at `path`, for as long as the container lives. Standard input
/// is the socket of whoever spawned it.
///
/// The calling process is left at once; the monitor is a child of it, with a session of its own.
///
/// # Errors
/// What happened before there was anybody to tell; everything else is told to the client.
pub fn supervise(path: &Path) -> Result<()> {
    sys::close_foreign().context(|| "close_range")?;
    let spawner =
        rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3).context(|| "dup standard input")?;
    if sys::fork().context(|| "fork")?.is_some() {
        return Ok(());
    }
    // The connection is to end when its end here is closed.
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .context(|| "open /dev/null")?;
    rustix::stdio::dup2_stdin(&null).context(|| "dup2")?;
    let begun = begin(path, &spawner).and_then(|(begun, task)| {
        let run = RunDir::lock(&begun.settings.run)?;
        match prepare(&begun.settings, &task, &run) {
            Ok(prepared) => Monitor::new(path, begun, run, prepared).begin(task),
            Err(e) => {
                run.leave();
                Err(e)
            }
        }
    });
    match begun {
        Ok((mut monitor, reply)) => {
            monitor.clients.add_creator(spawner);
            if let Some(reply) = reply {
                monitor.clients.answer_creator(&reply);
            }
            monitor.serve()
        }
        Err(e) => send(spawner.as_fd(), &Reply::Error { text: e.to_string() }, &[], SendFlags::empty()),
    }
}

/// What a monitor is told before it is one.
#[derive(Debug)]
struct Begun {
    settings: Settings,
    ports: Vec<OwnedFd>,
    dns: Option<Responder>,
}

/// What it is to begin with.
#[derive(Debug)]
enum Task {
    Create,
    Adopt(Option<Adopted>),
}

/// Reads the settings, and takes what the spawner sends with its word to begin.
fn begin(path: &Path, spawner: &OwnedFd) -> Result<(Begun, Task)> {
    let settings = Settings::read(path)?;
    let (mut ports, mut dns) = (Vec::new(), None);
    loop {
        match receive(spawner, &mut [0; 256], RecvFlags::empty())? {
            Some((Request::Ports, fds)) => ports.extend(fds),
            Some((Request::Dns, fds)) => {
                let sockets = fds.try_into().map_err(|_| Error::invalid("a name server has two sockets"))?;
                let Dns { servers, networks } = settings.dns.clone().unwrap_or_default();
                dns = Some(Responder::new(sockets, servers, networks)?);
            }
            Some((Request::Begin, _)) => return Ok((Begun { settings, ports, dns }, Task::Create)),
            Some((Request::Adopt { pid }, fds)) => {
                let init = pid.and_then(Pid::from_raw).zip(fds.into_iter().next());
                let task = Task::Adopt(init.map(|(pid, pidfd)| Adopted::new(pid, pidfd)));
                return Ok((Begun { settings, ports, dns }, task));
            }
            _ => return Err(Error::invalid("nobody says what to do")),
        }
    }
}

#[derive(Debug)]
struct Prepared {
    wake: OwnedFd,
    listener: OwnedFd,
    log: Option<JsonFile>,
    host: HostMounts,
}

/// Makes of this process what a monitor is.
fn prepare(settings: &Settings, task: &Task, run: &RunDir) -> Result<Prepared> {
    setsid().context(|| "setsid")?;
    // The container has it if config.json does not say another, and it shall not be that of who happened to start it.
    umask(Mode::from_raw_mode(0o022));
    let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).context(|| "eventfd")?;
    sys::catch_signals(wake.try_clone().context(|| "dup")?).context(|| "sigaction")?;
    // Whatever of the container outlives its parent is waited for here, init first of all: rrun makes it and ends.
    rustix::process::set_child_subreaper(Some(getpid())).context(|| "prctl PR_SET_CHILD_SUBREAPER")?;
    let listener = run.listen()?;
    let log = match settings.log.driver {
        Driver::JsonFile => Some(JsonFile::open(&settings.log)?),
        Driver::None => None,
    };
    let host = HostMounts::leave(&root::shared(&settings.bundle))?;
    // An overlay's upper directory is that of one mount at a time: of the container that runs.
    if let (Some(overlay), Task::Create) = (&settings.root, task) {
        root::check(overlay)?;
        root::mount_overlay(overlay)?;
    }
    Ok(Prepared { wake, listener, log, host })
}

impl Monitor {
    fn new(path: &Path, begun: Begun, run: RunDir, prepared: Prepared) -> Self {
        let Begun { settings, ports, dns } = begun;
        let Prepared { wake, listener, log, host } = prepared;
        Self {
            settings_path: path.to_owned(),
            exit_path: path.with_file_name("exit.json"),
            exit_aside: settings.run.join("exit.json"),
            runtime: Runtime::new(&settings),
            host,
            run,
            wake,
            console: None,
            clients: Clients::new(listener),
            streams: Streams::new(settings.tty, settings.stdin_once),
            log,
            log_fails: false,
            ports: Ports::new(ports, &settings.ports),
            dns,
            at: At::Gone,
            init: None,
            init_ended: None,
            adopted: None,
            to_mount: false,
            oom: None,
            started: None,
            restarts: Restarts::default(),
            restart_at: None,
            last: None,
            failure: None,
            settings,
        }
    }

    /// Begins, with what is to be answered at once.
    fn begin(mut self, task: Task) -> Result<(Self, Option<Reply>)> {
        match task {
            Task::Adopt(init) => match self.adopt(init) {
                Ok(()) => Ok((self, Some(Reply::Done))),
                Err(e) => {
                    self.run.leave();
                    Err(e)
                }
            },
            Task::Create => {
                self.create();
                Ok((self, None))
            }
        }
    }

    /// Goes on with what another monitor was doing when it was killed.
    fn adopt(&mut self, init: Option<Adopted>) -> Result<()> {
        let last = [&self.exit_path, &self.exit_aside]
            .iter()
            .find_map(|path| serde_json::from_slice::<Exit>(&fs::read(path).ok()?).ok());
        let begun = self.run.begun();
        let is_recorded = |last: &Exit| Some(&last.started_at) == begun.as_ref();
        let last = last.filter(|last| last.restarting || is_recorded(last) || begun.is_none());
        self.restarts.count = last.as_ref().map_or(0, |last| last.restarts);
        self.to_mount = true;
        if let Some(init) = init {
            self.init = Some(init.pid);
            self.oom = OomKills::of(init.pid.as_raw_nonzero().get());
            self.started = Some(since(begun.unwrap_or_else(now)));
            (self.adopted, self.last, self.at) = (Some(init), last, At::Running);
            return Ok(());
        }
        let is_over = last.as_ref().is_some_and(|last| begun.is_none() || is_recorded(last));
        match (last, begun) {
            (Some(last), _) if is_over => {
                self.restart_at = last.restarting.then(Instant::now);
                self.last = Some(last);
                self.delete();
            }
            (last, Some(begun)) => {
                (self.started, self.last) = (Some(since(begun)), last);
                self.ended(Some(End::Unknown), None);
            }
            (_, None) => {
                return Err(Error::not_found(format!("{}: nothing to take over", self.settings.id)));
            }
        }
        Ok(())
    }

    fn serve(mut self) -> Result<()> {
        while self.at != At::Gone || self.streams.is_leaving() {
            let hangup = self.sleep()?;
            if sys::hangup()
                && let Some(Err(e)) = self.log.as_mut().map(JsonFile::reopen)
            {
                self.run.tell(&e);
            }
            self.pass_streams(|streams, log| streams.ready(hangup, log));
            self.reap();
            if let Some(end) = self.adopted.as_ref().and_then(Adopted::end) {
                self.adopted = None;
                self.ended(Some(end), None);
            }
            if matches!(self.at, At::Delay(until) if Instant::now() >= until) {
                self.create();
            }
            self.hear();
            self.ports.ready();
            if let Some(dns) = &mut self.dns {
                dns.ready();
            }
            if self.at == At::Created && self.clients.is_empty() {
                // Whoever made it has gone without starting it, and nobody else knows of it.
                self.ended(None, Some(Error::system("nobody started it")));
            }
        }
        self.leave();
        Ok(())
    }

    /// Waits until something can be done; whether somebody has hung up.
    fn sleep(&self) -> Result<bool> {
        let mut fds = Vec::with_capacity(16);
        fds.push(PollFd::new(&self.wake, PollFlags::IN));
        self.clients.poll(&mut fds);
        self.streams.poll(&mut fds);
        self.ports.poll(&mut fds);
        if let Some(dns) = &self.dns {
            dns.poll(&mut fds);
        }
        if let Some(init) = &self.adopted {
            init.poll(&mut fds);
        }
        let restart = match self.at {
            At::Delay(until) => Some(until),
            _ => None,
        };
        let dns = self.dns.as_ref().and_then(Responder::deadline);
        let until = restart.into_iter().chain(self.ports.deadline()).chain(dns);
        let until = until.chain(self.streams.deadline()).min();
        let left = until.map(|until| {
            let left = until.saturating_duration_since(Instant::now());
            Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() }
        });
        match poll(&mut fds, left.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(Error::from(e).context("poll")),
        }
        let _ = rustix::io::read(&self.wake, &mut [0; 8]);
        Ok(fds.iter().any(|fd| fd.revents().intersects(PollFlags::HUP | PollFlags::ERR)))
    }

    /// Moves output, and says once that it cannot be logged.
    fn pass_streams(&mut self, pass: impl FnOnce(&mut Streams, &mut dyn FnMut(usize, &[u8]))) {
        let (log, mut logged) = (&mut self.log, None);
        pass(&mut self.streams, &mut |stream, output| {
            if let Some(log) = log {
                logged = Some(log.output(stream, output));
            }
        });
        match logged {
            Some(Err(e)) if !self.log_fails => {
                self.log_fails = true;
                self.run.tell(&e.remedy("output that cannot be written is not logged"));
            }
            Some(Ok(())) => self.log_fails = false,
            _ => {}
        }
    }

    /// Waits for all children that have ended.
    fn reap(&mut self) {
        loop {
            let ended = match self.at {
                // Init's pid is not known yet: it is left to be waited for.
                At::Creating(pid) => waitpid(Some(pid), WaitOptions::NOHANG),
                _ => wait(WaitOptions::NOHANG),
            };
            let Ok(Some((pid, status))) = ended else { break };
            let done = if status.exit_status() == Some(0) { Ok(()) } else { Err(status) };
            match self.at {
                At::Creating(rrun) if pid == rrun => self.created(done),
                At::Starting(rrun) if pid == rrun => self.start_done(done),
                At::Deleting(rrun) if pid == rrun => self.deleted(done),
                At::Ending(command) if pid == command => {
                    if let Err(status) = done {
                        self.run.tell(&format!("{}: {status:?}", self.settings.ended.join(" ")));
                    }
                    self.at = At::Gone;
                }
                _ if Some(pid) == self.init => {
                    let signal = status.terminating_signal().map(End::Signal);
                    self.init_ended = signal.or_else(|| status.exit_status().map(End::Code));
                }
                _ => {}
            }
            if matches!(self.at, At::Created | At::Running)
                && let Some(end) = self.init_ended.take()
            {
                self.ended(Some(end), None);
            }
        }
    }

    fn create(&mut self) {
        let creating = (|| {
            if self.to_mount
                && let Some(overlay) = &self.settings.root
            {
                root::check(overlay)?;
                root::mount_overlay(overlay)?;
            }
            self.to_mount = false;
            let (streams, console) = if self.settings.tty {
                let (listener, path) = self.run.console()?;
                self.console = Some(listener);
                ([Stdio::null(), Stdio::null(), Stdio::null()], Some(path))
            } else {
                (self.streams.pipes(self.settings.open_stdin)?, None)
            };
            self.runtime.create(streams, console.as_deref())
        })();
        match creating {
            Ok(pid) => self.at = At::Creating(pid),
            Err(e) => self.not_created(e),
        }
    }

    fn created(&mut self, done: Result<(), WaitStatus>) {
        let made = done.map_err(|status| self.runtime.failure("create", status)).and_then(|()| {
            if let Some(console) = self.console.take() {
                self.streams.terminal(master(&console)?)?;
            }
            self.runtime.pid()
        });
        self.run.remove_console();
        let pid = match made {
            Ok(pid) => pid,
            Err(e) => return self.not_created(e),
        };
        self.init = Some(pid);
        self.oom = OomKills::of(pid.as_raw_nonzero().get());
        self.at = At::Created;
        if self.last.is_none() {
            // That of an earlier life.
            let _ = fs::remove_file(&self.exit_path);
            let _ = fs::remove_file(&self.exit_aside);
            self.clients.answer_creator(&Reply::Created { pid: pid.as_raw_nonzero().get() });
        } else if self.restarts.stopped {
            self.streams.close();
            self.give_up(String::new());
            self.delete();
        } else {
            self.start();
        }
    }

    /// Executes the container's program.
    pub fn start(&mut self) {
        match self.runtime.start() {
            Ok(pid) => self.at = At::Starting(pid),
            Err(e) => self.ended(None, Some(e)),
        }
    }

    fn start_done(&mut self, done: Result<(), WaitStatus>) {
        match done {
            Ok(()) => {
                let at = now();
                self.run.begin(&at);
                self.started = Some((at, Instant::now()));
                self.at = At::Running;
                self.clients.answer_starter(&Reply::Done);
                let status = self.status();
                self.clients.answer_stoppers(&status);
            }
            Err(status) => {
                let e = self.runtime.failure("start", status);
                let init = self.init_ended.take();
                self.ended(init, Some(e));
            }
        }
    }

    /// A run is over, or there is none because of `error`: writes it down, then tells.
    fn ended(&mut self, end: Option<End>, error: Option<Error>) {
        let (code, signal) = match end {
            Some(End::Signal(signal)) => (128 + signal, Some(signal)),
            Some(End::Code(code)) if error.is_none() => (code, None),
            Some(End::Unknown) => (255, None),
            // Docker's, for what was not executed.
            _ => (128, None),
        };
        let started = self.started.take();
        let delay = match (&error, &started) {
            (None, Some((_, at))) => self.restarts.after(self.settings.restart, code, at.elapsed()),
            _ => None,
        };
        self.restart_at = delay.map(|delay: Duration| Instant::now() + delay);
        let oom = self.oom.take().is_some_and(|oom| oom.any());
        let error = match end {
            Some(End::Unknown) => UNSEEN.to_owned(),
            _ => error.map(|e| e.to_string()).unwrap_or_default(),
        };
        self.record(Exit {
            code,
            signal,
            oom,
            started_at: started.map(|(at, _)| at).unwrap_or_default(),
            finished_at: now(),
            restarts: self.restarts.count,
            restarting: delay.is_some(),
            error: error.clone(),
        });
        self.run.end();
        self.pass_streams(|streams, log| streams.finish(log));
        if let Some(Err(e)) = self.log.as_mut().map(JsonFile::end) {
            self.run.tell(&e);
        }
        if !error.is_empty() {
            self.clients.answer_starter(&Reply::Error { text: error });
        }
        self.tell_waiters(Until::Exit);
        self.delete();
    }

    /// Writes `exit.json`. Not to the disk: a power cut ends the container anyhow, and what it leaves of the file is a
    /// container that ended in a way nobody knows.
    fn record(&mut self, exit: Exit) {
        // The other one would be of the run before.
        if self.write(&self.exit_path, &exit) {
            let _ = fs::remove_file(&self.exit_aside);
        } else if self.write(&self.exit_aside, &exit) {
            let _ = fs::remove_file(&self.exit_path);
        }
        self.last = Some(exit);
    }

    /// Writes what has changed in `monitor.json`, for whoever [adopts](super::adopt) the container.
    pub fn keep_settings(&self) {
        let _ = self.write(&self.settings_path, &self.settings);
    }

    /// Whether it could; if not, that is told.
    fn write(&self, path: &Path, words: &impl Serialize) -> bool {
        let new = path.with_file_name(".monitor.new");
        let written = serde_json::to_vec(words).map_err(std::io::Error::from).and_then(|json| {
            fs::OpenOptions::new()
                .create(true)
                .write(true)
                .truncate(true)
                .mode(0o600)
                .open(&new)
                .and_then(|mut file| file.write_all(&json))
        });
        let done = written.and_then(|()| fs::rename(&new, path));
        done.map_err(|e| {
            let _ = fs::remove_file(&new);
            self.run.tell(&Error::from(e).context(format!("write {}", path.display())));
        })
        .is_ok()
    }

    /// A name server, for a container that had none or had one at other sockets.
    pub fn set_dns(&mut self, dns: Dns, sockets: Vec<OwnedFd>) -> Result<()> {
        let sockets = sockets.try_into().map_err(|_| Error::invalid("a name server has two sockets"))?;
        self.dns = Some(Responder::new(sockets, dns.servers.clone(), dns.networks.clone())?);
        self.settings.dns = Some(dns);
        self.keep_settings();
        Ok(())
    }

    /// Other networks' names are answered, and others asked.
    pub fn set_names(&mut self, dns: Dns) -> Result<()> {
        let (Some(responder), Some(settings)) = (&mut self.dns, &mut self.settings.dns) else {
            return Err(Error::conflict("the container has no name server"));
        };
        responder.set(dns.servers.clone(), dns.networks.clone());
        *settings = dns;
        self.keep_settings();
        Ok(())
    }

    /// Further ports are held, or, where there are none, no ports any more.
    pub fn set_ports(&mut self, ports: Vec<super::Port>, sockets: Vec<OwnedFd>) {
        if ports.is_empty() {
            self.ports = Ports::default();
            self.settings.ports.clear();
        } else {
            self.ports.add(sockets, &ports);
            self.settings.ports.extend(ports);
        }
        self.keep_settings();
    }

    fn not_created(&mut self, e: Error) {
        self.streams.close();
        self.console = None;
        if self.last.is_none() {
            self.failure = Some(e);
            // What rrun left, if anything: it was killed, or it made what is no use here.
            return self.delete();
        }
        self.run.tell(&e);
        self.restart_at = None;
        self.give_up(e.to_string());
        self.delete();
    }

    /// The last run's end is the container's.
    fn give_up(&mut self, error: String) {
        if let Some(last) = self.last.clone().filter(|last| last.restarting) {
            self.record(Exit { restarting: false, error, ..last });
        }
    }

    fn delete(&mut self) {
        match self.runtime.delete() {
            Ok(pid) => self.at = At::Deleting(pid),
            Err(e) => {
                self.run.tell(&e);
                self.end();
            }
        }
    }

    fn deleted(&mut self, done: Result<(), WaitStatus>) {
        if let Err(status) = done {
            self.run.tell(&self.runtime.failure("delete", status));
        }
        // If it was there, it was killed. It may be waited for a little later, like everybody else.
        (self.init, self.init_ended) = (None, None);
        match self.restart_at.take() {
            Some(at) if !self.restarts.stopped => self.at = At::Delay(at),
            Some(_) => {
                self.give_up(String::new());
                self.end();
            }
            None => self.end(),
        }
    }

    /// It is not started again.
    pub fn stop_restarting(&mut self) {
        self.restarts.stopped = true;
        if matches!(self.at, At::Delay(_)) {
            self.give_up(String::new());
            self.end();
        }
    }

    fn end(&mut self) {
        self.at = At::Gone;
        self.tell_waiters(Until::Exit);
        // Its sockets would keep the network namespace, which is taken down next.
        self.dns = None;
        // From here the container's mounts are none of this process's, so that what is below them can be removed.
        if let Err(e) = self.host.enter() {
            self.run.tell(&e);
        }
        if self.failure.is_some() || self.settings.ended.is_empty() {
            return;
        }
        match self.runtime.run(&self.settings.ended) {
            Ok(pid) => self.at = At::Ending(pid),
            Err(e) => self.run.tell(&e),
        }
    }

    /// Removes what is in the run directory, and tells the last ones.
    fn leave(mut self) {
        // What the container sent at last is in its sockets.
        self.ports.ready();
        // Whoever is told that it has ended may bind them at once.
        self.ports = Ports::default();
        self.runtime.remove();
        let status = self.status();
        self.run.leave();
        if let Some(e) = self.failure {
            self.clients.answer_creator(&Reply::Error { text: e.to_string() });
        }
        self.clients.answer_stoppers(&status);
        if let Some(last) = &self.last {
            self.clients.answer_waiters(Until::Ended, last);
        }
    }

    fn tell_waiters(&mut self, until: Until) {
        if let Some(last) = &self.last {
            self.clients.answer_waiters(until, last);
        }
    }

    /// Whether the container has ended and is not started again.
    pub fn is_over(&self) -> bool {
        match self.at {
            At::Deleting(_) => self.restart_at.is_none(),
            At::Ending(_) | At::Gone => true,
            _ => false,
        }
    }

    /// What is told to who asks.
    pub fn status(&self) -> Status {
        let phase = match self.at {
            At::Running => Phase::Running,
            _ if self.is_over() => Phase::Ending,
            At::Deleting(_) | At::Delay(_) => Phase::Restarting,
            _ if self.last.is_some() => Phase::Restarting,
            _ => Phase::Created,
        };
        Status {
            phase,
            pid: self.init.map_or(0, |pid| pid.as_raw_nonzero().get()),
            started_at: self.started.as_ref().map(|(at, _)| at.clone()).unwrap_or_default(),
            restarts: self.restarts.count,
        }
    }
}

/// A run that began then, and how long that is ago.
fn since(at: String) -> (String, Instant) {
    let ago = OffsetDateTime::parse(&at, &Rfc3339).map(|at| OffsetDateTime::now_utc() - at).ok();
    let ago = ago.and_then(|ago| Duration::try_from(ago).ok()).unwrap_or_default();
    (at, Instant::now().checked_sub(ago).unwrap_or_else(Instant::now))
}

/// The terminal that rrun has sent: by the time it has ended, connection and message are there.
pub(crate) fn master(console: &OwnedFd) -> Result<OwnedFd> {
    let socket = accept_with(console, SocketFlags::CLOEXEC).context(|| "accept the terminal")?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    recvmsg(&socket, &mut [IoSliceMut::new(&mut [0; 4096])], &mut control, flags)
        .context(|| "receive the terminal")?;
    let received = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    received.ok_or_else(|| Error::system("receive the terminal: no descriptor"))
}
