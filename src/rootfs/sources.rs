//! Sources of bind mounts that the parent opens: its root can reach what the container's may not, and only it
//! may map ids.

#![forbid(unsafe_code)]

use super::{idmap, tree};
use crate::error::{Context, Error, Result};
use crate::plan::rootfs::{Bind, Idmap, RootfsPlan};
use crate::sys::mount::{MountAttr, mount_setattr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// MOUNT_ATTR_IDMAP of linux/mount.h.
const IDMAP: u64 = 0x10_0000;

/// The opened sources in the child, by index of the operation; each is closed when it is used.
#[derive(Debug, Default)]
pub struct Sources(Vec<(u16, OwnedFd)>);

impl Sources {
    /// What arrived from the parent.
    pub fn new(opened: Vec<(u16, OwnedFd)>) -> Self {
        Self(opened)
    }

    pub(super) fn take(&mut self, index: u16) -> Option<OwnedFd> {
        let at = self.0.iter().position(|(i, _)| *i == index)?;
        Some(self.0.swap_remove(at).1)
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
    if let Some(Idmap { recursive, maps }) = &bind.idmap {
        let own;
        let map = match (maps, userns) {
            (Some((uids, gids)), _) => {
                own = idmap::user_namespace(uids, gids)?;
                own.as_fd()
            }
            (None, Some(userns)) => userns,
            (None, None) => return Err(Error::new("idmap: the container has no user namespace")),
        };
        let userns_fd = u64::try_from(map.as_raw_fd()).unwrap_or(u64::MAX);
        let attr = MountAttr { set: IDMAP, userns_fd, ..MountAttr::default() };
        mount_setattr(fd.as_fd(), *recursive, &attr)
            .map_err(|e| Error::from(e).remedy("the file system must support idmapped mounts"))?;
    }
    Ok(fd)
}
