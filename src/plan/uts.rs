//! Names and clocks that belong to a namespace: `hostname`, `domainname`, `linux.timeOffsets`.

#![forbid(unsafe_code)]

use super::{Choice, Kind, Namespaces};
use crate::error::{Error, Result};
use crate::spec;
use std::fmt;

/// Host and domain name; `None` leaves it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    /// For sethostname(2).
    pub hostname: Option<String>,
    /// For setdomainname(2).
    pub domainname: Option<String>,
}

/// `__NEW_UTS_LEN` of linux/utsname.h.
const LEN_MAX: usize = 64;

impl Names {
    /// Decides `hostname` and `domainname`.
    ///
    /// # Errors
    /// A name without a UTS namespace for it, or too long for one.
    pub fn build(spec: &spec::Spec, namespaces: &Namespaces) -> Result<Self> {
        let name = |field: &str, value: &str| {
            if value.is_empty() {
                return Ok(None);
            }
            if !namespaces.has(Kind::Uts) {
                let text = format!("unable to set {field} without a private UTS namespace");
                return Err(Error::config(field, text));
            }
            if value.len() > LEN_MAX {
                let text = format!("{} bytes are more than the kernel's {LEN_MAX}", value.len());
                return Err(Error::config(field, text));
            }
            Ok(Some(value.to_owned()))
        };
        Ok(Self {
            hostname: name("hostname", &spec.hostname)?,
            domainname: name("domainname", &spec.domainname)?,
        })
    }
}

/// A line of /proc/PID/timens_offsets, which its `Display` is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimeOffset {
    /// `monotonic` or `boottime`.
    pub clock: &'static str,
    /// Seconds.
    pub secs: i64,
    /// Nanoseconds, below 1000000000.
    pub nanosecs: u32,
}

/// Decides `linux.timeOffsets`.
///
/// # Errors
/// Offsets without a new time namespace, an unknown clock, too many nanoseconds.
pub fn time_offsets(linux: &spec::Linux, namespaces: &Namespaces) -> Result<Vec<TimeOffset>> {
    const AT: &str = "linux.timeOffsets";
    if linux.time_offsets.is_empty() {
        return Ok(Vec::new());
    }
    match namespaces.get(Kind::Time) {
        Choice::Create => {}
        Choice::Join(_) => {
            let text = "time namespace enabled, but both namespace path and time offsets specified -- you \
                        may only provide one";
            return Err(Error::config(AT, text));
        }
        Choice::Inherit => {
            let text = "time namespace offsets specified, but time namespace isn't enabled in the config";
            return Err(Error::config(AT, text));
        }
    }
    linux
        .time_offsets
        .iter()
        .map(|(clock, offset)| {
            let clock = match clock.as_str() {
                "monotonic" => "monotonic",
                "boottime" => "boottime",
                _ => {
                    let text = "a time namespace has the clocks monotonic and boottime only";
                    return Err(Error::config(format!("{AT}.{clock:?}"), text));
                }
            };
            if offset.nanosecs >= 1_000_000_000 {
                let text = format!("{} is not below 1000000000", offset.nanosecs);
                return Err(Error::config(format!("{AT}.{clock}.nanosecs"), text));
            }
            Ok(TimeOffset { clock, secs: offset.secs, nanosecs: offset.nanosecs })
        })
        .collect()
}

impl fmt::Display for TimeOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.clock, self.secs, self.nanosecs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::read::document;

    fn spec(json: &str) -> (spec::Spec, Namespaces) {
        let spec: spec::Spec = document(json.as_bytes()).expect("readable");
        let listed = spec.linux.as_deref().map_or(&[][..], |linux| &linux.namespaces);
        let namespaces = Namespaces::build(listed).expect("namespaces");
        (spec, namespaces)
    }

    #[test]
    fn names_need_a_uts_namespace() {
        let names = |json: &str| {
            let (spec, namespaces) = spec(json);
            Names::build(&spec, &namespaces)
        };
        let uts = r#""linux":{"namespaces":[{"type":"uts"}]}"#;
        let out = names(&format!(r#"{{"hostname":"h",{uts}}}"#)).expect("accepted");
        assert_eq!(out, Names { hostname: Some("h".to_owned()), domainname: None });
        for field in ["hostname", "domainname"] {
            let e = names(&format!(r#"{{"{field}":"x"}}"#)).expect_err(field).to_string();
            assert!(e.contains(&format!("unable to set {field} without a private UTS namespace")), "{e}");
            let long = "x".repeat(65);
            assert!(names(&format!(r#"{{"{field}":"{long}",{uts}}}"#)).is_err());
        }
    }

    fn offsets(namespace: &str, offsets: &str) -> Result<Vec<TimeOffset>> {
        let (spec, namespaces) =
            spec(&format!(r#"{{"linux":{{"namespaces":[{namespace}],"timeOffsets":{offsets}}}}}"#));
        time_offsets(&spec.linux.expect("linux"), &namespaces)
    }

    #[test]
    fn offsets_are_lines_of_the_kernels() {
        let list = offsets(
            r#"{"type":"time"}"#,
            r#"{"monotonic":{"secs":-7,"nanosecs":999999999},"boottime":{"secs":1337}}"#,
        );
        let lines: Vec<_> = list.expect("accepted").iter().map(ToString::to_string).collect();
        assert_eq!(lines, ["boottime 1337 0", "monotonic -7 999999999"]);
    }

    #[test]
    fn offsets_need_a_new_time_namespace_and_a_clock() {
        let some = r#"{"monotonic":{"secs":1}}"#;
        let new = r#"{"type":"time"}"#;
        assert!(offsets("", some).expect_err("refused").to_string().contains("isn't enabled"));
        let joined = offsets(r#"{"type":"time","path":"/n"}"#, some).expect_err("refused").to_string();
        assert!(joined.contains("both namespace path and time offsets"));
        assert!(offsets(new, r#"{"realtime":{}}"#).is_err());
        assert!(offsets(new, r#"{"boottime":{"nanosecs":1000000000}}"#).is_err());
        assert!(offsets("", "{}").expect("accepted").is_empty());
    }
}
