//! Networks: bridges, addresses, NAT and published ports, by netlink in this process.
//!
//! A network is a file ([`definition`]) and the addresses given in it another one ([`leases`]); what stands in the kernel
//! (a bridge, veths, elements of [`firewall`]'s sets) follows from them, is made when it is missing, and can be removed
//! by whoever reads them. So there is no process that keeps anything, and a kill at any instant leaves nothing unknown.
//!
//! Everything is done in the network namespace of the calling thread, or, of an ordinary user's engine, in that of
//! [`crate::rootless`]; but published ports are taken in that of the calling thread.
//!
//! Three locks, always taken in this order: `networks/.lock` (names and subnets), `networks/ID.lock` (who is in a
//! network), `networks/.firewall` (the tables as a whole).

#![forbid(unsafe_code)]

mod conntrack;
mod definition;
pub mod dns;
mod endpoint;
mod firewall;
mod leases;
mod netlink;
mod netns;
mod nft;
mod ports;
mod route;
mod subnet;
#[cfg(test)]
mod tests;

pub use definition::{
    ConfigFrom, CreateNetwork, DEFAULT_BRIDGE, Ipam, IpamConfig, Network, NetworkContainer,
};
pub use endpoint::{Address, Attachment, Endpoint, EndpointSettings};
pub use firewall::{Mode, Protocol};
pub use netns::{Netns, make_netns, remove_netns, set_loopback_up};
pub use ports::{Held, Mapped, PublishedPort};
pub use subnet::{Pool, Subnet};

use crate::error::{Context as _, Error, Result};
use crate::home::{self, Home, Lock};
use crate::rootless;
use crate::settings::Settings;
use firewall::{Firewall, Forward, Table};
use leases::Leases;
use netlink::Socket;
use netns::HostNetwork;
use nft::Family;
use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// What `daemon.json` says about networks.
#[derive(Debug, Clone)]
pub struct Config {
    /// `bip`: the address of the bridge of `bridge`, and its subnet.
    pub bip: Option<(IpAddr, Subnet)>,
    /// `default-address-pools`
    pub pools: Vec<Pool>,
}

impl Default for Config {
    fn default() -> Self {
        Self { bip: None, pools: subnet::default_pools() }
    }
}

impl Config {
    /// What the settings say.
    ///
    /// # Errors
    /// Those of [`Config::new`].
    pub fn of(settings: &Settings) -> Result<Self> {
        let pools: Vec<_> =
            settings.default_address_pools.iter().map(|pool| (pool.base.to_string(), pool.size)).collect();
        let bip = settings.bip.map(|bip| bip.to_string());
        Self::new(bip.as_deref(), pools.iter().map(|(base, size)| (base.as_str(), *size)))
    }

    /// Reads `bip` and the pools (`base` and bits of one network); host bits of a base are masked.
    ///
    /// # Errors
    /// What is not valid.
    pub fn new<'a>(bip: Option<&str>, pools: impl IntoIterator<Item = (&'a str, u8)>) -> Result<Self> {
        let bip = bip.map(Subnet::parse).transpose().context(|| "bip")?;
        if let Some((ip, subnet)) = bip
            && (!ip.is_ipv4() || ip == subnet.base() || ip == subnet.last())
        {
            return Err(Error::invalid(format!("bip: {ip} is no IPv4 address of a host in {subnet}")));
        }
        let pool = |(base, size): (&str, u8)| {
            let (_, base) = Subnet::parse(base).context(|| "default-address-pools")?;
            let most = if base.is_ipv4() { 30 } else { 126 };
            if size < base.prefix() || size > most {
                return Err(Error::invalid(format!(
                    "default-address-pools: size {size} does not fit base {base}"
                )));
            }
            Ok(Pool { base, size })
        };
        let mut pools = pools.into_iter().map(pool).collect::<Result<Vec<_>>>()?;
        if pools.is_empty() {
            pools = subnet::default_pools();
        }
        Ok(Self { bip, pools })
    }
}

/// The networks of an engine.
#[derive(Debug)]
pub struct Networks {
    dir: PathBuf,
    config: Config,
    host: HostNetwork,
}

impl Networks {
    /// Opens the networks; makes the files of `bridge`, `host` and `none` where they are missing.
    ///
    /// # Errors
    /// Those of the files.
    pub fn open(home: &Home, config: Config) -> Result<Self> {
        let host = HostNetwork { netns: rootless::netns(home.run())?, root: home.root().to_owned() };
        let networks = Self { dir: home.kept("networks"), config, host };
        let marker = networks.dir.join(".predefined");
        if !marker.exists() {
            let _lock = networks.lock()?;
            let present = networks.list()?;
            for (name, driver) in [("bridge", "bridge"), ("host", "host"), ("none", "null")] {
                if !present.iter().any(|network| network.name == name) {
                    let options =
                        if name == "bridge" { definition::default_options() } else { BTreeMap::new() };
                    let mut network = empty(name, driver, options)?;
                    if network.is_bridge() {
                        network.ipam.config = networks.default_addresses()?;
                    }
                    networks.write(&network)?;
                }
            }
            home::replace(&marker, 0o600, b"")?;
        }
        Ok(networks)
    }

    /// Makes a network, and its bridge.
    ///
    /// # Errors
    /// Where the name is taken, the addresses are another network's, or the kernel refuses.
    pub fn create(&self, asked: &CreateNetwork) -> Result<Network> {
        definition::check(asked)?;
        let mut config = definition::consolidate(asked)?;
        let _lock = self.lock()?;
        let present = self.list()?;
        if present.iter().any(|other| other.name == asked.name) {
            return Err(Error::conflict(format!("network with name {} already exists", asked.name)));
        }
        let ours: Vec<Subnet> = present
            .iter()
            .flat_map(|other| other.ranges().map(|range| range.subnet).collect::<Vec<_>>())
            .collect();
        for (_, subnet) in config.iter().map(|one| Subnet::parse(&one.subnet)).collect::<Result<Vec<_>>>()? {
            if ours.iter().any(|other| other.overlaps(&subnet)) {
                return Err(Error::conflict("Pool overlaps with other one on this address space"));
            }
        }
        let mut route = self.host.route()?;
        let taken = [ours, self.host_subnets(&mut route, None)?].concat();
        for v4 in [true, false] {
            let given = config.iter().any(|one| one.subnet.contains(':') != v4);
            if !given && (v4 || asked.ipv6) {
                let subnet = if v4 || self.config.pools.iter().any(|pool| pool.base.is_ipv4() == v4) {
                    subnet::choose(&self.config.pools, v4, &taken)?
                } else {
                    local_unicast()?
                };
                config.push(definition::with_gateway(&subnet, IpamConfig::default()));
            }
        }
        let mut network = empty(&asked.name, "bridge", definition::options(asked))?;
        network.enable_ipv6 = asked.ipv6;
        network.ipam.config = config;
        network.ipam.options = Some(BTreeMap::new());
        network.internal = asked.internal;
        network.attachable = asked.attachable;
        network.labels = asked.labels.clone();
        if present.iter().any(|other| other.is_bridge() && other.link() == network.link())
            || route.link(&network.link())?.is_some()
        {
            return Err(Error::conflict(format!("bridge name {} is in use", network.link()))
                .remedy("a bridge that is there already is not taken over; give another name"));
        }
        self.write(&network)?;
        let made = self.bring_up(&mut network);
        if made.is_err() {
            let _ = self.erase(&network);
        }
        made.map(|_| network)
    }

    /// All networks, by name.
    ///
    /// # Errors
    /// Those of the files.
    pub fn list(&self) -> Result<Vec<Network>> {
        let mut networks = Vec::new();
        for entry in fs::read_dir(&self.dir).context(|| format!("open {}", self.dir.display()))? {
            let path = entry.context(|| format!("read {}", self.dir.display()))?.path();
            if path.extension().is_none_or(|of| of != "json") {
                continue;
            }
            // Removed between is removed.
            if let Some(bytes) = home::read(&path)? {
                networks.push(serde_json::from_slice(&bytes).map_err(|e| {
                    Error::system(format!("read {}: {e}", path.display()))
                        .remedy("remove the file and create the network again")
                })?);
            }
        }
        networks.sort_by(|a: &Network, b: &Network| a.name.cmp(&b.name));
        Ok(networks)
    }

    /// The network with this name, id, or first digits of an id.
    ///
    /// # Errors
    /// Where there is none, or several.
    pub fn resolve(&self, name: &str) -> Result<Network> {
        let mut networks = self.list()?;
        let at = networks
            .iter()
            .position(|network| network.id == name)
            .or_else(|| networks.iter().position(|network| network.name == name));
        if let Some(at) = at {
            return Ok(networks.swap_remove(at));
        }
        networks.retain(|network| !name.is_empty() && network.id.starts_with(name));
        match networks.len() {
            0 => Err(Error::not_found(format!("network {name} not found"))),
            1 => Ok(networks.swap_remove(0)),
            n => Err(Error::invalid(format!(
                "network {name} is ambiguous ({n} matches found based on ID prefix)"
            ))),
        }
    }

    /// The network, with who is in it.
    ///
    /// # Errors
    /// Those of [`Networks::resolve`].
    pub fn inspect(&self, name: &str) -> Result<Network> {
        let mut network = self.resolve(name)?;
        let leases = self.leases(&network)?;
        for (id, lease) in leases.active()? {
            let with_prefix = |ip: IpAddr| {
                network.range(ip.is_ipv4()).map(|range| format!("{ip}/{}", range.subnet.prefix()))
            };
            let container = NetworkContainer {
                name: lease.name.clone(),
                endpoint_id: lease.endpoint.clone(),
                mac_address: lease.mac.clone(),
                ipv4_address: with_prefix(lease.ip.into()).unwrap_or_default(),
                ipv6_address: lease.ip6.and_then(|ip| with_prefix(ip.into())).unwrap_or_default(),
            };
            network.containers.insert(id, container);
        }
        Ok(network)
    }

    /// What [`dns::Responder`] needs to know of a network's names: where its leases are, and what it is called.
    ///
    /// # Errors
    /// Those of [`Networks::resolve`].
    pub fn names(&self, network: &str) -> Result<(PathBuf, String)> {
        let network = self.resolve(network)?;
        Ok((self.leases_path(&network), network.name))
    }

    /// Removes a network that nobody is in; returns it.
    ///
    /// # Errors
    /// Where it is not there, is one of the predefined ones, or somebody is in it.
    pub fn remove(&self, name: &str) -> Result<Network> {
        let _lock = self.lock()?;
        let network = self.resolve(name)?;
        if network.is_predefined() {
            return Err(Error::new(
                crate::error::Kind::Conflict,
                format!("{} is a pre-defined network and cannot be removed", network.name),
            ));
        }
        let _members = self.lock_members(&network)?;
        let leases = self.leases(&network)?;
        let active: Vec<String> = leases
            .active()?
            .into_iter()
            .map(|(_, lease)| {
                let endpoint = lease.endpoint.get(..12).unwrap_or(&lease.endpoint);
                format!("name:\"{}\" id:\"{endpoint}\"", lease.name)
            })
            .collect();
        if !active.is_empty() {
            return Err(Error::conflict(format!(
                "error while removing network: network {} has active endpoints ({})",
                network.name,
                active.join(", ")
            )));
        }
        self.erase(&network)?;
        Ok(network)
    }

    /// Removes the networks that nobody is in and that `remove` says yes to, and takes down the bridge of `bridge` if
    /// nobody is in that; returns their names.
    ///
    /// # Errors
    /// The kernel's.
    pub fn prune(&self, remove: &dyn Fn(&Network) -> bool) -> Result<Vec<String>> {
        let mut removed = Vec::new();
        for network in self.list()? {
            if network.is_predefined() {
                if network.is_bridge() {
                    let _members = self.lock_members(&network)?;
                    if !self.leases(&network)?.are_active() {
                        self.take_bridge_down(&network)?;
                    }
                }
            } else if remove(&network) {
                match self.remove(&network.id) {
                    Ok(network) => removed.push(network.name),
                    Err(e) if e.kind() == crate::error::Kind::System => return Err(e),
                    Err(_) => {}
                }
            }
        }
        Ok(removed)
    }

    fn lock(&self) -> Result<Lock> {
        Lock::exclusive(&self.dir.join(".lock"))
    }

    fn lock_members(&self, network: &Network) -> Result<Lock> {
        Lock::exclusive(&self.dir.join(format!("{}.lock", network.id)))
    }

    fn lock_firewall(&self) -> Result<Lock> {
        Lock::exclusive(&self.dir.join(".firewall"))
    }

    /// While somebody has it, nobody makes the tables anew from leases that are about to change.
    fn keep_firewall(&self) -> Result<Lock> {
        Lock::shared(&self.dir.join(".firewall"))
    }

    fn leases_path(&self, network: &Network) -> PathBuf {
        self.dir.join(format!("{}.leases", network.id))
    }

    fn leases(&self, network: &Network) -> Result<Leases> {
        Leases::read(&self.leases_path(network))
    }

    fn write(&self, network: &Network) -> Result<()> {
        let bytes = serde_json::to_vec_pretty(network)
            .map_err(|e| Error::system(format!("network {}: {e}", network.name)))?;
        home::replace(&self.dir.join(format!("{}.json", network.id)), 0o600, &bytes)
    }

    /// Takes the bridge down and forgets the network; its lock file goes last.
    fn erase(&self, network: &Network) -> Result<()> {
        self.take_bridge_down(network)?;
        for of in ["json", "leases", "lock"] {
            home::remove_tree(&self.dir.join(format!("{}.{of}", network.id)))?;
        }
        Ok(())
    }

    /// The subnets that the host has routes or addresses for, other than by the link `except`.
    fn host_subnets(&self, route: &mut Socket, except: Option<u32>) -> Result<Vec<Subnet>> {
        let routes = route.routes()?.into_iter().map(|route| (route.to, route.link));
        let mut subnets: Vec<(Subnet, u32)> = routes.collect();
        // A link that is down has its address and no route.
        let addresses = route.addresses()?.into_iter();
        subnets.extend(addresses.filter_map(|(ip, prefix, link)| Some((Subnet::new(ip, prefix)?, link))));
        subnets.retain(|(subnet, link)| subnet.prefix() > 0 && Some(*link) != except);
        Ok(subnets.into_iter().map(|(subnet, _)| subnet).collect())
    }

    /// The addresses of `bridge`: `bip`, or the first of the pools that nobody has.
    fn default_addresses(&self) -> Result<Vec<IpamConfig>> {
        if let Some((gateway, subnet)) = self.config.bip {
            let config = IpamConfig { gateway: gateway.to_string(), ..IpamConfig::default() };
            return Ok(vec![definition::with_gateway(&subnet, config)]);
        }
        let mut taken = self.host_subnets(&mut self.host.route()?, None)?;
        for other in self.list()?.iter().filter(|other| !other.is_predefined()) {
            taken.extend(other.ranges().map(|range| range.subnet));
        }
        let subnet = subnet::choose(&self.config.pools, true, &taken)?;
        Ok(vec![definition::with_gateway(&subnet, IpamConfig::default())])
    }

    /// Makes what is missing of the bridge and of the tables; returns the link.
    fn bring_up(&self, network: &mut Network) -> Result<route::Link> {
        let mut route = self.host.route()?;
        let mut firewall = self.host.firewall()?;
        let present = route.link(&network.link())?;
        if let Some(link) = present.as_ref().filter(|link| !is_own(network, link)) {
            return Err(Error::conflict(format!(
                "{} is there and is not the bridge of the network {}",
                link.name, network.name
            ))
            .remedy("give that link another name, or remove the network and create it again"));
        }
        let families = families(network);
        let mut stands = present.is_some();
        for family in &families {
            match firewall.table(*family)? {
                Table::Anothers => return Err(Table::refusal(*family)),
                table => stands &= table == Table::Stands,
            }
        }
        if let Some(link) = present.filter(|_| stands) {
            return self.check_bridge(&mut route, network, link);
        }
        let _lock = self.lock_firewall()?;
        if route.link(&network.link())?.is_none() {
            self.renumber(&mut route, network)?;
        }
        // What is in the table comes first: it needs no link, and a link that is there says that the table has it.
        for family in &families {
            if !firewall.stands(*family)? {
                self.rebuild(&mut firewall, *family, Some(network))?;
            }
            firewall.add_bridge(*family, &network.bridge())?;
        }
        self.host.enter(forward)?;
        let link = match route.link(&network.link())? {
            Some(link) => link,
            None => {
                let mtu = match network.mtu() {
                    Some(mtu) => mtu,
                    None => default_mtu(&mut route)?,
                };
                let gateway = network.range(true).map(|range| range.gateway);
                let Some(IpAddr::V4(gateway)) = gateway else {
                    return Err(Error::system(format!("network {} has no IPv4 subnet", network.name)));
                };
                route.add_bridge(&network.link(), route::mac_of(gateway), mtu)?;
                route
                    .link(&network.link())?
                    .ok_or_else(|| Error::system(format!("bridge {} is gone", network.link())))?
            }
        };
        self.check_bridge(&mut route, network, link)
    }

    /// The settings of a bridge, also of one that a kill left half made.
    fn check_bridge(&self, route: &mut Socket, network: &Network, link: route::Link) -> Result<route::Link> {
        self.host.enter(|| {
            sysctl(&format!("ipv4/conf/{}/route_localnet", link.name), "1")?;
            let of_bridge = format!("ipv6/conf/{}", link.name);
            // A kernel without IPv6 has none of these.
            if Path::new("/proc/sys/net").join(&of_bridge).exists() {
                // A container can send router advertisements, and the host would go out by it (CVE-2020-13401).
                sysctl(&format!("{of_bridge}/accept_ra"), "0")?;
                // Nor does the host forward what comes by a network that has no IPv6, and has no rules for it.
                sysctl(&format!("{of_bridge}/disable_ipv6"), if network.enable_ipv6 { "0" } else { "1" })?;
            }
            if network.enable_ipv6 { forward6() } else { Ok(()) }
        })?;
        for range in network.ranges() {
            route.add_address(link.index, range.gateway, range.subnet.prefix())?;
        }
        Ok(link)
    }

    /// Gives `bridge` other addresses where `bip` says so, or where the host has come to use them (docker0). Its
    /// bridge is not there, so nobody has one of them.
    fn renumber(&self, route: &mut Socket, network: &mut Network) -> Result<()> {
        if !network.is_predefined() {
            return Ok(());
        }
        let range = network.range(true);
        let right = match (self.config.bip, range) {
            (_, None) => false,
            (Some((gateway, subnet)), Some(range)) => range.gateway == gateway && range.subnet == subnet,
            (None, Some(range)) => {
                !self.host_subnets(route, None)?.iter().any(|other| other.overlaps(&range.subnet))
            }
        };
        if !right {
            network.ipam.config = self.default_addresses()?;
            self.write(network)?;
            home::remove_tree(&self.leases_path(network))?;
        }
        Ok(())
    }

    fn take_bridge_down(&self, network: &Network) -> Result<()> {
        let mut route = self.host.route()?;
        let mut firewall = self.host.firewall()?;
        let _lock = self.lock_firewall()?;
        // The link first: while it is there, others take it that the table has what it needs.
        if route.link(&network.link())?.is_some_and(|link| is_own(network, &link)) {
            route.remove_link(&network.link())?;
        }
        let links = route.links(None)?;
        let others: Vec<Network> = self
            .list()?
            .into_iter()
            .filter(|other| other.is_bridge() && links.iter().any(|link| link.name == other.link()))
            .collect();
        for family in [Family::V4, Family::V6] {
            if firewall.table(family)? == Table::Anothers {
                continue;
            }
            firewall.unpass_foreign(family, &network.link())?;
            if others.iter().any(|other| families(other).contains(&family)) {
                firewall.remove_bridge(family, &network.bridge())?;
            } else {
                firewall.remove(family)?;
            }
        }
        Ok(())
    }

    /// Makes a table from the files; `.firewall` is locked, and `also` may have no file yet that says what it says.
    fn rebuild(&self, firewall: &mut Firewall, family: Family, also: Option<&Network>) -> Result<()> {
        let of = |network: &Network| families(network).contains(&family).then(|| network.bridge());
        let mut bridges: Vec<firewall::Bridge> = also.and_then(of).into_iter().collect();
        // One that was killed while it was made may say that it has a port which it did not get: it comes last.
        let (mut forwards, mut of_making): (Vec<Forward>, Vec<Forward>) = (Vec::new(), Vec::new());
        for network in self.list()?.iter().filter(|network| network.is_bridge()) {
            if also.is_none_or(|also| also.id != network.id) {
                bridges.extend(of(network));
            }
            let leases = self.leases(network)?;
            for (id, lease) in leases.active()? {
                let all = endpoint::forwards(network, &lease);
                let all = all.filter(|forward| forward.to.is_ipv4() == (family == Family::V4));
                match leases.entry(&id).map(|entry| entry.state) {
                    Some(leases::State::Up) => forwards.extend(all),
                    _ => of_making.extend(all),
                }
            }
        }
        forwards.extend(of_making);
        firewall.rebuild(family, &bridges, &forwards)
    }

    /// The container that has a port of the host, as far as the files say.
    fn is_allocated(&self, ip: IpAddr, port: u16, protocol: Protocol) -> Result<bool> {
        for network in self.list()? {
            let leases = self.leases(&network)?;
            let found = leases.active()?.iter().flat_map(|(_, lease)| &lease.ports).any(|other| {
                other.host_port == port
                    && other.protocol == protocol
                    && other.host_ip.is_ipv4() == ip.is_ipv4()
                    && (other.host_ip == ip || other.host_ip.is_unspecified() || ip.is_unspecified())
            });
            if found {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Whether the link is the bridge that was made for this network: by its hardware address, which it has from its first
/// moment on. Somebody else may have made one of this name since, as after a boot.
fn is_own(network: &Network, link: &route::Link) -> bool {
    let mac = network.range(true).and_then(|range| match range.gateway {
        IpAddr::V4(gateway) => Some(route::mac_of(gateway)),
        IpAddr::V6(_) => None,
    });
    link.kind == "bridge" && mac.is_some() && link.mac == mac
}

fn families(network: &Network) -> Vec<Family> {
    let of = [(true, Family::V4), (network.enable_ipv6, Family::V6)];
    of.into_iter().filter(|(has, _)| *has).map(|(_, family)| family).collect()
}

fn empty(name: &str, driver: &str, options: BTreeMap<String, String>) -> Result<Network> {
    let mut id = String::new();
    for _ in 0..4 {
        id += &home::unique()?;
    }
    let created = time::OffsetDateTime::now_utc()
        .format(&time::format_description::well_known::Rfc3339)
        .map_err(|e| Error::system(format!("clock: {e}")))?;
    Ok(Network {
        name: name.to_owned(),
        id,
        created,
        scope: "local".into(),
        driver: driver.to_owned(),
        enable_ipv4: true,
        enable_ipv6: false,
        ipam: Ipam { driver: "default".into(), options: None, config: Vec::new() },
        internal: false,
        attachable: false,
        ingress: false,
        config_from: ConfigFrom::default(),
        config_only: false,
        containers: BTreeMap::new(),
        options,
        labels: BTreeMap::new(),
    })
}

/// A subnet of this host's own that nobody else has (RFC 4193).
fn local_unicast() -> Result<Subnet> {
    let mut bytes = [0; 16];
    bytes[0] = 0xfd;
    getrandom::fill(&mut bytes[1..8]).map_err(|e| Error::system(format!("getrandom: {e}")))?;
    Subnet::new(IpAddr::from(bytes), 64).ok_or_else(|| Error::system("no IPv6 subnet"))
}

/// What the host's default route takes in one packet, or Ethernet's.
fn default_mtu(route: &mut Socket) -> Result<u32> {
    let default = route.routes()?.into_iter().find(|route| route.to.prefix() == 0 && route.to.is_ipv4());
    let Some(default) = default else { return Ok(1500) };
    let link = route.links(None)?.into_iter().find(|link| link.index == default.link);
    Ok(link.map_or(1500, |link| link.mtu.clamp(68, 65535)))
}

/// Writes a setting of this network namespace, unless it is so already: /proc/sys may be read-only, and right.
fn sysctl(name: &str, value: &str) -> Result<()> {
    let path = format!("/proc/sys/net/{name}");
    if fs::read_to_string(&path).is_ok_and(|present| present.trim() == value) {
        return Ok(());
    }
    fs::write(&path, value).context(|| format!("write {value} to {path}"))
}

fn forward() -> Result<()> {
    sysctl("ipv4/ip_forward", "1").map_err(|e| e.remedy("containers need it: `sysctl net.ipv4.ip_forward=1`"))
}

fn forward6() -> Result<()> {
    if fs::read_to_string("/proc/sys/net/ipv6/conf/all/forwarding").is_ok_and(|present| present.trim() == "1")
    {
        return Ok(());
    }
    // Who forwards no longer listens to router advertisements, and would lose its own default route, unless it is told to.
    for entry in fs::read_dir("/proc/sys/net/ipv6/conf").context(|| "open /proc/sys/net/ipv6/conf")?.flatten()
    {
        // What is made later decides for itself: it may be somebody's bridge.
        if entry.file_name() == "default" {
            continue;
        }
        let accept = entry.path().join("accept_ra");
        if fs::read_to_string(&accept).is_ok_and(|present| present.trim() == "1") {
            let _ = fs::write(&accept, "2");
        }
    }
    sysctl("ipv6/conf/all/forwarding", "1")
}
