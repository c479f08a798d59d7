//! Starting processes in containers.

#![forbid(unsafe_code)]

pub mod fault;
pub mod protocol;

pub use fault::{At, Fault, Step};
