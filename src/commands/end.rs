//! `kill` and `delete`: how containers end.

#![forbid(unsafe_code)]

use crate::cli::{Delete, Global, Kill};
use crate::container::{Container, default_root};
use crate::error::{Call as _, Error, Kind, Result};
use crate::state::{Root, Status};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags};

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
        let spec = container.slot.read_config().ok();
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
    container.record.phase != "creating"
        && container.cgroup().and_then(|cgroup| cgroup.procs()).is_ok_and(|pids| !pids.is_empty())
}

fn kill_every(container: &Container, signal: i32) -> Result<()> {
    let cgroup = container.cgroup()?;
    if signal == libc::SIGKILL {
        return cgroup.kill(rustix::process::Signal::KILL);
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
    let mut container = Container::open(global.root.as_deref(), id)?;
    if let Err(e) = container.slot.lock() {
        container = if force { seize(global, id)? } else { return Err(e) };
    }
    // Read again under the lock.
    container.record = container.slot.read()?;
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
    container.kill_all()?;
    for failure in container.destroy()? {
        crate::log::warning(failure);
    }
    Ok(())
}

/// What a killed create has left: no process, as init dies with its maker, but perhaps empty cgroups. They may be
/// another's, as it may not have got as far as finding out.
fn discard(container: Container) -> Result<()> {
    container.cgroup()?.discard()?;
    container.remove_mounts()?;
    container.slot.remove()
}

/// Locks a container that another rrun works on: a create is stopped, a delete is waited for.
fn seize(global: &Global, id: &str) -> Result<Container> {
    let moment = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };
    let mut rounds = 10_000;
    loop {
        let container = Container::open(global.root.as_deref(), id)?;
        interrupt(&container)?;
        // Its maker has cleaned up, or was killed and has left it to us.
        match container.slot.lock() {
            Ok(()) => return Ok(container),
            Err(e) if rounds == 0 => return Err(e),
            // The kernel has no event for a lock that becomes free.
            Err(_) => poll(&mut [], Some(&moment)).unwrap_or_default(),
        };
        rounds -= 1;
    }
}

/// Stops the create that is at work on this container, if it is one, and waits for its end.
fn interrupt(container: &Container) -> Result<()> {
    let pid = container.record.maker;
    // None on record yet, or it has finished: then it is not the maker who has the lock.
    let Some(number) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return Ok(()) };
    let pidfd = match rustix::process::pidfd_open(number, PidfdFlags::empty()) {
        Err(Errno::SRCH | Errno::INVAL) => return Ok(()),
        pidfd => pidfd.call(|| format!("pidfd_open {pid}"))?,
    };
    if container.record.phase != "creating"
        || container.record.boot_id != crate::state::boot_id()
        || crate::state::start_time(pid) != Ok(container.record.maker_start_time)
    {
        return Ok(());
    }
    let _ = rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::KILL);
    let limit = Timespec { tv_sec: 10, tv_nsec: 0 };
    let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
    match crate::launch::protocol::retry(|| poll(&mut fds, Some(&limit))).call(|| "poll")? {
        0 => Err(Error::new(format!("rrun {pid}, which makes this container, does not end"))),
        _ => Ok(()),
    }
}

/// The id itself, or with `--regex` every id that matches.
fn ids(global: &Global, id: &str, regex: bool) -> Result<Vec<String>> {
    if !regex {
        return Ok(vec![crate::cli::id(id)?.to_owned()]);
    }
    let root = Root::open(&global.root.clone().unwrap_or_else(default_root))?;
    // Like regexec(3), unanchored; the crate's patterns take linear time.
    let pattern =
        regex_lite::Regex::new(id).map_err(|e| Error::kind(Kind::Usage, format!("--regex: {e}")))?;
    Ok(root.ids()?.into_iter().filter(|id| pattern.is_match(id)).collect())
}
