//! rrun, as a child that is not waited for in place: the loop goes on while a hook takes its time.

#![forbid(unsafe_code)]

use super::Settings;
use crate::error::{Context as _, Error, Result};
use crate::sys;
use rustix::process::{Pid, Resource, Rlimit, WaitStatus, getrlimit, setrlimit};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What the container's processes and everything else that rrunmon starts is as ready to give its memory as.
const OOM_SCORE_ADJ: &str = "/proc/self/oom_score_adj";

/// How rrun is called for one container.
#[derive(Debug)]
pub(super) struct Runtime {
    argv: Vec<String>,
    id: String,
    bundle: PathBuf,
    /// Where rrun logs, so that what it says is not taken for the container's output.
    log: PathBuf,
    /// Where it writes the pid.
    pid: PathBuf,
    /// This process's score before it made itself the last one to be killed.
    oom_score_adj: Option<String>,
    /// Its limit of descriptors before it was raised.
    files: Option<Rlimit>,
}

impl Runtime {
    /// The runtime of `settings`. From now on this process is nearly the last to be killed for want of memory, as
    /// nobody else knows how the container ends; what it starts is not.
    pub fn new(settings: &Settings) -> Self {
        let before = fs::read_to_string(OOM_SCORE_ADJ).ok().map(|score| score.trim().to_owned());
        let files = getrlimit(Resource::Nofile);
        let mut runtime = Self {
            argv: settings.runtime.clone(),
            id: settings.id.clone(),
            bundle: settings.bundle.clone(),
            log: settings.run.join("rrun.log"),
            pid: settings.run.join("init.pid"),
            oom_score_adj: before,
            files: None,
        };
        let _ = fs::write(OOM_SCORE_ADJ, "-999");
        let raised = Rlimit { current: files.maximum, ..files };
        // Each connection that it passes on takes two.
        if !settings.ports.is_empty() && raised != files && setrlimit(Resource::Nofile, raised).is_ok() {
            runtime.files = Some(files);
        }
        runtime
    }

    /// `rrun create`, with the container's standard streams or the socket that gets its terminal.
    ///
    /// # Errors
    /// Those of fork(2) and execve(2).
    pub fn create(&self, streams: [Stdio; 3], console: Option<&Path>) -> Result<Pid> {
        let mut command = self.command("create")?;
        command.arg("--bundle").arg(&self.bundle).arg("--pid-file").arg(&self.pid);
        if let Some(socket) = console {
            command.arg("--console-socket").arg(socket);
        }
        let [stdin, stdout, stderr] = streams;
        command.arg(&self.id).stdin(stdin).stdout(stdout).stderr(stderr);
        // Nobody would know of what it makes after that, or start it.
        sys::end_with_parent(&mut command);
        self.spawn(command)
    }

    /// `rrun start`.
    ///
    /// # Errors
    /// Those of fork(2) and execve(2).
    pub fn start(&self) -> Result<Pid> {
        let mut command = self.command("start")?;
        command.arg(&self.id).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.spawn(command)
    }

    /// `rrun delete --force`, which also kills whatever of the container is left.
    ///
    /// # Errors
    /// Those of fork(2) and execve(2).
    pub fn delete(&self) -> Result<Pid> {
        let mut command = self.command("delete")?;
        command.args(["--force", &self.id]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // Otherwise it would delete the run that somebody starts when this monitor is gone.
        sys::end_with_parent(&mut command);
        self.spawn(command)
    }

    /// Any other program.
    ///
    /// # Errors
    /// Those of fork(2) and execve(2).
    pub fn run(&self, argv: &[String]) -> Result<Pid> {
        let [program, args @ ..] = argv else { return Err(Error::invalid("no program")) };
        let mut command = Command::new(program);
        command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        sys::end_with_parent(&mut command);
        self.spawn(command)
    }

    fn command(&self, name: &str) -> Result<Command> {
        let [program, options @ ..] = &self.argv[..] else { return Err(Error::invalid("no runtime")) };
        let _ = fs::remove_file(&self.log);
        let mut command = Command::new(program);
        command.args(options).arg("--log").arg(&self.log).args(["--log-format", "json", name]);
        Ok(command)
    }

    fn spawn(&self, mut command: Command) -> Result<Pid> {
        if let Some(score) = &self.oom_score_adj {
            let _ = fs::write(OOM_SCORE_ADJ, score);
        }
        if let Some(files) = self.files {
            sys::limit_files(&mut command, files);
        }
        let spawned = command.spawn();
        let _ = fs::write(OOM_SCORE_ADJ, "-999");
        let child = spawned.context(|| format!("execute {}", command.get_program().display()))?;
        // Not waited for by its handle: the loop reaps every child there is.
        Pid::from_raw(child.id().cast_signed()).ok_or_else(|| Error::system("a child without a pid"))
    }

    /// The pid that `create` has written.
    ///
    /// # Errors
    /// Those of open(2) and read(2), and a file that is not what runtimes write.
    pub fn pid(&self) -> Result<Pid> {
        let text = fs::read_to_string(&self.pid).context(|| format!("read {}", self.pid.display()))?;
        let pid = text.trim().parse().ok().and_then(Pid::from_raw);
        pid.ok_or_else(|| Error::system(format!("{}: no pid in it", self.pid.display())))
    }

    /// What rrun said about its failure, verbatim.
    pub fn failure(&self, command: &str, status: WaitStatus) -> Error {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        Error::system(last_error(&log).unwrap_or_else(|| {
            match (status.exit_status(), status.terminating_signal()) {
                (_, Some(signal)) => format!("{} {command}: killed by signal {signal}", self.argv[0]),
                (code, _) => format!("{} {command}: exit status {}", self.argv[0], code.unwrap_or_default()),
            }
        }))
    }

    /// Removes its files.
    pub fn remove(&self) {
        let _ = fs::remove_file(&self.log);
        let _ = fs::remove_file(&self.pid);
    }
}

/// The last error of a log in JSON.
pub(crate) fn last_error(log: &str) -> Option<String> {
    log.lines().rev().find_map(|line| {
        let entry: serde_json::Value = serde_json::from_str(line).ok()?;
        matches!(entry["level"].as_str(), Some("error" | "fatal"))
            .then(|| entry["msg"].as_str().map(str::to_owned))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_error_of_the_log_is_the_text() {
        let log = "{\"level\":\"error\",\"msg\":\"one\"}\n{\"level\":\"fatal\",\"msg\":\"exec: \\\"x\\\"\"}\n\
                   {\"level\":\"warning\",\"msg\":\"w\"}\nbroken\n";
        assert_eq!(last_error(log).as_deref(), Some("exec: \"x\""));
        assert_eq!(last_error(""), None);
    }
}
