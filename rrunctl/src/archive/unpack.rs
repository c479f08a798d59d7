//! A layer to a lower directory of overlayfs, by itself.

#![forbid(unsafe_code)]

use super::member::{Member, Members, Type};
use super::node;
use super::{OPAQUE, WHITEOUT, WHITEOUT_META};
use crate::error::{Context as _, Error, Result};
use rustix::fs::{
    FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Uid, fchmod, fchown, mkdirat, mknodat, openat2,
};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io::Read;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// The names of [`Unpacked::deferred`] may have so many bytes. Nothing on the disk stands for them, and a thousand of
/// them are one byte of a compressed archive; the layers that programs make have few.
const DEFERRED: usize = 16 << 20;

/// The names of [`Unpacked::implied`] may have so many bytes: they are kept in memory and written down, and a name of
/// 4 KiB is a few bytes of a compressed archive. 300,000 usual ones have as many.
const IMPLIED: usize = 32 << 20;

/// The names of all directories of a layer may have so many bytes.
const DIRECTORIES: usize = 128 << 20;

/// What the caller chooses.
#[derive(Debug, Clone, Copy, Default)]
pub struct UnpackOptions {
    /// The most bytes that all files together may have, holes not counted; without it, what the disk has.
    pub limit: Option<u64>,
}

/// What a layer has, and what only the layers below it can say: [`super::settle`] takes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// The bytes of its regular files, each counted once, with holes.
    pub size: u64,
    /// Directories that the archive names files in and does not have itself, and the root (`.`) if it does not have
    /// that; parents first. They are there, with mode 0755 and of root, and shall be as in the layer below
    /// (image-spec#737).
    pub implied: Vec<PathBuf>,
    /// Hard links to files that only a layer below has. They are not there.
    pub deferred: Vec<HardLink>,
}

/// A link of an archive to a file of a layer below.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HardLink {
    /// The new name, relative to the root.
    pub path: PathBuf,
    /// The name of the file.
    pub target: PathBuf,
}

/// Unpacks the archive of one layer into an empty directory, so that it can be a lower directory of an overlay: what it
/// deletes is a character device 0:0, what has nothing from below has `trusted.overlay.opaque`
/// (Documentation/filesystems/overlayfs.rst; image-spec layer.md). The whole of `reader` is read. An entry replaces an
/// earlier one of the same name; a directory keeps what it has if a directory comes again. After an error the directory
/// holds a part of the layer and nothing outside has changed.
///
/// # Errors
/// A broken archive, a name with `..` or through a symbolic link, a hard link to nothing, too many directories; those of
/// the calls.
pub fn unpack(reader: impl Read, dir: BorrowedFd<'_>, options: &UnpackOptions) -> Result<Unpacked> {
    let mut layer = Layer::new(dir);
    let mut members = Members::new(reader);
    let mut left = options.limit.unwrap_or(u64::MAX);
    while let Some(member) = members.next()? {
        left = left
            .checked_sub(members.stored())
            .ok_or_else(|| Error::system(format!("{}: the layer is larger than allowed", member.quoted())))?;
        layer.add(&member, &mut members)?;
    }
    layer.finish()
}

struct Layer<'a> {
    root: BorrowedFd<'a>,
    /// The directory that was used last; most archives have the files of a directory in a row.
    parent: Option<(PathBuf, OwnedFd)>,
    /// A directory's time is set at the end: each file made in it changes it. Bounded by [`DIRECTORIES`]: the tree has
    /// every directory that is named here ([`Layer::forget`]), but their whole names are longer than what it has of them.
    times: BTreeMap<PathBuf, Timespec>,
    /// Bytes of its names.
    times_bytes: usize,
    /// Bounded by [`IMPLIED`].
    implied: BTreeSet<PathBuf>,
    /// Bytes of its names.
    implied_bytes: usize,
    /// Bounded by [`DEFERRED`].
    deferred: BTreeMap<PathBuf, PathBuf>,
    /// Bytes of its names.
    deferred_bytes: usize,
    size: u64,
}

impl<'a> Layer<'a> {
    fn new(root: BorrowedFd<'a>) -> Self {
        Self {
            root,
            parent: None,
            times: BTreeMap::new(),
            times_bytes: 0,
            implied: BTreeSet::from([PathBuf::from(".")]),
            implied_bytes: 1,
            deferred: BTreeMap::new(),
            deferred_bytes: 0,
            size: 0,
        }
    }

    fn add<R: Read>(&mut self, member: &Member, data: &mut Members<R>) -> Result<()> {
        let path = member.path()?;
        let Some(name) = path.file_name().filter(|_| path != Path::new(".")) else {
            if member.typ != Type::Directory {
                return Err(Error::system(format!("{}: the root is a directory", member.quoted())));
            }
            node::apply(self.open(&path)?.as_fd(), Type::Directory, &member.attributes)?;
            return self.has(path, member);
        };
        let dir = directory_of(&path);
        if let Some(part) = dir.iter().find(|part| part.as_bytes().starts_with(WHITEOUT)) {
            // AUFS's own directory, `.wh..wh.plnk`, is of no use without AUFS.
            if part.as_bytes().starts_with(WHITEOUT_META) {
                return Ok(());
            }
            return Err(Error::system(format!("{}: a whiteout has no files", member.quoted())));
        }
        let bytes = name.as_bytes();
        if bytes == OPAQUE {
            return node::set_opaque(self.directory(dir, member)?).context(|| member.quoted());
        }
        if bytes.starts_with(WHITEOUT_META) {
            return Ok(());
        }
        if let Some(hidden) = bytes.strip_prefix(WHITEOUT) {
            return self.hide(dir, OsStr::from_bytes(hidden), member);
        }
        if member.typ == Type::HardLink {
            return self.link(dir, name, &path, member);
        }
        self.undefer(&path);
        let parent = self.directory(dir, member)?;
        let mut made = node::make(parent, name, member, data)?;
        if !made {
            let stat = node::existing(parent, name).context(|| member.quoted())?;
            let directory = stat.as_ref().is_some_and(node::is_directory);
            let hidden = stat.as_ref().is_some_and(node::is_whiteout);
            if directory && member.typ == Type::Directory {
                let again = node::subdirectory(parent, name).context(|| member.quoted())?;
                node::apply(again.as_fd(), Type::Directory, &member.attributes)
                    .context(|| member.quoted())?;
                made = true;
            } else {
                node::remove(parent, name).context(|| format!("{}: remove", member.quoted()))?;
                if directory {
                    self.forget(&path);
                }
                let parent = self.directory(dir, member)?;
                made = node::make(parent, name, member, data)?;
                if hidden && member.typ == Type::Directory {
                    // It replaces the directory below, which the layer deletes; the order of the two entries is free.
                    let new = node::subdirectory(parent, name).context(|| member.quoted())?;
                    node::set_opaque(new.as_fd()).context(|| member.quoted())?;
                }
            }
        }
        if !made {
            return Err(Error::system(format!("{}: somebody else makes files here", member.quoted())));
        }
        match member.typ {
            Type::Directory => self.has(path, member)?,
            Type::File => self.size = self.size.saturating_add(member.size),
            _ => {}
        }
        Ok(())
    }

    /// What the layers below have under this name is not seen. A file of this layer is (image-spec layer.md: whiteouts
    /// apply to the layers below alone).
    fn hide(&mut self, dir: &Path, name: &OsStr, member: &Member) -> Result<()> {
        if matches!(name.as_bytes(), b"" | b"." | b"..") {
            return Err(Error::system(format!("{}: a whiteout of nothing", member.quoted())));
        }
        let parent = self.directory(dir, member)?;
        match mknodat(parent, name, FileType::CharacterDevice, Mode::empty(), 0) {
            Ok(()) => return Ok(()),
            Err(Errno::EXIST) => {}
            Err(e) => return Err(Error::from(e).context(format!("{}: mknod", member.quoted()))),
        }
        let stat = node::existing(parent, name).context(|| member.quoted())?;
        if stat.as_ref().is_some_and(node::is_directory) {
            let own = node::subdirectory(parent, name).context(|| member.quoted())?;
            node::set_opaque(own.as_fd()).context(|| member.quoted())?;
            self.not_implied(&join(dir, name));
        }
        Ok(())
    }

    fn link(&mut self, dir: &Path, name: &OsStr, path: &Path, member: &Member) -> Result<()> {
        let target = member.target()?;
        let told = || format!("{}: link to {:?}", member.quoted(), target.display().to_string());
        if target == path {
            return Err(Error::system("the same name")).context(told);
        }
        if target.iter().any(|part| part.as_bytes().starts_with(WHITEOUT)) {
            return Err(Error::system("a whiteout is no file")).context(told);
        }
        let base = target.file_name().ok_or_else(|| Error::system("the root is no file")).context(told)?;
        let from = match self.open(directory_of(&target)) {
            Ok(from) => Some(from),
            Err(Errno::NOENT) => None,
            Err(e) => return Err(self.through(&target, e)).context(told),
        };
        let stat = match &from {
            Some(from) => node::existing(from, base).context(told)?,
            None => None,
        };
        let place = self.directory(dir, member)?;
        let there = node::existing(place, name).context(told)?;
        if there.is_some() {
            node::remove(place, name).context(|| format!("{}: remove", member.quoted()))?;
            if there.as_ref().is_some_and(node::is_directory) {
                self.forget(path);
            }
        }
        self.undefer(path);
        match (from, stat) {
            (Some(from), Some(stat)) if !node::is_directory(&stat) && !node::is_whiteout(&stat) => {
                node::link(from.as_fd(), base, self.directory(dir, member)?, name).context(told)
            }
            (_, Some(stat)) if node::is_directory(&stat) => {
                Err(Error::system("is a directory")).context(told)
            }
            (_, Some(_)) => Err(Error::system("this layer deletes it")).context(told),
            (_, None) => {
                let target = self.deferred.get(&target).cloned().unwrap_or(target);
                self.deferred_bytes += path.as_os_str().len() + target.as_os_str().len();
                if self.deferred_bytes > DEFERRED {
                    return Err(Error::system(format!(
                        "{}: the layer has too many hard links to files that it does not have",
                        member.quoted()
                    )));
                }
                self.deferred.insert(path.to_owned(), target);
                Ok(())
            }
        }
    }

    /// The archive has a directory itself.
    fn has(&mut self, path: PathBuf, member: &Member) -> Result<()> {
        self.not_implied(&path);
        let bytes = path.as_os_str().len();
        if self.times.insert(path, member.attributes.mtime).is_none() {
            self.times_bytes += bytes;
        }
        if self.times_bytes > DIRECTORIES {
            return Err(Error::system(format!("{}: the layer has too many directories", member.quoted())));
        }
        Ok(())
    }

    fn imply(&mut self, path: PathBuf) -> Result<()> {
        self.implied_bytes += path.as_os_str().len();
        if self.implied_bytes > IMPLIED {
            return Err(Error::system("the layer has files in too many directories that it does not have"));
        }
        self.implied.insert(path);
        Ok(())
    }

    fn not_implied(&mut self, path: &Path) {
        if self.implied.remove(path) {
            self.implied_bytes -= path.as_os_str().len();
        }
    }

    /// A directory that is removed takes what is known of those below it along.
    fn forget(&mut self, path: &Path) {
        self.parent = None;
        let below = |other: &&PathBuf| other.starts_with(path);
        let gone: Vec<PathBuf> =
            self.times.range(path.to_owned()..).map(|(p, _)| p).take_while(below).cloned().collect();
        for path in gone {
            self.times_bytes -= path.as_os_str().len();
            self.times.remove(&path);
        }
        let gone: Vec<PathBuf> = self.implied.range(path.to_owned()..).take_while(below).cloned().collect();
        for path in gone {
            self.not_implied(&path);
        }
        let gone: Vec<PathBuf> =
            self.deferred.range(path.to_owned()..).map(|(p, _)| p).take_while(below).cloned().collect();
        for path in gone {
            self.undefer(&path);
        }
    }

    fn undefer(&mut self, path: &Path) {
        if let Some(target) = self.deferred.remove(path) {
            self.deferred_bytes -= path.as_os_str().len() + target.as_os_str().len();
        }
    }

    fn open(&self, path: &Path) -> Result<OwnedFd, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat2(self.root, path, flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS)
    }

    /// The directory `dir`, made if it is not there.
    fn directory(&mut self, dir: &Path, member: &Member) -> Result<BorrowedFd<'_>> {
        if self.parent.as_ref().is_none_or(|(path, _)| path != dir) {
            self.parent = None;
            let opened = match self.open(dir) {
                Err(Errno::NOENT | Errno::NOTDIR) => self.make_parents(dir),
                Err(e) => Err(self.through(dir, e)),
                Ok(opened) => Ok(opened),
            };
            self.parent = Some((dir.to_owned(), opened.context(|| member.quoted())?));
        }
        Ok(self.parent.as_ref().map_or(self.root, |(_, fd)| fd.as_fd()))
    }

    fn make_parents(&mut self, dir: &Path) -> Result<OwnedFd> {
        let mut path = PathBuf::new();
        let mut parent = self.open(Path::new("."))?;
        for name in dir {
            path.push(name);
            let mut found = node::subdirectory(&parent, name);
            if let Err(Errno::NOENT | Errno::NOTDIR) = found {
                let stat = node::existing(&parent, name)?;
                let hidden = stat.as_ref().is_some_and(node::is_whiteout);
                if hidden {
                    node::remove(parent.as_fd(), name).context(|| "remove")?;
                } else if let Some(stat) = stat {
                    let link = FileType::from_raw_mode(stat.st_mode) == FileType::Symlink;
                    return Err(self.through(&path, if link { Errno::LOOP } else { Errno::NOTDIR }));
                }
                mkdirat(&parent, name, Mode::RWXU).context(|| "mkdir")?;
                let made = node::subdirectory(&parent, name)?;
                fchown(&made, Some(Uid::ROOT), Some(Gid::ROOT)).context(|| "chown")?;
                fchmod(&made, Mode::from_raw_mode(0o755)).context(|| "chmod")?;
                if hidden {
                    node::set_opaque(made.as_fd())?;
                } else {
                    self.imply(path.clone())?;
                }
                found = Ok(made);
            }
            parent = found?;
        }
        Ok(parent)
    }

    /// Says what stands in the way.
    fn through(&self, path: &Path, e: Errno) -> Error {
        match e {
            Errno::LOOP => {
                Error::system(format!("{:?} has a symbolic link in it", path.display().to_string()))
            }
            Errno::NOTDIR => Error::system(format!("{:?} is not a directory", path.display().to_string())),
            e => Error::from(e).context(format!("openat2 {:?}", path.display().to_string())),
        }
    }

    fn finish(mut self) -> Result<Unpacked> {
        self.parent = None;
        for (path, time) in std::mem::take(&mut self.times) {
            // A whiteout or a file may have come in its place.
            match self.open(&path) {
                Ok(dir) => node::set_times(dir.as_fd(), true, time)?,
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(e) => return Err(self.through(&path, e)),
            }
        }
        let deferred = self.deferred.into_iter().map(|(path, target)| HardLink { path, target }).collect();
        Ok(Unpacked { size: self.size, implied: self.implied.into_iter().collect(), deferred })
    }
}

/// The directory of a path, which is `.` for a name in the root.
pub(super) fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

/// `dir/name`, where the root is `.`.
pub(super) fn join(dir: &Path, name: &OsStr) -> PathBuf {
    if dir == Path::new(".") { PathBuf::from(name) } else { dir.join(name) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::testing::{Scratch, Tar, sh, told, unpack_into};
    use std::fs::{self, File};
    use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
    use tar::Header;

    fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
        let mut value = vec![0; 256];
        let length = rustix::fs::lgetxattr(path, name, &mut value[..]).ok()?;
        value.truncate(length);
        Some(value)
    }

    fn is_whiteout(path: &Path) -> bool {
        fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_char_device() && meta.rdev() == 0)
    }

    fn is_opaque(path: &Path) -> bool {
        xattr(path, "trusted.overlay.opaque").as_deref() == Some(b"y")
    }

    #[test]
    fn files_of_every_type_get_owner_mode_and_time() {
        let scratch = Scratch::new();
        let dir = scratch.dir("layer");
        let mut su = Tar::header(b'0', "bin/su", 2);
        su.set_mode(0o104_755);
        su.set_uid(12);
        su.set_gid(34);
        let unpacked = Tar::default()
            .dir("./", 0o711)
            .dir("bin/", 0o1777)
            .raw(su, b"su")
            .symlink("bin/sh", "/etc/../dash")
            .hard_link("bin/same", "./bin/su")
            .raw(Tar::header(b'6', "fifo", 0), b"")
            .device(b'3', "null", 1, 3)
            .device(b'4', "sda", 8, 0)
            .raw(Tar::header(b'7', "/contiguous", 1), b"c")
            .raw(Tar::header(0, "old/", 0), b"")
            .pax(&[("mtime", b"-1.25"), ("uid", b"4000000000")])
            .file("before1970", "")
            .unpack(&dir)
            .expect("unpack");
        assert_eq!(unpacked, Unpacked { size: 3, implied: vec![], deferred: vec![] });
        assert_eq!(
            told(&dir),
            [
                "/ 40711 0:0 1000000000.000000000",
                "/before1970 100644 4000000000:0 -2.750000000 0 bytes 1 links e3b0c44298fc",
                "/bin 41777 0:0 1000000000.000000000",
                "/bin/same 104755 12:34 1000000000.000000000 2 bytes 2 links 0a64ce10853f",
                "/bin/sh 120777 0:0 1000000000.000000000 -> /etc/../dash",
                "/bin/su 104755 12:34 1000000000.000000000 2 bytes 2 links 0a64ce10853f",
                "/contiguous 100644 0:0 1000000000.000000000 1 bytes 1 links 2e7d2c03a950",
                "/fifo 10644 0:0 1000000000.000000000",
                "/null 20644 0:0 1000000000.000000000 device 259",
                "/old 40644 0:0 1000000000.000000000",
                "/sda 60644 0:0 1000000000.000000000 device 2048",
            ]
        );
    }

    #[test]
    fn attributes_are_taken_from_the_list_of_those_that_are_an_images() {
        let scratch = Scratch::new();
        let dir = scratch.dir("layer");
        // CAP_NET_RAW is bit 13; bits 1 and 3 make a newline of the value.
        let capability = b"\x01\0\0\x02\x0a\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
        let records: [(&str, &[u8]); 7] = [
            ("SCHILY.xattr.security.capability", capability),
            ("SCHILY.xattr.user.name", b"a\nb\0c"),
            ("SCHILY.xattr.user.empty", b""),
            ("SCHILY.xattr.user.overlay.opaque", b"y"),
            ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
            ("SCHILY.xattr.trusted.other", b"x"),
            ("SCHILY.xattr.security.selinux", b"x"),
        ];
        Tar::default()
            .pax(&records)
            .file("ping", "x")
            .pax(&records[1..])
            .dir("dir", 0o755)
            .pax(&records[1..])
            .symlink("link", "ping")
            .unpack(&dir)
            .expect("unpack");
        let lines = told(&dir);
        assert!(lines[1].ends_with("user.empty=\"\" user.name=\"a\\nb\\0c\""), "{lines:?}");
        assert!(lines[3].contains(" user.name=") && !lines[3].contains("trusted"), "{lines:?}");
        assert_eq!(xattr(&dir.join("ping"), "security.capability").as_deref(), Some(&capability[..]));
        assert!(!lines[2].contains('='), "a symbolic link has no user attributes: {lines:?}");
        let text = sh(&dir, "getcap ping");
        assert!(text.contains("cap_net_raw"), "{text}");
    }

    #[test]
    fn whiteouts_hide_what_is_below_and_no_file_of_the_layer_in_either_order() {
        let scratch = Scratch::new();
        let dir = scratch.dir("layer");
        let unpacked = Tar::default()
            .dir(".", 0o755)
            .file(".wh.gone", "")
            .file("a/.wh.gone", "")
            .file(".wh.file", "")
            .file("file", "1")
            .file("file2", "2")
            .file(".wh.file2", "")
            .file(".wh.dir", "")
            .dir("dir", 0o700)
            .dir("dir2", 0o700)
            .file(".wh.dir2", "")
            .file(".wh.dir3", "")
            .file("dir3/file", "")
            .file("dir4/file", "")
            .file(".wh.dir4", "")
            .file("opaque/file", "")
            .file("opaque/.wh..wh..opq", "")
            .file("opaque2/.wh..wh..opq", "")
            .file("opaque2/file", "")
            .file(".wh..wh.aufs", "")
            .dir(".wh..wh.plnk", 0o700)
            .file(".wh..wh.plnk/1.2", "")
            .unpack(&dir)
            .expect("unpack");
        assert_eq!(unpacked.implied, ["a", "opaque", "opaque2"].map(PathBuf::from));
        for gone in ["gone", "a/gone"] {
            assert!(is_whiteout(&dir.join(gone)), "{gone}");
        }
        assert_eq!(
            (fs::read(dir.join("file")).expect("1"), fs::read(dir.join("file2")).expect("2")),
            (b"1".into(), b"2".into())
        );
        for opaque in ["dir", "dir2", "dir3", "dir4", "opaque", "opaque2"] {
            assert!(is_opaque(&dir.join(opaque)), "{opaque}");
        }
        assert!(!is_opaque(&dir) && !is_opaque(&dir.join("a")));
        assert!(
            dir.join("opaque/file").exists()
                && dir.join("opaque2/file").exists()
                && dir.join("dir3/file").exists()
        );
        assert!(
            fs::read_dir(&dir)
                .expect("readdir")
                .all(|entry| { !entry.expect("entry").file_name().as_bytes().starts_with(b".wh.") })
        );
    }

    #[test]
    fn the_last_of_two_entries_with_one_name_wins() {
        let scratch = Scratch::new();
        let dir = scratch.dir("layer");
        let unpacked = Tar::default()
            .dir("d", 0o700)
            .file("d/kept", "1")
            .dir("d/", 0o711)
            .file("f", "long text")
            .file("f", "new")
            .file("x/deep/file", "")
            .file("x", "a file now")
            .dir("y", 0o700)
            .file("y", "1")
            .dir("y", 0o750)
            .symlink("s", "/etc")
            .dir("s", 0o755)
            .file("s/inside", "")
            .file("t", "")
            .symlink("t", "f")
            .file("h", "old")
            .hard_link("h", "f")
            .unpack(&dir)
            .expect("unpack");
        assert_eq!(unpacked.implied, [PathBuf::from(".")]);
        assert_eq!(fs::read(dir.join("d/kept")).expect("kept"), b"1");
        assert_eq!(fs::metadata(dir.join("d")).expect("d").permissions().mode() & 0o777, 0o711);
        assert_eq!(fs::metadata(dir.join("y")).expect("y").permissions().mode() & 0o777, 0o750);
        assert_eq!(fs::read(dir.join("f")).expect("f"), b"new");
        assert_eq!(fs::read(dir.join("x")).expect("x"), b"a file now");
        assert!(fs::symlink_metadata(dir.join("s")).expect("s").is_dir() && dir.join("s/inside").exists());
        assert_eq!(fs::read_link(dir.join("t")).expect("t"), Path::new("f"));
        assert_eq!(
            fs::metadata(dir.join("h")).expect("h").ino(),
            fs::metadata(dir.join("f")).expect("f").ino()
        );
    }

    #[test]
    fn hard_links_to_what_the_layer_does_not_have_are_reported_and_not_made() {
        let scratch = Scratch::new();
        let dir = scratch.dir("layer");
        let unpacked = Tar::default()
            .hard_link("a/link", "usr/bin/below")
            .hard_link("again", "a/link")
            .hard_link("replaced", "below")
            .file("replaced", "own")
            .file("file", "")
            .hard_link("file", "below")
            .unpack(&dir)
            .expect("unpack");
        let link = |path: &str, target: &str| HardLink { path: path.into(), target: target.into() };
        let usr = "usr/bin/below";
        assert_eq!(unpacked.deferred, [link("a/link", usr), link("again", usr), link("file", "below")]);
        assert_eq!(unpacked.implied, [".", "a"].map(PathBuf::from));
        assert!(dir.join("replaced").exists() && !dir.join("file").exists());
    }

    #[test]
    fn long_names_and_sizes_are_read_from_every_format() {
        let scratch = Scratch::new();
        let dir = scratch.dir("layer");
        let long = format!("{}/{}", "d".repeat(120), "f".repeat(200));
        let target = format!("/{}", "t".repeat(300));
        let gnu =
            |typ, text: &str| (Tar::header(typ, "././@LongLink", text.len() as u64 + 1), format!("{text}\0"));
        let (name, name_data) = gnu(b'L', &long);
        let (link, link_data) = gnu(b'K', &target);
        let mut prefixed = Header::new_ustar();
        {
            let ustar = prefixed.as_ustar_mut().expect("ustar");
            ustar.name[..4].copy_from_slice(b"file");
            ustar.prefix[..6].copy_from_slice(b"prefix");
        }
        prefixed.set_mode(0o644);
        prefixed.set_size(0);
        Tar::default()
            .raw(name, name_data.as_bytes())
            .file("short", "gnu")
            .raw(link, link_data.as_bytes())
            .symlink("link", "short")
            .pax(&[("path", long.replace('f', "p").as_bytes()), ("size", b"3")])
            .raw(Tar::header(b'0', "short", 0), b"pax")
            .pax(&[("linkpath", target.as_bytes())])
            .symlink("link2", "short")
            .raw(prefixed, b"")
            .unpack(&dir)
            .expect("unpack");
        assert_eq!(fs::read(dir.join(&long)).expect("long"), b"gnu");
        assert_eq!(fs::read(dir.join(long.replace('f', "p"))).expect("long"), b"pax");
        assert_eq!(fs::read_link(dir.join("link")).expect("link"), Path::new(&target));
        assert_eq!(fs::read_link(dir.join("link2")).expect("link"), Path::new(&target));
        assert!(dir.join("prefix/file").exists());
    }

    #[test]
    fn the_size_of_a_pax_header_wins_and_is_not_lost_behind_a_newline() {
        // CVE-2025-62518: the header says 0, so that who believes it takes the data for members.
        let inner = Tar::default().file("smuggled", "evil").0;
        let size = inner.len().to_string();
        for records in [
            vec![("size", size.as_bytes())],
            vec![("SCHILY.xattr.user.x", &b"1\n2"[..]), ("size", size.as_bytes())],
        ] {
            let scratch = Scratch::new();
            let dir = scratch.dir("layer");
            let long = (Tar::header(b'L', "././@LongLink", 6), b"outer\0");
            Tar::default()
                .pax(&records)
                .raw(long.0, long.1)
                .raw(Tar::header(b'0', "x", 0), &inner)
                .file("after", "")
                .unpack(&dir)
                .expect("unpack");
            assert_eq!(fs::read(dir.join("outer")).expect("outer"), inner);
            assert!(dir.join("after").exists() && !dir.join("smuggled").exists());
        }
    }

    #[test]
    fn what_has_no_data_has_none_whatever_its_size_says() {
        let scratch = Scratch::new();
        let dir = scratch.dir("layer");
        let mut link = Tar::header(b'1', "link", 512);
        link.as_old_mut().linkname[..4].copy_from_slice(b"file");
        Tar::default().file("file", "x").raw(link, b"").file("after", "y").unpack(&dir).expect("unpack");
        assert!(dir.join("after").exists());
    }

    /// An archive that must be refused, with a part of what is said about it.
    fn hostile() -> Vec<(&'static str, Vec<u8>)> {
        let canary = |tar: Tar| tar.end();
        let mut list = vec![
            ("\"..\"", canary(Tar::default().file("../canary", "evil"))),
            ("\"..\"", canary(Tar::default().file("a/../../canary", "evil"))),
            ("\"..\"", canary(Tar::default().pax(&[("path", b"x/../../canary")]).file("x", "evil"))),
            ("\"..\"", canary(Tar::default().dir("..", 0o777))),
            ("\"..\"", canary(Tar::default().hard_link("link", "../canary"))),
            ("\"..\"", canary(Tar::default().file("../.wh.canary", ""))),
            ("whiteout of nothing", canary(Tar::default().file("a/.wh...", ""))),
            ("whiteout of nothing", canary(Tar::default().file("a/.wh..", ""))),
            ("whiteout of nothing", canary(Tar::default().file(".wh.", ""))),
            ("whiteout has no files", canary(Tar::default().file(".wh.x/file", ""))),
            ("symbolic link", canary(Tar::default().symlink("l", "..").file("l/canary", "evil"))),
            ("symbolic link", canary(Tar::default().symlink("l", "/").file("l/tmp/x", "evil"))),
            ("symbolic link", canary(Tar::default().symlink("l", "..").dir("l/new", 0o777))),
            ("symbolic link", canary(Tar::default().symlink("l", "..").file("l/.wh.canary", ""))),
            ("symbolic link", canary(Tar::default().symlink("l", "..").file("l/.wh..wh..opq", ""))),
            ("symbolic link", canary(Tar::default().symlink("l", "..").hard_link("x", "l/canary"))),
            (
                "symbolic link",
                canary(Tar::default().file("f", "evil").symlink("l", "..").hard_link("l/new", "f")),
            ),
            ("symbolic link", canary(Tar::default().symlink("l", ".").file("l/l/x", "evil"))),
            ("not a directory", canary(Tar::default().file("f", "").file("f/x", ""))),
            ("is a directory", canary(Tar::default().dir("d", 0o755).hard_link("x", "d"))),
            ("deletes it", canary(Tar::default().file(".wh.a", "").hard_link("b", "a"))),
            ("the same name", canary(Tar::default().file("a", "").hard_link("a", "./a"))),
            ("root is a directory", canary(Tar::default().file(".", "x"))),
            ("root is no file", canary(Tar::default().hard_link("x", "/"))),
            ("NUL", canary(Tar::default().pax(&[("path", b"a\0b")]).file("x", ""))),
            ("NUL", canary(Tar::default().raw(Tar::header(b'L', "L", 3), b"a\0b").file("x", ""))),
            ("a name is empty", canary(Tar::default().file("", ""))),
            (
                "directories is refused",
                canary(Tar::default().pax(&[("path", &b"a/".repeat(600))]).file("x", "")),
            ),
            (
                "two long names",
                canary(
                    Tar::default().raw(Tar::header(b'L', "L", 1), b"a").pax(&[("path", b"b")]).file("x", ""),
                ),
            ),
            (
                "two extended",
                canary(Tar::default().pax(&[("path", b"b")]).pax(&[("path", b"c")]).file("x", "")),
            ),
            ("global PAX", canary(Tar::default().extended(b'g', &[("path", b"b")]).file("x", ""))),
            (
                "malformed PAX",
                canary(Tar::default().raw(Tar::header(b'x', "x", 8), b"9 size=1").file("x", "")),
            ),
            ("size \"-1\"", canary(Tar::default().pax(&[("size", b"-1")]).file("x", ""))),
            ("overflows", canary(Tar::default().pax(&[("size", b"18446744073709551615")]).file("x", ""))),
            ("ends within", canary(Tar::default().pax(&[("size", b"9223372036854775807")]).file("x", ""))),
            ("is refused", canary(Tar::default().raw(Tar::header(b'x', "x", 1 << 40), b"").file("x", ""))),
            ("behind an extended", canary(Tar::default().pax(&[("path", b"b")]))),
            ("uid 4294967295", canary(Tar::default().pax(&[("uid", b"4294967295")]).file("x", ""))),
            ("type 'V'", canary(Tar::default().raw(Tar::header(b'V', "volume", 0), b""))),
            // The data is longer than the header says, and so is not a header.
            ("checksum", canary(Tar::default().raw(Tar::header(b'0', "x", 5), &[b'x'; 700]))),
            ("checksum", vec![b'x'; 2048]),
            ("within a header", vec![b'x'; 100]),
        ];
        let cut = Tar::default().file("file", "0123456789").end();
        list.push(("within \"file\"", cut[..515].to_vec()));
        let sparse = |records: &[(&str, &[u8])], data: &[u8]| {
            Tar::default().pax(records).raw(Tar::header(b'0', "sparse", data.len() as u64), data).end()
        };
        let major: (&str, &[u8]) = ("GNU.sparse.major", b"1");
        let minor: (&str, &[u8]) = ("GNU.sparse.minor", b"0");
        let size: (&str, &[u8]) = ("GNU.sparse.realsize", b"10");
        for map in [
            "1\n0\n20\n",
            "1\n5\n1\n",
            "2\n5\n1\n0\n1\n",
            "99999999\n",
            "x\n",
            "1\n18446744073709551615\n1\n",
            "",
        ] {
            let mut data = map.as_bytes().to_vec();
            data.resize(512, 0);
            list.push(("sparse", sparse(&[major, minor, size], &data)));
        }
        list.push(("sparse", sparse(&[("GNU.sparse.major", b"2"), minor, size], b"")));
        list.push(("sparse", sparse(&[("GNU.sparse.map", b"0,1,2"), ("GNU.sparse.size", b"9")], b"a")));
        list
    }

    /// Everything outside the layer's directory, where a canary is.
    fn outside(scratch: &Scratch) -> Vec<String> {
        let mut lines = told(&scratch.0);
        lines.retain(|line| !line.starts_with("/layer"));
        lines
    }

    #[test]
    fn a_hostile_archive_is_refused_and_nothing_outside_is_touched() {
        for (text, archive) in hostile() {
            let scratch = Scratch::new();
            fs::write(scratch.0.join("canary"), "alive").expect("write");
            let dir = scratch.dir("layer");
            let before = outside(&scratch);
            let e = unpack_into(&archive, &dir).expect_err(text).to_string();
            assert!(e.contains(text), "{text}: {e}");
            assert_eq!(outside(&scratch), before, "{text}");
        }
    }

    #[test]
    fn absolute_names_are_relative_to_the_root() {
        let scratch = Scratch::new();
        let dir = scratch.dir("layer");
        let name = format!("{}/canary", scratch.0.display());
        Tar::default().file(&name, "inside").hard_link("//link", &name).unpack(&dir).expect("unpack");
        assert!(!scratch.0.join("canary").exists());
        assert_eq!(fs::read(dir.join("link")).expect("link"), b"inside");
    }

    #[test]
    fn what_only_fills_the_last_block_may_be_missing() {
        let whole = Tar::default().file("a", "1").file("b", "12345").0;
        for (length, complete) in [(512 * 3 + 4, false), (512 * 3 + 5, true), (512 * 3 + 100, true)] {
            let scratch = Scratch::new();
            let dir = scratch.dir("layer");
            assert_eq!(unpack_into(&whole[..length], &dir).is_ok(), complete, "{length}");
            assert!(!complete || fs::read(dir.join("b")).expect("b") == b"12345");
        }
    }

    #[test]
    fn no_truncation_and_no_flipped_byte_panics_or_gets_out() {
        let records: &[(&str, &[u8])] =
            &[("mtime", b"1.5"), ("path", b"p/q"), ("SCHILY.xattr.user.x", b"y\n")];
        let mut map = b"1\n3\n2\n".to_vec();
        map.resize(512, 0);
        map.extend(b"xy");
        let sparse: &[(&str, &[u8])] =
            &[("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0"), ("GNU.sparse.realsize", b"9")];
        let archives = [
            Tar::default().dir("a/", 0o755).file("a/f", "text").hard_link("a/h", "a/f"),
            Tar::default().symlink("l", "../canary").file(".wh.x", "").file("o/.wh..wh..opq", ""),
            Tar::default().pax(records).file("x", "y").hard_link("below", "../x"),
            Tar::default().raw(Tar::header(b'L', "L", 4), b"a/b\0").file("x", "y").device(b'3', "n", 1, 3),
            Tar::default().pax(sparse).raw(Tar::header(b'0', "s", map.len() as u64), &map),
        ];
        let scratch = Scratch::new();
        fs::write(scratch.0.join("canary"), "alive").expect("write");
        let before = outside(&scratch);
        let mut at_all = 0;
        for archive in archives {
            let archive = archive.end();
            let useful = archive.len() - 1024;
            // Most of a header is zeros, and one of a row of them is like the other.
            let flipped = (0..useful).filter(|&at| archive[at] != 0 || at % 512 < 20 || at % 512 % 16 == 0);
            let flipped = flipped.flat_map(|at| [(at, 0x01), (at, b'.' ^ b'0')]);
            let attempts = (0..useful).step_by(5).map(|at| (at, 0)).chain(flipped);
            for (at, bits) in attempts {
                let mut broken = archive.clone();
                if bits == 0 {
                    broken.truncate(at);
                } else {
                    broken[at] ^= bits;
                    // So that more than the checksum is tried.
                    repair(&mut broken);
                }
                let dir = scratch.dir("layer");
                let _ = unpack_into(&broken, &dir);
                crate::home::remove_tree(&dir).expect("remove");
                at_all += 1;
            }
            assert_eq!(outside(&scratch)[1..], before[1..]);
        }
        assert!(at_all > 3000, "{at_all}");
    }

    /// Sets the checksum of each block that had one.
    fn repair(archive: &mut [u8]) {
        for block in archive.chunks_exact_mut(512) {
            if block[155] == b' '
                || block[154] == 0 && block[148..154].iter().all(|c| matches!(c, b'0'..=b'7'))
            {
                let mut header = Header::from_byte_slice(block).clone();
                header.set_cksum();
                block.copy_from_slice(header.as_bytes());
            }
        }
    }

    #[test]
    fn a_layer_larger_than_allowed_is_refused_before_it_is_written() {
        let scratch = Scratch::new();
        let dir = scratch.dir("layer");
        let options = UnpackOptions { limit: Some(10) };
        let archive = Tar::default().file("a", "0123456789").end();
        let open = File::open(&dir).expect("open");
        assert_eq!(unpack(&archive[..], open.as_fd(), &options).expect("fits").size, 10);
        let archive = Tar::default().file("a", "0123456789").file("b", "x").end();
        let e = unpack(&archive[..], open.as_fd(), &options).expect_err("does not fit");
        assert_eq!(e.to_string(), "\"b\": the layer is larger than allowed");
        assert!(!dir.join("b").exists());
    }

    #[test]
    fn all_of_the_stream_is_read_and_an_end_without_a_marker_is_one() {
        let scratch = Scratch::new();
        let dir = scratch.dir("layer");
        let mut archive = Tar::default().file("a", "x").end();
        archive.resize(20480, 0);
        let mut through = crate::digest::Hashing::new(&archive[..]);
        unpack(&mut through, File::open(&dir).expect("open").as_fd(), &UnpackOptions::default())
            .expect("unpack");
        assert_eq!(through.length(), 20480);
        unpack_into(&Tar::default().file("b", "x").0, &dir).expect("no marker");
        assert_eq!(unpack_into(b"", &dir).expect("nothing").size, 0);
        assert!(dir.join("b").exists());
    }

    #[test]
    fn hard_links_to_lower_layers_are_limited() {
        let scratch = Scratch::new();
        // Nothing of them is in the tree, and a target of 4,000 bytes packs to a few.
        let far = format!("below/{}", "d/".repeat(500) + &"x".repeat(250)).into_bytes();
        let links = |n: usize| {
            let mut tar = Tar::default();
            for n in 0..n {
                tar = tar.pax(&[("linkpath", &far)]).hard_link(&format!("l{n}"), "x");
            }
            tar
        };
        let few = links(1000).unpack(&scratch.dir("few")).expect("few");
        assert_eq!(few.deferred.len(), 1000);
        let e = links(20_000).unpack(&scratch.dir("many")).expect_err("too many").to_string();
        assert!(e.contains("hard links to files that it does not have"), "{e}");
    }

    #[test]
    fn the_names_of_directories_are_limited() {
        let scratch = Scratch::new();
        let dir = File::open(scratch.dir("layer")).expect("open");
        let mut layer = Layer::new(dir.as_fd());
        let mut add = |tar: Tar, change: fn(&mut Layer<'_>)| -> Result<(usize, usize)> {
            change(&mut layer);
            let archive = tar.end();
            let mut members = Members::new(&archive[..]);
            while let Some(member) = members.next()? {
                layer.add(&member, &mut members)?;
            }
            Ok((layer.times_bytes, layer.implied_bytes))
        };
        // What comes again counts once, and what goes no more.
        let tar = Tar::default().dir("a/b", 0o755).dir("a/b", 0o700).dir("x/y", 0o755).file("x", "");
        assert_eq!(add(tar, |_| {}).expect("few"), (3, 2));
        let tar = Tar::default().dir("a", 0o755).dir(".", 0o755);
        assert_eq!(add(tar, |_| {}).expect("few"), (5, 0));
        let near =
            |layer: &mut Layer<'_>| (layer.times_bytes, layer.implied_bytes) = (DIRECTORIES - 3, IMPLIED - 3);
        let e = add(Tar::default().dir("long", 0o755), near).expect_err("too many").to_string();
        assert_eq!(e, "\"long\": the layer has too many directories");
        let e = add(Tar::default().file("more/f", ""), near).expect_err("too many").to_string();
        assert_eq!(e, "\"more/f\": the layer has files in too many directories that it does not have");
    }

    #[test]
    fn a_name_longer_than_a_path_can_be_is_refused() {
        let scratch = Scratch::new();
        let long = [b"x".repeat(5000), b"x/".repeat(200).repeat(12)];
        for long in &long {
            let e = Tar::default().pax(&[("linkpath", long)]).hard_link("l", "x").unpack(&scratch.dir("l"));
            let e = e.expect_err("a long target").to_string();
            assert!(e.contains("of 5000 bytes") || e.contains("of 4800 bytes"), "{e}");
            assert!(e.len() < 1000, "{} bytes of error", e.len());
        }
    }
}
