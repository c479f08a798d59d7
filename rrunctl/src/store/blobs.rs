//! Contents by their digest.

#![forbid(unsafe_code)]

use crate::digest::{Digest, Hashing};
use crate::error::{Context as _, Error, Result};
use crate::home::{self, Home, Scratch};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, linkat, open};
use rustix::io::Errno;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read as _, Write};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

/// `blobs/sha256`.
#[derive(Debug, Clone)]
pub struct Blobs {
    home: Home,
}

/// A blob that is being written; nobody sees it before [`BlobWriter::commit`], and dropping it leaves nothing.
#[derive(Debug)]
pub struct BlobWriter {
    file: Hashing<BufWriter<File>>,
    /// Where the file is meanwhile, if the file system has no files without names.
    named: Option<Scratch>,
    blobs: Blobs,
}

impl Blobs {
    pub(super) fn new(home: Home) -> Self {
        Self { home }
    }

    pub(super) fn path(&self, digest: &Digest) -> PathBuf {
        self.dir().join(digest.hex())
    }

    pub(super) fn dir(&self) -> PathBuf {
        self.home.kept("blobs/sha256")
    }

    /// The content, if it is here.
    ///
    /// # Errors
    /// Those of open(2).
    pub fn open(&self, digest: &Digest) -> Result<Option<File>> {
        let path = self.path(digest);
        match File::open(&path) {
            Ok(file) => Ok(Some(file)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::from(e).context(format!("open {}", path.display()))),
        }
    }

    /// The length in bytes, if it is here.
    ///
    /// # Errors
    /// Those of stat(2).
    pub fn size(&self, digest: &Digest) -> Result<Option<u64>> {
        let Some(file) = self.open(digest)? else { return Ok(None) };
        Ok(Some(file.metadata().context(|| format!("stat {}", self.path(digest).display()))?.len()))
    }

    /// A document, verified.
    ///
    /// # Errors
    /// It is not here, is longer than `limit` bytes, or is not what it is called.
    pub fn read(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>> {
        let file =
            self.open(digest)?.ok_or_else(|| Error::not_found(format!("blob {digest} is not here")))?;
        let mut bytes = Vec::new();
        file.take(limit.saturating_add(1))
            .read_to_end(&mut bytes)
            .context(|| format!("read blob {digest}"))?;
        if bytes.len() as u64 > limit {
            return Err(Error::invalid(format!("blob {digest}: a document of more than {limit} bytes")));
        }
        if Digest::of(&bytes) != *digest {
            return Err(Error::system(format!("blob {digest}: its content has changed on the disk")));
        }
        Ok(bytes)
    }

    /// Whether the content is here and is what it is called; all of it is read.
    ///
    /// # Errors
    /// Those of open(2) and read(2).
    pub fn is_whole(&self, digest: &Digest) -> Result<bool> {
        let Some(file) = self.open(digest)? else { return Ok(false) };
        let mut content = Hashing::new(file);
        io::copy(&mut content, &mut io::sink()).context(|| format!("read blob {digest}"))?;
        Ok(content.finish().0 == *digest)
    }

    /// Keeps a document.
    ///
    /// # Errors
    /// Those of open(2), write(2) and linkat(2).
    pub fn put(&self, bytes: &[u8]) -> Result<Digest> {
        let mut writer = self.writer()?;
        writer.write_all(bytes).context(|| "write blob".to_owned())?;
        Ok(writer.commit(None)?.0)
    }

    /// Keeps what is written.
    ///
    /// # Errors
    /// Those of open(2).
    pub fn writer(&self) -> Result<BlobWriter> {
        let (mode, flags) = (Mode::RUSR | Mode::WUSR, OFlags::WRONLY | OFlags::CLOEXEC);
        let dir = self.dir();
        let (file, named) = match open(&dir, flags | OFlags::TMPFILE, mode) {
            Ok(file) => (file, None),
            // EISDIR is a kernel's or a FUSE server's that does not know the flag (open(2)).
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT) => {
                let scratch = self.home.scratch("blob")?;
                let path = scratch.path().join("blob");
                let file = open(&path, flags | OFlags::CREATE | OFlags::EXCL, mode)
                    .context(|| format!("open {}", path.display()))?;
                (file, Some(scratch))
            }
            Err(e) => return Err(Error::from(e).context(format!("open {} with O_TMPFILE", dir.display()))),
        };
        let file = Hashing::new(BufWriter::with_capacity(128 << 10, File::from(file)));
        Ok(BlobWriter { file, named, blobs: self.clone() })
    }
}

impl BlobWriter {
    /// How many bytes have been written.
    pub fn length(&self) -> u64 {
        self.file.length()
    }

    /// Makes the blob visible; that it is there already is no error, and one that has changed on the disk is replaced. It
    /// is on the disk for certain only once an image has it ([`crate::store::Store::open`]).
    ///
    /// # Errors
    /// It is not `expected`; those of write(2), linkat(2) and rename(2).
    pub fn commit(self, expected: Option<&Digest>) -> Result<(Digest, u64)> {
        let Self { file, named, blobs } = self;
        let (digest, length, file) = file.finish();
        if let Some(expected) = expected.filter(|expected| **expected != digest) {
            return Err(Error::invalid(format!("the content is {digest}, not {expected} as it is called")));
        }
        let path = blobs.path(&digest);
        let file = file.into_inner().map_err(io::IntoInnerError::into_error);
        let file = file.context(|| format!("write blob {digest}"))?;
        let (from, flags) = match &named {
            Some(scratch) => (scratch.path().join("blob"), AtFlags::empty()),
            None => (PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd())), AtFlags::SYMLINK_FOLLOW),
        };
        let link = |path: &Path| linkat(CWD, &from, CWD, path, flags);
        match link(&path) {
            Ok(()) => {}
            // One that is whole is left alone: it is on the disk, and this one is not yet.
            Err(Errno::EXIST) if blobs.is_whole(&digest).unwrap_or(false) => {}
            Err(Errno::EXIST) => {
                let new = blobs.dir().join(format!(".{}", home::unique()?));
                link(&new).context(|| format!("linkat {}", new.display()))?;
                fs::rename(&new, &path).map_err(|e| {
                    let _ = fs::remove_file(&new);
                    Error::from(e).context(format!("rename {}", path.display()))
                })?;
            }
            Err(e) => return Err(Error::from(e).context(format!("linkat {}", path.display()))),
        }
        Ok((digest, length))
    }
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use crate::digest::Digest;
    use crate::store::tests::Place;
    use std::fs;
    use std::io::Write as _;

    #[test]
    fn a_blob_appears_once_it_is_what_it_is_called() {
        let place = Place::new("blobs");
        let blobs = place.store.blobs();
        let digest = Digest::of(b"content");
        let count = || fs::read_dir(blobs.dir()).expect("readdir").count();

        let mut writer = blobs.writer().expect("writer");
        writer.write_all(b"content").expect("write");
        drop(writer);
        assert_eq!((count(), blobs.size(&digest).expect("stat")), (0, None));

        let mut writer = blobs.writer().expect("writer");
        writer.write_all(b"contend").expect("write");
        let e = writer.commit(Some(&digest)).expect_err("another digest").to_string();
        assert!(e.contains(&digest.to_string()) && count() == 0, "{e}");

        for _ in 0..2 {
            let mut writer = blobs.writer().expect("writer");
            writer.write_all(b"content").expect("write");
            assert_eq!(writer.commit(Some(&digest)).expect("the same"), (digest, 7));
        }
        assert_eq!(count(), 1);
        assert_eq!(blobs.read(&digest, 7).expect("read"), b"content");
        assert!(blobs.read(&digest, 6).is_err());
        assert!(blobs.read(&Digest::of(b"else"), 6).is_err());
    }

    #[test]
    fn a_document_that_changed_on_the_disk_is_not_read_and_is_repaired_by_keeping_it_again() {
        let place = Place::new("rot");
        let digest = place.store.blobs().put(b"{}").expect("put");
        fs::write(place.store.blobs().path(&digest), b"[]").expect("write");
        let e = place.store.blobs().read(&digest, 100).expect_err("changed").to_string();
        assert!(e.contains("has changed on the disk"), "{e}");
        place.store.blobs().put(b"{}").expect("put");
        assert_eq!(place.store.blobs().read(&digest, 100).expect("repaired"), b"{}");
    }
}
