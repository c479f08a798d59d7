//! What a tar of images has in it: blobs, kept as they are read, and what says which of them make an image.

#![forbid(unsafe_code)]

use super::spec::{Descriptor, Index, Manifest};
use crate::archive::{Members, Type, decompress};
use crate::digest::Digest;
use crate::error::{Context as _, Error, Result};
use crate::store::Store;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io::Read;

/// The longest document that is read, in bytes.
const DOCUMENT: u64 = 8 << 20;
/// The names of an archive may have so many bytes together, and each counts [`ENTRY`] more: they are kept in memory, and
/// a hundred images of a hundred layers have a tenth of it.
const NAMES: usize = 16 << 20;
/// What keeping a name costs beside its bytes.
const ENTRY: usize = 128;
/// The most symbolic links that lead to a file.
const LINKS: usize = 8;

/// The files of an archive by their path, without `./` in front.
#[derive(Debug, Default)]
pub(super) struct Contents {
    files: BTreeMap<String, (Digest, u64)>,
    links: BTreeMap<String, String>,
}

/// An entry of manifest.json.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Saved {
    /// A path.
    pub config: String,
    /// Names.
    #[serde(default)]
    pub repo_tags: Option<Vec<String>>,
    /// Paths, from the lowest to the topmost.
    #[serde(default)]
    pub layers: Option<Vec<String>>,
}

impl Contents {
    /// Keeps every file that can be a part of an image; the store is to be held.
    pub fn read(store: &Store, archive: impl Read + Send) -> Result<Self> {
        let mut contents = Self::default();
        let (_, plain) = decompress(archive)?;
        let mut members = Members::new(plain);
        let mut names = 0;
        // To the end of what is read: what wrote it, `xz -dc` say, shall not be killed by what follows the archive's end.
        while let Some(member) = members.next().context(reading)? {
            let Some(path) = normal("", &String::from_utf8_lossy(&member.name)) else { continue };
            names += path.len() + member.link.len() + ENTRY;
            match member.typ {
                Type::File if is_part(&path) => {
                    let mut blob = store.blobs().writer()?;
                    members.copy_to(&member, &mut blob).context(reading)?;
                    let expected = path.strip_prefix("blobs/sha256/").and_then(Digest::from_hex);
                    let kept = blob.commit(expected.as_ref()).context(|| path.clone())?;
                    contents.files.insert(path, kept);
                }
                Type::Symlink | Type::HardLink => {
                    let from = if member.typ == Type::Symlink { parent(&path) } else { "" };
                    let target = normal(from, &String::from_utf8_lossy(&member.link));
                    contents.links.extend(target.map(|target| (path, target)));
                }
                _ => names -= path.len() + member.link.len() + ENTRY,
            }
            if names > NAMES {
                return Err(Error::invalid(format!("read archive: its names have more than {NAMES} bytes")));
            }
        }
        Ok(contents)
    }

    /// The blob of a file.
    pub fn file(&self, path: &str) -> Option<(Digest, u64)> {
        let mut path = normal("", path)?;
        for _ in 0..LINKS {
            match self.links.get(&path) {
                Some(target) => path.clone_from(target),
                None => return self.files.get(&path).copied(),
            }
        }
        None
    }

    /// A document of the archive.
    pub fn document(&self, store: &Store, path: &str) -> Result<Option<Vec<u8>>> {
        let Some((digest, _)) = self.file(path) else { return Ok(None) };
        store.blobs().read(&digest, DOCUMENT).map(Some).context(|| path.to_owned())
    }

    /// The directories of the first layout of `docker save`: those that have a file `json`.
    pub fn legacy(&self) -> impl Iterator<Item = &str> {
        self.files.keys().filter_map(|path| path.strip_suffix("/json"))
    }

    /// The manifest that a descriptor leads to, of an index the one for this machine, if it is in the archive with its
    /// configuration and its layers.
    pub fn manifest(&self, store: &Store, descriptor: &Descriptor) -> Result<Option<(Descriptor, Vec<u8>)>> {
        let mut descriptor = descriptor.clone();
        for _ in 0..LINKS {
            let path = blob_path(&descriptor.digest);
            let Some(bytes) = self.document(store, &path)? else { return Ok(None) };
            let Ok(index) = Index::parse(&bytes) else {
                let manifest = Manifest::parse(&bytes).context(|| path)?;
                let parts = manifest.layers.iter().chain([&manifest.config]);
                let here = parts.map(|part| self.file(&blob_path(&part.digest))).all(|part| part.is_some());
                return Ok(Some((descriptor, bytes)).filter(|_| here));
            };
            // Of an image for several platforms often just one is saved.
            let saved = |entry: &&Descriptor| self.file(&blob_path(&entry.digest)).is_some();
            let image =
                |entry: &&Descriptor| entry.platform.as_ref().is_none_or(|platform| platform.os != "unknown");
            let saved: Vec<Descriptor> =
                index.manifests.iter().filter(saved).filter(image).cloned().collect();
            let saved = Index { manifests: saved, ..index };
            descriptor = match (saved.choose(&super::Platform::host()), &saved.manifests[..]) {
                (Ok(chosen), _) => chosen.clone(),
                (Err(_), [only]) => only.clone(),
                (Err(_), []) => return Ok(None),
                (Err(e), _) => return Err(e),
            };
        }
        Err(Error::invalid(format!("index {}: indexes in indexes", descriptor.digest)))
    }
}

/// Where an OCI layout has a blob (image-layout.md, Blobs).
pub(super) fn blob_path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn reading() -> String {
    "read archive".to_owned()
}

/// A root filesystem that is loaded by mistake has most of its files deeper.
fn is_part(path: &str) -> bool {
    path.starts_with("blobs/") || path.split('/').count() <= 2
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

/// A path of the archive without `.`, `..` and slashes that say nothing; nothing if it leads out.
fn normal(from: &str, path: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    let from = if path.starts_with('/') { "" } else { from };
    for part in from.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_the_archive_however_they_are_written() {
        assert_eq!(normal("", "./a//b/"), Some("a/b".to_owned()));
        assert_eq!(normal("x", "../a/layer.tar"), Some("a/layer.tar".to_owned()));
        assert_eq!(normal("x", "/a"), Some("a".to_owned()));
        assert_eq!(normal("x", "../../a"), None);
    }
}
