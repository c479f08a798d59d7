//! `stats`.

#![forbid(unsafe_code)]

use super::super::table::{self, Row, row};
use super::super::{At, human, images};
use crate::container::record::Container;
use crate::container::types::State;
use crate::engine::{Cpu, Engine, Filters, Stats as Sample};
use crate::error::{Kind, Result};
use clap::Args;
use std::collections::HashMap;
use std::io::{self, IsTerminal as _};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Between two samples.
const INTERVAL: Duration = Duration::from_secs(1);

/// Show what containers use, anew every second
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rrunctl stats
  rrunctl stats --no-stream web db
  rrunctl stats --no-stream --format '{{.Name}} {{.CPUPerc}} {{.MemUsage}}'

Fields: .Container .Name .ID .CPUPerc .MemUsage .MemPerc .NetIO .BlockIO .PIDs")]
pub(in super::super) struct Stats {
    /// Names or ids; all that run, if there are none
    #[arg(value_name = "CONTAINER")]
    names: Vec<String>,
    /// Those that do not run, too
    #[arg(short, long)]
    all: bool,
    /// Print as `table`, `table TEMPLATE`, `json` or TEMPLATE
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Only once
    #[arg(long)]
    no_stream: bool,
    /// Do not shorten ids
    #[arg(long)]
    no_trunc: bool,
}

const TITLES: &[(&str, &str)] = &[
    ("BlockIO", "BLOCK I/O"),
    ("CPUPerc", "CPU %"),
    ("Container", "CONTAINER"),
    ("ID", "CONTAINER ID"),
    ("MemPerc", "MEM %"),
    ("MemUsage", "MEM USAGE / LIMIT"),
    ("Name", "NAME"),
    ("NetIO", "NET I/O"),
    ("PIDs", "PIDS"),
];
const USUAL: &str =
    "{{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}";

impl Stats {
    pub(in super::super) fn run(self, at: &At) -> Result<()> {
        let engine = at.engine()?;
        // What it says is wrong is told before the first second is over.
        table::list(self.format.as_deref(), USUAL, TITLES, Vec::new())?;
        let mut asked = Vec::new();
        at.each(&self.names, |name| {
            asked.push((name.to_owned(), engine.resolve(name)?));
            Ok(())
        })?;
        if asked.len() < self.names.len() {
            return Ok(());
        }
        let mut before: HashMap<String, Cpu> = HashMap::new();
        for (_, container, state) in self.shown(engine, &asked)? {
            if let Some(sample) = engine.stats(&container, &state)? {
                before.insert(container.record.id, sample.cpu);
            }
        }
        let terminal = io::stdout().is_terminal() && !self.no_stream;
        if terminal {
            at.print("\x1b[H\x1b[2J")?;
        }
        let mut next = Instant::now();
        loop {
            // Nobody waits for what nobody uses.
            if !before.is_empty() || !self.no_stream {
                next += INTERVAL;
                sleep(next.saturating_duration_since(Instant::now()));
            }
            let mut rows = Vec::new();
            let mut now = HashMap::new();
            for (name, container, state) in self.shown(engine, &asked)? {
                let sample = engine.stats(&container, &state)?;
                let id = &container.record.id;
                if let Some(sample) = &sample {
                    now.insert(id.clone(), sample.cpu);
                }
                let container = (name.as_str(), id.as_str(), container.record.name.trim_start_matches('/'));
                rows.push(sample_row(container, &sample.unwrap_or_default(), before.get(id), !self.no_trunc));
            }
            let gone = !asked.is_empty() && rows.is_empty();
            let text = table::list(self.format.as_deref(), USUAL, TITLES, rows)?;
            if terminal {
                // Each line over the one before, as an empty screen in between would flicker.
                at.print(format_args!("\x1b[H{}\x1b[J", text.replace('\n', "\x1b[K\n")))?;
            } else {
                at.print(text)?;
            }
            if self.no_stream || gone {
                return Ok(());
            }
            before = now;
        }
    }

    /// Those to show, each with what it was called by; one that was removed meanwhile is none.
    fn shown(&self, engine: &Engine, asked: &[(String, String)]) -> Result<Vec<(String, Container, State)>> {
        let mut shown = Vec::new();
        if asked.is_empty() {
            let filters = Filters { all: self.all, ..Filters::default() };
            for (container, state, _) in engine.list(&filters)?.0 {
                let name = container.record.id.get(..12).unwrap_or_default().to_owned();
                shown.push((name, container, state));
            }
        }
        for (name, id) in asked {
            let found =
                engine.containers.load(id).and_then(|one| Ok((name.clone(), engine.state(&one)?, one)));
            match found {
                Err(e) if e.kind() == Kind::NotFound => {}
                found => shown.extend(found.map(|(name, state, one)| (name, one, state))),
            }
        }
        Ok(shown)
    }
}

fn sample_row(container: (&str, &str, &str), sample: &Sample, before: Option<&Cpu>, short: bool) -> Row {
    let (given, id, name) = container;
    let id = if short { id.get(..12).unwrap_or(id) } else { id };
    #[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
    let percent = match sample.memory.limit {
        0 => 0.0,
        limit => sample.memory.used() as f64 / limit as f64 * 100.0,
    };
    let sum = |all: &dyn Fn(&crate::engine::Interface) -> u64| {
        human::size(sample.networks.values().map(all).fold(0, u64::saturating_add))
    };
    let cpu = before.map_or(0.0, |before| sample.cpu.percent_since(before));
    let memory = format!("{} / {}", human::memory(sample.memory.used()), human::memory(sample.memory.limit));
    row([
        ("BlockIO", format!("{} / {}", human::size(sample.io.read), human::size(sample.io.write)).into()),
        ("CPUPerc", format!("{cpu:.2}%").into()),
        ("Container", given.into()),
        ("ID", id.into()),
        ("MemPerc", format!("{percent:.2}%").into()),
        ("MemUsage", memory.into()),
        ("Name", name.into()),
        ("NetIO", format!("{} / {}", sum(&|one| one.rx_bytes), sum(&|one| one.tx_bytes)).into()),
        ("PIDs", images::text(sample.pids)),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Interface, Io, Memory};
    use std::collections::BTreeMap;

    // What is expected is what docker 28.2.2 prints of the same numbers.
    #[test]
    fn a_container_is_told_as_docker_tells_it() {
        let network = |rx_bytes, tx_bytes| Interface { rx_bytes, tx_bytes, ..Interface::default() };
        let sample = Sample {
            cpu: Cpu { total: 500_000_000, system: 4_000_000_000, online: 2 },
            memory: Memory { usage: 12_345_678, inactive_file: 345_678, limit: 8_345_100_288 },
            pids: 7,
            networks: BTreeMap::from([
                ("eth0".into(), network(1000, 999_999)),
                ("eth1".into(), network(1, 2)),
            ]),
            io: Io { read: 1_234_568, write: 999 },
        };
        let before = Cpu { total: 100_000_000, system: 2_000_000_000, online: 2 };
        let id = "c0ffee".repeat(11);
        let listed = |sample: &Sample, before| {
            let rows = vec![sample_row(("web", &id[..64], "web"), sample, before, true)];
            table::list(None, USUAL, TITLES, rows).expect("a list")
        };
        assert_eq!(
            listed(&sample, Some(&before)),
            "CONTAINER ID   NAME      CPU %     MEM USAGE / LIMIT     MEM %     NET I/O     BLOCK I/O       PIDS\n\
             c0ffeec0ffee   web       40.00%    11.44MiB / 7.772GiB   0.14%     1kB / 1MB   1.23MB / 999B   7\n"
        );
        let row =
            "c0ffeec0ffee   web       0.00%     0B / 0B             0.00%     0B / 0B   0B / 0B     0\n";
        assert!(listed(&Sample::default(), None).ends_with(row));
    }
}
