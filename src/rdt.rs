//! Puts the container into a resctrl group (config-linux.md, "IntelRdt").
//!
//! resctrl is the kernel's: its paths cannot be redirected by a container, which never sees it. What is
//! made here is recorded as paths to remove, as a later `delete` has only the state to go by.

#![forbid(unsafe_code)]

use crate::error::{Call, Error, Result};
use crate::plan::rdt::{Group, Rdt};
use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

/// `RDTGROUP_SUPER_MAGIC` of linux/magic.h.
const RESCTRL_MAGIC: u64 = 0x0765_5821;

/// The directory at which resctrl is mounted; what linux.intelRdt needs.
///
/// # Errors
/// There is none.
pub fn mount_point() -> Result<PathBuf> {
    let usual = Path::new("/sys/fs/resctrl");
    if rustix::fs::statfs(usual).is_ok_and(|info| info.f_type as u64 == RESCTRL_MAGIC) {
        return Ok(usual.to_owned());
    }
    let text = crate::file::read("/proc/thread-self/mountinfo")?;
    find_mount(&text).ok_or_else(|| {
        Error::config("linux.intelRdt", "intelRdt is specified in config, but Intel RDT is not enabled")
            .remedy("no resctrl file system is mounted: mount -t resctrl resctrl /sys/fs/resctrl")
    })
}

/// The fifth field of the line whose type, behind the separator, is resctrl (proc_pid_mountinfo(5)).
fn find_mount(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        (right.split(' ').next() == Some("resctrl")).then_some(())?;
        left.split(' ').nth(4).map(PathBuf::from)
    })
}

/// The groups of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Groups {
    /// The `tasks` files that the container's pid goes to.
    pub tasks: Vec<PathBuf>,
    /// Directories that were made for the container, in the order in which they are removed.
    pub remove: Vec<PathBuf>,
}

/// Makes and sets the groups of container `id` below `root`, a resctrl file system.
///
/// # Errors
/// A named group that is absent or disagrees, or what the kernel refuses; what was made is removed.
pub fn prepare(plan: &Rdt, root: &Path, id: &str) -> Result<Groups> {
    let mut groups = Groups::default();
    let done = fill(plan, root, id, &mut groups).map_err(|e| e.context("linux.intelRdt"));
    if done.is_err() {
        // The first failure is the one to tell.
        let _ = remove(&groups.remove);
    }
    done.map(|()| groups)
}

fn fill(plan: &Rdt, root: &Path, id: &str, groups: &mut Groups) -> Result<()> {
    let group = match &plan.group {
        Group::Default => root.to_owned(),
        Group::Named(name) => root.join(name),
        Group::Own => root.join(id),
    };
    let lines: Vec<&str> = plan.agreed.iter().chain(&plan.schemata).map(String::as_str).collect();
    let named = matches!(plan.group, Group::Named(_));
    if named && lines.is_empty() && !group.is_dir() {
        let text =
            format!("group {} does not exist, and there is no schema to make it with", group.display());
        return Err(Error::new(text));
    }
    let made = make(root, &group)?;
    if made && plan.group == Group::Own {
        groups.remove.push(group.clone());
    }
    if !made && plan.group != Group::Own {
        agree(&group, &plan.agreed)?;
    }
    if !lines.is_empty() {
        write(root, &group.join("schemata"), &(lines.join("\n") + "\n"))?;
    }
    groups.tasks.push(group.join("tasks"));
    if plan.monitoring {
        let monitor = group.join("mon_groups").join(id);
        if !make(root, &monitor)? {
            return Err(Error::new(format!("monitoring group {} exists already", monitor.display())));
        }
        // Inside first: a group goes only after what is in it.
        groups.remove.insert(0, monitor.clone());
        groups.tasks.push(monitor.join("tasks"));
    }
    Ok(())
}

/// Moves a process into the groups.
///
/// # Errors
/// What the kernel refuses.
pub fn assign(groups: &Groups, root: &Path, pid: i32) -> Result<()> {
    groups
        .tasks
        .iter()
        .try_for_each(|tasks| write(root, tasks, &pid.to_string()).map_err(|e| e.context("linux.intelRdt")))
}

/// Removes directories that [`prepare`] made; those that are gone already are no error.
///
/// # Errors
/// The first that cannot be removed, after all were tried.
pub fn remove(directories: &[PathBuf]) -> Result<()> {
    let mut first = Ok(());
    for directory in directories {
        match fs::remove_dir(directory) {
            Err(e) if e.kind() != ErrorKind::NotFound && first.is_ok() => {
                first = Err(e).call(|| format!("rmdir {}", directory.display()));
            }
            _ => {}
        }
    }
    first
}

/// Makes a directory; false if it was there.
fn make(root: &Path, directory: &Path) -> Result<bool> {
    match fs::create_dir(directory) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(e) => Err(e).call(|| format!("mkdir {}", directory.display())).map_err(|e| status(root, e)),
    }
}

fn write(root: &Path, file: &Path, text: &str) -> Result<()> {
    // One write for all lines: the kernel takes them in order, or none behind the first bad one.
    let write = || fs::OpenOptions::new().write(true).open(file)?.write_all(text.as_bytes());
    write().call(|| format!("write {:?} to {}", text.trim_end(), file.display())).map_err(|e| status(root, e))
}

/// Adds what resctrl itself says of the last failure, which is more than its errno.
fn status(root: &Path, e: Error) -> Error {
    match fs::read_to_string(root.join("info/last_cmd_status")) {
        Ok(text) if !text.trim().is_empty() && text.trim() != "ok" => e.remedy(text.trim()),
        _ => e,
    }
}

/// Compares given lines with those of an existing group, value by value.
fn agree(group: &Path, given: &[String]) -> Result<()> {
    if given.is_empty() {
        return Ok(());
    }
    let file = group.join("schemata");
    let text = crate::file::read(&file)?;
    for line in given {
        let Some((resource, values)) = line.split_once(':') else {
            return Err(Error::new(format!("{line:?} is no schema")));
        };
        let present = text.lines().filter_map(|line| line.split_once(':'));
        let present = present.filter(|(name, _)| name.trim() == resource.trim()).map(|(_, values)| values);
        let present: Vec<_> = present.flat_map(values_of).collect();
        if values_of(values).any(|value| !present.contains(&value)) {
            let text = format!("group {} exists with other values than {line:?}", group.display());
            return Err(Error::new(text));
        }
    }
    Ok(())
}

/// `0=7f0;1=1f` as pairs; the kernel pads values with zeroes or blanks.
fn values_of(text: &str) -> impl Iterator<Item = (String, String)> + '_ {
    text.split(';').filter_map(|value| value.split_once('=')).map(|(id, value)| {
        let value = value.trim().trim_start_matches('0').to_ascii_lowercase();
        (id.trim().to_owned(), value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// A directory that looks like resctrl, gone with the value.
    struct Resctrl(PathBuf);

    impl Resctrl {
        fn new() -> Self {
            static NEXT: AtomicU32 = AtomicU32::new(0);
            let n = NEXT.fetch_add(1, Ordering::Relaxed);
            let root = std::env::temp_dir().join(format!("rrun-rdt-{}-{n}", std::process::id()));
            fs::create_dir(&root).expect("directory");
            Self(root)
        }

        /// A group with the files that the kernel would make.
        fn group(&self, name: &str, schemata: &str) -> PathBuf {
            let group = self.0.join(name);
            fs::create_dir(&group).expect("group");
            fs::create_dir(group.join("mon_groups")).expect("mon_groups");
            fs::write(group.join("schemata"), schemata).expect("schemata");
            fs::write(group.join("tasks"), "").expect("tasks");
            group
        }
    }

    impl Drop for Resctrl {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn plan(group: Group, agreed: &[&str], schemata: &[&str]) -> Rdt {
        let own = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect();
        Rdt { group, agreed: own(agreed), schemata: own(schemata), monitoring: false }
    }

    fn named() -> Group {
        Group::Named("g".to_owned())
    }

    #[test]
    fn a_named_group_gets_the_lines_in_order_and_stays() {
        let resctrl = Resctrl::new();
        let group = resctrl.group("g", "    L3:0=007F0;1=1f\n    MB:0= 20;1=100\n");
        let plan = plan(named(), &["L3:0=7f0", "MB:0=20"], &["L2:0=1"]);
        let groups = prepare(&plan, &resctrl.0, "c1").expect("prepared");
        // A plain file keeps the rest of its text.
        let text = fs::read_to_string(group.join("schemata")).expect("text");
        assert!(text.starts_with("L3:0=7f0\nMB:0=20\nL2:0=1\n"), "{text}");
        assert!(groups.remove.is_empty());
        assign(&groups, &resctrl.0, 42).expect("assigned");
        assert_eq!(fs::read_to_string(group.join("tasks")).expect("text"), "42");
    }

    #[test]
    fn a_named_group_must_exist_or_agree() {
        let resctrl = Resctrl::new();
        let e = prepare(&plan(named(), &[], &[]), &resctrl.0, "c1").expect_err("absent").to_string();
        assert!(e.starts_with("linux.intelRdt: group ") && e.contains("does not exist"), "{e}");
        resctrl.group("g", "L3:0=ff\n");
        let e = prepare(&plan(named(), &["L3:0=f"], &[]), &resctrl.0, "c1").expect_err("other").to_string();
        assert!(e.contains("exists with other values"), "{e}");
        assert!(prepare(&plan(named(), &[], &[]), &resctrl.0, "c1").is_ok());
    }

    #[test]
    fn an_own_group_is_removed_also_after_a_failure() {
        let resctrl = Resctrl::new();
        let groups = prepare(&plan(Group::Own, &[], &[]), &resctrl.0, "c1").expect("prepared");
        assert_eq!(groups.remove, [resctrl.0.join("c1")]);
        remove(&groups.remove).expect("removed");
        remove(&groups.remove).expect("gone already");
        // A plain directory has no schemata file to open.
        let e = prepare(&plan(Group::Own, &["L3:0=f"], &[]), &resctrl.0, "c1").expect_err("refused");
        assert!(e.to_string().contains("write \"L3:0=f\" to "), "{e}");
        assert!(!resctrl.0.join("c1").exists());
    }

    #[test]
    fn a_monitoring_group_is_the_containers_alone() {
        let resctrl = Resctrl::new();
        resctrl.group("g", "");
        let plan = Rdt { monitoring: true, ..plan(named(), &[], &[]) };
        let groups = prepare(&plan, &resctrl.0, "c1").expect("prepared");
        assert_eq!(groups.remove, [resctrl.0.join("g/mon_groups/c1")]);
        assert_eq!(groups.tasks.len(), 2);
        let e = prepare(&plan, &resctrl.0, "c1").expect_err("taken").to_string();
        assert!(e.contains("exists already"), "{e}");
        assert!(resctrl.0.join("g/mon_groups/c1").exists());
    }

    #[test]
    fn the_mount_is_found_by_its_type() {
        let text =
            "1 2 0:3 / / rw - ext4 /dev/x rw\n4 1 0:5 / /mnt/r rw,nosuid shared:9 - resctrl resctrl rw\n";
        assert_eq!(find_mount(text), Some(PathBuf::from("/mnt/r")));
        assert_eq!(find_mount("1 2 0:3 / /resctrl rw - ext4 resctrl rw\n"), None);
    }
}
