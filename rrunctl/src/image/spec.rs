//! The documents of an image: those of image-spec (manifest.md, image-index.md, config.md) and of Docker's image
//! manifest version 2, schema 2, which are alike.
//!
//! They are read leniently and never written back: a digest is of the bytes as they were received.

#![forbid(unsafe_code)]

use crate::digest::Digest;
use crate::error::{Error, Kind, Result};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

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

/// The keys by which a document is told from another.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kinds {
    #[serde(default)]
    schema_version: Option<u64>,
    #[serde(default)]
    config: Option<IgnoredAny>,
    #[serde(default)]
    layers: Option<IgnoredAny>,
    #[serde(default)]
    manifests: Option<IgnoredAny>,
    #[serde(default)]
    fs_layers: Option<IgnoredAny>,
}

impl Descriptor {
    /// With nothing but what every descriptor has.
    pub fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest,
            size,
            urls: Vec::new(),
            annotations: BTreeMap::new(),
            platform: None,
            artifact_type: None,
        }
    }
}

impl Manifest {
    /// # Errors
    /// It is not one, or one of schema 1.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let kinds: Kinds = document("manifest", bytes)?;
        if kinds.schema_version == Some(1) || kinds.fs_layers.is_some() {
            return Err(Error::new(
                Kind::Unsupported,
                "manifest: Docker's schema 1 is not supported (push the image again with a newer tool)",
            ));
        }
        // One that is both could be two images to two readers (CVE-2021-41190).
        if kinds.manifests.is_some() {
            return Err(Error::invalid("manifest: it has manifests as an index does"));
        }
        document("manifest", bytes)
    }
}

impl Index {
    /// # Errors
    /// It is not one.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let kinds: Kinds = document("index", bytes)?;
        if kinds.config.is_some() || kinds.layers.is_some() || kinds.fs_layers.is_some() {
            return Err(Error::invalid("index: it has a configuration or layers as a manifest does"));
        }
        document("index", bytes)
    }

    /// The manifest for `platform`: of its variant, or the best that it can run.
    ///
    /// # Errors
    /// `no matching manifest for linux/arm64/v8 in the manifest list entries`.
    pub fn choose(&self, platform: &Platform) -> Result<&Descriptor> {
        let wanted = platform.runnable();
        let rank = |entry: &Descriptor| {
            let offered = entry.platform.as_ref()?.normal();
            wanted.iter().position(|wanted| *wanted == offered)
        };
        let best = self.manifests.iter().filter_map(|entry| Some((rank(entry)?, entry)));
        match (best.min_by_key(|(rank, _)| *rank), &self.manifests[..]) {
            (Some((_, entry)), _) => Ok(entry),
            // Tools that make images for one platform leave it out.
            (None, [only]) if only.platform.is_none() => Ok(only),
            _ => Err(Error::not_found(format!(
                "no matching manifest for {platform} in the manifest list entries"
            ))),
        }
    }
}

impl ImageConfig {
    /// # Errors
    /// It is not one.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        document("image configuration", bytes)
    }

    /// When the image was made; the Unix epoch where nobody says.
    pub fn created(&self) -> OffsetDateTime {
        self.created
            .as_deref()
            .and_then(|text| OffsetDateTime::parse(text, &Rfc3339).ok())
            .unwrap_or(OffsetDateTime::UNIX_EPOCH)
    }
}

impl Platform {
    /// Of this machine.
    pub fn host() -> Self {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", ""),
            "aarch64" => ("arm64", "v8"),
            "x86" => ("386", ""),
            other => (other, ""),
        };
        Self {
            architecture: architecture.into(),
            os: "linux".into(),
            variant: variant.into(),
            ..Self::default()
        }
    }

    /// `linux/arm64/v8`, `arm64`, `linux`.
    ///
    /// # Errors
    /// It is none of these.
    pub fn parse(text: &str) -> Result<Self> {
        let lower = text.to_ascii_lowercase();
        let parts: Vec<&str> = lower.split('/').collect();
        let host = Self::host();
        let (os, architecture, variant) = match parts[..] {
            ["linux"] => return Ok(host),
            [architecture] => ("linux", architecture, ""),
            [os, architecture] => (os, architecture, ""),
            [os, architecture, variant] => (os, architecture, variant),
            _ => ("", "", ""),
        };
        let word = |part: &&str| part.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_' || c == b'.');
        if architecture.is_empty() || os.is_empty() || !parts.iter().all(word) {
            return Err(Error::invalid(format!("platform {text:?} is not OS/ARCHITECTURE[/VARIANT]")));
        }
        let (architecture, variant) = match (architecture, variant) {
            ("x86_64" | "x86-64", variant) => ("amd64", variant),
            ("i386" | "i686", variant) => ("386", variant),
            ("aarch64", "") | ("arm64", "") => ("arm64", "v8"),
            ("aarch64", variant) => ("arm64", variant),
            ("armhf", "") | ("arm", "") => ("arm", "v7"),
            ("armel", "") => ("arm", "v6"),
            other => other,
        };
        if parts.len() == 1 && !KNOWN.contains(&architecture) {
            return Err(Error::invalid(format!(
                "platform {text:?}: unknown operating system or architecture"
            )));
        }
        Ok(Self {
            architecture: architecture.into(),
            os: os.into(),
            variant: variant.into(),
            ..Self::default()
        })
    }

    /// With the variant that a missing one stands for.
    fn normal(&self) -> (String, String, String) {
        let variant = match (&*self.architecture, &*self.variant) {
            ("arm64", "" | "8" | "v8") => "v8",
            ("arm", "" | "7") => "v7",
            ("arm", "5") => "v5",
            ("arm", "6") => "v6",
            ("arm", "8") => "v8",
            ("amd64", "") => "v1",
            (_, variant) => variant,
        };
        (self.os.clone(), self.architecture.clone(), variant.to_owned())
    }

    /// Platforms whose programs this one runs, the best first.
    fn runnable(&self) -> Vec<(String, String, String)> {
        let (os, architecture, variant) = self.normal();
        let older = |variants: &[&'static str]| match variants.iter().position(|v| *v == variant) {
            Some(at) => variants[at..].iter().map(|v| (architecture.clone(), (*v).to_owned())).collect(),
            None => vec![(architecture.clone(), variant.clone())],
        };
        let mut runnable: Vec<(String, String)> = match &*architecture {
            "amd64" => older(&["v4", "v3", "v2", "v1"]),
            "arm" => older(&["v8", "v7", "v6", "v5"]),
            _ => older(&[]),
        };
        match &*architecture {
            "amd64" => runnable.push(("386".into(), String::new())),
            "arm64" => {
                // Later revisions of version 8 run what the first does.
                runnable.push(("arm64".into(), "v8".into()));
                runnable.extend(["v8", "v7", "v6", "v5"].map(|v| ("arm".to_owned(), v.to_owned())));
            }
            _ => {}
        }
        runnable.into_iter().map(|(architecture, variant)| (os.clone(), architecture, variant)).collect()
    }
}

/// Architectures that may stand alone in `--platform` (the values of Go's GOARCH).
const KNOWN: [&str; 11] =
    ["386", "amd64", "arm", "arm64", "loong64", "mips64", "mips64le", "ppc64le", "riscv64", "s390x", "wasm"];

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if self.variant.is_empty() { Ok(()) } else { write!(f, "/{}", self.variant) }
    }
}

fn document<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T> {
    // serde takes a list for an object whose keys have been left out.
    if bytes.trim_ascii_start().first() == Some(&b'[') {
        return Err(Error::invalid(format!("{what}: a list, not an object")));
    }
    serde_json::from_slice(bytes).map_err(|e| Error::invalid(format!("{what}: {e}")))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn index(platforms: &[&str]) -> Index {
        let entry = |(n, platform): (usize, &&str)| Descriptor {
            media_type: media_type::MANIFEST.into(),
            digest: Digest::of(&[n as u8]),
            size: n as u64,
            urls: Vec::new(),
            annotations: BTreeMap::new(),
            platform: match platform.split('/').collect::<Vec<_>>()[..] {
                [os, architecture] => {
                    Some(Platform { os: os.into(), architecture: architecture.into(), ..Platform::default() })
                }
                [os, architecture, variant] => Some(Platform {
                    os: os.into(),
                    architecture: architecture.into(),
                    variant: variant.into(),
                    ..Platform::default()
                }),
                _ => None,
            },
            artifact_type: None,
        };
        Index { media_type: None, manifests: platforms.iter().enumerate().map(entry).collect() }
    }

    fn chosen(platforms: &[&str], wanted: &str) -> Option<u64> {
        let wanted = Platform::parse(wanted).expect(wanted);
        index(platforms).choose(&wanted).ok().map(|entry| entry.size)
    }

    #[test]
    fn the_best_manifest_that_a_platform_runs_is_chosen() {
        let all =
            ["linux/386", "windows/amd64", "linux/arm/v6", "linux/arm/v7", "linux/arm64/v8", "linux/amd64"];
        assert_eq!(chosen(&all, "linux/amd64"), Some(5));
        assert_eq!(chosen(&all, "x86_64"), Some(5));
        assert_eq!(chosen(&all, "arm64"), Some(4));
        assert_eq!(chosen(&all, "linux/arm"), Some(3));
        assert_eq!(chosen(&all, "linux/arm/v6"), Some(2));
        assert_eq!(chosen(&all[..4], "linux/arm64"), Some(3));
        assert_eq!(chosen(&all, "linux/riscv64"), None);
        assert_eq!(chosen(&["linux/arm64"], "linux/arm64/v8"), Some(0));
        assert_eq!(chosen(&["linux/amd64/v2", "linux/amd64"], "linux/amd64"), Some(1));
        assert_eq!(chosen(&["linux/amd64/v3"], "linux/amd64"), None);
        assert_eq!(chosen(&["linux/amd64/v3", "linux/amd64/v2"], "linux/amd64/v4"), Some(0));
        assert_eq!(chosen(&["unknown/unknown", "linux/amd64"], "linux/amd64"), Some(1));
        assert_eq!(chosen(&["none"], "linux/amd64"), Some(0));
        assert_eq!(chosen(&["none", "none"], "linux/amd64"), None);
        let e = index(&all).choose(&Platform::parse("linux/s390x").expect("valid")).expect_err("not there");
        assert_eq!(e.to_string(), "no matching manifest for linux/s390x in the manifest list entries");
        for bad in ["", "/", "linux/", "a/b/c/d", "solaris8", "linux/am d"] {
            assert!(Platform::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn documents_that_could_be_two_things_are_refused() {
        let digest = Digest::of(b"");
        let config = format!(r#""config":{{"mediaType":"x","digest":"{digest}","size":1}}"#);
        let manifest =
            |more: &str| Manifest::parse(format!("{{{config},\"schemaVersion\":2{more}}}").as_bytes());
        assert_eq!(manifest(r#","layers":null,"new":[1]"#).expect("valid").layers, []);
        assert!(manifest(r#","manifests":[]"#).is_err());
        assert!(Index::parse(format!("{{{config},\"manifests\":[]}}").as_bytes()).is_err());
        let schema1 =
            Manifest::parse(br#"{"schemaVersion":1,"fsLayers":[],"name":"x"}"#).expect_err("schema 1");
        assert_eq!(schema1.kind(), Kind::Unsupported);
        for broken in ["", "[]", "null", "{", "{\"config\":1}", "\u{0}"] {
            assert!(Manifest::parse(broken.as_bytes()).is_err(), "{broken}");
        }
    }

    #[test]
    fn what_go_writes_for_nothing_is_nothing() {
        let config = ImageConfig::parse(
            br#"{"architecture":"amd64","config":{"Env":null,"Cmd":"sh","Entrypoint":null,"Labels":null,"Volumes":{"/d":{}},
                "Healthcheck":null,"Hostname":"x"},"history":null,"rootfs":{"type":"layers","diff_ids":null},"created":"2024-09-26T21:31:42.5Z"}"#,
        )
        .expect("valid");
        assert_eq!(config.config.cmd, Some(vec!["sh".to_owned()]));
        assert_eq!(config.config.entrypoint, None);
        assert_eq!(config.config.volumes.keys().collect::<Vec<_>>(), ["/d"]);
        assert_eq!(config.created().unix_timestamp(), 1_727_386_302);
        assert_eq!(ImageConfig::parse(b"{}").expect("valid").created(), OffsetDateTime::UNIX_EPOCH);
    }
}
