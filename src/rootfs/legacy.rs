//! mount(2), for kernels and seccomp profiles without the newer calls.
//!
//! Its paths are `fd/N` relative to a /proc/self that was opened and verified before the container had a
//! say, so no path into the root is ever resolved here either.

#![forbid(unsafe_code)]

use crate::plan::rootfs::{Attrs, Filesystem, attr};
use crate::sys::{Named, Result, SysError};
use rustix::fs::{StatVfsMountFlags, fstatvfs};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags};
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// Whether an errno of a newer call may only mean that the call is not to be had: ENOSYS of old kernels,
/// EPERM of old seccomp profiles.
pub(super) fn unavailable(errno: Errno) -> bool {
    matches!(errno, Errno::NOSYS | Errno::PERM)
}

/// /proc/self of the host's procfs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Proc<'a>(pub(super) BorrowedFd<'a>);

impl Proc<'_> {
    fn path(self, fd: impl AsFd) -> Result<CString> {
        rustix::process::fchdir(self.0).named("fchdir")?;
        CString::new(format!("fd/{}", fd.as_fd().as_raw_fd()))
            .map_err(|_| SysError { call: "mount", errno: Errno::INVAL })
    }

    /// A new file system on `destination`.
    pub(super) fn mount(self, fs: &Filesystem, attrs: Attrs, destination: BorrowedFd<'_>) -> Result<()> {
        let data: Vec<Vec<u8>> = fs.data.iter().map(|(key, value)| option(key, value.as_deref())).collect();
        let data =
            CString::new(data.join(&b',')).map_err(|_| SysError { call: "mount", errno: Errno::INVAL })?;
        let flags = MountFlags::from_bits_retain(fs.flags | mount_flags(attrs.set));
        let target = self.path(destination)?;
        rustix::mount::mount(&*fs.source, &*target, &*fs.typ, flags, &*data).named("mount")
    }

    /// Binds what `source` refers to.
    pub(super) fn bind(
        self,
        source: BorrowedFd<'_>,
        recursive: bool,
        destination: BorrowedFd<'_>,
    ) -> Result<()> {
        let target = self.path(destination)?;
        let source = self.path(source)?;
        if recursive {
            rustix::mount::mount_bind_recursive(&*source, &*target).named("mount")
        } else {
            rustix::mount::mount_bind(&*source, &*target).named("mount")
        }
    }

    /// Changes the attributes of a mount. What it has stays unless it is cleared, as the kernel demands of
    /// locked ones in a user namespace.
    pub(super) fn set_attrs(self, mount: BorrowedFd<'_>, attrs: Attrs) -> Result<()> {
        let has = fstatvfs(mount).named("fstatfs")?.f_flag;
        let mut bits = 0;
        for (flag, bit) in [
            (StatVfsMountFlags::RDONLY, attr::RDONLY),
            (StatVfsMountFlags::NOSUID, attr::NOSUID),
            (StatVfsMountFlags::NODEV, attr::NODEV),
            (StatVfsMountFlags::NOEXEC, attr::NOEXEC),
            (StatVfsMountFlags::NOATIME, attr::NOATIME),
            (StatVfsMountFlags::NODIRATIME, attr::NODIRATIME),
        ] {
            if has.contains(flag) {
                bits |= bit;
            }
        }
        if !has.intersects(StatVfsMountFlags::NOATIME | StatVfsMountFlags::RELATIME) {
            bits |= attr::STRICTATIME;
        }
        let flags = mount_flags(bits & !attrs.clear | attrs.set);
        let flags = MountFlags::from_bits_retain(flags) | MountFlags::BIND;
        let target = self.path(mount)?;
        rustix::mount::mount_remount(&*target, flags, c"").named("mount")
    }

    /// Changes the propagation of a mount.
    pub(super) fn propagate(self, mount: BorrowedFd<'_>, flags: u32) -> Result<()> {
        let target = self.path(mount)?;
        let flags = MountPropagationFlags::from_bits_retain(flags);
        rustix::mount::mount_change(&*target, flags).named("mount")
    }

    /// Moves a mount.
    pub(super) fn move_to(self, mount: BorrowedFd<'_>, destination: BorrowedFd<'_>) -> Result<()> {
        let target = self.path(destination)?;
        let source = self.path(mount)?;
        rustix::mount::mount_move(&*source, &*target).named("mount")
    }
}

fn option(key: &CStr, value: Option<&CStr>) -> Vec<u8> {
    let Some(value) = value.map(CStr::to_bytes) else { return key.to_bytes().to_vec() };
    // Only SELinux contexts have commas, and are read with quotes.
    let quote: &[u8] = if value.contains(&b',') { b"\"" } else { b"" };
    [key.to_bytes(), b"=", quote, value, quote].concat()
}

fn mount_flags(attrs: u64) -> u32 {
    let mut flags = 0;
    for (bit, flag) in [
        (attr::RDONLY, libc::MS_RDONLY),
        (attr::NOSUID, libc::MS_NOSUID),
        (attr::NODEV, libc::MS_NODEV),
        (attr::NOEXEC, libc::MS_NOEXEC),
        (attr::NOATIME, libc::MS_NOATIME),
        (attr::STRICTATIME, libc::MS_STRICTATIME),
        (attr::NODIRATIME, libc::MS_NODIRATIME),
        // MS_NOSYMFOLLOW of linux/mount.h (kernel 5.10).
        (attr::NOSYMFOLLOW, 0x100),
    ] {
        if attrs & bit != 0 {
            flags |= flag as u32;
        }
    }
    flags
}
