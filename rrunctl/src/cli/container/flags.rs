//! The flags of `docker run`, `docker create`, `docker update` and `docker exec`, and the requests that they make.
//!
//! What docker's CLI 28.2.2 accepts is accepted, and what it makes of it is what the engine gets: `tests` compares both
//! by what a CLI sent. Flags are strings here and are read where the request is made, so that what is wrong is told in
//! docker's words. The caller ends with 125 then.

#![forbid(unsafe_code)]

mod device;
mod env;
mod exec;
mod limits;
mod mount;
mod network;
mod port;
mod request;
mod value;
mod ways;

#[cfg(test)]
mod observed;
#[cfg(test)]
mod tests;

use clap::Args;
pub(super) use exec::{Exec, ExecOptions};
use limits::Limits;
pub(super) use limits::Update;
pub(super) use ways::{Client, Image, Pull, Session, Ways};

/// What a container is made from. `-h` is the host name's, so that help is `--help` alone.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(super) struct Flags {
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
    /// Its name; made up unless given
    #[arg(long, value_name = "NAME", allow_hyphen_values = true)]
    name: Option<String>,
    /// Remove it, and its volumes without a name, when it has ended
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "true")]
    rm: Option<String>,
    /// Keep its standard input open
    #[arg(short, long, value_name = "BOOL", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "true")]
    interactive: Option<String>,
    /// With a terminal
    #[arg(short, long, value_name = "BOOL", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "true")]
    tty: Option<String>,
    /// Be attached to stdin, stdout or stderr; several times for several [default: stdout, stderr]
    #[arg(short, long, value_name = "STREAM", allow_hyphen_values = true)]
    attach: Vec<String>,
    /// A variable (KEY=VALUE, or KEY from here); several times for several
    #[arg(short, long, value_name = "VARIABLE", allow_hyphen_values = true)]
    env: Vec<String>,
    /// A file of variables, one a line
    #[arg(long, value_name = "FILE", allow_hyphen_values = true)]
    env_file: Vec<String>,
    /// In front of the command, in place of what the image has; empty for nothing
    #[arg(long, value_name = "PROGRAM", allow_hyphen_values = true)]
    entrypoint: Option<String>,
    /// As whom: USER[:GROUP], names or numbers
    #[arg(short, long, value_name = "USER", allow_hyphen_values = true)]
    user: Option<String>,
    /// Where the command starts
    #[arg(short, long, value_name = "DIR", allow_hyphen_values = true)]
    workdir: Option<String>,
    /// A further group; several times for several
    #[arg(long, value_name = "GROUP", allow_hyphen_values = true)]
    group_add: Vec<String>,
    /// Its host name [default: how its id begins]
    #[arg(short, long, value_name = "NAME", allow_hyphen_values = true)]
    hostname: Option<String>,
    /// Its NIS domain
    #[arg(long, value_name = "NAME", allow_hyphen_values = true)]
    domainname: Option<String>,
    /// Something to find it by (KEY[=VALUE]); several times for several
    #[arg(short, long, value_name = "LABEL", allow_hyphen_values = true)]
    label: Vec<String>,
    /// A file of labels, one a line
    #[arg(long, value_name = "FILE", allow_hyphen_values = true)]
    label_file: Vec<String>,
    /// For the runtime; several times for several
    #[arg(long, value_name = "KEY=VALUE", allow_hyphen_values = true)]
    annotation: Vec<String>,
    /// What is done when it has ended: no, always, unless-stopped, on-failure[:TIMES]
    #[arg(long, value_name = "POLICY", allow_hyphen_values = true)]
    restart: Option<String>,
    /// What ends it [default: the image's, or SIGTERM]
    #[arg(long, value_name = "SIGNAL", allow_hyphen_values = true)]
    stop_signal: Option<String>,
    /// How long until SIGKILL follows [default: 10]
    #[arg(long, value_name = "SECONDS", allow_hyphen_values = true)]
    stop_timeout: Option<String>,
    /// With a first process that reaps the others
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "true")]
    init: Option<String>,
    /// Write its id there
    #[arg(long, value_name = "FILE", allow_hyphen_values = true)]
    cidfile: Option<String>,
    /// A volume or a path of the host ([SOURCE:]TARGET[:OPTIONS]); several times for several
    #[arg(short, long, value_name = "VOLUME", allow_hyphen_values = true, help_heading = "Files")]
    volume: Vec<String>,
    /// type=bind|volume|tmpfs,source=…,target=…[,readonly]; several times for several
    #[arg(long, value_name = "MOUNT", allow_hyphen_values = true, help_heading = "Files")]
    mount: Vec<String>,
    /// Memory in place of a directory; several times for several
    #[arg(long, value_name = "DIR[:OPTIONS]", allow_hyphen_values = true, help_heading = "Files")]
    tmpfs: Vec<String>,
    /// The volumes of another (CONTAINER[:ro]); several times for several
    #[arg(long, value_name = "CONTAINER", allow_hyphen_values = true, help_heading = "Files")]
    volumes_from: Vec<String>,
    /// What makes its volumes
    #[arg(long, value_name = "DRIVER", allow_hyphen_values = true, help_heading = "Files")]
    volume_driver: Option<String>,
    /// Nothing but its volumes can be written to
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(help_heading = "Files")]
    read_only: Option<String>,
    /// How much /dev/shm takes [default: 64m]
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true, help_heading = "Files")]
    shm_size: Option<String>,
    /// Of the driver that keeps its root file system
    #[arg(long, value_name = "KEY=VALUE", allow_hyphen_values = true, help_heading = "Files")]
    storage_opt: Vec<String>,
    /// A network, host, none or container:CONTAINER, or name=NETWORK,alias=…,ip=…; several times for several
    #[arg(long, value_name = "NETWORK", allow_hyphen_values = true, alias = "net", help_heading = "Network")]
    network: Vec<String>,
    /// A further name in the first network; several times for several
    #[arg(long, value_name = "NAME", allow_hyphen_values = true, alias = "net-alias")]
    #[arg(help_heading = "Network")]
    network_alias: Vec<String>,
    /// Its IPv4 address in the first network
    #[arg(long, value_name = "ADDRESS", allow_hyphen_values = true, help_heading = "Network")]
    ip: Option<String>,
    /// Its IPv6 address in the first network
    #[arg(long, value_name = "ADDRESS", allow_hyphen_values = true, help_heading = "Network")]
    ip6: Option<String>,
    /// Further addresses in the first network
    #[arg(long, value_name = "ADDRESS", allow_hyphen_values = true, help_heading = "Network")]
    link_local_ip: Vec<String>,
    /// Its hardware address in the first network
    #[arg(long, value_name = "ADDRESS", allow_hyphen_values = true, help_heading = "Network")]
    mac_address: Option<String>,
    /// Know another container by its name (CONTAINER[:ALIAS])
    #[arg(long, value_name = "CONTAINER", allow_hyphen_values = true, help_heading = "Network")]
    link: Vec<String>,
    /// A port of the host for one of its own ([ADDRESS:][PORT:]PORT[/PROTOCOL]); several times for several
    #[arg(short, long, value_name = "PORT", allow_hyphen_values = true, help_heading = "Network")]
    publish: Vec<String>,
    /// A port of the host for each that is exposed
    #[arg(short = 'P', long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(help_heading = "Network")]
    publish_all: Option<String>,
    /// A port that something listens on (PORT[-PORT][/PROTOCOL])
    #[arg(long, value_name = "PORT", allow_hyphen_values = true, help_heading = "Network")]
    expose: Vec<String>,
    /// Whom to ask for names; several times for several
    #[arg(long, value_name = "ADDRESS", allow_hyphen_values = true, help_heading = "Network")]
    dns: Vec<String>,
    /// Where to look for short names
    #[arg(long, value_name = "DOMAIN", allow_hyphen_values = true, help_heading = "Network")]
    dns_search: Vec<String>,
    /// Further options of resolv.conf
    #[arg(long, value_name = "OPTION", allow_hyphen_values = true, alias = "dns-opt")]
    #[arg(help_heading = "Network")]
    dns_option: Vec<String>,
    /// A line of /etc/hosts; host-gateway is the host
    #[arg(long, value_name = "NAME:ADDRESS", allow_hyphen_values = true, help_heading = "Network")]
    add_host: Vec<String>,
    /// With every privilege and every device
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(help_heading = "Security")]
    privileged: Option<String>,
    /// One that it has besides; ALL for all
    #[arg(long, value_name = "CAPABILITY", allow_hyphen_values = true, help_heading = "Security")]
    cap_add: Vec<String>,
    /// One that it has not; ALL for all
    #[arg(long, value_name = "CAPABILITY", allow_hyphen_values = true, help_heading = "Security")]
    cap_drop: Vec<String>,
    /// no-new-privileges, seccomp=FILE|unconfined, apparmor=PROFILE, systempaths=unconfined
    #[arg(long, value_name = "OPTION", allow_hyphen_values = true, help_heading = "Security")]
    security_opt: Vec<String>,
    /// A kernel parameter of its own
    #[arg(long, value_name = "KEY=VALUE", allow_hyphen_values = true, help_heading = "Security")]
    sysctl: Vec<String>,
    /// A device of the host (HOST[:INSIDE][:rwm]); several times for several
    #[arg(long, value_name = "DEVICE", allow_hyphen_values = true, help_heading = "Security")]
    device: Vec<String>,
    /// A rule for devices: c 1:3 rwm
    #[arg(long, value_name = "RULE", allow_hyphen_values = true, help_heading = "Security")]
    device_cgroup_rule: Vec<String>,
    /// all, a number, or count=…,device=…
    #[arg(long, value_name = "REQUEST", allow_hyphen_values = true, help_heading = "Security")]
    gpus: Vec<String>,
    /// Whose processes it sees: host, container:CONTAINER [default: its own]
    #[arg(long, value_name = "MODE", allow_hyphen_values = true, help_heading = "Namespaces")]
    pid: Option<String>,
    /// private, shareable, host, none, container:CONTAINER
    #[arg(long, value_name = "MODE", allow_hyphen_values = true, help_heading = "Namespaces")]
    ipc: Option<String>,
    /// host for the host's name [default: its own]
    #[arg(long, value_name = "MODE", allow_hyphen_values = true, help_heading = "Namespaces")]
    uts: Option<String>,
    /// host for the host's users
    #[arg(long, value_name = "MODE", allow_hyphen_values = true, help_heading = "Namespaces")]
    userns: Option<String>,
    /// private or host
    #[arg(long, value_name = "MODE", allow_hyphen_values = true, help_heading = "Namespaces")]
    cgroupns: Option<String>,
    /// The cgroup in which its own is made
    #[arg(long, value_name = "CGROUP", allow_hyphen_values = true, help_heading = "Namespaces")]
    cgroup_parent: Option<String>,
    /// What runs it
    #[arg(long, value_name = "NAME", allow_hyphen_values = true, help_heading = "Namespaces")]
    runtime: Option<String>,
    /// default is what there is
    #[arg(long, value_name = "NAME", allow_hyphen_values = true, help_heading = "Namespaces")]
    isolation: Option<String>,
    #[command(flatten)]
    limits: Limits,
    /// How readily its memory is swapped, 0 to 100; -1 is as the host has it
    #[arg(long, value_name = "PERCENT", allow_hyphen_values = true, help_heading = "Limits")]
    memory_swappiness: Option<String>,
    /// It waits for memory instead of being killed
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(help_heading = "Limits")]
    oom_kill_disable: Option<String>,
    /// Killed sooner or later than others, -1000 to 1000
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true, help_heading = "Limits")]
    oom_score_adj: Option<String>,
    /// NAME=SOFT[:HARD]; several times for several
    #[arg(long, value_name = "LIMIT", allow_hyphen_values = true, help_heading = "Limits")]
    ulimit: Vec<String>,
    /// Its share of one device, 10 to 1000
    #[arg(long, value_name = "DEVICE:WEIGHT", allow_hyphen_values = true, help_heading = "Limits")]
    blkio_weight_device: Vec<String>,
    /// Bytes a second from a device
    #[arg(long, value_name = "DEVICE:BYTES", allow_hyphen_values = true, help_heading = "Limits")]
    device_read_bps: Vec<String>,
    /// Reads a second from a device
    #[arg(long, value_name = "DEVICE:NUMBER", allow_hyphen_values = true, help_heading = "Limits")]
    device_read_iops: Vec<String>,
    /// Bytes a second to a device
    #[arg(long, value_name = "DEVICE:BYTES", allow_hyphen_values = true, help_heading = "Limits")]
    device_write_bps: Vec<String>,
    /// Writes a second to a device
    #[arg(long, value_name = "DEVICE:NUMBER", allow_hyphen_values = true, help_heading = "Limits")]
    device_write_iops: Vec<String>,
    /// What tells by its exit code whether it is well
    #[arg(long, value_name = "COMMAND", allow_hyphen_values = true, help_heading = "Health and logs")]
    health_cmd: Option<String>,
    /// Between two checks [default: 30s]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, help_heading = "Health and logs")]
    health_interval: Option<String>,
    /// Until a check is held for failed [default: 30s]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, help_heading = "Health and logs")]
    health_timeout: Option<String>,
    /// How long failures do not count at first
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, help_heading = "Health and logs")]
    health_start_period: Option<String>,
    /// Between two checks as long as they do not count [default: 5s]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, help_heading = "Health and logs")]
    health_start_interval: Option<String>,
    /// How many failures in a row make it unhealthy [default: 3]
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true, help_heading = "Health and logs")]
    health_retries: Option<String>,
    /// No check, not the image's either
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(help_heading = "Health and logs")]
    no_healthcheck: Option<String>,
    /// json-file or none
    #[arg(long, value_name = "DRIVER", allow_hyphen_values = true, help_heading = "Health and logs")]
    log_driver: Option<String>,
    /// Of the driver: max-size=10m, max-file=3
    #[arg(long, value_name = "KEY=VALUE", allow_hyphen_values = true, help_heading = "Health and logs")]
    log_opt: Vec<String>,
    /// The image, and the command with its arguments; flags stand before the image
    #[arg(value_name = "IMAGE [COMMAND] [ARG]", required = true, trailing_var_arg = true)]
    words: Vec<String>,
}
