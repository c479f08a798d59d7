//! The streaming side of Exec and Attach: a WebSocket (RFC 6455) with Kubernetes' subprotocol
//! `v4.channel.k8s.io`, in which each message's first byte names the channel.

use crate::harness::patiently;
use crate::node::{LONG, Node};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
/// The last message: how it ended, as a `v1.Status`.
const ERROR: u8 = 3;
const RESIZE: u8 = 4;

pub struct Stream {
    socket: BufReader<TcpStream>,
    pub stdout: String,
    pub stderr: String,
    /// Set at the end.
    pub status: Option<Value>,
}

impl Stream {
    /// Connects to the URL that Exec or Attach gave.
    pub fn open(node: &Node, url: &str) -> Self {
        let (host, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
        let network = File::open(node.engine.namespace("net")).unwrap();
        // The server listens on the loopback device of the node's network namespace, and a socket stays in the
        // one it was made in: the thread that makes it moves there, and ends.
        let mut socket = std::thread::scope(|scope| {
            let connect = || {
                move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                TcpStream::connect(host).unwrap()
            };
            scope.spawn(connect).join().unwrap()
        });
        socket.set_read_timeout(Some(patiently(LONG))).unwrap();
        write!(
            socket,
            "GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: cnJ1biB0ZXN0cyBDUkkhIQ==\r\n\
             Sec-WebSocket-Protocol: v4.channel.k8s.io\r\n\r\n"
        )
        .unwrap();
        let mut socket = BufReader::new(socket);
        let mut answer = String::new();
        while !answer.ends_with("\r\n\r\n") {
            assert_ne!(socket.read_line(&mut answer).unwrap(), 0, "{answer}");
        }
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        Self { socket, stdout: String::new(), stderr: String::new(), status: None }
    }

    fn send(&mut self, channel: u8, text: &str) {
        let length = u8::try_from(text.len() + 1).unwrap();
        assert!(length < 126, "the tests send short messages only");
        // A client masks what it sends; a mask of zeros changes nothing.
        let mut frame = vec![0x82, 0x80 | length, 0, 0, 0, 0, channel];
        frame.extend(text.as_bytes());
        self.socket.get_mut().write_all(&frame).unwrap();
    }

    pub fn input(&mut self, text: &str) {
        self.send(STDIN, text);
    }

    pub fn resize(&mut self, rows: u16, columns: u16) {
        self.send(RESIZE, &format!(r#"{{"Width":{columns},"Height":{rows}}}"#));
    }

    /// One message; false at the end.
    fn step(&mut self) -> bool {
        let mut head = [0; 2];
        if self.socket.read_exact(&mut head).is_err() {
            return false;
        }
        let length = match head[1] {
            126 => {
                let mut long = [0; 2];
                self.socket.read_exact(&mut long).unwrap();
                u64::from(u16::from_be_bytes(long))
            }
            127 => {
                let mut long = [0; 8];
                self.socket.read_exact(&mut long).unwrap();
                u64::from_be_bytes(long)
            }
            short => short.into(),
        };
        let mut message = vec![0; length.try_into().unwrap()];
        self.socket.read_exact(&mut message).unwrap();
        let is_close = head[0] & 0xf == 8;
        if let (false, Some((channel, bytes))) = (is_close, message.split_first()) {
            let text = String::from_utf8_lossy(bytes);
            match *channel {
                STDOUT => self.stdout += &text,
                STDERR => self.stderr += &text,
                // Each channel begins with an empty message.
                ERROR if !text.is_empty() => self.status = Some(serde_json::from_str(&text).unwrap()),
                _ => {}
            }
        }
        !is_close
    }

    #[track_caller]
    pub fn expect(&mut self, text: &str) {
        while !self.stdout.contains(text) {
            assert!(self.step(), "ended before {text:?}: {:?} {:?}", self.stdout, self.status);
        }
    }

    /// Reads to the end and gives the exit code.
    pub fn exit_code(&mut self) -> i32 {
        while self.step() {}
        let status = self.status.as_ref().unwrap_or_else(|| panic!("no status: {:?}", self.stdout));
        if status["status"] == "Success" {
            return 0;
        }
        let code = status["details"]["causes"][0]["message"].as_str().and_then(|m| m.parse().ok());
        code.unwrap_or_else(|| panic!("{status}"))
    }
}
