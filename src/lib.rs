//! rrun: a low-level OCI runtime.

pub mod cli;
pub mod commands;
pub mod error;
pub mod launch;
pub mod log;
pub mod plan;
pub mod spec;
pub mod sys;
