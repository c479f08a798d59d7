//! `annotations`: what config.md says of every key.

#![forbid(unsafe_code)]

use crate::error::{Error, Result};
use std::collections::BTreeMap;

/// Checks the keys; unknown ones are nobody's business.
///
/// # Errors
/// An empty key (config.md: "Keys MUST NOT be an empty string").
pub fn check(annotations: &BTreeMap<String, String>) -> Result<()> {
    if annotations.contains_key("") {
        return Err(Error::config("annotations", "a key must not be empty"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_empty_key_is_refused() {
        let of = |key: &str| BTreeMap::from([(key.to_owned(), String::new())]);
        assert!(check(&of("a.b")).is_ok());
        assert!(check(&of("")).is_err());
    }
}
