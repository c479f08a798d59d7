//! The measurements. In each the runtimes take turns, so that what the machine does meanwhile is shared by all.

use crate::bundle::{self, Bundle};
use crate::phases;
use crate::runtime::{Floor, Runtime, end, waited};
use rustix::process::{WaitOptions, wait};
use serde_json::json;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

pub struct Bench {
    /// The first is the one that the others are compared with.
    pub runtimes: Vec<Runtime>,
    pub floor: Floor,
    pub rounds: usize,
    /// Milliseconds.
    pub pauses: Vec<u64>,
    pub dir: PathBuf,
    /// Every container's name begins with it.
    pub prefix: String,
}

/// Of one command of one runtime: milliseconds, and why it failed.
#[derive(Default)]
pub struct Series {
    pub times: Vec<f64>,
    pub failures: Vec<String>,
}

/// The nearest-rank quantile.
pub fn quantile(times: &[f64], q: f64) -> Option<f64> {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get((q * sorted.len().saturating_sub(1) as f64).round() as usize).copied()
}

pub fn median(times: &[f64]) -> Option<f64> {
    quantile(times, 0.5)
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    pub bundle: &'static str,
    pub pause: u64,
    pub what: &'static str,
    /// A runtime's name, or `floor`.
    pub who: String,
}

#[derive(Default)]
pub struct Lifecycles(pub BTreeMap<Key, Series>);

/// What is done in the order of the table.
pub const COMMANDS: [&str; 12] = [
    "run",
    "create",
    "start",
    "delete --force",
    "create + start + delete --force",
    "exec",
    "state",
    "list",
    "update",
    "pause + resume",
    "kill",
    "delete",
];

/// One turn: a bundle, after a pause.
struct Turn<'a> {
    bench: &'a Bench,
    bundle: &'a Bundle,
    pause: u64,
    round: usize,
    /// Indices of runtimes, then that of the floor.
    order: Vec<usize>,
    found: &'a mut Lifecycles,
}

impl Bench {
    pub fn lifecycles(&self, bundles: &[Bundle]) -> Lifecycles {
        let mut found = Lifecycles::default();
        for round in 0..self.rounds {
            for (at, &pause) in self.pauses.iter().enumerate() {
                for bundle in bundles.iter().filter(|bundle| at == 0 || bundle.thorough) {
                    let mut order: Vec<_> = (0..=self.runtimes.len()).collect();
                    order.rotate_left(round % (self.runtimes.len() + 1));
                    if bundle.name != "default" {
                        order.retain(|who| *who < self.runtimes.len());
                    }
                    let mut turn = Turn { bench: self, bundle, pause, round, order, found: &mut found };
                    turn.run();
                    turn.cycle();
                    if bundle.thorough {
                        turn.running();
                    }
                }
            }
            eprint!("\rround {} of {}", round + 1, self.rounds);
        }
        eprintln!();
        found
    }

    /// Milliseconds of `run` of the bundle, again, for each of `whose`.
    pub fn runs(&self, bundle: &Bundle, rounds: usize, whose: &[usize]) -> Vec<Vec<f64>> {
        let mut found = Lifecycles::default();
        for round in 0..rounds {
            let mut order = whose.to_vec();
            order.rotate_left(round % whose.len());
            Turn { bench: self, bundle, pause: 0, round, order, found: &mut found }.run();
        }
        let mut times = |who: &usize| {
            let key = Key { bundle: bundle.name, pause: 0, what: "run", who: self.name(*who) };
            found.0.remove(&key).unwrap_or_default().times
        };
        whose.iter().map(&mut times).collect()
    }

    /// Of a runtime, by its index; the floor comes after them.
    pub fn name(&self, who: usize) -> String {
        self.runtimes.get(who).map_or("floor".to_owned(), |runtime| runtime.name.clone())
    }
}

impl Turn<'_> {
    fn id(&self, who: usize) -> String {
        format!("{}{}-{}", self.bench.prefix, self.bench.name(who), self.round)
    }

    /// What fails at once, or three times, is not tried again.
    fn failed(&self, who: usize, what: &'static str) -> bool {
        let series = self.found.0.get(&self.key(who, what));
        series.is_some_and(|s| !s.failures.is_empty() && s.times.is_empty() || s.failures.len() > 2)
    }

    fn key(&self, who: usize, what: &'static str) -> Key {
        Key { bundle: self.bundle.name, pause: self.pause, what, who: self.bench.name(who) }
    }

    fn record(&mut self, who: usize, what: &'static str, time: Result<f64, String>) {
        let series = self.found.0.entry(self.key(who, what)).or_default();
        match time {
            Ok(time) => series.times.push(time),
            Err(why) => series.failures.push(why),
        }
    }

    fn wait(&self) {
        thread::sleep(Duration::from_millis(self.pause));
    }

    /// `words` of a runtime's command line, with the container's name after them.
    fn about(&self, runtime: &Runtime, words: &[&str], id: &str) -> Result<f64, String> {
        runtime.time(runtime.command(self.bundle.rootless, &[words, &[id]].concat()))
    }

    fn made(&self, runtime: &Runtime, verb: &[&str], at: &Path, id: &str) -> Result<f64, String> {
        runtime.time(runtime.new_container(verb, at, self.bundle.rootless, id))
    }

    fn run(&mut self) {
        for who in self.order.clone() {
            if self.failed(who, "run") {
                continue;
            }
            let id = self.id(who);
            self.wait();
            let time = match self.bench.runtimes.get(who) {
                None => self.bench.floor.run(&id),
                Some(runtime) => self.made(runtime, &["run"], &self.bundle.ends(), &id),
            };
            if let (Err(_), Some(runtime)) = (&time, self.bench.runtimes.get(who)) {
                let _ = self.about(runtime, &["delete", "--force"], &id);
            }
            self.record(who, "run", time);
        }
    }

    fn cycle(&mut self) {
        const SUM: &str = "create + start + delete --force";
        let bench = self.bench;
        let mut sums = vec![0.0; bench.runtimes.len() + 1];
        let mut pids = vec![None; bench.runtimes.len()];
        let mut order = self.order.clone();
        order.retain(|who| !self.failed(*who, SUM));
        for what in ["create", "start", "delete --force"] {
            for who in order.clone() {
                let id = self.id(who);
                self.wait();
                let time = match (bench.runtimes.get(who), what) {
                    (Some(runtime), "create") => {
                        let time = self.made(runtime, &["create"], &self.bundle.stays(), &id);
                        pids[who] = runtime.pid(self.bundle.rootless, &id);
                        time
                    }
                    (Some(runtime), "start") => self.about(runtime, &["start"], &id),
                    (Some(runtime), _) => {
                        let time = self.about(runtime, &["delete", "--force"], &id);
                        end(pids[who]);
                        time
                    }
                    (None, "create") => bench.floor.create(&id),
                    (None, "start") => bench.floor.start(),
                    (None, _) => bench.floor.delete(&id),
                };
                match &time {
                    Ok(time) => sums[who] += time,
                    Err(why) => {
                        self.record(who, SUM, Err(format!("{what}: {why}")));
                        order.retain(|other| *other != who);
                        if let Some(runtime) = bench.runtimes.get(who) {
                            let _ = self.about(runtime, &["delete", "--force"], &id);
                            end(pids[who]);
                        }
                    }
                }
                self.record(who, what, time);
            }
        }
        for who in order {
            self.record(who, SUM, Ok(sums[who]));
        }
    }

    /// What is done to a container that runs.
    fn running(&mut self) {
        let bench = self.bench;
        let mut pids = vec![None; bench.runtimes.len()];
        for (who, runtime) in bench.runtimes.iter().enumerate() {
            let id = self.id(who);
            match self.made(runtime, &["run", "--detach"], &self.bundle.stays(), &id) {
                Ok(_) => pids[who] = runtime.pid(self.bundle.rootless, &id),
                Err(_) => drop(self.about(runtime, &["delete", "--force"], &id)),
            }
        }
        let all = ["exec", "state", "list", "update", "pause + resume", "kill", "delete"];
        for what in if self.bundle.name == "default" { &all[..] } else { &all[..1] } {
            for who in self.order.clone() {
                let id = self.id(who);
                let Some(runtime) = bench.runtimes.get(who) else {
                    if let (&"exec", Some(pid)) = (what, pids[0]) {
                        self.wait();
                        let time = bench.floor.exec(&self.id(0), pid);
                        self.record(who, what, time);
                    }
                    continue;
                };
                if pids[who].is_none() || self.failed(who, what) {
                    continue;
                }
                self.wait();
                let time = match *what {
                    "exec" => runtime.time(runtime.command(false, &["exec", &id, "/bin/true"])),
                    "list" => runtime.time(runtime.command(false, &["list"])),
                    "update" => {
                        let limit = if self.round.is_multiple_of(2) { "100" } else { "200" };
                        self.about(runtime, &["update", "--pids-limit", limit], &id)
                    }
                    "pause + resume" => self.about(runtime, &["pause"], &id).and_then(|first| {
                        self.wait();
                        Ok(first + self.about(runtime, &["resume"], &id)?)
                    }),
                    "kill" => {
                        let time = runtime.time(runtime.command(false, &["kill", &id, "KILL"]));
                        end(pids[who]);
                        time
                    }
                    other => self.about(runtime, &[other], &id),
                };
                if *what == "delete" && time.is_ok() {
                    pids[who] = None;
                }
                self.record(who, what, time);
            }
        }
        for (who, runtime) in bench.runtimes.iter().enumerate() {
            if pids[who].is_some() {
                let _ = self.about(runtime, &["delete", "--force"], &self.id(who));
                end(pids[who]);
            }
        }
    }
}

/// What a `run` of /bin/true with the default spec takes beside time.
pub struct Cost {
    pub who: String,
    /// Bytes.
    pub binary: u64,
    /// KiB.
    pub peak: Option<u64>,
    pub faults: Option<u64>,
    pub syscalls: Option<usize>,
    pub processes: Option<usize>,
    /// Bytes: the smallest linux.resources.memory.limit with which it succeeds.
    pub memory: Option<u64>,
}

impl Bench {
    pub fn costs(&self, default: &Bundle) -> io::Result<Vec<Cost>> {
        let costs = self.runtimes.iter().map(|runtime| {
            let id = format!("{}cost", self.prefix);
            let run = runtime.new_container(&["run"], &default.ends(), false, &id);
            let out = self.dir.join("cost");
            let spent = runtime.time(under(&[&self.floor.program("cost"), &out], &run));
            let spent = spent.ok().and_then(|_| fs::read_to_string(&out).ok());
            let mut spent = spent.iter().flat_map(|text| text.split_whitespace()).map(|n| n.parse().ok());
            let strace = ["strace", "-f", "-qq", "-o"].map(Path::new);
            let traced = runtime.time(under(&[&strace[..], &[&out]].concat(), &run));
            let log = traced.ok().and_then(|_| fs::read_to_string(&out).ok());
            let lines = log.as_deref().map(|log| {
                let calls = log.lines().filter_map(|line| line.split_once(' '));
                calls.filter(|(_, call)| !call.trim_start().starts_with(['<', '+', '-'])).collect::<Vec<_>>()
            });
            let pids = |lines: &Vec<(&str, &str)>| {
                lines.iter().map(|(pid, _)| *pid).collect::<std::collections::BTreeSet<_>>().len()
            };
            Ok(Cost {
                who: runtime.name.clone(),
                binary: fs::metadata(&runtime.path)?.len(),
                peak: spent.next().flatten(),
                faults: spent.next().flatten(),
                syscalls: lines.as_ref().map(Vec::len),
                processes: lines.as_ref().map(pids),
                memory: self.smallest_limit(runtime, default)?,
            })
        });
        costs.collect()
    }

    /// To 16 KiB, up to 64 MiB; a limit counts as enough if it is so three times.
    fn smallest_limit(&self, runtime: &Runtime, default: &Bundle) -> io::Result<Option<u64>> {
        const STEP: u64 = 16 << 10;
        let at = self.dir.join("limit");
        let mut config = bundle::read(&default.ends())?;
        let enough = |steps: u64, config: &mut serde_json::Value| -> io::Result<bool> {
            config["linux"]["resources"]["memory"] = json!({ "limit": steps * STEP });
            bundle::write(&at, config.clone(), &self.dir.join("rootfs"))?;
            let id = format!("{}limit", self.prefix);
            Ok((0..3).all(|_| {
                let run = runtime.new_container(&["run"], &at, false, &id);
                let time = runtime.time(run);
                let _ = runtime.time(runtime.command(false, &["delete", "--force", &id]));
                time.is_ok()
            }))
        };
        let (mut least, mut most) = (0, (64 << 20) / STEP);
        if !enough(most, &mut config)? {
            return Ok(None);
        }
        while most - least > 1 {
            let middle = least.midpoint(most);
            *(if enough(middle, &mut config)? { &mut most } else { &mut least }) = middle;
        }
        Ok(Some(most * STEP))
    }
}

/// `command` as the arguments of another program.
fn under(words: &[&Path], command: &Command) -> Command {
    let mut all = Command::new(words[0]);
    all.args(&words[1..]).arg(command.get_program()).args(command.get_args());
    all
}

/// With so many containers alive: milliseconds of each command.
pub struct Flat {
    pub alive: usize,
    /// The last two are the floor's, which tell what of the first two is the kernel's.
    pub medians: [(&'static str, Option<f64>); 6],
}

impl Bench {
    /// The first runtime's commands with the 1st, 10th, 100th container and so on, up to `most`.
    pub fn flatness(&self, default: &Bundle, most: usize) -> Vec<Flat> {
        let runtime = &self.runtimes[0];
        let id = |number: usize| format!("{}flat-{number}", self.prefix);
        let mut flats = Vec::new();
        let mut alive = 0;
        for target in (0..).map(|n| 10_usize.pow(n)).take_while(|n| *n <= most) {
            // The one that makes it `target` is created again and again.
            self.at_once(runtime, target - 1 - alive, |number| {
                vec![runtime.new_container(
                    &["run", "--detach"],
                    &default.stays(),
                    false,
                    &id(alive + number),
                )]
            });
            alive = target - 1;
            let mut times = [const { Vec::new() }; 6];
            for _ in 0..self.rounds.clamp(5, 40) {
                let last = id(alive);
                let commands = [
                    runtime.new_container(&["create"], &default.stays(), false, &last),
                    runtime.command(false, &["exec", &id(0), "/bin/true"]),
                    runtime.command(false, &["state", &id(0)]),
                    runtime.command(false, &["list"]),
                ];
                for (number, (command, times)) in commands.into_iter().zip(&mut times).enumerate() {
                    times.extend(runtime.time(command));
                    if number == 0 {
                        let _ = runtime.time(runtime.command(false, &["start", &last]));
                    }
                }
                if let Some(pid) = runtime.pid(false, &id(0)) {
                    times[5].extend(self.floor.exec(&id(0), pid));
                }
                let _ = runtime.time(runtime.command(false, &["delete", "--force", &last]));
                times[4].extend(self.floor.create(&last));
                let _ = self.floor.delete(&last);
                reap_all();
            }
            let [create, exec, state, list, floor, floor_exec] = times.map(|times| median(&times));
            flats.push(Flat {
                alive: target,
                medians: [
                    ("create", create),
                    ("exec", exec),
                    ("state", state),
                    ("list", list),
                    ("floor's create", floor),
                    ("floor's exec", floor_exec),
                ],
            });
        }
        self.delete_at_once(runtime, alive, &id);
        flats
    }

    /// `count` times the commands of `make`, on all cores at once, and how long that takes; how many failed.
    fn at_once(
        &self,
        runtime: &Runtime,
        count: usize,
        make: impl Fn(usize) -> Vec<Command> + Sync,
    ) -> (f64, usize) {
        let (next, failed) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let begin = Instant::now();
        thread::scope(|scope| {
            for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
                scope.spawn(|| {
                    while let Some(number) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|n| *n < count)
                    {
                        for mut command in make(number) {
                            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
                            if !waited(&mut command).is_ok_and(|(_, status)| status.success()) {
                                failed.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                    }
                });
            }
        });
        let (elapsed, failed) = (begin.elapsed().as_secs_f64() * 1e3, failed.into_inner());
        if failed > 0 {
            eprintln!("{}: {failed} of {count} commands at once failed", runtime.name);
        }
        (elapsed, failed)
    }

    fn delete_at_once(&self, runtime: &Runtime, count: usize, id: &(impl Fn(usize) -> String + Sync)) {
        self.at_once(runtime, count, |number| {
            vec![runtime.command(false, &["delete", "--force", &id(number)])]
        });
        reap_all();
    }
}

pub const CROWD: usize = 100;

/// A hundred containers.
pub struct Crowd {
    pub who: String,
    /// Milliseconds until all have started, on all cores.
    pub start: Vec<f64>,
    /// `exec` of /bin/true into one after the other, on all cores: so many in a second.
    pub probes: Vec<f64>,
}

impl Bench {
    pub fn crowds(&self, default: &Bundle) -> Vec<Crowd> {
        const PROBES: usize = 300;
        let crowd = |r: &Runtime| Crowd { who: r.name.clone(), start: vec![], probes: vec![] };
        let mut crowds: Vec<_> = self.runtimes.iter().map(crowd).collect();
        for _ in 0..(self.rounds / 20).clamp(1, 5) {
            for (runtime, crowd) in self.runtimes.iter().zip(&mut crowds) {
                let id = |number: usize| format!("{}{}-crowd-{number}", self.prefix, runtime.name);
                let (elapsed, failed) = self.at_once(runtime, CROWD, |number| {
                    vec![runtime.new_container(&["run", "--detach"], &default.stays(), false, &id(number))]
                });
                if failed == 0 {
                    crowd.start.push(elapsed);
                    let (elapsed, failed) = self.at_once(runtime, PROBES, |number| {
                        vec![runtime.command(false, &["exec", &id(number % CROWD), "/bin/true"])]
                    });
                    crowd.probes.extend((failed == 0).then_some(PROBES as f64 / elapsed * 1e3));
                }
                self.delete_at_once(runtime, CROWD, &id);
            }
        }
        crowds
    }

    /// Everything that may be left.
    pub fn clean(&self) {
        for runtime in &self.runtimes {
            runtime.delete_all(&self.prefix);
        }
        self.floor.remove_cgroups(&self.prefix);
        phases::clean(&self.dir);
        reap_all();
    }
}

/// Of what has ended: while no command of this process runs, those are containers.
fn reap_all() {
    while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
}
