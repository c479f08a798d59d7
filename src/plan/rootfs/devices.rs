//! `linux.devices`, the default devices, and the links of /dev (config-linux.md, "Default Devices").

#![forbid(unsafe_code)]

use super::paths::{InProc, clean, in_proc, is_below};
use super::{Device, Given, RootfsOp, Symlink, cstring};
use crate::error::{Error, Result};
use crate::plan::Kind;
use crate::spec;
use std::ffi::CString;

const DEFAULT: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/random", 1, 8),
    ("/dev/full", 1, 7),
    ("/dev/tty", 5, 0),
    ("/dev/zero", 1, 5),
    ("/dev/urandom", 1, 9),
];

const LINKS: [(&str, &str); 5] = [
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/core", "/proc/kcore"),
];

/// Adds the devices, then the links. A /dev that is bound from the host is the host's: nothing is made in it.
pub(super) fn add(ops: &mut Vec<RootfsOp>, linux: &spec::Linux, given: &Given<'_>) -> Result<()> {
    let mounted: Vec<CString> = ops.iter().filter_map(|op| mount_point(op, false)).collect();
    let hosts = ops.iter().any(|op| mount_point(op, true).is_some_and(|d| *d == *c"/dev"));
    let bind = given.namespaces.has(Kind::User) || given.rootless;
    let skipped = |path: &str| hosts && is_below(path, "/dev") || path == "/dev/ptmx";
    let mut seen: Vec<String> = Vec::new();
    for (i, device) in linux.devices.iter().enumerate() {
        let made = listed(i, device, bind)?;
        let path = made.path.to_string_lossy().into_owned();
        if !skipped(&path) {
            ops.push(RootfsOp::Device(made));
        }
        seen.push(path);
    }
    for (path, major, minor) in DEFAULT {
        // What config.json mounts or lists there is what the caller wants there.
        if skipped(path)
            || seen.iter().any(|p| p == path)
            || mounted.iter().any(|m| m.as_bytes() == path.as_bytes())
        {
            continue;
        }
        ops.push(RootfsOp::Device(Device {
            path: cstring("linux.devices", path)?,
            kind: libc::S_IFCHR,
            major,
            minor,
            mode: 0o666,
            uid: 0,
            gid: 0,
            bind,
            default: true,
        }));
    }
    if hosts {
        return Ok(());
    }
    let ptmx = [("/dev/ptmx", "pts/ptmx")];
    for (path, target) in ptmx.into_iter().chain(LINKS) {
        if mounted.iter().any(|m| m.as_bytes() == path.as_bytes()) {
            continue;
        }
        ops.push(RootfsOp::Symlink(Symlink {
            path: cstring("linux.devices", path)?,
            target: cstring("linux.devices", target)?,
            replace: path == "/dev/ptmx",
            in_dev: true,
        }));
    }
    Ok(())
}

fn mount_point(op: &RootfsOp, binds: bool) -> Option<CString> {
    match op {
        RootfsOp::Mount(mount) if !binds || op.bind().is_some() => Some(mount.destination.clone()),
        _ => None,
    }
}

fn listed(i: usize, device: &spec::Device, bind: bool) -> Result<Device> {
    let at = |field: &str| format!("linux.devices[{i}].{field}");
    if !device.path.starts_with('/') {
        return Err(Error::config(at("path"), format!("{:?} is not an absolute path", device.path)));
    }
    let path = clean(&device.path);
    if path == "/" || in_proc(&path) != InProc::No {
        return Err(Error::config(at("path"), format!("a device cannot be made at {path:?}")));
    }
    let kind = match device.typ.as_str() {
        "c" | "u" => libc::S_IFCHR,
        "b" => libc::S_IFBLK,
        "p" => libc::S_IFIFO,
        typ => return Err(Error::config(at("type"), format!("invalid device type {typ:?} (c, b, u or p)"))),
    };
    // The kernel's dev_t has 12 and 20 bits (linux/kdev_t.h).
    let number = |field: &str, value: i64, bits: u32| match u32::try_from(value) {
        _ if kind == libc::S_IFIFO => Ok(0),
        Ok(number) if number >> bits == 0 => Ok(number),
        _ => Err(Error::config(at(field), format!("{value} is out of range"))),
    };
    let id = |field: &str, value: Option<u32>| match value {
        Some(u32::MAX) => Err(Error::config(at(field), "4294967295 is not an id")),
        value => Ok(value.unwrap_or(0)),
    };
    Ok(Device {
        path: cstring(at("path"), &path)?,
        kind,
        major: number("major", device.major, 12)?,
        minor: number("minor", device.minor, 20)?,
        // Engines send the file type along (docker: 8630 is 020666).
        mode: device.file_mode.unwrap_or(0o666) & 0o7777,
        uid: id("uid", device.uid)?,
        gid: id("gid", device.gid)?,
        bind: bind && kind != libc::S_IFIFO,
        default: false,
    })
}
