//! `completion` and `generate man`: what shells and man(1) know of the commands.

#![forbid(unsafe_code)]

use super::{At, Cli, Command};
use crate::error::{Context as _, Error, Result};
use clap::{Args, CommandFactory as _, Subcommand};
use clap_complete::Shell;
use rustix::process::umask;
use std::fs::DirBuilder;
use std::path::PathBuf;

/// Print the script that completes commands and flags in a shell
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rrunctl completion bash > /etc/bash_completion.d/rrunctl
  rrunctl completion zsh > \"${fpath[1]}/_rrunctl\"
  rrunctl completion fish > ~/.config/fish/completions/rrunctl.fish")]
pub(super) struct Completion {
    /// bash, zsh, fish, elvish or powershell
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

impl Completion {
    pub(super) fn run(self, at: &At) -> Result<()> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::<Command>::command(), "rrunctl", &mut script);
        at.print(String::from_utf8_lossy(&script))
    }
}

/// Write manual pages
#[derive(Debug, Subcommand)]
#[command(arg_required_else_help = true)]
pub(super) enum Generate {
    Man(Man),
}

impl Generate {
    pub(super) fn run(self, at: &At) -> Result<()> {
        match self {
            Self::Man(command) => command.run(at),
        }
    }
}

/// Write a manual page for each command
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rrunctl generate man /usr/local/share/man/man1
  man rrunctl-image-ls")]
pub(super) struct Man {
    /// Where the pages go; it is made if it is missing
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

impl Man {
    fn run(self, at: &At) -> Result<()> {
        umask(at.umask);
        DirBuilder::new()
            .recursive(true)
            .create(&self.dir)
            .context(|| format!("mkdir {}", self.dir.display()))?;
        // A page for help would repeat them all.
        let command = Cli::<Command>::command().disable_help_subcommand(true);
        clap_mangen::generate_to(command, &self.dir)
            .map_err(|e| Error::from(e).context(format!("write {}", self.dir.display())))
    }
}
