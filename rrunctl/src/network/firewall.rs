//! What is allowed, and where addresses are translated: the tables `ip rrun` and `ip6 rrun`.
//!
//! The chains are made once and look everything up in sets and maps, so that a published port is one element and a
//! container costs the same whether there are two of them or two thousand. All that the tables have follows from the
//! files of the networks: whatever somebody flushed is made again from them.

#![forbid(unsafe_code)]

use super::netlink::Socket;
use super::nft::{self, Batch, Element, Family, Hook, Step, Type, Verdict};
use super::route::octets;
use super::subnet::Subnet;
use crate::digest::Digest;
use crate::error::{Error, Result};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

const TABLE: &str = "rrun";
/// Changes whenever the chains do, so that those of another version are replaced.
const VERSION: &str = "rrunctl 2";

/// How containers of a network are reached from beyond the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// By ports published at an address of the host.
    #[default]
    Nat,
    /// By ports published at their own address; others have a route.
    Routed,
    /// By any port at their own address too.
    Unprotected,
}

/// A bridge, as far as the rules are concerned.
#[derive(Debug, Clone)]
pub struct Bridge {
    /// The name of the link.
    pub name: String,
    /// Its subnets, of both families.
    pub subnets: Vec<Subnet>,
    /// Nothing comes in and nothing goes out.
    pub internal: bool,
    /// What goes out has the host's address.
    pub masquerade: bool,
    /// Containers of it reach each other.
    pub icc: bool,
    /// How it is reached.
    pub mode: Mode,
}

/// The protocol of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// `tcp`
    Tcp,
    /// `udp`
    Udp,
}

impl std::fmt::Display for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

impl Protocol {
    fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

/// A port of the host that is one of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forward {
    /// The bridge of the container.
    pub bridge: String,
    /// At which address of the host; nothing for any.
    pub at: Option<IpAddr>,
    /// Which port of the host.
    pub port: u16,
    /// Which protocol.
    pub protocol: Protocol,
    /// The container.
    pub to: SocketAddr,
    /// Not translated, but allowed.
    pub routed: bool,
}

fn family(ip: IpAddr) -> Family {
    if ip.is_ipv4() { Family::V4 } else { Family::V6 }
}

fn interface(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(16, 0);
    bytes
}

fn word(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn key(key: Vec<u8>) -> Element {
    Element { key, end: None, value: None }
}

/// The elements of a bridge, by set.
fn bridge_elements(family: Family, bridge: &Bridge) -> Vec<(&'static str, Element)> {
    let name = || key(interface(&bridge.name));
    let mut elements = vec![("bridges", name())];
    let pair = [interface(&bridge.name), interface(&bridge.name)].concat();
    elements.extend(bridge.icc.then(|| ("same", key(pair))));
    elements.extend(bridge.internal.then(|| ("internal", name())));
    elements.extend((bridge.masquerade && bridge.mode != Mode::Routed).then(|| ("outgoing", name())));
    elements.extend((bridge.mode == Mode::Routed).then(|| ("routed", name())));
    elements.extend((bridge.mode == Mode::Unprotected).then(|| ("unprotected", name())));
    for subnet in bridge.subnets.iter().filter(|subnet| subnet.is_ipv4() == (family == Family::V4)) {
        let at = |ip| [interface(&bridge.name), octets(ip)].concat();
        let (key, end) = (at(subnet.base()), Some(at(subnet.last())));
        elements.push(("subnets", Element { key, end, value: None }));
    }
    elements
}

/// The element of a port, and its map or set.
fn forward_element(forward: &Forward) -> (&'static str, Element) {
    let service = |port: u16| [word(&[forward.protocol.number()]), word(&port.to_be_bytes())].concat();
    let (ip, port) = (octets(forward.to.ip()), forward.to.port());
    if forward.routed {
        return ("published", key([interface(&forward.bridge), ip, service(port)].concat()));
    }
    let value = Some([ip, word(&port.to_be_bytes())].concat());
    match forward.at {
        Some(at) => {
            ("ports", Element { key: [octets(at), service(forward.port)].concat(), end: None, value })
        }
        None => ("ports_any", Element { key: service(forward.port), end: None, value }),
    }
}

/// The chains, and the empty sets that they look into.
fn skeleton(batch: &mut Batch, family: Family) {
    use Step::{
        Among, Destination, Dnat, In, Is, Map, Mask, Masquerade, Network, Not, NotAmong, Out, Port, Protocol,
        State, Status, Verdict as Then,
    };
    let (ip, length) = match family {
        Family::V4 => (Type::Ipv4, 4),
        Family::V6 => (Type::Ipv6, 16),
    };
    let (source, destination) = match family {
        Family::V4 => (12, 16),
        Family::V6 => (8, 24),
    };
    // In words: where what follows an address stands.
    let next = family.length() / 4;
    for name in ["bridges", "internal", "outgoing", "routed", "unprotected"] {
        batch.add_set(name, &[Type::Interface], &[], false);
    }
    batch.add_set("same", &[Type::Interface, Type::Interface], &[], false);
    batch.add_set("subnets", &[Type::Interface, ip], &[], true);
    batch.add_set("published", &[Type::Interface, ip, Type::Protocol, Type::Port], &[], false);
    batch.add_set("ports", &[ip, Type::Protocol, Type::Port], &[ip, Type::Port], false);
    batch.add_set("ports_any", &[Type::Protocol, Type::Port], &[ip, Type::Port], false);

    batch.add_chain("raw", Hook { kind: "filter", number: 0, priority: -300 });
    batch.add_chain("prerouting", Hook { kind: "nat", number: 0, priority: -100 });
    batch.add_chain("output", Hook { kind: "nat", number: 3, priority: -100 });
    batch.add_chain("postrouting", Hook { kind: "nat", number: 4, priority: 100 });
    batch.add_chain("forward", Hook { kind: "filter", number: 2, priority: 0 });

    if family == Family::V4 {
        // Our bridges have route_localnet, so that the host reaches published ports by 127.0.0.1. Without these two a
        // container reached all that listens there (CVE-2020-8558). Answers come to the bridge's address.
        for offset in [source, destination] {
            let martian =
                [In(0), Among(0, "bridges"), Network(offset, 1, 0), Is(0, vec![127]), Then(Verdict::Drop)];
            batch.add_rule("raw", &martian);
        }
        // Translated before it is routed, such a packet from a neighbour would no longer be a martian, and reach what
        // is published for this host alone.
        let martian = [Network(destination, 1, 0), Is(0, vec![127]), Then(Verdict::Return)];
        batch.add_rule("prerouting", &martian);
    }
    if family == Family::V6 {
        // What comes from ::1 never leaves the host: there is no route_localnet for IPv6. A proxy takes it.
        let mut own = vec![0; 16];
        own[15] = 1;
        let own = [Network(destination, 16, 0), Is(0, own), Then(Verdict::Return)];
        batch.add_rule("output", &own);
    }
    for chain in ["prerouting", "output"] {
        const LOCAL: u32 = 2; // RTN_LOCAL
        batch.add_rule(chain, &[Destination(0), Not(0, LOCAL.to_ne_bytes().into()), Then(Verdict::Return)]);
        let at = [Network(destination, length, 0), Protocol(next), Port(next + 1)];
        batch.add_rule(chain, &[&at[..], &[Map(0, "ports"), Dnat(0, next)]].concat());
        batch.add_rule(chain, &[Protocol(0), Port(1), Map(0, "ports_any"), Dnat(0, next)]);
    }

    const TRANSLATED: u32 = 1 << 5; // IPS_DST_NAT
    let translated = [Status(0), Mask(0, TRANSLATED), Not(0, vec![0; 4])];
    // A container that reaches another one of its bridge, or itself, by a published port: the answer would not come by.
    let neighbour = [Out(0), Network(source, length, 4), Among(0, "subnets"), Masquerade];
    batch.add_rule("postrouting", &[&translated[..], &neighbour].concat());
    if family == Family::V4 {
        let own = [Network(source, 1, 0), Is(0, vec![127]), Out(0), Among(0, "bridges"), Masquerade];
        batch.add_rule("postrouting", &own);
    }
    batch.add_rule("postrouting", &[In(0), Among(0, "outgoing"), Out(0), NotAmong(0, "bridges"), Masquerade]);
    // By a published port to another bridge: one that has both networks would answer by the other one.
    let between = [In(0), Among(0, "outgoing"), Out(0), Among(0, "bridges"), Masquerade];
    batch.add_rule("postrouting", &[&translated[..], &between].concat());

    const KNOWN: u32 = 2 | 4; // established, related
    batch.add_rule("forward", &[State(0), Mask(0, KNOWN), Not(0, vec![0; 4]), Then(Verdict::Accept)]);
    batch.add_rule("forward", &[In(0), Out(4), Among(0, "same"), Then(Verdict::Accept)]);
    batch.add_rule("forward", &[In(0), Among(0, "internal"), Then(Verdict::Drop)]);
    batch.add_rule("forward", &[Out(0), Among(0, "internal"), Then(Verdict::Drop)]);
    let ours = [Out(0), Among(0, "bridges"), Then(Verdict::Accept)];
    batch.add_rule("forward", &[&translated[..], &ours].concat());
    let published = [Out(0), Network(destination, length, 4), Protocol(4 + next), Port(5 + next)];
    batch.add_rule("forward", &[&published[..], &[Among(0, "published"), Then(Verdict::Accept)]].concat());
    batch
        .add_rule("forward", &[In(0), Among(0, "bridges"), Out(0), Among(0, "bridges"), Then(Verdict::Drop)]);
    let icmp = if family == Family::V4 { 1 } else { 58 };
    batch.add_rule(
        "forward",
        &[Protocol(0), Is(0, vec![icmp]), Out(0), Among(0, "routed"), Then(Verdict::Accept)],
    );
    batch.add_rule("forward", &[Out(0), Among(0, "unprotected"), Then(Verdict::Accept)]);
    batch.add_rule("forward", &[Out(0), Among(0, "bridges"), Then(Verdict::Drop)]);
}

/// What there is of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// There is none.
    Missing,
    /// It is as this version makes it for this engine.
    Stands,
    /// Another version has made it.
    Older,
    /// It is of another engine, one with another root directory. Its rules are about bridges of which this one knows
    /// nothing.
    Anothers,
}

impl Table {
    /// Why a family whose table is another engine's is not to be had.
    pub fn refusal(family: Family) -> Error {
        let name = if family == Family::V4 { "ip" } else { "ip6" };
        Error::conflict(format!("the table {name} {TABLE} is that of an engine with another --root")).remedy(
            format!(
                "remove that one's containers and networks, or, if it is gone, run `nft delete table {name} {TABLE}`"
            ),
        )
    }
}

/// The tables of this network namespace.
#[derive(Debug)]
pub struct Firewall {
    socket: Socket,
    /// The table's comment: the version, and whose it is.
    comment: String,
}

impl Firewall {
    /// Of the engine that keeps its files in `root`.
    ///
    /// # Errors
    /// Those of socket(2).
    pub fn open(root: &Path) -> Result<Self> {
        let digest = Digest::of(root.as_os_str().as_bytes());
        Ok(Self { socket: Socket::netfilter()?, comment: format!("{VERSION} {}", &digest.hex()[..16]) })
    }

    /// What there is of the table.
    ///
    /// # Errors
    /// The kernel's.
    pub fn table(&mut self, family: Family) -> Result<Table> {
        let Some(comment) = nft::table(&mut self.socket, family, TABLE)? else { return Ok(Table::Missing) };
        let whose = |comment: &str| comment.split(' ').nth(2).map(str::to_owned);
        Ok(match whose(&comment) {
            _ if comment == self.comment => Table::Stands,
            other if other.is_some() && other != whose(&self.comment) => Table::Anothers,
            _ => Table::Older,
        })
    }

    /// Whether the table is there, and as this version makes it for this engine.
    ///
    /// # Errors
    /// The kernel's.
    pub fn stands(&mut self, family: Family) -> Result<bool> {
        Ok(self.table(family)? == Table::Stands)
    }

    /// Makes the table with all that is in it, in place of whatever there is, at once: one that stands is whole.
    /// Connections stay. Of two containers that say they have a port the first one has it.
    ///
    /// # Errors
    /// The kernel's.
    pub fn rebuild(&mut self, family: Family, bridges: &[Bridge], forwards: &[Forward]) -> Result<()> {
        let mut batch = Batch::new(family, TABLE);
        batch.add_table(&self.comment);
        batch.remove_table();
        batch.add_table(&self.comment);
        skeleton(&mut batch, family);
        for bridge in bridges {
            for (set, element) in bridge_elements(family, bridge) {
                batch.add(set, &[element]);
            }
        }
        let mut elements = elements_of(family, forwards);
        let mut taken = HashSet::new();
        elements.retain(|(set, element)| taken.insert((*set, element.key.clone())));
        for (set, elements) in by_set(&elements) {
            batch.add(set, &elements);
        }
        batch.commit(&mut self.socket)
    }

    /// Removes the table.
    ///
    /// # Errors
    /// The kernel's.
    pub fn remove(&mut self, family: Family) -> Result<()> {
        if nft::table(&mut self.socket, family, TABLE)?.is_none() {
            return Ok(());
        }
        let mut batch = Batch::new(family, TABLE);
        batch.remove_table();
        batch.commit(&mut self.socket)
    }

    /// Adds a bridge.
    ///
    /// # Errors
    /// The kernel's.
    pub fn add_bridge(&mut self, family: Family, bridge: &Bridge) -> Result<()> {
        let mut batch = Batch::new(family, TABLE);
        for (set, element) in bridge_elements(family, bridge) {
            batch.add(set, &[element]);
        }
        batch.commit(&mut self.socket)
    }

    /// Removes a bridge; what is gone is no error.
    ///
    /// # Errors
    /// The kernel's.
    pub fn remove_bridge(&mut self, family: Family, bridge: &Bridge) -> Result<()> {
        self.take(family, &bridge_elements(family, bridge))
    }

    /// Publishes ports, all of them or none.
    ///
    /// # Errors
    /// The kernel's; of the kind Conflict where a port is another container's.
    pub fn add(&mut self, forwards: &[Forward]) -> Result<()> {
        for of in [Family::V4, Family::V6] {
            let mut batch = Batch::new(of, TABLE);
            for (set, elements) in by_set(&elements_of(of, forwards)) {
                batch.add(set, &elements);
            }
            batch.commit(&mut self.socket).map_err(|e| match e.errno() {
                Some(Errno::BUSY | Errno::EXIST) => Error::conflict("port is already allocated"),
                _ => e,
            })?;
        }
        Ok(())
    }

    /// Takes ports back; what is gone is no error, and what leads to somebody else stays.
    ///
    /// # Errors
    /// The kernel's.
    pub fn take_back(&mut self, forwards: &[Forward]) -> Result<()> {
        for of in [Family::V4, Family::V6] {
            let mut own = Vec::new();
            for (set, element) in elements_of(of, forwards) {
                // The kernel removes by the key alone.
                let is_own = element.value.is_none()
                    || nft::value(&mut self.socket, of, TABLE, set, &element.key)? == element.value;
                own.extend(is_own.then_some((set, element)));
            }
            self.take(of, &own)?;
        }
        Ok(())
    }

    fn take(&mut self, family: Family, elements: &[(&'static str, Element)]) -> Result<()> {
        let mut batch = Batch::new(family, TABLE);
        for (set, elements) in by_set(elements) {
            batch.remove(set, &elements);
        }
        match batch.commit(&mut self.socket) {
            Err(e) if e.errno() == Some(Errno::NOENT) => {}
            taken => return taken,
        }
        // Something is gone already, and with it the whole batch was refused. NFT_MSG_DESTROYSETELEM, which does not mind,
        // is there from 6.3 on.
        for (set, element) in elements {
            let mut batch = Batch::new(family, TABLE);
            batch.remove(set, std::slice::from_ref(element));
            match batch.commit(&mut self.socket) {
                Err(e) if e.errno() == Some(Errno::NOENT) => {}
                taken => taken?,
            }
        }
        Ok(())
    }

    /// Lets a bridge through the table of `iptables`, if that drops what is forwarded and has Docker's place for it;
    /// an `accept` of ours does not undo a drop of theirs. What the user has to do, where it has no such place.
    ///
    /// # Errors
    /// The kernel's.
    pub fn pass_foreign(&mut self, family: Family, bridge: &str) -> Result<Option<String>> {
        let command = match family {
            Family::V4 => "iptables",
            Family::V6 => "ip6tables",
        };
        if nft::chain(&mut self.socket, family, "filter", "FORWARD")? != Some(Some(0)) {
            return Ok(legacy_drops(command).then(|| remedy(&format!("{command}-legacy"), bridge)));
        }
        if nft::chain(&mut self.socket, family, "filter", DOCKER_USER)?.is_none() {
            return Ok(Some(remedy(command, bridge)));
        }
        let comment = format!("{VERSION} {bridge}");
        let rules = nft::rules(&mut self.socket, family, "filter", DOCKER_USER)?;
        if rules.iter().any(|(_, other)| *other == comment) {
            return Ok(None);
        }
        let mut batch = Batch::new(family, "filter");
        for way in [Step::In(0), Step::Out(0)] {
            let name = [bridge.as_bytes(), &[0]].concat();
            let steps = [way, Step::Is(0, name), Step::Counter, Step::Verdict(Verdict::Accept)];
            batch.insert_rule(DOCKER_USER, &steps, &comment);
        }
        batch.commit(&mut self.socket).map(|()| None)
    }

    /// Takes back what [`Firewall::pass_foreign`] did.
    ///
    /// # Errors
    /// The kernel's.
    pub fn unpass_foreign(&mut self, family: Family, bridge: &str) -> Result<()> {
        if nft::chain(&mut self.socket, family, "filter", DOCKER_USER)?.is_none() {
            return Ok(());
        }
        let comment = format!("{VERSION} {bridge}");
        let mut batch = Batch::new(family, "filter");
        for (handle, other) in &nft::rules(&mut self.socket, family, "filter", DOCKER_USER)? {
            if *other == comment {
                batch.remove_rule(DOCKER_USER, handle);
            }
        }
        batch.commit(&mut self.socket)
    }
}

const DOCKER_USER: &str = "DOCKER-USER";

fn remedy(command: &str, bridge: &str) -> String {
    format!(
        "the FORWARD chain of {command} drops what {bridge} sends and receives: run \
         `{command} -I FORWARD -i {bridge} -j ACCEPT` and `{command} -I FORWARD -o {bridge} -j ACCEPT`"
    )
}

/// The old iptables has no netlink, so its command is asked, and only where its table is in use.
fn legacy_drops(command: &str) -> bool {
    let names = match command {
        "iptables" => "ip_tables_names",
        _ => "ip6_tables_names",
    };
    let tables = std::fs::read_to_string(format!("/proc/thread-self/net/{names}")).unwrap_or_default();
    tables.lines().any(|table| table == "filter")
        && std::process::Command::new(format!("{command}-legacy"))
            .args(["-S", "FORWARD"])
            .output()
            .is_ok_and(|said| said.stdout.starts_with(b"-P FORWARD DROP"))
}

fn elements_of(of: Family, forwards: &[Forward]) -> Vec<(&'static str, Element)> {
    forwards.iter().filter(|forward| family(forward.to.ip()) == of).map(forward_element).collect()
}

fn by_set(elements: &[(&'static str, Element)]) -> Vec<(&'static str, Vec<Element>)> {
    let mut sets: Vec<(&'static str, Vec<Element>)> = Vec::new();
    for (set, element) in elements {
        match sets.iter_mut().find(|(other, _)| other == set) {
            Some((_, elements)) => elements.push(element.clone()),
            None => sets.push((set, vec![element.clone()])),
        }
    }
    sets
}
