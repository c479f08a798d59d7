//! Destinations: resolved inside the root by the kernel, made where they are missing, held as fds.
//!
//! A path is never joined and handed back to the kernel as text that it resolves a second time: what
//! openat2(RESOLVE_IN_ROOT) found is what is acted on (CVE-2021-30465, CVE-2024-45310).

#![forbid(unsafe_code)]

use crate::sys::{Named, Result, SysError};
use rustix::fs::{
    AtFlags, Mode, OFlags, ResolveFlags, StatxFlags, mkdirat, openat, openat2, readlinkat, statx,
};
use rustix::io::Errno;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// What a missing destination becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Make {
    Dir,
    File,
}

/// Whether symbolic links inside the root are followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Links {
    Follow,
    Refuse,
}

/// Of the kernel's own limit, MAXSYMLINKS.
const MAX_LINKS: usize = 40;
/// RESOLVE_IN_ROOT gives up when anything is renamed meanwhile; someone who renames in a loop does not
/// keep it failing this often.
const MAX_TRIES: usize = 256;

const NODE: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Opens what is there.
pub(super) fn open(root: BorrowedFd<'_>, path: &CStr, flags: OFlags, links: Links) -> Result<OwnedFd> {
    let mut how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    if links == Links::Refuse {
        how |= ResolveFlags::NO_SYMLINKS;
    }
    let mut tries = 0;
    loop {
        match openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), how) {
            Err(Errno::AGAIN | Errno::INTR) if tries < MAX_TRIES => tries += 1,
            result => return result.named("openat2"),
        }
    }
}

/// Opens what is there, or makes it with the directories that lead to it; also says whether it was made.
///
/// A dangling symbolic link is followed and what it names is made, inside the root.
pub(super) fn open_or_make(
    root: BorrowedFd<'_>,
    path: &CStr,
    make: Make,
    links: Links,
) -> Result<(OwnedFd, bool)> {
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        match open(root, &path, OFlags::PATH, links) {
            Err(SysError { errno: Errno::NOENT, .. }) => {}
            result => return result.map(|fd| (fd, false)),
        }
        match make_missing(root, &path, make, links)? {
            Made::Here(fd) => return Ok((fd, true)),
            Made::Link(target) => path = target,
        }
    }
    Err(SysError { call: "openat2", errno: Errno::LOOP })
}

enum Made {
    Here(OwnedFd),
    /// The path once more, with a dangling link replaced by its target.
    Link(CString),
}

fn make_missing(root: BorrowedFd<'_>, path: &CStr, make: Make, links: Links) -> Result<Made> {
    let parts: Vec<&[u8]> = path.to_bytes().split(|b| *b == b'/').filter(|part| !part.is_empty()).collect();
    // The last directory on the way that is there: mostly it is the parent.
    let mut depth = parts.len().saturating_sub(1);
    let mut dir = loop {
        match open(root, &text(&parts[..depth])?, OFlags::PATH | OFlags::DIRECTORY, links) {
            Err(SysError { errno: Errno::NOENT, .. }) if depth > 0 => depth -= 1,
            result => break result?,
        }
    };
    if let Some(name) = parts.get(depth) {
        let name = component(name)?;
        match readlinkat(&dir, &name, Vec::new()) {
            Ok(_) if links == Links::Refuse => return Err(SysError { call: "openat2", errno: Errno::LOOP }),
            Ok(target) => {
                let target = target.into_bytes();
                let mut whole: Vec<&[u8]> = Vec::new();
                if !target.starts_with(b"/") {
                    whole.extend(&parts[..depth]);
                }
                whole.push(&target);
                whole.extend(parts.get(depth + 1..).unwrap_or_default());
                return text(&whole).map(Made::Link);
            }
            // EINVAL: not a link; it appeared meanwhile.
            Err(Errno::NOENT | Errno::INVAL) => {}
            Err(errno) => return Err(SysError { call: "readlinkat", errno }),
        }
    }
    for (i, name) in parts.iter().enumerate().skip(depth) {
        let name = component(name)?;
        let last = i + 1 == parts.len();
        dir = if last && make == Make::File { make_file(&dir, &name)? } else { make_dir(&dir, &name)? };
    }
    Ok(Made::Here(dir))
}

fn text(parts: &[&[u8]]) -> Result<CString> {
    CString::new([b"/".as_slice(), &parts.join(&b'/')].concat())
        .map_err(|_| SysError { call: "openat2", errno: Errno::INVAL })
}

fn component(name: &[u8]) -> Result<CString> {
    // `..` behind something that does not exist has no meaning, and must not reach mkdirat's directory.
    if name == b".." || name == b"." {
        return Err(SysError { call: "mkdirat", errno: Errno::NOENT });
    }
    CString::new(name).map_err(|_| SysError { call: "mkdirat", errno: Errno::INVAL })
}

/// Another container on the same root may make it at the same time: what counts is what is there then.
fn make_dir(dir: &OwnedFd, name: &CStr) -> Result<OwnedFd> {
    match mkdirat(dir, name, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(SysError { call: "mkdirat", errno }),
    }
    openat(dir, name, NODE | OFlags::DIRECTORY, Mode::empty()).named("openat")
}

/// Makes an empty regular file; one that is there is left, a symbolic link is refused.
pub(super) fn make_file(dir: &OwnedFd, name: &CStr) -> Result<OwnedFd> {
    let flags =
        OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::CLOEXEC;
    match openat(dir, name, flags, Mode::from_raw_mode(0o644)) {
        Ok(_) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(SysError { call: "openat", errno }),
    }
    let fd = openat(dir, name, NODE, Mode::empty()).named("openat")?;
    match rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(&fd).named("fstat")?.st_mode) {
        rustix::fs::FileType::Symlink => Err(SysError { call: "openat", errno: Errno::LOOP }),
        _ => Ok(fd),
    }
}

/// The directory that holds `path`, made where it is missing, and the last component.
pub(super) fn parent(root: BorrowedFd<'_>, path: &CStr) -> Result<(OwnedFd, CString)> {
    let bytes = path.to_bytes();
    let slash = bytes.iter().rposition(|b| *b == b'/').unwrap_or(0);
    let name = component(bytes.get(slash + 1..).unwrap_or_default())?;
    let dir = CString::new(bytes.get(..slash.max(1)).unwrap_or(b"/")).unwrap_or_else(|_| c"/".into());
    let (fd, _) = open_or_make(root, &dir, Make::Dir, Links::Refuse)?;
    Ok((fd, name))
}

/// The id of the mount that an fd is on (kernel 5.8), 0 where the kernel does not tell.
///
/// # Errors
/// Those of statx(2): what cannot be told must not pass for the same mount, nor for another.
pub fn mount_id(fd: impl AsFd) -> Result<u64> {
    // STATX_MNT_ID of linux/stat.h.
    let wanted = StatxFlags::from_bits_retain(0x1000);
    match statx(fd, c"", AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW, wanted) {
        Ok(st) if st.stx_mask & 0x1000 != 0 => Ok(st.stx_mnt_id),
        Ok(_) | Err(Errno::NOSYS) => Ok(0),
        Err(errno) => Err(SysError { call: "statx", errno }),
    }
}
