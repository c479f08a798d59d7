//! Devices of the host for a container.

#![forbid(unsafe_code)]

use crate::error::{Context as _, Error, Result};
use rustix::fs::{major, minor};
use serde::Serialize;
use std::fs::{self, Metadata};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

/// A device, as config.json's `linux.devices` has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Device {
    /// Inside.
    pub path: String,
    /// `c` or `b`.
    pub r#type: char,
    /// Its driver.
    pub major: i64,
    /// Which of the driver's.
    pub minor: i64,
    /// Permissions alone.
    pub file_mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

/// What a container may do to devices: config.json's `linux.resources.devices`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rule {
    /// Whether it may.
    pub allow: bool,
    /// `c`, `b`; every one if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub r#type: Option<char>,
    /// -1 is every one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub major: Option<i64>,
    /// -1 is every one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minor: Option<i64>,
    /// Of `rwm`.
    pub access: String,
}

impl Rule {
    /// Of every device.
    pub fn every(allow: bool) -> Self {
        Self { allow, r#type: None, major: None, minor: None, access: "rwm".to_owned() }
    }

    /// Of a character device.
    pub fn character(allow: bool, major: i64, minor: i64) -> Self {
        Self { r#type: Some('c'), major: Some(major), minor: Some(minor), ..Self::every(allow) }
    }
}

fn device(path: &str, meta: &Metadata) -> Option<Device> {
    let kind = meta.file_type();
    let r#type = if kind.is_char_device() {
        'c'
    } else if kind.is_block_device() {
        'b'
    } else {
        return None;
    };
    Some(Device {
        path: path.to_owned(),
        r#type,
        major: major(meta.rdev()).into(),
        minor: minor(meta.rdev()).into(),
        file_mode: meta.mode() & 0o7777,
        uid: meta.uid(),
        gid: meta.gid(),
    })
}

/// Those of `--device`: the node, or every node below a directory.
///
/// # Errors
/// What is neither, or has none.
pub fn from_path(host: &str, inside: &str) -> Result<Vec<Device>> {
    let doing = || format!("error gathering device information while adding custom device {host:?}");
    let meta = fs::metadata(host).context(doing)?;
    if let Some(device) = device(inside, &meta) {
        return Ok(vec![device]);
    }
    let mut found = Vec::new();
    if meta.is_dir() {
        walk(Path::new(host), inside, 0, &mut found);
    }
    if found.is_empty() {
        return Err(Error::invalid("not a device node").context(doing()));
    }
    Ok(found)
}

/// Every device of the host, for `--privileged`. Not those that every container gets afresh: terminals and consoles.
///
/// # Errors
/// Those of readdir(3).
pub fn of_host() -> Result<Vec<Device>> {
    let mut found = Vec::new();
    for entry in sorted(Path::new("/dev")).context(|| "read /dev")? {
        let name = entry.to_string_lossy().into_owned();
        // As runc and containerd leave them out.
        const OWN: [&str; 8] = ["pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev", "console"];
        if !OWN.contains(&name.as_str()) {
            one(&Path::new("/dev").join(&entry), &format!("/dev/{name}"), 0, &mut found);
        }
    }
    Ok(found)
}

fn sorted(dir: &Path) -> std::io::Result<Vec<std::ffi::OsString>> {
    let mut names = fs::read_dir(dir)?
        .map(|entry| entry.map(|entry| entry.file_name()))
        .collect::<Result<Vec<_>, _>>()?;
    names.sort();
    Ok(names)
}

fn walk(dir: &Path, inside: &str, depth: u32, found: &mut Vec<Device>) {
    for name in sorted(dir).unwrap_or_default() {
        one(&dir.join(&name), &format!("{inside}/{}", name.to_string_lossy()), depth, found);
    }
}

fn one(path: &Path, inside: &str, depth: u32, found: &mut Vec<Device>) {
    // A node that is gone by now is none. Links are not followed: they lead to what is found anyway, or out.
    let Ok(meta) = fs::symlink_metadata(path) else { return };
    match device(inside, &meta) {
        Some(device) => found.push(device),
        None if meta.is_dir() && depth < 16 => walk(path, inside, depth + 1, found),
        None => {}
    }
}

/// What number a block device has, for its limits.
///
/// # Errors
/// Those of stat(2).
pub fn number(path: &str) -> Result<(i64, i64)> {
    let meta = fs::metadata(path).context(|| format!("stat {path}"))?;
    Ok((major(meta.rdev()).into(), minor(meta.rdev()).into()))
}

/// `--device-cgroup-rule`: `c 1:3 rwm`, `b *:* r`, `a 1:2 w`.
///
/// # Errors
/// What is not.
pub fn parse_rule(text: &str) -> Result<Rule> {
    let wrong = || Error::invalid(format!("invalid device cgroup rule format: '{text}'"));
    let number = |text: &str| if text == "*" { Some(-1) } else { text.parse::<u32>().ok().map(i64::from) };
    let [kind, numbers, access] = text.split(' ').collect::<Vec<_>>()[..] else { return Err(wrong()) };
    let (major, minor) = numbers.split_once(':').ok_or_else(wrong)?;
    let plain = (1..=3).contains(&access.len()) && access.bytes().all(|c| b"rwm".contains(&c));
    let r#type = match kind {
        "a" => 'a',
        "b" => 'b',
        "c" => 'c',
        _ => return Err(wrong()),
    };
    match (number(major), number(minor), plain) {
        (Some(major), Some(minor), true) => Ok(Rule {
            allow: true,
            r#type: Some(r#type),
            major: Some(major),
            minor: Some(minor),
            access: access.to_owned(),
        }),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_found_by_its_path_and_below_a_directory() {
        let null = from_path("/dev/null", "/dev/mynull").expect("everybody has it");
        assert_eq!((null.len(), null[0].path.as_str(), null[0].r#type), (1, "/dev/mynull", 'c'));
        assert_eq!((null[0].major, null[0].minor, null[0].file_mode), (1, 3, 0o666));
        assert!(of_host().expect("/dev").iter().any(|device| device.path == "/dev/zero"));
        assert_eq!(
            from_path("/nonexistent", "/x").expect_err("missing").to_string(),
            "error gathering device information while adding custom device \"/nonexistent\": no such file or directory"
        );
        assert!(
            from_path("/proc/version", "/x")
                .expect_err("a file")
                .to_string()
                .ends_with(": not a device node")
        );
    }

    #[test]
    fn a_rule_is_read_and_a_wrong_one_refused() {
        let rule = parse_rule("c 42:* rwm").expect("valid");
        assert_eq!((rule.r#type, rule.major, rule.minor), (Some('c'), Some(42), Some(-1)));
        for bad in
            ["", "x 1:1 rwm", "c 1 rwm", "c 1:1 q", "c 1:1 rwmm", "c 1:99999999999 r", "c 1:1", "c 1:1  r"]
        {
            assert_eq!(
                parse_rule(bad).expect_err(bad).to_string(),
                format!("invalid device cgroup rule format: '{bad}'")
            );
        }
    }
}
