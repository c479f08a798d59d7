//! Who has which address of a network, and what of it stands in the kernel: the directory `networks/ID.leases`.
//!
//! A file a container. Its name has all that choosing an address needs (`CONTAINER,IPV4,IPV6,STATE`), so that attaching
//! the thousandth one reads a directory and one file; a change of state is a rename. What is going to be made is written
//! here before it is made, so that whoever comes after a kill knows what to remove.

#![forbid(unsafe_code)]

use super::ports::Mapped;
use super::subnet::Subnet;
use crate::error::{Context as _, Error, Result};
use crate::home;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};
use std::fs::{self, DirBuilder};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

/// How far an endpoint is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
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

impl State {
    fn word(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Making => "making",
            Self::Up => "up",
        }
    }
}

/// What the name of a lease's file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// The address.
    pub ip: Ipv4Addr,
    /// The address in a network with IPv6.
    pub ip6: Option<Ipv6Addr>,
    /// How far it is.
    pub state: State,
}

impl Entry {
    fn name(&self, container: &str) -> String {
        let ip6 = self.ip6.map(|ip| ip.to_string()).unwrap_or_default();
        format!("{container},{},{ip6},{}", self.ip, self.state.word())
    }

    fn parse(name: &str) -> Option<(String, Self)> {
        let mut parts = name.rsplitn(4, ',');
        let state = match parts.next()? {
            "kept" => State::Kept,
            "making" => State::Making,
            "up" => State::Up,
            _ => return None,
        };
        let ip6 = match parts.next()? {
            "" => None,
            ip => Some(ip.parse().ok()?),
        };
        let ip = parts.next()?.parse().ok()?;
        Some((parts.next()?.to_owned(), Self { ip, ip6, state }))
    }
}

/// All of a network.
#[derive(Debug, Clone)]
pub struct Leases {
    dir: PathBuf,
    /// What the names of the files say, but not of this boot: nothing of it stands.
    of_another_boot: bool,
    entries: BTreeMap<String, Entry>,
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

/// Says in which boot the names of the files were written.
const BOOT: &str = ".boot";

impl Leases {
    /// Reads the leases in `dir`, which need not be there.
    ///
    /// # Errors
    /// Those of open(2) and readdir(3).
    pub fn read(dir: &Path) -> Result<Self> {
        let mut leases = Self { dir: dir.to_owned(), of_another_boot: false, entries: BTreeMap::new() };
        let files = match fs::read_dir(dir) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(leases),
            files => files.context(|| format!("open {}", dir.display()))?,
        };
        leases.of_another_boot = home::read(&dir.join(BOOT))?.unwrap_or_default() != boot().as_bytes();
        for file in files {
            let name = file.context(|| format!("read {}", dir.display()))?.file_name();
            let Some((container, mut entry)) = name.to_str().and_then(Entry::parse) else { continue };
            if leases.of_another_boot {
                entry.state = State::Kept;
            }
            // Two of one container are what a kill in `put` leaves.
            let other = leases.entries.get(&container);
            if other.is_none_or(|other| other.state < entry.state) {
                leases.entries.insert(container, entry);
            }
        }
        Ok(leases)
    }

    /// What the file's name says of a container.
    pub fn entry(&self, container: &str) -> Option<Entry> {
        self.entries.get(container).copied()
    }

    /// All containers.
    pub fn entries(&self) -> impl Iterator<Item = (&String, &Entry)> {
        self.entries.iter()
    }

    /// Whether anything of anybody stands.
    pub fn are_active(&self) -> bool {
        self.entries.values().any(|entry| entry.state != State::Kept)
    }

    /// The lease of a container of whom anything stands.
    ///
    /// # Errors
    /// Those of open(2) and read(2), and where the file is broken.
    pub fn get(&self, container: &str) -> Result<Option<Lease>> {
        let Some(entry) = self.entries.get(container).filter(|entry| entry.state != State::Kept) else {
            return Ok(None);
        };
        let path = self.dir.join(entry.name(container));
        let Some(bytes) = home::read(&path)? else { return Ok(None) };
        let lease = serde_json::from_slice(&bytes);
        lease.map(Some).map_err(|e| Error::system(format!("read {}: {e}", path.display())))
    }

    /// Those of whom anything stands.
    ///
    /// # Errors
    /// Those of [`Leases::get`].
    pub fn active(&self) -> Result<Vec<(String, Lease)>> {
        let all = self.entries.keys().map(|container| Ok((container, self.get(container)?)));
        all.filter_map(|one: Result<_>| match one {
            Ok((container, lease)) => Some(Ok((container.clone(), lease?))),
            Err(e) => Some(Err(e)),
        })
        .collect()
    }

    /// Writes a lease as one that is being made; not to the disk, since a boot leaves nothing of it.
    ///
    /// # Errors
    /// Those of write(2) and rename(2).
    pub fn put(&mut self, container: &str, lease: &Lease) -> Result<()> {
        if container.is_empty() || container.contains(['/', ',']) {
            return Err(Error::invalid(format!("invalid container id {container:?}")));
        }
        self.enter_boot()?;
        let entry = Entry { ip: lease.ip, ip6: lease.ip6, state: State::Making };
        let path = self.dir.join(entry.name(container));
        let new = self.dir.join(".new");
        let bytes = serde_json::to_vec(lease).map_err(|e| Error::system(format!("lease: {e}")))?;
        fs::write(&new, bytes)
            .and_then(|()| fs::rename(&new, &path))
            .context(|| format!("write {}", path.display()))?;
        match self.entries.insert(container.to_owned(), entry) {
            Some(before) if before != entry => home::remove_tree(&self.dir.join(before.name(container))),
            _ => Ok(()),
        }
    }

    /// Says how far a container is.
    ///
    /// # Errors
    /// Those of rename(2).
    pub fn set(&mut self, container: &str, state: State) -> Result<()> {
        self.enter_boot()?;
        if let Some(entry) = self.entries.get_mut(container) {
            let before = self.dir.join(entry.name(container));
            entry.state = state;
            let after = self.dir.join(entry.name(container));
            fs::rename(&before, &after).context(|| format!("rename {}", before.display()))?;
        }
        Ok(())
    }

    /// Forgets a container.
    ///
    /// # Errors
    /// Those of unlink(2).
    pub fn forget(&mut self, container: &str) -> Result<()> {
        self.enter_boot()?;
        match self.entries.remove(container) {
            Some(entry) => home::remove_tree(&self.dir.join(entry.name(container))),
            None => Ok(()),
        }
    }

    /// Removes what killed commands left beside the leases: what was to be one, and the other of two.
    ///
    /// # Errors
    /// Those of readdir(3) and unlink(2).
    pub fn tidy(&self) -> Result<()> {
        for file in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let name = file.file_name();
            let parsed = name.to_str().and_then(Entry::parse);
            let is_entry = parsed.is_some_and(|(container, entry)| {
                // Those of another boot say something else than is known here.
                self.of_another_boot || self.entries.get(&container) == Some(&entry)
            });
            if !is_entry && name != BOOT {
                home::remove_tree(&file.path())?;
            }
        }
        Ok(())
    }

    /// Makes the names on the disk say what is known here: that nothing of another boot stands.
    fn enter_boot(&mut self) -> Result<()> {
        if self.dir.join(BOOT).exists() && !self.of_another_boot {
            return Ok(());
        }
        match DirBuilder::new().mode(0o700).create(&self.dir) {
            Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(Error::from(e).context(format!("mkdir {}", self.dir.display())));
            }
            _ => {}
        }
        for file in fs::read_dir(&self.dir).context(|| format!("open {}", self.dir.display()))?.flatten() {
            let name = file.file_name();
            let Some((container, entry)) = name.to_str().and_then(Entry::parse) else { continue };
            let kept = Entry { state: State::Kept, ..entry };
            fs::rename(file.path(), self.dir.join(kept.name(&container)))
                .context(|| format!("rename {}", file.path().display()))?;
        }
        home::replace(&self.dir.join(BOOT), 0o600, boot().as_bytes())?;
        self.of_another_boot = false;
        Ok(())
    }

    /// An address for `container`: the one asked for, the one that it had, or the first that is free.
    ///
    /// # Errors
    /// Where the one asked for is not of this network or is somebody's, or where none is free.
    pub fn choose(
        &mut self,
        container: &str,
        range: &Range,
        asked: Option<IpAddr>,
        network: &str,
    ) -> Result<IpAddr> {
        let of = |entry: &Entry| -> Option<IpAddr> {
            if range.subnet.is_ipv4() { Some(entry.ip.into()) } else { entry.ip6.map(Into::into) }
        };
        let others = |kept: bool| -> HashSet<IpAddr> {
            let others = self
                .entries
                .iter()
                .filter(|(id, entry)| *id != container && (kept || entry.state != State::Kept));
            others.filter_map(|(_, entry)| of(entry)).collect()
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
            return self.forget_kept(ip, container).map(|()| ip);
        }
        let before = self.entries.get(container).and_then(of);
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
        self.forget_kept(ip, container).map(|()| ip)
    }

    /// Whoever kept the address shall choose another one when it comes back.
    fn forget_kept(&mut self, ip: IpAddr, container: &str) -> Result<()> {
        let kept: Vec<String> = self
            .entries
            .iter()
            .filter(|(id, entry)| {
                let same = IpAddr::from(entry.ip) == ip || entry.ip6.map(IpAddr::from) == Some(ip);
                same && entry.state == State::Kept && *id != container
            })
            .map(|(id, _)| id.clone())
            .collect();
        kept.iter().try_for_each(|id| self.forget(id))
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

    struct Dir(PathBuf);

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = home::remove_tree(&self.0);
        }
    }

    fn leases() -> (Dir, Leases) {
        let dir = std::env::temp_dir().join(format!("rrunctl-leases-{}", home::unique().expect("random")));
        let leases = Leases::read(&dir).expect("read");
        (Dir(dir), leases)
    }

    fn take(leases: &mut Leases, container: &str, ip: &str, state: State) {
        let lease = Lease {
            name: String::new(),
            hostname: String::new(),
            aliases: Vec::new(),
            endpoint: String::new(),
            ip: ip.parse().expect("ip"),
            ip6: None,
            mac: String::new(),
            veth: String::new(),
            netns: PathBuf::new(),
            ports: Vec::new(),
        };
        leases.put(container, &lease).expect("put");
        leases.set(container, state).expect("set");
    }

    #[test]
    fn the_lowest_free_address_is_given_until_there_is_none() {
        let (_dir, mut leases) = leases();
        let range = range("10.0.0.1/29");
        for n in 2..=6 {
            let id = n.to_string();
            let ip = leases.choose(&id, &range, None, "n").expect("free").to_string();
            assert_eq!(ip, format!("10.0.0.{n}"));
            take(&mut leases, &id, &ip, State::Up);
        }
        let full = leases.choose("7", &range, None, "n").expect_err("full");
        assert_eq!(full.to_string(), "no available addresses on this network's address pools: n");
        leases.set("4", State::Kept).expect("set");
        assert_eq!(leases.choose("4", &range, None, "n").expect("its own").to_string(), "10.0.0.4");
        // Kept is kept only as long as there is another one.
        assert_eq!(leases.choose("7", &range, None, "n").expect("4's").to_string(), "10.0.0.4");
        assert_eq!(leases.entry("4"), None);
    }

    #[test]
    fn what_killed_commands_left_beside_the_leases_is_removed() {
        let (dir, mut leases) = leases();
        take(&mut leases, "a", "10.0.0.2", State::Up);
        take(&mut leases, "b", "10.0.0.3", State::Kept);
        // As `put` leaves it, killed: with the lease of before, or with what was to be one.
        for name in ["a,10.0.0.9,,kept", ".new", ".0123456789abcdef"] {
            fs::write(dir.0.join(name), "").expect("write");
        }
        Leases::read(&dir.0).expect("read").tidy().expect("tidied");
        let mut names: Vec<_> =
            fs::read_dir(&dir.0).expect("readdir").flatten().map(|entry| entry.file_name()).collect();
        names.sort();
        assert_eq!(names, [".boot", "a,10.0.0.2,,up", "b,10.0.0.3,,kept"]);
    }

    #[test]
    fn one_that_stopped_finds_its_address_again_although_others_came() {
        let (_dir, mut leases) = leases();
        let range = range("10.0.0.1/24");
        take(&mut leases, "a", "10.0.0.2", State::Kept);
        assert_eq!(leases.choose("b", &range, None, "n").expect("free").to_string(), "10.0.0.3");
        assert_eq!(leases.choose("a", &range, None, "n").expect("its own").to_string(), "10.0.0.2");
    }

    #[test]
    fn an_address_that_is_asked_for_must_be_of_the_network_and_nobodys() {
        let (_dir, mut leases) = leases();
        let range = range("10.0.0.1/24");
        let ask = |leases: &mut Leases, ip: &str| {
            leases.choose("c", &range, Some(ip.parse().expect("an address")), "n").map_err(|e| e.to_string())
        };
        assert!(ask(&mut leases, "10.0.0.9").is_ok());
        take(&mut leases, "a", "10.0.0.9", State::Up);
        for taken in ["10.0.0.9", "10.0.0.0", "10.0.0.255", "10.0.0.1"] {
            assert_eq!(ask(&mut leases, taken), Err("Address already in use".into()), "{taken}");
        }
        let beyond = "no configured subnet contains IP address 10.0.1.1";
        assert_eq!(ask(&mut leases, "10.0.1.1"), Err(beyond.into()));
    }

    #[test]
    fn a_range_within_the_subnet_is_what_is_given_unasked() {
        let (_dir, mut leases) = leases();
        let mut part = range("10.0.0.1/24");
        part.range = Subnet::parse("10.0.0.128/25").expect("a subnet").1;
        assert_eq!(leases.choose("a", &part, None, "n").expect("free").to_string(), "10.0.0.128");
        assert_eq!(leases.choose("a", &range("fd00::1/64"), None, "n").expect("free").to_string(), "fd00::2");
    }

    #[test]
    fn what_is_written_is_read_and_after_a_boot_nothing_stands() {
        let (dir, mut leases) = leases();
        take(&mut leases, "a", "10.0.0.2", State::Up);
        take(&mut leases, "b", "10.0.0.3", State::Kept);
        let read = || Leases::read(&dir.0).expect("read");
        assert_eq!(read().entries, leases.entries);
        assert_eq!(read().get("a").expect("get").expect("a lease").ip.to_string(), "10.0.0.2");
        assert_eq!(read().get("b").expect("get"), None);
        fs::write(dir.0.join(BOOT), "another").expect("write");
        assert!(!read().are_active() && read().active().expect("active").is_empty());
        let mut after = read();
        take(&mut after, "c", "10.0.0.4", State::Up);
        assert_eq!(read().active().expect("active").len(), 1);
        assert_eq!(read().entry("a").expect("kept").state, State::Kept);
    }

    #[test]
    fn a_kill_between_two_names_leaves_the_one_that_may_stand() {
        let (dir, mut leases) = leases();
        take(&mut leases, "a", "10.0.0.2", State::Kept);
        let left = dir.0.join("a,10.0.0.9,,making");
        fs::copy(dir.0.join("a,10.0.0.2,,kept"), &left).expect("copy");
        for name in ["", "x", "a,b,c,up", ",,,", "a,1.2.3.4,x,up", "a,1.2.3.4,,high"] {
            assert_eq!(Entry::parse(name), None, "{name}");
        }
        let read = Leases::read(&dir.0).expect("read");
        assert_eq!(read.entry("a").map(|entry| entry.ip.to_string()), Some("10.0.0.9".into()));
        assert!(leases.put("a/b", &read.get("a").expect("get").expect("a lease")).is_err());
    }
}
