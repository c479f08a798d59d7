//! Command lines. The input is `argv`, with a NUL between the arguments; beside a model of Go's flag syntax that reads
//! the same table, and writes each line again in one plain form.

#![forbid(unsafe_code)]

use super::report;
use rrun::cli::flags::{self, Flag, GLOBAL, Set, Topic};
use rrun::cli::{Command, Parsed, help, read};
use rrun::error::Kind;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

/// `argv` of an input.
pub fn arguments(data: &[u8]) -> impl Iterator<Item = OsString> {
    data.split(|byte| *byte == 0).map(|arg| OsString::from_vec(arg.to_vec()))
}

pub fn check(data: &[u8]) {
    let line: Vec<OsString> = arguments(data).collect();
    let Parsed { name, global, topic, command } = read(line.clone().into_iter());
    assert!(!name.is_empty() && name.len() <= data.len().max(4) && !name.contains(char::is_control));
    if let Err(e) = &command {
        assert_eq!(e.what(), Kind::Usage);
        report::one_line(&e.to_string(), data.len());
    }
    assert!(help::usage(&name, topic).lines().count() == 1);
    explained(&name, topic);
    if let Ok(Command::Help(about)) = &command {
        explained(&name, *about);
    }
    let root = global.root.as_deref();
    assert!(root.is_none_or(|root| root.is_absolute() && root.components().count() > 1) || command.is_err());

    let Some(plain) = plain(&line) else {
        assert!(command.is_err(), "the model refuses {line:?}, the parser takes it for {command:?}");
        return;
    };
    let again = read(plain.clone().into_iter());
    let (one, two) = (command.map_err(drop), again.command.map_err(drop));
    assert_eq!(format!("{one:?}"), format!("{two:?}"), "{line:?} is {plain:?}");
    if one.is_ok() {
        assert_eq!(format!("{global:?}"), format!("{:?}", again.global), "{line:?} is {plain:?}");
    }
}

/// Help names every flag that is to be seen.
fn explained(name: &str, topic: Option<&Topic>) {
    let text = help::help(name, topic);
    assert!(text.starts_with("NAME:\n") && text.ends_with('\n'));
    for flag in help::visible(topic.map_or(GLOBAL, |topic| topic.name)) {
        assert!(text.contains(&help::forms(flag)), "{} is not in {text}", flag.name);
    }
}

/// The line as `NAME GLOBAL... TOPIC OPTION... -- OPERAND...`, each option as `--name=value`; `None` where it is not
/// well-formed. What asks for help ends it.
fn plain(line: &[OsString]) -> Option<Vec<OsString>> {
    let (name, rest) = line.split_first()?;
    let (mut globals, mut options, mut operands): (Vec<OsString>, Vec<_>, Vec<_>) = Default::default();
    let mut topic: Option<&'static Topic> = None;
    let mut rest = rest.iter();
    let mut ended = false;
    let mut asked = None;
    while let Some(arg) = rest.next() {
        let bytes = arg.as_bytes();
        let operand = ended || bytes.len() < 2 || bytes[0] != b'-' || bytes[1].is_ascii_digit();
        if operand {
            let text = arg.to_str()?;
            if topic.is_none() {
                topic = Some(flags::TOPICS.iter().find(|topic| topic.name == text)?);
            } else {
                operands.push(arg.clone());
                ended |= topic.is_some_and(|topic| topic.verbatim);
            }
        } else if bytes == b"--" {
            ended = true;
        } else {
            let bare = &bytes[if bytes.starts_with(b"--") { 2 } else { 1 }..];
            let (key, value) = match bare.iter().position(|byte| *byte == b'=') {
                Some(at) => (&bare[..at], Some(&bare[at + 1..])),
                None => (bare, None),
            };
            match found(topic, key) {
                Some((global, flag)) => {
                    let into = if global { &mut globals } else { &mut options };
                    let value = match (flag.set, value) {
                        (Set::Switch(_), None) => b"true".to_vec(),
                        (Set::Value(..), None) => rest.next()?.as_bytes().to_vec(),
                        (_, Some(value)) => value.to_vec(),
                    };
                    into.push(option(flag, &value));
                }
                None if [&b"h"[..], b"help"].contains(&key) => {
                    asked = Some("--help");
                    break;
                }
                None if topic.is_none() && [&b"v"[..], b"version"].contains(&key) => {
                    asked = Some("--version");
                    break;
                }
                None => return None,
            }
        }
    }
    let mut out = vec![name.clone()];
    out.append(&mut globals);
    out.extend(topic.map(|topic| topic.name.into()));
    out.append(&mut options);
    // Operands in front of a request for help do not count.
    match asked {
        Some(asked) => out.push(asked.into()),
        None if topic.is_some() => {
            out.push("--".into());
            out.append(&mut operands);
        }
        None => {}
    }
    Some(out)
}

fn option(flag: &Flag, value: &[u8]) -> OsString {
    let mut out = OsString::from(format!("--{}=", flag.name));
    out.push(OsStr::from_bytes(value));
    out
}

/// A flag by its name or letter, and whether it is a global one: the command's own comes first.
fn found(topic: Option<&Topic>, key: &[u8]) -> Option<(bool, &'static Flag)> {
    let key = std::str::from_utf8(key).ok()?;
    let is = |flag: &&Flag| flag.name == key || flag.short.is_some_and(|short| short.to_string() == key);
    let on = |name: &str| flags::FLAGS.iter().filter(|flag| flag.is_on(name)).find(is);
    topic.and_then(|topic| on(topic.name)).map(|flag| (false, flag)).or_else(|| Some((true, on(GLOBAL)?)))
}
