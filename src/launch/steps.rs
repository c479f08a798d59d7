//! What init and an exec'd process both do, each step a function.

#![forbid(unsafe_code)]

use super::fault::{At, Fault, Step};
use super::protocol;
use crate::cgroup::Tasks;
use crate::plan::Kind;
use crate::plan::cgroup::CgroupPlan;
use crate::plan::process::{HomeRule, ProcessPlan};
use crate::plan::scheduling::{MemoryPolicy, Scheduler};
use crate::plan::sysctl::Sysctl;
use crate::sys::{self, Named as _, SysError};
use rustix::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::ffi::{CStr, CString};

/// Files of the host's /proc that are needed later, opened before the first mount that the container
/// controls: a path into /proc means whatever the container's volumes make of it afterwards (CVE-2025-52881).
#[derive(Debug, Default)]
pub struct Proc {
    /// /proc/sys; the kernel looks the opener's namespaces up at each open below it.
    pub sys: Option<OwnedFd>,
    /// /proc/self/attr/exec, where a label waits for execve.
    pub label: Option<OwnedFd>,
    /// /proc/self/attr/keycreate.
    pub keyring: Option<OwnedFd>,
}

/// Opens what `process` will need of /proc.
pub fn open_proc(process: &ProcessPlan, sysctl: bool) -> Result<Proc, Fault> {
    let open =
        |path: &CStr, flags| rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty()).named("open");
    let mut proc = Proc::default();
    if sysctl {
        proc.sys = Some(open(c"/proc/sys", OFlags::PATH | OFlags::DIRECTORY).at(Step::Sysctl)?);
    }
    if process.apparmor_profile.is_some() {
        let own = open(c"/proc/self/attr/apparmor/exec", OFlags::WRONLY);
        // The directory is there since Linux 5.8, when AppArmor and SELinux could be stacked.
        let file = own.or_else(|_| open(c"/proc/self/attr/exec", OFlags::WRONLY));
        proc.label = Some(file.at(Step::Label)?);
    }
    if process.selinux_label.is_some() {
        proc.label = Some(open(c"/proc/self/attr/exec", OFlags::WRONLY).at(Step::Label)?);
        proc.keyring = open(c"/proc/self/attr/keycreate", OFlags::WRONLY).ok();
    }
    Ok(proc)
}

/// The files of v1 cgroups with their paths; they are in the order of the plan.
pub fn tasks(plan: &CgroupPlan, files: Vec<OwnedFd>) -> Tasks {
    let paths =
        crate::cgroup::Cgroup::planned(plan).into_iter().filter(|(controllers, _)| !controllers.is_empty());
    paths.map(|(_, path)| path.join("tasks")).zip(files).collect()
}

/// Enters cgroups of v1 by their `tasks` files, which takes fewer locks than being moved ([`crate::cgroup::Entry`]).
pub fn enter_cgroups(tasks: Tasks) -> Result<(), Fault> {
    for (path, file) in tasks {
        let entered = write_all(&file, b"0").at(Step::Cgroup);
        entered.map_err(|fault| Fault { note: path.display().to_string(), ..fault })?;
    }
    Ok(())
}

/// Enters joined namespaces.
pub fn join(namespaces: &[(Kind, OwnedFd)]) -> Result<(), Fault> {
    for (kind, fd) in namespaces {
        sys::launch::setns(fd, kind.flag()).at_index(Step::Namespace, *kind as usize)?;
    }
    Ok(())
}

/// A session of its own, so that no terminal is the caller's.
pub fn session() -> Result<(), Fault> {
    match rustix::process::setsid() {
        // Already the leader: a process that clone3 made the first of a pid namespace is not, yet EPERM
        // means no more than that.
        Ok(_) | Err(Errno::PERM) => Ok(()),
        Err(errno) => Err(SysError { call: "setsid", errno }).at(Step::Session),
    }
}

/// A session keyring, so that no keys are the caller's.
pub fn keyring(keyring: Option<&CStr>, label: Option<&OwnedFd>, process: &ProcessPlan) -> Result<(), Fault> {
    let Some(name) = keyring else { return Ok(()) };
    if let (Some(file), Some(text)) = (label, &process.selinux_label) {
        write_all(file, text.as_bytes()).at(Step::Label)?;
    }
    let joined = sys::launch::join_session_keyring(name);
    if let Some(file) = label {
        // The label is for this one key.
        let _ = rustix::io::write(file, b"");
    }
    match joined {
        Ok(id) => sys::launch::allow_search_of_keyring(id).or_else(|e| match e.errno {
            // The keyring of this name belongs to another user of the same id range.
            Errno::ACCESS | Errno::PERM => Ok(()),
            _ => Err(e).at(Step::Session),
        }),
        // A kernel without keys, or a seccomp profile around rrun itself, as in a nested container.
        Err(SysError { errno: Errno::NOSYS | Errno::PERM, .. }) => Ok(()),
        Err(e) => Err(e).at(Step::Session),
    }
}

/// Writes a whole, short file in one call, as files of /proc want it.
pub fn write_all(file: impl AsFd, bytes: &[u8]) -> sys::Result<()> {
    match protocol::retry(|| rustix::io::write(&file, bytes)).named("write")? {
        n if n == bytes.len() => Ok(()),
        _ => Err(SysError { call: "write", errno: Errno::IO }),
    }
}

/// Makes the terminal the standard streams.
pub fn attach_terminal(slave: &OwnedFd) -> Result<(), Fault> {
    (0..3).try_for_each(|number| sys::launch::duplicate_onto(slave, number)).at(Step::Console)
}

/// Gives the standard streams to the process's user, who could otherwise not reopen /dev/stdout.
///
/// Only the owner is set: the group of a terminal is `tty` on purpose. What cannot be owned is left alone: an
/// unmapped id, a read-only file system. The host's /dev/null is not given away (runc #3674) but replaced by the
/// container's: CRIU does not dump a file from a mount outside of the container.
pub fn own_stdio(process: &ProcessPlan) -> Result<(), Fault> {
    let uid = rustix::process::Uid::from_raw(process.user.uid);
    for fd in [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()] {
        let stat = match rustix::fs::fstat(fd) {
            Err(Errno::BADF) => continue,
            stat => stat.named("fstat").at(Step::Stdio)?,
        };
        let null = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
            && stat.st_rdev == rustix::fs::makedev(1, 3);
        if null {
            reopen_null(fd).at(Step::Stdio)?;
            continue;
        }
        if stat.st_uid == process.user.uid {
            continue;
        }
        match rustix::fs::fchown(fd, Some(uid), None) {
            Ok(()) | Err(Errno::INVAL | Errno::PERM | Errno::ROFS | Errno::ACCESS) => {}
            Err(errno) => return Err(SysError { call: "fchown", errno }).at(Step::Stdio),
        }
    }
    Ok(())
}

/// Puts the container's /dev/null in the place of one of our standard fds; without one that may be opened the host's
/// stays.
fn reopen_null(fd: BorrowedFd<'_>) -> sys::Result<()> {
    // None where the image has none, or something else.
    let open = |flags| match rustix::fs::open(c"/dev/null", flags | OFlags::CLOEXEC, Mode::empty()) {
        Ok(file) => {
            let stat = rustix::fs::fstat(&file).named("fstat")?;
            let null = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
                && stat.st_rdev == rustix::fs::makedev(1, 3);
            Ok(Some(file).filter(|_| null))
        }
        // These are rrun's own trouble; any other answer is about what the image has there.
        Err(errno @ (Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::INTR | Errno::IO)) => {
            Err(SysError { call: "open", errno })
        }
        Err(_) => Ok(None),
    };
    // Looked at before it is opened: opening another device may have effects.
    if open(OFlags::PATH | OFlags::NOFOLLOW)?.is_none() {
        return Ok(());
    }
    // Somebody who shares the directory may have put another file there meanwhile (CVE-2026-88265).
    let Some(file) = open(OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NOCTTY)? else { return Ok(()) };
    match fd.as_raw_fd() {
        0 => rustix::stdio::dup2_stdin(&file),
        1 => rustix::stdio::dup2_stdout(&file),
        _ => rustix::stdio::dup2_stderr(&file),
    }
    .named("dup2")
}

/// The arguments of sched_setattr(2).
pub fn attributes(scheduler: &Scheduler) -> sys::task::SchedAttr {
    let &Scheduler { name: _, policy, flags, nice, priority, runtime, deadline, period } = scheduler;
    let rest = sys::task::SchedAttr::default();
    sys::task::SchedAttr { policy, flags, nice, priority, runtime, deadline, period, ..rest }
}

/// Scheduler, I/O priority, execution domain and memory policy; the index tells which. With `relayed` only what a clone
/// of this process has too.
pub fn scheduling(
    process: &ProcessPlan,
    personality: Option<u32>,
    memory: Option<&MemoryPolicy>,
    relayed: bool,
) -> Result<(), Fault> {
    use sys::task;
    let scheduler = process.scheduler.as_ref();
    if let Some(scheduler) = scheduler.filter(|scheduler| !relayed || scheduler.is_inherited()) {
        task::sched_setattr(attributes(scheduler)).at_index(Step::Scheduling, 0)?;
    }
    if let Some(priority) = &process.io_priority {
        task::ioprio_set(priority.value).at_index(Step::Scheduling, 1)?;
    }
    if let Some(domain) = personality {
        task::personality(domain).at_index(Step::Scheduling, 2)?;
    }
    if let Some(policy) = memory {
        let nodes = policy.nodes.as_ref().map_or(&[][..], |nodes| nodes.words());
        task::set_mempolicy(policy.mode, nodes).at_index(Step::Scheduling, 3)?;
    }
    Ok(())
}

/// Becomes the process's user while the permitted capabilities stay, so that what must still be looked up is
/// looked up with that user's rights and seccomp can still be loaded without no_new_privs.
pub fn become_user(process: &ProcessPlan, may_lack_setgroups: bool) -> Result<(), Fault> {
    use sys::task;
    for cap in 0..u32::BITS * 2 {
        if process.capabilities.bounding & (1 << cap) == 0 {
            match task::bounding_drop(cap) {
                Ok(()) => {}
                // Beyond the last one of this kernel.
                Err(SysError { errno: Errno::INVAL, .. }) => break,
                // Without CAP_SETPCAP the set is what it is; it matters only if something is to be dropped.
                Err(e) => return Err(e).at(Step::Capabilities),
            }
        }
    }
    task::set_keep_caps(true).at(Step::Capabilities)?;
    // Always set, even to none: the runtime's own groups must not remain (CVE-2022-36109). Where a user could so
    // leave a group that denies them access, the kernel refuses (user_namespaces(7), CVE-2014-8989).
    if !process.user.keep_groups {
        match task::setgroups(&process.user.groups) {
            Err(SysError { errno: Errno::PERM, .. })
                if may_lack_setgroups && process.user.groups.is_empty() => {}
            other => other.at(Step::User)?,
        }
    }
    task::setresgid(process.user.gid).at(Step::User)?;
    task::setresuid(process.user.uid).at(Step::User)?;
    task::set_keep_caps(false).at(Step::Capabilities)?;
    if let Some(umask) = process.user.umask {
        rustix::process::umask(Mode::from_raw_mode(umask));
    }
    let now = task::capget().at(Step::Capabilities)?;
    let set = task::CapSets { effective: process.capabilities.effective & now.permitted, ..now };
    task::capset(set).at(Step::Capabilities)
}

/// Changes to `process.cwd`, creating it if it is missing, as dockerd expects of images' WORKDIR.
///
/// Tried before and after the change of user: root may lack access (a network file system) and so may the
/// user. `retry` is the second time.
pub fn change_directory(process: &ProcessPlan, retry: bool) -> Result<bool, Fault> {
    let entered = match rustix::process::chdir(&*process.cwd) {
        Err(Errno::NOENT) => {
            make_directories(&process.cwd).and_then(|()| rustix::process::chdir(&*process.cwd))
        }
        other => other,
    };
    match entered {
        Ok(()) => {}
        Err(Errno::ACCESS | Errno::PERM) if !retry => return Ok(false),
        Err(errno) => return Err(SysError { call: "chdir", errno }).at(Step::Cwd),
    }
    // A cwd such as /proc/self/fd/7 leads out of the container if the runtime leaks a directory; then the
    // kernel cannot name it from this root and the path does not begin with "/" (CVE-2024-21626). The raw
    // call is asked, as libc's getcwd falls back to walking upwards.
    match rustix::process::getcwd(Vec::new()) {
        Ok(path) if path.as_bytes().first() == Some(&b'/') => Ok(true),
        Ok(_) => Err(SysError { call: "getcwd", errno: Errno::NOENT }).at(Step::Cwd),
        Err(errno) => Err(SysError { call: "getcwd", errno }).at(Step::Cwd),
    }
}

/// Makes a directory and its parents; the root is the container's by now, so no path leads out of it.
fn make_directories(path: &CStr) -> Result<(), Errno> {
    let path = path.to_bytes();
    let ends = path.iter().enumerate().filter(|(i, byte)| **byte == b'/' && *i > 0).map(|(i, _)| i);
    for end in ends.chain(std::iter::once(path.len())) {
        match rustix::fs::mkdir(&path[..end], Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Finds the program as execvp(3) would, before anything irrevocable, with the user's rights.
pub fn look_up(process: &ProcessPlan) -> Result<CString, Fault> {
    let mut first = SysError { call: "stat", errno: Errno::NOENT };
    for path in &process.candidates {
        match executable(path) {
            Ok(()) => return Ok(path.clone()),
            Err(e) if matches!(e.errno, Errno::NOENT | Errno::NOTDIR) && process.candidates.len() > 1 => {}
            // A hit without permission is remembered, but a later directory may have a good one.
            Err(e) if first.errno == Errno::NOENT => first = e,
            Err(_) => {}
        }
    }
    Err(first).at(Step::Lookup)
}

fn executable(path: &CStr) -> sys::Result<()> {
    let stat = rustix::fs::statat(CWD, path, AtFlags::empty()).named("stat")?;
    let refused = |errno| Err(SysError { call: "stat", errno });
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => return refused(Errno::ISDIR),
        FileType::RegularFile => {}
        _ => return refused(Errno::ACCESS),
    }
    // faccessat2 (Linux 5.8) judges the effective ids and capabilities; older kernels judge the mode alone.
    match rustix::fs::accessat(CWD, path, rustix::fs::Access::EXEC_OK, AtFlags::EACCESS) {
        Err(Errno::NOSYS | Errno::INVAL | Errno::OPNOTSUPP) if stat.st_mode & 0o111 != 0 => Ok(()),
        Err(Errno::NOSYS | Errno::INVAL | Errno::OPNOTSUPP) => refused(Errno::ACCESS),
        other => other.named("faccessat"),
    }
}

/// Which label execve shall bring, as the kernel takes it.
pub fn label_text(process: &ProcessPlan) -> Vec<u8> {
    match (&process.apparmor_profile, &process.selinux_label) {
        (Some(profile), _) => [b"exec ", profile.as_bytes()].concat(),
        (None, Some(label)) => label.as_bytes().to_vec(),
        (None, None) => Vec::new(),
    }
}

/// The environment, with HOME from the container's /etc/passwd where config.json gives none.
pub fn environment(process: &ProcessPlan) -> Vec<CString> {
    let mut envp = process.envp.clone();
    if process.home == HomeRule::FromPasswd {
        let text = passwd().unwrap_or_default();
        let home = crate::plan::passwd::home(&text, process.user.uid);
        envp.extend(CString::new([b"HOME=", home].concat()));
    }
    envp
}

/// /etc/passwd of the container, if it is a file of sane size.
fn passwd() -> Option<Vec<u8>> {
    // Nonblocking and checked: an image may ship a fifo or a device here.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = rustix::fs::open(c"/etc/passwd", flags, Mode::empty()).ok()?;
    let stat = rustix::fs::fstat(&file).ok()?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || stat.st_size > 16 << 20 {
        return None;
    }
    crate::file::read_to_end(file).ok()
}

/// Writes a kernel parameter below the /proc/sys that was opened before any mount of the container's: by
/// components, and never through a link, so that nothing else of /proc can be hit (CVE-2025-52881).
pub fn set_sysctl(root: Option<&OwnedFd>, sysctl: &Sysctl) -> sys::Result<()> {
    use rustix::fs::ResolveFlags;
    let root = root.ok_or(SysError { call: "open", errno: Errno::NOENT })?;
    let path = sysctl.path.join("/");
    let flags = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let resolve = ResolveFlags::BENEATH
        | ResolveFlags::NO_SYMLINKS
        | ResolveFlags::NO_MAGICLINKS
        | ResolveFlags::NO_XDEV;
    let file = match rustix::fs::openat2(root, &path, flags, Mode::empty(), resolve) {
        Err(Errno::NOSYS | Errno::PERM) => {
            rustix::fs::openat(root, &path, flags, Mode::empty()).named("openat")?
        }
        other => other.named("openat2")?,
    };
    write_all(&file, &sysctl.value)
}
