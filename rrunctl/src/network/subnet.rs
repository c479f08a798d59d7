//! Ranges of addresses: what they contain, and which of a pool is free.

#![forbid(unsafe_code)]

use crate::error::{Error, Result};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The addresses that share the first bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Subnet {
    base: IpAddr,
    prefix: u8,
}

impl Subnet {
    /// The subnet of `ip`; nothing where it cannot have so many bits.
    pub fn new(ip: IpAddr, prefix: u8) -> Option<Self> {
        let bits = width(ip);
        if prefix > bits {
            return None;
        }
        let host = bits - prefix;
        let number = number(ip);
        let base = if host >= 128 { 0 } else { number >> host << host };
        Some(Self { base: address(base, ip.is_ipv4()), prefix })
    }

    /// Reads `172.17.0.1/16`: the address as written, and its subnet.
    ///
    /// # Errors
    /// Where it is not an address and a number of bits.
    pub fn parse(text: &str) -> Result<(IpAddr, Self)> {
        let parsed = text.split_once('/').and_then(|(ip, prefix)| {
            let ip: IpAddr = ip.parse().ok()?;
            let digits = !prefix.is_empty() && prefix.bytes().all(|byte| byte.is_ascii_digit());
            Some((ip, Self::new(ip, prefix.parse().ok().filter(|_| digits)?)?))
        });
        parsed.ok_or_else(|| Error::invalid(format!("invalid CIDR address: {text}")))
    }

    /// The address with no host bits.
    pub fn base(&self) -> IpAddr {
        self.base
    }

    /// How many bits are common.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Whether it is of version 4.
    pub fn is_ipv4(&self) -> bool {
        self.base.is_ipv4()
    }

    /// The last address.
    pub fn last(&self) -> IpAddr {
        let host = width(self.base) - self.prefix;
        let mask = if host >= 128 { u128::MAX } else { (1 << host) - 1 };
        address(number(self.base) | mask, self.is_ipv4())
    }

    /// Whether `ip` is in it.
    pub fn contains(&self, ip: IpAddr) -> bool {
        Self::new(ip, self.prefix).is_some_and(|of| of == *self)
    }

    /// Whether any address is in both.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.contains(other.base) || other.contains(self.base)
    }

    /// The address at `index`, where it has so many.
    pub fn nth(&self, index: u128) -> Option<IpAddr> {
        let number = number(self.base).checked_add(index)?;
        let ip = address(number, self.is_ipv4());
        (number <= self::number(self.last())).then_some(ip)
    }

    /// The subnets of `prefix` bits in it.
    fn parts(self, prefix: u8) -> impl Iterator<Item = Self> {
        let host = u32::from(width(self.base).saturating_sub(prefix));
        let count =
            prefix.checked_sub(self.prefix).map_or(0, |bits| 1u128.checked_shl(bits.into()).unwrap_or(0));
        (0..count).map_while(move |n| Self::new(self.nth(n.checked_shl(host)?)?, prefix))
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

/// The address as a number.
pub fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u32::from(ip).into(),
        IpAddr::V6(ip) => ip.into(),
    }
}

fn address(number: u128, v4: bool) -> IpAddr {
    if v4 { Ipv4Addr::from(number as u32).into() } else { Ipv6Addr::from(number).into() }
}

fn width(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}

/// Networks are given the subnets of `size` bits in `base`, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool {
    /// All of them.
    pub base: Subnet,
    /// How many bits one has.
    pub size: u8,
}

/// Docker's pools for networks of one host.
pub fn default_pools() -> Vec<Pool> {
    let pools: [([u8; 4], u8, u8); 7] = [
        ([172, 17, 0, 0], 16, 16),
        ([172, 18, 0, 0], 16, 16),
        ([172, 19, 0, 0], 16, 16),
        ([172, 20, 0, 0], 14, 16),
        ([172, 24, 0, 0], 14, 16),
        ([172, 28, 0, 0], 14, 16),
        ([192, 168, 0, 0], 16, 20),
    ];
    let pool = |(base, prefix, size)| Some(Pool { base: Subnet::new(IpAddr::from(base), prefix)?, size });
    pools.into_iter().filter_map(pool).collect()
}

/// The first subnet of the pools that overlaps with none of `taken`.
///
/// # Errors
/// Where there is none.
pub fn choose(pools: &[Pool], v4: bool, taken: &[Subnet]) -> Result<Subnet> {
    pools
        .iter()
        .filter(|pool| pool.base.is_ipv4() == v4)
        .flat_map(|pool| pool.base.parts(pool.size))
        // A pool of a /8 in /30s has four million of them; who has that many taken has another trouble.
        .take(1 << 20)
        .find(|subnet| !taken.iter().any(|other| other.overlaps(subnet)))
        .ok_or_else(|| {
            Error::system("all predefined address pools have been fully subnetted")
                .remedy("remove networks with `network prune`, or give --subnet")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        Subnet::parse(text).expect("a subnet").1
    }

    #[test]
    fn host_bits_are_masked_and_the_address_as_written_is_kept() {
        let (ip, of) = Subnet::parse("172.17.0.1/16").expect("a subnet");
        assert_eq!((ip.to_string(), of.to_string()), ("172.17.0.1".into(), "172.17.0.0/16".into()));
        assert_eq!(of.last().to_string(), "172.17.255.255");
        assert_eq!(subnet("::/0").last().to_string(), "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff");
        assert_eq!(subnet("10.0.0.0/30").nth(3).expect("the last").to_string(), "10.0.0.3");
        assert_eq!(subnet("10.0.0.0/30").nth(4), None);
        for bad in ["", "1.2.3.4", "1.2.3.4/33", "1.2.3/8", "1.2.3.4/", "1.2.3.4/+8", "fd00::/129", "x/8"] {
            assert!(Subnet::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn one_of_another_family_or_beside_does_not_overlap() {
        let of = subnet("172.16.0.0/12");
        assert!(of.overlaps(&subnet("172.17.0.0/16")) && subnet("172.17.0.0/16").overlaps(&of));
        assert!(!of.overlaps(&subnet("172.32.0.0/16")) && !of.overlaps(&subnet("fd00::/8")));
        assert!(!subnet("::/0").overlaps(&of));
    }

    #[test]
    fn the_first_free_one_of_the_pools_is_chosen_and_none_is_an_error() {
        let pools = default_pools();
        assert_eq!(choose(&pools, true, &[]).expect("free").to_string(), "172.17.0.0/16");
        let taken = [subnet("172.17.0.0/16"), subnet("172.18.5.0/24"), subnet("172.20.0.0/15")];
        assert_eq!(choose(&pools, true, &taken[..2]).expect("free").to_string(), "172.19.0.0/16");
        let taken = [taken.as_slice(), &[subnet("172.19.0.0/16")]].concat();
        assert_eq!(choose(&pools, true, &taken).expect("free").to_string(), "172.22.0.0/16");
        assert!(choose(&pools, true, &[subnet("0.0.0.0/0")]).is_err());
        assert!(choose(&pools, false, &[]).is_err());
        let small = [Pool { base: subnet("10.0.0.0/24"), size: 26 }];
        let taken: Vec<_> = ["10.0.0.0/26", "10.0.0.64/26"].map(subnet).into();
        assert_eq!(choose(&small, true, &taken).expect("free").to_string(), "10.0.0.128/26");
    }
}
