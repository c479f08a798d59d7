//! Capabilities: which a container has.

#![forbid(unsafe_code)]

use crate::error::{Error, Result};

/// Every capability by its number (linux/capability.h).
pub const ALL: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// What a container has unless something else is asked for, in Docker's order.
pub const DEFAULT: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// Names in full and in capitals, each once; `ALL` stays. `available` is the machine's, a bit for each number.
///
/// # Errors
/// What is no capability, and what this machine has not.
pub fn normalize(names: &[String], available: u64) -> Result<Vec<String>> {
    let mut normal = Vec::new();
    for name in names {
        let mut name = name.to_uppercase();
        if name != "ALL" {
            if !name.starts_with("CAP_") {
                name.insert_str(0, "CAP_");
            }
            match ALL.iter().position(|known| *known == name) {
                None => return Err(Error::invalid(format!("unknown capability: \"{name}\""))),
                Some(number) if available >> number & 1 == 0 => {
                    return Err(Error::invalid(format!(
                        "capability not supported by your kernel or not available in the current environment: \
                         \"{name}\""
                    )));
                }
                Some(_) => {}
            }
        }
        if !normal.contains(&name) {
            normal.push(name);
        }
    }
    Ok(normal)
}

/// Those of a container with `--cap-add`, `--cap-drop` and `--privileged`.
///
/// # Errors
/// Those of [`normalize`].
pub fn of(add: &[String], drop: &[String], privileged: bool, available: u64) -> Result<Vec<String>> {
    let every = || {
        let has = |(number, _): &(usize, &&str)| available >> number & 1 == 1;
        ALL.iter().enumerate().filter(has).map(|(_, name)| (*name).to_owned())
    };
    if privileged {
        return Ok(every().collect());
    }
    let (add, drop) = (normalize(add, available)?, normalize(drop, available)?);
    let is_all = |list: &[String]| list.iter().any(|name| name == "ALL");
    if is_all(&add) {
        return Ok(every().filter(|name| !drop.contains(name)).collect());
    }
    if is_all(&drop) {
        return Ok(add);
    }
    let mut has: Vec<_> =
        DEFAULT.iter().map(|name| (*name).to_owned()).filter(|name| !drop.contains(name)).collect();
    for name in add {
        if !has.contains(&name) {
            has.push(name);
        }
    }
    Ok(has)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: u64 = (1 << ALL.len()) - 1;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    fn has(add: &str, drop: &str) -> Vec<String> {
        of(&words(add), &words(drop), false, EVERY).expect("known")
    }

    #[test]
    fn capabilities_are_added_and_dropped() {
        assert_eq!(has("", ""), DEFAULT);
        assert_eq!(has("sys_time CAP_CHOWN", "mknod").len(), 14);
        assert!(has("sys_time", "mknod").contains(&"CAP_SYS_TIME".to_owned()));
        assert!(!has("sys_time", "mknod").contains(&"CAP_MKNOD".to_owned()));
        assert_eq!(has("ALL", "SYS_ADMIN").len(), 40);
        assert_eq!(has("chown", "all"), ["CAP_CHOWN"]);
        assert_eq!(of(&[], &words("ALL"), true, EVERY).expect("known"), ALL);
        assert_eq!(of(&[], &[], true, 0b101).expect("known"), ["CAP_CHOWN", "CAP_DAC_READ_SEARCH"]);
    }

    #[test]
    fn what_there_is_not_is_refused() {
        let refused = |name: &str, available| normalize(&words(name), available).expect_err(name).to_string();
        assert_eq!(refused("foo", EVERY), "unknown capability: \"CAP_FOO\"");
        assert_eq!(
            refused("BPF", 1),
            "capability not supported by your kernel or not available in the current environment: \"CAP_BPF\""
        );
    }
}
