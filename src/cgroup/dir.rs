//! One cgroup directory, held open: its files and children are reached through it and nowhere else.

#![forbid(unsafe_code)]

use crate::error::{Call, Error, Result};
use rustix::fs::{
    AtFlags, CWD, Dir as Entries, FileType, Mode, OFlags, ResolveFlags, mkdirat, openat2, unlinkat,
};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

const DIR: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Nothing below a cgroup is a link or a mount; a container that may write to its cgroups must not be able to
/// lead the runtime out of them.
const BENEATH: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

const NO_LINKS: ResolveFlags = ResolveFlags::NO_SYMLINKS.union(ResolveFlags::NO_MAGICLINKS);

/// A cgroup.
#[derive(Debug)]
pub(super) struct Dir {
    fd: OwnedFd,
    path: PathBuf,
}

/// The cgroup is gone or going: its directory or file is not there, or a file of it answers ENODEV.
pub(super) fn is_gone(e: &Error) -> bool {
    matches!(e.errno(), Some(Errno::NOENT | Errno::NODEV))
}

/// The caller may not.
pub(super) fn is_refused(e: &Error) -> bool {
    matches!(e.errno(), Some(Errno::PERM | Errno::ACCESS | Errno::ROFS))
}

impl Dir {
    /// Opens a cgroup or a mount point by its path on the host.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let fd = openat2(CWD, path, DIR, Mode::empty(), NO_LINKS)
            .call(|| format!("openat2 {}", path.display()))?;
        Ok(Self { fd, path: path.to_owned() })
    }

    /// Opens a file by its path on the host.
    pub(super) fn file_at(path: &Path, flags: OFlags) -> Result<OwnedFd> {
        openat2(CWD, path, flags | OFlags::CLOEXEC, Mode::empty(), NO_LINKS)
            .call(|| format!("open {}", path.display()))
    }

    /// The path on the host.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is still there; an open directory outlives its removal.
    pub(super) fn exists(&self) -> bool {
        self.file("cgroup.procs", OFlags::PATH).is_ok()
    }

    /// Opens a descendant; `name` may have several components.
    pub(super) fn child(&self, name: &str) -> Result<Self> {
        let path = if name == "." { self.path.clone() } else { self.path.join(name) };
        let fd = Self::open_below(self.fd.as_fd(), name).call(|| format!("openat2 {}", path.display()))?;
        Ok(Self { fd, path })
    }

    /// The same, by fds.
    pub(super) fn open_below(dir: BorrowedFd<'_>, name: &str) -> rustix::io::Result<OwnedFd> {
        openat2(dir, name, DIR, Mode::empty(), BENEATH)
    }

    /// Makes a child and opens it; says whether it was made.
    pub(super) fn make(&self, name: &str) -> Result<(Self, bool)> {
        let made = match mkdirat(&self.fd, name, Mode::from_raw_mode(0o755)) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(e) => return Err(Error::sys(format!("mkdirat {}", self.path.join(name).display()), e)),
        };
        let child = self.child(name).inspect_err(|_| {
            if made {
                // The caller never hears of it (EMFILE).
                let _ = self.remove(name);
            }
        })?;
        Ok((child, made))
    }

    /// Removes a child that has neither processes nor children; absent is well.
    pub(super) fn remove(&self, name: &str) -> Result<()> {
        match unlinkat(&self.fd, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(e) => Err(Error::sys(format!("rmdir {}", self.path.join(name).display()), e)),
        }
    }

    /// Opens a file.
    pub(super) fn file(&self, name: &str, flags: OFlags) -> Result<OwnedFd> {
        openat2(&self.fd, name, flags | OFlags::CLOEXEC, Mode::empty(), BENEATH)
            .call(|| format!("open {}", self.path.join(name).display()))
    }

    /// Reads a file.
    pub(super) fn read(&self, name: &str) -> Result<String> {
        let file = self.file(name, OFlags::RDONLY)?;
        // Not read_to_string, which asks for the size of what has none.
        let (mut text, mut buffer) = (Vec::new(), [0_u8; 4096]);
        loop {
            match rustix::io::read(&file, &mut buffer) {
                Ok(0) => return Ok(String::from_utf8_lossy(&text).into_owned()),
                Ok(n) => text.extend_from_slice(buffer.get(..n).unwrap_or_default()),
                Err(Errno::INTR) => {}
                Err(e) => return Err(Error::sys(format!("read {}", self.path.join(name).display()), e)),
            }
        }
    }

    /// Writes a value, each line with a write(2) of its own, as the kernel takes one setting at a time.
    pub(super) fn write(&self, name: &str, value: &str) -> Result<()> {
        let file = self.file(name, OFlags::WRONLY)?;
        value
            .split('\n')
            .filter(|line| !line.is_empty())
            .try_for_each(|line| self.write_line(&file, name, line))
    }

    /// Writes one line to an open file of this cgroup.
    pub(super) fn write_line(&self, file: &OwnedFd, name: &str, line: &str) -> Result<()> {
        rustix::io::write(file, line.as_bytes())
            .map(drop)
            .call(|| format!("write {line:?} to {}", self.path.join(name).display()))
    }

    /// Names of the children.
    pub(super) fn children(&self) -> Result<Vec<String>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = openat2(&self.fd, ".", flags, Mode::empty(), BENEATH);
        let listing = || format!("getdents64 {}", self.path.display());
        let mut names = Vec::new();
        for entry in Entries::new(fd.call(|| format!("openat2 {}", self.path.display()))?).call(listing)? {
            let entry = entry.call(listing)?;
            let name = entry.file_name().to_string_lossy();
            if entry.file_type() == FileType::Directory && name != "." && name != ".." {
                names.push(name.into_owned());
            }
        }
        Ok(names)
    }

    /// Process ids directly in this cgroup.
    pub(super) fn own_procs(&self) -> Result<Vec<u32>> {
        let text = match self.read("cgroup.procs") {
            // A threaded cgroup of v2 lists threads only.
            Err(e) if e.errno() == Some(Errno::OPNOTSUPP) => self.read("cgroup.threads")?,
            text => text?,
        };
        // 0 is a process of another PID namespace, and kill(2) of 0 would be the runtime's own group.
        Ok(text.lines().filter_map(|line| line.parse().ok()).filter(|&pid| pid != 0).collect())
    }

    /// Process ids in this cgroup and below; what vanishes meanwhile is left out.
    pub(super) fn procs(&self) -> Result<Vec<u32>> {
        let mut pids = Vec::new();
        let mut found = Ok(());
        self.walk(&mut |dir| match dir.own_procs() {
            Ok(more) => pids.extend(more),
            Err(e) if is_gone(&e) => {}
            Err(e) => found = Err(e),
        })?;
        found.map(|()| pids)
    }

    /// Calls for this cgroup and each below, parents first.
    fn walk(&self, each: &mut dyn FnMut(&Self)) -> Result<()> {
        each(self);
        let names = match self.children() {
            Err(e) if is_gone(&e) => return Ok(()),
            names => names?,
        };
        for name in names {
            match self.child(&name) {
                Ok(child) => child.walk(each)?,
                Err(e) if is_gone(&e) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Removes everything below, leaves first.
    pub(super) fn remove_children(&self) -> Result<()> {
        for name in self.children()? {
            let Err(e) = self.remove(&name) else { continue };
            match self.child(&name) {
                Ok(child) => child.remove_children()?,
                Err(e) if is_gone(&e) => continue,
                Err(_) => return Err(e),
            }
            self.remove(&name)?;
        }
        Ok(())
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
