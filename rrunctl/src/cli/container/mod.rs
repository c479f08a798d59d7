//! The commands about containers.

#![forbid(unsafe_code)]

pub(super) mod attach;
pub(super) mod cp;
pub(super) mod exec;
mod flags;
pub(super) mod images;
pub(super) mod inspect;
pub(super) mod lifecycle;
pub(super) mod logs;
pub(super) mod port;
pub(super) mod prune;
pub(super) mod ps;
pub(super) mod run;
pub(super) mod stats;
pub(super) mod top;
pub(super) mod update;

use super::At;
use crate::error::Result;
use clap::Subcommand;

/// Manage containers
#[derive(Debug, Subcommand)]
#[command(arg_required_else_help = true)]
pub(super) enum Command {
    Attach(attach::Attach),
    Commit(images::Commit),
    Cp(cp::Cp),
    Create(Box<run::Create>),
    Diff(images::Diff),
    Exec(exec::Exec),
    Export(images::Export),
    Inspect(inspect::Inspect),
    Kill(lifecycle::Kill),
    Logs(logs::Logs),
    #[command(visible_aliases = ["list", "ps"])]
    Ls(ps::Ps),
    Pause(lifecycle::Pause),
    Port(port::Port),
    Prune(prune::Prune),
    Rename(lifecycle::Rename),
    Restart(lifecycle::Restart),
    #[command(visible_alias = "remove")]
    Rm(lifecycle::Rm),
    Run(Box<run::Run>),
    Start(lifecycle::Start),
    Stats(stats::Stats),
    Stop(lifecycle::Stop),
    Top(top::Top),
    Unpause(lifecycle::Unpause),
    Update(Box<update::Update>),
    Wait(lifecycle::Wait),
}

impl Command {
    pub(super) fn run(self, at: &At) -> Result<()> {
        match self {
            Self::Attach(command) => command.run(at),
            Self::Commit(command) => command.run(at),
            Self::Cp(command) => command.run(at),
            Self::Create(command) => command.run(at),
            Self::Diff(command) => command.run(at),
            Self::Exec(command) => command.run(at),
            Self::Export(command) => command.run(at),
            Self::Inspect(command) => command.run(at),
            Self::Kill(command) => command.run(at),
            Self::Logs(command) => command.run(at),
            Self::Ls(command) => command.run(at),
            Self::Pause(command) => command.run(at),
            Self::Port(command) => command.run(at),
            Self::Prune(command) => command.run(at),
            Self::Rename(command) => command.run(at),
            Self::Restart(command) => command.run(at),
            Self::Rm(command) => command.run(at),
            Self::Run(command) => command.run(at),
            Self::Start(command) => command.run(at),
            Self::Stats(command) => command.run(at),
            Self::Stop(command) => command.run(at),
            Self::Top(command) => command.run(at),
            Self::Unpause(command) => command.run(at),
            Self::Update(command) => command.run(at),
            Self::Wait(command) => command.run(at),
        }
    }
}
