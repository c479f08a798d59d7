//! The last steps of a launch, as a [`Script`]: after them, or where the container could see it, nothing of rrun's file
//! may be in the process any more ([`crate::exe`]).
//!
//! What stands here is what a filter has to let pass: without startContainer hooks and agents execve and, without
//! no_new_privs, capset and prctl; write, to tell of a failure.

#![forbid(unsafe_code)]

use super::fault::{At, Fault, Step};
use super::protocol::{Message, SIZE};
use super::steps::Proc;
use crate::plan::process::ProcessPlan;
use crate::plan::seccomp::Filter;
use crate::sys::image::MemoryMap;
use crate::sys::script::{Fd, Label, Place, Script};
use crate::sys::task::{self, CapSets};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use std::convert::Infallible;
use std::ffi::CString;

/// How often what lacks memory or descriptors is tried again where nobody would hear of it.
const TRIES: u32 = 100;

/// A process and what of it is known only now.
#[derive(Debug)]
pub struct Last<'a> {
    /// What to execute, with which limits and capabilities.
    pub process: &'a ProcessPlan,
    /// Its filter.
    pub seccomp: Option<&'a Filter>,
    /// Open files of the host's /proc.
    pub proc: &'a Proc,
    /// The file.
    pub program: CString,
    /// Its environment.
    pub envp: Vec<CString>,
}

/// What it takes to leave the program's file behind.
#[derive(Debug)]
pub struct Forget {
    map: MemoryMap,
    nothing: OwnedFd,
}

impl Forget {
    /// Reads and opens what cannot be had inside the container.
    ///
    /// # Errors
    /// /proc/self/stat, memfd_create(2).
    pub fn prepare() -> Result<Self, Fault> {
        let failed = |e: crate::error::Error| Fault {
            note: e.to_string(),
            ..fault(Step::Exe, 0, "memfd_create", e.errno().unwrap_or(Errno::INVAL))
        };
        let map = MemoryMap::read().map_err(failed)?;
        Ok(Self { map, nothing: crate::exe::nothing().map_err(failed)? })
    }
}

fn fault(step: Step, index: usize, call: &'static str, errno: Errno) -> Fault {
    Fault { step, index: u16::try_from(index).unwrap_or(u16::MAX), call, errno, note: String::new() }
}

/// The message of a failure, to which the script adds the errno.
fn message(step: Step, index: usize, call: &'static str) -> [u8; SIZE] {
    told(fault(step, index, call, Errno::IO))
}

fn told(fault: Fault) -> [u8; SIZE] {
    Message::Fault(fault.into()).encode()
}

/// The first four bytes of a message without a number.
fn tag(message: &Message) -> u32 {
    let [a, b, c, d, ..] = message.encode();
    u32::from_ne_bytes([a, b, c, d])
}

/// Lines that read one message into `buffer` and go on if it is this one. `closed` is where the end of file leads;
/// the label in force is where all else does, with this message.
fn expect(s: &mut Script, fd: Fd, buffer: Place, wanted: &Message, closed: Label, junk: &[u8; SIZE]) {
    let some = s.label();
    let length = s.read(fd, buffer).or_tell(&message(Step::Protocol, 0, "read")).result();
    s.test(length, 0).then(closed).or(some);
    s.at(some).test(length, SIZE as u32).or_tell(junk);
    s.test(buffer, tag(wanted)).or_tell(junk);
}

impl Last<'_> {
    /// Labels, limits and confines; nothing can be prepared any more then.
    /// `gone` is where it leads that the other side is gone when an agent is to get a descriptor.
    fn confine(&self, s: &mut Script, channel: Fd, gone: Label) -> Result<(), Fault> {
        for (i, limit) in self.process.rlimits.iter().enumerate() {
            s.prlimit(limit.resource, limit.soft, limit.hard).or_tell(&message(Step::Rlimit, i, "prlimit"));
        }
        if let Some(file) = &self.proc.label {
            let text = s.message(&super::steps::label_text(self.process));
            s.write(file.into(), text).or_tell(&message(Step::Label, 0, "write"));
        }
        if self.process.no_new_privileges {
            s.no_new_privs().or_tell(&message(Step::Seccomp, 0, "prctl PR_SET_NO_NEW_PRIVS"));
            self.capabilities(s)?;
            self.load(s, channel, gone);
        } else {
            // Without no_new_privs the kernel asks for CAP_SYS_ADMIN, which the process itself may not have.
            if self.seccomp.is_some() {
                let now = task::capget().at(Step::Capabilities)?;
                let all = CapSets { effective: now.permitted, ..now };
                s.capset(all).or_tell(&message(Step::Capabilities, 0, "capset"));
            }
            self.load(s, channel, gone);
            self.capabilities(s)?;
        }
        Ok(())
    }

    /// The capability sets of config.json.
    fn capabilities(&self, s: &mut Script) -> Result<(), Fault> {
        let caps = &self.process.capabilities;
        // What the runtime itself lacks is left out: the plan has warned about it (config.md asks for a warning).
        let now = task::capget().at(Step::Capabilities)?;
        let permitted = caps.permitted & now.permitted;
        let set = CapSets {
            effective: caps.effective & now.permitted,
            permitted,
            inheritable: caps.inheritable & (now.permitted | now.inheritable),
        };
        s.capset(set).or_tell(&message(Step::Capabilities, 0, "capset"));
        s.ambient_clear().or_tell(&message(Step::Capabilities, 0, "prctl PR_CAP_AMBIENT"));
        for cap in (0..u64::BITS).filter(|cap| caps.ambient & set.inheritable & permitted & (1 << cap) != 0) {
            s.ambient_raise(cap).or_tell(&message(Step::Capabilities, 0, "prctl PR_CAP_AMBIENT"));
        }
        Ok(())
    }

    fn load(&self, s: &mut Script, channel: Fd, gone: Label) {
        let Some(filter) = self.seccomp else { return };
        s.seccomp(&filter.program, filter.flags).or_tell(&message(Step::Seccomp, 0, "seccomp"));
        if filter.listener.is_none() {
            return;
        }
        let number = s.message(&Message::Listener(0).encode());
        s.result_into(number);
        let listener = s.number_in(number);
        // write and read and no socket call: filters notify about sendmsg, and the answer of such a
        // notification waits for the agent that does not have the fd yet.
        s.write(channel, number).or_tell(&message(Step::Seccomp, 0, "write"));
        let buffer = s.buffer(SIZE + 1);
        let junk = told(fault(Step::Seccomp, 0, "read", Errno::CONNABORTED));
        expect(s, channel, buffer, &Message::Go, gone, &junk);
        s.close(listener).or_not();
    }

    /// The program, or what is wrong with it, which could not be looked at any more when it has failed.
    fn execute(&self, s: &mut Script) {
        let failed = Fault {
            note: super::diagnose::program(&self.program),
            ..fault(Step::Exec, 0, "execve", Errno::IO)
        };
        s.execve(&self.program, &self.process.argv, &self.envp).or_tell(&told(failed));
    }

    /// What the clone of a relay does not have of it.
    fn scheduler(&self, s: &mut Script) -> Result<(), Fault> {
        let scheduler = self.process.scheduler.as_ref().filter(|scheduler| !scheduler.is_inherited());
        let Some(scheduler) = scheduler else { return Ok(()) };
        with_all_permitted(s, |s| {
            let failed = message(Step::Scheduling, 0, "sched_setattr");
            s.sched_setattr(super::steps::attributes(scheduler)).or_tell(&failed);
            Ok(())
        })
    }

    /// Leaves the program's file behind.
    fn forget(&self, s: &mut Script, forget: &Forget) -> Result<(), Fault> {
        with_all_permitted(s, |s| {
            let messages = [message(Step::Exe, 0, "munmap"), message(Step::Exe, 0, "prctl PR_SET_MM_MAP")];
            s.forget_program(&forget.map, &forget.nothing, messages.each_ref().map(|m| &m[..]))
                .at(Step::Exe)?;
            s.close((&forget.nothing).into()).or_not();
            Ok(())
        })
    }
}

/// Lines that need a capability which is permitted and mostly not effective any more.
fn with_all_permitted(
    s: &mut Script,
    lines: impl FnOnce(&mut Script) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let now = task::capget().at(Step::Capabilities)?;
    let all = CapSets { effective: now.permitted, ..now };
    let set = |s: &mut Script, sets| {
        if all != now {
            s.capset(sets).or_tell(&message(Step::Capabilities, 0, "capset"));
        }
    };
    set(s, all);
    lines(s)?;
    set(s, now);
    Ok(())
}

/// The script of a container's first process from here to execve.
#[derive(Debug)]
pub struct Init<'a> {
    /// The process.
    pub last: Last<'a>,
    /// Its end of the socket to `create`.
    pub socket: &'a OwnedFd,
    /// Where it hears `start`.
    pub listener: &'a OwnedFd,
    /// Whether a filter notifies an agent. Agents, and contest of youki's, expect the descriptor of `create`, as from
    /// runc and youki, and not only of `start`. Any other filter comes later, as it may forbid what `start` needs.
    pub has_agent: bool,
    /// How to leave the program's file behind, unless it has been already.
    pub forget: Option<Forget>,
    /// Whether there is something to do between the two, when it is confined.
    pub pauses: bool,
}

impl Init<'_> {
    /// Says Ready, waits for Committed and for the one Start that is accepted, and executes. Returns only with
    /// `pauses`, confined: with the connection of that Start, the script of the rest being [`Init::execute`].
    ///
    /// # Errors
    /// The script cannot be made.
    pub fn run(&self) -> Result<OwnedFd, Fault> {
        let s = &mut Script::default();
        let socket = Fd::from(self.socket);
        let (told, gone) = (s.label(), s.label());
        s.otherwise(told);
        if let Some(forget) = &self.forget {
            self.last.forget(s, forget)?;
        }
        if self.has_agent {
            self.last.confine(s, socket, gone)?;
        }
        let ready = s.message(&Message::Ready.encode());
        s.send(socket, ready).or_tell(&message(Step::Protocol, 0, "sendto"));
        let buffer = s.buffer(SIZE + 1);
        let connection = self.started(s, buffer);
        let refused = s.label();
        s.otherwise(refused);
        s.close(self.listener.into()).or_not();
        if !self.has_agent {
            self.last.confine(s, connection, gone)?;
        }
        match self.pauses {
            true => drop(s.leave()),
            false => self.last.execute(s),
        }

        s.at(told).send_fault(socket, SIZE).or_not();
        s.at(gone).exit(1);
        end(s, connection, refused);
        // A signal may end it from here on, and not only once the program's own handler is gone.
        crate::sys::launch::end_by_signals(s).at(Step::Protocol)?;
        s.run();
        s.opened(connection).at(Step::Protocol)
    }

    /// Waits until the container is on record, and for its Start. Who has put it there does not hear of a failure any
    /// more, so what may pass is tried again. The end of file says that `create` was killed.
    fn started(&self, s: &mut Script, buffer: Place) -> Fd {
        let [again, once_more, closed, heard, committed, accepted] = std::array::from_fn(|_| s.label());
        let (left, socket) = (s.counter(TRIES), Fd::from(self.socket));
        let received = message(Step::Protocol, 0, "read");
        let junk = told(fault(Step::Protocol, 0, "read", Errno::PROTO));
        s.at(again);
        let length = s.read(socket, buffer).or_tell(&received).or(once_more).result();
        s.test(length, 0).then(closed).or(heard);
        s.at(once_more).count(left);
        s.sched_yield().then(again).or(again);
        s.at(closed).exit(1);
        let (attended, other, started) = (s.label(), s.label(), s.label());
        s.at(heard).test(length, SIZE as u32).or_tell(&junk);
        s.test(buffer, tag(&Message::Attended)).then(attended).or(other);
        s.at(other).test(buffer, tag(&Message::Start)).then(started).or(committed);

        // A `run` that is gone before it says Start leaves a created container behind.
        let (forsaken, refuse, wait) = (s.label(), s.label(), s.label());
        s.at(attended).read(socket, buffer).or_tell(&received).or(refuse).result_in(length);
        s.test(length, SIZE as u32).or(forsaken);
        s.test(buffer, tag(&Message::Start)).then(started).or(forsaken);
        let connection =
            s.at(started).duplicate(socket).or_tell(&message(Step::Protocol, 0, "fcntl")).or(refuse).result();
        let yes = s.message(&Message::Accepted.encode());
        let unsaid = message(Step::Protocol, 0, "sendto");
        s.send(Fd::Result(connection), yes).or_tell(&unsaid).or(refuse).then(accepted);
        s.at(refuse).send_fault(socket, SIZE).then(forsaken).or(forsaken);

        s.at(committed).test(buffer, tag(&Message::Committed)).or_tell(&junk);
        s.at(forsaken).close(socket).then(wait).or(wait);
        s.at(wait);
        self.accept(s, buffer, connection, accepted);
        s.at(accepted);
        Fd::Result(connection)
    }

    /// Waits for a caller that says Start: one that only looks, as `state` does, goes away again.
    fn accept(&self, s: &mut Script, buffer: Place, into: Place, accepted: Label) {
        let [again, failed, scarce, refuse, next, some] = std::array::from_fn(|_| s.label());
        let (left, connection) = (s.counter(TRIES), Fd::Result(into));
        s.at(again).accept(self.listener.into()).or(failed).result_in(into);
        let received = message(Step::Protocol, 0, "read");
        let length = s.read(connection, buffer).or_tell(&received).or(refuse).result();
        s.test(length, SIZE as u32).then(some).or(next);
        s.at(some).test(buffer, tag(&Message::Start)).or(next);
        let yes = s.message(&Message::Accepted.encode());
        s.send(connection, yes).or_tell(&message(Step::Protocol, 0, "sendto")).then(accepted).or(refuse);
        // That start has failed; there may be another.
        s.at(refuse).send_fault(connection, SIZE).or_not();
        s.at(next).close(connection).then(again).or(again);
        // The caller was gone before it was served.
        s.at(failed).test_errno(libc::ECONNABORTED).then(again).or(scarce);
        // Of memory or descriptors there may be more in a moment. The caller hears of it when the socket closes.
        let enough = s.label();
        s.at(scarce).count(left).or(enough);
        s.sched_yield().then(again).or(again);
        s.at(enough).exit(1);
    }

    /// What is left after [`Init::run`] has returned.
    ///
    /// It does not return.
    pub fn execute(&self, connection: &OwnedFd) -> ! {
        let s = &mut Script::default();
        let refused = s.label();
        s.otherwise(refused);
        self.last.execute(s);
        end(s, connection.into(), refused);
        s.run();
        crate::sys::launch::exit_now(126)
    }
}

/// Tells of the failure and ends: 127 and 126 are what a shell and the engines make of a program that cannot be run.
fn end(s: &mut Script, connection: Fd, refused: Label) {
    let other = s.label();
    s.at(refused).write_fault(connection, SIZE).or_not();
    s.test_errno(libc::ENOENT).or(other);
    s.exit(127);
    s.at(other).exit(126);
}

/// The script of an exec'd process from here to execve.
#[derive(Debug)]
pub struct Exec<'a> {
    /// The process.
    pub last: Last<'a>,
    /// Its socket to rrun.
    pub socket: &'a OwnedFd,
    /// How to leave the program's file behind, unless it has been already.
    pub forget: Option<Forget>,
    /// Whether this process is a relay, as a pid namespace takes only children.
    pub relays: bool,
    /// Whether the process waits for Go when it is there.
    pub waits: bool,
}

impl Exec<'_> {
    /// Executes.
    ///
    /// # Errors
    /// The script cannot be made.
    pub fn run(&self) -> Result<Infallible, Fault> {
        let s = &mut Script::default();
        let socket = Fd::from(self.socket);
        let (told, gone) = (s.label(), s.label());
        s.otherwise(told);
        if let Some(forget) = &self.forget {
            self.last.forget(s, forget)?;
        }
        if self.relays {
            let failed = message(Step::Namespace, 0, "clone3");
            let unheard = message(Step::Protocol, 0, "sendmsg");
            s.go_on_in_sibling(socket, &Message::Pid(0).encode(), [&failed, &unheard], told);
            self.last.scheduler(s)?;
        }
        if self.waits {
            let buffer = s.buffer(SIZE + 1);
            let junk = self::told(fault(Step::Protocol, 0, "read", Errno::PROTO));
            expect(s, socket, buffer, &Message::Go, gone, &junk);
        }
        // EPERM: it leads one already.
        s.setsid().or_not();
        if self.last.process.terminal {
            s.set_controlling_terminal().or_tell(&message(Step::Console, 0, "ioctl(TIOCSCTTY)"));
        }
        self.last.confine(s, socket, gone)?;
        self.last.execute(s);
        s.at(told).write_fault(socket, SIZE).or_not();
        s.at(gone).exit(255);
        s.run();
        crate::sys::launch::exit_now(255)
    }
}
