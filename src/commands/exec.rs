//! `exec`: a further process in a running container.

#![forbid(unsafe_code)]

use super::create::{listening, write_pid_file};
use super::start::hand_listener_over;
use crate::cli::{Exec, Global};
use crate::console::{Receiver, Relay, Terminal};
use crate::container::Container;
use crate::error::{Call as _, Context as _, Error, Kind, Result};
use crate::launch::parent::Launched;
use crate::plan::exec::ExecPlan;
use crate::spec::{Capabilities, Process, Spec};
use crate::state::Status;
use crate::sys::signal::Signals;
use rustix::fd::AsFd as _;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::process::Pid;
use std::ffi::CString;

/// `exec`; returns the process's status, or 0 if detached.
///
/// # Errors
/// Any; the container is as before.
#[inline(never)]
pub fn exec(global: &Global, args: &Exec) -> Result<u8> {
    let container = Container::open(global.root.as_deref(), &args.id)?;
    let Some(init) = container.record.init()? else {
        return Err(Error::kind(Kind::State, "cannot exec in a stopped container"));
    };
    if !args.ignore_paused && container.is_frozen()? {
        let text = "cannot exec in a paused container (use --ignore-paused to override)";
        return Err(Error::kind(Kind::State, text));
    }
    let spec = container.slot.read_config()?;
    let forgets = crate::exe::forgets(&spec, true);
    super::prepare(!forgets, args.preserve_fds)?;
    let process = process(args, &spec)?;
    let detached = args.detach;
    check_terminal(&process, detached, args.console_socket.is_some())?;
    let console_socket = args.console_socket.as_deref().map(Receiver::connect).transpose()?;
    let pidfd_socket = args.pidfd_socket.as_deref().map(Receiver::connect).transpose()?;

    let sockets = listening();
    let source = args.process.as_ref().map_or_else(|| "exec".into(), |path| path.display().to_string());
    let mut plan = ExecPlan::build(&spec, &args.id, &process, container.record.rootless)
        .map_err(|e| e.in_file(&source))?;
    plan.preserve_fds = args.preserve_fds.saturating_add(sockets.count);
    plan.process.envp.extend(sockets.env.into_iter().filter_map(|entry| CString::new(entry).ok()));
    plan.shown = !detached;
    plan.sub_cgroups = args
        .cgroup
        .iter()
        .flat_map(|sub| match sub.controllers.as_slice() {
            [] => vec![(None, sub.path.clone())],
            list => list.iter().map(|controller| (Some(controller.clone()), sub.path.clone())).collect(),
        })
        .collect();
    // Those about the container's own process were told at create.
    if args.process.is_some() || !args.cap.is_empty() {
        for warning in &plan.process.warnings {
            crate::log::warning(warning);
        }
    }

    let signals = if detached { None } else { Some(Signals::block()?) };
    // CRIU restores into a time namespace, whatever config.json says.
    let time = |who: &str| rustix::fs::readlink(format!("/proc/{who}/ns/time"), Vec::new()).ok();
    if time("self") != time(&container.record.pid.to_string()) {
        plan.joined |= crate::plan::Kind::Time.flag();
    }
    let mut cgroup = container.cgroup();
    let listener = |launched: &Launched, number| {
        let process = (launched.pidfd.as_fd(), launched.pid);
        hand_listener_over(plan.seccomp.as_ref(), &container.record, Status::Running, process, number)
    };
    let launched = crate::launch::parent::exec(
        &plan,
        (init, container.record.pid),
        &mut cgroup,
        (signals.as_ref(), forgets),
        listener,
    )
    // A delete takes away the cgroups that the process is about to enter, or kills it in them.
    .map_err(|e| container.or_ended(e))?;
    if let (Some(socket), Some(master)) = (&console_socket, &launched.console) {
        socket.send_terminal(master.as_fd()).context(|| "--console-socket")?;
    }
    if let Some(socket) = &pidfd_socket {
        socket.send_pidfd(launched.pidfd.as_fd(), true).context(|| "--pidfd-socket")?;
    }
    if let Some(path) = &args.pid_file {
        write_pid_file(path, launched.pid)?;
    }
    let (pid, pidfd, console) = launched.release();
    let Some(signals) = signals else { return Ok(0) };
    let pidfd = pidfd?;
    let terminal = console
        .map(|master| Terminal::new(master, rustix::stdio::stdin(), rustix::stdio::stdout()))
        .transpose()?;
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or_else(|| Error::new("pid 0"))?;
    let mut relay =
        Relay { signals: &signals, pid, pidfd: pidfd.as_fd(), terminal, reap: false, notify: None };
    Ok(relay.run()?.status())
}

/// The process of config.json or `--process`, with what the other options change.
fn process(args: &Exec, spec: &Spec) -> Result<Process> {
    let mut process = match &args.process {
        Some(path) => {
            let here = rustix::fs::openat(CWD, ".", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
                .call(|| "open .")?;
            let text = crate::bundle::read_json(&here, path)?;
            let process: Process = crate::spec::read::document(&text)
                .map_err(|e| Error::kind(Kind::Config, format!("{}: {e}", path.display())))?;
            process
        }
        None => {
            let process =
                spec.process.clone().ok_or_else(|| Error::new("process property must not be empty"))?;
            Process { args: args.args.clone(), terminal: args.tty, ..*process }
        }
    };
    if process.args.is_empty() {
        return Err(Error::new("exec args cannot be empty"));
    }
    if args.process.is_some() {
        return Ok(process);
    }
    if let Some(cwd) = &args.cwd {
        process.cwd.clone_from(cwd);
    }
    process.env.extend(args.env.iter().cloned());
    if let Some(user) = &args.user {
        process.user.uid = user.uid;
        if let Some(gid) = user.gid {
            process.user.gid = gid;
        }
    }
    process.user.additional_gids.extend(&args.additional_gids);
    if let Some(label) = &args.process_label {
        process.selinux_label.clone_from(label);
    }
    if let Some(profile) = &args.apparmor {
        process.apparmor_profile.clone_from(profile);
    }
    if let Some(on) = args.no_new_privs {
        process.no_new_privileges = on;
    }
    if !args.cap.is_empty() {
        add_capabilities(process.capabilities.get_or_insert_default(), &args.cap);
    }
    Ok(process)
}

/// `--cap` never touches the inheritable set: that made CVE-2022-29162.
fn add_capabilities(sets: &mut Capabilities, names: &[String]) {
    for name in names {
        for set in [&mut sets.bounding, &mut sets.effective, &mut sets.permitted] {
            set.push(name.clone());
        }
        if sets.inheritable.contains(name) {
            sets.ambient.push(name.clone());
        }
    }
}

fn check_terminal(process: &Process, detached: bool, socket: bool) -> Result<()> {
    if detached && process.terminal && !socket {
        return Err(Error::new("cannot allocate tty if runc will detach without setting console socket"));
    }
    if (!detached || !process.terminal) && socket {
        return Err(Error::new("cannot use console socket if runc will not detach or allocate tty"));
    }
    Ok(())
}
