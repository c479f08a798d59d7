//! The 125 bad inputs of the security reference (section 4): each row is one test, each of its variants ends
//! within 5 s with the exit status and one line that names the JSON path, without a panic, leaving nothing.
//!
//! Rows where the specification or a drop-in asks for acceptance run to the end. A peer under test (`RRUN`)
//! is held to failing or succeeding alike; the words are rrun's. Variants that Debian's runc is known to get
//! wrong are marked by `ours`.

mod command_line; // rows 114-125
mod json; // rows 1-22
mod linux; // rows 73-90
mod mounts; // rows 52-72
mod process; // rows 23-51
mod resources; // rows 91-113

use crate::harness::{Out, Run, SECONDS_5, Test, is_rrun};
use serde_json::Value;

/// One row: variants of the same bundle.
struct Row {
    t: Test,
}

/// Sets what stands at a JSON pointer, making the objects on the way; `-` appends to an array.
fn put(config: &mut Value, pointer: &str, value: Value) {
    let mut place = config;
    for step in pointer.trim_start_matches('/').split('/') {
        place = match step.parse::<usize>() {
            Ok(n) if place.is_array() => &mut place[n],
            _ if step == "-" => {
                if !place.is_array() {
                    *place = Value::Array(vec![]);
                }
                let array = place.as_array_mut().unwrap();
                array.push(Value::Null);
                array.last_mut().unwrap()
            }
            _ => &mut place[step],
        };
    }
    *place = value;
}

impl Row {
    fn new(number: u32) -> Self {
        Self { t: Test::new(&format!("row{number:03}")) }
    }

    fn with(&self, change: impl FnOnce(&mut Value)) -> &Self {
        let mut config = self.t.default_config();
        change(&mut config);
        self.t.write(&config);
        self
    }

    /// `run` must fail with `code` and say one of `texts`.
    #[track_caller]
    fn fails(&self, code: i32, texts: &str, run: Run<'_>) -> Out {
        let out = run.limit(SECONDS_5).go();
        if is_rrun() {
            out.fails_with(code, texts).one_line();
        } else {
            assert_ne!(out.code, Some(0), "{out:?}");
        }
        out
    }

    /// config.json as it is must be refused.
    #[track_caller]
    fn refused(&self, texts: &str) {
        self.fails(1, texts, self.t.bundle_command("run", &[]));
        self.t.nothing_left();
    }

    /// `value` at `pointer` must be refused; the message names one of `texts`.
    #[track_caller]
    fn bad(&self, texts: &str, pointer: &str, value: Value) {
        self.with(|c| put(c, pointer, value)).refused(texts);
    }

    /// The same where Debian's runc is known to accept.
    #[track_caller]
    fn ours(&self, texts: &str, pointer: &str, value: Value) {
        if is_rrun() {
            self.bad(texts, pointer, value);
        }
    }

    #[track_caller]
    fn accepted(&self) {
        let out = self.t.bundle_command("run", &[]).limit(SECONDS_5).go();
        out.ok();
        assert!(!out.stderr().contains("panicked"), "{out:?}");
        self.t.nothing_left();
    }

    /// `value` at `pointer` must be accepted.
    #[track_caller]
    fn good(&self, pointer: &str, value: Value) {
        self.with(|c| put(c, pointer, value)).accepted();
    }

    /// Either is right, but nothing is left and nothing panics or hangs.
    #[track_caller]
    fn survives(&self, run: Run<'_>) -> Out {
        let out = run.limit(SECONDS_5).go();
        let all = out.stderr() + &out.stdout();
        assert!(!all.contains("panicked") && out.signal.is_none(), "{out:?}");
        out
    }

    #[track_caller]
    fn any(&self, pointer: &str, value: Value) {
        self.with(|c| put(c, pointer, value));
        self.survives(self.t.bundle_command("run", &[]));
        self.t.nothing_left();
    }
}
