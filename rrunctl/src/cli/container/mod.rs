//! The commands about containers.

#![forbid(unsafe_code)]

pub(super) mod attach;
pub(super) mod cp;
pub(super) mod exec;
mod flags;
pub(super) mod images;
pub(super) mod lifecycle;
pub(super) mod run;
pub(super) mod update;
