//! The cgroups of a container: made, limited, joined, frozen, killed and removed through the cgroup file
//! system, v1, hybrid or v2.
//!
//! A container has one cgroup in every hierarchy, all at the path that [`crate::plan::cgroup`] decided. With
//! systemd, [`systemd`] has some of the directories made; what is done with them afterwards is the same.

#![forbid(unsafe_code)]

mod delegation;
mod devices;
mod dir;
pub mod layout;
pub mod oom;
pub mod stats;
pub mod systemd;
mod v1;
mod v2;

use crate::error::{Call, Error, Result};
use crate::plan::cgroup::{CgroupPlan, Place, Write, v1_devices};
pub use devices::apply_devices;
use dir::{Dir, is_gone, is_refused};
use layout::Version;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{AtFlags, CWD, unlinkat};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Resource, Signal, getrlimit, kill_process, pidfd_open};
use std::cell::OnceCell;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The longest that anything here waits.
const LIMIT: Duration = Duration::from_secs(10);
/// After which what is waited for is looked at again.
const MOMENT: Duration = Duration::from_millis(100);

/// When waiting ends.
struct Deadline(Instant);

impl Deadline {
    fn after(time: Duration) -> Self {
        let now = Instant::now();
        Self(now.checked_add(time).unwrap_or(now))
    }

    /// For poll(2); `None` when the time is over.
    fn left(&self) -> Option<Timespec> {
        let left = self.0.checked_duration_since(Instant::now())?;
        Timespec::try_from(left).ok()
    }

    /// This, or earlier.
    fn within(&self, time: Duration) -> Self {
        Self(self.0.min(Self::after(time).0))
    }

    /// Gives way to others for a moment, where the kernel has no event to wait for.
    fn pause(&self) -> Result<(), ()> {
        self.left().ok_or(())?;
        let moment = Timespec { tv_sec: 0, tv_nsec: 500_000 };
        let _ = poll(&mut [], Some(&moment));
        Ok(())
    }
}

/// The cgroup in one hierarchy.
#[derive(Debug)]
struct Group {
    version: Version,
    // On v2 read when first asked for.
    controllers: OnceCell<Vec<String>>,
    // Of one that is recorded, opened when first asked for: most commands ask for one of them all. None where the
    // cgroup is gone.
    dir: OnceCell<Option<Dir>>,
    path: PathBuf,
    // Directories made here, outermost first; the last is the cgroup itself if it was made.
    made: Vec<PathBuf>,
}

/// The cgroups of one container.
///
/// Dropped without [`Cgroup::keep`], it removes what [`create`] made.
#[derive(Debug)]
pub struct Cgroup {
    groups: Vec<Group>,
    best_effort: bool,
    // With a limit, a process that cannot join is an error.
    limited: bool,
    // Above, and with the directories that systemd makes.
    scope: Option<systemd::Scope>,
}

/// What a process needs to be in the container's cgroups from its beginning, instead of being moved there.
///
/// Writing another process's pid to cgroup.procs takes a lock on the forks, exits and execs of every process of the
/// machine, which waits for a grace period of RCU: 10 ms here, unless somebody has just waited for one. A process that
/// is made there (`CLONE_INTO_CGROUP`), and a thread that writes its own 0 to `tasks`, take no such lock (kernel commit
/// 9a3284fad42f, Linux 5.2).
#[derive(Debug, Default)]
pub struct Entry {
    /// The cgroup of v2, for clone3(2).
    pub unified: Option<OwnedFd>,
    /// Those of v1.
    pub tasks: Tasks,
}

/// The `tasks` files of v1 cgroups, open for writing.
pub type Tasks = Vec<(PathBuf, OwnedFd)>;

/// Makes the container's cgroup of v2, in which its first process is made; [`Cgroup::complete`] makes those of v1, and
/// no limit is set yet.
///
/// # Errors
/// A cgroup that already has processes or is frozen, or one that cannot be made.
pub fn create(plan: &CgroupPlan) -> Result<Cgroup> {
    let mut cgroup = Cgroup::new(plan, None);
    cgroup.make(plan, None, Version::V2)?;
    Ok(cgroup)
}

/// The container's cgroup as systemd will make it: nothing is there before [`Cgroup::start`].
pub fn through(plan: &CgroupPlan, connection: systemd::Connection) -> Cgroup {
    let scope = plan.unit.as_ref().map(|unit| systemd::Scope::new(unit, connection));
    Cgroup::new(plan, scope)
}

const NO_PERMISSION: &str =
    "rootless needs no limits + no cgrouppath when no permission is granted for cgroups";

impl Cgroup {
    fn new(plan: &CgroupPlan, scope: Option<systemd::Scope>) -> Self {
        let limited = plan.limits.iter().any(|limit| !limit.default);
        Self { groups: Vec::new(), best_effort: plan.best_effort, limited, scope }
    }

    /// Makes the container's cgroup in the hierarchies of v1, beside its first process, which enters them later. What
    /// systemd makes is there by now.
    ///
    /// # Errors
    /// As [`create`].
    pub fn complete(&mut self, plan: &CgroupPlan) -> Result<()> {
        match self.scope {
            None => self.add_v1(plan, None),
            Some(_) => Ok(()),
        }
    }

    fn add_v1(&mut self, plan: &CgroupPlan, inside: Option<u32>) -> Result<()> {
        self.make(plan, inside, Version::V1)?;
        // Back to the order of the plan, in which that of v2 is not the first.
        let unified = plan.places.iter().position(|place| place.hierarchy.version == Version::V2);
        if let Some(groups) = unified.and_then(|at| self.groups.get_mut(..=at)) {
            groups.rotate_left(1);
        }
        Ok(())
    }

    /// Opens or makes the directories. `inside` is the process that systemd has put into some already.
    fn make(&mut self, plan: &CgroupPlan, inside: Option<u32>, version: Version) -> Result<()> {
        for place in plan.places.iter().filter(|place| place.hierarchy.version == version) {
            let i = self.groups.len();
            self.groups.push(Group::of(place));
            let Some(group) = self.groups.get_mut(i) else { continue };
            // The v2 hierarchy beside those of v1 holds no process that those do not, so a user who was given the
            // latter alone goes without.
            let beside = group.version == Version::V2
                && plan.places.iter().any(|p| p.hierarchy.version == Version::V1);
            match make(place, plan, group, inside) {
                Ok(()) => {}
                Err(e) if (plan.best_effort || beside) && is_refused(&e) => {
                    let limits = plan.limits.iter().filter(|limit| !limit.default);
                    if group.version == Version::V2
                        && limits.into_iter().any(|limit| group.has(&limit.controller))
                    {
                        return Err(e.context(NO_PERMISSION));
                    }
                    group.undo();
                    group.dir = OnceCell::from(None);
                }
                Err(e) if is_refused(&e) => return Err(e.context("unable to apply cgroup configuration")),
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// With systemd, starts the scope with its first process and completes the directories; otherwise they are
    /// there already.
    ///
    /// # Errors
    /// What systemd refuses, and those of [`create`].
    pub fn start(&mut self, plan: &CgroupPlan, pid: u32) -> Result<()> {
        let (Some(scope), Some(unit)) = (&mut self.scope, &plan.unit) else { return Ok(()) };
        let is_empty = || {
            let of = |(_, path): &(String, PathBuf)| Dir::open(path).and_then(|dir| dir.procs());
            Self::planned(plan).iter().all(|place| of(place).map_or(true, |pids| pids.is_empty()))
        };
        // Before systemd takes it over, and removes it when the scope is stopped for this very reason.
        for group in plan.places.iter().map(Group::of) {
            if let Ok(dir) = Dir::open(&group.path) {
                vacant(&dir, &group, None, false)?;
            }
        }
        scope.start(unit, pid, is_empty)?;
        self.make(plan, Some(pid), Version::V2)?;
        self.add_v1(plan, Some(pid))
    }
}

fn make(place: &Place, plan: &CgroupPlan, group: &mut Group, inside: Option<u32>) -> Result<()> {
    let mount = Dir::open(&place.hierarchy.mount)?;
    let must: Vec<&str> = plan.limits.iter().map(|limit| limit.controller.as_str()).collect();
    let parts: Vec<&str> = place.path.split('/').filter(|part| !part.is_empty()).collect();
    let (mut found, mut made) = (None, false);
    // The way down is walked only as far as needed: the parent mostly exists, and on v2 what it has enabled those
    // above have too.
    let (mut rest, mut ready) = (parts.as_slice(), false);
    if let Some((last, parents @ [_, ..])) = parts.split_last() {
        match mount.child(&parents.join("/")) {
            Ok(parent) => {
                ready = v2::missing(&parent, &place.enable)?.is_empty();
                if ready {
                    (found, rest) = (Some(parent), std::slice::from_ref(last));
                }
            }
            Err(e) if e.errno() == Some(Errno::NOENT) => {}
            Err(e) => return Err(e),
        }
    }
    for part in rest {
        let above = found.as_ref().unwrap_or(&mount);
        if !ready {
            v2::enable(above, &place.enable, &must)?;
        }
        let (dir, new) = above.make(part)?;
        if new {
            group.made.push(dir.path().to_owned());
        }
        (found, made) = (Some(dir), new);
    }
    let dir = found.map_or_else(|| mount.child("."), Ok)?;
    if group.version == Version::V2 {
        let limited = place.enable.iter().any(|name| {
            must.contains(&name.as_str()) && !["cpu", "cpuset", "pids", "perf_event"].contains(&name.as_str())
        });
        v2::check_type(&dir, limited)?;
    }
    vacant(&dir, group, inside, made)?;
    if group.version == Version::V1 && group.has("cpuset") {
        v1::fill_cpuset(&mount, &place.path)?;
    }
    group.dir = OnceCell::from(Some(dir));
    Ok(())
}

/// Refuses a cgroup that has processes or is frozen.
fn vacant(dir: &Dir, group: &Group, inside: Option<u32>, made: bool) -> Result<()> {
    if !made {
        match dir.procs()?.iter().filter(|&&pid| Some(pid) != inside).count() {
            0 => {}
            n => {
                let text = format!("container's cgroup is not empty: {n} process(es) found");
                return Err(Error::new(text)
                    .context(dir.path().display())
                    .remedy("choose another cgroupsPath"));
            }
        }
    }
    // A frozen cgroup above would freeze init before it can answer, and so hang create.
    let held = match group.version {
        Version::V1 => group.has("freezer") && v1::is_frozen(dir)?,
        Version::V2 => v2::is_held(dir)?,
    };
    if held {
        let e = Error::new("container's cgroup unexpectedly frozen");
        return Err(e.context(dir.path().display()).remedy("thaw it"));
    }
    Ok(())
}

fn frozen(version: Version, dir: &Dir) -> Result<bool> {
    match version {
        Version::V1 => v1::is_frozen(dir),
        Version::V2 => v2::is_frozen(dir),
    }
}

impl Group {
    fn of(place: &Place) -> Self {
        Self {
            version: place.hierarchy.version,
            controllers: place.hierarchy.controllers.clone().into(),
            dir: OnceCell::from(None),
            path: place.hierarchy.mount.join(place.path.trim_start_matches('/')),
            made: Vec::new(),
        }
    }

    /// Its directory; none where it is gone.
    fn dir(&self) -> Result<Option<&Dir>> {
        if self.dir.get().is_none() {
            let dir = match Dir::open(&self.path) {
                Err(e) if is_gone(&e) => None,
                dir => Some(dir?),
            };
            let _ = self.dir.set(dir);
        }
        Ok(self.dir.get().and_then(Option::as_ref))
    }

    fn has(&self, controller: &str) -> bool {
        self.controllers().iter().any(|name| name == controller)
    }

    /// What [`Cgroup::read_controllers`] has read; none on v2 before it.
    fn controllers(&self) -> &[String] {
        self.controllers.get().map_or(&[], Vec::as_slice)
    }

    fn key(&self) -> String {
        match self.version {
            Version::V1 => self.controllers().join(","),
            Version::V2 => String::new(),
        }
    }

    /// Whether the cgroup itself was made here, so that its files hold the kernel's defaults.
    fn is_new(&self) -> bool {
        self.made.last() == Some(&self.path)
    }

    /// The parent directory and the name in it; none for the root.
    fn place(&self) -> (Option<&Path>, Option<&str>) {
        (self.path.parent(), self.path.file_name().and_then(|name| name.to_str()))
    }

    fn undo(&mut self) {
        for path in self.made.drain(..).rev() {
            if let (Some(parent), Some(name)) =
                (path.parent(), path.file_name().and_then(|name| name.to_str()))
            {
                let _ = Dir::open(parent).and_then(|parent| parent.remove(name));
            }
        }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if let Some(scope) = self.scope.as_mut().filter(|scope| scope.made) {
            // The error that led here is the one to tell.
            let _ = scope.stop();
        }
        self.groups.iter_mut().for_each(Group::undo);
    }
}

impl Cgroup {
    /// The cgroups of a container from its state: those of [`Cgroup::paths`]. One that is gone is no error, and one
    /// that cannot be opened is an error of what needs it.
    pub fn recorded<'a>(paths: impl Iterator<Item = (&'a str, &'a Path)>) -> Self {
        let of = |(key, path): (&str, &Path)| {
            let version = if key.is_empty() { Version::V2 } else { Version::V1 };
            let controllers = match version {
                Version::V1 => OnceCell::from(key.split(',').map(str::to_owned).collect::<Vec<_>>()),
                Version::V2 => OnceCell::new(),
            };
            Group { version, controllers, dir: OnceCell::new(), path: path.to_owned(), made: Vec::new() }
        };
        Self { groups: paths.map(of).collect(), best_effort: false, limited: false, scope: None }
    }

    /// The same with the scope that systemd made; an empty name is none.
    #[must_use]
    pub fn of_unit(mut self, name: &str, user: bool) -> Self {
        self.scope = (!name.is_empty()).then(|| systemd::Scope::of(name, user));
        self
    }

    /// For state.json: the v1 controllers with commas (empty for v2) and the path on the host, without those that
    /// a rootless runtime goes without.
    pub fn paths(&self) -> Vec<(String, PathBuf)> {
        let held = self.groups.iter().filter(|group| matches!(group.dir(), Ok(Some(_))));
        held.map(|group| (group.key(), group.path.clone())).collect()
    }

    /// Where [`create`] makes its directories; for state.json before [`create`], so that a runtime killed
    /// meanwhile leaves nothing unknown.
    pub fn planned(plan: &CgroupPlan) -> Vec<(String, PathBuf)> {
        let path = |place: &Place| place.hierarchy.mount.join(place.path.trim_start_matches('/'));
        plan.places.iter().map(|place| (place.hierarchy.key(), path(place))).collect()
    }

    /// Leaves the directories in place.
    pub fn keep(&mut self) {
        self.groups.iter_mut().for_each(|group| group.made.clear());
        self.scope.iter_mut().for_each(|scope| scope.made = false);
    }

    /// Whether any of the directories is there.
    pub fn exists(&self) -> bool {
        self.groups.iter().any(|group| matches!(group.dir(), Ok(Some(dir)) if dir.exists()))
    }

    /// Whether all of the directories are there, as they are before any process with cgroupfs on v2 alone.
    pub fn is_complete(&self, plan: &CgroupPlan) -> bool {
        !self.groups.is_empty() && self.groups.len() == plan.places.len()
    }

    /// Whether a process may get into the cgroups by itself ([`Entry`]): a user may lack the right to some, what
    /// systemd makes for a user is entered through it, and it takes a descriptor for each hierarchy.
    pub fn may_be_entered(&self) -> bool {
        let few = getrlimit(Resource::Nofile).current.is_some_and(|most| most < 256);
        !(self.best_effort || self.user_scope().is_some() || few)
    }

    /// The cgroup of v2, for clone3(2); none where there is none to be in.
    ///
    /// # Errors
    /// Those of opening it: a process that is not made there has to be added.
    pub fn unified(&self) -> Result<Option<OwnedFd>> {
        let group = self.groups.iter().find(|group| group.version == Version::V2);
        let dir = group.map(Group::dir).transpose()?.flatten();
        dir.map(|dir| Dir::open_below(dir.as_fd(), ".").call(|| "openat2")).transpose()
    }

    /// How a process of the container gets into its cgroups by itself, with the `sub` of [`Cgroup::add_exec`]. None
    /// where it has to be added instead: a user may lack the right to some, systemd makes them only then, and what is
    /// wrong with `sub` is said there.
    pub fn entry(&self, sub: &[(Option<&str>, &str)]) -> Option<Entry> {
        let path = match sub {
            [] => ".",
            [(None, path)] if !path.split('/').any(|part| part == "..") => match path.trim_matches('/') {
                "" => ".",
                path => path,
            },
            _ => return None,
        };
        if !self.may_be_entered() || self.groups.is_empty() {
            return None;
        }
        let mut entry = Entry::default();
        for group in &self.groups {
            if group.version == Version::V2 {
                entry.unified = Some(Dir::open_below(group.dir().ok()??.as_fd(), path).ok()?);
                continue;
            }
            let name = if path == "." { "tasks".to_owned() } else { format!("{path}/tasks") };
            let (file, flags) = (group.path.join(&name), rustix::fs::OFlags::WRONLY);
            let open = match group.dir.get() {
                // A directory that nothing else is done with need not be opened.
                None if path == "." => Dir::file_at(&file, flags),
                _ => group.dir().ok()??.file(&name, flags),
            };
            entry.tasks.push((file, open.ok()?));
        }
        Some(entry)
    }

    /// Reads which controllers the cgroup of v2 has; those of v1 are in its key.
    ///
    /// # Errors
    /// Those of reading `cgroup.controllers`; a cgroup that is gone has none.
    fn read_controllers(&self) -> Result<()> {
        for group in self.groups.iter().filter(|group| group.controllers.get().is_none()) {
            let text = match group.dir()?.map(|dir| dir.read("cgroup.controllers")) {
                Some(Err(e)) if !is_gone(&e) => return Err(e),
                text => text.and_then(Result::ok).unwrap_or_default(),
            };
            let _ = group.controllers.set(text.split_whitespace().map(str::to_owned).collect());
        }
        Ok(())
    }

    /// The group that holds a controller.
    fn group(&self, controller: &str) -> Option<&Group> {
        self.groups.iter().find(|group| group.has(controller))
    }

    fn v1(&self, controller: &str) -> Option<&Group> {
        self.groups.iter().find(|group| group.version == Version::V1 && group.has(controller))
    }

    fn dir(&self, controller: &str) -> Result<Option<&Dir>> {
        self.group(controller).map_or(Ok(None), Group::dir)
    }

    /// The directory that tells the container's processes: one that nothing but a runtime moves them out of.
    fn main(&self) -> Result<Option<(Version, &Dir)>> {
        let v1 = ["freezer", "devices", "pids"].into_iter().filter_map(|name| self.v1(name));
        let v2 = self.groups.iter().filter(|group| group.version == Version::V2);
        for group in v1.chain(v2).chain(&self.groups) {
            if let Some(dir) = group.dir()? {
                return Ok(Some((group.version, dir)));
            }
        }
        Ok(None)
    }

    /// Moves a process into every cgroup of the container.
    ///
    /// # Errors
    /// `failed to write PID` with the file and the errno.
    pub fn add(&mut self, pid: u32) -> Result<()> {
        // A user's systemd has put it there, and the user may be unable to.
        if self.user_scope().is_some() {
            return Ok(());
        }
        for group in &mut self.groups {
            let Some(dir) = group.dir()? else { continue };
            match add(dir, pid) {
                Err(e) if self.best_effort && is_refused(&e) && self.limited => {
                    return Err(e.context(NO_PERMISSION));
                }
                // What the container is not in must not pass for its cgroup.
                Err(e) if self.best_effort && is_refused(&e) => {
                    group.dir = OnceCell::from(None);
                    group.undo();
                }
                Err(e) if is_refused(&e) => return Err(e.context("unable to apply cgroup configuration")),
                result => result?,
            }
        }
        Ok(())
    }

    /// Moves a process for `exec` into the cgroups, or into sub-cgroups of them.
    ///
    /// `sub` are the values of `--cgroup`, taken apart: a controller, or `None` for all, and a path. `init` is
    /// the container's init: on v2 it may have moved itself to another cgroup, and its own is used where the
    /// container's takes no process any more (runc #2356, #5101).
    ///
    /// # Errors
    /// A path that leaves the container's cgroup, an unknown controller, or a failed write.
    pub fn add_exec(&mut self, pid: u32, sub: &[(Option<&str>, &str)], init: u32) -> Result<()> {
        for (_, path) in sub {
            if path.split('/').any(|part| part == "..") {
                return Err(Error::new(format!("bad sub cgroup path: {path}")));
            }
        }
        if !sub.is_empty() {
            self.read_controllers()?;
        }
        let unknown = sub.iter().filter_map(|(name, _)| *name).find(|name| self.group(name).is_none());
        if let Some(name) = unknown {
            return Err(Error::new(format!("unknown controller {name} in SubCgroupPaths")));
        }
        let adding = |e: Error| e.context(format!("error adding pid {pid} to cgroups"));
        let Self { groups, scope, best_effort, .. } = self;
        for group in groups {
            let asked = sub.iter().find(|(name, _)| name.is_none_or(|name| group.has(name)));
            let path = asked.map_or("", |(_, path)| path.trim_matches('/'));
            // A process outside of the container's cgroups would be one without limits: absence is an error.
            let gone = || Error::sys(format!("open {}", group.path.display()), Errno::NOENT);
            let result = group.dir().and_then(|dir| dir.ok_or_else(gone)).and_then(|dir| match path {
                "" => add(dir, pid),
                path => dir.child(path).and_then(|dir| add(&dir, pid)),
            });
            match result {
                Err(e) if *best_effort && is_refused(&e) => {}
                Err(e) if is_refused(&e) && scope.as_ref().is_some_and(systemd::Scope::is_user) => {
                    if let Some(scope) = scope {
                        scope.attach(pid, path).map_err(adding)?;
                    }
                }
                Err(e) if group.version == Version::V2 && asked.is_none() => {
                    add_beside(init, &group.path, pid).map_err(|_| adding(e))?;
                }
                result => result.map_err(adding)?,
            }
        }
        Ok(())
    }

    /// Applies device rules and limits, and changes the owner. Best before any process joins.
    ///
    /// # Errors
    /// The first value that the kernel refuses, with file, value and JSON path.
    pub fn apply(&self, plan: &CgroupPlan) -> Result<()> {
        if !plan.devices.is_empty() {
            let v2 = || self.groups.iter().find(|group| group.version == Version::V2);
            let group = self.v1("devices").or_else(v2);
            let dir = group.map_or(Ok(None), Group::dir)?;
            match group.zip(dir) {
                Some((group, dir)) if group.version == Version::V1 => {
                    v1::write_devices(dir, &v1_devices(&plan.devices)?)?;
                }
                Some((group, dir)) => apply_devices(dir.as_fd(), &plan.devices, group.is_new())?,
                None => {
                    return Err(Error::new(
                        "cannot set devices limit: container could not join or create cgroup",
                    ));
                }
            }
        }
        self.write(&plan.limits, true)?;
        self.give(plan)
    }

    /// Writes the values of an `update`.
    ///
    /// # Errors
    /// Those of [`Cgroup::apply`].
    pub fn set(&self, writes: &[Write]) -> Result<()> {
        self.write(writes, false)
    }

    fn write(&self, writes: &[Write], skip_defaults: bool) -> Result<()> {
        self.read_controllers()?;
        // All before any write, so that a refusal changes nothing.
        for write in writes {
            check_usage(self.dir(&write.controller)?, write)?;
        }
        let mut again = Vec::new();
        for write in writes {
            let group = self.group(&write.controller);
            if skip_defaults && write.default && group.is_some_and(Group::is_new) {
                continue;
            }
            let Some(dir) = group.map_or(Ok(None), Group::dir)? else {
                if write.default && self.best_effort {
                    continue;
                }
                let name = &write.controller;
                let text = format!("cannot set {name} limit: container could not join or create cgroup");
                return Err(Error::new(text).context(&write.at));
            };
            match write_one(dir, write) {
                // The kernel refuses a value that contradicts another's old value, such as a memory limit above
                // that of memory and swap, or a period too short for the quota: once more after the rest.
                Err(e) if e.errno() == Some(Errno::INVAL) => again.push((dir, write)),
                result => result.map_err(|e| explain(e, write))?,
            }
        }
        again.into_iter().try_for_each(|(dir, write)| write_one(dir, write).map_err(|e| explain(e, write)))
    }

    /// Changes limits of a scope in systemd, too, then writes them; says what was ignored.
    ///
    /// # Errors
    /// Those of [`Cgroup::set`], and what systemd refuses.
    pub fn update(&mut self, mut writes: Vec<Write>) -> Result<Vec<String>> {
        if self.scope.is_none() {
            return self.set(&writes).map(|()| Vec::new());
        }
        self.read_controllers()?;
        for write in &writes {
            check_usage(self.dir(&write.controller)?, write)?;
        }
        let (now, v1) = (self.now(), self.groups.iter().any(|group| group.version == Version::V1));
        let Some(scope) = &mut self.scope else { return Ok(Vec::new()) };
        let version = scope.version()?;
        let ignored = crate::plan::cgroup::systemd::settle(&mut writes, version, !v1, &now);
        let properties = crate::plan::cgroup::systemd::limits(&writes, version, !v1, &now);
        if properties.is_empty() {
            return self.set(&writes).map(|()| ignored);
        }
        // On v1 systemd writes all settings of the unit again, the device list by denying everything first: no
        // process may open one meanwhile.
        let hold = v1 && self.dir("devices")?.is_some() && !self.is_frozen()?;
        if hold {
            self.freeze()?;
        }
        let done = self.scope.as_mut().map_or(Ok(()), |scope| scope.set(&properties));
        let thawed = if hold { self.thaw() } else { Ok(()) };
        done.and(thawed)?;
        self.set(&writes).map(|()| ignored)
    }

    /// The CPU limits that systemd takes as one.
    fn now(&self) -> crate::plan::cgroup::systemd::Now {
        let dir = self.dir("cpu").ok().flatten();
        let read = |file| dir.and_then(|dir| dir.read(file).ok()).unwrap_or_default();
        let (quota, period) = match read("cpu.max") {
            max if max.is_empty() => (read("cpu.cfs_quota_us"), read("cpu.cfs_period_us")),
            max => {
                let (quota, period) = max.split_once(' ').unwrap_or((&max, ""));
                (quota.replace("max", "-1"), period.to_owned())
            }
        };
        let (quota, period) = (quota.trim().parse().ok(), period.trim().parse().ok());
        crate::plan::cgroup::systemd::Now { quota, period, idle: read("cpu.idle").trim() == "1" }
    }

    fn user_scope(&self) -> Option<&systemd::Scope> {
        self.scope.as_ref().filter(|scope| scope.is_user())
    }

    /// Every process of the container, those of sub-cgroups too. A cgroup that is gone has none.
    ///
    /// # Errors
    /// The list cannot be read.
    pub fn procs(&self) -> Result<Vec<u32>> {
        self.main()?.map_or(Ok(Vec::new()), |(_, dir)| dir.procs())
    }

    /// Freezes every process; waits until they are, ten seconds at most.
    ///
    /// # Errors
    /// No freezer, or a process that does not stop; then everything is thawed.
    pub fn freeze(&self) -> Result<()> {
        self.freeze_within(LIMIT)
    }

    fn freeze_within(&self, limit: Duration) -> Result<()> {
        match self.freezer()? {
            (Version::V1, dir) => v1::freeze(dir, limit),
            (Version::V2, dir) => v2::freeze(dir, limit),
        }
    }

    /// Lets every process run again.
    ///
    /// # Errors
    /// No freezer, or a failed write.
    pub fn thaw(&self) -> Result<()> {
        match self.freezer()? {
            (Version::V1, dir) => v1::thaw(dir),
            (Version::V2, dir) => v2::thaw(dir),
        }
    }

    /// Thaws what must run to die of SIGKILL: the processes of a paused container on v1.
    ///
    /// # Errors
    /// Opening the freezer, or a failed write.
    pub fn thaw_to_die(&self) -> Result<()> {
        match self.find_freezer()? {
            // Where it cannot be told, too: thawing what is not frozen does nothing.
            Some((Version::V1, dir)) if v1::is_frozen(dir).unwrap_or(true) => match v1::thaw(dir) {
                Err(e) if !is_gone(&e) => Err(e),
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// Whether the processes are frozen, by the container's cgroup or one above; false without a freezer.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn is_frozen(&self) -> Result<bool> {
        self.find_freezer()?.map_or(Ok(false), |(version, dir)| frozen(version, dir))
    }

    fn freezer(&self) -> Result<(Version, &Dir)> {
        self.find_freezer()?.ok_or_else(|| Error::new("the container has no cgroup with a freezer"))
    }

    fn find_freezer(&self) -> Result<Option<(Version, &Dir)>> {
        if let Some(dir) = self.v1("freezer").map_or(Ok(None), Group::dir)? {
            return Ok(Some((Version::V1, dir)));
        }
        let v2 = self.groups.iter().find(|group| group.version == Version::V2);
        Ok(v2.map_or(Ok(None), Group::dir)?.map(|dir| (Version::V2, dir)))
    }

    /// Signals every process of the container.
    ///
    /// A paused container stays paused, except for SIGKILL: a frozen v1 process would not die.
    ///
    /// # Errors
    /// The processes cannot be listed, or one may not be signalled.
    pub fn kill(&self, signal: Signal) -> Result<()> {
        let Some((version, dir)) = self.main()? else { return Ok(()) };
        if version == Version::V2 && signal == Signal::KILL && v2::kill(dir)? {
            return Ok(());
        }
        // Freezing patches the kernel's code on every processor the first time.
        if matches!(dir.procs(), Ok(pids) if pids.is_empty()) {
            return Ok(());
        }
        let paused = match self.is_frozen() {
            // Not to be thawed by mistake. What is to die is thawed in any case.
            Err(e) if signal != Signal::KILL => return Err(e),
            frozen => frozen.unwrap_or(false),
        };
        // Otherwise a process that forks faster than it is killed escapes. Where freezing fails, as with a
        // process in an uninterruptible sleep, a few rounds are the next best.
        let held = paused || self.freeze_within(Duration::from_millis(500)).is_ok();
        let rounds = if held || signal != Signal::KILL { 1 } else { 100 };
        let mut result = Ok(());
        for _ in 0..rounds {
            match dir.procs() {
                Ok(pids) if pids.is_empty() => break,
                Ok(pids) => result = signal_all(&pids, signal),
                Err(e) => result = Err(e),
            }
        }
        // Always, or an error would leave the container frozen for ever.
        if held && (!paused || signal == Signal::KILL) {
            match self.thaw() {
                Err(e) if !is_gone(&e) => result = result.and(Err(e)),
                _ => {}
            }
        }
        result
    }

    /// Removes the cgroup that tells the container's processes, if it has none and nothing below it, and says whether
    /// it did: in one call what [`Cgroup::kill`] would read. What systemd made is its own to remove.
    pub fn remove_empty(&self) -> bool {
        let v1 = ["freezer", "devices", "pids"].into_iter().find_map(|name| self.v1(name));
        let group = v1.or_else(|| self.groups.iter().find(|group| group.version == Version::V2));
        let empty = |group: &Group| unlinkat(CWD, &group.path, AtFlags::REMOVEDIR).is_ok();
        self.scope.is_none() && group.is_some_and(empty)
    }

    /// Removes the cgroups with everything below them, waiting up to ten seconds for processes that are dying.
    /// Parents stay, as other containers may be in them.
    ///
    /// # Errors
    /// A cgroup that still has processes then, or one that may not be removed.
    pub fn remove(mut self) -> Result<()> {
        let deadline = Deadline::after(LIMIT);
        self.stop_scope(&deadline)?;
        self.groups.iter().try_for_each(|group| remove(group, &deadline, || self.thaw_to_die()))
    }

    /// Removes the cgroups that are empty and leaves the others alone.
    ///
    /// For what a killed `create` may have left at the [`Cgroup::planned`] paths: it may not have got as far as
    /// finding out that they are another's, so a process in them must not be touched. Its init dies with it, but
    /// not at the same instant, so that one that is there is given two seconds to end.
    ///
    /// # Errors
    /// A cgroup that may not be removed.
    pub fn discard(mut self) -> Result<()> {
        let deadline = Deadline::after(Duration::from_secs(2));
        self.drain(&deadline)?;
        if self.procs()?.is_empty() {
            self.stop_scope(&deadline)?;
        }
        for group in &self.groups {
            let (Some(parent), Some(name)) = group.place() else { continue };
            loop {
                match Dir::open(parent).and_then(|parent| parent.remove(name)) {
                    Err(e) if e.errno() == Some(Errno::BUSY) => {}
                    Err(e) if !is_gone(&e) => return Err(e),
                    _ => break,
                }
                let Some(dir) = group.dir()? else { break };
                match wait_empty(group.version, dir, &deadline) {
                    Ok(true) => {}
                    Err(e) if !is_gone(&e) => return Err(e),
                    _ => break,
                }
            }
        }
        Ok(())
    }

    /// The limits of memory and of swap on v2, -1 for none; `None` where there is no such limit to read.
    pub fn memory_limits(&self) -> Option<(i64, i64)> {
        self.read_controllers().ok()?;
        let group = self.group("memory").filter(|group| group.version == Version::V2)?;
        let dir = group.dir().ok()??;
        let limit = |file: &str| match dir.read(file).ok()?.trim() {
            "max" => Some(-1),
            bytes => bytes.parse().ok(),
        };
        Some((limit("memory.max")?, limit("memory.swap.max").unwrap_or(0)))
    }

    /// Waits for processes that are dying.
    fn drain(&self, deadline: &Deadline) -> Result<()> {
        let Some((version, dir)) = self.main()? else { return Ok(()) };
        while !dir.procs()?.is_empty() {
            match wait_empty(version, dir, deadline) {
                Ok(true) => {}
                Err(e) if !is_gone(&e) => return Err(e),
                _ => break,
            }
        }
        Ok(())
    }

    fn stop_scope(&mut self, deadline: &Deadline) -> Result<()> {
        if self.scope.is_none() {
            return Ok(());
        }
        // Else systemd would wait for them, longer than we do.
        self.drain(deadline)?;
        let exists = self.exists();
        match self.scope.as_mut().map_or(Ok(()), systemd::Scope::stop) {
            // A user's systemd that has ended took its units with it.
            Err(e) if exists => Err(e),
            _ => Ok(()),
        }
    }

    /// How many processes the OOM killer killed; 0 where the kernel does not tell.
    pub fn oom_kills(&self) -> u64 {
        if self.read_controllers().is_err() {
            return 0;
        }
        let Some(group) = self.group("memory") else { return 0 };
        let file = if group.version == Version::V1 { "memory.oom_control" } else { "memory.events" };
        let dir = group.dir().ok().flatten();
        let text = dir.and_then(|dir| dir.read(file).ok()).unwrap_or_default();
        text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok()).unwrap_or(0)
    }
}

fn add(dir: &Dir, pid: u32) -> Result<()> {
    let failed = |e: Error| e.context(format!("failed to write {pid}"));
    let file = dir.file("cgroup.procs", rustix::fs::OFlags::WRONLY).map_err(failed)?;
    let value = pid.to_string();
    let mut rounds = 0;
    loop {
        match dir.write_line(&file, "cgroup.procs", &value) {
            // A process that clone(2) has not finished yet.
            Err(e) if e.errno() == Some(Errno::INVAL) && rounds < 5 => {
                rounds += 1;
                rustix::thread::sched_yield();
            }
            Err(e) if e.errno() == Some(Errno::OPNOTSUPP) => {
                return dir.write("cgroup.threads", &value).map_err(failed);
            }
            result => return result.map_err(failed),
        }
    }
}

/// Joins the v2 cgroup in which `init` is, found by the difference to that of the container's own cgroup.
fn add_beside(init: u32, group: &Path, pid: u32) -> Result<()> {
    let memberships = format!("/proc/{init}/cgroup");
    let text = crate::file::read(&memberships)?;
    let path = layout::unified_path(&text).ok_or_else(|| Error::new("init has no v2 cgroup"))?;
    // The mount point is the ancestor under which that path exists.
    let place = group
        .ancestors()
        .map(|mount| mount.join(path.trim_start_matches('/')))
        .filter(|place| place.join("cgroup.procs").exists())
        .last()
        .ok_or_else(|| Error::new(format!("no cgroup {path}")))?;
    add(&Dir::open(&place)?, pid)
}

/// Refuses a limit that is below what is in use. Where that cannot be read there is no refusal.
fn check_usage(dir: Option<&Dir>, write: &Write) -> Result<()> {
    let (Some((what, bytes)), Some(dir)) = (write.above_usage, dir) else { return Ok(()) };
    let usage = dir.read("memory.current").ok().and_then(|text| text.trim().parse::<u64>().ok());
    match usage {
        Some(usage) if bytes <= usage => {
            let text = format!("rejecting {what} limit {bytes} <= usage {usage}");
            Err(Error::new(text).context(&write.at))
        }
        _ => Ok(()),
    }
}

fn write_one(dir: &Dir, write: &Write) -> Result<()> {
    let result = if write.keeps_first {
        let old = dir.read(&write.file)?;
        let first = old.split_whitespace().next().unwrap_or("max");
        dir.write(&write.file, &format!("{first} {}", write.value))
    } else {
        dir.write(&write.file, &write.value)
    };
    match (result, &write.otherwise) {
        (Err(e), Some((file, value))) if e.errno() == Some(Errno::NOENT) => dir.write(file, value),
        (Err(e), _) if e.errno() == Some(Errno::NOENT) && write.optional => Ok(()),
        (result, _) => result,
    }
}

fn explain(e: Error, write: &Write) -> Error {
    let remedy = match (e.errno(), write.file.as_str()) {
        (Some(Errno::BUSY), "memory.limit_in_bytes" | "memory.memsw.limit_in_bytes") => {
            "more memory is in use than the new limit allows"
        }
        (Some(Errno::NOENT), "memory.memsw.limit_in_bytes" | "memory.swap.max") => {
            "this kernel does not account swap: boot with swapaccount=1"
        }
        (Some(Errno::NOENT), file) if file.contains("weight") => {
            "this needs the BFQ I/O scheduler: modprobe bfq"
        }
        (Some(Errno::NOENT), file) if file.starts_with("hugetlb.") => "not a huge page size of this machine",
        (Some(Errno::NOENT), _) => "this kernel has no such setting",
        (Some(Errno::NODEV), file) if file.contains("blkio") || file == "io.max" => "no such block device",
        _ => return e.context(&write.at),
    };
    e.context(&write.at).remedy(remedy)
}

fn signal_all(pids: &[u32], signal: Signal) -> Result<()> {
    let mut result = Ok(());
    for pid in pids.iter().filter(|&&pid| pid != std::process::id()) {
        let Some(target) = i32::try_from(*pid).ok().and_then(Pid::from_raw) else { continue };
        match kill_process(target, signal) {
            Ok(()) | Err(Errno::SRCH) => {}
            Err(e) => result = Err(Error::sys(format!("kill {pid}"), e)),
        }
    }
    result
}

/// `thaw` what a `pause` beside this may have frozen after it was killed.
fn remove(group: &Group, deadline: &Deadline, thaw: impl Fn() -> Result<()>) -> Result<()> {
    // Nothing but a cgroup is removed at this path, whatever leads there, and mostly nothing is in the way.
    if matches!(unlinkat(CWD, &group.path, AtFlags::REMOVEDIR), Ok(()) | Err(Errno::NOENT)) {
        return Ok(());
    }
    let (Some(parent), Some(name)) = group.place() else { return Ok(()) };
    let parent = match Dir::open(parent) {
        Err(e) if is_gone(&e) => return Ok(()),
        parent => parent?,
    };
    loop {
        let Err(e) = parent.remove(name) else { return Ok(()) };
        // A read-only cgroup file system refuses even the removal of what is not there (runc #4518).
        let dir = match parent.child(name) {
            Err(gone) if is_gone(&gone) => return Ok(()),
            Err(_) => return Err(e),
            Ok(dir) => dir,
        };
        if e.errno() != Some(Errno::BUSY) {
            return Err(e);
        }
        match dir.remove_children() {
            Err(busy) if busy.errno() != Some(Errno::BUSY) && !is_gone(&busy) => return Err(busy),
            _ => {}
        }
        thaw()?;
        if !wait_empty(group.version, &dir, &deadline.within(MOMENT))? && deadline.left().is_none() {
            let pids = dir.procs().unwrap_or_default();
            return Err(e.remedy(format!("{} process(es) remain: {pids:?}", pids.len())));
        }
    }
}

/// Waits for an event after which removal is worth another try; false when the time is over.
fn wait_empty(version: Version, dir: &Dir, deadline: &Deadline) -> Result<bool> {
    let pids = dir.procs()?;
    let Some(pid) = pids.first().and_then(|&pid| Pid::from_raw(i32::try_from(pid).ok()?)) else {
        // On v1 a process leaves cgroup.procs a moment before it lets go of the cgroup.
        return match version {
            Version::V2 if !v2::wait_event(dir, "populated", false, deadline)? => Ok(false),
            _ => Ok(deadline.pause().is_ok()),
        };
    };
    let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
        Err(Errno::SRCH) => return Ok(deadline.pause().is_ok()),
        pidfd => pidfd.call(|| "pidfd_open")?,
    };
    let Some(left) = deadline.left() else { return Ok(false) };
    let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
    if poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) == Ok(1) {
        // Dead, but not gone from the list.
        return Ok(deadline.pause().is_ok());
    }
    match poll(&mut fds, Some(&left)) {
        Ok(0) => Ok(false),
        Ok(_) | Err(Errno::INTR) => Ok(true),
        Err(e) => Err(Error::sys("poll pidfd", e)),
    }
}

#[cfg(test)]
mod tests;
