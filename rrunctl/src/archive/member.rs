//! The members of a tar archive: ustar, PAX, GNU and the formats before them, one header after the other.

#![forbid(unsafe_code)]

use super::pax::{self, Records};
use crate::error::{Context as _, Error, Result};
use rustix::fs::{Dev, Timespec, makedev};
use std::ffi::OsStr;
use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use tar::{EntryType, GnuExtSparseHeader, GnuSparseHeader, Header};

const BLOCK: u64 = 512;

/// An extended header or a long name may have so many bytes: it goes into memory. As much as Go's reader takes.
const EXTENSION: u64 = 1 << 20;

/// A sparse file may have so many extents: they go into memory, at 16 bytes each.
const EXTENTS: usize = 1 << 20;

/// A name may have so many directories. Whoever walks the tree may need an fd for each, and 1024 is the usual limit.
const DEPTH: usize = 512;

/// A name may have so many bytes, as a path may (PATH_MAX, with its end): names are kept until the archive ends.
const NAME: usize = 4096;

/// What is read ahead: the tar layer asks for 512 bytes at a time, a decoder is faster with more.
const CHUNK: usize = 256 << 10;

/// What a member becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Type {
    File,
    HardLink,
    Symlink,
    Character,
    Block,
    Directory,
    Fifo,
}

/// A part of a sparse file that is not zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Extent {
    offset: u64,
    length: u64,
}

/// One member, without its data.
#[derive(Debug)]
pub(crate) struct Member {
    /// As it is written.
    pub(crate) name: Vec<u8>,
    /// Where a link leads, as it is written.
    pub(crate) link: Vec<u8>,
    pub(crate) typ: Type,
    pub(super) attributes: Attributes,
    pub(super) device: Dev,
    /// Of a file, with its holes.
    pub(super) size: u64,
    extents: Option<Vec<Extent>>,
}

/// What files of every type have.
#[derive(Debug, Clone)]
pub(crate) struct Attributes {
    /// The permissions, and set-user-id, set-group-id and sticky.
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: Timespec,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Member {
    /// The name, relative to the root.
    pub(super) fn path(&self) -> Result<PathBuf> {
        relative(&self.name).context(|| self.quoted())
    }

    /// The name of what a hard link is to, relative to the root.
    pub(super) fn target(&self) -> Result<PathBuf> {
        relative(&self.link).context(|| format!("{}: link", self.quoted()))
    }

    /// The name, for an error.
    pub(super) fn quoted(&self) -> String {
        quoted(&self.name)
    }
}

/// A name for an error; of one that is longer than any file's, the beginning.
fn quoted(name: &[u8]) -> String {
    let shown = String::from_utf8_lossy(&name[..name.len().min(NAME)]);
    if name.len() > NAME { format!("{shown:?}...") } else { format!("{shown:?}") }
}

/// A name of an archive as a path without `.`, `..` and a slash in front; `.` for the root.
fn relative(name: &[u8]) -> Result<PathBuf> {
    if name.is_empty() {
        return Err(Error::system("a name is empty"));
    }
    if name.len() >= NAME {
        return Err(Error::system(format!(
            "a name of {} bytes is refused, {} are the most",
            name.len(),
            NAME - 1
        )));
    }
    let mut path = PathBuf::new();
    let mut depth = 0;
    for part in name.split(|&c| c == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err(Error::system("a name with \"..\" is refused")),
            _ => {
                path.push(OsStr::from_bytes(part));
                depth += 1;
            }
        }
    }
    if depth > DEPTH {
        return Err(Error::system(format!("a name of {depth} directories is refused, {DEPTH} are the most")));
    }
    Ok(if depth == 0 { Path::new(".").to_owned() } else { path })
}

/// Reads an archive, member by member.
pub(crate) struct Members<R> {
    stream: BufReader<R>,
    /// Bytes of the current member's data that have not been read.
    unread: u64,
    /// Bytes from there to the next header.
    padding: u64,
}

impl<R: Read> Members<R> {
    pub(crate) fn new(reader: R) -> Self {
        Self { stream: BufReader::with_capacity(CHUNK, reader), unread: 0, padding: 0 }
    }

    /// The next member; what was not read of the last one's data is skipped. At the end of the archive the rest of the
    /// stream is read, so that whoever counts or checks what goes through has seen it all.
    ///
    /// # Errors
    /// A broken archive, or one that ends within a member.
    pub(crate) fn next(&mut self) -> Result<Option<Member>> {
        self.skip()?;
        let (mut records, mut long_name, mut long_link) = (None, None, None);
        loop {
            let extended = records.is_some() || long_name.is_some() || long_link.is_some();
            let Some(header) = self.header()? else {
                if extended {
                    return Err(Error::system("tar: the archive ends behind an extended header"));
                }
                io::copy(&mut self.stream, &mut io::sink())?;
                return Ok(None);
            };
            let twice = match header.entry_type() {
                EntryType::XHeader => records.replace(Records::parse(&self.extension(&header)?)?).is_some(),
                EntryType::GNULongName => long_name.replace(text(self.extension(&header)?)?).is_some(),
                EntryType::GNULongLink => long_link.replace(text(self.extension(&header)?)?).is_some(),
                EntryType::XGlobalHeader => {
                    let records = Records::parse(&self.extension(&header)?)?;
                    // Go's reader, and so Docker, leaves a global header alone, GNU tar does not. Where the two would
                    // see different files, nobody shall.
                    if ["path", "linkpath", "size", "GNU.sparse.", "SCHILY."]
                        .iter()
                        .any(|key| records.any(key))
                    {
                        return Err(Error::system("tar: a global PAX header that names files is refused"));
                    }
                    false
                }
                _ => {
                    return self
                        .member(&header, &records.unwrap_or_default(), long_name, long_link)
                        .map(Some);
                }
            };
            if twice {
                return Err(Error::system("tar: two extended headers of the same kind for one member"));
            }
        }
    }

    /// How many bytes the archive has of the member that [`Self::next`] gave last.
    pub(super) fn stored(&self) -> u64 {
        self.unread
    }

    /// The data of the member that [`Self::next`] gave last, to a new file; holes stay holes.
    ///
    /// # Errors
    /// Those of reading the archive and of write(2).
    pub(super) fn write_to(&mut self, member: &Member, file: BorrowedFd<'_>) -> Result<()> {
        let Some(extents) = &member.extents else {
            return self.write_some(member, member.size, file, 0);
        };
        for extent in extents {
            self.write_some(member, extent.length, file, extent.offset)?;
        }
        rustix::fs::ftruncate(file, member.size).context(|| format!("{}: ftruncate", member.quoted()))
    }

    /// The data of the member that [`Self::next`] gave last, as it is stored.
    ///
    /// # Errors
    /// A sparse file, whose holes would be as many zeros as its header says; those of reading the archive and of `to`.
    pub(crate) fn copy_to(&mut self, member: &Member, to: &mut impl Write) -> Result<()> {
        if member.extents.is_some() {
            return Err(Error::system(format!("{}: a sparse file is refused here", member.quoted())));
        }
        while self.unread > 0 {
            let bytes = fill(&mut self.stream).context(|| member.quoted())?;
            if bytes.is_empty() {
                return Err(Error::system(format!("tar: the archive ends within {}", member.quoted())));
            }
            let n = bytes.len().min(usize::try_from(self.unread).unwrap_or(usize::MAX));
            to.write_all(&bytes[..n])?;
            self.stream.consume(n);
            self.unread -= n as u64;
        }
        Ok(())
    }

    fn write_some(
        &mut self,
        member: &Member,
        mut length: u64,
        file: BorrowedFd<'_>,
        mut at: u64,
    ) -> Result<()> {
        while length > 0 {
            let bytes = fill(&mut self.stream).context(|| member.quoted())?;
            if bytes.is_empty() {
                return Err(Error::system(format!("tar: the archive ends within {}", member.quoted())));
            }
            let some = &bytes[..bytes.len().min(usize::try_from(length).unwrap_or(usize::MAX))];
            let n = match rustix::io::pwrite(file, some, at) {
                Err(rustix::io::Errno::INTR) => continue,
                written => written.context(|| format!("{}: write", member.quoted()))?,
            };
            self.stream.consume(n);
            let n = n as u64;
            (length, at) = (length - n, at + n);
            self.unread = self.unread.saturating_sub(n);
        }
        Ok(())
    }

    fn skip(&mut self) -> Result<()> {
        let mut left =
            self.unread.checked_add(self.padding).ok_or_else(|| Error::system("tar: a size overflows"))?;
        while left > 0 {
            let n = fill(&mut self.stream)?.len() as u64;
            if n == 0 {
                // umoci leaves out what would only fill a last block, and Go's reader takes that.
                if left <= self.padding {
                    break;
                }
                return Err(Error::system("tar: the archive ends within a member"));
            }
            let n = n.min(left);
            self.stream.consume(n as usize);
            left -= n;
        }
        (self.unread, self.padding) = (0, 0);
        Ok(())
    }

    /// The next block, or nothing where the stream ends before it.
    fn block(&mut self) -> Result<Option<[u8; BLOCK as usize]>> {
        let mut block = [0; BLOCK as usize];
        let mut length = 0;
        while length < block.len() {
            let bytes = fill(&mut self.stream)?;
            let n = bytes.len().min(block.len() - length);
            match n {
                0 if length == 0 => return Ok(None),
                0 => return Err(Error::system("tar: the archive ends within a header")),
                _ => block[length..length + n].copy_from_slice(&bytes[..n]),
            }
            self.stream.consume(n);
            length += n;
        }
        Ok(Some(block))
    }

    /// The next header whose checksum is right, or nothing at the end, which a block of zeros marks, or nothing does.
    fn header(&mut self) -> Result<Option<Header>> {
        let Some(block) = self.block()? else { return Ok(None) };
        if block == [0; BLOCK as usize] {
            return Ok(None);
        }
        let header = Header::from_byte_slice(&block).clone();
        let sum = |add: fn(u8) -> i64| -> i64 {
            block.iter().enumerate().map(|(n, &c)| add(if (148..156).contains(&n) { b' ' } else { c })).sum()
        };
        let told = number(&header.as_old().cksum, "checksum")?;
        // Old implementations added signed bytes.
        if told != sum(i64::from) && told != sum(|c| i64::from(c.cast_signed())) {
            return Err(Error::system("tar: a header's checksum is wrong (is it a tar archive?)"));
        }
        Ok(Some(header))
    }

    fn take(&mut self, size: u64) -> Result<()> {
        let padded =
            size.checked_next_multiple_of(BLOCK).ok_or_else(|| Error::system("tar: a size overflows"))?;
        (self.unread, self.padding) = (size, padded - size);
        Ok(())
    }

    /// The data of an extended header. Its size is its own header's: one that a PAX header before it gave is for the
    /// file, not for this (CVE-2025-62518).
    fn extension(&mut self, header: &Header) -> Result<Vec<u8>> {
        let size = unsigned(&header.as_old().size, "size")?;
        if size > EXTENSION {
            return Err(Error::system(format!("tar: an extended header of {size} bytes is refused")));
        }
        self.take(size)?;
        let mut bytes = Vec::new();
        (&mut self.stream).take(size).read_to_end(&mut bytes)?;
        self.unread = 0;
        if (bytes.len() as u64) < size {
            return Err(Error::system("tar: the archive ends within an extended header"));
        }
        self.skip()?;
        Ok(bytes)
    }

    fn member(
        &mut self,
        header: &Header,
        records: &Records,
        long_name: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
    ) -> Result<Member> {
        let old = header.as_old();
        let name = which(header.path_bytes().to_vec(), long_name, records.get("path"))?;
        let link = header.link_name_bytes().map(|link| link.to_vec()).unwrap_or_default();
        let link = which(link, long_link, records.get("linkpath"))?;
        let told = format!("tar: {}", quoted(&name));
        let id = |key: &str, field: &[u8]| {
            let id = match records.number(key)? {
                Some(id) => id,
                None => unsigned(field, key)?,
            };
            // chown(2) takes the last one for "as it is".
            u32::try_from(id)
                .ok()
                .filter(|&id| id != u32::MAX)
                .ok_or_else(|| Error::system(format!("{key} {id} is not valid")))
        };
        let mut member = Member {
            attributes: Attributes {
                mode: number(&old.mode, "mode").context(|| &told)? as u32 & 0o7777,
                uid: id("uid", &old.uid).context(|| &told)?,
                gid: id("gid", &old.gid).context(|| &told)?,
                mtime: match records.time("mtime").context(|| &told)? {
                    Some((tv_sec, nanoseconds)) => Timespec { tv_sec, tv_nsec: nanoseconds.into() },
                    None => Timespec { tv_sec: number(&old.mtime, "mtime").context(|| &told)?, tv_nsec: 0 },
                },
                xattrs: records.xattrs().map(|(key, value)| (key.to_vec(), value.to_vec())).collect(),
            },
            typ: match header.entry_type() {
                EntryType::Regular if old.linkflag == [0] && name.ends_with(b"/") => Type::Directory,
                EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => Type::File,
                EntryType::Link => Type::HardLink,
                EntryType::Symlink => Type::Symlink,
                EntryType::Char => Type::Character,
                EntryType::Block => Type::Block,
                EntryType::Directory => Type::Directory,
                EntryType::Fifo => Type::Fifo,
                other => {
                    let flag = char::from(other.as_byte());
                    return Err(Error::system(format!("{told}: type {flag:?} is not supported")));
                }
            },
            name,
            link,
            device: 0,
            size: 0,
            extents: None,
        };
        if matches!(member.typ, Type::Character | Type::Block)
            && let Some(ustar) = device_fields(header)
        {
            let [major, minor] = ustar.map(|field| unsigned(field, "device").map(u32::try_from));
            let (Ok(major), Ok(minor)) = (major.context(|| &told)?, minor.context(|| &told)?) else {
                return Err(Error::system(format!("{told}: the device is not valid")));
            };
            member.device = makedev(major, minor);
        }
        if member.typ == Type::File {
            // A PAX size wins over the header's, whatever that says.
            let stored = match records.number("size").context(|| &told)? {
                Some(size) => size,
                None => unsigned(&old.size, "size").context(|| &told)?,
            };
            member.size = stored;
            self.take(stored).context(|| &told)?;
            self.sparse(header, records, &mut member).context(|| &told)?;
        }
        // What has no data has none whatever its size says: links in old archives have the size of the file, and Go's
        // reader, which made most images, goes on right behind the header.
        if i64::try_from(member.size).is_err() {
            return Err(Error::system(format!("{told}: a size of {} is refused", member.size)));
        }
        Ok(member)
    }

    /// Reads where the parts of a sparse file are, in any of GNU's formats.
    fn sparse(&mut self, header: &Header, records: &Records, member: &mut Member) -> Result<()> {
        let malformed = || Error::system("malformed map of a sparse file");
        let mut map = Vec::new();
        if header.entry_type() == EntryType::GNUSparse {
            let gnu = header.as_gnu().ok_or_else(malformed)?;
            member.size = unsigned(&gnu.realsize, "size")?;
            old_extents(&gnu.sparse, &mut map)?;
            let mut more = gnu.is_extended();
            while more {
                let mut extension = GnuExtSparseHeader::new();
                extension.as_mut_bytes().copy_from_slice(&self.block()?.ok_or_else(malformed)?);
                old_extents(extension.sparse(), &mut map)?;
                more = extension.is_extended();
            }
        } else {
            let version = (records.number("GNU.sparse.major")?, records.number("GNU.sparse.minor")?);
            match version {
                (Some(1), Some(0)) => self.map_in_data(&mut map)?,
                (None | Some(0), None | Some(0 | 1)) => {
                    if let Some(text) = records.get("GNU.sparse.map") {
                        map = text
                            .split(|&c| c == b',')
                            .map(pax::decimal)
                            .collect::<Option<_>>()
                            .ok_or_else(malformed)?;
                    } else if !records.extents.is_empty() {
                        map.clone_from(&records.extents);
                    } else if records.any("GNU.sparse.")
                        && records.number("GNU.sparse.size")?.is_some_and(|n| n > 0)
                    {
                        return Err(malformed());
                    } else {
                        return Ok(());
                    }
                }
                _ => return Err(Error::system("this format of sparse files is not known")),
            }
            if let Some(name) = records.get("GNU.sparse.name") {
                member.name = which(name.to_vec(), None, None)?;
            }
            let size = records.number("GNU.sparse.realsize")?.or(records.number("GNU.sparse.size")?);
            member.size = size.ok_or_else(malformed)?;
        }
        if map.len() % 2 != 0 || map.len() / 2 > EXTENTS {
            return Err(malformed());
        }
        let (mut end, mut stored) = (0, 0_u64);
        let mut extents = Vec::with_capacity(map.len() / 2);
        for pair in map.chunks_exact(2) {
            let (offset, length) = (pair[0], pair[1]);
            if offset < end {
                return Err(malformed());
            }
            end = offset.checked_add(length).filter(|&end| end <= member.size).ok_or_else(malformed)?;
            stored += length;
            extents.push(Extent { offset, length });
        }
        // Otherwise the parts would end before or behind the next header.
        if stored != self.unread {
            return Err(malformed());
        }
        member.extents = Some(extents);
        Ok(())
    }

    /// The map of GNU's sparse format 1.0: a count, then an offset and a length for each extent, each in a line, in the
    /// first blocks of the data.
    fn map_in_data(&mut self, map: &mut Vec<u64>) -> Result<()> {
        let malformed = || Error::system("malformed map of a sparse file");
        let mut line = Vec::new();
        let mut wanted = None;
        while wanted.is_none_or(|wanted| map.len() < wanted) {
            if self.unread < BLOCK {
                return Err(malformed());
            }
            let block = self.block()?.ok_or_else(malformed)?;
            self.unread -= BLOCK;
            for &c in &block {
                if wanted.is_some_and(|wanted| map.len() == wanted) {
                    break;
                }
                if c != b'\n' {
                    line.push(c);
                    if line.len() > 20 {
                        return Err(malformed());
                    }
                    continue;
                }
                let number = pax::decimal(&line).ok_or_else(malformed)?;
                line.clear();
                match wanted {
                    Some(_) => map.push(number),
                    None if number > EXTENTS as u64 => return Err(malformed()),
                    None => wanted = Some(number as usize * 2),
                }
            }
        }
        Ok(())
    }
}

/// What is in the buffer, or has come now; nothing at the end.
fn fill<R: Read>(stream: &mut BufReader<R>) -> io::Result<&[u8]> {
    while let Err(e) = stream.fill_buf() {
        if e.kind() != io::ErrorKind::Interrupted {
            return Err(e);
        }
    }
    Ok(stream.buffer())
}

fn old_extents(from: &[GnuSparseHeader], map: &mut Vec<u64>) -> Result<()> {
    for extent in from.iter().take_while(|extent| extent.offset[0] != 0) {
        map.push(unsigned(&extent.offset, "offset")?);
        map.push(unsigned(&extent.numbytes, "length")?);
    }
    if map.len() > 2 * EXTENTS {
        return Err(Error::system("malformed map of a sparse file"));
    }
    Ok(())
}

fn device_fields(header: &Header) -> Option<[&[u8]; 2]> {
    let ustar = header.as_ustar().map(|ustar| [&ustar.dev_major[..], &ustar.dev_minor[..]]);
    ustar.or_else(|| header.as_gnu().map(|gnu| [&gnu.dev_major[..], &gnu.dev_minor[..]]))
}

/// A name out of the header, a GNU long name, or a PAX record. Of the latter two GNU tar takes the record and Go's reader
/// the long name, so both must say the same.
fn which(short: Vec<u8>, long: Option<Vec<u8>>, record: Option<&[u8]>) -> Result<Vec<u8>> {
    let name = match (long, record) {
        (Some(long), Some(record)) if long != record => {
            return Err(Error::system("tar: two long names for one member"));
        }
        (Some(long), _) => long,
        (None, Some(record)) => record.to_vec(),
        (None, None) => short,
    };
    if name.contains(&0) {
        return Err(Error::system(format!(
            "tar: {:?}: a name with a NUL is refused",
            String::from_utf8_lossy(&name)
        )));
    }
    Ok(name)
}

/// A GNU long name without the NULs at its end.
fn text(mut name: Vec<u8>) -> Result<Vec<u8>> {
    while name.last() == Some(&0) {
        name.pop();
    }
    which(name, None, None)
}

/// A field of a header: octal digits between spaces and NULs, or base 256, which may be negative. Nothing is 0.
fn number(field: &[u8], what: &str) -> Result<i64> {
    let invalid = || Error::system(format!("{what} {:?} is not valid", String::from_utf8_lossy(field)));
    if field[0] & 0x80 != 0 {
        let mut value = if field[0] & 0x40 != 0 { -1_i128 } else { 0 };
        for (n, &byte) in field.iter().enumerate() {
            let byte = if n == 0 { byte & 0x7f | (byte & 0x40) << 1 } else { byte };
            value = value << 8 | i128::from(byte);
        }
        return i64::try_from(value).map_err(|_| invalid());
    }
    let padding = |c: &u8| matches!(c, b' ' | 0);
    let start = field.iter().position(|c| !padding(c)).unwrap_or(field.len());
    let end = field[start..].iter().position(|&c| c == 0).map_or(field.len(), |n| start + n);
    let digits = field[start..end].trim_ascii_end();
    digits.iter().try_fold(0_i64, |value, &c| match c {
        b'0'..=b'7' => Ok(value << 3 | i64::from(c - b'0')),
        _ => Err(invalid()),
    })
}

fn unsigned(field: &[u8], what: &str) -> Result<u64> {
    let value = number(field, what)?;
    u64::try_from(value).map_err(|_| Error::system(format!("{what} {value} is not valid")))
}
