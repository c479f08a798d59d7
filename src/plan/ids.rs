//! User and group ids of the container: `linux.uidMappings`, `linux.gidMappings`.

#![forbid(unsafe_code)]

use super::process::UserPlan;
use super::rootfs::{Mount, RootfsOp, RootfsPlan, Source};
use super::{Choice, Kind, Namespaces};
use crate::error::{Error, Result};
use crate::spec;
use std::fmt;

/// The most lines that uid_map and gid_map take (user_namespaces(7)); 5 before kernel 4.15.
pub const LINES_MAX: usize = 340;

/// One line of uid_map or gid_map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Line {
    /// First id inside.
    pub container: u32,
    /// First id outside.
    pub host: u32,
    /// How many.
    pub size: u32,
}

/// uid_map or gid_map; its `Display` is what is written there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IdMap(Vec<Line>);

impl IdMap {
    /// Checks mappings as the kernel would, which answers only EINVAL; `path` is their place in config.json.
    /// Those of an idmapped mount obey the same rules.
    ///
    /// # Errors
    /// No size, an overflow, an overlap inside or outside, too many lines.
    pub fn build(path: &str, listed: &[spec::IdMapping]) -> Result<Self> {
        if listed.len() > LINES_MAX {
            let text = format!("{} mappings are more than the kernel's {LINES_MAX}", listed.len());
            return Err(Error::config(path, text));
        }
        let mut lines: Vec<Line> = Vec::with_capacity(listed.len());
        for (i, entry) in listed.iter().enumerate() {
            let at = |field: &str| format!("{path}[{i}].{field}");
            let line = Line { container: entry.container_id, host: entry.host_id, size: entry.size };
            if line.size == 0 {
                return Err(Error::config(at("size"), "a mapping must have a size above 0"));
            }
            for (field, first) in [("containerID", line.container), ("hostID", line.host)] {
                // 4294967295 itself is no id, so the range has to end below it.
                if first.checked_add(line.size).is_none() {
                    let text = format!("{} ids from {first} on go beyond 4294967294", line.size);
                    return Err(Error::config(at(field), text));
                }
            }
            for (k, other) in lines.iter().enumerate() {
                for (field, first, earlier) in
                    [("containerID", line.container, other.container), ("hostID", line.host, other.host)]
                {
                    if overlap(first, line.size, earlier, other.size) {
                        return Err(Error::config(
                            at(field),
                            format!("the ids overlap those of {path}[{k}]"),
                        ));
                    }
                }
            }
            lines.push(line);
        }
        Ok(Self(lines))
    }

    /// Reads the text of /proc/PID/uid_map; `None` if it is none.
    pub fn parse(text: &str) -> Option<Self> {
        text.lines()
            .map(|line| {
                let mut numbers = line.split_ascii_whitespace().map(|number| number.parse().ok());
                Some(Line { container: numbers.next()??, host: numbers.next()??, size: numbers.next()?? })
            })
            .collect::<Option<_>>()
            .map(Self)
    }

    /// The lines.
    pub fn lines(&self) -> &[Line] {
        &self.0
    }

    /// Whether both map the same, in whatever order (the kernel sorts maps of more than five lines).
    pub fn same(&self, other: &Self) -> bool {
        let sorted = |map: &Self| {
            let mut lines = map.0.clone();
            lines.sort_unstable();
            lines
        };
        sorted(self) == sorted(other)
    }

    /// The id outside of an id inside.
    pub fn host_id(&self, container: u32) -> Option<u32> {
        self.0.iter().find_map(|line| {
            let offset = container.checked_sub(line.container)?;
            if offset < line.size { line.host.checked_add(offset) } else { None }
        })
    }
}

fn overlap(a: u32, a_size: u32, b: u32, b_size: u32) -> bool {
    u64::from(a) < u64::from(b) + u64::from(b_size) && u64::from(b) < u64::from(a) + u64::from(a_size)
}

impl fmt::Display for IdMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|line| writeln!(f, "{} {} {}", line.container, line.host, line.size))
    }
}

/// What becomes of the ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ids {
    /// No user namespace of its own: ids are the runtime's.
    Inherit,
    /// A new user namespace with these maps.
    New {
        /// uid_map
        uid: IdMap,
        /// gid_map
        gid: IdMap,
    },
    /// The user namespace at a path.
    Join {
        /// The uid_map and gid_map it must have: containerd and CRI-O give the path and the maps. `None` if
        /// config.json has no maps.
        expected: Option<(IdMap, IdMap)>,
    },
}

/// What is said where the maps of a joined namespace are not [`Ids::Join::expected`]; as runc.
pub const MISMATCH: &str = "user namespaces enabled, but both namespace path and non-matching mapping \
                            specified -- you may only provide one";

impl Ids {
    /// Decides the mappings.
    ///
    /// # Errors
    /// Mappings without a user namespace, a new one without mappings or without a root, a bad mapping.
    pub fn build(linux: &spec::Linux, namespaces: &Namespaces) -> Result<Self> {
        let (uids, gids) = (&linux.uid_mappings, &linux.gid_mappings);
        let uid = IdMap::build("linux.uidMappings", uids)?;
        let gid = IdMap::build("linux.gidMappings", gids)?;
        match namespaces.get(Kind::User) {
            Choice::Inherit if uids.is_empty() && gids.is_empty() => Ok(Self::Inherit),
            Choice::Inherit => Err(Error::config(
                if uids.is_empty() { "linux.gidMappings" } else { "linux.uidMappings" },
                "user namespace mappings specified, but user namespace isn't enabled in the config",
            )),
            Choice::Join(_) => {
                let expected = !(uids.is_empty() && gids.is_empty());
                Ok(Self::Join { expected: expected.then_some((uid, gid)) })
            }
            Choice::Create => {
                for (path, map, what) in
                    [("linux.uidMappings", &uid, "user"), ("linux.gidMappings", &gid, "group")]
                {
                    if map.0.is_empty() {
                        let text = format!(
                            "user namespaces enabled, but no namespace path to join nor {what} mappings to \
                             apply specified"
                        );
                        return Err(Error::config(path, text));
                    }
                    if map.host_id(0).is_none() {
                        let text = format!("user namespaces enabled, but no root {what} mapping found");
                        return Err(Error::config(path, text));
                    }
                }
                Ok(Self::New { uid, gid })
            }
        }
    }

    /// Checks that the process's ids exist in a new user namespace; those of a joined one only the kernel
    /// knows.
    ///
    /// # Errors
    /// An id without a mapping.
    pub fn check(&self, user: &UserPlan) -> Result<()> {
        let Self::New { uid, gid } = self else { return Ok(()) };
        let groups = user
            .groups
            .iter()
            .enumerate()
            .map(|(i, id)| (format!("process.user.additionalGids[{i}]"), "additional gid", gid, *id));
        [
            ("process.user.uid".to_owned(), "uid", uid, user.uid),
            ("process.user.gid".to_owned(), "gid", gid, user.gid),
        ]
        .into_iter()
        .chain(groups)
        .try_for_each(|(path, what, map, id)| {
            map.host_id(id).map(|_| ()).ok_or_else(|| {
                Error::config(path, format!("cannot set {what} to unmapped {id} in user namespace"))
            })
        })
    }

    /// Checks the owners that file systems are made with: for one without a mapping the kernel has only EINVAL.
    ///
    /// # Errors
    /// A `uid=` or `gid=` without a mapping.
    pub fn check_mounts(&self, rootfs: &RootfsPlan) -> Result<()> {
        let Self::New { uid, gid } = self else { return Ok(()) };
        for op in &rootfs.ops {
            let RootfsOp::Mount(Mount { entry, source: Source::New(made), .. }) = op else { continue };
            for (key, value) in &made.data {
                let (map, name) = match key.to_bytes() {
                    b"uid" => (uid, "uid"),
                    b"gid" => (gid, "gid"),
                    _ => continue,
                };
                let id = value.as_ref().and_then(|value| value.to_str().ok()?.parse().ok());
                if id.is_some_and(|id| map.host_id(id).is_none()) {
                    let text = format!(
                        "cannot specify {name}= mount options for unmapped {name} in rootless containers"
                    );
                    return Err(Error::config(format!("mounts[{entry}].options"), text));
                }
            }
        }
        Ok(())
    }

    /// The runtime's id of a user of the container.
    pub fn host_uid(&self, uid: u32) -> Option<u32> {
        match self {
            Self::Inherit => Some(uid),
            Self::New { uid: map, .. } => map.host_id(uid),
            Self::Join { expected } => expected.as_ref()?.0.host_id(uid),
        }
    }

    /// The runtime's ids of the container's root, which owns what is made for the container; those of a
    /// joined namespace are in its maps.
    pub fn host_root(&self) -> Option<(u32, u32)> {
        match self {
            Self::Inherit => Some((0, 0)),
            Self::New { uid, gid } => Some((uid.host_id(0)?, gid.host_id(0)?)),
            Self::Join { expected } => {
                let (uid, gid) = expected.as_ref()?;
                Some((uid.host_id(0)?, gid.host_id(0)?))
            }
        }
    }
}

impl fmt::Display for Ids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut maps = |uid: &IdMap, gid: &IdMap| {
            let lines = |map: &IdMap| map.to_string().trim_end().replace('\n', ",");
            write!(f, "uid_map={} gid_map={}", lines(uid), lines(gid))
        };
        match self {
            Self::New { uid, gid } => maps(uid, gid),
            Self::Join { expected: Some((uid, gid)) } => maps(uid, gid),
            Self::Inherit => f.write_str("host"),
            Self::Join { expected: None } => f.write_str("of the joined namespace"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::read::document;

    fn build(namespace: &str, uid: &str, gid: &str) -> Result<Ids> {
        let json = format!(r#"{{"namespaces":[{namespace}],"uidMappings":{uid},"gidMappings":{gid}}}"#);
        let linux: spec::Linux = document(json.as_bytes()).expect("readable");
        Ids::build(&linux, &Namespaces::build(&linux.namespaces).expect("namespaces"))
    }

    const NEW: &str = r#"{"type":"user"}"#;
    const JOIN: &str = r#"{"type":"user","path":"/proc/1/ns/user"}"#;
    const ONE: &str = r#"[{"containerID":0,"hostID":1000,"size":10}]"#;

    #[test]
    fn a_map_is_what_the_kernel_reads() {
        let Ok(Ids::New { uid, .. }) = build(
            NEW,
            r#"[{"containerID":0,"hostID":1000,"size":10},{"containerID":10,"hostID":5,"size":1}]"#,
            ONE,
        ) else {
            panic!("must be accepted")
        };
        assert_eq!(uid.to_string(), "0 1000 10\n10 5 1\n");
        assert_eq!(
            [uid.host_id(0), uid.host_id(9), uid.host_id(10), uid.host_id(11)],
            [Some(1000), Some(1009), Some(5), None]
        );
        let parsed = IdMap::parse("        10          5          1\n         0       1000         10\n");
        assert!(parsed.is_some_and(|parsed| parsed.same(&uid) && parsed != uid));
        assert_eq!(IdMap::parse("0 1"), None);
        assert_eq!(IdMap::parse("0 1 x"), None);
    }

    #[test]
    fn mappings_the_kernel_would_refuse_are_refused() {
        for (uid, text) in [
            (r#"[{"size":0}]"#, "linux.uidMappings[0].size: a mapping must have a size above 0"),
            (r#"[{"containerID":4294967295,"size":1}]"#, "linux.uidMappings[0].containerID: 1 ids"),
            (r#"[{"hostID":4294967290,"size":6}]"#, "linux.uidMappings[0].hostID: 6 ids"),
            (
                r#"[{"size":5},{"containerID":4,"hostID":9,"size":1}]"#,
                "linux.uidMappings[1].containerID: the ids overlap those of linux.uidMappings[0]",
            ),
            (
                r#"[{"size":5},{"containerID":5,"hostID":4,"size":1}]"#,
                "linux.uidMappings[1].hostID: the ids overlap",
            ),
            (r#"[{"containerID":1,"hostID":1,"size":5}]"#, "no root user mapping found"),
            ("[]", "user namespaces enabled, but no namespace path to join nor user mappings"),
        ] {
            let e = build(NEW, uid, ONE).expect_err(uid).to_string();
            assert!(e.contains(text), "{uid}: {e}");
        }
        assert!(build(NEW, r#"[{"hostID":4294967289,"size":6}]"#, ONE).is_ok());
        let many = |n: u32| {
            let lines: Vec<_> =
                (0..n).map(|i| format!(r#"{{"containerID":{i},"hostID":{},"size":1}}"#, 1000 + i)).collect();
            format!("[{}]", lines.join(","))
        };
        assert!(build(NEW, &many(340), ONE).is_ok());
        assert!(build(NEW, &many(341), ONE).is_err());
    }

    #[test]
    fn mappings_and_the_namespace_go_together() {
        assert_eq!(build("", "[]", "[]").expect("accepted"), Ids::Inherit);
        assert!(build("", ONE, "[]").is_err());
        assert!(build("", "[]", ONE).is_err());
        assert!(build(NEW, ONE, "[]").is_err());
        assert_eq!(build(JOIN, "[]", "[]").expect("accepted"), Ids::Join { expected: None });
        let joined = build(JOIN, ONE, ONE).expect("accepted");
        assert!(matches!(joined, Ids::Join { expected: Some(_) }));
        assert_eq!(joined.host_root(), Some((1000, 1000)));
    }

    #[test]
    fn a_file_system_needs_mapped_owners() {
        use crate::plan::rootfs::{self, Cgroups, Given};
        let ids = build(NEW, ONE, ONE).expect("accepted");
        let check = |option: &str| {
            let json = format!(
                r#"{{"root":{{"path":"r"}},"linux":{{"namespaces":[{{"type":"mount"}},{NEW}]}},"mounts":[
                {{"destination":"/a","type":"devpts","source":"devpts","options":["mode=0620","{option}"]}}]}}"#
            );
            let spec: spec::Spec = document(json.as_bytes()).expect("readable");
            let namespaces =
                Namespaces::build(&spec.linux.as_ref().expect("linux").namespaces).expect("namespaces");
            let (bundle, cgroups) = (std::path::Path::new("/b"), Cgroups::V2(None));
            let given = Given {
                bundle,
                namespaces: &namespaces,
                cgroups: &cgroups,
                foreign_cgroups: false,
                rootless: true,
                no_pivot: false,
            };
            ids.check_mounts(&rootfs::build(&spec, &given).expect("planned"))
        };
        assert!(check("gid=9").is_ok() && check("uid=0").is_ok());
        let e = check("gid=10").expect_err("unmapped").to_string();
        assert!(e.contains("mounts[0].options: cannot specify gid= mount options"), "{e}");
        assert!(check("uid=10").is_err());
    }

    #[test]
    fn the_process_needs_mapped_ids() {
        let ids = build(NEW, ONE, ONE).expect("accepted");
        let user = |uid, gid, groups: &[u32]| UserPlan {
            uid,
            gid,
            groups: groups.to_vec(),
            keep_groups: false,
            umask: None,
        };
        assert!(ids.check(&user(9, 9, &[0, 9])).is_ok());
        for (user, path) in [
            (user(10, 0, &[]), "process.user.uid: cannot set uid to unmapped"),
            (user(0, 10, &[]), "process.user.gid"),
            (user(0, 0, &[1, 10]), "process.user.additionalGids[1]"),
        ] {
            assert!(ids.check(&user).expect_err(path).to_string().contains(path));
        }
    }
}
