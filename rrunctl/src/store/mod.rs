//! What is kept of images.

#![forbid(unsafe_code)]
