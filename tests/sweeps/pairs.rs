//! Two commands on one container at once, and many on many.
//!
//! What two commands may say to one another is little: the one that comes too late fails in one line and changes
//! nothing, and `delete --force` gets rid of whatever they have made of the container.

use crate::complaint;
use crate::harness::{Out, Test, ends_within, is_rrun, patiently};
use crate::scenes::{aftermath, scrub};
use serde_json::json;
use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// After which a command hangs.
const LIMIT: Duration = Duration::from_secs(5);

/// How the two may end.
#[derive(Clone, Copy)]
enum Legal {
    /// Exactly one succeeds, and the container is its.
    One,
    /// The second does, whatever becomes of the first.
    Second,
    /// Each may fail.
    Any,
}

struct Pair {
    name: &'static str,
    /// `ID` stands for the container's, `BUNDLE` for its bundle, as below.
    before: &'static [&'static [&'static str]],
    first: &'static [&'static str],
    second: &'static [&'static str],
    /// What the first may wait for once the second has ended, until it comes.
    then: &'static [&'static [&'static str]],
    legal: Legal,
}

const CREATE: &[&str] = &["create", "--bundle", "BUNDLE", "ID"];
const START: &[&str] = &["start", "ID"];
const KILL: &[&str] = &["kill", "ID", "KILL"];
const PAUSE: &[&str] = &["pause", "ID"];
const EXEC: &[&str] = &["exec", "ID", "true"];
const RESUME: &[&str] = &["resume", "ID"];
const RUN: &[&str] = &["run", "--bundle", "BUNDLE", "ID"];
const DETACH: &[&str] = &["run", "--detach", "--bundle", "BUNDLE", "ID"];
const DELETE: &[&str] = &["delete", "ID"];
const FORCE: &[&str] = &["delete", "--force", "ID"];
const LIST: &[&str] = &["list"];
const STATE: &[&str] = &["state", "ID"];
const UPDATE: &[&str] = &["update", "--pids-limit", "50", "ID"];
const STATS: &[&str] = &["events", "--stats", "ID"];
const CREATED: &[&[&str]] = &[CREATE];
const RUNNING: &[&[&str]] = &[CREATE, START];

const ENDED: &[&[&str]] = &[CREATE, START, KILL];

const PAIRS: [Pair; 22] = {
    use Legal::{Any, One, Second};
    const fn pair(
        name: &'static str,
        before: &'static [&'static [&'static str]],
        first: &'static [&'static str],
        second: &'static [&'static str],
        legal: Legal,
    ) -> Pair {
        Pair { name, before, first, second, then: &[], legal }
    }
    [
        pair("create and create", &[], CREATE, CREATE, One),
        pair("create and state", &[], CREATE, STATE, Any),
        pair("create and delete --force", &[], CREATE, FORCE, Second),
        // It may come before there is anything to delete.
        Pair { then: &[FORCE], ..pair("run and delete --force", &[], RUN, FORCE, Second) },
        pair("run --detach and delete --force", &[], DETACH, FORCE, Second),
        pair("start and start", CREATED, START, START, One),
        pair("start and delete --force", CREATED, START, FORCE, Second),
        pair("start and kill", CREATED, START, KILL, Second),
        // A process that is frozen neither answers nor ends.
        Pair { then: &[RESUME], ..pair("start and pause", CREATED, START, PAUSE, Second) },
        pair("exec and delete --force", RUNNING, EXEC, FORCE, Second),
        pair("exec and kill", RUNNING, EXEC, KILL, Second),
        Pair { then: &[RESUME], ..pair("exec and pause", RUNNING, EXEC, PAUSE, Second) },
        pair("pause and delete --force", RUNNING, PAUSE, FORCE, Second),
        pair("pause and resume", RUNNING, PAUSE, RESUME, Any),
        pair("kill and delete --force", RUNNING, KILL, FORCE, Second),
        pair("kill and delete", RUNNING, KILL, DELETE, Any),
        pair("delete and delete", ENDED, DELETE, DELETE, Any),
        pair("delete --force twice", RUNNING, FORCE, FORCE, Second),
        pair("delete --force and list", RUNNING, FORCE, LIST, Second),
        pair("delete --force and state", RUNNING, FORCE, STATE, Any),
        pair("update and delete --force", RUNNING, UPDATE, FORCE, Second),
        pair("events and delete --force", RUNNING, STATS, FORCE, Second),
    ]
};

fn words<'a>(t: &'a Test, of: &[&'a str]) -> Vec<&'a str> {
    let words = of.iter().map(|word| match *word {
        "ID" => t.id.as_str(),
        "BUNDLE" => t.bundle.to_str().unwrap(),
        word => word,
    });
    words.collect()
}

/// What is wrong with the end of a command that met another, or a `delete --force`.
fn unexpected(command: &[&str], out: &Out, forced: bool) -> Vec<String> {
    const LEGAL: [&str; 13] = [
        "container does not exist",
        "container with given ID already exists",
        "container is being created",
        "cannot start an already running container",
        "cannot start a container that has stopped",
        "cannot start a container in the",
        "container not running",
        // runc's words of `events`.
        "is not running",
        "container not paused",
        "cannot exec in a",
        // The same, noticed by the kernel.
        "has it just ended?",
        "that is not stopped",
        "another rrun works on container",
    ];
    let stderr = out.stderr();
    let mut wrong = complaint(&stderr);
    if out.took > patiently(LIMIT) {
        wrong.push(format!("it took {:?}", out.took));
    }
    // The status of a process that was killed; and delete --force stops a create that takes long.
    let killed = matches!(command, EXEC | RUN) && out.code == Some(137) && stderr.is_empty()
        || forced && matches!(command, CREATE | RUN | DETACH) && out.signal == Some(9) && stderr.is_empty();
    if is_rrun() && out.code != Some(0) && !killed && !LEGAL.iter().any(|legal| stderr.contains(legal)) {
        wrong.push(format!("{command:?} gave {:?} and {:?}: {}", out.code, out.signal, stderr.trim_end()));
    }
    wrong
}

fn number(variable: &str, otherwise: usize) -> usize {
    std::env::var(variable)
        .map_or(otherwise, |v| v.parse().unwrap_or_else(|_| panic!("{variable}: a number")))
}

fn meet(pair: &Pair, rounds: usize) {
    let t = Test::new("pair");
    t.sh("exec sleep 1000");
    t.create();
    t.end();
    let listing = t.rootfs_listing();
    let (mut violations, mut ends) = (0, BTreeMap::<_, usize>::new());
    // The second comes later from round to round, up to when the first has ended.
    let mut took = Duration::from_millis(10);
    for round in 0..rounds {
        for command in pair.before {
            t.rt(&words(&t, command)).go().ok();
        }
        let first = t.rt(&words(&t, pair.first)).spawn();
        std::thread::sleep(took * u32::try_from(round % 40).unwrap() / 40);
        let second = t.rt(&words(&t, pair.second)).spawn();
        let second = second.wait();
        while !pair.then.is_empty() && !ends_within(&first.child, took) {
            for command in pair.then {
                t.rt(&words(&t, command)).go();
            }
        }
        let first = first.wait();
        took = (took * 7 + first.took.min(took * 2)) / 8;
        let mut wrong = unexpected(pair.first, &first, matches!(pair.second, FORCE));
        wrong.extend(unexpected(pair.second, &second, false));
        let succeeded = (first.code == Some(0), second.code == Some(0));
        *ends.entry(succeeded).or_default() += 1;
        let legal = match pair.legal {
            Legal::One => succeeded.0 != succeeded.1,
            Legal::Second => succeeded.1,
            Legal::Any => true,
        };
        if !legal {
            wrong.push(format!(
                "they gave {:?} ({}) and {:?} ({})",
                first.code,
                first.stderr(),
                second.code,
                second.stderr()
            ));
        }
        if let Legal::One = pair.legal
            && t.rt(&["state", &t.id]).go().code != Some(0)
        {
            wrong.push("the winner's container is gone".into());
        }
        wrong.extend(aftermath(&t, &listing));
        if !wrong.is_empty() {
            println!("    {}, round {round}: {}", pair.name, wrong.join("; "));
            violations += 1;
            scrub(&t);
        }
    }
    println!(
        "{:<30} {rounds} rounds, {violations} violations; (first, second) succeeded: {ends:?}",
        pair.name,
    );
    assert!(violations == 0 || !is_rrun(), "{}: {violations} violations", pair.name);
}

/// `SWEEP_ROUNDS` says how many (1,000), and `SWEEP_PAIRS` which, as "pause and delete --force,start and kill": for a
/// finding that is looked at again.
#[test]
fn two_at_once() {
    let rounds = number("SWEEP_ROUNDS", 1000);
    let only = std::env::var("SWEEP_PAIRS").ok();
    let wanted =
        |pair: &&Pair| only.as_ref().is_none_or(|only| only.split(',').any(|name| name == pair.name));
    let pairs: Vec<_> = PAIRS.iter().filter(wanted).collect();
    assert!(!pairs.is_empty(), "SWEEP_PAIRS names none");
    // Several pairs at a time, as the two of a pair wait for one another, and for the kernel, more than they compute.
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                while let Some(pair) = pairs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if std::panic::catch_unwind(|| meet(pair, rounds)).is_err() {
                        failed.store(true, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    assert!(!failed.into_inner());
}

/// A sequence that is the same in every run (Marsaglia's xorshift).
struct Dice(u64);

impl Dice {
    fn throw(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(sides).unwrap()).unwrap()
    }
}

/// `SWEEP_CROWD` containers (200) for `SWEEP_SECONDS` (120), eight commands at a time.
#[test]
fn many_at_once() {
    let containers: Vec<_> = (0..number("SWEEP_CROWD", 200)).map(|_| Test::new("crowd")).collect();
    for t in &containers {
        t.sh("exec sleep 1000");
        // As runc, `list` takes no --root that is not there.
        fs::create_dir(&t.state).unwrap();
    }
    let seconds = u64::try_from(number("SWEEP_SECONDS", 120)).unwrap();
    let end = Instant::now() + Duration::from_secs(seconds);
    let commands =
        [CREATE, CREATE, START, START, EXEC, EXEC, PAUSE, RESUME, KILL, STATE, LIST, UPDATE, FORCE];
    let (done, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for seed in 1..=8 {
            let (containers, done, failed) = (&containers, &done, &failed);
            scope.spawn(move || {
                let mut dice = Dice(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed));
                while Instant::now() < end {
                    let t = &containers[dice.throw(containers.len())];
                    let command = commands[dice.throw(commands.len())];
                    let running = t.rt(&words(t, command)).spawn();
                    // What it waits for may be frozen.
                    while !ends_within(&running.child, Duration::from_secs(1)) {
                        t.rt(&words(t, RESUME)).go();
                    }
                    let wrong = unexpected(command, &running.wait(), true);
                    done.fetch_add(1, Ordering::Relaxed);
                    if !wrong.is_empty() {
                        failed.store(true, Ordering::Relaxed);
                        println!("    {}: {}", t.id, wrong.join("; "));
                    }
                }
            });
        }
    });
    for t in &containers {
        let wrong = aftermath(t, &t.rootfs_listing());
        if !wrong.is_empty() {
            failed.store(true, Ordering::Relaxed);
            println!("    {}: {}", t.id, wrong.join("; "));
        }
    }
    println!("{} commands on {} containers in {seconds} s", done.into_inner(), containers.len());
    assert!(!failed.into_inner() || !is_rrun());
}

/// Of fifty commands on a running container each does what it does alone.
#[test]
fn fifty_exec_at_once() {
    let t = Test::new("fifty");
    t.sh("exec sleep 1000");
    t.create();
    t.start();
    for _ in 0..number("SWEEP_ROUNDS", 1000).div_ceil(50) {
        let all: Vec<_> = (0..50_u8)
            .map(|n| (n, t.rt(&["exec", &t.id, "sh", "-c", &format!("echo {n}; exit {n}")]).spawn()))
            .collect();
        for (n, running) in all {
            let out = running.wait();
            out.code_is(n.into());
            assert_eq!((out.stdout(), out.stderr()), (format!("{n}\n"), String::new()));
            assert!(out.took < patiently(LIMIT), "{out:?}");
        }
    }
    t.end();
}

/// gVisor #10724: a create of an id that is in use took the container's files away.
#[test]
fn three_creates_too_many_at_once() {
    let t = Test::new("late");
    t.sh("exec sleep 1000");
    t.create();
    let before = (t.state(), t.cgroup("pids"), t.rootfs_listing());
    for _ in 0..number("SWEEP_ROUNDS", 1000).div_ceil(10) {
        let late: Vec<_> = (0..3).map(|_| t.bundle_command("create", &[]).spawn()).collect();
        for out in late.into_iter().map(|running| running.wait()) {
            out.fails("already exists").one_line();
        }
        assert_eq!((t.state(), t.cgroup("pids"), t.rootfs_listing()), before);
    }
    t.start();
    t.exec(&["true"]).ok();
    t.rt(&["delete", "--force", &t.id]).go().ok();
    // containerd deletes twice.
    t.rt(&["delete", &t.id]).go().fails("does not exist").one_line();
    t.rt(&["delete", "--force", &t.id]).go().ok();
    t.nothing_left();
}

/// runc #4543: both make the same mount points.
#[test]
fn two_containers_of_one_rootfs_at_once() {
    let t = Test::new("shared");
    t.sh("exec sleep 1000");
    let mount = |destination: &str| json!({ "destination": destination, "type": "tmpfs", "source": "tmpfs" });
    t.add_mount(mount("/deep/below/mount")).add_mount(mount("/flat"));
    let before = t.rootfs_listing();
    let mut after = None;
    for _ in 0..number("SWEEP_ROUNDS", 1000) {
        let ids = ["one", "other"].map(|which| format!("{}-{which}", t.id));
        let create = |id: &String| t.rt(&["create", "--bundle", t.bundle.to_str().unwrap(), id]).spawn();
        for out in ids.each_ref().map(create).map(|running| running.wait()) {
            out.ok();
        }
        for id in &ids {
            t.rt(&["start", id]).go().ok();
            t.rt(&["exec", id, "grep", "-q", " /deep/below/mount ", "/proc/mounts"]).go().ok();
            t.rt(&["delete", "--force", id]).go().ok();
        }
        t.nothing_left();
        let made = t.rootfs_listing();
        assert_eq!(*after.get_or_insert_with(|| made.clone()), made);
        fs::remove_dir_all(t.rootfs.join("deep")).unwrap();
        fs::remove_dir(t.rootfs.join("flat")).unwrap();
        assert_eq!(t.rootfs_listing(), before);
    }
}
