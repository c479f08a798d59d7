//! `cp`: files between a container and here. Names in a container are resolved in its root directory only.
//!
//! | source | destination | what is made |
//! |---|---|---|
//! | a file | a directory | the file in it |
//! | a file | a file, or nothing | the file under this name |
//! | a directory | a directory | the directory in it; with `/.` at its end what is in it |
//! | a directory | nothing | the directory under this name |
//!
//! A symbolic link at the destination's end is followed, also where it leads to nothing.

#![forbid(unsafe_code)]

use super::super::{At, human};
use crate::archive::{self, ExtractOptions};
use crate::engine::Engine;
use crate::error::{Context as _, Error, Kind, Result};
use clap::Args;
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2, readlinkat};
use rustix::io::Errno;
use rustix::process::{getegid, geteuid};
use std::ffi::{OsStr, OsString};
use std::io::{self, IsTerminal as _, Read, Write};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

/// Copy files between a container and here
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rrunctl cp web:/etc/httpd.conf .
  rrunctl cp site/. web:/www
  rrunctl cp web:/var/log - | tar t

The container may run or not. `-` is a tar on standard input or output.")]
pub(in super::super) struct Cp {
    /// CONTAINER:PATH, PATH, or -
    #[arg(value_name = "SOURCE")]
    source: String,
    /// PATH, CONTAINER:PATH, or -
    #[arg(value_name = "DESTINATION")]
    destination: String,
    /// With owners and groups
    #[arg(short, long)]
    archive: bool,
    /// What a symbolic link at the source's end leads to
    #[arg(short = 'L', long)]
    follow_link: bool,
    /// Say nothing
    #[arg(short, long)]
    quiet: bool,
}

/// One end of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
enum End {
    Container(String, PathBuf),
    Here(PathBuf),
    Stream,
}

impl End {
    fn parse(text: &str) -> Self {
        match text.split_once(':') {
            _ if text == "-" => Self::Stream,
            // A name with a colon is written ./a:b.
            Some((container, path)) if !text.starts_with(['/', '.']) => {
                Self::Container(container.to_owned(), PathBuf::from("/").join(path))
            }
            _ => Self::Here(PathBuf::from(text)),
        }
    }
}

impl Cp {
    pub(in super::super) fn run(self, at: &At) -> Result<()> {
        let engine = at.engine()?;
        let ends = (End::parse(&self.source), End::parse(&self.destination));
        let here = |path: &Path| -> Result<PathBuf> {
            let absolute = std::path::absolute(path).context(|| path.display().to_string())?;
            // It takes what says that a directory is meant.
            let bytes = path.as_os_str().as_bytes();
            Ok(match () {
                () if bytes.ends_with(b"/.") || bytes == b"." => absolute.join("."),
                () if bytes.ends_with(b"/") => absolute.join(""),
                () => absolute,
            })
        };
        let copied = match &ends {
            (End::Container(..), End::Container(..)) => {
                return Err(Error::invalid("copying between containers is not supported"));
            }
            (End::Container(name, path), End::Stream) => {
                let id = engine.resolve(name)?;
                return self.to_stream(engine, &id, path);
            }
            (End::Stream, End::Container(name, path)) => {
                let id = engine.resolve(name)?;
                return engine.copy_to(&id, path, io::stdin(), &self.owner((0, 0)));
            }
            (End::Container(name, from), End::Here(to)) => {
                let id = engine.resolve(name)?;
                let container = engine.containers.load(&id)?;
                let (root, to) = (host_root()?, here(to)?);
                let owner = self.owner((geteuid().as_raw(), getegid().as_raw()));
                let owner = ExtractOptions { harmless: !self.archive, ..owner };
                let follow = self.follow_link;
                engine.with_root(&container, |inside| {
                    let from = source(inside, from, follow).map_err(|e| of_container(e, name, from))?;
                    copy(inside, &from, root.as_fd(), &to, &owner)
                })?
            }
            (End::Here(from), End::Container(name, to)) => {
                let id = engine.resolve(name)?;
                let container = engine.containers.load(&id)?;
                engine.check_writable(&container, to)?;
                let (root, from) = (host_root()?, here(from)?);
                let from = source(root.as_fd(), &from, self.follow_link)?;
                let owner = self.owner((0, 0));
                engine.with_root(&container, |inside| {
                    copy(root.as_fd(), &from, inside, to, &owner).map_err(|e| match e.kind() {
                        Kind::NotFound => of_container(e, name, to),
                        _ => e,
                    })
                })?
            }
            _ => return Err(Error::invalid("must specify at least one container source")),
        };
        if !self.quiet && io::stderr().is_terminal() {
            let _ =
                writeln!(io::stderr(), "Successfully copied {} to {}", human::size(copied), self.destination);
        }
        Ok(())
    }

    fn owner(&self, usual: (u32, u32)) -> ExtractOptions {
        ExtractOptions {
            no_overwrite_dir_non_dir: true,
            owner: if self.archive { None } else { Some(usual) },
            harmless: false,
        }
    }

    fn to_stream(&self, engine: &Engine, id: &str, path: &Path) -> Result<()> {
        if io::stdout().is_terminal() {
            return Err(Error::invalid("refusing to write a tar to a terminal").remedy("redirect it"));
        }
        let container = engine.containers.load(id)?;
        let follow = self.follow_link;
        engine.with_root(&container, |inside| {
            let from = source(inside, path, follow).map_err(|e| of_container(e, id, path))?;
            let name = if from.contents { OsStr::new(".") } else { from.name() };
            archive::pack_tree(inside, &from.path, Path::new(name), io::BufWriter::new(io::stdout()))
        })
    }
}

fn of_container(e: Error, name: &str, path: &Path) -> Error {
    match e.kind() {
        Kind::NotFound => {
            Error::not_found(format!("Could not find the file {} in container {name}", path.display()))
        }
        _ => e,
    }
}

fn host_root() -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(CWD, "/", flags, Mode::empty()).context(|| "open /")
}

/// What is copied.
#[derive(Debug)]
struct Source {
    /// In its root.
    path: PathBuf,
    is_dir: bool,
    /// Only what is in the directory.
    contents: bool,
}

impl Source {
    /// Its own name; of `/` there is none.
    fn name(&self) -> &OsStr {
        self.path.file_name().unwrap_or_else(|| OsStr::new("."))
    }
}

fn missing(path: &Path) -> Error {
    Error::not_found(format!("{}: no such file or directory", path.display()))
}

/// So many symbolic links are followed one after the other, as by the kernel.
const LINKS: usize = 40;

/// What is at `path` for a process with this root directory, and its type, if there is anything.
fn look(root: BorrowedFd<'_>, path: &Path, follow: bool) -> Result<Option<(OwnedFd, FileType)>> {
    let inside = path.strip_prefix("/").unwrap_or(path);
    let inside = if inside == Path::new("") { Path::new(".") } else { inside };
    let flags = OFlags::PATH | OFlags::CLOEXEC | if follow { OFlags::empty() } else { OFlags::NOFOLLOW };
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    loop {
        return match openat2(root, inside, flags, Mode::empty(), resolve) {
            Ok(fd) => {
                let stat = fstat(&fd).context(|| path.display().to_string())?;
                Ok(Some((fd, FileType::from_raw_mode(stat.st_mode))))
            }
            // Something was renamed on the way.
            Err(Errno::AGAIN) => continue,
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(Error::from(e).context(path.display())),
        };
    }
}

/// Goes where symbolic links at the end of a path lead. At the last one's end there may be nothing.
fn behind_links(root: BorrowedFd<'_>, path: &Path) -> Result<(PathBuf, Option<FileType>)> {
    let mut path = path.to_owned();
    for _ in 0..LINKS {
        match look(root, &path, false)? {
            Some((link, FileType::Symlink)) => {
                // Of the link itself: by its path, what is absolute on the way would be the host's.
                let target = readlinkat(&link, "", Vec::new()).context(|| path.display().to_string())?;
                let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
                path = path.parent().unwrap_or_else(|| Path::new("/")).join(target);
            }
            found => return Ok((path, found.map(|(_, kind)| kind))),
        }
    }
    Err(Error::from(Errno::LOOP).context(path.display()))
}

/// Finds out what is to be copied; `follow` goes where a symbolic link at the end leads.
fn source(root: BorrowedFd<'_>, given: &Path, follow: bool) -> Result<Source> {
    let bytes = given.as_os_str().as_bytes();
    let contents = bytes.ends_with(b"/.");
    let as_dir = contents || bytes.ends_with(b"/");
    let path: PathBuf = given.components().collect();
    let (mut path, kind) = if follow && !as_dir {
        behind_links(root, &path)?
    } else {
        let found = look(root, &path, as_dir)?;
        (path, found.map(|(_, kind)| kind))
    };
    let kind = kind.ok_or_else(|| missing(given))?;
    let is_dir = kind == FileType::Directory;
    if as_dir && !is_dir {
        return Err(Error::invalid(format!("{}: not a directory", given.display())));
    }
    if as_dir {
        // A link to a directory is gone through, as everywhere.
        path.push("");
    }
    Ok(Source { path, is_dir, contents })
}

/// Copies, and says how many bytes the tar between the two had.
fn copy(
    from_root: BorrowedFd<'_>,
    from: &Source,
    to_root: BorrowedFd<'_>,
    to: &Path,
    options: &ExtractOptions,
) -> Result<u64> {
    let bytes = to.as_os_str().as_bytes();
    let wants_dir = bytes.ends_with(b"/") || bytes.ends_with(b"/.");
    // A link stays, and what it leads to is written, although there may be nothing yet.
    let (plain, there) = behind_links(to_root, &to.components().collect::<PathBuf>())?;
    let (dir, name) = match there {
        Some(FileType::Directory) if from.contents => (plain.clone(), PathBuf::new()),
        Some(FileType::Directory) => (plain.clone(), PathBuf::from(from.name())),
        Some(_) if from.is_dir => return Err(Error::invalid("cannot copy directory")),
        Some(_) if wants_dir => return Err(Error::invalid(format!("{}: not a directory", to.display()))),
        None if wants_dir && !from.is_dir => {
            return Err(Error::not_found(format!("{}: no such directory", to.display())));
        }
        _ => {
            let name = plain.file_name().ok_or_else(|| missing(to))?;
            (plain.parent().unwrap_or_else(|| Path::new("/")).to_owned(), PathBuf::from(name))
        }
    };
    if look(to_root, &dir, true)?.is_none() {
        return Err(missing(&dir));
    }
    let (reader, writer) = io::pipe().context(|| "pipe")?;
    let mut counted = Counted { reader, bytes: 0 };
    std::thread::scope(|scope| {
        let packer =
            scope.spawn(|| archive::pack_tree(from_root, &from.path, &name, io::BufWriter::new(writer)));
        let extracted = archive::extract(&mut counted, to_root, &dir, options);
        // It shall not write to somebody who does not read any more.
        let bytes = counted.bytes;
        drop(counted);
        match packer.join().unwrap_or_else(|_| Err(Error::system("a thread that packs has panicked"))) {
            Err(e) if e.errno() != Some(Errno::PIPE) => Err(e),
            _ => extracted.map(|()| bytes),
        }
    })
}

/// Counts what is read.
struct Counted<R> {
    reader: R,
    bytes: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.reader.read(buffer)?;
        self.bytes += n as u64;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_told_by_its_colon_unless_it_is_plainly_a_path() {
        for (text, end) in [
            ("web:/etc", End::Container("web".into(), "/etc".into())),
            ("web:etc", End::Container("web".into(), "/etc".into())),
            ("web:", End::Container("web".into(), "/".into())),
            ("./a:b", End::Here("./a:b".into())),
            ("/a:b", End::Here("/a:b".into())),
            ("-", End::Stream),
            ("a", End::Here("a".into())),
        ] {
            assert_eq!(End::parse(text), end, "{text}");
        }
    }
}
