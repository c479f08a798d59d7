//! The parser: the syntax of Go's flag package, with options also behind operands, as in runc 1.5.
//!
//! `-name` and `--name` are the same; a value follows as `=value` or as the next argument, whatever that
//! looks like; a switch takes `=true` or `=false` only; `--` ends the options. An argument that begins
//! with a dash and a digit is an operand, as in `kill ID -9`, for no option begins with a digit.

#![forbid(unsafe_code)]

use super::flags::{self, Draft, Flag, GLOBAL, Set, Topic};
use super::{Command, Global, Invocation, Manager, values};
use crate::error::{Error, Kind, Result};
use crate::log;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// What is known of a command line even if it is wrong: under which name and where to complain.
#[derive(Debug)]
pub struct Parsed {
    /// See [`Invocation::name`].
    pub name: String,
    /// The global options before the mistake.
    pub global: Global,
    /// The command's name, if it got so far.
    pub topic: Option<&'static Topic>,
    /// The command, or the mistake, of [`Kind::Usage`].
    pub command: Result<Command>,
}

/// Parses `argv`, its first element being the program's name.
///
/// # Errors
/// [`Kind::Usage`].
pub fn parse(args: impl Iterator<Item = OsString>) -> Result<Invocation> {
    let Parsed { name, global, command, .. } = read(args);
    Ok(Invocation { name, global, command: command? })
}

/// Parses `argv`, and keeps what is needed to report a mistake in it.
pub fn read(mut args: impl Iterator<Item = OsString>) -> Parsed {
    let name = program(args.next());
    let mut reader = Reader { draft: Draft::default(), topic: None, operands: Vec::new() };
    let outcome = reader.read(&mut args);
    let Reader { mut draft, topic, operands } = reader;
    let outcome = outcome.and_then(|asked| settle(&mut draft.global).map(|()| asked));
    let global = draft.global.clone();
    let command = match (outcome, topic) {
        (Err(e), _) => Err(e),
        (Ok(Some(asked)), _) => Ok(asked),
        (Ok(None), None) => Ok(Command::Help(None)),
        (Ok(None), Some(topic)) => {
            count(topic, operands.len()).and_then(|()| (topic.finish)(draft, operands))
        }
    };
    Parsed { name, global, topic, command: command.map_err(|text| Error::kind(Kind::Usage, text)) }
}

/// Base name of `argv[0]`; `rrun` where there is none (argc may be 0) or it could garble a message.
fn program(arg: Option<OsString>) -> String {
    let name =
        arg.as_deref().map(Path::new).and_then(Path::file_name).and_then(OsStr::to_str).unwrap_or_default();
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_+.-".contains(&b);
    if name.is_empty() || !name.bytes().all(plain) { "rrun".to_owned() } else { name.to_owned() }
}

struct Reader {
    draft: Draft,
    topic: Option<&'static Topic>,
    operands: Vec<String>,
}

impl Reader {
    /// Reads to the end, or to a request for help or version, which ends everything.
    fn read(&mut self, args: &mut dyn Iterator<Item = OsString>) -> Result<Option<Command>, String> {
        let mut verbatim = false;
        while let Some(arg) = args.next() {
            if verbatim || !is_option(&arg) {
                self.operand(arg)?;
                verbatim |= self.topic.is_some_and(|t| t.verbatim) && !self.operands.is_empty();
            } else if arg == "--" {
                verbatim = true;
            } else if let Some(asked) = self.option(&arg, args)? {
                return Ok(Some(asked));
            }
        }
        Ok(None)
    }

    fn operand(&mut self, arg: OsString) -> Result<(), String> {
        let arg = flags::operand(arg)?;
        match self.topic {
            Some(_) => self.operands.push(arg),
            None => self.topic = Some(flags::topic(&arg).ok_or_else(|| flags::no_topic(&arg))?),
        }
        Ok(())
    }

    fn option(
        &mut self,
        arg: &OsStr,
        args: &mut dyn Iterator<Item = OsString>,
    ) -> Result<Option<Command>, String> {
        let (name, value) = split(arg);
        let shown = name.to_string_lossy();
        let Some(flag) = self.find(name) else {
            return match (name.to_str(), self.topic) {
                (Some("h" | "help"), topic) => Ok(Some(Command::Help(topic))),
                (Some("v" | "version"), None) => Ok(Some(Command::Version)),
                _ => Err(format!("flag provided but not defined: -{shown}")),
            };
        };
        match flag.set {
            Set::Switch(set) => {
                let on = match value {
                    None => true,
                    Some(value) => value.to_str().and_then(values::boolean).ok_or_else(|| {
                        format!("invalid boolean value {value:?} for flag -{shown}: parse error")
                    })?,
                };
                set(&mut self.draft, on);
            }
            Set::Value(_, set) => {
                let value = match value {
                    Some(value) => value.to_owned(),
                    None => args.next().ok_or_else(|| format!("flag needs an argument: -{shown}"))?,
                };
                set(&mut self.draft, &value)
                    .map_err(|why| format!("invalid value {value:?} for flag -{shown}: {why}"))?;
            }
        }
        Ok(None)
    }

    /// The command's own flag before the global one: `spec --rootless` is not `--rootless spec`.
    fn find(&self, name: &OsStr) -> Option<&'static Flag> {
        let name = name.to_str()?;
        let mut letters = name.chars();
        let letter = letters.next().filter(|_| letters.next().is_none());
        let is = |f: &&Flag| f.name == name || (letter.is_some() && f.short == letter);
        let own = self.topic.and_then(|t| flags::of(t.name).find(is));
        own.or_else(|| flags::of(GLOBAL).find(is))
    }
}

/// A dash alone is an operand, and so is a negative number.
fn is_option(arg: &OsStr) -> bool {
    matches!(arg.as_bytes(), [b'-', second, ..] if !second.is_ascii_digit())
}

/// Takes the dashes off and splits at the first `=`.
fn split(arg: &OsStr) -> (&OsStr, Option<&OsStr>) {
    let bytes = arg.as_bytes();
    let bytes = bytes.strip_prefix(b"--").or_else(|| bytes.strip_prefix(b"-")).unwrap_or(bytes);
    match bytes.iter().position(|b| *b == b'=') {
        Some(at) => {
            let (name, value) = bytes.split_at(at);
            (OsStr::from_bytes(name), Some(OsStr::from_bytes(value.get(1..).unwrap_or_default())))
        }
        None => (OsStr::from_bytes(bytes), None),
    }
}

/// Checks the number of operands, in runc's words.
fn count(topic: &Topic, given: usize) -> Result<(), String> {
    let name = topic.name;
    match topic.count {
        (min, Some(max)) if min == max && given != min => {
            Err(format!("{name:?} requires exactly {min} argument(s)"))
        }
        (min, _) if given < min => Err(format!("{name:?} requires a minimum of {min} argument(s)")),
        (_, Some(max)) if given > max => Err(format!("{name:?} requires a maximum of {max} argument(s)")),
        _ => Ok(()),
    }
}

/// Decides what several global options say together.
fn settle(global: &mut Global) -> Result<(), String> {
    if global.debug {
        global.log_level = log::Level::Debug;
    } else {
        global.debug = global.log_level == log::Level::Debug;
    }
    if global.cgroup_manager == Some(Manager::Systemd) {
        global.systemd_cgroup = true;
    } else if global.cgroup_manager.is_some() && global.systemd_cgroup {
        return Err("--systemd-cgroup contradicts --cgroup-manager".to_owned());
    }
    if let Some(root) = &mut global.root {
        *root = absolute(root)?;
        if root == Path::new("/") {
            return Err("Option --root argument should not be set to /".to_owned());
        }
    }
    Ok(())
}

/// Absolute, so that it holds after a change of directory, and without `.` and `..`.
fn absolute(path: &Path) -> Result<PathBuf, String> {
    let path = std::path::absolute(path).map_err(|e| format!("--root {}: {e}", path.display()))?;
    let mut clean = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::ParentDir => {
                clean.pop();
            }
            Component::Normal(name) => clean.push(name),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    Ok(clean)
}
