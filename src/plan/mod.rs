//! Decisions: what `create`, `exec` and `update` will do, complete before anything is done.
//!
//! Nothing here makes a system call. Every error about config.json arises here and carries its JSON path.

#![forbid(unsafe_code)]

pub mod annotations;
pub mod bitmask;
pub mod capabilities;
pub mod cgroup;
pub mod exec;
pub mod hooks;
pub mod ids;
pub mod namespaces;
pub mod netdev;
pub mod passwd;
pub mod process;
pub mod rdt;
pub mod rootfs;
pub mod scheduling;
pub mod seccomp;
pub mod sysctl;
pub mod uts;

pub use namespaces::{Choice, Kind, Namespaces};

use crate::cgroup::layout::Hierarchy;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::spec::{self, Spec};
use cgroup::{CgroupPlan, Driver};
use hooks::Hooks;
use ids::Ids;
use netdev::NetDevice;
use process::ProcessPlan;
use rdt::Rdt;
use rootfs::{Cgroups, RootfsPlan};
use scheduling::MemoryPolicy;
use seccomp::Filter;
use std::collections::BTreeMap;
use std::ffi::CString;
use std::fmt;
use std::path::{Path, PathBuf};
use sysctl::Sysctls;
use uts::{Names, TimeOffset};

/// What the command line adds to config.json.
#[derive(Debug)]
pub struct Request<'a> {
    /// Container id.
    pub id: &'a str,
    /// Bundle, absolute.
    pub bundle: &'a Path,
    /// Who makes cgroups.
    pub driver: Driver,
    /// `--no-pivot`
    pub no_pivot: bool,
    /// `--no-new-keyring`
    pub no_new_keyring: bool,
    /// How many fds from 3 on the process keeps.
    pub preserve_fds: u32,
    /// Entries that socket activation or readiness notification add to the environment.
    pub environment: &'a [CString],
    /// `--rootless`: whether a cgroup that may not be made is gone without; `None` decides by the privileges.
    pub rootless: Option<bool>,
}

/// Everything that `create` and `start` will do.
#[derive(Debug)]
pub struct Plan {
    /// Container id.
    pub id: String,
    /// `ociVersion` of config.json.
    pub oci_version: String,
    /// Bundle, absolute.
    pub bundle: PathBuf,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// Namespaces.
    pub namespaces: Namespaces,
    /// User and group ids.
    pub ids: Ids,
    /// Offsets of a new time namespace.
    pub time_offsets: Vec<TimeOffset>,
    /// Host and domain name.
    pub names: Names,
    /// Kernel parameters.
    pub sysctls: Sysctls,
    /// The root filesystem.
    pub rootfs: RootfsPlan,
    /// cgroups and limits.
    pub cgroup: CgroupPlan,
    /// The process.
    pub process: ProcessPlan,
    /// Its execution domain (personality(2)).
    pub personality: Option<u32>,
    /// Its memory policy.
    pub memory_policy: Option<MemoryPolicy>,
    /// Its system call filter.
    pub seccomp: Option<Filter>,
    /// Hooks.
    pub hooks: Hooks,
    /// Network devices to move in.
    pub net_devices: Vec<NetDevice>,
    /// Cache and memory bandwidth.
    pub intel_rdt: Option<Rdt>,
    /// Name of the session keyring.
    pub keyring: Option<CString>,
    /// How many fds from 3 on the process keeps.
    pub preserve_fds: u32,
    /// Whether privileges of the initial user namespace are missing.
    pub rootless: bool,
    /// What is ignored, and why.
    pub warnings: Vec<String>,
}

impl Plan {
    /// Decides everything.
    ///
    /// # Errors
    /// The first value of config.json that is wrong or that this machine cannot do.
    pub fn build(spec: &Spec, request: &Request<'_>, host: &Host) -> Result<Self> {
        let none = spec::Linux::default();
        let linux = spec.linux.as_deref().unwrap_or(&none);
        check_version(&spec.oci_version)?;
        annotations::check(&spec.annotations)?;
        let rootless = host.rootless();
        let namespaces = Namespaces::build(&linux.namespaces)?;
        if rootless && host.euid != 0 && !namespaces.has(Kind::User) {
            return Err(Error::config("linux.namespaces", "rootless container requires user namespaces")
                .remedy("add {\"type\": \"user\"} and mappings, or start from `rrun spec --rootless`"));
        }
        let mut process = ProcessPlan::build(spec.process.as_deref())?;
        process.envp.extend_from_slice(request.environment);
        process.user.keep_groups = annotations::keeps_groups(&spec.annotations);
        check_labels(&process, linux, host)?;
        let ids = Ids::build(linux, &namespaces)?;
        ids.check(&process.user)?;
        let mut warnings = process.warnings.clone();
        if matches!(ids, Ids::Inherit) {
            warnings.extend(process.capabilities.restrict(host.bounding));
        }
        let mut cgroup =
            cgroup::build(spec.linux.as_deref(), request.id, &host.cgroup, request.driver, rootless)?;
        cgroup.best_effort = request.rootless.unwrap_or(rootless) && linux.cgroups_path.is_empty();
        if !cgroup.places.is_empty() {
            let only_v2 = host.cgroup.is_v2();
            cgroup.owner = cgroup::owner(spec, &namespaces, &ids).filter(|_| only_v2);
            cgroup.delegated = cgroup::delegated(spec, only_v2)?;
        }
        if let Some(systemd) = host.systemd.as_ref().filter(|_| request.driver == Driver::Systemd) {
            let annotations = &spec.annotations;
            cgroup::systemd::through(&mut cgroup, &linux.cgroups_path, request.id, annotations, systemd)?;
        }
        if process.scheduler.is_some()
            && linux.resources.as_ref().and_then(|r| r.cpu.as_ref()).is_some_and(|cpu| !cpu.cpus.is_empty())
            && process.scheduler.as_ref().is_some_and(|s| s.name == "SCHED_DEADLINE")
        {
            return Err(Error::config("process.scheduler", scheduling::CPUS_CONFLICT));
        }
        let (personality, warning) = match &linux.personality {
            Some(given) => {
                let (domain, warning) = scheduling::personality(given)?;
                (Some(domain), warning)
            }
            None => (None, None),
        };
        warnings.extend(warning);
        let (cgroups, foreign_cgroups) = cgroups_inside(&cgroup, host, &namespaces, rootless);
        let given = rootfs::Given {
            bundle: request.bundle,
            namespaces: &namespaces,
            cgroups: &cgroups,
            foreign_cgroups,
            rootless,
            no_pivot: request.no_pivot,
        };
        let rootfs = rootfs::build(spec, &given)?;
        ids.check_mounts(&rootfs)?;
        let seccomp = linux.seccomp.as_ref().map(seccomp::build).transpose()?.flatten();
        warnings.extend(rootfs.warnings.iter().chain(&cgroup.warnings).cloned());
        if annotations::fails_unknown_syscall(&spec.annotations)
            && let Some(unknown) = linux.seccomp.as_ref().and_then(seccomp::unknown_call)
        {
            return Err(unknown);
        }
        Ok(Self {
            id: request.id.to_owned(),
            oci_version: spec.oci_version.clone(),
            bundle: request.bundle.to_owned(),
            annotations: spec.annotations.clone(),
            time_offsets: uts::time_offsets(linux, &namespaces)?,
            names: Names::build(spec, &namespaces)?,
            sysctls: Sysctls::build(linux, &namespaces)?,
            net_devices: netdev::build(linux, &namespaces)?,
            intel_rdt: linux.intel_rdt.as_ref().map(Rdt::build).transpose()?,
            memory_policy: linux.memory_policy.as_ref().map(MemoryPolicy::build).transpose()?,
            hooks: Hooks::build(&spec.hooks)?,
            keyring: keyring(request.id, request.no_new_keyring),
            preserve_fds: request.preserve_fds,
            namespaces,
            ids,
            rootfs,
            cgroup,
            process,
            personality,
            seccomp,
            rootless,
            warnings,
        })
    }

    /// Whether the kernel may refuse setgroups(2) inside.
    pub fn may_lack_setgroups(&self) -> bool {
        self.rootless || matches!(&self.ids, Ids::Join { .. })
    }
}

/// What a mount of type `cgroup` shows: the container's own cgroups, or the runtime's where it makes none, and whether
/// it is those.
///
/// Without a cgroup namespace /proc/self/cgroup is read against the host's tree, so on v2 the mount shows all of it, as
/// with runc; a user's, or one in a user namespace, its own alone (CVE-2023-25809).
fn cgroups_inside(
    plan: &CgroupPlan,
    host: &Host,
    namespaces: &Namespaces,
    rootless: bool,
) -> (Cgroups, bool) {
    // Without a path and without the right to make one, the container stays where the runtime is.
    let places = if plan.best_effort { &[][..] } else { &plan.places };
    let path = |hierarchy: &Hierarchy| {
        let place = places.iter().find(|place| place.hierarchy == *hierarchy);
        let below = place.map_or(hierarchy.own.as_str(), |place| place.path.as_str());
        hierarchy.mount.join(below.trim_start_matches('/'))
    };
    if host.cgroup.is_v2() {
        let whole = !(namespaces.has(Kind::Cgroup) || namespaces.has(Kind::User) || rootless);
        let shown = |hierarchy: &Hierarchy| if whole { hierarchy.mount.clone() } else { path(hierarchy) };
        return (Cgroups::V2(host.cgroup.hierarchies.first().map(shown)), places.is_empty());
    }
    let hierarchies = host.cgroup.hierarchies.iter().map(|hierarchy| rootfs::Hierarchy {
        name: hierarchy.mount.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
        options: hierarchy.key(),
        path: path(hierarchy),
    });
    (Cgroups::V1(hierarchies.collect()), places.is_empty())
}

/// The session keyring of a container; exec joins the same.
pub(crate) fn keyring(id: &str, none: bool) -> Option<CString> {
    if none { None } else { CString::new(format!("_ses.{id}")).ok() }
}

/// config.md, "Specification version": the format of SemVer, and a major version is not compatible with another. A
/// minor one that is newer than this runtime is taken, as callers are updated before runtimes are, and so is none.
fn check_version(version: &str) -> Result<()> {
    let number = |text: &&str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let plain = version.split(['-', '+']).next().unwrap_or_default();
    let numbers: Vec<_> = plain.split('.').filter(number).collect();
    match numbers.as_slice() {
        _ if version.is_empty() => Ok(()),
        [major, _, _] if plain.split('.').count() == 3 => match *major {
            "0" | "1" => Ok(()),
            _ => Err(Error::config("ociVersion", format!("{version:?} is not supported, up to 1.x is"))),
        },
        _ => Err(Error::config("ociVersion", format!("{version:?} is not a version of the form 1.2.3"))),
    }
}

/// A label that nothing would enforce is an error: the caller believes the container confined.
fn check_labels(process: &ProcessPlan, linux: &spec::Linux, host: &Host) -> Result<()> {
    if process.apparmor_profile.is_some() && !host.apparmor {
        return Err(Error::config("process.apparmorProfile", "apparmor is not enabled on this host"));
    }
    for (at, given) in [
        ("process.selinuxLabel", process.selinux_label.is_some()),
        ("linux.mountLabel", !linux.mount_label.is_empty()),
    ] {
        if given && !host.selinux {
            return Err(Error::config(at, "selinux label is specified in config, but selinux is disabled"));
        }
    }
    Ok(())
}

impl fmt::Display for Plan {
    /// One decision a line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "container {} from {}", self.id, self.bundle.display())?;
        writeln!(f, "namespaces {}", self.namespaces)?;
        if let Ids::New { uid, gid } = &self.ids {
            for (name, map) in [("uid_map", uid), ("gid_map", gid)] {
                for line in map.to_string().lines() {
                    writeln!(f, "{name} {line}")?;
                }
            }
        }
        for offset in &self.time_offsets {
            writeln!(f, "time offset {offset}")?;
        }
        write!(f, "{}", self.cgroup)?;
        write!(f, "{}", self.rootfs)?;
        for (name, value) in [("hostname", &self.names.hostname), ("domainname", &self.names.domainname)] {
            if let Some(value) = value {
                writeln!(f, "{name} {value}")?;
            }
        }
        for sysctl in &self.sysctls.list {
            writeln!(f, "sysctl {sysctl}")?;
        }
        for device in &self.net_devices {
            writeln!(f, "network device {device}")?;
        }
        write!(f, "{}", self.hooks)?;
        write!(f, "{}", self.process)?;
        if let Some(domain) = self.personality {
            writeln!(f, "personality {domain:#x}")?;
        }
        if let Some(policy) = &self.memory_policy {
            writeln!(f, "memory policy {policy}")?;
        }
        if let Some(rdt) = &self.intel_rdt {
            writeln!(f, "intel_rdt {rdt}")?;
        }
        match &self.seccomp {
            Some(filter) => writeln!(f, "seccomp {filter}")?,
            None => writeln!(f, "seccomp none")?,
        }
        for warning in &self.warnings {
            writeln!(f, "warning: {warning}")?;
        }
        Ok(())
    }
}
