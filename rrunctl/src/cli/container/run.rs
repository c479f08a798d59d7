//! `create` and `run`.

#![forbid(unsafe_code)]

use super::super::At;
use super::super::terminal::{self, Attached, Outcome};
use super::flags::{Client, Flags, Image, Pull, Session, Ways};
use crate::container::types::CreateRequest;
use crate::engine::{Created, Engine, not_executed};
use crate::error::{Context as _, Error, Kind, Result};
use crate::image::{self, HELLO, Platform};
use crate::monitor::Until;
use crate::reference::Reference;
use crate::registry::PullOptions;
use clap::Args;
use rustix::termios::tcgetwinsize;
use std::cell::Cell;
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;

/// Docker's code for what failed before the container's program could.
const NOT_RUN: u8 = 125;

/// Make a container, and leave it for `start`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rrunctl create --name web -p 8080:80 httpd
  rrunctl create -it busybox sh")]
pub(in super::super) struct Create {
    #[command(flatten)]
    flags: Flags,
    #[command(flatten)]
    ways: Ways,
}

impl Create {
    pub(in super::super) fn run(self, at: &At) -> Result<()> {
        let asked = (|| -> Result<_> { Ok((self.ways.image()?, self.flags.request()?)) })();
        // What the engine refuses is docker's 1, and only `run` says 125 of it.
        let (image, request) = asked.inspect_err(|_| at.code.set(Some(NOT_RUN)))?;
        at.say(made(at, &image, request)?.id)
    }
}

/// Make a container and start it
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rrunctl run hello
  rrunctl run --rm -it busybox sh
  rrunctl run -d --name web -p 8080:80 -v site:/www --restart unless-stopped httpd

What stands behind IMAGE is the command. The exit code is the container's; 125 says that it could not be made, 126
that its command cannot be executed, 127 that there is none.")]
pub(in super::super) struct Run {
    #[command(flatten)]
    flags: Flags,
    #[command(flatten)]
    ways: Ways,
    #[command(flatten)]
    client: Client,
}

impl Run {
    pub(in super::super) fn run(self, at: &At) -> Result<()> {
        let asked = (|| -> Result<_> {
            let session = self.client.session(&self.flags)?;
            let (image, mut request) = (self.ways.image()?, self.flags.request()?);
            session.prepare(&mut request);
            Ok((session, image, request))
        })();
        let (session, image, mut request) = asked.inspect_err(|_| at.code.set(Some(NOT_RUN)))?;
        let (config, host) = (&request.config, &mut request.host);
        let tty = config.tty;
        if !session.detach {
            terminal::check(config.attach_stdin, tty)?;
        }
        if let Ok(size) = tcgetwinsize(io::stdout())
            && tty
        {
            host.console_size = [size.ws_row.into(), size.ws_col.into()];
        }
        let streams = [config.attach_stdin, config.attach_stdout, config.attach_stderr];
        let auto_remove = host.auto_remove;
        let created = made(at, &image, request).inspect_err(|_| at.code.set(Some(NOT_RUN)))?;
        let engine = at.engine()?;
        // Once it is started its end is its monitor's business.
        let started = Cell::new(false);
        let run = if session.detach {
            engine.start(&created.id).map(|warnings| warnings.iter().for_each(|text| at.warn(text)))
        } else {
            attached(at, &created.id, &session, streams, tty, auto_remove, &started)
        };
        match run {
            Ok(()) if session.detach => at.say(created.id),
            Ok(()) => Ok(()),
            Err(e) => {
                if at.code.get().is_none() {
                    at.code.set(Some(code(&e)));
                }
                if auto_remove && !started.get() {
                    // No monitor does it.
                    let _ = engine.remove(&created.id, true, true);
                }
                Err(e)
            }
        }
    }
}

/// Starts it with its streams here, and ends as it ends; says in `started` how far it came.
fn attached(
    at: &At,
    id: &str,
    session: &Session,
    [stdin, stdout, stderr]: [bool; 3],
    tty: bool,
    auto_remove: bool,
    started: &Cell<bool>,
) -> Result<()> {
    let engine = at.engine()?;
    let prepared = engine.prepare(id)?;
    prepared.warnings.iter().for_each(|text| at.warn(text));
    let proxy = (session.sig_proxy && !tty).then_some((engine, id));
    let ways = terminal::Ways { stdin, stdout, stderr, tty, keys: session.keys.clone(), proxy };
    let streams = Attached::new(prepared.monitor(), ways)?;
    // Begun before the start: no end is missed.
    let until = if auto_remove { Until::Ended } else { Until::Exit };
    let waiter = prepared.monitor().wait(until)?;
    let monitor = prepared.start()?;
    started.set(true);
    match streams.copy(at, &monitor, false)? {
        Outcome::Detached => Ok(()),
        Outcome::Ended => super::attach::ended(at, engine, id, waiter),
    }
}

/// Docker's codes for a program that cannot be executed, by rrun's words.
pub(in super::super) fn code(e: &Error) -> u8 {
    not_executed(e).unwrap_or(NOT_RUN)
}

/// Gets the image, makes the container, and writes its id where that is wanted.
fn made(at: &At, image: &Image, request: CreateRequest) -> Result<Created> {
    let engine = at.engine()?;
    let cidfile = Some(request.host.container_id_file.clone()).filter(|path| !path.is_empty());
    // Taken before there is anything to be lost sight of.
    let cidfile = cidfile.map(|path| {
        let mode = 0o666 & !at.umask.as_raw_mode();
        let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&path);
        file.map(|file| (path.clone(), file)).map_err(|e| match e.kind() {
            io::ErrorKind::AlreadyExists => Error::conflict(format!(
                "container ID file found, make sure the other container isn't running or delete {path}"
            )),
            _ => Error::from(e).context(format!("failed to create the container ID file {path}")),
        })
    });
    let mut cidfile = cidfile.transpose()?;
    let made = obtain(at, engine, image, &request.config.image).and_then(|()| engine.create(request));
    match (&made, &mut cidfile) {
        (Ok(created), Some((path, file))) => {
            file.write_all(created.id.as_bytes()).context(|| format!("write {path}"))?;
        }
        (Err(_), Some((path, _))) => drop(std::fs::remove_file(path)),
        _ => {}
    }
    let created = made?;
    created.warnings.iter().for_each(|text| at.warn(text));
    Ok(created)
}

/// Brings the image here if it has to be.
fn obtain(at: &At, engine: &Engine, image: &Image, name: &str) -> Result<()> {
    if image.pull != Pull::Always {
        match engine.store.images().resolve(name) {
            Ok(found) if image.platform.as_ref().is_none_or(|wanted| is_for(&found, wanted)) => return Ok(()),
            Ok(_) if image.pull == Pull::Never => {
                return Err(Error::not_found(format!(
                    "image with reference {name} was found but does not provide the specified platform"
                )));
            }
            Ok(_) => {}
            Err(e) if e.kind() == Kind::NotFound && image.pull == Pull::Missing => {}
            // Then the container says it.
            Err(_) => return Ok(()),
        }
    }
    let reference = Reference::parse(name)?;
    if image.pull == Pull::Missing && name == HELLO {
        return image::hello(&engine.store).map(|_| ());
    }
    if image.pull == Pull::Missing {
        at.note(format_args!("Unable to find image '{}' locally", reference.familiar()));
    }
    let options = PullOptions { platform: image.platform.clone() };
    let client = at.client()?;
    at.progress_to(io::stderr(), image.quiet, |sink| client.pull(&engine.store, &reference, &options, sink))?;
    Ok(())
}

/// Whether an image is for a platform; one that names no variant takes any.
fn is_for(image: &image::Image, wanted: &Platform) -> bool {
    let has = &image.config;
    has.os == wanted.os
        && has.architecture == wanted.architecture
        && (wanted.variant.is_empty() || has.variant == wanted.variant)
}
