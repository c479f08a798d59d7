//! The file system of a container or an image, opened without mounting it anywhere: to look up a user, to fill a
//! volume, to copy out of a container that does not run.

#![forbid(unsafe_code)]

use crate::error::{Context as _, Error, Result};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string,
    fsmount, fsopen,
};
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
    let overlay = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let set = |key: &str, value: &str| fsconfig_set_string(overlay.as_fd(), key, value);
    let path = |fd: &OwnedFd| format!("/proc/self/fd/{}", fd.as_raw_fd());
    set("source", "overlay")?;
    let one_by_one = layers.iter().try_for_each(|layer| set("lowerdir+", &path(layer)));
    match one_by_one {
        // "lowerdir+" came with Linux 6.8.
        Err(Errno::INVAL) => {
            let all = layers.iter().map(path).collect::<Vec<_>>().join(":");
            if all.len() > LONGEST {
                return Err(Errno::NAMETOOLONG);
            }
            set("lowerdir", &all)?;
        }
        other => other?,
    }
    fsconfig_set_flag(overlay.as_fd(), "ro")?;
    fsconfig_create(overlay.as_fd())?;
    let mounted = fsmount(overlay.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_RDONLY)?;
    Ok(mounted)
}
