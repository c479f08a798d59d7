//! Mounts of type `cgroup` and `cgroup2`: what they become depends on the host's layout.

#![forbid(unsafe_code)]

use super::options::Options;
use super::{Attrs, Bind, Filesystem, Given, Mount, RootfsOp, Source, Symlink, attr, cstring, pair};
use crate::error::Result;
use crate::plan::Kind;
use crate::spec;
use std::ffi::CString;
use std::path::PathBuf;

/// Where the container's cgroups are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cgroups {
    /// cgroup v1, or hybrid.
    V1(Vec<Hierarchy>),
    /// cgroup v2: the container's directory on the host, where one is known.
    V2(Option<PathBuf>),
}

/// One hierarchy of cgroup v1, or the cgroup2 of a hybrid host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    /// Last component of its mount point, as `cpu,cpuacct`, `systemd`, `unified`.
    pub name: String,
    /// Mount options that select it, as `cpu,cpuacct` or `name=systemd`; empty for cgroup2.
    pub options: String,
    /// The container's directory on the host, absolute.
    pub path: PathBuf,
}

/// Adds the operations for a cgroup mount; `false` for other types.
pub(super) fn add(
    ops: &mut Vec<RootfsOp>,
    given: &Given<'_>,
    entry: usize,
    mount: &spec::Mount,
    destination: &str,
    options: &Options,
) -> Result<bool> {
    match (mount.typ.as_str(), given.cgroups) {
        _ if options.remount => return Ok(false),
        ("cgroup" | "cgroup2", Cgroups::V2(own)) => {
            let own = own.as_ref().map_or_else(|| "/sys/fs/cgroup".into(), |path| path.to_string_lossy());
            let own = cstring("linux.cgroupsPath", &own)?;
            // A mount of the filesystem outside of a cgroup namespace would set the options of the host's (nsdelegate).
            let source = if given.namespaces.has(Kind::Cgroup) {
                Source::Cgroup2(filesystem("cgroup2", "cgroup", &options.data)?, own)
            } else {
                Source::Bind(Bind {
                    source: own,
                    recursive: false,
                    idmap: None,
                    from_parent: false,
                    optional: false,
                })
            };
            let attrs = attrs_of(given, options);
            ops.push(one(entry, destination, source, attrs, options)?);
        }
        ("cgroup", Cgroups::V1(hierarchies)) => v1(ops, given, entry, destination, options, hierarchies)?,
        _ => return Ok(false),
    }
    Ok(true)
}

/// Without a cgroup namespace, cgroups that are not the container's are read-only whatever the configuration says:
/// the user that they belong to runs other things there (CVE-2023-25809).
fn attrs_of(given: &Given<'_>, options: &Options) -> Attrs {
    let mut attrs = options.whole();
    if given.foreign_cgroups && !given.namespaces.has(Kind::Cgroup) {
        attrs.set(attr::RDONLY);
    }
    attrs
}

fn v1(
    ops: &mut Vec<RootfsOp>,
    given: &Given<'_>,
    entry: usize,
    destination: &str,
    options: &Options,
    hierarchies: &[Hierarchy],
) -> Result<()> {
    let readonly = options.whole().set & attr::RDONLY != 0;
    let hard = attr::NOSUID | attr::NODEV | attr::NOEXEC;
    let top = Source::New(filesystem("tmpfs", "tmpfs", &["mode=755".to_owned()])?);
    let mut top = one(entry, destination, top, Attrs { set: hard, clear: 0 }, options)?;
    if let RootfsOp::Mount(mount) = &mut top {
        mount.late_readonly = readonly;
    }
    ops.push(top);
    for hierarchy in hierarchies {
        let at = format!("{destination}/{}", hierarchy.name);
        // Of the v2 one a user may not have been given a part ([`crate::cgroup`]): a mount would show the caller's cgroup
        // and what is below, which may be everything, while the container's own is not there to be bound.
        let optional = given.rootless && hierarchy.options.is_empty();
        let source = if given.namespaces.has(Kind::Cgroup) && !optional {
            let (typ, source) = match hierarchy.name.as_str() {
                _ if hierarchy.options.is_empty() => ("cgroup2", "cgroup2"),
                "systemd" => ("cgroup", "systemd"),
                _ => ("cgroup", "cgroup"),
            };
            Source::New(filesystem(typ, source, std::slice::from_ref(&hierarchy.options))?)
        } else {
            let source = cstring("linux.cgroupsPath", &hierarchy.path.to_string_lossy())?;
            Source::Bind(Bind { source, recursive: true, idmap: None, from_parent: false, optional })
        };
        let mut attrs = attrs_of(given, options);
        if given.namespaces.has(Kind::Cgroup) {
            attrs.set(hard);
        }
        ops.push(one(entry, &at, source, attrs, options)?);
        // cpu,cpuacct: programs look for cpu.
        for controller in hierarchy.name.split(',').filter(|name| *name != hierarchy.name) {
            ops.push(RootfsOp::Symlink(Symlink {
                path: cstring("mounts", &format!("{destination}/{controller}"))?,
                target: cstring("mounts", &hierarchy.name)?,
                replace: false,
                in_dev: false,
            }));
        }
    }
    Ok(())
}

fn filesystem(typ: &str, source: &str, data: &[String]) -> Result<Filesystem> {
    let options = data.iter().flat_map(|option| option.split(',')).filter(|option| !option.is_empty());
    let data: Result<Vec<(CString, Option<CString>)>> =
        options.map(|option| pair("mounts", option)).collect();
    Ok(Filesystem {
        typ: cstring("mounts", typ)?,
        source: cstring("mounts", source)?,
        data: data?,
        flags: 0,
        copy_up: false,
    })
}

fn one(entry: usize, destination: &str, source: Source, attrs: Attrs, options: &Options) -> Result<RootfsOp> {
    Ok(RootfsOp::Mount(Mount {
        entry,
        destination: cstring("mounts", destination)?,
        source,
        attrs,
        recursive: Attrs::default(),
        propagation: options.propagation.clone(),
        unnamed: 0,
        late_readonly: false,
    }))
}
