//! `linux.namespaces`: which to create, which to join, which to share with the runtime.

#![forbid(unsafe_code)]

use crate::error::{Error, Result};
use crate::spec;
use std::fmt;
use std::path::{Path, PathBuf};

/// One of the eight kinds of namespace (namespaces(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `user`; first, as it owns those created with it.
    User,
    /// `pid`
    Pid,
    /// `network`
    Network,
    /// `ipc`
    Ipc,
    /// `uts`
    Uts,
    /// `mount`
    Mount,
    /// `cgroup`
    Cgroup,
    /// `time`
    Time,
}

impl Kind {
    /// Every kind, in the order in which they are joined.
    pub const ALL: [Self; 8] =
        [Self::User, Self::Pid, Self::Network, Self::Ipc, Self::Uts, Self::Mount, Self::Cgroup, Self::Time];

    /// The name in config.json.
    pub const fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Pid => "pid",
            Self::Network => "network",
            Self::Ipc => "ipc",
            Self::Uts => "uts",
            Self::Mount => "mount",
            Self::Cgroup => "cgroup",
            Self::Time => "time",
        }
    }

    /// The file in /proc/PID/ns.
    pub const fn file(self) -> &'static str {
        match self {
            Self::Network => "net",
            Self::Mount => "mnt",
            _ => self.name(),
        }
    }

    /// The flag of clone(2) and setns(2), also what ioctl NS_GET_NSTYPE answers.
    pub const fn flag(self) -> u32 {
        (match self {
            Self::User => libc::CLONE_NEWUSER,
            Self::Pid => libc::CLONE_NEWPID,
            Self::Network => libc::CLONE_NEWNET,
            Self::Ipc => libc::CLONE_NEWIPC,
            Self::Uts => libc::CLONE_NEWUTS,
            Self::Mount => libc::CLONE_NEWNS,
            Self::Cgroup => libc::CLONE_NEWCGROUP,
            Self::Time => libc::CLONE_NEWTIME,
        }) as u32
    }
}

/// What happens to one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// Shared with the runtime.
    Inherit,
    /// A new one.
    Create,
    /// The one at this path.
    Join(PathBuf),
}

/// The choice for each kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespaces {
    choices: [Choice; 8],
    /// Where in `linux.namespaces` each stands.
    at: [usize; 8],
}

impl Namespaces {
    /// Reads `linux.namespaces`.
    ///
    /// # Errors
    /// An unknown or doubled type, a path that is not absolute (config-linux.md, "Namespaces").
    pub fn build(listed: &[spec::Namespace]) -> Result<Self> {
        let mut choices = [const { Choice::Inherit }; 8];
        let mut places = [0; 8];
        for (i, entry) in listed.iter().enumerate() {
            let at = |field: &str| format!("linux.namespaces[{i}].{field}");
            let Some(kind) = Kind::ALL.into_iter().find(|kind| kind.name() == entry.typ) else {
                return Err(Error::config(at("type"), format!("namespace {:?} does not exist", entry.typ)));
            };
            places[kind as usize] = i;
            let choice = &mut choices[kind as usize];
            if *choice != Choice::Inherit {
                return Err(Error::config(at("type"), format!("duplicated ns {:?}", entry.typ)));
            }
            *choice = match entry.path.as_str() {
                "" => Choice::Create,
                path if path.starts_with('/') => Choice::Join(path.into()),
                path => return Err(Error::config(at("path"), format!("{path:?} is not an absolute path"))),
            };
        }
        Ok(Self { choices, at: places })
    }

    /// The choice for a kind.
    pub fn get(&self, kind: Kind) -> &Choice {
        &self.choices[kind as usize]
    }

    /// Its path in config.json, for errors.
    pub fn at(&self, kind: Kind) -> String {
        format!("linux.namespaces[{}]", self.at[kind as usize])
    }

    /// Whether a new one is created.
    pub fn creates(&self, kind: Kind) -> bool {
        *self.get(kind) == Choice::Create
    }

    /// Whether the container has one that is not the runtime's, new or joined.
    pub fn has(&self, kind: Kind) -> bool {
        *self.get(kind) != Choice::Inherit
    }

    /// The path joined, if one is.
    pub fn joins(&self, kind: Kind) -> Option<&Path> {
        match self.get(kind) {
            Choice::Join(path) => Some(path),
            _ => None,
        }
    }

    /// The `CLONE_NEW*` flags of those that are created.
    pub fn create_flags(&self) -> u32 {
        Kind::ALL.into_iter().filter(|kind| self.creates(*kind)).map(Kind::flag).sum()
    }
}

impl fmt::Display for Namespaces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, kind) in Kind::ALL.into_iter().enumerate() {
            let gap = if i == 0 { "" } else { " " };
            match self.get(kind) {
                Choice::Inherit => write!(f, "{gap}{}=host", kind.name())?,
                Choice::Create => write!(f, "{gap}{}=new", kind.name())?,
                Choice::Join(path) => write!(f, "{gap}{}={}", kind.name(), path.display())?,
            }
        }
        Ok(())
    }
}
