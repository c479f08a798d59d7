//! The flags of `exec`.

#![forbid(unsafe_code)]

use super::env;
use super::value::switch;
use crate::container::types::{List, StrSlice, go};
use crate::error::{Error, Result};
use crate::monitor::Keys;
use clap::Args;

/// What is run in a container that runs, and how.
#[derive(Debug, Args)]
#[group(skip)]
pub(in crate::cli::container) struct Exec {
    /// Do not wait for it
    #[arg(short, long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    detach: Option<String>,
    /// What is typed to leave it running [default: ctrl-p,ctrl-q]
    #[arg(long, value_name = "KEYS", allow_hyphen_values = true)]
    detach_keys: Option<String>,
    /// A variable (KEY=VALUE, or KEY from here); several times for several
    #[arg(short, long, value_name = "VARIABLE", allow_hyphen_values = true)]
    env: Vec<String>,
    /// A file of variables, one a line
    #[arg(long, value_name = "FILE", allow_hyphen_values = true)]
    env_file: Vec<String>,
    /// Keep its standard input open
    #[arg(short, long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    interactive: Option<String>,
    /// With every privilege
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    privileged: Option<String>,
    /// With a terminal
    #[arg(short, long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    tty: Option<String>,
    /// As whom: USER[:GROUP], names or numbers
    #[arg(short, long, allow_hyphen_values = true)]
    user: Option<String>,
    /// Where it starts
    #[arg(short, long, value_name = "DIR", allow_hyphen_values = true)]
    workdir: Option<String>,
    /// The container, the command and its arguments; flags stand before it
    #[arg(value_name = "CONTAINER COMMAND [ARG]", required = true, trailing_var_arg = true)]
    words: Vec<String>,
}

go! {
    /// What the API's `POST /containers/ID/exec` has for a body.
    struct ExecOptions {
        /// `user`, `uid`, `user:group`, `uid:gid`; the container's unless given.
        user: String,
        /// With every privilege.
        privileged: bool,
        /// With a terminal.
        tty: bool,
        /// Somebody writes to it.
        attach_stdin: bool,
        /// Somebody reads what it says of errors.
        attach_stderr: bool,
        /// Somebody reads what it says.
        attach_stdout: bool,
        /// Nobody waits for it.
        detach: bool,
        /// As they were given.
        detach_keys: String,
        /// Further variables.
        env: List<String>,
        /// Where it starts; the container's unless given.
        working_dir: String,
        /// The command.
        cmd: StrSlice,
    }
}

impl Exec {
    /// The container, and what is to run in it. Its `ConsoleSize` is for whoever has the terminal to say.
    ///
    /// # Errors
    /// Values that are none, in docker's words.
    pub(in crate::cli::container) fn request(self) -> Result<(String, ExecOptions)> {
        let detach = switch("-d, --detach", self.detach.as_deref())?;
        let stdin = switch("-i, --interactive", self.interactive.as_deref())?;
        let detach_keys = self.detach_keys.unwrap_or_default();
        Keys::parse(&detach_keys)?;
        let (mut variables, given) = env::variables(&self.env_file, &self.env)?;
        variables.extend(given);
        let mut words = self.words.into_iter();
        let container = words.next().unwrap_or_default();
        let cmd: StrSlice = words.collect();
        if cmd.is_empty() {
            return Err(Error::invalid("'exec' requires at least 2 arguments: a container and a command"));
        }
        let options = ExecOptions {
            user: self.user.unwrap_or_default(),
            privileged: switch("--privileged", self.privileged.as_deref())?,
            tty: switch("-t, --tty", self.tty.as_deref())?,
            attach_stdin: stdin && !detach,
            attach_stderr: !detach,
            attach_stdout: !detach,
            detach,
            detach_keys,
            env: if variables.is_empty() { List::default() } else { variables.into() },
            working_dir: self.workdir.unwrap_or_default(),
            cmd,
        };
        Ok((container, options))
    }
}
