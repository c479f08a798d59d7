//! The bundle: a directory with a config.json (bundle.md).

#![forbid(unsafe_code)]

use crate::error::{Call as _, Error, Kind, Result};
use crate::spec::Spec;
use crate::spec::read::document;
use rustix::fd::OwnedFd;
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::path::{Path, PathBuf};

/// A bundle as read.
#[derive(Debug)]
pub struct Bundle {
    /// Its absolute path.
    pub path: PathBuf,
    /// config.json, byte for byte.
    pub text: Vec<u8>,
    /// config.json.
    pub spec: Spec,
}

impl Bundle {
    /// Reads `config` (config.json unless `--config` says otherwise) of the directory `path`.
    ///
    /// # Errors
    /// `JSON specification file config.json not found`, and every error of its content.
    pub fn open(path: &Path, config: Option<&Path>) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::openat(CWD, path, flags, Mode::empty())
            .call(|| format!("open {}", path.display()))
            .map_err(|e| e.context("--bundle"))?;
        let absolute = std::path::absolute(path).call(|| "getcwd")?;
        let name = config.unwrap_or_else(|| Path::new("config.json"));
        let text = read_json(&dir, name).map_err(|e| match e.errno() {
            Some(Errno::NOENT) => Error::new(format!(
                "JSON specification file {} not found in {}",
                name.display(),
                path.display()
            )),
            _ => e,
        })?;
        let mut spec: Spec =
            document(&text).map_err(|e| Error::kind(Kind::Config, format!("{}: {e}", name.display())))?;
        crate::plan::annotations::apply(&mut spec);
        Ok(Self { path: clean(&absolute), text, spec })
    }
}

/// Reads a JSON file that a caller names.
///
/// # Errors
/// Missing, a device or a directory, unreadable, or `null`.
pub fn read_json(dir: &OwnedFd, name: &Path) -> Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file =
        rustix::fs::openat(dir, name, flags, Mode::empty()).call(|| format!("open {}", name.display()))?;
    let stat = rustix::fs::fstat(&file).call(|| format!("fstat {}", name.display()))?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {}
        // A shell's `<(...)`. With no writer the end of the file is read at once.
        FileType::Fifo => rustix::io::ioctl_fionbio(&file, false).call(|| "ioctl FIONBIO")?,
        _ => return Err(Error::new(format!("{}: neither a file nor a pipe", name.display()))),
    }
    let text = crate::file::read_to_end(file).call(|| format!("read {}", name.display()))?;
    if text.trim_ascii() == b"null" {
        return Err(Error::kind(Kind::Config, format!("{}: must not be null", name.display())));
    }
    Ok(text)
}

/// Removes `.` and `..` by the letters alone, as callers compare the `bundle` of a state with what they gave.
pub fn clean(path: &Path) -> PathBuf {
    let mut out = PathBuf::from("/");
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => {
                out.pop();
            }
            std::path::Component::Normal(name) => out.push(name),
            _ => {}
        }
    }
    out
}
