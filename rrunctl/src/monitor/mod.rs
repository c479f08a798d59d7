//! `rrunmon`, the process beside each container, and the words to it.
//!
//! ```text
//!  rrunctl ── spawn ─► rrunmon ── mount namespace, overlayfs ── rrun create ─► created{pid}, or rrun's error
//!     │                   │ ◄── start, wait, attach, resize … over RUN/ctl.sock
//!     │                   │ ◄── the container's questions for names, at sockets in its network namespace
//!     └─ may end          ├─ output ─► log ─► whoever is attached
//!                         ├─ init ends: exit.json ─► streams close ─► waiters ─► rrun delete
//!                         ├─ restart policy: sleeps, and creates again from the same bundle
//!                         └─ for good: back in the host's mount namespace, the `ended` command, waiters, gone
//! ```
//!
//! * **Who is alive** is told by a lock: `RUN/pid` is locked by a living monitor ([`Client::connect`]), so that a kill
//!   at any instant leaves nothing to believe. A container whose monitor was killed runs on; its output has nobody who
//!   reads it, so it gets SIGPIPE or EPIPE for more. [`find`] tells the two apart, and [`adopt`] gives it another one.
//! * **Signals** end no monitor but SIGKILL: what tells all processes of a machine or of a terminal to end tells the
//!   container as well, and somebody has to write down how it ended. SIGHUP opens the log anew. SIGTERM is not passed
//!   on, because it is for a monitor that nobody meant: `stop` sends the container the signal that its image wants.
//! * **Its cgroup** is its caller's. One of its own would have to be entered in every hierarchy, which waits for a
//!   grace period of RCU in each (5 to 40 ms measured, rrun's whole create takes less), and under systemd every cgroup
//!   outside a delegated one is systemd's. A service that starts containers therefore wants `KillMode=process`.
//! * **Memory**: the buffers below are all there is, and nothing is kept for a client but its position in them. Who
//!   reads slowly slows the container down, and nobody loses anything. What has no room in a client's socket when the
//!   container has ended is kept until it is read, or nothing was read for 10 s.

#![forbid(unsafe_code)]

mod adopted;
mod answer;
mod cgroup;
mod client;
mod datagrams;
mod frozen;
mod init;
mod json_file;
mod keys;
pub mod logs;
mod packet;
mod ports;
mod restart;
mod root;
mod run_dir;
mod runtime;
mod streams;
mod supervise;

pub use client::{Attach, Client, Found, Setup, Waiter, adopt, find, spawn};
pub use frozen::{Frozen, freeze, is_freezer};
pub use init::{init, is_init};
pub use keys::{DetachKeys, Keys};
pub use packet::{Exit, Phase, Status, Until};
pub use restart::{Policy, Restart};
pub use root::mount_overlay;
pub use run_dir::is_alive;
pub(crate) use runtime::last_error;
pub(crate) use supervise::master;
pub use supervise::supervise;

use crate::error::{Context as _, Error, Result};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// What a monitor is told once: `containers/ID/monitor.json`. How a run ended is written beside it, as `exit.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Settings {
    /// The container's id, for rrun too.
    pub id: String,
    /// The bundle: `config.json`'s `root.path` is [`Root::merged`].
    pub bundle: PathBuf,
    /// rrun and its global options.
    pub runtime: Vec<String>,
    /// `/run/rrunctl/ID`: socket, lock, and what could not be logged elsewhere.
    pub run: PathBuf,
    /// The root file system to mount, or nothing if the bundle has one.
    pub root: Option<Root>,
    /// Whether config.json has `process.terminal`.
    pub tty: bool,
    /// Whether standard input is a pipe rather than /dev/null.
    pub open_stdin: bool,
    /// Whether the first attached client that ends its input ends the container's; never that of a terminal.
    pub stdin_once: bool,
    /// Where output goes besides attached clients.
    pub log: Log,
    /// What to do when it ends.
    pub restart: Restart,
    /// For each of [`Setup::ports`], in order, what it is for.
    pub ports: Vec<Port>,
    /// What the name server knows that answers at [`Setup::dns`]; nothing where the container has none.
    #[serde(default)]
    pub dns: Option<Dns>,
    /// Run when the container has ended for good; its end is waited for. Empty: nothing is run.
    pub ended: Vec<String>,
}

impl Settings {
    /// Reads `monitor.json`, in which a monitor keeps what it was told later, too: the policy, and the names.
    ///
    /// # Errors
    /// Those of open(2) and read(2), and a file that has not all of them.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read(path).context(|| format!("read {}", path.display()))?;
        serde_json::from_slice(&text).map_err(|e| Error::invalid(e.to_string()).context(path.display()))
    }
}

/// An overlayfs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Root {
    /// The layers, the uppermost first; at least one.
    pub lower: Vec<PathBuf>,
    /// What the container writes.
    pub upper: PathBuf,
    /// An empty directory on upper's file system.
    pub work: PathBuf,
    /// Where it is mounted.
    pub merged: PathBuf,
    /// Further options: `volatile`, `userxattr`, `key=value`.
    #[serde(default)]
    pub options: Vec<String>,
}

/// Where output is kept.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Log {
    /// Which way.
    pub driver: Driver,
    /// The file, and with `.1`, `.2` … those before it.
    pub path: PathBuf,
    /// The size in bytes from which a file gets no more lines.
    pub max_size: Option<u64>,
    /// How many files are kept, at least 1.
    pub max_file: Option<u32>,
}

/// A log driver.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Driver {
    /// Docker's: a JSON object a line.
    #[default]
    JsonFile,
    /// Kept nowhere.
    None,
}

/// What a container's name server knows: [`crate::network::dns`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dns {
    /// The servers that are asked for all other names, in this order, from the network namespace of whoever spawns.
    pub servers: Vec<SocketAddr>,
    /// For each network whose names it answers, the directory of its leases and its name: [`Networks::names`].
    ///
    /// [`Networks::names`]: crate::network::Networks::names
    pub networks: Vec<(PathBuf, String)>,
}

/// What an inherited socket is for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Port {
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
    /// Where to that goes which reaches the socket, because no rule of the firewall took it; not of sctp.
    pub to: Option<SocketAddr>,
    /// The network namespace in which that address is one, where it is not this process's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<PathBuf>,
}

/// Now, as Docker writes it: RFC 3339 with nanoseconds and no zeros at their end.
fn now() -> String {
    OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default()
}
