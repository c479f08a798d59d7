//! Prints the outcome of each check as it comes: text for people, TAP for `prove`, JSON for programs.

#![forbid(unsafe_code)]

use serde_json::{Value, json};

use crate::checks::Check;

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

pub struct Record {
    pub check: &'static Check,
    pub outcome: Outcome,
}

pub struct Report {
    form: Form,
    runtime: String,
    done: Vec<Value>,
    passed: usize,
    failed: usize,
    skipped: usize,
}

impl Report {
    pub fn new(form: Form, runtime: &str, planned: usize) -> Report {
        if form == Form::Tap {
            println!("TAP version 13\n1..{planned}");
        }
        Report { form, runtime: runtime.to_owned(), done: Vec::new(), passed: 0, failed: 0, skipped: 0 }
    }

    pub fn add(&mut self, record: Record) {
        let Record { check, outcome } = record;
        let (word, why) = match outcome {
            Outcome::Pass => ("pass", String::new()),
            Outcome::Fail(why) => ("FAIL", one_line(&why)),
            Outcome::Skip(why) => ("skip", one_line(&why)),
        };
        *match word {
            "pass" => &mut self.passed,
            "FAIL" => &mut self.failed,
            _ => &mut self.skipped,
        } += 1;
        self.done.push(json!({
            "name": check.name, "clause": check.clause, "says": check.says,
            "outcome": word.to_ascii_lowercase(), "why": why,
        }));
        let number = self.done.len();
        match (self.form, word) {
            (Form::Text, "pass") => println!("pass  {}", check.name),
            (Form::Text, "skip") => println!("skip  {}: {why}", check.name),
            (Form::Text, _) => {
                println!("{word}  {}  ({}: {})\n      {why}", check.name, check.clause, check.says)
            }
            (Form::Tap, "FAIL") => {
                println!("not ok {number} - {} # {}\n# {}\n# {why}", check.name, check.clause, check.says)
            }
            (Form::Tap, "skip") => println!("ok {number} - {} # SKIP {why}", check.name),
            (Form::Tap, _) => println!("ok {number} - {}", check.name),
            (Form::Json, _) => {}
        }
    }

    /// Prints what comes at the end; true if nothing failed and something passed, because a run in
    /// which every check was skipped says nothing about the runtime.
    pub fn finish(self) -> bool {
        let Report { form, runtime, done, passed, failed, skipped } = self;
        match form {
            Form::Text => println!("{runtime}: {passed} passed, {failed} failed, {skipped} skipped"),
            Form::Tap => {}
            Form::Json => {
                let all = json!({
                    "runtime": runtime, "passed": passed, "failed": failed, "skipped": skipped, "checks": done,
                });
                println!("{all:#}");
            }
        }
        failed == 0 && passed > 0
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
