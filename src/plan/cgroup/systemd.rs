//! The systemd driver: `slice:prefix:name` as a transient scope, and limits as properties of it.
//!
//! Every limit is a cgroup file all the same (`plan::cgroup::limits`) and is written there: the file has the exact
//! value, and the property keeps systemd from writing another one at its next reload. So the properties are made
//! from the writes, by the name of the file; a file without a property is one that systemd never touches.

#![forbid(unsafe_code)]

use super::devices::{DeviceRule, DeviceType, allowed};
use super::{CgroupPlan, Write, variant};
use crate::cgroup::layout::Version;
use crate::dbus::Value;
use crate::error::{Error, Result};
use std::collections::BTreeMap;

/// Prefix of the annotations that set a property.
const PROPERTY: &str = "org.systemd.property.";
const AT: &str = "linux.cgroupsPath";
/// systemd's word for no limit.
const INFINITY: u64 = u64::MAX;

/// What is known of the systemd that runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Systemd {
    /// As in `252`.
    pub version: u32,
    /// Whether it is a user's own.
    pub user: bool,
    /// cgroup below which its units are, without a slash at the end; empty for the root.
    pub control_group: String,
    /// /proc/devices, which systemd before 240 needs for the name of a major number.
    pub drivers: String,
}

/// The transient scope of a container.
#[derive(Debug, Clone, PartialEq)]
pub struct Unit {
    /// As in `rrun-c1.scope`.
    pub name: String,
    /// Whether it is a user's.
    pub user: bool,
    /// Properties it starts with, without the process in it.
    pub properties: Vec<(String, Value)>,
}

/// Makes a plan for the cgroup file system into one for systemd: other places, and the unit.
///
/// # Errors
/// A `cgroupsPath` of another form, or an annotation that is not a property.
pub fn through(
    plan: &mut CgroupPlan,
    asked: &str,
    id: &str,
    annotations: &BTreeMap<String, String>,
    systemd: &Systemd,
) -> Result<()> {
    let (slice, name) = unit(asked, id, systemd.user)?;
    let path = format!("{}{}/{name}", systemd.control_group, expand(&slice)?);
    if systemd.user && plan.places.iter().any(|place| place.hierarchy.version == Version::V1) {
        let e = Error::new("a user's systemd can limit nothing on cgroup v1");
        return Err(e.remedy("use cgroup v2, or --cgroup-manager=cgroupfs"));
    }
    for place in &mut plan.places {
        place.path.clone_from(&path);
    }
    // systemd makes the scope or says why not.
    plan.best_effort = false;
    let v2 = plan.places.iter().all(|place| place.hierarchy.version == Version::V2);
    let yes = |name: &str| (name.to_owned(), Value::Bool(true));
    let mut properties = vec![
        ("Description".to_owned(), Value::Str(format!("rrun container {id}"))),
        ("Slice".to_owned(), Value::Str(slice)),
        yes("Delegate"),
        yes("MemoryAccounting"),
        yes("CPUAccounting"),
        yes(if v2 { "IOAccounting" } else { "BlockIOAccounting" }),
        yes("TasksAccounting"),
        ("DefaultDependencies".to_owned(), Value::Bool(false)),
    ];
    properties.extend(device_properties(&plan.devices, v2, systemd, &mut plan.warnings));
    plan.warnings.extend(settle(&mut plan.limits, systemd.version, v2, &Now::default()));
    properties.extend(limits(&plan.limits, systemd.version, v2, &Now::default()));
    // Last, so that they win.
    for (key, text) in annotations {
        properties.extend(annotated(key, text)?);
    }
    plan.unit = Some(Unit { name, user: systemd.user, properties });
    Ok(())
}

/// Slice and unit of `linux.cgroupsPath`.
fn unit(asked: &str, id: &str, user: bool) -> Result<(String, String)> {
    let default = if user { "user.slice" } else { "system.slice" };
    if asked.is_empty() {
        return Ok((default.into(), valid(format!("rrun-{id}.scope"))?));
    }
    let parts: Vec<&str> = asked.split(':').collect();
    let [slice, prefix, name] = parts.as_slice() else {
        let text = format!(
            "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got {asked:?} instead"
        );
        return Err(Error::config(AT, text));
    };
    if name.is_empty() {
        return Err(Error::config(AT, format!("{asked:?} has an empty name")));
    }
    if name.ends_with(".slice") {
        let text = format!("{name:?} is a slice, which cannot hold a process");
        return Err(Error::config(AT, text).remedy("a name without .slice makes a scope"));
    }
    let slice = if slice.is_empty() { default } else { slice };
    Ok((slice.to_owned(), valid(format!("{prefix}-{name}.scope"))?))
}

/// systemd.unit(5): what a name consists of.
fn valid(name: String) -> Result<String> {
    let known = |b: u8| b.is_ascii_alphanumeric() || b":-_.\\@+".contains(&b);
    if name.len() > 255 || !name.bytes().all(known) {
        let text = format!("{name:?} is not a valid unit name");
        return Err(Error::config(AT, text).remedy("up to 255 of A-Z a-z 0-9 : - _ . \\ @"));
    }
    Ok(name)
}

/// The cgroup of a slice: `a-b.slice` is `/a.slice/a-b.slice` (systemd.slice(5)).
fn expand(slice: &str) -> Result<String> {
    let invalid = || Error::config(AT, format!("invalid slice name: {slice}"));
    let name = slice.strip_suffix(".slice").filter(|name| !name.is_empty()).ok_or_else(invalid)?;
    if name == "-" {
        return Ok(String::new());
    }
    valid(slice.to_owned())?;
    if name.split('-').any(str::is_empty) {
        return Err(invalid());
    }
    let dashes = name.match_indices('-').map(|(i, _)| i).chain([name.len()]);
    Ok(dashes.map(|end| format!("/{}.slice", name.get(..end).unwrap_or_default())).collect())
}

/// What the container may use, for systemd.
///
/// On v2 rrun's own program limits the devices too, so that here more than the rules allow is harmless and less
/// is not. On v1 both write one list, and the last writer wins: systemd, at a reload.
fn device_properties(
    rules: &[DeviceRule],
    v2: bool,
    systemd: &Systemd,
    warnings: &mut Vec<String>,
) -> Vec<(String, Value)> {
    if rules.is_empty() {
        return Vec::new();
    }
    let set = |policy: &str, list: Vec<Value>| {
        vec![
            ("DevicePolicy".to_owned(), policy.into()),
            ("DeviceAllow".to_owned(), Value::Array("(ss)".into(), list)),
        ]
    };
    let (all, cut, rules) = allowed(rules);
    if all && (v2 || !cut) {
        return set("auto", Vec::new());
    }
    if all {
        warnings.push(
            "linux.resources.devices: systemd cannot say \"all but these\": on cgroup v1, a daemon-reload leaves \
             the container no device but the listed ones"
                .into(),
        );
    }
    let entry = |rule: &DeviceRule| {
        Some(Value::Struct(vec![Value::Str(device(rule, v2, systemd)?), Value::Str(rule.access.to_string())]))
    };
    set("strict", rules.iter().filter_map(entry).collect())
}

/// systemd.resource-control(5), "DeviceAllow=".
fn device(rule: &DeviceRule, v2: bool, systemd: &Systemd) -> Option<String> {
    let kind = if rule.typ == DeviceType::Block { "block" } else { "char" };
    match (rule.major, rule.minor) {
        (Some(major), Some(minor)) => Some(format!("/dev/{kind}/{major}:{minor}")),
        (Some(major), None) if systemd.version >= 240 => Some(format!("{kind}-{major}")),
        (Some(major), None) => driver(&systemd.drivers, kind, major).map(|name| format!("{kind}-{name}")),
        (None, None) => Some(format!("{kind}-*")),
        // Not expressible.
        (None, Some(_)) => v2.then(|| format!("{kind}-*")),
    }
}

/// The name of a major number in /proc/devices.
fn driver<'a>(drivers: &'a str, kind: &str, major: u32) -> Option<&'a str> {
    let title = if kind == "block" { "Block devices:" } else { "Character devices:" };
    let section = drivers.lines().skip_while(|line| *line != title).skip(1);
    section.take_while(|line| !line.is_empty()).find_map(|line| {
        let (number, name) = line.trim_start().split_once(' ')?;
        (number.parse() == Ok(major)).then_some(name)
    })
}

/// What the cgroup has now, for an update that gives only a part of what systemd takes as one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Now {
    /// Microseconds in each period, -1 for no limit.
    pub quota: Option<i64>,
    /// Microseconds.
    pub period: Option<u64>,
    /// Whether it runs only when nothing else does.
    pub idle: bool,
}

/// Makes the writes what systemd can hold as well, so that unit and files agree and a reload of systemd changes
/// nothing; says what was ignored.
///
/// A quota is rounded up as in `bandwidth`. Of a weight and idle systemd keeps one, and so does the kernel, which
/// refuses a weight while the cgroup is idle.
pub fn settle(writes: &mut Vec<Write>, version: u32, v2: bool, now: &Now) -> Vec<String> {
    let (quota, period) = asked(writes);
    let in_force = |quota: i64| u64::try_from(quota).ok();
    match quota.or(now.quota).and_then(in_force) {
        Some(limit) if quota.is_some() || period.is_some() => {
            let period = period.or(now.period).unwrap_or(PERIOD);
            let exact = per_second(limit, period).and_then(|each| each.checked_mul(period));
            rewrite(writes, Some(exact.map_or(limit, |n| n / SECOND)), period);
        }
        // Without a limit systemd writes its default period.
        None if quota.is_some() && period.is_none() => {
            if let Some(period) = now.period {
                rewrite(writes, None, period);
            }
        }
        _ => {}
    }
    let idle = writes.iter().any(|write| write.file == "cpu.idle" && write.value.trim() == "1");
    let mut ignored = Vec::new();
    if idle && v2 && version >= 252 {
        writes.retain(|write| {
            let weight = write.file == "cpu.weight";
            if weight {
                ignored.push(format!(
                    "{}: unable to apply both cpu.idle and cpu.weight, which is ignored",
                    write.at
                ));
            }
            !weight
        });
    }
    ignored
}

/// Puts a quota, none for no limit, and its period in the place of what the writes say of them.
fn rewrite(writes: &mut Vec<Write>, quota: Option<u64>, period: u64) {
    let bandwidth =
        |write: &Write| ["cpu.max", "cpu.cfs_quota_us", "cpu.cfs_period_us"].contains(&&*write.file);
    let Some(like) = writes.iter().find(|write| bandwidth(write)).cloned() else { return };
    let limit = |none: &str| quota.map_or_else(|| none.to_owned(), |quota| quota.to_string());
    let values = match like.file.as_str() {
        "cpu.max" => vec![("cpu.max", format!("{} {period}", limit("max")))],
        _ => vec![("cpu.cfs_period_us", period.to_string()), ("cpu.cfs_quota_us", limit("-1"))],
    };
    writes.retain(|write| !bandwidth(write));
    writes.extend(values.into_iter().map(|(file, value)| Write {
        file: file.into(),
        value,
        default: false,
        keeps_first: false,
        ..like.clone()
    }));
}

/// Quota and period that the writes set.
fn asked(writes: &[Write]) -> (Option<i64>, Option<u64>) {
    let (mut quota, mut period) = (None, None);
    for write in writes {
        let value = write.value.trim();
        match write.file.as_str() {
            "cpu.max" if write.keeps_first => period = value.parse().ok(),
            "cpu.max" => {
                let (first, second) = value.split_once(' ').unwrap_or((value, ""));
                quota = if first == "max" { Some(-1) } else { first.parse().ok() };
                period = second.trim().parse().ok().or(period);
            }
            "cpu.cfs_quota_us" => quota = value.parse().ok(),
            "cpu.cfs_period_us" => period = value.parse().ok(),
            _ => {}
        }
    }
    (quota, period)
}

/// The properties that stand for these writes, which [`settle`] has seen.
pub fn limits(writes: &[Write], version: u32, v2: bool, now: &Now) -> Vec<(String, Value)> {
    let mut properties: Vec<(String, Value)> = Vec::new();
    let mut idle = None;
    for write in writes {
        // The general file where there are two: io.weight and not io.bfq.weight.
        let (file, value) = match &write.otherwise {
            Some((file, value)) if file == "io.weight" => (file.as_str(), value.as_str()),
            _ => (write.file.as_str(), write.value.as_str()),
        };
        let value = value.trim();
        let number = |value: &str| match value {
            "max" | "-1" => Some(INFINITY),
            value => value.parse().ok(),
        };
        let limit = |name: &str| number(value).map(|n| (name.to_owned(), Value::U64(n)));
        let set = |name: &str| cpu_set(value).map(|bits| (name.to_owned(), Value::bytes(&bits)));
        properties.extend(match file {
            "cpu.idle" => {
                idle = Some(value == "1").filter(|_| v2);
                None
            }
            "cpu.shares" => limit("CPUShares"),
            "cpu.weight" => limit("CPUWeight"),
            "cpuset.cpus" if version >= 244 => set("AllowedCPUs"),
            "cpuset.mems" if version >= 244 => set("AllowedMemoryNodes"),
            "memory.limit_in_bytes" => limit("MemoryLimit"),
            "memory.max" => limit("MemoryMax"),
            "memory.high" => limit("MemoryHigh"),
            "memory.low" => limit("MemoryLow"),
            "memory.min" if version >= 240 => limit("MemoryMin"),
            "memory.swap.max" => limit("MemorySwapMax"),
            "pids.max" => limit("TasksMax"),
            "blkio.weight" => limit("BlockIOWeight"),
            // With a space it is that of one device.
            "io.weight" => number(value.strip_prefix("default ").unwrap_or(value))
                .map(|n| ("IOWeight".to_owned(), Value::U64(n))),
            _ => None,
        });
    }
    let (quota, period) = asked(writes);
    if quota.is_some() || period.is_some() {
        properties.extend(bandwidth(quota.or(now.quota), period.or(now.period), version));
    }
    // systemd 252 has 0 for idle, sets cpu.idle by it and takes it back for a weight.
    let weighted = properties.iter().any(|(name, _)| name == "CPUWeight");
    let weight = match idle {
        Some(true) => Some(0),
        // What the kernel makes of the weight as well when it takes idle back.
        Some(false) if now.idle && !weighted => Some(100),
        _ => None,
    };
    properties.extend(weight.filter(|_| version >= 252).map(|n| ("CPUWeight".to_owned(), Value::U64(n))));
    properties
}

/// Microseconds: the kernel's and systemd's period where none is given.
const PERIOD: u64 = 100_000;

/// Microseconds of a second.
const SECOND: u64 = 1_000_000;

/// systemd wants the quota per second.
fn bandwidth(quota: Option<i64>, period: Option<u64>, version: u32) -> Vec<(String, Value)> {
    let mut properties = Vec::new();
    if let Some(period) = period.filter(|_| version >= 242) {
        properties.push(("CPUQuotaPeriodUSec".to_owned(), Value::U64(period)));
    }
    let quota = quota.and_then(|quota| u64::try_from(quota).ok());
    let each = quota.and_then(|quota| per_second(quota, period.unwrap_or(PERIOD)));
    properties.push(("CPUQuotaPerSecUSec".to_owned(), Value::U64(each.unwrap_or(INFINITY))));
    properties
}

/// systemd keeps hundredths of a CPU: rounded up, or a cgroup below could not have what it is promised.
fn per_second(quota: u64, period: u64) -> Option<u64> {
    quota.checked_mul(SECOND)?.checked_div(period)?.checked_next_multiple_of(SECOND / 100)
}

/// `0-3,7` as bits, the first CPU in the lowest of the first byte; `None` for what only the kernel understands.
fn cpu_set(list: &str) -> Option<Vec<u8>> {
    let mut bits = Vec::new();
    for range in list.split(',') {
        let (from, to) = range.split_once('-').unwrap_or((range, range));
        let (from, to): (u16, u16) = (from.trim().parse().ok()?, to.trim().parse().ok()?);
        for n in usize::from(from)..=usize::from(to) {
            if bits.len() <= n / 8 {
                bits.resize(n / 8 + 1, 0);
            }
            *bits.get_mut(n / 8)? |= 1 << (n % 8);
        }
    }
    Some(bits)
}

/// The property of an annotation; none for the annotations of others.
fn annotated(key: &str, text: &str) -> Result<Option<(String, Value)>> {
    let Some(name) = key.strip_prefix(PROPERTY) else { return Ok(None) };
    let at = format!("annotations.{key:?}");
    if name.len() < 3 || !name.bytes().all(|b| b.is_ascii_alphabetic()) {
        return Err(Error::config(at, format!("{name:?} is not the name of a systemd property")));
    }
    let value = variant::parse(text).map_err(|e| Error::config(&at, e))?;
    // As in unit files; the bus has microseconds only.
    let seconds = name.strip_suffix("Sec").filter(|name| name.ends_with(|c: char| c.is_ascii_lowercase()));
    let Some(stem) = seconds else { return Ok(Some((name.to_owned(), value))) };
    let whole = match &value {
        Value::Byte(n) => Some(u64::from(*n)),
        Value::U16(n) => Some(u64::from(*n)),
        Value::U32(n) => Some(u64::from(*n)),
        Value::U64(n) => Some(*n),
        Value::I16(n) => u64::try_from(*n).ok(),
        Value::I32(n) => u64::try_from(*n).ok(),
        Value::I64(n) => u64::try_from(*n).ok(),
        _ => None,
    };
    let microseconds = match &value {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        Value::F64(n) if (0.0..1e12).contains(n) => Some((n * 1e6) as u64),
        _ => whole.and_then(|n| n.checked_mul(1_000_000)),
    };
    match microseconds {
        Some(n) => Ok(Some((format!("{stem}USec"), Value::U64(n)))),
        None => Err(Error::config(at, format!("{text:?} is not a number of seconds"))),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{plan, v1, v2};
    use super::*;
    use crate::cgroup::layout::Layout;

    fn systemd(version: u32) -> Systemd {
        Systemd { version, ..Systemd::default() }
    }

    fn unit_of(asked: &str, user: bool) -> Result<String, String> {
        let (slice, name) = unit(asked, "c1", user).map_err(|e| e.to_string())?;
        Ok(format!("{}/{name}", expand(&slice).map_err(|e| e.to_string())?))
    }

    #[test]
    fn a_path_is_slice_prefix_and_name() {
        for (asked, want) in [
            ("", "/system.slice/rrun-c1.scope"),
            (":docker:ab", "/system.slice/docker-ab.scope"),
            ("a-b-c.slice:p:n", "/a.slice/a-b.slice/a-b-c.slice/p-n.scope"),
            ("-.slice:p:n", "/p-n.scope"),
            ("machine.slice::n", "/machine.slice/-n.scope"),
        ] {
            assert_eq!(unit_of(asked, false).as_deref(), Ok(want), "{asked}");
        }
        assert_eq!(unit_of("", true).as_deref(), Ok("/user.slice/rrun-c1.scope"));
    }

    #[test]
    fn other_paths_are_refused() {
        for (asked, text) in [
            ("/a/b", "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got"),
            ("a:b", "expected cgroupsPath"),
            ("a:b:c:d", "expected cgroupsPath"),
            ("a:b:c", "invalid slice name: a"),
            (".slice:b:c", "invalid slice name: .slice"),
            ("a--b.slice:b:c", "invalid slice name"),
            ("-a.slice:b:c", "invalid slice name"),
            ("a/b.slice:b:c", "not a valid unit name"),
            ("a.slice:b:c/../d", "not a valid unit name"),
            ("a.slice:b:c.slice", "is a slice, which cannot hold a process"),
            ("a.slice:b:", "has an empty name"),
        ] {
            let e = unit_of(asked, false).expect_err(asked);
            assert!(e.starts_with("config.json: linux.cgroupsPath: ") && e.contains(text), "{asked}: {e}");
        }
        unit_of(&format!(":a:{}", "x".repeat(260)), false).expect_err("too long");
    }

    fn made(json: &str, layout: &Layout, version: u32) -> CgroupPlan {
        let mut plan = plan(json, layout).expect("accepted");
        through(&mut plan, "", "c1", &BTreeMap::new(), &systemd(version)).expect("accepted");
        plan
    }

    fn properties(json: &str, layout: &Layout, version: u32) -> Vec<(String, Value)> {
        let unit = made(&format!("{{\"resources\":{json}}}"), layout, version).unit.expect("a unit");
        // Behind those that every scope has, and the devices.
        unit.properties.into_iter().skip(10).collect()
    }

    fn texts(list: Vec<(String, Value)>) -> Vec<String> {
        let text = |value: Value| match value {
            Value::U64(u64::MAX) => "infinity".into(),
            Value::U64(n) => n.to_string(),
            value => format!("{value:?}"),
        };
        list.into_iter().map(|(name, value)| format!("{name}={}", text(value))).collect()
    }

    #[test]
    fn every_place_is_the_scope() {
        let plan = made("{}", &v1(), 252);
        assert!(plan.places.iter().all(|place| place.path == "/system.slice/rrun-c1.scope"));
        let names: Vec<_> =
            plan.unit.iter().flat_map(|unit| &unit.properties).map(|(name, _)| name.as_str()).collect();
        assert_eq!(
            names[1..6],
            ["Slice", "Delegate", "MemoryAccounting", "CPUAccounting", "BlockIOAccounting"]
        );
        assert_eq!(names[8..], ["DevicePolicy", "DeviceAllow"]);
    }

    #[test]
    fn limits_are_properties() {
        let json = r#"{"cpu":{"shares":512,"quota":12345,"period":50000,"cpus":"0-1,9","mems":"0"},
            "memory":{"limit":1000,"swap":3000,"reservation":500},"pids":{"limit":-1},"blockIO":{"weight":100}}"#;
        let sets = "AllowedCPUs=Array(\"y\", [Byte(3), Byte(2)])";
        let mems = "AllowedMemoryNodes=Array(\"y\", [Byte(1)])";
        assert_eq!(
            texts(properties(json, &v2(), 252)),
            [
                "CPUWeight=59",
                sets,
                mems,
                "MemorySwapMax=2000",
                "MemoryMax=1000",
                "MemoryLow=500",
                "TasksMax=infinity",
                "IOWeight=910",
                "CPUQuotaPeriodUSec=50000",
                "CPUQuotaPerSecUSec=250000"
            ]
        );
        assert_eq!(
            texts(properties(json, &v1(), 239)),
            [
                "CPUShares=512",
                "MemoryLimit=1000",
                "TasksMax=infinity",
                "BlockIOWeight=100",
                "CPUQuotaPerSecUSec=250000"
            ]
        );
        let unified = r#"{"unified":{"memory.high":"70","memory.min":"max","cpu.max":"max 1000","io.weight":"default 50",
            "cpu.idle":"1","pids.max":"9","memory.oom.group":"1"}}"#;
        assert_eq!(
            texts(properties(unified, &v2(), 252)),
            [
                "IOWeight=50",
                "MemoryHigh=70",
                "MemoryMin=infinity",
                "TasksMax=9",
                "CPUQuotaPeriodUSec=1000",
                "CPUQuotaPerSecUSec=infinity",
                "CPUWeight=0"
            ]
        );
    }

    #[test]
    fn an_update_of_a_part_keeps_the_rest() {
        let update = |json: &str, now: Now| {
            let resources = crate::spec::read::document(json.as_bytes()).expect("valid JSON");
            let mut writes = super::super::update(&resources, &v2()).expect("accepted");
            settle(&mut writes, 252, true, &now);
            texts(limits(&writes, 252, true, &now))
        };
        let now = Now { quota: Some(50_000), period: Some(100_000), idle: false };
        assert_eq!(
            update(r#"{"cpu":{"period":200000}}"#, now),
            ["CPUQuotaPeriodUSec=200000", "CPUQuotaPerSecUSec=250000"]
        );
        assert_eq!(
            update(r#"{"cpu":{"quota":-1}}"#, now),
            ["CPUQuotaPeriodUSec=100000", "CPUQuotaPerSecUSec=infinity"]
        );
        assert_eq!(update(r#"{"cpu":{"idle":1,"shares":512}}"#, now), ["CPUWeight=0"]);
        let idle = Now { idle: true, ..Now::default() };
        assert_eq!(update(r#"{"cpu":{"idle":0}}"#, idle), ["CPUWeight=100"]);
        assert_eq!(update(r#"{"cpu":{"idle":0,"shares":512}}"#, idle), ["CPUWeight=59"]);
        assert_eq!(update(r#"{"cpu":{"shares":512}}"#, idle), ["CPUWeight=59"]);
        assert!(update(r#"{"pids":{"limit":5}}"#, idle) == ["TasksMax=5"], "idle stays");
    }

    #[test]
    fn the_files_get_what_systemd_keeps() {
        let settled = |json: &str, layout: &Layout, now: Now| {
            let resources = crate::spec::read::document(json.as_bytes()).expect("valid JSON");
            let mut writes = super::super::update(&resources, layout).expect("accepted");
            let ignored = settle(&mut writes, 252, layout.is_v2(), &now);
            let text = writes.iter().map(|write| {
                assert!(!write.keeps_first);
                format!("{}={}", write.file, write.value)
            });
            (text.collect::<Vec<_>>().join(" "), ignored.len())
        };
        let none = Now::default();
        let now = Now { quota: Some(500_000), period: Some(1_000_000), idle: false };
        for (json, now, expected) in [
            (r#"{"cpu":{"quota":500000,"period":900000}}"#, none, "cpu.max=504000 900000"),
            (r#"{"cpu":{"quota":5000}}"#, none, "cpu.max=5000 100000"),
            (r#"{"cpu":{"quota":5001}}"#, none, "cpu.max=6000 100000"),
            (r#"{"cpu":{"period":900000}}"#, now, "cpu.max=504000 900000"),
            (r#"{"cpu":{"quota":-1}}"#, none, "cpu.max=max"),
            (r#"{"cpu":{"quota":-1}}"#, now, "cpu.max=max 1000000"),
            (r#"{"unified":{"cpu.max":"1 1000"}}"#, none, "cpu.max=10 1000"),
        ] {
            assert_eq!(settled(json, &v2(), now), (expected.into(), 0), "{json}");
        }
        let v1 = settled(r#"{"cpu":{"period":900000}}"#, &v1(), now);
        assert_eq!(v1, ("cpu.cfs_period_us=900000 cpu.cfs_quota_us=504000".into(), 0));
        let both = settled(r#"{"cpu":{"shares":512,"idle":1}}"#, &v2(), none);
        assert_eq!(both, ("cpu.idle=1".into(), 1));
    }

    fn devices(json: &str, layout: &Layout, systemd: &Systemd) -> (String, Vec<String>, usize) {
        let mut plan = plan(&format!("{{\"resources\":{{\"devices\":{json}}}}}"), layout).expect("accepted");
        plan.warnings.clear();
        let v2 = layout.is_v2();
        let list = device_properties(&plan.devices, v2, systemd, &mut plan.warnings);
        let [(_, policy), (_, Value::Array(_, allow))] = list.as_slice() else { panic!("{list:?}") };
        let entry = |value: &Value| match value {
            Value::Struct(pair) => pair.iter().filter_map(Value::text).collect::<Vec<_>>().join(" "),
            other => panic!("{other:?}"),
        };
        (policy.text().unwrap_or_default().into(), allow.iter().map(entry).collect(), plan.warnings.len())
    }

    #[test]
    fn devices_are_an_allow_list() {
        let json = r#"[{"allow":false,"access":"rwm"},{"allow":true,"type":"b","major":8,"access":"rw"},
            {"allow":true,"type":"c","major":1,"minor":3,"access":"r"},
            {"allow":true,"type":"c","major":10,"minor":229,"access":"rw"},
            {"allow":false,"type":"c","major":10,"minor":229,"access":"w"}]"#;
        let (policy, allow, _) = devices(json, &v2(), &systemd(252));
        assert_eq!(policy, "strict");
        // The last entry for a path wins in systemd, so each stands there once, with all of its access.
        assert_eq!(allow[..4], ["block-8 rw", "/dev/char/1:3 rwm", "/dev/char/10:229 r", "char-* m"]);
        assert!(allow.contains(&"char-136 rwm".into()));
        let drivers = "Character devices:\n  1 mem\n136 pts\n\nBlock devices:\n  8 sd\n136 no\n";
        let old = Systemd { version: 239, drivers: drivers.into(), ..Systemd::default() };
        let (_, allow, _) = devices(json, &v2(), &old);
        assert!(allow.contains(&"block-sd rw".into()) && allow.contains(&"char-pts rwm".into()), "{allow:?}");
        let none = Systemd { version: 239, ..Systemd::default() };
        assert!(!devices(json, &v2(), &none).1.iter().any(|entry| entry.starts_with("block-sd")));
    }

    #[test]
    fn all_devices_are_a_policy() {
        let all = r#"[{"allow":true,"access":"rwm"}]"#;
        assert_eq!(devices(all, &v1(), &systemd(252)), ("auto".into(), vec![], 0));
        let but =
            r#"[{"allow":true,"access":"rwm"},{"allow":false,"type":"c","major":1,"minor":11,"access":"r"}]"#;
        assert_eq!(devices(but, &v2(), &systemd(252)), ("auto".into(), vec![], 0));
        let (policy, allow, warnings) = devices(but, &v1(), &systemd(252));
        assert_eq!((policy.as_str(), allow.len(), warnings), ("strict", 11, 1));
    }

    #[test]
    fn annotations_are_properties() {
        let property = |key: &str, text: &str| annotated(key, text).map_err(|e| e.to_string());
        let key = |name: &str| format!("org.systemd.property.{name}");
        let stop = property(&key("TimeoutStopSec"), "int64 3").expect("accepted");
        assert_eq!(stop, Some(("TimeoutStopUSec".into(), Value::U64(3_000_000))));
        let half = property(&key("TimeoutStopSec"), "1.5").expect("accepted");
        assert_eq!(half, Some(("TimeoutStopUSec".into(), Value::U64(1_500_000))));
        let stays = property(&key("TimeoutStopUSec"), "uint64 3").expect("accepted");
        assert_eq!(stays, Some(("TimeoutStopUSec".into(), Value::U64(3))));
        let mode = property(&key("CollectMode"), "'inactive-or-failed'").expect("accepted");
        assert_eq!(mode, Some(("CollectMode".into(), "inactive-or-failed".into())));
        assert_eq!(property("org.example", "x"), Ok(None));
        for (name, text) in [
            ("No", "1"),
            ("A.B", "1"),
            ("", "1"),
            ("TimeoutStopSec", "'x'"),
            ("TimeoutStopSec", "-1"),
            ("TimeoutStopSec", "uint64 18446744073709551615"),
            ("Wants", "foo"),
        ] {
            let e = property(&key(name), text).expect_err(name);
            assert!(e.starts_with("config.json: annotations.\"org.systemd.property."), "{e}");
        }
    }

    #[test]
    fn a_users_systemd_needs_v2() {
        let user =
            Systemd { version: 252, user: true, control_group: "/user.slice/u".into(), ..Systemd::default() };
        let mut on_v2 = plan("{}", &v2()).expect("accepted");
        through(&mut on_v2, "", "c", &BTreeMap::new(), &user).expect("accepted");
        assert_eq!(on_v2.places[0].path, "/user.slice/u/user.slice/rrun-c.scope");
        through(&mut plan("{}", &v1()).expect("accepted"), "", "c", &BTreeMap::new(), &user).expect_err("v1");
    }
}
