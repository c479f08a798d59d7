//! What is measured: each engine does the same, in turns within a round, and what it prints is looked at.

use crate::engines::{Done, Engine};
use crate::image::{PAGE, Registry};
use std::error::Error;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// So many commands in a round where one is short.
const SHORT: usize = 10;
/// One after the other.
const HUNDRED: usize = 100;
/// At once.
pub const PARALLEL: usize = 50;
/// Idle ones, of which the monitors' memory is looked at.
pub const IDLE: usize = 20;

type Times = Result<Vec<Duration>, Box<dyn Error>>;

/// A measurement, and what the ratio to docker and to podman is to be at most.
pub struct Row {
    pub title: &'static str,
    pub seconds: bool,
    pub goal: Option<f64>,
    /// What an engine does in a round.
    what: fn(&Bench, usize, usize) -> Times,
}

pub const ROWS: [Row; 8] = [
    Row {
        title: "`pull` of 300 MB in 5 layers, unpacked",
        seconds: true,
        goal: Some(0.6),
        what: Bench::pull,
    },
    Row { title: "`run --rm true`", seconds: false, goal: Some(0.12), what: Bench::run },
    Row {
        title: "100 × `run --rm true`, one after the other",
        seconds: true,
        goal: Some(0.12),
        what: Bench::hundred,
    },
    Row { title: "50 × `run --rm echo N`, all at once", seconds: true, goal: None, what: Bench::parallel },
    Row { title: "`run -d -p`", seconds: false, goal: None, what: Bench::publish },
    Row { title: "`run -d -p`, until the port answers", seconds: false, goal: None, what: Bench::answer },
    Row { title: "`exec true`", seconds: false, goal: None, what: Bench::exec },
    Row { title: "`rm -f` of one that runs", seconds: false, goal: None, what: Bench::remove },
];

/// What an engine's processes have in memory, in KiB.
#[derive(Default, Clone, Copy)]
pub struct Memory {
    pub processes: usize,
    pub rss: u64,
    pub pss: u64,
}

/// Of one engine.
pub struct Resident {
    /// Of all idle containers' monitors.
    pub monitors: Memory,
    /// Of the daemons before there was one of the idle containers, and with them.
    pub daemons: [Memory; 2],
}

#[derive(Default)]
pub struct Series {
    /// Seconds.
    pub times: Vec<f64>,
    pub failures: Vec<String>,
}

pub struct Bench {
    pub engines: Vec<Engine>,
    pub registry: Registry,
    pub rounds: usize,
    /// By row, and by engine.
    pub series: Vec<Vec<Series>>,
    pub residents: Vec<Resident>,
}

impl Bench {
    pub fn new(engines: Vec<Engine>, registry: Registry, rounds: usize) -> Self {
        let series = ROWS.iter().map(|_| engines.iter().map(|_| Series::default()).collect()).collect();
        Self { engines, registry, rounds, series, residents: Vec::new() }
    }

    /// How often an engine failed.
    pub fn failures(&self, engine: usize) -> usize {
        self.series.iter().map(|row| row[engine].failures.len()).sum()
    }

    /// The small image in every engine, a first container of each, and one to execute in.
    pub fn prepare(&self) -> Result<(), Box<dyn Error>> {
        for engine in &self.engines {
            expect(engine, &["pull", &self.registry.small], 0, None)?;
            expect(engine, &["run", "--rm", &self.registry.small, "echo", "first"], 0, Some("first\n"))?;
            // That a code is told is looked at once: those that are timed end with 0, as does a client that does nothing.
            expect(engine, &["run", "--rm", &self.registry.small, "sh", "-c", "exit 7"], 7, Some(""))?;
            expect(
                engine,
                &["run", "-d", "--name", "executed-in", &self.registry.small, "sleep", "100000"],
                0,
                None,
            )?;
        }
        Ok(())
    }

    pub fn rounds(&mut self) {
        for round in 0..self.rounds {
            for (at, row) in ROWS.iter().enumerate() {
                eprintln!("round {} of {}: {}", round + 1, self.rounds, row.title);
                for turn in 0..self.engines.len() {
                    let engine = (round + turn) % self.engines.len();
                    let done = (row.what)(self, engine, round);
                    let series = &mut self.series[at][engine];
                    match done {
                        Ok(times) => series.times.extend(times.iter().map(Duration::as_secs_f64)),
                        Err(e) => {
                            eprintln!("{e}");
                            series.failures.push(e.to_string());
                        }
                    }
                }
            }
        }
    }

    fn pull(&self, engine: usize, _: usize) -> Times {
        let (engine, image) = (&self.engines[engine], self.registry.large.as_str());
        // What another has written is not to be waited for.
        rustix::fs::sync();
        let done = expect(engine, &["pull", image], 0, None)?;
        let listed = expect(
            engine,
            &["image", "inspect", "--format", "{{len .RootFS.Layers}}", image],
            0,
            Some("5\n"),
        );
        expect(engine, &["rmi", image], 0, None)?;
        listed.map(|_| vec![done.took])
    }

    fn run(&self, engine: usize, _: usize) -> Times {
        self.runs(engine, SHORT)
    }

    fn hundred(&self, engine: usize, _: usize) -> Times {
        let from = Instant::now();
        self.runs(engine, HUNDRED)?;
        Ok(vec![from.elapsed()])
    }

    fn runs(&self, engine: usize, times: usize) -> Times {
        let words = ["run", "--rm", &self.registry.small, "true"];
        (0..times).map(|_| expect(&self.engines[engine], &words, 0, Some("")).map(|done| done.took)).collect()
    }

    fn parallel(&self, engine: usize, _: usize) -> Times {
        let engine = &self.engines[engine];
        let from = Instant::now();
        let start = |number: usize| {
            engine.started(&["run", "--rm", &self.registry.small, "echo", &number.to_string()], number)
        };
        let all = (0..PARALLEL).map(start).collect::<Result<Vec<_>, _>>()?;
        let all = all.into_iter().map(|one| one.done()).collect::<Result<Vec<_>, _>>()?;
        let took = from.elapsed();
        for (number, done) in all.iter().enumerate() {
            check(engine, &format!("run echo {number}"), done, 0, Some(&format!("{number}\n")))?;
        }
        Ok(vec![took])
    }

    /// What `answer` and `remove` look at stays until the latter.
    fn publish(&self, engine: usize, round: usize) -> Times {
        let (port, name) = (8100 + engine, format!("published-{round}"));
        expect(&self.engines[engine], &self.page(&name, &format!("127.0.0.1:{port}:80")), 0, None)
            .map(|done| vec![done.took])
    }

    fn answer(&self, engine: usize, _: usize) -> Times {
        let port = u16::try_from(8200 + engine)?;
        let name = "answers";
        let from = Instant::now();
        expect(&self.engines[engine], &self.page(name, &format!("127.0.0.1:{port}:80")), 0, None)?;
        let until = from + Duration::from_secs(30);
        while page(port).as_deref() != Some(PAGE) {
            if Instant::now() > until {
                return Err(format!("{}: nobody answers at port {port}", self.engines[engine].name).into());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let took = from.elapsed();
        expect(&self.engines[engine], &["rm", "-f", name], 0, None)?;
        Ok(vec![took])
    }

    fn page<'a>(&'a self, name: &'a str, port: &'a str) -> [&'a str; 11] {
        ["run", "-d", "--name", name, "-p", port, &self.registry.small, "httpd", "-f", "-h", "/www"]
    }

    fn exec(&self, engine: usize, _: usize) -> Times {
        let words = ["exec", "executed-in", "true"];
        (0..SHORT).map(|_| expect(&self.engines[engine], &words, 0, Some("")).map(|done| done.took)).collect()
    }

    fn remove(&self, engine: usize, round: usize) -> Times {
        let port = u16::try_from(8100 + engine)?;
        let answered = page(port);
        let done = expect(&self.engines[engine], &["rm", "-f", &format!("published-{round}")], 0, None)?;
        match answered.as_deref() {
            Some(PAGE) => Ok(vec![done.took]),
            other => Err(format!("{}: port {port} answered {other:?}", self.engines[engine].name).into()),
        }
    }

    /// The idle containers of each engine alone.
    pub fn memory(&mut self) -> Result<(), Box<dyn Error>> {
        for engine in &self.engines {
            let first = resident(&[engine.monitor])?.processes;
            let before = resident(engine.daemons)?;
            let names: Vec<_> = (0..IDLE).map(|number| format!("idle-{number}")).collect();
            for name in &names {
                expect(
                    engine,
                    &["run", "-d", "--name", name, &self.registry.small, "sleep", "100000"],
                    0,
                    None,
                )?;
            }
            // What a start leaves to be done after it.
            std::thread::sleep(Duration::from_secs(2));
            let monitors = resident(&[engine.monitor])?;
            if monitors.processes != first + IDLE {
                return Err(format!("{}: {} of {}", engine.name, monitors.processes, engine.monitor).into());
            }
            self.residents.push(Resident { monitors, daemons: [before, resident(engine.daemons)?] });
            let all: Vec<_> = ["rm", "-f"].into_iter().chain(names.iter().map(String::as_str)).collect();
            expect(engine, &all, 0, None)?;
        }
        Ok(())
    }
}

fn expect(engine: &Engine, words: &[&str], code: i32, stdout: Option<&str>) -> Result<Done, Box<dyn Error>> {
    let done = engine.call(words)?;
    check(engine, &words.join(" "), &done, code, stdout)?;
    Ok(done)
}

fn check(
    engine: &Engine,
    what: &str,
    done: &Done,
    code: i32,
    stdout: Option<&str>,
) -> Result<(), Box<dyn Error>> {
    if done.code == Some(code) && stdout.is_none_or(|stdout| done.stdout == stdout) {
        return Ok(());
    }
    let last = done.stderr.lines().last().unwrap_or_default();
    Err(format!("{} {what}: code {:?}, {:?}, {last}", engine.name, done.code, done.stdout).into())
}

/// What a web server at a port of loopback says.
fn page(port: u16) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    stream.write_all(b"GET /index.html HTTP/1.0\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned())
}

/// What the processes of these names have: the PID namespace has no others of them.
fn resident(names: &[&str]) -> Result<Memory, Box<dyn Error>> {
    let mut sum = Memory::default();
    for entry in fs::read_dir("/proc")?.flatten() {
        let dir = entry.path();
        let Ok(comm) = fs::read_to_string(dir.join("comm")) else { continue };
        if !names.contains(&comm.trim_end()) {
            continue;
        }
        let Ok(rollup) = fs::read_to_string(dir.join("smaps_rollup")) else { continue };
        let field = |name: &str| {
            let line = rollup.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or_default()
        };
        sum.processes += 1;
        sum.rss += field("Rss:");
        sum.pss += field("Pss:");
    }
    Ok(sum)
}
