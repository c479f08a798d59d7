//! bench-engine --dir DIR --cgroup NAME --rounds N --rrunctl FILE --rrun FILE --markdown FILE --json FILE
//!
//! Measures rrunctl beside dockerd and podman, in the namespaces that `rrunctl/bench/bench` makes: nothing is taken down
//! here that goes with them. All files are below DIR, all cgroups below NAME.
//!
//! main: the order of the measurements. image: what is pulled. engines: how each engine is started and called. measure:
//! what is measured. report: how it is told.

// All paths are below a directory of its own.
#![allow(clippy::disallowed_methods)]

mod engines;
mod image;
mod measure;
mod report;

use engines::{Engine, Place};
use measure::Bench;
use std::collections::HashMap;
use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

fn run() -> Result<bool, Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let given: HashMap<&str, &str> =
        words.chunks_exact(2).map(|pair| (pair[0].as_str(), pair[1].as_str())).collect();
    let value = |name: &str| given.get(name).copied().ok_or_else(|| format!("{name} is needed"));
    let about = report::machine();
    let place = Place::new(Path::new(value("--dir")?), value("--cgroup")?)?;
    let rounds = value("--rounds")?.parse()?;

    eprintln!("images");
    let registry = image::Registry::start(&place.dir.join("registry"))?;
    eprintln!("engines");
    let engines = vec![
        Engine::rrunctl(&place, Path::new(value("--rrunctl")?), Path::new(value("--rrun")?))?,
        Engine::docker(&place)?,
        Engine::podman(&place)?,
    ];
    let mut bench = Bench::new(engines, registry, rounds);
    bench.prepare()?;
    bench.rounds();
    eprintln!("memory");
    bench.memory()?;
    fs::write(value("--markdown")?, report::markdown(&bench, &about))?;
    fs::write(value("--json")?, serde_json::to_string_pretty(&report::json(&bench, &about))? + "\n")?;
    Ok(bench.failures(0) == 0)
}

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("bench-engine: rrunctl failed: the report says where");
            ExitCode::FAILURE
        }
        Err(e) => {
            eprintln!("bench-engine: {e}");
            ExitCode::FAILURE
        }
    }
}
