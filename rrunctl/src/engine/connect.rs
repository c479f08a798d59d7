//! A container's networks: what it asks of each, what it gets, and its files that say so.

#![forbid(unsafe_code)]

use super::Engine;
use super::start::port;
use crate::container::files::{self, Dns, Line, Resolver};
use crate::container::record::Container;
use crate::container::types::{EndpointSettings, List, Map, NetworkSettings, PortBinding, of_container};
use crate::container::{link, validate};
use crate::error::{Context as _, Error, Kind, Result};
use crate::monitor::{self, Found};
use crate::network::{self, Attachment, Endpoint, Held, Mapped, PublishedPort};
use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

/// The default network, in which nobody has a name.
const BRIDGE: &str = "bridge";

/// What a container's networks came to.
#[derive(Debug, Default)]
pub(super) struct Connected {
    /// Sockets that keep its ports.
    pub held: Vec<Held>,
    /// Variables of `--link`.
    pub links: Vec<String>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

impl Engine {
    /// Makes a container's network namespace, puts it into its networks, and writes /etc/hosts and the like; the record
    /// says what became of it, and is not saved.
    ///
    /// # Errors
    /// An address or a port is somebody else's; another container that is linked does not run.
    pub(super) fn connect_all(&self, container: &mut Container) -> Result<Connected> {
        if of_container(&container.host.network_mode).is_some() {
            container.record.network_settings = NetworkSettings::default();
            return self.write_others_files(container).map(|()| Connected::default());
        }
        let id = container.record.id.clone();
        let netns = self.netns(&id);
        if container.host.network_mode != "host" {
            network::make_netns(&netns)?;
        }
        let mut connected = Connected::default();
        let mut endpoints = Vec::new();
        let ports = published(container)?;
        for name in in_order(container) {
            let network = self.networks.resolve(&name)?;
            // Ports go by the network that leads out.
            let of_this = if network.is_bridge() && !network.internal && !endpoints.iter().any(has_ports) {
                &ports[..]
            } else {
                &[]
            };
            let asked = container.record.network_settings.networks.get(&name).cloned().flatten();
            let mut endpoint = self.attach(container, &netns, &name, asked.as_ref(), of_this)?;
            connected.held.append(&mut endpoint.held);
            connected.warnings.append(&mut endpoint.warnings);
            endpoints.push(endpoint);
        }
        container.record.network_settings = self.settled(container, &endpoints);
        let links = self.links(container)?;
        self.write_files(container, &endpoints, &links)?;
        connected.links = links.into_iter().flat_map(|link| link.variables).collect();
        Ok(connected)
    }

    /// Puts a container into a further network, at once if it runs.
    ///
    /// # Errors
    /// It is in it already, or has the network of the host or of another container; an address is somebody else's.
    pub fn connect(&self, network: &str, id: &str, asked: EndpointSettings) -> Result<()> {
        let _lock = self.containers.lock(id)?;
        let mut container = self.containers.load(id)?;
        let network = self.networks.resolve(network)?;
        self.check_joinable(&container, &network)?;
        if container.record.network_settings.networks.contains_key(&network.name) {
            return Err(Error::new(
                Kind::Conflict,
                format!(
                    "endpoint with name {} already exists in network {}",
                    container.record.name.trim_start_matches('/'),
                    network.name
                ),
            ));
        }
        let netns = self.netns(id);
        let running = self.state(&container)?.running;
        // Before anything is done that the record would not say.
        let links = if running { self.links(&container)? } else { Vec::new() };
        if !asked.mac_address.is_empty() {
            container.record.mac_addresses.insert(network.name.clone(), asked.mac_address.clone());
        }
        if running {
            // The network that led out may be one that it has left.
            let lead_out =
                network.is_bridge() && !network.internal && self.networks.published(id)?.is_empty();
            let ports = if lead_out { published(&container)? } else { Vec::new() };
            let mut endpoint = self.attach(&container, &netns, &network.name, Some(&asked), &ports)?;
            if let Found::Monitored(client) = self.found(id)? {
                let held = endpoint.held.drain(..).map(port).collect::<Result<Vec<_>>>()?;
                let (ports, sockets): (Vec<_>, Vec<_>) = held.into_iter().unzip();
                client.add_ports(&ports, &sockets)?;
            }
            let settings = shown(asked, &endpoint, &container);
            container.record.network_settings.networks.insert(network.name.clone(), Some(settings));
        } else {
            container.record.network_settings.networks.insert(network.name.clone(), Some(asked));
        }
        // `none` is where a container is that is nowhere else.
        container.record.network_settings.networks.remove("none");
        self.settle_again(&mut container, running.then_some(links))
    }

    /// Takes a container out of a network, at once if it runs.
    ///
    /// # Errors
    /// It is not in it, unless by `force`.
    pub fn disconnect(&self, network: &str, id: &str, force: bool) -> Result<()> {
        let _lock = self.containers.lock(id)?;
        let mut container = self.containers.load(id)?;
        let network = self.networks.resolve(network)?;
        if container.host.network_mode == "host" && network.name == "host" {
            return Err(Error::new(
                Kind::Conflict,
                "container cannot be disconnected from host network or connected to host network",
            ));
        }
        let running = self.state(&container)?.running;
        let links = if running { self.links(&container)? } else { Vec::new() };
        container.record.mac_addresses.remove(&network.name);
        let was = container.record.network_settings.networks.remove(&network.name);
        if was.is_none() && !force {
            return Err(Error::new(
                Kind::Conflict,
                format!("container {id} is not connected to network {}", network.name),
            ));
        }
        let had_ports = !self.networks.published(id)?.is_empty();
        self.networks.detach(id, Some(&network.id))?;
        // Its address may be another container's soon, and the ports somebody else's.
        let released = if running && had_ports { self.release_ports(id) } else { Ok(()) };
        self.settle_again(&mut container, running.then_some(links)).and(released)
    }

    /// Has the monitor hold no more ports than those that are still published.
    fn release_ports(&self, id: &str) -> Result<()> {
        let Found::Monitored(client) = self.found(id)? else { return Ok(()) };
        client.set_ports(|| {
            let held = self.networks.hold_again(id)?;
            Ok(held.into_iter().map(port).collect::<Result<Vec<_>>>()?.into_iter().unzip())
        })
    }

    fn check_joinable(&self, container: &Container, network: &network::Network) -> Result<()> {
        let mode = container.host.network_mode.as_str();
        if mode == "host" || network.name == "host" {
            return Err(Error::new(
                Kind::Conflict,
                "container cannot be disconnected from host network or connected to host network",
            ));
        }
        if of_container(mode).is_some() {
            return Err(Error::new(
                Kind::Conflict,
                "container sharing network namespace with another container or host cannot be connected to any other network",
            ));
        }
        if network.name == "none" {
            return Err(Error::new(
                Kind::Conflict,
                "container cannot be connected to multiple networks with one of the networks in private (none) mode",
            ));
        }
        Ok(())
    }

    /// Files and record of a container whose networks have changed; `links` of one that runs.
    fn settle_again(&self, container: &mut Container, links: Option<Vec<Link>>) -> Result<()> {
        let mut written = Ok(());
        if let Some(links) = links {
            let endpoints = endpoints_of(&container.record.network_settings);
            // What has been done is recorded, whatever becomes of the files.
            written = self.write_files(container, &endpoints, &links);
            let mut settings = self.settled(container, &endpoints);
            let ports = self.networks.published(&container.record.id)?;
            settings.ports = shown_ports(container, ports.iter());
            container.record.network_settings = settings;
            if let Found::Monitored(client) = self.found(&container.record.id)? {
                match self.dns(container)? {
                    Some(dns) => match client.set_names(dns.clone()) {
                        // It was started where it had no name.
                        Err(e) if e.to_string().contains("no name server") => {
                            client.set_dns(dns, &network::dns::listen(&self.netns(&container.record.id))?)?;
                        }
                        other => other?,
                    },
                    // Nor is there anything to forget where there is no name server.
                    None => drop(client.set_names(monitor::Dns::default())),
                }
            }
        }
        self.containers.save_record(container)?;
        written
    }

    fn attach(
        &self,
        container: &Container,
        netns: &Path,
        network: &str,
        asked: Option<&EndpointSettings>,
        ports: &[PublishedPort],
    ) -> Result<Endpoint> {
        let mut settings = settings(asked)?;
        let record = &container.record;
        settings.mac = match record.mac_addresses.get(network) {
            Some(mac) => mac.clone(),
            None if network == container.host.network_mode => record.config.mac_address.clone(),
            None => String::new(),
        };
        // As Docker has it, its short id is a name as well, except in the default bridge, which has none.
        settings.aliases.push(container.record.id[..12].to_owned());
        self.networks.attach(&Attachment {
            container: &container.record.id,
            name: container.record.name.trim_start_matches('/'),
            hostname: &container.record.config.hostname,
            netns,
            network,
            settings: &settings,
            ports,
        })
    }

    /// What `inspect` shows of the networks of a container that runs.
    fn settled(&self, container: &Container, endpoints: &[Endpoint]) -> NetworkSettings {
        let before = &container.record.network_settings;
        let mut all = NetworkSettings {
            sandbox_id: container.record.id.clone(),
            sandbox_key: self.netns(&container.record.id).to_string_lossy().into_owned(),
            ports: shown_ports(container, endpoints.iter().flat_map(|endpoint| &endpoint.ports)),
            ..NetworkSettings::default()
        };
        if container.host.network_mode == "host" {
            "/proc/1/ns/net".clone_into(&mut all.sandbox_key);
        }
        let mut networks = BTreeMap::new();
        for endpoint in endpoints {
            let asked = before.networks.get(&endpoint.network_name).cloned().flatten().unwrap_or_default();
            let settings = shown(asked, endpoint, container);
            if endpoint.network_name == BRIDGE {
                all.endpoint_id.clone_from(&settings.endpoint_id);
                all.gateway.clone_from(&settings.gateway);
                all.ip_address.clone_from(&settings.ip_address);
                all.ip_prefix_len = settings.ip_prefix_len;
                all.ipv6_gateway.clone_from(&settings.ipv6_gateway);
                all.global_ipv6_address.clone_from(&settings.global_ipv6_address);
                all.global_ipv6_prefix_len = settings.global_ipv6_prefix_len;
                all.mac_address.clone_from(&settings.mac_address);
            }
            networks.insert(endpoint.network_name.clone(), Some(settings));
        }
        all.networks = networks.into();
        all
    }

    /// What the name server of a container knows, if it is to have one.
    pub(super) fn dns(&self, container: &Container) -> Result<Option<monitor::Dns>> {
        let networks = self.named_networks(container)?;
        if networks.is_empty() {
            return Ok(None);
        }
        let given: Vec<SocketAddr> = container
            .host
            .dns
            .iter()
            .filter_map(|server| Some(SocketAddr::new(server.parse().ok()?, 53)))
            .collect();
        // rrunmon asks from the host: for who has internal networks alone that would be a way out (CVE-2024-29018).
        let leads_out = |name: &String| self.networks.resolve(name).is_ok_and(|network| !network.internal);
        let servers = match container.record.network_settings.networks.keys().any(leads_out) {
            false => Vec::new(),
            true if given.is_empty() => network::dns::servers(&host_resolv_conf()?),
            true => given,
        };
        Ok(Some(monitor::Dns { servers, networks }))
    }

    /// The networks in which a container has a name.
    fn named_networks(&self, container: &Container) -> Result<Vec<(PathBuf, String)>> {
        let settings = &container.record.network_settings;
        let named = |(name, one): (&String, &Option<EndpointSettings>)| {
            let is_in = one.as_ref().is_some_and(|one| !one.ip_address.is_empty());
            (is_in && name != BRIDGE).then(|| self.networks.names(name))
        };
        settings.networks.iter().filter_map(named).collect()
    }

    /// What `--link` comes to.
    fn links(&self, container: &Container) -> Result<Vec<Link>> {
        let mut links = Vec::new();
        for text in container.host.links.iter() {
            let (other, alias) = link::parse(text)?;
            let own = container.record.name.as_str();
            let id =
                self.containers.resolve(other).context(|| format!("could not get container for {other}"))?;
            let other = self.containers.load(&id)?;
            let state = self.state(&other)?;
            if !state.running {
                return Err(Error::conflict(format!(
                    "Cannot link to a non running container: {} AS {own}/{alias}",
                    other.record.name
                )));
            }
            let settings = &other.record.network_settings;
            let of_mode = settings.networks.get(&container.host.network_mode).cloned().flatten();
            let text = of_mode.map_or_else(|| settings.ip_address.clone(), |settings| settings.ip_address);
            let Ok(address) = text.parse::<IpAddr>() else {
                return Err(Error::conflict(format!(
                    "Cannot link to {}, as it does not belong to the network {}",
                    other.record.name, container.host.network_mode
                )));
            };
            let name = other.record.name.trim_start_matches('/');
            let variables = if container.host.network_mode == BRIDGE {
                link::environment(
                    own.trim_start_matches('/'),
                    alias,
                    address,
                    &other.record.config.exposed_ports,
                    &other.record.config.env,
                )
            } else {
                Vec::new()
            };
            links.push(Link {
                line: (address, link::names(alias, &other.record.config.hostname, name)),
                variables,
            });
        }
        Ok(links)
    }

    fn write_files(&self, container: &Container, endpoints: &[Endpoint], links: &[Link]) -> Result<()> {
        let (record, host) = (&container.record, &container.host);
        let is_host = host.network_mode == "host";
        let gateway = endpoints.iter().find_map(|endpoint| endpoint.ipv4.as_ref()?.gateway);
        let extra = extra_hosts(&host.extra_hosts, gateway)?;
        let hosts = if is_host {
            files::hosts_of_host(&read("/etc/hosts")?, &extra)
        } else {
            let names = files::own_names(&record.config);
            let addresses = endpoints.iter().flat_map(|endpoint| [&endpoint.ipv4, &endpoint.ipv6]);
            let own: Vec<Line> = addresses.flatten().map(|address| (address.ip, names.clone())).collect();
            let links: Vec<Line> = links.iter().map(|link| link.line.clone()).collect();
            files::hosts(&extra, &links, &own)
        };
        let dns = Dns { servers: &host.dns, search: &host.dns_search, options: &host.dns_options };
        let own_names =
            endpoints.iter().any(|endpoint| endpoint.ipv4.is_some() && endpoint.network_name != BRIDGE);
        let resolver = match host.network_mode.as_str() {
            "host" => Resolver::Host,
            _ if own_names => Resolver::Internal,
            _ => Resolver::Bridge { ipv6: endpoints.iter().any(|endpoint| endpoint.ipv6.is_some()) },
        };
        let resolv_conf = files::resolv_conf(&host_resolv_conf()?, &dns, resolver);
        for (path, text) in [
            (&record.hosts_path, hosts),
            (&record.hostname_path, files::hostname(&record.config)),
            (&record.resolv_conf_path, resolv_conf),
        ] {
            // In place: a container that runs has the file mounted.
            fs::write(path, text).context(|| format!("write {path}"))?;
        }
        Ok(())
    }

    /// A container in another's network has the other's files.
    fn write_others_files(&self, container: &mut Container) -> Result<()> {
        let other = of_container(&container.host.network_mode).unwrap_or_default();
        let other = self.containers.load(other)?;
        container.record.hosts_path.clone_from(&other.record.hosts_path);
        container.record.hostname_path.clone_from(&other.record.hostname_path);
        container.record.resolv_conf_path.clone_from(&other.record.resolv_conf_path);
        container.record.config.hostname.clone_from(&other.record.config.hostname);
        Ok(())
    }
}

/// One `--link`.
#[derive(Debug)]
struct Link {
    line: Line,
    variables: Vec<String>,
}

/// The endpoints of a container that runs, from what its record says of them.
fn endpoints_of(settings: &NetworkSettings) -> Vec<Endpoint> {
    let address = |ip: &str, prefix: i64, gateway: &str| {
        Some(network::Address {
            ip: ip.parse().ok()?,
            prefix: prefix.try_into().ok()?,
            gateway: gateway.parse().ok(),
        })
    };
    let one = |(name, one): (&String, &Option<EndpointSettings>)| {
        let one = one.clone().unwrap_or_default();
        Endpoint {
            ipv4: address(&one.ip_address, one.ip_prefix_len, &one.gateway),
            ipv6: address(&one.global_ipv6_address, one.global_ipv6_prefix_len, &one.ipv6_gateway),
            network_id: one.network_id,
            network_name: name.clone(),
            endpoint_id: one.endpoint_id,
            mac: one.mac_address,
            ..Endpoint::default()
        }
    };
    settings.networks.iter().map(one).collect()
}

fn has_ports(endpoint: &Endpoint) -> bool {
    !endpoint.ports.is_empty()
}

/// The networks of a container, that of its mode first: it has the default route unless another one is preferred.
fn in_order(container: &Container) -> Vec<String> {
    let networks = &container.record.network_settings.networks;
    let mut names: Vec<_> = networks.keys().cloned().collect();
    let priority =
        |name: &String| networks.get(name).and_then(Option::as_ref).map_or(0, |one| one.gw_priority);
    names.sort_by_key(|name| (std::cmp::Reverse(priority(name)), *name != container.host.network_mode));
    names
}

fn settings(asked: Option<&EndpointSettings>) -> Result<network::EndpointSettings> {
    let Some(asked) = asked else { return Ok(network::EndpointSettings::default()) };
    let addresses = asked.ipam_config.clone().unwrap_or_default();
    fn address<T: std::str::FromStr>(text: &str) -> Result<Option<T>> {
        match text {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| Error::invalid(format!("invalid IP address: {text}"))),
        }
    }
    Ok(network::EndpointSettings {
        ip: address(&addresses.ipv4_address)?,
        ip6: address(&addresses.ipv6_address)?,
        aliases: asked.aliases.to_vec(),
        mac: String::new(),
    })
}

/// What was asked of a network, with what was got.
fn shown(asked: EndpointSettings, endpoint: &Endpoint, container: &Container) -> EndpointSettings {
    let text = |ip: Option<IpAddr>| ip.map(|ip| ip.to_string()).unwrap_or_default();
    let (v4, v6) = (endpoint.ipv4.as_ref(), endpoint.ipv6.as_ref());
    let is_own = endpoint.network_name != BRIDGE && v4.is_some();
    let mut names = Vec::new();
    if is_own {
        names.push(container.record.name.trim_start_matches('/').to_owned());
        names.extend(asked.aliases.iter().cloned());
        names.push(container.record.id[..12].to_owned());
    }
    EndpointSettings {
        network_id: endpoint.network_id.clone(),
        endpoint_id: endpoint.endpoint_id.clone(),
        mac_address: endpoint.mac.clone(),
        gateway: text(v4.and_then(|address| address.gateway)),
        ip_address: text(v4.map(|address| address.ip)),
        ip_prefix_len: v4.map_or(0, |address| address.prefix.into()),
        ipv6_gateway: text(v6.and_then(|address| address.gateway)),
        global_ipv6_address: text(v6.map(|address| address.ip)),
        global_ipv6_prefix_len: v6.map_or(0, |address| address.prefix.into()),
        dns_names: if is_own { names.into() } else { List::default() },
        ..asked
    }
}

/// What is to be published: `-p`, and with `-P` everything that is exposed and has no port yet.
fn published(container: &Container) -> Result<Vec<PublishedPort>> {
    let host = &container.host;
    let mut ports = Vec::new();
    for (port, bindings) in host.port_bindings.iter() {
        for binding in bindings.iter() {
            ports.push(PublishedPort::parse(port, &binding.host_ip, &binding.host_port)?);
        }
    }
    if host.publish_all_ports {
        let exposed = container.record.config.exposed_ports.keys();
        for port in exposed.filter(|port| host.port_bindings.get(*port).is_none_or(|list| list.is_empty())) {
            ports.push(PublishedPort::parse(port, "", "")?);
        }
    }
    Ok(ports)
}

/// `NetworkSettings.Ports`: what is exposed and not published is nil.
fn shown_ports<'a>(
    container: &Container,
    mapped: impl Iterator<Item = &'a Mapped>,
) -> Map<List<PortBinding>> {
    let mut ports: BTreeMap<String, List<PortBinding>> = BTreeMap::new();
    for port in container.record.config.exposed_ports.keys().chain(container.host.port_bindings.keys()) {
        ports.insert(port.clone(), List::default());
    }
    for port in mapped {
        let binding =
            PortBinding { host_ip: port.host_ip.to_string(), host_port: port.host_port.to_string() };
        ports.entry(format!("{}/{}", port.container_port, port.protocol)).or_default().push(binding);
    }
    ports.into()
}

/// `--add-host`; `host-gateway` is the host as the container's network sees it.
fn extra_hosts(texts: &[String], gateway: Option<IpAddr>) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    for text in texts {
        let Some((name, address)) = validate::split_extra_host(text) else { continue };
        let address = match address {
            "host-gateway" => gateway.ok_or_else(|| {
                Error::invalid(
                    "unable to derive the IP value for host-gateway: the container has no network with a gateway",
                )
            })?,
            text => text.parse().map_err(|_| Error::invalid(format!("invalid IP address in add-host: {text:?}")))?,
        };
        lines.push((address, name.to_owned()));
    }
    Ok(lines)
}

fn read(path: &str) -> Result<String> {
    match fs::read_to_string(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        other => other.context(|| format!("read {path}")),
    }
}

/// The host's resolv.conf with servers that a container can ask.
fn host_resolv_conf() -> Result<String> {
    let text = read("/etc/resolv.conf")?;
    match files::host_resolv_conf(&text) {
        "/etc/resolv.conf" => Ok(text),
        other => read(other),
    }
}

/// What `inspect` shows of the networks of a container that does not run: what was asked for.
pub(super) fn at_rest(settings: &NetworkSettings) -> NetworkSettings {
    let asked = |one: &Option<EndpointSettings>| {
        one.as_ref().map(|one| EndpointSettings {
            ipam_config: one.ipam_config.clone(),
            links: one.links.clone(),
            aliases: one.aliases.clone(),
            driver_opts: one.driver_opts.clone(),
            gw_priority: one.gw_priority,
            network_id: one.network_id.clone(),
            ..EndpointSettings::default()
        })
    };
    NetworkSettings {
        networks: settings.networks.iter().map(|(name, one)| (name.clone(), asked(one))).collect(),
        ..NetworkSettings::default()
    }
}
