//! `rm` and `prune`.

#![forbid(unsafe_code)]

use super::Engine;
use crate::container::record::Container;
use crate::error::{Context as _, Error, Kind, Result};
use crate::home::{self, Lock};
use crate::monitor::Found;
use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

/// What a prune removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// The containers.
    pub ids: Vec<String>,
    /// What they had written, in bytes.
    pub bytes: u64,
}

impl Engine {
    /// Removes a container; by `force` one that runs or whose files are broken, and with `volumes` those of its volumes
    /// that nobody named.
    ///
    /// # Errors
    /// It runs; something of it cannot be taken down.
    pub fn remove(&self, id: &str, force: bool, volumes: bool) -> Result<()> {
        let was_there = self.containers.dir(id).exists();
        let lock = if force { self.lock_to_end(id, Some(Duration::ZERO)) } else { self.containers.lock(id) };
        let _lock = match lock {
            // Somebody else was faster.
            Err(e) if force && was_there && e.kind() == Kind::NotFound => return Ok(()),
            lock => lock?,
        };
        let container = match self.containers.load(id) {
            Err(e) if force && was_there && e.kind() == Kind::NotFound => return Ok(()),
            Err(e) if force && e.kind() != Kind::NotFound => return self.remove_broken(id),
            container => container?,
        };
        if !force {
            let state = self.state(&container)?;
            let name = &container.record.name;
            if state.paused {
                return Err(Error::conflict(format!(
                    "cannot remove container \"{name}\": container is paused and must be unpaused first"
                )));
            }
            if state.running {
                return Err(Error::conflict(format!(
                    "cannot remove container \"{name}\": container is running: stop the container before removing or force remove"
                )));
            }
        }
        self.end_at_once(id)?;
        match self.containers.load(id) {
            // It was `--rm`.
            Err(e) if e.kind() == Kind::NotFound => return Ok(()),
            _ => self.take_down(id)?,
        }
        self.discard(&container, volumes)
    }

    /// Nobody knows which volumes it had: they stay.
    fn remove_broken(&self, id: &str) -> Result<()> {
        self.end_at_once(id)?;
        self.take_down(id)?;
        self.networks.release(id)?;
        self.containers.remove_broken(id)?;
        home::remove_tree(&self.run_dir(id))
    }

    /// Forgets a container that does not run. May be done twice.
    ///
    /// # Errors
    /// Those of the network and of the files.
    pub(super) fn discard(&self, container: &Container, volumes: bool) -> Result<()> {
        self.unmount_volumes(container)?;
        let id = &container.record.id;
        self.networks.release(id)?;
        match self.containers.remove(container) {
            // Somebody else was faster.
            Err(e) if e.errno() == Some(rustix::io::Errno::NOENT) => {}
            other => other?,
        }
        home::remove_tree(&self.run_dir(id))?;
        if volumes {
            let points = container.record.mount_points.values();
            for point in points.filter(|point| point.is_anonymous() && !point.name.is_empty()) {
                match self.volumes.remove(&point.name, true, |name| self.containers.users_of_volume(name)) {
                    // Another container has come to use it.
                    Err(e) if e.kind() == Kind::Conflict => {}
                    other => other?,
                }
            }
        }
        Ok(())
    }

    /// Removes every container that does not run and that `chosen` picks; not those that are broken.
    ///
    /// # Errors
    /// Those of [`Engine::remove`].
    pub fn prune(&self, chosen: impl Fn(&Container) -> bool) -> Result<Pruned> {
        let mut pruned = Pruned::default();
        for container in self.containers.list_all()?.0 {
            let id = &container.record.id;
            // Of which nobody can say it may run.
            if !chosen(&container) || self.state(&container).map_or(true, |state| state.running) {
                continue;
            }
            let bytes = home::size(&self.containers.dir(id).join("rw"));
            match self.remove(id, false, false) {
                Ok(()) => {
                    pruned.bytes += bytes;
                    pruned.ids.push(id.clone());
                }
                // Started or removed meanwhile.
                Err(e) if matches!(e.kind(), Kind::Conflict | Kind::NotFound) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(pruned)
    }

    /// Takes down what killed commands and monitors left on this machine, of containers that are gone or do not run;
    /// what the user should know.
    ///
    /// # Errors
    /// The kernel's.
    pub fn sweep(&self) -> Result<Vec<String>> {
        let (containers, broken) = self.containers.list_all()?;
        for container in &containers {
            let id = &container.record.id;
            // A command that is at work on it takes down and makes as it needs.
            if let Found::Gone = self.found(id)?
                && let Some(_lock) = self.try_lock(id)?
                && let Found::Gone = self.found(id)?
            {
                self.take_down(id)?;
            }
        }
        // Looked at again, as some were made since.
        let is_there = |id: &str| self.containers.dir(id).exists();
        for id in self.left()?.into_iter().filter(|id| !is_there(id)) {
            self.end_at_once(&id)?;
            self.delete_by_runtime(&id)?;
            self.take_down(&id)?;
            self.networks.release(&id)?;
            home::remove_tree(&self.run_dir(&id))?;
        }
        self.containers.sweep_names()?;
        let mut warnings = self.networks.sweep(&is_there)?;
        // What a killed cp or start has mounted.
        let unmounted = self.volumes.list()?.into_iter().map(|volume| self.unmount_volume(&volume, None));
        warnings.extend(unmounted.filter_map(Result::err).map(|e| e.to_string()));
        warnings.extend(broken.into_iter().map(|one| one.error.to_string()));
        Ok(warnings)
    }

    /// Nothing, too, where it is removed meanwhile.
    fn try_lock(&self, id: &str) -> Result<Option<Lock>> {
        match self.containers.try_lock(id) {
            Err(e) if e.kind() == Kind::NotFound => Ok(None),
            other => other,
        }
    }

    /// The ids of everything that there is of containers elsewhere than in their directories.
    fn left(&self) -> Result<BTreeSet<String>> {
        let mut ids = self.ids_of_runtime()?;
        let dir = self.home.run();
        for entry in fs::read_dir(dir).context(|| format!("open {}", dir.display()))? {
            let name = entry.context(|| format!("read {}", dir.display()))?.file_name().into_string();
            ids.extend(name.ok().filter(|name| name.len() == 64));
        }
        Ok(ids)
    }
}
