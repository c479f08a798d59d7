//! Decisions: what `create`, `exec` and `update` will do, complete before anything is done.
//!
//! Nothing here makes a system call. Every error about config.json arises here and carries its JSON path.

#![forbid(unsafe_code)]

pub mod cgroup;
pub mod namespaces;

pub use namespaces::{Choice, Kind, Namespaces};
