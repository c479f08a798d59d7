//! `docker pull`.

#![forbid(unsafe_code)]

use super::blob::{Arriving, BlobReader};
use super::credentials::Auth;
use super::http::{Session, is_stop};
use super::refusal::plain;
use super::repository::{CONFIG_LIMIT, Document, Refused, Registry, Repository, is_index};
use super::{Client, in_parallel};
use crate::digest::Digest;
use crate::error::{Context as _, Error, Kind, Result};
use crate::image::{self, Descriptor, Image, ImageConfig, Index, Manifest, Platform, media_type};
use crate::progress::{Event, Sink};
use crate::reference::Reference;
use crate::store::Store;
use std::collections::HashSet;
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

/// How deep indexes may be in indexes.
const DEPTH: usize = 4;
/// Of what goes from the network to who unpacks it; 16 of them may be under way.
const PART: usize = 256 << 10;
const PARTS: usize = 16;
/// Between two events of how far something is.
const TICK: Duration = Duration::from_millis(100);

/// How an image is pulled.
#[derive(Debug, Clone, Default)]
pub struct PullOptions {
    /// Of an image for several: instead of this machine's.
    pub platform: Option<Platform>,
}

/// Where an image may be had.
struct Endpoint {
    /// The same by HTTPS and, if that is allowed, by HTTP.
    bases: Vec<String>,
    auth: Auth,
    mirror: bool,
}

/// A layer that is not all here.
struct Layer<'a> {
    blob: &'a Descriptor,
    diff_id: Digest,
    /// Its blob is here.
    stored: bool,
    /// Its tree is here.
    unpacked: bool,
}

impl Layer<'_> {
    fn status(&self, sink: Sink<'_>, text: &str) {
        sink(Event::Status { id: self.blob.digest.short(), text: text.to_owned() });
    }

    fn bytes(&self, sink: Sink<'_>, text: &'static str, done: u64) {
        sink(Event::Bytes { id: self.blob.digest.short(), text, done, total: self.blob.size });
    }
}

impl Client {
    /// Brings an image here: its layers are fetched side by side and unpacked while they arrive. Docker Hub's are asked
    /// for at the mirrors first, in turn.
    ///
    /// # Errors
    /// In Docker's words, what the registry answers; what arrives is not what it is called, or cannot be unpacked. Then
    /// nothing is visible.
    pub fn pull(
        &self,
        store: &Store,
        reference: &Reference,
        options: &PullOptions,
        sink: Sink<'_>,
    ) -> Result<Image> {
        let _hold = store.hold()?;
        let mut mirrors = String::new();
        for endpoint in self.endpoints(reference)? {
            match self.pull_from(&endpoint, store, reference, options, sink) {
                Err(e) if endpoint.mirror => {
                    mirrors = format!("{mirrors}; mirror {}: {e}", endpoint.bases[0])
                }
                Err(e) if mirrors.is_empty() => return Err(e),
                Err(e) => return Err(e.remedy(mirrors.trim_start_matches("; "))),
                pulled => return pulled,
            }
        }
        Err(Error::system(format!("{}: no registry", reference.registry)))
    }

    fn endpoints(&self, reference: &Reference) -> Result<Vec<Endpoint>> {
        let mut endpoints = Vec::new();
        if reference.registry == "docker.io" {
            for mirror in &self.settings.registry_mirrors {
                // Its own credentials if there are any: what is given is for the registry that the name names.
                let auth = self.credentials.get(mirror)?;
                endpoints.push(Endpoint { bases: vec![mirror.clone()], auth, mirror: true });
            }
        }
        let auth = self.credentials.of_registry(&reference.registry)?;
        endpoints.push(Endpoint { bases: self.bases(&reference.registry), auth, mirror: false });
        Ok(endpoints)
    }

    fn pull_from(
        &self,
        endpoint: &Endpoint,
        store: &Store,
        reference: &Reference,
        options: &PullOptions,
        sink: Sink<'_>,
    ) -> Result<Image> {
        let session = Session::new(self);
        let registry = Registry::open(&session, &endpoint.bases, &endpoint.auth)?;
        let repository = Repository::new(&registry, &reference.repository, "pull");
        let wanted = match (&reference.digest, &reference.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, tag) => tag.clone().unwrap_or_else(|| "latest".to_owned()),
        };
        let named = repository.manifest(&wanted).map_err(|refused| translated(refused, reference))?;
        sink(Event::Status { id: wanted, text: format!("Pulling from {}", reference.repository) });

        let mut document = named.clone();
        let platform = options.platform.clone().unwrap_or_else(Platform::host);
        for _ in 0..DEPTH {
            if is_index(&document.media_type) {
                let index = Index::parse(&document.bytes)?;
                let digest = index.choose(&platform)?.digest.to_string();
                document = repository.manifest(&digest).map_err(|refused| translated(refused, reference))?;
            }
        }
        if is_index(&document.media_type) {
            return Err(Error::system(format!(
                "{}: more than {DEPTH} indexes in one another",
                reference.familiar()
            )));
        }
        let Document { bytes, media_type, .. } = &document;
        let manifest = Manifest::parse(bytes)?;
        let kind = manifest.config.media_type.as_str();
        if !matches!(kind, "" | "application/octet-stream" | media_type::CONFIG | media_type::DOCKER_CONFIG) {
            return Err(Error::new(
                Kind::Unsupported,
                format!("{}: no image but {}", reference.familiar(), plain(kind)),
            ));
        }
        let raw = repository.document(&manifest.config, CONFIG_LIMIT)?;
        let config = ImageConfig::parse(&raw)?;
        if options.platform.is_some() && !is_for(&config, &platform) {
            return Err(Error::not_found(format!(
                "image with reference {} was found but does not match the specified platform: wanted {}/{}, actual: {}/{}",
                reference.familiar(),
                platform.os,
                platform.architecture,
                plain(&config.os),
                plain(&config.architecture)
            )));
        }
        if config.rootfs.diff_ids.len() != manifest.layers.len() {
            return Err(Error::system("layers from manifest don't match image configuration"));
        }

        let tagged = Reference { digest: None, ..reference.clone() };
        let pinned = Reference { tag: None, digest: Some(named.digest), ..reference.clone() };
        let names = if reference.digest.is_some() { vec![pinned] } else { vec![tagged, pinned] };
        let before = store.images().resolve(&names[0].to_string()).ok().map(|image| image.id);
        let here = |image: &Image| {
            let has = |layer: &image::Layer| {
                store.layers().has(&layer.diff_id) && is_stored(store, &layer.blob, layer.size)
            };
            image.manifest.digest == document.digest && image.layers.iter().all(has)
        };
        if !store.images().get(&manifest.config.digest).is_ok_and(|image| here(&image)) {
            self.fetch(&repository, store, &manifest, &config, sink)?;
        }
        let image = store.images().install(bytes, media_type, &raw, &names)?;

        sink(Event::Line(format!("Digest: {}", named.digest)));
        let is_old = before == Some(image.id);
        let status = if is_old { "Image is up to date for" } else { "Downloaded newer image for" };
        sink(Event::Line(format!("Status: {status} {}", names[0].familiar())));
        Ok(image)
    }

    /// Makes every layer of an image be here.
    fn fetch(
        &self,
        repository: &Repository<'_>,
        store: &Store,
        manifest: &Manifest,
        config: &ImageConfig,
        sink: Sink<'_>,
    ) -> Result<()> {
        let (mut missing, mut seen) = (Vec::new(), HashSet::new());
        for (blob, diff_id) in manifest.layers.iter().zip(&config.rootfs.diff_ids) {
            let layer = Layer {
                blob,
                diff_id: *diff_id,
                stored: is_stored(store, &blob.digest, blob.size),
                unpacked: store.layers().has(diff_id),
            };
            // An image may have the same layer several times.
            let first = seen.insert((blob.digest, *diff_id));
            if layer.stored && layer.unpacked {
                layer.status(sink, "Already exists");
            } else if first {
                layer.status(sink, "Pulling fs layer");
                missing.push(layer);
            }
        }
        let most = self.settings.max_concurrent_downloads;
        for layer in missing.iter().skip(most) {
            layer.status(sink, "Waiting");
        }
        in_parallel(repository.registry.session, most, &missing, |layer| {
            bring(repository, store, layer, sink)?;
            layer.status(sink, "Pull complete");
            Ok(())
        })
    }
}

/// One pass over a layer: what arrives is written to its blob and unpacked at the same time.
fn bring(repository: &Repository<'_>, store: &Store, layer: &Layer<'_>, sink: Sink<'_>) -> Result<()> {
    let id = layer.blob.digest;
    if layer.stored {
        let Some(blob) = store.blobs().open(&id)? else {
            return Err(Error::system(format!("layer {id} has gone while it was needed")));
        };
        let mut meter = Meter::default();
        let done = |done| meter.tick(|| layer.bytes(sink, "Extracting", done));
        match store.layers().unpack(blob, Some(&layer.diff_id), done) {
            // It has changed on the disk: it is fetched again.
            Err(_) if !store.blobs().is_whole(&id)? => {}
            unpacked => return unpacked.map(drop),
        }
    }
    if layer.unpacked {
        return download(repository, store, layer, None, sink);
    }
    let (to, from) = mpsc::sync_channel(PARTS);
    let (downloaded, broken) = (AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|scope| {
        let downloading = thread::Builder::new()
            .spawn_scoped(scope, || {
                let done = download(repository, store, layer, Some(to), sink);
                downloaded.store(done.is_ok(), Ordering::Relaxed);
                done
            })
            .context(|| "start a thread")?;
        let mut meter = Meter::default();
        let unpacked = store.layers().unpack(Arriving::new(from, &broken), Some(&layer.diff_id), |done| {
            if downloaded.load(Ordering::Relaxed) {
                meter.tick(|| layer.bytes(sink, "Extracting", done));
            }
        });
        let broken = broken.load(Ordering::Relaxed);
        if unpacked.is_err() && !broken {
            repository.registry.session.stop();
        }
        let downloaded = downloading.join().unwrap_or_else(|_| Err(Error::system("the download panicked")));
        match (unpacked, downloaded) {
            (Ok(_), downloaded) => downloaded,
            // What is wrong with the blob is the reason why it cannot be unpacked.
            (Err(_), Err(reason)) if broken || !is_stop(&reason) => Err(reason),
            (Err(e), _) => Err(e.context(format!("failed to register layer {id}"))),
        }
    })
}

fn download(
    repository: &Repository<'_>,
    store: &Store,
    layer: &Layer<'_>,
    mut to: Option<SyncSender<Option<Vec<u8>>>>,
    sink: Sink<'_>,
) -> Result<()> {
    let mut writer = store.blobs().writer()?;
    let mut reader = BlobReader::new(repository, layer.blob.digest, layer.blob.size);
    let mut meter = Meter::default();
    let mut ended = false;
    while !ended {
        let (mut part, mut filled, begun) = (vec![0; PART], 0, Instant::now());
        // TLS gives 16 KiB at a time; but who unpacks shall not wait for a slow network to fill a part.
        while filled < PART && !ended && begun.elapsed() < TICK {
            let n = reader.read(&mut part[filled..])?;
            ended = n == 0;
            filled += n;
            meter.tick(|| layer.bytes(sink, "Downloading", reader.done()));
        }
        part.truncate(filled);
        writer.write_all(&part).context(|| format!("write blob {}", layer.blob.digest))?;
        // Behind the end of the archive nobody takes any more, but the blob has to be whole.
        if to.as_ref().is_some_and(|to| to.send(Some(part)).is_err()) {
            to = None;
        }
    }
    layer.status(sink, "Verifying Checksum");
    writer.commit(Some(&layer.blob.digest)).map_err(|e| match e.errno() {
        Some(_) => e,
        None => e.context(format!("filesystem layer verification failed for digest {}", layer.blob.digest)),
    })?;
    layer.status(sink, "Download complete");
    // Only now: what is unpacked last may rely on the digest.
    if let Some(to) = to {
        let _ = to.send(None);
    }
    Ok(())
}

/// Lets through one event in a while.
#[derive(Default)]
struct Meter {
    last: Option<Instant>,
}

impl Meter {
    fn tick(&mut self, event: impl FnOnce()) {
        if self.last.is_none_or(|last| last.elapsed() >= TICK) {
            self.last = Some(Instant::now());
            event();
        }
    }
}

/// Whether a blob need not be fetched: it is here, and not cut short.
fn is_stored(store: &Store, blob: &Digest, size: u64) -> bool {
    store.blobs().size(blob).is_ok_and(|found| found == Some(size))
}

fn is_for(config: &ImageConfig, platform: &Platform) -> bool {
    config.os == platform.os
        && config.architecture == platform.architecture
        && (platform.variant.is_empty() || config.variant.is_empty() || config.variant == platform.variant)
}

/// Docker's words for an image that cannot be had.
fn translated(refused: Refused, reference: &Reference) -> Error {
    let Refused::Answer(refusal) = refused else { return refused.into() };
    let name = reference.familiar_name();
    match refusal.code.as_str() {
        "DENIED" => Error::not_found(format!(
            "pull access denied for {name}, repository does not exist or may require 'docker login': {}",
            refusal.text
        )),
        "MANIFEST_UNKNOWN" => {
            Error::not_found(format!("manifest for {} not found: {}", reference.familiar(), refusal.text))
        }
        "NAME_UNKNOWN" => Error::not_found(format!("repository {name} not found: {}", refusal.text)),
        _ => refusal.error(),
    }
}
