//! Layers, unpacked: lower directories for overlayfs, each once however many images have it.

#![forbid(unsafe_code)]

use crate::digest::Digest;
use crate::error::Result;
use crate::image::Image;
use std::io::Read;
use std::path::PathBuf;

/// `layers`.
#[derive(Debug, Clone)]
pub struct Layers {}

impl Layers {
    /// The tree of a layer by its diff id, if it has been unpacked. Whether a pull has to fetch it; to mount an image
    /// take [`Layers::lower`].
    pub fn tree(&self, _diff_id: &Digest) -> Option<PathBuf> {
        todo!()
    }

    /// The trees of an image, the topmost first, as overlayfs takes them.
    ///
    /// # Errors
    /// One is missing.
    pub fn lower(&self, _image: &Image) -> Result<Vec<PathBuf>> {
        todo!()
    }

    /// Unpacks a layer as it was received, and publishes it once it is whole; `on_bytes` is told how many compressed
    /// bytes have been read in all. Returns the diff id and how many bytes its files have. Two may unpack the same.
    ///
    /// # Errors
    /// It is not `expected`, no archive, or reading or writing failed.
    pub fn unpack(
        &self,
        _compressed: impl Read + Send,
        _expected: Option<&Digest>,
        _on_bytes: impl FnMut(u64) + Send,
    ) -> Result<(Digest, u64)> {
        todo!()
    }
}
