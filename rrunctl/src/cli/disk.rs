//! `system`: what the engine takes, and gives back.

#![forbid(unsafe_code)]

use super::container::prune::{self, Old};
use super::container::ps;
use super::images::{NONE, id, names, since, text};
use super::table::{self, Row, row};
use super::{At, filter, human, info, network, volume};
use crate::container::record::Container;
use crate::container::types::{State, Summary};
use crate::engine::{Engine, Filters};
use crate::error::{Error, Result};
use crate::home;
use crate::image::{self, Usage};
use crate::store::Store;
use clap::{Args, Subcommand};
use std::path::Path;
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
    /// Show each image, container and volume
    #[arg(short, long)]
    verbose: bool,
}

impl Df {
    fn run(self, at: &At) -> Result<()> {
        let engine = at.engine()?;
        let usage = image::usage(&engine.store, &|id| engine.users(id))?;
        let (containers, broken) = engine.list(&Filters { all: true, size: true, ..Filters::default() })?;
        broken.iter().for_each(|e| at.complain(e));
        let volumes = volumes(engine)?;
        if self.verbose {
            let now = OffsetDateTime::now_utc().unix_timestamp();
            let shown: Vec<Summary> = containers.into_iter().map(|(.., one)| one).collect();
            return at.print(format_args!(
                "Images space usage:\n\n{}\nContainers space usage:\n\n{}\nLocal Volumes space usage:\n\n{}",
                verbose(&engine.store, &usage)?,
                ps::space(&shown, now)?,
                verbose_volumes(&volumes)?,
            ));
        }
        let written = |of: &dyn Fn(&State) -> bool| {
            let sizes = containers.iter().filter(|(_, state, _)| of(state)).map(|(.., one)| one.size_rw);
            sizes.filter_map(|size| u64::try_from(size).ok()).sum()
        };
        let running = containers.iter().filter(|(_, state, _)| state.running).count();
        let used = usage.images.iter().filter(|image| image.containers > 0).count();
        let in_use = volumes.iter().filter(|one| one.users > 0).count();
        let bytes =
            |unused: bool| volumes.iter().filter(|one| !unused || one.users == 0).map(|one| one.size).sum();
        let rows = vec![
            df_row("Images", usage.images.len(), used, usage.size, usage.reclaimable),
            df_row(
                "Containers",
                containers.len(),
                running,
                written(&|_| true),
                written(&|state| !state.running),
            ),
            df_row("Local Volumes", volumes.len(), in_use, bytes(false), bytes(true)),
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

/// A volume, how many containers have it and how many bytes are in it.
struct Held {
    name: String,
    users: usize,
    size: u64,
}

fn volumes(engine: &Engine) -> Result<Vec<Held>> {
    let (containers, _) = engine.containers.list_all()?;
    let mut all = Vec::new();
    for volume in engine.volumes.list()? {
        let has = |one: &&Container| {
            one.record
                .mount_points
                .values()
                .any(|point| point.r#type == "volume" && point.name == volume.name)
        };
        let users = containers.iter().filter(has).count();
        // One with options has its files somewhere else.
        let size = if volume.options.is_empty() { home::size(Path::new(&volume.mountpoint)) } else { 0 };
        all.push(Held { name: volume.name, users, size });
    }
    Ok(all)
}

fn verbose_volumes(volumes: &[Held]) -> Result<String> {
    let rows = volumes.iter().map(|one| {
        row([
            ("Links", text(one.users)),
            ("Name", one.name.as_str().into()),
            ("Size", human::precise_size(one.size).into()),
        ])
    });
    let titles: &[(&str, &str)] = &[("Links", "LINKS"), ("Name", "VOLUME NAME"), ("Size", "SIZE")];
    table::list(None, "{{.Name}}\t{{.Links}}\t{{.Size}}", titles, rows.collect())
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

/// Remove what nobody uses: containers that do not run, networks, images, and what killed commands left
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rrunctl system prune
  rrunctl system prune -af --volumes

Filters: until=TIME label=KEY[=VALUE] label!=KEY[=VALUE]")]
pub(super) struct Prune {
    /// Images with a name too, if no container has them
    #[arg(short, long)]
    all: bool,
    /// Only those that fit (KEY=VALUE); several times for several
    #[arg(long = "filter", value_name = "FILTER")]
    filters: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Volumes that nobody named too, if no container has them
    #[arg(long)]
    volumes: bool,
}

impl Prune {
    fn run(self, at: &At) -> Result<()> {
        let known = ["until", "label", "label!"];
        let (old, images) = (Old::parse(&self.filters)?, filter::images(&self.filters, &known)?);
        if self.volumes && images.until.is_some() {
            return Err(Error::invalid("The \"until\" filter is not supported with \"--volumes\""));
        }
        let mut what = vec![prune::STOPPED, "all networks not used by at least one container"];
        if self.volumes {
            what.push("all anonymous volumes not used by at least one container");
        }
        what.push(super::image::what(self.all));
        what.push("what killed commands left");
        let mut warning = format!("This will remove:\n  - {}\n", what.join("\n  - "));
        if !self.filters.is_empty() {
            let filters = self.filters.join("\n  - ");
            warning.push_str(&format!("\n  Items to be pruned will be filtered with:\n  - {filters}\n"));
        }
        let engine = at.engine()?;
        if !at.confirmed(self.force, &warning)? {
            return Ok(());
        }
        let (text, mut freed) = prune::pruned(engine, &old)?;
        at.print(text)?;
        at.print(network::prune_all(at, &self.filters)?)?;
        if self.volumes {
            let (names, bytes) =
                volume::prune(engine, false, &volume::Filters::parse(&self.filters, &known)?)?;
            if !names.is_empty() {
                at.say(format_args!("Deleted Volumes:\n{}\n", names.join("\n")))?;
            }
            freed += bytes;
        }
        let (removed, bytes) = image::prune(&engine.store, self.all, &images, &|id| engine.users(id))?;
        at.print(super::image::deleted(&removed))?;
        for warning in engine.sweep()? {
            at.warn(warning);
        }
        freed += bytes + engine.home.sweep()?;
        at.say(format_args!("Total reclaimed space: {}", human::precise_size(freed)))
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
