//! A further process in a container, and its streams.
//!
//! Of the caller's descriptors it gets none but pipes: who has a terminal can change its settings, who has a file can
//! open it anew for more than the caller has, and who has a directory is outside of the container. What is no pipe is
//! copied through one.

#![forbid(unsafe_code)]

use super::copy::{Copy, End, Sink};
use super::raw::Raw;
use super::{At, Outcome, gone, signals, size};
use crate::engine::{Engine, ExecRequest, Executed};
use crate::error::{Context as _, Error, Result};
use crate::monitor::{DetachKeys, Keys};
use rustix::fs::{FileType, OFlags, fcntl_getfl, fcntl_setfl, fstat};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Signal, setsid};
use rustix::termios::tcsetwinsize;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Stdio};

/// Starts a process with its streams here, and says with which code it has ended: of one that was left with the keys,
/// none.
///
/// Signals that end this process are the other's instead, unless that has a terminal.
///
/// # Errors
/// Those of [`Engine::exec`]; standard output or error cannot be written to.
pub(in super::super) fn exec(
    at: &At,
    engine: &Engine,
    id: &str,
    request: &ExecRequest,
    stdin: bool,
    keys: Keys,
) -> Result<Option<u8>> {
    let tty = request.tty;
    let signals = signals(tty, false)?;
    let (given, pipes) = if tty { (null(), [None, None, None]) } else { streams(stdin)? };
    let size = size().map(|size| (size.ws_row, size.ws_col));
    let mut process = engine.exec(id, &ExecRequest { size, ..request.clone() }, given)?;
    let terminal = process.terminal.take();
    for fd in pipes.iter().chain([&terminal]).flatten() {
        nonblocking(fd, true)?;
    }
    let raw = if tty && stdin { Raw::set()? } else { None };
    let [input, output, errors] = pipes;
    let sink = match (&terminal, input) {
        (Some(terminal), _) => stdin.then_some(Sink::Terminal(terminal)),
        (None, input) => input.map(Sink::Pipe),
    };
    let copy = Copy {
        stdin: sink,
        stdout: terminal.as_ref().or(output.as_ref()).map(AsFd::as_fd),
        stderr: errors.as_ref().map(AsFd::as_fd),
        keys: (tty && stdin).then(|| DetachKeys::new(keys)),
        signals: &signals,
        ended: process.ended(),
    };
    let end = copy.run(|signal| on_signal(signal, &process, terminal.as_ref()));
    let end = end.inspect_err(|e| gone(at, e))?;
    if end == End::Detached
        && let Some(terminal) = terminal
    {
        hold(engine, terminal)?;
    }
    match super::finish(end, raw, signals)? {
        Outcome::Detached => Ok(None),
        Outcome::Ended => process.wait().map(Some),
    }
}

/// Starts a process, and leaves it.
///
/// # Errors
/// Those of [`Engine::exec`].
pub(in super::super) fn detached(engine: &Engine, id: &str, request: &ExecRequest) -> Result<()> {
    match engine.exec(id, request, null())?.terminal {
        Some(terminal) => hold(engine, terminal),
        None => Ok(()),
    }
}

fn null() -> [Stdio; 3] {
    [Stdio::null(), Stdio::null(), Stdio::null()]
}

fn on_signal(signal: u8, process: &Executed, terminal: Option<&OwnedFd>) -> bool {
    let signal = Signal::from_named_raw(signal.into());
    match (signal, terminal) {
        (Some(Signal::WINCH), Some(terminal)) => {
            if let Some(size) = size() {
                let _ = tcsetwinsize(terminal, size);
            }
            true
        }
        (Some(signal), None) => {
            process.signal(signal);
            true
        }
        _ => false,
    }
}

/// Makes what a process without a terminal gets for its streams, and returns this process' ends of the pipes.
fn streams(stdin: bool) -> Result<([Stdio; 3], [Option<OwnedFd>; 3])> {
    let pipe = || pipe_with(PipeFlags::CLOEXEC).context(|| "pipe2");
    let (input, ours) = if !stdin {
        (Stdio::null(), None)
    } else if is_pipe(io::stdin()) {
        (Stdio::inherit(), None)
    } else {
        let (theirs, ours) = pipe()?;
        (Stdio::from(theirs), Some(ours))
    };
    let output = |is_pipe: bool| {
        if is_pipe {
            return Ok((Stdio::inherit(), None));
        }
        let (ours, theirs) = pipe()?;
        Ok::<_, Error>((Stdio::from(theirs), Some(ours)))
    };
    // Standard error is rrun's too until the process is there: what it says of a failure is in its log as well, and is
    // told once.
    let (out, errors) = (output(is_pipe(io::stdout()))?, output(false)?);
    Ok(([input, out.0, errors.0], [ours, out.1, errors.1]))
}

fn is_pipe(fd: impl AsFd) -> bool {
    fstat(fd).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo)
}

fn nonblocking(fd: &OwnedFd, on: bool) -> Result<()> {
    let flags = fcntl_getfl(fd).context(|| "fcntl F_GETFL")?;
    let flags = if on { flags | OFlags::NONBLOCK } else { flags - OFlags::NONBLOCK };
    fcntl_setfl(fd, flags).context(|| "fcntl F_SETFL")
}

/// Leaves a terminal to a process of its own: without anybody its process would get SIGHUP, and without a reader it
/// would wait for one when the terminal is full.
fn hold(engine: &Engine, terminal: OwnedFd) -> Result<()> {
    nonblocking(&terminal, false)?;
    let [program, options @ ..] = &engine.programs.own[..] else { return Err(Error::invalid("no program")) };
    let mut command = Command::new(program);
    command.args(options).arg("internal-hold").current_dir("/");
    let held = command.stdin(terminal).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    held.map(drop).context(|| format!("execute {program}"))
}

/// What [`hold`] runs: reads a terminal until nobody has its other side open.
pub(in super::super) fn drain() {
    // Not the caller's terminal's any more: that hangs up when the caller leaves.
    let _ = setsid();
    let mut stdin = io::stdin().lock();
    let mut piece = [0; 4096];
    loop {
        match stdin.read(&mut piece) {
            Ok(0) => break,
            Err(e) if e.kind() != io::ErrorKind::Interrupted => break,
            Ok(_) | Err(_) => {}
        }
    }
}
