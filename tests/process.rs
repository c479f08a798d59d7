//! config.md, process: user, capabilities, rlimits, cwd, env; and what else the process is given.

use crate::harness::{SECONDS_5, Test};
use crate::{requires, rrun_only};
use serde_json::json;

fn status_field(text: &str, name: &str) -> String {
    let line = text.lines().find(|l| l.starts_with(name)).unwrap_or_else(|| panic!("no {name} in {text}"));
    line.split_whitespace().nth(1).unwrap_or("").to_owned()
}

#[test]
fn user_group_umask_and_additional_groups() {
    requires!(root);
    let t = Test::new("user");
    t.edit(|c| {
        c["process"]["user"] = json!({ "uid": 1000, "gid": 100, "umask": 0o27, "additionalGids": [5, 6] })
    });
    assert_eq!(t.output("id -u; id -g; id -G; umask"), "1000\n100\n100 5 6\n0027\n");
}

#[test]
fn the_umask_is_unchanged_when_absent() {
    requires!(root);
    let t = Test::new("umask");
    t.sh("umask");
    let out = t.bundle_command("run", &[]).through("umask 0022; exec \"$@\"").go();
    assert_eq!(out.ok().stdout(), "0022\n");
}

#[test]
fn capabilities_are_exactly_those_given() {
    requires!(root);
    let t = Test::new("caps");
    t.edit(|c| {
        c["process"]["capabilities"] = json!({
            "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_SYS_ADMIN"],
            "permitted": ["CAP_CHOWN", "CAP_KILL"], "effective": ["CAP_KILL"],
            "inheritable": ["CAP_CHOWN", "CAP_KILL"], "ambient": ["CAP_CHOWN", "CAP_KILL"]
        });
        c["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
    });
    let text = t.output("cat /proc/self/status");
    assert_eq!(status_field(&text, "CapBnd"), "0000000000200021");
    assert_eq!(status_field(&text, "CapPrm"), "0000000000000021");
    assert_eq!(status_field(&text, "CapInh"), "0000000000000021");
    assert_eq!(status_field(&text, "CapAmb"), "0000000000000021");
}

#[test]
fn no_capabilities_at_all() {
    requires!(root);
    let t = Test::new("nocaps");
    t.edit(|c| c["process"]["capabilities"] = json!({}));
    let text = t.output("cat /proc/self/status");
    for set in ["CapBnd", "CapPrm", "CapEff", "CapInh", "CapAmb"] {
        assert_eq!(status_field(&text, set), "0000000000000000", "{set}");
    }
}

/// config.md, capabilities: values that cannot be granted MUST be warned about, and do not fail.
#[test]
fn an_unknown_capability_is_a_warning() {
    requires!(root);
    let t = Test::new("capunknown");
    t.edit(|c| c["process"]["capabilities"]["bounding"].as_array_mut().unwrap().push(json!("CAP_FOO")));
    t.sh("echo works");
    assert_eq!(t.run().ok().stdout(), "works\n");
}

#[test]
fn no_new_privileges_of_both_values() {
    requires!(root);
    let t = Test::new("nnp");
    for (value, text) in [(true, "1"), (false, "0")] {
        t.edit(|c| c["process"]["noNewPrivileges"] = json!(value));
        assert_eq!(status_field(&t.output("cat /proc/self/status"), "NoNewPrivs"), text);
    }
}

/// config.md, rlimits: getrlimit(3) MUST give what was asked for.
#[test]
fn rlimits_are_set() {
    requires!(root);
    let t = Test::new("rlimits");
    t.edit(|c| {
        c["process"]["rlimits"] = json!([
            { "type": "RLIMIT_NOFILE", "soft": 1000, "hard": 1001 },
            { "type": "RLIMIT_CORE", "soft": 0, "hard": 0 },
            { "type": "RLIMIT_NPROC", "soft": 500, "hard": 501 }
        ]);
    });
    let text = t.output("cat /proc/self/limits");
    let find = |name: &str| {
        let line = text.lines().find(|l| l.starts_with(name)).unwrap();
        line.trim_start_matches(name).split_whitespace().take(2).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(find("Max open files"), ["1000", "1001"]);
    assert_eq!(find("Max core file size"), ["0", "0"]);
    assert_eq!(find("Max processes"), ["500", "501"]);
}

#[test]
fn oom_score_adj_is_set_or_left_alone() {
    requires!(root);
    let t = Test::new("oomscore");
    let own = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap();
    if crate::harness::is_rrun() {
        assert_eq!(t.output("cat /proc/self/oom_score_adj"), own, "unset MUST NOT change it (config.md)");
    }
    t.edit(|c| c["process"]["oomScoreAdj"] = json!(500));
    assert_eq!(t.output("cat /proc/self/oom_score_adj"), "500\n");
}

#[test]
fn cwd_is_entered_and_created() {
    requires!(root);
    let t = Test::new("cwd");
    t.edit(|c| c["process"]["cwd"] = json!("/usr"));
    assert_eq!(t.output("pwd"), "/usr\n");
    t.edit(|c| c["process"]["cwd"] = json!("/new/dir"));
    assert_eq!(t.output("pwd"), "/new/dir\n");
}

#[test]
fn env_is_verbatim_and_home_comes_from_passwd() {
    requires!(root);
    let t = Test::new("env");
    t.edit(|c| c["process"]["env"].as_array_mut().unwrap().push(json!("MULTI=a b\nc")));
    assert_eq!(t.output("echo \"$MULTI\"; echo $HOME"), "a b\nc\n/root\n");
    t.edit(|c| c["process"]["user"] = json!({ "uid": 1000, "gid": 1000 }));
    assert_eq!(t.output("echo $HOME"), "/home/user\n");
    t.edit(|c| c["process"]["env"].as_array_mut().unwrap().push(json!("HOME=/given")));
    assert_eq!(t.output("echo $HOME"), "/given\n");
}

#[test]
fn the_program_is_looked_up_in_the_containers_path() {
    requires!(root);
    let t = Test::new("path");
    std::fs::create_dir_all(t.rootfs.join("opt")).unwrap();
    crate::harness::script(&t.rootfs.join("opt/prog"), "#!/bin/sh\necho from opt\n");
    t.edit(|c| {
        c["process"]["env"][0] = json!("PATH=/opt:/bin");
        c["process"]["args"] = json!(["prog"]);
    });
    assert_eq!(t.run().ok().stdout(), "from opt\n");
}

#[test]
fn arguments_arrive_as_given() {
    requires!(root);
    let t = Test::new("args");
    t.edit(|c| c["process"]["args"] = json!(["printf", "[%s]", "", "a b", "\u{e9}\n"]));
    assert_eq!(t.run().ok().stdout(), "[][a b][\u{e9}\n]");
}

#[test]
fn sysctls_of_the_containers_namespaces() {
    requires!(root);
    let t = Test::new("sysctl");
    let host = std::fs::read_to_string("/proc/sys/kernel/shmmni").unwrap();
    t.edit(|c| {
        c["linux"]["sysctl"] =
            json!({ "kernel.shmmni": "123", "net.ipv4.ip_forward": "1", "fs.mqueue.msg_max": "11" });
    });
    let text =
        t.output("cat /proc/sys/kernel/shmmni /proc/sys/net/ipv4/ip_forward /proc/sys/fs/mqueue/msg_max");
    assert_eq!(text, "123\n1\n11\n");
    assert_eq!(std::fs::read_to_string("/proc/sys/kernel/shmmni").unwrap(), host);
}

#[test]
fn personality_makes_a_32_bit_uname() {
    requires!(root);
    rrun_only!("runc 1.1 has no personality");
    requires!(cfg!(target_arch = "x86_64"), "needs x86_64");
    let t = Test::new("personality");
    t.edit(|c| c["linux"]["personality"] = json!({ "domain": "LINUX32" }));
    assert_eq!(t.output("uname -m").trim(), "i686");
}

#[test]
fn scheduler_and_io_priority() {
    requires!(root);
    rrun_only!("runc 1.1 has neither");
    let t = Test::new("scheduler");
    t.edit(|c| {
        c["process"]["scheduler"] = json!({ "policy": "SCHED_BATCH", "nice": 7 });
        c["process"]["ioPriority"] = json!({ "class": "IOPRIO_CLASS_BE", "priority": 6 });
    });
    let text = t.output("cut -d')' -f2 /proc/self/stat; ionice -p $$");
    // Behind the name: nice is field 19 of stat(5) and the policy field 41.
    let fields: Vec<_> = text.lines().next().unwrap().split_whitespace().collect();
    assert_eq!((fields[16], fields[38]), ("7", "3"), "{text}");
    assert!(text.contains("best-effort: prio 6"), "{text}");
}

#[test]
fn exec_cpu_affinity_is_that_of_exec_not_of_init() {
    requires!(root);
    rrun_only!("runc 1.1 has no execCPUAffinity");
    let t = Test::new("affinity");
    t.edit(|c| c["process"]["execCPUAffinity"] = json!({ "initial": "0", "final": "0" }));
    t.detached("exec sleep 1000");
    let out = t.exec(&["grep", "Cpus_allowed_list", "/proc/self/status"]);
    assert_eq!(out.ok().stdout().split_whitespace().last(), Some("0"));
    let out = t.rt(&["--debug", "exec", &t.id, "true"]).go();
    out.ok().says(": affinity: 0x1");
    t.end();
}

#[test]
fn a_nul_in_an_argument_is_an_error_not_a_shorter_argument() {
    requires!(root);
    let t = Test::new("nularg");
    t.edit(|c| c["process"]["args"] = json!(["echo", "a\0b"]));
    let out = t.bundle_command("run", &[]).limit(SECONDS_5).go();
    assert_ne!(out.code, Some(0), "{out:?}");
    t.nothing_left();
}

#[test]
fn annotations_stand_in_state() {
    requires!(root);
    let t = Test::new("annotations");
    t.edit(|c| c["annotations"] = json!({ "com.example.key": "value" })).sh("exec sleep 1000");
    t.create();
    assert_eq!(t.state()["annotations"]["com.example.key"], "value");
    t.end();
}

#[test]
fn stdin_reaches_the_process() {
    requires!(root);
    let t = Test::new("stdin");
    t.edit(|c| c["process"]["args"] = json!(["cat"]));
    assert_eq!(t.bundle_command("run", &[]).stdin("through\n").go().ok().stdout(), "through\n");
}

#[test]
fn exec_has_the_personality_too() {
    requires!(root);
    rrun_only!("runc 1.1 has no personality");
    requires!(cfg!(target_arch = "x86_64"), "needs x86_64");
    let t = Test::new("personalityexec");
    t.edit(|c| c["linux"]["personality"] = json!({ "domain": "LINUX32" }));
    t.detached("exec sleep 1000");
    assert_eq!(t.exec(&["uname", "-m"]).ok().stdout().trim(), "i686");
    t.end();
}

#[test]
fn the_memory_policy_is_that_of_init() {
    requires!(root);
    rrun_only!("runc 1.1 and crun 1.8 have no memoryPolicy");
    requires!(std::path::Path::new("/proc/self/numa_maps").exists(), "needs a kernel with NUMA");
    let t = Test::new("mempolicy");
    t.add_probe();
    t.edit(|c| c["linux"]["memoryPolicy"] = json!({ "mode": "MPOL_BIND", "nodes": "0" }));
    let text = t.output("grep -c bind:0 /proc/self/numa_maps; probe policy");
    let words: Vec<_> = text.split_whitespace().collect();
    assert!(words[0].parse::<u32>().unwrap() > 0, "{text}");
    // MPOL_BIND is 2.
    assert_eq!(words[1..], ["2", "1"]);
    t.edit(|c| {
        c["linux"]["memoryPolicy"] =
            json!({ "mode": "MPOL_INTERLEAVE", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"] })
    });
    assert!(t.output("cat /proc/self/numa_maps").contains("interleave=static:0"));
}
