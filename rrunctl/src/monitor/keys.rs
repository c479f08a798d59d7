//! The keys that detach a terminal from a container and leave it running; the client looks for them.

#![forbid(unsafe_code)]

use crate::error::{Error, Result};

/// A sequence of keys; `ctrl-p,ctrl-q` unless something else is said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys(Vec<u8>);

impl Default for Keys {
    fn default() -> Self {
        Self(vec![0x10, 0x11])
    }
}

impl Keys {
    /// Reads `ctrl-p,ctrl-q`, `a,b`, `ctrl-@`: characters and `ctrl-` with a letter or one of `@[\]^_`. An empty text is
    /// the default.
    ///
    /// # Errors
    /// A key that is neither.
    pub fn parse(text: &str) -> Result<Self> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let key = |key: &str| match *key.as_bytes() {
            [byte] if byte.is_ascii() => Ok(byte),
            [b'c', b't', b'r', b'l', b'-', byte @ (b'a'..=b'z' | b'@' | b'['..=b'_')] => Ok(byte & 0x1f),
            _ => Err(Error::invalid(format!("Unknown character: '{key}'"))
                .context(format!("invalid detach keys ({text})"))),
        };
        text.split(',').map(key).collect::<Result<_>>().map(Self)
    }
}

/// Finds [`Keys`] in what a person types, however it is cut into reads.
#[derive(Debug, Clone)]
pub struct DetachKeys {
    keys: Keys,
    /// How many of the keys have been typed and are held back.
    matched: usize,
}

impl DetachKeys {
    /// Looks for `keys`.
    pub fn new(keys: Keys) -> Self {
        Self { keys, matched: 0 }
    }

    /// Appends to `passed` what of `typed` is not part of the keys, and says whether they are complete: then the rest
    /// of `typed` is dropped, as nobody has it.
    ///
    /// Keys that might become the sequence are held back until they cannot any more.
    pub fn pass(&mut self, typed: &[u8], passed: &mut Vec<u8>) -> bool {
        let Keys(keys) = &self.keys;
        for &byte in typed {
            // `ctrl-p ctrl-p ctrl-q` has the sequence behind one ctrl-p: the longest end of what was held, with this
            // byte, that begins the sequence is held on.
            let mut held = keys[..self.matched].to_vec();
            held.push(byte);
            self.matched =
                (0..=held.len()).rev().find(|&n| keys.starts_with(&held[held.len() - n..])).unwrap_or(0);
            passed.extend_from_slice(&held[..held.len() - self.matched]);
            if self.matched == keys.len() {
                self.matched = 0;
                return true;
            }
        }
        false
    }

    /// What is held back when the input ends.
    pub fn rest(self) -> Vec<u8> {
        self.keys.0[..self.matched].to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `typed` in reads of `at_once` bytes.
    fn passed(keys: &str, typed: &[u8], at_once: usize) -> (Vec<u8>, bool) {
        let mut detach = DetachKeys::new(Keys::parse(keys).expect("keys"));
        let mut out = Vec::new();
        for read in typed.chunks(at_once) {
            if detach.pass(read, &mut out) {
                return (out, true);
            }
        }
        out.extend(detach.rest());
        (out, false)
    }

    #[test]
    fn the_keys_are_found_however_the_input_is_cut() {
        for at_once in 1..8 {
            assert_eq!(passed("", b"ls\r\x10\x11", at_once), (b"ls\r".to_vec(), true));
            assert_eq!(passed("", b"\x10\x10\x11", at_once), (b"\x10".to_vec(), true));
            assert_eq!(passed("a,b,a,c", b"abababac", at_once), (b"abab".to_vec(), true));
        }
    }

    #[test]
    fn what_is_not_the_whole_sequence_passes_unchanged() {
        for at_once in 1..8 {
            for typed in [&b"\x10x\x11"[..], b"\x11\x10", b"plain", b"\x10"] {
                assert_eq!(passed("", typed, at_once), (typed.to_vec(), false));
            }
        }
    }

    #[test]
    fn a_key_is_held_back_until_it_cannot_be_the_first_of_the_sequence() {
        let mut detach = DetachKeys::new(Keys::default());
        let mut out = Vec::new();
        assert!(!detach.pass(b"\x10", &mut out));
        assert_eq!(out, b"");
        assert!(!detach.pass(b"p", &mut out));
        assert_eq!(out, b"\x10p");
    }

    #[test]
    fn keys_are_characters_or_ctrl_with_one() {
        assert_eq!(Keys::parse("ctrl-a,x,ctrl-@,ctrl-_").expect("keys"), Keys(vec![1, b'x', 0, 0x1f]));
        for text in ["ctrl-A", "ctrl-1", "xy", ",", "ctrl-"] {
            assert!(
                Keys::parse(text).expect_err("no keys").to_string().contains("Unknown character"),
                "{text}"
            );
        }
    }
}
