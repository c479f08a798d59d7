//! Compression and tar: a layer's bytes to a tree, and a tree to a layer's bytes.

#![forbid(unsafe_code)]
