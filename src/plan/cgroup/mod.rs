//! `linux.cgroupsPath` and `linux.resources`: which cgroups, and what is written into which of their files.
//!
//! The same configuration becomes v1 or v2 files according to the hierarchy that holds the controller on
//! this machine. So a machine with hugetlb in the unified hierarchy and the rest in v1 ones ("hybrid") needs
//! no case of its own.

#![forbid(unsafe_code)]

mod delegation;
mod devices;
mod filter;
mod limits;
pub mod systemd;
mod variant;

pub use super::rootfs::clean;
pub use delegation::{below as delegated, owner};
pub use devices::{Access, DeviceRule, DeviceType, v1_devices};
pub use filter::{Instruction, program as device_program};

use crate::cgroup::layout::{Hierarchy, Layout, Version};
use crate::error::{Error, Result};
use crate::spec;
use limits::Limits;
use std::fmt;

/// Who makes cgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Driver {
    /// rrun, through the cgroup file system.
    Cgroupfs,
    /// systemd, over D-Bus: a transient scope.
    Systemd,
    /// No one: the container stays in the cgroups of the runtime.
    Disabled,
}

/// One value for one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// Controller whose hierarchy holds the file.
    pub controller: String,
    /// File name, without `/`.
    pub file: String,
    /// What is written; on several lines, one write(2) for each.
    pub value: String,
    /// Another file and value, for kernels that lack the first.
    pub otherwise: Option<(String, String)>,
    /// JSON path of the setting.
    pub at: String,
    /// Whether a new cgroup has this value anyway, so that it need not be written there.
    pub default: bool,
    /// Whether the file may be absent.
    pub optional: bool,
    /// Whether the first word of the file is kept in front of the value (the quota in `cpu.max`).
    pub keeps_first: bool,
    /// Refused where the memory in use is not below this many bytes; the name is of the error text.
    pub above_usage: Option<(&'static str, u64)>,
}

/// A cgroup in one hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The hierarchy.
    pub hierarchy: Hierarchy,
    /// Path below the mount point, beginning with `/`, without `.` and `..`.
    pub path: String,
    /// Controllers to enable on the way down; v2 only.
    pub enable: Vec<String>,
}

/// Everything about the cgroups of a container.
#[derive(Debug, Clone, PartialEq)]
pub struct CgroupPlan {
    /// Who makes them.
    pub driver: Driver,
    /// The scope, with systemd.
    pub unit: Option<systemd::Unit>,
    /// Where they are.
    pub places: Vec<Place>,
    /// Limits, in the order in which they are written.
    pub limits: Vec<Write>,
    /// Device rules in order, from a start where nothing is allowed; empty leaves the devices alone.
    pub devices: Vec<DeviceRule>,
    /// Whether a cgroup that may not be made is left out, as no path was asked for and the caller is not root.
    pub best_effort: bool,
    /// The runtime's id of the user who is given the cgroup; v2 only.
    pub owner: Option<u32>,
    /// Path of a cgroup below, in which the process begins and which the container manages; v2 only.
    pub delegated: Option<String>,
    /// What was ignored and why.
    pub warnings: Vec<String>,
}

/// Decides for `create`; [`owner`] and [`delegated`] are the caller's to add.
///
/// `rootless` says that the runtime has no power over the host: device rules are then left out, and so are
/// cgroups that may not be made, unless a path or a limit asks for them.
///
/// # Errors
/// A value that the specification or the kernel does not allow, or a limit of a controller that this machine
/// lacks (config-linux.md, "Unified", last paragraph).
pub fn build(
    linux: Option<&spec::Linux>,
    id: &str,
    layout: &Layout,
    driver: Driver,
    rootless: bool,
) -> Result<CgroupPlan> {
    let asked = linux.map_or("", |linux| linux.cgroups_path.as_str());
    let resources = linux.and_then(|linux| linux.resources.as_ref());
    let listed = resources.map_or(&[][..], |resources| &resources.devices);
    // Judged even where nothing is applied: an invalid rule is an error of the bundle.
    let devices = devices::rules(listed)?;
    if driver == Driver::Disabled {
        return Ok(CgroupPlan {
            driver,
            unit: None,
            places: Vec::new(),
            limits: Vec::new(),
            devices: Vec::new(),
            best_effort: false,
            owner: None,
            delegated: None,
            warnings: resources
                .map(|_| "linux.resources is not applied: cgroups are disabled".into())
                .into_iter()
                .collect(),
        });
    }
    let mut limits = Limits::new(layout, true);
    if let Some(resources) = resources {
        limits.add(resources)?;
    }
    let Limits { writes: limits, warnings, .. } = limits;
    let devices = if rootless { Vec::new() } else { devices };
    let places: Vec<Place> =
        layout.hierarchies.iter().map(|h| place(h, asked, id, &limits, layout.is_v2())).collect();
    if !devices.is_empty() && layout.find("devices").is_some() {
        v1_devices(&devices)?;
    } else if !devices.is_empty() && !layout.hierarchies.iter().any(|h| h.version == Version::V2) {
        return Err(Error::new(
            "neither the devices cgroup controller nor cgroup v2 is mounted, so device access cannot be limited",
        )
        .remedy("mount one, or disable cgroups"));
    }
    Ok(CgroupPlan {
        driver,
        unit: None,
        places,
        limits,
        devices,
        best_effort: rootless && asked.is_empty(),
        owner: None,
        delegated: None,
        warnings,
    })
}

/// Decides for `update`: only what is given changes, device rules not at all.
///
/// On v2, `memory.swap` needs `memory.limit` beside it, as it is the sum of the two: the caller adds the one
/// in force.
///
/// # Errors
/// Those of [`build`].
pub fn update(resources: &spec::Resources, layout: &Layout) -> Result<Vec<Write>> {
    let mut limits = Limits::new(layout, false);
    limits.add(resources)?;
    Ok(limits.writes)
}

fn place(hierarchy: &Hierarchy, asked: &str, id: &str, limits: &[Write], only_v2: bool) -> Place {
    let own = match only_v2 {
        // The runtime's own cgroup has processes, so v2 lets it have no children with controllers.
        true => hierarchy.own.rsplit_once('/').map_or("", |(parent, _)| parent),
        false => &hierarchy.own,
    };
    let path = match asked {
        "" => clean(&format!("{own}/{id}")),
        _ if asked.starts_with('/') => clean(asked),
        // Cleaned by itself first, so that `..` does not leave the runtime's own cgroup either.
        _ => clean(&format!("{own}{}", clean(asked))),
    };
    let enable = match (hierarchy.version, only_v2) {
        (Version::V1, _) => Vec::new(),
        (Version::V2, true) => hierarchy.controllers.clone(),
        // A hybrid machine may leave controllers in v2 for a purpose: only what this container needs.
        (Version::V2, false) => {
            let needed = |name: &&String| limits.iter().any(|write| write.controller == **name);
            hierarchy.controllers.iter().filter(needed).cloned().collect()
        }
    };
    Place { hierarchy: hierarchy.clone(), path, enable }
}

/// Takes apart the values of `exec --cgroup`: `PATH`, once, or `CONTROLLER[,CONTROLLER]:PATH`, repeatable.
///
/// # Errors
/// An empty or doubled controller, or a path without one beside other arguments.
pub fn sub_cgroups(args: &[String]) -> Result<Vec<(Option<&str>, &str)>> {
    let mut subs: Vec<(Option<&str>, &str)> = Vec::new();
    for arg in args {
        let invalid = |why: &str| Err(Error::new(format!("invalid --cgroup argument: {arg} ({why})")));
        let Some((names, path)) = arg.split_once(':') else {
            if args.len() != 1 {
                return invalid("missing <controller>: prefix");
            }
            return Ok(vec![(None, arg)]);
        };
        for name in names.split(',') {
            if name.is_empty() {
                return invalid("empty <controller> prefix");
            }
            if subs.iter().any(|(known, _)| *known == Some(name)) {
                let text =
                    format!("invalid --cgroup argument(s): controller {name} specified multiple times");
                return Err(Error::new(text));
            }
            subs.push((Some(name), path));
        }
    }
    Ok(subs)
}

impl fmt::Display for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {:?}", self.file, self.value)
    }
}

impl fmt::Display for CgroupPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.driver == Driver::Disabled {
            return writeln!(f, "cgroup: none, disabled");
        }
        if let Some(unit) = &self.unit {
            writeln!(f, "systemd{} {}", if unit.user { " --user" } else { "" }, unit.name)?;
            for (name, value) in &unit.properties {
                writeln!(f, "property {name} = {value:?}")?;
            }
        }
        for place in &self.places {
            let mount = place.hierarchy.mount.display();
            write!(f, "cgroup {mount}{}", place.path)?;
            if !place.enable.is_empty() {
                write!(f, " enabling {}", place.enable.join(" "))?;
            }
            writeln!(f)?;
        }
        for limit in &self.limits {
            writeln!(f, "limit {limit}{}", if limit.default { " if the cgroup is not new" } else { "" })?;
        }
        for rule in &self.devices {
            writeln!(f, "device {rule}")?;
        }
        if let Some(owner) = self.owner {
            writeln!(f, "cgroup owner {owner}")?;
        }
        if let Some(path) = &self.delegated {
            writeln!(f, "cgroup delegated {path}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::spec::read::document;

    pub(crate) fn hierarchy(version: Version, controllers: &[&str], mount: &str, own: &str) -> Hierarchy {
        let controllers = controllers.iter().map(|&c| c.into()).collect();
        Hierarchy { version, controllers, mount: mount.into(), own: own.into() }
    }

    pub(crate) fn v1() -> Layout {
        let names = ["cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids"];
        let mut hierarchies: Vec<_> = names
            .iter()
            .map(|name| hierarchy(Version::V1, &[name], &format!("/sys/fs/cgroup/{name}"), "/own"))
            .collect();
        hierarchies.push(hierarchy(Version::V1, &["name=systemd"], "/sys/fs/cgroup/systemd", "/own"));
        hierarchies.push(hierarchy(Version::V2, &["hugetlb"], "/sys/fs/cgroup/unified", "/"));
        Layout { hierarchies }
    }

    pub(crate) fn v2() -> Layout {
        let controllers = ["cpuset", "cpu", "io", "memory", "hugetlb", "pids", "rdma", "misc"];
        Layout { hierarchies: vec![hierarchy(Version::V2, &controllers, "/sys/fs/cgroup", "/user/session")] }
    }

    pub(crate) fn plan(json: &str, layout: &Layout) -> Result<CgroupPlan> {
        let linux: spec::Linux = document(json.as_bytes()).expect("valid JSON");
        build(Some(&linux), "c1", layout, Driver::Cgroupfs, false)
    }

    fn path(asked: &str, layout: &Layout) -> String {
        let plan = plan(&format!("{{\"cgroupsPath\":{asked:?}}}"), layout).expect("accepted");
        plan.places[0].path.clone()
    }

    #[test]
    fn a_path_never_leaves_its_hierarchy() {
        assert_eq!(path("/../../x", &v1()), "/x");
        assert_eq!(path("/a/./b/../c", &v1()), "/a/c");
        assert_eq!(path("../../x", &v1()), "/own/x");
        assert_eq!(path("a:b:c", &v1()), "/own/a:b:c");
        assert_eq!(path("/", &v1()), "/");
    }

    #[test]
    fn without_a_path_it_is_the_id_in_the_runtimes_own_cgroup() {
        assert_eq!(path("", &v1()), "/own/c1");
        assert_eq!(path("", &v2()), "/user/c1");
        let plan = plan("{}", &v1()).expect("accepted");
        assert_eq!(plan.places.last().map(|p| p.path.as_str()), Some("/c1"));
    }

    #[test]
    fn v2_controllers_are_enabled_as_needed() {
        let plain = plan("{}", &v1()).expect("accepted");
        assert!(plain.places.iter().all(|place| place.enable.is_empty()));
        let huge = r#"{"resources":{"hugepageLimits":[{"pageSize":"2MB","limit":4096}]}}"#;
        assert_eq!(plan(huge, &v1()).expect("accepted").places[9].enable, ["hugetlb"]);
        assert_eq!(plan("{}", &v2()).expect("accepted").places[0].enable.len(), 8);
    }

    #[test]
    fn a_disabled_driver_makes_nothing_but_still_judges() {
        let linux = |json: &str| document::<spec::Linux>(json.as_bytes()).expect("valid JSON");
        let good = linux(r#"{"resources":{"pids":{"limit":3}}}"#);
        let plan = build(Some(&good), "c", &v1(), Driver::Disabled, false).expect("accepted");
        assert!(plan.places.is_empty() && plan.limits.is_empty() && plan.warnings.len() == 1);
        let bad = linux(r#"{"resources":{"devices":[{"type":"z","access":"r"}]}}"#);
        build(Some(&bad), "c", &v1(), Driver::Disabled, false).expect_err("an invalid type");
    }

    #[test]
    fn sub_cgroups_are_taken_apart() {
        let split = |args: &[&str]| {
            let args: Vec<String> = args.iter().map(|&arg| arg.into()).collect();
            sub_cgroups(&args).map(|subs| format!("{subs:?}")).map_err(|e| e.to_string())
        };
        assert_eq!(split(&["a/b"]).as_deref(), Ok("[(None, \"a/b\")]"));
        let two = "[(Some(\"cpu\"), \"x\"), (Some(\"cpuacct\"), \"x\"), (Some(\"pids\"), \"y\")]";
        assert_eq!(split(&["cpu,cpuacct:x", "pids:y"]).as_deref(), Ok(two));
        for bad in [&["a", "b"][..], &[":x"], &["cpu:x", "cpu:y"], &["cpu,:x"]] {
            split(bad).expect_err("invalid");
        }
    }

    #[test]
    fn a_plan_prints_a_line_for_each_decision() {
        let text = plan(r#"{"resources":{"pids":{"limit":9}}}"#, &v1()).expect("accepted").to_string();
        assert!(text.contains("cgroup /sys/fs/cgroup/pids/own/c1\n"), "{text}");
        assert!(text.contains("limit pids.max = \"9\"\n"), "{text}");
        assert!(text.contains("device allow c 1:3 rwm\n"), "{text}");
    }
}
