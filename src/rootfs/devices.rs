//! Devices and links, on fds of their directories and never outside what is the container's own.

#![forbid(unsafe_code)]

use super::legacy::unavailable;
use super::tree::{self, fault, refuse};
use super::{Rootfs, resolve};
use crate::launch::Fault;
use crate::plan::rootfs::paths::is_below;
use crate::plan::rootfs::{Device, Jail, Symlink};
use crate::sys::{Named, Result, SysError};
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, Stat, Uid, chownat, fstat, makedev, mknodat, openat,
    readlinkat, symlinkat, unlinkat,
};
use rustix::io::Errno;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};

const NODE: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Whether an fd refers to this character device; the number alone says nothing about other file types.
pub(super) fn is_char(fd: impl AsFd, major: u32, minor: u32) -> Result<bool> {
    let st = fstat(fd).named("fstat")?;
    Ok(FileType::from_raw_mode(st.st_mode).is_char_device() && st.st_rdev == makedev(major, minor))
}

fn matches(st: &Stat, device: &Device) -> bool {
    FileType::from_raw_mode(st.st_mode) == FileType::from_raw_mode(device.kind)
        && (device.kind == libc::S_IFIFO || st.st_rdev == makedev(device.major, device.minor))
}

impl Rootfs {
    pub(super) fn device(&self, device: &Device) -> std::result::Result<(), Fault> {
        let (dir, name) = self.parent_of(&device.path)?;
        let own = self.is_own(&dir)?;
        if !own && is_below(&device.path.to_string_lossy(), "/dev") {
            return Err(not_own(&device.path));
        }
        if device.bind || !own {
            return self.bind_device(device, &dir, &name);
        }
        let number = makedev(device.major, device.minor);
        // The umask is 0, so this is the mode: chmod could not be done by an O_PATH fd before Linux 6.6.
        let mode = Mode::from_raw_mode(device.mode);
        match mknodat(&dir, &name, FileType::from_raw_mode(device.kind), mode, number) {
            Ok(()) => {}
            Err(Errno::PERM) => return self.bind_device(device, &dir, &name),
            Err(Errno::EXIST) => return self.existing(device, &dir, &name),
            Err(errno) => return Err(fault(SysError { call: "mknodat", errno }, "")),
        }
        let fd = openat(&dir, &name, NODE, Mode::empty()).named("openat").map_err(|e| fault(e, ""))?;
        let st = fstat(&fd).named("fstat").map_err(|e| fault(e, ""))?;
        if !matches(&st, device) {
            return Err(other_file(&device.path));
        }
        if device.uid != 0 || device.gid != 0 {
            let (uid, gid) = (Uid::from_raw(device.uid), Gid::from_raw(device.gid));
            chownat(&fd, c"", Some(uid), Some(gid), AtFlags::EMPTY_PATH)
                .named("fchownat")
                .map_err(|e| fault(e, ""))?;
        }
        Ok(())
    }

    /// The same device is what was asked for. Another file is an error (config-linux.md, "Devices"), except that
    /// one in the place of a default device is covered, since images ship an empty /dev/null.
    fn existing(&self, device: &Device, dir: &OwnedFd, name: &CStr) -> std::result::Result<(), Fault> {
        let fd = openat(dir, name, NODE, Mode::empty()).named("openat").map_err(|e| fault(e, ""))?;
        let st = fstat(&fd).named("fstat").map_err(|e| fault(e, ""))?;
        let typ = FileType::from_raw_mode(st.st_mode);
        if matches(&st, device) {
            return Ok(());
        }
        if !device.default || typ.is_dir() || typ.is_symlink() {
            return Err(other_file(&device.path));
        }
        self.bind_device(device, dir, name)
    }

    fn bind_device(&self, device: &Device, dir: &OwnedFd, name: &CStr) -> std::result::Result<(), Fault> {
        if self.jail == Jail::Chroot {
            let note = "mknod is not permitted, and without a mount namespace nothing can be bound";
            return Err(refuse(Errno::PERM, note));
        }
        let at = resolve::make_file(dir, name).map_err(|e| match e.errno {
            Errno::LOOP => other_file(&device.path),
            _ => fault(e, ""),
        })?;
        let st = fstat(&at).named("fstat").map_err(|e| fault(e, ""))?;
        // An empty file is the place of an earlier run.
        let place = FileType::from_raw_mode(st.st_mode).is_file() && st.st_size == 0;
        if !place && !device.default && !matches(&st, device) {
            return Err(other_file(&device.path));
        }
        let numbered = CString::new(format!(
            "/dev/{}/{}:{}",
            if device.kind == libc::S_IFBLK { "block" } else { "char" },
            device.major,
            device.minor
        ))
        .unwrap_or_default();
        let mut error = SysError { call: "open_tree", errno: Errno::NODEV };
        for path in [&*device.path, &*numbered] {
            match self.bind_host_node(device, path, &at) {
                Ok(()) => return Ok(()),
                // The second path is udev's and may not exist: what the first said counts then.
                Err(e) if e.errno != Errno::NOENT => error = e,
                Err(_) => {}
            }
        }
        Err(fault(error, format!("the host has no such device at {}", device.path.to_string_lossy())))
    }

    fn bind_host_node(&self, device: &Device, path: &CStr, at: &OwnedFd) -> Result<()> {
        let wrong = SysError { call: "open_tree", errno: Errno::NODEV };
        match tree::clone_path(path, false) {
            Ok(clone) if matches(&fstat(&clone).named("fstat")?, device) => {
                tree::attach(clone.as_fd(), at.as_fd())
            }
            Ok(_) => Err(wrong),
            Err(e) if unavailable(e.errno) => {
                let flags = OFlags::PATH | OFlags::CLOEXEC;
                let node = openat(CWD, path, flags, Mode::empty()).named("open")?;
                if !matches(&fstat(&node).named("fstat")?, device) {
                    return Err(wrong);
                }
                self.proc().ok_or(e)?.bind(node.as_fd(), false, at.as_fd())
            }
            Err(e) => Err(e),
        }
    }

    pub(super) fn symlink(&self, link: &Symlink) -> std::result::Result<(), Fault> {
        if *link.target == *c"/proc/kcore" && !self.kcore {
            return Ok(());
        }
        let (dir, name) = self.parent_of(&link.path)?;
        if link.in_dev && !self.is_own(&dir)? {
            return Err(not_own(&link.path));
        }
        if link.replace {
            match readlinkat(&dir, &name, Vec::new()) {
                Ok(target) if target == link.target => return Ok(()),
                Err(Errno::NOENT) => {}
                Err(errno) if errno != Errno::INVAL => {
                    return Err(fault(SysError { call: "readlinkat", errno }, ""));
                }
                _ => unlinkat(&dir, &name, AtFlags::empty()).named("unlinkat").map_err(|e| fault(e, ""))?,
            }
        }
        match symlinkat(&*link.target, &dir, &name) {
            Err(Errno::EXIST) if !link.replace => Ok(()),
            result => result.named("symlinkat").map_err(|e| fault(e, "")),
        }
    }

    pub(super) fn parent_of(&self, path: &CStr) -> std::result::Result<(OwnedFd, CString), Fault> {
        resolve::parent(self.root.as_fd(), path).map_err(|e| match e.errno {
            Errno::LOOP => {
                fault(e, format!("{} lies behind a symbolic link of the image", path.to_string_lossy()))
            }
            _ => fault(e, ""),
        })
    }

    /// Whether a directory lies on the root's own mount or a file system made for the container, and not on a
    /// volume that belongs to the host or is shared with others.
    pub(super) fn is_own(&self, dir: &OwnedFd) -> std::result::Result<bool, Fault> {
        Ok(self.own.contains(&resolve::mount_id(dir).map_err(|e| fault(e, ""))?))
    }
}

fn not_own(path: &CStr) -> Fault {
    let note =
        format!("{} would be made on a volume, not in the container's own /dev", path.to_string_lossy());
    refuse(Errno::XDEV, note)
}

fn other_file(path: &CStr) -> Fault {
    let note = format!("another file is at {}", path.to_string_lossy());
    fault(SysError { call: "mknodat", errno: Errno::EXIST }, note)
}
