//! rrun: a low-level OCI runtime.

pub mod cgroup;
pub mod error;
pub mod launch;
pub mod plan;
pub mod spec;
pub mod sys;
