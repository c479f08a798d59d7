//! Compression, told by its magic.

#![forbid(unsafe_code)]

use crate::error::{Error, Result};
use std::fmt;
use std::io::{self, BufRead, BufReader, Read};

/// A decoder's window may take so much memory. `zstd --ultra -22` and `xz -9` take 128 MiB and 64 MiB; the formats allow
/// 3.75 TiB and 4 GiB, and the archive chooses.
const WINDOW_LOG: u32 = 27;

/// Bytes read at once.
const CHUNK: usize = 128 << 10;

/// How a stream was compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not, or not in a way that is known here.
    None,
    /// RFC 1952; several members are one stream.
    Gzip,
    /// bzip2; several streams are one.
    Bzip2,
    /// The .xz format 1.2; several streams, with padding, are one.
    Xz,
    /// RFC 8878; several frames are one stream, skippable ones are skipped.
    Zstd,
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "uncompressed",
            Self::Gzip => "gzip",
            Self::Bzip2 => "bzip2",
            Self::Xz => "xz",
            Self::Zstd => "zstd",
        })
    }
}

impl Compression {
    fn of(magic: &[u8]) -> Self {
        match magic {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Self::Bzip2,
            [0xfd, b'7', b'z', b'X', b'Z', 0] => Self::Xz,
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            _ => Self::None,
        }
    }
}

/// Undoes the compression of `reader`, if it has one. A read of the stream that comes back fails with an error that
/// names the compression if the stream is broken, and with the error of `reader` if that fails.
///
/// # Errors
/// Those of reading the first bytes.
pub fn decompress<'a>(mut reader: impl Read + Send + 'a) -> Result<(Compression, Box<dyn Read + Send + 'a>)> {
    let mut magic = [0; 6];
    let mut length = 0;
    while length < magic.len() {
        match reader.read(&mut magic[length..]) {
            Ok(0) => break,
            Ok(n) => length += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e.into()),
        }
    }
    let magic = magic[..length].to_vec();
    let compression = Compression::of(&magic);
    let whole = BufReader::with_capacity(CHUNK, io::Cursor::new(magic).chain(reader));
    let stream = match compression {
        Compression::None => return Ok((compression, Box::new(whole))),
        Compression::Gzip => Stream::boxed(compression, flate2::bufread::MultiGzDecoder::new(whole)),
        Compression::Bzip2 => Stream::boxed(compression, bzip2::bufread::MultiBzDecoder::new(whole)),
        Compression::Xz => {
            let limit = (1 << (WINDOW_LOG - 10)) + 1024;
            Stream::boxed(compression, lzma_rust2::XzReader::new_mem_limit(whole, true, limit))
        }
        Compression::Zstd => Stream::boxed(compression, zstd(whole)?),
    };
    Ok((compression, stream))
}

fn zstd<'a, R: BufRead>(whole: R) -> Result<zstd::Decoder<'a, R>> {
    let mut decoder = zstd::Decoder::with_buffer(whole).map_err(|e| Error::system(format!("zstd: {e}")))?;
    decoder.window_log_max(WINDOW_LOG).map_err(|e| Error::system(format!("zstd: {e}")))?;
    Ok(decoder)
}

/// Says in an error which compression is broken.
struct Stream<R> {
    compression: Compression,
    decoder: R,
    /// A decoder that has failed is not asked again: what it then does is nowhere said.
    failed: bool,
}

impl<R: Read> Stream<R> {
    fn boxed<'a>(compression: Compression, decoder: R) -> Box<dyn Read + Send + 'a>
    where
        R: Send + 'a,
    {
        Box::new(Self { compression, decoder, failed: false })
    }
}

impl<R: Read> Read for Stream<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        if self.failed {
            return Err(io::Error::other(format!("{}: the stream is broken", self.compression)));
        }
        self.decoder.read(to).map_err(|e| {
            // What the kernel said is about the source, not about the compression.
            if e.kind() == io::ErrorKind::Interrupted || e.raw_os_error().is_some() {
                return e;
            }
            self.failed = true;
            let text = match e.kind() {
                io::ErrorKind::UnexpectedEof => "the stream ends too early".to_owned(),
                io::ErrorKind::OutOfMemory => {
                    format!("the dictionary is larger than {} MiB", 1 << (WINDOW_LOG - 20))
                }
                _ => e.to_string(),
            };
            io::Error::new(e.kind(), format!("{}: {text}", self.compression))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::testing::filter;
    use std::io::Write as _;

    /// A reader of one byte at a time, as a slow network may be.
    struct Drops<'a>(&'a [u8]);

    impl Read for Drops<'_> {
        fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
            let n = self.0.len().min(to.len()).min(1);
            to[..n].copy_from_slice(&self.0[..n]);
            self.0 = &self.0[n..];
            Ok(n)
        }
    }

    fn text() -> Vec<u8> {
        (0..100_000_u32).flat_map(|n| (n.wrapping_mul(n) / 7).to_le_bytes()).collect()
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(bytes).expect("a vector takes everything");
        gzip.finish().expect("a vector takes everything")
    }

    fn all(reader: impl Read + Send) -> Result<(Compression, Vec<u8>)> {
        let (compression, mut stream) = decompress(reader)?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes)?;
        Ok((compression, bytes))
    }

    #[test]
    fn every_compression_is_told_by_its_magic_and_several_streams_are_one() {
        let whole = text();
        let (one, two) = whole.split_at(150_001);
        let bzip2 = |bytes| filter("bzip2", &["-c"], bytes);
        let xz = |bytes| filter("xz", &["-c", "-0"], bytes);
        let zstd = |bytes| filter("zstd", &["-c", "-q"], bytes);
        let skipped = [&[0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"abc"].concat();
        for (compression, stream) in [
            (Compression::None, whole.clone()),
            (Compression::Gzip, gzip(&whole)),
            (Compression::Gzip, [gzip(one), gzip(two), gzip(b"")].concat()),
            (Compression::Bzip2, [bzip2(one), bzip2(two)].concat()),
            (Compression::Xz, xz(&whole)),
            (Compression::Xz, [xz(one), vec![0; 8], xz(two), vec![0; 4]].concat()),
            (Compression::Zstd, [zstd(one), skipped.clone(), zstd(two)].concat()),
            (Compression::Zstd, [skipped, zstd(&whole)].concat()),
        ] {
            assert!(all(&stream[..]).expect("whole") == (compression, whole.clone()), "{compression}");
            assert!(all(Drops(&stream)).expect("whole") == (compression, whole.clone()), "{compression}");
        }
        assert_eq!(all(&b""[..]).expect("empty"), (Compression::None, Vec::new()));
        assert_eq!(all(&b"\x1f"[..]).expect("short"), (Compression::None, b"\x1f".to_vec()));
    }

    #[test]
    fn a_broken_stream_is_an_error_that_names_the_compression() {
        let whole = text();
        for (name, stream) in [
            ("gzip", gzip(&whole)),
            ("bzip2", filter("bzip2", &["-c"], &whole)),
            ("xz", filter("xz", &["-c", "-0"], &whole)),
            ("zstd", filter("zstd", &["-c", "-q", "--check"], &whole)),
        ] {
            for length in [stream.len() - 1, stream.len() - 5, stream.len() / 2, 10] {
                let e = all(&stream[..length]).expect_err("cut off").to_string();
                assert!(e.starts_with(&format!("{name}: ")), "{e}");
            }
            let mut flipped = stream.clone();
            flipped[stream.len() / 2] ^= 0x10;
            let e = all(&flipped[..]).expect_err("flipped").to_string();
            assert!(e.starts_with(&format!("{name}: ")), "{e}");
            if name != "zstd" {
                let e = all(&[&stream[..], b"garbage"].concat()[..]).expect_err("garbage").to_string();
                assert!(e.starts_with(&format!("{name}: ")), "{e}");
            }
        }
    }

    #[test]
    fn a_window_of_gigabytes_is_refused() {
        let huge = filter("xz", &["-c", "--format=xz", "--lzma2=preset=0,dict=1GiB"], b"small");
        let e = all(&huge[..]).expect_err("1 GiB").to_string();
        assert_eq!(e, "xz: the dictionary is larger than 128 MiB");
        let fits = filter("xz", &["-c", "-9"], b"small");
        assert_eq!(all(&fits[..]).expect("64 MiB").1, b"small");
        // A frame's header that asks for a window of 2 GiB: no single segment, exponent 21, and an empty last block.
        let e = all(&[0x28, 0xb5, 0x2f, 0xfd, 0, 21 << 3, 1, 0, 0][..]).expect_err("2 GiB").to_string();
        assert!(e.starts_with("zstd: ") && e.contains("memory"), "{e}");
    }

    #[test]
    fn an_error_of_the_source_stays_what_it_is() {
        struct Failing;
        impl Read for Failing {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::from_raw_os_error(104))
            }
        }
        let stream = gzip(&text());
        let e = all(stream[..1000].chain(Failing)).expect_err("reset");
        assert_eq!(e.to_string(), "connection reset by peer");
    }

    #[test]
    fn no_flipped_byte_of_a_stream_panics_or_hangs() {
        for (program, arguments) in [("gzip", "-c1"), ("bzip2", "-c1"), ("xz", "-c0"), ("zstd", "-cq")] {
            let stream = filter(program, &[arguments], &[b"some bytes, ".repeat(9), vec![7; 300]].concat());
            for at in 0..stream.len() {
                for bits in [0x01, 0x80, 0xff] {
                    let mut flipped = stream.clone();
                    flipped[at] ^= bits;
                    let _ = all(&flipped[..]);
                }
                let _ = all(&stream[..at]);
            }
        }
    }
}
