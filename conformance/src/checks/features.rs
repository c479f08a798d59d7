//! features.md and features-linux.md: that a runtime can do what it tells of itself.

#![forbid(unsafe_code)]

use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use super::process::{CAPABILITIES, bounding};
use super::{Check, check};
use crate::case::{Case, Facts, Shared, Verdict, Why, expect, expect_eq, lacks, own, push};

pub fn checks() -> Vec<Check> {
    vec![
        check("features-machine", &["features.2"], |case| {
            let first = sorted(features(case)?.0.clone());
            // A user who may do nothing, where there are no cgroups, no modules and no memory.
            let mut command = Command::new("unshare");
            command.args(["--user", "--mount", "--pid", "--fork"]).arg(&case.subject.runtime).arg("features");
            let Ok(out) = command.current_dir("/").output() else { return lacks("unshare of util-linux") };
            let second: Value = serde_json::from_slice(&out.stdout).unwrap_or(Value::Null);
            let second = sorted(second);
            expect(first == second, format!("features as nobody: {second}, as root: {first}"))
        }),
        check("features-min", &["featuresSpecificationVersion.1"], |case| {
            version(case, "ociVersionMin").map(drop)
        }),
        check("features-min-accepted", &["featuresSpecificationVersion.2"], |case| {
            accepted(case, "ociVersionMin")
        }),
        check("features-max", &["featuresSpecificationVersion.3"], |case| {
            version(case, "ociVersionMax").map(drop)
        }),
        check("features-max-accepted", &["featuresSpecificationVersion.4"], |case| {
            accepted(case, "ociVersionMax")
        }),
        check("features-min-max", &["featuresSpecificationVersion.5"], |case| {
            let (min, max) = (version(case, "ociVersionMin")?, version(case, "ociVersionMax")?);
            expect(numbers(&min) <= numbers(&max), format!("from {min} to {max}"))
        }),
        check("features-properties", &["featuresSpecificationVersion.6"], |case| {
            let mut unknown = Vec::new();
            strangers(&features(case)?.0, &known(), "", &mut unknown);
            expect(unknown.is_empty(), format!("not of the specification: {unknown:?}"))
        }),
        check("features-annotations", &["featuresAnnotations.2"], |case| {
            let annotations = features(case)?.0["annotations"].clone();
            let strings = annotations.as_object().is_some_and(|map| map.values().all(Value::is_string));
            expect(annotations.is_null() || strings, format!("got {annotations}"))
        }),
        check("features-hooks", &["featuresHooks.1"], |case| {
            let log = case.directory("log")?;
            let names = list(case, "/hooks")?;
            let bundle = case.bundle(&["/probe", "probe", "wait"], |config| {
                crate::case::bind(config, "/log", &log, &["bind"]);
                for name in &names {
                    let (program, log) = if name == "startContainer" {
                        ("/probe".to_owned(), "/log".to_owned())
                    } else {
                        (case.probe(), log.display().to_string())
                    };
                    config["hooks"][name] =
                        json!([{"path": program, "args": ["hook", "probe", "hook", log, name, "0"]}]);
                }
            })?;
            let container = case.create(&bundle)?;
            container.started()?;
            container.output.line()?;
            container.ended()?;
            container.deleted()?;
            let ran = fs::read_to_string(log.join("order")).unwrap_or_default();
            let silent: Vec<_> =
                names.iter().filter(|name| !ran.split(' ').any(|word| word == *name)).collect();
            expect(silent.is_empty(), format!("did not run: {silent:?}"))
        }),
        check("features-mount-options", &["featuresMountOptions.1"], mount_options),
        check("features-mount-data", &["featuresMountOptions.2"], |case| {
            let of_filesystems = [
                "size",
                "mode",
                "uid",
                "gid",
                "nr_inodes",
                "newinstance",
                "ptmxmode",
                "hidepid",
                "subset",
                "lowerdir",
                "upperdir",
                "workdir",
                "context",
            ];
            let told: Vec<_> = list(case, "/mountOptions")?
                .into_iter()
                .filter(|name| of_filesystems.contains(&name.as_str()))
                .collect();
            expect(told.is_empty(), format!("options of filesystems: {told:?}"))
        }),
        check("features-namespaces", &["linuxFeaturesNamespaces.1"], |case| {
            let names = list(case, "/linux/namespaces")?;
            each(&names, |name| {
                case.facts(&[], |config| {
                    let there = config["linux"]["namespaces"]
                        .as_array()
                        .is_some_and(|all| all.iter().any(|one| one["type"] == name));
                    match name {
                        "user" if case.machine().is_root() => super::namespaces::map(config, 100_000),
                        _ if there => {}
                        _ => push(&mut config["linux"]["namespaces"], json!({"type": name})),
                    }
                })
            })
        }),
        check("features-capabilities", &["linuxFeaturesCapabilities.1"], |case| {
            // What cannot be granted is not there whether it is known or not.
            let grantable =
                (0..).zip(CAPABILITIES.split_whitespace()).filter(|(bit, _)| bounding() >> bit & 1 == 1);
            let told = list(case, "/linux/capabilities")?;
            let names: Vec<_> = grantable.filter(|(_, name)| told.iter().any(|one| one == name)).collect();
            let want = names.iter().fold(0u64, |mask, (bit, _)| mask | 1 << bit);
            let names: Vec<_> = names.into_iter().map(|(_, name)| name).collect();
            let facts =
                case.facts(&[], |config| config["process"]["capabilities"] = json!({"bounding": names}))?;
            expect_eq("CapBnd", facts.status("CapBnd"), &format!("{want:016x}"))
        }),
        check("features-seccomp-actions", &["linuxFeaturesSeccomp.1"], |case| {
            // NOTIFY needs someone who listens, whom another check has.
            let names =
                list(case, "/linux/seccomp/actions")?.into_iter().filter(|name| name != "SCMP_ACT_NOTIFY");
            together(&names.collect::<Vec<_>>(), |names| {
                let entries =
                    names.iter().zip(RARE).map(|(name, call)| json!({"names": [call], "action": name}));
                let entries: Vec<_> = entries.collect();
                filtered(case, json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": entries}))
            })
        }),
        check("features-seccomp-operators", &["linuxFeaturesSeccomp.2"], |case| {
            together(&list(case, "/linux/seccomp/operators")?, |names| {
                let argument = |name| json!({"index": 0, "value": 1, "valueTwo": 1, "op": name});
                let entries = names.iter().zip(RARE).map(|(name, call)| {
                    json!({"names": [call], "action": "SCMP_ACT_ERRNO", "args": [argument(name)]})
                });
                filtered(
                    case,
                    json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": entries.collect::<Vec<_>>()}),
                )
            })
        }),
        check("features-seccomp-archs", &["linuxFeaturesSeccomp.3"], |case| {
            // A filter for machines of both byte orders, libseccomp cannot make.
            let big = [
                "MIPS",
                "MIPS64",
                "MIPS64N32",
                "PPC",
                "PPC64",
                "S390",
                "S390X",
                "PARISC",
                "PARISC64",
                "M68K",
                "SHEB",
            ];
            let is_big = |name: &str| big.iter().any(|big| name.strip_prefix("SCMP_ARCH_") == Some(big));
            let mut names = list(case, "/linux/seccomp/archs")?;
            names.retain(|name| is_big(name) == cfg!(target_endian = "big"));
            together(&names, |names| {
                let entries = json!([{"names": ["swapoff"], "action": "SCMP_ACT_ERRNO"}]);
                filtered(
                    case,
                    json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": names, "syscalls": entries}),
                )
            })
        }),
        check("features-seccomp-known-flags", &["linuxFeaturesSeccomp.4"], |case| {
            // One that is not supported may be refused, so that nothing tells whether it is known.
            let supported = list(case, "/linux/seccomp/supportedFlags")?;
            let known = list(case, "/linux/seccomp/knownFlags")?;
            let lost: Vec<_> = supported.iter().filter(|name| !known.contains(name)).collect();
            expect(lost.is_empty(), format!("supported and not known: {lost:?}"))?;
            flags(case, supported)
        }),
        check("features-seccomp-flags", &["linuxFeaturesSeccomp.5"], |case| {
            flags(case, list(case, "/linux/seccomp/supportedFlags")?)
        }),
        check("features-memory-modes", &["linuxFeaturesMemoryPolicy.1"], |case| {
            let mut modes = list(case, "/linux/memoryPolicy/modes")?;
            modes.retain(|name| name != "MPOL_WEIGHTED_INTERLEAVE" || case.machine().linux >= (6, 9));
            each(&modes, |name| {
                let nodes = if ["MPOL_DEFAULT", "MPOL_LOCAL"].contains(&name) { "" } else { "0" };
                case.facts(&[], |config| {
                    config["linux"]["memoryPolicy"] = json!({"mode": name, "nodes": nodes})
                })
            })
        }),
        check("features-memory-flags", &["linuxFeaturesMemoryPolicy.2"], |case| {
            each(&list(case, "/linux/memoryPolicy/flags")?, |name| {
                let policy = json!({"mode": "MPOL_BIND", "nodes": "0", "flags": [name]});
                case.facts(&[], |config| config["linux"]["memoryPolicy"] = policy)
            })
        }),
        check("features-idmap", &["linuxFeaturesMountExtensions.1"], |case| {
            let told = features(case)?.0.pointer("/linux/mountExtensions/idmap/enabled").cloned();
            let Some(told) = told else { return lacks("mountExtensions.idmap.enabled among the features") };
            let works = match super::mounts::idmapped(case, "idmap") {
                Ok(facts) => facts.done("stat:/m/file").ends_with("3000:3000"),
                Err(Why::Fails(_)) => false,
                lacks => return lacks.map(drop),
            };
            expect(told == works, format!("enabled is {told}, and a mount is mapped: {works}"))
        }),
    ]
}

/// What the runtime tells; it need not.
fn features(case: &Case) -> Shared {
    case.shared("features", |case| {
        let answer = case.invoke(&["features"])?;
        match serde_json::from_str(&answer.stdout) {
            Ok(features) if answer.ok() => Ok(Facts(features)),
            _ => lacks("a runtime that tells its features, which it may"),
        }
    })
}

/// A list among the features, which need not be there.
fn list(case: &Case, pointer: &str) -> Result<Vec<String>, Why> {
    let features = features(case)?;
    let Some(all) = features.0.pointer(pointer).and_then(Value::as_array) else {
        return lacks(format!("{} among the features", pointer.trim_start_matches('/').replace('/', ".")));
    };
    Ok(all.iter().filter_map(|name| Some(name.as_str()?.to_owned())).collect())
}

fn version(case: &Case, name: &str) -> Result<String, Why> {
    let version = features(case)?.0[name].clone();
    version
        .as_str()
        .filter(|text| numbers(text).len() == 3)
        .map(str::to_owned)
        .ok_or_else(|| Why::Fails(format!("{name} is {version}")))
}

/// The three numbers of a version, without what comes after them.
fn numbers(version: &str) -> Vec<u32> {
    version
        .split(['-', '+'])
        .next()
        .unwrap_or_default()
        .split('.')
        .filter_map(|number| number.parse().ok())
        .collect()
}

fn accepted(case: &Case, name: &str) -> Verdict {
    let version = version(case, name)?;
    case.facts(&[], |config| config["ociVersion"] = json!(version)).map(drop)
}

/// No element may fail; those that did are told.
fn each(names: &[String], try_one: impl Fn(&str) -> Result<Facts, Why>) -> Verdict {
    let failed: Vec<_> = names
        .iter()
        .filter_map(|name| match try_one(name) {
            Ok(_) => None,
            Err(Why::Fails(why) | Why::Lacks(why)) => Some(format!("{name}: {why}")),
        })
        .collect();
    expect(failed.is_empty(), failed.join("; "))
}

/// As [`each`], but they are tried at once first, which is faster and usually all that is needed.
fn together(names: &[String], try_all: impl Fn(&[&str]) -> Result<Facts, Why>) -> Verdict {
    let all: Vec<_> = names.iter().map(String::as_str).collect();
    if try_all(&all).is_ok() { Ok(()) } else { each(names, |name| try_all(&[name])) }
}

/// System calls that nothing here makes.
const RARE: &[&str] = &[
    "swapoff",
    "swapon",
    "acct",
    "reboot",
    "settimeofday",
    "quotactl",
    "init_module",
    "delete_module",
    "vhangup",
    "syslog",
];

fn filtered(case: &Case, seccomp: Value) -> Result<Facts, Why> {
    case.facts(&[], |config| config["linux"]["seccomp"] = seccomp)
}

fn flags(case: &Case, names: Vec<String>) -> Verdict {
    let mut failed = Vec::new();
    for name in names {
        let mut bundle = case.bundle(&["/probe"], |config| {
            let action = if name.ends_with("WAIT_KILLABLE_RECV") { "SCMP_ACT_NOTIFY" } else { "SCMP_ACT_ERRNO" };
            config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": [name], "syscalls": [{"names": ["swapoff"], "action": action}]});
        })?;
        // That flag needs someone who listens.
        let socket = case.dir.join(format!("s{}", case.number()));
        let listener = std::os::unix::net::UnixListener::bind(&socket).map_err(own(&socket))?;
        if name.ends_with("WAIT_KILLABLE_RECV") {
            bundle.config["linux"]["seccomp"]["listenerPath"] = json!(socket);
            bundle.write()?;
        }
        let (_container, answer) = case.attempt(&bundle)?;
        drop(listener);
        if !answer.ok() {
            failed.push(format!("{name}: {}", answer.stderr));
        }
    }
    expect(failed.is_empty(), failed.join("; "))
}

/// An option that the runtime does not know, tmpfs would refuse.
fn mount_options(case: &Case) -> Verdict {
    let source = case.directory("source")?;
    let mut names = list(case, "/mountOptions")?;
    // Who mounted the filesystem has to have been the one who maps it, and it may be a tmpfs.
    let maps = case.machine().is_root() && case.machine().linux >= (6, 3);
    names.retain(|name| maps || !name.ends_with("idmap"));
    together(&names, |names| {
        case.facts(&[], |config| {
            for name in names {
                let (at, mapped) = (format!("/m-{name}"), name.ends_with("idmap"));
                let mut mount =
                    json!({"destination": at, "type": "tmpfs", "source": "tmpfs", "options": [name]});
                if mapped || name.ends_with("bind") {
                    let options = if mapped { vec!["bind", name] } else { vec![*name] };
                    mount = json!({"destination": at, "source": source, "options": options});
                }
                if mapped {
                    let mappings = json!([{"containerID": 0, "hostID": 3000, "size": 10}]);
                    mount["uidMappings"] = mappings.clone();
                    mount["gidMappings"] = mappings;
                }
                if *name == "remount" {
                    push(
                        &mut config["mounts"],
                        json!({"destination": at, "type": "tmpfs", "source": "tmpfs"}),
                    );
                }
                push(&mut config["mounts"], mount);
            }
        })
    })
}

/// The order in a list says nothing.
fn sorted(value: Value) -> Value {
    match value {
        Value::Array(mut all) => {
            all.sort_by_key(Value::to_string);
            all.into()
        }
        Value::Object(map) => map
            .into_iter()
            .map(|(name, value)| (name, sorted(value)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
        other => other,
    }
}

/// The properties of the structure, down to where the names are the runtime's own.
fn known() -> Value {
    let enabled = json!({"enabled": null});
    json!({
        "ociVersionMin": null, "ociVersionMax": null, "hooks": null, "mountOptions": null, "annotations": null,
        "potentiallyUnsafeConfigAnnotations": null,
        "linux": {
            "namespaces": null, "capabilities": null,
            "cgroup": {"v1": null, "v2": null, "systemd": null, "systemdUser": null, "rdma": null},
            "seccomp": {"enabled": null, "actions": null, "operators": null, "archs": null, "knownFlags": null, "supportedFlags": null},
            "apparmor": enabled, "selinux": enabled, "netDevices": enabled,
            "memoryPolicy": {"modes": null, "flags": null},
            "intelRdt": {"enabled": null, "schemata": null, "monitoring": null},
            "mountExtensions": {"idmap": enabled},
        },
    })
}

fn strangers(have: &Value, known: &Value, place: &str, unknown: &mut Vec<String>) {
    let (Some(have), Some(known)) = (have.as_object(), known.as_object()) else { return };
    for (name, value) in have {
        match known.get(name) {
            Some(below) => strangers(value, below, &format!("{place}{name}."), unknown),
            None => unknown.push(format!("{place}{name}")),
        }
    }
}
