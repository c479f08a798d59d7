//! Layers, unpacked: lower directories for overlayfs, each once however many images have it.
//!
//! A layer is unpacked without those below it, so that all can be at once, and its tree is called by its diff id. Some
//! layers depend on those below: a file came without the entry of its directory, whose mode and owner are then those
//! of a lower layer (image-spec issue 737), or a hard link's target is in one. Such a layer has a second tree for each
//! stack that it is in, called by the chain id (image-spec config.md, Layer ChainID).

#![forbid(unsafe_code)]

use super::ahead::ahead;
use crate::archive::{self, UnpackOptions, Unpacked};
use crate::digest::{Digest, Hashing};
use crate::error::{Context as _, Error, Result};
use crate::home::{self, Home, Scratch};
use crate::image::{Descriptor, Image};
use rustix::fs::{CWD, RenameFlags, listxattr, renameat_with};
use rustix::io::Errno;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Read};
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// `layers`.
#[derive(Debug, Clone)]
pub struct Layers {
    home: Home,
}

/// `layers/HEX/layer.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Facts {
    /// Bytes of its files.
    size: u64,
    /// Directories that shall be as they are below.
    implied: Vec<Implied>,
    /// It has hard links to files below, which it lacks.
    deferred: bool,
    /// It hides all that is below: overlayfs does not look whether the root of a layer is opaque.
    #[serde(default)]
    opaque: bool,
}

/// A path, which may be no text: then, and in what was written before, it is `{"Unix":[46]}`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Implied(PathBuf);

impl Serialize for Implied {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.to_str() {
            Some(text) => serializer.serialize_str(text),
            None => self.0.as_os_str().serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Implied {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Implied;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a path")
            }

            fn visit_str<E>(self, text: &str) -> Result<Implied, E> {
                Ok(Implied(PathBuf::from(text)))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Implied, A::Error> {
                match map.next_entry::<String, Vec<u8>>()? {
                    Some((key, bytes)) if key == "Unix" => Ok(Implied(OsString::from_vec(bytes).into())),
                    _ => Err(A::Error::custom("no path")),
                }
            }
        }
        deserializer.deserialize_any(Read)
    }
}

/// The ids of the stacks that end with each layer (image-spec config.md, Layer ChainID).
pub(super) fn chain(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut chain: Vec<Digest> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        let id = chain.last().map_or(*diff_id, |below| Digest::of(format!("{below} {diff_id}").as_bytes()));
        chain.push(id);
    }
    chain
}

impl Layers {
    pub(super) fn new(home: Home) -> Self {
        Self { home }
    }

    /// Whether a layer need not be unpacked.
    pub fn has(&self, diff_id: &Digest) -> bool {
        self.tree(diff_id).is_some() && self.facts(diff_id).is_ok()
    }

    /// The tree of a layer by its diff id, if it has been unpacked. To mount an image take [`Layers::lower`].
    pub fn tree(&self, diff_id: &Digest) -> Option<PathBuf> {
        Some(self.dir(diff_id).join("fs")).filter(|tree| tree.is_dir())
    }

    /// The trees of an image, the topmost first, each once, as overlayfs takes them.
    ///
    /// # Errors
    /// One is missing.
    pub fn lower(&self, image: &Image) -> Result<Vec<PathBuf>> {
        let diff_ids: Vec<Digest> = image.layers.iter().map(|layer| layer.diff_id).collect();
        let trees = diff_ids.iter().zip(chain(&diff_ids)).rev().map(|(diff_id, chain_id)| {
            let tree = self.tree(&chain_id).or_else(|| self.tree(diff_id));
            tree.ok_or_else(|| {
                Error::system(format!("image {}: layer {diff_id} is missing", image.id))
                    .remedy("pull it again")
            })
        });
        let mut trees: Vec<PathBuf> = trees.collect::<Result<_>>()?;
        // overlayfs takes no directory twice (ELOOP), and what is seen of a layer is seen of its topmost place.
        let mut seen = BTreeSet::new();
        trees.retain(|tree| seen.insert(tree.clone()));
        Ok(trees)
    }

    /// Bytes of the files of a layer, 0 if it is not here.
    pub fn size(&self, diff_id: &Digest) -> u64 {
        self.facts(diff_id).map_or(0, |facts| facts.size)
    }

    /// Unpacks a layer as it was received, and publishes it once it is whole; `on_bytes` is told how many compressed
    /// bytes have been read in all. Returns the diff id and how many bytes its files have. Two may unpack the same.
    ///
    /// # Errors
    /// It is not `expected`, no archive, or reading or writing failed.
    pub fn unpack(
        &self,
        compressed: impl Read + Send,
        expected: Option<&Digest>,
        on_bytes: impl FnMut(u64) + Send,
    ) -> Result<(Digest, u64)> {
        let scratch = self.home.scratch("layer")?;
        let mut counted = Counted { source: compressed, done: 0, on_bytes };
        let (_, plain) = archive::decompress(&mut counted)?;
        let (diff_id, unpacked) = unpack_into(&scratch, plain)?;
        // The digest of a blob is of what follows its stream's end too: somebody may be making one of what is read here.
        io::copy(&mut counted, &mut io::sink()).context(|| "read layer".to_owned())?;
        if let Some(expected) = expected.filter(|expected| **expected != diff_id) {
            return Err(Error::invalid(format!(
                "layer: its archive is {diff_id}, and the image's configuration says {expected}"
            )));
        }
        self.publish_layer(&scratch, &diff_id, &unpacked)?;
        Ok((diff_id, unpacked.size))
    }

    /// The same of a tar, whose first file may have a name that looks like a compression's magic.
    pub(crate) fn unpack_tar(&self, tar: impl Read + Send) -> Result<(Digest, u64)> {
        let scratch = self.home.scratch("layer")?;
        let (diff_id, unpacked) = unpack_into(&scratch, tar)?;
        self.publish_layer(&scratch, &diff_id, &unpacked)?;
        Ok((diff_id, unpacked.size))
    }

    fn publish_layer(&self, scratch: &Scratch, diff_id: &Digest, unpacked: &Unpacked) -> Result<()> {
        let facts = Facts {
            size: unpacked.size,
            implied: unpacked.implied.iter().cloned().map(Implied).collect(),
            deferred: !unpacked.deferred.is_empty(),
            opaque: is_opaque(&scratch.path().join("layer/fs"))?,
        };
        self.publish(scratch, diff_id, &facts)
    }

    /// Makes what an image needs of layers that depend on those below, and checks that all are here; returns the bytes
    /// of all.
    pub(super) fn complete(&self, diff_ids: &[Digest], blobs: &[Descriptor]) -> Result<u64> {
        let mut size = 0;
        let mut lower: Vec<File> = Vec::new();
        for (n, (diff_id, chain_id)) in diff_ids.iter().zip(chain(diff_ids)).enumerate() {
            let facts = self.facts(diff_id)?;
            size += facts.size;
            if n == 0 && facts.deferred {
                return Err(Error::invalid(format!(
                    "layer {diff_id}: the target of a hard link is in no layer"
                )));
            }
            let special = facts.deferred || facts.opaque;
            if n > 0 && self.tree(&chain_id).is_none() && (special || self.differs(&facts, &lower)?) {
                self.settle(&blobs[n].digest, diff_id, &chain_id, &lower)?;
            }
            let tree = self.tree(&chain_id).unwrap_or_else(|| self.dir(diff_id).join("fs"));
            lower.insert(0, File::open(&tree).context(|| format!("open {}", tree.display()))?);
        }
        Ok(size)
    }

    /// Whether the directories that a layer does not have itself are others below than it was unpacked with, but for
    /// their times. Nearly every layer lacks the root, and nearly every root is as it was made here.
    fn differs(&self, facts: &Facts, lower: &[File]) -> Result<bool> {
        let scratch = self.home.scratch("implied")?;
        let root = scratch.path().join("fs");
        make_dir(&root)?;
        for path in facts.implied.iter().map(|path| root.join(&path.0)) {
            let made = DirBuilder::new().recursive(true).mode(0o755).create(&path);
            made.and_then(|()| fs::set_permissions(&path, Permissions::from_mode(0o755)))
                .context(|| format!("mkdir {}", path.display()))?;
        }
        let attributes = || -> Result<Vec<_>> {
            let of = |path: &Path| -> io::Result<_> {
                let (path, mut none) = (root.join(path), [0_u8; 0]);
                let meta = fs::metadata(&path)?;
                Ok((meta.mode(), meta.uid(), meta.gid(), listxattr(&path, &mut none)?))
            };
            let paths = facts.implied.iter().map(|path| &path.0);
            paths.map(|path| of(path).context(|| format!("stat {}", path.display()))).collect()
        };
        let made = attributes()?;
        let implied = facts.implied.iter().map(|path| path.0.clone()).collect();
        settle(&root, lower, &Unpacked { implied, ..Unpacked::default() })?;
        Ok(attributes()? != made)
    }

    /// Unpacks a layer again, for one stack: the tree that others may have mounted is not touched.
    fn settle(&self, blob: &Digest, diff_id: &Digest, chain_id: &Digest, lower: &[File]) -> Result<()> {
        let path = self.home.kept("blobs/sha256").join(blob.hex());
        let blob = File::open(&path).context(|| format!("open {}", path.display()))?;
        let scratch = self.home.scratch("layer")?;
        let (_, plain) = archive::decompress(blob)?;
        let (found, unpacked) = unpack_into(&scratch, plain)?;
        if found != *diff_id {
            return Err(Error::invalid(format!(
                "layer {}: its archive is {found}, not {diff_id}",
                path.display()
            )));
        }
        settle(&scratch.path().join("layer/fs"), lower, &unpacked)?;
        self.publish(
            &scratch,
            chain_id,
            &Facts { size: unpacked.size, implied: Vec::new(), deferred: false, opaque: false },
        )
    }

    fn publish(&self, scratch: &Scratch, id: &Digest, facts: &Facts) -> Result<()> {
        let (made, dir) = (scratch.path().join("layer"), self.dir(id));
        let bytes = serde_json::to_vec(facts).map_err(|e| Error::system(e.to_string()))?;
        let path = made.join("layer.json");
        fs::write(&path, &bytes).context(|| format!("write {}", path.display()))?;
        match renameat_with(CWD, &made, CWD, &dir, RenameFlags::NOREPLACE) {
            Ok(()) => Ok(()),
            // Somebody else was faster, or it is there and what is known of it is damaged; its tree may be mounted.
            Err(Errno::EXIST) if self.facts(id).is_ok() => Ok(()),
            Err(Errno::EXIST) => home::replace(&dir.join("layer.json"), 0o600, &bytes),
            Err(e) => Err(Error::from(e).context(format!("renameat2 {}", dir.display()))),
        }
    }

    fn facts(&self, id: &Digest) -> Result<Facts> {
        let path = self.dir(id).join("layer.json");
        let bytes = home::read(&path)?;
        let bytes = bytes.ok_or_else(|| Error::not_found(format!("layer {id} is not here")))?;
        serde_json::from_slice(&bytes).map_err(|e| Error::system(format!("{}: {e}", path.display())))
    }

    fn dir(&self, id: &Digest) -> PathBuf {
        self.home.kept("layers").join(id.hex())
    }
}

/// Makes `layer/fs` in a scratch directory.
fn unpack_into(scratch: &Scratch, tar: impl Read + Send) -> Result<(Digest, Unpacked)> {
    let tree = scratch.path().join("layer/fs");
    make_dir(&scratch.path().join("layer"))?;
    make_dir(&tree)?;
    let tree = File::open(&tree).context(|| format!("open {}", tree.display()))?;
    ahead(tar, |tar| {
        let mut hashing = Hashing::new(tar);
        let unpacked = archive::unpack(&mut hashing, tree.as_fd(), &UnpackOptions::default())?;
        // The digest is of what follows the archive's end too.
        io::copy(&mut hashing, &mut io::sink()).context(|| "read layer".to_owned())?;
        Ok((hashing.finish().0, unpacked))
    })
}

fn settle(tree: &Path, lower: &[File], unpacked: &Unpacked) -> Result<()> {
    let tree = File::open(tree).context(|| format!("open {}", tree.display()))?;
    let lower: Vec<_> = lower.iter().map(|file| file.as_fd()).collect();
    archive::settle(tree.as_fd(), &lower, unpacked)
}

fn is_opaque(tree: &Path) -> Result<bool> {
    let mut value = [0_u8; 2];
    match rustix::fs::getxattr(tree, archive::opaque_xattr(), &mut value) {
        Ok(length) => Ok(value[..length] == *b"y"),
        Err(rustix::io::Errno::NODATA | rustix::io::Errno::OPNOTSUPP) => Ok(false),
        Err(e) => Err(Error::from(e).context(format!("getxattr {}", tree.display()))),
    }
}

/// Whatever the umask is.
fn make_dir(path: &Path) -> Result<()> {
    let made = fs::create_dir(path).and_then(|()| fs::set_permissions(path, Permissions::from_mode(0o755)));
    made.context(|| format!("mkdir {}", path.display()))
}

struct Counted<R, F> {
    source: R,
    done: u64,
    on_bytes: F,
}

impl<R: Read, F: FnMut(u64)> Read for Counted<R, F> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let n = self.source.read(to)?;
        self.done += n as u64;
        (self.on_bytes)(self.done);
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_written_as_text_and_read_as_they_were_written_before() {
        let before = r#"{"size":3,"implied":[{"Unix":[46]},{"Unix":[97,47,255]}],"deferred":false}"#;
        let facts: Facts = serde_json::from_str(before).expect("an older file");
        let path = |bytes: &[u8]| Implied(OsString::from_vec(bytes.to_vec()).into());
        assert_eq!(facts.implied, [path(b"."), path(b"a/\xff")]);
        let now = serde_json::to_string(&facts).expect("JSON");
        let text = r#"{"size":3,"implied":[".",{"Unix":[97,47,255]}],"deferred":false,"opaque":false}"#;
        assert_eq!(now, text);
        assert_eq!(serde_json::from_str::<Facts>(&now).expect("a file").implied, facts.implied);
        assert!(
            serde_json::from_str::<Implied>("{}").is_err() && serde_json::from_str::<Implied>("1").is_err()
        );
    }
}
