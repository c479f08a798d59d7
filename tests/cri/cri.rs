//! What a kubelet does, done to containerd's CRI service with the runtime under test as a handler. `RRUN` names
//! the runtime, as in the suite: with Debian's runc a failure that is containerd's is told from rrun's.

#![allow(clippy::disallowed_methods, reason = "the tests write only into their own directories")]
#![allow(missing_docs, missing_debug_implementations, reason = "nothing here is used from elsewhere")]

#[path = "../callers/shared.rs"]
#[allow(dead_code, reason = "shared with the suite")]
mod callers;
#[path = "../harness.rs"]
#[allow(dead_code, reason = "shared with the suite")]
mod harness;
mod node; // containerd, its handlers and images; pods and containers
mod stream; // exec and attach through a WebSocket

use harness::{SECONDS_5, has_systemd, is_cgroup2, patiently, wait_for};
use k8s_cri::v1::*;
use node::{Container, Driver, LONG, Node, PLUGINS, cgroup_file, read};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};
use stream::Stream;

/// Each test is two, one for each cgroup driver: `cgroupfs::NAME` and `systemd::NAME`.
macro_rules! tests {
    (shared { $($name:ident $body:expr;)* } own { $($own:ident $own_body:expr;)* }) => {
        tests!(@driver cgroupfs Cgroupfs $($name $body;)* => $($own $own_body;)*);
        tests!(@driver systemd Systemd $($name $body;)* => $($own $own_body;)*);
    };
    (@driver $module:ident $driver:ident $($name:ident $body:expr;)* => $($own:ident $own_body:expr;)*) => {
        mod $module {
            use super::*;
            $(#[test] fn $name() {
                let body: fn(&Node) = $body;
                where_possible(Driver::$driver, || body(&node::shared(Driver::$driver)));
            })*
            $(#[test] fn $own() {
                let body: fn(Node) = $own_body;
                where_possible(Driver::$driver, || body(Node::start(Driver::$driver)));
            })*
        }
    };
}

fn where_possible(driver: Driver, body: impl FnOnce()) {
    requires!(root);
    requires!(driver != Driver::Systemd || has_systemd(), "needs systemd");
    requires!(program "containerd");
    requires!(program "ctr");
    requires!(program "iptables");
    requires!(Path::new(PLUGINS).join("bridge").exists(), "needs containernetworking-plugins");
    body();
}

/// What a container does after its `trap`: it waits for signals, and for nothing else.
const IDLE: &str = "echo up; sleep 1000 & wait";

/// Seconds that none of the polite containers needs.
const GRACE: i64 = 600;

fn resources(config: &mut ContainerConfig) -> &mut LinuxContainerResources {
    config.linux.as_mut().unwrap().resources.get_or_insert_default()
}

fn namespaces(config: &mut PodSandboxConfig) -> &mut NamespaceOption {
    let security = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
    security.namespace_options.as_mut().unwrap()
}

/// A pod has to be privileged for one of its containers to be.
fn privileged_pod(config: &mut PodSandboxConfig) {
    config.linux.as_mut().unwrap().security_context.as_mut().unwrap().privileged = true;
}

/// The namespace `name` of the container's init, by its number.
fn namespace(pid: u32, name: &str) -> String {
    fs::read_link(format!("/proc/{pid}/ns/{name}")).unwrap().to_str().unwrap().to_owned()
}

fn status_field(field: &str) -> String {
    format!("sed -n 's/^{field}:\\s*//p' /proc/self/status")
}

fn has_hugetlb() -> bool {
    match is_cgroup2() {
        true => read("/sys/fs/cgroup/cgroup.controllers").contains("hugetlb"),
        false => harness::controller("hugetlb"),
    }
}

tests! { shared {
    the_service_is_ready |node| {
        let version = node.version(Default::default()).unwrap();
        assert_eq!((version.runtime_name.as_str(), version.runtime_api_version.as_str()), ("containerd", "v1"));
        let conditions = node.status(Default::default()).unwrap().status.unwrap().conditions;
        for ready in ["RuntimeReady", "NetworkReady"] {
            assert!(conditions.iter().any(|c| c.r#type == ready && c.status), "{conditions:?}");
        }
    };

    two_containers_share_the_pods_namespaces |node| {
        let pod = node.common();
        let status = pod.status();
        assert_eq!(status.state(), PodSandboxState::SandboxReady);
        assert_eq!(status.runtime_handler, node.handler("rrun"));
        assert!(pod.ip().starts_with("10.213.9."), "{status:?}");
        let server = pod.running("hostname > /dev/shm/name; exec httpd -f -p 127.0.0.1:8080 -h /etc");
        let client = pod.running("exec sleep 1000");
        let (a, b, pause) = (server.pid(), client.pid(), pod.pid());
        for shared in ["net", "ipc", "uts"] {
            assert_eq!(namespace(a, shared), namespace(b, shared), "{shared}");
            assert_eq!(namespace(a, shared), namespace(pause, shared), "{shared}");
            assert_ne!(namespace(a, shared), namespace(std::process::id(), shared), "{shared}");
        }
        for own in ["mnt", "pid"] {
            assert_ne!(namespace(a, own), namespace(b, own), "{own}");
            assert_ne!(namespace(a, own), namespace(pause, own), "{own}");
        }
        let hostname = &pod.config.hostname;
        let got = wait_for("localhost", LONG, || {
            let done = client.exec_of(&["wget", "-q", "-O", "-", "http://127.0.0.1:8080/hostname"], 10).unwrap();
            (done.exit_code == 0).then_some(done.stdout)
        });
        assert_eq!(String::from_utf8(got).unwrap().trim(), hostname);
        assert_eq!(client.exec("hostname; cat /dev/shm/name"), format!("{hostname}\n{hostname}"));
        assert!(client.exec("ip -4 addr show eth0").contains(&format!("inet {}/24", pod.ip())));
        server.remove();
        client.remove();
    };

    a_shared_pid_namespace_has_pause_as_its_init |node| {
        let pod = node.pod(|c| namespaces(c).pid = NamespaceMode::Pod.into());
        let first = pod.running("sleep 1234 & wait");
        let second = pod.running("exec sleep 1000");
        assert_eq!(namespace(first.pid(), "pid"), namespace(pod.pid(), "pid"));
        wait_for("the other's processes", LONG, || second.exec("ps -o args").contains("sleep 1234").then_some(()));
        assert!(second.exec("ps -o pid,args").lines().any(|l| l.trim() == "1 /pause"));
        // What a container orphans comes to pause, which reaps it.
        second.exec("(sleep 0.1 &)");
        wait_for("the orphan's end", LONG, || {
            let all = second.exec("ps -o stat,ppid,args");
            (!all.contains("sleep 0.1") && !all.lines().any(|l| l.starts_with('Z'))).then_some(())
        });
        // The end of a container ends its processes, and nothing else, though its init is not the namespace's.
        first.stop(0);
        wait_for("its processes' end", LONG, || (!second.exec("ps -o args").contains("sleep 1234")).then_some(()));
        assert_eq!(second.status().state(), ContainerState::ContainerRunning);
        pod.remove();
    };

    a_debug_container_joins_anothers_pid_namespace |node| {
        let pod = node.common();
        let target = pod.running("exec sleep 1234");
        let id = target.id.clone();
        let script = "ps -o pid,args";
        let text = pod.sh(script, move |_, s| {
            let options = s.namespace_options.as_mut().unwrap();
            options.set_pid(NamespaceMode::Target);
            options.target_id = id;
        });
        assert!(text.lines().any(|l| l.trim() == "1 sleep 1234"), "{text}");
        assert_eq!(target.status().state(), ContainerState::ContainerRunning);
        target.remove();
    };

    a_pod_of_the_nodes_namespaces |node| {
        let pod = node.pod(|c| {
            *namespaces(c) = NamespaceOption {
                network: NamespaceMode::Node.into(),
                pid: NamespaceMode::Node.into(),
                ipc: NamespaceMode::Node.into(),
                ..Default::default()
            };
            c.hostname = String::new();
        });
        let container = pod.running("exec sleep 1000");
        // containerd lives in a network namespace of the test's.
        let own = fs::read_link(node.engine.namespace("net")).unwrap();
        assert_eq!(namespace(container.pid(), "net"), own.to_str().unwrap());
        for name in ["pid", "ipc", "uts"] {
            assert_eq!(namespace(container.pid(), name), namespace(std::process::id(), name), "{name}");
        }
        assert!(container.exec("ip link").contains("cri0"));
        container.stop(0);
        assert_eq!(container.status().exit_code, 137);
        pod.remove();
    };

    pods_of_two_handlers_reach_each_other |node| {
        requires!(program "runc");
        let ours = node.common();
        let theirs = node.pod_of(&node.handler("runc"), |_| ()).unwrap();
        assert_eq!(theirs.status().runtime_handler, node.handler("runc"));
        let server = ours.running("exec httpd -f -p 80 -h /etc");
        let fetch = |client: &Container, ip: String| wait_for("the other pod", LONG, || {
            let url = format!("http://{ip}/hostname");
            let done = client.exec_of(&["wget", "-q", "-O", "-", &url], 10).unwrap();
            (done.exit_code == 0).then(|| String::from_utf8(done.stdout).unwrap().trim().to_owned())
        });
        let client = theirs.running("exec httpd -f -p 80 -h /etc");
        assert_eq!(fetch(&client, ours.ip()), ours.config.hostname);
        assert_eq!(fetch(&server, theirs.ip()), theirs.config.hostname);
        server.remove();
        theirs.remove();
    };

    exec_sync |node| {
        let pod = node.common();
        let container = pod.running("exec sleep 1000");
        let done = container.exec_of(&["sh", "-c", "echo out; echo err >&2; exit 7"], 0).unwrap();
        assert_eq!((done.stdout.as_slice(), done.stderr.as_slice(), done.exit_code), (&b"out\n"[..], &b"err\n"[..], 7));
        let long = container.exec_of(&["sh", "-c", "head -c 1000000 /dev/zero | tr '\\0' x"], 0).unwrap();
        assert_eq!(long.stdout.len(), 1_000_000);
        let missing = container.exec_of(&["nosuch"], 0).unwrap_err();
        assert!(missing.message().contains("executable file not found in $PATH"), "{missing}");
        // A probe that takes too long is killed.
        let begin = Instant::now();
        let late = container.exec_of(&["sleep", "1235"], 1).unwrap_err();
        assert!(late.message().contains("timeout") && begin.elapsed() < patiently(Duration::from_secs(20)), "{late}");
        wait_for("its end", LONG, || (!container.exec("ps -o args").contains("sleep 1235")).then_some(()));
        container.remove();
    };

    exec_probes_in_parallel |node| {
        let pod = node.common();
        let container = pod.running("exec sleep 1000");
        std::thread::scope(|scope| {
            for n in 0..10 {
                let container = &container;
                scope.spawn(move || {
                    let done = container.exec_of(&["sh", "-c", &format!("exit {n}")], 30).unwrap();
                    assert_eq!(done.exit_code, n);
                });
            }
        });
        container.remove();
    };

    streaming_exec |node| {
        let pod = node.common();
        let container = pod.running("exec sleep 1000");
        let exec = |script: &str, tty: bool| {
            let cmd = ["sh", "-c", script].map(String::from).into();
            let request = ExecRequest {
                container_id: container.id.clone(), cmd, tty, stdin: true, stdout: true, stderr: !tty,
            };
            Stream::open(node, &node.exec(request).unwrap().url)
        };
        let mut plain = exec("read line; echo got $line; echo err >&2; exit 3", false);
        plain.input("words\n");
        assert_eq!(plain.exit_code(), 3);
        assert_eq!((plain.stdout.as_str(), plain.stderr.as_str()), ("got words\n", "err\n"));
        let mut terminal = exec("exec sh", true);
        terminal.expect("# ");
        terminal.resize(33, 101);
        terminal.input("until [ \"$(stty size)\" = '33 101' ]; do sleep 0.1; done; tty; echo si''zed\n");
        terminal.expect("sized");
        assert!(terminal.stdout.contains("/dev/pts/"), "{}", terminal.stdout);
        terminal.input("exit 5\n");
        assert_eq!(terminal.exit_code(), 5);
        container.remove();
    };

    attach_to_a_terminal |node| {
        let pod = node.common();
        let container = pod.container("exec sh", |c, _| (c.stdin, c.tty) = (true, true));
        let request = AttachRequest {
            container_id: container.id.clone(), stdin: true, tty: true, stdout: true, stderr: false,
        };
        let mut terminal = Stream::open(node, &node.attach(request).unwrap().url);
        terminal.input("tty; echo at''tached; exit 6\n");
        terminal.expect("attached");
        assert!(terminal.stdout.contains("/dev/pts/") || terminal.stdout.contains("/dev/console"), "{}", terminal.stdout);
        assert_eq!(container.wait().exit_code, 6);
        container.wait_output("attached");
        container.remove();
    };

    logs_have_the_form_of_cri |node| {
        let pod = node.common();
        let container = pod.running("echo out; echo err >&2; printf 'no end'");
        container.wait();
        let log = wait_for("the log", LONG, || Some(read(&container.log)).filter(|l| l.lines().count() == 3));
        let rows: Vec<Vec<&str>> = log.lines().map(|l| l.splitn(4, ' ').collect()).collect();
        // In order within a stream; the streams are read beside each other.
        let mut rests: Vec<_> = rows.iter().map(|r| &r[1..]).collect();
        rests.sort_by_key(|r| r[0]);
        assert_eq!(rests, [["stderr", "F", "err"], ["stdout", "F", "out"], ["stdout", "P", "no end"]]);
        assert!(rows.iter().all(|r| r[0].len() >= 20 && r[0].contains('T')), "{log}");
        // Rotation: the kubelet renames the file and asks for a new one.
        let second = pod.running("mkfifo /go; echo before; cat /go; exec sleep 1000");
        second.wait_output("before");
        fs::rename(&second.log, second.log.with_extension("1")).unwrap();
        node.reopen_container_log(ReopenContainerLogRequest { container_id: second.id.clone() }).unwrap();
        second.go("after\n");
        wait_for("the new log", LONG, || fs::read_to_string(&second.log).ok().filter(|l| l.contains(" after")));
        assert!(!read(&second.log).contains("before"));
        container.remove();
        second.remove();
    };

    stats_of_containers_and_of_the_pod |node| {
        let pod = node.pod(|_| ());
        let container = pod.running("dd if=/dev/zero of=/dev/shm/x bs=1M count=8 2>/dev/null; i=0; \
                                     while [ $i -lt 30000 ]; do i=$((i + 1)); done; echo up; exec sleep 1000");
        container.wait_output("up");
        let request = ContainerStatsRequest { container_id: container.id.clone() };
        let stats = wait_for("use of the processor", LONG, || {
            let stats = node.container_stats(request.clone()).unwrap().stats.unwrap();
            let used = stats.cpu.as_ref()?.usage_core_nano_seconds.as_ref()?.value;
            (used > 10_000_000).then_some(stats)
        });
        let working = stats.memory.unwrap().working_set_bytes.unwrap().value;
        assert!((8 << 20..200 << 20).contains(&working), "{working}");
        let filter = ContainerStatsFilter { pod_sandbox_id: pod.id.clone(), ..Default::default() };
        let list = node.list_container_stats(ListContainerStatsRequest { filter: Some(filter) }).unwrap().stats;
        assert_eq!(list.len(), 1, "{list:?}");
        assert_eq!(list[0].attributes.as_ref().unwrap().id, container.id);
        let whole = node.pod_sandbox_stats(PodSandboxStatsRequest { pod_sandbox_id: pod.id.clone() }).unwrap();
        let linux = whole.stats.unwrap().linux.unwrap();
        // containerd 1.6 does not count the sandbox itself.
        assert_eq!(linux.process.unwrap().process_count.unwrap().value, 1);
        assert_eq!(linux.network.unwrap().default_interface.unwrap().name, "eth0");
        pod.remove();
    };

    limits_are_in_the_cgroup |node| {
        let pod = node.common();
        let container = pod.container("exec sleep 1000", |c, _| {
            *resources(c) = LinuxContainerResources {
                cpu_period: 100_000,
                cpu_quota: 50_000,
                cpu_shares: 512,
                memory_limit_in_bytes: 64 << 20,
                oom_score_adj: 900,
                cpuset_cpus: "0".into(),
                cpuset_mems: "0".into(),
                ..Default::default()
            };
        });
        let pid = container.pid();
        let file = |v1, v2| read(cgroup_file(pid, v1, v2));
        if is_cgroup2() {
            assert_eq!(read(cgroup_file(pid, "", "cpu.max")), "50000 100000");
            // runc 1.1's weight, and that of the newer, quadratic conversion.
            let weight = read(cgroup_file(pid, "", "cpu.weight"));
            assert!(["20", "59"].contains(&weight.as_str()), "{weight}");
        } else {
            assert_eq!(file("cpu/cpu.cfs_quota_us", ""), "50000");
            assert_eq!(file("cpu/cpu.cfs_period_us", ""), "100000");
            assert_eq!(file("cpu/cpu.shares", ""), "512");
        }
        assert_eq!(file("memory/memory.limit_in_bytes", "memory.max"), "67108864");
        assert_eq!(file("cpuset/cpuset.cpus", "cpuset.cpus"), "0");
        assert_eq!(file("cpuset/cpuset.mems", "cpuset.mems"), "0");
        assert_eq!(read(format!("/proc/{pid}/oom_score_adj")), "900");

        let update = LinuxContainerResources {
            cpu_quota: 80_000, cpu_period: 100_000, memory_limit_in_bytes: 96 << 20, ..Default::default()
        };
        let request = UpdateContainerResourcesRequest {
            container_id: container.id.clone(), linux: Some(update), ..Default::default()
        };
        node.update_container_resources(request).unwrap();
        match is_cgroup2() {
            true => assert_eq!(file("", "cpu.max"), "80000 100000"),
            false => assert_eq!(file("cpu/cpu.cfs_quota_us", ""), "80000"),
        }
        assert_eq!(file("memory/memory.limit_in_bytes", "memory.max"), "100663296");
        assert_eq!(file("cpuset/cpuset.cpus", "cpuset.cpus"), "0", "another value was changed");
        container.remove();
    };

    hugepage_limits |node| {
        requires!(has_hugetlb(), "needs the hugetlb controller, on v1 or with the other v2 controllers");
        let pod = node.common();
        let container = pod.container("exec sleep 1000", |c, _| {
            resources(c).hugepage_limits = vec![HugepageLimit { page_size: "2MB".into(), limit: 4 << 20 }];
        });
        let file = cgroup_file(container.pid(), "hugetlb/hugetlb.2MB.limit_in_bytes", "hugetlb.2MB.max");
        assert_eq!(read(file), "4194304");
        container.remove();
    };

    unified_resources |node| {
        requires!(is_cgroup2(), "needs cgroup v2");
        let pod = node.common();
        let container = pod.container("exec sleep 1000", |c, _| {
            let keys = [("memory.high", "50331648"), ("pids.max", "33")];
            resources(c).unified = keys.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        });
        let pid = container.pid();
        assert_eq!(read(cgroup_file(pid, "", "memory.high")), "50331648");
        assert_eq!(read(cgroup_file(pid, "", "pids.max")), "33");
        container.remove();
    };

    the_pods_cgroup_holds_all_and_limits_all |node| {
        let pod = node.pod(|_| ());
        let container = pod.running("exec sleep 1000");
        let of_pod = |pid| cgroup_file(pid, "pids/pids.max", "pids.max").parent().unwrap().parent().unwrap().to_owned();
        let parent = of_pod(container.pid());
        assert_eq!(parent, of_pod(pod.pid()), "the sandbox and its container are siblings");
        // CRI has no pids limit for a container: the kubelet sets it on the pod.
        fs::write(parent.join("pids.max"), "12").unwrap();
        let script = "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14; do sleep 1 & done; wait";
        let done = container.exec_of(&["sh", "-c", script], 0).unwrap();
        assert!(String::from_utf8_lossy(&done.stderr).contains("can't fork"), "{done:?}");
        pod.remove();
        let left = fs::read_dir(&parent).map(|d| d.flatten().filter(|e| e.path().is_dir()).count()).unwrap_or(0);
        assert_eq!(left, 0, "{}", parent.display());
    };

    an_oom_kill_is_reported_as_one |node| {
        let pod = node.common();
        // containerd watches the cgroup from the end of `start` on, and reads the count when told of a change: a kill
        // before that, or the end of the last process, with which systemd takes the cgroup, may escape it.
        let script = "mkfifo /go; echo up; cat /go; tail /dev/zero; code=$?; cat /go; exit $code";
        let container = pod.container(script, |c, _| resources(c).memory_limit_in_bytes = 32 << 20);
        container.wait_output("up");
        container.go("");
        wait_for("the kill", LONG, || (container.status().reason == "OOMKilled").then_some(()));
        container.go("");
        let status = container.wait();
        assert_eq!((status.exit_code, status.reason.as_str()), (137, "OOMKilled"), "{status:?}");
        container.remove();
    };

    exit_codes_and_reasons |node| {
        let pod = node.common();
        for (script, code, reason) in [
            ("exit 0", 0, "Completed"),
            ("exit 42", 42, "Error"),
            // An init is not killed by a signal it sends itself; one that its caller sends, it is.
            ("sh -c 'kill -TERM $$'; exit $?", 143, "Error"),
        ] {
            let container = pod.running(script);
            let status = container.wait();
            assert_eq!((status.exit_code, status.reason.as_str()), (code, reason), "{script}: {status:?}");
            assert!(status.finished_at > 0 && status.started_at > 0, "{status:?}");
            container.remove();
        }
        for (command, text) in [
            ("nosuch", "executable file not found in $path"),
            ("/no/such", "no such file or directory"),
            ("/etc/not-executable", "permission denied"),
        ] {
            let container = pod.try_create(&[command], |_, _| ()).unwrap();
            let error = container.start().unwrap_err();
            assert!(error.message().to_lowercase().contains(text), "{error}");
            let status = container.status();
            assert_eq!(status.reason, "StartError", "{status:?}");
            assert!([127, 128].contains(&status.exit_code), "{status:?}");
            container.remove();
        }
        // The pod goes on, and the next attempt finds its place.
        assert_eq!(pod.sh("echo again", |c, _| c.metadata.as_mut().unwrap().attempt = 1), "again");
    };

    stop_waits_for_the_grace_period |node| {
        let pod = node.common();
        let polite = pod.running(&format!("trap 'echo bye; exit 22' TERM; {IDLE}"));
        polite.wait_output("up");
        polite.stop(GRACE);
        assert_eq!(polite.status().exit_code, 22);
        polite.wait_output("bye");
        let deaf = pod.running(&format!("trap '' TERM; {IDLE}"));
        deaf.wait_output("up");
        let begin = Instant::now();
        deaf.stop(1);
        assert!((Duration::from_secs(1)..patiently(Duration::from_secs(20))).contains(&begin.elapsed()), "{:?}", begin.elapsed());
        assert_eq!(deaf.status().exit_code, 137);
        // Stop is idempotent, and so is remove.
        deaf.stop(1);
        deaf.remove();
        deaf.remove();
        polite.remove();
    };

    removal_takes_everything |node| {
        let pod = node.pod(|_| ());
        let running = pod.running("sleep 1000 & sleep 1001 & exec sleep 1002");
        let created = pod.try_create(&["true"], |_, _| ()).unwrap();
        assert_eq!(created.status().state(), ContainerState::ContainerCreated);
        let pids = [running.pid(), pod.pid()];
        let cgroups = pids.map(|pid| cgroup_file(pid, "memory/cgroup.procs", "cgroup.procs"));
        // A running container goes by force.
        running.remove();
        wait_for("its end", SECONDS_5, || (!Path::new(&format!("/proc/{}", pids[0])).exists()).then_some(()));
        let again = pod.running("exec sleep 1000");
        pod.stop();
        assert_eq!(pod.status().state(), PodSandboxState::SandboxNotready);
        assert_eq!(again.status().state(), ContainerState::ContainerExited);
        let (id, netns) = (pod.id.clone(), node.engine.dir("exec/netns"));
        pod.remove();
        let gone = node.pod_sandbox_status(PodSandboxStatusRequest { pod_sandbox_id: id.clone(), verbose: false });
        assert_eq!(gone.unwrap_err().code(), tonic::Code::NotFound);
        let filter = ContainerFilter { pod_sandbox_id: id.clone(), ..Default::default() };
        assert!(node.list_containers(ListContainersRequest { filter: Some(filter) }).unwrap().containers.is_empty());
        for cgroup in cgroups {
            assert!(!cgroup.parent().unwrap().exists(), "{}", cgroup.display());
        }
        let state = node.engine.dir("exec/io.containerd.runtime.v2.task/k8s.io").join(&id);
        assert!(!state.exists() && netns.parent().unwrap().exists(), "{}", state.display());
    };

    a_read_only_root_with_volumes |node| {
        let pod = node.common();
        let volume = node.engine.dir("volume");
        fs::create_dir(&volume).unwrap();
        fs::write(volume.join("file"), "content\n").unwrap();
        let mount = |to: &str, readonly| Mount {
            container_path: to.into(), host_path: volume.to_str().unwrap().into(), readonly, ..Default::default()
        };
        let script = "touch /x 2>/dev/null || echo ro; cat /ro/file; touch /ro/x 2>/dev/null || echo ro; touch /rw/x && echo rw";
        let text = pod.sh(script, |c, s| {
            s.readonly_rootfs = true;
            c.mounts = vec![mount("/ro", true), mount("/rw", false)];
        });
        assert_eq!(text, "ro\ncontent\nro\nrw");
    };

    mount_propagation |node| {
        requires!(harness::is_rrun() || has_all_capabilities(), "runc 1.1 fails where the host lacks a capability");
        let volume = node.engine.dir("shared");
        fs::create_dir_all(volume.join("inner")).unwrap();
        let at = volume.to_str().unwrap();
        let mount = |arguments: &[&str]| assert!(node.engine.inside("mount").args(arguments).status().unwrap().success());
        mount(&["--bind", at, at]);
        mount(&["--make-rshared", at]);
        let pod = node.pod(privileged_pod);
        let with = |propagation: MountPropagation| {
            let volume = Mount {
                container_path: "/v".into(), host_path: at.into(), propagation: propagation.into(), ..Default::default()
            };
            pod.container("exec sleep 1000", |c, s| {
                c.mounts.push(volume);
                s.privileged = true;
            })
        };
        let private = with(MountPropagation::PropagationPrivate);
        let slave = with(MountPropagation::PropagationHostToContainer);
        let shared = with(MountPropagation::PropagationBidirectional);
        mount(&["-t", "tmpfs", "tmpfs", &format!("{at}/inner")]);
        let sees = |c: &Container| c.exec("grep -c ' /v/inner ' /proc/mounts || true");
        assert_eq!([&private, &slave, &shared].map(sees), ["0", "1", "1"]);
        shared.exec("mkdir /v/mine && mount -t tmpfs tmpfs /v/mine && touch /v/mine/file");
        assert_eq!(slave.exec("ls /v/mine"), "file");
        assert_eq!(private.exec("ls /v/mine"), "");
        pod.remove();
        let unmount = node.engine.inside("umount").args(["--recursive", at]).status().unwrap();
        assert!(unmount.success());
    };

    the_user_and_its_groups |node| {
        let pod = node.common();
        let id = "id -u; id -g; id -G";
        let text = pod.sh(id, |_, s| {
            s.run_as_user = Some(Int64Value { value: 1234 });
            s.run_as_group = Some(Int64Value { value: 77 });
            s.supplemental_groups = vec![88, 99];
        });
        assert_eq!(text, "1234\n77\n77 88 99");
        assert_eq!(pod.sh(id, |_, s| s.run_as_username = "user".into()).lines().next(), Some("1000"));
        let cwd = pod.sh("pwd; echo $A", |c, _| {
            c.working_dir = "/usr".into();
            c.envs.push(KeyValue { key: "A".into(), value: "b c".into() });
        });
        assert_eq!(cwd, "/usr\nb c");
    };

    capabilities_and_no_new_privileges |node| {
        let pod = node.common();
        let caps = |add: &[&str], drop: &[&str]| {
            let list = |of: &[&str]| of.iter().map(|&c| c.to_owned()).collect();
            let capabilities = Capability {
                add_capabilities: list(add), drop_capabilities: list(drop), ..Default::default()
            };
            pod.sh(&status_field("CapEff"), |_, s| s.capabilities = Some(capabilities))
        };
        assert_eq!(caps(&[], &[]), "00000000a80425fb");
        assert_eq!(caps(&[], &["ALL"]), "0000000000000000");
        assert_eq!(caps(&["SYS_ADMIN"], &["ALL"]), "0000000000200000");
        assert_eq!(caps(&["NET_ADMIN"], &["CHOWN"]), "00000000a80435fa");
        assert_eq!(pod.sh(&status_field("NoNewPrivs"), |_, s| s.no_new_privs = true), "1");
        assert_eq!(pod.sh(&status_field("NoNewPrivs"), |_, s| s.no_new_privs = false), "0");
    };

    privileged |node| {
        requires!(harness::is_rrun() || has_all_capabilities(), "runc 1.1 fails where the host lacks a capability");
        let pod = node.pod(privileged_pod);
        let script = "mount -t tmpfs x /tmp && echo mounted; ls -d /dev/loop-control /dev/kmsg 2>/dev/null; \
                      touch /sys/x 2>&1 | grep -c Read-only; sed -n 's/^Seccomp:\\s*//p' /proc/self/status";
        let text = pod.sh(script, |_, s| {
            s.privileged = true;
            s.seccomp = None;
        });
        assert!(text.starts_with("mounted\n") && text.contains("/dev/kmsg") && text.ends_with("0\n0"), "{text}");
        pod.remove();
    };

    seccomp_profiles |node| {
        let pod = node.common();
        let mode = status_field("Seccomp");
        let with = |kind: security_profile::ProfileType, file: &str| {
            Some(SecurityProfile { profile_type: kind.into(), localhost_ref: file.into() })
        };
        assert_eq!(pod.sh(&mode, |_, _| ()), "2");
        assert_eq!(pod.sh(&mode, |_, s| s.seccomp = with(security_profile::ProfileType::Unconfined, "")), "0");
        assert_eq!(pod.sh("unshare -m true 2>/dev/null || echo refused", |_, _| ()), "refused");
        let profile = node.engine.dir("profile.json");
        let text = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":122}]}"#;
        fs::write(&profile, text).unwrap();
        let said = pod.sh("mkdir /x 2>&1 || true", |_, s| {
            s.seccomp = with(security_profile::ProfileType::Localhost, profile.to_str().unwrap());
        });
        assert!(said.to_lowercase().contains("quota exceeded"), "{said}");
    };

    apparmor_profiles |node| {
        let on = fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|t| t.trim() == "Y");
        requires!(on && harness::program("apparmor_parser").is_some(), "needs AppArmor and apparmor_parser");
        let pod = node.common();
        let current = "cat /proc/self/attr/apparmor/current 2>/dev/null || cat /proc/self/attr/current";
        let with = |kind: security_profile::ProfileType, file: &str| {
            Some(SecurityProfile { profile_type: kind.into(), localhost_ref: file.into() })
        };
        let default = pod.sh(current, |_, s| s.apparmor = with(security_profile::ProfileType::RuntimeDefault, ""));
        assert_eq!(default, "cri-containerd.apparmor.d (enforce)");
        let none = pod.sh(current, |_, s| s.apparmor = with(security_profile::ProfileType::Unconfined, ""));
        assert_eq!(none, "unconfined");
    };

    masked_and_read_only_paths |node| {
        let pod = node.common();
        let script = "cat /etc/passwd | wc -c; ls /usr/secret | wc -l; (echo x > /etc/hostname2) 2>/dev/null || echo ro";
        let text = pod.sh(&format!("mkdir -p /usr/secret; {script}"), |_, s| {
            s.masked_paths = vec!["/etc/passwd".into(), "/no/such".into()];
            s.readonly_paths = vec!["/etc".into()];
        });
        assert_eq!(text, "0\n0\nro");
        let kept = pod.sh("(echo 1 > /proc/sys/net/ipv4/ip_forward) 2>/dev/null || echo ro; wc -c < /proc/keys", |_, _| ());
        assert_eq!(kept, "ro\n0");
    };

    devices |node| {
        let pod = node.common();
        let script = "head -c 3 /dev/own | wc -c; (echo x > /dev/own) 2>/dev/null || echo denied; \
                      mknod /tmp/mem c 1 1; head -c 1 /tmp/mem 2>/dev/null || echo no other";
        let text = pod.sh(script, |c, _| {
            c.devices = vec![Device {
                container_path: "/dev/own".into(), host_path: "/dev/zero".into(), permissions: "r".into(),
            }];
        });
        assert_eq!(text, "3\nno other", "mode r of /dev/zero is widened by the default rule for it");
    };

    sysctls_of_the_pod |node| {
        let pod = node.common();
        let script = "cd /proc/sys; cat net/ipv4/ip_unprivileged_port_start kernel/shmmni net/core/somaxconn";
        assert_eq!(pod.sh(script, |_, _| ()), "80\n77\n99");
        let refused = node.pod_of(&node.handler("rrun"), |c| {
            c.linux.as_mut().unwrap().sysctls = HashMap::from([("vm.swappiness".into(), "1".into())]);
        });
        let error = refused.err().expect("a sysctl of the whole node");
        assert!(error.message().contains("vm.swappiness"), "{error}");
    };

    dns_hostname_and_hosts |node| {
        let pod = node.common();
        let text = pod.sh("cat /etc/resolv.conf /etc/hostname", |_, _| ());
        let expected = format!("search svc.cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n{}", pod.config.hostname);
        assert_eq!(text, expected);
    };

    a_host_port_answers |node| {
        let pod = node.pod(|c| {
            c.port_mappings = vec![PortMapping {
                protocol: Protocol::Tcp.into(), container_port: 80, host_port: 18081, host_ip: String::new(),
            }];
        });
        let server = pod.running("exec httpd -f -p 80 -h /etc");
        let answer = wait_for("an answer", LONG, || {
            let mut curl = node.engine.inside("curl");
            curl.args(["--silent", "--noproxy", "*", "--max-time", "2", "http://10.213.9.1:18081/hostname"]);
            let done = curl.output().unwrap();
            (done.status.success() && !done.stdout.is_empty()).then_some(done.stdout)
        });
        assert_eq!(String::from_utf8(answer).unwrap().trim(), pod.config.hostname);
        server.stop(0);
        pod.remove();
        let rules = node.engine.inside("iptables-save").output().unwrap();
        assert!(!String::from_utf8_lossy(&rules.stdout).contains("18081"));
    };

    user_namespaces |node| {
        let version = node.version(Default::default()).unwrap().runtime_version;
        let old = ["1.5", "1.6"].iter().any(|v| version.trim_start_matches('v').starts_with(v));
        requires!(!old, format!("containerd {version} has no user namespaces for pods: 2.0 is needed"));
        let map = vec![IdMapping { host_id: 100_000, container_id: 0, length: 65_536 }];
        let pod = node.pod(|c| {
            namespaces(c).userns_options = Some(UserNamespace {
                mode: NamespaceMode::Pod.into(), uids: map.clone(), gids: map,
            });
        });
        let text = pod.sh("cat /proc/self/uid_map; touch /x && stat -c %u /x", |_, _| ());
        assert_eq!(text.split_whitespace().collect::<Vec<_>>(), ["0", "100000", "65536", "0"]);
        pod.remove();
    };

    ten_pods_at_once_leave_nothing |node| {
        std::thread::scope(|scope| {
            for n in 0..10 {
                scope.spawn(move || {
                    let pod = node.pod(|_| ());
                    let container = pod.running(&format!("exit {n}"));
                    assert_eq!(container.wait().exit_code, n);
                    pod.remove();
                });
            }
        });
        // What stays is told when the node is taken down.
    };
} own {
    // An update of containerd's package restarts it below the running pods.
    pods_survive_a_restart_of_containerd |mut node| {
        let (pod, ids, pid) = {
            let pod = node.pod(|_| ());
            let running = pod.running(&format!("trap 'exit 23' TERM; {IDLE}"));
            let ended = pod.running(&format!("trap 'exit 9' TERM; {IDLE}"));
            for container in [&running, &ended] {
                container.wait_output("up");
            }
            let pid = ended.pid();
            (pod.id.clone(), [running.id, ended.id], pid)
        };
        node.engine.end_daemon();
        // The second one ends while nobody watches.
        kill_process(Pid::from_raw(pid.try_into().unwrap()).unwrap(), Signal::TERM).unwrap();
        node.restart_containerd();
        let container = |n: usize| Container { node: &node, id: ids[n].clone(), log: Default::default() };
        assert_eq!(container(1).wait().exit_code, 9);
        assert_eq!(container(0).exec("echo still"), "still");
        container(0).stop(GRACE);
        assert_eq!(container(0).status().exit_code, 23);
        let request = PodSandboxStatusRequest { pod_sandbox_id: pod, verbose: false };
        let status = node.pod_sandbox_status(request).unwrap().status.unwrap();
        assert_eq!(status.state(), PodSandboxState::SandboxReady);
    };
} }

fn has_all_capabilities() -> bool {
    let status = read("/proc/self/status");
    let bounding = status.lines().find_map(|l| l.strip_prefix("CapBnd:\t")).unwrap();
    u64::from_str_radix(bounding, 16).unwrap().trailing_ones() > 40
}
