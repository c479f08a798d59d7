//! New images: of a container's changes on top of its image (`docker commit`), and of a root filesystem's tar
//! (`docker import`).

#![forbid(unsafe_code)]

use super::spec::{Descriptor, History, Platform, RootFs, RunConfig, media_type};
use super::{Image, changes, manifest};
use crate::archive::decompress;
use crate::digest::Digest;
use crate::error::{Context as _, Error, Result};
use crate::reference::Reference;
use crate::store::{BlobWriter, Store};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Serialize;
use std::io::{self, Read, Write as _};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A tar without anything: two blocks of zeros. Docker adds no layer for it.
const EMPTY_TAR: &str = "5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef";

/// What a commit adds to its base.
#[derive(Debug, Clone, Default)]
pub struct Commit {
    /// The whole configuration of the new image, changes applied.
    pub config: RunConfig,
    /// `-a`.
    pub author: String,
    /// `-m`.
    pub comment: String,
    /// What made the layer, as `docker history` shows it: the container's command.
    pub created_by: String,
    /// The names that it gets.
    pub names: Vec<Reference>,
    /// The container's id.
    pub container: String,
}

/// The configuration that is written; what is not known of an image is in none that is made here.
#[derive(Serialize)]
struct Written<'a> {
    architecture: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    author: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    comment: &'a str,
    config: &'a RunConfig,
    #[serde(skip_serializing_if = "str::is_empty")]
    container: &'a str,
    created: &'a str,
    history: &'a [History],
    os: &'a str,
    rootfs: &'a RootFs,
    #[serde(skip_serializing_if = "str::is_empty")]
    variant: &'a str,
}

/// Makes an image of another and one layer on top of it, which is read as a tar without compression; no base makes one
/// of the layer alone.
///
/// # Errors
/// A name with a digest; it is no tar; reading or writing failed.
pub fn commit(
    store: &Store,
    base: Option<&Image>,
    layer: impl Read + Send,
    commit: &Commit,
) -> Result<Image> {
    let platform = match base {
        Some(base) => Platform {
            architecture: base.config.architecture.clone(),
            os: base.config.os.clone(),
            variant: base.config.variant.clone(),
            os_version: String::new(),
        },
        None => Platform { variant: String::new(), ..Platform::host() },
    };
    create(store, base, layer, commit, &platform)
}

/// Makes an image of a root filesystem's tar of any compression; `lines` are of a Dockerfile (`CMD ["sh"]`), `source`
/// is what history shows (`-`, a URL).
///
/// # Errors
/// A line is not understood; a name with a digest; it is no tar; reading or writing failed.
pub fn import(
    store: &Store,
    archive: impl Read + Send,
    source: &str,
    message: &str,
    lines: &[String],
    platform: Option<&Platform>,
    name: Option<&Reference>,
) -> Result<Image> {
    let mut config = RunConfig::default();
    changes(&mut config, lines)?;
    let comment = if message.is_empty() { format!("Imported from {source}") } else { message.to_owned() };
    let commit = Commit { config, comment, names: name.cloned().into_iter().collect(), ..Commit::default() };
    let host = Platform { variant: String::new(), ..Platform::host() };
    let (_, plain) = decompress(archive)?;
    create(store, None, plain, &commit, platform.unwrap_or(&host))
}

fn create(
    store: &Store,
    base: Option<&Image>,
    layer: impl Read + Send,
    commit: &Commit,
    platform: &Platform,
) -> Result<Image> {
    commit.names.iter().try_for_each(Reference::refuse_digest)?;
    let _hold = store.hold()?;
    let created = create_held(store, base, layer, commit, platform);
    if created.is_err() {
        store.mark_garbage()?;
    }
    created
}

fn create_held(
    store: &Store,
    base: Option<&Image>,
    layer: impl Read + Send,
    commit: &Commit,
    platform: &Platform,
) -> Result<Image> {
    let docker = base.is_some_and(|base| base.manifest.media_type == media_type::DOCKER_MANIFEST);
    let (of_manifest, of_config, of_layer) = if docker {
        (media_type::DOCKER_MANIFEST, media_type::DOCKER_CONFIG, media_type::DOCKER_LAYER_GZIP)
    } else {
        (media_type::MANIFEST, media_type::CONFIG, media_type::LAYER_GZIP)
    };

    let mut blobs: Vec<Descriptor> = Vec::new();
    let mut rootfs = RootFs { kind: "layers".to_owned(), diff_ids: Vec::new() };
    let mut history = Vec::new();
    if let Some(base) = base {
        let of = |layer: &super::Layer| Descriptor::new(&layer.media_type, layer.blob, layer.size);
        blobs.extend(base.layers.iter().map(of));
        rootfs.diff_ids.extend(base.layers.iter().map(|layer| layer.diff_id));
        history.clone_from(&base.config.history);
    }
    let (diff_id, blob, size) = add_layer(store, layer)?;
    let empty_layer = Digest::from_hex(EMPTY_TAR) == Some(diff_id);
    if !empty_layer {
        blobs.push(Descriptor::new(of_layer, blob, size));
        rootfs.diff_ids.push(diff_id);
    }
    let created = now()?;
    history.push(History {
        created: Some(created.clone()),
        created_by: commit.created_by.clone(),
        author: commit.author.clone(),
        comment: commit.comment.clone(),
        empty_layer,
    });
    let config = serde_json::to_vec(&Written {
        architecture: &platform.architecture,
        author: &commit.author,
        comment: &commit.comment,
        config: &commit.config,
        container: &commit.container,
        created: &created,
        history: &history,
        os: &platform.os,
        rootfs: &rootfs,
        variant: &platform.variant,
    })
    .map_err(|e| Error::system(e.to_string()))?;
    let manifest =
        manifest(of_manifest, &Descriptor::new(of_config, Digest::of(&config), config.len() as u64), &blobs)?;
    let parent = base.map(|base| base.id);
    store.images().install_child(&manifest, of_manifest, &config, &commit.names, parent)
}

/// Unpacks a layer and keeps it compressed, in one pass; returns its diff id, and its blob with its length.
fn add_layer(store: &Store, tar: impl Read + Send) -> Result<(Digest, Digest, u64)> {
    let mut gzip = GzEncoder::new(store.blobs().writer()?, Compression::new(LEVEL));
    let (diff_id, _) = store.layers().unpack_tar(Tee { from: tar, to: &mut gzip })?;
    let mut blob: BlobWriter = gzip.finish().context(|| "write layer".to_owned())?;
    blob.flush().context(|| "write layer".to_owned())?;
    let (blob, size) = blob.commit(None)?;
    Ok((diff_id, blob, size))
}

/// Of zlib's.
const LEVEL: u32 = 5;

/// Copies what is read.
struct Tee<'a, R, W> {
    from: R,
    to: &'a mut W,
}

impl<R: Read, W: io::Write> Read for Tee<'_, R, W> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let n = self.from.read(to)?;
        self.to.write_all(&to[..n])?;
        Ok(n)
    }
}

fn now() -> Result<String> {
    OffsetDateTime::now_utc().format(&Rfc3339).map_err(|e| Error::system(format!("clock: {e}")))
}
