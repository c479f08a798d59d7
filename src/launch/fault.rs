//! How the child tells the parent what failed: by step, index, call and errno; the parent, which holds the
//! same plan, has the words.

#![forbid(unsafe_code)]

use crate::sys::SysError;
use rustix::io::Errno;

/// What init or an exec'd process was doing, in the order in which it does it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Step {
    /// Making new namespaces, all at once.
    Namespaces,
    /// Entering a cgroup; the note is its file.
    Cgroup,
    /// Joining or creating a namespace; the index is a [`crate::plan::Kind`].
    Namespace,
    /// Writing the offsets of a time namespace.
    TimeOffsets,
    /// A new session and its keyring.
    Session,
    /// Making the mount namespace private and the root a mount of its own.
    Root,
    /// An operation of the root filesystem; the index counts [`crate::plan::rootfs::RootfsOp`]s.
    Rootfs,
    /// A hook of `hooks.createContainer`.
    CreateContainerHook,
    /// pivot_root(2) or its substitute.
    Pivot,
    /// The pseudo-terminal and /dev/console.
    Console,
    /// Host or domain name.
    Hostname,
    /// A kernel parameter; the index counts `linux.sysctl`, sorted.
    Sysctl,
    /// Making `/` read-only.
    RootReadonly,
    /// The index counts `linux.readonlyPaths`.
    ReadonlyPath,
    /// The index counts `linux.maskedPaths`.
    MaskedPath,
    /// A resource limit; the index counts `process.rlimits`.
    Rlimit,
    /// Scheduler, I/O priority, personality, memory policy, CPU affinity.
    Scheduling,
    /// Label of a Linux security module.
    Label,
    /// Standard input, output and error, or preserved fds.
    Stdio,
    /// Capability sets.
    Capabilities,
    /// User, group and supplementary groups.
    User,
    /// `process.cwd`.
    Cwd,
    /// Finding `process.args[0]`.
    Lookup,
    /// The message or its answer.
    Protocol,
    /// Leaving rrun's file behind.
    Exe,
    /// A hook of `hooks.startContainer`.
    StartContainerHook,
    /// no_new_privs and the system call filter.
    Seccomp,
    /// execve(2) of `process.args`.
    Exec,
}

/// A failed step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What was being done.
    pub step: Step,
    /// Which one, where the step has several.
    pub index: u16,
    /// The call that failed.
    pub call: &'static str,
    /// Its errno.
    pub errno: Errno,
    /// What the kernel or a hook said beside that; mostly empty.
    pub note: String,
}

/// Turns the failure of a call into a [`Fault`].
pub trait At<T> {
    /// The step, for steps that are single.
    ///
    /// # Errors
    /// The fault.
    fn at(self, step: Step) -> Result<T, Fault>;
    /// The step and which one of several.
    ///
    /// # Errors
    /// The fault.
    fn at_index(self, step: Step, index: usize) -> Result<T, Fault>;
}

impl<T> At<T> for Result<T, SysError> {
    fn at(self, step: Step) -> Result<T, Fault> {
        self.at_index(step, 0)
    }
    fn at_index(self, step: Step, index: usize) -> Result<T, Fault> {
        self.map_err(|e| Fault {
            step,
            index: u16::try_from(index).unwrap_or(u16::MAX),
            call: e.call,
            errno: e.errno,
            note: String::new(),
        })
    }
}

impl Step {
    /// Every step, in order.
    pub const ALL: [Self; 28] = [
        Self::Namespaces,
        Self::Cgroup,
        Self::Namespace,
        Self::TimeOffsets,
        Self::Session,
        Self::Root,
        Self::Rootfs,
        Self::CreateContainerHook,
        Self::Pivot,
        Self::Console,
        Self::Hostname,
        Self::Sysctl,
        Self::RootReadonly,
        Self::ReadonlyPath,
        Self::MaskedPath,
        Self::Rlimit,
        Self::Scheduling,
        Self::Label,
        Self::Stdio,
        Self::Capabilities,
        Self::User,
        Self::Cwd,
        Self::Lookup,
        Self::Protocol,
        Self::Exe,
        Self::StartContainerHook,
        Self::Seccomp,
        Self::Exec,
    ];

    /// The step of this number, as sent by the child.
    pub fn from_u8(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::Step;

    #[test]
    fn a_step_is_its_place_in_the_list() {
        for (i, step) in Step::ALL.into_iter().enumerate() {
            assert_eq!(step as usize, i);
        }
    }
}
