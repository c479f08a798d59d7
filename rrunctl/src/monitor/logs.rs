//! Reading a log, by whoever wants to: the files are all that is needed.

#![forbid(unsafe_code)]

use super::client::Client;
use crate::error::{Context as _, Error, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;
use serde::Deserialize;
use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// What is read at once.
const AT_ONCE: usize = 64 * 1024;
/// A line with more is none that a monitor or Docker wrote; it is not kept to find out.
const LONGEST: usize = 1 << 20;

/// Which part of a log, and how.
#[derive(Debug, Clone, Default)]
pub struct LogOptions {
    /// With what is written from now on, until the monitor of this run directory leaves.
    pub follow: Option<PathBuf>,
    /// Not what is older.
    pub since: Option<OffsetDateTime>,
    /// Nothing from the first that is newer; no longer than until then when it is followed.
    pub until: Option<OffsetDateTime>,
    /// Only so many entries before the end.
    pub tail: Option<u64>,
    /// With the time, and a space, before each line.
    pub timestamps: bool,
    /// With the labels that the log was told to keep (`KEY=VALUE,…`), and a space, before each line.
    pub details: bool,
}

/// Which output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Reads the log at `path`, with the files before it, and gives its entries to `sink`, the oldest first. What is no
/// entry is passed over.
///
/// # Errors
/// Those of open(2) and read(2), and those of `sink`, which end it. A log that is not there is empty.
pub fn read(
    path: &Path,
    options: &LogOptions,
    sink: &mut dyn FnMut(Stream, &[u8]) -> Result<()>,
) -> Result<()> {
    // Both before the first look, so that nothing comes between.
    let monitor = match &options.follow {
        Some(run) if run.exists() => Client::connect(run)?,
        _ => None,
    };
    let changes = monitor.as_ref().and_then(|_| watch(path).ok());
    let mut files: VecDeque<_> = open_all(path)?.into();
    if let Some(tail) = options.tail {
        start_at_tail(&mut files, tail)?;
    }
    let mut reader = Reader { options, sink, begun: [true; 2], done: false };
    let mut current = None;
    while !reader.done {
        current = files.pop_front().or(current);
        if let Some(log) = &mut current {
            reader.drain(log, path)?;
        }
        if !files.is_empty() || reader.done {
            continue;
        }
        let Some(monitor) = &monitor else { break };
        if let Some(newer) = newer(path, current.as_ref())? {
            // What was written between the end that was read and the rotation.
            if let Some(log) = &mut current {
                reader.drain(log, path)?;
            }
            files = newer.into();
            continue;
        }
        if !wait(monitor, changes.as_ref(), options.until)? {
            // Once more for what it wrote at last.
            if let Some(log) = &mut current {
                reader.drain(log, path)?;
            }
            for mut log in newer(path, current.as_ref())?.into_iter().flatten() {
                reader.drain(&mut log, path)?;
            }
            break;
        }
    }
    Ok(())
}

/// One file, and how far it was read.
#[derive(Debug)]
struct LogFile {
    file: File,
    inode: (u64, u64),
    offset: u64,
    /// The line at `offset` has no end yet.
    line: Vec<u8>,
    /// It is longer than lines are, and not kept.
    too_long: bool,
}

impl LogFile {
    fn open(path: &Path) -> Result<Option<Self>> {
        let opened = File::open(path).and_then(|file| {
            let meta = file.metadata()?;
            let inode = (meta.dev(), meta.ino());
            Ok(meta.is_file().then_some(Self { file, inode, offset: 0, line: Vec::new(), too_long: false }))
        });
        match opened {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            opened => opened.context(|| format!("open {}", path.display())),
        }
    }

    /// Gives every whole line from the offset on to `line`, until that says no.
    fn lines(&mut self, mut each: impl FnMut(&[u8]) -> Result<bool>) -> Result<(), Error> {
        if self.file.metadata()?.len() < self.offset {
            // Somebody has emptied it.
            (self.offset, self.too_long) = (0, false);
            self.line.clear();
        }
        let mut buffer = vec![0; AT_ONCE];
        loop {
            let n = match self.file.read_at(&mut buffer, self.offset) {
                Ok(0) => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                read => read?,
            };
            self.offset += n as u64;
            for part in buffer[..n].split_inclusive(|&byte| byte == b'\n') {
                let whole = part.ends_with(b"\n");
                self.too_long |= self.line.len() + part.len() > LONGEST;
                if self.too_long {
                    self.line.clear();
                    self.too_long = !whole;
                } else if !whole {
                    self.line.extend_from_slice(part);
                } else if self.line.is_empty() {
                    if !each(part)? {
                        return Ok(());
                    }
                } else {
                    self.line.extend_from_slice(part);
                    let more = each(&self.line)?;
                    self.line.clear();
                    if !more {
                        return Ok(());
                    }
                }
            }
        }
    }
}

/// `path` and the files that rotation has made of it, the oldest first.
///
/// The newest is opened first: a rotation meanwhile shows one file twice, and hides none.
fn open_all(path: &Path) -> Result<Vec<LogFile>> {
    let mut files: Vec<LogFile> = Vec::new();
    for n in 0.. {
        let Some(log) = LogFile::open(&rotated(path, n))? else {
            // There is none at `path` for the moment of a rotation.
            if n == 0 {
                continue;
            }
            break;
        };
        if files.iter().all(|other| other.inode != log.inode) {
            files.push(log);
        }
    }
    files.reverse();
    Ok(files)
}

fn rotated(path: &Path, n: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    if n > 0 {
        name.push(format!(".{n}"));
    }
    name.into()
}

/// The files behind `current`, if there are any.
fn newer(path: &Path, current: Option<&LogFile>) -> Result<Option<Vec<LogFile>>> {
    let inode = |log: &LogFile| Some(log.inode);
    let newest = fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()));
    if newest.is_none() || newest == current.and_then(inode) {
        return Ok(None);
    }
    let mut files = open_all(path)?;
    // If it is not among them, it was rotated away, and all of them are newer.
    if let Some(at) = files.iter().position(|log| inode(log) == current.and_then(inode)) {
        files.drain(..=at);
    }
    Ok(Some(files).filter(|files| !files.is_empty()))
}

/// Leaves of `files` what is behind the last `tail` entries' begin.
fn start_at_tail(files: &mut VecDeque<LogFile>, tail: u64) -> Result<()> {
    let mut left = tail;
    for n in (0..files.len()).rev() {
        let log = &mut files[n];
        log.offset = entries_from_end(&log.file, &mut left)?;
        if left == 0 {
            files.drain(..n);
            break;
        }
    }
    Ok(())
}

/// The offset of the entry that has `left` entries from it to the end, or 0; counts `left` down.
fn entries_from_end(file: &File, left: &mut u64) -> Result<u64> {
    let mut at = file.metadata()?.len();
    // Where the last whole line ends; behind it may be what is being written.
    let mut end = None;
    let mut block = vec![0; AT_ONCE];
    // The bytes from `at` on that belong to a line whose begin is before it, in reverse order of their blocks.
    let mut line: Vec<u8> = Vec::new();
    while at > 0 {
        let n = usize::try_from(at).unwrap_or(AT_ONCE).min(AT_ONCE);
        at -= n as u64;
        file.read_exact_at(&mut block[..n], at)?;
        let mut upto = n;
        while let Some(newline) = block[..upto].iter().rposition(|&byte| byte == b'\n') {
            let begin = at + newline as u64 + 1;
            if end.is_some() {
                line.splice(0..0, block[newline + 1..upto].iter().copied());
                *left -= u64::from(*left > 0 && Entry::parse(&line).is_some());
            }
            if *left == 0 {
                return Ok(begin);
            }
            end = Some(begin);
            line.clear();
            upto = newline;
        }
        if end.is_some() {
            line.splice(0..0, block[..upto].iter().copied());
            if line.len() > LONGEST {
                line.truncate(1);
            }
        }
    }
    if end.is_some() {
        *left -= u64::from(*left > 0 && Entry::parse(&line).is_some());
    }
    Ok(0)
}

/// A line of the log.
#[derive(Debug, Deserialize)]
struct Entry<'a> {
    #[serde(borrow)]
    log: Cow<'a, str>,
    #[serde(borrow, default)]
    stream: Cow<'a, str>,
    #[serde(borrow)]
    time: Cow<'a, str>,
    #[serde(default)]
    attrs: BTreeMap<String, String>,
}

impl<'a> Entry<'a> {
    fn parse(line: &'a [u8]) -> Option<Self> {
        const BEGIN: &[u8] = br#"{"log":"#;
        serde_json::from_slice(line).ok().or_else(|| {
            // Behind half an entry, or the zeros that a power cut left, may be a whole one. Inside of JSON's strings
            // the quotes would have backslashes.
            let at = line.windows(BEGIN.len()).rposition(|part| part == BEGIN).filter(|&at| at > 0)?;
            serde_json::from_slice(&line[at..]).ok()
        })
    }

    /// With nine digits, as `docker logs --timestamps` writes it, so that the lines stay in columns.
    fn timestamp(&self) -> String {
        let time = self.time.strip_suffix('Z').unwrap_or(&self.time);
        match time.split_once('.') {
            Some((seconds, fraction)) => format!("{seconds}.{fraction:0<9}Z "),
            None => format!("{time}.000000000Z "),
        }
    }
}

struct Reader<'a> {
    options: &'a LogOptions,
    sink: &'a mut dyn FnMut(Stream, &[u8]) -> Result<()>,
    /// Whether a stream's next entry begins a line.
    begun: [bool; 2],
    done: bool,
}

impl Reader<'_> {
    fn drain(&mut self, log: &mut LogFile, path: &Path) -> Result<()> {
        let mut failed = Ok(());
        let read = log.lines(|line| {
            failed = self.entry(line);
            Ok(failed.is_ok() && !self.done)
        });
        failed?;
        read.map_err(|e| e.context(format!("read {}", path.display())))
    }

    fn entry(&mut self, line: &[u8]) -> Result<()> {
        let Some(entry) = Entry::parse(line) else { return Ok(()) };
        if self.options.since.is_some() || self.options.until.is_some() {
            let Ok(time) = OffsetDateTime::parse(&entry.time, &Rfc3339) else { return Ok(()) };
            if self.options.since.is_some_and(|since| time < since) {
                return Ok(());
            }
            if self.options.until.is_some_and(|until| time > until) {
                self.done = true;
                return Ok(());
            }
        }
        let stream = if entry.stream == "stderr" { Stream::Stderr } else { Stream::Stdout };
        let begun = std::mem::replace(&mut self.begun[stream as usize], entry.log.ends_with('\n'));
        if begun && (self.options.timestamps || self.options.details) {
            let mut line = if self.options.timestamps { entry.timestamp() } else { String::new() };
            if self.options.details {
                let details = entry.attrs.iter().map(|(key, value)| format!("{key}={value}"));
                line.push_str(&details.collect::<Vec<_>>().join(","));
                line.push(' ');
            }
            line.push_str(&entry.log);
            return (self.sink)(stream, line.as_bytes());
        }
        (self.sink)(stream, entry.log.as_bytes())
    }
}

/// The directory is watched, as rotation gives the names to other files.
fn watch(path: &Path) -> Result<OwnedFd> {
    let dir = path.parent().unwrap_or_else(|| Path::new("/"));
    let changes = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).context(|| "inotify_init1")?;
    inotify::add_watch(&changes, dir, WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVED_TO)
        .context(|| format!("inotify_add_watch {}", dir.display()))?;
    Ok(changes)
}

/// Waits for a change; whether the monitor is there still and it is not `until` yet.
fn wait(monitor: &Client, changes: Option<&OwnedFd>, until: Option<OffsetDateTime>) -> Result<bool> {
    let left = until.map(|until| Duration::try_from(until - OffsetDateTime::now_utc()).unwrap_or_default());
    if left.is_some_and(|left| left.is_zero()) {
        return Ok(false);
    }
    // Every user has few inotify instances (128), so there may be none for this one.
    let look = changes.is_none().then_some(Duration::from_millis(200));
    let timeout = left.into_iter().chain(look).min();
    let timeout = timeout
        .map(|time| Timespec { tv_sec: time.as_secs().cast_signed(), tv_nsec: time.subsec_nanos().into() });
    let mut fds = vec![PollFd::new(monitor, PollFlags::IN)];
    fds.extend(changes.map(|changes| PollFd::new(changes, PollFlags::IN)));
    match poll(&mut fds, timeout.as_ref()) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(e) => return Err(Error::from(e).context("poll")),
    }
    let there = fds[0].revents().is_empty();
    if let Some(changes) = changes {
        let mut events = [0; 4096];
        while rustix::io::read(changes, &mut events).is_ok_and(|n| n > 0) {}
    }
    Ok(there)
}

#[cfg(test)]
mod tests {
    use super::super::Log;
    use super::super::json_file::JsonFile;
    use super::super::run_dir::RunDir;
    use super::*;
    use std::fmt::Write as _;
    use std::io::Write as _;

    struct Dir(PathBuf);

    impl Dir {
        fn new() -> Self {
            let dir =
                std::env::temp_dir().join(format!("rrunctl-logs-{}", crate::home::unique().expect("random")));
            fs::create_dir(&dir).expect("mkdir");
            Self(dir)
        }

        fn path(&self) -> PathBuf {
            self.0.join("x-json.log")
        }

        fn write(&self, name: &str, text: impl AsRef<[u8]>) {
            fs::write(self.0.join(name), text).expect("write");
        }

        fn read(&self, options: &LogOptions) -> String {
            let mut all = String::new();
            read(&self.path(), options, &mut |_, line| {
                all.push_str(str::from_utf8(line).expect("text"));
                Ok(())
            })
            .expect("read");
            all
        }

        fn tail(&self, tail: u64) -> String {
            self.read(&LogOptions { tail: Some(tail), ..LogOptions::default() })
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    /// Entries of these lines, one a second.
    fn entries(lines: std::ops::Range<u32>) -> String {
        lines.fold(String::new(), |mut all, n| {
            let (minute, second) = (n / 60, n % 60);
            let time = format!("2026-11-23T10:{minute:02}:{second:02}.5Z");
            let _ = writeln!(all, r#"{{"log":"{n}\n","stream":"stdout","time":"{time}"}}"#);
            all
        })
    }

    fn lines(range: std::ops::Range<u32>) -> String {
        range.map(|n| format!("{n}\n")).collect()
    }

    #[test]
    fn the_files_of_a_rotation_are_one_log() {
        let dir = Dir::new();
        assert_eq!(dir.read(&LogOptions::default()), "");
        for (name, range) in [("x-json.log.2", 0..5), ("x-json.log.1", 5..7), ("x-json.log", 7..9)] {
            dir.write(name, entries(range));
        }
        assert_eq!(dir.read(&LogOptions::default()), lines(0..9));
        for tail in 0..12 {
            assert_eq!(dir.tail(tail.into()), lines(9 - tail.min(9)..9), "tail {tail}");
        }
        dir.write("x-json.log", "");
        for tail in 0..9 {
            assert_eq!(dir.tail(tail.into()), lines(7 - tail.min(7)..7), "tail {tail}");
        }
    }

    #[test]
    fn the_tail_of_a_log_of_many_blocks_is_found_from_its_end() {
        let dir = Dir::new();
        let long = format!(
            r#"{{"log":"{}\n","stream":"stderr","time":"2026-11-23T10:00:00Z"}}"#,
            "a".repeat(100_000)
        );
        dir.write("x-json.log", format!("{}{long}\n{}", entries(0..1500), entries(1500..3000)));
        assert_eq!(dir.tail(1000), lines(2000..3000));
        assert_eq!(dir.tail(1500), lines(1500..3000));
        assert_eq!(dir.tail(1501).len(), 100_001 + lines(1500..3000).len());
        assert_eq!(dir.tail(1502)[..5], *"1499\n");
        assert_eq!(dir.tail(u64::MAX).len(), 100_001 + lines(0..3000).len());
    }

    #[test]
    fn broken_lines_are_passed_over_and_nothing_behind_them_is_lost() {
        let dir = Dir::new();
        let mut log = b"{\"log\":\"half".to_vec();
        log.extend(entries(0..1).bytes());
        log.extend(b"no json\n\n{}\n{\"log\":1}\n[\xff\n");
        log.extend([0; 5000]);
        log.extend(entries(1..2).bytes());
        log.extend(std::iter::repeat_n(b'x', 3 * LONGEST));
        log.extend(b"\n");
        log.extend(entries(2..4).bytes());
        log.extend(b"{\"log\":\"being written");
        dir.write("x-json.log", log);
        assert_eq!(dir.read(&LogOptions::default()), lines(0..4));
        for tail in 0..6 {
            assert_eq!(dir.tail(tail.into()), lines(4 - tail.min(4)..4), "tail {tail}");
        }
    }

    #[test]
    fn since_and_until_are_times_of_entries() {
        let dir = Dir::new();
        dir.write("x-json.log", entries(0..100));
        let time = |text| Some(OffsetDateTime::parse(text, &Rfc3339).expect("a time"));
        let (since, until) = (time("2026-11-23T11:00:10.5+01:00"), time("2026-11-23T10:01:05.49Z"));
        let between = LogOptions { since, until, ..LogOptions::default() };
        assert_eq!(dir.read(&between), lines(10..65));
        assert_eq!(dir.read(&LogOptions { tail: Some(36), ..between }), lines(64..65));
    }

    #[test]
    fn a_timestamp_has_nine_digits_and_stands_before_lines_not_before_their_parts() {
        let dir = Dir::new();
        let entry = |log: &str, stream: &str, time: &str| {
            format!("{{\"log\":\"{log}\",\"stream\":\"{stream}\",\"time\":\"2026-11-23T10:00:{time}Z\"}}\n")
        };
        let log =
            [entry("a", "stdout", "00.12"), entry("e\\n", "stderr", "01"), entry("b\\n", "stdout", "00.12")];
        dir.write("x-json.log", log.concat());
        let expected = "2026-11-23T10:00:00.120000000Z a2026-11-23T10:00:01.000000000Z e\nb\n";
        assert_eq!(dir.read(&LogOptions { timestamps: true, ..LogOptions::default() }), expected);
    }

    #[test]
    fn a_log_is_followed_through_rotations_until_the_monitor_leaves() {
        let dir = Dir::new();
        let run = RunDir::lock(&dir.0).expect("alive");
        let listener = run.listen().expect("listening");
        let log = Log { path: dir.path(), max_size: Some(300), max_file: Some(3), ..Log::default() };
        let mut log = JsonFile::open(&log).expect("a log");
        log.output(0, b"0\n").expect("written");
        let (sender, receiver) = std::sync::mpsc::channel();
        let (path, follow) = (dir.path(), Some(dir.0.clone()));
        let follower = std::thread::spawn(move || {
            read(&path, &LogOptions { follow, ..LogOptions::default() }, &mut |_, line| {
                sender.send(line.to_vec()).map_err(|e| Error::system(e.to_string()))
            })
        });
        let next = || receiver.recv_timeout(Duration::from_secs(20)).expect("a line");
        assert_eq!(next(), b"0\n");
        for n in 1..50 {
            log.output(0, format!("{n}\n").as_bytes()).expect("written");
            // Sometimes several are there at once.
            if n % 3 == 0 {
                let read: Vec<_> = (0..3).map(|_| String::from_utf8(next()).expect("text")).collect();
                assert_eq!(read.concat(), lines(n - 2..n + 1));
            }
        }
        log.output(0, b"at last").expect("written");
        log.end().expect("written");
        drop(listener);
        run.leave();
        follower.join().expect("no panic").expect("read");
        let rest: Vec<u8> = receiver.iter().flatten().collect();
        assert_eq!(rest, b"49\nat last");
        // Nobody is there to follow.
        let follow = LogOptions { follow: Some(dir.0.clone()), tail: Some(1), ..LogOptions::default() };
        assert_eq!(dir.read(&follow), "at last");
    }

    #[test]
    fn a_log_that_is_emptied_is_followed_from_its_new_begin() {
        let dir = Dir::new();
        dir.write("x-json.log", entries(0..3));
        let mut log = LogFile::open(&dir.path()).expect("open").expect("a file");
        let read = |log: &mut LogFile| {
            let mut count = 0;
            log.lines(|_| {
                count += 1;
                Ok(true)
            })
            .expect("read");
            count
        };
        assert_eq!(read(&mut log), 3);
        fs::OpenOptions::new()
            .append(true)
            .open(dir.path())
            .and_then(|mut file| file.write_all(b"{\n"))
            .expect("write");
        assert_eq!(read(&mut log), 1);
        dir.write("x-json.log", entries(3..4));
        assert_eq!(read(&mut log), 1);
    }

    #[test]
    fn a_reader_that_has_enough_ends_it() {
        let dir = Dir::new();
        dir.write("x-json.log", entries(0..3));
        let mut seen = 0;
        let ended = read(&dir.path(), &LogOptions::default(), &mut |_, _| {
            seen += 1;
            Err(Error::system("enough"))
        });
        assert_eq!((ended.expect_err("enough").to_string(), seen), ("enough".to_owned(), 1));
    }
}
