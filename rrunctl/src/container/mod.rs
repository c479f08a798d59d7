//! Containers: what was asked for, what becomes of it.

#![forbid(unsafe_code)]

pub mod capability;
pub mod merge;
pub mod mount;
pub mod name;
pub mod seccomp;
pub mod types;
pub mod user;
