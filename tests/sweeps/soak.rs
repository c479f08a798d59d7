//! Many thousand lifecycles, and what of the machine they use up: nothing.

use crate::harness::{Test, runtime};
use std::fmt::Write as _;
use std::fs;
use std::process::Command;
use std::time::Instant;

/// What could grow, read after each thousandth part of the soak.
struct Sample {
    cycles: usize,
    /// Milliseconds of one lifecycle, the median since the last sample.
    milliseconds: f64,
    files: u64,
    mounts: usize,
    cgroups: u64,
    slab_kib: u64,
}

fn first_number(path: &str, line: &str) -> u64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    let found = text.lines().find_map(|l| l.strip_prefix(line)?.split_whitespace().next()?.parse().ok());
    found.unwrap_or(0)
}

fn sample(cycles: usize, mut times: Vec<f64>) -> Sample {
    times.sort_by(f64::total_cmp);
    let cgroups = fs::read_to_string("/proc/cgroups").unwrap();
    let cgroups = cgroups.lines().filter_map(|l| l.split_whitespace().nth(2)?.parse::<u64>().ok()).sum();
    Sample {
        cycles,
        milliseconds: times[times.len() / 2],
        files: first_number("/proc/sys/fs/file-nr", ""),
        mounts: fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count(),
        cgroups,
        slab_kib: first_number("/proc/meminfo", "SUnreclaim:"),
    }
}

/// `SWEEP_CYCLES` (20,000) of create, start and delete --force; `SWEEP_PLOT` names a file for the samples.
#[test]
fn lifecycles_use_nothing_up() {
    let cycles: usize = std::env::var("SWEEP_CYCLES").map_or(20_000, |v| v.parse().unwrap());
    let t = Test::new("soak");
    t.sh("exec sleep 1000");
    let (samples, per_sample) = (50, (cycles / 50).max(1));
    let run = |args: &[&str]| {
        let mut command = Command::new(runtime());
        let status = command.arg("--root").arg(&t.state).args(args).env("RRUN_TEST", &t.id).status().unwrap();
        assert!(status.success(), "{args:?}");
    };
    let bundle = t.bundle.to_str().unwrap();
    let mut seen = Vec::new();
    for n in 1..=samples {
        let mut times = Vec::new();
        for _ in 0..per_sample {
            let begin = Instant::now();
            run(&["create", "--bundle", bundle, &t.id]);
            run(&["start", &t.id]);
            run(&["delete", "--force", &t.id]);
            times.push(begin.elapsed().as_secs_f64() * 1000.0);
        }
        seen.push(sample(n * per_sample, times));
    }
    let mut text = "cycles\tmilliseconds\tfiles\tmounts\tcgroups\tslab_kib\n".to_owned();
    for s in &seen {
        let Sample { cycles, milliseconds, files, mounts, cgroups, slab_kib } = s;
        writeln!(text, "{cycles}\t{milliseconds:.2}\t{files}\t{mounts}\t{cgroups}\t{slab_kib}").unwrap();
    }
    print!("{text}");
    if let Some(path) = std::env::var_os("SWEEP_PLOT") {
        fs::write(path, &text).unwrap();
    }
    t.nothing_left();
    // The first tenth fills caches.
    let (early, late) = (&seen[samples / 10..samples / 2], &seen[samples / 2..]);
    let middle = |of: &[Sample], value: fn(&Sample) -> f64| {
        let mut values: Vec<_> = of.iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    type Growing = (&'static str, fn(&Sample) -> f64, f64, f64);
    let growing: [Growing; 5] = [
        // What it may grow by: a part of what it was, and as much as the machine's other users make of it.
        ("milliseconds", |s| s.milliseconds, 0.1, 0.5),
        ("files", |s| s.files as f64, 0.0, 100.0),
        ("mounts", |s| s.mounts as f64, 0.0, 0.0),
        ("cgroups", |s| s.cgroups as f64, 0.0, 50.0),
        ("slab_kib", |s| s.slab_kib as f64, 0.1, 4096.0),
    ];
    for (what, value, part, much) in growing {
        let (before, after) = (middle(early, value), middle(late, value));
        assert!(after <= before * (1.0 + part) + much, "{what} grew from {before} to {after}");
    }
}
