//! `rrunmon`: see the library's [`rrunctl::monitor`].

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    let (Some(settings), None) = (args.next(), args.next()) else {
        eprintln!("rrunmon: started by rrunctl only, with the path of monitor.json");
        return ExitCode::from(2);
    };
    match rrunctl::monitor::supervise(settings.as_ref()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("rrunmon: {e}");
            ExitCode::FAILURE
        }
    }
}
