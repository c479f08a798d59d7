//! The commands about containers.

#![forbid(unsafe_code)]

pub(super) mod cp;
pub(super) mod images;
pub(super) mod attach;
pub(super) mod lifecycle;
