//! `docker save`: one tar that is an OCI layout (image-layout.md) and what older `docker load` reads, as Docker writes
//! it since 25. The same images make the same bytes.

#![forbid(unsafe_code)]

use super::Image;
use super::layout::blob_path;
use super::load::REF_NAME;
use super::spec::media_type;
use crate::digest::{Digest, Hashing};
use crate::error::{Context as _, Error, Result};
use crate::reference::Reference;
use crate::store::Store;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use tar::{Builder, EntryType, Header};

/// Writes images, by names or ids, as one tar that is an OCI layout and what older `docker load` reads. A name without
/// a tag means all that the store has.
///
/// # Errors
/// There is no such image; reading or writing failed.
pub fn save(store: &Store, names: &[String], to: impl Write) -> Result<()> {
    // What is removed meanwhile stays until it is written.
    let _hold = store.hold()?;
    let images = select(store, names)?;
    let mut tar = Builder::new(to);
    for dir in ["blobs/", "blobs/sha256/"] {
        add(&mut tar, EntryType::Directory, dir, 0, std::io::empty())?;
    }
    let mut blobs = BTreeSet::new();
    for (image, _) in &images {
        blobs.extend([image.id, image.manifest.digest]);
        blobs.extend(image.layers.iter().map(|layer| layer.blob));
    }
    for digest in &blobs {
        let broken =
            |how: &str| Error::system(format!("blob {digest} {how}")).remedy("pull or load it again");
        let file = store.blobs().open(digest)?.ok_or_else(|| broken("is not here"))?;
        let size = file.metadata().context(|| format!("stat blob {digest}"))?.len();
        // A disk may give back other bytes than it took, and whoever loads them later has no other copy.
        let mut content = Hashing::new(file.take(size));
        add(&mut tar, EntryType::Regular, &blob_path(digest), size, &mut content)?;
        if content.finish().0 != *digest {
            return Err(broken("has changed on the disk"));
        }
    }
    for (path, document) in [
        ("index.json", index(&images)),
        ("manifest.json", manifest(&images)),
        ("oci-layout", json!({"imageLayoutVersion": "1.0.0"})),
        ("repositories", repositories(&images)),
    ] {
        let bytes = document.to_string().into_bytes();
        add(&mut tar, EntryType::Regular, path, bytes.len() as u64, &bytes[..])?;
    }
    let mut to = tar.into_inner().context(writing)?;
    to.flush().context(writing)
}

fn writing() -> String {
    "write archive".to_owned()
}

/// The images that `names` mean, in their order, each once for each of its manifests, and the names that they get.
fn select(store: &Store, names: &[String]) -> Result<Vec<(Image, Vec<Reference>)>> {
    let mut images: Vec<(Image, Vec<Reference>)> = Vec::new();
    let mut add = |image: Image, name: Option<Reference>| {
        let same = |(other, _): &&mut (Image, _)| other.manifest.digest == image.manifest.digest;
        match images.iter_mut().find(same) {
            Some((_, names)) => names.extend(name.filter(|name| !names.contains(name))),
            None => images.push((image, Vec::from_iter(name))),
        }
    };
    let known = store.images().references()?;
    for text in names {
        let name = Reference::parse_without_default(text).ok();
        let mut found = false;
        if let Some(name) = name.as_ref().filter(|name| name.tag.is_none() && name.digest.is_none()) {
            let tags = known.keys().filter(|other| other.name() == name.name() && other.tag.is_some());
            for tag in tags {
                found = true;
                add(store.images().resolve(&tag.to_string())?, Some(tag.clone()));
            }
        }
        if !found {
            let image = store.images().resolve(text)?;
            let named =
                name.filter(|name| name.tag.is_some() && name.digest.is_none() && known.contains_key(name));
            add(image, named);
        }
    }
    Ok(images)
}

fn index(images: &[(Image, Vec<Reference>)]) -> Value {
    let mut manifests = Vec::new();
    for (image, names) in images {
        let platform = &image.config;
        let mut entry = json!({
            "mediaType": image.manifest.media_type,
            "digest": image.manifest.digest,
            "size": image.manifest.size,
        });
        let mut described = Map::new();
        for (key, value) in
            [("architecture", &platform.architecture), ("os", &platform.os), ("variant", &platform.variant)]
        {
            if !value.is_empty() {
                described.insert(key.to_owned(), value.clone().into());
            }
        }
        if described.contains_key("architecture") && described.contains_key("os") {
            entry["platform"] = described.into();
        }
        if names.is_empty() {
            manifests.push(entry.clone());
        }
        for name in names {
            entry["annotations"] = json!({"io.containerd.image.name": name.to_string(), REF_NAME: name.tag.clone().unwrap_or_default()});
            manifests.push(entry.clone());
        }
    }
    json!({"schemaVersion": 2, "mediaType": media_type::INDEX, "manifests": manifests})
}

fn manifest(images: &[(Image, Vec<Reference>)]) -> Value {
    let entry = |(image, names): &(Image, Vec<Reference>)| {
        json!({
            "Config": blob_path(&image.id),
            "RepoTags": names.iter().map(Reference::familiar).collect::<Vec<_>>(),
            "Layers": image.layers.iter().map(|layer| blob_path(&layer.blob)).collect::<Vec<_>>(),
        })
    };
    images.iter().map(entry).collect()
}

fn repositories(images: &[(Image, Vec<Reference>)]) -> Value {
    let mut repositories: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for (image, names) in images {
        for name in names {
            let top: Digest = image.layers.last().map_or(image.id, |layer| layer.blob);
            let tags = repositories.entry(name.familiar_name()).or_default();
            tags.insert(name.tag.clone().unwrap_or_default(), top.hex());
        }
    }
    json!(repositories)
}

fn add(
    tar: &mut Builder<impl Write>,
    kind: EntryType,
    path: &str,
    size: u64,
    bytes: impl Read,
) -> Result<()> {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(if kind == EntryType::Directory { 0o755 } else { 0o644 });
    header.set_size(size);
    header.set_mtime(0);
    tar.append_data(&mut header, path, bytes).context(|| format!("write archive: {path}"))
}
