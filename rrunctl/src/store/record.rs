//! The file of an image: which manifests lead to its configuration, and what was worked out when it was installed.

#![forbid(unsafe_code)]

use super::Store;
use crate::digest::Digest;
use crate::error::{Context as _, Error, Result};
use crate::home;
use crate::image::{Descriptor, Image, ImageConfig, Layer};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::PathBuf;

/// The longest manifest and configuration that are read, in bytes (containerd and Docker refuse more than 4 and 8 MiB).
pub(super) const DOCUMENT: u64 = 8 << 20;

/// `images/HEX.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Record {
    /// The newest last. Tools that compress again make other manifests of the same configuration.
    pub manifests: Vec<Variant>,
    /// What the configuration says, so that the layers are known if that is damaged; older records have it not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub diff_ids: Vec<Digest>,
    /// Bytes of the files of its layers.
    pub size: u64,
    /// What a commit began from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Digest>,
}

/// A manifest, and the blobs of the layers, from the lowest to the topmost.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Variant {
    #[serde(flatten)]
    pub manifest: Descriptor,
    pub layers: Vec<Descriptor>,
}

impl Record {
    /// The image with one of its manifests, or with the newest.
    pub fn image(&self, store: &Store, id: Digest, manifest: Option<Digest>) -> Result<Image> {
        let named = self.manifests.iter().find(|variant| Some(variant.manifest.digest) == manifest);
        let variant = named
            .or_else(|| self.manifests.last())
            .ok_or_else(|| Error::system(format!("image {id}: its record has no manifest")))?;
        let config = store.config(&id)?;
        let layers = config.rootfs.diff_ids.iter().zip(&variant.layers);
        let layers = layers.map(|(diff_id, blob)| Layer {
            diff_id: *diff_id,
            blob: blob.digest,
            size: blob.size,
            media_type: blob.media_type.clone(),
        });
        Ok(Image {
            id,
            manifest: variant.manifest.clone(),
            layers: layers.collect(),
            created: config.created(),
            config,
            size: self.size,
            parent: self.parent,
        })
    }
}

/// What an image's record is called after the image was removed while a stopped container had it: its layers stay.
const GONE: &str = "removed";

impl Store {
    pub(super) fn record_path(&self, id: &Digest) -> PathBuf {
        self.home.kept("images").join(format!("{}.json", id.hex()))
    }

    /// Where the record is while the image is nobody's but a container's.
    pub(super) fn gone_path(&self, id: &Digest) -> PathBuf {
        self.record_path(id).with_extension(GONE)
    }

    pub(super) fn record(&self, id: &Digest) -> Result<Option<Record>> {
        read(&self.record_path(id))
    }

    pub(super) fn gone_record(&self, id: &Digest) -> Result<Option<Record>> {
        read(&self.gone_path(id))
    }

    /// An image with one of its manifests, or with the newest; nothing if there is no such image, or if it is removed
    /// while it is read.
    pub(super) fn image(&self, id: &Digest, manifest: Option<Digest>) -> Result<Option<Image>> {
        let Some(record) = self.record(id)? else { return Ok(None) };
        match record.image(self, *id, manifest) {
            Err(_) if matches!(self.record(id), Ok(None)) => Ok(None),
            image => image.map(Some),
        }
    }

    /// The configuration of an image.
    pub(super) fn config(&self, id: &Digest) -> Result<ImageConfig> {
        let config = self.blobs().read(id, DOCUMENT).and_then(|bytes| ImageConfig::parse(&bytes));
        config.map_err(|e| e.context(format!("image {id}")).remedy("pull or load it again, or remove it"))
    }

    /// The layers of an image, whichever of its record and its configuration is damaged.
    pub(super) fn diff_ids(&self, id: &Digest, record: &Result<Record>) -> Result<Vec<Digest>> {
        match record {
            Ok(record) if !record.diff_ids.is_empty() => Ok(record.diff_ids.clone()),
            _ => Ok(self.config(id)?.rootfs.diff_ids),
        }
    }

    /// The ids of all images, and of those that only containers have.
    pub(super) fn ids(&self) -> Result<(Vec<Digest>, Vec<Digest>)> {
        let dir = self.home.kept("images");
        let (mut ids, mut gone) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(&dir).context(|| format!("open {}", dir.display()))? {
            let name = entry.context(|| format!("read {}", dir.display()))?.file_name();
            match name.to_str().and_then(|name| name.split_once('.')) {
                Some((hex, "json")) => ids.extend(Digest::from_hex(hex)),
                Some((hex, GONE)) => gone.extend(Digest::from_hex(hex)),
                _ => {}
            }
        }
        Ok((ids, gone))
    }

    /// Every record that keeps content, also one that is damaged.
    pub(super) fn records(&self) -> Result<Vec<(Digest, Result<Record>)>> {
        let (ids, gone) = self.ids()?;
        let paths = ids.iter().map(|id| (*id, self.record_path(id)));
        let paths = paths.chain(gone.iter().map(|id| (*id, self.gone_path(id))));
        let mut records = Vec::new();
        for (id, path) in paths {
            records.extend(read(&path).transpose().map(|record| (id, record)));
        }
        Ok(records)
    }
}

fn read(path: &std::path::Path) -> Result<Option<Record>> {
    let Some(bytes) = home::read(path)? else { return Ok(None) };
    match serde_json::from_slice::<Record>(&bytes) {
        Ok(record) if record.manifests.is_empty() => {
            Err(Error::system(format!("{}: it has no manifest", path.display())))
        }
        Ok(record) => Ok(Some(record)),
        Err(e) => Err(Error::system(format!("{}: {e}", path.display()))),
    }
}

/// Whether an error is of one file that is damaged, and not of a process or a disk that can do nothing: then the others
/// are used without it.
pub(super) fn is_damage(e: &Error) -> bool {
    e.errno().is_none_or(|errno| matches!(errno, Errno::IO | Errno::UCLEAN | Errno::ISDIR))
}
