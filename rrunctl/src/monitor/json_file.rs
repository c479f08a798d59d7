//! The log: Docker's `json-file`, as `ID-json.log` has it.

#![forbid(unsafe_code)]

use super::{Log, now};
use crate::error::{Context as _, Error, Result};
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// The longest `log` of one entry, in bytes of output. What a line has more goes into further entries, and only the
/// last one ends with a newline.
const CHUNK: usize = 16 * 1024;
/// How much is written at once. One entry can be longer, as JSON of 16 KiB that is not text is.
const AT_ONCE: usize = 32 * 1024;

/// A log that is being written.
#[derive(Debug)]
pub(super) struct JsonFile {
    path: PathBuf,
    max_size: u64,
    max_file: u32,
    file: File,
    size: u64,
    /// Entries that are not written yet.
    entries: Vec<u8>,
    /// The last write failed in the middle of an entry: the next begins with a newline, so that one entry is lost and
    /// not two.
    torn: bool,
    failure: Option<Error>,
    lines: [Line; 2],
}

/// The last line of a stream, while it has no end.
#[derive(Debug, Default)]
struct Line {
    bytes: Vec<u8>,
    /// When its first part was written, if parts of it are entries already; they all have this time.
    since: Option<String>,
}

impl JsonFile {
    /// Opens the log, and goes on behind what it has.
    ///
    /// # Errors
    /// Those of open(2).
    pub fn open(log: &Log) -> Result<Self> {
        let file = open(&log.path)?;
        let size = file.metadata().context(|| format!("stat {}", log.path.display()))?.len();
        Ok(Self {
            path: log.path.clone(),
            max_size: log.max_size.unwrap_or(u64::MAX),
            max_file: log.max_file.unwrap_or(1).max(1),
            file,
            size,
            entries: Vec::new(),
            // A killed monitor may have left half an entry; an empty line does no harm.
            torn: size > 0 && !ends_with_newline(&log.path),
            failure: None,
            lines: Default::default(),
        })
    }

    /// Opens the path anew: who rotates logs has moved the file.
    ///
    /// # Errors
    /// Those of open(2); the file that was open is written on.
    pub fn reopen(&mut self) -> Result<()> {
        self.file = open(&self.path)?;
        self.size = self.file.metadata().map_or(0, |meta| meta.len());
        self.torn = false;
        Ok(())
    }

    /// Logs output of `stream` (0 is standard output, 1 standard error): every line that is whole now, and of longer
    /// ones each 16 KiB.
    ///
    /// # Errors
    /// Those of write(2) and of the rotation; entries that could not be written are lost.
    pub fn output(&mut self, stream: usize, mut output: &[u8]) -> Result<()> {
        let time = now();
        while !output.is_empty() {
            let room = CHUNK - self.lines[stream].bytes.len();
            let within = &output[..output.len().min(room)];
            let newline = within.iter().position(|&byte| byte == b'\n');
            let (line, rest) = output.split_at(newline.map_or(within.len(), |at| at + 1));
            output = rest;
            let mut whole = std::mem::take(&mut self.lines[stream].bytes);
            if newline.is_some() && whole.is_empty() {
                let since = self.lines[stream].since.take();
                self.entry(stream, line, since.as_ref().unwrap_or(&time));
            } else {
                whole.extend_from_slice(line);
                if newline.is_some() {
                    let since = self.lines[stream].since.take();
                    self.entry(stream, &whole, since.as_ref().unwrap_or(&time));
                    whole.clear();
                } else if whole.len() == CHUNK {
                    let cut = whole.len() - unfinished(&whole);
                    let since = self.lines[stream].since.take().unwrap_or_else(|| time.clone());
                    self.entry(stream, &whole[..cut], &since);
                    self.lines[stream].since = Some(since);
                    whole.drain(..cut);
                }
            }
            self.lines[stream].bytes = whole;
        }
        self.flush();
        self.failure.take().map_or(Ok(()), Err)
    }

    /// Logs what has no newline behind it: the container has ended.
    ///
    /// # Errors
    /// As for [`Self::output`].
    pub fn end(&mut self) -> Result<()> {
        for stream in 0..self.lines.len() {
            let Line { bytes, since } = std::mem::take(&mut self.lines[stream]);
            if !bytes.is_empty() {
                self.entry(stream, &bytes, &since.unwrap_or_else(now));
            }
        }
        self.flush();
        self.failure.take().map_or(Ok(()), Err)
    }

    /// What fails is kept for when all is tried: one entry that is lost is no reason to lose the next.
    fn entry(&mut self, stream: usize, bytes: &[u8], time: &str) {
        if self.size + self.entries.len() as u64 >= self.max_size {
            self.flush();
            if let Err(e) = self.rotate() {
                // Not with every entry again: each try moves the files on.
                self.size = 0;
                self.failure = Some(e);
            }
        }
        self.entries.extend_from_slice(br#"{"log":""#);
        escape(bytes, &mut self.entries);
        self.entries.extend_from_slice(br#"","stream":""#);
        self.entries.extend_from_slice(if stream == 0 { b"stdout" } else { b"stderr" });
        self.entries.extend_from_slice(br#"","time":""#);
        self.entries.extend_from_slice(time.as_bytes());
        self.entries.extend_from_slice(b"\"}\n");
        if self.entries.len() >= AT_ONCE {
            self.flush();
        }
    }

    fn flush(&mut self) {
        if self.entries.is_empty() {
            return;
        }
        if self.torn {
            self.entries.insert(0, b'\n');
        }
        let mut left = &self.entries[..];
        let written = loop {
            match self.file.write(left) {
                Ok(0) => break Err(ErrorKind::WriteZero.into()),
                Ok(n) => {
                    self.size += n as u64;
                    left = &left[n..];
                    if left.is_empty() {
                        break Ok(());
                    }
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => break Err(e),
            }
        };
        if written.is_ok() || left.len() < self.entries.len() {
            self.torn = written.is_err() && self.entries[self.entries.len() - left.len() - 1] != b'\n';
        }
        self.entries.clear();
        // 16 KiB of bytes that are not text are 96 KiB of JSON: once is no reason to keep them.
        self.entries.shrink_to(2 * AT_ONCE);
        if let Err(e) = written {
            self.failure = Some(Error::from(e).context(format!("write {}", self.path.display())));
        }
    }

    /// `x.1` becomes `x.2`, `x` becomes `x.1`, and a new `x` begins. Whoever reads the oldest has it open still.
    fn rotate(&mut self) -> Result<()> {
        let name = |n: u32| {
            let mut name = self.path.clone().into_os_string();
            if n > 0 {
                name.push(format!(".{n}"));
            }
            PathBuf::from(name)
        };
        let missing = |moved: std::io::Result<()>| match moved {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        };
        if self.max_file == 1 {
            missing(fs::remove_file(&self.path)).context(|| format!("remove {}", self.path.display()))?;
        }
        for n in (1..self.max_file).rev() {
            missing(fs::rename(name(n - 1), name(n)))
                .context(|| format!("rename {}", name(n - 1).display()))?;
        }
        self.reopen()
    }
}

fn open(path: &Path) -> Result<File> {
    // O_NONBLOCK, as a path that became a fifo would never open.
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
        .open(path)
        .context(|| format!("open {}", path.display()))
}

fn ends_with_newline(path: &Path) -> bool {
    use std::os::unix::fs::FileExt as _;
    let last = || {
        let file = File::open(path)?;
        let mut last = [0];
        file.read_exact_at(&mut last, file.metadata()?.len().saturating_sub(1))?;
        Ok::<_, std::io::Error>(last == *b"\n")
    };
    last().unwrap_or(false)
}

/// How many bytes at the end begin a character of UTF-8 that has more.
fn unfinished(bytes: &[u8]) -> usize {
    for n in 1..=3.min(bytes.len()) {
        let lead = bytes[bytes.len() - n];
        let length = match lead {
            0xc2..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf4 => 4,
            0x80..=0xbf => continue,
            _ => return 0,
        };
        return if n < length { n } else { 0 };
    }
    0
}

/// Appends `bytes` as the inside of a JSON string, escaped as Docker does: a byte that is no UTF-8 becomes U+FFFD.
fn escape(bytes: &[u8], json: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    for chunk in bytes.utf8_chunks() {
        let valid = chunk.valid().as_bytes();
        let mut plain = 0;
        for (at, &byte) in valid.iter().enumerate() {
            // U+2028 and U+2029 end lines in JavaScript.
            let separator = byte == 0xe2 && matches!(valid[at..], [_, 0x80, 0xa8 | 0xa9, ..]);
            if byte >= b' ' && !matches!(byte, b'"' | b'\\' | b'<' | b'>' | b'&') && !separator {
                continue;
            }
            json.extend_from_slice(&valid[plain..at]);
            plain = at + 1;
            match byte {
                b'"' | b'\\' => json.extend_from_slice(&[b'\\', byte]),
                b'\n' => json.extend_from_slice(b"\\n"),
                b'\r' => json.extend_from_slice(b"\\r"),
                0xe2 => {
                    json.extend_from_slice(if valid[at + 2] == 0xa8 { b"\\u2028" } else { b"\\u2029" });
                    plain = at + 3;
                }
                _ => {
                    json.extend_from_slice(b"\\u00");
                    json.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
                }
            }
        }
        json.extend_from_slice(&valid[plain..]);
        for _ in chunk.invalid() {
            json.extend_from_slice(b"\\ufffd");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::home::unique;
    use rustix::io::Errno;

    struct Dir(PathBuf);

    impl Dir {
        fn new() -> Self {
            let dir = std::env::temp_dir().join(format!("rrunctl-log-{}", unique().expect("random")));
            fs::create_dir(&dir).expect("mkdir");
            Self(dir)
        }

        fn log(&self, max_size: Option<u64>, max_file: Option<u32>) -> JsonFile {
            let path = self.0.join("x-json.log");
            JsonFile::open(&Log { path, max_size, max_file, ..Log::default() }).expect("a log")
        }

        fn text(&self, name: &str) -> String {
            fs::read_to_string(self.0.join(name)).expect("a file of text")
        }

        /// Every entry's output, with its stream.
        fn entries(&self, name: &str) -> Vec<(String, String)> {
            let entry = |line: &str| {
                let value: serde_json::Value = serde_json::from_str(line).expect("JSON");
                let field = |name: &str| value[name].as_str().expect("a string").to_owned();
                assert!(field("time").ends_with('Z'));
                (field("log"), field("stream"))
            };
            self.text(name).lines().filter(|line| !line.is_empty()).map(entry).collect()
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected.iter().map(|&(log, stream)| (log.to_owned(), stream.to_owned())).collect()
    }

    #[test]
    fn a_line_is_an_entry_however_it_was_written_and_the_streams_do_not_mix() {
        let dir = Dir::new();
        let mut log = dir.log(None, None);
        for (stream, output) in [(0, "on"), (1, "err"), (0, "e\ntwo\nthr"), (1, "or\n"), (0, "ee")] {
            log.output(stream, output.as_bytes()).expect("written");
        }
        assert_eq!(dir.entries("x-json.log").len(), 3);
        log.end().expect("written");
        let expected = [("one\n", "stdout"), ("two\n", "stdout"), ("error\n", "stderr"), ("three", "stdout")];
        assert_eq!(dir.entries("x-json.log"), pairs(&expected));
    }

    #[test]
    fn long_lines_are_cut_after_16_kib_and_only_the_last_part_has_the_newline() {
        let dir = Dir::new();
        let mut log = dir.log(None, None);
        let line = [vec![b'a'; 2 * CHUNK], b"b\n".to_vec()].concat();
        for part in line.chunks(1000) {
            log.output(0, part).expect("written");
        }
        let entries = dir.entries("x-json.log");
        assert_eq!(entries.iter().map(|(log, _)| log.len()).collect::<Vec<_>>(), [CHUNK, CHUNK, 2]);
        assert_eq!(entries.iter().map(|(log, _)| &**log).collect::<String>().as_bytes(), line);
        let times: Vec<_> =
            dir.text("x-json.log").lines().map(|line| line[line.len() - 30..].to_owned()).collect();
        assert!(times.windows(2).all(|two| two[0] == two[1]), "one line, one time: {times:?}");
    }

    #[test]
    fn a_character_is_not_cut_in_two() {
        let dir = Dir::new();
        let mut log = dir.log(None, None);
        let line = format!("a{}\n", "€".repeat(6000));
        log.output(0, line.as_bytes()).expect("written");
        assert_eq!(dir.entries("x-json.log").iter().map(|(log, _)| &**log).collect::<String>(), line);
    }

    #[test]
    fn bytes_that_are_not_text_become_the_json_that_docker_writes() {
        let mut json = Vec::new();
        escape(b"a\xff\xe2\x82\"\\\x1b[0m\t\r\n<&>\xe2\x80\xa8\xe2\x80\xa9\x7f", &mut json);
        let expected =
            r#"a\ufffd\ufffd\ufffd\"\\\u001b[0m\u0009\r\n\u003c\u0026\u003e\u2028\u2029"#.to_owned() + "\x7f";
        assert_eq!(String::from_utf8(json).expect("text"), expected);
    }

    #[test]
    fn a_file_that_is_full_is_rotated_and_the_oldest_goes() {
        let dir = Dir::new();
        let mut log = dir.log(Some(150), Some(3));
        for n in 0..20 {
            log.output(0, format!("line {n}\n").as_bytes()).expect("written");
        }
        let lines = |name| dir.entries(name).into_iter().map(|(log, _)| log).collect::<String>();
        let all = lines("x-json.log.2") + &lines("x-json.log.1") + &lines("x-json.log");
        assert!(all.ends_with("line 18\nline 19\n") && all.lines().count() >= 5, "{all}");
        assert!(!dir.0.join("x-json.log.3").exists());
        assert!(dir.text("x-json.log.1").len() < 250);
    }

    #[test]
    fn with_one_file_a_new_one_takes_its_place() {
        let dir = Dir::new();
        let mut log = dir.log(Some(1), None);
        for n in 0..3 {
            log.output(0, format!("line {n}\n").as_bytes()).expect("written");
        }
        assert_eq!(dir.entries("x-json.log"), pairs(&[("line 2\n", "stdout")]));
        assert_eq!(fs::read_dir(&dir.0).expect("readdir").count(), 1);
    }

    #[test]
    fn behind_half_an_entry_the_next_begins_on_a_line_of_its_own() {
        let dir = Dir::new();
        fs::write(dir.0.join("x-json.log"), r#"{"log":"hal"#).expect("write");
        let mut log = dir.log(None, None);
        log.output(0, b"whole\n").expect("written");
        assert!(dir.text("x-json.log").starts_with("{\"log\":\"hal\n{\"log\":\"whole\\n\""));
        drop(log);
        let mut log = dir.log(None, None);
        log.output(0, b"more\n").expect("written");
        assert!(!dir.text("x-json.log").contains("\n\n"));
    }

    #[test]
    fn a_log_that_cannot_be_written_says_so_each_time_and_goes_on_when_it_can() {
        let dir = Dir::new();
        let mut log = dir.log(None, None);
        let file =
            std::mem::replace(&mut log.file, OpenOptions::new().write(true).open("/dev/full").expect("open"));
        for _ in 0..2 {
            let e = log.output(0, b"lost\n").expect_err("no space");
            assert_eq!(e.errno(), Some(Errno::NOSPC));
            assert!(e.to_string().contains("x-json.log: no space left on device"), "{e}");
        }
        log.file = file;
        log.output(0, b"kept\n").expect("written");
        assert_eq!(dir.entries("x-json.log"), pairs(&[("kept\n", "stdout")]));
    }
}
