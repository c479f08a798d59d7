//! Sizes and ages as people read them, in docker's words.

#![forbid(unsafe_code)]

use crate::container::status::human_duration;

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

/// `5 weeks ago`.
pub(crate) fn ago(now: i64, then: i64) -> String {
    format!("{} ago", human_duration(now.saturating_sub(then)))
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
        assert_eq!(ago(100, 40), "About a minute ago");
        assert_eq!(ago(i64::MIN, i64::MAX), "Less than a second ago");
    }
}
