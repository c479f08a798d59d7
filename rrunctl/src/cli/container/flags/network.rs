//! `--network` and the flags that are about the first of them.

#![forbid(unsafe_code)]

use super::value::{Read, decimal, fields};
use crate::container::types::{EndpointIpamConfig, EndpointSettings, of_container};
use crate::error::{Error, Result};
use std::collections::BTreeMap;

/// What a `--network` says.
#[derive(Debug, Clone, Default)]
pub(super) struct Attachment {
    pub(super) network: String,
    pub(super) aliases: Vec<String>,
    pub(super) links: Vec<String>,
    pub(super) ip: String,
    pub(super) ip6: String,
    pub(super) link_local: Vec<String>,
    pub(super) mac: String,
    pub(super) driver: BTreeMap<String, String>,
    pub(super) priority: i64,
}

/// `NETWORK`, or `name=NETWORK,alias=…,ip=…`.
pub(super) fn attachment(text: &str) -> Read<Attachment> {
    let word = |c: u8| c.is_ascii_alphanumeric() || c == b'_';
    let long = text.as_bytes().windows(3).any(|three| word(three[0]) && three[1] == b'=' && word(three[2]));
    if !long {
        return Ok(Attachment { network: text.to_owned(), ..Attachment::default() });
    }
    let mut asked = Attachment::default();
    for field in fields(text)? {
        let lower = field.to_lowercase();
        let (key, value) = pair(&lower).ok_or_else(|| format!("invalid field {field}"))?;
        match key {
            "name" => value.clone_into(&mut asked.network),
            "alias" => asked.aliases.push(value.to_owned()),
            "ip" => value.clone_into(&mut asked.ip),
            "ip6" => value.clone_into(&mut asked.ip6),
            "mac-address" => value.clone_into(&mut asked.mac),
            "link-local-ip" => asked.link_local.push(value.to_owned()),
            "driver-opt" => {
                let (key, value) = pair(value).ok_or("invalid key value pair format in driver options")?;
                asked.driver.insert(key.to_owned(), value.to_owned());
            }
            "gw-priority" => {
                asked.priority =
                    decimal(value).map_err(|wrong| format!("invalid gw-priority ({value}): {wrong}"))?;
            }
            _ => return Err(format!("invalid field key {key}")),
        }
    }
    if asked.network.is_empty() {
        return Err("network name/id is not specified".to_owned());
    }
    Ok(asked)
}

fn pair(text: &str) -> Option<(&str, &str)> {
    let (key, value) = text.split_once('=')?;
    (!key.is_empty()).then_some((key.trim(), value.trim()))
}

/// Whether it is none of those that are always there.
fn user_defined(network: &str) -> bool {
    !matches!(network, "default" | "bridge" | "host" | "none") && of_container(network).is_none()
}

/// The endpoints: those of each `--network`, or of `default`, and what flags of their own say of the first.
pub(super) fn endpoints(
    mut attachments: Vec<Attachment>,
    flags: Attachment,
) -> Result<BTreeMap<String, Option<EndpointSettings>>> {
    let none = attachments.is_empty();
    if none {
        attachments.push(Attachment { network: "default".to_owned(), ..Attachment::default() });
    }
    let alone = !none && attachments.len() == 1;
    let mixed = attachments.iter().any(|one| user_defined(&one.network))
        && !attachments.iter().all(|one| user_defined(&one.network));
    let mut endpoints = BTreeMap::new();
    if let Some(first) = attachments.first_mut() {
        add(first, flags)?;
    }
    for one in attachments {
        let network = one.network.clone();
        let endpoint = endpoint(one)?;
        if endpoints.contains_key(&network) {
            return Err(Error::invalid(format!("network {network:?} is specified multiple times")));
        }
        // Docker before 25 refused to hear of endpoints that it did not know; one network alone is in NetworkMode.
        if !alone || endpoint != EndpointSettings::default() {
            endpoints.insert(network, Some(endpoint));
        }
    }
    if mixed {
        return Err(Error::invalid(
            "conflicting options: cannot attach both user-defined and non-user-defined network-modes",
        ));
    }
    Ok(endpoints)
}

/// Adds what the flags say.
fn add(to: &mut Attachment, flags: Attachment) -> Result<()> {
    for (both, what) in [
        (!to.aliases.is_empty() && !flags.aliases.is_empty(), "--network-alias and per-network alias"),
        (!to.ip.is_empty() && !flags.ip.is_empty(), "--ip and per-network IPv4 address"),
        (!to.ip6.is_empty() && !flags.ip6.is_empty(), "--ip6 and per-network IPv6 address"),
        (!to.mac.is_empty() && !flags.mac.is_empty(), "--mac-address and per-network MAC address"),
        (
            !to.link_local.is_empty() && !flags.link_local.is_empty(),
            "--link-local-ip and per-network link-local IP addresses",
        ),
    ] {
        if both {
            return Err(Error::invalid(format!("conflicting options: cannot specify both {what}")));
        }
    }
    // In the default network a link is not the endpoint's but the container's.
    if user_defined(&to.network) {
        to.links = flags.links;
    }
    to.aliases.extend(flags.aliases);
    to.link_local.extend(flags.link_local);
    for (to, flag) in [(&mut to.ip, flags.ip), (&mut to.ip6, flags.ip6), (&mut to.mac, flags.mac)] {
        if !flag.is_empty() {
            *to = flag;
        }
    }
    Ok(())
}

fn endpoint(asked: Attachment) -> Result<EndpointSettings> {
    if asked.network.trim().is_empty() {
        return Err(Error::invalid("no name set for network"));
    }
    if !user_defined(&asked.network) && !asked.aliases.is_empty() {
        return Err(Error::invalid("network-scoped aliases are only supported for user-defined networks"));
    }
    if !asked.mac.is_empty() && !is_mac(asked.mac.trim()) {
        return Err(Error::invalid(format!("{} is not a valid mac address", asked.mac)));
    }
    let mut endpoint = EndpointSettings {
        gw_priority: asked.priority,
        mac_address: asked.mac,
        ..EndpointSettings::default()
    };
    // Empty lists are not nil, and would be written otherwise.
    if !asked.aliases.is_empty() {
        endpoint.aliases = asked.aliases.into();
    }
    if !asked.links.is_empty() {
        endpoint.links = asked.links.into();
    }
    if !asked.driver.is_empty() {
        endpoint.driver_opts = asked.driver.into();
    }
    if !asked.ip.is_empty() || !asked.ip6.is_empty() || !asked.link_local.is_empty() {
        endpoint.ipam_config = Some(EndpointIpamConfig {
            ipv4_address: asked.ip,
            ipv6_address: asked.ip6,
            link_local_ips: asked.link_local.into(),
        });
    }
    Ok(endpoint)
}

/// 6, 8 or 20 bytes: `02:42:…`, `02-42-…`, `0242.…`.
pub(super) fn is_mac(text: &str) -> bool {
    let (separator, width) = match text.as_bytes() {
        [_, _, separator @ (b':' | b'-'), ..] => (char::from(*separator), 2),
        [_, _, _, _, b'.', ..] => ('.', 4),
        _ => return false,
    };
    let mut count = 0;
    for part in text.split(separator) {
        if part.len() != width || !part.bytes().all(|c| c.is_ascii_hexdigit()) {
            return false;
        }
        count += width / 2;
    }
    matches!(count, 6 | 8 | 20)
}
