//! A further process in a running container, from clone3 to execve, top to bottom.

#![forbid(unsafe_code)]

use super::fault::{At, Fault, Step};
use super::protocol::{self, Message};
use super::{Child, steps};
use crate::cgroup::Tasks;
use crate::plan::exec::ExecPlan;
use crate::sys::{self, Named as _};
use rustix::fd::{AsFd as _, RawFd};
use std::convert::Infallible;

/// Runs in the child; does not return.
pub fn main(plan: &ExecPlan, child: &Child) -> ! {
    let Err(fault) = enter(plan, child);
    let _ = protocol::write(&child.socket, &Message::Fault(fault.into()));
    sys::launch::exit_now(255)
}

/// What a relay does for an exec'd process while it is still outside of the container: nothing of the host's
/// is open when the container first sees the process, and the label is written to the host's procfs, as the
/// container's may be anything (CVE-2019-16884). What it writes is the process's too: fork(2) hands it down.
pub fn before(plan: &ExecPlan, tasks: Tasks, child: &Child, target: RawFd) -> Result<(), Fault> {
    steps::enter_cgroups(tasks)?;
    let mut keep = child.keep();
    keep.push(target);
    child.begin(&keep)?;
    let proc = steps::open_proc(&plan.process, false)?;
    steps::label(&plan.process, &proc)?;
    if let (Some(file), Some(text)) = (&proc.keyring, &plan.process.selinux_label) {
        steps::write_all(file, text.as_bytes()).at(Step::Label)?;
    }
    Ok(())
}

fn enter(plan: &ExecPlan, child: &Child) -> Result<Infallible, Fault> {
    // Not dumpable before the first process of the container can see this one (CVE-2016-9962).
    sys::task::set_dumpable(false).at(Step::Session)?;
    child.begin(&child.keep())?;
    child.expect(&Message::Go)?;

    let proc = match child.relayed {
        true => steps::Proc::default(),
        false => steps::open_proc(&plan.process, false)?,
    };
    if let Some(pidfd) = &child.target {
        sys::launch::setns(pidfd, plan.joined).at(Step::Namespace)?;
    }
    if let Some(root) = &child.root {
        rustix::process::fchdir(root).named("fchdir").at(Step::Namespace)?;
        rustix::process::chroot(".").named("chroot").at(Step::Namespace)?;
    }
    steps::session(plan.keyring.as_deref(), proc.keyring.as_ref(), &plan.process)?;
    if plan.process.terminal {
        let console = crate::rootfs::exec_console(plan.process.console_size)?;
        if plan.shown {
            crate::console::keep_lines(console.master.as_fd()).named("ioctl TCSETS").at(Step::Console)?;
        }
        protocol::send(&child.socket, &Message::Console, &[console.master.as_fd()]).at(Step::Console)?;
        drop(console.master);
        steps::attach_terminal(&console.slave)?;
    }
    steps::scheduling(&plan.process, plan.personality, plan.memory_policy.as_ref())?;
    steps::own_stdio(&plan.process)?;
    let entered = steps::change_directory(&plan.process, false)?;
    steps::become_user(&plan.process, plan.may_lack_setgroups)?;
    if !entered {
        steps::change_directory(&plan.process, true)?;
    }
    let program = steps::look_up(&plan.process)?;
    let envp = steps::environment(&plan.process);
    sys::task::set_parent_death_signal(0).at(Step::Protocol)?;
    steps::limit_resources(&plan.process.rlimits)?;
    let seccomp = plan.seccomp.as_ref();
    steps::confine(&plan.process, seccomp, &proc, child.socket.as_fd())?;
    steps::execute(&plan.process, &program, &envp)
}
