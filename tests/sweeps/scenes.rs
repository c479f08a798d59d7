//! The commands that the sweeps go over: what has to be there before each, and what must be true after it was hurt.

use crate::harness::{
    Run, SECONDS_5, Test, cgroup_of, controller, is_cgroup2, is_rrun, patiently, processes_marked, wait_for,
};
use rustix::process::{Pid, Signal};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// A command, and the container that it meets.
pub struct Scene {
    pub name: &'static str,
    /// Brings the container to where the command finds it.
    prepare: fn(&Test),
    args: &'static [&'static str],
    /// Whether it makes the container, so that none may be there after it has failed.
    pub creates: bool,
    /// Whether the container's init, which waits, has a part in it.
    pub wakes_init: bool,
}

/// `ID` stands for the container's, `BUNDLE` for its bundle.
pub const SCENES: [Scene; 12] = {
    const fn scene(name: &'static str, prepare: fn(&Test), args: &'static [&'static str]) -> Scene {
        Scene { name, prepare, args, creates: false, wakes_init: false }
    }
    [
        Scene { creates: true, ..scene("create", nothing, &["create", "--bundle", "BUNDLE", "ID"]) },
        Scene { wakes_init: true, ..scene("start", created, &["start", "ID"]) },
        Scene { creates: true, ..scene("run", short, &["run", "--bundle", "BUNDLE", "ID"]) },
        Scene {
            creates: true,
            ..scene("run --detach", nothing, &["run", "--detach", "--bundle", "BUNDLE", "ID"])
        },
        scene("exec", running, &["exec", "ID", "true"]),
        scene("exec --detach", running, &["exec", "--detach", "ID", "sleep", "1000"]),
        scene("kill", running, &["kill", "ID", "KILL"]),
        scene("pause", running, &["pause", "ID"]),
        scene("resume", paused, &["resume", "ID"]),
        scene(
            "update",
            running,
            &["update", "--pids-limit", "100", "--memory", "67108864", "--cpu-share", "512", "ID"],
        ),
        scene("delete", stopped, &["delete", "ID"]),
        scene("delete --force", running, &["delete", "--force", "ID"]),
    ]
};

fn nothing(_: &Test) {}

/// A process that tells what it was given, and ends.
fn short(t: &Test) {
    t.sh("grep -E '^(Uid|Gid|Groups|NoNewPrivs|Seccomp|Cap)' /proc/self/status; cut -d' ' -f4- /proc/self/mountinfo; \
          cat /proc/self/limits /proc/self/oom_score_adj /proc/sys/net/ipv4/ip_forward; hostname; pwd; id; umask; \
          ls /proc/self/fd 2>/dev/null | wc -l; ls -l /dev /dev/null | tr -s ' ' | cut -d' ' -f1-6; \
          mknod /dev/kmsg c 1 11; cat /dev/kmsg 2>&1; ip link 2>&1");
}

fn created(t: &Test) {
    t.create();
}

fn running(t: &Test) {
    t.create();
    t.start();
}

fn paused(t: &Test) {
    running(t);
    t.rt(&["pause", &t.id]).go().ok();
}

fn stopped(t: &Test) {
    running(t);
    t.kill("KILL").ok();
    t.wait_status("stopped");
}

impl Scene {
    /// A bundle of which every mount point is there already.
    pub fn bundle(&self) -> Test {
        let t = Test::new(&self.name.replace([' ', '-'], ""));
        t.sh("exec sleep 1000");
        t.edit(|c| {
            let mut resources = json!({
                "memory": { "limit": 256 << 20 },
                "cpu": { "shares": 512 },
                "pids": { "limit": 64 },
                "hugepageLimits": [{ "pageSize": "2MB", "limit": 1 << 21 }],
                "devices": [
                    { "allow": false, "access": "rwm" },
                    { "allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm" },
                ],
            });
            let limits =
                [("memory", "memory"), ("cpu", "cpu"), ("pids", "pids"), ("hugetlb", "hugepageLimits")];
            for (_, limit) in limits.iter().filter(|(controller, _)| !has_controller(controller)) {
                resources.as_object_mut().unwrap().remove(*limit);
            }
            c["linux"]["resources"] = resources;
            c["linux"]["sysctl"] = json!({ "net.ipv4.ip_forward": "1" });
            c["process"]["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "soft": 512, "hard": 512 }]);
            c["linux"]["seccomp"] = json!({
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{ "names": ["swapon"], "action": "SCMP_ACT_ERRNO" }],
            });
        });
        t.create();
        t.end();
        t
    }

    pub fn prepare(&self, t: &Test) {
        (self.prepare)(t);
    }

    pub fn command<'a>(&self, t: &'a Test) -> Run<'a> {
        let bundle = t.bundle.to_str().unwrap();
        let words = self.args.iter().map(|word| match *word {
            "ID" => &t.id,
            "BUNDLE" => bundle,
            word => word,
        });
        t.rt(&words.collect::<Vec<_>>())
    }

    /// The container's waiting init, where it has a part.
    pub fn init(&self, t: &Test) -> Option<u32> {
        self.wakes_init.then(|| t.pid())
    }
}

/// Whether the machine has it, on the version of cgroups of which the containers are.
pub fn has_controller(name: &str) -> bool {
    match is_cgroup2() {
        true => fs::read_to_string("/sys/fs/cgroup/cgroup.controllers")
            .is_ok_and(|names| names.split_whitespace().any(|n| n == name)),
        false => controller(name),
    }
}

/// What of the container shows on the host: a command that has got over a fault has made the same of it.
pub fn seen(t: &Test) -> String {
    let end = Instant::now() + patiently(Duration::from_secs(1));
    let (status, pid) = loop {
        let state = t.rt(&["state", &t.id]).go();
        let Ok(state) = serde_json::from_str::<Value>(&state.stdout()) else { return "none\n".into() };
        let (status, pid) = (state["status"].to_string(), state["pid"].as_u64().unwrap_or(0));
        // A process that was killed takes its time.
        if pid == 0 || Instant::now() > end || !is_ending(pid) {
            break (status, pid);
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    let Some(pid) = u32::try_from(pid).ok().filter(|&pid| pid != 0) else { return status };
    // Not only where there are limits: a hierarchy that it is not in limits nothing later either.
    let mut text = vec![status, fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default()];
    for controller in ["memory", "cpu", "pids", "devices", "freezer"] {
        let cgroup = cgroup_of(pid, controller);
        for file in LIMITS {
            text.extend(fs::read_to_string(cgroup.join(file)).map(|value| format!("{file} {value}")));
        }
    }
    let members = fs::read_to_string(cgroup_of(pid, "pids").join("cgroup.procs")).unwrap_or_default();
    for member in members.lines() {
        let read = |file: &str| fs::read_to_string(format!("/proc/{member}/{file}")).unwrap_or_default();
        let told = ["Uid", "Gid", "Groups", "NoNewPrivs", "Seccomp", "Cap"];
        let status = read("status");
        text.extend(
            status.lines().filter(|line| told.iter().any(|t| line.starts_with(t))).map(str::to_owned),
        );
        text.extend(
            read("mountinfo").lines().map(|line| line.splitn(4, ' ').last().unwrap_or_default().into()),
        );
        text.extend([read("limits"), read("oom_score_adj")]);
    }
    text.join("\n")
}

/// What the bundle limits, on either version of cgroups.
const LIMITS: [&str; 8] = [
    "memory.limit_in_bytes",
    "cpu.shares",
    "pids.max",
    "devices.list",
    "freezer.state",
    "memory.max",
    "cpu.weight",
    "cgroup.freeze",
];

/// Whether SIGKILL waits for the process, or it has begun to end.
fn is_ending(pid: u64) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let pending = |name: &str| {
        let set = status.lines().find_map(|line| line.strip_prefix(name));
        set.is_some_and(|set| u64::from_str_radix(set.trim(), 16).is_ok_and(|set| set & 1 << 8 != 0))
    };
    status.is_empty() || status.contains("State:\tZ") || pending("SigPnd:") || pending("ShdPnd:")
}

/// What is wrong on the host after a command was hurt; `delete --force` has been tried then, and the id used again.
pub fn aftermath(t: &Test, listing: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let state = t.rt(&["state", &t.id]).go();
    if state.took > patiently(Duration::from_secs(1)) {
        wrong.push(format!("state took {:?}", state.took));
    }
    if state.code == Some(0) {
        let status = serde_json::from_str::<Value>(&state.stdout()).map(|state| state["status"].clone());
        let legal = ["creating", "created", "running", "paused", "stopped"];
        if !status.as_ref().is_ok_and(|status| legal.iter().any(|legal| status == legal)) {
            wrong.push(format!("state says {status:?}"));
        }
    } else if !is_unknown(&state.stderr()) {
        wrong.push(format!("state: {}", state.stderr().trim()));
    }
    let list = t.rt(&["list"]).go();
    if list.code != Some(0) {
        wrong.push(format!("list: {}", list.stderr().trim()));
    }
    for again in [false, true] {
        if again {
            let create = t.bundle_command("create", &[]).go();
            if create.code != Some(0) {
                wrong.push(format!("a second create: {}", create.stderr().trim()));
            }
        }
        let delete = t.rt(&["delete", "--force", &t.id]).go();
        if delete.code != Some(0) || delete.took > patiently(Duration::from_secs(2)) {
            wrong.push(format!(
                "delete --force gave {:?} after {:?}: {}",
                delete.code,
                delete.took,
                delete.stderr().trim()
            ));
        }
        wrong.extend(left(t));
    }
    if t.rootfs_listing() != listing {
        wrong.push("the rootfs has changed".into());
    }
    wrong
}

/// crun names the file that it does not find.
fn is_unknown(stderr: &str) -> bool {
    stderr.contains("does not exist") || !is_rrun() && stderr.contains("No such file")
}

/// What is still there after the time that the kernel takes to end a process.
pub fn left(t: &Test) -> Vec<String> {
    let end = Instant::now() + patiently(Duration::from_secs(1));
    loop {
        let left = t.leftovers();
        if left.is_empty() || Instant::now() > end {
            return left;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Takes away by hand what a point has left, so that the next one begins anew.
pub fn scrub(t: &Test) {
    for (pid, _) in processes_marked(&t.id) {
        let _ = Pid::from_raw(pid).map(|pid| rustix::process::kill_process(pid, Signal::KILL));
    }
    wait_for("the end of what was left", SECONDS_5, || {
        // The deepest first: a cgroup with others in it stays.
        let left = t.leftovers();
        for cgroup in left.iter().rev().filter_map(|line| line.strip_prefix("cgroup: ")) {
            let _ = fs::write(Path::new(cgroup).join("freezer.state"), "THAWED");
            let _ = fs::remove_dir(cgroup);
        }
        let _ = fs::remove_dir_all(&t.state);
        left.iter().all(|line| line.starts_with("mount:")).then_some(())
    });
}
