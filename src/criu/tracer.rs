//! A CRIU that goes on without the rrun that started it.
//!
//! It is let go on, so that it undoes what it began. But when the processes that it traces are killed meanwhile it can
//! wait for init's end without end: init's end waits for the other processes of its pid namespace, and they wait as
//! zombies for CRIU, their tracer.

#![forbid(unsafe_code)]

use rustix::process::{Pid, PidfdFlags, Signal};

/// Kills the CRIU that traces a container's init or a child of it, and says whether there was one. For the holder of
/// the container's lock, who has killed init: no rrun is at work with that CRIU.
pub fn kill_tracer(init: u32) -> bool {
    // To init come all orphans of its pid namespace.
    let children = std::fs::read_to_string(format!("/proc/{init}/task/{init}/children")).unwrap_or_default();
    let children = children.split_ascii_whitespace().filter_map(|pid| pid.parse().ok());
    std::iter::once(init).chain(children).any(|pid| tracer(pid).is_some_and(|criu| kill(pid, criu)))
}

fn kill(traced: u32, criu: Pid) -> bool {
    let Ok(pidfd) = rustix::process::pidfd_open(criu, PidfdFlags::empty()) else { return false };
    // Asked again: now it is this very process.
    let name = std::fs::read_to_string(format!("/proc/{criu}/comm")).unwrap_or_default();
    tracer(traced) == Some(criu)
        && name.trim_end() == "criu"
        && rustix::process::pidfd_send_signal(&pidfd, Signal::KILL).is_ok()
}

fn tracer(pid: u32) -> Option<Pid> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let number = status.lines().find_map(|line| line.strip_prefix("TracerPid:"))?;
    Pid::from_raw(number.trim().parse().ok()?)
}
