//! `--filter KEY=VALUE`.

#![forbid(unsafe_code)]

use crate::error::{Error, Result};
use crate::store::Filter;
use time::format_description::well_known::Rfc3339;
use time::{Date, Duration, OffsetDateTime, PrimitiveDateTime, macros::format_description};

/// What `docker images` and `docker image prune` know.
pub(crate) fn images(filters: &[String], known: &[&str]) -> Result<Filter> {
    let mut filter = Filter::default();
    for text in filters {
        let (key, value) = pair(text, known)?;
        match key.as_str() {
            "reference" => filter.reference.push(value),
            "label" => filter.labels.push(value),
            "label!" => filter.without_labels.push(value),
            "dangling" => filter.dangling = Some(truth(&key, &value)?),
            "before" => filter.before = Some(value),
            "since" => filter.since = Some(value),
            _ => filter.until = Some(instant(&value, OffsetDateTime::now_utc())?),
        }
    }
    Ok(filter)
}

/// A key, which has to be one of those `known`, and its value; `label!=x` has the key `label!`.
pub(crate) fn pair(text: &str, known: &[&str]) -> Result<(String, String)> {
    let (key, value) = text
        .split_once('=')
        .ok_or_else(|| Error::invalid(format!("bad format of filter {text:?} (expected name=value)")))?;
    let key = key.trim().to_lowercase();
    if !known.contains(&key.as_str()) {
        return Err(Error::invalid(format!("invalid filter {key:?}"))
            .remedy(format!("there are {}", known.join(" "))));
    }
    Ok((key, value.trim().to_owned()))
}

/// `true` or `false`, as Go reads them.
pub(crate) fn truth(key: &str, value: &str) -> Result<bool> {
    match value.to_lowercase().as_str() {
        "1" | "t" | "true" => Ok(true),
        "0" | "f" | "false" => Ok(false),
        _ => Err(Error::invalid(format!("invalid filter '{key}={value}'")).remedy("true or false")),
    }
}

/// A time as docker takes it: seconds since 1970, RFC 3339, a date, or so long ago (`10m`, `1h30m`).
pub(crate) fn instant(text: &str, now: OffsetDateTime) -> Result<OffsetDateTime> {
    let invalid = || {
        Error::invalid(format!("invalid time {text:?}"))
            .remedy("seconds since 1970, 2026-01-31, 2026-01-31T10:00:00Z, or so long ago: 24h, 10m")
    };
    if text.trim_start_matches('-').starts_with(|c: char| c.is_ascii_digit())
        && let Some(nanoseconds) = decimal(text.strip_prefix('-').unwrap_or(text), 1_000_000_000)
    {
        let nanoseconds = if text.starts_with('-') { -nanoseconds } else { nanoseconds };
        return OffsetDateTime::from_unix_timestamp_nanos(nanoseconds).map_err(|_| invalid());
    }
    if let Some(ago) = go_duration(text) {
        return now.checked_sub(ago).ok_or_else(invalid);
    }
    if let Ok(instant) = OffsetDateTime::parse(text, &Rfc3339) {
        return Ok(instant);
    }
    let seconds = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]");
    if let Ok(instant) = PrimitiveDateTime::parse(text, seconds) {
        return Ok(instant.assume_utc());
    }
    let day = format_description!("[year]-[month]-[day]");
    Date::parse(text, day).map(|date| date.midnight().assume_utc()).map_err(|_| invalid())
}

/// A number with up to nine digits behind the point, times `unit`; more digits say nothing.
fn decimal(text: &str, unit: i128) -> Option<i128> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.len() + fraction.len() == 0 || whole.len() > 18 || !digits(whole) || !digits(fraction) {
        return None;
    }
    let fraction: String = fraction.chars().chain(std::iter::repeat('0')).take(9).collect();
    let (whole, fraction): (i128, i128) = (format!("0{whole}").parse().ok()?, fraction.parse().ok()?);
    whole.checked_mul(unit)?.checked_add(fraction * unit / 1_000_000_000)
}

/// Go's `time.ParseDuration`: `1h30m10s`, `1.5h`, `200ms`.
fn go_duration(text: &str) -> Option<Duration> {
    let mut sum: i128 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let number = |c: char| c.is_ascii_digit() || c == '.';
        let digits = rest.find(|c: char| !number(c))?;
        let unit = rest[digits..].find(number).map_or(rest.len(), |at| digits + at);
        let nanoseconds = match &rest[digits..unit] {
            "h" => 3_600_000_000_000,
            "m" => 60_000_000_000,
            "s" => 1_000_000_000,
            "ms" => 1_000_000,
            "us" | "µs" | "μs" => 1_000,
            "ns" => 1,
            _ => return None,
        };
        sum = sum.checked_add(decimal(&rest[..digits], nanoseconds)?)?;
        rest = &rest[unit..];
    }
    let seconds = i64::try_from(sum / 1_000_000_000).ok()?;
    let nanoseconds = i32::try_from(sum % 1_000_000_000).ok()?;
    (!text.is_empty()).then(|| Duration::new(seconds, nanoseconds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    #[test]
    fn a_time_is_a_date_or_so_long_ago() {
        let now = datetime!(2026-11-23 06:00:00 UTC);
        for (text, expected) in [
            ("24h", datetime!(2026-11-22 06:00:00 UTC)),
            ("1h30m", datetime!(2026-11-23 04:30:00 UTC)),
            ("1.5h", datetime!(2026-11-23 04:30:00 UTC)),
            ("1s500ms", datetime!(2026-11-23 05:59:58.5 UTC)),
            ("1000", datetime!(1970-01-01 00:16:40 UTC)),
            ("1795410000.000000001", datetime!(2026-11-23 05:00:00.000000001 UTC)),
            ("-1.5", datetime!(1969-12-31 23:59:58.5 UTC)),
            ("2026-01-31", datetime!(2026-01-31 00:00:00 UTC)),
            ("2026-01-31T10:00:00", datetime!(2026-01-31 10:00:00 UTC)),
            ("2026-01-31T10:00:00+01:00", datetime!(2026-01-31 09:00:00 UTC)),
        ] {
            assert_eq!(instant(text, now).expect(text), expected, "{text}");
        }
        for bad in [
            "",
            "x",
            "5d",
            "h",
            "99999999999999999999h",
            "1e300",
            "nan",
            ".",
            "-",
            "--1",
            "1.x",
            "1..2s",
            "1é",
            "é",
            "2026-13-01",
        ] {
            assert!(instant(bad, now).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_unknown_filter_is_refused_with_those_that_there_are() {
        let known = ["dangling", "label", "label!"];
        let filter =
            images(&["dangling=true".into(), "label=a=b".into(), "label!=c".into()], &known).expect("known");
        assert_eq!(filter.dangling, Some(true));
        assert_eq!((filter.labels, filter.without_labels), (vec!["a=b".into()], vec!["c".into()]));
        for (bad, text) in [
            ("x=1", "invalid filter \"x\" (there are dangling label label!)"),
            ("dangling", "bad format of filter \"dangling\" (expected name=value)"),
            ("dangling=maybe", "invalid filter 'dangling=maybe' (true or false)"),
        ] {
            assert_eq!(images(&[bad.into()], &known).expect_err(bad).to_string(), text);
        }
    }
}
