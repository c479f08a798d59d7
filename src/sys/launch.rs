//! Processes: clone3, namespaces, execve and what surrounds them.

#![allow(unsafe_code)]

use super::script::Script;
use super::{Named, Result, check};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use rustix::io::Errno;
use std::convert::Infallible;
use std::ffi::{CStr, CString};

/// Who returns from [`clone3`].
#[derive(Debug)]
pub enum Cloned {
    /// The caller: the child's pid in the caller's pid namespace, and a pidfd.
    Parent(u32, OwnedFd),
    /// The child.
    Child,
}

/// A new process that shares nothing: fork(2) with namespaces and a pidfd (clone3(2), Linux 5.3).
///
/// `cgroup` is a directory of a cgroup v2 hierarchy in which the child starts (`CLONE_INTO_CGROUP`, Linux
/// 5.7). With `CLONE_PARENT` in `flags` the child's parent is the caller's.
///
/// # Errors
/// Those of clone3(2).
pub fn clone3(flags: u32, cgroup: Option<BorrowedFd<'_>>) -> Result<Cloned> {
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    let mut pidfd: RawFd = -1;
    // SAFETY: all fields of clone_args are integers, for which zero is valid.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = u64::from(flags) | libc::CLONE_PIDFD as u64;
    args.pidfd = std::ptr::from_mut(&mut pidfd).addr() as u64;
    if flags & libc::CLONE_PARENT as u32 == 0 {
        args.exit_signal = libc::SIGCHLD as u64;
    }
    if let Some(fd) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = fd.as_raw_fd() as u64;
    }
    // SAFETY: without CLONE_VM the child has its own copy of the memory, and rrun has one thread, so no lock
    // is held by a thread that the child lacks; `args` and `pidfd` outlive the call.
    let pid = check("clone3", unsafe {
        libc::syscall(libc::SYS_clone3, std::ptr::from_mut(&mut args), size_of::<libc::clone_args>())
    });
    let pid = match pid {
        // Filters that must see the flags answer so (Docker's for a container without CAP_SYS_ADMIN), as they
        // cannot look into clone_args.
        Err(e) if e.errno == Errno::NOSYS && cgroup.is_none() => clone(flags, args.exit_signal, &mut pidfd)?,
        pid => pid?,
    };
    if pid == 0 {
        return Ok(Cloned::Child);
    }
    // SAFETY: the kernel has just stored a new fd here, which nothing else owns.
    Ok(Cloned::Parent(pid as u32, unsafe { OwnedFd::from_raw_fd(pidfd) }))
}

/// clone(2) where clone3(2) is not to be had: all but CLONE_NEWTIME and a cgroup.
fn clone(flags: u32, exit_signal: u64, pidfd: &mut RawFd) -> Result<libc::c_long> {
    if flags & libc::CSIGNAL as u32 != 0 {
        // CLONE_NEWTIME has the bits of the signal.
        return Err(super::SysError { call: "clone3", errno: Errno::NOSYS });
    }
    let flags = libc::c_ulong::from(flags) | exit_signal | libc::CLONE_PIDFD as libc::c_ulong;
    let (none, pidfd) = (std::ptr::null_mut::<libc::c_void>(), std::ptr::from_mut(pidfd));
    // SAFETY: as in clone3: a copy of the memory, with the stack as it is; `pidfd` outlives the call. Flags,
    // stack and pidfd stand in this order on every architecture but s390, which is not a target.
    check("clone", unsafe { libc::syscall(libc::SYS_clone, flags, none, pidfd, none, none) })
}

/// Enters namespaces: `fd` is a namespace file, or a pidfd (Linux 5.8) with several `CLONE_NEW*` in `kinds`.
///
/// # Errors
/// Those of setns(2).
pub fn setns(fd: impl AsFd, kinds: u32) -> Result<()> {
    // SAFETY: no memory is passed.
    check("setns", unsafe { libc::syscall(libc::SYS_setns, fd.as_fd().as_raw_fd(), kinds) }).map(drop)
}

/// Leaves namespaces for new ones.
///
/// # Errors
/// Those of unshare(2).
pub fn unshare(kinds: u32) -> Result<()> {
    // SAFETY: only CLONE_NEW* are passed by callers, which do not affect memory or fds.
    check("unshare", unsafe { libc::syscall(libc::SYS_unshare, kinds) }).map(drop)
}

/// What kind of namespace an fd is (ioctl NS_GET_NSTYPE, Linux 4.11): a `CLONE_NEW*` flag.
///
/// # Errors
/// ENOTTY if the file is not a namespace.
pub fn namespace_kind(fd: impl AsFd) -> Result<u32> {
    const NS_GET_NSTYPE: libc::Ioctl = 0xb703;
    // SAFETY: this ioctl takes no argument.
    check("ioctl(NS_GET_NSTYPE)", unsafe {
        libc::c_long::from(libc::ioctl(fd.as_fd().as_raw_fd(), NS_GET_NSTYPE))
    })
    .map(|kind| kind as u32)
}

/// Replaces the program by this file.
///
/// # Errors
/// Those of execveat(2); on success it does not return.
pub fn fexecve(file: BorrowedFd<'_>, argv: &[CString], envp: &[CString]) -> Result<Infallible> {
    let pointers = |list: &[CString]| -> Vec<*const libc::c_char> {
        list.iter().map(|s| s.as_ptr()).chain(std::iter::once(std::ptr::null())).collect()
    };
    let (argv, envp) = (pointers(argv), pointers(envp));
    let (file, flags) = (file.as_raw_fd(), libc::AT_EMPTY_PATH);
    // SAFETY: both arrays end with a null pointer and live, with what they point to, until the call returns.
    check("execveat", unsafe {
        libc::syscall(libc::SYS_execveat, file, c"".as_ptr(), argv.as_ptr(), envp.as_ptr(), flags)
    })?;
    // An exec that returns has failed.
    Err(super::SysError { call: "execveat", errno: Errno::INVAL })
}

/// Ends the process at once: no destructor of the parent's memory runs in a child.
pub fn exit_now(status: i32) -> ! {
    // SAFETY: _exit takes no memory and does not return.
    unsafe { libc::_exit(status) }
}

/// Joins a new session keyring of this name (keyctl(2), KEYCTL_JOIN_SESSION_KEYRING).
///
/// # Errors
/// ENOSYS where the kernel has no keys, EDQUOT over the user's quota (keyrings(7)).
pub fn join_session_keyring(name: &CStr) -> Result<i32> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_long = 1;
    // SAFETY: `name` is a C string that outlives the call.
    check("keyctl", unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr()) })
        .map(|id| id as i32)
}

/// Adds search permission for the owner of a keyring, which a joined one lacks (keyctl(2), KEYCTL_SETPERM).
///
/// # Errors
/// Those of keyctl(2).
pub fn allow_search_of_keyring(id: i32) -> Result<()> {
    const KEYCTL_SETPERM: libc::c_long = 5;
    const KEYCTL_DESCRIBE: libc::c_long = 6;
    const KEY_USR_SEARCH: u32 = 0x0008_0000;
    let mut text = [0_u8; 512];
    // SAFETY: the kernel writes at most `text.len()` bytes.
    let length = check("keyctl", unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            KEYCTL_DESCRIBE,
            libc::c_long::from(id),
            text.as_mut_ptr(),
            text.len(),
        )
    })?;
    // "type;uid;gid;perm;description"
    let text =
        String::from_utf8_lossy(&text[..usize::try_from(length).unwrap_or(0).min(text.len())]).into_owned();
    let Some(perm) = text.split(';').nth(3).and_then(|perm| u32::from_str_radix(perm, 16).ok()) else {
        return Ok(());
    };
    // SAFETY: no memory is passed.
    check("keyctl", unsafe {
        libc::syscall(libc::SYS_keyctl, KEYCTL_SETPERM, libc::c_long::from(id), perm | KEY_USR_SEARCH)
    })
    .map(drop)
}

/// Makes a terminal the controlling one of this session (ioctl_tty(2), TIOCSCTTY).
///
/// # Errors
/// EPERM if the caller is no session leader or the terminal belongs to another session.
pub fn set_controlling_terminal(fd: impl AsFd) -> Result<()> {
    // SAFETY: the argument is an integer.
    check("ioctl(TIOCSCTTY)", unsafe {
        libc::c_long::from(libc::ioctl(fd.as_fd().as_raw_fd(), libc::TIOCSCTTY, 0))
    })
    .map(drop)
}

/// Makes `fd` also the number `number`, without close-on-exec.
///
/// # Errors
/// Those of dup2(2).
pub fn duplicate_onto(fd: impl AsFd, number: RawFd) -> Result<()> {
    // SAFETY: `number` is a standard stream or a number that the caller has found free; no Rust value owns it.
    check("dup2", unsafe { libc::c_long::from(libc::dup2(fd.as_fd().as_raw_fd(), number)) }).map(drop)
}

/// Sets close-on-exec on every open fd from `first` (close_range(2), Linux 5.11, or one by one).
///
/// # Errors
/// Those of reading /proc/self/fd where the call is not to be had.
pub fn cloexec_from(first: u32) -> Result<()> {
    const CLOSE_RANGE_CLOEXEC: u32 = 4;
    // SAFETY: close-on-exec changes no fd's owner.
    let done = check("close_range", unsafe {
        libc::syscall(libc::SYS_close_range, first, u32::MAX, CLOSE_RANGE_CLOEXEC)
    });
    match done {
        Err(e) if lacks_close_range(e.errno) => {
            for fd in open_fds()?.into_iter().filter(|fd| u32::try_from(*fd).is_ok_and(|fd| fd >= first)) {
                // The directory's own fd is closed by now.
                let _ = set_cloexec(fd, true);
            }
            Ok(())
        }
        done => done.map(drop),
    }
}

/// ENOSYS before Linux 5.9, EINVAL of its flag before 5.11, EPERM of old seccomp profiles.
fn lacks_close_range(errno: Errno) -> bool {
    matches!(errno, Errno::NOSYS | Errno::INVAL | Errno::PERM)
}

/// Every open fd, as /proc/self/fd lists them.
fn open_fds() -> Result<Vec<RawFd>> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let list = rustix::fs::open(c"/proc/self/fd", flags, Mode::empty()).named("open")?;
    let mut found = Vec::new();
    for entry in rustix::fs::Dir::new(list).named("getdents64")? {
        let entry = entry.named("getdents64")?;
        found.extend(entry.file_name().to_str().ok().and_then(|name| name.parse::<RawFd>().ok()));
    }
    Ok(found)
}

/// Takes ownership of an fd that this process was given by number (`--preserve-fds`, `--status-fd`).
///
/// # Errors
/// EBADF if it is not open.
pub fn inherited(number: RawFd) -> Result<OwnedFd> {
    // SAFETY: no memory is passed.
    check("fcntl", unsafe { libc::c_long::from(libc::fcntl(number, libc::F_GETFD)) })?;
    // SAFETY: it is open, and it came from the caller of rrun, so that no other value here owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Clears or sets close-on-exec of a number.
///
/// # Errors
/// EBADF if it is not open.
pub fn set_cloexec(number: RawFd, on: bool) -> Result<()> {
    let flags = if on { libc::FD_CLOEXEC } else { 0 };
    // SAFETY: no memory is passed.
    check("fcntl", unsafe { libc::c_long::from(libc::fcntl(number, libc::F_SETFD, flags)) }).map(drop)
}

/// Closes every fd but those in `keep`: what is open in a container's first process is an allow-list.
///
/// # Errors
/// Those of reading /proc/self/fd where close_range(2), Linux 5.9, is not to be had.
pub fn close_all_but(keep: &[RawFd]) -> Result<()> {
    match close_ranges(keep) {
        Err(e) if lacks_close_range(e.errno) => {
            for fd in open_fds()?.into_iter().filter(|fd| !keep.contains(fd)) {
                // SAFETY: the caller is a child that never returns to the owners of these fds. The directory's
                // own fd, in the list too, is closed already: EBADF.
                unsafe { libc::close(fd) };
            }
            Ok(())
        }
        done => done,
    }
}

fn close_ranges(keep: &[RawFd]) -> Result<()> {
    let mut keep: Vec<u32> = keep.iter().filter_map(|fd| u32::try_from(*fd).ok()).collect();
    keep.sort_unstable();
    keep.dedup();
    let mut first = 0;
    for last in keep.into_iter().map(Some).chain(std::iter::once(None)) {
        let end = last.map_or(u32::MAX, |fd| fd.saturating_sub(1));
        if last.is_none_or(|fd| fd > first) {
            // SAFETY: the caller is a child that never returns to the owners of these fds.
            check("close_range", unsafe { libc::syscall(libc::SYS_close_range, first, end, 0) })?;
        }
        first = last.map_or(u32::MAX, |fd| fd + 1);
    }
    Ok(())
}

/// Soft and hard limit of this process (prlimit(2)).
///
/// # Errors
/// EINVAL for no resource.
pub fn own_limit(resource: u32) -> Result<(u64, u64)> {
    let mut limit = [0_u64; 2];
    let new = std::ptr::null::<u64>();
    // SAFETY: the kernel writes one struct rlimit64, which is two u64.
    check("prlimit", unsafe { libc::syscall(libc::SYS_prlimit64, 0, resource, new, limit.as_mut_ptr()) })?;
    Ok((limit[0], limit[1]))
}

/// Lets the signals that ask a process to end do so in the first process of a pid namespace, for which the kernel
/// drops a signal without a handler (pid_namespaces(7)); execve(2) takes the handlers away again. The handler is that of
/// the script, if it has one of its own.
///
/// # Errors
/// None in practice.
pub fn end_by_signals(script: &Script) -> Result<()> {
    extern "C" fn end(signal: libc::c_int) {
        exit_now(128 + signal)
    }
    let handler: extern "C" fn(libc::c_int) = end;
    let handler = script.ended_by().unwrap_or(handler as *const () as libc::sighandler_t);
    for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM] {
        dispose(signal, handler)?;
    }
    Ok(())
}

/// Makes a write beyond RLIMIT_FSIZE an EFBIG that can be told and cleaned up after, instead of a deadly signal.
///
/// # Errors
/// None in practice.
pub fn ignore_sigxfsz() -> Result<()> {
    dispose(libc::SIGXFSZ, libc::SIG_IGN)
}

/// Lets each of these signals, bit N-1 for signal N, act as by default, and blocks none, as a fresh program expects: what is ignored or blocked
/// stays so through execve, be it by Rust's start-up (SIGPIPE) or by a caller such as nohup(1).
///
/// # Errors
/// None in practice.
pub fn default_signals(ignored: u64) -> Result<()> {
    // The kernel's sigaction is at most this long, and all zero is SIG_DFL, no flags, an empty mask. Not libc's
    // call, which refuses signals 32 and 33. KILL and STOP refuse: no matter.
    let zero = [0_u64; 4];
    let none = std::ptr::null_mut::<u8>();
    for signal in (1..=64).filter(|signal| ignored & (1 << (signal - 1)) != 0) {
        // SAFETY: `zero` is live; the set it ends with is 8 bytes, as said.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, zero.as_ptr(), none, 8_usize) };
    }
    // SAFETY: the set is live and 8 bytes long, as said.
    check("rt_sigprocmask", unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, zero.as_ptr(), none, 8_usize)
    })
    .map(drop)
}

fn dispose(signal: i32, to: libc::sighandler_t) -> Result<()> {
    // SAFETY: a handler given here only calls _exit(2), which signal-safety(7) allows.
    let old = unsafe { libc::signal(signal, to) };
    if old == libc::SIG_ERR {
        return check("rt_sigaction", -1).map(drop);
    }
    Ok(())
}
