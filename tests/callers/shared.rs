//! An engine under test: its namespaces, its directories, its start and its end.
//!
//! Where systemd is the machine's init, the engine lets it make the cgroups, as distributions set it up: its
//! containers are scopes in a slice of the test's own. Elsewhere they lie below a cgroup named after the test.

use crate::harness::{Test, ends_within, has_systemd, is_root, patiently, program, runtime, wait_for};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

pub const IMAGE: &str = "localhost/rrun-test:latest";
const LONG: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Docker,
    Podman,
    Containerd,
}

/// How a client's command ended.
#[derive(Debug)]
pub struct Done {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Done {
    #[track_caller]
    pub fn ok(&self) -> &str {
        self.code_is(0)
    }

    #[track_caller]
    pub fn code_is(&self, code: i32) -> &str {
        assert_eq!(self.code, Some(code), "{self:?}");
        self.stdout.trim_end()
    }
}

pub struct Engine {
    pub kind: Kind,
    /// Its directories, and the mark that all its processes carry.
    pub test: Test,
    /// Holds the namespaces that the daemon and its clients share.
    holder: Child,
    daemon: Option<Child>,
    names: AtomicU32,
}

/// Runs a test's body on the engine, which is started unless another test has it running.
pub fn on(kind: Kind, body: fn(&Engine)) {
    crate::requires!(is_root(), "needs root");
    for name in match kind {
        Kind::Docker => &["dockerd", "docker", "containerd", "iptables"][..],
        Kind::Podman => &["podman", "conmon"],
        Kind::Containerd => &["containerd", "ctr"],
    } {
        crate::requires!(program(name).is_some(), format!("needs the program {name}"));
    }
    static RUNNING: [Mutex<Weak<Engine>>; 3] = [const { Mutex::new(Weak::new()) }; 3];
    let engine = {
        // A failed start poisons nothing that matters: the next test tries again.
        let mut slot = RUNNING[kind as usize].lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        slot.upgrade().unwrap_or_else(|| {
            let engine = Arc::new(Engine::start(kind));
            *slot = Arc::downgrade(&engine);
            engine
        })
    };
    body(&engine);
}

/// CAP_SYS_RESOURCE in the effective set.
fn may_raise_rlimits() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let set = status.lines().find_map(|l| l.strip_prefix("CapEff:")).unwrap();
    u64::from_str_radix(set.trim(), 16).unwrap() >> 24 & 1 == 1
}

fn is_alive(child: &Child) -> bool {
    !ends_within(child, Duration::ZERO)
}

impl Engine {
    /// The engine's directories and namespaces, without its daemon.
    pub fn prepared(kind: Kind) -> Self {
        let test = Test::new(match kind {
            Kind::Docker => "docker",
            Kind::Podman => "podman",
            Kind::Containerd => "containerd",
        });
        let mut holder = Command::new("unshare");
        holder.args(["--net", "--mount", "sh", "-c", "ip link set lo up; exec sleep infinity"]);
        let holder = holder.env("RRUN_TEST", &test.id).spawn().unwrap();
        let own = fs::read_link("/proc/self/ns/mnt").unwrap();
        let theirs = format!("/proc/{}/ns/mnt", holder.id());
        wait_for("the namespaces", LONG, || (fs::read_link(&theirs).ok()? != own).then_some(()));
        Self { kind, test, holder, daemon: None, names: AtomicU32::new(0) }
    }

    fn start(kind: Kind) -> Self {
        let mut engine = Self::prepared(kind);
        match kind {
            Kind::Docker => engine.start_dockerd(),
            Kind::Containerd => {
                engine.start_containerd("disabled_plugins = [\"io.containerd.grpc.v1.cri\"]");
            }
            Kind::Podman => drop(fs::create_dir(engine.dir("run"))),
        }
        if kind != Kind::Containerd {
            let tar = engine.image_tar();
            engine.client(&["import", tar.to_str().unwrap(), IMAGE]).ok();
        }
        engine
    }

    pub fn dir(&self, name: &str) -> PathBuf {
        self.test.dir.join(name)
    }

    /// The busybox rootfs as a tar.
    pub fn image_tar(&self) -> PathBuf {
        fs::write(self.test.rootfs.join("etc/not-executable"), "x").unwrap();
        self.test.rootfs_tar()
    }

    /// A program in the engine's namespaces.
    pub fn inside(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.holder.id().to_string(), "--net", "--mount", "--", program]);
        command.env("RRUN_TEST", &self.test.id).current_dir(&self.test.dir);
        command.env("TMPDIR", &self.test.dir);
        command
    }

    fn start_daemon(&mut self, mut command: Command, is_up: &[&str]) {
        let log = fs::File::create(self.dir("daemon.log")).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.daemon = Some(command.spawn().unwrap());
        wait_for("the daemon to answer", LONG, || {
            let daemon = self.daemon.as_ref().unwrap();
            assert!(is_alive(daemon), "{}", fs::read_to_string(self.dir("daemon.log")).unwrap());
            (self.client(is_up).code == Some(0)).then_some(())
        });
    }

    fn start_dockerd(&mut self) {
        // Without a file of its own it would read the machine's /etc/docker/daemon.json.
        fs::write(self.dir("none.json"), "{}").unwrap();
        let mut command = self.inside("dockerd");
        command.arg("--data-root").arg(self.dir("data")).arg("--exec-root").arg(self.dir("exec"));
        command.arg("--pidfile").arg(self.dir("pid")).arg("--host").arg(self.host());
        command
            .arg("--add-runtime")
            .arg(format!("rrun={}", runtime().display()))
            .args(["--default-runtime", "rrun"]);
        command.args(["--storage-driver", "overlay2", "--cgroup-parent", &self.cgroup_parent()]);
        let driver = if has_systemd() { "systemd" } else { "cgroupfs" };
        command.arg("--exec-opt").arg(format!("native.cgroupdriver={driver}"));
        command.args(["--bip", "10.213.7.1/24", "--config-file"]).arg(self.dir("none.json"));
        self.start_daemon(command, &["info"]);
    }

    /// containerd with its own directories and socket, and `more` of a configuration.
    pub fn start_containerd(&mut self, more: &str) {
        let config = self.dir("config.toml");
        let text = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\n{more}\n[grpc]\naddress = {:?}\n",
            self.dir("data"),
            self.dir("exec"),
            self.dir("socket")
        );
        fs::write(&config, text).unwrap();
        let mut command = self.inside("containerd");
        command.arg("--config").arg(&config);
        self.start_daemon(command, &["version"]);
    }

    /// Ends the daemon; what it started stays.
    pub fn end_daemon(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            end(&mut daemon);
        }
    }

    /// The namespaces' file `name` of the engine, as `/proc/PID/ns/net`.
    #[allow(dead_code)] // Only tests/cri asks.
    pub fn namespace(&self, name: &str) -> PathBuf {
        format!("/proc/{}/ns/{name}", self.holder.id()).into()
    }

    fn host(&self) -> String {
        format!("unix://{}", self.dir("socket").display())
    }

    /// The client with what names this engine.
    pub fn command<S: AsRef<OsStr>>(&self, args: &[S]) -> Command {
        let mut command = match self.kind {
            Kind::Docker => self.inside("/usr/bin/docker"),
            Kind::Podman => self.inside("/usr/bin/podman"),
            Kind::Containerd => self.inside("/usr/bin/ctr"),
        };
        match self.kind {
            Kind::Docker => drop(command.arg("--host").arg(self.host())),
            Kind::Podman => {
                command.arg("--root").arg(self.dir("data")).arg("--runroot").arg(self.dir("run"));
                command.arg("--tmpdir").arg(self.dir("tmp")).arg("--runtime").arg(runtime());
                command.args(["--cgroup-manager", if has_systemd() { "systemd" } else { "cgroupfs" }]);
                command.args(["--events-backend", "file", "--storage-driver", "overlay"]);
                command.arg("--network-config-dir").arg(self.dir("net"));
            }
            // ctr puts its containers below a cgroup named after the namespace.
            Kind::Containerd => {
                command.arg("--address").arg(self.dir("socket")).args(["--namespace", &self.test.id]);
            }
        }
        command.args(args);
        command
    }

    pub fn client(&self, args: &[&str]) -> Done {
        done(self.command(args))
    }

    /// The engine's cgroup as `--cgroup-parent` names it. A slice's name has no dash of its own: each would be
    /// one more level, which nobody would remove.
    pub fn cgroup_parent(&self) -> String {
        let id = &self.test.id;
        if has_systemd() { format!("{}.slice", id.replace('-', "_")) } else { format!("/{id}") }
    }

    /// `run` or `create` with what this machine needs: podman asks for rlimits, which it may not be able to raise.
    pub fn run_args(&self, verb: &str, args: &[&str]) -> Vec<String> {
        let mut all = vec![verb.to_owned()];
        if self.kind == Kind::Podman {
            if !may_raise_rlimits() {
                all.extend(
                    ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000"].map(str::to_owned),
                );
            }
            all.extend(["--cgroup-parent".to_owned(), self.cgroup_parent()]);
        }
        all.extend(args.iter().map(|&a| a.to_owned()));
        all
    }

    pub fn run(&self, args: &[&str]) -> Done {
        done(self.command(&self.run_args("run", args)))
    }

    /// `run --rm IMAGE sh -c script` with flags, and its stdout.
    #[track_caller]
    pub fn sh(&self, flags: &[&str], script: &str) -> String {
        let all: Vec<_> = ["--rm"].iter().chain(flags).chain(&[IMAGE, "sh", "-c", script]).copied().collect();
        self.run(&all).ok().to_owned()
    }

    /// A detached container that runs `script`; its name.
    #[track_caller]
    pub fn detached(&self, flags: &[&str], script: &str) -> String {
        let name = self.name();
        let all: Vec<_> = ["--detach", "--name", &name]
            .iter()
            .chain(flags)
            .chain(&[IMAGE, "sh", "-c", script])
            .copied()
            .collect();
        self.run(&all).ok();
        name
    }

    pub fn name(&self) -> String {
        format!("c{}", self.names.fetch_add(1, Ordering::Relaxed))
    }

    #[track_caller]
    pub fn inspect(&self, name: &str, field: &str) -> String {
        self.client(&["inspect", "--format", &format!("{{{{{field}}}}}"), name]).ok().to_owned()
    }

    pub fn wait_logs(&self, name: &str, text: &str) {
        wait_for(text, LONG, || self.client(&["logs", name]).stdout.contains(text).then_some(()));
    }

    #[track_caller]
    pub fn remove(&self, name: &str) {
        self.client(&["rm", "--force", name]).ok();
    }
}

pub fn done(mut command: Command) -> Done {
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let out = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Done { code: out.status.code(), stdout: text(out.stdout), stderr: text(out.stderr) }
}

fn end(child: &mut Child) {
    let pid = rustix::process::Pid::from_child(child);
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    if !ends_within(child, patiently(Duration::from_secs(20))) {
        let _ = child.kill();
    }
    let _ = child.wait();
}

/// Directories below the engine's parent cgroup, in whatever hierarchy; podman's conmon has one there, too.
fn below(parent: &str) -> Vec<PathBuf> {
    fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                walk(&entry.path(), found);
                found.push(entry.path());
            }
        }
    }
    let mut found = Vec::new();
    for dir in parents(parent) {
        walk(&dir, &mut found);
    }
    found
}

/// The engine's parent cgroup in each hierarchy.
fn parents(parent: &str) -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(root).into_iter().flatten().flatten().map(|e| e.path());
    let parent = parent.trim_start_matches('/');
    hierarchies.chain([root.to_owned()]).map(|h| h.join(parent)).filter(|dir| dir.exists()).collect()
}

/// Engines make a parent named after the test for their containers, and podman one below for conmon; none of
/// them removes it. A cgroup with processes stays, and is told as left behind.
pub fn remove_empty_parents(parent: &str) {
    for dir in below(parent).into_iter().chain(parents(parent)) {
        let _ = fs::remove_dir(dir);
    }
}

/// The slice goes when it is told to, with all that is in it; hence a look first. A scope ends a moment after its
/// last process.
fn stop_slice(slice: &str) {
    let end = Instant::now() + patiently(Duration::from_secs(5));
    while !below(slice).is_empty() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(50));
    }
    let left = below(slice);
    let _ = Command::new("systemctl").args(["stop", slice]).status();
    assert!(left.is_empty() || std::thread::panicking(), "left behind: {left:?}");
}

impl Drop for Engine {
    fn drop(&mut self) {
        if self.kind != Kind::Containerd {
            let all = self.client(&["ps", "--all", "--quiet"]).stdout;
            let mut remove = vec!["rm", "--force", "--volumes"];
            remove.extend(all.split_whitespace());
            if remove.len() > 3 {
                let _ = self.client(&remove);
            }
        }
        if self.kind == Kind::Podman {
            // Its storage stays mounted until told otherwise, in the holder's namespace only.
            let _ = self.client(&["rmi", "--all", "--force"]);
        }
        self.end_daemon();
        let _ = self.holder.kill();
        let _ = self.holder.wait();
        let parent = self.cgroup_parent();
        if has_systemd() {
            stop_slice(&parent);
        } else {
            remove_empty_parents(&parent);
        }
        // What is still there now is told by the drop of `test`.
    }
}
