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
/// # Errors
/// Those of the calls.
pub fn changes(upper: BorrowedFd<'_>, lowers: &[BorrowedFd<'_>]) -> Result<Vec<Change>> {
    let lowers = Lowers(lowers);
    let mut found = Vec::new();
    walk(upper, Path::new("."), lowers, &lowers.root(), false, &mut found)?;
    Ok(found)
}

/// `alone`: nothing of the layers below is seen here, so that what of theirs is not in the upper directory is deleted.
fn walk(
    dir: BorrowedFd<'_>,
    path: &Path,
    lowers: Lowers<'_>,
    below: &Below,
    alone: bool,
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
        if !node::is_directory(&now) {
            found.push(change(if before.is_some() { Kind::Changed } else { Kind::Added }));
            continue;
        }
        let at = found.len();
        let sub = node::subdirectory(dir, &name).context(|| told(&path))?;
        let opaque = alone || node::is_opaque(sub.as_fd()).context(|| told(&path))?;
        walk(sub.as_fd(), &path, lowers, &next, opaque, found)?;
        let kind = match before {
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
        let found = changes(open[2].as_fd(), &[open[0].as_fd(), open[1].as_fd()]).expect("changes");
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
        assert_eq!(told(changes(open[1].as_fd(), &[]).expect("changes")).len(), 8);
    }
}
