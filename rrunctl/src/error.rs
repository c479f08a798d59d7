//! The one error type: what failed, in one line, and of which kind it is.

#![forbid(unsafe_code)]

use rustix::io::Errno;
use std::fmt;

/// `Result` with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a caller tells apart: a command line its exit code, a server its status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A call or a file failed, or what was read is broken. HTTP 500.
    System,
    /// What was asked for is not valid whatever there is. HTTP 400.
    Invalid,
    /// No such image, container, network, volume. HTTP 404.
    NotFound,
    /// What there is forbids it: a name is taken, a container runs. HTTP 409.
    Conflict,
    /// The registry wants other credentials. HTTP 401.
    Unauthorized,
    /// Not done here, or not by this kernel. HTTP 501.
    Unsupported,
    /// It is so already. HTTP 304.
    NotModified,
}

/// A failure, told in one line.
#[derive(Debug, Clone)]
pub struct Error {
    kind: Kind,
    text: String,
    errno: Option<Errno>,
}

impl Error {
    /// A failure of `kind`.
    pub fn new(kind: Kind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into(), errno: None }
    }

    /// A failure that is nobody's request's fault.
    pub fn system(text: impl Into<String>) -> Self {
        Self::new(Kind::System, text)
    }

    /// A request that can never be carried out.
    pub fn invalid(text: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, text)
    }

    /// Something that was named and is not there.
    pub fn not_found(text: impl Into<String>) -> Self {
        Self::new(Kind::NotFound, text)
    }

    /// A request that what there is forbids.
    pub fn conflict(text: impl Into<String>) -> Self {
        Self::new(Kind::Conflict, text)
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
        Self { text: format!("{} ({remedy})", self.text), ..self }
    }

    /// What callers tell apart.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The errno, where a system call failed.
    pub fn errno(&self) -> Option<Errno> {
        self.errno
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A registry's or a runtime's text may have several lines.
        for (n, line) in self.text.lines().map(str::trim).filter(|line| !line.is_empty()).enumerate() {
            if n > 0 {
                f.write_str(" ")?;
            }
            f.write_str(line)?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

/// The errno of an error of the standard library, if the kernel reported it.
fn errno(e: &std::io::Error) -> Option<Errno> {
    Errno::from_io_error(e)
}

impl From<std::io::Error> for Error {
    fn from(e: std::io::Error) -> Self {
        let text = match errno(&e) {
            Some(errno) => words(errno),
            None => e.to_string(),
        };
        Self { kind: Kind::System, text, errno: errno(&e) }
    }
}

impl From<Errno> for Error {
    fn from(e: Errno) -> Self {
        Self { kind: Kind::System, text: words(e), errno: Some(e) }
    }
}

/// `no such file or directory`: the system's words as Go writes them, in lower case and without the number.
fn words(errno: Errno) -> String {
    let text = std::io::Error::from(errno).to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    match letters.next() {
        Some(first) if !letters.as_str().starts_with(|c: char| c.is_ascii_uppercase()) => {
            first.to_lowercase().chain(letters).collect()
        }
        _ => text.to_owned(),
    }
}

/// Says in front of an error what was being done.
pub trait Context<T> {
    /// # Errors
    /// The same, with `doing` in front.
    fn context<D: fmt::Display>(self, doing: impl FnOnce() -> D) -> Result<T>;
}

impl<T, E: Into<Error>> Context<T> for Result<T, E> {
    fn context<D: fmt::Display>(self, doing: impl FnOnce() -> D) -> Result<T> {
        self.map_err(|e| e.into().context(doing()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_line_with_what_was_done_in_front() {
        let e = Error::from(Errno::NOENT).context("open /x").remedy("make it");
        assert_eq!(e.to_string(), "open /x: no such file or directory (make it)");
        assert_eq!(e.errno(), Some(Errno::NOENT));
        assert_eq!(Error::system("a\n  b\n").to_string(), "a b");
    }
}
