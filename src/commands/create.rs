//! `create`: from a bundle to a container whose init waits for `start`.

#![forbid(unsafe_code)]

use super::start::hand_listener_over;
use crate::bundle::Bundle;
use crate::cgroup::systemd::Connection;
use crate::cgroup::{self, Cgroup};
use crate::cli::{Create, Global, Manager, Rootless};
use crate::console::Receiver;
use crate::container::{self, Container};
use crate::error::{Call as _, Context as _, Error, Result};
use crate::host::Host;
use crate::launch::parent::{Launched, Starts};
use crate::launch::start::Attended;
use crate::mount_namespace::{SharedMounts, Undo};
use crate::notify::{self, Listening};
use crate::plan::cgroup::{CgroupPlan, Driver};
use crate::plan::{Kind, Plan, Request, annotations};
use crate::spec::{Mount, Spec};
use crate::state::{self, CgroupPath, Record, Reserved, Root, Status};
use crate::sys::signal::Signals;
use rustix::fd::{AsFd as _, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::ffi::CString;
use std::path::{Path, PathBuf};

/// A container as made.
#[derive(Debug)]
pub struct Made {
    /// Its directory, locked, and its record.
    pub container: Container,
    /// A pidfd of init.
    pub pidfd: OwnedFd,
    /// The master of its terminal, unless a console socket has it.
    pub console: Option<OwnedFd>,
    /// How it is started, if who has made it does that too.
    pub attended: Option<Attended>,
}

/// `create`.
///
/// # Errors
/// Any; nothing is left then.
#[inline(never)]
pub fn create(global: &Global, args: &Create) -> Result<()> {
    let made = make(global, args, open(args)?, (None, false))?;
    if let Some(path) = &args.pid_file
        && let Err(e) = write_pid_file(path, made.container.record.pid)
    {
        undo(made.container);
        return Err(e);
    }
    Ok(())
}

/// The bundle, and whether what is launched from it leaves rrun's file behind by itself; if not, that is done.
///
/// # Errors
/// A bad id, a bundle that cannot be read.
pub fn open(args: &Create) -> Result<(Bundle, bool)> {
    crate::cli::id(&args.id)?;
    let bundle =
        Bundle::open(args.bundle.as_deref().unwrap_or_else(|| Path::new(".")), args.config.as_deref())?;
    let forgets = crate::exe::forgets(&bundle.spec, false);
    super::prepare(!forgets, args.preserve_fds)?;
    Ok((bundle, forgets))
}

/// Makes a container; `signals` are those that a `run` in the foreground has blocked, and `run` whether it is one.
///
/// # Errors
/// Any; nothing is left then.
#[inline(never)]
pub fn make(
    global: &Global,
    args: &Create,
    (mut bundle, forgets): (Bundle, bool),
    (signals, run): (Option<&Signals>, bool),
) -> Result<Made> {
    check_terminal(&bundle.spec, signals.is_none(), args.console_socket.is_some())?;
    let console_socket = args.console_socket.as_deref().map(Receiver::connect).transpose()?;
    let asked = bundle.spec.annotations.get(annotations::PIDFD_RECEIVER).map(Path::new);
    let pidfd_socket = args.pidfd_socket.as_deref().or(asked).map(Receiver::connect).transpose()?;

    let path = container::root(global.root.as_deref())?;
    let environment = surroundings(&mut bundle.spec, &path, &args.id);
    let mut host = Host::read(&bundle.spec)?;
    let driver = driver(global);
    let systemd = connect(driver, &mut host)?;
    let plan =
        Box::new(Plan::build(&bundle.spec, &request(global, driver, args, &bundle, &environment), &host)?);
    for warning in &plan.warnings {
        crate::log::warning(warning);
    }
    // Profiles name system calls of kernels to come; that is not worth a line at every start.
    if let Some(filter) = &plan.seccomp {
        // runc's words and flags, which its own tests look for.
        crate::log::debug(|| format!("seccomp filter flags: {}", filter.flags));
    }
    for warning in plan.seccomp.iter().flat_map(|filter| &filter.warnings) {
        crate::log::debug(|| warning);
    }

    let reserved = Root::open_or_make(&path)?.reserve(&args.id)?;
    if wants_notification() {
        notify::prepare(&path.join(&args.id))?;
    }
    let sockets = (console_socket.as_ref(), pidfd_socket.as_ref());
    let cgroup = || cgroups(&plan, systemd);
    let starts = match run {
        false => Starts::Apart,
        // A terminal is made ready, and a socket for READY=1 listens, before the process can write.
        true if plan.process.terminal || wants_notification() => Starts::Later,
        true => Starts::Now,
    };
    match establish(&plan, &host, reserved, (&bundle.text, cgroup), sockets, (signals, forgets), starts) {
        Ok(made) => Ok(made),
        Err(e) => {
            // Everything is undone by now (runtime.md, "Lifecycle", steps 12 and 13).
            for failure in poststop(&plan) {
                crate::log::warning(failure);
            }
            Err(e)
        }
    }
}

/// From the reservation to the record: everything that is made on the way is undone by its `Drop` on failure.
fn establish(
    plan: &Plan,
    host: &Host,
    reserved: Reserved,
    (config, cgroup): (&[u8], impl FnOnce() -> Result<Cgroup>),
    (console_socket, pidfd_socket): (Option<&Receiver>, Option<&Receiver>),
    child: (Option<&Signals>, bool),
    starts: Starts,
) -> Result<Made> {
    let slot = reserved.slot()?;
    let mut shared = Undo(SharedMounts::of(plan)?);
    slot.write_intent(&Record { shared_mounts: shared.0.clone(), ..intent(plan, host)? })?;
    let mut cgroup = cgroup()?;
    let resctrl = plan.intel_rdt.as_ref().map(|_| crate::rdt::mount_point()).transpose()?;
    let groups = match (&plan.intel_rdt, &resctrl) {
        (Some(wanted), Some(root)) => Some(crate::rdt::prepare(wanted, root, &plan.id)?),
        _ => None,
    };
    let resctrl = groups.as_ref().zip(resctrl.as_deref());
    let made =
        || groups.iter().flat_map(|groups| &groups.remove).map(|path| path.display().to_string()).collect();
    let listener = |launched: &Launched, number| {
        let record = Record { pid: launched.pid, ..intent(plan, host)? };
        let process = (launched.pidfd.as_fd(), launched.pid);
        hand_listener_over(plan.seccomp.as_ref(), &record, Status::Creating, process, number)
    };
    let prepare = |launched: &Launched, cgroup: &Cgroup| {
        slot.write_config(config)?;
        let shared_mounts = shared.0.clone();
        let record = Record { rdt: made(), shared_mounts, ..record(plan, host, cgroup, launched.pid)? };
        slot.prepare(&record).map(|()| record)
    };
    let launched = crate::launch::parent::init(plan, slot, &mut cgroup, resctrl, child, prepare, listener);
    let (launched, record) = launched.inspect_err(|_| {
        let _ = groups.as_ref().map(|groups| crate::rdt::remove(&groups.remove));
    })?;
    if plan.rootless && cgroup.paths().is_empty() && !plan.namespaces.has(Kind::Pid) {
        crate::log::warning(
            "a rootless container with neither a cgroup nor a pid namespace of its own. Such configuration is strongly \
             discouraged: its processes cannot be found to be killed",
        );
    }
    if let (Some(socket), Some(master)) = (console_socket, &launched.console) {
        socket.send_terminal(master.as_fd()).context(|| "--console-socket")?;
    }
    if let Some(socket) = pidfd_socket {
        socket.send_pidfd(launched.pidfd.as_fd(), false).context(|| "--pidfd-socket")?;
    }
    slot.replace()?;
    let (pidfd, console, attended) = launched.commit(starts)?;
    slot.forget_replaced();
    cgroup.keep();
    shared.0 = None;
    let console = console.filter(|_| console_socket.is_none());
    let container = Container { slot: reserved.keep()?, record, hooks: plan.hooks.clone().into() };
    Ok(Made { container, pidfd, console, attended })
}

pub(super) fn poststop(plan: &Plan) -> Vec<Error> {
    if plan.hooks.poststop.is_empty() {
        return Vec::new();
    }
    let state = crate::oci_state::of_plan(plan, "stopped", None);
    crate::container::run_poststop(&plan.annotations, &plan.hooks, &state)
}

/// Ends and removes a container that has just been made; the error that led here is the one to tell.
pub fn undo(container: Container) {
    if let Ok(cgroup) = container.kill_all() {
        let _ = container.destroy(cgroup);
    }
}

/// Who makes cgroups, by what was typed.
pub fn driver(global: &Global) -> Driver {
    match (global.cgroup_manager, global.systemd_cgroup) {
        (Some(Manager::Disabled), _) => Driver::Disabled,
        (Some(Manager::Systemd), _) | (None, true) => Driver::Systemd,
        _ => Driver::Cgroupfs,
    }
}

/// Asks systemd what the plan has to know of it, where it makes the cgroups; the connection is for making them.
///
/// # Errors
/// It is not running or does not answer.
pub(super) fn connect(driver: Driver, host: &mut Host) -> Result<Option<Connection>> {
    if driver != Driver::Systemd {
        return Ok(None);
    }
    let user = cgroup::systemd::is_user()?;
    let mut systemd = Connection::open(user)?;
    host.systemd = Some(match systemd.facts() {
        Ok(facts) => facts,
        // A daemon-reexec closes every connection; nothing has been asked for yet, so once more.
        Err(_) => {
            systemd = Connection::open(user)?;
            systemd.facts()?
        }
    });
    Ok(Some(systemd))
}

pub(super) fn cgroups(plan: &Plan, systemd: Option<Connection>) -> Result<Cgroup> {
    match systemd {
        Some(systemd) => Ok(cgroup::through(&plan.cgroup, systemd)),
        None => cgroup::create(&plan.cgroup),
    }
}

/// The fds from 3 on that the process keeps: systemd's sockets, then those of `--preserve-fds`.
pub fn listening() -> Listening {
    notify::listening(|name| std::env::var(name).ok(), std::process::id())
}

pub(super) fn request<'a>(
    global: &Global,
    driver: Driver,
    args: &'a Create,
    bundle: &'a Bundle,
    environment: &'a [CString],
) -> Request<'a> {
    Request {
        id: &args.id,
        bundle: &bundle.path,
        driver,
        no_pivot: args.no_pivot,
        no_new_keyring: args.no_new_keyring,
        preserve_fds: args.preserve_fds.saturating_add(listening().count),
        environment,
        rootless: match global.rootless {
            Rootless::Auto => None,
            Rootless::True => Some(true),
            Rootless::False => Some(false),
        },
    }
}

/// The plan of a bundle, for `plan`.
///
/// # Errors
/// Those of config.json.
pub fn plan(global: &Global, args: &Create) -> Result<Plan> {
    let bundle =
        Bundle::open(args.bundle.as_deref().unwrap_or_else(|| Path::new(".")), args.config.as_deref())?;
    let mut host = Host::read(&bundle.spec)?;
    let driver = driver(global);
    connect(driver, &mut host)?;
    Plan::build(&bundle.spec, &request(global, driver, args, &bundle, &[]), &host)
}

pub(super) fn wants_notification() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some_and(|value| !value.is_empty())
}

/// What a service manager around rrun adds: a mount for readiness notification, and environment entries.
fn surroundings(spec: &mut Spec, root: &Path, id: &str) -> Vec<CString> {
    let mut entries = listening().env;
    if wants_notification() {
        spec.mounts.push(notification(&root.join(id)));
        entries.push(notify::VARIABLE.to_owned());
    }
    entries.into_iter().filter_map(|entry| CString::new(entry).ok()).collect()
}

/// The mount by which the process reaches rrun's socket; `state` is the container's directory.
pub(super) fn notification(state: &Path) -> Mount {
    Mount {
        destination: notify::INSIDE.into(),
        typ: "bind".into(),
        source: state.join("notify").display().to_string(),
        options: notify::OPTIONS.map(str::to_owned).into(),
        ..Mount::default()
    }
}

/// The rules of runc, with its words, as callers' tests know them.
pub(super) fn check_terminal(spec: &Spec, detached: bool, socket: bool) -> Result<()> {
    let terminal = spec.process.as_deref().is_some_and(|process| process.terminal);
    if detached && terminal && !socket {
        return Err(Error::new("cannot allocate tty if runc will detach without setting console socket"));
    }
    if (!detached || !terminal) && socket {
        return Err(Error::new("cannot use console socket if runc will not detach or allocate tty"));
    }
    Ok(())
}

pub(super) fn intent(plan: &Plan, host: &Host) -> Result<Record> {
    Ok(Record {
        phase: "creating".into(),
        oci_version: plan.oci_version.clone(),
        id: plan.id.clone(),
        boot_id: state::boot_id()?.to_owned(),
        bundle: plan.bundle.display().to_string(),
        rootfs: plan.rootfs.path.display().to_string(),
        owner: host.euid,
        annotations: plan.annotations.clone(),
        cgroups: paths(Cgroup::planned(&plan.cgroup)),
        cgroup_driver: driver_name(&plan.cgroup).into(),
        unit: plan.cgroup.unit.as_ref().map(|unit| unit.name.clone()).unwrap_or_default(),
        user_unit: plan.cgroup.unit.as_ref().is_some_and(|unit| unit.user),
        rootless: plan.rootless,
        ..Record::default()
    })
}

pub(super) fn record(plan: &Plan, host: &Host, cgroup: &Cgroup, pid: u32) -> Result<Record> {
    Ok(Record {
        phase: "created".into(),
        pid,
        start_time: state::start_time(pid)?,
        created: crate::log::now_with_nanoseconds(),
        cgroups: paths(cgroup.paths()),
        ..intent(plan, host)?
    })
}

fn paths(list: Vec<(String, PathBuf)>) -> Vec<CgroupPath> {
    list.into_iter()
        .map(|(controllers, path)| CgroupPath { controllers, path: path.display().to_string() })
        .collect()
}

fn driver_name(plan: &CgroupPlan) -> &'static str {
    match plan.driver {
        Driver::Cgroupfs => "cgroupfs",
        Driver::Systemd => "systemd",
        Driver::Disabled => "disabled",
    }
}

/// Writes a pid file as a whole: callers wait for it to appear and then parse all of it, so there is no
/// newline either (containerd's go-runc, conmon).
///
/// # Errors
/// Those of the file system.
pub fn write_pid_file(path: &Path, pid: u32) -> Result<()> {
    let directory = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let name =
        path.file_name().ok_or_else(|| Error::new(format!("--pid-file {}: not a file", path.display())))?;
    let half = directory.join(format!(".{}.{}", name.to_string_lossy(), std::process::id()));
    let what = |path: &Path| format!("--pid-file: open {}", path.display());
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let open = || rustix::fs::open(&half, flags, Mode::from_raw_mode(0o644));
    let file = match open() {
        // A killed rrun of the same pid left it: pids come again, in a pid namespace soon.
        Err(Errno::EXIST) => rustix::fs::unlink(&half).and_then(|()| open()),
        other => other,
    }
    .call(|| what(path))?;
    let written = std::io::Write::write_all(&mut std::fs::File::from(file), pid.to_string().as_bytes())
        .call(|| format!("--pid-file: write {}", path.display()))
        .and_then(|()| {
            rustix::fs::rename(&half, path).call(|| format!("--pid-file: rename to {}", path.display()))
        });
    if written.is_err() {
        let _ = rustix::fs::unlink(&half);
    }
    written
}
