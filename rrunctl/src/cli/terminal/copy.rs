//! One loop that copies between the caller's streams and those of a container or of a process in it.

#![forbid(unsafe_code)]

use crate::error::{Context as _, Error, Result};
use crate::monitor::DetachKeys;
use crate::sys::Signals;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FileType, fstat};
use rustix::io::{Errno, read, write};
use rustix::net::{Shutdown, shutdown};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// What is read at once.
const AT_ONCE: usize = 16 * 1024;
/// PIPE_BUF: so much a pipe takes without waiting when poll(2) says that it takes something. The caller's streams are
/// shared with others, who would be surprised by O_NONBLOCK.
const PIECE: usize = 4096;
/// What a terminal keeps at most for its master. Who outlives the process that was waited for may write on and on.
const LEFT: usize = 128 * 1024;

/// How copying ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Nothing more comes.
    Ended,
    /// The keys were typed.
    Detached,
    /// A signal came that is for the caller to follow.
    Signal(u8),
}

/// Where input goes, and how its end is told.
#[derive(Debug)]
pub(super) enum Sink<'a> {
    /// Its writing half is shut down.
    Socket(&'a OwnedFd),
    /// It is closed.
    Pipe(OwnedFd),
    /// A terminal's input has no end.
    Terminal(&'a OwnedFd),
}

impl AsFd for Sink<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Socket(fd) | Self::Terminal(fd) => fd.as_fd(),
            Self::Pipe(fd) => fd.as_fd(),
        }
    }
}

impl Sink<'_> {
    fn end(self) {
        if let Self::Socket(socket) = self {
            // One that has hung up needs no telling.
            let _ = shutdown(socket, Shutdown::Write);
        }
    }
}

/// What there is to copy between. All of the far ends are non-blocking.
#[derive(Debug)]
pub(super) struct Copy<'a> {
    /// What the caller's standard input goes to, if it is read.
    pub stdin: Option<Sink<'a>>,
    /// Where the caller's standard output comes from.
    pub stdout: Option<BorrowedFd<'a>>,
    /// Where the caller's standard error comes from.
    pub stderr: Option<BorrowedFd<'a>>,
    /// The keys that detach, where they do.
    pub keys: Option<DetachKeys>,
    /// Signals to the caller.
    pub signals: &'a Signals,
    /// Readable at the end, whatever is still open; without it the end is that of both outputs.
    pub ended: Option<BorrowedFd<'a>>,
}

#[derive(Debug)]
struct Buffer {
    bytes: Vec<u8>,
    from: usize,
}

impl Buffer {
    fn new() -> Self {
        Self { bytes: Vec::with_capacity(AT_ONCE), from: 0 }
    }

    fn left(&self) -> &[u8] {
        &self.bytes[self.from..]
    }

    fn is_empty(&self) -> bool {
        self.left().is_empty()
    }

    /// Reads once; it is empty.
    fn fill(&mut self, source: impl AsFd) -> Result<usize, Errno> {
        self.bytes.resize(AT_ONCE, 0);
        let got = read(source, &mut self.bytes[..]);
        self.bytes.truncate(*got.as_ref().unwrap_or(&0));
        got
    }

    /// What `how` has taken is gone.
    fn give(&mut self, how: impl FnOnce(&[u8]) -> Result<usize, Errno>) -> Result<(), Errno> {
        match how(self.left()) {
            Ok(n) => self.from += n,
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(e) => return Err(e),
        }
        if self.is_empty() {
            self.bytes.clear();
            self.from = 0;
        }
        Ok(())
    }
}

/// One of the two outputs.
struct Output<'a> {
    source: Option<BorrowedFd<'a>>,
    sink: BorrowedFd<'a>,
    name: &'static str,
    piece: usize,
    buffer: Buffer,
}

impl<'a> Output<'a> {
    fn new(source: Option<BorrowedFd<'a>>, sink: BorrowedFd<'a>, name: &'static str) -> Self {
        let is_file =
            fstat(sink).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile);
        let piece = if is_file { AT_ONCE } else { PIECE };
        Self { source, sink, name, piece, buffer: Buffer::new() }
    }

    fn read(&mut self) {
        let Some(source) = self.source else { return };
        match self.buffer.fill(source) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            // The end; of a terminal EIO.
            Ok(0) | Err(_) => self.source = None,
            Ok(_) => {}
        }
    }

    fn show(&mut self) -> Result<()> {
        let (sink, piece) = (self.sink, self.piece);
        let done = self.buffer.give(|bytes| write(sink, &bytes[..bytes.len().min(piece)]));
        done.context(|| format!("write to {}", self.name))
    }
}

/// What poll(2) found.
#[derive(Debug, Clone, Copy)]
enum Ready {
    Signal,
    Typed,
    Room,
    Source(usize),
    Sink(usize),
    Ended,
}

impl Copy<'_> {
    /// Copies until there is nothing more. `on_signal` gets each signal, and says whether that was all about it.
    ///
    /// # Errors
    /// The caller's output cannot be written to; EPIPE if nobody reads it.
    pub(super) fn run(mut self, mut on_signal: impl FnMut(u8) -> bool) -> Result<End> {
        let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
        let mut outputs = [
            Output::new(self.stdout, stdout.as_fd(), "standard output"),
            Output::new(self.stderr, stderr.as_fd(), "standard error"),
        ];
        let mut input = Buffer::new();
        let mut reads = self.stdin.is_some();
        // How much is still read, once the end has come.
        let mut left = None;
        loop {
            if let Some(left) = &mut left {
                for output in outputs.iter_mut().filter(|output| output.buffer.is_empty()) {
                    output.read();
                    *left = usize::saturating_sub(*left, output.buffer.bytes.len());
                    if *left == 0 || output.buffer.is_empty() {
                        output.source = None;
                    }
                }
            }
            let silent = outputs.iter().all(|output| output.source.is_none() && output.buffer.is_empty());
            if silent && self.ended.is_none() {
                return Ok(End::Ended);
            }
            if !reads
                && input.is_empty()
                && let Some(sink) = self.stdin.take()
            {
                sink.end();
            }
            for ready in self.wait(&stdin, reads, &input, &outputs)? {
                match ready {
                    Ready::Signal => {
                        while let Some(signal) = self.signals.next() {
                            if !on_signal(signal) {
                                return Ok(End::Signal(signal));
                            }
                        }
                    }
                    Ready::Typed => {
                        let (more, detached) = self.take(&stdin, &mut input);
                        reads = more;
                        if detached {
                            let _ = self.give(&mut input);
                            return Ok(End::Detached);
                        }
                    }
                    Ready::Room => {
                        if self.give(&mut input).is_err() {
                            // Nobody reads it any more; what there is to see is shown all the same.
                            (input, reads) = (Buffer::new(), false);
                        }
                    }
                    Ready::Source(n) => outputs[n].read(),
                    Ready::Sink(n) => outputs[n].show()?,
                    Ready::Ended => (self.ended, left) = (None, Some(LEFT)),
                }
            }
        }
    }

    fn give(&self, input: &mut Buffer) -> Result<(), Errno> {
        let Some(sink) = &self.stdin else { return Ok(()) };
        input.give(|bytes| write(sink, bytes))
    }

    /// Reads what was typed: whether there may be more, and whether the keys were among it.
    fn take(&mut self, stdin: &impl AsFd, input: &mut Buffer) -> (bool, bool) {
        let more = match input.fill(stdin) {
            Err(Errno::AGAIN | Errno::INTR) => true,
            // A terminal that has hung up says EIO.
            Ok(0) | Err(_) => false,
            Ok(_) => true,
        };
        let Some(keys) = &mut self.keys else { return (more, false) };
        let mut passed = Vec::with_capacity(input.bytes.len());
        let detached = keys.pass(&input.bytes, &mut passed);
        if !more {
            passed.extend(keys.clone().rest());
        }
        input.bytes = passed;
        (more, detached)
    }

    fn wait(
        &self,
        stdin: &impl AsFd,
        reads: bool,
        input: &Buffer,
        outputs: &[Output<'_>],
    ) -> Result<Vec<Ready>> {
        let mut all = vec![(PollFd::new(self.signals, PollFlags::IN), Ready::Signal)];
        match &self.stdin {
            Some(sink) if !input.is_empty() => all.push((PollFd::new(sink, PollFlags::OUT), Ready::Room)),
            Some(_) if reads => all.push((PollFd::new(stdin, PollFlags::IN), Ready::Typed)),
            _ => {}
        }
        for (n, output) in outputs.iter().enumerate() {
            match &output.source {
                _ if !output.buffer.is_empty() => {
                    all.push((PollFd::new(&output.sink, PollFlags::OUT), Ready::Sink(n)));
                }
                Some(source) => all.push((PollFd::new(source, PollFlags::IN), Ready::Source(n))),
                None => {}
            }
        }
        if let Some(ended) = &self.ended {
            all.push((PollFd::new(ended, PollFlags::IN), Ready::Ended));
        }
        let (mut fds, whose): (Vec<_>, Vec<_>) = all.into_iter().unzip();
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(Error::from(e).context("poll")),
        }
        let ready = fds.iter().zip(whose).filter(|(fd, _)| !fd.revents().is_empty());
        Ok(ready.map(|(_, what)| what).collect())
    }
}
