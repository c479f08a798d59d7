//! An archive into a tree that exists.

#![forbid(unsafe_code)]

use super::member::{Member, Members, Type};
use super::node;
use super::unpack::{directory_of, join};
use crate::error::{Context as _, Error, Result};
use rustix::fs::{Mode, OFlags, ResolveFlags, Timespec, mkdirat, openat2};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::io::Read;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

/// What the caller chooses; the names are those of Docker's `PUT /containers/{id}/archive`.
#[derive(Debug, Clone, Copy, Default)]
pub struct ExtractOptions {
    /// `noOverwriteDirNonDir`: a directory is not replaced by anything else, nor anything else by a directory.
    pub no_overwrite_dir_non_dir: bool,
    /// The uid and gid of all files, in place of those in the archive: with `copyUIDGID` Docker gives them to the user
    /// that the container runs as.
    pub owner: Option<(u32, u32)>,
    /// No set-user-id bits, capabilities and devices: of a container, they would be the host's.
    pub harmless: bool,
}

/// Extracts an archive below the directory `dest` of a tree. Every name is resolved as a process whose root directory is
/// `root` would, so that symbolic links lead anywhere in it and nowhere else, whoever changes it meanwhile. Whiteouts
/// are files like others.
///
/// # Errors
/// NotFound or Invalid where `dest` is not there or no directory; Invalid where `no_overwrite_dir_non_dir` forbids it;
/// EBUSY where something is mounted on what would be replaced; a broken archive or a name with `..`; those of the calls.
pub fn extract(reader: impl Read, root: BorrowedFd<'_>, dest: &Path, options: &ExtractOptions) -> Result<()> {
    let mut tree =
        Tree { root, dest: in_root(dest), options: *options, parent: None, times: BTreeMap::new() };
    match tree.open(&tree.dest) {
        Err(Errno::NOENT) => return Err(Error::not_found(format!("{}: no such directory", dest.display()))),
        Err(Errno::NOTDIR) => return Err(Error::invalid(format!("{}: not a directory", dest.display()))),
        opened => drop(opened.context(|| dest.display().to_string())?),
    }
    let mut members = Members::new(reader);
    while let Some(mut member) = members.next()? {
        if let Some((uid, gid)) = options.owner {
            (member.attributes.uid, member.attributes.gid) = (uid, gid);
        }
        if options.harmless {
            if matches!(member.typ, Type::Character | Type::Block) {
                return Err(Error::invalid(format!("{}: a device", member.quoted())));
            }
            member.attributes.mode &= 0o1777;
            member.attributes.xattrs.retain(|(name, _)| *name != *b"security.capability");
        }
        tree.add(&member, &mut members)?;
    }
    tree.finish()
}

/// `path` without the root in front of it, which openat2(2) puts there; `..` stays, the kernel knows what it means.
pub(super) fn in_root(path: &Path) -> PathBuf {
    let path: PathBuf = path.components().filter(|part| *part != Component::RootDir).collect();
    if path == Path::new("") { PathBuf::from(".") } else { path }
}

/// Opens what `path` is for a process whose root directory is `root`.
pub(super) fn resolve(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    for _ in 0..100 {
        match openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            // Somebody renames a directory while the kernel goes through `..`.
            Err(Errno::AGAIN) => {}
            opened => return opened,
        }
    }
    Err(Errno::AGAIN)
}

struct Tree<'a> {
    root: BorrowedFd<'a>,
    dest: PathBuf,
    options: ExtractOptions,
    /// The directory that was used last.
    parent: Option<(PathBuf, OwnedFd)>,
    /// Bounded by the directories that were made or found, and by the length of a path.
    times: BTreeMap<PathBuf, Timespec>,
}

impl Tree<'_> {
    fn add<R: Read>(&mut self, member: &Member, data: &mut Members<R>) -> Result<()> {
        let path = member.path()?;
        let Some(name) = path.file_name().filter(|_| path != Path::new(".")) else {
            // The directory that was named stays as it is.
            return match member.typ {
                Type::Directory => Ok(()),
                _ => Err(Error::system(format!("{}: the root is a directory", member.quoted()))),
            };
        };
        let dir = self.dest.join(directory_of(&path));
        // Others may be at work in the tree; who makes a name again and again does not hold this up.
        for _ in 0..100 {
            let parent = self.directory(&dir, member)?;
            let made = match member.typ {
                Type::HardLink => {
                    let target = member.target()?;
                    let told = || format!("{}: link to {:?}", member.quoted(), target.display().to_string());
                    if target == path {
                        return Err(Error::system("the same name")).context(told);
                    }
                    let base = target
                        .file_name()
                        .ok_or_else(|| Error::system("the root is no file"))
                        .context(told)?;
                    let from = self.dest.join(directory_of(&target));
                    let from = resolve(self.root, &from, OFlags::PATH | OFlags::DIRECTORY).context(told)?;
                    match node::link(from.as_fd(), base, self.directory(&dir, member)?, name) {
                        Err(Errno::EXIST) => false,
                        linked => linked.map(|()| true).context(told)?,
                    }
                }
                _ => node::make(parent, name, member, data)?,
            };
            let parent = self.directory(&dir, member)?;
            if !made {
                let stat = node::existing(parent, name).context(|| member.quoted())?;
                let directory = stat.as_ref().is_some_and(node::is_directory);
                if directory && member.typ == Type::Directory {
                    let there = node::subdirectory(parent, name).context(|| member.quoted())?;
                    node::apply(there.as_fd(), Type::Directory, &member.attributes)
                        .context(|| member.quoted())?;
                } else {
                    self.may_replace(directory, stat.is_some(), &path, member)?;
                    let parent = self.directory(&dir, member)?;
                    let removing = || format!("{}: remove", member.quoted());
                    if node::is_mounted(parent, name).context(removing)? {
                        return Err(Errno::BUSY).context(removing);
                    }
                    node::remove(parent, name).context(removing)?;
                    if directory {
                        self.parent = None;
                    }
                    continue;
                }
            }
            if member.typ == Type::Directory {
                self.times.insert(join(&dir, name), member.attributes.mtime);
            }
            return Ok(());
        }
        Err(Error::system(format!("{}: somebody else makes it again and again", member.quoted())))
    }

    fn may_replace(&self, directory: bool, there: bool, path: &Path, member: &Member) -> Result<()> {
        if !self.options.no_overwrite_dir_non_dir || !there {
            return Ok(());
        }
        let (old, new) = match (directory, member.typ == Type::Directory) {
            (true, false) => ("directory", "non-directory"),
            (false, true) => ("non-directory", "directory"),
            _ => return Ok(()),
        };
        // Docker's words.
        let (path, dest) = (path.display().to_string(), self.dest.display().to_string());
        Err(Error::invalid(format!("cannot overwrite {old} {path:?} with {new} {dest:?}")))
    }

    fn open(&self, path: &Path) -> Result<OwnedFd, Errno> {
        resolve(self.root, path, OFlags::RDONLY | OFlags::DIRECTORY)
    }

    /// The directory `dir`, made if it is not there.
    fn directory(&mut self, dir: &Path, member: &Member) -> Result<BorrowedFd<'_>> {
        if self.parent.as_ref().is_none_or(|(path, _)| path != dir) {
            self.parent = None;
            let opened = match self.open(dir) {
                Err(Errno::NOENT) => self.make_parents(dir),
                opened => opened.map_err(Error::from),
            };
            let opened =
                opened.context(|| format!("{}: {:?}", member.quoted(), dir.display().to_string()))?;
            self.parent = Some((dir.to_owned(), opened));
        }
        Ok(self.parent.as_ref().map_or(self.root, |(_, fd)| fd.as_fd()))
    }

    fn make_parents(&self, dir: &Path) -> Result<OwnedFd> {
        let (uid, gid) = self.options.owner.unwrap_or((0, 0));
        let mut path = PathBuf::new();
        let mut parent = self.open(Path::new("."))?;
        for name in dir {
            path.push(name);
            // From the root each time: a link on the way may lead anywhere in it.
            parent = match self.open(&path) {
                Err(Errno::NOENT) => {
                    mkdirat(&parent, name, Mode::RWXU).context(|| "mkdir")?;
                    let made = node::subdirectory(&parent, name)?;
                    rustix::fs::fchown(
                        &made,
                        Some(rustix::fs::Uid::from_raw(uid)),
                        Some(rustix::fs::Gid::from_raw(gid)),
                    )
                    .context(|| "chown")?;
                    rustix::fs::fchmod(&made, Mode::from_raw_mode(0o755)).context(|| "chmod")?;
                    made
                }
                opened => opened?,
            };
        }
        Ok(parent)
    }

    fn finish(mut self) -> Result<()> {
        self.parent = None;
        for (path, time) in std::mem::take(&mut self.times) {
            // Whoever shares the tree may have removed it.
            if let Ok(dir) = self.open(&path) {
                node::set_times(dir.as_fd(), true, time).context(|| path.display().to_string())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::testing::{Scratch, Tar, told};
    use crate::error::Kind;
    use std::fs::{self, File};
    use std::os::unix::fs::{MetadataExt as _, symlink};

    fn extract_into(tar: Tar, root: &Path, dest: &str, options: ExtractOptions) -> Result<()> {
        extract(&tar.end()[..], File::open(root).expect("open").as_fd(), Path::new(dest), &options)
    }

    #[test]
    fn links_lead_within_the_root_and_nowhere_else() {
        let scratch = Scratch::new();
        fs::write(scratch.0.join("canary"), "alive").expect("write");
        fs::create_dir(scratch.0.join("etc")).expect("mkdir");
        let root = scratch.dir("root");
        scratch.dir("root/etc/dir");
        symlink("/etc", root.join("abs")).expect("symlink");
        symlink("../../../../etc/dir", root.join("up")).expect("symlink");
        symlink("/nowhere", root.join("dangling")).expect("symlink");
        symlink("/canary", root.join("etc/canary")).expect("symlink");
        let tar =
            Tar::default().file("one", "1").file("dir/two", "2").file("new/three", "3").file("canary", "4");
        extract_into(tar, &root, "/abs", ExtractOptions::default()).expect("extract");
        let tar = Tar::default().file("up/four", "4").hard_link("linked", "abs/one").file("abs/x/y", "");
        extract_into(tar, &root, "/", ExtractOptions::default()).expect("extract");
        for (name, text) in [
            ("etc/one", "1"),
            ("etc/dir/two", "2"),
            ("etc/new/three", "3"),
            ("etc/canary", "4"),
            ("etc/dir/four", "4"),
        ] {
            assert_eq!(fs::read_to_string(root.join(name)).expect(name), text, "{name}");
        }
        assert_eq!(fs::metadata(root.join("linked")).expect("linked").nlink(), 2);
        assert!(
            extract_into(Tar::default().file("dangling/x", ""), &root, "/", ExtractOptions::default())
                .is_err()
        );
        for name in ["../canary", "a/../../canary"] {
            let e = extract_into(Tar::default().file(name, ""), &root, "/etc", ExtractOptions::default())
                .expect_err(name);
            assert!(e.to_string().contains("\"..\""), "{e}");
        }
        let e =
            extract_into(Tar::default().hard_link("one", "./one"), &root, "/etc", ExtractOptions::default());
        assert!(
            e.expect_err("to itself").to_string().ends_with("the same name") && root.join("etc/one").exists()
        );
        // A link that the archive brings leads no further.
        let tar = Tar::default().symlink("l", "../..").file("l/canary", "within");
        extract_into(tar, &root, "/etc", ExtractOptions::default()).expect("extract");
        assert_eq!(fs::read_to_string(root.join("canary")).expect("within"), "within");
        assert_eq!(fs::read_to_string(scratch.0.join("canary")).expect("canary"), "alive");
        assert_eq!(fs::read_dir(scratch.0.join("etc")).expect("readdir").count(), 0);
    }

    #[test]
    fn docker_s_choices_about_replacing_and_owning() {
        let scratch = Scratch::new();
        let root = scratch.dir("root");
        scratch.dir("root/dir/full");
        fs::write(root.join("file"), "old").expect("write");
        let strict = ExtractOptions {
            no_overwrite_dir_non_dir: true,
            owner: Some((5, 6)),
            ..ExtractOptions::default()
        };
        let e = extract_into(Tar::default().file("dir", ""), &root, "/", strict).expect_err("a directory");
        assert!(e.to_string().starts_with("cannot overwrite directory \"dir\" with non-directory"), "{e}");
        assert_eq!(e.kind(), Kind::Invalid);
        let e = extract_into(Tar::default().dir("file", 0o755), &root, "/", strict).expect_err("a file");
        assert!(e.to_string().starts_with("cannot overwrite non-directory \"file\" with directory"), "{e}");
        extract_into(
            Tar::default().file("file", "new").dir("dir", 0o711).file("p/f", ""),
            &root,
            "/",
            strict,
        )
        .expect("same type");
        assert_eq!(
            told(&root)[1..4],
            [
                "/dir 40711 5:6 1000000000.000000000",
                &told(&root)[2],
                "/file 100644 5:6 1000000000.000000000 3 bytes 1 links 11507a0e2f5e"
            ]
        );
        assert_eq!(fs::metadata(root.join("p")).expect("p").uid(), 5);
        extract_into(
            Tar::default().file("dir", "").dir("file", 0o755),
            &root,
            "/",
            ExtractOptions::default(),
        )
        .expect("any");
        assert!(root.join("dir").is_file() && root.join("file").is_dir());
    }

    #[test]
    fn the_destination_must_be_a_directory_and_stays_as_it_is() {
        let scratch = Scratch::new();
        let root = scratch.dir("root");
        fs::write(root.join("file"), "").expect("write");
        let e = extract_into(Tar::default(), &root, "/none", ExtractOptions::default()).expect_err("missing");
        assert_eq!((e.kind(), e.to_string().as_str()), (Kind::NotFound, "/none: no such directory"));
        let e = extract_into(Tar::default(), &root, "/file", ExtractOptions::default()).expect_err("a file");
        assert_eq!((e.kind(), e.to_string().as_str()), (Kind::Invalid, "/file: not a directory"));
        let before = told(&root)[0].clone();
        extract_into(Tar::default().dir("./", 0o700), &root, "/", ExtractOptions::default())
            .expect("extract");
        assert_eq!(told(&root)[0], before);
        extract_into(Tar::default().file(".wh.file", "x"), &root, "/", ExtractOptions::default())
            .expect("extract");
        assert!(root.join(".wh.file").exists() && root.join("file").exists());
    }
    #[test]
    fn who_swaps_a_directory_for_a_link_meanwhile_leads_nobody_out() {
        // CVE-2018-15664: `docker cp` resolved the path first, and used it later.
        let scratch = Scratch::new();
        let (root, out) = (scratch.dir("root"), scratch.dir("out"));
        scratch.dir("root/dir/sub");
        symlink("../out", root.join("link")).expect("symlink");
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let (a, b) = (root.join("dir"), root.join("link"));
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    let (from, how) = (rustix::fs::CWD, rustix::fs::RenameFlags::EXCHANGE);
                    rustix::fs::renameat_with(from, &a, from, &b, how).expect("rename");
                }
            });
            let archive = Tar::default()
                .file("dir/file", "x")
                .dir("dir/new", 0o755)
                .file("dir/new/y", "y")
                .symlink("dir/s", "x")
                .hard_link("dir/hard", "dir/file")
                .device(b'3', "dir/null", 1, 3)
                .file("dir/sub", "z");
            // Some of these fail, as what they name is gone.
            for _ in 0..300 {
                let _ = extract_into(archive.clone(), &root, "/", ExtractOptions::default());
            }
            done.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        assert_eq!(fs::read_dir(&out).expect("readdir").count(), 0);
        assert!(told(&root).iter().any(|line| line.contains("/file ")), "some got through");
    }
}
