//! What may be asked for: checks of a request as dockerd makes them, with its words, and the defaults it fills in.

#![forbid(unsafe_code)]

use super::host::{Host, parse_list};
use super::types::{Config, HostConfig, LogConfig, NetworkingConfig, Resources, RestartPolicy, of_container};
use super::{capability, mount, security, signal};
use crate::error::{Error, Result};
use std::net::IpAddr;

/// Below that nothing starts.
const LEAST_MEMORY: i64 = 6 << 20;

fn refuse<T>(text: impl Into<String>) -> Result<T> {
    Err(Error::invalid(text))
}

/// Checks a request before its image is known, and takes out what this machine cannot do; returns warnings.
///
/// # Errors
/// What can never be, and what contradicts itself.
pub fn check(
    config: &mut Config,
    host: &mut HostConfig,
    networking: &NetworkingConfig,
    on: &Host,
) -> Result<Vec<String>> {
    check_config(config)?;
    check_network(config, host)?;
    let mut warnings = Vec::new();
    if host.auto_remove && !matches!(host.restart_policy.name.as_str(), "" | "no") {
        return refuse("can't create 'AutoRemove' container with restart policy");
    }
    for mount in host.mounts.iter() {
        mount::from_mount(mount)?;
    }
    for text in host.binds.iter() {
        mount::parse_bind(text, &host.volume_driver)?;
    }
    for text in host.extra_hosts.iter() {
        check_extra_host(text)?;
    }
    for (port, bindings) in host.port_bindings.iter() {
        check_port(port.split('/').next().unwrap_or_default())?;
        bindings.iter().try_for_each(|binding| check_port(&binding.host_port))?;
    }
    check_restart(&host.restart_policy)?;
    for (name, list) in [("CapAdd", &host.cap_add), ("CapDrop", &host.cap_drop)] {
        capability::normalize(list, on.capabilities).map_err(|e| e.context(format!("invalid {name}")))?;
    }
    if !matches!(host.isolation.to_lowercase().as_str(), "" | "default") {
        return refuse(format!("invalid isolation '{}' on linux", host.isolation));
    }
    if !["", "rrun", "runc", "io.containerd.runc.v2"].contains(&host.runtime.as_str()) {
        return Err(Error::invalid(format!("unknown or invalid runtime name: {}", host.runtime))
            .remedy("the engine has one, which `--oci-runtime FILE` names"));
    }
    if !host.storage_opt.is_empty() {
        return refuse("--storage-opt is supported only for overlay over xfs with 'pquota' mount option");
    }
    if let Some(check) = &config.healthcheck
        && check.test.first().is_some_and(|first| first != "NONE")
    {
        warnings.push("Health checks are not run: nobody is told how the container is.".to_owned());
    }
    if host.annotations.contains_key("") {
        return refuse("invalid Annotations: the empty string is not permitted as an annotation key");
    }
    check_resources(&mut host.resources, on, &mut warnings)?;
    check_namespaces(host)?;
    if host.shm_size < 0 {
        return refuse("SHM size can not be less than 0");
    }
    if !(-1000..=1000).contains(&host.oom_score_adj) {
        return refuse(format!(
            "Invalid value {}, range for oom score adj is [-1000, 1000]",
            host.oom_score_adj
        ));
    }
    if host.network_mode == "host" && !host.port_bindings.is_empty() {
        warnings.push("Published ports are discarded when using host network mode".to_owned());
    }
    for (path, options) in host.tmpfs.iter() {
        mount::check_destination(path)?;
        mount::merge_tmpfs(options)?;
    }
    security::Security::parse(&host.security_opt)?;
    check_log(&host.log_config)?;
    for name in host.sysctls.keys() {
        if host.network_mode == "host" && name.starts_with("net.") {
            return refuse(format!("sysctl '{name}' not allowed in host network namespace"));
        }
    }
    if let Some(request) = host.resources.device_requests.first() {
        let what = request.capabilities.iter().map(|list| list.join(",")).collect::<Vec<_>>().join(" ");
        return refuse(format!(
            "could not select device driver {:?} with capabilities: [[{what}]]",
            request.driver
        ));
    }
    for (name, settings) in networking.endpoints_config.iter() {
        let Some(wanted) = settings.as_ref().and_then(|settings| settings.ipam_config.as_ref()) else {
            continue;
        };
        for (address, family, four) in
            [(&wanted.ipv4_address, "IPv4", true), (&wanted.ipv6_address, "IPv6", false)]
        {
            let valid = address.parse().is_ok_and(|ip: IpAddr| ip.is_ipv4() == four && !ip.is_unspecified());
            if !address.is_empty() && !valid {
                return refuse(format!(
                    "invalid config for network {name}: invalid endpoint settings: invalid {family} address: {address}"
                ));
            }
        }
    }
    Ok(warnings)
}

/// Fills in what nobody asked for: twice the memory with swap, 64 MiB of /dev/shm, private IPC, paths that are hidden.
pub fn fill_in(host: &mut HostConfig, on: &Host) {
    if host.restart_policy.name.is_empty() {
        "no".clone_into(&mut host.restart_policy.name);
    }
    if host.network_mode.is_empty() {
        "default".clone_into(&mut host.network_mode);
    }
    let resources = &mut host.resources;
    // What the CLI sends for none, and inspect says as null.
    if resources.pids_limit == Some(0) {
        resources.pids_limit = None;
    }
    if resources.memory > 0 && resources.memory_swap == 0 {
        resources.memory_swap = resources.memory.saturating_mul(2);
    }
    // On cgroup v2 the killer cannot be held back, and inspect says null.
    if resources.oom_kill_disable.is_none() && on.limits.oom_kill_disable {
        resources.oom_kill_disable = Some(false);
    }
    if host.shm_size == 0 {
        host.shm_size = 64 << 20;
    }
    if host.ipc_mode.is_empty() {
        "private".clone_into(&mut host.ipc_mode);
    }
    if host.cgroupns_mode.is_empty() {
        // With v1 a namespace of its own would show a container less than it is used to.
        if on.unified { "private" } else { "host" }.clone_into(&mut host.cgroupns_mode);
    }
    if host.runtime.is_empty() {
        "rrun".clone_into(&mut host.runtime);
    }
    if host.log_config.r#type.is_empty() {
        "json-file".clone_into(&mut host.log_config.r#type);
    }
    if host.log_config.config.is_nil() {
        host.log_config.config = super::types::Map::from(std::collections::BTreeMap::new());
    }
    if !host.privileged {
        if host.masked_paths.is_nil() {
            host.masked_paths = super::spec::masked_paths(on).into();
        }
        if host.readonly_paths.is_nil() {
            host.readonly_paths = super::spec::READONLY_PATHS.iter().map(|path| (*path).to_owned()).collect();
        }
    }
}

/// Gives a container without a hostname its own: the machine's in the machine's network, else how its id begins.
pub fn fill_in_hostname(config: &mut Config, host: &HostConfig, on: &Host, id: &str) {
    if config.hostname.is_empty() {
        config.hostname = match host.network_mode.as_str() {
            "host" => on.hostname.clone(),
            _ => id.chars().take(12).collect(),
        };
    }
}

fn check_config(config: &mut Config) -> Result<()> {
    if !config.working_dir.is_empty() {
        if !config.working_dir.starts_with('/') {
            return refuse(format!(
                "the working directory '{}' is invalid, it needs to be an absolute path",
                config.working_dir
            ));
        }
        config.working_dir = mount::clean(&config.working_dir);
    }
    if !config.stop_signal.is_empty() {
        signal::parse(&config.stop_signal)?;
    }
    for variable in config.env.iter() {
        if variable.is_empty() || variable.starts_with('=') {
            return refuse(format!("invalid environment variable: {variable}"));
        }
    }
    // The kernel's own limit (sethostname(2)); Docker leaves it to the runtime, whose words nobody understands.
    if config.hostname.len() > 64 {
        return refuse(format!("invalid hostname: {} is longer than 64 bytes", config.hostname));
    }
    for path in config.volumes.keys() {
        mount::check_destination(path)?;
    }
    for port in config.exposed_ports.keys() {
        check_port(port.split('/').next().unwrap_or_default())?;
    }
    let Some(check) = &config.healthcheck else { return Ok(()) };
    for (name, time) in [
        ("Interval", check.interval),
        ("Timeout", check.timeout),
        ("StartPeriod", check.start_period),
        ("StartInterval", check.start_interval),
    ] {
        if time != 0 && time < 1_000_000 {
            return refuse(format!("{name} in Healthcheck cannot be less than 1ms"));
        }
    }
    if check.retries < 0 {
        return refuse("Retries in Healthcheck cannot be negative");
    }
    Ok(())
}

/// What cannot be together with the network of another.
fn check_network(config: &Config, host: &HostConfig) -> Result<()> {
    let conflict = |what: &str| refuse(format!("conflicting options: {what}"));
    let mode = host.network_mode.as_str();
    if host.uts_mode == "host" && !config.hostname.is_empty() {
        return conflict("hostname and the UTS mode");
    }
    const UNDEFINED: &str = "networking can't be used with links. This would result in undefined behavior";
    if mode == "host" {
        if !host.links.is_empty() {
            return conflict(&format!("host type {UNDEFINED}"));
        }
        if !config.mac_address.is_empty() {
            return conflict("mac-address and the network mode");
        }
    }
    let Some(other) = of_container(mode) else { return Ok(()) };
    if other.is_empty() {
        return refuse("invalid container format container:<name|id>");
    }
    for (wrong, what) in [
        (!config.hostname.is_empty(), "hostname and the network mode"),
        (!host.links.is_empty(), &*format!("container type network {}", &UNDEFINED["networking ".len()..])),
        (!host.dns.is_empty(), "dns and the network mode"),
        (!host.extra_hosts.is_empty(), "custom host-to-IP mapping and the network mode"),
        (!config.mac_address.is_empty(), "mac-address and the network mode"),
        (
            !host.port_bindings.is_empty() || host.publish_all_ports,
            "port publishing and the container type network mode",
        ),
        (!config.exposed_ports.is_empty(), "port exposing and the container type network mode"),
    ] {
        if wrong {
            return conflict(what);
        }
    }
    Ok(())
}

fn check_namespaces(host: &HostConfig) -> Result<()> {
    let other = |mode: &str| of_container(mode).is_some_and(|id| !id.is_empty());
    for (name, mode, known, another) in [
        ("IPC mode", &host.ipc_mode, &["", "none", "private", "host", "shareable"][..], true),
        ("PID mode", &host.pid_mode, &["", "host"], true),
        ("UTS mode", &host.uts_mode, &["", "host"], false),
        ("user namespace mode", &host.userns_mode, &["", "host"], false),
        ("cgroup namespace mode", &host.cgroupns_mode, &["", "private", "host"], false),
    ] {
        let valid = known.contains(&mode.as_str()) || another && other(mode);
        if !valid {
            return refuse(format!("invalid {name}: {mode}"));
        }
    }
    Ok(())
}

/// A restart policy.
///
/// # Errors
/// One that there is not.
pub fn check_restart(policy: &RestartPolicy) -> Result<()> {
    let RestartPolicy { name, maximum_retry_count: count } = policy;
    let wrong = |text: &str| refuse(format!("invalid restart policy: {text}"));
    match name.as_str() {
        "always" | "unless-stopped" | "no" if *count != 0 => {
            let more = if *count < 0 { " and cannot be negative" } else { "" };
            wrong(&format!("maximum retry count can only be used with 'on-failure'{more}"))
        }
        "on-failure" if *count < 0 => wrong("maximum retry count cannot be negative"),
        "" | "always" | "unless-stopped" | "no" | "on-failure" => Ok(()),
        other => wrong(&format!(
            "unknown policy '{other}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
        )),
    }
}

/// `name:address`, `name=address`, or `name:host-gateway`.
fn check_extra_host(text: &str) -> Result<()> {
    let (_, address) =
        split_extra_host(text).ok_or_else(|| Error::invalid(format!("bad format for add-host: {text:?}")))?;
    if address != "host-gateway" && address.parse::<IpAddr>().is_err() {
        return refuse(format!("invalid IP address in add-host: {address:?}"));
    }
    Ok(())
}

/// The two parts; an IPv6 address may stand in brackets.
pub fn split_extra_host(text: &str) -> Option<(&str, &str)> {
    let (name, address) = text.split_once('=').or_else(|| text.split_once(':'))?;
    let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
    // A space or a newline would make further names and lines in /etc/hosts.
    (!name.is_empty() && !name.contains(char::is_whitespace)).then_some((name, bare))
}

/// A port, a range of ports, or nothing.
fn check_port(text: &str) -> Result<()> {
    let bare = text.split('/').next().unwrap_or_default();
    let (first, last) = bare.split_once('-').unwrap_or((bare, bare));
    let range = (first.parse::<u16>(), last.parse::<u16>());
    if bare.is_empty() || matches!(range, (Ok(first), Ok(last)) if first <= last) {
        return Ok(());
    }
    refuse(format!("invalid port specification: {text:?}"))
}

/// What `monitor` can write, and the options of json-file.
fn check_log(log: &LogConfig) -> Result<()> {
    // What Docker's json-file adds to each line.
    const UNUSED: [&str; 5] = ["labels", "labels-regex", "env", "env-regex", "tag"];
    match log.r#type.as_str() {
        "" | "json-file" => {}
        "none" => return Ok(()),
        other => {
            return refuse(format!("error looking up logging plugin {other}: plugin {other:?} not found"));
        }
    }
    for (option, value) in log.config.iter() {
        let usable = match option.as_str() {
            "max-size" => value == "-1" || mount::ram_in_bytes(value).is_some_and(|bytes| bytes > 0),
            "max-file" => value.parse::<u32>().is_ok_and(|n| n > 0),
            "compress" if mount::parse_bool(value) == Some(true) => {
                return refuse("log opt compress: a log is not compressed here");
            }
            "compress" => mount::parse_bool(value).is_some(),
            // Docker's json-file knows two more, which say how it hands lines on within itself.
            "mode" | "max-buffer-size" => true,
            option if UNUSED.contains(&option) => {
                return refuse(format!("log opt {option}: a log has nothing but its lines here"));
            }
            _ => return refuse(format!("unknown log opt '{option}' for json-file log driver")),
        };
        if !usable {
            return refuse(format!("invalid value for log opt {option}: {value:?}"));
        }
    }
    if log.config.get("max-file").is_some_and(|n| n != "1") && !log.config.contains_key("max-size") {
        return refuse("max-file cannot be used without max-size");
    }
    Ok(())
}

/// Limits; those that this machine has not are taken out with a warning.
///
/// # Errors
/// Limits that are too low, too high, or against one another.
pub fn check_resources(r: &mut Resources, on: &Host, warnings: &mut Vec<String>) -> Result<()> {
    let limits = on.limits;
    let mut warn = |text: &str| warnings.push(text.to_owned());
    if r.memory_swappiness == Some(-1) {
        r.memory_swappiness = None;
    }
    if r.memory != 0 && r.memory < LEAST_MEMORY {
        return refuse("Minimum memory limit allowed is 6MB");
    }
    if r.memory > 0 && !limits.memory {
        warn(
            "Your kernel does not support memory limit capabilities or the cgroup is not mounted. Limitation discarded.",
        );
        (r.memory, r.memory_swap) = (0, -1);
    }
    if r.memory > 0 && r.memory_swap != -1 && !limits.swap {
        warn(
            "Your kernel does not support swap limit capabilities or the cgroup is not mounted. Memory limited without swap.",
        );
        r.memory_swap = -1;
    }
    if r.memory > 0 && r.memory_swap > 0 && r.memory_swap < r.memory {
        return refuse("Minimum memoryswap limit should be larger than memory limit, see usage");
    }
    if r.memory == 0 && r.memory_swap > 0 {
        return refuse("You should always set the Memory limit when using Memoryswap limit, see usage");
    }
    if r.memory_swappiness.is_some() && !limits.swappiness {
        warn(
            "Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. Memory swappiness discarded.",
        );
        r.memory_swappiness = None;
    }
    if let Some(value) = r.memory_swappiness.filter(|value| !(0..=100).contains(value)) {
        return refuse(format!("Invalid value: {value}, valid memory swappiness range is 0-100"));
    }
    if r.memory_reservation > 0 && !limits.memory {
        warn(
            "Your kernel does not support memory soft limit capabilities or the cgroup is not mounted. Limitation discarded.",
        );
        r.memory_reservation = 0;
    }
    if r.memory_reservation > 0 && r.memory_reservation < LEAST_MEMORY {
        return refuse("Minimum memory reservation allowed is 6MB");
    }
    if r.memory > 0 && r.memory_reservation > r.memory {
        return refuse("Minimum memory limit can not be less than memory reservation limit, see usage");
    }
    if r.kernel_memory > 0 && !limits.kernel_memory {
        warn(
            "Your kernel does not support kernel memory limit capabilities or the cgroup is not mounted. Limitation discarded.",
        );
        r.kernel_memory = 0;
    }
    if r.kernel_memory > 0 && r.kernel_memory < LEAST_MEMORY {
        return refuse("Minimum kernel memory limit allowed is 6MB");
    }
    if r.oom_kill_disable.is_some() && !limits.oom_kill_disable {
        if r.oom_kill_disable == Some(true) {
            warn("Your kernel does not support OomKillDisable. OomKillDisable discarded.");
        }
        r.oom_kill_disable = None;
    }
    if r.oom_kill_disable == Some(true) && r.memory == 0 {
        warn(
            "OOM killer is disabled for the container, but no memory limit is set, this can result in the system running out of resources.",
        );
    }
    if r.pids_limit.is_some() && !limits.pids {
        if r.pids_limit > Some(0) {
            warn(
                "Your kernel does not support PIDs limit capabilities or the cgroup is not mounted. PIDs limit discarded.",
            );
        }
        r.pids_limit = None;
    }
    for name in r.ulimits.iter() {
        if super::spec::RLIMITS.contains(&name.name.as_str()) {
            let above = name.hard != -1 && (name.soft == -1 || name.soft > name.hard);
            if above {
                return refuse(format!(
                    "ulimit soft limit must be less than or equal to hard limit: {} > {}",
                    name.soft, name.hard
                ));
            }
        } else {
            return refuse(format!("invalid ulimit type: {}", name.name));
        }
    }
    for rule in r.device_cgroup_rules.iter() {
        super::device::parse_rule(rule)?;
    }
    check_cpu(r, on, &mut warn)?;
    if r.blkio_weight > 0 && !limits.blkio_weight {
        warn("Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded.");
        r.blkio_weight = 0;
    }
    if r.blkio_weight > 0 && !(10..=1000).contains(&r.blkio_weight) {
        return refuse("Range of blkio weight is from 10 to 1000");
    }
    if r.io_maximum_bandwidth != 0 || r.io_maximum_iops != 0 {
        return refuse(
            "Invalid QoS settings: linux does not support Maximum IO Bandwidth or Maximum IO IOps",
        );
    }
    if !r.blkio_weight_device.is_empty() && !limits.blkio_weight_device {
        warn(
            "Your kernel does not support Block I/O weight_device or the cgroup is not mounted. Weight-device discarded.",
        );
        r.blkio_weight_device = Vec::new().into();
    }
    for (list, what, kind) in [
        (&mut r.blkio_device_read_bps, "BPS Block I/O read limit", "Block I/O BPS read limit"),
        (&mut r.blkio_device_write_bps, "BPS Block I/O write limit", "Block I/O BPS write limit"),
        (&mut r.blkio_device_read_iops, "IOPS Block read limit", "Block I/O IOPS read limit"),
        (&mut r.blkio_device_write_iops, "IOPS Block write limit", "Block I/O IOPS write limit"),
    ] {
        if !list.is_empty() && !limits.blkio_throttle {
            warn(&format!(
                "Your kernel does not support {what} or the cgroup is not mounted. {kind} discarded."
            ));
            *list = Vec::new().into();
        }
    }
    Ok(())
}

fn check_cpu(r: &mut Resources, on: &Host, warn: &mut impl FnMut(&str)) -> Result<()> {
    let limits = on.limits;
    if r.nano_cpus > 0 && r.cpu_period > 0 {
        return refuse("Conflicting options: Nano CPUs and CPU Period cannot both be set");
    }
    if r.nano_cpus > 0 && r.cpu_quota > 0 {
        return refuse("Conflicting options: Nano CPUs and CPU Quota cannot both be set");
    }
    if r.nano_cpus > 0 && !limits.cpu_cfs {
        return refuse(
            "NanoCPUs can not be set, as your kernel does not support CPU CFS scheduler or the cgroup is not mounted",
        );
    }
    let n = on.processors;
    if r.nano_cpus < 0 || r.nano_cpus > i64::from(n) * 1_000_000_000 {
        return refuse(format!("range of CPUs is from 0.01 to {n}.00, as there are only {n} CPUs available"));
    }
    if r.cpu_shares < 0 {
        return refuse(format!("invalid CPU shares ({}): value must be a positive integer", r.cpu_shares));
    }
    if r.cpu_shares > 0 && !limits.cpu_shares {
        warn("Your kernel does not support CPU shares or the cgroup is not mounted. Shares discarded.");
        r.cpu_shares = 0;
    }
    if (r.cpu_period != 0 || r.cpu_quota != 0) && !limits.cpu_cfs {
        warn("Your kernel does not support CPU CFS scheduler. CPU period/quota discarded.");
        (r.cpu_period, r.cpu_quota) = (0, 0);
    }
    if r.cpu_period != 0 && !(1_000..=1_000_000).contains(&r.cpu_period) {
        return refuse(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
        );
    }
    if r.cpu_quota > 0 && r.cpu_quota < 1_000 {
        return refuse("CPU cfs quota can not be less than 1ms (i.e. 1000)");
    }
    if (r.cpu_realtime_period != 0 || r.cpu_realtime_runtime != 0) && !limits.cpu_realtime {
        return refuse("kernel does not support CPU real-time scheduler");
    }
    if r.cpu_realtime_period != 0 && r.cpu_realtime_runtime > r.cpu_realtime_period {
        return refuse("cpu real-time runtime cannot be higher than cpu real-time period");
    }
    if r.cpu_percent > 0 {
        warn("linux does not support CPU percent. Percent discarded.");
        r.cpu_percent = 0;
    }
    if (!r.cpuset_cpus.is_empty() || !r.cpuset_mems.is_empty()) && !limits.cpuset {
        warn("Your kernel does not support cpuset or the cgroup is not mounted. Cpuset discarded.");
        r.cpuset_cpus.clear();
        r.cpuset_mems.clear();
    }
    for (asked, there, short, long) in
        [(&r.cpuset_cpus, &on.cpus, "cpus", "CPUs"), (&r.cpuset_mems, &on.mems, "mems", "memory nodes")]
    {
        let Some(asked_for) = parse_list(asked) else {
            return refuse(format!("Invalid value {asked} for cpuset {short}: invalid format: {asked}"));
        };
        let there_are = parse_list(there).unwrap_or_default();
        if !asked_for.iter().all(|n| there_are.contains(n)) {
            return refuse(format!(
                "Requested {long} are not available - requested {asked}, available: {there}"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::host::Limits;
    use super::*;
    use serde_json::{Value, json};

    fn machine() -> Host {
        let limits = Limits {
            memory: true,
            swap: true,
            swappiness: true,
            oom_kill_disable: true,
            cpu_shares: true,
            cpu_cfs: true,
            cpuset: true,
            pids: true,
            blkio_throttle: true,
            ..Limits::default()
        };
        Host {
            capabilities: (1 << 41) - 1,
            limits,
            processors: 2,
            cpus: "0-1".into(),
            mems: "0".into(),
            ..Host::default()
        }
    }

    fn checked(config: Value, host: Value) -> Result<(Config, HostConfig, Vec<String>)> {
        let mut config = serde_json::from_value(config).expect("a configuration");
        let mut host = serde_json::from_value(host).expect("a configuration");
        let warnings = check(&mut config, &mut host, &NetworkingConfig::default(), &machine())?;
        Ok((config, host, warnings))
    }

    #[test]
    fn what_can_never_be_is_refused_in_dockers_words() {
        for (host, text) in [
            (json!({"Memory": 5_242_880}), "Minimum memory limit allowed is 6MB"),
            (
                json!({"MemorySwap": 10_485_760}),
                "You should always set the Memory limit when using Memoryswap limit, see usage",
            ),
            (
                json!({"Memory": 20_971_520, "MemorySwap": 10_485_760}),
                "Minimum memoryswap limit should be larger than memory limit, see usage",
            ),
            (
                json!({"Memory": 20_971_520, "MemoryReservation": 31_457_280}),
                "Minimum memory limit can not be less than memory reservation limit, see usage",
            ),
            (json!({"MemoryReservation": 1_048_576}), "Minimum memory reservation allowed is 6MB"),
            (json!({"MemorySwappiness": 101}), "Invalid value: 101, valid memory swappiness range is 0-100"),
            (json!({"CapAdd": ["FOO"]}), "invalid CapAdd: unknown capability: \"CAP_FOO\""),
            (json!({"CapDrop": "bar"}), "invalid CapDrop: unknown capability: \"CAP_BAR\""),
            (json!({"Binds": ["/x:/y:foo"]}), "invalid mode: foo"),
            (
                json!({"Mounts": [{"Type": "bind", "Target": "/x"}]}),
                "invalid mount config for type \"bind\": field Source must not be empty",
            ),
            (json!({"Tmpfs": {"rel": ""}}), "invalid mount path: 'rel' mount path must be absolute"),
            (json!({"Tmpfs": {"/": "size=1m"}}), "invalid specification: destination can't be '/'"),
            (
                json!({"AutoRemove": true, "RestartPolicy": {"Name": "always"}}),
                "can't create 'AutoRemove' container with restart policy",
            ),
            (
                json!({"RestartPolicy": {"Name": "foo"}}),
                "invalid restart policy: unknown policy 'foo'; use one of 'no', 'always', 'on-failure', or \
                 'unless-stopped'",
            ),
            (
                json!({"RestartPolicy": {"Name": "always", "MaximumRetryCount": 3}}),
                "invalid restart policy: maximum retry count can only be used with 'on-failure'",
            ),
            (
                json!({"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": -1}}),
                "invalid restart policy: maximum retry count cannot be negative",
            ),
            (
                json!({"NetworkMode": "host", "Links": ["x"]}),
                "conflicting options: host type networking can't be used with links. This would result in undefined \
                 behavior",
            ),
            (
                json!({"NetworkMode": "container:x", "Links": ["x"]}),
                "conflicting options: container type network can't be used with links. This would result in \
                 undefined behavior",
            ),
            (
                json!({"NetworkMode": "container:x", "Dns": ["1.1.1.1"]}),
                "conflicting options: dns and the network mode",
            ),
            (
                json!({"NetworkMode": "container:x", "ExtraHosts": ["a:1.1.1.1"]}),
                "conflicting options: custom host-to-IP mapping and the network mode",
            ),
            (
                json!({"NetworkMode": "container:x", "PortBindings": {"80/tcp": []}}),
                "conflicting options: port publishing and the container type network mode",
            ),
            (json!({"NetworkMode": "container:"}), "invalid container format container:<name|id>"),
            (json!({"PidMode": "foo"}), "invalid PID mode: foo"),
            (json!({"PidMode": "container:"}), "invalid PID mode: container:"),
            (json!({"IpcMode": "foo"}), "invalid IPC mode: foo"),
            (json!({"UTSMode": "container:x"}), "invalid UTS mode: container:x"),
            (json!({"CgroupnsMode": "foo"}), "invalid cgroup namespace mode: foo"),
            (
                json!({"NanoCpus": 100_000_000_000_i64}),
                "range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available",
            ),
            (
                json!({"NanoCpus": 1_000_000_000, "CpuPeriod": 1000}),
                "Conflicting options: Nano CPUs and CPU Period cannot both be set",
            ),
            (
                json!({"NanoCpus": 1_000_000_000, "CpuQuota": 1000}),
                "Conflicting options: Nano CPUs and CPU Quota cannot both be set",
            ),
            (
                json!({"CpuPeriod": 10}),
                "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
            ),
            (json!({"CpuQuota": 10}), "CPU cfs quota can not be less than 1ms (i.e. 1000)"),
            (json!({"CpusetCpus": "99"}), "Requested CPUs are not available - requested 99, available: 0-1"),
            (json!({"CpusetCpus": "x"}), "Invalid value x for cpuset cpus: invalid format: x"),
            (
                json!({"CpusetMems": "99"}),
                "Requested memory nodes are not available - requested 99, available: 0",
            ),
            (json!({"OomScoreAdj": 2000}), "Invalid value 2000, range for oom score adj is [-1000, 1000]"),
            (json!({"ShmSize": -1}), "SHM size can not be less than 0"),
            (json!({"SecurityOpt": ["foo=bar"]}), "invalid --security-opt 2: \"foo=bar\""),
            (json!({"DeviceCgroupRules": ["x 1:1 rwm"]}), "invalid device cgroup rule format: 'x 1:1 rwm'"),
            (json!({"Ulimits": [{"Name": "foo"}]}), "invalid ulimit type: foo"),
            (
                json!({"Ulimits": [{"Name": "nofile", "Soft": 5, "Hard": 1}]}),
                "ulimit soft limit must be less than or equal to hard limit: 5 > 1",
            ),
            (json!({"ExtraHosts": ["foo"]}), "bad format for add-host: \"foo\""),
            (json!({"ExtraHosts": ["a\nb:1.2.3.4"]}), "bad format for add-host: \"a\\nb:1.2.3.4\""),
            (json!({"ExtraHosts": ["foo:bar"]}), "invalid IP address in add-host: \"bar\""),
            (json!({"Isolation": "hyperv"}), "invalid isolation 'hyperv' on linux"),
            (
                json!({"LogConfig": {"Type": "nosuch"}}),
                "error looking up logging plugin nosuch: plugin \"nosuch\" not found",
            ),
            (
                json!({"LogConfig": {"Config": {"foo": "bar"}}}),
                "unknown log opt 'foo' for json-file log driver",
            ),
            (json!({"PortBindings": {"x/tcp": []}}), "invalid port specification: \"x\""),
            (
                json!({"PortBindings": {"80/tcp": [{"HostPort": "70000"}]}}),
                "invalid port specification: \"70000\"",
            ),
            (
                json!({"NetworkMode": "host", "Sysctls": {"net.ipv4.ip_forward": "1"}}),
                "sysctl 'net.ipv4.ip_forward' not allowed in host network namespace",
            ),
        ] {
            let e = checked(json!({}), host.clone()).expect_err(&host.to_string());
            assert_eq!((e.to_string().as_str(), e.kind()), (text, crate::error::Kind::Invalid));
        }
    }

    #[test]
    fn a_wrong_configuration_is_refused_in_dockers_words() {
        for (config, host, text) in [
            (
                json!({"WorkingDir": "rel"}),
                json!({}),
                "the working directory 'rel' is invalid, it needs to be an absolute path",
            ),
            (json!({"StopSignal": "FOO"}), json!({}), "invalid signal: FOO"),
            (json!({"Env": ["=x"]}), json!({}), "invalid environment variable: =x"),
            (
                json!({"Healthcheck": {"Interval": 1000}}),
                json!({}),
                "Interval in Healthcheck cannot be less than 1ms",
            ),
            (json!({"Healthcheck": {"Retries": -1}}), json!({}), "Retries in Healthcheck cannot be negative"),
            (
                json!({"Hostname": "h"}),
                json!({"UTSMode": "host"}),
                "conflicting options: hostname and the UTS mode",
            ),
            (
                json!({"Hostname": "h"}),
                json!({"NetworkMode": "container:x"}),
                "conflicting options: hostname and the network mode",
            ),
            (
                json!({"ExposedPorts": {"80/tcp": {}}}),
                json!({"NetworkMode": "container:x"}),
                "conflicting options: port exposing and the container type network mode",
            ),
            (
                json!({"Volumes": {"rel": {}}}),
                json!({}),
                "invalid mount path: 'rel' mount path must be absolute",
            ),
        ] {
            assert_eq!(checked(config, host).expect_err(text).to_string(), text);
        }
    }

    #[test]
    fn what_this_machine_cannot_do_is_left_out_with_a_warning() {
        let (_, host, warnings) = checked(
            json!({}),
            json!({"BlkioWeight": 300, "KernelMemory": 52_428_800, "MemorySwappiness": -1, "OomKillDisable": true}),
        )
        .expect("possible");
        let r = &host.resources;
        assert_eq!((r.blkio_weight, r.kernel_memory, r.memory_swappiness), (0, 0, None));
        assert_eq!(warnings.len(), 3, "{warnings:?}");
        assert_eq!(
            warnings[2],
            "Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded."
        );
        let (_, _, warnings) =
            checked(json!({}), json!({"NetworkMode": "host", "PortBindings": {"80/tcp": []}}))
                .expect("possible");
        assert_eq!(warnings, ["Published ports are discarded when using host network mode"]);
    }

    #[test]
    fn what_nobody_asked_for_is_filled_in() {
        let (config, mut host, _) =
            checked(json!({"WorkingDir": "/a/../b/"}), json!({"Memory": 67_108_864})).expect("possible");
        fill_in(&mut host, &machine());
        assert_eq!(config.working_dir, "/b");
        assert_eq!((host.resources.memory_swap, host.shm_size), (134_217_728, 67_108_864));
        assert_eq!((host.ipc_mode.as_str(), host.cgroupns_mode.as_str()), ("private", "host"));
        assert_eq!((host.network_mode.as_str(), host.restart_policy.name.as_str()), ("default", "no"));
        assert!(host.masked_paths.contains(&"/proc/kcore".to_owned()));
        for (mode, name) in [("host", "vm"), ("default", "c0ffee00c0ff")] {
            let (mut config, network_mode) = (Config::default(), mode.to_owned());
            let on = Host { hostname: "vm".into(), ..machine() };
            let host = HostConfig { network_mode, ..HostConfig::default() };
            fill_in_hostname(&mut config, &host, &on, "c0ffee00c0ffee");
            fill_in_hostname(&mut config, &host, &on, "another");
            assert_eq!(config.hostname, name);
        }
        let mut privileged = HostConfig { privileged: true, ..HostConfig::default() };
        fill_in(&mut privileged, &Host { unified: true, ..machine() });
        assert!(privileged.masked_paths.is_nil() && privileged.cgroupns_mode == "private");
    }
}
