//! `top`.

#![forbid(unsafe_code)]

use super::super::{At, table};
use crate::error::Result;
use clap::Args;

/// Docker's columns are at least so wide, the gap included.
const NARROWEST: usize = 20;

/// Show the processes of a container
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rrunctl top web
  rrunctl top web -o pid,user,args
  rrunctl top web aux")]
pub(in super::super) struct Top {
    /// A name or an id
    #[arg(value_name = "CONTAINER")]
    container: String,
    /// What ps(1) of the host is given [default: -ef]
    #[arg(value_name = "PS_OPTION", trailing_var_arg = true, allow_hyphen_values = true)]
    options: Vec<String>,
}

impl Top {
    pub(in super::super) fn run(self, at: &At) -> Result<()> {
        let engine = at.engine()?;
        // Several may be in one word: `top web '-o pid'`.
        let options: Vec<String> =
            self.options.iter().flat_map(|text| text.split_whitespace()).map(str::to_owned).collect();
        let top = engine.top(&engine.resolve(&self.container)?, &options)?;
        let mut text = String::new();
        for row in std::iter::once(&top.titles).chain(&top.processes) {
            let row: Vec<String> = row.iter().map(|cell| table::printable(cell)).collect();
            text.push_str(&row.join("\t"));
            text.push('\n');
        }
        at.print(table::align_to(&text, NARROWEST))
    }
}
