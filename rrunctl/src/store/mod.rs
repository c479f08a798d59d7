//! What is kept of images: blobs as they were received, layers unpacked, images that are whole, and their names.
//!
//! # Who may remove what, while others are at work
//!
//! Whoever brings content in has the store [held](Store::hold) from its first blob to the image's names; several may.
//! Content that no image has is removed only while nobody holds the store: by whoever removed an image, or by the
//! last who lets go. Images and names change under a second lock, for moments only ([`Images::keep`]).
//!
//! # What is on the disk for certain
//!
//! Nothing is flushed before an image is whole; then the file system is, once, and after that the image appears. So
//! what no image has may be damaged by a power cut, and the first who opens the store after a boot removes it.
//!
//! # What is damaged all the same
//!
//! A disk may give back other bytes than it took. An image whose record or configuration is damaged, and a name that
//! is, are left out of lists, and [`Images::damaged`] names them; the others are used as ever. Content that a damaged
//! image may have is kept until that is repaired, by a pull or a load, or removed.

#![forbid(unsafe_code)]

mod ahead;
mod blobs;
mod collect;
mod images;
mod layers;
mod names;
mod record;
mod remove;
mod resolve;

pub use blobs::{BlobWriter, Blobs};
pub use images::{Filter, Images};
pub use layers::Layers;
pub use remove::{Removed, User, Users};

use crate::error::Result;
use crate::home::{self, Home, Lock};
use std::path::PathBuf;

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
    /// Opens the store of an engine. The first to do so after a boot removes what no image has.
    ///
    /// # Errors
    /// Those of open(2) and flock(2).
    pub fn open(home: &Home) -> Result<Self> {
        let store = Self { home: home.clone() };
        let seen = home.run().join("store");
        let boot = home::read("/proc/sys/kernel/random/boot_id".as_ref())?.unwrap_or_default();
        if home::read(&seen)?.as_ref() != Some(&boot) {
            let _nobody_else = Lock::exclusive(&store.content_lock())?;
            if home::read(&seen)?.as_ref() != Some(&boot) {
                let (swept, collected) = (home.sweep(), store.collect_locked(true));
                if swept.is_err() || collected.is_err() {
                    // What cannot be removed makes nothing else unusable; the next removal or prune says why.
                    store.mark_garbage()?;
                }
                home::replace(&seen, 0o600, &boot)?;
            }
        }
        Ok(store)
    }

    /// Contents by digest, as they were received.
    pub fn blobs(&self) -> Blobs {
        Blobs::new(self.home.clone())
    }

    /// Layers, unpacked.
    pub fn layers(&self) -> Layers {
        Layers::new(self.home.clone())
    }

    /// Images and their names.
    pub fn images(&self) -> Images {
        Images::new(self.clone())
    }

    /// To be held by whoever brings content in, from before the first look at what is there until after
    /// [`Images::install`]: nothing that is there disappears meanwhile.
    ///
    /// # Errors
    /// Those of open(2) and flock(2).
    pub fn hold(&self) -> Result<Hold> {
        Ok(Hold { lock: Some(Lock::shared(&self.content_lock())?), store: self.clone() })
    }

    /// Held shared by [`Hold`], exclusively while content is removed.
    fn content_lock(&self) -> PathBuf {
        self.home.kept("content.lock")
    }

    /// Held while images and names change.
    fn image_lock(&self) -> PathBuf {
        self.home.kept("images.lock")
    }

    /// There while content may be there that no image has.
    fn garbage(&self) -> PathBuf {
        self.home.kept("garbage")
    }

    /// There while somebody removes that, or could not.
    fn garbage_seen(&self) -> PathBuf {
        self.home.kept("garbage.seen")
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.lock.take();
        if self.store.garbage().exists() || self.store.garbage_seen().exists() {
            // Whoever is last does it; if it fails, the next removal or prune does, and says why.
            let _ = self.store.collect();
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
