//! What is done to images: tag, rmi, save, load, import, prune.

#![forbid(unsafe_code)]

use super::{At, filter, human, images, inspect, registry};
use crate::error::{Context as _, Error, Result};
use crate::home;
use crate::image;
use crate::image::Platform;
use crate::reference::Reference;
use crate::store::Removed;
use clap::{Args, Subcommand};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, BufWriter, IsTerminal as _, Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Manage images
#[derive(Debug, Subcommand)]
#[command(arg_required_else_help = true)]
pub(super) enum Command {
    History(images::History),
    Import(Import),
    Inspect(inspect::Image),
    Load(Load),
    #[command(visible_alias = "list")]
    Ls(images::List),
    Prune(Prune),
    Pull(registry::Pull),
    Push(registry::Push),
    #[command(visible_alias = "remove")]
    Rm(Remove),
    Save(Save),
    Tag(Tag),
}

impl Command {
    pub(super) fn run(self, at: &At) -> Result<()> {
        match self {
            Self::History(command) => command.run(at),
            Self::Import(command) => command.run(at),
            Self::Inspect(command) => command.run(at),
            Self::Load(command) => command.run(at),
            Self::Ls(command) => command.run(at),
            Self::Prune(command) => command.run(at),
            Self::Pull(command) => command.run(at),
            Self::Push(command) => command.run(at),
            Self::Rm(command) => command.run(at),
            Self::Save(command) => command.run(at),
            Self::Tag(command) => command.run(at),
        }
    }
}

/// Give an image another name
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rrunctl tag busybox localhost:5000/busybox:mine
  rrunctl tag 0123456789ab mine")]
pub(super) struct Tag {
    /// A name or an id
    #[arg(value_name = "SOURCE_IMAGE[:TAG]")]
    source: String,
    /// The new name
    #[arg(value_name = "TARGET_IMAGE[:TAG]")]
    target: String,
}

impl Tag {
    pub(super) fn run(self, at: &At) -> Result<()> {
        image::tag(&at.store()?, &self.source, &self.target)
    }
}

/// Remove one or more images
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rrunctl rmi busybox:1.35
  rrunctl rmi -f 0123456789ab
  rrunctl rmi $(rrunctl images -q -f dangling=true)")]
pub(super) struct Remove {
    /// Names, which go, and the image with the last of them; or ids
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
    /// Remove all names of an id, and a name that a stopped container has
    #[arg(short, long)]
    force: bool,
    /// Do not remove untagged parents
    #[arg(long)]
    no_prune: bool,
}

impl Remove {
    pub(super) fn run(self, at: &At) -> Result<()> {
        let store = at.store()?;
        at.each(&self.images, |name| {
            let removed = image::remove(&store, name, self.force, !self.no_prune, &|id| at.users(id))?;
            at.print(removed_lines(&removed, ["Untagged", "Deleted"]))
        })
    }
}

fn removed_lines(removed: &[Removed], words: [&str; 2]) -> String {
    removed.iter().fold(String::new(), |mut text, one| {
        let _ = match one {
            Removed::Untagged(name) => writeln!(text, "{}: {name}", words[0]),
            Removed::Deleted(id) => writeln!(text, "{}: {id}", words[1]),
        };
        text
    })
}

/// Save one or more images to a tar archive
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rrunctl save busybox -o busybox.tar
  rrunctl save busybox alpine | xz > both.tar.xz

The archive is what `docker load` reads, and an OCI layout.")]
pub(super) struct Save {
    /// Names or ids
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
    /// Write to a file, instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

impl Save {
    pub(super) fn run(self, at: &At) -> Result<()> {
        let store = at.store()?;
        if let Some(path) = &self.output {
            return written(path, |file| image::save(&store, &self.images, file));
        }
        if io::stdout().is_terminal() {
            return Err(
                Error::invalid("cowardly refusing to save to a terminal").remedy("use -o FILE, or redirect")
            );
        }
        let mut out = Watched { out: BufWriter::with_capacity(1 << 20, io::stdout().lock()), failed: None };
        let saved = image::save(&store, &self.images, &mut out).and_then(|()| Ok(out.flush()?));
        if let Some(kind) = out.failed {
            // What is left in the buffer has no reader either.
            let _ = out.out.into_parts();
            at.wrote(Err(kind.into()))?;
        }
        saved
    }
}

/// Remembers why standard output could not be written to: whoever saves only says that it failed.
struct Watched<W: Write> {
    out: BufWriter<W>,
    failed: Option<io::ErrorKind>,
}

impl<W: Write> Watched<W> {
    fn watch<T>(&mut self, result: io::Result<T>) -> io::Result<T> {
        result.inspect_err(|e| self.failed = Some(e.kind()))
    }
}

impl<W: Write> Write for Watched<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let result = self.out.write(bytes);
        self.watch(result)
    }

    fn flush(&mut self) -> io::Result<()> {
        let result = self.out.flush();
        self.watch(result)
    }
}

/// Writes a file that is there as a whole or not at all; what is no regular file is written to as it is.
pub(super) fn written(path: &Path, write: impl FnOnce(&mut BufWriter<File>) -> Result<()>) -> Result<()> {
    let context = || format!("write {}", path.display());
    let special = fs::metadata(path).is_ok_and(|meta| !meta.is_file());
    let to = match (special, path.file_name()) {
        (true, _) => path.to_owned(),
        (_, Some(name)) => path.with_file_name(format!(".{}.{}", name.to_string_lossy(), home::unique()?)),
        (_, None) => return Err(Error::invalid(format!("{} is no file", path.display()))),
    };
    let made = (|| {
        let file = match special {
            true => File::options().write(true).open(&to),
            // As docker's: an image may have secrets.
            false => File::options().write(true).create_new(true).mode(0o600).open(&to),
        };
        let mut file = BufWriter::with_capacity(1 << 20, file.context(context)?);
        write(&mut file)?;
        file.flush().context(context)?;
        if special { Ok(()) } else { fs::rename(&to, path).context(context) }
    })();
    if made.is_err() && !special {
        let _ = fs::remove_file(&to);
    }
    made
}

/// Load images from a tar archive
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rrunctl load -i myos.tar.xz
  xz -dc myos.tar.xz | rrunctl load -q

The archive is one of `docker save`, `podman save` or `skopeo`, or an OCI layout, as it is or compressed with gzip,
bzip2, xz or zstd.")]
pub(super) struct Load {
    /// Read from a file, instead of standard input
    #[arg(short, long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Do not show progress
    #[arg(short, long)]
    quiet: bool,
}

impl Load {
    pub(super) fn run(self, at: &At) -> Result<()> {
        let store = at.store()?;
        let input: Box<dyn Read + Send> = match &self.input {
            Some(path) => Box::new(File::open(path).context(|| format!("open {}", path.display()))?),
            None if io::stdin().is_terminal() => {
                return Err(
                    Error::invalid("requested load from stdin, but stdin is empty").remedy("use -i FILE")
                );
            }
            None => Box::new(io::stdin()),
        };
        let quiet = self.quiet;
        at.progress(false, |sink| {
            // The names are the result, and stay.
            let results = |event| {
                if !quiet || matches!(event, crate::progress::Event::Line(_)) {
                    sink(event);
                }
            };
            image::load(&store, input, &results)
        })
        .map_err(|e| match &self.input {
            Some(path) => e.context(format!("load {}", path.display())),
            None => e,
        })?;
        Ok(())
    }
}

/// Make an image of the tar archive of a root filesystem
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rrunctl import rootfs.tar.gz mine:1
  rrunctl import -c 'CMD [\"sh\"]' -c 'ENV A=b' - mine < rootfs.tar
  curl -L https://example.org/rootfs.tar.xz | rrunctl import - mine")]
pub(super) struct Import {
    /// The archive; - is standard input
    #[arg(value_name = "FILE|-")]
    source: String,
    /// The name of the image
    #[arg(value_name = "REPOSITORY[:TAG]")]
    name: Option<String>,
    /// Apply an instruction of a Dockerfile; several times for several
    #[arg(short, long = "change", value_name = "INSTRUCTION")]
    changes: Vec<String>,
    /// What history says of it
    #[arg(short, long, value_name = "TEXT", default_value = "")]
    message: String,
    /// What it runs on: OS[/ARCH[/VARIANT]]
    #[arg(long)]
    platform: Option<String>,
}

impl Import {
    pub(super) fn run(self, at: &At) -> Result<()> {
        let name = self.name.as_deref().map(Reference::parse).transpose()?;
        let platform = self.platform.as_deref().map(Platform::parse).transpose()?;
        let store = at.store()?;
        let input: Box<dyn Read + Send> = match self.source.as_str() {
            "-" if io::stdin().is_terminal() => {
                return Err(Error::invalid("standard input is a terminal").remedy("redirect an archive"));
            }
            "-" => Box::new(io::stdin()),
            url if url.starts_with("http://") || url.starts_with("https://") => {
                return Err(Error::new(
                    crate::error::Kind::Unsupported,
                    format!("import {url}: only files are imported"),
                )
                .remedy(format!("curl -L {url} | rrunctl import -")));
            }
            path => Box::new(File::open(path).context(|| format!("open {path}"))?),
        };
        let made = image::import(
            &store,
            input,
            &self.source,
            &self.message,
            &self.changes,
            platform.as_ref(),
            name.as_ref(),
        )
        .map_err(|e| e.context(format!("import {}", self.source)))?;
        at.say(made.id)
    }
}

/// Remove unused images
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rrunctl image prune
  rrunctl image prune -af --filter until=24h

Filters: until=TIME label=KEY[=VALUE] label!=KEY[=VALUE]")]
pub(super) struct Prune {
    /// Those with a name too, if no container has them
    #[arg(short, long)]
    all: bool,
    /// Only those that fit (KEY=VALUE); several times for several
    #[arg(long = "filter", value_name = "FILTER")]
    filters: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

impl Prune {
    pub(super) fn run(self, at: &At) -> Result<()> {
        let filter = filter::images(&self.filters, &["until", "label", "label!"])?;
        let store = at.store()?;
        if !at.confirmed(self.force, &format!("This will remove {}.", what(self.all)))? {
            return Ok(());
        }
        let (removed, freed) = image::prune(&store, self.all, &filter, &|id| at.users(id))?;
        at.print(deleted(&removed))?;
        at.say(format_args!("Total reclaimed space: {}", human::precise_size(freed)))
    }
}

/// What a prune removes.
pub(super) fn what(all: bool) -> &'static str {
    if all { "all images without at least one container associated to them" } else { "all dangling images" }
}

/// `Deleted Images:` and what they were, if there are any.
pub(super) fn deleted(removed: &[Removed]) -> String {
    if removed.is_empty() {
        return String::new();
    }
    format!("Deleted Images:\n{}\n", removed_lines(removed, ["untagged", "deleted"]))
}
