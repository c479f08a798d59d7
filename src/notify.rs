//! What systemd passes to a service: readiness (sd_notify(3)) and sockets (sd_listen_fds(3)).
//!
//! A container cannot reach systemd's socket, and systemd would not know its pids: so the runtime listens on
//! a socket of its own in a directory that is bound into the container, and forwards what matters.
//!
//! How a command uses it, with `NOTIFY_SOCKET` in its environment:
//! - `create` and `run` call [`prepare`]`(<root>/<id>)` before the launch; the plan gets the bind mount of
//!   the directory it returns on [`INSIDE`] with [`OPTIONS`], and [`VARIABLE`] in `process.env`;
//! - `run` then calls [`Proxy::bind`] before the launch, `start` before it lets init go;
//! - `start` and `run --detach` call [`Proxy::until_ready`] last: it returns after READY=1 has reached
//!   systemd or init has ended;
//! - `run` in the foreground puts the proxy into [`crate::console::Relay`] and waits for nothing.

#![forbid(unsafe_code)]

use crate::error::{Call, Error, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType,
};
use rustix::process::Pid;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};

/// Where the directory appears inside the container.
pub const INSIDE: &str = "/run/notify";
/// Mount options of the directory.
pub const OPTIONS: [&str; 5] = ["bind", "nosuid", "noexec", "nodev", "ro"];
/// Entry of the process's environment.
pub const VARIABLE: &str = "NOTIFY_SOCKET=/run/notify/notify.sock";
/// How long systemd may take to acknowledge; one that does not know BARRIER=1 never does.
const BARRIER: Timespec = Timespec { tv_sec: 30, tv_nsec: 0 };

/// Makes `<state>/notify` and returns it; `state` is the container's directory.
///
/// # Errors
/// mkdir.
pub fn prepare(state: &Path) -> Result<PathBuf> {
    let directory = state.join("notify");
    let mode = Mode::from_raw_mode(0o755);
    match rustix::fs::mkdir(&directory, mode) {
        Ok(()) | Err(Errno::EXIST) => Ok(directory),
        Err(errno) => Err(Error::sys(format!("mkdir {}", directory.display()), errno)),
    }
}

/// The socket that the container writes to and the address of systemd's.
#[derive(Debug)]
pub struct Proxy {
    socket: OwnedFd,
    host: SocketAddrUnix,
}

impl Proxy {
    /// Listens in the directory made by [`prepare`]; `host` is our own NOTIFY_SOCKET.
    ///
    /// # Errors
    /// An address that is neither absolute nor abstract; open, bind, chmod.
    pub fn bind(state: &Path, host: &str) -> Result<Self> {
        let bad = || format!("NOTIFY_SOCKET {host:?}");
        let host = match host.strip_prefix('@') {
            Some(name) => SocketAddrUnix::new_abstract_name(name.as_bytes()).call(bad)?,
            None if host.starts_with('/') => SocketAddrUnix::new(host).call(bad)?,
            None => return Err(Error::new(bad()).context("neither absolute nor abstract")),
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let path = state.join("notify");
        let call = |call: &str| format!("{call} {}/notify.sock", path.display());
        let directory = rustix::fs::open(&path, flags, Mode::empty()).call(|| call("open"))?;
        // Left by an earlier attempt to start.
        match rustix::fs::unlinkat(&directory, "notify.sock", AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(Error::sys(call("unlink"), errno)),
        }
        // Through the fd: root and id may be longer than sun_path.
        let address = SocketAddrUnix::new(format!("/proc/self/fd/{}/notify.sock", directory.as_raw_fd()));
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)
            .call(|| "socket")?;
        rustix::net::bind(&socket, &address.call(|| call("bind"))?).call(|| call("bind"))?;
        // Whoever the container's process is, it may write.
        rustix::fs::chmodat(&directory, "notify.sock", Mode::from_raw_mode(0o777), AtFlags::empty())
            .call(|| call("chmod"))?;
        Ok(Self { socket, host })
    }

    /// Takes one datagram; if it says READY, tells systemd so with the pid of init and returns `true`.
    ///
    /// # Errors
    /// recv, sendmsg.
    pub fn forward(&mut self, init: Pid) -> Result<bool> {
        let mut buffer = [0u8; 4096];
        let n = match rustix::net::recv(&self.socket, &mut buffer[..], RecvFlags::empty()) {
            Ok((n, _)) => n,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(false),
            Err(errno) => return Err(Error::sys("recv notify.sock", errno)),
        };
        let datagram = buffer.get(..n).unwrap_or_default();
        let Some(ready) = datagram.split(|b| *b == b'\n').find(|line| line.starts_with(b"READY=")) else {
            return Ok(false);
        };
        let mut message = ready.to_vec();
        // In the same datagram: systemd then never sees a ready service with the wrong main process.
        message.extend_from_slice(format!("\nMAINPID={}\n", init.as_raw_nonzero()).as_bytes());
        self.tell(&message, None)?;
        Ok(true)
    }

    /// Forwards until init is ready or has ended, and until systemd has read it: it looks up the sender,
    /// which must still live.
    ///
    /// # Errors
    /// poll, recv, sendmsg.
    pub fn until_ready(mut self, init: Pid, pidfd: BorrowedFd<'_>) -> Result<()> {
        loop {
            let mut fds =
                [PollFd::new(&self.socket, PollFlags::IN), PollFd::from_borrowed_fd(pidfd, PollFlags::IN)];
            match poll(&mut fds, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(Error::sys("poll", errno)),
            }
            let [notice, end] = fds.map(|fd| !fd.revents().is_empty());
            if notice && self.forward(init)? {
                return self.barrier();
            }
            if end && !notice {
                return Ok(());
            }
        }
    }

    /// Waits until systemd has closed the pipe it is sent, which it does after all earlier messages.
    fn barrier(&self) -> Result<()> {
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).call(|| "pipe2")?;
        self.tell(b"BARRIER=1", Some(write.as_fd()))?;
        drop(write);
        match poll(&mut [PollFd::new(&read, PollFlags::empty())], Some(&BARRIER)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(Error::sys("poll", errno)),
        }
    }

    fn tell(&self, message: &[u8], fd: Option<BorrowedFd<'_>>) -> Result<()> {
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
                .call(|| "socket")?;
        let fds: Vec<_> = fd.into_iter().collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(&fds));
        }
        rustix::net::sendmsg_addr(
            &socket,
            &self.host,
            &[IoSlice::new(message)],
            &mut control,
            SendFlags::NOSIGNAL,
        )
        .map(drop)
        .call(|| "sendmsg NOTIFY_SOCKET")
    }
}

impl AsFd for Proxy {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Sockets that systemd opened for us, from fd 3 on (sd_listen_fds(3)).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listening {
    /// How many; they keep their numbers, and fds of `--preserve-fds` follow.
    pub count: u32,
    /// What init's environment gets; `LISTEN_PID` is 1, which is its pid inside.
    pub env: Vec<String>,
}

/// Reads the environment: `pid` is ours, as the sockets may be meant for a process that started us.
pub fn listening(env: impl Fn(&str) -> Option<String>, pid: u32) -> Listening {
    let number = |name: &str| env(name).and_then(|value| value.parse::<u32>().ok());
    match (number("LISTEN_PID"), number("LISTEN_FDS")) {
        (Some(target), Some(count)) if target == pid && count > 0 => {
            let mut vars = vec![format!("LISTEN_FDS={count}"), "LISTEN_PID=1".to_owned()];
            vars.extend(env("LISTEN_FDNAMES").map(|names| format!("LISTEN_FDNAMES={names}")));
            Listening { count, env: vars }
        }
        _ => Listening::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::spawn::{Program, spawn};
    use std::os::unix::net::UnixDatagram;

    struct Directory(PathBuf);
    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    /// A state directory, longer than sun_path.
    fn directory(name: &str) -> Directory {
        let path =
            std::env::temp_dir().join(format!("rrun-{name}-{}-{}", std::process::id(), "x".repeat(120)));
        std::fs::create_dir(&path).unwrap();
        Directory(path)
    }

    fn program(script: &str) -> crate::sys::spawn::Child {
        let argv = ["sh", "-c", script].map(|s| std::ffi::CString::new(s).unwrap());
        let null = std::fs::File::open("/dev/null").unwrap();
        spawn(&Program {
            path: c"/bin/sh",
            argv: &argv,
            envp: &[],
            cwd: None,
            fds: &[null.as_fd()],
            group: true,
        })
        .unwrap()
    }

    fn proxy(directory: &Directory) -> (Proxy, UnixDatagram, UnixDatagram) {
        let host = format!("{}-host", directory.0.file_name().unwrap().to_str().unwrap().replace('x', ""));
        use std::os::linux::net::SocketAddrExt;
        let address = std::os::unix::net::SocketAddr::from_abstract_name(&host).unwrap();
        let systemd = UnixDatagram::bind_addr(&address).unwrap();
        prepare(&directory.0).unwrap();
        let proxy = Proxy::bind(&directory.0, &format!("@{host}")).unwrap();
        let inside = UnixDatagram::unbound().unwrap();
        let notify = std::fs::File::open(directory.0.join("notify")).unwrap();
        inside.connect(format!("/proc/self/fd/{}/notify.sock", notify.as_raw_fd())).unwrap();
        (proxy, systemd, inside)
    }

    #[test]
    fn ready_is_forwarded_with_the_pid_and_the_barrier_is_awaited() {
        let directory = directory("ready");
        let (proxy, systemd, inside) = proxy(&directory);
        inside.send(b"STATUS=loading").unwrap();
        inside.send(b"STATUS=up\nREADY=1\n").unwrap();
        let child = program("sleep 1000");
        let acknowledge = std::thread::spawn(move || {
            let mut buffer = [0u8; 100];
            let n = systemd.recv(&mut buffer).unwrap();
            // recv without room for control data closes the fd that BARRIER=1 carries.
            let barrier = systemd.recv(&mut [0u8; 9]).unwrap();
            (String::from_utf8(buffer[..n].to_vec()).unwrap(), barrier)
        });
        proxy.until_ready(child.pid(), child.pidfd()).unwrap();
        let (message, barrier) = acknowledge.join().unwrap();
        assert_eq!(message, format!("READY=1\nMAINPID={}\n", child.pid()));
        assert_eq!(barrier, 9);
    }

    #[test]
    fn the_end_of_init_ends_the_waiting() {
        let directory = directory("end");
        let (proxy, systemd, _inside) = proxy(&directory);
        let child = program("exit 0");
        proxy.until_ready(child.pid(), child.pidfd()).unwrap();
        systemd.set_nonblocking(true).unwrap();
        assert!(systemd.recv(&mut [0u8; 9]).is_err());
    }

    #[test]
    fn sockets_pass_only_if_they_are_meant_for_us() {
        let env = |vars: &'static [(&str, &str)]| {
            move |name: &str| vars.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        };
        let ours = env(&[("LISTEN_FDS", "2"), ("LISTEN_PID", "7"), ("LISTEN_FDNAMES", "a:b")]);
        let listening_to = listening(ours, 7);
        assert_eq!(listening_to.count, 2);
        assert_eq!(listening_to.env, ["LISTEN_FDS=2", "LISTEN_PID=1", "LISTEN_FDNAMES=a:b"]);
        assert_eq!(listening(ours, 8), Listening::default());
        assert_eq!(listening(env(&[("LISTEN_FDS", "2")]), 7), Listening::default());
        assert_eq!(listening(env(&[("LISTEN_FDS", "-1"), ("LISTEN_PID", "7")]), 7), Listening::default());
    }
}
