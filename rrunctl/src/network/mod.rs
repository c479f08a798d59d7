//! Networks, by netlink in this process.

#![forbid(unsafe_code)]
