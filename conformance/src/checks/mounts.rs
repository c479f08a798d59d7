//! config.md on the root and the mounts.

#![forbid(unsafe_code)]

use std::fs;
use std::path::PathBuf;

use rustix::mount::MountFlags;
use serde_json::{Value, json};

use super::{Check, check};
use crate::case::{Case, Facts, Verdict, Why, bind, expect, expect_eq, if_supported, lacks, own, push};
use crate::clauses::Level;

pub fn checks() -> Vec<Check> {
    let mut all = vec![
        check("root-missing", &["configRoot.7"], |case| {
            case.refuses("a root that does not exist", |config| {
                config["root"]["path"] = json!("no-such-directory")
            })?;
            let bundle = case.bundle(&["/probe"], |config| config["root"]["path"] = json!("file"))?;
            case.file(&bundle.path.join("file"), "")?;
            case.refused("a root that is a file", &bundle)
        }),
        check("root-path", &["configRoot.path"], |case| {
            // The bundles so far had a relative one.
            let root = case.directory("elsewhere")?;
            case.root(&root)?;
            case.facts(&["write:/here"], |config| config["root"]["path"] = json!(root))?;
            expect(root.join("here").exists(), "an absolute path is not the root")
        }),
        check("root-readonly", &["configRoot.8"], |case| {
            for (readonly, want) in [(json!(true), "errno 30"), (json!(false), "ok"), (Value::Null, "ok")] {
                let facts = case.facts(&["write:/file"], |config| {
                    if !readonly.is_null() {
                        config["root"]["readonly"] = readonly.clone();
                    }
                })?;
                expect_eq(
                    &format!("writing with root.readonly {readonly}"),
                    facts.done("write:/file"),
                    want,
                )?;
            }
            Ok(())
        }),
        check("mounts-order", &["configMounts.1"], mounts_order),
        check("mounts-relative", &["configMounts.5"], |case| {
            let volume = case.directory("volume")?;
            case.facts(&["write:/to/volume/file"], |config| {
                config["process"]["cwd"] = json!("/proc");
                bind(config, "to/volume", &volume, &["bind"]);
            })?;
            expect(volume.join("file").exists(), "the mount is not at /to/volume")
        }),
        check("mounts-source", &["configMounts.source"], |case| {
            let bundle = case.bundle(&["/probe", "probe", "facts", "write:/to/file"], |config| {
                bind(config, "/to", &PathBuf::from("volume"), &["bind"]);
            })?;
            let volume = bundle.path.join("volume");
            fs::create_dir(&volume).map_err(own(&volume))?;
            case.run(&bundle)?;
            expect(volume.join("file").exists(), "a relative source is not below the bundle")
        }),
        check("mounts-file", &["configMounts.bind-file"], |case| {
            let file = case.dir.join("file");
            case.file(&file, "its text")?;
            let facts =
                case.facts(&["read:/to/file"], |config| bind(config, "/to/file", &file, &["bind"]))?;
            expect_eq("the file", facts.done("read:/to/file"), "its text")
        }),
        check("mounts-type", &["configMounts.type"], |case| {
            let facts = with_options(case, &[])?;
            expect_eq("filesystem", &facts.mount("/m")?.kind, "tmpfs")
        }),
        check("mount-contradictions", &["configLinuxMountOptions.79"], |case| {
            let mount = with_options(case, &["ro", "rw", "exec", "noexec", "nodev", "dev"])?.mount("/m")?;
            let last = !mount.has("ro") && mount.has("noexec") && !mount.has("nodev");
            expect(last, format!("not the last of two that contradict: {:?}", mount.options))
        }),
        check("mount-bind", &["configLinuxMountOptions.6"], |case| {
            let facts = bound(case, MountFlags::empty(), &["bind"])?;
            expect_eq("the source", facts.done("read:/m/here"), "above")?;
            expect(facts.done("read:/m/sub/here") != "below", "what is mounted below the source is there too")
        }),
        check("mount-rbind", &["configLinuxMountOptions.29"], |case| {
            let facts = bound(case, MountFlags::empty(), &["rbind"])?;
            expect_eq("the source", facts.done("read:/m/here"), "above")?;
            expect_eq("what is mounted below it", facts.done("read:/m/sub/here"), "below")
        }),
        check("mount-remount", &["configLinuxMountOptions.33"], |case| {
            let facts = case.facts(&[], |config| {
                for options in [json!(["rw"]), json!(["remount", "ro", "noexec"])] {
                    let mount =
                        json!({"destination": "/m", "type": "tmpfs", "source": "tmpfs", "options": options});
                    push(&mut config["mounts"], mount);
                }
            })?;
            let mount = facts.mount("/m")?;
            expect(mount.has("ro") && mount.has("noexec"), format!("not changed: {:?}", mount.options))?;
            let count = facts.proc("mountinfo").lines().filter(|line| line.contains(" /m ")).count();
            expect(count == 1, format!("{count} mounts instead of one"))
        }),
        check("mount-data", &["configLinuxMountOptions.82"], |case| {
            let mount = with_options(case, &["size=64k", "noexec", "mode=700"])?.mount("/m")?;
            let given = mount.has("size=64k") && mount.has("mode=700") && mount.has("noexec");
            expect(given, format!("size and mode are not those of the filesystem: {:?}", mount.options))
        }),
        check("mount-data-refused", &["configLinuxMountOptions.82"], |case| {
            // The filesystem itself knows that it has no such option.
            case.refuses("an option that tmpfs does not have", |config| {
                let options = ["conformance-no-such-option"];
                let mount =
                    json!({"destination": "/m", "type": "tmpfs", "source": "tmpfs", "options": options});
                push(&mut config["mounts"], mount);
            })
        }),
        check("idmap-supported", &["configLinuxMountOptions.63"], |case| idmapped(case, "idmap").map(drop)),
        check("idmap", &["configLinuxMountOptions.64", "configLinuxMountOptions.66"], |case| {
            idmap(case, "idmap")
        }),
        check("ridmap-supported", &["configLinuxMountOptions.71"], |case| idmapped(case, "ridmap").map(drop)),
        check("ridmap", &["configLinuxMountOptions.72", "configLinuxMountOptions.74"], |case| {
            idmap(case, "ridmap")
        }),
        check("idmap-of-container", &["configLinuxMountOptions.68"], |case| {
            idmap_of_container(case, "idmap")
        }),
        check("ridmap-of-container", &["configLinuxMountOptions.76"], |case| {
            idmap_of_container(case, "ridmap")
        }),
        check("idmap-without-mappings", &["configLinuxMountOptions.69"], |case| idmap_alone(case, "idmap")),
        check("ridmap-without-mappings", &["configLinuxMountOptions.77"], |case| idmap_alone(case, "ridmap")),
        check("mappings-uid-alone", &["configPOSIXMounts.3"], |case| half_mapped(case, "uidMappings")),
        check("mappings-gid-alone", &["configPOSIXMounts.6"], |case| half_mapped(case, "gidMappings")),
    ];
    // Of the table as a whole, too, every row is a part.
    let row = |clause| match crate::clauses::find(clause) {
        Some(found) if found.level() == Level::Should => [clause, "configLinuxMountOptions.2"],
        _ => [clause, "configLinuxMountOptions.1"],
    };
    let name = |option| format!("mount-{option}");
    all.extend(OF_FILESYSTEM.iter().map(|it| check(name(it.name), &row(it.clause), |case| it.holds(case))));
    all.extend(RECURSIVE.iter().map(|it| check(name(it.name), &row(it.clause), |case| it.holds(case))));
    all.extend(PROPAGATION.iter().map(|it| check(name(it.name), &row(it.clause), |case| it.holds(case))));
    all
}

/// An option of a new mount, and what the kernel then tells of it.
struct OfFilesystem {
    name: &'static str,
    clause: &'static str,
    given: &'static [&'static str],
    has: &'static [&'static str],
    lacks: &'static [&'static str],
}

const fn option(
    clause: &'static str,
    given: &'static [&'static str],
    has: &'static [&'static str],
    lacks: &'static [&'static str],
) -> OfFilesystem {
    OfFilesystem { name: given[given.len() - 1], clause, given, has, lacks }
}

const OF_FILESYSTEM: &[OfFilesystem] = &[
    option("configLinuxMountOptions.4", &["sync", "async"], &[], &["sync"]),
    option("configLinuxMountOptions.5", &["noatime", "atime"], &[], &["noatime"]),
    option(
        "configLinuxMountOptions.7",
        &["defaults"],
        &["rw", "relatime"],
        &["ro", "nosuid", "nodev", "noexec", "sync"],
    ),
    option("configLinuxMountOptions.8", &["nodev", "dev"], &[], &["nodev"]),
    option("configLinuxMountOptions.9", &["nodiratime", "diratime"], &[], &["nodiratime"]),
    option("configLinuxMountOptions.10", &["dirsync"], &["dirsync"], &[]),
    option("configLinuxMountOptions.11", &["noexec", "exec"], &[], &["noexec"]),
    option("configLinuxMountOptions.12", &["iversion"], &[], &[]),
    option("configLinuxMountOptions.13", &["lazytime"], &["lazytime"], &[]),
    option("configLinuxMountOptions.14", &["loud"], &[], &[]),
    option("configLinuxMountOptions.16", &["noatime"], &["noatime"], &[]),
    option("configLinuxMountOptions.17", &["nodev"], &["nodev"], &[]),
    option("configLinuxMountOptions.18", &["nodiratime"], &["nodiratime"], &[]),
    option("configLinuxMountOptions.19", &["noexec"], &["noexec"], &[]),
    option("configLinuxMountOptions.20", &["noiversion"], &[], &[]),
    option("configLinuxMountOptions.21", &["lazytime", "nolazytime"], &[], &["lazytime"]),
    option("configLinuxMountOptions.23", &["norelatime"], &[], &[]),
    option("configLinuxMountOptions.24", &["strictatime", "nostrictatime"], &["relatime"], &[]),
    option("configLinuxMountOptions.25", &["nosuid"], &["nosuid"], &[]),
    option("configLinuxMountOptions.26", &["nosymfollow"], &["nosymfollow"], &[]),
    option("configLinuxMountOptions.32", &["relatime"], &["relatime"], &[]),
    option("configLinuxMountOptions.42", &["ro"], &["ro"], &[]),
    option("configLinuxMountOptions.53", &["ro", "rw"], &["rw"], &["ro"]),
    option("configLinuxMountOptions.55", &["silent"], &[], &[]),
    option("configLinuxMountOptions.57", &["strictatime"], &[], &["relatime", "noatime"]),
    option("configLinuxMountOptions.58", &["nosuid", "suid"], &[], &["nosuid"]),
    option("configLinuxMountOptions.59", &["nosymfollow", "symfollow"], &[], &["nosymfollow"]),
    option("configLinuxMountOptions.60", &["sync"], &["sync"], &[]),
];

impl OfFilesystem {
    fn holds(&self, case: &Case) -> Verdict {
        let mount = with_options(case, self.given)?.mount("/m")?;
        let (given, options) = (self.given, &mount.options);
        for want in self.has {
            expect(mount.has(want), format!("given {given:?}, the mount lacks {want}: {options:?}"))?;
        }
        for unwanted in self.lacks {
            expect(!mount.has(unwanted), format!("given {given:?}, the mount has {unwanted}: {options:?}"))?;
        }
        Ok(())
    }
}

/// A container with a tmpfs on `/m` that has these options.
fn with_options(case: &Case, options: &[&str]) -> Result<Facts, Why> {
    case.facts(&[], |config| {
        let mount = json!({"destination": "/m", "type": "tmpfs", "source": "tmpfs", "options": options});
        push(&mut config["mounts"], mount);
    })
}

/// An option for a bind mount and every mount below it.
struct Recursive {
    name: &'static str,
    clause: &'static str,
    /// What the source has.
    source: MountFlags,
    has: &'static str,
    lacks: &'static [&'static str],
}

const fn recursive(
    name: &'static str,
    clause: &'static str,
    source: MountFlags,
    has: &'static str,
    lacks: &'static [&'static str],
) -> Recursive {
    Recursive { name, clause, source, has, lacks }
}

const NONE: MountFlags = MountFlags::empty();

const RECURSIVE: &[Recursive] = &[
    recursive("ratime", "configLinuxMountOptions.28", MountFlags::NOATIME, "", &["noatime"]),
    recursive("rdev", "configLinuxMountOptions.30", MountFlags::NODEV, "", &["nodev"]),
    recursive("rdiratime", "configLinuxMountOptions.31", MountFlags::NODIRATIME, "", &["nodiratime"]),
    recursive("rexec", "configLinuxMountOptions.34", MountFlags::NOEXEC, "", &["noexec"]),
    recursive("rnoatime", "configLinuxMountOptions.35", NONE, "noatime", &[]),
    recursive("rnodiratime", "configLinuxMountOptions.36", NONE, "nodiratime", &[]),
    recursive("rnoexec", "configLinuxMountOptions.37", NONE, "noexec", &[]),
    recursive("rnorelatime", "configLinuxMountOptions.38", NONE, "", &[]),
    recursive("rnostrictatime", "configLinuxMountOptions.39", MountFlags::STRICTATIME, "relatime", &[]),
    recursive("rnosuid", "configLinuxMountOptions.40", NONE, "nosuid", &[]),
    recursive("rnosymfollow", "configLinuxMountOptions.41", NONE, "nosymfollow", &[]),
    recursive("rrelatime", "configLinuxMountOptions.44", MountFlags::STRICTATIME, "relatime", &[]),
    recursive("rro", "configLinuxMountOptions.45", NONE, "ro", &[]),
    recursive("rrw", "configLinuxMountOptions.46", MountFlags::RDONLY, "", &["ro"]),
    recursive("rstrictatime", "configLinuxMountOptions.49", NONE, "", &["relatime", "noatime"]),
    recursive("rsuid", "configLinuxMountOptions.50", MountFlags::NOSUID, "", &["nosuid"]),
    recursive("rsymfollow", "configLinuxMountOptions.51", MountFlags::NOSYMFOLLOW, "", &["nosymfollow"]),
];

impl Recursive {
    fn holds(&self, case: &Case) -> Verdict {
        let facts = bound(case, self.source, &["rbind", self.name])?;
        for point in ["/m", "/m/sub"] {
            let mount = facts.mount(point)?;
            let has = |name: &&str| mount.has(name);
            let right = (self.has.is_empty() || mount.has(self.has)) && !self.lacks.iter().any(has);
            expect(right, format!("{point} has {:?}", mount.options))?;
        }
        Ok(())
    }
}

/// A container with a bind mount on `/m` of a directory that has a mount on `sub`, both with `flags`.
fn bound(case: &Case, flags: MountFlags, options: &[&str]) -> Result<Facts, Why> {
    let source = case.directory("source")?;
    case.tmpfs(&source, NONE)?;
    let sub = source.join("sub");
    fs::create_dir(&sub).map_err(own(&sub))?;
    case.tmpfs(&sub, NONE)?;
    case.file(&source.join("here"), "above")?;
    case.file(&sub.join("here"), "below")?;
    for at in [&sub, &source].into_iter().filter(|_| !flags.is_empty()) {
        rustix::mount::mount_remount(at, MountFlags::BIND | flags, "").map_err(|e| own(at)(e.into()))?;
    }
    case.facts(&["read:/m/here", "read:/m/sub/here"], |config| bind(config, "/m", &source, options))
}

/// An option of propagation, for a source that is in a peer group.
struct Propagation {
    name: &'static str,
    clause: &'static str,
    /// The tags that the mount has.
    tags: &'static [&'static str],
}

const PROPAGATION: &[Propagation] = &[
    Propagation { name: "private", clause: "configLinuxMountOptions.27", tags: &[] },
    Propagation { name: "rprivate", clause: "configLinuxMountOptions.43", tags: &[] },
    Propagation { name: "shared", clause: "configLinuxMountOptions.54", tags: &["shared"] },
    Propagation { name: "rshared", clause: "configLinuxMountOptions.47", tags: &["shared"] },
    Propagation { name: "slave", clause: "configLinuxMountOptions.56", tags: &["master"] },
    Propagation { name: "rslave", clause: "configLinuxMountOptions.48", tags: &["master"] },
    Propagation { name: "unbindable", clause: "configLinuxMountOptions.62", tags: &["unbindable"] },
    Propagation { name: "runbindable", clause: "configLinuxMountOptions.52", tags: &["unbindable"] },
];

impl Propagation {
    fn holds(&self, case: &Case) -> Verdict {
        // A parent in a peer group would make what is mounted below it a member too.
        let facts = bound(case, NONE, &["rbind", self.name])?;
        let points: &[&str] = if self.name.starts_with('r') { &["/m", "/m/sub"] } else { &["/m"] };
        for point in points {
            let mount = facts.mount(point)?;
            let right = ["shared", "master", "unbindable"].iter().all(|tag| {
                // A peer group may have a master all the same.
                mount.is(tag) == self.tags.contains(tag) || (*tag == "master" && self.tags == ["shared"])
            });
            expect(right, format!("{point}: tags {:?}, want {:?}", mount.propagation, self.tags))?;
        }
        Ok(())
    }
}

fn mounts_order(case: &Case) -> Verdict {
    let names = ["outer", "over", "inner"];
    let mut dirs = Vec::new();
    for name in names {
        let dir = case.directory(name)?;
        case.file(&dir.join("name"), name)?;
        fs::create_dir(dir.join("sub")).map_err(own(&dir))?;
        dirs.push(dir);
    }
    // The second covers the first, and the third is inside the second.
    let facts = case.facts(&["read:/m/name", "read:/m/sub/name"], |config| {
        for (dir, at) in dirs.iter().zip(["/m", "/m", "/m/sub"]) {
            bind(config, at, dir, &["bind"]);
        }
    })?;
    expect_eq("what is mounted on /m", facts.done("read:/m/name"), "over")?;
    expect_eq("what is mounted on /m/sub", facts.done("read:/m/sub/name"), "inner")
}

/// A container with a bind mount whose owner is 1000, mapped to 3000.
pub fn idmapped(case: &Case, option: &str) -> Result<Facts, Why> {
    let source = mapped_source(case)?;
    let kind = if option == "ridmap" { "rbind" } else { "bind" };
    case.facts(&["stat:/m/file", "stat:/m/sub/file"], |config| {
        let mappings = json!([{"containerID": 1000, "hostID": 3000, "size": 10}]);
        push(
            &mut config["mounts"],
            json!({
                "destination": "/m", "source": source, "options": [kind, option],
                "uidMappings": mappings, "gidMappings": mappings,
            }),
        );
    })
}

fn idmap(case: &Case, option: &str) -> Verdict {
    let facts = if_supported(option, idmapped(case, option))?;
    expect_eq("the file", facts.done("stat:/m/file"), "f 0:0 644 3000:3000")?;
    if option == "idmap" {
        return Ok(());
    }
    expect_eq("the file below", facts.done("stat:/m/sub/file"), "f 0:0 644 3000:3000")
}

/// A directory with a mount below it, and in both a file of user 1000.
fn mapped_source(case: &Case) -> Result<PathBuf, Why> {
    if case.machine().linux < (6, 3) {
        return lacks("Linux 6.3, which maps the owners of a tmpfs");
    }
    let source = case.directory("source")?;
    case.tmpfs(&source, NONE)?;
    let sub = source.join("sub");
    fs::create_dir(&sub).map_err(own(&sub))?;
    case.tmpfs(&sub, NONE)?;
    for file in [source.join("file"), sub.join("file")] {
        case.file(&file, "")?;
        std::os::unix::fs::chown(&file, Some(1000), Some(1000)).map_err(own(&file))?;
    }
    Ok(source)
}

/// Without mappings, those of the container or an error.
fn idmap_of_container(case: &Case, option: &str) -> Verdict {
    let source = mapped_source(case)?;
    let bundle = case.bundle(&["/probe", "probe", "facts", "stat:/m/file"], |config| {
        super::namespaces::map(config, 100_000);
        bind(config, "/m", &source, &["rbind", option]);
    })?;
    let (container, answer) = case.attempt(&bundle)?;
    if !answer.ok() {
        return Ok(());
    }
    container.started()?;
    expect_eq("the file", container.facts()?.done("stat:/m/file"), "f 0:0 644 1000:1000")
}

fn idmap_alone(case: &Case, option: &str) -> Verdict {
    let source = mapped_source(case)?;
    let what = format!("{option} without mappings and without a user namespace");
    case.refuses(&what, |config| bind(config, "/m", &source, &["rbind", option]))
}

fn half_mapped(case: &Case, which: &str) -> Verdict {
    let source = mapped_source(case)?;
    case.refuses(&format!("{which} alone"), |config| {
        let mut mount = json!({"destination": "/m", "source": source, "options": ["bind", "idmap"]});
        mount[which] = json!([{"containerID": 0, "hostID": 3000, "size": 10}]);
        push(&mut config["mounts"], mount);
    })
}
