//! The state of a container as others read it (runtime.md, "State").

#![forbid(unsafe_code)]

use crate::plan::Plan;
use crate::spec::write::writes;
use crate::state::{Record, Status};
use std::collections::BTreeMap;

/// What hooks and seccomp agents get: exactly the properties of the specification.
struct State<'a> {
    oci_version: &'a str,
    id: &'a str,
    status: &'a str,
    pid: Option<u32>,
    bundle: String,
    annotations: Option<&'a BTreeMap<String, String>>,
}

writes!(State<'a> {
    oci_version = "ociVersion",
    id = "id",
    status = "status",
    pid = "pid",
    bundle = "bundle",
    annotations = "annotations",
});

/// While the container is made, when there is no record yet.
pub fn of_plan(plan: &Plan, status: &str, pid: Option<u32>) -> Vec<u8> {
    encode(&State {
        oci_version: &plan.oci_version,
        id: &plan.id,
        status,
        pid,
        bundle: plan.bundle.display().to_string(),
        annotations: Some(&plan.annotations).filter(|list| !list.is_empty()),
    })
}

/// Of a container on record; `pid` is required by the specification unless it is stopped.
pub fn of_record(record: &Record, status: Status) -> Vec<u8> {
    encode(&of(record, status))
}

fn of(record: &Record, status: Status) -> State<'_> {
    State {
        oci_version: &record.oci_version,
        id: &record.id,
        status: status.name(),
        pid: (status != Status::Stopped).then_some(record.pid),
        bundle: record.bundle.clone(),
        annotations: Some(&record.annotations).filter(|list| !list.is_empty()),
    }
}

/// What a seccomp agent gets with the notification fd (config-linux.md, "containerProcessState").
pub fn for_listener(record: &Record, status: Status, pid: u32, metadata: &str) -> Vec<u8> {
    encode(&ListenerState {
        oci_version: &record.oci_version,
        fds: vec!["seccompFd"],
        pid,
        metadata: Some(metadata).filter(|text| !text.is_empty()),
        state: of(record, status),
    })
}

struct ListenerState<'a> {
    oci_version: &'a str,
    fds: Vec<&'static str>,
    pid: u32,
    metadata: Option<&'a str>,
    state: State<'a>,
}

writes!(ListenerState<'a> {
    oci_version = "ociVersion",
    fds = "fds",
    pid = "pid",
    metadata = "metadata",
    state = "state",
});

/// One container in `state` and `list --format json`: key for key what runc prints, as its callers decode it.
#[derive(Debug)]
pub struct Listed {
    oci_version: String,
    id: String,
    pid: u32,
    status: &'static str,
    bundle: String,
    rootfs: String,
    created: String,
    annotations: Option<BTreeMap<String, String>>,
    owner: String,
}

writes!(Listed {
    oci_version = "ociVersion",
    id = "id",
    pid = "pid",
    status = "status",
    bundle = "bundle",
    rootfs = "rootfs",
    created = "created",
    annotations = "annotations",
    owner = "owner",
});

impl Listed {
    /// Of a record.
    pub fn new(record: Record, status: Status, owner: String) -> Self {
        // A container whose create was killed has none; Go's zero time is what runc's callers expect then.
        let created = if record.created.is_empty() { "0001-01-01T00:00:00Z".into() } else { record.created };
        Self {
            oci_version: record.oci_version,
            id: record.id,
            pid: if status == Status::Stopped { 0 } else { record.pid },
            status: status.name(),
            bundle: record.bundle,
            rootfs: record.rootfs,
            created,
            annotations: Some(record.annotations).filter(|list| !list.is_empty()),
            owner,
        }
    }

    /// The columns of `list`.
    pub fn row(&self, owner: &str) -> [String; 6] {
        let Self { id, pid, status, bundle, created, .. } = self;
        [id.clone(), pid.to_string(), (*status).to_owned(), bundle.clone(), created.clone(), owner.to_owned()]
    }
}

fn encode(value: &impl serde::Serialize) -> Vec<u8> {
    // Maps with string keys and plain values always encode.
    serde_json::to_vec(value).unwrap_or_default()
}
