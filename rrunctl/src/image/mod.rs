//! What is done to images.

#![forbid(unsafe_code)]
