//! runtime.md, Lifecycle and Operations: each operation in each state.

use crate::harness::{SECONDS_5, Test, patiently, processes_marked, wait_for};
use crate::{requires, rrun_only};
use serde_json::json;
use std::fs;
use std::time::Duration;

#[test]
fn run_gives_the_exit_code_of_the_process() {
    requires!(root);
    let t = Test::new("exit");
    t.sh("exit 42").run().code_is(42);
    t.nothing_left();
}

#[test]
fn run_gives_128_plus_the_signal_that_ended_the_process() {
    requires!(root);
    let t = Test::new("signal");
    // A pid 1 is not killed by its own signal unless it is SIGKILL from outside.
    let running = t.sh("echo up; sleep 1000").bundle_command("run", &[]).spawn();
    wait_for("output", SECONDS_5, || running.stdout().contains("up").then_some(()));
    t.kill("KILL").ok();
    running.wait().code_is(137);
    t.nothing_left();
}

/// runtime.md, Lifecycle 2-7: created until start, running, stopped, gone.
#[test]
fn the_states_of_a_container_by_hand() {
    requires!(root);
    let t = Test::new("states");
    t.sh("echo started; exec sleep 1000");
    let created = t.bundle_command("create", &[]).go();
    created.ok();
    let state = t.state();
    assert_eq!(state["status"], "created");
    assert_eq!(state["id"], t.id.as_str());
    assert_eq!(state["bundle"], t.bundle.to_str().unwrap());
    assert!(state["ociVersion"].is_string());
    assert_eq!(created.stdout(), "", "the user's program must not run before start (runtime.md, Create)");
    t.start();
    assert_eq!(t.status(), "running");
    wait_for("the program's output", SECONDS_5, || (created.stdout() == "started\n").then_some(()));
    t.kill("KILL").ok();
    t.wait_status("stopped");
    assert_eq!(t.state()["pid"].as_u64().unwrap_or(0), 0);
    t.rt(&["delete", &t.id]).go().ok();
    t.nothing_left();
    t.rt(&["state", &t.id]).go().fails("does not exist").one_line();
}

/// runtime.md, Create: changes made to config.json after this operation will not affect the container.
#[test]
fn a_config_changed_after_create_has_no_effect() {
    requires!(root);
    let t = Test::new("frozen");
    t.sh("echo first");
    let created = t.bundle_command("create", &[]).go();
    t.sh("echo second");
    t.start();
    t.wait_status("stopped");
    assert_eq!(created.stdout(), "first\n");
    t.end();
}

/// runtime.md, Create: a duplicate id MUST generate an error and a new container MUST NOT be created.
#[test]
fn the_same_id_twice_leaves_the_first_container_alone() {
    requires!(root);
    let t = Test::new("twice");
    t.detached("exec sleep 1000");
    let pid = t.pid();
    for _ in 0..3 {
        t.bundle_command("create", &[])
            .go()
            .fails("container with given ID already exists|already exists")
            .one_line();
    }
    assert_eq!((t.status().as_str(), t.pid()), ("running", pid));
    assert!(t.exec(&["true"]).code == Some(0));
    t.end();
}

/// runtime.md, Start: a container that is not created MUST have no effect on it and MUST generate an error.
#[test]
fn start_in_every_other_state_fails() {
    requires!(root);
    let t = Test::new("start");
    t.rt(&["start", "none"]).go().fails("does not exist").one_line();
    t.detached("exec sleep 1000");
    t.rt(&["start", &t.id])
        .go()
        .fails("cannot start an already running container|not in `created`")
        .one_line();
    t.kill("KILL").ok();
    t.wait_status("stopped");
    t.rt(&["start", &t.id])
        .go()
        .fails("cannot start a container that has stopped|not in `created`")
        .one_line();
    t.end();
}

/// runtime.md, Kill: neither created nor running MUST generate an error.
#[test]
fn kill_in_every_state() {
    requires!(root);
    let t = Test::new("kill");
    t.rt(&["kill", "none", "KILL"]).go().fails("does not exist");
    t.sh("exec sleep 1000").create();
    t.kill("KILL").ok();
    t.wait_status("stopped");
    t.kill("KILL").fails("container not running|is not running").one_line();
    t.end();
}

/// runtime.md, Delete: a container that is not stopped MUST generate an error.
#[test]
fn delete_of_a_running_container_fails_and_has_no_effect() {
    requires!(root);
    let t = Test::new("delete");
    t.detached("exec sleep 1000");
    let out = t.rt(&["delete", &t.id]).go();
    out.fails("that is not stopped|not in `created` or `stopped`").one_line();
    assert_eq!(t.status(), "running");
    t.end();
}

/// A caller that has seen all it waited for deletes the container while the process is still ending.
#[test]
fn delete_waits_a_moment_for_a_process_that_ends() {
    requires!(root);
    let t = Test::new("delsoon");
    t.detached("exec sleep 0.05");
    t.rt(&["delete", &t.id]).go().ok();
    t.nothing_left();
}

/// runtime.md, Delete: a container that is not stopped. runc, crun and youki end it all the same; who wants that says
/// --force, as podman and CRI-O do, or kills first, as containerd does.
#[test]
fn delete_of_a_created_container_fails_and_has_no_effect() {
    requires!(root);
    rrun_only!("peers end it");
    let t = Test::new("delcreated");
    t.create();
    t.rt(&["delete", &t.id]).go().fails("that is not stopped: created").one_line();
    assert_eq!(t.status(), "created");
    t.rt(&["delete", "--force", &t.id]).go().ok();
    t.nothing_left();
}

#[test]
fn delete_force_of_a_paused_container_ends_it() {
    requires!(root);
    let t = Test::new("delpaused");
    t.detached("exec sleep 1000");
    t.rt(&["pause", &t.id]).go().ok();
    t.end();
}

/// `run` has the lock and does not end with the container: its hook does not.
#[test]
fn delete_force_ends_a_run_that_waits_for_its_hook() {
    requires!(root);
    let t = Test::new("hookhangs");
    t.sh("exec sleep 1000").edit(|c| {
        c["hooks"] = json!({ "poststart": [{ "path": "/bin/sleep", "args": ["sleep", "1001"] }] });
    });
    let run = t.bundle_command("run", &["--detach"]).spawn();
    wait_for("the hook", SECONDS_5, || {
        processes_marked(&t.id).iter().any(|(_, name)| name == "sleep").then_some(())
    });
    wait_for("running", SECONDS_5, || (t.status() == "running").then_some(()));
    t.end();
    let run = run.wait();
    assert!(run.code != Some(0) && run.took < patiently(Duration::from_secs(25)), "{run:?}");
}

#[test]
fn delete_force_of_nothing_succeeds_and_delete_of_nothing_does_not() {
    requires!(root);
    let t = Test::new("delnone");
    t.rt(&["delete", "--force", "none"]).go().ok();
    t.rt(&["delete", "none"]).go().fails("container does not exist|does not exist").one_line();
}

#[test]
fn delete_takes_every_process_of_the_cgroup_along() {
    requires!(root);
    let t = Test::new("cgroupkill");
    // Without a pid namespace the children of init outlive it.
    t.edit(|c| {
        c["linux"]["namespaces"].as_array_mut().unwrap().retain(|n| n["type"] != "pid");
    });
    t.detached("sleep 1000 & sleep 1001 & exec sleep 1002");
    t.end();
}

#[test]
fn kill_all_reaches_every_process() {
    requires!(root);
    let t = Test::new("killall");
    t.detached("sleep 1000 & sleep 1001 & exec sleep 1002");
    t.rt(&["kill", "--all", &t.id, "KILL"]).go().ok();
    t.wait_status("stopped");
    t.end();
}

#[test]
fn kill_takes_names_and_numbers_and_defaults_to_term() {
    requires!(root);
    let t = Test::new("killnames");
    t.detached(
        "trap 'echo usr1' USR1; trap 'echo hup' HUP; trap 'exit 3' TERM; while :; do sleep 0.05; done",
    );
    std::thread::sleep(Duration::from_millis(200));
    for signal in ["SIGUSR1", "USR1", "10", "HUP", "1"] {
        t.kill(signal).ok();
    }
    t.rt(&["kill", &t.id]).go().ok();
    t.wait_status("stopped");
    t.end();
}

#[test]
fn term_ends_a_created_container_that_was_never_started() {
    requires!(root);
    let t = Test::new("killcreated");
    t.sh("exit 0").create();
    // The kernel drops what the first process of a pid namespace has no handler for.
    t.kill("TERM").ok();
    t.wait_status("stopped");
    t.end();
}

#[test]
fn signals_to_a_foreground_run_reach_the_container() {
    requires!(root);
    let t = Test::new("forward");
    t.sh("trap 'exit 7' TERM; echo up; while :; do sleep 0.05; done");
    let running = t.bundle_command("run", &[]).spawn();
    wait_for("the container", SECONDS_5, || running.stdout().contains("up").then_some(()));
    rustix::process::kill_process(running.pid(), rustix::process::Signal::TERM).unwrap();
    running.wait().code_is(7);
    t.nothing_left();
}

#[test]
fn run_keep_leaves_a_stopped_container() {
    requires!(root);
    rrun_only!("--keep is newer than Debian's runc in some forms");
    let t = Test::new("keep");
    t.sh("exit 5").bundle_command("run", &["--keep"]).go().code_is(5);
    assert_eq!(t.status(), "stopped");
    t.end();
}

#[test]
fn run_stays_parent_of_what_init_orphans() {
    requires!(root);
    let t = Test::new("orphans");
    t.edit(|c| c["linux"]["namespaces"].as_array_mut().unwrap().retain(|n| n["type"] != "pid"));
    t.sh("(sleep 0.1 &) ; exit 9").run().code_is(9);
    t.nothing_left();
}

#[test]
fn a_container_without_pid_namespace_ends_whole() {
    requires!(root);
    let t = Test::new("shared");
    t.edit(|c| c["linux"]["namespaces"].as_array_mut().unwrap().retain(|n| n["type"] != "pid"));
    t.sh("sleep 1000 & exit 4").run().code_is(4);
    t.nothing_left();
}

#[test]
fn list_shows_each_container_once() {
    requires!(root);
    let t = Test::new("list");
    assert_eq!(t.rt(&["list", "--quiet"]).go().stdout(), "");
    t.detached("exec sleep 1000");
    assert_eq!(t.rt(&["list", "-q"]).go().stdout(), format!("{}\n", t.id));
    let table = t.rt(&["list"]).go().stdout();
    let mut lines = table.lines();
    assert!(lines.next().unwrap().starts_with("ID "), "{table}");
    let row: Vec<_> = lines.next().unwrap().split_whitespace().collect();
    assert_eq!(row[..4], [&t.id, &t.pid().to_string(), "running", t.bundle.to_str().unwrap()]);
    t.end();
}

#[test]
fn ps_shows_the_processes_of_the_container() {
    requires!(root);
    let t = Test::new("ps");
    t.detached("sleep 1000 & exec sleep 1001");
    let json = wait_for("two processes", SECONDS_5, || {
        let out = t.rt(&["ps", "--format", "json", &t.id]).go();
        let pids: Vec<u32> = serde_json::from_str(out.ok().stdout().as_str()).unwrap();
        (pids.len() == 2).then_some(pids)
    });
    assert!(json.contains(&t.pid()));
    let table = t.rt(&["ps", &t.id]).go().ok().stdout();
    assert!(table.lines().next().unwrap().contains("PID"), "{table}");
    assert!(table.contains("sleep 1000") && table.contains("sleep 1001"), "{table}");
    let chosen = t.rt(&["ps", &t.id, "-o", "pid,args"]).go().ok().stdout();
    assert_eq!(chosen.lines().next().unwrap().split_whitespace().collect::<Vec<_>>(), ["PID", "COMMAND"]);
    t.end();
}

#[test]
fn pause_and_resume() {
    requires!(root);
    let t = Test::new("pause");
    t.detached("i=0; while :; do i=$((i+1)); echo $i > /n; sleep 0.01; done");
    let count = || fs::read_to_string(t.rootfs.join("n")).unwrap_or_default();
    wait_for("a count", SECONDS_5, || (!count().is_empty()).then_some(()));
    t.rt(&["pause", &t.id]).go().ok();
    assert_eq!(t.status(), "paused");
    let before = count();
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(count(), before);
    t.exec(&["true"])
        .fails_with(255, "cannot exec in a paused container|cannot exec a container that has paused|paused");
    t.rt(&["resume", &t.id]).go().ok();
    assert_eq!(t.status(), "running");
    wait_for("it to go on", SECONDS_5, || (count() != before).then_some(()));
    t.end();
}

#[test]
fn a_paused_container_can_be_killed() {
    requires!(root);
    let t = Test::new("pausekill");
    t.detached("exec sleep 1000");
    t.rt(&["pause", &t.id]).go().ok();
    t.kill("KILL").ok();
    let _ = t.rt(&["resume", &t.id]).go();
    t.wait_status("stopped");
    t.end();
}

/// config.md, process: args absent is allowed to `create` but `start` MUST generate an error (runtime.md, Start).
#[test]
fn a_program_that_does_not_exist_fails_create_or_start_with_words_callers_know() {
    requires!(root);
    let t = Test::new("noexe");
    t.edit(|c| c["process"]["args"] = json!(["/no/such/program"]));
    t.run().fails("no such file or directory|executable file not found").one_line();
    t.nothing_left();
    t.edit(|c| c["process"]["args"] = json!(["nosuch"]));
    t.run().fails("executable file not found in $PATH").one_line();
    t.nothing_left();
    t.edit(|c| c["process"]["args"] = json!(["/etc/passwd"]));
    t.run().fails("permission denied").one_line();
    t.nothing_left();
}

#[test]
fn of_parallel_creates_of_one_id_exactly_one_wins() {
    requires!(root);
    let t = Test::new("race");
    t.sh("exec sleep 1000");
    let all: Vec<_> = (0..6).map(|_| t.bundle_command("create", &[]).spawn()).collect();
    let wins = all.into_iter().map(|r| r.wait()).filter(|o| o.code == Some(0)).count();
    assert_eq!(wins, 1);
    assert_eq!(t.status(), "created");
    t.start();
    assert_eq!(t.status(), "running");
    t.end();
}

#[test]
fn of_parallel_starts_exactly_one_wins() {
    requires!(root);
    let t = Test::new("starts");
    t.sh("echo once; exec sleep 1000");
    let created = t.bundle_command("create", &[]).go();
    let all: Vec<_> = (0..5).map(|_| t.rt(&["start", &t.id]).spawn()).collect();
    let wins = all.into_iter().map(|r| r.wait()).filter(|o| o.code == Some(0)).count();
    assert!(wins >= 1, "nobody could start it");
    if crate::harness::is_rrun() {
        assert_eq!(wins, 1);
    }
    wait_for("output", SECONDS_5, || (created.stdout() == "once\n").then_some(()));
    t.end();
}

#[test]
fn list_and_state_beside_delete_never_fail_hard() {
    requires!(root);
    let t = Test::new("listdelete");
    for n in 0..5 {
        let id = format!("{}-{n}", t.id);
        let bundle = t.bundle.to_str().unwrap();
        t.rt(&["create", "--bundle", bundle, &id]).go().ok();
        let delete = t.rt(&["delete", "--force", &id]).spawn();
        let list = t.rt(&["list", "-q"]).spawn();
        let state = t.rt(&["state", &id]).spawn();
        delete.wait().ok();
        if crate::harness::is_rrun() {
            list.wait().ok();
        } else {
            list.wait();
        }
        let state = state.wait();
        assert!(state.code == Some(0) || state.stderr().contains("does not exist"), "{state:?}");
    }
    t.nothing_left();
}

#[test]
fn many_containers_at_once() {
    requires!(root);
    let t = Test::new("many");
    t.sh("exit 3");
    let bundle = t.bundle.to_str().unwrap();
    let runs: Vec<_> =
        (0..16).map(|n| t.rt(&["run", "--bundle", bundle, &format!("{}-{n}", t.id)]).spawn()).collect();
    for run in runs {
        run.wait().code_is(3);
    }
    t.nothing_left();
}
