//! `docker load`: images out of a tar.

#![forbid(unsafe_code)]

use super::layout::{Contents, Saved, blob_path};
use super::spec::{Descriptor, ImageConfig, Index, Manifest, media_type};
use super::{Image, manifest, v1};
use crate::archive::{Compression, decompress};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::progress::{Event, Sink};
use crate::reference::Reference;
use crate::store::Store;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::num::NonZero;
use std::sync::Mutex;
use std::thread;

/// How people see the name of an image in an OCI layout: containerd's is the whole of it, image-spec's a tag or more.
const FULL_NAME: &str = "io.containerd.image.name";
pub(super) const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// The manifests and configurations of an archive may have so many bytes together: they are kept in memory until all are
/// found, and 8 MiB of one are a few KiB of a compressed archive.
const DOCUMENTS: usize = 32 << 20;
/// So many images may be in an archive.
const IMAGES: usize = 10_000;

/// An image that is to be made of what was read.
struct Found {
    manifest: Vec<u8>,
    media_type: String,
    config: Vec<u8>,
    names: Vec<Reference>,
}

/// Reads images out of a tar of any compression: `docker save`'s of any version, an OCI layout, or both in one. Tells
/// `Loaded image: name:tag` and `Loaded image ID: sha256:…`.
///
/// # Errors
/// It is no such archive; what is in it is not what it is called; reading or writing failed.
pub fn load(store: &Store, archive: impl Read + Send, sink: Sink<'_>) -> Result<Vec<Image>> {
    let _hold = store.hold()?;
    let loaded = load_held(store, archive, sink);
    if loaded.is_err() {
        // What was kept of it until then is nobody's.
        store.mark_garbage()?;
    }
    loaded
}

fn load_held(store: &Store, archive: impl Read + Send, sink: Sink<'_>) -> Result<Vec<Image>> {
    let contents = Contents::read(store, archive)?;
    let saved = match contents.document(store, "manifest.json")? {
        Some(bytes) => serde_json::from_slice::<Vec<Saved>>(&bytes)
            .map_err(|e| Error::invalid(format!("manifest.json: {e}")))?,
        None => Vec::new(),
    };
    let mut found = Vec::new();
    if let Some(bytes) = contents.document(store, "index.json")? {
        from_index(store, &contents, &Index::parse(&bytes)?, &mut found)?;
    }
    from_saved(store, &contents, &saved, &mut found)?;
    if found.is_empty() {
        v1::find(store, &contents, &mut |config, layers, names| {
            let manifest = make_manifest(store, &config, layers)?;
            push(&mut found, Found { manifest, media_type: media_type::MANIFEST.into(), config, names })
        })?;
    }
    if found.is_empty() {
        return Err(Error::invalid(
            "the archive has no image: neither manifest.json nor index.json leads to one",
        )
        .remedy("the tar of a root filesystem is for import"));
    }

    unpack(store, &found, sink)?;
    let mut images = Vec::new();
    for found in found {
        let image =
            store.images().install(&found.manifest, &found.media_type, &found.config, &found.names)?;
        for name in &found.names {
            sink(Event::Line(format!("Loaded image: {}", name.familiar())));
        }
        if found.names.is_empty() {
            sink(Event::Line(format!("Loaded image ID: {}", image.id)));
        }
        images.push(image);
    }
    // What says how they were packed is no part of them.
    store.mark_garbage()?;
    Ok(images)
}

/// Images of an OCI layout: their manifests are kept as they are.
fn from_index(store: &Store, contents: &Contents, index: &Index, found: &mut Vec<Found>) -> Result<()> {
    let mut seen: BTreeMap<Digest, usize> = BTreeMap::new();
    for entry in &index.manifests {
        let Some((descriptor, bytes)) = contents.manifest(store, entry)? else { continue };
        let manifest = Manifest::parse(&bytes)?;
        let media_type = match (&manifest.media_type, &*descriptor.media_type) {
            (Some(written), _) => written.clone(),
            (None, "") => media_type::MANIFEST.to_owned(),
            (None, described) => described.to_owned(),
        };
        let path = blob_path(&manifest.config.digest);
        let Some(config) = contents.document(store, &path)? else { continue };
        // Signatures and attestations are manifests too.
        if ImageConfig::parse(&config)
            .is_ok_and(|config| config.rootfs.diff_ids.len() != manifest.layers.len())
        {
            continue;
        }
        let at = match seen.get(&descriptor.digest) {
            Some(at) => *at,
            None => {
                push(found, Found { manifest: bytes, media_type, config, names: Vec::new() })?;
                seen.insert(descriptor.digest, found.len() - 1);
                found.len() - 1
            }
        };
        let names = &mut found[at].names;
        names.extend(name_of(entry)?.filter(|name| !names.contains(name)));
    }
    Ok(())
}

/// The name that an index gives to a manifest; a tag alone is none.
fn name_of(entry: &Descriptor) -> Result<Option<Reference>> {
    let full = entry.annotations.get(FULL_NAME);
    let name = full.or_else(|| entry.annotations.get(REF_NAME).filter(|name| name.contains([':', '/'])));
    let Some((text, name)) = name.and_then(|text| Some((text, Reference::parse(text).ok()?))) else {
        return Ok(None);
    };
    name.refuse_digest().map_err(|e| e.context(format!("index.json: {text:?}")))?;
    Ok(Some(name))
}

/// Images of manifest.json: those that the index has too get their names, the others a manifest.
fn from_saved(store: &Store, contents: &Contents, saved: &[Saved], found: &mut Vec<Found>) -> Result<()> {
    for saved in saved {
        let missing =
            |path: &str| Error::invalid(format!("manifest.json names {path:?}, which the archive has not"));
        let config = contents.document(store, &saved.config)?.ok_or_else(|| missing(&saved.config))?;
        let mut names = Vec::new();
        for name in saved.repo_tags.iter().flatten() {
            let parsed = Reference::parse(name).and_then(|name| name.refuse_digest().map(|()| name));
            names.push(parsed.map_err(|e| e.context(format!("manifest.json: {name:?}")))?);
        }
        if let Some(same) = found.iter_mut().find(|found| found.config == config) {
            names.retain(|name| !same.names.contains(name));
            same.names.append(&mut names);
            continue;
        }
        let mut layers = Vec::new();
        for path in saved.layers.iter().flatten() {
            layers.push(contents.file(path).ok_or_else(|| missing(path))?);
        }
        let manifest = make_manifest(store, &config, layers)?;
        push(found, Found { manifest, media_type: media_type::MANIFEST.into(), config, names })?;
    }
    Ok(())
}

fn push(found: &mut Vec<Found>, new: Found) -> Result<()> {
    found.push(new);
    let bytes: usize = found.iter().map(|found| found.manifest.len() + found.config.len()).sum();
    if bytes > DOCUMENTS || found.len() > IMAGES {
        return Err(Error::invalid(format!(
            "the archive has more than {IMAGES} images, or more than {DOCUMENTS} bytes of manifests and configurations"
        )));
    }
    Ok(())
}

/// The manifest of an image that came without one: as Docker writes it since 25, so that it is the same every time.
fn make_manifest(store: &Store, config: &[u8], layers: Vec<(Digest, u64)>) -> Result<Vec<u8>> {
    let config = Descriptor::new(media_type::CONFIG, Digest::of(config), config.len() as u64);
    let mut blobs = Vec::new();
    for (digest, size) in layers {
        let file = store.blobs().open(&digest)?;
        let file = file.ok_or_else(|| Error::system(format!("blob {digest} is not here")))?;
        let media_type = match decompress(file)?.0 {
            Compression::Gzip => media_type::LAYER_GZIP,
            Compression::Zstd => media_type::LAYER_ZSTD,
            // image-spec has no type for the others; to unpack it, its first bytes decide.
            _ => media_type::LAYER,
        };
        blobs.push(Descriptor::new(media_type, digest, size));
    }
    manifest(media_type::MANIFEST, &config, &blobs)
}

/// Unpacks the layers that are not here yet, several at once.
fn unpack(store: &Store, found: &[Found], sink: Sink<'_>) -> Result<()> {
    let mut wanted: Vec<(Digest, Descriptor)> = Vec::new();
    let mut seen = BTreeSet::new();
    for found in found {
        let diff_ids = ImageConfig::parse(&found.config)?.rootfs.diff_ids;
        let layers = Manifest::parse(&found.manifest)?.layers;
        if diff_ids.len() != layers.len() {
            return Err(Error::invalid(format!(
                "image {}: its configuration has {} layers, and the archive {}",
                Digest::of(&found.config),
                diff_ids.len(),
                layers.len()
            )));
        }
        wanted.extend(diff_ids.into_iter().zip(layers).filter(|(diff_id, _)| seen.insert(*diff_id)));
    }
    wanted.retain(|(diff_id, _)| !store.layers().has(diff_id));
    wanted.reverse();

    let workers = thread::available_parallelism().map_or(1, NonZero::get).min(wanted.len()).min(8);
    let queue = Mutex::new(wanted);
    let next = || queue.lock().unwrap_or_else(std::sync::PoisonError::into_inner).pop();
    let work = || -> Result<()> {
        while let Some((diff_id, blob)) = next() {
            unpack_one(store, &diff_id, &blob, sink).inspect_err(|_| while next().is_some() {})?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let mut threads = Vec::new();
        for _ in 1..workers {
            threads.push(thread::Builder::new().spawn_scoped(scope, work)?);
        }
        let mut done = work();
        for thread in threads {
            let joined = thread.join().unwrap_or_else(|_| Err(Error::system("a thread panicked")));
            done = done.and(joined);
        }
        done
    })
}

fn unpack_one(store: &Store, diff_id: &Digest, blob: &Descriptor, sink: Sink<'_>) -> Result<()> {
    let missing = || Error::invalid(format!("layer {}: the archive has it not", blob.digest));
    let file = store.blobs().open(&blob.digest)?.ok_or_else(missing)?;
    let mut told = 0;
    let tell = |done: u64| {
        // A line a block of a tar would be a thousand lines a second.
        if done - told >= (1 << 20) || done == blob.size {
            told = done;
            sink(Event::Bytes { id: diff_id.short(), text: "Loading layer", done, total: blob.size });
        }
    };
    store
        .layers()
        .unpack(file, Some(diff_id), tell)
        .map_err(|e| e.context(format!("layer {}", blob.digest)))?;
    Ok(())
}
