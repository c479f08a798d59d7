//! `checkpoint` and `restore`: a container's processes into images and back, by CRIU.
//!
//! `restore` is a `create` whose processes come from elsewhere, and keeps its order: intent, cgroups, the
//! processes, the record. It writes one record more before CRIU starts, in the phase `restoring`: unlike the
//! first process of a `create`, half-restored ones do not die with rrun, and `delete` must kill what it finds in
//! the cgroups, which are known to be the container's by then.

#![forbid(unsafe_code)]

use super::create::{
    cgroups, check_terminal, connect, driver, intent, notification, poststop, record, request, undo,
    wants_notification, write_pid_file,
};
use super::run::{adopt_orphans, attend};
use super::start::proxy;
use crate::bundle::Bundle;
use crate::cgroup::Cgroup;
use crate::cgroup::systemd::Connection;
use crate::cli::{self, Checkpoint, Create, Global, ManageCgroups, Restore};
use crate::console::{Receiver, Relay, Terminal};
use crate::container::{self, Container};
use crate::criu::{self, CgroupMode, NetworkLock, Notify, Options, Subject};
use crate::error::{Call as _, Context as _, Error, Kind, Result};
use crate::host::Host;
use crate::notify;
use crate::plan::{Namespaces, Plan};
use crate::spec::Spec;
use crate::state::{Record, Reserved, Root, Slot, Status};
use crate::sys::signal::Signals;
use crate::sys::spawn;
use rustix::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use rustix::process::{Pid, PidfdFlags, Signal};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

/// `checkpoint`; the container is removed afterwards, unless it is to go on.
///
/// # Errors
/// `container not running`; CRIU's, and the container goes on then.
pub fn checkpoint(global: &Global, args: &Checkpoint) -> Result<()> {
    let mut container = Container::open(global.root.as_deref(), &args.criu.id)?;
    // A delete meanwhile would take the processes away under CRIU.
    container.slot.lock()?;
    container.record = container.slot.read()?;
    if container.status()? == Status::Created {
        return Err(Error::kind(Kind::State, "container cannot be checkpointed in created state"));
    }
    // CRIU thaws a frozen container to dump it, and freezes it again.
    container.require(&[Status::Running, Status::Paused])?;

    let state = real_path(&container.slot)?;
    let mut spec = container.slot.read_config()?;
    if state.join("notify").exists() {
        spec.mounts.push(notification(&state));
    }
    let cgroups: Vec<(String, PathBuf)> =
        container.record.cgroups.iter().map(|c| (c.controllers.clone(), c.path.clone().into())).collect();
    let options = dump_options(args)?;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&options.image_path)
        .call(|| format!("mkdir {}", options.image_path.display()))
        .context(|| "--image-path")?;
    let subject = Subject {
        id: &args.criu.id,
        pid: container.record.pid,
        state: &state,
        root: Path::new(&container.record.rootfs),
        spec: &spec,
        namespaces: &namespaces(&spec)?,
        cgroup_paths: &cgroups,
    };
    criu::checkpoint(&subject, &options)?;
    if options.leave_running || options.pre_dump {
        return Ok(());
    }
    let cgroup = container.kill_all()?;
    for failure in container.destroy(cgroup)? {
        crate::log::warning(failure);
    }
    Ok(())
}

/// `restore`; returns the process's status, or 0 if detached.
///
/// # Errors
/// Any; nothing is left then.
pub fn restore(global: &Global, args: &Restore) -> Result<u8> {
    cli::id(&args.criu.id)?;
    let signals = if args.detach { None } else { Some(Signals::block()?) };
    if !args.detach && !args.no_subreaper {
        adopt_orphans()?;
    }
    let restored = make(global, args)?;
    let Restored { container, init, console } = restored;
    let pid = container.record.pid;
    // A restored process goes on at once: from here on it is the container's terminal that has the output.
    let rest = (|| {
        if let Some(path) = &args.pid_file {
            write_pid_file(path, pid)?;
        }
        let proxy = proxy(global, &args.criu.id)?;
        let (stdin, stdout) = (rustix::stdio::stdin(), rustix::stdio::stdout());
        let terminal = console.map(|master| Terminal::new(master, stdin, stdout)).transpose()?;
        let number = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or_else(|| Error::new("pid 0"))?;
        Ok::<_, Error>((proxy, terminal, number))
    })();
    let (notify, terminal, number) = match rest {
        Ok(rest) => rest,
        Err(e) => {
            undo(container);
            return Err(e);
        }
    };
    let Some(signals) = signals else { return Ok(0) };
    let relay = Relay {
        signals: &signals,
        pid: number,
        pidfd: init.as_fd(),
        terminal,
        reap: !args.no_subreaper,
        notify,
    };
    attend(global, container, relay, false)
}

/// A container as restored.
struct Restored {
    container: Container,
    init: OwnedFd,
    console: Option<OwnedFd>,
}

fn make(global: &Global, args: &Restore) -> Result<Restored> {
    let create = Create {
        id: args.criu.id.clone(),
        bundle: args.bundle.clone(),
        no_pivot: args.no_pivot,
        ..Create::default()
    };
    let mut bundle = Bundle::open(args.bundle.as_deref().unwrap_or_else(|| Path::new(".")), None)?;
    // CRIU works in a directory of its own, and compares the paths with those of mounts.
    for mount in &mut bundle.spec.mounts {
        if mount.options.iter().any(|option| option == "bind" || option == "rbind") {
            let source: PathBuf = bundle.path.join(&mount.source).components().collect();
            mount.source = source.to_string_lossy().into_owned();
        }
    }
    check_terminal(&bundle.spec, args.detach, args.console_socket.is_some())?;
    let console_socket = args.console_socket.as_deref().map(Receiver::connect).transpose()?;
    let state = state_directory(global, &args.criu.id)?;
    if wants_notification() {
        bundle.spec.mounts.push(notification(&state));
    }
    let mut host = Host::read(&bundle.spec)?;
    let driver = driver(global);
    let systemd = connect(driver, &mut host)?;
    let plan = Plan::build(&bundle.spec, &request(global, driver, &create, &bundle, &[]), &host)?;
    let options = restore_options(args)?;

    let reserved = Root::open_or_make(&root_directory(global)?)?.reserve(&args.criu.id)?;
    if wants_notification() {
        notify::prepare(&state)?;
    }
    let socket = console_socket.as_ref();
    bring_back(&plan, &host, systemd, reserved, &bundle, &options, socket).inspect_err(|_| {
        // As after a failed create.
        for failure in poststop(&plan) {
            crate::log::warning(failure);
        }
    })
}

/// From the reservation to the record.
fn bring_back(
    plan: &Plan,
    host: &Host,
    systemd: Option<Connection>,
    reserved: Reserved,
    bundle: &Bundle,
    options: &Options,
    socket: Option<&Receiver>,
) -> Result<Restored> {
    let slot = reserved.slot()?;
    slot.write_intent(&intent(plan, host)?)?;
    slot.write_config(&bundle.text)?;
    let mut cgroup = cgroups(plan, systemd)?;
    cgroup.complete(&plan.cgroup)?;
    slot.write(&Record { phase: "restoring".into(), ..intent(plan, host)? })?;
    let resctrl = resctrl(plan)?;
    let state = real_path(slot)?;
    // systemd makes them with the first process.
    let paths = if plan.cgroup.unit.is_some() { Cgroup::planned(&plan.cgroup) } else { cgroup.paths() };
    let subject = Subject {
        id: &plan.id,
        pid: 0,
        state: &state,
        root: &plan.rootfs.path,
        spec: &bundle.spec,
        namespaces: &plan.namespaces,
        cgroup_paths: &paths,
    };
    let mut course = Course {
        plan,
        host,
        slot,
        cgroup: &mut cgroup,
        resctrl: resctrl.as_ref(),
        socket,
        init: None,
        record: None,
        console: None,
    };
    let restored = criu::restore(&subject, options, &mut |event| course.follow(event));
    let (Ok(_), Some(init), Some(record)) = (&restored, &course.init, &course.record) else {
        if let Some(init) = &course.init {
            let _ = rustix::process::pidfd_send_signal(init, Signal::KILL);
            let _ = spawn::wait(init.as_fd());
        }
        let _ = course.cgroup.kill(Signal::KILL);
        let _ = resctrl.map(|(groups, _)| crate::rdt::remove(&groups.remove));
        return Err(restored.err().unwrap_or_else(|| Error::new("criu restored no process")));
    };
    let (init, record, console) = (init.try_clone().call(|| "fcntl")?, record.clone(), course.console.take());
    cgroup.keep();
    let hooks = plan.hooks.clone().into();
    Ok(Restored { container: Container { slot: reserved.keep()?, record, hooks }, init, console })
}

/// The container's resctrl groups and the file system they are in.
type Resctrl = (crate::rdt::Groups, PathBuf);

fn resctrl(plan: &Plan) -> Result<Option<Resctrl>> {
    let Some(wanted) = &plan.intel_rdt else { return Ok(None) };
    let root = crate::rdt::mount_point()?;
    Ok(Some((crate::rdt::prepare(wanted, &root, &plan.id)?, root)))
}

/// What CRIU's notifications find and leave.
struct Course<'a> {
    plan: &'a Plan,
    host: &'a Host,
    slot: &'a Slot,
    cgroup: &'a mut Cgroup,
    resctrl: Option<&'a Resctrl>,
    socket: Option<&'a Receiver>,
    init: Option<OwnedFd>,
    record: Option<Record>,
    console: Option<OwnedFd>,
}

impl Course<'_> {
    fn follow(&mut self, event: Notify) -> Result<()> {
        match event {
            // What CRIU restores is born into the cgroups, and the resctrl groups, in which CRIU itself is.
            Notify::Started(criu) => {
                self.cgroup.start(&self.plan.cgroup, criu)?;
                if let Some((groups, root)) = self.resctrl {
                    crate::rdt::assign(groups, root, i32::try_from(criu).unwrap_or(0))?;
                }
                self.cgroup.add(criu)?;
                self.cgroup.apply(&self.plan.cgroup)
            }
            Notify::SetupNamespaces(init) => crate::launch::parent::creation_hooks(self.plan, init),
            Notify::Terminal(master) => match self.socket {
                Some(socket) => socket.send_terminal(master.as_fd()).context(|| "--console-socket"),
                None => {
                    self.console = Some(master);
                    Ok(())
                }
            },
            Notify::PostRestore(pid) => {
                let number =
                    i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or_else(|| Error::new("pid 0"))?;
                let init = rustix::process::pidfd_open(number, PidfdFlags::empty()).call(|| "pidfd_open")?;
                self.init = Some(init);
                if self.plan.process.no_new_privileges && gains_privileges(pid) {
                    // Warned about at checkpoint: with --detach standard error is the container's.
                    crate::log::info(
                        || "CRIU has not restored no_new_privs: set-user-ID programs give privileges now",
                    );
                }
                let made = self.resctrl.iter().flat_map(|(groups, _)| &groups.remove);
                let rdt = made.map(|path| path.display().to_string()).collect();
                let record = Record { rdt, ..record(self.plan, self.host, self.cgroup, pid)? };
                self.slot.write(&record)?;
                self.record = Some(record);
                Ok(())
            }
        }
    }
}

/// Whether a process is without `no_new_privs`; one whose status cannot be read is gone.
fn gains_privileges(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/status"))
        .is_ok_and(|status| status.lines().any(|line| line == "NoNewPrivs:\t0"))
}

/// The container's directory as CRIU finds it in mountinfo, which has no symlinks.
fn real_path(slot: &Slot) -> Result<PathBuf> {
    let link = format!("/proc/self/fd/{}", slot.dir().as_fd().as_raw_fd());
    let path = rustix::fs::readlink(&link, Vec::new()).call(|| format!("readlink {link}"))?;
    Ok(PathBuf::from(std::ffi::OsString::from_vec(path.into_bytes())))
}

fn root_directory(global: &Global) -> Result<PathBuf> {
    container::root(global.root.as_deref())
}

fn state_directory(global: &Global, id: &str) -> Result<PathBuf> {
    Ok(root_directory(global)?.join(id))
}

fn namespaces(spec: &Spec) -> Result<Namespaces> {
    Namespaces::build(spec.linux.as_deref().map_or(&[][..], |linux| &linux.namespaces))
}

fn options(shared: &cli::Criu) -> Options {
    Options {
        // runc's default.
        image_path: shared.image_path.clone().unwrap_or_else(|| PathBuf::from("checkpoint")),
        work_path: shared.work_path.clone(),
        tcp_established: shared.tcp_established,
        ext_unix_sk: shared.ext_unix_sk,
        shell_job: shared.shell_job,
        file_locks: shared.file_locks,
        auto_dedup: shared.auto_dedup,
        lazy_pages: shared.lazy_pages,
        manage_cgroups_mode: match shared.manage_cgroups_mode {
            None => CgroupMode::Default,
            Some(ManageCgroups::Soft) => CgroupMode::Soft,
            Some(ManageCgroups::Full) => CgroupMode::Full,
            Some(ManageCgroups::Strict) => CgroupMode::Strict,
            Some(ManageCgroups::Ignore) => CgroupMode::Ignore,
        },
        network_lock: shared.network_lock.map(|lock| match lock {
            cli::NetworkLock::Iptables => NetworkLock::Iptables,
            cli::NetworkLock::Nftables => NetworkLock::Nftables,
            cli::NetworkLock::Skip => NetworkLock::Skip,
        }),
        ..Options::default()
    }
}

fn dump_options(args: &Checkpoint) -> Result<Options> {
    let status_fd = args.status_fd.filter(|number| *number >= 0);
    Ok(Options {
        parent_path: args.parent_path.clone(),
        leave_running: args.leave_running,
        tcp_skip_in_flight: args.tcp_skip_in_flight,
        link_remap: args.link_remap,
        pre_dump: args.pre_dump,
        status_fd: status_fd.map(crate::sys::launch::inherited).transpose().context(|| "--status-fd")?,
        page_server: args.page_server.as_ref().map(|server| (server.address.clone(), server.port)),
        ..options(&args.criu)
    })
}

fn restore_options(args: &Restore) -> Result<Options> {
    Ok(Options {
        tcp_close: args.tcp_close,
        lsm_profile: args.lsm_profile.clone(),
        lsm_mount_context: args.lsm_mount_context.clone(),
        ..options(&args.criu)
    })
}
