//! Paths inside the container, as text: cleaning, and what may lie inside /proc.

#![forbid(unsafe_code)]

/// The path without `.`, `..` and doubled slashes, absolute; `..` stops at `/`. Symbolic links are not
/// known here: that the result stays inside the root is openat2's work, not this one's.
pub fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// Where a destination lies in relation to /proc.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InProc {
    /// Elsewhere.
    No,
    /// /proc itself.
    Top,
    /// A file below it that lxcfs and its like replace.
    Allowed,
    /// Below it.
    Refused,
}

/// Judges a clean absolute path. Whoever may mount below /proc can feed the runtime, and programs in the
/// container, a false /proc/self/attr or /proc/self/status (CVE-2019-16884).
pub fn in_proc(path: &str) -> InProc {
    const ALLOWED: [&str; 11] = [
        "cpuinfo",
        "diskstats",
        "meminfo",
        "stat",
        "swaps",
        "uptime",
        "loadavg",
        "slabinfo",
        "net/dev",
        "sys/kernel/ns_last_pid",
        "sys/crypto/fips_enabled",
    ];
    match path.strip_prefix("/proc") {
        Some("") => InProc::Top,
        Some(below) => match below.strip_prefix('/') {
            Some(below) if ALLOWED.contains(&below) => InProc::Allowed,
            Some(_) => InProc::Refused,
            None => InProc::No,
        },
        None => InProc::No,
    }
}

/// Whether `path` is `top` or below it, both clean.
pub fn is_below(path: &str, top: &str) -> bool {
    path.strip_prefix(top.trim_end_matches('/')).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clean_stays_inside() {
        for (path, want) in [
            ("/../../etc", "/etc"),
            ("//a//b/", "/a/b"),
            ("/a/./b/../c", "/a/c"),
            ("foo", "/foo"),
            ("/..", "/"),
        ] {
            assert_eq!(clean(path), want, "{path}");
        }
    }

    #[test]
    fn proc_is_judged_by_whole_components() {
        assert_eq!(in_proc("/proc"), InProc::Top);
        assert_eq!(in_proc("/proc/self/attr/exec"), InProc::Refused);
        assert_eq!(in_proc("/proc/meminfo"), InProc::Allowed);
        assert_eq!(in_proc("/proc/meminfo/x"), InProc::Refused);
        assert_eq!(in_proc("/process"), InProc::No);
        assert_eq!(in_proc("/a/proc/self"), InProc::No);
    }

    #[test]
    fn below_is_by_whole_components() {
        assert!(is_below("/a/b", "/a") && is_below("/a", "/a") && is_below("/a", "/"));
        assert!(!is_below("/ab", "/a"));
    }
}
