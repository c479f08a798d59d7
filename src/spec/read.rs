//! Reads JSON the way OCI callers write it.
//!
//! serde's derive cannot: it rejects duplicate keys (Go keeps the last), rejects `null` for a list or a
//! number (Go's encoders emit it for an empty one), and says `expected u32` without saying where. So
//! [`Read`] is a thin layer above serde's data model: a `null` reads as the default, the last of two equal
//! keys wins, a key may differ in case, unknown keys are skipped (config.md, "Extensibility"), and an error
//! begins with its JSON path, as in `process.user.uid: invalid type: string "0", expected u32 at line 9 column 20`.

#![forbid(unsafe_code)]

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Unexpected, Visitor};
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

/// Ends the JSON path inside an error text while it travels upwards; no serde message contains it.
const PATH_END: char = '\u{1}';

/// A type that can be read from a JSON value; `null` gives the default.
pub trait Read: Sized + Default {
    /// Reads one value.
    ///
    /// # Errors
    /// A syntax error, a wrong type or a number out of range.
    fn read<'de, D: Deserializer<'de>>(d: D) -> Result<Self, D::Error>;
}

/// Reads a whole document: exactly one value, nothing behind it.
///
/// # Errors
/// The first syntax error, wrong type or out-of-range number, with its JSON path, line and column.
pub fn document<T: Read>(text: &[u8]) -> Result<T, String> {
    if depth(text) > DEPTH {
        return Err(format!("nested more than {DEPTH} deep"));
    }
    let mut d = serde_json::Deserializer::from_slice(text);
    let value = T::read(&mut d).map_err(|e| finish(&e.to_string()))?;
    d.end().map_err(|e| e.to_string())?;
    Ok(value)
}

/// The deepest nesting that is read; serde_json's own limit does not hold for values that are skipped.
const DEPTH: usize = 128;

fn depth(text: &[u8]) -> usize {
    let (mut now, mut most, mut quoted, mut escaped) = (0_usize, 0, false, false);
    for byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = quoted,
            b'"' => quoted = !quoted,
            b'{' | b'[' if !quoted => {
                now += 1;
                most = most.max(now);
            }
            b'}' | b']' if !quoted => now = now.saturating_sub(1),
            _ => {}
        }
    }
    most
}

fn finish(text: &str) -> String {
    match text.split_once(PATH_END) {
        Some((path, rest)) => format!("{}: {rest}", path.strip_prefix('.').unwrap_or(path)),
        None => text.to_owned(),
    }
}

/// Puts one more step in front of the JSON path of an error.
pub(crate) fn at<E: Error>(step: fmt::Arguments<'_>, e: &E) -> E {
    let text = e.to_string();
    if text.contains(PATH_END) {
        E::custom(format_args!("{step}{text}"))
    } else {
        E::custom(format_args!("{step}{PATH_END}{text}"))
    }
}

/// The seed that makes serde call [`Read::read`].
pub(crate) struct Seed<T>(PhantomData<T>);

impl<T> Seed<T> {
    pub(crate) const fn new() -> Self {
        Self(PhantomData)
    }
}

impl<'de, T: Read> DeserializeSeed<'de> for Seed<T> {
    type Value = T;
    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<T, D::Error> {
        T::read(d)
    }
}

macro_rules! scalar {
    ($($ty:ty),*) => {$(
        impl Read for $ty {
            fn read<'de, D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                Ok(Option::<$ty>::deserialize(d)?.unwrap_or_default())
            }
        }
    )*};
}
scalar!(bool, u8, u16, u32, u64, i32, i64);

impl Read for String {
    fn read<'de, D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = Option::<Self>::deserialize(d)?.unwrap_or_default();
        // Every string of config.json ends up in a system call, which would cut it at the NUL: a path that
        // was checked as one thing would be used as another (runc #3287).
        if text.contains('\0') {
            return Err(D::Error::invalid_value(Unexpected::Str(&text), &"a string without a NUL"));
        }
        Ok(text)
    }
}

impl<T: Read> Read for Option<T> {
    fn read<'de, D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Nullable<T>(PhantomData<T>);
        impl<'de, T: Read> Visitor<'de> for Nullable<T> {
            type Value = Option<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value or null")
            }
            fn visit_none<E>(self) -> Result<Self::Value, E> {
                Ok(None)
            }
            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(None)
            }
            fn visit_some<D: Deserializer<'de>>(self, d: D) -> Result<Self::Value, D::Error> {
                T::read(d).map(Some)
            }
        }
        d.deserialize_option(Nullable(PhantomData))
    }
}

impl<T: Read> Read for Box<T> {
    fn read<'de, D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        T::read(d).map(Self::new)
    }
}

impl<T: Read> Read for Vec<T> {
    fn read<'de, D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Elements<T>(PhantomData<T>);
        impl<'de, T: Read> Visitor<'de> for Elements<T> {
            type Value = Vec<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }
            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Vec::new())
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
                let mut out = Vec::new();
                while let Some(value) =
                    seq.next_element_seed(Seed::new()).map_err(|e| at(format_args!("[{}]", out.len()), &e))?
                {
                    out.push(value);
                }
                Ok(out)
            }
        }
        d.deserialize_any(Elements(PhantomData))
    }
}

impl<T: Read> Read for BTreeMap<String, T> {
    fn read<'de, D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Entries<T>(PhantomData<T>);
        impl<'de, T: Read> Visitor<'de> for Entries<T> {
            type Value = BTreeMap<String, T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(BTreeMap::new())
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut out = BTreeMap::new();
                while let Some(key) = map.next_key_seed(Seed::<String>::new())? {
                    let value =
                        map.next_value_seed(Seed::new()).map_err(|e| at(format_args!(".{key:?}"), &e))?;
                    out.insert(key, value);
                }
                Ok(out)
            }
        }
        d.deserialize_any(Entries(PhantomData))
    }
}

/// The key that is meant: Go's decoder, and so runc, falls back to one that differs in case, and runc's own suite has
/// `pagesize`.
pub(crate) fn known<'a>(key: &'a str, keys: &[&'a str]) -> &'a str {
    if keys.contains(&key) {
        return key;
    }
    keys.iter().find(|known| known.eq_ignore_ascii_case(key)).unwrap_or(&key)
}

/// Declares a struct that mirrors a JSON object, `field: Type = "key"` a line, and its [`Read`].
macro_rules! record {
    ($(#[$doc:meta])* pub struct $name:ident {
        $( $(#[$fdoc:meta])* $field:ident: $ty:ty = $key:literal ),* $(,)?
    }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default, PartialEq)]
        pub struct $name { $( $(#[$fdoc])* pub $field: $ty, )* }

        impl $crate::spec::read::Read for $name {
            fn read<'de, D: ::serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                struct Fields;
                impl<'de> ::serde::de::Visitor<'de> for Fields {
                    type Value = $name;
                    fn expecting(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                        f.write_str("an object")
                    }
                    fn visit_unit<E>(self) -> Result<$name, E> {
                        Ok($name::default())
                    }
                    fn visit_map<A: ::serde::de::MapAccess<'de>>(self, mut map: A) -> Result<$name, A::Error> {
                        let mut out = $name::default();
                        while let Some(key) = map.next_key::<::std::borrow::Cow<'_, str>>()? {
                            match $crate::spec::read::known(&key, &[$($key),*]) {
                                $( $key => {
                                    out.$field = map
                                        .next_value_seed($crate::spec::read::Seed::new())
                                        .map_err(|e| $crate::spec::read::at(format_args!(".{}", $key), &e))?;
                                } )*
                                _ => { map.next_value::<::serde::de::IgnoredAny>()?; }
                            }
                        }
                        Ok(out)
                    }
                }
                d.deserialize_any(Fields)
            }
        }
    };
}
pub(crate) use record;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Spec;

    fn fails(text: &str) -> String {
        document::<Spec>(text.as_bytes()).expect_err("must be refused")
    }

    #[test]
    fn the_last_of_two_equal_keys_wins() {
        let spec: Spec = document(br#"{"hostname":"a","hostname":"b"}"#).expect("accepted");
        assert_eq!(spec.hostname, "b");
    }

    #[test]
    fn a_key_may_differ_in_case() {
        let text =
            br#"{"linux":{"resources":{"hugepageLimits":[{"pagesize":"2MB","limit":1}]}},"hostnam":"x"}"#;
        let spec: Spec = document(text).expect("accepted");
        let limits = spec.linux.and_then(|linux| linux.resources).map(|r| r.hugepage_limits);
        assert_eq!(limits.expect("resources")[0].page_size, "2MB");
        assert_eq!(spec.hostname, "");
    }

    #[test]
    fn null_is_the_default() {
        let text = br#"{"linux":null,"mounts":null,"hooks":null,"process":{"terminal":null,"args":null}}"#;
        let spec: Spec = document(text).expect("accepted");
        assert_eq!(spec.process, Some(Box::default()));
        assert!(spec.mounts.is_empty() && spec.linux.is_none());
    }

    #[test]
    fn unknown_keys_are_skipped_whatever_they_hold() {
        let spec: Spec = document(br#"{"x":[{"y":[1,null]}],"hostname":"h","Proces":3}"#).expect("accepted");
        assert_eq!((spec.hostname.as_str(), spec.process), ("h", None));
    }

    #[test]
    fn an_error_begins_with_its_path() {
        assert!(fails(r#"{"process":{"user":{"uid":"0"}}}"#).starts_with("process.user.uid: invalid type"));
        assert!(fails(r#"{"mounts":[{},{"options":["a",1]}]}"#).starts_with("mounts[1].options[1]: invalid"));
        assert!(fails(r#"{"annotations":{"a.b":1}}"#).starts_with("annotations.\"a.b\": invalid type"));
        assert!(fails(r#"{"hostname":"a\u0000b"}"#).starts_with("hostname: invalid value"));
    }

    #[test]
    fn numbers_must_fit_and_be_whole() {
        for uid in ["-1", "4294967296", "1.5", "1.0", "1e3"] {
            let text = format!(r#"{{"process":{{"user":{{"uid":{uid}}}}}}}"#);
            assert!(fails(&text).starts_with("process.user.uid: invalid"), "{uid}");
        }
    }

    #[test]
    fn broken_documents_are_refused() {
        let deep = format!("{{\"x\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        for text in [
            "",
            "[]",
            "1",
            "\"x\"",
            "true",
            "{\"a\":1,}",
            "{} x",
            "\u{feff}{}",
            "{\"hostname\":\"\\ud800\"}",
            &deep,
        ] {
            fails(text);
        }
        document::<Spec>(b"{\"hostname\":\"\xff\"}").expect_err("invalid UTF-8 must be refused");
    }
}
