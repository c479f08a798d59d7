//! The calls that rustix does not have, or has as `unsafe`. All of rrunctl's `unsafe` is here.
#![allow(unsafe_code)]

use rustix::io::{Errno, Result};
use rustix::process::{Pid, Resource, Rlimit, setrlimit};
use rustix::thread::UnshareFlags;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd as _, IntoRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

/// Lets `child`, and whatever it executes, have `fd` open at the same number.
pub fn hand_on(child: &mut Command, fd: &impl AsRawFd) {
    let fd = fd.as_raw_fd();
    // SAFETY: fcntl(2) may be called between fork and execve.
    unsafe {
        child.pre_exec(
            move || if libc::fcntl(fd, libc::F_SETFD, 0) == 0 { Ok(()) } else { Err(last().into()) },
        )
    };
}

/// Has a child begin with this limit of descriptors.
pub fn limit_files(child: &mut Command, limit: Rlimit) {
    // SAFETY: prlimit(2) may be called between fork and execve.
    unsafe { child.pre_exec(move || Ok(setrlimit(Resource::Nofile, limit)?)) };
}

/// Goes on in a child, where there is nothing; the parent gets the child's pid.
///
/// # Errors
/// Those of fork(2).
pub fn fork() -> Result<Option<Pid>> {
    // SAFETY: called where the process has one thread, so the child may do whatever the parent may.
    match unsafe { libc::fork() } {
        -1 => Err(last()),
        pid => Ok(Pid::from_raw(pid)),
    }
}

/// The child that `command` starts is killed when its parent, the calling thread, ends.
pub fn end_with_parent(command: &mut Command) {
    let parent = rustix::process::getpid();
    let ask = move || {
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
        // It may have ended before that.
        if rustix::process::getppid() == Some(parent) { Ok(()) } else { Err(Errno::CHILD.into()) }
    };
    // SAFETY: three system calls, and nothing that another thread may have locked when it was forked.
    unsafe { command.pre_exec(ask) };
}

/// Closes every descriptor from 3 on: what a caller's caller let through would be held for as long as a container
/// runs, and who waits for the end of that pipe would wait as long.
///
/// # Errors
/// Those of close_range(2).
pub fn close_foreign() -> Result<()> {
    // SAFETY: called before any descriptor above 2 is owned by anything in this process that uses it again.
    match unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) } {
        0 => Ok(()),
        _ => Err(last()),
    }
}

/// Leaves the mount namespace for a copy of it.
///
/// # Errors
/// Those of unshare(2).
pub fn unshare_mounts() -> Result<()> {
    unshare(UnshareFlags::NEWNS)
}

/// Leaves namespaces for new ones, of those that an ordinary user may have: user, mount and network; or, with `FS`, has a
/// working directory of the calling thread's own.
///
/// # Errors
/// Those of unshare(2): ENOSPC and EPERM where ordinary users may not have them.
pub fn unshare(namespaces: UnshareFlags) -> Result<()> {
    let known = UnshareFlags::NEWUSER | UnshareFlags::NEWNS | UnshareFlags::NEWNET | UnshareFlags::FS;
    // SAFETY: no descriptor table is unshared, the only part of unshare that can take something from other code.
    unsafe { rustix::thread::unshare_unsafe(namespaces & known) }
}

/// Makes a mount and all below it read-only (mount_setattr(2), Linux 5.12).
///
/// # Errors
/// Those of mount_setattr(2).
pub fn set_read_only(mount: BorrowedFd<'_>) -> Result<()> {
    /// `struct mount_attr`.
    #[repr(C)]
    struct Attributes {
        set: u64,
        clear: u64,
        propagation: u64,
        userns_fd: u64,
    }
    /// `MOUNT_ATTR_RDONLY`.
    const READ_ONLY: u64 = 1;

    let attributes = Attributes { set: READ_ONLY, clear: 0, propagation: 0, userns_fd: 0 };
    let flags = libc::AT_EMPTY_PATH | libc::AT_RECURSIVE;
    // SAFETY: the empty path and the structure live throughout, and the size is the structure's.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size_of::<Attributes>(),
        )
    };
    if done == 0 { Ok(()) } else { Err(last()) }
}

/// What a signal writes to.
static WAKE: AtomicI32 = AtomicI32::new(-1);
static HANGUP: AtomicBool = AtomicBool::new(false);

/// From now on a signal ends nothing: each adds to `wake`, an eventfd(2), and SIGHUP is kept for [`hangup`].
///
/// They are caught and not blocked or ignored, because execve(2) hands those two on to the container.
///
/// # Errors
/// Those of sigaction(2).
pub fn catch_signals(wake: OwnedFd) -> Result<()> {
    WAKE.store(wake.into_raw_fd(), Ordering::Relaxed);
    for signal in [
        libc::SIGHUP,
        libc::SIGINT,
        libc::SIGQUIT,
        libc::SIGUSR1,
        libc::SIGUSR2,
        libc::SIGALRM,
        libc::SIGTERM,
        libc::SIGCHLD,
        libc::SIGXFSZ,
    ] {
        // SAFETY: all-zero is a valid sigaction, and the handler makes async-signal-safe calls only.
        let done = unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_signal as *const () as usize;
            action.sa_flags = libc::SA_RESTART | libc::SA_NOCLDSTOP;
            libc::sigaction(signal, &raw const action, std::ptr::null_mut())
        };
        if done != 0 {
            return Err(last());
        }
    }
    Ok(())
}

extern "C" fn on_signal(signal: libc::c_int) {
    if signal == libc::SIGHUP {
        HANGUP.store(true, Ordering::Relaxed);
    }
    // SAFETY: write(2) may be called in a handler; the code that was interrupted keeps its errno.
    unsafe {
        let errno = *libc::__errno_location();
        libc::write(WAKE.load(Ordering::Relaxed), [1_u64].as_ptr().cast(), 8);
        *libc::__errno_location() = errno;
    }
}

/// Whether a SIGHUP has come since the last call.
pub fn hangup() -> bool {
    HANGUP.swap(false, Ordering::Relaxed)
}

/// Signals that come by a descriptor for as long as this is there, and then as before.
#[derive(Debug)]
pub struct Signals {
    fd: OwnedFd,
    before: libc::sigset_t,
}

impl Signals {
    /// Takes those of `wanted` that are not ignored: whoever started this with nohup(1) wants it so.
    ///
    /// They are blocked, and so are those of a child, unless [`Signals::left_to`] is said.
    ///
    /// # Errors
    /// Those of sigprocmask(2) and signalfd(2).
    pub fn take(wanted: impl Iterator<Item = u8>) -> Result<Self> {
        // SAFETY: all-zero is valid for these plain structures, each call gets pointers to them that live throughout,
        // and the descriptor that signalfd returns is nobody else's.
        unsafe {
            let mut set: libc::sigset_t = std::mem::zeroed();
            let mut before: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut set);
            for signal in wanted {
                let mut action: libc::sigaction = std::mem::zeroed();
                let known = libc::sigaction(signal.into(), std::ptr::null(), &raw mut action) == 0;
                if known && action.sa_sigaction != libc::SIG_IGN {
                    // The C library keeps some to itself.
                    libc::sigaddset(&raw mut set, signal.into());
                }
            }
            if libc::sigprocmask(libc::SIG_BLOCK, &raw const set, &raw mut before) != 0 {
                return Err(last());
            }
            match libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) {
                -1 => {
                    let e = last();
                    libc::sigprocmask(libc::SIG_SETMASK, &raw const before, std::ptr::null_mut());
                    Err(e)
                }
                fd => Ok(Self { fd: OwnedFd::from_raw_fd(fd), before }),
            }
        }
    }

    /// Has a child begin with the signals as they were before.
    pub fn left_to(&self, child: &mut Command) {
        let before = self.before;
        // SAFETY: sigprocmask(2) may be called between fork and execve, and what it reads was copied there.
        unsafe {
            child.pre_exec(move || {
                libc::sigprocmask(libc::SIG_SETMASK, &raw const before, std::ptr::null_mut());
                Ok(())
            });
        }
    }

    /// The next one that has come.
    pub fn next(&self) -> Option<u8> {
        // signalfd_siginfo, whose first field is the number.
        let mut info = [0; 128];
        match rustix::io::read(&self.fd, &mut info) {
            Ok(128) => u32::from_ne_bytes([info[0], info[1], info[2], info[3]]).try_into().ok(),
            _ => None,
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
        // SAFETY: the set is the one that sigprocmask wrote.
        unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const self.before, std::ptr::null_mut()) };
    }
}

/// How the process of `pidfd` has ended, as wait(2) has it; nothing while its parent has not waited for it, and from
/// kernels that do not keep it (before Linux 6.15).
pub fn pidfd_exit(pidfd: BorrowedFd<'_>) -> Option<i32> {
    /// `struct pidfd_info` (linux/pidfd.h), as far as every kernel has it.
    #[repr(C)]
    #[derive(Default)]
    struct Info {
        mask: u64,
        cgroup: u64,
        ids: [u32; 11],
        exit_code: i32,
    }
    /// `PIDFD_GET_INFO`: `_IOWR(0xff, 11, struct pidfd_info)`.
    const GET_INFO: u32 = 0xc040_ff0b;
    /// `PIDFD_INFO_EXIT`.
    const EXIT: u64 = 1 << 3;

    let mut info = Info { mask: EXIT, ..Info::default() };
    // SAFETY: the kernel writes no more than the size in the number says, which is that of the structure.
    let done = unsafe { libc::ioctl(pidfd.as_raw_fd(), GET_INFO as _, &raw mut info) };
    (done == 0 && info.mask & EXIT != 0).then_some(info.exit_code)
}

/// Whose a datagram is, and where it was sent to: what its answer needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Arrival {
    /// Who has sent it.
    pub client: SocketAddr,
    /// Which of this host's addresses it was sent to, and by which link where that matters (fe80::/10).
    to: Option<(IpAddr, u32)>,
}

/// From now on [`receive_datagram`] says of what comes to `socket` where it was sent to (ip(7), ipv6(7)).
///
/// # Errors
/// Those of setsockopt(2).
pub fn tell_destinations(socket: BorrowedFd<'_>) -> Result<()> {
    let on: libc::c_int = 1;
    for (level, name) in [(libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO), (libc::IPPROTO_IP, libc::IP_PKTINFO)]
    {
        // SAFETY: the kernel reads as many bytes as an int has.
        let done = unsafe {
            libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const on).cast(), size_of_val(&on) as _)
        };
        match if done == 0 { Ok(()) } else { Err(last()) } {
            // Of an IPv4 socket.
            Err(Errno::NOPROTOOPT) if level == libc::IPPROTO_IPV6 => {}
            other => other?,
        }
    }
    Ok(())
}

/// Room for one control message of a datagram, where the kernel wants it to begin.
type Control = [u64; 8];

/// Takes a datagram of a UDP socket, without waiting; what does not fit in is lost.
///
/// # Errors
/// Those of recvmsg(2).
pub fn receive_datagram(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<(usize, Arrival)> {
    let mut control: Control = [0; 8];
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: all-zero is valid for both; the kernel writes into what the lengths beside the pointers say, all of which
    // lives throughout, and CMSG_* walk through no more than that.
    unsafe {
        let mut name: libc::sockaddr_storage = std::mem::zeroed();
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_name = (&raw mut name).cast();
        message.msg_namelen = size_of_val(&name) as _;
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of::<Control>() as _;
        let received = libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT);
        let length = usize::try_from(received).map_err(|_| last())?;
        let client = match libc::c_int::from(name.ss_family) {
            libc::AF_INET => {
                let from = (&raw const name).cast::<libc::sockaddr_in>().read();
                let ip = Ipv4Addr::from(from.sin_addr.s_addr.to_ne_bytes());
                SocketAddr::new(ip.into(), u16::from_be(from.sin_port))
            }
            libc::AF_INET6 => {
                let from = (&raw const name).cast::<libc::sockaddr_in6>().read();
                let ip = Ipv6Addr::from(from.sin6_addr.s6_addr);
                SocketAddrV6::new(ip, u16::from_be(from.sin6_port), 0, from.sin6_scope_id).into()
            }
            _ => return Err(Errno::AFNOSUPPORT),
        };
        let mut to = None;
        let mut at = libc::CMSG_FIRSTHDR(&raw const message);
        while !at.is_null() {
            let data = libc::CMSG_DATA(at);
            match ((*at).cmsg_level, (*at).cmsg_type) {
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    let info = data.cast::<libc::in_pktinfo>().read_unaligned();
                    // Of what was sent to all, this is the address that answers.
                    to = Some((Ipv4Addr::from(info.ipi_spec_dst.s_addr.to_ne_bytes()).into(), 0));
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    let info = data.cast::<libc::in6_pktinfo>().read_unaligned();
                    let ip = Ipv6Addr::from(info.ipi6_addr.s6_addr);
                    let link = if ip.is_unicast_link_local() { info.ipi6_ifindex as u32 } else { 0 };
                    to = Some((ip.into(), link)).filter(|_| !ip.is_multicast());
                }
                _ => {}
            }
            at = libc::CMSG_NXTHDR(&raw const message, at);
        }
        Ok((length, Arrival { client, to }))
    }
}

/// Sends the answer to what has arrived so, without waiting, from the address that it was sent to.
///
/// # Errors
/// Those of sendmsg(2).
pub fn send_datagram(socket: BorrowedFd<'_>, bytes: &[u8], to: &Arrival) -> Result<()> {
    let mut control: Control = [0; 8];
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: all-zero is valid for all of them; each is as large as the lengths say and lives throughout; the control
    // message and its header fit into the room for it, and sendmsg(2) writes to none of it.
    unsafe {
        let mut name: libc::sockaddr_storage = std::mem::zeroed();
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_name = (&raw mut name).cast();
        message.msg_namelen = match to.client {
            SocketAddr::V4(client) => {
                let mut into: libc::sockaddr_in = std::mem::zeroed();
                into.sin_family = libc::AF_INET as _;
                into.sin_port = client.port().to_be();
                into.sin_addr.s_addr = u32::from_ne_bytes(client.ip().octets());
                (&raw mut name).cast::<libc::sockaddr_in>().write(into);
                size_of_val(&into)
            }
            SocketAddr::V6(client) => {
                let mut into: libc::sockaddr_in6 = std::mem::zeroed();
                into.sin6_family = libc::AF_INET6 as _;
                into.sin6_port = client.port().to_be();
                into.sin6_addr.s6_addr = client.ip().octets();
                into.sin6_scope_id = client.scope_id();
                (&raw mut name).cast::<libc::sockaddr_in6>().write(into);
                size_of_val(&into)
            }
        } as _;
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        if let Some((from, link)) = to.to {
            message.msg_control = control.as_mut_ptr().cast();
            message.msg_controllen = size_of::<Control>() as _;
            let header = libc::CMSG_FIRSTHDR(&raw const message);
            let data = libc::CMSG_DATA(header);
            let length = match from {
                IpAddr::V4(from) => {
                    ((*header).cmsg_level, (*header).cmsg_type) = (libc::IPPROTO_IP, libc::IP_PKTINFO);
                    let mut info: libc::in_pktinfo = std::mem::zeroed();
                    info.ipi_spec_dst.s_addr = u32::from_ne_bytes(from.octets());
                    data.cast::<libc::in_pktinfo>().write_unaligned(info);
                    size_of_val(&info)
                }
                IpAddr::V6(from) => {
                    ((*header).cmsg_level, (*header).cmsg_type) = (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO);
                    let mut info: libc::in6_pktinfo = std::mem::zeroed();
                    info.ipi6_addr.s6_addr = from.octets();
                    info.ipi6_ifindex = link as _;
                    data.cast::<libc::in6_pktinfo>().write_unaligned(info);
                    size_of_val(&info)
                }
            };
            (*header).cmsg_len = libc::CMSG_LEN(length as _) as _;
            message.msg_controllen = libc::CMSG_SPACE(length as _) as _;
        }
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        if libc::sendmsg(socket.as_raw_fd(), &raw const message, flags) < 0 { Err(last()) } else { Ok(()) }
    }
}

/// Sends a signal by its number: rustix has no real-time ones.
///
/// # Errors
/// Those of kill(2).
pub fn kill(pid: Pid, signal: u8) -> Result<()> {
    // SAFETY: kill(2) has numbers alone.
    if unsafe { libc::kill(pid.as_raw_nonzero().get(), signal.into()) } == 0 { Ok(()) } else { Err(last()) }
}

fn last() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}
