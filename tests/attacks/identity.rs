//! Users, groups, capabilities and the environment of the process.

use crate::harness::chmod;
use crate::scene::{Control::*, attack};
use serde_json::json;
use std::fs;
use std::os::unix::fs::chown;

/// A number that the image's /etc/passwd gives another meaning; also crun's CVE-2026-30892, containerd's
/// CVE-2024-40635 and CVE-2026-46680.
#[test]
fn cve_2016_3697_numeric_user_looked_up_as_a_name() {
    attack(
        "CVE-2016-3697",
        "a number for a user is looked up as a name (crun: CVE-2026-30892)",
        &[Weak("user")],
        |s| {
            let names = ["1000", "1", "4294967296", "-1", "4294967295", "01", "+1", "1e3", "0x1"];
            let lines: String = names.iter().map(|name| format!("{name}:x:0:0::/:/bin/sh\n")).collect();
            fs::write(s.t.rootfs.join("etc/passwd"), lines).unwrap();
            assert!(s.detached("exec sleep 1000"));
            for number in ["1000", "1"] {
                let id = s.t.rt(&["exec", "--user", number, &s.t.id, "id", "-u"]).go().stdout();
                if id.trim() != number {
                    return Some(format!("exec --user {number} ran as {}", id.trim()));
                }
            }
            for bad in
                ["4294967296", "-1", "4294967295", "", ":", "1:", ":1", "1:2:3", "+1", " 1", "1e3", "0x1"]
            {
                let out = s.t.rt(&["exec", "--user", bad, &s.t.id, "id", "-u"]).go();
                if out.code == Some(0) {
                    return Some(format!("exec --user {bad:?} ran as {}", out.stdout().trim()));
                }
            }
            s.end();
            for uid in
                [json!(4_294_967_295_u32), json!(4_294_967_296_u64), json!(-1), json!(1.5), json!("1000")]
            {
                s.edit(|c| c["process"]["user"]["uid"] = uid.clone());
                let out = s.run("id -u");
                if out.code == Some(0) {
                    return Some(format!("process.user.uid {uid} ran as {}", out.stdout().trim()));
                }
            }
            None
        },
    );
}

/// runc's CVE, and crun's CVE-2022-27650, moby's CVE-2022-24769, youki's CVE-2025-27612: an inheritable set that nobody
/// asked for.
#[test]
fn cve_2022_29162_inheritable_capabilities() {
    attack(
        "CVE-2022-29162",
        "inheritable capabilities that nobody asked for (crun: CVE-2022-27650; youki: CVE-2025-27612)",
        &[Runc, Crun, Weak("inheritable")],
        |s| {
            assert!(s.detached("exec sleep 1000"));
            for args in [
                &["exec"][..],
                &["exec", "--cap", "CAP_NET_RAW"],
                &["exec", "--user", "1000", "--cap", "CAP_SYS_ADMIN"],
            ] {
                let mut all = args.to_vec();
                all.extend([s.t.id.as_str(), "grep", "CapInh", "/proc/self/status"]);
                let out = s.t.rt(&all).go();
                let set = out.ok().stdout();
                if set.split_whitespace().last() != Some("0000000000000000") {
                    return Some(format!("{args:?} gave {}", set.trim()));
                }
            }
            let out =
                s.t.rt(&["exec", "--user", "1000", &s.t.id, "grep", "CapEff", "/proc/self/status"])
                    .go()
                    .stdout();
            (out.split_whitespace().last() != Some("0000000000000000"))
                .then(|| format!("another user has {}", out.trim()))
        },
    );
}

/// moby's CVE, and podman's CVE-2022-2989, containerd's CVE-2023-25173: a group that denies access is not set.
#[test]
fn cve_2022_36109_supplementary_groups() {
    attack(
        "CVE-2022-36109",
        "supplementary groups are not set, or are the caller's",
        &[Weak("groups")],
        |s| {
            let file = s.t.rootfs.join("denied");
            fs::write(&file, "canary").unwrap();
            chown(&file, Some(0), Some(5555)).unwrap();
            chmod(&file, 0o604);
            s.edit(|c| c["process"]["user"] = json!({ "uid": 1000, "gid": 1000, "additionalGids": [5555] }));
            s.t.sh("id -G; cat /denied 2>/dev/null");
            // The caller's groups are not the container's either.
            let out = s.t.bundle_command("run", &[]).under(&["setpriv", "--groups", "4242"]).go().stdout();
            let groups = out.lines().next().unwrap_or_default();
            (out.contains("canary") || groups.split(' ').any(|g| g == "4242"))
                .then(|| format!("the groups are {groups}"))
        },
    );
}

/// podman's: a name without a value takes the value from the host.
#[test]
fn cve_2026_57231_environment_of_the_host() {
    attack("CVE-2026-57231", "the environment takes values from the host", &[Weak("env")], |s| {
        s.edit(|c| c["process"]["env"] = json!(["PATH=/bin", "SECRET"]));
        let run = |s: &crate::scene::Scene| {
            s.t.sh("env");
            s.t.bundle_command("run", &[]).env("SECRET", "canary").env("OTHER", "canary").go().stdout()
        };
        let bare = run(s);
        s.edit(|c| c["process"]["env"] = json!(["PATH=/bin"]));
        (bare + &run(s)).contains("canary").then(|| "a variable of the host's came in".to_owned())
    });
}
