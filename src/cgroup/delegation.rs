//! Gives a v2 cgroup to its container: to its user (config-linux.md, "Cgroup ownership"), or a part of it to manage.

#![forbid(unsafe_code)]

use super::dir::{Dir, is_refused};
use super::layout::Version;
use super::{Cgroup, Group, add, v2};
use crate::error::{Call as _, Error, Result};
use crate::plan::cgroup::CgroupPlan;
use rustix::fs::{AtFlags, Uid, chownat};
use rustix::io::Errno;

/// Changes the owner of a cgroup and of those of its files that the kernel says are safe to give away.
fn give(dir: &Dir, owner: u32) -> Result<()> {
    let text = std::fs::read_to_string("/sys/kernel/cgroup/delegate");
    // Before 4.15, as the specification has it.
    let files = text.as_deref().unwrap_or("cgroup.procs\ncgroup.subtree_control\ncgroup.threads\n");
    let owner = Some(Uid::from_raw(owner));
    for name in std::iter::once("").chain(files.lines().filter(|name| !name.contains('/'))) {
        match chownat(dir, name, owner, None, AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW) {
            // Not every one is in every cgroup.
            Ok(()) | Err(Errno::NOENT) => {}
            Err(e) => return Err(e).call(|| format!("chown {}", dir.path().join(name).display())),
        }
    }
    Ok(())
}

impl Cgroup {
    /// Makes the plan's owner the owner of the v2 cgroup.
    pub(super) fn give(&self, plan: &CgroupPlan) -> Result<()> {
        let Some(owner) = plan.owner else { return Ok(()) };
        let group = self.groups.iter().find(|group| group.version == Version::V2);
        let Some(group) = group else { return Ok(()) };
        let Some(dir) = group.dir()? else { return Ok(()) };
        if group.is_new() && owner == rustix::process::geteuid().as_raw() {
            return Ok(());
        }
        match give(dir, owner) {
            // Without root only the caller's own id can be an owner; the specification says MAY.
            Err(e) if is_refused(&e) && !rustix::process::geteuid().is_root() => Ok(()),
            result => result,
        }
    }

    /// Moves init into the cgroup below the container's that the plan delegates, and enables every controller
    /// for it. Done once init has its cgroup namespace, whose root is so the container's cgroup.
    ///
    /// # Errors
    /// It cannot be made, given away or joined.
    pub fn delegate(&self, plan: &CgroupPlan, pid: u32, root: u32) -> Result<()> {
        let Some(path) = &plan.delegated else { return Ok(()) };
        let group = self.groups.iter().find(|group| group.version == Version::V2);
        let dir = group
            .map_or(Ok(None), Group::dir)?
            .ok_or_else(|| Error::new("the container has no cgroup to delegate one of"))?;
        let owner = plan.owner.unwrap_or(root);
        let mut below: Option<Dir> = None;
        for part in path.split('/') {
            let (child, _) = below.as_ref().unwrap_or(dir).make(part)?;
            give(&child, owner)?;
            below = Some(child);
        }
        let Some(below) = below else { return Ok(()) };
        add(&below, pid)?;
        let controllers = dir.read("cgroup.controllers")?;
        let controllers: Vec<String> = controllers.split_whitespace().map(str::to_owned).collect();
        let mut at = dir.child(".")?;
        for part in path.split('/') {
            v2::enable(&at, &controllers, &[])?;
            at = at.child(part)?;
        }
        Ok(())
    }
}
