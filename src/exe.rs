//! Keeps the host's rrun binary out of containers (CVE-2019-5736).
//!
//! A container that gets rrun executed inside it (`#!/proc/self/exe` as its entry point is enough) can open
//! /proc/self/exe and write to that file once nothing runs it. So whatever enters a container has no page of the file
//! mapped, and an empty sealed memfd as its /proc/self/exe: the file cannot be named through such a process, and its
//! pages are not those of the file on disk, so that a page cache bug (CVE-2022-0847, CVE-2026-31431) does not reach the
//! host either. What executes /proc/self/exe gets ENOEXEC.
//!
//! Who comes into a pid namespace that only the container's processes are in is seen by none of them before the very
//! last steps. These it takes without the program: it unmaps the file and goes on with a [script](crate::sys::script)
//! ([`forgets`]). Where others could see it before, or rrun's code is needed to the end, rrun replaces every page by a
//! private copy before it begins ([`protect`]), which takes 2 ms.
//!
//! Where the kernel refuses that, to a user without capabilities or for want of CONFIG_CHECKPOINT_RESTORE, it executes
//! itself again from a copy in a sealed memfd, which is as safe and takes longer.
//!
//! The other variants, and what they cost here, stand in the crate documentation.

#![forbid(unsafe_code)]

use crate::error::{Call as _, Error, Result};
use crate::spec::Spec;
use rustix::fd::{AsFd as _, OwnedFd};
use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags};
use rustix::io::Errno;
use std::ffi::{CString, OsStr};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

const SEALS: SealFlags =
    SealFlags::SEAL.union(SealFlags::SHRINK).union(SealFlags::GROW).union(SealFlags::WRITE);

/// Whether what is launched in such a container leaves the file behind by itself: in a pid namespace of its own, which
/// nobody else is in yet or, for `exec`, nobody of the host; and without startContainer hooks, which rrun runs when it
/// is confined already.
pub fn forgets(spec: &Spec, exec: bool) -> bool {
    let Some(linux) = &spec.linux else { return false };
    let namespace = |kind| linux.namespaces.iter().find(|namespace| namespace.typ == kind);
    let own = |kind| namespace(kind).is_some_and(|namespace| namespace.path.is_empty());
    let joins_user = !exec && namespace("user").is_some() && !own("user");
    let hooks = !exec && !spec.hooks.start_container.is_empty();
    cfg!(target_arch = "x86_64")
        && own("pid")
        && !joins_user
        && !hooks
        && crate::sys::image::replaceable(namespace("user").is_some())
}

/// Returns when nothing of the file is left in this process, at the second time if it has to be executed again.
///
/// # Errors
/// Those of memfd_create(2), the copy and execveat(2): without the copy nothing may enter a container.
pub fn protect() -> Result<()> {
    let exe = rustix::fs::open("/proc/self/exe", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .call(|| "open /proc/self/exe")
        .map_err(|e| e.remedy("rrun needs /proc"))?;
    if rustix::fs::fcntl_get_seals(&exe).is_ok_and(|seals| seals.contains(SEALS)) {
        return Ok(());
    }
    if crate::sys::image::detach(&nothing()?).is_ok() {
        return Ok(());
    }
    let copy = sealed_copy(&exe).map_err(|e| e.context("sealed copy of rrun"))?;
    let argv: Vec<CString> =
        std::env::args_os().filter_map(|arg| CString::new(arg.into_vec()).ok()).collect();
    let envp: Vec<CString> =
        std::env::vars_os().filter_map(|(name, value)| variable(&name, &value)).collect();
    let Err(e) = crate::sys::launch::fexecve(copy.as_fd(), &argv, &envp);
    Err(Error::from(e).context("sealed copy of rrun"))
}

/// What /proc/self/exe is to be: a file that is empty and stays so.
///
/// # Errors
/// memfd_create(2), fcntl(2).
pub fn nothing() -> Result<OwnedFd> {
    sealed(memfd()?)
}

fn variable(name: &OsStr, value: &OsStr) -> Option<CString> {
    CString::new([name.as_bytes(), b"=", value.as_bytes()].concat()).ok()
}

fn sealed(file: OwnedFd) -> Result<OwnedFd> {
    rustix::fs::fcntl_add_seals(&file, SEALS).call(|| "fcntl(F_ADD_SEALS)")?;
    Ok(file)
}

fn memfd() -> Result<OwnedFd> {
    // MFD_EXEC is due since Linux 6.3, where vm.memfd_noexec=1 makes the default unexecutable; before, it is
    // an unknown flag.
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    match rustix::fs::memfd_create(c"rrun", flags | MemfdFlags::EXEC) {
        Err(Errno::INVAL) => rustix::fs::memfd_create(c"rrun", flags),
        other => other,
    }
    .call(|| "memfd_create")
}

fn sealed_copy(exe: &OwnedFd) -> Result<OwnedFd> {
    let size = rustix::fs::fstat(exe).call(|| "fstat /proc/self/exe")?.st_size;
    let mut left = usize::try_from(size).unwrap_or(0);
    let copy = memfd()?;
    while left > 0 {
        match rustix::fs::sendfile(&copy, exe, None, left).call(|| "sendfile")? {
            0 => return Err(Error::new("/proc/self/exe ended early")),
            sent => left -= sent.min(left),
        }
    }
    sealed(copy)
}
