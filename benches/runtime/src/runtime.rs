//! What is measured: runtimes, and the floor's programs; and how: a command's time from its start to its end.

use crate::bundle::USER;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

pub struct Runtime {
    pub name: String,
    pub path: PathBuf,
    /// State, of root's containers and of [`USER`]'s.
    roots: [PathBuf; 2],
    /// A file for each container.
    pids: [PathBuf; 2],
    /// What the last command wrote.
    output: PathBuf,
}

impl Runtime {
    pub fn new(name: &str, path: &Path, dir: &Path) -> io::Result<Self> {
        let [roots, pids] = ["state", "pids"]
            .map(|what| ["root", "user"].map(|whose| dir.join(format!("{what}-{name}-{whose}"))));
        for (at, owner) in [&roots, &pids].into_iter().flat_map(|dirs| dirs.iter().zip([0, USER])) {
            fs::create_dir_all(at)?;
            chown(at, Some(owner), Some(owner))?;
        }
        let output = dir.join("output");
        Ok(Self { name: name.to_owned(), path: path.to_owned(), roots, pids, output })
    }

    pub fn command(&self, rootless: bool, args: &[&str]) -> Command {
        let root = &self.roots[usize::from(rootless)];
        let mut command = Command::new(&self.path);
        command.arg("--root").arg(root).args(args);
        if rootless {
            command.uid(USER).gid(USER).env("XDG_RUNTIME_DIR", root);
        }
        command
    }

    /// `verb` is create, or run with or without --detach; `at` the bundle.
    pub fn new_container(&self, verb: &[&str], at: &Path, rootless: bool, id: &str) -> Command {
        let mut args = verb.to_vec();
        let (at, pid_file) = (at.display().to_string(), self.pid_file(rootless, id).display().to_string());
        args.extend(["--bundle", &at]);
        if verb != ["run"] {
            args.extend(["--pid-file", &pid_file]);
        }
        args.push(id);
        self.command(rootless, &args)
    }

    fn pid_file(&self, rootless: bool, id: &str) -> PathBuf {
        self.pids[usize::from(rootless)].join(id)
    }

    /// Of a container's first process.
    pub fn pid(&self, rootless: bool, id: &str) -> Option<Pid> {
        Pid::from_raw(fs::read_to_string(self.pid_file(rootless, id)).ok()?.trim().parse().ok()?)
    }

    /// Milliseconds, or the line that tells what failed.
    pub fn time(&self, command: Command) -> Result<f64, String> {
        time(command, &self.output)
    }

    /// Deletes every container whose name begins with `prefix`.
    pub fn delete_all(&self, prefix: &str) {
        for (rootless, root) in [false, true].into_iter().zip(&self.roots) {
            let entries = fs::read_dir(root).into_iter().flatten().flatten();
            for id in entries.filter_map(|e| e.file_name().into_string().ok()) {
                if id.starts_with(prefix) {
                    let _ = self.time(self.command(rootless, &["delete", "--force", &id]));
                }
            }
        }
    }
}

/// The commands that run, and since when.
static RUNNING: Mutex<Vec<(Pid, Instant)>> = Mutex::new(Vec::new());

/// Kills what has run for ten seconds, from now on: youki's `run` sometimes waits for ever for what has ended.
pub fn watch() {
    thread::spawn(|| {
        loop {
            thread::sleep(Duration::from_secs(1));
            for (pid, begin) in RUNNING.lock().expect("no panic").iter() {
                if begin.elapsed() > Duration::from_secs(10) {
                    let _ = kill_process(*pid, Signal::KILL);
                }
            }
        }
    });
}

/// Milliseconds from before a command is started until it has been waited for.
pub fn waited(command: &mut Command) -> io::Result<(f64, ExitStatus)> {
    let begin = Instant::now();
    let mut child = command.spawn()?;
    let pid = Pid::from_child(&child);
    RUNNING.lock().expect("no panic").push((pid, begin));
    let status = child.wait();
    let elapsed = begin.elapsed().as_secs_f64() * 1e3;
    RUNNING.lock().expect("no panic").retain(|(other, _)| *other != pid);
    Ok((elapsed, status?))
}

/// With its output in a file: a pipe would be the container's, too, and open as long as it.
fn time(mut command: Command, output: &Path) -> Result<f64, String> {
    let _ = fs::remove_file(output);
    let done = File::create(output).and_then(|file| {
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        waited(&mut command)
    });
    match done {
        Ok((elapsed, status)) if status.success() => Ok(elapsed),
        Ok((_, status)) => {
            let text = fs::read_to_string(output).unwrap_or_default();
            let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty()).rev();
            let line = lines.clone().find(|line| line.to_lowercase().contains("error")).or(lines.next());
            Err(line.map_or_else(|| status.to_string(), str::to_owned))
        }
        Err(e) => Err(format!("{}: {e}", command.get_program().to_string_lossy())),
    }
}

/// Ends a container's first process, which is this process's child since its runtime has ended.
pub fn end(pid: Option<Pid>) {
    if let Some(pid) = pid {
        let _ = kill_process(pid, Signal::KILL);
        let _ = waitpid(Some(pid), WaitOptions::empty());
    }
}

/// The programs of benches/floor, with the arguments that stand for config.json.
pub struct Floor {
    programs: PathBuf,
    rootfs: PathBuf,
    /// KIND, and the directory below which runtimes make a cgroup without a `cgroupsPath`.
    pub hierarchies: Vec<(String, PathBuf)>,
    output: PathBuf,
    socket: PathBuf,
}

impl Floor {
    pub fn new(programs: &Path, dir: &Path) -> io::Result<Self> {
        Ok(Self {
            programs: programs.to_owned(),
            rootfs: dir.join("rootfs"),
            hierarchies: hierarchies()?,
            output: dir.join("output-floor"),
            socket: dir.join("floor.sock"),
        })
    }

    pub fn program(&self, name: &str) -> PathBuf {
        self.programs.join(name)
    }

    fn command(&self, program: &str, words: &[&str], cgroup: &str) -> Command {
        let mut command = Command::new(self.program(program));
        command.args(words);
        command.args(
            self.hierarchies.iter().map(|(kind, dir)| format!("{kind}={}", dir.join(cgroup).display())),
        );
        command
    }

    pub fn run(&self, id: &str) -> Result<f64, String> {
        let (cpus, mems) = self.cpuset();
        let command = self.command("run", &[&self.rootfs.to_string_lossy(), id, &cpus, &mems], "");
        time(command, &self.output)
    }

    /// In the container `id` of a runtime.
    pub fn exec(&self, id: &str, pid: Pid) -> Result<f64, String> {
        time(self.command("exec", &[&pid.as_raw_nonzero().to_string()], id), &self.output)
    }

    pub fn create(&self, id: &str) -> Result<f64, String> {
        let (cpus, mems) = self.cpuset();
        let (rootfs, socket) = (self.rootfs.to_string_lossy(), self.socket.to_string_lossy());
        time(self.command("cycle", &["create", &rootfs, id, &socket, &cpus, &mems], ""), &self.output)
    }

    pub fn start(&self) -> Result<f64, String> {
        let mut command = Command::new(self.program("cycle"));
        command.arg("start").arg(&self.socket);
        time(command, &self.dir("start"))
    }

    pub fn delete(&self, id: &str) -> Result<f64, String> {
        let pid = fs::read_to_string(&self.output).unwrap_or_default();
        let socket = self.socket.to_string_lossy();
        let command = self.command("cycle", &["delete", id, &socket, pid.trim()], "");
        let elapsed = time(command, &self.dir("delete"));
        end(pid.trim().parse().ok().and_then(Pid::from_raw));
        elapsed
    }

    /// `create` keeps its output, which is what `delete` needs.
    fn dir(&self, name: &str) -> PathBuf {
        self.output.with_extension(name)
    }

    fn cpuset(&self) -> (String, String) {
        let dir = self.hierarchies.iter().find(|(kind, _)| kind == "cpuset").map(|(_, dir)| dir);
        let read = |name: &str| dir.and_then(|d| fs::read_to_string(d.join(name)).ok()).unwrap_or_default();
        (read("cpuset.cpus").trim().to_owned(), read("cpuset.mems").trim().to_owned())
    }

    /// What failed commands have left: processes first, then cgroups whose name begins with `prefix`.
    pub fn remove_cgroups(&self, prefix: &str) {
        let below = |dir: &PathBuf| {
            fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path()).collect::<Vec<_>>()
        };
        let ours = |path: &PathBuf| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(prefix));
        for path in self.hierarchies.iter().flat_map(|(_, dir)| below(dir)).filter(ours) {
            let processes = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
            for pid in processes.lines().filter_map(|l| Pid::from_raw(l.parse().ok()?)) {
                end(Some(pid));
            }
            let _ = fs::remove_dir(path);
        }
    }
}

/// Of the mounted hierarchies, this process's own cgroup; of v2 alone the one above it, since v2 lets a cgroup with
/// processes have no children with controllers.
fn hierarchies() -> io::Result<Vec<(String, PathBuf)>> {
    let own = fs::read_to_string("/proc/self/cgroup")?;
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let mut found = Vec::new();
    for line in mounts.lines() {
        let words: Vec<_> = line.split(' ').collect();
        let Some([_, kind, _, options, ..]) = words.iter().position(|w| *w == "-").map(|at| &words[at..])
        else {
            continue;
        };
        let (Some(point), true) = (words.get(4), matches!(*kind, "cgroup" | "cgroup2")) else { continue };
        // In the file: NUMBER:CONTROLLERS:PATH, with no controllers for v2.
        let path = own.lines().find_map(|l| {
            let mut fields = l.splitn(3, ':').skip(1);
            let (controllers, path) = (fields.next()?, fields.next()?);
            let first = controllers.split(',').next()?;
            let same = if *kind == "cgroup2" {
                first.is_empty()
            } else {
                !first.is_empty() && options.split(',').any(|o| o == first)
            };
            same.then_some(path)
        });
        let name = match Path::new(point).file_name().and_then(|n| n.to_str()) {
            Some("cgroup") => "v2",
            Some(name) => name,
            None => continue,
        };
        if let Some(mut path) = path {
            if name == "v2" {
                path = path.rsplit_once('/').map_or("", |(parent, _)| parent);
            }
            found.push((name.to_owned(), Path::new(point).join(path.trim_start_matches('/'))));
        }
    }
    Ok(found)
}
