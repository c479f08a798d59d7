//! Containers: what was asked for, what becomes of it.

#![forbid(unsafe_code)]

pub mod name;
pub mod seccomp;
pub mod types;
