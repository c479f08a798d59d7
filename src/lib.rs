//! rrun: a low-level OCI runtime.

pub mod bundle;
pub mod cgroup;
pub mod check;
pub mod cli;
pub mod commands;
pub mod console;
pub mod container;
pub mod criu;
pub mod default_spec;
pub mod error;
pub mod exe;
pub mod features;
pub mod hooks;
pub mod host;
pub mod ids;
pub mod launch;
pub mod log;
pub mod netdev;
pub mod notify;
pub mod oci_state;
pub mod plan;
pub mod rdt;
pub mod rootfs;
pub mod spec;
pub mod state;
pub mod sys;
