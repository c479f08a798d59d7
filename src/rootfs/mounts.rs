//! One operation of kind mount.

#![forbid(unsafe_code)]

use super::legacy::unavailable;
use super::resolve::{self, Links, Make};
use super::tree::{self, fault, refuse};
use super::{Rootfs, Sources, copyup, empty_dir, is_proc};
use crate::launch::Fault;
use crate::plan::rootfs::paths::{InProc, in_proc};
use crate::plan::rootfs::{Attrs, Bind, Filesystem, Mount, Source, attr};
use crate::sys::{Named, SysError};
use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat};
use rustix::io::Errno;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};

type Made<T> = Result<T, Fault>;

/// A bind's source.
enum Origin {
    /// Cloned, attached nowhere yet.
    Tree(OwnedFd),
    /// Where open_tree(2) is not to be had.
    Node(OwnedFd),
}

/// In a user namespace the kernel refuses to show what the mounts below the source cover.
fn refused(e: SysError, bind: &Bind) -> Fault {
    let source = bind.source.to_string_lossy();
    match e.errno {
        Errno::INVAL if !bind.recursive => {
            fault(e, format!("in a user namespace {source} goes only with the mounts below it: use rbind"))
        }
        _ => fault(e, source),
    }
}

impl Rootfs {
    pub(super) fn mount(&mut self, index: u16, mount: &Mount, sources: &mut Sources<'_>) -> Made<()> {
        match &mount.source {
            Source::Bind(bind) => self.bind(index, mount, bind, sources),
            Source::New(fs) => {
                let (destination, fresh) = self.destination(mount, Make::Dir, links_for(fs))?;
                let fd = self.new_filesystem(mount, fs, &destination, fresh)?;
                self.settle(mount, &fd, true)
            }
            Source::Cgroup2(fs, own) => self.cgroup2(mount, fs, own),
            Source::Remount(fs) => {
                let fd = resolve::open(self.root.as_fd(), &mount.destination, OFlags::PATH, Links::Follow)
                    .map_err(|e| fault(e, ""))?;
                self.judge(mount, &fd, matches!(in_proc(&mount.destination.to_string_lossy()), InProc::Top))?;
                tree::reconfigure(fd.as_fd(), fs)?;
                self.attributes(mount, &fd)?;
                self.settle(mount, &fd, false)
            }
        }
    }

    fn bind(&mut self, index: u16, mount: &Mount, bind: &Bind, sources: &mut Sources<'_>) -> Made<()> {
        let origin = match self.origin(index, bind, sources) {
            Err(fault) if bind.optional && fault.errno == Errno::NOENT => return Ok(()),
            origin => origin?,
        };
        let (Origin::Tree(node) | Origin::Node(node)) = &origin;
        let make = if self.is_directory(node).map_err(|e| fault(e, ""))? { Make::Dir } else { Make::File };
        let procfs = is_proc(node).map_err(|e| fault(e, ""))?;
        let (destination, _) = self.destination_of(mount, make, Links::Follow, procfs)?;
        match origin {
            Origin::Tree(tree) => {
                let late = match self.detached_attributes(mount, &tree) {
                    Err(e) if e.errno == Errno::NOSYS => true,
                    result => result.map(|()| false)?,
                };
                tree::attach(tree.as_fd(), destination.as_fd()).map_err(|e| fault(e, ""))?;
                if late {
                    self.attributes(mount, &tree)?;
                }
                self.settle(mount, &tree, false)
            }
            Origin::Node(node) => {
                let proc = self.proc().ok_or_else(|| refuse(Errno::NOSYS, "no /proc"))?;
                proc.bind(node.as_fd(), bind.recursive, destination.as_fd()).map_err(|e| refused(e, bind))?;
                let fd = self.reopen(mount, &destination)?;
                self.attributes(mount, &fd)?;
                self.settle(mount, &fd, false)
            }
        }
    }

    /// Also of what does not let the container's root look: FUSE without `allow_other` answers nobody but the user who
    /// mounted it, while what is a directory the kernel knows by itself.
    fn is_directory(&self, node: &OwnedFd) -> Result<bool, SysError> {
        match (fstat(node).named("fstat"), &self.proc_self) {
            (Err(SysError { errno: Errno::ACCESS, .. }), Some(proc)) => {
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                match openat(proc, format!("fd/{}", node.as_raw_fd()), flags, Mode::empty()) {
                    Err(Errno::NOTDIR) => Ok(false),
                    opened => opened.named("openat").map(|_| true),
                }
            }
            (st, _) => st.map(|st| FileType::from_raw_mode(st.st_mode).is_dir()),
        }
    }

    /// The container's own view first: there the kernel has locked what the host's mounts forbid. The parent's
    /// clone is for what the container's root may not reach, and for id maps, which need the host's root.
    fn origin(&self, index: u16, bind: &Bind, sources: &mut Sources<'_>) -> Made<Origin> {
        let given = sources.take(index);
        let words = |e| refused(e, bind);
        if bind.idmap.is_some() {
            if let Some(given) = given {
                return Ok(Origin::Tree(given));
            }
            let tree = tree::clone_path(&bind.source, bind.recursive).map_err(words)?;
            sources.map(index, &tree)?;
            return Ok(Origin::Tree(tree));
        }
        match (tree::clone_path(&bind.source, bind.recursive), given) {
            (Ok(tree), _) => Ok(Origin::Tree(tree)),
            (Err(SysError { errno: Errno::ACCESS, .. }), Some(given)) => Ok(Origin::Tree(given)),
            (Err(e), _) if unavailable(e.errno) => {
                let flags = OFlags::PATH | OFlags::CLOEXEC;
                openat(CWD, &*bind.source, flags, Mode::empty())
                    .named("open")
                    .map(Origin::Node)
                    .map_err(words)
            }
            (Err(e), _) => Err(words(e)),
        }
    }

    fn new_filesystem(&self, mount: &Mount, fs: &Filesystem, at: &OwnedFd, fresh: bool) -> Made<OwnedFd> {
        let with_mode;
        let fs = match mode_of(fs, at, fresh).map_err(|e| fault(e, ""))? {
            Some(mode) => {
                with_mode = mode;
                &with_mode
            }
            None => fs,
        };
        let made = if tree::expressible(fs) {
            tree::create(fs, mount.attrs)
        } else {
            Err(refuse(Errno::NOSYS, "an option is too long for fsconfig"))
        };
        let error = match made {
            Ok(tree) => {
                if fs.copy_up && !fresh {
                    copyup::copy(at, &tree).map_err(|e| fault(e, "tmpcopyup"))?;
                }
                tree::attach(tree.as_fd(), at.as_fd()).map_err(|e| fault(e, ""))?;
                return Ok(tree);
            }
            Err(e) => e,
        };
        let Some(proc) = self.proc().filter(|_| unavailable(error.errno)) else { return Err(error) };
        match proc.mount(fs, mount.attrs, at.as_fd()) {
            Ok(()) => {}
            // The newer call had more to say.
            Err(e) if e.errno == error.errno => return Err(error),
            Err(e) => return Err(fault(e, "")),
        }
        let made = self.reopen(mount, at)?;
        if fs.copy_up && !fresh {
            copyup::copy(at, &made).map_err(|e| fault(e, "tmpcopyup"))?;
        }
        Ok(made)
    }

    fn cgroup2(&mut self, mount: &Mount, fs: &Filesystem, own: &CStr) -> Made<()> {
        let (destination, fresh) = self.destination(mount, Make::Dir, Links::Follow)?;
        let denied = match self.new_filesystem(mount, fs, &destination, fresh) {
            Ok(fd) => return self.settle(mount, &fd, false),
            Err(e) => e,
        };
        if !matches!(denied.errno, Errno::PERM | Errno::BUSY) {
            return Err(denied);
        }
        // Where nothing of its own can be shown the host's must not be either (CVE-2023-25809).
        let tree = match tree::clone_path(own, false) {
            Ok(tree) => tree,
            Err(_) => empty_dir(None).map_err(|_| denied)?,
        };
        self.detached_attributes(mount, &tree)?;
        tree::attach(tree.as_fd(), destination.as_fd()).map_err(|e| fault(e, ""))?;
        self.settle(mount, &tree, false)
    }

    fn detached_attributes(&self, mount: &Mount, tree: &OwnedFd) -> Made<()> {
        as_far_as_unlocked(mount, |attrs| tree::set_attrs(tree.as_fd(), false, attrs))
            .and_then(|()| tree::set_attrs(tree.as_fd(), true, mount.recursive))
            .map_err(|e| locked(mount, e))
    }

    fn attributes(&self, mount: &Mount, fd: &OwnedFd) -> Made<()> {
        as_far_as_unlocked(mount, |attrs| match attrs.is_empty() {
            true => Ok(()),
            false => self.set_attrs(fd.as_fd(), attrs),
        })
        .map_err(|e| locked(mount, e))?;
        tree::set_attrs(fd.as_fd(), true, mount.recursive).map_err(|e| locked(mount, e))
    }

    /// What follows once it is in place. `made`: a file system of the container's own.
    fn settle(&mut self, mount: &Mount, fd: &OwnedFd, made: bool) -> Made<()> {
        let id = match made || mount.late_readonly {
            true => resolve::mount_id(fd).map_err(|e| fault(e, ""))?,
            false => 0,
        };
        if made {
            self.own.push(id);
            tree::set_attrs(fd.as_fd(), true, mount.recursive).map_err(|e| fault(e, ""))?;
        }
        for flags in &mount.propagation {
            self.propagate(fd.as_fd(), *flags).map_err(|e| fault(e, ""))?;
        }
        if mount.late_readonly {
            self.late.push((mount.destination.clone(), id));
        }
        Ok(())
    }

    /// mount(2) gives no fd: the same path again, and it must be another mount now.
    fn reopen(&self, mount: &Mount, covered: &OwnedFd) -> Made<OwnedFd> {
        let fd = resolve::open(self.root.as_fd(), &mount.destination, OFlags::PATH, Links::Follow)
            .map_err(|e| fault(e, ""))?;
        let id = |fd| resolve::mount_id(fd).map_err(|e| fault(e, ""));
        let (now, before) = (id(&fd)?, id(covered)?);
        if now == before && now != 0 {
            return Err(refuse(Errno::STALE, "the destination was moved meanwhile"));
        }
        Ok(fd)
    }

    fn destination(&self, mount: &Mount, make: Make, links: Links) -> Made<(OwnedFd, bool)> {
        let proc = matches!(&mount.source, Source::New(fs) if *fs.typ == *c"proc");
        self.destination_of(mount, make, links, proc)
    }

    /// Opens or makes the destination and judges where it really is. `procfs`: what is mounted is one.
    fn destination_of(&self, mount: &Mount, make: Make, links: Links, procfs: bool) -> Made<(OwnedFd, bool)> {
        let ordinary = |errno| refuse(errno, "must be mounted on ordinary directory");
        let found = resolve::open_or_make(self.root.as_fd(), &mount.destination, make, links);
        let (fd, fresh) = match found {
            Err(e) if links == Links::Refuse && matches!(e.errno, Errno::LOOP | Errno::NOTDIR) => {
                return Err(ordinary(e.errno));
            }
            result => result.map_err(|e| fault(e, ""))?,
        };
        let st = fstat(&fd).named("fstat").map_err(|e| fault(e, ""))?;
        let is_dir = FileType::from_raw_mode(st.st_mode).is_dir();
        match (make, is_dir) {
            (Make::Dir, false) if links == Links::Refuse => return Err(ordinary(Errno::NOTDIR)),
            (Make::Dir, false) => return Err(refuse(Errno::NOTDIR, "the destination is not a directory")),
            (Make::File, true) => return Err(refuse(Errno::ISDIR, "the destination is a directory")),
            _ => {}
        }
        self.judge(mount, &fd, procfs)?;
        Ok((fd, fresh))
    }

    /// A symbolic link may have led elsewhere than the plan, which judged the text, could see.
    fn judge(&self, mount: &Mount, fd: &OwnedFd, procfs: bool) -> Made<()> {
        let planned = in_proc(&mount.destination.to_string_lossy());
        let real = self.link_of(fd.as_fd()).map_err(|e| fault(e, ""))?.and_then(|path| {
            let below = path.strip_prefix(self.root_path.as_slice())?.to_vec();
            Some(String::from_utf8_lossy(&below).into_owned())
        });
        let Some(real) = real else {
            return Err(refuse(Errno::XDEV, "the destination cannot be found below the root"));
        };
        let real = if real.starts_with('/') { real } else { format!("/{real}") };
        let quoted = mount.destination.to_string_lossy();
        match in_proc(&real) {
            _ if real == "/" => Err(refuse(Errno::BUSY, "mountpoint is on the top of the root filesystem")),
            InProc::No | InProc::Refused if planned == InProc::Top => {
                Err(refuse(Errno::LOOP, "must be mounted on ordinary directory"))
            }
            InProc::Refused if planned != InProc::Allowed => {
                let note = format!("{quoted:?} cannot be mounted because it is inside /proc");
                Err(refuse(Errno::INVAL, note))
            }
            InProc::Top if !procfs => {
                let note = format!("{quoted:?} cannot be mounted because it is not of type proc");
                Err(refuse(Errno::INVAL, note))
            }
            _ => Ok(()),
        }
    }
}

/// Sets the attributes and clears the unnamed ones: all of them, or what a user namespace (EPERM) and a kernel without
/// nosymfollow (EINVAL, before 5.14) leave. nosymfollow is never locked.
fn as_far_as_unlocked(mount: &Mount, set: impl Fn(Attrs) -> Result<(), SysError>) -> Result<(), SysError> {
    let with = |unnamed: u64| set(Attrs { clear: mount.attrs.clear | unnamed, ..mount.attrs });
    let mut result = with(mount.unnamed);
    for unnamed in [mount.unnamed & !attr::NOSYMFOLLOW, mount.unnamed & attr::NOSYMFOLLOW, 0] {
        if !matches!(result, Err(SysError { errno: Errno::PERM | Errno::INVAL, .. })) || mount.unnamed == 0 {
            break;
        }
        result = with(unnamed);
    }
    result
}

/// What the host's mounts forbid is locked in a user namespace: nothing but an explicit wish can have asked for less,
/// and it must not be ignored silently.
fn locked(mount: &Mount, e: SysError) -> Fault {
    let clears = (mount.attrs.clear | mount.recursive.clear) != 0;
    match e.errno {
        Errno::PERM if clears => fault(
            e,
            "the host's mount is ro, nosuid, nodev or noexec, and in a user namespace it stays so: leave out rw, suid, dev, exec",
        ),
        _ => fault(e, ""),
    }
}

/// procfs and sysfs are where programs, and this one, expect them, or nowhere (CVE-2019-19921, CVE-2023-27561).
fn links_for(fs: &Filesystem) -> Links {
    if *fs.typ == *c"proc" || *fs.typ == *c"sysfs" { Links::Refuse } else { Links::Follow }
}

/// A tmpfs takes the mode of the directory that it covers unless it is told another, as runc's callers expect.
fn mode_of(fs: &Filesystem, at: &OwnedFd, fresh: bool) -> Result<Option<Filesystem>, SysError> {
    if fresh || *fs.typ != *c"tmpfs" || fs.data.iter().any(|(key, _)| **key == *c"mode") {
        return Ok(None);
    }
    let mode = fstat(at).named("fstat")?.st_mode & 0o7777;
    let mut fs = fs.clone();
    let text = CString::new(format!("{mode:o}")).unwrap_or_default();
    fs.data.push((c"mode".into(), Some(text)));
    Ok(Some(fs))
}
