//! Checks any OCI runtime against the runtime-spec, clause by clause.
//!
//! It knows nothing of rrun: it drives the runtime under test through the command line that runc
//! gave all of them (create, start, state, kill, delete), makes its own bundles, whose only program
//! is this one, and looks at what the container's process, the hooks and `state` tell. A check names
//! the clauses that it stands for; what the specification leaves open, no check asks for.

#![forbid(unsafe_code)]

mod case;
mod checks;
mod clauses;
mod machine;
mod probe;
mod report;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::Instant;

use case::{Case, Subject, Verdict, Why, expect};
use checks::Check;
use machine::Machine;
use report::{Form, Outcome, Report, say};

const USAGE: &str = "\
usage: conformance --runtime PATH [--global FLAG]... [--filter TEXT] [--json | --tap]
                   [--bundle-cache DIR] [--expected FILE] [--jobs N]
       conformance --list [--filter TEXT]
       conformance --coverage
       conformance --table NAME=FILE...

  --runtime PATH      the runtime to check
  --global FLAG       pass FLAG to the runtime before each command, for instance --systemd-cgroup
  --filter TEXT       only checks whose name or one of whose clauses contains TEXT
  --json              print one JSON document
  --tap               print Test Anything Protocol, version 13
  --bundle-cache DIR  make the bundles in DIR, and keep the probe there for the next run
  --expected FILE     the checks named in FILE have to fail, and no other; each line is NAME: REASON, and
                      a reason that begins with \"sometimes, \" lets it pass too
  --jobs N            run N checks at a time instead of one for each processor
  --list              print the checks and their clauses, run none
  --coverage          print the clauses of the specification and the checks of each, run none
  --table NAME=FILE   print the clauses and the runtimes as Markdown, from what --json printed for each

Exit status: 0 no check failed that was not expected to, and one passed at least; 1 otherwise; 2 wrong usage.
";

/// What was asked for on the command line.
#[derive(Debug, Default)]
struct Options {
    runtime: Option<PathBuf>,
    global: Vec<String>,
    list: bool,
    coverage: bool,
    table: Vec<(String, PathBuf)>,
    filter: String,
    form: Option<Form>,
    cache: Option<PathBuf>,
    expected: Option<PathBuf>,
    jobs: Option<usize>,
}

fn options(mut args: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options::default();
    while let Some(arg) = args.next() {
        if let (false, Some((name, file)), false) =
            (options.table.is_empty(), arg.split_once('='), arg.starts_with("--"))
        {
            options.table.push((name.to_owned(), PathBuf::from(file)));
            continue;
        }
        let (flag, mut inline) = match arg.split_once('=') {
            Some((flag, value)) if flag.starts_with("--") => (flag.to_owned(), Some(value.to_owned())),
            _ => (arg, None),
        };
        let mut value =
            || inline.take().or_else(|| args.next()).ok_or_else(|| format!("{flag} needs a value"));
        match flag.as_str() {
            "--runtime" => options.runtime = Some(PathBuf::from(value()?)),
            "--global" => options.global.push(value()?),
            "--filter" => options.filter = value()?,
            "--bundle-cache" => options.cache = Some(PathBuf::from(value()?)),
            "--expected" => options.expected = Some(PathBuf::from(value()?)),
            "--jobs" => options.jobs = Some(value()?.parse().map_err(|_| "--jobs needs a number")?),
            "--table" => {
                let given = value()?;
                let (name, file) = given.split_once('=').ok_or("--table needs NAME=FILE")?;
                options.table.push((name.to_owned(), PathBuf::from(file)));
            }
            "--list" => options.list = true,
            "--coverage" => options.coverage = true,
            "--json" => options.form = Some(Form::Json),
            "--tap" => options.form = Some(Form::Tap),
            _ => return Err(format!("unknown argument {flag}")),
        }
        if inline.is_some() {
            return Err(format!("{flag} takes no value"));
        }
    }
    if options.runtime.is_none() && !options.list && !options.coverage && options.table.is_empty() {
        return Err("--runtime is missing".into());
    }
    Ok(options)
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|arg| arg == "probe") {
        return probe::main(&args[1..]);
    }
    if args.iter().any(|arg| arg == "--help" || arg == "-h") {
        say(USAGE.trim_end());
        return ExitCode::SUCCESS;
    }
    match options(args.into_iter()).and_then(run) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(wrong) => {
            eprintln!("conformance: {wrong} (see --help)");
            ExitCode::from(2)
        }
    }
}

/// Does what was asked for; whether all is well.
fn run(options: Options) -> Result<bool, String> {
    if options.coverage {
        say(report::coverage().trim_end());
        return Ok(true);
    }
    if !options.table.is_empty() {
        let read = |(name, path): &(String, PathBuf)| {
            let text = fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
            let report = serde_json::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))?;
            Ok::<_, String>((name.clone(), report))
        };
        say(report::table(&options.table.iter().map(read).collect::<Result<Vec<_>, _>>()?).trim_end());
        return Ok(true);
    }
    let mut chosen = checks::all();
    chosen.retain(|check| {
        let of_clause = |clause: &clauses::Clause| clause.name.contains(&options.filter);
        check.name.contains(&options.filter) || check.judges().any(of_clause)
    });
    if options.list {
        for check in chosen {
            say(&format!("{:<36} {}", check.name, check.clauses.join(" ")));
        }
        return Ok(true);
    }
    let runtime = absolute(options.runtime.as_deref())?;
    let expected = options.expected.as_deref().map(expected).transpose()?.unwrap_or_default();
    let (name, form) = (runtime.display().to_string(), options.form.unwrap_or(Form::Text));
    let report = Report::new(form, &name, chosen.len(), expected);
    let subject = subject(runtime, options.global, options.cache.as_deref())?;
    let ready = control(&subject);
    let jobs = options.jobs.or_else(|| Some(std::thread::available_parallelism().ok()?.get())).unwrap_or(1);
    let well = judge(&chosen, &subject, &ready, jobs.max(1), report);
    if options.cache.is_none() {
        let _ = fs::remove_dir_all(&subject.dir);
    }
    Ok(well)
}

/// Commands are run from other directories, so a relative `--runtime` would not be found.
fn absolute(runtime: Option<&Path>) -> Result<PathBuf, String> {
    let runtime = runtime.ok_or("--runtime is missing")?;
    let path = std::path::absolute(runtime).map_err(|e| format!("{}: {e}", runtime.display()))?;
    if !path.is_file() {
        return Err(format!("{} is not a file; give the runtime's path", path.display()));
    }
    Ok(path)
}

/// The checks that a file names, and the reasons.
fn expected(file: &Path) -> Result<BTreeMap<String, String>, String> {
    let text = fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let pair = |line: &str| {
        let (name, reason) =
            line.split_once(": ").ok_or_else(|| format!("{}: no reason: {line}", file.display()))?;
        Ok((name.to_owned(), reason.to_owned()))
    };
    lines.map(pair).collect()
}

/// Puts the probe where every bundle can have a link to it.
fn subject(runtime: PathBuf, global: Vec<String>, cache: Option<&Path>) -> Result<Subject, String> {
    let fresh = || std::env::temp_dir().join(format!("conformance-{}", std::process::id()));
    let dir = cache.map_or_else(fresh, Path::to_owned);
    let told = |e: std::io::Error| format!("{}: {e}", dir.display());
    if !dir.exists() {
        fs::create_dir(&dir).map_err(told)?;
    }
    fs::set_permissions(&dir, PermissionsExt::from_mode(0o755)).map_err(told)?;
    let dir = dir.canonicalize().map_err(told)?;
    let own = std::env::current_exe().and_then(fs::read).map_err(told)?;
    // A dynamic program asks for its loader by a path, which is among the first things that it holds.
    if own[..own.len().min(4096)].windows(4).any(|part| part == b"/ld-") {
        return Err(
            "this program has to be linked statically to be the probe (target-feature=+crt-static)".into()
        );
    }
    let probe = dir.join("probe");
    if fs::read(&probe).ok().as_ref() != Some(&own) {
        let _ = fs::remove_file(&probe);
        fs::write(&probe, own).map_err(told)?;
        fs::set_permissions(&probe, PermissionsExt::from_mode(0o755)).map_err(told)?;
    }
    Ok(Subject { runtime, global, dir, probe, machine: Machine::look(), shared: Mutex::default() })
}

/// A runtime that cannot run the plainest bundle here would pass every check that wants an error.
fn control(subject: &Subject) -> Result<(), String> {
    let plain: checks::Run = Box::new(|case| {
        let facts = case.facts(&["cwd:"], |_| {})?;
        expect(facts.done("cwd:") == "/", "the probe told nothing")
    });
    match judge_one(&plain, subject) {
        Outcome::Pass => Ok(()),
        Outcome::Fail(why) | Outcome::Skip(why) => {
            Err(format!("needs a runtime that runs a plain bundle here: {why}"))
        }
    }
}

/// Judges the checks, several at a time, and tells of them in their order.
fn judge(
    chosen: &[Check],
    subject: &Subject,
    ready: &Result<(), String>,
    jobs: usize,
    mut report: Report,
) -> bool {
    let queue = Mutex::new(chosen.iter().enumerate());
    let (tell, told) = channel();
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            let (tell, queue) = (tell.clone(), &queue);
            scope.spawn(move || {
                while let Some((number, check)) = queue.lock().ok().and_then(|mut queue| queue.next()) {
                    let begin = Instant::now();
                    let outcome = match ready {
                        Ok(()) => judge_one(&check.run, subject),
                        Err(missing) => Outcome::Skip(missing.clone()),
                    };
                    let _ = tell.send((number, outcome, begin.elapsed().as_secs_f64()));
                }
            });
        }
        drop(tell);
        let mut early = BTreeMap::new();
        let mut next = 0;
        for (number, outcome, seconds) in told {
            early.insert(number, (outcome, seconds));
            while let Some((outcome, seconds)) = early.remove(&next) {
                report.add(&chosen[next], outcome, seconds);
                next += 1;
            }
        }
    });
    report.finish()
}

/// Runs one check in a directory of its own. A mount that is still there afterwards is a failure of
/// the runtime whatever the check saw.
fn judge_one(check: &checks::Run, subject: &Subject) -> Outcome {
    let case = match Case::new(subject) {
        Ok(case) => case,
        Err(why) => return why.into(),
    };
    let seen: Verdict = check(&case);
    let left = case.finish();
    match seen.and(left) {
        Ok(()) => Outcome::Pass,
        Err(why) => why.into(),
    }
}

impl From<Why> for Outcome {
    fn from(why: Why) -> Outcome {
        match why {
            Why::Fails(text) => Outcome::Fail(text),
            Why::Lacks(text) => Outcome::Skip(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Options, String> {
        options(args.iter().map(|arg| (*arg).to_owned()))
    }

    #[test]
    fn arguments_are_read_in_both_spellings() {
        let got = parse(&["--runtime=/bin/r", "--filter", "hook", "--tap", "--global", "--debug"]).unwrap();
        assert_eq!(got.runtime.as_deref(), Some(Path::new("/bin/r")));
        assert_eq!(got.filter, "hook");
        assert_eq!(got.global, ["--debug"]);
        assert_eq!(got.form, Some(Form::Tap));
        assert_eq!(parse(&["--table", "a=b", "c=d"]).unwrap().table.len(), 2);
    }

    #[test]
    fn wrong_arguments_are_refused() {
        for args in
            [&["--filter"][..], &["--list=yes"], &["--runtime"], &["runc"], &["--tap"], &["--table", "x"]]
        {
            assert!(parse(args).is_err(), "{args:?}");
        }
    }

    #[test]
    fn what_is_expected_to_fail_are_checks() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("expected");
        let names: Vec<_> = checks::all().into_iter().map(|check| check.name).collect();
        for file in fs::read_dir(dir).unwrap().flatten() {
            for name in expected(&file.path()).unwrap().keys() {
                assert!(names.contains(name), "{}: {name}", file.path().display());
            }
        }
    }
}
