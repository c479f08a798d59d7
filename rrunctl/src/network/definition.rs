//! A network as it is asked for, and as it is kept: Docker's fields in Docker's order, because `network inspect` prints them.

#![forbid(unsafe_code)]

use super::firewall::{Bridge, Mode};
use super::leases::Range;
use super::subnet::Subnet;
use crate::error::{Error, Kind, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// The name of the link of the network `bridge`.
pub const DEFAULT_BRIDGE: &str = "rrun0";

const NAME: &str = "com.docker.network.bridge.name";
const ICC: &str = "com.docker.network.bridge.enable_icc";
const MASQUERADE: &str = "com.docker.network.bridge.enable_ip_masquerade";
const HOST_BINDING: &str = "com.docker.network.bridge.host_binding_ipv4";
const GATEWAY_MODE: &str = "com.docker.network.bridge.gateway_mode_ipv4";
const MTU: &str = "com.docker.network.driver.mtu";

/// What `network create` asks for.
#[derive(Debug, Clone, Default)]
pub struct CreateNetwork {
    /// The name.
    pub name: String,
    /// `bridge` where it is empty.
    pub driver: String,
    /// Subnets, at most one of each family; one is chosen where there is none.
    pub subnet: Vec<String>,
    /// The bridge's addresses in them; the first ones where there are none.
    pub gateway: Vec<String>,
    /// The parts of them from which containers get addresses.
    pub ip_range: Vec<String>,
    /// Whether containers get IPv6 addresses.
    pub ipv6: bool,
    /// Nothing goes out and nothing comes in.
    pub internal: bool,
    /// Whether containers may be attached later; kept for `inspect`.
    pub attachable: bool,
    /// Docker's options of the driver bridge.
    pub options: BTreeMap<String, String>,
    /// What the user says about it.
    pub labels: BTreeMap<String, String>,
    /// The largest packet in bytes; that of the host's default route where it is not given.
    pub mtu: Option<u32>,
}

/// A subnet and what is special in it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct IpamConfig {
    /// `172.18.0.0/16`
    pub subnet: String,
    /// From which containers get addresses.
    #[serde(rename = "IPRange", default, skip_serializing_if = "String::is_empty")]
    pub ip_range: String,
    /// The bridge's address.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub gateway: String,
}

/// How addresses are given.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Ipam {
    /// `default`
    pub driver: String,
    /// None.
    pub options: Option<BTreeMap<String, String>>,
    /// One of each family.
    pub config: Vec<IpamConfig>,
}

/// Another network that this one is like; never.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ConfigFrom {
    /// Its name.
    pub network: String,
}

/// A container in a network, as `network inspect` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct NetworkContainer {
    /// The container's name.
    pub name: String,
    /// 64 hexadecimal digits.
    #[serde(rename = "EndpointID")]
    pub endpoint_id: String,
    /// `02:42:ac:12:00:02`
    pub mac_address: String,
    /// `172.18.0.2/16`
    #[serde(rename = "IPv4Address")]
    pub ipv4_address: String,
    /// Empty without IPv6.
    #[serde(rename = "IPv6Address")]
    pub ipv6_address: String,
}

/// A network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Network {
    /// The name.
    pub name: String,
    /// 64 hexadecimal digits.
    pub id: String,
    /// When it was made, RFC 3339.
    pub created: String,
    /// `local`
    pub scope: String,
    /// `bridge`, `host`, `null`.
    pub driver: String,
    /// Whether containers have IPv4 addresses.
    #[serde(rename = "EnableIPv4")]
    pub enable_ipv4: bool,
    /// Whether containers have IPv6 addresses.
    #[serde(rename = "EnableIPv6")]
    pub enable_ipv6: bool,
    /// Its addresses.
    #[serde(rename = "IPAM")]
    pub ipam: Ipam,
    /// Nothing goes out and nothing comes in.
    pub internal: bool,
    /// Kept for `inspect`.
    pub attachable: bool,
    /// Never.
    pub ingress: bool,
    /// None.
    pub config_from: ConfigFrom,
    /// Never.
    pub config_only: bool,
    /// Who is in it; empty except from `inspect`.
    #[serde(default)]
    pub containers: BTreeMap<String, NetworkContainer>,
    /// Docker's options of the driver.
    pub options: BTreeMap<String, String>,
    /// What the user says about it.
    pub labels: BTreeMap<String, String>,
}

impl Network {
    /// Whether it is `bridge`, `host` or `none`.
    pub fn is_predefined(&self) -> bool {
        predefined(&self.name)
    }

    /// Whether it is a bridge, and not the host's network or none.
    pub fn is_bridge(&self) -> bool {
        self.driver == "bridge"
    }

    /// The name of its link.
    pub fn link(&self) -> String {
        match self.options.get(NAME) {
            Some(name) => name.clone(),
            None => format!("br-{}", self.id.get(..12).unwrap_or(&self.id)),
        }
    }

    /// The option's largest packet.
    pub fn mtu(&self) -> Option<u32> {
        self.options.get(MTU).and_then(|mtu| mtu.parse().ok())
    }

    /// The host's address for published ports that name none.
    pub fn host_binding(&self) -> Option<IpAddr> {
        self.options
            .get(HOST_BINDING)
            .and_then(|ip| ip.parse().ok())
            .filter(|ip: &IpAddr| !ip.is_unspecified())
    }

    /// The addresses of one family.
    pub fn range(&self, v4: bool) -> Option<Range> {
        self.ipam.config.iter().find_map(|config| {
            let (_, subnet) = Subnet::parse(&config.subnet).ok()?;
            let range = Subnet::parse(&config.ip_range).map_or(subnet, |(_, range)| range);
            let gateway = config.gateway.parse().ok()?;
            (subnet.is_ipv4() == v4).then_some(Range { subnet, range, gateway })
        })
    }

    /// Its addresses, IPv4 first.
    pub fn ranges(&self) -> impl Iterator<Item = Range> {
        [true, false].into_iter().filter_map(|v4| self.range(v4))
    }

    /// What the rules have to know.
    pub fn bridge(&self) -> Bridge {
        Bridge {
            name: self.link(),
            subnets: self.ranges().map(|range| range.subnet).collect(),
            internal: self.internal,
            masquerade: flag(&self.options, MASQUERADE),
            icc: flag(&self.options, ICC),
            mode: mode(&self.options).unwrap_or_default(),
        }
    }
}

/// `bridge`, `host` and `none` are there from the beginning.
pub fn predefined(name: &str) -> bool {
    matches!(name, "bridge" | "host" | "none")
}

fn flag(options: &BTreeMap<String, String>, name: &str) -> bool {
    options.get(name).is_none_or(|value| value == "true" || value == "1")
}

fn mode(options: &BTreeMap<String, String>) -> Result<Mode> {
    match options.get(GATEWAY_MODE).map_or("nat", String::as_str) {
        "nat" => Ok(Mode::Nat),
        "routed" => Ok(Mode::Routed),
        "nat-unprotected" => Ok(Mode::Unprotected),
        other => Err(Error::invalid(format!("unknown gateway mode {other}"))),
    }
}

/// The options of `bridge`, which `inspect` shows.
pub fn default_options() -> BTreeMap<String, String> {
    let options = [
        ("com.docker.network.bridge.default_bridge", "true"),
        (ICC, "true"),
        (MASQUERADE, "true"),
        (HOST_BINDING, "0.0.0.0"),
        (NAME, DEFAULT_BRIDGE),
    ];
    options.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// Checks all that does not depend on what there is.
///
/// # Errors
/// What is not valid.
pub fn check(asked: &CreateNetwork) -> Result<()> {
    let name = &asked.name;
    let mut letters = name.bytes();
    let valid = letters.next().is_some_and(|first| first.is_ascii_alphanumeric())
        && letters.all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
        && name.len() <= 255;
    if !valid {
        return Err(Error::invalid(format!(
            "invalid network name {name:?}: only [a-zA-Z0-9][a-zA-Z0-9_.-]* is allowed"
        )));
    }
    if predefined(name) {
        return Err(Error::new(
            Kind::Conflict,
            format!("operation is not permitted on predefined {name} network"),
        ));
    }
    match asked.driver.as_str() {
        "" | "bridge" => {}
        one @ ("host" | "null") => {
            return Err(Error::conflict(format!("only one instance of \"{one}\" network is allowed")));
        }
        "overlay" => {
            return Err(Error::new(
                Kind::Unsupported,
                "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this \
                 node to swarm and try again.",
            ));
        }
        other => {
            return Err(Error::not_found(format!(
                "could not find plugin {other} in v1 plugin registry: plugin not found"
            )));
        }
    }
    mode(&asked.options)?;
    for (option, value) in &asked.options {
        let fine = match option.as_str() {
            NAME => is_link_name(value),
            ICC | MASQUERADE => matches!(value.as_str(), "true" | "false" | "1" | "0"),
            HOST_BINDING => value.parse::<std::net::Ipv4Addr>().is_ok(),
            MTU => value.parse::<u32>().is_ok_and(|mtu| (68..=65535).contains(&mtu)),
            _ => true,
        };
        if !fine {
            return Err(Error::invalid(format!("invalid value {value:?} of option {option}")));
        }
    }
    match asked.mtu {
        Some(mtu) if !(68..=65535).contains(&mtu) => Err(Error::invalid(format!("invalid MTU {mtu}"))),
        _ => Ok(()),
    }
}

/// What the kernel takes for a name (dev_valid_name), without what sysctl paths and `nft` trip over.
fn is_link_name(name: &str) -> bool {
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    (1..=15).contains(&name.len()) && name.bytes().all(fine) && name != "." && name != ".."
}

/// Puts the gateways and the ranges to the subnets that they are in.
///
/// # Errors
/// What is not valid, in Docker's words.
pub fn consolidate(asked: &CreateNetwork) -> Result<Vec<IpamConfig>> {
    if asked.subnet.is_empty() && !(asked.gateway.is_empty() && asked.ip_range.is_empty()) {
        return Err(Error::invalid("every ip-range or gateway must have a corresponding subnet"));
    }
    let mut found: Vec<(Subnet, IpamConfig)> = Vec::new();
    for text in &asked.subnet {
        let (ip, subnet) = Subnet::parse(text)?;
        if ip != subnet.base() {
            let text = format!("invalid network config: invalid subnet {text}: it should be {subnet}");
            return Err(Error::invalid(text));
        }
        // A bridge's address and a container's.
        if subnet.nth(2).is_none() {
            return Err(Error::invalid(format!("invalid subnet {text}: it has no address for a container")));
        }
        if found.iter().any(|(other, _)| other.is_ipv4() == subnet.is_ipv4()) {
            return Err(Error::invalid("bridge driver supports one subnet of IPv4 and one of IPv6"));
        }
        if !subnet.is_ipv4() && !asked.ipv6 {
            return Err(Error::invalid(format!("IPv6 subnet {text} without --ipv6")));
        }
        found.push((subnet, IpamConfig { subnet: subnet.to_string(), ..IpamConfig::default() }));
    }
    for text in &asked.ip_range {
        let (_, range) = Subnet::parse(text)?;
        let of = found
            .iter_mut()
            .find(|(subnet, _)| subnet.contains(range.base()) && range.prefix() >= subnet.prefix());
        let of = of.ok_or_else(|| Error::invalid(format!("no matching subnet for range {text}")))?;
        of.1.ip_range = range.to_string();
    }
    for text in &asked.gateway {
        let ip: IpAddr =
            text.parse().map_err(|_| Error::invalid(format!("invalid gateway address {text}")))?;
        let of = found
            .iter_mut()
            .find(|(subnet, _)| subnet.contains(ip) && subnet.base() != ip && subnet.last() != ip);
        let of = of.ok_or_else(|| Error::invalid(format!("no matching subnet for gateway {text}")))?;
        of.1.gateway = ip.to_string();
    }
    Ok(found.into_iter().map(|(subnet, config)| with_gateway(&subnet, config)).collect())
}

/// The first address is the bridge's, unless another one was asked for.
pub fn with_gateway(subnet: &Subnet, mut config: IpamConfig) -> IpamConfig {
    if config.gateway.is_empty()
        && let Some(first) = subnet.nth(1)
    {
        config.gateway = first.to_string();
    }
    config.subnet = subnet.to_string();
    config
}

/// Puts `mtu` among the options, where the kept network has it.
pub fn options(asked: &CreateNetwork) -> BTreeMap<String, String> {
    let mut options = asked.options.clone();
    if let Some(mtu) = asked.mtu {
        options.insert(MTU.into(), mtu.to_string());
    }
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(subnet: &[&str], range: &[&str], gateway: &[&str]) -> CreateNetwork {
        let all = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        CreateNetwork {
            name: "n".into(),
            subnet: all(subnet),
            ip_range: all(range),
            gateway: all(gateway),
            ..CreateNetwork::default()
        }
    }

    #[test]
    fn a_gateway_and_a_range_go_to_the_subnet_that_they_are_in() {
        let mut both = asked(&["fd00:1::/64", "10.1.0.0/16"], &["10.1.5.0/24"], &["fd00:1::9"]);
        both.ipv6 = true;
        let config = consolidate(&both).expect("valid");
        assert_eq!((config[0].gateway.as_str(), config[1].gateway.as_str()), ("fd00:1::9", "10.1.0.1"));
        assert_eq!(config[1].ip_range, "10.1.5.0/24");
    }

    #[test]
    fn what_is_not_valid_is_refused_in_dockers_words() {
        for (asked, text) in [
            (asked(&[], &[], &["10.0.0.1"]), "every ip-range or gateway must have a corresponding subnet"),
            (
                asked(&["10.0.0.1/24"], &[], &[]),
                "invalid network config: invalid subnet 10.0.0.1/24: it should be 10.0.0.0/24",
            ),
            (asked(&["10.0.0.0/24"], &["10.1.0.0/25"], &[]), "no matching subnet for range 10.1.0.0/25"),
            (asked(&["10.0.0.0/24"], &[], &["10.1.0.1"]), "no matching subnet for gateway 10.1.0.1"),
            (asked(&["10.0.0.0/33"], &[], &[]), "invalid CIDR address: 10.0.0.0/33"),
        ] {
            assert_eq!(consolidate(&asked).expect_err(text).to_string(), text);
        }
        for (name, driver, text) in [
            ("bridge", "", "operation is not permitted on predefined bridge network"),
            ("n", "host", "only one instance of \"host\" network is allowed"),
            ("n", "weave", "could not find plugin weave in v1 plugin registry: plugin not found"),
        ] {
            let asked =
                CreateNetwork { name: name.into(), driver: driver.into(), ..CreateNetwork::default() };
            assert_eq!(check(&asked).expect_err(text).to_string(), text);
        }
        for name in ["", "-a", "a b", "a/b", "\u{e4}"] {
            assert!(
                check(&CreateNetwork { name: name.into(), ..CreateNetwork::default() }).is_err(),
                "{name}"
            );
        }
        let mut link = asked(&[], &[], &[]);
        link.options.insert(NAME.into(), "../x".into());
        assert!(check(&link).is_err());
    }
}
