//! Hosts to plan for: every layout of cgroups, with and without privileges and systemd.

#![forbid(unsafe_code)]

use rrun::cgroup::layout::{Hierarchy, Layout, Version};
use rrun::host::Host;
use rrun::plan::Request;
use rrun::plan::cgroup::Driver;
use rrun::plan::cgroup::systemd::Systemd;
use std::path::Path;

fn hierarchy(version: Version, controllers: &[&str], mount: &str) -> Hierarchy {
    let controllers = controllers.iter().map(|&name| name.to_owned()).collect();
    Hierarchy { version, controllers, mount: mount.into(), own: "/own/here".into() }
}

pub fn v1() -> Layout {
    let set = |names: &[&str]| hierarchy(Version::V1, names, &format!("/sys/fs/cgroup/{}", names.join(",")));
    let sets: [&[&str]; 9] = [
        &["memory"],
        &["cpu", "cpuacct"],
        &["cpuset"],
        &["devices"],
        &["blkio"],
        &["pids"],
        &["net_cls", "net_prio"],
        &["rdma"],
        &["name=systemd"],
    ];
    Layout { hierarchies: sets.map(set).into() }
}

pub fn v2() -> Layout {
    let all = ["cpuset", "cpu", "io", "memory", "hugetlb", "pids", "rdma", "misc"];
    Layout { hierarchies: vec![hierarchy(Version::V2, &all, "/sys/fs/cgroup")] }
}

pub fn hybrid() -> Layout {
    let mut layout = v1();
    layout.hierarchies.push(hierarchy(Version::V2, &["hugetlb"], "/sys/fs/cgroup/unified"));
    layout
}

/// A create without any flag.
pub fn request(driver: Driver) -> Request<'static> {
    Request {
        id: "fuzzed",
        bundle: Path::new("/bundle"),
        driver,
        no_pivot: false,
        no_new_keyring: false,
        preserve_fds: 0,
        environment: &[],
        rootless: None,
    }
}

/// Every machine, and who makes cgroups there.
pub const COUNT: usize = 6;

pub fn machine(number: usize) -> (Host, Driver) {
    let systemd = |user| Systemd {
        version: 252,
        user,
        control_group: if user { "/user.slice/user-1000.slice/user@1000.service" } else { "" }.into(),
        drivers: "Character devices:\n  1 mem\n136 pts\n\nBlock devices:\n  8 sd\n".into(),
    };
    let (cgroup, driver, euid, systemd) = match number {
        0 => (v1(), Driver::Cgroupfs, 0, None),
        1 => (v2(), Driver::Cgroupfs, 0, None),
        2 => (hybrid(), Driver::Systemd, 0, Some(systemd(false))),
        3 => (v2(), Driver::Systemd, 1000, Some(systemd(true))),
        4 => (Layout::default(), Driver::Disabled, 1000, None),
        _ => (v2(), Driver::Systemd, 0, Some(systemd(false))),
    };
    // One has the security modules, and one has few capabilities to give away.
    let host = Host {
        euid,
        egid: euid,
        in_user_namespace: number == 3,
        cgroup,
        systemd,
        bounding: if number == 2 { 0xff } else { u64::MAX },
        apparmor: number == 1,
        selinux: number == 1,
    };
    (host, driver)
}
