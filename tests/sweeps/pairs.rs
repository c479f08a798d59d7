//! Two commands on one container at once, and many on many.
//!
//! What two commands may say to one another is little: the one that comes too late fails in one line and changes
//! nothing, and `delete --force` gets rid of whatever they have made of the container.

use crate::complaint;
use crate::harness::{Out, Test, is_rrun, patiently};
use crate::scenes::{aftermath, left, scrub};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// After which a command hangs.
const LIMIT: Duration = Duration::from_secs(5);

/// How the two may end.
#[derive(Clone, Copy)]
enum Legal {
    /// Exactly one succeeds.
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
    legal: Legal,
}

const CREATE: &[&str] = &["create", "--bundle", "BUNDLE", "ID"];
const START: &[&str] = &["start", "ID"];
const KILL: &[&str] = &["kill", "ID", "KILL"];
const PAUSE: &[&str] = &["pause", "ID"];
const EXEC: &[&str] = &["exec", "ID", "true"];
const FORCE: &[&str] = &["delete", "--force", "ID"];
const LIST: &[&str] = &["list"];
const STATE: &[&str] = &["state", "ID"];
const UPDATE: &[&str] = &["update", "--pids-limit", "50", "ID"];
const STATS: &[&str] = &["events", "--stats", "ID"];
const CREATED: &[&[&str]] = &[CREATE];
const RUNNING: &[&[&str]] = &[CREATE, START];

const PAIRS: [Pair; 15] = {
    use Legal::{Any, One, Second};
    const fn pair(
        name: &'static str,
        before: &'static [&'static [&'static str]],
        first: &'static [&'static str],
        second: &'static [&'static str],
        legal: Legal,
    ) -> Pair {
        Pair { name, before, first, second, legal }
    }
    [
        pair("create and create", &[], CREATE, CREATE, One),
        pair("create and delete --force", &[], CREATE, FORCE, Any),
        pair("start and start", CREATED, START, START, One),
        pair("start and delete --force", CREATED, START, FORCE, Second),
        pair("start and kill", CREATED, START, KILL, Any),
        pair("exec and delete --force", RUNNING, EXEC, FORCE, Second),
        pair("exec and kill", RUNNING, EXEC, KILL, Second),
        pair("exec and pause", RUNNING, EXEC, PAUSE, Any),
        pair("pause and delete --force", RUNNING, PAUSE, FORCE, Second),
        pair("kill and delete --force", RUNNING, KILL, FORCE, Second),
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

/// What a command that met another may say.
fn unexpected(out: &Out) -> Vec<String> {
    const LEGAL: [&str; 9] = [
        "does not exist",
        "already exists",
        "already running",
        "has stopped",
        "not running",
        "not paused",
        "paused",
        "in use",
        "is being",
    ];
    let stderr = out.stderr();
    let mut wrong = complaint(&stderr);
    if out.took > patiently(LIMIT) {
        wrong.push(format!("it took {:?}", out.took));
    }
    if is_rrun() && out.code != Some(0) && !LEGAL.iter().any(|legal| stderr.contains(legal)) {
        wrong.push(format!("{:?} and {:?}: {}", out.code, out.signal, stderr.trim_end()));
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
    let (mut violations, mut ends) = (Vec::new(), BTreeMap::<_, usize>::new());
    // The second comes later from round to round, up to when the first has ended.
    let mut took = Duration::from_millis(10);
    for round in 0..rounds {
        for command in pair.before {
            t.rt(&words(&t, command)).go().ok();
        }
        let first = t.rt(&words(&t, pair.first)).spawn();
        std::thread::sleep(took * u32::try_from(round % 40).unwrap() / 40);
        let second = t.rt(&words(&t, pair.second)).spawn();
        let (first, second) = (first.wait(), second.wait());
        took = (took * 7 + first.took) / 8;
        let mut wrong = unexpected(&first);
        wrong.extend(unexpected(&second));
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
            violations.push(format!("round {round}: {}", wrong.join("; ")));
            scrub(&t);
        }
    }
    println!(
        "{:<26} {rounds} rounds, {} violations; (first, second) succeeded: {ends:?}",
        pair.name,
        violations.len()
    );
    for line in violations.iter().take(10) {
        println!("    {line}");
    }
    assert!(violations.is_empty() || !is_rrun(), "{}: {} violations", pair.name, violations.len());
}

/// `SWEEP_ROUNDS` says how many (1,000).
#[test]
fn two_at_once() {
    let rounds = number("SWEEP_ROUNDS", 1000);
    // Two at a time, as the pairs wait for one another more than they compute.
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(pair) = PAIRS.get(next.fetch_add(1, Ordering::Relaxed)) {
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
    }
    let seconds = u64::try_from(number("SWEEP_SECONDS", 120)).unwrap();
    let end = Instant::now() + Duration::from_secs(seconds);
    let commands = [
        CREATE,
        CREATE,
        START,
        START,
        EXEC,
        EXEC,
        PAUSE,
        &["resume", "ID"],
        KILL,
        STATE,
        LIST,
        UPDATE,
        FORCE,
    ];
    let (done, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for seed in 1..=8 {
            let (containers, done, failed) = (&containers, &done, &failed);
            scope.spawn(move || {
                let mut dice = Dice(seed * 0x9e37_79b9_7f4a_7c15);
                while Instant::now() < end {
                    let t = &containers[dice.throw(containers.len())];
                    let command = commands[dice.throw(commands.len())];
                    let wrong = unexpected(&t.rt(&words(t, command)).go());
                    done.fetch_add(1, Ordering::Relaxed);
                    if !wrong.is_empty() {
                        failed.store(true, Ordering::Relaxed);
                        println!("    {command:?} of {}: {}", t.id, wrong.join("; "));
                    }
                }
            });
        }
    });
    for t in &containers {
        t.rt(&["delete", "--force", &t.id]).go().ok();
        let left = left(t);
        if !left.is_empty() {
            failed.store(true, Ordering::Relaxed);
            println!("    left: {}", left.join("; "));
        }
    }
    println!("{} commands on {} containers in {seconds} s", done.into_inner(), containers.len());
    assert!(!failed.into_inner() || !is_rrun());
}
