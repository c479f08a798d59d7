//! `logs`.

#![forbid(unsafe_code)]

use super::super::{At, filter};
use crate::error::{Context as _, Error, Result};
use crate::monitor::logs::{LogOptions, Stream};
use clap::Args;
use std::io::{self, BufWriter, Write};
use time::OffsetDateTime;

/// Show what a container has written: its standard output on standard output, its standard error on standard error
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rrunctl logs web
  rrunctl logs -f --tail 10 web
  rrunctl logs -t --since 10m --until 2026-01-31T10:00:00Z web")]
pub(in super::super) struct Logs {
    /// A name or an id
    #[arg(value_name = "CONTAINER")]
    container: String,
    /// The labels and variables that the log was told to keep, in front of each line
    #[arg(long)]
    details: bool,
    /// What it will write, too, until it ends
    #[arg(short, long)]
    follow: bool,
    /// Only what is newer: a time, or so long ago (10m)
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only so many lines before the end; `all` for all
    #[arg(short = 'n', long, value_name = "NUMBER", default_value = "all", allow_negative_numbers = true)]
    tail: String,
    /// The time of each line in front of it
    #[arg(short, long)]
    timestamps: bool,
    /// Only what is older: a time, or so long ago (10m)
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
}

impl Logs {
    pub(in super::super) fn run(self, at: &At) -> Result<()> {
        let now = OffsetDateTime::now_utc();
        let time = |text: Option<&String>| {
            // Docker's zero is no time.
            let text = text.map(String::as_str).filter(|text| !["", "0"].contains(text));
            text.map(|text| filter::instant(text, now)).transpose()
        };
        let tail = match self.tail.as_str() {
            "all" | "" => None,
            text => match text.parse::<i64>() {
                // Docker's: less than nothing is all.
                Ok(n) => u64::try_from(n).ok(),
                Err(_) => {
                    return Err(Error::invalid(format!("invalid --tail {text:?}")).remedy("a number, or all"));
                }
            },
        };
        let options = LogOptions {
            since: time(self.since.as_ref())?,
            until: time(self.until.as_ref())?,
            tail,
            timestamps: self.timestamps,
            details: self.details,
            ..LogOptions::default()
        };
        let engine = at.engine()?;
        let id = engine.resolve(&self.container)?;
        let (mut out, mut err) = (BufWriter::new(io::stdout().lock()), BufWriter::new(io::stderr().lock()));
        let mut last = Stream::Stdout;
        let read = engine.logs(&id, self.follow, options, &mut |stream, line| {
            // Whoever has both in one place gets them in their order.
            if stream != last {
                at.wrote(out.flush())?;
                err.flush().context(|| "write to standard error")?;
                last = stream;
            }
            match stream {
                Stream::Stdout => at.wrote(out.write_all(line))?,
                Stream::Stderr => err.write_all(line).context(|| "write to standard error")?,
            }
            if self.follow {
                at.wrote(out.flush())?;
                err.flush().context(|| "write to standard error")?;
            }
            Ok(())
        });
        at.wrote(out.flush())?;
        err.flush().context(|| "write to standard error")?;
        read
    }
}
