//! The client of the distribution-spec.

#![forbid(unsafe_code)]
