//! The commands about containers.

#![forbid(unsafe_code)]

pub(super) mod lifecycle;
