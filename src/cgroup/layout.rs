//! Which cgroup hierarchies this machine has, where they are mounted and where this process is in them.
//!
//! Read from /proc/self/cgroup and the usual mount points; /proc/self/mountinfo is read only where a
//! hierarchy is not where systemd and the distributions mount it, because it grows with every container on
//! the machine.

#![forbid(unsafe_code)]

use crate::error::{Call as _, Error, Result};
use crate::file;
use rustix::fs::statfs;
use rustix::io::Errno;
use std::path::{Path, PathBuf};

const ROOT: &str = "/sys/fs/cgroup";
// CGROUP_SUPER_MAGIC and CGROUP2_SUPER_MAGIC of <linux/magic.h>.
const V1_MAGIC: u64 = 0x0027_e0eb;
const V2_MAGIC: u64 = 0x6367_7270;

/// Version of a hierarchy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// One hierarchy for each set of controllers.
    V1,
    /// The unified hierarchy.
    V2,
}

/// One mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    /// Version of its interface.
    pub version: Version,
    /// Controllers in it, `name=systemd` for a named one; on v2 those of `cgroup.controllers` at its mount point.
    pub controllers: Vec<String>,
    /// Mount point.
    pub mount: PathBuf,
    /// cgroup of this process, below the mount point, beginning with `/`.
    pub own: String,
}

impl Hierarchy {
    /// The key in state.json, as in /proc/self/cgroup: the v1 controllers with commas, empty for v2.
    pub fn key(&self) -> String {
        match self.version {
            Version::V1 => self.controllers.join(","),
            Version::V2 => String::new(),
        }
    }
}

/// Every hierarchy of the machine: only v1, v1 and one v2 ("hybrid"), or only v2.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layout {
    /// In the order of /proc/self/cgroup.
    pub hierarchies: Vec<Hierarchy>,
}

impl Layout {
    /// Reads the layout.
    ///
    /// # Errors
    /// /proc/self/cgroup cannot be read or understood. A machine without any cgroup mount has an empty layout.
    pub fn read() -> Result<Self> {
        let memberships = file::read("/proc/self/cgroup")?;
        let mut mounts = Mountinfo::default();
        let mut hierarchies = Vec::new();
        for (controllers, own) in memberships.lines().map(membership).collect::<Result<Vec<_>>>()? {
            let version = if controllers.is_empty() { Version::V2 } else { Version::V1 };
            let Some((mount, own)) = locate(version, &controllers, own, &mut mounts)? else {
                continue;
            };
            let controllers = match version {
                Version::V1 => controllers,
                Version::V2 => words(&mount.join("cgroup.controllers"))?,
            };
            hierarchies.push(Hierarchy { version, controllers, mount, own });
        }
        Ok(Self { hierarchies })
    }

    /// The hierarchy that holds a controller.
    pub fn find(&self, controller: &str) -> Option<&Hierarchy> {
        self.hierarchies.iter().find(|hierarchy| hierarchy.controllers.iter().any(|name| name == controller))
    }

    /// Whether v2 is the only version.
    pub fn is_v2(&self) -> bool {
        !self.hierarchies.is_empty() && self.hierarchies.iter().all(|h| h.version == Version::V2)
    }
}

/// One line of /proc/PID/cgroup: the controllers (none for v2) and the path.
fn membership(line: &str) -> Result<(Vec<String>, &str)> {
    let mut fields = line.splitn(3, ':').skip(1);
    match (fields.next(), fields.next()) {
        (Some(""), Some(path)) => Ok((Vec::new(), path)),
        (Some(names), Some(path)) => Ok((names.split(',').map(str::to_owned).collect(), path)),
        _ => Err(Error::new(format!("/proc/self/cgroup: cannot understand {line:?}"))),
    }
}

/// The v2 path of a process, from the text of its /proc/PID/cgroup.
pub(super) fn unified_path(memberships: &str) -> Option<&str> {
    memberships.lines().find_map(|line| line.strip_prefix("0::"))
}

fn locate(
    version: Version,
    controllers: &[String],
    own: &str,
    mounts: &mut Mountinfo,
) -> Result<Option<(PathBuf, String)>> {
    for mount in usual(version, controllers) {
        if magic(&mount)? == Some(version.magic()) {
            // Inside a container that shares the host's cgroup namespace, the mount shows only a part of the
            // hierarchy, and the path of /proc/self/cgroup does not begin there.
            if own == "/" || magic(&mount.join(own.trim_start_matches('/')))?.is_some() {
                return Ok(Some((mount, own.to_owned())));
            }
            break;
        }
    }
    Ok(mounts.find(version, controllers)?.map(|found| {
        let own = below(&found.root, own).unwrap_or("/");
        (found.point.clone(), own.to_owned())
    }))
}

fn usual(version: Version, controllers: &[String]) -> Vec<PathBuf> {
    match version {
        Version::V1 => {
            let names = controllers.join(",");
            vec![Path::new(ROOT).join(names.strip_prefix("name=").unwrap_or(&names))]
        }
        Version::V2 => vec![ROOT.into(), Path::new(ROOT).join("unified")],
    }
}

/// `path` as seen from `root`; by component, as `/a` does not hold `/ab`.
fn below<'a>(root: &str, path: &'a str) -> Option<&'a str> {
    match path.strip_prefix(root.trim_end_matches('/'))? {
        "" => Some("/"),
        rest if rest.starts_with('/') => Some(rest),
        _ => None,
    }
}

impl Version {
    fn magic(self) -> u64 {
        match self {
            Self::V1 => V1_MAGIC,
            Self::V2 => V2_MAGIC,
        }
    }
}

/// The type of the file system; none for what is not there. That it cannot be told must not pass for that: the
/// container would go without the limits of the hierarchy.
fn magic(path: &Path) -> Result<Option<u64>> {
    match statfs(path) {
        Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS | Errno::PERM) => Ok(None),
        // The type of f_type differs between architectures.
        #[allow(clippy::unnecessary_cast, clippy::cast_sign_loss)]
        other => other.map(|fs| Some(fs.f_type as u64)).call(|| format!("statfs {}", path.display())),
    }
}

fn words(path: &Path) -> Result<Vec<String>> {
    let text = file::read(path)?;
    Ok(text.split_whitespace().map(str::to_owned).collect())
}

/// The cgroup mounts of /proc/self/mountinfo, read once and only if asked.
#[derive(Default)]
struct Mountinfo(Option<Vec<Mount>>);

struct Mount {
    root: String,
    point: PathBuf,
    version: Version,
    options: Vec<String>,
}

impl Mountinfo {
    fn find(&mut self, version: Version, controllers: &[String]) -> Result<Option<&Mount>> {
        if self.0.is_none() {
            let text = file::read("/proc/self/mountinfo")?;
            self.0 = Some(text.lines().filter_map(cgroup_mount).collect());
        }
        Ok(self.0.iter().flatten().find(|mount| {
            mount.version == version && controllers.iter().all(|name| mount.options.contains(name))
        }))
    }
}

fn cgroup_mount(line: &str) -> Option<Mount> {
    let (head, tail) = line.split_once(" - ")?;
    let mut tail = tail.split(' ');
    let version = match tail.next()? {
        "cgroup" => Version::V1,
        "cgroup2" => Version::V2,
        _ => return None,
    };
    let options = tail.nth(1)?.split(',').map(str::to_owned).collect();
    let mut head = head.split(' ').skip(3);
    let (root, point) = (head.next()?.to_owned(), unescape(head.next()?).into());
    Some(Mount { root, point, version, options })
}

/// Undoes the octal escapes of mountinfo: space, tab, newline and backslash.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_membership_names_its_controllers() {
        assert_eq!(membership("0::/a:b").expect("v2"), (vec![], "/a:b"));
        assert_eq!(membership("4:cpu,cpuacct:/x").expect("v1"), (vec!["cpu".into(), "cpuacct".into()], "/x"));
        membership("4:cpu").expect_err("two colons are needed");
    }

    #[test]
    fn a_path_is_below_a_root_by_component() {
        assert_eq!(below("/docker/1", "/docker/1/x"), Some("/x"));
        assert_eq!(below("/docker/1", "/docker/1"), Some("/"));
        assert_eq!(below("/docker/1", "/docker/12"), None);
        assert_eq!(below("/", "/a"), Some("/a"));
    }

    #[test]
    fn a_cgroup_mount_is_read_from_mountinfo() {
        let line = "32 31 0:29 /docker/1 /sys/fs/c\\040g rw,relatime - cgroup cgroup rw,cpu,cpuacct";
        let mount = cgroup_mount(line).expect("a cgroup mount");
        assert_eq!((mount.root.as_str(), mount.point.to_str()), ("/docker/1", Some("/sys/fs/c g")));
        assert_eq!(mount.options, ["rw", "cpu", "cpuacct"]);
        assert!(cgroup_mount("31 23 0:28 / /sys rw - tmpfs tmpfs rw").is_none());
    }

    #[test]
    fn this_machine_has_a_layout() {
        let layout = Layout::read().expect("read");
        for hierarchy in &layout.hierarchies {
            assert_eq!(
                magic(&hierarchy.mount).expect("statfs"),
                Some(hierarchy.version.magic()),
                "{hierarchy:?}"
            );
        }
    }
}
