//! Contents by their digest.

#![forbid(unsafe_code)]

use crate::digest::Digest;
use crate::error::Result;
use std::fs::File;
use std::io::{self, Write};

/// `blobs/sha256`.
#[derive(Debug, Clone)]
pub struct Blobs {}

/// A blob that is being written; nobody sees it before [`BlobWriter::commit`], and dropping it leaves nothing.
#[derive(Debug)]
pub struct BlobWriter {}

impl Blobs {
    /// The content, if it is here.
    ///
    /// # Errors
    /// Those of open(2).
    pub fn open(&self, _digest: &Digest) -> Result<Option<File>> {
        todo!()
    }

    /// The length in bytes, if it is here.
    ///
    /// # Errors
    /// Those of stat(2).
    pub fn size(&self, _digest: &Digest) -> Result<Option<u64>> {
        todo!()
    }

    /// A document, verified.
    ///
    /// # Errors
    /// It is not here, is longer than `limit` bytes, or is not what it is called.
    pub fn read(&self, _digest: &Digest, _limit: u64) -> Result<Vec<u8>> {
        todo!()
    }

    /// Keeps a document.
    ///
    /// # Errors
    /// Those of open(2), write(2) and linkat(2).
    pub fn put(&self, _bytes: &[u8]) -> Result<Digest> {
        todo!()
    }

    /// Keeps what is written.
    ///
    /// # Errors
    /// Those of open(2).
    pub fn writer(&self) -> Result<BlobWriter> {
        todo!()
    }
}

impl BlobWriter {
    /// How many bytes have been written.
    pub fn length(&self) -> u64 {
        todo!()
    }

    /// Makes the blob visible; that it is there already is no error.
    ///
    /// # Errors
    /// It is not `expected`; those of fdatasync(2) and linkat(2).
    pub fn commit(self, _expected: Option<&Digest>) -> Result<(Digest, u64)> {
        todo!()
    }
}

impl Write for BlobWriter {
    fn write(&mut self, _bytes: &[u8]) -> io::Result<usize> {
        todo!()
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
