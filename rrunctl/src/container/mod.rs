//! Containers: what was asked for, what becomes of it.

#![forbid(unsafe_code)]

pub mod capability;
pub mod device;
pub mod host;
pub mod merge;
pub mod mount;
pub mod name;
pub mod seccomp;
pub mod security;
pub mod signal;
pub mod spec;
pub mod types;
pub mod user;
pub mod validate;
