//! The first process of a container, from clone3 to execve, top to bottom.

#![forbid(unsafe_code)]

use super::fault::{At, Fault, Step};
use super::last::{Forget, Init, Last};
use super::protocol::{self, Message};
use super::{Child, steps};
use crate::plan::{Kind, Plan};
use crate::rootfs::{Rootfs, Sources};
use crate::sys::{self, Named as _, SysError};
use rustix::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use rustix::io::Errno;
use std::convert::Infallible;
use std::ffi::CString;

/// Runs in the child; does not return.
pub fn main(plan: &Plan, mut child: Child, listener: &OwnedFd) -> ! {
    let Err(fault) = create(plan, &mut child, listener).and_then(|prepared| {
        // Nothing of these is for the container to see.
        child.joins.clear();
        start(plan, &child, prepared, listener)
    });
    let _ = protocol::send(&child.socket, &Message::Fault(fault.into()), &[]);
    sys::launch::exit_now(1)
}

/// What `create` leaves for `start`.
struct Prepared {
    proc: steps::Proc,
    program: CString,
    envp: Vec<CString>,
    forget: Option<Forget>,
}

/// Everything up to the state `created`.
fn create(plan: &Plan, child: &mut Child, listener: &OwnedFd) -> Result<Prepared, Fault> {
    let mut keep = child.keep();
    keep.push(listener.as_raw_fd());
    child.begin(&keep)?;
    if child.unshares != 0 {
        sys::launch::unshare(child.unshares).at(Step::Namespaces)?;
    }
    let forget = child.forgets.then(Forget::prepare).transpose()?;
    if plan.namespaces.creates(Kind::User) {
        // Ids are mapped then.
        child.expect(&Message::Go)?;
    }

    // Before the ids change, which gives /proc/self, and the offsets in it, to the host's root.
    time_namespace(plan)?;
    // As root inside, what is made from here on belongs to the container's root.
    if plan.namespaces.has(Kind::User) {
        child.become_root_inside()?;
    }
    let mut proc = steps::open_proc(&plan.process, !plan.sysctls.list.is_empty())?;
    steps::join(&child.joins)?;
    let alone = child.joins.is_empty() && plan.namespaces.creates(Kind::Pid);
    if !alone {
        // Nothing needs /proc/self as its owner any more, and processes of the container may come to see us.
        sys::task::set_dumpable(false).at(Step::Session)?;
    }
    steps::session()?;
    steps::keyring(plan.keyring.as_deref(), proc.keyring.as_ref(), &plan.process)?;
    if plan.namespaces.creates(Kind::Network) {
        // The loopback of a new network namespace is down; every runtime brings it up.
        match sys::netlink::loopback_up() {
            // A filter around rrun itself; a kernel without networks.
            Err(e) if matches!(e.errno, Errno::PERM | Errno::ACCESS | Errno::NODEV | Errno::NOSYS) => {}
            done => done.at_index(Step::Namespace, Kind::Network as usize)?,
        }
    }
    let mut rootfs = Rootfs::enter(&plan.rootfs)?;

    // Up to here the parent was making the cgroups of v1.
    let (tasks, mut sources) = outfit(child)?;
    steps::enter_cgroups(steps::tasks(&plan.cgroup, tasks))?;
    if plan.namespaces.creates(Kind::Cgroup) {
        // Only now, as its root is the cgroup that this process is in.
        sys::launch::unshare(Kind::Cgroup.flag()).at_index(Step::Namespace, Kind::Cgroup as usize)?;
    }
    // What the parent does to this process it has done.
    sys::task::set_dumpable(false).at(Step::Session)?;

    rootfs.populate(&plan.rootfs, &mut sources)?;

    if !(plan.hooks.prestart.is_empty() && plan.hooks.create_runtime.is_empty()) {
        child.ask(&Message::Hooks)?;
    }
    // After the root filesystem is made and before pivot_root: these hooks resolve on the host's tree.
    create_container_hooks(plan, &rootfs)?;

    if plan.process.terminal {
        let console = rootfs.console(plan.process.console_size)?;
        protocol::send(&child.socket, &Message::Console, &[console.master.as_fd()]).at(Step::Console)?;
        drop(console.master);
        steps::attach_terminal(&console.slave)?;
        sys::launch::set_controlling_terminal(&console.slave).at(Step::Console)?;
    }
    rootfs.pivot(&plan.rootfs)?;

    if let Some(name) = &plan.names.hostname {
        sys::task::sethostname(name.as_bytes()).at(Step::Hostname)?;
    }
    if let Some(name) = &plan.names.domainname {
        sys::task::setdomainname(name.as_bytes()).at_index(Step::Hostname, 1)?;
    }
    for (i, sysctl) in plan.sysctls.list.iter().enumerate() {
        steps::set_sysctl(proc.sys.as_ref(), sysctl).at_index(Step::Sysctl, i)?;
    }
    // The host's procfs must not be within reach of the container while this process waits.
    proc.sys = None;
    rootfs.finish(&plan.rootfs)?;
    drop(rootfs);

    steps::scheduling(&plan.process, plan.personality, plan.memory_policy.as_ref(), false)?;
    steps::own_stdio(&plan.process)?;
    let entered = steps::change_directory(&plan.process, false)?;
    steps::become_user(&plan.process, plan.may_lack_setgroups())?;
    if !entered {
        steps::change_directory(&plan.process, true)?;
    }
    let program = steps::look_up(&plan.process)?;
    let envp = steps::environment(&plan.process);
    if lets_a_user_in(plan) {
        sys::task::set_dumpable(true).at(Step::Session)?;
    }

    // Before Ready and not after Committed, as the parent may have ended by then and the signal would have come.
    // From here on the end of file on the socket says that the parent was killed.
    sys::task::set_parent_death_signal(0).at(Step::Protocol)?;
    Ok(Prepared { proc, program, envp, forget })
}

/// From the state `created` to execve, for the one `start` that is accepted. What it returns is for `create` to hear.
fn start(plan: &Plan, child: &Child, prepared: Prepared, listener: &OwnedFd) -> Result<Infallible, Fault> {
    let Prepared { proc, program, envp, forget } = prepared;
    let hooks = !plan.hooks.start_container.is_empty();
    let last = Last { process: &plan.process, seccomp: plan.seccomp.as_ref(), proc: &proc, program, envp };
    let has_agent = plan.seccomp.as_ref().is_some_and(|filter| filter.listener.is_some());
    let init = Init { last, socket: &child.socket, listener, has_agent, forget, pauses: hooks };
    let connection = init.run()?;
    let Err(fault) = start_container_hooks(plan, &init.last.envp).map(|()| init.execute(&connection));
    let _ = protocol::write(&connection, &Message::Fault(fault.into()));
    sys::launch::exit_now(126)
}

/// Whether this process is made dumpable once nothing of the host is open in it: setns(2), by which `exec` comes into a
/// created container, and pidfd_getfd(2) of one that is not need CAP_SYS_PTRACE where rrun itself was executed
/// (`mm->user_ns`), and a user has it only in the namespace that rrun has made. Not where processes of another
/// container could attach to it (CVE-2016-9962).
fn lets_a_user_in(plan: &Plan) -> bool {
    plan.rootless && plan.namespaces.creates(Kind::User) && plan.namespaces.creates(Kind::Pid)
}

fn create_container_hooks(plan: &Plan, rootfs: &Rootfs) -> Result<(), Fault> {
    let hooks = &plan.hooks.create_container;
    if hooks.is_empty() {
        return Ok(());
    }
    // They begin in the root that they are to complete, as runc's do.
    rustix::process::fchdir(rootfs.root()).named("fchdir").at(Step::CreateContainerHook)?;
    let state = state_of(plan, "creating");
    let options = crate::hooks::Options::default();
    super::hook_fault(
        Step::CreateContainerHook,
        crate::hooks::run("createContainer", hooks, &state, &options),
    )
}

/// Runs the startContainer hooks, once this process is confined: their programs are the container's, so they
/// get no right that the process has not, and are under its filter, as in runc.
fn start_container_hooks(plan: &Plan, envp: &[CString]) -> Result<(), Fault> {
    let hooks = &plan.hooks.start_container;
    if hooks.is_empty() {
        return Ok(());
    }
    let state = state_of(plan, "created");
    let options = crate::hooks::Options { env: envp, ..Default::default() };
    super::hook_fault(Step::StartContainerHook, crate::hooks::run("startContainer", hooks, &state, &options))
}

fn state_of(plan: &Plan, status: &str) -> Vec<u8> {
    crate::oci_state::of_plan(plan, status, Some(own_pid()))
}

/// The pid as the container sees it, which is what these hooks are told (runtime.md, "State").
fn own_pid() -> u32 {
    rustix::process::getpid().as_raw_nonzero().get().unsigned_abs()
}

/// What the parent has opened: files of cgroups to enter, and detached mounts.
fn outfit(child: &Child) -> Result<(Vec<OwnedFd>, Sources<'_>), Fault> {
    let (mut tasks, mut opened) = (Vec::new(), Vec::new());
    loop {
        match child.receive()? {
            (Message::Go, _) => return Ok((tasks, Sources::new(opened, Some(child)))),
            (Message::Cgroups, fds) => tasks = fds,
            (Message::Sources(indices), fds) => {
                opened.extend(indices.into_iter().zip(fds));
            }
            _ => return Err(SysError { call: "recvmsg", errno: Errno::PROTO }).at(Step::Protocol),
        }
    }
}

/// A new time namespace takes its offsets only before a process is in it, and unshare(2) puts only future
/// children there; setns(2) brings this process in as well, which saves a fork (time_namespaces(7)).
fn time_namespace(plan: &Plan) -> Result<(), Fault> {
    if !plan.namespaces.creates(Kind::Time) {
        return Ok(());
    }
    let step = Kind::Time as usize;
    sys::launch::unshare(Kind::Time.flag()).at_index(Step::Namespace, step)?;
    let open = |path, flags| {
        rustix::fs::open(path, flags | rustix::fs::OFlags::CLOEXEC, rustix::fs::Mode::empty()).named("open")
    };
    if !plan.time_offsets.is_empty() {
        let offsets: String = plan.time_offsets.iter().map(|offset| format!("{offset}\n")).collect();
        let file = open(c"/proc/self/timens_offsets", rustix::fs::OFlags::WRONLY).at(Step::TimeOffsets)?;
        steps::write_all(&file, offsets.as_bytes()).at(Step::TimeOffsets)?;
    }
    let own = open(c"/proc/self/ns/time_for_children", rustix::fs::OFlags::RDONLY)
        .at_index(Step::Namespace, step)?;
    sys::launch::setns(&own, Kind::Time.flag()).at_index(Step::Namespace, step)
}
