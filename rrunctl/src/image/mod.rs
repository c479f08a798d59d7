//! What is done to images.

#![forbid(unsafe_code)]

mod changes;
mod commit;
mod hello;
mod layout;
mod load;
mod save;
mod show;
mod spec;
mod usage;
mod v1;
mod words;

pub use changes::changes;
pub use commit::{Commit, commit, import};
pub use hello::{HELLO, hello};
pub use load::load;
pub use save::save;
pub use show::{HistoryRow, history, inspect};
pub use spec::{
    Descriptor, Empty, Health, History, ImageConfig, Index, Manifest, Platform, RootFs, RunConfig, media_type,
};
pub use usage::{ImageUsage, Usage, usage};

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::reference::Reference;
use crate::store::{Filter, Removed, Store, Users};
use serde_json::json;
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

/// `docker tag`.
///
/// # Errors
/// There is no such image, or `name` is not one.
pub fn tag(store: &Store, image: &str, name: &str) -> Result<()> {
    let name = Reference::parse(name)?;
    name.refuse_digest()?;
    store.images().tag(&name, &store.images().resolve(image)?)
}

/// `docker rmi`: see [`crate::store::Images::remove`].
///
/// # Errors
/// There is no such image; a container has it; it has several names.
pub fn remove(store: &Store, name: &str, force: bool, prune: bool, users: Users<'_>) -> Result<Vec<Removed>> {
    store.images().remove(name, force, prune, users)
}

/// `docker image prune`: see [`crate::store::Images::prune`].
///
/// # Errors
/// Those of reading and writing the store.
pub fn prune(store: &Store, all: bool, filter: &Filter, users: Users<'_>) -> Result<(Vec<Removed>, u64)> {
    store.images().prune(all, filter, users)
}

/// The bytes of a manifest that is made here.
fn manifest(media_type: &str, config: &Descriptor, layers: &[Descriptor]) -> Result<Vec<u8>> {
    let manifest = json!({"schemaVersion": 2, "mediaType": media_type, "config": config, "layers": layers});
    serde_json::to_vec(&manifest).map_err(|e| Error::system(e.to_string()))
}

#[cfg(test)]
mod tests;
