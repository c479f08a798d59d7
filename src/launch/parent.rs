//! rrun's side of a launch: clone, prepare what needs rrun's privileges, talk, and either hand over a
//! process that waits or leave none behind.

#![forbid(unsafe_code)]

use super::protocol::{self, Lost, Message, Report};
use super::start::Attended;
use super::{Child, clone_into, exec, init, relay, words};
use crate::cgroup::{Cgroup, Entry, Tasks};
use crate::error::{Call as _, Context as _, Error, Kind as ErrorKind, Result};
use crate::plan::bitmask::Bitmask;
use crate::plan::exec::ExecPlan;
use crate::plan::process::RlimitPlan;
use crate::plan::{Kind, Plan};
use crate::rdt::Groups;
use crate::state::Slot;
use crate::sys::SysError;
use crate::sys::launch::{Cloned, namespace_kind, setns};
use crate::sys::signal::Signals;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd as _, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};
use std::path::Path;

/// How long a process may take to end once it has closed its socket.
const MOMENT: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// Who starts a container that is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Starts {
    /// Another command.
    Apart,
    /// The same one, on the pair, when it has done what is due before.
    Later,
    /// The same one, as soon as the container is on record.
    Now,
}

/// A process that was started and is not yet handed over: dropping it kills and reaps it.
#[derive(Debug)]
pub struct Launched {
    /// Its pid here.
    pub pid: u32,
    /// A pidfd of it.
    pub pidfd: OwnedFd,
    /// The master of its terminal.
    pub console: Option<OwnedFd>,
    socket: OwnedFd,
    /// What came with the last message: a detached mount that waits for its id map, a pidfd.
    fd: Option<OwnedFd>,
    /// Whether this process only makes the one that it is about, and has not said yet that it has.
    relay: bool,
    /// How it showed that the process hears nothing any more.
    unheard: Option<SysError>,
    armed: bool,
}

impl Drop for Launched {
    fn drop(&mut self) {
        if self.armed {
            let _ = rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL);
            let _ = self.reap();
            // What it has made and said, and what nobody has heard yet.
            while self.relay
                && let Ok((message, fds)) = protocol::receive_now(&self.socket)
            {
                if let (Message::Pid(_), Some(pidfd)) = (message, fds.first()) {
                    let _ = rustix::process::pidfd_send_signal(pidfd, Signal::KILL);
                }
            }
        }
    }
}

impl Launched {
    fn reap(&self) -> Option<i32> {
        let fd = self.pidfd.as_fd();
        let status =
            protocol::retry(|| rustix::process::waitid(WaitId::PidFd(fd), WaitIdOptions::EXITED)).ok()??;
        status.terminating_signal()
    }

    /// Lets init wait for `start` by itself, or, in a `run`, for a start from here; until then it dies with rrun. With
    /// [`Starts::Now`] it is started. Returns a pidfd of it and its terminal.
    ///
    /// # Errors
    /// The process has died.
    pub fn commit(mut self, starts: Starts) -> Result<(OwnedFd, Option<OwnedFd>, Option<Attended>)> {
        let word = match starts {
            Starts::Apart => Message::Committed,
            Starts::Later => Message::Attended,
            Starts::Now => Message::Start,
        };
        // Before the word that cannot be taken back.
        let pidfd = self.pidfd.try_clone().call(|| "fcntl")?;
        let attended = match starts {
            Starts::Apart => None,
            Starts::Later | Starts::Now => {
                let socket = self.socket.try_clone().call(|| "fcntl")?;
                Some(Attended { socket, started: starts == Starts::Now })
            }
        };
        protocol::send(&self.socket, &word, &[]).context(|| "the container's first process has died")?;
        self.armed = false;
        Ok((pidfd, self.console.take(), attended))
    }

    /// Replaces a relay by the process that it has made, which is rrun's child too.
    fn replaced(mut self, pid: u32) -> Result<Self> {
        let pidfd = self.fd.take().ok_or_else(|| protocol::unexpected(&Message::Pid(pid)))?;
        // Saying so was its last act.
        let _ = self.reap();
        self.relay = false;
        self.pidfd = pidfd;
        self.pid = pid;
        Ok(self)
    }

    fn send(&mut self, message: &Message) -> Result<()> {
        self.send_with(message, &[])
    }

    /// What it has reported, if it has and nothing else before.
    fn fault(&self) -> Option<Report> {
        match protocol::receive_now(&self.socket) {
            Ok((Message::Fault(report), _)) => Some(report),
            _ => None,
        }
    }

    fn send_with(&mut self, message: &Message, fds: &[BorrowedFd<'_>]) -> Result<()> {
        match protocol::send(&self.socket, message, fds) {
            // A child that has failed has said why before it closed its end. One that lives hears of the end by this.
            Err(e) if matches!(e.errno, Errno::PIPE | Errno::CONNRESET) => {
                self.unheard = Some(e);
                let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
                Ok(())
            }
            other => Ok(other?),
        }
    }

    /// The next message but Console; the fd of either kind is kept.
    fn receive(
        &mut self,
        cgroup: &Cgroup,
        mut failed: impl FnMut(&Report) -> Error,
    ) -> Result<Option<Message>> {
        loop {
            match protocol::receive(&self.socket) {
                Ok((Message::Console, fds)) => self.console = fds.into_iter().next(),
                Ok((Message::Fault(report), _)) => {
                    return Err(out_of_memory(cgroup).unwrap_or_else(|| failed(&report)));
                }
                Ok((message, fds)) => {
                    self.fd = fds.into_iter().next();
                    return Ok(Some(message));
                }
                Err(Lost::Closed) => return Ok(None),
                Err(Lost::Broken(errno)) if errno == Errno::CONNRESET => {
                    self.unheard = Some(SysError { call: "recvmsg", errno });
                    return Ok(None);
                }
                Err(Lost::Broken(errno)) => return Err(Error::sys("recvmsg", errno)),
            }
        }
    }

    /// The process has ended without a word.
    fn died(&mut self, cgroup: &Cgroup) -> Error {
        let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
        let ended = protocol::retry(|| poll(&mut fds, Some(&MOMENT))).is_ok_and(|ready| ready > 0);
        if !ended {
            let _ = rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL);
        }
        let signal = self.reap().filter(|_| ended);
        self.armed = false;
        let words = match signal {
            Some(signal) => format!("container init was killed by signal {signal}"),
            None => "container init ended before it was ready".to_owned(),
        };
        out_of_memory(cgroup).unwrap_or_else(|| match self.unheard {
            Some(e) => Error::from(e).context(words),
            None => Error::new(words),
        })
    }
}

fn out_of_memory(cgroup: &Cgroup) -> Option<Error> {
    (cgroup.oom_kills() > 0).then(|| Error::new("container init was OOM-killed (memory limit too low?)"))
}

/// Starts init and brings it to the point where it waits for the state to be recorded. `hand_over` is given the number
/// of the seccomp notification fd in that process, and `forgets` says that it has to leave rrun's file behind. What
/// `meanwhile` does takes no time, as init is at work.
///
/// # Errors
/// What the plan asked for could not be done, worded with its place in config.json; nothing is left then.
pub fn init<T>(
    plan: &Plan,
    slot: &Slot,
    cgroup: &mut Cgroup,
    groups: Option<(&Groups, &Path)>,
    (signals, forgets): (Option<&Signals>, bool),
    meanwhile: impl FnOnce(&Launched, &Cgroup) -> Result<T>,
    hand_over: impl Fn(&Launched, i32) -> Result<()>,
) -> Result<(Launched, T)> {
    let listener = crate::state::socket(slot)?;
    let applied = cgroup.is_complete(&plan.cgroup);
    if applied {
        // Before anyone is in it.
        cgroup.apply(&plan.cgroup)?;
    }
    let mut joins = open_joined(plan)?;
    refuse_host_network(plan, &joins)?;
    let (socket, theirs) = protocol::pair()?;
    let create = plan.namespaces.create_flags() & !(Kind::Cgroup.flag() | Kind::Time.flag());

    // A pid namespace takes children only; rrun comes back to its own right after, for its hooks' sake.
    let relayed = plan.namespaces.joins(Kind::User).is_some();
    let own_pid_namespace = match take(&mut joins, Kind::Pid) {
        Some(fd) if !relayed => {
            let own = open(Path::new("/proc/self/ns/pid"))?;
            setns(&fd, Kind::Pid.flag()).context(|| "linux.namespaces: pid")?;
            Some(own)
        }
        Some(fd) => {
            joins.push((Kind::Pid, fd));
            None
        }
        None => None,
    };
    let by_relay: Vec<(OwnedFd, u32)> = match relayed {
        true => joins.drain(..).map(|(kind, fd)| (fd, kind.flag())).collect(),
        false => Vec::new(),
    };
    // The kernel takes longer for most kinds than for the process, which makes them while rrun is at work. It begins in
    // those that others find it by or that own the rest, and with what rrun itself has to find in it.
    let at_once = Kind::User.flag()
        | Kind::Pid.flag()
        | if plan.net_devices.is_empty() { 0 } else { Kind::Network.flag() };
    let unshares = if relayed { 0 } else { create & !at_once };
    // What a relay makes is waited for outside: in the cgroup there may be room for one process only.
    let flags = if relayed { 0 } else { create & !unshares };
    let enters = !relayed && plan.cgroup.unit.is_none() && cgroup.may_be_entered();
    let unified = if enters { cgroup.unified() } else { Ok(None) };
    let enters = enters && unified.is_ok();
    let unified = unified.ok().flatten();
    let child = Child {
        socket: theirs,
        unshares,
        joins,
        target: None,
        root: None,
        relayed,
        forgets,
        preserve: plan.preserve_fds,
        ignored: crate::host::ignored_signals(),
    };
    let (cloned, made_there) = clone_into(flags, unified.as_ref().map(|fd| fd.as_fd()))
        .map_err(|e| words::of_namespaces(plan, e.into()))?;
    let enters = enters && (made_there || unified.is_none());
    let Cloned::Parent(pid, pidfd) = cloned else {
        if relayed {
            relay::through(&by_relay, create, &child.socket);
        }
        if let Some(signals) = signals {
            let _ = signals.restore_in_child();
        }
        init::main(plan, child, &listener)
    };
    drop((child, by_relay));
    let mut launched =
        Launched { pid, pidfd, console: None, socket, fd: None, relay: false, unheard: None, armed: true };
    if let Some(own) = own_pid_namespace {
        setns(&own, Kind::Pid.flag()).context(|| "return to the runtime's pid namespace")?;
    }
    if relayed {
        launched = after_relay(launched, |report| words::of_init(plan, report))?;
    }
    crate::log::debug(|| format!("nsexec container setup: pid {}, {}", launched.pid, plan.namespaces));
    let fitted = (|| {
        crate::ids::write(plan, launched.pid)?;
        if let Some(score) = plan.process.oom_score_adj {
            write_oom_score(launched.pid, score, plan.rootless)?;
        }
        if plan.namespaces.creates(Kind::User) {
            launched.send(&Message::Go)?;
        }
        cgroup.start(&plan.cgroup, launched.pid)?;
        cgroup.complete(&plan.cgroup)?;
        let entry = enters.then(|| cgroup.entry(&[])).flatten();
        match &entry {
            Some(entry) if entry.tasks.is_empty() => {}
            Some(entry) => {
                let fds: Vec<_> = entry.tasks.iter().map(|(_, file)| file.as_fd()).collect();
                launched.send_with(&Message::Cgroups, &fds)?;
            }
            None => cgroup.add(launched.pid)?,
        }
        if !applied {
            cgroup.apply(&plan.cgroup)?;
        }
        prepare(plan, &mut launched, groups)
    })();
    // Init is at work meanwhile: what has failed there has made this fail.
    fitted.map_err(|e| launched.fault().map_or(e, |report| words::of_init(plan, &report)))?;
    crate::state::listen(slot, &listener)?;
    drop(listener);
    let done = meanwhile(&launched, cgroup)?;
    let launched = converse(plan, launched, cgroup, hand_over)?;
    cgroup.delegate(&plan.cgroup, launched.pid, plan.ids.host_uid(0).unwrap_or(0))?;
    Ok((launched, done))
}

/// What needs rrun's own privileges, done before init goes on.
fn prepare(plan: &Plan, launched: &mut Launched, groups: Option<(&Groups, &Path)>) -> Result<()> {
    let pid = launched.pid;
    // The runtime may itself be bound to few CPUs, and a cpuset does not widen what is inherited (runc #4858).
    reset_affinity(pid);
    if let Some((groups, root)) = groups {
        crate::rdt::assign(groups, root, signed(pid))?;
    }
    if !plan.net_devices.is_empty() {
        let namespace = match plan.namespaces.joins(Kind::Network) {
            Some(path) => open(path)?,
            None => open(Path::new(&format!("/proc/{pid}/ns/net")))?,
        };
        crate::netdev::move_all(&plan.net_devices, namespace.as_fd())?;
    }
    for (i, limit) in plan.process.rlimits.iter().enumerate() {
        raise(pid, limit).context(|| format!("process.rlimits[{i}]"))?;
    }
    if plan.rootfs.needs_parent {
        send_sources(plan, launched)?;
    }
    launched.send(&Message::Go)
}

fn converse(
    plan: &Plan,
    mut launched: Launched,
    cgroup: &Cgroup,
    hand_over: impl Fn(&Launched, i32) -> Result<()>,
) -> Result<Launched> {
    loop {
        match launched.receive(cgroup, |report| words::of_init(plan, report))? {
            Some(Message::Idmap(index)) => {
                map_source(plan, &mut launched, usize::from(index))?;
                launched.send(&Message::Go)?;
            }
            Some(Message::Hooks) => {
                creation_hooks(plan, launched.pid)?;
                launched.send(&Message::Go)?;
            }
            Some(Message::Listener(number)) => {
                hand_over(&launched, number)?;
                launched.send(&Message::Go)?;
            }
            Some(Message::Ready) => {
                crate::log::debug(|| {
                    format!("child process in init(): pid {} waits for start", launched.pid)
                });
                return Ok(launched);
            }
            Some(other) => return Err(protocol::unexpected(&other)),
            None => return Err(launched.died(cgroup)),
        }
    }
}

/// Runs the hooks that configure namespaces from outside, now that these exist.
///
/// # Errors
/// The first that fails.
pub fn creation_hooks(plan: &Plan, init: u32) -> Result<()> {
    if plan.hooks.prestart.is_empty() && plan.hooks.create_runtime.is_empty() {
        return Ok(());
    }
    let state = |status| crate::oci_state::of_plan(plan, status, Some(init));
    let outputs = crate::hooks::Outputs::open(&plan.annotations)?;
    let env = crate::hooks::own_environment();
    let options = outputs.options(&env);
    // runtime.md says both: created is "after step 2", which prestart is, and after the create operation, which it is
    // not. runtime-tools and crun go by the step for prestart, runc by the operation for all three.
    crate::hooks::run("prestart", &plan.hooks.prestart, &state("created"), &options)?;
    crate::hooks::run("createRuntime", &plan.hooks.create_runtime, &state("creating"), &options)
}

/// Starts a further process; on return it has executed its program.
///
/// # Errors
/// As [`init()`].
pub fn exec(
    plan: &ExecPlan,
    (target, init): (OwnedFd, u32),
    cgroup: &mut Cgroup,
    (signals, forgets): (Option<&Signals>, bool),
    listener: impl Fn(&Launched, i32) -> Result<()>,
) -> Result<Launched> {
    let sub: Vec<(Option<&str>, &str)> =
        plan.sub_cgroups.iter().map(|(controller, path)| (controller.as_deref(), path.as_str())).collect();
    // The initial affinity is for the time before the process is in the cgroup (config.md, "execCPUAffinity").
    let entry = match plan.process.exec_affinity.initial {
        None => cgroup.entry(&sub),
        Some(_) => None,
    };
    // Whose it is, is known below, when init still lives.
    let root = plan.chroot.then(|| open_root(init)).transpose()?;
    let mut exec = Exec { plan, target, root, init, sub, full: false };
    match exec.launch(entry, cgroup, (signals, forgets), &listener) {
        Err(_) if exec.full => exec.launch(None, cgroup, (signals, forgets), &listener),
        other => other,
    }
}

/// A further process, as it is launched.
struct Exec<'a> {
    plan: &'a ExecPlan,
    /// A pidfd of init, and its pid.
    target: OwnedFd,
    init: u32,
    /// Init's root, if it is not that of a mount namespace.
    root: Option<OwnedFd>,
    /// Below which cgroups.
    sub: Vec<(Option<&'a str>, &'a str)>,
    /// Whether a relay and what it makes were too many for the cgroup, where one would not be.
    full: bool,
}

impl Exec<'_> {
    fn launch(
        &mut self,
        entry: Option<Entry>,
        cgroup: &mut Cgroup,
        (signals, forgets): (Option<&Signals>, bool),
        listener: impl Fn(&Launched, i32) -> Result<()>,
    ) -> Result<Launched> {
        let (plan, init) = (self.plan, self.init);
        let (mut launched, entered) = self.spawn(entry, signals, forgets)?;
        let waits = waits(plan, entered);
        if waits && launched.relay {
            launched = match launched.receive(cgroup, |report| words::of_exec(plan, report))? {
                Some(Message::Pid(pid)) => launched.replaced(pid)?,
                Some(other) => return Err(protocol::unexpected(&other)),
                None => return Err(Error::new("the process that enters the namespaces was killed")),
            };
        }
        crate::log::debug(|| {
            format!("nsexec container setup: pid {}, namespaces of pid {init}", launched.pid)
        });
        if let Some(cpus) = &plan.process.exec_affinity.initial {
            set_affinity(launched.pid, cpus).context(|| "process.execCPUAffinity.initial")?;
            crate::log::debug(|| format!("nsexec container setup: affinity: {}", cpus.hex()));
        }
        if !entered {
            cgroup.add_exec(launched.pid, &self.sub, init)?;
        }
        // A delete that killed what was in the cgroup just before this process came waits for nobody to be left.
        if !launched.relay && super::has_ended(&self.target)? {
            return Err(Error::kind(ErrorKind::State, "cannot exec in a stopped container"));
        }
        match &plan.process.exec_affinity.last {
            Some(cpus) => {
                set_affinity(launched.pid, cpus).context(|| "process.execCPUAffinity.final")?;
            }
            None if plan.process.exec_affinity.initial.is_none() => {
                reset_affinity(launched.pid);
            }
            None => {}
        }
        if let Some(score) = plan.process.oom_score_adj {
            write_oom_score(launched.pid, score, plan.rootless)?;
        }
        for (i, limit) in plan.process.rlimits.iter().enumerate() {
            raise(launched.pid, limit).context(|| format!("process.rlimits[{i}]"))?;
        }
        crate::log::debug(|| {
            format!("child process in init(): setns_init: about to exec, pid {}", launched.pid)
        });
        launched.send(&Message::Go)?;
        loop {
            let failed = |report: &Report| {
                self.full |= entered && report.call == "clone3" && report.errno == Errno::AGAIN;
                words::of_exec(plan, report)
            };
            match launched.receive(cgroup, failed)? {
                Some(Message::Pid(pid)) if launched.relay => launched = launched.replaced(pid)?,
                Some(Message::Listener(number)) => {
                    listener(&launched, number)?;
                    launched.send(&Message::Go)?;
                }
                Some(other) => return Err(protocol::unexpected(&other)),
                None if launched.relay => {
                    return Err(Error::new("the process that enters the namespaces was killed"));
                }
                // The end of file that execve makes; a process that was killed before it ends as killed.
                None => return Ok(launched),
            }
        }
    }

    /// Clones it, or its relay, in the cgroup if there is one and says whether it is. A relay begins there itself, so
    /// that no fd of the cgroup is open in what the container can see (CVE-2024-21626).
    fn spawn(
        &self,
        entry: Option<Entry>,
        signals: Option<&Signals>,
        forgets: bool,
    ) -> Result<(Launched, bool)> {
        let plan = self.plan;
        let (socket, theirs) = protocol::pair()?;
        let relayed = plan.joined & (Kind::User.flag() | Kind::Pid.flag()) != 0;
        // A relay's word comes when it has entered them; without one they could be gone by then, and nobody would
        // notice.
        let (unified, tasks, enters) = parts(entry.filter(|entry| relayed || entry.tasks.is_empty()));
        let child = Child {
            socket: theirs,
            unshares: 0,
            joins: Vec::new(),
            target: Some(self.target.try_clone().call(|| "fcntl")?),
            root: self.root.as_ref().map(OwnedFd::try_clone).transpose().call(|| "fcntl")?,
            relayed,
            forgets,
            preserve: plan.preserve_fds,
            ignored: crate::host::ignored_signals(),
        };
        let (cloned, made_there) = clone_into(0, unified.as_ref().map(|fd| fd.as_fd()))?;
        let entered = enters && (made_there || unified.is_none());
        let Cloned::Parent(pid, pidfd) = cloned else {
            if let Some(signals) = signals {
                let _ = signals.restore_in_child();
            }
            exec::main(plan, tasks, child, waits(plan, entered))
        };
        let launched = Launched {
            pid,
            pidfd,
            console: None,
            socket,
            fd: None,
            relay: relayed,
            unheard: None,
            armed: true,
        };
        Ok((launched, entered))
    }
}

/// Whether something has to be done with the process itself and not with the relay that it inherits from: it goes into
/// the cgroup alone, or an agent gets a descriptor out of it.
fn waits(plan: &ExecPlan, entered: bool) -> bool {
    !entered || plan.seccomp.as_ref().is_some_and(|filter| filter.listener.is_some())
}

fn open_root(pid: u32) -> Result<OwnedFd> {
    let path = format!("/proc/{pid}/root");
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(&path, flags, Mode::empty()).call(|| format!("open {path}"))
}

/// The cgroup to clone into, those that the clone enters itself, and whether these are all.
fn parts(entry: Option<Entry>) -> (Option<OwnedFd>, Tasks, bool) {
    match entry {
        Some(Entry { unified, tasks }) => (unified, tasks, true),
        None => (None, Vec::new(), false),
    }
}

impl Launched {
    /// Hands an exec'd process over: it lives on without rrun.
    pub fn release(mut self) -> (u32, Result<OwnedFd>, Option<OwnedFd>) {
        self.armed = false;
        (self.pid, self.pidfd.try_clone().call(|| "fcntl"), self.console.take())
    }
}

/// Replaces the relay by the process that it has made, which is rrun's child too.
fn after_relay(mut relay: Launched, failed: impl Fn(&Report) -> Error) -> Result<Launched> {
    // Its last act is to say the pid. No end of file tells that it was killed before: the other has the socket too.
    let fd = relay.pidfd.as_fd();
    let reaped = protocol::retry(|| rustix::process::waitid(WaitId::PidFd(fd), WaitIdOptions::EXITED));
    // ECHILD: our caller ignores SIGCHLD, so it has ended all the same.
    let ended = matches!(reaped, Ok(_) | Err(Errno::CHILD));
    relay.armed = !ended;
    let said = if ended { protocol::receive_now(&relay.socket) } else { protocol::receive(&relay.socket) };
    let pid = match said {
        Ok((Message::Pid(pid), _)) => pid,
        Ok((Message::Fault(report), _)) => return Err(failed(&report)),
        Ok((other, _)) => return Err(protocol::unexpected(&other)),
        // Nothing, though the other is there and would say more: it was killed before.
        Err(Lost::Closed | Lost::Broken(Errno::WOULDBLOCK)) => {
            return Err(Error::new("the process that enters the namespaces was killed"));
        }
        Err(Lost::Broken(errno)) => {
            return Err(Error::sys("recvmsg", errno).context("the process that enters the namespaces"));
        }
    };
    let number = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or_else(|| Error::new("pid 0"))?;
    let pidfd = rustix::process::pidfd_open(number, PidfdFlags::empty()).call(|| "pidfd_open")?;
    let socket = relay.socket.try_clone().call(|| "fcntl")?;
    Ok(Launched { pid, pidfd, console: None, socket, fd: None, relay: false, unheard: None, armed: true })
}

/// Opens every namespace to join, once: the fd that was checked is the one that is entered.
fn open_joined(plan: &Plan) -> Result<Vec<(Kind, OwnedFd)>> {
    let mut joins = Vec::new();
    for kind in Kind::ALL {
        let Some(path) = plan.namespaces.joins(kind) else { continue };
        let fd = open(path).context(|| format!("{}.path: {}", plan.namespaces.at(kind), kind.name()))?;
        match namespace_kind(&fd) {
            Ok(flag) if flag == kind.flag() => joins.push((kind, fd)),
            _ => {
                let text = format!("{} is not a {} namespace", path.display(), kind.name());
                return Err(Error::config(format!("{}.path", plan.namespaces.at(kind)), text));
            }
        }
    }
    Ok(joins)
}

/// A `net.*` parameter in a joined network namespace that is the host's own would change the host.
fn refuse_host_network(plan: &Plan, joins: &[(Kind, OwnedFd)]) -> Result<()> {
    let Some(name) = &plan.sysctls.joined_net else { return Ok(()) };
    let Some((_, joined)) = joins.iter().find(|(kind, _)| *kind == Kind::Network) else { return Ok(()) };
    let identity =
        |fd: &OwnedFd| rustix::fs::fstat(fd).map(|stat| (stat.st_dev, stat.st_ino)).call(|| "fstat");
    let own = open(Path::new("/proc/self/ns/net"))?;
    if identity(joined)? == identity(&own)? {
        return Err(crate::plan::sysctl::host_network(name));
    }
    Ok(())
}

fn take(joins: &mut Vec<(Kind, OwnedFd)>, kind: Kind) -> Option<OwnedFd> {
    let at = joins.iter().position(|(have, _)| *have == kind)?;
    Some(joins.remove(at).1)
}

fn open(path: &Path) -> Result<OwnedFd> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())
        .call(|| format!("open {}", path.display()))
}

fn write_oom_score(pid: u32, score: i32, rootless: bool) -> Result<()> {
    match std::fs::write(format!("/proc/{pid}/oom_score_adj"), score.to_string()) {
        Err(e) if rootless && e.kind() == std::io::ErrorKind::PermissionDenied => {
            // Callers give users what they give root; nothing is less confined for it.
            let text =
                format!("process.oomScoreAdj: {score} is left out: lowering it needs CAP_SYS_RESOURCE");
            crate::log::warning(text);
            Ok(())
        }
        other => other
            .call(|| format!("write {score} to oom_score_adj"))
            .context(|| "process.oomScoreAdj")
            .map_err(|e| e.remedy("lowering it needs CAP_SYS_RESOURCE")),
    }
}

/// Raises a hard limit while there is the privilege to: inside, the process will lack it.
fn raise(pid: u32, limit: &RlimitPlan) -> Result<()> {
    // Its own are rrun's still, and asking for those of another user needs the privilege.
    let (soft, hard) = crate::sys::launch::own_limit(limit.resource)?;
    if limit.hard <= hard {
        return Ok(());
    }
    crate::sys::task::prlimit(signed(pid), limit.resource, soft, limit.hard)
        .context(|| format!("raise the hard limit of {} from {hard} to {}", limit.name, limit.hard))
        .map_err(|e| e.remedy("needs CAP_SYS_RESOURCE, or a higher limit of the caller"))
}

/// The container's user namespace, if it has one.
fn user_namespace(plan: &Plan, launched: &Launched) -> Result<Option<OwnedFd>> {
    match plan.namespaces.joins(Kind::User) {
        Some(path) => open(path).map(Some),
        None if plan.namespaces.creates(Kind::User) => {
            open(Path::new(&format!("/proc/{}/ns/user", launched.pid))).map(Some)
        }
        None => Ok(None),
    }
}

/// Maps the ids of a source that only the child could clone, as it lies in the container's own tree.
fn map_source(plan: &Plan, launched: &mut Launched, index: usize) -> Result<()> {
    let namespace = user_namespace(plan, launched)?;
    let tree = launched.fd.take();
    let op = plan.rootfs.ops.get(index);
    match (op.and_then(|op| op.bind()?.idmap.as_ref()), tree, op) {
        (Some(map), Some(tree), Some(op)) => {
            crate::rootfs::map_ids(&tree, map, namespace.as_ref().map(|fd| fd.as_fd())).context(|| op)
        }
        _ => Err(protocol::unexpected(&Message::Idmap(0))),
    }
}

fn send_sources(plan: &Plan, launched: &Launched) -> Result<()> {
    let namespace = user_namespace(plan, launched)?;
    let sources = crate::rootfs::open_sources(&plan.rootfs, namespace.as_ref().map(|fd| fd.as_fd()))?;
    for part in sources.chunks(protocol::FDS_PER_MESSAGE) {
        let indices = part.iter().map(|(index, _)| *index).collect();
        let fds: Vec<_> = part.iter().map(|(_, fd)| fd.as_fd()).collect();
        protocol::send(&launched.socket, &Message::Sources(indices), &fds)?;
    }
    Ok(())
}

fn set_affinity(pid: u32, cpus: &Bitmask) -> Result<()> {
    Ok(crate::sys::task::sched_setaffinity(signed(pid), cpus.words())?)
}

/// Widens the affinity to all CPUs, which the kernel cuts down to those of the cpuset: what rrun is itself
/// bound to must not become the container's, and a cpuset does not widen what is inherited (runc #4858).
fn reset_affinity(pid: u32) {
    let _ = crate::sys::task::sched_setaffinity(signed(pid), &[usize::MAX; 128]);
}

fn signed(pid: u32) -> i32 {
    i32::try_from(pid).unwrap_or(0)
}
