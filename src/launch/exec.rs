//! A further process in a running container, from clone3 to execve, top to bottom.
//!
//! The process that rrun clones is a relay where the container has a pid namespace or a user namespace of its own: it
//! enters all of them, does everything that the process inherits, and makes it only then, as the very last
//! ([`super::last::Exec`]). For a pid namespace takes only children, and a child that were in it before it is in the
//! mount namespace would show the host's root as its /proc/PID/root to a container with CAP_SYS_PTRACE, which not being
//! dumpable does not stop. The relay itself is in no pid namespace of the container's.

#![forbid(unsafe_code)]

use super::fault::{At, Fault, Step};
use super::last::{Exec, Forget, Last};
use super::protocol::{self, Message};
use super::{Child, relay, steps};
use crate::cgroup::Tasks;
use crate::plan::exec::ExecPlan;
use crate::sys::{self, Named as _, SysError};
use rustix::fd::AsFd as _;
use rustix::io::Errno;
use std::convert::Infallible;

/// Runs in the child; does not return. `waits` is for a process that rrun has still something to do with when it is
/// there, as to bring it into a cgroup.
pub fn main(plan: &ExecPlan, tasks: Tasks, mut child: Child, waits: bool) -> ! {
    let Err(fault) = enter(plan, tasks, &mut child, waits);
    let _ = protocol::write(&child.socket, &Message::Fault(fault.into()));
    sys::launch::exit_now(255)
}

fn enter(plan: &ExecPlan, tasks: Tasks, child: &mut Child, waits: bool) -> Result<Infallible, Fault> {
    // Not dumpable before the first process of the container can see this one (CVE-2016-9962).
    sys::task::set_dumpable(false).at(Step::Session)?;
    steps::enter_cgroups(tasks)?;
    child.begin(&child.keep())?;
    let mut proc = steps::open_proc(&plan.process, false)?;
    let forget = child.forgets.then(Forget::prepare).transpose()?;
    if child.relayed {
        // While it is still outside: the container's procfs may be anything (CVE-2019-16884). What is written is the
        // process's too: fork(2) hands it down.
        if let Some(file) = &proc.label {
            steps::write_all(file, &steps::label_text(&plan.process)).at(Step::Label)?;
        }
        if let (Some(file), Some(text)) = (&proc.keyring, &plan.process.selinux_label) {
            steps::write_all(file, text.as_bytes()).at(Step::Label)?;
        }
        proc = steps::Proc::default();
    }

    if let Some(init) = child.target.take() {
        relay::enter(&[(&init, plan.joined)])?;
        // A delete that killed what was in the cgroup just before this process came waits for nobody to be left.
        if super::has_ended(&init).at(Step::Namespace)? {
            return Err(SysError { call: "setns", errno: Errno::SRCH }).at(Step::Namespace);
        }
    }
    if let Some(root) = child.root.take() {
        rustix::process::fchdir(&root).named("fchdir").at(Step::Namespace)?;
        rustix::process::chroot(".").named("chroot").at(Step::Namespace)?;
    }
    steps::keyring(plan.keyring.as_deref(), proc.keyring.as_ref(), &plan.process)?;
    if plan.process.terminal {
        let console = crate::rootfs::exec_console(plan.process.console_size)?;
        if plan.shown {
            crate::console::keep_lines(console.master.as_fd()).named("ioctl TCSETS").at(Step::Console)?;
        }
        protocol::send(&child.socket, &Message::Console, &[console.master.as_fd()]).at(Step::Console)?;
        drop(console.master);
        steps::attach_terminal(&console.slave)?;
    }
    steps::scheduling(&plan.process, plan.personality, plan.memory_policy.as_ref(), child.relayed)?;
    steps::own_stdio(&plan.process)?;
    let entered = steps::change_directory(&plan.process, false)?;
    steps::become_user(&plan.process, plan.may_lack_setgroups)?;
    if !entered {
        steps::change_directory(&plan.process, true)?;
    }
    let program = steps::look_up(&plan.process)?;
    let envp = steps::environment(&plan.process);
    if !waits {
        child.expect(&Message::Go)?;
    }
    sys::task::set_parent_death_signal(0).at(Step::Protocol)?;
    // What was opened here is closed by now: nothing of the host's is open when the container first sees the process.
    let last = Last { process: &plan.process, seccomp: plan.seccomp.as_ref(), proc: &proc, program, envp };
    Exec { last, socket: &child.socket, forget, relays: child.relayed, waits }.run()
}
