//! `start`: the network, config.json, and the monitor that makes the container; and what takes all of it down again.

#![forbid(unsafe_code)]

use super::show::is_under_way;
use super::{Engine, tree};
use crate::container::apparmor;
use crate::container::mount::{self, Point};
use crate::container::record::{Container, Ended};
use crate::container::spec::{self, Input, LookedUp};
use crate::container::status::format_time;
use crate::container::types::{HostConfig, LogConfig, RestartPolicy, of_container};
use crate::container::user::Accounts;
use crate::digest::Digest;
use crate::error::{Context as _, Error, Kind, Result};
use crate::home::{self, Lock};
use crate::monitor::{
    self, Client, Driver, Exit, Found, Log, Phase, Policy, Restart, Root, Setup, Until, Waiter,
};
use crate::network;
use crate::volume::Volume;
use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, unmount};
use std::ffi::CString;
use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use time::OffsetDateTime;

/// A container that is made and whose program is not executed yet: whoever wants its first output attaches now. It
/// goes again when this is dropped.
#[derive(Debug)]
pub struct Prepared {
    client: Client,
    /// What the user should know.
    pub warnings: Vec<String>,
    _lock: Lock,
}

impl Prepared {
    /// Its monitor.
    pub fn monitor(&self) -> &Client {
        &self.client
    }

    /// Executes its program.
    ///
    /// # Errors
    /// rrun's words.
    pub fn start(self) -> Result<Client> {
        self.client.start()?;
        Ok(self.client)
    }
}

impl Engine {
    /// Starts a container.
    ///
    /// # Errors
    /// It runs already ([`Kind::NotModified`]); those of [`Engine::prepare`] and [`Prepared::start`].
    pub fn start(&self, id: &str) -> Result<Vec<String>> {
        let mut prepared = self.prepare(id)?;
        let warnings = std::mem::take(&mut prepared.warnings);
        prepared.start().map(|_| warnings)
    }

    /// Makes everything of a container that runs, and lets its program wait.
    ///
    /// # Errors
    /// It runs already ([`Kind::NotModified`]); an address, a port, a device or a source is not to be had; rrun's words.
    /// Then nothing of it is left.
    pub fn prepare(&self, id: &str) -> Result<Prepared> {
        self.prepare_locked(id, self.containers.lock(id)?)
    }

    /// Likewise, of one that the caller has locked.
    pub(super) fn prepare_locked(&self, id: &str, lock: Lock) -> Result<Prepared> {
        let mut container = self.containers.load(id)?;
        self.wait_for_the_last_run(&container)?;
        // What a killed command or monitor left of the run before.
        self.take_down(id)?;
        let before = (container.record.has_been_started_before, container.record.has_been_manually_stopped);
        match self.make(&mut container) {
            Ok((client, warnings)) => Ok(Prepared { client, warnings, _lock: lock }),
            Err(e) => {
                let _ = self.take_down(id);
                let _ = self.unmount_volumes(&container);
                let record = &mut container.record;
                (record.has_been_started_before, record.has_been_manually_stopped) = before;
                record.error = e.to_string();
                let _ = self.containers.save_record(&container);
                let _ = self.record_failure(&container, &e);
                Err(e)
            }
        }
    }

    /// Writes down how a start has failed: what the run before left is none of it.
    fn record_failure(&self, container: &Container, e: &Error) -> Result<()> {
        let now = || format_time(OffsetDateTime::now_utc());
        let exit = Exit {
            code: not_executed(e).unwrap_or(128).into(),
            // One that has never run has not ended.
            finished_at: container.record.has_been_started_before.then(now).transpose()?.unwrap_or_default(),
            error: e.to_string(),
            ..Exit::default()
        };
        let text = serde_json::to_vec(&exit).map_err(|e| Error::system(e.to_string()))?;
        home::replace(&self.containers.dir(&container.record.id).join("exit.json"), 0o600, &text)
    }

    /// Waits for a monitor that is about to leave.
    fn wait_for_the_last_run(&self, container: &Container) -> Result<()> {
        let runs =
            || Error::new(Kind::NotModified, format!("Container {} runs already", container.record.id));
        match self.found(&container.record.id)? {
            Found::Monitored(client) => match client.status() {
                Ok(status) if status.phase != Phase::Ending => {
                    if self.is_paused(&container.record.id)? {
                        return Err(Error::conflict("cannot start a paused container, try unpause instead"));
                    }
                    Err(runs())
                }
                // Told when it is over, or it is over already. One that does not answer may have a container that runs.
                Ok(_) => match client.wait(Until::Ended).and_then(Waiter::wait) {
                    Err(e) if e.kind() != Kind::NotFound => Err(e),
                    _ => Ok(()),
                },
                Err(e) if e.kind() == Kind::NotFound => Ok(()),
                Err(e) => Err(e),
            },
            Found::Orphaned { status, .. } if is_under_way(&status) => Err(runs()),
            Found::Orphaned { .. } => self.delete_by_runtime(&container.record.id),
            Found::Gone => Ok(()),
        }
    }

    fn make(&self, container: &mut Container) -> Result<(Client, Vec<String>)> {
        let id = container.record.id.clone();
        let (run, dir) = (self.run_dir(&id), self.containers.dir(&id));
        directory(&run)?;
        directory(&run.join("merged"))?;
        make_sources(container.record.mount_points.values())?;
        // Until there is a monitor that says that they are used.
        let _mounted = self.mount_volumes(container)?;
        let on = self.host();
        mount::check_propagation(
            container.record.mount_points.values(),
            &fs::read_to_string("/proc/self/mountinfo").context(|| "read /proc/self/mountinfo")?,
        )?;

        let connected = self.connect_all(container)?;
        let image = self.store.images().of_container(&Digest::parse(&container.record.image)?)?;
        let lower = self.store.layers().lower(&image)?;
        let upper = dir.join("rw");
        let user = {
            let all = std::iter::once(upper.as_path()).chain(lower.iter().map(PathBuf::as_path));
            Accounts::read(tree::merged(all)?)?
                .resolve(&container.record.config.user, &container.host.group_add)?
        };
        let namespaces = self.namespaces(container)?;
        let merged = run.join("merged");
        let path = |text: &str| (!text.is_empty()).then(|| PathBuf::from(text));
        let mut looked_up = LookedUp::of(&container.host, on)?;
        let mut warnings = connected.warnings;
        if on.apparmor && !on.user_namespace && looked_up.apparmor.is_none() && !container.host.privileged {
            match apparmor::load() {
                Ok(()) => looked_up.apparmor = Some(apparmor::NAME),
                Err(e) => warnings.push(format!("the container has no profile of AppArmor: {e}")),
            }
        }
        let record = &container.record;
        let (hosts, hostname, resolv_conf) =
            (path(&record.hosts_path), path(&record.hostname_path), path(&record.resolv_conf_path));
        let config = spec::make(&Input {
            config: &record.config,
            host: &container.host,
            on,
            rootfs: &merged,
            user: &user,
            points: &record.mount_points,
            hosts: hosts.as_deref(),
            hostname: hostname.as_deref(),
            resolv_conf: resolv_conf.as_deref(),
            network: namespaces.network.as_deref(),
            ipc: namespaces.ipc.as_deref(),
            pid: namespaces.pid.as_deref(),
            shm: namespaces.shm.as_deref(),
            cgroups_path: &spec::cgroups_path(&container.host.resources.cgroup_parent, &id, on),
            links: &connected.links,
            init: Some(self.programs.monitor.as_path()),
            looked_up: &looked_up,
        })?;
        let text = serde_json::to_vec(&config).map_err(|e| Error::system(e.to_string()))?;
        write(&run.join("config.json"), &text)?;
        // What a start says of it comes with what its networks say: each time it is written is a wait for the disk.
        let record = &mut container.record;
        (record.has_been_started_before, record.has_been_manually_stopped) = (true, false);
        record.error.clear();
        self.containers.save_record(container)?;

        let ports: Vec<_> = connected.held.into_iter().map(port).collect::<Result<_>>()?;
        let (ports, sockets) = ports.into_iter().unzip();
        // What `--rm` has is not worth a flush of its file system at the end, nor one each time that the container asks.
        let volatile = container.host.auto_remove && on.kernel >= (5, 10);
        let options = volatile.then(|| "volatile".to_owned()).into_iter().collect();
        let dns = self.dns(container)?;
        let dns_sockets = dns.as_ref().map(|_| network::dns::listen(&self.netns(&id))).transpose()?;
        let client = monitor::spawn(&Setup {
            monitor: self.programs.monitor.clone(),
            file: dir.join("monitor.json"),
            settings: monitor::Settings {
                bundle: run.clone(),
                runtime: self.runtime(),
                run,
                root: Some(Root { lower, upper, work: dir.join("work"), merged, options }),
                tty: container.record.config.tty,
                open_stdin: container.record.config.open_stdin,
                stdin_once: container.record.config.stdin_once,
                log: log(&container.host.log_config, &container.record.log_path),
                restart: restart(&container.host.restart_policy),
                ports,
                dns,
                ended: [&self.programs.own[..], &["internal-ended".to_owned(), id.clone()]].concat(),
                id,
            },
            ports: sockets,
            dns: dns_sockets,
        })?;
        Ok((client, warnings))
    }

    fn namespaces(&self, container: &Container) -> Result<Namespaces> {
        let (id, host) = (&container.record.id, &container.host);
        // A file of its own: the other's pid is another process's some day, and a restart by policy reads the same config.json.
        let of = |other: &str, kind: &str| -> Result<PathBuf> {
            let (pid, file) = (self.pid_of(other)?, self.run_dir(id).join(format!("{kind}.ns")));
            write(&file, b"")?;
            let namespace = format!("/proc/{pid}/ns/{kind}");
            mount_bind(&namespace, &file).context(|| format!("bind {namespace} to {}", file.display()))?;
            if self.pid_of(other)? != pid {
                return Err(Error::conflict(format!("container {other} has just ended")));
            }
            Ok(file)
        };
        let network = match (host.network_mode.as_str(), of_container(&host.network_mode)) {
            ("host", _) => None,
            // Its file outlives the other's restart, its process does not.
            (_, Some(other)) => {
                self.pid_of(other)?;
                Some(self.netns(other))
                    .filter(|file| file.exists())
                    .map_or_else(|| of(other, "net"), Ok)
                    .map(Some)?
            }
            _ => Some(self.netns(id)),
        };
        let shm = match (host.ipc_mode.as_str(), of_container(&host.ipc_mode)) {
            ("host", _) => Some(PathBuf::from("/dev/shm")),
            (_, Some(other)) => {
                let shm = self.run_dir(other).join("shm");
                if !shm.exists() {
                    return Err(Error::conflict(format!(
                        "cannot join IPC of container {other}: non-shareable IPC (hint: use IpcMode:shareable for the donor container)"
                    )));
                }
                Some(shm)
            }
            ("shareable", _) => Some(make_shm(&self.run_dir(id).join("shm"), host)?),
            _ => None,
        };
        Ok(Namespaces {
            network,
            shm,
            ipc: of_container(&host.ipc_mode).map(|other| of(other, "ipc")).transpose()?,
            pid: of_container(&host.pid_mode).map(|other| of(other, "pid")).transpose()?,
        })
    }

    /// The process of another container that runs.
    fn pid_of(&self, other: &str) -> Result<i64> {
        let container = self.containers.load(other)?;
        let state = self.state(&container)?;
        if state.pid == 0 {
            return Err(Error::conflict(format!("cannot join network of a non running container: {other}")));
        }
        Ok(state.pid)
    }

    /// Volumes whose files are somewhere else are mounted as long as a container that has them runs, and as long as what is
    /// returned is held.
    pub(super) fn mount_volumes(&self, container: &Container) -> Result<Vec<Lock>> {
        let points = container.record.mount_points.values().filter(|point| point.r#type == "volume");
        let mount = |point: &Point| self.volumes.mount(&self.volumes.inspect(&point.name)?);
        let mounted: Result<Vec<Lock>> = points.filter_map(|point| mount(point).transpose()).collect();
        if mounted.is_err() {
            let _ = self.unmount_volumes(container);
        }
        mounted
    }

    pub(super) fn unmount_volumes(&self, container: &Container) -> Result<()> {
        for point in container.record.mount_points.values().filter(|point| point.r#type == "volume") {
            let Ok(volume) = self.volumes.inspect(&point.name) else { continue };
            self.unmount_volume(&volume, Some(&container.record.id))?;
        }
        Ok(())
    }

    /// Unmounts a volume that no container has, but for `own`.
    pub(super) fn unmount_volume(&self, volume: &Volume, own: Option<&str>) -> Result<()> {
        self.volumes.unmount(volume, || {
            for user in self.containers.users_of_volume(&volume.name)? {
                let used = Some(&*user) != own
                    && match self.found(&user)? {
                        // One that is about to leave has no process any more.
                        Found::Monitored(client) => match client.status() {
                            Ok(status) => status.phase != Phase::Ending,
                            Err(e) => e.kind() != Kind::NotFound,
                        },
                        Found::Orphaned { status, .. } => status != "stopped",
                        Found::Gone => false,
                    };
                if used {
                    return Ok(true);
                }
            }
            Ok(false)
        })
    }

    /// Takes down what a container that does not run has on the host: its network, but for the addresses that are kept
    /// for it, and its /dev/shm. May be done twice.
    ///
    /// # Errors
    /// The kernel's; what can be taken down is, all the same.
    pub fn take_down(&self, id: &str) -> Result<()> {
        let detached = self.networks.abandon(id);
        let run = self.run_dir(id);
        if !run.exists() {
            return detached;
        }
        let netns = network::remove_netns(&self.netns(id));
        let shm = remove_shm(&run.join("shm"));
        let joined: Vec<_> = JOINED.into_iter().map(|name| network::remove_netns(&run.join(name))).collect();
        joined.into_iter().fold(detached.and(netns).and(shm), Result::and)
    }

    /// Starts what the restart policies want after a boot: `always`, and `unless-stopped` unless somebody stopped it.
    /// Gives those that run without a monitor another one, and removes those that `--rm` has and whose monitor did not
    /// come to it. Returns what became of each.
    ///
    /// # Errors
    /// Those of readdir(3).
    pub fn restore(&self) -> Result<Vec<(String, Result<()>)>> {
        // Without its rules no port leads anywhere, and nothing keeps networks apart.
        let mended = self.networks.mend_firewall(false);
        let (mut containers, broken) = self.containers.list_all()?;
        // Those that others link to, or whose network they share, were made before them.
        containers.reverse();
        let mut done = Vec::new();
        for container in containers {
            let name = container.record.name.trim_start_matches('/').to_owned();
            match self.restore_one(&container) {
                Ok(false) => {}
                Ok(true) => done.push((name, Ok(()))),
                // Somebody has started or removed it meanwhile.
                Err(e) if matches!(e.kind(), Kind::NotModified | Kind::NotFound) => {}
                Err(e) => done.push((name, Err(e))),
            }
        }
        done.extend(mended.err().map(|e| ("firewall".to_owned(), Err(e))));
        for one in broken {
            // Only a boot loses what was written.
            let booted = !self.run_dir(&one.id).exists();
            let removed = if one.lost && booted { self.remove(&one.id, true, true) } else { Err(one.error) };
            done.push((one.id, removed));
        }
        Ok(done)
    }

    /// Whether anything was done.
    fn restore_one(&self, container: &Container) -> Result<bool> {
        let (record, host) = (&container.record, &container.host);
        let last = self.last_run(&record.id);
        match self.found(&record.id)? {
            Found::Monitored(_) => return Ok(false),
            Found::Orphaned { status, .. } => match self.adopt(&record.id) {
                Err(e) if is_under_way(&status) => return Err(e),
                // There is nothing to go on with: it was being made.
                Err(_) => self.forget_unstarted(&record.id)?,
                Ok(()) => return Ok(true),
            },
            Found::Gone => {}
        }
        let used_up = |last: &Ended| {
            let maximum = host.restart_policy.maximum_retry_count;
            !last.restarting && maximum > 0 && last.restarts >= maximum
        };
        // A start makes the run directory and a boot takes it: who has one was not ended by a boot.
        let booted = !self.run_dir(&record.id).exists();
        let wanted = booted
            && match host.restart_policy.name.as_str() {
                "always" => true,
                "unless-stopped" => !record.has_been_manually_stopped,
                // It ran when the machine went down, and that was no success.
                "on-failure" => {
                    !record.has_been_manually_stopped
                        && last.is_none_or(|last| last.code != 0 && !used_up(&last))
                }
                _ => false,
            };
        if !record.has_been_started_before {
            return Ok(false);
        }
        if wanted {
            return self.start(&record.id).map(|_| true);
        }
        if host.auto_remove {
            return self.remove(&record.id, false, true).map(|()| true);
        }
        Ok(false)
    }

    /// Takes down what was made to be started, and whose monitor was killed.
    fn forget_unstarted(&self, id: &str) -> Result<()> {
        let _lock = self.containers.lock(id)?;
        match self.found(id)? {
            Found::Orphaned { status, .. } if !is_under_way(&status) => {
                self.delete_by_runtime(id)?;
                self.take_down(id)
            }
            _ => Ok(()),
        }
    }

    /// Gives a container whose monitor was killed another one. What it wrote to its outputs meanwhile is lost, and what it
    /// writes from now on has nobody who reads it.
    ///
    /// # Errors
    /// It has one; those of starting one.
    pub fn adopt(&self, id: &str) -> Result<()> {
        let _lock = self.containers.lock(id)?;
        let file = self.containers.dir(id).join("monitor.json");
        let text = fs::read(&file).context(|| format!("read {}", file.display()))?;
        let mut settings: monitor::Settings = serde_json::from_slice(&text)
            .map_err(|e| Error::system(e.to_string()).context(file.display()))?;
        // The rules of the firewall stand; what they do not lead went to sockets that are gone.
        // That somebody looks after the container is worth more than they are.
        let held = self.networks.hold_again(id).unwrap_or_default();
        let (ports, sockets) = held.into_iter().filter_map(|held| port(held).ok()).unzip();
        settings.ports = ports;
        let dns = settings.dns.as_ref().map(|_| network::dns::listen(&self.netns(id))).transpose()?;
        let monitor = self.programs.monitor.clone();
        monitor::adopt(&Setup { monitor, file, settings, ports: sockets, dns }).map(|_| ())
    }

    /// What a monitor has done when its container has ended for good: takes it down, and with `--rm` removes it.
    ///
    /// # Errors
    /// Those of [`Engine::take_down`] and of removing.
    pub fn ended(&self, id: &str) -> Result<()> {
        let down = self.take_down(id);
        let container = match self.containers.load(id) {
            Err(e) if e.kind() == Kind::NotFound => return down,
            container => container?,
        };
        // A mark that a killed restart left has nobody who has the container locked.
        let restarted =
            self.run_dir(id).join(super::KEPT).exists() && self.containers.try_lock(id)?.is_none();
        if container.host.auto_remove && !restarted {
            self.discard(&container, true)?;
        } else {
            self.unmount_volumes(&container)?;
        }
        down
    }
}

/// Docker's code for a program that cannot be executed, by rrun's words; nothing for what else keeps a container from
/// starting.
pub fn not_executed(e: &Error) -> Option<u8> {
    let text = e.to_string();
    let has = |words: &[&str]| words.iter().any(|word| text.contains(word));
    match () {
        () if has(&["executable file not found", "no such file or directory"]) => Some(127),
        () if has(&["permission denied", "is a directory"]) => Some(126),
        () => None,
    }
}

/// The files of namespaces of others.
const JOINED: [&str; 3] = ["ipc.ns", "net.ns", "pid.ns"];

/// Namespaces of others, and the files that stand for one's own.
#[derive(Debug)]
struct Namespaces {
    network: Option<PathBuf>,
    ipc: Option<PathBuf>,
    pid: Option<PathBuf>,
    shm: Option<PathBuf>,
}

fn directory(path: &Path) -> Result<()> {
    DirBuilder::new().recursive(true).mode(0o711).create(path).context(|| format!("mkdir {}", path.display()))
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).context(|| format!("write {}", path.display()))
}

/// The sources of bind mounts that are made if they are missing, as `-v` has it.
fn make_sources<'a>(points: impl Iterator<Item = &'a Point>) -> Result<()> {
    for point in points.filter(|point| point.r#type == "bind") {
        let source = Path::new(&point.source);
        match fs::metadata(source) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && !point.skip_mountpoint_creation => {
                DirBuilder::new()
                    .recursive(true)
                    .mode(0o755)
                    .create(source)
                    .context(|| format!("error while creating mount source path '{}'", point.source))?;
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::invalid(format!(
                    "invalid mount config for type \"bind\": bind source path does not exist: {}",
                    point.source
                )));
            }
            // What cannot be looked at may be mounted all the same; rrun says why if not.
            _ => {}
        }
    }
    Ok(())
}

/// A tmpfs on the host, which other containers' /dev/shm can be, too.
fn make_shm(path: &Path, host: &HostConfig) -> Result<PathBuf> {
    directory(path)?;
    let doing = || format!("mount a tmpfs at {}", path.display());
    let options = CString::new(format!("mode=1777,size={}", host.shm_size))
        .map_err(|_| Error::invalid("a size with a NUL"))?;
    let flags = MountFlags::NOEXEC | MountFlags::NOSUID | MountFlags::NODEV;
    mount("shm", path, "tmpfs", flags, options.as_c_str()).context(doing)?;
    Ok(path.to_owned())
}

fn remove_shm(path: &Path) -> Result<()> {
    loop {
        match unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) => {}
            Err(Errno::INVAL | Errno::NOENT) => break,
            Err(e) => return Err(Error::from(e).context(format!("umount {}", path.display()))),
        }
    }
    match rustix::fs::unlinkat(CWD, path, rustix::fs::AtFlags::REMOVEDIR) {
        Err(Errno::NOENT) | Ok(()) => Ok(()),
        Err(e) => Err(Error::from(e).context(format!("rmdir {}", path.display()))),
    }
}

/// A socket that keeps a port, and what it is for.
pub(super) fn port(held: network::Held) -> Result<(monitor::Port, std::os::fd::OwnedFd)> {
    if held.proxy && held.port.protocol == network::Protocol::Tcp {
        // Of its connections those in TIME_WAIT would keep the port from the next container for a minute. Only one that
        // will listen may have it: otherwise it keeps nobody away.
        rustix::net::sockopt::set_socket_reuseaddr(&held.fd, true).context(|| "setsockopt SO_REUSEADDR")?;
    }
    let protocol = held.port.protocol.to_string();
    Ok((monitor::Port { protocol, to: held.proxy.then_some(held.target), netns: held.netns }, held.fd))
}

/// The log of a container; sizes that are not valid were refused when it was made.
fn log(config: &LogConfig, path: &str) -> Log {
    let option = |name: &str| config.config.get(name);
    Log {
        driver: if config.r#type == "none" { Driver::None } else { Driver::JsonFile },
        path: path.into(),
        max_size: option("max-size")
            .and_then(|text| mount::ram_in_bytes(text))
            .and_then(|n| u64::try_from(n).ok()),
        max_file: option("max-file").and_then(|text| text.parse().ok()),
    }
}

/// The policy; one that is not valid was refused when the container was made.
pub(super) fn restart(policy: &RestartPolicy) -> Restart {
    let name = match policy.name.as_str() {
        "on-failure" => Policy::OnFailure,
        "always" => Policy::Always,
        "unless-stopped" => Policy::UnlessStopped,
        _ => Policy::No,
    };
    Restart { name, maximum: u32::try_from(policy.maximum_retry_count).unwrap_or(0) }
}
