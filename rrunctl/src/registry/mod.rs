//! The client of the distribution-spec: pull and push, login and logout.
//!
//! | file | what |
//! |---|---|
//! | `http` | requests, redirects, retries, and how all of them end at once |
//! | `auth` | passwords and tokens |
//! | `credentials` | `~/.docker/config.json` |
//! | `tls`, `proxy` | certs.d and the system's roots; the environment's proxies |
//! | `repository` | manifests and blobs of a repository, and the errors that a registry answers with |
//! | `blob` | a blob as it arrives, resumed where the connection is cut |
//! | `pull`, `push`, `login` | what people ask for |
//!
//! A registry is trusted with nothing: content counts by its digest, answers are bounded in length and in time, and
//! text from it is printed without control characters. Credentials go to the host that they are for, never to where it
//! redirects to, and Docker Hub's never to a mirror.

#![forbid(unsafe_code)]

mod auth;
mod blob;
mod credentials;
mod http;
mod login;
mod proxy;
mod pull;
mod push;
mod refusal;
mod repository;
mod tls;

pub use credentials::{Auth, Credentials, Kept};
pub use http::Timeouts;
pub use login::LoggedIn;
pub use pull::PullOptions;

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::image::Image;
use crate::progress::Sink;
use crate::reference::Reference;
use crate::settings::Settings;
use crate::store::Store;
use std::fmt;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Brings an image here, with the user's credentials; see [`Client::pull`].
///
/// # Errors
/// Those of [`Client::pull`].
pub fn pull(
    store: &Store,
    settings: &Settings,
    reference: &Reference,
    options: &PullOptions,
    sink: Sink<'_>,
) -> Result<Image> {
    Client::new(settings, Credentials::of_user()).pull(store, reference, options, sink)
}

/// Brings an image from here to its registry, with the user's credentials; see [`Client::push`].
///
/// # Errors
/// Those of [`Client::push`].
pub fn push(store: &Store, settings: &Settings, reference: &Reference, sink: Sink<'_>) -> Result<Digest> {
    Client::new(settings, Credentials::of_user()).push(store, reference, sink)
}

/// Who talks to registries, and how.
#[derive(Clone)]
pub struct Client {
    /// Mirrors, and which registries are insecure.
    pub settings: Settings,
    /// Who asks.
    pub credentials: Credentials,
    /// How long is waited, and how often something is tried.
    pub timeouts: Timeouts,
    /// Has a directory `HOST[:PORT]` for each registry with certificates of its own.
    pub certs: PathBuf,
    /// The registry of `docker.io`: an URL with a slash at its end.
    pub hub: String,
    proxies: proxy::Proxies,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("hub", &self.hub)
            .field("timeouts", &self.timeouts)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// With the usual timeouts, `/etc/docker/certs.d`, and the proxies of the environment.
    pub fn new(settings: &Settings, credentials: Credentials) -> Self {
        Self {
            settings: settings.clone(),
            credentials,
            timeouts: Timeouts::default(),
            certs: PathBuf::from("/etc/docker/certs.d"),
            hub: "https://registry-1.docker.io/".to_owned(),
            proxies: proxy::Proxies::of_environment(),
        }
    }

    /// The URLs of a registry, in the order in which they are tried: HTTP only where the settings allow it.
    fn bases(&self, registry: &str) -> Vec<String> {
        if registry == "docker.io" {
            return vec![self.hub.clone()];
        }
        let mut bases = vec![format!("https://{registry}/")];
        if self.settings.is_insecure(registry) {
            bases.push(format!("http://{registry}/"));
        }
        bases
    }
}

/// Does `work` to all of `items`, `most` at a time. The first failure ends the others by way of `session`.
fn in_parallel<T: Sync>(
    session: &http::Session<'_>,
    most: usize,
    items: &[T],
    work: impl Fn(&T) -> Result<()> + Sync,
) -> Result<()> {
    let next = AtomicUsize::new(0);
    let failed: Mutex<Option<Error>> = Mutex::new(None);
    let worker = || {
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            if session.is_stopped() {
                return;
            }
            if let Err(e) = work(item) {
                // The others fail because of this one: theirs is no news.
                let mut failed = http::lock(&failed);
                if failed.as_ref().is_none_or(http::is_stop) {
                    *failed = Some(e);
                }
                session.stop();
            }
        }
    };
    thread::scope(|scope| {
        for _ in 1..most.min(items.len()) {
            // Where no thread is to be had this one does the work.
            if thread::Builder::new().spawn_scoped(scope, worker).is_err() {
                break;
            }
        }
        worker();
    });
    match failed.into_inner() {
        Ok(None) => Ok(()),
        Ok(Some(e)) => Err(e),
        Err(_) => Err(Error::system("a worker panicked")),
    }
}
