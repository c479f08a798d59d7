//! The only place with `unsafe`: system calls that rustix does not have, each as a safe function.
//!
//! A wrapper here takes and returns owned or borrowed fds, adds `O_CLOEXEC` and its like where the kernel
//! lets it, and fails with [`SysError`], which names the call: the child side of the launch can send that
//! over a socket without allocating, and [`crate::error::Error`] is made from it.

#![allow(unsafe_code)]

mod alloc;
pub mod bpf;
pub mod image;
pub mod launch;
pub mod mount;
pub mod netlink;
pub mod probe;
pub mod relro;
pub mod script;
pub mod seccomp;
pub mod signal;
pub mod spawn;
pub mod task;

use rustix::io::Errno;

/// A failed system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SysError {
    /// Name of the call, as in section 2 of the manual.
    pub call: &'static str,
    /// Its errno.
    pub errno: Errno,
}

/// `Result` with [`SysError`].
pub type Result<T> = std::result::Result<T, SysError>;

/// Names the call of a bare errno.
pub trait Named<T> {
    /// Names the call.
    ///
    /// # Errors
    /// The errno with its call.
    fn named(self, call: &'static str) -> Result<T>;
}

impl<T> Named<T> for std::result::Result<T, Errno> {
    fn named(self, call: &'static str) -> Result<T> {
        self.map_err(|errno| SysError { call, errno })
    }
}

/// An errno that another process has sent. The kernel's are 1 to 4095 (include/linux/err.h); rustix takes others for an
/// error of ours.
pub fn errno(number: i32) -> Option<Errno> {
    (1..4096).contains(&number).then(|| Errno::from_raw_os_error(number))
}

/// The result of a raw call through libc: -1 becomes errno.
fn check(call: &'static str, ret: libc::c_long) -> Result<libc::c_long> {
    if ret == -1 {
        let errno = Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL);
        return Err(SysError { call, errno });
    }
    Ok(ret)
}
