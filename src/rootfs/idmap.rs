//! A user namespace exists only as long as a process or fd holds it, and is made only by a process that enters it:
//! so a mount with id maps of its own costs a child that waits in one while its maps are written and it is opened.

#![forbid(unsafe_code)]

use crate::error::{Call, Result};
use crate::sys::mount::Holder;
use rustix::fs::{Mode, OFlags, open, openat};
use std::os::fd::OwnedFd;

/// A user namespace with these contents of uid_map and gid_map.
pub(super) fn user_namespace(uids: &str, gids: &str) -> Result<OwnedFd> {
    let holder = Holder::spawn()?;
    let path = format!("/proc/{}", holder.pid);
    let dir = open(&*path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .call(|| format!("open {path}"))?;
    for (file, text) in [("uid_map", uids), ("gid_map", gids)] {
        let fd = openat(&dir, file, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
            .call(|| format!("open {path}/{file}"))?;
        // The kernel takes a map in one write only.
        rustix::io::write(&fd, text.as_bytes()).call(|| format!("write {path}/{file}"))?;
    }
    openat(&dir, "ns/user", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .call(|| format!("open {path}/ns/user"))
}
