//! Who a container runs as: `--user` and `--group-add`, looked up in the container's own files.

#![forbid(unsafe_code)]

use crate::error::{Context as _, Error, Result};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use std::fs::File;
use std::io::Read as _;
use std::os::fd::AsFd;

/// More than any real file, and no more than an image may cost.
const LARGEST: u64 = 8 << 20;

/// A process's ids, as config.json has them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct User {
    /// `uid`.
    pub uid: u32,
    /// `gid`.
    pub gid: u32,
    /// `additionalGids`; the first is `gid`, or dropping it would open what it is shut out of (CVE-2022-36109).
    pub groups: Vec<u32>,
    /// The home directory that /etc/passwd says.
    pub home: Option<String>,
}

/// What a container's /etc/passwd and /etc/group say.
#[derive(Debug, Clone, Default)]
pub struct Accounts {
    passwd: String,
    group: String,
}

impl Accounts {
    /// Reads both in `root`; what is missing says nothing.
    ///
    /// # Errors
    /// Those of openat2(2) and read(2); what is no file, or too large.
    pub fn read(root: impl AsFd) -> Result<Self> {
        Ok(Self { passwd: file(&root, "etc/passwd")?, group: file(&root, "etc/group")? })
    }

    /// Of texts.
    pub fn new(passwd: impl Into<String>, group: impl Into<String>) -> Self {
        Self { passwd: passwd.into(), group: group.into() }
    }

    /// `user`, `uid`, `user:group`, `uid:gid`, or nothing, which is 0; with `--group-add`'s `more`.
    ///
    /// # Errors
    /// Names that the files do not have, and numbers that are too large.
    pub fn resolve(&self, spec: &str, more: &[String]) -> Result<User> {
        let (user, group) = spec.split_once(':').unwrap_or((spec, ""));
        let number = number(user)?;
        let entry = lines(&self.passwd).find(|fields| match (user, number) {
            ("", _) => fields.get(2) == Some(&"0"),
            (_, Some(uid)) => fields.get(2).and_then(|field| field.parse().ok()) == Some(uid),
            (name, None) => fields.first() == Some(&name),
        });
        let mut found = User::default();
        let name = match &entry {
            Some(fields) => {
                found.uid = id(fields, 2);
                found.gid = id(fields, 3);
                found.home = fields.get(5).filter(|home| !home.is_empty()).map(|home| (*home).to_owned());
                fields.first().copied().unwrap_or_default()
            }
            None => {
                found.uid = match (user, number) {
                    ("", _) => 0,
                    (_, Some(uid)) => uid,
                    _ => {
                        return Err(Error::invalid(format!(
                            "unable to find user {user}: no matching entries in passwd file"
                        )));
                    }
                };
                ""
            }
        };
        let mut groups = Vec::new();
        if !group.is_empty() {
            found.gid = self.group(group)?.ok_or_else(|| {
                Error::invalid(format!("unable to find group {group}: no matching entries in group file"))
            })?;
        } else if !name.is_empty() {
            let member =
                |fields: &Vec<&str>| fields.get(3).is_some_and(|list| list.split(',').any(|m| m == name));
            groups.extend(lines(&self.group).filter(member).map(|fields| id(&fields, 2)));
        }
        let mut added = Vec::new();
        for group in more {
            let gid = self.group(group)?.ok_or_else(|| {
                Error::invalid(format!("Unable to find group {group}: no matching entries in group file"))
            })?;
            if !added.contains(&gid) {
                added.push(gid);
            }
        }
        found.groups = vec![found.gid];
        // Each once, as `id` shows them.
        for gid in groups.into_iter().chain(added) {
            if !found.groups.contains(&gid) {
                found.groups.push(gid);
            }
        }
        Ok(found)
    }

    /// A group by its name or number; a number need not be in the file.
    fn group(&self, given: &str) -> Result<Option<u32>> {
        let by_name = lines(&self.group).find(|fields| fields.first() == Some(&given));
        match number(given)? {
            Some(gid) => Ok(Some(gid)),
            None => Ok(by_name.map(|fields| id(&fields, 2))),
        }
    }
}

/// A number, if it is one, and one that is an id.
fn number(text: &str) -> Result<Option<u32>> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|c| c.is_ascii_digit()) {
        return Ok(None);
    }
    match text.parse::<i32>() {
        Ok(id) if id >= 0 => Ok(Some(id.unsigned_abs())),
        _ => Err(Error::invalid("uids and gids must be in range 0-2147483647")),
    }
}

fn lines(text: &str) -> impl Iterator<Item = Vec<&str>> {
    let line = |line: &&str| !line.is_empty() && !line.starts_with('#');
    text.lines().map(str::trim).filter(line).map(|line| line.split(':').map(str::trim).collect())
}

fn id(fields: &[&str], at: usize) -> u32 {
    fields.get(at).and_then(|field| field.parse().ok()).unwrap_or(0)
}

fn file(root: &impl AsFd, path: &str) -> Result<String> {
    use rustix::io::Errno;
    // A link in an image may point anywhere; the kernel takes it as the container would. A fifo must not hang us.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let fd = match openat2(root, path, flags, Mode::empty(), resolve) {
        Ok(fd) => File::from(fd),
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(String::new()),
        Err(e) => return Err(Error::from(e).context(format!("open /{path} of the image"))),
    };
    let meta = fd.metadata().context(|| format!("stat /{path} of the image"))?;
    if !meta.is_file() || meta.len() > LARGEST {
        return Err(Error::invalid(format!("/{path} of the image is no file, or too large")));
    }
    let mut bytes = Vec::new();
    fd.take(LARGEST).read_to_end(&mut bytes).context(|| format!("read /{path} of the image"))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn accounts() -> Accounts {
        Accounts::new(
            "root:x:0:0:root:/root:/bin/sh\n# x\nalice:x:1000:1000:Alice:/home/alice:/bin/sh\nbob:x:1001:100::/:\n\
             broken\nnohome:x:1002:1002:::\n",
            "root:x:0:\nusers:x:100:alice,bob\nalice:x:1000:\naudio:x:29:alice\nvideo:x:44:\nwheel:x:10:root\n",
        )
    }

    #[test]
    fn a_user_is_found_as_docker_finds_it() {
        let find = |spec, more: &[&str]| {
            let more: Vec<_> = more.iter().map(|&group| group.to_owned()).collect();
            let user = accounts().resolve(spec, &more).expect(spec);
            (user.uid, user.gid, user.groups)
        };
        assert_eq!(find("", &[]), (0, 0, vec![0, 10]));
        assert_eq!(find("alice", &[]), (1000, 1000, vec![1000, 100, 29]));
        assert_eq!(find("1000", &[]), (1000, 1000, vec![1000, 100, 29]));
        assert_eq!(find("1234:4321", &[]), (1234, 4321, vec![4321]));
        assert_eq!(find("1234", &[]), (1234, 0, vec![0]));
        assert_eq!(find("bob:audio", &[]), (1001, 29, vec![29]));
        assert_eq!(find("0:5", &["video", "77", "44"]), (0, 5, vec![5, 44, 77]));
        assert_eq!(find("nohome", &[]), (1002, 1002, vec![1002]));
        assert_eq!(accounts().resolve("alice", &[]).expect("known").home.as_deref(), Some("/home/alice"));
        assert_eq!(accounts().resolve("nohome", &[]).expect("known").home, None);
    }

    #[test]
    fn whom_nobody_knows_is_refused_in_dockers_words() {
        let refused = |spec, more: &[&str]| {
            let more: Vec<_> = more.iter().map(|&group| group.to_owned()).collect();
            accounts().resolve(spec, &more).expect_err(spec).to_string()
        };
        assert_eq!(refused("nosuch", &[]), "unable to find user nosuch: no matching entries in passwd file");
        assert_eq!(
            refused("alice:nosuch", &[]),
            "unable to find group nosuch: no matching entries in group file"
        );
        assert_eq!(
            refused("", &["nosuch"]),
            "Unable to find group nosuch: no matching entries in group file"
        );
        for number in ["-1", "2147483648", "0:-1", "99999999999999"] {
            assert_eq!(refused(number, &[]), "uids and gids must be in range 0-2147483647");
        }
    }

    #[test]
    fn a_link_does_not_lead_out_of_the_root_and_a_fifo_does_not_hang() {
        let dir =
            std::env::temp_dir().join(format!("rrunctl-user-{}", crate::home::unique().expect("random")));
        std::fs::DirBuilder::new().recursive(true).create(dir.join("root/etc")).expect("mkdir");
        std::fs::write(dir.join("passwd"), "out:x:5:5:::\n").expect("write");
        std::fs::write(dir.join("root/passwd"), "in:x:7:7:::\n").expect("write");
        symlink("../../../../passwd", dir.join("root/etc/passwd")).expect("symlink");
        let root = File::open(dir.join("root")).expect("open");
        let found = Accounts::read(&root).expect("readable");
        assert_eq!(found.resolve("in", &[]).expect("known").uid, 7);
        assert!(found.resolve("out", &[]).is_err());
        rustix::fs::mknodat(&root, "etc/group", rustix::fs::FileType::Fifo, Mode::RUSR, 0).expect("mkfifo");
        assert!(Accounts::read(&root).is_err());
        std::fs::remove_dir_all(&dir).expect("remove");
    }
}
