//! Values as docker's flags take them, with its words for those that it does not: Go's numbers, sizes, durations.
//!
//! What reads a value gives what is wrong with it; [`one`] and [`each`] say of which flag it was.

#![forbid(unsafe_code)]

use crate::container::mount::parse_bool;
use crate::error::{Error, Result};
use std::fmt::Display;
use std::num::IntErrorKind;

/// What is wrong with a value.
pub(super) type Read<T> = std::result::Result<T, String>;

/// `invalid argument "x" for "-m, --memory" flag: …`.
pub(super) fn argument(flag: &str, value: &str, wrong: impl Display) -> Error {
    Error::invalid(format!("invalid argument {value:?} for {flag:?} flag: {wrong}"))
}

/// The value of a flag, if it was given.
pub(super) fn one<T>(flag: &str, given: Option<&str>, read: impl Fn(&str) -> Read<T>) -> Result<Option<T>> {
    given.map(|value| read(value).map_err(|wrong| argument(flag, value, wrong))).transpose()
}

/// The values of a flag, in the order in which they were given.
pub(super) fn each<T>(flag: &str, given: &[String], read: impl Fn(&str) -> Read<T>) -> Result<Vec<T>> {
    given.iter().map(|value| read(value).map_err(|wrong| argument(flag, value, wrong))).collect()
}

/// A flag that is off unless it is given: `--rm`, `--rm=false`.
pub(super) fn switch(flag: &str, given: Option<&str>) -> Result<bool> {
    Ok(one(flag, given, truth)?.unwrap_or_default())
}

/// `true`, `1`, `f`.
pub(super) fn truth(text: &str) -> Read<bool> {
    parse_bool(text).ok_or_else(|| syntax("ParseBool", text))
}

fn syntax(function: &str, text: &str) -> String {
    format!("strconv.{function}: parsing {text:?}: invalid syntax")
}

/// `64m`, `1.5 GiB`, `512`: bytes, in powers of 1024.
pub(super) fn size(text: &str) -> Read<i64> {
    let wrong = || format!("invalid size: '{text}'");
    let last = text.rfind(|c: char| c.is_ascii_digit() || c == '.' || c == ' ').ok_or_else(wrong)?;
    let number = if text[last..].starts_with(' ') { &text[..last] } else { &text[..=last] };
    let size: f64 = number.parse().map_err(|_| syntax("ParseFloat", number))?;
    if size < 0.0 {
        return Err(wrong());
    }
    let unit = &text[last + 1..];
    let bad = |unit: &str| format!("invalid suffix: '{unit}'");
    if unit.len() > 3 {
        return Err(bad(unit));
    }
    let unit = unit.to_lowercase();
    let power = match unit.strip_suffix("ib").or_else(|| unit.strip_suffix('b')).unwrap_or(&unit) {
        // A b after nothing is bytes, but there is no `ib`.
        "" if unit != "ib" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return Err(bad(&unit)),
    };
    let bytes = size * 1024_f64.powi(power);
    // Go makes something of 2⁶³ and above that depends on the processor.
    if bytes < 9_223_372_036_854_775_808.0 { Ok(bytes as i64) } else { Err(wrong()) }
}

/// Bytes, or -1 for without limit.
pub(super) fn size_or_unlimited(text: &str) -> Read<i64> {
    if text == "-1" { Ok(-1) } else { size(text) }
}

/// An integer as Go's source has it: `0x10`, `010` (octal), `1_000`.
pub(super) fn integer(text: &str) -> Read<i64> {
    let (negative, digits) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let wrong = || syntax("ParseInt", text);
    let beyond = || format!("strconv.ParseInt: parsing {text:?}: value out of range");
    let value = unsigned(digits).map_err(|kind| if kind == Wrong::Range { beyond() } else { wrong() })?;
    let value = if negative { -i128::from(value) } else { i128::from(value) };
    i64::try_from(value).map_err(|_| beyond())
}

/// The same without a sign, up to 65535.
pub(super) fn small(text: &str) -> Read<u16> {
    let beyond = || format!("strconv.ParseUint: parsing {text:?}: value out of range");
    let value = unsigned(text)
        .map_err(|kind| if kind == Wrong::Range { beyond() } else { syntax("ParseUint", text) })?;
    u16::try_from(value).map_err(|_| beyond())
}

#[derive(PartialEq, Eq)]
enum Wrong {
    Syntax,
    Range,
}

fn unsigned(text: &str) -> std::result::Result<u64, Wrong> {
    let lower = text.to_ascii_lowercase();
    let (base, digits) = match lower.as_bytes() {
        [b'0', b'x', ..] => (16, &lower[2..]),
        [b'0', b'o', ..] => (8, &lower[2..]),
        [b'0', b'b', ..] => (2, &lower[2..]),
        [b'0', _, ..] => (8, &lower[1..]),
        _ => (10, &*lower),
    };
    // Between two digits, or after the base.
    let joined = if base == 10 { digits } else { digits.strip_prefix('_').unwrap_or(digits) };
    if joined.starts_with(['_', '+', '-']) || joined.ends_with('_') || joined.contains("__") {
        return Err(Wrong::Syntax);
    }
    u64::from_str_radix(&joined.replace('_', ""), base).map_err(range_or_syntax)
}

fn range_or_syntax(e: std::num::ParseIntError) -> Wrong {
    match e.kind() {
        IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => Wrong::Range,
        _ => Wrong::Syntax,
    }
}

/// A decimal integer, for Go's `strconv.Atoi`; wrong is `invalid syntax` or `value out of range`.
pub(super) fn decimal(text: &str) -> std::result::Result<i64, &'static str> {
    text.parse().map_err(|e| match range_or_syntax(e) {
        Wrong::Syntax => "invalid syntax",
        Wrong::Range => "value out of range",
    })
}

/// A decimal integer without a sign, up to 65535.
pub(super) fn port(text: &str) -> Read<u16> {
    if text.starts_with('+') {
        return Err(syntax("ParseUint", text));
    }
    text.parse().map_err(|e| match range_or_syntax(e) {
        Wrong::Syntax => syntax("ParseUint", text),
        Wrong::Range => format!("strconv.ParseUint: parsing {text:?}: value out of range"),
    })
}

/// A decimal number or a fraction of processors (`1.5`, `1/4`, `1e-1`), in 10⁻⁹.
pub(super) fn nano_cpus(text: &str) -> Read<i64> {
    const NANO: i128 = 1_000_000_000;
    let wrong = || format!("failed to parse {text} as a rational number");
    let precise = || "value is too precise".to_owned();
    let digits = |text: &str| -> Option<i128> {
        let plain = text.bytes().all(|c| c.is_ascii_digit());
        if plain && text.len() <= 28 { text.parse().ok() } else { None }
    };
    let (negative, rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (over, under) = if let Some((over, under)) = rest.split_once('/') {
        (digits(over).ok_or_else(wrong)?, digits(under).filter(|n| *n != 0).ok_or_else(wrong)?)
    } else {
        let (number, power) = match rest.to_ascii_lowercase().split_once('e') {
            Some((number, power)) => (number.to_owned(), decimal(power).map_err(|_| wrong())?),
            None => (rest.to_owned(), 0),
        };
        let (whole, part) = number.split_once('.').unwrap_or((&number, ""));
        if whole.is_empty() && part.is_empty() {
            return Err(wrong());
        }
        // Zeros at the end are no precision.
        let part = part.trim_end_matches('0');
        let value = digits(&format!("0{whole}{part}")).ok_or_else(wrong)?;
        let power =
            i64::try_from(part.len()).ok().and_then(|len| power.checked_sub(len)).ok_or_else(wrong)?;
        let ten = |power: i64| 10_i128.checked_pow(u32::try_from(power).ok()?);
        match power {
            _ if value == 0 => (0, 1),
            0.. => (ten(power).and_then(|ten| value.checked_mul(ten)).ok_or_else(wrong)?, 1),
            _ => (value, ten(-power).ok_or_else(precise)?),
        }
    };
    let nano = over.checked_mul(NANO).ok_or_else(wrong)?;
    if nano % under != 0 {
        return Err(precise());
    }
    let nano = if negative { -nano / under } else { nano / under };
    i64::try_from(nano).map_err(|_| wrong())
}

/// `1h30m`, `500ms`, `1.5s`, `0`: nanoseconds.
pub(super) fn duration(text: &str) -> Read<i64> {
    let wrong = || format!("time: invalid duration {text:?}");
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(wrong());
    }
    let mut sum: i64 = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, behind) = rest.split_at(end);
        let (whole, part) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && part.is_empty() || part.contains('.') {
            return Err(wrong());
        }
        let end = behind.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(end);
        let nano: i64 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            "" => return Err(format!("time: missing unit in duration {text:?}")),
            _ => return Err(format!("time: unknown unit {unit:?} in duration {text:?}")),
        };
        let whole: i64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| wrong())? };
        // What is beyond 18 digits is below a nanosecond.
        let part = &part[..part.len().min(18)];
        let fraction = match part.parse::<i128>() {
            Ok(digits) => digits * i128::from(nano) / 10_i128.pow(part.len() as u32),
            Err(_) => 0,
        };
        let fraction = i64::try_from(fraction).map_err(|_| wrong())?;
        let more = whole.checked_mul(nano).and_then(|whole| whole.checked_add(fraction));
        sum = more.and_then(|more| sum.checked_add(more)).ok_or_else(wrong)?;
        rest = behind;
    }
    Ok(if negative { -sum } else { sum })
}

/// One line of CSV (RFC 4180): fields in double quotes may have commas.
pub(super) fn fields(text: &str) -> Read<Vec<String>> {
    if text.is_empty() {
        return Err("EOF".to_owned());
    }
    let (mut fields, mut rest) = (Vec::new(), text);
    let column = |rest: &str| text.len() - rest.len() + 1;
    loop {
        let field;
        if let Some(quoted) = rest.strip_prefix('"') {
            let mut inner = String::new();
            let mut after = quoted;
            rest = loop {
                let missing = |at| {
                    format!("parse error on line 1, column {at}: extraneous or missing \" in quoted-field")
                };
                let (part, behind) = after.split_once('"').ok_or_else(|| missing(text.len() + 1))?;
                inner.push_str(part);
                match behind.strip_prefix('"') {
                    Some(behind) => {
                        inner.push('"');
                        after = behind;
                    }
                    None if behind.is_empty() || behind.starts_with(',') => break behind,
                    None => return Err(missing(column(behind) - 1)),
                }
            };
            field = inner;
        } else {
            let (plain, behind) = rest.split_at(rest.find(',').unwrap_or(rest.len()));
            if let Some(at) = plain.find('"') {
                let at = column(rest) + at;
                return Err(format!("parse error on line 1, column {at}: bare \" in non-quoted-field"));
            }
            field = plain.to_owned();
            rest = behind;
        }
        fields.push(field);
        match rest.strip_prefix(',') {
            Some(more) => rest = more,
            None => return Ok(fields),
        }
    }
}

/// `KEY=VALUE`, or `KEY` with nothing.
pub(super) fn pair(text: &str) -> (String, String) {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    (key.to_owned(), value.to_owned())
}

/// A path as it is seen from the root, if it begins with a dot: `.`, `./x`, `../x`.
pub(super) fn absolute(path: &str) -> Option<String> {
    let here = path.starts_with('.').then(std::env::current_dir)?.ok()?;
    Some(crate::container::mount::clean(&format!("{}/{path}", here.to_str()?)))
}
