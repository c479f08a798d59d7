//! checkpoint and restore: where they cannot succeed, one line and a container that is as it was; where CRIU
//! knows the kernel, that the processes go on, flag by flag.

use crate::harness::{Out, Run, SECONDS_5, Test, has_systemd, patiently, program, script, wait_for};
use crate::pty::{FdSocket, Pty};
use crate::{requires, rrun_only};
use rustix::process::{Pid, Signal};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

/// What a command may not change: the container's record and the mounts of the runtime.
fn outside(t: &Test) -> String {
    let mut names: Vec<_> = fs::read_dir(t.state.join(&t.id))
        .unwrap()
        .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mounts: Vec<_> = mounts.lines().filter(|l| l.contains(t.dir.to_str().unwrap())).collect();
    format!("{names:?} {mounts:?}")
}

/// The processes of the container's cgroup, but for their own.
fn processes(t: &Test) -> String {
    fs::read_to_string(t.cgroup("pids").join("cgroup.procs")).unwrap()
}

fn fails_and_goes_on(t: &Test, path: Option<&str>) {
    t.detached("trap 'echo term > /term; exit 0' TERM; echo up > /up; while :; do sleep 0.05; done");
    wait_for("up", SECONDS_5, || t.rootfs.join("up").exists().then_some(()));
    let before = (outside(t), t.pid());
    let images = t.dir.join("images");
    let mut checkpoint = t.rt(&["checkpoint", "--image-path", images.to_str().unwrap(), &t.id]);
    if let Some(path) = path {
        checkpoint = checkpoint.env("PATH", path);
    }
    let out = checkpoint.go();
    out.fails("criu").one_line();
    assert_eq!((outside(t), t.pid()), before);
    assert_eq!(t.status(), "running");
    // It is neither stopped nor traced: it still answers.
    t.exec(&["true"]).ok();
    t.kill("TERM").ok();
    t.wait_status("stopped");
    assert_eq!(fs::read_to_string(t.rootfs.join("term")).unwrap(), "term\n");
    t.end();
}

#[test]
fn without_criu_the_container_goes_on() {
    requires!(root);
    let t = Test::new("nocriu");
    let empty = t.dir.join("empty");
    fs::create_dir(&empty).unwrap();
    fails_and_goes_on(&t, empty.to_str());
}

#[test]
fn with_a_criu_that_dies_the_container_goes_on() {
    requires!(root);
    let t = Test::new("badcriu");
    let dir = t.dir.join("bin");
    fs::create_dir(&dir).unwrap();
    script(&dir.join("criu"), "#!/bin/sh\nexit 3\n");
    fails_and_goes_on(&t, Some(&format!("{}:/usr/bin:/bin", dir.display())));
}

#[test]
fn a_process_that_criu_cannot_dump_goes_on() {
    requires!(root);
    requires!(program "criu");
    requires!(program "strace");
    let t = Test::new("undumpable");
    // A tracer: CRIU needs to be the only one.
    t.detached("exec sleep 1000");
    let log = t.dir.join("strace");
    let mut tracer = std::process::Command::new("strace")
        .args(["-o", log.to_str().unwrap(), "-p", &t.pid().to_string()])
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    wait_for("the tracer", SECONDS_5, || {
        let status = fs::read_to_string(format!("/proc/{}/status", t.pid())).unwrap();
        (!status.contains("TracerPid:\t0\n")).then_some(())
    });
    let (before, all) = (outside(&t), processes(&t));
    let images = t.dir.join("images");
    let out = t.rt(&["checkpoint", "--image-path", images.to_str().unwrap(), &t.id]).go();
    out.fails("criu").one_line();
    assert_eq!((outside(&t), processes(&t)), (before, all));
    assert_eq!(t.status(), "running");
    tracer.kill().unwrap();
    tracer.wait().unwrap();
    t.exec(&["true"]).ok();
    t.end();
}

/// As one that waits for somebody to fetch the pages (`--lazy-pages`): it traces the processes, so that these do not end
/// without it, and rrun waits for it and holds the lock.
#[test]
fn delete_force_ends_a_checkpoint_whose_criu_hangs() {
    requires!(root);
    requires!(program "strace");
    rrun_only!("runc has no lock");
    let t = Test::new("criuhangs");
    t.detached("sleep 1000 & wait");
    // strace under the name of CRIU; stopped, it reaps nobody.
    let (real, bin) = (t.dir.join("real"), t.dir.join("bin"));
    fs::create_dir(&real).unwrap();
    fs::create_dir(&bin).unwrap();
    fs::copy(program("strace").unwrap(), real.join("criu")).unwrap();
    let pids = wait_for("two processes", SECONDS_5, || {
        let pids: Vec<u32> = processes(&t).lines().map(|pid| pid.parse().unwrap()).collect();
        (pids.len() == 2).then_some(pids)
    });
    let traced: String = pids.iter().map(|pid| format!(" -p {pid}")).collect();
    let log = t.dir.join("strace");
    let line = format!("#!/bin/sh\nexec {}/criu -o {}{traced}\n", real.display(), log.display());
    script(&bin.join("criu"), &line);
    let images = t.dir.join("images");
    let checkpoint = t
        .rt(&["checkpoint", "--lazy-pages", "--image-path", images.to_str().unwrap(), &t.id])
        .env("PATH", format!("{}:/usr/bin:/bin", bin.display()))
        .spawn();
    let tracer = |pid: &u32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let tracer = status.lines().find_map(|l| l.strip_prefix("TracerPid:")?.trim().parse().ok()).unwrap();
        Pid::from_raw(tracer)
    };
    let criu = wait_for("the tracer", SECONDS_5, || {
        pids.iter().map(tracer).collect::<Option<Vec<_>>>().map(|tracers| tracers[0])
    });
    rustix::process::kill_process(criu, Signal::STOP).unwrap();
    t.end();
    let out = checkpoint.wait();
    out.fails("criu ended without an answer").one_line();
    assert!(out.took < patiently(Duration::from_secs(5)), "{out:?}");
}

#[test]
fn a_restore_of_nothing_leaves_nothing() {
    requires!(root);
    requires!(program "criu");
    let t = Test::new("restorenone");
    let images = t.dir.join("images");
    fs::create_dir(&images).unwrap();
    let before = t.rootfs_listing();
    let restore = |flags: &[&str]| {
        let mut all = vec!["--image-path", images.to_str().unwrap()];
        all.extend(flags);
        t.bundle_command("restore", &all).go()
    };
    for flags in [&[][..], &["--detach"]] {
        restore(flags).fails("descriptors.json").says("no such file").one_line();
        t.nothing_left();
        assert_eq!(t.rootfs_listing(), before);
    }
    // The id is free.
    t.detached("exec sleep 1000");
    restore(&[]).fails("exist").one_line();
    assert_eq!(t.status(), "running");
    t.end();
}

#[test]
fn only_a_running_container_is_checkpointed() {
    requires!(root);
    let t = Test::new("cptstate");
    let images = t.dir.join("images");
    let checkpoint = || t.rt(&["checkpoint", "--image-path", images.to_str().unwrap(), &t.id]).go();
    checkpoint().fails("does not exist").one_line();
    t.sh("exec sleep 1000").create();
    checkpoint().fails("cannot be checkpointed|criu").one_line();
    assert_eq!(t.status(), "created");
    t.kill("KILL").ok();
    t.wait_status("stopped");
    checkpoint().fails("not running|cannot be checkpointed").one_line();
    t.end();
}

/// Debian's 3.17 does not work with kernels much younger than itself, and says so.
pub fn criu_works() -> bool {
    static WORKS: OnceLock<bool> = OnceLock::new();
    *WORKS.get_or_init(|| {
        let check =
            |criu| Command::new(criu).arg("check").stderr(Stdio::null()).stdout(Stdio::null()).status();
        program("criu").is_some_and(|criu| check(criu).is_ok_and(|status| status.success()))
    })
}

/// A guest is slow, and several tests dump at once.
const PATIENCE: Duration = Duration::from_secs(90);

/// Counts in a tmpfs, which goes into the images, and holds none of the caller's files, which CRIU cannot find
/// again. The name tells whether it is still the same process.
const COUNT: &str = "exec </dev/null >/dev/null 2>&1; name=$(cat /proc/sys/kernel/random/uuid); i=0
    while :; do i=$((i+1)); echo $name $i >/count/n; sleep 0.1; done";

/// Without `no_new_privs`, which CRIU restores from 3.19 on.
fn new(name: &str) -> Test {
    let t = Test::new(name);
    t.edit(|c| c["process"]["noNewPrivileges"] = json!(false));
    t
}

/// A container that counts, not started.
fn full_counter(name: &str) -> Test {
    let t = new(name);
    fs::create_dir(t.rootfs.join("count")).unwrap();
    t.sh(COUNT).add_mount(json!({ "destination": "/count", "type": "tmpfs", "source": "tmpfs" }));
    t
}

/// The same with the fewest mounts and on the host's network: CRIU takes half the time for it.
fn counter(name: &str) -> Test {
    let t = full_counter(name);
    t.edit(|c| {
        c["mounts"]
            .as_array_mut()
            .unwrap()
            .retain(|m| m["destination"] == "/proc" || m["destination"] == "/count");
        c["linux"]["maskedPaths"] = json!([]);
        c["linux"]["readonlyPaths"] = json!([]);
    });
    on_host_network(&t);
    t
}

/// A container that counts.
fn counting(name: &str) -> Test {
    let t = counter(name);
    run(&t);
    t
}

fn run(t: &Test) {
    t.bundle_command("run", &["--detach"]).limit(PATIENCE).go().ok();
    count(t);
}

/// Who counts, and how far it is.
fn count(t: &Test) -> (String, u64) {
    let pid = t.pid();
    wait_for("a count", PATIENCE, || counted(pid))
}

fn counted(pid: u32) -> Option<(String, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/root/count/n")).ok()?;
    let (name, n) = text.trim().split_once(' ')?;
    Some((name.to_owned(), n.parse().ok()?))
}

/// The same process counts on from there.
#[track_caller]
fn counts_on(t: &Test, before: &(String, u64)) {
    assert_eq!(t.status(), "running");
    let pid = t.pid();
    let now = wait_for("counting", PATIENCE, || counted(pid).filter(|now| now.1 > before.1));
    assert_eq!(now.0, before.0, "another process counts");
}

fn images(t: &Test) -> PathBuf {
    t.dir.join("images")
}

fn dump<'a>(t: &'a Test, images: &Path, flags: &[&str]) -> Run<'a> {
    let mut args = vec!["checkpoint", "--image-path", images.to_str().unwrap()];
    args.extend(flags);
    args.push(&t.id);
    t.rt(&args).limit(PATIENCE)
}

fn bring<'a>(t: &'a Test, images: &Path, flags: &[&str]) -> Run<'a> {
    let mut args = vec!["--image-path", images.to_str().unwrap()];
    args.extend(flags);
    t.bundle_command("restore", &args).limit(PATIENCE)
}

/// Success, in silence.
#[track_caller]
fn silent(out: &Out) {
    out.ok();
    assert_eq!((out.stdout(), out.stderr()), (String::new(), String::new()), "{out:?}");
}

/// Dumps, and nothing of the container is left but the images.
#[track_caller]
fn checkpoint(t: &Test, flags: &[&str]) {
    silent(&dump(t, &images(t), flags).go());
    t.nothing_left();
}

#[track_caller]
fn restore(t: &Test, flags: &[&str]) {
    let all: Vec<_> = ["--detach"].iter().chain(flags).copied().collect();
    silent(&bring(t, &images(t), &all).go());
}

/// There and back, counting.
#[track_caller]
fn round(t: &Test, dumping: &[&str], restoring: &[&str]) {
    let before = count(t);
    checkpoint(t, dumping);
    restore(t, restoring);
    counts_on(t, &before);
}

const NEEDS: &str = "needs a CRIU that passes `criu check` on this kernel";

#[test]
fn a_restored_container_is_one_like_others() {
    requires!(root);
    requires!(criu_works(), NEEDS);
    let t = full_counter("likeothers");
    let limits = json!({ "memory": { "limit": 67_108_864 }, "pids": { "limit": 50 } });
    t.edit(|c| {
        c["linux"]["resources"]["memory"] = limits["memory"].clone();
        c["linux"]["resources"]["pids"] = limits["pids"].clone();
    });
    run(&t);
    let shape = |t: &Test| {
        let mut state = t.state();
        for changing in ["pid", "created"] {
            assert!(state.as_object_mut().unwrap().remove(changing).is_some());
        }
        state
    };
    let (state, before, limited) = (shape(&t), count(&t), limits_of(&t));
    // What exec has left in it is dumped as well.
    t.exec(&["sh", "-c", "exec sleep 4711 </dev/null >/dev/null 2>&1 & echo $! >/count/other"]).ok();
    let pid_file = t.dir.join("pid");
    checkpoint(&t, &["--empty-ns", "network"]);
    restore(&t, &["--empty-ns", "network", "--pid-file", pid_file.to_str().unwrap()]);
    counts_on(&t, &before);
    assert_eq!(t.exec(&["sh", "-c", "tail -n +3 /proc/net/dev | cut -d: -f1"]).stdout().trim(), "lo");
    assert_eq!((shape(&t), limits_of(&t)), (state, limited));
    assert_eq!(fs::read_to_string(&pid_file).unwrap(), t.pid().to_string());
    let out = t.exec(&["sh", "-c", "tr '\\0' ' ' </proc/$(cat /count/other)/cmdline; echo $$ >/count/exec"]);
    out.ok();
    assert_eq!(out.stdout(), "sleep 4711 ");
    t.rt(&["pause", &t.id]).go().ok();
    assert_eq!(t.status(), "paused");
    t.rt(&["resume", &t.id]).go().ok();
    counts_on(&t, &count(&t));
    let out = t.rt(&["events", "--stats", &t.id]).go();
    out.ok();
    let stats: Value = serde_json::from_str(&out.stdout()).unwrap();
    assert!(stats["data"]["pids"]["current"].as_u64().unwrap() >= 2, "{stats}");
    t.rt(&["update", "--pids-limit", "60", &t.id]).go().ok();
    assert_eq!(limits_of(&t).1, "60");
    t.kill("KILL").ok();
    t.wait_status("stopped");
    t.rt(&["delete", &t.id]).go().ok();
    t.nothing_left();
}

/// `memory.max` and `pids.max`, or what they are called in v1.
fn limits_of(t: &Test) -> (String, String) {
    let v2 = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let read = |controller: &str, file: &str| {
        let dir = if v2 { unified(t.pid()) } else { t.cgroup(controller) };
        fs::read_to_string(dir.join(file)).unwrap().trim().to_owned()
    };
    (read("memory", if v2 { "memory.max" } else { "memory.limit_in_bytes" }), read("pids", "pids.max"))
}

#[test]
fn a_scope_is_made_again_with_its_limits() {
    requires!(root);
    requires!(criu_works(), NEEDS);
    requires!(has_systemd(), "needs systemd as PID 1");
    let t = counter("cscope");
    let (unit, slice) = (format!("rr-{}.scope", t.id), "rrckpt.slice");
    t.edit(|c| {
        c["linux"]["cgroupsPath"] = json!(format!("{slice}:rr:{}", t.id));
        c["linux"]["resources"]["memory"] = json!({ "limit": 67_108_864 });
        c["linux"]["resources"]["pids"] = json!({ "limit": 50 });
    });
    let bundle = t.bundle.to_str().unwrap().to_owned();
    let images = images(&t);
    let systemd = |args: &[&str]| {
        let all = [&["--systemd-cgroup"], args, &[t.id.as_str()]].concat();
        silent(&t.rt(&all).limit(PATIENCE).go());
    };
    let shown = |name: &str| {
        let out = Command::new("systemctl").args(["show", &unit, "--value", "-p", name]).output().unwrap();
        String::from_utf8(out.stdout).unwrap().trim().to_owned()
    };
    systemd(&["run", "--detach", "--bundle", &bundle]);
    let path = || fs::read_to_string(format!("/proc/{}/cgroup", t.pid())).unwrap();
    let (before, at, invocation) = (count(&t), path(), shown("InvocationID"));
    assert!(at.contains(&format!("/{slice}/{unit}")), "{at}");
    systemd(&["checkpoint", "--image-path", images.to_str().unwrap()]);
    t.nothing_left();
    wait_for("the unit to go", PATIENCE, || (shown("LoadState") == "not-found").then_some(()));
    systemd(&["restore", "--detach", "--bundle", &bundle, "--image-path", images.to_str().unwrap()]);
    counts_on(&t, &before);
    assert_eq!(path(), at);
    assert_ne!(shown("InvocationID"), invocation);
    let limits = || (limits_of(&t), shown("TasksMax"), shown("Delegate"));
    let expected = (("67108864".to_owned(), "50".to_owned()), "50".to_owned(), "yes".to_owned());
    assert_eq!(limits(), expected);
    // systemd knows them, and so they stay.
    assert!(Command::new("systemctl").arg("daemon-reload").status().unwrap().success());
    assert_eq!(limits(), expected);
    counts_on(&t, &count(&t));
    t.end();
    wait_for("the unit to go", PATIENCE, || (shown("LoadState") == "not-found").then_some(()));
    let _ = Command::new("systemctl").args(["stop", slice]).status();
}

fn unified(pid: u32) -> PathBuf {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let path = text.lines().find_map(|line| line.strip_prefix("0::/")).unwrap();
    Path::new("/sys/fs/cgroup").join(path)
}

#[test]
fn a_container_left_running_goes_on_and_its_images_restore() {
    requires!(root);
    requires!(criu_works(), NEEDS);
    let t = counting("leave");
    let (before, pid) = (count(&t), t.pid());
    silent(&dump(&t, &images(&t), &["--leave-running"]).go());
    assert_eq!(t.pid(), pid);
    counts_on(&t, &before);
    t.exec(&["true"]).ok();
    let later = wait_for("counting", PATIENCE, || Some(count(&t)).filter(|now| now.1 > before.1 + 40));
    t.end();
    restore(&t, &[]);
    let back = count(&t);
    assert!(back.0 == later.0 && back.1 < later.1, "restored as it was then: {back:?} {later:?}");
    t.end();
}

#[test]
fn a_work_path_has_the_logs_and_an_image_path_is_made() {
    requires!(root);
    requires!(criu_works(), NEEDS);
    let t = counting("workpath");
    let work = t.dir.join("work");
    let deep = t.dir.join("a/b/c");
    let before = count(&t);
    // Relative ones mean the caller's directory, before and after CRIU's start.
    silent(&dump(&t, Path::new("a/b/c"), &["--work-path", "work"]).go());
    let names = |dir: &Path| -> Vec<String> {
        let names = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        names.collect()
    };
    assert!(work.join("dump.log").exists());
    assert!(deep.join("inventory.img").exists());
    assert!(names(&work).iter().all(|n| !n.ends_with(".img")) && !names(&deep).contains(&"dump.log".into()));
    let flags = ["--detach", "--work-path", "work", "--pid-file", "pid"];
    silent(&bring(&t, Path::new("a/b/c"), &flags).go());
    counts_on(&t, &before);
    assert_eq!(fs::read_to_string(t.dir.join("pid")).unwrap(), t.pid().to_string());
    assert!(work.join("restore.log").exists() && !deep.join("restore.log").exists());
    t.end();
}

#[test]
fn a_chain_of_pre_dumps_is_silent_and_restores() {
    requires!(root);
    requires!(criu_works(), NEEDS);
    // It only makes the parent's pages go; without it the chain is the same.
    let dedup = &["--auto-dedup"][..];
    let t = counting("predump");
    let (before, pid) = (count(&t), t.pid());
    let with = |flags: &[&'static str]| [flags, dedup].concat();
    silent(&dump(&t, &t.dir.join("first"), &with(&["--pre-dump"])).go());
    counts_on(&t, &before);
    let flags = with(&["--pre-dump", "--parent-path", "../first"]);
    silent(&dump(&t, &t.dir.join("second"), &flags).go());
    assert_eq!(t.pid(), pid);
    let before = count(&t);
    checkpoint(&t, &with(&["--parent-path", "../second"]));
    let parent = |dir: &str| fs::read_link(t.dir.join(dir).join("parent")).unwrap();
    assert_eq!((parent("second"), parent("images")), ("../first".into(), "../second".into()));
    restore(&t, dedup);
    counts_on(&t, &before);
    t.end();
}

#[test]
fn a_paused_container_is_dumped_and_stays_paused() {
    requires!(root);
    requires!(criu_works(), NEEDS);
    let t = counting("paused");
    t.rt(&["pause", &t.id]).go().ok();
    let before = count(&t);
    silent(&dump(&t, &images(&t), &["--leave-running"]).go());
    assert_eq!((t.status().as_str(), count(&t)), ("paused", before.clone()));
    checkpoint(&t, &[]);
    restore(&t, &[]);
    // Whether it is frozen again is CRIU's choice, by cgroup version.
    if t.status() == "paused" {
        t.rt(&["resume", &t.id]).go().ok();
    }
    counts_on(&t, &before);
    t.end();
}

#[test]
fn a_foreground_restore_has_the_status_and_the_pipes() {
    requires!(root);
    requires!(criu_works(), NEEDS);
    let t = new("foreground");
    t.sh("while read line; do echo got $line; test $line = end && exit 7; done; exit 8");
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    let (output, out) = rustix::pipe::pipe().unwrap();
    let start = |run: Run<'_>, stdin: &OwnedFd, stdout: &OwnedFd| {
        let mut command = run.command();
        command.stdin(stdin.try_clone().unwrap()).stdout(stdout.try_clone().unwrap());
        command.stderr(stdout.try_clone().unwrap());
        command.spawn().unwrap()
    };
    let first = start(t.bundle_command("run", &[]), &reader, &out);
    let mut lines = BufReader::new(File::from(output)).lines();
    let mut to = File::from(writer);
    to.write_all(b"one\n").unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "got one");
    silent(&dump(&t, &images(&t), &[]).go());
    assert_eq!(ended(first), Some(137), "the foreground run sees a killed process");
    let pid_file = t.dir.join("pid");
    let flags = ["--pid-file", pid_file.to_str().unwrap(), "--no-subreaper", "--no-pivot"];
    let second = start(bring(&t, &images(&t), &flags), &reader, &out);
    to.write_all(b"two\n").unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "got two");
    wait_for("the pid file", PATIENCE, || pid_file.exists().then_some(()));
    assert_eq!(fs::read_to_string(&pid_file).unwrap(), t.pid().to_string());
    to.write_all(b"end\n").unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "got end");
    assert_eq!(ended(second), Some(7));
    t.nothing_left();
}

fn ended(mut child: Child) -> Option<i32> {
    assert!(crate::harness::ends_within(&child, PATIENCE), "still running");
    child.wait().unwrap().code()
}

#[test]
fn a_terminal_comes_back_by_the_console_socket() {
    requires!(root);
    requires!(criu_works(), NEEDS);
    let t = new("console");
    t.sh("while read line; do echo got $line; done").edit(|c| c["process"]["terminal"] = json!(true));
    let socket = FdSocket::bind(&t.dir.join("tty.sock"));
    let terminal = |run: Run<'_>| {
        let out = run.spawn();
        let (_, mut fds) = socket.receive();
        silent(&out.wait());
        Pty::of(fds.remove(0))
    };
    let flags = ["--detach", "--console-socket", socket.path.to_str().unwrap()];
    let mut pty = terminal(t.bundle_command("run", &flags));
    pty.send("one\n");
    pty.expect("got one");
    for word in ["two", "three"] {
        checkpoint(&t, &[]);
        pty = terminal(bring(&t, &images(&t), &flags));
        pty.send(&format!("{word}\n"));
        pty.expect(&format!("got {word}"));
    }
    // In the foreground the terminal is that of the caller.
    checkpoint(&t, &[]);
    let (mut pty, _slave, child) = Pty::spawn_run(&bring(&t, &images(&t), &[]));
    wait_for("restored", PATIENCE, || {
        t.state.join(&t.id).exists().then(|| t.status() == "running")?.then_some(())
    });
    pty.send("four\n");
    pty.expect("got four");
    t.kill("KILL").ok();
    assert_eq!(ended(child), Some(137));
    drop(pty);
    t.nothing_left();
}

/// A line there and back.
#[track_caller]
fn echoes(stream: &mut BufReader<TcpStream>, text: &str) {
    stream.get_mut().write_all(format!("{text}\n").as_bytes()).unwrap();
    let mut line = String::new();
    stream.read_line(&mut line).unwrap();
    assert_eq!(line, format!("{text}\n"));
}

fn connect(address: &str, port: u16) -> BufReader<TcpStream> {
    let stream = wait_for("the server", PATIENCE, || TcpStream::connect((address, port)).ok());
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    BufReader::new(stream)
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// One process that counts and gives back the lines of the one connection it has: every further process, and every
/// program it starts, is work for CRIU.
fn counts_and_serves(t: &Test, port: u16) {
    // A byte at a time: busybox forgets what it has of a line when the time is up before its end.
    let script = "exec 2>&1; read name </proc/sys/kernel/random/uuid; i=0; line=
        while :; do
            if IFS= read -r -n 1 -t 0.1 c; then
                case $c in '') echo \"$line\"; line= ;; *) line=$line$c ;; esac
            fi
            i=$((i+1)); echo $name $i >/count/n
        done";
    let port = port.to_string();
    t.edit(|c| c["process"]["args"] = json!(["nc", "-l", "-p", port, "-e", "sh", "-c", script]));
    t.bundle_command("run", &["--detach"]).limit(PATIENCE).go().ok();
}

/// Dumps and restores, with a peer that at times goes on sending meanwhile: the kernel sends it again until it
/// arrives, but waits longer each time.
fn stays_connected(t: &Test, stream: &mut BufReader<TcpStream>, rounds: u32) {
    for i in 0..rounds {
        let before = count(t);
        silent(&dump(t, &images(t), &["--tcp-established"]).go());
        t.nothing_left();
        if i % 5 == 0 {
            stream.get_mut().write_all(b"meanwhile\n").unwrap();
        }
        silent(&bring(t, &images(t), &["--detach", "--tcp-established"]).go());
        if i % 5 == 0 {
            let mut line = String::new();
            stream.read_line(&mut line).unwrap();
            assert_eq!(line, "meanwhile\n");
        }
        echoes(stream, &format!("round {i}"));
        counts_on(t, &before);
    }
}

#[test]
fn a_counter_counts_on_and_a_connection_stays_open_twenty_times() {
    requires!(root);
    requires!(criu_works(), NEEDS);
    requires!(program "iptables");
    let t = counter("twenty");
    let port = free_port();
    counts_and_serves(&t, port);
    let mut stream = connect("127.0.0.1", port);
    let first = count(&t);
    stays_connected(&t, &mut stream, 20);
    let last = count(&t);
    assert!(last.0 == first.0 && last.1 >= first.1 + 20, "{first:?} {last:?}");
    t.end();
}

fn serve(port: u16) -> String {
    format!("exec </dev/null >/dev/null 2>&1; exec nc -ll -p {port} -e cat")
}

/// Without a network namespace of its own.
fn on_host_network(t: &Test) -> &Test {
    t.edit(|c| {
        let namespaces = c["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|n| n["type"] != "network");
    })
}

fn join(t: &Test, kind: &str, path: &str) {
    t.edit(|c| {
        let namespaces = c["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|n| n["type"] != kind);
        namespaces.push(json!({ "type": kind, "path": path }));
    });
}

/// A network namespace with a name and a veth pair, the outer end with an address of its own.
struct Network {
    name: String,
}

impl Network {
    fn new(n: u8) -> Self {
        let name = format!("ck{}x{n}", std::process::id());
        let prefix = format!("10.213.{n}");
        ip(&["netns", "add", &name]);
        ip(&["link", "add", &name, "type", "veth", "peer", "name", "eth0", "netns", &name]);
        ip(&["addr", "add", &format!("{prefix}.1/24"), "dev", &name]);
        ip(&["link", "set", &name, "up"]);
        ip(&["-n", &name, "addr", "add", &format!("{prefix}.2/24"), "dev", "eth0"]);
        ip(&["-n", &name, "link", "set", "eth0", "up"]);
        ip(&["-n", &name, "link", "set", "lo", "up"]);
        Self { name }
    }

    fn path(&self) -> String {
        format!("/run/netns/{}", self.name)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["link", "del", &self.name]).stderr(Stdio::null()).status();
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

fn ip(args: &[&str]) {
    let out = Command::new("ip").args(args).output().unwrap();
    assert!(out.status.success(), "ip {args:?}: {}", String::from_utf8_lossy(&out.stderr));
}

#[test]
fn hooks_build_the_network_anew_and_a_tcp_connection_goes_on() {
    requires!(root);
    requires!(criu_works(), NEEDS);
    requires!(program "iptables");
    requires!(program "ip");
    let t = new("tcphooks");
    let (hook, log, link) =
        (t.dir.join("hook"), t.dir.join("hook.log"), format!("ckh{}", std::process::id()));
    script(
        &hook,
        &format!(
            "#!/bin/sh
set -e; PATH=/usr/sbin:/usr/bin:/sbin:/bin
readlink /proc/self/ns/mnt >>{log}.mnt
state=$(cat); pid=$(echo \"$state\" | sed 's/.*\"pid\": *\\([0-9]*\\).*/\\1/'); echo \"$1 $state\" >>{log}
test $1 = network || exit 0
ip link add {link} address 02:00:00:00:00:01 type veth peer name eth0 address 02:00:00:00:00:02 netns $pid
ip addr add 10.213.9.1/24 dev {link}; ip link set {link} up
nsenter -t $pid -n ip addr add 10.213.9.2/24 dev eth0; nsenter -t $pid -n ip link set eth0 up
",
            log = log.display()
        ),
    );
    let entry = |name: &str| json!([{ "path": hook.to_str().unwrap(), "args": ["hook", name] }]);
    t.edit(|c| {
        c["hooks"] = json!({ "createRuntime": entry("network"), "prestart": entry("prestart"),
            "poststart": entry("poststart"), "poststop": entry("poststop") });
    });
    t.detached(&serve(7777));
    let mut stream = connect("10.213.9.2", 7777);
    for i in 0..2 {
        echoes(&mut stream, &format!("round {i}"));
        checkpoint(&t, &["--tcp-established"]);
        restore(&t, &["--tcp-established"]);
    }
    echoes(&mut stream, "last");
    t.end();
    let text = fs::read_to_string(&log).unwrap();
    let names: Vec<_> = text.lines().map(|l| l.split(' ').next().unwrap()).collect();
    let mut expected = vec!["prestart", "network", "poststart", "poststop"];
    expected.extend(["prestart", "network", "poststop"].repeat(2));
    assert_eq!(names, expected, "a restored process does not start: poststart is not for it");
    let host = fs::read_link("/proc/self/ns/mnt").unwrap();
    let seen = fs::read_to_string(format!("{}.mnt", log.display())).unwrap();
    assert!(seen.lines().all(|l| Path::new(l) == host), "hooks are the host's: {seen}");
}

#[test]
fn tcp_connections_need_their_flag_and_can_be_closed() {
    requires!(root);
    requires!(criu_works(), NEEDS);
    requires!(program "iptables");
    let t = counter("tcpflags");
    let port = free_port();
    on_host_network(&t).detached(&serve(port));
    let mut stream = connect("127.0.0.1", port);
    echoes(&mut stream, "before");
    let refused = dump(&t, &images(&t), &[]).go();
    refused.fails("tcp").says("dump.log").one_line();
    echoes(&mut stream, "it goes on");
    checkpoint(&t, &["--tcp-established"]);
    bring(&t, &images(&t), &["--detach"]).go().fails("tcp").says("restore.log").one_line();
    t.nothing_left();
    restore(&t, &["--tcp-close"]);
    remove_rules(port);
    // The server goes on, and serves others; the old connection is gone.
    stream.get_ref().shutdown(std::net::Shutdown::Both).unwrap();
    let mut stream = connect("127.0.0.1", port);
    echoes(&mut stream, "another");
    t.end();
}

/// CRIU 3.17 leaves the rules that lock a connection if it closes that instead of restoring it.
fn remove_rules(port: u16) {
    let rules = Command::new("iptables-save").output().unwrap();
    let rules = String::from_utf8(rules.stdout).unwrap();
    for rule in rules.lines().filter(|l| l.contains("0xc114") && l.contains(&format!("port {port} "))) {
        let args = rule.split(' ').map(|word| if word == "-A" { "-D" } else { word });
        assert!(Command::new("iptables").args(args).status().unwrap().success());
    }
}

#[test]
fn connections_in_flight_are_skipped_if_asked() {
    requires!(root);
    requires!(criu_works(), NEEDS);
    requires!(program "iptables");
    let t = counter("inflight");
    let port = free_port();
    // A server that is stopped accepts nothing.
    on_host_network(&t).detached(&format!(
        "exec </dev/null >/dev/null 2>&1; nc -ll -p {port} -e cat & sleep 1; kill -STOP $!; wait; sleep 1000"
    ));
    let _stream = connect("127.0.0.1", port);
    wait_for("the stop", PATIENCE, || {
        let ps = t.exec(&["ps", "-o", "stat,args"]);
        ps.stdout().lines().any(|l| l.starts_with('T') && l.contains("nc -ll")).then_some(())
    });
    let _second = connect("127.0.0.1", port);
    dump(&t, &images(&t), &["--tcp-established"]).go().fails("in-flight").one_line();
    assert_eq!(t.status(), "running");
    checkpoint(&t, &["--tcp-established", "--tcp-skip-in-flight"]);
    restore(&t, &["--tcp-established"]);
    t.exec(&["killall", "-CONT", "nc"]).ok();
    let mut stream = connect("127.0.0.1", port);
    echoes(&mut stream, "served");
    t.end();
}

/// Runs `sleep` in the container, holding `fd` as fd 3: as init's child, for CRIU dumps init's tree alone.
fn hold(t: &Test, fd: &OwnedFd) {
    let inside = "sleep 1000 </dev/null >/dev/null 2>&1 &";
    let args = ["exec", "--preserve-fds", "1", &t.id, "sh", "-c", inside];
    // As stdin: dash knows no fd above 9.
    let mut command = t.rt(&args).through("exec \"$@\" 3<&0 </dev/null").command();
    let status = command.stdin(fd.try_clone().unwrap()).status().unwrap();
    assert!(status.success());
}

#[test]
fn file_locks_need_their_flag() {
    requires!(root);
    requires!(criu_works(), NEEDS);
    let t = counting("locks");
    let path = format!("/proc/{}/root/count/lock", t.pid());
    let file = File::options().create(true).truncate(false).write(true).read(true).open(&path).unwrap();
    rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let inheritable = rustix::io::dup(&file).unwrap();
    hold(&t, &inheritable);
    drop((file, inheritable));
    dump(&t, &images(&t), &[]).go().fails("lock").one_line();
    round(&t, &["--file-locks"], &["--file-locks"]);
    let file = File::open(format!("/proc/{}/root/count/lock", t.pid())).unwrap();
    let taken = rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive);
    assert_eq!(taken.unwrap_err(), rustix::io::Errno::WOULDBLOCK);
    t.end();
}

#[test]
fn sockets_of_others_need_their_flag() {
    requires!(root);
    requires!(criu_works(), NEEDS);
    let t = counter("unix");
    let dir = t.dir.join("sockets");
    fs::create_dir(&dir).unwrap();
    // Found again by name, which must mean the same inside.
    t.add_mount(json!({ "destination": dir, "source": dir, "type": "bind", "options": ["bind"] }));
    run(on_host_network(&t));
    let outer = UnixDatagram::bind(dir.join("outer")).unwrap();
    let inner = UnixDatagram::unbound().unwrap();
    inner.connect(dir.join("outer")).unwrap();
    let inheritable = rustix::io::dup(&inner).unwrap();
    hold(&t, &inheritable);
    drop((inner, inheritable));
    dump(&t, &images(&t), &[]).go().fails("socket").one_line();
    round(&t, &["--ext-unix-sk"], &["--ext-unix-sk"]);
    t.exec(&["sh", "-c", "echo hello >/proc/$(pidof sleep | tr ' ' '\\n' | sort -n | head -n 1)/fd/3"]);
    drop(outer);
    t.end();
}

#[test]
fn unlinked_files_come_back() {
    requires!(root);
    requires!(criu_works(), NEEDS);
    let t = counter("unlinked");
    t.edit(|c| {
        let script = c["process"]["args"][2].as_str().unwrap().replacen(
            "i=0",
            "echo ghost >/f; exec 3</f; rm /f; echo linked >/g; ln /g /h; exec 4</g; rm /g; i=0",
            1,
        );
        c["process"]["args"][2] = json!(script);
    });
    run(&t);
    let before = t.rootfs_listing();
    dump(&t, &images(&t), &[]).go().fails("link").one_line();
    round(&t, &["--link-remap"], &[]);
    let out = t.exec(&["sh", "-c", "cat /proc/1/fd/3 /proc/1/fd/4"]);
    out.ok();
    assert_eq!(out.stdout(), "ghost\nlinked\n");
    assert_eq!(t.rootfs_listing(), before, "CRIU's link is not left");
    t.end();
}

#[test]
fn every_mode_of_managing_cgroups_restores() {
    requires!(root);
    requires!(criu_works(), NEEDS);
    let t = counter("cgmodes");
    t.edit(|c| c["linux"]["resources"]["pids"] = json!({ "limit": 50 }));
    run(&t);
    for mode in ["soft", "full", "strict", "ignore"] {
        // `strict` wants the cgroups to be new, and a container's are there before CRIU starts.
        let before = count(&t);
        let flags = ["--manage-cgroups-mode", mode];
        checkpoint(&t, &flags);
        if mode == "strict" {
            bring(&t, &images(&t), &["--detach", flags[0], flags[1]]).go().fails("criu").one_line();
            t.nothing_left();
            restore(&t, &[]);
        } else {
            restore(&t, &flags);
        }
        counts_on(&t, &before);
        assert_eq!(limits_of(&t).1, "50", "{mode}");
    }
    // Into another one.
    let before = count(&t);
    checkpoint(&t, &["--manage-cgroups-mode", "ignore"]);
    let other = format!("/{}-other", t.id);
    t.edit(|c| c["linux"]["cgroupsPath"] = json!(other));
    restore(&t, &["--manage-cgroups-mode", "ignore"]);
    counts_on(&t, &before);
    assert!(fs::read_to_string(format!("/proc/{}/cgroup", t.pid())).unwrap().contains(&other));
    t.end();
}

#[test]
fn a_joined_network_is_joined_again_with_its_connections() {
    requires!(root);
    requires!(criu_works(), NEEDS);
    requires!(program "iptables-save");
    requires!(program "ip");
    let network = Network::new(1);
    let t = counter("extnet");
    join(&t, "network", &network.path());
    counts_and_serves(&t, 7777);
    let rules = || {
        let save = ["iptables-save", "ip6tables-save"].map(|program| {
            let out = Command::new("ip").args(["netns", "exec", &network.name, program]).output().unwrap();
            String::from_utf8(out.stdout).unwrap()
        });
        save.concat().lines().filter(|l| l.contains("CRIU")).map(|l| format!("{l}\n")).collect::<String>()
    };
    let inode = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
    let before = inode(t.pid());
    let mut stream = connect("10.213.1.2", 7777);
    stays_connected(&t, &mut stream, 3);
    assert_eq!((inode(t.pid()), rules().as_str()), (before.clone(), ""));
    // A restore that fails leaves it locked, and no more than that.
    checkpoint(&t, &["--tcp-established"]);
    assert!(rules().contains("-j DROP"), "{}", rules());
    bring(&t, &images(&t), &["--detach"]).go().fails("tcp").says("restore.log").one_line();
    t.nothing_left();
    restore(&t, &["--tcp-established"]);
    echoes(&mut stream, "after a failure");
    assert_eq!((inode(t.pid()), rules().as_str()), (before, ""));
    t.end();
}

#[test]
fn a_joined_pid_namespace_is_joined_again() {
    requires!(root);
    requires!(criu_works(), NEEDS);
    let owner = counting("pidowner");
    let t = counter("extpid");
    join(&t, "pid", &format!("/proc/{}/ns/pid", owner.pid()));
    run(&t);
    let before = count(&t);
    checkpoint(&t, &[]);
    restore(&t, &[]);
    counts_on(&t, &before);
    let space = |t: &Test| fs::read_link(format!("/proc/{}/ns/pid", t.pid())).unwrap();
    assert_eq!(space(&t), space(&owner));
    t.end();
    owner.end();
}

#[test]
fn mounts_masks_and_devices_come_back() {
    requires!(root);
    requires!(criu_works(), NEEDS);
    let t = full_counter("cmounts");
    let (dir, nested, file) = (t.dir.join("dir"), t.dir.join("nested"), t.dir.join("file"));
    fs::create_dir_all(&dir).unwrap();
    fs::create_dir_all(&nested).unwrap();
    fs::write(&file, "the file\n").unwrap();
    fs::write(nested.join("in"), "nested\n").unwrap();
    fs::create_dir_all(t.rootfs.join("real/conf")).unwrap();
    std::os::unix::fs::symlink("/real/conf", t.rootfs.join("conf")).unwrap();
    let bind = |from: &Path, to: &str, more: &str| json!({ "destination": to, "source": from, "type": "bind", "options": ["rbind", more] });
    t.add_mount(bind(&dir, "/dir", "rw")).add_mount(bind(&nested, "/dir/for/nested", "rw"));
    t.add_mount(bind(&file, "/etc/file", "ro")).add_mount(bind(&nested, "/conf", "ro"));
    // A source is relative to the bundle.
    fs::create_dir_all(t.bundle.join("beside")).unwrap();
    fs::write(t.bundle.join("beside/in"), "beside\n").unwrap();
    t.add_mount(bind(Path::new("./beside"), "/beside", "rw"));
    t.add_mount(json!({ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
        "options": ["ro", "nosuid"] }));
    t.edit(|c| {
        c["linux"]["devices"] = json!([{ "path": "/dev/fuse", "type": "c", "major": 10, "minor": 229,
            "fileMode": 438, "uid": 0, "gid": 0 }]);
        c["linux"]["maskedPaths"] = json!([
            "/proc/kcore",
            "/proc/keys",
            "/proc/timer_list",
            "/proc/acpi",
            "/sys/firmware",
            "/proc/scsi"
        ]);
    });
    run(&t);
    t.exec(&["sh", "-c", "echo kept >/count/kept; mkdir /count/d; ln -s kept /count/l"]).ok();
    let look = "cat /etc/file /conf/in /beside/in /dir/for/nested/in /count/kept; readlink /count/l; ls -l /dev | sed 's/  *[A-Z][a-z][a-z] .*:.. / /'
        for m in /proc/kcore /proc/keys /proc/timer_list; do wc -c <$m; done; ls /sys/firmware /proc/acpi /proc/scsi
        touch /proc/sys/x 2>&1; touch /etc/file 2>&1; awk '{print $5, $6, $(NF-2)}' /proc/self/mountinfo | sort";
    let seen = |t: &Test| t.exec(&["sh", "-c", look]).stdout();
    let before = seen(&t);
    assert!(before.contains("kept") && before.contains("/dir/for/nested"), "{before}");
    for _ in 0..2 {
        // The mount points in the images' absence: a bind's source has lost what creation made in it.
        let counted = count(&t);
        checkpoint(&t, &[]);
        fs::remove_dir_all(dir.join("for")).unwrap();
        restore(&t, &[]);
        counts_on(&t, &counted);
        assert_eq!(seen(&t), before);
    }
    t.end();
}

/// A tmpfs of the host that passes on what is mounted in it.
struct Shared(PathBuf);

impl Shared {
    fn new(t: &Test) -> Self {
        let dir = PathBuf::from(format!("{}-shared", t.dir.display()));
        fs::create_dir(&dir).unwrap();
        let shared = Self(dir);
        shared.mount("");
        let status = Command::new("mount").arg("--make-shared").arg(&shared.0).status().unwrap();
        assert!(status.success());
        shared
    }

    fn mount(&self, below: &str) {
        let target = self.0.join(below);
        fs::create_dir_all(&target).unwrap();
        let status = Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(&target).status().unwrap();
        assert!(status.success());
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-R").arg(&self.0).status();
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn mounts_of_the_host_arrive_in_a_restored_container() {
    requires!(root);
    requires!(criu_works(), NEEDS);
    let t = counter("propagation");
    let shared = Shared::new(&t);
    for (target, how) in [("/slave", "rslave"), ("/shared", "rshared")] {
        t.add_mount(json!({ "destination": target, "source": shared.0, "type": "bind",
            "options": ["rbind", how] }));
    }
    run(&t);
    let lines = || -> Vec<String> {
        let text = fs::read_to_string(format!("/proc/{}/mountinfo", t.pid())).unwrap();
        text.lines().filter(|l| l.contains(" /slave") || l.contains(" /shared")).map(str::to_owned).collect()
    };
    // The mount point and `shared:` or `master:`, without the number.
    let kinds = || -> Vec<String> {
        let word = |w: &str| w.split(':').next().unwrap().to_owned();
        let kind = |l: &String| l.split(' ').skip(4).take_while(|w| *w != "-").map(word).collect::<Vec<_>>();
        lines().iter().map(|l| kind(l).join(" ")).collect()
    };
    let before = kinds();
    assert!(before.len() == 2 && before.iter().all(|l| l.contains("master")), "{before:?}");
    for name in ["first", "second", "third"] {
        shared.mount(name);
        let now = lines();
        for target in ["/slave", "/shared"] {
            assert!(now.iter().any(|l| l.contains(&format!(" {target}/{name} "))), "{name}: {now:?}");
        }
        assert!(Command::new("umount").arg(shared.0.join(name)).status().unwrap().success());
        let counted = count(&t);
        checkpoint(&t, &[]);
        restore(&t, &[]);
        counts_on(&t, &counted);
        assert_eq!(kinds(), before);
    }
    t.end();
}

#[test]
fn a_filtered_process_is_filtered_still() {
    requires!(root);
    requires!(criu_works(), NEEDS);
    let t = counter("cseccomp");
    t.edit(|c| {
        c["process"]["noNewPrivileges"] = json!(true);
        c["linux"]["seccomp"] = json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            { "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 77 }] });
        let args = &mut c["process"]["args"][2];
        *args = json!(args.as_str().unwrap().replacen(
            "sleep",
            "mkdir /count/d && echo made >/count/made; sleep",
            1
        ));
    });
    run(&t);
    let status = |t: &Test| {
        let text = fs::read_to_string(format!("/proc/{}/status", t.pid())).unwrap();
        let wanted = |l: &&str| l.starts_with("Seccomp") || l.starts_with("NoNew") || l.starts_with("Cap");
        text.lines().filter(wanted).map(str::to_owned).collect::<Vec<_>>()
    };
    let before = status(&t);
    assert!(before.iter().any(|l| l == "Seccomp:\t2"), "{before:?}");
    for _ in 0..2 {
        let counted = count(&t);
        let told = dump(&t, &images(&t), &[]).go();
        told.ok();
        t.nothing_left();
        let out = bring(&t, &images(&t), &["--detach"]).go();
        out.ok();
        counts_on(&t, &counted);
        let after = status(&t);
        // An old CRIU loses one thing, and that is told by the command whose standard error is not the container's.
        let lost = after.iter().any(|l| l == "NoNewPrivs:\t0");
        assert_eq!(lost, told.stderr().contains("no_new_privs"), "{told:?}");
        assert_eq!(out.stderr(), "");
        let others =
            |all: &[String]| all.iter().filter(|l| !l.starts_with("NoNew")).cloned().collect::<Vec<_>>();
        assert_eq!(others(&after), others(&before));
    }
    let made = format!("/proc/{}/root/count/made", t.pid());
    assert!(!Path::new(&made).exists());
    t.end();
}

#[test]
fn a_container_with_a_user_namespace_comes_back() {
    requires!(root);
    requires!(criu_works(), NEEDS);
    let t = full_counter("cuserns");
    t.map_users();
    run(&t);
    let map = |t: &Test| fs::read_to_string(format!("/proc/{}/uid_map", t.pid())).unwrap();
    let (before, counted) = (map(&t), count(&t));
    checkpoint(&t, &[]);
    // CRIU reads them as the container's root.
    bring(&t, &images(&t), &["--detach"]).go().fails("chmod o+x").says("restore.log").one_line();
    t.nothing_left();
    crate::harness::chmod(&images(&t), 0o711);
    restore(&t, &[]);
    counts_on(&t, &counted);
    assert_eq!(map(&t), before);
    let out = t.exec(&["id", "-u"]);
    assert_eq!(out.stdout(), "0\n");
    t.end();
}

fn peer(program: &str, args: &[&str], log: &Path) -> Child {
    let file = File::create(log).unwrap();
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
    command.spawn().unwrap()
}

/// Loads a mebibyte, so that there are pages to transfer.
fn with_memory(t: &Test) {
    t.edit(|c| {
        let args = &mut c["process"]["args"][2];
        let grown =
            "x=0123456789abcdef; for k in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16; do x=$x$x; done; i=0";
        *args =
            json!(args.as_str().unwrap().replacen("i=0", grown, 1).replacen("sleep", ": ${#x}; sleep", 1));
    });
}

#[test]
fn pages_are_sent_to_a_page_server() {
    requires!(root);
    requires!(criu_works(), NEEDS);
    let t = counter("pageserver");
    with_memory(&t);
    run(&t);
    let before = count(&t);
    let pages = images(&t);
    fs::create_dir(&pages).unwrap();
    let port = free_port();
    let flags = ["page-server", "--images-dir", pages.to_str().unwrap(), "--port", &port.to_string()];
    let log = t.dir.join("peer.log");
    let server = peer("criu", &flags, &log);
    wait_for("the page server", PATIENCE, || listens(port).then_some(()));
    let rest = t.dir.join("rest");
    silent(&dump(&t, &rest, &["--page-server", &format!("127.0.0.1:{port}")]).go());
    t.nothing_left();
    assert_eq!(ended(server), Some(0), "{}", fs::read_to_string(&log).unwrap());
    let has_pages = |dir: &Path| {
        let mut names = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        names.any(|name| name.starts_with("pages-"))
    };
    assert!(has_pages(&pages) && !has_pages(&rest));
    for entry in fs::read_dir(&rest).unwrap() {
        let path = entry.unwrap().path();
        fs::rename(&path, pages.join(path.file_name().unwrap())).unwrap();
    }
    restore(&t, &[]);
    counts_on(&t, &before);
    t.end();
}

/// By the kernel's list: to connect would be to be served.
fn listens(port: u16) -> bool {
    ["/proc/net/tcp", "/proc/net/tcp6"].iter().any(|list| {
        let text = fs::read_to_string(list).unwrap_or_default();
        text.lines().any(|l| {
            let fields: Vec<_> = l.split_whitespace().collect();
            fields.len() > 3 && fields[1].ends_with(&format!(":{port:04X}")) && fields[3] == "0A"
        })
    })
}

#[test]
fn pages_are_restored_lazily_from_the_other_side() {
    requires!(root);
    requires!(criu_works(), NEEDS);
    requires!(feature("uffd-noncoop"), "needs userfaultfd(2) as `criu check --feature uffd-noncoop` does");
    let t = counter("lazy");
    with_memory(&t);
    run(&t);
    let before = count(&t);
    let port = free_port();
    let (ready, status) = rustix::pipe::pipe().unwrap();
    let address = format!("127.0.0.1:{port}");
    let number = status.as_raw_fd().to_string();
    let flags = ["--lazy-pages", "--page-server", &address, "--status-fd", "3"];
    let source =
        dump(&t, &images(&t), &flags).through(&format!("exec \"$@\" 3>/proc/self/fd/{number}")).spawn();
    drop(status);
    let mut byte = [1];
    File::from(ready).read_exact(&mut byte).unwrap();
    assert_eq!(byte, [0]);
    assert!(images(&t).join("inventory.img").exists());
    let dir = images(&t);
    let (dir, port) = (dir.to_str().unwrap(), port.to_string());
    let flags = ["lazy-pages", "--page-server", "--address", "127.0.0.1", "--port", &port, "-D", dir];
    let log = t.dir.join("peer.log");
    let daemon = peer("criu", &flags, &log);
    wait_for("the daemon", PATIENCE, || images(&t).join("lazy-pages.socket").exists().then_some(()));
    // The dumped one is there until its last page has gone.
    let id = format!("{}-new", t.id);
    let bundle = t.bundle.to_str().unwrap();
    let args = [
        "restore",
        "--bundle",
        bundle,
        "--image-path",
        dir,
        "--work-path",
        dir,
        "--lazy-pages",
        "--detach",
        &id,
    ];
    silent(&t.rt(&args).limit(PATIENCE).go());
    silent(&source.wait());
    assert_eq!(ended(daemon), Some(0), "{}", fs::read_to_string(&log).unwrap());
    let state = t.rt(&["state", &id]).go();
    let state: Value = serde_json::from_str(&state.stdout()).unwrap();
    assert_eq!(state["status"], "running");
    let file = format!("/proc/{}/root/count/n", state["pid"]);
    wait_for("counting", PATIENCE, || {
        let text = fs::read_to_string(&file).ok()?;
        let (name, n) = text.trim().split_once(' ')?;
        (name == before.0 && n.parse::<u64>().ok()? > before.1).then_some(())
    });
    t.rt(&["delete", "--force", &id]).go().ok();
    t.nothing_left();
}

fn feature(name: &str) -> bool {
    let criu = program("criu").unwrap();
    Command::new(criu).args(["check", "--feature", name]).output().unwrap().status.success()
}

#[test]
fn a_failed_dump_and_a_failed_restore_leave_all_as_it_was() {
    requires!(root);
    requires!(criu_works(), NEEDS);
    let t = counting("cfails");
    let before = count(&t);
    let (log, pid) = (images(&t).join("dump.log"), t.pid());
    let outer = t.dir.join("outer");
    fs::write(&outer, "not the container's\n").unwrap();
    let foreign = rustix::io::dup(File::open(&outer).unwrap()).unwrap();
    hold(&t, &foreign);
    let out = dump(&t, &images(&t), &[]).go();
    out.fails(log.to_str().unwrap()).says("error (criu/").one_line();
    assert_eq!(t.pid(), pid);
    counts_on(&t, &before);
    t.exec(&["killall", "-KILL", "sleep"]);
    wait_for("its end", PATIENCE, || {
        let out = t.exec(&["ps", "-o", "args"]);
        (!out.stdout().contains("sleep 1000")).then_some(())
    });
    let before = count(&t);
    checkpoint(&t, &[]);
    // An image that is not whole.
    let core = images(&t).join("core-1.img");
    let whole = fs::read(&core).unwrap();
    fs::write(&core, &whole[..whole.len() / 2]).unwrap();
    let log = images(&t).join("restore.log");
    for flags in [&["--detach"][..], &[]] {
        bring(&t, &images(&t), flags).go().fails(log.to_str().unwrap()).says("error (criu/").one_line();
        t.nothing_left();
    }
    fs::write(&core, &whole).unwrap();
    restore(&t, &[]);
    counts_on(&t, &before);
    t.end();
}

/// What CRIU mounts for itself, and cgroup2 with its options, which each mount of it sets anew.
fn host_mounts() -> Vec<String> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
    text.lines().filter(|l| l.contains("criu") || l.contains(" - cgroup2 ")).map(str::to_owned).collect()
}

#[test]
fn a_command_that_is_killed_leaves_what_delete_removes() {
    requires!(root);
    requires!(criu_works(), NEEDS);
    let t = counting("ckilled");
    let before = host_mounts();
    checkpoint(&t, &[]);
    let images = images(&t);
    let nothing_left = || {
        t.nothing_left();
        assert_eq!(host_mounts(), before);
    };
    // From before CRIU starts to after it is done.
    let delays = [0, 50, 150, 400, 1000];
    for delay in delays.map(Duration::from_millis) {
        let mut running = bring(&t, &images, &["--detach"]).spawn();
        // How long it works is the machine's matter: no event marks the middle.
        std::thread::sleep(delay);
        let _ = running.child.kill();
        running.wait();
        t.rt(&["delete", "--force", &t.id]).limit(PATIENCE).go().ok();
        nothing_left();
    }
    restore(&t, &[]);
    for delay in delays.map(Duration::from_millis) {
        let again = t.dir.join("again");
        let mut running = dump(&t, &again, &[]).spawn();
        std::thread::sleep(delay);
        let _ = running.child.kill();
        running.wait();
        t.rt(&["delete", "--force", &t.id]).limit(PATIENCE).go().ok();
        nothing_left();
        restore(&t, &[]);
    }
    t.end();
}
