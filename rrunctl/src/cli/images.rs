//! `images` and `history`: lists of images and of how one was made.

#![forbid(unsafe_code)]

use super::table::{self, Row, row};
use super::{At, filter, human};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::image::{self, Image};
use crate::reference::Reference;
use clap::Args;
use serde_json::Value;
use std::collections::BTreeMap;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

/// What a table has where there is nothing.
pub(super) const NONE: &str = "<none>";

/// List images
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rrunctl images
  rrunctl images 'busy*'
  rrunctl images --filter dangling=true -q
  rrunctl images --format 'table {{.Repository}}\\t{{.Tag}}\\t{{.Size}}'

Fields: .ID .Repository .Tag .Digest .CreatedSince .CreatedAt .Size .VirtualSize
Filters: reference=PATTERN dangling=BOOL label=KEY[=VALUE] before=IMAGE since=IMAGE until=TIME")]
pub(super) struct List {
    /// Only this one, or those that the pattern fits
    #[arg(value_name = "REPOSITORY[:TAG]")]
    name: Option<String>,
    /// Show all images: those too that others were built on
    #[arg(short, long)]
    all: bool,
    /// Show digests
    #[arg(long)]
    digests: bool,
    /// Only those that fit (KEY=VALUE); several times for several
    #[arg(short, long = "filter", value_name = "FILTER")]
    filters: Vec<String>,
    /// Print as `table`, `table TEMPLATE`, `json` or TEMPLATE
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Do not shorten ids
    #[arg(long)]
    no_trunc: bool,
    /// Only ids
    #[arg(short, long)]
    quiet: bool,
}

const TITLES: &[(&str, &str)] = &[
    ("Containers", "CONTAINERS"),
    ("CreatedAt", "CREATED AT"),
    ("CreatedSince", "CREATED"),
    ("Digest", "DIGEST"),
    ("ID", "IMAGE ID"),
    ("Repository", "REPOSITORY"),
    ("SharedSize", "SHARED SIZE"),
    ("Size", "SIZE"),
    ("Tag", "TAG"),
    ("UniqueSize", "UNIQUE SIZE"),
    ("VirtualSize", "SIZE"),
];

impl List {
    pub(super) fn run(self, at: &At) -> Result<()> {
        let known = ["reference", "dangling", "label", "label!", "before", "since", "until"];
        let mut wanted = filter::images(&self.filters, &known)?;
        if let Some(name) = &self.name {
            wanted.reference.push(name.clone());
        }
        wanted.all = self.all;
        let images = at.store()?.images();
        let found = images.find(&wanted)?;
        let names = names(&images.references()?);
        let now = OffsetDateTime::now_utc();
        let mut rows = Vec::new();
        for image in found {
            let names = names.get(&image.id).map(Vec::as_slice).unwrap_or_default();
            let names: Vec<&Reference> = names
                .iter()
                .filter(|name| {
                    wanted.reference.is_empty() || wanted.reference.iter().any(|p| name.matches(p))
                })
                .collect();
            rows.extend(image_rows(&image, &names, self.digests, !self.no_trunc, now));
        }
        let usual = match (self.quiet, self.digests) {
            (true, _) => "{{.ID}}",
            (_, true) => "{{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}",
            _ => "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}",
        };
        let format = match self.format {
            None if self.quiet => Some(usual.to_owned()),
            format => format,
        };
        at.print(table::list(format.as_deref(), usual, TITLES, rows)?)
    }
}

/// The names of each image.
pub(super) fn names(references: &BTreeMap<Reference, Digest>) -> BTreeMap<Digest, Vec<Reference>> {
    let mut names: BTreeMap<Digest, Vec<Reference>> = BTreeMap::new();
    for (name, id) in references {
        names.entry(*id).or_default().push(name.clone());
    }
    names
}

/// A row for each tag, and one without a tag for each repository that has only a digest.
fn image_rows(
    image: &Image,
    names: &[&Reference],
    digests: bool,
    short: bool,
    now: OffsetDateTime,
) -> Vec<Row> {
    let mut repositories: BTreeMap<String, (Vec<&str>, Vec<Digest>)> = BTreeMap::new();
    for name in names {
        let (tags, of) = repositories.entry(name.familiar_name()).or_default();
        match (&name.digest, &name.tag) {
            (Some(digest), _) => of.push(*digest),
            (None, tag) => tags.push(tag.as_deref().unwrap_or(NONE)),
        }
    }
    if repositories.is_empty() {
        return vec![image_row(image, NONE, NONE, None, short, now)];
    }
    let mut rows = Vec::new();
    for (repository, (tags, of)) in repositories {
        let tags = if tags.is_empty() { vec![NONE] } else { tags };
        // Without --digests a second digest would be a second row that looks like the first.
        let of: Vec<Option<Digest>> = match (of.is_empty(), digests) {
            (true, _) => vec![None],
            (_, true) => of.into_iter().map(Some).collect(),
            _ => vec![Some(of[0])],
        };
        for tag in tags {
            rows.extend(of.iter().map(|digest| image_row(image, &repository, tag, *digest, short, now)));
        }
    }
    rows
}

fn image_row(
    image: &Image,
    repository: &str,
    tag: &str,
    digest: Option<Digest>,
    short: bool,
    now: OffsetDateTime,
) -> Row {
    let size = human::size(image.size);
    row([
        ("Containers", "N/A".into()),
        ("CreatedAt", written(image.created).into()),
        ("CreatedSince", since(image.created, now).into()),
        ("Digest", digest.map_or_else(|| NONE.to_owned(), |digest| digest.to_string()).into()),
        ("ID", id(&image.id, short).into()),
        ("Repository", repository.into()),
        ("SharedSize", "N/A".into()),
        ("Size", size.clone().into()),
        ("Tag", tag.into()),
        ("UniqueSize", "N/A".into()),
        ("VirtualSize", size.into()),
    ])
}

pub(super) fn id(id: &Digest, short: bool) -> String {
    if short { id.short() } else { id.to_string() }
}

/// `5 weeks ago`.
pub(super) fn since(created: OffsetDateTime, now: OffsetDateTime) -> String {
    // Reproducible builds write 1970, or nothing at all.
    if created.unix_timestamp() == 0 {
        return "N/A".to_owned();
    }
    human::ago(now.unix_timestamp(), created.unix_timestamp())
}

/// `2026-11-23 06:00:00 +0000 UTC`, as Go writes a time.
pub(super) fn written(created: OffsetDateTime) -> String {
    let format = format_description!("[year]-[month]-[day] [hour]:[minute]:[second] +0000 UTC");
    created.to_offset(time::UtcOffset::UTC).format(&format).unwrap_or_default()
}

/// Show how an image was made
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rrunctl history busybox
  rrunctl history --no-trunc --format '{{.CreatedBy}}' busybox:1.36

Fields: .ID .CreatedSince .CreatedAt .CreatedBy .Size .Comment")]
pub(super) struct History {
    /// A name or an id
    #[arg(value_name = "IMAGE")]
    image: String,
    /// Print as `table`, `table TEMPLATE`, `json` or TEMPLATE
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Sizes and times as people read them; --human=false for bytes and RFC 3339
    #[arg(short = 'H', long, value_name = "BOOL", default_value_t = true, num_args = 0..=1, require_equals = true,
        default_missing_value = "true", action = clap::ArgAction::Set)]
    human: bool,
    /// Do not shorten ids and commands
    #[arg(long)]
    no_trunc: bool,
    /// Only ids
    #[arg(short, long)]
    quiet: bool,
}

impl History {
    pub(super) fn run(self, at: &At) -> Result<()> {
        let store = at.store()?;
        let image = store.images().resolve(&self.image)?;
        let now = OffsetDateTime::now_utc();
        let rows = image::history(&store, &image)?.into_iter().map(|step| {
            let created = step.created.unwrap_or(OffsetDateTime::UNIX_EPOCH);
            // docker's seconds are whole.
            let whole = created.replace_nanosecond(0).unwrap_or(created);
            let rfc3339 = whole.format(&Rfc3339).map_err(|e| Error::system(format!("{created}: {e}")))?;
            let by = table::printable(&step.created_by);
            Ok(row([
                ("Comment", table::printable(&step.comment).into()),
                ("CreatedAt", rfc3339.into()),
                ("CreatedBy", if self.no_trunc { by } else { table::ellipsis(&by, 45) }.into()),
                ("CreatedSince", since(created, now).into()),
                ("ID", step.id.map_or_else(|| "<missing>".to_owned(), |is| id(&is, !self.no_trunc)).into()),
                ("Size", if self.human { human::size(step.size) } else { step.size.to_string() }.into()),
            ]))
        });
        let rows: Vec<Row> = rows.collect::<Result<_>>()?;
        let created = if self.human { "CreatedSince" } else { "CreatedAt" };
        let usual =
            format!("{{{{.ID}}}}\t{{{{.{created}}}}}\t{{{{.CreatedBy}}}}\t{{{{.Size}}}}\t{{{{.Comment}}}}");
        let titles: &[(&str, &str)] = &[
            ("Comment", "COMMENT"),
            ("CreatedAt", "CREATED AT"),
            ("CreatedBy", "CREATED BY"),
            ("CreatedSince", "CREATED"),
            ("ID", "IMAGE"),
            ("Size", "SIZE"),
        ];
        let format = match self.format {
            None if self.quiet => Some("{{.ID}}".to_owned()),
            format => format,
        };
        at.print(table::list(format.as_deref(), &usual, titles, rows)?)
    }
}

/// A value of a row that is a number in docker's JSON too.
pub(super) fn text(value: impl ToString) -> Value {
    Value::String(value.to_string())
}
