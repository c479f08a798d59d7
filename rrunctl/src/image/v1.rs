//! The first layout of `docker save`, before Docker 1.10: a directory for each layer with `json` and `layer.tar`, and
//! `repositories`. The chain of `json` files is made one configuration (Docker image specification v1.0).

#![forbid(unsafe_code)]

use super::layout::Contents;
use super::spec::{History, RootFs};
use crate::archive::decompress;
use crate::digest::{Digest, Hashing};
use crate::error::{Context as _, Error, Result};
use crate::reference::Reference;
use crate::store::Store;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::io;

/// More layers than overlayfs has.
const DEPTH: usize = 500;

/// `ID/json`.
#[derive(Deserialize)]
struct Layer {
    #[serde(default)]
    parent: Option<String>,
    #[serde(default)]
    created: Option<String>,
    #[serde(default)]
    author: Option<String>,
    #[serde(default)]
    comment: Option<String>,
    #[serde(default)]
    container_config: Option<Command>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Command {
    #[serde(default)]
    cmd: Option<Vec<String>>,
}

/// With their lengths, from the lowest layer's to the topmost's.
type Blobs = Vec<(Digest, u64)>;

/// Takes a configuration, the layers' blobs and the names of an image.
pub(super) type Take<'a> = &'a mut dyn FnMut(Vec<u8>, Blobs, Vec<Reference>) -> Result<()>;

/// Finds the images of `repositories`, or the topmost of all layers where nothing is named.
pub(super) fn find(store: &Store, contents: &Contents, take: Take<'_>) -> Result<()> {
    let mut tops: BTreeMap<String, Vec<Reference>> = BTreeMap::new();
    if let Some(bytes) = contents.document(store, "repositories")? {
        let repositories: BTreeMap<String, BTreeMap<String, String>> =
            serde_json::from_slice(&bytes).map_err(|e| Error::invalid(format!("repositories: {e}")))?;
        for (name, tags) in repositories {
            for (tag, id) in tags {
                let name = Reference::parse(&format!("{name}:{tag}"))?;
                name.refuse_digest().map_err(|e| e.context("repositories"))?;
                tops.entry(id).or_default().push(name);
            }
        }
    } else {
        let mut parents = Vec::new();
        for id in contents.legacy() {
            parents.extend(layer(store, contents, id)?.0.parent);
        }
        tops.extend(
            contents.legacy().filter(|id| !parents.iter().any(|p| p == id)).map(|id| (id.into(), vec![])),
        );
    }
    for (id, names) in tops {
        let (config, layers) = image(store, contents, id)?;
        take(config, layers, names)?;
    }
    Ok(())
}

fn layer(store: &Store, contents: &Contents, id: &str) -> Result<(Layer, Map<String, Value>)> {
    let path = format!("{id}/json");
    let bytes = contents.document(store, &path)?;
    let bytes = bytes.ok_or_else(|| Error::invalid(format!("the archive has no {path:?}")))?;
    let broken = |e: serde_json::Error| Error::invalid(format!("{path}: {e}"));
    Ok((serde_json::from_slice(&bytes).map_err(broken)?, serde_json::from_slice(&bytes).map_err(broken)?))
}

fn image(store: &Store, contents: &Contents, top: String) -> Result<(Vec<u8>, Blobs)> {
    let (mut blobs, mut diff_ids, mut history) = (Vec::new(), Vec::new(), Vec::new());
    let mut config: Option<Map<String, Value>> = None;
    let mut next = Some(top);
    while let Some(id) = next.take() {
        if blobs.len() == DEPTH {
            return Err(Error::invalid(format!("layer {id:?}: more than {DEPTH} are above it")));
        }
        let (layer, json) = layer(store, contents, &id)?;
        config.get_or_insert(json);
        let path = format!("{id}/layer.tar");
        let blob =
            contents.file(&path).ok_or_else(|| Error::invalid(format!("the archive has no {path:?}")))?;
        blobs.push(blob);
        diff_ids.push(diff_id(store, &blob.0)?);
        let words = layer.container_config.and_then(|config| config.cmd).unwrap_or_default();
        history.push(History {
            created: layer.created,
            created_by: words.join(" "),
            author: layer.author.unwrap_or_default(),
            comment: layer.comment.unwrap_or_default(),
            empty_layer: false,
        });
        next = layer.parent.filter(|parent| !parent.is_empty());
    }
    blobs.reverse();
    diff_ids.reverse();
    history.reverse();
    let mut config = config.unwrap_or_default();
    for key in ["id", "parent", "Size", "parent_id", "layer_id", "throwaway"] {
        config.remove(key);
    }
    let json = |e: serde_json::Error| Error::system(e.to_string());
    let rootfs = RootFs { kind: "layers".to_owned(), diff_ids };
    config.insert("rootfs".to_owned(), serde_json::to_value(rootfs).map_err(json)?);
    config.insert("history".to_owned(), serde_json::to_value(history).map_err(json)?);
    Ok((serde_json::to_vec(&config).map_err(json)?, blobs))
}

fn diff_id(store: &Store, blob: &Digest) -> Result<Digest> {
    let file = store.blobs().open(blob)?.ok_or_else(|| Error::system(format!("blob {blob} is not here")))?;
    let mut hashing = Hashing::new(decompress(file)?.1);
    io::copy(&mut hashing, &mut io::sink()).context(|| format!("read blob {blob}"))?;
    Ok(hashing.finish().0)
}
