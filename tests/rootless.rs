//! An ordinary user: everything here is run by one, with root only to prepare and to look.
//!
//! Where the machine has a user `tester` with ranges in /etc/subuid and a systemd of their own, as the guest of
//! tests/vm has, it is that one; elsewhere an id that nobody has, and what needs more is skipped.

use crate::harness::{Out, Run, Test, runtime, script};
use crate::pty::FdSocket;
use crate::{requires, rrun_only};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The id of the guest's `tester`, if their systemd runs.
fn tester() -> Option<u32> {
    let passwd = fs::read_to_string("/etc/passwd").ok()?;
    let line = passwd.lines().find(|line| line.starts_with("tester:"))?;
    let uid = line.split(':').nth(2)?.parse().ok()?;
    Path::new(&format!("/run/user/{uid}/systemd/private")).exists().then_some(uid)
}

fn uid() -> u32 {
    tester().unwrap_or(4242)
}

fn v2() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// A bundle of the user's: root inside is the user.
fn bundle(name: &str) -> Test {
    let t = Test::new(name);
    t.edit(|c| {
        c["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "user" }));
        let map = json!([{ "containerID": 0, "hostID": uid(), "size": 1 }]);
        c["linux"]["uidMappings"] = map.clone();
        c["linux"]["gidMappings"] = map;
        c["linux"].as_object_mut().unwrap().remove("resources");
        for mount in c["mounts"].as_array_mut().unwrap() {
            if let Some(options) = mount["options"].as_array_mut() {
                options.retain(|o| o != "gid=5");
            }
        }
    });
    own(&t);
    t
}

fn own(t: &Test) {
    let chown = Command::new("chown").args(["-R", &format!("{0}:{0}", uid())]).arg(&t.dir).status().unwrap();
    assert!(chown.success());
}

/// Does something else as the user, with nothing in the environment but what is given.
fn by_user(extra: &[&str], groups: &str) -> Vec<String> {
    let id = uid().to_string();
    let mut words = vec!["setpriv", "--reuid", &id, "--regid", &id];
    words.extend(if groups.is_empty() { vec!["--clear-groups"] } else { vec!["--groups", groups] });
    words.extend(["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"]);
    words.extend(extra);
    words.into_iter().map(str::to_owned).collect()
}

trait AsUser: Sized {
    fn without_session(self) -> Self;
    /// With the user's own systemd in reach.
    fn logged_in(self) -> Self;
    /// In a scope whose cgroup the user may manage.
    fn delegated(self) -> Self;
    fn by(self, extra: &[&str], groups: &str) -> Self;
}

impl AsUser for Run<'_> {
    fn without_session(self) -> Self {
        self.by(&[], "")
    }

    fn logged_in(self) -> Self {
        let session = session();
        self.by(&session.iter().map(String::as_str).collect::<Vec<_>>(), "")
    }

    fn delegated(self) -> Self {
        // The processes of a delegated cgroup have to be in one below it: only then can others beside that be limited,
        // and systemd leaves what is below a delegated cgroup alone.
        let below = "d=/sys/fs/cgroup$(cut -d: -f3 /proc/self/cgroup); mkdir $d/supervisor; \
                     echo $$ > $d/supervisor/cgroup.procs; exec \"$@\"";
        let mut words = session();
        words.extend("systemd-run --user --scope -q -p Delegate=yes".split(' ').map(str::to_owned));
        words.extend(["sh", "-c", below, "sh"].map(str::to_owned));
        self.by(&words.iter().map(String::as_str).collect::<Vec<_>>(), "")
    }

    fn by(self, extra: &[&str], groups: &str) -> Self {
        let words = by_user(extra, groups);
        self.under(&words.iter().map(String::as_str).collect::<Vec<_>>())
    }
}

fn session() -> Vec<String> {
    let dir = format!("/run/user/{}", uid());
    vec![format!("XDG_RUNTIME_DIR={dir}"), format!("DBUS_SESSION_BUS_ADDRESS=unix:path={dir}/bus")]
}

fn run(t: &Test) -> Out {
    t.bundle_command("run", &[]).without_session().go()
}

/// A command line of its own with a terminal; what comes behind is not looked at.
fn in_terminal(line: &str) -> [&str; 5] {
    ["sh", "-c", "exec script -qec \"$0\" /dev/null", line, "--"]
}

fn output(t: &Test, text: &str) -> String {
    let out = run(t.sh(text));
    out.ok();
    out.stdout()
}

fn rt(t: &Test, args: &[&str]) -> Out {
    t.rt(args).without_session().go()
}

fn end(t: &Test) {
    rt(t, &["delete", "--force", &t.id]).ok();
    t.nothing_left();
}

fn pid(t: &Test) -> u32 {
    let out = rt(t, &["state", &t.id]);
    let state: Value = serde_json::from_str(&out.ok().stdout()).unwrap();
    state["pid"].as_u64().unwrap().try_into().unwrap()
}

#[test]
fn a_user_creates_starts_execs_kills_and_deletes() {
    requires!(root);
    let t = bundle("life");
    t.sh("exec sleep 1000");
    t.bundle_command("create", &[]).without_session().go().ok();
    rt(&t, &["start", &t.id]).ok();
    let inside = rt(&t, &["exec", &t.id, "sh", "-c", "id -u; cat /proc/self/uid_map /proc/self/setgroups"]);
    let text = inside.ok().stdout();
    let words: Vec<_> = text.split_whitespace().collect();
    assert_eq!(words, ["0", "0", &uid().to_string(), "1", "deny"], "{inside:?}");
    assert!(rt(&t, &["ps", &t.id]).code.is_some());
    rt(&t, &["kill", &t.id, "KILL"]).ok();
    crate::harness::wait_for("stopped", crate::harness::SECONDS_5, || {
        rt(&t, &["state", &t.id]).stdout().contains("\"stopped\"").then_some(())
    });
    rt(&t, &["delete", &t.id]).ok();
    t.nothing_left();
}

#[test]
fn devices_are_bound_and_the_rest_is_mounted() {
    requires!(root);
    let t = bundle("rootfs");
    t.add_mount(json!({ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
                        "options": ["nosuid", "noexec", "nodev", "ro"] }));
    t.edit(|c| {
        c["linux"]["sysctl"] = json!({ "net.ipv4.ip_forward": "1", "kernel.msgmax": "4096" });
        c["process"]["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "soft": 77, "hard": 88 }]);
        if crate::harness::is_rrun() {
            c["process"]["oomScoreAdj"] = json!(-500);
        }
        c["linux"]["seccomp"] = json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            { "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 122 }] });
        c["hooks"] = json!({
            "createRuntime": [{ "path": "/bin/sh", "args": ["sh", "-c", format!("id -u > {}/hook", t.dir.display())] }],
            "startContainer": [{ "path": "/bin/sh", "args": ["sh", "-c", "id -u > /tmp/hook"] }]
        });
    });
    let text = output(
        &t,
        "stat -c '%t:%T' /dev/null; echo x > /dev/null; cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax; \
         ulimit -n; mkdir /tmp/x 2>&1 | grep -ci quota; cat /tmp/hook; cat /proc/keys 2>/dev/null | wc -c; \
         touch /proc/sys/kernel/msgmax 2>&1 | grep -ci read-only; ls -d /dev/mqueue /sys/fs/cgroup",
    );
    let words: Vec<_> = text.split_whitespace().collect();
    assert_eq!(words, ["1:3", "1", "4096", "77", "1", "0", "0", "1", "/dev/mqueue", "/sys/fs/cgroup"]);
    assert_eq!(fs::read_to_string(t.dir.join("hook")).unwrap().trim(), uid().to_string());
    t.nothing_left();
}

/// The one that is left where there is no newer setgroups(2) rule to obey (user_namespaces(7)).
#[test]
fn groups_are_as_the_kernel_lets_them() {
    requires!(root);
    let t = bundle("groups");
    t.edit(|c| c["process"]["user"]["additionalGids"] = json!([0]));
    run(&t).fails("cannot set any additional groups in a rootless container").one_line();
    t.nothing_left();
    rrun_only!("an annotation of crun's");
    t.edit(|c| {
        c["process"]["user"].as_object_mut().unwrap().remove("additionalGids");
        c["annotations"] = json!({ "run.oci.keep_original_groups": "1" });
    });
    t.sh("grep Groups /proc/self/status");
    let out = t.bundle_command("run", &[]).by(&[], "4343").go();
    assert!(out.ok().stdout().contains("65534"), "{out:?}");
    t.nothing_left();
}

#[test]
fn unmapped_ids_are_refused_by_their_place() {
    requires!(root);
    let t = bundle("unmapped");
    t.edit(|c| c["process"]["user"] = json!({ "uid": 1, "gid": 0 }));
    run(&t).fails("cannot set uid to unmapped").one_line();
    let t = bundle("unmapped2");
    t.edit(|c| c["mounts"][2]["options"].as_array_mut().unwrap().push(json!("gid=5")));
    run(&t).fails("cannot specify gid= mount options for unmapped gid").one_line();
    let t = bundle("nouserns");
    t.edit(|c| {
        c["linux"]["namespaces"].as_array_mut().unwrap().retain(|n| n["type"] != "user");
        let linux = c["linux"].as_object_mut().unwrap();
        linux.remove("uidMappings");
        linux.remove("gidMappings");
    });
    run(&t).fails("rootless container requires user namespaces");
    t.nothing_left();
}

#[test]
fn ranges_that_are_not_the_users_are_refused_by_newuidmap() {
    requires!(root);
    requires!(program "newuidmap");
    let t = bundle("badrange");
    t.edit(|c| {
        let map = json!([{ "containerID": 0, "hostID": uid(), "size": 1 },
                         { "containerID": 1, "hostID": 3_000_000, "size": 65_536 }]);
        c["linux"]["uidMappings"] = map;
    });
    let out = run(&t);
    out.fails("newuidmap");
    if crate::harness::is_rrun() {
        out.one_line().says("/etc/subuid").says("linux.uidMappings");
    }
    t.nothing_left();
}

#[test]
fn ranges_of_the_user_are_mapped_by_newuidmap() {
    requires!(root);
    requires!(tester().is_some(), "needs the user tester with ranges in /etc/subuid");
    rrun_only!("runc sets no groups for users at all");
    let t = bundle("range");
    t.edit(|c| {
        let map = json!([{ "containerID": 0, "hostID": uid(), "size": 1 },
                         { "containerID": 1, "hostID": 100_000, "size": 65_536 }]);
        c["linux"]["uidMappings"] = map.clone();
        c["linux"]["gidMappings"] = map;
        c["process"]["user"] = json!({ "uid": 33, "gid": 33, "additionalGids": [7, 8] });
        c["mounts"][2]["options"].as_array_mut().unwrap().push(json!("gid=5"));
    });
    // One range that begins elsewhere needs the program as well, and leaves no group of the caller's (CVE-2022-36109).
    let text = output(&t, "id -u; id -g; grep Groups: /proc/self/status | cut -f2; touch /tmp/mine");
    assert_eq!(text.lines().map(str::trim).collect::<Vec<_>>(), ["33", "33", "7 8"]);
    use std::os::unix::fs::MetadataExt as _;
    assert_eq!(fs::metadata(t.rootfs.join("tmp/mine")).unwrap().uid(), 100_032);
    t.sh("exec sleep 1000");
    t.bundle_command("run", &["-d"]).without_session().go().ok();
    let tty = format!(
        "{} --root {} exec -t {} stat -c %u:%g:%a /dev/pts/0",
        runtime().display(),
        t.state.display(),
        t.id
    );
    let out = t.rt(&["--version"]).by(&in_terminal(&tty), "").go();
    assert!(out.ok().stdout().contains("33:5:620"), "{out:?}");
    let text = rt(
        &t,
        &[
            "exec",
            "--user",
            "40:41",
            "--cap",
            "CAP_CHOWN",
            &t.id,
            "sh",
            "-c",
            "id -u; grep CapBnd /proc/self/status",
        ],
    );
    assert!(text.ok().stdout().starts_with("40\n"), "{text:?}");
    end(&t);
    t.edit(|c| {
        let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65_536 }]);
        c["linux"]["uidMappings"] = map.clone();
        c["linux"]["gidMappings"] = map;
        c["process"]["user"] = json!({ "uid": 0, "gid": 0 });
        c["root"]["path"] = json!("rootfs");
    });
    crate::harness::chmod(&t.bundle, 0o755);
    t.sh("grep Groups: /proc/self/status | cut -f2");
    let out = t.bundle_command("run", &[]).by(&[], "4343").go();
    assert_eq!(out.ok().stdout().trim(), "", "{out:?}");
    t.nothing_left();
}

#[test]
fn exec_gets_what_it_asks_for() {
    requires!(root);
    let t = bundle("exec");
    t.sh("exec sleep 1000");
    t.bundle_command("run", &["-d"]).without_session().go().ok();
    let out = rt(&t, &["exec", "--cap", "CAP_SYS_TIME", &t.id, "grep", "CapEff", "/proc/self/status"]);
    let set = u64::from_str_radix(out.ok().stdout().split_whitespace().nth(1).unwrap(), 16).unwrap();
    assert!(set & 1 << 25 != 0, "{out:?}");
    rt(&t, &["exec", "--user", "5", &t.id, "true"]).code_is(255).says("unmapped");
    if crate::harness::is_rrun() {
        rt(&t, &["exec", "-g", "0", &t.id, "true"]).code_is(255).says("cannot set any additional groups");
    }
    // Under a name that exec has been told.
    script(&t.rootfs.join("bin/where"), "#!/bin/sh\nreadlink /proc/self/ns/user; pwd\n");
    let out = rt(&t, &["exec", "--cwd", "/tmp", &t.id, "where"]);
    let inside = fs::read_link(format!("/proc/{}/ns/user", pid(&t))).unwrap();
    assert_eq!(out.ok().stdout(), format!("{}\n/tmp\n", inside.display()));
    end(&t);
}

#[test]
fn a_users_agent_gets_the_listener() {
    requires!(root);
    for (no_new_privileges, hook) in [(true, false), (false, false), (true, true)] {
        let t = bundle("rootless-listener");
        let socket = FdSocket::bind(&t.dir.join("agent"));
        own(&t);
        t.edit(|c| {
            c["process"]["noNewPrivileges"] = json!(no_new_privileges);
            c["linux"]["seccomp"] = json!({
                "defaultAction": "SCMP_ACT_ALLOW",
                "listenerPath": socket.path,
                "syscalls": [{ "names": ["sethostname"], "action": "SCMP_ACT_NOTIFY" }],
            });
            if hook {
                c["hooks"] = json!({ "startContainer": [{ "path": "/bin/true" }] });
            }
        });
        t.sh("exec sleep 1000");
        let started = t.bundle_command("run", &["--detach"]).without_session().spawn();
        let (text, fds) = socket.receive();
        started.wait().ok();
        let state: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((fds.len(), &state["pid"]), (1, &json!(pid(&t))));
        end(&t);
    }
}

/// The process that waits for `start` lets its user's further processes in.
#[test]
fn a_created_container_takes_exec() {
    requires!(root);
    let t = bundle("rootless-created");
    own(&t);
    t.sh("exec sleep 1000");
    t.bundle_command("create", &[]).without_session().go().ok();
    let out = t.rt(&["exec", &t.id, "cat", "/proc/self/uid_map"]).without_session().go();
    assert!(!out.ok().stdout().is_empty());
    end(&t);
}

#[test]
fn a_container_that_could_not_be_killed_is_warned_about() {
    requires!(root);
    let t = bundle("rootless-shared");
    own(&t);
    t.edit(|c| c["linux"]["namespaces"].as_array_mut().unwrap().retain(|n| n["type"] != "pid"));
    t.edit(|c| {
        let mounts = c["mounts"].as_array_mut().unwrap();
        mounts.retain(|m| m["destination"] != "/proc");
        mounts
            .push(json!({ "destination": "/proc", "type": "none", "source": "/proc", "options": ["rbind"] }));
        c["linux"]["maskedPaths"] = json!([]);
        c["linux"]["readonlyPaths"] = json!([]);
    });
    t.sh("true");
    let out = t.bundle_command("run", &[]).without_session().go();
    assert!(out.ok().stderr().contains("strongly discouraged"), "{}", out.stderr());
    end(&t);
}

#[test]
fn the_spec_for_the_rootless_runs_as_it_is() {
    requires!(root);
    requires!(program "script");
    let t = bundle("spec");
    fs::remove_file(t.bundle.join("config.json")).unwrap();
    t.rt(&["spec", "--rootless", "--bundle", t.bundle.to_str().unwrap()]).without_session().go().ok();
    let line = format!(
        "{} --root {} run --bundle {} {}",
        runtime().display(),
        t.state.display(),
        t.bundle.display(),
        t.id
    );
    use std::os::unix::fs::PermissionsExt as _;
    let terminals = fs::metadata("/dev/ptmx").is_ok_and(|ptmx| ptmx.permissions().mode() & 0o6 == 0o6);
    let wrapped = ["sh", "-c", "exec $0", &line, "--"];
    let wrapped = if terminals { in_terminal(&line) } else { wrapped };
    if !terminals {
        t.edit(|c| c["process"]["terminal"] = json!(false));
    }
    let out = t.rt(&["--version"]).stdin("id -u; exit 7\n").by(&wrapped, "").go();
    out.code_is(7);
    assert!(out.stdout().lines().any(|line| line.trim() == "0"), "{out:?}");
    // Limits that are not asked for need no permission, and a systemd of one's own is used if it is wanted.
    if tester().is_some() && v2() {
        t.edit(|c| {
            c["process"]["terminal"] = json!(false);
            c["process"]["args"] = json!(["cat", "/proc/self/cgroup"]);
        });
        let mut run = t.bundle_command("run", &[]);
        run.args.insert(0, "--systemd-cgroup".into());
        assert_eq!(run.logged_in().go().ok().stdout(), "0::/\n");
    }
    t.nothing_left();
}

#[test]
fn the_root_directory_is_in_the_runtime_directory() {
    requires!(root);
    let t = bundle("root");
    let dir = t.dir.join("xdg");
    fs::create_dir(&dir).unwrap();
    own(&t);
    let bundle = t.bundle.to_str().unwrap();
    let bare = || Run::bare(&t).arg("run").arg("--bundle").arg(bundle).arg(&t.id);
    let set = format!("XDG_RUNTIME_DIR={}", dir.display());
    bare().by(&[&set], "").go().ok();
    assert!(dir.join(runtime().file_name().unwrap()).exists() || dir.join("rrun").exists());
    if crate::harness::is_rrun() {
        bare().without_session().go().fails("XDG_RUNTIME_DIR is not set").one_line();
    }
}

#[test]
fn without_permission_a_cgroup_is_left_out_unless_it_is_asked_for() {
    requires!(root);
    let t = bundle("nocgroup");
    let ours = t.bundle_command("run", &["-d"]);
    t.sh("exec sleep 1000");
    ours.without_session().go().ok();
    let cgroup = fs::read_to_string(format!("/proc/{}/cgroup", pid(&t))).unwrap();
    assert_eq!(cgroup, fs::read_to_string("/proc/self/cgroup").unwrap(), "it stays where the caller is");
    if crate::harness::is_rrun() {
        rt(&t, &["pause", &t.id]).fails("cgroup").one_line();
        rt(&t, &["update", "--pids-limit", "10", &t.id]).fails("could not join or create cgroup").one_line();
    }
    end(&t);

    t.edit(|c| c["linux"]["cgroupsPath"] = json!(format!("/{}", t.id)));
    run(&t).fails("unable to apply cgroup configuration").says("permission denied");
    t.edit(|c| {
        c["linux"].as_object_mut().unwrap().remove("cgroupsPath");
        c["linux"]["resources"] = json!({ "pids": { "limit": 20 } });
    });
    run(&t).fails(
        "rootless needs no limits + no cgrouppath when no permission is granted for cgroups|\
         cannot set pids limit: container could not join or create cgroup",
    );
    t.nothing_left();

    // --rootless=false: the caller says that there is permission.
    t.edit(|c| drop(c["linux"].as_object_mut().unwrap().remove("resources")));
    t.sh("true");
    for (value, ok) in [("auto", true), ("true", true), ("false", false)] {
        let mut run = t.bundle_command("run", &[]);
        run.args.insert(0, format!("--rootless={value}").into());
        let out = run.without_session().go();
        match ok {
            true => out.ok(),
            false => out.fails("unable to apply cgroup configuration"),
        };
        t.nothing_left();
    }
}

#[test]
fn root_of_a_user_namespace_needs_no_further_one() {
    requires!(root);
    let t = bundle("unshared");
    t.edit(|c| {
        let map = json!([{ "containerID": 0, "hostID": 0, "size": 1 }]);
        c["linux"]["uidMappings"] = map.clone();
        c["linux"]["gidMappings"] = map;
    });
    t.sh("id -u; cat /proc/self/setgroups");
    let unshare = ["unshare", "--user", "--map-root-user", "--mount"];
    let out = t.bundle_command("run", &[]).by(&unshare, "").go();
    assert_eq!(out.ok().stdout(), "0\ndeny\n", "{out:?}");
    t.edit(|c| {
        c["linux"]["namespaces"].as_array_mut().unwrap().retain(|n| n["type"] != "user");
        let linux = c["linux"].as_object_mut().unwrap();
        linux.remove("uidMappings");
        linux.remove("gidMappings");
    });
    let out = t.bundle_command("run", &[]).by(&unshare, "").go();
    assert_eq!(out.ok().stdout(), "0\ndeny\n", "{out:?}");
    t.nothing_left();
}

/// Ends with its mount.
struct Mounted(std::path::PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-R").arg(&self.0).status();
    }
}

#[test]
fn what_the_hosts_mounts_forbid_stays_forbidden() {
    requires!(root);
    rrun_only!("runc 1.1 cannot bind such a mount without naming its flags");
    let t = bundle("locked");
    let dir = t.dir.join("locked");
    fs::create_dir(&dir).unwrap();
    let mount = |args: &[&str]| assert!(Command::new("mount").args(args).status().unwrap().success());
    mount(&["-t", "tmpfs", "-o", "ro,nosuid,nodev", "tmpfs", dir.to_str().unwrap()]);
    let mounted = Mounted(dir.clone());
    let bind = |options: Value| {
        t.edit(|c| {
            let mounts = c["mounts"].as_array_mut().unwrap();
            mounts.retain(|m| m["destination"] != "/mnt");
            mounts.push(json!({ "destination": "/mnt", "type": "bind", "source": dir, "options": options }));
        });
    };
    bind(json!(["rbind"]));
    let text = output(&t, "grep ' /mnt ' /proc/mounts");
    assert!(text.contains("ro,nosuid,nodev"), "{text}");
    bind(json!(["rbind", "noexec", "nosuid"]));
    assert!(output(&t, "grep ' /mnt ' /proc/mounts").contains("ro,nosuid,nodev,noexec"));
    for option in ["rw", "suid", "dev"] {
        bind(json!(["rbind", option]));
        run(&t).fails("operation not permitted");
        if crate::harness::is_rrun() {
            run(&t).one_line().says("in a user namespace it stays so");
        }
    }
    // Below it another mount: without it, what that hides would be seen.
    drop(mounted);
    mount(&["-t", "tmpfs", "tmpfs", dir.to_str().unwrap()]);
    let mounted = Mounted(dir.clone());
    fs::create_dir(dir.join("below")).unwrap();
    mount(&["-t", "tmpfs", "tmpfs", dir.join("below").to_str().unwrap()]);
    bind(json!(["rbind", "rw"]));
    output(&t, "grep ' /mnt/below ' /proc/mounts");
    if crate::harness::is_rrun() {
        bind(json!(["bind"]));
        run(&t).fails("use rbind").one_line();
    }
    drop(mounted);
    t.nothing_left();
}

#[test]
fn the_hosts_network_goes_with_a_bind_of_sys() {
    requires!(root);
    let t = bundle("hostnet");
    t.edit(|c| {
        c["linux"]["namespaces"].as_array_mut().unwrap().retain(|n| n["type"] != "network");
        let sys =
            c["mounts"].as_array_mut().unwrap().iter_mut().find(|m| m["destination"] == "/sys").unwrap();
        *sys = json!({ "destination": "/sys", "type": "none", "source": "/sys",
                       "options": ["rbind", "nosuid", "noexec", "nodev", "ro"] });
    });
    let text =
        output(&t, "readlink /proc/self/ns/net; ls /sys/class/net; grep -c ' /sys sysfs ro' /proc/mounts");
    let own = fs::read_link("/proc/self/ns/net").unwrap();
    assert!(
        text.starts_with(own.to_str().unwrap()) && text.contains("lo") && text.ends_with("1\n"),
        "{text}"
    );
    t.nothing_left();
}

/// rrun in a container of rrun's, as root of its user namespace.
#[test]
fn a_container_runs_containers() {
    requires!(root);
    requires!(unfiltered);
    rrun_only!("it is about the binary being static");
    let t = bundle("nested");
    let all: Vec<String> = capabilities();
    t.edit(|c| {
        c["process"]["capabilities"] = json!({ "bounding": all, "effective": all, "permitted": all });
        // The kernel lets procfs be mounted only where all of another is to be seen.
        c["linux"]["maskedPaths"] = json!([]);
        c["linux"]["readonlyPaths"] = json!([]);
    });
    fs::copy(runtime(), t.rootfs.join("bin/rrun")).unwrap();
    let inner = t.rootfs.join("inner");
    fs::create_dir_all(inner.join("rootfs")).unwrap();
    for dir in ["bin", "dev", "proc"] {
        fs::create_dir(inner.join("rootfs").join(dir)).unwrap();
    }
    fs::copy(t.rootfs.join("bin/busybox"), inner.join("rootfs/bin/sh")).unwrap();
    fs::write(
        inner.join("config.json"),
        json!({
            "ociVersion": "1.0.2",
            "process": { "user": { "uid": 0, "gid": 0 }, "args": ["sh", "-c", "echo inside $$"], "cwd": "/",
                         "env": ["PATH=/bin", format!("RRUN_TEST={}", t.id)] },
            "root": { "path": "rootfs" },
            "mounts": [{ "destination": "/proc", "type": "proc", "source": "proc" },
                       { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"] }],
            "linux": { "namespaces": [{ "type": "pid" }, { "type": "mount" }, { "type": "ipc" }, { "type": "uts" }] }
        })
        .to_string(),
    )
    .unwrap();
    own(&t);
    assert_eq!(output(&t, "rrun --root /tmp/s run --bundle /inner in"), "inside 1\n");
    t.nothing_left();
}

fn capabilities() -> Vec<String> {
    let names = "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP NET_ADMIN SYS_CHROOT \
                 SYS_PTRACE SYS_ADMIN SYS_RESOURCE MKNOD SETFCAP";
    names.split_whitespace().map(|name| format!("CAP_{name}")).collect()
}

/// The values of the files that the limits of `limited` are in.
const LIMITS: &str = "cd /sys/fs/cgroup; cat pids.max memory.max cpu.max; cut -d: -f3 /proc/self/cgroup";

fn limited(name: &str) -> Test {
    let t = bundle(name);
    t.add_mount(json!({ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
                        "options": ["nosuid", "noexec", "nodev", "ro"] }));
    t.edit(|c| {
        c["linux"]["resources"] = json!({ "pids": { "limit": 20 }, "memory": { "limit": 50_003_968 },
                                          "cpu": { "quota": 50_000, "period": 100_000 } });
    });
    t
}

#[test]
fn a_delegated_cgroup_limits() {
    requires!(root);
    requires!(tester().is_some() && v2(), "needs the user tester with a systemd of their own, and cgroup v2");
    let t = limited("delegated");
    let out = t.sh(LIMITS).bundle_command("run", &[]).delegated().go();
    assert_eq!(out.ok().stdout(), "20\n50003968\n50000 100000\n/\n", "{out:?}");
    t.nothing_left();
    t.edit(|c| {
        c["linux"]["resources"]["hugepageLimits"] = json!([{ "pageSize": "2MB", "limit": 2_097_152 }])
    });
    let out = t.bundle_command("run", &[]).delegated().go();
    out.fails("hugetlb");
    if crate::harness::is_rrun() {
        out.one_line().says("is not delegated to this user");
    }
    t.nothing_left();
    t.edit(|c| drop(c["linux"]["resources"].as_object_mut().unwrap().remove("hugepageLimits")));
    t.sh("exec sleep 1000");
    t.bundle_command("run", &["-d"]).delegated().go().ok();
    for args in [&["pause"][..], &["resume"], &["update", "--pids-limit", "30"], &["ps"]] {
        let mut args = args.to_vec();
        args.push(&t.id);
        rt(&t, &args).ok();
    }
    // From outside of the delegated part the user cannot bring a process in; from inside it goes.
    let out = t.rt(&["exec", &t.id, "sh", "-c", LIMITS]).delegated().go();
    assert_eq!(out.ok().stdout(), "30\n50003968\n50000 100000\n/\n", "{out:?}");
    end(&t);
}

fn by_systemd(t: &Test) -> Run<'_> {
    let mut run = t.bundle_command("run", &["-d"]);
    run.args.insert(0, "--systemd-cgroup".into());
    run
}

#[test]
fn the_users_systemd_limits() {
    requires!(root);
    requires!(tester().is_some() && v2(), "needs the user tester with a systemd of their own, and cgroup v2");
    for stripped in [false, true] {
        if stripped && !crate::harness::is_rrun() {
            continue;
        }
        let t = limited("usersystemd");
        t.sh("exec sleep 1000");
        let run = by_systemd(&t);
        if stripped { run.without_session() } else { run.logged_in() }.go().ok();
        let cgroup = fs::read_to_string(format!("/proc/{}/cgroup", pid(&t))).unwrap();
        let below = format!("/user.slice/user-{0}.slice/user@{0}.service/", uid());
        assert!(cgroup.contains(&below) && cgroup.trim().ends_with(".scope"), "{cgroup}");
        // No flag from here on: the choice is on record.
        let out = rt(&t, &["exec", &t.id, "sh", "-c", LIMITS]);
        let (limits, within) = ("20\n50003968\n50000 100000\n", "20\n50003968\n50000 100000\n/\n");
        // runc 1.1 leaves the process outside.
        let inside =
            if crate::harness::is_rrun() { out.stdout() == within } else { out.stdout().starts_with(limits) };
        assert!(inside, "{out:?}");
        rt(&t, &["update", "--pids-limit", "33", &t.id]).ok();
        rt(&t, &["pause", &t.id]).ok();
        assert!(rt(&t, &["state", &t.id]).stdout().contains("\"paused\""));
        rt(&t, &["resume", &t.id]).ok();
        assert!(rt(&t, &["exec", &t.id, "cat", "/sys/fs/cgroup/pids.max"]).stdout().starts_with("33"));
        assert!(rt(&t, &["ps", &t.id]).ok().stdout().contains("sleep"));
        rt(&t, &["kill", &t.id, "KILL"]).ok();
        end(&t);
    }
    let t = limited("undelegated");
    t.edit(|c| {
        c["linux"]["resources"]["hugepageLimits"] = json!([{ "pageSize": "2MB", "limit": 2_097_152 }])
    });
    let out = by_systemd(&t).logged_in().go();
    out.fails("hugetlb");
    if crate::harness::is_rrun() {
        out.one_line().says("is not delegated to this user");
    }
    t.nothing_left();
}

/// podman as the user with the runtime under it.
struct Podman<'a>(&'a Test, &'a str);

impl Podman<'_> {
    fn try_run(&self, args: &str) -> Out {
        let home = format!("HOME={}", self.0.dir.display());
        let mut words = session();
        words.extend([home, "USER=tester".into()]);
        words.extend("sh -c".split(' ').map(str::to_owned));
        let graph = self.0.dir.join("graph");
        let global = format!(
            "podman --storage-driver vfs --root {} --runroot {} --cgroup-manager {} --runtime {}",
            graph.display(),
            self.0.dir.join("runroot").display(),
            self.1,
            runtime().display()
        );
        words.push(format!("exec 2>&1; {global} {args}"));
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        self.0.rt(&["--version"]).by(&words, "").limit(std::time::Duration::from_secs(120)).go()
    }

    #[track_caller]
    fn says(&self, args: &str, text: &str) -> String {
        let out = self.try_run(args);
        let said = out.ok().stdout();
        assert!(said.contains(text), "podman {args}: {said:?} lacks {text:?}");
        said
    }
}

#[test]
fn rootless_podman_works() {
    requires!(root);
    requires!(tester().is_some() && v2(), "needs the user tester with a systemd of their own, and cgroup v2");
    requires!(program "podman");
    requires!(program "slirp4netns");
    let t = bundle("podman");
    let tar = t.rootfs_tar();
    own(&t);
    let p = Podman(&t, "systemd");
    p.try_run(&format!("import {} bb", tar.display())).ok();
    p.says("run --rm bb id", "uid=0");
    p.says(
        "run -d --name p1 --memory 50m --pids-limit 50 --cpus 0.5 -p 18080:80 -v /etc:/mnt:ro bb \
         sh -c 'echo hello; exec httpd -f -p 80 -h /mnt'",
        "",
    );
    p.says(
        "exec p1 sh -c 'cd /sys/fs/cgroup; cat pids.max memory.max cpu.max; ls /mnt/passwd'",
        "50\n52428800\n50000 100000\n/mnt/passwd",
    );
    p.says("exec --user 33:33 p1 id", "uid=33 gid=33");
    p.says("logs p1", "hello");
    p.says("stats --no-stream p1", "52.43MB");
    p.says("top p1", "httpd");
    let fetched =
        Command::new("curl").args(["-s", "-m", "20", "http://127.0.0.1:18080/passwd"]).output().unwrap();
    assert!(String::from_utf8_lossy(&fetched.stdout).contains("root:"), "{fetched:?}");
    p.says("pause p1", "p1");
    p.says("unpause p1", "p1");
    p.says("update --memory 60m p1", "");
    p.says("exec p1 cat /sys/fs/cgroup/memory.max", "62914560");
    p.says("stop -t 0 p1", "p1");
    p.says("start p1", "p1");
    p.says("restart -t 0 p1", "p1");
    p.says("kill p1", "p1");
    p.says("rm -f -t 0 p1", "p1");
    p.says("run --rm --userns keep-id bb id -u", &uid().to_string());
    p.says("pod create --infra-image bb --infra-command 'sleep 1000' --name pod1", "");
    p.says("run -d --pod pod1 --name pc1 --health-cmd 'CMD-SHELL true' bb sleep 1000", "");
    p.says("healthcheck run pc1", "");
    p.says("exec pc1 ps", "sleep 1000");
    p.says("kill --all", "");
    p.says("pod rm -f -t 0 pod1", "");
    let p = Podman(&t, "cgroupfs");
    p.says("run --rm bb cat /proc/self/cgroup", "0::/");
    p.says("ps -a -q", "");
    p.try_run("system reset --force");
    // Ends the process that holds the user namespace.
    p.try_run("system migrate");
    let clean = by_user(&["podman", "unshare", "rm", "-rf"], "");
    let _ = Command::new(&clean[0]).args(&clean[1..]).arg(t.dir.join("graph")).status();
    // And once more, as that command has made another.
    let session = session();
    let mut stop: Vec<_> = session.iter().map(String::as_str).collect();
    stop.extend("systemctl --user stop podman-pause-*.scope".split(' '));
    let stop = by_user(&stop, "");
    assert!(Command::new(&stop[0]).args(&stop[1..]).status().unwrap().success());
    t.nothing_left();
}

/// Cgroups of v1 that a user was given, and none of the v2 hierarchy beside them.
struct Given(Vec<PathBuf>);

impl Given {
    fn new(name: &str) -> Self {
        let all = fs::read_dir("/sys/fs/cgroup").unwrap().map(|entry| entry.unwrap().path());
        let v1 = all.filter(|dir| dir.join("tasks").exists() && !dir.is_symlink());
        let given = Self(v1.map(|dir| dir.join(name)).collect());
        for dir in &given.0 {
            fs::create_dir(dir).unwrap();
            for file in ["cpuset.cpus", "cpuset.mems"].map(|file| dir.join(file)) {
                if file.exists() {
                    let above = fs::read(dir.parent().unwrap().join(file.file_name().unwrap())).unwrap();
                    fs::write(file, above).unwrap();
                }
            }
            for path in [dir.clone(), dir.join("cgroup.procs"), dir.join("tasks")] {
                std::os::unix::fs::chown(path, Some(uid()), Some(uid())).unwrap();
            }
        }
        given
    }
}

impl Drop for Given {
    fn drop(&mut self) {
        for dir in &self.0 {
            let _ = fs::remove_dir(dir);
        }
    }
}

#[test]
fn given_cgroups_of_v1_limit_without_the_v2_beside_them() {
    requires!(root);
    requires!(Path::new("/sys/fs/cgroup/unified/cgroup.procs").exists(), "needs cgroup v2 beside v1");
    let t = limited("given");
    let name = format!("given-{}", t.id);
    let given = Given::new(&name);
    t.edit(|c| c["linux"]["cgroupsPath"] = json!(format!("/{name}/{}", t.id)));
    let out = t
        .sh("cd /sys/fs/cgroup; cat pids/pids.max memory/memory.limit_in_bytes; ls -d unified || :")
        .bundle_command("run", &[]);
    let out = out.without_session().go().ok().stdout();
    assert_eq!(out, "20\n50003968\n", "nothing of the hierarchy without a cgroup of the container's");
    t.sh("exec sleep 1000");
    t.bundle_command("run", &["-d"]).without_session().go().ok();
    for args in [&["pause"][..], &["resume"], &["update", "--pids-limit", "30"], &["ps"]] {
        let mut args = args.to_vec();
        args.push(&t.id);
        rt(&t, &args).ok();
    }
    rt(&t, &["delete", "--force", &t.id]).ok();
    drop(given);
    t.nothing_left();
}
