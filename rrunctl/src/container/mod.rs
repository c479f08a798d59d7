//! Containers: what was asked for, what becomes of it.

#![forbid(unsafe_code)]

pub mod types;
