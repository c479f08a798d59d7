//! The engine: what a request does to containers. A command line and a server stand on it.
//!
//! ```text
//! create ─ image kept ─ name reserved ─ volumes made and filled ─ containers/ID appears
//! start  ─ lock ─ network ─ config.json ─ rrunmon (rrun create) ─► Prepared ─ streams attached ─ rrun start
//! end    ─ rrunmon runs `internal-ended` ─ network, /dev/shm and with --rm the container taken down
//! remove ─ lock ─ killed and waited for ─ addresses released ─ containers/ID goes by one rename(2)
//! ```
//!
//! * **One command at a time changes a container**: it holds `containers/ID/lock`. What takes down after the end does
//!   not, because whoever stops or removes the container waits for it while holding the lock; all that it does may
//!   be done twice, and beside everything else.
//! * **What a container is at** is in no file that could be out of date: it comes from the monitor that lives, from
//!   rrun where the monitor was killed, and from what the last run left ([`Engine::state`]).

#![forbid(unsafe_code)]

mod connect;
mod create;
mod exec;
mod files;
mod filter;
mod logs;
mod remove;
mod show;
mod start;
mod stats;
mod stop;
mod tree;
mod update;

pub use create::Created;
pub use exec::{ExecRequest, Executed};
pub use files::CommitRequest;
pub use filter::{FILTERS, Filters};
pub use remove::Pruned;
pub use show::{Listed, Top};
pub use start::{Prepared, not_executed};
pub use stats::{Cpu, Interface, Io, Memory, Stats};
pub use stop::Condition;

use crate::container::host::Host;
use crate::container::record::Containers;
use crate::error::Result;
use crate::home::Home;
use crate::network::{self, Networks};
use crate::rootless;
use crate::settings::Settings;
use crate::store::Store;
use crate::volume::Volumes;
use std::path::PathBuf;
use std::sync::OnceLock;

/// The programs that an engine runs.
#[derive(Debug, Clone)]
pub struct Programs {
    /// `rrun`.
    pub runtime: PathBuf,
    /// `rrunmon`.
    pub monitor: PathBuf,
    /// This engine's own command line, with its global options; what a monitor runs when its container has ended.
    pub own: Vec<String>,
}

/// An engine: what is kept in one directory, and what runs of it.
#[derive(Debug)]
pub struct Engine {
    /// The directories.
    pub home: Home,
    /// Images.
    pub store: Store,
    /// `daemon.json`.
    pub settings: Settings,
    /// Containers on disk.
    pub containers: Containers,
    /// Volumes.
    pub volumes: Volumes,
    /// Networks.
    pub networks: Networks,
    /// What it runs.
    pub programs: Programs,
    on: OnceLock<Host>,
}

/// A file of the run directory that is there while a container is restarted: `--rm` does not remove it then.
const KEPT: &str = "kept";

impl Engine {
    /// Opens an engine.
    ///
    /// # Errors
    /// Those of [`Store::open`] and [`Networks::open`].
    pub fn open(home: Home, settings: Settings, programs: Programs) -> Result<Self> {
        Ok(Self {
            store: Store::open(&home)?,
            containers: Containers::open(&home),
            volumes: Volumes::open(&home),
            networks: Networks::open(&home, network::Config::of(&settings)?)?,
            settings,
            programs,
            home,
            on: OnceLock::new(),
        })
    }

    /// This machine.
    pub fn host(&self) -> &Host {
        self.on.get_or_init(Host::read)
    }

    /// `/run/rrunctl/ID`: the monitor's socket, the bundle, the network namespace.
    fn run_dir(&self, id: &str) -> PathBuf {
        self.home.run().join(id)
    }

    /// The file of a container's network namespace.
    fn netns(&self, id: &str) -> PathBuf {
        self.run_dir(id).join("netns")
    }

    /// Whether containers have cgroups of their own, which an ordinary user's have from the user's systemd alone.
    fn has_cgroups(&self) -> bool {
        !rootless::is_inside() || self.host().user_systemd
    }

    /// rrun and where it keeps its state.
    fn runtime(&self) -> Vec<String> {
        let text = |path: &std::path::Path| path.to_string_lossy().into_owned();
        let root = ["--root".to_owned(), text(&self.home.run().join("rrun"))];
        let systemd =
            (rootless::is_inside() && self.host().user_systemd).then(|| "--systemd-cgroup".to_owned());
        [text(&self.programs.runtime)].into_iter().chain(root).chain(systemd).collect()
    }
}
