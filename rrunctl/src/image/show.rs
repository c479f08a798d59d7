//! What `docker history` and `docker image inspect` show.

#![forbid(unsafe_code)]

use super::{Image, RunConfig};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::reference::Reference;
use crate::store::Store;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A row of `docker history`.
#[derive(Debug, Clone, PartialEq)]
pub struct HistoryRow {
    /// Of the topmost row, and of those that were committed here; the others' images are not here: `<missing>`.
    pub id: Option<Digest>,
    /// When.
    pub created: Option<OffsetDateTime>,
    /// `/bin/sh -c #(nop)  CMD ["sh"]`, in full.
    pub created_by: String,
    /// Bytes of the layer, 0 where there is none.
    pub size: u64,
    /// `Imported from -`.
    pub comment: String,
    /// Names of the image of this row.
    pub tags: Vec<String>,
}

/// `docker history`, newest first.
///
/// # Errors
/// Those of reading the store; the configuration has more rows with layers than layers.
pub fn history(store: &Store, image: &Image) -> Result<Vec<HistoryRow>> {
    let mut layers = image.layers.iter();
    let mut rows = Vec::new();
    for entry in &image.config.history {
        let size = if entry.empty_layer {
            0
        } else {
            let layer = layers.next().ok_or_else(|| {
                Error::invalid(format!("image {}: its history has more layers than it has", image.id))
            })?;
            store.layers().size(&layer.diff_id)
        };
        rows.push(HistoryRow {
            id: None,
            created: entry.created.as_deref().and_then(|text| OffsetDateTime::parse(text, &Rfc3339).ok()),
            created_by: entry.created_by.clone(),
            size,
            comment: entry.comment.clone(),
            tags: Vec::new(),
        });
    }
    rows.reverse();
    let mut next = Some((image.id, image.parent));
    for row in &mut rows {
        let Some((id, parent)) = next else { break };
        row.id = Some(id);
        let tags = store.images().references_of(&id)?.into_iter().filter(|name| name.tag.is_some());
        row.tags = tags.map(|name| name.familiar()).collect();
        let parent = parent.and_then(|parent| store.images().get(&parent).ok());
        next = parent.map(|parent| (parent.id, parent.parent));
    }
    Ok(rows)
}

/// `docker image inspect`: Docker's keys in Docker's order.
///
/// # Errors
/// Those of reading the store.
pub fn inspect(store: &Store, image: &Image) -> Result<Value> {
    let names = store.images().references_of(&image.id)?;
    let (tags, digests): (Vec<&Reference>, Vec<&Reference>) =
        names.iter().partition(|name| name.digest.is_none());
    let familiar = |names: Vec<&Reference>| names.into_iter().map(Reference::familiar).collect::<Vec<_>>();
    let config = &image.config;
    let lower = store.layers().lower(image)?;
    let mut data = Map::new();
    let mut trees = lower.iter().map(|tree| tree.display().to_string());
    if let Some(top) = trees.next() {
        let below: Vec<String> = trees.collect();
        if !below.is_empty() {
            data.insert("LowerDir".to_owned(), below.join(":").into());
        }
        data.insert("UpperDir".to_owned(), top.into());
    }
    let named = store.images().last_named(&image.id)?;
    let named = named.and_then(|at| at.format(&Rfc3339).ok());
    let mut shown = json!({
        "Id": image.id,
        "RepoTags": familiar(tags),
        "RepoDigests": familiar(digests),
        "Parent": image.parent.map(|parent| parent.to_string()).unwrap_or_default(),
        "Comment": config.history.last().map(|last| &last.comment).filter(|_| config.comment.is_empty())
            .unwrap_or(&config.comment),
        "Created": config.created.as_deref().unwrap_or(NEVER),
        "DockerVersion": config.docker_version,
        "Author": config.author,
        "Config": shown_config(&config.config),
        "Architecture": config.architecture,
        "Variant": config.variant,
        "Os": config.os,
        "OsVersion": config.os_version,
        "Size": image.size,
        "VirtualSize": image.size,
        "GraphDriver": {"Data": data, "Name": "overlay2"},
        "RootFS": {"Type": "layers", "Layers": config.rootfs.diff_ids},
        "Metadata": {"LastTagTime": named.as_deref().unwrap_or(NEVER)},
    });
    if let Some(shown) = shown.as_object_mut() {
        shown.retain(|key, value| !matches!(&**key, "Variant" | "OsVersion") || value != "");
    }
    Ok(shown)
}

/// Go's zero time.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// With Docker's zero values, so that templates find every key.
fn shown_config(config: &RunConfig) -> Value {
    fn some<T: serde::Serialize>(full: bool, value: &T) -> Option<&T> {
        Some(value).filter(|_| full)
    }
    let mut shown = json!({
        "Hostname": "",
        "Domainname": "",
        "User": config.user,
        "AttachStdin": false,
        "AttachStdout": false,
        "AttachStderr": false,
        "ExposedPorts": config.exposed_ports,
        "Tty": false,
        "OpenStdin": false,
        "StdinOnce": false,
        "Env": some(!config.env.is_empty(), &config.env),
        "Cmd": config.cmd,
        "Healthcheck": config.healthcheck,
        "ArgsEscaped": config.args_escaped,
        "Image": "",
        "Volumes": some(!config.volumes.is_empty(), &config.volumes),
        "WorkingDir": config.working_dir,
        "Entrypoint": config.entrypoint,
        "OnBuild": some(!config.on_build.is_empty(), &config.on_build),
        "Labels": some(!config.labels.is_empty(), &config.labels),
        "StopSignal": config.stop_signal,
        "Shell": config.shell,
    });
    if let Some(shown) = shown.as_object_mut() {
        shown.retain(|key, value| match &**key {
            "ExposedPorts" => !config.exposed_ports.is_empty(),
            "Healthcheck" => !value.is_null(),
            "ArgsEscaped" => config.args_escaped,
            "StopSignal" => !config.stop_signal.is_empty(),
            "Shell" => !config.shell.is_empty(),
            _ => true,
        });
    }
    shown
}
