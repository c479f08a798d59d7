//! What each fuzzer feeds to rrun, and what it expects beside that nothing panics. An expectation that fails panics.
//!
//! `fuzz_targets/` calls these with libFuzzer's inputs, and `tests/fuzzed.rs` of the main package with those that are
//! kept: `corpus/TARGET`, small and all different in what they reach, and `found/TARGET`, which were failures once.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "an oracle panics to fail")]
#![allow(missing_docs, missing_debug_implementations, reason = "nothing here is used from elsewhere")]

pub mod command_line;
pub mod config;
pub mod messages;
pub mod mounts;
pub mod seccomp;
pub mod state;
pub mod update;

mod bytes; // an input as a sequence of choices
mod machine;
mod report; // what an error message must be
mod schema; // which JSON paths there are // hosts to plan for

/// What is done with an input.
pub type Check = fn(&[u8]);

/// Every target by its name.
pub const TARGETS: [(&str, Check); 7] = [
    ("command-line", command_line::check),
    ("config", config::check),
    ("messages", messages::check),
    ("mounts", mounts::check),
    ("seccomp", seccomp::check),
    ("state", state::check),
    ("update", update::check),
];
