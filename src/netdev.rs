//! Moves network devices into the container's network namespace (config-linux.md, "Network Devices").
//!
//! The kernel keeps what belongs to the device (address, MTU, queue length) and drops what belongs to the
//! namespace: its IP addresses and that it is up. The permanent addresses of global scope are read before
//! the move and given back after it. Nothing moves a device out again: it ends with the namespace.

#![forbid(unsafe_code)]

use crate::error::{Context, Error, Result};
use crate::plan::netdev::NetDevice;
use crate::sys::netlink::{Netlink, Request, attributes, i32_at, u32_at};
use rustix::fd::{AsRawFd, BorrowedFd};

const IFINFO: usize = 16;
const IFADDR: usize = 8;

// linux/if_addr.h, linux/if_link.h
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_FLAGS: u16 = 8;
const IFA_RT_PRIORITY: u16 = 9;
const IFLA_IFNAME: u16 = 3;
const IFLA_NET_NS_FD: u16 = 28;
const IFA_F_PERMANENT: u32 = 0x80;

/// What an administrator sets on an address (NODAD, HOMEADDRESS, MANAGETEMPADDR, NOPREFIXROUTE,
/// MCAUTOJOIN); the other flags are what the kernel found out about it.
const KEPT_FLAGS: u32 = 0x02 | 0x10 | 0x100 | 0x200 | 0x400;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Link {
    index: i32,
    name: String,
}

/// Moves devices from the runtime's network namespace to `namespace`, renames them and sets them up.
///
/// # Errors
/// A device that is absent or cannot be moved, a name that is taken in the container. Names are checked
/// before the first device moves.
pub fn move_all(devices: &[NetDevice], namespace: BorrowedFd<'_>) -> Result<()> {
    if devices.is_empty() {
        return Ok(());
    }
    let mut here = Netlink::open()?;
    let mut there = Netlink::open_in(namespace).context(|| "entering the container's network namespace")?;
    let inside = links(&mut there)?;
    for device in devices.iter().filter(|device| !device.is_template()) {
        if inside.iter().any(|link| link.name == device.container) {
            let text = format!("a network device {:?} already exists in the container", device.container);
            return Err(at(device)(Error::new(text)));
        }
    }
    for device in devices {
        move_one(device, namespace, &mut here, &mut there).map_err(at(device))?;
    }
    Ok(())
}

fn at(device: &NetDevice) -> impl Fn(Error) -> Error {
    let host = device.host.clone();
    move |e| e.context(format!("config.json: linux.netDevices.{host:?}"))
}

fn move_one(
    device: &NetDevice,
    namespace: BorrowedFd<'_>,
    here: &mut Netlink,
    there: &mut Netlink,
) -> Result<()> {
    let link = links(here)?
        .into_iter()
        .find(|link| link.name == device.host)
        .ok_or_else(|| Error::new("no such network device in the runtime's network namespace"))?;
    let addresses = addresses(here, link.index)?;
    let before = links(there)?;
    // Name and namespace go in one request: the kernel then takes the new name if the old one is in use
    // where the device goes.
    let mut name = device.container.clone().into_bytes();
    name.push(0);
    let request = Request::new(libc::RTM_NEWLINK, 0, &ifinfo(link.index, 0))
        .attribute(IFLA_NET_NS_FD, &namespace.as_raw_fd().to_ne_bytes())
        .attribute(IFLA_IFNAME, &name);
    here.request("RTM_NEWLINK IFLA_NET_NS_FD", &request)?;
    let moved = find(device, &before, links(there)?)
        .ok_or_else(|| Error::new("the device is not in the container after its move"))?;
    for address in &addresses {
        let request = address.request(moved.index);
        there.request("RTM_NEWADDR", &request).context(|| "restoring an address")?;
    }
    let up = Request::new(libc::RTM_NEWLINK, 0, &ifinfo(moved.index, libc::IFF_UP as u32));
    there.request("RTM_NEWLINK IFF_UP", &up).context(|| "setting the device up")?;
    Ok(())
}

/// The device after its move: its index may have changed, and of a template so has its name.
fn find(device: &NetDevice, before: &[Link], after: Vec<Link>) -> Option<Link> {
    after.into_iter().find(|link| {
        if device.is_template() {
            let stem = device.container.trim_end_matches("%d");
            link.name.starts_with(stem) && !before.contains(link)
        } else {
            link.name == device.container
        }
    })
}

/// `struct ifinfomsg`: family, padding, type, index, flags, mask of the flags that change.
fn ifinfo(index: i32, flags: u32) -> [u8; IFINFO] {
    let mut out = [0; IFINFO];
    let fields = [[0; 4], index.to_ne_bytes(), flags.to_ne_bytes(), flags.to_ne_bytes()];
    out.iter_mut().zip(fields.as_flattened()).for_each(|(to, from)| *to = *from);
    out
}

fn links(netlink: &mut Netlink) -> Result<Vec<Link>> {
    let dump = Request::new(libc::RTM_GETLINK, libc::NLM_F_DUMP, &ifinfo(0, 0));
    let list = netlink.request("RTM_GETLINK", &dump)?;
    let links = list.into_iter().filter(|message| message.kind == libc::RTM_NEWLINK).filter_map(|message| {
        let name = attributes(&message.body, IFINFO).find(|(kind, _)| *kind == IFLA_IFNAME)?.1;
        let name = String::from_utf8_lossy(name).trim_end_matches('\0').to_owned();
        Some(Link { index: i32_at(&message.body, 4)?, name })
    });
    Ok(links.collect())
}

/// A permanent address of global scope.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Address {
    family: u8,
    prefix: u8,
    flags: u32,
    attributes: Vec<(u16, Vec<u8>)>,
}

impl Address {
    /// Reads an RTM_NEWADDR; `None` if it is another device's, temporary or not global.
    fn read(body: &[u8], index: i32) -> Option<Self> {
        let [family, prefix, flags, scope] = *body.first_chunk::<4>()?;
        // The eight flags of the header are the low ones of IFA_FLAGS, which not every kernel sends.
        let mut all = u32::from(flags);
        let mut kept = Vec::new();
        for (kind, value) in attributes(body, IFADDR) {
            match kind {
                IFA_FLAGS => all = u32_at(value, 0)?,
                IFA_ADDRESS | IFA_LOCAL | IFA_BROADCAST | IFA_RT_PRIORITY => {
                    kept.push((kind, value.to_vec()))
                }
                _ => {}
            }
        }
        let ours = i32_at(body, 4)? == index;
        let global = scope == libc::RT_SCOPE_UNIVERSE && all & IFA_F_PERMANENT != 0;
        (ours && global).then_some(Self { family, prefix, flags: all & KEPT_FLAGS, attributes: kept })
    }

    fn request(&self, index: i32) -> Request {
        let [a, b, c, d] = index.to_ne_bytes();
        let header = [self.family, self.prefix, 0, libc::RT_SCOPE_UNIVERSE, a, b, c, d];
        let flags = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
        self.attributes.iter().fold(
            Request::new(libc::RTM_NEWADDR, flags, &header).attribute(IFA_FLAGS, &self.flags.to_ne_bytes()),
            |request, (kind, value)| request.attribute(*kind, value),
        )
    }
}

fn addresses(netlink: &mut Netlink, index: i32) -> Result<Vec<Address>> {
    let dump = Request::new(libc::RTM_GETADDR, libc::NLM_F_DUMP, &[0; IFADDR]);
    let list = netlink.request("RTM_GETADDR", &dump)?;
    let all = list.iter().filter(|message| message.kind == libc::RTM_NEWADDR);
    Ok(all.filter_map(|message| Address::read(&message.body, index)).collect())
}

#[cfg(test)]
mod tests {
    //! In a network namespace of the test's own thread, with a second one to move to. Skipped without the
    //! right to make one, and the veth parts where the kernel has no such device.

    use super::*;
    use rustix::fd::{AsFd, OwnedFd};
    use rustix::fs::{Mode, OFlags};

    fn new_namespace() -> Option<OwnedFd> {
        #[allow(deprecated)]
        rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNET).ok()?;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        Some(rustix::fs::open("/proc/thread-self/ns/net", flags, Mode::empty()).expect("/proc"))
    }

    /// A pair of virtual devices, `a` and `b`; false if this kernel has none.
    fn make_pair(netlink: &mut Netlink, a: &str, b: &str) -> bool {
        // IFLA_LINKINFO { IFLA_INFO_KIND "veth", IFLA_INFO_DATA { VETH_INFO_PEER { ifinfomsg, IFLA_IFNAME } } }
        let name = |name: &str| [name.as_bytes(), &[0]].concat();
        let nested = |kind: u16, value: &[u8]| {
            let mut out = [&(value.len() as u16 + 4).to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat();
            out.resize(out.len().next_multiple_of(4), 0);
            out
        };
        let peer = [&ifinfo(0, 0)[..], &nested(IFLA_IFNAME, &name(b))].concat();
        let info = [nested(1, b"veth"), nested(2, &nested(1, &peer))].concat();
        let request = Request::new(libc::RTM_NEWLINK, libc::NLM_F_CREATE | libc::NLM_F_EXCL, &ifinfo(0, 0))
            .attribute(IFLA_IFNAME, &name(a))
            .attribute(18, &info);
        netlink.request("RTM_NEWLINK", &request).is_ok()
    }

    fn index(netlink: &mut Netlink, name: &str) -> Option<i32> {
        links(netlink).expect("links").into_iter().find(|link| link.name == name).map(|link| link.index)
    }

    fn add(netlink: &mut Netlink, index: i32, last: u8) {
        let address = Address {
            family: 2,
            prefix: 24,
            flags: 0,
            attributes: vec![(IFA_LOCAL, vec![10, 1, 1, last]), (IFA_ADDRESS, vec![10, 1, 1, last])],
        };
        netlink.request("RTM_NEWADDR", &address.request(index)).expect("address");
    }

    fn device(host: &str, container: &str) -> NetDevice {
        NetDevice { host: host.to_owned(), container: container.to_owned() }
    }

    fn flags(netlink: &mut Netlink, name: &str) -> u32 {
        let dump = Request::new(libc::RTM_GETLINK, libc::NLM_F_DUMP, &ifinfo(0, 0));
        let list = netlink.request("RTM_GETLINK", &dump).expect("links");
        let body = list
            .into_iter()
            .find(|message| {
                attributes(&message.body, IFINFO).any(|(kind, value)| {
                    kind == IFLA_IFNAME && value.strip_suffix(&[0]) == Some(name.as_bytes())
                })
            })
            .expect("the link")
            .body;
        u32_at(&body, 8).expect("flags")
    }

    #[test]
    fn loopback_comes_up() {
        if new_namespace().is_none() {
            return;
        }
        let mut netlink = Netlink::open().expect("netlink");
        assert_eq!(flags(&mut netlink, "lo") & 1, 0);
        crate::sys::netlink::loopback_up().expect("up");
        assert_eq!(flags(&mut netlink, "lo") & 1, 1);
    }

    #[test]
    fn devices_move_with_their_addresses() {
        let Some(container) = new_namespace() else { return };
        let mut there = Netlink::open().expect("netlink");
        if new_namespace().is_none() {
            return;
        }
        let mut here = Netlink::open().expect("netlink");
        if !make_pair(&mut here, "va", "vb") {
            return;
        }
        assert!(make_pair(&mut there, "va", "taken"), "a second pair");
        let va = index(&mut here, "va").expect("va");
        add(&mut here, va, 5);
        add(&mut here, va, 6);

        let e = move_all(&[device("va", "taken")], container.as_fd()).expect_err("name in use").to_string();
        assert!(e.contains("linux.netDevices.\"va\"") && e.contains("already exists"), "{e}");
        let e = move_all(&[device("nowhere", "x")], container.as_fd()).expect_err("absent").to_string();
        assert!(e.contains("no such network device"), "{e}");
        assert_eq!(index(&mut here, "va"), Some(va), "nothing moved");

        // "va" is in use there, so the new name has to come with the move.
        move_all(&[device("va", "eth7"), device("vb", "va%d")], container.as_fd()).expect("moved");
        assert_eq!((index(&mut here, "va"), index(&mut here, "vb")), (None, None));
        let eth7 = index(&mut there, "eth7").expect("eth7");
        assert!(index(&mut there, "va0").is_some());
        assert_eq!(flags(&mut there, "eth7") & 1, 1);
        assert_eq!(flags(&mut there, "va0") & 1, 1);
        let list = addresses(&mut there, eth7).expect("addresses");
        let locals: Vec<_> = list
            .iter()
            .flat_map(|address| &address.attributes)
            .filter(|(kind, _)| *kind == IFA_LOCAL)
            .map(|(_, value)| value.clone())
            .collect();
        assert_eq!(locals, [[10, 1, 1, 5], [10, 1, 1, 6]]);
    }
}
