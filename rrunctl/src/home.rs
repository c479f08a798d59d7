//! The directories of an engine: what is kept and what a reboot may take; how a file in them appears as a whole, and who
//! is at work on what.

#![forbid(unsafe_code)]

use crate::error::{Context as _, Error, Result};
use rustix::fs::{
    AtFlags, CWD, Dir, FlockOperation, Mode, OFlags, RenameFlags, ResolveFlags, flock, openat, openat2,
    renameat_with, unlinkat,
};
use rustix::io::Errno;
use std::cell::Cell;
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// Where an engine keeps everything.
#[derive(Debug, Clone)]
pub struct Home {
    root: PathBuf,
    run: PathBuf,
}

impl Home {
    /// Opens the engine in `root`, which a reboot must leave, and `run`, which it must not; makes what is missing.
    ///
    /// # Errors
    /// Those of mkdir(2).
    pub fn open(root: &Path, run: &Path) -> Result<Self> {
        let home = Self { root: absolute(root)?, run: absolute(run)? };
        // The owner's alone: layers and volumes have files with set-user-id bits (CVE-2021-41089, CVE-2021-41091).
        private(&home.root)?;
        private(&home.run)?;
        for dir in
            ["blobs/sha256", "layers", "images", "refs", "containers", "names", "networks", "volumes", "tmp"]
        {
            private(&home.root.join(dir))?;
        }
        home.claim()?;
        Ok(home)
    }

    /// What runs below `run` is of one engine: another one would take it for what is left of containers that are gone.
    fn claim(&self) -> Result<()> {
        let mark = self.run.join("root");
        let own = self.root.as_os_str().as_encoded_bytes();
        match read(&mark)? {
            Some(other) if other == own => Ok(()),
            Some(other) => Err(Error::conflict(format!(
                "{} is the engine's in {}",
                self.run.display(),
                String::from_utf8_lossy(&other)
            ))
            .remedy("give another one with --run")),
            None => replace(&mark, 0o600, own),
        }
    }

    /// What is kept.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What a reboot takes.
    pub fn run(&self) -> &Path {
        &self.run
    }

    /// A path below what is kept.
    pub fn kept(&self, path: impl AsRef<Path>) -> PathBuf {
        self.root.join(path)
    }

    /// A directory below `tmp`, removed with all that is in it unless it is moved away; locked, so that nobody takes
    /// it for what a killed command left.
    ///
    /// # Errors
    /// Those of mkdir(2), open(2) and flock(2).
    pub fn scratch(&self, what: &str) -> Result<Scratch> {
        for _ in 0..100 {
            let path = self.root.join("tmp").join(format!("{what}.{}", unique()?));
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(e) => return Err(Error::from(e).context(format!("mkdir {}", path.display()))),
            }
            // `sweep` may have come between, seen nobody's lock, and removed it.
            let lock = match File::open(&path) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                opened => opened.context(|| format!("open {}", path.display()))?,
            };
            if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() && path.exists() {
                return Ok(Scratch { path, lock });
            }
        }
        Err(Error::system(format!("{}: no free name", self.root.join("tmp").display())))
    }

    /// Removes what killed commands left below `tmp`; returns how many bytes.
    ///
    /// # Errors
    /// Those of readdir(3), and the first of [`remove_tree`].
    pub fn sweep(&self) -> Result<u64> {
        let tmp = self.root.join("tmp");
        let (mut freed, mut failed) = (0, Ok(()));
        for entry in fs::read_dir(&tmp).context(|| format!("open {}", tmp.display()))? {
            let path = entry.context(|| format!("read {}", tmp.display()))?.path();
            let Ok(lock) = File::open(&path) else { continue };
            if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
                freed += size(&path);
                // One that cannot be removed does not keep the others.
                let removed = remove_tree(&path);
                failed = failed.and(removed);
            }
        }
        failed.map(|()| freed)
    }
}

/// A directory that is being filled.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    #[expect(dead_code, reason = "held")]
    lock: File,
}

impl Scratch {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = remove_tree(&self.path);
    }
}

/// A lock held until it is dropped, of a file that stays.
#[derive(Debug)]
pub struct Lock(File);

/// The lock is held until the last copy of the descriptor is closed (flock(2)).
impl AsRawFd for Lock {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl Lock {
    /// Waits until nobody else has `path` locked, which is made if it is missing.
    ///
    /// # Errors
    /// Those of open(2) and flock(2).
    pub fn exclusive(path: &Path) -> Result<Self> {
        Self::take(path, FlockOperation::LockExclusive)
    }

    /// Waits until nobody has `path` locked exclusively.
    ///
    /// # Errors
    /// Those of open(2) and flock(2).
    pub fn shared(path: &Path) -> Result<Self> {
        Self::take(path, FlockOperation::LockShared)
    }

    /// Does not wait: nothing, while anybody has `path` locked.
    ///
    /// # Errors
    /// Those of open(2) and flock(2).
    pub fn try_exclusive(path: &Path) -> Result<Option<Self>> {
        match Self::take(path, FlockOperation::NonBlockingLockExclusive) {
            Err(e) if e.errno() == Some(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            taken => taken.map(Some),
        }
    }

    fn take(path: &Path, how: FlockOperation) -> Result<Self> {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path)
            .context(|| format!("open {}", path.display()))?;
        loop {
            match flock(&file, how) {
                Ok(()) => return Ok(Self(file)),
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(Error::from(e).context(format!("flock {}", path.display()))),
            }
        }
    }
}

/// Writes `path` as a whole or not at all; what was there is replaced.
///
/// # Errors
/// Those of open(2), write(2), fsync(2) and rename(2).
pub fn replace(path: &Path, mode: u32, bytes: &[u8]) -> Result<()> {
    // Without it a power cut leaves an empty file under the name on some file systems.
    write_whole(path, mode, bytes, File::sync_data)
}

/// The same of what nobody reads after a boot: the disk is not waited for.
///
/// # Errors
/// Those of open(2), write(2) and rename(2).
pub fn replace_until_boot(path: &Path, mode: u32, bytes: &[u8]) -> Result<()> {
    write_whole(path, mode, bytes, |_| Ok(()))
}

fn write_whole(
    path: &Path,
    mode: u32,
    bytes: &[u8],
    flush: impl FnOnce(&File) -> io::Result<()>,
) -> Result<()> {
    let dir = path.parent().unwrap_or_else(|| Path::new("/"));
    let new = dir.join(format!(".{}", unique()?));
    let written = (|| {
        let mut file = OpenOptions::new().create_new(true).write(true).mode(mode).open(&new)?;
        file.write_all(bytes)?;
        flush(&file)?;
        fs::rename(&new, path)
    })();
    written.map_err(|e| {
        let _ = fs::remove_file(&new);
        Error::from(e).context(format!("write {}", path.display()))
    })
}

/// The file's bytes, or nothing where it is not.
///
/// # Errors
/// Those of open(2) and read(2).
pub fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::from(e).context(format!("read {}", path.display()))),
    }
}

/// Removes a directory and all in it, or a file; what is missing is no error. What is mounted below stays as it is, and
/// so does what it is mounted on.
///
/// # Errors
/// Those of unlink(2) and rmdir(2); something is mounted below.
pub fn remove_tree(path: &Path) -> Result<()> {
    remove_at(CWD, path.as_os_str()).map_err(|e| {
        let failed = Error::from(e).context(format!("remove {}", path.display()));
        match e {
            Errno::XDEV | Errno::BUSY => failed.remedy("unmount what is mounted there"),
            _ => failed,
        }
    })
}

/// So many directories are open in one another while a tree is removed, twice: a container may make its tree as deep as
/// its disk allows, far deeper than RLIMIT_NOFILE.
const LEVELS: usize = 32;

/// The same, of a name in a directory; nothing is followed below it.
///
/// # Errors
/// As [`remove_tree`]: EXDEV or EBUSY where something is mounted below.
pub(crate) fn remove_at(dir: BorrowedFd<'_>, name: &OsStr) -> Result<(), Errno> {
    match unlinkat(dir, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => remove_dir(dir, name, None, 0, &Cell::new(false)),
        Err(Errno::NOENT) => Ok(()),
        done => done,
    }
}

/// `top` is the uppermost directory: what is deeper than [`LEVELS`] is moved there, `moved` says so, and it is removed
/// from there.
fn remove_dir(
    dir: BorrowedFd<'_>,
    name: &OsStr,
    top: Option<BorrowedFd<'_>>,
    level: usize,
    moved: &Cell<bool>,
) -> Result<(), Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    // Whoever makes files in it as fast as they are removed does not hold this up.
    let mut passes = 100;
    loop {
        let opened = match top {
            None => openat(dir, name, flags, Mode::empty()),
            Some(_) => {
                openat2(dir, name, flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_XDEV)
            }
        };
        let below = match opened {
            Err(Errno::NOENT) => return Ok(()),
            opened => opened?,
        };
        if level == 0 {
            moved.set(false);
        }
        for entry in Dir::read_from(&below)? {
            let entry = entry?;
            let inner = OsStr::from_bytes(entry.file_name().to_bytes());
            if inner == "." || inner == ".." {
                continue;
            }
            match unlinkat(&below, inner, AtFlags::empty()) {
                Err(Errno::ISDIR) => {}
                Err(Errno::NOENT) => continue,
                done => {
                    done?;
                    continue;
                }
            }
            match top {
                Some(top) if level == LEVELS => {
                    let free = unique().map_err(|e| e.errno().unwrap_or(Errno::IO))?;
                    match renameat_with(&below, inner, top, free, RenameFlags::NOREPLACE) {
                        Err(Errno::NOENT) => {}
                        done => done?,
                    }
                    moved.set(true);
                }
                _ => remove_dir(
                    below.as_fd(),
                    inner,
                    Some(top.unwrap_or_else(|| below.as_fd())),
                    level + 1,
                    moved,
                )?,
            }
        }
        match unlinkat(dir, name, AtFlags::REMOVEDIR) {
            Err(Errno::NOENT) => return Ok(()),
            Err(Errno::NOTEMPTY) if level == 0 && moved.get() => {}
            Err(Errno::NOTEMPTY) if passes > 0 => passes -= 1,
            done => return done,
        }
    }
}

/// How many bytes the regular files below `path` have; what is deeper than a path can tell (PATH_MAX) does not count.
pub fn size(path: &Path) -> u64 {
    let Ok(meta) = fs::symlink_metadata(path) else { return 0 };
    let mut sum = if meta.is_file() { meta.len() } else { 0 };
    let mut dirs = if meta.is_dir() { vec![path.to_owned()] } else { Vec::new() };
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(meta) if meta.is_file() => sum += meta.len(),
                Ok(meta) if meta.is_dir() => dirs.push(entry.path()),
                _ => {}
            }
        }
    }
    sum
}

/// 16 hexadecimal digits that nobody has had.
///
/// # Errors
/// Those of getrandom(2).
pub fn unique() -> Result<String> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|e| Error::system(format!("getrandom: {e}")))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).context(|| path.display().to_string())
}

/// Whatever the umask is, and whoever made it.
pub(crate) fn private(path: &Path) -> Result<()> {
    // Most often it is right: chmod(2) would write the inode anew for each command.
    let is_right = |meta: fs::Metadata| meta.is_dir() && meta.permissions().mode() & 0o7777 == 0o700;
    if fs::symlink_metadata(path).is_ok_and(is_right) {
        return Ok(());
    }
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .context(|| format!("mkdir {}", path.display()))?;
    fs::set_permissions(path, Permissions::from_mode(0o700)).context(|| format!("chmod {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home(name: &str) -> (PathBuf, Home) {
        let dir = std::env::temp_dir().join(format!("rrunctl-{name}-{}", unique().expect("random")));
        let home = Home::open(&dir.join("root"), &dir.join("run")).expect("a home");
        (dir, home)
    }

    #[test]
    fn what_a_killed_command_left_is_swept_and_what_one_is_at_work_on_is_not() {
        let (dir, home) = home("sweep");
        let at_work = home.scratch("layer").expect("scratch");
        let left = home.kept("tmp/layer.left");
        fs::create_dir(&left).expect("mkdir");
        fs::write(left.join("file"), [0; 10]).expect("write");
        assert_eq!(home.sweep().expect("sweep"), 10);
        assert!(!left.exists() && at_work.path().exists());
        let path = at_work.path().to_owned();
        drop(at_work);
        assert!(!path.exists());
        remove_tree(&dir).expect("remove");
    }

    #[test]
    fn a_sweep_beside_it_does_not_keep_a_command_from_its_directory() {
        let (dir, home) = home("swept");
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    home.sweep().expect("sweep");
                }
            });
            let made: Result<Vec<_>> = (0..8_000).map(|_| home.scratch("layer").map(drop)).collect();
            done.store(true, std::sync::atomic::Ordering::Relaxed);
            made.expect("scratches");
        });
        remove_tree(&dir).expect("remove");
    }

    #[test]
    fn nobody_else_gets_in_whoever_made_the_directory() {
        let dir = std::env::temp_dir().join(format!("rrunctl-private-{}", unique().expect("random")));
        DirBuilder::new().recursive(true).create(dir.join("root/layers")).expect("mkdir");
        for made in ["root", "root/layers"] {
            fs::set_permissions(dir.join(made), Permissions::from_mode(0o755)).expect("chmod");
        }
        Home::open(&dir.join("root"), &dir.join("run")).expect("a home");
        for made in ["root", "root/layers", "root/volumes", "run"] {
            assert_eq!(
                fs::metadata(dir.join(made)).expect("stat").permissions().mode() & 0o777,
                0o700,
                "{made}"
            );
        }
        remove_tree(&dir).expect("remove");
    }

    #[test]
    fn opening_what_is_right_writes_nothing() {
        let (dir, home) = home("right");
        let changed = |path: &Path| {
            let meta = fs::metadata(path).expect("stat");
            (std::os::unix::fs::MetadataExt::ctime(&meta), std::os::unix::fs::MetadataExt::ctime_nsec(&meta))
        };
        let paths = [home.root().to_owned(), home.run().to_owned(), home.kept("layers")];
        // Of a file system's clock, which ticks some milliseconds apart.
        let before = paths.each_ref().map(|path| changed(path));
        let later = dir.join("later");
        while {
            fs::write(&later, "").expect("write");
            changed(&later) <= before[0].max(before[1]).max(before[2])
        } {
            std::thread::yield_now();
        }
        Home::open(home.root(), home.run()).expect("a home");
        assert_eq!(paths.each_ref().map(|path| changed(path)), before);
        remove_tree(&dir).expect("remove");
    }

    #[test]
    fn a_file_is_replaced_as_a_whole() {
        let (dir, home) = home("replace");
        let path = home.kept("images/x");
        assert_eq!(read(&path).expect("read"), None);
        for text in ["one", "two"] {
            replace(&path, 0o600, text.as_bytes()).expect("replace");
            assert_eq!(read(&path).expect("read"), Some(text.into()));
        }
        replace_until_boot(&path, 0o600, b"three").expect("replace");
        assert_eq!(read(&path).expect("read"), Some("three".into()));
        assert_eq!(fs::read_dir(home.kept("images")).expect("readdir").count(), 1);
        remove_tree(&dir).expect("remove");
    }

    /// Makes `levels` directories in one another.
    fn deep(path: &Path, levels: usize) {
        use rustix::fs::{Mode, OFlags, mkdirat, openat};
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut dir = rustix::fs::open(path, flags, Mode::empty()).expect("open");
        for _ in 0..levels {
            mkdirat(&dir, "a-directory", Mode::RWXU).expect("mkdir");
            openat(&dir, "file", (flags - OFlags::DIRECTORY) | OFlags::RDWR | OFlags::CREATE, Mode::RWXU)
                .expect("a file");
            dir = openat(&dir, "a-directory", flags, Mode::empty()).expect("open");
        }
    }

    /// Of this process, until it is dropped.
    struct Descriptors(rustix::process::Rlimit);

    impl Descriptors {
        fn limited(most: u64) -> Self {
            use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
            let before = getrlimit(Resource::Nofile);
            let limit = Rlimit { current: Some(most), ..before };
            setrlimit(Resource::Nofile, limit).expect("setrlimit");
            Self(before)
        }
    }

    impl Drop for Descriptors {
        fn drop(&mut self) {
            let limit = self.0;
            rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).expect("setrlimit");
        }
    }

    #[test]
    fn what_is_deeper_than_there_are_descriptors_is_removed_and_measured() {
        let (dir, home) = home("deep");
        let tree = home.kept("layers/deep");
        fs::create_dir(&tree).expect("mkdir");
        deep(&tree, 5_000);
        fs::create_dir(tree.join("beside")).expect("mkdir");
        deep(&tree.join("beside"), 100);
        fs::write(tree.join("z"), [0; 10]).expect("write");
        let few = Descriptors::limited(128);
        assert_eq!(size(&tree), 10);
        let removed = remove_tree(&tree);
        drop(few);
        removed.expect("remove");
        assert!(!tree.exists());
        remove_tree(&dir).expect("remove");
    }

    #[test]
    fn what_is_mounted_below_is_not_emptied() {
        struct Mounted(PathBuf);
        impl Drop for Mounted {
            fn drop(&mut self) {
                let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
            }
        }
        let (dir, home) = home("mounted");
        let (tree, volume) = (home.kept("layers/tree"), home.kept("volumes/one"));
        for made in [&tree.join("a/b"), &volume] {
            DirBuilder::new().recursive(true).create(made).expect("mkdir");
        }
        fs::write(volume.join("file"), "kept").expect("write");
        rustix::mount::mount_bind(&volume, tree.join("a/b")).expect("mount");
        let mounted = Mounted(tree.join("a/b"));
        let e = remove_tree(&tree).expect_err("a mount point").to_string();
        assert!(volume.join("file").exists(), "{e}");
        assert!(e.contains("layers/tree"), "{e}");
        drop(mounted);
        remove_tree(&tree).expect("nothing is mounted");
        remove_tree(&dir).expect("remove");
    }
}
