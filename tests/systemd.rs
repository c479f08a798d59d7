//! systemd as the cgroup driver: scopes, their properties beside Debian's runc and crun, reloads, what is left.
//!
//! Needs systemd as PID 1, so these run in the guest; on cgroup v2 and, by its command line, on v1.

use crate::harness::{Out, Test, program, runtime, wait_for};
use crate::{requires, rrun_only};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{LockResult, RwLock, RwLockReadGuard};
use std::time::Duration;

const SLICE: &str = "rrtest.slice";
const SECONDS_20: Duration = Duration::from_secs(20);

fn systemd() -> bool {
    Path::new("/run/systemd/system").exists()
        && fs::read_to_string("/proc/1/comm").is_ok_and(|comm| comm.trim() == "systemd")
}

fn v2() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// A daemon-reexec cuts everybody's conversations with systemd, systemctl's too: no other test has one meanwhile.
static REEXEC: RwLock<()> = RwLock::new(());

thread_local! {
    /// Held to the end of a test, which is that of its thread.
    static QUIET: RefCell<Option<LockResult<RwLockReadGuard<'static, ()>>>> = const { RefCell::new(None) };
}

/// A container whose scope is in a slice of the tests.
fn scoped(name: &str) -> Test {
    QUIET.with_borrow_mut(|quiet| {
        quiet.get_or_insert_with(|| REEXEC.read());
    });
    scoped_alone(name)
}

/// The same for the test that does a daemon-reexec.
fn scoped_alone(name: &str) -> Test {
    let t = Test::new(name);
    let path = format!("{SLICE}:rr:{}", t.id);
    t.edit(|c| c["linux"]["cgroupsPath"] = json!(path));
    t
}

fn unit(t: &Test) -> String {
    format!("rr-{}.scope", t.id)
}

/// `--systemd-cgroup VERB --bundle B [flags] ID`.
fn with_systemd(t: &Test, verb: &str, flags: &[&str]) -> Out {
    let mut args = vec!["--systemd-cgroup", verb, "--bundle", t.bundle.to_str().unwrap()];
    args.extend(flags);
    args.push(&t.id);
    t.rt(&args).limit(Duration::from_secs(60)).go()
}

fn detached(t: &Test, script: &str) {
    t.sh(script);
    with_systemd(t, "run", &["--detach"]).ok();
}

fn systemctl(args: &[&str]) -> String {
    let out = Command::new("systemctl").args(args).output().unwrap();
    String::from_utf8_lossy(&out.stdout).trim().to_owned()
}

/// What systemd says of a unit.
fn shown(unit: &str, names: &str) -> BTreeMap<String, String> {
    let text = systemctl(&["show", unit, "-p", names]);
    text.lines().filter_map(|line| line.split_once('=')).map(|(k, v)| (k.into(), v.into())).collect()
}

fn property(unit: &str, name: &str) -> String {
    systemctl(&["show", unit, "--value", "-p", name])
}

/// systemd forgets a unit and its directories a moment after the job is done.
fn is_gone(unit: &str) {
    wait_for("the unit to go", SECONDS_20, || (property(unit, "LoadState") == "not-found").then_some(()));
    let found = Command::new("find").args(["/sys/fs/cgroup", "-name", unit]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&found.stdout), "");
}

fn dirs(unit: &str) -> Vec<PathBuf> {
    let tail = Path::new(SLICE).join(unit);
    let mut dirs = vec![Path::new("/sys/fs/cgroup").join(&tail)];
    let hierarchies = fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|e| e.path());
    // cpu and cpuacct are links to one.
    dirs.extend(hierarchies.filter(|dir| !dir.is_symlink()).map(|dir| dir.join(&tail)));
    // crun's container is in a cgroup below its scope.
    let own = |dir: PathBuf| Some(dir.join("container")).filter(|sub| sub.is_dir()).unwrap_or(dir);
    dirs.into_iter().filter(|dir| dir.is_dir()).map(own).collect()
}

/// Every limit that a cgroup of the unit has, by file.
fn limits(unit: &str) -> BTreeMap<String, String> {
    const OTHER: [&str; 20] = [
        "stat",
        "usage",
        "current",
        "pressure",
        "peak",
        "reclaim",
        "events",
        "procs",
        "threads",
        "tasks",
        "numa",
        "failcnt",
        "kmem",
        "oom_control",
        "event_control",
        "force_empty",
        "service",
        "recursive",
        // The order is of whoever wrote last, the number of the hierarchy.
        "devices.list",
        "prioidx",
    ];
    let mut all = BTreeMap::new();
    for dir in dirs(unit) {
        for entry in fs::read_dir(&dir).unwrap().flatten() {
            let name = entry.file_name().into_string().unwrap();
            if OTHER.iter().any(|other| name.contains(other)) || !entry.file_type().unwrap().is_file() {
                continue;
            }
            if let Ok(text) = fs::read_to_string(entry.path()) {
                all.insert(name, text.trim().replace('\n', "|"));
            }
        }
    }
    all
}

const PROPERTIES: &str = "Slice,Wants,After,Delegate,MemoryAccounting,CPUAccounting,IOAccounting,\
    BlockIOAccounting,TasksAccounting,DefaultDependencies,DevicePolicy,CPUShares,CPUWeight,CPUQuotaPerSecUSec,\
    CPUQuotaPeriodUSec,MemoryLimit,MemoryMax,MemoryLow,MemoryHigh,MemoryMin,MemorySwapMax,TasksMax,AllowedCPUs,\
    AllowedMemoryNodes,IOWeight,BlockIOWeight,ActiveState,TimeoutStopUSec,CollectMode,KillMode,OOMPolicy";

/// Where rrun means to differ from a peer: peer, file or property, and why.
const WEIGHT: &str = "these versions are older than the quadratic formula from shares to weight";
const BELOW: &str = "crun 1.8.1 puts the container into a cgroup below its scope, with fewer controllers";
const DIFFERENT: [(&str, &str, &str); 8] = [
    ("runc", "misc.max", "on v1 runc 1.1.5 does not know the controller"),
    ("both", "CPUWeight", WEIGHT),
    ("both", "cpu.weight", WEIGHT),
    ("both", "cpu.weight.nice", WEIGHT),
    ("crun", "cgroup.controllers", BELOW),
    ("crun", "misc.max", BELOW),
    ("crun", "rdma.max", BELOW),
    // The scope has systemd's default of 15 % of all tasks.
    ("crun", "pids.max", BELOW),
];

/// The lines in which two maps differ, but for those of the table.
fn differences(
    peer: &str,
    ours: &BTreeMap<String, String>,
    theirs: &BTreeMap<String, String>,
) -> Vec<String> {
    let known = |name: &str| DIFFERENT.iter().any(|(p, n, _)| (*p == peer || *p == "both") && *n == name);
    let names = ours.keys().chain(theirs.keys()).collect::<std::collections::BTreeSet<_>>();
    names
        .into_iter()
        .filter(|name| ours.get(*name) != theirs.get(*name) && !known(name))
        .map(|name| format!("{name}: rrun {:?}, {peer} {:?}", ours.get(name), theirs.get(name)))
        .collect()
}

type Shown = (BTreeMap<String, String>, BTreeMap<String, String>);

/// What a runtime makes of resources, after create and after each update.
fn outcome(program: &Path, resources: &Value, updates: &[&[&str]]) -> Vec<Shown> {
    let name = program.file_name().unwrap().to_str().unwrap();
    let t = scoped(&format!("as-{name}"));
    t.sh("exec sleep 1000").edit(|c| {
        let devices = c["linux"]["resources"]["devices"].clone();
        c["linux"]["resources"] = resources.clone();
        c["linux"]["resources"]["devices"] = devices;
    });
    let go = |args: &[&str]| {
        let out = Command::new(program)
            .arg("--root")
            .arg(t.dir.join("peer"))
            .args(args)
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(fs::File::create(t.dir.join("peer.err")).unwrap())
            .status()
            .unwrap();
        assert!(out.success(), "{name} {args:?}: {:?}", fs::read_to_string(t.dir.join("peer.err")));
    };
    let unit = unit(&t);
    let look = || (shown(&unit, PROPERTIES), limits(&unit));
    let bundle = t.bundle.to_str().unwrap();
    go(&["--systemd-cgroup", "run", "--detach", "--bundle", bundle, &t.id]);
    let mut all = vec![look()];
    for update in updates {
        // Without the choice of the driver, as callers do.
        go(&[&["update"], *update, &[t.id.as_str()]].concat());
        all.push(look());
    }
    go(&["delete", "--force", &t.id]);
    is_gone(&unit);
    all
}

fn same_as_peers(resources: &Value, updates: &[&[&str]]) {
    let ours = outcome(runtime(), resources, updates);
    let mut wrong = Vec::new();
    for peer in ["runc", "crun"] {
        let theirs = outcome(&program(peer).unwrap(), resources, updates);
        for (i, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
            let step = if i == 0 { "create".to_owned() } else { format!("update {:?}", updates[i - 1]) };
            let mut lines = differences(peer, &ours.1, &theirs.1);
            // crun 1.8.1 sets no limit on the scope but below it.
            if peer == "runc" {
                lines.extend(differences(peer, &ours.0, &theirs.0));
            }
            wrong.extend(lines.into_iter().map(|line| format!("after {step}: {line}")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

macro_rules! peers {
    () => {
        requires!(root);
        requires!(systemd(), "needs systemd as PID 1");
        rrun_only!("it is compared with the peers");
        requires!(program("runc").is_some() && program("crun").is_some(), "needs Debian's runc and crun");
    };
}

#[test]
fn cpu_is_as_the_peers_have_it() {
    peers!();
    let cpu =
        json!({ "cpu": { "shares": 512, "quota": 12_500, "period": 50_000, "cpus": "0", "mems": "0" } });
    let updates: [&[&str]; 2] =
        [&["--cpu-quota", "30000", "--cpu-period", "100000"], &["--cpu-share", "2048"]];
    same_as_peers(&cpu, &updates);
}

#[test]
fn memory_and_tasks_are_as_the_peers_have_them() {
    peers!();
    let limits = json!({
        "memory": { "limit": 67_108_864, "swap": 134_217_728, "reservation": 33_554_432 },
        "pids": { "limit": 77 },
    });
    let updates: [&[&str]; 2] =
        [&["--memory", "50331648", "--memory-swap", "100663296"], &["--pids-limit", "33"]];
    same_as_peers(&limits, &updates);
}

#[test]
fn nothing_asked_for_is_as_the_peers_have_it() {
    peers!();
    same_as_peers(&json!({}), &[]);
}

#[test]
fn unified_values_are_properties() {
    requires!(root);
    requires!(systemd() && v2(), "needs systemd as PID 1 and cgroup v2");
    let t = scoped("unified");
    t.edit(|c| {
        c["linux"]["resources"]["unified"] = json!({
            "memory.high": "50331648", "memory.min": "4096", "pids.max": "55", "cpu.weight": "42",
            "cpu.max": "20000 100000", "cpuset.cpus": "0", "memory.oom.group": "1",
        });
    });
    detached(&t, "exec sleep 1000");
    let u = unit(&t);
    for (name, value) in [
        ("MemoryHigh", "50331648"),
        ("MemoryMin", "4096"),
        ("TasksMax", "55"),
        ("CPUWeight", "42"),
        ("CPUQuotaPerSecUSec", "200ms"),
        ("AllowedCPUs", "0"),
    ] {
        assert_eq!(property(&u, name), value, "{name}");
    }
    let files = limits(&u);
    assert_eq!((files["memory.oom.group"].as_str(), files["cpu.max"].as_str()), ("1", "20000 100000"));
    t.end();
}

/// systemd keeps hundredths of a CPU: the file says the same, so that a reload changes nothing. runc's `update.bats`
/// asks for it.
#[test]
fn a_quota_is_rounded_in_file_and_unit() {
    requires!(root);
    requires!(systemd() && v2(), "needs systemd as PID 1 and cgroup v2");
    rrun_only!("Debian's runc and crun write the exact value to the file");
    let t = scoped("rounded");
    t.edit(|c| c["linux"]["resources"]["cpu"] = json!({ "quota": 12_345, "period": 50_000 }));
    detached(&t, "exec sleep 1000");
    let u = unit(&t);
    let both = || (property(&u, "CPUQuotaPerSecUSec"), limits(&u)["cpu.max"].clone());
    assert_eq!(both(), ("250ms".into(), "12500 50000".into()));
    for (args, per_second, max) in [
        (&["--cpu-period", "900000"][..], "20ms", "18000 900000"),
        (&["--cpu-quota", "500000"], "560ms", "504000 900000"),
        (&["--pids-limit", "44"], "560ms", "504000 900000"),
    ] {
        t.rt(&[&["update"], args, &[&t.id]].concat()).go().ok();
        assert_eq!(both(), (per_second.into(), max.into()), "{args:?}");
        systemctl(&["daemon-reload"]);
        assert_eq!(both(), (per_second.into(), max.into()), "{args:?} and daemon-reload");
    }
    // systemd has its default period where there is no limit.
    t.rt(&["update", "--cpu-quota", "-1", &t.id]).go().ok();
    assert_eq!(both(), ("infinity".into(), "max 900000".into()));
    t.end();
}

/// systemd 252 keeps idle as a weight, so of the two it has one: idle wins where both are given, and a weight alone
/// takes idle back, as runc's `update.bats` asks.
#[test]
fn idle_and_a_weight_are_one_to_systemd() {
    requires!(root);
    requires!(systemd() && v2(), "needs systemd as PID 1 and cgroup v2");
    rrun_only!("runc 1.1.5 does not know cpu.idle");
    let t = scoped("idle");
    detached(&t, "exec sleep 1000");
    let u = unit(&t);
    requires!(limits(&u).contains_key("cpu.idle"), "needs Linux 5.15");
    let both = || (property(&u, "CPUWeight"), limits(&u)["cpu.idle"].clone());
    let update = |args: &[&str]| t.rt(&[&["update"], args, &[&t.id]].concat()).go();
    update(&["--cpu-share", "200", "--cpu-idle", "1"]).ok().says("unable to apply both");
    assert_eq!(both(), ("idle".into(), "1".into()));
    update(&["--pids-limit", "44"]).ok();
    assert_eq!(both(), ("idle".into(), "1".into()));
    update(&["--cpu-share", "512"]).ok();
    assert_eq!(both(), ("59".into(), "0".into()));
    let unified = r#"{"unified":{"cpu.idle":"1","cpu.weight":"8"}}"#;
    t.rt(&["update", "-r", "-", &t.id]).stdin(unified).go().ok().says("unable to apply both");
    assert_eq!(both(), ("idle".into(), "1".into()));
    update(&["--cpu-idle", "0"]).ok();
    assert_eq!(both(), ("100".into(), "0".into()));
    t.end();
}

#[test]
fn annotations_set_properties() {
    requires!(root);
    requires!(systemd(), "needs systemd as PID 1");
    let t = scoped("annotated");
    t.edit(|c| {
        c["annotations"] = json!({
            "org.systemd.property.TimeoutStopSec": "uint64 7",
            "org.systemd.property.CollectMode": "'inactive-or-failed'",
            "org.systemd.property.Description": "'of the test'",
        });
    });
    detached(&t, "exec sleep 1000");
    let u = unit(&t);
    assert_eq!(property(&u, "TimeoutStopUSec"), "7s");
    assert_eq!(property(&u, "CollectMode"), "inactive-or-failed");
    assert_eq!(property(&u, "Description"), "of the test");
    t.end();
    for (name, value, says) in [
        ("NoSuchThing", "1", "NoSuchThing"),
        ("TimeoutStopSec", "'x'", "number of seconds"),
        ("Description", "plain", "a value expected"),
    ] {
        t.edit(|c| c["annotations"] = json!({ format!("org.systemd.property.{name}"): value }));
        with_systemd(&t, "create", &[]).fails(says).one_line();
        t.nothing_left();
    }
}

#[test]
fn other_forms_of_the_path_are_refused() {
    requires!(root);
    requires!(systemd(), "needs systemd as PID 1");
    rrun_only!("crun takes two parts");
    let t = Test::new("wrongpath");
    for (path, says) in [
        ("a:b", "slice:prefix:name"),
        ("/a/b", "slice:prefix:name"),
        ("a:b:c", "invalid slice name"),
        ("a--b.slice:b:c", "invalid slice name"),
        ("a.slice:b:../c", "not a valid unit name"),
        ("a.slice:b:c.slice", "cannot hold a process"),
    ] {
        t.edit(|c| c["linux"]["cgroupsPath"] = json!(path));
        with_systemd(&t, "create", &[]).fails(says).one_line();
        t.nothing_left();
    }
}

/// No later command repeats the choice, and none leaves the unit behind.
#[test]
fn the_choice_is_on_record() {
    requires!(root);
    requires!(systemd(), "needs systemd as PID 1");
    let t = scoped("record");
    t.sh("exec sleep 1000");
    with_systemd(&t, "create", &[]).ok();
    let u = unit(&t);
    assert_eq!(property(&u, "ActiveState"), "active");
    t.start();
    t.rt(&["update", "--pids-limit", "44", &t.id]).go().ok();
    assert_eq!(property(&u, "TasksMax"), "44");
    t.rt(&["pause", &t.id]).go().ok();
    assert_eq!(t.status(), "paused");
    t.rt(&["resume", &t.id]).go().ok();
    assert_eq!(t.exec(&["cat", "/proc/1/comm"]).ok().stdout().trim(), "sleep");
    let inside = fs::read_to_string(format!("/proc/{}/cgroup", t.pid())).unwrap();
    let lines = inside.lines().filter(|line| !line.is_empty());
    for line in lines.filter(|line| !line.ends_with(":/") || v2()) {
        assert!(line.contains(&u), "{inside}");
    }
    t.kill("KILL").ok();
    t.wait_status("stopped");
    t.rt(&["delete", &t.id]).go().ok();
    t.nothing_left();
    is_gone(&u);
}

#[test]
fn a_unit_that_failed_goes_with_the_container() {
    requires!(root);
    requires!(systemd(), "needs systemd as PID 1");
    let t = scoped("failed");
    t.edit(|c| c["annotations"] = json!({
        "org.systemd.property.RuntimeMaxSec": "uint64 3", "org.systemd.property.TimeoutStopSec": "uint64 1",
    }));
    detached(&t, "exec sleep 1000");
    wait_for("the end", SECONDS_20, || (t.status() == "stopped").then_some(()));
    let u = unit(&t);
    wait_for("a failed unit", SECONDS_20, || (property(&u, "ActiveState") == "failed").then_some(()));
    t.rt(&["delete", &t.id]).go().ok();
    is_gone(&u);
}

#[test]
fn a_stale_unit_makes_room_and_a_used_one_does_not() {
    requires!(root);
    requires!(systemd(), "needs systemd as PID 1");
    let t = scoped("stale");
    let u = unit(&t);
    // A service of that unit's name cannot be; a scope that failed can.
    let scope = |script: &str| {
        let mut command = Command::new("systemd-run");
        command.args([
            "--quiet",
            "--scope",
            "--unit",
            &u,
            "--slice",
            SLICE,
            "-p",
            "RuntimeMaxSec=1",
            "sh",
            "-c",
            script,
        ]);
        command.stderr(std::process::Stdio::null()).spawn().unwrap()
    };
    let mut used = scope("trap '' TERM; sleep 3 & wait; exec sleep 100");
    let active = || matches!(property(&u, "ActiveState").as_str(), "active" | "deactivating");
    wait_for("the scope", SECONDS_20, || active().then_some(()));
    t.sh("exec sleep 1000");
    with_systemd(&t, "create", &[]).fails("container's cgroup is not empty").one_line();
    assert!(!t.state.join(&t.id).exists());
    let _ = Command::new("systemctl").args(["kill", "--signal=KILL", &u]).status();
    let _ = used.wait();
    wait_for("its end", SECONDS_20, || (!active()).then_some(()));
    with_systemd(&t, "create", &[]).ok();
    t.end();
    is_gone(&u);
}

/// It is not systemd's and not of a container: it stays as it is, and so does the refusal. runc's `cgroups.bats` asks
/// twice.
#[test]
fn a_frozen_cgroup_in_the_scopes_place_is_refused_and_kept() {
    requires!(root);
    requires!(systemd() && v2(), "needs systemd as PID 1 and cgroup v2");
    rrun_only!("crun joins it");
    let t = scoped("frozen");
    t.sh("exec sleep 1000");
    systemctl(&["start", SLICE]);
    let place = Path::new("/sys/fs/cgroup").join(SLICE).join(unit(&t));
    fs::create_dir(&place).unwrap();
    fs::write(place.join("cgroup.freeze"), "1").unwrap();
    for verb in ["run", "create"] {
        with_systemd(&t, verb, &[]).fails("container's cgroup unexpectedly frozen").one_line();
        assert!(place.is_dir(), "after {verb}");
    }
    fs::remove_dir(&place).unwrap();
    with_systemd(&t, "create", &[]).ok();
    t.end();
}

/// The opens that a container may and may not do.
fn opens(t: &Test) -> String {
    let script = "for d in /f /k /z; do if dd if=$d of=/dev/null count=0 2>/tmp/e; then echo yes; \
                  else grep -q 'not permitted' /tmp/e && echo no || cat /tmp/e; fi; done";
    t.exec(&["sh", "-c", script]).ok().stdout().split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn devices_and_limits_survive_a_reload() {
    requires!(root);
    requires!(systemd(), "needs systemd as PID 1");
    // With one thread all tests are in it.
    QUIET.take();
    let _alone = REEXEC.write();
    let t = scoped_alone("reload");
    t.edit(|c| {
        let allowed = json!({ "allow": true, "type": "c", "major": 10, "minor": 229, "access": "rwm" });
        c["linux"]["resources"]["devices"].as_array_mut().unwrap().push(allowed);
        c["linux"]["resources"]["pids"] = json!({ "limit": 66 });
        c["linux"]["resources"]["cpu"] = json!({ "quota": 12_500, "period": 50_000 });
    });
    let _ = Command::new("modprobe").arg("fuse").status();
    detached(&t, "mknod /f c 10 229; mknod /k c 1 11; mknod /z c 1 5; touch /ready; exec sleep 1000");
    wait_for("the nodes", SECONDS_20, || t.rootfs.join("ready").exists().then_some(()));
    let u = unit(&t);
    let before = limits(&u);
    assert_eq!(opens(&t), "yes no yes");
    for word in ["daemon-reload", "daemon-reexec", "daemon-reload"] {
        systemctl(&[word]);
        assert_eq!(opens(&t), "yes no yes", "after {word}");
        assert_eq!(limits(&u), before, "after {word}");
    }
    // What an update does not name stays as well, though systemd writes all of the unit again.
    t.rt(&["update", "--pids-limit", "44", &t.id]).go().ok();
    systemctl(&["daemon-reload"]);
    assert_eq!(opens(&t), "yes no yes", "after update");
    let changed: Vec<_> = limits(&u).into_iter().filter(|(k, v)| before.get(k) != Some(v)).collect();
    assert_eq!(changed, [("pids.max".to_owned(), "44".to_owned())]);
    t.end();
}

/// create killed at any instant leaves what `delete --force` removes (the system calls are a sample).
#[test]
fn a_killed_create_leaves_nothing_for_good() {
    requires!(root);
    requires!(systemd(), "needs systemd as PID 1");
    requires!(program "strace");
    rrun_only!("the peers write their record last");
    for (call, n) in
        [("sendto", 3), ("sendto", 5), ("recvfrom", 9), ("poll", 4), ("renameat", 3), ("mkdirat", 2)]
    {
        let t = scoped("killed");
        t.sh("exec sleep 1000");
        let inject = format!("inject={call}:signal=KILL:when={n}");
        let wrapper = ["strace", "-qq", "-o", "/dev/null", "-e", &inject];
        let mut args = vec!["--systemd-cgroup", "create", "--bundle", t.bundle.to_str().unwrap()];
        args.push(&t.id);
        let _ = t.rt(&args).under(&wrapper).limit(Duration::from_secs(60)).go();
        t.rt(&["delete", "--force", &t.id]).limit(Duration::from_secs(60)).go().ok();
        t.nothing_left();
        is_gone(&unit(&t));
    }
}

#[test]
fn without_systemd_the_error_says_so() {
    requires!(root);
    requires!(!systemd(), "needs a machine without systemd");
    let t = scoped("nosystemd");
    let out = with_systemd(&t, "create", &[]);
    out.fails("systemd not running on this host").one_line();
    t.nothing_left();
}

/// A bus that is not there, or that is silent, is an error with a name and an end.
#[test]
fn a_bus_that_is_named_and_not_there_is_passed_over() {
    requires!(root);
    requires!(systemd(), "needs systemd as PID 1");
    rrun_only!("the peers know one address");
    let t = scoped("bus");
    t.sh("exec sleep 1000");
    let args = ["--systemd-cgroup", "create", "--bundle", t.bundle.to_str().unwrap(), &t.id];
    t.rt(&args).env("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent").go().ok();
    t.end();
    // The message bus itself, and not systemd's own socket.
    let bus = "unix:path=/run/dbus/system_bus_socket";
    t.rt(&args).env("DBUS_SYSTEM_BUS_ADDRESS", bus).go().ok();
    t.rt(&["delete", "--force", &t.id]).env("DBUS_SYSTEM_BUS_ADDRESS", bus).go().ok();
    t.nothing_left();
    is_gone(&unit(&t));
}

/// A user's container in a scope of the user's own systemd, with the environment that podman leaves.
#[test]
fn a_user_has_a_scope_too() {
    requires!(root);
    requires!(systemd() && v2(), "needs systemd as PID 1 and cgroup v2");
    requires!(
        Path::new("/run/user/1000/systemd/private").exists(),
        "needs user 1000 with a systemd of its own"
    );
    let t = scoped("user");
    t.sh("exec sleep 1000").edit(|c| {
        c["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "user" }));
        c["linux"]["namespaces"].as_array_mut().unwrap().retain(|n| n["type"] != "network");
        c["linux"]["uidMappings"] = json!([{ "containerID": 0, "hostID": 1000, "size": 1 }]);
        c["linux"]["gidMappings"] = json!([{ "containerID": 0, "hostID": 1000, "size": 1 }]);
        c["linux"]["resources"] = json!({ "pids": { "limit": 55 }, "memory": { "limit": 67_108_864 } });
        c["mounts"] = json!([{ "destination": "/proc", "type": "proc", "source": "proc" }]);
    });
    fs::create_dir_all(&t.state).unwrap();
    let owned = Command::new("chown").args(["-R", "1000:1000"]).arg(&t.dir).status().unwrap();
    assert!(owned.success());
    let as_user = |env: &[&str], args: &[&str]| {
        let who =
            ["setpriv", "--reuid=1000", "--regid=1000", "--clear-groups", "env", "-i", "PATH=/usr/bin:/bin"];
        let mark = format!("RRUN_TEST={}", t.id);
        let wrapper = [&who[..], &[mark.as_str()], env].concat();
        t.rt(args).under(&wrapper).limit(Duration::from_secs(60)).go()
    };
    let bundle = t.bundle.to_str().unwrap();
    let run = ["--systemd-cgroup", "run", "--detach", "--bundle", bundle, &t.id];
    let run_dir = ["XDG_RUNTIME_DIR=/run/user/1000"];
    for env in [&run_dir[..], &[]] {
        as_user(env, &run).ok();
        let u = unit(&t);
        let base = "/sys/fs/cgroup/user.slice/user-1000.slice/user@1000.service";
        let dir = Path::new(base).join(SLICE).join(&u);
        assert_eq!(fs::read_to_string(dir.join("pids.max")).unwrap().trim(), "55");
        let state = as_user(env, &["state", &t.id]);
        state.ok();
        let state: Value = serde_json::from_str(&state.stdout()).unwrap();
        assert!(fs::read_to_string(dir.join("cgroup.procs")).unwrap().contains(&state["pid"].to_string()));
        // From a cgroup that is not the user's, where writing to cgroup.procs is refused.
        let out = as_user(env, &["exec", &t.id, "cat", "/proc/self/cgroup"]);
        assert_eq!(out.ok().stdout(), "0::/\n", "the root of the container's cgroup namespace");
        as_user(env, &["update", "--pids-limit", "44", &t.id]).ok();
        assert_eq!(fs::read_to_string(dir.join("pids.max")).unwrap().trim(), "44");
        as_user(env, &["kill", &t.id, "KILL"]).ok();
        wait_for("the end", SECONDS_20, || {
            as_user(env, &["state", &t.id]).stdout().contains("\"stopped\"").then_some(())
        });
        as_user(env, &["delete", &t.id]).ok();
        t.nothing_left();
    }
}
