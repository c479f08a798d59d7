//! `diff`, `commit` and `export`: what a container is beside its image, and images of it.

#![forbid(unsafe_code)]

use super::super::{At, image};
use crate::engine::CommitRequest;
use crate::error::{Error, Result};
use crate::reference::Reference;
use clap::Args;
use std::io::{self, IsTerminal as _};
use std::path::PathBuf;

/// Show what a container has changed of its image's files
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rrunctl diff web

A is added, C is changed, D is deleted.")]
pub(in super::super) struct Diff {
    /// Its name or id
    #[arg(value_name = "CONTAINER")]
    container: String,
}

impl Diff {
    pub(in super::super) fn run(self, at: &At) -> Result<()> {
        let engine = at.engine()?;
        let mut lines = String::new();
        for change in engine.changes(&engine.resolve(&self.container)?)? {
            lines.push_str(&format!("{} {}\n", change.kind.letter(), change.path.display()));
        }
        at.print(lines)
    }
}

/// Make an image of a container
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rrunctl commit web site:1
  rrunctl commit -a me -m 'with my page' -c 'CMD [\"httpd\", \"-f\"]' web site:2")]
pub(in super::super) struct Commit {
    /// Its name or id
    #[arg(value_name = "CONTAINER")]
    container: String,
    /// What the image is called
    #[arg(value_name = "NAME[:TAG]")]
    name: Option<String>,
    /// Who made it
    #[arg(short, long, default_value = "", hide_default_value = true)]
    author: String,
    /// Change its configuration by a line of a Dockerfile
    #[arg(short, long, value_name = "LINE")]
    change: Vec<String>,
    /// What it is
    #[arg(short, long, default_value = "", hide_default_value = true)]
    message: String,
    /// Freeze the container meanwhile
    #[arg(short, long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value = "true", default_missing_value = "true", action = clap::ArgAction::Set, hide_default_value = true)]
    pause: bool,
}

impl Commit {
    pub(in super::super) fn run(self, at: &At) -> Result<()> {
        let engine = at.engine()?;
        let name = self.name.as_deref().map(Reference::parse).transpose()?;
        if name.as_ref().is_some_and(|name| name.digest.is_some()) {
            return Err(Error::invalid("refusing to create a tag with a digest reference"));
        }
        let request = CommitRequest {
            name,
            author: self.author,
            message: self.message,
            changes: self.change,
            pause: self.pause,
        };
        let image = engine.commit(&engine.resolve(&self.container)?, &request)?;
        at.say(image.id)
    }
}

/// Write a container's files as a tar, without its volumes
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rrunctl export -o web.tar web
  rrunctl export web | rrunctl import - site")]
pub(in super::super) struct Export {
    /// Its name or id
    #[arg(value_name = "CONTAINER")]
    container: String,
    /// Into a file
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

impl Export {
    pub(in super::super) fn run(self, at: &At) -> Result<()> {
        let engine = at.engine()?;
        let id = engine.resolve(&self.container)?;
        match &self.output {
            Some(path) => image::written(path, |file| engine.export(&id, file)),
            None if io::stdout().is_terminal() => {
                Err(Error::invalid("cowardly refusing to save to a terminal. Use the -o flag or redirect"))
            }
            None => engine.export(&id, io::BufWriter::new(io::stdout())),
        }
    }
}
