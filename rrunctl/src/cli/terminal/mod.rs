//! The caller's terminal and streams, and those of a container: `run`, `start -a`, `attach`, `exec`.
//!
//! No thread: one loop waits for the caller's input, the container's output, and for signals, which come by a
//! descriptor. Nothing of the caller's is left changed: the terminal is as before after every end but SIGKILL, and its
//! descriptors, which other processes share, are never made non-blocking.

#![forbid(unsafe_code)]

mod copy;
mod exec;
mod raw;

use super::At;
use crate::engine::Engine;
use crate::error::{Context as _, Error, Result};
use crate::monitor::{Attach, Client, DetachKeys, Keys};
use crate::sys::Signals;
use copy::{Copy, End, Sink};
pub(super) use exec::{detached, drain, exec};
use raw::Raw;
use rustix::io::Errno;
use rustix::process::{Signal, getpid, kill_process};
use rustix::termios::{Winsize, tcgetwinsize};
use std::io::{self, IsTerminal as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};

/// Signals of which a copy to the container is no use: those about this process alone (CHLD, PIPE, and URG as docker
/// has it), and those by which a shell stops one that is in its background (TTIN, TTOU).
const OWN: [Signal; 7] =
    [Signal::KILL, Signal::STOP, Signal::CHILD, Signal::PIPE, Signal::URG, Signal::TTIN, Signal::TTOU];

/// Signals that would end this process and leave the terminal raw.
const ENDING: [Signal; 7] =
    [Signal::HUP, Signal::INT, Signal::QUIT, Signal::ALARM, Signal::TERM, Signal::USR1, Signal::USR2];

/// What somebody wants of a container's streams.
#[derive(Debug, Clone, Default)]
pub(super) struct Ways<'a> {
    /// Standard input goes there.
    pub stdin: bool,
    /// Its output comes here.
    pub stdout: bool,
    /// Its standard error comes here; a terminal has none of its own.
    pub stderr: bool,
    /// It has a terminal.
    pub tty: bool,
    /// What to type to leave it running; only where input goes to a terminal.
    pub keys: Keys,
    /// Signals go to this container; never to one with a terminal, which makes them of keys.
    pub proxy: Option<(&'a Engine, &'a str)>,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The container's streams have ended: it has, or is about to; who began to wait before knows how.
    Ended,
    /// The keys were typed, and the container runs on.
    Detached,
}

/// Refuses input for a terminal that comes from none.
///
/// # Errors
/// It does.
pub(super) fn check(stdin: bool, tty: bool) -> Result<()> {
    if stdin && tty && !io::stdin().is_terminal() {
        return Err(Error::invalid("the input device is not a TTY"));
    }
    Ok(())
}

/// Streams that are attached; from the first output on nothing is lost. Detached when it is dropped.
#[derive(Debug)]
pub(super) struct Attached<'a> {
    // In this order: a signal that has come meanwhile and ends this process finds the terminal restored.
    raw: Option<Raw>,
    signals: Signals,
    ways: Ways<'a>,
    main: OwnedFd,
    errors: Option<OwnedFd>,
}

impl<'a> Attached<'a> {
    /// Attaches to a container: one that waits to be started, or one that runs.
    ///
    /// # Errors
    /// Those of [`Client::streams`] and of the terminal.
    pub(super) fn new(client: &Client, ways: Ways<'a>) -> Result<Self> {
        let Ways { stdin, stdout, stderr, tty, .. } = ways;
        let signals = signals(ways.tty, ways.proxy.is_some())?;
        let attach = Attach { stdin, stdout, stderr: stderr && !tty, framed: false };
        let (main, errors) = client.streams(attach)?;
        for socket in std::iter::once(&main).chain(&errors) {
            socket.set_nonblocking(true).context(|| "fcntl F_SETFL")?;
        }
        let raw = if stdin && tty { Raw::set()? } else { None };
        Ok(Self { raw, signals, ways, main: main.into(), errors: errors.map(OwnedFd::from) })
    }

    /// Copies until the container ends its streams or the keys are typed, for which docker's words are said.
    ///
    /// `again`: it runs since before, and has a picture on its terminal: a change of the size makes it draw that anew.
    ///
    /// # Errors
    /// Standard output or error cannot be written to.
    pub(super) fn copy(self, at: &At, client: &Client, again: bool) -> Result<Outcome> {
        let resize = |more: u16| {
            if let Some(size) = size().filter(|_| self.ways.tty) {
                // One that ends just now has none.
                let _ = client.resize(size.ws_row.saturating_add(more), size.ws_col.saturating_add(more));
            }
        };
        if again {
            resize(1);
        }
        resize(0);
        let proxy = self.ways.proxy.filter(|_| !self.ways.tty);
        let copy = Copy {
            stdin: self.ways.stdin.then_some(Sink::Socket(&self.main)),
            stdout: Some(self.main.as_fd()),
            stderr: self.errors.as_ref().map(|errors| errors.as_fd()),
            keys: (self.ways.stdin && self.ways.tty).then(|| DetachKeys::new(self.ways.keys.clone())),
            signals: &self.signals,
            ended: None,
        };
        let end = copy.run(|signal| {
            match proxy {
                _ if self.ways.tty && i32::from(signal) == Signal::WINCH.as_raw() => resize(0),
                // It may have ended, or not be there yet.
                Some((engine, id)) => drop(engine.kill(id, &signal.to_string())),
                None => return false,
            }
            true
        });
        let end = end.inspect_err(|e| gone(at, e))?;
        let Self { raw, signals, .. } = self;
        finish(end, raw, signals)
    }
}

/// Takes the signals that are to be told or to be survived.
fn signals(tty: bool, proxy: bool) -> Result<Signals> {
    let number = |signal: &Signal| u8::try_from(signal.as_raw()).unwrap_or_default();
    let wanted: Vec<u8> = if tty || !proxy {
        ENDING.iter().chain(tty.then_some(&Signal::WINCH)).map(number).collect()
    } else {
        let own = OWN.map(|signal| number(&signal));
        (1..=64).filter(|signal| !own.contains(signal)).collect()
    };
    Signals::take(wanted.into_iter()).context(|| "take signals")
}

/// A reader who has gone away is no failure.
fn gone(at: &At, e: &Error) {
    at.gone.set(at.gone.get() || e.errno() == Some(Errno::PIPE));
}

/// Gives the terminal back, and says how it ended, unless that was by a signal.
fn finish(end: End, raw: Option<Raw>, signals: Signals) -> Result<Outcome> {
    drop(raw);
    match end {
        End::Ended => Ok(Outcome::Ended),
        End::Detached => {
            let _ = writeln!(io::stderr(), "read escape sequence");
            Ok(Outcome::Detached)
        }
        End::Signal(number) => {
            drop(signals);
            if let Some(signal) = Signal::from_named_raw(number.into()) {
                let _ = kill_process(getpid(), signal);
            }
            Err(Error::from(Errno::INTR).context(format!("signal {number}")))
        }
    }
}

/// The size of the caller's terminal, wherever it has one.
fn size() -> Option<Winsize> {
    let size = tcgetwinsize(io::stdout()).or_else(|_| tcgetwinsize(io::stdin())).ok()?;
    (size.ws_row > 0 && size.ws_col > 0).then_some(size)
}
