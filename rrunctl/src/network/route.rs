//! Links, addresses and routes (rtnetlink(7)).

#![forbid(unsafe_code)]

use super::netlink::{CREATE, DUMP, EXCL, Message, Socket, attribute, string, u32_at};
use super::subnet::Subnet;
use crate::error::{Context as _, Error, Result};
use rustix::io::Errno;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd as _, BorrowedFd};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_INFO_SLAVE_DATA: u16 = 5;
const VETH_INFO_PEER: u16 = 1;
const IFLA_BRPORT_STATE: u16 = 1;
const IFLA_BRPORT_MODE: u16 = 4;
const IFLA_BRPORT_FLUSH: u16 = 24;
const IFLA_BRPORT_ISOLATED: u16 = 33;

const IFF_UP: u32 = 1;
const IFA_F_NODAD: u8 = 2;
const RT_TABLE_MAIN: u8 = 254;

/// A hardware address.
pub type Mac = [u8; 6];

/// What is known about a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its number in its network namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// `bridge`, `veth`; empty for hardware.
    pub kind: String,
    /// The largest packet, in bytes.
    pub mtu: u32,
    /// The bridge that it is a port of.
    pub master: Option<u32>,
    /// Its hardware address.
    pub mac: Option<Mac>,
}

/// A route of the main table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Where to.
    pub to: Subnet,
    /// Through which link.
    pub link: u32,
}

/// The two ends of a veth.
#[derive(Debug, Clone, Copy)]
pub struct Veth<'a> {
    /// The end here, which becomes a port of `bridge`.
    pub name: &'a str,
    /// The index of the bridge.
    pub bridge: u32,
    /// The end in the container's network namespace.
    pub peer: &'a str,
    /// It reaches no other isolated port of the bridge.
    pub isolated: bool,
    /// The hardware address of the peer.
    pub mac: Mac,
    /// The largest packet, in bytes.
    pub mtu: u32,
    /// The network namespace of the peer.
    pub netns: BorrowedFd<'a>,
}

fn ifinfo(index: u32, flags: u32) -> [u8; 16] {
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&flags.to_ne_bytes());
    header
}

fn family(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 2 } else { 10 }
}

/// The bytes of an address in network order.
pub fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// The address whose bytes these are.
pub fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into()),
        16 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into()),
        _ => None,
    }
}

impl Socket {
    /// All links, or the one with this name; none is no error.
    ///
    /// # Errors
    /// The kernel's.
    pub fn links(&mut self, name: Option<&str>) -> Result<Vec<Link>> {
        let mut message = Message::new(RTM_GETLINK, if name.is_some() { 0 } else { DUMP }, &ifinfo(0, 0));
        if let Some(name) = name {
            message.text(IFLA_IFNAME, name);
        }
        let mut links = Vec::new();
        let asked = self.ask(message, |payload| links.extend(link(payload)));
        match asked {
            Err(e) if e.errno() == Some(Errno::NODEV) => {}
            asked => asked.context(|| "netlink: get links")?,
        }
        Ok(links)
    }

    /// The link with this name.
    ///
    /// # Errors
    /// The kernel's.
    pub fn link(&mut self, name: &str) -> Result<Option<Link>> {
        Ok(self.links(Some(name))?.pop())
    }

    /// Makes a bridge that is up.
    ///
    /// # Errors
    /// The kernel's.
    pub fn add_bridge(&mut self, name: &str, mac: Mac, mtu: u32) -> Result<()> {
        let mut message = Message::new(RTM_NEWLINK, CREATE | EXCL, &ifinfo(0, IFF_UP));
        message.text(IFLA_IFNAME, name).native(IFLA_MTU, mtu);
        // Without an address of its own it takes the lowest of its ports, and every change is an ARP entry that is wrong.
        message.attr(IFLA_ADDRESS, &mac);
        message.nest(IFLA_LINKINFO, |m| m.text(IFLA_INFO_KIND, "bridge"));
        self.request(message).context(|| format!("make bridge {name}"))
    }

    /// Makes a veth, one end a port of a bridge and up, the other one in a network namespace from the beginning.
    ///
    /// # Errors
    /// The kernel's.
    pub fn add_veth(&mut self, veth: &Veth<'_>) -> Result<()> {
        let mut made = Message::new(RTM_NEWLINK, CREATE | EXCL, &ifinfo(0, IFF_UP));
        made.text(IFLA_IFNAME, veth.name).native(IFLA_MTU, veth.mtu).native(IFLA_MASTER, veth.bridge);
        made.nest(IFLA_LINKINFO, |m| {
            m.text(IFLA_INFO_KIND, "veth").nest(IFLA_INFO_DATA, |m| {
                m.nest(VETH_INFO_PEER, |m| {
                    m.raw(&ifinfo(0, 0)).text(IFLA_IFNAME, veth.peer).native(IFLA_MTU, veth.mtu);
                    m.attr(IFLA_ADDRESS, &veth.mac).native(IFLA_NET_NS_FD, veth.netns.as_raw_fd() as u32)
                })
            })
        });
        let mut port = Message::new(RTM_NEWLINK, 0, &ifinfo(0, 0));
        port.text(IFLA_IFNAME, veth.name).nest(IFLA_LINKINFO, |m| {
            m.text(IFLA_INFO_SLAVE_KIND, "bridge").nest(IFLA_INFO_SLAVE_DATA, |m| {
                // With br_netfilter a container that reaches itself by a published port goes out where it came in.
                m.attr(IFLA_BRPORT_MODE, &[1]).attr(IFLA_BRPORT_ISOLATED, &[veth.isolated.into()])
            })
        });
        first_failure(self.exchange(vec![made, port])?).context(|| format!("make veth {}", veth.name))
    }

    /// Removes a link; one that is gone is no error.
    ///
    /// # Errors
    /// The kernel's.
    pub fn remove_link(&mut self, name: &str) -> Result<()> {
        let mut message = Message::new(RTM_DELLINK, 0, &ifinfo(0, 0));
        message.text(IFLA_IFNAME, name);
        match self.request(message) {
            Err(e) if e.errno() == Some(Errno::NODEV) => Ok(()),
            removed => removed.context(|| format!("remove link {name}")),
        }
    }

    /// Lets nothing more through a port of a bridge, and forgets who was behind it; one that is gone is no error.
    ///
    /// # Errors
    /// The kernel's.
    pub fn cut_off(&mut self, name: &str) -> Result<()> {
        // BR_STATE_DISABLED
        const DISABLED: u8 = 0;
        let mut message = Message::new(RTM_NEWLINK, 0, &ifinfo(0, 0));
        message.text(IFLA_IFNAME, name).nest(IFLA_LINKINFO, |m| {
            m.text(IFLA_INFO_SLAVE_KIND, "bridge").nest(IFLA_INFO_SLAVE_DATA, |m| {
                m.attr(IFLA_BRPORT_STATE, &[DISABLED]).attr(IFLA_BRPORT_FLUSH, &[])
            })
        });
        match self.request(message) {
            Err(e) if e.errno() == Some(Errno::NODEV) => Ok(()),
            cut => cut.context(|| format!("cut off {name}")),
        }
    }

    /// Gives the link an address; one that it has is no error.
    ///
    /// # Errors
    /// The kernel's.
    pub fn add_address(&mut self, index: u32, ip: IpAddr, prefix: u8) -> Result<()> {
        match self.request(new_address(index, ip, prefix)) {
            Err(e) if e.errno() == Some(Errno::EXIST) => Ok(()),
            added => added.context(|| format!("add address {ip}/{prefix}")),
        }
    }

    /// Sets up a link with its addresses, and the default routes through it, all in one go.
    ///
    /// # Errors
    /// The kernel's.
    pub fn configure(&mut self, index: u32, addresses: &[(IpAddr, u8)], gateways: &[IpAddr]) -> Result<()> {
        let mut messages: Vec<Message> =
            addresses.iter().map(|(ip, prefix)| new_address(index, *ip, *prefix)).collect();
        messages.push(Message::new(RTM_NEWLINK, 0, &ifinfo(index, IFF_UP)));
        messages.extend(gateways.iter().map(|gateway| new_default(*gateway, index)));
        first_failure(self.exchange(messages)?).context(|| "configure link")
    }

    /// Every address with its prefix, and the link that has it.
    ///
    /// # Errors
    /// The kernel's.
    pub fn addresses(&mut self) -> Result<Vec<(IpAddr, u8, u32)>> {
        let mut found = Vec::new();
        self.ask(Message::new(RTM_GETADDR, DUMP, &[0; 8]), |payload| {
            let attrs = payload.get(8..).unwrap_or_default();
            // A point-to-point link has the other end's in IFA_ADDRESS.
            let ip = attribute(attrs, 2).or_else(|| attribute(attrs, 1)).and_then(address);
            if let (Some(ip), Some(index)) = (ip, u32_at(payload, 4)) {
                found.push((ip, payload[1], index));
            }
        })
        .context(|| "netlink: get addresses")?;
        Ok(found)
    }

    /// Sets the link up or down.
    ///
    /// # Errors
    /// The kernel's.
    pub fn set_up(&mut self, index: u32) -> Result<()> {
        self.request(Message::new(RTM_NEWLINK, 0, &ifinfo(index, IFF_UP))).context(|| "set link up")
    }

    /// The default route; one that is there is replaced.
    ///
    /// # Errors
    /// The kernel's.
    pub fn set_default(&mut self, gateway: IpAddr, index: u32) -> Result<()> {
        self.request(new_default(gateway, index)).context(|| format!("add default route via {gateway}"))
    }

    /// The routes of the main table, the default ones with a prefix of no bits.
    ///
    /// # Errors
    /// The kernel's.
    pub fn routes(&mut self) -> Result<Vec<Route>> {
        let mut found = Vec::new();
        self.ask(Message::new(RTM_GETROUTE, DUMP, &[0; 12]), |payload| found.extend(route(payload)))
            .context(|| "netlink: get routes")?;
        Ok(found)
    }
}

fn new_address(index: u32, ip: IpAddr, prefix: u8) -> Message {
    let mut header = [family(ip), prefix, IFA_F_NODAD, 0, 0, 0, 0, 0];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    let mut message = Message::new(RTM_NEWADDR, CREATE | EXCL, &header);
    message.attr(1, &octets(ip)).attr(2, &octets(ip));
    if let IpAddr::V4(ip) = ip
        && prefix < 31
    {
        message.attr(4, &(u32::from(ip) | (u32::MAX >> prefix)).to_be_bytes());
    }
    message
}

fn new_default(gateway: IpAddr, index: u32) -> Message {
    const REPLACE: u16 = 0x100;
    // RTPROT_BOOT, RT_SCOPE_UNIVERSE, RTN_UNICAST
    let header = [family(gateway), 0, 0, 0, RT_TABLE_MAIN, 3, 0, 1, 0, 0, 0, 0];
    let mut message = Message::new(RTM_NEWROUTE, CREATE | REPLACE, &header);
    message.attr(5, &octets(gateway)).native(4, index);
    message
}

fn first_failure(results: Vec<Result<(), Errno>>) -> Result<()> {
    results.into_iter().find_map(Result::err).map_or(Ok(()), |e| Err(e.into()))
}

fn link(payload: &[u8]) -> Option<Link> {
    let attrs = payload.get(16..)?;
    let kind = attribute(attrs, IFLA_LINKINFO).and_then(|info| attribute(info, IFLA_INFO_KIND));
    Some(Link {
        index: u32_at(payload, 4)?,
        name: string(attribute(attrs, IFLA_IFNAME)?),
        kind: kind.map(string).unwrap_or_default(),
        mtu: attribute(attrs, IFLA_MTU).and_then(|mtu| u32_at(mtu, 0)).unwrap_or(1500),
        master: attribute(attrs, IFLA_MASTER).and_then(|master| u32_at(master, 0)),
        mac: attribute(attrs, IFLA_ADDRESS).and_then(|mac| mac.try_into().ok()),
    })
}

fn route(payload: &[u8]) -> Option<Route> {
    let attrs = payload.get(12..)?;
    if payload[4] != RT_TABLE_MAIN {
        return None;
    }
    let to = match (attribute(attrs, 1), payload[0]) {
        (Some(to), _) => address(to)?,
        (None, 2) => Ipv4Addr::UNSPECIFIED.into(),
        (None, 10) => Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    Some(Route {
        to: Subnet::new(to, payload[1])?,
        link: attribute(attrs, 4).and_then(|link| u32_at(link, 0))?,
    })
}

/// `02:42:ac:11:00:02`.
pub fn mac_text(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// Reads what [`mac_text`] writes.
///
/// # Errors
/// Where it is not a hardware address of one station.
pub fn parse_mac(text: &str) -> Result<Mac> {
    let bytes: Option<Vec<u8>> = text
        .split([':', '-'])
        .map(|byte| {
            let digits = byte.len() == 2 && byte.bytes().all(|digit| digit.is_ascii_hexdigit());
            u8::from_str_radix(byte, 16).ok().filter(|_| digits)
        })
        .collect();
    let mac: Option<Mac> = bytes.and_then(|bytes| bytes.try_into().ok());
    mac.filter(|mac| mac[0] & 1 == 0 && *mac != [0; 6])
        .ok_or_else(|| Error::invalid(format!("invalid MAC address: {text}")))
}

/// The address that follows from the IP address, so that a container which is started again is found by those who
/// remember where it was.
pub fn mac_of(ip: Ipv4Addr) -> Mac {
    let [a, b, c, d] = ip.octets();
    [0x02, 0x42, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_follows_from_the_address_and_is_read_as_it_is_written() {
        let mac = mac_of(Ipv4Addr::new(172, 17, 0, 2));
        assert_eq!(mac_text(mac), "02:42:ac:11:00:02");
        assert_eq!(parse_mac("02:42:ac:11:00:02").expect("a mac"), mac);
        for bad in [
            "",
            "02:42",
            "01:00:5e:00:00:01",
            "02:42:ac:11:00:+2",
            "02:42:ac:11:00:02:03",
            "00:00:00:00:00:00",
        ] {
            assert!(parse_mac(bad).is_err(), "{bad}");
        }
    }
}
