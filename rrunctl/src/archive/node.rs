//! One file by the fd of its directory: made, given its attributes, removed.

#![forbid(unsafe_code)]

use super::member::{Attributes, Member, Members, Type};
use super::opaque_xattr;
use crate::error::{Context as _, Error, Result};
pub(super) use crate::home::remove_at as remove;
use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, Stat, StatxAttributes, StatxFlags, Timespec, Timestamps,
    Uid, XattrFlags, chmodat, chownat, fchmod, fchown, fgetxattr, fsetxattr, futimens, getxattr, linkat,
    listxattr, mkdirat, mknodat, openat, setxattr, statat, statx, symlinkat, utimensat,
};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;

/// The name of what an fd is of, for calls that know no fd of O_PATH. The kernel follows it to the file itself and no
/// further, also where that is a symbolic link.
fn by_fd(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// A directory below another, which no symbolic link leads to.
pub(super) fn subdirectory(dir: impl AsFd, name: impl rustix::path::Arg) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(dir, name, flags, Mode::empty())
}

/// The file itself, whatever it is: nothing of it is opened, so that no device notices and no fifo blocks.
pub(super) fn path_only(dir: impl AsFd, name: impl rustix::path::Arg) -> Result<OwnedFd, Errno> {
    openat(dir, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// A regular file for reading, by an fd of [`path_only`].
pub(super) fn readable(file: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    openat(CWD, by_fd(file), OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY, Mode::empty())
}

pub(super) fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

pub(super) fn is_directory(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

/// What `name` is, or nothing.
pub(super) fn existing(dir: impl AsFd, name: impl rustix::path::Arg) -> Result<Option<Stat>, Errno> {
    match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Whether something is mounted on `name`. The kernel refuses to unlink a mount point of the caller's namespace alone:
/// one of a container's would be unmounted.
pub(super) fn is_mounted(dir: impl AsFd, name: impl rustix::path::Arg) -> Result<bool, Errno> {
    match statx(dir, name, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT, StatxFlags::empty()) {
        Ok(stat) => Ok(stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Says that nothing of the layers below is seen in this directory.
pub(super) fn set_opaque(dir: BorrowedFd<'_>) -> Result<()> {
    let name = opaque_xattr();
    fsetxattr(dir, name, b"y", XattrFlags::empty()).context(|| format!("setxattr {name}"))
}

pub(super) fn is_opaque(dir: BorrowedFd<'_>) -> Result<bool, Errno> {
    let mut value = [0; 2];
    match fgetxattr(dir, opaque_xattr(), &mut value[..]) {
        Ok(length) => Ok(&value[..length] == b"y"),
        Err(Errno::NODATA | Errno::NOTSUP | Errno::RANGE) => Ok(false),
        Err(e) => Err(e),
    }
}

/// The names in a directory, in the order of their bytes.
pub(super) fn names(dir: BorrowedFd<'_>) -> Result<Vec<OsString>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(OsStr::from_bytes(name).to_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Makes what `member` is, under a name that nobody has.
///
/// # Errors
/// `Ok(false)` where somebody has it after all; those of the archive and of the calls.
pub(super) fn make<R: Read>(
    dir: BorrowedFd<'_>,
    name: &OsStr,
    member: &Member,
    data: &mut Members<R>,
) -> Result<bool> {
    let made = match member.typ {
        Type::File => {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            match openat(dir, name, flags, Mode::RUSR | Mode::WUSR) {
                Ok(file) => {
                    data.write_to(member, file.as_fd())?;
                    apply(file.as_fd(), Type::File, &member.attributes).context(|| member.quoted())?;
                    return Ok(true);
                }
                Err(e) => Err(e),
            }
        }
        Type::Symlink => symlinkat(OsStr::from_bytes(&member.link), dir, name),
        Type::Fifo => mknodat(dir, name, FileType::Fifo, Mode::RUSR, 0),
        Type::Character => mknodat(dir, name, FileType::CharacterDevice, Mode::RUSR, member.device),
        Type::Block => mknodat(dir, name, FileType::BlockDevice, Mode::RUSR, member.device),
        Type::Directory => mkdirat(dir, name, Mode::RWXU),
        Type::HardLink => return Err(Error::system(format!("{}: a hard link has no node", member.quoted()))),
    };
    match made {
        Err(Errno::EXIST) => return Ok(false),
        // A user's containers get their devices from the host, and none of an image.
        Err(Errno::PERM)
            if matches!(member.typ, Type::Character | Type::Block) && crate::rootless::is_inside() =>
        {
            return Ok(true);
        }
        made => made.context(|| format!("{}: {}", member.quoted(), call(member.typ)))?,
    }
    if member.typ == Type::Directory {
        apply(subdirectory(dir, name).context(|| member.quoted())?.as_fd(), member.typ, &member.attributes)
    } else {
        let node = path_only(dir, name).context(|| member.quoted())?;
        apply(node.as_fd(), member.typ, &member.attributes)
    }
    .context(|| member.quoted())?;
    Ok(true)
}

fn call(typ: Type) -> &'static str {
    match typ {
        Type::File => "open",
        Type::HardLink => "link",
        Type::Symlink => "symlink",
        Type::Directory => "mkdir",
        Type::Character | Type::Block | Type::Fifo => "mknod",
    }
}

/// Links `name` to what is there already.
pub(super) fn link(
    from: BorrowedFd<'_>,
    old: &OsStr,
    dir: BorrowedFd<'_>,
    name: &OsStr,
) -> Result<(), Errno> {
    linkat(from, old, dir, name, AtFlags::empty())
}

/// Gives a file its owner, mode, attributes and times. `file` is open, or of [`path_only`] where that is no file and no
/// directory.
pub(super) fn apply(file: BorrowedFd<'_>, typ: Type, to: &Attributes) -> Result<()> {
    let (uid, gid) = (Some(Uid::from_raw(to.uid)), Some(Gid::from_raw(to.gid)));
    let mode = Mode::from_raw_mode(to.mode);
    let open = matches!(typ, Type::File | Type::Directory);
    // A change of the owner takes set-user-id and the capabilities away, so that these come behind it.
    if open {
        fchown(file, uid, gid).context(|| "chown")?;
        fchmod(file, mode).context(|| "chmod")?;
    } else {
        chownat(file, "", uid, gid, AtFlags::EMPTY_PATH).context(|| "chown")?;
        if typ != Type::Symlink {
            chmodat(CWD, by_fd(file), mode, AtFlags::empty()).context(|| "chmod")?;
        }
    }
    for (name, value) in to.xattrs.iter().filter(|(name, _)| is_kept(name)) {
        let set = if open {
            fsetxattr(file, name, value, XattrFlags::empty())
        } else {
            setxattr(by_fd(file), name, value, XattrFlags::empty())
        };
        match set {
            // `user.` is for files and directories alone, and not on every file system. What goes without it a program
            // can bear, what goes without its capabilities it cannot.
            Err(Errno::NOTSUP | Errno::PERM) if name.starts_with(b"user.") => {}
            Err(Errno::NOTSUP) if name.starts_with(b"system.") => {}
            set => set.context(|| format!("setxattr {}", String::from_utf8_lossy(name)))?,
        }
    }
    set_times(file, open, to.mtime)
}

/// When a file was changed last.
pub(super) fn mtime(stat: &Stat) -> Timespec {
    Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as i64 }
}

/// Sets both times.
pub(super) fn set_times(file: BorrowedFd<'_>, open: bool, time: Timespec) -> Result<()> {
    let times = Timestamps { last_access: time, last_modification: time };
    if open { futimens(file, &times) } else { utimensat(CWD, by_fd(file), &times, AtFlags::empty()) }
        .context(|| "utimensat")
}

/// Whether an attribute goes between an archive and a tree. `trusted.` and `security.` belong to the host: overlayfs's
/// own would let an archive redirect a directory to anywhere below, and labels are its policy.
fn is_kept(name: &[u8]) -> bool {
    match name {
        b"security.capability" | b"system.posix_acl_access" | b"system.posix_acl_default" => true,
        _ => name.starts_with(b"user.") && !name.starts_with(b"user.overlay."),
    }
}

/// The attributes of a file that go into an archive, or to another tree, by their names.
pub(super) fn xattrs(file: BorrowedFd<'_>) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let path = by_fd(file);
    let mut list = vec![0; 1024];
    let length = loop {
        match listxattr(&path, &mut list[..]) {
            Ok(length) => break length,
            // 64 KiB is XATTR_LIST_MAX.
            Err(Errno::RANGE) if list.len() < 1 << 17 => list.resize(list.len() * 4, 0),
            Err(Errno::NOTSUP) => break 0,
            Err(e) => return Err(Error::from(e).context("listxattr")),
        }
    };
    let mut found = Vec::new();
    for name in list[..length].split(|&c| c == 0).filter(|name| is_kept(name)) {
        let mut value = vec![0; 256];
        loop {
            match getxattr(&path, name, &mut value[..]) {
                Ok(length) => {
                    value.truncate(length);
                    found.push((name.to_vec(), value));
                    break;
                }
                Err(Errno::RANGE) if value.len() < 1 << 17 => value.resize(value.len() * 4, 0),
                // Somebody removed it meanwhile.
                Err(Errno::NODATA) => break,
                Err(e) => {
                    return Err(Error::from(e).context(format!("getxattr {}", String::from_utf8_lossy(name))));
                }
            }
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// What a file has of what an archive keeps.
pub(super) fn attributes(file: BorrowedFd<'_>, stat: &Stat) -> Result<Attributes> {
    Ok(Attributes {
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: mtime(stat),
        xattrs: xattrs(file)?,
    })
}
