//! `linux.resources.devices`: which devices the container may open and make.
//!
//! The rules are applied in order to a start where nothing is allowed, as runc does, and the devices that
//! every container has come last, so that a bundle which denies everything still has /dev/null.

#![forbid(unsafe_code)]

use crate::error::{Error, Result};
use crate::spec;
use std::fmt;

/// What kind of device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceType {
    /// Any.
    All,
    /// Block.
    Block,
    /// Character.
    Char,
}

/// A set of read, write and mknod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access(u8);

impl Access {
    /// Read, write and mknod.
    pub const ALL: Self = Self(7);
    const MKNOD: Self = Self(4);
    const LETTERS: [char; 3] = ['r', 'w', 'm'];

    /// Bits as in linux/bpf.h: 1 mknod, 2 read, 4 write.
    pub fn bpf(self) -> u32 {
        u32::from(self.0 >> 2 & 1) | u32::from(self.0 & 3) << 1
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letters = Self::LETTERS.iter().enumerate().filter(|(i, _)| self.0 >> i & 1 == 1);
        letters.map(|(_, c)| c).try_for_each(|c| write!(f, "{c}"))
    }
}

/// One rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceRule {
    /// Whether access is given or taken.
    pub allow: bool,
    /// Kind.
    pub typ: DeviceType,
    /// Major number; `None` is any.
    pub major: Option<u32>,
    /// Minor number; `None` is any.
    pub minor: Option<u32>,
    /// Which access.
    pub access: Access,
}

impl DeviceRule {
    const fn char(major: Option<u32>, minor: Option<u32>, access: Access) -> Self {
        Self { allow: true, typ: DeviceType::Char, major, minor, access }
    }

    /// Whether it sets everything, whatever came before.
    pub(super) fn is_all(&self) -> bool {
        self.typ == DeviceType::All
            && self.major.is_none()
            && self.minor.is_none()
            && self.access == Access::ALL
    }

    fn covers(&self, other: &Self) -> bool {
        fn any(mine: Option<u32>, other: Option<u32>) -> bool {
            mine.is_none() || mine == other
        }
        self.typ == other.typ && any(self.major, other.major) && any(self.minor, other.minor)
    }

    fn overlaps(&self, other: &Self) -> bool {
        fn meet(mine: Option<u32>, other: Option<u32>) -> bool {
            mine.is_none() || other.is_none() || mine == other
        }
        self.typ == other.typ && meet(self.major, other.major) && meet(self.minor, other.minor)
    }
}

/// The line for devices.allow and devices.deny.
struct Line<'a>(&'a DeviceRule);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |n: Option<u32>| n.map_or_else(|| "*".to_owned(), |n| n.to_string());
        let typ = match self.0.typ {
            DeviceType::All => return write!(f, "a"),
            DeviceType::Block => 'b',
            DeviceType::Char => 'c',
        };
        write!(f, "{typ} {}:{} {}", number(self.0.major), number(self.0.minor), self.0.access)
    }
}

impl fmt::Display for DeviceRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", if self.allow { "allow" } else { "deny" }, Line(self))
    }
}

/// What every container may use, whatever its bundle says.
const DEFAULT: [DeviceRule; 11] = [
    // Making a node gives no access to the device: without these, unpacking an image inside would fail.
    DeviceRule::char(None, None, Access::MKNOD),
    DeviceRule { typ: DeviceType::Block, ..DeviceRule::char(None, None, Access::MKNOD) },
    DeviceRule::char(Some(1), Some(3), Access::ALL),    // null
    DeviceRule::char(Some(1), Some(8), Access::ALL),    // random
    DeviceRule::char(Some(1), Some(7), Access::ALL),    // full
    DeviceRule::char(Some(5), Some(0), Access::ALL),    // tty
    DeviceRule::char(Some(1), Some(5), Access::ALL),    // zero
    DeviceRule::char(Some(1), Some(9), Access::ALL),    // urandom
    DeviceRule::char(Some(136), None, Access::ALL),     // pts/*
    DeviceRule::char(Some(5), Some(2), Access::ALL),    // ptmx
    DeviceRule::char(Some(10), Some(200), Access::ALL), // net/tun: engines came to rely on it (runc #3468)
];

/// Reads the listed rules and appends those that every container has.
pub(super) fn rules(listed: &[spec::DeviceRule]) -> Result<Vec<DeviceRule>> {
    let mut rules = Vec::with_capacity(listed.len() + DEFAULT.len());
    for (i, rule) in listed.iter().enumerate() {
        let rule = read(rule, i)?;
        if rule.is_all() {
            rules.clear();
            rules.push(rule);
        } else if rule.typ == DeviceType::All {
            // The kernel takes `a` with numbers or a part of the access for everything, which would allow more
            // than was asked.
            rules.push(DeviceRule { typ: DeviceType::Block, ..rule });
            rules.push(DeviceRule { typ: DeviceType::Char, ..rule });
        } else {
            rules.push(rule);
        }
    }
    rules.extend(DEFAULT);
    Ok(rules)
}

fn read(rule: &spec::DeviceRule, i: usize) -> Result<DeviceRule> {
    let at = |field: &str| format!("linux.resources.devices[{i}].{field}");
    let number = |value: Option<i64>, field: &str| match value {
        // -1 is how runc's own structures say "any", and callers copied it.
        None | Some(-1) => Ok(None),
        Some(value) => u32::try_from(value)
            .map(Some)
            .map_err(|_| Error::config(at(field), format!("{value} is not a device number"))),
    };
    let (major, minor) = (number(rule.major, "major")?, number(rule.minor, "minor")?);
    let typ = match rule.typ.as_str() {
        "" | "a" => DeviceType::All,
        "b" => DeviceType::Block,
        "c" => DeviceType::Char,
        typ => return Err(Error::config(at("type"), format!("invalid cgroup device type {typ:?}"))),
    };
    if rule.access.is_empty() {
        return Err(Error::config(at("access"), "device access cannot be empty"));
    }
    let mut access = Access(0);
    for c in rule.access.chars() {
        if c == 'a' && !rule.allow {
            // In runc's suite, where runc passes over it: what it can mean is all, and denying too much is safe.
            access = Access::ALL;
            continue;
        }
        let Some(bit) = Access::LETTERS.iter().position(|&letter| letter == c) else {
            let text = format!("invalid device access {:?}", rule.access);
            return Err(Error::config(at("access"), text).remedy("some of r, w and m"));
        };
        access.0 |= 1 << bit;
    }
    Ok(DeviceRule { allow: rule.allow, typ, major, minor, access })
}

/// Whether everything is allowed, whether then something is denied all the same, and what is allowed by a rule of
/// its own, each device once. A rule that takes a part out of a wider one does not show in the last.
pub(super) fn allowed(rules: &[DeviceRule]) -> (bool, bool, Vec<DeviceRule>) {
    let (mut all, mut cut, mut list) = (false, false, Vec::<DeviceRule>::new());
    for rule in rules {
        let same = |e: &&mut DeviceRule| (e.typ, e.major, e.minor) == (rule.typ, rule.major, rule.minor);
        if rule.is_all() {
            (all, cut) = (rule.allow, false);
            list.clear();
        } else if !rule.allow {
            cut = true;
            list.iter_mut().filter(|e| rule.covers(e)).for_each(|e| e.access.0 &= !rule.access.0);
            list.retain(|e| e.access.0 != 0);
        } else if let Some(e) = list.iter_mut().find(same) {
            e.access.0 |= rule.access.0;
        } else {
            list.push(*rule);
        }
    }
    (all, cut, list)
}

/// The writes for a v1 devices cgroup: file and value, in order.
///
/// The kernel keeps a default and a set of exceptions that match their numbers exactly, so a later rule does
/// not cut into an earlier, wider one: rules are resolved here first.
///
/// # Errors
/// A rule that takes a part out of an earlier, wider one, which the kernel cannot express.
pub fn v1_devices(rules: &[DeviceRule]) -> Result<Vec<(&'static str, String)>> {
    let mut allowed = false;
    let mut exceptions: Vec<DeviceRule> = Vec::new();
    for rule in rules {
        if rule.is_all() {
            (allowed, exceptions) = (rule.allow, Vec::new());
        } else if rule.allow != allowed {
            let held =
                exceptions.iter().any(|e| e.covers(rule) && e.access.0 & rule.access.0 == rule.access.0);
            if !held {
                exceptions.push(*rule);
            }
        } else {
            for exception in &mut exceptions {
                if rule.covers(exception) {
                    exception.access.0 &= !rule.access.0;
                } else if rule.overlaps(exception) && rule.access.0 & exception.access.0 != 0 {
                    let text = format!("device rule \"{rule}\" takes a part out of \"{exception}\"");
                    return Err(Error::config("linux.resources.devices", text)
                        .remedy("cgroup v1 cannot express that: list the parts instead"));
                }
            }
            exceptions.retain(|exception| exception.access.0 != 0);
        }
    }
    let (base, exception) = match allowed {
        true => ("devices.allow", "devices.deny"),
        false => ("devices.deny", "devices.allow"),
    };
    let mut writes = vec![(base, "a".to_owned())];
    writes.extend(exceptions.iter().map(|rule| (exception, Line(rule).to_string())));
    Ok(writes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::read::document;

    fn parse(json: &str) -> Result<Vec<DeviceRule>> {
        let resources: spec::Resources =
            document(format!("{{\"devices\":{json}}}").as_bytes()).expect("valid JSON");
        rules(&resources.devices)
    }

    fn v1(json: &str) -> Vec<(&'static str, String)> {
        v1_devices(&parse(json).expect("accepted")).expect("expressible")
    }

    #[test]
    fn an_invalid_rule_is_named() {
        for (json, path) in [
            (r#"[{"type":"z","access":"r"}]"#, "devices[0].type"),
            (r#"[{"type":"c","access":"r"},{"type":"c,b","access":"r"}]"#, "devices[1].type"),
            (r#"[{"type":"c","access":""}]"#, "devices[0].access"),
            (r#"[{"type":"c","access":"rwx"}]"#, "devices[0].access"),
            (r#"[{"type":"c","major":-5,"access":"r"}]"#, "devices[0].major"),
            (r#"[{"type":"c","minor":4294967296,"access":"r"}]"#, "devices[0].minor"),
        ] {
            let e = parse(json).expect_err(json).to_string();
            assert!(e.starts_with(&format!("config.json: linux.resources.{path}: ")), "{e}");
        }
    }

    #[test]
    fn a_denied_access_may_be_all() {
        let rules = |access| {
            parse(&format!(r#"[{{"allow":false,"type":"c","major":1,"minor":11,"access":"{access}"}}]"#))
        };
        assert_eq!(rules("rwa").expect("accepted"), rules("rwm").expect("accepted"));
        assert!(parse(r#"[{"allow":true,"type":"c","access":"ra"}]"#).is_err());
    }

    #[test]
    fn without_rules_only_the_default_devices_are_allowed() {
        let writes = v1("[]");
        assert_eq!(writes[0], ("devices.deny", "a".into()));
        assert_eq!(writes[1], ("devices.allow", "c *:* m".into()));
        assert_eq!(writes[9], ("devices.allow", "c 136:* rwm".into()));
        assert_eq!(writes.len(), 12);
    }

    #[test]
    fn a_privileged_container_needs_one_write() {
        assert_eq!(v1(r#"[{"allow":true,"access":"rwm"}]"#), [("devices.allow", "a".into())]);
    }

    #[test]
    fn a_rule_for_all_types_allows_no_more_than_it_says() {
        let writes = v1(r#"[{"allow":true,"major":1,"minor":2,"access":"r"}]"#);
        assert_eq!(writes[0], ("devices.deny", "a".into()));
        assert_eq!(writes[1], ("devices.allow", "b 1:2 r".into()));
        assert_eq!(writes[2], ("devices.allow", "c 1:2 r".into()));
    }

    #[test]
    fn rules_take_effect_in_order() {
        let json = r#"[{"allow":true,"type":"b","major":8,"minor":0,"access":"rw"},
            {"allow":false,"type":"b","major":8,"access":"w"}]"#;
        assert!(v1(json).contains(&("devices.allow", "b 8:0 r".into())));
        let hole = r#"[{"allow":true,"type":"b","major":8,"access":"rw"},
            {"allow":false,"type":"b","major":8,"minor":1,"access":"w"}]"#;
        let e = v1_devices(&parse(hole).expect("accepted")).expect_err("a hole").to_string();
        assert!(e.contains("takes a part out of \"allow b 8:* rw\""), "{e}");
    }

    #[test]
    fn a_rule_that_is_held_already_is_written_once() {
        let json = r#"[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","major":1,"minor":3,"access":"rw"},
            {"allow":true,"type":"c","major":1,"minor":3,"access":"rwm"}]"#;
        let nulls = v1(json).into_iter().filter(|(_, line)| line.starts_with("c 1:3 ")).count();
        assert_eq!(nulls, 2, "rw from the bundle, then rwm once");
    }

    #[test]
    fn access_bits_are_those_of_the_kernel() {
        assert_eq!((Access::ALL.bpf(), Access::MKNOD.bpf()), (7, 1));
        assert_eq!((Access(1).bpf(), Access(2).bpf()), (2, 4));
    }
}
