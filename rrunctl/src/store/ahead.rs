//! Reads ahead on a thread of its own, so that inflating a layer and writing its tree go on at once.

#![forbid(unsafe_code)]

use crate::error::{Context as _, Result};
use std::io::{self, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

/// How much is handed over at once, in bytes.
const CHUNK: usize = 256 << 10;
/// How many of them are read ahead.
const CHUNKS: usize = 8;

/// Gives `consume` what is read from `source`, which is read to its end unless `consume` returns before.
///
/// # Errors
/// Those of pthread_create(3), and those of `consume`.
pub(super) fn ahead<T>(
    mut source: impl Read + Send,
    consume: impl FnOnce(&mut dyn Read) -> Result<T>,
) -> Result<T> {
    thread::scope(|scope| {
        let (chunks, receiver) = sync_channel(CHUNKS);
        let (back, empties) = sync_channel(CHUNKS + 1);
        let fill = move || {
            // Ends when nobody takes what is read any more.
            while let Some(chunk) = read_chunk(&mut source, &empties).transpose() {
                let failed = chunk.is_err();
                if chunks.send(chunk).is_err() || failed {
                    return;
                }
            }
        };
        thread::Builder::new().spawn_scoped(scope, fill).context(|| "start a thread".to_owned())?;
        consume(&mut Ahead { chunks: receiver, back, chunk: Vec::new(), at: 0 })
    })
}

fn read_chunk(source: &mut impl Read, empties: &Receiver<Vec<u8>>) -> io::Result<Option<Vec<u8>>> {
    let mut chunk = empties.try_recv().unwrap_or_default();
    chunk.clear();
    source.by_ref().take(CHUNK as u64).read_to_end(&mut chunk)?;
    Ok(Some(chunk).filter(|chunk| !chunk.is_empty()))
}

struct Ahead {
    chunks: Receiver<io::Result<Vec<u8>>>,
    back: SyncSender<Vec<u8>>,
    chunk: Vec<u8>,
    at: usize,
}

impl Read for Ahead {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        if self.at == self.chunk.len() {
            let Ok(next) = self.chunks.recv() else { return Ok(0) };
            let empty = std::mem::replace(&mut self.chunk, next?);
            let _ = self.back.try_send(empty);
            self.at = 0;
        }
        let n = (&self.chunk[self.at..]).read(to)?;
        self.at += n;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn what_is_read_ahead_arrives_whole_and_in_order() {
        let bytes: Vec<u8> = (0..3_000_000_u32).map(|n| (n / 7) as u8).collect();
        let read = ahead(&bytes[..], |reader| {
            let mut read = Vec::new();
            reader.read_to_end(&mut read)?;
            Ok(read)
        });
        assert!(read.expect("read") == bytes);
    }

    #[test]
    fn an_error_arrives_and_a_consumer_may_stop() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("cable"))
            }
        }
        let failed = ahead((&[1_u8; 10][..]).chain(Broken), |reader| {
            let mut read = Vec::new();
            reader.read_to_end(&mut read).map_err(Error::from)
        });
        assert_eq!(failed.expect_err("broken").to_string(), "cable");
        let stopped: Result<()> = ahead(io::repeat(0), |_| Err(Error::system("enough")));
        assert_eq!(stopped.expect_err("stopped").to_string(), "enough");
    }
}
