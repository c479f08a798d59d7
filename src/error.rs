//! The one error type: what failed, the call and its errno, and where in config.json.

#![forbid(unsafe_code)]

use rustix::io::Errno;
use std::fmt;

/// `Result` with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a caller may want to tell apart; the text is for people, though some callers grep it
/// (containerd for `does not exist`, moby for `executable file not found`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Anything without a kind of its own.
    Other,
    /// The command line: the usage follows the message.
    Usage,
    /// config.json, process.json or resources.json.
    Config,
    /// No container of that id.
    NoContainer,
    /// The container is not in a state that the operation accepts.
    State,
}

/// A failure, told in one line.
#[derive(Debug, Clone)]
pub struct Error {
    kind: Kind,
    text: String,
    errno: Option<Errno>,
}

impl Error {
    /// A failure that no system call reported.
    pub fn new(text: impl Into<String>) -> Self {
        Self { kind: Kind::Other, text: text.into(), errno: None }
    }

    /// A failure of a kind that callers tell apart.
    pub fn kind(kind: Kind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into(), errno: None }
    }

    /// A system call's failure: `call` with its arguments, as in `open /proc/self/exe`.
    pub fn sys(call: impl Into<String>, errno: Errno) -> Self {
        Self { kind: Kind::Other, text: call.into(), errno: Some(errno) }
    }

    /// A value in config.json: `path` as in `linux.seccomp.syscalls[3].action`.
    pub fn config(path: impl fmt::Display, text: impl fmt::Display) -> Self {
        Self { kind: Kind::Config, text: format!("config.json: {path}: {text}"), errno: None }
    }

    /// Says what was being done, in front.
    #[must_use]
    pub fn context(mut self, doing: impl fmt::Display) -> Self {
        self.text = format!("{doing}: {}", self.text);
        self
    }

    /// Gives the remedy, behind everything else.
    #[must_use]
    pub fn remedy(self, remedy: impl fmt::Display) -> Self {
        let text = format!("{self} ({remedy})");
        Self { text, errno: None, ..self }
    }

    /// Names another file than config.json as the one with the wrong value.
    #[must_use]
    pub fn in_file(mut self, name: &str) -> Self {
        if let Some(rest) = self.text.strip_prefix("config.json: ") {
            self.text = format!("{name}: {rest}");
        }
        self
    }

    /// What callers tell apart.
    pub fn what(&self) -> Kind {
        self.kind
    }

    /// The errno, where a system call failed.
    pub fn errno(&self) -> Option<Errno> {
        self.errno
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", OneLine(&self.text))?;
        let Some(errno) = self.errno else { return Ok(()) };
        write!(f, ": {}", strerror(errno))?;
        match Some(errno).filter(|&errno| errno == Errno::NOSYS).and_then(|_| needed(&self.text)) {
            Some(version) => write!(f, " (needs Linux {version}, or a seccomp filter here forbids the call)"),
            None => Ok(()),
        }
    }
}

/// The kernel version that first has the call at the end of `text`; only calls that rrun has no substitute for.
fn needed(text: &str) -> Option<&'static str> {
    let call = text.rsplit(": ").next()?.split(' ').next()?;
    Some(match call {
        "openat2" | "pidfd_getfd" => "5.6",
        "pidfd_open" | "clone3" => "5.3",
        "pidfd_send_signal" => "5.1",
        "mount_setattr" => "5.12",
        "open_tree" | "move_mount" | "fsopen" | "fsconfig" | "fsmount" | "fspick" => "5.2",
        _ => return None,
    })
}

impl std::error::Error for Error {}

impl From<crate::sys::SysError> for Error {
    fn from(e: crate::sys::SysError) -> Self {
        Self::sys(e.call, e.errno)
    }
}

/// Adds what was being done to any error that becomes an [`Error`].
pub trait Context<T> {
    /// `doing` is evaluated only on failure.
    ///
    /// # Errors
    /// The error itself, with `doing` in front.
    fn context<D: fmt::Display>(self, doing: impl FnOnce() -> D) -> Result<T>;
}

impl<T, E: Into<Error>> Context<T> for Result<T, E> {
    fn context<D: fmt::Display>(self, doing: impl FnOnce() -> D) -> Result<T> {
        self.map_err(|e| e.into().context(doing()))
    }
}

/// Adds the failed call to a bare errno, as rustix returns it.
pub trait Call<T> {
    /// `call` with its arguments, as in `open /proc/self/exe`; evaluated only on failure.
    ///
    /// # Errors
    /// [`Error::sys`] of the call.
    fn call<D: fmt::Display>(self, call: impl FnOnce() -> D) -> Result<T>;
}

impl<T> Call<T> for Result<T, Errno> {
    fn call<D: fmt::Display>(self, call: impl FnOnce() -> D) -> Result<T> {
        self.map_err(|e| Error::sys(call().to_string(), e))
    }
}

impl<T> Call<T> for std::io::Result<T> {
    fn call<D: fmt::Display>(self, call: impl FnOnce() -> D) -> Result<T> {
        self.map_err(|e| match Errno::from_io_error(&e) {
            Some(errno) => Error::sys(call().to_string(), errno),
            None => Error::new(format!("{}: {e}", call())),
        })
    }
}

/// The words that musl has others for.
const WORDS: [(Errno, &str); 30] = [
    (Errno::IO, "input/output error"),
    (Errno::CHILD, "no child processes"),
    (Errno::NOMEM, "cannot allocate memory"),
    (Errno::BUSY, "device or resource busy"),
    (Errno::XDEV, "invalid cross-device link"),
    (Errno::MFILE, "too many open files"),
    (Errno::NOTTY, "inappropriate ioctl for device"),
    (Errno::SPIPE, "illegal seek"),
    (Errno::DOM, "numerical argument out of domain"),
    (Errno::RANGE, "numerical result out of range"),
    (Errno::DEADLK, "resource deadlock avoided"),
    (Errno::NAMETOOLONG, "file name too long"),
    (Errno::LOOP, "too many levels of symbolic links"),
    (Errno::OVERFLOW, "value too large for defined data type"),
    (Errno::LIBBAD, "accessing a corrupted shared library"),
    (Errno::USERS, "too many users"),
    (Errno::NOTSOCK, "socket operation on non-socket"),
    (Errno::MSGSIZE, "message too long"),
    (Errno::OPNOTSUPP, "operation not supported"),
    (Errno::ADDRINUSE, "address already in use"),
    (Errno::ADDRNOTAVAIL, "cannot assign requested address"),
    (Errno::NETUNREACH, "network is unreachable"),
    (Errno::CONNABORTED, "software caused connection abort"),
    (Errno::ISCONN, "transport endpoint is already connected"),
    (Errno::NOTCONN, "transport endpoint is not connected"),
    (Errno::SHUTDOWN, "cannot send after transport endpoint shutdown"),
    (Errno::TOOMANYREFS, "too many references: cannot splice"),
    (Errno::TIMEDOUT, "connection timed out"),
    (Errno::HOSTUNREACH, "no route to host"),
    (Errno::INPROGRESS, "operation now in progress"),
];

/// The kernel's words for an errno, in lower case as Go's runtimes print them: dockerd, podman and runc's
/// own test suite look for `permission denied` and `no such file or directory`.
pub fn strerror(errno: Errno) -> String {
    if let Some((_, words)) = WORDS.iter().find(|(of, _)| *of == errno) {
        return (*words).to_owned();
    }
    libc_words(errno)
}

fn libc_words(errno: Errno) -> String {
    let text = std::io::Error::from(errno).to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut chars = text.chars();
    match (chars.next(), chars.clone().next()) {
        // "RFS specific error", "No data available": an initialism stays.
        (Some(first), Some(second)) if !second.is_uppercase() => first.to_lowercase().chain(chars).collect(),
        _ => text.to_owned(),
    }
}

/// Prints text in one line: control characters escaped, so that a path cannot forge a log line.
#[derive(Debug)]
pub struct OneLine<'a>(pub &'a str);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            if c.is_control() {
                write!(f, "{}", c.escape_default())?;
            } else {
                write!(f, "{c}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_line_with_the_call_and_the_errno_in_lower_case() {
        let e = Error::sys("open /a\nb", Errno::NOENT).context("config.json");
        assert_eq!(e.to_string(), "config.json: open /a\\nb: no such file or directory");
        assert_eq!(strerror(Errno::IO), "input/output error");
        assert_eq!(strerror(Errno::PERM), "operation not permitted");
    }

    #[test]
    #[cfg(target_env = "gnu")]
    fn the_words_are_those_of_glibc() {
        for (errno, words) in WORDS {
            assert_eq!(libc_words(errno), words);
        }
    }

    #[test]
    fn a_call_that_the_kernel_lacks_comes_with_the_version_that_has_it() {
        let e = Error::sys("openat2 /a: b", Errno::NOSYS);
        assert_eq!(e.to_string(), "openat2 /a: b: function not implemented");
        let e = Error::sys("openat2 /a", Errno::NOSYS).context("root.path");
        let remedy = "(needs Linux 5.6, or a seccomp filter here forbids the call)";
        assert_eq!(e.to_string(), format!("root.path: openat2 /a: function not implemented {remedy}"));
        assert_eq!(
            Error::sys("openat2 /a", Errno::NOENT).to_string(),
            "openat2 /a: no such file or directory"
        );
    }

    #[test]
    fn the_remedy_comes_last() {
        let e = Error::sys("setrlimit RLIMIT_NOFILE", Errno::PERM).remedy("needs CAP_SYS_RESOURCE");
        assert_eq!(
            e.to_string(),
            "setrlimit RLIMIT_NOFILE: operation not permitted (needs CAP_SYS_RESOURCE)"
        );
    }
}
