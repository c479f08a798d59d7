//! `rrunmon`: see the library's [`rrunctl::monitor`]. As `docker-init` it is the program of `--init`, and
//! with `--frozen` what keeps a container frozen that is committed.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    if args.next().is_some_and(|name| rrunctl::monitor::is_init(&name)) {
        return rrunctl::monitor::init(args);
    }
    let settings = args.next();
    if settings.as_deref().is_some_and(rrunctl::monitor::is_freezer) {
        return rrunctl::monitor::freeze(args);
    }
    let (Some(settings), None) = (settings, args.next()) else {
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
