//! `exec`: a further process in a container that runs.
//!
//! rrun starts it and leaves. It is reaped by whoever asked, who is made the reaper of its orphans (prctl(2)), so that
//! nothing stands between the two, and the process' own streams are those that were given. The terminal's master comes
//! by a socket. One that nobody waits for is the machine's init's.

#![forbid(unsafe_code)]

use super::Engine;
use crate::container::record::Container;
use crate::container::types::{Config, List};
use crate::container::user::Accounts;
use crate::container::{capability, merge};
use crate::error::{Context as _, Error, Result};
use crate::home;
use crate::monitor::{self, Found, Phase};
use rustix::fs::{Mode, OFlags, open};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, getpid, pidfd_open, pidfd_send_signal,
    set_child_subreaper, waitid,
};
use serde_json::{Value, json};
use std::fs::{self, DirBuilder};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// What is to run.
#[derive(Debug, Clone, Default)]
pub struct ExecRequest {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// `NAME=VALUE`, besides the container's; `NAME` alone takes one away.
    pub env: Vec<String>,
    /// `user`, `uid`, `user:group`, `uid:gid`; empty is the container's.
    pub user: String,
    /// Where it starts; empty is the container's.
    pub working_dir: String,
    /// With a terminal.
    pub tty: bool,
    /// The terminal's rows and columns.
    pub size: Option<(u16, u16)>,
    /// With every capability.
    pub privileged: bool,
    /// Nobody waits for it.
    pub detach: bool,
}

/// A process that was started.
#[derive(Debug)]
pub struct Executed {
    /// On the host.
    pub pid: i32,
    /// The master of its terminal. It gets SIGHUP when this is closed.
    pub terminal: Option<OwnedFd>,
    pidfd: Option<OwnedFd>,
}

impl Executed {
    /// Readable when it has ended; none of one that nobody waits for.
    pub fn ended(&self) -> Option<BorrowedFd<'_>> {
        self.pidfd.as_ref().map(AsFd::as_fd)
    }

    /// Sends it a signal; one that has ended needs none.
    pub fn signal(&self, signal: Signal) {
        if let Some(pidfd) = &self.pidfd {
            let _ = pidfd_send_signal(pidfd, signal);
        }
    }

    /// Waits for its end: the exit code, or 128 and the signal.
    ///
    /// # Errors
    /// Those of waitid(2); nobody can wait for one that was detached.
    pub fn wait(self) -> Result<u8> {
        let pidfd = self.pidfd.ok_or_else(|| Error::invalid("a detached process is not waited for"))?;
        let status = loop {
            match waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED) {
                Err(rustix::io::Errno::INTR) => {}
                status => break status.context(|| "waitid")?,
            }
        };
        let code = status.and_then(|status| {
            status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal))
        });
        Ok(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX))
    }
}

impl Engine {
    /// Starts a process in a container. With a terminal it has no other streams than that.
    ///
    /// Unless it is detached, the calling process becomes the reaper of all its orphans.
    ///
    /// # Errors
    /// The container does not run, or is paused ([`crate::error::Kind::Conflict`]); no such user; rrun's words, behind
    /// `OCI runtime exec failed`.
    pub fn exec(&self, id: &str, request: &ExecRequest, streams: [Stdio; 3]) -> Result<Executed> {
        let container = self.containers.load(id)?;
        let process = self.process(&container, request)?;
        let scratch = Scratch::new(self.run_dir(id).join(format!("exec.{}", home::unique()?)))?;
        let file = |name: &str| scratch.0.join(name);
        let text = serde_json::to_vec(&process).map_err(|e| Error::system(e.to_string()))?;
        let path = file("process.json");
        fs::write(&path, text).context(|| format!("write {}", path.display()))?;
        let console = request.tty.then(|| listen_at(&scratch)).transpose()?;
        if !request.detach {
            set_child_subreaper(Some(getpid())).context(|| "prctl PR_SET_CHILD_SUBREAPER")?;
        }

        let runtime = self.runtime();
        let mut command = Command::new(&runtime[0]);
        command.args(&runtime[1..]).arg("--log").arg(file("log")).args(["--log-format", "json"]);
        command.args(["exec", "--detach", "--process"]).arg(&path).arg("--pid-file").arg(file("pid"));
        if let Some(Console { path, .. }) = &console {
            command.arg("--console-socket").arg(path);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        } else {
            let [stdin, stdout, stderr] = streams;
            command.stdin(stdin).stdout(stdout).stderr(stderr);
        }
        let spawned = command.arg(id).spawn();
        // With it goes this process' end of each pipe: whoever reads the other one waits for its end.
        drop(command);
        let status =
            spawned.and_then(|mut child| child.wait()).context(|| format!("execute {}", runtime[0]))?;
        if !status.success() {
            let log = fs::read_to_string(file("log")).unwrap_or_default();
            let words = monitor::last_error(&log).unwrap_or_else(|| format!("{} exec: {status}", runtime[0]));
            return Err(refused(id, &words));
        }
        let pid = fs::read_to_string(file("pid")).context(|| "read the pid that rrun has written")?;
        let pid = pid.trim().parse().ok().and_then(Pid::from_raw).ok_or_else(|| Error::system("no pid"))?;
        let pidfd = match request.detach {
            true => None,
            // Nobody else reaps it, so that the pid is still its own.
            false => Some(pidfd_open(pid, PidfdFlags::empty()).context(|| "pidfd_open")?),
        };
        let terminal = console.map(|console| monitor::master(&console.listener)).transpose()?;
        Ok(Executed { pid: pid.as_raw_nonzero().get(), terminal, pidfd })
    }

    /// process.json: the container's own process, with what is asked for.
    fn process(&self, container: &Container, request: &ExecRequest) -> Result<Value> {
        let (id, config) = (container.record.id.as_str(), &container.record.config);
        let user = {
            let root = self.root_of(id)?;
            let name = if request.user.is_empty() { &config.user } else { &request.user };
            Accounts::read(root)?.resolve(name, &container.host.group_add)?
        };
        let path = self.run_dir(id).join("config.json");
        let text = home::read(&path)?.ok_or_else(|| not_running(id))?;
        let spec: Value = serde_json::from_slice(&text)
            .map_err(|e| Error::system(e.to_string()).context(path.display()))?;
        let mut process = spec["process"].clone();
        let bounding = match request.privileged {
            true => json!(capability::of(&[], &[], true, self.host().capabilities)?),
            false => process["capabilities"]["bounding"].clone(),
        };
        process["capabilities"] = json!({ "bounding": bounding });
        if user.uid == 0 || request.privileged {
            process["capabilities"]["effective"] = bounding.clone();
            process["capabilities"]["permitted"] = bounding;
        }
        process["user"] = json!({"uid": user.uid, "gid": user.gid, "additionalGids": user.groups});
        process["args"] = json!(request.command);
        let working_dir = [&request.working_dir, &config.working_dir].into_iter().find(|dir| !dir.is_empty());
        process["cwd"] = json!(working_dir.map_or("/", String::as_str));
        process["env"] = json!(environment(config, &process["env"], request));
        process["terminal"] = request.tty.into();
        if let Some(process) = process.as_object_mut() {
            process.remove("consoleSize");
        }
        if let Some((height, width)) = request.size.filter(|_| request.tty) {
            process["consoleSize"] = json!({"height": height, "width": width});
        }
        Ok(process)
    }

    /// The root directory of a container that runs, as its first process has it.
    fn root_of(&self, id: &str) -> Result<OwnedFd> {
        let pid = || match self.found(id)? {
            Found::Monitored(client) => {
                let status = client.status().map_err(|_| not_running(id))?;
                match status.phase {
                    Phase::Running => Ok(status.pid),
                    Phase::Restarting => Err(Error::conflict(format!(
                        "Container {id} is restarting, wait until the container is running"
                    ))),
                    Phase::Created | Phase::Ending => Err(not_running(id)),
                }
            }
            Found::Orphaned { status, pid } if status != "stopped" => Ok(pid),
            Found::Orphaned { .. } | Found::Gone => Err(not_running(id)),
        };
        let before = pid()?;
        let path = format!("/proc/{before}/root");
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = open(&path, flags, Mode::empty()).context(|| format!("open {path}"));
        // As long as it is the container's, nobody else has had its number.
        if pid()? != before {
            return Err(not_running(id));
        }
        root
    }
}

/// The variables: the container's without what its terminal gave it, and those that are asked for.
fn environment(config: &Config, of_init: &Value, request: &ExecRequest) -> Vec<String> {
    let own = merge::environment(config, &[]);
    let of_init: Vec<String> = serde_json::from_value(of_init.clone()).unwrap_or_default();
    // What it has and its configuration does not say comes of `--link`.
    let links: Vec<String> = of_init.into_iter().filter(|variable| !own.contains(variable)).collect();
    let mut env: List<String> = config.env.clone();
    env.extend(request.env.iter().cloned());
    merge::environment(
        &Config { tty: request.tty, env, hostname: config.hostname.clone(), ..Config::default() },
        &links,
    )
}

fn not_running(id: &str) -> Error {
    Error::conflict(format!("container {id} is not running"))
}

/// rrun's words, as docker says them.
fn refused(id: &str, words: &str) -> Error {
    if words.contains("paused container") {
        return Error::conflict(format!("Container {id} is paused, unpause the container before exec"));
    }
    if words.contains("stopped container") || words.contains("does not exist") {
        return not_running(id);
    }
    Error::system(format!("OCI runtime exec failed: {words}: unknown"))
}

/// A directory for one rrun.
struct Scratch(PathBuf);

impl Scratch {
    fn new(path: PathBuf) -> Result<Self> {
        DirBuilder::new().mode(0o700).create(&path).context(|| format!("mkdir {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = home::remove_tree(&self.0);
    }
}

/// A socket that gets a terminal.
struct Console {
    listener: OwnedFd,
    /// For rrun: by way of this process one of any length is short.
    path: String,
    _dir: OwnedFd,
}

fn listen_at(scratch: &Scratch) -> Result<Console> {
    let path = &scratch.0;
    let dir = open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .context(|| format!("open {}", path.display()))?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let listening = || {
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        bind(&socket, &SocketAddrUnix::new(format!("/proc/self/fd/{}/console", dir.as_raw_fd()))?)?;
        listen(&socket, 1)?;
        Ok::<_, rustix::io::Errno>(socket)
    };
    let listener = listening().context(|| format!("listen at {}/console", path.display()))?;
    let path = format!("/proc/{}/fd/{}/console", getpid().as_raw_nonzero(), dir.as_raw_fd());
    Ok(Console { listener, path, _dir: dir })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_the_containers_variables_and_its_own_terminals() {
        let config = Config {
            hostname: "box".into(),
            tty: true,
            env: vec!["A=1".to_owned(), "B=2".to_owned()].into(),
            ..Config::default()
        };
        let links = ["DB_PORT=tcp://10.0.0.2:1".to_owned()];
        let of_init = json!(merge::environment(&config, &links));
        let env = |tty, asked: &[&str]| {
            let env = asked.iter().map(|&variable| variable.to_owned()).collect();
            environment(&config, &of_init, &ExecRequest { tty, env, ..ExecRequest::default() })
        };
        let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        let link = &links[0][..];
        assert_eq!(env(false, &[]), [path, "HOSTNAME=box", link, "A=1", "B=2"]);
        assert_eq!(env(true, &[]), [path, "HOSTNAME=box", "TERM=xterm", link, "A=1", "B=2"]);
        assert_eq!(env(false, &["A=x", "B", "C=3"]), [path, "HOSTNAME=box", link, "A=x", "C=3"]);
    }
}
