//! Images that are whole, and the names that refer to them.

#![forbid(unsafe_code)]

use crate::digest::Digest;
use crate::error::Result;
use crate::home::Lock;
use crate::image::Image;
use crate::reference::Reference;
use std::collections::BTreeMap;
use time::OffsetDateTime;

/// `images` and `refs`.
#[derive(Debug, Clone)]
pub struct Images {}

/// A container that has an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The container's id.
    pub id: String,
    /// Whether it runs (or is paused).
    pub running: bool,
    /// What it was created from, as it was written: `busybox:latest`.
    pub image: String,
}

/// The containers that were created from an image, by its id.
pub type Users<'a> = &'a dyn Fn(&Digest) -> Result<Vec<User>>;

/// What became of an image that was removed, in the order of Docker's lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removed {
    /// `Untagged: busybox:latest`
    Untagged(String),
    /// `Deleted: sha256:…`
    Deleted(Digest),
}

/// Which images are listed or pruned; what is not given does not matter.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Names or patterns of them (`busybox`, `*/busybox:1*`); any of them.
    pub reference: Vec<String>,
    /// `key` or `key=value`; all of them.
    pub labels: Vec<String>,
    /// `key` or `key=value`; none of them.
    pub without_labels: Vec<String>,
    /// Those without a name, or those with one.
    pub dangling: Option<bool>,
    /// Made before this image.
    pub before: Option<String>,
    /// Made after this image.
    pub since: Option<String>,
    /// Made before this instant.
    pub until: Option<OffsetDateTime>,
}

impl Images {
    /// An image by its id, if there is one.
    ///
    /// # Errors
    /// `No such image: sha256:…`.
    pub fn get(&self, _id: &Digest) -> Result<Image> {
        todo!()
    }

    /// All, newest first.
    ///
    /// # Errors
    /// Those of readdir(3) and read(2).
    pub fn list(&self) -> Result<Vec<Image>> {
        todo!()
    }

    /// Those that `filter` lets through, newest first.
    ///
    /// # Errors
    /// What `before` or `since` names is not there.
    pub fn find(&self, _filter: &Filter) -> Result<Vec<Image>> {
        todo!()
    }

    /// Every name and the image that it refers to.
    ///
    /// # Errors
    /// Those of readdir(3) and read(2).
    pub fn references(&self) -> Result<BTreeMap<Reference, Digest>> {
        todo!()
    }

    /// The names of an image, in alphabetical order: those with tags and those with digests.
    ///
    /// # Errors
    /// Those of readdir(3) and read(2).
    pub fn references_of(&self, _id: &Digest) -> Result<Vec<Reference>> {
        todo!()
    }

    /// Finds what somebody wrote: a name, `name@sha256:…`, a long id or the first digits of one. The image has the
    /// manifest that the name had, where several have the same configuration.
    ///
    /// # Errors
    /// `No such image: x:latest`; the digits are those of several.
    pub fn resolve(&self, _text: &str) -> Result<Image> {
        todo!()
    }

    /// Publishes an image under `names`, which may be none: all of it appears, or nothing. Its blobs and its layers
    /// must be there, and the store held since before they were looked for.
    ///
    /// # Errors
    /// A blob or a layer is missing; what was given is broken; those of syncfs(2) and rename(2).
    pub fn install(
        &self,
        _manifest: &[u8],
        _manifest_media_type: &str,
        _config: &[u8],
        _names: &[Reference],
    ) -> Result<Image> {
        todo!()
    }

    /// Lets a name refer to an image, whatever it referred to before. A reference with a digest is kept without its
    /// tag.
    ///
    /// # Errors
    /// The image has been removed; those of write(2) and rename(2).
    pub fn tag(&self, _name: &Reference, _image: &Image) -> Result<()> {
        todo!()
    }

    /// Forgets a name; returns whether there was one.
    ///
    /// # Errors
    /// Those of unlink(2).
    pub fn untag(&self, _name: &Reference) -> Result<bool> {
        todo!()
    }

    /// While it is held no name and no image is added or removed: by whoever finds an image and makes a container of
    /// it, until the container is written. Do not call `install`, `tag`, `untag` or `remove` meanwhile.
    ///
    /// # Errors
    /// Those of open(2) and flock(2).
    pub fn keep(&self) -> Result<Lock> {
        todo!()
    }
}
