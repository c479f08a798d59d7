//! Network namespaces, each bound to a file (ip-netns(8) does it so), so that it is there before the container is, and
//! stays while the container is started again.

#![forbid(unsafe_code)]

use super::firewall::Firewall;
use super::netlink::Socket;
use crate::error::{Context as _, Error, Result};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, mount_bind, unmount};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};
use std::fs::{self, File, OpenOptions};
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

const LOOPBACK: u32 = 1;

/// Makes a network namespace with its loopback up, and binds it to `path`; what a killed call left there is removed.
///
/// # Errors
/// Those of unshare(2), mount(2) and rtnetlink(7).
pub fn make_netns(path: &Path) -> Result<()> {
    remove_netns(path)?;
    OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o444)
        .open(path)
        .context(|| format!("create {}", path.display()))?;
    // unshare(2) is the calling thread's alone, and a thread that ends cannot leave anybody in the wrong place.
    let made = on_thread(|| {
        #[expect(deprecated, reason = "CLONE_NEWNET alone touches no memory and no file descriptors")]
        rustix::thread::unshare(UnshareFlags::NEWNET).context(|| "unshare network namespace")?;
        set_loopback_up()?;
        // What a network without IPv6 gives a container shall have no link-local address either; `lo` is there already and
        // keeps ::1. A kernel without IPv6 has no such file.
        let _ = fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
        mount_bind("/proc/thread-self/ns/net", path)
            .context(|| format!("bind network namespace to {}", path.display()))
    });
    if made.is_err() {
        let _ = fs::remove_file(path);
    }
    made
}

/// Sets the loopback of this network namespace up.
///
/// # Errors
/// Those of rtnetlink(7).
pub fn set_loopback_up() -> Result<()> {
    Socket::route()?.set_up(LOOPBACK)
}

/// Removes what [`make_netns`] made; the namespace itself goes with its last process. What is gone is no error.
///
/// # Errors
/// Those of umount(2) and unlink(2).
pub fn remove_netns(path: &Path) -> Result<()> {
    // Several, if it was bound twice; EINVAL says that it is no mount point.
    loop {
        match unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) => {}
            Err(Errno::INVAL | Errno::NOENT) => break,
            Err(e) => return Err(Error::from(e).context(format!("umount {}", path.display()))),
        }
    }
    match fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::from(e).context(format!("remove {}", path.display())))
        }
        _ => Ok(()),
    }
}

/// A network namespace that is there.
#[derive(Debug)]
pub struct Netns(File);

impl Netns {
    /// Opens the one that is bound to `path`, or `/proc/PID/ns/net`.
    ///
    /// # Errors
    /// Those of open(2).
    pub fn open(path: &Path) -> Result<Self> {
        let fd = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .context(|| format!("open network namespace {}", path.display()))?;
        Ok(Self(fd.into()))
    }

    /// The file.
    pub fn file(&self) -> &File {
        &self.0
    }

    /// Does something in it.
    ///
    /// # Errors
    /// Those of setns(2), and what `work` returns.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        on_thread(|| {
            move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network))
                .context(|| "setns network namespace")?;
            work()
        })
    }
}

/// Where links and tables are: in this network namespace, or in another.
#[derive(Debug)]
pub(super) struct HostNetwork {
    /// Nothing is this one.
    pub netns: Option<Netns>,
    /// Where the engine keeps its files.
    pub root: PathBuf,
}

impl HostNetwork {
    /// Does something there.
    ///
    /// # Errors
    /// Those of [`Netns::enter`].
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        match &self.netns {
            Some(netns) => netns.enter(work),
            None => work(),
        }
    }

    /// Its links.
    ///
    /// # Errors
    /// Those of socket(2).
    pub fn route(&self) -> Result<Socket> {
        self.enter(Socket::route)
    }

    /// Its tables.
    ///
    /// # Errors
    /// Those of socket(2).
    pub fn firewall(&self) -> Result<Firewall> {
        self.enter(|| Firewall::open(&self.root))
    }

    /// Whether it is another one, so that what comes to the host's ports does not come by it.
    pub fn is_elsewhere(&self) -> bool {
        self.netns.is_some()
    }
}

fn on_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().spawn_scoped(scope, work).context(|| "start a thread")?;
        thread.join().unwrap_or_else(|_| Err(Error::system("a thread panicked")))
    })
}
