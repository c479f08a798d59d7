//! A tree, or what an overlay's upper directory has changed, as an archive.

#![forbid(unsafe_code)]

use super::changes::is_made;
use super::extract::{in_root, resolve};
use super::lower::{Below, Lowers};
use super::member::Attributes;
use super::unpack::join;
use super::{OPAQUE, WHITEOUT, node, pax};
use crate::error::{Context as _, Error, Result};
use rustix::fs::{FileType, OFlags, Stat, fstat, major, minor, readlinkat};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use tar::{Builder, EntryType, Header};

/// Packs the upper directory of an overlay as a layer on `lowers`, the uppermost of which comes first. The overlay must
/// have been mounted with `redirect_dir=off,metacopy=off,index=off`, so that all that changed is in it. The same
/// directory makes the same bytes: names are in the order of their bytes, a directory before what is in it. Sockets
/// are left out: no archive can have them. So is what a runtime made to mount on: see [`super::changes`]. After an
/// error what was written ends within a member or a block, and no reader takes it for a whole archive.
///
/// # Errors
/// A file whose name begins with `.wh.`, which a layer cannot have; those of the calls and of `writer`.
pub fn pack_diff(
    upper: BorrowedFd<'_>,
    lowers: &[BorrowedFd<'_>],
    made: &[&str],
    writer: impl Write,
) -> Result<()> {
    let lowers = Lowers(lowers);
    let mut packer = Packer::new(writer);
    let stat = fstat(upper)?;
    let known = |stat: &Stat| (stat.st_mode & 0o7777, stat.st_uid, stat.st_gid);
    let plain = match lowers.0.first() {
        Some(lower) => known(&fstat(lower)?),
        None => (0o755, 0, 0),
    };
    if known(&stat) != plain {
        packer.add(node::path_only(upper, ".")?, b".")?;
    }
    packer.diff(upper, Path::new("."), lowers, &lowers.root(), made)?;
    packer.finish()
}

/// Whether a new directory has nothing in it but what is `made`.
fn is_made_dir(file: &OwnedFd, path: &Path, made: &[&str]) -> Result<bool> {
    if !made.iter().any(|made| Path::new(made).starts_with(path)) || !node::is_directory(&fstat(file)?) {
        return Ok(false);
    }
    let dir = node::subdirectory(file, ".")?;
    for name in node::names(dir.as_fd())? {
        let path = join(path, &name);
        let file = node::path_only(dir.as_fd(), &name)?;
        if !is_made(&path, &fstat(&file)?, made) && !is_made_dir(&file, &path, made)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Packs `path` and all below it under the name `name`; a directory's contents alone if `name` is empty. `path` is
/// resolved as a process whose root directory is `root` would; a symbolic link at its end is packed itself unless a
/// slash or `/.` follows. After an error what was written is no whole archive, as with [`pack_diff`].
///
/// # Errors
/// NotFound where `path` is not there; those of the calls and of `writer`.
pub fn pack_tree(root: BorrowedFd<'_>, path: &Path, name: &Path, writer: impl Write) -> Result<()> {
    let bytes = path.as_os_str().as_bytes();
    let follow = bytes.ends_with(b"/") || bytes.ends_with(b"/.");
    let flags = if follow { OFlags::PATH | OFlags::DIRECTORY } else { OFlags::PATH | OFlags::NOFOLLOW };
    let top = resolve(root, &in_root(path), flags).map_err(|e| match e {
        rustix::io::Errno::NOENT => {
            Error::not_found(format!("{}: no such file or directory", path.display()))
        }
        e => Error::from(e).context(path.display().to_string()),
    })?;
    let mut packer = Packer::new(writer);
    let name = name.as_os_str().as_bytes();
    if name.is_empty() {
        let top = node::subdirectory(&top, ".").context(|| path.display().to_string())?;
        packer.tree(top.as_fd(), b"")?;
    } else if let Some(dir) = packer.add(top, name)? {
        packer.tree(dir.as_fd(), name)?;
    }
    packer.finish()
}

struct Packer<W: Write> {
    builder: Builder<Torn<W>>,
    /// The first name of each file that has several.
    links: HashMap<(u64, u64), Vec<u8>>,
}

impl<W: Write> Packer<W> {
    fn new(writer: W) -> Self {
        Self { builder: Builder::new(Torn { writer, within: false, closed: false }), links: HashMap::new() }
    }

    fn finish(mut self) -> Result<()> {
        self.builder.finish()?;
        self.builder.get_mut().flush()?;
        self.builder.get_mut().closed = true;
        Ok(())
    }

    fn tree(&mut self, dir: BorrowedFd<'_>, prefix: &[u8]) -> Result<()> {
        for name in node::names(dir).context(|| quoted(prefix))? {
            let path = [prefix, if prefix.is_empty() { b"" } else { b"/" }, name.as_bytes()].concat();
            let file = match node::path_only(dir, &name) {
                // Removed meanwhile.
                Err(rustix::io::Errno::NOENT) => continue,
                file => file.context(|| quoted(&path))?,
            };
            if let Some(dir) = self.add(file, &path)? {
                self.tree(dir.as_fd(), &path)?;
            }
        }
        Ok(())
    }

    fn diff(
        &mut self,
        dir: BorrowedFd<'_>,
        path: &Path,
        lowers: Lowers<'_>,
        below: &Below,
        made: &[&str],
    ) -> Result<()> {
        for name in node::names(dir).context(|| quoted(path.as_os_str().as_bytes()))? {
            let path = join(path, &name);
            let bytes = path.as_os_str().as_bytes();
            if name.as_bytes().starts_with(WHITEOUT) {
                return Err(Error::system(format!(
                    "{}: a layer cannot have a file of this name",
                    quoted(bytes)
                )));
            }
            let file = node::path_only(dir, &name).context(|| quoted(bytes))?;
            let stat = fstat(&file).context(|| quoted(bytes))?;
            if node::is_whiteout(&stat) {
                self.marker(&path, &[WHITEOUT, name.as_bytes()].concat(), &stat)?;
                continue;
            }
            let (before, mut next) = lowers.child(below, &path)?;
            if before.is_none() && (is_made(&path, &stat, made) || is_made_dir(&file, &path, made)?) {
                continue;
            }
            let Some(sub) = self.add(file, bytes)? else { continue };
            if node::is_opaque(sub.as_fd()).context(|| quoted(bytes))? {
                // The kernel says it of every new directory; a layer needs it only where there is something to hide.
                if !next.is_nothing() {
                    self.marker(&path.join("x"), OPAQUE, &stat)?;
                }
                next = Below::nothing();
            }
            self.diff(sub.as_fd(), &path, lowers, &next, made)?;
        }
        Ok(())
    }

    /// An empty file `name` beside `path`.
    fn marker(&mut self, path: &Path, name: &[u8], stat: &Stat) -> Result<()> {
        let path: PathBuf = path.with_file_name(OsStr::from_bytes(name));
        let attributes =
            Attributes { mode: 0o600, uid: 0, gid: 0, mtime: node::mtime(stat), xattrs: Vec::new() };
        self.write(EntryType::Regular, path.as_os_str().as_bytes(), b"", &attributes, 0, 0, &mut io::empty())
    }

    /// Adds one file; comes back with a directory's fd, for what is in it.
    fn add(&mut self, file: OwnedFd, path: &[u8]) -> Result<Option<OwnedFd>> {
        self.add_file(file, path).context(|| quoted(path))
    }

    fn add_file(&mut self, file: OwnedFd, path: &[u8]) -> Result<Option<OwnedFd>> {
        let stat = fstat(&file)?;
        let typ = FileType::from_raw_mode(stat.st_mode);
        if typ == FileType::Socket {
            return Ok(None);
        }
        let attributes = node::attributes(file.as_fd(), &stat)?;
        if typ == FileType::Directory {
            let path = [path, b"/"].concat();
            self.write(EntryType::Directory, &path, b"", &attributes, 0, 0, &mut io::empty())?;
            return Ok(Some(node::subdirectory(&file, ".")?));
        }
        if stat.st_nlink > 1 {
            if let Some(first) = self.links.get(&(stat.st_dev, stat.st_ino)) {
                let first = first.clone();
                let attributes = Attributes { xattrs: Vec::new(), ..attributes };
                self.write(EntryType::Link, path, &first, &attributes, 0, 0, &mut io::empty())?;
                return Ok(None);
            }
            self.links.insert((stat.st_dev, stat.st_ino), path.to_vec());
        }
        let (entry, link, size) = match typ {
            FileType::RegularFile => {
                let mut data = File::from(node::readable(file.as_fd()).context(|| "open")?);
                let size = stat.st_size.cast_unsigned();
                let mut data = Exactly { data: &mut data, left: size };
                self.write(EntryType::Regular, path, b"", &attributes, size, 0, &mut data)?;
                return Ok(None);
            }
            FileType::Symlink => (
                EntryType::Symlink,
                readlinkat(&file, "", Vec::new()).context(|| "readlink")?.into_bytes(),
                0,
            ),
            FileType::CharacterDevice => (EntryType::Char, Vec::new(), 0),
            FileType::BlockDevice => (EntryType::Block, Vec::new(), 0),
            FileType::Fifo => (EntryType::Fifo, Vec::new(), 0),
            _ => return Err(Error::system("a type of file that archives do not know")),
        };
        self.write(entry, path, &link, &attributes, size, stat.st_rdev, &mut io::empty())?;
        Ok(None)
    }

    #[expect(clippy::too_many_arguments, reason = "they are the fields of a header")]
    fn write(
        &mut self,
        typ: EntryType,
        path: &[u8],
        link: &[u8],
        attributes: &Attributes,
        size: u64,
        device: u64,
        data: &mut dyn Read,
    ) -> Result<()> {
        let mut header = Header::new_ustar();
        let mut records = Vec::new();
        header.set_entry_type(typ);
        header.set_mode(attributes.mode);
        let mut octal = |key: &str, value: u64, digits: u32| {
            if value < 1 << (3 * digits) {
                return value;
            }
            pax::record(&mut records, key.as_bytes(), value.to_string().as_bytes());
            0
        };
        header.set_uid(octal("uid", attributes.uid.into(), 7));
        header.set_gid(octal("gid", attributes.gid.into(), 7));
        header.set_size(octal("size", size, 11));
        let (seconds, nanoseconds) = (attributes.mtime.tv_sec, attributes.mtime.tv_nsec as u32);
        let whole = u64::try_from(seconds).ok().filter(|&seconds| seconds < 1 << 33);
        header.set_mtime(whole.unwrap_or(0));
        if whole.is_none() || nanoseconds != 0 {
            pax::record(&mut records, b"mtime", pax::time(seconds, nanoseconds).as_bytes());
        }
        if matches!(typ, EntryType::Char | EntryType::Block) {
            header.set_device_major(major(device))?;
            header.set_device_minor(minor(device))?;
        }
        let old = header.as_old_mut();
        for (key, value, field) in
            [(&b"path"[..], path, &mut old.name), (b"linkpath", link, &mut old.linkname)]
        {
            let short = &value[..value.len().min(field.len())];
            field[..short.len()].copy_from_slice(short);
            if short.len() < value.len() {
                pax::record(&mut records, key, value);
            }
        }
        for (name, value) in &attributes.xattrs {
            pax::record(&mut records, &[b"SCHILY.xattr.", &name[..]].concat(), value);
        }
        self.builder.get_mut().within = true;
        if !records.is_empty() {
            let mut extended = Header::new_ustar();
            extended.set_entry_type(EntryType::XHeader);
            extended.set_mode(0o644);
            extended.set_size(records.len() as u64);
            let name = path.strip_suffix(b"/").unwrap_or(path).rsplit(|&c| c == b'/').next().unwrap_or(b"");
            let name = [b"PaxHeaders/", &name[..name.len().min(80)]].concat();
            extended.as_old_mut().name[..name.len()].copy_from_slice(&name);
            extended.set_cksum();
            self.builder.append(&extended, &records[..])?;
        }
        header.set_cksum();
        self.builder.append(&header, data)?;
        self.builder.get_mut().within = false;
        Ok(())
    }
}

impl<W: Write> Drop for Packer<W> {
    /// The builder would write the end of a whole archive when it is dropped, whatever came before.
    fn drop(&mut self) {
        self.builder.get_mut().tear();
    }
}

fn quoted(path: &[u8]) -> String {
    format!("{:?}", String::from_utf8_lossy(path))
}

/// An archive on its way, which no reader takes for a whole one unless it is: where the stream ends between two members,
/// most readers see the end of an archive, so that one that fails there ends within a block.
struct Torn<W> {
    writer: W,
    /// A member has been begun and lacks something, which says enough.
    within: bool,
    /// Nothing is written any more.
    closed: bool,
}

impl<W: Write> Torn<W> {
    fn tear(&mut self) {
        if !std::mem::replace(&mut self.closed, true) && !self.within {
            // Who does not read any more sees no end either.
            let _ = self.writer.write_all(&[0]).and_then(|()| self.writer.flush());
        }
    }
}

impl<W: Write> Write for Torn<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.closed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.writer.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

/// As many bytes as the header says: a file may grow or shrink while it is read, and then the next header would be
/// read from its data.
struct Exactly<'a> {
    data: &'a mut File,
    left: u64,
}

impl Read for Exactly<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let most = to.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if most == 0 {
            return Ok(0);
        }
        let n = self.data.read(&mut to[..most])?;
        if n == 0 {
            return Err(io::Error::other(format!("it became {} bytes shorter while it was read", self.left)));
        }
        self.left -= n as u64;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::testing::{Scratch, Tar, filter, set, sh, told, unpack_into};
    use std::fs;

    fn diff(upper: &Path, lowers: &[&Path]) -> Result<Vec<u8>> {
        let open: Vec<File> = lowers.iter().map(|lower| File::open(lower).expect("open")).collect();
        let open: Vec<_> = open.iter().map(|file| file.as_fd()).collect();
        let mut archive = Vec::new();
        pack_diff(File::open(upper).expect("open").as_fd(), &open, &[], &mut archive)?;
        Ok(archive)
    }

    fn tree(root: &Path, path: &str, name: &str) -> Result<Vec<u8>> {
        let mut archive = Vec::new();
        pack_tree(File::open(root).expect("open").as_fd(), Path::new(path), Path::new(name), &mut archive)?;
        Ok(archive)
    }

    fn list(archive: &[u8]) -> Vec<String> {
        String::from_utf8(filter("tar", &["-t"], archive))
            .expect("UTF-8")
            .lines()
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn what_is_packed_is_what_is_unpacked() {
        let scratch = Scratch::new();
        let dir = scratch.dir("tree");
        let long = format!("{}/{}", "d".repeat(120), "ü".repeat(100));
        sh(
            &dir,
            &format!(
                "mkdir -p {long} empty; echo text >{long}/f; ln {long}/f hard; ln -s /nowhere/{long} sym; mkfifo fifo
                 mknod null c 1 3; mknod disk b 8 1; touch -d '1901-12-14 01:02:03.5 UTC' old; chmod 4711 {long}/f
                 touch -d '2400-01-01 UTC' late; chown 3000000:4000000 empty; chmod 1777 empty; chown -h 5:6 sym
                 printf x >\"new
line\"
                 touch -d '2001-01-01 00:00:00.123456789 UTC' -h sym fifo null disk {long} empty ."
            ),
        );
        ["hard", "empty"].iter().for_each(|name| set(&dir.join(name), "user.x", b"a\nb"));
        set(&dir.join("hard"), "trusted.other", b"x");
        let archive = diff(&dir, &[]).expect("pack");
        assert!(archive == diff(&dir, &[]).expect("pack"), "the same bytes again");
        let again = scratch.dir("again");
        let unpacked = unpack_into(&archive, &again).expect("unpack");
        assert_eq!(unpacked.implied, [PathBuf::from(".")]);
        let mut expected = told(&dir);
        expected.iter_mut().for_each(|line| *line = line.replace(" trusted.other=\"x\"", ""));
        assert_eq!(told(&again)[1..], expected[1..]);
        // GNU tar reads it too.
        let other = scratch.dir("other");
        fs::write(scratch.0.join("tar"), &archive).expect("write");
        sh(&other, "tar --xattrs --xattrs-include='user.*' --numeric-owner -xpf ../tar");
        assert_eq!(told(&other)[1..], expected[1..]);
    }

    #[test]
    fn an_upper_directory_becomes_a_layer() {
        let scratch = Scratch::new();
        let (low, upper) = (scratch.dir("low"), scratch.dir("upper"));
        sh(&low, "mkdir -p var/opaque; chmod 755 . var var/opaque; echo >gone");
        sh(&upper, "chmod 755 .; mkdir -p var/opaque new; mknod gone c 0 0; echo >var/opaque/x; echo >new/f");
        ["var/opaque", "new"].iter().for_each(|dir| set(&upper.join(dir), "trusted.overlay.opaque", b"y"));
        set(&upper.join("var"), "trusted.overlay.origin", b"x");
        drop(std::os::unix::net::UnixListener::bind(upper.join("socket")).expect("bind"));
        let names = ["new/", "new/f", "var/", "var/opaque/", "var/opaque/.wh..wh..opq", "var/opaque/x"];
        let archive = diff(&upper, &[&low]).expect("pack");
        assert_eq!(
            list(&archive),
            [&[".wh.gone"], &names[..]].concat().iter().map(|s| (*s).to_owned()).collect::<Vec<_>>()
        );
        let layer = scratch.dir("layer");
        unpack_into(&archive, &layer).expect("unpack");
        let told = told(&layer);
        assert!(
            told.iter().any(|line| line.starts_with("/gone 20000 ") && line.ends_with("device 0")),
            "{told:#?}"
        );
        assert!(told.iter().any(|line| line.starts_with("/var/opaque ") && line.contains("trusted.overlay.opaque=\"y\"")));
        assert!(!told.iter().any(|line| line.contains("origin")));
        sh(&upper, "chmod 711 .");
        assert_eq!(list(&diff(&upper, &[&low]).expect("pack"))[0], "./");
        sh(&upper, "touch new/.wh.f");
        let e = diff(&upper, &[&low]).expect_err("cannot be told from a whiteout");
        assert_eq!(e.to_string(), "\"new/.wh.f\": a layer cannot have a file of this name");
    }

    #[test]
    fn what_fails_ends_like_no_archive() {
        let scratch = Scratch::new();
        for script in ["touch .wh.f", "echo text >.a; touch .wh.f", "mkdir .a; touch .wh.f"] {
            let upper = scratch.dir(&script.len().to_string());
            sh(&upper, &format!("chmod 755 .; {script}"));
            let mut archive = Vec::new();
            pack_diff(File::open(&upper).expect("open").as_fd(), &[], &[], &mut archive).expect_err(script);
            assert!(!archive.len().is_multiple_of(512), "{script}");
            let e = unpack_into(&archive, &scratch.dir("layer")).expect_err(script).to_string();
            assert!(e.ends_with("the archive ends within a header"), "{script}: {e}");
            fs::remove_dir_all(scratch.0.join("layer")).expect("remove");
        }
        // Of a file that became shorter nothing is made up.
        fs::write(scratch.0.join("file"), [b'x'; 512]).expect("write");
        let mut file = File::open(scratch.0.join("file")).expect("open");
        let stat = fstat(&file).expect("stat");
        let attributes = node::attributes(file.as_fd(), &stat).expect("attributes");
        let mut archive = Vec::new();
        let mut packer = Packer::new(&mut archive);
        let mut data = Exactly { data: &mut file, left: 513 };
        packer.write(EntryType::Regular, b"f", b"", &attributes, 513, 0, &mut data).expect_err("shorter");
        drop(packer);
        let e = unpack_into(&archive, &scratch.dir("layer")).expect_err("shorter").to_string();
        assert!(e.ends_with("the archive ends within \"f\""), "{e}");
        // The end of a whole one is the builder's, and nothing follows it.
        let archive = diff(&scratch.dir("empty"), &[]).expect("pack");
        assert!(archive.ends_with(&[0; 1024]) && archive.len().is_multiple_of(512));
    }

    #[test]
    fn a_tree_is_packed_under_the_name_that_is_wanted() {
        let scratch = Scratch::new();
        let root = scratch.dir("root");
        fs::write(scratch.0.join("secret"), "").expect("write");
        sh(&root, "mkdir -p etc/sub; echo >etc/f; ln -s /etc link; ln -s ../../../secret etc/out; echo >top");
        assert_eq!(
            list(&tree(&root, "/etc", "cfg").expect("pack")),
            ["cfg/", "cfg/f", "cfg/out", "cfg/sub/"]
        );
        assert_eq!(
            list(&tree(&root, "/link/", "cfg").expect("pack")),
            ["cfg/", "cfg/f", "cfg/out", "cfg/sub/"]
        );
        assert_eq!(list(&tree(&root, "/link/.", "").expect("pack")), ["f", "out", "sub/"]);
        assert_eq!(list(&tree(&root, "/link", "link").expect("pack")), ["link"]);
        assert_eq!(list(&tree(&root, "/link/f", "f").expect("pack")), ["f"]);
        assert_eq!(list(&tree(&root, "/", "").expect("pack")).len(), 6);
        // Within the root the link leads to nothing.
        assert!(tree(&root, "/etc/out/", "x").is_err());
        let e = tree(&root, "/none", "x").expect_err("missing");
        assert_eq!(
            (e.kind(), e.to_string().as_str()),
            (crate::error::Kind::NotFound, "/none: no such file or directory")
        );
    }

    #[test]
    fn sizes_that_ustar_cannot_tell_are_told_by_pax() {
        // The header alone: nobody shall write 9 GiB for a test.
        let mut packer = Packer::new(Vec::new());
        let attributes = Attributes {
            mode: 0o644,
            uid: 2_097_152,
            gid: 0,
            mtime: rustix::fs::Timespec { tv_sec: 0, tv_nsec: 0 },
            xattrs: Vec::new(),
        };
        packer
            .write(EntryType::Regular, b"big", b"", &attributes, 9 << 30, 0, &mut io::empty())
            .expect("write");
        let archive = packer.builder.get_ref().writer.clone();
        let text = String::from_utf8_lossy(&archive[512..1024]).into_owned();
        assert!(text.starts_with("15 uid=2097152\n19 size=9663676416\n"), "{text}");
        let e = Tar(archive).unpack(&Scratch::new().0).expect_err("no data").to_string();
        assert!(e.contains("ends within"), "{e}");
    }

    #[test]
    fn a_file_that_becomes_shorter_while_it_is_read_is_an_error() {
        let scratch = Scratch::new();
        let path = scratch.0.join("file");
        fs::write(&path, "short").expect("write");
        let mut file = File::open(&path).expect("open");
        let e =
            io::copy(&mut Exactly { data: &mut file, left: 9 }, &mut io::sink()).expect_err("4 are missing");
        assert_eq!(e.to_string(), "it became 4 bytes shorter while it was read");
        let mut file = File::open(&path).expect("open");
        assert_eq!(io::copy(&mut Exactly { data: &mut file, left: 3 }, &mut io::sink()).expect("it grew"), 3);
    }
}
