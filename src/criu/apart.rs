//! The mount namespace in which CRIU works, and the places it finds there.
//!
//! CRIU mounts where it runs: a view of the cgroups below the images, and in /tmp the tree that it restores.
//! Killed on the way it would leave them to the host; its fresh mount of cgroup2 names no option, which takes
//! those away that the host's has (`nsdelegate`, `memory_recursiveprot`). So it gets a namespace of its own, which
//! ends with it, and in that one binds of the host's hierarchies, which change no option (`cgroup_yard`). The
//! host's mounts arrive in it, as they do in containers, and none leaves it.
//!
//! rrun itself goes there and comes back, before hooks and all else that is the host's: a program that is started
//! meanwhile stays, and so do directories that are opened.

#![forbid(unsafe_code)]

use super::Subject;
use crate::cgroup::layout::{Hierarchy, Layout};
use crate::error::{Call, Context, Error, Result};
use crate::mount_namespace::{OWN, visit};
use crate::plan;
use crate::plan::namespaces::Choice;
use crate::sys::launch::unshare;
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags};
use std::ffi::CString;
use std::path::{Path, PathBuf};

/// The mount point below the container's directory, which `delete` removes after a command that was killed.
pub const DIRECTORY: &str = "criu";

/// A mount point that is removed when dropped: once CRIU has ended.
pub(super) struct Apart<'a> {
    /// The container.
    pub subject: &'a Subject<'a>,
    /// Without it CRIU works where we are, as the container has no other mounts.
    directory: Option<PathBuf>,
}

impl<'a> Apart<'a> {
    pub fn new(subject: &'a Subject<'a>) -> Result<Self> {
        let mut apart = Self { subject, directory: None };
        if !has_own_mounts(subject)? {
            return Ok(apart);
        }
        let directory = subject.state.join(DIRECTORY);
        make_directory(&directory)?;
        apart.directory = Some(directory);
        Ok(apart)
    }

    /// Does `work` in a new mount namespace with these places, and returns to ours.
    ///
    /// # Errors
    /// Those of the mounts and of `work`.
    pub fn enter<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let Some(base) = &self.directory else { return work() };
        let named = || "the mount namespace of CRIU";
        visit(
            || unshare(plan::Kind::Mount.flag()).context(named),
            || prepare(base).context(named).and_then(|()| work()),
        )
    }

    /// During [`Self::enter`]: binds the root filesystem where CRIU wants it, which is a mount point whose parent is
    /// not covered by another mount.
    pub fn root(&self) -> Result<PathBuf> {
        let Some(base) = &self.directory else { return Ok(self.subject.root.to_owned()) };
        let root = base.join("root");
        make_directory(&root)?;
        rustix::mount::mount_bind_recursive(self.subject.root, &root)
            .call(|| format!("mount {} on {}", self.subject.root.display(), root.display()))?;
        Ok(root)
    }

    /// During [`Self::enter`]: brings every hierarchy of the kernel together, each under the name that CRIU gives it.
    pub fn yard(&self) -> Result<Option<PathBuf>> {
        let Some(base) = &self.directory else { return Ok(None) };
        let yard = base.join("cgroup");
        fill_yard(&yard).map(|()| Some(yard))
    }
}

impl Drop for Apart<'_> {
    fn drop(&mut self) {
        if let Some(directory) = &self.directory {
            let _ = rustix::fs::rmdir(directory);
        }
    }
}

/// Whether the container's mount namespace is not ours: in another than its own, CRIU would take ours for the
/// container's too.
fn has_own_mounts(subject: &Subject<'_>) -> Result<bool> {
    let inode =
        |path: &Path| rustix::fs::stat(path).map(|s| s.st_ino).call(|| format!("stat {}", path.display()));
    match subject.namespaces.get(plan::Kind::Mount) {
        Choice::Create => Ok(true),
        Choice::Inherit => Ok(false),
        Choice::Join(path) => Ok(inode(path)? != inode(Path::new(OWN))?),
    }
}

fn prepare(base: &Path) -> Result<()> {
    let flags = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", flags).call(|| "mount / rslave")?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    rustix::mount::mount("tmpfs", base, "tmpfs", flags, c"mode=0755")
        .call(|| format!("mount tmpfs on {}", base.display()))
}

/// Those that are not mounted too: CRIU opens each one, whether the container has a cgroup in it or not.
fn fill_yard(yard: &Path) -> Result<()> {
    make_directory(yard)?;
    let path = "/proc/self/cgroup";
    let text = crate::file::read(path)?;
    let layout = Layout::read()?;
    for line in text.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(own)) = (fields.next(), fields.next()) else { continue };
        let place = yard.join(directory_of(controllers));
        make_directory(&place)?;
        // One mounted in part only, as in a container, has another path for us.
        let whole = |h: &&Hierarchy| h.key() == controllers && h.own == own;
        match layout.hierarchies.iter().find(whole) {
            Some(hierarchy) => rustix::mount::mount_bind(&hierarchy.mount, &place)
                .call(|| format!("mount {} on {}", hierarchy.mount.display(), place.display()))?,
            None => mount_hierarchy(controllers, &place)?,
        }
    }
    Ok(())
}

/// The name that CRIU gives a hierarchy, by its controllers as /proc/PID/cgroup has them.
fn directory_of(controllers: &str) -> &str {
    match controllers {
        "" => "unified",
        _ => controllers.strip_prefix("name=").unwrap_or(controllers),
    }
}

fn mount_hierarchy(controllers: &str, place: &Path) -> Result<()> {
    let (kind, options) = match controllers {
        "" => ("cgroup2", String::new()),
        name if name.starts_with("name=") => ("cgroup", format!("none,{name}")),
        _ => ("cgroup", controllers.to_owned()),
    };
    let options = CString::new(options).map_err(|_| Error::new("NUL"))?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    rustix::mount::mount(kind, place, kind, flags, options.as_c_str())
        .call(|| format!("mount {kind} {controllers} on {}", place.display()))
}

fn make_directory(path: &Path) -> Result<()> {
    match rustix::fs::mkdir(path, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(Error::sys(format!("mkdir {}", path.display()), errno)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hierarchy_has_the_name_that_criu_looks_for() {
        let names = ["", "cpu,cpuacct", "name=systemd"].map(directory_of);
        assert_eq!(names, ["unified", "cpu,cpuacct", "systemd"]);
    }
}
