//! What a registry is shown of who asks: nothing, a password, or a token from the service that it names
//! (distribution's token authentication specification; RFC 7235).

#![forbid(unsafe_code)]

use super::credentials::Auth;
use super::http::{Payload, Request, Session, encode, lock, shown};
use super::refusal::Refusal;
use crate::error::{Context as _, Error, Kind, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};
use ureq::http::header::{ACCEPT, CONTENT_TYPE, WWW_AUTHENTICATE};
use ureq::http::{HeaderMap, Method, Uri};

/// The longest answer of a token service: tokens of tens of kilobytes exist.
const LIMIT: u64 = 1 << 20;
/// A token that says nothing, or less, is good for so long (the specification's minimum, in seconds).
const MINIMUM: u64 = 60;
const CLIENT_ID: &str = "rrunctl";

/// What one registry wants, and what it is given.
pub(super) struct Authority {
    credentials: Auth,
    /// Locked while a token is fetched, so that others wait for it instead of fetching theirs.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    challenge: Option<Challenge>,
    tokens: HashMap<Vec<String>, Token>,
    /// What the service gave to be kept instead of the password.
    refresh: Option<String>,
}

struct Token {
    text: String,
    until: Instant,
}

#[derive(Deserialize)]
struct Granted {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
    #[serde(default)]
    refresh_token: Option<String>,
    #[serde(default)]
    expires_in: Option<u64>,
}

impl Authority {
    pub(super) fn new(credentials: Auth) -> Self {
        Self { credentials, state: Mutex::default() }
    }

    /// The header for a request that needs `scopes`, as far as is known what is wanted.
    ///
    /// # Errors
    /// A password is wanted and there is none; the token service refuses or does not answer.
    pub(super) fn header(&self, session: &Session<'_>, scopes: &[String]) -> Result<Option<String>> {
        if let Auth::Token(token) = &self.credentials {
            return Ok(Some(format!("Bearer {token}")));
        }
        let mut state = lock(&self.state);
        let Some(challenge) = state.challenge.clone() else { return Ok(None) };
        if challenge.scheme == "basic" {
            return match &self.credentials {
                Auth::Password { .. } => Ok(self.credentials.basic()),
                _ => Err(Error::new(Kind::Unauthorized, "no basic auth credentials")),
            };
        }
        let scopes = challenge.scopes(scopes);
        if let Some(token) = state.tokens.get(&scopes).filter(|token| token.until > Instant::now()) {
            return Ok(Some(format!("Bearer {}", token.text)));
        }
        let granted = self.fetch(session, &challenge, &scopes, false)?;
        let (text, refresh) = (granted.text()?, granted.refresh_token.clone());
        let header = format!("Bearer {text}");
        let lasts = Duration::from_secs(granted.expires_in.unwrap_or_default().clamp(MINIMUM, 86_400) - 5);
        state.tokens.insert(scopes, Token { text, until: Instant::now() + lasts });
        if refresh.is_some() {
            state.refresh = refresh;
        }
        Ok(Some(header))
    }

    /// Learns from a 401 what is wanted; `used` is the header that was not enough. Returns whether another try is of
    /// use.
    pub(super) fn challenged(&self, headers: &HeaderMap, scopes: &[String], used: Option<&str>) -> bool {
        let mut state = lock(&self.state);
        let all = Challenge::all(headers);
        let wanted = all
            .iter()
            .find(|challenge| challenge.scheme == "bearer" && challenge.get("realm").is_some())
            .or_else(|| all.iter().find(|challenge| challenge.scheme == "basic"));
        let Some(wanted) = wanted.cloned() else { return false };
        // A password that was wrong once is wrong again; a token may have run out.
        if wanted.scheme == "basic" && used.is_some_and(|used| used.starts_with("Basic ")) {
            return false;
        }
        let scopes = wanted.scopes(scopes);
        let is_used =
            |token: &&Token| used.and_then(|used| used.strip_prefix("Bearer ")) == Some(&token.text);
        if state.tokens.get(&scopes).filter(is_used).is_some() {
            // The service has given all that it gives.
            if wanted.error() == Some("insufficient_scope") {
                return false;
            }
            state.tokens.remove(&scopes);
        }
        state.challenge = Some(wanted);
        !matches!(self.credentials, Auth::Token(_))
    }

    /// What the token service gave to be kept instead of the password, asked for it: for a login.
    ///
    /// # Errors
    /// As [`Authority::header`].
    pub(super) fn lasting(&self, session: &Session<'_>) -> Result<Option<String>> {
        let challenge = lock(&self.state).challenge.clone();
        match challenge {
            Some(challenge) if challenge.scheme == "bearer" => {
                let granted = self.fetch(session, &challenge, &challenge.scopes(&[]), true)?;
                granted.text()?;
                Ok(granted.refresh_token)
            }
            _ => Ok(None),
        }
    }

    fn fetch(
        &self,
        session: &Session<'_>,
        challenge: &Challenge,
        scopes: &[String],
        lasting: bool,
    ) -> Result<Granted> {
        let realm = challenge.get("realm").unwrap_or_default();
        let uri: Uri = realm
            .parse()
            .ok()
            .filter(|uri: &Uri| {
                matches!(uri.scheme_str(), Some("http" | "https"))
                    && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'))
            })
            .ok_or_else(|| Error::system(format!("invalid token auth challenge realm: {realm:?}")))?;
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        if uri.scheme_str() == Some("http") && !session.client.settings.is_insecure(authority) {
            return Err(Error::system(format!("token service {} is not encrypted", shown(&uri)))
                .remedy(format!("add {authority:?} to insecure-registries if that is meant")));
        }
        let mut query: Vec<(&str, &str)> = Vec::new();
        if let Some(service) = challenge.get("service") {
            query.push(("service", service));
        }
        query.extend(scopes.iter().map(|scope| ("scope", scope.as_str())));
        let form = |pairs: &[(&str, &str)]| {
            let pairs: Vec<String> =
                pairs.iter().map(|(name, value)| format!("{name}={}", encode(value))).collect();
            pairs.join("&")
        };
        let body;
        let mut request = Request {
            method: Method::GET,
            uri: uri.clone(),
            headers: vec![(ACCEPT, "application/json".to_owned())],
            body: Payload::None,
            authorization: None,
        };
        if let Auth::IdentityToken(token) = &self.credentials {
            // OAuth 2 knows one parameter with words where the older way has several.
            let joined = scopes.join(" ");
            query.retain(|(name, _)| *name != "scope");
            query.extend([
                ("scope", joined.as_str()),
                ("grant_type", "refresh_token"),
                ("client_id", CLIENT_ID),
                ("refresh_token", token),
            ]);
            body = form(&query);
            request.method = Method::POST;
            request.headers.push((CONTENT_TYPE, "application/x-www-form-urlencoded".to_owned()));
            request.body = Payload::Bytes(body.as_bytes());
        } else {
            if let Auth::Password { username, .. } = &self.credentials {
                query.push(("account", username));
            }
            if lasting {
                query.extend([("offline_token", "true"), ("client_id", CLIENT_ID)]);
            }
            let mark = if uri.query().is_some() { '&' } else { '?' };
            let whole = format!("{}{mark}{}", realm.split('#').next().unwrap_or_default(), form(&query));
            request.uri = whole.parse().map_err(|_| Error::system(format!("invalid realm: {realm:?}")))?;
            request.authorization = self.credentials.basic();
        }
        let mut reply = session.send_patiently(&request)?;
        if !(200..300).contains(&reply.status) {
            return Err(Refusal::read(reply).error().context(format!("Get {:?}", shown(&uri))));
        }
        let answer = reply.read(LIMIT)?;
        serde_json::from_slice(&answer)
            .map_err(|e| Error::system(e.to_string()))
            .context(|| format!("{}: unable to decode token response", shown(&uri)))
    }
}

impl Granted {
    fn text(&self) -> Result<String> {
        let token = self.token.as_deref().filter(|token| !token.is_empty()).or(self.access_token.as_deref());
        match token {
            // It becomes a part of a header.
            Some(token) if !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()) => {
                Ok(token.to_owned())
            }
            _ => Err(Error::system("authorization server did not include a token in the response")),
        }
    }
}

impl Auth {
    /// As a header; `None` where there is no password.
    fn basic(&self) -> Option<String> {
        let Self::Password { username, password } = self else { return None };
        Some(format!("Basic {}", STANDARD.encode(format!("{username}:{password}"))))
    }
}

/// One way to authenticate that a `WWW-Authenticate` offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Challenge {
    /// In lower case.
    scheme: String,
    /// Names in lower case.
    parameters: Vec<(String, String)>,
}

impl Challenge {
    /// All that an answer offers.
    pub(super) fn all(headers: &HeaderMap) -> Vec<Self> {
        headers
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(Self::parse)
            .collect()
    }

    /// The value of `error`: `insufficient_scope`, `invalid_token`.
    pub(super) fn error(&self) -> Option<&str> {
        self.get("error").filter(|_| self.scheme == "bearer")
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// What is needed, and what the registry asks for beside it: behind a proxy a repository may have another name.
    fn scopes(&self, needed: &[String]) -> Vec<String> {
        let mut scopes = needed.to_vec();
        for scope in self.get("scope").unwrap_or_default().split_ascii_whitespace() {
            if !scopes.iter().any(|has| covers(has, scope)) {
                scopes.push(scope.to_owned());
            }
        }
        scopes
    }

    /// `Bearer realm="…",service="…", Basic realm="…"`: a word without `=` begins the next.
    fn parse(text: &str) -> Vec<Self> {
        let (mut all, mut rest) = (Vec::<Self>::new(), text);
        loop {
            rest = rest.trim_start_matches([' ', '\t', ',']);
            let end = rest.find([' ', '\t', ',', '=', '"']).unwrap_or(rest.len());
            let (word, behind) = rest.split_at(end);
            if word.is_empty() {
                return all;
            }
            match behind.trim_start().strip_prefix('=') {
                Some(value) => {
                    let (value, behind) = value_of(value.trim_start());
                    let Some(challenge) = all.last_mut() else { return all };
                    challenge.parameters.push((word.to_ascii_lowercase(), value));
                    rest = behind;
                }
                None => {
                    all.push(Self { scheme: word.to_ascii_lowercase(), parameters: Vec::new() });
                    rest = behind;
                }
            }
        }
    }
}

/// A token or a quoted string at the beginning, and what is behind it.
fn value_of(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([' ', '\t', ',']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let (mut value, mut letters) = (String::new(), quoted.char_indices());
    while let Some((at, c)) = letters.next() {
        match c {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(letters.next().map(|(_, c)| c)),
            _ => value.push(c),
        }
    }
    (value, "")
}

/// Whether `repository:x:pull,push` is enough for `repository:x:pull`.
fn covers(has: &str, needed: &str) -> bool {
    let (Some((what, actions)), Some((wanted, needs))) = (has.rsplit_once(':'), needed.rsplit_once(':'))
    else {
        return has == needed;
    };
    what == wanted && needs.split(',').all(|need| actions.split(',').any(|action| action == need))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_told_apart() {
        let all = Challenge::parse(
            r#"Bearer realm="https://a.test/t?x=1,2",service="r \"q\"" , scope="repository:x:pull,push",error=invalid_token, BASIC realm=x"#,
        );
        assert_eq!(all.len(), 2, "{all:?}");
        assert_eq!((all[0].scheme.as_str(), all[1].scheme.as_str()), ("bearer", "basic"));
        assert_eq!(all[0].get("realm"), Some("https://a.test/t?x=1,2"));
        assert_eq!(all[0].get("service"), Some("r \"q\""));
        assert_eq!(all[0].get("scope"), Some("repository:x:pull,push"));
        assert_eq!(all[0].error(), Some("invalid_token"));
        assert_eq!(all[1].get("realm"), Some("x"));
    }

    #[test]
    fn broken_challenges_end() {
        for text in [
            "",
            "=",
            "\"",
            "Bearer",
            "Bearer realm",
            "Bearer realm=",
            "Bearer realm=\"",
            "a=b",
            "Bearer \"x\"",
            ",,,",
        ] {
            let _ = Challenge::parse(text);
        }
        assert_eq!(Challenge::parse("Bearer realm=\"abc")[0].get("realm"), Some("abc"));
    }

    #[test]
    fn a_scope_that_is_covered_is_not_asked_for_again() {
        let challenge =
            &Challenge::parse(r#"Bearer realm="x",scope="repository:a:pull repository:b/c:pull""#)[0];
        let needed = ["repository:a:pull,push".to_owned()];
        assert_eq!(challenge.scopes(&needed), ["repository:a:pull,push", "repository:b/c:pull"]);
        assert!(!covers("repository:a:pull", "repository:a:push"));
    }
}
