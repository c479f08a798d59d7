//! `-p` and `--expose`.

#![forbid(unsafe_code)]

use super::value::{self, Read};
use crate::container::types::{Empty, List, Map, PortBinding};
use crate::error::{Error, Result};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Ports by `80/tcp`, as they are exposed and as they are published.
pub(super) fn read(publish: &[String], expose: &[String]) -> Result<(Map<Empty>, Map<List<PortBinding>>)> {
    let mut exposed = BTreeMap::new();
    let mut published: BTreeMap<String, List<PortBinding>> = BTreeMap::new();
    for text in publish {
        for (port, binding) in publication(&short(text)?)? {
            exposed.insert(port.clone(), Empty {});
            published.entry(port).or_default().push(binding);
        }
    }
    for text in expose {
        if text.contains(':') {
            return Err(Error::invalid(format!("invalid port format for --expose: {text}")));
        }
        let (protocol, ports) = protocol(text);
        let (first, last) = range(ports).map_err(|wrong| {
            Error::invalid(format!("invalid range format for --expose: {text}, error: {wrong}"))
        })?;
        exposed.extend((first..=last).map(|port| (format!("{port}/{protocol}"), Empty {})));
    }
    Ok((exposed.into(), published.into()))
}

/// `published=8080,target=80,protocol=tcp` as `8080:80/tcp`.
fn short(text: &str) -> Result<String> {
    if !text.contains('=') {
        return Ok(text.to_owned());
    }
    let (mut published, mut target, mut protocol) = ("", "", "tcp");
    for field in text.split(',') {
        match field.split_once('=') {
            Some(("published", value)) => published = value,
            Some(("target", value)) => target = value,
            Some(("protocol", value)) => protocol = value,
            Some((key, _)) if !key.is_empty() => {}
            _ => {
                return Err(Error::invalid(format!(
                    "invalid publish opts format (should be name=value but got '{field}')"
                )));
            }
        }
    }
    Ok(format!("{published}:{target}/{protocol}"))
}

/// `[[ADDRESS:][HOST PORTS]:]PORTS[/PROTOCOL]`; an IPv6 address may stand in brackets.
fn publication(text: &str) -> Result<Vec<(String, PortBinding)>> {
    let invalid = |text: String| Error::invalid(text);
    let (rest, last) = text.rsplit_once(':').map_or((None, text), |(rest, last)| (Some(rest), last));
    let (address, host) = match rest {
        Some(rest) => rest.rsplit_once(':').unwrap_or(("", rest)),
        None => ("", ""),
    };
    let (protocol, inside) = protocol(last);
    let bare = match address.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').ok_or_else(|| {
            invalid(format!("invalid IP address {address}: address {address}:: missing ']' in address"))
        })?,
        None => address,
    };
    if !bare.is_empty() && bare.parse::<IpAddr>().is_err() {
        return Err(invalid(format!("invalid IP address: {bare}")));
    }
    if inside.is_empty() {
        return Err(invalid(format!("no port specified: {text}<empty>")));
    }
    let ports = range(inside).map_err(|_| invalid(format!("invalid containerPort: {inside}")))?;
    let on_host = match host {
        "" => None,
        host => Some(range(host).map_err(|_| invalid(format!("invalid hostPort: {host}")))?),
    };
    let one = ports.0 == ports.1;
    if let Some(on_host) = on_host
        && !one
        && ports.1 - ports.0 != on_host.1 - on_host.0
    {
        return Err(invalid(format!(
            "invalid ranges specified for container and host Ports: {inside} and {host}"
        )));
    }
    let lower = protocol.to_lowercase();
    if !["tcp", "udp", "sctp"].contains(&lower.as_str()) {
        return Err(invalid(format!("invalid proto: {protocol}")));
    }
    let binding = |port: u16| PortBinding {
        host_ip: bare.to_owned(),
        host_port: match on_host {
            None => String::new(),
            // Any one of them.
            Some((first, last)) if one && first != last => format!("{first}-{last}"),
            Some((first, _)) => (first + (port - ports.0)).to_string(),
        },
    };
    Ok((ports.0..=ports.1).map(|port| (format!("{port}/{lower}"), binding(port))).collect())
}

/// The protocol, tcp if there is none, and what stands before it.
fn protocol(text: &str) -> (&str, &str) {
    let mut parts = text.split('/');
    match (parts.next().unwrap_or_default(), parts.next().unwrap_or_default()) {
        ("", _) => ("", ""),
        (ports, "") => ("tcp", ports),
        (ports, protocol) => (protocol, ports),
    }
}

/// `80`, `80-82`.
fn range(text: &str) -> Read<(u16, u16)> {
    if text.is_empty() {
        return Err("empty string specified for ports".to_owned());
    }
    let mut parts = text.split('-');
    let first = value::port(parts.next().unwrap_or_default())?;
    let last = parts.next().map_or(Ok(first), value::port)?;
    if last < first {
        return Err(format!("invalid range specified for port: {text}"));
    }
    Ok((first, last))
}
