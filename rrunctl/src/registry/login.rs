//! `docker login` and `docker logout`.

#![forbid(unsafe_code)]

use super::credentials::{self, Auth, Kept};
use super::http::{Payload, Request, Session};
use super::repository::Registry;
use super::{Client, refusal};
use crate::error::{Error, Kind, Result};
use ureq::http::{Method, StatusCode};

/// A login that succeeded.
#[derive(Debug, Clone)]
pub struct LoggedIn {
    /// Where it was kept: `WARNING! Your password will be stored unencrypted in …` where it is a file.
    pub kept: Kept,
}

impl Client {
    /// Asks a registry (`HOST[:PORT]`, or `docker.io`) whether it knows somebody. Returns what is to be kept: a token
    /// where the registry gave one for that, otherwise the password. Keeps nothing.
    ///
    /// # Errors
    /// [`Kind::Unauthorized`], or there is no answer.
    pub fn authenticate(&self, server: &str, username: &str, password: &str) -> Result<Auth> {
        let auth = Auth::Password { username: username.to_owned(), password: password.to_owned() };
        let session = Session::new(self);
        let registry = Registry::open(&session, &self.bases(&name(server)), &auth)?;
        if let Some(token) = registry.authority.lasting(&session)? {
            return Ok(Auth::IdentityToken(token));
        }
        let uri = registry.uri("")?;
        let request = Request {
            method: Method::GET,
            uri: uri.clone(),
            headers: Vec::new(),
            body: Payload::None,
            authorization: None,
        };
        let reply = registry.send(&[], request, true)?;
        if reply.status != 200 {
            let kind = if reply.status == 401 { Kind::Unauthorized } else { Kind::System };
            let status = StatusCode::from_u16(reply.status)
                .map_or_else(|_| reply.status.to_string(), |s| s.to_string());
            return Err(Error::new(
                kind,
                format!("login attempt to {uri} failed with status: {}", refusal::plain(&status)),
            ));
        }
        Ok(auth)
    }

    /// Asks the registry, and keeps the answer in the user's configuration.
    ///
    /// # Errors
    /// Those of [`Client::authenticate`]; the configuration is broken or cannot be written.
    pub fn login(&self, server: &str, username: &str, password: &str) -> Result<LoggedIn> {
        let auth = self.authenticate(server, username, password)?;
        Ok(LoggedIn { kept: self.credentials.keep(server, username, &auth)? })
    }

    /// Forgets what a login kept. Returns the line to print: `Removing login credentials for HOST`.
    ///
    /// # Errors
    /// The configuration is broken or cannot be written.
    pub fn logout(&self, server: &str) -> Result<String> {
        let key = credentials::key(server);
        Ok(match self.credentials.forget(server)? {
            true => format!("Removing login credentials for {key}"),
            false => format!("Not logged in to {key}"),
        })
    }
}

/// `https://host/v1/` is `host`, and the old address of Docker Hub `docker.io`.
fn name(server: &str) -> String {
    match credentials::key(server) {
        hub if hub.contains('/') => "docker.io".to_owned(),
        host => host,
    }
}
