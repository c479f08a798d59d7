//! `start`: lets a created container's init execute the process.

#![forbid(unsafe_code)]

use super::create::wants_notification;
use crate::cli::Global;
use crate::console::Receiver;
use crate::container::Container;
use crate::error::{Call as _, Context as _, Error, Kind, Result};
use crate::hooks::Outputs;
use crate::launch::start::{Attended, Failed, is_fatal};
use crate::launch::words;
use crate::notify::Proxy;
use crate::plan::process::ProcessPlan;
use crate::plan::seccomp::Filter;
use crate::state::{Record, Status};
use rustix::fd::{AsFd as _, BorrowedFd};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdGetfdFlags};

/// `start`.
///
/// # Errors
/// Not `created`, or the process could not be executed.
#[inline(never)]
pub fn start(global: &Global, id: &str) -> Result<()> {
    let container = Container::open(global.root.as_deref(), id)?;
    let Some(init) = container.record.init()? else { return Err(refused(container.status()?)) };
    if container.is_frozen()? {
        return Err(refused(Status::Paused));
    }
    // Whether it waits is told by connecting to it, which `begin` does; not by a connection made for that alone, which
    // would wake it. Where there is a proxy, that of a container that runs must not be taken away.
    if wants_notification() {
        match container.status()? {
            Status::Created => {}
            other => return Err(refused(other)),
        }
    }
    container.hooks()?;
    let proxy = proxy(global, id)?;
    let pid = container.record.pid;
    begin(container, None)?;
    if let (Some(proxy), Some(pid)) = (proxy, i32::try_from(pid).ok().and_then(Pid::from_raw)) {
        proxy.until_ready(pid, init.as_fd())?;
    }
    Ok(())
}

/// What is told who starts a container of another status than `created`.
fn refused(status: Status) -> Error {
    let text = match status {
        Status::Stopped => "cannot start a container that has stopped".to_owned(),
        Status::Running => "cannot start an already running container".to_owned(),
        other => format!("cannot start a container in the {} state", other.name()),
    };
    Error::kind(Kind::State, text)
}

/// What listens for READY=1, if a service manager waits for it.
///
/// # Errors
/// Those of bind(2).
pub fn proxy(global: &Global, id: &str) -> Result<Option<Proxy>> {
    let Some(host) = std::env::var("NOTIFY_SOCKET").ok().filter(|host| !host.is_empty()) else {
        return Ok(None);
    };
    let root = crate::container::root(global.root.as_deref())?;
    let directory = root.join(id);
    if !directory.join("notify").exists() {
        return Ok(None);
    }
    Proxy::bind(&directory, &host).map(Some)
}

/// Starts the process, by [`super::create::Made::attended`] if there is that, and runs the poststart hooks. Where a hook
/// fails the container is destroyed (runtime.md, "Lifecycle", steps 8 and 10).
///
/// # Errors
/// The process's or the hook's.
pub fn begin(container: Container, attended: Option<Attended>) -> Result<Container> {
    match crate::launch::start::start(&container.slot, attended) {
        Ok(()) => {}
        Err(Failed::Other(e)) => return Err(e),
        Err(Failed::Reported(report)) => {
            let spec = container.slot.read_config();
            let error = match spec.and_then(|spec| ProcessPlan::build(spec.process.as_deref())) {
                Ok(process) => words::of_process(&process, &report),
                Err(e) => e,
            };
            if is_fatal(&report) {
                super::create::undo(container);
            }
            return Err(error.context("unable to start container process"));
        }
    }
    let hooks = container.hooks()?;
    if hooks.poststart.is_empty() {
        return Ok(container);
    }
    let state = crate::oci_state::of_record(&container.record, Status::Running);
    let env = crate::hooks::own_environment();
    let ran = Outputs::open(&container.record.annotations)
        .and_then(|outputs| crate::hooks::run("poststart", &hooks.poststart, &state, &outputs.options(&env)));
    match ran {
        Ok(()) => Ok(container),
        Err(e) => {
            super::create::undo(container);
            Err(e)
        }
    }
}

/// Takes the notification fd out of the process, which cannot send it through its own filter, and gives it
/// to the agent with the state (config-linux.md, "Seccomp", listenerPath).
///
/// # Errors
/// `failed to connect with seccomp agent`.
pub fn hand_listener_over(
    seccomp: Option<&Filter>,
    record: &Record,
    status: Status,
    (process, pid): (BorrowedFd<'_>, u32),
    number: i32,
) -> Result<()> {
    let listener = seccomp.and_then(|filter| filter.listener.as_ref());
    let Some(listener) = listener else { return Err(Error::new("a listener without linux.seccomp")) };
    let fd = rustix::process::pidfd_getfd(process, number, PidfdGetfdFlags::empty())
        .call(|| "linux.seccomp.listenerPath: pidfd_getfd")
        .map_err(|e| match e.errno() {
            // The process is not dumpable.
            Some(Errno::PERM) => e.remedy("needs root, or new user and pid namespaces"),
            _ => e,
        })?;
    let state = crate::oci_state::for_listener(record, status, pid, &listener.metadata);
    Receiver::connect(&listener.path).and_then(|agent| agent.send(&state, fd.as_fd())).context(|| {
        format!("linux.seccomp.listenerPath: failed to connect with seccomp agent {:?}", listener.path)
    })
}
