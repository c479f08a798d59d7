//! The container's standard streams, and whoever is attached to them.
//!
//! Each output has one buffer. What was read into it goes into the log, then to every client that wants it; it is read
//! into again when all have it, so that nobody loses anything and nothing grows: the slowest client makes the container
//! wait, as a pipe does. Input has one buffer for all clients, too.

#![forbid(unsafe_code)]

use crate::error::{Context as _, Error, Result};
use rustix::event::{PollFd, PollFlags};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::{Errno, read, write};
use rustix::net::sockopt::{set_socket_send_buffer_size_force, socket_type};
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer};
use rustix::termios::{Winsize, tcsetwinsize};
use std::collections::VecDeque;
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::Stdio;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// What is read at once.
const AT_ONCE: usize = 16 * 1024;
/// How many clients are attached at most.
const CLIENTS: usize = 64;
/// What a pipe holds at most without privileges (pipe-max-size), and so what can be left when the container has ended.
const PIPE: usize = 1 << 20;
/// What a socket takes at once then: both pipes, with what the kernel counts for each piece.
const ALL_THAT_IS_LEFT: usize = 8 * PIPE;
/// How long a client of a container that has ended may read nothing before it loses what is left for it.
const PATIENCE: Duration = Duration::from_secs(10);

/// The streams of one run of a container.
#[derive(Debug)]
pub(super) struct Streams {
    tty: bool,
    stdin_once: bool,
    output: [Output; 2],
    input: Input,
    attached: Vec<Attached>,
    /// Those of runs that are over who do not have all of their output.
    leaving: Vec<Leaving>,
    size: Option<Winsize>,
    /// The terminal's other side, held so that a container of which nobody has it open for a while, as systemd does,
    /// has not ended its output.
    peer: Option<OwnedFd>,
    /// They belong to a run. Between two runs input is left where it is.
    open: bool,
}

#[derive(Debug)]
struct Output {
    source: Option<OwnedFd>,
    buffer: Box<[u8; AT_ONCE]>,
    len: usize,
    /// Some client does not have all of the buffer.
    busy: bool,
}

#[derive(Debug)]
struct Input {
    sink: Option<OwnedFd>,
    /// The sink is the terminal, which is the source of the output too.
    terminal: bool,
    buffer: Box<[u8; AT_ONCE]>,
    from: usize,
    to: usize,
    /// A client has ended it: it is closed when the buffer is empty.
    ended: bool,
}

/// Which streams a client has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    pub stdin: bool,
    pub output: [bool; 2],
    /// Docker's frames: `[stream, 0, 0, 0, length (big-endian)]` before each piece of output.
    pub framed: bool,
}

#[derive(Debug)]
struct Attached {
    /// Input, and all output that has no socket of its own.
    socket: OwnedFd,
    stderr: Option<OwnedFd>,
    wanted: Wanted,
    /// How much of the buffer's content it has, with the frame's header.
    sent: [usize; 2],
    /// Which output's frame it has a part of: the other has to wait.
    within: Option<usize>,
    /// What has no room in the socket, and in that of standard error, when the container has ended.
    left: [Pieces; 2],
    /// It has gone.
    gone: bool,
    /// It will send no more input.
    silent: bool,
}

/// Output that all clients who lack it have in common, and from where on it is to be sent.
type Pieces = VecDeque<(Rc<[u8]>, usize)>;

/// A socket to which nothing is sent but what is left.
#[derive(Debug)]
struct Leaving {
    socket: OwnedFd,
    left: Pieces,
    /// When it took something last.
    since: Instant,
}

impl Streams {
    /// Streams that are not open.
    pub fn new(tty: bool, stdin_once: bool) -> Self {
        let output = || Output { source: None, buffer: Box::new([0; AT_ONCE]), len: 0, busy: false };
        let input = Input {
            sink: None,
            terminal: false,
            buffer: Box::new([0; AT_ONCE]),
            from: 0,
            to: 0,
            ended: false,
        };
        Self {
            tty,
            stdin_once,
            output: [output(), output()],
            input,
            attached: Vec::new(),
            leaving: Vec::new(),
            size: None,
            peer: None,
            open: false,
        }
    }

    /// Makes pipes, and returns the container's ends of them.
    ///
    /// # Errors
    /// Those of pipe2(2).
    pub fn pipes(&mut self, open_stdin: bool) -> Result<[Stdio; 3]> {
        self.open = true;
        let pipe = || pipe_with(PipeFlags::CLOEXEC).context(|| "pipe2");
        let stdin = if open_stdin {
            let (theirs, ours) = pipe()?;
            nonblocking(&ours)?;
            self.input.sink = Some(ours);
            Stdio::from(theirs)
        } else {
            Stdio::null()
        };
        let mut output = |n: usize| {
            let (ours, theirs) = pipe()?;
            nonblocking(&ours)?;
            self.output[n].source = Some(ours);
            Ok::<_, Error>(Stdio::from(theirs))
        };
        Ok([stdin, output(0)?, output(1)?])
    }

    /// Takes the terminal's master.
    ///
    /// # Errors
    /// Those of fcntl(2).
    pub fn terminal(&mut self, master: OwnedFd) -> Result<()> {
        nonblocking(&master)?;
        if let Some(size) = self.size {
            let _ = tcsetwinsize(&master, size);
        }
        let peer = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        self.peer = ioctl_tiocgptpeer(&master, peer).ok();
        self.input.terminal = true;
        self.output[0].source = Some(master);
        self.open = true;
        Ok(())
    }

    /// Sets the terminal's size, now and for every run to come.
    ///
    /// # Errors
    /// There is no terminal.
    pub fn resize(&mut self, rows: u16, columns: u16) -> Result<()> {
        if !self.tty {
            return Err(Error::invalid("the container has no terminal"));
        }
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        self.size = Some(size);
        match &self.output[0].source {
            Some(master) => tcsetwinsize(master, size).context(|| "set the size of the terminal"),
            None => Ok(()),
        }
    }

    /// Adds a client: it has all output from now on.
    ///
    /// # Errors
    /// Descriptors that are not one or two stream sockets, and too many clients.
    pub fn attach(&mut self, fds: Vec<OwnedFd>, wanted: Wanted) -> Result<()> {
        let mut fds = fds.into_iter();
        let (Some(socket), stderr, None) = (fds.next(), fds.next(), fds.next()) else {
            return Err(Error::invalid("attach takes one or two sockets"));
        };
        for fd in std::iter::once(&socket).chain(&stderr) {
            // A pipe or a terminal would be told by O_NONBLOCK not to wait, and with it all who share it.
            if !matches!(socket_type(fd), Ok(rustix::net::SocketType::STREAM)) {
                return Err(Error::invalid("attach takes stream sockets only"));
            }
        }
        if self.attached.len() >= CLIENTS {
            return Err(Error::conflict(format!("{CLIENTS} clients are attached already")));
        }
        // What is in the buffers came before it.
        let sent = [usize::MAX; 2];
        self.attached.push(Attached {
            socket,
            stderr,
            wanted,
            sent,
            within: None,
            left: Default::default(),
            gone: false,
            silent: !wanted.stdin,
        });
        Ok(())
    }

    /// What to wait for.
    pub fn poll<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) {
        for output in &self.output {
            if let Some(source) = output.source.as_ref().filter(|_| !output.busy) {
                fds.push(PollFd::new(source, PollFlags::IN));
            }
        }
        if let Some(sink) = self.sink().filter(|_| self.input.from < self.input.to) {
            fds.push(PollFd::new(sink, PollFlags::OUT));
        }
        for client in &self.attached {
            let due = |n: usize| self.output[n].busy && client.due(n, self.output[n].len);
            let mut flags = PollFlags::empty();
            // While the buffer is full of input, a client that has hung up would end the wait again and again.
            let reads = self.open && !client.silent && self.input.from == self.input.to && !self.input.ended;
            flags.set(PollFlags::IN, reads);
            flags.set(PollFlags::OUT, due(0) || (due(1) && client.stderr.is_none()));
            if reads || client.silent || !flags.is_empty() {
                fds.push(PollFd::new(&client.socket, flags));
            }
            if let Some(stderr) = client.stderr.as_ref().filter(|_| due(1)) {
                fds.push(PollFd::new(stderr, PollFlags::OUT));
            }
        }
        fds.extend(self.leaving.iter().map(|client| PollFd::new(&client.socket, PollFlags::OUT)));
    }

    /// Whether somebody has to get what is left of a run that is over.
    pub fn is_leaving(&self) -> bool {
        !self.leaving.is_empty()
    }

    /// When somebody has read nothing for too long.
    pub fn deadline(&self) -> Option<Instant> {
        self.leaving.iter().map(|client| client.since + PATIENCE).min()
    }

    /// Does what can be done without waiting. `log` gets all output, before any client. `hangup` says that there was a
    /// POLLHUP or POLLERR.
    pub fn ready(&mut self, hangup: bool, log: &mut dyn FnMut(usize, &[u8])) {
        for n in 0..self.output.len() {
            self.fan_out(n);
            if !self.output[n].busy {
                self.read_output(n, log);
            }
        }
        self.write_input();
        self.read_input();
        if hangup {
            self.hung_up();
        }
        self.attached.retain(|client| !client.gone);
        self.leaving.retain_mut(Leaving::takes_more);
    }

    /// Reads what the container has left behind, hands it to everybody and closes: it has ended. Who does not take all of
    /// it at once has the rest later.
    pub fn finish(&mut self, log: &mut dyn FnMut(usize, &[u8])) {
        for client in &self.attached {
            for socket in std::iter::once(&client.socket).chain(&client.stderr) {
                // So that all of it finds room, and a client that has stopped reading holds nobody up.
                let _ = set_socket_send_buffer_size_force(socket, ALL_THAT_IS_LEFT);
            }
        }
        self.drain(log);
    }

    fn drain(&mut self, log: &mut dyn FnMut(usize, &[u8])) {
        // A frame of one stream that is sent in part holds the other one up.
        for n in [0, 1, 0, 1] {
            self.fan_out(n);
        }
        self.keep();
        for n in 0..self.output.len() {
            // A process that outlived init may write on and on.
            let mut left = PIPE;
            while left > 0 && self.read_output(n, log) {
                left = left.saturating_sub(self.output[n].len);
                // Without CAP_NET_ADMIN sockets have no room for all of it.
                self.keep();
            }
            self.output[n].source = None;
        }
        self.close();
    }

    /// Keeps what is in the buffers for those who lack it.
    fn keep(&mut self) {
        let pieces = self.output.each_mut().map(|output| {
            std::mem::take(&mut output.busy).then(|| Rc::<[u8]>::from(&output.buffer[..output.len]))
        });
        for client in &mut self.attached {
            // A frame that is sent in part is the first to be gone on with.
            let first = client.within.unwrap_or(0);
            for n in [first, 1 - first] {
                if let Some(piece) = &pieces[n] {
                    client.keep(n, piece);
                }
            }
        }
    }

    /// Closes everything, and what is not read yet is nobody's.
    pub fn close(&mut self) {
        for Attached { socket, stderr, left: [left, left_of_stderr], .. } in self.attached.drain(..) {
            for (socket, left) in [(Some(socket), left), (stderr, left_of_stderr)] {
                let Some(socket) = socket else { continue };
                if left.is_empty() {
                    let _ = shutdown(&socket, Shutdown::Write);
                } else {
                    // A client that waits for room gets EPIPE.
                    let _ = shutdown(&socket, Shutdown::Read);
                    self.leaving.push(Leaving { socket, left, since: Instant::now() });
                }
            }
        }
        self.attached.shrink_to(4);
        for output in &mut self.output {
            output.source = None;
            output.busy = false;
        }
        self.open = false;
        self.peer = None;
        self.input.sink = None;
        self.input.terminal = false;
        (self.input.from, self.input.to, self.input.ended) = (0, 0, false);
    }

    /// Reads once; whether there may be more.
    fn read_output(&mut self, n: usize, log: &mut dyn FnMut(usize, &[u8])) -> bool {
        let output = &mut self.output[n];
        let Some(source) = &output.source else { return false };
        match read(source, &mut output.buffer[..]) {
            Ok(len) if len > 0 => {
                output.len = len;
                output.busy = true;
                log(n, &output.buffer[..len]);
                for client in &mut self.attached {
                    client.sent[n] = 0;
                }
                self.fan_out(n);
                true
            }
            Err(Errno::AGAIN) => false,
            Err(Errno::INTR) => true,
            // The end; of a terminal EIO, when nobody has its other side open.
            Ok(_) | Err(_) => {
                output.source = None;
                false
            }
        }
    }

    /// Sends every client what it does not have of the buffer.
    fn fan_out(&mut self, n: usize) {
        let output = &mut self.output[n];
        if !output.busy {
            return;
        }
        let buffer = &output.buffer[..output.len];
        output.busy = false;
        for client in &mut self.attached {
            if client.due(n, buffer.len()) {
                client.send(n, buffer);
                output.busy |= client.due(n, buffer.len());
            }
        }
    }

    fn sink(&self) -> Option<&OwnedFd> {
        if self.input.terminal { self.output[0].source.as_ref() } else { self.input.sink.as_ref() }
    }

    fn write_input(&mut self) {
        if !self.open {
            return;
        }
        while self.input.from < self.input.to {
            let Some(sink) = self.sink() else { break };
            match write(sink, &self.input.buffer[self.input.from..self.input.to]) {
                Ok(n) => self.input.from += n,
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR) => {}
                // The container reads no more.
                Err(_) => {
                    self.input.sink = None;
                    break;
                }
            }
        }
        (self.input.from, self.input.to) = (0, 0);
        if self.input.ended {
            self.input.sink = None;
        }
        if self.sink().is_none() {
            // A client that waits for room gets EPIPE.
            for client in self.attached.iter_mut().filter(|client| !client.silent) {
                client.silent = true;
                let _ = shutdown(&client.socket, Shutdown::Read);
            }
        }
    }

    fn read_input(&mut self) {
        for n in 0..self.attached.len() {
            let client = &mut self.attached[n];
            if !self.open || client.silent || self.input.to > 0 || self.input.ended {
                continue;
            }
            match recv(&client.socket, &mut self.input.buffer[..], RecvFlags::DONTWAIT) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                Ok((len, _)) if len > 0 => {
                    (self.input.from, self.input.to) = (0, len);
                    self.write_input();
                }
                // It has no more input, but may read on. A terminal's input has no end.
                Ok(_) | Err(_) => {
                    client.silent = true;
                    if self.stdin_once && !self.tty {
                        self.input.ended = true;
                        self.write_input();
                    }
                }
            }
        }
    }

    /// Finds the clients that have closed: nothing is read from and, while the container is quiet, nothing sent to
    /// them.
    fn hung_up(&mut self) {
        for client in self.attached.iter_mut().filter(|client| client.silent) {
            let mut fds = [PollFd::new(&client.socket, PollFlags::empty())];
            let now = rustix::event::Timespec::default();
            if rustix::event::poll(&mut fds, Some(&now)) == Ok(1) {
                client.gone = true;
            }
        }
    }
}

impl Attached {
    /// Whether it lacks some of the `len` bytes of an output's buffer.
    fn due(&self, n: usize, len: usize) -> bool {
        self.wanted.output[n] && !self.gone && self.sent[n] < self.header() + len
    }

    fn header(&self) -> usize {
        if self.wanted.framed { 8 } else { 0 }
    }

    /// What goes before so many bytes of an output.
    fn frame(n: usize, len: usize) -> [u8; 8] {
        let length = u32::try_from(len).unwrap_or_default().to_be_bytes();
        [if n == 0 { 1 } else { 2 }, 0, 0, 0, length[0], length[1], length[2], length[3]]
    }

    /// Which of its sockets an output goes to.
    fn way(&self, n: usize) -> usize {
        usize::from(n == 1 && self.stderr.is_some())
    }

    /// Keeps what it lacks of an output's buffer for later.
    fn keep(&mut self, n: usize, buffer: &Rc<[u8]>) {
        if !self.due(n, buffer.len()) {
            return;
        }
        let (header, way) = (self.header(), self.way(n));
        let at = self.sent[n].checked_sub(header).unwrap_or_else(|| {
            let frame = Self::frame(n, buffer.len());
            self.left[way].push_back((Rc::from(&frame[self.sent[n]..]), 0));
            0
        });
        self.left[way].push_back((Rc::clone(buffer), at));
        self.sent[n] = header + buffer.len();
        self.within = None;
    }

    fn send(&mut self, n: usize, buffer: &[u8]) {
        // What is kept for it comes before.
        if self.within.is_some_and(|other| other != n) || !self.left[self.way(n)].is_empty() {
            return;
        }
        let socket = self.stderr.as_ref().filter(|_| n == 1).unwrap_or(&self.socket);
        let header = self.header();
        let frame = Self::frame(n, buffer.len());
        while self.sent[n] < header + buffer.len() {
            let more = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            let sent = match self.sent[n].checked_sub(header) {
                Some(at) => send(socket.as_fd(), &buffer[at..], more),
                None => send(socket.as_fd(), &frame[self.sent[n]..], more | SendFlags::MORE),
            };
            match sent {
                Ok(len) => self.sent[n] += len,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    self.within = (self.wanted.framed && self.sent[n] > 0).then_some(n);
                    return;
                }
                // It reads no more. It may have more input, though.
                Err(_) => {
                    self.wanted.output = [false; 2];
                    self.gone = self.silent;
                    break;
                }
            }
        }
        self.within = None;
    }
}

impl Leaving {
    /// Sends what finds room; whether there is more, and somebody who reads it.
    fn takes_more(&mut self) -> bool {
        while let Some((piece, at)) = self.left.front_mut() {
            match send(&self.socket, &piece[*at..], SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(len) => {
                    *at += len;
                    self.since = Instant::now();
                    if *at == piece.len() {
                        self.left.pop_front();
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return self.since.elapsed() < PATIENCE,
                Err(_) => return false,
            }
        }
        let _ = shutdown(&self.socket, Shutdown::Write);
        false
    }
}

fn nonblocking(fd: &OwnedFd) -> Result<()> {
    let flags = fcntl_getfl(fd).context(|| "fcntl F_GETFL")?;
    fcntl_setfl(fd, flags | OFlags::NONBLOCK).context(|| "fcntl F_SETFL")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream;

    /// Streams whose container is this test: its ends of the pipes.
    fn streams(stdin_once: bool) -> (Streams, OwnedFd, OwnedFd, OwnedFd) {
        let mut streams = Streams::new(false, stdin_once);
        streams.open = true;
        let pipe = || pipe_with(PipeFlags::CLOEXEC).expect("pipe");
        let (stdin, (stdout, out), (stderr, err)) = (pipe(), pipe(), pipe());
        for fd in [&stdin.1, &stdout, &stderr, &out, &err, &stdin.0] {
            nonblocking(fd).expect("fcntl");
        }
        streams.input.sink = Some(stdin.1);
        streams.output[0].source = Some(stdout);
        streams.output[1].source = Some(stderr);
        (streams, stdin.0, out, err)
    }

    fn attach(streams: &mut Streams, wanted: Wanted) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().expect("socketpair");
        ours.set_nonblocking(true).expect("fcntl");
        streams.attach(vec![theirs.into()], wanted).expect("attached");
        ours
    }

    const OUT: Wanted = Wanted { stdin: false, output: [true, true], framed: false };

    /// Writes until nothing more is taken, while the streams are served; how much that was.
    fn fill(streams: &mut Streams, out: &OwnedFd, logged: &mut Vec<u8>) -> usize {
        let (mut sent, mut stuck) = (0, 0);
        while stuck < 3 {
            match write(out, &[b'x'; 1000]) {
                Ok(n) => (sent, stuck) = (sent + n, 0),
                Err(_) => stuck += 1,
            }
            streams.ready(false, &mut |_, output| logged.extend_from_slice(output));
        }
        sent
    }

    #[test]
    fn who_reads_slowly_makes_the_container_wait_and_loses_nothing() {
        let (mut streams, _stdin, out, _err) = streams(false);
        let mut slow = attach(&mut streams, OUT);
        let mut fast = attach(&mut streams, OUT);
        let (mut logged, mut got) = (Vec::new(), [Vec::new(), Vec::new()]);
        let mut sent = fill(&mut streams, &out, &mut logged);
        assert_eq!(write(&out, &[b'x'; 4096]), Err(Errno::AGAIN), "it waits");
        let _ = fast.read_to_end(&mut got[0]);
        sent += fill(&mut streams, &out, &mut logged);
        assert!(got[0].len() < sent, "the fast one waits, too");
        // All of it comes in the end, though the container is gone and the slow one has not read at all.
        drop(out);
        streams.finish(&mut |_, output| logged.extend_from_slice(output));
        fast.read_to_end(&mut got[0]).expect("read");
        slow.read_to_end(&mut got[1]).expect("read");
        assert_eq!([got[0].len(), got[1].len(), logged.len()], [sent; 3]);
    }

    #[test]
    fn who_reads_slowly_has_all_of_it_although_its_socket_has_no_room() {
        for framed in [false, true] {
            let (mut streams, _stdin, out, err) = streams(false);
            let mut slow = attach(&mut streams, Wanted { framed, ..OUT });
            let _stuck = attach(&mut streams, Wanted { framed, ..OUT });
            let none = &mut |_, _: &[u8]| ();
            let mut sent = fill(&mut streams, &out, &mut Vec::new());
            while let Ok(n) = write(&err, &[b'e'; 1000]) {
                sent += n;
            }
            drop((out, err));
            // As an ordinary user's: its socket is no larger now.
            streams.drain(none);
            assert!(streams.is_leaving() && streams.attached.is_empty() && streams.deadline().is_some());
            let (mut got, mut buffer) = (Vec::new(), [0; 4096]);
            loop {
                match read(&slow, &mut buffer) {
                    Ok(0) => break,
                    Ok(n) => got.extend_from_slice(&buffer[..n]),
                    Err(_) => streams.ready(false, none),
                }
            }
            if framed {
                let (mut rest, mut payloads) = (&got[..], Vec::new());
                while let [1 | 2, 0, 0, 0, a, b, c, d, more @ ..] = rest {
                    let (payload, more) =
                        more.split_at(u32::from_be_bytes([*a, *b, *c, *d]).try_into().expect("a length"));
                    payloads.extend_from_slice(payload);
                    rest = more;
                }
                assert!(rest.is_empty());
                got = payloads;
            }
            assert_eq!(got.len(), sent);
            assert!(got.contains(&b'e'));
            assert_eq!(slow.write(b"x").map_err(|e| e.kind()), Err(std::io::ErrorKind::BrokenPipe));
            // Who reads nothing is not waited for without end.
            assert_eq!(streams.leaving.len(), 1);
            streams.leaving[0].since = Instant::now().checked_sub(PATIENCE).expect("a time");
            streams.ready(false, none);
            assert!(!streams.is_leaving() && streams.deadline().is_none());
        }
    }

    #[test]
    fn a_client_has_what_comes_after_it_and_one_that_goes_does_not_hold_others_up() {
        let (mut streams, _stdin, out, _err) = streams(false);
        let none = &mut |_, _: &[u8]| ();
        write(&out, b"before ").expect("write");
        streams.ready(false, none);
        let gone = attach(&mut streams, OUT);
        let mut stays = attach(&mut streams, OUT);
        drop(gone);
        streams.ready(true, none);
        assert_eq!(streams.attached.len(), 1);
        write(&out, b"after").expect("write");
        streams.ready(false, none);
        streams.finish(none);
        let mut got = String::new();
        stays.read_to_string(&mut got).expect("read");
        assert_eq!(got, "after");
    }

    #[test]
    fn frames_that_are_sent_in_part_are_not_mixed() {
        let (mut streams, _stdin, out, err) = streams(false);
        let mut client = attach(&mut streams, Wanted { framed: true, ..OUT });
        let none = &mut |_, _: &[u8]| ();
        let mut sent = [0; 2];
        for _ in 0..1000 {
            for (n, fd) in [&out, &err].into_iter().enumerate() {
                sent[n] += write(fd, &[b'0' + n as u8; 777]).unwrap_or(0);
            }
            streams.ready(false, none);
        }
        drop((out, err));
        streams.finish(none);
        let mut all = Vec::new();
        client.read_to_end(&mut all).expect("read");
        let (mut rest, mut got) = (&all[..], [0; 2]);
        while let [stream @ (1 | 2), 0, 0, 0, a, b, c, d, payload @ ..] = rest {
            let (payload, more) = payload.split_at(u32::from_be_bytes([*a, *b, *c, *d]) as usize);
            assert!(payload.iter().all(|byte| *byte == b'0' + stream - 1));
            got[usize::from(*stream) - 1] += payload.len();
            rest = more;
        }
        assert_eq!((got, rest.len()), (sent, 0));
    }

    #[test]
    fn the_first_client_that_ends_its_input_ends_the_containers_if_so_said() {
        for once in [false, true] {
            let (mut streams, stdin, _out, _err) = streams(once);
            let none = &mut |_, _: &[u8]| ();
            let wanted = Wanted { stdin: true, ..OUT };
            let mut first = attach(&mut streams, wanted);
            first.write_all(b"input").expect("write");
            first.shutdown(std::net::Shutdown::Write).expect("shutdown");
            for _ in 0..3 {
                streams.ready(false, none);
            }
            let mut buffer = [0; 10];
            assert_eq!(read(&stdin, &mut buffer), Ok(5));
            assert_eq!(read(&stdin, &mut buffer), if once { Ok(0) } else { Err(Errno::AGAIN) });
            assert_eq!(streams.attached.len(), 1, "it reads on");
        }
    }

    #[test]
    fn input_that_the_container_does_not_take_waits_with_the_client() {
        let (mut streams, stdin, _out, _err) = streams(true);
        let none = &mut |_, _: &[u8]| ();
        let mut client = attach(&mut streams, Wanted { stdin: true, ..OUT });
        let mut sent = 0;
        for _ in 0..10_000 {
            sent += client.write(&[b'x'; 1000]).unwrap_or(0);
            streams.ready(false, none);
        }
        assert!(sent < 5_000_000);
        drop(client);
        let mut got = 0;
        let mut buffer = [0; 4096];
        loop {
            match read(&stdin, &mut buffer) {
                Ok(0) => break,
                Ok(n) => got += n,
                Err(_) => {}
            }
            streams.ready(true, none);
        }
        assert_eq!(got, sent);
        assert!(streams.attached.is_empty());
    }

    #[test]
    fn only_stream_sockets_are_attached() {
        let (mut streams, stdin, out, _err) = streams(false);
        streams.attach(vec![stdin], OUT).expect_err("a pipe");
        streams.attach(vec![], OUT).expect_err("nothing");
        let pair = || UnixStream::pair().expect("socketpair").0.into();
        streams.attach(vec![pair(), pair(), pair()], OUT).expect_err("three");
        streams.attach(vec![pair(), out], OUT).expect_err("a pipe");
        for _ in 0..CLIENTS {
            streams.attach(vec![pair()], OUT).expect("attached");
        }
        streams.attach(vec![pair()], OUT).expect_err("too many");
    }
}
