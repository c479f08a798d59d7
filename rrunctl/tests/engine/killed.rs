//! SIGKILL of rrunctl, of rrunmon, and of both, at random instants: no container is lost sight of, and what prune leaves
//! is nothing.
//!
//! `RRUNCTL_KILLS` is how many operations there are, `RRUNCTL_SEED` which ones: it is printed.

use crate::containers::{site, with_site};
use crate::harness::*;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// Nothing that is done here takes as long.
const HANGS: Duration = Duration::from_secs(60);

#[test]
fn whoever_is_killed_no_container_is_lost_and_prune_leaves_nothing() {
    alone(|| {
        let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect(name));
        let seed = number("RRUNCTL_SEED").unwrap_or_else(now);
        let operations = number("RRUNCTL_KILLS").unwrap_or(40);
        println!("RRUNCTL_SEED={seed} RRUNCTL_KILLS={operations}");
        let lo = Command::new("ip").args(["link", "set", "lo", "up"]).status();
        assert!(lo.expect("apt-get install iproute2").success());
        let engine = Engine::new();
        let mut world = World::new(&engine, seed);
        for _ in 0..operations {
            world.step();
        }
        world.ends();
        println!("{}", world.told());
    });
}

/// A runtime whose caller is killed as it comes to this command. Then it is rrun all the same, unless it was to start.
fn deadly(engine: &Engine, command: &str) -> Vec<String> {
    use std::os::unix::fs::PermissionsExt as _;
    let plain = engine.command(&[]);
    let words: Vec<&str> = plain.get_args().filter_map(|word| word.to_str()).collect();
    let at = words.iter().position(|word| *word == "--oci-runtime").expect("the harness names it") + 1;
    let path = engine.path(&format!("deadly-{command}"));
    let killing =
        format!("[ \"$word\" != {command} ] || {{ kill -9 $PPID; [ {command} = create ] || exit; }}");
    let script = format!("#!/bin/sh\nfor word; do {killing}; done\nexec {} \"$@\"\n", words[at]);
    fs::write(&path, script).expect("write");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("chmod");
    vec!["--oci-runtime".to_owned(), path.display().to_string()]
}

fn with(before: &[String], arguments: &[&str]) -> Vec<String> {
    [before, &words(arguments)].concat()
}

fn strs(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

fn status(engine: &Engine, name: &str) -> String {
    engine.prints(&["inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", name]).trim().to_owned()
}

/// What the processes of the host have on their command lines that is of the engine's.
fn at_work(engine: &Engine) -> Vec<String> {
    processes(&engine.dir).into_iter().map(|process| process.1).collect()
}

#[test]
fn a_container_whose_monitor_is_killed_before_it_runs_can_be_started_and_removed() {
    with_site(|engine| {
        for command in ["create", "start"] {
            let deadly = deadly(engine, command);
            let fails = |name: &str| {
                let output = engine.run(&strs(&with(&deadly, &["start", name])));
                let said = text(&output.stderr);
                assert_eq!(output.status.code(), Some(1), "{command}: {said}");
                // Who was making it has ended as well, and what waits is not what runs.
                eventually_so(|| !at_work(engine).iter().any(|line| line.contains(" create ")));
                assert!(!status(engine, name).starts_with("running"), "{command}");
                assert_eq!(engine.prints(&["ps", "-q"]), "");
            };
            for after in ["start", "restore", "rm"] {
                engine.prints(&["create", "--name", after, "-p", "127.0.0.1::80", "site", "sleep", "1000"]);
                fails(after);
                match after {
                    "start" => {
                        assert_eq!(engine.prints(&["start", after]), "start\n", "{command}");
                        assert_eq!(status(engine, after), "running 0");
                    }
                    "restore" => {
                        engine.prints(&["system", "restore"]);
                        assert!(!status(engine, after).starts_with("running"), "{command}");
                    }
                    _ => {}
                }
                assert_eq!(engine.prints(&["rm", "-f", after]), format!("{after}\n"));
                assert_eq!(fs::read_dir(engine.path("run/rrun")).expect("readdir").count(), 0, "{command}");
                assert_eq!(at_work(engine), Vec::<String>::new(), "{command}");
            }
        }
    });
}

#[test]
fn a_container_of_whose_end_nobody_knows_is_listed_and_restored_by_its_policy() {
    with_site(|engine| {
        let run = |name: &str, flag: &str| {
            engine.prints(&["run", "-d", "--name", name, flag, "site", "sleep", "1000"]);
        };
        run("gone", "--rm");
        run("kept", "--init");
        run("again", "--restart=always");
        let pid = engine.prints(&["inspect", "-f", "{{.State.Pid}}", "gone", "kept", "again"]);
        for monitor in processes(&engine.dir).into_iter().filter(Process::is_monitor) {
            pidfd_send_signal(&monitor.0, Signal::KILL).expect("killed");
        }
        eventually_so(|| at_work(engine).is_empty());
        assert_eq!(engine.prints(&["ps", "--format", "{{.Names}}"]), "again\nkept\ngone\n");
        for pid in pid.lines().map(|pid| Pid::from_raw(pid.parse().expect("a pid")).expect("a pid")) {
            rustix::process::kill_process(pid, Signal::KILL).expect("killed");
        }
        eventually_so(|| engine.prints(&["ps", "-q"]).is_empty());
        for name in ["gone", "kept", "again"] {
            assert_eq!(status(engine, name), "exited 255");
        }
        // `kept` has a monitor for a moment, which writes down what is known.
        engine.prints(&["system", "restore"]);
        eventually_so(|| engine.prints(&["ps", "-a", "--format", "{{.Names}}"]) == "again\nkept\n");
        assert_eq!(engine.prints(&["ps", "-a", "--format", "{{.Names}}"]), "again\nkept\n");
        eventually_so(|| status(engine, "again") == "running 0");
        assert_eq!(
            (status(engine, "kept").as_str(), status(engine, "again").as_str()),
            ("exited 255", "running 0")
        );
    });
}

/// A small tmpfs, which has everything that an engine keeps.
struct Small<'a>(&'a Engine);

impl<'a> Small<'a> {
    fn new(engine: &'a Engine) -> Self {
        use rustix::mount::{MountFlags, mount};
        fs::create_dir(engine.root()).expect("mkdir");
        let options = c"size=32m,nr_inodes=4096,mode=700";
        mount("small", engine.root(), "tmpfs", MountFlags::empty(), options).expect("mount");
        Self(engine)
    }

    /// Takes all bytes, and then all inodes.
    fn fill(&self) {
        let mut full = File::create(self.0.root().join("full")).expect("a file");
        while std::io::Write::write_all(&mut full, &[0; 4096]).is_ok() {}
        for n in 0.. {
            if File::create(self.0.root().join(format!("full{n}"))).is_err() {
                break;
            }
        }
        fs::create_dir(self.0.root().join("dir")).expect_err("no inode is left");
    }
}

impl Drop for Small<'_> {
    fn drop(&mut self) {
        self.0.run(&["rm", "-f", "stopped", "killed", "removed"]);
        rustix::mount::unmount(self.0.root(), rustix::mount::UnmountFlags::DETACH).expect("unmount");
    }
}

#[test]
fn on_a_full_disk_containers_are_still_stopped_killed_and_removed() {
    alone(|| {
        let engine = &Engine::new();
        let small = Small::new(engine);
        site(engine);
        for name in ["stopped", "killed", "removed"] {
            engine.prints(&["run", "-d", "--name", name, "--restart=always", "site", "sleep", "1000"]);
        }
        small.fill();
        assert_eq!(engine.prints(&["stop", "-t", "0", "stopped"]), "stopped\n");
        assert_eq!(engine.prints(&["kill", "killed"]), "killed\n");
        assert_eq!(engine.prints(&["rm", "-f", "removed"]), "removed\n");
        // What that has given back.
        small.fill();
        eventually_so(|| status(engine, "killed") == "exited 137");
        assert_eq!(status(engine, "stopped"), "exited 137");
        assert_eq!(status(engine, "killed"), "exited 137");
        assert_eq!(engine.prints(&["rm", "stopped", "killed"]), "stopped\nkilled\n");
        assert_eq!(engine.prints(&["ps", "-aq"]), "");
        assert_eq!(fs::read_dir(engine.root().join("tmp")).expect("readdir").count(), 0);
    });
}

#[test]
fn a_broken_container_hides_no_other_is_not_pruned_and_can_be_removed() {
    with_site(|engine| {
        engine.prints(&["run", "-d", "--name", "whole", "site", "sleep", "1000"]);
        let id = engine.prints(&["run", "-d", "--name", "broken", "-v", "/data", "site", "sleep", "1000"]);
        let id = id.trim();
        // As a power cut leaves it on some file systems.
        fs::write(engine.root().join("containers").join(id).join("config.v2.json"), "").expect("write");
        let output = engine.run(&["ps", "-a", "--format", "{{.Names}}"]);
        assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(1), "whole\n"));
        let said = text(&output.stderr);
        assert!(
            said.starts_with(&format!("Error: container {id}: ")) && said.contains("config.v2.json"),
            "{said}"
        );
        let refused = engine.refuses(&["rm", "broken"]);
        assert!(refused.contains("config.v2.json"), "{refused}");
        assert!(engine.refuses(&["volume", "prune", "-f"]).contains(id));
        let pruned = engine.run(&["system", "prune", "-f"]);
        assert!(text(&pruned.stderr).contains(id), "{}", text(&pruned.stderr));
        assert_eq!(at_work(engine).iter().filter(|line| line.contains(id)).count(), 1);
        let restored = engine.run(&["system", "restore"]);
        assert!(text(&restored.stderr).contains(id), "{}", text(&restored.stderr));
        assert_eq!(engine.prints(&["rm", "-f", "broken"]), "broken\n");
        assert_eq!(at_work(engine).iter().filter(|line| line.contains(id)).count(), 0);
        assert_eq!(engine.prints(&["ps", "-a", "--format", "{{.Names}}"]), "whole\n");
        engine.prints(&["create", "--name", "broken", "site"]);
        let swept = engine.prints(&["volume", "prune", "-f"]);
        assert!(swept.contains("Deleted Volumes"), "{swept}");
    });
}

#[test]
fn what_rm_has_is_not_flushed_starts_again_and_goes_where_a_power_cut_left_it_empty() {
    with_site(|engine| {
        let is_volatile = |before: &[&str]| {
            let mounts = engine.prints(&[before, &["cat", "/proc/mounts"]].concat());
            mounts.lines().any(|line| line.contains(" / ") && line.contains("volatile"))
        };
        assert!(is_volatile(&["run", "--rm", "site"]) && !is_volatile(&["run", "site"]));
        engine.prints(&["run", "-d", "--rm", "--name", "again", "site", "sleep", "1000"]);
        engine.prints(&["exec", "again", "sh", "-c", "echo made >/made"]);
        assert_eq!(engine.prints(&["restart", "-t", "0", "again"]), "again\n");
        assert!(is_volatile(&["exec", "again"]));
        assert_eq!(engine.prints(&["exec", "again", "cat", "/made"]), "made\n");

        engine.prints(&["rm", "-f", "again"]);
        engine.prints(&["container", "prune", "-f"]);
        for (name, left) in [("lost", ""), ("damaged", "{")] {
            let id = engine.prints(&["create", "--rm", "--name", name, "site"]);
            let record = engine.root().join("containers").join(id.trim()).join("config.v2.json");
            fs::write(record, left).expect("write");
        }
        // One that is broken otherwise is not ours to remove.
        let damaged = engine.run(&["system", "restore"]);
        let said = text(&damaged.stderr);
        assert_eq!((damaged.status.code(), said.matches("config.v2.json").count()), (Some(1), 1), "{said}");
        engine.prints(&["create", "--name", "lost", "site"]);
        assert_eq!(engine.prints(&["rm", "-f", "damaged"]), "damaged\n");
        assert_eq!(engine.prints(&["ps", "-a", "--format", "{{.Names}}"]), "lost\n");
    });
}

#[test]
fn a_monitor_that_is_stopped_hides_no_other_container() {
    with_site(|engine| {
        let id = engine.prints(&["run", "-d", "--name", "silent", "site", "sleep", "1000"]);
        engine.prints(&["create", "--name", "other", "site"]);
        let monitor = processes(&engine.dir).into_iter().find(Process::is_monitor).expect("its monitor");
        pidfd_send_signal(&monitor.0, Signal::STOP).expect("stopped");
        let output = engine.run(&["ps", "-a", "--format", "{{.Names}}"]);
        assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(1), "other\n"));
        let said = text(&output.stderr);
        let begin = format!("Error: container {}: ", id.trim());
        assert!(said.starts_with(&begin) && said.contains("alive but does not answer"), "{said}");
        // What may run is not pruned.
        let pruned = engine.prints(&["container", "prune", "-f"]);
        assert_eq!(pruned.lines().filter(|line| line.len() == 64).count(), 1, "{pruned}");
        pidfd_send_signal(&monitor.0, Signal::CONT).expect("goes on");
        assert_eq!(engine.prints(&["ps", "--format", "{{.Names}}"]), "silent\n");
    });
}

fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    since.as_micros() as u64
}

/// xorshift64*: which operation, and when it is killed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn one_of<T: Clone>(&mut self, all: &[T]) -> Option<T> {
        if all.is_empty() { None } else { Some(all[self.below(all.len())].clone()) }
    }
}

/// What is begun, and which container it is about.
#[derive(Debug)]
struct Operation {
    arguments: Vec<String>,
    about: Option<String>,
    /// Of it, nothing is expected from here on.
    removes: bool,
}

/// An engine, and what is known of it.
struct World<'a> {
    engine: &'a Engine,
    random: Random,
    /// The parent of all cgroups, a name below the root.
    parent: String,
    /// Those that must be listed.
    known: BTreeSet<String>,
    /// How long an operation takes that nobody kills.
    usual: BTreeMap<String, Duration>,
    /// What was done, for the one who reads of a failure.
    done: Vec<String>,
    killed: BTreeMap<&'static str, usize>,
}

impl Drop for World<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        println!("{}", self.told());
        for process in processes(&self.engine.dir) {
            let _ = pidfd_send_signal(&process.0, Signal::KILL);
        }
        for cgroup in cgroups(&self.parent) {
            let _ = fs::write(cgroup.join("freezer.state"), "THAWED");
            for pid in fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default().lines() {
                let pid = pid.parse().ok().and_then(Pid::from_raw);
                let _ = pid.map(|pid| rustix::process::kill_process(pid, Signal::KILL));
            }
        }
        eventually_so(|| cgroups(&self.parent).iter().all(|cgroup| fs::remove_dir(cgroup).is_ok()));
        for mount in mounts(&self.engine.dir) {
            let _ = rustix::mount::unmount(mount, rustix::mount::UnmountFlags::DETACH);
        }
        let _ = fs::remove_dir_all(self.engine.root().join("containers"));
    }
}

impl<'a> World<'a> {
    fn new(engine: &'a Engine, seed: u64) -> Self {
        let busybox = fs::read("/bin/busybox").expect("apt-get install busybox-static");
        let paths = ["busybox", "sh", "sleep"].map(|name| format!("bin/{name}"));
        let mut entries: Vec<(&str, &[u8], u32)> =
            vec![("bin/", b"", 0o755), ("data/", b"", 0o755), ("data/seed", b"of the image", 0o644)];
        entries.extend(paths.iter().map(|path| (path.as_str(), &busybox[..], 0o755)));
        let archive = tar(&entries);
        fs::write(engine.path("image.tar"), &archive).expect("write");
        fs::write(engine.path("file"), "a file").expect("write");
        let world = Self {
            engine,
            random: Random(seed.max(1)),
            parent: format!("rrunctl-killed-{}", std::process::id()),
            known: BTreeSet::new(),
            usual: BTreeMap::new(),
            done: Vec::new(),
            killed: BTreeMap::new(),
        };
        let import = world.import("site");
        engine.prints(&strs(&import));
        world
    }

    fn import(&self, name: &str) -> Vec<String> {
        let archive = self.engine.path("image.tar").display().to_string();
        words(&["import", "-c", "ENV PATH=/bin", "-c", "CMD [\"sh\"]", &archive, name])
    }

    /// The containers: name and id.
    fn listed(&self) -> Vec<(String, String)> {
        let rows = self.engine.prints(&["ps", "-a", "--no-trunc", "--format", "{{.Names}} {{.ID}}"]);
        let pair = |row: &str| row.split_once(' ').map(|(name, id)| (name.to_owned(), id.to_owned()));
        rows.lines().filter_map(pair).collect()
    }

    /// The names that a command prints, of those that are made here.
    fn names(&self, arguments: &[&str], first: char) -> Vec<String> {
        let text = self.engine.prints(arguments);
        text.lines().filter(|line| line.starts_with(first)).map(str::to_owned).collect()
    }

    fn told(&self) -> String {
        format!("{}\n{:?} of {} operations", self.done.join("\n"), self.killed, self.done.len())
    }

    /// Flags of `create` and `run`.
    fn flags(&mut self) -> Vec<String> {
        let mut flags = words(&["--cgroup-parent", &format!("/{}", self.parent), "--stop-timeout", "1"]);
        let networks = self.names(&["network", "ls", "--format", "{{.Name}}"], 'n');
        let networks: Vec<_> = networks.into_iter().filter(|name| name != "none").collect();
        if let (0, Some(network)) = (self.random.below(3), self.random.one_of(&networks)) {
            flags.extend(words(&["--network", &network]));
        }
        let volume = format!("v{}:/data", self.random.below(3));
        let more: [&[&str]; 8] = [
            &["-v", &volume],
            &["-v", "/data"],
            &["-p", "127.0.0.1::80"],
            &["--restart", "always"],
            &["--restart", "on-failure:2"],
            &["--init"],
            &["--ipc", "shareable"],
            &["-t"],
        ];
        for _ in 0..self.random.below(3) {
            let more = self.random.one_of(&more).expect("some");
            if !flags.iter().any(|flag| flag == more[0]) {
                flags.extend(words(more));
            }
        }
        flags
    }

    /// One that can be done, as far as is known: what is refused at once is hardly killed.
    fn operation(&mut self) -> Operation {
        const SCRIPT: &str = "trap 'exit 3' TERM; sleep 1000 & wait";
        let text =
            self.engine.prints(&["ps", "-a", "--no-trunc", "--format", "{{.Names}} {{.ID}} {{.State}}"]);
        let rows = text.lines().map(|row| row.split(' ').map(str::to_owned).collect::<Vec<_>>());
        let all: Vec<_> = rows.filter(|row| row[0].starts_with('k')).collect();
        let of_state = |states: &[&str]| -> Vec<_> {
            all.iter().filter(|row| states.contains(&row[2].as_str())).cloned().collect()
        };
        let (up, frozen) = (of_state(&["running"]), of_state(&["paused"]));
        let (up_or_frozen, down) = (of_state(&["running", "paused"]), of_state(&["created", "exited"]));
        let new = format!("k{}", self.random.below(10_000));
        let mut one = |of: &[Vec<String>]| self.random.one_of(of).map(|row| (row[0].clone(), row[1].clone()));
        // Of a container that is in a state for it; without one there is one to be made.
        let any = match one(&all) {
            Some(any) if all.len() > 2 => any,
            _ => return self.new_container(&new, SCRIPT),
        };
        let (up, frozen, busy, down) = (one(&up), one(&frozen), one(&up_or_frozen), one(&down));
        let about_none = |arguments: Vec<String>| Operation { arguments, about: None, removes: false };
        let about = |(_, id): &(String, String), arguments: &[&str]| Operation {
            arguments: words(arguments),
            about: Some(id.clone()),
            removes: arguments[0] == "rm",
        };
        let networks = self.names(&["network", "ls", "--format", "{{.Name}}"], 'n');
        let networks: Vec<_> = networks.into_iter().filter(|name| name != "none").collect();
        let network = self.random.one_of(&networks);
        let volume = format!("v{}", self.random.below(3));
        let made = format!("made{}", self.random.below(3));
        let what = self.random.below(42);
        match (what, up, busy, down) {
            (0..=4, ..) if all.len() > 8 => about(&any, &["rm", "-f", &any.0]),
            (0..=4, ..) => self.new_container(&new, SCRIPT),
            (5..=7, ..) => {
                let name = format!("g{}", self.random.below(10_000));
                let mut flags = self.flags();
                flags.retain(|flag| flag != "-t");
                if let Some(at) = flags.iter().position(|flag| flag == "--restart") {
                    flags.drain(at..at + 2);
                }
                let run = words(&["run", "--rm", "--name", &name]);
                about_none([run, flags, words(&["site", "sleep", "0.1"])].concat())
            }
            (8..=13, .., Some(down)) => about(&down, &["start", &down.0]),
            (14, _, Some(busy), _) => about(&busy, &["stop", "-t", "1", &busy.0]),
            (15..=16, _, Some(busy), _) => about(&busy, &["restart", "-t", "1", &busy.0]),
            (17, _, Some(busy), _) => about(&busy, &["kill", &busy.0]),
            (18, Some(up), ..) => about(&up, &["kill", "-s", "TERM", &up.0]),
            (19..=20, ..) => about(&any, &["rm", "-f", &any.0]),
            (21, _, Some(busy), _) => about(&busy, &["rm", "-fv", &busy.0]),
            (22, Some(up), ..) => about(&up, &["exec", &up.0, "sleep", "0.05"]),
            (23, Some(up), ..) => about(&up, &["exec", "-d", &up.0, "sleep", "1000"]),
            (24..=25, Some(up), ..) => about(&up, &["pause", &up.0]),
            (26, ..) if frozen.is_some() => {
                let frozen = frozen.expect("one is");
                about(&frozen, &["unpause", &frozen.0])
            }
            (27, ..) => {
                let to = format!("{}:/data/", any.0);
                about(&any, &["cp", &self.engine.path("file").display().to_string(), &to])
            }
            (28, ..) => {
                let out = self.engine.path("out").display().to_string();
                about(&any, &["cp", &format!("{}:/bin", any.0), &out])
            }
            (29, ..) => about(&any, &["commit", &any.0, &made]),
            (30, ..) if networks.len() < 4 => {
                let subnet = format!("10.77.{}.0/24", self.random.below(250));
                let name = format!("nw{}", self.random.below(10_000));
                about_none(words(&["network", "create", "--subnet", &subnet, &name]))
            }
            (31..=32, ..) if network.is_some() => {
                about(&any, &["network", "connect", &network.expect("one is"), &any.0])
            }
            (33, ..) if network.is_some() => {
                about(&any, &["network", "disconnect", "-f", &network.expect("one is"), &any.0])
            }
            (34, ..) if network.is_some() => about_none(words(&["network", "rm", &network.expect("one is")])),
            (35, ..) => {
                let verb = ["create", "rm"][self.random.below(2)];
                about_none(words(&["volume", verb, &volume]))
            }
            (36, ..) => about(&any, &["rename", &any.0, &new]),
            (37, ..) => about(&any, &["update", "--pids-limit", "100", &any.0]),
            (38, ..) if self.random.below(2) == 0 => about_none(words(&["rmi", "-f", &made])),
            (38, ..) => about_none(self.import(&made)),
            (39.., ..) => about_none(words(&["system", "restore"])),
            _ => self.new_container(&new, SCRIPT),
        }
    }

    fn new_container(&mut self, name: &str, script: &str) -> Operation {
        let verb = [&["create"][..], &["run", "-d"], &["run", "-d"]][self.random.below(3)];
        let script = if self.random.below(6) == 0 { "sleep 0.1; exit 1" } else { script };
        let (named, command) = (["--name", name], ["site", "sh", "-c", script]);
        let arguments = [words(verb), words(&named), self.flags(), words(&command)].concat();
        Operation { arguments, about: None, removes: false }
    }

    /// One operation, of which something is killed at some instant; and that everything is still in sight.
    fn step(&mut self) {
        let before: BTreeSet<String> = self.listed().into_iter().map(|(_, id)| id).collect();
        let operation = self.operation();
        if let (true, Some(id)) = (operation.removes, &operation.about) {
            self.known.remove(id);
        }
        let kind = operation.arguments.iter().take(2).cloned().collect::<Vec<_>>();
        let kind = match kind[0].as_str() {
            "network" | "volume" | "system" | "run" => kind.join(" "),
            _ => kind[0].clone(),
        };
        let (out, err) = (self.engine.path("stdout"), self.engine.path("stderr"));
        let mut command = self.engine.command(&strs(&operation.arguments));
        // Files, of which nobody who outlives it keeps the reader waiting.
        command.stdout(File::create(&out).expect("a file")).stderr(File::create(&err).expect("a file"));
        let begun = Instant::now();
        let mut child = command.spawn().expect("rrunctl starts");
        let whom = ["rrunctl", "rrunctl", "rrunctl", "rrunmon", "both", "all"][self.random.below(6)];
        // A little later than it usually ends, too: its monitor has something left to do then.
        let instant = match self.usual.get(&kind) {
            Some(usual) => {
                Duration::from_micros(self.random.next() % (usual.as_micros() as u64 * 11 / 10).max(1))
            }
            None => HANGS,
        };
        let ended = self.ends_within(&mut child, instant);
        let mut killed = Vec::new();
        if whom != "rrunctl" && instant < HANGS {
            let meant = |process: &Process| match &operation.about {
                _ if whom == "all" => true,
                Some(id) => process.is_monitor_of(id),
                None => process.is_monitor() && !before.iter().any(|id| process.is_monitor_of(id)),
            };
            let all = processes(&self.engine.dir).into_iter().filter(meant);
            let all = all.filter(|process| pidfd_send_signal(&process.0, Signal::KILL).is_ok());
            if all.count() > 0 {
                killed.push(if whom == "all" { "all" } else { "rrunmon" });
            }
        }
        if !ended && (whom == "rrunctl" || whom == "both") {
            child.kill().expect("kill");
            killed.push("rrunctl");
        }
        if !ended {
            assert!(self.ends_within(&mut child, HANGS), "{:?} hangs\n{}", operation.arguments, self.told());
        }
        let status = child.wait().expect("wait");
        if killed.is_empty() && status.success() {
            let (usual, now) = (self.usual.get(&kind).copied(), begun.elapsed());
            self.usual.insert(kind, usual.map_or(now, |usual| (usual * 3 + now) / 4));
        }
        let both = if killed.len() == 2 { "both" } else { killed.first().copied().unwrap_or("nobody") };
        *self.killed.entry(both).or_default() += 1;
        let (out, err) = (read(&out), read(&err));
        self.done.push(format!(
            "{} {}: {both} at {} us, {status} {out:?} {err:?}",
            self.done.len(),
            operation.arguments.join(" "),
            instant.as_micros(),
        ));
        assert!(!err.contains("panicked"), "{}", self.told());
        if matches!(operation.arguments[0].as_str(), "create" | "run") && out.trim().len() == 64 {
            self.known.insert(out.trim().to_owned());
        }
        self.all_in_sight();
    }

    fn ends_within(&self, child: &mut Child, time: Duration) -> bool {
        let pid = Pid::from_raw(child.id().cast_signed()).expect("a pid");
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).expect("pidfd_open");
        let mut fds = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
        let time = rustix::time::Timespec {
            tv_sec: time.as_secs().cast_signed(),
            tv_nsec: time.subsec_nanos().into(),
        };
        rustix::event::poll(&mut fds, Some(&time)).expect("poll") > 0
    }

    fn all_in_sight(&mut self) {
        let listed: BTreeSet<String> = self.listed().into_iter().map(|(_, id)| id).collect();
        let lost: Vec<_> = self.known.difference(&listed).collect();
        assert!(lost.is_empty(), "not listed: {lost:?}\n{}", self.told());
        // Who is listed once stays it, but for `--rm`.
        let stays = self.listed().into_iter().filter(|(name, _)| name.starts_with('k')).map(|(_, id)| id);
        self.known.extend(stays);
        let stray = || -> Vec<String> {
            let listed: BTreeSet<String> = self.listed().into_iter().map(|(_, id)| id).collect();
            let of_none = |text: &str| !listed.iter().any(|id| text.contains(id.as_str()));
            let monitors = processes(&self.engine.dir).into_iter().filter(Process::is_monitor);
            let monitors = monitors.map(|process| process.1).filter(|line| of_none(line));
            let cgroups = cgroups(&self.parent).into_iter().filter(|cgroup| {
                of_none(&cgroup.display().to_string()) && !read(&cgroup.join("cgroup.procs")).is_empty()
            });
            monitors.chain(cgroups.map(|cgroup| cgroup.display().to_string())).collect()
        };
        // Who ends it may need a moment for it.
        let mut left = stray();
        eventually_so(|| {
            left = if left.is_empty() { Vec::new() } else { stray() };
            left.is_empty()
        });
        assert!(left.is_empty(), "of no container that is listed: {left:#?}\n{}", self.told());
    }

    /// Everything is removed, and nothing is left.
    fn ends(&mut self) {
        let restored = self.engine.run(&["system", "restore"]);
        self.done.push(format!("system restore: {} {}", text(&restored.stdout), text(&restored.stderr)));
        self.all_in_sight();
        let ids: Vec<String> = self.listed().into_iter().map(|(_, id)| id).collect();
        self.known.clear();
        if !ids.is_empty() {
            let rm = [&["rm", "-f"][..], &strs(&ids)].concat();
            let removed = self.engine.run(&rm);
            assert!(removed.status.success(), "{}\n{}", text(&removed.stderr), self.told());
        }
        assert_eq!(self.listed(), [], "{}", self.told());
        let volumes = self.names(&["volume", "ls", "-q"], 'v');
        if !volumes.is_empty() {
            let rm = [&["volume", "rm"][..], &strs(&volumes)].concat();
            let removed = self.engine.run(&rm);
            assert!(removed.status.success(), "{}\n{}", text(&removed.stderr), self.told());
        }
        let pruned = self.engine.run(&["system", "prune", "-af", "--volumes"]);
        assert_eq!(
            (pruned.status.code(), text(&pruned.stderr).as_str()),
            (Some(0), ""),
            "system prune\n{}",
            self.told()
        );
        let mut left = self.left();
        let _ = fs::remove_dir(self.engine.path("out"));
        for cgroup in cgroups(&self.parent) {
            if cgroup.ends_with(&self.parent) && fs::remove_dir(&cgroup).is_ok() {
                continue;
            }
            left.push(cgroup.display().to_string());
        }
        assert!(left.is_empty(), "left by prune: {left:#?}\n{}", self.told());
    }

    /// What there should be nothing of.
    fn left(&self) -> Vec<String> {
        let dir = &self.engine.dir;
        let mut left: Vec<String> = processes(dir).into_iter().map(|process| process.1).collect();
        left.extend(mounts(dir).into_iter().map(|mount| format!("mounted: {}", mount.display())));
        for (program, arguments) in [("ip", &["-o", "link"][..]), ("nft", &["list", "ruleset"])] {
            let output = Command::new(program).args(arguments).output();
            let output =
                output.unwrap_or_else(|e| panic!("apt-get install iproute2 nftables: {program}: {e}"));
            assert!(output.status.success(), "{program}: {}", text(&output.stderr));
            let output = text(&output.stdout);
            left.extend(output.lines().filter(|line| !line.contains(": lo:")).map(str::to_owned));
        }
        for (of, allowed) in [
            ("root/tmp", &[][..]),
            ("root/names", &[".lock"]),
            ("root/containers", &[]),
            ("root/volumes", &[".lock"]),
            ("root/images", &[]),
            ("root/refs", &[]),
            ("root/layers", &[]),
            ("root/blobs/sha256", &[]),
            ("run", &["root", "rrun", "store"]),
            ("run/rrun", &[]),
        ] {
            let path = dir.join(of);
            for entry in fs::read_dir(&path).into_iter().flatten().flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                if !allowed.contains(&name.as_str()) {
                    left.push(entry.path().display().to_string());
                }
            }
        }
        // Those that there always are, without anybody's addresses.
        let networks = dir.join("root/networks");
        let mut ids = BTreeSet::new();
        let mut others = Vec::new();
        for entry in fs::read_dir(&networks).expect("readdir").flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            match name.strip_suffix(".json") {
                Some(id) => drop(ids.insert(id.to_owned())),
                None => others.push(name),
            }
        }
        if ids.len() > 3 {
            left.push(format!("networks: {ids:?}"));
        }
        for name in others.iter().filter(|name| ![".lock", ".firewall"].contains(&name.as_str())) {
            let of = name.strip_suffix(".lock").or_else(|| name.strip_suffix(".leases"));
            if !of.is_some_and(|id| ids.contains(id)) {
                left.push(networks.join(name).display().to_string());
            }
            if name.ends_with(".leases") {
                let leases = fs::read_dir(networks.join(name)).expect("readdir").flatten();
                let leases = leases.filter(|lease| lease.file_name() != ".boot");
                left.extend(leases.map(|lease| lease.path().display().to_string()));
            }
        }
        left
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

fn eventually_so(mut so: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(10);
    while !so() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A process and its command line.
struct Process(OwnedFd, String);

impl Process {
    fn is_monitor(&self) -> bool {
        self.1.split(' ').next().is_some_and(|program| program.ends_with("/rrunmon"))
    }

    fn is_monitor_of(&self, id: &str) -> bool {
        self.is_monitor() && self.1.contains(id)
    }
}

/// The processes that have the engine's directory on their command lines.
fn processes(dir: &Path) -> Vec<Process> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").expect("readdir").flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // Opened first: what is read after that is of this one, or of none.
        let Some(Ok(pidfd)) = Pid::from_raw(pid).map(|pid| pidfd_open(pid, PidfdFlags::empty())) else {
            continue;
        };
        let line = read(&entry.path().join("cmdline")).replace('\0', " ");
        if line.contains(&format!("{}/", dir.display())) {
            found.push(Process(pidfd, line));
        }
    }
    found
}

/// The cgroups of a parent in every hierarchy, those below first.
fn cgroups(parent: &str) -> Vec<PathBuf> {
    fn below(path: PathBuf, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(&path).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|of| of.is_dir()) {
                below(entry.path(), found);
            }
        }
        if path.exists() {
            found.push(path);
        }
    }
    let mut found = Vec::new();
    let root = Path::new("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(root).expect("readdir").flatten().map(|entry| entry.path());
    for hierarchy in hierarchies.chain([root.to_owned()]) {
        below(hierarchy.join(parent), &mut found);
    }
    found
}

/// What is mounted below a directory of the engine.
fn mounts(dir: &Path) -> Vec<PathBuf> {
    let text = read(Path::new("/proc/self/mountinfo"));
    let places = text.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    places.filter(|place| place.starts_with(dir)).collect()
}
