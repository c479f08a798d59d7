//! Rows 23-51: top level, root and process.

use super::Row;
use crate::harness::script;
use crate::{requires, rrun_only};
use serde_json::{Value, json};
use std::fs;

#[test]
fn row_023_oci_version() {
    requires!(root);
    rrun_only!("peers differ from version to version");
    let r = Row::new(23);
    for version in [json!(null), json!(""), json!("0.1.0"), json!("1.0.2-dev"), json!("1.9.0-rc.1+build")] {
        r.good("/ociVersion", version);
    }
    for version in ["abc", "1", "1.0", "1..0", "1.0.x", "v1.0.0", "2.0.0", "99.0.0"] {
        r.ours("ociVersion", "/ociVersion", json!(version));
    }
}

#[test]
fn row_024_root_missing() {
    let r = Row::new(24);
    r.bad("root", "/root", Value::Null);
}

#[test]
fn row_025_root_path() {
    requires!(root);
    let r = Row::new(25);
    r.ours("root.path", "/root/path", json!(""));
    r.bad("root|rootfs", "/root/path", json!("nosuch"));
    r.bad("root|not a directory", "/root/path", json!("rootfs/etc/passwd"));
    r.good("/root/path", json!("rootfs"));
    r.good("/root/path", json!(r.t.rootfs));
}

#[test]
fn row_026_the_hosts_root_as_root() {
    requires!(root);
    let r = Row::new(26);
    let before = fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count();
    r.with(|c| {
        c["root"] = json!({ "path": "/", "readonly": true });
        c["mounts"] = json!([]);
        c["process"]["env"][0] = json!("PATH=/usr/bin:/bin");
        c["linux"]["maskedPaths"] = json!([]);
        c["linux"]["readonlyPaths"] = json!([]);
    });
    r.survives(r.t.bundle_command("run", &[]));
    assert!(fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count() <= before + 8);
    r.t.nothing_left();
}

#[test]
fn row_027_a_read_only_and_noexec_rootfs() {
    requires!(root);
    let r = Row::new(27);
    let rootfs = r.t.rootfs.to_str().unwrap();
    let inner = format!("mount --bind {rootfs} {rootfs} && mount -o remount,bind,ro {rootfs} && exec \"$@\"");
    r.with(|c| c["root"]["readonly"] = json!(true));
    let out = r.t.bundle_command("run", &[]).under(&["unshare", "-m", "sh", "-c", &inner, "sh"]).go();
    out.ok();
    r.t.nothing_left();
}

#[test]
fn row_028_process_missing() {
    let r = Row::new(28);
    r.bad("process", "/process", Value::Null);
}

#[test]
fn row_029_args() {
    let r = Row::new(29);
    r.bad("process.args|args must not be empty", "/process/args", Value::Null);
    r.bad("process.args|args must not be empty", "/process/args", json!([]));
    r.bad("process.args|executable file not found", "/process/args", json!([""]));
}

#[test]
fn row_030_programs_that_cannot_run() {
    requires!(root);
    let r = Row::new(30);
    r.bad("executable file not found in $PATH", "/process/args", json!(["foo"]));
    r.bad("permission denied|is a directory", "/process/args", json!(["/etc"]));
    r.bad("permission denied", "/process/args", json!(["/etc/passwd"]));
    script(&r.t.rootfs.join("bin/noformat"), "\x7fELF nonsense");
    r.bad("exec format error", "/process/args", json!(["/bin/noformat"]));
    script(&r.t.rootfs.join("bin/nointerp"), "#!/no/such/interpreter\n");
    r.bad("no such file or directory", "/process/args", json!(["/bin/nointerp"]));
}

#[test]
fn row_031_cwd() {
    requires!(root);
    let r = Row::new(31);
    r.bad("Cwd|process.cwd", "/process/cwd", json!(""));
    r.bad("Cwd must be an absolute path|process.cwd", "/process/cwd", json!("tmp"));
    r.bad("cwd|not a directory", "/process/cwd", json!("/etc/passwd"));
    r.good("/process/cwd", json!("/made/by/create"));
}

#[test]
fn row_032_env_entries() {
    requires!(root);
    let r = Row::new(32);
    r.any("/process/env/-", json!("NOEQUALS"));
    r.any("/process/env/-", json!("=x"));
    r.good("/process/env/-", json!("PATH=/bin"));
    r.bad(
        "argument list too long|process.env",
        "/process/env/-",
        json!(format!("BIG={}", "x".repeat(10_000_000))),
    );
}

#[test]
fn row_033_args_too_long() {
    requires!(root);
    let r = Row::new(33);
    r.bad("argument list too long|process.args", "/process/args", json!(["true", "x".repeat(200_000)]));
    let many = vec!["x".repeat(1000); 9000];
    r.bad(
        "argument list too long|process.args",
        "/process/args",
        json!([vec!["true".to_owned()], many].concat()),
    );
}

#[test]
fn row_034_ids_that_are_none() {
    let r = Row::new(34);
    r.bad("process.user.uid", "/process/user/uid", json!(-1));
    r.ours("process.user.uid", "/process/user/uid", json!(4_294_967_295_u32));
    r.bad("process.user.gid", "/process/user/gid", json!(4_294_967_296_u64));
    r.ours("process.user.additionalGids", "/process/user/additionalGids", json!([4_294_967_295_u32]));
}

#[test]
fn row_035_a_user_that_is_not_mapped() {
    requires!(root);
    let r = Row::new(35);
    r.t.write(&r.t.default_config());
    r.t.map_users().edit(|c| c["process"]["user"]["uid"] = json!(70_000));
    r.refused("process.user.uid|unmapped|not mapped|setuid");
}

#[test]
fn row_036_additional_groups_that_are_not_mapped() {
    requires!(root);
    let r = Row::new(36);
    r.t.write(&r.t.default_config());
    r.t.map_users().edit(|c| c["process"]["user"]["additionalGids"] = json!([70_000]));
    r.refused("additionalGids|setgroups|unmapped|not mapped");
}

#[test]
fn row_037_umask_beyond_its_bits() {
    requires!(root);
    let r = Row::new(37);
    r.any("/process/user/umask", json!(0o10_000));
}

#[test]
fn row_038_terminal_and_console_socket_that_do_not_fit() {
    requires!(root);
    let r = Row::new(38);
    r.with(|c| c["process"]["terminal"] = json!(true));
    let text =
        "cannot allocate tty if runc will detach without setting console socket|cannot allocate tty if rrun";
    let out = r.fails(1, text, r.t.bundle_command("create", &[]));
    out.says("cannot allocate tty if ");
    r.with(|_| ());
    let out = r.fails(1, "cannot use console socket", r.t.bundle_command("run", &["--console-socket", "/x"]));
    out.says("cannot use console socket if ");
    r.t.nothing_left();
}

#[test]
fn row_039_console_size_without_terminal() {
    requires!(root);
    Row::new(39).good("/process/consoleSize", json!({ "height": 10, "width": 20 }));
}

#[test]
fn row_040_unknown_capabilities_are_a_warning() {
    requires!(root);
    let r = Row::new(40);
    for name in ["CAP_FOO", "cap_chown", "CHOWN"] {
        r.good("/process/capabilities/bounding/-", json!(name));
    }
}

#[test]
fn row_041_ambient_that_cannot_be_raised_is_a_warning() {
    requires!(root);
    let r = Row::new(41);
    r.good("/process/capabilities/ambient", json!(["CAP_SYS_ADMIN"]));
}

#[test]
fn row_042_effective_beyond_permitted() {
    requires!(root);
    let r = Row::new(42);
    // config.md: a capability that cannot be granted is a warning, and the runtime SHOULD NOT fail.
    r.good("/process/capabilities/effective/-", json!("CAP_SYS_ADMIN"));
}

#[test]
fn row_043_a_duplicate_rlimit() {
    let r = Row::new(43);
    let limit = json!({ "type": "RLIMIT_CORE", "soft": 0, "hard": 0 });
    r.ours("process.rlimits[1]", "/process/rlimits", json!([limit, limit]));
}

#[test]
fn row_044_an_unknown_rlimit() {
    let r = Row::new(44);
    for name in ["RLIMIT_FOO", "nofile", ""] {
        r.bad("process.rlimits[0]", "/process/rlimits", json!([{ "type": name, "soft": 1, "hard": 1 }]));
    }
}

#[test]
fn row_045_soft_above_hard() {
    requires!(root);
    let limit = json!([{ "type": "RLIMIT_NOFILE", "soft": 200, "hard": 100 }]);
    Row::new(45).bad("process.rlimits[0]|RLIMIT_NOFILE", "/process/rlimits", limit);
}

#[test]
fn row_046_a_hard_limit_above_the_runtimes() {
    requires!(root);
    let r = Row::new(46);
    r.with(|c| {
        c["process"]["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "soft": 900_000, "hard": 900_000 }])
    });
    let run = r.t.bundle_command("run", &[]).under(&["setpriv", "--bounding-set", "-sys_resource"]);
    // Where the test itself lacks the capability setpriv has nothing to drop.
    r.fails(1, "RLIMIT_NOFILE|CAP_SYS_RESOURCE", run);
    r.t.nothing_left();
}

#[test]
fn row_047_oom_score_adj_out_of_range() {
    requires!(root);
    let r = Row::new(47);
    r.bad("oomScoreAdj|oom_score_adj|oom score", "/process/oomScoreAdj", json!(1001));
    r.bad("oomScoreAdj|oom_score_adj|oom score", "/process/oomScoreAdj", json!(-1001));
}

#[test]
fn row_048_security_modules_that_are_not_there() {
    requires!(root);
    let r = Row::new(48);
    r.bad("process.noNewPrivileges", "/process/noNewPrivileges", json!("yes"));
    if !std::path::Path::new("/sys/kernel/security/apparmor").exists() {
        r.bad("apparmor", "/process/apparmorProfile", json!("nosuch"));
    }
    if !std::path::Path::new("/sys/fs/selinux/enforce").exists() {
        r.bad("selinux", "/process/selinuxLabel", json!("a_u:b_r:c_t:s0"));
    }
}

#[test]
fn row_049_a_scheduler_that_does_not_fit() {
    requires!(root);
    rrun_only!("runc 1.1 has no scheduler");
    let r = Row::new(49);
    r.bad("process.scheduler", "/process/scheduler", json!({ "policy": "SCHED_FOO" }));
    r.bad("process.scheduler", "/process/scheduler", json!({ "policy": "SCHED_OTHER", "nice": 50 }));
    r.bad(
        "process.scheduler|sched_setattr",
        "/process/scheduler",
        json!({ "policy": "SCHED_FIFO", "priority": 200 }),
    );
    r.bad(
        "process.scheduler",
        "/process/scheduler",
        json!({ "policy": "SCHED_BATCH", "flags": ["SCHED_FLAG_FOO"] }),
    );
}

#[test]
fn row_050_io_priority() {
    requires!(root);
    rrun_only!("runc 1.1 has no ioPriority");
    let r = Row::new(50);
    r.bad("process.ioPriority", "/process/ioPriority", json!({ "class": "IOPRIO_CLASS_FOO", "priority": 1 }));
    for priority in [8, -1] {
        r.bad(
            "process.ioPriority",
            "/process/ioPriority",
            json!({ "class": "IOPRIO_CLASS_BE", "priority": priority }),
        );
    }
}

#[test]
fn row_051_cpu_affinity() {
    requires!(root);
    rrun_only!("runc 1.1 has no execCPUAffinity");
    let r = Row::new(51);
    for list in ["a-b", "3-1", "0-", ","] {
        r.bad("process.execCPUAffinity", "/process/execCPUAffinity", json!({ "initial": list }));
    }
}
