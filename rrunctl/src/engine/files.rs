//! A container's files from outside: copied in and out, packed, compared with the image, made an image.

#![forbid(unsafe_code)]

use super::Engine;
use crate::archive::{self, Change, ExtractOptions};
use crate::container::mount::Point;
use crate::container::record::Container;
use crate::container::types::Config;
use crate::digest::Digest;
use crate::error::{Context as _, Error, Kind, Result};
use crate::image::{self, Image, RunConfig};
use crate::monitor::{Found, Frozen, Root, mount_overlay};
use crate::reference::Reference;
use crate::sys;
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, mkdirat, mknodat, openat, openat2};
use rustix::io::Errno;
use rustix::mount::{
    MountPropagationFlags, MoveMountFlags, OpenTreeFlags, mount_change, move_mount, open_tree,
};
use std::fs::DirBuilder;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

/// What rrun makes in a container's root to mount on; Docker has these in a layer of their own, which it does not show.
const MADE: [&str; 12] = [
    "dev",
    "dev/console",
    "dev/mqueue",
    "dev/pts",
    "dev/shm",
    "etc/hostname",
    "etc/hosts",
    "etc/resolv.conf",
    "proc",
    "sbin/docker-init",
    "sys",
    "sys/fs/cgroup",
];

/// What `docker commit` is asked for.
#[derive(Debug, Clone, Default)]
pub struct CommitRequest {
    /// What the image is called, if anything.
    pub name: Option<Reference>,
    /// `-a`
    pub author: String,
    /// `-m`
    pub message: String,
    /// `-c`: lines of a Dockerfile.
    pub changes: Vec<String>,
    /// Whether the container is frozen meanwhile, if it runs.
    pub pause: bool,
}

impl Engine {
    /// Gives `work` a container's root directory: that of its process if it runs, otherwise its file systems mounted
    /// where nobody else sees them.
    ///
    /// # Errors
    /// Those of mounting, and of `work`.
    pub fn with_root<T: Send>(
        &self,
        container: &Container,
        work: impl FnOnce(BorrowedFd<'_>) -> Result<T> + Send,
    ) -> Result<T> {
        for _ in 0..100 {
            if let Some(root) = self.live_root(container)? {
                return work(root.as_fd());
            }
            // Whoever would start it waits, and nobody else has an overlay with its upper directory.
            let lock = self.containers.lock(&container.record.id)?;
            if matches!(self.found(&container.record.id)?, Found::Gone) {
                let done = self.with_mounted_root(container, work);
                drop(lock);
                return done;
            }
            // It has just been started, is about to end, or waits to be started again.
            drop(lock);
            std::thread::sleep(Duration::from_millis(50));
        }
        Err(Error::conflict(format!("container {} neither runs nor rests", container.record.id))
            .remedy("stop it, or wait until it runs"))
    }

    /// The root directory of a container that runs.
    fn live_root(&self, container: &Container) -> Result<Option<OwnedFd>> {
        let pid = self.state(container)?.pid;
        if pid == 0 {
            return Ok(None);
        }
        let path = format!("/proc/{pid}/root");
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match openat(CWD, &path, flags, Mode::empty()) {
            // The pid may have become another process's before it was opened; afterwards it is this root in any case.
            Ok(root) => Ok(Some(root).filter(|_| self.state(container).is_ok_and(|now| now.pid == pid))),
            Err(Errno::NOENT | Errno::SRCH) => Ok(None),
            Err(e) => Err(Error::from(e).context(format!("open {path}"))),
        }
    }

    fn with_mounted_root<T: Send>(
        &self,
        container: &Container,
        work: impl FnOnce(BorrowedFd<'_>) -> Result<T> + Send,
    ) -> Result<T> {
        let id = &container.record.id;
        let dir = self.containers.dir(id);
        let image = self.store.images().of_container(&Digest::parse(&container.record.image)?)?;
        let scratch = self.home.scratch("mount")?;
        let merged = scratch.path().join("merged");
        DirBuilder::new().mode(0o700).create(&merged).context(|| format!("mkdir {}", merged.display()))?;
        let overlay = Root {
            lower: self.store.layers().lower(&image)?,
            upper: dir.join("rw"),
            work: dir.join("work"),
            merged: merged.clone(),
            options: Vec::new(),
        };
        let points: Vec<Point> = container.record.mount_points.values().cloned().collect();
        let mounted = self.mount_volumes(container)?;
        // The namespace is the thread's alone, and what is mounted goes with it.
        std::thread::scope(|scope| {
            let (all_there, until_all_there) = mpsc::channel::<()>();
            let worker = scope.spawn(move || {
                let all_there = all_there;
                sys::unshare_mounts().context(|| "unshare the mount namespace")?;
                mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
                    .context(|| "make / a recursive slave")?;
                mount_overlay(&overlay)?;
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let root = openat(CWD, &merged, flags, Mode::empty())
                    .context(|| format!("open {}", merged.display()))?;
                for point in &points {
                    put(point, &root)?;
                }
                drop(all_there);
                work(root.as_fd())
            });
            // From here on it has its own: others shall not wait for whoever sends or takes the files.
            let _ = until_all_there.recv();
            drop(mounted);
            let _ = self.unmount_volumes(container);
            worker.join().unwrap_or_else(|_| Err(Error::system("a thread that mounts has panicked")))
        })
    }

    /// Packs `path` of a container as a tar, under its last name.
    ///
    /// # Errors
    /// There is no such file; those of reading, and of `writer`.
    pub fn copy_from(&self, id: &str, path: &Path, name: &Path, writer: impl Write + Send) -> Result<()> {
        let container = self.containers.load(id)?;
        self.with_root(&container, |root| archive::pack_tree(root, path, name, writer))
    }

    /// Extracts a tar in the directory `path` of a container.
    ///
    /// # Errors
    /// There is no such directory; the root file system is read-only; those of writing.
    pub fn copy_to(
        &self,
        id: &str,
        path: &Path,
        reader: impl Read + Send,
        options: &ExtractOptions,
    ) -> Result<()> {
        let container = self.containers.load(id)?;
        self.check_writable(&container, path)?;
        self.with_root(&container, |root| archive::extract(reader, root, path, options))
    }

    /// Whether files may be put there.
    ///
    /// # Errors
    /// The root file system is read-only, and `path` is in no volume that is not.
    pub fn check_writable(&self, container: &Container, path: &Path) -> Result<()> {
        if container.host.readonly_rootfs && !in_volume(container, path) {
            return Err(Error::invalid("container rootfs is marked read-only"));
        }
        Ok(())
    }

    /// Packs a container's root file system, without what is mounted in it.
    ///
    /// # Errors
    /// Those of reading, and of `writer`.
    pub fn export(&self, id: &str, writer: impl Write + Send) -> Result<()> {
        let mut container = self.containers.load(id)?;
        let (_image, lower) = self.layers_of(&container)?;
        container.record.mount_points.clear();
        let upper = self.containers.dir(id).join("rw");
        let all = std::iter::once(upper.as_path()).chain(lower.iter().map(PathBuf::as_path));
        let root = super::tree::merged(all)?;
        archive::pack_tree(root.as_fd(), Path::new("/"), Path::new(""), writer)
    }

    /// What a container has changed of its image's files.
    ///
    /// # Errors
    /// Those of reading.
    pub fn changes(&self, id: &str) -> Result<Vec<Change>> {
        let container = self.containers.load(id)?;
        let (upper, lower) = self.opened_layers(&container)?;
        let lower: Vec<_> = lower.iter().map(|layer| layer.as_fd()).collect();
        archive::changes(upper.as_fd(), &lower, &MADE)
    }

    /// Makes an image of a container.
    ///
    /// # Errors
    /// A line of `changes` that is none; those of reading and writing.
    pub fn commit(&self, id: &str, request: &CommitRequest) -> Result<Image> {
        let container = self.containers.load(id)?;
        let mut config = to_image(&container.record.config)?;
        image::changes(&mut config, &request.changes)?;
        let lock = self.containers.lock(id)?;
        let state = self.state(&container)?;
        let frozen =
            request.pause && self.has_cgroups() && state.running && !state.paused && !state.restarting;
        let freeze = || Frozen::new(&self.programs.monitor, &self.runtime(), id, &lock);
        let frozen = frozen.then(freeze).transpose()?;
        let (base, _) = self.layers_of(&container)?;
        let (upper, lower) = self.opened_layers(&container)?;
        let lower: Vec<_> = lower.iter().map(|layer| layer.as_fd()).collect();
        let commit = image::Commit {
            config,
            author: request.author.clone(),
            comment: request.message.clone(),
            created_by: std::iter::once(&container.record.path)
                .chain(container.record.args.iter())
                .cloned()
                .collect::<Vec<_>>()
                .join(" "),
            names: request.name.iter().cloned().collect(),
            container: container.record.id.clone(),
        };
        let (reader, writer) = io::pipe().context(|| "pipe")?;
        let made = std::thread::scope(|scope| {
            let packer =
                scope.spawn(|| archive::pack_diff(upper.as_fd(), &lower, &MADE, io::BufWriter::new(writer)));
            let made = image::commit(&self.store, Some(&base), reader, &commit);
            match packer.join().unwrap_or_else(|_| Err(Error::system("a thread that packs has panicked"))) {
                // Of its own failures the reader sees but a tar that ends too early.
                Err(e) if e.errno() != Some(Errno::PIPE) => Err(e),
                _ => made,
            }
        });
        drop(frozen);
        made
    }

    fn layers_of(&self, container: &Container) -> Result<(Image, Vec<PathBuf>)> {
        let image = self.store.images().of_container(&Digest::parse(&container.record.image)?)?;
        let lower = self.store.layers().lower(&image)?;
        Ok((image, lower))
    }

    fn opened_layers(&self, container: &Container) -> Result<(OwnedFd, Vec<OwnedFd>)> {
        let open = |path: &Path| {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            openat(CWD, path, flags, Mode::empty()).context(|| format!("open {}", path.display()))
        };
        let (_, lower) = self.layers_of(container)?;
        let upper = open(&self.containers.dir(&container.record.id).join("rw"))?;
        Ok((upper, lower.iter().map(|path| open(path)).collect::<Result<_>>()?))
    }
}

/// Mounts a volume or another directory of the host where a stopped container would have it.
fn put(point: &Point, root: &OwnedFd) -> Result<()> {
    if point.r#type == "tmpfs" || point.source.is_empty() {
        return Ok(());
    }
    let doing = || format!("mount {} at {}", point.source, point.destination);
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let tree = match open_tree(CWD, point.source.as_str(), flags) {
        Err(Errno::NOENT) => return Ok(()),
        tree => tree.context(doing)?,
    };
    if !point.rw {
        sys::set_read_only(tree.as_fd()).context(doing)?;
    }
    let is_dir = FileType::from_raw_mode(fstat(&tree).context(doing)?.st_mode) == FileType::Directory;
    let at = place(root, Path::new(&point.destination), is_dir).context(doing)?;
    let empty = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(&tree, "", &at, "", empty).context(doing)
}

/// Opens a directory or a file below `root`, and makes what is missing of it, as rrun does when the container starts.
fn place(root: &OwnedFd, path: &Path, is_dir: bool) -> Result<OwnedFd, Errno> {
    let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let open = |path: &Path| openat2(root, path, flags, Mode::empty(), inside);
    let mut so_far = PathBuf::from(".");
    let mut at = open(&so_far)?;
    let mut parts = path.strip_prefix("/").unwrap_or(path).components().peekable();
    while let Some(part) = parts.next() {
        so_far.push(part);
        at = match open(&so_far) {
            Err(Errno::NOENT) => {
                let made = if is_dir || parts.peek().is_some() {
                    mkdirat(&at, part.as_os_str(), Mode::from_raw_mode(0o755))
                } else {
                    mknodat(&at, part.as_os_str(), FileType::RegularFile, Mode::from_raw_mode(0o755), 0)
                };
                match made {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(e) => return Err(e),
                }
                open(&so_far)?
            }
            opened => opened?,
        };
    }
    Ok(at)
}

fn in_volume(container: &Container, path: &Path) -> bool {
    let path = crate::container::mount::clean(&path.to_string_lossy());
    container
        .record
        .mount_points
        .values()
        .any(|point| point.rw && Path::new(&path).starts_with(&point.destination))
}

/// What of a container's configuration becomes its image's: not its hostname, nor who is attached to it.
fn to_image(config: &Config) -> Result<RunConfig> {
    let value = serde_json::to_value(config);
    value
        .and_then(serde_json::from_value)
        .map_err(|e| Error::new(Kind::System, e.to_string()).context("the container's configuration"))
}
