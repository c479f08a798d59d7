//! Names of images.

#![forbid(unsafe_code)]
