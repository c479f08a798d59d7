//! Device rules on cgroup v2: a program in the kernel, attached to the container's cgroup.
//!
//! Several programs may be on one cgroup, and an access needs the consent of all: systemd has its own on a scope
//! with `DeviceAllow=`, and an administrator may add more. So rrun puts its program beside them and replaces none
//! but its own, which it knows by the name that a program carries. An id on record would be wrong after a crash
//! between attaching and recording, and would come to mean another program once the id is used again; the name is
//! part of what is attached.

#![forbid(unsafe_code)]

use crate::error::{Context as _, Error, Result};
use crate::plan::cgroup::{DeviceRule, device_program};
use crate::sys::{SysError, bpf};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::ffi::CStr;

const NAME: &CStr = c"rrun_devices";

/// Makes these the device rules of a v2 cgroup, in place of those that this function gave it before.
///
/// Neither during the change nor after a failure is anything allowed that neither the old nor the new rules
/// allow. `is_new` says that the cgroup has just been made, so that nothing is attached to it.
///
/// # Errors
/// The kernel refuses: EPERM in a user namespace other than the initial one, ENOSYS or EINVAL without
/// `CONFIG_CGROUP_BPF`.
pub fn apply_devices(dir: BorrowedFd<'_>, rules: &[DeviceRule], is_new: bool) -> Result<()> {
    let program = device_program(rules);
    let old = if is_new { Vec::new() } else { own(dir).context(|| "linux.resources.devices")? };
    swap(dir, program, &old).map_err(explain)
}

fn swap(
    dir: BorrowedFd<'_>,
    program: Option<Vec<crate::plan::cgroup::Instruction>>,
    old: &[OwnedFd],
) -> Result<(), SysError> {
    let mut stale = old;
    if let Some(program) = program {
        let program: Vec<_> = program.into_iter().map(crate::plan::cgroup::Instruction::encode).collect();
        let new = load(&program)?;
        match old.split_first() {
            // Before 5.6 the two are attached at once for a moment, which allows what both do.
            Some((first, rest)) => match bpf::attach(dir, &new, Some(first)) {
                Err(e) if e.errno == Errno::INVAL => bpf::attach(dir, &new, None)?,
                replaced => {
                    replaced?;
                    stale = rest;
                }
            },
            None => bpf::attach(dir, &new, None)?,
        }
    }
    stale.iter().try_for_each(|program| match bpf::detach(dir, program) {
        Err(e) if e.errno == Errno::NOENT => Ok(()),
        result => result,
    })
}

/// Those of the attached programs that are rrun's.
fn own(dir: BorrowedFd<'_>) -> Result<Vec<OwnedFd>, SysError> {
    let mut own = Vec::new();
    for id in bpf::attached(dir)? {
        let program = match bpf::by_id(id) {
            // Detached since, or under the label of another: a security module hides what is not ours.
            Err(e) if matches!(e.errno, Errno::NOENT | Errno::PERM | Errno::ACCESS) => continue,
            program => program?,
        };
        if bpf::name_of(program.as_fd())?.starts_with(NAME.to_bytes_with_nul()) {
            own.push(program);
        }
    }
    Ok(own)
}

fn load(program: &[bpf::Instruction]) -> Result<OwnedFd, SysError> {
    match bpf::load_device_program(program, NAME) {
        // Before 5.11 the kernel counts programs as locked memory, of which 64 KiB is the usual limit.
        Err(e) if e.errno == Errno::PERM => {
            let limit = getrlimit(Resource::Memlock);
            if limit.current.is_none()
                || setrlimit(Resource::Memlock, Rlimit { current: None, maximum: None }).is_err()
            {
                return Err(e);
            }
            let loaded = bpf::load_device_program(program, NAME);
            // What rrun has a container inherits.
            let _ = setrlimit(Resource::Memlock, limit);
            loaded
        }
        loaded => loaded,
    }
}

fn explain(e: SysError) -> Error {
    let errno = e.errno;
    let e = Error::from(e).context("linux.resources.devices: the device rules of cgroup v2");
    match errno {
        Errno::PERM | Errno::ACCESS => e.remedy("needs CAP_BPF or CAP_SYS_ADMIN on the host"),
        Errno::NOSYS | Errno::INVAL => e.remedy("needs Linux 4.15 with CONFIG_CGROUP_BPF"),
        _ => e,
    }
}
