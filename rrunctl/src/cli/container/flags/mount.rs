//! `-v` and `--mount`.

#![forbid(unsafe_code)]

use super::value::{Read, absolute, fields, size, truth};
use crate::container::types::{BindOptions, Map, Mount, TmpfsOptions, VolumeOptions};
use crate::error::{Error, Result};

/// What the options `-v` are: a place for a volume without a name, or a bind.
pub(super) enum Volume {
    Anonymous(String),
    Bind(String),
}

/// `-v`: what it is, and a source that is given from here on as it is from the root. The rest the engine reads.
pub(super) fn volume(text: &str) -> Result<Volume> {
    if text.is_empty() {
        return Err(Error::invalid("invalid empty volume spec"));
    }
    if text.len() <= 2 {
        return Ok(Volume::Anonymous(text.to_owned()));
    }
    let parts = parts(text);
    let wrong = |wrong: &str| Error::invalid(format!("invalid spec: {text}: {wrong}"));
    if parts.iter().take(3).any(String::is_empty) {
        return Err(wrong("empty section between colons"));
    }
    match &parts[..] {
        [_] => Ok(Volume::Anonymous(text.to_owned())),
        [_, _] | [_, _, _] => Ok(Volume::Bind(match text.split_once(':') {
            Some((source, rest)) if source.starts_with('.') => {
                format!("{}:{rest}", absolute(source).unwrap_or_else(|| source.to_owned()))
            }
            _ => text.to_owned(),
        })),
        _ => Err(wrong("too many colons")),
    }
}

/// What stands between the colons; one behind a single letter belongs to a drive of Windows, which docker's CLI looks
/// for everywhere.
fn parts(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    for c in text.chars() {
        let Some(part) = parts.last_mut() else { break };
        let drive = part.chars().count() == 1 && part.chars().all(char::is_alphabetic);
        if c == ':' && !drive {
            parts.push(String::new());
        } else {
            part.push(c);
        }
    }
    parts
}

/// `--mount`: `type=bind,source=/x,target=/y,readonly`, quoted as CSV.
pub(super) fn mount(text: &str) -> Read<Mount> {
    let mut mount = Mount { r#type: "volume".to_owned(), ..Mount::default() };
    for field in fields(text)? {
        let (key, value) = field.split_once('=').map_or((&*field, None), |(key, value)| (key, Some(value)));
        let key = key.to_lowercase();
        match value {
            Some(value) => set(&mut mount, &key, value, &field)?,
            None => match &*key {
                "readonly" | "ro" => mount.read_only = true,
                "volume-nocopy" => volume_options(&mut mount).no_copy = true,
                "bind-nonrecursive" => bind_options(&mut mount).non_recursive = true,
                _ => return Err(format!("invalid field '{field}' must be a key=value pair")),
            },
        }
    }
    check(&mount)?;
    Ok(mount)
}

fn set(mount: &mut Mount, key: &str, value: &str, field: &str) -> Read<()> {
    let wrong = || format!("invalid value for {key}: {value}");
    let truth = |value| truth(value).map_err(|_| wrong());
    match key {
        "type" => mount.r#type = value.to_lowercase(),
        "source" | "src" => mount.source = absolute(value).unwrap_or_else(|| value.to_owned()),
        "target" | "dst" | "destination" => value.clone_into(&mut mount.target),
        "readonly" | "ro" => mount.read_only = truth(value)?,
        "consistency" => mount.consistency = value.to_lowercase(),
        "bind-propagation" => bind_options(mount).propagation = value.to_lowercase(),
        "bind-nonrecursive" => bind_options(mount).non_recursive = truth(value)?,
        "bind-recursive" => match value {
            "enabled" => {}
            "disabled" => bind_options(mount).non_recursive = true,
            "writable" => bind_options(mount).read_only_non_recursive = true,
            "readonly" => bind_options(mount).read_only_force_recursive = true,
            _ => {
                let words = "(must be \"enabled\", \"disabled\", \"writable\", or \"readonly\")";
                return Err(format!("{} {words}", wrong()));
            }
        },
        "volume-nocopy" => volume_options(mount).no_copy = truth(value)?,
        "volume-subpath" => value.clone_into(&mut volume_options(mount).subpath),
        "volume-label" => insert(&mut volume_options(mount).labels, value),
        "volume-driver" => {
            value.clone_into(&mut volume_options(mount).driver_config.get_or_insert_default().name);
        }
        "volume-opt" => {
            insert(&mut volume_options(mount).driver_config.get_or_insert_default().options, value);
        }
        "tmpfs-size" => tmpfs_options(mount).size_bytes = size(value).map_err(|_| wrong())?,
        "tmpfs-mode" => {
            let octal = value.bytes().all(|c| c.is_ascii_digit());
            let mode = if octal { u32::from_str_radix(value, 8).ok() } else { None };
            tmpfs_options(mount).mode = mode.ok_or_else(wrong)?;
        }
        _ => return Err(format!("unexpected key '{key}' in '{field}'")),
    }
    Ok(())
}

fn bind_options(mount: &mut Mount) -> &mut BindOptions {
    mount.bind_options.get_or_insert_default()
}

fn volume_options(mount: &mut Mount) -> &mut VolumeOptions {
    let options = mount.volume_options.get_or_insert_default();
    // Docker sends an empty one with any of them.
    options.driver_config.get_or_insert_default();
    options
}

fn tmpfs_options(mount: &mut Mount) -> &mut TmpfsOptions {
    mount.tmpfs_options.get_or_insert_default()
}

fn insert(map: &mut Map<String>, text: &str) {
    let (key, value) = super::value::pair(text);
    if !key.is_empty() {
        map.insert(key, value);
    }
}

/// What contradicts itself.
fn check(mount: &Mount) -> Read<()> {
    for (lacks, what) in [(mount.r#type.is_empty(), "type"), (mount.target.is_empty(), "target")] {
        if lacks {
            return Err(format!("{what} is required"));
        }
    }
    for (given, kind) in [
        (mount.volume_options.is_some(), "volume"),
        (mount.bind_options.is_some(), "bind"),
        (mount.tmpfs_options.is_some(), "tmpfs"),
    ] {
        if given && mount.r#type != kind {
            return Err(format!("cannot mix '{kind}-*' options with mount type '{}'", mount.r#type));
        }
    }
    let Some(options) = &mount.bind_options else { return Ok(()) };
    let (writable, all) = (options.read_only_non_recursive, options.read_only_force_recursive);
    for (given, how, lacks, what) in [
        (writable, "writable", !mount.read_only, "readonly"),
        (all, "readonly", !mount.read_only, "readonly"),
        (all, "readonly", options.propagation != "rprivate", "bind-propagation=rprivate"),
    ] {
        if given && lacks {
            return Err(format!(
                "option 'bind-recursive={how}' requires '{what}' to be specified in conjunction"
            ));
        }
    }
    Ok(())
}
