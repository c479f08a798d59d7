//! Writes the documents that callers parse: key order as declared, `None` left out.
//!
//! Declared by macro and not derived: rrun uses no procedural macro, which keeps the dependency tree at a
//! dozen crates and lets `cargo build` make a static binary without naming a target.

#![forbid(unsafe_code)]

use serde::ser::{SerializeMap, Serializer};

/// One entry of a JSON object.
pub trait Entry {
    /// Writes `key` and the value, or nothing for `None`.
    ///
    /// # Errors
    /// Those of the serializer.
    fn entry<M: SerializeMap>(&self, map: &mut M, key: &str) -> Result<(), M::Error>;
}

/// Marks a value that is always written.
pub trait Always: serde::Serialize {}
impl Always for bool {}
impl Always for u16 {}
impl Always for u32 {}
impl Always for u64 {}
impl Always for i32 {}
impl Always for i64 {}
impl Always for f64 {}
impl Always for String {}
impl Always for &str {}
impl<T: serde::Serialize> Always for Vec<T> {}
impl<T: serde::Serialize> Always for &[T] {}
impl<K: serde::Serialize, V: serde::Serialize> Always for std::collections::BTreeMap<K, V> {}

impl<T: Always> Entry for T {
    fn entry<M: SerializeMap>(&self, map: &mut M, key: &str) -> Result<(), M::Error> {
        map.serialize_entry(key, self)
    }
}

impl<T: serde::Serialize> Entry for Option<T> {
    fn entry<M: SerializeMap>(&self, map: &mut M, key: &str) -> Result<(), M::Error> {
        match self {
            Some(value) => map.serialize_entry(key, value),
            None => Ok(()),
        }
    }
}

/// Starts an object of unknown length.
///
/// # Errors
/// Those of the serializer.
pub fn object<S: Serializer>(s: S) -> Result<S::SerializeMap, S::Error> {
    s.serialize_map(None)
}

/// Implements `Serialize` for a struct, `field = "key"` a line; an `Option` that is `None` is left out.
macro_rules! writes {
    ($name:ident $(<$life:lifetime>)? { $( $field:ident = $key:literal ),* $(,)? }) => {
        impl $(<$life>)? ::serde::Serialize for $name $(<$life>)? {
            fn serialize<S: ::serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                let mut map = $crate::spec::write::object(s)?;
                $( $crate::spec::write::Entry::entry(&self.$field, &mut map, $key)?; )*
                ::serde::ser::SerializeMap::end(map)
            }
        }
        impl $(<$life>)? $crate::spec::write::Always for $name $(<$life>)? {}
    };
}
pub(crate) use writes;
