//! A command under ptrace(2): the system calls of each of its processes, and what comes of it when one of them is the
//! last, or fails.
//!
//! strace's injection counts the calls of each process alone, so that a child's call cannot be aimed at without its
//! parent's of that number, and it prints what it sees, which these sweeps would do a million times.

use crate::harness::{Run, Test, is_rrun, patiently};
use nix::errno::Errno;
use nix::libc::{PTRACE_EVENT_CLONE, PTRACE_EVENT_EXEC, PTRACE_EVENT_FORK, PTRACE_EVENT_VFORK};
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::collections::HashMap;
use std::fmt;
use std::fs::{self, File};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;
use syscalls::Sysno;

#[cfg(not(target_arch = "x86_64"))]
compile_error!("the registers are x86_64's");

/// After which a command hangs.
const LIMIT: Duration = Duration::from_secs(5);

/// What main does first: it ignores SIGXFSZ. Each time it is executed, as it executes itself again as a sealed copy.
const FIRST: (Sysno, u64) = (Sysno::rt_sigaction, Signal::SIGXFSZ as u64);

/// One system call of one process: the `nth` of its kind, from 1, since the runtime was executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Point {
    /// 0 is the runtime's own process; its descendants count from 1 in the order they were made.
    pub process: usize,
    pub call: Sysno,
    pub nth: u32,
    /// Made by rrun's own code: not by libc and Rust's runtime, which come before main, and which end with the
    /// program or a panic where the kernel refuses them what they need.
    pub own: bool,
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.process {
            0 => write!(f, "{} #{}", self.call, self.nth),
            child => write!(f, "{} #{} of child {child}", self.call, self.nth),
        }
    }
}

/// What is done to a [`Point`].
#[derive(Debug, Clone, Copy)]
pub enum Deed {
    /// SIGKILL to the process before the call is made.
    Kill,
    /// Another signal to the process, which makes the call.
    Signal(Signal),
    /// The call is not made and gives this errno.
    Fail(Errno),
}

/// What came of a command.
#[derive(Debug)]
pub struct Traced {
    /// In the order in which they were made, up to the execution of another program by a child.
    pub points: Vec<Point>,
    /// Whether the process came to the point.
    pub reached: bool,
    pub end: WaitStatus,
    /// It did not end by itself.
    pub hung: bool,
    pub stdout: String,
    pub stderr: String,
}

impl Traced {
    pub fn succeeded(&self) -> bool {
        matches!(self.end, WaitStatus::Exited(_, 0))
    }
}

#[derive(Default)]
struct Tracee {
    process: usize,
    /// Between the entry into a system call and the return from it; `Some` with the errno that it has to give.
    within: bool,
    fails: Option<Errno>,
}

/// Runs a command of `t`'s to its end. `init` is a process that is there already and plays the part of child 1.
pub fn trace(t: &Test, run: Run<'_>, init: Option<u32>, aim: Option<(Point, Deed)>) -> Traced {
    let (out, err) = (t.dir.join("traced.out"), t.dir.join("traced.err"));
    // It stops itself, so that it can be seized before it is the runtime.
    let mut command = run.through("kill -STOP $$; exec \"$@\"").command();
    // What Rust's runtime says beside a panic is not asked for here.
    command.stdin(Stdio::null()).env("RUST_BACKTRACE", "0");
    command.stdout(File::create(&out).unwrap()).stderr(File::create(&err).unwrap());

    let hung = AtomicBool::new(false);
    // A thread of its own: all that it traces goes free when it ends.
    let (points, reached, end) = std::thread::scope(|scope| {
        let (ended, watch) = mpsc::channel::<()>();
        let (pid, started) = mpsc::channel();
        let (hung, command) = (&hung, &mut command);
        let tracer = scope.spawn(move || {
            let _ended = ended;
            #[expect(clippy::zombie_processes, reason = "the tracer waits for it")]
            let child = command.spawn().unwrap();
            let root = Pid::from_raw(child.id().cast_signed());
            pid.send(root).unwrap();
            follow(root, init, aim)
        });
        let root = started.recv().unwrap();
        if watch.recv_timeout(patiently(LIMIT)) == Err(mpsc::RecvTimeoutError::Timeout) {
            println!("    it hung: {}", standing(root));
            hung.store(true, Ordering::Relaxed);
            let _ = kill(root, Signal::SIGKILL);
        }
        tracer.join().unwrap()
    });
    let text = |path| String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned();
    Traced { points, reached, end, hung: hung.into_inner(), stdout: text(&out), stderr: text(&err) }
}

fn follow(root: Pid, init: Option<u32>, aim: Option<(Point, Deed)>) -> (Vec<Point>, bool, WaitStatus) {
    assert_eq!(waitpid(root, Some(WaitPidFlag::WUNTRACED)), Ok(WaitStatus::Stopped(root, Signal::SIGSTOP)));
    let options = Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEEXEC;
    ptrace::seize(root, options).unwrap();
    kill(root, Signal::SIGCONT).unwrap();
    let mut tracees = HashMap::from([(root, Tracee::default())]);
    let mut processes = 1;
    if let Some(init) = init.map(|pid| Pid::from_raw(pid.cast_signed())) {
        ptrace::seize(init, options).unwrap();
        ptrace::interrupt(init).unwrap();
        tracees.insert(init, Tracee { process: 1, ..Tracee::default() });
        processes = 2;
    }
    let mut counts: HashMap<(usize, i64), u32> = HashMap::new();
    let (mut points, mut reached, mut begun, mut own) = (Vec::new(), false, false, false);
    loop {
        // Of this thread's children and tracees alone: other tests have theirs.
        let status = match waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD)) {
            Err(Errno::EINTR) => continue,
            other => other.unwrap(),
        };
        let Some(pid) = status.pid() else { continue };
        // A child may be seen before its parent's call has returned; a thread is of its process.
        if !tracees.contains_key(&pid) {
            let process = tracees.get(&group(pid)).map_or_else(
                || {
                    processes += 1;
                    processes - 1
                },
                |leader| leader.process,
            );
            tracees.insert(pid, Tracee { process, ..Tracee::default() });
        }
        let Some(tracee) = tracees.get_mut(&pid) else { continue };
        let mut signal = None;
        match status {
            WaitStatus::Exited(..) | WaitStatus::Signaled(..) if pid == root => {
                return (points, reached, status);
            }
            WaitStatus::Exited(..) | WaitStatus::Signaled(..) => {
                tracees.remove(&pid);
                continue;
            }
            WaitStatus::PtraceEvent(_, _, PTRACE_EVENT_EXEC) if tracee.process == 0 => {
                begun = true;
                own = !is_rrun();
            }
            WaitStatus::PtraceEvent(_, _, PTRACE_EVENT_EXEC) => {
                tracees.remove(&pid);
                let _ = ptrace::detach(pid, None);
                continue;
            }
            WaitStatus::PtraceEvent(_, _, PTRACE_EVENT_CLONE | PTRACE_EVENT_FORK | PTRACE_EVENT_VFORK) => {}
            WaitStatus::PtraceSyscall(_) if tracee.within => {
                tracee.within = false;
                if let (Some(errno), Ok(mut regs)) = (tracee.fails.take(), ptrace::getregs(pid)) {
                    regs.rax = i64::from(-(errno as i32)).cast_unsigned();
                    let _ = ptrace::setregs(pid, regs);
                }
            }
            WaitStatus::PtraceSyscall(_) => {
                tracee.within = true;
                // The calls of an init that was there before count from here on: the one that it waits in begins anew, before
                // the runtime is executed or after.
                let was_there = init.is_some() && tracee.process == 1;
                if let (true, Ok(mut regs)) = (begun || was_there, ptrace::getregs(pid)) {
                    let number = regs.orig_rax.cast_signed();
                    let count = counts.entry((tracee.process, number)).or_insert(0);
                    *count += 1;
                    let call = usize::try_from(number).ok().and_then(Sysno::new);
                    if let Some(call) = call {
                        own = own || !was_there && (call, regs.rdi) == FIRST;
                        let point =
                            Point { process: tracee.process, call, nth: *count, own: own || was_there };
                        points.push(point);
                        match aim {
                            Some((at, deed)) if at == point => {
                                reached = true;
                                match deed {
                                    Deed::Kill => {
                                        let _ = kill(pid, Signal::SIGKILL);
                                        continue;
                                    }
                                    Deed::Signal(signal) => {
                                        let _ = kill(pid, signal);
                                    }
                                    Deed::Fail(errno) => {
                                        tracee.fails = Some(errno);
                                        // On Linux a close that fails has closed all the same.
                                        if !matches!(call, Sysno::close | Sysno::close_range) {
                                            // No call has this number.
                                            regs.orig_rax = u64::MAX;
                                            let _ = ptrace::setregs(pid, regs);
                                        }
                                    }
                                }
                            }
                            _ => {}
                        }
                    }
                }
            }
            WaitStatus::Stopped(_, sent) => signal = Some(sent),
            _ => {}
        }
        // What comes after the point need not be seen, but for the end of it.
        let goes_on = if reached && tracee.fails.is_none() { ptrace::cont } else { ptrace::syscall };
        // ESRCH: it was killed meanwhile, which is told next.
        let _ = goes_on(pid, signal);
    }
}

/// Where a process stands that has not ended: the kernel's function that it waits in, or how long of its life no processor was
/// free for it, which on a loaded machine is what took the time.
fn standing(pid: Pid) -> String {
    let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let status = read("status");
    let state = status.lines().find_map(|line| line.strip_prefix("State:")).unwrap_or(" gone").trim();
    // schedstat (sched-stats.rst): nanoseconds on a processor, nanoseconds waiting for one, times.
    let waited = read("schedstat").split(' ').nth(1).and_then(|n| n.parse().ok()).map(Duration::from_nanos);
    format!("{state} in {:?}, {:?} without a processor", read("wchan"), waited.unwrap_or_default())
}

/// The process of a thread.
fn group(thread: Pid) -> Pid {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).unwrap_or_default();
    let id = status.lines().find_map(|line| line.strip_prefix("Tgid:")?.trim().parse().ok());
    id.map_or(thread, Pid::from_raw)
}
