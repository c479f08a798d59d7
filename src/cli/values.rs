//! Values of flags: Go's durations, Docker's sizes, signals, users. Strict, for a value that is half
//! understood has been root where a user was meant (CVE-2016-3697, crun's CVE-2026-30892).

#![forbid(unsafe_code)]

use std::time::Duration;

/// Declares an enum whose values are words on the command line.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $( $(#[$vdoc:meta])* $variant:ident = $word:literal ),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub enum $name { $( $(#[$vdoc])* $variant ),* }
        impl $name {
            /// The words, in the order of the variants.
            pub const WORDS: &'static [&'static str] = &[ $( $word ),* ];
            /// The variant of that word.
            pub fn parse(word: &str) -> Option<Self> {
                match word { $( $word => Some(Self::$variant), )* _ => None }
            }
        }
    };
}

words! {
    /// Who makes the cgroups.
    Manager {
        /// rrun itself, in cgroupfs.
        #[default]
        Cgroupfs = "cgroupfs",
        /// systemd, over D-Bus.
        Systemd = "systemd",
        /// Nobody: the container stays in the caller's.
        Disabled = "disabled",
    }
}
words! {
    /// How `list` and `ps` print.
    OutputFormat {
        /// Columns.
        #[default]
        Table = "table",
        /// One line of JSON.
        Json = "json",
    }
}
words! {
    /// How CRIU treats cgroups.
    ManageCgroups {
        /// Restore properties of those that it created.
        #[default]
        Soft = "soft",
        /// Restore all.
        Full = "full",
        /// Restore all, and fail if one exists.
        Strict = "strict",
        /// Leave them.
        Ignore = "ignore",
    }
}
words! {
    /// How CRIU locks network connections.
    NetworkLock {
        /// By iptables(8).
        #[default]
        Iptables = "iptables",
        /// By nftables.
        Nftables = "nftables",
        /// Not at all.
        Skip = "skip",
    }
}
words! {
    /// A shell that completes.
    Shell {
        /// bash with bash-completion.
        #[default]
        Bash = "bash",
        /// zsh.
        Zsh = "zsh",
        /// fish.
        Fish = "fish",
    }
}
words! {
    /// Whether cgroup permission errors are passed over.
    Rootless {
        /// If not root in the initial user namespace.
        #[default]
        Auto = "auto",
        /// Yes.
        True = "true",
        /// No.
        False = "false",
    }
}

/// `UID[:GID]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Group id; absent leaves the container's.
    pub gid: Option<u32>,
}

/// `[CONTROLLER[,CONTROLLER]:]PATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubCgroup {
    /// cgroup v1 controllers; empty on cgroup v2.
    pub controllers: Vec<String>,
    /// Relative to the container's cgroup.
    pub path: String,
}

/// `ADDRESS:PORT` of CRIU's page server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageServer {
    /// Host name or address, without brackets.
    pub address: String,
    /// TCP port.
    pub port: u16,
}

/// A boolean as Go's strconv takes it.
pub fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// A decimal number without sign, blank or leading zero.
fn digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'))
}

/// A user or group id. 4294967295 is `(uid_t)-1`, which setresuid(2) takes for "no change".
///
/// # Errors
/// Anything but a plain decimal number below 4294967295.
pub fn account(text: &str) -> Result<u32, String> {
    match text.parse::<u32>() {
        Ok(n) if digits(text) && n != u32::MAX => Ok(n),
        _ => Err("not a number from 0 to 4294967294; names are not looked up".to_owned()),
    }
}

/// `UID[:GID]`.
///
/// # Errors
/// Those of [`account`].
pub fn user(text: &str) -> Result<User, String> {
    let (uid, gid) = match text.split_once(':') {
        Some((uid, gid)) => (uid, Some(account(gid).map_err(|e| format!("bad gid: {e}"))?)),
        None => (text, None),
    };
    Ok(User { uid: account(uid).map_err(|e| format!("bad uid: {e}"))?, gid })
}

/// A group of `--additional-gids`.
///
/// # Errors
/// Those of [`account`].
pub fn additional_gid(text: &str) -> Result<u32, String> {
    account(text).map_err(|e| format!("additional-gids must be a positive number: {e}"))
}

/// A duration as Go writes it: `1h2m3.5s`, `100ms`; the units are h, m, s, ms, us, µs and ns.
///
/// # Errors
/// No number, no unit, a sign, or more than `u64` nanoseconds.
pub fn duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("invalid duration {text:?}");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text;
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| c != '.' && !c.is_ascii_digit()).ok_or_else(bad)?;
        let (number, tail) = rest.split_at(end);
        let end = tail.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        let nanos: u64 = match unit {
            "h" => 3_600_000_000_000,
            "m" => 60_000_000_000,
            "s" => 1_000_000_000,
            "ms" => 1_000_000,
            "us" | "µs" | "μs" => 1_000,
            "ns" => 1,
            _ => return Err(bad()),
        };
        let part = scaled(number, nanos).ok_or_else(bad)?;
        total = total.checked_add(part).ok_or_else(bad)?;
        rest = tail;
    }
    if text.is_empty() { Err(bad()) } else { Ok(Duration::from_nanos(total)) }
}

/// `number`, a decimal fraction such as `1.5` or `.5`, times `unit`, rounded down.
fn scaled(number: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let decimal = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if (whole.is_empty() && fraction.is_empty()) || !decimal(whole) || !decimal(fraction) {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let sum = whole.checked_mul(unit)?;
    // Eighteen digits are beyond what a u64 times a unit can tell apart, and their product fits a u128.
    let digits = fraction.len().min(18);
    let numerator: u128 =
        fraction.get(..digits).filter(|f| !f.is_empty()).map_or(Some(0), |f| f.parse().ok())?;
    let part = numerator * u128::from(unit) / 10u128.pow(u32::try_from(digits).ok()?);
    sum.checked_add(u64::try_from(part).ok()?)
}

/// A size in bytes as Docker writes it: `512M`, `1.5g`, `64 KiB`, units of 1024; `-1` is unlimited.
///
/// # Errors
/// No number, an unknown unit, another negative number, or more than `i64` bytes.
pub fn size(text: &str) -> Result<i64, String> {
    let bad = || format!("invalid size: {text:?}");
    if text == "-1" {
        return Ok(-1);
    }
    let end = text.find(|c: char| c != '.' && !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = unit.strip_prefix(' ').unwrap_or(unit).to_ascii_lowercase();
    let shift = match unit.as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        "p" | "pb" | "pib" => 50,
        _ => return Err(bad()),
    };
    if !number.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(bad());
    }
    let bytes = scaled(number, 1 << shift).ok_or_else(bad)?;
    i64::try_from(bytes).map_err(|_| bad())
}

/// Names of signals with their numbers on this architecture.
const SIGNALS: &[(&str, i32)] = &[
    ("HUP", libc::SIGHUP),
    ("INT", libc::SIGINT),
    ("QUIT", libc::SIGQUIT),
    ("ILL", libc::SIGILL),
    ("TRAP", libc::SIGTRAP),
    ("ABRT", libc::SIGABRT),
    ("IOT", libc::SIGIOT),
    ("BUS", libc::SIGBUS),
    ("FPE", libc::SIGFPE),
    ("KILL", libc::SIGKILL),
    ("USR1", libc::SIGUSR1),
    ("SEGV", libc::SIGSEGV),
    ("USR2", libc::SIGUSR2),
    ("PIPE", libc::SIGPIPE),
    ("ALRM", libc::SIGALRM),
    ("TERM", libc::SIGTERM),
    ("STKFLT", libc::SIGSTKFLT),
    ("CHLD", libc::SIGCHLD),
    ("CLD", libc::SIGCHLD),
    ("CONT", libc::SIGCONT),
    ("STOP", libc::SIGSTOP),
    ("TSTP", libc::SIGTSTP),
    ("TTIN", libc::SIGTTIN),
    ("TTOU", libc::SIGTTOU),
    ("URG", libc::SIGURG),
    ("XCPU", libc::SIGXCPU),
    ("XFSZ", libc::SIGXFSZ),
    ("VTALRM", libc::SIGVTALRM),
    ("PROF", libc::SIGPROF),
    ("WINCH", libc::SIGWINCH),
    ("IO", libc::SIGIO),
    ("POLL", libc::SIGPOLL),
    ("PWR", libc::SIGPWR),
    ("SYS", libc::SIGSYS),
];

/// The C library keeps the kernel's first two real-time signals; users mean its numbering, as kill(1) does.
const RTMIN: i32 = 34;
/// The last signal.
const RTMAX: i32 = 64;

/// The names for completion: without `SIG`, without real-time signals.
pub fn signal_names() -> impl Iterator<Item = &'static str> {
    SIGNALS.iter().map(|&(name, _)| name)
}

/// A signal: number from 0 to 64, or name in either case with or without `SIG`, `RTMIN+3` and `RTMAX-1`
/// among them.
///
/// # Errors
/// `unknown signal "FOO"`.
pub fn signal(text: &str) -> Result<i32, String> {
    let bad = || format!("unknown signal {text:?}");
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return text.parse().ok().filter(|n| *n <= RTMAX).ok_or_else(bad);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(&(_, number)) = SIGNALS.iter().find(|(known, _)| *known == name) {
        return Ok(number);
    }
    let number = if let Some(tail) = name.strip_prefix("RTMIN") {
        offset(tail, '+').map(|n| RTMIN + n)
    } else {
        name.strip_prefix("RTMAX").and_then(|tail| offset(tail, '-')).map(|n| RTMAX - n)
    };
    number.filter(|n| (RTMIN..=RTMAX).contains(n)).ok_or_else(bad)
}

/// What follows `RTMIN` or `RTMAX`: nothing, or the sign and at most two digits.
fn offset(tail: &str, sign: char) -> Option<i32> {
    match tail.strip_prefix(sign) {
        Some(number) if number.len() <= 2 && digits(number) => number.parse().ok(),
        None if tail.is_empty() => Some(0),
        _ => None,
    }
}

/// `[CONTROLLER[,CONTROLLER]:]PATH`.
///
/// # Errors
/// An empty controller.
pub fn sub_cgroup(text: &str) -> Result<SubCgroup, String> {
    let Some((controllers, path)) = text.split_once(':') else {
        return Ok(SubCgroup { controllers: Vec::new(), path: text.to_owned() });
    };
    let controllers: Vec<String> = controllers.split(',').map(str::to_owned).collect();
    if controllers.iter().any(String::is_empty) {
        return Err(format!("invalid --cgroup argument: {text} (empty <controller> prefix)"));
    }
    Ok(SubCgroup { controllers, path: path.to_owned() })
}

/// Whether the `--cgroup` arguments fit together.
///
/// # Errors
/// A controller named twice, or several paths of which one has no controller.
pub fn sub_cgroups(all: &[SubCgroup]) -> Result<(), String> {
    if let Some(bare) = all.iter().find(|c| c.controllers.is_empty()).filter(|_| all.len() > 1) {
        return Err(format!("invalid --cgroup argument: {} (missing <controller>: prefix)", bare.path));
    }
    let mut names: Vec<&String> = all.iter().flat_map(|c| &c.controllers).collect();
    names.sort_unstable();
    match names.windows(2).find(|w| w.first() == w.last()).and_then(|w| w.first()) {
        Some(twice) => {
            Err(format!("invalid --cgroup argument(s): controller {twice} specified multiple times"))
        }
        None => Ok(()),
    }
}

/// `ADDRESS:PORT`, IPv6 addresses in brackets.
///
/// # Errors
/// No address, no port, or a port that is no number from 1 to 65535.
pub fn page_server(text: &str) -> Result<PageServer, String> {
    let bad = || format!("invalid page server {text:?}: use --page-server ADDRESS:PORT");
    let (address, port) = text.rsplit_once(':').ok_or_else(bad)?;
    let bracketed = address.strip_prefix('[').and_then(|a| a.strip_suffix(']'));
    let address = bracketed.unwrap_or(address);
    if address.is_empty() || (bracketed.is_none() && address.contains(':')) || !digits(port) {
        return Err(bad());
    }
    match port.parse() {
        Ok(port) if port != 0 => Ok(PageServer { address: address.to_owned(), port }),
        _ => Err(bad()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_strictly_numeric() {
        assert_eq!(user("1000"), Ok(User { uid: 1000, gid: None }));
        assert_eq!(user("0:4294967294"), Ok(User { uid: 0, gid: Some(4_294_967_294) }));
        for bad in [
            "",
            ":",
            "1:",
            ":1",
            "1:2:3",
            "01",
            "00",
            "+1",
            " 1",
            "1 ",
            "1e3",
            "0x1",
            "-1",
            "4294967295",
            "4294967296",
            "18446744073709551616",
            "root",
            "1\n",
            "١",
        ] {
            assert!(user(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn durations_are_gos() {
        let ms = Duration::from_millis;
        for (text, want) in [
            ("5s", ms(5000)),
            ("100ms", ms(100)),
            ("1m", ms(60_000)),
            ("1h2m3.5s", ms(3_723_500)),
            (".5s", ms(500)),
            ("1.5h", ms(5_400_000)),
            ("0", ms(0)),
            ("1.s", ms(1000)),
            ("1000000ns", ms(1)),
            ("250us", Duration::from_micros(250)),
        ] {
            assert_eq!(duration(text), Ok(want), "{text}");
        }
        for bad in
            ["", "5", "s", ".s", "-5s", "5x", "5 s", "1..5s", "99999999999999999999s", "9999999h", "1s2"]
        {
            assert!(duration(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn sizes_are_dockers() {
        for (text, want) in [
            ("0", 0),
            ("512M", 512 << 20),
            ("1g", 1 << 30),
            ("1.5G", 3 << 29),
            ("64 KiB", 64 << 10),
            ("7b", 7),
            ("1tb", 1 << 40),
            ("2P", 2 << 50),
            ("-1", -1),
            ("1.0009765625k", 1025),
        ] {
            assert_eq!(size(text), Ok(want), "{text}");
        }
        for bad in [
            "",
            "foo",
            "-2",
            "-1M",
            "1x",
            "1kk",
            "M",
            ".5G",
            "1  k",
            "8192P",
            "9223372036854775808",
            "1.2.3M",
            "1é",
        ] {
            assert!(size(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn signals_have_numbers_and_names_in_either_case() {
        for (text, want) in [
            ("TERM", 15),
            ("SIGTERM", 15),
            ("term", 15),
            ("sigkill", 9),
            ("15", 15),
            ("0", 0),
            ("64", 64),
            ("RTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("rtmax", 64),
            ("RTMAX-14", 50),
            ("RTMIN+30", 64),
        ] {
            assert_eq!(signal(text), Ok(want), "{text}");
        }
        for bad in [
            "FOO",
            "SIGFOO",
            "65",
            "-1",
            "9999",
            "99999999999",
            "SIG",
            "RTMIN+31",
            "RTMIN-1",
            "RTMAX+1",
            "RTMIN+",
            " 9",
            "+9",
        ] {
            assert_eq!(signal(bad), Err(format!("unknown signal {bad:?}")));
        }
    }

    #[test]
    fn cgroup_arguments_name_each_controller_once() {
        let many = |args: &[&str]| -> Result<(), String> {
            let all: Result<Vec<_>, _> = args.iter().map(|a| sub_cgroup(a)).collect();
            sub_cgroups(&all?)
        };
        assert_eq!(many(&["cpu,cpuacct:a", "memory:b"]), Ok(()));
        assert_eq!(many(&["a"]), Ok(()));
        for bad in [&["a", "cpu:b"][..], &["cpu:a", "cpu:b"], &[":a"], &["cpu,:a"]] {
            assert!(many(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_page_server_has_an_address_and_a_port() {
        assert_eq!(page_server("[::1]:27"), Ok(PageServer { address: "::1".to_owned(), port: 27 }));
        assert_eq!(page_server("host:65535"), Ok(PageServer { address: "host".to_owned(), port: 65535 }));
        for bad in ["", "host", ":1", "host:", "host:0", "host:65536", "::1:27", "host:+1"] {
            assert!(page_server(bad).is_err(), "{bad:?}");
        }
    }
}
