//! rrun: a low-level OCI runtime.

pub mod console;
pub mod criu;
pub mod error;
pub mod hooks;
pub mod launch;
pub mod notify;
pub mod plan;
pub mod spec;
pub mod sys;
