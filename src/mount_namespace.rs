//! Work in another mount namespace than ours, and the mounts of a container that has none of its own.
//!
//! Such mounts lie below the container's root in the runtime's namespace or in the one it joins, and do not end with
//! its processes. So the root is bound onto itself first ([`crate::rootfs`]): what is mounted in it goes with that one
//! mount. Which mount the root was on before is noted with the intent, as that is the engine's and must stay. One the
//! kernel takes along all the same: a bind of the root onto itself in a shared mount, which shows the same directory.

#![forbid(unsafe_code)]

use crate::error::{Call, Context, Error, Result};
use crate::plan::{Kind, Plan};
use crate::rootfs::mount_id;
use crate::spec::read::record;
use crate::spec::write::writes;
use crate::sys::launch::setns;
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::UnmountFlags;

/// File of our own mount namespace; of the thread, as a test has several.
pub const OWN: &str = "/proc/thread-self/ns/mnt";

/// Does `work` where `enter` has brought us, by unshare(2) or setns(2), and comes back to our root and directory
/// in our mount namespace.
///
/// # Errors
/// Those of `enter`, after which we are where we were, of `work`, and of the way back.
pub fn visit<T>(enter: impl FnOnce() -> Result<()>, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let namespace = open(OWN, OFlags::RDONLY)?;
    // setns(2) gives us the namespace's root, which after chroot(2) is not ours.
    let (root, directory) = (open("/", OFlags::PATH)?, open(".", OFlags::PATH)?);
    enter()?;
    let done = work();
    let back = || "return to the host's mount namespace";
    setns(&namespace, Kind::Mount.flag()).context(back)?;
    rustix::process::fchdir(&root).call(|| "fchdir").context(back)?;
    rustix::process::chroot(".").call(|| "chroot").context(back)?;
    rustix::process::fchdir(&directory).call(|| "fchdir").context(back)?;
    done
}

fn open(path: &str, flags: OFlags) -> Result<OwnedFd> {
    rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty()).call(|| format!("open {path}"))
}

record! {
    /// Where a container's mounts are that do not end with it.
    pub struct SharedMounts {
        /// Path of the joined namespace; empty for the runtime's.
        namespace: String = "namespace",
        /// Its inode: the path may come to name another, and our own differs from command to command.
        inode: u64 = "inode",
        /// The root filesystem.
        root: String = "root",
        /// Id of the mount that the root was on.
        below: u64 = "mountId",
    }
}

writes!(SharedMounts { namespace = "namespace", inode = "inode", root = "root", below = "mountId" });

impl SharedMounts {
    /// Before anything is mounted; none where the mounts are the container's own, or there are none.
    ///
    /// # Errors
    /// The namespace or the root cannot be reached.
    pub fn of(plan: &Plan) -> Result<Option<Self>> {
        if !plan.rootfs.shares_mounts() {
            return Ok(None);
        }
        let namespace = plan.namespaces.joins(Kind::Mount).map(|path| path.display().to_string());
        let root = plan.rootfs.path.display().to_string();
        let mut shared = Self { namespace: namespace.unwrap_or_default(), root, ..Self::default() };
        let there = open(shared.path(), OFlags::RDONLY).context(|| "linux.namespaces: mount")?;
        shared.inode = rustix::fs::fstat(&there).call(|| "fstat")?.st_ino;
        shared.below =
            shared.visit(&there, || open(&shared.root, OFlags::PATH).and_then(|fd| Ok(mount_id(fd)?)))?;
        // statx tells it since Linux 5.8; without it they could not be told from the engine's afterwards.
        if shared.below == 0 {
            return Err(Error::config(
                "mounts",
                "without a mount namespace of the container's own: no id of a mount",
            )
            .remedy("add {\"type\": \"mount\"} to linux.namespaces, or use Linux 5.8"));
        }
        Ok(Some(shared))
    }

    /// Takes the root, and all that was mounted in it, out of the namespace, unless that is gone or it was not
    /// mounted.
    ///
    /// # Errors
    /// setns(2), umount2(2).
    pub fn remove(&self) -> Result<()> {
        let there = match open(self.path(), OFlags::RDONLY) {
            Err(e) if matches!(e.errno(), Some(Errno::NOENT | Errno::SRCH)) => return Ok(()),
            other => other?,
        };
        if rustix::fs::fstat(&there).call(|| "fstat")?.st_ino != self.inode {
            return Ok(());
        }
        self.visit(&there, || {
            let id = match open(&self.root, OFlags::PATH) {
                Err(e) if e.errno() == Some(Errno::NOENT) => return Ok(()),
                root => mount_id(root?)?,
            };
            if id == self.below {
                return Ok(());
            }
            rustix::mount::unmount(&*self.root, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
                .call(|| format!("umount2 {}", self.root))
        })
    }

    fn path(&self) -> &str {
        if self.namespace.is_empty() { OWN } else { &self.namespace }
    }

    fn visit<T>(&self, there: &OwnedFd, work: impl FnOnce() -> Result<T>) -> Result<T> {
        if self.namespace.is_empty() {
            return work();
        }
        let enter = || setns(there, Kind::Mount.flag()).map_err(Error::from);
        visit(|| enter().context(|| format!("mount namespace {}", self.namespace)), work)
    }
}

/// Removes them when dropped, unless the container is kept.
#[derive(Debug)]
pub struct Undo(pub Option<SharedMounts>);

impl Drop for Undo {
    fn drop(&mut self) {
        // The error that led here is the one to tell.
        let _ = self.0.take().map(|shared| shared.remove());
    }
}
