//! A tree copied by file descriptors: nothing in either tree can lead out of it.

#![forbid(unsafe_code)]

use crate::error::{Context as _, Error, Result};
use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, Uid, XattrFlags,
    chownat, fchmod, fgetxattr, flistxattr, fsetxattr, linkat, mkdirat, mknodat, openat, openat2, readlinkat,
    statat, symlinkat, utimensat,
};
use rustix::io::Errno;
use std::collections::HashMap;
use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

const OPEN: OFlags = OFlags::CLOEXEC.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

/// Deeper trees are refused: each level holds two descriptors.
const DEPTH: u32 = 200;

/// Whether a directory has nothing in it.
pub fn is_empty(dir: &impl AsFd) -> Result<bool> {
    for entry in Dir::read_from(dir).context(|| "read the volume")? {
        let entry = entry.context(|| "read the volume")?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The directory at `path` below `root`, as the container will see it; nothing if there is nothing.
pub fn directory(root: impl AsFd, path: &str) -> Result<Option<OwnedFd>> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match openat2(root, path.trim_start_matches('/'), flags, Mode::empty(), resolve) {
        Ok(dir) => Ok(Some(dir)),
        Err(Errno::NOENT) => Ok(None),
        Err(Errno::NOTDIR) => {
            Err(Error::invalid(format!("cannot mount volume over existing file, file exists {path}")))
        }
        Err(e) => Err(e.into()),
    }
}

/// Copies what is in `from` into the empty directory `to`, and `from`'s own attributes onto it.
pub fn copy(from: &OwnedFd, to: &OwnedFd) -> Result<()> {
    Copy { top: to, links: HashMap::new() }.directory(from, to, &mut PathBuf::new(), 0)
}

struct Copy<'a> {
    top: &'a OwnedFd,
    /// Where a file with several names was copied to, below `top`.
    links: HashMap<(u64, u64), PathBuf>,
}

impl Copy<'_> {
    fn directory(&mut self, from: &OwnedFd, to: &OwnedFd, at: &mut PathBuf, depth: u32) -> Result<()> {
        if depth > DEPTH {
            return Err(Error::invalid(format!("{} is more than {DEPTH} directories deep", at.display())));
        }
        for entry in Dir::read_from(from).context(|| format!("read {}", at.display()))? {
            let entry = entry.context(|| format!("read {}", at.display()))?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            at.push(OsStr::from_bytes(name.to_bytes()));
            self.entry(from, to, name, at, depth).map_err(|e| e.context(at.display().to_string()))?;
            at.pop();
        }
        let stat = rustix::fs::fstat(from)?;
        rustix::fs::fchown(to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
        attributes(from, to)?;
        fchmod(to, Mode::from_raw_mode(stat.st_mode))?;
        rustix::fs::futimens(to, &times(&stat))?;
        Ok(())
    }

    fn entry(
        &mut self,
        from: &OwnedFd,
        to: &OwnedFd,
        name: &CStr,
        at: &mut PathBuf,
        depth: u32,
    ) -> Result<()> {
        let stat = statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind != FileType::Directory && stat.st_nlink > 1 {
            if let Some(first) = self.links.get(&(stat.st_dev, stat.st_ino)) {
                linkat(self.top, first, to, name, AtFlags::empty())?;
                return Ok(());
            }
            self.links.insert((stat.st_dev, stat.st_ino), at.clone());
        }
        let mode = Mode::from_raw_mode(stat.st_mode);
        match kind {
            FileType::Directory => {
                mkdirat(to, name, Mode::RWXU)?;
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OPEN;
                let (below_from, below_to) =
                    (openat(from, name, flags, Mode::empty())?, openat(to, name, flags, Mode::empty())?);
                return self.directory(&below_from, &below_to, at, depth + 1);
            }
            FileType::RegularFile => {
                let source = openat(from, name, OFlags::RDONLY | OPEN, Mode::empty())?;
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OPEN;
                let target = openat(to, name, flags, Mode::RUSR | Mode::WUSR)?;
                contents(&source, &target)?;
                rustix::fs::fchown(
                    &target,
                    Some(Uid::from_raw(stat.st_uid)),
                    Some(Gid::from_raw(stat.st_gid)),
                )?;
                // After chown(2), which takes capabilities and set-user-id away, as writing does.
                attributes(&source, &target)?;
                fchmod(&target, mode)?;
                rustix::fs::futimens(&target, &times(&stat))?;
                return Ok(());
            }
            FileType::Symlink => {
                let target: CString = readlinkat(from, name, Vec::new())?;
                symlinkat(&target, to, name)?;
            }
            FileType::CharacterDevice | FileType::BlockDevice | FileType::Fifo => {
                mknodat(to, name, kind, Mode::RUSR | Mode::WUSR, stat.st_rdev)?;
            }
            // A socket is of no use without who listens.
            _ => return Ok(()),
        }
        let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
        chownat(to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        if kind != FileType::Symlink {
            rustix::fs::chmodat(to, name, mode, AtFlags::empty())?;
        }
        utimensat(to, name, &times(&stat), AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(())
    }
}

/// Shares the blocks where the file system can, else copies them.
fn contents(from: &OwnedFd, to: &OwnedFd) -> Result<()> {
    if rustix::fs::ioctl_ficlone(to, from).is_ok() {
        return Ok(());
    }
    // The standard library's copy has copy_file_range(2), and goes on where that cannot.
    let (mut from, mut to) = (File::from(from.try_clone()?), File::from(to.try_clone()?));
    io::copy(&mut from, &mut to)?;
    Ok(())
}

/// Extended attributes; those that the volume's file system does not know are left out, as Docker does.
fn attributes(from: &OwnedFd, to: &OwnedFd) -> Result<()> {
    let mut names = vec![0; 64 << 10];
    let length = match flistxattr(from, &mut names) {
        Ok(length) => length,
        Err(Errno::NOTSUP) => return Ok(()),
        Err(e) => return Err(e.into()),
    };
    names.truncate(length);
    let mut value = vec![0; 64 << 10];
    for name in names.split_inclusive(|byte| *byte == 0) {
        let Ok(name) = CStr::from_bytes_with_nul(name) else { continue };
        // overlayfs's own are of its layers.
        if name.to_bytes().starts_with(b"trusted.overlay.") {
            continue;
        }
        let length = fgetxattr(from, name, &mut value)?;
        match fsetxattr(to, name, &value[..length], XattrFlags::empty()) {
            Ok(()) | Err(Errno::NOTSUP) => {}
            Err(e) => return Err(Error::from(e).context(format!("setxattr {}", name.to_string_lossy()))),
        }
    }
    Ok(())
}

fn times(stat: &Stat) -> Timestamps {
    let time = |seconds: i64, nanoseconds: u64| Timespec {
        tv_sec: seconds,
        tv_nsec: i64::try_from(nanoseconds).unwrap_or(0),
    };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}
