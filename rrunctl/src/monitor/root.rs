//! The mount namespace of a monitor, and the container's root file system in it.

#![forbid(unsafe_code)]

use super::Root;
use crate::error::{Context as _, Error, Kind, Result};
use crate::home;
use crate::sys;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags, open, statx};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount,
    mount_change, move_mount, open_tree,
};
use rustix::process::chdir;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde::Deserialize;
use std::ffi::CString;
use std::fs;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

/// What every overlay has, whatever the kernel's defaults: a walk of `upper` is then all that the container changed.
const OPTIONS: [&str; 4] = ["redirect_dir=off", "metacopy=off", "index=off", "xino=auto"];

fn options(root: &Root) -> impl Iterator<Item = &str> {
    let user = crate::rootless::is_inside();
    // There are no redirections with `userxattr`, and the kernel takes `off` for a wish to follow some.
    let fixed = OPTIONS.into_iter().filter(move |option| !user || *option != "redirect_dir=off");
    fixed.chain(user.then_some("userxattr")).chain(root.options.iter().map(String::as_str))
}

/// The way back into the mount namespace of the host.
#[derive(Debug)]
pub(super) struct HostMounts(OwnedFd);

impl HostMounts {
    /// Leaves it for a copy, where the host's unmounts still arrive and from which nothing goes back, except from the
    /// directories `shared`: what is mounted below a bind mount of one of them appears in the host.
    ///
    /// # Errors
    /// Those of open(2), unshare(2), mount(2) and open_tree(2).
    pub fn leave(shared: &[PathBuf]) -> Result<Self> {
        let host = open("/proc/self/ns/mnt", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .context(|| "open /proc/self/ns/mnt")?;
        sys::unshare_mounts().context(|| "unshare the mount namespace")?;
        // Here the mounts are still peers of the host's, and so are copies of them, which stay it below.
        let copies = shared.iter().map(|path| Peer::of(path)).collect::<Result<Vec<_>>>()?;
        mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
            .context(|| "make / a recursive slave")?;
        for copy in copies {
            copy.cover()?;
        }
        Ok(Self(host))
    }

    /// Goes back. With the last process in the copy its mounts go.
    ///
    /// # Errors
    /// Those of setns(2).
    pub fn enter(&self) -> Result<()> {
        move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Mount))
            .context(|| "setns to the mount namespace of the host")
    }
}

/// A copy of what is mounted at a directory, and whatever is mounted there in one of the two is mounted in the other.
struct Peer<'a> {
    path: &'a Path,
    tree: OwnedFd,
    /// The mount that the directory is on.
    mount: u64,
}

impl<'a> Peer<'a> {
    fn of(path: &'a Path) -> Result<Self> {
        let (mount, inode) = place_of(path)?;
        if (mount, inode) == place_of(Path::new("/"))? {
            // A process finds its root directory by itself, and not what is mounted over it.
            return Err(Error::new(Kind::Unsupported, "/ cannot be bound with shared or rshared")
                .remedy("bind the directories that need it, or use rslave"));
        }
        let flags =
            OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
        let tree = open_tree(CWD, path, flags).context(|| format!("open_tree {}", path.display()))?;
        Ok(Self { path, tree, mount })
    }

    /// Mounts it over the directory, so that who binds that binds this.
    fn cover(self) -> Result<()> {
        // It is below one that was mounted meanwhile, or twice in the list. What is mounted there goes to the host.
        if place_of(self.path)?.0 != self.mount {
            return Ok(());
        }
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_SYMLINKS;
        move_mount(self.tree.as_fd(), "", CWD, self.path, flags)
            .context(|| format!("move_mount {}", self.path.display()))
    }
}

/// The mount that a file is on, and its inode there.
fn place_of(path: &Path) -> Result<(u64, u64)> {
    let asked = StatxFlags::MNT_ID | StatxFlags::INO;
    let found = statx(CWD, path, AtFlags::empty(), asked).context(|| format!("stat {}", path.display()))?;
    if found.stx_mask & StatxFlags::MNT_ID.bits() == 0 {
        return Err(Error::new(Kind::Unsupported, "shared bind mounts need Linux 5.8"));
    }
    Ok((found.stx_mnt_id, found.stx_ino))
}

/// The sources of the bind mounts with `shared` or `rshared` in the config.json of `bundle`; none if there is no such
/// file, about which the runtime has its own words.
pub(super) fn shared(bundle: &Path) -> Vec<PathBuf> {
    #[derive(Deserialize)]
    struct Config {
        #[serde(default)]
        mounts: Vec<Mount>,
    }
    #[derive(Deserialize)]
    struct Mount {
        #[serde(default)]
        source: PathBuf,
        #[serde(default)]
        options: Vec<String>,
    }
    let text = fs::read_to_string(bundle.join("config.json")).unwrap_or_default();
    // Few have one, and the whole is long.
    if !text.contains("shared\"") {
        return Vec::new();
    }
    let has =
        |mount: &Mount, names: [&str; 2]| mount.options.iter().any(|option| names.contains(&option.as_str()));
    let mounts = serde_json::from_str(&text).map_or(Vec::new(), |config: Config| config.mounts);
    let shared =
        mounts.into_iter().filter(|mount| has(mount, ["bind", "rbind"]) && has(mount, ["shared", "rshared"]));
    // As the runtime takes it.
    shared.map(|mount| bundle.join(mount.source)).collect()
}

/// Mounts `root` at its `merged`.
///
/// # Errors
/// Those of the new mount API, and with kernels before 6.8 of mount(2).
pub fn mount_overlay(root: &Root) -> Result<()> {
    // The kernel takes no work directory of a volatile mount again, because it does not know whether its machine has
    // crashed since. This one has not: what is volatile does not outlive a boot.
    home::remove_tree(&root.work.join("work/incompat"))?;
    // A path can be longer than the 255 bytes of fsconfig(2) and contain the ':' and ',' of mount(2); these cannot.
    let dir = |path: &Path| {
        open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .context(|| format!("open {}", path.display()))
    };
    let lower = root.lower.iter().map(|path| dir(path)).collect::<Result<Vec<_>>>()?;
    let (upper, work, merged) = (dir(&root.upper)?, dir(&root.work)?, dir(&root.merged)?);
    let done = match by_fsopen(root, &lower, &upper, &work, &merged) {
        // "lowerdir+" came with 6.8.
        Err(Errno::INVAL | Errno::NOSYS) => by_mount(root, &lower, &upper, &work),
        done => done,
    };
    done.context(|| format!("mount overlayfs at {}", root.merged.display()))
}

fn by_fsopen(
    root: &Root,
    lower: &[OwnedFd],
    upper: &OwnedFd,
    work: &OwnedFd,
    merged: &OwnedFd,
) -> Result<(), Errno> {
    let overlay = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let set = |key: &str, value: &str| fsconfig_set_string(overlay.as_fd(), key, value);
    // What mountinfo shows of it; the path itself where it is short enough, for who reads that.
    let path = |path: &Path, fd: &OwnedFd| match path.to_str() {
        Some(path) if path.len() < 256 && !path.contains(['\\', ',', ':']) => path.to_owned(),
        _ => format!("/proc/self/fd/{}", fd.as_raw_fd()),
    };
    set("source", "overlay")?;
    for (dir, fd) in root.lower.iter().zip(lower) {
        set("lowerdir+", &path(dir, fd))?;
    }
    set("upperdir", &path(&root.upper, upper))?;
    set("workdir", &path(&root.work, work))?;
    for option in options(root) {
        match option.split_once('=') {
            Some((key, value)) => set(key, value)?,
            None => fsconfig_set_flag(overlay.as_fd(), option)?,
        }
    }
    fsconfig_create(overlay.as_fd())?;
    let mounted = fsmount(overlay.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
    let empty = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mounted.as_fd(), "", merged.as_fd(), "", empty)
}

/// All options are one page for mount(2), in which 128 layers would not find room by their paths: their descriptors
/// do, as names in /proc/self/fd.
fn by_mount(root: &Root, lower: &[OwnedFd], upper: &OwnedFd, work: &OwnedFd) -> Result<(), Errno> {
    let lower: Vec<_> = lower.iter().map(|fd| fd.as_raw_fd().to_string()).collect();
    let mut options =
        format!("lowerdir={},upperdir={},workdir={}", lower.join(":"), upper.as_raw_fd(), work.as_raw_fd());
    for option in self::options(root) {
        options.push(',');
        options.push_str(option);
    }
    let options = CString::new(options).map_err(|_| Errno::INVAL)?;
    chdir("/proc/self/fd")?;
    let mounted = mount("overlay", &root.merged, "overlay", MountFlags::empty(), options.as_c_str());
    chdir("/").and(mounted)
}

/// Says it for a root file system that cannot be.
///
/// # Errors
/// An overlay without layers, or with more than the kernel takes.
pub(super) fn check(root: &Root) -> Result<()> {
    match root.lower.len() {
        // OVL_MAX_STACK.
        1..=500 => Ok(()),
        n => {
            Err(Error::invalid(format!("an overlay of {n} layers is none that the kernel mounts (1 to 500)")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mounts in a mount namespace of this thread's own.
    fn mounted(old_kernel: bool) {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: mounting needs root");
            return;
        }
        let dir =
            std::env::temp_dir().join(format!("rrunctl-root,{}:", crate::home::unique().expect("random")));
        let paths = |name: &str| dir.join(name);
        // More layers than find room in a page by their paths.
        let lower: Vec<_> = (0..120).map(|n| paths(&format!("{n:060}"))).collect();
        for path in lower.iter().chain(&[paths("upper"), paths("work"), paths("merged")]) {
            fs::DirBuilder::new().recursive(true).create(path).expect("mkdir");
        }
        fs::write(lower[0].join("top"), "top").expect("write");
        fs::write(lower[119].join("top"), "bottom").expect("write");
        fs::write(lower[119].join("bottom"), "bottom").expect("write");
        let root = Root {
            lower,
            upper: paths("upper"),
            work: paths("work"),
            merged: paths("merged"),
            options: vec!["volatile".to_owned()],
        };
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let _host = HostMounts::leave(&[]).expect("a mount namespace");
                let dir = |path: &Path| open(path, OFlags::PATH, Mode::empty()).expect("open");
                let lower: Vec<_> = root.lower.iter().map(|path| dir(path)).collect();
                let fds = (dir(&root.upper), dir(&root.work), dir(&root.merged));
                let mounted = match old_kernel {
                    true => by_mount(&root, &lower, &fds.0, &fds.1),
                    false => by_fsopen(&root, &lower, &fds.0, &fds.1, &fds.2),
                };
                mounted.expect("mounted");
                let merged = |name| fs::read_to_string(root.merged.join(name)).expect("a file");
                assert_eq!((merged("top"), merged("bottom")), ("top".to_owned(), "bottom".to_owned()));
                fs::write(root.merged.join("new"), "new").expect("write");
                let options = fs::read_to_string("/proc/thread-self/mountinfo").expect("mountinfo");
                let options = options.lines().last().expect("a line");
                assert!(options.contains("volatile") && !options.contains("redirect_dir=on"), "{options}");
            });
            thread.join().expect("no panic");
        });
        assert_eq!(fs::read_to_string(paths("upper/new")).expect("a file"), "new");
        assert!(!fs::read_to_string("/proc/self/mountinfo").expect("mountinfo").contains("rrunctl-root"));
        fs::remove_dir_all(&dir).expect("remove");
    }

    #[test]
    fn an_overlay_of_many_layers_is_mounted_for_this_process_alone() {
        mounted(false);
    }

    #[test]
    fn kernels_without_lowerdir_plus_get_the_layers_by_their_descriptors() {
        mounted(true);
    }

    #[test]
    fn what_a_container_mounts_below_a_shared_directory_appears_in_the_host() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: mounting needs root");
            return;
        }
        let dir =
            std::env::temp_dir().join(format!("rrunctl-shared-{}", crate::home::unique().expect("random")));
        fs::DirBuilder::new().recursive(true).create(dir.join("alone")).expect("mkdir");
        let tmpfs = |at: &Path| mount("none", at, "tmpfs", MountFlags::empty(), c"").expect("mount");
        let mounts = || fs::read_to_string("/proc/thread-self/mountinfo").expect("mountinfo");
        let is_mounted = |path: &Path| mounts().contains(&format!(" {} ", path.display()));
        let (a, link) = (dir.join("a"), dir.join("link"));
        std::thread::scope(|scope| {
            // The host.
            let host = scope.spawn(|| {
                sys::unshare_mounts().expect("unshare");
                mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
                    .expect("private");
                tmpfs(&dir);
                for name in ["a/sub", "a/x", "b", "alone"] {
                    fs::DirBuilder::new().recursive(true).create(dir.join(name)).expect("mkdir");
                }
                std::os::unix::fs::symlink("a", &link).expect("symlink");
                mount_change(&dir, MountPropagationFlags::SHARED).expect("shared");
                let e = std::thread::scope(|scope| {
                    scope.spawn(|| HostMounts::leave(&["/".into()]).expect_err("refused").to_string()).join()
                });
                assert!(e.expect("no panic").starts_with("/ cannot be bound with shared"));
                let before = mounts().lines().count();
                let all = [a.clone(), a.join("sub"), link.clone(), a.clone()];
                std::thread::scope(|scope| {
                    let monitor = scope.spawn(|| {
                        let _host = HostMounts::leave(&all).expect("a mount namespace");
                        assert!(is_mounted(&a));
                        tmpfs(&a.join("x"));
                        tmpfs(&dir.join("b"));
                    });
                    monitor.join().expect("no panic");
                });
                assert!(is_mounted(&a.join("x")) && !is_mounted(&dir.join("b")));
                assert_eq!(mounts().lines().count(), before + 1);
            });
            host.join().expect("no panic");
        });
        fs::remove_dir_all(&dir).expect("remove");
    }

    #[test]
    fn the_shared_directories_are_those_of_the_bundle() {
        let dir =
            std::env::temp_dir().join(format!("rrunctl-shared-{}", crate::home::unique().expect("random")));
        fs::create_dir(&dir).expect("mkdir");
        assert!(shared(&dir).is_empty());
        let text = r#"{"root":{"path":"x"},"mounts":[{"destination":"/proc","type":"proc"},
            {"source":"/a","options":["rbind","rshared"]},{"source":"/b","options":["rbind","rslave"]},
            {"source":"c","options":["bind","shared"]},{"source":"tmpfs","options":["shared"]}]}"#;
        fs::write(dir.join("config.json"), text).expect("write");
        assert_eq!(shared(&dir), [PathBuf::from("/a"), dir.join("c")]);
        fs::write(dir.join("config.json"), "\"shared\"").expect("write");
        assert!(shared(&dir).is_empty());
        fs::remove_dir_all(&dir).expect("remove");
    }
}
