//! Starts a program of the host or of the container: hooks, CRIU.
//!
//! clone(2) and execve(2) with nothing between them but system calls, so that it works in init after
//! pivot_root, where no file of the host's libc exists, and in a test's process with threads. Not
//! posix_spawn(3), which has neither a pidfd nor a parent-death signal, and not `std::process`, which
//! leaves signals ignored that a hook does not expect to be ignored.

#![allow(unsafe_code)]

use super::{Named, Result, SysError, check};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};
use std::ffi::{CStr, CString};
use std::fmt;

/// What to start.
#[derive(Debug)]
pub struct Program<'a> {
    /// Absolute path; nothing is looked up.
    pub path: &'a CStr,
    /// Arguments, the first being the program's name; none means the path.
    pub argv: &'a [CString],
    /// The whole environment.
    pub envp: &'a [CString],
    /// Working directory; `None` leaves ours.
    pub cwd: Option<&'a CStr>,
    /// They become fd 0, 1, 2 and so on; no other fd passes.
    pub fds: &'a [BorrowedFd<'a>],
    /// Whether it leads a process group of its own, with which it is killed. Not CRIU: what it restores with
    /// `--shell-job` belongs to our group, in the foreground of our terminal.
    pub group: bool,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// By exit(2).
    Code(u8),
    /// By a signal.
    Signal(i32),
}

impl Exit {
    /// The status a shell would report: the code, or 128 and the signal's number.
    pub fn status(self) -> u8 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => u8::try_from(signal.saturating_add(128)).unwrap_or(u8::MAX),
        }
    }

    /// Whether it is exit(0).
    pub fn success(self) -> bool {
        self == Self::Code(0)
    }
}

/// The kernel's words for a signal, in lower case as Go's runtimes print them.
fn signal_words(signal: i32) -> String {
    // SAFETY: strsignal returns a C string that lives until its next call, and there is one thread.
    let words = unsafe { CStr::from_ptr(libc::strsignal(signal)) };
    words.to_string_lossy().to_lowercase()
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit status {code}"),
            Self::Signal(signal) => write!(f, "killed by signal {signal} ({})", signal_words(*signal)),
        }
    }
}

/// A started process; killed, with its group if it leads one, and reaped when dropped.
#[derive(Debug)]
pub struct Child {
    pid: Pid,
    pidfd: OwnedFd,
    group: bool,
    reaped: bool,
}

impl Child {
    /// Its pid, as we see it.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Readable once the process has ended.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// waitid(2).
    pub fn wait(&mut self) -> Result<Exit> {
        let exit = wait(self.pidfd.as_fd())?;
        self.reaped = true;
        Ok(exit)
    }

    /// Kills the process and what it started in its group.
    pub fn kill(&self) {
        // Fails only when all of them are gone; the pid is not reused while it is not reaped.
        let _ = match self.group {
            true => rustix::process::kill_process_group(self.pid, Signal::KILL),
            false => rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL),
        };
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.reaped {
            self.kill();
            let _ = self.wait();
        }
    }
}

/// Waits until the child behind a pidfd has ended, and reaps it.
///
/// # Errors
/// waitid(2).
pub fn wait(pidfd: BorrowedFd<'_>) -> Result<Exit> {
    loop {
        match rustix::process::waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED) {
            Ok(Some(status)) => {
                return Ok(match (status.exit_status(), status.terminating_signal()) {
                    (_, Some(signal)) => Exit::Signal(signal),
                    (code, None) => Exit::Code((code.unwrap_or(0) & 0xff) as u8),
                });
            }
            Ok(None) | Err(Errno::INTR) => {}
            Err(errno) => return Err(SysError { call: "waitid", errno }),
        }
    }
}

/// Reaps the orphans that a subreaper inherits, but not the child that someone waits for.
pub fn reap_others(child: Pid) {
    let reap = |kind, id, flags| {
        // SAFETY: plain data that the kernel fills; `id` is a pid or unused.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        // SAFETY: `info` is live.
        let ret = unsafe { libc::waitid(kind, id, &raw mut info, libc::WEXITED | libc::WNOHANG | flags) };
        // SAFETY: waitid fills the fields of SIGCHLD, or none, and then the pid is 0.
        if ret == 0 { unsafe { info.si_pid() } } else { 0 }
    };
    loop {
        // Looked at first: P_ALL would take the child too.
        match libc::id_t::try_from(reap(libc::P_ALL, 0, libc::WNOWAIT)) {
            Ok(pid) if pid != 0 && Pid::from_raw(pid as i32) != Some(child) => {
                reap(libc::P_PID, pid, 0);
            }
            _ => return,
        }
    }
}

/// Starts a program: signals default and unblocked, killed if we die.
///
/// # Errors
/// pipe2, fcntl, clone; and from the child's side chdir or execve of the program.
pub fn spawn(program: &Program<'_>) -> Result<Child> {
    start(program, true)
}

/// As [`spawn()`], but the program goes on when we die: for one that must undo or complete what it began, as
/// CRIU, which has stopped others' processes and locked their network.
///
/// # Errors
/// As [`spawn()`].
pub fn spawn_surviving(program: &Program<'_>) -> Result<Child> {
    start(program, false)
}

fn start(program: &Program<'_>, dies_with_us: bool) -> Result<Child> {
    let count = RawFd::try_from(program.fds.len()).unwrap_or(RawFd::MAX);
    // Above every target number, so that dup3 in the child cannot overwrite one still to be moved.
    let above = |fd: BorrowedFd<'_>| fcntl_dupfd_cloexec(fd, count).named("fcntl");
    let sources = program.fds.iter().map(|fd| above(*fd)).collect::<Result<Vec<_>>>()?;
    let (report, tell) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).named("pipe2")?;
    let high = above(tell.as_fd())?;
    // Our copies must go, or the read below never ends.
    drop(tell);
    let tell = high;

    let argv = pointers(program.argv, Some(program.path));
    let envp = pointers(program.envp, None);
    let image = Image {
        path: program.path,
        argv: &argv,
        envp: &envp,
        cwd: program.cwd,
        sources: &sources,
        tell: tell.as_raw_fd(),
        group: program.group,
        dies_with_us,
        open_files: rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX),
    };
    let child = clone_into(&image)?;
    drop((tell, sources));

    let mut message = [0u8; 8];
    let n = loop {
        match rustix::io::read(&report, &mut message) {
            Err(Errno::INTR) => {}
            other => break other.named("read")?,
        }
    };
    if n == 0 {
        return Ok(child);
    }
    let [a, b, c, d, call, ..] = message;
    let call = match call {
        b'c' => "chdir",
        b'd' => "dup2",
        _ => "execve",
    };
    // Dropping the child reaps it.
    Err(SysError { call, errno: Errno::from_raw_os_error(i32::from_ne_bytes([a, b, c, d])) })
}

/// A NULL-terminated vector of pointers into `strings`, or into `or` if there are none.
fn pointers(strings: &[CString], or: Option<&CStr>) -> Vec<*const libc::c_char> {
    let or = or.filter(|_| strings.is_empty());
    strings.iter().map(|s| s.as_ptr()).chain(or.map(CStr::as_ptr)).chain([std::ptr::null()]).collect()
}

/// All that the child needs, made before it exists: it must not allocate.
struct Image<'a> {
    path: &'a CStr,
    argv: &'a [*const libc::c_char],
    envp: &'a [*const libc::c_char],
    cwd: Option<&'a CStr>,
    sources: &'a [OwnedFd],
    tell: RawFd,
    group: bool,
    dies_with_us: bool,
    open_files: u64,
}

fn clone_into(image: &Image<'_>) -> Result<Child> {
    // SAFETY: sigset_t is plain data, filled by sigfillset before it is read.
    let mut all: libc::sigset_t = unsafe { std::mem::zeroed() };
    let mut old = all;
    // A signal must not run one of our handlers in the child before they are reset there.
    // SAFETY: both point to live sigset_t.
    unsafe {
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut old);
    }
    let mut pidfd: libc::c_int = -1;
    // clone and not clone3: container engines' seccomp profiles refuse the latter to a nested runtime. The
    // first three arguments are in the same order on x86_64, aarch64 and riscv64, the rest are unused here.
    // SAFETY: without CLONE_VM and with no stack given it is a fork; the pidfd is stored before it returns.
    let pid = unsafe {
        libc::syscall(
            libc::SYS_clone,
            libc::CLONE_PIDFD as libc::c_ulong | libc::SIGCHLD as libc::c_ulong,
            std::ptr::null_mut::<libc::c_void>(),
            &raw mut pidfd,
            0usize,
            0usize,
        )
    };
    if pid == 0 {
        become_program(image);
    }
    let cloned = check("clone", pid);
    // SAFETY: `old` was filled above.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const old, std::ptr::null_mut()) };
    let pid = i32::try_from(cloned?).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or(SysError { call: "clone", errno: Errno::INVAL })?;
    // SAFETY: the kernel stored a new fd, close-on-exec, that nobody else owns.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Child { pid, pidfd, group: image.group, reaped: false })
}

/// The child: only async-signal-safe calls until execve.
fn become_program(image: &Image<'_>) -> ! {
    let fail = |call: u8| -> ! {
        let errno = Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL);
        let [a, b, c, d] = errno.raw_os_error().to_ne_bytes();
        let message = [a, b, c, d, call, 0, 0, 0];
        // SAFETY: the buffer is live; _exit runs no destructor of the parent's copy.
        unsafe {
            libc::write(image.tell, message.as_ptr().cast(), message.len());
            libc::_exit(127)
        }
    };
    // The kernel's sigaction is at most this long (riscv64 has no restorer), and all zero is SIG_DFL, no
    // flags, an empty mask. Not libc's call, which refuses signals 32 and 33, though a parent may hand
    // those down ignored.
    let default = [0u64; 4];
    for signal in 1..=64 {
        // Handlers fall with execve, ignored signals do not. KILL and STOP refuse: no matter.
        // SAFETY: `default` is live; the set it ends with is 8 bytes, as said.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                std::ptr::null_mut::<u8>(),
                8usize,
            )
        };
    }
    // SAFETY: numbers and live fds of this process alone; failures of the first two cannot happen here.
    unsafe {
        if image.group {
            libc::setpgid(0, 0);
        }
        if image.dies_with_us {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong, 0, 0, 0);
        }
        for (target, source) in image.sources.iter().enumerate() {
            if libc::dup2(source.as_raw_fd(), target as RawFd) == -1 {
                fail(b'd');
            }
        }
        let first = image.sources.len() as libc::c_uint;
        if libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) == -1 {
            // Before Linux 5.11, or refused by a filter.
            for fd in first..image.open_files.min(65536) as libc::c_uint {
                libc::fcntl(fd as RawFd, libc::F_SETFD, libc::FD_CLOEXEC);
            }
        }
    }
    // SAFETY: the path is NUL-terminated.
    if image.cwd.is_some_and(|cwd| unsafe { libc::chdir(cwd.as_ptr()) } == -1) {
        fail(b'c');
    }
    // SAFETY: the vectors end in NULL and point to NUL-terminated strings that live in the caller; an empty
    // set of signals is all zero.
    unsafe {
        let none: libc::sigset_t = std::mem::zeroed();
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
        libc::execve(image.path.as_ptr(), image.argv.as_ptr(), image.envp.as_ptr());
    }
    fail(b'e')
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn run(argv: &[&str], cwd: Option<&CStr>) -> (Exit, String) {
        let argv: Vec<CString> = argv.iter().map(|s| CString::new(*s).unwrap()).collect();
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let null = std::fs::File::open("/dev/null").unwrap();
        let fds = [null.as_fd(), write.as_fd(), write.as_fd()];
        let env = [c"A=b".to_owned()];
        let mut child =
            spawn(&Program { path: c"/bin/sh", argv: &argv, envp: &env, cwd, fds: &fds, group: true })
                .unwrap();
        drop(write);
        let mut out = String::new();
        std::fs::File::from(read).read_to_string(&mut out).unwrap();
        (child.wait().unwrap(), out)
    }

    #[test]
    fn the_program_gets_its_environment_directory_and_fds_and_no_others() {
        let leak = std::fs::File::open("/dev/zero").unwrap();
        rustix::io::fcntl_setfd(&leak, rustix::io::FdFlags::empty()).unwrap();
        let (exit, out) = run(&["sh", "-c", "echo $A; pwd; cd /proc/self/fd; echo *; exit 7"], Some(c"/usr"));
        assert_eq!(exit, Exit::Code(7));
        // 3 is the directory that the shell itself reads for the `*`.
        assert_eq!(out, "b\n/usr\n0 1 2 3\n");
    }

    #[test]
    fn signals_are_neither_blocked_nor_ignored() {
        // The test harness ignores SIGPIPE, as every Rust program does.
        let (_, out) = run(&["sh", "-c", "grep -E '^Sig(Blk|Ign)' /proc/self/status"], None);
        assert_eq!(out, "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
    }

    #[test]
    fn a_failure_of_the_child_names_its_call() {
        let of = |path, cwd| {
            spawn(&Program { path, argv: &[], envp: &[], cwd, fds: &[], group: true }).unwrap_err()
        };
        assert_eq!(of(c"/nonexistent", None), SysError { call: "execve", errno: Errno::NOENT });
        assert_eq!(of(c"/etc/passwd", None), SysError { call: "execve", errno: Errno::ACCESS });
        assert_eq!(of(c"/bin/true", Some(c"/nonexistent")), SysError { call: "chdir", errno: Errno::NOENT });
    }

    #[test]
    fn a_signal_is_told_from_a_code() {
        let (exit, _) = run(&["sh", "-c", "kill -TERM $$"], None);
        assert_eq!(exit, Exit::Signal(libc::SIGTERM));
        assert_eq!(exit.status(), 143);
    }

    #[test]
    fn dropping_a_child_kills_its_whole_group() {
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let argv = ["sh", "-c", "sleep 1000 & sleep 1000"].map(|s| CString::new(s).unwrap());
        let fds = [write.as_fd(), write.as_fd(), write.as_fd()];
        let program = Program { path: c"/bin/sh", argv: &argv, envp: &[], cwd: None, fds: &fds, group: true };
        let child = spawn(&program).unwrap();
        drop((child, write));
        // EOF comes when the last process with the write end is gone.
        assert_eq!(rustix::io::read(&read, &mut [0u8; 1]), Ok(0));
    }
}
