//! state.json. An input that begins with a brace is the text of the file, as somebody may have left it; another one is
//! a record to be written, read back, and torn.

#![forbid(unsafe_code)]

use super::bytes::Bytes;
use super::report;
use rrun::mount_namespace::SharedMounts;
use rrun::oci_state;
use rrun::spec::read::document;
use rrun::state::{CgroupPath, Record, Status};

pub fn check(data: &[u8]) {
    if data.first() == Some(&b'{') {
        if let Err(text) = document::<Record>(data) {
            report::one_line(&rrun::error::OneLine(&text).to_string(), data.len());
        }
        let record = Record::parse(data, "fuzzed");
        assert!(!record.phase.is_empty());
        comes_back(&record);
    } else {
        let record = record(&mut Bytes(data));
        comes_back(&record);
    }
}

/// What is written is read back the same, and what was cut off on the way counts as nothing.
fn comes_back(record: &Record) {
    let text = record.encode().unwrap();
    assert_eq!(&Record::parse(&text, "other"), record);
    let intent = Record { phase: "creating".into(), id: "other".into(), ..Record::default() };
    for end in [text.len() - 1, text.len() / 2, text.len() / 3, 0] {
        assert_eq!(Record::parse(&text[..end], "other"), intent);
    }
    told(record);
}

/// What callers, hooks and agents are told of it is JSON with the same values.
fn told(record: &Record) {
    for status in [Status::Creating, Status::Created, Status::Running, Status::Paused, Status::Stopped] {
        let value: serde_json::Value = serde_json::from_slice(&oci_state::of_record(record, status)).unwrap();
        assert_eq!(value["id"], record.id.as_str());
        assert_eq!(value["status"], status.name());
        assert_eq!(value["bundle"], record.bundle.as_str());
        let pid = (status != Status::Stopped).then_some(record.pid);
        assert_eq!(value.get("pid").and_then(serde_json::Value::as_u64), pid.map(u64::from));
        let annotations = value.get("annotations").and_then(serde_json::Value::as_object);
        assert_eq!(annotations.map_or(0, |list| list.len()), record.annotations.len());
        for (key, text) in &record.annotations {
            assert_eq!(value["annotations"][key], text.as_str());
        }
        let seen: serde_json::Value =
            serde_json::from_slice(&oci_state::for_listener(record, status, 7, &record.unit)).unwrap();
        assert_eq!((&seen["state"], &seen["pid"]), (&value, &7.into()));
    }
}

fn record(bytes: &mut Bytes<'_>) -> Record {
    let phase = bytes.of(&["creating", "restoring", "created", "else"]).to_owned();
    let list = |bytes: &mut Bytes<'_>| usize::from(bytes.byte() % 4);
    Record {
        phase,
        oci_version: bytes.text(),
        id: bytes.text(),
        pid: bytes.u32(),
        start_time: bytes.u64(),
        boot_id: bytes.text(),
        bundle: bytes.text(),
        rootfs: bytes.text(),
        created: bytes.text(),
        owner: bytes.u32(),
        annotations: (0..list(bytes)).map(|_| (bytes.text(), bytes.text())).collect(),
        cgroups: (0..list(bytes))
            .map(|_| CgroupPath { controllers: bytes.text(), path: bytes.text() })
            .collect(),
        cgroup_driver: bytes.text(),
        unit: bytes.text(),
        user_unit: bytes.byte() & 1 != 0,
        rootless: bytes.byte() & 1 != 0,
        rdt: (0..list(bytes)).map(|_| bytes.text()).collect(),
        shared_mounts: (bytes.byte() & 1 != 0).then(|| SharedMounts {
            namespace: bytes.text(),
            inode: bytes.u64(),
            root: bytes.text(),
            below: bytes.u64(),
        }),
    }
}
