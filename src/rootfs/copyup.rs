//! `tmpcopyup`: what the image has at the destination, copied into the tmpfs that covers it.
//!
//! The copy goes into the tmpfs before it is attached, from the fd of the directory that it will cover; links
//! are copied as links, and nothing but regular files is opened for reading, as a fifo would block.

#![forbid(unsafe_code)]

use super::resolve::mount_id;
use crate::sys::{Named, Result, SysError};
use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, chownat, fchmod, fchown,
    fstat, futimens, mkdirat, mknodat, openat, readlinkat, statat, symlinkat,
};
use rustix::io::{Errno, read, write};
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

const LIST: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// Each level holds two fds.
const MAX_DEPTH: usize = 256;

/// Copies the contents of the directory `from` into the directory `to`.
pub(super) fn copy(from: &OwnedFd, to: &OwnedFd) -> Result<()> {
    let source = openat(from, c".", LIST, Mode::empty()).named("openat")?;
    let target = openat(to, c".", LIST, Mode::empty()).named("openat")?;
    let mut buffer = vec![0; 64 * 1024];
    directory(&source, &target, MAX_DEPTH, &mut buffer)
}

fn directory(from: &OwnedFd, to: &OwnedFd, depth: usize, buffer: &mut [u8]) -> Result<()> {
    if depth == 0 {
        return Err(SysError { call: "openat", errno: Errno::LOOP });
    }
    for entry in Dir::read_from(from).named("getdents64")? {
        let entry = entry.named("getdents64")?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let st = statat(from, name, AtFlags::SYMLINK_NOFOLLOW).named("fstatat")?;
        match FileType::from_raw_mode(st.st_mode) {
            FileType::Directory => {
                mkdirat(to, name, Mode::RWXU).named("mkdirat")?;
                let source = openat(from, name, LIST, Mode::empty()).named("openat")?;
                let target = openat(to, name, LIST, Mode::empty()).named("openat")?;
                // What is mounted there stays behind, covered.
                if mount_id(&source)? == mount_id(from)? {
                    directory(&source, &target, depth - 1, buffer)?;
                }
                finish(target.as_fd(), &st)?;
            }
            FileType::RegularFile => file(from, to, name, buffer)?,
            FileType::Symlink => {
                let target = readlinkat(from, name, Vec::new()).named("readlinkat")?;
                symlinkat(&*target, to, name).named("symlinkat")?;
                owner_of_link(to, name, &st)?;
            }
            // A socket without its server means nothing.
            FileType::Socket => {}
            typ => match mknodat(to, name, typ, Mode::from_raw_mode(st.st_mode), st.st_rdev) {
                // Devices, in a user namespace.
                Ok(()) => owner_of_link(to, name, &st)?,
                Err(Errno::PERM) => {}
                Err(errno) => return Err(SysError { call: "mknodat", errno }),
            },
        }
    }
    Ok(())
}

fn file(from: &OwnedFd, to: &OwnedFd, name: &CStr, buffer: &mut [u8]) -> Result<()> {
    // It may have become a fifo since it was looked at.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let source = openat(from, name, flags, Mode::empty()).named("openat")?;
    let st = fstat(&source).named("fstat")?;
    if !FileType::from_raw_mode(st.st_mode).is_file() {
        return Err(SysError { call: "openat", errno: Errno::STALE });
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let target = openat(to, name, flags, Mode::RUSR | Mode::WUSR).named("openat")?;
    loop {
        let n = read(&source, &mut *buffer).named("read")?;
        let mut rest = buffer.get(..n).unwrap_or_default();
        if rest.is_empty() {
            return finish(target.as_fd(), &st);
        }
        while !rest.is_empty() {
            let n = write(&target, rest).named("write")?;
            rest = rest.get(n..).unwrap_or_default();
        }
    }
}

/// Owner before mode, as a change of owner takes away set-user-id.
fn finish(fd: BorrowedFd<'_>, st: &Stat) -> Result<()> {
    let (uid, gid) = (Uid::from_raw(st.st_uid), Gid::from_raw(st.st_gid));
    unmapped(fchown(fd, Some(uid), Some(gid)).named("fchown"))?;
    fchmod(fd, Mode::from_raw_mode(st.st_mode & 0o7777)).named("fchmod")?;
    let time = |sec: i64, nsec| Timespec { tv_sec: sec, tv_nsec: nsec };
    let times = Timestamps {
        last_access: time(st.st_atime, st.st_atime_nsec as _),
        last_modification: time(st.st_mtime, st.st_mtime_nsec as _),
    };
    futimens(fd, &times).named("utimensat")
}

fn owner_of_link(dir: &OwnedFd, name: &CStr, st: &Stat) -> Result<()> {
    let (uid, gid) = (Uid::from_raw(st.st_uid), Gid::from_raw(st.st_gid));
    unmapped(chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).named("fchownat"))
}

/// An owner that has no id in the container's user namespace becomes the container's root.
fn unmapped(result: Result<()>) -> Result<()> {
    match result {
        Err(SysError { errno: Errno::INVAL, .. }) => Ok(()),
        result => result,
    }
}
