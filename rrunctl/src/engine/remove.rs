//! `rm` and `prune`.

#![forbid(unsafe_code)]

use super::Engine;
use crate::container::record::Container;
use crate::error::{Error, Kind, Result};
use crate::home;
use crate::monitor::Found;

/// What a prune removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// The containers.
    pub ids: Vec<String>,
    /// What they had written, in bytes.
    pub bytes: u64,
}

impl Engine {
    /// Removes a container; by `force` one that runs, and with `volumes` those of its volumes that nobody named.
    ///
    /// # Errors
    /// It runs; something of it cannot be taken down.
    pub fn remove(&self, id: &str, force: bool, volumes: bool) -> Result<()> {
        let _lock = self.containers.lock(id)?;
        let container = self.containers.load(id)?;
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

    /// Forgets a container that does not run. May be done twice.
    ///
    /// # Errors
    /// Those of the network and of the files.
    pub(super) fn discard(&self, container: &Container, volumes: bool) -> Result<()> {
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

    /// Removes every container that does not run and that `chosen` picks.
    ///
    /// # Errors
    /// Those of [`Engine::remove`].
    pub fn prune(&self, chosen: impl Fn(&Container) -> bool) -> Result<Pruned> {
        let mut pruned = Pruned::default();
        for container in self.containers.list()? {
            let id = &container.record.id;
            if !chosen(&container) || self.state(&container)?.running {
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
        let mut alive = Vec::new();
        for container in self.containers.list()? {
            let id = container.record.id.clone();
            if matches!(self.found(&id)?, Found::Gone) {
                // A command that is at work on it takes down and makes as it needs.
                if let Some(_lock) = self.containers.try_lock(&id)? {
                    self.take_down(&id)?;
                }
            }
            alive.push(id);
        }
        for entry in std::fs::read_dir(self.home.run()).into_iter().flatten().flatten() {
            let Ok(name) = entry.file_name().into_string() else { continue };
            if name.len() == 64 && !alive.contains(&name) && !self.containers.dir(&name).exists() {
                self.end_at_once(&name)?;
                self.delete_by_runtime(&name)?;
                self.take_down(&name)?;
                self.networks.release(&name)?;
                home::remove_tree(&entry.path())?;
            }
        }
        self.networks.sweep(&|id| alive.iter().any(|one| one == id))
    }
}
