//! A registry that does what a test tells it to: one request a connection, and a log of what was asked.

use super::Built;
use rrunctl::digest::Digest;
use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// What was asked.
#[derive(Debug, Clone)]
pub struct Seen {
    pub method: String,
    /// With its query.
    pub path: String,
    /// Names in lower case.
    pub headers: HashMap<String, String>,
    pub body: Vec<u8>,
}

impl Seen {
    pub fn is(&self, method: &str, part: &str) -> bool {
        self.method == method && self.path.contains(part)
    }
}

type Handler = dyn Fn(&Seen, &mut TcpStream) + Send + Sync;

/// Ends when it is dropped.
pub struct Fault {
    pub address: String,
    pub seen: Arc<Mutex<Vec<Seen>>>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Fault {
    pub fn new(handler: impl Fn(&Seen, &mut TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = listener.local_addr().expect("address").to_string();
        let (seen, ended) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let handler: Arc<Handler> = Arc::new(handler);
        let (log, end) = (Arc::clone(&seen), Arc::clone(&ended));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if end.load(Ordering::SeqCst) {
                    return;
                }
                let (Ok(mut stream), log, handler) = (stream, Arc::clone(&log), Arc::clone(&handler)) else {
                    continue;
                };
                std::thread::spawn(move || {
                    let Some(request) = read(&stream) else { return };
                    log.lock().expect("log").push(request.clone());
                    handler(&request, &mut stream);
                });
            }
        });
        Self { address, seen, ended, thread: Some(thread) }
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("log").clone()
    }

    /// How often something was asked for.
    pub fn count(&self, method: &str, part: &str) -> usize {
        self.seen().iter().filter(|seen| seen.is(method, part)).count()
    }
}

impl Drop for Fault {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(&self.address);
        self.thread.take().map(JoinHandle::join);
    }
}

/// A request; `None` for one that begins with TLS, whose connection is cut.
fn read(stream: &TcpStream) -> Option<Seen> {
    let mut reader = BufReader::new(stream);
    if reader.fill_buf().ok()?.first() == Some(&0x16) {
        return None;
    }
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = HashMap::new();
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Seen { method, path, headers, body })
}

/// The head of an answer; `headers` are whole lines.
pub fn head(stream: &mut TcpStream, status: u16, headers: &[&str]) {
    let mut text = format!("HTTP/1.1 {status} X\r\nConnection: close\r\n");
    for header in headers {
        text += &format!("{header}\r\n");
    }
    let _ = stream.write_all((text + "\r\n").as_bytes());
}

pub fn answer(stream: &mut TcpStream, status: u16, headers: &[&str], body: &[u8]) {
    let length = format!("Content-Length: {}", body.len());
    let all: Vec<&str> = headers.iter().copied().chain([length.as_str()]).collect();
    head(stream, status, &all);
    let _ = stream.write_all(body);
}

/// What a registry with one image answers to pulls.
pub fn serve(image: &Built, seen: &Seen, stream: &mut TcpStream) {
    let path = seen.path.split('?').next().unwrap_or_default();
    if path == "/v2/" {
        return answer(stream, 200, &[], b"{}");
    }
    let name = path.rsplit('/').next().unwrap_or_default();
    let found = if path.contains("/manifests/") {
        image.documents.iter().find(|(digest, _)| name == digest.to_string()).map(|(_, d)| d).or_else(|| {
            (!name.starts_with("sha256:"))
                .then(|| &image.documents.iter().find(|(d, _)| *d == image.named).expect("named").1)
        })
    } else {
        None
    };
    if let Some((media_type, bytes)) = found {
        return answer(stream, 200, &[&format!("Content-Type: {media_type}")], bytes);
    }
    match Digest::parse(name).ok().and_then(|digest| image.blobs.get(&digest)) {
        Some(blob) if path.contains("/blobs/") => answer(stream, 200, &[], blob),
        _ => answer(
            stream,
            404,
            &[],
            br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#,
        ),
    }
}
