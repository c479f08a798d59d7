//! Where the time of a `run` goes, by the kernel's own account: a tracefs instance of its own with three tracepoints that
//! a run passes a few times only, so that it takes as long as without; and with those of every system call, in runs of
//! their own, since those take longer.

use crate::bundle::{self, Bundle};
use crate::measure::{Bench, median};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

const TRACING: &str = "/sys/kernel/tracing";
/// Of the bundle, as the kernel names it.
const PROGRAM: &str = "/bin/true";
const LIFETIMES: [&str; 3] =
    ["sched/sched_process_fork", "sched/sched_process_exec", "sched/sched_process_exit"];
const CALLS: [&str; 2] = ["raw_syscalls/sys_enter", "raw_syscalls/sys_exit"];
/// Not every architecture has them.
const FAULTS: [&str; 2] = ["exceptions/page_fault_user", "exceptions/page_fault_kernel"];

/// Microseconds, medians over `runs`.
pub struct Phases {
    pub who: String,
    pub runs: usize,
    /// From the runtime's exec to the fork of the container's process, to its exec of the program, to its exit, to the
    /// runtime's exit; and their sum. Without where it cannot be told which process is the container's.
    pub times: Option<[f64; 5]>,
    /// The same runs from before they were started until they had been waited for.
    pub waited: Option<f64>,
}

/// A system call of the runtime or of the container's process: how often and how many microseconds, as medians, of the
/// first runtime and of the floor.
pub struct Call {
    pub process: &'static str,
    pub name: String,
    pub of: [[f64; 2]; 2],
}

pub struct Calls {
    /// Those on which the first runtime spends most.
    pub most: Vec<Call>,
    /// Page faults of the runtime and of the container's process, of the first runtime and of the floor; where the
    /// kernel tells them.
    pub faults: Option<[[f64; 2]; 2]>,
}

/// Or why there is nothing.
pub struct Profile {
    pub phases: Result<Vec<Phases>, String>,
    pub calls: Result<Calls, String>,
}

impl Bench {
    pub fn profile(&self, default: &Bundle) -> Profile {
        Profile { phases: self.phases(default), calls: self.calls(default) }
    }

    fn phases(&self, default: &Bundle) -> Result<Vec<Phases>, String> {
        let everyone: Vec<_> = (0..=self.runtimes.len()).collect();
        let (runs, waited) = self.traced(default, self.rounds * 3, &everyone, &LIFETIMES)?;
        let phases = everyone.iter().map(|who| {
            let times: Vec<_> = runs.iter().filter(|r| r.who == *who).filter_map(Run::phases).collect();
            Phases {
                who: self.name(*who),
                runs: times.len(),
                times: (!times.is_empty()).then(|| [0, 1, 2, 3, 4].map(|n| middle(&times, |times| times[n]))),
                waited: median(&waited[*who]).map(|ms| ms * 1e3),
            }
        });
        Ok(phases.collect())
    }

    fn calls(&self, default: &Bundle) -> Result<Calls, String> {
        const ROUNDS: usize = 9;
        const MOST: usize = 15;
        let whose = [0, self.runtimes.len()];
        let faults = FAULTS.iter().all(|event| Path::new(TRACING).join("events").join(event).exists());
        let events = [&LIFETIMES[..], &CALLS, if faults { &FAULTS } else { &[] }].concat();
        let (mut runs, _) = self.traced(default, ROUNDS, &whose, &events)?;
        runs.retain(|run| run.phases().is_some());
        let of = whose.map(|who| runs.iter().filter(|run| run.who == who).collect::<Vec<_>>());
        let all: BTreeSet<_> = of[0].iter().flat_map(|run| run.calls.keys()).collect();
        let spent = |run: &Run, key, n: usize| run.calls.get(key).map_or(0.0, |spent| spent[n]);
        let of_all = all.into_iter().map(|key| Call {
            process: ["runtime", "container"][key.0],
            name: name(key.1),
            of: of.each_ref().map(|runs| [0, 1].map(|n| middle(runs, |run| spent(run, key, n)))),
        });
        let mut most: Vec<_> = of_all.collect();
        most.sort_by(|a, b| b.of[0][1].total_cmp(&a.of[0][1]));
        most.truncate(MOST);
        let faults = faults.then(|| of.map(|runs| [0, 1].map(|n| middle(&runs, |run| run.faults[n]))));
        Ok(Calls { most, faults })
    }

    /// What was traced of them, and for each of `whose` the milliseconds that they took.
    fn traced(
        &self,
        default: &Bundle,
        rounds: usize,
        whose: &[usize],
        events: &[&str],
    ) -> Result<(Vec<Run>, Vec<Vec<f64>>), String> {
        let trace = Instance::new(&self.dir, events)?;
        let waited = self.runs(default, rounds, whose);
        let programs = self.runtimes.iter().map(|r| r.path.clone()).chain([self.floor.program("run")]);
        Ok((runs(&trace.read()?, &programs.collect::<Vec<_>>()), waited))
    }
}

fn middle<T>(of: &[T], what: impl Fn(&T) -> f64) -> f64 {
    median(&of.iter().map(what).collect::<Vec<_>>()).unwrap_or_default()
}

/// By the table that rrun has.
fn name(number: u32) -> String {
    let column = match std::env::consts::ARCH {
        "x86_64" => 1,
        "aarch64" => 4,
        "riscv64" => 14,
        _ => usize::MAX,
    };
    let number = number.to_string();
    let found = bundle::syscalls().find(|(_, numbers)| numbers.get(column) == Some(&number.as_str()));
    found.map_or(number.clone(), |(name, _)| name.to_owned())
}

/// A tracefs instance, with buffers of its own, that lasts as long as this.
struct Instance(PathBuf);

/// Named after `dir`, which no other bench has.
fn instance(dir: &Path) -> PathBuf {
    Path::new(TRACING).join("instances").join(dir.file_name().unwrap_or_default())
}

/// What a bench that was killed has left.
pub fn clean(dir: &Path) {
    let _ = fs::remove_dir(instance(dir));
}

impl Instance {
    fn new(dir: &Path, events: &[&str]) -> Result<Self, String> {
        let at = instance(dir);
        fs::create_dir(&at).map_err(|e| format!("{}: {e}", at.display()))?;
        let new = Self(at);
        // One for all processors: what begins on one may end on another.
        new.write("trace_clock", "mono")?;
        // KiB for each processor. It is read at the end only, since reading waits for a grace period of RCU, which would
        // spare the next run its own.
        new.write("buffer_size_kb", "4096")?;
        events.iter().try_for_each(|event| new.write(&format!("events/{event}/enable"), "1"))?;
        Ok(new)
    }

    fn write(&self, file: &str, what: &str) -> Result<(), String> {
        let written = File::options().write(true).open(self.0.join(file));
        let written = written.and_then(|mut file| file.write_all(what.as_bytes()));
        written.map_err(|e| format!("{file} of {}: {e}", self.0.display()))
    }

    fn read(&self) -> Result<String, String> {
        self.write("tracing_on", "0")?;
        let all = fs::read(self.0.join("trace")).and_then(complete);
        all.map_err(|e| format!("trace of {}: {e}", self.0.display()))
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// The trace's text, which tells in its head how many events the buffer still has of how many: `N/M`.
fn complete(trace: Vec<u8>) -> io::Result<String> {
    let trace = String::from_utf8_lossy(&trace).into_owned();
    let count = trace.lines().find_map(|line| line.split_once("entries-in-buffer/entries-written: "));
    let count = count.and_then(|(_, counts)| counts.split_whitespace().next()?.split_once('/'));
    match count {
        Some((kept, written)) if kept == written => Ok(trace),
        Some((kept, written)) => Err(io::Error::other(format!("only {kept} of {written} events are left"))),
        None => Err(io::Error::other("no count of events")),
    }
}

enum Event<'a> {
    Fork(u32),
    Exec(&'a str),
    Exit,
    Enter(u32),
    Leave,
    Fault,
}

/// Whose event it is, when in microseconds, and what: of `COMM-PID [CPU] FLAGS SECONDS: EVENT: FIELDS`. A COMM may have
/// anything in it.
fn event(line: &str) -> Option<(u32, f64, Event<'_>)> {
    const NAMES: [&str; 7] = [
        ": sched_process_fork: ",
        ": sched_process_exec: filename=",
        ": sched_process_exit: ",
        ": sys_enter: NR ",
        ": sys_exit: ",
        ": page_fault_user: ",
        ": page_fault_kernel: ",
    ];
    let (which, (head, fields)) =
        NAMES.iter().enumerate().find_map(|(n, name)| Some((n, line.split_once(name)?)))?;
    let pid = head.rsplit_once(" [")?.0.trim_end().rsplit_once('-')?.1.parse().ok()?;
    let time = head.rsplit_once(' ')?.1.parse::<f64>().ok()? * 1e6;
    let event = match which {
        0 => Event::Fork(fields.rsplit_once(" child_pid=")?.1.trim().parse().ok()?),
        1 => Event::Exec(fields.rsplit_once(" old_pid=")?.0.rsplit_once(" pid=")?.0),
        2 => Event::Exit,
        3 => Event::Enter(fields.split_once(' ')?.0.parse().ok()?),
        4 => Event::Leave,
        _ => Event::Fault,
    };
    Some((pid, time, event))
}

/// From a runtime's exec to its exit.
#[derive(Default)]
struct Run {
    /// An index of the programs.
    who: usize,
    pid: u32,
    begin: f64,
    /// Its own exit.
    end: f64,
    /// When each of its processes and threads was forked.
    forks: HashMap<u32, f64>,
    /// Which of them executed the program, and when.
    programs: Vec<(u32, f64)>,
    exits: HashMap<u32, f64>,
    /// The call that a process is in, and since when.
    inside: HashMap<u32, (u32, f64)>,
    /// Whether it is not the runtime's itself, and the call's number: how often, and microseconds.
    calls: BTreeMap<(usize, u32), [f64; 2]>,
    faults: [f64; 2],
}

impl Run {
    fn phases(&self) -> Option<[f64; 5]> {
        let [(container, exec)] = self.programs[..] else { return None };
        let (fork, exit) = (self.forks.get(&container)?, self.exits.get(&container)?);
        Some([fork - self.begin, exec - fork, exit - exec, self.end - exit, self.end - self.begin])
    }
}

/// Of `programs`, of which one at a time runs.
fn runs(trace: &str, programs: &[PathBuf]) -> Vec<Run> {
    let mut done = Vec::new();
    let mut open: Option<Run> = None;
    for (pid, time, event) in trace.lines().filter_map(event) {
        let Some(run) = open.as_mut().filter(|run| pid == run.pid || run.forks.contains_key(&pid)) else {
            if let Event::Exec(file) = event
                && let Some(who) = programs.iter().position(|program| program == Path::new(file))
            {
                open = Some(Run { who, pid, begin: time, end: time, ..Run::default() });
            }
            continue;
        };
        let process = usize::from(pid != run.pid);
        match event {
            Event::Fork(child) => {
                run.forks.insert(child, time);
            }
            Event::Exec(PROGRAM) => run.programs.push((pid, time)),
            Event::Exec(_) => {}
            Event::Enter(call) => {
                run.inside.insert(pid, (call, time));
            }
            Event::Leave => {
                if let Some((call, since)) = run.inside.remove(&pid) {
                    let [count, spent] = run.calls.entry((process, call)).or_default();
                    *count += 1.0;
                    *spent += time - since;
                }
            }
            Event::Fault => run.faults[process] += 1.0,
            Event::Exit => {
                run.exits.insert(pid, time);
                run.end = time;
                if pid == run.pid {
                    done.extend(open.take());
                }
            }
        }
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "\
# entries-in-buffer/entries-written: 21/21   #P:2
           bench-10      [001] ..... 1.000000: sched_process_fork: comm=bench pid=10 child_comm=bench child_pid=20
           runtime-20    [001] ..... 1.000100: sched_process_exec: filename=/opt/run time pid=20 old_pid=20
            sys_exit: -20 [001] ..... 1.000110: sys_enter: NR 59 (1, 2, 3, 4, 5, 6)
     tmux: server-30     [000] ..... 1.000120: sched_process_fork: comm=tmux: server pid=30 child_comm=tmux: server child_pid=31
           runtime-20    [001] ..... 1.000125: sys_exit: NR 59 = -2
           runtime-20    [001] ..... 1.000200: sched_process_fork: comm=runtime pid=20 child_comm=runtime child_pid=21
           runtime-21    [000] d.... 1.000210: page_fault_user: address=0x1 ip=0x2 error_code=0x6
           sh-31         [000] ..... 1.000220: sched_process_exec: filename=/bin/true pid=31 old_pid=31
           runtime-21    [000] ..... 1.000250: sched_process_fork: comm=[a b] pid=21 child_comm=x child_pid=22
           runtime-21    [000] ..... 1.000260: sched_process_exit: comm=runtime pid=21 prio=120 group_dead=true
           runtime-22    [000] ..... 1.000600: sched_process_exec: filename=/bin/true pid=22 old_pid=22
           true-22       [000] ..... 1.000700: sched_process_exit: comm=true pid=22 prio=120 group_dead=true
           runtime-20    [001] ..... 1.001000: sched_process_exit: comm=runtime pid=20 prio=120
           floor-40      [001] ..... 2.000000: sched_process_exec: filename=/floor pid=40 old_pid=40
           floor-40      [001] ..... 2.000100: sched_process_fork: comm=floor pid=40 child_comm=floor child_pid=41
           floor-41      [000] ..... 2.000300: sched_process_exec: filename=/bin/true pid=41 old_pid=41
           true-41       [000] ..... 2.000350: sched_process_exit: comm=true pid=41 prio=120
           floor-40      [001] ..... 2.000500: sched_process_exit: comm=floor pid=40 prio=120
";

    fn found(trace: &str) -> Vec<Run> {
        runs(trace, &["/opt/run time".into(), "/floor".into()])
    }

    /// Of the process that executes the program, though another's child, and not of those that do so beside.
    #[test]
    fn phases_are_between_the_events_of_the_container() {
        let phases: Vec<_> = found(TRACE)
            .iter()
            .map(|run| (run.who, run.phases().map(|times| times.map(|us| us.round() as u32))))
            .collect();
        assert_eq!(phases, [(0, Some([150, 350, 100, 300, 900])), (1, Some([100, 200, 50, 150, 500]))]);
    }

    #[test]
    fn calls_and_faults_are_of_the_process_that_makes_them() {
        let run = &found(TRACE)[0];
        let calls: Vec<_> = run.calls.iter().map(|(key, [n, us])| (*key, *n, us.round())).collect();
        assert_eq!(calls, [((0, 59), 1.0, 15.0)]);
        assert_eq!(run.faults, [0.0, 1.0]);
    }

    #[test]
    fn a_run_is_left_out_where_the_container_cannot_be_told() {
        let twice = TRACE.replace("filename=/floor", "filename=/else").replace("sh-31 ", "sh-21 ");
        assert!(found(&twice).iter().all(|run| run.phases().is_none()));
        assert_eq!(found(&twice).len(), 1);
    }

    #[test]
    fn a_trace_that_lost_events_is_none() {
        assert!(complete(TRACE.into()).is_ok());
        assert!(complete(TRACE.replace("21/21", "21/22").into()).is_err());
        assert!(complete(Vec::new()).is_err());
    }

    #[test]
    fn calls_have_names() {
        let number = match std::env::consts::ARCH {
            "x86_64" => 165,
            _ => 40,
        };
        assert_eq!(name(number), "mount");
        assert_eq!(name(9999), "9999");
    }
}
