//! The names of images: `refs`.

#![forbid(unsafe_code)]

use super::Store;
use super::record::is_damage;
use crate::digest::Digest;
use crate::error::{Context as _, Error, Result};
use crate::home;
use crate::image::Image;
use crate::reference::Reference;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use time::OffsetDateTime;

/// The longest name of a file (NAME_MAX of every common file system).
const NAME_MAX: usize = 255;

/// `refs/NAME`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Name {
    /// In full.
    name: String,
    /// The image's id.
    pub image: Digest,
    /// The manifest that the name stands for.
    pub manifest: Digest,
}

/// A reference that has a digest stands for that content whatever its tag says.
fn key(name: &Reference) -> Reference {
    match name.digest {
        Some(_) => Reference { tag: None, ..name.clone() },
        None => Reference { tag: Some(name.tag.clone().unwrap_or_else(|| "latest".into())), ..name.clone() },
    }
}

impl Store {
    pub(super) fn name_path(&self, name: &Reference) -> PathBuf {
        let name = key(name).to_string();
        let mut file = name.replace('%', "%25").replace('/', "%2F");
        if file.len() > NAME_MAX {
            // The name is in the file too.
            file.truncate(NAME_MAX - 65);
            file = format!("{file}%{}", Digest::of(name.as_bytes()).hex());
        }
        self.home.kept("refs").join(file)
    }

    pub(super) fn name(&self, name: &Reference) -> Result<Option<Name>> {
        read(&self.name_path(name))
    }

    /// Under the lock of images.
    pub(super) fn write_name(&self, name: &Reference, image: &Image) -> Result<()> {
        let path = self.name_path(name);
        let name = Name { name: key(name).to_string(), image: image.id, manifest: image.manifest.digest };
        let bytes = serde_json::to_vec(&name).map_err(|e| Error::system(e.to_string()))?;
        home::replace(&path, 0o600, &bytes)
    }

    /// Under the lock of images.
    pub(super) fn remove_name(&self, name: &Reference) -> Result<bool> {
        let path = self.name_path(name);
        match fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(Error::from(e).context(format!("unlink {}", path.display()))),
        }
    }

    /// Those that can be read.
    pub(super) fn names(&self) -> Result<BTreeMap<Reference, Name>> {
        Ok(self.all_names()?.0)
    }

    /// And what is wrong with the others.
    pub(super) fn all_names(&self) -> Result<(BTreeMap<Reference, Name>, Vec<Error>)> {
        let dir = self.home.kept("refs");
        let (mut names, mut damaged) = (BTreeMap::new(), Vec::new());
        for entry in fs::read_dir(&dir).context(|| format!("open {}", dir.display()))? {
            let entry = entry.context(|| format!("read {}", dir.display()))?;
            // What a killed command was writing begins with a dot; a name never does.
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                continue;
            }
            let path = entry.path();
            match read(&path) {
                Ok(Some(name)) => match Reference::parse(&name.name) {
                    Ok(reference) => drop(names.insert(reference, name)),
                    Err(e) => damaged.push(e.context(path.display())),
                },
                // Removed meanwhile.
                Ok(None) => {}
                Err(e) if is_damage(&e) => damaged.push(e),
                Err(e) => return Err(e),
            }
        }
        Ok((names, damaged))
    }

    /// When a name was last given to an image.
    pub(super) fn named_at(&self, name: &Reference) -> Option<OffsetDateTime> {
        fs::metadata(self.name_path(name)).and_then(|meta| meta.modified()).ok().map(OffsetDateTime::from)
    }
}

fn read(path: &Path) -> Result<Option<Name>> {
    let Some(bytes) = home::read(path)? else { return Ok(None) };
    serde_json::from_slice(&bytes).map(Some).map_err(|e| Error::system(format!("{}: {e}", path.display())))
}
