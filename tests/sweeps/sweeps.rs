//! The runtime hurt on purpose, at every system call of every command: by a SIGKILL of itself, of the process that it
//! makes, and by an error of the kernel's. `RRUN` names a runtime, so that the peers' figures come from the same code.

#![allow(clippy::unwrap_used, reason = "a test panics to fail")]
#![allow(clippy::disallowed_methods, reason = "the tests write only into their own directories")]

mod faults; // a call fails
#[path = "../harness.rs"]
#[allow(dead_code, reason = "a part of it")]
mod harness;
mod pairs; // two commands at once, and many
mod scenes; // the commands
mod soak; // thousands of lifecycles
mod tracer; // ptrace

use harness::{Test, is_rrun};
use nix::sys::signal::Signal;
use scenes::{SCENES, Scene, aftermath, left, scrub, seen};
use tracer::{Deed, Point, trace};

/// What a sweep over one command has seen.
#[derive(Default)]
struct Tally {
    sweep: &'static str,
    scene: &'static str,
    points: usize,
    clean: usize,
    /// Not come to in that run: a peer with threads does not make the same calls twice.
    missed: usize,
    wrong: usize,
}

impl Tally {
    fn of(sweep: &'static str, scene: &Scene) -> Self {
        Self { sweep, scene: scene.name, ..Self::default() }
    }

    fn add(&mut self, what: &str, reached: bool, wrong: Vec<String>) {
        match (reached, wrong.is_empty()) {
            (false, true) => {
                self.missed += 1;
                if is_rrun() {
                    println!("    {} {}: {what}: not reached", self.sweep, self.scene);
                }
            }
            (_, true) => (self.points, self.clean) = (self.points + 1, self.clean + 1),
            (_, false) => {
                self.points += 1;
                // At once: who ends a sweep of minutes has seen what it found.
                println!("    {} {}: {what}: {}", self.sweep, self.scene, wrong.join("; "));
                self.wrong += 1;
            }
        }
    }

    /// The line for the table, and the judgment if it is rrun's.
    fn tell(self) {
        let Self { sweep, scene, points, clean, missed, wrong } = self;
        println!("{sweep:<6} {scene:<15} {clean:>5} of {points:>5} clean, {missed} not reached");
        assert!(points > 0, "{scene}: nothing was reached");
        assert!(wrong == 0 || !is_rrun(), "{scene}: {wrong} points are not clean");
    }
}

/// The calls of an undisturbed command, the rootfs after it, and what it made.
fn rehearse(scene: &Scene, t: &Test) -> (Vec<Point>, String, String) {
    scene.prepare(t);
    let traced = trace(t, scene.command(t), scene.init(t), None);
    assert!(traced.succeeded(), "{}: {traced:?}", scene.name);
    let told = traced.stdout + &seen(t);
    t.rt(&["delete", "--force", &t.id]).go().ok();
    t.nothing_left();
    (traced.points, t.rootfs_listing(), told)
}

/// Every one of `SWEEP_SAMPLE` (1, all of them): what there is time for beside other tests.
fn sampled<T>(all: impl Iterator<Item = T>) -> impl Iterator<Item = T> {
    let every = std::env::var("SWEEP_SAMPLE").map_or(1, |n| n.parse().expect("SWEEP_SAMPLE: a number"));
    all.step_by(every)
}

/// Which processes of a command are hurt.
#[derive(Clone, Copy)]
enum Victim {
    Runtime,
    Child,
}

fn kills(name: &str, victim: Victim) {
    let scene = SCENES.iter().find(|scene| scene.name == name).unwrap();
    let t = scene.bundle();
    let (points, listing, _) = rehearse(scene, &t);
    let mut tally = Tally::of(if let Victim::Runtime = victim { "kill" } else { "init" }, scene);
    let wanted = |point: &&Point| match victim {
        Victim::Runtime => point.process == 0,
        Victim::Child => point.process > 0,
    };
    for &point in sampled(points.iter().filter(wanted)) {
        scene.prepare(&t);
        let traced = trace(&t, scene.command(&t), scene.init(&t), Some((point, Deed::Kill)));
        let mut wrong = Vec::new();
        if traced.hung {
            wrong.push("it hung".to_owned());
        }
        if let Victim::Child = victim
            && traced.reached
            && !traced.hung
        {
            wrong.extend(complaint(&traced.stderr));
            // runtime.md: an error leaves the environment as if nothing had been tried.
            if scene.creates && !traced.succeeded() {
                wrong.extend(left(&t).into_iter().map(|left| format!("at once: {left}")));
            }
        }
        wrong.extend(aftermath(&t, &listing));
        if !wrong.is_empty() {
            scrub(&t);
        }
        tally.add(&point.to_string(), traced.reached, wrong);
    }
    tally.tell();
}

/// The signals by which callers end a runtime, one after the other along its calls. It may heed them or not.
fn signals(name: &str) {
    let scene = SCENES.iter().find(|scene| scene.name == name).unwrap();
    let t = scene.bundle();
    let (points, listing, _) = rehearse(scene, &t);
    let mut tally = Tally::of("signal", scene);
    let signals = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP].into_iter().cycle();
    for (&point, signal) in sampled(points.iter().filter(|point| point.process == 0).zip(signals)) {
        scene.prepare(&t);
        let traced = trace(&t, scene.command(&t), scene.init(&t), Some((point, Deed::Signal(signal))));
        let mut wrong = complaint(&traced.stderr);
        if traced.hung {
            wrong.push("it hung".to_owned());
        }
        wrong.extend(aftermath(&t, &listing));
        if !wrong.is_empty() {
            scrub(&t);
        }
        tally.add(&format!("{signal} at {point}"), traced.reached, wrong);
    }
    tally.tell();
}

/// What is wrong with an error message, if there is one.
fn complaint(stderr: &str) -> Vec<String> {
    let text = stderr.trim_end();
    let mut wrong = Vec::new();
    if text.contains("panicked") || text.contains("goroutine") {
        wrong.push(format!("it panicked: {text}"));
    }
    if is_rrun() && text.lines().count() > 1 {
        wrong.push(format!("more than a line: {text}"));
    }
    wrong
}

macro_rules! each {
    ($module:ident, $sweep:path: $($test:ident $name:literal),* $(,)?) => {
        mod $module {
            $(#[test] fn $test() {
                crate::requires!(
                    $name != "update" || ["memory", "cpu", "pids"].iter().all(|c| crate::scenes::has_controller(c)),
                    "needs the controllers memory, cpu and pids"
                );
                $sweep($name);
            })*
        }
    };
}

fn killed_itself(name: &str) {
    kills(name, Victim::Runtime);
}

fn child_killed(name: &str) {
    kills(name, Victim::Child);
}

each!(killed, crate::killed_itself:
    create "create", start "start", run "run", run_detach "run --detach", exec "exec", exec_detach "exec --detach",
    kill "kill", pause "pause", resume "resume", update "update", delete "delete", delete_force "delete --force");
each!(init_killed, crate::child_killed:
    create "create", start "start", run "run", run_detach "run --detach", exec "exec", exec_detach "exec --detach");
each!(signalled, crate::signals:
    create "create", start "start", run "run", run_detach "run --detach", exec "exec", delete_force "delete --force");
each!(refused, crate::faults::sweep:
    create "create", start "start", run "run", run_detach "run --detach", exec "exec", exec_detach "exec --detach",
    kill "kill", pause "pause", resume "resume", update "update", delete "delete", delete_force "delete --force");
