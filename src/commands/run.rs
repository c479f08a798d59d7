//! `run`: create, start, and in the foreground wait and delete.

#![forbid(unsafe_code)]

use super::create::{Made, make, open, undo, write_pid_file};
use super::start::{begin, proxy};
use crate::cli::{Global, Run};
use crate::console::{Relay, Terminal};
use crate::container::Container;
use crate::error::{Call as _, Error, Kind, Result};
use crate::sys::signal::Signals;
use rustix::fd::AsFd as _;
use rustix::io::Errno;
use rustix::process::Pid;

/// `run`; returns the process's status, or 0 if detached.
///
/// # Errors
/// Any; nothing is left then, except with `--keep`.
#[inline(never)]
pub fn run(global: &Global, args: &Run) -> Result<u8> {
    let bundle = open(&args.create)?;
    // Blocked before there is a process whose SIGCHLD could be missed (runc #5208).
    let signals = if args.detach { None } else { Some(Signals::block()?) };
    if !args.detach && !args.no_subreaper {
        adopt_orphans()?;
    }
    let made = make(global, &args.create, bundle, (signals.as_ref(), true))?;
    let Made { container, pidfd, console, attended } = made;
    let id = container.slot.id().to_owned();
    let pid = container.record.pid;
    let proxy = match proxy(global, &id) {
        Ok(proxy) => proxy,
        Err(e) => {
            undo(container);
            return Err(e);
        }
    };
    // Raw mode begins before the process can write, and ends with `terminal` whatever happens.
    let stdin = rustix::stdio::stdin();
    let stdout = rustix::stdio::stdout();
    let terminal = match console.map(|master| Terminal::new(master, stdin, stdout)).transpose() {
        Ok(terminal) => terminal,
        Err(e) => {
            undo(container);
            return Err(e);
        }
    };
    let container = match begin(container, attended) {
        Ok(container) => container,
        Err(e) => {
            // A failed hook has destroyed it already.
            if let Ok(container) = Container::open(global.root.as_deref(), &id) {
                undo(container);
            }
            return Err(e);
        }
    };
    if let Some(path) = &args.create.pid_file
        && let Err(e) = write_pid_file(path, pid)
    {
        undo(container);
        return Err(e);
    }
    let number = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or_else(|| Error::new("pid 0"))?;
    let Some(signals) = signals else {
        if let Some(proxy) = proxy {
            proxy.until_ready(number, pidfd.as_fd())?;
        }
        return Ok(0);
    };
    let relay = Relay {
        signals: &signals,
        pid: number,
        pidfd: pidfd.as_fd(),
        terminal,
        reap: !args.no_subreaper,
        notify: proxy,
    };
    attend(global, container, relay, args.keep)
}

/// What the process leaves behind in a shared pid namespace comes to us and not to the host's init.
///
/// # Errors
/// None in practice.
pub(super) fn adopt_orphans() -> Result<()> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .call(|| "prctl(PR_SET_CHILD_SUBREAPER)")
}

/// Stays with a running container until its end, and then removes it unless it is to be kept.
///
/// # Errors
/// Those of waiting; what could not be removed.
pub(super) fn attend(global: &Global, container: Container, mut relay: Relay<'_>, keep: bool) -> Result<u8> {
    let (id, pid) = (container.slot.id().to_owned(), container.record.pid);
    // Not needed for waiting, and `delete` by somebody else must find it free.
    let kept = container.slot.unlock().is_ok().then_some(container);
    let end = relay.run();
    drop(relay);
    // Also where waiting has failed, and again where removing has: nobody is left who would do it later.
    let open = || Container::open(global.root.as_deref(), &id);
    let first = || remove(kept.map_or_else(open, Ok), pid);
    let removed = if keep { Ok(()) } else { first().or_else(|_| remove(open(), pid)) };
    let end = end?;
    removed?;
    Ok(end.status())
}

/// Removes the container of this init, unless somebody else's delete has done so or is at work.
fn remove(container: Result<Container>, pid: u32) -> Result<()> {
    let locked = container.and_then(|mut container| {
        container.slot.lock()?;
        container.record = container.slot.read()?;
        Ok(container)
    });
    let container = match locked {
        Err(e) if e.what() == Kind::NoContainer || e.errno() == Some(Errno::WOULDBLOCK) => return Ok(()),
        // All but the directory is removed already.
        Ok(container) if container.record.pid == 0 => return container.slot.remove(),
        Ok(container) if container.record.pid != pid => return Ok(()),
        container => container?,
    };
    let cgroup = container.kill_all()?;
    for failure in container.destroy(cgroup)? {
        crate::log::warning(failure);
    }
    Ok(())
}
