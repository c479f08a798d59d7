//! `update`: an object as `--resources` takes it, or the command line behind `rrun update`, argument by argument with a
//! NUL between, → what is written into which file of which cgroup. Beside a model of the plain numbers.

#![forbid(unsafe_code)]

use super::{command_line, machine, report};
use rrun::cgroup::layout::Layout;
use rrun::cli::Command;
use rrun::commands::control::resources;
use rrun::error::{Kind, OneLine, Result};
use rrun::plan::cgroup::{self, Driver, Write};
use rrun::spec::read::document;
use rrun::spec::{Linux, Resources};
use serde_json::json;

const AT: &str = "linux.resources";

pub fn check(data: &[u8]) {
    if data.trim_ascii_start().first() == Some(&b'{') {
        return match document::<Resources>(data) {
            Ok(asked) => planned(&asked, data),
            Err(text) => {
                report::one_line(&OneLine(&text).to_string(), data.len());
                report::path(&text, AT, data);
            }
        };
    }
    let line = [&b"rrun\0update\0"[..], data].concat();
    let parsed = rrun::cli::parse(command_line::arguments(&line));
    match parsed.map(|invocation| invocation.command) {
        Ok(Command::Update(update)) => {
            let asked = resources(&update);
            let (text, whole) = same_as_json(&asked);
            assert_eq!(asked, whole);
            planned(&asked, text.as_bytes());
        }
        // Another command cannot be: `update` has been said; but it may be its help.
        Ok(other) => assert!(matches!(other, Command::Help(_)), "{other:?}"),
        Err(e) => {
            assert_eq!(e.what(), Kind::Usage);
            report::one_line(&e.to_string(), line.len());
        }
    }
}

/// The flags and the object with the same numbers ask for the same.
fn same_as_json(asked: &Resources) -> (String, Resources) {
    let (memory, cpu) = (asked.memory.clone().unwrap(), asked.cpu.clone().unwrap());
    let text = json!({
        "memory": {
            "limit": memory.limit, "reservation": memory.reservation, "swap": memory.swap, "kernelTCP": memory.kernel_tcp,
        },
        "cpu": {
            "shares": cpu.shares, "quota": cpu.quota, "period": cpu.period, "burst": cpu.burst,
            "realtimeRuntime": cpu.realtime_runtime, "realtimePeriod": cpu.realtime_period,
            "cpus": cpu.cpus, "mems": cpu.mems, "idle": cpu.idle,
        },
        "pids": asked.pids.as_ref().map(|pids| json!({ "limit": pids.limit })),
        "blockIO": asked.block_io.as_ref().map(|io| json!({ "weight": io.weight })),
    })
    .to_string();
    let whole = document(text.as_bytes()).unwrap();
    (text, whole)
}

fn planned(asked: &Resources, data: &[u8]) {
    for layout in [machine::v1(), machine::v2(), machine::hybrid(), Layout::default()] {
        let writes = cgroup::update(asked, &layout);
        assert_eq!(format!("{writes:?}"), format!("{:?}", cgroup::update(asked, &layout)));
        created(asked, &layout, &writes);
        match writes {
            Ok(writes) => {
                sound(&writes);
                held(&writes, &layout);
                numbers(asked, &layout, &writes);
            }
            Err(e) => report::config(&e.in_file("resources.json"), "resources.json", AT, data),
        }
    }
}

/// What the code that writes trusts in: a file name is one.
pub fn sound(writes: &[Write]) {
    for write in writes {
        for file in [Some(&write.file), write.otherwise.as_ref().map(|(file, _)| file)].into_iter().flatten()
        {
            assert!(
                file.contains('.') && !file.contains(['/', '\0']) && file != "." && file != "..",
                "{write:?}"
            );
        }
        assert!(write.at.starts_with(AT), "{write:?}");
        assert!(!write.value.contains('\0'), "{write:?}");
    }
}

fn held(writes: &[Write], layout: &Layout) {
    for write in writes {
        assert!(layout.find(&write.controller).is_some(), "no hierarchy has {write:?}");
    }
}

/// `create` with the same resources writes the same, but for devices, which `update` leaves alone, and for an OOM killer
/// that is on anyway.
fn created(asked: &Resources, layout: &Layout, update: &Result<Vec<Write>>) {
    let asked = Resources { devices: Vec::new(), ..asked.clone() };
    let linux = Linux { resources: Some(asked), ..Linux::default() };
    let plan = cgroup::build(Some(&linux), "fuzzed", layout, Driver::Cgroupfs, true);
    let on = |write: &&Write| !(write.file == "memory.oom_control" && write.value == "0");
    match (plan, update) {
        // Where there is no controller, its default cannot be written but is in force; `create` goes on.
        (_, Err(e)) if e.to_string().contains("disableOOMKiller") => {}
        (Ok(plan), Ok(update)) => {
            assert_eq!(plan.limits.iter().collect::<Vec<_>>(), update.iter().filter(on).collect::<Vec<_>>());
        }
        (Err(create), Err(update)) => assert_eq!(create.to_string(), update.to_string()),
        (Ok(_), Err(e)) => panic!("only update refuses: {e}"),
        (Err(e), Ok(_)) => panic!("only create refuses: {e}"),
    }
}

/// The plain numbers, by the tables of the specification and of the kernel's documentation.
fn numbers(asked: &Resources, layout: &Layout, writes: &[Write]) {
    let value = |file: &str| writes.iter().find(|write| write.file == file).map(|write| write.value.as_str());
    let text = |value: Option<i64>| value.filter(|n| *n != 0).map(|n| n.to_string());
    let v2 = layout.is_v2();
    let max = |n: i64| if n < 0 { "max".to_owned() } else { n.to_string() };
    if let Some(memory) = &asked.memory {
        if v2 {
            assert_eq!(value("memory.max"), memory.limit.filter(|n| *n != 0).map(max).as_deref());
            assert_eq!(value("memory.low"), memory.reservation.filter(|n| *n != 0).map(max).as_deref());
            if let (Some(limit @ 1..), Some(swap @ 1..)) = (memory.limit, memory.swap) {
                assert_eq!(value("memory.swap.max"), Some((swap - limit).to_string()).as_deref());
            }
        } else {
            assert_eq!(value("memory.limit_in_bytes"), text(memory.limit).as_deref());
            assert_eq!(value("memory.soft_limit_in_bytes"), text(memory.reservation).as_deref());
        }
    }
    if let Some(cpu) = &asked.cpu {
        let shares = cpu.shares.filter(|n| *n != 0);
        if v2 {
            let weight: Option<u64> = value("cpu.weight").map(|text| text.parse().unwrap());
            assert_eq!(weight.is_some(), shares.is_some());
            assert!(weight.is_none_or(|weight| (1..=10_000).contains(&weight)));
            for (shares, want) in [(2, 1), (1024, 100), (262_144, 10_000)] {
                assert!(cpu.shares != Some(shares) || weight == Some(want));
            }
        } else {
            assert_eq!(value("cpu.shares"), shares.map(|n| n.to_string()).as_deref());
            assert_eq!(value("cpu.cfs_quota_us"), text(cpu.quota.map(|n| n.max(-1))).as_deref());
        }
        for (file, list) in [("cpuset.cpus", &cpu.cpus), ("cpuset.mems", &cpu.mems)] {
            assert_eq!(value(file).unwrap_or_default(), list);
        }
    }
    if let Some(limit) = asked.pids.as_ref().and_then(|pids| pids.limit) {
        assert_eq!(
            value("pids.max"),
            Some(max(limit.max(-1)).replacen('0', "1", usize::from(limit == 0)).as_str())
        );
    }
    let unified = asked.unified.iter().filter(|(file, _)| value(file).is_none());
    assert_eq!(unified.collect::<Vec<_>>(), Vec::new());
}
