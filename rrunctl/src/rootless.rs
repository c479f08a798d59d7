//! An ordinary user's engine, in namespaces of that user's own.
//!
//! In a user namespace with the ranges of /etc/subuid the user is root: layers get their owners, overlayfs and bind
//! mounts work, and rrun, rrunmon and everything else does what it does for root. With it come a mount namespace, for the
//! mounts that outlive a command, and a network namespace, for the bridges and the firewall. The first command makes the
//! three and leaves a process that keeps them; each command enters the first two before it does anything.
//!
//! The network stays the host's: images are pulled, names looked up and published ports taken there, and only what is done
//! to links and tables goes in ([`crate::network`]). `rrunmon` passes on what comes to a port. What containers send goes
//! out by pasta(1), or else slirp4netns(1), which opens the user's sockets for it.
//!
//! user_namespaces(7), newuidmap(1), setns(2).

#![forbid(unsafe_code)]

use crate::error::{Context as _, Error, Result};
use crate::home::{self, Lock};
use crate::{network, sys};
use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, read, write};
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, getgid, getuid, kill_process, setsid};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};
use std::fmt::Write as _;
use std::fs;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Below the directory that a reboot takes: which process keeps the namespaces.
const KEEPER: &str = "namespaces";
/// Likewise, the pid of the process that is the way out.
const WAY_OUT: &str = "namespaces.out";
/// Likewise, when it was last started, or that was tried.
const TRIED: &str = "namespaces.tried";
/// How long it is not tried again.
const NOT_AGAIN: Duration = Duration::from_secs(30);

/// Whether this process is in a user namespace other than the first one, where `trusted.` attributes, devices and some
/// sysctls are out of reach.
pub fn is_inside() -> bool {
    static AT_FIRST: OnceLock<bool> = OnceLock::new();
    let at_first = || {
        let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        !map.is_empty() && !map.split_whitespace().eq(["0", "0", "4294967295"])
    };
    ENTERED.load(Ordering::Relaxed) || *AT_FIRST.get_or_init(at_first)
}

/// Whether [`enter`] has been where it leads.
static ENTERED: AtomicBool = AtomicBool::new(false);

/// Whether the user has a systemd of their own, which makes cgroups for them.
pub fn has_systemd() -> bool {
    std::env::var_os("XDG_RUNTIME_DIR").is_some_and(|dir| Path::new(&dir).join("systemd/private").exists())
}

/// Where an ordinary user's engine is: what is kept (the XDG base directory specification's `XDG_DATA_HOME`), what a
/// reboot may take (`XDG_RUNTIME_DIR`), and its daemon.json.
///
/// # Errors
/// There is no home, or no directory that a reboot takes.
pub fn places() -> Result<[PathBuf; 3]> {
    let given = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let home = given("HOME");
    let below = |name: &str, rest: &str| {
        given(name).or_else(|| Some(home.as_ref()?.join(rest))).ok_or_else(|| {
            Error::invalid(format!("neither ${name} nor $HOME is set")).remedy("give --root and --run")
        })
    };
    let run = given("XDG_RUNTIME_DIR").or_else(|| {
        Some(PathBuf::from(format!("/run/user/{}", getuid().as_raw()))).filter(|path| path.exists())
    });
    let run = run.ok_or_else(|| {
        Error::invalid("$XDG_RUNTIME_DIR is not set, and this user has no directory in /run/user").remedy(
            "log in as the user (`machinectl shell`, not `su`), or give --run, a directory of the user's own",
        )
    })?;
    Ok([
        below("XDG_DATA_HOME", ".local/share")?.join("rrunctl"),
        run.join("rrunctl"),
        below("XDG_CONFIG_HOME", ".config")?.join("rrunctl/daemon.json"),
    ])
}

/// Enters the user and the mount namespace of the engine whose directory `run` is; makes them if they are not there. What
/// the user should know. The process has one thread.
///
/// # Errors
/// The user has no ranges in /etc/subuid and /etc/subgid; the kernel makes no user namespaces for ordinary users.
pub fn enter(run: &Path) -> Result<Vec<String>> {
    home::private(run)?;
    let _lock = Lock::exclusive(&run.join("namespaces.lock"))?;
    let (keeper, warnings) = match Keeper::of(run)? {
        Some(keeper) => (keeper, another_way_out(run, keeper.pid)?.into_iter().collect()),
        None => make(run).context(|| "make the user's namespaces")?,
    };
    let (user, mounts) = (keeper.namespace("user")?, keeper.namespace("mnt")?);
    // Its pid may be another's since it was looked at.
    if !keeper.lives() {
        return Err(Error::conflict(format!("{} has just ended", keeper.pid.as_raw_nonzero()))
            .remedy("do it again: new namespaces will be made"));
    }
    let here = std::env::current_dir();
    move_into_link_name_space(user.as_fd(), Some(LinkNameSpaceType::User))
        .context(|| "setns to the user's user namespace")?;
    ENTERED.store(true, Ordering::Relaxed);
    move_into_link_name_space(mounts.as_fd(), Some(LinkNameSpaceType::Mount))
        .context(|| "setns to the user's mount namespace")?;
    // setns(2) goes to the root directory.
    if let Ok(here) = here {
        std::env::set_current_dir(&here).context(|| format!("chdir {}", here.display()))?;
    }
    Ok(warnings)
}

/// The network namespace of the engine whose directory `run` is, if this process is in the namespaces that belong to it.
///
/// # Errors
/// Those of open(2).
pub fn netns(run: &Path) -> Result<Option<network::Netns>> {
    if !is_inside() {
        return Ok(None);
    }
    let Some(keeper) = Keeper::of(run)? else { return Ok(None) };
    if user_namespace("self") != user_namespace(&keeper.pid.to_string()) {
        return Ok(None);
    }
    network::Netns::open(&keeper.path("net")).map(Some)
}

/// The process that keeps the namespaces.
#[derive(Debug, Clone, Copy)]
struct Keeper {
    pid: Pid,
    /// When it was started, in ticks since the boot: no later process of its pid has that.
    started: u64,
}

impl Keeper {
    /// The one that lives.
    fn of(run: &Path) -> Result<Option<Self>> {
        let Some(text) = home::read(&run.join(KEEPER))? else { return Ok(None) };
        let text = String::from_utf8_lossy(&text);
        let mut numbers = text.split_whitespace();
        let pid = numbers.next().and_then(|pid| pid.parse().ok()).and_then(Pid::from_raw);
        let started = numbers.next().and_then(|ticks| ticks.parse().ok());
        Ok(pid.zip(started).map(|(pid, started)| Self { pid, started }).filter(Self::lives))
    }

    fn lives(&self) -> bool {
        started(self.pid) == Some(self.started)
    }

    fn path(&self, namespace: &str) -> PathBuf {
        format!("/proc/{}/ns/{namespace}", self.pid.as_raw_nonzero()).into()
    }

    fn namespace(&self, name: &str) -> Result<OwnedFd> {
        let path = self.path(name);
        rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .context(|| format!("open {}", path.display()))
    }
}

/// When a process was started (proc_pid_stat(5), field 22), if it has not ended.
fn started(pid: Pid) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    // Its name may have blanks and parentheses.
    let fields = stat.rsplit_once(')')?.1;
    // A zombie has a start and no namespaces.
    fields.split_whitespace().nth(19).filter(|_| !fields.starts_with(" Z"))?.parse().ok()
}

/// `user:[4026531837]`: which user namespace a process is in.
fn user_namespace(pid: &str) -> Option<String> {
    fs::read_link(format!("/proc/{pid}/ns/user")).ok()?.into_os_string().into_string().ok()
}

/// The user namespace of a keeper that was killed: the monitors of containers that run are in it still, and what is in
/// another one could not reach them. Their networks lose their way out until they are started again.
fn of_a_monitor(run: &Path) -> Option<OwnedFd> {
    let text = home::read(&run.join(KEEPER)).ok()??;
    let text = String::from_utf8(text).ok()?;
    let last = text.split_whitespace().nth(2)?;
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid = entry.file_name().into_string().ok()?;
        let of_monitor = fs::read_to_string(entry.path().join("comm")).is_ok_and(|name| name == "rrunmon\n");
        (of_monitor && user_namespace(&pid)? == last).then_some(())?;
        rustix::fs::open(entry.path().join("ns/user"), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()
    })
}

/// Makes the namespaces and who keeps them.
fn make(run: &Path) -> Result<(Keeper, Vec<String>)> {
    let maps =
        [("newuidmap", "/etc/subuid", getuid().as_raw()), ("newgidmap", "/etc/subgid", getgid().as_raw())];
    let name = user_name(getuid().as_raw());
    let maps = maps.into_iter().map(|(program, file, id)| {
        let text = fs::read_to_string(file).context(|| format!("read {file}"))?;
        let map = map(&text, &[&name, &getuid().as_raw().to_string()], id);
        map.map(|map| (program, map)).ok_or_else(|| {
            Error::invalid(format!("{file} has no range of ids for the user {name}")).remedy(format!(
                "`usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {name}` gives one"
            ))
        })
    });
    let maps = maps.collect::<Result<Vec<_>>>()?;

    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .context(|| "socketpair")?;
    let left = of_a_monitor(run);
    let Some(pid) = sys::fork().context(|| "fork")? else {
        drop(ours);
        keep(&theirs, left.as_ref());
    };
    drop(theirs);
    let made = (|| {
        hear(&ours)?;
        for (program, map) in maps.iter().filter(|_| left.is_none()) {
            let said = run_program(program, &[&[pid.to_string()], &map[..]].concat())?;
            if let Some(said) = said {
                return Err(Error::system(format!("{program}: {said}")));
            }
        }
        let warning = way_out(run, pid)?;
        write(&ours, b"go").context(|| "write to the keeper of namespaces")?;
        hear(&ours)?;
        let started =
            started(pid).ok_or_else(|| Error::system("the keeper of the namespaces has just ended"))?;
        let user = user_namespace(&pid.to_string());
        let text = format!("{} {started} {}\n", pid.as_raw_nonzero(), user.unwrap_or_default());
        home::replace(&run.join(KEEPER), 0o600, text.as_bytes())?;
        write(&ours, b"go").context(|| "write to the keeper of namespaces")?;
        Ok((Keeper { pid, started }, warning.into_iter().collect()))
    })();
    if made.is_err() {
        let _ = kill_process(pid, Signal::KILL);
        let _ = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
    }
    made
}

/// What the child says: nothing, or why it cannot go on.
fn hear(socket: &OwnedFd) -> Result<()> {
    let mut text = [0; 512];
    match read(socket, &mut text).context(|| "read from the keeper of namespaces")? {
        0 => Err(Error::system("the keeper of the namespaces has died")),
        2 if &text[..2] == b"ok" => Ok(()),
        length => Err(Error::system(String::from_utf8_lossy(&text[..length]))),
    }
}

/// What the child does, until it is killed.
#[expect(
    clippy::exit,
    clippy::disallowed_methods,
    reason = "a child that was forked has no main to return to"
)]
fn keep(socket: &OwnedFd, user: Option<&OwnedFd>) -> ! {
    let done = keep_until_killed(socket, user);
    if let Err(e) = done {
        let _ = write(socket, e.to_string().as_bytes());
    }
    std::process::exit(1)
}

/// Waits for the word to go on.
fn wait(socket: &OwnedFd) -> Result<()> {
    match read(socket, &mut [0; 2]).context(|| "read")? {
        0 => Err(Error::system("whoever asked for it has died")),
        _ => Ok(()),
    }
}

fn keep_until_killed(socket: &OwnedFd, user: Option<&OwnedFd>) -> Result<()> {
    // A terminal's signals are not for it.
    setsid().context(|| "setsid")?;
    let mut namespaces = UnshareFlags::NEWNS | UnshareFlags::NEWNET;
    match user {
        Some(user) => move_into_link_name_space(user.as_fd(), Some(LinkNameSpaceType::User))
            .context(|| "setns to the user namespace of a monitor")?,
        None => namespaces |= UnshareFlags::NEWUSER,
    }
    sys::unshare(namespaces).map_err(|e| {
        let error = Error::from(e).context("unshare user, mount and network namespace");
        match e {
            Errno::PERM | Errno::NOSPC | Errno::ACCESS => error.remedy(
                "let ordinary users make user namespaces: sysctl user.max_user_namespaces, \
                 kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns",
            ),
            _ => error,
        }
    })?;
    write(socket, b"ok").context(|| "write")?;
    wait(socket)?;
    // What is mounted on the host appears; what is mounted here is seen by the monitors, and goes when it is unmounted here.
    for propagation in [MountPropagationFlags::DOWNSTREAM, MountPropagationFlags::SHARED] {
        mount_change("/", propagation | MountPropagationFlags::REC).context(|| "set the propagation of /")?;
    }
    network::set_loopback_up()?;
    std::env::set_current_dir("/").context(|| "chdir /")?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .context(|| "open /dev/null")?;
    for standard in [rustix::stdio::dup2_stdin, rustix::stdio::dup2_stdout, rustix::stdio::dup2_stderr] {
        standard(&null).context(|| "dup2")?;
    }
    let _ = rustix::thread::set_name(c"rrunctl-keeper");
    write(socket, b"ok").context(|| "write")?;
    // One that no file names would stay for ever.
    wait(socket)?;
    // The lock too, which is the parent's.
    sys::close_foreign().context(|| "close_range")?;
    loop {
        std::thread::park();
    }
}

/// The lines for newuidmap(1): root is the user, what follows are the ranges that a file like /etc/subuid has for them.
fn map(text: &str, names: &[&str], id: u32) -> Option<Vec<String>> {
    let mut map = vec!["0".to_owned(), id.to_string(), "1".to_owned()];
    let mut next = 1_u64;
    for line in text.lines() {
        let mut fields = line.trim().split(':');
        let (Some(name), Some(start), Some(count)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let (Ok(start), Ok(count)) = (start.parse::<u32>(), count.parse::<u32>()) else { continue };
        if names.contains(&name) && count > 0 {
            map.extend([next.to_string(), start.to_string(), count.to_string()]);
            next += u64::from(count);
        }
    }
    (next > 1).then_some(map)
}

/// The name by which files of the system know a user; the number, where it has none.
fn user_name(uid: u32) -> String {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let of_file = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid.to_string()).then(|| name.to_owned())
    });
    // A directory service's users are not in the file.
    of_file.or_else(|| std::env::var("USER").ok()).unwrap_or_else(|| uid.to_string())
}

/// Runs a program to its end; what it said if it failed.
fn run_program(program: &str, args: &[String]) -> Result<Option<String>> {
    let done = Command::new(program).args(args).stdin(Stdio::null()).output().map_err(|e| {
        let missing = e.kind() == std::io::ErrorKind::NotFound;
        let error = Error::from(e).context(format!("execute {program}"));
        if missing { error.remedy("install the package uidmap") } else { error }
    })?;
    let said = String::from_utf8_lossy(&done.stderr);
    Ok((!done.status.success()).then(|| said.trim().replace('\n', "; ")))
}

/// A new one where the last one has ended; not with every command, as there may be none to be had.
fn another_way_out(run: &Path, pid: Pid) -> Result<Option<String>> {
    let tried = fs::metadata(run.join(TRIED)).and_then(|file| file.modified());
    if last_way_out(run).is_some() || tried.is_ok_and(|at| at.elapsed().is_ok_and(|ago| ago < NOT_AGAIN)) {
        return Ok(None);
    }
    way_out(run, pid)
}

/// Starts what carries the containers' packets out of the network namespace of `pid`; what to tell the user where there is
/// none. Neither program lets anybody reach what listens on the host's loopback.
fn way_out(run: &Path, pid: Pid) -> Result<Option<String>> {
    // Of namespaces whose keeper was killed: it stays in them, and would keep them.
    if let Some(last) = last_way_out(run) {
        let _ = kill_process(last, Signal::KILL);
    }
    let _ = fs::remove_file(run.join(WAY_OUT));
    home::replace_until_boot(&run.join(TRIED), 0o600, b"")?;
    let mut failed = String::new();
    let id = pid.to_string();
    let pasta =
        ["--quiet", "--config-net", "--no-map-gw", "-t", "none", "-u", "none", "-T", "none", "-U", "none"];
    let file = run.join(WAY_OUT);
    let mut command = Command::new("pasta");
    command.args(pasta).arg("--pid").arg(&file).arg(&id).stdin(Stdio::null());
    // It goes to the background when the namespace has its address.
    match command.output() {
        Ok(done) if done.status.success() => return Ok(None),
        Ok(done) => {
            let said = String::from_utf8_lossy(&done.stderr);
            let _ = write!(failed, "pasta: {}; ", said.trim().lines().last().unwrap_or("failed"));
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => {
            let _ = write!(failed, "pasta: {}; ", Error::from(e));
        }
    }
    let (ready, writes) = pipe_with(PipeFlags::CLOEXEC).context(|| "pipe")?;
    let mut command = Command::new("slirp4netns");
    command.args(["--configure", "--mtu=65520", "--disable-host-loopback", "--ready-fd=1"]);
    command.args([format!("--userns-path=/proc/{id}/ns/user"), id, "tap0".to_owned()]);
    command.stdin(Stdio::null()).stdout(writes).stderr(Stdio::null()).process_group(0);
    match command.spawn() {
        Ok(child) => {
            drop(command);
            let mut one = [0];
            if matches!(read(&ready, &mut one), Ok(1)) {
                home::replace(&file, 0o600, format!("{}\n", child.id()).as_bytes())?;
                return Ok(None);
            }
            failed.push_str("slirp4netns: failed; ");
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => {
            let _ = write!(failed, "slirp4netns: {}; ", Error::from(e));
        }
    }
    Ok(Some(format!(
        "containers reach nobody outside: {failed}install the package passt, or slirp4netns, and end the process {pid}",
        pid = pid.as_raw_nonzero()
    )))
}

/// The process that is the way out, if it has not ended.
fn last_way_out(run: &Path) -> Option<Pid> {
    let text = fs::read_to_string(run.join(WAY_OUT)).ok()?;
    let pid = Pid::from_raw(text.trim().parse().ok()?).filter(|pid| started(*pid).is_some())?;
    let name = fs::read_to_string(format!("/proc/{}/comm", pid.as_raw_nonzero())).ok()?;
    // pasta is passt, with a suffix for the processor.
    ["pasta", "passt", "slirp4netns"].iter().any(|known| name.starts_with(known)).then_some(pid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ranges_of_a_user_follow_one_another() {
        let text = "other:1:2\nann:100000:65536\n# x\nann:bad:1\n1000:300000:10\nann:400000:0\n";
        let map = map(text, &["ann", "1000"], 1000).expect("ranges");
        assert_eq!(map.join(" "), "0 1000 1 1 100000 65536 65537 300000 10");
        assert_eq!(super::map(text, &["bob"], 1), None);
    }

    #[test]
    fn a_process_is_known_by_its_start() {
        let own = rustix::process::getpid();
        let keeper = Keeper { pid: own, started: started(own).expect("a start") };
        assert!(keeper.lives() && !Keeper { started: keeper.started + 1, ..keeper }.lives());
    }
}
