//! `--device`, `--gpus`, and the limits of block devices.

#![forbid(unsafe_code)]

use super::value::{Read, decimal, fields, pair, size};
use crate::container::mount::clean;
use crate::container::types::{DeviceMapping, DeviceRequest, List, ThrottleDevice, WeightDevice};
use crate::error::{Error, Result};

/// `--device`: `HOST[:INSIDE][:rwm]`, or the name of a device that CDI knows (`vendor.com/class=name`).
pub(super) fn devices(given: &[String]) -> Result<(Vec<DeviceMapping>, Vec<DeviceRequest>)> {
    let (names, paths): (Vec<&String>, Vec<&String>) = given.iter().partition(|text| is_cdi(text));
    let request = DeviceRequest {
        driver: "cdi".to_owned(),
        device_ids: names.iter().map(|name| (*name).clone()).collect(),
        ..DeviceRequest::default()
    };
    let requests = if names.is_empty() { Vec::new() } else { vec![request] };
    Ok((paths.into_iter().map(|text| mapping(text)).collect::<Result<_>>()?, requests))
}

fn mapping(text: &str) -> Result<DeviceMapping> {
    let parts: Vec<&str> = text.split(':').collect();
    let wrong = || Error::invalid(format!("bad format for path: {text}"));
    let (host, inside, access) = match parts[..] {
        ["", ..] => return Err(wrong()),
        [host] => (clean(host), None, "rwm"),
        [host, access] if is_access(access) => (clean(host), None, access),
        [host, inside] => (host.to_owned(), Some(inside), "rwm"),
        [_, _, access] if !is_access(access) => {
            return Err(Error::invalid(format!("bad mode specified: {access}")));
        }
        [host, inside, access] => (host.to_owned(), Some(inside), access),
        _ => return Err(wrong()),
    };
    let path = inside.unwrap_or(parts[0]);
    if !path.starts_with('/') {
        return Err(Error::invalid(format!("{path} is not an absolute path")));
    }
    let inside = match inside {
        None => host.clone(),
        // With an access behind it docker leaves it as it is.
        Some(inside) if parts.len() == 3 => inside.to_owned(),
        Some(inside) => clean(inside),
    };
    Ok(DeviceMapping { path_on_host: host, path_in_container: inside, cgroup_permissions: access.to_owned() })
}

/// Of `r`, `w` and `m` each at most once.
fn is_access(text: &str) -> bool {
    let once = |c| text.matches(c).count() <= 1;
    !text.is_empty() && text.chars().all(|c| matches!(c, 'r' | 'w' | 'm') && once(c))
}

/// `VENDOR/CLASS=NAME` of the Container Device Interface.
fn is_cdi(text: &str) -> bool {
    let Some((kind, name)) = text.split_once('=') else { return false };
    let Some((vendor, class)) = kind.split_once('/') else { return false };
    let word = |text: &str, more: &str| {
        text.ends_with(|c: char| c.is_ascii_alphanumeric())
            && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
    };
    [vendor, class]
        .iter()
        .all(|text| text.starts_with(|c: char| c.is_ascii_alphabetic()) && word(text, "_-."))
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && word(name, "_-.:")
}

/// `--device-cgroup-rule`: `c 1:3 rwm`.
pub(super) fn rule(text: &str) -> Read<String> {
    let number = |text: &str| text == "*" || !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
    let parts: Vec<&str> = text.split(' ').collect();
    match parts[..] {
        ["a" | "b" | "c", numbers, access]
            if numbers.split_once(':').is_some_and(|(major, minor)| number(major) && number(minor))
                && (1..=3).contains(&access.len())
                && access.bytes().all(|c| matches!(c, b'r' | b'w' | b'm')) =>
        {
            Ok(text.to_owned())
        }
        _ => Err(format!("invalid device cgroup format '{text}'")),
    }
}

/// `--gpus`: `all`, a number, or `count=…,driver=…,device=…,capabilities=…,options=…`.
pub(super) fn gpus(text: &str) -> Read<DeviceRequest> {
    let mut request = DeviceRequest::default();
    let (mut seen, mut counted) = (Vec::new(), false);
    let words = |text: &str| text.split(',').map(str::to_owned).collect::<Vec<_>>();
    for field in fields(text)? {
        let (key, value) = field.split_once('=').map_or((&*field, None), |(key, value)| (key, Some(value)));
        if seen.contains(&key.to_owned()) || key == "count" && counted {
            return Err(format!("gpu request key '{key}' can be specified only once"));
        }
        seen.push(key.to_owned());
        match (key, value) {
            (count, None) | ("count", Some(count)) => (request.count, counted) = (self::count(count)?, true),
            ("driver", Some(value)) => value.clone_into(&mut request.driver),
            ("device", Some(value)) => request.device_ids = words(value).into(),
            ("capabilities", Some(value)) => {
                let mut all = words(value);
                all.push("gpu".to_owned());
                request.capabilities = vec![List::from(all)].into();
            }
            ("options", Some(value)) => {
                let options =
                    fields(value).map_err(|wrong| format!("failed to read gpu options: {wrong}"))?;
                request.options = options.iter().map(|option| pair(option)).collect();
            }
            _ => return Err(format!("unexpected key '{key}' in '{field}'")),
        }
    }
    if !counted && request.device_ids.is_nil() {
        request.count = 1;
    }
    if request.options.is_nil() {
        request.options = [].into_iter().collect();
    }
    if request.capabilities.is_nil() {
        request.capabilities = vec![List::from(vec!["gpu".to_owned()])].into();
    }
    Ok(request)
}

fn count(text: &str) -> Read<i64> {
    if text == "all" {
        return Ok(-1);
    }
    decimal(text).map_err(|wrong| {
        format!("invalid count ({text}): value must be either \"all\" or an integer: {wrong}")
    })
}

/// The path of a device, and what stands behind it.
fn device(text: &str) -> Read<(&str, &str)> {
    let (path, value) = text
        .split_once(':')
        .filter(|(path, _)| !path.is_empty())
        .ok_or_else(|| format!("bad format: {text}"))?;
    if path.starts_with("/dev/") {
        Ok((path, value))
    } else {
        Err(format!("bad format for device path: {text}"))
    }
}

/// `--blkio-weight-device`: `/dev/x:300`.
pub(super) fn weight(text: &str) -> Read<WeightDevice> {
    let (path, weight) = device(text)?;
    let weight = super::value::port(weight).ok().filter(|weight| matches!(weight, 0 | 10..=1000));
    let weight = weight.ok_or_else(|| format!("invalid weight for device: {text}"))?;
    Ok(WeightDevice { path: path.to_owned(), weight })
}

/// `--device-read-bps`: `/dev/x:1mb`.
pub(super) fn bytes_a_second(text: &str) -> Read<ThrottleDevice> {
    let (path, rate) = device(text)?;
    let rate = size(rate).ok().and_then(|rate| u64::try_from(rate).ok()).ok_or_else(|| {
        format!(
            "invalid rate for device: {text}. The correct format is <device-path>:<number>[<unit>]. \
             Number must be a positive integer. Unit is optional and can be kb, mb, or gb"
        )
    })?;
    Ok(ThrottleDevice { path: path.to_owned(), rate })
}

/// `--device-read-iops`: `/dev/x:1000`.
pub(super) fn operations_a_second(text: &str) -> Read<ThrottleDevice> {
    let (path, rate) = device(text)?;
    let rate = rate.parse().ok().filter(|_| !rate.starts_with('+')).ok_or_else(|| {
        format!(
            "invalid rate for device: {text}. The correct format is <device-path>:<number>. \
             Number must be a positive integer"
        )
    })?;
    Ok(ThrottleDevice { path: path.to_owned(), rate })
}
