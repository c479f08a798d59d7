//! `start`, `stop`, `restart`, `kill`, `pause`, `unpause`, `rename`, `rm`, `wait`: each says the names of the containers
//! that it was done to.

#![forbid(unsafe_code)]

use super::super::At;
use crate::engine::Condition;
use crate::error::{Error, Kind, Result};
use crate::monitor::Keys;
use clap::Args;

/// Does something to each container, and says its name; what is so already is no error.
fn each(at: &At, names: &[String], work: impl Fn(&str) -> Result<()>) -> Result<()> {
    let engine = at.engine()?;
    at.each(names, |name| {
        match engine.resolve(name).and_then(|id| work(&id)) {
            Err(e) if e.kind() == Kind::NotModified => {}
            other => other?,
        }
        at.say(name)
    })
}

/// How a container is ended.
#[derive(Debug, Args)]
struct End {
    /// The signal; the image's STOPSIGNAL, or SIGTERM
    #[arg(short, long, value_name = "SIGNAL")]
    signal: Option<String>,
    /// Seconds until SIGKILL; -1 waits for ever [default: 10]
    #[arg(
        short = 't',
        long = "timeout",
        alias = "time",
        value_name = "SECONDS",
        allow_negative_numbers = true
    )]
    timeout: Option<i64>,
}

/// Stop containers: their stop signal, and after a time SIGKILL
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rrunctl stop web
  rrunctl stop -t 2 web db
  rrunctl stop -s SIGINT web")]
pub(in super::super) struct Stop {
    /// Names or ids
    #[arg(value_name = "CONTAINER", required = true)]
    names: Vec<String>,
    #[command(flatten)]
    end: End,
}

impl Stop {
    pub(in super::super) fn run(self, at: &At) -> Result<()> {
        let engine = at.engine()?;
        each(at, &self.names, |id| engine.stop(id, self.end.signal.as_deref(), self.end.timeout))
    }
}

/// Stop containers and start them again
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rrunctl restart web
  rrunctl restart -t 2 web db")]
pub(in super::super) struct Restart {
    /// Names or ids
    #[arg(value_name = "CONTAINER", required = true)]
    names: Vec<String>,
    #[command(flatten)]
    end: End,
}

impl Restart {
    pub(in super::super) fn run(self, at: &At) -> Result<()> {
        let engine = at.engine()?;
        each(at, &self.names, |id| {
            for warning in engine.restart(id, self.end.signal.as_deref(), self.end.timeout)? {
                at.warn(warning);
            }
            Ok(())
        })
    }
}

/// Send containers a signal
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rrunctl kill web
  rrunctl kill -s HUP web")]
pub(in super::super) struct Kill {
    /// Names or ids
    #[arg(value_name = "CONTAINER", required = true)]
    names: Vec<String>,
    /// The signal, by name or number [default: KILL]
    #[arg(short, long, value_name = "SIGNAL")]
    signal: Option<String>,
}

impl Kill {
    pub(in super::super) fn run(self, at: &At) -> Result<()> {
        let engine = at.engine()?;
        each(at, &self.names, |id| engine.kill(id, self.signal.as_deref().unwrap_or_default()))
    }
}

/// Freeze all processes of containers
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rrunctl pause web")]
pub(in super::super) struct Pause {
    /// Names or ids
    #[arg(value_name = "CONTAINER", required = true)]
    names: Vec<String>,
}

impl Pause {
    pub(in super::super) fn run(self, at: &At) -> Result<()> {
        let engine = at.engine()?;
        each(at, &self.names, |id| engine.pause(id))
    }
}

/// Thaw all processes of containers
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rrunctl unpause web")]
pub(in super::super) struct Unpause {
    /// Names or ids
    #[arg(value_name = "CONTAINER", required = true)]
    names: Vec<String>,
}

impl Unpause {
    pub(in super::super) fn run(self, at: &At) -> Result<()> {
        let engine = at.engine()?;
        each(at, &self.names, |id| engine.unpause(id))
    }
}

/// Remove containers
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rrunctl rm web
  rrunctl rm -f -v web db
  rrunctl rm $(rrunctl ps -aq)")]
pub(in super::super) struct Rm {
    /// Names or ids
    #[arg(value_name = "CONTAINER", required = true)]
    names: Vec<String>,
    /// Kill those that run; what is not there is no error
    #[arg(short, long)]
    force: bool,
    /// Their volumes too, but for those with a name
    #[arg(short, long)]
    volumes: bool,
}

impl Rm {
    pub(in super::super) fn run(self, at: &At) -> Result<()> {
        let engine = at.engine()?;
        at.each(&self.names, |name| {
            match engine.resolve(name).and_then(|id| engine.remove(&id, self.force, self.volumes)) {
                // Docker's: no failure, no name, but a word.
                Err(e) if self.force && e.kind() == Kind::NotFound => {
                    at.note(&e);
                    return Ok(());
                }
                other => other?,
            }
            at.say(name)
        })
    }
}

/// Give a container another name
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rrunctl rename web old-web")]
pub(in super::super) struct Rename {
    /// The name or id that it has
    #[arg(value_name = "CONTAINER")]
    container: String,
    /// The name that it gets
    #[arg(value_name = "NEW_NAME")]
    name: String,
}

impl Rename {
    pub(in super::super) fn run(self, at: &At) -> Result<()> {
        let engine = at.engine()?;
        engine.rename(&engine.resolve(&self.container)?, &self.name)
    }
}

/// Wait until containers have ended, and say their exit codes
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rrunctl wait web
  rrunctl wait --condition removed web")]
pub(in super::super) struct Wait {
    /// Names or ids
    #[arg(value_name = "CONTAINER", required = true)]
    names: Vec<String>,
    /// What to wait for
    #[arg(long, value_name = "CONDITION", default_value = "not-running", value_parser = ["not-running", "next-exit", "removed"])]
    condition: String,
}

impl Wait {
    pub(in super::super) fn run(self, at: &At) -> Result<()> {
        let engine = at.engine()?;
        let condition = match self.condition.as_str() {
            "next-exit" => Condition::NextExit,
            "removed" => Condition::Removed,
            _ => Condition::NotRunning,
        };
        at.each(&self.names, |name| at.say(engine.wait(&engine.resolve(name)?, condition)?))
    }
}

/// Start containers
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rrunctl start web
  rrunctl start -ai box")]
pub(in super::super) struct Start {
    /// Names or ids
    #[arg(value_name = "CONTAINER", required = true)]
    names: Vec<String>,
    /// Its output comes here, signals go there, and the exit code is its own
    #[arg(short, long)]
    attach: bool,
    /// The same, and standard input goes there
    #[arg(short, long)]
    interactive: bool,
    /// What to type to leave it running [default: ctrl-p,ctrl-q]
    #[arg(long, value_name = "KEYS", default_value = "", hide_default_value = true)]
    detach_keys: String,
}

impl Start {
    pub(in super::super) fn run(self, at: &At) -> Result<()> {
        let engine = at.engine()?;
        if self.attach || self.interactive {
            let keys = Keys::parse(&self.detach_keys)?;
            let [name] = &self.names[..] else {
                return Err(Error::invalid("you cannot start and attach multiple containers at once"));
            };
            return super::attach::start(at, &engine.resolve(name)?, self.interactive, keys);
        }
        each(at, &self.names, |id| {
            for warning in engine.start(id)? {
                at.warn(warning);
            }
            Ok(())
        })
    }
}

/// What a monitor runs when its container has ended
#[derive(Debug, Args)]
#[command(
    hide = true,
    after_help = "Examples:
  rrunctl internal-ended ID"
)]
pub(in super::super) struct InternalEnded {
    /// The container's id
    #[arg(value_name = "ID")]
    id: String,
}

impl InternalEnded {
    pub(in super::super) fn run(self, at: &At) -> Result<()> {
        at.engine()?.ended(&self.id)
    }
}
