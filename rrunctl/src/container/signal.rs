//! Signals as people write them.

#![forbid(unsafe_code)]

use crate::error::{Error, Result};

/// The names of 1 to 31 on x86, ARM and RISC-V (signal(7)), and those that are two names of one.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];
const ALIASES: [(&str, u8); 4] = [("IOT", 6), ("CLD", 17), ("POLL", 29), ("UNUSED", 31)];

/// What glibc has for SIGRTMIN and SIGRTMAX, and Docker with it.
const REAL_TIME: (u8, u8) = (34, 64);

/// `SIGTERM`, `term`, `15`, `RTMIN+3`.
///
/// # Errors
/// What is none; 0 is none.
pub fn parse(text: &str) -> Result<u8> {
    let wrong = || Error::invalid(format!("invalid signal: {text}"));
    if let Ok(number) = text.parse::<u8>() {
        return if (1..=64).contains(&number) { Ok(number) } else { Err(wrong()) };
    }
    let upper = text.to_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(at) = NAMES.iter().position(|known| *known == name) {
        return u8::try_from(at + 1).map_err(|_| wrong());
    }
    if let Some((_, number)) = ALIASES.iter().find(|(known, _)| *known == name) {
        return Ok(*number);
    }
    let (first, last) = REAL_TIME;
    let number = match (name, name.strip_prefix("RTMIN+"), name.strip_prefix("RTMAX-")) {
        ("RTMIN", ..) => Some(first),
        ("RTMAX", ..) => Some(last),
        (_, Some(more), _) => more.parse().ok().and_then(|more: u8| first.checked_add(more)),
        (_, _, Some(less)) => less.parse().ok().and_then(|less: u8| last.checked_sub(less)),
        _ => None,
    };
    number.filter(|number| (first..=last).contains(number)).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_a_name_or_a_number() {
        for (text, number) in [
            ("SIGTERM", 15),
            ("kill", 9),
            ("2", 2),
            ("SIGRTMIN", 34),
            ("RTMIN+3", 37),
            ("SIGRTMAX-1", 63),
            ("sigcld", 17),
            ("SYS", 31),
        ] {
            assert_eq!(parse(text).expect(text), number);
        }
        for bad in ["", "0", "65", "FOO", "SIG", "-9", "RTMIN+31", "RTMAX-31", "RTMIN+", "INFO"] {
            assert_eq!(parse(bad).expect_err(bad).to_string(), format!("invalid signal: {bad}").trim_end());
        }
    }
}
