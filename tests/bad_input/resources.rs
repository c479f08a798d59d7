//! Rows 91-113: devices, cgroups, seccomp, hooks and the rest.

use super::{Row, put};
use crate::harness::{controller, is_rrun, script};
use crate::{requires, rrun_only};
use serde_json::{Value, json};

const DEVICE: &str = "/linux/devices/-";

fn device(path: &str, kind: &str, major: i64, minor: i64) -> Value {
    json!({ "path": path, "type": kind, "major": major, "minor": minor, "fileMode": 0o666 })
}

#[test]
fn row_091_device_types() {
    requires!(root);
    let r = Row::new(91);
    r.bad("linux.devices[0].type", DEVICE, device("/dev/x", "x", 1, 3));
    r.bad("linux.devices[0].type", DEVICE, device("/dev/x", "", 1, 3));
}

#[test]
fn row_092_device_paths() {
    requires!(root);
    let r = Row::new(92);
    r.ours("linux.devices[0].path", DEVICE, device("dev/x", "c", 1, 3));
    r.good(DEVICE, device("/dev/ptmx", "c", 5, 2));
    r.ours("linux.devices[0]|/", DEVICE, device("/", "c", 1, 3));
    r.ours("linux.devices[0]|/proc", DEVICE, device("/proc/x", "c", 1, 3));
}

#[test]
fn row_093_a_device_that_stands_there_as_another() {
    requires!(root);
    rrun_only!("runc ignores EEXIST");
    let r = Row::new(93);
    r.with(|c| {
        c["mounts"]
            .as_array_mut()
            .unwrap()
            .retain(|m| !m["destination"].as_str().unwrap().starts_with("/dev"));
        put(c, DEVICE, device("/etc/passwd", "c", 1, 3));
    });
    r.refused("linux.devices[0]|/etc/passwd");
}

#[test]
fn row_094_device_numbers() {
    requires!(root);
    let r = Row::new(94);
    r.ours("linux.devices[0].major", DEVICE, device("/dev/x", "c", -1, 0));
    r.ours("linux.devices[0].m", DEVICE, device("/dev/x", "c", 1, 1 << 40));
    let mut mode = device("/dev/x", "c", 1, 3);
    mode["fileMode"] = json!(0o777_777);
    r.any(DEVICE, mode);
}

#[test]
fn row_095_device_rules() {
    let r = Row::new(95);
    let rule = "/linux/resources/devices/-";
    for kind in ["z", "c,b"] {
        r.bad("linux.resources.devices[1].type", rule, json!({ "allow": true, "type": kind, "access": "r" }));
    }
    for access in ["rwx", "q"] {
        r.ours(
            "linux.resources.devices[1].access",
            rule,
            json!({ "allow": true, "type": "c", "access": access }),
        );
    }
    r.ours(
        "linux.resources.devices[1].major",
        rule,
        json!({ "allow": true, "type": "c", "major": -5, "access": "r" }),
    );
}

#[test]
fn row_096_cgroup_paths() {
    requires!(root);
    let r = Row::new(96);
    for path in [format!("../../{}", r.t.id), format!("/../{}", r.t.id)] {
        r.good("/linux/cgroupsPath", json!(path));
        assert!(!std::path::Path::new("/sys/fs").join(&r.t.id).exists());
    }
    r.good("/linux/cgroupsPath", json!(""));
    r.bad("linux.cgroupsPath|name too long", "/linux/cgroupsPath", json!("x".repeat(5000)));
    r.ours("linux.cgroupsPath", "/linux/cgroupsPath", json!("a\0b"));
    r.with(|c| c["linux"]["cgroupsPath"] = json!("a:b"));
    let run = r.t.rt(&["--systemd-cgroup", "run", "--bundle", r.t.bundle.to_str().unwrap(), &r.t.id]);
    r.fails(1, "slice:prefix:name|systemd", run);
}

#[test]
fn row_097_a_cgroup_that_has_processes() {
    requires!(root);
    let r = Row::new(97);
    let first = crate::harness::Test::new("row097first");
    let path = format!("/{}", first.id);
    first.edit(|c| c["linux"]["cgroupsPath"] = json!(path)).detached("exec sleep 1000");
    if is_rrun() {
        r.bad("container's cgroup is not empty", "/linux/cgroupsPath", json!(path));
        assert_eq!(first.status(), "running");
    }
    first.end();
}

#[test]
fn row_098_memory() {
    requires!(root);
    requires!(controller("memory"), "needs the v1 memory controller");
    let r = Row::new(98);
    let memory = "/linux/resources/memory";
    r.ours("memory", memory, json!({ "limit": -2 }));
    r.bad("memory", memory, json!({ "limit": 1 }));
    r.bad("memory", memory, json!({ "limit": 4095 }));
    r.bad("memory", memory, json!({ "limit": 67_108_864, "swap": 33_554_432 }));
    r.good(memory, json!({ "limit": 0 }));
    r.any(memory, json!({ "limit": 33_554_432, "reservation": 67_108_864 }));
    r.any(memory, json!({ "kernel": 1, "kernelTCP": 1 }));
    r.bad("memory", memory, json!({ "swappiness": 1000 }));
}

#[test]
fn row_099_cpu() {
    requires!(root);
    requires!(controller("cpu"), "needs the v1 cpu controller");
    let r = Row::new(99);
    let cpu = "/linux/resources/cpu";
    for (value, texts) in [
        (json!({ "quota": 999 }), "cpu"),
        (json!({ "period": 10_000_000 }), "cpu"),
        (json!({ "cpus": "0-" }), "cpu"),
        (json!({ "cpus": "a" }), "cpu"),
        (json!({ "cpus": "99999" }), "cpu"),
        (json!({ "mems": "9" }), "cpu"),
    ] {
        r.bad(texts, cpu, value);
    }
    r.good(cpu, json!({ "shares": 0, "quota": 0, "period": 0 }));
    r.any(cpu, json!({ "shares": 262_145 }));
    r.good(cpu, json!({ "quota": -1 }));
    r.ours("linux.resources.cpu.idle|cpu.idle", cpu, json!({ "idle": 2 }));
}

#[test]
fn row_100_pids() {
    requires!(root);
    requires!(controller("pids"), "needs the v1 pids controller");
    let r = Row::new(100);
    r.good("/linux/resources/pids", json!({ "limit": -1 }));
    r.ours("linux.resources.pids.limit", "/linux/resources/pids", json!({ "limit": -2 }));
    r.any("/linux/resources/pids", json!({ "limit": 0 }));
    r.any("/linux/resources/pids", json!({ "limit": 1 }));
}

#[test]
fn row_101_block_io_hugepages_rdma_unified() {
    requires!(root);
    let r = Row::new(101);
    r.ours("blockIO", "/linux/resources/blockIO", json!({ "weight": 9 }));
    r.ours("blockIO", "/linux/resources/blockIO", json!({ "weight": 1001 }));
    r.ours(
        "hugepageLimits[0]",
        "/linux/resources/hugepageLimits",
        json!([{ "pageSize": "3MB", "limit": 1 }]),
    );
    r.bad(
        "hugepageLimits[0]",
        "/linux/resources/hugepageLimits",
        json!([{ "pageSize": "../x", "limit": 1 }]),
    );
    r.ours("rdma", "/linux/resources/rdma", json!({ "a/b": { "hcaHandles": 1 } }));
    for key in ["../x", "foo", "memory.max/../x"] {
        r.ours("linux.resources.unified", "/linux/resources/unified", json!({ key: "1" }));
    }
}

#[test]
fn row_102_a_controller_that_is_not_there() {
    requires!(root);
    requires!(!controller("net_cls"), "needs a machine without the net_cls controller");
    Row::new(102).bad("net_cls", "/linux/resources/network", json!({ "classID": 1 }));
}

#[test]
fn row_103_intel_rdt_without_resctrl() {
    requires!(root);
    requires!(!std::path::Path::new("/sys/fs/resctrl/schemata").exists(), "needs a machine without resctrl");
    let value = json!({ "closID": "x", "l3CacheSchema": "L3:0=f" });
    Row::new(103).bad("intelRdt|resctrl", "/linux/intelRdt", value);
}

const SECCOMP: &str = "/linux/seccomp";

#[test]
fn row_104_seccomp_default_action() {
    requires!(root);
    let r = Row::new(104);
    let syscalls = json!([{ "names": ["mkdir"], "action": "SCMP_ACT_ERRNO" }]);
    r.bad("linux.seccomp.defaultAction", SECCOMP, json!({ "defaultAction": "FOO", "syscalls": syscalls }));
    r.bad("linux.seccomp.defaultAction", SECCOMP, json!({ "defaultAction": "", "syscalls": syscalls }));
    r.good(SECCOMP, json!({ "defaultAction": "SCMP_ACT_ALLOW" }));
}

fn rule(rule: Value) -> Value {
    json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule] })
}

#[test]
fn row_105_seccomp_names_and_architectures() {
    requires!(root);
    let r = Row::new(105);
    let foo = json!({ "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_FOO"],
        "syscalls": [{ "names": ["mkdir"], "action": "SCMP_ACT_ERRNO" }] });
    r.bad("linux.seccomp.architectures[0]", SECCOMP, foo);
    r.ours(
        "linux.seccomp.syscalls[0].names",
        SECCOMP,
        rule(json!({ "names": [], "action": "SCMP_ACT_ERRNO" })),
    );
    r.good(SECCOMP, rule(json!({ "names": ["no_such_call"], "action": "SCMP_ACT_ERRNO" })));
    r.good(SECCOMP, rule(json!({ "names": vec!["mkdir"; 1000], "action": "SCMP_ACT_ERRNO" })));
}

#[test]
fn row_106_seccomp_arguments() {
    requires!(root);
    let r = Row::new(106);
    let arg = |index: u32, op: &str| {
        rule(
            json!({ "names": ["socket"], "action": "SCMP_ACT_ERRNO", "args": [{ "index": index, "value": 1, "op": op }] }),
        )
    };
    r.bad("linux.seccomp.syscalls[0].args[0].index", SECCOMP, arg(6, "SCMP_CMP_EQ"));
    r.bad("linux.seccomp.syscalls[0].args[0].op", SECCOMP, arg(0, "SCMP_CMP_FOO"));
    let allow = rule(json!({ "names": ["mkdir"], "action": "SCMP_ACT_KILL", "errnoRet": 5 }));
    r.ours("errnoRet", SECCOMP, allow);
    let mut flags = rule(json!({ "names": ["mkdir"], "action": "SCMP_ACT_ERRNO" }));
    flags["flags"] = json!(["SECCOMP_FILTER_FLAG_FOO"]);
    r.bad("linux.seccomp.flags[0]", SECCOMP, flags);
}

#[test]
fn row_107_seccomp_notify() {
    requires!(root);
    let r = Row::new(107);
    let notify = json!({ "names": ["mkdir"], "action": "SCMP_ACT_NOTIFY" });
    r.bad("listenerPath", SECCOMP, rule(notify.clone()));
    let mut with_path = rule(notify);
    with_path["listenerPath"] = json!("/no/such/socket");
    r.bad("/no/such/socket|listenerPath|seccomp agent", SECCOMP, with_path);
    let mut default = rule(json!({ "names": ["mkdir"], "action": "SCMP_ACT_ERRNO" }));
    default["defaultAction"] = json!("SCMP_ACT_NOTIFY");
    default["listenerPath"] = json!("/no/such/socket");
    r.bad("SCMP_ACT_NOTIFY", SECCOMP, default);
    let mut write = rule(json!({ "names": ["write"], "action": "SCMP_ACT_NOTIFY" }));
    write["listenerPath"] = json!("/no/such/socket");
    r.bad("SCMP_ACT_NOTIFY cannot be used for the write syscall", SECCOMP, write);
    let mut metadata = rule(json!({ "names": ["mkdir"], "action": "SCMP_ACT_ERRNO" }));
    metadata["listenerMetadata"] = json!("x");
    r.ours("listenerMetadata", SECCOMP, metadata);
}

#[test]
fn row_108_more_rules_than_a_filter_holds() {
    requires!(root);
    let r = Row::new(108);
    let rules: Vec<_> = (0..5000)
        .map(|n| {
            json!({ "names": ["socket"], "action": "SCMP_ACT_ERRNO", "errnoRet": n % 100 + 1,
                "args": [{ "index": 0, "value": n + 1000, "op": "SCMP_CMP_EQ" }] })
        })
        .collect();
    r.any(SECCOMP, json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules }));
}

#[test]
fn row_109_hooks() {
    requires!(root);
    let r = Row::new(109);
    let hook = "/hooks/createRuntime";
    r.ours("hooks.createRuntime[0].path", hook, json!([{ "path": "bin/true" }]));
    r.bad("hook", hook, json!([{ "path": "/no/such/hook" }]));
    r.bad("hook", hook, json!([{ "path": "/etc/passwd" }]));
    r.bad("hook", hook, json!([{ "path": "/etc" }]));
    r.ours("hooks.createRuntime[0].timeout", hook, json!([{ "path": "/bin/true", "timeout": 0 }]));
    r.ours("hooks.createRuntime[0].timeout", hook, json!([{ "path": "/bin/true", "timeout": -1 }]));
    r.bad("hook", hook, json!([{ "path": "/bin/false" }]));
    r.bad("hook", hook, json!([{ "path": "/bin/sleep", "args": ["sleep", "1000"], "timeout": 1 }]));
    let killed = r.t.dir.join("killed");
    script(&killed, "#!/bin/sh\nkill -9 $$\n");
    r.bad("hook", hook, json!([{ "path": killed }]));
    let loud = r.t.dir.join("loud");
    script(
        &loud,
        "#!/bin/sh\nhead -c 10000000 /dev/zero | tr '\\0' x\nhead -c 10000000 /dev/zero | tr '\\0' y >&2\n",
    );
    r.good(hook, json!([{ "path": loud }]));
    let deaf = r.t.dir.join("deaf");
    script(&deaf, "#!/bin/sh\nexec <&-\n");
    r.good(hook, json!([{ "path": deaf, "env": null, "args": null }]));
}

#[test]
fn row_110_annotations() {
    let r = Row::new(110);
    r.bad("annotations", "/annotations", json!({ "a": 1 }));
    r.ours("annotations", "/annotations", json!({ "": "x" }));
}

#[test]
fn row_111_net_devices() {
    requires!(root);
    rrun_only!("runc 1.1 has no netDevices");
    let r = Row::new(111);
    let at = "/linux/netDevices";
    r.bad("rrunnosuch0", at, json!({ "rrunnosuch0": {} }));
    r.bad("linux.netDevices", at, json!({ "sixteen-letters0": {} }));
    r.bad("linux.netDevices", at, json!({ "a0": { "name": "x" }, "b0": { "name": "x" } }));
    r.with(|c| {
        c["linux"]["namespaces"].as_array_mut().unwrap().retain(|n| n["type"] != "network");
        put(c, at, json!({ "rrunnosuch0": {} }));
    });
    r.refused("linux.netDevices");
}

#[test]
fn row_112_sections_of_other_platforms() {
    requires!(root);
    let r = Row::new(112);
    for section in ["vm", "zos", "windows", "solaris", "freebsd"] {
        r.good(&format!("/{section}"), json!({ "anything": [1] }));
    }
}

#[test]
fn row_113_mount_label_and_memory_policy() {
    requires!(root);
    let r = Row::new(113);
    if !std::path::Path::new("/sys/fs/selinux/enforce").exists() {
        r.bad("selinux", "/linux/mountLabel", json!("a_u:b_r:c_t:s0"));
    }
    r.ours("linux.memoryPolicy", "/linux/memoryPolicy", json!({ "mode": "MPOL_FOO", "nodes": "0" }));
    r.ours("linux.memoryPolicy", "/linux/memoryPolicy", json!({ "mode": "MPOL_BIND", "nodes": "x" }));
}
