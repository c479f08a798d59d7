//! `daemon.json`.

#![forbid(unsafe_code)]
