//! A container's place in a network: made, found again, and removed.

#![forbid(unsafe_code)]

use super::conntrack;
use super::definition::Network;
use super::firewall::{Forward, Mode, Protocol, Table};
use super::leases::{Lease, Leases, State};
use super::netlink::Socket;
use super::netns::{HostNetwork, Netns};
use super::ports::{self, Held, Mapped, PublishedPort, Refused};
use super::route::{self, Veth};
use super::{Networks, families, is_own, sysctl};
use crate::error::{Context as _, Error, Kind, Result};
use crate::home;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

/// What a container asks of one network.
#[derive(Debug, Clone, Default)]
pub struct EndpointSettings {
    /// `--ip`
    pub ip: Option<Ipv4Addr>,
    /// `--ip6`
    pub ip6: Option<Ipv6Addr>,
    /// `--mac-address`; follows from the address where it is empty.
    pub mac: String,
    /// `--network-alias`
    pub aliases: Vec<String>,
}

/// A container that is to be attached.
#[derive(Debug, Clone, Copy)]
pub struct Attachment<'a> {
    /// The container's id.
    pub container: &'a str,
    /// Its name.
    pub name: &'a str,
    /// Its host name.
    pub hostname: &'a str,
    /// The file of its network namespace.
    pub netns: &'a Path,
    /// Name or id of the network.
    pub network: &'a str,
    /// What it asks for.
    pub settings: &'a EndpointSettings,
    /// The ports to publish.
    pub ports: &'a [PublishedPort],
}

/// An address with the bits of its subnet and the way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The container's.
    pub ip: IpAddr,
    /// How many bits the subnet has.
    pub prefix: u8,
    /// The bridge's; nothing in an internal network.
    pub gateway: Option<IpAddr>,
}

/// A container that is attached.
#[derive(Debug, Default)]
pub struct Endpoint {
    /// The network's id.
    pub network_id: String,
    /// The network's name.
    pub network_name: String,
    /// 64 hexadecimal digits.
    pub endpoint_id: String,
    /// The name of the interface in the container; empty in `host` and `none`.
    pub interface: String,
    /// Its hardware address.
    pub mac: String,
    /// The address.
    pub ipv4: Option<Address>,
    /// The address in a network with IPv6.
    pub ipv6: Option<Address>,
    /// The published ports.
    pub ports: Vec<Mapped>,
    /// The sockets that keep them, until the container has ended.
    pub held: Vec<Held>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// The elements of a lease's ports.
pub(super) fn forwards(network: &Network, lease: &Lease) -> impl Iterator<Item = Forward> {
    let bridge = network.link();
    let routed = network.bridge().mode == Mode::Routed;
    lease.ports.iter().filter(|port| !port.proxied).filter_map(move |port| {
        let ip = if port.host_ip.is_ipv4() { IpAddr::V4(lease.ip) } else { lease.ip6?.into() };
        Some(Forward {
            bridge: bridge.clone(),
            at: Some(port.host_ip).filter(|ip| !ip.is_unspecified()),
            port: port.host_port,
            protocol: port.protocol,
            to: SocketAddr::new(ip, port.container_port),
            routed,
        })
    })
}

impl Networks {
    /// Puts a container into a network. What a killed attempt left is removed first.
    ///
    /// # Errors
    /// Where it is in it already, an address or a port is somebody else's, or the kernel refuses; nothing is left then.
    pub fn attach(&self, asked: &Attachment<'_>) -> Result<Endpoint> {
        let mut network = self.resolve(asked.network)?;
        if !network.is_bridge() {
            return Ok(Endpoint {
                network_id: network.id,
                network_name: network.name,
                endpoint_id: endpoint_id()?,
                ..Endpoint::default()
            });
        }
        if network.is_predefined() && (asked.settings.ip.is_some() || asked.settings.ip6.is_some()) {
            return Err(Error::invalid(
                "user specified IP address is supported on user defined networks only",
            ));
        }
        let netns = Netns::open(asked.netns)?;
        let mut inside = netns.enter(Socket::route)?;
        let _members = self.lock_members(&network)?;
        // Somebody may have removed or renumbered it before it was locked.
        network = self.resolve(&network.id).inspect_err(|_| {
            let _ = home::remove_tree(&self.dir.join(format!("{}.lock", network.id)));
        })?;
        let mut before = self.leases(&network)?;
        if let Some(lease) = before.get(asked.container)? {
            let up = before.entry(asked.container).is_some_and(|entry| entry.state == State::Up);
            if up && stands(&lease, &mut inside)? {
                return Err(Error::conflict(format!(
                    "endpoint with name {} already exists in network {}",
                    asked.name, network.name
                )));
            }
            let _firewall = self.keep_firewall()?;
            take_down(&self.host, &network, &lease, Link::Removed)?;
            before.set(asked.container, State::Kept)?;
        }
        let bridge = self.bring_up(&mut network)?;
        // The default bridge may have got other addresses just now.
        let mut leases = self.leases(&network)?;
        let (lease, held) = self.plan(asked, &network, &mut leases)?;
        // Whoever makes the tables anew has the port from the lease, or comes before both.
        let _firewall = self.keep_firewall()?;
        leases.put(asked.container, &lease)?;
        let made = connect(&self.host, &network, &lease, &bridge, &netns, &mut inside)
            .and_then(|made| leases.set(asked.container, State::Up).map(|()| made));
        let (interface, warnings) = made.inspect_err(|_| {
            if take_down(&self.host, &network, &lease, Link::Removed).is_ok() {
                let _ = leases.set(asked.container, State::Kept);
            }
        })?;
        let address = |ip: IpAddr| {
            let range = network.range(ip.is_ipv4())?;
            let gateway = (!network.internal).then_some(range.gateway);
            Some(Address { ip, prefix: range.subnet.prefix(), gateway })
        };
        Ok(Endpoint {
            ipv4: address(lease.ip.into()),
            ipv6: lease.ip6.and_then(|ip| address(ip.into())),
            network_id: network.id.clone(),
            network_name: network.name.clone(),
            endpoint_id: lease.endpoint,
            interface,
            mac: lease.mac,
            ports: lease.ports,
            held,
            warnings,
        })
    }

    /// Takes a container out of all networks, with its network namespace: the caller is about to remove that. Nothing
    /// goes through its links any more, and with the namespace the kernel removes them, in its own time. Otherwise as
    /// [`Networks::detach`].
    ///
    /// # Errors
    /// The kernel's; all that can be done is done all the same.
    pub fn abandon(&self, container: &str) -> Result<()> {
        self.leave_all(container, false, Link::Cut)
    }

    fn leave_all(&self, container: &str, forget: bool, link: Link) -> Result<()> {
        let mut failed = Ok(());
        for network in self.list()?.iter().filter(|network| network.is_bridge()) {
            let left = self.leave(network, &|id| id == container, forget, link);
            failed = failed.and(left);
        }
        failed
    }

    /// Takes a container out of a network, or out of all of them; what is gone already is no error. Its addresses are
    /// kept for it as long as there are others.
    ///
    /// # Errors
    /// The kernel's; all that can be removed is removed all the same.
    pub fn detach(&self, container: &str, network: Option<&str>) -> Result<()> {
        let Some(name) = network else { return self.leave_all(container, false, Link::Removed) };
        let network = match self.resolve(name) {
            Err(e) if e.kind() == Kind::NotFound => return Ok(()),
            network => network?,
        };
        let left = match network.is_bridge() {
            true => self.leave(&network, &|id| id == container, false, Link::Removed),
            false => Ok(()),
        };
        self.default_route(container);
        left
    }

    /// Gives a container another name in all its networks, also while it runs.
    ///
    /// # Errors
    /// Those of the files.
    pub fn rename(&self, container: &str, name: &str) -> Result<()> {
        for network in self.list()?.iter().filter(|network| network.is_bridge()) {
            if self.leases(network)?.entry(container).is_none() {
                continue;
            }
            let _members = self.lock_members(network)?;
            let mut leases = self.leases(network)?;
            let (Some(mut lease), Some(entry)) = (leases.get(container)?, leases.entry(container)) else {
                continue;
            };
            name.clone_into(&mut lease.name);
            leases.put(container, &lease)?;
            leases.set(container, entry.state)?;
        }
        Ok(())
    }

    /// Forgets the addresses of a container that is removed.
    ///
    /// # Errors
    /// Those of [`Networks::detach`].
    pub fn release(&self, container: &str) -> Result<()> {
        self.leave_all(container, true, Link::Removed)
    }

    /// Removes what containers left of whom `alive` says no, and what killed commands left among the files; makes the tables
    /// new from the files, and lets the bridges through the tables of a firewall that has come meanwhile; what the user
    /// should know.
    ///
    /// # Errors
    /// Those of [`Networks::detach`].
    pub fn sweep(&self, alive: &dyn Fn(&str) -> bool) -> Result<Vec<String>> {
        let mut failed = self.remove_unfinished();
        let networks = self.list()?;
        for network in networks.iter().filter(|network| network.is_bridge()) {
            let left =
                self.tidy(network).and_then(|()| self.leave(network, &|id| !alive(id), true, Link::Removed));
            failed = failed.and(left);
            let left = self.remove_strays(network);
            failed = failed.and(left);
        }
        let warnings = self.mend_firewall(true)?;
        failed.map(|()| warnings)
    }

    /// Makes the tables of bridges that are there from the files, where somebody has removed them (`flush ruleset`), or
    /// `anew` in any case; lets the bridges through the tables of a firewall that has come meanwhile. What the user should
    /// know.
    ///
    /// # Errors
    /// The kernel's.
    pub fn mend_firewall(&self, anew: bool) -> Result<Vec<String>> {
        let _lock = self.lock_firewall()?;
        let (mut firewall, mut route) = (self.host.firewall()?, self.host.route()?);
        let mut present = Vec::new();
        for network in self.list()?.into_iter().filter(Network::is_bridge) {
            let link = route.link(&network.link())?;
            present.extend(link.is_some_and(|link| is_own(&network, &link)).then_some(network));
        }
        let mut warnings = Vec::new();
        for family in [super::Family::V4, super::Family::V6] {
            let table = firewall.table(family)?;
            if table == Table::Anothers {
                continue;
            }
            let stands = table == Table::Stands;
            let wanted = present.iter().any(|network| families(network).contains(&family));
            if stands && anew || wanted && !stands {
                self.rebuild(&mut firewall, family, None)?;
            }
            for network in present.iter().filter(|network| families(network).contains(&family)) {
                warnings.extend(firewall.pass_foreign(family, &network.link())?);
            }
        }
        Ok(warnings)
    }

    fn leave(&self, network: &Network, who: &dyn Fn(&str) -> bool, forget: bool, link: Link) -> Result<()> {
        let concerned = |leases: &Leases| -> Vec<String> {
            let concerned =
                leases.entries().filter(|(id, entry)| (forget || entry.state != State::Kept) && who(id));
            concerned.map(|(id, _)| id.clone()).collect()
        };
        // Most networks have nothing of it, and reading them needs no lock.
        if concerned(&self.leases(network)?).is_empty() {
            return Ok(());
        }
        let _members = self.lock_members(network)?;
        let _firewall = self.keep_firewall()?;
        let mut leases = self.leases(network)?;
        let mut failed = Ok(());
        for id in concerned(&leases) {
            // Of one that is only kept nothing is in the kernel.
            let stands = leases.entry(&id).is_some_and(|entry| entry.state != State::Kept);
            let left = match leases.get(&id) {
                _ if !stands => Ok(()),
                Ok(Some(lease)) => take_down(&self.host, network, &lease, link),
                left => left.map(|_| ()),
            };
            let left =
                left.and_then(|()| if forget { leases.forget(&id) } else { leases.set(&id, State::Kept) });
            failed = failed.and(left);
        }
        failed
    }

    /// Removes files of networks that there are not, and those that were to be another one ([`home::replace`]).
    fn remove_unfinished(&self) -> Result<()> {
        // Who makes a network has the one, who gives `bridge` other addresses the other.
        let _lock = self.lock()?;
        let _firewall = self.lock_firewall()?;
        let networks = self.list()?;
        for entry in fs::read_dir(&self.dir).context(|| format!("open {}", self.dir.display()))? {
            let path = entry.context(|| format!("read {}", self.dir.display()))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let left = match name.split_once('.') {
                Some(("", new)) => new != "lock" && new != "firewall",
                Some((id, "leases" | "lock")) => !networks.iter().any(|network| network.id == id),
                _ => false,
            };
            if left {
                home::remove_tree(&path)?;
            }
        }
        Ok(())
    }

    fn tidy(&self, network: &Network) -> Result<()> {
        let _members = self.lock_members(network)?;
        self.leases(network)?.tidy()
    }

    /// Removes ports of our bridge that no lease knows, as after somebody removed the file.
    fn remove_strays(&self, network: &Network) -> Result<()> {
        let _members = self.lock_members(network)?;
        let leases = self.leases(network)?.active()?;
        let mut route = self.host.route()?;
        let bridge = route.link(&network.link())?;
        let Some(bridge) = bridge.filter(|link| is_own(network, link)) else { return Ok(()) };
        for link in route.links(None)?.iter().filter(|link| link.master == Some(bridge.index)) {
            let ours = link
                .name
                .strip_prefix("veth")
                .is_some_and(|hex| hex.len() == 7 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()));
            if ours && !leases.iter().any(|(_, lease)| lease.veth == link.name) {
                route.remove_link(&link.name)?;
            }
        }
        Ok(())
    }

    /// A container that has left the network of a default route goes out by another one, if it has another one.
    fn default_route(&self, container: &str) {
        let Ok(networks) = self.list() else { return };
        for network in networks.iter().filter(|network| network.is_bridge() && !network.internal) {
            let Ok(leases) = self.leases(network) else { continue };
            let Ok(Some(lease)) = leases.get(container) else { continue };
            let done = Netns::open(&lease.netns).and_then(|netns| {
                let mut inside = netns.enter(Socket::route)?;
                let routes = inside.routes()?;
                let has = |v4| routes.iter().any(|route| route.to.prefix() == 0 && route.to.is_ipv4() == v4);
                let mac = route::parse_mac(&lease.mac)?;
                let link = inside.links(None)?.into_iter().find(|link| link.mac == Some(mac));
                for range in network.ranges().filter(|range| !has(range.subnet.is_ipv4())) {
                    if let Some(link) = &link {
                        inside.set_default(range.gateway, link.index)?;
                    }
                }
                Ok(())
            });
            // Another network may do, or have what this one has not.
            let _: Result<()> = done;
        }
    }

    /// Decides on addresses and ports, and takes the ports.
    fn plan(
        &self,
        asked: &Attachment<'_>,
        network: &Network,
        leases: &mut Leases,
    ) -> Result<(Lease, Vec<Held>)> {
        let named = format!("{} ({})", network.name, network.id);
        let mut ips = Vec::new();
        for range in network.ranges() {
            let v4 = range.subnet.is_ipv4();
            let ip =
                if v4 { asked.settings.ip.map(IpAddr::from) } else { asked.settings.ip6.map(IpAddr::from) };
            ips.push(leases.choose(asked.container, &range, ip, &named)?);
        }
        let Some(IpAddr::V4(ip)) = ips.first().copied() else {
            return Err(Error::system(format!("network {} has no IPv4 subnet", network.name)));
        };
        let ip6 = ips.into_iter().find_map(|ip| if let IpAddr::V6(ip) = ip { Some(ip) } else { None });
        if ip6.is_none() && asked.settings.ip6.is_some() {
            return Err(Error::invalid(format!("network {} has no IPv6 addresses", network.name)));
        }
        let mac = match asked.settings.mac.as_str() {
            "" => route::mac_of(ip),
            text => route::parse_mac(text)?,
        };
        let endpoint = endpoint_id()?;
        let (ports, held) = if network.internal {
            (Vec::new(), Vec::new())
        } else {
            self.publish(asked, network, ip, ip6).map_err(|e| {
                e.context(format!(
                    "driver failed programming external connectivity on endpoint {} ({endpoint})",
                    asked.name
                ))
            })?
        };
        let lease = Lease {
            name: asked.name.to_owned(),
            hostname: asked.hostname.to_owned(),
            aliases: asked.settings.aliases.clone(),
            veth: format!("veth{}", &endpoint[..7]),
            endpoint,
            ip,
            ip6,
            mac: route::mac_text(mac),
            netns: asked.netns.to_owned(),
            ports,
        };
        Ok((lease, held))
    }

    fn publish(
        &self,
        asked: &Attachment<'_>,
        network: &Network,
        ip: Ipv4Addr,
        ip6: Option<Ipv6Addr>,
    ) -> Result<(Vec<Mapped>, Vec<Held>)> {
        let (mut mapped, mut all) = (Vec::new(), Vec::new());
        let random = ports::random_range();
        for port in asked.ports {
            let of = |host_ip: IpAddr, host_port| Mapped {
                host_ip,
                host_port,
                container_port: port.container_port,
                protocol: port.protocol,
                proxied: self.host.is_elsewhere()
                    || host_ip.is_ipv6() && (ip6.is_none() || host_ip.is_loopback()),
            };
            if network.bridge().mode == Mode::Routed {
                mapped.push(of(Ipv4Addr::UNSPECIFIED.into(), 0));
                mapped.extend(ip6.map(|_| of(Ipv6Addr::UNSPECIFIED.into(), 0)));
                continue;
            }
            let ips = ports::addresses(port.host_ip, network.host_binding());
            let (number, held) = ports::reserve(port, &ips, &random).or_else(|e| self.refused(&e, port))?;
            for (host_ip, fd) in held {
                let mapping = of(host_ip, number);
                mapped.push(mapping.clone());
                all.push(self.held(fd, mapping, (ip, ip6), asked.netns));
            }
        }
        Ok((mapped, all))
    }

    fn held(&self, fd: OwnedFd, port: Mapped, (ip, ip6): (Ipv4Addr, Option<Ipv6Addr>), netns: &Path) -> Held {
        let target = match ip6 {
            Some(ip6) if port.host_ip.is_ipv6() => IpAddr::from(ip6),
            _ => ip.into(),
        };
        let target = SocketAddr::new(target, port.container_port);
        let proxy = port.host_ip.is_ipv6() || self.host.is_elsewhere();
        let netns = self.host.is_elsewhere().then(|| netns.to_owned());
        Held { fd, port, target, proxy, netns }
    }

    /// The ports of a container that are published now.
    ///
    /// # Errors
    /// Those of reading the leases.
    pub fn published(&self, container: &str) -> Result<Vec<Mapped>> {
        let mut all = Vec::new();
        for network in self.list()?.iter().filter(|network| network.is_bridge()) {
            let leases = self.leases(network)?;
            if leases.entry(container).is_some_and(|entry| entry.state == State::Up) {
                all.extend(leases.get(container)?.into_iter().flat_map(|lease| lease.ports));
            }
        }
        Ok(all)
    }

    /// The sockets of a container's ports again, whose last ones went with a monitor that was killed. A port that is
    /// somebody else's by now is not among them.
    ///
    /// # Errors
    /// Those of reading the leases.
    pub fn hold_again(&self, container: &str) -> Result<Vec<Held>> {
        let mut all = Vec::new();
        for network in self.list()?.iter().filter(|network| network.is_bridge()) {
            let leases = self.leases(network)?;
            let up = leases.entry(container).is_some_and(|entry| entry.state == State::Up);
            let Some(lease) = leases.get(container)?.filter(|_| up) else { continue };
            for port in lease.ports.iter().filter(|port| port.host_port != 0) {
                if let Ok(fd) = ports::hold(SocketAddr::new(port.host_ip, port.host_port), port.protocol) {
                    all.push(self.held(fd, port.clone(), (lease.ip, lease.ip6), &lease.netns));
                }
            }
        }
        Ok(all)
    }

    fn refused<T>(&self, refused: &Refused, port: &PublishedPort) -> Result<T> {
        Err(match refused {
            Refused::Taken(_, true) if port.host_ports.is_none() => {
                Error::conflict("all ports are allocated")
            }
            Refused::Taken(at, _) if self.is_allocated(at.ip(), at.port(), port.protocol)? => {
                Error::conflict(format!("Bind for {at} failed: port is already allocated"))
            }
            other => Error::conflict(other.to_string()),
        })
    }
}

/// Whether the container is where the lease says.
fn stands(lease: &Lease, inside: &mut Socket) -> Result<bool> {
    let mac = route::parse_mac(&lease.mac)?;
    Ok(inside.links(None)?.iter().any(|link| link.mac == Some(mac)))
}

/// Makes in the kernel what the lease says; the name of the interface, and what the user should know.
fn connect(
    host: &HostNetwork,
    network: &Network,
    lease: &Lease,
    bridge: &route::Link,
    netns: &Netns,
    inside: &mut Socket,
) -> Result<(String, Vec<String>)> {
    let mut route = host.route()?;
    let mut firewall = host.firewall()?;
    let forwards: Vec<Forward> = forwards(network, lease).collect();
    firewall.add(&forwards).map_err(|e| match (e.kind(), forwards.first()) {
        (Kind::Conflict, Some(first)) => {
            let at = first.at.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
            e.context(format!(
                "driver failed programming external connectivity on endpoint {} ({}): Bind for {} failed",
                lease.name,
                lease.endpoint,
                SocketAddr::new(at, first.port)
            ))
        }
        _ => e,
    })?;
    let links = inside.links(None)?;
    let interface = (0..)
        .map(|n| format!("eth{n}"))
        .find(|name| !links.iter().any(|link| link.name == *name))
        .unwrap_or_default();
    let veth = Veth {
        name: &lease.veth,
        bridge: bridge.index,
        peer: &interface,
        isolated: !network.bridge().icc,
        mac: route::parse_mac(&lease.mac)?,
        mtu: bridge.mtu,
        netns: netns.file().as_fd(),
    };
    route.add_veth(&veth)?;
    let gone = || Error::system(format!("interface {interface} is gone"));
    let index = inside.link(&interface)?.ok_or_else(gone)?.index;
    if lease.ip6.is_some() {
        netns.enter(|| {
            sysctl(&format!("ipv6/conf/{interface}/disable_ipv6"), "0")?;
            sysctl(&format!("ipv6/conf/{interface}/accept_ra"), "0")
        })?;
    }
    let routes = inside.routes()?;
    let (mut addresses, mut gateways) = (Vec::new(), Vec::new());
    for range in network.ranges() {
        let v4 = range.subnet.is_ipv4();
        let ip = if v4 { Some(lease.ip.into()) } else { lease.ip6.map(IpAddr::from) };
        addresses.extend(ip.map(|ip| (ip, range.subnet.prefix())));
        let has_default = routes.iter().any(|route| route.to.prefix() == 0 && route.to.is_ipv4() == v4);
        if !network.internal && !has_default && ip.is_some() {
            gateways.push(range.gateway);
        }
    }
    inside.configure(index, &addresses, &gateways)?;
    forget_flows(lease);
    let mut warnings = Vec::new();
    for family in families(network) {
        warnings.extend(firewall.pass_foreign(family, &bridge.name)?);
    }
    Ok((interface, warnings))
}

/// What becomes of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    /// It is removed.
    Removed,
    /// Its network namespace is about to go, and the kernel removes it with that. Until then nothing goes through it, so
    /// that its address can be another's at once. Removing it takes 15 to 45 ms, in which every other change of a link
    /// waits (measured, Linux 6.18), and a container's end would wait as well.
    Cut,
}

/// Removes from the kernel what the lease says, whatever of it is there.
fn take_down(host: &HostNetwork, network: &Network, lease: &Lease, link: Link) -> Result<()> {
    let forwards: Vec<Forward> = forwards(network, lease).collect();
    let taken = if forwards.is_empty() { Ok(()) } else { host.firewall()?.take_back(&forwards) };
    let mut route = host.route()?;
    let removed = match link {
        Link::Removed => route.remove_link(&lease.veth),
        // A kernel that cannot cut it off can remove it.
        Link::Cut => route.cut_off(&lease.veth).or_else(|_| route.remove_link(&lease.veth)),
    };
    forget_flows(lease);
    taken.and(removed)
}

/// UDP has no end: a flow that somebody keeps alive would go where it went before.
fn forget_flows(lease: &Lease) {
    let udp = lease.ports.iter().filter(|port| port.protocol == Protocol::Udp && !port.proxied);
    let ports: Vec<u16> = udp.map(|port| port.host_port).collect();
    if !ports.is_empty() {
        let _ = conntrack::forget_udp(&ports);
    }
}

fn endpoint_id() -> Result<String> {
    Ok([home::unique()?, home::unique()?, home::unique()?, home::unique()?].concat())
}
