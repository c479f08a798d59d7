//! The program: parses, dispatches, prints, and ends. Nothing else prints.
//!
//! Standard input, output and error are open here: Rust's runtime opens /dev/null for those that the caller
//! closed, so that no file of ours takes their place. It also ignores SIGPIPE, so `rrun state x | true` ends
//! here with EPIPE and not with a signal.

#![forbid(unsafe_code)]

use rrun::cli::{self, Invocation, Parsed, help};
use rrun::error::{Call, Error, Kind};
use rrun::log::{self, Log};
use rustix::io::Errno;
use std::io::{self, Write};
use std::process::ExitCode;

fn main() -> ExitCode {
    let protected = rrun::sys::relro::protect().map_err(Error::from);
    let Parsed { name, global, topic, command } = cli::read(std::env::args_os());
    let _ = rrun::sys::launch::ignore_sigxfsz();
    let claimed = command.as_ref().map_or(Ok(()), rrun::commands::claim_fds);
    let logged = Log::open(global.log.as_ref(), global.log_format, global.log_level).map(Log::install);
    // exec's own failures must not look like a status of the process.
    let failure = if topic.is_some_and(|topic| topic.name == "exec") { 255 } else { 1 };

    let mut out = Out { broken: false };
    let done = logged.and(claimed).and(protected).and_then(|()| {
        let status = rrun::commands::run(
            Invocation { name: name.clone(), global: global.clone(), command: command? },
            &mut out,
        )?;
        out.flush().call(|| "write standard output")?;
        Ok(status)
    });
    match done {
        Ok(status) => ExitCode::from(status),
        Err(e) if out.broken && e.errno() == Some(Errno::PIPE) => ExitCode::SUCCESS,
        Err(e) => {
            let e = if e.what() == Kind::Usage { e.remedy(help::usage(&name, topic)) } else { e };
            let message = e.to_string();
            if !log::error(&message) {
                let _ = io::stderr().write_all(format!("{message}\n").as_bytes());
            }
            ExitCode::from(failure)
        }
    }
}

/// Standard output, which remembers that its reader went away: nobody is left to be told.
struct Out {
    broken: bool,
}

impl Out {
    fn note<T>(&mut self, result: io::Result<T>) -> io::Result<T> {
        self.broken |= matches!(&result, Err(e) if e.kind() == io::ErrorKind::BrokenPipe);
        result
    }
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let result = io::stdout().write(bytes);
        self.note(result)
    }
    fn flush(&mut self) -> io::Result<()> {
        let result = io::stdout().flush();
        self.note(result)
    }
}
