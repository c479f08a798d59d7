//! What this machine has, as far as a check's precondition depends on it.

#![forbid(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};

use crate::case::{Why, lacks};

/// One line of a mountinfo file.
#[derive(Debug, Clone, Default)]
pub struct Mount {
    pub point: String,
    pub kind: String,
    /// Those of the mount and those of the filesystem.
    pub options: Vec<String>,
    /// For instance `shared:12`; without the number of a peer group it could not be told from another.
    pub propagation: Vec<String>,
}

impl Mount {
    pub fn has(&self, option: &str) -> bool {
        self.options.iter().any(|have| have == option)
    }

    /// Whether a tag begins with this word: `shared`, `master` or `unbindable`.
    pub fn is(&self, word: &str) -> bool {
        self.propagation.iter().any(|tag| tag.split(':').next() == Some(word))
    }
}

/// The mounts of a mountinfo file, in its order.
pub fn mounts(mountinfo: &str) -> Vec<Mount> {
    mountinfo.lines().filter_map(mount).collect()
}

fn mount(line: &str) -> Option<Mount> {
    let (own, filesystem) = line.split_once(" - ")?;
    let own: Vec<&str> = own.split(' ').collect();
    let mut filesystem = filesystem.split(' ');
    let (kind, _source, of_filesystem) = (filesystem.next()?, filesystem.next()?, filesystem.next()?);
    let options = own.get(5)?.split(',').chain(of_filesystem.split(','));
    Some(Mount {
        point: (*own.get(4)?).replace("\\040", " "),
        kind: kind.to_owned(),
        options: options.map(str::to_owned).collect(),
        propagation: own.get(6..)?.iter().map(|tag| (*tag).to_owned()).collect(),
    })
}

/// The first two numbers of a release of Linux.
fn version(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|text| text.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[derive(Debug)]
pub struct Machine {
    pub uid: u32,
    pub gid: u32,
    /// The kernel's version.
    pub linux: (u32, u32),
    mounts: Vec<Mount>,
}

impl Machine {
    pub fn look() -> Machine {
        Machine {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            linux: version(&rustix::system::uname().release().to_string_lossy()),
            mounts: mounts(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default()),
        }
    }

    pub fn is_root(&self) -> bool {
        self.uid == 0
    }

    pub fn needs_root(&self) -> Result<(), Why> {
        if self.is_root() { Ok(()) } else { lacks("root") }
    }

    /// Where a v1 controller, or by the name `cgroup2` the unified hierarchy, is mounted.
    pub fn hierarchy(&self, controller: &str) -> Option<&Path> {
        let found = self.mounts.iter().find(|mount| match controller {
            "cgroup2" => mount.kind == "cgroup2",
            _ => mount.kind == "cgroup" && mount.has(controller),
        })?;
        Some(Path::new(&found.point))
    }

    /// Whether cgroups are those of v2 only.
    pub fn is_v2(&self) -> bool {
        self.mounts.iter().any(|mount| mount.point == "/sys/fs/cgroup" && mount.kind == "cgroup2")
    }

    pub fn resctrl(&self) -> Option<&Path> {
        self.mounts.iter().find(|mount| mount.kind == "resctrl").map(|mount| Path::new(&mount.point))
    }

    /// Where the process `pid` is in the hierarchy of a controller.
    pub fn cgroup(&self, pid: &str, controller: &str) -> Option<PathBuf> {
        let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        let path = text.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            let (controllers, path) = (parts.next()?, parts.next()?);
            let here = match controller {
                "cgroup2" => controllers.is_empty(),
                _ => controllers.split(',').any(|name| name == controller),
            };
            here.then(|| path.to_owned())
        })?;
        Some(self.hierarchy(controller)?.join(path.trim_start_matches('/')))
    }

    /// The number of some block device.
    pub fn block_device(&self) -> Option<(u32, u32)> {
        let devices = fs::read_dir("/sys/block").ok()?.flatten();
        devices.filter_map(|entry| fs::read_to_string(entry.path().join("dev")).ok()).find_map(|text| {
            let (major, minor) = text.trim().split_once(':')?;
            Some((major.parse().ok()?, minor.parse().ok()?))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_read() {
        assert_eq!(version("6.1.0-40-cloud-amd64"), (6, 1));
        assert_eq!(version("6.18-rc1"), (6, 18));
    }

    #[test]
    fn mountinfo_is_read() {
        let text = "36 35 0:32 / /a\\040b ro,noexec shared:7 master:2 - tmpfs src rw,size=64k\n";
        let mount = mounts(text).pop().unwrap();
        assert_eq!((mount.point.as_str(), mount.kind.as_str()), ("/a b", "tmpfs"));
        assert!(mount.has("noexec") && mount.has("size=64k") && !mount.has("nosuid"));
        assert!(mount.is("shared") && mount.is("master") && !mount.is("unbindable"));
    }
}
