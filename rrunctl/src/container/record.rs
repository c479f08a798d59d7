//! Containers on disk: `containers/ID/config.v2.json` and `hostconfig.json`, and `names/NAME`.
//!
//! The two files have Docker's names and forms. `hostconfig.json` may be edited by hand; it is read again at each use.
//! What a container is at is not in them: it comes from its monitor, or from what that left, `exit.json`.

#![forbid(unsafe_code)]

use super::mount::Point;
use super::name;
use super::types::{Config, HostConfig, List, Map, NEVER, NetworkSettings, State, go, omit};
use crate::error::{Context as _, Error, Kind, Result};
use crate::home::{self, Home, Lock};
use rustix::fs::{AtFlags, CWD, FlockOperation, flock, linkat};
use rustix::io::Errno;
use serde::Deserialize;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

go! {
    /// `config.v2.json`.
    struct Record {
        /// 64 digits.
        #[serde(rename = "ID")]
        id: String,
        /// RFC 3339 with nanoseconds.
        created: String,
        /// The program.
        path: String,
        /// Its arguments.
        args: List<String>,
        /// What is run.
        config: Config,
        /// The image's id.
        image: String,
        /// The networks, as they were asked for, and as they are while it runs.
        network_settings: NetworkSettings,
        /// The log; empty without one.
        log_path: String,
        /// With a slash in front.
        name: String,
        /// `overlay2`.
        driver: String,
        /// `linux`.
        #[serde(rename = "OS")]
        os: String,
        /// Whether it has run.
        has_been_started_before: bool,
        /// Whether somebody stopped it, so that `unless-stopped` leaves it alone after a boot.
        has_been_manually_stopped: bool,
        /// What is mounted, by its place.
        mount_points: Map<Point>,
        /// The profile that holds.
        app_armor_profile: String,
        /// Our file that is bound to /etc/hostname; empty for another container's.
        hostname_path: String,
        /// Likewise, /etc/hosts.
        hosts_path: String,
        /// Likewise, /etc/resolv.conf.
        resolv_conf_path: String,
        /// The hardware addresses that were asked for, by network: the networks' settings have those that were got.
        mac_addresses ? "omit": Map<String>,
        /// Why the last start failed.
        error ? "omit": String,
    }
}

const RECORD: &str = "config.v2.json";
const HOST: &str = "hostconfig.json";

/// The containers of an engine.
#[derive(Debug, Clone)]
pub struct Containers {
    home: Home,
}

/// One of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Container {
    /// `config.v2.json`.
    pub record: Record,
    /// `hostconfig.json`, as it is now.
    pub host: HostConfig,
}

/// A container of which nothing is known but its id: that it runs, what it has and what it is called may all be.
#[derive(Debug, Clone)]
pub struct Broken {
    /// 64 digits.
    pub id: String,
    /// Which file, where in it, and what to do.
    pub error: Error,
    /// A file is empty, as a power cut leaves one that was not flushed: it was to be removed in any case (`--rm`).
    pub lost: bool,
}

/// A name that nobody else can take; free again when it is dropped, unless it was kept.
#[derive(Debug)]
pub struct Reservation {
    path: Option<PathBuf>,
    name: String,
    #[expect(dead_code, reason = "held")]
    lock: File,
}

impl Reservation {
    /// The name, without a slash.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// It is a container's from now on.
    pub fn keep(mut self) {
        self.path = None;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            let _ = fs::remove_file(path);
        }
    }
}

impl Containers {
    /// Of `home`.
    pub fn open(home: &Home) -> Self {
        Self { home: home.clone() }
    }

    /// Where a container's files are.
    pub fn dir(&self, id: &str) -> PathBuf {
        self.home.kept("containers").join(id)
    }

    fn name_path(&self, name: &str) -> PathBuf {
        self.home.kept("names").join(name)
    }

    /// One command at a time changes a container.
    ///
    /// # Errors
    /// Those of flock(2); the container is gone.
    pub fn lock(&self, id: &str) -> Result<Lock> {
        let dir = self.dir(id);
        match Lock::exclusive(&dir.join("lock")) {
            Err(e) if e.errno() == Some(Errno::NOENT) => Err(name::no_such(id)),
            other => other,
        }
    }

    /// Likewise, without waiting: nothing, while another command has it.
    ///
    /// # Errors
    /// Those of flock(2); the container is gone.
    pub fn try_lock(&self, id: &str) -> Result<Option<Lock>> {
        match Lock::try_exclusive(&self.dir(id).join("lock")) {
            Err(e) if e.errno() == Some(Errno::NOENT) => Err(name::no_such(id)),
            other => other,
        }
    }

    /// Takes `name` for `id`, or makes one up.
    ///
    /// # Errors
    /// It is somebody else's, or no name.
    pub fn reserve(&self, wanted: Option<&str>, id: &str) -> Result<Reservation> {
        let wanted = wanted.filter(|name| !name.is_empty()).map(name::check).transpose()?;
        for attempt in 0..20 {
            let name = match wanted {
                Some(name) => name.to_owned(),
                None => name::random(attempt)?,
            };
            match (self.take(&name, id)?, wanted) {
                (Ok(lock), _) => return Ok(Reservation { path: Some(self.name_path(&name)), name, lock }),
                (Err(owner), Some(name)) => return Err(name::conflict(name, &owner)),
                (Err(_), None) => {}
            }
        }
        Err(Error::system("no name is free: give one with --name"))
    }

    /// Makes `names/NAME`, whole, and locks it; or tells who has it.
    fn take(&self, name: &str, id: &str) -> Result<std::result::Result<File, String>> {
        let path = self.name_path(name);
        let doing = || format!("reserve the name {name}");
        let _alone = Lock::exclusive(&self.home.kept("names/.lock"))?;
        if let Some(owner) = home::read(&path)? {
            let owner = String::from_utf8_lossy(&owner).trim().to_owned();
            // A killed create leaves a name without a container; one that is at work has it locked, and lets go of it
            // only when there is the container: so that is looked at last.
            let is_at_work = match File::open(&path) {
                // Who reserved it has just given it back.
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => false,
                file => flock(&file.context(doing)?, FlockOperation::NonBlockingLockExclusive).is_err(),
            };
            if is_at_work || self.is_called(&owner, name) {
                return Ok(Err(owner));
            }
            home::remove_tree(&path)?;
        }
        let new = self.home.kept("names").join(format!(".{}", home::unique()?));
        let mut file =
            OpenOptions::new().create_new(true).write(true).mode(0o600).open(&new).context(doing)?;
        let linked = flock(&file, FlockOperation::NonBlockingLockExclusive)
            .context(doing)
            .and_then(|()| file.write_all(id.as_bytes()).context(doing))
            .and_then(|()| linkat(CWD, &new, CWD, &path, AtFlags::empty()).context(doing));
        home::remove_tree(&new)?;
        linked.map(|()| Ok(file))
    }

    /// Whether there is a container `id` that may have this name: a killed rename leaves the one of before, or one that it
    /// never came to have.
    fn is_called(&self, id: &str, name: &str) -> bool {
        match read::<Record>(&self.dir(id).join(RECORD)) {
            Ok(Some(record)) => record.name.trim_start_matches('/') == name,
            _ => self.dir(id).exists(),
        }
    }

    /// Takes the name from the container `id`; not from who has come to have it since that is gone.
    fn free(&self, name: &str, id: &str) -> Result<()> {
        let path = self.name_path(name);
        let _alone = Lock::exclusive(&self.home.kept("names/.lock"))?;
        match home::read(&path)? {
            Some(owner) if String::from_utf8_lossy(&owner).trim() == id => home::remove_tree(&path),
            _ => Ok(()),
        }
    }

    /// Makes a container's directory, with its two files in it, at once. `more` puts further files into it.
    ///
    /// # Errors
    /// Those of writing.
    pub fn create(
        &self,
        container: &Container,
        reservation: Reservation,
        more: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<()> {
        let scratch = self.home.scratch("container")?;
        let new = scratch.path().join("new");
        DirBuilder::new().mode(0o710).create(&new).context(|| format!("mkdir {}", new.display()))?;
        write(&new, container)?;
        more(&new)?;
        let place = self.dir(&container.record.id);
        fs::rename(&new, &place).context(|| format!("rename to {}", place.display()))?;
        reservation.keep();
        Ok(())
    }

    /// Writes both files anew.
    ///
    /// # Errors
    /// Those of writing.
    pub fn save(&self, container: &Container) -> Result<()> {
        write(&self.dir(&container.record.id), container)
    }

    /// Writes `config.v2.json` anew, and leaves what somebody may be editing.
    ///
    /// # Errors
    /// Those of writing.
    pub fn save_record(&self, container: &Container) -> Result<()> {
        write_record(&self.dir(&container.record.id), container)
    }

    /// The container with this id.
    ///
    /// # Errors
    /// There is none; its files are missing, cannot be read, or are not JSON: then the error has line and column.
    pub fn load(&self, id: &str) -> Result<Container> {
        let dir = self.dir(id);
        let loaded = (|| {
            let missing = |name: &str| {
                Error::system(format!("{}: no such file or directory", dir.join(name).display()))
            };
            let record: Record = read(&dir.join(RECORD))?.ok_or_else(|| missing(RECORD))?;
            // What is done to a container is done by its id: another one's would be done to that.
            if record.id != id {
                return Err(Error::system(format!(
                    "{}: the ID is {:?}",
                    dir.join(RECORD).display(),
                    record.id
                )));
            }
            Ok(Container { record, host: read(&dir.join(HOST))?.ok_or_else(|| missing(HOST))? })
        })();
        // A container appears and goes as a whole.
        loaded.map_err(|e: Error| if dir.exists() { e } else { name::no_such(id) })
    }

    /// Every container, the newest first.
    ///
    /// # Errors
    /// Those of readdir(3), and the first one that is broken.
    pub fn list(&self) -> Result<Vec<Container>> {
        let (all, mut broken) = self.list_all()?;
        broken.pop().map_or(Ok(all), |one| Err(one.error))
    }

    /// Every container, the newest first, and those whose files are broken, as by a power cut or by hand.
    ///
    /// # Errors
    /// Those of readdir(3).
    pub fn list_all(&self) -> Result<(Vec<Container>, Vec<Broken>)> {
        let (mut all, mut broken) = (Vec::new(), Vec::new());
        for id in self.ids()? {
            match self.load(&id) {
                Ok(container) => all.push(container),
                // Removed meanwhile.
                Err(e) if e.kind() == Kind::NotFound => {}
                Err(e) => {
                    let remedy =
                        format!("repair the file, or `rrunctl rm -f {}`", id.get(..12).unwrap_or(&id));
                    let lost = [HOST, RECORD]
                        .iter()
                        .any(|name| fs::metadata(self.dir(&id).join(name)).is_ok_and(|file| file.len() == 0));
                    let error = e.context(format!("container {id}")).remedy(remedy);
                    broken.push(Broken { error, lost, id });
                }
            }
        }
        all.sort_by(|a: &Container, b| b.record.created.cmp(&a.record.created));
        Ok((all, broken))
    }

    fn ids(&self) -> Result<Vec<String>> {
        let dir = self.home.kept("containers");
        let mut ids = Vec::new();
        for entry in fs::read_dir(&dir).context(|| format!("open {}", dir.display()))? {
            ids.extend(entry.context(|| format!("read {}", dir.display()))?.file_name().into_string());
        }
        Ok(ids)
    }

    /// The id that `given` means: an id, a name, or how only one id begins.
    ///
    /// # Errors
    /// It means none, or several.
    pub fn resolve(&self, given: &str) -> Result<String> {
        let bare = given.strip_prefix('/').unwrap_or(given);
        // Most often a name or an id: one file instead of all.
        if name::is_valid(bare) {
            if bare.len() == 64 && self.dir(bare).join(RECORD).exists() {
                return Ok(bare.to_owned());
            }
            if let Some(id) = home::read(&self.name_path(bare))? {
                let id = String::from_utf8_lossy(&id).trim().to_owned();
                if self.dir(&id).exists() {
                    return Ok(id);
                }
            }
        }
        let ids = self.ids()?;
        name::resolve(given, ids.iter().map(|id| (id.as_str(), ""))).map(str::to_owned)
    }

    /// Gives a container another name.
    ///
    /// # Errors
    /// It is somebody's, or no name.
    pub fn rename(&self, container: &mut Container, name: &str) -> Result<()> {
        if name.is_empty() {
            return Err(Error::invalid("Neither old nor new names may be empty"));
        }
        let old = container.record.name.trim_start_matches('/').to_owned();
        if name::check(name)? == old {
            return Err(Error::invalid("Renaming a container with the same name as its current name"));
        }
        let reservation =
            self.reserve(Some(name), &container.record.id).context(|| "Error when allocating new name")?;
        container.record.name = format!("/{}", reservation.name());
        self.save(container)?;
        reservation.keep();
        self.free(&old, &container.record.id)
    }

    /// Takes a container away at once, then its files.
    ///
    /// # Errors
    /// Those of rename(2) and unlink(2).
    pub fn remove(&self, container: &Container) -> Result<()> {
        let free = |id: &str| self.free(container.record.name.trim_start_matches('/'), id);
        self.take_away(&container.record.id, free)
    }

    /// The same of one whose files are [broken](Self::list_all), so that nothing is known but its id.
    ///
    /// # Errors
    /// Those of [`Containers::remove`] and of readdir(3).
    pub fn remove_broken(&self, id: &str) -> Result<()> {
        self.take_away(id, |_| self.sweep_names())
    }

    fn take_away(&self, id: &str, free: impl FnOnce(&str) -> Result<()>) -> Result<()> {
        let place = self.dir(id);
        let (scratch, old) = match self.home.scratch("container") {
            Ok(scratch) => (Some(scratch), "old".to_owned()),
            // On a full disk there is room for another name, if not for another directory. Whoever sweeps it meanwhile
            // does what is done here.
            Err(e) if is_full(&e) => (None, format!("container.{}", home::unique()?)),
            Err(e) => return Err(e),
        };
        let dir = scratch.as_ref().map_or_else(|| self.home.kept("tmp"), |scratch| scratch.path().to_owned());
        let old = dir.join(old);
        let rename = || fs::rename(&place, &old).context(|| format!("rename {}", place.display()));
        rename().or_else(|e| {
            if !is_full(&e) {
                return Err(e);
            }
            // What it has written makes room; its record is there for another attempt.
            home::remove_tree(&place.join("rw")).and_then(|()| rename())
        })?;
        free(id)?;
        home::remove_tree(&old)
    }

    /// Frees the names that killed commands left: those that no container has and that nobody is about to give.
    ///
    /// # Errors
    /// Those of readdir(3), flock(2) and unlink(2).
    pub fn sweep_names(&self) -> Result<()> {
        let dir = self.home.kept("names");
        let _alone = Lock::exclusive(&dir.join(".lock"))?;
        for entry in fs::read_dir(&dir).context(|| format!("open {}", dir.display()))? {
            let entry = entry.context(|| format!("read {}", dir.display()))?;
            let path = entry.path();
            // One that has just been given back.
            let Ok(file) = File::open(&path) else { continue };
            let left = match &*entry.file_name().to_string_lossy() {
                ".lock" => false,
                // It was to be a name: who makes one has the lock.
                name if name.starts_with('.') => true,
                name => {
                    let is_at_work = flock(&file, FlockOperation::NonBlockingLockExclusive).is_err();
                    let owner = fs::read_to_string(&path).context(|| format!("read {}", path.display()))?;
                    !is_at_work && !self.is_called(owner.trim(), name)
                }
            };
            if left {
                home::remove_tree(&path)?;
            }
        }
        Ok(())
    }

    /// The ids of the containers that have a volume.
    ///
    /// # Errors
    /// Those of [`Containers::list`].
    pub fn users_of_volume(&self, volume: &str) -> Result<Vec<String>> {
        let has = |container: &Container| {
            container
                .record
                .mount_points
                .values()
                .any(|point| point.r#type == "volume" && point.name == volume)
        };
        Ok(self.list()?.into_iter().filter(has).map(|container| container.record.id).collect())
    }
}

/// Whether the file system, or what its owner may have of it, is full.
fn is_full(e: &Error) -> bool {
    matches!(e.errno(), Some(Errno::NOSPC | Errno::DQUOT))
}

fn write(dir: &Path, container: &Container) -> Result<()> {
    let host = serde_json::to_vec(&container.host).map_err(|e| Error::system(e.to_string()))?;
    replace(&dir.join(HOST), &host, container)?;
    write_record(dir, container)
}

fn write_record(dir: &Path, container: &Container) -> Result<()> {
    let record = serde_json::to_vec(&container.record).map_err(|e| Error::system(e.to_string()))?;
    replace(&dir.join(RECORD), &record, container)
}

/// What `--rm` has does not outlive a boot: the disk is not waited for, and a power cut may leave an [empty](Broken::lost)
/// file.
fn replace(path: &Path, bytes: &[u8], container: &Container) -> Result<()> {
    let replace = if container.host.auto_remove { home::replace_until_boot } else { home::replace };
    replace(path, 0o600, bytes)
}

fn read<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<Option<T>> {
    let Some(bytes) = home::read(path)? else { return Ok(None) };
    let value = serde_json::from_slice(&bytes);
    value.map(Some).map_err(|e| Error::system(e.to_string()).context(path.display().to_string()))
}

/// What a monitor leaves in `exit.json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Ended {
    /// The exit code, or 128 and the signal.
    pub code: i64,
    /// Whether the kernel killed for want of memory.
    pub oom: bool,
    /// RFC 3339; empty if it never ran.
    pub started_at: String,
    /// RFC 3339.
    pub finished_at: String,
    /// By its policy.
    pub restarts: i64,
    /// It is to be started again.
    pub restarting: bool,
    /// Why it could not be started.
    pub error: String,
}

/// What a monitor that lives says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Running {
    /// Its first process, on the host.
    pub pid: i64,
    /// It is frozen.
    pub paused: bool,
    /// RFC 3339.
    pub started_at: String,
}

/// How a container ended whose end nobody saw.
pub fn unseen() -> Ended {
    let error = "its monitor was killed, and how it ended was not seen".to_owned();
    Ended { code: 255, error, ..Ended::default() }
}

/// What a container is at, from what its monitor says, if it lives, and what it left.
pub fn state(record: &Record, running: Option<&Running>, ended: Option<&Ended>) -> State {
    let time = |text: Option<&String>| match text {
        Some(text) if !text.is_empty() => text.clone(),
        _ => NEVER.to_owned(),
    };
    let mut state = State {
        exit_code: ended.map_or(0, |ended| ended.code),
        oom_killed: ended.is_some_and(|ended| ended.oom),
        error: ended.map_or_else(|| record.error.clone(), |ended| ended.error.clone()),
        started_at: time(ended.map(|ended| &ended.started_at)),
        finished_at: time(ended.map(|ended| &ended.finished_at)),
        ..State::default()
    };
    let status = match (running, ended) {
        (Some(running), _) => {
            (state.running, state.paused, state.pid) = (true, running.paused, running.pid);
            state.started_at = time(Some(&running.started_at));
            // The last run's end is none of this one's.
            (state.exit_code, state.oom_killed) = (0, false);
            state.error.clear();
            if running.paused { "paused" } else { "running" }
        }
        (None, Some(ended)) if ended.restarting => {
            // As Docker has it: it runs, so to speak.
            (state.running, state.restarting) = (true, true);
            "restarting"
        }
        (None, Some(ended)) if !ended.started_at.is_empty() => "exited",
        _ if record.has_been_started_before && ended.is_some() => "exited",
        _ => "created",
    };
    status.clone_into(&mut state.status);
    state
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Dir(PathBuf);

    impl Drop for Dir {
        fn drop(&mut self) {
            home::remove_tree(&self.0).expect("remove");
        }
    }

    fn containers() -> (Dir, Containers) {
        let dir = std::env::temp_dir().join(format!("rrunctl-record-{}", home::unique().expect("random")));
        let home = Home::open(&dir.join("root"), &dir.join("run")).expect("a home");
        (Dir(dir), Containers::open(&home))
    }

    fn make(containers: &Containers, name: Option<&str>) -> Container {
        let id = name::id().expect("random");
        let reservation = containers.reserve(name, &id).expect("free");
        let record = Record { id, name: format!("/{}", reservation.name()), ..Record::default() };
        let container = Container { record, host: HostConfig::default() };
        containers.create(&container, reservation, |_| Ok(())).expect("made");
        container
    }

    #[test]
    fn a_container_is_found_as_it_was_written() {
        let (_dir, containers) = containers();
        let made = make(&containers, Some("/web"));
        let id = made.record.id.as_str();
        assert_eq!(containers.load(id).expect("there"), made);
        for given in ["web", "/web", id, &id[..12], &id[..20]] {
            assert_eq!(containers.resolve(given).expect(given), id);
        }
        assert_eq!(containers.resolve("nosuch").expect_err("none").to_string(), "No such container: nosuch");
        assert_eq!(containers.load(&id.replace(&id[..1], "x")).expect_err("none").kind(), Kind::NotFound);
    }

    #[test]
    fn a_name_is_one_containers() {
        let (dir, containers) = containers();
        let made = make(&containers, Some("web"));
        let e = containers.reserve(Some("web"), "x").expect_err("taken");
        assert_eq!(e.to_string(), name::conflict("web", &made.record.id).to_string());
        drop(containers.reserve(Some("other"), "x").expect("free"));
        drop(containers.reserve(Some("other"), "y").expect("free again"));
        assert!(containers.reserve(None, "x").expect("made up").name().contains('_'));
        containers.remove(&made).expect("removed");
        make(&containers, Some("web"));
        let left: Vec<_> = fs::read_dir(dir.0.join("root/names")).expect("readable").flatten().collect();
        assert_eq!(left.len(), 2, "web and the lock: {left:?}");
    }

    #[test]
    fn a_name_that_a_killed_create_left_is_free() {
        let (dir, containers) = containers();
        fs::write(dir.0.join("root/names/web"), "gone").expect("write");
        let at_work = containers.reserve(Some("web"), "x").expect("nobody is at work on it");
        assert!(containers.reserve(Some("web"), "y").is_err());
        drop(at_work);
        containers.reserve(Some("web"), "y").expect("free");
    }

    #[test]
    fn names_that_killed_commands_left_are_swept_and_others_are_not() {
        let (dir, containers) = containers();
        let mut made = make(&containers, Some("web"));
        let at_work = containers.reserve(Some("making"), "x").expect("free");
        let name = |name: &str, id: &str| {
            fs::write(dir.0.join("root/names").join(name), id).expect("write");
        };
        name("left", "gone");
        name(".0123456789abcdef", "gone");
        // As a killed rename leaves it.
        name("renamed", &made.record.id);
        containers.reserve(Some("renamed"), "x").expect("it is nobody's");
        name("renamed", &made.record.id);
        containers.rename(&mut made, "renamed").expect("it is nobody's");
        name("web", &made.record.id);
        containers.sweep_names().expect("swept");
        let names = fs::read_dir(dir.0.join("root/names")).expect("readable").flatten();
        let mut names: Vec<_> = names.map(|entry| entry.file_name()).collect();
        names.sort();
        assert_eq!(names, [".lock", "making", "renamed"]);
        drop(at_work);
    }

    #[test]
    fn a_broken_container_hides_no_other_and_can_be_removed() {
        let (dir, containers) = containers();
        let (whole, whole_again) = (make(&containers, Some("whole")), make(&containers, Some("broken")));
        let id = whole_again.record.id.as_str();
        for (file, content) in [(RECORD, Some("")), (HOST, Some("{")), (HOST, None), (RECORD, None)] {
            let path = containers.dir(id).join(file);
            match content {
                Some(content) => fs::write(&path, content).expect("write"),
                None => fs::remove_file(&path).expect("remove"),
            }
            let (all, broken) = containers.list_all().expect("readable");
            assert_eq!(all.as_slice(), std::slice::from_ref(&whole));
            assert_eq!(broken.iter().map(|one| one.id.as_str()).collect::<Vec<_>>(), [id]);
            let text = broken[0].error.to_string();
            let short = &id[..12];
            assert!(text.starts_with(&format!("container {id}: ")), "{text}");
            assert!(text.ends_with(&format!("(repair the file, or `rrunctl rm -f {short}`)")), "{text}");
            // Nobody knows which volumes it has.
            assert!(containers.list().is_err() && containers.users_of_volume("v1").is_err());
            for given in ["broken", id, short] {
                assert_eq!(containers.resolve(given).expect(given), id);
            }
            containers.save(&whole_again).expect("written");
        }
        containers.remove_broken(id).expect("removed");
        assert_eq!(containers.list().expect("readable"), [whole]);
        let names = fs::read_dir(dir.0.join("root/names")).expect("readable");
        assert_eq!(names.count(), 2, "whole and the lock");
        assert_eq!(fs::read_dir(dir.0.join("root/tmp")).expect("readable").count(), 0);
    }

    #[test]
    fn a_container_that_goes_leaves_its_name_to_who_took_it_meanwhile() {
        let (dir, containers) = containers();
        let first = make(&containers, Some("web"));
        let (place, away) = (containers.dir(&first.record.id), dir.0.join("away"));
        // As `remove` does it, and a create comes between its two steps.
        fs::rename(&place, &away).expect("rename");
        let second = make(&containers, Some("web"));
        fs::rename(&away, &place).expect("rename");
        containers.remove(&first).expect("removed");
        assert_eq!(containers.resolve("web").expect("there"), second.record.id);
    }

    #[test]
    fn a_container_is_renamed() {
        let (_dir, containers) = containers();
        let mut made = make(&containers, Some("one"));
        let other = make(&containers, Some("two"));
        containers.rename(&mut made, "three").expect("free");
        assert_eq!(containers.resolve("three").expect("there"), made.record.id);
        assert!(containers.resolve("one").is_err());
        let e = containers.rename(&mut made, "two").expect_err("taken").to_string();
        assert_eq!(e, format!("Error when allocating new name: {}", name::conflict("two", &other.record.id)));
        assert_eq!(
            containers.rename(&mut made, "three").expect_err("the same").to_string(),
            "Renaming a container with the same name as its current name"
        );
        assert!(containers.rename(&mut made, "").is_err() && containers.rename(&mut made, "a b").is_err());
    }

    #[test]
    fn hostconfig_is_read_as_it_was_edited() {
        let (_dir, containers) = containers();
        let made = make(&containers, Some("web"));
        let path = containers.dir(&made.record.id).join("hostconfig.json");
        let text = fs::read_to_string(&path).expect("readable");
        let edited =
            text.replace(r#""PortBindings":null"#, r#""PortBindings":{"80/tcp":[{"HostPort":"8080"}]}"#);
        fs::write(&path, edited).expect("write");
        let host = containers.load(&made.record.id).expect("there").host;
        assert_eq!(host.port_bindings["80/tcp"][0].host_port, "8080");
        fs::write(&path, "{\n  \"Memory\": “1”\n}").expect("write");
        let e = containers.load(&made.record.id).expect_err("no JSON").to_string();
        assert!(e.starts_with(&path.display().to_string()) && e.contains("line 2 column 13"), "{e}");
    }

    #[test]
    fn a_volumes_users_are_known() {
        let (_dir, containers) = containers();
        let mut made = make(&containers, None);
        let mut point = super::super::mount::parse_bind("v1:/data", "").expect("valid");
        point.set_volume("v1", Path::new("/x"));
        made.record.mount_points.insert("/data".to_owned(), point);
        containers.save(&made).expect("written");
        assert_eq!(containers.load(&made.record.id).expect("there"), made);
        assert_eq!(containers.users_of_volume("v1").expect("readable"), [made.record.id]);
        assert!(containers.users_of_volume("v2").expect("readable").is_empty());
    }

    #[test]
    fn what_a_container_is_at_follows_from_its_monitor() {
        let record = Record::default();
        let status = |running: Option<&Running>, ended: Option<&str>| {
            let ended: Option<Ended> = ended.map(|text| serde_json::from_str(text).expect("json"));
            state(&record, running, ended.as_ref())
        };
        let running = Running { pid: 7, paused: false, started_at: "2026-11-23T05:00:00Z".into() };
        let ended = r#"{"code":137,"signal":9,"oom":true,"started_at":"2026-11-23T04:00:00Z",
            "finished_at":"2026-11-23T04:30:00Z","restarts":2}"#;
        let created = status(None, None);
        assert_eq!(
            (created.status.as_str(), created.started_at.as_str(), created.pid),
            ("created", NEVER, 0)
        );
        let exited = status(None, Some(ended));
        assert_eq!((exited.status.as_str(), exited.exit_code, exited.oom_killed), ("exited", 137, true));
        let again = status(Some(&running), Some(ended));
        assert_eq!((again.status.as_str(), again.pid, again.exit_code), ("running", 7, 0));
        assert_eq!((again.finished_at.as_str(), again.oom_killed), ("2026-11-23T04:30:00Z", false));
        let frozen = Running { paused: true, ..running };
        let paused = status(Some(&frozen), None);
        assert!(paused.status == "paused" && paused.running && paused.paused);
        let waits = status(None, Some(&ended.replace("\"code\"", "\"restarting\":true,\"code\"")));
        assert!(waits.status == "restarting" && waits.running && waits.restarting);
        let failed = status(
            None,
            Some(r#"{"code":127,"error":"exec: not found","finished_at":"2026-11-23T04:30:00Z"}"#),
        );
        assert_eq!((failed.status.as_str(), failed.error.as_str()), ("created", "exec: not found"));
    }
}
