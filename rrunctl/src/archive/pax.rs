//! The records of a PAX header (POSIX.1-2017 pax, "pax Extended Header"): `LENGTH KEY=VALUE\n`.

#![forbid(unsafe_code)]

use crate::error::{Error, Result};
use std::collections::BTreeMap;

/// What one header says; a later record of a key replaces an earlier one, an empty one removes it.
#[derive(Debug, Default)]
pub(super) struct Records {
    values: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The offsets and lengths of GNU's sparse format 0.0, whose keys are there once an extent and in order.
    pub(super) extents: Vec<u64>,
}

impl Records {
    /// # Errors
    /// A record whose length is not its length, or that has no key: what follows could be read as anything.
    pub(super) fn parse(mut text: &[u8]) -> Result<Self> {
        let malformed = || Error::system("tar: malformed PAX header");
        let mut records = Self::default();
        while !text.is_empty() {
            let space = text.iter().take(8).position(|&c| c == b' ').ok_or_else(malformed)?;
            let length = decimal(&text[..space]).ok_or_else(malformed)? as usize;
            let (record, rest) = text.split_at_checked(length).ok_or_else(malformed)?;
            text = rest;
            let record = record
                .get(space + 1..)
                .and_then(|record| record.strip_suffix(b"\n"))
                .ok_or_else(malformed)?;
            let equals = record.iter().position(|&c| c == b'=').ok_or_else(malformed)?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            if key.is_empty() || key.contains(&0) {
                return Err(malformed());
            }
            match key {
                b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                    let length = key == b"GNU.sparse.numbytes";
                    if length != (records.extents.len() % 2 == 1) {
                        return Err(malformed());
                    }
                    records.extents.push(decimal(value).ok_or_else(malformed)?);
                }
                _ if value.is_empty() && !key.starts_with(b"SCHILY.xattr.") => {
                    records.values.remove(key);
                }
                _ => {
                    records.values.insert(key.to_vec(), value.to_vec());
                }
            }
        }
        Ok(records)
    }

    pub(super) fn get(&self, key: &str) -> Option<&[u8]> {
        self.values.get(key.as_bytes()).map(Vec::as_slice)
    }

    /// # Errors
    /// A value that is no number.
    pub(super) fn number(&self, key: &str) -> Result<Option<u64>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match decimal(value) {
            Some(number) => Ok(Some(number)),
            None => Err(self.invalid(key)),
        }
    }

    /// Seconds and nanoseconds since 1970; digits behind the ninth are cut off, as others do.
    ///
    /// # Errors
    /// A value that is no time.
    pub(super) fn time(&self, key: &str) -> Result<Option<(i64, u32)>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let parse = || {
            let text = std::str::from_utf8(value).ok()?;
            let (negative, text) = text.strip_prefix('-').map_or((false, text), |text| (true, text));
            let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
            if !fraction.bytes().all(|c| c.is_ascii_digit()) {
                return None;
            }
            let seconds = i64::try_from(decimal(seconds.as_bytes())?).ok()?;
            let nanoseconds = format!("{fraction:0<9}")[..9].parse::<u32>().ok()?;
            Some(match (negative, nanoseconds) {
                (false, _) => (seconds, nanoseconds),
                (true, 0) => (-seconds, 0),
                (true, _) => (-seconds - 1, 1_000_000_000 - nanoseconds),
            })
        };
        parse().map(Some).ok_or_else(|| self.invalid(key))
    }

    /// The attributes that are for [`super::node`] to take or to leave.
    pub(super) fn xattrs(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.values
            .iter()
            .filter_map(|(key, value)| Some((key.strip_prefix(b"SCHILY.xattr.")?, value.as_slice())))
    }

    /// Whether any key begins so.
    pub(super) fn any(&self, prefix: &str) -> bool {
        self.values.keys().any(|key| key.starts_with(prefix.as_bytes()))
    }

    pub(super) fn invalid(&self, key: &str) -> Error {
        let value = String::from_utf8_lossy(self.get(key).unwrap_or_default()).into_owned();
        Error::system(format!("tar: PAX header: {key} {value:?} is not valid"))
    }
}

/// Digits and nothing else: not the sign that Rust's parser takes.
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    match text {
        [] => None,
        _ if text.iter().all(u8::is_ascii_digit) => std::str::from_utf8(text).ok()?.parse().ok(),
        _ => None,
    }
}

/// Appends a record.
pub(super) fn record(to: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    // The length counts its own digits.
    while rest + length.to_string().len() != length {
        length = rest + length.to_string().len();
    }
    to.extend_from_slice(format!("{length} ").as_bytes());
    to.extend_from_slice(key);
    to.push(b'=');
    to.extend_from_slice(value);
    to.push(b'\n');
}

/// A time as a record has it.
pub(super) fn time(seconds: i64, nanoseconds: u32) -> String {
    let (sign, seconds, nanoseconds) = match (seconds < 0, nanoseconds) {
        (false, _) => ("", seconds.unsigned_abs(), nanoseconds),
        (true, 0) => ("-", seconds.unsigned_abs(), 0),
        (true, _) => ("-", seconds.unsigned_abs() - 1, 1_000_000_000 - nanoseconds),
    };
    match nanoseconds {
        0 => format!("{sign}{seconds}"),
        _ => format!("{sign}{seconds}.{nanoseconds:09}").trim_end_matches('0').to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_may_have_newlines_and_counts_its_own_digits() {
        let mut text = Vec::new();
        let value = b"\x01\n\n=\x00\n".to_vec();
        record(&mut text, b"SCHILY.xattr.security.capability", &value);
        for length in 80..120 {
            record(&mut text, b"path", &vec![b'x'; length]);
        }
        record(&mut text, b"size", b"12");
        let records = Records::parse(&text).expect("well formed");
        assert_eq!(records.xattrs().collect::<Vec<_>>(), [(&b"security.capability"[..], &value[..])]);
        assert_eq!(records.get("path").map(<[u8]>::len), Some(119));
        assert_eq!(records.number("size").expect("a number"), Some(12));
    }

    #[test]
    fn a_malformed_header_is_refused_as_a_whole() {
        for text in [
            "x",
            "6 a=b",
            "7 a=b\n",
            "5 a=b\n",
            "+6 a=b\n",
            "6 =ab\n",
            "6 abc\n",
            "99999999999 a=b\n",
            "0 \n",
            "1 a=b\n",
            "6 a=b\n\n",
            " 6 a=b\n",
            "24 GNU.sparse.numbytes=1\n",
            "-1 a=b\n",
        ] {
            assert!(Records::parse(text.as_bytes()).is_err(), "{text:?}");
        }
        let records = Records::parse(b"9 size=x\n11 size=-1\n").expect("well formed");
        assert_eq!(
            records.number("size").expect_err("negative").to_string(),
            "tar: PAX header: size \"-1\" is not valid"
        );
        assert!(Records::parse(b"9 path=a\n8 path=\n").expect("well formed").get("path").is_none());
    }

    #[test]
    fn times_before_1970_are_written_as_they_are_read() {
        for (text, time_) in [
            ("0", (0, 0)),
            ("1.5", (1, 500_000_000)),
            ("-1.5", (-2, 500_000_000)),
            ("-0.000000001", (-1, 999_999_999)),
            ("-2208988800", (-2_208_988_800, 0)),
            ("1000000000.123456789", (1_000_000_000, 123_456_789)),
        ] {
            let mut record_ = Vec::new();
            record(&mut record_, b"mtime", text.as_bytes());
            let records = Records::parse(&record_).expect("well formed");
            assert_eq!(records.time("mtime").expect("a time"), Some(time_), "{text}");
            assert_eq!(time(time_.0, time_.1), text);
        }
        for text in ["", "-", ".5", "1.x", "1.-5", "99999999999999999999", "+1", "1é"] {
            let mut record_ = Vec::new();
            record(&mut record_, b"mtime", text.as_bytes());
            record(&mut record_, b"atime", b"1");
            let records = Records::parse(&record_).expect("well formed");
            assert!(records.time("mtime").map_or(true, |time| time.is_none()), "{text}");
        }
    }
}
