//! config-linux.md on cgroups: their path, their owner, and every limit.

#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{Check, check};
use crate::case::{Case, Container, Verdict, Why, expect, expect_eq, fails, lacks, own, push};

const WAIT: &[&str] = &["/probe", "probe", "wait"];

/// A property, the part of `linux.resources` that sets it, and where it is seen: the controller and
/// the file of v1 and of v2, each with the text to expect. An empty file is a property that this
/// version of cgroups does not have.
struct Limit {
    clause: &'static str,
    name: &'static str,
    resources: fn(&Case) -> Result<Value, Why>,
    v1: (&'static str, &'static str, &'static str),
    v2: (&'static str, &'static str, &'static str),
}

const LIMITS: &[Limit] = &[
    Limit {
        clause: "configLinuxMemory.limit",
        name: "memory-limit",
        resources: |_| Ok(json!({"memory": {"limit": 67_108_864}})),
        v1: ("memory", "memory.limit_in_bytes", "67108864"),
        v2: ("memory", "memory.max", "67108864"),
    },
    Limit {
        clause: "configLinuxMemory.reservation",
        name: "memory-reservation",
        resources: |_| Ok(json!({"memory": {"reservation": 33_554_432}})),
        v1: ("memory", "memory.soft_limit_in_bytes", "33554432"),
        v2: ("memory", "memory.low", "33554432"),
    },
    Limit {
        clause: "configLinuxMemory.swap",
        name: "memory-swap",
        resources: |_| Ok(json!({"memory": {"limit": 67_108_864, "swap": 134_217_728}})),
        v1: ("memory", "memory.memsw.limit_in_bytes", "134217728"),
        v2: ("memory", "memory.swap.max", "67108864"),
    },
    Limit {
        clause: "configLinuxMemory.unlimited",
        name: "memory-unlimited",
        resources: |_| Ok(json!({"memory": {"limit": -1}})),
        v1: ("memory", "memory.limit_in_bytes", "9223372036854771712"),
        v2: ("memory", "memory.max", "max"),
    },
    Limit {
        clause: "configLinuxMemory.swappiness",
        name: "memory-swappiness",
        resources: |_| Ok(json!({"memory": {"swappiness": 17}})),
        v1: ("memory", "memory.swappiness", "17"),
        v2: ("memory", "", ""),
    },
    Limit {
        clause: "configLinuxMemory.disableOOMKiller",
        name: "memory-disableOOMKiller",
        resources: |_| Ok(json!({"memory": {"disableOOMKiller": true}})),
        v1: ("memory", "memory.oom_control", "oom_kill_disable 1 *"),
        v2: ("memory", "", ""),
    },
    Limit {
        clause: "configLinuxCPU.shares",
        name: "cpu-shares",
        resources: |_| Ok(json!({"cpu": {"shares": 512}})),
        v1: ("cpu", "cpu.shares", "512"),
        // How a share is converted, two generations of runtimes do differently.
        v2: ("cpu", "cpu.weight", "20|59"),
    },
    Limit {
        clause: "configLinuxCPU.quota",
        name: "cpu-quota",
        resources: |_| Ok(json!({"cpu": {"quota": 40_000}})),
        v1: ("cpu", "cpu.cfs_quota_us", "40000"),
        v2: ("cpu", "cpu.max", "40000 100000"),
    },
    Limit {
        clause: "configLinuxCPU.period",
        name: "cpu-period",
        resources: |_| Ok(json!({"cpu": {"quota": 40_000, "period": 50_000}})),
        v1: ("cpu", "cpu.cfs_period_us", "50000"),
        v2: ("cpu", "cpu.max", "40000 50000"),
    },
    Limit {
        clause: "configLinuxCPU.burst",
        name: "cpu-burst",
        resources: |_| Ok(json!({"cpu": {"quota": 40_000, "period": 50_000, "burst": 20_000}})),
        v1: ("cpu", "cpu.cfs_burst_us", "20000"),
        v2: ("cpu", "cpu.max.burst", "20000"),
    },
    Limit {
        clause: "configLinuxCPU.idle",
        name: "cpu-idle",
        resources: |_| Ok(json!({"cpu": {"idle": 1}})),
        v1: ("cpu", "cpu.idle", "1"),
        v2: ("cpu", "cpu.idle", "1"),
    },
    Limit {
        clause: "configLinuxCPU.cpus",
        name: "cpu-cpus",
        resources: |_| Ok(json!({"cpu": {"cpus": "0"}})),
        v1: ("cpuset", "cpuset.cpus", "0"),
        v2: ("cpuset", "cpuset.cpus", "0"),
    },
    Limit {
        clause: "configLinuxCPU.mems",
        name: "cpu-mems",
        resources: |_| Ok(json!({"cpu": {"mems": "0"}})),
        v1: ("cpuset", "cpuset.mems", "0"),
        v2: ("cpuset", "cpuset.mems", "0"),
    },
    Limit {
        clause: "configLinuxPIDS.limit",
        name: "pids-limit",
        resources: |_| Ok(json!({"pids": {"limit": 77}})),
        v1: ("pids", "pids.max", "77"),
        v2: ("pids", "pids.max", "77"),
    },
    Limit {
        clause: "configLinuxPIDS.unlimited",
        name: "pids-unlimited",
        resources: |_| Ok(json!({"pids": {"limit": -1}})),
        v1: ("pids", "pids.max", "max"),
        v2: ("pids", "pids.max", "max"),
    },
    Limit {
        clause: "configLinuxBlockIO.weight",
        name: "blockIO-weight",
        resources: |_| Ok(json!({"blockIO": {"weight": 300}})),
        v1: ("blkio", "blkio.bfq.weight|blkio.weight", "300|default 300"),
        v2: ("io", "io.bfq.weight|io.weight", "300|default 300|default 2930"),
    },
    Limit {
        clause: "configLinuxBlockIO.throttleReadBpsDevice",
        name: "blockIO-read-bps",
        resources: |case| throttle(case, "throttleReadBpsDevice"),
        v1: ("blkio", "blkio.throttle.read_bps_device", "* 1048576"),
        v2: ("io", "io.max", "*rbps=1048576*"),
    },
    Limit {
        clause: "configLinuxBlockIO.throttleWriteBpsDevice",
        name: "blockIO-write-bps",
        resources: |case| throttle(case, "throttleWriteBpsDevice"),
        v1: ("blkio", "blkio.throttle.write_bps_device", "* 1048576"),
        v2: ("io", "io.max", "*wbps=1048576*"),
    },
    Limit {
        clause: "configLinuxBlockIO.throttleReadIOPSDevice",
        name: "blockIO-read-iops",
        resources: |case| throttle(case, "throttleReadIOPSDevice"),
        v1: ("blkio", "blkio.throttle.read_iops_device", "* 1048576"),
        v2: ("io", "io.max", "*riops=1048576*"),
    },
    Limit {
        clause: "configLinuxBlockIO.throttleWriteIOPSDevice",
        name: "blockIO-write-iops",
        resources: |case| throttle(case, "throttleWriteIOPSDevice"),
        v1: ("blkio", "blkio.throttle.write_iops_device", "* 1048576"),
        v2: ("io", "io.max", "*wiops=1048576*"),
    },
    Limit {
        clause: "configLinuxHugePageLimits.limit",
        name: "hugepages",
        resources: |_| Ok(json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 4_194_304}]})),
        v1: ("hugetlb", "hugetlb.2MB.limit_in_bytes", "4194304"),
        v2: ("hugetlb", "hugetlb.2MB.max", "4194304"),
    },
    Limit {
        clause: "configLinuxNetwork.classID",
        name: "network-classID",
        resources: |_| Ok(json!({"network": {"classID": 1_048_577}})),
        v1: ("net_cls", "net_cls.classid", "1048577"),
        v2: ("net_cls", "", ""),
    },
    Limit {
        clause: "configLinuxNetwork.priorities",
        name: "network-priorities",
        resources: |_| Ok(json!({"network": {"priorities": [{"name": "lo", "priority": 7}]}})),
        v1: ("net_prio", "net_prio.ifpriomap", "*lo 7*"),
        v2: ("net_prio", "", ""),
    },
    Limit {
        clause: "configLinuxRDMA.limit",
        name: "rdma",
        resources: |_| {
            let device = fs::read_dir("/sys/class/infiniband").ok().and_then(|mut all| all.next()?.ok());
            let Some(device) = device else { return lacks("an RDMA device") };
            let name = device.file_name().to_string_lossy().into_owned();
            Ok(json!({"rdma": {name: {"hcaHandles": 3, "hcaObjects": 7}}}))
        },
        v1: ("rdma", "rdma.max", "*hca_handle=3 hca_object=7*"),
        v2: ("rdma", "rdma.max", "*hca_handle=3 hca_object=7*"),
    },
];

fn throttle(case: &Case, what: &str) -> Result<Value, Why> {
    let Some((major, minor)) = case.machine().block_device() else { return lacks("a block device") };
    Ok(json!({"blockIO": {what: [{"major": major, "minor": minor, "rate": 1_048_576}]}}))
}

pub fn checks() -> Vec<Check> {
    let mut all: Vec<_> =
        LIMITS.iter().map(|limit| check(limit.name, &[limit.clause], |case| limit.holds(case))).collect();
    all.extend([
        check("pids-zero", &["configLinuxPIDS.1"], pids_zero),
        check("cgroup-absolute", &["configLinuxCgroupsPath.2"], |case| {
            let path = format!("/conformance-{}-absolute", std::process::id());
            let container = placed(case, &path)?;
            let (_, dir) = somewhere(case, &container)?;
            expect(dir.ends_with(path.trim_start_matches('/')), format!("it is in {}", dir.display()))?;
            let root = ["pids", "memory", "cgroup2"].iter().find_map(|name| case.machine().hierarchy(name));
            expect(dir.parent() == root, format!("{} is not below the mount point", dir.display()))
        }),
        check("cgroup-consistent", &["configLinuxCgroupsPath.4"], |case| {
            let path = format!("conformance-{}-relative", std::process::id());
            let mut seen = Vec::new();
            for _ in 0..2 {
                let container = placed(case, &path)?;
                seen.push(somewhere(case, &container)?.1);
                container.ended()?;
                container.deleted()?;
            }
            expect(seen[0] == seen[1], format!("once {}, once {}", seen[0].display(), seen[1].display()))
        }),
        check("cgroup-created", &["configLinuxCgroupsPath.created"], |case| {
            let container = placed(case, &format!("/conformance-{}-new/below", std::process::id()))?;
            let (_, dir) = somewhere(case, &container)?;
            expect(dir.is_dir(), format!("there is no {}", dir.display()))
        }),
        check("cgroup-removed", &["runtimeDelete.4"], |case| {
            let container = placed(case, &format!("/conformance-{}-removed", std::process::id()))?;
            let (_, dir) = somewhere(case, &container)?;
            container.ended()?;
            container.deleted()?;
            expect(!dir.exists(), format!("{} is still there", dir.display()))
        }),
        check("cgroup-owner-v1", &["cgroup-ownership.2"], |case| {
            if case.machine().is_v2() {
                return lacks("cgroup v1");
            }
            owner(case, true, true, false)
        }),
        check("cgroup-owner-no-namespace", &["cgroup-ownership.3"], |case| owner(case, false, true, false)),
        check("cgroup-owner-no-mount", &["cgroup-ownership.5"], |case| owner(case, true, false, false)),
        check(
            "cgroup-owner",
            &[
                "cgroup-ownership.4",
                "cgroup-ownership.6",
                "cgroup-ownership.7",
                "cgroup-ownership.8",
                "cgroup-ownership.10",
            ],
            |case| {
                if !case.machine().is_v2() {
                    return lacks("cgroup v2");
                }
                owner(case, true, true, true)
            },
        ),
        check("unified-controllers", &["configLinuxUnified.1"], |case| {
            unified(case, "memory.high", "41943040")
        }),
        check("unified-unknown", &["configLinuxUnified.2"], |case| {
            unified(case, "cgroup.max.descendants", "7")
        }),
        check("unified-missing", &["configLinuxUnified.3"], |case| {
            case.machine().needs_root()?;
            case.refuses("unified with a controller that is not there", |config| {
                config["linux"]["resources"] = json!({"unified": {"conformance.max": "1"}});
            })
        }),
        check("unified-unconvertible", &["configLinuxUnified.5"], |case| {
            if !case.machine().is_v2() {
                return lacks("cgroup v2");
            }
            case.machine().needs_root()?;
            case.refuses("net_cls where there is only cgroup v2", |config| {
                config["linux"]["resources"] = json!({"network": {"classID": 1_048_577}});
            })
        }),
    ]);
    all
}

/// A container in a cgroup of this path.
fn placed<'a>(case: &'a Case<'a>, path: &str) -> Result<Container<'a>, Why> {
    case.machine().needs_root()?;
    if case.subject.global.iter().any(|flag| flag.contains("systemd")) {
        return lacks("cgroups that systemd does not manage");
    }
    let path = json!(path);
    let container = case.create(&case.bundle(WAIT, |config| config["linux"]["cgroupsPath"] = path)?)?;
    Ok(container)
}

/// A controller that there is, and where the container is in its hierarchy.
fn somewhere(case: &Case, container: &Container) -> Result<(&'static str, PathBuf), Why> {
    let pid = container.pid()?;
    let found = ["pids", "memory", "cgroup2"]
        .into_iter()
        .find_map(|name| Some((name, case.machine().cgroup(&pid, name)?)));
    found.ok_or_else(|| Why::Lacks("needs a mounted cgroup hierarchy".into()))
}

/// Whether the text is one of the alternatives, which may begin or end with any text by `*`.
fn matches(text: &str, wanted: &str) -> bool {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    wanted.split('|').any(|want| match (want.strip_prefix('*'), want.strip_suffix('*')) {
        (Some(end), Some(_)) => text.contains(end.trim_end_matches('*')),
        (Some(end), None) => text.ends_with(end),
        (None, Some(begin)) => text.starts_with(begin),
        (None, None) => text == want,
    })
}

impl Limit {
    fn holds(&self, case: &Case) -> Verdict {
        case.machine().needs_root()?;
        let (v1, v2) = (self.v1, self.v2);
        let in_v2 = || {
            let root = case.machine().hierarchy("cgroup2")?;
            let all = fs::read_to_string(root.join("cgroup.controllers")).ok()?;
            all.split_whitespace().any(|name| name == v2.0).then_some(root)
        };
        let (name, files, want) = match (case.machine().hierarchy(v1.0), in_v2()) {
            (Some(_), _) => (v1.0, v1.1, v1.2),
            (None, Some(_)) if !v2.1.is_empty() => ("cgroup2", v2.1, v2.2),
            _ => return lacks(format!("the cgroup controller {}", v1.0)),
        };
        let there = files_of(case, name)?;
        let Some(file) = files.split('|').find(|file| there.contains(&(*file).to_owned())) else {
            return lacks(format!("{files} in the kernel"));
        };
        let resources = (self.resources)(case)?;
        let bundle = case.bundle(WAIT, |config| config["linux"]["resources"] = resources)?;
        let container = case.create(&bundle)?;
        let Some(dir) = case.machine().cgroup(&container.pid()?, name) else {
            return fails(format!("the container is not in the hierarchy of {name}"));
        };
        let file = dir.join(file);
        let text = fs::read_to_string(&file).map_err(own(&file))?;
        expect(
            matches(text.trim(), want),
            format!("{}: got {:?}, want {want:?}", file.display(), text.trim()),
        )
    }
}

/// The files that a cgroup in use has in the hierarchy of a controller; the root has hardly any. On v2
/// those of every controller that a configuration can ask for.
fn files_of(case: &Case, controller: &str) -> Result<Vec<String>, Why> {
    if controller != "cgroup2" {
        let Some(root) = case.machine().hierarchy(controller) else { return Ok(Vec::new()) };
        let dir = root.join(format!("conformance-{}-files", std::process::id()));
        let _ = fs::create_dir(&dir);
        let names = names_in(&dir);
        let _ = fs::remove_dir(&dir);
        return Ok(names);
    }
    let facts = case.shared("cgroup files", |case| {
        let bundle = case.bundle(WAIT, |config| {
            config["linux"]["resources"] = json!({
                "memory": {"limit": 1 << 30}, "cpu": {"shares": 1000, "cpus": "0"}, "pids": {"limit": 1000},
                "blockIO": {"weight": 100},
            });
        })?;
        let container = case.create(&bundle)?;
        let dir = case.machine().cgroup(&container.pid()?, "cgroup2").unwrap_or_default();
        Ok(crate::case::Facts(json!(names_in(&dir))))
    })?;
    Ok(facts.0.as_array().into_iter().flatten().filter_map(|name| Some(name.as_str()?.to_owned())).collect())
}

fn names_in(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// The kernel takes the limit 0, and then nothing can be forked; a runtime may take it for 1 on the
/// way, but not for none.
fn pids_zero(case: &Case) -> Verdict {
    case.machine().needs_root()?;
    let bundle = case.bundle(WAIT, |config| config["linux"]["resources"] = json!({"pids": {"limit": 0}}))?;
    let (container, answer) = case.attempt(&bundle)?;
    answer.done("create with the limit 0")?;
    let pid = container.pid()?;
    let name = if case.machine().hierarchy("pids").is_some() { "pids" } else { "cgroup2" };
    let Some(dir) = case.machine().cgroup(&pid, name) else { return lacks("the cgroup controller pids") };
    let text = fs::read_to_string(dir.join("pids.max")).map_err(own(&dir))?;
    expect(["0", "1"].contains(&text.trim()), format!("pids.max is {:?}", text.trim()))
}

/// To whom the cgroup belongs of a container whose user is mapped to 100000.
fn owner(case: &Case, namespace: bool, mount: bool, changes: bool) -> Verdict {
    case.machine().needs_root()?;
    let bundle = case.bundle(WAIT, |config| {
        super::namespaces::map(config, 100_000);
        if namespace {
            push(&mut config["linux"]["namespaces"], json!({"type": "cgroup"}));
        }
        push(
            &mut config["mounts"],
            json!({"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro"]}),
        );
        push(&mut config["linux"]["namespaces"], json!({"type": "network"}));
        if mount {
            push(
                &mut config["mounts"],
                json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup"}),
            );
        }
    })?;
    let container = case.create(&bundle)?;
    let (_, dir) = somewhere(case, &container)?;
    let listed = fs::read_to_string("/sys/kernel/cgroup/delegate").unwrap_or_default();
    let uid = |path: &Path| fs::metadata(path).map(|stat| stat.uid()).map_err(own(path));
    let want = if changes { 100_000 } else { 0 };
    expect_eq(&dir.display().to_string(), &uid(&dir)?.to_string(), &want.to_string())?;
    for entry in fs::read_dir(&dir).map_err(own(&dir))?.flatten() {
        let delegated = listed.lines().any(|name| entry.file_name() == *name);
        let want = if delegated { want } else { 0 };
        if entry.path().is_file() {
            expect_eq(
                &entry.path().display().to_string(),
                &uid(&entry.path())?.to_string(),
                &want.to_string(),
            )?;
        }
    }
    Ok(())
}

fn unified(case: &Case, file: &str, value: &str) -> Verdict {
    if !case.machine().is_v2() {
        return lacks("cgroup v2");
    }
    case.machine().needs_root()?;
    let bundle =
        case.bundle(WAIT, |config| config["linux"]["resources"] = json!({"unified": {file: value}}))?;
    let container = case.create(&bundle)?;
    let Some(dir) = case.machine().cgroup(&container.pid()?, "cgroup2") else { return fails("no cgroup") };
    let path = dir.join(file);
    let text = fs::read_to_string(&path).map_err(|e| Why::Fails(format!("{}: {e}", path.display())))?;
    expect_eq(file, text.trim(), value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alternatives_and_any_text_match() {
        assert!(matches("20", "20|59") && matches("59\n", "20|59") && !matches("2059", "20|59"));
        assert!(matches("8:0 1048576", "* 1048576") && !matches("8:0 1048576 x", "* 1048576"));
        assert!(matches("a\nlo 7\nb", "*lo 7*") && matches("begin x", "begin *"));
    }
}
