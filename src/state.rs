//! What rrun remembers of a container: `ROOT/ID/`, made so that rrun may be killed at any instant.
//!
//! ```text
//! ROOT/ID/               the reservation: mkdir decides which of two creates wins; flock'd while one works
//! ROOT/ID/config.json    the bundle's, byte for byte: later changes have no effect (runtime.md, "create")
//! ROOT/ID/state.json     phase creating: the intent, written before the first cgroup is made
//!                        phase restoring: the same, and what is in the cgroups is the container's
//!                        phase created:  the record, put there when init waits for `start`
//! ROOT/ID/start.sock     where init waits; gone once `start` succeeded
//! ```
//!
//! A killed rrun leaves at most an intent whose lock is free. Such a container is `stopped`: `delete`
//! removes its cgroups and its directory as for any other. (runc writes its record after the cgroup and the
//! process, so a kill in between leaves both behind for good: runc #4757.) The intent and config.json are written where
//! they stay, as nothing else is there before; from then on `state.json` is replaced as a whole, and a file that does
//! not parse counts as an intent.
//!
//! Whether a container is `created` or `running` is not written anywhere, as no rrun can write it at the
//! instant of execve: init holds the listening socket of start.sock close-on-exec, so the kernel knows.

#![forbid(unsafe_code)]

use crate::error::{Call as _, Context as _, Error, Kind, Result};
use crate::file;
use crate::launch::protocol::retry;
use crate::mount_namespace::SharedMounts;
use crate::spec::read::{Read, document, record};
use crate::spec::write::writes;
use crate::spec::{Hooks, Spec};
use crate::sys::launch::{Cloned, clone3, exit_now};
use crate::sys::spawn::Exit;
use crate::sys::{self, Named as _};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use rustix::process::Pid;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

/// Where containers are recorded by root, unless `--root` says otherwise.
pub const SYSTEM_ROOT: &str = "/run/rrun";
const STATE: &str = "state.json";
/// What is to become state.json.
const HALF: &str = ".state.json";
const CONFIG: &str = "config.json";
/// The socket on which init waits.
pub const START: &str = "start.sock";

record! {
    /// The content of state.json.
    pub struct Record {
        /// `creating`, `restoring` or `created`.
        phase: String = "phase",
        /// Version of the specification in config.json.
        oci_version: String = "ociVersion",
        /// Container id.
        id: String = "id",
        /// Init's pid in the runtime's pid namespace; 0 while creating.
        pid: u32 = "pid",
        /// Field 22 of /proc/PID/stat: tells a recycled pid from init.
        start_time: u64 = "startTime",
        /// /proc/sys/kernel/random/boot_id: a record from before a reboot names no living process.
        boot_id: String = "bootId",
        /// Bundle directory.
        bundle: String = "bundle",
        /// Root filesystem.
        rootfs: String = "rootfs",
        /// When, RFC 3339 with nanoseconds.
        created: String = "created",
        /// User that created it.
        owner: u32 = "owner",
        /// Annotations of config.json.
        annotations: BTreeMap<String, String> = "annotations",
        /// cgroup directories by controllers.
        cgroups: Vec<CgroupPath> = "cgroups",
        /// `cgroupfs`, `systemd` or `disabled`: callers do not repeat the choice for kill and delete.
        cgroup_driver: String = "cgroupDriver",
        /// The scope, with systemd.
        unit: String = "systemdUnit",
        /// Whether it is one of the user's own systemd.
        user_unit: bool = "systemdUser",
        /// Whether it was created without privileges.
        rootless: bool = "rootless",
        /// resctrl directories that were made.
        rdt: Vec<String> = "intelRdtPaths",
        /// Mounts that do not end with its processes.
        shared_mounts: Option<SharedMounts> = "sharedMounts",
    }
}

writes!(Record {
    phase = "phase",
    oci_version = "ociVersion",
    id = "id",
    pid = "pid",
    start_time = "startTime",
    boot_id = "bootId",
    bundle = "bundle",
    rootfs = "rootfs",
    created = "created",
    owner = "owner",
    annotations = "annotations",
    cgroups = "cgroups",
    cgroup_driver = "cgroupDriver",
    unit = "systemdUnit",
    user_unit = "systemdUser",
    rootless = "rootless",
    rdt = "intelRdtPaths",
    shared_mounts = "sharedMounts",
});

record! {
    /// A cgroup directory of one hierarchy.
    pub struct CgroupPath {
        /// As in /proc/PID/cgroup: `cpu,cpuacct`, `name=systemd`, or empty for cgroup v2.
        controllers: String = "controllers",
        /// Absolute path.
        path: String = "path",
    }
}

writes!(CgroupPath { controllers = "controllers", path = "path" });

record! {
    /// As much of config.json as `start` and `delete` need.
    pub struct HooksOnly {
        /// As in [`Spec`].
        hooks: Hooks = "hooks",
    }
}

/// `status` of the state (runtime.md, "State"), and `paused`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// A `create` is at work.
    Creating,
    /// Init waits for `start`.
    Created,
    /// The process runs.
    Running,
    /// It is frozen.
    Paused,
    /// It has ended, or its creation was interrupted.
    Stopped,
}

impl Status {
    /// The word in the state.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

/// The directory below which containers are recorded.
#[derive(Debug)]
pub struct Root {
    path: PathBuf,
    dir: OwnedFd,
}

/// A container's directory.
#[derive(Debug)]
pub struct Slot {
    id: String,
    root: OwnedFd,
    dir: OwnedFd,
}

/// A directory that this process has made and removes again unless [`Reserved::keep`] is called.
#[derive(Debug)]
pub struct Reserved(Option<Slot>);

impl Root {
    /// Opens the directory, making it first if need be.
    ///
    /// # Errors
    /// One that others could write is refused: what stands in it is trusted later.
    pub fn open_or_make(path: &Path) -> Result<Self> {
        if let Err(e) = rustix::fs::mkdir(path, Mode::from_raw_mode(0o711)) {
            if e == Errno::NOENT {
                make_parents(path)?;
            } else if e != Errno::EXIST {
                return Err(refused(path, Error::sys(format!("mkdir {}", path.display()), e)));
            }
        }
        Self::open(path)
    }

    /// Waits for the lock of the directory itself, which lasts as long as the fd.
    ///
    /// # Errors
    /// flock(2).
    pub fn lock(self) -> Result<OwnedFd> {
        let flock = || rustix::fs::flock(&self.dir, FlockOperation::LockExclusive);
        retry(flock).call(|| format!("flock {}", self.path.display()))?;
        Ok(self.dir)
    }

    /// Opens an existing directory.
    ///
    /// # Errors
    /// Those of open(2); also one that is not owned by this user or root, or that others may write.
    pub fn open(path: &Path) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(path, flags, Mode::empty())
            .call(|| format!("open {}", path.display()))
            .map_err(|e| refused(path, e))?;
        let stat = rustix::fs::fstat(&dir).call(|| format!("fstat {}", path.display()))?;
        let owner_ok = stat.st_uid == 0 || stat.st_uid == rustix::process::geteuid().as_raw();
        if !owner_ok || (stat.st_mode & 0o022 != 0 && stat.st_mode & 0o1000 == 0) {
            return Err(Error::new(format!("--root {}: others may write there", path.display()))
                .remedy("use a directory of your own with mode 0700"));
        }
        Ok(Self { path: path.to_owned(), dir })
    }

    /// The path as given.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reserves an id.
    ///
    /// # Errors
    /// `container with given ID already exists`.
    pub fn reserve(&self, id: &str) -> Result<Reserved> {
        match rustix::fs::mkdirat(&self.dir, id, Mode::from_raw_mode(0o711)) {
            Err(Errno::EXIST) => {
                return Err(Error::kind(
                    Kind::State,
                    format!("container with given ID already exists: {id}"),
                ));
            }
            other => other.call(|| format!("mkdir {}/{id}", self.path.display()))?,
        }
        let slot = self.slot(id).inspect_err(|_| {
            let _ = rustix::fs::unlinkat(&self.dir, id, AtFlags::REMOVEDIR);
        })?;
        match slot.lock() {
            // A new one of this name is not ours to remove.
            Err(e) if e.what() == Kind::NoContainer => Err(e),
            locked => {
                let reserved = Reserved(Some(slot));
                locked.map(|()| reserved)
            }
        }
    }

    /// Opens a container's directory.
    ///
    /// # Errors
    /// `container does not exist`.
    pub fn slot(&self, id: &str) -> Result<Slot> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        match rustix::fs::openat(&self.dir, id, flags, Mode::empty()) {
            Ok(dir) => {
                // In a directory that others may write too, as /tmp, they could have put one there.
                let owner = rustix::fs::fstat(&dir).call(|| format!("fstat {id}"))?.st_uid;
                if owner != 0 && owner != rustix::process::geteuid().as_raw() {
                    return Err(Error::new(format!("{}/{id} belongs to user {owner}", self.path.display())));
                }
                let root = rustix::io::fcntl_dupfd_cloexec(&self.dir, 3).call(|| "fcntl")?;
                Ok(Slot { id: id.to_owned(), root, dir })
            }
            Err(Errno::NOENT | Errno::NOTDIR) => Err(no_container(id)),
            Err(e) => Err(Error::sys(format!("open {}/{id}", self.path.display()), e)),
        }
    }

    /// The ids of all containers, sorted.
    ///
    /// # Errors
    /// Those of reading the directory.
    pub fn ids(&self) -> Result<Vec<String>> {
        let mut ids = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.dir).call(|| format!("open {}", self.path.display()))? {
            let entry = entry.call(|| format!("getdents {}", self.path.display()))?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            if !matches!(entry.file_type(), rustix::fs::FileType::Directory | rustix::fs::FileType::Unknown) {
                continue;
            }
            if name != "." && name != ".." {
                ids.push(name.to_owned());
            }
        }
        ids.sort_unstable();
        Ok(ids)
    }
}

/// There is none of this id.
pub fn no_container(id: &str) -> Error {
    Error::kind(Kind::NoContainer, format!("container does not exist: {id}"))
}

fn refused(path: &Path, e: Error) -> Error {
    let e = e.context("--root");
    match e.errno() {
        Some(Errno::ACCESS | Errno::PERM) if path == Path::new(SYSTEM_ROOT) => {
            e.remedy("XDG_RUNTIME_DIR is not set: log in, or give --root a directory of your own")
        }
        _ => e,
    }
}

fn make_parents(path: &Path) -> Result<()> {
    let missing: Vec<&Path> = path.ancestors().take_while(|p| !p.as_os_str().is_empty()).collect();
    for dir in missing.into_iter().rev() {
        match rustix::fs::mkdir(dir, Mode::from_raw_mode(0o711)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(Error::sys(format!("mkdir {}", dir.display()), e).context("--root")),
        }
    }
    Ok(())
}

impl Reserved {
    /// The directory.
    ///
    /// # Errors
    /// None in practice: it is there until [`Reserved::keep`].
    pub fn slot(&self) -> Result<&Slot> {
        self.0.as_ref().ok_or_else(|| Error::new("the reservation is gone"))
    }

    /// Keeps the directory; the lock goes with the returned value.
    ///
    /// # Errors
    /// As [`Reserved::slot`].
    pub fn keep(mut self) -> Result<Slot> {
        self.0.take().ok_or_else(|| Error::new("the reservation is gone"))
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if let Some(slot) = self.0.take() {
            // The error that led here is the one to tell.
            let _ = slot.remove();
        }
    }
}

impl Slot {
    /// The id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The directory itself.
    pub fn dir(&self) -> impl AsFd {
        self.dir.as_fd()
    }

    /// Takes the container's lock without waiting; it is held until the last copy of the fd is closed, by
    /// SIGKILL at the latest.
    ///
    /// # Errors
    /// EWOULDBLOCK if another rrun works on this container; `container does not exist` if one has deleted it since it was
    /// opened.
    pub fn lock(&self) -> Result<()> {
        // Who only looks, in `is_locked`, holds a shared lock for an instant; that must not fail a create.
        let mut tries = 0;
        loop {
            match retry(|| rustix::fs::flock(&self.dir, FlockOperation::NonBlockingLockExclusive)) {
                Err(Errno::WOULDBLOCK) if tries < 1000 && !self.is_locked()? => tries += 1,
                Err(Errno::WOULDBLOCK) => {
                    let text = format!("flock: another rrun works on container {}", self.id);
                    return Err(Error::sys(text, Errno::WOULDBLOCK));
                }
                other => {
                    other.call(|| format!("flock {}", self.id))?;
                    break;
                }
            }
            rustix::thread::sched_yield();
        }
        match rustix::fs::fstat(&self.dir).call(|| format!("fstat {}", self.id))?.st_nlink {
            0 => Err(no_container(&self.id).remedy("it was deleted meanwhile")),
            _ => Ok(()),
        }
    }

    /// Gives the lock back.
    ///
    /// # Errors
    /// None in practice.
    pub fn unlock(&self) -> Result<()> {
        retry(|| rustix::fs::flock(&self.dir, FlockOperation::Unlock)).call(|| format!("flock {}", self.id))
    }

    /// Waits for the lock, and says whether it was free in time.
    ///
    /// flock(2) waits without end, so it is a child that calls it: what the child locks is the file that it has open
    /// together with us.
    ///
    /// # Errors
    /// clone3, poll, flock.
    pub fn lock_within(&self, limit: Duration) -> Result<bool> {
        let here = rustix::process::getpid();
        let Cloned::Parent(_, child) = clone3(0, None)? else {
            let _ = crate::sys::task::set_parent_death_signal(libc::SIGKILL);
            // Whom we would outlive is gone already.
            if rustix::process::getppid() != Some(here) {
                exit_now(0);
            }
            let locked = retry(|| rustix::fs::flock(&self.dir, FlockOperation::LockExclusive));
            exit_now(locked.map_or_else(Errno::raw_os_error, |()| 0))
        };
        let limit = Timespec::try_from(limit).unwrap_or_default();
        let ended =
            retry(|| poll(&mut [PollFd::new(&child, PollFlags::IN)], Some(&limit))).call(|| "poll")? > 0;
        if !ended {
            let _ = rustix::process::pidfd_send_signal(&child, rustix::process::Signal::KILL);
        }
        match crate::sys::spawn::wait(child.as_fd())? {
            Exit::Code(0) => Ok(true),
            Exit::Code(errno) => {
                let errno = Errno::from_raw_os_error(errno.into());
                Err(Error::sys(format!("flock {}", self.id), errno))
            }
            Exit::Signal(_) => Ok(false),
        }
    }

    /// A pidfd of the process that has taken the lock, as the kernel tells in /proc/locks.
    ///
    /// # Errors
    /// Those of open(2).
    pub fn holder(&self) -> Result<Option<OwnedFd>> {
        let stat = rustix::fs::fstat(&self.dir).call(|| format!("fstat {}", self.id))?;
        let same = |path: &Path| {
            rustix::fs::stat(path).is_ok_and(|s| (s.st_dev, s.st_ino) == (stat.st_dev, stat.st_ino))
        };
        let locks = file::read("/proc/locks")?;
        for pid in locks.lines().filter_map(|line| locker(line, stat.st_ino)) {
            // Opened before the check. The number of a file system is not the same there as in stat(2) everywhere
            // (Btrfs), and the number of the process may be another's by now: it must be one that has this open.
            let pidfd = match rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) {
                Err(Errno::SRCH | Errno::INVAL) => continue,
                pidfd => pidfd.call(|| format!("pidfd_open {}", pid.as_raw_nonzero()))?,
            };
            let fds = std::fs::read_dir(format!("/proc/{}/fd", pid.as_raw_nonzero()));
            if fds.into_iter().flatten().flatten().any(|fd| same(&fd.path())) {
                return Ok(Some(pidfd));
            }
        }
        Ok(None)
    }

    /// Whether another rrun holds the lock.
    ///
    /// # Errors
    /// openat(2), flock(2).
    pub fn is_locked(&self) -> Result<bool> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let again = match rustix::fs::openat(&self.dir, ".", flags, Mode::empty()) {
            // Removed meanwhile.
            Err(Errno::NOENT) => return Ok(false),
            again => again.call(|| format!("open {}", self.id))?,
        };
        match retry(|| rustix::fs::flock(&again, FlockOperation::NonBlockingLockShared)) {
            Err(Errno::WOULDBLOCK) => Ok(true),
            other => other.map(|()| false).call(|| format!("flock {}", self.id)),
        }
    }

    /// Writes the first state.json: the intent. Half of it reads as an intent that names nothing, and nothing is there
    /// before this returns.
    ///
    /// # Errors
    /// ENOSPC and its like.
    pub fn write_intent(&self, record: &Record) -> Result<()> {
        self.put(STATE, OFlags::EXCL, &record.encode()?)
    }

    /// Replaces state.json as a whole.
    ///
    /// # Errors
    /// ENOSPC and its like.
    pub fn write(&self, record: &Record) -> Result<()> {
        self.prepare(record)?;
        self.replace()?;
        self.forget_replaced();
        Ok(())
    }

    /// Writes what [`Slot::replace`] is to make state.json.
    ///
    /// # Errors
    /// ENOSPC and its like.
    pub fn prepare(&self, record: &Record) -> Result<()> {
        // Only the holder of the lock writes, so that one name for the half-written file is enough and one
        // that a killed rrun left is simply overwritten.
        self.put(HALF, OFlags::TRUNC, &record.encode()?)
    }

    /// Replaces state.json by what was prepared.
    ///
    /// # Errors
    /// Those of rename(2).
    pub fn replace(&self) -> Result<()> {
        // ext4 begins to write a file to the disk when it is renamed over another (auto_da_alloc), 0.2 ms for what no
        // reboot outlives; not when the two are exchanged.
        match rustix::fs::renameat_with(&self.dir, HALF, &self.dir, STATE, RenameFlags::EXCHANGE) {
            Ok(()) => Ok(()),
            // Not every file system can.
            Err(_) => rustix::fs::renameat(&self.dir, HALF, &self.dir, STATE)
                .call(|| format!("rename {}/{HALF}", self.id)),
        }
    }

    /// Removes what [`Slot::replace`] has put aside, for which nobody waits.
    pub fn forget_replaced(&self) {
        let _ = rustix::fs::unlinkat(&self.dir, HALF, AtFlags::empty());
    }

    /// Keeps the bundle's config.json. Nobody reads it before the record that follows.
    ///
    /// # Errors
    /// ENOSPC and its like.
    pub fn write_config(&self, text: &[u8]) -> Result<()> {
        self.put(CONFIG, OFlags::EXCL, text)
    }

    fn put(&self, name: &str, how: OFlags, text: &[u8]) -> Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW | how;
        let file = rustix::fs::openat(&self.dir, name, flags, Mode::from_raw_mode(0o600))
            .call(|| format!("open {}/{name}", self.id))?;
        file::write_all(file, text).call(|| format!("write {}/{name}", self.id))
    }

    fn read_file(&self, name: &str) -> Result<Vec<u8>> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = rustix::fs::openat(&self.dir, name, flags, Mode::empty())
            .call(|| format!("open {}/{name}", self.id))?;
        file::read_to_end(file).call(|| format!("read {}/{name}", self.id))
    }

    /// state.json; a missing or broken one reads as an intent that names nothing.
    ///
    /// # Errors
    /// `container does not exist` if the directory has been removed meanwhile.
    pub fn read(&self) -> Result<Record> {
        match self.read_file(STATE) {
            Ok(text) => Ok(Record::parse(&text, &self.id)),
            Err(e) if e.errno() == Some(Errno::NOENT) => {
                if self.is_removed()? {
                    return Err(no_container(&self.id));
                }
                Ok(Record::intent(&self.id))
            }
            Err(e) => Err(e),
        }
    }

    /// The kept config.json.
    ///
    /// # Errors
    /// `container does not exist` if a delete is at work; those of open(2), or of its content, which was good at create.
    pub fn read_config(&self) -> Result<Spec> {
        let mut spec: Spec = self.read_of_config()?;
        crate::plan::annotations::apply(&mut spec);
        Ok(spec)
    }

    /// Its `hooks` alone: the rest is passed over, which takes a fraction of the time.
    ///
    /// # Errors
    /// Those of [`Slot::read_config`].
    pub fn read_hooks(&self) -> Result<Hooks> {
        Ok(self.read_of_config::<HooksOnly>()?.hooks)
    }

    fn read_of_config<T: Read>(&self) -> Result<T> {
        let text = match self.read_file(CONFIG) {
            Err(e) if e.errno() == Some(Errno::NOENT) && (self.is_locked()? || self.is_removed()?) => {
                return Err(no_container(&self.id));
            }
            text => text?,
        };
        document(&text).map_err(|e| Error::new(format!("{}/{CONFIG}: {e}", self.id)))
    }

    fn is_removed(&self) -> Result<bool> {
        Ok(rustix::fs::fstat(&self.dir).call(|| format!("fstat {}", self.id))?.st_nlink == 0)
    }

    /// Removes start.sock: `start` has succeeded.
    pub fn started(&self) {
        let _ = rustix::fs::unlinkat(&self.dir, START, AtFlags::empty());
    }

    /// Removes the directory with what rrun put there.
    ///
    /// # Errors
    /// Those of rmdir(2), such as ENOTEMPTY for what others put there.
    pub fn remove(self) -> Result<()> {
        // state.json goes last: until then a killed delete finds everything that it needs to be repeated.
        self.unlink(&[CONFIG, STATE])?;
        let rmdir = || rustix::fs::unlinkat(&self.root, &self.id, AtFlags::REMOVEDIR);
        let removed = match rmdir() {
            // What most containers do not have, at this point of their life.
            Err(Errno::NOTEMPTY | Errno::EXIST) => {
                self.unlink(&[HALF, START, "notify/notify.sock"])?;
                for name in ["notify", crate::criu::DIRECTORY] {
                    let _ = rustix::fs::unlinkat(&self.dir, name, AtFlags::REMOVEDIR);
                }
                rmdir()
            }
            removed => removed,
        };
        match removed {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(e) => Err(Error::sys(format!("rmdir {}", self.id), e)),
        }
    }

    fn unlink(&self, names: &[&str]) -> Result<()> {
        names.iter().try_for_each(|name| match rustix::fs::unlinkat(&self.dir, *name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT | Errno::NOTDIR) => Ok(()),
            Err(e) => Err(Error::sys(format!("unlink {}/{name}", self.id), e)),
        })
    }
}

/// Who holds the lock of this line of /proc/locks, if it is flock(2)'s for writing on this inode. An arrow stands before
/// those who wait.
fn locker(line: &str, inode: u64) -> Option<Pid> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let lock = [fields.next()?, fields.next()?, fields.next()?];
    let (pid, file) = (fields.next()?, fields.next()?);
    let is_it = file.rsplit(':').next()?.parse() == Ok(inode);
    let pid = (lock == ["FLOCK", "ADVISORY", "WRITE"] && is_it).then_some(pid)?;
    Pid::from_raw(pid.parse().ok()?)
}

/// Identity of a process that no recycled pid shares.
///
/// # Errors
/// ENOENT or ESRCH if there is no such process.
pub fn start_time(pid: u32) -> Result<u64> {
    stat(pid).map(|(_, time)| time)
}

/// State letter and start time of a process (proc_pid_stat(5), fields 3 and 22).
fn stat(pid: u32) -> Result<(u8, u64)> {
    let path = format!("/proc/{pid}/stat");
    let text = file::read(&path)?;
    let unknown = || Error::new(format!("{path}: cannot understand {text:?}"));
    // The second field is the name in brackets, which may itself hold brackets and blanks.
    let rest = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next().and_then(|field| field.bytes().next()).ok_or_else(unknown)?;
    let time = fields.nth(18).and_then(|field| field.parse().ok()).ok_or_else(unknown)?;
    Ok((state, time))
}

/// The id of this boot; empty where the kernel does not tell.
///
/// # Errors
/// Those of open(2) and read(2): a container of this boot must not pass for one of another, which has ended.
pub fn boot_id() -> Result<&'static str> {
    static READ: OnceLock<String> = OnceLock::new();
    if let Some(id) = READ.get() {
        return Ok(id);
    }
    let id = file::read_if_there("/proc/sys/kernel/random/boot_id")?;
    Ok(READ.get_or_init(|| id.unwrap_or_default().trim().to_owned()))
}

impl Record {
    /// The text of state.json.
    ///
    /// # Errors
    /// None that is known: every field can be written.
    pub fn encode(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(|e| Error::new(format!("state.json: {e}")))
    }

    /// What the text of state.json says; a broken one is the intent that names nothing, of the container `id`.
    pub fn parse(text: &[u8], id: &str) -> Self {
        document::<Self>(text).ok().filter(|r| !r.phase.is_empty()).unwrap_or_else(|| Self::intent(id))
    }

    fn intent(id: &str) -> Self {
        Self { phase: "creating".into(), id: id.to_owned(), ..Self::default() }
    }

    /// A pidfd of init, if init lives: of this boot, of this start time, and not a zombie.
    ///
    /// # Errors
    /// pidfd_open, open: what cannot be told must not pass for an ended container, which `delete` removes.
    pub fn init(&self) -> Result<Option<OwnedFd>> {
        if self.boot_id != boot_id()? {
            return Ok(None);
        }
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else {
            return Ok(None);
        };
        // Opened before the check, so that it is this very process that the check is about.
        let pidfd = match rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) {
            // EINVAL: a thread's number now.
            Err(Errno::SRCH | Errno::INVAL) => return Ok(None),
            pidfd => pidfd.call(|| format!("pidfd_open {}", self.pid))?,
        };
        match stat(self.pid) {
            Ok((b'Z' | b'X', _)) => Ok(None),
            Ok((_, time)) => Ok((time == self.start_time).then_some(pidfd)),
            Err(e) if matches!(e.errno(), Some(Errno::NOENT | Errno::SRCH)) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// The status but for `paused`, which only the cgroup knows.
    ///
    /// # Errors
    /// Those of [`Record::init`], and of connecting to start.sock.
    pub fn status(&self, slot: &Slot) -> Result<Status> {
        if self.phase != "created" {
            return Ok(if slot.is_locked()? { Status::Creating } else { Status::Stopped });
        }
        if self.init()?.is_none() {
            return Ok(Status::Stopped);
        }
        Ok(if waits(slot)? { Status::Created } else { Status::Running })
    }
}

/// Whether init waits at start.sock.
fn waits(slot: &Slot) -> Result<bool> {
    match connect(slot) {
        Ok(_) => Ok(true),
        Err(e) => match e.errno {
            // A full backlog is one of other callers that found it waiting.
            Errno::AGAIN => Ok(true),
            Errno::NOENT | Errno::CONNREFUSED => Ok(false),
            _ => Err(Error::from(e).context(format!("{}/{START}", slot.id))),
        },
    }
}

/// Connects to init.
///
/// # Errors
/// ENOENT or ECONNREFUSED once the process runs.
pub fn connect(slot: &Slot) -> sys::Result<OwnedFd> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType};
    // Looked up first: a running container, the common case, costs one call.
    rustix::fs::statat(&slot.dir, START, AtFlags::SYMLINK_NOFOLLOW).named("fstatat")?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None);
    let socket = socket.named("socket")?;
    let address = start_address(slot).named("connect")?;
    retry(|| rustix::net::connect(&socket, &address)).named("connect")?;
    rustix::io::ioctl_fionbio(&socket, false).named("ioctl FIONBIO")?;
    Ok(socket)
}

/// The socket on which init will wait. It is the process's before anyone can find it, which [`listen`] does.
///
/// # Errors
/// Those of socket(2).
pub fn socket(slot: &Slot) -> Result<OwnedFd> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType};
    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None);
    socket.call(|| "socket").context(|| format!("{}/{START}", slot.id))
}

/// Puts that socket into the container's directory.
///
/// # Errors
/// Those of bind(2).
pub fn listen(slot: &Slot, socket: &OwnedFd) -> Result<()> {
    let what = || format!("{}/{START}", slot.id);
    let address = start_address(slot).call(|| "bind").context(what)?;
    rustix::net::bind(socket, &address).call(|| "bind").context(what)?;
    let mode = Mode::from_raw_mode(0o600);
    rustix::fs::chmodat(&slot.dir, START, mode, AtFlags::empty()).call(|| "fchmodat").context(what)?;
    rustix::net::listen(socket, 16).call(|| "listen").context(what)
}

/// By way of the directory's fd, as a whole path may not fit in the 108 bytes of an address (unix(7)).
fn start_address(slot: &Slot) -> Result<rustix::net::SocketAddrUnix, Errno> {
    use rustix::fd::AsRawFd;
    rustix::net::SocketAddrUnix::new(format!("/proc/self/fd/{}/{START}", slot.dir.as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fd::AsRawFd as _;

    fn root(name: &str) -> (PathBuf, Root) {
        let path = std::env::temp_dir().join(format!("rrun-state-{}-{name}", std::process::id()));
        let root = Root::open_or_make(&path).expect("root");
        (path, root)
    }

    #[test]
    fn an_id_is_reserved_once_and_freed_by_drop() {
        let (path, root) = root("once");
        let first = root.reserve("a").expect("reserve");
        let e = root.reserve("a").expect_err("a second time");
        assert!(e.to_string().contains("container with given ID already exists"));
        drop(first);
        drop(root.reserve("a").expect("free again"));
        std::fs::remove_dir(path).expect("nothing is left");
    }

    #[test]
    fn what_was_deleted_since_it_was_opened_is_not_locked() {
        let (path, root) = root("deleted");
        drop(root.reserve("a").expect("reserve").keep().expect("keep"));
        let (late, first) = (root.slot("a").expect("open"), root.slot("a").expect("open"));
        first.lock().expect("lock");
        first.remove().expect("remove");
        assert_eq!(late.lock().expect_err("it is gone").what(), Kind::NoContainer);
        // Nor does it take a new one for the old.
        let new = root.reserve("a").expect("reserve");
        assert_eq!(late.lock().expect_err("it is gone").what(), Kind::NoContainer);
        root.slot("a").expect("still there");
        drop(new);
        std::fs::remove_dir(path).expect("nothing is left");
    }

    #[test]
    fn an_intent_is_creating_while_its_maker_lives_and_then_stopped() {
        let (path, root) = root("intent");
        let reserved = root.reserve("a").expect("reserve");
        let slot = root.slot("a").expect("open");
        let record = slot.read().expect("read");
        assert_eq!(record.status(&slot).expect("status"), Status::Creating);
        let kept = reserved.keep().expect("keep");
        drop(kept);
        assert_eq!(slot.read().expect("read").status(&slot).expect("status"), Status::Stopped);
        slot.remove().expect("remove");
        std::fs::remove_dir(path).expect("nothing is left");
    }

    #[test]
    fn a_recycled_pid_or_another_boot_is_not_init() {
        let pid = std::process::id();
        let record = Record {
            phase: "created".into(),
            pid,
            start_time: start_time(pid).expect("own start time"),
            boot_id: boot_id().expect("boot id").to_owned(),
            ..Record::default()
        };
        assert!(record.init().expect("init").is_some());
        assert!(
            Record { start_time: record.start_time + 1, ..record.clone() }.init().expect("init").is_none()
        );
        assert!(Record { boot_id: "x".into(), ..record.clone() }.init().expect("init").is_none());
    }

    #[test]
    fn created_is_what_a_listening_init_is() {
        let (path, root) = root("listen");
        let slot = root.reserve("a").expect("reserve").keep().expect("keep");
        let pid = std::process::id();
        let record = Record {
            phase: "created".into(),
            pid,
            start_time: start_time(pid).expect("own start time"),
            boot_id: boot_id().expect("boot id").to_owned(),
            ..Record::default()
        };
        let socket = socket(&slot).expect("socket");
        listen(&slot, &socket).expect("listen");
        assert_eq!(record.status(&slot).expect("status"), Status::Created);
        drop(socket);
        assert_eq!(record.status(&slot).expect("status"), Status::Running);
        slot.remove().expect("remove");
        std::fs::remove_dir(path).expect("nothing is left");
    }

    #[test]
    fn a_record_is_read_back_and_a_torn_one_is_an_intent() {
        let (path, root) = root("torn");
        let slot = root.reserve("a").expect("reserve").keep().expect("keep");
        let record = Record {
            phase: "created".into(),
            id: "a".into(),
            pid: 7,
            cgroups: vec![CgroupPath { controllers: "memory".into(), path: "/x".into() }],
            annotations: [("k".to_owned(), "v".to_owned())].into(),
            ..Record::default()
        };
        slot.write(&record).expect("write");
        assert_eq!(slot.read().expect("read"), record);
        slot.put(STATE, OFlags::TRUNC, b"{\"phase\":\"cre").expect("write");
        assert_eq!(slot.read().expect("read").phase, "creating");
        slot.remove().expect("remove");
        std::fs::remove_dir(path).expect("nothing is left");
    }

    #[test]
    fn a_held_lock_is_waited_for_and_its_holder_is_known() {
        let (path, root) = root("holder");
        let held = root.reserve("a").expect("reserve");
        let slot = root.slot("a").expect("open");
        assert!(!slot.lock_within(Duration::from_millis(1)).expect("lock"));
        let holder = slot.holder().expect("holder").expect("somebody");
        let own =
            std::fs::read_to_string(format!("/proc/self/fdinfo/{}", holder.as_raw_fd())).expect("fdinfo");
        assert!(own.contains(&format!("\nPid:\t{}\n", std::process::id())), "{own}");
        let held = held.keep().expect("keep");
        drop(held);
        assert!(slot.holder().expect("holder").is_none());
        assert!(slot.lock_within(Duration::from_secs(60)).expect("lock"));
        assert!(root.slot("a").expect("open").is_locked().expect("flock"), "the child's lock is ours");
        slot.remove().expect("remove");
        std::fs::remove_dir(path).expect("nothing is left");
    }

    #[test]
    fn the_holder_stands_in_the_line_of_its_lock() {
        let of = |line: &str| locker(line, 77).map(|pid| pid.as_raw_nonzero().get());
        assert_eq!(of("1: FLOCK  ADVISORY  WRITE 12 00:1a:77 0 EOF"), Some(12));
        assert_eq!(of("1: FLOCK  ADVISORY  WRITE 12 00:1a:78 0 EOF"), None);
        assert_eq!(of("1: -> FLOCK  ADVISORY  WRITE 12 00:1a:77 0 EOF"), None);
        assert_eq!(of("2: FLOCK  ADVISORY  READ  12 00:1a:77 0 EOF"), None);
        assert_eq!(of("3: OFDLCK ADVISORY  WRITE -1 00:1a:77 0 EOF"), None);
        assert_eq!(of("4: POSIX  ADVISORY  WRITE 12 00:1a:77 0 EOF"), None);
    }

    #[test]
    fn a_config_that_a_delete_takes_away_is_no_container() {
        let (path, root) = root("config");
        let held = root.reserve("a").expect("reserve");
        let slot = root.slot("a").expect("open");
        assert_eq!(slot.read_config().expect_err("locked").what(), Kind::NoContainer);
        held.slot().expect("slot").write_config(b"{}").expect("write");
        slot.read_config().expect("there");
        let held = held.keep().expect("keep");
        rustix::fs::unlinkat(held.dir(), CONFIG, AtFlags::empty()).expect("unlink");
        drop(held);
        assert_eq!(slot.read_config().expect_err("damaged").errno(), Some(Errno::NOENT));
        root.slot("a").expect("open").remove().expect("remove");
        assert_eq!(slot.read_config().expect_err("removed").what(), Kind::NoContainer);
        std::fs::remove_dir(path).expect("nothing is left");
    }

    #[test]
    fn a_root_that_others_may_write_is_refused() {
        let (path, _) = root("open");
        std::process::Command::new("chmod").arg("0777").arg(&path).status().expect("chmod");
        let e = Root::open(&path).expect_err("0777");
        assert!(e.to_string().contains("others may write there"), "{e}");
        std::fs::remove_dir(path).expect("rmdir");
    }
}
