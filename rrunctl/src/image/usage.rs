//! `docker system df`: what images take.

#![forbid(unsafe_code)]

use crate::digest::Digest;
use crate::error::Result;
use crate::store::{Store, Users};
use std::collections::BTreeMap;

/// What takes space.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    /// One image each, newest first.
    pub images: Vec<ImageUsage>,
    /// Bytes of all layers, unpacked and as they were received, what is shared counted once.
    pub size: u64,
    /// Bytes that removing the images that no container has would free.
    pub reclaimable: u64,
}

/// What one image takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageUsage {
    /// Which.
    pub id: Digest,
    /// Bytes of the files of its layers.
    pub size: u64,
    /// Bytes of those of its layers that other images have too.
    pub shared: u64,
    /// How many containers were made from it.
    pub containers: u64,
}

/// What is known of a layer or a blob.
#[derive(Default)]
struct Shared {
    size: u64,
    images: u64,
    used: bool,
}

/// `docker system df`: what images take.
///
/// # Errors
/// Those of reading the store.
pub fn usage(store: &Store, users: Users<'_>) -> Result<Usage> {
    let images = store.images().list()?;
    let mut trees: BTreeMap<Digest, Shared> = BTreeMap::new();
    let mut blobs: BTreeMap<Digest, Shared> = BTreeMap::new();
    let mut containers = Vec::new();
    for image in &images {
        let users = users(&image.id)?.len() as u64;
        containers.push(users);
        let mut seen = Vec::new();
        for layer in &image.layers {
            let size = store.layers().size(&layer.diff_id);
            for (all, digest, size) in
                [(&mut trees, layer.diff_id, size), (&mut blobs, layer.blob, layer.size)]
            {
                let shared = all.entry(digest).or_default();
                shared.size = size;
                shared.used |= users > 0;
            }
            // An image may have a layer twice.
            if !seen.contains(&layer.diff_id) {
                seen.push(layer.diff_id);
                trees.entry(layer.diff_id).or_default().images += 1;
            }
        }
    }
    let all = || trees.values().chain(blobs.values());
    Ok(Usage {
        size: all().map(|shared| shared.size).sum(),
        reclaimable: all().filter(|shared| !shared.used).map(|shared| shared.size).sum(),
        images: images
            .iter()
            .zip(containers)
            .map(|(image, containers)| {
                let layers = image.layers.iter().filter_map(|layer| trees.get(&layer.diff_id));
                let shared = layers.filter(|layer| layer.images > 1).map(|layer| layer.size).sum();
                ImageUsage { id: image.id, size: image.size, shared, containers }
            })
            .collect(),
    })
}
