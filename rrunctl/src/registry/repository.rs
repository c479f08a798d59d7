//! Manifests and blobs of a repository (distribution-spec, Pull).

#![forbid(unsafe_code)]

use super::auth::Authority;
use super::credentials::Auth;
use super::http::{self, Cause, Failure, Payload, Reply, Request, Session};
use super::refusal::{Refusal, plain};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::image::{Descriptor, media_type};
use serde::Deserialize;
use ureq::http::header::ACCEPT;
use ureq::http::{HeaderName, Method, Uri};

/// The longest manifest that is read: the least that registries must take (distribution-spec, Pushing Manifests).
pub(super) const MANIFEST_LIMIT: u64 = 4 << 20;
/// The longest configuration that is read.
pub(super) const CONFIG_LIMIT: u64 = 8 << 20;

/// A registry that answers.
pub(super) struct Registry<'a> {
    pub(super) session: &'a Session<'a>,
    /// Ends with a slash.
    base: String,
    pub(super) authority: Authority,
}

/// A part of it, and what is to be done there.
pub(super) struct Repository<'a> {
    pub(super) registry: &'a Registry<'a>,
    name: &'a str,
    scopes: Vec<String>,
}

/// A manifest or an index.
#[derive(Debug, Clone)]
pub(super) struct Document {
    pub(super) bytes: Vec<u8>,
    pub(super) media_type: String,
    pub(super) digest: Digest,
}

impl<'a> Registry<'a> {
    /// Finds which of `bases` answers, and what it wants.
    ///
    /// # Errors
    /// None does.
    pub(super) fn open(session: &'a Session<'a>, bases: &[String], auth: &Auth) -> Result<Self> {
        let mut failed = Error::system("no registry");
        for (n, base) in bases.iter().enumerate() {
            let registry = Self { session, base: base.clone(), authority: Authority::new(auth.clone()) };
            let request = Request {
                method: Method::GET,
                uri: registry.uri("")?,
                headers: Vec::new(),
                body: Payload::None,
                authorization: None,
            };
            // A server without TLS cuts a connection that begins with it: no reason to try again.
            let last = n + 1 == bases.len();
            match if last { session.send_patiently(&request) } else { session.send(&request) } {
                Ok(reply) => {
                    if reply.status == 401 && http::origin(&reply.uri) == http::origin(&request.uri) {
                        registry.authority.challenged(&reply.headers, &[], None);
                    }
                    return Ok(registry);
                }
                Err(failure) if failure.cause == Cause::Stopped => return Err(failure.error),
                Err(failure) => failed = failure.error,
            }
        }
        Err(failed)
    }

    /// The URL of something below `v2/`.
    ///
    /// # Errors
    /// It would be none.
    pub(super) fn uri(&self, path: &str) -> Result<Uri> {
        let text = format!("{}v2/{path}", self.base);
        text.parse().map_err(|e| Error::invalid(format!("{text:?} is no URL: {e}")))
    }

    /// Sends with what the registry wants to be shown, and a second time when it says what that is. `patiently`, also
    /// again where the registry is busy or the connection cut.
    ///
    /// # Errors
    /// There is no answer, or no token.
    pub(super) fn send(
        &self,
        scopes: &[String],
        mut request: Request<'_>,
        patiently: bool,
    ) -> Result<Reply, Failure> {
        let own = http::origin(&self.uri("").map_err(Failure::from)?);
        for last in [false, true] {
            // An upload may have been led to another host, which shall not see whose it is.
            request.authorization = match http::origin(&request.uri) == own {
                true => self.authority.header(self.session, scopes)?,
                false => None,
            };
            let reply = if patiently {
                self.session.send_patiently(&request)?
            } else {
                self.session.send(&request)?
            };
            // What another host wants, to which this one led, is none of the credentials' business.
            if reply.status != 401
                || last
                || http::origin(&reply.uri) != own
                || !self.authority.challenged(&reply.headers, scopes, request.authorization.as_deref())
            {
                return Ok(reply);
            }
        }
        Err(Error::system("unreachable").into())
    }
}

impl<'a> Repository<'a> {
    /// For `actions`: `pull`, or `pull,push`.
    pub(super) fn new(registry: &'a Registry<'a>, name: &'a str, actions: &str) -> Self {
        Self { registry, name, scopes: vec![format!("repository:{name}:{actions}")] }
    }

    /// The URL of something of this repository.
    ///
    /// # Errors
    /// It would be none.
    pub(super) fn uri(&self, path: &str) -> Result<Uri> {
        self.registry.uri(&format!("{}/{path}", self.name))
    }

    /// Sends with credentials for this repository, and for pulls from `other` too.
    ///
    /// # Errors
    /// There is no answer, or no token.
    pub(super) fn send_for(
        &self,
        other: Option<&str>,
        (method, uri): (Method, Uri),
        headers: Vec<(HeaderName, String)>,
        body: Payload<'_>,
        patiently: bool,
    ) -> Result<Reply, Failure> {
        let mut scopes = self.scopes.clone();
        scopes.extend(other.map(|other| format!("repository:{other}:pull")));
        self.registry.send(&scopes, Request { method, uri, headers, body, authorization: None }, patiently)
    }

    /// As [`Repository::send_for`], patiently.
    ///
    /// # Errors
    /// There is no answer, or no token.
    pub(super) fn ask(&self, method: Method, uri: Uri, headers: Vec<(HeaderName, String)>) -> Result<Reply> {
        Ok(self.send_for(None, (method, uri), headers, Payload::None, true)?)
    }

    /// A whole body, if the answer is that it is there; asked for again where it is cut.
    fn whole(
        &self,
        path: &str,
        headers: Vec<(HeaderName, String)>,
        limit: u64,
    ) -> Result<(Option<Vec<u8>>, Reply)> {
        let mut tries = 0;
        loop {
            tries += 1;
            let mut reply = self.ask(Method::GET, self.uri(path)?, headers.clone())?;
            if reply.status != 200 {
                return Ok((None, reply));
            }
            match reply.read(limit) {
                Err(failure) if failure.cause == Cause::Cut && self.registry.session.back_off(tries) => {}
                read => return Ok((Some(read?), reply)),
            }
        }
    }

    /// A manifest or an index by its tag or its digest, verified.
    ///
    /// # Errors
    /// What the registry answers; it is too long, or is not what it is called.
    pub(super) fn manifest(&self, reference: &str) -> Result<Document, Refused> {
        let accepted =
            [media_type::DOCKER_MANIFEST, media_type::DOCKER_LIST, media_type::MANIFEST, media_type::INDEX];
        let headers = accepted.iter().map(|name| (ACCEPT, (*name).to_owned())).collect();
        let (bytes, reply) = self.whole(&format!("manifests/{reference}"), headers, MANIFEST_LIMIT)?;
        let Some(bytes) = bytes else {
            let status = reply.status;
            let mut refusal = Refusal::read(reply);
            // Some answer with a page for people.
            if status == 404 && refusal.code.is_empty() {
                refusal = Refusal {
                    code: "MANIFEST_UNKNOWN".to_owned(),
                    text: "manifest unknown: manifest unknown".to_owned(),
                };
            }
            return Err(Refused::Answer(refusal));
        };
        let digest = Digest::of(&bytes);
        let named = [Some(reference), reply.header("docker-content-digest")];
        for name in named.into_iter().flatten() {
            if Digest::parse(name).is_ok_and(|name| name != digest) {
                return Err(Error::system(format!("manifest verification failed for digest {name}")).into());
            }
        }
        let media_type = media_type_of(&bytes, reply.header("content-type"))?;
        Ok(Document { bytes, media_type, digest })
    }

    /// A document among the blobs, verified.
    ///
    /// # Errors
    /// What the registry answers; it is too long, or is not what it is called.
    pub(super) fn document(&self, descriptor: &Descriptor, limit: u64) -> Result<Vec<u8>> {
        let (bytes, reply) = self.whole(&format!("blobs/{}", descriptor.digest), Vec::new(), limit)?;
        let Some(bytes) = bytes else { return Err(Refusal::read(reply).error()) };
        if Digest::of(&bytes) != descriptor.digest {
            return Err(Error::system(format!(
                "image config verification failed for digest {}",
                descriptor.digest
            )));
        }
        Ok(bytes)
    }
}

/// What a document is. One that can be read as two kinds has a digest that means two things (CVE-2021-41190): what it
/// says itself, what the registry says, and what is in it must agree.
fn media_type_of(bytes: &[u8], content_type: Option<&str>) -> Result<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Kind {
        #[serde(default)]
        media_type: Option<String>,
        #[serde(default)]
        schema_version: u64,
        #[serde(default)]
        manifests: Option<serde::de::IgnoredAny>,
        #[serde(default)]
        layers: Option<serde::de::IgnoredAny>,
        #[serde(default)]
        config: Option<serde::de::IgnoredAny>,
    }
    let kind: Kind = serde_json::from_slice(bytes).map_err(|e| Error::system(format!("manifest: {e}")))?;
    if kind.schema_version == 1 {
        return Err(Error::new(
            crate::error::Kind::Unsupported,
            "Docker Image Format v1 and Docker Image manifest version 2, schema 1 are not supported",
        )
        .remedy("push the image anew with a Docker of this decade"));
    }
    let said = content_type.map(|text| text.split(';').next().unwrap_or_default().trim());
    let said = said
        .filter(|said| !matches!(*said, "" | "application/json" | "text/plain" | "application/octet-stream"));
    let media_type = match (kind.media_type.as_deref(), said) {
        (Some(own), Some(said)) if own != said => {
            return Err(Error::system(format!(
                "manifest says it is {}, and the registry {}",
                plain(own),
                plain(said)
            )));
        }
        (Some(own), _) => own,
        (None, Some(said)) => said,
        (None, None) if kind.manifests.is_some() => media_type::INDEX,
        (None, None) => media_type::MANIFEST,
    };
    let index = is_index(media_type);
    let is_neither = !index && !matches!(media_type, media_type::MANIFEST | media_type::DOCKER_MANIFEST);
    if is_neither {
        return Err(Error::new(
            crate::error::Kind::Unsupported,
            format!("unsupported manifest media type {}", plain(media_type)),
        ));
    }
    if (index && (kind.layers.is_some() || kind.config.is_some())) || (!index && kind.manifests.is_some()) {
        return Err(Error::system("manifest has both layers and manifests"));
    }
    Ok(media_type.to_owned())
}

pub(super) fn is_index(media_type: &str) -> bool {
    matches!(media_type, media_type::INDEX | media_type::DOCKER_LIST)
}

/// Why there is no manifest.
pub(super) enum Refused {
    /// The registry says so.
    Answer(Refusal),
    /// It did not come to an answer.
    Failure(Error),
}

impl From<Error> for Refused {
    fn from(e: Error) -> Self {
        Self::Failure(e)
    }
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Answer(refusal) => refusal.error(),
            Refused::Failure(e) => e,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_that_can_be_read_as_two_kinds_is_refused() {
        let of =
            |text: &str, said: Option<&str>| media_type_of(text.as_bytes(), said).map_err(|e| e.to_string());
        let index = format!(r#"{{"mediaType": "{}", "manifests": []}}"#, media_type::INDEX);
        assert_eq!(of(&index, Some(media_type::INDEX)).expect("an index"), media_type::INDEX);
        assert_eq!(of(&index, Some("application/json; charset=utf-8")).expect("an index"), media_type::INDEX);
        assert_eq!(of(r#"{"manifests": []}"#, None).expect("an index"), media_type::INDEX);
        assert_eq!(of(r#"{"layers": []}"#, None).expect("a manifest"), media_type::MANIFEST);
        assert!(of(&index, Some(media_type::DOCKER_MANIFEST)).expect_err("differ").contains("the registry"));
        assert!(of(r#"{"manifests": [], "layers": []}"#, Some(media_type::INDEX)).is_err());
        assert!(of(r#"{"manifests": [], "config": {}}"#, Some(media_type::MANIFEST)).is_err());
        assert!(of(r#"{"schemaVersion": 1}"#, None).expect_err("old").contains("schema 1"));
        assert!(of("{}", Some("application/vnd.x")).expect_err("unknown").contains("unsupported"));
        assert!(of("[", None).is_err());
    }
}
