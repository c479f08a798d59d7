//! A /proc that is false, or not at its place: labels, masks and kernel parameters are written through it.

use crate::race::{swapper, windows};
use crate::scene::{Control::*, Scene, attack};
use serde_json::json;
use std::fs;
use std::os::unix::fs::symlink;

/// A directory that looks like /proc to whoever does not ask the kernel.
fn fake_proc(s: &Scene) -> std::path::PathBuf {
    let fake = s.t.dir.join("proc");
    for dir in ["self/attr/apparmor", "sys/kernel", "sys/net/ipv4"] {
        fs::create_dir_all(fake.join(dir)).unwrap();
    }
    for file in [
        "self/attr/exec",
        "self/attr/apparmor/exec",
        "self/setgroups",
        "self/status",
        "sys/kernel/core_pattern",
        "sys/net/ipv4/ip_forward",
    ] {
        fs::write(fake.join(file), "").unwrap();
    }
    fake
}

#[test]
fn cve_2019_16884_mounts_over_proc() {
    attack("CVE-2019-16884", "a false /proc, or a mount over a file of it", &[Runc, Weak("judge")], |s| {
        let fake = fake_proc(s);
        let base = s.t.config();
        let mut false_ones = vec![
            json!({ "destination": "/proc", "source": fake, "options": ["bind"] }),
            json!({ "destination": "/proc/self", "type": "tmpfs", "source": "x" }),
        ];
        for file in ["self/attr/exec", "self/attr/apparmor/exec", "self/status", "sys/kernel/core_pattern"] {
            false_ones
                .push(json!({ "destination": format!("/proc/{file}"), "source": fake.join("self/status"),
                "options": ["bind"] }));
            // The same by a way round that the text does not show.
            false_ones.push(json!({ "destination": format!("/round/../link/{file}"),
                "source": fake.join("self/status"), "options": ["bind"] }));
        }
        symlink("proc", s.t.rootfs.join("link")).unwrap();
        for mount in false_ones {
            s.t.write(&base);
            let destination = mount["destination"].clone();
            s.edit(|c| {
                c["mounts"].as_array_mut().unwrap().insert(1, mount);
                c["linux"]["sysctl"] = json!({ "net.ipv4.ip_forward": "1" });
            });
            if s.run("echo ran").stdout() == "ran\n" {
                return Some(format!("ran with a false {destination}"));
            }
        }
        // What lxcfs and its like replace is not refused.
        s.t.write(&base);
        s.bind(&fake.join("self/status"), "/proc/uptime");
        assert_eq!(s.run("wc -c </proc/uptime").ok().stdout(), "0\n");
        None
    });
}

/// Where a procfs or sysfs is mounted in the container that runs this, if not at its place.
const MISPLACED: &str = "while read -r _ _ _ _ point rest; do case \"$rest\" in *' - proc '*|*' - sysfs '*) \
     case $point in /proc|/proc/*|/sys|/sys/*) ;; *) echo misplaced $point;; esac;; esac; done <$MOUNTS/self/mountinfo";

fn misplaced(s: &Scene, proc: &str) -> Option<String> {
    let out = s.run(&MISPLACED.replace("$MOUNTS", proc)).stdout();
    out.lines().find(|l| l.starts_with("misplaced")).map(|l| format!("procfs or sysfs: {l}"))
}

/// runc's, also as CVE-2023-27561 and CVE-2023-28642, and youki's CVE-2025-54867.
#[test]
fn cve_2019_19921_proc_is_a_link() {
    attack(
        "CVE-2019-19921",
        "/proc or /sys of the image is a link (CVE-2023-27561, CVE-2023-28642; youki: CVE-2025-54867)",
        &[Runc, Weak("links")],
        |s| {
            let volume = s.volume("/vol");
            // The volume is there before /proc is mounted.
            s.edit(|c| c["mounts"].as_array_mut().unwrap().rotate_right(1));
            for dir in ["p", "s"] {
                fs::create_dir(volume.join(dir)).unwrap();
            }
            for (name, inside) in [("proc", "p"), ("sys", "s")] {
                let at = s.t.rootfs.join(name);
                fs::remove_dir_all(&at).unwrap();
                for target in [
                    format!("/vol/{inside}"),
                    format!("vol/{inside}"),
                    ".".into(),
                    "/".into(),
                    "../../..".into(),
                    "nowhere".into(),
                ] {
                    symlink(&target, &at).unwrap();
                    let proc = if name == "proc" { format!("/{target}") } else { "/proc".into() };
                    let found = misplaced(s, &proc);
                    fs::remove_file(&at).unwrap();
                    let _ = fs::remove_dir_all(s.t.rootfs.join("nowhere"));
                    if found.is_some() {
                        return found;
                    }
                }
                // No link, and no directory either.
                for kind in ["file", "fifo"] {
                    if kind == "file" {
                        fs::write(&at, "").unwrap();
                    } else {
                        let mode = rustix::fs::Mode::from_raw_mode(0o666);
                        rustix::fs::mknodat(rustix::fs::CWD, &at, rustix::fs::FileType::Fifo, mode, 0)
                            .unwrap();
                    }
                    s.run("true").fails("ordinary directory|not a directory");
                    fs::remove_file(&at).unwrap();
                }
                fs::create_dir(&at).unwrap();
            }
            None
        },
    );
}

/// runc's, and youki's CVE-2025-62596: the runtime's own writes to /proc are led to other files.
#[test]
fn cve_2025_52881_writes_to_proc_redirected() {
    attack(
        "CVE-2025-52881",
        "the runtime's writes to /proc are led to another file (youki: CVE-2025-62596)",
        &[Runc, Weak("procpath")],
        |s| {
            let volume = s.volume("/v");
            let (a, b) = (volume.join("a"), volume.join("a2"));
            fs::create_dir(&a).unwrap();
            fs::write(a.join("ip_forward"), "").unwrap();
            symlink("/proc/sys/net/ipv4", &b).unwrap();
            let other = s.t.dir.join("other");
            s.bind(&other, "/v/a/ip_forward");
            s.edit(|c| c["linux"]["sysctl"] = json!({ "net.ipv4.ip_forward": "1" }));
            let go = |s: &Scene| {
                fs::write(&other, "canary").unwrap();
                s.run("true");
                let text = fs::read_to_string(&other).unwrap();
                (text != "canary")
                    .then(|| format!("the kernel parameter was written to another file: {text:?}"))
            };
            windows(s, (&a, &b), go).or_else(|| swapper(s, (&a, &b), 50, go))
        },
    );
}
