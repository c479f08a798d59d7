//! Where messages go and what they look like.
#![forbid(unsafe_code)]
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// A destination of messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Appended to a file.
    File(PathBuf),
    /// The journal, under an identifier.
    Journald(String),
    /// syslog, under an identifier.
    Syslog(String),
}

impl Target {
    /// `PATH`, `file:PATH`, `journald:ID` or `syslog:ID`; empty is standard error.
    ///
    /// # Errors
    /// No path or identifier behind the colon.
    pub fn parse(text: &OsStr) -> Result<Option<Self>, String> {
        let bytes = text.as_bytes();
        let word = |prefix: &str| bytes.strip_prefix(prefix.as_bytes());
        let id = |id: &[u8]| match std::str::from_utf8(id) {
            Ok(id) if !id.is_empty() && !id.contains(|c: char| c.is_control()) => Ok(id.to_owned()),
            _ => Err("no identifier".to_owned()),
        };
        if bytes.is_empty() {
            return Ok(None);
        }
        Ok(Some(if let Some(name) = word("journald:") {
            Self::Journald(id(name)?)
        } else if let Some(name) = word("syslog:") {
            Self::Syslog(id(name)?)
        } else {
            match word("file:") {
                Some([]) => return Err("no path".to_owned()),
                path => Self::File(OsStr::from_bytes(path.unwrap_or(bytes)).into()),
            }
        }))
    }
}

/// How a message looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// `time="…" level=error msg="…"`.
    #[default]
    Text,
    /// `{"level":"error","msg":"…","time":"…"}`.
    Json,
}

impl Format {
    /// The words of `--log-format`.
    pub const WORDS: &'static [&'static str] = &["text", "json"];
    /// The format of that word; empty is text, as in runc.
    pub fn parse(word: &str) -> Option<Self> {
        match word {
            "" | "text" => Some(Self::Text),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

/// How severe a message is, the most severe first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Level {
    /// The operation failed.
    Error,
    /// It did not, but something is not as asked.
    #[default]
    Warning,
    /// Worth knowing.
    Info,
    /// For those who look for a mistake.
    Debug,
}

impl Level {
    /// The words of `--log-level` that are shown.
    pub const WORDS: &'static [&'static str] = &["debug", "info", "warning", "error"];
    /// The level of that word, in either case, with youki's `warn` and `trace`.
    pub fn parse(word: &str) -> Option<Self> {
        match word.to_ascii_lowercase().as_str() {
            "error" => Some(Self::Error),
            "warn" | "warning" => Some(Self::Warning),
            "info" => Some(Self::Info),
            "debug" | "trace" => Some(Self::Debug),
            _ => None,
        }
    }
}
