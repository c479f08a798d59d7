//! What somebody wrote, and which image it means: Docker's rules (a name before an id) and texts.

#![forbid(unsafe_code)]

use super::{Images, Store};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::image::Image;
use crate::reference::Reference;

impl Images {
    /// Finds what somebody wrote: a name, `name@sha256:…`, a long id or the first digits of one. The image has the
    /// manifest that the name had, where several have the same configuration.
    ///
    /// # Errors
    /// `No such image: x:latest`; the digits are those of several.
    pub fn resolve(&self, text: &str) -> Result<Image> {
        let (id, manifest) = self.identify(text)?;
        self.store.image(&id, manifest)?.ok_or_else(|| match Reference::parse(text) {
            Ok(name) => no_such(&name.familiar()),
            Err(_) => no_such(&id.to_string()),
        })
    }

    /// The same, of an image that need not be whole: its id, and the manifest that is meant.
    pub(super) fn identify(&self, text: &str) -> Result<(Digest, Option<Digest>)> {
        let store = &self.store;
        let id = Digest::from_hex(text).or_else(|| Digest::parse(text).ok());
        if let Some(id) = id {
            return by_digest(store, &id)?.ok_or_else(|| no_such(&id.to_string()));
        }
        let name = Reference::parse(text);
        if let Ok(name) = &name
            && let Some(found) = store.name(name)?
            // Otherwise it was removed since the name was read.
            && store.record_path(&found.image).exists()
        {
            return Ok((found.image, Some(found.manifest)));
        }
        if let Some(id) = by_short_id(store, text)? {
            return Ok((id, None));
        }
        Err(no_such(&name?.familiar()))
    }
}

/// Whether what somebody wrote is an id, or the beginning of one, of this image.
fn is_id_of(text: &str, id: &Digest) -> bool {
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    !hex.is_empty() && id.hex().starts_with(hex)
}

fn no_such(name: &str) -> Error {
    Error::not_found(format!("No such image: {name}"))
}

/// An image's id, or a manifest's digest.
fn by_digest(store: &Store, digest: &Digest) -> Result<Option<(Digest, Option<Digest>)>> {
    if store.record_path(digest).exists() {
        return Ok(Some((*digest, None)));
    }
    for id in store.ids()?.0 {
        // What a damaged one has nobody knows.
        if let Ok(Some(record)) = store.record(&id)
            && record.manifests.iter().any(|variant| variant.manifest.digest == *digest)
        {
            return Ok(Some((id, Some(*digest))));
        }
    }
    Ok(None)
}

fn by_short_id(store: &Store, text: &str) -> Result<Option<Digest>> {
    let mut found = store.ids()?.0;
    found.retain(|id| is_id_of(text, id));
    match &found[..] {
        [] => Ok(None),
        [id] => Ok(Some(*id)),
        several => Err(Error::invalid(format!("image id {text} is ambiguous: {} begin so", several.len()))
            .remedy("write more digits")),
    }
}
