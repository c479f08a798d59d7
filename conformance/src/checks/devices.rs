//! config-linux.md on devices and the list of allowed ones.

#![forbid(unsafe_code)]

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use serde_json::json;

use super::{Check, check};
use crate::case::{Case, Shared, Verdict, expect, expect_eq, own};

pub fn checks() -> Vec<Check> {
    vec![
        check("devices-default", &["configLinuxDefaultDevices.1"], default_devices),
        check("devices-listed", &["configLinuxDevices.1"], |case| {
            let facts = listed(case)?;
            for (path, want) in [
                ("/dev/fuse", "c 10:229 "),
                ("/dev/loop", "b 7:0 "),
                ("/dev/pipe", "p 0:0 "),
                ("/dev/unbuffered", "c 1:11 "),
            ] {
                let got = facts.done(&format!("stat:{path}"));
                expect(got.starts_with(want), format!("{path}: got {got:?}, want {want:?}"))?;
            }
            Ok(())
        }),
        check("devices-elsewhere", &["configLinuxDevices.6"], |case| {
            case.machine().needs_root()?;
            let facts = case.facts(&["stat:/over/there"], |config| {
                config["linux"]["devices"] =
                    json!([{"path": "/over/there", "type": "c", "major": 10, "minor": 229}]);
            })?;
            let got = facts.done("stat:/over/there");
            expect(got.starts_with("c 10:229 "), format!("/over/there: {got:?}"))
        }),
        check("devices-mode", &["configLinuxDevices.fileMode"], |case| owned(case, 2, "640")),
        check("devices-uid", &["configLinuxDevices.uid"], |case| owned(case, 3, "5")),
        check("devices-gid", &["configLinuxDevices.gid"], |case| owned(case, 4, "6")),
        check("devices-conflict", &["configLinuxDevices.5"], |case| {
            case.machine().needs_root()?;
            let bundle = case.bundle(&["/probe", "probe", "facts", "stat:/conflict"], |config| {
                config["linux"]["devices"] =
                    json!([{"path": "/conflict", "type": "c", "major": 10, "minor": 229}]);
            })?;
            case.file(&bundle.rootfs().join("conflict"), "text")?;
            case.refused("a device where there is a file", &bundle)
        }),
        check("device-rules-order", &["configLinuxDeviceAllowedlist.1"], |case| {
            let (all, one) = (
                json!({"type": "a", "access": "rwm"}),
                json!({"type": "c", "major": 10, "minor": 229, "access": "rwm"}),
            );
            let rule = |rule: &serde_json::Value, allow: bool| {
                let mut rule = rule.clone();
                rule["allow"] = json!(allow);
                rule
            };
            let orders = [
                (vec![rule(&all, false), rule(&one, true)], true),
                (vec![rule(&one, true), rule(&all, false)], false),
                (vec![rule(&all, false), rule(&one, true), rule(&one, false)], false),
            ];
            for (rules, allowed) in orders {
                let what = json!(rules).to_string();
                let got = opened(case, rules, "open")?;
                expect((got != "errno 1") == allowed, format!("{what}: opening gives {got}"))?;
            }
            Ok(())
        }),
        check("device-rules-access", &["configLinuxDeviceAllowedlist.access"], |case| {
            let rules = vec![
                json!({"allow": false, "access": "rwm"}),
                json!({"allow": true, "type": "c", "major": 10, "minor": 229, "access": "r"}),
            ];
            let read = opened(case, rules.clone(), "open")?;
            expect(read != "errno 1", format!("reading is not allowed: {read}"))?;
            expect_eq("writing", &opened(case, rules, "openw")?, "errno 1")
        }),
    ]
}

fn default_devices(case: &Case) -> Verdict {
    let wanted = ["null 1:3", "zero 1:5", "full 1:7", "random 1:8", "urandom 1:9", "tty 5:0"];
    let pairs = wanted.map(|device| device.split_once(' ').unwrap_or_default());
    let mut operations = pairs.map(|(name, _)| format!("stat:/dev/{name}")).to_vec();
    operations.extend(["link:/dev/ptmx".to_owned(), "stat:/dev/ptmx".to_owned()]);
    let operations: Vec<_> = operations.iter().map(String::as_str).collect();
    let facts = case.facts(&operations, super::isolation::default_filesystems)?;
    for ((name, number), operation) in pairs.iter().zip(&operations) {
        let got = facts.done(operation);
        expect(
            got.starts_with(&format!("c {number} 666 ")),
            format!("/dev/{name}: {got}, want c {number} 666"),
        )?;
    }
    let (link, node) = (facts.done("link:/dev/ptmx"), facts.done("stat:/dev/ptmx"));
    let right = ["pts/ptmx", "/dev/pts/ptmx"].contains(&link) || node.starts_with("c 5:2 ");
    expect(right, format!("/dev/ptmx: {node}, {link}"))
}

fn listed(case: &Case) -> Shared {
    case.machine().needs_root()?;
    case.shared("devices", |case| {
        let operations = ["stat:/dev/fuse", "stat:/dev/loop", "stat:/dev/pipe", "stat:/dev/unbuffered"];
        case.facts(&operations, |config| {
            config["linux"]["devices"] = json!([
                {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o640, "uid": 5, "gid": 6},
                {"path": "/dev/loop", "type": "b", "major": 7, "minor": 0},
                {"path": "/dev/pipe", "type": "p"},
                {"path": "/dev/unbuffered", "type": "u", "major": 1, "minor": 11},
            ]);
        })
    })
}

/// A part of what is told of the one device whose mode and owners are configured.
fn owned(case: &Case, part: usize, want: &str) -> Verdict {
    let facts = listed(case)?;
    let got = facts.done("stat:/dev/fuse");
    let parts: Vec<_> = got.split([' ', ':']).collect();
    expect(parts.get(part + 1) == Some(&want), format!("got {got:?}, want {want}"))
}

/// What comes of opening a device that is in the root already, under these rules. Whatever the
/// device's driver says, only the rules say EPERM.
fn opened(case: &Case, rules: Vec<serde_json::Value>, how: &str) -> Result<String, crate::case::Why> {
    case.machine().needs_root()?;
    let operation = format!("{how}:/node");
    let bundle = case.bundle(&["/probe", "probe", "facts", &operation], |config| {
        config["linux"]["resources"] = json!({"devices": rules});
    })?;
    let node = bundle.rootfs().join("node");
    let mode = Mode::from_raw_mode(0o666);
    mknodat(CWD, &node, FileType::CharacterDevice, mode, makedev(10, 229))
        .map_err(|e| own(&node)(e.into()))?;
    Ok(case.run(&bundle)?.done(&operation).to_owned())
}
