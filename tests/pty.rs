//! The caller's side of a terminal: a pty whose slave is the runtime's stdio (as a shell has it), and the
//! socket that receives a container's pty (as containerd's shim and conmon have it).

use crate::harness::Run;
use rustix::cmsg_space;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Mode, OFlags};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use rustix::pty::OpenptFlags;
use rustix::termios::{Termios, Winsize};
use std::fs::File;
use std::io::{IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// The master side, and all that came out of it so far.
pub struct Pty {
    master: File,
    pub seen: String,
}

impl Pty {
    /// A new pty and its slave.
    pub fn open() -> (Self, OwnedFd) {
        let master =
            rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        rustix::pty::grantpt(&master).unwrap();
        rustix::pty::unlockpt(&master).unwrap();
        let name = rustix::pty::ptsname(&master, Vec::new()).unwrap();
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let slave = rustix::fs::open(name.as_c_str(), flags, Mode::empty()).unwrap();
        (Self::of(master), slave)
    }

    pub fn of(master: OwnedFd) -> Self {
        Self { master: master.into(), seen: String::new() }
    }

    /// Starts a command in a session of its own whose controlling terminal is a new pty. The slave is given
    /// too: while the test holds it, the terminal's settings can be read after the command ended.
    pub fn spawn(command: &Command) -> (Self, OwnedFd, Child) {
        let (pty, slave) = Self::open();
        // setsid(1) takes the controlling terminal, which std cannot do without unsafe.
        let mut session = Command::new("setsid");
        session.arg("--ctty").arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => session.env(name, value),
                None => session.env_remove(name),
            };
        }
        if let Some(dir) = command.get_current_dir() {
            session.current_dir(dir);
        }
        session.stdin(slave.try_clone().unwrap()).stdout(slave.try_clone().unwrap());
        session.stderr(slave.try_clone().unwrap());
        let child = session.spawn().unwrap();
        (pty, slave, child)
    }

    pub fn spawn_run(run: &Run<'_>) -> (Self, OwnedFd, Child) {
        Self::spawn(&run.command())
    }

    pub fn send(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).unwrap();
    }

    pub fn resize(&self, rows: u16, columns: u16) {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&self.master, size).unwrap();
    }

    /// Reads until `text` has come out.
    #[track_caller]
    pub fn expect(&mut self, text: &str) {
        assert!(self.read_until(|seen| seen.contains(text)), "no {text:?} in: {}", self.seen);
    }

    /// Forgets what came out so far, so that `expect` waits for new output.
    pub fn forget(&mut self) {
        self.seen.clear();
    }

    /// Reads until the last slave is closed.
    pub fn drain(&mut self) {
        self.read_until(|_| false);
    }

    fn read_until(&mut self, done: impl Fn(&str) -> bool) -> bool {
        let end = Instant::now() + crate::harness::patiently(Duration::from_secs(10));
        while !done(&self.seen) {
            let left = end.saturating_duration_since(Instant::now());
            let mut fds = [PollFd::new(&self.master, PollFlags::IN)];
            let limit = Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap(),
                tv_nsec: left.subsec_nanos().into(),
            };
            if rustix::event::poll(&mut fds, Some(&limit)).unwrap() == 0 {
                return false;
            }
            let mut buffer = [0; 4096];
            match self.master.read(&mut buffer) {
                // EIO is how a pty says that the other side is gone.
                Ok(0) | Err(_) => return done(&self.seen),
                Ok(n) => self.seen.push_str(&String::from_utf8_lossy(&buffer[..n])),
            }
        }
        true
    }
}

/// The settings of the terminal behind `fd`, in a form that can be compared.
pub fn settings(fd: &OwnedFd) -> String {
    let t: Termios = rustix::termios::tcgetattr(fd).unwrap();
    format!("{:?} {:?} {:?} {:?}", t.input_modes, t.output_modes, t.control_modes, t.local_modes)
}

/// The listener behind `--console-socket` and `--pidfd-socket`.
pub struct FdSocket {
    pub path: PathBuf,
    listener: UnixListener,
}

impl FdSocket {
    pub fn bind(path: &Path) -> Self {
        Self { path: path.to_owned(), listener: UnixListener::bind(path).unwrap() }
    }

    /// The payload and the descriptors of the one message on the next connection.
    pub fn receive(&self) -> (String, Vec<OwnedFd>) {
        let mut fds = [PollFd::new(&self.listener, PollFlags::IN)];
        let seconds = crate::harness::patiently(Duration::from_secs(10)).as_secs();
        let limit = Timespec { tv_sec: i64::try_from(seconds).unwrap(), tv_nsec: 0 };
        assert!(rustix::event::poll(&mut fds, Some(&limit)).unwrap() > 0, "nobody connected");
        let (stream, _) = self.listener.accept().unwrap();
        receive(&stream)
    }
}

/// The payload and the descriptors of the next message.
pub fn receive(socket: impl AsFd) -> (String, Vec<OwnedFd>) {
    let mut text = [0; 4096];
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(4))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    let message = rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut text)], &mut ancillary, flags)
        .unwrap_or_else(|e| panic!("recvmsg: {e}"));
    let mut received = Vec::new();
    for part in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = part {
            received.extend(rights);
        }
    }
    (String::from_utf8_lossy(&text[..message.bytes]).into_owned(), received)
}
