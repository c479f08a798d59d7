//! `exec`.

#![forbid(unsafe_code)]

use super::super::{At, terminal};
use super::flags::{self, ExecOptions};
use super::run;
use crate::engine::ExecRequest;
use crate::error::{Error, Kind, Result};
use crate::monitor::Keys;
use clap::Args;

/// Docker's code for what failed before the program could, unless there is none.
const NOT_RUN: u8 = 126;

/// Run a further command in a container that runs
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rrunctl exec -it web sh
  rrunctl exec -u postgres -w /tmp -e LANG=C db psql
  rrunctl exec -i db mysql <dump.sql
  rrunctl exec -d web touch /tmp/marker

The exit code is the command's; 126 says that it cannot be executed, 127 that there is none.")]
pub(in super::super) struct Exec {
    #[command(flatten)]
    flags: flags::Exec,
}

impl Exec {
    pub(in super::super) fn run(self, at: &At) -> Result<()> {
        let (name, options) = self.flags.request()?;
        let engine = at.engine()?;
        let id = engine.resolve(&name)?;
        let ExecOptions { attach_stdin, detach, tty, .. } = options;
        let keys = Keys::parse(&options.detach_keys)?;
        if !detach {
            terminal::check(attach_stdin, tty)?;
        }
        let request = ExecRequest {
            command: options.cmd.to_vec(),
            env: options.env.to_vec(),
            user: options.user,
            working_dir: options.working_dir,
            tty,
            size: None,
            privileged: options.privileged,
            detach,
        };
        let done = if detach {
            terminal::detached(engine, &id, &request).map(|()| None)
        } else {
            terminal::exec(at, engine, &id, &request, attach_stdin, keys)
        };
        let ended = done.inspect_err(|e| at.code.set(code(e)))?;
        at.code.set(ended);
        Ok(())
    }
}

/// What the command ends with when it could not run the other one; nothing, where the container is to blame.
fn code(e: &Error) -> Option<u8> {
    match (e.kind(), run::code(e)) {
        (Kind::Conflict | Kind::NotFound, _) => None,
        (_, 127) => Some(127),
        _ => Some(NOT_RUN),
    }
}

/// What keeps a terminal that its user has left
#[derive(Debug, Args)]
#[command(
    hide = true,
    after_help = "Examples:
  rrunctl internal-hold <TERMINAL"
)]
pub(in super::super) struct InternalHold {}

impl InternalHold {
    pub(in super::super) fn run(self) -> Result<()> {
        terminal::drain();
        Ok(())
    }
}
