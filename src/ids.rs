//! Writes the id maps of a new user namespace (user_namespaces(7)).
//!
//! With privileges rrun writes them itself. Without, the kernel lets it map its own ids alone, one line
//! each; more needs newuidmap(1) and newgidmap(1), which check /etc/subuid and /etc/subgid.

#![forbid(unsafe_code)]

use crate::error::{Call as _, Context as _, Error, Result};
use crate::plan::Plan;
use crate::plan::ids::{IdMap, Ids, MISMATCH};
use crate::sys::spawn::{Program, spawn};
use rustix::fd::AsFd as _;
use rustix::fs::{Access, AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;
use std::ffi::CString;

/// Maps the ids of the process, which waits in its new user namespace; checks those of a joined one.
///
/// # Errors
/// The kernel's or the programs', with the map.
pub fn write(plan: &Plan, pid: u32) -> Result<()> {
    match &plan.ids {
        Ids::Inherit | Ids::Join { expected: None } => Ok(()),
        Ids::Join { expected: Some((uid, gid)) } => {
            for (file, expected) in [("uid_map", uid), ("gid_map", gid)] {
                let path = format!("/proc/{pid}/{file}");
                let text = crate::file::read(&path)?;
                if !IdMap::parse(&text).is_some_and(|map| map.same(expected)) {
                    return Err(Error::config("linux.uidMappings", MISMATCH));
                }
            }
            Ok(())
        }
        Ids::New { uid, gid } => {
            let own = rustix::process::getegid().as_raw();
            if !rustix::process::geteuid().is_root() && may_write_itself(gid, own) {
                // The condition of the kernel for a group map written without CAP_SETGID (CVE-2014-8989).
                put(pid, "setgroups", "deny").context(|| "linux.gidMappings")?;
            }
            map(pid, "uid_map", "newuidmap", uid).context(|| "linux.uidMappings")?;
            map(pid, "gid_map", "newgidmap", gid).context(|| "linux.gidMappings")
        }
    }
}

/// Whether this map is the one line that needs no privilege.
fn may_write_itself(map: &IdMap, own: u32) -> bool {
    matches!(map.lines(), [line] if line.size == 1 && line.host == own)
}

fn map(pid: u32, file: &str, program: &str, map: &IdMap) -> Result<()> {
    let own = match file {
        "uid_map" => rustix::process::geteuid().as_raw(),
        _ => rustix::process::getegid().as_raw(),
    };
    if rustix::process::geteuid().is_root() || may_write_itself(map, own) {
        return put(pid, file, &map.to_string());
    }
    by_program(pid, program, map)
}

fn put(pid: u32, file: &str, text: &str) -> Result<()> {
    let path = format!("/proc/{pid}/{file}");
    let what = || format!("write {:?} to {file}", text.trim_end());
    let open = rustix::fs::open(&path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
        .call(|| format!("open {path}"))?;
    // The kernel takes a map in one write only.
    match rustix::io::write(&open, text.as_bytes()) {
        Ok(_) => Ok(()),
        Err(e @ Errno::INVAL) => Err(Error::sys(what(), e).remedy("mappings must not overlap")),
        Err(e) => Err(Error::sys(what(), e)),
    }
}

fn by_program(pid: u32, name: &str, map: &IdMap) -> Result<()> {
    let missing = || {
        Error::new(format!("{name} is not installed, so only one id of your own can be mapped"))
            .remedy("install uidmap (Debian) or shadow-utils, and give the user ranges in /etc/subuid and /etc/subgid")
    };
    let path = ["/usr/bin", "/bin", "/usr/local/bin", "/run/wrappers/bin"]
        .iter()
        .filter_map(|dir| CString::new(format!("{dir}/{name}")).ok())
        .find(|path| rustix::fs::accessat(CWD, path, Access::EXEC_OK, AtFlags::empty()).is_ok())
        .ok_or_else(missing)?;
    let mut argv =
        vec![CString::new(name).unwrap_or_default(), CString::new(pid.to_string()).unwrap_or_default()];
    for line in map.lines() {
        for number in [line.container, line.host, line.size] {
            argv.push(CString::new(number.to_string()).unwrap_or_default());
        }
    }
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .call(|| "open /dev/null")?;
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).call(|| "pipe2")?;
    let fds = [null.as_fd(), null.as_fd(), write.as_fd()];
    let mut child =
        spawn(&Program { path: &path, argv: &argv, envp: &[], cwd: None, fds: &fds, group: false })?;
    drop(write);
    let said = crate::file::read_to_end(read).call(|| "read")?;
    let end = child.wait()?;
    if end.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&said).trim().to_owned();
    let file = if name == "newuidmap" { "/etc/subuid" } else { "/etc/subgid" };
    let remedy =
        format!("the user's ranges are in {file}; {name} itself must be setuid root or have its capability");
    Err(Error::new(format!("{name}: {end}: {said}")).remedy(remedy))
}
