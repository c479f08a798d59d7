//! `network`: ls, create, inspect, rm, prune.

#![forbid(unsafe_code)]

use super::inspect::show;
use super::table::{self, Row, row};
use super::{At, filter};
use crate::container::types::{EndpointIpamConfig, EndpointSettings};
use crate::error::{Error, Kind, Result};
use crate::network::{self, CreateNetwork, Network, Networks};
use clap::{Args, Subcommand};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Manage networks
#[derive(Debug, Subcommand)]
#[command(arg_required_else_help = true)]
pub(super) enum Command {
    Connect(Connect),
    Create(Create),
    Disconnect(Disconnect),
    Inspect(Inspect),
    #[command(visible_alias = "list")]
    Ls(List),
    Prune(Prune),
    #[command(visible_alias = "remove")]
    Rm(Remove),
}

impl Command {
    pub(super) fn run(self, at: &At) -> Result<()> {
        match self {
            Self::Connect(command) => command.run(at),
            Self::Create(command) => command.run(at),
            Self::Disconnect(command) => command.run(at),
            Self::Inspect(command) => command.run(at),
            Self::Ls(command) => command.run(at),
            Self::Prune(command) => command.run(at),
            Self::Rm(command) => command.run(at),
        }
    }
}

impl At {
    pub(super) fn networks(&self) -> Result<Networks> {
        Networks::open(self.home()?, network::Config::of(&self.settings()?)?)
    }
}

/// Make a network
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rrunctl network create mynet
  rrunctl network create --subnet 10.9.0.0/24 --gateway 10.9.0.254 office
  rrunctl network create --internal -o com.docker.network.bridge.name=br-db db

What is not given is chosen: the next free network of the address pools.")]
pub(super) struct Create {
    /// Its name
    #[arg(value_name = "NETWORK")]
    name: String,
    /// What makes it; bridge is what there is
    #[arg(short, long, value_name = "DRIVER", default_value = "bridge")]
    driver: String,
    /// Its addresses (ADDRESS/PREFIX); twice for IPv4 and IPv6
    #[arg(long, value_name = "SUBNET", value_delimiter = ',')]
    subnet: Vec<String>,
    /// The host's address in the subnet
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    gateway: Vec<String>,
    /// The part of the subnet that containers get addresses from
    #[arg(long, value_name = "SUBNET", value_delimiter = ',')]
    ip_range: Vec<String>,
    /// Containers get IPv6 addresses too
    #[arg(long)]
    ipv6: bool,
    /// Nothing goes out and nothing comes in
    #[arg(long)]
    internal: bool,
    /// Containers may be connected by hand
    #[arg(long)]
    attachable: bool,
    /// Something to find it by (KEY[=VALUE]); several times for several
    #[arg(long = "label", value_name = "LABEL")]
    labels: Vec<String>,
    /// Of the driver (KEY=VALUE); several times for several
    #[arg(short, long = "opt", value_name = "OPTION")]
    options: Vec<String>,
}

impl Create {
    fn run(self, at: &At) -> Result<()> {
        let asked = CreateNetwork {
            name: self.name,
            driver: self.driver,
            subnet: self.subnet,
            gateway: self.gateway,
            ip_range: self.ip_range,
            ipv6: self.ipv6,
            internal: self.internal,
            attachable: self.attachable,
            options: pairs(self.options),
            labels: pairs(self.labels),
            mtu: None,
        };
        at.say(at.networks()?.create(&asked)?.id)
    }
}

/// `KEY=VALUE`, or `KEY` with nothing.
fn pairs(texts: Vec<String>) -> BTreeMap<String, String> {
    let pair = |text: String| match text.split_once('=') {
        Some((key, value)) => (key.to_owned(), value.to_owned()),
        None => (text, String::new()),
    };
    texts.into_iter().map(pair).collect()
}

/// List networks
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rrunctl network ls
  rrunctl network ls -f driver=bridge --format '{{.Name}}'

Fields: .ID .Name .Driver .Scope .CreatedAt .IPv4 .IPv6 .Internal .Labels
Filters: name=TEXT id=TEXT driver=DRIVER label=KEY[=VALUE] type=custom|builtin scope=local dangling=BOOL")]
pub(super) struct List {
    /// Only those that fit (KEY=VALUE); several times for several
    #[arg(short, long = "filter", value_name = "FILTER")]
    filters: Vec<String>,
    /// Print as `table`, `table TEMPLATE`, `json` or TEMPLATE
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Do not shorten ids
    #[arg(long)]
    no_trunc: bool,
    /// Only ids
    #[arg(short, long)]
    quiet: bool,
}

const TITLES: &[(&str, &str)] = &[
    ("CreatedAt", "CREATED AT"),
    ("Driver", "DRIVER"),
    ("ID", "NETWORK ID"),
    ("IPv4", "IPV4"),
    ("IPv6", "IPV6"),
    ("Internal", "INTERNAL"),
    ("Labels", "LABELS"),
    ("Name", "NAME"),
    ("Scope", "SCOPE"),
];

impl List {
    fn run(self, at: &At) -> Result<()> {
        let known = ["name", "id", "driver", "label", "type", "scope", "dangling"];
        let filters = Filters::parse(&self.filters, &known)?;
        let networks = at.networks()?;
        let mut rows = Vec::new();
        for network in networks.list()? {
            if filters.let_through(&network, &networks)? {
                rows.push(network_row(&network, !self.no_trunc));
            }
        }
        let usual = "{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}";
        let format = match self.format {
            None if self.quiet => Some("{{.ID}}".to_owned()),
            format => format,
        };
        at.print(table::list(format.as_deref(), usual, TITLES, rows)?)
    }
}

fn network_row(network: &Network, short: bool) -> Row {
    let id = if short { network.id.get(..12).unwrap_or(&network.id) } else { &network.id };
    let labels: Vec<String> = network.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    row([
        ("CreatedAt", network.created.as_str().into()),
        ("Driver", network.driver.as_str().into()),
        ("ID", id.into()),
        ("IPv4", network.enable_ipv4.to_string().into()),
        ("IPv6", network.enable_ipv6.to_string().into()),
        ("Internal", network.internal.to_string().into()),
        ("Labels", labels.join(",").into()),
        ("Name", network.name.as_str().into()),
        ("Scope", network.scope.as_str().into()),
    ])
}

/// Put a container into a network
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rrunctl network connect mynet web
  rrunctl network connect --alias db --ip 172.18.0.9 mynet mysql")]
pub(super) struct Connect {
    /// The network
    #[arg(value_name = "NETWORK")]
    network: String,
    /// The container, which may run
    #[arg(value_name = "CONTAINER")]
    container: String,
    /// A further name of it in the network
    #[arg(long, value_name = "NAME")]
    alias: Vec<String>,
    /// Its IPv4 address
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<String>,
    /// Its IPv6 address
    #[arg(long, value_name = "ADDRESS")]
    ip6: Option<String>,
    /// The one with the highest has the default route
    #[arg(
        long,
        value_name = "N",
        default_value_t = 0,
        hide_default_value = true,
        allow_negative_numbers = true
    )]
    gw_priority: i64,
}

impl Connect {
    fn run(self, at: &At) -> Result<()> {
        let engine = at.engine()?;
        let given = self.ip.is_some() || self.ip6.is_some();
        let addresses = EndpointIpamConfig {
            ipv4_address: self.ip.unwrap_or_default(),
            ipv6_address: self.ip6.unwrap_or_default(),
            ..EndpointIpamConfig::default()
        };
        let asked = EndpointSettings {
            ipam_config: given.then_some(addresses),
            aliases: if self.alias.is_empty() { Default::default() } else { self.alias.into() },
            gw_priority: self.gw_priority,
            ..EndpointSettings::default()
        };
        engine.connect(&self.network, &engine.resolve(&self.container)?, asked)
    }
}

/// Take a container out of a network
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rrunctl network disconnect mynet web")]
pub(super) struct Disconnect {
    /// The network
    #[arg(value_name = "NETWORK")]
    network: String,
    /// The container, which may run
    #[arg(value_name = "CONTAINER")]
    container: String,
    /// Also if it is not in it
    #[arg(short, long)]
    force: bool,
}

impl Disconnect {
    fn run(self, at: &At) -> Result<()> {
        let engine = at.engine()?;
        engine.disconnect(&self.network, &engine.resolve(&self.container)?, self.force)
    }
}

/// Of the same key one is enough, but for labels; of different keys all.
struct Filters(BTreeMap<String, Vec<String>>);

impl Filters {
    fn parse(texts: &[String], known: &[&str]) -> Result<Self> {
        let mut filters: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for text in texts {
            let (key, value) = filter::pair(text, known)?;
            filters.entry(key).or_default().push(value);
        }
        Ok(Self(filters))
    }

    fn let_through(&self, network: &Network, networks: &Networks) -> Result<bool> {
        for (key, values) in &self.0 {
            let mut any = false;
            let mut all = true;
            for value in values {
                let fits = match key.as_str() {
                    "name" => network.name.contains(value),
                    "id" => network.id.contains(value),
                    "driver" => network.driver == *value,
                    "scope" => network.scope == *value,
                    "label" | "label!" => match value.split_once('=') {
                        Some((key, value)) => network.labels.get(key).is_some_and(|known| known == value),
                        None => network.labels.contains_key(value),
                    },
                    "type" => match value.as_str() {
                        "custom" => !network.is_predefined(),
                        "builtin" => network.is_predefined(),
                        _ => {
                            return Err(Error::invalid(format!("invalid filter 'type={value}'"))
                                .remedy("custom or builtin"));
                        }
                    },
                    "until" => {
                        let until = filter::instant(value, OffsetDateTime::now_utc())?;
                        OffsetDateTime::parse(&network.created, &Rfc3339).is_ok_and(|made| made < until)
                    }
                    _ => {
                        let unused =
                            !network.is_predefined() && networks.inspect(&network.id)?.containers.is_empty();
                        unused == filter::truth(key, value)?
                    }
                };
                any |= fits;
                all &= fits;
            }
            let fits = match key.as_str() {
                "label" => all,
                "label!" => !any,
                _ => any,
            };
            if !fits {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Show all there is to know of networks
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rrunctl network inspect bridge
  rrunctl network inspect -f '{{range .IPAM.Config}}{{.Subnet}}{{end}}' mynet")]
pub(super) struct Inspect {
    /// Names or ids
    #[arg(value_name = "NETWORK", required = true)]
    names: Vec<String>,
    /// Print as `json` or TEMPLATE
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
}

impl Inspect {
    fn run(self, at: &At) -> Result<()> {
        let networks = at.networks()?;
        show(at, &self.names, self.format.as_deref(), |name| value(&networks, name))
    }
}

/// A network as docker's JSON has it.
pub(super) fn value(networks: &Networks, name: &str) -> Result<Value> {
    serde_json::to_value(networks.inspect(name)?).map_err(|e| Error::system(format!("network {name}: {e}")))
}

/// Remove one or more networks
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rrunctl network rm mynet")]
pub(super) struct Remove {
    /// Names or ids
    #[arg(value_name = "NETWORK", required = true)]
    names: Vec<String>,
    /// What is not there is no failure
    #[arg(short, long)]
    force: bool,
}

impl Remove {
    fn run(self, at: &At) -> Result<()> {
        let networks = at.networks()?;
        at.each(&self.names, |name| match networks.remove(name) {
            Err(e) if self.force && e.kind() == Kind::NotFound => Ok(()),
            removed => removed.and_then(|_| at.say(name)),
        })
    }
}

/// Remove the networks that no container is in
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rrunctl network prune
  rrunctl network prune -f --filter until=24h

Filters: until=TIME label=KEY[=VALUE] label!=KEY[=VALUE]")]
pub(super) struct Prune {
    /// Only those that fit (KEY=VALUE); several times for several
    #[arg(long = "filter", value_name = "FILTER")]
    filters: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

impl Prune {
    fn run(self, at: &At) -> Result<()> {
        let filters = Filters::parse(&self.filters, &["until", "label", "label!"])?;
        let networks = at.networks()?;
        // What they say is wrong is told before the question, and before anything is removed.
        for network in networks.list()? {
            filters.let_through(&network, &networks)?;
        }
        if !at.confirmed(self.force, &format!("This will remove {UNUSED}."))? {
            return Ok(());
        }
        at.print(pruned(&networks, &filters)?)
    }
}

/// What a prune removes.
const UNUSED: &str = "all custom networks not used by at least one container";

fn pruned(networks: &Networks, filters: &Filters) -> Result<String> {
    let removed = networks.prune(&|network| filters.let_through(network, networks).unwrap_or(false))?;
    if removed.is_empty() {
        return Ok(String::new());
    }
    let lines = removed.iter().fold(String::new(), |mut lines, name| {
        let _ = writeln!(lines, "{name}");
        lines
    });
    Ok(format!("Deleted Networks:\n{lines}\n"))
}

/// Removes every network that no container is in and that the filters let through; returns what to print of it.
pub(super) fn prune_all(at: &At, filters: &[String]) -> Result<String> {
    pruned(&at.networks()?, &Filters::parse(filters, &["until", "label", "label!"])?)
}
