//! Volumes.

#![forbid(unsafe_code)]
