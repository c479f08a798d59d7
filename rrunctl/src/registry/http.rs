//! Requests of one pull or push: connections that are shared, redirects, retries, and an end to all of them at once.
//!
//! Redirects are followed here and not by ureq, because another host has other certificates and gets no credentials.

#![forbid(unsafe_code)]

use super::refusal::plain;
use super::{Client, tls};
use crate::error::{Error, Result};
use std::collections::HashMap;
use std::io::{self, Read};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use time::OffsetDateTime;
use ureq::http::header::{AUTHORIZATION, CONTENT_LENGTH, LOCATION, RETRY_AFTER};
use ureq::http::{self, HeaderMap, HeaderName, Method, Uri};
use ureq::tls::Certificate;
use ureq::{Agent, SendBody, config::AutoHeaderValue};

const REDIRECTS: usize = 10;

/// How long is waited for what, and how often something is tried.
#[derive(Debug, Clone)]
pub struct Timeouts {
    /// For a connection, with its TLS.
    pub connect: Duration,
    /// For the head of an answer, and for each next byte; documents must be whole within twice as long, and of a blob
    /// some 100 bytes a second have to come in it.
    pub idle: Duration,
    /// For the answer to an upload: a registry may have to copy it first.
    pub commit: Duration,
    /// Before the second try; it doubles with each.
    pub backoff: Duration,
    /// The longest wait that a registry may ask for by `Retry-After`.
    pub patience: Duration,
    /// How often something is tried in all.
    pub tries: u32,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(30),
            idle: Duration::from_secs(60),
            commit: Duration::from_secs(300),
            backoff: Duration::from_millis(500),
            patience: Duration::from_secs(60),
            tries: 5,
        }
    }
}

/// The connections of one pull or push to one registry.
pub(super) struct Session<'a> {
    pub(super) client: &'a Client,
    agents: Mutex<HashMap<(String, String, bool), Agent>>,
    roots: OnceLock<Vec<Certificate<'static>>>,
    stopped: Mutex<bool>,
    wake: Condvar,
}

/// What is asked.
pub(super) struct Request<'a> {
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) headers: Vec<(HeaderName, String)>,
    pub(super) body: Payload<'a>,
    /// For the host of `uri` and no other.
    pub(super) authorization: Option<String>,
}

/// What is sent with it.
pub(super) enum Payload<'a> {
    /// A GET, a HEAD.
    None,
    /// A document, or nothing.
    Bytes(&'a [u8]),
    /// A blob or a part of one.
    Stream {
        /// How many bytes `open` gives.
        length: u64,
        /// Begins anew.
        open: &'a (dyn Fn() -> Result<Box<dyn Read + 'a>> + Sync),
    },
}

/// An answer, whatever its status.
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    /// Who answered in the end.
    pub(super) uri: Uri,
    /// `GET https://…`, for errors.
    pub(super) what: String,
    body: ureq::Body,
    deadline: Duration,
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// The connection ended.
    Cut,
    /// Nothing came.
    TimedOut,
    /// There is no connection.
    Unreachable,
    /// [`Session::stop`].
    Stopped,
    /// What came is no HTTP, or is not followed.
    Other,
}

/// That there is no answer.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) cause: Cause,
    pub(super) error: Error,
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        failure.error
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { cause: Cause::Other, error }
    }
}

/// A lock whose holder panicked still guards a map that is whole.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'a> Session<'a> {
    pub(super) fn new(client: &'a Client) -> Self {
        Self {
            client,
            agents: Mutex::default(),
            roots: OnceLock::new(),
            stopped: Mutex::new(false),
            wake: Condvar::new(),
        }
    }

    /// Ends every request that is under way, and every later one.
    pub(super) fn stop(&self) {
        *lock(&self.stopped) = true;
        self.wake.notify_all();
        for (_, agent) in lock(&self.agents).drain() {
            agent.shutdown();
        }
    }

    pub(super) fn is_stopped(&self) -> bool {
        *lock(&self.stopped)
    }

    /// Waits after try number `tries`; returns whether to try again.
    pub(super) fn back_off(&self, tries: u32) -> bool {
        tries < self.client.timeouts.tries && self.sleep(self.backoff(tries))
    }

    fn backoff(&self, tries: u32) -> Duration {
        let doubled = self.client.timeouts.backoff.saturating_mul(1 << (tries - 1).min(16));
        doubled.min(self.client.timeouts.patience)
    }

    fn sleep(&self, how_long: Duration) -> bool {
        let stopped = lock(&self.stopped);
        let slept = self.wake.wait_timeout_while(stopped, how_long, |stopped| !*stopped);
        !*slept.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Sends, and again where the answer is that the registry has too much to do, or where there is none because the
    /// connection was cut.
    pub(super) fn send_patiently(&self, request: &Request<'_>) -> Result<Reply, Failure> {
        let mut tries = 0;
        loop {
            tries += 1;
            let answer = self.send(request);
            let wait = match &answer {
                Ok(reply) if matches!(reply.status, 429 | 500 | 502 | 503 | 504) => {
                    retry_after(&reply.headers).unwrap_or_else(|| self.backoff(tries))
                }
                Err(failure) if failure.cause == Cause::Cut => self.backoff(tries),
                _ => return answer,
            };
            if wait > self.client.timeouts.patience
                || tries >= self.client.timeouts.tries
                || !self.sleep(wait)
            {
                return answer;
            }
        }
    }

    /// Sends once, and follows where the answer leads.
    pub(super) fn send(&self, request: &Request<'_>) -> Result<Reply, Failure> {
        let mut uri = request.uri.clone();
        for _ in 0..=REDIRECTS {
            let reply = self.exchange(request, &uri)?;
            let follows = matches!(request.method, Method::GET | Method::HEAD)
                && matches!(reply.status, 301 | 302 | 303 | 307 | 308);
            let Some(location) = reply.headers.get(LOCATION).filter(|_| follows) else { return Ok(reply) };
            let location = location.to_str().unwrap_or_default();
            let next = join(&uri, location).map_err(|e| e.context(&reply.what))?;
            self.refuse_downgrade(&uri, &next)?;
            uri = next;
        }
        Err(Error::system(format!(
            "{}: more than {REDIRECTS} redirects",
            told(&request.method, &request.uri)
        ))
        .into())
    }

    /// # Errors
    /// `from` is encrypted and `to` is not, and need be.
    pub(super) fn refuse_downgrade(&self, from: &Uri, to: &Uri) -> Result<()> {
        let authority = to.authority().map_or("", |authority| authority.as_str());
        if from.scheme_str() == Some("https")
            && to.scheme_str() == Some("http")
            && !self.client.settings.is_insecure(authority)
        {
            return Err(Error::system(format!(
                "{} leads to {}, which is not encrypted",
                shown(from),
                shown(to)
            ))
            .remedy(format!("add {authority:?} to insecure-registries if that is meant")));
        }
        Ok(())
    }

    fn exchange(&self, request: &Request<'_>, uri: &Uri) -> Result<Reply, Failure> {
        let what = told(&request.method, uri);
        let upload = matches!(request.body, Payload::Stream { .. });
        let agent = self.agent(uri, &request.uri, upload)?;
        let mut head = http::Request::builder().method(request.method.clone()).uri(uri.clone());
        for (name, value) in &request.headers {
            head = head.header(name, value);
        }
        if let Some(authorization) =
            request.authorization.as_ref().filter(|_| origin(uri) == origin(&request.uri))
        {
            head = head.header(AUTHORIZATION, authorization);
        }
        let stream: Option<(u64, Box<dyn Read + '_>)> = match request.body {
            Payload::None => None,
            Payload::Bytes(bytes) => Some((bytes.len() as u64, Box::new(bytes))),
            Payload::Stream { length, open } => Some((length, open()?)),
        };
        let wrong = |e| Error::system(format!("{what}: {e}"));
        let answer = match stream {
            None => agent.run(head.body(()).map_err(wrong)?),
            Some((length, mut stream)) => {
                let body = SendBody::from_reader(&mut stream);
                agent.run(head.header(CONTENT_LENGTH, length).body(body).map_err(wrong)?)
            }
        };
        match answer {
            Ok(response) => {
                let (head, body) = response.into_parts();
                let deadline = self.client.timeouts.idle * 2;
                Ok(Reply {
                    status: head.status.as_u16(),
                    headers: head.headers,
                    uri: uri.clone(),
                    what,
                    body,
                    deadline,
                })
            }
            Err(e) => Err(self.failure(&e, &what, uri)),
        }
    }

    /// The connections to the host of `uri`, which a request to `by` leads to.
    fn agent(&self, uri: &Uri, by: &Uri, upload: bool) -> Result<Agent, Failure> {
        let host = uri.authority().map_or_else(String::new, ToString::to_string);
        let by = by.authority().map_or_else(String::new, ToString::to_string);
        let key = (format!("{}://{host}", uri.scheme_str().unwrap_or_default()), by.clone(), upload);
        let mut agents = lock(&self.agents);
        // Under the lock of `agents`, so that `stop` finds every agent that is ever used.
        if self.is_stopped() {
            return Err(stopped());
        }
        if let Some(agent) = agents.get(&key) {
            return Ok(agent.clone());
        }
        let timeouts = &self.client.timeouts;
        let answer = if upload { timeouts.commit } else { timeouts.idle };
        let workers =
            self.client.settings.max_concurrent_downloads.max(self.client.settings.max_concurrent_uploads);
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(self.client.proxies.to(uri)?)
            .user_agent(concat!("rrunctl/", env!("CARGO_PKG_VERSION")))
            // A blob is wanted as it is stored.
            .accept_encoding(AutoHeaderValue::None)
            .max_idle_connections(2 * workers)
            .max_idle_connections_per_host(workers)
            .timeout_resolve(Some(timeouts.connect))
            .timeout_connect(Some(timeouts.connect))
            .timeout_per_read(Some(answer))
            .timeout_per_write(Some(timeouts.idle))
            .timeout_recv_response(Some(answer));
        if uri.scheme_str() == Some("https") {
            let roots = match self.roots.get() {
                Some(roots) => roots,
                None => {
                    let roots = tls::system_roots()?;
                    self.roots.get_or_init(|| roots)
                }
            };
            let verify = !self.client.settings.is_insecure(&host);
            config = config.tls_config(tls::config(&self.client.certs, roots, &host, &by, verify)?);
        }
        let agent = Agent::new_with_config(config.build());
        agents.insert(key, agent.clone());
        Ok(agent)
    }

    fn failure(&self, e: &ureq::Error, what: &str, uri: &Uri) -> Failure {
        if self.is_stopped() {
            return stopped();
        }
        let host = uri.authority().map_or("", |authority| authority.as_str());
        let (cause, text) = match e {
            ureq::Error::Timeout(kind) => (Cause::TimedOut, format!("timed out ({kind})")),
            ureq::Error::Io(e) => match tls_error(e) {
                Some(e) => (Cause::Unreachable, tls_text(e, host)),
                None => (cause_of(e), lookup(e, host).unwrap_or_else(|| words(e))),
            },
            ureq::Error::Rustls(e) => (Cause::Unreachable, tls_text(e, host)),
            ureq::Error::HostNotFound => (Cause::Unreachable, format!("lookup {host}: no such host")),
            ureq::Error::ConnectionFailed | ureq::Error::ConnectProxyFailed(_) | ureq::Error::Tls(_) => {
                (Cause::Unreachable, e.to_string())
            }
            _ => (Cause::Other, e.to_string()),
        };
        Failure { cause, error: Error::system(format!("{what}: {}", plain(&text))) }
    }
}

/// getaddrinfo(3)'s words do not say what was looked up, and differ with the C library.
fn lookup(e: &io::Error, host: &str) -> Option<String> {
    let text = e.to_string();
    let reason = text.strip_prefix("failed to lookup address information: ")?;
    let none = matches!(
        reason,
        "Name does not resolve" | "Name or service not known" | "Name has no usable address"
    );
    Some(format!("lookup {host}: {}", if none { "no such host" } else { reason }))
}

/// In the words of this crate; the standard library's error cannot be cloned.
fn words(e: &io::Error) -> String {
    Error::from(
        e.raw_os_error()
            .map_or_else(|| io::Error::new(e.kind(), e.to_string()), io::Error::from_raw_os_error),
    )
    .to_string()
}

/// What every request says after [`Session::stop`].
const STOPPED: &str = "stopped";

pub(super) fn stopped() -> Failure {
    Failure { cause: Cause::Stopped, error: Error::system(STOPPED) }
}

/// Whether an error is only that another came first.
pub(super) fn is_stop(e: &Error) -> bool {
    e.to_string() == STOPPED
}

fn cause_of(e: &io::Error) -> Cause {
    match e.kind() {
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::NotConnected => Cause::Cut,
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Cause::TimedOut,
        _ => Cause::Unreachable,
    }
}

fn tls_error(e: &io::Error) -> Option<&rustls::Error> {
    e.get_ref().and_then(|e| e.downcast_ref())
}

fn tls_text(e: &rustls::Error, host: &str) -> String {
    match e {
        rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer) => format!(
            "x509: certificate signed by unknown authority (put its certificate into /etc/docker/certs.d/{host}/ca.crt)"
        ),
        rustls::Error::InvalidMessage(_) => format!(
            "http: server gave HTTP response to HTTPS client (add {host:?} to insecure-registries if that is meant)"
        ),
        _ => format!("tls: {e}"),
    }
}

impl Reply {
    /// The whole body.
    ///
    /// # Errors
    /// It is longer than `limit` bytes, takes too long, or is cut.
    pub(super) fn read(&mut self, limit: u64) -> Result<Vec<u8>, Failure> {
        let too_long = || {
            Failure::from(Error::system(format!("{}: the answer is longer than {limit} bytes", self.what)))
        };
        if self.length().is_some_and(|length| length > limit) {
            return Err(too_long());
        }
        let begun = Instant::now();
        let mut reader = self.body.as_reader();
        let (mut body, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
        loop {
            let n = match reader.read(&mut buffer) {
                Ok(0) => return Ok(body),
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(body_failure(&e, &self.what)),
            };
            body.extend_from_slice(&buffer[..n]);
            if body.len() as u64 > limit {
                return Err(too_long());
            }
            if begun.elapsed() > self.deadline {
                let error = Error::system(format!("{}: timed out (receive body)", self.what));
                return Err(Failure { cause: Cause::TimedOut, error });
            }
        }
    }

    /// `Content-Length`.
    pub(super) fn length(&self) -> Option<u64> {
        self.header("content-length")?.parse().ok()
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub(super) fn into_reader(self) -> ureq::BodyReader<'static> {
        self.body.into_reader()
    }
}

/// What an error while a body is read is.
pub(super) fn body_failure(e: &io::Error, what: &str) -> Failure {
    let inner = e.get_ref().and_then(|e| e.downcast_ref::<ureq::Error>());
    let (cause, text) = match inner {
        Some(ureq::Error::Timeout(kind)) => (Cause::TimedOut, format!("timed out ({kind})")),
        Some(other) => (Cause::Cut, other.to_string()),
        None => (cause_of(e), words(e)),
    };
    Failure { cause, error: Error::system(format!("{what}: {}", plain(&text))) }
}

/// Where `location` leads from `base` (RFC 3986, section 5.2).
///
/// # Errors
/// It is no URL of HTTP, or has a password in it.
pub(super) fn join(base: &Uri, location: &str) -> Result<Uri> {
    let location = location.split('#').next().unwrap_or_default();
    let scheme = base.scheme_str().unwrap_or_default();
    let authority = base.authority().map_or("", |authority| authority.as_str());
    let path = base.path();
    let has_scheme =
        location.split_once("://").is_some_and(|(s, _)| s.chars().all(|c| c.is_ascii_alphanumeric()));
    let whole = if has_scheme {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else if location.starts_with('?') || location.is_empty() {
        format!("{scheme}://{authority}{path}{location}")
    } else {
        let dir = path.rsplit_once('/').map_or("", |(dir, _)| dir);
        format!("{scheme}://{authority}{dir}/{location}")
    };
    let wrong = || Error::system(format!("Location {:?} is no URL that can be followed", plain(location)));
    let uri: Uri = whole.parse().map_err(|_| wrong())?;
    let followed = matches!(uri.scheme_str(), Some("http" | "https"))
        && uri
            .authority()
            .is_some_and(|authority| !authority.as_str().contains('@') && !authority.host().is_empty());
    if followed { Ok(uri) } else { Err(wrong()) }
}

/// Scheme, host and port: who gets the same credentials.
pub(super) fn origin(uri: &Uri) -> (String, String, u16) {
    let https = uri.scheme_str() == Some("https");
    (
        uri.scheme_str().unwrap_or_default().to_owned(),
        uri.host().unwrap_or_default().to_ascii_lowercase(),
        uri.port_u16().unwrap_or(if https { 443 } else { 80 }),
    )
}

/// An URL without its query, which may be a signature that gives access.
pub(super) fn shown(uri: &Uri) -> String {
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    format!("{}://{authority}{}", uri.scheme_str().unwrap_or_default(), uri.path())
}

fn told(method: &Method, uri: &Uri) -> String {
    // As Go writes it: `Get "https://…"`.
    let name = method.as_str().to_ascii_lowercase();
    let (first, rest) = name.split_at(1);
    format!("{}{rest} \"{}\"", first.to_ascii_uppercase(), shown(uri))
}

/// `Retry-After`: seconds, or a date (RFC 9110, section 10.2.3).
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let format = time::macros::format_description!(
        "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
    );
    let at = time::PrimitiveDateTime::parse(text, format).ok()?.assume_utc();
    Some((at - OffsetDateTime::now_utc()).try_into().unwrap_or_default())
}

/// A value in a query (RFC 3986, section 2.3).
pub(super) fn encode(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_is_joined_to_where_it_was_found() {
        let base: Uri = "https://r.test:5000/v2/x/blobs/uploads/?a=b".parse().expect("an URI");
        for (location, whole) in [
            ("https://other.test/x?y=z#f", "https://other.test/x?y=z"),
            ("//cdn.test/x", "https://cdn.test/x"),
            ("/v2/y?state=1", "https://r.test:5000/v2/y?state=1"),
            ("uuid?state=https://a", "https://r.test:5000/v2/x/blobs/uploads/uuid?state=https://a"),
            ("?digest=1", "https://r.test:5000/v2/x/blobs/uploads/?digest=1"),
        ] {
            assert_eq!(join(&base, location).expect("valid").to_string(), whole);
        }
        for bad in ["ftp://x/", "file:///etc/passwd", "https://user:pw@x/", "https:///x", "/a b", "http://"] {
            assert!(join(&base, bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, text.parse().expect("a value"));
            retry_after(&headers)
        };
        assert_eq!(of("7"), Some(Duration::from_secs(7)));
        assert_eq!(of("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        assert!(of("Wed, 21 Oct 2099 07:28:00 GMT").expect("a date") > Duration::from_secs(1 << 20));
        assert_eq!(of("soon"), None);
    }

    #[test]
    fn what_is_encrypted_does_not_lead_to_what_is_not() {
        let client = Client::new(&crate::settings::Settings::default(), super::super::Credentials::default());
        let session = Session::new(&client);
        let leads = |from: &str, to: &str| {
            session.refuse_downgrade(&from.parse().expect("an URI"), &to.parse().expect("an URI"))
        };
        let e =
            leads("https://r.test/v2/", "http://s.test:80/x?secret").expect_err("a downgrade").to_string();
        assert!(e.contains("http://s.test:80/x, which is not encrypted") && !e.contains("secret"), "{e}");
        leads("https://r.test/", "https://s.test/").expect("encrypted");
        leads("http://r.test/", "http://s.test/").expect("not encrypted before");
        leads("https://r.test/", "http://127.0.0.1:5000/").expect("insecure by the settings");
    }

    #[test]
    fn a_query_is_never_shown() {
        let uri: Uri = "https://s3.test/blob?X-Amz-Signature=secret".parse().expect("an URI");
        assert_eq!(told(&Method::GET, &uri), "Get \"https://s3.test/blob\"");
    }
}
