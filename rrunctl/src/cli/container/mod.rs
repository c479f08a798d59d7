//! The commands about containers.

#![forbid(unsafe_code)]

pub(super) mod cp;
pub(super) mod images;
pub(super) mod lifecycle;
