//! config-linux.md, Control groups: resources as the v1 hierarchies show them, update, events, and OOM.

use crate::harness::{SECONDS_5, Test, cgroup_of, controller, is_cgroup2, is_rrun, program, wait_for};
use crate::{requires, rrun_only};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::time::Duration;

fn read(path: &Path, file: &str) -> String {
    fs::read_to_string(path.join(file))
        .unwrap_or_else(|e| panic!("{}/{file}: {e}", path.display()))
        .trim()
        .to_owned()
}

fn limited() -> Test {
    let t = Test::new("limits");
    t.edit(|c| {
        let memory = &mut c["linux"]["resources"]["memory"];
        *memory = json!({ "limit": 67_108_864, "reservation": 33_554_432 });
        if !is_cgroup2() {
            memory["swappiness"] = json!(10);
            memory["kernelTCP"] = json!(16_777_216);
        }
        c["linux"]["resources"]["cpu"] =
            json!({ "shares": 512, "quota": 50_000, "period": 100_000, "cpus": "0", "mems": "0" });
        c["linux"]["resources"]["pids"] = json!({ "limit": 99 });
    });
    t.detached("exec sleep 1000");
    t
}

#[test]
fn resources_are_written() {
    requires!(root);
    requires!(controller("memory") && controller("cpu") && controller("pids"), "needs cgroup v1");
    let t = limited();
    let memory = t.cgroup("memory");
    assert_eq!(read(&memory, "memory.limit_in_bytes"), "67108864");
    assert_eq!(read(&memory, "memory.soft_limit_in_bytes"), "33554432");
    assert_eq!(read(&memory, "memory.swappiness"), "10");
    // Unlike memory.kernel, the kernel still has this one; runc writes neither.
    if is_rrun() {
        assert_eq!(read(&memory, "memory.kmem.tcp.limit_in_bytes"), "16777216");
    }
    let cpu = t.cgroup("cpu");
    assert_eq!(read(&cpu, "cpu.shares"), "512");
    assert_eq!(read(&cpu, "cpu.cfs_quota_us"), "50000");
    assert_eq!(read(&t.cgroup("cpuset"), "cpuset.cpus"), "0");
    assert_eq!(read(&t.cgroup("pids"), "pids.max"), "99");
    t.end();
}

/// The same cgroupsPath gives the same place (config-linux.md, Cgroups Path).
#[test]
fn the_cgroups_path_is_the_one_given() {
    requires!(root);
    requires!(controller("pids"), "needs cgroup v1");
    let t = Test::new("cgpath");
    let path = format!("/{}-own", t.id);
    t.edit(|c| c["linux"]["cgroupsPath"] = json!(path)).detached("exec sleep 1000");
    for name in ["pids", "memory", "devices", "freezer"] {
        assert!(t.cgroup(name).ends_with(path.trim_start_matches('/')), "{name}");
        assert!(t.cgroup(name).exists());
    }
    t.end();
}

#[test]
fn every_hierarchy_has_the_container() {
    requires!(root);
    let t = Test::new("hierarchies");
    t.detached("exec sleep 1000");
    let text = fs::read_to_string(format!("/proc/{}/cgroup", t.pid())).unwrap();
    for line in text.lines().filter(|l| !l.starts_with("0::")) {
        assert!(line.contains(&t.id), "{line}");
    }
    t.end();
}

#[test]
fn devices_are_denied_and_allowed_in_order() {
    requires!(root);
    requires!(controller("devices"), "needs the v1 devices controller");
    let t = Test::new("devlist");
    t.detached("exec sleep 1000");
    let list = read(&t.cgroup("devices"), "devices.list");
    assert!(!list.contains("a *:* rwm") && list.contains("c 1:3 rwm"), "{list}");
    t.end();
}

#[test]
fn the_pids_limit_holds() {
    requires!(root);
    requires!(controller("pids"), "needs the v1 pids controller");
    let t = Test::new("pids");
    t.edit(|c| c["linux"]["resources"]["pids"] = json!({ "limit": 4 }));
    t.sh("for i in 1 2 3 4 5 6 7 8; do sleep 1 & done; wait");
    t.bundle_command("run", &[]).go().says("can't fork");
    t.nothing_left();
}

#[test]
fn update_changes_what_is_given_and_nothing_else() {
    requires!(root);
    requires!(controller("memory") && controller("cpu") && controller("pids"), "needs cgroup v1");
    let t = limited();
    let value = |c: &str, f: &str| read(&t.cgroup(c), f);
    t.rt(&["update", "--memory", "96M", "--memory-reservation", "48M", &t.id]).go().ok();
    assert_eq!(value("memory", "memory.limit_in_bytes"), "100663296");
    assert_eq!(value("memory", "memory.soft_limit_in_bytes"), "50331648");
    assert_eq!(value("cpu", "cpu.shares"), "512");
    t.rt(&["update", "--cpu-share", "1000", "--cpu-quota", "20000", "--cpu-period", "50000", &t.id])
        .go()
        .ok();
    assert_eq!(value("cpu", "cpu.shares"), "1000");
    assert_eq!(
        (value("cpu", "cpu.cfs_quota_us"), value("cpu", "cpu.cfs_period_us")),
        ("20000".into(), "50000".into())
    );
    t.rt(&["update", "--pids-limit", "-1", &t.id]).go().ok();
    assert_eq!(value("pids", "pids.max"), "max");
    t.rt(&["update", "--cpuset-cpus", "0-1", &t.id]).go();
    let resources = json!({ "pids": { "limit": 12 }, "memory": { "limit": 83_886_080_u64 } }).to_string();
    t.rt(&["update", "--resources", "-", &t.id]).stdin(&resources).go().ok();
    assert_eq!(
        (value("pids", "pids.max"), value("memory", "memory.limit_in_bytes")),
        ("12".into(), "83886080".into())
    );
    t.rt(&["update", "-r", "-", &t.id]).stdin("{}").go().ok();
    assert_eq!(value("cpu", "cpu.shares"), "1000");
    assert!(!value("devices", "devices.list").contains("a *:* rwm"), "update must leave devices alone");
    t.end();
}

#[test]
fn events_stats_is_one_object_on_one_line() {
    requires!(root);
    let t = limited();
    let out = t.rt(&["events", "--stats", &t.id]).go();
    let text = out.ok().stdout();
    assert_eq!(text.lines().count(), 1, "{text}");
    let event: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&event["type"], &event["id"]), (&json!("stats"), &json!(t.id)));
    assert_eq!(event["data"]["memory"]["usage"]["limit"], 67_108_864);
    assert_eq!(event["data"]["pids"]["limit"], 99);
    assert!(event["data"]["pids"]["current"].as_u64().unwrap() >= 1);
    assert!(event["data"]["cpu"]["usage"]["total"].as_u64().unwrap() > 0);
    t.end();
}

#[test]
fn events_streams_until_the_container_ends() {
    requires!(root);
    let t = Test::new("stream");
    t.detached("exec sleep 1000");
    let events = t.rt(&["events", "--interval", "100ms", &t.id]).limit(Duration::from_secs(10)).spawn();
    wait_for("three events", SECONDS_5, || (events.stdout().lines().count() >= 3).then_some(()));
    t.rt(&["delete", "--force", &t.id]).go().ok();
    let out = events.wait();
    out.ok();
    for line in out.stdout().lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        assert_eq!(event["type"], "stats");
    }
    t.nothing_left();
}

#[test]
fn events_tells_of_an_oom_kill() {
    requires!(root);
    requires!(controller("memory"), "needs the v1 memory controller");
    let t = Test::new("oom");
    t.edit(|c| c["linux"]["resources"]["memory"] = json!({ "limit": 20_971_520, "swap": 20_971_520 }));
    t.detached("while [ ! -e /go ]; do sleep 0.05; done; tail /dev/zero; sleep 1000");
    let events = t.rt(&["events", "--interval", "100ms", &t.id]).limit(Duration::from_secs(20)).spawn();
    wait_for("the stream", SECONDS_5, || events.stdout().contains("stats").then_some(()));
    fs::write(t.rootfs.join("go"), "").unwrap();
    wait_for("an oom event", SECONDS_5, || events.stdout().contains("\"type\":\"oom\"").then_some(()));
    t.rt(&["delete", "--force", &t.id]).go().ok();
    events.wait().ok();
    t.nothing_left();
}

#[test]
fn an_init_killed_by_the_memory_limit_is_said_to_be() {
    requires!(root);
    requires!(controller("memory"), "needs the v1 memory controller");
    rrun_only!("runc 1.1 says so only when its own init is killed");
    let t = Test::new("initoom");
    t.edit(|c| c["linux"]["resources"]["memory"] = json!({ "limit": 4096 * 8, "swap": 4096 * 8 }));
    let out = t.run();
    if out.code != Some(0) {
        out.says("container init was OOM-killed (memory limit too low?)|memory");
    }
    t.nothing_left();
}

#[test]
fn a_limit_below_the_usage_is_refused_by_update() {
    requires!(root);
    requires!(controller("memory"), "needs the v1 memory controller");
    let t = limited();
    t.detached_filled();
    let out = t.rt(&["update", "--memory", "4096", &t.id]).go();
    assert_ne!(out.code, Some(0), "{out:?}");
    assert_eq!(t.status(), "running");
    t.end();
}

impl Test {
    /// Puts 8 MiB into the container's memory.
    fn detached_filled(&self) {
        self.exec(&["sh", "-c", "head -c 8000000 /dev/zero > /dev/shm/fill"]).ok();
    }
}

#[test]
fn a_limit_update_of_a_stopped_container_is_refused() {
    requires!(root);
    let t = Test::new("updstopped");
    t.sh("true").create();
    t.kill("KILL").ok();
    t.wait_status("stopped");
    t.rt(&["update", "--pids-limit", "5", &t.id]).go().fails("not running");
    t.end();
}

#[test]
fn update_takes_each_flag() {
    requires!(root);
    requires!(controller("memory") && controller("cpu") && controller("cpuset"), "needs cgroup v1");
    let t = Test::new("updflags");
    t.detached("exec sleep 1000");
    for (flag, given, hierarchy, file, want) in [
        ("--cpu-period", "40000", "cpu", "cpu.cfs_period_us", "40000"),
        ("--cpu-quota", "20000", "cpu", "cpu.cfs_quota_us", "20000"),
        ("--cpu-burst", "5000", "cpu", "cpu.cfs_burst_us", "5000"),
        ("--cpu-share", "700", "cpu", "cpu.shares", "700"),
        ("--cpu-idle", "1", "cpu", "cpu.idle", "1"),
        ("--cpuset-cpus", "0", "cpuset", "cpuset.cpus", "0"),
        ("--cpuset-mems", "0", "cpuset", "cpuset.mems", "0"),
        ("--memory", "64M", "memory", "memory.limit_in_bytes", "67108864"),
        ("--memory-reservation", "32M", "memory", "memory.soft_limit_in_bytes", "33554432"),
        ("--kernel-memory-tcp", "16M", "memory", "memory.kmem.tcp.limit_in_bytes", "16777216"),
        ("--pids-limit", "77", "pids", "pids.max", "77"),
    ] {
        // Debian's runc has none of them.
        if !is_rrun() && ["--cpu-burst", "--cpu-idle", "--kernel-memory-tcp"].contains(&flag) {
            continue;
        }
        let path = t.cgroup(hierarchy);
        requires!(path.join(file).exists(), format!("needs {file}"));
        assert_ne!((read(&path, file).as_str(), flag), (want, "--memory"), "{flag}: nothing to see");
        t.rt(&["update", flag, given, &t.id]).go().ok();
        assert_eq!(read(&path, file), want, "{flag}");
    }
    let memsw = t.cgroup("memory").join("memory.memsw.limit_in_bytes");
    if memsw.exists() {
        t.rt(&["update", "--memory-swap", "128M", &t.id]).go().ok();
        assert_eq!(fs::read_to_string(memsw).unwrap().trim(), "134217728");
    }
    t.end();
}

#[test]
fn update_reads_standard_input_and_refuses_what_is_wrong_there() {
    requires!(root);
    requires!(controller("pids"), "needs the v1 pids controller");
    let t = Test::new("updstdin");
    t.detached("exec sleep 1000");
    let update = |text: &str| t.rt(&["update", "--resources=-", &t.id]).stdin(text).go();
    update(r#"{"pids":{"limit":33}}"#).ok();
    assert_eq!(read(&t.cgroup("pids"), "pids.max"), "33");
    if is_rrun() {
        update(r#"{"pids":{"limit":"many"}}"#).fails("pids.limit").one_line();
        update(r#"{"pids":"#).fails("eof").one_line();
        update("").fails("eof").one_line();
    }
    assert_eq!(read(&t.cgroup("pids"), "pids.max"), "33");
    t.end();
}

#[test]
fn a_paused_container_is_updated_and_stays_paused() {
    requires!(root);
    requires!(controller("memory") && controller("freezer"), "needs cgroup v1");
    let t = limited();
    t.rt(&["pause", &t.id]).go().ok();
    t.rt(&["update", "--memory", "96M", "--pids-limit", "44", &t.id]).go().ok();
    assert_eq!(t.status(), "paused");
    assert_eq!(read(&t.cgroup("freezer"), "freezer.state"), "FROZEN");
    assert_eq!(read(&t.cgroup("memory"), "memory.limit_in_bytes"), "100663296");
    assert_eq!(read(&t.cgroup("pids"), "pids.max"), "44");
    t.rt(&["resume", &t.id]).go().ok();
    assert_eq!(t.status(), "running");
    t.end();
}

/// A `pause` that comes right after what was killed was thawed: the write that thaws it is lost.
#[test]
fn what_is_frozen_again_after_it_was_killed_is_thawed_again() {
    requires!(root);
    requires!(program "strace");
    requires!(unfiltered);
    rrun_only!("counts rrun's writes");
    requires!(controller("freezer"), "needs cgroup v1");
    // Of `delete --force`: init is thawed by the first; without a pid namespace, the others are frozen by the second
    // and thawed by the third.
    for (pids, lost) in [(true, 1), (false, 3)] {
        let t = Test::new("again");
        if !pids {
            t.edit(|c| {
                c["linux"]["namespaces"].as_array_mut().unwrap().retain(|n| n["type"] != "pid");
                c["mounts"].as_array_mut().unwrap().retain(|m| m["type"] != "proc");
            });
        }
        t.detached("sleep 1000 & exec sleep 1000");
        t.rt(&["pause", &t.id]).go().ok();
        let (log, state) = (t.dir.join("strace"), t.cgroup("freezer").join("freezer.state"));
        let inject = format!("inject=write:retval=6:when={lost}");
        let strace = ["strace", "-o", log.to_str().unwrap(), "-P", state.to_str().unwrap(), "-e", &inject];
        t.rt(&["delete", "--force", &t.id]).under(&strace).go().ok();
        let log = fs::read_to_string(&log).unwrap();
        assert!(log.contains("THAWED") && log.contains("(INJECTED)"), "{log}");
        t.nothing_left();
    }
}

/// The files of each hierarchy that hold a setting, not a count of use.
fn settings(pid: u32) -> Vec<String> {
    let mut lines = Vec::new();
    for hierarchy in ["cpu", "cpuset", "memory", "pids", "blkio", "devices"] {
        let dir = cgroup_of(pid, hierarchy);
        for entry in fs::read_dir(&dir).unwrap().flatten() {
            let name = entry.file_name().into_string().unwrap();
            let counts = ["usage", "stat", "io_service", "events", "peak", "current", "pressure", "procs"];
            let setting = name.starts_with(hierarchy) && !counts.iter().any(|c| name.contains(c));
            if setting && let Ok(text) = fs::read_to_string(entry.path()) {
                let mut text: Vec<_> = text.lines().collect();
                text.sort_unstable();
                lines.push(format!("{name}: {}", text.join(" | ")));
            }
        }
    }
    lines.sort();
    lines
}

#[test]
fn every_file_holds_what_runc_writes_there() {
    requires!(root);
    requires!(controller("memory") && controller("blkio") && controller("cpuset"), "needs cgroup v1");
    requires!(program "runc");
    let disk = fs::read_dir("/sys/block").unwrap().flatten().find_map(|d| {
        let number = fs::read_to_string(d.path().join("dev")).ok()?;
        let (major, minor) = number.trim().split_once(':')?;
        Some((major.parse::<u32>().ok()?, minor.parse::<u32>().ok()?))
    });
    requires!(disk.is_some(), "needs a block device");
    let (major, minor) = disk.unwrap();
    let rate = |rate: u64| json!([{ "major": major, "minor": minor, "rate": rate }]);
    let with = |name: &str| {
        let t = Test::new(name);
        t.edit(|c| {
            let resources = &mut c["linux"]["resources"];
            resources["cpu"] =
                json!({ "shares": 300, "quota": 30_000, "period": 60_000, "cpus": "0", "mems": "0" });
            resources["memory"] =
                json!({ "limit": 67_108_864, "reservation": 33_554_432, "swap": 134_217_728, "swappiness": 20 });
            resources["pids"] = json!({ "limit": 55 });
            resources["blockIO"] = json!({
                "throttleReadBpsDevice": rate(1_048_576), "throttleWriteBpsDevice": rate(2_097_152),
                "throttleReadIOPSDevice": rate(100), "throttleWriteIOPSDevice": rate(200) });
            resources["devices"].as_array_mut().unwrap().push(
                json!({ "allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw" }));
        });
        t.sh("exec sleep 1000");
        t
    };
    let ours = with("valuesours");
    ours.bundle_command("run", &["--detach"]).go().ok();
    let theirs = with("valuesrunc");
    let root = ["--root", theirs.state.to_str().unwrap()];
    let runc = |args: &[&str]| {
        let mut command = std::process::Command::new(program("runc").unwrap());
        // Its own streams: a container holds them, and the test's are pipes.
        command.args(root).args(args).stdin(std::process::Stdio::null());
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        assert!(command.status().unwrap().success(), "runc {args:?}");
    };
    runc(&["run", "--detach", "--bundle", theirs.bundle.to_str().unwrap(), &theirs.id]);
    // state, and so the pid, comes from runc's own record, which rrun does not read.
    let pid = fs::read_to_string(theirs.state.join(&theirs.id).join("state.json")).unwrap();
    let pid: Value = serde_json::from_str(&pid).unwrap();
    let pid = pid["init_process_pid"].as_u64().unwrap();
    let (mine, other) = (settings(ours.pid()), settings(pid.try_into().unwrap()));
    runc(&["delete", "--force", &theirs.id]);
    assert!(mine.iter().any(|l| l.starts_with("blkio.throttle.read_bps_device") && l.ends_with("1048576")));
    assert_eq!(mine, other);
    theirs.nothing_left();
    ours.end();
}

#[test]
fn huge_pages_are_limited_where_their_controller_is() {
    requires!(root);
    let unified = fs::read_to_string("/sys/fs/cgroup/unified/cgroup.subtree_control").unwrap_or_default();
    requires!(unified.contains("hugetlb"), "needs hugetlb in the hybrid layout's v2 hierarchy");
    rrun_only!("runc 1.1 looks for hugetlb on v1 only");
    let t = Test::new("hugetlb");
    t.edit(|c| {
        c["linux"]["resources"]["hugepageLimits"] = json!([{ "pageSize": "2MB", "limit": 4_194_304 }]);
    });
    t.detached("exec sleep 1000");
    let dir = fs::read_to_string(format!("/proc/{}/cgroup", t.pid())).unwrap();
    let path = dir.lines().find_map(|l| l.strip_prefix("0::")).unwrap();
    let dir = Path::new("/sys/fs/cgroup/unified").join(path.trim_start_matches('/'));
    assert_eq!(read(&dir, "hugetlb.2MB.max"), "4194304");
    t.end();
}
