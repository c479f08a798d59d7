//! Many thousand lifecycles, and what of the machine they use up: nothing.

use crate::harness::{Test, runtime};
use std::fmt::Write as _;
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

/// What could grow, read after each thousandth part of the soak.
struct Sample {
    cycles: usize,
    /// Milliseconds of one lifecycle, of which a tenth since the last sample took less: what else the machine does makes
    /// some slower and none faster.
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

/// Of every hierarchy, those that are removed and that the kernel has not freed yet among them.
fn cgroups() -> u64 {
    let text = fs::read_to_string("/proc/cgroups").unwrap();
    text.lines().filter_map(|l| l.split_whitespace().nth(2)?.parse::<u64>().ok()).sum()
}

/// The kernel frees a cgroup, and its memory, some time after its removal: what it still has to free is waited for, but
/// not longer than it could need.
fn sample(cycles: usize, mut times: Vec<f64>, at_first: u64) -> Sample {
    times.sort_by(f64::total_cmp);
    let end = Instant::now() + Duration::from_secs(10);
    while cgroups() > at_first && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(20));
    }
    Sample {
        cycles,
        milliseconds: times[times.len() / 10],
        files: first_number("/proc/sys/fs/file-nr", ""),
        mounts: fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count(),
        cgroups: cgroups(),
        slab_kib: first_number("/proc/meminfo", "SUnreclaim:"),
    }
}

/// What is sampled, what it may grow by, which is a part of what it was and as much as the machine's other users make of
/// it, and the unit of the plot.
struct Growing {
    what: &'static str,
    value: fn(&Sample) -> f64,
    part: f64,
    much: f64,
}

const GROWING: [Growing; 5] = {
    const fn growing(what: &'static str, value: fn(&Sample) -> f64, part: f64, much: f64) -> Growing {
        Growing { what, value, part, much }
    }
    [
        growing("milliseconds", |s| s.milliseconds, 0.1, 0.5),
        growing("open files", |s| s.files as f64, 0.0, 100.0),
        growing("mounts", |s| s.mounts as f64, 0.0, 0.0),
        growing("cgroups", |s| s.cgroups as f64, 0.0, 20.0),
        growing("slab, KiB", |s| s.slab_kib as f64, 0.1, 4096.0),
    ]
};

/// The samples as a drawing: a curve for each of [`GROWING`], from 0 up.
fn plot(seen: &[Sample]) -> String {
    const WIDTH: f64 = 640.0;
    const HEIGHT: f64 = 80.0;
    const LEFT: f64 = 110.0;
    let cycles = seen.last().unwrap().cycles;
    let (kernel, date) = (output("uname", &["-r"]), output("date", &["-u", "+%F"]));
    let cpus = std::thread::available_parallelism().unwrap();
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{}\" height=\"{}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"10\" y=\"20\">{cycles} lifecycles; Linux {kernel}, {cpus} processors, {date}</text>\n",
        LEFT + WIDTH + 20.0,
        40.0 + (HEIGHT + 20.0) * GROWING.len() as f64,
    );
    for (n, Growing { what, value, .. }) in GROWING.iter().enumerate() {
        let top = 40.0 + (HEIGHT + 20.0) * n as f64;
        let highest = seen.iter().map(value).fold(1.0, f64::max);
        let at = |s: &Sample| {
            let x = LEFT + WIDTH * s.cycles as f64 / cycles as f64;
            format!("{x:.1},{:.1}", top + HEIGHT * (1.0 - value(s) / highest))
        };
        let points: Vec<_> = seen.iter().map(at).collect();
        let bottom = top + HEIGHT;
        writeln!(
            svg,
            "<text x=\"10\" y=\"{:.0}\">{what}</text><text x=\"10\" y=\"{:.0}\">up to {highest:.1}</text>\n\
             <path d=\"M{LEFT} {top}V{bottom}H{}\" fill=\"none\" stroke=\"gray\"/>\n\
             <polyline points=\"{}\" fill=\"none\" stroke=\"navy\" stroke-width=\"1.5\"/>",
            top + 15.0,
            top + 30.0,
            LEFT + WIDTH,
            points.join(" "),
        )
        .unwrap();
    }
    svg + "</svg>\n"
}

fn output(program: &str, args: &[&str]) -> String {
    let out = Command::new(program).args(args).output().unwrap();
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}

/// One lifecycle, and how many milliseconds it took.
fn lifecycle(t: &Test) -> f64 {
    let run = |args: &[&str]| {
        let mut command = Command::new(runtime());
        let status = command.arg("--root").arg(&t.state).args(args).env("RRUN_TEST", &t.id).status().unwrap();
        assert!(status.success(), "{args:?}");
    };
    let begin = Instant::now();
    run(&["create", "--bundle", t.bundle.to_str().unwrap(), &t.id]);
    run(&["start", &t.id]);
    run(&["delete", "--force", &t.id]);
    begin.elapsed().as_secs_f64() * 1000.0
}

/// `SWEEP_CYCLES` (20,000) of create, start and delete --force, four at a time as they wait for the kernel more than they
/// compute; `SWEEP_PLOT` names an SVG file for the samples.
#[test]
fn lifecycles_use_nothing_up() {
    let cycles: usize = std::env::var("SWEEP_CYCLES").map_or(20_000, |v| v.parse().unwrap());
    let tests = [(); 4].map(|()| Test::new("soak"));
    for t in &tests {
        t.sh("exec sleep 1000");
    }
    let at_first = cgroups();
    let (samples, each) = (50, (cycles / 50 / tests.len()).max(1));
    let seen: Vec<_> = (1..=samples)
        .map(|n| {
            let times = std::thread::scope(|scope| {
                let all = tests.each_ref().map(|t| scope.spawn(|| (0..each).map(|_| lifecycle(t)).collect()));
                all.into_iter().flat_map(|times| times.join().unwrap_or_else(|_| Vec::new())).collect()
            });
            sample(n * each * tests.len(), times, at_first)
        })
        .collect();
    let mut text = "cycles\tmilliseconds\tfiles\tmounts\tcgroups\tslab_kib\n".to_owned();
    for s in &seen {
        let Sample { cycles, milliseconds, files, mounts, cgroups, slab_kib } = s;
        writeln!(text, "{cycles}\t{milliseconds:.2}\t{files}\t{mounts}\t{cgroups}\t{slab_kib}").unwrap();
    }
    print!("{text}");
    if let Some(path) = std::env::var_os("SWEEP_PLOT") {
        fs::write(path, plot(&seen)).unwrap();
    }
    for t in &tests {
        t.nothing_left();
    }
    // The first tenth fills caches.
    let (early, late) = (&seen[samples / 10..samples / 2], &seen[samples / 2..]);
    let middle = |of: &[Sample], value: fn(&Sample) -> f64| {
        let mut values: Vec<_> = of.iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let grown: Vec<_> = GROWING
        .iter()
        .filter_map(|Growing { what, value, part, much }| {
            let (before, after) = (middle(early, *value), middle(late, *value));
            let flat = after <= before * (1.0 + part) + much;
            (!flat).then(|| format!("{what} grew from {before} to {after}"))
        })
        .collect();
    assert!(grown.is_empty(), "{}", grown.join("; "));
}
