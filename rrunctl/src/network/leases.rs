//! Who has which address of a network, and what of it stands in the kernel: `networks/ID.leases`.
//!
//! What is going to be made is written here before it is made, so that whoever comes after a kill knows what to remove.

#![forbid(unsafe_code)]

use super::ports::Mapped;
use super::subnet::Subnet;
use crate::error::{Context as _, Error, Result};
use crate::home;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

/// How far an endpoint is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It is down; the address is given to others only when there is no other.
    Kept,
    /// Any part of it may stand.
    Making,
    /// All of it stands.
    Up,
}

/// A container's place in a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// How far it is.
    pub state: State,
    /// The container's name.
    pub name: String,
    /// The container's host name.
    pub hostname: String,
    /// Other names by which it is known in this network.
    pub aliases: Vec<String>,
    /// 64 hexadecimal digits.
    pub endpoint: String,
    /// The address.
    pub ip: Ipv4Addr,
    /// The address in a network with IPv6.
    pub ip6: Option<Ipv6Addr>,
    /// The hardware address.
    pub mac: String,
    /// The end of the veth on the host.
    pub veth: String,
    /// The file of the network namespace.
    pub netns: PathBuf,
    /// The published ports.
    pub ports: Vec<Mapped>,
}

/// All of a network.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Leases {
    /// The boot in which they were written; a later one has nothing of them.
    boot: String,
    /// By the container's id.
    pub containers: BTreeMap<String, Lease>,
}

/// Of which addresses one is chosen.
#[derive(Debug, Clone, Copy)]
pub struct Range {
    /// The network's.
    pub subnet: Subnet,
    /// The part of it that is given without being asked for.
    pub range: Subnet,
    /// The bridge's.
    pub gateway: IpAddr,
}

impl Leases {
    /// Reads the leases. A file that is broken, as a power cut leaves it, has none: nothing of them stands then.
    ///
    /// # Errors
    /// Those of open(2) and read(2).
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = home::read(path)?.unwrap_or_default();
        let mut leases: Self = serde_json::from_slice(&bytes).unwrap_or_default();
        let boot = boot();
        if leases.boot != boot {
            leases.boot = boot;
            leases.containers.values_mut().for_each(|lease| lease.state = State::Kept);
        }
        Ok(leases)
    }

    /// Writes the leases, whole or not at all; not to the disk, which a boot does not need them on.
    ///
    /// # Errors
    /// Those of write(2) and rename(2).
    pub fn write(&self, path: &Path) -> Result<()> {
        let bytes = serde_json::to_vec(self).map_err(|e| Error::system(format!("leases: {e}")))?;
        let new = path.with_extension("leases.new");
        fs::write(&new, bytes)
            .and_then(|()| fs::rename(&new, path))
            .context(|| format!("write {}", path.display()))
    }

    /// Those of whom anything stands.
    pub fn active(&self) -> impl Iterator<Item = (&String, &Lease)> {
        self.containers.iter().filter(|(_, lease)| lease.state != State::Kept)
    }

    /// An address for `container`: the one asked for, the one that it had, or the first that is free.
    ///
    /// # Errors
    /// Where the one asked for is not of this network or is somebody's, or where none is free.
    pub fn choose(&mut self, container: &str, range: &Range, asked: Option<IpAddr>, network: &str) -> Result<IpAddr> {
        let of = |lease: &Lease| -> Option<IpAddr> {
            if range.subnet.is_ipv4() { Some(lease.ip.into()) } else { lease.ip6.map(Into::into) }
        };
        let others = |kept: bool| -> HashSet<IpAddr> {
            let others = self.containers.iter().filter(|(id, lease)| {
                *id != container && (kept || lease.state != State::Kept)
            });
            others.filter_map(|(_, lease)| of(lease)).collect()
        };
        let usable = |ip: IpAddr| {
            let edge = range.subnet.is_ipv4()
                && range.subnet.prefix() < 31
                && (ip == range.subnet.base() || ip == range.subnet.last());
            range.subnet.contains(ip) && !edge && ip != range.gateway
        };
        let active = others(false);
        if let Some(ip) = asked {
            if !range.subnet.contains(ip) {
                return Err(Error::invalid(format!("no configured subnet contains IP address {ip}")));
            }
            if !usable(ip) || active.contains(&ip) {
                return Err(Error::conflict("Address already in use"));
            }
            self.forget_kept(&ip, container, range.subnet.is_ipv4());
            return Ok(ip);
        }
        let before = self.containers.get(container).and_then(of);
        if let Some(ip) = before.filter(|ip| usable(*ip) && !active.contains(ip)) {
            return Ok(ip);
        }
        let first = |taken: &HashSet<IpAddr>| {
            // One more than there are others is free, if the range has so many.
            let most = taken.len() as u128 + 4;
            (0..most).map_while(|n| range.range.nth(n)).find(|ip| {
                // ::0 is every router's (RFC 4291, 2.6.1).
                *ip != range.subnet.base() && usable(*ip) && !taken.contains(ip)
            })
        };
        let ip = first(&others(true)).or_else(|| first(&active)).ok_or_else(|| {
            Error::system(format!("no available addresses on this network's address pools: {network}"))
        })?;
        self.forget_kept(&ip, container, range.subnet.is_ipv4());
        Ok(ip)
    }

    /// Whoever kept the address shall choose another one when it comes back.
    fn forget_kept(&mut self, ip: &IpAddr, container: &str, v4: bool) {
        self.containers.retain(|id, lease| {
            let same = if v4 { IpAddr::from(lease.ip) == *ip } else { lease.ip6.map(IpAddr::from) == Some(*ip) };
            !(same && lease.state == State::Kept && id != container)
        });
    }
}

fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(subnet: &str) -> Range {
        let (gateway, subnet) = Subnet::parse(subnet).expect("a subnet");
        Range { subnet, range: subnet, gateway }
    }

    fn lease(ip: IpAddr, state: State) -> Lease {
        let IpAddr::V4(ip) = ip else { panic!("IPv4") };
        Lease {
            state,
            name: String::new(),
            hostname: String::new(),
            aliases: Vec::new(),
            endpoint: String::new(),
            ip,
            ip6: None,
            mac: String::new(),
            veth: String::new(),
            netns: PathBuf::new(),
            ports: Vec::new(),
        }
    }

    #[test]
    fn the_lowest_free_address_is_given_until_there_is_none() {
        let mut leases = Leases::default();
        let range = range("10.0.0.1/29");
        for n in 2..=6 {
            let id = n.to_string();
            let ip = leases.choose(&id, &range, None, "n").expect("free");
            assert_eq!(ip.to_string(), format!("10.0.0.{n}"));
            leases.containers.insert(id, lease(ip, State::Up));
        }
        let full = leases.choose("7", &range, None, "n").expect_err("full");
        assert_eq!(full.to_string(), "no available addresses on this network's address pools: n");
        leases.containers.get_mut("4").expect("4").state = State::Kept;
        assert_eq!(leases.choose("4", &range, None, "n").expect("its own").to_string(), "10.0.0.4");
        // Kept is kept only as long as there is another one.
        assert_eq!(leases.choose("7", &range, None, "n").expect("4's").to_string(), "10.0.0.4");
        assert!(!leases.containers.contains_key("4"));
    }

    #[test]
    fn one_that_stopped_finds_its_address_again_although_others_came() {
        let mut leases = Leases::default();
        let range = range("10.0.0.1/24");
        let ip = leases.choose("a", &range, None, "n").expect("free");
        leases.containers.insert("a".into(), lease(ip, State::Kept));
        assert_eq!(leases.choose("b", &range, None, "n").expect("free").to_string(), "10.0.0.3");
        assert_eq!(leases.choose("a", &range, None, "n").expect("its own"), ip);
    }

    #[test]
    fn an_address_that_is_asked_for_must_be_of_the_network_and_nobodys() {
        let mut leases = Leases::default();
        let range = range("10.0.0.1/24");
        let ask = |leases: &mut Leases, ip: &str| {
            leases.choose("c", &range, Some(ip.parse().expect("an address")), "n").map_err(|e| e.to_string())
        };
        assert!(ask(&mut leases, "10.0.0.9").is_ok());
        leases.containers.insert("a".into(), lease("10.0.0.9".parse().expect("ip"), State::Up));
        for taken in ["10.0.0.9", "10.0.0.0", "10.0.0.255", "10.0.0.1"] {
            assert_eq!(ask(&mut leases, taken), Err("Address already in use".into()), "{taken}");
        }
        let beyond = "no configured subnet contains IP address 10.0.1.1";
        assert_eq!(ask(&mut leases, "10.0.1.1"), Err(beyond.into()));
    }

    #[test]
    fn a_range_within_the_subnet_is_what_is_given_unasked() {
        let mut leases = Leases::default();
        let mut range = range("10.0.0.1/24");
        range.range = Subnet::parse("10.0.0.128/25").expect("a subnet").1;
        assert_eq!(leases.choose("a", &range, None, "n").expect("free").to_string(), "10.0.0.128");
        let six = super::tests::range("fd00::1/64");
        assert_eq!(leases.choose("a", &six, None, "n").expect("free").to_string(), "fd00::2");
    }

    #[test]
    fn after_a_boot_nothing_stands_and_a_broken_file_has_no_leases() {
        let dir = std::env::temp_dir().join(format!("rrunctl-leases-{}", home::unique().expect("random")));
        fs::create_dir(&dir).expect("mkdir");
        let path = dir.join("x.leases");
        let mut leases = Leases::read(&path).expect("read");
        leases.containers.insert("a".into(), lease("10.0.0.2".parse().expect("ip"), State::Up));
        leases.write(&path).expect("write");
        assert_eq!(Leases::read(&path).expect("read").containers["a"].state, State::Up);
        leases.boot = "another".into();
        leases.write(&path).expect("write");
        assert_eq!(Leases::read(&path).expect("read").containers["a"].state, State::Kept);
        fs::write(&path, "{\"boot").expect("write");
        assert!(Leases::read(&path).expect("read").containers.is_empty());
        home::remove_tree(&dir).expect("remove");
    }
}
