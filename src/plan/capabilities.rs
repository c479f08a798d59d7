//! `process.capabilities`: five sets as bit masks, and what of them cannot be granted.
//!
//! Names that no kernel knows and capabilities that cannot be granted are warnings, not errors: config.md
//! asks runtimes not to fail on them, and engines list capabilities newer than the machine's kernel.

#![forbid(unsafe_code)]

use crate::spec;
use std::collections::BTreeSet;
use std::fmt;

/// The names in the order of their numbers (linux/capability.h); `CAP_CHECKPOINT_RESTORE` came with 5.9.
pub const NAMES: [&str; 41] = [
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

/// The bit of a capability; the name is exact, as every other runtime wants it.
pub fn bit(name: &str) -> Option<u64> {
    NAMES.iter().position(|known| *known == name).map(|number| 1 << number)
}

/// The names of a mask, in the order of their numbers; a bit without a name is its number.
pub fn names(mask: u64) -> Vec<String> {
    (0..64)
        .filter(|number| mask & (1 << number) != 0)
        .map(|number| NAMES.get(number).map_or_else(|| number.to_string(), |name| (*name).to_owned()))
        .collect()
}

/// The five sets of a thread (capabilities(7)).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// What execve can ever give again.
    pub bounding: u64,
    /// What the kernel checks.
    pub effective: u64,
    /// What a file's inheritable set is masked with.
    pub inheritable: u64,
    /// What may be made effective.
    pub permitted: u64,
    /// What survives execve without a file's help.
    pub ambient: u64,
}

impl Capabilities {
    /// Reads the five lists; absent lists are empty, and absent `capabilities` mean none at all, as in runc.
    ///
    /// The second value holds warnings.
    pub fn build(listed: Option<&spec::Capabilities>) -> (Self, Vec<String>) {
        let Some(listed) = listed else { return (Self::default(), Vec::new()) };
        let mut unknown = BTreeSet::new();
        let mut set = |list: &[String]| {
            list.iter().fold(0, |mask, name| match bit(name) {
                Some(bit) => mask | bit,
                None => {
                    unknown.insert(name.clone());
                    mask
                }
            })
        };
        let mut caps = Self {
            bounding: set(&listed.bounding),
            effective: set(&listed.effective),
            inheritable: set(&listed.inheritable),
            permitted: set(&listed.permitted),
            ambient: set(&listed.ambient),
        };
        let mut warnings: Vec<String> = ignoring(unknown.into_iter().collect()).into_iter().collect();
        warnings.extend(caps.drop_impossible());
        (caps, warnings)
    }

    /// Takes away what the kernel cannot grant because of the other sets, and says so (capset(2), prctl(2)
    /// PR_CAP_AMBIENT); it would refuse the whole set otherwise.
    fn drop_impossible(&mut self) -> Vec<String> {
        let mut warnings = Vec::new();
        for name in names(self.effective & !self.permitted) {
            warnings.push(format!("can't make capability {name} effective: it is not in permitted"));
        }
        self.effective &= self.permitted;
        for name in names(self.inheritable & !self.bounding) {
            warnings.push(format!(
                "can't make capability {name} inheritable: operation not permitted, as it is not in bounding"
            ));
        }
        self.inheritable &= self.bounding;
        for name in names(self.ambient & !(self.permitted & self.inheritable)) {
            // Word for word what runc says, which its own tests look for.
            warnings.push(format!("can't raise ambient capability {name}: operation not permitted"));
        }
        self.ambient &= self.permitted & self.inheritable;
        warnings
    }

    /// Takes away what the runtime does not have itself: `available` is its bounding set, or every
    /// capability of the kernel where the container gets a new user namespace.
    pub fn restrict(&mut self, available: u64) -> Option<String> {
        let all = self.bounding | self.effective | self.inheritable | self.permitted | self.ambient;
        let sets = [
            &mut self.bounding,
            &mut self.effective,
            &mut self.inheritable,
            &mut self.permitted,
            &mut self.ambient,
        ];
        for set in sets {
            *set &= available;
        }
        ignoring(names(all & !available))
    }
}

fn ignoring(names: Vec<String>) -> Option<String> {
    (!names.is_empty())
        .then(|| format!("ignoring unknown or unavailable capabilities: [{}]", names.join(" ")))
}

impl fmt::Display for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sets = [
            ("bounding", self.bounding),
            ("effective", self.effective),
            ("inheritable", self.inheritable),
            ("permitted", self.permitted),
            ("ambient", self.ambient),
        ];
        for (i, (name, mask)) in sets.into_iter().enumerate() {
            write!(f, "{}{name}={mask:016x}", if i == 0 { "" } else { " " })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn the_table_is_the_kernels() {
        for (name, number) in [
            ("CAP_CHOWN", 0),
            ("CAP_SETPCAP", 8),
            ("CAP_SYS_ADMIN", 21),
            ("CAP_SYS_RESOURCE", 24),
            ("CAP_AUDIT_WRITE", 29),
            ("CAP_SYSLOG", 34),
            ("CAP_AUDIT_READ", 37),
            ("CAP_CHECKPOINT_RESTORE", 40),
        ] {
            assert_eq!(bit(name), Some(1 << number), "{name}");
        }
        assert_eq!(names(1 << 63 | 1), ["CAP_CHOWN", "63"]);
    }

    #[test]
    fn unknown_names_are_one_sorted_warning() {
        let listed = spec::Capabilities {
            bounding: list(&["UNKNOWN_CAP", "CAP_KILL", "cap_kill"]),
            permitted: list(&["KILL", "UNKNOWN_CAP"]),
            ..Default::default()
        };
        let (caps, warnings) = Capabilities::build(Some(&listed));
        assert_eq!(caps, Capabilities { bounding: 1 << 5, ..Default::default() });
        assert_eq!(warnings, ["ignoring unknown or unavailable capabilities: [KILL UNKNOWN_CAP cap_kill]"]);
    }

    #[test]
    fn what_the_other_sets_forbid_is_dropped_with_a_warning() {
        let listed = spec::Capabilities {
            bounding: list(&["CAP_KILL", "CAP_CHOWN"]),
            permitted: list(&["CAP_KILL", "CAP_CHOWN"]),
            effective: list(&["CAP_KILL", "CAP_SYSLOG"]),
            inheritable: list(&["CAP_KILL", "CAP_BPF"]),
            ambient: list(&["CAP_KILL", "CAP_CHOWN"]),
        };
        let (caps, warnings) = Capabilities::build(Some(&listed));
        assert_eq!((caps.effective, caps.inheritable, caps.ambient), (1 << 5, 1 << 5, 1 << 5));
        assert_eq!(
            warnings,
            [
                "can't make capability CAP_SYSLOG effective: it is not in permitted",
                "can't make capability CAP_BPF inheritable: operation not permitted, as it is not in bounding",
                "can't raise ambient capability CAP_CHOWN: operation not permitted",
            ]
        );
    }

    #[test]
    fn absent_capabilities_are_none() {
        assert_eq!(Capabilities::build(None), (Capabilities::default(), Vec::new()));
    }

    #[test]
    fn the_runtimes_own_lack_is_a_warning() {
        let all = list(&["CAP_SYS_RESOURCE", "CAP_KILL"]);
        let listed = spec::Capabilities {
            bounding: all.clone(),
            permitted: all.clone(),
            effective: all,
            ..Default::default()
        };
        let (mut caps, _) = Capabilities::build(Some(&listed));
        let warning = caps.restrict(!(1 << 24));
        assert_eq!(
            warning.as_deref(),
            Some("ignoring unknown or unavailable capabilities: [CAP_SYS_RESOURCE]")
        );
        assert_eq!((caps.bounding, caps.permitted, caps.effective), (1 << 5, 1 << 5, 1 << 5));
        assert_eq!(caps.restrict(u64::MAX), None);
    }
}
