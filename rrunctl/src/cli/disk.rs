//! `system`: what the engine takes, and gives back.

#![forbid(unsafe_code)]

use super::images::{NONE, id, names, since, text};
use super::table::{self, Row, row};
use super::{At, human, image, info, network};
use crate::digest::Digest;
use crate::error::{Context as _, Error, Result};
use crate::home::{self, Home};
use crate::image::Usage;
use crate::store::{Filter, Store, User};
use clap::{Args, Subcommand};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs;
use time::OffsetDateTime;

/// Manage the engine as a whole
#[derive(Debug, Subcommand)]
#[command(arg_required_else_help = true)]
pub(super) enum System {
    Df(Df),
    Info(info::Info),
    Prune(Prune),
    Restore(Restore),
}

impl System {
    pub(super) fn run(self, at: &At) -> Result<()> {
        match self {
            Self::Df(command) => command.run(at),
            Self::Info(command) => command.run(at),
            Self::Prune(command) => command.run(at),
            Self::Restore(command) => command.run(at),
        }
    }
}

/// Show how much images, containers and volumes take
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rrunctl system df
  rrunctl system df --format '{{.Type}} {{.Reclaimable}}'

Fields: .Type .TotalCount .Active .Size .Reclaimable")]
pub(super) struct Df {
    /// Print as `table`, `table TEMPLATE`, `json` or TEMPLATE
    #[arg(long, value_name = "FORMAT", conflicts_with = "verbose")]
    format: Option<String>,
    /// Show each image
    #[arg(short, long)]
    verbose: bool,
}

impl Df {
    fn run(self, at: &At) -> Result<()> {
        let home = at.home()?;
        let store = at.store()?;
        let usage = crate::image::usage(&store, &|id| at.users(id))?;
        if self.verbose {
            return at.print(format_args!("Images space usage:\n\n{}", verbose(&store, &usage)?));
        }
        let made = containers(home)?;
        let running = made.iter().filter(|one| one.running).count();
        let sizes = made
            .iter()
            .map(|one| (one.running, home::size(&home.kept("containers").join(&one.id).join("rw"))));
        let (mut all, mut stopped) = (0, 0);
        for (running, size) in sizes {
            all += size;
            stopped += if running { 0 } else { size };
        }
        let used = usage.images.iter().filter(|image| image.containers > 0).count();
        let rows = vec![
            df_row("Images", usage.images.len(), used, usage.size, usage.reclaimable),
            df_row("Containers", made.len(), running, all, stopped),
            volumes(home, &made)?,
        ];
        let titles: &[(&str, &str)] = &[
            ("Active", "ACTIVE"),
            ("Reclaimable", "RECLAIMABLE"),
            ("Size", "SIZE"),
            ("TotalCount", "TOTAL"),
            ("Type", "TYPE"),
        ];
        let usual = "{{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}";
        at.print(table::list(self.format.as_deref(), usual, titles, rows)?)
    }
}

fn df_row(kind: &str, total: usize, active: usize, size: u64, reclaimable: u64) -> Row {
    let percent = u128::from(reclaimable) * 100 / u128::from(size.max(1));
    let back = human::precise_size(reclaimable);
    row([
        ("Active", text(active)),
        ("Reclaimable", if size > 0 { format!("{back} ({percent}%)") } else { back }.into()),
        ("Size", human::precise_size(size).into()),
        ("TotalCount", text(total)),
        ("Type", kind.into()),
    ])
}

/// Volumes, of which those that no container has could be given back.
fn volumes(home: &Home, made: &[Made]) -> Result<Row> {
    let dir = home.kept("volumes");
    let (mut total, mut active, mut size, mut unused) = (0, 0, 0, 0);
    for entry in fs::read_dir(&dir).context(|| format!("open {}", dir.display()))? {
        let entry = entry.context(|| format!("read {}", dir.display()))?;
        let data = entry.path().join("_data");
        if !data.is_dir() {
            continue;
        }
        let name = entry.file_name().to_string_lossy().into_owned();
        let used = made.iter().any(|one| one.volumes.contains(&name));
        let bytes = home::size(&data);
        total += 1;
        active += usize::from(used);
        size += bytes;
        unused += if used { 0 } else { bytes };
    }
    Ok(df_row("Local Volumes", total, active, size, unused))
}

fn verbose(store: &Store, usage: &Usage) -> Result<String> {
    let images = store.images();
    let names = names(&images.references()?);
    let now = OffsetDateTime::now_utc();
    let mut rows = Vec::new();
    for one in &usage.images {
        let image = images.get(&one.id)?;
        let name = names.get(&one.id).and_then(|names| names.first());
        rows.push(row([
            ("Containers", text(one.containers)),
            ("CreatedSince", since(image.created, now).into()),
            ("ID", id(&one.id, true).into()),
            ("Repository", name.map_or_else(|| NONE.to_owned(), |name| name.familiar_name()).into()),
            ("SharedSize", human::precise_size(one.shared).into()),
            ("Size", human::size(one.size).into()),
            ("Tag", name.and_then(|name| name.tag.as_deref()).unwrap_or(NONE).into()),
            ("UniqueSize", human::precise_size(one.size.saturating_sub(one.shared)).into()),
        ]));
    }
    let titles: &[(&str, &str)] = &[
        ("Containers", "CONTAINERS"),
        ("CreatedSince", "CREATED"),
        ("ID", "IMAGE ID"),
        ("Repository", "REPOSITORY"),
        ("SharedSize", "SHARED SIZE"),
        ("Size", "SIZE"),
        ("Tag", "TAG"),
        ("UniqueSize", "UNIQUE SIZE"),
    ];
    let usual = "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}\t{{.SharedSize}}\t{{.UniqueSize}}\
                 \t{{.Containers}}";
    table::list(None, usual, titles, rows)
}

/// Remove what nobody uses
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rrunctl system prune
  rrunctl system prune -af")]
pub(super) struct Prune {
    /// Images with a name too, if no container has them
    #[arg(short, long)]
    all: bool,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

impl Prune {
    fn run(self, at: &At) -> Result<()> {
        let store = at.store()?;
        let warning = format!(
            "This will remove:\n  - all networks not used by at least one container\n  - {}\n  - what killed commands \
             left\n",
            image::what(self.all)
        );
        if !at.confirmed(self.force, &warning)? {
            return Ok(());
        }
        at.print(network::prune_all(at)?)?;
        let (removed, freed) = crate::image::prune(&store, self.all, &Filter::default(), &|id| at.users(id))?;
        let left = at.home()?.sweep()?;
        at.print(image::deleted(&removed))?;
        at.say(format_args!("Total reclaimed space: {}", human::precise_size(freed.saturating_add(left))))
    }
}

/// Start the containers whose restart policy wants it, as after a boot
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rrunctl system restore

rrunctl-restore.service does it at boot: `always` starts, and `unless-stopped` unless somebody stopped it.")]
pub(super) struct Restore {}

impl Restore {
    fn run(self, at: &At) -> Result<()> {
        for (name, started) in at.engine()?.restore()? {
            match started {
                Ok(()) => at.say(name)?,
                Err(e) => at.complain(&e.context(name)),
            }
        }
        Ok(())
    }
}

/// A container, as far as an image matters to it.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) id: String,
    /// The image that it was made from.
    image: String,
    name: String,
    volumes: Vec<String>,
    pub(super) running: bool,
    pub(super) paused: bool,
}

/// Docker's config.v2.json.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Kept {
    #[serde(default)]
    image: String,
    #[serde(default)]
    config: KeptConfig,
    #[serde(default)]
    state: KeptState,
    #[serde(default)]
    mount_points: BTreeMap<String, KeptMount>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct KeptConfig {
    image: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct KeptState {
    running: bool,
    paused: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct KeptMount {
    name: String,
}

/// Every container.
pub(super) fn containers(home: &Home) -> Result<Vec<Made>> {
    let dir = home.kept("containers");
    let mut made = Vec::new();
    for entry in fs::read_dir(&dir).context(|| format!("open {}", dir.display()))? {
        let entry = entry.context(|| format!("read {}", dir.display()))?;
        let path = entry.path().join("config.v2.json");
        // It is being made, or removed.
        let Some(bytes) = home::read(&path)? else { continue };
        let kept: Kept = serde_json::from_slice(&bytes).map_err(|e| {
            Error::system(format!("{}: {e}", path.display())).remedy("repair or remove the file")
        })?;
        made.push(Made {
            id: entry.file_name().to_string_lossy().into_owned(),
            image: kept.image,
            name: kept.config.image,
            volumes: kept.mount_points.into_values().map(|mount| mount.name).collect(),
            running: kept.state.running,
            paused: kept.state.paused,
        });
    }
    Ok(made)
}

/// The containers that were made from an image.
pub(super) fn users(home: &Home, image: &Digest) -> Result<Vec<User>> {
    let image = image.to_string();
    let made = containers(home)?.into_iter().filter(|one| one.image == image);
    Ok(made.map(|one| User { id: one.id, running: one.running || one.paused, image: one.name }).collect())
}
