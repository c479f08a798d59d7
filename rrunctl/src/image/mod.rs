//! What is done to images.

#![forbid(unsafe_code)]

mod spec;

pub use spec::{
    Descriptor, Empty, Health, History, ImageConfig, Index, Manifest, Platform, RootFs, RunConfig, media_type,
};

use crate::digest::Digest;
use crate::error::Result;
use crate::progress::Sink;
use crate::reference::Reference;
use crate::store::{Filter, Removed, Store, Users};
use std::io::{Read, Write};
use time::OffsetDateTime;

/// An image that is whole.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    /// The digest of its configuration.
    pub id: Digest,
    /// Its manifest: a blob.
    pub manifest: Descriptor,
    /// Its configuration, as it is understood here; the blob [`Image::id`] is the truth.
    pub config: ImageConfig,
    /// From the lowest to the topmost.
    pub layers: Vec<Layer>,
    /// When it was made; the Unix epoch where nobody says.
    pub created: OffsetDateTime,
    /// How many bytes the files of its layers have.
    pub size: u64,
    /// The image that a commit began from, if it is still known.
    pub parent: Option<Digest>,
}

/// A layer of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// The digest of its tar.
    pub diff_id: Digest,
    /// The digest of the blob.
    pub blob: Digest,
    /// The length of the blob, in bytes.
    pub size: u64,
    /// Of the blob.
    pub media_type: String,
}

/// A row of `docker history`.
#[derive(Debug, Clone, PartialEq)]
pub struct HistoryRow {
    /// Of the topmost row; the others' images are not here: `<missing>`.
    pub id: Option<Digest>,
    /// When.
    pub created: Option<OffsetDateTime>,
    /// `/bin/sh -c #(nop)  CMD ["sh"]`, in full.
    pub created_by: String,
    /// Bytes of the layer, 0 where there is none.
    pub size: u64,
    /// `Imported from -`.
    pub comment: String,
    /// Names of the image of this row.
    pub tags: Vec<String>,
}

/// What takes space.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    /// One image each, newest first.
    pub images: Vec<ImageUsage>,
    /// Bytes of all, what is shared counted once.
    pub size: u64,
    /// Bytes that removing the images that no container has would free.
    pub reclaimable: u64,
}

/// What one image takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageUsage {
    /// Which.
    pub id: Digest,
    /// Bytes of its layers.
    pub size: u64,
    /// Bytes of those of its layers that other images have too.
    pub shared: u64,
    /// How many containers were made from it.
    pub containers: u64,
}

/// What a commit adds to its base.
#[derive(Debug, Clone, Default)]
pub struct Commit {
    /// The whole configuration of the new image, changes applied.
    pub config: RunConfig,
    /// `-a`.
    pub author: String,
    /// `-m`.
    pub comment: String,
    /// What made the layer, as `docker history` shows it: the container's command.
    pub created_by: String,
    /// The names that it gets.
    pub names: Vec<Reference>,
    /// The container's id.
    pub container: String,
}

/// Reads images out of a tar of any compression: `docker save`'s of any version, an OCI layout, or both in one. Tells
/// `Loaded image: name:tag` and `Loaded image ID: sha256:…`.
///
/// # Errors
/// It is no such archive; what is in it is not what it is called; reading or writing failed.
pub fn load(_store: &Store, _archive: impl Read + Send, _sink: Sink<'_>) -> Result<Vec<Image>> {
    todo!()
}

/// Writes images, by names or ids, as one tar that is an OCI layout and what older `docker load` reads.
///
/// # Errors
/// There is no such image; reading or writing failed.
pub fn save(_store: &Store, _names: &[String], _to: impl Write) -> Result<()> {
    todo!()
}

/// Makes an image of a root filesystem's tar of any compression; `changes` are lines of a Dockerfile (`CMD ["sh"]`),
/// `source` is what history shows (`-`, a URL).
///
/// # Errors
/// A change is not understood; it is no tar; reading or writing failed.
pub fn import(
    _store: &Store,
    _archive: impl Read + Send,
    _source: &str,
    _message: &str,
    _changes: &[String],
    _platform: Option<&Platform>,
    _name: Option<&Reference>,
) -> Result<Image> {
    todo!()
}

/// Makes an image of another and one layer on top of it, which is read as a tar without compression; no base makes one
/// of the layer alone.
///
/// # Errors
/// It is no tar; reading or writing failed.
pub fn commit(
    _store: &Store,
    _base: Option<&Image>,
    _layer: impl Read + Send,
    _commit: &Commit,
) -> Result<Image> {
    todo!()
}

/// Applies a line of a Dockerfile to a configuration (`-c` of import and commit).
///
/// # Errors
/// It is not an instruction that changes a configuration, or is written wrong.
pub fn change(_config: &mut RunConfig, _line: &str) -> Result<()> {
    todo!()
}

/// `docker history`, newest first.
///
/// # Errors
/// Those of reading the store.
pub fn history(_store: &Store, _image: &Image) -> Result<Vec<HistoryRow>> {
    todo!()
}

/// `docker image inspect`: Docker's keys in Docker's order.
///
/// # Errors
/// Those of reading the store.
pub fn inspect(_store: &Store, _image: &Image) -> Result<serde_json::Value> {
    todo!()
}

/// `docker tag`.
///
/// # Errors
/// There is no such image, or `name` is not one.
pub fn tag(_store: &Store, _image: &str, _name: &str) -> Result<()> {
    todo!()
}

/// `docker rmi`: a name, or an image with its only name, or with all of them by force.
///
/// # Errors
/// There is no such image; a container has it; it has several names.
pub fn remove(
    _store: &Store,
    _name: &str,
    _force: bool,
    _prune: bool,
    _users: Users<'_>,
) -> Result<Vec<Removed>> {
    todo!()
}

/// `docker image prune`: images without a name that no container has, or with `all` every image that no container
/// has. Returns what was removed and how many bytes that freed.
///
/// # Errors
/// Those of reading and writing the store.
pub fn prune(_store: &Store, _all: bool, _filter: &Filter, _users: Users<'_>) -> Result<(Vec<Removed>, u64)> {
    todo!()
}

/// `docker system df`: what images take.
///
/// # Errors
/// Those of reading the store.
pub fn usage(_store: &Store, _users: Users<'_>) -> Result<Usage> {
    todo!()
}
