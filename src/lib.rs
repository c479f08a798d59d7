//! rrun: a low-level OCI runtime.

pub mod error;
pub mod launch;
pub mod plan;
pub mod rootfs;
pub mod spec;
pub mod sys;
