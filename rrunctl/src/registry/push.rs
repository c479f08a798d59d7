//! `docker push` (distribution-spec, Push).

#![forbid(unsafe_code)]

use super::http::{Cause, Failure, Payload, Reply, Session, join};
use super::refusal::Refusal;
use super::repository::{MANIFEST_LIMIT, Registry, Repository};
use super::{Client, in_parallel};
use crate::digest::Digest;
use crate::error::{Context as _, Error, Kind, Result};
use crate::image::{Image, Manifest, media_type};
use crate::progress::{Event, Sink};
use crate::reference::Reference;
use crate::store::Store;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use ureq::http::header::{CONTENT_RANGE, CONTENT_TYPE, LOCATION};
use ureq::http::{HeaderName, Method, Uri};

/// Of an upload in parts, where the registry wants no longer ones.
const CHUNK: u64 = 8 << 20;
const TICK: Duration = Duration::from_millis(100);

/// A blob that has to be there before the manifest.
struct Part {
    digest: Digest,
    size: u64,
    /// As the events call it; the configuration has none.
    id: Option<String>,
    /// Where else in the registry it may be.
    elsewhere: Vec<String>,
}

/// How a blob came to be there.
enum Uploaded {
    Sent,
    Mounted(String),
}

impl Client {
    /// Brings an image from here to the registry that its name names, byte for byte; what is there already is not sent.
    /// Returns the digest of its manifest.
    ///
    /// # Errors
    /// There is no such image here; what the registry answers.
    pub fn push(&self, store: &Store, reference: &Reference, sink: Sink<'_>) -> Result<Digest> {
        let _hold = store.hold()?;
        let image = store.images().resolve(&reference.to_string()).map_err(|e| match e.kind() {
            Kind::NotFound => Error::not_found(format!(
                "An image does not exist locally with the tag: {}",
                reference.familiar_name()
            )),
            _ => e,
        })?;
        let bytes = store.blobs().read(&image.manifest.digest, MANIFEST_LIMIT)?;
        let manifest = Manifest::parse(&bytes)?;
        sink(Event::Line(format!("The push refers to repository [{}]", reference.name())));

        let auth = self.credentials.of_registry(&reference.registry)?;
        let session = Session::new(self);
        let registry = Registry::open(&session, &self.bases(&reference.registry), &auth)?;
        let repository = Repository::new(&registry, &reference.repository, "pull,push");
        let elsewhere = elsewhere(store, reference)?;
        let mut parts: Vec<Part> = Vec::new();
        for layer in &image.layers {
            let id = layer.diff_id.short();
            sink(Event::Status { id: id.clone(), text: "Preparing".to_owned() });
            // Its content comes from elsewhere, and the registry need not have it (image-spec layer.md).
            if layer.media_type.contains("nondistributable")
                || layer.media_type == media_type::DOCKER_FOREIGN_LAYER
            {
                sink(Event::Status { id, text: "Skipped foreign layer".to_owned() });
            } else if parts.iter().all(|part| part.digest != layer.blob) {
                let elsewhere = elsewhere.get(&layer.blob).into_iter().flatten().cloned().collect();
                parts.push(Part { digest: layer.blob, size: layer.size, id: Some(id), elsewhere });
            }
        }
        in_parallel(&session, self.settings.max_concurrent_uploads, &parts, |part| {
            part.push(&repository, store, sink)
        })?;
        let config = Part { digest: image.id, size: manifest.config.size, id: None, elsewhere: Vec::new() };
        config.push(&repository, store, sink)?;
        publish(&repository, reference, &image, &bytes)?;
        let tag = reference.tag.clone().unwrap_or_else(|| image.manifest.digest.to_string());
        sink(Event::Line(format!("{tag}: digest: {} size: {}", image.manifest.digest, bytes.len())));
        Ok(image.manifest.digest)
    }
}

/// By blob, the other repositories of the same registry that images with it are called by. Whether they were ever
/// pushed there is not known: a registry that cannot mount a blob asks for it.
fn elsewhere(store: &Store, reference: &Reference) -> Result<BTreeMap<Digest, BTreeSet<String>>> {
    let mut found: BTreeMap<Digest, BTreeSet<String>> = BTreeMap::new();
    for (name, id) in store.images().references()? {
        if name.registry == reference.registry && name.repository != reference.repository {
            // One that was removed since is none.
            let Ok(image) = store.images().get(&id) else { continue };
            for layer in image.layers {
                found.entry(layer.blob).or_default().insert(name.repository.clone());
            }
        }
    }
    Ok(found)
}

fn publish(repository: &Repository<'_>, reference: &Reference, image: &Image, bytes: &[u8]) -> Result<()> {
    let name = match &reference.tag {
        Some(tag) => tag.clone(),
        None => image.manifest.digest.to_string(),
    };
    let uri = repository.uri(&format!("manifests/{name}"))?;
    let headers = vec![(CONTENT_TYPE, image.manifest.media_type.clone())];
    let reply = repository.send_for(None, (Method::PUT, uri), headers, Payload::Bytes(bytes), true)?;
    if !matches!(reply.status, 200..=204) {
        return Err(Refusal::read(reply).error());
    }
    match reply.header("docker-content-digest").map(Digest::parse) {
        Some(Ok(digest)) if digest != image.manifest.digest => {
            Err(Error::system(format!("{}: took {} for {digest}", reply.what, image.manifest.digest)))
        }
        _ => Ok(()),
    }
}

impl Part {
    fn status(&self, sink: Sink<'_>, text: String) {
        if let Some(id) = &self.id {
            sink(Event::Status { id: id.clone(), text });
        }
    }

    fn push(&self, repository: &Repository<'_>, store: &Store, sink: Sink<'_>) -> Result<()> {
        let uri = repository.uri(&format!("blobs/{}", self.digest))?;
        let reply = repository.ask(Method::HEAD, uri, Vec::new())?;
        if reply.status == 200 {
            self.status(sink, "Layer already exists".to_owned());
            return Ok(());
        }
        // A registry that does not let one look says so when it is asked to take it.
        let session = repository.registry.session;
        let (mut tries, mut chunked) = (0, false);
        loop {
            tries += 1;
            let from = self.elsewhere.first().filter(|_| tries == 1);
            match self.upload(repository, store, from.map(String::as_str), &mut chunked, sink) {
                Ok(Uploaded::Sent) => self.status(sink, "Pushed".to_owned()),
                Ok(Uploaded::Mounted(from)) => self.status(sink, format!("Mounted from {from}")),
                Err(failure) if failure.cause == Cause::Cut && session.back_off(tries) => continue,
                Err(failure) => return Err(failure.error),
            }
            return Ok(());
        }
    }

    /// Once: asks for a place and sends. [`Cause::Cut`] where it is worth another try.
    fn upload(
        &self,
        repository: &Repository<'_>,
        store: &Store,
        from: Option<&str>,
        chunked: &mut bool,
        sink: Sink<'_>,
    ) -> Result<Uploaded, Failure> {
        let query = from.map(|from| format!("?mount={}&from={from}", self.digest)).unwrap_or_default();
        let uri = repository.uri(&format!("blobs/uploads/{query}"))?;
        let asked = repository.send_for(from, (Method::POST, uri), Vec::new(), Payload::Bytes(&[]), true);
        let mut reply = match asked {
            // A token service may refuse the whole where it does not let one see the other repository.
            Err(failure) if from.is_some() && !matches!(failure.cause, Cause::Stopped | Cause::Cut) => {
                return self.upload(repository, store, None, chunked, sink);
            }
            asked => asked?,
        };
        match (reply.status, from) {
            (201, Some(from)) => return Ok(Uploaded::Mounted(from.to_owned())),
            (202, _) => {}
            // Some refuse what they cannot mount.
            (_, Some(_)) => return self.upload(repository, store, None, chunked, sink),
            _ => return Err(Refusal::read(reply).error().into()),
        }
        let mut at = next(repository, &reply)?;
        let least = reply.header("oci-chunk-min-length").and_then(|length| length.parse().ok());
        let done = Arc::new(Mutex::new(Instant::now()));
        let blob = |begin: u64, length: u64| -> Result<Box<dyn Read + '_>> {
            let mut file = store
                .blobs()
                .open(&self.digest)?
                .ok_or_else(|| Error::system(format!("blob {} is not here", self.digest)))?;
            file.seek(SeekFrom::Start(begin)).context(|| format!("blob {}", self.digest))?;
            Ok(Box::new(Pushing {
                part: self,
                file: file.take(length),
                done: begin,
                last: Arc::clone(&done),
                sink,
            }))
        };
        let content = (CONTENT_TYPE, "application/octet-stream".to_owned());
        let whole = !*chunked && least.is_none();
        if !whole {
            let step = least.unwrap_or(0).max(CHUNK);
            let mut begin = 0;
            while begin < self.size {
                let length = step.min(self.size - begin);
                // Inclusive, and without a unit (distribution-spec, Pushing a blob in chunks).
                let range = (CONTENT_RANGE, format!("{begin}-{}", begin + length - 1));
                let open = || blob(begin, length);
                let body = Payload::Stream { length, open: &open };
                reply = send(repository, Method::PATCH, at, vec![content.clone(), range], body)?;
                if !matches!(reply.status, 202 | 204) {
                    return Err(refused(reply));
                }
                at = next(repository, &reply)?;
                begin += length;
            }
        }
        let at = with_digest(&at, &self.digest)?;
        let open = || blob(0, self.size);
        let body =
            if whole { Payload::Stream { length: self.size, open: &open } } else { Payload::Bytes(&[]) };
        let reply = send(repository, Method::PUT, at, vec![content], body)?;
        match reply.status {
            200..=204 => Ok(Uploaded::Sent),
            // A proxy in between takes no request of this length.
            413 if whole => {
                *chunked = true;
                Err(Failure { cause: Cause::Cut, error: Refusal::read(reply).error() })
            }
            _ => Err(refused(reply)),
        }
    }
}

/// Not patiently: after a failure nobody knows how much the registry has, and a new upload is begun.
fn send(
    repository: &Repository<'_>,
    method: Method,
    uri: Uri,
    headers: Vec<(HeaderName, String)>,
    body: Payload<'_>,
) -> Result<Reply, Failure> {
    repository.send_for(None, (method, uri), headers, body, false)
}

fn refused(reply: Reply) -> Failure {
    // The upload is not known (any more), is elsewhere, or the registry has too much to do.
    let again = matches!(reply.status, 404 | 416 | 429 | 500 | 502 | 503 | 504);
    Failure { cause: if again { Cause::Cut } else { Cause::Other }, error: Refusal::read(reply).error() }
}

/// Where the upload goes on.
fn next(repository: &Repository<'_>, reply: &Reply) -> Result<Uri> {
    let location =
        reply.headers.get(LOCATION).and_then(|location| location.to_str().ok()).ok_or_else(|| {
            Error::system(format!("{}: the answer has no Location to upload to", reply.what))
        })?;
    let next = join(&reply.uri, location).map_err(|e| e.context(&reply.what))?;
    repository.registry.session.refuse_downgrade(&reply.uri, &next)?;
    Ok(next)
}

fn with_digest(uri: &Uri, digest: &Digest) -> Result<Uri> {
    let mark = if uri.query().is_some() { '&' } else { '?' };
    let text = format!("{uri}{mark}digest=sha256%3A{}", digest.hex());
    text.parse().map_err(|e| Error::system(format!("{text:?} is no URL: {e}")))
}

/// A blob on its way, and how far it is.
struct Pushing<'a> {
    part: &'a Part,
    file: io::Take<File>,
    done: u64,
    last: Arc<Mutex<Instant>>,
    sink: Sink<'a>,
}

impl Read for Pushing<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read(to)?;
        // ureq would wait for the rest for ever.
        if n == 0 && self.file.limit() > 0 && !to.is_empty() {
            let left = self.file.limit();
            let text = format!("blob {} ends {left} bytes before its end", self.part.digest);
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        self.done += n as u64;
        let mut last = super::http::lock(&self.last);
        if let Some(id) = self.part.id.as_ref().filter(|_| last.elapsed() >= TICK) {
            *last = Instant::now();
            let (id, done, total) = (id.clone(), self.done, self.part.size);
            (self.sink)(Event::Bytes { id, text: "Pushing", done, total });
        }
        Ok(n)
    }
}
