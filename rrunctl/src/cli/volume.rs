//! `volume`: directories that outlive containers.

#![forbid(unsafe_code)]

use super::table::{self, Row, row};
use super::{At, filter, human, inspect};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::volume::{CreateVolume, Volume, Volumes};
use clap::{Args, Subcommand};
use serde_json::Value;
use std::collections::BTreeMap;

/// Manage volumes
#[derive(Debug, Subcommand)]
#[command(arg_required_else_help = true)]
pub(super) enum Command {
    Create(Create),
    Inspect(Inspect),
    #[command(visible_alias = "list")]
    Ls(List),
    Prune(Prune),
    #[command(visible_alias = "remove")]
    Rm(Remove),
}

impl Command {
    pub(super) fn run(self, at: &At) -> Result<()> {
        match self {
            Self::Create(command) => command.run(at),
            Self::Inspect(command) => command.run(at),
            Self::Ls(command) => command.run(at),
            Self::Prune(command) => command.run(at),
            Self::Rm(command) => command.run(at),
        }
    }
}

/// Make a volume
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rrunctl volume create mydb
  rrunctl volume create --label team=a mydb
  rrunctl volume create -o type=tmpfs -o device=tmpfs -o o=size=64m scratch")]
pub(super) struct Create {
    /// What it is called; made up unless given
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// Who makes it
    #[arg(short, long, default_value = "local")]
    driver: String,
    /// For its owner: KEY=VALUE
    #[arg(long, value_name = "KEY=VALUE")]
    label: Vec<String>,
    /// As mount(8) has them: type=, device=, o=
    #[arg(short, long = "opt", value_name = "KEY=VALUE")]
    options: Vec<String>,
}

fn pairs(texts: &[String]) -> BTreeMap<String, String> {
    let pair = |text: &String| {
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        (key.to_owned(), value.to_owned())
    };
    texts.iter().map(pair).collect()
}

impl Create {
    fn run(self, at: &At) -> Result<()> {
        let (labels, options) = (pairs(&self.label), pairs(&self.options));
        let volume = at.engine()?.volumes.create(CreateVolume {
            name: self.name.unwrap_or_default(),
            driver: self.driver,
            labels: if labels.is_empty() { Default::default() } else { labels.into() },
            options: if options.is_empty() { Default::default() } else { options.into() },
        })?;
        at.say(volume.name)
    }
}

/// Show all there is to know of volumes
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rrunctl volume inspect mydb
  rrunctl volume inspect -f '{{.Mountpoint}}' mydb")]
pub(super) struct Inspect {
    /// Their names
    #[arg(value_name = "VOLUME", required = true)]
    names: Vec<String>,
    /// Print as `json` or TEMPLATE
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
}

impl Inspect {
    fn run(self, at: &At) -> Result<()> {
        let engine = at.engine()?;
        inspect::show(at, &self.names, self.format.as_deref(), |name| value(&engine.volumes, name))
    }
}

/// A volume as `inspect` prints it.
pub(super) fn value(volumes: &Volumes, name: &str) -> Result<Value> {
    serde_json::to_value(volumes.inspect(name)?).map_err(|e| Error::system(e.to_string()))
}

/// List volumes
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rrunctl volume ls
  rrunctl volume ls -q -f dangling=true
  rrunctl volume ls --format '{{.Name}} {{.Mountpoint}}'

Filters: dangling, driver, label, name. Fields: .Driver .Labels .Mountpoint .Name .Scope")]
pub(super) struct List {
    /// Only those with KEY=VALUE
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Print as `table`, `table TEMPLATE`, `json` or TEMPLATE
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Only names
    #[arg(short, long)]
    quiet: bool,
}

impl List {
    fn run(self, at: &At) -> Result<()> {
        let engine = at.engine()?;
        let filters = Filters::parse(&self.filter, &["dangling", "driver", "label", "name"])?;
        let mut rows: Vec<Row> = Vec::new();
        for volume in engine.volumes.list()? {
            if filters.let_through(engine, &volume)? {
                rows.push(as_row(&volume));
            }
        }
        if self.quiet {
            let names: Vec<String> =
                rows.iter().map(|row| format!("{}\n", row["Name"].as_str().unwrap_or_default())).collect();
            return at.print(names.concat());
        }
        let titles: &[(&str, &str)] = &[
            ("Driver", "DRIVER"),
            ("Labels", "LABELS"),
            ("Mountpoint", "MOUNTPOINT"),
            ("Name", "VOLUME NAME"),
            ("Scope", "SCOPE"),
        ];
        at.print(table::list(self.format.as_deref(), "{{.Driver}}\t{{.Name}}", titles, rows)?)
    }
}

fn as_row(volume: &Volume) -> Row {
    let labels: Vec<String> = volume.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    row([
        ("Driver", volume.driver.clone().into()),
        ("Labels", labels.join(",").into()),
        ("Mountpoint", volume.mountpoint.clone().into()),
        ("Name", volume.name.clone().into()),
        ("Scope", volume.scope.clone().into()),
    ])
}

/// `--filter`: every label, and one value of each other key.
#[derive(Debug)]
pub(super) struct Filters(Vec<(String, String)>);

impl Filters {
    pub(super) fn parse(texts: &[String], known: &[&str]) -> Result<Self> {
        texts.iter().map(|text| filter::pair(text, known)).collect::<Result<_>>().map(Self)
    }

    fn let_through(&self, engine: &Engine, volume: &Volume) -> Result<bool> {
        let mut names = self.0.iter().filter(|(key, _)| key == "name").map(|(_, value)| value).peekable();
        if names.peek().is_some() && !names.any(|name| volume.name.contains(name)) {
            return Ok(false);
        }
        for (key, value) in &self.0 {
            let fits = match key.as_str() {
                "driver" => volume.driver == *value,
                "dangling" => {
                    let unused = engine.containers.users_of_volume(&volume.name)?.is_empty();
                    unused == filter::truth(key, value)?
                }
                _ => true,
            };
            if !fits {
                return Ok(false);
            }
        }
        Ok(self.labels(volume))
    }

    fn labels(&self, volume: &Volume) -> bool {
        let has = |label: &str| match label.split_once('=') {
            Some((key, value)) => volume.labels.get(key).is_some_and(|known| known == value),
            None => volume.labels.contains_key(label),
        };
        self.0.iter().all(|(key, value)| match key.as_str() {
            "label" => has(value),
            "label!" => !has(value),
            _ => true,
        })
    }
}

/// Remove volumes that no container has
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rrunctl volume rm mydb")]
pub(super) struct Remove {
    /// Their names
    #[arg(value_name = "VOLUME", required = true)]
    names: Vec<String>,
    /// What is not there is no error
    #[arg(short, long)]
    force: bool,
}

impl Remove {
    fn run(self, at: &At) -> Result<()> {
        let engine = at.engine()?;
        at.each(&self.names, |name| {
            engine.volumes.remove(name, self.force, |name| engine.containers.users_of_volume(name))?;
            at.say(name)
        })
    }
}

/// Remove volumes that no container has and that nobody named
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rrunctl volume prune
  rrunctl volume prune -af --filter label=old")]
pub(super) struct Prune {
    /// Those with a name too
    #[arg(short, long)]
    all: bool,
    /// Only those with KEY=VALUE
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

impl Prune {
    fn run(self, at: &At) -> Result<()> {
        let engine = at.engine()?;
        let filters = Filters::parse(&self.filter, &["label", "label!"])?;
        let which = if self.all { "all" } else { "anonymous" };
        let warning = format!("This will remove {which} local volumes not used by at least one container.");
        if !at.confirmed(self.force, &warning)? {
            return Ok(());
        }
        let (names, bytes) = prune(engine, self.all, &filters)?;
        if !names.is_empty() {
            at.say(format_args!("Deleted Volumes:\n{}\n", names.join("\n")))?;
        }
        at.say(format_args!("Total reclaimed space: {}", human::precise_size(bytes)))
    }
}

/// Removes the volumes that no container has.
pub(super) fn prune(engine: &Engine, all: bool, filters: &Filters) -> Result<(Vec<String>, u64)> {
    engine.volumes.prune(all, |volume| filters.labels(volume), |name| engine.containers.users_of_volume(name))
}
