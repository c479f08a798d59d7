//! A machine that is short of something: each time rrun ends within its time, fails with one line if it fails, and
//! leaves nothing. Other rows of this kind are in bad_input (descriptors, address space, closed streams, a full log,
//! huge and deep JSON) and cgroups (a container's own limits); errors of single calls are for tests/sweeps.

use crate::harness::{
    Out, Run, SECONDS_5, Test, controller, is_cgroup2, is_rrun, lacks, patiently, script, wait_for,
};
use crate::{requires, rrun_only};
use serde_json::json;
use std::fs;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Duration;

/// Ends in time, by itself, with success or one line.
#[track_caller]
fn survives(t: &Test, run: Run<'_>) -> Out {
    let out = run.limit(SECONDS_5).go();
    let told = out.stderr();
    assert!(!told.contains("panicked") && out.signal.is_none(), "{out:?}");
    if out.code == Some(1) {
        out.one_line();
        assert!(!told.is_empty(), "{out:?}");
    }
    t.nothing_left();
    out
}

/// Runs the runtime in a mount namespace where `script` has changed something.
fn elsewhere<'a>(run: Run<'a>, script: &str) -> Run<'a> {
    let script = format!("mount --make-rprivate / && {script} && exec \"$@\"");
    run.under(&["unshare", "-m", "sh", "-c", &script, "sh"])
}

#[test]
fn no_room_in_the_state_directory() {
    requires!(root);
    rrun_only!("runc 1.1 leaves what it could not write");
    let t = Test::new("noroom");
    t.sh("exit 0");
    fs::create_dir_all(&t.state).unwrap();
    let state = t.state.to_str().unwrap();
    for (options, words) in [
        ("size=4k", "no space left on device"),
        ("nr_inodes=1", "no space left on device"),
        ("nr_inodes=2", "no space left on device"),
        ("nr_inodes=3", "no space left on device"),
        ("ro", "read-only file system"),
    ] {
        for verb in ["create", "run"] {
            let script = format!(
                "mount --make-rprivate / && mount -t tmpfs -o {options} none {state} && \"$@\"; \
                 status=$?; ls -A {state}; exit $status"
            );
            let run = t.bundle_command(verb, &[]).under(&["unshare", "-m", "sh", "-c", &script, "sh"]);
            let out = survives(&t, run);
            out.fails(words);
            assert_eq!(out.stdout(), "", "{options}: left in the state directory");
        }
    }
}

#[test]
fn few_descriptors_and_many_mounts() {
    requires!(root);
    rrun_only!("a Go program needs more");
    let t = Test::new("fewfds");
    t.sh("exit 0");
    for n in 0..200 {
        fs::create_dir(t.rootfs.join(format!("tmp/{n}"))).unwrap();
    }
    t.edit(|c| {
        let mounts = c["mounts"].as_array_mut().unwrap();
        mounts.extend(
            (0..200)
                .map(|n| json!({ "destination": format!("/tmp/{n}"), "type": "tmpfs", "source": "tmpfs" })),
        );
    });
    // The shell that takes calls away from the runtime has descriptors of its own, dash at 10.
    let least = if lacks().is_empty() { 0 } else { 16 };
    for limit in [4, 6, 8, 10, 12, 16, 32, 64].into_iter().filter(|limit| *limit >= least) {
        let out =
            survives(&t, t.bundle_command("run", &[]).through(&format!("ulimit -n {limit}; exec \"$@\"")));
        if out.code != Some(0) {
            out.says("too many open files");
        }
        // No descriptor is held for each mount.
        assert!(limit < 32 || out.code == Some(0), "{limit}: {out:?}");
    }
}

#[test]
fn few_processes_around_the_runtime() {
    requires!(root);
    let top = if is_cgroup2() { Path::new("/sys/fs/cgroup") } else { Path::new("/sys/fs/cgroup/pids") };
    let t = Test::new("fewpids");
    t.sh("exit 0");
    // Not of the container's name: it is there for as long as the test.
    let around = top.join(format!("around-{}", std::process::id()));
    requires!(is_cgroup2() || controller("pids"), "needs the controller pids");
    fs::create_dir(&around).unwrap();
    let limited = around.join("pids.max").exists();
    for most in 1..=5 {
        let script =
            format!("echo {most} >{0}/pids.max; echo $$ >{0}/cgroup.procs; exec \"$@\"", around.display());
        if limited {
            let out = survives(&t, t.bundle_command("run", &[]).through(&script));
            if is_rrun() && out.code != Some(0) {
                out.says("clone|resource temporarily unavailable|can't fork");
            }
        }
    }
    wait_for("an empty cgroup", SECONDS_5, || fs::remove_dir(&around).ok());
    requires!(limited, "needs the controller pids");
}

#[test]
fn little_memory_for_the_container() {
    requires!(root);
    requires!(is_cgroup2() || controller("memory"), "needs the controller memory");
    rrun_only!("Debian's runc needs several megabytes for itself");
    let t = Test::new("memory");
    t.sh("exit 0");
    for kilobytes in [100, 200, 400, 800, 1600, 4000] {
        t.edit(|c| c["linux"]["resources"]["memory"] = json!({ "limit": kilobytes << 10 }));
        let out = survives(&t, t.bundle_command("run", &[]));
        if !matches!(out.code, Some(0 | 137)) {
            out.says("OOM|memory");
        }
    }
}

#[test]
fn a_reader_that_goes_away_is_no_panic() {
    requires!(root);
    let t = Test::new("sigpipe");
    t.detached("exec sleep 1000");
    for words in [&["state", &t.id][..], &["list"], &["ps", &t.id], &["events", "--stats", &t.id]] {
        for reader in ["true", "head -c 1 >/dev/null"] {
            let out = t.rt(words).through(&format!("\"$@\" | {reader}")).go();
            assert_eq!(out.ok().stderr(), "", "{words:?}");
        }
    }
    t.end();
}

#[test]
fn a_console_socket_that_nobody_accepts_or_that_is_closed() {
    requires!(root);
    rrun_only!("runc waits for it without end");
    let t = Test::new("deafconsole");
    t.sh("exit 0").edit(|c| c["process"]["terminal"] = json!(true));
    let path = t.dir.join("console");
    let create = || t.bundle_command("create", &["--console-socket", path.to_str().unwrap()]);
    // The terminal is made after this hook.
    let closed = t.dir.join("closed");
    let hook = t.dir.join("hook");
    script(&hook, &format!("#!/bin/sh\nuntil [ -e {} ]; do sleep 0.01; done\n", closed.display()));
    t.edit(|c| c["hooks"] = json!({ "createRuntime": [{ "path": hook }] }));

    // With room for one, which is taken.
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, bind, connect, listen, socket};
    let new = || socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
    let (listener, first) = (new(), new());
    let address = SocketAddrUnix::new(&path).unwrap();
    bind(&listener, &address).unwrap();
    listen(&listener, 0).unwrap();
    connect(&first, &address).unwrap();
    let out = create().limit(Duration::from_secs(10)).go();
    out.fails("connect").one_line();
    t.nothing_left();
    drop((listener, first));

    fs::remove_file(&path).unwrap();
    let listener = UnixListener::bind(&path).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            drop(listener.accept().unwrap());
            fs::write(&closed, "").unwrap();
        });
        survives(&t, create()).fails("sendmsg|broken pipe");
    });
}

#[test]
fn ten_thousand_mounts_on_the_host() {
    requires!(root);
    let t = Test::new("mounttable");
    t.sh("exit 0");
    let many = t.dir.join("many");
    fs::create_dir(&many).unwrap();
    // Each turn binds all there are once more.
    let script = format!(
        "mount -t tmpfs none {0} && cd {0} && mkdir a && mount -t tmpfs none a && \
         for i in 0 1 2 3 4 5 6 7 8 9 10 11 12; do mkdir $i && mount --rbind a $i && \
         mkdir -p a/$i && mount --rbind $i a/$i || exit 3; done; \
         test $(wc -l </proc/self/mountinfo) -gt 10000 && cd /",
        many.display()
    );
    let out = elsewhere(t.bundle_command("run", &[]), &script).limit(Duration::from_secs(20)).go();
    out.ok();
    t.nothing_left();
}

#[test]
fn a_fork_bomb_is_deleted_at_once() {
    requires!(root);
    requires!(is_cgroup2() || controller("pids"), "needs the controller pids");
    rrun_only!("runc 1.1 kills one process after the other on cgroup v1");
    let t = Test::new("forkbomb");
    t.add_probe().edit(|c| {
        c["process"]["args"] = json!(["/bin/probe", "forks"]);
        c["linux"]["resources"]["pids"] = json!({ "limit": 50 });
    });
    t.bundle_command("run", &["--detach"]).go().ok();
    let pids = t.cgroup("pids").join("pids.current");
    wait_for("a full cgroup", SECONDS_5, || {
        (fs::read_to_string(&pids).unwrap().trim().parse::<u32>().unwrap() >= 50).then_some(())
    });
    let out = t.rt(&["delete", "--force", &t.id]).go();
    out.ok();
    assert!(out.took < patiently(Duration::from_secs(1)), "{out:?}");
    t.nothing_left();
}

#[test]
fn no_more_namespaces_of_a_kind() {
    requires!(root);
    rrun_only!("its words");
    let t = Test::new("nons");
    t.sh("exit 0");
    for kind in ["net", "mnt", "pid"] {
        // A limit is of the user namespace that it is written in.
        let script = format!("echo 0 >/proc/sys/user/max_{kind}_namespaces && exec \"$@\"");
        let under = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", &script, "sh"];
        let out = survives(&t, t.bundle_command("run", &[]).under(&under));
        out.fails("create namespaces (").says("no space left on device").says("a limit of /proc/sys/user");
    }
}

/// Since Linux 6.14 kernel.pid_max is of the pid namespace; before, this would change the host's.
fn pid_max_is_of_the_namespace() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    (numbers.next().unwrap(), numbers.next().unwrap()) >= (6, 14)
}

#[test]
fn a_pid_that_came_again_is_a_strangers() {
    requires!(root);
    requires!(pid_max_is_of_the_namespace(), "needs Linux 6.14");
    let t = Test::new("recycled");
    t.sh("exec sleep 1000");
    let before = fs::read_to_string("/proc/sys/kernel/pid_max").unwrap();
    let script = format!(
        "echo 400 >/proc/sys/kernel/pid_max; pid_file={0}
         # Numbers below 300 do not come again.
         until (exit) & [ $! -gt 310 ]; do wait; done
         \"$@\" run --detach --bundle {1} --pid-file $pid_file {2} || exit 1
         pid=$(cat $pid_file); kill -9 $pid
         n=0; while [ $n -lt 5000 ]; do
           sleep 1000 & if [ $! = $pid ]; then break; fi; kill -9 $!; wait $! 2>/dev/null; n=$((n+1))
         done
         [ $! = $pid ] || {{ echo never; exit 1; }}
         \"$@\" state {2} | grep -o stopped; \"$@\" kill {2} KILL 2>/dev/null && echo killed
         \"$@\" delete --force {2} || echo undeleted
         kill -0 $pid && kill -9 $pid && echo alive",
        t.dir.join("pid").display(),
        t.bundle.display(),
        t.id,
    );
    let none: [&str; 0] = [];
    let run = t.rt(&none).under(&["unshare", "-fpm", "--mount-proc", "sh", "-c", &script, "sh"]);
    let out = run.limit(Duration::from_secs(30)).go();
    assert_eq!(out.ok().stdout(), "stopped\nalive\n", "{out:?}");
    assert_eq!(fs::read_to_string("/proc/sys/kernel/pid_max").unwrap(), before);
    t.nothing_left();
}

#[test]
fn a_host_that_lacks_what_others_have() {
    requires!(root);
    let t = Test::new("barehost");
    t.sh("exit 0");
    for script in [
        "umount -l /proc",
        "mount -t proc -o hidepid=2 proc /proc",
        "mount -o bind,remount,ro /sys",
        "umount -l /sys",
        "mount -t tmpfs none /dev",
        "mount -t tmpfs none /run",
    ] {
        let out = survives(&t, elsewhere(t.bundle_command("run", &[]), script));
        if is_rrun() && out.code != Some(0) {
            eprintln!("{script}: {}", out.stderr().trim());
        }
    }
}
