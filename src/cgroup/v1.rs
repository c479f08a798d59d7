//! What is peculiar to cgroup v1: cpusets that begin empty, the freezer, the device lists.

#![forbid(unsafe_code)]

use super::Deadline;
use super::dir::{Dir, is_gone};
use crate::error::{Error, Result};
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::time::Duration;

/// Gives a cpuset the CPUs and memory nodes of its nearest ancestor that has some: an empty one takes no
/// process. `path` is below the mount point `mount`.
pub(super) fn fill_cpuset(mount: &Dir, path: &str) -> Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let mut dirs = Vec::new();
        let mut at = path.trim_start_matches('/');
        let value = loop {
            let dir = mount.child(if at.is_empty() { "." } else { at })?;
            let value = dir.read(file)?.trim().to_owned();
            if !value.is_empty() || at.is_empty() {
                break value;
            }
            dirs.push(dir);
            at = at.rsplit_once('/').map_or("", |(parent, _)| parent);
        };
        for dir in dirs.iter().rev() {
            dir.write(file, &value)?;
        }
    }
    Ok(())
}

/// Writes the device rules.
pub(super) fn write_devices(dir: &Dir, writes: &[(&'static str, String)]) -> Result<()> {
    let mut open: Option<(&str, rustix::fd::OwnedFd)> = None;
    for (file, line) in writes {
        let fd = match open.take() {
            Some((name, fd)) if name == *file => fd,
            _ => dir.file(file, OFlags::WRONLY)?,
        };
        dir.write_line(&fd, file, line).map_err(|e| match e.errno() {
            Some(Errno::PERM) => e.remedy("the parent cgroup does not allow that device either"),
            _ => e.context("linux.resources.devices"),
        })?;
        open = Some((file, fd));
    }
    Ok(())
}

/// Freezes, and waits until every process is.
pub(super) fn freeze(dir: &Dir, limit: Duration) -> Result<()> {
    let deadline = Deadline::after(limit);
    let frozen = freeze_until(dir, &deadline);
    if frozen.is_err() {
        // A cgroup left FREEZING holds its processes for ever.
        let _ = thaw(dir);
    }
    frozen
}

fn freeze_until(dir: &Dir, deadline: &Deadline) -> Result<()> {
    loop {
        // Written anew each time: a process that forks or joins meanwhile leaves the state at FREEZING.
        dir.write("freezer.state", "FROZEN")?;
        if dir.read("freezer.state")?.trim() == "FROZEN" {
            return Ok(());
        }
        // The v1 freezer has no event to wait for.
        deadline.pause().map_err(|()| Error::new(format!("unable to freeze {}", dir.path().display())))?;
    }
}

/// Lets the processes run again.
pub(super) fn thaw(dir: &Dir) -> Result<()> {
    dir.write("freezer.state", "THAWED")
}

/// Whether processes here are frozen or will be, by this cgroup or one above.
pub(super) fn is_frozen(dir: &Dir) -> Result<bool> {
    match dir.read("freezer.state") {
        Err(e) if is_gone(&e) => Ok(false),
        state => Ok(state?.trim() != "THAWED"),
    }
}
