//! Checks any OCI runtime against the runtime-spec, clause by clause.
//!
//! It knows nothing of rrun: it drives the runtime under test through the command line that runc
//! gave all of them (create, start, state, kill, delete), makes its own bundles from a static
//! busybox, and looks at what the container's process, the hooks and `state` tell. A check names
//! the clause that it stands for; what the specification leaves open, no check asks for.

#![forbid(unsafe_code)]

mod case;
mod checks;
mod report;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use case::{Case, Subject, Verdict, Why, expect_eq};
use report::{Form, Outcome, Record, Report};

const USAGE: &str = "\
usage: conformance --runtime PATH [--global FLAG]... [--filter TEXT] [--json | --tap]
       conformance --list [--filter TEXT]

  --runtime PATH  the runtime to check
  --global FLAG   pass FLAG to the runtime before each command, for instance --systemd-cgroup
  --list          print the checks and their clauses, run none
  --filter TEXT   only checks whose name or clause contains TEXT
  --json          print one JSON document
  --tap           print Test Anything Protocol, version 13

Exit status: 0 no check failed and one passed at least, 1 otherwise, 2 wrong usage.
";

/// What was asked for on the command line.
struct Options {
    runtime: Option<PathBuf>,
    global: Vec<String>,
    list: bool,
    filter: String,
    form: Form,
}

fn options(mut args: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options =
        Options { runtime: None, global: Vec::new(), list: false, filter: String::new(), form: Form::Text };
    while let Some(arg) = args.next() {
        let (flag, mut inline) = match arg.split_once('=') {
            Some((flag, value)) => (flag.to_owned(), Some(value.to_owned())),
            None => (arg, None),
        };
        let mut value =
            || inline.take().or_else(|| args.next()).ok_or_else(|| format!("{flag} needs a value"));
        match flag.as_str() {
            "--runtime" => options.runtime = Some(PathBuf::from(value()?)),
            "--global" => options.global.push(value()?),
            "--filter" => options.filter = value()?,
            "--list" => options.list = true,
            "--json" => options.form = Form::Json,
            "--tap" => options.form = Form::Tap,
            _ => return Err(format!("unknown argument {flag}")),
        }
        if inline.is_some() {
            return Err(format!("{flag} takes no value"));
        }
    }
    if options.runtime.is_none() && !options.list {
        return Err("--runtime is missing".into());
    }
    Ok(options)
}

fn main() -> ExitCode {
    if std::env::args().skip(1).any(|arg| arg == "--help" || arg == "-h") {
        print!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let options = match options(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(wrong) => {
            eprint!("conformance: {wrong}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let chosen: Vec<_> = checks::all()
        .filter(|check| check.name.contains(&options.filter) || check.clause.contains(&options.filter))
        .collect();
    if options.list {
        for check in chosen {
            println!("{:<28} {:<42} {}", check.name, check.clause, check.says);
        }
        return ExitCode::SUCCESS;
    }
    let runtime = match absolute(options.runtime.as_deref()) {
        Ok(runtime) => runtime,
        Err(wrong) => {
            eprintln!("conformance: {wrong}");
            return ExitCode::from(2);
        }
    };
    let name = runtime.display().to_string();
    let ready = case::precondition().and_then(|busybox| {
        let subject = Subject { runtime, global: options.global, busybox };
        control(&subject).map(|()| subject)
    });
    let mut report = Report::new(options.form, &name, chosen.len());
    for check in chosen {
        let outcome = match &ready {
            Ok(subject) => run(check.run, subject),
            Err(missing) => Outcome::Skip(missing.clone()),
        };
        report.add(Record { check, outcome });
    }
    if report.finish() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
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

/// A runtime that cannot run the plainest bundle here would pass every check that wants an error.
fn control(subject: &Subject) -> Result<(), String> {
    let plain: fn(&Case) -> Verdict = |case| expect_eq("output", &case.prints("echo ran", |_| {})?, "ran");
    match run(plain, subject) {
        Outcome::Pass => Ok(()),
        Outcome::Fail(why) | Outcome::Skip(why) => {
            Err(format!("needs a runtime that runs a plain bundle: {why}"))
        }
    }
}

/// Runs one check in a directory of its own. A mount that is still there afterwards is a failure of
/// the runtime whatever the check saw.
fn run(check: fn(&Case) -> Verdict, subject: &Subject) -> Outcome {
    let case = match Case::new(subject) {
        Ok(case) => case,
        Err(why) => return why.into(),
    };
    let seen = check(&case);
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
        assert_eq!(got.form, Form::Tap);
    }

    #[test]
    fn wrong_arguments_are_refused() {
        for args in [&["--filter"][..], &["--list=yes"], &["--runtime"], &["runc"], &["--tap"]] {
            assert!(parse(args).is_err(), "{args:?}");
        }
    }

    #[test]
    fn names_are_unique_and_clauses_have_anchors() {
        let mut names: Vec<_> = checks::all().map(|check| check.name).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
        assert!(checks::all().all(|check| check.clause.contains(".md#")));
    }
}
