//! `rrun check`: what this kernel and this machine give a container, and what to do where they do not.
//!
//! By use, never by version number: distributions backport, and outer containers and security modules take
//! away. Nothing is changed; namespaces that are made end with the child that was in them.

#![forbid(unsafe_code)]

use crate::plan::Kind;
use crate::spec::write::writes;
use crate::sys::{probe, task};
use rustix::io::Errno;
use std::fmt;
use std::fs;
use std::path::Path;

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Which part of the machine.
    group: &'static str,
    name: String,
    available: bool,
    /// What more there is to know.
    detail: Option<String>,
    /// What to do, if it is not available.
    remedy: Option<&'static str>,
}
writes!(Item {
    group = "group",
    name = "name",
    available = "available",
    detail = "detail",
    remedy = "remedy"
});

impl Item {
    fn new(group: &'static str, name: impl Into<String>, available: bool, remedy: &'static str) -> Self {
        let remedy = (!available && !remedy.is_empty()).then_some(remedy);
        Self { group, name: name.into(), available, detail: None, remedy }
    }

    fn detail(self, detail: Option<String>) -> Self {
        Self { detail, ..self }
    }
}

/// Everything that was looked at; `Display` is a table, `Serialize` an array.
#[derive(Debug, Clone)]
pub struct Report {
    /// The items, in groups.
    pub items: Vec<Item>,
}

impl serde::Serialize for Report {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        self.items.serialize(s)
    }
}

/// Looks at everything.
pub fn run() -> Report {
    let mut items = kernel();
    items.extend(namespaces());
    items.extend(cgroups(&read("/proc/self/mountinfo")));
    items.extend(seccomp());
    items.extend(security());
    items.extend(rights());
    items.extend(machine());
    Report { items }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn kernel() -> Vec<Item> {
    let outer = "needs a newer kernel, or an outer seccomp profile that allows it";
    let idmap = match probe::idmapped_mounts() {
        None => Item::new("kernel", "idmapped mounts", false, "run as root to find out"),
        Some(available) => Item::new("kernel", "idmapped mounts", available, "needs Linux 5.12"),
    };
    vec![
        Item::new("kernel", "openat2", probe::openat2(), outer),
        Item::new("kernel", "clone3", probe::clone3(), outer),
        Item::new("kernel", "CLONE_INTO_CGROUP", probe::clone_into_cgroup(), outer),
        Item::new("kernel", "pidfd", probe::pidfd(), outer),
        Item::new("kernel", "close_range", probe::close_range(), outer),
        Item::new("kernel", "new mount API", probe::new_mount_api(), outer),
        Item::new("kernel", "mount_setattr", probe::mount_setattr(), outer),
        idmap,
    ]
}

/// Each kind alone as root, inside a user namespace otherwise, which is how a container would get it.
fn namespaces() -> Vec<Item> {
    let user = Kind::User.flag();
    let with = if rustix::process::geteuid().is_root() { 0 } else { user };
    Kind::ALL
        .into_iter()
        .map(|kind| {
            let made = probe::namespaces(kind.flag() | with);
            let remedy = match made.map_err(|e| e.errno) {
                Ok(()) => "",
                Err(Errno::NOSPC | Errno::USERS) => "raise the limit in /proc/sys/user/max_*_namespaces",
                Err(Errno::INVAL) => "the kernel was built without it",
                Err(_) => user_namespace_remedy(),
            };
            let item = Item::new("namespace", kind.name(), made.is_ok(), remedy);
            item.detail(made.err().map(|e| crate::error::strerror(e.errno)))
        })
        .collect()
}

/// The switches with which distributions forbid user namespaces to others than root.
fn user_namespace_remedy() -> &'static str {
    if read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns").trim() == "1" {
        "sysctl kernel.apparmor_restrict_unprivileged_userns=0, or an AppArmor profile for rrun"
    } else if read("/proc/sys/kernel/unprivileged_userns_clone").trim() == "0" {
        "sysctl kernel.unprivileged_userns_clone=1"
    } else if read("/proc/sys/user/max_user_namespaces").trim() == "0" {
        "sysctl user.max_user_namespaces=15000"
    } else {
        "needs CAP_SYS_ADMIN, or a security policy that allows it"
    }
}

/// From mountinfo: fifth field, and type and options behind the separator.
fn cgroups(mountinfo: &str) -> Vec<Item> {
    let mut v1 = Vec::new();
    let mut v2 = None;
    for line in mountinfo.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let (kind, options) = (right.split(' ').next(), right.split(' ').next_back().unwrap_or_default());
        let at = left.split(' ').nth(4).unwrap_or_default();
        match kind {
            Some("cgroup2") => v2 = v2.or(Some(at)),
            // Controllers are among the options of the file system, beside general ones.
            Some("cgroup") => v1.extend(options.split(',').filter(|option| CONTROLLERS.contains(option))),
            _ => {}
        }
    }
    let v2_item = Item::new("cgroup", "v2", v2.is_some(), "mount -t cgroup2 cgroup2 /sys/fs/cgroup");
    let v2 = v2.map(|at| {
        let controllers = read(&format!("{at}/cgroup.controllers"));
        format!("{at}: {}", controllers.trim()).trim_end_matches([':', ' ']).to_owned()
    });
    let v1_item = Item::new("cgroup", "v1", !v1.is_empty(), "");
    vec![v2_item.detail(v2), v1_item.detail((!v1.is_empty()).then(|| v1.join(" ")))]
}

const CONTROLLERS: [&str; 14] = [
    "blkio",
    "cpu",
    "cpuacct",
    "cpuset",
    "devices",
    "freezer",
    "hugetlb",
    "memory",
    "misc",
    "net_cls",
    "net_prio",
    "perf_event",
    "pids",
    "rdma",
];

fn seccomp() -> Vec<Item> {
    // linux/seccomp.h
    let actions = [
        ("KILL_PROCESS", 0x8000_0000),
        ("KILL_THREAD", 0),
        ("TRAP", 0x0003_0000),
        ("ERRNO", 0x0005_0000),
        ("USER_NOTIF", 0x7fc0_0000),
        ("TRACE", 0x7ff0_0000),
        ("LOG", 0x7ffc_0000),
        ("ALLOW", 0x7fff_0000),
    ];
    // WAIT_KILLABLE_RECV is refused without NEW_LISTENER.
    let flags = [
        ("TSYNC", 0x01),
        ("LOG", 0x02),
        ("SPEC_ALLOW", 0x04),
        ("NEW_LISTENER", 0x08),
        ("WAIT_KILLABLE_RECV", 0x28),
    ];
    let remedy = "needs a newer kernel with CONFIG_SECCOMP_FILTER";
    let actions = actions.into_iter().map(|(name, action)| {
        Item::new("seccomp", format!("action {name}"), probe::seccomp_action(action), remedy)
    });
    let flags = flags
        .into_iter()
        .map(|(name, flag)| Item::new("seccomp", format!("flag {name}"), probe::seccomp_flags(flag), remedy));
    actions.chain(flags).collect()
}

fn security() -> Vec<Item> {
    let apparmor = read("/sys/module/apparmor/parameters/enabled").trim() == "Y";
    let selinux = Path::new("/sys/fs/selinux/enforce").exists();
    vec![
        Item::new("security", "AppArmor", apparmor, "boot with apparmor=1 security=apparmor to use profiles"),
        Item::new("security", "SELinux", selinux, "boot with selinux=1 security=selinux to use labels"),
    ]
}

fn rights() -> Vec<Item> {
    let effective = task::capget().map_or(0, |sets| sets.effective);
    [
        ("CAP_SYS_ADMIN", "without it, containers need a user namespace"),
        ("CAP_SYS_RESOURCE", "without it, limits cannot be raised nor oom_score_adj lowered"),
        ("CAP_MKNOD", "without it, devices are bound from the host"),
        ("CAP_NET_ADMIN", "without it, network devices cannot be moved"),
    ]
    .into_iter()
    .map(|(name, remedy)| {
        let bit = crate::plan::capabilities::bit(name).unwrap_or(0);
        Item::new("rights", name, effective & bit != 0, remedy)
    })
    .collect()
}

fn machine() -> Vec<Item> {
    let filesystems = read("/proc/filesystems");
    let overlay = filesystems.lines().any(|line| line.split_whitespace().next_back() == Some("overlay"));
    let resctrl = crate::rdt::mount_point();
    let user = crate::cgroup::systemd::is_user().unwrap_or(false);
    let systemd = crate::cgroup::systemd::Connection::open(user).and_then(|mut systemd| systemd.facts());
    let found =
        systemd.as_ref().ok().map(|s| format!("{}{}", s.version, if user { ", of the user" } else { "" }));
    let mut items = vec![
        Item::new("machine", "overlayfs", overlay, "modprobe overlay"),
        Item::new("machine", "systemd", found.is_some(), "without --systemd-cgroup none is needed")
            .detail(found),
        Item::new("machine", "resctrl", resctrl.is_ok(), "mount -t resctrl resctrl /sys/fs/resctrl"),
    ];
    for (name, remedy) in [
        ("newuidmap", "install the package uidmap or shadow-utils to map more than one user without root"),
        ("newgidmap", "install the package uidmap or shadow-utils to map more than one group without root"),
        ("criu", "install criu for checkpoint and restore"),
    ] {
        let found = find_program(&std::env::var("PATH").unwrap_or_default(), name);
        items.push(Item::new("machine", name, found.is_some(), remedy).detail(found));
    }
    items
}

fn find_program(path: &str, name: &str) -> Option<String> {
    path.split(':').filter(|directory| directory.starts_with('/')).find_map(|directory| {
        let file = format!("{directory}/{name}");
        rustix::fs::access(&file, rustix::fs::Access::EXEC_OK).is_ok().then_some(file)
    })
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.items.iter().map(|item| item.name.len()).max().unwrap_or(0);
        for item in &self.items {
            let state = if item.available { "yes" } else { "no" };
            let mut line = format!("{:<10} {:<width$} {state:<3}", item.group, item.name);
            if let Some(detail) = &item.detail {
                line += &format!(" {detail}");
            }
            if let Some(remedy) = item.remedy {
                line += &format!(" ({remedy})");
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_is_a_table_and_an_array() {
        let report = run();
        let json = serde_json::to_value(&report).expect("JSON");
        assert_eq!(json.as_array().map(Vec::len), Some(report.items.len()));
        assert_eq!(json.pointer("/0/name"), Some(&"openat2".into()));
        assert_eq!(report.to_string().lines().count(), report.items.len());
        let allow = report.items.iter().find(|item| item.name == "action ALLOW").expect("an item");
        assert!(allow.available && allow.remedy.is_none());
        assert!(report.items.iter().filter(|item| item.available).all(|item| item.remedy.is_none()));
    }

    #[test]
    fn cgroups_are_read_from_mountinfo() {
        let text = "1 0 0:1 / /sys/fs/cgroup/cpu rw shared:1 - cgroup cgroup rw,cpu,cpuacct\n\
                    2 0 0:2 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
                    3 0 0:3 / /nowhere/unified rw - cgroup2 cgroup2 rw,nsdelegate\n";
        let lines = Report { items: cgroups(text) }.to_string();
        assert_eq!(lines, "cgroup     v2 yes /nowhere/unified\ncgroup     v1 yes cpu cpuacct\n");
        assert!(cgroups("").iter().all(|item| !item.available));
    }

    #[test]
    fn programs_are_found_on_absolute_elements_only() {
        assert_eq!(find_program("::bin:/bin", "sh").as_deref(), Some("/bin/sh"));
        assert_eq!(find_program("", "sh"), None);
    }
}
