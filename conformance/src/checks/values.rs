//! Values that are invalid, or that no runtime supports: each has to be an error.

#![forbid(unsafe_code)]

use serde_json::{Value, json};

use super::{Check, check};
use crate::case::Verdict;
use crate::case::{Case, Why, push};

const ANY: &str = "valid-values.1";

/// A place in the configuration, by its JSON pointer, what is put there, and the clauses that make it
/// invalid. A pointer that ends in `-` adds to an array.
struct Invalid(&'static str, &'static str, &'static str, fn() -> Value);

const INVALID: &[Invalid] = &[
    Invalid("cwd-relative", "configProcess.6", "/process/cwd", || json!("proc")),
    Invalid("version-no-semver", "configSpecificationVersion.2", "/ociVersion", || json!("one.two")),
    Invalid("version-unsupported", ANY, "/ociVersion", || json!("99.0.0")),
    Invalid("args-type", ANY, "/process/args", || json!("probe")),
    Invalid("uid-negative", ANY, "/process/user/uid", || json!(-1)),
    Invalid("uid-type", ANY, "/process/user/uid", || json!("0")),
    Invalid("oom-score-range", ANY, "/process/oomScoreAdj", || json!(5000)),
    Invalid("rlimit-type", ANY, "/process/rlimits", || json!([{"type": 7, "soft": 1, "hard": 1}])),
    Invalid(
        "rlimit-soft-above-hard",
        ANY,
        "/process/rlimits",
        || json!([{"type": "RLIMIT_NOFILE", "soft": 20, "hard": 10}]),
    ),
    Invalid("scheduler-policy", ANY, "/process/scheduler", || json!({"policy": "SCHED_NOTHING"})),
    Invalid("scheduler-nice", ANY, "/process/scheduler", || json!({"policy": "SCHED_OTHER", "nice": 99})),
    Invalid(
        "scheduler-flag",
        ANY,
        "/process/scheduler",
        || json!({"policy": "SCHED_OTHER", "flags": ["SCHED_FLAG_NOTHING"]}),
    ),
    Invalid(
        "io-priority-class",
        ANY,
        "/process/ioPriority",
        || json!({"class": "IOPRIO_CLASS_NOTHING", "priority": 0}),
    ),
    Invalid(
        "io-priority-range",
        ANY,
        "/process/ioPriority",
        || json!({"class": "IOPRIO_CLASS_BE", "priority": 9}),
    ),
    Invalid(
        "mount-destination-type",
        ANY,
        "/mounts/-",
        || json!({"destination": 7, "type": "tmpfs", "source": "tmpfs"}),
    ),
    Invalid("namespace-type", ANY, "/linux/namespaces/-", || json!({"type": "no-such-type"})),
    Invalid(
        "namespace-path-relative",
        "configLinuxNamespaces.3",
        "/linux/namespaces/-",
        || json!({"type": "network", "path": "proc/self/ns/net"}),
    ),
    Invalid(
        "namespace-path-missing",
        ANY,
        "/linux/namespaces/-",
        || json!({"type": "network", "path": "/no/such/namespace"}),
    ),
    Invalid(
        "device-type",
        ANY,
        "/linux/devices",
        || json!([{"path": "/dev/x", "type": "z", "major": 1, "minor": 3}]),
    ),
    Invalid("rootfs-propagation", ANY, "/linux/rootfsPropagation", || json!("no-such-propagation")),
    Invalid("personality-domain", ANY, "/linux/personality", || json!({"domain": "NO_SUCH_DOMAIN"})),
    Invalid("masked-path-relative", "configLinuxMaskedPaths.1", "/linux/maskedPaths", || {
        json!(["proc/kcore"])
    }),
    Invalid("readonly-path-relative", "configLinuxReadonlyPaths.1", "/linux/readonlyPaths", || {
        json!(["proc/sys"])
    }),
    Invalid("memory-policy-mode", ANY, "/linux/memoryPolicy", || json!({"mode": "MPOL_NOTHING"})),
    Invalid(
        "memory-policy-nodes",
        ANY,
        "/linux/memoryPolicy",
        || json!({"mode": "MPOL_BIND", "nodes": "none"}),
    ),
    Invalid(
        "memory-policy-flag",
        ANY,
        "/linux/memoryPolicy",
        || json!({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_NOTHING"]}),
    ),
    Invalid("sysctl-missing", ANY, "/linux/sysctl", || json!({"kernel.conformance_no_such": "1"})),
    Invalid("cpus", ANY, "/linux/resources", || json!({"cpu": {"cpus": "none"}})),
    Invalid(
        "hugepage-size",
        ANY,
        "/linux/resources",
        || json!({"hugepageLimits": [{"pageSize": "3MB", "limit": 0}]}),
    ),
    Invalid(
        "device-access",
        ANY,
        "/linux/resources",
        || json!({"devices": [{"allow": true, "type": "c", "access": "xyz"}]}),
    ),
    Invalid(
        "device-rule-type",
        ANY,
        "/linux/resources",
        || json!({"devices": [{"allow": true, "type": "z", "access": "r"}]}),
    ),
    Invalid(
        "weight-device-empty",
        "configLinuxBlockIO.2",
        "/linux/resources",
        || json!({"blockIO": {"weightDevice": [{"major": 8, "minor": 0}]}}),
    ),
    Invalid("rdma-empty", "configLinuxRDMA.1", "/linux/resources", || json!({"rdma": {"mlx5_1": {}}})),
    Invalid("seccomp-default-action", ANY, "/linux/seccomp", || json!({"defaultAction": "SCMP_ACT_NOTHING"})),
    Invalid(
        "seccomp-architecture",
        ANY,
        "/linux/seccomp",
        || json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_NOTHING"]}),
    ),
    Invalid(
        "seccomp-flag",
        ANY,
        "/linux/seccomp",
        || json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_NOTHING"]}),
    ),
    Invalid("seccomp-action", ANY, "/linux/seccomp", || {
        seccomp(json!({"names": ["chmod"], "action": "SCMP_ACT_NOTHING"}))
    }),
    Invalid("seccomp-operator", ANY, "/linux/seccomp", || {
        seccomp(
            json!({"names": ["chmod"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 0, "value": 0, "op": "SCMP_CMP_NOTHING"}]}),
        )
    }),
    Invalid("seccomp-argument-index", ANY, "/linux/seccomp", || {
        seccomp(
            json!({"names": ["chmod"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]}),
        )
    }),
    Invalid("seccomp-names-empty", "configLinuxSeccomp.11", "/linux/seccomp", || {
        seccomp(json!({"names": [], "action": "SCMP_ACT_ERRNO"}))
    }),
    Invalid(
        "seccomp-errno-default",
        "configLinuxSeccomp.2",
        "/linux/seccomp",
        || json!({"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 5}),
    ),
    Invalid("seccomp-errno", "configLinuxSeccomp.13", "/linux/seccomp", || {
        seccomp(json!({"names": ["chmod"], "action": "SCMP_ACT_LOG", "errnoRet": 5}))
    }),
    Invalid(
        "seccomp-metadata-alone",
        "configLinuxSeccomp.9",
        "/linux/seccomp",
        || json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerMetadata": "text"}),
    ),
    Invalid(
        "rdt-memory-prefix",
        "configLinuxIntelRdt.7",
        "/linux/intelRdt",
        || json!({"memBwSchema": "L3:0=10"}),
    ),
    Invalid(
        "rdt-memory-lines",
        "configLinuxIntelRdt.8",
        "/linux/intelRdt",
        || json!({"memBwSchema": "MB:0=10\nL3:0=1"}),
    ),
    Invalid(
        "rdt-schemata-lines",
        "configLinuxIntelRdt.9",
        "/linux/intelRdt",
        || json!({"schemata": ["MB:0=10\nL3:0=1"]}),
    ),
    Invalid("annotations-type", "configAnnotations.2", "/annotations", || json!(["com.example.key"])),
    Invalid(
        "annotation-value-type",
        "configAnnotations.28",
        "/annotations",
        || json!({"com.example.key": 7}),
    ),
    Invalid("annotation-key-empty", "configAnnotations.5", "/annotations", || json!({"": "value"})),
];

/// Filters that allow everything but what one entry says.
fn seccomp(entry: Value) -> Value {
    json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [entry]})
}

pub fn checks() -> Vec<Check> {
    let mut all: Vec<_> = INVALID
        .iter()
        .map(|Invalid(name, clause, place, value)| {
            let clauses: &[_] = if *clause == ANY { &[ANY] } else { &[clause, ANY] };
            check(format!("invalid-{name}"), clauses, move |case| {
                case.refuses(&format!("{place} {}", value()), |config| put(config, place, value()))
            })
        })
        .collect();
    all.push(check("versions-compatible", &["configSpecificationVersion.compatible"], versions));
    all
}

fn put(config: &mut Value, place: &str, value: Value) {
    if let Some(array) = place.strip_suffix("/-") {
        if let Some(array) = config.pointer_mut(array) {
            push(array, value);
        }
    } else if let Some((parent, name)) = place.rsplit_once('/')
        && let Some(parent) = config.pointer_mut(parent)
    {
        parent[name] = value;
    }
}

/// The version that the runtime is of is the one that its states have.
fn versions(case: &Case) -> Verdict {
    let container = case.create(&case.bundle(&["/probe", "probe", "facts"], |_| {})?)?;
    let own = container.state()?["ociVersion"].clone();
    let minor = own.as_str().and_then(|text| text.split('.').nth(1)?.parse::<u32>().ok());
    let Some(minor) = minor else { return Err(Why::Fails(format!("ociVersion of the state: {own}"))) };
    for version in (0..=minor).map(|minor| format!("1.{minor}.0")) {
        let bundle =
            case.bundle(&["/probe", "probe", "facts"], |config| config["ociVersion"] = json!(version))?;
        case.attempt(&bundle)?.1.done(&format!("create with ociVersion {version}"))?;
    }
    Ok(())
}
