//! What a template can call: Go's own functions, and docker's.

#![forbid(unsafe_code)]

use super::run::BYTES;
use serde_json::Value;
use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt::Write as _;

/// Go refuses wider ones in a format too.
const WIDEST: usize = 10_000;

/// Whether a function leaves the title of a column as it is.
pub(super) fn leaves_titles(name: &str) -> bool {
    matches!(
        name,
        "json" | "split" | "join" | "title" | "lower" | "upper" | "pad" | "truncate" | "index" | "slice"
    )
}

/// Neither null, nor false, 0, or empty.
pub(super) fn truth(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(is) => *is,
        Value::Number(n) => n.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

/// What Go calls what JSON has.
pub(super) fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(n) if n.is_f64() => "float64",
        Value::Number(_) => "int",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

/// As `{{.X}}` prints it.
pub(super) fn print(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("<no value>"),
        value => print_within(value, out),
    }
}

/// As Go's `%v` does.
fn print_within(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("<nil>"),
        Value::Bool(is) => out.push_str(if *is { "true" } else { "false" }),
        Value::Number(n) => out.push_str(&n.to_string()),
        Value::String(text) => out.push_str(text),
        Value::Array(items) => {
            out.push('[');
            for (n, item) in items.iter().enumerate() {
                if n > 0 {
                    out.push(' ');
                }
                print_within(item, out);
            }
            out.push(']');
        }
        Value::Object(map) => {
            let mut keys: Vec<_> = map.iter().collect();
            keys.sort_by_key(|(key, _)| *key);
            out.push_str("map[");
            for (n, (key, item)) in keys.into_iter().enumerate() {
                if n > 0 {
                    out.push(' ');
                }
                out.push_str(key);
                out.push(':');
                print_within(item, out);
            }
            out.push(']');
        }
    }
}

fn printed(value: &Value) -> String {
    let mut text = String::new();
    print_within(value, &mut text);
    text
}

type Called<'a> = Result<Cow<'a, Value>, String>;

/// What `name` makes of `arguments`; `and` and `or` were not decided by any but the last.
pub(super) fn call<'a>(name: &str, arguments: &[Cow<'a, Value>]) -> Called<'a> {
    let (least, most) = match name {
        "json" | "len" | "lower" | "not" | "title" | "upper" => (1, 1),
        "join" | "split" | "truncate" | "ge" | "gt" | "le" | "lt" | "ne" => (2, 2),
        "pad" => (3, 3),
        "eq" => (2, usize::MAX),
        "slice" => (1, 3),
        "print" | "println" => (0, usize::MAX),
        _ => (1, usize::MAX),
    };
    if !(least..=most).contains(&arguments.len()) {
        return Err(format!("wrong number of arguments: {}", arguments.len()));
    }
    let value = |n: usize| arguments[n].as_ref();
    let text = |n: usize| match arguments[n].as_ref() {
        Value::String(text) => Ok(text.as_str()),
        other => Err(format!("expected string; found {}", printed(other))),
    };
    let number = |n: usize| {
        let Some(number) = arguments[n].as_u64().and_then(|number| usize::try_from(number).ok()) else {
            return Err(format!("expected a whole number; found {}", printed(&arguments[n])));
        };
        Ok(number)
    };
    let ordered = |want: &[Ordering]| {
        let order = compare(value(0), value(1)).ok_or("incompatible types for comparison")?;
        Ok::<bool, String>(want.contains(&order))
    };
    let made: Value = match name {
        "and" | "or" => return Ok(arguments[arguments.len() - 1].clone()),
        "not" => (!truth(value(0))).into(),
        "eq" => (1..arguments.len()).any(|n| equal(value(0), value(n))).into(),
        "ne" => (!equal(value(0), value(1))).into(),
        "lt" => ordered(&[Ordering::Less])?.into(),
        "le" => ordered(&[Ordering::Less, Ordering::Equal])?.into(),
        "gt" => ordered(&[Ordering::Greater])?.into(),
        "ge" => ordered(&[Ordering::Greater, Ordering::Equal])?.into(),
        "json" => serde_json::to_string(value(0)).map_err(|e| e.to_string())?.into(),
        "lower" => text(0)?.to_lowercase().into(),
        "upper" => text(0)?.to_uppercase().into(),
        "title" => title(text(0)?).into(),
        "split" => text(0)?.split(text(1)?).collect::<Vec<_>>().into(),
        "join" => match value(0) {
            Value::Null => "".into(),
            Value::Array(items) => items.iter().map(printed).collect::<Vec<_>>().join(text(1)?).into(),
            other => return Err(format!("wrong type for value; expected []string; got {}", type_of(other))),
        },
        "truncate" => text(0)?.chars().take(number(1)?).collect::<String>().into(),
        "pad" => {
            let spaces = |n: usize| Ok::<String, String>(" ".repeat(number(n)?.min(WIDEST)));
            match text(0)? {
                "" => "".into(),
                text => format!("{}{text}{}", spaces(1)?, spaces(2)?).into(),
            }
        }
        "len" => match value(0) {
            Value::String(text) => text.len().into(),
            Value::Array(items) => items.len().into(),
            Value::Object(map) => map.len().into(),
            Value::Null => 0.into(),
            other => return Err(format!("len of type {}", type_of(other))),
        },
        "slice" => {
            let from = if arguments.len() > 1 { number(1)? } else { 0 };
            let to = |length: usize| if arguments.len() > 2 { number(2) } else { Ok(length) };
            match value(0) {
                Value::String(text) => {
                    text.get(from..to(text.len())?).ok_or("index out of range").map_err(str::to_owned)?.into()
                }
                Value::Array(items) => {
                    items.get(from..to(items.len())?).ok_or("index out of range")?.to_vec().into()
                }
                other => return Err(format!("can't slice item of type {}", type_of(other))),
            }
        }
        "index" => return index(arguments),
        "print" => {
            let mut out = String::new();
            for (n, argument) in arguments.iter().enumerate() {
                // Go's Print: a space between two of which neither is a string.
                if n > 0 && !argument.is_string() && !arguments[n - 1].is_string() {
                    out.push(' ');
                }
                print_within(argument, &mut out);
            }
            out.into()
        }
        "println" => {
            format!("{}\n", arguments.iter().map(|a| printed(a)).collect::<Vec<_>>().join(" ")).into()
        }
        "printf" => printf(text(0)?, &arguments[1..])?.into(),
        _ => return Err("it is not known".to_owned()),
    };
    Ok(Cow::Owned(made))
}

fn index<'a>(arguments: &[Cow<'a, Value>]) -> Called<'a> {
    let mut value = arguments[0].clone();
    for key in &arguments[1..] {
        let found = match (&*value, &**key) {
            // A label that is not there is the empty string, as in Go's map of strings.
            (Value::Null, Value::String(_)) => Value::String(String::new()),
            (Value::Object(map), Value::String(key)) => match map.get(key) {
                Some(found) => found.clone(),
                None if map.values().all(Value::is_string) => Value::String(String::new()),
                None => Value::Null,
            },
            (Value::Array(items), Value::Number(n)) => {
                let n = n.as_u64().and_then(|n| usize::try_from(n).ok());
                n.and_then(|n| items.get(n)).cloned().ok_or_else(|| format!("index out of range: {key}"))?
            }
            (Value::Array(_), key) => {
                return Err(format!("cannot index slice/array with type {}", type_of(key)));
            }
            (Value::Object(_), key) => {
                return Err(format!("value has type {}; should be string", type_of(key)));
            }
            (Value::Null, _) => return Err("index of untyped nil".to_owned()),
            (other, _) => return Err(format!("can't index item of type {}", type_of(other))),
        };
        value = Cow::Owned(found);
    }
    Ok(value)
}

fn equal(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(_), Some(_)) => compare(a, b) == Some(Ordering::Equal),
        _ => a == b,
    }
}

fn compare(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (Value::Number(x), Value::Number(y)) => match (x.as_i64(), y.as_i64()) {
            (Some(x), Some(y)) => Some(x.cmp(&y)),
            _ => x.as_f64()?.partial_cmp(&y.as_f64()?),
        },
        _ => None,
    }
}

fn title(text: &str) -> String {
    let mut first = true;
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        if first {
            out.extend(letter.to_uppercase());
        } else {
            out.push(letter);
        }
        first = !letter.is_alphanumeric();
    }
    out
}

/// `%[flags][width][.precision]verb`, as Go's fmt: `%!verb(type=value)` where they do not fit, and no error.
fn printf(format: &str, arguments: &[Cow<'_, Value>]) -> Result<String, String> {
    let mut out = String::new();
    let mut letters = format.chars().peekable();
    let mut arguments = arguments.iter();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            out.push(letter);
            continue;
        }
        let mut flags = String::new();
        while let Some(flag) = letters.next_if(|c| "+-# 0".contains(*c)) {
            flags.push(flag);
        }
        let mut digits = || {
            let mut n = 0usize;
            let mut some = false;
            while let Some(digit) = letters.peek().and_then(|c| c.to_digit(10)) {
                letters.next();
                n = (n * 10 + digit as usize).min(WIDEST);
                some = true;
            }
            some.then_some(n)
        };
        let width = digits().unwrap_or(0);
        let precision = match letters.next_if_eq(&'.') {
            Some(_) => {
                let mut n = 0usize;
                while let Some(digit) = letters.peek().and_then(|c| c.to_digit(10)) {
                    letters.next();
                    n = (n * 10 + digit as usize).min(WIDEST);
                }
                Some(n)
            }
            None => None,
        };
        let text = match letters.next() {
            None => "%!(NOVERB)".to_owned(),
            Some('%') => "%".to_owned(),
            Some(verb) => match arguments.next() {
                None => format!("%!{verb}(MISSING)"),
                Some(value) => verbatim(verb, &flags, precision, value),
            },
        };
        let missing = width.saturating_sub(text.chars().count());
        if flags.contains('-') {
            out.push_str(&text);
            out.extend(std::iter::repeat_n(' ', missing));
        } else {
            let zeros = flags.contains('0') && text.starts_with(|c: char| c.is_ascii_digit());
            out.extend(std::iter::repeat_n(if zeros { '0' } else { ' ' }, missing));
            out.push_str(&text);
        }
        if out.len() > BYTES {
            return Err("it prints too much".to_owned());
        }
    }
    let extra: Vec<String> =
        arguments.map(|value| format!("{}={}", type_of(value), printed(value))).collect();
    if !extra.is_empty() {
        let _ = write!(out, "%!(EXTRA {})", extra.join(", "));
    }
    Ok(out)
}

/// One argument after its verb.
fn verbatim(verb: char, flags: &str, precision: Option<usize>, value: &Value) -> String {
    let cut = |text: String| match precision {
        Some(n) => text.chars().take(n).collect(),
        None => text,
    };
    let hex = |text: &str| text.bytes().fold(String::new(), |out, byte| out + &format!("{byte:02x}"));
    match (verb, value) {
        ('v', _) => printed(value),
        ('s', Value::String(text)) => cut(text.clone()),
        ('s', Value::Array(_) | Value::Object(_)) => cut(printed(value)),
        ('q', Value::String(text)) => Value::String(text.clone()).to_string(),
        ('q', Value::Array(items)) => {
            format!("[{}]", items.iter().map(Value::to_string).collect::<Vec<_>>().join(" "))
        }
        ('d', Value::Number(n)) if !n.is_f64() => match n.as_i64() {
            Some(n) if flags.contains('+') => format!("{n:+}"),
            _ => n.to_string(),
        },
        ('x', Value::String(text)) => hex(text),
        ('X', Value::String(text)) => hex(text).to_uppercase(),
        ('x', Value::Number(n)) if n.is_u64() => format!("{:x}", n.as_u64().unwrap_or_default()),
        ('t', Value::Bool(is)) => is.to_string(),
        ('f', Value::Number(n)) => format!("{:.*}", precision.unwrap_or(6), n.as_f64().unwrap_or_default()),
        ('T', value) => type_of(value).to_owned(),
        (verb, value) => format!("%!{verb}({}={})", type_of(value), printed(value)),
    }
}
