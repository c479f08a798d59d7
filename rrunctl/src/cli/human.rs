//! Sizes and ages as people read them, in docker's words.

#![forbid(unsafe_code)]

/// `4.87MB`: three significant digits, decimal, as the tables of images have it.
pub(crate) fn size(bytes: u64) -> String {
    decimal(bytes, 3)
}

/// `4.866MB`: four significant digits, as `system df` and the progress bars have it.
pub(crate) fn precise_size(bytes: u64) -> String {
    decimal(bytes, 4)
}

/// `7.772GiB`: four significant digits, binary, as memory is told.
pub(crate) fn memory(bytes: u64) -> String {
    scaled(bytes, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"], 4)
}

fn decimal(bytes: u64, digits: usize) -> String {
    scaled(bytes, 1000.0, &["B", "kB", "MB", "GB", "TB", "PB", "EB"], digits)
}

fn scaled(bytes: u64, base: f64, units: &[&str], digits: usize) -> String {
    #[expect(clippy::cast_precision_loss, reason = "four digits are shown")]
    let mut value = bytes as f64;
    let mut unit = 0;
    // Rounded before it is compared: docker says 1e+03kB where 999.9kB is rounded up.
    while rounded(value, digits).parse::<f64>().is_ok_and(|shown| shown >= base) && unit + 1 < units.len() {
        value /= base;
        unit += 1;
    }
    format!("{}{}", rounded(value, digits), units[unit])
}

/// Significant digits, without zeros at the end: C's `%.3g` below 10000.
fn rounded(value: f64, digits: usize) -> String {
    let whole = format!("{:.0}", value.trunc()).len();
    let text = format!("{value:.*}", digits.saturating_sub(if value < 1.0 { 0 } else { whole }));
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// `5 weeks`: how long some seconds are.
pub(crate) fn duration(seconds: i64) -> String {
    // Half an hour is rounded up, as docker does; the years are not.
    let hours = seconds.saturating_add(1800) / 3600;
    match seconds {
        ..1 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..60 => format!("{seconds} seconds"),
        60..120 => "About a minute".to_owned(),
        120..3600 => format!("{} minutes", seconds / 60),
        _ => match hours {
            ..2 => "About an hour".to_owned(),
            2..48 => format!("{hours} hours"),
            48..336 => format!("{} days", hours / 24),
            336..1440 => format!("{} weeks", hours / 24 / 7),
            1440..17520 => format!("{} months", hours / 24 / 30),
            _ => format!("{} years", seconds / 3600 / 24 / 365),
        },
    }
}

/// `5 weeks ago`.
pub(crate) fn ago(now: i64, then: i64) -> String {
    format!("{} ago", duration(now.saturating_sub(then)))
}

#[cfg(test)]
mod tests {
    use super::*;

    // The numbers are docker's own (github.com/docker/go-units 0.5).
    #[test]
    fn a_size_has_three_or_four_significant_digits() {
        for (bytes, three, four) in [
            (0, "0B", "0B"),
            (1, "1B", "1B"),
            (999, "999B", "999B"),
            (1000, "1kB", "1kB"),
            (1_010, "1.01kB", "1.01kB"),
            (4_866_500, "4.87MB", "4.867MB"),
            (12_345_678, "12.3MB", "12.35MB"),
            (123_456_789, "123MB", "123.5MB"),
            (999_999, "1MB", "1MB"),
            (3_420_000_000, "3.42GB", "3.42GB"),
            (u64::MAX, "18.4EB", "18.45EB"),
        ] {
            assert_eq!((size(bytes).as_str(), precise_size(bytes).as_str()), (three, four), "{bytes}");
        }
        assert_eq!(memory(8_345_100_288), "7.772GiB");
        assert_eq!(memory(1023), "1023B");
    }

    #[test]
    fn an_age_has_dockers_words() {
        for (seconds, words) in [
            (-5, "Less than a second"),
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (119, "About a minute"),
            (120, "2 minutes"),
            (3599, "59 minutes"),
            (3600, "About an hour"),
            (5399, "About an hour"),
            (5400, "2 hours"),
            (47 * 3600, "47 hours"),
            (48 * 3600, "2 days"),
            (13 * 86400, "13 days"),
            (14 * 86400, "2 weeks"),
            (35 * 86400, "5 weeks"),
            (60 * 86400, "2 months"),
            (729 * 86400, "24 months"),
            (730 * 86400, "2 years"),
            (i64::MAX - 1800, "292471208677 years"),
        ] {
            assert_eq!(duration(seconds), words, "{seconds}");
        }
        assert_eq!(ago(100, 40), "About a minute ago");
        assert_eq!(ago(i64::MIN, i64::MAX), "Less than a second ago");
    }
}
