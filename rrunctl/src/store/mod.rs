//! What is kept of images: blobs as they were received, layers unpacked, images that are whole, and their names.
//!
//! # Who may remove what, while others are at work
//!
//! Whoever brings content in has the store [held](Store::hold) from its first blob to the image's names; several may.
//! Content that no image has is removed only while nobody holds the store: by whoever removed an image, or by the
//! last who lets go. Images and names change under a second lock, for moments only ([`Images::keep`]).

#![forbid(unsafe_code)]

mod blobs;
mod images;
mod layers;

pub use blobs::{BlobWriter, Blobs};
pub use images::{Filter, Images, Removed, User, Users};
pub use layers::Layers;

use crate::error::Result;
use crate::home::{Home, Lock};

/// The store of an engine.
#[derive(Debug, Clone)]
pub struct Store {
    home: Home,
}

/// Keeps content that no image has yet; see [`Store::hold`].
#[derive(Debug)]
pub struct Hold {
    lock: Option<Lock>,
    store: Store,
}

impl Store {
    /// Opens the store of an engine. The first to do so after a boot removes what no image has: after a power cut
    /// only what an image has is known to be on the disk.
    ///
    /// # Errors
    /// Those of open(2) and flock(2).
    pub fn open(home: &Home) -> Result<Self> {
        Ok(Self { home: home.clone() })
    }

    /// Contents by digest, as they were received.
    pub fn blobs(&self) -> Blobs {
        todo!()
    }

    /// Layers, unpacked.
    pub fn layers(&self) -> Layers {
        todo!()
    }

    /// Images and their names.
    pub fn images(&self) -> Images {
        todo!()
    }

    /// To be held by whoever brings content in, from before the first look at what is there until after
    /// [`Images::install`]: nothing that is there disappears meanwhile.
    ///
    /// # Errors
    /// Those of open(2) and flock(2).
    pub fn hold(&self) -> Result<Hold> {
        todo!()
    }
}
