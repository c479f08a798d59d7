//! What an error message must be: one line, no longer than its cause, and with a JSON path that there is.

#![forbid(unsafe_code)]

use super::schema;
use rrun::error::{Error, Kind};
use serde_json::Value;

/// Every message is one line for the log, and not much longer than what it tells about.
pub fn one_line(text: &str, input: usize) {
    assert!(!text.is_empty() && !text.contains(char::is_control), "not one line: {text:?}");
    // A control character takes ten at most (`\\u{10ffff}` is none); a message quotes a value once or twice.
    assert!(text.len() <= 1024 + 24 * input, "{} bytes about {input}: {text}", text.len());
}

/// An error about `file`, whose text is `input` and whose root is the object at `at` of config.json.
pub fn config(e: &Error, file: &str, at: &str, input: &[u8]) {
    let text = e.to_string();
    one_line(&text, input.len());
    if e.what() != Kind::Config {
        return;
    }
    let rest = text.strip_prefix(&format!("{file}: ")).unwrap_or_else(|| panic!("names no file: {text}"));
    path(rest, at, input);
}

/// A message of [`rrun::spec::read::document`], or what follows the name of the file.
pub fn path(text: &str, at: &str, input: &[u8]) {
    // Of a key that comes again the first value may be the wrong one, and is not in here.
    let value = serde_json::from_slice(input).ok().filter(|value| !schema::repeats(input, value));
    let value = value.unwrap_or(Value::Null);
    schema::exists(text, at, &value);
}
