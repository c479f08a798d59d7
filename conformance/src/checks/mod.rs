//! The checks, in the order of the specification.

#![forbid(unsafe_code)]

mod config;
mod hooks;
mod linux;
mod runtime;

use std::path::Path;

use serde_json::{Value, json};

use crate::case::{Case, Verdict};

/// One clause, and how it is seen to hold.
pub struct Check {
    pub name: &'static str,
    /// File and anchor in the runtime-spec.
    pub clause: &'static str,
    /// What the clause asks of a runtime, in one line.
    pub says: &'static str,
    pub run: fn(&Case) -> Verdict,
}

pub fn all() -> impl Iterator<Item = &'static Check> {
    [runtime::CHECKS, config::CHECKS, hooks::CHECKS, linux::CHECKS].into_iter().flatten()
}

/// Adds a bind mount to a configuration.
fn bind(config: &mut Value, destination: &str, source: &Path) {
    if let Some(mounts) = config["mounts"].as_array_mut() {
        mounts.push(json!({"destination": destination, "source": source, "options": ["bind"]}));
    }
}
