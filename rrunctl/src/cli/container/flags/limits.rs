//! What a container may use up: the flags that `run`, `create` and `update` have in common, and those of `update`.

#![forbid(unsafe_code)]

use super::value::{Read, integer, nano_cpus, one, size, size_or_unlimited, small};
use crate::container::types::{Resources, RestartPolicy};
use crate::error::{Error, Result};
use clap::Args;

/// Limits that can be changed while a container runs.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Limits")]
pub(in crate::cli::container) struct Limits {
    /// Its share of what block devices can do, 10 to 1000
    #[arg(long, value_name = "WEIGHT", allow_hyphen_values = true)]
    blkio_weight: Option<String>,
    /// How long a period of --cpu-quota is, in microseconds
    #[arg(long, value_name = "MICROSECONDS", allow_hyphen_values = true)]
    cpu_period: Option<String>,
    /// Processor time in each period
    #[arg(long, value_name = "MICROSECONDS", allow_hyphen_values = true)]
    cpu_quota: Option<String>,
    /// How long a period of --cpu-rt-runtime is
    #[arg(long, value_name = "MICROSECONDS", allow_hyphen_values = true)]
    cpu_rt_period: Option<String>,
    /// Realtime scheduling in each period
    #[arg(long, value_name = "MICROSECONDS", allow_hyphen_values = true)]
    cpu_rt_runtime: Option<String>,
    /// Its share of busy processors; 1024 is usual
    #[arg(short, long, value_name = "SHARES", allow_hyphen_values = true)]
    cpu_shares: Option<String>,
    /// How many processors it may keep busy: 1.5
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    cpus: Option<String>,
    /// Which processors: 0-3,5
    #[arg(long, value_name = "LIST", allow_hyphen_values = true)]
    cpuset_cpus: Option<String>,
    /// Which memory nodes
    #[arg(long, value_name = "LIST", allow_hyphen_values = true)]
    cpuset_mems: Option<String>,
    /// Kernels have no such limit any more
    #[arg(long, hide = true, value_name = "BYTES", allow_hyphen_values = true)]
    kernel_memory: Option<String>,
    /// Memory (64m, 1.5g)
    #[arg(short, long, value_name = "BYTES", allow_hyphen_values = true)]
    memory: Option<String>,
    /// Memory that is left to it when it is short
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    memory_reservation: Option<String>,
    /// Memory and swap together; -1 is without limit [default: twice the memory]
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    memory_swap: Option<String>,
    /// Processes; -1 is without limit
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    pids_limit: Option<String>,
}

impl Limits {
    /// As a request has them; what was not given is 0.
    pub(super) fn resources(self) -> Result<Resources> {
        fn number<T: Default>(flag: &str, given: Option<&str>, read: impl Fn(&str) -> Read<T>) -> Result<T> {
            Ok(one(flag, given, read)?.unwrap_or_default())
        }
        let given = Option::as_deref;
        Ok(Resources {
            blkio_weight: number("--blkio-weight", given(&self.blkio_weight), small)?,
            cpu_period: number("--cpu-period", given(&self.cpu_period), integer)?,
            cpu_quota: number("--cpu-quota", given(&self.cpu_quota), integer)?,
            cpu_realtime_period: number("--cpu-rt-period", given(&self.cpu_rt_period), integer)?,
            cpu_realtime_runtime: number("--cpu-rt-runtime", given(&self.cpu_rt_runtime), integer)?,
            cpu_shares: number("-c, --cpu-shares", given(&self.cpu_shares), integer)?,
            nano_cpus: number("--cpus", given(&self.cpus), nano_cpus)?,
            kernel_memory: number("--kernel-memory", given(&self.kernel_memory), size)?,
            memory: number("-m, --memory", given(&self.memory), size)?,
            memory_reservation: number("--memory-reservation", given(&self.memory_reservation), size)?,
            memory_swap: number("--memory-swap", given(&self.memory_swap), size_or_unlimited)?,
            pids_limit: one("--pids-limit", given(&self.pids_limit), integer)?,
            cpuset_cpus: self.cpuset_cpus.unwrap_or_default(),
            cpuset_mems: self.cpuset_mems.unwrap_or_default(),
            ..Resources::default()
        })
    }

    fn is_given(&self) -> bool {
        [
            &self.blkio_weight,
            &self.cpu_period,
            &self.cpu_quota,
            &self.cpu_rt_period,
            &self.cpu_rt_runtime,
            &self.cpu_shares,
            &self.cpus,
            &self.cpuset_cpus,
            &self.cpuset_mems,
            &self.kernel_memory,
            &self.memory,
            &self.memory_reservation,
            &self.memory_swap,
            &self.pids_limit,
        ]
        .iter()
        .any(|flag| flag.is_some())
    }
}

/// `no`, `always`, `unless-stopped`, `on-failure[:TIMES]`. Which names there are the engine knows.
pub(super) fn restart(text: &str) -> Result<RestartPolicy> {
    let wrong = |what: &str| Error::invalid(format!("invalid restart policy format: {what}"));
    let (name, times) = match text.split_once(':') {
        Some(("", _)) => return Err(wrong("no policy provided before colon")),
        Some(parts) => parts,
        None => (text, ""),
    };
    let times = if times.is_empty() { Ok(0) } else { times.parse() };
    let times = times.map_err(|_| wrong("maximum retry count must be an integer"))?;
    Ok(RestartPolicy { name: name.to_owned(), maximum_retry_count: times })
}

/// What `update` changes, and of which containers.
#[derive(Debug, Args)]
pub(in crate::cli::container) struct Update {
    #[command(flatten)]
    limits: Limits,
    /// What is done when it has ended: no, always, unless-stopped, on-failure[:TIMES]
    #[arg(long, value_name = "POLICY", allow_hyphen_values = true)]
    restart: Option<String>,
    /// Names or ids
    #[arg(value_name = "CONTAINER", required = true)]
    pub(in crate::cli::container) names: Vec<String>,
}

impl Update {
    /// What to change to; what is 0, nil or empty stays as it is.
    ///
    /// # Errors
    /// Values that are none, in docker's words, and no flag at all.
    pub(in crate::cli::container) fn request(self) -> Result<(Resources, RestartPolicy)> {
        if !self.limits.is_given() && self.restart.is_none() {
            return Err(Error::invalid("you must provide one or more flags when using this command"));
        }
        let mut resources = self.limits.resources()?;
        resources.pids_limit = resources.pids_limit.filter(|limit| *limit != 0);
        Ok((resources, restart(&self.restart.unwrap_or_default())?))
    }
}
