//! What the runtime does on the host for a container: hooks, its state, sockets, the pid file, joined namespaces.

use crate::harness::{chmod, script};
use crate::race::windows_on_host;
use crate::scene::{Control::*, Scene, attack};
use serde_json::json;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

/// A hook that writes down its environment and directory.
fn noting_hook(s: &Scene) -> (std::path::PathBuf, std::path::PathBuf) {
    let (hook, noted) = (s.t.dir.join("hook"), s.t.dir.join("noted"));
    script(&hook, &format!("#!/bin/sh\n(env; pwd) >>{}\n", noted.display()));
    (hook, noted)
}

/// NVIDIA's container toolkit: a hook of the host's ran with the image's LD_PRELOAD in the image's directory.
#[test]
fn cve_2025_23266_environment_of_hooks() {
    attack("CVE-2025-23266", "hooks get the environment of the image's process", &[Weak("hookenv")], |s| {
        let (hook, noted) = noting_hook(s);
        let hooks = json!([{ "path": hook }]);
        s.edit(|c| {
            c["process"]["env"].as_array_mut().unwrap().push(json!("LD_PRELOAD=/proc/self/cwd/evil.so"));
            c["hooks"] = json!({ "prestart": hooks, "createRuntime": hooks, "createContainer": hooks,
                "poststart": hooks, "poststop": hooks });
        });
        s.run("true");
        s.end();
        let text = fs::read_to_string(noted).unwrap();
        // Those of createContainer begin in the root filesystem, as runc's do: what they are given must not be the image's.
        let inside = text.lines().filter(|l| Path::new(l).starts_with(&s.t.rootfs)).count();
        let bad = text.lines().find(|l| l.contains("evil.so")).map(|line| format!("a hook ran with {line}"));
        bad.or_else(|| (inside > 1).then(|| format!("{inside} hooks began in the root filesystem")))
    });
}

/// crun's, with a helper of passt's: a program of the host's is looked up where the image's is found. Here the names
/// are those of hooks, which are the host's until the root is changed.
#[test]
fn cve_2026_84042_helper_from_the_image() {
    attack("CVE-2026-84042", "a program of the host's is looked up in the image", &[Weak("helper")], |s| {
        let (hook, noted) = (s.t.dir.join("hook"), s.t.dir.join("noted"));
        script(&hook, "#!/bin/sh\n");
        // The same path in the image.
        let evil = s.t.rootfs.join(hook.strip_prefix("/").unwrap());
        fs::create_dir_all(evil.parent().unwrap()).unwrap();
        script(
            &evil,
            &format!("#!/bin/sh\necho the program of the image ran on the host >{}\n", noted.display()),
        );
        let hooks = json!([{ "path": hook }]);
        s.edit(|c| {
            c["hooks"] = json!({ "prestart": hooks, "createRuntime": hooks, "createContainer": hooks,
                "poststart": hooks, "poststop": hooks });
        });
        s.run("true");
        s.end();
        fs::read_to_string(noted).ok().map(|text| text.trim().to_owned())
    });
}

/// containerd's: a socket without a path is reached from every container with the host's network.
#[test]
fn cve_2020_15257_abstract_sockets() {
    attack("CVE-2020-15257", "a socket in the abstract namespace", &[Weak("abstract")], |s| {
        let sockets = || {
            let text = fs::read_to_string("/proc/net/unix").unwrap();
            let all = text.lines().filter_map(|l| l.split_once('@').map(|(_, name)| name.to_owned()));
            all.filter(|name| name.contains("rrun") || name.contains(&s.t.id)).collect::<Vec<_>>()
        };
        s.edit(|c| c["linux"]["namespaces"].as_array_mut().unwrap().retain(|n| n["type"] != "network"));
        s.edit(|c| c["mounts"].as_array_mut().unwrap().retain(|m| m["type"] != "sysfs"));
        s.t.sh("exec sleep 1000").create();
        let created = sockets();
        s.t.start();
        created.into_iter().chain(sockets()).next().map(|name| format!("@{name}"))
    });
}

/// containerd's: what is kept of a container can be read by the host's other users.
#[test]
fn cve_2021_41103_modes_of_the_state() {
    attack("CVE-2021-41103", "other users read the state", &[Weak("modes")], |s| {
        s.t.sh("exec sleep 1000").create();
        for dir in [s.t.dir.parent().unwrap(), &s.t.dir] {
            chmod(dir, 0o755);
        }
        // Reads what can be read, and speaks to the socket that lets the container start.
        let look = format!(
            "ls {0} 2>/dev/null; find {0} -type f -exec cat {{}} + 2>/dev/null; find {0} -writable 2>/dev/null; \
             for s in {0}/{1}/*.sock {0}/{1}/start.sock; do [ -w $s ] && echo $s; done",
            s.t.state.display(),
            s.t.id
        );
        let ids = ["--reuid", "65534", "--regid", "65534", "--clear-groups", "sh", "-c", look.as_str()];
        let out = std::process::Command::new("setpriv").args(ids).output().unwrap();
        let text = String::from_utf8_lossy(&out.stdout).trim().to_owned();
        (!text.is_empty()).then(|| format!("another user sees {}", text.lines().next().unwrap_or_default()))
    });
}

/// The namespace that was looked at is the one that is joined, though its path leads elsewhere meanwhile: a parameter
/// of the network is refused for the host's.
#[test]
fn residual_joined_namespace_swapped() {
    attack(
        "residual: joined namespace swapped",
        "the path of a joined namespace is exchanged",
        &[Weak("reopen")],
        |s| {
            let mut holder =
                std::process::Command::new("unshare").args(["-n", "sleep", "600"]).spawn().unwrap();
            let namespace = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
            let own = namespace(std::process::id());
            crate::harness::wait_for("the namespace", crate::harness::SECONDS_5, || {
                (namespace(holder.id()) != own).then_some(())
            });
            let (good, bad) = (s.t.dir.join("good"), s.t.dir.join("bad"));
            symlink(format!("/proc/{}/ns/net", holder.id()), &good).unwrap();
            symlink(format!("/proc/{}/ns/net", std::process::id()), &bad).unwrap();
            // What it is already, as the control does write it.
            let value = fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap();
            s.edit(|c| {
                let namespaces = c["linux"]["namespaces"].as_array_mut().unwrap();
                namespaces.retain(|n| n["type"] != "network");
                namespaces.push(json!({ "type": "network", "path": good }));
                c["linux"]["sysctl"] = json!({ "net.ipv4.ip_forward": value.trim() });
                c["mounts"].as_array_mut().unwrap().retain(|m| m["type"] != "sysfs");
            });
            let host = own.to_str().unwrap();
            let evidence = windows_on_host(s, (&good, &bad), |s| {
                let inside = s.run("readlink /proc/self/ns/net").stdout();
                inside.contains(host).then(|| "a parameter was written to the host's network".to_owned())
            });
            holder.kill().unwrap();
            holder.wait().unwrap();
            evidence
        },
    );
}

/// A pid file in a directory that others write to is a link there.
#[test]
fn residual_pid_file_is_a_link() {
    attack("residual: pid file is a link", "the pid file is a link", &[Weak("pidfile")], |s| {
        let file = s.t.dir.join("pid");
        symlink(s.canary.victim(), &file).unwrap();
        s.t.sh("true");
        s.t.bundle_command("create", &["--pid-file", file.to_str().unwrap()]).go();
        s.canary.changed()
    });
}

/// Whoever may write to `--root` makes the runtime kill, enter and remove what he likes.
#[test]
fn residual_state_of_another_user() {
    attack(
        "residual: --root is another's",
        "others may write to the directory of states",
        &[Weak("rootdir")],
        |s| {
            fs::create_dir(&s.t.state).unwrap();
            let taken = |s: &Scene, how: &str| {
                let out = s.run("true");
                s.end();
                (out.code == Some(0)).then(|| format!("--root is taken though {how}"))
            };
            chmod(&s.t.state, 0o777);
            let evidence = taken(s, "everybody writes there");
            chmod(&s.t.state, 0o755);
            let evidence = evidence.or_else(|| {
                std::os::unix::fs::chown(&s.t.state, Some(65534), None).unwrap();
                taken(s, "it is another user's")
            });
            std::os::unix::fs::chown(&s.t.state, Some(0), None).unwrap();
            evidence
        },
    );
}

/// An image with an odd PATH has its program looked up on the host, where the runtime or the bundle is.
#[test]
fn residual_program_looked_up_on_the_host() {
    attack(
        "residual: program looked up on the host",
        "PATH has empty and relative parts",
        &[Weak("lookup")],
        |s| {
            // Where the runtime is started, and what the container's directory is called.
            let dir = s.t.dir.clone();
            for at in [dir.join("hostname"), dir.join("bin2/hostname")] {
                fs::create_dir_all(at.parent().unwrap()).unwrap();
                fs::copy(s.t.rootfs.join("bin/busybox"), at).unwrap();
            }
            for path in ["", ":", ".", "bin2", "./bin2:", "../../../../..", dir.to_str().unwrap()] {
                s.edit(|c| {
                    c["process"]["cwd"] = json!(dir);
                    c["process"]["env"] = json!([format!("PATH={path}")]);
                    c["process"]["args"] = json!(["hostname"]);
                });
                let out = s.t.run();
                if out.code == Some(0) {
                    return Some(format!(
                        "PATH={path} ran the host's program, which says {}",
                        out.stdout().trim()
                    ));
                }
            }
            None
        },
    );
}
