//! seccomp(2): loading a filter, asking what the kernel knows.

#![allow(unsafe_code)]

use super::{Result, SysError, check};
use crate::plan::seccomp::{FLAGS, Insn, NEW_LISTENER};
use rustix::io::Errno;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

// linux/seccomp.h
pub(super) const SET_MODE_FILTER: u32 = 1;
const GET_ACTION_AVAIL: u32 = 2;

const _: () = assert!(
    size_of::<Insn>() == size_of::<libc::sock_filter>()
        && align_of::<Insn>() == align_of::<libc::sock_filter>()
);

/// Loads a filter into this thread; it needs no_new_privs or CAP_SYS_ADMIN in the user namespace. With
/// `SECCOMP_FILTER_FLAG_NEW_LISTENER` it returns the notification fd, which has O_CLOEXEC.
///
/// # Errors
/// seccomp(2)'s: EACCES for neither of the two, EINVAL for a flag that the kernel does not know or a program
/// that it refuses, EBUSY for a second listener.
pub fn load(program: &[Insn], flags: u32) -> Result<Option<OwnedFd>> {
    let Ok(len) = u16::try_from(program.len()) else {
        return Err(SysError { call: "seccomp", errno: Errno::INVAL });
    };
    let fprog = libc::sock_fprog { len, filter: program.as_ptr().cast_mut().cast() };
    // SAFETY: `fprog` and the instructions that it points to live through the call, which only reads them;
    // `Insn` has the layout of sock_filter.
    let ret = unsafe { libc::syscall(libc::SYS_seccomp, SET_MODE_FILTER, flags, &raw const fprog) };
    let ret = check("seccomp", ret)?;
    if flags & NEW_LISTENER == 0 {
        return Ok(None);
    }
    // SAFETY: with NEW_LISTENER the call returned a new fd, which nothing else owns.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(ret as RawFd) }))
}

/// Whether the kernel knows an action: `SECCOMP_RET_*` without data.
pub fn action_available(action: u32) -> bool {
    // SAFETY: the call reads one u32.
    unsafe { libc::syscall(libc::SYS_seccomp, GET_ACTION_AVAIL, 0, &raw const action) == 0 }
}

/// The flags of config.json that the kernel knows.
pub fn supported_flags() -> impl Iterator<Item = &'static str> {
    FLAGS.iter().filter(|(_, flag)| knows_flag(*flag)).map(|(name, _)| *name)
}

/// Tries a flag without a program: the kernel looks at the flags (EINVAL) before the program (EFAULT).
fn knows_flag(flag: u32) -> bool {
    // WAIT_KILLABLE_RECV is valid beside NEW_LISTENER only; TSYNC is not.
    let flags = if flag == 1 << 5 { flag | NEW_LISTENER } else { flag };
    let none: *const libc::sock_fprog = std::ptr::null();
    // SAFETY: a null program is never read; the call can only fail.
    let ret = unsafe { libc::syscall(libc::SYS_seccomp, SET_MODE_FILTER, flags, none) };
    check("seccomp", ret).is_err_and(|e| e.errno == Errno::FAULT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::seccomp::ACTIONS;

    #[test]
    fn the_kernel_knows_the_basic_actions_and_flags_and_no_others() {
        assert!(ACTIONS.iter().all(|(_, action)| action_available(*action)));
        assert!(!action_available(0x1234_0000));
        assert!(knows_flag(1) && !knows_flag(1 << 30));
        assert!(supported_flags().any(|name| name == "SECCOMP_FILTER_FLAG_LOG"));
    }

    #[test]
    fn a_loaded_filter_decides_and_a_listener_comes_back() {
        // Allows all but sync(2) on any architecture, whose number is checked only: good enough here.
        let insn = |code, jt, jf, k| Insn { code, jt, jf, k };
        let program = [
            insn(0x20, 0, 0, 0),
            insn(0x15, 0, 1, libc::SYS_sync as u32),
            insn(0x06, 0, 0, 0x0005_0000 | 95),
            insn(0x06, 0, 0, 0x7fff_0000),
        ];
        // A filter is for the thread that loads it, and this thread ends with the test.
        let loaded = std::thread::spawn(move || {
            rustix::thread::set_no_new_privs(true).unwrap();
            let fd = load(&program, NEW_LISTENER).unwrap();
            assert!(fd.is_some());
            assert!(load(&program, 0).unwrap().is_none());
            // SAFETY: sync(2) takes nothing.
            let ret = unsafe { libc::syscall(libc::SYS_sync) };
            check("sync", ret).unwrap_err().errno
        });
        assert_eq!(loaded.join().unwrap(), Errno::OPNOTSUPP);
        assert_eq!(load(&[], 0).unwrap_err().errno, Errno::INVAL);
    }
}
