//! Which JSON paths there are: those of `every.json`, which has each property of config.json once, and in the maps and
//! lists what the input has.

#![forbid(unsafe_code)]

use serde_json::Value;
use std::collections::BTreeSet;

/// Fails if `text` begins with a JSON path that neither `input`, the object at `at` of a config.json, nor the
/// specification has.
pub fn exists(text: &str, at: &str, input: &Value) {
    thread_local! {
        static EVERY: Value = serde_json::from_str(include_str!("every.json")).unwrap();
    }
    EVERY.with(|every| {
        let mut schema = Some(every);
        for step in at.split('.').filter(|step| !step.is_empty()) {
            schema = schema.and_then(|schema| schema.get(step));
        }
        // What the message calls by its place in config.json may be a file of its own.
        let text = if at.is_empty() { text } else { text.strip_prefix(&format!("{at}.")).unwrap_or(text) };
        walk(text, schema, Some(input), text);
    });
}

/// Whether a text has a key twice in one object, even if in another case.
pub fn repeats(text: &[u8], value: &Value) -> bool {
    let (mut colons, mut quoted, mut escaped) = (0, false, false);
    for byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = quoted,
            b'"' => quoted = !quoted,
            b':' if !quoted => colons += 1,
            _ => {}
        }
    }
    colons != keys(value)
}

/// How many different keys there are.
fn keys(value: &Value) -> usize {
    match value {
        Value::Array(list) => list.iter().map(keys).sum(),
        Value::Object(object) => {
            let own: BTreeSet<String> = object.keys().map(|key| key.to_ascii_lowercase()).collect();
            own.len() + object.values().map(keys).sum::<usize>()
        }
        _ => 0,
    }
}

fn walk(rest: &str, schema: Option<&Value>, input: Option<&Value>, whole: &str) {
    let rest = rest.strip_prefix('.').unwrap_or(rest);
    if rest.starts_with(": ") {
        return;
    }
    let input = input.filter(|input| !input.is_null());
    if let Some(index) = rest.strip_prefix('[') {
        let (digits, rest) = index.split_once(']').unwrap_or_else(|| panic!("no path: {whole}"));
        let at: usize = digits.parse().unwrap_or_else(|_| panic!("no index: {whole}"));
        // Unreadable JSON is no value to look into; the path must still be one of the schema.
        if let Some(Value::Array(list)) = input {
            assert!(at < list.len(), "no element {at}: {whole}");
        }
        return walk(
            rest,
            schema.and_then(|schema| schema.get(0)),
            input.and_then(|list| list.get(at)),
            whole,
        );
    }
    // The longest key that fits, as keys of annotations hold dots.
    let known =
        object(schema).filter_map(|(key, schema)| Some((step(rest, key)?, Some(schema), get(input, key))));
    let given =
        object(input).filter_map(|(key, value)| Some((step(rest, key)?, get(schema, key), Some(value))));
    let best = known.chain(given).min_by_key(|(rest, schema, _)| (rest.len(), schema.is_none()));
    match best {
        Some((rest, schema, input)) => walk(rest, schema, input, whole),
        // A key of a map in a text that is no valid JSON further on.
        None if is_map(schema) && input.is_none() => {}
        None => {
            let word = rest.split([' ', ':', '.', '[']).next().unwrap_or_default();
            let is_path = rest.len() != whole.len() || rest[word.len()..].starts_with([':', '.', '[']);
            assert!(!is_path, "no such path: {whole}");
        }
    }
}

fn object(value: Option<&Value>) -> impl Iterator<Item = (&String, &Value)> {
    value.and_then(Value::as_object).into_iter().flatten()
}

/// As the reader has it: a key may differ in case.
fn get<'a>(value: Option<&'a Value>, key: &str) -> Option<&'a Value> {
    let object = value?.as_object()?;
    object.get(key).or_else(|| object.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, v)| v))
}

fn is_map(schema: Option<&Value>) -> bool {
    schema.is_some_and(|schema| schema.get("*").is_some())
}

/// What follows `key`, plain or quoted, at the beginning of `text`.
fn step<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let quoted = format!("{key:?}");
    let rest = text.strip_prefix(&quoted).or_else(|| text.strip_prefix(key))?;
    rest.starts_with([':', '.', '[']).then_some(rest)
}
