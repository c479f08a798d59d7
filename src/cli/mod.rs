//! The command line: what was typed, as typed data, with no I/O but getcwd for a relative `--root`.
//!
//! Not clap: the contract is the syntax of Go's flag package, which callers rely on (`-no-subreaper` with
//! one dash, `--detach=false`, nothing parsed behind exec's container id, `flag needs an argument`), and
//! which clap cannot express; it would also cost 0.15 ms at every start and 400 kB.
//!
//! A flag is defined once, in [`flags`]; the parser, the help, the man pages, the completions and the tests
//! read that one table.

#![forbid(unsafe_code)]

pub mod flags;
pub mod generate;
pub mod help;
pub mod parse;
pub mod values;

use crate::error::{Error, Kind, Result};
use crate::log;
use std::path::PathBuf;
use std::time::Duration;

pub use parse::{Parsed, parse, read};
pub use values::{
    ManageCgroups, Manager, NetworkLock, OutputFormat, PageServer, Rootless, Shell, SubCgroup, User,
};

/// A parsed command line.
#[derive(Debug)]
pub struct Invocation {
    /// Base name of `argv[0]`, under which rrun speaks of itself: through a symlink named runc it is runc.
    pub name: String,
    /// Options before (or, as in runc 1.5, behind) the command.
    pub global: Global,
    /// What to do.
    pub command: Command,
}

/// The global options.
#[derive(Debug, Clone, Default)]
pub struct Global {
    /// `--debug`; sets `log_level` as well.
    pub debug: bool,
    /// `--log`; standard error if absent.
    pub log: Option<log::Target>,
    /// `--log-format`.
    pub log_format: log::Format,
    /// `--log-level` or `--debug`.
    pub log_level: log::Level,
    /// `--root`, absolute and without `.` and `..`; absent means the default for this user.
    pub root: Option<PathBuf>,
    /// `--systemd-cgroup`.
    pub systemd_cgroup: bool,
    /// `--cgroup-manager`, crun's wider form of `--systemd-cgroup`.
    pub cgroup_manager: Option<Manager>,
    /// `--rootless`.
    pub rootless: Rootless,
}

/// What to do. Container ids are as typed: see [`id`].
#[derive(Debug)]
pub enum Command {
    /// `create`.
    Create(Create),
    /// `start ID`.
    Start(String),
    /// `run`.
    Run(Run),
    /// `exec`.
    Exec(Exec),
    /// `state ID`.
    State(String),
    /// `kill`.
    Kill(Kill),
    /// `delete`.
    Delete(Delete),
    /// `list`.
    List(List),
    /// `ps`.
    Ps(Ps),
    /// `pause ID`.
    Pause(String),
    /// `resume ID`.
    Resume(String),
    /// `update`.
    Update(Update),
    /// `events`.
    Events(Events),
    /// `spec`.
    Spec(Spec),
    /// `features`.
    Features,
    /// `checkpoint`.
    Checkpoint(Checkpoint),
    /// `restore`.
    Restore(Restore),
    /// `plan`.
    Plan(Plan),
    /// `check`.
    Check(Check),
    /// `help`, `--help`, or no command: of one command, or of all.
    Help(Option<&'static flags::Topic>),
    /// `--version`.
    Version,
    /// `completion SHELL`.
    Completion(Shell),
    /// `generate man DIR`.
    GenerateMan(PathBuf),
}

/// `create`.
#[derive(Debug, Default)]
pub struct Create {
    /// Container id.
    pub id: String,
    /// Bundle directory; absent means the current directory.
    pub bundle: Option<PathBuf>,
    /// Configuration instead of `config.json` in the bundle.
    pub config: Option<PathBuf>,
    /// Socket that receives the master of the pseudo-terminal.
    pub console_socket: Option<PathBuf>,
    /// Socket that receives a pidfd of init.
    pub pidfd_socket: Option<PathBuf>,
    /// File that receives the pid.
    pub pid_file: Option<PathBuf>,
    /// Use MS_MOVE and chroot instead of pivot_root(2).
    pub no_pivot: bool,
    /// Keep the caller's session keyring.
    pub no_new_keyring: bool,
    /// How many fds from 3 (behind `$LISTEN_FDS`) the container keeps.
    pub preserve_fds: u32,
}

/// `run`.
#[derive(Debug, Default)]
pub struct Run {
    /// The options that it shares with `create`.
    pub create: Create,
    /// Return as soon as the container runs.
    pub detach: bool,
    /// Do not delete the container when it has ended.
    pub keep: bool,
    /// Do not become a child subreaper.
    pub no_subreaper: bool,
}

/// `exec`.
#[derive(Debug, Default)]
pub struct Exec {
    /// Container id.
    pub id: String,
    /// Program and arguments; may be empty only with `process`.
    pub args: Vec<String>,
    /// A `process` object of config.json, as a file.
    pub process: Option<PathBuf>,
    /// Socket that receives the master of the pseudo-terminal.
    pub console_socket: Option<PathBuf>,
    /// Socket that receives a pidfd of the process.
    pub pidfd_socket: Option<PathBuf>,
    /// File that receives the pid.
    pub pid_file: Option<PathBuf>,
    /// Working directory in the container.
    pub cwd: Option<String>,
    /// Further environment, `NAME=value` each.
    pub env: Vec<String>,
    /// Allocate a pseudo-terminal.
    pub tty: bool,
    /// User and group.
    pub user: Option<User>,
    /// Further groups.
    pub additional_gids: Vec<u32>,
    /// Return as soon as the process runs.
    pub detach: bool,
    /// SELinux label.
    pub process_label: Option<String>,
    /// AppArmor profile.
    pub apparmor: Option<String>,
    /// `no_new_privs`; absent leaves the container's.
    pub no_new_privs: Option<bool>,
    /// Further capabilities.
    pub cap: Vec<String>,
    /// How many fds from 3 (behind `$LISTEN_FDS`) the process keeps.
    pub preserve_fds: u32,
    /// Cgroups below the container's.
    pub cgroup: Vec<SubCgroup>,
    /// Also in a paused container.
    pub ignore_paused: bool,
}

/// `kill`.
#[derive(Debug)]
pub struct Kill {
    /// Container id, or the pattern with `regex`.
    pub id: String,
    /// Signal number on this architecture, 0 to 64.
    pub signal: i32,
    /// runc: not running is no error.
    pub all: bool,
    /// `id` is a regular expression over ids.
    pub regex: bool,
}

/// `delete`.
#[derive(Debug, Default)]
pub struct Delete {
    /// Container id, or the pattern with `regex`.
    pub id: String,
    /// Kill it first; no such container is no error.
    pub force: bool,
    /// `id` is a regular expression over ids.
    pub regex: bool,
}

/// `list`.
#[derive(Debug, Default)]
pub struct List {
    /// Table or JSON.
    pub format: OutputFormat,
    /// Ids only.
    pub quiet: bool,
}

/// `ps`.
#[derive(Debug, Default)]
pub struct Ps {
    /// Container id.
    pub id: String,
    /// Table or JSON.
    pub format: OutputFormat,
    /// Arguments of ps(1); empty means `-ef`.
    pub args: Vec<String>,
}

/// `update`: absent leaves the value.
#[derive(Debug, Default)]
pub struct Update {
    /// Container id.
    pub id: String,
    /// A `linux.resources` object as a file, or `-` for standard input; all other values are then ignored.
    pub resources: Option<PathBuf>,
    /// 10 to 1000.
    pub blkio_weight: Option<u16>,
    /// Microseconds.
    pub cpu_period: Option<u64>,
    /// Microseconds; negative is unlimited.
    pub cpu_quota: Option<i64>,
    /// Microseconds.
    pub cpu_burst: Option<u64>,
    /// Relative weight.
    pub cpu_share: Option<u64>,
    /// Microseconds.
    pub cpu_rt_period: Option<u64>,
    /// Microseconds.
    pub cpu_rt_runtime: Option<i64>,
    /// SCHED_IDLE for the cgroup.
    pub cpu_idle: Option<i64>,
    /// List of CPUs.
    pub cpuset_cpus: Option<String>,
    /// List of memory nodes.
    pub cpuset_mems: Option<String>,
    /// Bytes; -1 is unlimited.
    pub memory: Option<i64>,
    /// Bytes; -1 is unlimited.
    pub memory_reservation: Option<i64>,
    /// Bytes, memory and swap together; -1 is unlimited.
    pub memory_swap: Option<i64>,
    /// `--kernel-memory` was given: worth a warning, as the kernel has no such limit.
    pub kernel_memory: bool,
    /// Bytes of TCP sockets' buffers, on cgroup v1; -1 is unlimited.
    pub kernel_memory_tcp: Option<i64>,
    /// Number of tasks; not positive is unlimited.
    pub pids_limit: Option<i64>,
    /// Intel RDT.
    pub l3_cache_schema: Option<String>,
    /// Intel RDT.
    pub mem_bw_schema: Option<String>,
}

/// `events`.
#[derive(Debug)]
pub struct Events {
    /// Container id.
    pub id: String,
    /// Between two statistics; greater than zero.
    pub interval: Duration,
    /// Print statistics once.
    pub stats: bool,
}

/// `spec`.
#[derive(Debug, Default)]
pub struct Spec {
    /// Where to write; absent means the current directory.
    pub bundle: Option<PathBuf>,
    /// File name instead of `config.json`.
    pub config: Option<PathBuf>,
    /// For a container without root.
    pub rootless: bool,
}

/// What `checkpoint` and `restore` share; all of it goes to CRIU.
#[derive(Debug, Default)]
pub struct Criu {
    /// Container id.
    pub id: String,
    /// Images.
    pub image_path: Option<PathBuf>,
    /// Work files and logs.
    pub work_path: Option<PathBuf>,
    /// Established TCP connections.
    pub tcp_established: bool,
    /// External Unix sockets.
    pub ext_unix_sk: bool,
    /// Processes on a terminal of somebody else's session.
    pub shell_job: bool,
    /// File locks.
    pub file_locks: bool,
    /// How cgroups are treated.
    pub manage_cgroups_mode: Option<ManageCgroups>,
    /// `--empty-ns network`.
    pub empty_network: bool,
    /// Deduplicate the memory images.
    pub auto_dedup: bool,
    /// Pages on demand.
    pub lazy_pages: bool,
    /// How connections are locked meanwhile.
    pub network_lock: Option<NetworkLock>,
}

/// `checkpoint`.
#[derive(Debug, Default)]
pub struct Checkpoint {
    /// What it shares with `restore`.
    pub criu: Criu,
    /// Images of a pre-dump, relative to `image_path`.
    pub parent_path: Option<PathBuf>,
    /// The container goes on.
    pub leave_running: bool,
    /// TCP connections that are not yet established are left out.
    pub tcp_skip_in_flight: bool,
    /// Unlinked files are linked again.
    pub link_remap: bool,
    /// fd that CRIU writes a NUL to when lazy pages are ready.
    pub status_fd: Option<i32>,
    /// Page server.
    pub page_server: Option<PageServer>,
    /// Memory only, and the container goes on.
    pub pre_dump: bool,
}

/// `restore`.
#[derive(Debug, Default)]
pub struct Restore {
    /// What it shares with `checkpoint`.
    pub criu: Criu,
    /// Bundle directory; absent means the current directory.
    pub bundle: Option<PathBuf>,
    /// Socket that receives the master of the pseudo-terminal.
    pub console_socket: Option<PathBuf>,
    /// File that receives the pid.
    pub pid_file: Option<PathBuf>,
    /// Return as soon as the container runs.
    pub detach: bool,
    /// Do not become a child subreaper.
    pub no_subreaper: bool,
    /// Use MS_MOVE and chroot instead of pivot_root(2).
    pub no_pivot: bool,
    /// Restore established TCP connections as closed.
    pub tcp_close: bool,
    /// `TYPE:NAME`.
    pub lsm_profile: Option<String>,
    /// SELinux mount context.
    pub lsm_mount_context: Option<String>,
}

/// `plan`.
#[derive(Debug, Default)]
pub struct Plan {
    /// Container id, where the plan depends on one.
    pub id: Option<String>,
    /// Bundle directory; absent means the current directory.
    pub bundle: Option<PathBuf>,
    /// Configuration instead of `config.json` in the bundle.
    pub config: Option<PathBuf>,
    /// JSON instead of lines.
    pub json: bool,
}

/// `check`.
#[derive(Debug, Default)]
pub struct Check {
    /// JSON instead of lines.
    pub json: bool,
}

/// Checks a container id: it becomes the name of a directory, of a cgroup and of a keyring.
///
/// # Errors
/// Empty, longer than a file name (255 bytes), `.`, `..`, or a character beside `[A-Za-z0-9_+.-]`; the texts
/// are those that callers know from runc.
pub fn id(id: &str) -> Result<&str> {
    if id.is_empty() {
        return Err(Error::kind(Kind::Usage, "container id cannot be empty"));
    }
    let known = |b: u8| b.is_ascii_alphanumeric() || b"_+.-".contains(&b);
    if id == "." || id == ".." || id.len() > 255 || !id.bytes().all(known) {
        return Err(Error::kind(Kind::Usage, "invalid container ID format"));
    }
    Ok(id)
}

#[cfg(test)]
mod tests {
    #[test]
    fn an_id_is_a_plain_file_name() {
        for good in ["a", "+", "_", ".hidden", "-x", "a.b-c+d_E9", &"x".repeat(255)] {
            assert_eq!(super::id(good).unwrap(), good);
        }
        assert_eq!(super::id("").unwrap_err().to_string(), "container id cannot be empty");
        for bad in [
            ".",
            "..",
            "../x",
            "a/b",
            "a b",
            "é",
            "a\n",
            "a:b",
            "@",
            "a\0",
            &"x".repeat(256),
            &"x".repeat(5000),
        ] {
            assert_eq!(super::id(bad).unwrap_err().to_string(), "invalid container ID format", "{bad:?}");
        }
    }
}
