//! Notices when the container runs out of memory.

#![forbid(unsafe_code)]

use super::Cgroup;
use super::dir::{Dir, is_gone};
use super::layout::Version;
use crate::error::{Call, Error, Result};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::OFlags;
use rustix::fs::inotify;
use rustix::io::Errno;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// What made the fd readable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The limit was hit and, unless the OOM killer is off, a process killed.
    Oom,
    /// The cgroup is gone, or on v2 has no process any more.
    Gone,
    /// Neither.
    Nothing,
}

/// A watch on the memory controller.
#[derive(Debug)]
pub struct OomWatch<'a> {
    version: Version,
    dir: &'a Dir,
    fd: OwnedFd,
    // v1: the kernel keeps the registration while this file is open.
    _control: Option<OwnedFd>,
    kills: u64,
}

impl Cgroup {
    /// Watches for OOM: poll [`OomWatch::fd`] for reading, then [`OomWatch::take`].
    ///
    /// # Errors
    /// No memory controller, or the kernel refuses the watch.
    pub fn watch_oom(&self) -> Result<OomWatch<'_>> {
        self.read_controllers()?;
        let group = self.group("memory").ok_or_else(|| Error::new("no memory controller to watch"))?;
        let dir = group.dir()?.ok_or_else(|| Error::new("the container's memory cgroup is gone"))?;
        let (fd, control) = match group.version {
            Version::V1 => {
                let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).call(|| "eventfd2")?;
                let control = dir.file("memory.oom_control", OFlags::RDONLY)?;
                let line = format!("{} {}", fd.as_raw_fd(), control.as_raw_fd());
                dir.write("cgroup.event_control", &line)?;
                (fd, Some(control))
            }
            Version::V2 => {
                let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
                let fd = inotify::init(flags).call(|| "inotify_init1")?;
                for file in ["memory.events", "cgroup.events"] {
                    let path = dir.path().join(file);
                    inotify::add_watch(&fd, &path, inotify::WatchFlags::MODIFY)
                        .call(|| format!("inotify_add_watch {}", path.display()))?;
                }
                (fd, None)
            }
        };
        Ok(OomWatch { version: group.version, dir, fd, _control: control, kills: self.oom_kills() })
    }
}

impl OomWatch<'_> {
    /// Readable when something happened.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Takes what happened.
    ///
    /// # Errors
    /// The fd or the cgroup cannot be read.
    pub fn take(&mut self) -> Result<Event> {
        let mut buffer = [0u8; 4096];
        match rustix::io::read(&self.fd, &mut buffer) {
            Ok(_) => {}
            Err(Errno::AGAIN | Errno::INTR) => return Ok(Event::Nothing),
            Err(e) => return Err(Error::sys("read the OOM watch", e)),
        }
        if !self.dir.exists() {
            // v1 signals the eventfd on removal too.
            return Ok(Event::Gone);
        }
        if self.version == Version::V1 {
            return Ok(Event::Oom);
        }
        let text = match self.dir.read("memory.events") {
            Err(e) if is_gone(&e) => return Ok(Event::Gone),
            text => text?,
        };
        let kills = text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok()).unwrap_or(0);
        if kills > self.kills {
            self.kills = kills;
            return Ok(Event::Oom);
        }
        let populated = self.dir.read("cgroup.events").unwrap_or_default();
        let gone = populated.lines().any(|line| line == "populated 0");
        Ok(if gone { Event::Gone } else { Event::Nothing })
    }
}
