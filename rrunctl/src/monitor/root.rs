//! The mount namespace of a monitor, and the container's root file system in it.

#![forbid(unsafe_code)]

use super::Root;
use crate::error::{Context as _, Error, Result};
use crate::sys;
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount, mount_change,
    move_mount,
};
use rustix::process::chdir;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::ffi::CString;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::Path;

/// What every overlay has, whatever the kernel's defaults: a walk of `upper` is then all that the container changed.
const OPTIONS: [&str; 4] = ["redirect_dir=off", "metacopy=off", "index=off", "xino=auto"];

/// The way back into the mount namespace of the host.
#[derive(Debug)]
pub(super) struct HostMounts(OwnedFd);

impl HostMounts {
    /// Leaves it for a copy, where the host's unmounts still arrive and from which nothing goes back.
    ///
    /// # Errors
    /// Those of open(2), unshare(2) and mount(2).
    pub fn leave() -> Result<Self> {
        let host = open("/proc/self/ns/mnt", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .context(|| "open /proc/self/ns/mnt")?;
        sys::unshare_mounts().context(|| "unshare the mount namespace")?;
        mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
            .context(|| "make / a recursive slave")?;
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

/// Mounts `root` at its `merged`.
///
/// # Errors
/// Those of the new mount API, and with kernels before 6.8 of mount(2).
pub fn mount_overlay(root: &Root) -> Result<()> {
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
    for option in OPTIONS.into_iter().chain(root.options.iter().map(String::as_str)) {
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
    for option in OPTIONS.into_iter().chain(root.options.iter().map(String::as_str)) {
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
    use std::fs;

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
                let _host = HostMounts::leave().expect("a mount namespace");
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
}
