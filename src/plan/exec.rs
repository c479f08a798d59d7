//! What `exec` will do, from the container's kept config.json and what was asked for.

#![forbid(unsafe_code)]

use super::ids::Ids;
use super::process::ProcessPlan;
use super::scheduling::{self, MemoryPolicy};
use super::seccomp::Filter;
use super::{Kind, Namespaces};
use crate::error::Result;
use crate::spec::{self, Spec};
use std::ffi::CString;

/// Everything about a further process.
#[derive(Debug)]
pub struct ExecPlan {
    /// `CLONE_NEW*` of the namespaces that the container has of its own.
    pub joined: u32,
    /// The container has no mount namespace of its own, whose root would be its root: the process follows init's.
    pub chroot: bool,
    /// The process.
    pub process: ProcessPlan,
    /// Its execution domain.
    pub personality: Option<u32>,
    /// Its memory policy.
    pub memory_policy: Option<MemoryPolicy>,
    /// The container's filter: without it, exec would be a way around it.
    pub seccomp: Option<Filter>,
    /// The container's session keyring.
    pub keyring: Option<CString>,
    /// How many fds from 3 on the process keeps.
    pub preserve_fds: u32,
    /// `--cgroup`: controllers and path below the container's cgroup.
    pub sub_cgroups: Vec<(Option<String>, String)>,
    /// Whether privileges of the initial user namespace are missing.
    pub rootless: bool,
    /// Whether the kernel may refuse setgroups(2) inside.
    pub may_lack_setgroups: bool,
    /// Whether its terminal is shown by us, and must leave lines as they are from the first on.
    pub shown: bool,
}

impl ExecPlan {
    /// Decides it for `process`, which the caller has put together.
    ///
    /// # Errors
    /// The first value that is wrong.
    pub fn build(spec: &Spec, id: &str, process: &spec::Process, rootless: bool) -> Result<Self> {
        let none = spec::Linux::default();
        let linux = spec.linux.as_deref().unwrap_or(&none);
        let namespaces = Namespaces::build(&linux.namespaces)?;
        let ids = Ids::build(linux, &namespaces)?;
        let mut process = ProcessPlan::build(Some(process))?;
        process.user.keep_groups = super::annotations::keeps_groups(&spec.annotations);
        ids.check(&process.user)?;
        let personality = linux.personality.as_ref().map(scheduling::personality).transpose()?;
        Ok(Self {
            joined: Kind::ALL.into_iter().filter(|kind| namespaces.has(*kind)).map(Kind::flag).sum(),
            chroot: !namespaces.creates(Kind::Mount),
            personality: personality.map(|(domain, _)| domain),
            memory_policy: linux.memory_policy.as_ref().map(MemoryPolicy::build).transpose()?,
            seccomp: linux.seccomp.as_ref().map(super::seccomp::build).transpose()?.flatten(),
            keyring: super::keyring(id, false),
            preserve_fds: 0,
            sub_cgroups: Vec::new(),
            shown: false,
            rootless,
            may_lack_setgroups: rootless || matches!(&ids, Ids::Join { .. }),
            process,
        })
    }
}
