//! `inspect`: what there is to know, as JSON or as a template has it.

#![forbid(unsafe_code)]

use super::template::Template;
use super::{At, network, volume};
use crate::container::record::Containers;
use crate::error::{Error, Kind, Result};
use crate::image;
use crate::store::Store;
use crate::volume::Volumes;
use clap::{Args, ValueEnum};
use serde::Serialize as _;
use serde_json::Value;
use serde_json::ser::{PrettyFormatter, Serializer};

/// Show all there is to know of containers, images, networks and volumes, by names or ids
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rrunctl inspect busybox
  rrunctl inspect -f '{{.NetworkSettings.IPAddress}}' web
  rrunctl inspect --type volume mydb
  rrunctl inspect -f '{{json .RootFS.Layers}}' busybox alpine")]
pub(super) struct Inspect {
    /// Names or ids
    #[arg(value_name = "NAME|ID", required = true)]
    names: Vec<String>,
    /// Print as `json` or TEMPLATE
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    /// How much containers wrote, too
    #[arg(short, long)]
    size: bool,
    /// Only things of this kind
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<Thing>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Thing {
    Container,
    Image,
    Network,
    Volume,
}

impl Inspect {
    pub(super) fn run(self, at: &At) -> Result<()> {
        let (store, networks) = (at.store()?, at.networks()?);
        let volumes = Volumes::open(at.home()?);
        let things = match self.kind {
            Some(kind) => vec![kind],
            // Docker's order.
            None => vec![Thing::Container, Thing::Image, Thing::Network, Thing::Volume],
        };
        show(at, &self.names, self.format.as_deref(), |name| {
            for thing in &things {
                let found = match thing {
                    Thing::Container => container(at, name, self.size),
                    Thing::Image => image_value(&store, name),
                    Thing::Network => network::value(&networks, name),
                    Thing::Volume => volume::value(&volumes, name),
                };
                match found {
                    // With a type its own words say what there is not.
                    Err(e) if e.kind() == Kind::NotFound && self.kind.is_none() => {}
                    // What can be no image's name may be another thing's; what several ids begin with, too.
                    Err(e) if e.kind() == Kind::Invalid && self.kind.is_none() => {}
                    found => return found,
                }
            }
            Err(Error::not_found(format!("No such object: {name}")))
        })
    }
}

/// Show all there is to know of images
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rrunctl image inspect busybox
  rrunctl image inspect -f '{{.Id}} {{.Size}}' busybox alpine")]
pub(super) struct Image {
    /// Names or ids
    #[arg(value_name = "IMAGE", required = true)]
    names: Vec<String>,
    /// Print as `json` or TEMPLATE
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
}

impl Image {
    pub(super) fn run(self, at: &At) -> Result<()> {
        let store = at.store()?;
        show(at, &self.names, self.format.as_deref(), |name| image_value(&store, name))
    }
}

/// A container as docker's JSON has it.
pub(super) fn container(at: &At, name: &str, size: bool) -> Result<Value> {
    // What is no container needs no rrun.
    let id = Containers::open(at.home()?).resolve(name)?;
    let shown = at.engine()?.inspect(&id, size)?;
    serde_json::to_value(shown).map_err(|e| Error::system(format!("container {name}: {e}")))
}

fn image_value(store: &Store, name: &str) -> Result<Value> {
    image::inspect(store, &store.images().resolve(name)?)
}

/// Prints what `find` finds: one array, or each as the template has it; what is not found is told behind it.
pub(super) fn show(
    at: &At,
    names: &[String],
    format: Option<&str>,
    find: impl Fn(&str) -> Result<Value>,
) -> Result<()> {
    let template = match format {
        None | Some("json" | "") => None,
        Some(format) => Some(Template::parse(format)?),
    };
    let mut found = Vec::new();
    let mut failed = Vec::new();
    for name in names {
        match find(name) {
            Ok(value) => found.push(value),
            Err(e) => failed.push(e),
        }
    }
    match &template {
        Some(template) => {
            for value in &found {
                at.say(template.render(value)?)?;
            }
        }
        None if format == Some("json") => at.say(Value::Array(found))?,
        None => at.say(pretty(&Value::Array(found))?)?,
    }
    for e in failed {
        at.complain(&e);
    }
    Ok(())
}

/// JSON with docker's four blanks.
pub(super) fn pretty(value: &Value) -> Result<String> {
    let mut text = Vec::new();
    let mut serializer = Serializer::with_formatter(&mut text, PrettyFormatter::with_indent(b"    "));
    value.serialize(&mut serializer).map_err(|e| Error::system(format!("write JSON: {e}")))?;
    String::from_utf8(text).map_err(|e| Error::system(format!("write JSON: {e}")))
}
