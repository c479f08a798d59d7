//! An attack: the same steps on each runtime, and a verdict from what they changed.

use crate::harness::{self, Out, Test, program};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Who is attacked beside rrun.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// Debian's, whose advisory is about this hole. It may be closed in the version that is installed.
    Runc,
    Crun,
    /// rrun with this word's defence taken out, which must fall.
    Weak(&'static str),
}

use Control::{Crun, Runc, Weak};

impl Control {
    fn program(self) -> Option<PathBuf> {
        match self {
            Runc => program("runc"),
            Crun => program("crun"),
            Weak(_) => std::env::var_os("RRUN_WEAKENED").map(PathBuf::from).filter(|path| path.exists()),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Runc => "runc",
            Crun => "crun",
            Weak(_) => "weakened rrun",
        }
    }
}

/// A place where one runtime is attacked.
pub struct Scene {
    pub t: Test,
    /// The host's, which nothing of the container may reach.
    pub canary: Canary,
    pub control: Option<Control>,
    /// The program of the runtime.
    program: PathBuf,
}

impl Scene {
    fn new(name: &str, control: Option<Control>, program: PathBuf) -> Self {
        let mut t = Test::new(&name.replace(|c: char| !c.is_ascii_alphanumeric(), "-"));
        if let Some(Weak(word)) = control {
            t.env.push(("RRUN_WEAKEN".into(), word.into()));
        }
        let canary = Canary::new(&t.dir);
        let mut scene = Self { t, canary, control, program };
        scene.through(&[]);
        scene
    }

    /// Runs the runtime under another program from now on.
    pub fn through(&mut self, words: &[OsString]) {
        let mut all: Vec<OsString> = Vec::new();
        // crun refuses a host that has both versions of cgroups.
        let hybrid = Path::new("/sys/fs/cgroup/unified/cgroup.procs").exists();
        if hybrid && self.control == Some(Crun) {
            let script = "umount /sys/fs/cgroup/unified; exec \"$@\"";
            all.extend(["unshare", "-m", "sh", "-c", script, "sh"].map(OsString::from));
        }
        all.extend_from_slice(words);
        all.push(self.program.clone().into());
        self.t.words = all;
    }

    /// Attacks a copy of the runtime's file, which may be spoiled.
    pub fn copy_of_runtime(&mut self) -> PathBuf {
        let copy = self.t.dir.join("runtime");
        // Not by this process: a fork of another test's would have the file open for writing as it is executed.
        let done = Command::new("cp").arg(&self.program).arg(&copy).status().unwrap();
        assert!(done.success());
        self.be(&copy);
        copy
    }

    fn be(&mut self, program: &Path) {
        program.clone_into(&mut self.program);
        self.through(&[]);
    }

    /// Takes the mounts at and below /dev out of config.json, as many escapes need the image's own.
    pub fn without_dev(&self) -> &Self {
        self.t.edit(|c| {
            let mounts = c["mounts"].as_array_mut().unwrap();
            mounts.retain(|m| !m["destination"].as_str().unwrap().starts_with("/dev"));
        });
        self
    }

    /// A directory outside of the rootfs that the container gets at `destination`.
    pub fn volume(&self, destination: &str) -> PathBuf {
        let dir = self.t.dir.join("volume");
        fs::create_dir_all(&dir).unwrap();
        self.bind(&dir, destination);
        dir
    }

    pub fn bind(&self, source: &Path, destination: &str) {
        self.t.add_mount(
            json!({ "destination": destination, "type": "bind", "source": source, "options": ["bind"] }),
        );
    }

    pub fn edit(&self, change: impl FnOnce(&mut Value)) -> &Self {
        self.t.edit(change);
        self
    }

    /// Runs a script in the container. It may well be that it cannot be.
    pub fn run(&self, script: &str) -> Out {
        self.t.sh(script).run()
    }

    /// Whether a detached container could be started.
    pub fn detached(&self, script: &str) -> bool {
        self.t.sh(script);
        self.t.bundle_command("run", &["--detach"]).go().code == Some(0)
    }

    pub fn end(&self) {
        let _ = self.t.rt(&["delete", "--force", &self.t.id]).go();
    }
}

/// Files outside of the rootfs that a trick would reach.
pub struct Canary {
    pub dir: PathBuf,
    before: String,
}

impl Canary {
    fn new(test: &Path) -> Self {
        let dir = test.join("canary");
        fs::create_dir(&dir).unwrap();
        fs::create_dir(dir.join("b")).unwrap();
        for name in ["victim", "null", "ptmx", "console", "core", "passwd"] {
            fs::write(dir.join(name), format!("canary {name}")).unwrap();
        }
        let mut canary = Self { dir, before: String::new() };
        canary.before = canary.listing();
        canary
    }

    pub fn victim(&self) -> PathBuf {
        self.dir.join("victim")
    }

    fn listing(&self) -> String {
        let mut lines = Vec::new();
        for dir in [self.dir.clone(), self.dir.join("b")] {
            for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
                let m = entry.metadata().unwrap();
                // A fifo or a device that was put there is not to be read.
                let text =
                    if m.is_file() { fs::read_to_string(entry.path()).unwrap() } else { String::new() };
                let times = (m.ctime(), m.ctime_nsec(), m.mtime(), m.mtime_nsec());
                lines.push(format!("{:?} {text:?} {:o} {} {times:?}", entry.path(), m.mode(), m.uid()));
            }
        }
        lines.sort();
        lines.join("\n")
    }

    pub fn changed(&self) -> Option<String> {
        let now = self.listing();
        let new = now.lines().find(|line| !self.before.lines().any(|had| had == *line));
        let gone = self.before.lines().find(|line| !now.lines().any(|has| has == *line));
        new.or(gone).map(|line| format!("the host's directory: {line}"))
    }
}

/// Does the attack and looks at the host afterwards. Some evidence means that it escaped.
fn judge(
    name: &str,
    control: Option<Control>,
    program: &Path,
    body: &impl Fn(&mut Scene) -> Option<String>,
) -> Option<String> {
    let core_pattern = || fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap_or_default();
    let (binary, pattern) = (fs::read(program).unwrap(), core_pattern());
    let mut scene = Scene::new(name, control, program.to_owned());
    let evidence = body(&mut scene).or_else(|| scene.canary.changed());
    scene.be(program);
    scene.end();
    if control.is_some() {
        // It may have given away what it was started with, the host's /dev/null, as runc did once (runc #3674).
        std::os::unix::fs::chown("/dev/null", Some(0), Some(0)).unwrap();
    }
    let evidence = evidence.or_else(|| (core_pattern() != pattern).then(|| "core_pattern".to_owned()));
    let changed = || (fs::read(program).unwrap() != binary).then(|| "the runtime's file".to_owned());
    // Mounts, cgroups and processes of the test: its end looks at them.
    evidence.or_else(changed)
}

/// The test of an escape: `body` tries it and gives the evidence if it came about. `what` is for the table.
pub fn attack(name: &str, what: &str, controls: &[Control], body: impl Fn(&mut Scene) -> Option<String>) {
    if !harness::is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let ours = judge(name, None, harness::runtime(), &body);
    let mut line = format!("{name}\t{what}\trrun\t{}", word(&ours));
    let (mut fallen, mut withstood) = (false, Vec::new());
    for control in controls {
        let Some(program) = control.program() else {
            println!("no control: {} is not installed", control.name());
            continue;
        };
        let evidence = judge(name, Some(*control), &program, &body);
        line.push_str(&format!("\t{}\t{}", control.name(), word(&evidence)));
        println!("{}: {}", control.name(), evidence.as_deref().unwrap_or("safe"));
        fallen |= evidence.is_some();
        if matches!(control, Weak(_)) && evidence.is_none() {
            withstood.push(control.name());
        }
    }
    record(&line);
    assert!(ours.is_none(), "{name}: escaped: {}", ours.unwrap_or_default());
    assert!(withstood.is_empty(), "{name}: {withstood:?} withstood it: the test proves nothing");
    if !fallen {
        eprintln!("skipped: needs a runtime that falls for it");
    }
}

fn word(evidence: &Option<String>) -> &'static str {
    if evidence.is_some() { "escaped" } else { "safe" }
}

/// A line for the table that `make test-attacks` prints.
fn record(line: &str) {
    println!("{line}");
    if let Some(path) = std::env::var_os("RRUN_ATTACKS") {
        let mut file = fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
        file.write_all(format!("{line}\n").as_bytes()).unwrap();
    }
}
