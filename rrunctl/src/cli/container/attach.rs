//! `attach`, and `start` with `-a` or `-i`: a container's streams are this command's.

#![forbid(unsafe_code)]

use super::super::At;
use super::super::terminal::{self, Attached, Outcome, Ways};
use crate::container::record::Container;
use crate::engine::{Condition, Engine};
use crate::error::{Error, Kind, Result};
use crate::monitor::{Keys, Until, Waiter};
use clap::Args;

/// Attach to a container that runs: its streams, not a new process
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rrunctl attach box
  rrunctl attach --no-stdin web
  rrunctl attach --detach-keys ctrl-x,q box")]
pub(in super::super) struct Attach {
    /// Name or id
    #[arg(value_name = "CONTAINER")]
    name: String,
    /// What to type to leave it running [default: ctrl-p,ctrl-q]
    #[arg(long, value_name = "KEYS", default_value = "", hide_default_value = true)]
    detach_keys: String,
    /// Leave standard input here
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, hide_default_value = true, hide_possible_values = true, value_name = "BOOL")]
    no_stdin: bool,
    /// Send on the signals that this command gets [default: true]; never to one with a terminal
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = true, hide_default_value = true, hide_possible_values = true, value_name = "BOOL", action = clap::ArgAction::Set)]
    sig_proxy: bool,
}

impl Attach {
    pub(in super::super) fn run(self, at: &At) -> Result<()> {
        let keys = Keys::parse(&self.detach_keys)?;
        let engine = at.engine()?;
        let id = engine.resolve(&self.name)?;
        let container = engine.containers.load(&id)?;
        let state = engine.state(&container)?;
        for (so, text) in [
            (!state.running, "You cannot attach to a stopped container, start it first"),
            (state.paused, "You cannot attach to a paused container, unpause it first"),
            (state.restarting, "You cannot attach to a restarting container, wait until it is running"),
        ] {
            if so {
                return Err(Error::conflict(text));
            }
        }
        terminal::check(!self.no_stdin, container.record.config.tty)?;
        let proxy = self.sig_proxy.then_some((engine, &*id));
        attach(at, &container, Ways { proxy, ..ways(&container, !self.no_stdin, keys) })
    }
}

/// All streams of a container, and its input if that is wanted and there is any.
pub(super) fn ways(container: &Container, stdin: bool, keys: Keys) -> Ways<'_> {
    let config = &container.record.config;
    Ways { stdin: stdin && config.open_stdin, stdout: true, stderr: true, tty: config.tty, keys, proxy: None }
}

/// Starts a container with its streams here, or attaches to one that runs.
pub(super) fn start(at: &At, id: &str, stdin: bool, keys: Keys) -> Result<()> {
    let engine = at.engine()?;
    let container = engine.containers.load(id)?;
    let ways = Ways { proxy: Some((engine, id)), ..ways(&container, stdin, keys) };
    let prepared = match engine.prepare(id) {
        Err(e) if e.kind() == Kind::NotModified => return attach(at, &container, ways),
        prepared => prepared?,
    };
    for warning in &prepared.warnings {
        at.warn(warning);
    }
    let until = if container.host.auto_remove { Until::Ended } else { Until::Exit };
    let attached = Attached::new(prepared.monitor(), ways)?;
    let waiter = prepared.monitor().wait(until)?;
    let client = prepared.start()?;
    match attached.copy(at, &client, false)? {
        Outcome::Detached => Ok(()),
        Outcome::Ended => ended(at, engine, id, waiter),
    }
}

fn attach(at: &At, container: &Container, ways: Ways<'_>) -> Result<()> {
    let engine = at.engine()?;
    let id = container.record.id.as_str();
    let client = engine.running(id)?;
    let waiter = client.wait(Until::Exit)?;
    let attached = Attached::new(&client, ways)?;
    match attached.copy(at, &client, true)? {
        Outcome::Detached => Ok(()),
        Outcome::Ended => ended(at, engine, id, waiter),
    }
}

/// The command's exit code is the container's.
///
/// # Errors
/// Those of [`Engine::wait`], where its monitor was killed.
pub(super) fn ended(at: &At, engine: &Engine, id: &str, waiter: Waiter) -> Result<()> {
    let code = match waiter.wait() {
        Ok(exit) => {
            engine.wait_until_down(id, &exit);
            exit.code.into()
        }
        Err(_) => engine.wait(id, Condition::NotRunning)?,
    };
    at.code.set(Some(u8::try_from(code).unwrap_or(u8::MAX)));
    Ok(())
}
