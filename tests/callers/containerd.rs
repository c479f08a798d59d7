//! containerd through ctr: its shim with `--runc-binary`, image and snapshots from a rootfs directory.

use super::shared::{Done, Engine, Kind, done, on};
use crate::harness::{has_systemd, runtime, wait_for};
use crate::pty::Pty;
use std::fs;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

impl Engine {
    fn ctr_args(&self, flags: &[&str], name: &str, args: &[&str]) -> Vec<String> {
        let mut all =
            vec!["run", "--runtime", "io.containerd.runc.v2", "--runc-binary", runtime().to_str().unwrap()];
        // The shim's option SystemdCgroup, which wants a cgroup of systemd's form.
        let cgroup = format!("{}:ctr:{name}", self.cgroup_parent());
        if has_systemd() {
            all.extend(["--runc-systemd-cgroup", "--cgroup", &cgroup]);
        }
        all.extend(["--env", "PATH=/bin", "--rootfs"]);
        all.extend(flags);
        all.extend([self.test.rootfs.to_str().unwrap(), name]);
        all.extend(args);
        all.into_iter().map(str::to_owned).collect()
    }

    fn ctr_run(&self, flags: &[&str], args: &[&str]) -> Done {
        let name = self.name();
        let flags: Vec<_> = ["--rm"].iter().chain(flags).copied().collect();
        done(self.command(&self.ctr_args(&flags, &name, args)))
    }

    fn ctr_detached(&self, flags: &[&str], script: &str) -> String {
        let name = self.name();
        let flags: Vec<_> = ["--detach"].iter().chain(flags).copied().collect();
        done(self.command(&self.ctr_args(&flags, &name, &["sh", "-c", script]))).ok();
        name
    }

    fn ctr_status(&self, name: &str) -> String {
        let list = self.client(&["tasks", "list"]).stdout;
        let line = list.lines().find(|l| l.split_whitespace().next() == Some(name)).unwrap_or("");
        line.split_whitespace().nth(2).unwrap_or("").to_owned()
    }

    fn ctr_remove(&self, name: &str) {
        self.client(&["tasks", "delete", "--force", name]).ok();
        self.client(&["containers", "delete", name]).ok();
    }
}

macro_rules! ctr_tests {
    ($($name:ident $body:expr;)*) => { $(#[test] fn $name() { on(Kind::Containerd, $body); })* };
}

ctr_tests! {
    run_gives_the_exit_code |e| {
        e.ctr_run(&[], &["sh", "-c", "exit 42"]).code_is(42);
        assert_eq!(e.ctr_run(&[], &["echo", "out"]).ok(), "out");
    };

    a_missing_program_is_named |e| {
        let done = e.ctr_run(&[], &["nosuch"]);
        assert_ne!(done.code, Some(0));
        assert!(done.stderr.contains("executable file not found in $PATH"), "{done:?}");
    };

    a_real_pty |e| {
        let name = e.name();
        let (mut pty, _slave, mut child) =
            Pty::spawn(&e.command(&e.ctr_args(&["--rm", "--tty"], &name, &["sh"])));
        pty.expect("# ");
        pty.send("tty\n");
        pty.expect("/dev/pts/");
        pty.send("exit 5\n");
        pty.drain();
        assert_eq!(child.wait().unwrap().code(), Some(5));
    };

    exec_with_and_without_tty_and_as_another_user |e| {
        let name = e.ctr_detached(&[], "exec sleep 1000");
        assert_eq!(e.client(&["tasks", "exec", "--exec-id", "a", &name, "hostname"]).code, Some(0));
        e.client(&["tasks", "exec", "--exec-id", "b", &name, "sh", "-c", "exit 7"]).code_is(7);
        assert_eq!(e.client(&["tasks", "exec", "--exec-id", "c", "--user", "1000", &name, "id", "-u"]).ok(), "1000");
        let (mut pty, _slave, mut child) =
            Pty::spawn(&e.command(&["tasks", "exec", "--tty", "--exec-id", "d", &name, "sh", "-c", "tty; exit 4"]));
        pty.expect("/dev/pts/");
        pty.drain();
        assert_eq!(child.wait().unwrap().code(), Some(4));
        e.ctr_remove(&name);
    };

    detached_kill_and_delete |e| {
        let name = e.ctr_detached(&[], "exec sleep 1000");
        assert_eq!(e.ctr_status(&name), "RUNNING");
        e.client(&["tasks", "kill", "--signal", "SIGKILL", &name]).ok();
        wait_for("STOPPED", LONG, || (e.ctr_status(&name) == "STOPPED").then_some(()));
        let deleted = e.client(&["tasks", "delete", &name]);
        assert!(deleted.stderr.contains("non-zero exit code 137"), "{deleted:?}");
        e.client(&["containers", "delete", &name]).ok();
    };

    pause_and_resume |e| {
        let name = e.ctr_detached(&[], "exec sleep 1000");
        e.client(&["tasks", "pause", &name]).ok();
        assert_eq!(e.ctr_status(&name), "PAUSED");
        e.client(&["tasks", "resume", &name]).ok();
        assert_eq!(e.ctr_status(&name), "RUNNING");
        e.ctr_remove(&name);
    };

    memory_limit_and_metrics |e| {
        let name = e.ctr_detached(&["--memory-limit", "67108864"], "exec sleep 1000");
        let metrics = e.client(&["tasks", "metrics", &name]).ok().to_owned();
        assert!(metrics.contains("67108864"), "{metrics}");
        e.ctr_remove(&name);
    };

    processes_are_listed |e| {
        let name = e.ctr_detached(&[], "sleep 1000 & exec sleep 1001");
        wait_for("two processes", LONG, || (e.client(&["tasks", "ps", &name]).ok().lines().count() == 3).then_some(()));
        e.ctr_remove(&name);
    };

    privileged_capabilities_devices_and_mounts |e| {
        let field = |flags: &[&str]| e.ctr_run(flags, &["grep", "CapEff", "/proc/self/status"]).ok().to_owned();
        assert!(field(&["--cap-add", "CAP_SYS_ADMIN"]).ends_with("00000000a82425fb"));
        assert!(field(&["--cap-drop", "CAP_CHOWN"]).ends_with("00000000a80425fa"));
        assert_eq!(e.ctr_run(&["--privileged"], &["sh", "-c", "mount -t tmpfs x /tmp && echo yes"]).ok(), "yes");
        let script = "head -c 3 /dev/zero | wc -c";
        assert_eq!(e.ctr_run(&["--device", "/dev/zero"], &["sh", "-c", script]).ok(), "3");
        let mount = format!("type=bind,src={},dst=/run,options=rbind:ro", e.test.dir.display());
        let script = "touch /run/x 2>/dev/null || echo ro";
        assert_eq!(e.ctr_run(&["--mount", &mount], &["sh", "-c", script]).ok(), "ro");
    };

    seccomp |e| {
        let done = e.ctr_run(&["--seccomp"], &["grep", "Seccomp:", "/proc/self/status"]);
        assert!(done.ok().ends_with('2'), "{done:?}");
    };

    read_only_root_env_and_cwd |e| {
        let done = e.ctr_run(&["--read-only", "--env", "A=b", "--cwd", "/usr"],
            &["sh", "-c", "touch /x 2>/dev/null || echo ro; echo $A; pwd"]);
        assert_eq!(done.ok(), "ro\nb\n/usr");
    };

    the_cgroup_is_named_by_the_container |e| {
        let name = e.ctr_detached(&["--memory-limit", "67108864"], "exec sleep 1000");
        let pid = e.client(&["tasks", "list"]).stdout;
        let pid = pid.lines().find(|l| l.starts_with(&name)).unwrap().split_whitespace().nth(1).unwrap().to_owned();
        assert!(fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap().contains(&name));
        e.ctr_remove(&name);
    };

    fifty_in_parallel_leave_nothing |e| {
        std::thread::scope(|scope| {
            let all: Vec<_> = (0..50).map(|n| scope.spawn(move || {
                let done = e.ctr_run(&[], &["sh", "-c", &format!("exit {n}")]);
                assert_eq!(done.code, Some(n), "{done:?}");
            })).collect();
            for run in all {
                run.join().expect("a container");
            }
        });
        // A task that stayed has a shim, which the engine's end tells as left behind.
    };
}
