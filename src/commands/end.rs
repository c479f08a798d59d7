//! `kill` and `delete`: how containers end.

#![forbid(unsafe_code)]

use crate::cli::{Delete, Global, Kill};
use crate::container::{self, Container};
use crate::error::{Call as _, Error, Kind, Result};
use crate::state::{Root, Slot, Status};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal};
use std::time::Duration;

/// `kill`.
///
/// # Errors
/// `container not running`, unless `--all` asks for no more than that nothing runs.
#[inline(never)]
pub fn kill(global: &Global, args: &Kill) -> Result<()> {
    for id in ids(global, &args.id, args.regex)? {
        let container = Container::open(global.root.as_deref(), &id)?;
        let ended = || match container.require(&[Status::Created, Status::Running, Status::Paused]) {
            Ok(_) => Ok(()),
            // What is left in a shared pid namespace after init's end can still be killed.
            Err(_) if args.signal == libc::SIGKILL && left_behind(&container) => Ok(()),
            Err(e) => Err(e),
        };
        // Without it, SIGKILL goes to all that is in the cgroup.
        let kills = args.signal == libc::SIGKILL;
        let spec = kills.then(|| container.slot.read_config().ok()).flatten();
        let killed = ended().and_then(|()| match args.all {
            true => kill_every(&container, args.signal),
            false => container.kill(args.signal, spec.as_ref()),
        });
        match killed {
            Err(e) if args.all && e.what() == Kind::State => {}
            other => other?,
        }
    }
    Ok(())
}

fn left_behind(container: &Container) -> bool {
    container.record.phase != "creating" && container.cgroup().procs().is_ok_and(|pids| !pids.is_empty())
}

fn kill_every(container: &Container, signal: i32) -> Result<()> {
    let cgroup = container.cgroup();
    if signal == libc::SIGKILL {
        return cgroup.kill(Signal::KILL);
    }
    for pid in cgroup.procs()? {
        let Some(number) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { continue };
        let pidfd = match rustix::process::pidfd_open(number, PidfdFlags::empty()) {
            // One that has ended since is no error.
            Err(Errno::SRCH | Errno::INVAL) => continue,
            pidfd => pidfd.call(|| format!("pidfd_open {pid}"))?,
        };
        match crate::sys::signal::send(rustix::fd::AsFd::as_fd(&pidfd), signal) {
            Err(e) if e.errno != rustix::io::Errno::SRCH => return Err(e.into()),
            _ => {}
        }
    }
    Ok(())
}

/// `delete`.
///
/// # Errors
/// A container that runs, without `--force`; what could not be removed.
#[inline(never)]
pub fn delete(global: &Global, args: &Delete) -> Result<()> {
    for id in ids(global, &args.id, args.regex)? {
        match one(global, &id, args.force) {
            Err(e) if args.force && e.what() == Kind::NoContainer => {}
            other => other?,
        }
    }
    Ok(())
}

fn one(global: &Global, id: &str, force: bool) -> Result<()> {
    let slot = container::slot(global.root.as_deref(), id)?;
    let slot = match slot.lock() {
        Err(_) if force => seize(slot)?,
        other => other.map(|()| slot)?,
    };
    let container = Container::of(slot)?;
    if container.record.phase == "creating" {
        return discard(container);
    }
    match container.status()? {
        Status::Stopped => {}
        _ if force => {}
        // Whoever has read a process's last output deletes it while it exits.
        Status::Running if container.ends_soon()? => {}
        status => {
            let text = format!("cannot delete container {id} that is not stopped: {}", status.name());
            return Err(Error::kind(Kind::State, text));
        }
    }
    let cgroup = container.kill_all()?;
    for failure in container.destroy(cgroup)? {
        crate::log::warning(failure);
    }
    Ok(())
}

/// What a killed create has left: no process, as init dies with its maker, but perhaps empty cgroups. They may be
/// another's, as it may not have got as far as finding out.
fn discard(container: Container) -> Result<()> {
    container.cgroup().discard()?;
    container.remove_mounts()?;
    container.slot.remove()
}

/// Locks a container that another rrun works on, within seconds, whatever that one does.
///
/// Most are about to be done. Without the container they come to their end: `run` waits for it, and `checkpoint` loses
/// the processes. A CRIU may go on, as one that serves their pages until somebody fetches them (`--lazy-pages`), but
/// not without being their tracer. What then is left is stopped: a create, a restore, what waits for a hook.
fn seize(slot: Slot) -> Result<Slot> {
    if slot.lock_within(Duration::from_millis(100))? {
        return Ok(slot);
    }
    let container = Container::of(slot)?;
    let slot = &container.slot;
    if container.record.phase == "created" {
        // What fails here fails again under the lock.
        let _ = container.kill(libc::SIGKILL, None);
        if slot.lock_within(Duration::from_secs(1))? {
            return Ok(container.slot);
        }
        crate::criu::kill_tracer(container.record.pid);
        // As long as a delete that is at work may take.
        if slot.lock_within(Duration::from_secs(10))? {
            return Ok(container.slot);
        }
    }
    if let Some(holder) = slot.holder()? {
        let _ = rustix::process::pidfd_send_signal(&holder, Signal::KILL);
    }
    match slot.lock_within(Duration::from_secs(10))? {
        true => Ok(container.slot),
        false => Err(Error::new(format!("another rrun works on container {} and does not end", slot.id()))),
    }
}

/// The id itself, or with `--regex` every id that matches.
fn ids(global: &Global, id: &str, regex: bool) -> Result<Vec<String>> {
    if !regex {
        return Ok(vec![crate::cli::id(id)?.to_owned()]);
    }
    let root = Root::open(&container::root(global.root.as_deref())?)?;
    // Like regexec(3), unanchored; the crate's patterns take linear time.
    let pattern =
        regex_lite::Regex::new(id).map_err(|e| Error::kind(Kind::Usage, format!("--regex: {e}")))?;
    Ok(root.ids()?.into_iter().filter(|id| pattern.is_match(id)).collect())
}
