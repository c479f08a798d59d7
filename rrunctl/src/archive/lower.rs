//! What the lower directories of an overlay show together, and what a layer takes over from them.

#![forbid(unsafe_code)]

use super::member::Type;
use super::node;
use super::unpack::{HardLink, Unpacked, directory_of, join};
use crate::error::{Context as _, Error, Result};
use rustix::fs::{
    FileType, Mode, OFlags, ResolveFlags, SeekFrom, Stat, Timespec, fstat, ftruncate, mkdirat, mknodat,
    openat, openat2, readlinkat, seek, symlinkat,
};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Trees of layers, which nobody changes; the uppermost first, as in overlayfs's `lowerdir`.
#[derive(Clone, Copy)]
pub(super) struct Lowers<'a>(pub(super) &'a [BorrowedFd<'a>]);

/// A directory of the merged tree: in which of the trees it is seen.
#[derive(Debug, Clone, Default)]
pub(super) struct Below(Vec<usize>);

impl Below {
    /// Nothing is below.
    pub(super) fn nothing() -> Self {
        Self::default()
    }

    pub(super) fn is_nothing(&self) -> bool {
        self.0.is_empty()
    }
}

impl Lowers<'_> {
    pub(super) fn root(&self) -> Below {
        Below((0..self.0.len()).collect())
    }

    /// What is seen at `path`, whose directory is `below`: the uppermost tree that has it with what it is there, and if
    /// it is a directory, where that is seen.
    pub(super) fn child(&self, below: &Below, path: &Path) -> Result<(Option<(usize, Stat)>, Below)> {
        let (mut found, mut dirs) = (None, Vec::new());
        for &tree in &below.0 {
            // Safe by path: each directory on it was seen to be one, and nobody changes these trees.
            let Some(stat) = node::existing(self.0[tree], path).context(|| told(path))? else { continue };
            if node::is_whiteout(&stat) {
                break;
            }
            let directory = node::is_directory(&stat);
            if found.is_none() {
                found = Some((tree, stat));
            }
            if !directory {
                break;
            }
            dirs.push(tree);
            if node::is_opaque(self.directory(tree, path)?.as_fd()).context(|| told(path))? {
                break;
            }
        }
        Ok((found, Below(dirs)))
    }

    /// The names that are seen in the directory.
    pub(super) fn names(&self, below: &Below, path: &Path) -> Result<BTreeSet<OsString>> {
        let mut names = BTreeSet::new();
        for &tree in &below.0 {
            names.extend(node::names(self.directory(tree, path)?.as_fd()).context(|| told(path))?);
        }
        let mut seen = BTreeSet::new();
        for name in names {
            if self.child(below, &join(path, &name))?.0.is_some() {
                seen.insert(name);
            }
        }
        Ok(seen)
    }

    /// What is seen at `path`; where a directory on the way is opaque in `own`, the tree above these, nothing is.
    fn lookup(&self, path: &Path, own: BorrowedFd<'_>) -> Result<Option<(usize, Stat)>> {
        let mut below = self.root();
        let mut at = PathBuf::new();
        let mut parts = path.iter().peekable();
        while let Some(part) = parts.next() {
            at.push(part);
            let (found, next) = self.child(&below, &at)?;
            if parts.peek().is_none() {
                return Ok(found);
            }
            let mut hidden = false;
            if let Some(stat) = node::existing(own, &at).context(|| told(&at))? {
                hidden = !node::is_directory(&stat)
                    || node::is_opaque(beneath(own, &at).context(|| told(&at))?.as_fd())
                        .context(|| told(&at))?;
            }
            if hidden || next.is_nothing() {
                return Ok(None);
            }
            below = next;
        }
        Ok(None)
    }

    fn directory(&self, tree: usize, path: &Path) -> Result<OwnedFd> {
        beneath(self.0[tree], path).context(|| told(path))
    }
}

fn told(path: &Path) -> String {
    format!("layer: {:?}", path.display().to_string())
}

fn beneath(root: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat2(root, path, flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS)
}

/// Does what [`super::unpack`] could not do without the layers below: the directories that the layer does not have
/// itself get mode, owner, attributes and time of the uppermost one below, and its hard links to files below get these,
/// copied up with their own names as the kernel does. To be called once for each layer, from the lowest on, before
/// anybody else has it as a lower directory. Doing it twice changes nothing. Images that share a layer and not those below
/// it share what it took from the first.
///
/// # Errors
/// A hard link to what no layer below has; those of the calls.
pub fn settle(layer: BorrowedFd<'_>, lowers: &[BorrowedFd<'_>], unpacked: &Unpacked) -> Result<()> {
    let lowers = Lowers(lowers);
    // First, as new names in a directory change its time.
    let mut first = BTreeMap::new();
    for link in &unpacked.deferred {
        let known = *first.entry(&link.target).or_insert(&link.path);
        copy_up(layer, lowers, link, known)
            .context(|| format!("link {:?}", link.path.display().to_string()))?;
    }
    if node::is_opaque(layer)? {
        hide_all(layer, lowers)?;
    }
    for path in unpacked.implied.iter().rev() {
        inherit(layer, lowers, path).context(|| told(path))?;
    }
    Ok(())
}

/// Hides all that is below, which overlayfs does for any directory that is opaque but for the root of a layer.
fn hide_all(layer: BorrowedFd<'_>, lowers: Lowers<'_>) -> Result<()> {
    let root = beneath(layer, Path::new("."))?;
    let kept = Kept::of(&root)?;
    for name in lowers.names(&lowers.root(), Path::new("."))? {
        match node::existing(&root, &name)? {
            None => mknodat(&root, &name, FileType::CharacterDevice, Mode::empty(), 0).context(|| "mknod")?,
            Some(own) if node::is_directory(&own) => {
                node::set_opaque(node::subdirectory(&root, &name)?.as_fd())?
            }
            Some(_) => {}
        }
    }
    kept.restore()
}

/// Gives a directory of the layer what it has below.
fn inherit(layer: BorrowedFd<'_>, lowers: Lowers<'_>, path: &Path) -> Result<()> {
    let tree = if path == Path::new(".") {
        if lowers.0.is_empty() {
            return Ok(());
        }
        0
    } else {
        match lowers.lookup(path, layer)? {
            Some((tree, stat)) if node::is_directory(&stat) => tree,
            _ => return Ok(()),
        }
    };
    let below = lowers.directory(tree, path)?;
    let attributes = node::attributes(below.as_fd(), &fstat(&below)?)?;
    node::apply(beneath(layer, path)?.as_fd(), Type::Directory, &attributes)
}

/// `first` is the first of the new names of this file.
fn copy_up(layer: BorrowedFd<'_>, lowers: Lowers<'_>, link: &HardLink, first: &Path) -> Result<()> {
    let Some((tree, stat)) =
        lowers.lookup(&link.target, layer)?.filter(|(_, stat)| !node::is_directory(stat))
    else {
        let target = link.target.display().to_string();
        return Err(Error::system(format!("{target:?} is in no layer")));
    };
    let split =
        |path: &Path| (directory_of(path).to_owned(), path.file_name().unwrap_or_default().to_owned());
    let ((dir, name), (from, base)) = (split(&link.path), split(&link.target));
    let dir = beneath(layer, &dir)?;
    let whiteout = match node::existing(&dir, &name)? {
        Some(place) if node::is_whiteout(&place) => true,
        Some(_) => return Ok(()),
        None => false,
    };
    let place = Kept::of(&dir)?;
    if whiteout {
        node::remove(dir.as_fd(), &name)?;
    }
    if first != link.path {
        let (from, base) = split(first);
        node::link(beneath(layer, &from)?.as_fd(), &base, dir.as_fd(), &name).context(|| "link")?;
        return place.restore();
    }
    let source = node::path_only(lowers.directory(tree, &from)?, &base)?;
    let home = with_parents(layer, lowers, &from)?;
    if node::existing(&home, &base)?.is_some() {
        // The layer deletes the target, or has a file of its own there: that came later than the link.
        copy(source.as_fd(), &stat, dir.as_fd(), &name)?;
        return place.restore();
    }
    let kept = Kept::of(&home)?;
    copy(source.as_fd(), &stat, home.as_fd(), &base)?;
    node::link(home.as_fd(), &base, dir.as_fd(), &name).context(|| "link")?;
    kept.restore()?;
    place.restore()
}

/// A directory whose time stays what it is, although something is made in it.
struct Kept<'a> {
    dir: &'a OwnedFd,
    time: Timespec,
}

impl<'a> Kept<'a> {
    fn of(dir: &'a OwnedFd) -> Result<Self> {
        Ok(Self { dir, time: node::mtime(&fstat(dir)?) })
    }

    fn restore(self) -> Result<()> {
        node::set_times(self.dir.as_fd(), true, self.time)
    }
}

/// The directory `path` of the layer; those that it does not have are made as they are below.
fn with_parents(layer: BorrowedFd<'_>, lowers: Lowers<'_>, path: &Path) -> Result<OwnedFd> {
    let mut at = PathBuf::new();
    let mut dir = beneath(layer, Path::new("."))?;
    for name in path.iter().filter(|name| *name != ".") {
        at.push(name);
        dir = match node::subdirectory(&dir, name) {
            Err(Errno::NOENT) => {
                let kept = Kept::of(&dir)?;
                mkdirat(&dir, name, Mode::RWXU).context(|| "mkdir")?;
                kept.restore()?;
                inherit(layer, lowers, &at)?;
                node::subdirectory(&dir, name)?
            }
            found => found?,
        };
    }
    Ok(dir)
}

/// Copies one file of any type but a directory, with all that it has.
fn copy(source: BorrowedFd<'_>, stat: &Stat, dir: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
    let attributes = node::attributes(source, stat)?;
    let typ = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let to = openat(dir, name, flags, Mode::RUSR | Mode::WUSR).context(|| "open")?;
            copy_data(File::from(node::readable(source)?), File::from(to.try_clone()?)).context(|| "copy")?;
            return node::apply(to.as_fd(), Type::File, &attributes);
        }
        FileType::Symlink => {
            symlinkat(readlinkat(source, "", Vec::new()).context(|| "readlink")?, dir, name)
                .context(|| "symlink")?;
            Type::Symlink
        }
        typ => {
            mknodat(dir, name, typ, Mode::RUSR, stat.st_rdev).context(|| "mknod")?;
            if typ == FileType::BlockDevice { Type::Block } else { Type::Character }
        }
    };
    node::apply(node::path_only(dir, name)?.as_fd(), typ, &attributes)
}

/// Copies the data between holes.
fn copy_data(mut from: File, mut to: File) -> Result<()> {
    let length = from.metadata()?.len();
    let mut at = 0;
    while at < length {
        let start = match seek(&from, SeekFrom::Data(at)) {
            Err(Errno::NXIO) => break,
            Err(Errno::INVAL) => at,
            start => start?,
        };
        let end = seek(&from, SeekFrom::Hole(start)).unwrap_or(length);
        seek(&from, SeekFrom::Start(start))?;
        seek(&to, SeekFrom::Start(start))?;
        // With two files std calls copy_file_range(2), which shares the blocks where the file system can.
        let n = std::io::copy(&mut std::io::Read::take(&mut from, end - start), &mut to)?;
        if n < end - start {
            break;
        }
        at = end;
    }
    ftruncate(&to, length)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::testing::{Scratch, Tar, told};
    use std::fs;
    use std::os::unix::fs::MetadataExt as _;

    /// Unpacks and settles; the layers below are the uppermost first.
    fn layer(scratch: &Scratch, name: &str, tar: Tar, lowers: &[&str]) -> Result<PathBuf> {
        let dir = scratch.dir(name);
        let unpacked = tar.unpack(&dir).expect("unpack");
        let open: Vec<File> =
            lowers.iter().map(|name| File::open(scratch.0.join(name)).expect("open")).collect();
        let open: Vec<_> = open.iter().map(|file| file.as_fd()).collect();
        let own = File::open(&dir).expect("open");
        settle(own.as_fd(), &open, &unpacked)?;
        let once = told(&dir);
        settle(own.as_fd(), &open, &unpacked)?;
        assert_eq!(told(&dir), once, "twice is once");
        Ok(dir)
    }

    fn below() -> Tar {
        let mut owned = Tar::header(b'5', "home", 0);
        owned.set_mode(0o3750);
        owned.set_uid(7);
        owned.set_gid(8);
        let mut file = Tar::header(b'0', "home/me/file", 4);
        file.set_mode(0o4711);
        file.set_uid(9);
        Tar::default()
            .dir(".", 0o711)
            .dir("tmp", 0o1777)
            .pax(&[("SCHILY.xattr.user.a", b"b"), ("mtime", b"1.5")])
            .raw(owned, b"")
            .dir("home/me", 0o700)
            .pax(&[("SCHILY.xattr.user.c", b"d"), ("mtime", b"-7.25")])
            .raw(file, b"text")
            .symlink("home/link", "me")
    }

    #[test]
    fn implied_directories_are_as_below() {
        let scratch = Scratch::new();
        layer(&scratch, "low", below(), &[]).expect("low");
        layer(&scratch, "top", Tar::default().dir("tmp", 0o1770).file("usr/x", ""), &["low"]).expect("top");
        let tar = Tar::default()
            .file("tmp/x", "")
            .file("home/me/x", "")
            .file("usr/bin/y", "")
            .file("home/.wh..wh..opq", "");
        let dir = layer(&scratch, "layer", tar, &["top", "low"]).expect("layer");
        let lines = told(&dir);
        let begins = |line: usize, text: &str| assert!(lines[line].starts_with(text), "{lines:#?}");
        begins(0, "/ 40711 0:0 1000000000.");
        begins(1, "/home 43750 7:8 1.500000000 trusted.overlay.opaque=\"y\" user.a=\"b\"");
        // The directory above is opaque: what is below it is not seen.
        begins(2, "/home/me 40755 0:0");
        begins(4, "/tmp 41770 0:0");
        begins(6, "/usr 40755 0:0");
    }

    #[test]
    fn a_hard_link_to_a_file_below_copies_it_up_with_its_own_name() {
        let scratch = Scratch::new();
        layer(&scratch, "low", below(), &[]).expect("low");
        let tar = Tar::default()
            .dir("deep", 0o755)
            .hard_link("deep/b", "home/me/file")
            .hard_link("deep/a", "home/me/file")
            .hard_link("a", "home/me/file")
            .hard_link("s", "home/link");
        let dir = layer(&scratch, "layer", tar, &["low"]).expect("layer");
        for name in ["a", "deep/a", "deep/b", "home/me/file"] {
            let meta = fs::metadata(dir.join(name)).expect(name);
            assert_eq!((meta.nlink(), meta.mode(), meta.uid()), (4, 0o104_711, 9), "{name}");
            assert_eq!((meta.mtime(), meta.mtime_nsec()), (-8, 750_000_000));
            assert_eq!(fs::read(dir.join(name)).expect(name), b"text");
        }
        assert_eq!(fs::read_link(dir.join("s")).expect("s"), Path::new("me"));
        let lines = told(&dir);
        assert!(lines[1].ends_with("user.c=\"d\""), "{lines:?}");
        assert_eq!(lines[2], "/deep 40755 0:0 1000000000.000000000");
        assert!(lines.iter().any(|line| line.starts_with("/home 43750 7:8 1.500000000 user.a")), "{lines:?}");
    }

    #[test]
    fn a_hard_link_to_a_file_that_the_layer_replaces_or_deletes_later_is_to_the_one_below() {
        let scratch = Scratch::new();
        layer(&scratch, "low", below().file("f", "below").file("g", "below"), &[]).expect("low");
        let tar = Tar::default().hard_link("a", "f").file("f", "own").hard_link("b", "g").file(".wh.g", "");
        let dir = layer(&scratch, "layer", tar, &["low"]).expect("layer");
        let read = |name| fs::read_to_string(dir.join(name)).expect(name);
        assert_eq!([read("a"), read("b"), read("f")], ["below", "below", "own"]);
        assert!(node::is_whiteout(
            &node::existing(File::open(&dir).expect("open"), "g").expect("stat").expect("g")
        ));
    }

    #[test]
    fn a_hard_link_to_what_no_layer_has_is_refused() {
        let scratch = Scratch::new();
        layer(&scratch, "low", below().file("f", ""), &[]).expect("low");
        layer(&scratch, "top", Tar::default().file(".wh.f", "").dir("d", 0o755), &["low"]).expect("top");
        for (tar, target) in [
            (Tar::default().hard_link("a", "none"), "none"),
            (Tar::default().hard_link("a", "f"), "f"),
            (Tar::default().hard_link("a", "d"), "d"),
            (Tar::default().hard_link("a", "home/link/file"), "home/link/file"),
            (Tar::default().file("home/.wh..wh..opq", "").hard_link("a", "home/me/file"), "home/me/file"),
        ] {
            let e = layer(&scratch, &format!("layer-{}", target.replace('/', "-")), tar, &["top", "low"])
                .expect_err(target);
            assert_eq!(e.to_string(), format!("link \"a\": {target:?} is in no layer"));
        }
    }

    #[test]
    fn an_opaque_root_hides_every_name_below() {
        let scratch = Scratch::new();
        layer(&scratch, "low", below(), &[]).expect("low");
        let tar = Tar::default().dir("home", 0o755).file(".wh..wh..opq", "").file("own", "");
        let dir = layer(&scratch, "layer", tar, &["low"]).expect("layer");
        let lines = told(&dir);
        let begins = |line: usize, text: &str| assert!(lines[line].starts_with(text), "{lines:#?}");
        begins(1, "/home 40755 0:0 1000000000.000000000 trusted.overlay.opaque=\"y\"");
        begins(2, "/own ");
        begins(3, "/tmp 20000 0:0");
        assert_eq!(lines.len(), 4);
    }

    #[test]
    fn a_copy_of_a_sparse_file_is_sparse() {
        let scratch = Scratch::new();
        let low = scratch.dir("low");
        let file = File::create_new(low.join("sparse")).expect("create");
        file.set_len(8 << 20).expect("truncate");
        std::os::unix::fs::FileExt::write_all_at(&file, b"x", 4 << 20).expect("write");
        let dir = layer(&scratch, "layer", Tar::default().hard_link("a", "sparse"), &["low"]).expect("layer");
        let meta = fs::metadata(dir.join("a")).expect("a");
        assert_eq!(meta.len(), 8 << 20);
        assert!(meta.blocks() * 512 < 1 << 20, "{} blocks", meta.blocks());
        assert!(fs::read(dir.join("a")).expect("a") == fs::read(low.join("sparse")).expect("sparse"));
    }
}
