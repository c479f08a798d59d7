//! The commands about containers.

#![forbid(unsafe_code)]

pub(super) mod attach;
pub(super) mod cp;
mod flags;
pub(super) mod images;
pub(super) mod lifecycle;
pub(super) mod run;
pub(super) mod update;
//! Containers. So far their flags; what makes and runs them comes with the engine.

#![forbid(unsafe_code)]

#[allow(dead_code, unused_imports, reason = "run, create, update and exec are not there yet")]
mod flags;
