//! The config.json that `rrun spec` writes: a start to be edited, with the same content as every runtime's.
//!
//! A text and not a value that is serialized: the file is read and edited by people, so its key order and
//! layout are part of it. No inheritable or ambient capabilities: they made files with inheritable
//! capabilities give more than was meant (CVE-2022-29162).

#![forbid(unsafe_code)]

/// The user for whom `rrun spec --rootless` maps the container's root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rootless {
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
}

/// The text of config.json. `cgroup_namespace` is for machines with cgroup v2 only, where a cgroup mount
/// needs one to show the container's own group.
pub fn text(rootless: Option<Rootless>, cgroup_namespace: bool) -> String {
    let mut namespaces = vec!["pid"];
    if rootless.is_none() {
        namespaces.push("network");
    }
    namespaces.extend(["ipc", "uts", "mount"]);
    if cgroup_namespace {
        namespaces.push("cgroup");
    }
    let (pts_gid, sys, before_namespaces) = match rootless {
        None => (PTS_GID, SYS, RESOURCES.to_owned()),
        Some(Rootless { uid, gid }) => {
            namespaces.push("user");
            ("", SYS_ROOTLESS, mapping("uidMappings", uid) + &mapping("gidMappings", gid))
        }
    };
    let namespaces: Vec<_> = namespaces
        .into_iter()
        .map(|kind| format!("\t\t\t{{\n\t\t\t\t\"type\": \"{kind}\"\n\t\t\t}}"))
        .collect();
    TEMPLATE
        .replace("@PTS_GID@", pts_gid)
        .replace("@SYS@\n", sys)
        .replace("@LINUX@\n", &before_namespaces)
        .replace("@NAMESPACES@", &namespaces.join(",\n"))
}

fn mapping(key: &str, id: u32) -> String {
    MAPPING.replace("@KEY@", key).replace("@ID@", &id.to_string())
}

const PTS_GID: &str = ",\n\t\t\t\t\"gid=5\"";

const SYS: &str = r#"		{
			"destination": "/sys",
			"type": "sysfs",
			"source": "sysfs",
			"options": [
				"nosuid",
				"noexec",
				"nodev",
				"ro"
			]
		},
"#;

/// Without a network namespace of its own, sysfs cannot be mounted: the host's is bound.
const SYS_ROOTLESS: &str = r#"		{
			"destination": "/sys",
			"type": "none",
			"source": "/sys",
			"options": [
				"rbind",
				"nosuid",
				"noexec",
				"nodev",
				"ro"
			]
		},
"#;

const RESOURCES: &str = r#"		"resources": {
			"devices": [
				{
					"allow": false,
					"access": "rwm"
				}
			]
		},
"#;

const MAPPING: &str = r#"		"@KEY@": [
			{
				"containerID": 0,
				"hostID": @ID@,
				"size": 1
			}
		],
"#;

const TEMPLATE: &str = r#"{
	"ociVersion": "1.3.0",
	"process": {
		"terminal": true,
		"user": {
			"uid": 0,
			"gid": 0
		},
		"args": [
			"sh"
		],
		"env": [
			"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
			"TERM=xterm"
		],
		"cwd": "/",
		"capabilities": {
			"bounding": [
				"CAP_AUDIT_WRITE",
				"CAP_KILL",
				"CAP_NET_BIND_SERVICE"
			],
			"effective": [
				"CAP_AUDIT_WRITE",
				"CAP_KILL",
				"CAP_NET_BIND_SERVICE"
			],
			"permitted": [
				"CAP_AUDIT_WRITE",
				"CAP_KILL",
				"CAP_NET_BIND_SERVICE"
			]
		},
		"rlimits": [
			{
				"type": "RLIMIT_NOFILE",
				"hard": 1024,
				"soft": 1024
			}
		],
		"noNewPrivileges": true
	},
	"root": {
		"path": "rootfs",
		"readonly": true
	},
	"hostname": "rrun",
	"mounts": [
		{
			"destination": "/proc",
			"type": "proc",
			"source": "proc"
		},
		{
			"destination": "/dev",
			"type": "tmpfs",
			"source": "tmpfs",
			"options": [
				"nosuid",
				"strictatime",
				"mode=755",
				"size=65536k"
			]
		},
		{
			"destination": "/dev/pts",
			"type": "devpts",
			"source": "devpts",
			"options": [
				"nosuid",
				"noexec",
				"newinstance",
				"ptmxmode=0666",
				"mode=0620"@PTS_GID@
			]
		},
		{
			"destination": "/dev/shm",
			"type": "tmpfs",
			"source": "shm",
			"options": [
				"nosuid",
				"noexec",
				"nodev",
				"mode=1777",
				"size=65536k"
			]
		},
		{
			"destination": "/dev/mqueue",
			"type": "mqueue",
			"source": "mqueue",
			"options": [
				"nosuid",
				"noexec",
				"nodev"
			]
		},
@SYS@
		{
			"destination": "/sys/fs/cgroup",
			"type": "cgroup",
			"source": "cgroup",
			"options": [
				"nosuid",
				"noexec",
				"nodev",
				"relatime",
				"ro"
			]
		}
	],
	"linux": {
@LINUX@
		"namespaces": [
@NAMESPACES@
		],
		"maskedPaths": [
			"/proc/acpi",
			"/proc/asound",
			"/proc/kcore",
			"/proc/keys",
			"/proc/latency_stats",
			"/proc/timer_list",
			"/proc/timer_stats",
			"/proc/sched_debug",
			"/sys/firmware",
			"/proc/scsi"
		],
		"readonlyPaths": [
			"/proc/bus",
			"/proc/fs",
			"/proc/irq",
			"/proc/sys",
			"/proc/sysrq-trigger"
		]
	}
}
"#;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Kind, Namespaces, ids::Ids, process::ProcessPlan};
    use crate::spec::{Spec, read::document};

    fn spec(rootless: Option<Rootless>, cgroup_namespace: bool) -> Spec {
        let text = text(rootless, cgroup_namespace);
        assert!(!text.contains('@'), "{text}");
        document(text.as_bytes()).expect("readable")
    }

    #[test]
    fn the_default_is_accepted_by_the_plan() {
        let spec = spec(None, true);
        let plan = ProcessPlan::build(spec.process.as_deref()).expect("accepted");
        assert!(plan.terminal && plan.no_new_privileges && plan.warnings.is_empty());
        assert_eq!((plan.capabilities.inheritable, plan.capabilities.ambient), (0, 0));
        assert_eq!(plan.capabilities.bounding, 1 << 29 | 1 << 5 | 1 << 10);
        let linux = spec.linux.expect("linux");
        let namespaces = Namespaces::build(&linux.namespaces).expect("namespaces");
        assert!(namespaces.creates(Kind::Cgroup) && namespaces.creates(Kind::Network));
        assert_eq!(spec.mounts.len(), 7);
        assert!(linux.resources.is_some());
    }

    #[test]
    fn the_rootless_default_maps_the_user() {
        let spec = spec(Some(Rootless { uid: 1000, gid: 100 }), false);
        let linux = spec.linux.expect("linux");
        let namespaces = Namespaces::build(&linux.namespaces).expect("namespaces");
        assert!(!namespaces.has(Kind::Network) && !namespaces.has(Kind::Cgroup));
        let ids = Ids::build(&linux, &namespaces).expect("ids");
        assert_eq!(ids.host_root(), Some((1000, 100)));
        assert!(linux.resources.is_none());
        let sys = spec.mounts.iter().find(|mount| mount.destination == "/sys").expect("/sys");
        assert_eq!(sys.options.first().map(String::as_str), Some("rbind"));
        assert!(spec.mounts.iter().all(|mount| !mount.options.iter().any(|option| option == "gid=5")));
    }
}
