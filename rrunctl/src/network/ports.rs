//! Published ports: what is asked for, and sockets that keep everybody else from the ports of the host.

#![forbid(unsafe_code)]

use super::firewall::Protocol;
use crate::error::{Error, Result};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// A port as it is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedPort {
    /// At which address of the host; nothing for all of both families.
    pub host_ip: Option<IpAddr>,
    /// Which port of the host, the first free one of several, or any.
    pub host_ports: Option<RangeInclusive<u16>>,
    /// Which port of the container.
    pub container_port: u16,
    /// Which protocol.
    pub protocol: Protocol,
}

impl PublishedPort {
    /// Reads an entry of Docker's `PortBindings`: `80/tcp`, its `HostIp` and its `HostPort` (empty, a port, `8000-8010`).
    ///
    /// # Errors
    /// Where one of them is not valid, or the protocol is SCTP.
    pub fn parse(port: &str, host_ip: &str, host_port: &str) -> Result<Self> {
        let (number, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
        let invalid = |what: &str, value: &str| Error::invalid(format!("invalid {what}: {value}"));
        let protocol = match protocol.to_ascii_lowercase().as_str() {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            "sctp" => {
                return Err(Error::new(crate::error::Kind::Unsupported, "SCTP ports cannot be published"));
            }
            _ => return Err(invalid("proto", protocol)),
        };
        let container_port = number_of(number).ok_or_else(|| invalid("containerPort", number))?;
        let host_ip = match host_ip {
            "" => None,
            text => {
                let bare = text.trim_start_matches('[').trim_end_matches(']');
                Some(bare.parse().map_err(|_| invalid("IP address", text))?)
            }
        };
        let host_ports = match host_port {
            "" | "0" => None,
            text => {
                let (first, last) = text.split_once('-').unwrap_or((text, text));
                let range = number_of(first).zip(number_of(last)).filter(|(first, last)| first <= last);
                let (first, last) = range.ok_or_else(|| invalid("hostPort", text))?;
                Some(first..=last)
            }
        };
        Ok(Self { host_ip, host_ports, container_port, protocol })
    }
}

fn number_of(text: &str) -> Option<u16> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?.filter(|port| *port > 0)
}

/// A port of the host that is one of the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mapped {
    /// At which address of the host; `0.0.0.0` and `::` for any.
    pub host_ip: IpAddr,
    /// Which port of the host.
    pub host_port: u16,
    /// Which port of the container.
    pub container_port: u16,
    /// Which protocol.
    pub protocol: Protocol,
    /// Nobody translates what comes here: it arrives at the socket, and whoever holds that has to pass it on.
    pub proxied: bool,
}

/// A socket that keeps a port. It is bound, and refuses connections until listen(2); a proxy for `[::1]`, and for IPv6
/// where the container has none, listens and passes on what it accepts.
#[derive(Debug)]
pub struct Held {
    /// The socket.
    pub fd: OwnedFd,
    /// Which port it is.
    pub port: Mapped,
    /// Where a proxy connects to.
    pub target: SocketAddr,
    /// Whether anything can arrive at it: nf_tables cannot translate `[::1]`.
    pub proxy: bool,
    /// The network namespace from which the container is reached, where it is not that of the calling thread.
    pub netns: Option<PathBuf>,
}

/// Why a port cannot be had.
#[derive(Debug)]
pub enum Refused {
    /// Somebody has it: the address with the port, and whether there were no others to try.
    Taken(SocketAddr, bool),
    /// Another failure.
    Failed(SocketAddr, Errno),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Taken(at, _) => write!(f, "failed to bind host port for {at}: address already in use"),
            Self::Failed(at, e) => write!(f, "failed to bind host port for {at}: {}", Error::from(*e)),
        }
    }
}

/// What one asked-for port became: sockets at the same port of every address of `ips`.
///
/// # Errors
/// Where there is no such port.
pub fn reserve(
    asked: &PublishedPort,
    ips: &[IpAddr],
    random: &RangeInclusive<u16>,
) -> Result<(u16, Vec<(IpAddr, OwnedFd)>), Refused> {
    let (range, start) = match &asked.host_ports {
        Some(range) => (range, 0),
        None => (random, start(random)),
    };
    let count = u32::from(range.end() - range.start()) + 1;
    let mut last = None;
    for n in 0..count {
        let port = (u32::from(*range.start()) + (start + n) % count) as u16;
        let bound: Result<Vec<(IpAddr, OwnedFd)>, (SocketAddr, Errno)> = ips
            .iter()
            .map(|ip| SocketAddr::new(*ip, port))
            .filter_map(|at| match hold(at, asked.protocol) {
                // A kernel without IPv6, or one where it is switched off.
                Err(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL) if at.is_ipv6() && asked.host_ip.is_none() => {
                    None
                }
                held => Some(held.map(|fd| (at.ip(), fd)).map_err(|e| (at, e))),
            })
            .collect();
        match bound {
            Ok(held) => return Ok((port, held)),
            Err((at, Errno::ADDRINUSE)) => last = Some(at),
            Err((at, e)) => return Err(Refused::Failed(at, e)),
        }
    }
    let at = last.unwrap_or_else(|| SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), *range.start()));
    Err(Refused::Taken(at, count > 1))
}

/// Where to begin: two containers at the same time shall not try the same ports one after another.
fn start(range: &RangeInclusive<u16>) -> u32 {
    let mut bytes = [0; 4];
    let _ = getrandom::fill(&mut bytes);
    u32::from_ne_bytes(bytes) % (u32::from(range.end() - range.start()) + 1)
}

pub(super) fn hold(at: SocketAddr, protocol: Protocol) -> Result<OwnedFd, Errno> {
    match (bound(at, protocol, false), protocol) {
        // Connections that a proxy had are in TIME_WAIT for a minute and keep the port from a socket without
        // SO_REUSEADDR. One with it, on the other hand, keeps nobody away unless it listens.
        (Err(Errno::ADDRINUSE), Protocol::Tcp) => {
            let fd = bound(at, protocol, true)?;
            listen(&fd, 128)?;
            Ok(fd)
        }
        (held, _) => held,
    }
}

fn bound(at: SocketAddr, protocol: Protocol, reuse: bool) -> Result<OwnedFd, Errno> {
    let family = if at.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let kind = match protocol {
        Protocol::Tcp => SocketType::STREAM,
        Protocol::Udp => SocketType::DGRAM,
    };
    let fd = socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
    if at.is_ipv6() {
        sockopt::set_ipv6_v6only(&fd, true)?;
    }
    if reuse {
        sockopt::set_socket_reuseaddr(&fd, true)?;
    }
    bind(&fd, &at)?;
    Ok(fd)
}

/// The ports that the kernel gives to those who do not ask for one (ip(7)).
pub fn random_range() -> RangeInclusive<u16> {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut numbers = text.split_whitespace().map_while(|number| number.parse().ok());
    match (numbers.next(), numbers.next()) {
        (Some(first), Some(last)) if 0 < first && first <= last => first..=last,
        _ => 32768..=60999,
    }
}

/// The addresses of the host at which a port is published.
pub fn addresses(asked: Option<IpAddr>, default: Option<IpAddr>) -> Vec<IpAddr> {
    match asked.or(default) {
        Some(ip) => vec![ip],
        None => vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bindings_are_read_as_docker_writes_them() {
        let parsed = PublishedPort::parse("53/udp", "[::1]", "8000-8010").expect("a port");
        assert_eq!(parsed.host_ip, Some(Ipv6Addr::LOCALHOST.into()));
        assert_eq!((parsed.host_ports, parsed.protocol), (Some(8000..=8010), Protocol::Udp));
        assert_eq!(PublishedPort::parse("80", "", "").expect("a port").host_ports, None);
        for (port, ip, host) in [
            ("0/tcp", "", ""),
            ("65536/tcp", "", ""),
            ("80/sctp", "", ""),
            ("80/x", "", ""),
            ("80", "x", ""),
            ("80", "", "9-8"),
            ("80", "", "+8"),
            ("80", "", "70000"),
            ("", "", ""),
        ] {
            assert!(PublishedPort::parse(port, ip, host).is_err(), "{port} {ip} {host}");
        }
    }

    #[test]
    fn a_port_that_is_held_is_refused_and_one_of_a_range_is_found_beside_it() {
        let ips = [IpAddr::from(Ipv4Addr::LOCALHOST)];
        let mut asked = PublishedPort::parse("80", "127.0.0.1", "").expect("a port");
        let (port, _held) = reserve(&asked, &ips, &(20000..=29999)).expect("a port");
        asked.host_ports = Some(port..=port);
        assert!(matches!(reserve(&asked, &ips, &(1..=2)), Err(Refused::Taken(_, false))));
        // One that would share the port with us is refused too, although we do not listen.
        assert_eq!(bound((ips[0], port).into(), Protocol::Tcp, true).err(), Some(Errno::ADDRINUSE));
        asked.host_ports = Some(port..=port + 20);
        assert!(reserve(&asked, &ips, &(1..=2)).expect("another").0 > port);
        asked.host_ip = Some(Ipv4Addr::new(192, 0, 2, 1).into());
        let elsewhere = reserve(&asked, &[Ipv4Addr::new(192, 0, 2, 1).into()], &(1..=2));
        assert!(matches!(elsewhere, Err(Refused::Failed(_, Errno::ADDRNOTAVAIL))));
    }
}
