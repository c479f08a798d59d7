//! The root filesystem, decided: one ordered list of operations that the child runs without choices left.
//!
//! A container has one of three roots ([`Jail`]). Without a mount namespace that is created for it, its mounts are
//! made in the host's or a stranger's, below the root, and taken away with the container: the root is bound onto itself
//! for it, so that a read-only root and masked paths change no mount of others. The process is only chroot(2)ed.

#![forbid(unsafe_code)]

mod cgroup;
mod devices;
pub mod options;
pub mod paths;

pub use cgroup::{Cgroups, Hierarchy};
pub use options::{Attrs, NAMES as OPTIONS, attr};

use super::{Kind, Namespaces};
use crate::error::{Error, Result};
use crate::spec::{self, IdMapping, Spec};
use options::Options;
pub use paths::clean;
use paths::{InProc, in_proc, is_below};
use std::ffi::CString;
use std::fmt;
use std::path::{Path, PathBuf};

/// How the container is confined to its root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Jail {
    /// pivot_root(2) in a new mount namespace.
    Pivot,
    /// `--no-pivot`: the root is moved over `/` in a new mount namespace, then chroot(2).
    Move,
    /// chroot(2) alone, in a mount namespace that is not the container's.
    Chroot,
}

/// What the decisions depend on beside config.json.
#[derive(Debug)]
pub struct Given<'a> {
    /// Absolute path of the bundle.
    pub bundle: &'a Path,
    /// `linux.namespaces`.
    pub namespaces: &'a Namespaces,
    /// Where the container's cgroups are.
    pub cgroups: &'a Cgroups,
    /// They are the runtime's own, as it makes none for the container.
    pub foreign_cgroups: bool,
    /// The runtime is not root of the initial user namespace: the parent cannot clone mounts either.
    pub rootless: bool,
    /// `--no-pivot`.
    pub no_pivot: bool,
}

/// The root filesystem, decided.
#[derive(Debug, Clone)]
pub struct RootfsPlan {
    /// Absolute path on the host.
    pub path: PathBuf,
    /// `root.readonly`.
    pub readonly: bool,
    /// `MS_*` for `/` inside the container, 0 for the default (mounts of the host arrive, none leave).
    pub propagation: u32,
    /// How the process is confined.
    pub jail: Jail,
    /// What is done, in order.
    pub ops: Vec<RootfsOp>,
    /// Cleaned, in the order of `linux.readonlyPaths`.
    pub readonly_paths: Vec<CString>,
    /// Cleaned, in the order of `linux.maskedPaths`.
    pub masked_paths: Vec<CString>,
    /// SELinux context of mounts that the runtime adds.
    pub label: Option<CString>,
    /// The parent must open sources ([`crate::rootfs::open_sources`]).
    pub needs_parent: bool,
    /// For the log, a line each.
    pub warnings: Vec<String>,
}

impl RootfsPlan {
    /// Whether mounts are made that do not end with the container's processes.
    pub fn shares_mounts(&self) -> bool {
        let paths = !(self.readonly_paths.is_empty() && self.masked_paths.is_empty());
        let mounts = || self.ops.iter().any(|op| matches!(op, RootfsOp::Mount(_)));
        self.jail == Jail::Chroot && (self.readonly || paths || mounts())
    }
}

/// One operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RootfsOp {
    /// A mount.
    Mount(Mount),
    /// A device, fifo included.
    Device(Device),
    /// A symbolic link; an existing file is left, but for `replace`.
    Symlink(Symlink),
}

/// A mount, decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Which of `mounts[]`.
    pub entry: usize,
    /// Cleaned, inside the container.
    pub destination: CString,
    /// What is mounted.
    pub source: Source,
    /// Attributes of the mount.
    pub attrs: Attrs,
    /// Attributes of a bind's source that its options do not name: cleared where the kernel lets them be.
    pub unnamed: u64,
    /// Attributes of the mount and those below it, applied after `attrs`.
    pub recursive: Attrs,
    /// `MS_SHARED` and its like, applied in order.
    pub propagation: Vec<u32>,
    /// Made read-only by [`crate::rootfs::Rootfs::finish`] only, as files are made in it until then.
    pub late_readonly: bool,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A file system of its own.
    New(Filesystem),
    /// A file or directory of the host.
    Bind(Bind),
    /// A new cgroup2, or where that is denied the directory, or where there is none an empty mask.
    Cgroup2(Filesystem, CString),
    /// The mount that is there already, with other options.
    Remount(Filesystem),
}

/// A file system to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filesystem {
    /// As in /proc/filesystems.
    pub typ: CString,
    /// The `source` of mount(2).
    pub source: CString,
    /// Parameters, with their value where there is one.
    pub data: Vec<(CString, Option<CString>)>,
    /// `MS_*` of the superblock; `MS_RDONLY` only where it is not a kernel-made file system.
    pub flags: u32,
    /// Contents of the destination are copied into it (tmpfs).
    pub copy_up: bool,
}

/// A bind mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bind {
    /// Absolute host path.
    pub source: CString,
    /// With the mounts below it.
    pub recursive: bool,
    /// Ids are mapped.
    pub idmap: Option<Idmap>,
    /// The parent opens it too, as the container's root may not reach it.
    pub from_parent: bool,
    /// Left out if the source does not exist.
    pub optional: bool,
}

/// An idmapped mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idmap {
    /// Mounts below it too.
    pub recursive: bool,
    /// uid_map and gid_map; `None` takes the container's user namespace.
    pub maps: Option<(String, String)>,
}

/// A device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Cleaned, inside the container.
    pub path: CString,
    /// `S_IFCHR`, `S_IFBLK` or `S_IFIFO`.
    pub kind: u32,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
    /// Owner inside the container.
    pub uid: u32,
    /// Group inside the container.
    pub gid: u32,
    /// Bound from the host at once, as mknod(2) is not permitted in a user namespace.
    pub bind: bool,
    /// One of those that the specification adds: a file that an image ships there is covered.
    pub default: bool,
}

/// A symbolic link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Symlink {
    /// Cleaned, inside the container.
    pub path: CString,
    /// What it says.
    pub target: CString,
    /// Unlink what is there.
    pub replace: bool,
    /// Inside /dev, and so never on a volume.
    pub in_dev: bool,
}

/// Decides.
///
/// # Errors
/// Whatever is wrong in `root`, `mounts` or `linux` about the root filesystem, with its JSON path.
pub fn build(spec: &Spec, given: &Given<'_>) -> Result<RootfsPlan> {
    let empty = spec::Linux::default();
    let linux = spec.linux.as_deref().unwrap_or(&empty);
    let Some(root) = &spec.root else {
        return Err(Error::config("root", "missing"));
    };
    if root.path.is_empty() {
        return Err(Error::config("root.path", "missing"));
    }
    let jail = match (given.namespaces.creates(Kind::Mount), given.no_pivot) {
        (false, _) => Jail::Chroot,
        (true, true) => Jail::Move,
        (true, false) => Jail::Pivot,
    };
    if jail == Jail::Chroot {
        refuse_mounts(spec, linux, &given.bundle.join(&root.path))?;
    }
    let mut plan = RootfsPlan {
        path: given.bundle.join(&root.path),
        readonly: root.readonly,
        propagation: match linux.rootfs_propagation.as_str() {
            "" => 0,
            name => options::propagation(name).ok_or_else(|| {
                Error::config(
                    "linux.rootfsPropagation",
                    format!("rootfsPropagation={name:?} is not supported"),
                )
            })?,
        },
        jail,
        ops: Vec::new(),
        readonly_paths: absolute("linux.readonlyPaths", &linux.readonly_paths)?,
        masked_paths: absolute("linux.maskedPaths", &linux.masked_paths)?,
        label: match linux.mount_label.as_str() {
            "" => None,
            label => Some(cstring("linux.mountLabel", label)?),
        },
        needs_parent: false,
        warnings: Vec::new(),
    };
    cstring("root.path", &root.path)?;
    for (entry, mount) in spec.mounts.iter().enumerate() {
        one_mount(&mut plan, given, linux, entry, mount)?;
    }
    cancel_covered(&mut plan.ops);
    devices::add(&mut plan.ops, linux, given)?;
    plan.needs_parent = plan.ops.iter().any(|op| op.bind().is_some_and(|bind| bind.from_parent));
    Ok(plan)
}

/// Without a mount namespace of its own the container changes no mounts that are there, and the namespace's own root
/// cannot be bound onto itself.
fn refuse_mounts(spec: &Spec, linux: &spec::Linux, root: &Path) -> Result<()> {
    let top = clean(&root.to_string_lossy()) == "/";
    let readonly = spec.root.as_ref().is_some_and(|root| root.readonly);
    let listed = [
        ("mounts", top && !spec.mounts.is_empty()),
        ("root.readonly", top && readonly),
        ("linux.rootfsPropagation", !linux.rootfs_propagation.is_empty()),
        ("linux.maskedPaths", top && !linux.masked_paths.is_empty()),
        ("linux.readonlyPaths", top && !linux.readonly_paths.is_empty()),
    ];
    match listed.into_iter().find(|(_, given)| *given) {
        Some((path, _)) => Err(Error::config(
            path,
            "needs a mount namespace of the container's own: it would change the mounts of others",
        )
        .remedy("add {\"type\": \"mount\"} without a path to linux.namespaces")),
        None => Ok(()),
    }
}

fn absolute(path: &str, listed: &[String]) -> Result<Vec<CString>> {
    let one = |(i, text): (usize, &String)| {
        let at = format!("{path}[{i}]");
        if !text.starts_with('/') {
            return Err(Error::config(at, format!("{text:?} is not an absolute path")));
        }
        cstring(at, &clean(text))
    };
    listed.iter().enumerate().map(one).collect()
}

fn cstring(path: impl fmt::Display, text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| Error::config(path, format!("{text:?} contains a NUL byte")))
}

fn one_mount(
    plan: &mut RootfsPlan,
    given: &Given<'_>,
    linux: &spec::Linux,
    entry: usize,
    mount: &spec::Mount,
) -> Result<()> {
    let at = |field: &str| format!("mounts[{entry}].{field}");
    if mount.destination.is_empty() {
        return Err(Error::config(at("destination"), "missing"));
    }
    if !mount.destination.starts_with('/') {
        let warning = format!("config.json: {}: relative path is taken from /", at("destination"));
        plan.warnings.push(warning);
    }
    let mut destination = clean(&mount.destination);
    // Not in the specification, but in runc: old callers give the destination as it is on the host.
    if let Some(inside) = plan.path.to_str().and_then(|root| destination.strip_prefix(root))
        && inside.starts_with('/')
        && plan.path != Path::new("/")
    {
        destination = inside.to_owned();
    }
    if destination == "/" {
        return Err(Error::config(at("destination"), "mountpoint is on the top of the root filesystem"));
    }
    let mut options = Options::parse(&mount.options);
    if options.bind.is_none() && mount.typ == "bind" {
        options.bind = Some(false);
    }
    let idmap = idmap(given, entry, mount, &options)?;
    let proc_error = |text| Err(Error::config(at("destination"), format!("{destination:?} {text}")));
    match in_proc(&destination) {
        InProc::Refused => return proc_error("cannot be mounted because it is inside /proc"),
        InProc::Top if options.bind.is_none() && !options.remount && mount.typ != "proc" => {
            return proc_error("cannot be mounted because it is not of type proc");
        }
        _ => {}
    }
    let c_destination = cstring(at("destination"), &destination)?;
    if let Some(recursive) = options.bind {
        // The kernel ignores them. runc refuses them from 1.2 on; crun, youki and runc before let them pass, and so
        // does runtime-tools ask.
        if let Some(data) = options.data.first() {
            plan.warnings
                .push(format!("config.json: {}: {data:?} means nothing to a bind mount", at("options")));
        }
        let bind = bind(&plan.path, given, entry, mount, recursive, idmap)?;
        let (attrs, unnamed) = options.of_bind();
        plan.ops.push(RootfsOp::Mount(Mount {
            entry,
            destination: c_destination,
            source: Source::Bind(bind),
            attrs,
            unnamed,
            recursive: options.recursive,
            propagation: options.propagation,
            late_readonly: false,
        }));
        return Ok(());
    }
    if mount.typ.is_empty() {
        return Err(Error::config(at("type"), "missing, and the options have neither bind nor rbind"));
    }
    if cgroup::add(&mut plan.ops, given, entry, mount, &destination, &options)? {
        return Ok(());
    }
    let filesystem = filesystem(linux, entry, mount, &options)?;
    let mut attrs = options.attrs;
    let late =
        !options.remount && attrs.set & attr::RDONLY != 0 && (mount.typ == "tmpfs" || destination == "/dev");
    if late {
        attrs.set &= !attr::RDONLY;
    }
    plan.ops.push(RootfsOp::Mount(Mount {
        entry,
        destination: c_destination,
        source: if options.remount { Source::Remount(filesystem) } else { Source::New(filesystem) },
        attrs,
        unnamed: 0,
        recursive: options.recursive,
        propagation: options.propagation,
        late_readonly: late,
    }));
    Ok(())
}

fn bind(
    root: &Path,
    given: &Given<'_>,
    entry: usize,
    mount: &spec::Mount,
    recursive: bool,
    idmap: Option<Idmap>,
) -> Result<Bind> {
    if mount.source.is_empty() {
        return Err(Error::config(format!("mounts[{entry}].source"), "missing for a bind mount"));
    }
    let path = given.bundle.join(&mount.source);
    let source = cstring(format!("mounts[{entry}].source"), &path.to_string_lossy())?;
    // What mounts before this one have made of the container's own tree is only there when its turn comes.
    let inside = is_below(&clean(&path.to_string_lossy()), &clean(&root.to_string_lossy()));
    let from_parent =
        idmap.is_some() && !inside || given.namespaces.has(Kind::User) && !given.rootless && idmap.is_none();
    Ok(Bind { source, recursive, idmap, from_parent, optional: false })
}

fn idmap(given: &Given<'_>, entry: usize, mount: &spec::Mount, options: &Options) -> Result<Option<Idmap>> {
    let at = |field: &str| format!("mounts[{entry}].{field}");
    let (uids, gids) = (&mount.uid_mappings, &mount.gid_mappings);
    if uids.is_empty() != gids.is_empty() {
        let missing = if uids.is_empty() { "uidMappings" } else { "gidMappings" };
        return Err(Error::config(at(missing), "uidMappings and gidMappings must be given together"));
    }
    if options.idmap.is_none() && uids.is_empty() {
        return Ok(None);
    }
    if options.bind.is_none() {
        return Err(Error::config(at("options"), "id-mapped mounts are only supported for bind mounts"));
    }
    let maps = if uids.is_empty() {
        if !given.namespaces.has(Kind::User) {
            return Err(Error::config(
                at("options"),
                "idmap needs uidMappings and gidMappings, or a user namespace of the container",
            ));
        }
        None
    } else {
        Some((id_map(uids), id_map(gids)))
    };
    Ok(Some(Idmap { recursive: options.idmap == Some(true), maps }))
}

/// The text of uid_map or gid_map (user_namespaces(7)).
fn id_map(listed: &[IdMapping]) -> String {
    listed.iter().map(|m| format!("{} {} {}\n", m.container_id, m.host_id, m.size)).collect()
}

/// File systems that the kernel makes, one superblock for many mounts: a read-only superblock would be
/// read-only for all, the private procfs of the runtime included; the mount's attribute is enough.
const KERNEL_MADE: [&str; 16] = [
    "proc",
    "sysfs",
    "tmpfs",
    "ramfs",
    "devtmpfs",
    "devpts",
    "mqueue",
    "cgroup",
    "cgroup2",
    "bpf",
    "debugfs",
    "tracefs",
    "securityfs",
    "configfs",
    "hugetlbfs",
    "binfmt_misc",
];

fn filesystem(
    linux: &spec::Linux,
    entry: usize,
    mount: &spec::Mount,
    options: &Options,
) -> Result<Filesystem> {
    let at = |field: &str| format!("mounts[{entry}].{field}");
    if options.copy_up && mount.typ != "tmpfs" {
        return Err(Error::config(at("options"), "tmpcopyup is only for tmpfs"));
    }
    let mut data = Vec::new();
    for option in &options.data {
        // A quoted value keeps its commas, as mount(8) has it for SELinux contexts.
        let whole = option.contains('"');
        for part in option.split(|c| c == ',' && !whole).filter(|part| !part.is_empty()) {
            data.push(pair(&at("options"), part)?);
        }
    }
    let labelled = !matches!(mount.typ.as_str(), "proc" | "sysfs" | "mqueue" | "cgroup" | "cgroup2");
    if labelled && !linux.mount_label.is_empty() {
        let label = cstring("linux.mountLabel", &linux.mount_label)?;
        data.push((CString::from(c"context"), Some(label)));
    }
    let mut flags = options.superblock;
    if options.attrs.set & attr::RDONLY != 0 && !KERNEL_MADE.contains(&mount.typ.as_str()) {
        flags |= libc::MS_RDONLY as u32;
    }
    let source = if mount.source.is_empty() { "none" } else { &mount.source };
    Ok(Filesystem {
        typ: cstring(at("type"), &mount.typ)?,
        source: cstring(at("source"), source)?,
        data,
        flags,
        copy_up: options.copy_up,
    })
}

fn pair(at: &str, option: &str) -> Result<(CString, Option<CString>)> {
    Ok(match option.split_once('=') {
        Some((key, value)) => {
            let bare = value.strip_prefix('"').and_then(|v| v.strip_suffix('"')).unwrap_or(value);
            (cstring(at, key)?, Some(cstring(at, bare)?))
        }
        None => (cstring(at, option)?, None),
    })
}

/// A mount that a later one covers cannot be reached again at the end, so it is read-only at once.
fn cancel_covered(ops: &mut [RootfsOp]) {
    let mut later: Vec<String> = Vec::new();
    for op in ops.iter_mut().rev() {
        let RootfsOp::Mount(mount) = op else { continue };
        let destination = mount.destination.to_string_lossy().into_owned();
        if mount.late_readonly && later.iter().any(|top| is_below(&destination, top)) {
            mount.late_readonly = false;
            mount.attrs.set(attr::RDONLY);
        }
        later.push(destination);
    }
}

impl RootfsOp {
    /// The bind mount, if it is one.
    pub fn bind(&self) -> Option<&Bind> {
        match self {
            Self::Mount(Mount { source: Source::Bind(bind), .. }) => Some(bind),
            _ => None,
        }
    }
}

impl fmt::Display for RootfsOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mount(mount) => write!(f, "{mount}"),
            Self::Device(d) => {
                let kind = match d.kind {
                    libc::S_IFBLK => 'b',
                    libc::S_IFIFO => 'p',
                    _ => 'c',
                };
                let how = if d.bind { "bind " } else { "" };
                let path = d.path.to_string_lossy();
                write!(f, "{how}device {path} {kind} {}:{} {:#o}", d.major, d.minor, d.mode)?;
                write!(f, " {}:{}", d.uid, d.gid)
            }
            Self::Symlink(s) => {
                write!(f, "symlink {} -> {}", s.path.to_string_lossy(), s.target.to_string_lossy())
            }
        }
    }
}

impl fmt::Display for Mount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let destination = self.destination.to_string_lossy();
        write!(f, "mount #{} ", self.entry)?;
        let mut words = Vec::new();
        match &self.source {
            Source::New(fs) | Source::Cgroup2(fs, _) | Source::Remount(fs) => {
                let remount = if matches!(self.source, Source::Remount(_)) { "remount " } else { "" };
                write!(f, "{remount}{} on {destination}", fs.typ.to_string_lossy())?;
                words.extend(fs.data.iter().map(|(key, value)| match value {
                    Some(value) => format!("{}={}", key.to_string_lossy(), value.to_string_lossy()),
                    None => key.to_string_lossy().into_owned(),
                }));
                if fs.copy_up {
                    words.push("tmpcopyup".to_owned());
                }
            }
            Source::Bind(bind) => {
                let kind = if bind.recursive { "rbind" } else { "bind" };
                write!(f, "{kind} {} on {destination}", bind.source.to_string_lossy())?;
                if let Some(idmap) = &bind.idmap {
                    words.push(if idmap.recursive { "ridmap" } else { "idmap" }.to_owned());
                }
            }
        }
        if !self.attrs.is_empty() {
            words.insert(0, self.attrs.to_string());
        }
        if !self.recursive.is_empty() {
            let recursive = self.recursive.to_string();
            words.extend(recursive.split(',').map(|word| format!("r{word}")));
        }
        if self.late_readonly {
            words.push("ro at last".to_owned());
        }
        words.extend(self.propagation.iter().map(|flags| propagation_name(*flags)));
        words.retain(|word| !word.is_empty());
        if words.is_empty() { Ok(()) } else { write!(f, " ({})", words.join(",")) }
    }
}

fn propagation_name(flags: u32) -> String {
    let recursive = if flags & libc::MS_REC as u32 != 0 { "r" } else { "" };
    let name = match (flags & !(libc::MS_REC as u32)).into() {
        libc::MS_SHARED => "shared",
        libc::MS_SLAVE => "slave",
        libc::MS_UNBINDABLE => "unbindable",
        _ => "private",
    };
    format!("{recursive}{name}")
}

impl fmt::Display for RootfsPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let readonly = if self.readonly { " read-only" } else { "" };
        let jail = match self.jail {
            Jail::Pivot => "pivot_root",
            Jail::Move => "move to / and chroot",
            Jail::Chroot => "chroot",
        };
        writeln!(f, "root {}{readonly}, {jail}", self.path.display())?;
        for op in &self.ops {
            writeln!(f, "{op}")?;
        }
        for path in &self.readonly_paths {
            writeln!(f, "read-only {}", path.to_string_lossy())?;
        }
        for path in &self.masked_paths {
            writeln!(f, "mask {}", path.to_string_lossy())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
