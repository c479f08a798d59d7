//! The one table of flags, and the one table of commands.
//!
//! Modelled on ripgrep's: whatever knows about flags (parser, help, man pages, completions, tests) reads
//! this, so a flag cannot be parsed and undocumented, or documented and unknown.

#![forbid(unsafe_code)]

use super::values::{self, ManageCgroups, Manager, NetworkLock, OutputFormat, Rootless, Shell};
use super::{
    Check, Checkpoint, Command, Create, Criu, Delete, Events, Exec, Global, Kill, List, Plan, Ps, Restore,
    Run,
};
use super::{Spec, Update};
use crate::log;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

/// What the flags write to; a command takes from it what it has.
#[derive(Debug)]
pub struct Draft {
    /// Of every command.
    pub global: Global,
    create: Create,
    exec: Exec,
    update: Update,
    criu: Criu,
    checkpoint: Checkpoint,
    restore: Restore,
    bundle: Option<PathBuf>,
    config: Option<PathBuf>,
    console_socket: Option<PathBuf>,
    pidfd_socket: Option<PathBuf>,
    pid_file: Option<PathBuf>,
    no_pivot: bool,
    preserve_fds: u32,
    detach: bool,
    keep: bool,
    no_subreaper: bool,
    force: bool,
    regex: bool,
    all: bool,
    format: OutputFormat,
    quiet: bool,
    interval: Duration,
    stats: bool,
    json: bool,
    rootless_spec: bool,
}

impl Default for Draft {
    fn default() -> Self {
        Self {
            global: Global::default(),
            create: Create::default(),
            exec: Exec::default(),
            update: Update::default(),
            criu: Criu::default(),
            checkpoint: Checkpoint::default(),
            restore: Restore::default(),
            bundle: None,
            config: None,
            console_socket: None,
            pidfd_socket: None,
            pid_file: None,
            no_pivot: false,
            preserve_fds: 0,
            detach: false,
            keep: false,
            no_subreaper: false,
            force: false,
            regex: false,
            all: false,
            format: OutputFormat::Table,
            quiet: false,
            interval: Duration::from_secs(5),
            stats: false,
            json: false,
            rootless_spec: false,
        }
    }
}

/// Writes a value to the draft, or says what is wrong with it.
pub type SetValue = fn(&mut Draft, &OsStr) -> Result<(), String>;

/// What a flag does.
#[derive(Debug, Clone, Copy)]
pub enum Set {
    /// No value, or `=true` and `=false`.
    Switch(fn(&mut Draft, bool)),
    /// A value, named by the word; what follows the flag is always its value, even with a dash.
    Value(&'static str, SetValue),
}

/// What a shell offers in the place of a value or an operand.
#[derive(Debug, Clone, Copy)]
pub enum Offer {
    /// Nothing.
    Nothing,
    /// Files.
    Files,
    /// Directories.
    Directories,
    /// These words.
    Words(&'static [&'static str]),
    /// Ids of containers.
    Ids,
    /// Ids of containers, then signals.
    IdsThenSignals,
    /// Commands.
    Commands,
}

/// A flag.
#[derive(Debug, Clone, Copy)]
pub struct Flag {
    /// Without dashes.
    pub name: &'static str,
    /// The one-letter form.
    pub short: Option<char>,
    /// Names of the commands that have it; [`GLOBAL`] for all.
    pub on: &'static [&'static str],
    /// One line, lower-case, without a full stop.
    pub help: &'static str,
    /// Accepted for the sake of old callers, and not shown.
    pub hidden: bool,
    /// For completion.
    pub offer: Offer,
    /// What it does.
    pub set: Set,
}

impl Flag {
    const fn switch(
        name: &'static str,
        on: &'static [&'static str],
        help: &'static str,
        set: fn(&mut Draft, bool),
    ) -> Self {
        Self { name, short: None, on, help, hidden: false, offer: Offer::Nothing, set: Set::Switch(set) }
    }
    const fn value(
        name: &'static str,
        metavar: &'static str,
        on: &'static [&'static str],
        help: &'static str,
        set: SetValue,
    ) -> Self {
        Self {
            name,
            short: None,
            on,
            help,
            hidden: false,
            offer: Offer::Nothing,
            set: Set::Value(metavar, set),
        }
    }
    const fn short(self, short: char) -> Self {
        Self { short: Some(short), ..self }
    }
    const fn hidden(self) -> Self {
        Self { hidden: true, ..self }
    }
    const fn offer(self, offer: Offer) -> Self {
        Self { offer, ..self }
    }

    /// Whether `command` has it.
    pub fn is_on(&self, command: &str) -> bool {
        self.on.contains(&command)
    }
}

/// The place of global flags in [`Flag::on`].
pub const GLOBAL: &str = "";

/// A command.
#[derive(Debug)]
pub struct Topic {
    /// As typed.
    pub name: &'static str,
    /// Operands, as shown in the usage.
    pub operands: &'static str,
    /// Fewest and most operands; `None` is no limit.
    pub count: (usize, Option<usize>),
    /// Whether everything behind the first operand is an operand too, dashes or not.
    pub verbatim: bool,
    /// One line, lower-case, without a full stop.
    pub about: &'static str,
    /// Further paragraphs, for the help and the man page; `@` stands for the name of the program.
    pub text: &'static str,
    /// Left out of the overview.
    pub hidden: bool,
    /// For completion of operands.
    pub offer: Offer,
    /// Builds the command.
    pub finish: fn(Draft, Vec<String>) -> Result<Command, String>,
}

/// The command of that name.
pub fn topic(name: &str) -> Option<&'static Topic> {
    TOPICS.iter().find(|t| t.name == name)
}

/// The flags of a command, in table order; hidden ones too.
pub fn of(command: &str) -> impl Iterator<Item = &'static Flag> {
    FLAGS.iter().filter(move |f| f.is_on(command))
}

fn text(value: &OsStr) -> Result<&str, String> {
    value.to_str().ok_or_else(|| "not UTF-8".to_owned())
}

/// A path; empty means absent, as for runc.
fn path(to: &mut Option<PathBuf>, value: &OsStr) -> Result<(), String> {
    *to = (!value.is_empty()).then(|| value.into());
    Ok(())
}

/// A string; empty means absent, as for runc.
fn string(to: &mut Option<String>, value: &OsStr) -> Result<(), String> {
    let value = text(value)?;
    *to = (!value.is_empty()).then(|| value.to_owned());
    Ok(())
}

/// A number; empty means absent, as for runc.
fn number<T: std::str::FromStr>(to: &mut Option<T>, value: &OsStr) -> Result<(), String> {
    let value = text(value)?;
    let plain = value.strip_prefix('-').unwrap_or(value);
    if value.is_empty() {
        *to = None;
        return Ok(());
    }
    if !plain.bytes().all(|b| b.is_ascii_digit()) {
        return Err("not a number".to_owned());
    }
    *to = Some(value.parse().map_err(|_| "number out of range".to_owned())?);
    Ok(())
}

fn size(to: &mut Option<i64>, value: &OsStr) -> Result<(), String> {
    let value = text(value)?;
    *to = if value.is_empty() { None } else { Some(values::size(value)?) };
    Ok(())
}

fn word<T>(value: &OsStr, parse: fn(&str) -> Option<T>, words: &[&str]) -> Result<T, String> {
    parse(text(value)?).ok_or_else(|| format!("must be one of {}", words.join(", ")))
}

fn preserve_fds(value: &OsStr) -> Result<u32, String> {
    let mut count: Option<i64> = None;
    number(&mut count, value)?;
    // The kernel's own ceiling (fs.nr_open) is 2^30; an fd is an int.
    let count = count.unwrap_or(0);
    u32::try_from(count)
        .ok()
        .filter(|n| *n <= 1 << 30)
        .ok_or_else(|| format!("{count} is not a number of fds"))
}

/// All flags, in the order of the help.
pub static FLAGS: &[Flag] = &[
    // Global.
    Flag::switch("debug", &[GLOBAL], "log debug messages", |d, on| d.global.debug = on),
    Flag::value(
        "log",
        "TARGET",
        &[GLOBAL],
        "where messages go: a file, file:PATH, journald:ID or syslog:ID (default: standard error)",
        |d, v| {
            d.global.log = log::Target::parse(v)?;
            Ok(())
        },
    )
    .offer(Offer::Files),
    Flag::value("log-format", "FORMAT", &[GLOBAL], "how messages look: text (default) or json", |d, v| {
        let word = text(v)?;
        d.global.log_format =
            log::Format::parse(word).ok_or_else(|| format!("invalid log-format: {word}"))?;
        Ok(())
    })
    .offer(Offer::Words(log::Format::WORDS)),
    Flag::value(
        "log-level",
        "LEVEL",
        &[GLOBAL],
        "the least severe messages that are logged: debug, info, warning (default) or error",
        |d, v| {
            d.global.log_level = word(v, log::Level::parse, log::Level::WORDS)?;
            Ok(())
        },
    )
    .offer(Offer::Words(log::Level::WORDS)),
    Flag::value(
        "root",
        "DIR",
        &[GLOBAL],
        "directory for the state of containers, best on a tmpfs",
        |d, v| {
            if v.is_empty() {
                return Err("must not be empty".to_owned());
            }
            path(&mut d.global.root, v)
        },
    )
    .offer(Offer::Directories),
    Flag::switch(
        "systemd-cgroup",
        &[GLOBAL],
        "have systemd make the cgroups; cgroupsPath is then slice:prefix:name",
        |d, on| {
            d.global.systemd_cgroup = on;
        },
    ),
    Flag::value(
        "cgroup-manager",
        "WHO",
        &[GLOBAL],
        "who makes the cgroups: cgroupfs (default), systemd or disabled",
        |d, v| {
            d.global.cgroup_manager = Some(word(v, Manager::parse, Manager::WORDS)?);
            Ok(())
        },
    )
    .offer(Offer::Words(Manager::WORDS)),
    Flag::value(
        "rootless",
        "WHEN",
        &[GLOBAL],
        "pass over cgroup permission errors: true, false or auto (default)",
        |d, v| {
            let value = text(v)?.to_ascii_lowercase();
            d.global.rootless = match values::boolean(&value) {
                Some(true) => Rootless::True,
                Some(false) => Rootless::False,
                None if value.is_empty() || value == "auto" => Rootless::Auto,
                None => return Err("must be true, false or auto".to_owned()),
            };
            Ok(())
        },
    )
    .offer(Offer::Words(Rootless::WORDS)),
    Flag::value("criu", "PATH", &[GLOBAL], "ignored; criu is looked up in PATH", |_, _| Ok(())).hidden(),
    // Starting.
    Flag::value(
        "bundle",
        "DIR",
        &["create", "run", "restore", "spec", "plan"],
        "bundle directory (default: the current directory)",
        |d, v| path(&mut d.bundle, v),
    )
    .short('b')
    .offer(Offer::Directories),
    Flag::value(
        "config",
        "FILE",
        &["create", "run", "spec", "plan"],
        "configuration file (default: config.json in the bundle)",
        |d, v| path(&mut d.config, v),
    )
    .short('f')
    .offer(Offer::Files),
    Flag::value(
        "process",
        "FILE",
        &["exec"],
        "JSON file with the process to start, instead of a command",
        |d, v| path(&mut d.exec.process, v),
    )
    .short('p')
    .offer(Offer::Files),
    Flag::value("cwd", "DIR", &["exec"], "working directory in the container", |d, v| {
        string(&mut d.exec.cwd, v)
    }),
    Flag::value("env", "NAME=VALUE", &["exec"], "set an environment variable; may be repeated", |d, v| {
        d.exec.env.push(text(v)?.to_owned());
        Ok(())
    })
    .short('e'),
    Flag::switch("tty", &["exec"], "allocate a pseudo-terminal", |d, on| d.exec.tty = on).short('t'),
    Flag::value("user", "UID[:GID]", &["exec"], "numeric user and group of the process", |d, v| {
        d.exec.user = Some(values::user(text(v)?)?);
        Ok(())
    })
    .short('u'),
    Flag::value(
        "additional-gids",
        "GID",
        &["exec"],
        "numeric supplementary group; may be repeated",
        |d, v| {
            d.exec.additional_gids.push(values::additional_gid(text(v)?)?);
            Ok(())
        },
    )
    .short('g'),
    Flag::value(
        "console-socket",
        "SOCKET",
        &["create", "run", "exec", "restore"],
        "Unix socket that receives the master of the pseudo-terminal",
        |d, v| path(&mut d.console_socket, v),
    )
    .offer(Offer::Files),
    Flag::value(
        "pidfd-socket",
        "SOCKET",
        &["create", "run", "exec"],
        "Unix socket that receives a pidfd of the process",
        |d, v| path(&mut d.pidfd_socket, v),
    )
    .offer(Offer::Files),
    Flag::value(
        "pid-file",
        "FILE",
        &["create", "run", "exec", "restore"],
        "file that receives the process id",
        |d, v| path(&mut d.pid_file, v),
    )
    .offer(Offer::Files),
    Flag::switch("detach", &["run", "exec", "restore"], "return as soon as the process runs", |d, on| {
        d.detach = on
    })
    .short('d'),
    Flag::switch("detach", &["create"], "ignored; create always detaches", |_, _| ()).short('d').hidden(),
    Flag::switch("keep", &["run"], "keep the container when its process has ended", |d, on| d.keep = on),
    Flag::switch(
        "no-subreaper",
        &["run", "restore"],
        "do not adopt orphans of the container's processes",
        |d, on| d.no_subreaper = on,
    ),
    Flag::switch("no-subreaper", &["create"], "ignored; create adopts nothing", |_, _| ()).hidden(),
    Flag::switch(
        "no-pivot",
        &["create", "run", "restore"],
        "use chroot(2) and not pivot_root(2), for a root on a ramdisk",
        |d, on| d.no_pivot = on,
    ),
    Flag::switch("no-new-keyring", &["create", "run"], "keep the session keyring of the caller", |d, on| {
        d.create.no_new_keyring = on
    }),
    Flag::value(
        "preserve-fds",
        "N",
        &["create", "run", "exec"],
        "pass N further file descriptors, behind 0 to 2 and $LISTEN_FDS",
        |d, v| {
            d.preserve_fds = preserve_fds(v)?;
            Ok(())
        },
    ),
    Flag::value("process-label", "LABEL", &["exec"], "SELinux label of the process", |d, v| {
        string(&mut d.exec.process_label, v)
    }),
    Flag::value("apparmor", "PROFILE", &["exec"], "AppArmor profile of the process", |d, v| {
        string(&mut d.exec.apparmor, v)
    }),
    Flag::switch("no-new-privs", &["exec"], "set no_new_privs for the process", |d, on| {
        d.exec.no_new_privs = Some(on)
    }),
    Flag::value("cap", "CAPABILITY", &["exec"], "add a capability; may be repeated", |d, v| {
        d.exec.cap.push(text(v)?.to_owned());
        Ok(())
    })
    .short('c'),
    Flag::value(
        "cgroup",
        "[CONTROLLER:]PATH",
        &["exec"],
        "existing cgroup below the container's; may be repeated on cgroup v1",
        |d, v| {
            d.exec.cgroup.push(values::sub_cgroup(text(v)?)?);
            Ok(())
        },
    ),
    Flag::switch("ignore-paused", &["exec"], "also in a paused container", |d, on| d.exec.ignore_paused = on),
    // Ending.
    Flag::switch(
        "force",
        &["delete"],
        "kill the container if it still runs; no such container is no error",
        |d, on| d.force = on,
    )
    .short('f'),
    Flag::switch(
        "regex",
        &["delete", "kill"],
        "the operand is a regular expression over container ids",
        |d, on| d.regex = on,
    )
    .short('r'),
    Flag::switch("all", &["kill"], "a container that does not run is no error", |d, on| d.all = on)
        .short('a')
        .hidden(),
    // Looking.
    Flag::value("format", "FORMAT", &["list", "ps"], "table (default) or json", |d, v| {
        d.format = OutputFormat::parse(text(v)?).ok_or("invalid format option")?;
        Ok(())
    })
    .short('f')
    .offer(Offer::Words(OutputFormat::WORDS)),
    Flag::switch("quiet", &["list"], "print ids only", |d, on| d.quiet = on).short('q'),
    Flag::value("interval", "DURATION", &["events"], "time between two statistics (default: 5s)", |d, v| {
        d.interval = values::duration(text(v)?)?;
        if d.interval.is_zero() {
            return Err("duration interval must be greater than 0".to_owned());
        }
        Ok(())
    }),
    Flag::switch("stats", &["events"], "print the statistics once", |d, on| d.stats = on),
    Flag::switch("json", &["plan", "check"], "print JSON", |d, on| d.json = on),
    Flag::switch("rootless", &["spec"], "write a configuration for a container without root", |d, on| {
        d.rootless_spec = on
    }),
    // Resources.
    Flag::value(
        "resources",
        "FILE",
        &["update"],
        "JSON file with the linux.resources to change, - for standard input; other options are ignored",
        |d, v| path(&mut d.update.resources, v),
    )
    .short('r')
    .offer(Offer::Files),
    Flag::value("blkio-weight", "WEIGHT", &["update"], "block I/O weight, 10 to 1000", |d, v| {
        number(&mut d.update.blkio_weight, v)
    }),
    Flag::value(
        "cpu-period",
        "MICROSECONDS",
        &["update"],
        "period over which cpu-quota counts; 0 for the default",
        |d, v| number(&mut d.update.cpu_period, v),
    ),
    Flag::value(
        "cpu-quota",
        "MICROSECONDS",
        &["update"],
        "CPU time in a period; negative for no limit",
        |d, v| number(&mut d.update.cpu_quota, v),
    ),
    Flag::value(
        "cpu-burst",
        "MICROSECONDS",
        &["update"],
        "unused CPU time that may be carried into a period",
        |d, v| number(&mut d.update.cpu_burst, v),
    ),
    Flag::value("cpu-share", "SHARES", &["update"], "CPU weight against other containers", |d, v| {
        number(&mut d.update.cpu_share, v)
    }),
    Flag::value(
        "cpu-rt-period",
        "MICROSECONDS",
        &["update"],
        "period over which cpu-rt-runtime counts",
        |d, v| number(&mut d.update.cpu_rt_period, v),
    ),
    Flag::value("cpu-rt-runtime", "MICROSECONDS", &["update"], "real-time CPU time in a period", |d, v| {
        number(&mut d.update.cpu_rt_runtime, v)
    }),
    Flag::value("cpu-idle", "0|1", &["update"], "1 to run the container as SCHED_IDLE", |d, v| {
        number(&mut d.update.cpu_idle, v)
    })
    .offer(Offer::Words(&["0", "1"])),
    Flag::value("cpuset-cpus", "LIST", &["update"], "CPUs that may be used", |d, v| {
        string(&mut d.update.cpuset_cpus, v)
    }),
    Flag::value("cpuset-mems", "LIST", &["update"], "memory nodes that may be used", |d, v| {
        string(&mut d.update.cpuset_mems, v)
    }),
    Flag::value("memory", "SIZE", &["update"], "memory limit; -1 for none", |d, v| {
        size(&mut d.update.memory, v)
    }),
    Flag::value(
        "memory-reservation",
        "SIZE",
        &["update"],
        "memory that is kept when memory is short",
        |d, v| size(&mut d.update.memory_reservation, v),
    ),
    Flag::value(
        "memory-swap",
        "SIZE",
        &["update"],
        "limit of memory and swap together; -1 for none",
        |d, v| size(&mut d.update.memory_swap, v),
    ),
    Flag::value("kernel-memory", "SIZE", &["update"], "ignored; the kernel has no such limit", |d, v| {
        d.update.kernel_memory = true;
        size(&mut None, v)
    })
    .hidden(),
    Flag::value(
        "kernel-memory-tcp",
        "SIZE",
        &["update"],
        "limit of the buffers of TCP sockets, on cgroup v1; -1 for none",
        |d, v| size(&mut d.update.kernel_memory_tcp, v),
    ),
    Flag::value("pids-limit", "N", &["update"], "number of tasks; 0 or negative for no limit", |d, v| {
        number(&mut d.update.pids_limit, v)
    }),
    Flag::value("l3-cache-schema", "SCHEMA", &["update"], "Intel RDT schema of the L3 cache", |d, v| {
        string(&mut d.update.l3_cache_schema, v)
    }),
    Flag::value(
        "mem-bw-schema",
        "SCHEMA",
        &["update"],
        "Intel RDT schema of the memory bandwidth",
        |d, v| string(&mut d.update.mem_bw_schema, v),
    ),
    // CRIU.
    Flag::value("image-path", "DIR", &["checkpoint", "restore"], "directory of the images", |d, v| {
        path(&mut d.criu.image_path, v)
    })
    .offer(Offer::Directories),
    Flag::value(
        "work-path",
        "DIR",
        &["checkpoint", "restore"],
        "directory of work files and logs",
        |d, v| path(&mut d.criu.work_path, v),
    )
    .offer(Offer::Directories),
    Flag::value(
        "parent-path",
        "DIR",
        &["checkpoint"],
        "images of a pre-dump, relative to --image-path",
        |d, v| path(&mut d.checkpoint.parent_path, v),
    )
    .offer(Offer::Directories),
    Flag::switch("leave-running", &["checkpoint"], "let the container go on", |d, on| {
        d.checkpoint.leave_running = on
    }),
    Flag::switch(
        "tcp-established",
        &["checkpoint", "restore"],
        "allow established TCP connections",
        |d, on| d.criu.tcp_established = on,
    ),
    Flag::switch(
        "tcp-skip-in-flight",
        &["checkpoint"],
        "leave out TCP connections that are being established",
        |d, on| {
            d.checkpoint.tcp_skip_in_flight = on;
        },
    ),
    Flag::switch("tcp-close", &["restore"], "restore established TCP connections as closed", |d, on| {
        d.restore.tcp_close = on
    }),
    Flag::switch("link-remap", &["checkpoint"], "link unlinked files again where possible", |d, on| {
        d.checkpoint.link_remap = on
    }),
    Flag::switch(
        "ext-unix-sk",
        &["checkpoint", "restore"],
        "allow connections to Unix sockets outside the container",
        |d, on| {
            d.criu.ext_unix_sk = on;
        },
    ),
    Flag::switch(
        "shell-job",
        &["checkpoint", "restore"],
        "allow processes on the terminal of a shell outside",
        |d, on| d.criu.shell_job = on,
    ),
    Flag::switch("file-locks", &["checkpoint", "restore"], "allow file locks", |d, on| {
        d.criu.file_locks = on
    }),
    Flag::switch(
        "lazy-pages",
        &["checkpoint", "restore"],
        "move memory pages when they are used",
        |d, on| d.criu.lazy_pages = on,
    ),
    Flag::value(
        "status-fd",
        "FD",
        &["checkpoint"],
        "file descriptor that CRIU writes a NUL to when lazy pages are ready",
        |d, v| {
            number(&mut d.checkpoint.status_fd, v)?;
            d.checkpoint.status_fd = d.checkpoint.status_fd.filter(|fd| *fd >= 0);
            Ok(())
        },
    ),
    Flag::value(
        "page-server",
        "ADDRESS:PORT",
        &["checkpoint"],
        "page server that takes the memory pages",
        |d, v| {
            let value = text(v)?;
            d.checkpoint.page_server =
                if value.is_empty() { None } else { Some(values::page_server(value)?) };
            Ok(())
        },
    ),
    Flag::switch("pre-dump", &["checkpoint"], "dump memory only and let the container go on", |d, on| {
        d.checkpoint.pre_dump = on
    }),
    Flag::value(
        "manage-cgroups-mode",
        "MODE",
        &["checkpoint", "restore"],
        "what CRIU does to cgroups: soft (default), full, strict or ignore",
        |d, v| {
            d.criu.manage_cgroups_mode =
                if v.is_empty() { None } else { Some(word(v, ManageCgroups::parse, ManageCgroups::WORDS)?) };
            Ok(())
        },
    )
    .offer(Offer::Words(ManageCgroups::WORDS)),
    Flag::value(
        "network-lock",
        "METHOD",
        &["checkpoint", "restore"],
        "how connections are locked meanwhile: iptables, nftables or skip",
        |d, v| {
            d.criu.network_lock = Some(word(v, NetworkLock::parse, NetworkLock::WORDS)?);
            Ok(())
        },
    )
    .offer(Offer::Words(NetworkLock::WORDS)),
    Flag::value(
        "empty-ns",
        "NAMESPACE",
        &["checkpoint", "restore"],
        "make the namespace, here network, without what is in it",
        |d, v| {
            if v != "network" {
                return Err(format!("namespace {v:?} is not supported"));
            }
            d.criu.empty_network = true;
            Ok(())
        },
    )
    .offer(Offer::Words(&["network"])),
    Flag::switch("auto-dedup", &["checkpoint", "restore"], "deduplicate the memory images", |d, on| {
        d.criu.auto_dedup = on
    }),
    Flag::value("lsm-profile", "TYPE:NAME", &["restore"], "profile of a Linux security module", |d, v| {
        string(&mut d.restore.lsm_profile, v)
    }),
    Flag::value("lsm-mount-context", "CONTEXT", &["restore"], "SELinux context of the mounts", |d, v| {
        string(&mut d.restore.lsm_mount_context, v)
    }),
];

/// The first operand.
fn first(operands: Vec<String>) -> String {
    operands.into_iter().next().unwrap_or_default()
}

/// The first operand and the others.
fn first_and_rest(mut operands: Vec<String>) -> (String, Vec<String>) {
    let rest = operands.split_off(operands.len().min(1));
    (first(operands), rest)
}

fn create(d: Draft, operands: Vec<String>) -> Create {
    Create {
        id: first(operands),
        bundle: d.bundle,
        config: d.config,
        console_socket: d.console_socket,
        pidfd_socket: d.pidfd_socket,
        pid_file: d.pid_file,
        no_pivot: d.no_pivot,
        preserve_fds: d.preserve_fds,
        ..d.create
    }
}

fn exec(d: Draft, operands: Vec<String>) -> Result<Command, String> {
    let (id, args) = first_and_rest(operands);
    if args.is_empty() && d.exec.process.is_none() {
        return Err("exec args cannot be empty".to_owned());
    }
    values::sub_cgroups(&d.exec.cgroup)?;
    Ok(Command::Exec(Exec {
        id,
        args,
        console_socket: d.console_socket,
        pidfd_socket: d.pidfd_socket,
        pid_file: d.pid_file,
        detach: d.detach,
        preserve_fds: d.preserve_fds,
        ..d.exec
    }))
}

fn restore(d: Draft, operands: Vec<String>) -> Command {
    Command::Restore(Restore {
        criu: Criu { id: first(operands), ..d.criu },
        bundle: d.bundle,
        console_socket: d.console_socket,
        pid_file: d.pid_file,
        detach: d.detach,
        no_subreaper: d.no_subreaper,
        no_pivot: d.no_pivot,
        ..d.restore
    })
}

const ID: &str = "<container-id>";
const ONE: (usize, Option<usize>) = (1, Some(1));
const NONE: (usize, Option<usize>) = (0, Some(0));

impl Topic {
    const fn new(
        name: &'static str,
        operands: &'static str,
        count: (usize, Option<usize>),
        offer: Offer,
        about: &'static str,
        finish: fn(Draft, Vec<String>) -> Result<Command, String>,
    ) -> Self {
        Self { name, operands, count, verbatim: false, about, text: "", hidden: false, offer, finish }
    }
    const fn text(self, text: &'static str) -> Self {
        Self { text, ..self }
    }
    const fn verbatim(self) -> Self {
        Self { verbatim: true, ..self }
    }
    const fn hidden(self) -> Self {
        Self { hidden: true, ..self }
    }
}

/// All commands, in alphabetical order.
pub static TOPICS: &[Topic] = &[
    Topic::new(
        "check",
        "",
        NONE,
        Offer::Nothing,
        "report what this kernel and machine offer to containers",
        |d, _| Ok(Command::Check(Check { json: d.json })),
    )
    .text(
        "Names each kernel feature that containers may need, whether it is there, and \
         what is lost without it.",
    ),
    Topic::new("checkpoint", ID, ONE, Offer::Ids, "save a running container to disk with CRIU", |d, o| {
        Ok(Command::Checkpoint(Checkpoint { criu: Criu { id: first(o), ..d.criu }, ..d.checkpoint }))
    })
    .text(
        "The container is deleted afterwards, unless --leave-running or --pre-dump is \
         given. Options for CRIU itself are read from the file named in the annotation \
         org.criu.config.",
    ),
    Topic::new(
        "completion",
        "bash|zsh|fish",
        ONE,
        Offer::Words(Shell::WORDS),
        "print the completion script of a shell",
        |_, o| {
            let shell = first(o);
            Shell::parse(&shell)
                .map(Command::Completion)
                .ok_or_else(|| format!("no completion for {shell:?}: bash, zsh or fish"))
        },
    )
    .text(
        "bash: source <(@ completion bash). zsh: store the script as _@ in a directory \
         of $fpath. fish: @ completion fish | source.",
    ),
    Topic::new(
        "create",
        ID,
        ONE,
        Offer::Nothing,
        "make a container, and leave its process to start",
        |d, o| Ok(Command::Create(create(d, o))),
    )
    .text(
        "Everything that config.json asks for is set up, and a process waits in the \
         container; start lets it execute the user's program. The id must be new on this \
         machine.",
    ),
    Topic::new("delete", ID, ONE, Offer::Ids, "remove what is left of a container", |d, o| {
        Ok(Command::Delete(Delete { id: first(o), force: d.force, regex: d.regex }))
    })
    .text(
        "A container that is not stopped is refused without --force. --force also removes what a \
         crash left behind.",
    ),
    Topic::new(
        "events",
        ID,
        ONE,
        Offer::Ids,
        "print statistics and out-of-memory events as JSON lines",
        |d, o| Ok(Command::Events(Events { id: first(o), interval: d.interval, stats: d.stats })),
    )
    .text("Ends with the container."),
    Topic::new(
        "exec",
        "<container-id> <command> [argument...]",
        (1, None),
        Offer::Ids,
        "run a further process in a container",
        exec,
    )
    .verbatim()
    .text(
        "Options are not looked for behind the container id: they belong to the command. \
         Without --process, the process is that of config.json but for the command and \
         what the options change. The exit status is the process's, 128+n if signal n \
         ended it, or 255 if it could not be started.",
    ),
    Topic::new("features", "", NONE, Offer::Nothing, "print what @ supports, as JSON", |_, _| {
        Ok(Command::Features)
    })
    .text("The document is that of features.md in the runtime specification."),
    Topic::new(
        "generate",
        "man DIR",
        (2, Some(2)),
        Offer::Nothing,
        "write the man pages to a directory",
        |_, o| match first_and_rest(o) {
            (what, rest) if what == "man" => Ok(Command::GenerateMan(first(rest).into())),
            (what, _) => Err(format!("cannot generate {what:?}: only man")),
        },
    )
    .hidden(),
    Topic::new("help", "[command]", (0, Some(1)), Offer::Commands, "explain a command", |_, o| {
        match o.first() {
            None => Ok(Command::Help(None)),
            Some(name) => topic(name).map(|t| Command::Help(Some(t))).ok_or_else(|| no_topic(name)),
        }
    }),
    Topic::new(
        "kill",
        "<container-id> [signal]",
        (1, Some(2)),
        Offer::IdsThenSignals,
        "send a signal to a container's process",
        |d, o| {
            let (id, rest) = first_and_rest(o);
            let signal = if rest.is_empty() { libc::SIGTERM } else { values::signal(&first(rest))? };
            Ok(Command::Kill(Kill { id, signal, all: d.all, regex: d.regex }))
        },
    )
    .text("The signal is a number or a name, with or without SIG; SIGTERM if absent."),
    Topic::new("list", "", NONE, Offer::Nothing, "list containers", |d, _| {
        Ok(Command::List(List { format: d.format, quiet: d.quiet }))
    })
    .text("Containers are those below --root."),
    Topic::new("pause", ID, ONE, Offer::Ids, "freeze all processes of a container", |_, o| {
        Ok(Command::Pause(first(o)))
    }),
    Topic::new(
        "plan",
        "[container-id]",
        (0, Some(1)),
        Offer::Nothing,
        "show what create would do, and do nothing",
        |d, o| {
            Ok(Command::Plan(Plan {
                id: o.into_iter().next(),
                bundle: d.bundle,
                config: d.config,
                json: d.json,
            }))
        },
    )
    .text(
        "One line per decision: namespaces, mounts in order, devices, limits, \
         capabilities, the system call filter.",
    ),
    Topic::new(
        "ps",
        "<container-id> [ps-option...]",
        (1, None),
        Offer::Ids,
        "list the processes of a container",
        |d, o| {
            let (id, args) = first_and_rest(o);
            Ok(Command::Ps(Ps { id, format: d.format, args }))
        },
    )
    .verbatim()
    .text("Options behind the container id are those of ps(1), -ef if there are none."),
    Topic::new("restore", ID, ONE, Offer::Nothing, "bring back a container that checkpoint saved", |d, o| {
        Ok(restore(d, o))
    }),
    Topic::new("resume", ID, ONE, Offer::Ids, "thaw the processes of a paused container", |_, o| {
        Ok(Command::Resume(first(o)))
    }),
    Topic::new("run", ID, ONE, Offer::Nothing, "make a container, start it and wait for it", |d, o| {
        let (detach, keep, no_subreaper) = (d.detach, d.keep, d.no_subreaper);
        Ok(Command::Run(Run { create: create(d, o), detach, keep, no_subreaper }))
    })
    .text(
        "create, start and delete in one. The exit status is the process's, or 128+n if \
         signal n ended it.",
    ),
    Topic::new("spec", "", NONE, Offer::Nothing, "write a config.json to begin with", |d, _| {
        Ok(Command::Spec(Spec { bundle: d.bundle, config: d.config, rootless: d.rootless_spec }))
    })
    .text("An existing file is not overwritten."),
    Topic::new("start", ID, ONE, Offer::Ids, "execute the program of a created container", |_, o| {
        Ok(Command::Start(first(o)))
    }),
    Topic::new("state", ID, ONE, Offer::Ids, "print the state of a container as JSON", |_, o| {
        Ok(Command::State(first(o)))
    }),
    Topic::new("update", ID, ONE, Offer::Ids, "change the resource limits of a container", |d, o| {
        Ok(Command::Update(Update { id: first(o), ..d.update }))
    })
    .text(
        "What is not given stays. Sizes take the suffixes k, M, G, T and P, in units of \
         1024.",
    ),
];

/// The words that runc has for an unknown command, which its test suite looks for.
pub fn no_topic(name: &str) -> String {
    format!("No help topic for '{name}'")
}

/// An operand as text: ids, arguments and environment are JSON strings in config.json too.
///
/// # Errors
/// Not UTF-8.
pub fn operand(arg: OsString) -> Result<String, String> {
    arg.into_string().map_err(|arg| format!("argument {} is not UTF-8", arg.to_string_lossy()))
}
