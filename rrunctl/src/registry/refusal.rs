//! What a registry says when it refuses, in Docker's words (distribution-spec, Error Codes).

#![forbid(unsafe_code)]

use super::auth::Challenge;
use super::http::Reply;
use crate::error::{Error, Kind};
use serde::Deserialize;

/// How much of an answer that is none is read.
const LIMIT: u64 = 64 << 10;

/// The first error of an answer.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    /// `MANIFEST_UNKNOWN`, or what the status stands for.
    pub(super) code: String,
    /// `manifest unknown: manifest unknown`.
    pub(super) text: String,
}

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    errors: Vec<Item>,
    /// What token services and old registries say instead.
    #[serde(default)]
    details: Option<String>,
}

#[derive(Deserialize)]
struct Item {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: Option<String>,
}

impl Refusal {
    /// Of an answer that is no success.
    pub(super) fn read(mut reply: Reply) -> Self {
        // Registries that hide what one may not see say so only here.
        if reply.status == 401 {
            for challenge in Challenge::all(&reply.headers) {
                match challenge.error() {
                    Some("insufficient_scope") => return Self::new("DENIED", None),
                    Some("invalid_token") => return Self::new("UNAUTHORIZED", None),
                    _ => {}
                }
            }
        }
        let body = reply.read(LIMIT).unwrap_or_default();
        let document: Option<Document> = serde_json::from_slice(&body).ok();
        let code = match reply.status {
            401 => "UNAUTHORIZED",
            403 => "DENIED",
            429 => "TOOMANYREQUESTS",
            _ => "",
        };
        match document {
            Some(Document { errors, .. }) if !errors.is_empty() => {
                let first = &errors[0];
                Self::new(&first.code, first.message.as_deref())
            }
            Some(Document { details: Some(details), .. }) if !code.is_empty() => {
                Self::new(code, Some(&details))
            }
            _ if !code.is_empty() => Self::new(code, None),
            _ => {
                let status = ureq::http::StatusCode::from_u16(reply.status).ok();
                let reason = status.and_then(|status| status.canonical_reason()).unwrap_or_default();
                let text =
                    format!("{}: received unexpected HTTP status: {} {reason}", reply.what, reply.status);
                Self { code: String::new(), text: text.trim_end().to_owned() }
            }
        }
    }

    fn new(code: &str, message: Option<&str>) -> Self {
        let code = plain(code);
        let usual = match code.as_str() {
            "UNAUTHORIZED" => "authentication required",
            "DENIED" => "requested access to the resource is denied",
            "TOOMANYREQUESTS" => "too many requests",
            "MANIFEST_UNKNOWN" => "manifest unknown",
            "NAME_UNKNOWN" => "repository name not known to registry",
            _ => "unknown error",
        };
        let message = message.map(plain).filter(|message| !message.is_empty());
        let text = format!(
            "{}: {}",
            code.to_ascii_lowercase().replace('_', " "),
            message.unwrap_or_else(|| usual.to_owned())
        );
        Self { code, text }
    }

    /// As the failure of a request.
    pub(super) fn error(self) -> Error {
        let kind = match self.code.as_str() {
            "UNAUTHORIZED" | "DENIED" => Kind::Unauthorized,
            "MANIFEST_UNKNOWN" | "NAME_UNKNOWN" | "BLOB_UNKNOWN" | "MANIFEST_BLOB_UNKNOWN" => Kind::NotFound,
            _ => Kind::System,
        };
        Error::new(kind, self.text)
    }
}

/// A registry's words without what would steer a terminal, and not without end.
pub(super) fn plain(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(1000)
        .collect::<String>()
        .trim()
        .to_owned()
}
