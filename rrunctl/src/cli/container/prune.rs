//! `container prune`.

#![forbid(unsafe_code)]

use super::super::{At, filter, human};
use crate::container::record::Container;
use crate::container::status;
use crate::engine::Engine;
use crate::error::Result;
use clap::Args;
use std::fmt::Write as _;
use time::OffsetDateTime;

/// What a prune removes.
pub(in super::super) const STOPPED: &str = "all stopped containers";

/// Remove all containers that do not run
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rrunctl container prune
  rrunctl container prune -f --filter until=24h

Filters: until=TIME label=KEY[=VALUE] label!=KEY[=VALUE]")]
pub(in super::super) struct Prune {
    /// Only those that fit (KEY=VALUE); several times for several
    #[arg(long = "filter", value_name = "FILTER")]
    filters: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

impl Prune {
    pub(in super::super) fn run(self, at: &At) -> Result<()> {
        let old = Old::parse(&self.filters)?;
        let engine = at.engine()?;
        if !at.confirmed(self.force, &format!("This will remove {STOPPED}."))? {
            return Ok(());
        }
        let (text, bytes) = pruned(engine, &old)?;
        at.print(text)?;
        at.say(format_args!("Total reclaimed space: {}", human::precise_size(bytes)))
    }
}

/// Removes those that do not run; what to print of it, and how many bytes are free again.
pub(in super::super) fn pruned(engine: &Engine, old: &Old) -> Result<(String, u64)> {
    let pruned = engine.prune(|container| old.has(container))?;
    let mut text = String::new();
    if !pruned.ids.is_empty() {
        let _ = writeln!(text, "Deleted Containers:\n{}\n", pruned.ids.join("\n"));
    }
    Ok((text, pruned.bytes))
}

/// `--filter` of a prune.
#[derive(Debug, Default)]
pub(in super::super) struct Old {
    until: Option<OffsetDateTime>,
    labels: Vec<String>,
    without: Vec<String>,
}

impl Old {
    pub(in super::super) fn parse(filters: &[String]) -> Result<Self> {
        let mut old = Self::default();
        for text in filters {
            let (key, value) = filter::pair(text, &["until", "label", "label!"])?;
            match key.as_str() {
                "label" => old.labels.push(value),
                "label!" => old.without.push(value),
                _ => old.until = Some(filter::instant(&value, OffsetDateTime::now_utc())?),
            }
        }
        Ok(old)
    }

    fn has(&self, container: &Container) -> bool {
        let record = &container.record;
        // What cannot be read is no reason to remove it.
        let made = status::parse_time(&record.created).ok().flatten();
        self.until.is_none_or(|until| made.is_some_and(|made| made < until))
            && self.fits(|key| record.config.labels.get(key))
    }

    /// By labels alone.
    pub(in super::super) fn fits<'a>(&self, label: impl Fn(&str) -> Option<&'a String>) -> bool {
        let has = |text: &String| match text.split_once('=') {
            Some((key, value)) => label(key).is_some_and(|known| known == value),
            None => label(text).is_some(),
        };
        self.labels.iter().all(has) && !self.without.iter().any(has)
    }
}
