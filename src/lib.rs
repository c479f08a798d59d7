//! rrun: a low-level OCI runtime.

pub mod check;
pub mod default_spec;
pub mod error;
pub mod features;
pub mod launch;
pub mod netdev;
pub mod plan;
pub mod rdt;
pub mod spec;
pub mod sys;
