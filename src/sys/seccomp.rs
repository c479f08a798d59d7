//! seccomp(2): asking what the kernel knows; [`super::script::Script::seccomp`] loads a filter.

#![allow(unsafe_code)]

use super::check;
use crate::plan::seccomp::{FLAGS, NEW_LISTENER};
use rustix::io::Errno;

// linux/seccomp.h
pub(super) const SET_MODE_FILTER: u32 = 1;
const GET_ACTION_AVAIL: u32 = 2;

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
}
