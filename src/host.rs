//! Facts about this machine: read once, and only those that a plan asks for.

#![forbid(unsafe_code)]

use crate::cgroup::layout::Layout;
use crate::error::Result;
use crate::file;
use crate::plan::cgroup::systemd::Systemd;
use crate::spec::Spec;
use std::sync::OnceLock;

/// What a plan needs to know of the machine.
#[derive(Debug)]
pub struct Host {
    /// Effective user id of the runtime.
    pub euid: u32,
    /// Effective group id of the runtime.
    pub egid: u32,
    /// Whether the runtime itself is in a user namespace that does not map every id.
    pub in_user_namespace: bool,
    /// The cgroup hierarchies.
    pub cgroup: Layout,
    /// The systemd that makes cgroups; asked only where it does.
    pub systemd: Option<Systemd>,
    /// Capabilities that the runtime can give away: its bounding set.
    pub bounding: u64,
    /// Whether AppArmor is enabled; asked only for a profile.
    pub apparmor: bool,
    /// Whether SELinux is enabled; asked only for a label.
    pub selinux: bool,
}

impl Host {
    /// Reads what a plan for `spec` needs.
    ///
    /// # Errors
    /// Those of reading /proc and of the cgroup hierarchies.
    pub fn read(spec: &Spec) -> Result<Self> {
        let process = spec.process.as_deref();
        let profile = process.is_some_and(|process| !process.apparmor_profile.is_empty());
        let label = process.is_some_and(|process| !process.selinux_label.is_empty())
            || spec.linux.as_deref().is_some_and(|linux| !linux.mount_label.is_empty());
        Ok(Self {
            euid: rustix::process::geteuid().as_raw(),
            egid: rustix::process::getegid().as_raw(),
            in_user_namespace: in_user_namespace()?,
            cgroup: Layout::read()?,
            systemd: None,
            bounding: bounding()?,
            apparmor: profile && starts_with("/sys/module/apparmor/parameters/enabled", "Y")?,
            selinux: label && std::path::Path::new("/sys/fs/selinux/enforce").exists(),
        })
    }

    /// Whether privileges are missing that only the initial user namespace gives.
    pub fn rootless(&self) -> bool {
        self.euid != 0 || self.in_user_namespace
    }
}

/// The bounding set, in one read instead of a prctl(2) for each capability.
fn bounding() -> Result<u64> {
    Ok(mask("CapBnd:")?.unwrap_or_else(crate::sys::task::bounding))
}

/// The signals that this process ignores, as it was begun; all of them if that cannot be known.
pub fn ignored_signals() -> u64 {
    mask("SigIgn:").ok().flatten().unwrap_or(u64::MAX)
}

/// A mask of this process, out of one read of all.
fn mask(name: &str) -> Result<Option<u64>> {
    static STATUS: OnceLock<String> = OnceLock::new();
    let status = match STATUS.get() {
        Some(status) => status,
        None => {
            let text = file::read_if_there("/proc/self/status")?.unwrap_or_default();
            STATUS.get_or_init(|| text)
        }
    };
    let set = status.lines().find_map(|line| line.strip_prefix(name));
    Ok(set.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()))
}

fn starts_with(path: &str, text: &str) -> Result<bool> {
    Ok(file::read_if_there(path)?.is_some_and(|content| content.starts_with(text)))
}

/// Whether this process is in a user namespace other than the initial one, which maps all ids to themselves
/// (user_namespaces(7)).
///
/// # Errors
/// Those of open(2) and read(2): a container must not be given more because this cannot be told.
pub fn in_user_namespace() -> Result<bool> {
    let map = file::read_if_there("/proc/self/uid_map")?;
    Ok(map.is_some_and(|map| map.split_ascii_whitespace().ne(["0", "0", "4294967295"])))
}
