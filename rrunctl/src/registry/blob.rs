//! A blob as it arrives.

#![forbid(unsafe_code)]

use super::http::{Cause, Failure, body_failure, stopped};
use super::refusal::Refusal;
use super::repository::Repository;
use crate::digest::Digest;
use crate::error::{Error, Result};
use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};
use ureq::http::Method;
use ureq::http::header::RANGE;

/// A connection that brings less a second, over [`super::Timeouts::idle`] of waiting for it, is as good as silent: it is
/// closed, and the rest asked for anew. Docker waits for as long as now and then a byte comes. As slow as a modem that
/// several layers share.
const SLOWEST: u64 = 128;

/// Reads a blob, and where the connection is cut goes on from there (RFC 9110, section 14.2).
pub(super) struct BlobReader<'a> {
    repository: &'a Repository<'a>,
    digest: Digest,
    size: u64,
    done: u64,
    body: Option<ureq::BodyReader<'static>>,
    /// Bytes that come once more before those that are wanted.
    again: u64,
    /// How often it was cut or stalled without bringing much: a byte for each connection is no progress.
    cuts: u32,
    /// Bytes since then.
    progress: u64,
    /// How long was waited for the connection, and what came, since the last look at its rate. Who unpacks may take as
    /// long as it likes.
    waited: Duration,
    arrived: u64,
    what: String,
}

impl<'a> BlobReader<'a> {
    /// Nothing is asked for before the first read. A blob is `size` bytes long, or an error.
    pub(super) fn new(repository: &'a Repository<'a>, digest: Digest, size: u64) -> Self {
        Self {
            repository,
            digest,
            size,
            done: 0,
            body: None,
            again: 0,
            cuts: 0,
            progress: 0,
            waited: Duration::ZERO,
            arrived: 0,
            what: String::new(),
        }
    }

    /// How many bytes have been read.
    pub(super) fn done(&self) -> u64 {
        self.done
    }

    /// The next bytes, or 0 where it is whole.
    ///
    /// # Errors
    /// What the registry answers; it is longer than it should be, or cut again and again.
    pub(super) fn read(&mut self, to: &mut [u8]) -> Result<usize> {
        loop {
            if self.done == self.size {
                return self.end();
            }
            let mut body = match self.body.take() {
                Some(body) => body,
                None => self.open()?,
            };
            let wanted = if self.again > 0 { self.again } else { self.size - self.done };
            let most = usize::try_from(wanted).unwrap_or(usize::MAX).min(to.len());
            let begun = Instant::now();
            let read = if self.is_slow() { None } else { Some(body.read(&mut to[..most])) };
            self.waited += begun.elapsed();
            let failure = match read {
                None => self.failure(Cause::TimedOut, "is too slow"),
                Some(Ok(0)) => self.failure(Cause::Cut, "ended"),
                Some(Ok(n)) => {
                    self.body = Some(body);
                    self.arrived += n as u64;
                    if self.again > 0 {
                        self.again -= n as u64;
                        continue;
                    }
                    self.done += n as u64;
                    self.progress += n as u64;
                    if self.progress >= self.least() {
                        self.cuts = 0;
                    }
                    return Ok(n);
                }
                Some(Err(e)) if e.kind() == std::io::ErrorKind::Interrupted => {
                    self.body = Some(body);
                    continue;
                }
                Some(Err(e)) => body_failure(&e, &self.what),
            };
            self.progress = 0;
            let session = self.repository.registry.session;
            if session.is_stopped() {
                return Err(stopped().error);
            }
            self.cuts += 1;
            // A server that has said next to nothing twice in a row says nothing.
            let hangs = failure.cause == Cause::TimedOut && self.cuts > 1;
            if hangs || !session.back_off(self.cuts) {
                return Err(failure.error);
            }
        }
    }

    fn failure(&self, cause: Cause, how: &str) -> Failure {
        let text = format!("{}: {how} after {} of {} bytes", self.what, self.done, self.size);
        Failure { cause, error: Error::system(text) }
    }

    /// What has to come in [`super::Timeouts::idle`].
    fn least(&self) -> u64 {
        let idle = self.repository.registry.session.client.timeouts.idle;
        (idle.as_secs_f64() * SLOWEST as f64) as u64
    }

    fn is_slow(&mut self) -> bool {
        if self.waited < self.repository.registry.session.client.timeouts.idle {
            return false;
        }
        let slow = self.arrived < self.least();
        (self.waited, self.arrived) = (Duration::ZERO, 0);
        slow
    }

    /// Reads the end, so that the connection is free for the next request.
    fn end(&mut self) -> Result<usize> {
        match self.body.take().map(|mut body| body.read(&mut [0; 1])) {
            Some(Ok(1..)) => {
                Err(Error::system(format!("{}: longer than its {} bytes", self.what, self.size)))
            }
            _ => Ok(0),
        }
    }

    fn open(&mut self) -> Result<ureq::BodyReader<'static>> {
        let uri = self.repository.uri(&format!("blobs/{}", self.digest))?;
        let mut headers = Vec::new();
        if self.done > 0 {
            headers.push((RANGE, format!("bytes={}-", self.done)));
        }
        let reply = self.repository.ask(Method::GET, uri, headers)?;
        self.what.clone_from(&reply.what);
        let begin = match reply.status {
            200 => 0,
            206 if self.done > 0 => begin_of(reply.header("content-range")).unwrap_or(self.done),
            _ => return Err(Refusal::read(reply).error()),
        };
        let wrong = reply.length().is_some_and(|length| begin + length != self.size);
        if wrong || (begin != 0 && begin != self.done) {
            return Err(Error::system(format!(
                "{}: {} bytes from {begin} instead of {} in all",
                self.what,
                reply.length().unwrap_or_default(),
                self.size
            )));
        }
        // A registry that knows no ranges sends what is here already once more.
        self.again = self.done - begin;
        (self.waited, self.arrived) = (Duration::ZERO, 0);
        Ok(reply.into_reader())
    }
}

/// `bytes 10-19/20`: 10.
fn begin_of(content_range: Option<&str>) -> Option<u64> {
    content_range?.trim().strip_prefix("bytes")?.trim_start().split('-').next()?.parse().ok()
}

/// What one thread fetches, for another that unpacks it.
pub(super) struct Arriving<'a> {
    broken: &'a AtomicBool,
    from: Receiver<Option<Vec<u8>>>,
    bytes: Vec<u8>,
    at: usize,
    ended: bool,
}

impl<'a> Arriving<'a> {
    /// The parts, and `None` behind the last; that they stop coming without it is an error, and told to `broken`.
    pub(super) fn new(from: Receiver<Option<Vec<u8>>>, broken: &'a AtomicBool) -> Self {
        Self { broken, from, bytes: Vec::new(), at: 0, ended: false }
    }
}

impl Read for Arriving<'_> {
    fn read(&mut self, to: &mut [u8]) -> std::io::Result<usize> {
        while self.at == self.bytes.len() && !self.ended {
            match self.from.recv() {
                Ok(Some(bytes)) => (self.bytes, self.at) = (bytes, 0),
                Ok(None) => self.ended = true,
                Err(_) => {
                    self.broken.store(true, Ordering::Relaxed);
                    return Err(std::io::Error::other("the download failed"));
                }
            }
        }
        let n = to.len().min(self.bytes.len() - self.at);
        to[..n].copy_from_slice(&self.bytes[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}
