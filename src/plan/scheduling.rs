//! How the process is scheduled: `process.scheduler`, `.ioPriority`, `.execCPUAffinity`,
//! `linux.memoryPolicy` and `linux.personality`, as the numbers the kernel takes.

#![forbid(unsafe_code)]

use super::bitmask::Bitmask;
use crate::error::{Error, Result};
use crate::spec;
use std::fmt;

/// What the parent says when sched_setattr(2) fails with EPERM in a container with `cpu.cpus`: the kernel
/// admits SCHED_DEADLINE only to tasks that may run on every CPU. Word for word as runc.
pub const CPUS_CONFLICT: &str = "process scheduler can't be used together with AllowedCPUs";

/// `SCHED_*` and their numbers (linux/sched.h).
const POLICIES: [(&str, u32); 7] = [
    ("SCHED_OTHER", 0),
    ("SCHED_FIFO", 1),
    ("SCHED_RR", 2),
    ("SCHED_BATCH", 3),
    ("SCHED_ISO", 4),
    ("SCHED_IDLE", 5),
    ("SCHED_DEADLINE", 6),
];

const SCHED_FLAGS: [(&str, u64); 7] = [
    ("SCHED_FLAG_RESET_ON_FORK", 0x01),
    ("SCHED_FLAG_RECLAIM", 0x02),
    ("SCHED_FLAG_DL_OVERRUN", 0x04),
    ("SCHED_FLAG_KEEP_POLICY", 0x08),
    ("SCHED_FLAG_KEEP_PARAMS", 0x10),
    ("SCHED_FLAG_UTIL_CLAMP_MIN", 0x20),
    ("SCHED_FLAG_UTIL_CLAMP_MAX", 0x40),
];

/// KEEP_POLICY and KEEP_PARAMS: the kernel does not look at the parameters.
const KEEP: u64 = 0x18;

/// Arguments of sched_setattr(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scheduler {
    /// `SCHED_*`, the name.
    pub name: &'static str,
    /// `SCHED_*`, the number.
    pub policy: u32,
    /// `SCHED_FLAG_*`.
    pub flags: u64,
    /// -20 to 19, for SCHED_OTHER and SCHED_BATCH.
    pub nice: i32,
    /// 1 to 99 for SCHED_FIFO and SCHED_RR, 0 for others.
    pub priority: u32,
    /// Nanoseconds, for SCHED_DEADLINE.
    pub runtime: u64,
    /// Nanoseconds, for SCHED_DEADLINE.
    pub deadline: u64,
    /// Nanoseconds, for SCHED_DEADLINE; 0 means the deadline.
    pub period: u64,
}

impl Scheduler {
    /// Whether fork(2) hands it down (sched(7), "The reset-on-fork flag for child processes").
    pub fn is_inherited(&self) -> bool {
        const DEADLINE: u32 = 6;
        const RESET_ON_FORK: u64 = 1;
        self.policy != DEADLINE && self.flags & RESET_ON_FORK == 0
    }

    /// Decides `process.scheduler`.
    ///
    /// # Errors
    /// An unknown policy or flag, or a parameter that the policy does not have.
    pub fn build(given: &spec::Scheduler) -> Result<Self> {
        let at = |field: &str| format!("process.scheduler.{field}");
        if given.policy.is_empty() {
            return Err(Error::config(at("policy"), "scheduler policy is required"));
        }
        let Some((name, policy)) = POLICIES.into_iter().find(|(name, _)| *name == given.policy) else {
            return Err(Error::config(at("policy"), format!("invalid scheduler policy: {}", given.policy)));
        };
        let mut flags = 0;
        for (i, flag) in given.flags.iter().enumerate() {
            match SCHED_FLAGS.iter().find(|(name, _)| name == flag) {
                Some((_, bit)) => flags |= bit,
                None => {
                    let text = format!("invalid scheduler flag: {flag}");
                    return Err(Error::config(at(&format!("flags[{i}]")), text));
                }
            }
        }
        if matches!(name, "SCHED_OTHER" | "SCHED_BATCH") && !(-20..=19).contains(&given.nice) {
            let text = format!("invalid scheduler.nice: {} when scheduler.policy is {name}", given.nice);
            return Err(Error::config(at("nice"), text));
        }
        let priority = Self::priority(name, flags, given.priority)?;
        if name != "SCHED_DEADLINE" && (given.runtime, given.deadline, given.period) != (0, 0, 0) {
            let text = "scheduler runtime/deadline/period can only be specified for SchedDeadline policy";
            return Err(Error::config("process.scheduler", text));
        }
        let out = Self {
            name,
            policy,
            flags,
            nice: given.nice,
            priority,
            runtime: given.runtime,
            deadline: given.deadline,
            period: given.period,
        };
        if name == "SCHED_DEADLINE" && flags & KEEP == 0 {
            out.check_deadline()?;
        }
        Ok(out)
    }

    fn priority(name: &str, flags: u64, priority: i32) -> Result<u32> {
        let error = |text: String| Err(Error::config("process.scheduler.priority", text));
        let real_time = matches!(name, "SCHED_FIFO" | "SCHED_RR");
        match u32::try_from(priority) {
            Ok(n) if real_time && ((1..=99).contains(&n) || flags & KEEP != 0) => Ok(n),
            Ok(0) if !real_time => Ok(0),
            _ if real_time => error(format!("{priority} is not in 1 to 99, which {name} needs")),
            _ => error("scheduler.priority can only be specified for SchedFIFO or SchedRR policy".to_owned()),
        }
    }

    /// The kernel answers each of these with a bare EINVAL (sched(7), "SCHED_DEADLINE").
    fn check_deadline(&self) -> Result<()> {
        let period = if self.period == 0 { self.deadline } else { self.period };
        let text = if self.runtime < 1024 {
            "SCHED_DEADLINE needs a runtime of 1024 nanoseconds or more"
        } else if self.runtime > self.deadline {
            "the runtime of SCHED_DEADLINE is above its deadline"
        } else if self.deadline > period {
            "the deadline of SCHED_DEADLINE is above its period"
        } else if period >= 1 << 63 {
            "the period of SCHED_DEADLINE is not below 2^63 nanoseconds"
        } else {
            return Ok(());
        };
        Err(Error::config("process.scheduler", text))
    }
}

/// Argument of ioprio_set(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IoPriority {
    /// `IOPRIO_CLASS_*`, the name.
    pub name: &'static str,
    /// 0 (highest) to 7.
    pub priority: u32,
    /// Class and priority in one number.
    pub value: u32,
}

impl IoPriority {
    /// Decides `process.ioPriority`.
    ///
    /// # Errors
    /// An unknown class, a priority beyond 0 to 7.
    pub fn build(given: &spec::IoPriority) -> Result<Self> {
        let priority = match u32::try_from(given.priority) {
            Ok(n @ 0..=7) => n,
            _ => {
                let text = format!("invalid ioPriority.Priority: {} is not in 0 to 7", given.priority);
                return Err(Error::config("process.ioPriority.priority", text));
            }
        };
        let (name, class) = match given.class.as_str() {
            "IOPRIO_CLASS_RT" => ("IOPRIO_CLASS_RT", 1),
            "IOPRIO_CLASS_BE" => ("IOPRIO_CLASS_BE", 2),
            "IOPRIO_CLASS_IDLE" => ("IOPRIO_CLASS_IDLE", 3),
            class => {
                let text = format!("invalid ioPriority.Class: {class:?}");
                return Err(Error::config("process.ioPriority.class", text));
            }
        };
        // IOPRIO_CLASS_SHIFT of linux/ioprio.h.
        Ok(Self { name, priority, value: class << 13 | priority })
    }
}

/// CPU affinity of an exec'd process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecAffinity {
    /// Before it joins the container's cgroup; `None` leaves it.
    pub initial: Option<Bitmask>,
    /// After that; `None` leaves it to the kernel.
    pub last: Option<Bitmask>,
}

impl ExecAffinity {
    /// Decides `process.execCPUAffinity`.
    ///
    /// # Errors
    /// A list that is none.
    pub fn build(given: Option<&spec::ExecCpuAffinity>) -> Result<Self> {
        let Some(given) = given else { return Ok(Self::default()) };
        let parse = |field: &str, name: &str, list: &str| {
            Bitmask::parse(list).map_err(|e| {
                Error::config(
                    format!("process.execCPUAffinity.{field}"),
                    format!("bad CPUAffinity.{name}: {e}"),
                )
            })
        };
        Ok(Self {
            initial: parse("initial", "Initial", &given.initial)?,
            last: parse("final", "Final", &given.last)?,
        })
    }
}

/// `MPOL_*` and their numbers (linux/mempolicy.h), in the order of the specification.
pub const MEMORY_MODES: [(&str, u32); 7] = [
    ("MPOL_DEFAULT", 0),
    ("MPOL_BIND", 2),
    ("MPOL_INTERLEAVE", 3),
    ("MPOL_WEIGHTED_INTERLEAVE", 6),
    ("MPOL_PREFERRED", 1),
    ("MPOL_PREFERRED_MANY", 5),
    ("MPOL_LOCAL", 4),
];

/// `MPOL_F_*` and their bits.
pub const MEMORY_FLAGS: [(&str, u32); 3] = [
    ("MPOL_F_NUMA_BALANCING", 1 << 13),
    ("MPOL_F_RELATIVE_NODES", 1 << 14),
    ("MPOL_F_STATIC_NODES", 1 << 15),
];

/// Arguments of set_mempolicy(2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryPolicy {
    /// `MPOL_*`, the name.
    pub name: &'static str,
    /// Mode and flags in one number.
    pub mode: u32,
    /// Memory nodes.
    pub nodes: Option<Bitmask>,
}

impl MemoryPolicy {
    /// Decides `linux.memoryPolicy`.
    ///
    /// # Errors
    /// An unknown mode or flag, nodes that the mode does not take, or none where it needs some.
    pub fn build(given: &spec::MemoryPolicy) -> Result<Self> {
        let at = |field: &str| format!("linux.memoryPolicy.{field}");
        let Some((name, mut mode)) = MEMORY_MODES.into_iter().find(|(name, _)| *name == given.mode) else {
            return Err(Error::config(at("mode"), format!("invalid memory policy mode {:?}", given.mode)));
        };
        let nodes = Bitmask::parse(&given.nodes).map_err(|e| {
            Error::config(at("nodes"), format!("invalid memory policy nodes {:?}: {e}", given.nodes))
        })?;
        for (i, flag) in given.flags.iter().enumerate() {
            match MEMORY_FLAGS.iter().find(|(name, _)| name == flag) {
                Some((_, bit)) => mode |= bit,
                None => {
                    let text = format!("invalid memory policy flag {flag:?}");
                    return Err(Error::config(at(&format!("flags[{i}]")), text));
                }
            }
        }
        if mode & 0xc000 == 0xc000 {
            let text = "MPOL_F_RELATIVE_NODES and MPOL_F_STATIC_NODES exclude each other";
            return Err(Error::config(at("flags"), text));
        }
        let count = nodes.as_ref().map_or(0, |nodes| nodes.numbers().count());
        match (name, count) {
            ("MPOL_DEFAULT" | "MPOL_LOCAL", 1..) => Err(Error::config(
                at("nodes"),
                format!("memory policy mode requires 0 nodes but got {count} ({name})"),
            )),
            ("MPOL_DEFAULT" | "MPOL_LOCAL" | "MPOL_PREFERRED", _) | (_, 1..) => {
                Ok(Self { name, mode, nodes })
            }
            _ => Err(Error::config(
                at("nodes"),
                format!("memory policy mode requires at least one node but got 0 ({name})"),
            )),
        }
    }
}

/// Argument of personality(2) for `linux.personality`, and a warning about flags, none of which is defined.
///
/// # Errors
/// A domain other than `LINUX` and `LINUX32`.
pub fn personality(given: &spec::Personality) -> Result<(u32, Option<String>)> {
    let domain = match given.domain.as_str() {
        "LINUX" => 0x0000,
        "LINUX32" => 0x0008,
        domain => {
            let text = format!("invalid personality domain {domain:?}, must be LINUX or LINUX32");
            return Err(Error::config("linux.personality.domain", text));
        }
    };
    let warning = (!given.flags.is_empty())
        .then(|| format!("ignoring unsupported personality flags: [{}]", given.flags.join(" ")));
    Ok((domain, warning))
}

impl fmt::Display for Scheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} nice={} priority={} flags={:#x}", self.name, self.nice, self.priority, self.flags)?;
        if self.name == "SCHED_DEADLINE" {
            write!(f, " runtime={} deadline={} period={}", self.runtime, self.deadline, self.period)?;
        }
        Ok(())
    }
}

impl fmt::Display for IoPriority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.priority)
    }
}

impl fmt::Display for MemoryPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} mode={:#x}", self.name, self.mode)?;
        self.nodes.as_ref().map_or(Ok(()), |nodes| write!(f, " nodes={nodes}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::read::{Read, document};

    fn read<T: Read>(json: &str) -> T {
        document(json.as_bytes()).expect("readable")
    }

    fn scheduler(json: &str) -> Result<Scheduler> {
        Scheduler::build(&read(json))
    }

    #[test]
    fn schedulers_become_numbers() {
        let out = scheduler(
            r#"{"policy":"SCHED_DEADLINE","nice":19,"runtime":42000,"deadline":100000,"period":1000000,
                "flags":["SCHED_FLAG_RESET_ON_FORK","SCHED_FLAG_RECLAIM"]}"#,
        )
        .expect("accepted");
        assert_eq!((out.policy, out.flags, out.nice, out.runtime), (6, 3, 19, 42000));
        let out = scheduler(r#"{"policy":"SCHED_BATCH","priority":0,"nice":19}"#).expect("accepted");
        assert_eq!((out.policy, out.nice), (3, 19));
        assert_eq!(scheduler(r#"{"policy":"SCHED_RR","priority":99}"#).expect("accepted").priority, 99);
    }

    #[test]
    fn schedulers_that_the_kernel_would_refuse_are_refused() {
        for (json, text) in [
            (r"{}", "scheduler policy is required"),
            (r#"{"policy":"SCHED_FOO"}"#, "invalid scheduler policy: SCHED_FOO"),
            (r#"{"policy":"SCHED_OTHER","nice":-21}"#, "invalid scheduler.nice: -21"),
            (r#"{"policy":"SCHED_BATCH","nice":20}"#, "invalid scheduler.nice: 20"),
            (r#"{"policy":"SCHED_OTHER","priority":1}"#, "scheduler.priority can only be specified"),
            (r#"{"policy":"SCHED_OTHER","priority":-1}"#, "scheduler.priority can only be specified"),
            (
                r#"{"policy":"SCHED_FIFO","priority":1,"runtime":1}"#,
                "scheduler runtime/deadline/period can only",
            ),
            (r#"{"policy":"SCHED_FIFO"}"#, "0 is not in 1 to 99"),
            (r#"{"policy":"SCHED_FIFO","priority":100}"#, "100 is not in 1 to 99"),
            (
                r#"{"policy":"SCHED_OTHER","flags":["X"]}"#,
                "process.scheduler.flags[0]: invalid scheduler flag: X",
            ),
            (r#"{"policy":"SCHED_DEADLINE","runtime":1,"deadline":9999}"#, "runtime of 1024"),
            (r#"{"policy":"SCHED_DEADLINE","runtime":9999,"deadline":2000}"#, "above its deadline"),
            (
                r#"{"policy":"SCHED_DEADLINE","runtime":2000,"deadline":9999,"period":5000}"#,
                "above its period",
            ),
        ] {
            let e = scheduler(json).expect_err(json).to_string();
            assert!(e.contains(text), "{json}: {e}");
        }
    }

    #[test]
    fn io_priorities_become_numbers() {
        let io = |json: &str| IoPriority::build(&read(json));
        let out = io(r#"{"class":"IOPRIO_CLASS_BE","priority":4}"#).expect("accepted");
        assert_eq!((out.value, out.to_string().as_str()), (2 << 13 | 4, "IOPRIO_CLASS_BE 4"));
        for json in [
            r#"{"class":"IOPRIO_CLASS_BE","priority":8}"#,
            r#"{"class":"IOPRIO_CLASS_BE","priority":-1}"#,
            r#"{"class":"IOPRIO_CLASS_NONE","priority":0}"#,
            r"{}",
        ] {
            assert!(io(json).is_err(), "{json}");
        }
    }

    #[test]
    fn affinities_are_lists_or_nothing() {
        let affinity = |json: &str| ExecAffinity::build(Some(&read(json)));
        let out = affinity(r#"{"initial":"0-1,1500","final":""}"#).expect("accepted");
        assert_eq!(out.initial.map(|mask| mask.to_string()).as_deref(), Some("0-1,1500"));
        assert_eq!(out.last, None);
        let e = affinity(r#"{"final":"3-1"}"#).expect_err("must be refused").to_string();
        assert_eq!(
            e,
            "config.json: process.execCPUAffinity.final: bad CPUAffinity.Final: invalid range: 3-1"
        );
        assert!(affinity(r#"{"initial":"a-b"}"#).is_err());
    }

    #[test]
    fn memory_policies_become_numbers() {
        let policy = |json: &str| MemoryPolicy::build(&read(json));
        let out = policy(r#"{"mode":"MPOL_INTERLEAVE","nodes":"2-3","flags":["MPOL_F_STATIC_NODES"]}"#);
        let out = out.expect("accepted");
        assert_eq!(
            (out.mode, out.to_string().as_str()),
            (3 | 1 << 15, "MPOL_INTERLEAVE mode=0x8003 nodes=2-3")
        );
        assert!(policy(r#"{"mode":"MPOL_PREFERRED","nodes":""}"#).is_ok());
        for (json, text) in [
            (r#"{"mode":"MPOL_FOO"}"#, "invalid memory policy mode \"MPOL_FOO\""),
            (r#"{"mode":"MPOL_BIND","nodes":"a"}"#, "invalid memory policy nodes \"a\""),
            (r#"{"mode":"MPOL_BIND","nodes":"0","flags":["X"]}"#, "invalid memory policy flag \"X\""),
            (r#"{"mode":"MPOL_BIND"}"#, "requires at least one node but got 0"),
            (r#"{"mode":"MPOL_LOCAL","nodes":"0"}"#, "requires 0 nodes but got 1"),
            (
                r#"{"mode":"MPOL_BIND","nodes":"0","flags":["MPOL_F_STATIC_NODES","MPOL_F_RELATIVE_NODES"]}"#,
                "exclude each other",
            ),
        ] {
            let e = policy(json).expect_err(json).to_string();
            assert!(e.contains(text), "{json}: {e}");
        }
    }

    #[test]
    fn personalities_have_two_domains_and_no_flags() {
        assert_eq!(personality(&read(r#"{"domain":"LINUX"}"#)).expect("accepted"), (0, None));
        let (domain, warning) =
            personality(&read(r#"{"domain":"LINUX32","flags":["A","B"]}"#)).expect("accepted");
        assert_eq!(domain, 8);
        assert_eq!(warning.as_deref(), Some("ignoring unsupported personality flags: [A B]"));
        assert!(personality(&read(r#"{"domain":"BSD"}"#)).is_err());
    }
}
