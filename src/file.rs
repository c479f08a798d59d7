//! Small files of /proc, /sys and the disk, read and written as a whole, with the call that failed.
//!
//! Not std's `read_to_string` and `write`: their errors do not tell open from read, and they ask for the size of
//! what has none.

#![forbid(unsafe_code)]

use crate::error::{Call as _, Result};
use crate::launch::protocol::retry;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::path::Path;

/// Opens a file for reading.
///
/// # Errors
/// `open PATH`.
pub fn open(path: impl AsRef<Path>) -> Result<OwnedFd> {
    let path = path.as_ref();
    retry(|| rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()))
        .call(|| format!("open {}", path.display()))
}

/// Reads a file; what is no UTF-8 in it is replaced.
///
/// # Errors
/// `open PATH` or `read PATH`.
pub fn read(path: impl AsRef<Path>) -> Result<String> {
    let path = path.as_ref();
    let bytes = read_to_end(open(path)?).call(|| format!("read {}", path.display()))?;
    Ok(match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(e) => String::from_utf8_lossy(e.as_bytes()).into_owned(),
    })
}

/// As [`read()`], `None` for a file that is not there.
///
/// # Errors
/// Any other.
pub fn read_if_there(path: impl AsRef<Path>) -> Result<Option<String>> {
    match read(path) {
        Err(e) if matches!(e.errno(), Some(Errno::NOENT | Errno::NOTDIR)) => Ok(None),
        text => text.map(Some),
    }
}

/// Reads an open file to its end.
///
/// # Errors
/// Those of read(2).
pub fn read_to_end(file: impl AsFd) -> Result<Vec<u8>, Errno> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 8192];
    loop {
        match retry(|| rustix::io::read(&file, &mut buffer))? {
            0 => return Ok(bytes),
            n => bytes.extend_from_slice(buffer.get(..n).unwrap_or_default()),
        }
    }
}

/// Writes to an open file until all is written.
///
/// # Errors
/// Those of write(2).
pub fn write_all(file: impl AsFd, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match retry(|| rustix::io::write(&file, bytes))? {
            0 => return Err(Errno::IO),
            n => bytes = bytes.get(n..).unwrap_or_default(),
        }
    }
    Ok(())
}
