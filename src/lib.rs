//! rrun: a low-level OCI runtime.

pub mod bundle;
pub mod error;
pub mod launch;
pub mod plan;
pub mod spec;
pub mod state;
pub mod sys;
