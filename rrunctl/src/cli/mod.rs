//! The command line.

#![forbid(unsafe_code)]

mod human;
mod progress;
mod table;
mod template;
