//! checkpoint and restore where they cannot succeed: one line, and the container is as it was. That they
//! succeed is for a machine whose kernel CRIU knows.

use crate::harness::{Test, script};
use crate::requires;
use std::fs;

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
    crate::harness::wait_for("up", crate::harness::SECONDS_5, || t.rootfs.join("up").exists().then_some(()));
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
    let t = Test::new("undumpable");
    // A tracer: CRIU needs to be the only one.
    t.detached("exec sleep 1000");
    let log = t.dir.join("strace");
    let mut tracer = std::process::Command::new("strace")
        .args(["-o", log.to_str().unwrap(), "-p", &t.pid().to_string()])
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    crate::harness::wait_for("the tracer", crate::harness::SECONDS_5, || {
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
