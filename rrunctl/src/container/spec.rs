//! config.json of a container, as dockerd hands it to its runtime; a pure function.
//!
//! Where it differs from dockerd 20.10 and 28:
//!
//! * the network namespace is one that is there already, with its path, instead of a hook that makes it;
//! * read-only binds are `rro` where the kernel can (28 does so; 20.10 left what is below writable);
//! * the seccomp profile, the masked paths and the absence of empty `cpu` and `blockIO` are those of 28;
//! * mounts of the same depth are in the order of their paths; dockerd's order is that of a Go map;
//! * rlimits and capabilities are each listed once.

#![forbid(unsafe_code)]

use super::device::{self, Device, Rule};
use super::host::{Host, SYSCTLS};
use super::merge;
use super::mount::{self, Point};
use super::security::Security;
use super::types::{Config, HostConfig, List, Resources, ThrottleDevice, of_container};
use super::user::User;
use super::{capability, seccomp};
use crate::error::{Error, Result};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// What nobody inside shall read.
const MASKED_PATHS: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

/// What nobody inside shall write.
pub const READONLY_PATHS: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// What `--ulimit` knows (setrlimit(2)); not `as`, which would keep the container from being made.
pub const RLIMITS: [&str; 15] = [
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// Where `--init`'s program is inside.
const INIT: &str = "/sbin/docker-init";

/// Everything that config.json depends on.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// Merged with the image's, and with a hostname.
    pub config: &'a Config,
    /// Checked, and filled in.
    pub host: &'a HostConfig,
    /// This machine.
    pub on: &'a Host,
    /// The root file system.
    pub rootfs: &'a Path,
    /// Who the process is.
    pub user: &'a User,
    /// What is mounted; volumes have their sources.
    pub points: &'a BTreeMap<String, Point>,
    /// What is bound to /etc/hosts, if anything.
    pub hosts: Option<&'a Path>,
    /// What is bound to /etc/hostname.
    pub hostname: Option<&'a Path>,
    /// What is bound to /etc/resolv.conf.
    pub resolv_conf: Option<&'a Path>,
    /// The network namespace; without one, and without `--network host`, the runtime makes one.
    pub network: Option<&'a Path>,
    /// The other container's, with `--ipc container:ID`.
    pub ipc: Option<&'a Path>,
    /// The other container's, with `--pid container:ID`.
    pub pid: Option<&'a Path>,
    /// The /dev/shm that is shared, where IPC is not private.
    pub shm: Option<&'a Path>,
    /// `linux.cgroupsPath`.
    pub cgroups_path: &'a str,
    /// The variables of `--link`.
    pub links: &'a [String],
    /// The program of `--init`, on the host.
    pub init: Option<&'a Path>,
    /// What was looked up for it.
    pub looked_up: &'a LookedUp,
}

/// Devices, which are files of the host.
#[derive(Debug, Clone, Default)]
pub struct LookedUp {
    /// Those of `--device`, and what may be done with each.
    pub devices: Vec<(Device, String)>,
    /// Every device of the host, with `--privileged`.
    pub every: Vec<Device>,
    /// The numbers of the block devices that have limits.
    pub numbers: BTreeMap<String, (i64, i64)>,
    /// The profile of AppArmor, unless one is asked for.
    pub apparmor: Option<&'static str>,
}

impl LookedUp {
    /// Looks up what `host` names.
    ///
    /// # Errors
    /// What is not there.
    pub fn of(host: &HostConfig, on: &Host) -> Result<Self> {
        let r = &host.resources;
        let mut found = Self { apparmor: on.apparmor_default, ..Self::default() };
        if host.privileged && !on.user_namespace {
            found.every = device::of_host()?;
        }
        for wanted in r.devices.iter() {
            // It is there already.
            if host.privileged && wanted.path_on_host == wanted.path_in_container {
                continue;
            }
            let inside = if wanted.path_in_container.is_empty() {
                &wanted.path_on_host
            } else {
                &wanted.path_in_container
            };
            let access = if host.privileged || wanted.cgroup_permissions.is_empty() {
                "rwm"
            } else {
                &wanted.cgroup_permissions
            };
            let devices = device::from_path(&wanted.path_on_host, inside)?;
            found.devices.extend(devices.into_iter().map(|device| (device, access.to_owned())));
        }
        let throttled = [
            &r.blkio_device_read_bps,
            &r.blkio_device_write_bps,
            &r.blkio_device_read_iops,
            &r.blkio_device_write_iops,
        ];
        let paths = throttled.into_iter().flat_map(|list| list.iter().map(|device| &device.path));
        for path in paths.chain(r.blkio_weight_device.iter().map(|device| &device.path)) {
            found.numbers.insert(path.clone(), device::number(path)?);
        }
        Ok(found)
    }
}

/// What is hidden on this machine unless something else is asked for.
pub fn masked_paths(on: &Host) -> Vec<String> {
    MASKED_PATHS.iter().map(|path| (*path).to_owned()).chain(on.thermal_throttle.iter().cloned()).collect()
}

/// The cgroup of a container below `--cgroup-parent`, or below the engine's; none for an ordinary user's, who has no
/// say in the hierarchy: it stays in its caller's, or is in a scope that the user's systemd makes.
pub fn cgroups_path(parent: &str, id: &str, on: &Host) -> String {
    if on.user_namespace {
        return match on.user_systemd && !parent.is_empty() {
            true => format!("{parent}:rrunctl:{id}"),
            false => String::new(),
        };
    }
    // `..` would lead out of the hierarchy's mount.
    mount::clean(&format!("{}/{id}", if parent.is_empty() { "/rrunctl" } else { parent }))
}

/// config.json.
///
/// # Errors
/// A seccomp profile that is none.
pub fn make(of: &Input<'_>) -> Result<Value> {
    let security = Security::parse(&of.host.security_opt)?;
    let capabilities =
        capability::of(&of.host.cap_add, &of.host.cap_drop, of.host.privileged, of.on.capabilities)?;
    let mut spec = Map::new();
    spec.insert("ociVersion".to_owned(), "1.2.1".into());
    spec.insert("process".to_owned(), process(of, &security, &capabilities));
    let mut root = json!({"path": of.rootfs});
    if of.host.readonly_rootfs {
        root["readonly"] = true.into();
    }
    spec.insert("root".to_owned(), root);
    if of.host.uts_mode != "host" {
        spec.insert("hostname".to_owned(), of.config.hostname.as_str().into());
    }
    let (mounts, propagation) = mounts(of, &security)?;
    spec.insert("mounts".to_owned(), mounts.into());
    if !of.host.annotations.is_empty() {
        spec.insert("annotations".to_owned(), json!(of.host.annotations));
    }
    spec.insert("linux".to_owned(), linux(of, &security, &capabilities, propagation)?);
    Ok(Value::Object(spec))
}

fn process(of: &Input<'_>, security: &Security, capabilities: &[String]) -> Value {
    let (program, args) = merge::command(of.config);
    let mut words = Vec::new();
    if runs_init(of) {
        words.extend([INIT.to_owned(), "--".to_owned()]);
    }
    words.push(program);
    words.extend(args);
    let cwd = if of.config.working_dir.is_empty() { "/" } else { &of.config.working_dir };
    let mut process = json!({
        "user": {"uid": of.user.uid, "gid": of.user.gid, "additionalGids": of.user.groups},
        "args": words,
        "env": merge::environment(of.config, of.links),
        "cwd": cwd,
        "capabilities": {"bounding": capabilities},
        "oomScoreAdj": of.host.oom_score_adj,
    });
    // A process of somebody else has none after execve(2) either.
    if of.user.uid == 0 {
        process["capabilities"]["effective"] = json!(capabilities);
        process["capabilities"]["permitted"] = json!(capabilities);
    }
    if of.config.tty {
        process["terminal"] = true.into();
        let [height, width] = of.host.console_size;
        if height != 0 && width != 0 {
            process["consoleSize"] = json!({"height": height, "width": width});
        }
    }
    let unlimited = |n: i64| u64::try_from(n).unwrap_or(u64::MAX);
    let mut rlimits: BTreeMap<&str, Value> = BTreeMap::new();
    for limit in of.host.resources.ulimits.iter() {
        rlimits.insert(
            &limit.name,
            json!({
                "type": format!("RLIMIT_{}", limit.name.to_uppercase()),
                "hard": unlimited(limit.hard),
                "soft": unlimited(limit.soft),
            }),
        );
    }
    if !rlimits.is_empty() {
        process["rlimits"] = rlimits.into_values().collect();
    }
    if security.no_new_privileges {
        process["noNewPrivileges"] = true.into();
    }
    if of.on.apparmor {
        let profile = match &security.apparmor {
            Some(profile) => Some(profile.as_str()),
            None if of.host.privileged => Some("unconfined"),
            None => of.looked_up.apparmor,
        };
        if let Some(profile) = profile {
            process["apparmorProfile"] = profile.into();
        }
    }
    process
}

/// `--init` where the process would be the first of its pid namespace.
fn runs_init(of: &Input<'_>) -> bool {
    let own = of.host.pid_mode.is_empty();
    own && of.host.init == Some(true) && of.init.is_some()
}

fn bind(source: &Path, to: &str, read_only: bool) -> Value {
    let options: &[&str] = if read_only { &["rbind", "ro", "rprivate"] } else { &["rbind", "rprivate"] };
    json!({"destination": to, "type": "bind", "source": source, "options": options})
}

/// The mounts, and how the root's are shared.
fn mounts(of: &Input<'_>, security: &Security) -> Result<(Vec<Value>, Option<&'static str>)> {
    let (own, propagation) = given(of)?;
    let place = |mount: &Value| mount["destination"].as_str().unwrap_or_default().to_owned();
    let taken: Vec<_> = own.iter().map(place).collect();
    let has_dev = taken.iter().any(|path| path == "/dev");
    let mut mounts: Vec<_> = every_container_has(of.host)
        .into_iter()
        .filter(|mount| {
            let at = place(mount);
            let below_dev = has_dev && at.starts_with("/dev/");
            !below_dev && !taken.contains(&at)
        })
        .collect();
    if of.on.user_namespace {
        // The kernel mounts these only for who has a namespace of the user's that they show.
        let shown = [("/sys", of.network.is_none()), ("/proc", of.host.pid_mode == "host")];
        for mount in &mut mounts {
            let at = place(mount);
            if shown.contains(&(at.as_str(), true)) {
                mount["type"] = "bind".into();
                mount["source"] = at.into();
                if let Some(options) = mount["options"].as_array_mut() {
                    options.insert(0, "rbind".into());
                }
            }
        }
    }
    if let Some(init) = of.init.filter(|_| runs_init(of)) {
        mounts.push(json!({"destination": INIT, "type": "bind", "source": init, "options": ["bind", "ro"]}));
    }
    for mount in &mut mounts {
        let at = place(mount);
        let Some(options) = mount["options"].as_array_mut() else { continue };
        let is_cgroup = at == "/sys/fs/cgroup";
        let writable =
            of.host.privileged && (at == "/sys" || is_cgroup) || security.writable_cgroups && is_cgroup;
        if writable {
            options.retain(|option| option != "ro");
        }
    }
    mounts.extend(own);
    Ok((mounts, propagation))
}

/// What was asked for, and the files that the engine makes; the shallowest first.
fn given(of: &Input<'_>) -> Result<(Vec<Value>, Option<&'static str>)> {
    let mut mounts = Vec::new();
    let mut propagation = None;
    for point in of.points.values() {
        if point.r#type == "tmpfs" {
            let options = mount::merge_tmpfs(&mount::tmpfs_options(&point.spec)?)?;
            mounts.push(json!({
                "destination": point.destination, "type": "tmpfs", "source": "tmpfs", "options": options,
            }));
            continue;
        }
        if point.source.is_empty() {
            return Err(Error::system(format!(
                "the volume {} on {} has no source",
                point.name, point.destination
            )));
        }
        let subpath = point.spec.volume_options.as_ref().map_or("", |options| options.subpath.as_str());
        if !subpath.is_empty() {
            // By its path it would be followed out of the volume: who has that can put a link there.
            return Err(Error::new(
                crate::error::Kind::Unsupported,
                format!("volume-subpath is not supported: mount the whole volume {}", point.name),
            )
            .remedy(format!("what was asked for is {subpath} in it")));
        }
        let asked = point.spec.bind_options.clone().unwrap_or_default();
        let mut options = vec![if asked.non_recursive { "bind" } else { "rbind" }];
        if !point.rw {
            if asked.read_only_force_recursive && !of.on.recursive_read_only {
                return Err(Error::new(
                    crate::error::Kind::Unsupported,
                    "rro is not supported: requires kernel 5.12",
                ));
            }
            let below = of.on.recursive_read_only && !asked.read_only_non_recursive;
            options.push(if below { "rro" } else { "ro" });
        }
        if !point.propagation.is_empty() {
            options.push(&point.propagation);
        }
        match point.propagation.as_str() {
            "shared" | "rshared" => propagation = Some("shared"),
            "slave" | "rslave" => propagation = propagation.or(Some("rslave")),
            _ => {}
        }
        mounts.push(json!({
            "destination": point.destination, "type": "bind", "source": point.source, "options": options,
        }));
    }
    for (path, file) in
        [("/etc/resolv.conf", of.resolv_conf), ("/etc/hostname", of.hostname), ("/etc/hosts", of.hosts)]
    {
        if let Some(file) = file.filter(|_| !of.points.contains_key(path)) {
            mounts.push(bind(file, path, of.host.readonly_rootfs));
        }
    }
    let is_shared = !matches!(of.host.ipc_mode.as_str(), "" | "private" | "none");
    if let Some(shm) = of.shm.filter(|_| is_shared && !of.points.contains_key("/dev/shm")) {
        mounts.push(bind(shm, "/dev/shm", false));
    }
    for (path, options) in of.host.tmpfs.iter() {
        let options = mount::merge_tmpfs(options)?;
        mounts.push(json!({
            "destination": mount::clean(path), "type": "tmpfs", "source": "tmpfs", "options": options,
        }));
    }
    mounts.sort_by_key(|mount| mount["destination"].as_str().unwrap_or_default().matches('/').count());
    Ok((mounts, propagation))
}

fn every_container_has(host: &HostConfig) -> Vec<Value> {
    let mount = |destination: &str, kind: &str, source: &str, options: &[&str]| json!({"destination": destination, "type": kind, "source": source, "options": options});
    let closed = ["nosuid", "noexec", "nodev"];
    let mut mounts = vec![
        mount("/proc", "proc", "proc", &closed),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        mount("/sys/fs/cgroup", "cgroup", "cgroup", &["ro", "nosuid", "noexec", "nodev"]),
        mount("/dev/mqueue", "mqueue", "mqueue", &closed),
    ];
    if host.ipc_mode != "none" {
        let size = format!("size={}", host.shm_size);
        mounts.push(mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", &size]));
    }
    mounts
}

fn linux(
    of: &Input<'_>,
    security: &Security,
    capabilities: &[String],
    propagation: Option<&str>,
) -> Result<Value> {
    let mut linux = Map::new();
    let sysctls = sysctls(of);
    if !sysctls.is_empty() {
        linux.insert("sysctl".to_owned(), json!(sysctls));
    }
    linux.insert("resources".to_owned(), resources(of)?);
    if !of.cgroups_path.is_empty() {
        linux.insert("cgroupsPath".to_owned(), of.cgroups_path.into());
    }
    linux.insert("namespaces".to_owned(), namespaces(of).into());
    let mut devices = of.looked_up.every.clone();
    devices.extend(of.looked_up.devices.iter().map(|(device, _)| device.clone()));
    if !devices.is_empty() {
        linux.insert("devices".to_owned(), json!(devices));
    }
    let profile = match security.seccomp.as_deref() {
        Some("unconfined") => None,
        Some("builtin") => Some(seccomp::default(capabilities)),
        Some(profile) if !profile.is_empty() => Some(seccomp::load(profile, capabilities, of.on.kernel)?),
        _ if of.host.privileged => None,
        _ => Some(seccomp::default(capabilities)),
    };
    if let Some(profile) = profile {
        linux.insert("seccomp".to_owned(), profile);
    }
    if let Some(propagation) = propagation {
        linux.insert("rootfsPropagation".to_owned(), propagation.into());
    }
    let paths = |given: &List<String>, usual: Vec<String>| match given.given() {
        Some(given) => given.clone(),
        None if of.host.privileged => Vec::new(),
        None => usual,
    };
    let readonly = READONLY_PATHS.iter().map(|path| (*path).to_owned()).collect();
    for (name, paths) in [
        ("maskedPaths", paths(&of.host.masked_paths, masked_paths(of.on))),
        ("readonlyPaths", paths(&of.host.readonly_paths, readonly)),
    ] {
        if !paths.is_empty() {
            linux.insert(name.to_owned(), paths.into());
        }
    }
    Ok(Value::Object(linux))
}

fn sysctls<'a>(of: &Input<'a>) -> BTreeMap<&'a str, &'a str> {
    let mut sysctls = BTreeMap::new();
    if !of.config.domainname.is_empty() && of.host.uts_mode != "host" {
        sysctls.insert("kernel.domainname", of.config.domainname.as_str());
    }
    if of.host.network_mode != "host" && of_container(&of.host.network_mode).is_none() {
        // Of a user namespace not every group is known, so a range of them cannot be written.
        let usable =
            |name: &&str| of.on.sysctls.contains(name) && !(of.on.user_namespace && name.contains("ping"));
        sysctls.extend(SYSCTLS.into_iter().filter(|(name, _)| usable(name)));
    }
    sysctls.extend(of.host.sysctls.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    sysctls
}

fn namespaces(of: &Input<'_>) -> Vec<Value> {
    let namespace = |kind: &str, path: Option<&Path>| match path {
        Some(path) => json!({"type": kind, "path": path}),
        None => json!({"type": kind}),
    };
    let mut namespaces = vec![namespace("mount", None)];
    if of.host.network_mode != "host" || of.config.network_disabled {
        namespaces.push(namespace("network", of.network));
    }
    if of.host.uts_mode != "host" {
        namespaces.push(namespace("uts", None));
    }
    if of.host.pid_mode != "host" {
        namespaces.push(namespace("pid", of.pid));
    }
    if of.host.ipc_mode != "host" {
        namespaces.push(namespace("ipc", of.ipc));
    }
    if of.host.cgroupns_mode == "private" {
        namespaces.push(namespace("cgroup", None));
    }
    namespaces
}

fn resources(of: &Input<'_>) -> Result<Value> {
    let r = &of.host.resources;
    let mut resources = limits(r);
    resources.insert("devices".to_owned(), json!(rules(of)?));
    let mut io = Map::new();
    if r.blkio_weight != 0 {
        io.insert("weight".to_owned(), r.blkio_weight.into());
    }
    let number = |path: &str| {
        let found = of.looked_up.numbers.get(path).copied();
        found.ok_or_else(|| Error::system(format!("the device {path} was not looked up")))
    };
    if !r.blkio_weight_device.is_empty() {
        let one = |device: &super::types::WeightDevice| -> Result<Value> {
            let (major, minor) = number(&device.path)?;
            Ok(json!({"major": major, "minor": minor, "weight": device.weight}))
        };
        let all: Vec<_> = r.blkio_weight_device.iter().map(one).collect::<Result<_>>()?;
        io.insert("weightDevice".to_owned(), all.into());
    }
    for (name, list) in [
        ("throttleReadBpsDevice", &r.blkio_device_read_bps),
        ("throttleWriteBpsDevice", &r.blkio_device_write_bps),
        ("throttleReadIOPSDevice", &r.blkio_device_read_iops),
        ("throttleWriteIOPSDevice", &r.blkio_device_write_iops),
    ] {
        let one = |device: &ThrottleDevice| -> Result<Value> {
            let (major, minor) = number(&device.path)?;
            Ok(json!({"major": major, "minor": minor, "rate": device.rate}))
        };
        if !list.is_empty() {
            let all: Vec<_> = list.iter().map(one).collect::<Result<_>>()?;
            io.insert(name.to_owned(), all.into());
        }
    }
    if !io.is_empty() {
        resources.insert("blockIO".to_owned(), io.into());
    }
    Ok(Value::Object(resources))
}

/// The limits of memory, processors and processes: what `update` hands to the runtime as well.
pub fn limits(r: &Resources) -> Map<String, Value> {
    let some = |value: i64, given: bool| given.then(|| Value::from(value));
    let collect = |members: &[(&str, Option<Value>)]| {
        let given = members.iter().filter_map(|(name, value)| Some(((*name).to_owned(), value.clone()?)));
        given.collect::<Map<_, _>>()
    };
    let memory = collect(&[
        ("limit", some(r.memory, r.memory > 0)),
        ("reservation", some(r.memory_reservation, r.memory_reservation > 0)),
        // Without one, the runtime must not add one of its own: -1 says so, and is the default.
        ("swap", some(r.memory_swap, r.memory_swap > 0)),
        ("swappiness", r.memory_swappiness.map(Value::from)),
        ("kernel", some(r.kernel_memory, r.kernel_memory > 0)),
        ("kernelTCP", some(r.kernel_memory_tcp, r.kernel_memory_tcp > 0)),
        ("disableOOMKiller", r.oom_kill_disable.map(Value::from)),
    ]);
    // 100 ms is the kernel's own period.
    let (period, quota) =
        if r.nano_cpus > 0 { (100_000, r.nano_cpus / 10_000) } else { (r.cpu_period, r.cpu_quota) };
    let text = |value: &String| (!value.is_empty()).then(|| Value::from(value.as_str()));
    let cpu = collect(&[
        ("shares", some(r.cpu_shares, r.cpu_shares > 0)),
        ("quota", some(quota, quota != 0)),
        ("period", some(period, period != 0)),
        ("realtimeRuntime", some(r.cpu_realtime_runtime, r.cpu_realtime_runtime != 0)),
        ("realtimePeriod", some(r.cpu_realtime_period, r.cpu_realtime_period != 0)),
        ("cpus", text(&r.cpuset_cpus)),
        ("mems", text(&r.cpuset_mems)),
    ]);
    let mut limits = Map::new();
    for (name, members) in [("memory", memory), ("cpu", cpu)] {
        if !members.is_empty() {
            limits.insert(name.to_owned(), members.into());
        }
    }
    if let Some(pids) = r.pids_limit {
        limits.insert("pids".to_owned(), json!({"limit": if pids <= 0 { -1 } else { pids }}));
    }
    limits
}

fn rules(of: &Input<'_>) -> Result<Vec<Rule>> {
    if of.host.privileged {
        return Ok(vec![Rule::every(true)]);
    }
    let mut rules = vec![Rule::every(false)];
    // zero, null, urandom, random, tty, console.
    for (major, minor) in [(1, 5), (1, 3), (1, 9), (1, 8), (5, 0), (5, 1)] {
        rules.push(Rule::character(true, major, minor));
    }
    // fuse
    rules.push(Rule::character(false, 10, 229));
    for (device, access) in &of.looked_up.devices {
        rules.push(Rule {
            allow: true,
            r#type: Some(device.r#type),
            major: Some(device.major),
            minor: Some(device.minor),
            access: access.clone(),
        });
    }
    for text in of.host.resources.device_cgroup_rules.iter() {
        rules.push(device::parse_rule(text)?);
    }
    Ok(rules)
}
