//! What is mounted in a container: `-v` and `--mount` as people write them, checked, and put together.
//!
//! Words and errors are Docker's (docs.docker.com, `docker run`; observed from 20.10 and 28).

#![forbid(unsafe_code)]

use super::types::{
    BindOptions, Config, Driver, HostConfig, Mount, MountPoint, TmpfsOptions, VolumeOptions, go, omit,
};
use crate::error::{Error, Result};
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

go! {
    /// One mount as config.v2.json keeps it.
    struct Point {
        /// What is mounted: a path of the host; for a volume its `_data`, once it is there.
        source: String,
        /// Where, without `.` and `..`.
        destination: String,
        /// Whether it can be written to.
        #[serde(rename = "RW")]
        rw: bool,
        /// The volume's; empty for one that is to be made up.
        name: String,
        /// `local` for volumes.
        driver: String,
        /// `bind`, `volume`, `tmpfs`.
        r#type ? "omit": String,
        /// The options of `-v` as they were given.
        #[serde(rename = "Relabel")]
        mode ? "omit": String,
        /// Of a bind mount.
        propagation ? "omit": String,
        /// What it was made from.
        spec: Mount,
        /// Whether a source that is missing is no reason to make it.
        skip_mountpoint_creation: bool,
        /// Whether an empty volume is filled from the image.
        #[serde(rename = "CopyData")]
        copy ? "omit": bool,
    }
}

const PROPAGATIONS: [&str; 6] = ["private", "rprivate", "slave", "rslave", "shared", "rshared"];

fn invalid(text: impl Into<String>) -> Error {
    Error::invalid(text)
}

/// The options of a `-v`.
#[derive(Debug, Default)]
struct Mode<'a> {
    access: Option<&'a str>,
    propagation: Option<&'a str>,
    no_copy: bool,
}

impl<'a> Mode<'a> {
    /// Each kind of option at most once.
    fn parse(text: &'a str) -> Option<Self> {
        let (mut mode, mut label, mut consistency) = (Self::default(), None, None);
        for option in text.split(',').filter(|_| !text.is_empty()) {
            let had = match option {
                "rw" | "ro" => mode.access.replace(option).is_some(),
                "z" | "Z" => label.replace(option).is_some(),
                "nocopy" => std::mem::replace(&mut mode.no_copy, true),
                "consistent" | "cached" | "delegated" => consistency.replace(option).is_some(),
                _ if PROPAGATIONS.contains(&option) => mode.propagation.replace(option).is_some(),
                _ => return None,
            };
            if had {
                return None;
            }
        }
        Some(mode)
    }
}

/// `-v`: `target`, `source:target` or `source:target:options`; a source that is no absolute path is a volume's name.
///
/// # Errors
/// What is none of these.
pub fn parse_bind(text: &str, volume_driver: &str) -> Result<Point> {
    let wrong = || format!("invalid volume specification: '{text}'");
    let parts: Vec<_> = text.splitn(4, ':').collect();
    let (source, target, options) = match parts[..] {
        ["", ..] => return Err(invalid(wrong())),
        [target] => ("", target, ""),
        // `-v /x:ro` has forgotten something.
        [_, mode] if Mode::parse(mode).is_some() => return Err(invalid(wrong())),
        [source, target] => (source, target, ""),
        [source, target, options] => (source, target, options),
        _ => return Err(invalid(wrong())),
    };
    let mode = Mode::parse(options).ok_or_else(|| invalid(format!("invalid mode: {options}")))?;
    let mut mount = Mount {
        r#type: if source.starts_with('/') { "bind" } else { "volume" }.to_owned(),
        source: source.to_owned(),
        target: target.to_owned(),
        read_only: mode.access == Some("ro"),
        ..Mount::default()
    };
    if !volume_driver.is_empty() && mount.r#type == "volume" {
        let driver = Driver { name: volume_driver.to_owned(), ..Driver::default() };
        mount.volume_options =
            Some(VolumeOptions { driver_config: Some(driver), ..VolumeOptions::default() });
    }
    if mode.no_copy {
        mount.volume_options.get_or_insert_default().no_copy = true;
    }
    if let Some(propagation) = mode.propagation {
        mount.bind_options =
            Some(BindOptions { propagation: propagation.to_owned(), ..BindOptions::default() });
    }
    let mut point = point(&mount).map_err(|e| e.context(wrong()))?;
    point.mode = options.to_owned();
    Ok(point)
}

/// A `--mount`, checked.
///
/// # Errors
/// What contradicts itself, and `bind` of what is not there.
pub fn from_mount(mount: &Mount) -> Result<Point> {
    let mut point = point(mount)?;
    if point.r#type == "bind" {
        let make = mount.bind_options.as_ref().is_some_and(|options| options.create_mountpoint);
        if !make && std::fs::metadata(&mount.source).is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound)
        {
            return Err(of_type(mount, format!("bind source path does not exist: {}", mount.source)));
        }
        point.skip_mountpoint_creation = !make;
    }
    Ok(point)
}

fn of_type(mount: &Mount, text: impl std::fmt::Display) -> Error {
    invalid(format!("invalid mount config for type \"{}\": {text}", mount.r#type))
}

/// Whether something may be mounted there.
///
/// # Errors
/// `/`, and what is not absolute.
pub fn check_destination(path: &str) -> Result<()> {
    if !path.starts_with('/') {
        return Err(invalid(format!("invalid mount path: '{path}' mount path must be absolute")));
    }
    if clean(path) == "/" {
        return Err(invalid("invalid specification: destination can't be '/'"));
    }
    Ok(())
}

/// The path without `.`, `..`, and doubled slashes, by its text alone.
pub fn clean(path: &str) -> String {
    let mut parts = PathBuf::from("/");
    for part in Path::new(path).components() {
        match part {
            Component::Normal(name) => parts.push(name),
            Component::ParentDir => drop(parts.pop()),
            _ => {}
        }
    }
    parts.to_string_lossy().into_owned()
}

fn point(mount: &Mount) -> Result<Point> {
    let wrong = |text: &str| of_type(mount, text);
    let no = |field: &str, given: bool| {
        if given { Err(of_type(mount, format!("field {field} must not be specified"))) } else { Ok(()) }
    };
    if mount.target.is_empty() {
        return Err(wrong("field Target must not be empty"));
    }
    check_destination(&mount.target).map_err(|e| of_type(mount, e))?;
    let mut point = Point {
        destination: clean(&mount.target),
        rw: !mount.read_only,
        r#type: mount.r#type.clone(),
        spec: mount.clone(),
        ..Point::default()
    };
    match mount.r#type.as_str() {
        "bind" => {
            if mount.source.is_empty() {
                return Err(wrong("field Source must not be empty"));
            }
            let options = mount.bind_options.clone().unwrap_or_default();
            if !options.propagation.is_empty() && !PROPAGATIONS.contains(&options.propagation.as_str()) {
                return Err(wrong(&format!("invalid propagation mode: {}", options.propagation)));
            }
            no("VolumeOptions", mount.volume_options.is_some())?;
            if !mount.source.starts_with('/') {
                return Err(wrong(&format!(
                    "invalid mount path: '{}' mount path must be absolute",
                    mount.source
                )));
            }
            let (own, every) = (options.read_only_non_recursive, options.read_only_force_recursive);
            if (own || every) && !mount.read_only {
                let name = if own { "ReadOnlyNonRecursive" } else { "ReadOnlyForceRecursive" };
                return Err(invalid(format!("mount options conflict: !ReadOnly && BindOptions.{name}")));
            }
            if own && every {
                return Err(invalid(
                    "mount options conflict: ReadOnlyNonRecursive && BindOptions.ReadOnlyForceRecursive",
                ));
            }
            point.source = clean(&mount.source);
            point.propagation =
                if options.propagation.is_empty() { "rprivate".to_owned() } else { options.propagation };
        }
        "volume" => {
            no("BindOptions", mount.bind_options.is_some())?;
            let options = mount.volume_options.clone().unwrap_or_default();
            if !options.subpath.is_empty() {
                if mount.source.is_empty() {
                    return Err(wrong("must not set Subpath when using anonymous volumes"));
                }
                let inside = |part| matches!(part, Component::Normal(_) | Component::CurDir);
                if !Path::new(&options.subpath).components().all(inside) {
                    return Err(wrong("subpath must be a relative path within the volume"));
                }
            }
            if mount.read_only && mount.source.is_empty() {
                return Err(wrong("must not set ReadOnly mode when using anonymous volumes"));
            }
            point.name.clone_from(&mount.source);
            point.copy = !options.no_copy;
            point.driver = options.driver_config.unwrap_or_default().name;
        }
        "tmpfs" => {
            no("BindOptions", mount.bind_options.is_some())?;
            no("Source", !mount.source.is_empty())?;
            tmpfs_options(mount).map_err(|e| of_type(mount, e))?;
        }
        _ => return Err(wrong("mount type unknown")),
    }
    Ok(point)
}

/// The options of a `--mount type=tmpfs`, as `--tmpfs` has them.
///
/// # Errors
/// Options that may not be given so.
pub fn tmpfs_options(mount: &Mount) -> Result<String> {
    let TmpfsOptions { size_bytes, mode, options } = mount.tmpfs_options.clone().unwrap_or_default();
    let mut words = Vec::new();
    if mount.read_only {
        words.push("ro".to_owned());
    }
    if mode != 0 {
        words.push(format!("mode={mode:o}"));
    }
    if size_bytes != 0 {
        let unit =
            [(30, "g"), (20, "m"), (10, "k")].into_iter().find(|(bits, _)| size_bytes % (1 << bits) == 0);
        let (bits, letter) = unit.unwrap_or((0, ""));
        words.push(format!("size={}{letter}", size_bytes >> bits));
    }
    for option in options.iter() {
        match option.as_slice() {
            [name] if name == "exec" || name == "noexec" => words.push(name.clone()),
            [name, ..] if name != "exec" && name != "noexec" => {
                return Err(invalid(format!("invalid option: {name}")));
            }
            _ => return Err(invalid("invalid option array length")),
        }
    }
    Ok(words.join(","))
}

/// A tmpfs's options for config.json: Docker's own, and `given`, of which the last of each kind holds.
///
/// # Errors
/// What tmpfs does not know.
pub fn merge_tmpfs(given: &str) -> Result<Vec<String>> {
    // Each row excludes one another.
    const FLAGS: [&[&str]; 11] = [
        &["ro", "rw"],
        &["exec", "noexec"],
        &["suid", "nosuid"],
        &["dev", "nodev"],
        &["async", "sync"],
        &["dirsync"],
        &["atime", "noatime"],
        &["diratime", "nodiratime"],
        &["relatime", "norelatime"],
        &["strictatime", "nostrictatime"],
        &["private", "rprivate", "shared", "rshared", "slave", "rslave", "unbindable", "runbindable"],
    ];
    const DATA: [&str; 7] = ["size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol"];
    let own = ["noexec", "nosuid", "nodev", "rprivate"].into_iter();
    let all: Vec<_> = own.chain(given.split(',').filter(|option| !option.is_empty())).collect();
    let (mut merged, mut had) = (Vec::new(), Vec::new());
    for option in all.into_iter().rev().filter(|option| *option != "defaults") {
        let kind = match FLAGS.iter().find(|row| row.contains(&option)) {
            Some(row) => row[0],
            None => option
                .split_once('=')
                .map(|(name, _)| name)
                .filter(|name| DATA.contains(name))
                .ok_or_else(|| invalid(format!("invalid tmpfs option [\"{option}\"]")))?,
        };
        if !had.contains(&kind) {
            had.push(kind);
            merged.push(option.to_owned());
        }
    }
    merged.reverse();
    Ok(merged)
}

/// `--volumes-from`: a container, and whether its volumes can be written to if they could be there.
///
/// # Errors
/// Options but `ro`, `rw`, `z`, `Z`.
pub fn parse_volumes_from(text: &str) -> Result<(&str, bool)> {
    if text.is_empty() {
        return Err(invalid("volumes-from specification cannot be an empty string"));
    }
    let (id, options) = text.split_once(':').unwrap_or((text, ""));
    match Mode::parse(options) {
        Some(mode) if mode.propagation.is_none() && !mode.no_copy => Ok((id, mode.access != Some("ro"))),
        _ => Err(invalid(format!("invalid mode: {options}"))),
    }
}

/// Everything that a container has mounted beside what every container has, by its place; tmpfs of `--tmpfs` apart.
///
/// Later ones replace earlier ones: those of other containers (`others`), `-v`, `--mount`; what the image declares
/// gets a volume where nothing else is.
///
/// # Errors
/// What is wrong with one of them, and two of the user's in one place.
pub fn points(
    config: &Config,
    host: &HostConfig,
    others: impl Fn(&str) -> Result<Vec<Point>>,
) -> Result<BTreeMap<String, Point>> {
    let mut points = BTreeMap::new();
    for text in host.volumes_from.iter() {
        let (id, writable) = parse_volumes_from(text)?;
        for point in others(id)? {
            let rw = point.rw && writable;
            points.insert(point.destination.clone(), Point { rw, copy: false, ..point });
        }
    }
    let mut given = Vec::new();
    let binds = host.binds.iter().map(|text| parse_bind(text, &host.volume_driver));
    for point in binds.chain(host.mounts.iter().map(from_mount)) {
        let point = point?;
        let place = &point.destination;
        if given.contains(place) || host.tmpfs.keys().any(|path| clean(path) == *place) {
            return Err(invalid(format!("Duplicate mount point: {place}")));
        }
        given.push(place.clone());
        points.insert(place.clone(), point);
    }
    for path in config.volumes.keys() {
        check_destination(path)?;
        let place = clean(path);
        if points.contains_key(&place) || host.tmpfs.keys().any(|path| clean(path) == place) {
            continue;
        }
        let volume = Point {
            destination: place.clone(),
            rw: true,
            r#type: "volume".to_owned(),
            copy: true,
            ..Point::default()
        };
        points.insert(place, volume);
    }
    Ok(points)
}

impl Point {
    /// Whether it is a volume that nobody named: `rm -v` takes it along.
    pub fn is_anonymous(&self) -> bool {
        self.r#type == "volume" && self.spec.source.is_empty()
    }

    /// As `inspect` and the list show it.
    pub fn shown(&self) -> MountPoint {
        MountPoint {
            r#type: self.r#type.clone(),
            name: self.name.clone(),
            source: self.source.clone(),
            destination: self.destination.clone(),
            driver: self.driver.clone(),
            mode: self.mode.clone(),
            rw: self.rw,
            propagation: self.propagation.clone(),
        }
    }

    /// Fills in the volume that was made for it, or found.
    pub fn set_volume(&mut self, name: &str, data: &Path) {
        self.name = name.to_owned();
        self.source = data.to_string_lossy().into_owned();
        self.driver = "local".to_owned();
        // A label for SELinux that Docker gives every volume but those that only the image asks for; inspect shows it.
        if self.mode.is_empty() && !self.spec.target.is_empty() {
            self.mode = "z".to_owned();
        }
    }
}

/// That the host's mounts are shared as the binds need it, by /proc/self/mountinfo: what the container mounts can come
/// out of it, or what the host mounts can come in.
///
/// # Errors
/// The source of a shared or slave bind lies on a mount that is private.
pub fn check_propagation<'a>(points: impl IntoIterator<Item = &'a Point>, mountinfo: &str) -> Result<()> {
    for point in points.into_iter().filter(|point| point.r#type == "bind") {
        let (needs, words): (&[&str], _) = match point.propagation.as_str() {
            "shared" | "rshared" => (&["shared:"], "a shared mount"),
            "slave" | "rslave" => (&["shared:", "master:"], "a shared or slave mount"),
            _ => continue,
        };
        let mut best = ("", Vec::new());
        for line in mountinfo.lines() {
            // proc_pid_mountinfo(5): six fields, then the optional ones up to a dash.
            let mut fields = line.split(' ').skip(4);
            let Some(place) = fields.next() else { continue };
            let optional: Vec<_> = fields.skip(1).take_while(|field| *field != "-").collect();
            // Of two on one place the later one is on top.
            if Path::new(&point.source).starts_with(unescape(place)) && place.len() >= best.0.len() {
                best = (place, optional);
            }
        }
        if !best.1.iter().any(|field| needs.iter().any(|prefix| field.starts_with(prefix))) {
            return Err(Error::system(format!(
                "path {} is mounted on {} but it is not {words}",
                point.source, best.0
            )));
        }
    }
    Ok(())
}

/// A path as mountinfo writes it: `\040` for a space.
fn unescape(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(text.to_owned(), |text, (escape, letter)| text.replace(escape, letter))
}

/// What Go takes for a truth value.
pub fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// `64m`, `1.5g`, `512`: bytes, in powers of 1024.
pub fn ram_in_bytes(text: &str) -> Option<i64> {
    let lower = text.to_ascii_lowercase();
    let end = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
    let (number, unit) = lower.split_at(end);
    let unit = unit.strip_prefix(' ').unwrap_or(unit);
    let unit = unit.strip_suffix("ib").or_else(|| unit.strip_suffix('b')).unwrap_or(unit);
    let power = ["", "k", "m", "g", "t", "p"].iter().position(|name| *name == unit)?;
    let bytes = number.parse::<f64>().ok()? * 1024_f64.powi(i32::try_from(power).ok()?);
    // 2⁶³ and above do not fit.
    (bytes < 9_223_372_036_854_775_808.0).then_some(bytes as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn refused(text: &str) -> String {
        parse_bind(text, "").expect_err(text).to_string()
    }

    #[test]
    fn a_bind_is_a_path_or_a_volume() {
        let point = parse_bind("/src/../a/:/mnt//x/", "").expect("valid");
        assert_eq!((point.r#type.as_str(), point.source.as_str()), ("bind", "/a"));
        assert_eq!(
            (point.destination.as_str(), point.rw, point.propagation.as_str()),
            ("/mnt/x", true, "rprivate")
        );
        let point = parse_bind("vol:/data:ro,z,nocopy", "").expect("valid");
        assert_eq!(
            (point.r#type.as_str(), point.name.as_str(), point.mode.as_str()),
            ("volume", "vol", "ro,z,nocopy")
        );
        assert!(!point.rw && !point.copy && !point.is_anonymous());
        let point = parse_bind("/data", "").expect("valid");
        assert!(point.is_anonymous() && point.rw && point.copy);
        assert_eq!(parse_bind("/a:/b:rslave", "").expect("valid").propagation, "rslave");
    }

    #[test]
    fn a_wrong_bind_is_refused_in_dockers_words() {
        for (text, words) in [
            (":/x", "invalid volume specification: ':/x'"),
            ("a:b:c:d", "invalid volume specification: 'a:b:c:d'"),
            ("/x:ro", "invalid volume specification: '/x:ro'"),
            ("/x:/y:foo", "invalid mode: foo"),
            ("/x:/y:ro,rw", "invalid mode: ro,rw"),
            (
                "relative:x",
                "invalid volume specification: 'relative:x': invalid mount config for type \"volume\": invalid \
                 mount path: 'x' mount path must be absolute",
            ),
            (
                "/a:/",
                "invalid volume specification: '/a:/': invalid mount config for type \"bind\": invalid \
                 specification: destination can't be '/'",
            ),
            (
                "x:/y:rshared",
                "invalid volume specification: 'x:/y:rshared': invalid mount config for type \"volume\": field \
                 BindOptions must not be specified",
            ),
            (
                "/x:/y:nocopy",
                "invalid volume specification: '/x:/y:nocopy': invalid mount config for type \"bind\": field \
                 VolumeOptions must not be specified",
            ),
        ] {
            assert_eq!(refused(text), words);
        }
    }

    #[test]
    fn a_wrong_mount_is_refused_in_dockers_words() {
        for (mount, words) in [
            (
                json!({"Type": "bind", "Source": "rel", "Target": "/x"}),
                "\"bind\": invalid mount path: 'rel' mount path must be absolute",
            ),
            (
                json!({"Type": "bind", "Source": "/nonexistent", "Target": "/x"}),
                "\"bind\": bind source path does not exist: /nonexistent",
            ),
            (json!({"Type": "bind", "Target": "/x"}), "\"bind\": field Source must not be empty"),
            (json!({"Type": "foo", "Target": "/x"}), "\"foo\": mount type unknown"),
            (
                json!({"Type": "tmpfs", "Source": "/x", "Target": "/x"}),
                "\"tmpfs\": field Source must not be specified",
            ),
            (
                json!({"Type": "tmpfs", "Target": "/"}),
                "\"tmpfs\": invalid specification: destination can't be '/'",
            ),
            (
                json!({"Type": "bind", "Source": "/tmp", "Target": "/x", "BindOptions": {"Propagation": "foo"}}),
                "\"bind\": invalid propagation mode: foo",
            ),
            (
                json!({"Type": "volume", "Target": "/x", "ReadOnly": true}),
                "\"volume\": must not set ReadOnly mode when using anonymous volumes",
            ),
        ] {
            let mount: Mount = serde_json::from_value(mount).expect("a mount");
            let e = from_mount(&mount).expect_err(words);
            assert_eq!(e.to_string(), format!("invalid mount config for type {words}"));
        }
    }

    #[test]
    fn a_tmpfs_of_a_mount_has_the_options_of_the_flag() {
        let mount =
            json!({"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 1 << 20, "Mode": 0o1770}});
        let mount: Mount = serde_json::from_value(mount).expect("a mount");
        assert_eq!(tmpfs_options(&mount).expect("valid"), "mode=1770,size=1m");
    }

    #[test]
    fn the_last_option_of_a_tmpfs_holds() {
        let merged = |text| merge_tmpfs(text).map(|options| options.join(","));
        assert_eq!(merged("").expect("valid"), "noexec,nosuid,nodev,rprivate");
        assert_eq!(
            merged("rw,exec,size=65536k,size=1m,uid=1000").expect("valid"),
            "nosuid,nodev,rprivate,rw,exec,size=1m,uid=1000"
        );
        assert!(merged("foo").is_err() && merged("size").is_err());
    }

    #[test]
    fn what_is_nearer_to_the_user_replaces_what_is_farther() {
        let config = Config {
            volumes: ["/data", "/cache", "/tmp"]
                .map(|path| (path.to_owned(), super::super::types::Empty {}))
                .into_iter()
                .collect(),
            ..Config::default()
        };
        let host = HostConfig {
            volumes_from: vec!["other:ro".to_owned()].into(),
            binds: vec!["/host:/data".to_owned()].into(),
            tmpfs: [("/tmp/".to_owned(), String::new())].into_iter().collect(),
            ..HostConfig::default()
        };
        let others = |id: &str| {
            assert_eq!(id, "other");
            Ok(vec![parse_bind("v:/data", "").expect("valid"), parse_bind("w:/w", "").expect("valid")])
        };
        let points = points(&config, &host, others).expect("valid");
        let shown: Vec<_> =
            points.values().map(|p| (p.destination.as_str(), p.r#type.as_str(), p.rw)).collect();
        assert_eq!(shown, [("/cache", "volume", true), ("/data", "bind", true), ("/w", "volume", false)]);
        assert!(points["/cache"].is_anonymous() && points["/cache"].copy && !points["/w"].copy);
    }

    #[test]
    fn two_in_one_place_are_refused() {
        let twice = |binds: &[&str], tmpfs: &str| {
            let host = HostConfig {
                binds: binds.iter().map(|text| (*text).to_owned()).collect(),
                tmpfs: [(tmpfs.to_owned(), String::new())].into_iter().collect(),
                ..HostConfig::default()
            };
            points(&Config::default(), &host, |_| Ok(Vec::new())).expect_err("twice").to_string()
        };
        assert_eq!(twice(&["/x:/y", "/z:/y/"], "/t"), "Duplicate mount point: /y");
        assert_eq!(twice(&["/x:/y"], "/y"), "Duplicate mount point: /y");
    }

    #[test]
    fn a_shared_bind_needs_a_shared_mount() {
        let info = "22 1 254:0 / / rw - ext4 /dev/vda rw\n30 22 0:26 / /sha\\040red rw shared:5 - tmpfs x rw\n\
            31 22 0:27 / /slave rw master:5 - tmpfs x rw\n";
        let check = |bind: &str| check_propagation([&parse_bind(bind, "").expect("valid")], info);
        for good in ["/x:/y", "/sha red/x:/y:rshared", "/sha red:/y:slave", "/slave/x:/y:rslave"] {
            check(good).expect(good);
        }
        for (bad, text) in [
            ("/x:/y:shared", "path /x is mounted on / but it is not a shared mount"),
            ("/slave:/y:rshared", "path /slave is mounted on /slave but it is not a shared mount"),
            ("/x:/y:rslave", "path /x is mounted on / but it is not a shared or slave mount"),
        ] {
            assert_eq!(check(bad).expect_err(bad).to_string(), text);
        }
    }

    #[test]
    fn sizes_are_in_powers_of_1024() {
        for (text, bytes) in
            [("512", 512), ("1k", 1024), ("1.5m", 3 << 19), ("2GiB", 2 << 30), ("1tb", 1 << 40)]
        {
            assert_eq!(ram_in_bytes(text), Some(bytes), "{text}");
        }
        for bad in ["", "-1", "1x", "m", "9999999999p"] {
            assert_eq!(ram_in_bytes(bad), None, "{bad}");
        }
    }
}
