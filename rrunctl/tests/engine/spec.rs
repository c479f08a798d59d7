//! config.json, field by field: what dockerd 20.10.24, asked by docker 28.2, hands to its runtime for each of these
//! options. Each row is what an option changes in the plain container's; everything else must stay.
//!
//! Where ours differs on purpose, the row says so: `rro` for `ro` on binds, the network namespace's path, no namespace
//! at all for `--network host`, capabilities up to CAP_CHECKPOINT_RESTORE, no empty `cpu` and `blockIO`.

use rrunctl::container::capability::{ALL, DEFAULT};
use rrunctl::container::host::{Host, Limits, SYSCTLS};
use rrunctl::container::mount;
use rrunctl::container::spec::{Input, LookedUp, cgroups_path, make};
use rrunctl::container::types::{Config, HostConfig};
use rrunctl::container::user::Accounts;
use rrunctl::container::validate::fill_in;
use serde_json::{Map, Value, json};
use std::path::Path;

const NETNS: &str = "/run/rrunctl/c0ffee/netns";

fn machine() -> Host {
    Host {
        hostname: "vm".into(),
        kernel: (6, 18),
        capabilities: (1 << ALL.len()) - 1,
        limits: Limits { memory: true, swap: true, oom_kill_disable: true, ..Limits::default() },
        processors: 2,
        recursive_read_only: true,
        sysctls: SYSCTLS.iter().map(|(name, _)| *name).collect(),
        ..Host::default()
    }
}

/// config.json for a Config and a HostConfig, over those of `docker create busybox true`.
fn spec(config: &Value, host: &Value) -> Value {
    try_spec(config, host).expect("a config.json")
}

fn try_spec(config: &Value, host: &Value) -> rrunctl::Result<Value> {
    let mut all = json!({"Hostname": "c0ffee", "Cmd": ["true"], "Image": "busybox"});
    all.as_object_mut().expect("an object").extend(config.as_object().expect("an object").clone());
    let config: Config = serde_json::from_value(all).expect("a Config");
    let mut host: HostConfig = serde_json::from_value(host.clone()).expect("a HostConfig");
    let on = machine();
    fill_in(&mut host, &on);
    let accounts = Accounts::new(
        "root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\nbob:x:1001:100::/:\n",
        "root:x:0:\nusers:x:100:alice,bob\naudio:x:29:alice\nvideo:x:44:\nwheel:x:10:root\n",
    );
    let user = accounts.resolve(&config.user, &host.group_add).expect("known");
    let mut points = mount::points(&config, &host, |_| Ok(Vec::new())).expect("valid");
    for point in points.values_mut().filter(|point| point.r#type == "volume") {
        let name = if point.name.is_empty() { "anon".to_owned() } else { point.name.clone() };
        point.set_volume(&name, &Path::new("/v").join(&name).join("_data"));
    }
    let other = |mode: &str, path| mode.starts_with("container:").then_some(Path::new(path));
    let shm = match host.ipc_mode.as_str() {
        "host" => Some(Path::new("/dev/shm")),
        "private" | "none" => None,
        _ => Some(Path::new("/run/rrunctl/shm")),
    };
    let looked_up = LookedUp::of(&host, &on).expect("this machine has these devices");
    let input = Input {
        config: &config,
        host: &host,
        on: &on,
        rootfs: Path::new("/root"),
        user: &user,
        points: &points,
        hosts: Some(Path::new("/c/hosts")),
        hostname: Some(Path::new("/c/hostname")),
        resolv_conf: Some(Path::new("/c/resolv.conf")),
        network: other(&host.network_mode, "/proc/7/ns/net").or_else(|| Some(Path::new(NETNS))),
        ipc: other(&host.ipc_mode, "/proc/7/ns/ipc"),
        pid: other(&host.pid_mode, "/proc/7/ns/pid"),
        shm,
        cgroups_path: "/rrunctl/c0ffee",
        links: &[],
        init: Some(Path::new("/usr/bin/docker-init")),
        looked_up: &looked_up,
    };
    make(&input)
}

#[test]
fn a_part_of_a_volume_is_refused_rather_than_the_whole_mounted() {
    let host = |subpath: &str| json!({"Mounts": [{"Type": "volume", "Source": "v", "Target": "/t", "VolumeOptions": {"Subpath": subpath}}]});
    assert!(try_spec(&json!({}), &host("")).is_ok());
    let e = try_spec(&json!({}), &host("a/b")).expect_err("refused").to_string();
    assert!(e.starts_with("volume-subpath is not supported: mount the whole volume v"), "{e}");
}

/// Every leaf by its pointer; a mount is one leaf, by its place, and the order of mounts another.
fn leaves(value: &Value) -> Map<String, Value> {
    fn walk(at: &str, value: &Value, found: &mut Map<String, Value>) {
        match value {
            Value::Array(mounts) if at == "/mounts" => {
                let text = |mount: &Value, key: &str| mount[key].as_str().expect("text").to_owned();
                for mount in mounts {
                    let options: Vec<_> = mount["options"]
                        .as_array()
                        .expect("a list")
                        .iter()
                        .map(|o| o.as_str().expect("text"))
                        .collect();
                    let line =
                        format!("{} {} {}", text(mount, "type"), text(mount, "source"), options.join(","));
                    found.insert(format!("{at}{}", text(mount, "destination")), line.into());
                }
                let order: Vec<_> = mounts.iter().map(|mount| text(mount, "destination")).collect();
                found.insert(at.to_owned(), order.join(" ").into());
            }
            Value::Object(members) => {
                members.iter().for_each(|(key, value)| walk(&format!("{at}/{key}"), value, found));
            }
            leaf => drop(found.insert(at.to_owned(), leaf.clone())),
        }
    }
    let mut found = Map::new();
    walk("", value, &mut found);
    // Tried by itself, in src/container/seccomp.rs.
    found.remove("/linux/seccomp/syscalls");
    found
}

/// What differs from the plain container; `null` where something is not there any more.
fn changes(config: &Value, host: &Value) -> Value {
    let (plain, this) = (leaves(&spec(&json!({}), &json!({}))), leaves(&spec(config, host)));
    let mut changed = Map::new();
    for (key, value) in &this {
        if plain.get(key) != Some(value) {
            changed.insert(key.clone(), value.clone());
        }
    }
    for key in plain.keys().filter(|key| !this.contains_key(*key)) {
        changed.insert(key.clone(), Value::Null);
    }
    changed.sort_keys();
    Value::Object(changed)
}

#[track_caller]
fn check(config: Value, host: Value, mut expected: Value) {
    expected.sort_all_objects();
    assert_eq!(changes(&config, &host), expected, "{config} {host}");
}

fn capabilities(names: &[&str]) -> Value {
    json!({
        "/process/capabilities/bounding": names,
        "/process/capabilities/effective": names,
        "/process/capabilities/permitted": names,
    })
}

#[test]
fn a_plain_container() {
    let plain = spec(&json!({}), &json!({}));
    let found = leaves(&plain);
    for (at, value) in [
        ("/process/args", json!(["true"])),
        (
            "/process/env",
            json!(["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOSTNAME=c0ffee"]),
        ),
        ("/process/cwd", json!("/")),
        ("/process/user/uid", json!(0)),
        ("/process/user/gid", json!(0)),
        ("/process/user/additionalGids", json!([0, 10])),
        ("/process/capabilities/bounding", json!(DEFAULT)),
        ("/process/capabilities/effective", json!(DEFAULT)),
        ("/process/capabilities/permitted", json!(DEFAULT)),
        ("/process/oomScoreAdj", json!(0)),
        ("/root/path", json!("/root")),
        ("/hostname", json!("c0ffee")),
        (
            "/mounts",
            json!(
                "/proc /dev /dev/pts /sys /sys/fs/cgroup /dev/mqueue /dev/shm /etc/resolv.conf /etc/hostname /etc/hosts"
            ),
        ),
        ("/mounts/proc", json!("proc proc nosuid,noexec,nodev")),
        ("/mounts/dev", json!("tmpfs tmpfs nosuid,strictatime,mode=755,size=65536k")),
        ("/mounts/dev/pts", json!("devpts devpts nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5")),
        ("/mounts/sys", json!("sysfs sysfs nosuid,noexec,nodev,ro")),
        ("/mounts/sys/fs/cgroup", json!("cgroup cgroup ro,nosuid,noexec,nodev")),
        ("/mounts/dev/mqueue", json!("mqueue mqueue nosuid,noexec,nodev")),
        ("/mounts/dev/shm", json!("tmpfs shm nosuid,noexec,nodev,mode=1777,size=67108864")),
        ("/mounts/etc/hosts", json!("bind /c/hosts rbind,rprivate")),
        ("/mounts/etc/hostname", json!("bind /c/hostname rbind,rprivate")),
        ("/mounts/etc/resolv.conf", json!("bind /c/resolv.conf rbind,rprivate")),
        ("/linux/sysctl/net.ipv4.ip_unprivileged_port_start", json!("0")),
        ("/linux/sysctl/net.ipv4.ping_group_range", json!("0 2147483647")),
        ("/linux/cgroupsPath", json!("/rrunctl/c0ffee")),
        (
            "/linux/namespaces",
            json!([
                {"type": "mount"}, {"type": "network", "path": NETNS}, {"type": "uts"}, {"type": "pid"},
                {"type": "ipc"},
            ]),
        ),
        ("/linux/resources/memory/disableOOMKiller", json!(false)),
        ("/linux/seccomp/defaultAction", json!("SCMP_ACT_ERRNO")),
        ("/linux/seccomp/architectures", json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"])),
        (
            "/linux/readonlyPaths",
            json!(["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]),
        ),
    ] {
        if at != "/linux/seccomp/architectures" || cfg!(target_arch = "x86_64") {
            assert_eq!(found.get(at), Some(&value), "{at}");
        }
    }
    let rules: Vec<_> = found["/linux/resources/devices"].as_array().expect("a list").iter().collect();
    assert_eq!(*rules[0], json!({"allow": false, "access": "rwm"}));
    assert_eq!(*rules[2], json!({"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm"}));
    assert_eq!(rules.len(), 8);
    let masked = found["/linux/maskedPaths"].as_array().expect("a list");
    // What 20.10 masks; newer ones mask more.
    for path in [
        "asound",
        "acpi",
        "kcore",
        "keys",
        "latency_stats",
        "timer_list",
        "timer_stats",
        "sched_debug",
        "scsi",
    ] {
        assert!(masked.contains(&format!("/proc/{path}").into()), "{path}");
    }
    assert!(masked.contains(&"/sys/firmware".into()));
    for absent in [
        "/linux/devices",
        "/linux/resources/cpu",
        "/linux/resources/blockIO",
        "/process/terminal",
        "/root/readonly",
    ] {
        assert!(!found.keys().any(|key| key.starts_with(absent)), "{absent}");
    }
}

#[test]
fn the_process() {
    let base = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    check(
        json!({"Tty": true}),
        json!({"ConsoleSize": [24, 80]}),
        json!({
            "/process/terminal": true,
            "/process/consoleSize/height": 24,
            "/process/consoleSize/width": 80,
            "/process/env": [base, "HOSTNAME=c0ffee", "TERM=xterm"],
        }),
    );
    check(
        json!({"Env": ["A=1", "B=2", "A=3", "EMPTY=", "PATH=/x", "HOME=/h"]}),
        json!({}),
        json!({"/process/env": ["PATH=/x", "HOSTNAME=c0ffee", "A=3", "B=2", "EMPTY=", "HOME=/h"]}),
    );
    check(json!({"WorkingDir": "/new/dir"}), json!({}), json!({"/process/cwd": "/new/dir"}));
    check(
        json!({"Entrypoint": ["/bin/sh", "-c"], "Cmd": ["echo hi"]}),
        json!({}),
        json!({"/process/args": ["/bin/sh", "-c", "echo hi"]}),
    );
    check(
        json!({}),
        json!({"Init": true}),
        json!({
            "/process/args": ["/sbin/docker-init", "--", "true"],
            "/mounts": "/proc /dev /dev/pts /sys /sys/fs/cgroup /dev/mqueue /dev/shm /sbin/docker-init \
                /etc/resolv.conf /etc/hostname /etc/hosts",
            "/mounts/sbin/docker-init": "bind /usr/bin/docker-init bind,ro",
        }),
    );
    check(json!({}), json!({"OomScoreAdj": 500}), json!({"/process/oomScoreAdj": 500}));
    check(
        json!({}),
        json!({"Ulimits": [
            {"Name": "core", "Hard": -1, "Soft": -1}, {"Name": "nofile", "Hard": 2048, "Soft": 1024},
        ]}),
        json!({"/process/rlimits": [
            {"type": "RLIMIT_CORE", "hard": u64::MAX, "soft": u64::MAX},
            {"type": "RLIMIT_NOFILE", "hard": 2048, "soft": 1024},
        ]}),
    );
}

#[test]
fn the_user() {
    let of = |uid: u32, gid: u32, groups: &[u32]| {
        json!({
            "/process/user/uid": uid,
            "/process/user/gid": gid,
            "/process/user/additionalGids": groups,
            "/process/capabilities/effective": null,
            "/process/capabilities/permitted": null,
        })
    };
    check(json!({"User": "alice"}), json!({}), of(1000, 1000, &[1000, 100, 29]));
    check(json!({"User": "1000"}), json!({}), of(1000, 1000, &[1000, 100, 29]));
    check(json!({"User": "1234:4321"}), json!({}), of(1234, 4321, &[4321]));
    check(json!({"User": "bob:audio"}), json!({}), of(1001, 29, &[29]));
    check(json!({"User": "bob"}), json!({}), of(1001, 100, &[100]));
    check(
        json!({"User": "0:5"}),
        json!({"GroupAdd": ["video", "77"]}),
        json!({"/process/user/gid": 5, "/process/user/additionalGids": [5, 44, 77]}),
    );
}

#[test]
fn capabilities_and_security() {
    let more: Vec<_> = DEFAULT.into_iter().chain(["CAP_NET_ADMIN", "CAP_SYS_TIME"]).collect();
    check(json!({}), json!({"CapAdd": ["NET_ADMIN", "sys_time"]}), capabilities(&more));
    let less: Vec<_> = DEFAULT.into_iter().filter(|name| !["CAP_MKNOD", "CAP_KILL"].contains(name)).collect();
    check(json!({}), json!({"CapDrop": ["MKNOD", "CAP_KILL"]}), capabilities(&less));
    let most: Vec<_> = ALL.into_iter().filter(|name| *name != "CAP_SYS_ADMIN").collect();
    check(json!({}), json!({"CapAdd": ["ALL"], "CapDrop": ["SYS_ADMIN"]}), capabilities(&most));
    check(json!({}), json!({"CapDrop": ["ALL"], "CapAdd": ["CHOWN"]}), capabilities(&["CAP_CHOWN"]));
    check(
        json!({}),
        json!({"SecurityOpt": ["no-new-privileges"]}),
        json!({"/process/noNewPrivileges": true}),
    );
    let no_seccomp = json!({
        "/linux/seccomp/defaultAction": null,
        "/linux/seccomp/defaultErrnoRet": null,
        "/linux/seccomp/architectures": null,
    });
    check(json!({}), json!({"SecurityOpt": ["seccomp=unconfined"]}), no_seccomp);
    check(
        json!({}),
        json!({"SecurityOpt": [r#"seccomp={"defaultAction":"SCMP_ACT_LOG","syscalls":[]}"#]}),
        json!({
            "/linux/seccomp/defaultAction": "SCMP_ACT_LOG",
            "/linux/seccomp/defaultErrnoRet": null,
            "/linux/seccomp/architectures": null,
        }),
    );
    // No AppArmor and no SELinux here: dockerd leaves these out as well.
    check(json!({}), json!({"SecurityOpt": ["apparmor=unconfined", "label=disable"]}), json!({}));
    check(
        json!({}),
        json!({"MaskedPaths": [], "ReadonlyPaths": []}),
        json!({"/linux/maskedPaths": null, "/linux/readonlyPaths": null}),
    );
}

#[test]
fn a_privileged_container() {
    let mut expected = capabilities(&ALL);
    let found = changes(&json!({}), &json!({"Privileged": true}));
    // Whatever this machine has.
    let devices = found["/linux/devices"].clone();
    assert!(devices.as_array().expect("a list").iter().any(|device| device["path"] == "/dev/null"));
    let more = json!({
        "/linux/devices": devices,
        "/linux/maskedPaths": null,
        "/linux/readonlyPaths": null,
        "/linux/resources/devices": [{"allow": true, "access": "rwm"}],
        "/linux/seccomp/architectures": null,
        "/linux/seccomp/defaultAction": null,
        "/linux/seccomp/defaultErrnoRet": null,
        "/mounts/sys": "sysfs sysfs nosuid,noexec,nodev",
        "/mounts/sys/fs/cgroup": "cgroup cgroup nosuid,noexec,nodev",
    });
    expected.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    check(json!({}), json!({"Privileged": true}), expected);
}

#[test]
fn mounts() {
    let order = |own: &str| format!("/proc /dev /dev/pts /sys /sys/fs/cgroup /dev/mqueue /dev/shm {own}");
    let read_only = json!({
        "/root/readonly": true,
        "/mounts/etc/hosts": "bind /c/hosts rbind,ro,rprivate",
        "/mounts/etc/hostname": "bind /c/hostname rbind,ro,rprivate",
        "/mounts/etc/resolv.conf": "bind /c/resolv.conf rbind,ro,rprivate",
    });
    check(json!({}), json!({"ReadonlyRootfs": true}), read_only);
    check(
        json!({}),
        json!({"Tmpfs": {"/tmp": "size=1m,mode=1777", "/run": "", "/t": "rw,exec,size=65536k,uid=1000"}}),
        json!({
            "/mounts": order("/run /t /tmp /etc/resolv.conf /etc/hostname /etc/hosts"),
            "/mounts/tmp": "tmpfs tmpfs noexec,nosuid,nodev,rprivate,size=1m,mode=1777",
            "/mounts/run": "tmpfs tmpfs noexec,nosuid,nodev,rprivate",
            "/mounts/t": "tmpfs tmpfs nosuid,nodev,rprivate,rw,exec,size=65536k,uid=1000",
        }),
    );
    check(
        json!({"Volumes": {"/anon": {}}}),
        json!({"Binds": ["/tmp:/mnt/a", "/tmp:/mnt/b:ro", "vol1:/data", "vol2:/mnt/c:nocopy,ro"]}),
        json!({
            "/mounts": order("/anon /data /mnt/a /mnt/b /mnt/c /etc/resolv.conf /etc/hostname /etc/hosts"),
            "/mounts/anon": "bind /v/anon/_data rbind",
            "/mounts/data": "bind /v/vol1/_data rbind",
            "/mounts/mnt/a": "bind /tmp rbind,rprivate",
            "/mounts/mnt/b": "bind /tmp rbind,rro,rprivate",
            "/mounts/mnt/c": "bind /v/vol2/_data rbind,rro",
        }),
    );
    check(
        json!({}),
        json!({"Mounts": [
            {"Type": "bind", "Source": "/tmp", "Target": "/mnt/a", "ReadOnly": true,
             "BindOptions": {"ReadOnlyNonRecursive": true}},
            {"Type": "bind", "Source": "/tmp", "Target": "/mnt/nr", "BindOptions": {"NonRecursive": true}},
            {"Type": "volume", "Source": "vol3", "Target": "/data"},
            {"Type": "tmpfs", "Target": "/mnt/t", "TmpfsOptions": {"SizeBytes": 1_048_576, "Mode": 0o1770}},
            {"Type": "volume", "Target": "/mnt/anon"},
        ]}),
        json!({
            "/mounts": order("/data /mnt/a /mnt/anon /mnt/nr /mnt/t /etc/resolv.conf /etc/hostname /etc/hosts"),
            "/mounts/data": "bind /v/vol3/_data rbind",
            "/mounts/mnt/a": "bind /tmp rbind,ro,rprivate",
            "/mounts/mnt/nr": "bind /tmp bind,rprivate",
            "/mounts/mnt/anon": "bind /v/anon/_data rbind",
            "/mounts/mnt/t": "tmpfs tmpfs noexec,nosuid,nodev,rprivate,mode=1770,size=1m",
        }),
    );
    for (option, of_root) in [("rslave", "rslave"), ("rshared", "shared")] {
        check(
            json!({}),
            json!({"Binds": [format!("/tmp:/a:{option},z")]}),
            json!({
                "/mounts": order("/a /etc/resolv.conf /etc/hostname /etc/hosts"),
                "/mounts/a": format!("bind /tmp rbind,{option}"),
                "/linux/rootfsPropagation": of_root,
            }),
        );
    }
    check(
        json!({}),
        json!({"Binds": ["/dev:/dev"]}),
        json!({
            "/mounts": "/proc /sys /sys/fs/cgroup /dev /etc/resolv.conf /etc/hostname /etc/hosts",
            "/mounts/dev": "bind /dev rbind,rprivate",
            "/mounts/dev/pts": null,
            "/mounts/dev/shm": null,
            "/mounts/dev/mqueue": null,
        }),
    );
    check(
        json!({}),
        json!({"Binds": ["/tmp:/etc/hosts"]}),
        json!({
            "/mounts": order("/etc/hosts /etc/resolv.conf /etc/hostname"),
            "/mounts/etc/hosts": "bind /tmp rbind,rprivate",
        }),
    );
    check(
        json!({}),
        json!({"ShmSize": 1_073_741_824}),
        json!({"/mounts/dev/shm": "tmpfs shm nosuid,noexec,nodev,mode=1777,size=1073741824"}),
    );
}

#[test]
fn namespaces() {
    let of = |list: &str| -> Value {
        let one = |word: &str| match word.split_once('=') {
            Some((kind, path)) => json!({"type": kind, "path": path}),
            None => json!({"type": word}),
        };
        list.replace("NET", &format!("network={NETNS}")).split(' ').map(one).collect()
    };
    let shared = |source: &str| {
        json!({
            "/mounts": "/proc /dev /dev/pts /sys /sys/fs/cgroup /dev/mqueue /dev/shm /etc/resolv.conf /etc/hostname \
                /etc/hosts",
            "/mounts/dev/shm": format!("bind {source} rbind,rprivate"),
        })
    };
    // /dev/shm is as deep as /etc/hosts; dockerd puts it behind, too.
    let with = |mut value: Value, more: Value| {
        value["/mounts"] =
            "/proc /dev /dev/pts /sys /sys/fs/cgroup /dev/mqueue /etc/resolv.conf /etc/hostname \
            /etc/hosts /dev/shm"
                .into();
        value.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        value
    };
    check(
        json!({}),
        json!({"IpcMode": "host"}),
        with(shared("/dev/shm"), json!({"/linux/namespaces": of("mount NET uts pid")})),
    );
    check(json!({}), json!({"IpcMode": "shareable"}), with(shared("/run/rrunctl/shm"), json!({})));
    check(
        json!({}),
        json!({"IpcMode": "container:x"}),
        with(
            shared("/run/rrunctl/shm"),
            json!({"/linux/namespaces": of("mount NET uts pid ipc=/proc/7/ns/ipc")}),
        ),
    );
    check(
        json!({}),
        json!({"IpcMode": "none"}),
        json!({
            "/mounts": "/proc /dev /dev/pts /sys /sys/fs/cgroup /dev/mqueue /etc/resolv.conf /etc/hostname /etc/hosts",
            "/mounts/dev/shm": null,
        }),
    );
    check(json!({}), json!({"PidMode": "host"}), json!({"/linux/namespaces": of("mount NET uts ipc")}));
    check(
        json!({}),
        json!({"PidMode": "container:x", "Init": true}),
        json!({"/linux/namespaces": of("mount NET uts pid=/proc/7/ns/pid ipc")}),
    );
    check(
        json!({"Domainname": "example.org"}),
        json!({"UTSMode": "host"}),
        json!({"/hostname": null, "/linux/namespaces": of("mount NET pid ipc")}),
    );
    check(
        json!({}),
        json!({"CgroupnsMode": "private"}),
        json!({"/linux/namespaces": of("mount NET uts pid ipc cgroup")}),
    );
    check(json!({}), json!({"CgroupnsMode": "host", "UsernsMode": "host", "NetworkMode": "none"}), json!({}));
    let no_sysctls = json!({
        "/linux/sysctl/net.ipv4.ip_unprivileged_port_start": null,
        "/linux/sysctl/net.ipv4.ping_group_range": null,
    });
    for (mode, list) in
        [("host", "mount uts pid ipc"), ("container:x", "mount network=/proc/7/ns/net uts pid ipc")]
    {
        let mut expected = no_sysctls.clone();
        expected["/linux/namespaces"] = of(list);
        check(json!({}), json!({"NetworkMode": mode}), expected);
    }
}

#[test]
fn resources() {
    check(
        json!({}),
        json!({"Memory": 67_108_864}),
        json!({"/linux/resources/memory/limit": 67_108_864, "/linux/resources/memory/swap": 134_217_728}),
    );
    check(
        json!({}),
        json!({"Memory": 67_108_864, "MemorySwap": -1}),
        json!({"/linux/resources/memory/limit": 67_108_864}),
    );
    check(
        json!({}),
        json!({"Memory": 67_108_864, "MemorySwap": 134_217_728, "MemoryReservation": 33_554_432,
            "MemorySwappiness": 10, "OomKillDisable": true}),
        json!({
            "/linux/resources/memory/limit": 67_108_864,
            "/linux/resources/memory/swap": 134_217_728,
            "/linux/resources/memory/reservation": 33_554_432,
            "/linux/resources/memory/swappiness": 10,
            "/linux/resources/memory/disableOOMKiller": true,
        }),
    );
    check(
        json!({}),
        json!({"NanoCpus": 1_500_000_000, "CpuShares": 512, "CpusetCpus": "0", "CpusetMems": "0"}),
        json!({
            "/linux/resources/cpu/period": 100_000,
            "/linux/resources/cpu/quota": 150_000,
            "/linux/resources/cpu/shares": 512,
            "/linux/resources/cpu/cpus": "0",
            "/linux/resources/cpu/mems": "0",
        }),
    );
    check(
        json!({}),
        json!({"CpuPeriod": 50_000, "CpuQuota": 25_000}),
        json!({"/linux/resources/cpu/period": 50_000, "/linux/resources/cpu/quota": 25_000}),
    );
    check(json!({}), json!({"PidsLimit": 100}), json!({"/linux/resources/pids/limit": 100}));
    check(json!({}), json!({"PidsLimit": -1}), json!({"/linux/resources/pids/limit": -1}));
    check(
        json!({}),
        json!({"Sysctls": {"net.ipv4.ip_forward": "1", "kernel.msgmax": "65536"}}),
        json!({"/linux/sysctl/net.ipv4.ip_forward": "1", "/linux/sysctl/kernel.msgmax": "65536"}),
    );
    check(
        json!({"Domainname": "example.org"}),
        json!({}),
        json!({"/linux/sysctl/kernel.domainname": "example.org"}),
    );
}

#[test]
fn devices() {
    let mut rules = spec(&json!({}), &json!({}))["linux"]["resources"]["devices"].clone();
    let list = rules.as_array_mut().expect("a list");
    // Not /dev/null, whose owner runc 1.1.5 changes on the host.
    list.push(json!({"allow": true, "type": "c", "major": 1, "minor": 7, "access": "r"}));
    list.push(json!({"allow": true, "type": "c", "major": 1, "minor": 5, "access": "rwm"}));
    list.push(json!({"allow": true, "type": "c", "major": 42, "minor": -1, "access": "rwm"}));
    check(
        json!({}),
        json!({
            "Devices": [
                {"PathOnHost": "/dev/full", "PathInContainer": "/dev/myfull", "CgroupPermissions": "r"},
                {"PathOnHost": "/dev/zero", "PathInContainer": "/dev/zero", "CgroupPermissions": "rwm"},
            ],
            "DeviceCgroupRules": ["c 42:* rwm"],
        }),
        json!({
            "/linux/devices": [
                {"path": "/dev/myfull", "type": "c", "major": 1, "minor": 7, "fileMode": 0o666, "uid": 0, "gid": 0},
                {"path": "/dev/zero", "type": "c", "major": 1, "minor": 5, "fileMode": 0o666, "uid": 0, "gid": 0},
            ],
            "/linux/resources/devices": rules,
        }),
    );
    check(
        json!({}),
        json!({"BlkioDeviceReadBps": [{"Path": "/dev/null", "Rate": 1_048_576}], "BlkioWeight": 300}),
        json!({
            "/linux/resources/blockIO/throttleReadBpsDevice": [{"major": 1, "minor": 3, "rate": 1_048_576}],
            "/linux/resources/blockIO/weight": 300,
        }),
    );
}

#[test]
fn an_ordinary_users_cgroup_is_one_of_their_systemd_or_none() {
    let root = Host::default();
    let user = Host { user_namespace: true, ..Host::default() };
    let with_systemd = Host { user_systemd: true, ..user.clone() };
    let of = |parent, host| cgroups_path(parent, "c0ffee", host);
    assert_eq!((of("", &root).as_str(), of("/x", &root).as_str()), ("/rrunctl/c0ffee", "/x/c0ffee"));
    assert_eq!((of("", &user).as_str(), of("/x", &user).as_str()), ("", ""));
    let parent = of("batch.slice", &with_systemd);
    assert_eq!((of("", &with_systemd).as_str(), parent.as_str()), ("", "batch.slice:rrunctl:c0ffee"));
}
