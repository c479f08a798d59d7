//! `rrun features`: what this runtime implements, whatever the machine can do (features.md).
//!
//! The keys are in the order in which runc prints them; containerd, dockerd and Kubernetes read the
//! document once and decide from it whether to offer user namespaces and recursive read-only mounts.

#![forbid(unsafe_code)]

use crate::plan::{capabilities, hooks, scheduling};
use crate::spec::write::writes;
use std::collections::BTreeMap;

/// Versions of the specification that are understood; also the `ociVersion` of `rrun spec`.
pub const SPEC_VERSION_MIN: &str = "1.0.0";
/// The newest one.
pub const SPEC_VERSION_MAX: &str = "1.3.0";

/// Annotations that change what the runtime does; one that ends in a dot is a prefix.
pub const UNSAFE_ANNOTATIONS: &[&str] = &["bundle", "org.systemd.property.", "org.criu.config", "run.oci."];

/// Names of the namespaces, sorted.
pub const NAMESPACES: &[&str] = &["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"];

/// Names that other modules own.
#[derive(Debug, Clone, Copy)]
pub struct Tables<'a> {
    /// Mount options that are not passed to the file system.
    pub mount_options: &'a [&'static str],
    /// `SCMP_ACT_*`
    pub seccomp_actions: &'a [&'static str],
    /// `SCMP_CMP_*`
    pub seccomp_operators: &'a [&'static str],
    /// `SCMP_ARCH_*`
    pub seccomp_archs: &'a [&'static str],
    /// `SECCOMP_FILTER_FLAG_*`
    pub seccomp_flags: &'a [&'static str],
}

/// The document.
#[derive(Debug, Clone)]
pub struct Features {
    oci_version_min: &'static str,
    oci_version_max: &'static str,
    hooks: &'static [&'static str],
    mount_options: Vec<&'static str>,
    linux: Linux,
    annotations: BTreeMap<&'static str, String>,
    unsafe_annotations: &'static [&'static str],
}
writes!(Features {
    oci_version_min = "ociVersionMin",
    oci_version_max = "ociVersionMax",
    hooks = "hooks",
    mount_options = "mountOptions",
    linux = "linux",
    annotations = "annotations",
    unsafe_annotations = "potentiallyUnsafeConfigAnnotations",
});

#[derive(Debug, Clone)]
struct Linux {
    namespaces: &'static [&'static str],
    capabilities: &'static [&'static str],
    cgroup: Cgroup,
    seccomp: Seccomp,
    apparmor: Enabled,
    selinux: Enabled,
    intel_rdt: IntelRdt,
    memory_policy: MemoryPolicy,
    mount_extensions: MountExtensions,
    net_devices: Enabled,
}
writes!(Linux {
    namespaces = "namespaces",
    capabilities = "capabilities",
    cgroup = "cgroup",
    seccomp = "seccomp",
    apparmor = "apparmor",
    selinux = "selinux",
    intel_rdt = "intelRdt",
    memory_policy = "memoryPolicy",
    mount_extensions = "mountExtensions",
    net_devices = "netDevices",
});

#[derive(Debug, Clone)]
struct Cgroup {
    v1: bool,
    v2: bool,
    systemd: bool,
    systemd_user: bool,
    rdma: bool,
}
writes!(Cgroup {
    v1 = "v1",
    v2 = "v2",
    systemd = "systemd",
    systemd_user = "systemdUser",
    rdma = "rdma"
});

#[derive(Debug, Clone)]
struct Seccomp {
    enabled: bool,
    actions: Vec<&'static str>,
    operators: Vec<&'static str>,
    archs: Vec<&'static str>,
    known_flags: Vec<&'static str>,
    supported_flags: Vec<&'static str>,
}
writes!(Seccomp {
    enabled = "enabled",
    actions = "actions",
    operators = "operators",
    archs = "archs",
    known_flags = "knownFlags",
    supported_flags = "supportedFlags",
});

#[derive(Debug, Clone)]
struct Enabled {
    enabled: bool,
}
writes!(Enabled { enabled = "enabled" });

#[derive(Debug, Clone)]
struct IntelRdt {
    enabled: bool,
    schemata: bool,
    monitoring: bool,
}
writes!(IntelRdt { enabled = "enabled", schemata = "schemata", monitoring = "monitoring" });

#[derive(Debug, Clone)]
struct MemoryPolicy {
    modes: Vec<&'static str>,
    flags: Vec<&'static str>,
}
writes!(MemoryPolicy { modes = "modes", flags = "flags" });

#[derive(Debug, Clone)]
struct MountExtensions {
    idmap: Enabled,
}
writes!(MountExtensions { idmap = "idmap" });

impl Features {
    /// Puts the document together; `commit` is what `rrun --version` prints.
    pub fn new(tables: &Tables<'_>, version: &str, commit: &str) -> Self {
        let yes = || Enabled { enabled: true };
        let annotations = BTreeMap::from([
            ("io.rrun.commit", commit.to_owned()),
            ("io.rrun.version", version.to_owned()),
            // containerd and podman look for this very key.
            ("org.opencontainers.runc.checkpoint.enabled", "true".to_owned()),
        ]);
        Self {
            oci_version_min: SPEC_VERSION_MIN,
            oci_version_max: SPEC_VERSION_MAX,
            hooks: &hooks::NAMES,
            mount_options: sorted(tables.mount_options),
            linux: Linux {
                namespaces: NAMESPACES,
                capabilities: &capabilities::NAMES,
                cgroup: Cgroup { v1: true, v2: true, systemd: true, systemd_user: true, rdma: true },
                seccomp: Seccomp {
                    enabled: true,
                    actions: sorted(tables.seccomp_actions),
                    operators: sorted(tables.seccomp_operators),
                    archs: sorted(tables.seccomp_archs),
                    known_flags: tables.seccomp_flags.to_vec(),
                    supported_flags: tables.seccomp_flags.to_vec(),
                },
                apparmor: yes(),
                selinux: yes(),
                intel_rdt: IntelRdt { enabled: true, schemata: true, monitoring: true },
                memory_policy: MemoryPolicy {
                    modes: scheduling::MEMORY_MODES.iter().map(|(name, _)| *name).collect(),
                    flags: scheduling::MEMORY_FLAGS.iter().map(|(name, _)| *name).collect(),
                },
                mount_extensions: MountExtensions { idmap: yes() },
                net_devices: yes(),
            },
            annotations,
            unsafe_annotations: UNSAFE_ANNOTATIONS,
        }
    }
}

fn sorted(names: &[&'static str]) -> Vec<&'static str> {
    let mut names = names.to_vec();
    names.sort_unstable();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document() -> String {
        let tables = Tables {
            mount_options: &["rro", "bind", "idmap"],
            seccomp_actions: &["SCMP_ACT_KILL", "SCMP_ACT_ALLOW"],
            seccomp_operators: &["SCMP_CMP_EQ"],
            seccomp_archs: &["SCMP_ARCH_X86_64"],
            seccomp_flags: &["SECCOMP_FILTER_FLAG_TSYNC"],
        };
        serde_json::to_string(&Features::new(&tables, "1.2.3", "abc")).expect("JSON")
    }

    #[test]
    fn the_keys_are_in_runcs_order() {
        let text = document();
        let keys = [
            "ociVersionMin",
            "ociVersionMax",
            "hooks",
            "mountOptions",
            "linux",
            "namespaces",
            "capabilities",
            "cgroup",
            "systemdUser",
            "rdma",
            "seccomp",
            "actions",
            "operators",
            "archs",
            "knownFlags",
            "supportedFlags",
            "apparmor",
            "selinux",
            "intelRdt",
            "schemata",
            "monitoring",
            "memoryPolicy",
            "mountExtensions",
            "idmap",
            "netDevices",
            "annotations",
            "potentiallyUnsafeConfigAnnotations",
        ];
        let mut rest = text.as_str();
        for key in keys {
            let (_, after) =
                rest.split_once(&format!("\"{key}\":")).unwrap_or_else(|| panic!("{key}: {text}"));
            rest = after;
        }
    }

    #[test]
    fn what_callers_ask_for_is_there() {
        let value: serde_json::Value = serde_json::from_str(&document()).expect("JSON");
        let linux = value.get("linux").expect("linux");
        assert_eq!(linux.pointer("/mountExtensions/idmap/enabled"), Some(&true.into()));
        assert_eq!(linux.pointer("/capabilities/40"), Some(&"CAP_CHECKPOINT_RESTORE".into()));
        assert_eq!(value.pointer("/mountOptions/0"), Some(&"bind".into()));
        let annotations = value.get("annotations").expect("annotations");
        assert_eq!(annotations.get("org.opencontainers.runc.checkpoint.enabled"), Some(&"true".into()));
        assert_eq!(annotations.get("io.rrun.version"), Some(&"1.2.3".into()));
    }

    #[test]
    fn the_namespaces_are_those_of_the_plan() {
        let mut names: Vec<_> = crate::plan::Kind::ALL.into_iter().map(crate::plan::Kind::name).collect();
        names.sort_unstable();
        assert_eq!(names, NAMESPACES);
    }
}
