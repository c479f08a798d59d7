//! What a container has changed: its upper directory against the layers below (`docker diff`).

#![forbid(unsafe_code)]

use super::lower::{Below, Lowers};
use super::node;
use super::unpack::join;
use crate::error::{Context as _, Result};
use rustix::fs::Stat;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::{Path, PathBuf};

/// What has happened to a file; the numbers are those of Docker's API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It or something below it is other than it was. `C`, 0.
    Changed = 0,
    /// It is new. `A`, 1.
    Added = 1,
    /// It is gone, with all below it. `D`, 2.
    Deleted = 2,
}

impl Kind {
    /// The letter in front of the path.
    pub fn letter(self) -> char {
        match self {
            Self::Changed => 'C',
            Self::Added => 'A',
            Self::Deleted => 'D',
        }
    }
}

/// One file that is other than in the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// What has happened to it.
    pub kind: Kind,
    /// Its name in the container, from `/` on.
    pub path: PathBuf,
}

/// What is other in the upper directory of an overlay than in its lower ones, the uppermost of which comes first; a
/// directory before what is in it, and names in the order of their bytes. The overlay must have been mounted with
/// `redirect_dir=off,metacopy=off,index=off`, so that all that changed is in the upper directory.
///
/// A file that is there counts as changed, whatever is in it: it was opened for writing. A directory counts if its owner
/// or mode or something in it has changed.
///
/// `made` are names, as `etc/hosts`, of empty files and directories that are no change where they are new: a runtime
/// makes them to mount on.
///
/// # Errors
/// Those of the calls.
pub fn changes(upper: BorrowedFd<'_>, lowers: &[BorrowedFd<'_>], made: &[&str]) -> Result<Vec<Change>> {
    let lowers = Lowers(lowers);
    let mut found = Vec::new();
    walk(upper, Path::new("."), lowers, &lowers.root(), false, made, &mut found)?;
    Ok(found)
}

/// Whether a new file is one of `made`, and empty.
pub(super) fn is_made(path: &Path, stat: &Stat, made: &[&str]) -> bool {
    let is_file = rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::RegularFile;
    is_file && stat.st_size == 0 && made.iter().any(|made| Path::new(made) == path)
}

/// `alone`: nothing of the layers below is seen here, so that what of theirs is not in the upper directory is deleted.
fn walk(
    dir: BorrowedFd<'_>,
    path: &Path,
    lowers: Lowers<'_>,
    below: &Below,
    alone: bool,
    made: &[&str],
    found: &mut Vec<Change>,
) -> Result<()> {
    let told = |path: &Path| format!("{:?}", path.display().to_string());
    let own = node::names(dir).context(|| told(path))?;
    let mut names: std::collections::BTreeSet<_> = own.into_iter().collect();
    if alone {
        names.extend(lowers.names(below, path)?);
    }
    for name in names {
        let path = join(path, &name);
        let (before, next) = lowers.child(below, &path)?;
        let now = node::existing(dir, &name).context(|| told(&path))?.filter(|stat| !node::is_whiteout(stat));
        let change = |kind| Change { kind, path: Path::new("/").join(&path) };
        let Some(now) = now else {
            if before.is_some() {
                found.push(change(Kind::Deleted));
            }
            continue;
        };
        if before.is_none() && is_made(&path, &now, made) {
            continue;
        }
        if !node::is_directory(&now) {
            found.push(change(if before.is_some() { Kind::Changed } else { Kind::Added }));
            continue;
        }
        let at = found.len();
        let sub = node::subdirectory(dir, &name).context(|| told(&path))?;
        let opaque = alone || node::is_opaque(sub.as_fd()).context(|| told(&path))?;
        walk(sub.as_fd(), &path, lowers, &next, opaque, made, found)?;
        let kind = match before {
            // With nothing in it that anybody else made.
            None if found.len() == at && made.iter().any(|made| Path::new(made).starts_with(&path)) => None,
            None => Some(Kind::Added),
            Some((_, before)) if found.len() > at || differs(&before, &now) => Some(Kind::Changed),
            Some(_) => None,
        };
        if let Some(kind) = kind {
            found.insert(at, change(kind));
        }
    }
    Ok(())
}

fn differs(before: &Stat, now: &Stat) -> bool {
    (before.st_mode, before.st_uid, before.st_gid) != (now.st_mode, now.st_uid, now.st_gid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::testing::{Scratch, Tar, set, sh};
    use std::fs::File;

    #[test]
    fn a_letter_for_each_file_and_an_ancestor_is_changed() {
        let scratch = Scratch::new();
        let (low, top, upper) = (scratch.dir("low"), scratch.dir("top"), scratch.dir("upper"));
        Tar::default()
            .dir("etc", 0o755)
            .file("etc/changed", "1")
            .file("etc/deleted", "1")
            .dir("etc/same", 0o755)
            .dir("var", 0o755)
            .file("var/kept", "")
            .file("var/gone", "")
            .file("was", "a file")
            .unpack(&low)
            .expect("unpack");
        Tar::default()
            .file(".wh.was", "")
            .dir("etc", 0o755)
            .file("etc/top", "")
            .unpack(&top)
            .expect("unpack");
        sh(
            &upper,
            "mkdir -p etc/same etc/new var usr
             echo 2 >etc/changed; mknod etc/deleted c 0 0; mknod etc/nothing c 0 0; echo >etc/new/file; echo >etc/top
             echo >var/kept; echo >var/added; mknod was c 0 0; chmod 755 . etc etc/* var usr 2>/dev/null; mkfifo fifo",
        );
        ["etc/new", "var"].iter().for_each(|dir| set(&upper.join(dir), "trusted.overlay.opaque", b"y"));
        let open = [top, low, upper].map(|dir| File::open(dir).expect("open"));
        let told = |found: Vec<Change>| -> Vec<String> {
            found.iter().map(|change| format!("{} {}", change.kind.letter(), change.path.display())).collect()
        };
        let found = changes(open[2].as_fd(), &[open[0].as_fd(), open[1].as_fd()], &[]).expect("changes");
        assert_eq!(
            told(found),
            [
                "C /etc",
                "C /etc/changed",
                "D /etc/deleted",
                "A /etc/new",
                "A /etc/new/file",
                "C /etc/top",
                "A /fifo",
                "A /usr",
                "C /var",
                "A /var/added",
                "D /var/gone",
                "C /var/kept"
            ]
        );
        assert_eq!(told(changes(open[1].as_fd(), &[], &[]).expect("changes")).len(), 8);
    }

    #[test]
    fn what_a_runtime_made_to_mount_on_is_no_change() {
        let scratch = Scratch::new();
        let (low, upper) = (scratch.dir("low"), scratch.dir("upper"));
        sh(&low, "mkdir etc; echo >etc/kept; chmod 755 . etc");
        sh(
            &upper,
            "mkdir -p proc etc sbin sys/own; touch etc/hosts sbin/init; echo x >etc/hostname; chmod 755 . etc",
        );
        let open = [low, upper].map(|dir| File::open(dir).expect("open"));
        let made = ["proc", "sys", "etc/hosts", "etc/hostname", "sbin/init"];
        let found = changes(open[1].as_fd(), &[open[0].as_fd()], &made).expect("changes");
        let told: Vec<_> = found.iter().map(|change| change.path.display().to_string()).collect();
        // What somebody wrote to is theirs.
        assert_eq!(told, ["/etc", "/etc/hostname", "/sys", "/sys/own"]);
        let mut archive = Vec::new();
        crate::archive::pack_diff(open[1].as_fd(), &[open[0].as_fd()], &made, &mut archive).expect("pack");
        let names =
            String::from_utf8(crate::archive::testing::filter("tar", &["-t"], &archive)).expect("UTF-8");
        assert_eq!(names, "etc/\netc/hostname\nsys/\nsys/own/\n");
    }
}
