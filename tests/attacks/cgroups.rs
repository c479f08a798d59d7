//! What a container may see and write of cgroups.

use crate::harness::{controller, is_cgroup2};
use crate::requires;
use crate::scene::{Control::*, attack};
use serde_json::json;
use std::fs;
use std::path::Path;

/// The kernel's: a container that may write release_agent of cgroup v1 has its program run by the host. Opened for
/// writing is proof enough.
#[test]
fn cve_2022_0492_release_agent() {
    requires!(controller("pids"), "needs cgroup v1");
    attack(
        "CVE-2022-0492",
        "release_agent and the host's cgroups can be written (cgroup v1)",
        &[Weak("cgroupro")],
        |s| {
            let base = s.t.config();
            for cgroup_namespace in [true, false] {
                s.t.write(&base);
                if !cgroup_namespace {
                    s.edit(|c| {
                        c["linux"]["namespaces"].as_array_mut().unwrap().retain(|n| n["type"] != "cgroup")
                    });
                }
                s.t.add_mount(json!({ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
                "options": ["nosuid", "noexec", "nodev", "relatime", "ro"] }));
                let out = s.run(
                "for d in /sys/fs/cgroup /sys/fs/cgroup/*; do \
                   for f in release_agent cgroup.procs; do [ -e $d/$f ] && (: >>$d/$f) 2>/dev/null && echo wrote $d/$f; done; \
                   mkdir $d/new 2>/dev/null && echo made $d/new && rmdir $d/new; done; true",
            );
                if let Some(line) = out.stdout().lines().next() {
                    return Some(line.to_owned());
                }
            }
            None
        },
    );
}

/// Without a cgroup namespace, a user's container gets the cgroups of all that this user runs.
#[test]
fn cve_2023_25809_cgroups_of_the_user() {
    requires!(
        is_cgroup2() || Path::new("/sys/fs/cgroup/unified/cgroup.procs").exists(),
        "needs a hierarchy of cgroup v2"
    );
    attack(
        "CVE-2023-25809",
        "a user's container writes the cgroups of what else the user runs",
        &[Weak("cgroupns")],
        |s| {
            let (uid, id) = (4242, s.t.id.clone());
            s.edit(|c| {
                let namespaces = c["linux"]["namespaces"].as_array_mut().unwrap();
                namespaces.retain(|n| n["type"] != "cgroup");
                namespaces.push(json!({ "type": "user" }));
                let map = json!([{ "containerID": 0, "hostID": uid, "size": 1 }]);
                c["linux"]["uidMappings"] = map.clone();
                c["linux"]["gidMappings"] = map;
                c["linux"].as_object_mut().unwrap().remove("resources");
                for mount in c["mounts"].as_array_mut().unwrap() {
                    if let Some(options) = mount["options"].as_array_mut() {
                        options.retain(|o| o != "gid=5");
                    }
                }
                c["mounts"]
                    .as_array_mut()
                    .unwrap()
                    .push(json!({ "destination": "/sys/fs/cgroup", "type": "cgroup",
                "source": "cgroup", "options": ["nosuid", "noexec", "nodev", "relatime"] }));
            });
            s.t.sh("find /sys/fs/cgroup -type d | while read d; do mkdir $d/escaped 2>/dev/null && echo made $d/escaped && rmdir $d/escaped; done; echo ran");
            let own = format!("{uid}:{uid}");
            fs::create_dir(&s.t.state).unwrap();
            let chown = std::process::Command::new("chown")
                .args(["-R", &own, "b", "s"])
                .current_dir(&s.t.dir)
                .status();
            assert!(chown.unwrap().success());
            // A machine with cgroup v2 alone, as the runtime sees it, and a cgroup of the user's with the caller in it.
            let script = format!(
                "umount -R /sys/fs/cgroup && mount -t cgroup2 cgroup2 /sys/fs/cgroup || exit 9; d=/sys/fs/cgroup/{id}-user; \
             mkdir -p $d/caller && echo $$ >$d/caller/cgroup.procs && chown -R {own} $d && \
             setpriv --reuid {uid} --regid {uid} --clear-groups env -u XDG_RUNTIME_DIR \"$@\"; \
             echo $$ >/sys/fs/cgroup/cgroup.procs; find $d -depth -type d -exec rmdir {{}} \\;"
            );
            let out =
                s.t.bundle_command("run", &[]).under(&["unshare", "-m", "sh", "-c", &script, "sh"]).go();
            let text = out.stdout();
            assert!(s.control.is_some() || text.contains("ran"), "{out:?}");
            let found = text.lines().find(|l| l.starts_with("made")).map(str::to_owned);
            let _ = fs::remove_dir_all(&s.t.state);
            found
        },
    );
}

/// crun's release notes of 1.29: `exec` into a cgroup that is not below the container's.
#[test]
fn residual_exec_out_of_the_cgroup() {
    attack(
        "residual: exec --cgroup ..",
        "exec into a cgroup beside the container's",
        &[Weak("subcgroup")],
        |s| {
            assert!(s.detached("exec sleep 1000"));
            let own = fs::read_to_string(format!("/proc/{}/cgroup", s.t.pid())).unwrap();
            for path in ["..", "../..", "/../..", "x/../../..", "pids:..", "pids:/../.."] {
                let args = ["exec", "--cgroup", path, &s.t.id, "cat", "/proc/1/cgroup", "/proc/self/cgroup"];
                let out = s.t.rt(&args).go();
                let text = out.stdout();
                let mut halves = text.lines().collect::<Vec<_>>();
                let other = halves.split_off(halves.len() / 2);
                if out.code == Some(0) && halves != other {
                    return Some(format!(
                        "exec --cgroup {path} is beside {}",
                        own.lines().next().unwrap_or_default()
                    ));
                }
            }
            None
        },
    );
}
