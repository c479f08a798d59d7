//! On this machine's real hierarchies, as root.

#![forbid(unsafe_code)]

use super::*;
use crate::plan::cgroup::{DeviceRule, Driver, Instruction, build, device_program, update};
use crate::spec::{self, read::document};
use layout::Layout;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// Kills and removes what a failed test left at its path.
struct Clean(Layout, String);

impl Drop for Clean {
    fn drop(&mut self) {
        let place = |h: &layout::Hierarchy| (h.key(), h.mount.join(self.1.trim_start_matches('/')));
        let paths: Vec<_> = self.0.hierarchies.iter().map(place).collect();
        let cgroup = recorded(&paths);
        let _ = cgroup.kill(Signal::KILL);
        let _ = cgroup.remove();
    }
}

/// Both steps, as a launch takes them around clone3.
fn create(plan: &CgroupPlan) -> Result<Cgroup> {
    let mut cgroup = super::create(plan)?;
    cgroup.complete(plan)?;
    Ok(cgroup)
}

fn recorded<P: AsRef<Path>>(paths: &[(String, P)]) -> Cgroup {
    Cgroup::recorded(paths.iter().map(|(key, path)| (key.as_str(), path.as_ref())))
}

/// A machine with cgroups to make, and a path that no one else uses.
fn ready(test: &str) -> Option<(Layout, String, Clean)> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let layout = Layout::read().expect("a layout");
    let writable = layout.hierarchies.first().is_some_and(|h| {
        rustix::fs::access(&h.mount, rustix::fs::Access::WRITE_OK).is_ok()
            && rustix::process::geteuid().is_root()
    });
    if !writable {
        eprintln!("skipped {test}: needs root and a writable cgroup file system");
        return None;
    }
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    let path = format!("/rrun-test-{}-{n}", std::process::id());
    Some((layout.clone(), path.clone(), Clean(layout, path)))
}

#[test]
fn a_cgroup_that_goes_while_it_is_opened_is_gone() {
    let Some((layout, path, _clean)) = ready("a_cgroup_that_goes_while_it_is_opened_is_gone") else { return };
    let Some(v2) = layout.hierarchies.iter().find(|h| h.version == Version::V2) else {
        eprintln!("skipped: needs a hierarchy of cgroup v2");
        return;
    };
    let path = v2.mount.join(path.trim_start_matches('/'));
    std::fs::create_dir(&path).expect("mkdir");
    let cgroup = recorded(&[(String::new(), &path)]);
    assert!(cgroup.exists());
    std::fs::remove_dir(&path).expect("rmdir");
    assert!(!cgroup.exists() && cgroup.procs().expect("no error").is_empty());
    assert!(!cgroup.is_frozen().expect("no error"));
    cgroup.kill(Signal::KILL).expect("nobody is left");
}

/// Fault sweep in the guest, ENOMEM: it was taken for a cgroup without controllers, which no limit fits.
#[test]
fn controllers_that_cannot_be_read_are_told() {
    let path = std::env::temp_dir().join(format!("rrun-controllers-{}", std::process::id()));
    std::fs::create_dir(&path).expect("mkdir");
    std::fs::create_dir(path.join("cgroup.controllers")).expect("mkdir");
    let cgroup = recorded(&[(String::new(), &path)]);
    let e = cgroup.set(&[]).expect_err("a directory is not read");
    assert!(e.to_string().contains("cgroup.controllers: is a directory"), "{e}");
    assert!(cgroup.stats().is_err());
    std::fs::remove_dir_all(path).expect("rmdir");
}

fn plan_of(json: &str, layout: &Layout, path: &str) -> Result<CgroupPlan> {
    let mut linux: spec::Linux = document(json.as_bytes()).expect("valid JSON");
    linux.cgroups_path = path.to_owned();
    build(Some(&linux), "id", layout, Driver::Cgroupfs, false)
}

/// A process that sleeps, killed and reaped at the end.
struct Sleeper(Child);

impl Sleeper {
    fn new() -> Self {
        Self(Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().expect("sleep"))
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn leftovers(layout: &Layout, path: &str) -> Vec<PathBuf> {
    let place = |h: &layout::Hierarchy| h.mount.join(path.trim_start_matches('/'));
    layout.hierarchies.iter().map(place).filter(|path| path.exists()).collect()
}

#[test]
fn a_dropped_cgroup_leaves_nothing_not_even_parents() {
    let Some((layout, path, _clean)) = ready("a_dropped_cgroup_leaves_nothing_not_even_parents") else {
        return;
    };
    let cgroup = create(&plan_of("{}", &layout, &format!("{path}/a/b")).expect("planned")).expect("created");
    assert_eq!(leftovers(&layout, &format!("{path}/a/b")).len(), layout.hierarchies.len());
    drop(cgroup);
    assert!(leftovers(&layout, &path).is_empty());
}

#[test]
fn limits_reach_their_files() {
    let Some((layout, path, _clean)) = ready("limits_reach_their_files") else { return };
    let json = r#"{"resources":{"cpu":{"shares":512,"quota":50000,"period":20000,"cpus":"0","mems":"0"},
        "memory":{"limit":67108864,"swap":134217728},"pids":{"limit":0}}}"#;
    let plan = plan_of(json, &layout, &path).expect("planned");
    let cgroup = create(&plan).expect("created");
    cgroup.apply(&plan).expect("applied");
    for write in &plan.limits {
        let dir = cgroup.dir(&write.controller).expect("open").expect("a directory");
        assert_eq!(dir.read(&write.file).expect("readable").trim(), write.value, "{}", write.file);
    }
    let list = cgroup.dir("devices").expect("open").map(|dir| dir.read("devices.list").expect("readable"));
    assert!(list.is_none_or(|list| list.contains("c 1:3 rwm") && !list.contains("a *:*")));
}

#[test]
fn update_grows_and_shrinks_in_whatever_order_the_kernel_needs() {
    let Some((layout, path, _clean)) = ready("update_grows_and_shrinks") else { return };
    let cgroup = create(&plan_of("{}", &layout, &path).expect("planned")).expect("created");
    for (limit, swap, quota, period) in [
        (1 << 26, 1 << 26, 50_000, 100_000),
        (1 << 28, 1 << 29, 500_000, 1_000_000),
        (1 << 24, 1 << 24, 2_000, 2_000),
        (-1, -1, -1, 100_000),
    ] {
        let json = format!(
            r#"{{"memory":{{"limit":{limit},"swap":{swap}}},"cpu":{{"quota":{quota},"period":{period}}}}}"#
        );
        let resources: spec::Resources = document(json.as_bytes()).expect("valid JSON");
        cgroup.set(&update(&resources, &layout).expect("planned")).expect("updated");
    }
}

#[test]
fn a_refused_value_names_file_value_and_path() {
    let Some((layout, path, _clean)) = ready("a_refused_value_names_file_value_and_path") else { return };
    let plan = plan_of(r#"{"resources":{"cpu":{"cpus":"4000"}}}"#, &layout, &path).expect("planned");
    let cgroup = create(&plan).expect("created");
    let e = cgroup.apply(&plan).expect_err("no such CPU").to_string();
    assert!(
        e.starts_with("linux.resources.cpu.cpus: write \"4000\" to ") && e.contains("cpuset.cpus: "),
        "{e}"
    );
}

#[test]
fn processes_join_freeze_and_die_together() {
    let Some((layout, path, _clean)) = ready("processes_join_freeze_and_die_together") else { return };
    let mut cgroup = create(&plan_of("{}", &layout, &path).expect("planned")).expect("created");
    let (mut one, mut two) = (Sleeper::new(), Sleeper::new());
    cgroup.add(one.0.id()).expect("joined");
    cgroup.add(two.0.id()).expect("joined");
    let (_, main) = cgroup.main().expect("open").expect("a main cgroup");
    let (sub, _) = main.make("sub").expect("a sub-cgroup");
    add(&sub, two.0.id()).expect("moved");
    let mut pids = cgroup.procs().expect("listed");
    pids.sort_unstable();
    let mut expected = [one.0.id(), two.0.id()];
    expected.sort_unstable();
    assert_eq!(pids, expected);

    let again = plan_of("{}", &layout, &path).expect("planned");
    let e = create(&again).expect_err("in use").to_string();
    assert!(e.contains("container's cgroup is not empty: 2 process(es) found"), "{e}");

    cgroup.freeze().expect("frozen");
    assert!(cgroup.is_frozen().expect("readable"));
    cgroup.kill(Signal::KILL).expect("killed, although frozen");
    assert!(one.0.wait().is_ok() && two.0.wait().is_ok());
    cgroup.keep();
    cgroup.remove().expect("removed");
    assert!(leftovers(&layout, &path).is_empty());
}

#[test]
fn removal_waits_for_a_dying_process_and_takes_sub_cgroups_along() {
    let Some((layout, path, _clean)) = ready("removal_waits_for_a_dying_process") else { return };
    let mut cgroup = create(&plan_of("{}", &layout, &path).expect("planned")).expect("created");
    let mut sleeper = Sleeper::new();
    for dir in cgroup.groups.iter().filter_map(|group| group.dir().expect("open")) {
        if let (Ok((child, _)), true) = (dir.make("inner"), dir.path().starts_with("/sys/fs/cgroup/pids")) {
            child.make("innermost").expect("nested");
        }
    }
    cgroup.add(sleeper.0.id()).expect("joined");
    cgroup.kill(Signal::KILL).expect("killed");
    // Not reaped yet: a zombie must not hold the cgroup.
    cgroup.remove().expect("removed");
    assert!(leftovers(&layout, &path).is_empty());
    let _ = sleeper.0.wait();
}

#[test]
fn a_frozen_cgroup_is_refused() {
    let Some((layout, path, _clean)) = ready("a_frozen_cgroup_is_refused") else { return };
    let cgroup = create(&plan_of("{}", &layout, &path).expect("planned")).expect("created");
    cgroup.freeze().expect("frozen");
    for path in [path.clone(), format!("{path}/below")] {
        let e = create(&plan_of("{}", &layout, &path).expect("planned")).expect_err("frozen").to_string();
        assert!(e.contains("container's cgroup unexpectedly frozen"), "{e}");
    }
    cgroup.thaw().expect("thawed");
}

#[test]
fn the_root_cgroup_is_not_a_containers() {
    let Some((layout, _, _clean)) = ready("the_root_cgroup_is_not_a_containers") else { return };
    let e = create(&plan_of("{}", &layout, "/").expect("planned")).expect_err("not empty").to_string();
    assert!(e.contains("container's cgroup is not empty"), "{e}");
    let long = plan_of("{}", &layout, &format!("/{}", "x".repeat(5000))).expect("planned");
    create(&long).expect_err("too long");
}

#[test]
fn exec_joins_sub_cgroups_and_no_others() {
    let Some((layout, path, _clean)) = ready("exec_joins_sub_cgroups_and_no_others") else { return };
    let mut cgroup = create(&plan_of("{}", &layout, &path).expect("planned")).expect("created");
    let sleeper = Sleeper::new();
    let (pid, init) = (sleeper.0.id(), std::process::id());
    for bad in ["../x", "a/../../x"] {
        let e = cgroup.add_exec(pid, &[(None, bad)], init).expect_err(bad).to_string();
        assert_eq!(e, format!("bad sub cgroup path: {bad}"));
    }
    let e = cgroup.add_exec(pid, &[(Some("nope"), "x")], init).expect_err("unknown").to_string();
    assert_eq!(e, "unknown controller nope in SubCgroupPaths");
    let e = cgroup.add_exec(pid, &[(None, "absent")], init).expect_err("absent").to_string();
    assert!(e.contains(&format!(" adding pid {pid} to cgroups: ")), "{e}");
    if let Some(dir) = cgroup.dir("pids").expect("open") {
        let (sub, _) = dir.make("sub").expect("made");
        cgroup.add_exec(pid, &[(Some("pids"), "sub")], init).expect("joined");
        assert_eq!(sub.own_procs().expect("listed"), [pid]);
    }
    cgroup.kill(Signal::KILL).expect("killed");
    drop(sleeper);
    cgroup.remove().expect("removed");
}

#[test]
fn state_reopens_what_was_made() {
    let Some((layout, path, _clean)) = ready("state_reopens_what_was_made") else { return };
    let plan = plan_of("{}", &layout, &path).expect("planned");
    let cgroup = create(&plan).expect("created");
    assert_eq!(cgroup.paths(), Cgroup::planned(&plan));
    let reopened = recorded(&cgroup.paths());
    assert!(reopened.exists());
    let stats = reopened.stats().expect("stats");
    assert!(stats.pids.current.is_none() && stats.memory.usage.is_some());
    drop(cgroup);
    assert!(!reopened.exists());
    assert_eq!(reopened.procs().expect("gone is empty"), [0u32; 0]);
    recorded(&reopened.paths()).remove().expect("gone is removed");
}

#[test]
fn running_out_of_memory_is_noticed() {
    let Some((layout, path, _clean)) = ready("running_out_of_memory_is_noticed") else { return };
    let plan = plan_of(r#"{"resources":{"memory":{"limit":8388608}}}"#, &layout, &path).expect("planned");
    let mut cgroup = create(&plan).expect("created");
    cgroup.apply(&plan).expect("applied");
    // Waits for its input, so that it has joined before it eats.
    let mut eater = Command::new("sh")
        .args(["-c", "read go; exec head -c 100000000 /dev/zero | tail -c 100000000"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("sh");
    cgroup.add(eater.id()).expect("joined");
    let mut watch = cgroup.watch_oom().expect("watched");
    drop(eater.stdin.take());
    let limit = Timespec { tv_sec: 20, tv_nsec: 0 };
    let ready = poll(&mut [PollFd::from_borrowed_fd(watch.fd(), PollFlags::IN)], Some(&limit));
    let _ = eater.wait();
    assert_eq!(ready, Ok(1));
    assert_eq!(watch.take().expect("read"), oom::Event::Oom);
    assert!(cgroup.oom_kills() >= 1);
    cgroup.kill(Signal::KILL).expect("killed");
    cgroup.remove().expect("removed");
}

/// The layout of a machine with nothing but v2, made of the v2 hierarchy of this one.
fn only_v2(layout: &Layout, test: &str) -> Option<Layout> {
    let hierarchy = layout.hierarchies.iter().find(|h| h.version == Version::V2).cloned();
    if hierarchy.is_none() {
        eprintln!("skipped {test}: no cgroup v2 hierarchy");
    }
    hierarchy.map(|hierarchy| Layout { hierarchies: vec![hierarchy] })
}

#[test]
fn v2_alone_freezes_kills_and_removes_by_events() {
    let test = "v2_alone_freezes_kills_and_removes_by_events";
    let Some((layout, path, _clean)) = ready(test) else { return };
    let Some(mut layout) = only_v2(&layout, test) else { return };
    // Enabled in the root only where a test of limits undoes it.
    layout.hierarchies[0].controllers.clear();
    let mut plan = plan_of("{}", &layout, &path).expect("planned");
    plan.devices.clear();
    let mut cgroup = create(&plan).expect("created");
    let mut sleeper = Sleeper::new();
    cgroup.add(sleeper.0.id()).expect("joined");
    let e = create(&plan).expect_err("in use").to_string();
    assert!(e.contains("container's cgroup is not empty: 1 process(es) found"), "{e}");
    cgroup.freeze().expect("frozen");
    assert!(cgroup.is_frozen().expect("readable"));
    // One without effect: a fatal one kills even a frozen process on v2.
    cgroup.kill(Signal::WINCH).expect("signalled");
    assert!(cgroup.is_frozen().expect("readable"), "a paused container stays paused");
    let stats = cgroup.stats().expect("stats");
    assert_eq!(stats.pids.current, Some(1));
    assert!(stats.cpu.usage.is_some());
    cgroup.kill(Signal::KILL).expect("killed");
    cgroup.remove().expect("removed");
    assert!(leftovers(&layout, &path).is_empty());
    let _ = sleeper.0.wait();
}

#[test]
fn exec_follows_init_where_v2_takes_no_process() {
    let test = "exec_follows_init_where_v2_takes_no_process";
    let Some((layout, path, _clean)) = ready(test) else { return };
    let Some(mut layout) = only_v2(&layout, test) else { return };
    layout.hierarchies[0].controllers.clear();
    let plan = plan_of("{}", &layout, &path).expect("planned");
    let cgroup = create(&plan).expect("created");
    let (init, other) = (Sleeper::new(), Sleeper::new());
    let (_, dir) = cgroup.main().expect("open").expect("a main cgroup");
    let (leaf, _) = dir.make("init").expect("made");
    add(&leaf, init.0.id()).expect("joined");
    // Beside a threaded cgroup, one that is not takes no process at all.
    let (parent, _) = dir.make("parent").expect("made");
    let (threaded, _) = parent.make("threaded").expect("made");
    threaded.write("cgroup.type", "threaded").expect("threaded");
    let (invalid, _) = parent.make("invalid").expect("made");
    assert_eq!(invalid.read("cgroup.type").expect("readable"), "domain invalid\n");
    let paths = [(String::new(), invalid.path().to_owned())];
    let mut broken = recorded(&paths);
    broken.add(other.0.id()).expect_err("domain invalid");
    let (pid, init) = (other.0.id(), init.0.id());
    broken.add_exec(pid, &[(None, "/")], init).expect_err("asked for, so no other will do");
    broken.add_exec(pid, &[], init).expect("joined init's");
    add(&leaf, pid).expect("joined");
    let gone = [(String::new(), dir.path().join("gone"))];
    recorded(&gone).add_exec(pid, &[], init).expect("joined init's");
    assert!(leaf.own_procs().expect("listed").contains(&other.0.id()));
    cgroup.kill(Signal::KILL).expect("killed");
    cgroup.remove().expect("removed");
}

#[test]
fn a_huge_page_limit_is_enabled_on_the_way_down() {
    let Some((layout, path, _clean)) = ready("a_huge_page_limit_is_enabled_on_the_way_down") else { return };
    let held = layout.find("hugetlb").filter(|h| h.version == Version::V2 && !layout.is_v2());
    let Some(held) = held else {
        eprintln!(
            "skipped a_huge_page_limit_is_enabled_on_the_way_down: hugetlb is not in a hybrid v2 hierarchy"
        );
        return;
    };
    let root = Dir::open(&held.mount).expect("opened");
    let before = root.read("cgroup.subtree_control").expect("readable");
    let json = r#"{"resources":{"hugepageLimits":[{"pageSize":"2MB","limit":4194304}]}}"#;
    let plan = plan_of(json, &layout, &format!("{path}/x")).expect("planned");
    let cgroup = create(&plan).expect("created");
    cgroup.apply(&plan).expect("applied");
    let dir = cgroup.dir("hugetlb").expect("open").expect("a directory");
    assert_eq!(dir.read("hugetlb.2MB.max").expect("readable"), "4194304\n");
    assert_eq!(dir.read("hugetlb.2MB.rsvd.max").expect("readable"), "4194304\n");
    assert!(cgroup.stats().expect("stats").hugetlb.contains_key("2MB"));
    drop(cgroup);
    if !before.contains("hugetlb") {
        root.write("cgroup.subtree_control", "-hugetlb").expect("as before");
    }
}

#[test]
fn an_interrupted_create_is_discarded_but_another_container_is_not() {
    let Some((layout, path, _clean)) = ready("an_interrupted_create_is_discarded") else { return };
    let plan = plan_of("{}", &layout, &path).expect("planned");
    let mut cgroup = create(&plan).expect("created");
    let mut sleeper = Sleeper::new();
    cgroup.add(sleeper.0.id()).expect("joined");
    let discard = || recorded(&Cgroup::planned(&plan)).discard().expect("discarded");
    discard();
    assert_eq!(leftovers(&layout, &path).len(), layout.hierarchies.len());
    cgroup.keep();
    sleeper.0.kill().and_then(|()| sleeper.0.wait()).expect("dead");
    discard();
    assert!(leftovers(&layout, &path).is_empty());
}

/// The settings in a cgroup: its writable files, and the device list, without counters.
fn settings(cgroup: &Cgroup) -> Vec<(PathBuf, String)> {
    let skipped = [
        "usage",
        "failcnt",
        "procs",
        "tasks",
        "event_control",
        "force_empty",
        "threads",
        "kill",
        "pressure",
        "hugetlb",
    ];
    let mut settings = Vec::new();
    for dir in cgroup.groups.iter().filter_map(|group| group.dir().expect("open")) {
        for entry in std::fs::read_dir(dir.path()).expect("listed").map(|entry| entry.expect("an entry")) {
            let name = entry.file_name().into_string().expect("UTF-8");
            if !entry.path().is_file() || skipped.iter().any(|part| name.contains(part)) {
                continue;
            }
            use std::os::unix::fs::PermissionsExt;
            let mode = entry.metadata().expect("its mode").permissions().mode();
            if mode & 0o200 == 0 && name != "devices.list" {
                continue;
            }
            let Ok(text) = dir.read(&name) else { continue };
            let mut lines: Vec<_> = text.lines().collect();
            lines.sort_unstable();
            let hierarchy = dir.path().parent().expect("a hierarchy").join(&name);
            settings.push((hierarchy, lines.join("\n")));
        }
    }
    settings.sort();
    settings
}

#[test]
fn the_settings_are_those_of_runc() {
    let test = "the_settings_are_those_of_runc";
    let Some((layout, path, _clean)) = ready(test) else { return };
    let linux = r#"{"resources":{
        "devices":[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","major":10,"minor":229,"access":"rw"},
            {"allow":true,"type":"b","major":8,"access":"r"}],
        "memory":{"limit":67108864,"swap":134217728,"reservation":33554432,"swappiness":7},
        "cpu":{"shares":512,"quota":50000,"period":20000,"cpus":"0","mems":"0"},"pids":{"limit":7},"blockIO":{"weight":300}}}"#;
    use std::os::unix::fs::PermissionsExt;
    let bundle = std::env::temp_dir().join(path.trim_start_matches('/'));
    for dir in ["", "rootfs", "rootfs/proc"] {
        std::fs::create_dir(bundle.join(dir)).expect("a bundle");
    }
    // Never run, but runc looks for it.
    std::fs::write(bundle.join("rootfs/x"), "").expect("written");
    std::fs::set_permissions(bundle.join("rootfs/x"), std::fs::Permissions::from_mode(0o755)).expect("chmod");
    let mut config: serde_json::Value = serde_json::json!({
        "ociVersion": "1.0.2", "root": {"path": "rootfs"},
        "process": {"args": ["/x"], "cwd": "/", "user": {"uid": 0, "gid": 0}},
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
        "linux": serde_json::from_str::<serde_json::Value>(linux).expect("valid JSON"),
    });
    config["linux"]["cgroupsPath"] = path.as_str().into();
    config["linux"]["namespaces"] = serde_json::json!([{"type": "pid"}, {"type": "mount"}]);
    std::fs::write(bundle.join("config.json"), config.to_string()).expect("written");
    let id = path.trim_start_matches('/');
    let runc = |args: &[&str]| {
        let null = || Stdio::null();
        let mut command = Command::new("runc");
        command.arg("--root").arg(bundle.join("state")).args(args).current_dir(&bundle);
        command.stdin(null()).stdout(null()).status()
    };
    let made = runc(&["create", id]);
    let plan = plan_of(linux, &layout, &path).expect("planned");
    let theirs = made.is_ok_and(|status| status.success()).then(|| {
        let theirs = settings(&recorded(&Cgroup::planned(&plan)));
        runc(&["delete", "-f", id]).expect("deleted");
        theirs
    });
    std::fs::remove_dir_all(&bundle).expect("removed");
    let Some(theirs) = theirs else {
        eprintln!("skipped {test}: runc is absent or cannot create a container here");
        return;
    };
    let cgroup = create(&plan).expect("created");
    cgroup.apply(&plan).expect("applied");
    assert!(theirs.len() > 40, "only {} settings compared", theirs.len());
    assert_eq!(settings(&cgroup), theirs);
}

/// What a process in the cgroup may do with a device: `r`, `w` and `m` of those in `nodes`, one line each.
///
/// The kernel asks before it looks for a driver, so that a number without a device does as well: EPERM is a
/// refusal, anything else is not.
fn tried(dir: &Path, nodes: &Path, devices: &[(&str, u32, u32)]) -> Vec<String> {
    let mut script = format!("echo 0 >{}/cgroup.procs || exit 1; cd {}\n", dir.display(), nodes.display());
    for (typ, major, minor) in devices {
        let node = format!("{typ}{major}-{minor}");
        for (what, command) in [
            ("r", format!(": <{node}")),
            ("w", format!(": >>{node}")),
            ("rw", format!(": <>{node}")),
            ("m", format!("mknod made {typ} {major} {minor}; rm -f made; :")),
        ] {
            script.push_str(&format!(
                "case $( ({command}) 2>&1) in *'not permitted'*) ;; *) echo '{typ} {major}:{minor} {what}';; esac\n"
            ));
        }
    }
    let out = Command::new("sh").args(["-c", &script]).output().expect("sh");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).expect("text").lines().map(str::to_owned).collect()
}

#[test]
fn a_program_for_devices_is_replaced_and_others_stay() {
    let Some((layout, path, _clean)) = ready("a_program_for_devices_is_replaced_and_others_stay") else {
        return;
    };
    let v2: Vec<_> = layout.hierarchies.iter().filter(|h| h.version == Version::V2).cloned().collect();
    if v2.is_empty() {
        eprintln!("skipped: needs cgroup v2");
        return;
    }
    let layout = Layout { hierarchies: v2 };
    let rules = |json: &str| {
        let plan = plan_of(&format!(r#"{{"resources":{{"devices":{json}}}}}"#), &layout, &path);
        plan.expect("planned").devices
    };
    let devices = [("c", 1, 3), ("c", 1, 7), ("c", 42, 7), ("b", 7, 0), ("b", 42, 1), ("b", 42, 2)];
    let nodes = std::env::temp_dir().join(format!("rrun-nodes-{}", std::process::id()));
    std::fs::create_dir(&nodes).expect("a directory");
    for (typ, major, minor) in devices {
        let name = nodes.join(format!("{typ}{major}-{minor}"));
        let (major, minor) = (major.to_string(), minor.to_string());
        let made = Command::new("mknod").arg(name).args([typ, &major, &minor]).status().expect("mknod");
        assert!(made.success());
    }
    let cgroup = create(&plan_of("{}", &layout, &path).expect("planned")).expect("created");
    let dir = cgroup.groups[0].dir().expect("open").expect("made");
    let see = |rules: &[DeviceRule], is_new| {
        apply_devices(dir.as_fd(), rules, is_new).expect("applied");
        tried(dir.path(), &nodes, &devices).join(",")
    };
    let some = rules(
        r#"[{"allow":true,"type":"b","major":42,"access":"rw"},
        {"allow":false,"type":"b","major":42,"minor":2,"access":"w"}]"#,
    );
    let seen = see(&some, true);
    assert_eq!(
        seen,
        "c 1:3 r,c 1:3 w,c 1:3 rw,c 1:3 m,c 1:7 r,c 1:7 w,c 1:7 rw,c 1:7 m,c 42:7 m,b 7:0 m,\
        b 42:1 r,b 42:1 w,b 42:1 rw,b 42:1 m,b 42:2 r,b 42:2 m"
    );
    assert_eq!(crate::sys::bpf::attached(dir).expect("listed").len(), 1);
    // Another's, which allows everything: it stays, and ours is replaced beside it.
    let allow: Vec<_> = device_program(&rules(
        r#"[{"allow":true,"access":"rwm"},
        {"allow":false,"type":"b","major":42,"minor":1,"access":"w"}]"#,
    ))
    .expect("a program")
    .into_iter()
    .map(Instruction::encode)
    .collect();
    let other = crate::sys::bpf::load_device_program(&allow, c"other").expect("loaded");
    crate::sys::bpf::attach(dir, &other, None).expect("attached");
    let before = crate::sys::bpf::attached(dir).expect("listed");
    assert_eq!(see(&some, false), seen.replace("b 42:1 w,b 42:1 rw,", ""));
    let after = crate::sys::bpf::attached(dir).expect("listed");
    assert_eq!((before.len(), after.len(), before[1]), (2, 2, after[1]));
    assert_ne!(before[0], after[0]);
    let all = see(&rules(r#"[{"allow":true,"access":"rwm"}]"#), false);
    assert_eq!(all.split(',').count(), 4 * devices.len() - 2, "but the other's: {all}");
    assert_eq!(crate::sys::bpf::attached(dir).expect("listed"), after[1..]);
    std::fs::remove_dir_all(&nodes).expect("removed");
}
