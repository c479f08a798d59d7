//! From the flags of `run` and `create` to the request.

#![forbid(unsafe_code)]

use super::Flags;
use super::mount::Volume;
use super::network::Attachment;
use super::value::{Read, decimal, duration, each, integer, one, pair, size, switch};
use super::{device, env, limits, mount, network, port};
use crate::container::types::{
    Config, CreateRequest, Empty, Healthcheck, HostConfig, List, LogConfig, Map, NetworkingConfig, Resources,
    StrSlice, Ulimit, of_container,
};
use crate::container::{security, spec};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::reference::Reference;
use std::collections::BTreeMap;
use std::net::IpAddr;

fn refuse<T>(text: impl Into<String>) -> Result<T> {
    Err(Error::invalid(text))
}

/// Nil where there is nothing, as a list of Go is to which nothing was appended.
fn list(items: Vec<String>) -> List<String> {
    if items.is_empty() { List::default() } else { items.into() }
}

fn map(texts: &[String]) -> Map<String> {
    texts.iter().map(|text| pair(text)).collect()
}

impl Flags {
    /// Whether it was said what to be attached to.
    pub(super) fn says_attach(&self) -> bool {
        !self.attach.is_empty()
    }

    /// What docker's CLI sends for these flags. `ConsoleSize` is for whoever has the terminal to say.
    ///
    /// # Errors
    /// Values that are none, files that cannot be read, and what contradicts itself, in docker's words.
    pub(in crate::cli::container) fn request(mut self) -> Result<CreateRequest> {
        let mut words = std::mem::take(&mut self.words).into_iter();
        let image = words.next().unwrap_or_default();
        // An id is no name, but an image can be meant by it.
        if Digest::from_hex(&image).is_none() {
            Reference::parse(&image)?;
        }
        let name = self.name.take().filter(|name| !name.is_empty());
        let mut resources = std::mem::take(&mut self.limits).resources()?;
        let mac = self.mac_address.clone().unwrap_or_default();
        if !mac.is_empty() && !network::is_mac(mac.trim()) {
            return refuse(format!("{mac} is not a valid mac address"));
        }
        let swappiness =
            one("--memory-swappiness", self.memory_swappiness.as_deref(), integer)?.unwrap_or(-1);
        if !(-1..=100).contains(&swappiness) {
            return refuse(format!("invalid value: {swappiness}. Valid memory swappiness range is 0-100"));
        }
        let attach = each("-a, --attach", &self.attach, stream)?;
        let open_stdin = switch("-i, --interactive", self.interactive.as_deref())?;
        let attached = |stream: &str| attach.iter().any(|given| given == stream);
        let attach_stdin = open_stdin || attached("stdin");
        let (volumes, binds) = self.volumes()?;
        let (exposed_ports, port_bindings) = port::read(&self.publish, &self.expose)?;
        let (devices, cdi) = device::devices(&self.device)?;
        let (mut variables, given) = env::variables(&self.env_file, &self.env)?;
        variables.extend(env::once(given));
        let labels = env::labels(&self.label_file, &self.label)?;
        self.check_modes()?;
        let restart_policy = limits::restart(self.restart.as_deref().unwrap_or("no"))?;
        if self.log_driver.as_deref() == Some("none") && !self.log_opt.is_empty() {
            return refuse("invalid logging opts for driver none");
        }
        let (security_opt, unconfined) = self.security()?;
        if self.storage_opt.iter().any(|option| !option.contains('=')) {
            return refuse("invalid storage option");
        }
        let healthcheck = self.healthcheck()?;
        let auto_remove = switch("--rm", self.rm.as_deref())?;
        if auto_remove && !matches!(restart_policy.name.as_str(), "" | "no") {
            return refuse("conflicting options: cannot specify both --restart and --rm");
        }
        let networks = each("--network", &self.network, network::attachment)?;
        let network_mode = networks.first().map_or("default", |first| &first.network).to_owned();
        let links = each("--link", &self.link, link)?;
        let flags = Attachment {
            aliases: self.network_alias.clone(),
            links: links.clone(),
            ip: self.ip.clone().unwrap_or_default(),
            ip6: self.ip6.clone().unwrap_or_default(),
            link_local: self.link_local_ip.clone(),
            mac,
            ..Attachment::default()
        };
        let endpoints = network::endpoints(networks, flags)?;
        self.add_limits(&mut resources, swappiness)?;
        resources.devices = devices.into();
        let mut requests = each("--gpus", &self.gpus, device::gpus)?;
        requests.extend(cdi);
        if !requests.is_empty() {
            resources.device_requests = requests.into();
        }
        let config = Config {
            hostname: self.hostname.unwrap_or_default(),
            domainname: self.domainname.unwrap_or_default(),
            user: self.user.unwrap_or_default(),
            attach_stdin,
            attach_stdout: attach.is_empty() || attached("stdout"),
            attach_stderr: attach.is_empty() || attached("stderr"),
            exposed_ports,
            tty: switch("-t, --tty", self.tty.as_deref())?,
            open_stdin,
            // Whoever has it open to write to it closes it.
            stdin_once: open_stdin && attach_stdin,
            env: list(variables),
            cmd: if words.len() == 0 { StrSlice::default() } else { words.collect() },
            healthcheck,
            image,
            volumes,
            working_dir: self.workdir.unwrap_or_default(),
            entrypoint: self
                .entrypoint
                .map_or_else(StrSlice::default, |program| [program].into_iter().collect()),
            labels: labels.into_iter().collect(),
            stop_signal: self.stop_signal.unwrap_or_default(),
            stop_timeout: one("--stop-timeout", self.stop_timeout.as_deref(), integer)?,
            ..Config::default()
        };
        let mounts = each("--mount", &self.mount, mount::mount)?;
        let empty = || List::from(Vec::new());
        let host = HostConfig {
            binds: list(binds),
            container_id_file: self.cidfile.unwrap_or_default(),
            log_config: LogConfig { r#type: self.log_driver.unwrap_or_default(), config: map(&self.log_opt) },
            network_mode,
            port_bindings,
            restart_policy,
            auto_remove,
            volume_driver: self.volume_driver.unwrap_or_default(),
            volumes_from: list(self.volumes_from),
            annotations: map(&self.annotation),
            cap_add: capabilities(&self.cap_add),
            cap_drop: capabilities(&self.cap_drop),
            cgroupns_mode: self.cgroupns.unwrap_or_default(),
            // Never nil, unlike the other lists.
            dns: each("--dns", &self.dns, address)?.into(),
            dns_options: self.dns_option.into(),
            dns_search: each("--dns-search", &self.dns_search, domain)?.into(),
            extra_hosts: list(each("--add-host", &self.add_host, extra_host)?),
            group_add: list(self.group_add),
            ipc_mode: self.ipc.unwrap_or_default(),
            links: list(links),
            oom_score_adj: one("--oom-score-adj", self.oom_score_adj.as_deref(), integer)?
                .unwrap_or_default(),
            pid_mode: self.pid.unwrap_or_default(),
            privileged: switch("--privileged", self.privileged.as_deref())?,
            publish_all_ports: switch("-P, --publish-all", self.publish_all.as_deref())?,
            readonly_rootfs: switch("--read-only", self.read_only.as_deref())?,
            security_opt,
            storage_opt: map(&self.storage_opt),
            tmpfs: self.tmpfs.iter().map(|text| tmpfs(text)).collect(),
            uts_mode: self.uts.unwrap_or_default(),
            userns_mode: self.userns.unwrap_or_default(),
            shm_size: one("--shm-size", self.shm_size.as_deref(), size)?.unwrap_or_default(),
            sysctls: each("--sysctl", &self.sysctl, sysctl)?.into_iter().collect(),
            runtime: self.runtime.unwrap_or_default(),
            isolation: self.isolation.unwrap_or_default(),
            resources,
            mounts: mounts.into(),
            masked_paths: if unconfined { empty() } else { List::default() },
            readonly_paths: if unconfined { empty() } else { List::default() },
            init: one("--init", self.init.as_deref(), super::value::truth)?,
            ..HostConfig::default()
        };
        let networking = NetworkingConfig { endpoints_config: endpoints.into() };
        Ok(CreateRequest { name, config, host, networking })
    }

    /// Volumes without a name by their place, and binds, each once.
    fn volumes(&self) -> Result<(Map<Empty>, Vec<String>)> {
        let (mut volumes, mut binds) = (BTreeMap::new(), Vec::new());
        for text in &self.volume {
            match mount::volume(text)? {
                Volume::Anonymous(place) => drop(volumes.insert(place, Empty {})),
                Volume::Bind(bind) if binds.contains(&bind) => {}
                Volume::Bind(bind) => binds.push(bind),
            }
        }
        Ok((volumes.into(), binds))
    }

    fn check_modes(&self) -> Result<()> {
        let of_another = |mode: &str| of_container(mode).is_some_and(|id| !id.is_empty());
        for (mode, known, another, wrong) in [
            (&self.pid, &["", "host"][..], true, "--pid: invalid PID mode"),
            (&self.uts, &["", "host"], false, "--uts: invalid UTS mode"),
            (&self.userns, &["", "host"], false, "--userns: invalid USER mode"),
            (&self.cgroupns, &["", "host", "private"], false, "--cgroupns: invalid CGROUP mode"),
        ] {
            let mode = mode.as_deref().unwrap_or_default();
            if !(known.contains(&mode) || another && of_another(mode)) {
                return refuse(wrong);
            }
        }
        Ok(())
    }

    /// The options as they are sent, and whether no path is hidden.
    fn security(&self) -> Result<(List<String>, bool)> {
        for option in &self.security_opt {
            let value = option.split_once('=').or_else(|| option.split_once(':'));
            if value.is_some_and(|(key, value)| value.is_empty() && key != "no-new-privileges") {
                return refuse(format!("Invalid --security-opt: {option:?}"));
            }
        }
        let (options, unconfined) = security::from_command_line(&self.security_opt)?;
        Ok((if self.security_opt.is_empty() { List::default() } else { options.into() }, unconfined))
    }

    fn healthcheck(&self) -> Result<Option<Healthcheck>> {
        let time = |flag: &str, given: &Option<String>| -> Result<i64> {
            Ok(one(flag, given.as_deref(), duration)?.unwrap_or_default())
        };
        let command = self.health_cmd.as_deref().filter(|command| !command.is_empty());
        let check = Healthcheck {
            test: command.map_or_else(List::default, |command| {
                ["CMD-SHELL", command].into_iter().map(str::to_owned).collect()
            }),
            interval: time("--health-interval", &self.health_interval)?,
            timeout: time("--health-timeout", &self.health_timeout)?,
            start_period: time("--health-start-period", &self.health_start_period)?,
            start_interval: time("--health-start-interval", &self.health_start_interval)?,
            retries: one("--health-retries", self.health_retries.as_deref(), integer)?.unwrap_or_default(),
        };
        let any = check != Healthcheck::default();
        if switch("--no-healthcheck", self.no_healthcheck.as_deref())? {
            if any {
                return refuse("--no-healthcheck conflicts with --health-* options");
            }
            let test = ["NONE".to_owned()].into_iter().collect();
            return Ok(Some(Healthcheck { test, ..Healthcheck::default() }));
        }
        for (flag, value) in [
            ("interval", check.interval),
            ("timeout", check.timeout),
            ("retries", check.retries),
            ("start-period", check.start_period),
            ("start-interval", check.start_interval),
        ] {
            if value < 0 {
                return refuse(format!("--health-{flag} cannot be negative"));
            }
        }
        Ok(any.then_some(check))
    }

    /// Limits that `update` does not know.
    fn add_limits(&self, resources: &mut Resources, swappiness: i64) -> Result<()> {
        // The API's client leaves out what kernels have no more.
        resources.kernel_memory = 0;
        resources.memory_swappiness = Some(swappiness);
        resources.oom_kill_disable = Some(switch("--oom-kill-disable", self.oom_kill_disable.as_deref())?);
        resources.pids_limit.get_or_insert_default();
        resources.cgroup_parent = self.cgroup_parent.clone().unwrap_or_default();
        resources.blkio_weight_device =
            each("--blkio-weight-device", &self.blkio_weight_device, device::weight)?.into();
        let bytes = device::bytes_a_second;
        resources.blkio_device_read_bps = each("--device-read-bps", &self.device_read_bps, bytes)?.into();
        resources.blkio_device_write_bps = each("--device-write-bps", &self.device_write_bps, bytes)?.into();
        let operations = device::operations_a_second;
        resources.blkio_device_read_iops =
            each("--device-read-iops", &self.device_read_iops, operations)?.into();
        resources.blkio_device_write_iops =
            each("--device-write-iops", &self.device_write_iops, operations)?.into();
        resources.device_cgroup_rules =
            list(each("--device-cgroup-rule", &self.device_cgroup_rule, device::rule)?);
        // Of one name the last holds.
        let ulimits = each("--ulimit", &self.ulimit, ulimit)?;
        let ulimits: BTreeMap<String, Ulimit> =
            ulimits.into_iter().map(|ulimit| (ulimit.name.clone(), ulimit)).collect();
        resources.ulimits = ulimits.into_values().collect();
        Ok(())
    }
}

fn stream(text: &str) -> Read<String> {
    let lower = text.to_lowercase();
    if matches!(lower.as_str(), "stdin" | "stdout" | "stderr") {
        return Ok(lower);
    }
    Err("valid streams are STDIN, STDOUT and STDERR".to_owned())
}

fn link(text: &str) -> Read<String> {
    match text.matches(':').count() {
        _ if text.is_empty() => Err("empty string specified for links".to_owned()),
        0 | 1 => Ok(text.to_owned()),
        _ => Err(format!("bad format for links: {text}")),
    }
}

fn address(text: &str) -> Read<String> {
    match text.trim().parse::<IpAddr>() {
        Ok(address) => Ok(address.to_canonical().to_string()),
        Err(_) => Err(format!("IP address is not correctly formatted: {text}")),
    }
}

/// Labels of letters, digits and `-` between dots, at least one letter among them; a dot at the end is left out.
fn domain(text: &str) -> Read<String> {
    let text = text.trim_matches(' ');
    if text == "." {
        return Ok(text.to_owned());
    }
    let name = text.trim_end_matches(|c: char| c.is_ascii_whitespace());
    let name = name.strip_suffix('.').unwrap_or(name);
    let label = |label: &str| {
        let alphanumeric = |c: char| c.is_ascii_alphanumeric();
        label.starts_with(alphanumeric)
            && label.ends_with(alphanumeric)
            && label.chars().all(|c| alphanumeric(c) || c == '-')
    };
    let valid =
        name.len() < 255 && name.contains(|c: char| c.is_ascii_alphabetic()) && name.split('.').all(label);
    if valid { Ok(name.to_owned()) } else { Err(format!("{text} is not a valid domain")) }
}

/// `NAME:ADDRESS`, `NAME=ADDRESS`; an IPv6 address may stand in brackets.
fn extra_host(text: &str) -> Read<String> {
    let split = text.split_once('=').or_else(|| text.split_once(':'));
    let (name, address) = split
        .filter(|(name, _)| !name.is_empty() && !name.contains(':'))
        .ok_or_else(|| format!("bad format for add-host: {text:?}"))?;
    let inner = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let address = inner.filter(|inner| !inner.is_empty()).unwrap_or(address);
    if address != "host-gateway" && address.trim().parse::<IpAddr>().is_err() {
        return Err(format!("invalid IP address in add-host: {address:?}"));
    }
    Ok(format!("{name}:{address}"))
}

/// In capitals, with `CAP_` in front, each once and in order, as the API's client sends them. Which ones there are the
/// engine knows.
fn capabilities(given: &[String]) -> StrSlice {
    if given.is_empty() {
        return StrSlice::default();
    }
    let full = |name: &String| match name.to_uppercase() {
        name if name == "ALL" || name.starts_with("CAP_") => name,
        name => format!("CAP_{name}"),
    };
    let names: std::collections::BTreeSet<String> = given.iter().map(full).collect();
    names.into_iter().collect()
}

/// Those that are a container's own.
fn sysctl(text: &str) -> Read<(String, String)> {
    const KERNEL: [&str; 8] =
        ["msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced"];
    match text.split_once('=') {
        Some((key, value))
            if key.starts_with("net.")
                || key.starts_with("fs.mqueue.")
                || key.strip_prefix("kernel.").is_some_and(|name| KERNEL.contains(&name)) =>
        {
            Ok((key.to_owned(), value.to_owned()))
        }
        _ => Err(format!("sysctl '{text}' is not allowed")),
    }
}

/// `DIR[:OPTIONS]`.
fn tmpfs(text: &str) -> (String, String) {
    let (path, options) = text.split_once(':').unwrap_or((text, ""));
    (path.to_owned(), options.to_owned())
}

/// `NAME=SOFT[:HARD]`; -1 is without limit.
fn ulimit(text: &str) -> Read<Ulimit> {
    let (name, limits) = text.split_once('=').ok_or_else(|| format!("invalid ulimit argument: {text}"))?;
    if !spec::RLIMITS.contains(&name) {
        return Err(format!("invalid ulimit type: {name}"));
    }
    let number =
        |text: &str| decimal(text).map_err(|wrong| format!("strconv.ParseInt: parsing {text:?}: {wrong}"));
    let (soft, hard) = match limits.split(':').collect::<Vec<_>>()[..] {
        [soft, hard] => {
            let hard = number(hard)?;
            (number(soft)?, hard)
        }
        [both] => (number(both)?, number(both)?),
        _ => {
            return Err(format!(
                "too many limit value arguments - {limits}, can only have up to two, `soft[:hard]`"
            ));
        }
    };
    let wrong = "ulimit soft limit must be less than or equal to hard limit:";
    match (soft, hard) {
        (_, -1) => {}
        (-1, hard) => return Err(format!("{wrong} soft: -1 (unlimited), hard: {hard}")),
        (soft, hard) if soft > hard => return Err(format!("{wrong} {soft} > {hard}")),
        _ => {}
    }
    Ok(Ulimit { name: name.to_owned(), hard, soft })
}
