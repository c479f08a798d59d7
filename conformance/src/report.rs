//! Prints the outcome of each check as it comes: text for people, TAP for `prove`, JSON for programs;
//! and from the JSON of several runtimes, a table.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;

use serde_json::{Value, json};

use crate::checks::{self, Check};
use crate::clauses::{self, Level};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Text,
    Tap,
    Json,
}

pub enum Outcome {
    Pass,
    /// What the runtime did, against what the clause asks for.
    Fail(String),
    /// The precondition that this machine lacks.
    Skip(String),
}

/// Passed, failed, skipped.
#[derive(Debug, Default, Clone, Copy)]
struct Sum([usize; 3]);

impl std::fmt::Display for Sum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Sum([passed, failed, skipped]) = self;
        write!(f, "{passed} passed, {failed} failed, {skipped} skipped")
    }
}

pub struct Report {
    form: Form,
    runtime: String,
    /// The checks that are expected to fail, and why.
    expected: BTreeMap<String, String>,
    done: Vec<Value>,
    must: Sum,
    should: Sum,
    surprises: Vec<String>,
}

/// Prints a line. A reader that has gone, as `head` has, neither ends the checks nor is an error of the runtime's.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

impl Report {
    pub fn new(form: Form, runtime: &str, planned: usize, expected: BTreeMap<String, String>) -> Report {
        if form == Form::Tap {
            say(&format!("TAP version 13\n1..{planned}"));
        }
        let (must, should) = Default::default();
        let runtime = runtime.to_owned();
        Report { form, runtime, expected, done: Vec::new(), must, should, surprises: Vec::new() }
    }

    pub fn add(&mut self, check: &Check, outcome: Outcome, seconds: f64) {
        let should = check.level() == Level::Should;
        let (at, word, why) = match outcome {
            Outcome::Pass => (0, "pass", String::new()),
            Outcome::Fail(why) => (1, "fail", one_line(&why)),
            Outcome::Skip(why) => (2, "skip", one_line(&why)),
        };
        let sum = if should { &mut self.should } else { &mut self.must };
        sum.0[at] += 1;
        let name = &check.name;
        match (word, self.expected.contains_key(name)) {
            ("fail", false) => self.surprises.push(name.clone()),
            // It may be a matter of who is faster.
            ("pass", true) if self.expected[name].starts_with("sometimes, ") => {}
            ("pass", true) => self.surprises.push(format!("{name} (passes, and is expected to fail)")),
            _ => {}
        }
        let clauses: Vec<_> = check.judges().map(|clause| clause.name.as_str()).collect();
        let level = if should { "SHOULD" } else { "MUST" };
        self.done.push(json!({
            "name": name, "clauses": clauses, "level": level, "outcome": word, "why": why, "seconds": seconds,
        }));
        let number = self.done.len();
        let says = check.judges().map(|clause| format!("{} {}: {}", clause.name, clause.word, clause.says));
        let says = says.collect::<Vec<_>>().join("\n      ");
        match (self.form, word) {
            (Form::Text, "pass") => say(&format!("pass  {name}")),
            (Form::Text, "skip") => say(&format!("skip  {name}: {why}")),
            (Form::Text, _) => say(&format!("FAIL  {name}  ({level})\n      {why}\n      {says}")),
            (Form::Tap, "fail") => {
                say(&format!("not ok {number} - {name}\n# {why}\n# {}", says.replace('\n', "\n# ")))
            }
            (Form::Tap, "skip") => say(&format!("ok {number} - {name} # SKIP {why}")),
            (Form::Tap, _) => say(&format!("ok {number} - {name}")),
            (Form::Json, _) => {}
        }
    }

    /// Prints what comes at the end; true if nothing failed that was not expected to, and something
    /// passed, because a run in which every check was skipped says nothing about the runtime.
    pub fn finish(self) -> bool {
        let Report { form, runtime, done, must, should, surprises, expected } = self;
        let mut sum = format!("{runtime}\nMUST    {must}\nSHOULD  {should}");
        if !expected.is_empty() && !surprises.is_empty() {
            let _ = write!(sum, "\nnot as expected: {}", surprises.join(", "));
        }
        match form {
            Form::Text => say(&sum),
            Form::Tap => {}
            Form::Json => {
                say(&format!("{:#}", json!({"runtime": runtime, "checks": done})));
                eprintln!("{sum}");
            }
        }
        surprises.is_empty() && must.0[0] > 0
    }
}

/// On one line, and not the whole of what a runtime may have to say.
fn one_line(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() > 500 { line.chars().take(500).chain("...".chars()).collect() } else { line }
}

/// Every clause, whom it binds, and the checks that judge it.
pub fn coverage() -> String {
    let checks = checks::all();
    let mut text = String::new();
    for clause in clauses::all() {
        let names = checks.iter().filter(|check| check.judges().any(|other| other.name == clause.name));
        let names: Vec<_> = names.map(|check| check.name.as_str()).collect();
        let by = if clause.judged() { names.join(" ") } else { format!("({})", clause.binds) };
        let _ = writeln!(text, "{} {}: {}\n    {by}", clause.name, clause.word, clause.says);
    }
    let judged = clauses::all().iter().filter(|clause| clause.judged()).count();
    let _ = writeln!(
        text,
        "{} clauses, {judged} bind the runtime, {} checks",
        clauses::all().len(),
        checks.len()
    );
    text
}

/// The table of clauses and runtimes, in Markdown, from what `--json` printed for each runtime.
pub fn table(reports: &[(String, Value)]) -> String {
    let mut text = String::new();
    let line = |text: &mut String, cells: &[String]| {
        let _ = writeln!(text, "| {} |", cells.join(" | "));
    };
    let names: Vec<_> = reports.iter().map(|(name, _)| name.clone()).collect();
    let head =
        |first: &[&str]| [first.iter().map(|cell| (*cell).to_owned()).collect(), names.clone()].concat();
    line(&mut text, &head(&["checks"]));
    line(&mut text, &vec!["---".to_owned(); names.len() + 1]);
    for level in ["MUST", "SHOULD"] {
        for outcome in ["pass", "fail", "skip"] {
            let count = |report: &Value| {
                let checks = report["checks"].as_array().into_iter().flatten();
                checks
                    .filter(|check| check["level"] == level && check["outcome"] == outcome)
                    .count()
                    .to_string()
            };
            let counts = reports.iter().map(|(_, report)| count(report));
            line(&mut text, &[vec![format!("{level} {outcome}")], counts.collect()].concat());
        }
    }
    let mut section = "";
    for clause in clauses::all() {
        let (place, number) = clause.name.rsplit_once('.').unwrap_or_default();
        if place != section {
            section = place;
            let _ = writeln!(text, "\n## {place}\n");
            line(&mut text, &head(&["", "", "clause"]));
            line(&mut text, &vec!["---".to_owned(); names.len() + 3]);
        }
        let cells = reports.iter().map(|(_, report)| match clause.judged() {
            true => outcome(report, &clause.name).to_owned(),
            false => format!("({})", clause.binds),
        });
        let first = vec![number.to_owned(), clause.word.to_owned(), clause.says.replace('|', "\\|")];
        line(&mut text, &[first, cells.collect()].concat());
    }
    text
}

/// A clause fails if one of its checks does, and is skipped if all are.
fn outcome<'a>(report: &'a Value, clause: &str) -> &'a str {
    let checks = report["checks"].as_array().into_iter().flatten();
    let of_it =
        checks.filter(|check| check["clauses"].as_array().is_some_and(|all| all.iter().any(|c| c == clause)));
    let outcomes: Vec<_> = of_it.filter_map(|check| check["outcome"].as_str()).collect();
    match () {
        () if outcomes.contains(&"fail") => "**fail**",
        () if outcomes.contains(&"pass") => "pass",
        () => "skip",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clause_is_as_good_as_its_worst_check() {
        let report = |outcomes: &[&str]| {
            let checks = outcomes.iter().map(|outcome| json!({"clauses": ["c"], "outcome": outcome}));
            json!({"checks": checks.collect::<Vec<_>>()})
        };
        assert_eq!(outcome(&report(&["pass", "fail", "skip"]), "c"), "**fail**");
        assert_eq!(outcome(&report(&["pass", "skip"]), "c"), "pass");
        assert_eq!(outcome(&report(&["skip"]), "c"), "skip");
        assert_eq!(outcome(&report(&["pass"]), "other"), "skip");
    }
}
