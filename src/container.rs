//! A container on record, and what commands do to it.

#![forbid(unsafe_code)]

use crate::cgroup::Cgroup;
use crate::error::{Call as _, Error, Kind, Result};
use crate::hooks::Outputs;
use crate::plan::hooks::Hooks;
use crate::plan::{Kind as Namespace, Namespaces};
use crate::spec::Spec;
use crate::state::{Record, Root, Slot, Status};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd as _, OwnedFd};
use rustix::process::Signal;
use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a killed process may take to end: one in an uninterruptible wait is not waited for without end. It is also
/// the time after which CRIU gives up to stop processes.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long `delete` waits for a process that is on its way out.
const MOMENT: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// A container on record.
#[derive(Debug)]
pub struct Container {
    /// Its directory.
    pub slot: Slot,
    /// Its record.
    pub record: Record,
    /// Its hooks, once they are known.
    pub hooks: OnceCell<Hooks>,
}

/// Where containers are recorded: where `--root` says, or the default.
///
/// # Errors
/// Those of [`crate::host::in_user_namespace`].
pub fn root(named: Option<&Path>) -> Result<PathBuf> {
    if let Some(path) = named {
        return Ok(path.to_owned());
    }
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty());
    // A user who is root only in a user namespace, as under podman unshare, cannot write to /run; the root of a
    // system container, who can, has that name as well as number.
    let unprivileged = || -> Result<bool> {
        Ok(!rustix::process::geteuid().is_root()
            || crate::host::in_user_namespace()?
                && std::env::var_os("USER").is_none_or(|name| name != "root"))
    };
    Ok(match runtime {
        Some(dir) if unprivileged()? => Path::new(&dir).join("rrun"),
        _ => PathBuf::from(crate::state::SYSTEM_ROOT),
    })
}

/// Finds a container's directory.
///
/// # Errors
/// `container does not exist`.
pub fn slot(named: Option<&Path>, id: &str) -> Result<Slot> {
    crate::cli::id(id)?;
    match Root::open(&root(named)?) {
        Err(e) if e.errno() == Some(rustix::io::Errno::NOENT) => Err(crate::state::no_container(id)),
        root => root?.slot(id),
    }
}

impl Container {
    /// Finds a container.
    ///
    /// # Errors
    /// `container does not exist`.
    pub fn open(named: Option<&Path>, id: &str) -> Result<Self> {
        Self::of(slot(named, id)?)
    }

    /// As its directory has it on record.
    ///
    /// # Errors
    /// Those of [`Slot::read`].
    pub fn of(slot: Slot) -> Result<Self> {
        let record = slot.read()?;
        Ok(Self { slot, record, hooks: OnceCell::new() })
    }

    /// Its hooks.
    ///
    /// # Errors
    /// Those of [`Slot::read_hooks`].
    pub fn hooks(&self) -> Result<&Hooks> {
        if let Some(hooks) = self.hooks.get() {
            return Ok(hooks);
        }
        let hooks = Hooks::build(&self.slot.read_hooks()?)?;
        Ok(self.hooks.get_or_init(|| hooks))
    }

    /// Its status.
    ///
    /// # Errors
    /// Those of [`Record::status`].
    pub fn status(&self) -> Result<Status> {
        Ok(match self.record.status(&self.slot)? {
            // A frozen init answers no `start`, so that is no `created` either.
            Status::Running | Status::Created if self.is_frozen()? => Status::Paused,
            status => status,
        })
    }

    /// Whether its processes are frozen.
    ///
    /// # Errors
    /// Those of [`Cgroup::is_frozen`].
    pub fn is_frozen(&self) -> Result<bool> {
        self.cgroup().is_frozen()
    }

    /// Its cgroups.
    pub fn cgroup(&self) -> Cgroup {
        let paths = self.record.cgroups.iter().map(|c| (c.controllers.as_str(), Path::new(&c.path)));
        Cgroup::recorded(paths).of_unit(&self.record.unit, self.record.user_unit)
    }

    /// A pidfd of init.
    ///
    /// # Errors
    /// `container not running`; those of [`Record::init`].
    pub fn init(&self) -> Result<OwnedFd> {
        self.record.init()?.ok_or_else(|| Error::kind(Kind::State, "container not running"))
    }

    /// Refuses a container that is not in one of these states.
    ///
    /// # Errors
    /// `container not running`, `container paused` and so on, as callers know them.
    pub fn require(&self, allowed: &[Status]) -> Result<Status> {
        let status = self.status()?;
        if allowed.contains(&status) {
            return Ok(status);
        }
        Err(Error::kind(
            Kind::State,
            match status {
                Status::Stopped => "container not running",
                Status::Paused => "container paused",
                Status::Creating => "container is being created",
                Status::Created | Status::Running => "container not paused",
            },
        ))
    }

    /// What a failure means if the container has ended meanwhile: a `delete` takes its cgroups away.
    pub fn or_ended(&self, e: Error) -> Error {
        match self.record.init() {
            Ok(None) => Error::kind(Kind::State, "container not running"),
            _ => e,
        }
    }

    /// Sends a signal to init, or to every process where init's end does not end the others or, without `spec`, that
    /// is not known.
    ///
    /// # Errors
    /// `container not running`; those of kill(2).
    pub fn kill(&self, signal: i32, spec: Option<&Spec>) -> Result<()> {
        let kills = signal == libc::SIGKILL;
        let shares_pids = spec.is_none_or(|spec| !has_own_pids(spec));
        if kills && shares_pids && !self.record.cgroups.is_empty() {
            // Nothing but the cgroup tells which processes of a shared pid namespace are the container's.
            let cgroup = self.cgroup();
            if cgroup.procs()?.is_empty() {
                self.init()?;
            }
            return cgroup.kill(Signal::KILL);
        }
        let init = self.init()?;
        crate::sys::signal::send(init.as_fd(), signal)
            .map_err(|e| Error::from(e).context(format!("signal {signal} to init {}", self.record.pid)))?;
        if kills {
            self.cgroup().thaw_to_die()?;
        }
        Ok(())
    }

    /// Whether init has ended, or does so by itself in a moment.
    ///
    /// # Errors
    /// Those of [`Record::init`], poll(2).
    pub fn ends_soon(&self) -> Result<bool> {
        self.record.init()?.map_or(Ok(true), |init| ends(&init, MOMENT))
    }

    /// Ends every process, and waits for it. Returns the cgroups, which can be removed now.
    ///
    /// # Errors
    /// `container init still running` after ten seconds, or twenty if a CRIU had to be killed.
    pub fn kill_all(&self) -> Result<Cgroup> {
        let init = self.record.init()?;
        if init.is_none() {
            let cgroup = self.cgroup();
            if cgroup.remove_empty() {
                return Ok(cgroup);
            }
        }
        if let Some(init) = &init {
            match crate::sys::signal::send(init.as_fd(), libc::SIGKILL) {
                Ok(()) => {}
                Err(e) if e.errno == rustix::io::Errno::SRCH => {}
                Err(e) => return Err(e.into()),
            }
        }
        let cgroup = self.cgroup();
        // First, so that no exec can enter any more while the others are killed.
        if let Some(init) = &init {
            let ended = dies(init, &cgroup)?
                // It may have frozen them.
                || crate::criu::kill_tracer(self.record.pid) && dies(init, &cgroup)?;
            if !ended {
                return Err(Error::new("container init still running"));
            }
        } else {
            cgroup.thaw_to_die()?;
        }
        cgroup.kill(Signal::KILL)?;
        Ok(cgroup)
    }

    /// Removes the mounts that did not end with the processes.
    ///
    /// # Errors
    /// Those of [`SharedMounts::remove`].
    ///
    /// [`SharedMounts::remove`]: crate::mount_namespace::SharedMounts::remove
    pub fn remove_mounts(&self) -> Result<()> {
        self.record.shared_mounts.as_ref().map_or(Ok(()), |shared| shared.remove())
    }

    /// Removes everything that belongs to a container that has ended, its cgroups first and its record last, and runs
    /// its poststop hooks. Their failures are returned: they are warnings (runtime.md, "Lifecycle", step 13).
    ///
    /// # Errors
    /// A cgroup or file that cannot be removed: the record stays, so that `delete` can be repeated.
    pub fn destroy(mut self, cgroup: Cgroup) -> Result<Vec<Error>> {
        // Read before its file is removed.
        let known = self.hooks().map(|_| ());
        let hooks = known.map(|()| self.hooks.take().unwrap_or_default());
        cgroup.remove()?;
        let groups: Vec<PathBuf> = self.record.rdt.iter().map(PathBuf::from).collect();
        crate::rdt::remove(&groups)?;
        self.remove_mounts()?;
        let state = crate::oci_state::of_record(&self.record, Status::Stopped);
        self.slot.remove()?;
        let hooks = match hooks {
            Ok(hooks) => hooks,
            Err(e) => return Ok(vec![e.context("poststop hooks are left out")]),
        };
        if hooks.poststop.is_empty() {
            return Ok(Vec::new());
        }
        Ok(run_poststop(&self.record.annotations, &hooks, &state))
    }
}

/// Runs the poststop hooks; all of them, whatever becomes of each.
pub fn run_poststop(annotations: &BTreeMap<String, String>, hooks: &Hooks, state: &[u8]) -> Vec<Error> {
    let env = crate::hooks::own_environment();
    let (outputs, failed) = match Outputs::open(annotations) {
        Ok(outputs) => (outputs, None),
        Err(e) => (Outputs::default(), Some(e)),
    };
    let mut failures = crate::hooks::run_all("poststop", &hooks.poststop, state, &outputs.options(&env));
    failures.extend(failed);
    failures
}

/// Whether the container has a pid namespace of its own, whose end ends its processes.
pub fn has_own_pids(spec: &Spec) -> bool {
    let listed = spec.linux.as_deref().map_or(&[][..], |linux| &linux.namespaces);
    Namespaces::build(listed).is_ok_and(|namespaces| namespaces.creates(Namespace::Pid))
}

/// Whether a killed process ends in time. It is thawed again and again: a `pause` beside this may have frozen it since,
/// and what cgroup v1 has frozen does not die.
fn dies(pidfd: &OwnedFd, cgroup: &Cgroup) -> Result<bool> {
    let begun = Instant::now();
    loop {
        cgroup.thaw_to_die()?;
        if ends(pidfd, MOMENT)? {
            return Ok(true);
        }
        if begun.elapsed() >= PATIENCE {
            return Ok(false);
        }
    }
}

/// Whether a process ends in time.
fn ends(pidfd: &OwnedFd, time: Timespec) -> Result<bool> {
    let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
    Ok(crate::launch::protocol::retry(|| poll(&mut fds, Some(&time))).call(|| "poll")? > 0)
}
