//! The pod's sandbox process: holds the pod's namespaces, and where the pod shares its pid namespace, as its
//! init, reaps what the containers orphan. Ends on SIGTERM or SIGINT, which an init must ask for.

use rustix::process::{WaitOptions, wait};
use signal_hook::consts::{SIGCHLD, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

fn main() -> std::io::Result<()> {
    for signal in Signals::new([SIGCHLD, SIGINT, SIGTERM])?.forever() {
        if signal != SIGCHLD {
            break;
        }
        while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
    }
    Ok(())
}
