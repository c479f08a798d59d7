//! Images that are whole, and the names that refer to them.

#![forbid(unsafe_code)]

use super::Store;
use super::record::{DOCUMENT, Record, Variant, is_damage};
use crate::digest::Digest;
use crate::error::{Context as _, Error, Result};
use crate::home::{self, Lock};
use crate::image::{Descriptor, Image, ImageConfig, Manifest};
use crate::reference::Reference;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use time::OffsetDateTime;

/// `images` and `refs`.
#[derive(Debug, Clone)]
pub struct Images {
    pub(super) store: Store,
}

/// Which images are listed or pruned; what is not given does not matter.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Those too that have no name and from which others were made.
    pub all: bool,
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
    pub(super) fn new(store: Store) -> Self {
        Self { store }
    }

    /// An image by its id, if there is one.
    ///
    /// # Errors
    /// `No such image: sha256:…`.
    pub fn get(&self, id: &Digest) -> Result<Image> {
        let image = self.store.image(id, None)?;
        image.ok_or_else(|| Error::not_found(format!("No such image: {id}")))
    }

    /// The image that a container was made of, also where it has been removed by force since: the layers stay with the
    /// container.
    ///
    /// # Errors
    /// `No such image: sha256:…`.
    pub fn of_container(&self, id: &Digest) -> Result<Image> {
        if let Some(image) = self.store.image(id, None)? {
            return Ok(image);
        }
        match self.store.gone_record(id)? {
            Some(record) => record.image(&self.store, *id, None),
            // It may have come back in between.
            None => self.get(id),
        }
    }

    /// All, newest first; without those that [`Images::damaged`] tells of.
    ///
    /// # Errors
    /// Those of readdir(3) and read(2).
    pub fn list(&self) -> Result<Vec<Image>> {
        Ok(self.all()?.0)
    }

    /// What is damaged on the disk, one error for each image and each name: lists are without them, nothing of them is
    /// removed but by their own removal, and a pull or a load of the same image repairs them.
    ///
    /// # Errors
    /// Those of readdir(3) and read(2).
    pub fn damaged(&self) -> Result<Vec<Error>> {
        let mut damaged = self.all()?.1;
        damaged.extend(self.store.all_names()?.1);
        Ok(damaged)
    }

    fn all(&self) -> Result<(Vec<Image>, Vec<Error>)> {
        let (mut images, mut damaged) = (Vec::new(), Vec::new());
        for id in self.store.ids()?.0 {
            match self.store.image(&id, None) {
                Ok(image) => images.extend(image),
                Err(e) if is_damage(&e) => damaged.push(e),
                Err(e) => return Err(e),
            }
        }
        images.sort_by_key(|image| (Reverse(image.created), image.id));
        Ok((images, damaged))
    }

    /// Those that `filter` lets through, newest first.
    ///
    /// # Errors
    /// What `before` or `since` names is not there.
    pub fn find(&self, filter: &Filter) -> Result<Vec<Image>> {
        let instant = |name: &Option<String>| {
            name.as_ref().map(|name| self.resolve(name).map(|image| image.created)).transpose()
        };
        let (before, since) = (instant(&filter.before)?, instant(&filter.since)?);
        let mut names: BTreeMap<Digest, Vec<Reference>> = BTreeMap::new();
        for (name, id) in self.references()? {
            names.entry(id).or_default().push(name);
        }
        let mut images = self.list()?;
        let parents: BTreeSet<Digest> = images.iter().filter_map(|image| image.parent).collect();
        images.retain(|image| {
            let names = names.get(&image.id).map_or(&[][..], |names| names);
            let tagged = names.iter().any(|name| name.tag.is_some());
            let hidden = names.is_empty() && parents.contains(&image.id) && !filter.all;
            let label = |wanted: &String| has_label(image, wanted);
            !hidden
                && filter.dangling.is_none_or(|dangling| dangling != tagged)
                && before.is_none_or(|instant| image.created < instant)
                && since.is_none_or(|instant| image.created > instant)
                && filter.until.is_none_or(|instant| image.created < instant)
                && filter.labels.iter().all(label)
                && !filter.without_labels.iter().any(label)
                && (filter.reference.is_empty()
                    || names.iter().any(|name| filter.reference.iter().any(|pattern| name.matches(pattern))))
        });
        Ok(images)
    }

    /// Every name and the image that it refers to.
    ///
    /// # Errors
    /// Those of readdir(3) and read(2).
    pub fn references(&self) -> Result<BTreeMap<Reference, Digest>> {
        Ok(self.store.names()?.into_iter().map(|(name, found)| (name, found.image)).collect())
    }

    /// The names of an image: those with tags, then those with digests of each repository.
    ///
    /// # Errors
    /// Those of readdir(3) and read(2).
    pub fn references_of(&self, id: &Digest) -> Result<Vec<Reference>> {
        Ok(self.references()?.into_iter().filter(|(_, image)| image == id).map(|(name, _)| name).collect())
    }

    /// When the image was last given a name, if it has one.
    ///
    /// # Errors
    /// Those of readdir(3) and read(2).
    pub fn last_named(&self, id: &Digest) -> Result<Option<OffsetDateTime>> {
        Ok(self.references_of(id)?.iter().filter_map(|name| self.store.named_at(name)).max())
    }

    /// Publishes an image under `names`, which may be none: all of it appears, or nothing. Its blobs and its layers
    /// must be there, and the store held since before they were looked for.
    ///
    /// # Errors
    /// A blob or a layer is missing; what was given is broken; those of syncfs(2) and rename(2).
    pub fn install(
        &self,
        manifest: &[u8],
        manifest_media_type: &str,
        config: &[u8],
        names: &[Reference],
    ) -> Result<Image> {
        self.install_child(manifest, manifest_media_type, config, names, None)
    }

    /// The same, of an image made from another.
    pub(crate) fn install_child(
        &self,
        manifest: &[u8],
        manifest_media_type: &str,
        config: &[u8],
        names: &[Reference],
        parent: Option<Digest>,
    ) -> Result<Image> {
        let store = &self.store;
        if manifest.len().max(config.len()) as u64 > DOCUMENT {
            return Err(Error::invalid(format!("manifest or configuration of more than {DOCUMENT} bytes")));
        }
        let id = Digest::of(config);
        let parsed = Manifest::parse(manifest)?;
        if parsed.config.digest != id {
            return Err(Error::invalid(format!(
                "the manifest's configuration is {}, not {id}",
                parsed.config.digest
            )));
        }
        let diff_ids = ImageConfig::parse(config)?.rootfs.diff_ids;
        if diff_ids.len() != parsed.layers.len() {
            return Err(Error::invalid(format!(
                "image {id}: its configuration has {} layers and its manifest {}",
                diff_ids.len(),
                parsed.layers.len()
            )));
        }
        for layer in &parsed.layers {
            let size = store.blobs().size(&layer.digest)?;
            if size != Some(layer.size) {
                return Err(Error::invalid(format!(
                    "layer {}: {} bytes are here, and the manifest says {}",
                    layer.digest,
                    size.map_or_else(|| "no".to_owned(), |size| size.to_string()),
                    layer.size
                )));
            }
        }
        let size = store.layers().complete(&diff_ids, &parsed.layers)?;
        store.blobs().put(config)?;
        let digest = store.blobs().put(manifest)?;
        self.flush()?;

        let _changing = Lock::exclusive(&store.image_lock())?;
        let known = match store.record(&id) {
            Err(e) if is_damage(&e) => None,
            record => record?,
        };
        let mut record =
            known.unwrap_or_else(|| Record { manifests: Vec::new(), diff_ids: Vec::new(), size, parent });
        record.diff_ids = diff_ids;
        record.manifests.retain(|variant| variant.manifest.digest != digest);
        record.manifests.push(Variant {
            manifest: Descriptor::new(manifest_media_type, digest, manifest.len() as u64),
            layers: parsed.layers,
        });
        let image = record.image(store, id, Some(digest))?;
        let bytes = serde_json::to_vec(&record).map_err(|e| Error::system(e.to_string()))?;
        home::replace(&store.record_path(&id), 0o600, &bytes)?;
        // Containers had it after it was removed; now it is there again.
        let _ = fs::remove_file(store.gone_path(&id));
        for name in names {
            store.write_name(name, &image)?;
        }
        Ok(image)
    }

    /// Lets a name refer to an image, whatever it referred to before. A reference with a digest is kept without its
    /// tag.
    ///
    /// # Errors
    /// The image has been removed; those of write(2) and rename(2).
    pub fn tag(&self, name: &Reference, image: &Image) -> Result<()> {
        let _changing = Lock::exclusive(&self.store.image_lock())?;
        if !self.store.record_path(&image.id).exists() {
            return Err(Error::not_found(format!("No such image: {}", image.id)));
        }
        self.store.write_name(name, image)
    }

    /// Forgets a name; returns whether there was one.
    ///
    /// # Errors
    /// Those of unlink(2).
    pub fn untag(&self, name: &Reference) -> Result<bool> {
        let _changing = Lock::exclusive(&self.store.image_lock())?;
        self.store.remove_name(name)
    }

    /// While it is held no name and no image is added or removed: by whoever finds an image and makes a container of
    /// it, until the container is written. Do not call `install`, `tag`, `untag` or `remove` meanwhile.
    ///
    /// # Errors
    /// Those of open(2) and flock(2).
    pub fn keep(&self) -> Result<Lock> {
        Lock::shared(&self.store.image_lock())
    }

    /// Everything that was written is on the disk.
    fn flush(&self) -> Result<()> {
        let root = self.store.home.root();
        let dir = File::open(root).context(|| format!("open {}", root.display()))?;
        rustix::fs::syncfs(&dir).context(|| format!("syncfs {}", root.display()))
    }
}

fn has_label(image: &Image, wanted: &str) -> bool {
    let labels = &image.config.config.labels;
    match wanted.split_once('=') {
        Some((key, value)) => labels.get(key).is_some_and(|found| found == value),
        None => labels.contains_key(wanted),
    }
}
