//! Containers: what was asked for, what becomes of it.

#![forbid(unsafe_code)]

pub mod apparmor;
pub mod capability;
pub mod device;
pub mod files;
pub mod host;
pub mod inspect;
pub mod link;
pub mod merge;
pub mod mount;
pub mod name;
pub mod record;
pub mod seccomp;
pub mod security;
pub mod signal;
pub mod spec;
pub mod status;
pub mod types;
pub mod user;
pub mod validate;
