//! What containers are at, as `ps`, `inspect` and `top` show it.

#![forbid(unsafe_code)]

use super::Engine;
use super::filter::{Filters, Verdict};
use crate::container::inspect::{self, Layers};
use crate::container::record::{self, Container, Ended, Running};
use crate::container::types::{Inspect, State, Summary};
use crate::digest::Digest;
use crate::error::{Context as _, Error, Kind, Result};
use crate::home;
use crate::monitor::{self, Found, Phase};
use crate::store::User;
use serde::Deserialize;
use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use time::OffsetDateTime;

/// rrun's word for a container.
#[derive(Debug, Clone, Default, Deserialize)]
struct OfRuntime {
    id: String,
    #[serde(default)]
    status: String,
    #[serde(default)]
    created: String,
}

/// A container in a list, what it is at, and its row of `docker ps`.
pub type Listed = (Container, State, Summary);

/// `docker top`: what ps(1) says of a container's processes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Top {
    /// The columns.
    pub titles: Vec<String>,
    /// A row each.
    pub processes: Vec<Vec<String>>,
}

impl Engine {
    /// The id that a name, an id or the first digits of an id mean.
    ///
    /// # Errors
    /// None, or several.
    pub fn resolve(&self, given: &str) -> Result<String> {
        self.containers.resolve(given)
    }

    /// Who looks after a container.
    pub(super) fn found(&self, id: &str) -> Result<Found> {
        // What a boot took has nobody; and monitor.json is not flushed.
        let run = self.run_dir(id);
        if !run.exists() {
            return Ok(Found::Gone);
        }
        // Of those that have ended rrun has nothing either: no process for each of them.
        let monitored = monitor::is_alive(&run)?;
        if !monitored && !self.home.run().join("rrun").join(id).exists() {
            return Ok(Found::Gone);
        }
        let path = self.containers.dir(id).join("monitor.json");
        let settings = match home::read(&path)? {
            Some(text) => serde_json::from_slice(&text)
                .map_err(|e| Error::system(e.to_string()).context(path.display()))?,
            // It was never started, or its files are gone and something of it may be left.
            None => monitor::Settings {
                id: id.to_owned(),
                bundle: PathBuf::new(),
                runtime: self.runtime(),
                run,
                root: None,
                tty: false,
                open_stdin: false,
                stdin_once: false,
                log: monitor::Log::default(),
                restart: monitor::Restart::default(),
                ports: Vec::new(),
                dns: None,
                ended: Vec::new(),
            },
        };
        monitor::find(&settings)
    }

    /// What the last run left.
    pub(super) fn last_run(&self, id: &str) -> Option<Ended> {
        // A power cut leaves it empty, and a container of which nobody knows how it ended. On a full disk it is in the
        // run directory.
        [self.containers.dir(id), self.run_dir(id)].iter().find_map(|dir| {
            let text = home::read(&dir.join("exit.json")).ok().flatten()?;
            serde_json::from_slice(&text).ok()
        })
    }

    /// Likewise, of one that rests: nobody has seen it if its monitor was killed, or the machine crashed.
    pub(super) fn last_end(&self, container: &Container) -> Option<Ended> {
        match self.last_run(&container.record.id) {
            // It was killed after the restart was written down.
            Some(last) => Some(Ended { restarting: false, ..last }),
            None if container.record.has_been_started_before => Some(record::unseen()),
            None => None,
        }
    }

    /// Whether a container is frozen.
    pub(super) fn is_paused(&self, id: &str) -> Result<bool> {
        Ok(self.of_runtime(id)?.is_some_and(|found| found.status == "paused"))
    }

    fn of_runtime(&self, id: &str) -> Result<Option<OfRuntime>> {
        match self.runtime_output(&["state", id]) {
            Ok(text) => {
                let state = serde_json::from_slice(&text);
                state.map(Some).map_err(|e| Error::system(e.to_string()).context("rrun state"))
            }
            Err(e) if e.to_string().contains("does not exist") => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Every container that rrun knows: one process instead of one for each.
    fn all_of_runtime(&self) -> Result<HashMap<String, OfRuntime>> {
        // After a boot there is nothing, and rrun has nowhere to look.
        if !self.home.run().join("rrun").exists() {
            return Ok(HashMap::new());
        }
        let text = self.runtime_output(&["list", "--format", "json"])?;
        let all: Option<Vec<OfRuntime>> =
            serde_json::from_slice(&text).map_err(|e| Error::system(e.to_string()).context("rrun list"))?;
        Ok(all.unwrap_or_default().into_iter().map(|one| (one.id.clone(), one)).collect())
    }

    /// Their ids.
    pub(super) fn ids_of_runtime(&self) -> Result<BTreeSet<String>> {
        Ok(self.all_of_runtime()?.into_keys().collect())
    }

    /// What a container is at.
    ///
    /// # Errors
    /// Those of its monitor and of rrun.
    pub fn state(&self, container: &Container) -> Result<State> {
        self.state_and_restarts(container, None).map(|(state, _)| state)
    }

    /// `all`: what rrun says of every container, if it was asked.
    fn state_and_restarts(
        &self,
        container: &Container,
        all: Option<&HashMap<String, OfRuntime>>,
    ) -> Result<(State, i64)> {
        let id = container.record.id.as_str();
        let last = self.last_run(id);
        let runtime = || match all {
            Some(all) => Ok(all.get(id).cloned()),
            None => self.of_runtime(id),
        };
        let running = match self.found(id)? {
            Found::Monitored(client) => match client.status() {
                Ok(status) if matches!(status.phase, Phase::Running) => {
                    let paused = runtime()?.is_some_and(|found| found.status == "paused");
                    let running =
                        Running { pid: status.pid.into(), paused, started_at: status.started_at.clone() };
                    return Ok((
                        record::state(&container.record, Some(&running), last.as_ref()),
                        status.restarts.into(),
                    ));
                }
                // Nobody can say what it is at.
                Err(e) if e.kind() != Kind::NotFound => return Err(e),
                // It has ended, is about to be, or the monitor has left.
                _ => None,
            },
            Found::Orphaned { status, pid } if is_under_way(&status) => Some(Running {
                pid: pid.into(),
                paused: status == "paused",
                started_at: runtime()?.map(|found| found.created).unwrap_or_default(),
            }),
            Found::Orphaned { .. } | Found::Gone => {
                let last = self.last_end(container);
                let restarts = last.as_ref().map_or(0, |last| last.restarts);
                return Ok((record::state(&container.record, None, last.as_ref()), restarts));
            }
        };
        // It may have been written since, and tells how the container ended that was asked about just now.
        let last = if running.is_none() { self.last_run(id) } else { last };
        let restarts = last.as_ref().map_or(0, |last| last.restarts);
        Ok((record::state(&container.record, running.as_ref(), last.as_ref()), restarts))
    }

    /// The rows of `docker ps`, the newest first; and what is wrong with those that cannot be shown, whose files are broken
    /// or whose monitors do not answer.
    ///
    /// # Errors
    /// A filter that there is not; those of the files and of rrun.
    pub fn list(&self, filters: &Filters) -> Result<(Vec<Listed>, Vec<Error>)> {
        let mut chosen = self.choose(filters)?;
        let mut containers = Vec::new();
        let (all, broken) = self.containers.list_all()?;
        let mut broken: Vec<Error> = broken.into_iter().map(|one| one.error).collect();
        for container in all {
            match chosen.by_record(&container) {
                Verdict::Shown => containers.push(container),
                Verdict::Hidden => {}
                Verdict::Last => break,
            }
        }
        let all = if containers.is_empty() { HashMap::new() } else { self.all_of_runtime()? };
        let now = OffsetDateTime::now_utc();
        let names = self.store.images().references()?;
        let mut rows = Vec::new();
        for container in containers {
            if filters.limit == Some(rows.len()) {
                break;
            }
            let (state, _) = match self.state_and_restarts(&container, Some(&all)) {
                Err(e) if e.kind() == Kind::NotFound => continue,
                Err(e) => {
                    broken.push(e.context(format!("container {}", container.record.id)));
                    continue;
                }
                Ok(state) => state,
            };
            if !chosen.by_state(&state) {
                continue;
            }
            // The name that it was made from, unless it means another image by now.
            let given = &container.record.config.image;
            let means = crate::reference::Reference::parse(given)
                .ok()
                .and_then(|name| names.get(&name).map(ToString::to_string));
            let image = match means {
                Some(id) if id == container.record.image => given.clone(),
                None if container.record.image.contains(given.as_str()) => given.clone(),
                _ => container.record.image.clone(),
            };
            let mut row = inspect::summary(&container, &state, &image, now);
            if filters.size {
                (row.size_rw, row.size_root_fs) = self.sizes(&container)?;
            }
            rows.push((container, state, row));
        }
        Ok((rows, broken))
    }

    /// What the container wrote, and that with its image.
    fn sizes(&self, container: &Container) -> Result<(i64, i64)> {
        let written = home::size(&self.containers.dir(&container.record.id).join("rw"));
        let image = self
            .store
            .images()
            .of_container(&Digest::parse(&container.record.image)?)
            .map_or(0, |image| image.size);
        let number = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        Ok((number(written), number(written.saturating_add(image))))
    }

    /// `docker inspect` of a container.
    ///
    /// # Errors
    /// Those of the files, its monitor and rrun.
    pub fn inspect(&self, id: &str, size: bool) -> Result<Inspect> {
        let container = self.containers.load(id)?;
        let (state, restarts) = self.state_and_restarts(&container, None)?;
        let (dir, merged) = (self.containers.dir(id), self.run_dir(id).join("merged"));
        // An image that was removed by force is no reason not to show its container.
        let image = self.store.images().of_container(&Digest::parse(&container.record.image)?).ok();
        let lower = image.and_then(|image| self.store.layers().lower(&image).ok()).unwrap_or_default();
        let lower: Vec<&Path> = lower.iter().map(PathBuf::as_path).collect();
        let (upper, work) = (dir.join("rw"), dir.join("work"));
        let layers = Layers { lower: &lower, upper: &upper, work: &work, merged: &merged };
        let running = state.running && !state.restarting;
        let mut shown = inspect::inspect(&container, state, restarts, &layers);
        if !running {
            shown.network_settings = super::connect::at_rest(&shown.network_settings);
        }
        if size {
            let (written, all) = self.sizes(&container)?;
            (shown.size_rw, shown.size_root_fs) = (Some(written), Some(all));
        }
        Ok(shown)
    }

    /// The containers that were made from an image.
    ///
    /// # Errors
    /// Those of the files.
    pub fn users(&self, image: &Digest) -> Result<Vec<User>> {
        let image = image.to_string();
        let mut users = Vec::new();
        for container in self.containers.list()?.into_iter().filter(|one| one.record.image == image) {
            // Of which nobody can say it may run.
            let running = self.state(&container).map_or(true, |state| state.running || state.paused);
            users.push(User { id: container.record.id, running, image: container.record.config.image });
        }
        Ok(users)
    }

    /// The processes of a container, as ps(1) with `arguments` shows them.
    ///
    /// # Errors
    /// It does not run; ps cannot be run, or does not say which process a row is about.
    pub fn top(&self, id: &str, arguments: &[String]) -> Result<Top> {
        let container = self.containers.load(id)?;
        let state = self.state(&container)?;
        if !state.running || state.restarting {
            return Err(Error::conflict(format!("container {id} is not running")));
        }
        let text = self.runtime_output(&["ps", "--format", "json", id])?;
        let pids: Option<Vec<i64>> =
            serde_json::from_slice(&text).map_err(|e| Error::system(e.to_string()).context("rrun ps"))?;
        let pids = match self.has_cgroups() {
            true => pids.unwrap_or_default(),
            false => in_pid_namespace_of(state.pid),
        };
        // A process of somebody else could pass for one of these.
        let words: Vec<&str> = arguments.iter().flat_map(|text| text.split([',', ' '])).collect();
        for (title, word) in
            words.iter().filter_map(|word| word.split_once('=').map(|(_, title)| (title, word)))
        {
            if title.starts_with("PID") && !word.trim_start_matches("-o").starts_with("pid=") {
                return Err(Error::invalid(format!("specifying \"{word}\" is not allowed")));
            }
        }
        let given = if arguments.is_empty() { vec!["-ef".to_owned()] } else { arguments.to_vec() };
        let output = std::process::Command::new("ps")
            .args(&given)
            .output()
            .context(|| "execute ps")
            .map_err(|e| e.remedy("install procps"))?;
        if !output.status.success() {
            return Err(Error::invalid(format!("ps: {}", String::from_utf8_lossy(&output.stderr).trim())));
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let mut lines = text.lines();
        let titles: Vec<String> =
            lines.next().unwrap_or_default().split_whitespace().map(str::to_owned).collect();
        let at = titles.iter().position(|title| title == "PID").ok_or_else(|| {
            Error::invalid("Couldn't find PID field in ps output").remedy("let ps print the column pid")
        })?;
        let mut processes = Vec::new();
        let mut shown = false;
        for line in lines {
            let mut words = line.split_whitespace();
            // The last column has blanks of its own.
            let mut row: Vec<String> = words.by_ref().take(titles.len() - 1).map(str::to_owned).collect();
            row.push(words.collect::<Vec<_>>().join(" "));
            // `ps -m`: threads have a row of their own below their process's.
            let of_last = row.get(at).is_some_and(|pid| pid == "-") && shown;
            shown = of_last
                || row.get(at).and_then(|pid| pid.parse().ok()).is_some_and(|pid: i64| pids.contains(&pid));
            if shown {
                processes.push(row);
            }
        }
        Ok(Top { titles, processes })
    }
}

/// Whether a container whose monitor was killed runs, by rrun's word. One that is being made or waits to be started does
/// so for ever: only its monitor would have started it.
pub(super) fn is_under_way(status: &str) -> bool {
    matches!(status, "running" | "paused")
}

/// The words of an error that rrun has logged as JSON, a line each; its last ones.
pub(super) fn said(stderr: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Line {
        msg: String,
    }
    let text = String::from_utf8_lossy(stderr);
    let last =
        text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("rrun failed without a word");
    serde_json::from_str::<Line>(last).map_or_else(|_| last.to_owned(), |line| line.msg)
}

/// The processes of a container that no cgroup has to itself; not those in a PID namespace of their own within it.
fn in_pid_namespace_of(pid: i64) -> Vec<i64> {
    let namespace = |pid: i64| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let Some(own) = namespace(pid) else { return Vec::new() };
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| namespace(*pid).as_ref() == Some(&own)).collect()
}
