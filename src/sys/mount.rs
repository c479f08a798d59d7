//! mount_setattr(2), and a process that only holds a user namespace open; neither is in rustix.

#![allow(unsafe_code)]

use super::{Result, check};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// `struct mount_attr` of linux/mount.h, version 0.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct MountAttr {
    /// `MOUNT_ATTR_*` to set.
    pub set: u64,
    /// `MOUNT_ATTR_*` to clear, before setting.
    pub clear: u64,
    /// One of `MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE`, `MS_UNBINDABLE`, or 0 to leave it.
    pub propagation: u64,
    /// A user namespace, for `MOUNT_ATTR_IDMAP`.
    pub userns_fd: u64,
}

/// mount_setattr(2) on the mount whose root `mount` refers to (kernel 5.12), and on every mount below it
/// when `recursive`.
///
/// # Errors
/// Those of the call; `ENOSYS` on kernels that lack it.
pub fn mount_setattr(mount: BorrowedFd<'_>, recursive: bool, attr: &MountAttr) -> Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is NUL-terminated, and `attr` is a live repr(C) value of the size given.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(attr),
            size_of::<MountAttr>(),
        )
    };
    check("mount_setattr", ret).map(drop)
}

/// A child that waits in a user namespace of its own until it is killed; dropping it kills and reaps it.
#[derive(Debug)]
pub struct Holder {
    /// Its process id, by which its id maps are written.
    pub pid: i32,
    pidfd: OwnedFd,
}

impl Holder {
    /// Starts it. The caller must have no other thread, as is so throughout the runtime.
    ///
    /// # Errors
    /// Those of clone(2).
    pub fn spawn() -> Result<Self> {
        let mut pidfd: libc::c_int = -1;
        let parent = rustix::process::getpid().as_raw_nonzero().get();
        let flags = libc::CLONE_NEWUSER | libc::CLONE_PIDFD | libc::SIGCHLD;
        // SAFETY: without CLONE_VM and with a null stack this is fork; `pidfd` outlives the call. The first
        // two arguments stand in this order on every architecture but s390, which is not a target.
        let ret = unsafe {
            libc::syscall(
                libc::SYS_clone,
                flags as libc::c_ulong,
                std::ptr::null_mut::<libc::c_void>(),
                &raw mut pidfd,
                0_usize,
                0_usize,
            )
        };
        if check("clone", ret)? == 0 {
            // SAFETY: the child of a single-threaded process; these calls are async-signal-safe and it
            // never returns. getppid shows whether the parent died before prctl.
            unsafe {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                if libc::getppid() != parent {
                    libc::_exit(1);
                }
                loop {
                    libc::pause();
                }
            }
        }
        // SAFETY: clone succeeded with CLONE_PIDFD, so this is a new fd that nothing else owns.
        let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
        Ok(Self { pid: i32::try_from(ret).unwrap_or(-1), pidfd })
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};
        use std::os::fd::AsFd;
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
        let _ = waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED);
    }
}
