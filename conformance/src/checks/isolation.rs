//! config-linux.md on what the container sees: filesystems, masked and read-only paths, kernel
//! parameters, propagation, memory policy and personality.

#![forbid(unsafe_code)]

use std::fs;

use rustix::mount::MountFlags;
use serde_json::{Value, json};

use super::{Check, check};
use crate::case::{Bundle, Case, Facts, Why, expect, expect_eq, lacks, own, push};

pub fn checks() -> Vec<Check> {
    vec![
        check("default-filesystems", &["configLinuxDefaultFilesystems.1"], |case| {
            // Their magic numbers.
            let wanted =
                [("/proc", "9fa0"), ("/sys", "62656572"), ("/dev/pts", "1cd1"), ("/dev/shm", "1021994")];
            let operations = wanted.map(|(path, _)| format!("type:{path}"));
            let facts = case.facts(&operations.each_ref().map(String::as_str), default_filesystems)?;
            for ((path, want), operation) in wanted.iter().zip(&operations) {
                expect_eq(path, facts.done(operation), want)?;
            }
            Ok(())
        }),
        check("masked-paths", &["configLinuxMaskedPaths.masked"], |case| {
            let facts = with_paths(case, "maskedPaths", &["read:/dir/file", "list:/dir", "read:/file"])?;
            expect(facts.done("read:/dir/file") != "secret", "a file in a masked directory can be read")?;
            expect(
                ["", "errno 13"].contains(&facts.done("list:/dir")),
                format!("the directory lists {:?}", facts.done("list:/dir")),
            )?;
            let read = facts.done("read:/file");
            expect(read.is_empty() || read.starts_with("errno"), format!("the file reads {read:?}"))
        }),
        check("readonly-paths", &["configLinuxReadonlyPaths.readonly"], |case| {
            let operations =
                ["write:/dir/file", "write:/dir/new", "write:/file", "read:/file", "write:/other"];
            let facts = with_paths(case, "readonlyPaths", &operations)?;
            for operation in &operations[..3] {
                expect_eq(operation, facts.done(operation), "errno 30")?;
            }
            expect_eq("reading", facts.done("read:/file"), "secret")?;
            expect_eq("writing elsewhere", facts.done("write:/other"), "ok")
        }),
        check("sysctl", &["configLinuxSysctl.sysctl"], |case| {
            let wanted = [
                ("net.ipv4.ip_forward", "1"),
                ("net.ipv4.ip_default_ttl", "77"),
                ("kernel.msgmax", "16384"),
                ("fs.mqueue.msg_max", "11"),
            ];
            // Before Linux 6.7 those of an ipc namespace belong to root of the machine.
            let wanted = if case.machine().is_root() { &wanted[..] } else { &wanted[..2] };
            let operation = |(name, _): &(&str, &str)| format!("read:/proc/sys/{}", name.replace('.', "/"));
            let operations: Vec<_> = wanted.iter().map(operation).collect();
            let names: Vec<_> = operations.iter().map(String::as_str).collect();
            let facts = case.facts(&names, |config| {
                push(&mut config["linux"]["namespaces"], json!({"type": "network"}));
                config["linux"]["sysctl"] = wanted
                    .iter()
                    .map(|(name, value)| ((*name).to_owned(), json!(value)))
                    .collect::<serde_json::Map<_, _>>()
                    .into();
            })?;
            for ((name, want), operation) in wanted.iter().zip(&operations) {
                expect_eq(name, facts.done(operation), want)?;
            }
            Ok(())
        }),
        check("rootfs-shared", &["configLinuxRootfsMountPropagation.shared"], |case| {
            let (facts, host) = propagated(case, "shared")?;
            let root = facts.mount("/")?;
            let group = root.propagation.iter().find(|tag| tag.starts_with("shared:"));
            expect(
                group.is_some_and(|group| !host.contains(group)),
                format!("tags of the root {:?}, of the host's {host:?}", root.propagation),
            )
        }),
        check("rootfs-slave", &["configLinuxRootfsMountPropagation.slave"], |case| {
            let (facts, _) = propagated(case, "slave")?;
            let root = facts.mount("/")?;
            expect(
                root.is("master") && !root.is("shared"),
                format!("tags of the root {:?}", root.propagation),
            )?;
            expect(facts.0["late"] == true, "a mount of the host did not come in")
        }),
        check("rootfs-private", &["configLinuxRootfsMountPropagation.private"], |case| {
            let (facts, _) = propagated(case, "private")?;
            let root = facts.mount("/")?;
            expect(root.propagation.is_empty(), format!("tags of the root {:?}", root.propagation))?;
            expect(facts.0["late"] == false, "a mount of the host came in")
        }),
        check("rootfs-unbindable", &["configLinuxRootfsMountPropagation.unbindable"], |case| {
            let (facts, _) = propagated(case, "unbindable")?;
            let root = facts.mount("/")?;
            expect(root.is("unbindable"), format!("tags of the root {:?}", root.propagation))
        }),
        check("personality", &["configLinuxPersonality.domain"], |case| {
            if cfg!(not(target_pointer_width = "64")) {
                return lacks("a kernel of 64 bits");
            }
            let facts =
                case.facts(&[], |config| config["linux"]["personality"] = json!({"domain": "LINUX32"}))?;
            let domain = u32::from_str_radix(facts.proc("personality").trim(), 16).unwrap_or_default() & 0xff;
            expect(
                domain == 8,
                format!(
                    "personality {}, machine {}",
                    facts.proc("personality").trim(),
                    facts.text("/machine")
                ),
            )
        }),
        check("memory-policy", &["configLinuxMemoryPolicy.mode"], |case| {
            if !std::path::Path::new("/proc/self/numa_maps").exists() {
                return lacks("a kernel with NUMA");
            }
            let policies = [
                (json!({"mode": "MPOL_BIND", "nodes": "0"}), "bind:0"),
                (
                    json!({"mode": "MPOL_INTERLEAVE", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]}),
                    "interleave=static:0",
                ),
                (json!({"mode": "MPOL_LOCAL"}), "local"),
            ];
            for (policy, want) in policies {
                let facts = case.facts(&[], |config| config["linux"]["memoryPolicy"] = policy)?;
                let got = facts.proc("numa_maps").split_whitespace().nth(1).unwrap_or_default();
                expect_eq("the policy", got, want)?;
            }
            Ok(())
        }),
    ]
}

/// The filesystems that a program on Linux expects.
pub fn default_filesystems(config: &mut Value) {
    for (destination, kind, options) in [
        ("/sys", "sysfs", json!(["ro", "nosuid", "noexec", "nodev"])),
        ("/dev/pts", "devpts", json!(["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"])),
        ("/dev/shm", "tmpfs", json!(["nosuid", "noexec", "nodev", "mode=1777"])),
    ] {
        push(
            &mut config["mounts"],
            json!({"destination": destination, "type": kind, "source": kind, "options": options}),
        );
    }
    // Its owner is the only one who may mount a sysfs.
    push(&mut config["linux"]["namespaces"], json!({"type": "network"}));
}

/// A container in whose root a directory with a file, and a file, are under the property.
fn with_paths(case: &Case, property: &str, operations: &[&str]) -> Result<Facts, Why> {
    let args = [&["/probe", "probe", "facts"], operations].concat();
    let bundle: Bundle =
        case.bundle(&args, |config| config["linux"][property] = json!(["/dir", "/file", "/not-there"]))?;
    let dir = bundle.rootfs().join("dir");
    fs::create_dir(&dir).map_err(own(&dir))?;
    case.file(&dir.join("file"), "secret")?;
    case.file(&bundle.rootfs().join("file"), "secret")?;
    case.run(&bundle)
}

/// A container whose root is on a filesystem that is in a peer group, and the tags of that. `late`
/// tells whether a mount came in that was made in the root, from outside, after start.
fn propagated(case: &Case, propagation: &str) -> Result<(Facts, Vec<String>), Why> {
    let place = case.directory("shared")?;
    case.tmpfs(&place, MountFlags::empty())?;
    let root = place.join("rootfs");
    case.root(&root)?;
    let late = root.join("late");
    fs::create_dir(&late).map_err(own(&late))?;
    let bundle = case.bundle(&["/probe", "probe", "wait"], |config| {
        config["root"]["path"] = json!(root);
        config["linux"]["rootfsPropagation"] = json!(propagation);
    })?;
    let container = case.create(&bundle)?;
    container.started()?;
    let mut facts = container.facts()?;
    case.tmpfs(&late, MountFlags::empty())?;
    let pid = container.pid()?;
    let inside = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
    facts.0["late"] = json!(inside.contains(" /late "));
    let mounts = fs::read_to_string("/proc/self/mountinfo").map_err(own(&place))?;
    let host =
        crate::machine::mounts(&mounts).into_iter().rfind(|mount| mount.point == place.display().to_string());
    Ok((facts, host.map(|mount| mount.propagation).unwrap_or_default()))
}
