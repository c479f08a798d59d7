//! Signals as events: blocked before a process is started, read from a signalfd, given back in the child.

#![allow(unsafe_code)]

use super::{Named, Result, check};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use rustix::io::Errno;

/// Every signal that can be blocked, blocked, and readable from a signalfd.
///
/// It must exist before the process to be waited for: a SIGCHLD or SIGTERM that comes between clone and
/// the blocking is lost otherwise (runc #5208). Dropping it gives the old mask back.
#[derive(Debug)]
pub struct Signals {
    fd: OwnedFd,
    old: Mask,
}

/// A set of blocked signals, to be restored in a child.
#[derive(Debug, Clone, Copy)]
pub struct Mask(u64);

/// The kernel's sigset: 64 bits on every architecture of ours; libc's own type is padded to 1024.
const SIZE: usize = size_of::<u64>();

/// Those that report our own faults: blocked, the kernel would kill us all the same.
const SYNCHRONOUS: [i32; 6] =
    [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP, libc::SIGSYS];

fn set_mask(mask: u64) -> Result<u64> {
    let mut old = 0u64;
    // SAFETY: both point to live 64-bit sets, and SIZE says so.
    let ret = unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const mask, &raw mut old, SIZE)
    };
    check("rt_sigprocmask", ret)?;
    Ok(old)
}

fn bit(signal: i32) -> u64 {
    u32::try_from(signal - 1).ok().and_then(|n| 1u64.checked_shl(n)).unwrap_or(0)
}

impl Signals {
    /// Blocks the signals and opens the signalfd, which does not block.
    ///
    /// # Errors
    /// rt_sigprocmask, signalfd4.
    pub fn block() -> Result<Self> {
        let mask = SYNCHRONOUS.iter().fold(u64::MAX, |mask, signal| mask & !bit(*signal));
        let old = Mask(set_mask(mask)?);
        // SAFETY: the set is live and SIZE long.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_signalfd4,
                -1,
                &raw const mask,
                SIZE,
                libc::SFD_CLOEXEC | libc::SFD_NONBLOCK,
            )
        };
        let fd = check("signalfd4", fd).inspect_err(|_| {
            let _ = old.restore();
        })?;
        // SAFETY: a new fd that nobody else owns.
        let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
        Ok(Self { fd, old })
    }

    /// The mask from before, for a child to [`restore`](Mask::restore).
    pub fn old(&self) -> Mask {
        self.old
    }

    /// What the child calls before execve, which keeps a mask.
    ///
    /// # Errors
    /// rt_sigprocmask.
    pub fn restore_in_child(&self) -> Result<()> {
        self.old.restore()
    }

    /// The next pending signal, if there is one.
    ///
    /// # Errors
    /// read of the signalfd.
    pub fn next(&self) -> Result<Option<i32>> {
        // struct signalfd_siginfo, whose first field is the signal's number.
        let mut info = [0u8; 128];
        match rustix::io::read(&self.fd, &mut info) {
            Ok(_) => {
                let [a, b, c, d, ..] = info;
                Ok(i32::try_from(u32::from_ne_bytes([a, b, c, d])).ok())
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(errno) => Err(errno).named("read"),
        }
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        let _ = self.old.restore();
    }
}

impl Mask {
    /// Makes it the calling thread's mask.
    ///
    /// # Errors
    /// rt_sigprocmask.
    pub fn restore(self) -> Result<()> {
        set_mask(self.0).map(drop)
    }
}

/// SIGPIPE is ignored while this exists: init has the default disposition, and a hook may exit without
/// reading its standard input.
#[derive(Debug)]
pub struct NoSigpipe(libc::sighandler_t);

impl NoSigpipe {
    /// Ignores it.
    pub fn new() -> Self {
        // SAFETY: SIG_IGN runs no code.
        Self(unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) })
    }
}

impl Default for NoSigpipe {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for NoSigpipe {
    fn drop(&mut self) {
        if self.0 != libc::SIG_ERR {
            // SAFETY: the disposition that the same call returned.
            unsafe { libc::signal(libc::SIGPIPE, self.0) };
        }
    }
}

/// pidfd_send_signal(2) with any number, real-time signals too, which rustix's type does not name.
///
/// # Errors
/// ESRCH once the process is gone.
pub fn send(pidfd: BorrowedFd<'_>, signal: i32) -> Result<()> {
    // SAFETY: a null siginfo asks for the one of kill(2).
    let ret = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    check("pidfd_send_signal", ret).map(drop)
}

/// Sends a signal to the calling thread.
#[cfg(test)]
pub(crate) fn raise(signal: i32) {
    // SAFETY: the calling thread lives.
    unsafe { libc::pthread_kill(libc::pthread_self(), signal) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blocked_signal_is_read_and_the_mask_comes_back() {
        let before = set_mask(0).unwrap();
        let signals = Signals::block().unwrap();
        assert_eq!(signals.next().unwrap(), None);
        raise(libc::SIGUSR1);
        assert_eq!(signals.next().unwrap(), Some(libc::SIGUSR1));
        assert_eq!(signals.next().unwrap(), None);
        drop(signals);
        assert_eq!(set_mask(before).unwrap(), 0);
    }
}
