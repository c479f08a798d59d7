//! What docker and podman have alike. Each function is one test per engine.

use super::shared::{Engine, IMAGE, Kind};
use crate::harness::{is_cgroup2, is_rrun, patiently, wait_for};
use crate::pty::Pty;
use crate::requires;
use std::fs;
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(60);

pub fn run_gives_the_exit_code(e: &Engine) {
    e.run(&["--rm", IMAGE, "sh", "-c", "exit 42"]).code_is(42);
    e.run(&["--rm", IMAGE, "true"]).ok();
}

pub fn detached_with_logs(e: &Engine) {
    let name = e.detached(&[], "echo to stdout; echo to stderr >&2; exit 3");
    assert_eq!(e.client(&["wait", &name]).ok(), "3");
    let logs = e.client(&["logs", &name]);
    assert_eq!((logs.stdout.as_str(), logs.stderr.as_str()), ("to stdout\n", "to stderr\n"));
    assert_eq!(e.inspect(&name, ".State.ExitCode"), "3");
    e.remove(&name);
}

pub fn interactive_with_a_real_pty(e: &Engine) {
    let command = e.command(&e.run_args("run", &["--rm", "-it", IMAGE, "sh"]));
    let (mut pty, _slave, mut child) = Pty::spawn(&command);
    pty.resize(33, 101);
    pty.expect("# ");
    pty.send("tty\n");
    pty.expect("/dev/pts/");
    // The size reaches the container a moment after the shell is there.
    for _ in 0..20 {
        pty.forget();
        pty.resize(33, 101);
        pty.send("stty size; echo si''zed\n");
        pty.expect("sized");
        if pty.seen.contains("33 101") {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    pty.expect("33 101");
    pty.send("exit 5\n");
    pty.drain();
    assert_eq!(child.wait().unwrap().code(), Some(5));
}

pub fn exec_with_and_without_tty_and_as_another_user(e: &Engine) {
    let name = e.detached(&[], "exec sleep 1000");
    assert_eq!(e.client(&["exec", &name, "sh", "-c", "echo in; exit 0"]).ok(), "in");
    e.client(&["exec", &name, "sh", "-c", "exit 9"]).code_is(9);
    assert_eq!(e.client(&["exec", "--user", "user", &name, "sh", "-c", "id -u; id -g"]).ok(), "1000\n1000");
    assert_eq!(
        e.client(&["exec", "--workdir", "/etc", "--env", "A=b", &name, "sh", "-c", "pwd; echo $A"]).ok(),
        "/etc\nb"
    );
    let (mut pty, _slave, mut child) =
        Pty::spawn(&e.command(&["exec", "-it", &name, "sh", "-c", "tty; exit 4"]));
    pty.expect("/dev/pts/");
    pty.drain();
    assert_eq!(child.wait().unwrap().code(), Some(4));
    let missing = e.client(&["exec", &name, "nosuch"]);
    // dockerd 20.10 gives 126 for every failed exec.
    assert!(
        missing.code == Some(127) || (e.kind == Kind::Docker && missing.code == Some(126)),
        "{missing:?}"
    );
    assert!(
        format!("{}{}", missing.stdout, missing.stderr).contains("executable file not found"),
        "{missing:?}"
    );
    e.client(&["exec", &name, "/etc/not-executable"]).code_is(126);
    e.remove(&name);
}

pub fn a_published_port_answers(e: &Engine) {
    let backends = ["netavark", "/opt/cni/bin/bridge", "/usr/lib/cni/bridge", "/usr/libexec/podman/netavark"];
    let found = backends.iter().any(|b| std::path::Path::new(b).exists())
        || fs::exists("/usr/lib/podman/netavark").unwrap();
    crate::requires!(e.kind == Kind::Docker || found, "needs netavark or CNI's plugins");
    let name = e.detached(&["--publish", "127.0.0.1:18080:80"], "exec httpd -f -p 80 -h /etc");
    let answer = wait_for("an answer", LONG, || {
        let mut curl = e.inside("curl");
        curl.args(["--silent", "--noproxy", "*", "--max-time", "2", "http://127.0.0.1:18080/hostname"]);
        let done = super::shared::done(curl);
        (done.code == Some(0) && !done.stdout.is_empty()).then_some(done.stdout)
    });
    assert!(e.inspect(&name, ".Config.Hostname").starts_with(answer.trim()), "{answer}");
    e.remove(&name);
}

/// How a container reads its own setting: the file of v1, or that of v2, which engines give a cgroup namespace.
fn read_cgroup(v1: &str, v2: &str) -> String {
    format!("cat /sys/fs/cgroup/{}", if is_cgroup2() { v2 } else { v1 })
}

fn read_memory() -> String {
    read_cgroup("memory/memory.limit_in_bytes", "memory.max")
}

fn read_cpu_shares() -> String {
    read_cgroup("cpu/cpu.shares", "cpu.weight")
}

pub fn memory_limit_is_seen_inside(e: &Engine) {
    assert_eq!(e.sh(&["--memory", "64m"], &read_memory()), "67108864");
}

pub fn an_oom_kill_is_reported_as_one(e: &Engine) {
    if e.kind != Kind::Docker {
        // Debian's conmon does not notice it where init itself is killed, on v2 either, where the cgroup is gone by
        // then: the exit code must do.
        let name = e.detached(&["--memory", "32m"], "exec tail /dev/zero");
        assert_eq!(e.client(&["wait", &name]).ok(), "137");
        e.remove(&name);
        return;
    }
    // init lives on until the engine has seen it: on v2 systemd takes the scope away with the last process, and
    // containerd's look at its events may come too late then.
    let name = e.detached(&["--memory", "32m"], "tail /dev/zero; exec sleep 1000");
    let filter = format!("container={name}");
    wait_for("the event", LONG, || {
        let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs().to_string();
        let events =
            ["events", "--since", "1", "--until", &now, "--filter", "event=oom", "--filter", &filter];
        (!e.client(&events).ok().is_empty()).then_some(())
    });
    e.client(&["kill", &name]).ok();
    assert_eq!(e.client(&["wait", &name]).ok(), "137");
    wait_for("OOMKilled", LONG, || (e.inspect(&name, ".State.OOMKilled") == "true").then_some(()));
    e.remove(&name);
}

pub fn pids_limit_is_seen_and_enforced(e: &Engine) {
    let script = format!(
        "{}; for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 1 & done; wait",
        read_cgroup("pids/pids.max", "pids.max")
    );
    let out = e.run(&["--rm", "--pids-limit", "8", IMAGE, "sh", "-c", &script]);
    assert!(out.stdout.starts_with("8\n"), "{out:?}");
    assert!(out.stderr.contains("can't fork"), "{out:?}");
}

pub fn cpu_quota_is_set(e: &Engine) {
    let script = format!("{}; {}", read_cgroup("cpu/cpu.cfs_quota_us", "cpu.max"), read_cpu_shares());
    // Newer runtimes have the quadratic formula (see plan::cgroup::limits); Debian 12's runc and crun give 20.
    let weight = if is_rrun() { 59 } else { 20 };
    let want = if is_cgroup2() { format!("50000 100000\n{weight}") } else { "50000\n512".to_owned() };
    assert_eq!(e.sh(&["--cpus", "0.5", "--cpu-shares", "512"], &script), want);
}

pub fn read_only_root(e: &Engine) {
    assert_eq!(e.sh(&["--read-only"], "touch /x 2>/dev/null || echo denied"), "denied");
}

pub fn capabilities_dropped_and_added(e: &Engine) {
    let field = |flags: &[&str]| e.sh(flags, "sed -n 's/^CapEff:\\s*//p' /proc/self/status");
    assert_eq!(field(&["--cap-drop", "ALL"]), "0000000000000000");
    assert_eq!(field(&["--cap-drop", "ALL", "--cap-add", "SYS_ADMIN"]), "0000000000200000");
    assert_eq!(e.sh(&["--cap-drop", "CHOWN"], "chown 5 /tmp 2>/dev/null || echo denied"), "denied");
}

pub fn privileged(e: &Engine) {
    requires!(unfiltered);
    let own = fs::read_to_string("/proc/self/status").unwrap();
    let bounding = |text: &str| {
        text.lines().find(|l| l.starts_with("CapBnd")).unwrap().split_whitespace().nth(1).unwrap().to_owned()
    };
    let all = u64::from_str_radix(&bounding(&own), 16).unwrap().trailing_ones() > 40;
    crate::requires!(crate::harness::is_rrun() || all, "runc 1.1 fails where the host lacks a capability");
    // --privileged asks for every capability; what the engine itself lacks cannot be given (config.md: a warning).
    let text = e.sh(
        &["--privileged"],
        "mount -t tmpfs x /tmp && echo mounted; grep Seccomp: /proc/self/status; ls /dev/null",
    );
    assert!(text.starts_with("mounted\n") && text.contains("Seccomp:\t0"), "{text}");
}

pub fn default_and_custom_seccomp_profile(e: &Engine) {
    requires!(unfiltered);
    let mode = "sed -n 's/^Seccomp:\\s*//p' /proc/self/status";
    assert_eq!(e.sh(&[], mode), "2");
    assert_eq!(e.sh(&["--security-opt", "seccomp=unconfined"], mode), "0");
    let profile = e.dir("profile.json");
    let text = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":122}]}"#;
    fs::write(&profile, text).unwrap();
    let option = format!("seccomp={}", profile.display());
    let said = e.sh(&["--security-opt", &option], "mkdir /x 2>&1 || true");
    assert!(said.to_lowercase().contains("quota exceeded"), "{said}");
}

pub fn devices(e: &Engine) {
    let script =
        "head -c 3 /dev/own | wc -c; mknod /tmp/mem c 1 1; head -c 1 /tmp/mem 2>/dev/null || echo no other";
    assert_eq!(e.sh(&["--device", "/dev/zero:/dev/own:r"], script), "3\nno other");
}

pub fn tmpfs_and_bind_mounts_with_options(e: &Engine) {
    let source = e.dir("volume");
    let _ = fs::create_dir(&source);
    fs::write(source.join("file"), "content").unwrap();
    let volume = format!("{}:/v:ro", source.display());
    let writable = format!("{}:/w", source.display());
    let mount = format!("type=bind,source={},target=/m,readonly", source.display());
    let script = "cat /v/file; touch /v/x 2>/dev/null || echo -ro; touch /m/x 2>/dev/null || echo ro; echo w > /w/new; \
                  grep ' /t ' /proc/mounts";
    let text = e.sh(
        &["--volume", &volume, "--volume", &writable, "--mount", &mount, "--tmpfs", "/t:size=1m,noexec"],
        script,
    );
    assert!(text.starts_with("content-ro\nro\n"), "{text}");
    let line = text.lines().last().unwrap();
    assert!(line.contains("noexec") && line.contains("size=1024k"), "{line}");
    assert_eq!(fs::read_to_string(source.join("new")).unwrap(), "w\n");
}

pub fn the_hosts_pid_namespace(e: &Engine) {
    let own = fs::read_link("/proc/self/ns/pid").unwrap();
    assert_eq!(e.sh(&["--pid", "host"], "readlink /proc/self/ns/pid"), own.to_string_lossy());
    assert_ne!(e.sh(&[], "readlink /proc/self/ns/pid"), own.to_string_lossy());
}

pub fn user_namespace(e: &Engine) {
    if e.kind == Kind::Docker {
        // docker's is a setting of the daemon; per container it has only the way out of it.
        assert_eq!(e.sh(&["--userns", "host"], "id -u"), "0");
        return;
    }
    let flags = ["--uidmap", "0:100000:65536", "--gidmap", "0:100000:65536"];
    let text = e.sh(&flags, "id -u; cat /proc/self/uid_map; touch /x && echo writable");
    let words: Vec<_> = text.split_whitespace().collect();
    assert_eq!(words, ["0", "0", "100000", "65536", "writable"]);
}

pub fn ulimits(e: &Engine) {
    assert_eq!(
        e.sh(&["--ulimit", "core=0:0", "--ulimit", "nofile=500:600"], "ulimit -n; ulimit -Hn; ulimit -c"),
        "500\n600\n0"
    );
}

pub fn sysctls(e: &Engine) {
    let flags = ["--sysctl", "net.ipv4.ip_forward=0", "--sysctl", "kernel.shmmni=77"];
    assert_eq!(e.sh(&flags, "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmni"), "0\n77");
}

pub fn pause_and_unpause(e: &Engine) {
    let name = e.detached(&[], "exec sleep 1000");
    e.client(&["pause", &name]).ok();
    assert_eq!(e.inspect(&name, ".State.Status"), "paused");
    e.client(&["unpause", &name]).ok();
    assert_eq!(e.inspect(&name, ".State.Status"), "running");
    e.client(&["exec", &name, "true"]).ok();
    e.remove(&name);
}

pub fn update(e: &Engine) {
    let name = e.detached(&["--memory", "64m"], "exec sleep 1000");
    let shell = |script: &str| e.client(&["exec", &name, "sh", "-c", script]).ok().to_owned();
    e.client(&["update", "--memory", "128m", "--memory-swap", "256m", &name]).ok();
    assert_eq!(shell(&read_memory()), "134217728");
    e.client(&["update", "--cpu-shares", "300", &name]).ok();
    let want = match (is_cgroup2(), is_rrun()) {
        (true, true) => "39",
        (true, false) => "12",
        (false, _) => "300",
    };
    assert_eq!(shell(&read_cpu_shares()), want);
    assert_eq!(shell(&read_memory()), "134217728", "another value was changed");
    e.remove(&name);
}

pub fn stats_and_top(e: &Engine) {
    let name = e.detached(&["--memory", "64m"], "exec sleep 1234");
    let stats =
        e.client(&["stats", "--no-stream", "--format", "{{.PIDs}} {{.MemUsage}}", &name]).ok().to_owned();
    assert!(stats.starts_with("1 ") && (stats.contains("64MiB") || stats.contains("67.11MB")), "{stats}");
    assert!(e.client(&["top", &name]).ok().contains("sleep 1234"));
    e.remove(&name);
}

pub fn kill_by_signal(e: &Engine) {
    let name = e.detached(&[], "trap 'exit 21' USR1; echo up; while :; do sleep 0.05; done");
    e.wait_logs(&name, "up");
    e.client(&["kill", "--signal", "USR1", &name]).ok();
    assert_eq!(e.client(&["wait", &name]).ok(), "21");
    e.remove(&name);
}

pub fn stop_with_timeout(e: &Engine) {
    let name = e.detached(&[], "trap 'exit 22' TERM; echo up; while :; do sleep 0.05; done");
    e.wait_logs(&name, "up");
    e.client(&["stop", "--time", "20", &name]).ok();
    assert_eq!(e.inspect(&name, ".State.ExitCode"), "22");
    e.remove(&name);
    let name = e.detached(&[], "trap '' TERM; echo up; while :; do sleep 0.05; done");
    e.wait_logs(&name, "up");
    let begin = Instant::now();
    e.client(&["stop", "--time", "1", &name]).ok();
    assert!(begin.elapsed() < patiently(Duration::from_secs(15)), "{:?}", begin.elapsed());
    assert_eq!(e.inspect(&name, ".State.ExitCode"), "137");
    e.remove(&name);
}

pub fn restart(e: &Engine) {
    let name = e.detached(&[], "echo begun; exec sleep 1000");
    e.wait_logs(&name, "begun");
    let before = e.inspect(&name, ".State.Pid");
    e.client(&["restart", "--time", "0", &name]).ok();
    assert_eq!(e.inspect(&name, ".State.Status"), "running");
    assert_ne!(e.inspect(&name, ".State.Pid"), before);
    e.wait_logs(&name, "begun\nbegun\n");
    e.remove(&name);
}

pub fn remove_by_force(e: &Engine) {
    let name = e.detached(&[], "sleep 1000 & sleep 1001 & exec sleep 1002");
    let pid = e.inspect(&name, ".State.Pid");
    e.client(&["rm", &name]).code.filter(|c| *c != 0).expect("rm of a running container must fail");
    e.remove(&name);
    assert!(!fs::exists(format!("/proc/{pid}")).unwrap());
    assert_ne!(e.client(&["inspect", &name]).code, Some(0));
}

pub fn command_not_found_and_not_executable(e: &Engine) {
    e.run(&["--rm", IMAGE, "nosuch"]).code_is(127);
    e.run(&["--rm", IMAGE, "/no/such"]).code_is(127);
    e.run(&["--rm", IMAGE, "/etc/not-executable"]).code_is(126);
    e.run(&["--rm", IMAGE, "/etc"]).code_is(126);
}

pub fn user_workdir_env_and_hostname(e: &Engine) {
    let flags = [
        "--user",
        "1000:7",
        "--workdir",
        "/usr",
        "--env",
        "A=b c",
        "--hostname",
        "named",
        "--group-add",
        "12",
    ];
    assert_eq!(
        e.sh(&flags, "id -u; id -g; id -G; pwd; echo $A; hostname"),
        "1000\n7\n7 12\n/usr\nb c\nnamed"
    );
}

pub fn fifty_in_parallel_leave_nothing(e: &Engine) {
    std::thread::scope(|scope| {
        let runs: Vec<_> = (0..50)
            .map(|n| {
                scope.spawn(move || {
                    let done = e.run(&[
                        "--rm",
                        "--network",
                        "none",
                        IMAGE,
                        "sh",
                        "-c",
                        &format!("exit {}", n % 100),
                    ]);
                    assert_eq!(done.code, Some(n % 100), "{done:?}");
                })
            })
            .collect();
        for run in runs {
            run.join().expect("a container");
        }
    });
}
