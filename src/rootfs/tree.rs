//! Mounts that are attached nowhere yet: made, given their attributes, and only then put in place.

#![forbid(unsafe_code)]

use crate::launch::{Fault, Step};
use crate::plan::rootfs::{Attrs, Filesystem};
use crate::sys::mount::{MountAttr, mount_setattr};
use crate::sys::{Named, Result, SysError};
use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_reconfigure, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

pub(super) fn fault(e: SysError, note: impl Into<String>) -> Fault {
    Fault { step: Step::Rootfs, index: 0, call: e.call, errno: e.errno, note: note.into() }
}

/// A clone of what is at a host path.
pub(super) fn clone_path(path: &CStr, recursive: bool) -> Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let deep = if recursive { OpenTreeFlags::AT_RECURSIVE } else { OpenTreeFlags::empty() };
    open_tree(CWD, path, flags | deep).named("open_tree")
}

/// A clone of what an fd refers to.
pub(super) fn clone_fd(fd: BorrowedFd<'_>, recursive: bool) -> Result<OwnedFd> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let deep = if recursive { OpenTreeFlags::AT_RECURSIVE } else { OpenTreeFlags::empty() };
    open_tree(fd, c"", flags | deep).named("open_tree")
}

/// Attaches a mount on exactly what `destination` refers to.
pub(super) fn attach(tree: BorrowedFd<'_>, destination: BorrowedFd<'_>) -> Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(tree, c"", destination, c"", flags).named("move_mount")
}

pub(super) fn set_attrs(tree: BorrowedFd<'_>, recursive: bool, attrs: Attrs) -> Result<()> {
    if attrs.is_empty() {
        return Ok(());
    }
    let attr = MountAttr { set: attrs.set, clear: attrs.clear, ..MountAttr::default() };
    mount_setattr(tree, recursive, &attr)
}

/// `flags` is `MS_SHARED` or its like, with `MS_REC` or not.
pub(super) fn propagate(tree: BorrowedFd<'_>, flags: u32) -> Result<()> {
    let deep = libc::MS_REC as u32;
    let attr = MountAttr { propagation: u64::from(flags & !deep), ..MountAttr::default() };
    mount_setattr(tree, flags & deep != 0, &attr)
}

/// Whether fsconfig(2) can say it: it has no word for iversion, and takes 255 bytes at most.
pub(super) fn expressible(fs: &Filesystem) -> bool {
    let short = |value: &CStr| value.to_bytes().len() < 256;
    fs.flags & (libc::MS_I_VERSION | libc::MS_POSIXACL) as u32 == 0
        && short(&fs.source)
        && fs.data.iter().all(|(key, value)| short(key) && value.as_deref().is_none_or(short))
}

/// A new file system, mounted nowhere.
pub(super) fn create(fs: &Filesystem, attrs: Attrs) -> std::result::Result<OwnedFd, Fault> {
    let context = fsopen(&*fs.typ, FsOpenFlags::FSOPEN_CLOEXEC).named("fsopen").map_err(|e| fault(e, ""))?;
    let logged = |e| fault(e, log(&context));
    fsconfig_set_string(&context, c"source", &*fs.source).named("fsconfig").map_err(logged)?;
    configure(&context, fs).map_err(logged)?;
    fsconfig_create(&context).named("fsconfig").map_err(logged)?;
    let flags = MountAttrFlags::from_bits_retain(u32::try_from(attrs.set).unwrap_or(u32::MAX));
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, flags).named("fsmount").map_err(logged)
}

/// Gives the file system of a mount other parameters.
pub(super) fn reconfigure(mount: BorrowedFd<'_>, fs: &Filesystem) -> std::result::Result<(), Fault> {
    use rustix::mount::{FsPickFlags, fspick};
    if fs.data.is_empty() && fs.flags == 0 {
        return Ok(());
    }
    let flags = FsPickFlags::FSPICK_CLOEXEC | FsPickFlags::FSPICK_EMPTY_PATH;
    let context = fspick(mount, c"", flags).named("fspick").map_err(|e| fault(e, ""))?;
    let logged = |e| fault(e, log(&context));
    configure(&context, fs).map_err(logged)?;
    fsconfig_reconfigure(&context).named("fsconfig").map_err(logged)
}

fn configure(context: &OwnedFd, fs: &Filesystem) -> Result<()> {
    for (flag, name) in [
        (libc::MS_RDONLY, c"ro"),
        (libc::MS_SYNCHRONOUS, c"sync"),
        (libc::MS_DIRSYNC, c"dirsync"),
        (libc::MS_MANDLOCK, c"mand"),
        (libc::MS_LAZYTIME, c"lazytime"),
    ] {
        if fs.flags & flag as u32 != 0 {
            fsconfig_set_flag(context, name).named("fsconfig")?;
        }
    }
    for (key, value) in &fs.data {
        match value {
            Some(value) => fsconfig_set_string(context, &**key, &**value),
            None => fsconfig_set_flag(context, &**key),
        }
        .named("fsconfig")?;
    }
    Ok(())
}

/// What the kernel has to say about the failure, as `tmpfs: Unknown parameter 'foo'`.
fn log(context: &OwnedFd) -> String {
    let mut lines: Vec<String> = Vec::new();
    let mut buffer = [0; 512];
    // The kernel keeps eight messages.
    while lines.len() < 8 {
        match rustix::io::read(context, &mut buffer) {
            Ok(n) if n > 0 => {
                let text = String::from_utf8_lossy(buffer.get(..n).unwrap_or_default()).into_owned();
                lines.push(text.get(2..).unwrap_or_default().trim_end().to_owned());
            }
            _ => break,
        }
    }
    lines.join("; ")
}

/// A mount put on many places: itself at first, clones of it after that.
#[derive(Debug)]
pub(super) struct Stamp {
    tree: OwnedFd,
    placed: bool,
}

impl Stamp {
    pub(super) fn new(tree: OwnedFd) -> Self {
        Self { tree, placed: false }
    }

    pub(super) fn put(&mut self, destination: BorrowedFd<'_>) -> Result<()> {
        // Before Linux 6.15 an unattached mount cannot be cloned.
        if self.placed {
            return attach(clone_fd(self.tree.as_fd(), false)?.as_fd(), destination);
        }
        attach(self.tree.as_fd(), destination)?;
        self.placed = true;
        Ok(())
    }
}

/// An errno with the words of a refusal that no call made.
pub(super) fn refuse(errno: Errno, note: impl Into<String>) -> Fault {
    fault(SysError { call: "mount", errno }, note)
}
