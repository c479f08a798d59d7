//! System calls as data, and the few instructions that make them, which need nothing else of the program.
//!
//! The last steps of a launch are a [`Script`], so that they can be taken where no page of rrun's file is mapped any
//! more ([`Script::forget_program`], [`crate::exe`]): it would take as long to copy the pages as all else in a launch. What
//! a script may do is what the methods here add to it; whoever builds one writes no address.
//!
//! A line makes one call. It goes on with the next line, or with the one that [`Script::then`] says; where the call
//! fails, with the one that [`Script::or`] says, or [`Script::or_tell`] with a message that gets the errno. A call that
//! a signal interrupts is made again.

#![allow(unsafe_code)]

use super::image::{self, MemoryMap};
use super::task::{CAP_VERSION, CapData, CapHeader, CapSets, SchedAttr};
use super::{Result, check};
use rustix::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::ffi::{CStr, CString};

/// One line; the instructions below know the offsets.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct Line {
    /// The number of the call, or one of [`TEST`], [`COUNT`] and [`LEAVE`].
    number: usize,
    arguments: [usize; 6],
    /// Bit N: argument N is where the argument lies.
    indirect: usize,
    /// Where the result goes.
    result: *mut usize,
    then: *const Line,
    or: *const Line,
    /// The message of a failure.
    fault: *mut u8,
}

const LINE: usize = size_of::<Line>();
const _: () = assert!(LINE == 96);

/// Whether the 32 bits at the first argument are the second.
const TEST: usize = usize::MAX;
/// Takes one from the 32 bits at the first argument; fails when none are left.
const COUNT: usize = usize::MAX - 1;
/// Returns from [`Script::run`].
const LEAVE: usize = usize::MAX - 2;

/// What the instructions write beside the results.
#[repr(C)]
#[derive(Debug, Default)]
struct Last {
    /// The message of the last failure that had one.
    fault: usize,
    /// The errno of the last failure.
    errno: usize,
}

/// Where in a message its errno belongs.
pub const ERRNO_AT: usize = 4;

#[cfg(target_arch = "x86_64")]
std::arch::global_asm!(
    ".pushsection .text.rrun_script, \"ax\", @progbits",
    ".globl rrun_script_begin, rrun_script_ended_by, rrun_script_end",
    ".p2align 4",
    // rdi: the first line, rsi: Last
    "rrun_script_begin:",
    "push rbx",
    "push rbp",
    "mov rbx, rdi",
    "mov rbp, rsi",
    "2:",
    "mov rax, [rbx]",
    "cmp rax, -1",
    "je 5f",
    "cmp rax, -2",
    "je 6f",
    "cmp rax, -3",
    "je 8f",
    "mov rcx, [rbx + 56]",
    "mov rdi, [rbx + 8]",
    "test cl, 1",
    "jz 31f",
    "mov rdi, [rdi]",
    "31:",
    "mov rsi, [rbx + 16]",
    "test cl, 2",
    "jz 32f",
    "mov rsi, [rsi]",
    "32:",
    "mov rdx, [rbx + 24]",
    "test cl, 4",
    "jz 33f",
    "mov rdx, [rdx]",
    "33:",
    "mov r10, [rbx + 32]",
    "mov r8, [rbx + 40]",
    "mov r9, [rbx + 48]",
    "syscall",
    "cmp rax, -4", // EINTR
    "je 2b",
    "cmp rax, -4095",
    "jae 4f",
    "mov rdx, [rbx + 64]",
    "test rdx, rdx",
    "jz 3f",
    "mov [rdx], rax",
    "3:", // then
    "mov rbx, [rbx + 72]",
    "jmp 2b",
    "4:", // or
    "neg rax",
    "mov [rbp + 8], rax",
    "mov rdx, [rbx + 88]",
    "test rdx, rdx",
    "jz 7f",
    "mov [rdx + 4], eax",
    "mov [rbp], rdx",
    "jmp 7f",
    "5:", // TEST
    "mov rdx, [rbx + 8]",
    "mov eax, [rdx]",
    "cmp eax, [rbx + 16]",
    "je 3b",
    "jmp 61f",
    "6:", // COUNT
    "mov rdx, [rbx + 8]",
    "dec dword ptr [rdx]",
    "jnz 3b",
    "61:",
    "mov rdx, [rbx + 88]",
    "test rdx, rdx",
    "jz 7f",
    "mov [rbp], rdx",
    "7:",
    "mov rbx, [rbx + 80]",
    "jmp 2b",
    "8:", // LEAVE
    "pop rbp",
    "pop rbx",
    "ret",
    // The handler of a signal.
    "rrun_script_ended_by:",
    "add edi, 128",
    "mov eax, 231", // exit_group
    "syscall",
    "rrun_script_end:",
    ".popsection",
);

#[cfg(target_arch = "x86_64")]
unsafe extern "C" {
    fn rrun_script_begin(first: *const Line, last: *mut Last);
    static rrun_script_ended_by: u8;
    static rrun_script_end: u8;
}

/// The same elsewhere, where [`Script::forget_program`] does not need it as instructions yet.
#[cfg(not(target_arch = "x86_64"))]
unsafe fn rrun_script_begin(mut line: *const Line, last: *mut Last) {
    // SAFETY: as of `Script::run`, whose lines these are.
    unsafe {
        loop {
            let Line { number, arguments: [a, b, c, d, e, f], indirect, result, then, or, fault } = *line;
            let worked = match number {
                TEST => *(a as *const u32) == b as u32,
                COUNT => {
                    *(a as *mut u32) -= 1;
                    *(a as *const u32) != 0
                }
                LEAVE => return,
                _ => {
                    let of =
                        |bit, a| if indirect & bit == 0 { a } else { (a as *const usize).read_unaligned() };
                    match libc::syscall(number as libc::c_long, of(1, a), of(2, b), of(4, c), d, e, f) {
                        -1 => {
                            let errno = *libc::__errno_location();
                            if errno == libc::EINTR {
                                continue;
                            }
                            (*last).errno = errno as usize;
                            if !fault.is_null() {
                                fault.add(ERRNO_AT).cast::<i32>().write_unaligned(errno);
                            }
                            false
                        }
                        value => {
                            if !result.is_null() {
                                result.write_unaligned(value as usize);
                            }
                            true
                        }
                    }
                }
            };
            if !worked && !fault.is_null() {
                (*last).fault = fault as usize;
            }
            line = if worked { then } else { or };
        }
    }
}

/// A place of a script, to go on at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Label(usize);

/// A piece of a script's memory.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    address: usize,
    length: usize,
}

/// A descriptor that is open when the script is built, or one that it opens: the result of a line.
#[derive(Debug, Clone, Copy)]
pub enum Fd {
    /// This number.
    Open(i32),
    /// The result that lies here.
    Result(Place),
}

impl<T: AsFd> From<&T> for Fd {
    fn from(fd: &T) -> Self {
        Self::Open(fd.as_fd().as_raw_fd())
    }
}

/// Lines, and all that they point to.
#[derive(Debug, Default)]
pub struct Script {
    lines: Vec<Line>,
    /// The labels of `then` and `or` of each line; usize::MAX is the next line.
    ways: Vec<[usize; 2]>,
    /// The line of each label.
    labels: Vec<usize>,
    memory: Vec<Box<[u64]>>,
    last: Box<Last>,
    /// Where a line goes on that fails and says nothing of that; the next one, without a label.
    otherwise: Option<Label>,
    /// The instructions, if not those of the program.
    alone: Option<Instructions>,
}

/// The instructions in memory of their own.
#[derive(Debug)]
struct Instructions {
    begin: usize,
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    ended_by: usize,
}

const NEXT: usize = usize::MAX;

impl Script {
    /// A label for a line to come.
    pub fn label(&mut self) -> Label {
        self.labels.push(NEXT);
        Label(self.labels.len() - 1)
    }

    /// The label is the next line's.
    pub fn at(&mut self, label: Label) -> &mut Self {
        self.labels[label.0] = self.lines.len();
        self
    }

    /// Where the lines from here on go on if they fail.
    pub fn otherwise(&mut self, label: Label) -> &mut Self {
        self.otherwise = Some(label);
        self
    }

    /// The last line goes on there.
    pub fn then(&mut self, label: Label) -> &mut Self {
        if let Some([then, _]) = self.ways.last_mut() {
            *then = label.0;
        }
        self
    }

    /// The last line goes on there if it fails.
    pub fn or(&mut self, label: Label) -> &mut Self {
        if let Some([_, or]) = self.ways.last_mut() {
            *or = label.0;
        }
        self
    }

    /// The last line goes on with the next one also if it fails.
    pub fn or_not(&mut self) -> &mut Self {
        if let Some([_, or]) = self.ways.last_mut() {
            *or = NEXT;
        }
        self
    }

    /// If the last line fails, the fault to be sent is this message, with the errno at [`ERRNO_AT`] if it was a call.
    pub fn or_tell(&mut self, message: &[u8]) -> &mut Self {
        let place = self.bytes(message);
        if let Some(line) = self.lines.last_mut() {
            line.fault = place.address as *mut u8;
        }
        self
    }

    /// The result of the last line goes into a word of its own.
    pub fn result(&mut self) -> Place {
        let place = self.memory(size_of::<usize>());
        self.result_in(place);
        place
    }

    /// The result of the last line goes where that of an earlier line does.
    pub fn result_in(&mut self, place: Place) {
        if let Some(line) = self.lines.last_mut() {
            line.result = place.address as *mut usize;
        }
    }

    /// Memory for a message to be read.
    pub fn buffer(&mut self, length: usize) -> Place {
        self.memory(length)
    }

    /// A number to count down from.
    pub fn counter(&mut self, from: u32) -> Place {
        self.bytes(&u64::from(from).to_ne_bytes())
    }

    /// The descriptor that a line has opened, when [`Script::run`] has returned.
    ///
    /// # Errors
    /// EBADF: it has not.
    pub fn opened(&self, fd: Fd) -> Result<OwnedFd> {
        let number = match fd {
            Fd::Open(number) => number,
            // SAFETY: a place is memory of this script, which lives, and at least a word.
            Fd::Result(place) => unsafe { (place.address as *const i32).read_unaligned() },
        };
        super::launch::inherited(number)
    }

    fn memory(&mut self, length: usize) -> Place {
        let mut words = vec![0_u64; length.div_ceil(8).max(1)].into_boxed_slice();
        let address = words.as_mut_ptr() as usize;
        self.memory.push(words);
        Place { address, length }
    }

    fn bytes(&mut self, bytes: &[u8]) -> Place {
        let place = self.memory(bytes.len());
        // SAFETY: `memory` has just made as many bytes, which nobody else refers to.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), place.address as *mut u8, bytes.len()) };
        place
    }

    fn words(&mut self, words: &[usize]) -> Place {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        self.bytes(&bytes)
    }

    fn line(&mut self, number: usize, arguments: &[usize]) -> &mut Self {
        let mut all = [0; 6];
        for (slot, argument) in all.iter_mut().zip(arguments) {
            *slot = *argument;
        }
        self.lines.push(Line {
            number,
            arguments: all,
            indirect: 0,
            result: std::ptr::null_mut(),
            then: std::ptr::null(),
            or: std::ptr::null(),
            fault: std::ptr::null_mut(),
        });
        self.ways.push([NEXT, self.otherwise.map_or(NEXT, |label| label.0)]);
        self
    }

    fn call(&mut self, number: libc::c_long, arguments: &[usize]) -> &mut Self {
        self.line(number as usize, arguments)
    }

    /// A call whose first argument is a descriptor.
    fn on(&mut self, number: libc::c_long, fd: Fd, rest: &[usize]) -> &mut Self {
        let (first, indirect) = match fd {
            Fd::Open(number) => (number as usize, 0),
            Fd::Result(place) => (place.address, 1),
        };
        let arguments: Vec<usize> = std::iter::once(first).chain(rest.iter().copied()).collect();
        self.call(number, &arguments);
        self.indirect(indirect)
    }

    fn indirect(&mut self, bits: usize) -> &mut Self {
        if let Some(line) = self.lines.last_mut() {
            line.indirect |= bits;
        }
        self
    }

    /// Fails unless the first 32 bits there are these.
    pub fn test(&mut self, place: Place, value: u32) -> &mut Self {
        self.line(TEST, &[place.address, value as usize])
    }

    /// Fails unless the last failure had this errno.
    pub fn test_errno(&mut self, errno: i32) -> &mut Self {
        let place = Place { address: std::ptr::from_ref(&self.last.errno) as usize, length: 8 };
        self.test(place, errno as u32)
    }

    /// Takes one from a counter; fails when nothing is left.
    pub fn count(&mut self, counter: Place) -> &mut Self {
        self.line(COUNT, &[counter.address])
    }

    /// [`Script::run`] returns.
    pub fn leave(&mut self) -> &mut Self {
        self.line(LEAVE, &[])
    }

    /// Sends a message whose first bytes may be the result of a line before, without SIGPIPE.
    pub fn send(&mut self, socket: Fd, message: Place) -> &mut Self {
        let flags = libc::MSG_NOSIGNAL as usize;
        self.on(libc::SYS_sendto, socket, &[message.address, message.length, flags])
    }

    /// Sends the message of the failure, of this length.
    pub fn send_fault(&mut self, socket: Fd, length: usize) -> &mut Self {
        let fault = std::ptr::from_ref(&self.last.fault) as usize;
        self.on(libc::SYS_sendto, socket, &[fault, length, libc::MSG_NOSIGNAL as usize]).indirect(2)
    }

    /// As [`Script::send_fault`] by write(2), for a process that a filter confines.
    pub fn write_fault(&mut self, socket: Fd, length: usize) -> &mut Self {
        let fault = std::ptr::from_ref(&self.last.fault) as usize;
        self.on(libc::SYS_write, socket, &[fault, length]).indirect(2)
    }

    /// A message to be sent.
    pub fn message(&mut self, bytes: &[u8]) -> Place {
        self.bytes(bytes)
    }

    /// The result of the last line goes into this message, at [`ERRNO_AT`].
    pub fn result_into(&mut self, message: Place) -> &mut Self {
        self.result_in(Place { address: message.address + ERRNO_AT, length: 8 });
        self
    }

    /// The descriptor of which [`Script::result_into`] has put the number into this message.
    pub fn number_in(&self, message: Place) -> Fd {
        Fd::Result(Place { address: message.address + ERRNO_AT, length: 8 })
    }

    /// write(2)
    pub fn write(&mut self, fd: Fd, bytes: Place) -> &mut Self {
        self.on(libc::SYS_write, fd, &[bytes.address, bytes.length])
    }

    /// read(2)
    pub fn read(&mut self, fd: Fd, buffer: Place) -> &mut Self {
        self.on(libc::SYS_read, fd, &[buffer.address, buffer.length])
    }

    /// close(2)
    pub fn close(&mut self, fd: Fd) -> &mut Self {
        self.on(libc::SYS_close, fd, &[])
    }

    /// A second descriptor of the same file, close-on-exec.
    pub fn duplicate(&mut self, fd: Fd) -> &mut Self {
        self.on(libc::SYS_fcntl, fd, &[libc::F_DUPFD_CLOEXEC as usize, 0])
    }

    /// accept4(2)
    pub fn accept(&mut self, listener: Fd) -> &mut Self {
        self.on(libc::SYS_accept4, listener, &[0, 0, libc::SOCK_CLOEXEC as usize])
    }

    /// sched_yield(2)
    pub fn sched_yield(&mut self) -> &mut Self {
        self.call(libc::SYS_sched_yield, &[])
    }

    /// setsid(2)
    pub fn setsid(&mut self) -> &mut Self {
        self.call(libc::SYS_setsid, &[])
    }

    /// Makes the terminal that standard input is the controlling one (ioctl_tty(2), TIOCSCTTY).
    pub fn set_controlling_terminal(&mut self) -> &mut Self {
        self.call(libc::SYS_ioctl, &[0, libc::TIOCSCTTY as usize, 0])
    }

    /// exit_group(2)
    pub fn exit(&mut self, status: i32) -> &mut Self {
        self.call(libc::SYS_exit_group, &[status as usize])
    }

    /// prlimit(2) on itself.
    pub fn prlimit(&mut self, resource: u32, soft: u64, hard: u64) -> &mut Self {
        let limit = self.bytes(&[soft.to_ne_bytes(), hard.to_ne_bytes()].concat());
        self.call(libc::SYS_prlimit64, &[0, resource as usize, limit.address, 0])
    }

    /// sched_setattr(2) on itself.
    pub fn sched_setattr(&mut self, attr: SchedAttr) -> &mut Self {
        let SchedAttr {
            policy, flags, nice, priority, runtime, deadline, period, util_min, util_max, ..
        } = attr;
        let size = size_of::<SchedAttr>() as u32;
        let mut bytes = Vec::new();
        bytes.extend([size, policy].into_iter().flat_map(u32::to_ne_bytes));
        bytes.extend(flags.to_ne_bytes());
        bytes.extend([nice as u32, priority].into_iter().flat_map(u32::to_ne_bytes));
        bytes.extend([runtime, deadline, period].into_iter().flat_map(u64::to_ne_bytes));
        bytes.extend([util_min, util_max].into_iter().flat_map(u32::to_ne_bytes));
        let attr = self.bytes(&bytes);
        self.call(libc::SYS_sched_setattr, &[0, attr.address, 0])
    }

    /// capset(2)
    pub fn capset(&mut self, sets: CapSets) -> &mut Self {
        let CapHeader { version, pid } = CapHeader { version: CAP_VERSION, pid: 0 };
        let header = self.bytes(&[version.to_ne_bytes(), pid.to_ne_bytes()].concat());
        let words = |CapData { effective, permitted, inheritable }| [effective, permitted, inheritable];
        let data: Vec<u8> =
            sets.data().into_iter().flat_map(words).flat_map(|word: u32| word.to_ne_bytes()).collect();
        let data = self.bytes(&data);
        self.call(libc::SYS_capset, &[header.address, data.address])
    }

    fn prctl(&mut self, option: i32, a: usize, b: usize) -> &mut Self {
        self.call(libc::SYS_prctl, &[option as usize, a, b, 0, 0])
    }

    /// no_new_privs
    pub fn no_new_privs(&mut self) -> &mut Self {
        self.prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0)
    }

    /// Empties the ambient set.
    pub fn ambient_clear(&mut self) -> &mut Self {
        self.prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as usize, 0)
    }

    /// Adds a capability to the ambient set.
    pub fn ambient_raise(&mut self, number: u32) -> &mut Self {
        self.prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE as usize, number as usize)
    }

    /// Loads a filter, for which it takes no_new_privs or CAP_SYS_ADMIN (seccomp(2)). With
    /// `SECCOMP_FILTER_FLAG_NEW_LISTENER` the result is the notification fd, which has O_CLOEXEC.
    pub fn seccomp(&mut self, program: &[crate::plan::seccomp::Insn], flags: u32) -> &mut Self {
        let words = program.iter().flat_map(|insn| {
            let [a, b] = insn.code.to_ne_bytes();
            let [c, d, e, f] = insn.k.to_ne_bytes();
            [a, b, insn.jt, insn.jf, c, d, e, f]
        });
        let insns = self.bytes(&words.collect::<Vec<u8>>());
        // `struct sock_fprog`: a u16 and, after padding, a pointer.
        let fprog =
            self.words(&[usize::from(u16::try_from(program.len()).unwrap_or(0)).to_le(), insns.address]);
        self.call(
            libc::SYS_seccomp,
            &[super::seccomp::SET_MODE_FILTER as usize, flags as usize, fprog.address],
        )
    }

    /// execve(2)
    pub fn execve(&mut self, program: &CStr, argv: &[CString], envp: &[CString]) -> &mut Self {
        let program = self.bytes(program.to_bytes_with_nul());
        let mut pointers = |list: &[CString]| {
            let mut all: Vec<usize> = Vec::with_capacity(list.len() + 1);
            all.extend(list.iter().map(|s| self.bytes(s.as_bytes_with_nul()).address));
            all.push(0);
            self.words(&all).address
        };
        let (argv, envp) = (pointers(argv), pointers(envp));
        self.call(libc::SYS_execve, &[program.address, argv, envp])
    }

    /// Makes a process with this one's parent (fork(2), CLONE_PARENT), in which the script goes on. This one sends
    /// `message`, with the pid at [`ERRNO_AT`] and a pidfd, and ends. The messages at `failed` are those of clone3(2) and
    /// of sendmsg(2).
    pub fn go_on_in_sibling(
        &mut self,
        socket: Fd,
        message: &[u8],
        [fault, unheard]: [&[u8]; 2],
        failed: Label,
    ) {
        const CLONE_ARGS: usize = 11;
        let message = self.bytes(message);
        let iov = self.words(&[message.address, message.length]);
        // `struct cmsghdr`: the length, SOL_SOCKET and SCM_RIGHTS, and the descriptor, which clone3 puts there.
        let (level, kind) = (u64::from(libc::SOL_SOCKET as u32), u64::from(libc::SCM_RIGHTS as u32));
        let level_and_kind =
            if cfg!(target_endian = "little") { level | kind << 32 } else { level << 32 | kind };
        let control = self.words(&[20, level_and_kind as usize, 0]);
        let pidfd = Place { address: control.address + 16, length: 4 };
        let header = self.words(&[0, 0, iov.address, 1, control.address, 24, 0]);
        let flags = libc::CLONE_PARENT as usize | libc::CLONE_PIDFD as usize;
        let mut args = [0; CLONE_ARGS];
        args[0] = flags;
        args[1] = pidfd.address;
        let args = self.words(&args);
        let pid = Place { address: message.address + ERRNO_AT, length: 4 };

        let (older, made, parent, child) = (self.label(), self.label(), self.label(), self.label());
        self.call(libc::SYS_clone3, &[args.address, CLONE_ARGS * 8]).or_tell(fault).or(older).then(made);
        self.result_into(message);
        // As in `super::launch::clone3`.
        self.at(older).test_errno(libc::ENOSYS);
        self.call(libc::SYS_clone, &[flags, 0, pidfd.address, 0, 0]).or_tell(fault).result_into(message);
        self.at(made).test(pid, 0).then(child).or(parent);
        let alone = self.label();
        let flags = libc::MSG_NOSIGNAL as usize;
        self.at(parent).on(libc::SYS_sendmsg, socket, &[header.address, flags]).or_tell(unheard).or(alone);
        self.exit(0);
        // Nobody would ever tell that process to go on, nor wait for it.
        self.at(alone);
        let kill = libc::SIGKILL as usize;
        self.call(libc::SYS_pidfd_send_signal, &[pidfd.address, kill, 0, 0]).indirect(1);
        self.then(failed).or(failed);
        self.at(child);
    }

    /// Takes everything that is mapped of the program's file out of this process, and puts `exe` in the place of
    /// /proc/self/exe; the instructions go on in memory of their own. The messages are those of munmap(2) and of
    /// prctl(2).
    ///
    /// # Errors
    /// mmap(2), mprotect(2), for the instructions' own memory.
    pub fn forget_program(
        &mut self,
        layout: &MemoryMap,
        exe: impl AsFd,
        [unmap, replace]: [&[u8]; 2],
    ) -> Result<()> {
        self.alone = Some(Instructions::copied()?);
        let (start, length) = image::extent();
        self.call(libc::SYS_munmap, &[start, length]).or_tell(unmap);
        let map = layout.with(exe);
        let map = self.bytes(&map);
        let (option, size) = (libc::PR_SET_MM_MAP as usize, map.length);
        self.call(libc::SYS_prctl, &[libc::PR_SET_MM as usize, option, map.address, size, 0])
            .or_tell(replace);
        Ok(())
    }

    /// A handler of signals that ends the process with 128 and the signal's number, which stays when the program goes.
    pub(super) fn ended_by(&self) -> Option<usize> {
        self.alone.as_ref().map(|instructions| instructions.ended_by)
    }

    fn linked(&mut self) -> (*const Line, *mut Last) {
        let first = self.lines.as_mut_ptr();
        let count = self.lines.len();
        for (i, ways) in self.ways.iter().enumerate() {
            let [then, or] = ways.map(|label| match label {
                NEXT => i + 1,
                label => self.labels[label],
            });
            assert!(then < count && or < count, "line {i} leads nowhere");
            // SAFETY: `i`, `then` and `or` are lines of the vector, which does not grow any more.
            unsafe {
                (*first.add(i)).then = first.add(then);
                (*first.add(i)).or = first.add(or);
            }
        }
        (first, std::ptr::from_mut(&mut self.last))
    }

    /// Does what the lines say, until one of them says to leave.
    pub fn run(&mut self) {
        // The last line's way on is never taken.
        self.exit(1);
        if let Some(way) = self.ways.last_mut() {
            *way = [self.lines.len() - 1; 2].map(|last| {
                self.labels.push(last);
                self.labels.len() - 1
            });
        }
        let (first, last) = self.linked();
        // SAFETY: every address in the lines is of memory that the script owns, as long as the call may read or write
        // it, and every call was added by a method here, each of which is safe by itself. The one that unmaps the
        // program is run by instructions that lie elsewhere, and does not come back.
        unsafe {
            match &self.alone {
                None => rrun_script_begin(first, last),
                Some(instructions) => {
                    let run: unsafe extern "C" fn(*const Line, *mut Last) =
                        std::mem::transmute(instructions.begin);
                    run(first, last);
                }
            }
        }
    }
}

impl Instructions {
    /// A copy that nothing else lies beside; it stays until the process ends.
    #[cfg(target_arch = "x86_64")]
    fn copied() -> Result<Self> {
        let begin = rrun_script_begin as *const () as usize;
        let (ended_by, end) = (&raw const rrun_script_ended_by, &raw const rrun_script_end);
        let length = end as usize - begin;
        let none = std::ptr::null_mut::<u8>();
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let readable = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping, at least as long as what is copied into it, and nobody else's.
        unsafe {
            let page =
                check("mmap", libc::syscall(libc::SYS_mmap, none, length, readable, flags, -1, 0))? as usize;
            std::ptr::copy_nonoverlapping(begin as *const u8, page as *mut u8, length);
            let executable = libc::PROT_READ | libc::PROT_EXEC;
            check("mprotect", libc::syscall(libc::SYS_mprotect, page, length, executable))?;
            Ok(Self { begin: page, ended_by: page + (ended_by as usize - begin) })
        }
    }

    /// Nobody has written these instructions for this machine yet.
    #[cfg(not(target_arch = "x86_64"))]
    fn copied() -> Result<Self> {
        Err(super::SysError { call: "mmap", errno: rustix::io::Errno::NOSYS })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
    }

    fn receive(socket: &OwnedFd) -> Vec<u8> {
        let mut buffer = vec![0; 64];
        let length = rustix::io::read(socket, &mut buffer).unwrap();
        buffer.truncate(length);
        buffer
    }

    #[test]
    fn lines_go_on_where_they_say() {
        let (ours, theirs) = pair();
        let s = &mut Script::default();
        let [good, bad, again, out] = std::array::from_fn(|_| s.label());
        let wanted = s.message(b"good....");
        s.otherwise(bad);
        let three = s.counter(3);
        s.at(again).send(Fd::from(&theirs), wanted);
        s.count(three).then(again).or(out);
        s.at(out).test(wanted, u32::from_ne_bytes(*b"good")).then(good);
        s.at(bad).leave();
        s.at(good);
        let other = s.message(b"the end");
        s.write((&theirs).into(), other);
        s.leave();
        s.run();
        for _ in 0..3 {
            assert_eq!(receive(&ours), b"good....");
        }
        assert_eq!(receive(&ours), b"the end");
    }

    #[test]
    fn a_failure_carries_its_errno() {
        let (ours, theirs) = pair();
        let s = &mut Script::default();
        let [told, other] = std::array::from_fn(|_| s.label());
        s.otherwise(told);
        let nothing = s.buffer(8);
        s.read(Fd::Open(-1), nothing).or_tell(b"one.....");
        // Not reached.
        s.write((&theirs).into(), nothing);
        s.at(told).test_errno(libc::EBADF).or(other);
        s.send_fault((&theirs).into(), 8);
        // A test that fails has no errno to put there.
        s.test(nothing, 7).or_tell(b"two.....").or(other);
        s.at(other).write_fault((&theirs).into(), 8);
        s.leave();
        s.run();
        let mut wanted = b"one.....".to_vec();
        wanted[ERRNO_AT..].copy_from_slice(&libc::EBADF.to_ne_bytes());
        assert_eq!(receive(&ours), wanted);
        assert_eq!(receive(&ours), b"two.....");
    }

    #[test]
    fn a_result_is_an_argument_of_later_lines() {
        let (ours, theirs) = pair();
        let path = std::env::temp_dir().join(format!("rrun-script-{}", std::process::id()));
        let address = rustix::net::SocketAddrUnix::new(&path).unwrap();
        let listener =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .unwrap();
        rustix::net::bind(&listener, &address).unwrap();
        rustix::net::listen(&listener, 1).unwrap();
        let caller =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .unwrap();
        rustix::net::connect(&caller, &address).unwrap();
        std::fs::remove_file(&path).unwrap();
        let s = &mut Script::default();
        let connection = Fd::Result(s.accept((&listener).into()).result());
        let hello = s.message(b"hello");
        let number = s.message(&[0; 12]);
        s.send(connection, hello).result_into(number);
        s.write((&theirs).into(), number);
        s.leave();
        s.run();
        assert_eq!(receive(&caller), b"hello");
        assert_eq!(receive(&ours), [0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0]);
        let connection = s.opened(connection).unwrap();
        drop(connection);
        assert_eq!(receive(&caller), b"");
    }

    #[test]
    fn a_loaded_filter_decides_and_a_listener_comes_back() {
        // Allows all but sync(2) on any architecture, whose number is checked only: good enough here.
        let insn = |code, jt, jf, k| crate::plan::seccomp::Insn { code, jt, jf, k };
        let program = [
            insn(0x20, 0, 0, 0),
            insn(0x15, 0, 1, libc::SYS_sync as u32),
            insn(0x06, 0, 0, 0x0005_0000 | 95),
            insn(0x06, 0, 0, 0x7fff_0000),
        ];
        // A filter is for the thread that loads it, and this thread ends with the test.
        let loaded = std::thread::spawn(move || {
            let s = &mut Script::default();
            let (refused, end) = (s.label(), s.label());
            s.otherwise(end);
            s.no_new_privs();
            let listener = Fd::Result(s.seccomp(&program, crate::plan::seccomp::NEW_LISTENER).result());
            s.seccomp(&[], 0).then(end).or(refused);
            s.at(refused).test_errno(libc::EINVAL);
            s.at(end).leave();
            s.run();
            let listener = s.opened(listener).unwrap();
            let flags = rustix::io::fcntl_getfd(&listener).unwrap();
            // SAFETY: sync(2) takes nothing.
            let ret = unsafe { libc::syscall(libc::SYS_sync) };
            (flags, s.last.errno, check("sync", ret).unwrap_err().errno)
        });
        let (flags, errno, sync) = loaded.join().unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
        assert_eq!((errno as i32, sync), (libc::EINVAL, rustix::io::Errno::OPNOTSUPP));
    }
}
