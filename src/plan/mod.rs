//! Decisions: what `create`, `exec` and `update` will do, complete before anything is done.
//!
//! Nothing here makes a system call. Every error about config.json arises here and carries its JSON path.

#![forbid(unsafe_code)]

pub mod namespaces;
pub mod rootfs;

pub use namespaces::{Choice, Kind, Namespaces};
