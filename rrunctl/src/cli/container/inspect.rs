//! `container inspect`.

#![forbid(unsafe_code)]

use super::super::{At, inspect};
use clap::Args;

/// Show all there is to know of containers
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rrunctl container inspect web
  rrunctl container inspect -f '{{.State.Pid}} {{.NetworkSettings.IPAddress}}' web")]
pub(in super::super) struct Inspect {
    /// Names or ids
    #[arg(value_name = "CONTAINER", required = true)]
    names: Vec<String>,
    /// Print as `json` or TEMPLATE
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    /// How much they wrote, too
    #[arg(short, long)]
    size: bool,
}

impl Inspect {
    pub(in super::super) fn run(self, at: &At) -> crate::Result<()> {
        inspect::show(at, &self.names, self.format.as_deref(), |name| inspect::container(at, name, self.size))
    }
}
