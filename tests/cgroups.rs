//! config-linux.md, Control groups: resources as the v1 hierarchies show them, update, events, and OOM.

use crate::harness::{SECONDS_5, Test, controller, wait_for};
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
        c["linux"]["resources"]["memory"] =
            json!({ "limit": 67_108_864, "reservation": 33_554_432, "swappiness": 10 });
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
