//! config-linux.md: namespaces and default devices.

#![forbid(unsafe_code)]

use std::fs;

use serde_json::{Value, json};

use super::Check;
use crate::case::{Case, Verdict, Why, expect, expect_eq};

pub const CHECKS: &[Check] = &[
    Check {
        name: "namespaces-duplicate",
        clause: "config-linux.md#configLinuxNamespaces",
        says: "two namespaces of one type are an error",
        run: |case| {
            let bundle = case.bundle("", |config| add(config, json!({"type": "uts"})))?;
            case.refused("the uts namespace twice", &bundle)
        },
    },
    Check {
        name: "namespaces-path-type",
        clause: "config-linux.md#configLinuxNamespaces",
        says: "a path to a namespace of another type is an error",
        run: |case| {
            let wrong = json!({"type": "network", "path": "/proc/self/ns/uts"});
            case.refused("a uts namespace as network", &case.bundle("", |config| add(config, wrong))?)
        },
    },
    Check {
        name: "namespaces-unknown",
        clause: "config.md#configExtensibility",
        says: "a value that is not valid, here a type of namespace, is an error",
        run: |case| {
            let bundle = case.bundle("", |config| add(config, json!({"type": "no-such-type"})))?;
            case.refused("the namespace type \"no-such-type\"", &bundle)
        },
    },
    Check {
        name: "namespaces-inherited",
        clause: "config-linux.md#configLinuxNamespaces",
        says: "a type that is listed gives a new namespace, one that is not the runtime's own",
        run: namespaces_inherited,
    },
    Check {
        name: "namespaces-joined",
        clause: "config-linux.md#configLinuxNamespaces",
        says: "with a path the process is in that namespace",
        run: namespaces_joined,
    },
    Check {
        name: "default-devices",
        clause: "config-linux.md#configLinuxDefaultDevices",
        says: "null, zero, full, random, urandom and tty are there without being listed",
        run: default_devices,
    },
];

fn add(config: &mut Value, namespace: Value) {
    if let Some(namespaces) = config["linux"]["namespaces"].as_array_mut() {
        namespaces.push(namespace);
    }
}

fn own_namespace(kind: &str) -> Result<String, Why> {
    let link = fs::read_link(format!("/proc/self/ns/{kind}"))
        .map_err(|e| Why::Lacks(format!("/proc/self/ns/{kind}: {e}")))?;
    Ok(link.display().to_string())
}

fn namespaces_inherited(case: &Case) -> Verdict {
    let got = case.prints("readlink /proc/self/ns/net; readlink /proc/self/ns/uts", |_| {})?;
    let (net, uts) = got.split_once('\n').unwrap_or_default();
    expect_eq("network namespace, not listed", net, &own_namespace("net")?)?;
    expect(uts.starts_with("uts:") && uts != own_namespace("uts")?, format!("uts namespace, listed: {uts}"))
}

fn namespaces_joined(case: &Case) -> Verdict {
    let first =
        case.create(&case.bundle("exec sleep 1000", |config| config["hostname"] = json!("the-first"))?)?;
    let path = format!("/proc/{}/ns/uts", first.state()?["pid"]);
    let want = fs::read_link(&path).map_err(|e| Why::Fails(format!("{path}: {e}")))?;
    let got = case.prints("readlink /proc/self/ns/uts; hostname", |config| {
        config["linux"]["namespaces"] =
            json!([{"type": "pid"}, {"type": "mount"}, {"type": "uts", "path": path}]);
    })?;
    expect_eq("uts namespace and hostname", &got, &format!("{}\nthe-first", want.display()))
}

fn default_devices(case: &Case) -> Verdict {
    // stat tells device numbers in hexadecimal.
    let wanted = ["null 1:3", "zero 1:5", "full 1:7", "random 1:8", "urandom 1:9", "tty 5:0"];
    let got = case.prints(
        "for d in null zero full random urandom tty; do stat -c \"$d %t:%T %F\" /dev/$d 2>&1; done",
        |_| {},
    )?;
    let want = wanted.map(|device| format!("{device} character special file")).join("\n");
    expect_eq("devices", &got, &want)
}
