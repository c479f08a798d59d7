//! Removes content that no image has.

#![forbid(unsafe_code)]

use super::{Store, layers};
use crate::digest::Digest;
use crate::error::{Context as _, Error, Result};
use crate::home::{self, Lock};
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

impl Store {
    /// Removes content that no image has, unless somebody holds the store: then the last who does removes it. Returns
    /// how many bytes that freed.
    ///
    /// # Errors
    /// Those of readdir(3), unlink(2) and rename(2).
    pub(crate) fn collect(&self) -> Result<u64> {
        // Before the lock is tried: whoever lets go after that sees it.
        self.mark_garbage()?;
        let mut freed = 0;
        // Who failed to get the lock since has left another mark.
        while self.garbage().exists() {
            let Some(_nobody_else) = Lock::try_exclusive(&self.content_lock())? else { break };
            freed += self.collect_locked(false)?;
        }
        Ok(freed)
    }

    /// Says that content may be there that no image has.
    pub(crate) fn mark_garbage(&self) -> Result<()> {
        let path = self.garbage();
        fs::write(&path, []).context(|| format!("write {}", path.display()))
    }

    /// `after_boot`: what no image has may be torn.
    pub(super) fn collect_locked(&self, after_boot: bool) -> Result<u64> {
        // Out of the way before the images are looked at: what is marked after that is for another look.
        match fs::rename(self.garbage(), self.garbage_seen()) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(Error::from(e).context(format!("rename {}", self.garbage().display())));
            }
            _ => {}
        }
        let (mut blobs, mut layers) = (BTreeSet::new(), BTreeSet::new());
        // Else one that is renamed at this moment, as its image is removed, is found under neither name.
        let changing = Lock::shared(&self.image_lock())?;
        let records = self.records()?;
        drop(changing);
        // Nobody knows which content is that of an image whose record or configuration is damaged.
        let (mut any_blob, mut any_layer) = (false, false);
        for (id, record) in &records {
            blobs.insert(*id);
            match record {
                Ok(record) => {
                    for variant in &record.manifests {
                        blobs.insert(variant.manifest.digest);
                        blobs.extend(variant.layers.iter().map(|layer| layer.digest));
                    }
                }
                Err(_) => any_blob = true,
            }
            match self.diff_ids(id, record) {
                Ok(diff_ids) => {
                    layers.extend(layers::chain(&diff_ids));
                    layers.extend(diff_ids);
                }
                Err(_) => any_layer = true,
            }
        }
        let is_wanted = |digest: &Digest| {
            blobs.contains(digest)
                || any_blob && (!after_boot || self.blobs().is_whole(digest).unwrap_or(false))
        };
        let blobs = remove_others(&self.blobs().dir(), is_wanted, home::remove_tree);
        // A tree is moved away first: half of one shall not be taken for the layer after a kill.
        let is_wanted = |digest: &Digest| any_layer || layers.contains(digest);
        let layers = remove_others(&self.home.kept("layers"), is_wanted, |path| {
            let scratch = self.home.scratch("removed")?;
            fs::rename(path, scratch.path().join("layer")).context(|| format!("rename {}", path.display()))
        });
        let mut freed = blobs? + layers?;
        {
            let _changing = Lock::exclusive(&self.image_lock())?;
            for dir in ["refs", "images"] {
                freed += remove_unfinished(&self.home.kept(dir))?;
            }
        }
        if !any_blob && !any_layer {
            home::remove_tree(&self.garbage_seen())?;
        }
        Ok(freed)
    }
}

/// Removes what is not wanted; what cannot be removed does not keep the rest.
fn remove_others(
    dir: &Path,
    is_wanted: impl Fn(&Digest) -> bool,
    remove: impl Fn(&Path) -> Result<()>,
) -> Result<u64> {
    let (mut freed, mut failed) = (0, Ok(()));
    for entry in fs::read_dir(dir).context(|| format!("open {}", dir.display()))? {
        let entry = entry.context(|| format!("read {}", dir.display()))?;
        let digest = entry.file_name().to_str().and_then(Digest::from_hex);
        if !digest.is_some_and(|digest| is_wanted(&digest)) {
            freed += home::size(&entry.path());
            let removed = remove(&entry.path());
            failed = failed.and(removed);
        }
    }
    failed.map(|()| freed)
}

/// Removes what killed commands were writing ([`home::replace`]).
fn remove_unfinished(dir: &Path) -> Result<u64> {
    let mut freed = 0;
    for entry in fs::read_dir(dir).context(|| format!("open {}", dir.display()))? {
        let entry = entry.context(|| format!("read {}", dir.display()))?;
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            freed += home::size(&entry.path());
            home::remove_tree(&entry.path())?;
        }
    }
    Ok(freed)
}
