//! `update`: other limits and another restart policy.

#![forbid(unsafe_code)]

use super::super::At;
use super::flags;
use crate::error::Result;
use clap::Args;

/// Give containers other limits and another restart policy; they may run
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rrunctl update --memory 256m --cpus 1.5 web
  rrunctl update --restart unless-stopped web db")]
#[group(skip)]
pub(in super::super) struct Update {
    #[command(flatten)]
    flags: flags::Update,
}

impl Update {
    pub(in super::super) fn run(mut self, at: &At) -> Result<()> {
        let engine = at.engine()?;
        let names = std::mem::take(&mut self.flags.names);
        let (resources, restart) = self.flags.request()?;
        at.each(&names, |name| {
            for warning in engine.update(&engine.resolve(name)?, resources.clone(), &restart)? {
                at.warn(warning);
            }
            at.say(name)
        })
    }
}
