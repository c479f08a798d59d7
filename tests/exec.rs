//! exec: another process in a running container.

use crate::harness::{SECONDS_5, Test, is_cgroup2, wait_for};
use crate::pty::{FdSocket, Pty};
use crate::{requires, rrun_only};
use serde_json::json;
use std::fs;

fn sleeper(name: &str) -> Test {
    let t = Test::new(name);
    t.detached("exec sleep 1000");
    t
}

#[test]
fn exec_runs_in_the_containers_namespaces_with_its_process_settings() {
    requires!(root);
    let t = Test::new("execns");
    t.edit(|c| {
        c["process"]["cwd"] = json!("/tmp");
        c["process"]["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "soft": 500, "hard": 600 }]);
    });
    t.detached("exec sleep 1000");
    let script = "hostname; pwd; ulimit -n; grep CapEff /proc/self/status; \
                  for n in mnt net pid uts ipc cgroup; do readlink /proc/self/ns/$n; done";
    let out = t.exec(&["sh", "-c", script]);
    let text = out.ok().stdout();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[..3], ["rrun-test", "/tmp", "500"]);
    assert_eq!(lines[3].split_whitespace().last(), Some("00000000a80425fb"));
    for name in ["mnt", "net", "pid", "uts", "ipc", "cgroup"] {
        let own = fs::read_link(format!("/proc/{}/ns/{name}", t.pid())).unwrap();
        assert!(text.contains(own.to_str().unwrap()), "{name} is another: {text}");
    }
    t.end();
}

#[test]
fn exec_joins_the_cgroup() {
    requires!(root);
    let t = sleeper("execcg");
    let init = fs::read_to_string(format!("/proc/{}/cgroup", t.pid())).unwrap();
    let pid_file = t.dir.join("exec.pid");
    t.rt(&["exec", "--detach", "--pid-file", pid_file.to_str().unwrap(), &t.id, "sleep", "1001"]).go().ok();
    let pid = fs::read_to_string(&pid_file).unwrap();
    assert!(pid.bytes().all(|b| b.is_ascii_digit()), "{pid:?}");
    assert_eq!(fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap(), init);
    t.end();
}

#[test]
fn exec_gives_exit_codes_and_128_plus_signals() {
    requires!(root);
    let t = sleeper("execcode");
    t.exec(&["sh", "-c", "exit 17"]).code_is(17);
    t.exec(&["sh", "-c", "kill -9 $$"]).code_is(137);
    t.exec(&["nosuch"]).fails_with(255, "exec failed").says("executable file not found in $PATH");
    t.exec(&["/etc/passwd"]).fails_with(255, "permission denied");
    t.end();
}

#[test]
fn exec_flags() {
    requires!(root);
    let t = sleeper("execflags");
    let run = |flags: &[&str], script: &str| {
        let mut args = vec!["exec"];
        args.extend(flags);
        args.extend([t.id.as_str(), "sh", "-c", script]);
        t.rt(&args).go().ok().stdout().trim().to_owned()
    };
    assert_eq!(run(&["--cwd", "/etc"], "pwd"), "/etc");
    assert_eq!(run(&["-e", "A=b c", "-e", "D=e"], "echo $A-$D"), "b c-e");
    assert_eq!(
        run(&["--user", "1000:100"], "id -u; id -g").split_whitespace().collect::<Vec<_>>(),
        ["1000", "100"]
    );
    assert_eq!(run(&["-u", "1000"], "id -u"), "1000");
    assert_eq!(run(&["-u", "1000"], "echo $HOME"), "/home/user");
    let groups = run(&["-g", "100", "-g", "65533"], "id -G");
    assert!(groups.contains("100") && groups.contains("65533"), "{groups}");
    assert_eq!(
        run(&["--no-new-privs"], "grep NoNewPrivs /proc/self/status").split_whitespace().last(),
        Some("1")
    );
    let bounding = run(&["--cap", "CAP_SYS_ADMIN"], "grep CapBnd /proc/self/status");
    assert_eq!(bounding.split_whitespace().last(), Some("00000000a82425fb"));
    t.end();
}

/// Arguments behind the id belong to the program, whatever they look like.
#[test]
fn what_follows_the_id_is_not_parsed() {
    requires!(root);
    let t = sleeper("execargs");
    assert_eq!(t.exec(&["echo", "--user", "-t", "--", "x"]).ok().stdout(), "--user -t -- x\n");
    t.end();
}

#[test]
fn exec_takes_a_process_file() {
    requires!(root);
    let t = sleeper("execfile");
    let file = t.dir.join("process.json");
    let process = json!({
        "user": { "uid": 1000, "gid": 1000, "additionalGids": [7], "umask": 0o77 },
        "args": ["sh", "-c", "id -u; id -G; umask; echo $X; pwd; grep CapEff /proc/self/status"],
        "env": ["PATH=/bin", "X=y"],
        "cwd": "/usr"
    });
    fs::write(&file, process.to_string()).unwrap();
    let out = t.rt(&["exec", "--process", file.to_str().unwrap(), &t.id]).go();
    let text = out.ok().stdout();
    let lines: Vec<_> = text.lines().collect();
    // runc 1.1 has no umask for exec.
    let umask = if crate::harness::is_rrun() { "0077" } else { lines[2] };
    assert_eq!(lines[..5], ["1000", "1000 7", umask, "y", "/usr"]);
    assert_eq!(lines[5].split_whitespace().last(), Some("0000000000000000"));
    t.end();
}

/// What fork(2) does not hand down is still the process's own.
#[test]
fn exec_is_scheduled_as_asked() {
    requires!(root);
    rrun_only!("runc 1.1 has no scheduler");
    let t = sleeper("execsched");
    let file = t.dir.join("process.json");
    let reset = ["SCHED_FLAG_RESET_ON_FORK"];
    for (scheduler, wanted) in [
        (json!({ "policy": "SCHED_BATCH", "nice": 7 }), ("7", "3")),
        (json!({ "policy": "SCHED_BATCH", "nice": 7, "flags": reset }), ("7", "3")),
        (
            json!({ "policy": "SCHED_DEADLINE", "runtime": 42_000, "deadline": 100_000, "period": 1_000_000 }),
            ("0", "6"),
        ),
        (
            json!({ "policy": "SCHED_DEADLINE", "flags": reset, "runtime": 42_000, "deadline": 100_000 }),
            ("0", "6"),
        ),
    ] {
        let process = json!({
            "args": ["cut", "-d)", "-f2", "/proc/self/stat"],
            "env": ["PATH=/bin"],
            "cwd": "/",
            "scheduler": scheduler,
        });
        fs::write(&file, process.to_string()).unwrap();
        let text = t.rt(&["exec", "--process", file.to_str().unwrap(), &t.id]).go().ok().stdout();
        // Behind the name: nice is field 19 of stat(5) and the policy field 41.
        let fields: Vec<_> = text.split_whitespace().collect();
        assert_eq!((fields[16], fields[38]), wanted, "{process}");
    }
    t.end();
}

#[test]
fn exec_with_a_terminal_behind_a_console_socket() {
    requires!(root);
    let t = sleeper("execconsole");
    let socket = FdSocket::bind(&t.dir.join("c"));
    let exec = t
        .rt(&["exec", "--tty", "--detach", "--console-socket", socket.path.to_str().unwrap(), &t.id])
        .arg("sh")
        .arg("-c")
        .arg("tty; read x; echo got $x")
        .spawn();
    let (_, mut fds) = socket.receive();
    assert_eq!(fds.len(), 1);
    let mut pty = Pty::of(fds.remove(0));
    exec.wait().ok();
    pty.expect("/dev/pts/");
    pty.send("word\n");
    pty.expect("got word");
    t.end();
}

#[test]
fn exec_in_the_foreground_with_a_terminal() {
    requires!(root);
    let t = sleeper("exectty");
    let run = t.rt(&["exec", "-t", &t.id, "sh", "-c", "tty; stty size; exit 6"]);
    let (mut pty, _slave, mut child) = Pty::spawn_run(&run);
    pty.expect("/dev/pts/");
    assert_eq!(child.wait().unwrap().code(), Some(6));
    t.end();
}

/// The process runs before we have its terminal: its first lines must not be another kind than the rest.
#[test]
fn the_first_line_of_a_terminal_ends_as_all_do() {
    requires!(root);
    requires!(program "strace");
    let t = sleeper("execline");
    let log = t.dir.join("strace");
    let late = ["strace", "-o", log.to_str().unwrap(), "-e", "inject=ioctl:delay_enter=300000"];
    let out = t.rt(&["exec", "-t", &t.id, "echo", "line"]).under(&late).go();
    assert_eq!(out.ok().stdout(), "line\n");
    t.end();
}

#[test]
fn exec_needs_a_running_container() {
    requires!(root);
    let t = Test::new("execstate");
    t.exec(&["true"]).says("does not exist");
    t.sh("exit 0");
    t.create();
    t.start();
    t.wait_status("stopped");
    let out = t.exec(&["true"]);
    out.fails_with(255, "cannot exec in a stopped container|cannot exec a container that has stopped");
    t.end();
}

#[test]
fn exec_in_a_created_container_runs() {
    requires!(root);
    let t = Test::new("execcreated");
    t.sh("exec sleep 1000").create();
    assert_eq!(t.exec(&["hostname"]).ok().stdout(), "rrun-test\n");
    t.end();
}

#[test]
fn exec_ignore_paused_runs_after_resume() {
    requires!(root);
    let t = sleeper("execpaused");
    t.rt(&["pause", &t.id]).go().ok();
    let run = t.rt(&["exec", "--ignore-paused", &t.id, "echo", "late"]).spawn();
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert_eq!(run.stdout(), "");
    t.rt(&["resume", &t.id]).go().ok();
    assert_eq!(run.wait().ok().stdout(), "late\n");
    t.end();
}

/// The container's filter applies to exec too: youki forgets it.
#[test]
fn exec_gets_the_containers_seccomp_filter() {
    requires!(root);
    let t = Test::new("execseccomp");
    t.edit(|c| {
        c["linux"]["seccomp"] = json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            { "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 122 }] });
    });
    t.detached("exec sleep 1000");
    t.exec(&["mkdir", "/x"]).fails("quota exceeded");
    t.end();
}

#[test]
fn exec_after_init_left_its_first_cwd_still_gets_in() {
    requires!(root);
    let t = sleeper("execparallel");
    let all: Vec<_> = (0..12).map(|n| t.rt(&["exec", &t.id, "echo", &n.to_string()]).spawn()).collect();
    for (n, run) in all.into_iter().enumerate() {
        assert_eq!(run.wait().ok().stdout(), format!("{n}\n"));
    }
    t.end();
}

#[test]
fn exec_beside_kill_ends_in_time() {
    requires!(root);
    let t = sleeper("execkill");
    let exec = t.rt(&["exec", &t.id, "sleep", "1000"]).limit(SECONDS_5).spawn();
    wait_for("the exec", SECONDS_5, || {
        // One that is in the cgroup and not yet at its program hears that the container is not running.
        let pids: Vec<u32> =
            serde_json::from_str(&t.rt(&["ps", "--format", "json", &t.id]).go().stdout()).ok()?;
        let sleeps = |pid: &u32| {
            std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm == "sleep\n")
        };
        (pids.len() == 2 && pids.iter().all(sleeps)).then_some(())
    });
    t.kill("KILL").ok();
    exec.wait().code_is(137);
    t.end();
}

/// The cgroups that the process is about to enter go away, or it is killed in them: what a user expects to hear is that
/// the container is not running any more.
#[test]
fn exec_beside_delete_says_that_the_container_has_ended() {
    requires!(root);
    requires!(unfiltered);
    requires!(program "strace");
    rrun_only!("the peers name the call");
    // Before there is a process, and when it is about to enter the namespaces.
    for call in ["clone3", "setns"] {
        let t = sleeper("execgone");
        let log = t.dir.join("strace");
        let (trace, inject) = (format!("trace={call}"), format!("inject={call}:delay_enter=1000000:when=1"));
        let strace = ["strace", "-f", "-o", log.to_str().unwrap(), "-e", &trace, "-e", &inject];
        let exec = t.rt(&["exec", &t.id, "true"]).under(&strace).limit(SECONDS_5).spawn();
        let begun = || fs::read_to_string(&log).ok().filter(|text| text.contains(call)).map(drop);
        wait_for("the call", SECONDS_5, begun);
        t.rt(&["delete", "--force", &t.id]).go().ok();
        let out = exec.wait();
        out.code_is(255);
        out.says("container not running");
        t.nothing_left();
    }
}

#[test]
fn a_failed_exec_leaves_no_pid_file() {
    requires!(root);
    let t = sleeper("execnopid");
    let file = t.dir.join("e.pid");
    let out = t.rt(&["exec", "--detach", "--pid-file", file.to_str().unwrap(), &t.id, "nosuch"]).go();
    out.says("executable file not found");
    assert!(!file.exists());
    t.end();
}

#[test]
fn exec_goes_to_a_cgroup_below_the_containers() {
    requires!(root);
    rrun_only!("runc 1.1 takes --cgroup on v1 per controller only when they all share a path");
    let t = sleeper("execsub");
    let sub = t.cgroup("pids").join("sub");
    fs::create_dir(&sub).unwrap();
    // v2 has one hierarchy, which needs no name.
    let (given, outside, line) =
        if is_cgroup2() { ("sub", "../..", "0::") } else { ("pids:sub", "pids:../..", "pids") };
    let out = t.rt(&["exec", "--cgroup", given, &t.id, "grep", line, "/proc/self/cgroup"]).go();
    assert!(out.ok().stdout().trim_end().ends_with("/sub"), "{out:?}");
    t.rt(&["exec", "--cgroup", outside, &t.id, "true"]).go().fails_with(255, "sub cgroup path");
    t.end();
}

#[test]
fn exec_sends_its_pidfd() {
    requires!(root);
    rrun_only!("--pidfd-socket is newer than runc 1.1");
    let t = sleeper("execpidfd");
    let socket = FdSocket::bind(&t.dir.join("p"));
    let exec = t.rt(&["exec", "--pidfd-socket", socket.path.to_str().unwrap(), &t.id, "true"]).spawn();
    let (text, fds) = socket.receive();
    assert_eq!((text.as_str(), fds.len()), ("setns", 1));
    exec.wait().ok();
    t.end();
}
