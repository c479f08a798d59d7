//! `-e`, `--env-file`, `-l`, `--label-file`.

#![forbid(unsafe_code)]

use super::value::{Read, each};
use crate::error::{Context as _, Error, Result};
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};

/// The longest line of a file, in bytes.
const LINE_MAX: u64 = 1 << 16;

/// The variables of files and then those given, of which an own one that has no value is taken from the process's.
pub(super) fn variables(files: &[String], given: &[String]) -> Result<(Vec<String>, Vec<String>)> {
    let mut from_files = Vec::new();
    for path in files {
        for (key, value) in pairs(path)? {
            // What nobody has a value for is left out here, and taken from the image by `-e`.
            if let Some(value) = value.or_else(|| std::env::var(&key).ok()) {
                from_files.push(format!("{key}={value}"));
            }
        }
    }
    Ok((from_files, each("-e, --env", given, variable)?))
}

fn variable(text: &str) -> Read<String> {
    let (key, value) = text.split_once('=').map_or((text, None), |(key, value)| (key, Some(value)));
    if key.is_empty() {
        return Err(format!("invalid environment variable: {text}"));
    }
    match (value, std::env::var(key)) {
        (None, Ok(value)) => Ok(format!("{key}={value}")),
        _ => Ok(text.to_owned()),
    }
}

/// Of variables with one name the last, in the place of the first.
pub(super) fn once(variables: Vec<String>) -> Vec<String> {
    let mut kept: Vec<String> = Vec::new();
    let key = |variable: &str| variable.split('=').next().unwrap_or_default().to_owned();
    for variable in variables {
        match kept.iter_mut().find(|known| key(known) == key(&variable)) {
            Some(known) => *known = variable,
            None => kept.push(variable),
        }
    }
    kept
}

/// The labels of files and then those given.
pub(super) fn labels(files: &[String], given: &[String]) -> Result<Vec<(String, String)>> {
    let mut labels = Vec::new();
    for path in files {
        // One without a value is left out of a file, unlike on the command line.
        labels.extend(pairs(path)?.into_iter().filter_map(|(key, value)| Some((key, value?))));
    }
    labels.extend(each("-l, --label", given, label)?);
    Ok(labels)
}

fn label(text: &str) -> Read<(String, String)> {
    let (key, value) = super::value::pair(text);
    let name = key.trim_start_matches([' ', '\t']);
    if name.is_empty() {
        return Err(format!("invalid label '{text}': empty name"));
    }
    if name.contains([' ', '\t']) {
        return Err(format!("label '{name}' contains whitespaces"));
    }
    Ok((key, value))
}

/// The lines `KEY=VALUE` and `KEY` of a file; `#` begins a comment.
fn pairs(path: &str) -> Result<Vec<(String, Option<String>)>> {
    let mut file = BufReader::new(File::open(path).context(|| format!("open {path}"))?);
    let wrong = |wrong: String| Error::invalid(format!("invalid env file ({path}): {wrong}"));
    let mut pairs = Vec::new();
    for number in 1_u64.. {
        let mut bytes = Vec::new();
        let read =
            file.by_ref().take(LINE_MAX).read_until(b'\n', &mut bytes).context(|| format!("read {path}"))?;
        if read == 0 {
            break;
        }
        if bytes.last() != Some(&b'\n') && read as u64 == LINE_MAX {
            return Err(wrong("bufio.Scanner: token too long".to_owned()));
        }
        let bytes = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
        let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
        let line = std::str::from_utf8(bytes).map_err(|_| {
            let all: Vec<String> = bytes.iter().map(u8::to_string).collect();
            wrong(format!("invalid utf8 bytes at line {number}: [{}]", all.join(" ")))
        })?;
        let line = if number == 1 { line.strip_prefix('\u{feff}').unwrap_or(line) } else { line };
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (key, value) = line.split_once('=').map_or((line, None), |(key, value)| (key, Some(value)));
        if key.is_empty() {
            return Err(wrong(format!("no variable name on line '{line}'")));
        }
        if key.contains([' ', '\t']) {
            return Err(wrong(format!("variable '{key}' contains whitespaces")));
        }
        pairs.push((key.to_owned(), value.map(str::to_owned)));
    }
    Ok(pairs)
}
