//! A tree copied by file descriptors: nothing in either tree can lead out of it, also while somebody changes them.

#![forbid(unsafe_code)]

use crate::error::{Context as _, Error, Result};
use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, RenameFlags, ResolveFlags, Stat, Timespec, Timestamps,
    Uid, XattrFlags, chmodat, chownat, fchmod, fgetxattr, flistxattr, fsetxattr, fstat, linkat, mkdirat,
    mknodat, openat, openat2, readlinkat, renameat_with, statat, symlinkat, utimensat,
};
use rustix::io::Errno;
use std::collections::HashMap;
use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

const OPEN: OFlags = OFlags::CLOEXEC.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

/// Deeper trees are refused: each level holds two descriptors.
const DEPTH: u32 = 200;

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

/// Moves what is in `from`, a directory of the same file system, into `to`, and copies the attributes of `as_of` onto
/// `to`. What has the name of something in `to` stays where it is.
pub fn move_into(from: &OwnedFd, to: &OwnedFd, as_of: &OwnedFd) -> Result<()> {
    for entry in Dir::read_from(from).context(|| "read the copy")? {
        let entry = entry.context(|| "read the copy")?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        match renameat_with(from, name, to, name, RenameFlags::NOREPLACE) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(Error::from(e).context(format!("rename {}", name.to_string_lossy()))),
        }
    }
    dress(as_of, to)
}

/// Gives the directory `to` the owner, the mode, the times and the extended attributes of `from`.
fn dress(from: &OwnedFd, to: &OwnedFd) -> Result<()> {
    let stat = fstat(from)?;
    rustix::fs::fchown(to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    attributes(from, to)?;
    fchmod(to, Mode::from_raw_mode(stat.st_mode))?;
    rustix::fs::futimens(to, &times(&stat))?;
    Ok(())
}

/// The name by which the kernel finds what `fd` is, also if that is a symbolic link: for the calls that take no
/// descriptor that was opened with O_PATH, or none before a certain kernel (fchmodat2 6.6, utimensat 5.8), or only from
/// who has a capability (linkat).
fn name_of(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// The file at `path` below `dir`, opened for nothing but its place.
fn place(dir: &OwnedFd, path: impl rustix::path::Arg) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat2(dir, path, flags, Mode::empty(), resolve)
}

/// A file with several names, of which the first was copied.
struct First {
    /// Below the top.
    path: PathBuf,
    /// Device and inode of the copy.
    copy: (u64, u64),
}

struct Copy<'a> {
    top: &'a OwnedFd,
    links: HashMap<(u64, u64), First>,
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
        dress(from, to)
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
        let file = (stat.st_dev, stat.st_ino);
        if let Some(first) = self.links.get(&file) {
            return first.link(self.top, to, name);
        }
        let copy = match kind {
            FileType::Directory => {
                mkdirat(to, name, Mode::RWXU)?;
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OPEN;
                let (below_from, below_to) =
                    (openat(from, name, flags, Mode::empty())?, openat(to, name, flags, Mode::empty())?);
                return self.directory(&below_from, &below_to, at, depth + 1);
            }
            FileType::RegularFile => regular(from, to, name, &stat)?,
            FileType::Symlink => {
                let target: CString = readlinkat(from, name, Vec::new())?;
                symlinkat(&target, to, name)?;
                own(to, name, &stat)?
            }
            FileType::CharacterDevice | FileType::BlockDevice | FileType::Fifo => {
                mknodat(to, name, kind, Mode::RUSR | Mode::WUSR, stat.st_rdev)?;
                own(to, name, &stat)?
            }
            // A socket is of no use without who listens.
            _ => return Ok(()),
        };
        if stat.st_nlink > 1 {
            let copy = fstat(&copy)?;
            self.links.insert(file, First { path: at.clone(), copy: (copy.st_dev, copy.st_ino) });
        }
        Ok(())
    }
}

fn regular(from: &OwnedFd, to: &OwnedFd, name: &CStr, stat: &Stat) -> Result<OwnedFd> {
    let source = openat(from, name, OFlags::RDONLY | OPEN, Mode::empty())?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OPEN;
    let target = openat(to, name, flags, Mode::RUSR | Mode::WUSR)?;
    contents(&source, &target)?;
    rustix::fs::fchown(&target, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    // After chown(2), which takes capabilities and set-user-id away, as writing does.
    attributes(&source, &target)?;
    fchmod(&target, Mode::from_raw_mode(stat.st_mode))?;
    rustix::fs::futimens(&target, &times(stat))?;
    Ok(target)
}

/// Gives what was just made its owner, mode and times: that, and nothing that has its name meanwhile.
fn own(to: &OwnedFd, name: &CStr, stat: &Stat) -> Result<OwnedFd> {
    let made = place(to, name)?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    let now = fstat(&made)?;
    if FileType::from_raw_mode(now.st_mode) != kind || now.st_rdev != stat.st_rdev {
        return Err(Error::conflict("somebody has put something else in its place"));
    }
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    chownat(&made, c"", Some(uid), Some(gid), AtFlags::EMPTY_PATH)?;
    let name = name_of(&made);
    if kind != FileType::Symlink {
        chmodat(CWD, &name, Mode::from_raw_mode(stat.st_mode), AtFlags::empty())?;
    }
    utimensat(CWD, &name, &times(stat), AtFlags::empty())?;
    Ok(made)
}

impl First {
    /// Gives the copy another name.
    fn link(&self, top: &OwnedFd, to: &OwnedFd, name: &CStr) -> Result<()> {
        let copy = place(top, &self.path)?;
        let stat = fstat(&copy)?;
        if (stat.st_dev, stat.st_ino) != self.copy {
            return Err(Error::conflict(
                "somebody has put something else in the place of the file of two names",
            ));
        }
        linkat(CWD, name_of(&copy), to, name, AtFlags::SYMLINK_FOLLOW)?;
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
        if [&b"trusted.overlay."[..], b"user.overlay."].iter().any(|own| name.to_bytes().starts_with(own)) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
    use std::path::Path;

    struct Tree(PathBuf);

    impl Drop for Tree {
        fn drop(&mut self) {
            crate::home::remove_tree(&self.0).expect("remove");
        }
    }

    /// The directories `from`, `to` and `outside`.
    fn tree() -> Tree {
        let dir =
            std::env::temp_dir().join(format!("rrunctl-fill-{}", crate::home::unique().expect("random")));
        for name in ["from/sub", "to", "outside"] {
            fs::DirBuilder::new().recursive(true).create(dir.join(name)).expect("mkdir");
        }
        Tree(dir)
    }

    fn open(path: &Path) -> OwnedFd {
        fs::File::open(path).expect("open").into()
    }

    #[test]
    fn a_second_name_is_that_of_the_copy_whatever_somebody_puts_in_its_way() {
        let Tree(dir) = &tree();
        fs::write(dir.join("from/sub/first"), "image").expect("write");
        fs::hard_link(dir.join("from/sub/first"), dir.join("from/second")).expect("link");
        fs::write(dir.join("outside/first"), "secret").expect("write");
        let (from, to) = (open(&dir.join("from")), open(&dir.join("to")));
        let mut copy = Copy { top: &to, links: HashMap::new() };
        let mut take =
            |name: &CStr| copy.entry(&from, &to, name, &mut name.to_str().expect("utf-8").into(), 0);
        take(c"sub").expect("copied");
        // The container has the volume already, and changes it.
        fs::rename(dir.join("to/sub"), dir.join("to/aside")).expect("rename");
        symlink("../outside", dir.join("to/sub")).expect("symlink");
        take(c"second").expect_err("not what was copied");
        assert!(!dir.join("to/second").exists());
        fs::remove_file(dir.join("to/sub")).expect("remove");
        fs::create_dir(dir.join("to/sub")).expect("mkdir");
        fs::hard_link(dir.join("outside/first"), dir.join("to/sub/first")).expect("link");
        take(c"second").expect_err("not what was copied");
        fs::remove_dir_all(dir.join("to/sub")).expect("remove");
        fs::rename(dir.join("to/aside"), dir.join("to/sub")).expect("rename");
        take(c"second").expect("linked");
        let inode = |name: &str| fs::metadata(dir.join(name)).expect("stat").ino();
        assert_eq!(inode("to/second"), inode("to/sub/first"));
    }

    #[test]
    fn what_somebody_puts_in_the_place_of_a_new_file_is_left_alone() {
        let Tree(dir) = &tree();
        rustix::fs::mknodat(CWD, dir.join("from/fifo"), FileType::Fifo, Mode::RUSR, 0).expect("mkfifo");
        fs::set_permissions(dir.join("from/fifo"), fs::Permissions::from_mode(0o4777)).expect("chmod");
        let stat = statat(open(&dir.join("from")), "fifo", AtFlags::SYMLINK_NOFOLLOW).expect("stat");
        fs::write(dir.join("outside/file"), "").expect("write");
        fs::set_permissions(dir.join("outside/file"), fs::Permissions::from_mode(0o600)).expect("chmod");
        let to = open(&dir.join("to"));
        let is_spared = || {
            own(&to, c"fifo", &stat).expect_err("not the fifo");
            let found = fs::metadata(dir.join("outside/file")).expect("stat");
            assert_eq!(found.mode() & 0o7777, 0o600);
            fs::remove_file(dir.join("to/fifo")).expect("remove");
        };
        symlink("../outside/file", dir.join("to/fifo")).expect("symlink");
        is_spared();
        fs::hard_link(dir.join("outside/file"), dir.join("to/fifo")).expect("link");
        is_spared();
        mknodat(&to, c"fifo", FileType::Fifo, Mode::RUSR, 0).expect("mkfifo");
        own(&to, c"fifo", &stat).expect("the fifo");
        assert_eq!(fs::metadata(dir.join("to/fifo")).expect("stat").mode() & 0o7777, 0o4777);
    }
}
