//! cgroup v2 alone, through the cgroup file system: needs a machine without v1 hierarchies, as the guest of
//! tests/vm is.

use crate::harness::{Out, SECONDS_5, Test, is_rrun, program, wait_for};
use crate::{requires, rrun_only};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

const ROOT: &str = "/sys/fs/cgroup";

/// Whether this machine has cgroup v2 and nothing else.
fn v2() -> bool {
    Path::new(ROOT).join("cgroup.controllers").exists()
}

/// What this machine's v2 hierarchy controls.
fn controllers() -> String {
    fs::read_to_string(Path::new(ROOT).join("cgroup.controllers")).unwrap()
}

/// Returns from a test that needs controllers which are absent.
macro_rules! needs {
    ($($name:literal)*) => {
        $(requires!(controllers().contains($name), concat!("needs the v2 controller ", $name));)*
    };
}

fn read(dir: &Path, file: &str) -> String {
    let path = dir.join(file);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).trim().to_owned()
}

fn own_cgroup(pid: u32) -> PathBuf {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    Path::new(ROOT).join(text.lines().find_map(|line| line.strip_prefix("0::/")).unwrap())
}

fn cgroup(t: &Test) -> PathBuf {
    own_cgroup(t.pid())
}

fn resources(t: &Test, resources: Value) -> &Test {
    t.edit(|c| {
        for (key, value) in resources.as_object().unwrap() {
            c["linux"]["resources"][key] = value.clone();
        }
    })
}

/// A cgroup that a test has made itself, and a process in it.
struct Own(PathBuf);

impl Own {
    fn new(path: &str) -> Self {
        let path = Path::new(ROOT).join(path.trim_start_matches('/'));
        fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let _ = fs::write(self.0.join("cgroup.freeze"), "0");
        let _ = fs::write(self.0.join("cgroup.kill"), "1");
        let end = std::time::Instant::now() + SECONDS_5;
        while fs::remove_dir(&self.0).is_err() && std::time::Instant::now() < end {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn sleeper_in(dir: &Path) -> std::process::Child {
    let child = Command::new("sleep").arg("1000").stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    fs::write(dir.join("cgroup.procs"), child.id().to_string()).unwrap();
    child
}

// ---- devices

const NODES: [(char, u32, u32); 9] = [
    ('c', 1, 3),
    ('c', 1, 12),
    ('c', 10, 200),
    ('c', 10, 229),
    ('c', 42, 1),
    ('b', 1, 3),
    ('b', 42, 1),
    ('b', 42, 2),
    ('b', 43, 1),
];

/// What every container may do: make any node, and use these.
const ALWAYS: [(u32, Option<u32>); 9] = [
    (1, Some(3)),
    (1, Some(5)),
    (1, Some(7)),
    (1, Some(8)),
    (1, Some(9)),
    (5, Some(0)),
    (5, Some(2)),
    (10, Some(200)),
    (136, None),
];

/// The last rule that speaks of each bit decides it.
fn allowed(rules: &Value, typ: char, major: u32, minor: u32, access: &str) -> bool {
    access.chars().all(|bit| {
        if bit == 'm'
            || (typ == 'c' && ALWAYS.iter().any(|(a, b)| *a == major && b.is_none_or(|b| b == minor)))
        {
            return true;
        }
        let speaks = |rule: &&Value| {
            let number = |key: &str, n: u32| rule[key].as_u64().is_none_or(|given| given == u64::from(n));
            let kind = rule["type"].as_str().unwrap_or("a");
            (kind == "a" || kind == typ.to_string())
                && number("major", major)
                && number("minor", minor)
                && rule["access"].as_str().unwrap().contains(bit)
        };
        let rules = rules.as_array().unwrap();
        rules.iter().rev().find(speaks).is_some_and(|rule| rule["allow"] == true)
    })
}

/// Every node of [`NODES`] is opened in each way and made anew. The kernel asks before it looks for a driver, so that
/// EPERM is a refusal and any other end is none.
fn device_script() -> String {
    let mut script = String::from("cd /nodes\n");
    for (typ, major, minor) in NODES {
        let node = format!("{typ}{major}-{minor}");
        for (what, command) in [
            ("r", format!(": <{node}")),
            ("w", format!(": >>{node}")),
            ("rw", format!(": <>{node}")),
            ("m", format!("mknod /tmp/made {typ} {major} {minor}; rm -f /tmp/made")),
        ] {
            script.push_str(&format!(
                "case $( ({command}) 2>&1) in *'not permitted'*) ;; *) echo {typ} {major}:{minor} {what};; esac\n"
            ));
        }
    }
    script
}

fn with_nodes(name: &str, rules: &Value) -> Test {
    let t = Test::new(name);
    let dir = t.rootfs.join("nodes");
    fs::create_dir(&dir).unwrap();
    for (typ, major, minor) in NODES {
        let (kind, major, minor) = (typ.to_string(), major.to_string(), minor.to_string());
        let node = dir.join(format!("{typ}{major}-{minor}"));
        assert!(Command::new("mknod").arg(node).args([kind, major, minor]).status().unwrap().success());
    }
    t.edit(|c| c["linux"]["resources"]["devices"] = rules.clone());
    t
}

#[test]
fn every_device_rule_holds_when_devices_are_opened_and_made() {
    requires!(root);
    requires!(v2(), "needs cgroup v2 alone");
    for rules in [
        json!([]),
        json!([{ "allow": false, "access": "rwm" }]),
        json!([{ "allow": true, "access": "rwm" }]),
        json!([{ "allow": true, "type": "a", "access": "rwm" },
               { "allow": false, "type": "b", "major": 42, "access": "w" }]),
        json!([{ "allow": false, "access": "rwm" },
               { "allow": true, "type": "c", "major": 1, "minor": 12, "access": "r" },
               { "allow": true, "type": "b", "major": 42, "minor": 1, "access": "rw" }]),
        json!([{ "allow": true, "type": "b", "access": "rw" },
               { "allow": false, "type": "b", "major": 42, "minor": 2, "access": "r" }]),
        json!([{ "allow": true, "type": "c", "minor": 1, "access": "rw" },
               { "allow": true, "type": "c", "major": 10, "access": "w" }]),
        json!([{ "allow": true, "major": 42, "minor": 1, "access": "w" },
               { "allow": true, "type": "b", "major": 42, "minor": 1, "access": "r" }]),
        json!([{ "allow": true, "type": "b", "major": 43, "access": "rwm" },
               { "allow": false, "access": "rwm" }]),
    ] {
        // The peers refuse a hole in a wider rule.
        let hole = rules.to_string().contains("\"minor\":2");
        if hole && !is_rrun() {
            continue;
        }
        let t = with_nodes("devs", &rules);
        let got = t.output(&device_script());
        let mut want = String::new();
        for (typ, major, minor) in NODES {
            for access in ["r", "w", "rw", "m"] {
                if allowed(&rules, typ, major, minor, access) {
                    want.push_str(&format!("{typ} {major}:{minor} {access}\n"));
                }
            }
        }
        assert_eq!(got, want, "{rules}");
    }
}

#[test]
fn devices_stay_closed_through_updates() {
    requires!(root);
    requires!(v2(), "needs cgroup v2 alone");
    needs!("pids");
    let t = with_nodes("devupd", &json!([{ "allow": false, "access": "rwm" }]));
    t.detached("while :; do (: </nodes/c10-229) 2>/dev/null && echo open >/tmp/open; done");
    for limit in ["20", "30", "40"] {
        t.rt(&["update", "--pids-limit", limit, &t.id]).go().ok();
    }
    assert_eq!(read(&cgroup(&t), "pids.max"), "40");
    assert!(!t.rootfs.join("tmp/open").exists());
    t.end();
}

// ---- into the cgroup

fn trace(t: &Test, run: crate::harness::Run<'_>, more: &[&str]) -> String {
    let path = t.dir.join("trace");
    let file = path.to_str().unwrap();
    let calls = "trace=clone3,openat2,bpf,setns,write";
    let mut under = vec!["strace", "-f", "-qq", "-s", "200", "-o", file, "-e", calls];
    under.extend(more);
    run.under(&under).limit(Duration::from_secs(200)).go().ok();
    fs::read_to_string(path).unwrap()
}

#[test]
fn processes_begin_in_the_cgroup() {
    requires!(root);
    requires!(v2(), "needs cgroup v2 alone");
    requires!(program "strace");
    rrun_only!("clone3 right into the cgroup");
    let t = Test::new("into");
    let pids = controllers().contains("pids");
    if pids {
        resources(&t, json!({ "pids": { "limit": 1 } }));
    }
    let joined = |text: &str| text.lines().any(|l| l.contains("cgroup.procs") && l.contains("O_WRONLY"));
    t.sh("exec true");
    let made = trace(&t, t.bundle_command("run", &[]), &[]);
    assert!(made.contains("CLONE_INTO_CGROUP") && !joined(&made), "{made}");
    let limited = made.find(if pids { "pids.max" } else { "BPF_PROG_ATTACH" }).unwrap();
    assert!(limited < made.find("CLONE_INTO_CGROUP").unwrap(), "limits come first: {made}");
    t.sh("exec sleep 1000");
    t.bundle_command("run", &["--detach"]).go().ok();
    assert!(read(&cgroup(&t), "cgroup.procs").contains(&t.pid().to_string()));
    // Its limit on processes is reached, which holds for forks and not for exec.
    assert_eq!(t.exec(&["grep", "^0::", "/proc/self/cgroup"]).stdout(), "0::/\n");
    if pids {
        // Room for a relay and not for what it makes.
        t.rt(&["update", "--pids-limit", "2", &t.id]).go().ok();
        assert_eq!(t.exec(&["grep", "^0::", "/proc/self/cgroup"]).stdout(), "0::/\n");
        t.rt(&["update", "--pids-limit", "9", &t.id]).go().ok();
    }
    let exec = trace(&t, t.rt(&["exec", &t.id, "grep", "^0::", "/proc/self/cgroup"]), &[]);
    assert!(exec.contains("CLONE_INTO_CGROUP") && !joined(&exec), "{exec}");
    t.end();
}

#[test]
fn a_kernel_that_refuses_the_cgroup_is_no_error() {
    requires!(root);
    requires!(v2(), "needs cgroup v2 alone");
    requires!(program "strace");
    rrun_only!("clone3 right into the cgroup");
    for errno in ["EINVAL", "EOPNOTSUPP", "EBUSY", "EACCES", "E2BIG", "ENOSYS"] {
        let t = Test::new("refused");
        t.sh("grep ^0:: /proc/self/cgroup >/tmp/where").edit(|c| {
            let namespaces = c["linux"]["namespaces"].as_array_mut().unwrap();
            namespaces.retain(|namespace| namespace["type"] != "cgroup");
        });
        let inject = format!("inject=clone3:error={errno}:when=1");
        let made = trace(&t, t.bundle_command("run", &[]), &["-e", &inject]);
        assert!(made.contains("INJECTED") && made.contains("cgroup.procs"), "{made}");
        let own = fs::read_to_string(t.rootfs.join("tmp/where")).unwrap();
        assert!(own.trim().ends_with(&t.id), "{errno}: {own}");
        t.nothing_left();
    }
}

#[test]
fn user_namespaces_are_joined_with_the_cgroup_right() {
    requires!(root);
    requires!(v2(), "needs cgroup v2 alone");
    let holder = Test::new("holder");
    holder.map_users().detached("exec sleep 1000");
    let pid = holder.pid();
    let t = Test::new("joiner");
    t.map_users();
    t.edit(|c| {
        for namespace in c["linux"]["namespaces"].as_array_mut().unwrap() {
            if namespace["type"] == "user" {
                namespace["path"] = json!(format!("/proc/{pid}/ns/user"));
            }
        }
        c["linux"].as_object_mut().unwrap().remove("uidMappings");
        c["linux"].as_object_mut().unwrap().remove("gidMappings");
    });
    t.detached("exec sleep 1000");
    assert!(cgroup(&t).ends_with(&t.id));
    for container in [&holder, &t] {
        assert_eq!(container.exec(&["grep", "^0::", "/proc/self/cgroup"]).stdout(), "0::/\n");
    }
    t.end();
    holder.end();
}

// ---- resources

/// The settings in a cgroup: files that can be read and written.
fn settings(dir: &Path) -> BTreeMap<String, String> {
    let mut map = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        let mode = entry.metadata().unwrap().permissions().mode();
        // The last is another view of cpu.weight.
        let other = ["cgroup.procs", "cgroup.threads", "cpu.weight.nice"];
        let moving = other.contains(&name.as_str()) || name.ends_with(".pressure");
        if mode & 0o600 == 0o600
            && entry.file_type().unwrap().is_file()
            && !moving
            && let Ok(text) = fs::read_to_string(entry.path())
        {
            map.insert(name, text.trim().to_owned());
        }
    }
    map
}

/// A container of a peer, by its own command line.
struct Peer<'a> {
    program: PathBuf,
    test: &'a Test,
}

impl Peer<'_> {
    fn go(&self, args: &[&str]) -> bool {
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(&self.test.state).args(args).env("RRUN_TEST", &self.test.id);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(fs::File::create(self.test.dir.join("peer.err")).unwrap());
        command.status().unwrap().success()
    }

    fn ok(&self, args: &[&str]) {
        let error = || fs::read_to_string(self.test.dir.join("peer.err")).unwrap();
        assert!(self.go(args), "{} {args:?}: {}", self.program.display(), error());
    }

    fn pid(&self) -> u32 {
        fs::read_to_string(self.test.dir.join("peer.pid")).unwrap().parse().unwrap()
    }

    fn run(&self) {
        let pid_file = self.test.dir.join("peer.pid");
        let (bundle, pid_file) = (self.test.bundle.to_str().unwrap(), pid_file.to_str().unwrap());
        self.ok(&["run", "--detach", "--bundle", bundle, "--pid-file", pid_file, &self.test.id]);
    }
}

/// Where the peers of Debian 12 differ, and why rrun does not follow them: file, runc 1.1.5's value, crun
/// 1.8.1's, rrun's. None is "as rrun".
type Difference = (&'static str, Option<&'static str>, Option<&'static str>, &'static str);

fn compare(name: &str, given: &Value, updates: &[(&str, &[Difference])], first: &[Difference]) {
    let with = |who: &str| {
        let t = Test::new(&format!("{who}{name}"));
        resources(&t, given.clone());
        t.sh("exec sleep 1000");
        t
    };
    let mine = with("rrun");
    mine.bundle_command("run", &["--detach"]).go().ok();
    let others: Vec<Test> = ["runc", "crun"].iter().map(|who| with(who)).collect();
    let peers: Vec<Peer<'_>> = ["runc", "crun"]
        .iter()
        .zip(&others)
        .map(|(who, test)| Peer { program: program(who).unwrap(), test })
        .collect();
    peers.iter().for_each(Peer::run);
    let check = |when: &str, differences: &[Difference]| {
        let ours = settings(&cgroup(&mine));
        for (peer, which) in peers.iter().zip([1, 2]) {
            let mut theirs = settings(&own_cgroup(peer.pid()));
            for (file, runc, crun, rrun) in differences {
                assert_eq!(ours.get(*file).map(String::as_str), Some(*rrun), "{file} {when}");
                let Some(other) = (if which == 1 { runc } else { crun }) else { continue };
                assert_eq!(theirs.get(*file).map(String::as_str), Some(*other), "{file} {when}: {peer:?}");
                theirs.insert((*file).to_owned(), (*rrun).to_owned());
            }
            let differ: Vec<_> = ours
                .iter()
                .filter(|(file, value)| theirs.get(*file) != Some(value))
                .map(|(file, value)| format!("{file}: {value:?}, theirs {:?}", theirs.get(file)))
                .collect();
            assert!(differ.is_empty(), "{name} {when} {peer:?}: {}", differ.join("; "));
            assert_eq!(ours.len(), theirs.len());
        }
    };
    check("after create", first);
    for (update, differences) in updates {
        let path = mine.dir.join("update.json");
        fs::write(&path, update).unwrap();
        let path = path.to_str().unwrap();
        mine.rt(&["update", "--resources", path, &mine.id]).go().ok();
        for peer in &peers {
            peer.ok(&["update", "--resources", path, &peer.test.id]);
        }
        check(update, differences);
    }
    for peer in &peers {
        peer.ok(&["delete", "--force", &peer.test.id]);
        peer.test.nothing_left();
    }
    mine.end();
}

impl std::fmt::Debug for Peer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.program.display())
    }
}

fn disk() -> Option<(u32, u32)> {
    fs::read_dir("/sys/block").unwrap().flatten().find_map(|d| {
        if !d.file_name().to_str()?.starts_with("vd") {
            return None;
        }
        let number = fs::read_to_string(d.path().join("dev")).ok()?;
        let (major, minor) = number.trim().split_once(':')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    })
}

#[test]
fn cpu_is_as_the_peers_have_it() {
    requires!(root);
    requires!(v2(), "needs cgroup v2 alone");
    needs!("cpu" "cpuset");
    requires!(program "runc");
    requires!(program "crun");
    rrun_only!("it runs beside the peers");
    // 1.1 and 1.8 turn shares into weights along a line, by which 1024 is 39; the formula through 100 came later.
    compare(
        "cpu",
        &json!({ "cpu": { "shares": 512, "quota": 30_000, "period": 60_000, "cpus": "0", "mems": "0" } }),
        &[
            (r#"{"cpu":{"quota":20000,"period":50000}}"#, &[("cpu.weight", Some("20"), Some("20"), "59")]),
            (r#"{"cpu":{"shares":2048,"cpus":"0-1"}}"#, &[("cpu.weight", Some("79"), Some("79"), "174")]),
        ],
        &[("cpu.weight", Some("20"), Some("20"), "59")],
    );
}

#[test]
fn memory_is_as_the_peers_have_it() {
    requires!(root);
    requires!(v2(), "needs cgroup v2 alone");
    needs!("memory");
    requires!(program "runc");
    requires!(program "crun");
    rrun_only!("it runs beside the peers");
    compare(
        "mem",
        &json!({ "memory": { "limit": 67_108_864, "reservation": 33_554_432, "swap": 134_217_728 } }),
        &[
            (r#"{"memory":{"limit":100663296,"swap":134217728,"reservation":16777216}}"#, &[]),
            (r#"{"memory":{"limit":50331648,"swap":50331648}}"#, &[]),
        ],
        &[],
    );
    compare("memonly", &json!({ "memory": { "limit": 67_108_864 } }), &[], &[]);
    compare("memmax", &json!({ "memory": { "limit": 67_108_864, "swap": -1 } }), &[], &[]);
}

#[test]
fn pids_io_and_huge_pages_are_as_the_peers_have_them() {
    requires!(root);
    requires!(v2(), "needs cgroup v2 alone");
    needs!("pids" "io" "memory");
    requires!(program "runc");
    requires!(program "crun");
    rrun_only!("it runs beside the peers");
    requires!(disk().is_some(), "needs a virtio disk");
    let (major, minor) = disk().unwrap();
    let rate = |rate: u64| json!([{ "major": major, "minor": minor, "rate": rate }]);
    compare(
        "io",
        &json!({
            "pids": { "limit": 55 },
            "blockIO": { "throttleReadBpsDevice": rate(1_048_576), "throttleWriteBpsDevice": rate(2_097_152),
                "throttleReadIOPSDevice": rate(100), "throttleWriteIOPSDevice": rate(200) },
            "unified": { "memory.high": "50331648", "cgroup.max.depth": "3" },
        }),
        &[(r#"{"pids":{"limit":77}}"#, &[]), (r#"{"pids":{"limit":-1}}"#, &[])],
        &[],
    );
    if Path::new(ROOT).join("system.slice/hugetlb.2MB.max").exists() {
        // Neither of these versions limits reservations.
        let limit = "4194304";
        compare(
            "huge",
            &json!({ "hugepageLimits": [{ "pageSize": "2MB", "limit": 4_194_304 }] }),
            &[],
            &[("hugetlb.2MB.rsvd.max", Some("max"), Some("max"), limit)],
        );
    }
}

#[test]
fn block_weights_reach_the_scheduler_that_is_there() {
    requires!(root);
    requires!(v2(), "needs cgroup v2 alone");
    needs!("io");
    let t = Test::new("weight");
    resources(&t, json!({ "blockIO": { "weight": 10 } }));
    t.sh("exec sleep 1000");
    let out = t.bundle_command("run", &["--detach"]).go();
    if out.code != Some(0) {
        out.fails("bfq|io.weight|no such file").one_line();
        t.nothing_left();
        return;
    }
    let dir = cgroup(&t);
    let (file, first, second) = match dir.join("io.bfq.weight").exists() {
        true => ("io.bfq.weight", "10", "1000"),
        false => ("io.weight", "1", "10000"),
    };
    let seen = || read(&dir, file).trim_start_matches("default ").to_owned();
    assert_eq!(seen(), first, "{file}");
    t.rt(&["update", "--blkio-weight", "1000", &t.id]).go().ok();
    assert_eq!(seen(), second, "{file}");
    t.end();
}

#[test]
fn update_has_every_flag_on_v2() {
    requires!(root);
    requires!(v2(), "needs cgroup v2 alone");
    needs!("cpu" "cpuset" "memory" "pids");
    let t = Test::new("updflags");
    resources(
        &t,
        json!({ "memory": { "limit": 67_108_864 }, "cpu": { "quota": 50_000, "period": 100_000 } }),
    );
    t.detached("exec sleep 1000");
    let dir = cgroup(&t);
    for (flag, given, file, want) in [
        ("--cpu-period", "50000", "cpu.max", "50000 50000"),
        ("--cpu-quota", "40000", "cpu.max", "40000 50000"),
        ("--cpu-quota", "-1", "cpu.max", "max 50000"),
        ("--cpu-quota", "20000", "cpu.max", "20000 50000"),
        ("--cpu-burst", "10000", "cpu.max.burst", "10000"),
        ("--cpu-share", "2048", "cpu.weight", "174"),
        ("--cpu-idle", "1", "cpu.idle", "1"),
        ("--cpuset-cpus", "0", "cpuset.cpus", "0"),
        ("--cpuset-mems", "0", "cpuset.mems", "0"),
        ("--memory", "96M", "memory.max", "100663296"),
        ("--memory-reservation", "32M", "memory.low", "33554432"),
        // Swap alone: what is in force of memory counts.
        ("--memory-swap", "128M", "memory.swap.max", "33554432"),
        ("--memory-swap", "96M", "memory.swap.max", "0"),
        ("--memory-swap", "-1", "memory.swap.max", "max"),
        ("--pids-limit", "77", "pids.max", "77"),
        ("--pids-limit", "0", "pids.max", "1"),
        ("--pids-limit", "-1", "pids.max", "max"),
        ("--memory", "-1", "memory.max", "max"),
    ] {
        // Debian's have not all of them, and convert shares along a line.
        if !is_rrun() && ["--cpu-burst", "--cpu-idle", "--cpu-share", "--memory-swap"].contains(&flag) {
            continue;
        }
        t.rt(&["update", flag, given, &t.id]).go().ok();
        assert_eq!(read(&dir, file), want, "{flag} {given}");
    }
    if is_rrun() {
        t.rt(&["update", "--memory-swap", "1M", "--memory", "2M", &t.id])
            .go()
            .fails("memory+swap limit should be");
        let check = r#"{"memory":{"limit":4096,"checkBeforeUpdate":true}}"#;
        t.rt(&["update", "-r", "-", &t.id]).stdin(check).go().fails("rejecting memory limit 4096 <= usage");
        assert_eq!(read(&dir, "memory.max"), "max");
        t.rt(&["update", "--cpu-rt-runtime", "5", &t.id]).go().fails("realtime").one_line();
    }
    t.end();
}

#[test]
fn a_change_of_memory_leaves_the_sum_with_swap() {
    requires!(root);
    requires!(v2(), "needs cgroup v2 alone");
    needs!("memory");
    let t = Test::new("sum");
    resources(&t, json!({ "memory": { "limit": 67_108_864, "swap": 134_217_728 } }));
    t.detached("exec sleep 1000");
    let dir = cgroup(&t);
    let both = || (read(&dir, "memory.max"), read(&dir, "memory.swap.max"));
    assert_eq!(both(), ("67108864".into(), "67108864".into()));
    t.rt(&["update", "--memory", "96M", &t.id]).go().ok();
    assert_eq!(both(), ("100663296".into(), "33554432".into()));
    t.rt(&["update", "--memory", "192M", &t.id]).go().fails("memory+swap limit should be");
    assert_eq!(both(), ("100663296".into(), "33554432".into()));
    t.end();
}

#[test]
fn what_v2_cannot_do_is_refused() {
    requires!(root);
    requires!(v2(), "needs cgroup v2 alone");
    needs!("cpu" "cpuset" "memory" "io" "hugetlb");
    rrun_only!("config-linux.md says MUST; runc ignores some");
    for (given, text) in [
        (json!({ "memory": { "swappiness": 10 } }), "memory.swappiness"),
        (json!({ "memory": { "disableOOMKiller": true } }), "cannot disable oom killer"),
        (json!({ "memory": { "limit": 8_388_608, "swap": 4_194_304 } }), "memory+swap limit should be >="),
        (json!({ "memory": { "swap": 4_194_304 } }), "without memory limit"),
        (json!({ "cpu": { "realtimeRuntime": 5 } }), "realtime"),
        (json!({ "blockIO": { "leafWeight": 10 } }), "leaf weight"),
        (json!({ "network": { "classID": 5 } }), "net_cls"),
        (json!({ "unified": { "nope.max": "1" } }), "can't be set: controller"),
        (json!({ "unified": { "memory.nope": "1" } }), "memory.nope"),
        (json!({ "hugepageLimits": [{ "pageSize": "3MB", "limit": 1 }] }), "huge page size"),
        (json!({ "cpu": { "cpus": "1000" } }), "cpuset.cpus"),
    ] {
        let t = Test::new("cannot");
        resources(&t, given.clone());
        t.bundle_command("create", &[]).go().fails(text).one_line();
        t.nothing_left();
    }
    let t = Test::new("kmem");
    resources(&t, json!({ "memory": { "kernel": 8_388_608, "kernelTCP": 8_388_608 } }));
    t.bundle_command("run", &[]).go().ok().says("kernel memory limits are ignored");
}

// ---- places

fn asks(t: &Test, path: &str) -> Out {
    t.edit(|c| c["linux"]["cgroupsPath"] = json!(path));
    t.bundle_command("create", &[]).go()
}

#[test]
fn a_cgroup_that_will_not_do_is_refused() {
    requires!(root);
    requires!(v2(), "needs cgroup v2 alone");
    needs!("memory");
    rrun_only!("crun refuses none of them");
    let t = Test::new("bad");
    resources(&t, json!({ "memory": { "limit": 67_108_864 } }));
    let own = Own::new(&format!("own-{}", std::process::id()));
    let name = own.0.file_name().unwrap().to_str().unwrap().to_owned();

    let mut sleeper = sleeper_in(&own.0);
    asks(&t, &format!("/{name}")).fails("container's cgroup is not empty: 1 process(es) found").one_line();
    let below = asks(&t, &format!("/{name}/{}", t.id));
    below.fails("cannot be enabled").says("choose another cgroupsPath").one_line();
    assert!(!own.0.join(&t.id).exists());
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();

    fs::write(own.0.join("cgroup.freeze"), "1").unwrap();
    asks(&t, &format!("/{name}")).fails("container's cgroup unexpectedly frozen").one_line();
    asks(&t, &format!("/{name}/{}", t.id)).fails("unexpectedly frozen").one_line();
    assert!(!own.0.join(&t.id).exists());
    fs::write(own.0.join("cgroup.freeze"), "0").unwrap();

    let threaded = Own::new(&format!("{name}-threaded"));
    fs::create_dir(threaded.0.join("t")).unwrap();
    fs::write(threaded.0.join("t/cgroup.type"), "threaded").unwrap();
    asks(&t, &format!("/{name}-threaded/{}", t.id)).fails("threaded|invalid").one_line();
    assert!(!threaded.0.join(&t.id).exists());
    fs::remove_dir(threaded.0.join("t")).unwrap();
    t.nothing_left();
}

#[test]
fn without_a_path_it_is_beside_the_runtimes_own() {
    requires!(root);
    requires!(v2(), "needs cgroup v2 alone");
    let t = Test::new("beside");
    t.detached("exec sleep 1000");
    let own = own_cgroup(std::process::id());
    let here = own.parent().filter(|p| p.starts_with(ROOT)).unwrap_or_else(|| Path::new(ROOT));
    if program("crun").as_deref() != Some(crate::harness::runtime()) {
        assert_eq!(cgroup(&t), here.join(&t.id));
    }
    assert_eq!(read(&cgroup(&t), "cgroup.controllers"), controllers().trim());
    t.end();
}

#[test]
fn a_failure_leaves_no_directory_on_the_way() {
    requires!(root);
    requires!(v2(), "needs cgroup v2 alone");
    needs!("cpuset");
    let t = Test::new("way");
    resources(&t, json!({ "cpu": { "cpus": "1000" } }));
    let top = format!("{}-top", t.id);
    asks(&t, &format!("/{top}/a/{}", t.id)).fails("cpuset.cpus");
    if is_rrun() {
        assert!(!Path::new(ROOT).join(top).exists());
    } else {
        for dir in [format!("{top}/a"), top] {
            let _ = fs::remove_dir(Path::new(ROOT).join(dir));
        }
    }
}

// ---- the running container

#[test]
fn pause_freezes_and_a_paused_container_can_be_killed() {
    requires!(root);
    requires!(v2(), "needs cgroup v2 alone");
    let t = Test::new("freeze");
    t.detached("sleep 1000 & exec sleep 1000");
    let dir = cgroup(&t);
    t.rt(&["pause", &t.id]).go().ok();
    assert_eq!(t.status(), "paused");
    assert_eq!(read(&dir, "cgroup.freeze"), "1");
    assert!(read(&dir, "cgroup.events").contains("frozen 1"));
    assert_ne!(t.exec(&["true"]).code, Some(0));
    if controllers().contains("pids") {
        t.rt(&["update", "--pids-limit", "44", &t.id]).go().ok();
        assert_eq!((t.status().as_str(), read(&dir, "pids.max").as_str()), ("paused", "44"));
    }
    t.rt(&["resume", &t.id]).go().ok();
    assert_eq!((t.status().as_str(), read(&dir, "cgroup.freeze").as_str()), ("running", "0"));
    // By another hand, too.
    fs::write(dir.join("cgroup.freeze"), "1").unwrap();
    wait_for("frozen", SECONDS_5, || read(&dir, "cgroup.events").contains("frozen 1").then_some(()));
    assert_eq!(t.status(), "paused");
    t.kill("KILL").ok();
    t.wait_status("stopped");
    t.rt(&["delete", &t.id]).go().ok();
    t.nothing_left();
}

/// Gives the container its cgroup for writing.
fn writable(t: &Test) -> &Test {
    t.edit(|c| {
        let mounts = c["mounts"].as_array_mut().unwrap();
        mounts.push(json!({ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
                            "options": ["nosuid", "noexec", "nodev", "relatime", "rw"] }));
    })
}

/// What an init system does inside: a leaf for itself, controllers for what is beside it.
const INIT: &str = "cd /sys/fs/cgroup; mkdir init work work/deep; echo 1 >init/cgroup.procs; \
    for c in $(cat cgroup.controllers); do echo +$c >cgroup.subtree_control; done; sleep 1000 & echo $! >work/deep/cgroup.procs; \
    touch /tmp/ready; exec sleep 1000";

fn with_init(t: &Test) -> PathBuf {
    writable(t).sh(INIT);
    t.bundle_command("run", &["--detach"]).go().ok();
    wait_for("its init", Duration::from_secs(30), || t.rootfs.join("tmp/ready").exists().then_some(()));
    assert_ne!(read(&cgroup(t).join(".."), "cgroup.subtree_control"), "");
    cgroup(t).parent().unwrap().to_owned()
}

#[test]
fn exec_follows_an_init_that_has_made_itself_a_leaf() {
    requires!(root);
    requires!(v2(), "needs cgroup v2 alone");
    requires!(is_rrun(), "needs a runtime that follows init: Debian's do not");
    let t = Test::new("leaf");
    let dir = with_init(&t);
    assert!(dir.ends_with(&t.id));
    assert_eq!(t.exec(&["grep", "^0::", "/proc/self/cgroup"]).stdout(), "0::/init\n");
    let sub = t.rt(&["exec", "--cgroup", "work/deep", &t.id, "grep", "^0::", "/proc/self/cgroup"]).go();
    assert_eq!(sub.stdout(), "0::/work/deep\n");
    t.rt(&["exec", "--cgroup", "absent", &t.id, "true"]).go().code_is(255).says(" adding pid ");
    t.rt(&["exec", "--cgroup", "../x", &t.id, "true"]).go().code_is(255).says("bad sub cgroup path");
    let listed = t.rt(&["ps", "--format", "json", &t.id]).go().stdout();
    let pids: Vec<u32> = serde_json::from_str(&listed).unwrap();
    assert_eq!(pids.len(), 2, "init, and what it has put into work/deep");
    t.rt(&["pause", &t.id]).go().ok();
    assert_eq!(t.status(), "paused");
    t.rt(&["resume", &t.id]).go().ok();
    t.rt(&["kill", "--all", &t.id, "KILL"]).go().ok();
    t.wait_status("stopped");
    assert!(dir.join("work/deep").exists());
    t.rt(&["delete", &t.id]).go().ok();
    assert!(!dir.exists());
    t.nothing_left();
}

#[test]
fn delete_takes_what_was_made_inside_along() {
    requires!(root);
    requires!(v2(), "needs cgroup v2 alone");
    let t = Test::new("inside");
    let dir = with_init(&t);
    t.rt(&["delete", "--force", &t.id]).go().ok();
    assert!(!dir.exists());
    t.nothing_left();
}

#[test]
fn the_cgroup_belongs_to_whom_the_specification_says() {
    requires!(root);
    requires!(v2(), "needs cgroup v2 alone");
    rrun_only!("the peers' cgroupfs drivers change no owner");
    let owners = |dir: &Path| {
        let of = |file: &str| fs::metadata(dir.join(file)).unwrap().uid();
        ["", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads", "cgroup.max.depth", "cgroup.freeze"]
            .map(of)
    };
    let t = Test::new("owned");
    writable(t.map_users()).detached("exec sleep 1000");
    assert_eq!(owners(&cgroup(&t)), [100_000, 100_000, 100_000, 100_000, 0, 0]);
    assert_eq!(t.exec(&["mkdir", "/sys/fs/cgroup/sub"]).code, Some(0));
    assert_ne!(t.exec(&["sh", "-c", "echo 5 >/sys/fs/cgroup/cgroup.max.depth"]).code, Some(0));
    t.end();

    let t = Test::new("ofuser");
    writable(&t).edit(|c| c["process"]["user"] = json!({ "uid": 1000, "gid": 1000 }));
    t.detached("exec sleep 1000");
    assert_eq!(owners(&cgroup(&t)), [1000, 1000, 1000, 1000, 0, 0]);
    t.end();

    let t = Test::new("notowned");
    t.map_users().detached("exec sleep 1000");
    assert_eq!(owners(&cgroup(&t)), [0; 6]);
    t.end();
}

#[test]
fn a_delegated_cgroup_is_the_containers_to_manage() {
    requires!(root);
    requires!(v2(), "needs cgroup v2 alone");
    needs!("memory");
    requires!(is_rrun(), "needs a runtime with run.oci.delegate-cgroup and exec into it");
    let t = Test::new("delegated");
    resources(&t, json!({ "memory": { "limit": 67_108_864 } }));
    writable(t.map_users()).edit(|c| c["annotations"] = json!({ "run.oci.delegate-cgroup": "mine" }));
    t.detached("exec sleep 1000");
    let dir = cgroup(&t);
    assert!(dir.ends_with(format!("{}/mine", t.id)), "{}", dir.display());
    assert_eq!(fs::metadata(&dir).unwrap().uid(), 100_000);
    let above = dir.parent().unwrap();
    assert_eq!((read(above, "memory.max"), read(&dir, "memory.max")), ("67108864".into(), "max".into()));
    assert!(read(above, "cgroup.subtree_control").contains("memory"));
    assert_eq!(t.exec(&["grep", "^0::", "/proc/self/cgroup"]).stdout(), "0::/mine\n");
    t.rt(&["update", "--memory", "32M", &t.id]).go().ok();
    assert_eq!(read(above, "memory.max"), "33554432");
    t.end();
    t.edit(|c| c["annotations"] = json!({ "run.oci.delegate-cgroup": "../x" }));
    t.bundle_command("create", &[]).go().fails("leaves the container's cgroup").one_line();
}

#[test]
fn the_mount_shows_the_containers_cgroup() {
    requires!(root);
    requires!(v2(), "needs cgroup v2 alone");
    needs!("memory");
    // What /proc/self/cgroup says is found under the mount, as with runc and crun.
    let script = "grep ^0:: /proc/self/cgroup; own=/sys/fs/cgroup$(sed -n s/^0:://p /proc/self/cgroup); \
        cat $own/memory.max; grep -c . $own/cgroup.procs; mkdir $own/x 2>/dev/null && echo made; :";
    for (own, readonly) in [(true, true), (true, false), (false, true), (false, false)] {
        let t = Test::new("mount");
        resources(&t, json!({ "memory": { "limit": 67_108_864 } }));
        writable(&t).edit(|c| {
            if readonly {
                c["mounts"].as_array_mut().unwrap().last_mut().unwrap()["options"] = json!(["nosuid", "ro"]);
            }
            if !own {
                let namespaces = c["linux"]["namespaces"].as_array_mut().unwrap();
                namespaces.retain(|namespace| namespace["type"] != "cgroup");
            }
        });
        let text = t.output(script);
        let lines: Vec<&str> = text.lines().collect();
        match own {
            true => assert_eq!(lines[0], "0::/"),
            false => assert!(lines[0].ends_with(&t.id), "{text}"),
        }
        assert_eq!(lines[1], "67108864", "{text}");
        assert_eq!(lines.get(3), if readonly { None } else { Some(&"made") }, "{text}");
        t.nothing_left();
    }
}

/// runc's `exec.bats`: init leaves the container's cgroup for another, which it sees without a cgroup namespace.
#[test]
fn exec_follows_an_init_that_has_left() {
    requires!(root);
    requires!(v2(), "needs cgroup v2 alone");
    rrun_only!("the runc of runc#5089 and crun look in the first cgroup only");
    let t = Test::new("left");
    let other = Own::new(&format!("left-{}", std::process::id()));
    let name = other.0.file_name().unwrap().to_str().unwrap().to_owned();
    writable(&t).edit(|c| {
        let namespaces = c["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != "cgroup");
    });
    let (dir, first) = (other.0.to_str().unwrap(), other.0.with_extension("first"));
    t.edit(|c| c["linux"]["cgroupsPath"] = json!(format!("/{name}.first")));
    t.sh(&format!("echo 1 >{dir}/cgroup.procs && touch /tmp/ready; exec sleep 1000"));
    t.bundle_command("run", &["--detach"]).go().ok();
    wait_for("its move", Duration::from_secs(30), || t.rootfs.join("tmp/ready").exists().then_some(()));
    fs::remove_dir(first).unwrap();
    assert_eq!(t.exec(&["grep", "^0::", "/proc/self/cgroup"]).stdout(), format!("0::/{name}\n"));
    t.end();
}

// ---- events

#[test]
fn events_has_the_keys_that_runc_has() {
    requires!(root);
    requires!(v2(), "needs cgroup v2 alone");
    needs!("memory" "pids" "cpu");
    requires!(program "runc");
    rrun_only!("it runs beside runc");
    fn keys(value: &Value, at: &str, out: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                map.iter().for_each(|(key, value)| keys(value, &format!("{at}.{key}"), out))
            }
            Value::Array(list) if list.iter().any(Value::is_object) => {
                keys(&list[0], &format!("{at}[]"), out)
            }
            _ => out.push(at.to_owned()),
        }
    }
    let with = |who: &str| {
        let t = Test::new(who);
        resources(
            &t,
            json!({ "memory": { "limit": 67_108_864, "swap": 134_217_728 }, "pids": { "limit": 9 },
                              "cpu": { "quota": 50_000 } }),
        );
        t.sh("cat /bin/busybox >/tmp/copy; sync; exec sleep 1000");
        t
    };
    let (mine, other) = (with("evrrun"), with("evrunc"));
    mine.bundle_command("run", &["--detach"]).go().ok();
    let peer = Peer { program: program("runc").unwrap(), test: &other };
    peer.run();
    let out = Command::new(&peer.program)
        .args(["--root", other.state.to_str().unwrap(), "events", "--stats", &other.id])
        .output()
        .unwrap();
    let theirs: Value = serde_json::from_slice(&out.stdout).unwrap();
    let ours: Value = serde_json::from_str(&mine.rt(&["events", "--stats", &mine.id]).go().stdout()).unwrap();
    let (mut a, mut b) = (Vec::new(), Vec::new());
    keys(&ours["data"], "", &mut a);
    keys(&theirs["data"], "", &mut b);
    // Zeroes are left out by both, so what happens to be zero in one may be missing; and runc has pressure since 1.2.
    let steady = |key: &&String| !key.contains(".raw.") && !key.contains(".psi") && !key.contains("blkio");
    let (a, b): (Vec<_>, Vec<_>) = (a.iter().filter(steady).collect(), b.iter().filter(steady).collect());
    let missing: Vec<_> = b.iter().filter(|key| !a.contains(key)).collect();
    assert!(missing.is_empty(), "runc has {missing:?}, {ours:#}");
    assert_eq!(ours["data"]["memory"]["usage"]["limit"], 67_108_864);
    assert_eq!(ours["data"]["memory"]["swap"]["limit"], 134_217_728);
    assert_eq!(ours["data"]["pids"]["limit"], 9);
    for (part, file) in [("cpu", "cpu"), ("memory", "memory"), ("blkio", "io")] {
        if cgroup(&mine).join(format!("{file}.pressure")).exists() {
            assert!(ours["data"][part]["psi"].is_object(), "{part}: {ours:#}");
        }
    }
    peer.ok(&["delete", "--force", &other.id]);
    mine.end();
}

#[test]
fn running_out_of_memory_is_an_event() {
    requires!(root);
    requires!(v2(), "needs cgroup v2 alone");
    needs!("memory");
    let t = Test::new("oom2");
    resources(&t, json!({ "memory": { "limit": 16_777_216, "swap": 16_777_216 } }));
    t.detached("exec sleep 1000");
    let events = t.rt(&["events", &t.id]).limit(Duration::from_secs(60)).spawn();
    wait_for("the first event", SECONDS_5, || events.stdout().contains("stats").then_some(()));
    let eater = t.exec(&["sh", "-c", "head -c 100000000 /dev/zero | tail -c 100000000 >/dev/null"]);
    assert_ne!(eater.code, Some(0));
    let oom = format!(r#"{{"type":"oom","id":"{}"}}"#, t.id);
    wait_for("the event", SECONDS_5, || events.stdout().lines().any(|l| l == oom).then_some(()));
    t.rt(&["delete", "--force", &t.id]).go().ok();
    events.wait();
    t.nothing_left();
}

#[test]
fn features_says_what_v2_has() {
    requires!(root);
    rrun_only!("runc 1.1 has no list to compare");
    let t = Test::new("features");
    let out = t.rt(&["features"]).go();
    let features: Value = serde_json::from_str(&out.ok().stdout()).unwrap();
    assert_eq!(features["linux"]["cgroup"]["v2"], true);
    assert_eq!(features["linux"]["cgroup"]["rdma"], true);
}
