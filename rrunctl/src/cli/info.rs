//! `info` and `version`.

#![forbid(unsafe_code)]

use super::inspect::pretty;
use super::template::Template;
use super::{At, human};
use crate::container::record::Containers;
use crate::engine::Filters;
use crate::error::Result;
use crate::home::{self, Home};
use crate::rootless;
use crate::settings::{Insecure, Settings};
use clap::Args;
use rustix::fs::statfs;
use rustix::system::{sysinfo, uname};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs, process};

const VERSION: &str = env!("CARGO_PKG_VERSION");
const HUB: &str = "https://index.docker.io/v1/";

/// Show what this engine is, has and can
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rrunctl info
  rrunctl info --format '{{.ServerVersion}}'
  rrunctl info --format json")]
pub(super) struct Info {
    /// Print as `json` or TEMPLATE
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
}

impl Info {
    pub(super) fn run(self, at: &At) -> Result<()> {
        let template = parsed(self.format.as_deref())?;
        let info = collect(at, &at.settings()?, at.store()?.images().list()?.len(), &counts(at)?)?;
        match (template, self.format.as_deref()) {
            (Some(template), _) => at.say(template.render(&info)?),
            (None, None | Some("")) => {
                at.print(written(&info))?;
                for warning in info["Warnings"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                    at.warn(warning.trim_start_matches("WARNING: "));
                }
                Ok(())
            }
            _ => at.say(&info),
        }
    }
}

/// A template, unless the format is none or `json`.
fn parsed(format: Option<&str>) -> Result<Option<Template>> {
    match format {
        None | Some("json" | "") => Ok(None),
        Some(format) => Template::parse(format).map(Some),
    }
}

/// How many containers run, are frozen, and neither.
fn counts(at: &At) -> Result<[usize; 3]> {
    // Without containers neither rrun nor a monitor is needed.
    if Containers::open(at.home()?).list_all()?.0.is_empty() {
        return Ok([0; 3]);
    }
    let (all, _) = at.engine()?.list(&Filters { all: true, ..Filters::default() })?;
    let count =
        |status: &dyn Fn(&str) -> bool| all.iter().filter(|(_, state, _)| status(&state.status)).count();
    let (running, paused) = (count(&|status| status == "running"), count(&|status| status == "paused"));
    Ok([running, paused, all.len() - running - paused])
}

/// Docker's `/info`, with its keys.
fn collect(at: &At, settings: &Settings, images: usize, containers: &[usize; 3]) -> Result<Value> {
    let home = at.home()?;
    let [running, paused, stopped] = containers;
    let uname = uname();
    let machine = uname.machine().to_string_lossy().into_owned();
    let release = uname.release().to_string_lossy().into_owned();
    let name = uname.nodename().to_string_lossy().into_owned();
    let memory = u64::from(sysinfo().mem_unit) * word(sysinfo().totalram);
    let v2 = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let swap = v2 || Path::new("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes").exists();
    let forwarding =
        |what: &str| fs::read_to_string(format!("/proc/sys/net/{what}")).is_ok_and(|text| text.trim() == "1");
    let forwards = forwarding("ipv4/ip_forward");
    let mut warnings = Vec::new();
    if !swap {
        warnings.push("WARNING: No swap limit support");
    }
    let (mut cidrs, mut hosts) = (Vec::new(), Vec::new());
    for insecure in &settings.insecure_registries {
        match insecure {
            Insecure::Net(net) => cidrs.push(net.to_string()),
            Insecure::Host(host) => hosts.push(host.clone()),
        }
    }
    let mut indexes = serde_json::Map::new();
    indexes.insert(
        "docker.io".into(),
        json!({"Mirrors": settings.registry_mirrors, "Name": "docker.io", "Official": true, "Secure": true}),
    );
    for host in hosts {
        let index = json!({"Mirrors": [], "Name": host, "Official": false, "Secure": false});
        indexes.insert(host, index);
    }
    let runtime = runtime(at);
    let mut security = vec!["name=seccomp,profile=builtin"];
    if fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with('Y')) {
        security.insert(0, "name=apparmor");
    }
    if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        security.push("name=cgroupns");
    }
    if rootless::is_inside() {
        security.push("name=rootless");
    }
    let counts = json!({
        "ID": id(home)?,
        "Containers": running + paused + stopped,
        "ContainersRunning": running,
        "ContainersPaused": paused,
        "ContainersStopped": stopped,
        "Images": images,
        "Driver": "overlay2",
        "DriverStatus": [
            ["Backing Filesystem", file_system(home.root())],
            ["Supports d_type", "true"],
            ["Using metacopy", "false"],
            ["Native Overlay Diff", "true"],
            ["userxattr", rootless::is_inside().to_string()],
        ],
        "Plugins": {
            "Volume": ["local"],
            "Network": ["bridge", "host", "null"],
            "Authorization": null,
            "Log": ["json-file", "none"],
        },
    });
    let kernel = json!({
        "MemoryLimit": true,
        "SwapLimit": swap,
        "CpuCfsPeriod": true,
        "CpuCfsQuota": true,
        "CPUShares": true,
        "CPUSet": true,
        "PidsLimit": true,
        "IPv4Forwarding": forwards,
        "Debug": false,
        "OomKillDisable": !v2,
        "LoggingDriver": settings.log_driver,
        "CgroupDriver": "cgroupfs",
        "CgroupVersion": if v2 { "2" } else { "1" },
        "KernelVersion": release,
        "OperatingSystem": os_release("PRETTY_NAME"),
        "OSVersion": os_release("VERSION_ID"),
        "OSType": "linux",
        "Architecture": machine,
    });
    let engine = json!({
        "IndexServerAddress": HUB,
        "RegistryConfig": {
            "InsecureRegistryCIDRs": cidrs,
            "IndexConfigs": indexes,
            "Mirrors": settings.registry_mirrors,
        },
        "NCPU": std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        "MemTotal": memory,
        "DockerRootDir": home.root().display().to_string(),
        "HttpProxy": proxy("HTTP_PROXY"),
        "HttpsProxy": proxy("HTTPS_PROXY"),
        "NoProxy": proxy("NO_PROXY"),
        "Name": name,
        "Labels": [],
        "ExperimentalBuild": false,
        "ServerVersion": VERSION,
        "Runtimes": {"rrun": {"path": runtime.path}},
        "DefaultRuntime": "rrun",
        "Swarm": {"NodeID": "", "NodeAddr": "", "LocalNodeState": "inactive", "ControlAvailable": false, "Error": "",
            "RemoteManagers": null},
        "LiveRestoreEnabled": false,
        "InitBinary": "",
        "RuncCommit": {"ID": runtime.version},
        "SecurityOptions": security,
        "Warnings": warnings,
    });
    // In parts: a macro that long is too deep for the compiler.
    let parts = [counts, kernel, engine].into_iter().filter_map(|part| match part {
        Value::Object(part) => Some(part),
        _ => None,
    });
    Ok(Value::Object(parts.flatten().collect()))
}

#[cfg(target_pointer_width = "64")]
fn word(n: std::ffi::c_ulong) -> u64 {
    n
}

#[cfg(target_pointer_width = "32")]
fn word(n: std::ffi::c_ulong) -> u64 {
    u64::from(n)
}

/// What `rrunctl info` prints of it: docker's lines, so far as they say something here.
fn written(info: &Value) -> String {
    let mut out = format!("Client:\n Version:    {VERSION}\n Debug Mode: false\n\nServer:\n");
    for (name, key) in [
        ("Containers", "Containers"),
        (" Running", "ContainersRunning"),
        (" Paused", "ContainersPaused"),
        (" Stopped", "ContainersStopped"),
        ("Images", "Images"),
        ("Server Version", "ServerVersion"),
        ("Storage Driver", "Driver"),
    ] {
        line(&mut out, name, &info[key]);
    }
    for pair in items(&info["DriverStatus"]) {
        line(&mut out, &format!(" {}", shown(&pair[0])), &pair[1]);
    }
    for (name, key) in [
        ("Logging Driver", "LoggingDriver"),
        ("Cgroup Driver", "CgroupDriver"),
        ("Cgroup Version", "CgroupVersion"),
    ] {
        line(&mut out, name, &info[key]);
    }
    out.push_str(" Plugins:\n");
    for kind in ["Volume", "Network", "Log"] {
        line(&mut out, &format!(" {kind}"), &info["Plugins"][kind]);
    }
    line(&mut out, "Swarm", &info["Swarm"]["LocalNodeState"]);
    line(&mut out, "Runtimes", &info["DefaultRuntime"]);
    line(&mut out, "Default Runtime", &info["DefaultRuntime"]);
    line(&mut out, "rrun version", &info["RuncCommit"]["ID"]);
    out.push_str(" Security Options:\n");
    for option in items(&info["SecurityOptions"]) {
        let option = shown(option);
        let mut parts = option.split(',').filter_map(|part| part.split_once('='));
        let _ = writeln!(out, "  {}", parts.next().map_or(option.as_str(), |(_, name)| name));
        for (_, profile) in parts {
            let _ = writeln!(out, "   Profile: {profile}");
        }
    }
    for (name, key) in [
        ("Kernel Version", "KernelVersion"),
        ("Operating System", "OperatingSystem"),
        ("OSType", "OSType"),
        ("Architecture", "Architecture"),
        ("CPUs", "NCPU"),
    ] {
        line(&mut out, name, &info[key]);
    }
    line(&mut out, "Total Memory", &human::memory(info["MemTotal"].as_u64().unwrap_or(0)).into());
    for (name, key) in
        [("Name", "Name"), ("ID", "ID"), ("Docker Root Dir", "DockerRootDir"), ("Debug Mode", "Debug")]
    {
        line(&mut out, name, &info[key]);
    }
    for (name, key) in [("HTTP Proxy", "HttpProxy"), ("HTTPS Proxy", "HttpsProxy"), ("No Proxy", "NoProxy")] {
        if info[key] != "" {
            line(&mut out, name, &info[key]);
        }
    }
    line(&mut out, "Registry", &info["IndexServerAddress"]);
    line(&mut out, "Experimental", &info["ExperimentalBuild"]);
    out.push_str(" Insecure Registries:\n");
    let registries = &info["RegistryConfig"];
    for (host, index) in registries["IndexConfigs"].as_object().into_iter().flatten() {
        if index["Secure"] == false {
            let _ = writeln!(out, "  {host}");
        }
    }
    for net in items(&registries["InsecureRegistryCIDRs"]) {
        let _ = writeln!(out, "  {}", shown(net));
    }
    if !items(&registries["Mirrors"]).is_empty() {
        out.push_str(" Registry Mirrors:\n");
    }
    for mirror in items(&registries["Mirrors"]) {
        let _ = writeln!(out, "  {}", shown(mirror));
    }
    line(&mut out, "Live Restore Enabled", &info["LiveRestoreEnabled"]);
    out
}

fn line(out: &mut String, name: &str, value: &Value) {
    let _ = writeln!(out, " {name}: {}", shown(value));
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(shown).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    }
}

fn id(home: &Home) -> Result<String> {
    let path = home.kept("engine-id");
    if let Some(id) = home::read(&path)? {
        return Ok(String::from_utf8_lossy(&id).trim().to_owned());
    }
    let digits = home::unique()? + &home::unique()?;
    let id = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-");
    home::replace(&path, 0o600, id.as_bytes())?;
    Ok(id)
}

/// statfs(2), `f_type`, in docker's words.
fn file_system(path: &Path) -> &'static str {
    match statfs(path).map(|stat| stat.f_type) {
        Ok(0xef53) => "extfs",
        Ok(0x5846_5342) => "xfs",
        Ok(0x9123_683e) => "btrfs",
        Ok(0x0102_1994) => "tmpfs",
        Ok(0x794c_7630) => "overlayfs",
        Ok(0x2fc1_2fc1) => "zfs",
        Ok(0xf2f5_2010) => "f2fs",
        _ => "<unknown>",
    }
}

fn os_release(key: &str) -> String {
    let text = fs::read_to_string("/etc/os-release").or_else(|_| fs::read_to_string("/usr/lib/os-release"));
    let text = text.unwrap_or_default();
    let value = text.lines().filter_map(|line| line.split_once('=')).find(|(name, _)| *name == key);
    value.map_or_else(|| "unknown".to_owned(), |(_, value)| value.trim_matches('"').to_owned())
}

/// As programs take it from the environment; a password in it is nobody's business.
fn proxy(name: &str) -> String {
    let value = env::var(name).or_else(|_| env::var(name.to_lowercase())).unwrap_or_default();
    match value.split_once("://").map(|(scheme, rest)| (scheme, rest.rsplit_once('@'))) {
        Some((scheme, Some((_, host)))) => format!("{scheme}://xxxxx:xxxxx@{host}"),
        _ => value,
    }
}

/// The runtime below.
struct Runtime {
    path: String,
    version: String,
    commit: String,
}

/// What runs containers.
fn runtime(at: &At) -> Runtime {
    let given = at.given_runtime().ok().flatten();
    let Some(path) = given.or_else(|| at.beside("rrun").ok()) else {
        return Runtime { path: "rrun".to_owned(), version: "not found".to_owned(), commit: String::new() };
    };
    let said = process::Command::new(&path)
        .arg("--version")
        .output()
        .map(|output| output.stdout)
        .unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    let behind =
        |words: &str| said.lines().find_map(|line| line.strip_prefix(words)).unwrap_or_default().to_owned();
    Runtime { path: path.display().to_string(), version: behind("rrun version "), commit: behind("commit: ") }
}

/// Show versions
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rrunctl version
  rrunctl version --format '{{.Server.Version}}'")]
pub(super) struct Version {
    /// Print as `json` or TEMPLATE
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
}

impl Version {
    pub(super) fn run(self, at: &At) -> Result<()> {
        let template = parsed(self.format.as_deref())?;
        let arch = match env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let kernel = uname().release().to_string_lossy().into_owned();
        let runtime = runtime(at);
        let version = json!({
            "Client": {"Version": VERSION, "Os": "linux", "Arch": arch, "Context": "default"},
            "Server": {
                "Platform": {"Name": "rrunctl"},
                "Version": VERSION, "Os": "linux", "Arch": arch, "KernelVersion": kernel,
                "Components": [
                    {"Name": "Engine", "Version": VERSION, "Details": {"Arch": arch, "Os": "linux", "KernelVersion": kernel}},
                    {"Name": "rrun", "Version": runtime.version, "Details": {"GitCommit": runtime.commit}},
                ],
            },
        });
        match (template, self.format.as_deref()) {
            (Some(template), _) => at.say(template.render(&version)?),
            (None, None) => at.print(format_args!(
                "Client:\n Version:           {VERSION}\n OS/Arch:           linux/{arch}\n\nServer: rrunctl\n \
                 Engine:\n  Version:          {VERSION}\n  OS/Arch:          linux/{arch}\n  Kernel Version:   {kernel}\n \
                 rrun:\n  Version:          {}\n  GitCommit:        {}\n",
                runtime.version, runtime.commit
            )),
            (None, Some("")) => at.say(pretty(&version)?),
            _ => at.say(version),
        }
    }
}
