//! `/run/rrunctl/ID`: the lock that says who is alive, the socket, and what the monitor has to say itself.

#![forbid(unsafe_code)]

use super::now;
use crate::error::{Context as _, Error, Result};
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, flock, fstat, open, openat, stat, unlinkat};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
};
use rustix::process::{getpid, umask};
use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

const SOCKET: &str = "ctl.sock";
const CONSOLE: &str = "console.sock";
const PID: &str = "pid";
const STARTED: &str = "started";
/// What could not be logged and the like, for a person.
const MESSAGES: &str = "rrunmon.log";

/// The directory, by a living monitor.
#[derive(Debug)]
pub(super) struct RunDir {
    dir: OwnedFd,
    /// Locked.
    pid: File,
}

impl RunDir {
    /// Opens the directory and says that this process is the monitor.
    ///
    /// # Errors
    /// Another one is alive, and those of open(2) and flock(2).
    pub fn lock(path: &Path) -> Result<Self> {
        let dir = directory(path)?;
        let pid = path.join(PID);
        for attempt in 0..100 {
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
            let file = openat(&dir, PID, flags, Mode::from_raw_mode(0o600))
                .context(|| format!("open {}", pid.display()))?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                // Or somebody looks whether one is, at what a killed one left: see `is_alive`.
                Err(Errno::AGAIN) if attempt < 20 => {
                    std::thread::sleep(Duration::from_millis(1));
                    continue;
                }
                Err(Errno::AGAIN) => {
                    return Err(Error::conflict(format!("{}: a monitor is alive", pid.display())));
                }
                Err(e) => return Err(Error::from(e).context(format!("flock {}", pid.display()))),
            }
            // The one before may have removed the file after it was opened here: nobody else would see this lock.
            let (ours, there) = (fstat(&file), stat(&pid));
            if matches!((ours, there), (Ok(ours), Ok(there)) if ours.st_ino == there.st_ino) {
                let mut file = File::from(file);
                file.set_len(0).context(|| format!("truncate {}", pid.display()))?;
                writeln!(file, "{}", getpid().as_raw_nonzero())
                    .context(|| format!("write {}", pid.display()))?;
                return Ok(Self { dir, pid: file });
            }
        }
        Err(Error::system(format!("{}: removed again and again", pid.display())))
    }

    /// The socket for clients.
    ///
    /// # Errors
    /// Those of socket(2), bind(2) and listen(2).
    pub fn listen(&self) -> Result<OwnedFd> {
        self.listen_at(SOCKET, SocketType::SEQPACKET)
    }

    /// The socket that gets a terminal, and its path for rrun: one of any length is short by way of this process.
    ///
    /// # Errors
    /// Those of socket(2), bind(2) and listen(2).
    pub fn console(&self) -> Result<(OwnedFd, PathBuf)> {
        let path = format!("/proc/{}/fd/{}/{CONSOLE}", getpid().as_raw_nonzero(), self.dir.as_raw_fd());
        Ok((self.listen_at(CONSOLE, SocketType::STREAM)?, path.into()))
    }

    fn listen_at(&self, name: &str, kind: SocketType) -> Result<OwnedFd> {
        let listening = || {
            let socket =
                socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
            let _ = unlinkat(&self.dir, name, AtFlags::empty());
            let before = umask(Mode::from_raw_mode(0o177));
            let bound = bind(&socket, &address(&self.dir, name)?);
            umask(before);
            bound?;
            listen(&socket, 128)?;
            Ok::<_, Errno>(socket)
        };
        listening().context(|| format!("listen at {name}"))
    }

    /// Appends to the messages.
    pub fn tell(&self, text: &dyn std::fmt::Display) {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND | OFlags::CLOEXEC | OFlags::NONBLOCK;
        if let Ok(file) = openat(&self.dir, MESSAGES, flags, Mode::from_raw_mode(0o600)) {
            let _ = writeln!(File::from(file), "{} {text}", now());
        }
    }

    /// Says when the run that is under way began, for whoever [adopts](super::adopt) the container.
    pub fn begin(&self, at: &str) {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
        // What this cannot say is not known then, and no harm is done.
        let _ = openat(&self.dir, STARTED, flags, Mode::from_raw_mode(0o600))
            .map(|file| File::from(file).write_all(at.as_bytes()));
    }

    /// When a run began, and was not over as far as its monitor knew.
    pub fn begun(&self) -> Option<String> {
        let file = openat(&self.dir, STARTED, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
        std::io::read_to_string(File::from(file)).ok()
    }

    /// No run is under way.
    pub fn end(&self) {
        let _ = unlinkat(&self.dir, STARTED, AtFlags::empty());
    }

    /// No more terminal is expected.
    pub fn remove_console(&self) {
        let _ = unlinkat(&self.dir, CONSOLE, AtFlags::empty());
    }

    /// Removes the socket and the pid, then lets the lock go: from here on there is no monitor.
    pub fn leave(self) {
        for name in [SOCKET, CONSOLE, STARTED, PID] {
            let _ = unlinkat(&self.dir, name, AtFlags::empty());
        }
        drop(self.pid);
    }
}

/// Whether a monitor is alive.
///
/// # Errors
/// Those of open(2) and flock(2).
pub fn is_alive(run: &Path) -> Result<bool> {
    let pid = run.join(PID);
    match open(&pid, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
        Ok(file) => match flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(false),
            Err(Errno::AGAIN) => Ok(true),
            Err(e) => Err(Error::from(e).context(format!("flock {}", pid.display()))),
        },
        Err(Errno::NOENT) => Ok(false),
        Err(e) => Err(Error::from(e).context(format!("open {}", pid.display()))),
    }
}

/// A connection to the monitor, if its socket is there. `patience` is how long it may take to be accepted, and how long
/// each packet to be sent: with a monitor that is stopped, both wait as soon as its queue is full.
///
/// # Errors
/// Those of open(2), socket(2) and connect(2).
pub(super) fn connection(run: &Path, patience: Duration) -> Result<Option<OwnedFd>> {
    let dir = directory(run)?;
    let connected = || {
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        // SO_SNDTIMEO is connect(2)'s of a Unix socket as well.
        set_socket_timeout(&socket, Timeout::Send, Some(patience))?;
        connect(&socket, &address(&dir, SOCKET)?)?;
        Ok(socket)
    };
    match connected() {
        Ok(socket) => Ok(Some(socket)),
        Err(Errno::NOENT | Errno::CONNREFUSED | Errno::AGAIN) => Ok(None),
        Err(e) => Err(Error::from(e).context(format!("connect to {}", run.join(SOCKET).display()))),
    }
}

fn directory(path: &Path) -> Result<OwnedFd> {
    open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .context(|| format!("open {}", path.display()))
}

/// An address has 107 bytes; the directory's path may have more.
fn address(dir: &OwnedFd, name: &str) -> Result<SocketAddrUnix, Errno> {
    SocketAddrUnix::new(format!("/proc/self/fd/{}/{name}", dir.as_fd().as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn one_monitor_is_alive_at_a_time_whatever_is_left_of_one_that_was_killed() {
        let name = format!("rrunctl-run-{}-{}", "long".repeat(40), crate::home::unique().expect("random"));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).expect("mkdir");
        assert!(!is_alive(&path).expect("known"));
        let first = RunDir::lock(&path).expect("alive");
        let listener = first.listen().expect("listening");
        let connection = |path: &Path| connection(path, Duration::from_secs(1));
        assert!(is_alive(&path).expect("known") && connection(&path).expect("known").is_some());
        assert!(RunDir::lock(&path).expect_err("taken").to_string().contains("a monitor is alive"));
        // As SIGKILL leaves it: the files are there, the lock and the socket are not.
        drop((first, listener));
        assert!(!is_alive(&path).expect("known") && connection(&path).expect("known").is_none());
        let second = RunDir::lock(&path).expect("alive");
        let _listener = second.listen().expect("listening");
        second.tell(&"a message");
        second.leave();
        let left: Vec<_> =
            fs::read_dir(&path).expect("readdir").flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(left, [MESSAGES]);
        fs::remove_dir_all(&path).expect("remove");
    }
}
