//! The ground every test stands on: a bundle of its own under a directory of its own, a `--root` of its own,
//! every run under a time limit, and an oracle that says what a container left behind on the host.
//!
//! Output goes to files, not pipes: `create` hands its stdout to the container, so a pipe would stay open.

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// The runtime under test.
pub fn runtime() -> &'static Path {
    static RUNTIME: OnceLock<PathBuf> = OnceLock::new();
    RUNTIME.get_or_init(|| match std::env::var_os("RRUN") {
        Some(path) if !path.is_empty() => path.into(),
        // tests/cri, a package of its own, shares this file.
        _ => option_env!("CARGO_BIN_EXE_rrun").map(PathBuf::from).expect("RRUN names the runtime"),
    })
}

/// False when `RRUN` names a peer: such tests as state more than the peers keep are skipped then.
pub fn is_rrun() -> bool {
    static IS: OnceLock<bool> = OnceLock::new();
    *IS.get_or_init(|| {
        let out = Command::new(runtime()).arg("--version").output().unwrap();
        !["runc version", "crun version", "youki version"]
            .iter()
            .any(|v| out.stdout.starts_with(v.as_bytes()))
    })
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Returns from the test, naming the missing precondition, unless it holds.
#[macro_export]
macro_rules! requires {
    (root) => {
        requires!($crate::harness::is_root(), "needs root");
    };
    (program $name:expr) => {
        requires!($crate::harness::program($name).is_some(), concat!("needs the program ", $name));
    };
    (call $name:expr) => {
        requires!(!$crate::harness::lacks().contains($name), concat!("needs the system call ", $name));
    };
    (unfiltered) => {
        requires!($crate::harness::lacks().is_empty(), "needs a runtime that no seccomp filter surrounds");
    };
    ($holds:expr, $what:expr) => {
        if !$holds {
            eprintln!("skipped: {}", $what);
            return;
        }
    };
}

/// Returns from the test when a peer is under test: it states what only rrun promises.
#[macro_export]
macro_rules! rrun_only {
    ($why:expr) => {
        if !$crate::harness::is_rrun() {
            eprintln!("skipped: only rrun: {}", $why);
            return;
        }
    };
}

/// Finds a program as the shell does, Debian's before others of the same name.
pub fn program(name: &str) -> Option<PathBuf> {
    ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].iter().map(|d| Path::new(d).join(name)).find(|p| p.exists())
}

/// tests/probe.c, compiled and static, so that it runs in any container. `RRUN_TEST_PROGRAMS` is a directory
/// with such programs compiled already, for where there is no compiler.
pub fn probe() -> &'static Path {
    static PROBE: OnceLock<PathBuf> = OnceLock::new();
    PROBE.get_or_init(|| compiled("probe"))
}

/// tests/old_kernel.c, which takes system calls away from a program.
pub fn old_kernel() -> &'static Path {
    static OLD_KERNEL: OnceLock<PathBuf> = OnceLock::new();
    OLD_KERNEL.get_or_init(|| compiled("old_kernel"))
}

/// The program of `tests/SOURCE.c`.
pub fn compiled(source: &str) -> PathBuf {
    let name = source.rsplit('/').next().unwrap_or(source);
    if let Some(directory) = std::env::var_os("RRUN_TEST_PROGRAMS") {
        return Path::new(&directory).join(name);
    }
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/{source}.c"));
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
    let mut cc = Command::new("cc");
    cc.args(["-static", "-O1", "-Wall", "-Wextra", "-Werror", "-o"]).arg(&path).arg(source);
    assert!(cc.status().unwrap().success(), "{cc:?}");
    // Under its own name only once it is complete; a later run finds it and replaces it.
    let done = path.with_file_name(name);
    fs::rename(&path, &done).unwrap();
    done
}

/// The system calls that `make suite-old-kernel` has taken away from the runtime.
pub fn lacks() -> &'static str {
    static LACKS: OnceLock<String> = OnceLock::new();
    LACKS.get_or_init(|| std::env::var("RRUN_LACKS").unwrap_or_default())
}

/// A time limit as this machine needs it: `RRUN_TEST_PATIENCE` says how many times longer (1), for an emulated
/// one. A limit only ends what hangs; it is no measurement.
pub fn patiently(limit: Duration) -> Duration {
    static FACTOR: OnceLock<u32> = OnceLock::new();
    limit
        * *FACTOR.get_or_init(|| {
            std::env::var("RRUN_TEST_PATIENCE")
                .map_or(1, |v| v.parse().expect("RRUN_TEST_PATIENCE: a number"))
        })
}

/// True when systemd is the machine's init: then engines let it make their cgroups.
pub fn has_systemd() -> bool {
    Path::new("/run/systemd/system").exists()
}

/// True when the machine has cgroup v2 and nothing else.
pub fn is_cgroup2() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// True when the host's v1 controller `name` is mounted.
pub fn controller(name: &str) -> bool {
    Path::new("/sys/fs/cgroup").join(name).join("cgroup.procs").exists()
}

/// Waits until `done` gives a value: the tests look at other programs, of which not all send an event.
pub fn wait_for<T>(what: &str, limit: Duration, mut done: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + patiently(limit);
    loop {
        if let Some(value) = done() {
            return value;
        }
        assert!(Instant::now() < end, "waited {limit:?} in vain for {what}");
        // On a slow machine each look costs more, and there are others who need the processor.
        std::thread::sleep(patiently(Duration::from_millis(10)));
    }
}

pub const SECONDS_5: Duration = Duration::from_secs(5);

/// One test's own corner of the machine.
pub struct Test {
    /// Container id, unique on the machine; also the mark in the environment and in cgroup names.
    pub id: String,
    pub dir: PathBuf,
    pub bundle: PathBuf,
    pub rootfs: PathBuf,
    pub state: PathBuf,
    /// The runtime, with what stands before it.
    pub words: Vec<OsString>,
    /// Of every run.
    pub env: Vec<(String, String)>,
    runs: AtomicU32,
}

impl Test {
    /// A bundle with a busybox rootfs and a config.json as `spec` would write it.
    pub fn new(name: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let id = format!("rt{}-{n}-{name}", std::process::id());
        let dir = PathBuf::from(format!("/tmp/rrun-test-{}/{n}", std::process::id()));
        let bundle = dir.join("b");
        let rootfs = bundle.join("rootfs");
        let state = dir.join("s");
        fs::create_dir_all(&rootfs).unwrap();
        fill_rootfs(&rootfs);
        let words = vec![runtime().into()];
        let test = Self { id, dir, bundle, rootfs, state, words, env: vec![], runs: AtomicU32::new(0) };
        test.write(&test.default_config());
        test
    }

    /// Docker's shape: six namespaces, no user namespace, its usual mounts and capabilities.
    pub fn default_config(&self) -> Value {
        let caps = json!([
            "CAP_CHOWN",
            "CAP_DAC_OVERRIDE",
            "CAP_FSETID",
            "CAP_FOWNER",
            "CAP_MKNOD",
            "CAP_NET_RAW",
            "CAP_SETGID",
            "CAP_SETUID",
            "CAP_SETFCAP",
            "CAP_SETPCAP",
            "CAP_NET_BIND_SERVICE",
            "CAP_SYS_CHROOT",
            "CAP_KILL",
            "CAP_AUDIT_WRITE"
        ]);
        json!({
            "ociVersion": "1.0.2",
            "process": {
                "terminal": false,
                "user": { "uid": 0, "gid": 0 },
                "args": ["true"],
                "env": ["PATH=/bin", "TERM=xterm", format!("RRUN_TEST={}", self.id)],
                "cwd": "/",
                "capabilities": { "bounding": caps, "effective": caps, "permitted": caps },
                "noNewPrivileges": true
            },
            "root": { "path": "rootfs" },
            "hostname": "rrun-test",
            "mounts": [
                { "destination": "/proc", "type": "proc", "source": "proc" },
                { "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
                  "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] },
                { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
                  "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"] },
                { "destination": "/dev/shm", "type": "tmpfs", "source": "shm",
                  "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"] },
                { "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
                  "options": ["nosuid", "noexec", "nodev"] },
                { "destination": "/sys", "type": "sysfs", "source": "sysfs",
                  "options": ["nosuid", "noexec", "nodev", "ro"] }
            ],
            "linux": {
                "namespaces": [
                    { "type": "pid" }, { "type": "network" }, { "type": "ipc" }, { "type": "uts" },
                    { "type": "mount" }, { "type": "cgroup" }
                ],
                "resources": { "devices": [{ "allow": false, "access": "rwm" }] },
                "maskedPaths": ["/proc/kcore", "/proc/keys"],
                "readonlyPaths": ["/proc/sys", "/proc/sysrq-trigger"]
            }
        })
    }

    pub fn config(&self) -> Value {
        serde_json::from_slice(&fs::read(self.bundle.join("config.json")).unwrap()).unwrap()
    }

    pub fn write(&self, config: &Value) {
        fs::write(self.bundle.join("config.json"), serde_json::to_vec(config).unwrap()).unwrap();
    }

    /// The root filesystem as an archive, for `import`.
    #[track_caller]
    pub fn rootfs_tar(&self) -> PathBuf {
        let tar = self.dir.join("image.tar");
        let mut command = Command::new("tar");
        command.arg("-cf").arg(&tar).arg("-C").arg(&self.rootfs).arg(".");
        assert!(command.status().unwrap().success());
        tar
    }

    /// Changes config.json.
    pub fn edit(&self, change: impl FnOnce(&mut Value)) -> &Self {
        let mut config = self.config();
        change(&mut config);
        self.write(&config);
        self
    }

    /// Makes the container run a shell script.
    pub fn sh(&self, script: &str) -> &Self {
        self.edit(|c| c["process"]["args"] = json!(["sh", "-c", script]))
    }

    pub fn add_mount(&self, mount: Value) -> &Self {
        self.edit(|c| c["mounts"].as_array_mut().unwrap().push(mount))
    }

    /// Gives the container's root a user namespace that maps to 100000.
    pub fn map_users(&self) -> &Self {
        self.edit(|c| {
            c["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "user" }));
            let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65_536 }]);
            c["linux"]["uidMappings"] = map.clone();
            c["linux"]["gidMappings"] = map;
        });
        for dir in [Path::new("/tmp").join(self.dir.parent().unwrap()), self.dir.clone(), self.bundle.clone()]
        {
            chmod(&dir, 0o755);
        }
        self
    }

    /// The runtime with this test's `--root`, and `args` behind it.
    pub fn rt<S: AsRef<OsStr>>(&self, args: &[S]) -> Run<'_> {
        let mut run = Run::bare(self);
        run.args.push("--root".into());
        run.args.push(self.state.clone().into());
        run.args.extend(args.iter().map(|a| a.as_ref().to_owned()));
        run
    }

    /// `verb --bundle B [flags] ID`.
    pub fn bundle_command(&self, verb: &str, flags: &[&str]) -> Run<'_> {
        let mut args: Vec<&str> = vec![verb, "--bundle", self.bundle.to_str().unwrap()];
        args.extend(flags);
        args.push(&self.id);
        self.rt(&args)
    }

    /// Puts the probe into the rootfs, as `/bin/probe`.
    pub fn add_probe(&self) -> &Self {
        fs::copy(probe(), self.rootfs.join("bin/probe")).unwrap();
        self
    }

    pub fn run(&self) -> Out {
        self.bundle_command("run", &[]).go()
    }

    /// Runs a script to completion, which must succeed, and gives its stdout.
    pub fn output(&self, script: &str) -> String {
        let out = self.sh(script).run();
        out.ok();
        out.stdout()
    }

    pub fn create(&self) {
        self.bundle_command("create", &[]).go().ok();
    }

    pub fn start(&self) {
        self.rt(&["start", &self.id]).go().ok();
    }

    /// A detached container that runs `script`.
    pub fn detached(&self, script: &str) -> &Self {
        self.sh(script);
        self.bundle_command("run", &["--detach"]).go().ok();
        self
    }

    /// `exec ID args`.
    pub fn exec(&self, args: &[&str]) -> Out {
        let mut all = vec!["exec", self.id.as_str()];
        all.extend(args);
        self.rt(&all).go()
    }

    pub fn state(&self) -> Value {
        let out = self.rt(&["state", &self.id]).go();
        out.ok();
        serde_json::from_str(&out.stdout()).unwrap()
    }

    pub fn status(&self) -> String {
        self.state()["status"].as_str().unwrap().to_owned()
    }

    pub fn pid(&self) -> u32 {
        self.state()["pid"].as_u64().unwrap().try_into().unwrap()
    }

    pub fn wait_status(&self, status: &str) {
        wait_for(status, SECONDS_5, || (self.status() == status).then_some(()));
    }

    pub fn kill(&self, signal: &str) -> Out {
        self.rt(&["kill", &self.id, signal]).go()
    }

    /// SIGKILL, wait for the end, delete.
    pub fn end(&self) {
        self.rt(&["delete", "--force", &self.id]).go().ok();
        self.nothing_left();
    }

    /// The directory of the container's cgroup in hierarchy `controller`, found by its processes.
    pub fn cgroup(&self, controller: &str) -> PathBuf {
        cgroup_of(self.pid(), controller)
    }

    /// Everything of this test that is still on the host, one thing a line.
    pub fn leftovers(&self) -> Vec<String> {
        let mut left = Vec::new();
        for entry in fs::read_dir(&self.state).into_iter().flatten().flatten() {
            left.push(format!("state: {}", entry.path().display()));
        }
        let dir = self.dir.to_str().unwrap().to_owned() + "/";
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        left.extend(mounts.lines().filter(|l| l.contains(&dir)).map(|l| format!("mount: {l}")));
        cgroups_named(Path::new("/sys/fs/cgroup"), &self.id, &mut left);
        for (pid, what) in processes_marked(&self.id) {
            left.push(format!("process: {pid} {what}"));
        }
        left
    }

    /// Fails if something of the container is left; what the kernel ends a moment later is waited for.
    pub fn nothing_left(&self) {
        let end = Instant::now() + patiently(Duration::from_secs(3));
        loop {
            let left = self.leftovers();
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < end, "left behind:\n{}", left.join("\n"));
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The names, kinds and modes of all files in the rootfs.
    pub fn rootfs_listing(&self) -> String {
        let mut lines = Vec::new();
        list(&self.rootfs, &self.rootfs, &mut lines);
        lines.sort();
        lines.join("\n")
    }
}

impl Drop for Test {
    fn drop(&mut self) {
        for entry in fs::read_dir(&self.state).into_iter().flatten().flatten() {
            let id = entry.file_name();
            let _ = self.rt(&[OsStr::new("delete"), OsStr::new("--force"), &id]).try_go();
        }
        if std::thread::panicking() {
            for (pid, _) in processes_marked(&self.id) {
                let _ = Pid::from_raw(pid).map(|p| rustix::process::kill_process(p, Signal::KILL));
            }
        } else {
            self.nothing_left();
        }
        let _ = fs::remove_dir_all(&self.dir);
        // The last test takes the parent along.
        let _ = self.dir.parent().map(fs::remove_dir);
    }
}

/// One run of the runtime, or of a program that runs it.
pub struct Run<'a> {
    test: &'a Test,
    pub args: Vec<OsString>,
    wrapper: Vec<OsString>,
    env: Vec<(String, String)>,
    cwd: Option<PathBuf>,
    stdin: Option<Vec<u8>>,
    limit: Duration,
}

impl<'a> Run<'a> {
    /// Without `--root`.
    pub fn bare(test: &'a Test) -> Self {
        let limit = Duration::from_secs(30);
        Self { test, args: vec![], wrapper: vec![], env: vec![], cwd: None, stdin: None, limit }
    }

    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    pub fn env(mut self, name: &str, value: impl AsRef<str>) -> Self {
        self.env.push((name.to_owned(), value.as_ref().to_owned()));
        self
    }

    pub fn cwd(mut self, dir: &Path) -> Self {
        self.cwd = Some(dir.to_owned());
        self
    }

    pub fn stdin(mut self, text: impl AsRef<[u8]>) -> Self {
        self.stdin = Some(text.as_ref().to_owned());
        self
    }

    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Runs a shell script which gets the runtime's command line as `"$@"`: for redirections and limits.
    pub fn through(mut self, script: &str) -> Self {
        self.wrapper = ["sh", "-c", script, "sh"].map(OsString::from).to_vec();
        self
    }

    /// Runs another program with the runtime's command line behind its own.
    pub fn under(mut self, program: &[&str]) -> Self {
        self.wrapper = program.iter().map(OsString::from).collect();
        self
    }

    pub fn command(&self) -> Command {
        let mut argv = self.wrapper.clone();
        argv.extend(self.test.words.iter().cloned());
        argv.extend(self.args.iter().cloned());
        let mut command = Command::new(&argv[0]);
        command.args(&argv[1..]).env("RRUN_TEST", &self.test.id).env_remove("NOTIFY_SOCKET");
        command.envs(self.test.env.iter().chain(&self.env).map(|(n, v)| (n, v)));
        command.current_dir(self.cwd.as_deref().unwrap_or(&self.test.dir));
        command
    }

    pub fn spawn(self) -> Running {
        let n = self.test.runs.fetch_add(1, Ordering::Relaxed);
        let stdout = self.test.dir.join(format!("{n}.out"));
        let stderr = self.test.dir.join(format!("{n}.err"));
        let mut command = self.command();
        match &self.stdin {
            Some(text) => {
                let path = self.test.dir.join(format!("{n}.in"));
                fs::write(&path, text).unwrap();
                command.stdin(fs::File::open(path).unwrap());
            }
            None => drop(command.stdin(Stdio::null())),
        }
        command.stdout(fs::File::create(&stdout).unwrap()).stderr(fs::File::create(&stderr).unwrap());
        let started = Instant::now();
        let child = command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
        Running {
            child,
            what: format!("{:?}", self.args),
            stdout,
            stderr,
            started,
            limit: patiently(self.limit),
        }
    }

    pub fn go(self) -> Out {
        self.spawn().wait()
    }

    fn try_go(self) -> Option<Out> {
        self.spawn().try_wait()
    }
}

/// A runtime that has been started.
pub struct Running {
    pub child: Child,
    what: String,
    stdout: PathBuf,
    stderr: PathBuf,
    started: Instant,
    limit: Duration,
}

impl Running {
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.stdout).unwrap()).into_owned()
    }

    /// Waits for the end; one that outlives its limit is killed and fails the test.
    pub fn wait(self) -> Out {
        let (what, limit) = (self.what.clone(), self.limit);
        self.try_wait().unwrap_or_else(|| panic!("{what} still ran after {limit:?}"))
    }

    fn try_wait(mut self) -> Option<Out> {
        let ended = ends_within(&self.child, self.limit);
        if !ended {
            let _ = self.child.kill();
        }
        let status = self.child.wait().unwrap();
        ended.then(|| Out {
            what: self.what,
            code: status.code(),
            signal: status.signal(),
            stdout: self.stdout,
            stderr: self.stderr,
            took: self.started.elapsed(),
        })
    }
}

/// Waits for a child on its pidfd.
pub fn ends_within(child: &Child, limit: Duration) -> bool {
    let pidfd = rustix::process::pidfd_open(Pid::from_child(child), PidfdFlags::empty()).unwrap();
    let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
    let limit =
        Timespec { tv_sec: limit.as_secs().try_into().unwrap(), tv_nsec: limit.subsec_nanos().into() };
    rustix::event::poll(&mut fds, Some(&limit)).unwrap() > 0
}

/// How a run ended. Its output is read when asked for: a container may still be writing.
pub struct Out {
    what: String,
    pub code: Option<i32>,
    pub signal: Option<i32>,
    stdout: PathBuf,
    stderr: PathBuf,
    pub took: Duration,
}

impl Out {
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.stdout).unwrap()).into_owned()
    }

    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.stderr).unwrap()).into_owned()
    }

    #[track_caller]
    pub fn ok(&self) -> &Self {
        self.code_is(0)
    }

    #[track_caller]
    pub fn code_is(&self, code: i32) -> &Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        self
    }

    /// Fails with `code`, says one of the `|`-separated `texts` (any case), and does not panic.
    #[track_caller]
    pub fn fails_with(&self, code: i32, texts: &str) -> &Self {
        self.code_is(code).says(texts)
    }

    #[track_caller]
    pub fn fails(&self, texts: &str) -> &Self {
        self.fails_with(1, texts)
    }

    #[track_caller]
    pub fn says(&self, texts: &str) -> &Self {
        let stderr = self.stderr().to_lowercase();
        assert!(
            texts.split('|').any(|t| stderr.contains(&t.to_lowercase())),
            "does not say {texts:?}: {self:?}"
        );
        assert!(!stderr.contains("panicked") && !stderr.contains("goroutine"), "{self:?}");
        self
    }

    /// One line on stderr, as callers show it to people.
    #[track_caller]
    pub fn one_line(&self) -> &Self {
        // The peers log what they do about a failure, too.
        if !is_rrun() {
            return self;
        }
        assert_eq!(self.stderr().trim_end().lines().count(), 1, "{self:?}");
        self
    }
}

impl std::fmt::Debug for Out {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (code, signal) = (self.code, self.signal);
        writeln!(f, "{} gave {code:?} signal {signal:?} after {:?}", self.what, self.took)?;
        write!(f, "--- stdout\n{}--- stderr\n{}", self.stdout(), self.stderr())
    }
}

pub fn chmod(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Writes an executable script.
pub fn script(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    chmod(path, 0o755);
}

fn fill_rootfs(rootfs: &Path) {
    static APPLETS: OnceLock<(PathBuf, Vec<String>)> = OnceLock::new();
    let (busybox, applets) = APPLETS.get_or_init(|| {
        let busybox = program("busybox").expect("the package busybox-static");
        let list = Command::new(&busybox).arg("--list").output().unwrap();
        (busybox, String::from_utf8(list.stdout).unwrap().lines().map(str::to_owned).collect())
    });
    for dir in
        ["bin", "dev", "dev/pts", "dev/shm", "dev/mqueue", "etc", "proc", "root", "run", "sys", "tmp", "usr"]
    {
        fs::create_dir(rootfs.join(dir)).unwrap();
    }
    chmod(&rootfs.join("tmp"), 0o1777);
    chmod(rootfs, 0o755);
    // Not by this process: a fork of another test's would have the file open for writing as it is executed.
    let copied = Command::new("cp").arg("--preserve=mode").arg(busybox).arg(rootfs.join("bin")).status();
    assert!(copied.unwrap().success());
    for applet in applets.iter().filter(|a| *a != "busybox") {
        std::os::unix::fs::symlink("busybox", rootfs.join("bin").join(applet)).unwrap();
    }
    fs::write(
        rootfs.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n",
    )
    .unwrap();
    fs::write(rootfs.join("etc/group"), "root:x:0:\nuser:x:1000:\n").unwrap();
}

/// The directory of a process's cgroup in hierarchy `controller`, or its only one where there is only v2.
pub fn cgroup_of(pid: u32, controller: &str) -> PathBuf {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    if is_cgroup2() {
        let path = text.lines().find_map(|line| line.strip_prefix("0::/")).unwrap();
        return Path::new("/sys/fs/cgroup").join(path);
    }
    let path = text
        .lines()
        .filter_map(|l| l.split(':').nth(1).zip(l.splitn(3, ':').nth(2)))
        .find_map(|(names, path)| names.split(',').any(|n| n == controller).then_some(path));
    let root = Path::new("/sys/fs/cgroup").join(controller.trim_start_matches("name="));
    root.join(path.unwrap().trim_start_matches('/'))
}

/// A line for a file and each below it.
fn list(top: &Path, path: &Path, lines: &mut Vec<String>) {
    use std::os::unix::fs::MetadataExt;
    let meta = fs::symlink_metadata(path).unwrap();
    let (mode, owner, size) = (meta.mode(), (meta.uid(), meta.gid()), meta.size());
    let link = fs::read_link(path).unwrap_or_default();
    let name = path.strip_prefix(top).unwrap_or(path).display();
    lines.push(format!("{name} {mode:o} {owner:?} {size} {}", link.display()));
    if meta.is_dir() {
        fs::read_dir(path).unwrap().for_each(|entry| list(top, &entry.unwrap().path(), lines));
    }
}

/// Directories below `dir` whose name contains `id`, in whatever hierarchy.
fn cgroups_named(dir: &Path, id: &str, found: &mut Vec<String>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            if entry.file_name().to_string_lossy().contains(id) {
                found.push(format!("cgroup: {}", entry.path().display()));
            }
            cgroups_named(&entry.path(), id, found);
        }
    }
}

/// Processes that carry the test's mark in their environment, or sit in a cgroup of its name.
pub fn processes_marked(id: &str) -> Vec<(i32, String)> {
    // Most of a machine's processes are the kernel's own threads, and every test looks more than once.
    static KERNEL: OnceLock<HashSet<i32>> = OnceLock::new();
    let kernel = KERNEL
        .get_or_init(|| processes().filter(|(_, dir)| parent(dir) == Some(2)).map(|(pid, _)| pid).collect());
    let mark = format!("RRUN_TEST={id}");
    let mut found = Vec::new();
    for (pid, dir) in processes().filter(|(pid, _)| !kernel.contains(pid)) {
        let environ = fs::read(dir.join("environ")).unwrap_or_default();
        let marked = environ.split(|b| *b == 0).any(|v| v == mark.as_bytes());
        if !marked && !fs::read_to_string(dir.join("cgroup")).unwrap_or_default().contains(id) {
            continue;
        }
        // One that has ended and whose parent, the machine's init, has yet to notice is nobody's leftover.
        let stat = fs::read_to_string(dir.join("stat")).unwrap_or_default();
        if !stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" Z 1 ")) {
            let comm = fs::read_to_string(dir.join("comm")).unwrap_or_default();
            found.push((pid, comm.trim().to_owned()));
        }
    }
    found
}

fn processes() -> impl Iterator<Item = (i32, PathBuf)> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())))
}

/// The second field behind the name in `stat`.
fn parent(process: &Path) -> Option<i32> {
    let stat = fs::read_to_string(process.join("stat")).ok()?;
    stat.rsplit(')').next()?.split_whitespace().nth(1)?.parse().ok()
}
