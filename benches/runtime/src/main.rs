//! bench --dir DIR --floor DIR --runtime NAME=PATH... [--rounds N] [--pause MS...] [--alive N]
//!       [--markdown FILE] [--json FILE] [--svg DIR] [--command WORDS] [--note TEXT]
//! bench --clean --dir DIR --floor DIR --runtime NAME=PATH...
//!
//! Measures the runtimes, of which the first is compared with the others, and the programs of benches/floor, which are
//! in the directory that --floor names, as root. Bundles, state and all else is below DIR; containers are deleted, DIR
//! is not. After a run that was killed, --clean deletes what it has left. With fewer than a hundred alive there is no
//! table of a hundred. The report names WORDS as what wrote it and has TEXT at its head. `benches/bench` calls it, and
//! `tests/vm/bench`.
//!
//! main: the order of the measurements. bundle: what is run. runtime: how one command is made and timed. measure: what is
//! measured. phases: the kernel's account of it. report: how it is told.

// All paths are below a directory of its own.
#![allow(clippy::disallowed_methods)]

mod bundle;
mod measure;
mod phases;
mod report;
mod runtime;

use measure::{Bench, CROWD};
use report::Report;
use runtime::{Floor, Runtime};
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

#[derive(Default)]
struct Arguments {
    dir: PathBuf,
    floor: PathBuf,
    runtimes: Vec<(String, PathBuf)>,
    rounds: usize,
    pauses: Vec<u64>,
    alive: usize,
    markdown: Option<PathBuf>,
    json: Option<PathBuf>,
    svg: Option<PathBuf>,
    command: String,
    note: Option<String>,
    clean: bool,
}

fn arguments() -> Result<Arguments, Box<dyn Error>> {
    let mut found =
        Arguments { rounds: 100, alive: 1000, command: "make bench".to_owned(), ..Arguments::default() };
    let mut words = std::env::args().skip(1);
    while let Some(flag) = words.next() {
        if flag == "--clean" {
            found.clean = true;
            continue;
        }
        let value = words.next().ok_or_else(|| format!("{flag} lacks its value"))?;
        match flag.as_str() {
            "--dir" => found.dir = value.into(),
            "--floor" => found.floor = value.into(),
            "--runtime" => {
                let (name, path) = value.split_once('=').ok_or("--runtime NAME=PATH")?;
                found.runtimes.push((name.to_owned(), fs::canonicalize(path)?));
            }
            "--rounds" => found.rounds = value.parse()?,
            "--pause" => found.pauses.push(value.parse()?),
            "--alive" => found.alive = value.parse()?,
            "--markdown" => found.markdown = Some(value.into()),
            "--json" => found.json = Some(value.into()),
            "--svg" => found.svg = Some(value.into()),
            "--command" => found.command = value,
            "--note" => found.note = Some(value),
            _ => return Err(format!("{flag}: unknown").into()),
        }
    }
    if found.runtimes.is_empty() || found.dir.as_os_str().is_empty() || found.floor.as_os_str().is_empty() {
        return Err("--dir, --floor and --runtime are needed".into());
    }
    if found.pauses.is_empty() {
        found.pauses = vec![0, 50];
    }
    Ok(found)
}

fn version(path: &Path) -> String {
    let out = Command::new(path).arg("--version").output().map(|out| out.stdout).unwrap_or_default();
    let text = String::from_utf8_lossy(&out);
    text.lines().next().unwrap_or_default().replace(" version:", "").replace(" version", "")
}

fn measure(arguments: &Arguments, bench: &Bench) -> Result<(), Box<dyn Error>> {
    let bundles = bundle::write_all(&arguments.dir, &bench.runtimes[0].path)?;
    let mut about = report::machine();
    about.push(("rounds", bench.rounds.to_string()));
    let versions: Vec<_> = bench.runtimes.iter().map(|runtime| version(&runtime.path)).collect();
    about.push(("runtimes", versions.join(", ")));
    about.push(("command", format!("`{} ROUNDS={}`", arguments.command, bench.rounds)));
    let default = &bundles[0];
    let lifecycles = bench.lifecycles(&bundles);
    eprintln!("memory, system calls");
    let costs = bench.costs(default)?;
    eprintln!("where a run's time goes");
    let profile = bench.profile(default);
    let crowds = if arguments.alive < CROWD {
        Vec::new()
    } else {
        eprintln!("a hundred containers");
        bench.crowds(default)
    };
    eprintln!("{} containers", arguments.alive);
    let flats = bench.flatness(default, arguments.alive);
    let report = Report {
        bench,
        bundles: &bundles,
        lifecycles,
        costs,
        profile,
        flats,
        crowds,
        about,
        command: &arguments.command,
        note: arguments.note.as_deref(),
        plotted: arguments.svg.is_some(),
    };
    let write =
        |path: &Option<PathBuf>, text: &str| path.as_ref().map_or(Ok(()), |path| fs::write(path, text));
    write(&arguments.markdown, &report.markdown())?;
    write(&arguments.json, &(serde_json::to_string_pretty(&report.json())? + "\n"))?;
    for (name, text) in report.plots() {
        write(&arguments.svg.as_ref().map(|dir| dir.join(name)), &text)?;
    }
    Ok(())
}

fn main() -> ExitCode {
    let done = arguments().and_then(|arguments| {
        // What a runtime leaves running becomes a child of this process, which can then wait for its end.
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        runtime::watch();
        let runtimes = arguments.runtimes.iter().map(|(name, path)| Runtime::new(name, path, &arguments.dir));
        let bench = Bench {
            runtimes: runtimes.collect::<Result<_, _>>()?,
            floor: Floor::new(&arguments.floor, &arguments.dir)?,
            rounds: arguments.rounds,
            pauses: arguments.pauses.clone(),
            dir: arguments.dir.clone(),
            prefix: "rrun-bench-".to_owned(),
        };
        let measured = if arguments.clean { Ok(()) } else { measure(&arguments, &bench) };
        bench.clean();
        measured
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}
