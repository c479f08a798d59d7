//! The words between rrunctl and `rrunmon`, and what `rrunmon` does.

#![forbid(unsafe_code)]
