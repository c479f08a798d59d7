//! Sources of bind mounts that the parent opens: its root can reach what the container's may not, and only it
//! may map ids.

#![forbid(unsafe_code)]

use super::{idmap, tree};
use crate::error::{Context, Error, Result};
use crate::launch::protocol::Message;
use crate::launch::{Child, Fault};
use crate::plan::rootfs::{Bind, Idmap, RootfsPlan};
use crate::sys::mount::{MountAttr, mount_setattr};
use rustix::io::Errno;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// MOUNT_ATTR_IDMAP of linux/mount.h.
const IDMAP: u64 = 0x10_0000;

/// The opened sources in the child, by index of the operation; each is closed when it is used.
#[derive(Debug, Default)]
pub struct Sources<'a> {
    opened: Vec<(u16, OwnedFd)>,
    child: Option<&'a Child>,
}

impl<'a> Sources<'a> {
    /// What arrived from the parent, and whom to ask for more.
    pub fn new(opened: Vec<(u16, OwnedFd)>, child: Option<&'a Child>) -> Self {
        Self { opened, child }
    }

    pub(super) fn take(&mut self, index: u16) -> Option<OwnedFd> {
        let at = self.opened.iter().position(|(i, _)| *i == index)?;
        Some(self.opened.swap_remove(at).1)
    }

    /// Has the parent map the ids of a detached mount.
    pub(super) fn map(&self, index: u16, tree: &OwnedFd) -> Result<(), Fault> {
        match self.child {
            Some(child) => child.ask_with(&Message::Idmap(index), &[tree.as_fd()]),
            None => Err(tree::refuse(Errno::BADF, "no idmapped source arrived")),
        }
    }
}

/// In the parent, once the child exists: detached clones of the sources that it may need, each with the index of
/// its operation. `userns` is the container's user namespace, if it has one.
///
/// A source without an id map that the parent cannot clone is left out: the child tries by itself, and says why not.
///
/// # Errors
/// A source that is to be idmapped cannot be cloned, or its file system does not support it.
pub fn open_sources(plan: &RootfsPlan, userns: Option<BorrowedFd<'_>>) -> Result<Vec<(u16, OwnedFd)>> {
    let mut opened = Vec::new();
    for (i, op) in plan.ops.iter().enumerate() {
        let Some(bind) = op.bind().filter(|bind| bind.from_parent) else { continue };
        let index = u16::try_from(i).map_err(|_| Error::new(format!("{op}: too many mounts")))?;
        match (open_source(plan, bind, userns), &bind.idmap) {
            (Ok(fd), _) => opened.push((index, fd)),
            (Err(_), None) => {}
            (Err(e), Some(_)) => return Err(e.context(op)),
        }
    }
    Ok(opened)
}

fn open_source(plan: &RootfsPlan, bind: &Bind, userns: Option<BorrowedFd<'_>>) -> Result<OwnedFd> {
    let fd = tree::clone_path(&bind.source, bind.recursive).context(|| bind.source.to_string_lossy())?;
    // A clone is a peer of what it was cloned from: without this, what the container mounts below it would
    // appear on the host. Only a container that asked for a shared root, and has no user namespace, gets that.
    let shared = plan.propagation & libc::MS_SHARED as u32 != 0 && userns.is_none();
    if !shared {
        tree::propagate(fd.as_fd(), (libc::MS_SLAVE | libc::MS_REC) as u32)?;
    }
    if let Some(map) = &bind.idmap {
        map_ids(&fd, map, userns)?;
    }
    Ok(fd)
}

/// Gives a detached mount its id map.
///
/// # Errors
/// The file system does not support it, or the caller may not.
pub fn map_ids(fd: &OwnedFd, map: &Idmap, userns: Option<BorrowedFd<'_>>) -> Result<()> {
    let own;
    let namespace = match (&map.maps, userns) {
        (Some((uids, gids)), _) => {
            own = idmap::user_namespace(uids, gids)?;
            own.as_fd()
        }
        (None, Some(userns)) => userns,
        (None, None) => return Err(Error::new("idmap: the container has no user namespace")),
    };
    let userns_fd = u64::try_from(namespace.as_raw_fd()).unwrap_or(u64::MAX);
    let attr = MountAttr { set: IDMAP, userns_fd, ..MountAttr::default() };
    mount_setattr(fd.as_fd(), map.recursive, &attr)
        .map_err(|e| Error::from(e).remedy("the file system must support idmapped mounts"))
}
