//! The measurements as a table and as JSON.

use crate::image::LAYERS;
use crate::measure::{Bench, IDLE, Memory, ROWS, Series};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::fs;

/// RSS of a monitor, at most, in KiB.
const MONITOR: f64 = 1024.0;

fn quantile(times: &[f64], q: f64) -> Option<f64> {
    let mut times = times.to_vec();
    times.sort_by(f64::total_cmp);
    let at = q * times.len().checked_sub(1)? as f64;
    let (low, high) = (times[at.floor() as usize], times[at.ceil() as usize]);
    Some(low + (high - low) * at.fract())
}

fn number(value: f64) -> String {
    format!("{value:.*}", if value < 10.0 { 2 } else { 1 })
}

fn cell(series: &Series, seconds: bool) -> String {
    let unit = if seconds { 1.0 } else { 1000.0 };
    let of = |q| quantile(&series.times, q).map(|time| number(time * unit));
    match (of(0.5), of(0.1), of(0.9)) {
        (Some(median), Some(p10), Some(p90)) => {
            format!("{median} {} ({p10}–{p90})", if seconds { "s" } else { "ms" })
        }
        _ => "fails".to_owned(),
    }
}

fn ratio(row: &[Series], to: usize) -> Option<f64> {
    Some(quantile(&row[0].times, 0.5)? / quantile(&row[to].times, 0.5)?)
}

fn row<T: AsRef<str>>(out: &mut String, cells: &[T]) {
    let cells: Vec<_> = cells.iter().map(AsRef::as_ref).collect();
    let _ = writeln!(out, "| {} |", cells.join(" | "));
}

fn head<T: AsRef<str>>(out: &mut String, cells: &[T]) {
    row(out, cells);
    row(out, &[&["---"], &vec!["---:"; cells.len() - 1][..]].concat());
}

/// `at most 0.12: met`.
fn goal(most: Option<f64>, ratios: &[Option<f64>]) -> String {
    let Some(most) = most else { return "–".to_owned() };
    let met = ratios.iter().all(|ratio| ratio.is_some_and(|ratio| ratio <= most));
    format!("{most}: {}", if met { "met" } else { "missed" })
}

pub fn markdown(bench: &Bench, about: &[(&'static str, String)]) -> String {
    let mut out =
        "# What the engine's commands cost\n\nWritten by `make bench-engine`: do not edit.\n\n".to_owned();
    for (name, what) in about {
        let _ = writeln!(out, "- {name}: {what}");
    }
    let versions: Vec<_> = bench.engines.iter().map(|engine| engine.version.as_str()).collect();
    let _ = writeln!(
        out,
        "- engines: {}\n- command: `make bench-engine ROUNDS={}`\n",
        versions.join("; "),
        bench.rounds
    );
    let _ = writeln!(
        out,
        "From before a command is started until it has been waited for: median (10th–90th percentile). The engines take \
         turns in every round, each another's first, on one machine and in one network namespace; each runs containers as \
         it does by itself: docker with runc, podman with crun, on a bridge. What each does is looked at: exit codes, \
         output, pages, layers. The image that is pulled has {} layers of {} MB, {} files of text and of random bytes, {} \
         MB with gzip, in a docker-registry on loopback; what is run is busybox.\n",
        LAYERS.len(),
        LAYERS.map(|size| size.to_string()).join(", "),
        bench.registry.files,
        bench.registry.bytes / 1_000_000,
    );
    head(
        &mut out,
        &["command", "rrunctl", "docker", "podman", "rrunctl / docker", "rrunctl / podman", "goal, at most"],
    );
    for (what, series) in ROWS.iter().zip(&bench.series) {
        let ratios = [ratio(series, 1), ratio(series, 2)];
        let mut cells = vec![what.title.to_owned()];
        cells.extend(series.iter().map(|series| cell(series, what.seconds)));
        cells.extend(ratios.map(|ratio| ratio.map_or("–".to_owned(), |ratio| format!("{ratio:.3}"))));
        cells.push(goal(what.goal, &ratios));
        row(&mut out, &cells);
    }
    for (what, series) in ROWS.iter().zip(&bench.series) {
        for (engine, series) in
            bench.engines.iter().zip(series).filter(|(_, series)| !series.failures.is_empty())
        {
            let _ = writeln!(
                out,
                "\n{}: {} failed {} times: {}",
                what.title,
                engine.name,
                series.failures.len(),
                series.failures[0]
            );
        }
    }
    let _ = writeln!(
        out,
        "\n## Memory\n\nOf {IDLE} idle containers, for one of them, in KiB, from `/proc/PID/smaps_rollup`: what stands beside \
         the container, without the container's own process. RSS counts pages that processes share in each, PSS divides \
         them. What the daemons have grown by is of a heap that is collected now and then.\n"
    );
    head(
        &mut out,
        &[
            "engine",
            "beside each",
            "RSS",
            "PSS",
            "daemons' RSS",
            "daemons' PSS",
            "they grew by, each, PSS",
            "goal, at most",
        ],
    );
    for (engine, resident) in bench.engines.iter().zip(&bench.residents) {
        let each = |of: fn(&Memory) -> u64| {
            of(&resident.monitors) as f64 / resident.monitors.processes.max(1) as f64
        };
        let [before, after] = resident.daemons;
        let daemon = |value: String| if engine.daemons.is_empty() { "–".to_owned() } else { value };
        let rss = each(|memory| memory.rss);
        row(
            &mut out,
            &[
                engine.name.to_owned(),
                engine.monitor.to_owned(),
                number(rss),
                number(each(|memory| memory.pss)),
                daemon(after.rss.to_string()),
                daemon(after.pss.to_string()),
                daemon(number((after.pss as f64 - before.pss as f64) / IDLE as f64)),
                if engine.name == "rrunctl" { goal(Some(MONITOR), &[Some(rss)]) } else { "–".to_owned() },
            ],
        );
    }
    out
}

pub fn json(bench: &Bench, about: &[(&'static str, String)]) -> Value {
    let series = ROWS.iter().zip(&bench.series).flat_map(|(what, series)| {
        bench.engines.iter().zip(series).map(|(engine, series)| {
            let [p10, median, p90] = [0.1, 0.5, 0.9].map(|q| quantile(&series.times, q));
            json!({ "command": what.title, "engine": engine.name, "count": series.times.len(), "median": median,
                    "p10": p10, "p90": p90, "failed": series.failures.len() })
        })
    });
    let memory =
        |memory: &Memory| json!({ "processes": memory.processes, "rss": memory.rss, "pss": memory.pss });
    let residents = bench.engines.iter().zip(&bench.residents).map(|(engine, resident)| {
        json!({ "engine": engine.name, "monitors": memory(&resident.monitors),
                "daemonsBefore": memory(&resident.daemons[0]), "daemons": memory(&resident.daemons[1]) })
    });
    let about: serde_json::Map<_, _> =
        about.iter().map(|(name, what)| ((*name).to_owned(), json!(what))).collect();
    let versions: Vec<_> = bench.engines.iter().map(|engine| engine.version.as_str()).collect();
    json!({ "about": about, "engines": versions, "rounds": bench.rounds, "seconds": series.collect::<Vec<_>>(),
            "kibibytes": residents.collect::<Vec<_>>() })
}

pub fn machine() -> Vec<(&'static str, String)> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_once(':').map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let memory = field(&read("/proc/meminfo"), "MemTotal");
    let memory = memory.split(' ').next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or_default() >> 20;
    let date = std::process::Command::new("date").args(["-u", "+%Y-%m-%d %H:%M UTC"]).output();
    let v2 = fs::exists("/sys/fs/cgroup/cgroup.controllers").unwrap_or(false);
    let load = read("/proc/loadavg");
    vec![
        ("date", date.map(|out| String::from_utf8_lossy(&out.stdout).trim().to_owned()).unwrap_or_default()),
        ("machine", format!("{}, {cores} cores, {memory} GiB", field(&read("/proc/cpuinfo"), "model name"))),
        (
            "kernel",
            format!(
                "Linux {}, cgroup v{}",
                read("/proc/sys/kernel/osrelease").trim(),
                if v2 { 2 } else { 1 }
            ),
        ),
        ("load at the beginning", load.split(' ').take(2).collect::<Vec<_>>().join(", ")),
    ]
}
