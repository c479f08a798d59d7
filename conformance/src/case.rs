//! One check's surroundings: a directory of its own, bundles in it, and the runtime under test
//! driven through its command line.
//!
//! The specification has no operation that waits for a container, so its end is seen twice: the
//! pipe that is its standard output ends, and `state` then says `stopped`.

#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, PipeReader, pipe};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio, id as own_pid};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount};
use serde_json::{Value, json};

use crate::machine::{self, Machine, Mount};

/// How long one command, or the output of one container, may take.
const LIMIT: Duration = Duration::from_secs(20);
/// Between two queries of the state of a container that is about to end.
const PAUSE: Duration = Duration::from_millis(5);

static CASES: AtomicU32 = AtomicU32::new(0);

/// Why a check did not pass.
#[derive(Debug, Clone)]
pub enum Why {
    /// The runtime does not do what the clause asks for.
    Fails(String),
    /// The machine lacks what the check needs.
    Lacks(String),
}

pub type Verdict = Result<(), Why>;

/// The check fails with this text.
pub fn fails<T>(text: impl Into<String>) -> Result<T, Why> {
    Err(Why::Fails(text.into()))
}

/// The check cannot be made: it needs this.
pub fn lacks<T>(what: impl std::fmt::Display) -> Result<T, Why> {
    Err(Why::Lacks(format!("needs {what}")))
}

pub fn expect(holds: bool, otherwise: impl Into<String>) -> Verdict {
    if holds { Ok(()) } else { fails(otherwise) }
}

pub fn expect_eq(what: &str, got: &str, want: &str) -> Verdict {
    expect(got == want, format!("{what}: got {got:?}, want {want:?}"))
}

/// What a runtime refuses that it only should support is not judged further.
pub fn if_supported<T>(what: &str, result: Result<T, Why>) -> Result<T, Why> {
    match result {
        Err(Why::Fails(why)) if why.starts_with("create: ") => {
            lacks(format!("a runtime that supports {what}: {why}"))
        }
        other => other,
    }
}

/// The connection that a runtime makes to this socket, if it makes one in time.
pub fn connection(socket: &UnixListener) -> Option<UnixStream> {
    let mut ready = [PollFd::new(socket, PollFlags::IN)];
    let limit = Timespec { tv_sec: LIMIT.as_secs() as i64, tv_nsec: 0 };
    if poll(&mut ready, Some(&limit)).ok()? == 0 {
        return None;
    }
    let (stream, _) = socket.accept().ok()?;
    stream.set_read_timeout(Some(LIMIT)).ok()?;
    Some(stream)
}

/// An input or output failure of this program's own files.
pub fn own(path: &Path) -> impl Fn(std::io::Error) -> Why + '_ {
    move |e| Why::Fails(format!("conformance itself: {}: {e}", path.display()))
}

/// The answer of one command.
#[derive(Debug)]
pub struct Answer {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Answer {
    pub fn ok(&self) -> bool {
        self.status.success()
    }

    /// The command had to succeed.
    pub fn done(self, what: &str) -> Result<Answer, Why> {
        expect(self.ok(), format!("{what}: {}: {}", self.status, self.stderr))?;
        Ok(self)
    }
}

/// What a container's process, or a hook, told of itself.
#[derive(Debug, Clone)]
pub struct Facts(pub Value);

impl Facts {
    fn parse(line: &str) -> Result<Facts, Why> {
        serde_json::from_str(line).map(Facts).map_err(|e| Why::Fails(format!("no facts, {e}: {line:?}")))
    }

    /// A string among the facts, by its JSON pointer.
    pub fn text(&self, pointer: &str) -> &str {
        self.0.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    /// What came of an operation.
    pub fn done(&self, operation: &str) -> &str {
        self.0["done"][operation].as_str().unwrap_or("not tried")
    }

    /// A file of `/proc/self`.
    pub fn proc(&self, file: &str) -> &str {
        self.0["proc"][file].as_str().unwrap_or_default()
    }

    /// A line of `/proc/self/status`.
    pub fn status(&self, name: &str) -> &str {
        let line = self.proc("status").lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_default().trim()
    }

    /// A field of `/proc/self/stat`, counted as proc(5) does.
    pub fn stat(&self, field: usize) -> &str {
        let after = self.proc("stat").rsplit_once(')').unwrap_or_default().1;
        after.split_whitespace().nth(field - 3).unwrap_or_default()
    }

    pub fn namespace(&self, kind: &str) -> &str {
        self.0["namespaces"][kind].as_str().unwrap_or_default()
    }

    /// The topmost mount at `point`.
    pub fn mount(&self, point: &str) -> Result<Mount, Why> {
        let found = machine::mounts(self.proc("mountinfo")).into_iter().rfind(|mount| mount.point == point);
        found.ok_or_else(|| Why::Fails(format!("nothing is mounted on {point}")))
    }
}

/// What a run of a container that several checks judge has told.
pub type Shared = Result<Arc<Facts>, Why>;

/// What is checked, and with what.
pub struct Subject {
    pub runtime: PathBuf,
    /// Flags that go before each command.
    pub global: Vec<String>,
    /// Where the directories of the checks are made, and where the probe is.
    pub dir: PathBuf,
    pub probe: PathBuf,
    pub machine: Machine,
    pub shared: Mutex<HashMap<&'static str, Arc<OnceLock<Shared>>>>,
}

pub struct Case<'a> {
    pub subject: &'a Subject,
    /// Everything that the check makes is in here.
    pub dir: PathBuf,
    made: Cell<u32>,
    /// Unmounted at the end, last first.
    mounted: RefCell<Vec<PathBuf>>,
}

pub struct Bundle {
    pub path: PathBuf,
    pub config: Value,
}

impl<'a> Case<'a> {
    pub fn new(subject: &'a Subject) -> Result<Case<'a>, Why> {
        let number = CASES.fetch_add(1, Ordering::Relaxed);
        let dir = subject.dir.join(format!("case-{}-{number}", own_pid()));
        fs::create_dir(&dir).map_err(own(&dir))?;
        // A user of a container has to be able to pass.
        fs::set_permissions(&dir, PermissionsExt::from_mode(0o755)).map_err(own(&dir))?;
        Ok(Case { subject, dir, made: Cell::new(0), mounted: RefCell::default() })
    }

    pub fn machine(&self) -> &'a Machine {
        &self.subject.machine
    }

    pub fn number(&self) -> u32 {
        self.made.set(self.made.get() + 1);
        self.made.get()
    }

    /// The probe outside of every container, for hooks.
    pub fn probe(&self) -> String {
        self.subject.probe.display().to_string()
    }

    /// A new directory in the case's.
    pub fn directory(&self, name: &str) -> Result<PathBuf, Why> {
        let dir = self.dir.join(name);
        fs::create_dir(&dir).map_err(own(&dir))?;
        Ok(dir)
    }

    pub fn file(&self, path: &Path, text: &str) -> Verdict {
        fs::write(path, text).map_err(own(path))
    }

    /// Mounts a tmpfs that is in a peer group of its own.
    pub fn tmpfs(&self, at: &Path, flags: MountFlags) -> Verdict {
        self.machine().needs_root()?;
        mount("tmpfs", at, "tmpfs", flags, None).map_err(|e| own(at)(e.into()))?;
        self.mounted.borrow_mut().push(at.to_owned());
        mount_change(at, MountPropagationFlags::SHARED).map_err(|e| own(at)(e.into()))
    }

    /// The result of a container's run that several checks judge; only the first of them makes it.
    pub fn shared(&self, name: &'static str, make: impl FnOnce(&Case) -> Result<Facts, Why>) -> Shared {
        let cell = {
            let Ok(mut all) = self.subject.shared.lock() else { return fails("conformance itself: a panic") };
            all.entry(name).or_default().clone()
        };
        cell.get_or_init(|| make(self).map(Arc::new)).clone()
    }

    /// The plainest configuration that runs `args`.
    pub fn config(&self, args: &[&str]) -> Value {
        let mut config = json!({
            "ociVersion": "1.0.2",
            "process": {
                "terminal": false, "user": {"uid": 0, "gid": 0}, "cwd": "/", "args": args, "env": ["PATH=/"],
            },
            "root": {"path": "rootfs"},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
            ],
            "linux": {"namespaces": [{"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}]},
        });
        if !self.machine().is_root() {
            let (uid, gid) = (self.machine().uid, self.machine().gid);
            push(&mut config["linux"]["namespaces"], json!({"type": "user"}));
            config["linux"]["uidMappings"] = json!([{"containerID": 0, "hostID": uid, "size": 1}]);
            config["linux"]["gidMappings"] = json!([{"containerID": 0, "hostID": gid, "size": 1}]);
        }
        config
    }

    /// A bundle whose process runs `args`; `edit` changes the configuration further.
    pub fn bundle(&self, args: &[&str], edit: impl FnOnce(&mut Value)) -> Result<Bundle, Why> {
        let path = self.directory(&format!("bundle{}", self.number()))?;
        self.root(&path.join("rootfs"))?;
        let mut config = self.config(args);
        edit(&mut config);
        let bundle = Bundle { path, config };
        bundle.write()?;
        Ok(bundle)
    }

    /// A root file system, whose only program is the probe.
    pub fn root(&self, root: &Path) -> Verdict {
        for dir in [root, &root.join("proc"), &root.join("dev"), &root.join("sys")] {
            if !dir.exists() {
                fs::create_dir(dir).map_err(own(dir))?;
            }
        }
        let probe = root.join("probe");
        if fs::hard_link(&self.subject.probe, &probe).is_err() {
            fs::copy(&self.subject.probe, &probe).map_err(own(&probe))?;
        }
        Ok(())
    }

    /// Runs the runtime with the case's state directory.
    pub fn invoke(&self, args: &[&str]) -> Result<Answer, Why> {
        let mut command = Command::new(&self.subject.runtime);
        self.global(&mut command);
        command.args(args);
        self.answer(command, None)
    }

    pub fn global(&self, command: &mut Command) {
        command.current_dir(&self.dir).arg("--root").arg(self.dir.join("state")).args(&self.subject.global);
    }

    /// Runs a program that is not the runtime, and that has to succeed; without it the check cannot
    /// be made.
    pub fn tool(&self, program: &str, args: &[&str]) -> Result<String, Why> {
        match Command::new(program).args(args).stdin(Stdio::null()).output() {
            Ok(out) if out.status.success() => Ok(String::from_utf8_lossy(&out.stdout).trim().to_owned()),
            Ok(out) => {
                let why = String::from_utf8_lossy(&out.stderr).trim().to_owned();
                lacks(format!("`{program} {}` to work: {why}", args.join(" ")))
            }
            Err(e) => lacks(format!("{program}: {e}")),
        }
    }

    /// Runs a command to its end. Its output goes to files, because a pipe would stay open as long
    /// as a container that inherited it.
    fn answer(&self, mut command: Command, stdout: Option<Stdio>) -> Result<Answer, Why> {
        let number = self.number();
        let (out, err) = (self.dir.join(format!("{number}.out")), self.dir.join(format!("{number}.err")));
        let file = |path: &Path| File::create_new(path).map_err(own(path));
        command.stdin(Stdio::null()).stderr(file(&err)?);
        command.stdout(match stdout {
            Some(stdout) => stdout,
            None => Stdio::from(file(&out)?),
        });
        let what = format!("{command:?}");
        let mut child = command.spawn().map_err(own(&self.subject.runtime))?;
        drop(command);
        let pid = rustix::process::Pid::from_child(&child);
        let (tell, told) = channel();
        thread::spawn(move || tell.send(child.wait()));
        let status = match told.recv_timeout(LIMIT) {
            Ok(status) => status.map_err(own(&self.subject.runtime))?,
            Err(_) => {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                return fails(format!("no end within {} s: {what}", LIMIT.as_secs()));
            }
        };
        let read = |path: &Path| fs::read(path).map(|text| String::from_utf8_lossy(&text).into_owned());
        let (stdout, stderr) = (read(&out).unwrap_or_default(), read(&err).unwrap_or_default());
        Ok(Answer { status, stdout, stderr })
    }

    /// `create`, whatever comes of it.
    pub fn attempt(&self, bundle: &Bundle) -> Result<(Container<'_>, Answer), Why> {
        self.attempt_by(Command::new(&self.subject.runtime), bundle, &[])
    }

    /// `create` by a command that ends in the runtime, with further flags.
    pub fn attempt_by(
        &self,
        mut command: Command,
        bundle: &Bundle,
        flags: &[&str],
    ) -> Result<(Container<'_>, Answer), Why> {
        let case = self.dir.file_name().unwrap_or_default().to_string_lossy();
        let id = format!("conformance-{}-{}", case.trim_start_matches("case-"), self.number());
        let (reader, writer) = pipe().map_err(own(&self.dir))?;
        self.global(&mut command);
        command.arg("create").arg("--bundle").arg(&bundle.path).args(flags).arg(&id);
        let container = Container { case: self, id, output: Output::read(reader) };
        let answer = self.answer(command, Some(writer.into()))?;
        Ok((container, answer))
    }

    /// `create` that the check relies on.
    pub fn create(&self, bundle: &Bundle) -> Result<Container<'_>, Why> {
        let (container, answer) = self.attempt(bundle)?;
        answer.done("create")?;
        Ok(container)
    }

    /// As [`Case::create`], from a caller with this `oom_score_adj` and umask, which also has an open
    /// descriptor 9 and a variable of its own; `-` keeps what there is.
    pub fn create_as(&self, score: &str, umask: &str, bundle: &Bundle) -> Result<Container<'_>, Why> {
        let mut command = Command::new(&self.subject.probe);
        command.args(["probe", "as", score, umask]).arg(&self.subject.runtime);
        let (container, answer) = self.attempt_by(command, bundle, &[])?;
        answer.done("create")?;
        Ok(container)
    }

    /// `create`, or `start` at the latest, has to fail; if it is create, it has to leave no container.
    pub fn refused(&self, what: &str, bundle: &Bundle) -> Verdict {
        let (container, answer) = self.attempt(bundle)?;
        if answer.ok() {
            return expect(!container.invoke("start")?.ok(), format!("accepted {what}"));
        }
        expect(!container.invoke("state")?.ok(), format!("create refused {what}, but the container exists"))
    }

    /// As [`Case::refused`], for a change of the plain configuration.
    pub fn refuses(&self, what: &str, edit: impl FnOnce(&mut Value)) -> Verdict {
        self.refused(what, &self.bundle(&["/probe", "probe", "facts"], edit)?)
    }

    /// Runs a bundle and gives what its process tells.
    pub fn run(&self, bundle: &Bundle) -> Result<Facts, Why> {
        let container = self.create(bundle)?;
        container.started()?;
        container.facts()
    }

    /// As [`Case::run`], for a change of the plain configuration, and with these operations.
    pub fn facts(&self, operations: &[&str], edit: impl FnOnce(&mut Value)) -> Result<Facts, Why> {
        let args = [&["/probe", "probe", "facts"], operations].concat();
        self.run(&self.bundle(&args, edit)?)
    }

    /// Removes the directory, unless something is still mounted in it.
    pub fn finish(self) -> Verdict {
        for point in self.mounted.borrow().iter().rev() {
            let _ = unmount(point, UnmountFlags::DETACH);
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").map_err(own(&self.dir))?;
        let prefix = format!("{}/", self.dir.display());
        if let Some(left) = machine::mounts(&mounts).into_iter().rfind(|at| at.point.starts_with(&prefix)) {
            let _ = unmount(&left.point, UnmountFlags::DETACH);
            return fails(format!("still mounted after the check: {}", left.point));
        }
        fs::remove_dir_all(&self.dir).map_err(own(&self.dir))
    }
}

/// Adds an element to an array.
pub fn push(array: &mut Value, element: Value) {
    if let Some(array) = array.as_array_mut() {
        array.push(element);
    }
}

/// Adds a mount of `source`, with these options.
pub fn bind(config: &mut Value, destination: &str, source: &Path, options: &[&str]) {
    push(&mut config["mounts"], json!({"destination": destination, "source": source, "options": options}));
}

impl Bundle {
    /// Writes the configuration as it now is.
    pub fn write(&self) -> Verdict {
        let file = self.path.join("config.json");
        fs::write(&file, self.config.to_string()).map_err(own(&file))
    }

    pub fn rootfs(&self) -> PathBuf {
        self.path.join("rootfs")
    }
}

/// A container from `create` on; it is deleted by force when the check is done with it.
pub struct Container<'a> {
    case: &'a Case<'a>,
    pub id: String,
    pub output: Output,
}

impl Container<'_> {
    /// Runs a command whose only operand is the container.
    pub fn invoke(&self, command: &str) -> Result<Answer, Why> {
        self.case.invoke(&[command, &self.id])
    }

    pub fn kill(&self, signal: &str) -> Result<Answer, Why> {
        self.case.invoke(&["kill", &self.id, signal])
    }

    pub fn started(&self) -> Verdict {
        self.invoke("start")?.done("start").map(drop)
    }

    pub fn deleted(&self) -> Verdict {
        self.invoke("delete")?.done("delete").map(drop)
    }

    /// What its process tells of itself.
    pub fn facts(&self) -> Result<Facts, Why> {
        Facts::parse(&self.output.line()?)
    }

    /// Ends it, and waits until it is stopped.
    pub fn ended(&self) -> Verdict {
        self.kill("KILL")?.done("kill")?;
        self.stopped()
    }

    pub fn state(&self) -> Result<Value, Why> {
        let answer = self.invoke("state")?.done("state")?;
        serde_json::from_str(&answer.stdout)
            .map_err(|e| Why::Fails(format!("state printed no JSON: {e}: {}", answer.stdout)))
    }

    pub fn pid(&self) -> Result<String, Why> {
        Ok(self.state()?["pid"].to_string())
    }

    pub fn has_status(&self, want: &str) -> Verdict {
        let state = self.state()?;
        expect_eq("status", state["status"].as_str().unwrap_or_default(), want)
    }

    /// Waits for the process to be gone. Its output ends a moment before that.
    pub fn stopped(&self) -> Verdict {
        let end = Instant::now() + LIMIT;
        loop {
            let state = self.state()?;
            if state["status"] == "stopped" {
                return Ok(());
            }
            expect(Instant::now() < end, format!("not stopped after {} s: {state}", LIMIT.as_secs()))?;
            thread::sleep(PAUSE);
        }
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        let _ = self.case.invoke(&["delete", "--force", &self.id]);
    }
}

/// The standard output of a container's process, read line by line.
pub struct Output {
    lines: Receiver<String>,
}

impl Output {
    fn read(from: PipeReader) -> Output {
        let (tell, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(from).lines().map_while(Result::ok) {
                if tell.send(line).is_err() {
                    return;
                }
            }
        });
        Output { lines }
    }

    /// The next line.
    pub fn line(&self) -> Result<String, Why> {
        match self.lines.recv_timeout(LIMIT) {
            Ok(line) => Ok(line),
            Err(RecvTimeoutError::Timeout) => fails("the container's process printed nothing in time"),
            Err(RecvTimeoutError::Disconnected) => fails("the container's process ended without a line"),
        }
    }

    /// Nothing more comes before the process has ended.
    pub fn ends(&self) -> Verdict {
        match self.lines.recv_timeout(LIMIT) {
            Ok(line) => fails(format!("the process printed {line:?}")),
            Err(RecvTimeoutError::Disconnected) => Ok(()),
            Err(RecvTimeoutError::Timeout) => fails("the process did not end"),
        }
    }
}
