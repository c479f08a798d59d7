//! Messages: where they go and what they look like.
//!
//! What callers parse decides the form: containerd reads the log as a stream of JSON objects and takes the
//! last error, podman reads the whole file as one object, which is why a warning is left out of a JSON log
//! unless debug messages were asked for. A message that cannot be written is lost: a full disk or a reader
//! that went away must not keep a container from being deleted.

#![forbid(unsafe_code)]

use crate::error::{Call, OneLine, Result};
use rustix::fs::{Mode, OFlags};
use std::ffi::OsStr;
use std::fmt::{self, Write as _};
use std::io::IsTerminal;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

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
    /// `time="…" level=error msg="…"`, as logrus has it.
    #[default]
    Text,
    /// `{"level":"error","msg":"…","time":"…"}`, in one line.
    Json,
    /// `error: …`, for a person: what `Text` becomes on a terminal.
    Plain,
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

    fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }

    /// syslog(3)'s severity, which the journal uses too.
    fn priority(self) -> u8 {
        match self {
            Self::Error => 3,
            Self::Warning => 4,
            Self::Info => 6,
            Self::Debug => 7,
        }
    }
}

#[derive(Debug)]
enum Sink {
    Stderr,
    File(OwnedFd),
    Journal(UnixDatagram, String),
    Syslog(UnixDatagram, String),
}

/// An open log.
#[derive(Debug)]
pub struct Log {
    sink: Sink,
    format: Format,
    level: Level,
}

/// The log of this process. A global, for a warning may arise anywhere and nobody can do anything about it
/// but write it.
static LOG: OnceLock<Log> = OnceLock::new();

impl Log {
    /// Opens the log, standard error without a target. A FIFO without a reader is an error and not a wait.
    ///
    /// # Errors
    /// Those of open(2), or of connect(2) to the journal or syslog.
    pub fn open(target: Option<&Target>, format: Format, level: Level) -> Result<Self> {
        let sink = match target {
            None => Sink::Stderr,
            Some(Target::File(path)) => {
                let flags = OFlags::CREATE
                    | OFlags::WRONLY
                    | OFlags::APPEND
                    | OFlags::CLOEXEC
                    | OFlags::NOCTTY
                    | OFlags::NONBLOCK;
                let fd = rustix::fs::open(path, flags, Mode::from_raw_mode(0o644));
                Sink::File(fd.call(|| format!("--log: open {}", path.display()))?)
            }
            Some(Target::Journald(id)) => Sink::Journal(connect("/run/systemd/journal/socket")?, id.clone()),
            Some(Target::Syslog(id)) => Sink::Syslog(connect("/dev/log")?, id.clone()),
        };
        let person =
            matches!(sink, Sink::Stderr) && format == Format::Text && std::io::stderr().is_terminal();
        Ok(Self { sink, format: if person { Format::Plain } else { format }, level })
    }

    /// Makes it the log of this process; a second one is ignored.
    pub fn install(self) {
        let _ = LOG.set(self);
    }

    /// Whether a message of that level is written.
    fn wants(&self, level: Level) -> bool {
        let structured =
            self.format == Format::Json && !matches!(self.sink, Sink::Journal(..) | Sink::Syslog(..));
        level <= self.level && (level == Level::Error || !structured || self.level == Level::Debug)
    }

    /// Writes a message with one call, for several processes may append to one file.
    pub fn write(&self, level: Level, text: &str) {
        if !self.wants(level) {
            return;
        }
        let line = || line(self.format, level, text, now());
        match &self.sink {
            Sink::Stderr => append(rustix::stdio::stderr(), &line()),
            Sink::File(fd) => append(fd.as_fd(), &line()),
            Sink::Journal(socket, id) => {
                // The journal's native protocol: a field a line.
                let priority = level.priority();
                let text = OneLine(text);
                let entry = format!("PRIORITY={priority}\nSYSLOG_IDENTIFIER={id}\nMESSAGE={text}\n");
                let _ = socket.send(entry.as_bytes());
            }
            Sink::Syslog(socket, id) => {
                // Facility daemon. No time: the receiver's is the same, and needs no time zone.
                let priority = (3 << 3) | level.priority();
                let text = OneLine(text);
                let entry = format!("<{priority}>{id}[{}]: {text}", std::process::id());
                let _ = socket.send(entry.as_bytes());
            }
        }
    }
}

/// Logs that the operation failed. Whether standard error has seen it: if not, main prints it there too.
pub fn error(text: &str) -> bool {
    match LOG.get() {
        Some(log) => {
            log.write(Level::Error, text);
            matches!(log.sink, Sink::Stderr)
        }
        None => false,
    }
}

/// Logs that something is not as asked.
pub fn warning(text: impl fmt::Display) {
    log(Level::Warning, || text);
}

/// Logs what is worth knowing.
pub fn info<D: fmt::Display>(text: impl FnOnce() -> D) {
    log(Level::Info, text);
}

/// Logs what helps to look for a mistake; `text` is evaluated only with `--debug`.
pub fn debug<D: fmt::Display>(text: impl FnOnce() -> D) {
    log(Level::Debug, text);
}

fn log<D: fmt::Display>(level: Level, text: impl FnOnce() -> D) {
    if let Some(log) = LOG.get().filter(|log| log.wants(level)) {
        log.write(level, &text().to_string());
    }
}

fn connect(path: &str) -> Result<UnixDatagram> {
    let socket = UnixDatagram::unbound().call(|| "--log: socket AF_UNIX")?;
    // A receiver that hangs must not hang rrun.
    socket.set_nonblocking(true).call(|| "--log: fcntl O_NONBLOCK")?;
    socket.connect(path).call(|| format!("--log: connect {path}"))?;
    Ok(socket)
}

/// Appends what can be appended; see the top for why a failure is passed over.
fn append(fd: BorrowedFd<'_>, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        match rustix::io::write(fd, bytes) {
            Ok(0) => return,
            Ok(n) => bytes = bytes.get(n..).unwrap_or_default(),
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return,
        }
    }
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// Now, as RFC 3339 with nanoseconds and in UTC: the `created` of a state.
pub fn now_with_nanoseconds() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    rfc3339(now.as_secs()).replace('Z', &format!(".{:09}Z", now.subsec_nanos()))
}

/// A message in its format, with the newline.
fn line(format: Format, level: Level, text: &str, seconds: u64) -> Vec<u8> {
    let (time, level) = (rfc3339(seconds), level.word());
    match format {
        Format::Plain => format!("{level}: {}\n", OneLine(text)).into_bytes(),
        Format::Text => format!("time=\"{time}\" level={level} msg={}\n", Quoted(text)).into_bytes(),
        Format::Json => {
            let text = serde_json::Value::from(text);
            format!("{{\"level\":\"{level}\",\"msg\":{text},\"time\":\"{time}\"}}\n").into_bytes()
        }
    }
}

/// In double quotes, in one line.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for c in self.0.chars() {
            match c {
                '"' | '\\' => write!(f, "\\{c}")?,
                c => write!(f, "{}", OneLine(c.encode_utf8(&mut [0; 4])))?,
            }
        }
        f.write_char('"')
    }
}

/// A time in UTC as RFC 3339 writes it, whole seconds since 1970.
///
/// The calendar is computed with years that begin in March, so that the leap day is the last of the year.
pub fn rfc3339(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Days since 0000-03-01, of which 1970-01-01 is number 719468; an era is 400 years.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, january) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = era * 400 + year + january;
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};

    #[test]
    fn the_calendar_is_right_around_leap_days_and_centuries() {
        for (seconds, want) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_709_164_800, "2024-02-29T00:00:00Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (1_735_689_600, "2025-01-01T00:00:00Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (253_402_300_799, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(rfc3339(seconds), want);
        }
    }

    #[test]
    fn a_message_is_one_line_in_either_format() {
        let nasty = "a \"b\" \\ c\nlevel=fatal \u{1b}[0m é";
        let text = String::from_utf8(line(Format::Text, Level::Error, nasty, 0)).unwrap();
        assert_eq!(
            text,
            "time=\"1970-01-01T00:00:00Z\" level=error msg=\"a \\\"b\\\" \\\\ c\\nlevel=fatal \\u{1b}[0m é\"\n"
        );
        let json = line(Format::Json, Level::Warning, nasty, 0);
        assert_eq!(json.iter().filter(|b| **b == b'\n').count(), 1);
        assert!(json.starts_with(b"{\"level\":\"warning\",\"msg\":\"a "));
        let value: serde_json::Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(value["msg"], nasty);
        assert_eq!(value["time"], "1970-01-01T00:00:00Z");
    }

    #[test]
    fn a_json_log_has_warnings_only_with_debug() {
        let log = |format, level| Log { sink: Sink::Stderr, format, level };
        let wanted = |log: Log| [Level::Error, Level::Warning, Level::Debug].map(|l| log.wants(l));
        assert_eq!(wanted(log(Format::Text, Level::Warning)), [true, true, false]);
        assert_eq!(wanted(log(Format::Json, Level::Warning)), [true, false, false]);
        assert_eq!(wanted(log(Format::Json, Level::Info)), [true, false, false]);
        assert_eq!(wanted(log(Format::Json, Level::Debug)), [true, true, true]);
        assert_eq!(wanted(log(Format::Text, Level::Error)), [true, false, false]);
    }

    /// A directory of its own, removed at the end.
    struct Dir(PathBuf);
    impl Dir {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("rrun-log-{name}-{}", std::process::id()));
            std::fs::create_dir(&path).unwrap();
            Self(path)
        }
    }
    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn open(path: PathBuf) -> Result<Log> {
        Log::open(Some(&Target::File(path)), Format::Json, Level::Warning)
    }

    #[test]
    fn a_file_is_made_and_appended_to() {
        let dir = Dir::new("append");
        for text in ["one", "two"] {
            open(dir.0.join("log")).unwrap().write(Level::Error, text);
        }
        let log = std::fs::read_to_string(dir.0.join("log")).unwrap();
        let messages: Vec<serde_json::Value> =
            log.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!((messages.len(), &messages[1]["msg"]), (2, &"two".into()));
        assert_eq!(std::fs::metadata(dir.0.join("log")).unwrap().permissions().mode() & 0o133, 0);
    }

    #[test]
    fn a_log_that_cannot_be_opened_is_an_error_and_one_that_cannot_be_written_is_not() {
        let dir = Dir::new("bad");
        assert!(open(dir.0.clone()).unwrap_err().to_string().ends_with("is a directory"));
        assert!(open(dir.0.join("no/log")).unwrap_err().to_string().ends_with("no such file or directory"));
        open("/dev/full".into()).unwrap().write(Level::Error, "lost");
        let fifo = dir.0.join("fifo");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &fifo,
            rustix::fs::FileType::Fifo,
            Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        // Without a reader open(2) would wait for one.
        assert_eq!(open(fifo.clone()).unwrap_err().errno(), Some(rustix::io::Errno::NXIO));
        let reader =
            std::fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&fifo).unwrap();
        let log = open(fifo).unwrap();
        log.write(Level::Error, &"x".repeat(1 << 20));
        drop(reader);
        log.write(Level::Error, "lost");
    }

    #[test]
    fn the_journal_and_syslog_get_their_own_forms() {
        let dir = Dir::new("socket");
        let path = dir.0.join("socket");
        let receiver = UnixDatagram::bind(&path).unwrap();
        let mut buffer = [0; 200];
        let mut send = |sink: Sink| {
            Log { sink, format: Format::Json, level: Level::Warning }.write(Level::Warning, "a\nMESSAGE=b");
            let n = receiver.recv(&mut buffer).unwrap();
            String::from_utf8(buffer[..n].to_vec()).unwrap()
        };
        let socket = || connect(path.to_str().unwrap()).unwrap();
        assert_eq!(
            send(Sink::Journal(socket(), "x".to_owned())),
            "PRIORITY=4\nSYSLOG_IDENTIFIER=x\nMESSAGE=a\\nMESSAGE=b\n"
        );
        let pid = std::process::id();
        assert_eq!(send(Sink::Syslog(socket(), "x".to_owned())), format!("<28>x[{pid}]: a\\nMESSAGE=b"));
    }
}
