//! One check's surroundings: a directory of its own, bundles in it, and the runtime under test
//! driven through its command line.
//!
//! The specification has no operation that waits for a container, so its end is seen twice: the
//! pipe that is its standard output ends, and `state` then says `stopped`.

#![forbid(unsafe_code)]

use std::cell::Cell;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, PipeReader, pipe};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio, id as own_pid};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// How long one command, or the output of one container, may take.
const LIMIT: Duration = Duration::from_secs(20);
/// Between two queries of the state of a container that is about to end.
const PAUSE: Duration = Duration::from_millis(5);
/// The busybox applets that the containers' scripts call.
const APPLETS: &[&str] = &["cat", "env", "hostname", "id", "pwd", "readlink", "sh", "sleep", "stat", "touch"];

static CASES: AtomicU32 = AtomicU32::new(0);

/// Why a check did not pass.
#[derive(Debug)]
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

pub fn expect(holds: bool, otherwise: impl Into<String>) -> Verdict {
    if holds { Ok(()) } else { fails(otherwise) }
}

pub fn expect_eq(what: &str, got: &str, want: &str) -> Verdict {
    expect(got == want, format!("{what}: got {got:?}, want {want:?}"))
}

/// An input or output failure of this program's own files.
fn own(path: &Path) -> impl Fn(std::io::Error) -> Why + '_ {
    move |e| Why::Fails(format!("conformance itself: {}: {e}", path.display()))
}

/// What every check needs: root, and a busybox that runs without a loader. Gives its path, or names
/// what is missing.
pub fn precondition() -> Result<PathBuf, String> {
    let status = fs::read_to_string("/proc/self/status").map_err(|e| format!("/proc/self/status: {e}"))?;
    let root = status.lines().any(|line| line.split_whitespace().take(3).eq(["Uid:", "0", "0"]));
    if !root {
        return Err("needs root".into());
    }
    let missing = || "needs a static busybox in /bin or /usr/bin (Debian: busybox-static)".to_owned();
    let path =
        ["/bin/busybox", "/usr/bin/busybox"].into_iter().map(PathBuf::from).find(|path| path.is_file());
    let path = path.ok_or_else(missing)?;
    // A dynamic one asks for its loader by a path, which is the first thing such a program holds.
    let text = fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    if text.iter().take(4096).copied().collect::<Vec<_>>().windows(4).any(|part| part == b"/ld-") {
        return Err(missing());
    }
    Ok(path)
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
}

/// What is checked, and with what.
pub struct Subject {
    pub runtime: PathBuf,
    /// Flags that go before each command.
    pub global: Vec<String>,
    pub busybox: PathBuf,
}

pub struct Case<'a> {
    subject: &'a Subject,
    /// Everything that the check makes is in here.
    pub dir: PathBuf,
    made: Cell<u32>,
}

pub struct Bundle {
    pub path: PathBuf,
    pub config: Value,
}

impl<'a> Case<'a> {
    pub fn new(subject: &'a Subject) -> Result<Case<'a>, Why> {
        let number = CASES.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("conformance-{}-{number}", own_pid()));
        fs::create_dir(&dir).map_err(own(&dir))?;
        Ok(Case { subject, dir, made: Cell::new(0) })
    }

    fn number(&self) -> u32 {
        self.made.set(self.made.get() + 1);
        self.made.get()
    }

    /// The host's busybox, for hooks.
    pub fn busybox(&self) -> String {
        self.subject.busybox.display().to_string()
    }

    /// A new directory in the case's.
    pub fn directory(&self, name: &str) -> Result<PathBuf, Why> {
        let dir = self.dir.join(name);
        fs::create_dir(&dir).map_err(own(&dir))?;
        Ok(dir)
    }

    /// A bundle whose process runs `script` in the shell; `edit` changes the configuration further.
    pub fn bundle(&self, script: &str, edit: impl FnOnce(&mut Value)) -> Result<Bundle, Why> {
        let path = self.directory(&format!("bundle{}", self.number()))?;
        let bin = path.join("rootfs/bin");
        for dir in [&path.join("rootfs"), &bin, &path.join("rootfs/proc"), &path.join("rootfs/dev")] {
            fs::create_dir(dir).map_err(own(dir))?;
        }
        fs::copy(&self.subject.busybox, bin.join("busybox")).map_err(own(&bin))?;
        for applet in APPLETS {
            symlink("busybox", bin.join(applet)).map_err(own(&bin))?;
        }
        let mut config = json!({
            "ociVersion": "1.0.2",
            "process": {
                "terminal": false, "user": {"uid": 0, "gid": 0}, "cwd": "/",
                "args": ["sh", "-c", script], "env": ["PATH=/bin"],
            },
            "root": {"path": "rootfs"},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
            ],
            "linux": {"namespaces": [{"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}]},
        });
        edit(&mut config);
        let bundle = Bundle { path, config };
        bundle.write()?;
        Ok(bundle)
    }

    /// Runs the runtime with the case's state directory.
    pub fn invoke(&self, args: &[&str]) -> Result<Answer, Why> {
        let mut command = Command::new(&self.subject.runtime);
        self.global(&mut command);
        command.args(args);
        self.answer(command, None)
    }

    fn global(&self, command: &mut Command) {
        command.current_dir(&self.dir).arg("--root").arg(self.dir.join("state")).args(&self.subject.global);
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
        let pid = child.id();
        let (tell, told) = channel();
        thread::spawn(move || tell.send(child.wait()));
        let status = match told.recv_timeout(LIMIT) {
            Ok(status) => status.map_err(own(&self.subject.runtime))?,
            Err(_) => {
                let _ =
                    Command::new(&self.subject.busybox).args(["kill", "-KILL", &pid.to_string()]).status();
                return fails(format!("no end within {} s: {what}", LIMIT.as_secs()));
            }
        };
        let read = |path: &Path| fs::read(path).map(|text| String::from_utf8_lossy(&text).into_owned());
        let (stdout, stderr) = (read(&out).unwrap_or_default(), read(&err).unwrap_or_default());
        Ok(Answer { status, stdout, stderr })
    }

    /// `create`, whatever comes of it.
    pub fn attempt(&self, bundle: &Bundle) -> Result<(Container<'_>, Answer), Why> {
        self.attempt_by(Command::new(&self.subject.runtime), bundle)
    }

    /// `create` by a command that ends in the runtime, for instance a shell that prepares a process
    /// attribute first.
    fn attempt_by(&self, mut command: Command, bundle: &Bundle) -> Result<(Container<'_>, Answer), Why> {
        let id = format!("conformance-{}-{}", own_pid(), self.number());
        let (reader, writer) = pipe().map_err(own(&self.dir))?;
        self.global(&mut command);
        command.arg("create").arg("--bundle").arg(&bundle.path).arg(&id);
        let container = Container { case: self, id, output: Output::read(reader) };
        let answer = self.answer(command, Some(writer.into()))?;
        Ok((container, answer))
    }

    /// `create` that the check relies on.
    pub fn create(&self, bundle: &Bundle) -> Result<Container<'_>, Why> {
        let (container, answer) = self.attempt(bundle)?;
        expect(answer.ok(), format!("create: {}: {}", answer.status, answer.stderr))?;
        Ok(container)
    }

    /// As [`Case::create`], from a process whose `oom_score_adj` is `score`.
    pub fn create_with_score(&self, bundle: &Bundle, score: &str) -> Result<Container<'_>, Why> {
        let mut shell = Command::new(&self.subject.busybox);
        shell
            .args(["sh", "-c", r#"echo "$0" >/proc/self/oom_score_adj; exec "$@""#, score])
            .arg(&self.subject.runtime);
        let (container, answer) = self.attempt_by(shell, bundle)?;
        expect(answer.ok(), format!("create: {}: {}", answer.status, answer.stderr))?;
        Ok(container)
    }

    /// `create` has to fail and to leave no container.
    pub fn refused(&self, what: &str, bundle: &Bundle) -> Verdict {
        let (container, answer) = self.attempt(bundle)?;
        expect(!answer.ok(), format!("create accepted {what}"))?;
        expect(!container.invoke("state")?.ok(), format!("create refused {what}, but the container exists"))
    }

    /// Runs the bundle from create to delete and gives what its process printed.
    pub fn prints(&self, script: &str, edit: impl FnOnce(&mut Value)) -> Result<String, Why> {
        let bundle = self.bundle(script, edit)?;
        let container = self.create(&bundle)?;
        container.started()?;
        let printed = container.output.rest()?;
        container.stopped()?;
        container.deleted()?;
        Ok(printed.trim_end().to_owned())
    }

    /// Removes the directory, unless something is still mounted in it.
    pub fn finish(self) -> Verdict {
        let mounts = fs::read_to_string("/proc/self/mountinfo").map_err(own(&self.dir))?;
        let prefix = format!("{}/", self.dir.display());
        if let Some(point) = mounts.split_whitespace().find(|word| word.starts_with(&prefix)) {
            return fails(format!("still mounted after the check: {point}"));
        }
        fs::remove_dir_all(&self.dir).map_err(own(&self.dir))
    }
}

impl Bundle {
    /// Writes the configuration as it now is.
    pub fn write(&self) -> Verdict {
        let file = self.path.join("config.json");
        fs::write(&file, self.config.to_string()).map_err(own(&file))
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
        let answer = self.invoke("start")?;
        expect(answer.ok(), format!("start: {}: {}", answer.status, answer.stderr))
    }

    pub fn deleted(&self) -> Verdict {
        let answer = self.invoke("delete")?;
        expect(answer.ok(), format!("delete: {}: {}", answer.status, answer.stderr))
    }

    pub fn state(&self) -> Result<Value, Why> {
        let answer = self.invoke("state")?;
        expect(answer.ok(), format!("state: {}: {}", answer.status, answer.stderr))?;
        serde_json::from_str(&answer.stdout)
            .map_err(|e| Why::Fails(format!("state printed no JSON: {e}: {}", answer.stdout)))
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

    /// Everything up to the end of the process.
    pub fn rest(&self) -> Result<String, Why> {
        let mut text = String::new();
        loop {
            match self.lines.recv_timeout(LIMIT) {
                Ok(line) => text = text + &line + "\n",
                Err(RecvTimeoutError::Disconnected) => return Ok(text),
                Err(RecvTimeoutError::Timeout) => {
                    return fails(format!("the process did not end; printed {text:?}"));
                }
            }
        }
    }
}
