//! What is peculiar to cgroup v2: enabling controllers on the way down, freezing and killing with events.

#![forbid(unsafe_code)]

use super::Deadline;
use super::dir::{Dir, is_gone};
use crate::error::{Call, Error, Result};
use crate::launch::protocol::retry;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::time::Duration;

/// Those of the controllers that the children of a cgroup do not have.
pub(super) fn missing<'a>(parent: &Dir, controllers: &'a [String]) -> Result<Vec<&'a String>> {
    if controllers.is_empty() {
        return Ok(Vec::new());
    }
    let enabled = parent.read("cgroup.subtree_control")?;
    Ok(controllers.iter().filter(|name| !enabled.split_whitespace().any(|on| on == **name)).collect())
}

/// Enables controllers for the children of a cgroup.
///
/// `must` are those with a limit; the others are enabled if that is possible, for their statistics.
pub(super) fn enable(parent: &Dir, controllers: &[String], must: &[&str]) -> Result<()> {
    let missing = missing(parent, controllers)?;
    if missing.is_empty() {
        return Ok(());
    }
    let all = missing.iter().map(|name| format!("+{name}")).collect::<Vec<_>>().join(" ");
    if parent.write("cgroup.subtree_control", &all).is_ok() {
        return Ok(());
    }
    for name in missing {
        let Err(e) = parent.write("cgroup.subtree_control", &format!("+{name}")) else { continue };
        if must.contains(&name.as_str()) {
            let refused = matches!(e.errno(), Some(Errno::ACCESS | Errno::PERM));
            let why = if refused { "is not delegated to this user and " } else { "" };
            let e = e.context(format!("cgroup controller {name:?} {why}cannot be enabled"));
            return Err(match e.errno() {
                // The first for a controller that threads can have.
                Some(Errno::BUSY | Errno::OPNOTSUPP) => e.remedy(
                    "a cgroup that has processes or is threaded cannot have children with controllers: \
                    choose another cgroupsPath",
                ),
                Some(Errno::NOENT) => e.remedy("it is not enabled in a cgroup above"),
                _ => e,
            });
        }
    }
    Ok(())
}

/// Refuses a cgroup that cannot take the limits of a domain.
pub(super) fn check_type(dir: &Dir, limited: bool) -> Result<()> {
    let typ = match dir.read("cgroup.type") {
        // Only the root has no type.
        Err(e) if e.errno() == Some(Errno::NOENT) => return Ok(()),
        typ => typ?,
    };
    let path = dir.path().display();
    match typ.trim() {
        "domain invalid" if limited => Err(Error::new(format!(
            "cannot enter cgroupv2 {path} with domain controllers -- it is in an invalid state"
        ))),
        // Below a threaded cgroup a process can be in a threaded one only.
        "domain invalid" => dir.write("cgroup.type", "threaded"),
        mode @ ("threaded" | "domain threaded") if limited => Err(Error::new(format!(
            "cannot enter cgroupv2 {path} with domain controllers -- it is in {mode} mode"
        ))),
        _ => Ok(()),
    }
}

/// The value of a key of cgroup.events.
fn event(text: &str, key: &str) -> Option<bool> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')).map(|value| value != "0")
}

/// Waits until a key of cgroup.events has a value; a cgroup that is gone has every one.
pub(super) fn wait_event(dir: &Dir, key: &str, wanted: bool, deadline: &Deadline) -> Result<bool> {
    let file = match dir.file("cgroup.events", OFlags::RDONLY) {
        Err(e) if is_gone(&e) => return Ok(true),
        file => file?,
    };
    loop {
        let mut buffer = [0u8; 256];
        let n = match retry(|| rustix::io::pread(&file, &mut buffer, 0)) {
            Err(Errno::NODEV) => return Ok(true),
            n => n.call(|| format!("pread {}/cgroup.events", dir.path().display()))?,
        };
        let text = String::from_utf8_lossy(buffer.get(..n).unwrap_or_default());
        if event(&text, key) == Some(wanted) {
            return Ok(true);
        }
        let Some(left) = deadline.left() else { return Ok(false) };
        match poll(&mut [PollFd::new(&file, PollFlags::PRI)], Some(&left)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(Error::sys("poll cgroup.events", e)),
        }
    }
}

/// Freezes, and waits until every process is.
pub(super) fn freeze(dir: &Dir, limit: Duration) -> Result<()> {
    dir.write("cgroup.freeze", "1")?;
    match wait_event(dir, "frozen", true, &Deadline::after(limit)) {
        Ok(true) => Ok(()),
        other => {
            let _ = thaw(dir);
            other.and_then(|_| Err(Error::new(format!("unable to freeze {}", dir.path().display()))))
        }
    }
}

/// Lets the processes run again.
pub(super) fn thaw(dir: &Dir) -> Result<()> {
    dir.write("cgroup.freeze", "0")?;
    Ok(())
}

/// Whether processes here are frozen or will be, by this cgroup or one above.
pub(super) fn is_frozen(dir: &Dir) -> Result<bool> {
    match dir.read("cgroup.freeze") {
        Err(e) if is_gone(&e) => Ok(false),
        // While a process joins, cgroup.events says for a moment that not all are.
        asked => Ok(asked?.trim() == "1" || is_held(dir)?),
    }
}

/// Whether a process that joins would be frozen, by this cgroup or one above.
pub(super) fn is_held(dir: &Dir) -> Result<bool> {
    match dir.read("cgroup.events") {
        Err(e) if is_gone(&e) => Ok(false),
        text => Ok(event(&text?, "frozen") == Some(true)),
    }
}

/// Kills every process at once; says false where the kernel (before 5.14) has no cgroup.kill.
pub(super) fn kill(dir: &Dir) -> Result<bool> {
    match dir.write("cgroup.kill", "1") {
        Ok(()) => Ok(true),
        Err(e) if e.errno() == Some(Errno::NOENT) => Ok(false),
        // Threaded cgroups refuse it.
        Err(e) if matches!(e.errno(), Some(Errno::OPNOTSUPP | Errno::NODEV)) => Ok(false),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_read_by_its_key() {
        let text = "populated 1\nfrozen 0\n";
        assert_eq!((event(text, "populated"), event(text, "frozen")), (Some(true), Some(false)));
        assert_eq!(event(text, "pop"), None);
    }
}
