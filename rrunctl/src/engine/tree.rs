//! The file system of a container or an image, opened without mounting it anywhere: to look up a user, to fill a
//! volume, to copy out of a container that does not run.

#![forbid(unsafe_code)]

use crate::error::{Context as _, Error, Result};
use crate::sys;
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string,
    fsmount, fsopen,
};
use rustix::process::chdir;
use rustix::thread::UnshareFlags;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::Path;

/// What fsconfig(2) takes for a value.
const LONGEST: usize = 255;

/// The tree of `layers`, the uppermost first, read-only. It is there for as long as the descriptor is open.
///
/// # Errors
/// Those of open(2) and of the new mount API.
pub(super) fn merged<'a>(layers: impl IntoIterator<Item = &'a Path>) -> Result<OwnedFd> {
    let dir = |path: &Path| {
        open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .context(|| format!("open {}", path.display()))
    };
    let mut layers = layers.into_iter().map(dir).collect::<Result<Vec<_>>>()?;
    if layers.len() < 2 {
        // overlayfs wants two; one has nothing that could hide something.
        return layers.pop().ok_or_else(|| Error::system("an image without a layer has no files"));
    }
    overlay(&layers).context(|| "mount the layers of an image")
}

fn overlay(layers: &[OwnedFd]) -> Result<OwnedFd, Errno> {
    let one_by_one: Vec<_> =
        layers.iter().map(|layer| ("lowerdir+", format!("/proc/self/fd/{}", layer.as_raw_fd()))).collect();
    match mounted(&one_by_one) {
        // "lowerdir+" came with Linux 6.8; before 6.5 nothing of this is read until all is there.
        Err(Errno::INVAL) => mounted_as_one_word(layers),
        done => done,
    }
}

/// One word has no room for more than a dozen such paths: by a thread that is in /proc/self/fd, for some eighty numbers.
fn mounted_as_one_word(layers: &[OwnedFd]) -> Result<OwnedFd, Errno> {
    let all = layers.iter().map(|layer| layer.as_raw_fd().to_string()).collect::<Vec<_>>().join(":");
    if all.len() > LONGEST {
        return Err(Errno::NAMETOOLONG);
    }
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            sys::unshare(UnshareFlags::FS)?;
            chdir("/proc/self/fd")?;
            mounted(&[("lowerdir", all)])
        });
        thread.join().unwrap_or(Err(Errno::CANCELED))
    })
}

fn mounted(lower: &[(&str, String)]) -> Result<OwnedFd, Errno> {
    let overlay = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(overlay.as_fd(), "source", "overlay")?;
    for (key, value) in lower {
        fsconfig_set_string(overlay.as_fd(), *key, value.as_str())?;
    }
    fsconfig_set_flag(overlay.as_fd(), "ro")?;
    if crate::rootless::is_inside() {
        fsconfig_set_flag(overlay.as_fd(), "userxattr")?;
    }
    fsconfig_create(overlay.as_fd())?;
    fsmount(overlay.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_RDONLY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{CWD, openat};
    use std::fs;

    #[test]
    fn kernels_without_lowerdir_plus_get_the_layers_as_one_word() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: mounting needs root");
            return;
        }
        let dir =
            std::env::temp_dir().join(format!("rrunctl-tree-{}", crate::home::unique().expect("random")));
        // More than find room by paths.
        let layers: Vec<_> = (0..60)
            .map(|n| {
                let layer = dir.join(n.to_string());
                fs::DirBuilder::new().recursive(true).create(&layer).expect("mkdir");
                fs::write(layer.join("which"), n.to_string()).expect("write");
                fs::write(layer.join(format!("of-{n}")), "").expect("write");
                openat(CWD, &layer, OFlags::PATH, Mode::empty()).expect("open")
            })
            .collect();
        let here = std::env::current_dir().expect("getcwd");
        let one_word = mounted_as_one_word(&layers).expect("mounted");
        for tree in [one_word, overlay(&layers).expect("mounted")] {
            let which = openat(&tree, "which", OFlags::RDONLY, Mode::empty()).expect("open");
            let mut text = [0; 2];
            assert_eq!(rustix::io::read(which, &mut text), Ok(1));
            assert_eq!(text[0], b'0');
            assert!(openat(&tree, "of-59", OFlags::RDONLY, Mode::empty()).is_ok());
        }
        assert_eq!(std::env::current_dir().expect("getcwd"), here);
        fs::remove_dir_all(&dir).expect("remove");
    }
}
