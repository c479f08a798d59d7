//! The host's side of a process in the foreground: its terminal, our signals, its end.
//!
//! One poll loop instead of threads: a signal, the process's end and both directions of the terminal are
//! events of the same kind, so no output is lost at the end and no signal between clone and wait.

#![forbid(unsafe_code)]

use crate::error::{Call, Context, Error, Result};
use crate::launch::protocol::retry;
use crate::sys::signal::{self, Signals};
use crate::sys::spawn::{Exit, reap_others, wait};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags,
    SocketType,
};
use rustix::process::Pid;
use rustix::termios::{OptionalActions, OutputModes, Termios};
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::path::Path;
use std::time::Duration;

/// How long a receiver may take to accept, and to make room.
const PATIENCE: Duration = Duration::from_secs(4);

/// A caller's socket, of `--console-socket` or `--pidfd-socket`, which receives one fd.
#[derive(Debug)]
pub struct Receiver(OwnedFd);

impl Receiver {
    /// Connects; to be done before anything is created, so that a wrong path costs nothing. A receiver that does not
    /// accept, or read, is waited for no longer than a moment.
    ///
    /// # Errors
    /// socket, setsockopt, connect: EAGAIN where the receiver does not accept.
    pub fn connect(path: &Path) -> Result<Self> {
        let call = || format!("connect {}", path.display());
        // sun_path holds 107 bytes; through the fd any path fits.
        let long = path.as_os_str().len() > 107;
        let opened = long
            .then(|| rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()))
            .transpose()
            .call(call)?;
        let address = match &opened {
            Some(fd) => SocketAddrUnix::new(format!("/proc/self/fd/{}", fd.as_raw_fd())),
            None => SocketAddrUnix::new(path),
        };
        let address = address.call(call)?;
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
                .call(|| "socket")?;
        set_socket_timeout(&socket, Timeout::Send, Some(PATIENCE)).call(|| "setsockopt SO_SNDTIMEO")?;
        retry(|| rustix::net::connect(&socket, &address)).call(call)?;
        Ok(Self(socket))
    }

    /// Sends a terminal's master with its name, as the receivers of `--console-socket` expect it.
    ///
    /// # Errors
    /// ioctl TIOCGPTN, sendmsg.
    pub fn send_terminal(&self, master: BorrowedFd<'_>) -> Result<()> {
        let name = rustix::pty::ptsname(master, Vec::new()).call(|| "ioctl TIOCGPTN")?;
        self.send(name.as_bytes(), master)
    }

    /// Sends a pidfd to `--pidfd-socket`; `exec` tells a process that joined from the container's init.
    ///
    /// # Errors
    /// sendmsg.
    pub fn send_pidfd(&self, pidfd: BorrowedFd<'_>, exec: bool) -> Result<()> {
        self.send(if exec { b"setns" } else { b"standard" }, pidfd)
    }

    /// Sends any payload with one fd, as a seccomp agent expects it.
    ///
    /// # Errors
    /// sendmsg.
    pub fn send(&self, payload: &[u8], fd: BorrowedFd<'_>) -> Result<()> {
        let fds = [fd];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&fds));
        retry(|| rustix::net::sendmsg(&self.0, &[IoSlice::new(payload)], &mut control, SendFlags::NOSIGNAL))
            .map(drop)
            .call(|| "sendmsg SCM_RIGHTS")
    }
}

/// Our own terminal in raw mode, restored when dropped. Signals cannot bypass that: [`Signals`] blocks them.
#[derive(Debug)]
struct RawMode<'a> {
    terminal: BorrowedFd<'a>,
    saved: Termios,
}

impl<'a> RawMode<'a> {
    fn set(terminal: BorrowedFd<'a>) -> Result<Self> {
        let saved = rustix::termios::tcgetattr(terminal).call(|| "tcgetattr")?;
        let mut raw = saved.clone();
        raw.make_raw();
        // What comes from the process has lost its carriage returns: see Terminal::new.
        raw.output_modes.insert(OutputModes::OPOST);
        rustix::termios::tcsetattr(terminal, OptionalActions::Now, &raw).call(|| "tcsetattr")?;
        Ok(Self { terminal, saved })
    }
}

impl Drop for RawMode<'_> {
    fn drop(&mut self) {
        let _ = rustix::termios::tcsetattr(self.terminal, OptionalActions::Now, &self.saved);
    }
}

/// What was read and is not written yet; nothing more is read until it is.
#[derive(Debug, Default)]
struct Pending {
    bytes: Vec<u8>,
    written: usize,
}

impl Pending {
    fn rest(&self) -> &[u8] {
        self.bytes.get(self.written..).unwrap_or_default()
    }

    fn is_empty(&self) -> bool {
        self.rest().is_empty()
    }

    /// Reads once; `false` at the end of the input, which EIO is for a terminal.
    fn fill(&mut self, from: BorrowedFd<'_>) -> bool {
        self.bytes.resize(16384, 0);
        let read = rustix::io::read(from, &mut self.bytes);
        self.bytes.truncate(*read.as_ref().unwrap_or(&0));
        self.written = 0;
        !matches!(read, Ok(0)) && !matches!(read, Err(e) if e != Errno::AGAIN && e != Errno::INTR)
    }

    /// Writes once; `false` if nobody takes it any more.
    fn flush(&mut self, to: BorrowedFd<'_>) -> bool {
        // A pipe that poll(2) calls writable takes PIPE_BUF without blocking.
        let chunk = self.rest().get(..4096).unwrap_or_else(|| self.rest());
        match rustix::io::write(to, chunk) {
            Ok(n) => self.written = self.written.saturating_add(n),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => return false,
        }
        true
    }
}

/// A pseudo-terminal of the process, connected to our standard input and output.
#[derive(Debug)]
pub struct Terminal<'a> {
    master: OwnedFd,
    /// Until EIO, when no process has the other end open any more.
    open: bool,
    input: Option<BorrowedFd<'a>>,
    output: Option<OwnedFd>,
    to_process: Pending,
    to_output: Pending,
    raw: Option<RawMode<'a>>,
}

impl<'a> Terminal<'a> {
    /// Connects `master`; `input` becomes raw if it is a terminal, and lends its window size.
    ///
    /// # Errors
    /// ioctl FIONBIO, tcgetattr, tcsetattr, dup.
    pub fn new(master: OwnedFd, input: BorrowedFd<'a>, output: BorrowedFd<'a>) -> Result<Self> {
        rustix::io::ioctl_fionbio(&master, true).call(|| "ioctl FIONBIO")?;
        keep_lines(master.as_fd()).call(|| "ioctl TCSETS")?;
        let raw = rustix::termios::isatty(input).then(|| RawMode::set(input)).transpose()?;
        let output = Some(unblocked(output)?);
        let (to_process, to_output) = (Pending::default(), Pending::default());
        let terminal = Self { master, open: true, input: Some(input), output, to_process, to_output, raw };
        terminal.resize();
        Ok(terminal)
    }

    /// Gives the process's terminal the size of ours.
    fn resize(&self) {
        let Some(raw) = &self.raw else { return };
        if let Ok(size) = rustix::termios::tcgetwinsize(raw.terminal) {
            let _ = rustix::termios::tcsetwinsize(&self.master, size);
        }
    }

    /// What to wait for: on the master, our input, our output.
    fn interest(&self) -> [(Option<BorrowedFd<'_>>, PollFlags); 3] {
        let mut master = PollFlags::empty();
        master.set(PollFlags::IN, self.to_output.is_empty());
        master.set(PollFlags::OUT, !self.to_process.is_empty());
        let asleep = master.is_empty() || !self.open;
        let reads = self.open && self.to_process.is_empty();
        [
            ((!asleep).then_some(self.master.as_fd()), master),
            (self.input.filter(|_| reads), PollFlags::IN),
            (self.output.as_ref().filter(|_| !self.to_output.is_empty()).map(AsFd::as_fd), PollFlags::OUT),
        ]
    }

    /// Moves what can be moved; `ready` answers [`Self::interest`]. Returns how many bytes came.
    fn transfer(&mut self, ready: [PollFlags; 3]) -> usize {
        let [master, input, output] = ready;
        let mut came = 0;
        if let Some(fd) = self.input.filter(|_| !input.is_empty())
            && !self.to_process.fill(fd)
        {
            self.input = None;
        }
        if !output.is_empty() && self.output.as_ref().is_some_and(|fd| !self.to_output.flush(fd.as_fd())) {
            // The reader is gone; the process goes on as if there were one.
            self.output = None;
        }
        if master.contains(PollFlags::OUT) && !self.to_process.flush(self.master.as_fd()) {
            self.to_process = Pending::default();
        }
        if master.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) && self.to_output.is_empty() {
            self.open = self.to_output.fill(self.master.as_fd());
            came = self.to_output.bytes.len();
        }
        if self.output.is_none() {
            self.to_output = Pending::default();
        }
        came
    }
}

/// Lets lines end in a newline alone, as they do without `process.terminal`, for where our output is no
/// terminal. To be done before the process can write.
///
/// # Errors
/// tcgetattr, tcsetattr.
pub fn keep_lines(master: BorrowedFd<'_>) -> Result<(), Errno> {
    let mut modes = rustix::termios::tcgetattr(master)?;
    modes.output_modes.remove(OutputModes::ONLCR);
    rustix::termios::tcsetattr(master, OptionalActions::Now, &modes)
}

/// An fd for the same terminal or pipe that does not block. Not O_NONBLOCK on the fd itself: the shell that
/// started us shares it. A file never blocks and must keep its offset.
fn unblocked(fd: BorrowedFd<'_>) -> Result<OwnedFd> {
    let is_fifo =
        rustix::fs::fstat(fd).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo);
    if is_fifo || rustix::termios::isatty(fd) {
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        if let Ok(own) = rustix::fs::open(path, flags, Mode::empty()) {
            return Ok(own);
        }
    }
    rustix::io::fcntl_dupfd_cloexec(fd, 3).call(|| "fcntl F_DUPFD_CLOEXEC")
}

/// Stays with a process until its end: forwards signals, moves the terminal's bytes.
#[derive(Debug)]
pub struct Relay<'a> {
    /// Blocked before the process was made.
    pub signals: &'a Signals,
    /// The process, a child of ours.
    pub pid: Pid,
    /// Its pidfd.
    pub pidfd: BorrowedFd<'a>,
    /// Its terminal, if it has one; else it has our own standard fds.
    pub terminal: Option<Terminal<'a>>,
    /// Whether we are a subreaper, and reap what the process leaves to us.
    pub reap: bool,
    /// What systemd waits for, if it started us.
    pub notify: Option<crate::notify::Proxy>,
}

/// More than a pseudo-terminal can hold: what comes after the end beyond this is from another process.
const MOST_AFTER_END: usize = 1 << 20;

impl Relay<'_> {
    /// Returns how the process ended, after all of its output is written.
    ///
    /// # Errors
    /// poll, waitid, read of the signalfd.
    pub fn run(&mut self) -> Result<Exit> {
        let mut ended: Option<Exit> = None;
        let mut after_end = 0usize;
        loop {
            let interest = self.terminal.as_ref().map_or([(None, PollFlags::empty()); 3], Terminal::interest);
            let writing = interest.get(2).is_some_and(|(fd, _)| fd.is_some());
            if let Some(exit) =
                ended.filter(|_| after_end > MOST_AFTER_END || interest[0].0.is_none() && !writing)
            {
                return Ok(exit);
            }
            let pidfd = ended.is_none().then_some(self.pidfd);
            let notify = self.notify.as_ref().map(AsFd::as_fd);
            // After the end, what the master has ready is all there is: poll(2) flushes its buffer.
            let timeout = (ended.is_some() && !writing).then_some(Timespec { tv_sec: 0, tv_nsec: 0 });
            let wanted = [
                (pidfd, PollFlags::IN),
                (Some(self.signals.as_fd()), PollFlags::IN),
                (notify, PollFlags::IN),
            ];
            let Some(ready) = wait_for(wanted.iter().chain(&interest), timeout.as_ref())? else {
                if let Some(exit) = ended {
                    return Ok(exit);
                }
                continue;
            };
            let [end, signal, notice, terminal @ ..] = ready;
            if !signal.is_empty()
                && self.take_signals(ended.is_some())?
                && let Some(exit) = ended
            {
                return Ok(exit);
            }
            if !notice.is_empty() {
                let done = self.notify.as_mut().is_none_or(|proxy| proxy.forward(self.pid).unwrap_or(true));
                self.notify = self.notify.take().filter(|_| !done);
            }
            if let Some(own) = &mut self.terminal {
                let came = own.transfer(terminal);
                after_end = after_end.saturating_add(if ended.is_some() { came } else { 0 });
            }
            if !end.is_empty() {
                ended = Some(wait(self.pidfd)?);
            }
        }
    }

    /// Handles the pending signals; `true` if one of them asks to give up waiting for our output.
    fn take_signals(&self, ended: bool) -> Result<bool> {
        let mut give_up = false;
        while let Some(signal) = self.signals.next()? {
            match signal {
                libc::SIGCHLD if self.reap => reap_others(self.pid),
                libc::SIGWINCH => self.terminal.iter().for_each(Terminal::resize),
                // Our own affairs.
                libc::SIGCHLD | libc::SIGPIPE | libc::SIGURG => {}
                libc::SIGTERM | libc::SIGHUP | libc::SIGINT | libc::SIGQUIT if ended => give_up = true,
                _ => match signal::send(self.pidfd, signal) {
                    Err(e) if e.errno != Errno::SRCH => {
                        return Err(Error::from(e)).context(|| format!("signal {signal}"));
                    }
                    _ => {}
                },
            }
        }
        Ok(give_up)
    }
}

/// Waits for any of the fds; `None` after the timeout.
fn wait_for<'a>(
    wanted: impl Iterator<Item = &'a (Option<BorrowedFd<'a>>, PollFlags)> + Clone,
    timeout: Option<&Timespec>,
) -> Result<Option<[PollFlags; 6]>> {
    let mut fds: Vec<PollFd<'_>> =
        wanted.clone().filter_map(|(fd, flags)| Some(PollFd::from_borrowed_fd((*fd)?, *flags))).collect();
    match poll(&mut fds, timeout) {
        Ok(0) => return Ok(None),
        Ok(_) => {}
        Err(Errno::INTR) => return Ok(Some([PollFlags::empty(); 6])),
        Err(errno) => return Err(Error::sys("poll", errno)),
    }
    let mut answers = fds.iter().map(PollFd::revents);
    let mut ready = [PollFlags::empty(); 6];
    for (slot, _) in ready.iter_mut().zip(wanted).filter(|(_, (fd, _))| fd.is_some()) {
        *slot = answers.next().unwrap_or(PollFlags::empty());
    }
    Ok(Some(ready))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::signal::raise;
    use crate::sys::spawn::{Child, Program, spawn};
    use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
    use rustix::termios::{LocalModes, Winsize, tcgetattr, tcgetwinsize, tcsetwinsize};
    use std::ffi::CString;
    use std::io::Read;

    fn pty() -> (OwnedFd, OwnedFd) {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let slave = ioctl_tiocgptpeer(&master, flags).unwrap();
        (master, slave)
    }

    fn start(script: &str, fd: BorrowedFd<'_>) -> Child {
        let argv = ["sh", "-c", script].map(|s| CString::new(s).unwrap());
        let env = [c"PATH=/bin:/usr/bin".to_owned()];
        spawn(&Program { path: c"/bin/sh", argv: &argv, envp: &env, cwd: None, fds: &[fd; 3], group: true })
            .unwrap()
    }

    fn relay<'a>(signals: &'a Signals, child: &'a Child, terminal: Option<Terminal<'a>>) -> Relay<'a> {
        Relay { signals, pid: child.pid(), pidfd: child.pidfd(), terminal, reap: false, notify: None }
    }

    #[test]
    fn all_output_comes_out_before_the_end_is_reported() {
        let signals = Signals::block().unwrap();
        let (master, slave) = pty();
        let null = std::fs::File::open("/dev/null").unwrap();
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        // A slow reader of a small pipe: the relay must wait for it and not lose a byte.
        let reader = std::thread::spawn(move || {
            let mut text = String::new();
            std::fs::File::from(read).read_to_string(&mut text).unwrap();
            text
        });
        let terminal = Terminal::new(master, null.as_fd(), write.as_fd()).unwrap();
        let child =
            start("i=0; while test $i -lt 20000; do echo line $i; i=$((i+1)); done; exit 5", slave.as_fd());
        drop(slave);
        let mut relay = relay(&signals, &child, Some(terminal));
        assert_eq!(relay.run().unwrap(), Exit::Code(5));
        drop(relay);
        drop(write);
        let text = reader.join().unwrap();
        assert!(text.ends_with("line 19999\n"));
        assert_eq!(text.lines().count(), 20000);
    }

    #[test]
    fn our_terminal_is_raw_meanwhile_lends_its_size_and_its_input() {
        let signals = Signals::block().unwrap();
        let (ours, our_slave) = pty();
        tcsetwinsize(&our_slave, Winsize { ws_row: 33, ws_col: 77, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        let (master, slave) = pty();
        let watch = rustix::io::fcntl_dupfd_cloexec(&slave, 3).unwrap();
        let terminal = Terminal::new(master, our_slave.as_fd(), our_slave.as_fd()).unwrap();
        assert!(!tcgetattr(&our_slave).unwrap().local_modes.contains(LocalModes::ICANON));
        assert_eq!(tcgetwinsize(&watch).unwrap().ws_col, 77);
        drop(watch);
        let child = start("read line; echo got $line; exit 3", slave.as_fd());
        drop(slave);
        rustix::io::write(&ours, b"typed\r").unwrap();
        let mut relay = relay(&signals, &child, Some(terminal));
        assert_eq!(relay.run().unwrap(), Exit::Code(3));
        drop(relay);
        assert!(tcgetattr(&our_slave).unwrap().local_modes.contains(LocalModes::ICANON));
        // The echo and the answer may come in two pieces.
        let want = "typed\r\ngot typed\r\n";
        let (mut buffer, mut n) = ([0u8; 100], 0);
        while n < want.len() {
            n += rustix::io::read(&ours, &mut buffer[n..]).unwrap();
        }
        assert_eq!(std::str::from_utf8(&buffer[..n]), Ok(want));
    }

    #[test]
    fn signals_reach_the_process_even_those_from_before_it_existed() {
        let signals = Signals::block().unwrap();
        let null = std::fs::File::open("/dev/null").unwrap();
        raise(libc::SIGTERM);
        let child = start("sleep 1000", null.as_fd());
        assert_eq!(relay(&signals, &child, None).run().unwrap(), Exit::Signal(libc::SIGTERM));
    }

    #[test]
    fn a_process_left_with_the_terminal_does_not_hold_up_the_end() {
        let signals = Signals::block().unwrap();
        let (master, slave) = pty();
        let null = std::fs::File::open("/dev/null").unwrap();
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let terminal = Terminal::new(master, null.as_fd(), write.as_fd()).unwrap();
        let child = start("trap '' HUP; setsid sleep 3 & echo bye", slave.as_fd());
        drop(slave);
        let before = std::time::Instant::now();
        assert_eq!(relay(&signals, &child, Some(terminal)).run().unwrap(), Exit::Code(0));
        assert!(before.elapsed().as_secs() < 2);
        let mut buffer = [0u8; 10];
        let n = rustix::io::read(&read, &mut buffer).unwrap();
        assert_eq!(&buffer[..n], b"bye\n");
    }

    #[test]
    fn a_long_socket_path_receives_the_name_and_one_fd() {
        let directory =
            std::env::temp_dir().join(format!("rrun-console-{}-{}", std::process::id(), "y".repeat(110)));
        std::fs::create_dir(&directory).unwrap();
        let fd = std::fs::File::open(&directory).unwrap();
        let listener =
            std::os::unix::net::UnixListener::bind(format!("/proc/self/fd/{}/s", fd.as_raw_fd())).unwrap();
        let receiver = Receiver::connect(&directory.join("s")).unwrap();
        std::fs::remove_dir_all(&directory).unwrap();
        let (peer, _) = listener.accept().unwrap();
        let (master, _slave) = pty();
        receiver.send_terminal(master.as_fd()).unwrap();

        let mut payload = [0u8; 64];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut control = rustix::net::RecvAncillaryBuffer::new(&mut space);
        let mut parts = [std::io::IoSliceMut::new(&mut payload)];
        let n = rustix::net::recvmsg(&peer, &mut parts, &mut control, rustix::net::RecvFlags::CMSG_CLOEXEC)
            .unwrap()
            .bytes;
        let fds: Vec<OwnedFd> = control
            .drain()
            .filter_map(|m| {
                if let rustix::net::RecvAncillaryMessage::ScmRights(fds) = m { Some(fds) } else { None }
            })
            .flatten()
            .collect();
        let name = rustix::pty::ptsname(&master, Vec::new()).unwrap();
        assert_eq!(&payload[..n], name.as_bytes());
        assert_eq!(fds.len(), 1);
        assert_eq!(rustix::pty::ptsname(&fds[0], Vec::new()).unwrap(), name);
    }
}
