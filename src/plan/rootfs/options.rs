//! `mounts[].options`: config.md's table, decided into attributes, propagation and data.

#![forbid(unsafe_code)]

use std::fmt;

/// `MOUNT_ATTR_*` of linux/mount.h.
pub mod attr {
    /// Read-only.
    pub const RDONLY: u64 = 0x1;
    /// No set-user-id.
    pub const NOSUID: u64 = 0x2;
    /// No devices.
    pub const NODEV: u64 = 0x4;
    /// No execution.
    pub const NOEXEC: u64 = 0x8;
    /// The mask of the three choices for access times; relatime is 0.
    pub const ATIME: u64 = 0x70;
    /// Access times never.
    pub const NOATIME: u64 = 0x10;
    /// Access times always.
    pub const STRICTATIME: u64 = 0x20;
    /// No access times of directories.
    pub const NODIRATIME: u64 = 0x80;
    /// Follow no symbolic link.
    pub const NOSYMFOLLOW: u64 = 0x20_0000;
}

/// Attributes of a mount to set and to clear; what is in neither stays as the source has it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attrs {
    /// `MOUNT_ATTR_*` to set.
    pub set: u64,
    /// `MOUNT_ATTR_*` to clear, before setting.
    pub clear: u64,
}

impl Attrs {
    pub(super) fn set(&mut self, bits: u64) {
        self.set |= bits;
        self.clear &= !bits;
    }

    fn unset(&mut self, bits: u64) {
        self.set &= !bits;
        self.clear |= bits;
    }

    // The kernel wants the whole mask cleared when the choice changes (mount_setattr(2)).
    fn atime(&mut self, choice: u64) {
        self.set = self.set & !attr::ATIME | choice;
        self.clear |= attr::ATIME;
    }

    // Withdraws a choice; only relatime, which is the kernel's default, remains.
    fn not_atime(&mut self, choice: u64) {
        if self.set & attr::ATIME == choice || self.clear & attr::ATIME == 0 {
            self.atime(0);
        }
    }

    /// Whether nothing is asked for.
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }

    fn apply(&mut self, name: &str) -> bool {
        match name {
            "ro" => self.set(attr::RDONLY),
            "rw" => self.unset(attr::RDONLY),
            "nosuid" => self.set(attr::NOSUID),
            "suid" => self.unset(attr::NOSUID),
            "nodev" => self.set(attr::NODEV),
            "dev" => self.unset(attr::NODEV),
            "noexec" => self.set(attr::NOEXEC),
            "exec" => self.unset(attr::NOEXEC),
            "nodiratime" => self.set(attr::NODIRATIME),
            "diratime" => self.unset(attr::NODIRATIME),
            "nosymfollow" => self.set(attr::NOSYMFOLLOW),
            "symfollow" => self.unset(attr::NOSYMFOLLOW),
            "noatime" => self.atime(attr::NOATIME),
            "strictatime" => self.atime(attr::STRICTATIME),
            "relatime" => self.atime(0),
            "atime" => self.not_atime(attr::NOATIME),
            "nostrictatime" => self.not_atime(attr::STRICTATIME),
            // relatime is what remains without it, too.
            "norelatime" => {}
            _ => return false,
        }
        true
    }
}

impl fmt::Display for Attrs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [(u64, &str, &str); 5] = [
            (attr::RDONLY, "ro", "rw"),
            (attr::NOSUID, "nosuid", "suid"),
            (attr::NODEV, "nodev", "dev"),
            (attr::NOEXEC, "noexec", "exec"),
            (attr::NODIRATIME, "nodiratime", "diratime"),
        ];
        let mut words = Vec::new();
        for (bit, set, clear) in NAMES {
            if self.set & bit != 0 {
                words.push(set);
            } else if self.clear & bit != 0 {
                words.push(clear);
            }
        }
        if self.set & attr::NOSYMFOLLOW != 0 {
            words.push("nosymfollow");
        } else if self.clear & attr::NOSYMFOLLOW != 0 {
            words.push("symfollow");
        }
        if self.clear & attr::ATIME != 0 {
            words.push(match self.set & attr::ATIME {
                attr::NOATIME => "noatime",
                attr::STRICTATIME => "strictatime",
                _ => "relatime",
            });
        }
        f.write_str(&words.join(","))
    }
}

/// Every option that is more than data for the file system, for `features`.
pub const NAMES: [&str; 64] = [
    "acl",
    "async",
    "atime",
    "bind",
    "defaults",
    "dev",
    "diratime",
    "dirsync",
    "exec",
    "idmap",
    "iversion",
    "lazytime",
    "loud",
    "mand",
    "noacl",
    "noatime",
    "nodev",
    "nodiratime",
    "noexec",
    "noiversion",
    "nolazytime",
    "nomand",
    "norelatime",
    "nostrictatime",
    "nosuid",
    "nosymfollow",
    "private",
    "ratime",
    "rbind",
    "rdev",
    "rdiratime",
    "relatime",
    "remount",
    "rexec",
    "ridmap",
    "rnoatime",
    "rnodev",
    "rnodiratime",
    "rnoexec",
    "rnorelatime",
    "rnostrictatime",
    "rnosuid",
    "rnosymfollow",
    "ro",
    "rprivate",
    "rrelatime",
    "rro",
    "rrw",
    "rshared",
    "rslave",
    "rstrictatime",
    "rsuid",
    "rsymfollow",
    "runbindable",
    "rw",
    "shared",
    "silent",
    "slave",
    "strictatime",
    "suid",
    "symfollow",
    "sync",
    "tmpcopyup",
    "unbindable",
];

/// The options of one mount.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Of the mount.
    pub attrs: Attrs,
    /// Of the mount and those below it.
    pub recursive: Attrs,
    /// `MS_*` that belong to the file system rather than to the mount.
    pub superblock: u32,
    /// `MS_SHARED` and its like, with or without `MS_REC`, in order.
    pub propagation: Vec<u32>,
    /// Some(recursive) for a bind.
    pub bind: Option<bool>,
    /// The mount that is there already is meant.
    pub remount: bool,
    /// Contents of the destination are copied into it.
    pub copy_up: bool,
    /// Some(recursive) for an idmapped mount.
    pub idmap: Option<bool>,
    /// What is left for the file system, in order.
    pub data: Vec<String>,
    /// Something was said about the mount itself, which for a bind then is all that holds ([`Options::of_bind`]).
    named: bool,
}

/// Propagation flags by name.
pub fn propagation(name: &str) -> Option<u32> {
    let flag = |name: &str| {
        Some(match name {
            "shared" => libc::MS_SHARED,
            "slave" => libc::MS_SLAVE,
            "private" => libc::MS_PRIVATE,
            "unbindable" => libc::MS_UNBINDABLE,
            _ => return None,
        } as u32)
    };
    flag(name).or_else(|| Some(flag(name.strip_prefix('r')?)? | libc::MS_REC as u32))
}

fn superblock(name: &str) -> Option<(u32, bool)> {
    let (flag, on) = match name {
        "sync" => (libc::MS_SYNCHRONOUS, true),
        "async" => (libc::MS_SYNCHRONOUS, false),
        "dirsync" => (libc::MS_DIRSYNC, true),
        "mand" => (libc::MS_MANDLOCK, true),
        "nomand" => (libc::MS_MANDLOCK, false),
        "iversion" => (libc::MS_I_VERSION, true),
        "noiversion" => (libc::MS_I_VERSION, false),
        "acl" => (libc::MS_POSIXACL, true),
        "noacl" => (libc::MS_POSIXACL, false),
        "lazytime" => (libc::MS_LAZYTIME, true),
        "nolazytime" => (libc::MS_LAZYTIME, false),
        "silent" => (libc::MS_SILENT, true),
        "loud" => (libc::MS_SILENT, false),
        _ => return None,
    };
    Some((flag as u32, on))
}

impl Options {
    /// Of a mount below which nothing is, as of every one of type `cgroup`: recursive options are not apart there.
    pub fn whole(&self) -> Attrs {
        let Attrs { set, clear } = self.recursive;
        let mut attrs = self.attrs;
        attrs.set = attrs.set & !clear | set;
        attrs.clear = attrs.clear & !(set & !attr::ATIME) | clear;
        attrs
    }

    /// Reads the table; the last of contradictory options wins, an unknown one is data.
    pub fn parse(options: &[String]) -> Self {
        let mut this = Self::default();
        for name in options {
            this.one(name);
        }
        this
    }

    /// The attributes of a bind mount, and those to clear where the kernel lets them be.
    ///
    /// Without any word about them the mount is as its source is; after one, as runc and crun have it, the words are the
    /// whole set: `mount --bind -o nosuid` of a read-only source can be written. Only access times stay without a
    /// word about them, and of those that a user namespace locks, what is not asked to go (config.md, "Mounts": the
    /// options are mount(8)'s, which does either, <https://github.com/util-linux/util-linux/issues/2433>).
    pub fn of_bind(&self) -> (Attrs, u64) {
        let mut attrs = self.attrs;
        if !self.named {
            return (attrs, 0);
        }
        let mut unnamed = attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC | attr::NOSYMFOLLOW;
        if attrs.set & attr::NODIRATIME != 0 || attrs.clear & attr::ATIME != 0 {
            attrs.clear |= attr::ATIME | attr::NODIRATIME & !attrs.set;
        } else if attrs.clear & attr::NODIRATIME != 0 {
            attrs.clear &= !attr::NODIRATIME;
            unnamed |= attr::NODIRATIME;
        }
        (attrs, unnamed & !(attrs.set | attrs.clear))
    }

    fn one(&mut self, name: &str) {
        match name {
            "" | "defaults" => {}
            "bind" => self.bind = Some(false),
            "rbind" => self.bind = Some(true),
            "remount" => self.remount = true,
            "tmpcopyup" => self.copy_up = true,
            "idmap" => self.idmap = Some(false),
            "ridmap" => self.idmap = Some(true),
            // They withdraw what was chosen before them, and not what a bind's source has, as with mount(8).
            "atime" if self.attrs.set & attr::ATIME != attr::NOATIME => self.named = true,
            "nostrictatime" if self.attrs.set & attr::ATIME != attr::STRICTATIME => self.named = true,
            _ => {
                if let Some(flags) = propagation(name) {
                    self.propagation.push(flags);
                } else if let Some((flag, on)) = superblock(name) {
                    self.superblock = if on { self.superblock | flag } else { self.superblock & !flag };
                } else if self.attrs.apply(name) {
                    self.named = true;
                } else if !name.strip_prefix('r').is_some_and(|name| self.recursive.apply(name)) {
                    self.data.push(name.to_owned());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Options {
        Options::parse(&text.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn every_option_of_the_table_is_known() {
        let names = NAMES.map(str::to_owned);
        assert_eq!(Options::parse(&names).data, Vec::<String>::new());
        assert!(NAMES.is_sorted());
    }

    #[test]
    fn unknown_options_are_data() {
        assert_eq!(parse("ro size=1m rfoo").data, ["size=1m", "rfoo"]);
    }

    #[test]
    fn the_last_of_contradictory_options_wins() {
        assert_eq!(parse("ro rw").attrs, Attrs { set: 0, clear: attr::RDONLY });
        assert_eq!(parse("rw ro").attrs, Attrs { set: attr::RDONLY, clear: 0 });
        assert_eq!(parse("rbind bind").bind, Some(false));
        assert_eq!(parse("sync async").superblock, 0);
        assert_eq!(parse("noatime strictatime").attrs.set, attr::STRICTATIME);
        assert_eq!(parse("noatime atime").attrs, Attrs { set: 0, clear: attr::ATIME });
    }

    #[test]
    fn a_word_about_a_bind_makes_the_words_the_whole_set() {
        use attr::*;
        let of = |text: &str| parse(text).of_bind();
        let attrs = |set, clear| Attrs { set, clear };
        assert_eq!(of("bind rprivate"), (attrs(0, 0), 0));
        assert_eq!(of("bind dev"), (attrs(0, NODEV), RDONLY | NOSUID | NOEXEC | NOSYMFOLLOW));
        assert_eq!(
            of("bind ro nosuid nodev noexec"),
            (attrs(RDONLY | NOSUID | NODEV | NOEXEC, 0), NOSYMFOLLOW)
        );
        let all = RDONLY | NOSUID | NODEV | NOEXEC | NOSYMFOLLOW;
        // Access times stay as they are unless one is chosen.
        for text in ["bind atime", "bind norelatime", "bind nostrictatime"] {
            assert_eq!(of(text), (attrs(0, 0), all), "{text}");
        }
        assert_eq!(of("bind relatime"), (attrs(0, ATIME | NODIRATIME), all));
        assert_eq!(of("bind nodiratime"), (attrs(NODIRATIME, ATIME), all));
        assert_eq!(of("bind diratime"), (attrs(0, 0), all | NODIRATIME));
    }

    #[test]
    fn withdrawing_another_choice_of_access_times_leaves_the_choice() {
        assert_eq!(parse("noatime nostrictatime").attrs.set, attr::NOATIME);
    }

    #[test]
    fn recursive_attributes_are_apart() {
        let options = parse("rro rnoatime nosuid");
        assert_eq!(options.recursive, Attrs { set: attr::RDONLY | attr::NOATIME, clear: attr::ATIME });
        assert_eq!(options.attrs, Attrs { set: attr::NOSUID, clear: 0 });
    }

    #[test]
    fn propagation_with_and_without_recursion() {
        assert_eq!(propagation("rslave"), Some((libc::MS_SLAVE | libc::MS_REC) as u32));
        assert_eq!(propagation("unbindable"), Some(libc::MS_UNBINDABLE as u32));
        assert_eq!(propagation("rr"), None);
    }
}
