//! `check-config`: whether this kernel can do it.

#![forbid(unsafe_code)]

use super::At;
use super::table::align;
use crate::error::{Context as _, Error, Kind, Result};
use clap::Args;
use flate2::read::MultiGzDecoder;
use rustix::system::uname;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::PathBuf;

/// Show which features that containers want this kernel was built with
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rrunctl check-config
  rrunctl check-config /boot/config-6.1.0-20-amd64

Exit code 1: something necessary is missing.")]
pub(super) struct CheckConfig {
    /// The kernel's configuration [default: /proc/config.gz or /boot/config-RELEASE]
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
}

/// What each is for, and the options of it.
const GROUPS: &[(&str, bool, &[&str])] = &[
    ("Namespaces", true, &["NAMESPACES", "UTS_NS", "IPC_NS", "PID_NS", "NET_NS"]),
    (
        "Control groups",
        true,
        &["CGROUPS", "CGROUP_SCHED", "CPUSETS", "MEMCG", "CGROUP_FREEZER", "CGROUP_PIDS"],
    ),
    (
        "Processes",
        true,
        &["SECCOMP", "SECCOMP_FILTER", "POSIX_MQUEUE", "KEYS", "UNIX98_PTYS", "EPOLL", "SIGNALFD"],
    ),
    ("Images", true, &["OVERLAY_FS", "TMPFS", "TMPFS_XATTR"]),
    (
        "Networks",
        true,
        &[
            "VETH",
            "BRIDGE",
            "NF_CONNTRACK",
            "NF_NAT",
            "NF_TABLES",
            "NF_TABLES_IPV4",
            "NFT_CT",
            "NFT_NAT",
            "NFT_MASQ",
            "NFT_FIB_IPV4",
        ],
    ),
    ("Optional: namespaces", false, &["USER_NS", "TIME_NS", "CHECKPOINT_RESTORE"]),
    (
        "Optional: control groups",
        false,
        &[
            "CGROUP_CPUACCT",
            "CGROUP_DEVICE",
            "CGROUP_BPF",
            "BLK_CGROUP",
            "BLK_DEV_THROTTLING",
            "CGROUP_HUGETLB",
            "CGROUP_PERF",
            "CGROUP_RDMA",
            "FAIR_GROUP_SCHED",
            "CFS_BANDWIDTH",
            "RT_GROUP_SCHED",
        ],
    ),
    ("Optional: security", false, &["SECURITY_APPARMOR", "SECURITY_SELINUX", "SECURITY_LANDLOCK"]),
    (
        "Optional: networks",
        false,
        &[
            "NF_TABLES_IPV6",
            "NFT_FIB_IPV6",
            "BRIDGE_NETFILTER",
            "BRIDGE_VLAN_FILTERING",
            "MACVLAN",
            "IPVLAN",
            "VXLAN",
            "TUN",
        ],
    ),
    (
        "Optional: file systems",
        false,
        &["EXT4_FS", "EXT4_FS_POSIX_ACL", "EXT4_FS_SECURITY", "XFS_FS", "BTRFS_FS", "EROFS_FS", "FUSE_FS"],
    ),
];

impl CheckConfig {
    pub(super) fn run(self, at: &At) -> Result<()> {
        let release = uname().release().to_string_lossy().into_owned();
        let places = match self.file {
            Some(file) => vec![file],
            None => vec![
                PathBuf::from("/proc/config.gz"),
                format!("/boot/config-{release}").into(),
                format!("/usr/lib/modules/{release}/config").into(),
            ],
        };
        let Some(path) = places.iter().find(|path| path.exists()) else {
            let tried: Vec<_> = places.iter().map(|path| path.display().to_string()).collect();
            return Err(Error::not_found(format!("no configuration of the kernel at {}", tried.join(" ")))
                .remedy("modprobe configs, or name the file"));
        };
        let config = read(path).context(|| format!("read {}", path.display()))?;
        let (text, missing) = report(&config);
        at.print(format_args!("Kernel {release}, {}\n{text}", path.display()))?;
        if missing.is_empty() {
            return Ok(());
        }
        Err(Error::new(Kind::Unsupported, format!("the kernel was built without {}", missing.join(" "))))
    }
}

fn read(path: &PathBuf) -> std::io::Result<String> {
    if path.extension().is_none_or(|extension| extension != "gz") {
        return fs::read_to_string(path);
    }
    let mut text = String::new();
    // It has about 300 KB.
    MultiGzDecoder::new(File::open(path)?).take(16 << 20).read_to_string(&mut text)?;
    Ok(text)
}

/// The table, and what is necessary and not there.
fn report(config: &str) -> (String, Vec<String>) {
    let mut text = String::new();
    let mut missing = Vec::new();
    for (group, necessary, options) in GROUPS {
        let _ = writeln!(text, "\n{group}");
        for option in *options {
            let name = format!("CONFIG_{option}");
            let set = config.lines().filter_map(|line| line.split_once('=')).find(|(key, _)| *key == name);
            let word = match set.map(|(_, value)| value) {
                Some("y") => "built in",
                Some("m") => "module",
                _ => "missing",
            };
            if *necessary && word == "missing" {
                missing.push(name.clone());
            }
            let _ = writeln!(text, "  {name}\t{word}");
        }
    }
    (align(&text), missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_necessary_and_missing_is_told() {
        let all: String = GROUPS
            .iter()
            .filter(|(_, necessary, _)| *necessary)
            .flat_map(|(_, _, options)| options.iter().map(|option| format!("CONFIG_{option}=m\n")))
            .collect();
        let (text, missing) = report(&all);
        assert!(missing.is_empty() && text.contains("  CONFIG_OVERLAY_FS    module\n"), "{text}");
        assert!(text.contains("  CONFIG_USER_NS              missing\n"), "{text}");
        let (_, missing) = report(&all.replace("CONFIG_VETH=m", "# CONFIG_VETH is not set"));
        assert_eq!(missing, ["CONFIG_VETH"]);
    }
}
