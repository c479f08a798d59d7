//! The documents of an image: those of image-spec (manifest.md, image-index.md, config.md) and of Docker's image
//! manifest version 2, schema 2, which are alike.
//!
//! They are read leniently and never written back: a digest is of the bytes as they were received.

#![forbid(unsafe_code)]

use crate::digest::Digest;
use crate::error::{Error, Result};
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;

/// Media types (image-spec media-types.md; Docker's image manifest version 2, schema 2).
pub mod media_type {
    /// OCI index.
    pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    /// OCI manifest.
    pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    /// OCI configuration.
    pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    /// OCI layer without compression.
    pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
    /// OCI layer.
    pub const LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    /// OCI layer.
    pub const LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
    /// Docker's index.
    pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    /// Docker's manifest.
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    /// Docker's first manifest, which has no configuration.
    pub const DOCKER_SCHEMA1: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";
    /// Docker's configuration.
    pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
    /// Docker's layer without compression.
    pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
    /// Docker's layer.
    pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
    /// Docker's layer that has to be fetched from elsewhere.
    pub const DOCKER_FOREIGN_LAYER: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
}

/// What content is, and how it is called (descriptor.md).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// Of the content.
    #[serde(default)]
    pub media_type: String,
    /// Of the content.
    pub digest: Digest,
    /// Of the content, in bytes.
    #[serde(default)]
    pub size: u64,
    /// Where else it can be had.
    #[serde(default, deserialize_with = "null", skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    /// Anything.
    #[serde(default, deserialize_with = "null", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// What it runs on, in an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// What kind of artifact it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
}

/// What an image runs on (image-index.md, platform).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// `amd64`.
    #[serde(default)]
    pub architecture: String,
    /// `linux`.
    #[serde(default)]
    pub os: String,
    /// `v8`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub variant: String,
    /// Windows' version.
    #[serde(default, rename = "os.version", skip_serializing_if = "String::is_empty")]
    pub os_version: String,
}

/// manifest.md.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// `None` in many OCI manifests.
    #[serde(default)]
    pub media_type: Option<String>,
    /// The configuration.
    pub config: Descriptor,
    /// From the lowest to the topmost.
    #[serde(default, deserialize_with = "null")]
    pub layers: Vec<Descriptor>,
}

/// image-index.md.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// `None` in many OCI indexes.
    #[serde(default)]
    pub media_type: Option<String>,
    /// What is to be chosen from.
    #[serde(default, deserialize_with = "null")]
    pub manifests: Vec<Descriptor>,
}

/// config.md.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct ImageConfig {
    /// RFC 3339.
    #[serde(default)]
    pub created: Option<String>,
    /// Who made it.
    #[serde(default, deserialize_with = "null")]
    pub author: String,
    /// `amd64`.
    #[serde(default, deserialize_with = "null")]
    pub architecture: String,
    /// `v8`.
    #[serde(default, deserialize_with = "null")]
    pub variant: String,
    /// `linux`.
    #[serde(default, deserialize_with = "null")]
    pub os: String,
    /// Windows' version.
    #[serde(default, rename = "os.version", deserialize_with = "null")]
    pub os_version: String,
    /// How a container of it runs.
    #[serde(default, deserialize_with = "null")]
    pub config: RunConfig,
    /// Its layers.
    #[serde(default)]
    pub rootfs: RootFs,
    /// How it was made, oldest first.
    #[serde(default, deserialize_with = "null")]
    pub history: Vec<History>,
    /// Docker's.
    #[serde(default, deserialize_with = "null")]
    pub docker_version: String,
    /// Docker's.
    #[serde(default, deserialize_with = "null")]
    pub comment: String,
}

/// config.md, `rootfs`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// `layers`.
    #[serde(default, rename = "type")]
    pub kind: String,
    /// From the lowest to the topmost.
    #[serde(default, deserialize_with = "null")]
    pub diff_ids: Vec<Digest>,
}

/// config.md, `history`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// `/bin/sh -c #(nop)  CMD ["sh"]`.
    #[serde(default, deserialize_with = "null", skip_serializing_if = "String::is_empty")]
    pub created_by: String,
    /// Who made it.
    #[serde(default, deserialize_with = "null", skip_serializing_if = "String::is_empty")]
    pub author: String,
    /// `-m`.
    #[serde(default, deserialize_with = "null", skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// It has no layer.
    #[serde(default, deserialize_with = "null", skip_serializing_if = "is_false")]
    pub empty_layer: bool,
}

/// `{}`, as the values of Docker's sets are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}

/// config.md, `config`, with Docker's additions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RunConfig {
    /// `user[:group]`.
    #[serde(default, deserialize_with = "null", skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// `80/tcp`.
    #[serde(default, deserialize_with = "null", skip_serializing_if = "BTreeMap::is_empty")]
    pub exposed_ports: BTreeMap<String, Empty>,
    /// `NAME=value`.
    #[serde(default, deserialize_with = "null", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// What runs.
    #[serde(default, deserialize_with = "words", skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// Its arguments, or what runs.
    #[serde(default, deserialize_with = "words", skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    /// Directories that are volumes.
    #[serde(default, deserialize_with = "null", skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<String, Empty>,
    /// Where it runs.
    #[serde(default, deserialize_with = "null", skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// Anything.
    #[serde(default, deserialize_with = "null", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// `SIGTERM`.
    #[serde(default, deserialize_with = "null", skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
    /// Windows'.
    #[serde(default, deserialize_with = "null", skip_serializing_if = "is_false")]
    pub args_escaped: bool,
    /// `HEALTHCHECK`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Health>,
    /// `ONBUILD`.
    #[serde(default, deserialize_with = "null", skip_serializing_if = "Vec::is_empty")]
    pub on_build: Vec<String>,
    /// `SHELL`.
    #[serde(default, deserialize_with = "null", skip_serializing_if = "Vec::is_empty")]
    pub shell: Vec<String>,
}

/// How a container is asked whether it is well; times in nanoseconds, 0 for the default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Health {
    /// `NONE`, `CMD` and words, or `CMD-SHELL` and a line.
    #[serde(default, deserialize_with = "null", skip_serializing_if = "Vec::is_empty")]
    pub test: Vec<String>,
    /// Between two.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub interval: i64,
    /// For one.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub timeout: i64,
    /// Before failures count.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub start_period: i64,
    /// Between two before it is well.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub start_interval: i64,
    /// How many failures make it ill.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub retries: i64,
}

impl Manifest {
    /// # Errors
    /// It is not one, or one of schema 1.
    pub fn parse(_bytes: &[u8]) -> Result<Self> {
        todo!()
    }
}

impl Index {
    /// # Errors
    /// It is not one.
    pub fn parse(_bytes: &[u8]) -> Result<Self> {
        todo!()
    }

    /// The manifest for `platform`: of its variant, or the best that it can run.
    ///
    /// # Errors
    /// `no matching manifest for linux/arm64/v8 in the manifest list entries`.
    pub fn choose(&self, _platform: &Platform) -> Result<&Descriptor> {
        todo!()
    }
}

impl ImageConfig {
    /// # Errors
    /// It is not one.
    pub fn parse(_bytes: &[u8]) -> Result<Self> {
        todo!()
    }
}

impl Platform {
    /// Of this machine.
    pub fn host() -> Self {
        todo!()
    }

    /// `linux/arm64/v8`, `arm64`, `linux`.
    ///
    /// # Errors
    /// It is none of these.
    pub fn parse(_text: &str) -> Result<Self> {
        Err(Error::invalid("todo"))
    }
}

/// Go writes `null` for what is empty.
fn null<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(d: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(d)?.unwrap_or_default())
}

/// A list of words, or, from old Dockers, one.
fn words<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Vec<String>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Words {
        One(String),
        Many(Vec<String>),
    }
    Ok(Option::deserialize(d)?.map(|words| match words {
        Words::One(word) => vec![word],
        Words::Many(words) => words,
    }))
}

fn is_false(value: &bool) -> bool {
    !value
}

fn is_zero(value: &i64) -> bool {
    *value == 0
}
