//! Signals to containers, and waiting for their ends.

#![forbid(unsafe_code)]

use super::Engine;
use super::show::is_under_way;
use crate::container::record::Container;
use crate::container::signal;
use crate::error::{Context as _, Error, Kind, Result};
use crate::home::{self, Lock};
use crate::monitor::{Client, Exit, Found, Phase, Until, Waiter};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::fs;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const SIGKILL: u8 = 9;
/// Docker's, in seconds.
const STOP_TIMEOUT: i64 = 10;
/// How long the kernel may take to end what was killed. A process in an uninterruptible sleep takes as long as that.
const KILLED: Duration = Duration::from_secs(30);
/// How long who waits for an end waits for what comes after it, a hook of the runtime included.
const TAKEN_DOWN: Duration = Duration::from_secs(10);

/// What somebody waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// It does not run: at once if it does not now.
    NotRunning,
    /// The next end.
    NextExit,
    /// It is removed.
    Removed,
}

impl Engine {
    /// Sends a signal.
    ///
    /// # Errors
    /// It does not run; no such signal.
    pub fn kill(&self, id: &str, text: &str) -> Result<()> {
        let number = if text.is_empty() { SIGKILL } else { signal::parse(text)? };
        let container = self.containers.load(id)?;
        let not_running =
            || Error::conflict(format!("cannot kill container: {id}: container {id} is not running"));
        match self.found(id)? {
            Found::Monitored(client) => match client.status()?.phase {
                Phase::Running => {
                    // Whoever kills it does not want it again; other signals say nothing about that.
                    let ends = number == SIGKILL || Some(number) == stop_signal(&container).ok();
                    if ends {
                        self.killed_by_hand(id);
                        client.stop_restarting()?;
                    }
                    self.signal(id, number)
                }
                Phase::Restarting => {
                    self.killed_by_hand(id);
                    client.stop_restarting().map(|_| ())
                }
                Phase::Created | Phase::Ending => Err(not_running()),
            },
            Found::Orphaned { status, .. } if is_under_way(&status) => self.signal(id, number),
            _ => Err(not_running()),
        }
    }

    /// Ends a container: its stop signal, and after `timeout` seconds SIGKILL; -1 waits for ever. One that does not run
    /// is none of its business ([`Kind::NotModified`]).
    ///
    /// # Errors
    /// No such signal; it cannot be ended.
    pub fn stop(&self, id: &str, signal: Option<&str>, timeout: Option<i64>) -> Result<()> {
        let patience = patience(&self.containers.load(id)?, timeout);
        match self.lock_to_end(id, patience).and_then(|lock| Ok((self.containers.load(id)?, lock))) {
            Ok((container, _lock)) => self.stop_locked(&container, signal, timeout),
            // It was `--rm`, or somebody else has removed it: it does not run.
            Err(e) if e.kind() == Kind::NotFound => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Locks a container to end it. Who has it locked may be waiting for its end with more patience, as another `stop`:
    /// after `patience` it is killed all the same, which is what that one waits for.
    ///
    /// # Errors
    /// It is gone ([`Kind::NotFound`]); it cannot be killed.
    pub(super) fn lock_to_end(&self, id: &str, patience: Option<Duration>) -> Result<Lock> {
        let until = patience.map(|patience| Instant::now().checked_add(patience));
        let Some(until) = until.flatten() else { return self.containers.lock(id) };
        loop {
            if let Some(lock) = self.containers.try_lock(id)? {
                return Ok(lock);
            }
            if Instant::now() >= until {
                break;
            }
            std::thread::sleep(
                Duration::from_millis(50).min(until.saturating_duration_since(Instant::now())),
            );
        }
        match self.kill_under_way(id) {
            Err(e) if e.kind() != Kind::NotFound => Err(e),
            _ => self.containers.lock(id),
        }
    }

    /// One that does not run is none of its business, and neither is one that is being made.
    fn kill_under_way(&self, id: &str) -> Result<()> {
        match self.found(id)? {
            Found::Monitored(client) => match client.status()?.phase {
                Phase::Running => {
                    client.stop_restarting()?;
                    self.signal_if_there(id, SIGKILL)
                }
                Phase::Restarting => client.stop_restarting().map(|_| ()),
                Phase::Created | Phase::Ending => Ok(()),
            },
            Found::Orphaned { status, .. } if is_under_way(&status) => self.signal_if_there(id, SIGKILL),
            _ => Ok(()),
        }
    }

    /// `stop` and `start`.
    ///
    /// # Errors
    /// Those of both.
    pub fn restart(&self, id: &str, signal: Option<&str>, timeout: Option<i64>) -> Result<Vec<String>> {
        let lock = self.lock_to_end(id, patience(&self.containers.load(id)?, timeout))?;
        // It is not the end of one with `--rm`.
        let kept = self.run_dir(id).join(super::KEPT);
        if self.run_dir(id).exists() {
            fs::write(&kept, b"").context(|| format!("write {}", kept.display()))?;
        }
        let stopped = self.stop_locked(&self.containers.load(id)?, signal, timeout);
        let _ = fs::remove_file(&kept);
        match stopped {
            Err(e) if e.kind() == Kind::NotModified => {}
            other => other?,
        }
        let mut prepared = self.prepare_locked(id, lock)?;
        let warnings = std::mem::take(&mut prepared.warnings);
        prepared.start().map(|_| warnings)
    }

    fn stop_locked(&self, container: &Container, text: Option<&str>, timeout: Option<i64>) -> Result<()> {
        let id = container.record.id.as_str();
        let number = match text.filter(|text| !text.is_empty()) {
            Some(text) => signal::parse(text)?,
            None => stop_signal(container)?,
        };
        let patience = patience(container, timeout);
        let not_running = || Error::new(Kind::NotModified, format!("Container {id} is not running"));
        match self.found(id)? {
            Found::Monitored(client) => {
                self.stopped_by_hand(id);
                let waiter = match client.wait(Until::Ended) {
                    Err(e) if e.kind() == Kind::NotFound => return Err(not_running()),
                    waiter => waiter?,
                };
                // Before the signal: otherwise its policy starts it again (nerdctl 5153).
                let status = client.stop_restarting()?;
                if status.phase == Phase::Created {
                    return Err(not_running());
                }
                self.end(id, number, patience, &waiter)
            }
            Found::Orphaned { status, pid } if is_under_way(&status) => {
                let pidfd = Pid::from_raw(pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
                if let Some(pidfd) = pidfd {
                    self.end(id, number, patience, &pidfd)?;
                }
                self.bury(id)
            }
            Found::Orphaned { .. } => self.bury(id).and_then(|()| Err(not_running())),
            Found::Gone => Err(not_running()),
        }
    }

    /// Sends a signal, and later SIGKILL, until `ends` is readable.
    fn end(&self, id: &str, number: u8, patience: Option<Duration>, ends: &impl AsFd) -> Result<()> {
        if self.is_paused(id)? {
            // A frozen process gets no signal but SIGKILL, and on cgroup v1 not even that.
            self.runtime_command(&["resume", id])?;
        }
        let sent = self.signal_if_there(id, number);
        if readable(ends, if sent.is_ok() { patience } else { Some(KILLED) })? {
            return Ok(());
        }
        sent?;
        self.signal_if_there(id, SIGKILL)?;
        if readable(ends, Some(KILLED))? {
            return Ok(());
        }
        Err(Error::system(format!("container {id} was killed and has not ended for {} s", KILLED.as_secs())))
    }

    /// Ends a container without asking it; it may be about to start or to end.
    pub(super) fn end_at_once(&self, id: &str) -> Result<()> {
        match self.found(id)? {
            Found::Monitored(client) => {
                let waiter = match client.wait(Until::Ended) {
                    Err(e) if e.kind() == Kind::NotFound => return Ok(()),
                    waiter => {
                        waiter.map_err(|e| e.remedy("its monitor does not answer; `kill -9` it first"))?
                    }
                };
                let _ = client.stop_restarting();
                let until = Instant::now() + KILLED;
                loop {
                    // One that rrun is about to delete takes none, and ends all the same.
                    let sent = self.signal_if_there(id, SIGKILL);
                    if readable(&waiter, Some(Duration::from_millis(500)))? {
                        return Ok(());
                    }
                    if Instant::now() > until {
                        sent?;
                        return Err(Error::system(format!("container {id} was killed and does not end")));
                    }
                }
            }
            Found::Orphaned { .. } => self.bury(id),
            Found::Gone => Ok(()),
        }
    }

    /// Ends what a killed monitor left, and writes down that nobody saw how it ended.
    fn bury(&self, id: &str) -> Result<()> {
        self.delete_by_runtime(id)?;
        if self.last_run(id).is_none() {
            let exit = Exit {
                code: 137,
                signal: Some(SIGKILL.into()),
                finished_at: crate::container::status::format_time(time::OffsetDateTime::now_utc())?,
                ..Exit::default()
            };
            let text = serde_json::to_vec(&exit).map_err(|e| Error::system(e.to_string()))?;
            let replace = |dir: &Path| home::replace(&dir.join("exit.json"), 0o600, &text);
            // The disk may be full.
            replace(&self.containers.dir(id)).or_else(|_| replace(&self.run_dir(id)))?;
        }
        self.ended(id)
    }

    /// Waits for a container's end, and says how it ended.
    ///
    /// # Errors
    /// It is not there.
    pub fn wait(&self, id: &str, condition: Condition) -> Result<i64> {
        let before = self.last_run(id);
        let mut code = before.as_ref().map_or(0, |last| last.code);
        let mut was_under_way = false;
        loop {
            let until = if condition == Condition::Removed { Until::Ended } else { Until::Exit };
            match self.found(id)? {
                Found::Monitored(client) => match client.wait(until).and_then(Waiter::wait) {
                    Ok(exit) if condition != Condition::Removed => {
                        self.wait_until_down(id, &exit);
                        return Ok(exit.code.into());
                    }
                    Ok(exit) => code = exit.code.into(),
                    // The monitor left meanwhile, or it was killed.
                    Err(_) => was_under_way = true,
                },
                Found::Orphaned { status, pid } if is_under_way(&status) => {
                    was_under_way = true;
                    if let Some(pidfd) =
                        Pid::from_raw(pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok())
                    {
                        readable(&pidfd, None)?;
                    }
                }
                _ => {}
            }
            let now = self.last_run(id);
            code = now.as_ref().map_or(code, |last| last.code);
            let is_there = self.containers.dir(id).exists();
            let ended_since =
                now.as_ref().map(|last| &last.finished_at) != before.as_ref().map(|last| &last.finished_at);
            let rests = match self.found(id)? {
                Found::Gone => true,
                // Its monitor was killed, and nobody takes it away until it is started, removed or restored.
                Found::Orphaned { status, .. } => !is_under_way(&status),
                Found::Monitored(_) => false,
            };
            if rests && let Ok(container) = self.containers.load(id) {
                code = self.last_end(&container).map_or(code, |last| last.code);
            }
            match condition {
                _ if !is_there => return Ok(code),
                Condition::NotRunning if rests => return Ok(code),
                Condition::NextExit if rests && (ended_since || was_under_way) => return Ok(code),
                // Nobody tells when somebody starts it or removes it.
                _ => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }

    /// Waits a while until what a container had that has ended with `exit` is free: its ports and addresses are the next
    /// one's that the caller starts.
    pub fn wait_until_down(&self, id: &str, exit: &Exit) {
        if !exit.restarting
            && let Ok(Found::Monitored(client)) = self.found(id)
            // Somebody may have started it again.
            && client.status().is_ok_and(|status| status.phase == Phase::Ending)
            && let Ok(waiter) = client.wait(Until::Ended)
        {
            let _ = readable(&waiter, Some(TAKEN_DOWN));
        }
    }

    /// Freezes a container.
    ///
    /// # Errors
    /// It does not run, or is frozen already.
    pub fn pause(&self, id: &str) -> Result<()> {
        let _lock = self.containers.lock(id)?;
        self.running(id)?;
        if self.is_paused(id)? {
            return Err(Error::conflict(format!("Container {id} is already paused")));
        }
        self.runtime_command(&["pause", id])
    }

    /// Thaws a container.
    ///
    /// # Errors
    /// It is not frozen.
    pub fn unpause(&self, id: &str) -> Result<()> {
        let _lock = self.containers.lock(id)?;
        self.containers.load(id)?;
        if !self.is_paused(id)? {
            return Err(Error::conflict(format!("Container {id} is not paused")));
        }
        self.runtime_command(&["resume", id])
    }

    /// The monitor of a container that runs.
    ///
    /// # Errors
    /// It does not run, or its monitor was killed.
    pub fn running(&self, id: &str) -> Result<Client> {
        self.containers.load(id)?;
        match self.found(id)? {
            Found::Monitored(client) if client.status()?.phase == Phase::Running => Ok(client),
            Found::Orphaned { status, .. } if is_under_way(&status) => {
                Err(Error::conflict(format!("Container {id} has lost its monitor")).remedy("restart it"))
            }
            _ => Err(Error::conflict(format!("Container {id} is not running"))),
        }
    }

    /// Gives a container another name.
    ///
    /// # Errors
    /// It is somebody's, or no name.
    pub fn rename(&self, id: &str, name: &str) -> Result<()> {
        let _lock = self.containers.lock(id)?;
        let mut container = self.containers.load(id)?;
        self.containers.rename(&mut container, name)?;
        self.networks.rename(id, container.record.name.trim_start_matches('/'))
    }

    /// From here on a reboot leaves it alone if its policy is `unless-stopped`. The container is locked. On a full disk
    /// this cannot be kept, and the container is ended all the same.
    fn stopped_by_hand(&self, id: &str) {
        if let Ok(mut container) = self.containers.load(id)
            && !container.record.has_been_manually_stopped
        {
            container.record.has_been_manually_stopped = true;
            let _ = self.containers.save_record(&container);
        }
    }

    /// Likewise, of one that is not locked: whoever has it locked, as to stop it, is not waited for.
    fn killed_by_hand(&self, id: &str) {
        if let Ok(Some(_lock)) = self.containers.try_lock(id) {
            self.stopped_by_hand(id);
        }
    }

    fn signal(&self, id: &str, number: u8) -> Result<()> {
        self.runtime_command(&["kill", id, &number.to_string()])
    }

    /// A container that has ended meanwhile needs no signal.
    fn signal_if_there(&self, id: &str, number: u8) -> Result<()> {
        match self.signal(id, number) {
            Err(e) if gone(&e.to_string()) => Ok(()),
            other => other,
        }
    }

    pub(super) fn delete_by_runtime(&self, id: &str) -> Result<()> {
        self.runtime_command(&["delete", "--force", id])
    }

    /// Runs rrun.
    pub(super) fn runtime_command(&self, arguments: &[&str]) -> Result<()> {
        self.runtime_output(arguments).map(|_| ())
    }

    /// Runs rrun, and takes what it prints.
    pub(super) fn runtime_output(&self, arguments: &[&str]) -> Result<Vec<u8>> {
        let runtime = self.runtime();
        let output = Command::new(&runtime[0])
            .args(&runtime[1..])
            .args(["--log-format", "json"])
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .context(|| format!("execute {}", runtime[0]))?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        Err(Error::system(super::show::said(&output.stderr)))
    }
}

/// rrun says so of a container that it does not know, and of one that has ended.
pub(super) fn gone(text: &str) -> bool {
    ["does not exist", "not running", "no such process"].iter().any(|words| text.contains(words))
}

fn stop_signal(container: &Container) -> Result<u8> {
    match container.record.config.stop_signal.as_str() {
        "" => signal::parse("SIGTERM"),
        text => signal::parse(text),
    }
}

/// How long a container has before it is killed; nothing is for ever.
fn patience(container: &Container, timeout: Option<i64>) -> Option<Duration> {
    let timeout = timeout.or(container.record.config.stop_timeout).unwrap_or(STOP_TIMEOUT);
    u64::try_from(timeout).ok().map(Duration::from_secs)
}

/// Waits until `fd` is readable, no longer than `patience`.
fn readable(fd: &impl AsFd, patience: Option<Duration>) -> Result<bool> {
    let until = patience.and_then(|patience| Instant::now().checked_add(patience));
    loop {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let left = left.map(|left| Timespec {
            tv_sec: left.as_secs().cast_signed(),
            tv_nsec: left.subsec_nanos().into(),
        });
        match poll(&mut [PollFd::new(fd, PollFlags::IN)], left.as_ref()) {
            Ok(ready) => return Ok(ready > 0),
            Err(Errno::INTR) => {}
            Err(e) => return Err(Error::from(e).context("poll")),
        }
    }
}
