//! Asks the kernel whether it has a system call or one of its flags, without changing anything.
//!
//! Each call is made so that it must fail: with arguments that are looked at only after the feature in
//! question is known to be there. The errno then tells the two apart. Where that is impossible, a child
//! process does the thing and ends.

#![allow(unsafe_code)]

use super::{Result, check};
use libc::{c_int, c_long, c_ulong};
use rustix::io::Errno;

/// A descriptor that nobody has open.
const NO_FD: c_int = c_int::MAX;

/// Whether the kernel knows the call at all: every errno but ENOSYS says so.
fn known(result: Result<c_long>) -> bool {
    !matches!(result, Err(e) if e.errno == Errno::NOSYS)
}

/// openat2(2), since 5.6.
pub fn openat2() -> bool {
    // SAFETY: the kernel rejects the size before it reads anything.
    known(check("openat2", unsafe { libc::syscall(libc::SYS_openat2, NO_FD, c"/".as_ptr(), 0, 0) }))
}

/// clone3(2), since 5.3; seccomp filters of outer containers often answer ENOSYS.
pub fn clone3() -> bool {
    // SAFETY: the kernel rejects the size before it reads anything.
    known(check("clone3", unsafe { libc::syscall(libc::SYS_clone3, 0, 0) }))
}

/// The mount calls on file descriptors, since 5.2.
pub fn new_mount_api() -> bool {
    let (null, zero): (c_long, c_long) = (0, 0);
    // SAFETY: null paths fail with EFAULT, the unused fd with EBADF.
    let results = unsafe {
        [
            libc::syscall(libc::SYS_fsopen, null, zero),
            libc::syscall(libc::SYS_open_tree, NO_FD, null, zero),
            libc::syscall(libc::SYS_move_mount, NO_FD, null, NO_FD, null, zero),
            libc::syscall(libc::SYS_fsmount, NO_FD, zero, zero),
        ]
        .map(|ret| check("fsopen", ret))
    };
    results.into_iter().all(known)
}

/// mount_setattr(2), since 5.12.
pub fn mount_setattr() -> bool {
    // SAFETY: the kernel rejects the size before it reads anything.
    let ret = unsafe { libc::syscall(libc::SYS_mount_setattr, NO_FD, c"".as_ptr(), 0, 0, 0) };
    known(check("mount_setattr", ret))
}

/// MOUNT_ATTR_IDMAP, since 5.12; `None` without the right to mount, as that is asked first.
pub fn idmapped_mounts() -> Option<bool> {
    const MOUNT_ATTR_IDMAP: u64 = 0x0010_0000;
    let attr = [MOUNT_ATTR_IDMAP, 0, 0, NO_FD as u64];
    // SAFETY: `attr` has the layout of struct mount_attr; its user namespace is an fd that nobody has open.
    let ret = unsafe {
        libc::syscall(libc::SYS_mount_setattr, NO_FD, c"/".as_ptr(), 0, attr.as_ptr(), size_of_val(&attr))
    };
    match check("mount_setattr", ret).err()?.errno {
        Errno::BADF => Some(true),
        Errno::PERM => None,
        _ => Some(false),
    }
}

/// pidfd_open(2), since 5.3.
pub fn pidfd() -> bool {
    // SAFETY: no pointers; there is no process -1.
    known(check("pidfd_open", unsafe { libc::syscall(libc::SYS_pidfd_open, -1, 0) }))
}

/// close_range(2), since 5.9.
pub fn close_range() -> bool {
    // SAFETY: no pointers; an empty range fails with EINVAL.
    known(check("close_range", unsafe { libc::syscall(libc::SYS_close_range, 1, 0, 0) }))
}

/// `struct clone_args` of clone3(2) as of 5.7.
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Starts a child that ends at once, and waits for it.
fn clone_and_end(args: &CloneArgs) -> Result<()> {
    // SAFETY: `args` is a struct clone_args of the size given. The child has its own copy of the memory and
    // makes no call but the exit, which runs nothing of this program.
    let ret = unsafe {
        let ret = libc::syscall(libc::SYS_clone3, std::ptr::from_ref(args), size_of::<CloneArgs>());
        if ret == 0 {
            libc::syscall(libc::SYS_exit_group, 0);
        }
        ret
    };
    let pid = check("clone3", ret)? as libc::pid_t;
    loop {
        // SAFETY: a null status is allowed; the child is ours and not waited for elsewhere.
        let ret = unsafe { libc::waitpid(pid, std::ptr::null_mut(), libc::__WALL) };
        match check("waitpid", ret.into()) {
            Err(e) if e.errno == Errno::INTR => {}
            other => return other.map(drop),
        }
    }
}

/// CLONE_INTO_CGROUP, since 5.7.
pub fn clone_into_cgroup() -> bool {
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    let args = CloneArgs {
        flags: CLONE_INTO_CGROUP,
        exit_signal: libc::SIGCHLD as u64,
        cgroup: NO_FD as u64,
        ..Default::default()
    };
    matches!(clone_and_end(&args), Err(e) if e.errno == Errno::BADF)
}

/// Makes namespaces of these `CLONE_NEW*` flags, which end with the child that was in them.
///
/// # Errors
/// EPERM without the right, EINVAL where the kernel has not the kind, ENOSPC at a limit of
/// /proc/sys/user.
pub fn namespaces(flags: u32) -> Result<()> {
    clone_and_end(&CloneArgs { flags: flags.into(), exit_signal: libc::SIGCHLD as u64, ..Default::default() })
}

/// Whether the kernel has a seccomp action, `SECCOMP_RET_*`.
pub fn seccomp_action(action: u32) -> bool {
    const SECCOMP_GET_ACTION_AVAIL: c_ulong = 2;
    // SAFETY: `action` is the u32 that the operation reads.
    let ret = unsafe { libc::syscall(libc::SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &raw const action) };
    check("seccomp", ret).is_ok()
}

/// Whether the kernel has flags of a seccomp filter, `SECCOMP_FILTER_FLAG_*`.
pub fn seccomp_flags(flags: u32) -> bool {
    const SECCOMP_SET_MODE_FILTER: c_ulong = 1;
    let null: c_ulong = 0;
    // SAFETY: the kernel looks at the flags, then fails with EFAULT to read the null filter.
    let ret =
        unsafe { libc::syscall(libc::SYS_seccomp, SECCOMP_SET_MODE_FILTER, c_ulong::from(flags), null) };
    matches!(check("seccomp", ret), Err(e) if e.errno == Errno::FAULT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_things_are_told_from_known_ones() {
        // SAFETY: there is no such system call.
        assert!(!known(check("none", unsafe { libc::syscall(100_000) })));
        assert!(seccomp_action(0x7fff_0000) && !seccomp_action(0x1234_0000));
        assert!(seccomp_flags(1) && !seccomp_flags(0x8000_0000));
        // CLONE_DETACHED, which clone3 refuses.
        assert_eq!(namespaces(0x0040_0000).map_err(|e| e.errno), Err(Errno::INVAL));
        assert!(namespaces(0).is_ok());
    }
}
