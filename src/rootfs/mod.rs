//! Makes the root filesystem, inside the child, from a [`RootfsPlan`].
//!
//! [`Rootfs::enter`], [`Rootfs::populate`], [`Rootfs::console`], [`Rootfs::pivot`] and [`Rootfs::finish`] are
//! called in this order. Three things hold throughout: every path inside the root is resolved by openat2
//! from one O_PATH fd and acted on through the fd that came back; a mount is made detached, gets its
//! attributes, and is then attached to an fd; and whatever is needed of the host (its /dev/null, its procfs) is
//! opened by `enter`, before anything that the container controls is mounted.

#![forbid(unsafe_code)]

mod console;
mod copyup;
mod devices;
mod idmap;
mod legacy;
mod mounts;
mod resolve;
mod sources;
mod tree;

pub use console::{Console, exec_console};
pub use resolve::mount_id;
pub use sources::{Sources, map_ids, open_sources};

use crate::launch::{At, Fault, Step};
use crate::plan::rootfs::{Attrs, Filesystem, Jail, RootfsOp, RootfsPlan, attr};
use crate::sys::{Named, SysError};
use legacy::{Proc, unavailable};
use resolve::Links;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, fstat, fstatfs, open, openat, readlinkat, statat};
use rustix::io::Errno;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use tree::Stamp;

/// PROC_SUPER_MAGIC of linux/magic.h.
const PROC_MAGIC: u64 = 0x9fa0;

const DIR: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// The root filesystem while it is made. Everything here is close-on-exec; drop it before the payload runs.
#[derive(Debug)]
pub struct Rootfs {
    root: OwnedFd,
    /// Where the root is as the kernel tells it, to find out where a destination really is.
    root_path: Vec<u8>,
    jail: Jail,
    /// /proc/self on the host's procfs.
    proc_self: Option<OwnedFd>,
    /// A detached clone of the host's /dev/null.
    null: Option<OwnedFd>,
    /// Ids of the root's mount and of file systems that were made for the container: what lies on others
    /// belongs to someone else.
    own: Vec<u64>,
    /// Mounts to be made read-only at last: destination and id of the mount.
    late: Vec<(CString, u64)>,
    kcore: bool,
    umask: Mode,
}

impl Rootfs {
    /// In the new mount namespace: cuts it off from the host's, makes the root a mount, opens what is needed
    /// of the host. Sets the umask to 0 until [`Rootfs::finish`].
    ///
    /// # Errors
    /// [`Step::Root`], with the call.
    pub fn enter(plan: &RootfsPlan) -> Result<Self, Fault> {
        let proc_self = host_proc_self().at(Step::Root)?;
        let root = open(&plan.path, DIR, Mode::empty()).named("open").at(Step::Root)?;
        let mut this = Self {
            root,
            root_path: Vec::new(),
            jail: plan.jail,
            proc_self,
            null: None,
            own: Vec::new(),
            late: Vec::new(),
            kcore: has_kcore().at(Step::Root)?,
            umask: rustix::process::umask(Mode::empty()),
        };
        if plan.jail != Jail::Chroot {
            this.isolate(plan).at(Step::Root)?;
            this.null = host_null().at(Step::Root)?;
        } else if plan.shares_mounts() {
            this.bind_root(plan).at(Step::Root)?;
            this.null = host_null().at(Step::Root)?;
        }
        this.own.push(resolve::mount_id(&this.root).at(Step::Root)?);
        this.root_path = this.link_of(this.root.as_fd()).at(Step::Root)?.unwrap_or_default();
        Ok(this)
    }

    /// Runs the operations in order.
    ///
    /// # Errors
    /// [`Step::Rootfs`] with the index of the operation.
    pub fn populate(&mut self, plan: &RootfsPlan, sources: &mut Sources<'_>) -> Result<(), Fault> {
        for (i, op) in plan.ops.iter().enumerate() {
            let index = u16::try_from(i).unwrap_or(u16::MAX);
            match op {
                RootfsOp::Mount(mount) => self.mount(index, mount, sources),
                RootfsOp::Device(device) => self.device(device),
                RootfsOp::Symlink(link) => self.symlink(link),
            }
            .map_err(|fault| Fault { step: Step::Rootfs, index, ..fault })?;
        }
        Ok(())
    }

    /// Makes the root `/` and leaves nothing of the old one.
    ///
    /// # Errors
    /// [`Step::Pivot`].
    pub fn pivot(&mut self, plan: &RootfsPlan) -> Result<(), Fault> {
        match plan.jail {
            Jail::Pivot => self.pivot_root(),
            Jail::Move => self.hide_host().and_then(|()| self.move_root()),
            Jail::Chroot => self.chroot(),
        }
        .at(Step::Pivot)?;
        self.root_path = b"/".to_vec();
        // A root that was shared or unbindable before could not have been pivoted to, or bound from.
        let kind = plan.propagation & !(libc::MS_REC as u32);
        if kind == libc::MS_SHARED as u32 || kind == libc::MS_UNBINDABLE as u32 {
            self.propagate(self.root.as_fd(), plan.propagation).at(Step::Pivot)?;
        }
        Ok(())
    }

    /// After pivot and all writing: read-only mounts, root and paths, then the masks; restores the umask.
    ///
    /// # Errors
    /// [`Step::RootReadonly`], [`Step::ReadonlyPath`] or [`Step::MaskedPath`] with its index.
    pub fn finish(&self, plan: &RootfsPlan) -> Result<(), Fault> {
        let readonly = Attrs { set: attr::RDONLY, clear: 0 };
        for (destination, id) in &self.late {
            let fd = resolve::open(self.root.as_fd(), destination, OFlags::PATH, Links::Follow)
                .at(Step::RootReadonly)?;
            if resolve::mount_id(&fd).at(Step::RootReadonly)? != *id {
                let note = format!("{} was moved meanwhile", destination.to_string_lossy());
                return Err(Fault { step: Step::RootReadonly, ..tree::refuse(Errno::STALE, note) });
            }
            self.set_attrs(fd.as_fd(), readonly).at(Step::RootReadonly)?;
        }
        if plan.readonly {
            self.set_attrs(self.root.as_fd(), readonly).at(Step::RootReadonly)?;
        }
        for (i, path) in plan.readonly_paths.iter().enumerate() {
            if !plan.readonly_paths.iter().take(i).any(|p| p == path) {
                self.readonly_path(path).at_index(Step::ReadonlyPath, i)?;
            }
        }
        self.mask(plan)?;
        rustix::process::umask(self.umask);
        Ok(())
    }

    /// The root directory.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    fn proc(&self) -> Option<Proc<'_>> {
        self.proc_self.as_ref().map(|fd| Proc(fd.as_fd()))
    }

    /// The path of what an fd refers to; none without /proc.
    fn link_of(&self, fd: BorrowedFd<'_>) -> Result<Option<Vec<u8>>, SysError> {
        let Some(proc_self) = &self.proc_self else { return Ok(None) };
        let name = format!("fd/{}", fd.as_raw_fd());
        readlinkat(proc_self, name, Vec::new()).named("readlinkat").map(|path| Some(path.into_bytes()))
    }

    /// `/` becomes a slave of the host's mounts, or private, and the root a mount that is neither shared nor
    /// below a shared one: what is mounted in it would otherwise appear on the host.
    fn isolate(&mut self, plan: &RootfsPlan) -> Result<(), SysError> {
        let deep = libc::MS_REC as u32;
        let kind = plan.propagation & !deep;
        let host = open("/", DIR, Mode::empty()).named("open")?;
        match kind.into() {
            libc::MS_SHARED => self.privatize_parent()?,
            libc::MS_PRIVATE | libc::MS_UNBINDABLE => {
                self.propagate(host.as_fd(), libc::MS_PRIVATE as u32 | deep)?;
            }
            _ => self.propagate(host.as_fd(), libc::MS_SLAVE as u32 | deep)?,
        }
        self.bind_root(plan)
    }

    /// The root becomes a mount to which the host's mounts arrive, and of which none leaves.
    fn bind_root(&mut self, plan: &RootfsPlan) -> Result<(), SysError> {
        let deep = libc::MS_REC as u32;
        let path = CString::new(plan.path.as_os_str().as_bytes())
            .map_err(|_| SysError { call: "open_tree", errno: Errno::INVAL })?;
        match tree::clone_path(&path, true) {
            Ok(clone) => {
                self.propagate(clone.as_fd(), libc::MS_SLAVE as u32 | deep)?;
                tree::attach(clone.as_fd(), self.root.as_fd())?;
                self.root = clone;
            }
            Err(e) if unavailable(e.errno) => {
                let proc = self.proc().ok_or(e)?;
                proc.bind(self.root.as_fd(), true, self.root.as_fd())?;
                self.root = open(&plan.path, DIR, Mode::empty()).named("open")?;
                self.propagate(self.root.as_fd(), libc::MS_SLAVE as u32 | deep)?;
            }
            Err(e) => return Err(e),
        }
        if plan.propagation & !deep != libc::MS_SLAVE as u32 {
            self.propagate(self.root.as_fd(), libc::MS_PRIVATE as u32)?;
        }
        Ok(())
    }

    /// Finds the mount that the root is on by asking upwards: only a mount's root has a propagation (EINVAL).
    fn privatize_parent(&self) -> Result<(), SysError> {
        let path = self.link_of(self.root.as_fd())?;
        let path = path.ok_or(SysError { call: "open /proc/self", errno: Errno::NOENT })?;
        let path = std::path::Path::new(std::ffi::OsStr::from_bytes(&path));
        for dir in path.ancestors() {
            let fd = open(dir, DIR, Mode::empty()).named("open")?;
            match self.propagate(fd.as_fd(), libc::MS_PRIVATE as u32) {
                Err(SysError { errno: Errno::INVAL, .. }) => {}
                result => return result,
            }
        }
        Err(SysError { call: "mount_setattr", errno: Errno::INVAL })
    }

    fn propagate(&self, mount: BorrowedFd<'_>, flags: u32) -> Result<(), SysError> {
        match (tree::propagate(mount, flags), self.proc()) {
            (Err(e), Some(proc)) if unavailable(e.errno) => proc.propagate(mount, flags),
            (result, _) => result,
        }
    }

    /// Of an attached mount.
    fn set_attrs(&self, mount: BorrowedFd<'_>, attrs: Attrs) -> Result<(), SysError> {
        match (tree::set_attrs(mount, false, attrs), self.proc()) {
            (Err(e), Some(proc)) if unavailable(e.errno) => proc.set_attrs(mount, attrs),
            (result, _) => result,
        }
    }

    /// With the new root as working directory, pivot_root(".", ".") puts the old one on top of it.
    fn pivot_root(&self) -> Result<(), SysError> {
        let old = open("/", DIR, Mode::empty()).named("open")?;
        rustix::process::fchdir(&self.root).named("fchdir")?;
        rustix::process::pivot_root(".", ".").named("pivot_root")?;
        rustix::process::fchdir(&old).named("fchdir")?;
        // Else the unmount would reach the host. Slave, not private: a private copy would keep mounts busy that
        // the host wants to unmount just now.
        self.propagate(old.as_fd(), (libc::MS_SLAVE | libc::MS_REC) as u32)?;
        // The fallback of the line before changes the directory.
        rustix::process::fchdir(&old).named("fchdir")?;
        rustix::mount::unmount(".", rustix::mount::UnmountFlags::DETACH).named("umount2")?;
        rustix::process::chdir("/").named("chdir")
    }

    fn chroot(&self) -> Result<(), SysError> {
        rustix::process::fchdir(&self.root).named("fchdir")?;
        rustix::process::chroot(".").named("chroot")?;
        rustix::process::chdir("/").named("chdir")
    }

    fn move_root(&self) -> Result<(), SysError> {
        let host = open("/", DIR, Mode::empty()).named("open")?;
        match (tree::attach(self.root.as_fd(), host.as_fd()), self.proc()) {
            (Err(e), Some(proc)) if unavailable(e.errno) => {
                proc.move_to(self.root.as_fd(), host.as_fd())?;
            }
            (result, _) => result?,
        }
        self.chroot()
    }

    /// Unmounts or covers the host's procfs and sysfs: chroot(2) leaves them in the mount namespace, and as long
    /// as one is fully visible there the kernel lets the container mount its own.
    fn hide_host(&self) -> Result<(), SysError> {
        let proc_self =
            self.proc_self.as_ref().ok_or(SysError { call: "open /proc/self", errno: Errno::NOENT })?;
        let fd = openat(proc_self, "mountinfo", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .named("openat")?;
        let text = std::io::read_to_string(std::fs::File::from(fd)).named_io("read")?;
        for line in text.lines() {
            let Some(point) = host_mount_point(line) else { continue };
            if point.starts_with(&self.root_path) {
                continue;
            }
            let fd = match open(&*point, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
                Ok(fd) => fd,
                // It was below one that is gone already.
                Err(Errno::NOENT) => continue,
                Err(errno) => return Err(SysError { call: "open", errno }),
            };
            self.propagate(fd.as_fd(), (libc::MS_SLAVE | libc::MS_REC) as u32)?;
            match rustix::mount::unmount(&*point, rustix::mount::UnmountFlags::DETACH) {
                Ok(()) => {}
                // Locked in a user namespace.
                Err(Errno::INVAL | Errno::PERM) => {
                    let flags = rustix::mount::MountFlags::RDONLY;
                    rustix::mount::mount("tmpfs", &*point, "tmpfs", flags, c"").named("mount")?;
                }
                Err(errno) => return Err(SysError { call: "umount2", errno }),
            }
        }
        Ok(())
    }

    /// What is not there needs no protection; anything else that fails does.
    fn find(&self, path: &CStr) -> Result<Option<OwnedFd>, SysError> {
        match resolve::open(self.root.as_fd(), path, OFlags::PATH, Links::Follow) {
            Err(SysError { errno: Errno::NOENT | Errno::NOTDIR, .. }) => Ok(None),
            result => result.map(Some),
        }
    }

    fn readonly_path(&self, path: &CStr) -> Result<(), SysError> {
        let Some(fd) = self.find(path)? else { return Ok(()) };
        let readonly = Attrs { set: attr::RDONLY, clear: 0 };
        let error = match tree::clone_fd(fd.as_fd(), true) {
            Ok(clone) => match tree::set_attrs(clone.as_fd(), false, readonly) {
                Ok(()) => return tree::attach(clone.as_fd(), fd.as_fd()),
                Err(e) => e,
            },
            Err(e) => e,
        };
        let proc = self.proc().filter(|_| unavailable(error.errno)).ok_or(error)?;
        proc.bind(fd.as_fd(), true, fd.as_fd())?;
        match self.find(path)? {
            Some(fd) => proc.set_attrs(fd.as_fd(), readonly),
            None => Err(SysError { call: "openat2", errno: Errno::STALE }),
        }
    }

    fn mask(&self, plan: &RootfsPlan) -> Result<(), Fault> {
        let (mut file, mut dir): (Option<Stamp>, Option<Stamp>) = (None, None);
        for (i, path) in plan.masked_paths.iter().enumerate() {
            if plan.masked_paths.iter().take(i).any(|p| p == path) {
                continue;
            }
            let Some(fd) = self.find(path).at_index(Step::MaskedPath, i)? else { continue };
            let st = fstat(&fd).named("fstat").at_index(Step::MaskedPath, i)?;
            let is_dir = rustix::fs::FileType::from_raw_mode(st.st_mode).is_dir();
            let result =
                if is_dir { self.mask_dir(&mut dir, plan, &fd) } else { self.mask_file(&mut file, &fd) };
            result.at_index(Step::MaskedPath, i)?;
        }
        Ok(())
    }

    fn mask_dir(&self, stamp: &mut Option<Stamp>, plan: &RootfsPlan, fd: &OwnedFd) -> Result<(), SysError> {
        let stamp = match stamp {
            Some(stamp) => stamp,
            None => match empty_dir(plan.label.as_deref()) {
                Ok(tree) => stamp.insert(Stamp::new(tree)),
                Err(e) => {
                    let proc = self.proc().filter(|_| unavailable(e.errno)).ok_or(e)?;
                    let attrs = Attrs { set: attr::RDONLY, clear: 0 };
                    return proc.mount(&empty_tmpfs(plan.label.as_deref(), c"1"), attrs, fd.as_fd());
                }
            },
        };
        stamp.put(fd.as_fd())
    }

    fn mask_file(&self, stamp: &mut Option<Stamp>, fd: &OwnedFd) -> Result<(), SysError> {
        if let Some(stamp) = stamp {
            return stamp.put(fd.as_fd());
        }
        if let Some(null) = &self.null {
            let null = null.try_clone().named_io("fcntl")?;
            return stamp.insert(Stamp::new(null)).put(fd.as_fd());
        }
        // Without open_tree the host's cannot be brought here: the container's, by an fd that was looked at.
        let proc = self.proc().ok_or(SysError { call: "open_tree", errno: Errno::NOSYS })?;
        let null = resolve::open(self.root.as_fd(), c"/dev/null", OFlags::PATH, Links::Refuse)?;
        if !devices::is_char(&null, 1, 3)? {
            return Err(SysError { call: "open /dev/null", errno: Errno::NODEV });
        }
        proc.bind(null.as_fd(), false, fd.as_fd())
    }
}

/// `map_err` for std's errors.
trait NamedIo<T> {
    fn named_io(self, call: &'static str) -> Result<T, SysError>;
}

impl<T> NamedIo<T> for std::io::Result<T> {
    fn named_io(self, call: &'static str) -> Result<T, SysError> {
        self.map_err(|e| SysError { call, errno: Errno::from_io_error(&e).unwrap_or(Errno::IO) })
    }
}

fn is_proc(fd: impl AsFd) -> Result<bool, SysError> {
    // f_type is signed on some architectures.
    fstatfs(fd).named("fstatfs").map(|st| st.f_type as u64 == PROC_MAGIC)
}

/// None on a host without /proc, where some things cannot be done.
fn host_proc_self() -> Result<Option<OwnedFd>, SysError> {
    match open("/proc/self", DIR, Mode::empty()) {
        Ok(fd) => Ok(is_proc(&fd)?.then_some(fd)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        Err(errno) => Err(SysError { call: "open", errno }),
    }
}

fn has_kcore() -> Result<bool, SysError> {
    match statat(CWD, "/proc/kcore", AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS) => Ok(false),
        other => other.named("fstatat").map(|_| true),
    }
}

/// A clone of the host's /dev/null, as CVE-2025-31133 is about taking the container's; none where open_tree(2) is
/// not to be had.
fn host_null() -> Result<Option<OwnedFd>, SysError> {
    match tree::clone_path(c"/dev/null", false) {
        Ok(fd) if devices::is_char(&fd, 1, 3)? => Ok(Some(fd)),
        Ok(_) => Err(SysError { call: "open /dev/null", errno: Errno::NODEV }),
        Err(e) if unavailable(e.errno) => Ok(None),
        Err(e) => Err(SysError { call: "open_tree /dev/null", ..e }),
    }
}

fn empty_tmpfs(label: Option<&CStr>, inodes: &CStr) -> Filesystem {
    let mut data = vec![
        (c"nr_blocks".to_owned(), Some(c"1".to_owned())),
        (c"nr_inodes".to_owned(), Some(inodes.to_owned())),
    ];
    data.extend(label.map(|label| (c"context".to_owned(), Some(label.to_owned()))));
    Filesystem { typ: c"tmpfs".into(), source: c"tmpfs".into(), data, flags: 0, copy_up: false }
}

/// A read-only tmpfs without room for anything.
fn empty_dir(label: Option<&CStr>) -> Result<OwnedFd, SysError> {
    let attrs = Attrs { set: attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC, clear: 0 };
    tree::create(&empty_tmpfs(label, c"1"), attrs)
        // Ubuntu's 5.4 refuses a tmpfs with a single inode.
        .or_else(|fault| match fault.errno {
            Errno::INVAL => tree::create(&empty_tmpfs(label, c"2"), attrs),
            _ => Err(fault),
        })
        .map_err(|fault| SysError { call: fault.call, errno: fault.errno })
}

/// The mount point in a line of mountinfo (proc_pid_mountinfo(5)) if it is a whole procfs or sysfs.
fn host_mount_point(line: &str) -> Option<Vec<u8>> {
    let (mount, fs) = line.split_once(" - ")?;
    let mut fields = mount.split(' ').skip(3);
    let (root, point) = (fields.next()?, fields.next()?);
    if root != "/" || !matches!(fs.split(' ').next()?, "proc" | "sysfs") {
        return None;
    }
    let mut bytes = Vec::new();
    let mut rest = point.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let octal = (*first == b'\\').then(|| tail.get(..3)).flatten();
        let value = octal.and_then(|o| u8::from_str_radix(std::str::from_utf8(o).ok()?, 8).ok());
        bytes.push(value.unwrap_or(*first));
        rest = if value.is_some() { tail.get(3..).unwrap_or_default() } else { tail };
    }
    Some(bytes)
}

#[cfg(test)]
mod tests;
