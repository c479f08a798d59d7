//! Decisions: what `create`, `exec` and `update` will do, complete before anything is done.
//!
//! Nothing here makes a system call. Every error about config.json arises here and carries its JSON path.

#![forbid(unsafe_code)]

pub mod annotations;
pub mod bitmask;
pub mod capabilities;
pub mod hooks;
pub mod ids;
pub mod namespaces;
pub mod netdev;
pub mod passwd;
pub mod process;
pub mod rdt;
pub mod scheduling;
pub mod sysctl;
pub mod uts;

pub use namespaces::{Choice, Kind, Namespaces};
