//! Real networks, in a network namespace of each test's own: a "host" with a link to an "outside" that has no route to
//! any container. They need root; `nft` and `iptables` are asked where they are installed.

#![forbid(unsafe_code)]

use super::*;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// The host's address towards the outside, and the outside's.
const HOST: &str = "10.99.0.1";
const OUTSIDE: &str = "10.99.0.2";
const PATIENCE: Duration = Duration::from_secs(5);
/// How long nothing has to come for it to be dropped.
const SILENCE: Duration = Duration::from_millis(300);

struct World {
    dir: PathBuf,
    home: Home,
    networks: Networks,
    outside: Netns,
    /// The number of the outside's link.
    eth0: u32,
}

impl Drop for World {
    fn drop(&mut self) {
        for entry in fs::read_dir(self.dir.join("ns")).into_iter().flatten().flatten() {
            let _ = remove_netns(&entry.path());
        }
        let _ = home::remove_tree(&self.dir);
    }
}

/// Runs `test` in network and mount namespaces of its own.
fn alone(name: &str, test: impl FnOnce(&World) + Send) {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: {name} needs root");
        return;
    }
    std::thread::scope(|scope| {
        let ran = scope.spawn(|| {
            use rustix::mount::{MountPropagationFlags, mount_change};
            use rustix::thread::UnshareFlags;
            #[expect(deprecated, reason = "neither flag touches memory or file descriptors")]
            rustix::thread::unshare(UnshareFlags::NEWNET | UnshareFlags::NEWNS).expect("unshare");
            mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
                .expect("make private");
            test(&world(name));
        });
        if let Err(panic) = ran.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

fn world(name: &str) -> World {
    let dir = std::env::temp_dir().join(format!("rrunctl-{name}-{}", home::unique().expect("random")));
    let home = Home::open(&dir.join("root"), &dir.join("run")).expect("a home");
    fs::create_dir(dir.join("ns")).expect("mkdir");
    let path = dir.join("ns/outside");
    make_netns(&path).expect("netns");
    let outside = Netns::open(&path).expect("netns");
    let mut route = Socket::route().expect("socket");
    route.set_up(1).expect("lo");
    route.add_bridge("up0", [2, 0, 0, 0, 0, 1], 1500).expect("bridge");
    let bridge = route.link("up0").expect("links").expect("up0");
    route.add_address(bridge.index, HOST.parse().expect("ip"), 24).expect("address");
    let veth = route::Veth {
        name: "up1",
        bridge: bridge.index,
        peer: "eth0",
        isolated: false,
        mac: [2, 0, 0, 0, 0, 2],
        mtu: 1500,
        netns: std::os::fd::AsFd::as_fd(outside.file()),
    };
    route.add_veth(&veth).expect("veth");
    let mut there = outside.enter(Socket::route).expect("socket");
    let eth0 = there.link("eth0").expect("links").expect("eth0").index;
    there.configure(eth0, &[(OUTSIDE.parse().expect("ip"), 24)], &[]).expect("configure");
    route.set_default(OUTSIDE.parse().expect("ip"), bridge.index).expect("route");
    let networks = Networks::open(&home, Config::default()).expect("networks");
    World { dir, home, networks, outside, eth0 }
}

/// A container that is attached.
struct Container {
    id: String,
    netns: Netns,
    path: PathBuf,
    endpoint: Endpoint,
}

impl Container {
    fn ip(&self) -> IpAddr {
        self.endpoint.ipv4.as_ref().expect("IPv4").ip
    }
}

fn published(texts: &[&str]) -> Vec<PublishedPort> {
    texts
        .iter()
        .map(|text| {
            let mut parts = text.rsplitn(3, ':');
            let (port, host_port, ip) = (parts.next(), parts.next(), parts.next());
            PublishedPort::parse(port.expect("a port"), ip.unwrap_or_default(), host_port.unwrap_or_default())
                .expect("a port")
        })
        .collect()
}

impl World {
    fn try_attach(
        &self,
        id: &str,
        network: &str,
        ports: &[&str],
        settings: &EndpointSettings,
    ) -> Result<Container> {
        let path = self.dir.join("ns").join(id);
        if !path.exists() {
            make_netns(&path)?;
        }
        let ports = published(ports);
        let asked = Attachment {
            container: id,
            name: id,
            hostname: id,
            netns: &path,
            network,
            settings,
            ports: &ports,
        };
        let endpoint = self.networks.attach(&asked)?;
        Ok(Container { id: id.into(), netns: Netns::open(&path)?, path, endpoint })
    }

    fn attach(&self, id: &str, network: &str, ports: &[&str]) -> Container {
        self.try_attach(id, network, ports, &EndpointSettings::default()).expect("attach")
    }

    fn create(&self, name: &str, change: impl FnOnce(&mut CreateNetwork)) -> Network {
        let mut asked = CreateNetwork { name: name.into(), ..CreateNetwork::default() };
        change(&mut asked);
        self.networks.create(&asked).expect("create")
    }
}

/// Answers every connection, and every datagram, with the address that it came from.
fn serve(netns: Option<&Netns>, at: &str) {
    let at: SocketAddr = at.parse().expect("an address");
    let bind = || Ok((TcpListener::bind(at)?, UdpSocket::bind(at)?));
    let (tcp, udp) = match netns {
        Some(netns) => netns.enter(bind).expect("bind"),
        None => bind().expect("bind"),
    };
    std::thread::spawn(move || {
        for stream in tcp.incoming().flatten() {
            let mut stream = stream;
            let from = stream.peer_addr().map(|from| from.ip().to_string()).unwrap_or_default();
            let _ = stream.write_all(from.as_bytes());
        }
    });
    std::thread::spawn(move || {
        let mut bytes = [0; 64];
        while let Ok((_, from)) = udp.recv_from(&mut bytes) {
            let _ = udp.send_to(from.ip().to_string().as_bytes(), from);
        }
    });
}

fn tcp(to: SocketAddr, patience: Duration) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&to, patience)?;
    stream.set_read_timeout(Some(patience))?;
    let mut said = String::new();
    stream.read_to_string(&mut said)?;
    Ok(said)
}

fn udp(to: SocketAddr, patience: Duration) -> Result<String> {
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any)?;
    socket.set_read_timeout(Some(patience))?;
    socket.send_to(b"who", to)?;
    let mut bytes = [0; 64];
    let (length, from) = socket.recv_from(&mut bytes)?;
    assert_eq!(from, to, "the answer is from another address");
    Ok(String::from_utf8_lossy(&bytes[..length]).into_owned())
}

type Ask = fn(SocketAddr, Duration) -> Result<String>;

/// What a server says to a client in `netns`, or on the host.
#[track_caller]
fn said(netns: Option<&Netns>, ask: Ask, to: &str) -> String {
    let to: SocketAddr = to.parse().expect("an address");
    let answer = match netns {
        Some(netns) => netns.enter(|| ask(to, PATIENCE)),
        None => ask(to, PATIENCE),
    };
    match answer {
        Ok(answer) => answer,
        Err(e) => panic!("{to}: {e}\n{}", nft(&["list", "ruleset"]).unwrap_or_default()),
    }
}

fn is_silent(netns: Option<&Netns>, ask: Ask, to: &str) -> bool {
    let to: SocketAddr = to.parse().expect("an address");
    match netns {
        Some(netns) => netns.enter(|| ask(to, SILENCE)).is_err(),
        None => ask(to, SILENCE).is_err(),
    }
}

fn run(command: &str) -> Option<String> {
    let mut words = command.split_whitespace();
    let done = Command::new(words.next().expect("a command")).args(words).output().ok()?;
    assert!(done.status.success(), "{command}: {}", String::from_utf8_lossy(&done.stderr));
    Some(String::from_utf8_lossy(&done.stdout).into_owned())
}

fn nft(arguments: &[&str]) -> Option<String> {
    match Command::new("nft").arg("-n").args(arguments).output() {
        Ok(done) => {
            assert!(done.status.success(), "nft: {}", String::from_utf8_lossy(&done.stderr));
            Some(String::from_utf8_lossy(&done.stdout).into_owned())
        }
        Err(e) => {
            eprintln!("skipped: nft: {e}");
            None
        }
    }
}

/// Without and with the bridges passing what stays within them to the rules (br_netfilter, which dockerd loads).
fn both_ways(name: &str, test: impl Fn(&World) + Send + Sync) {
    for call in ["0", "1"] {
        alone(name, |world| {
            for of in ["iptables", "ip6tables"] {
                if sysctl(&format!("bridge/bridge-nf-call-{of}"), call).is_err() && call == "1" {
                    eprintln!("skipped: {name} with br_netfilter: the kernel has none");
                    return;
                }
            }
            test(world);
        });
    }
}

#[test]
fn a_network_namespace_is_a_file_with_its_loopback_up() {
    alone("netns", |world| {
        let path = world.dir.join("ns/x");
        // What a killed call left: the file, and the file with a namespace on it.
        fs::write(&path, "").expect("write");
        make_netns(&path).expect("make");
        let before = fs::metadata(&path).expect("stat");
        make_netns(&path).expect("make again");
        let after = fs::metadata(&path).expect("stat");
        assert_ne!(std::os::unix::fs::MetadataExt::ino(&before), std::os::unix::fs::MetadataExt::ino(&after));
        let netns = Netns::open(&path).expect("open");
        serve(Some(&netns), "127.0.0.1:80");
        assert_eq!(said(Some(&netns), tcp, "127.0.0.1:80"), "127.0.0.1");
        assert!(is_silent(None, tcp, "127.0.0.1:80"));
        let mounts = fs::read_to_string("/proc/thread-self/mountinfo").expect("mountinfo");
        assert_eq!(
            mounts.lines().filter(|line| line.contains("/ns/x ") && line.contains(" nsfs ")).count(),
            1
        );
        for _ in 0..2 {
            remove_netns(&path).expect("remove");
            assert!(!path.exists());
        }
        assert!(make_netns(&world.dir.join("nowhere/x")).is_err());
    });
}

#[test]
fn containers_the_host_and_the_outside_reach_each_other() {
    both_ways("reach", |world| {
        let a = world.attach("a", "bridge", &[]);
        let b = world.attach("b", "bridge", &["8080:80/tcp", "8080:80/udp", "127.0.0.1:8081:80/tcp"]);
        serve(Some(&b.netns), "0.0.0.0:80");
        serve(None, "0.0.0.0:90");
        serve(Some(&world.outside), "0.0.0.0:91");
        assert_eq!((a.ip().to_string(), b.ip().to_string()), ("172.17.0.2".into(), "172.17.0.3".into()));
        assert_eq!(b.endpoint.mac, "02:42:ac:11:00:03");
        for ask in [tcp as Ask, udp] {
            assert_eq!(said(Some(&a.netns), ask, "172.17.0.3:80"), "172.17.0.2");
            assert_eq!(said(None, ask, "172.17.0.3:80"), "172.17.0.1");
            assert_eq!(said(Some(&a.netns), ask, "172.17.0.1:90"), "172.17.0.2");
            assert_eq!(said(Some(&a.netns), ask, &format!("{OUTSIDE}:91")), HOST);
            assert_eq!(said(Some(&world.outside), ask, &format!("{HOST}:8080")), OUTSIDE);
            assert_eq!(said(None, ask, "127.0.0.1:8080"), "172.17.0.1");
            assert_eq!(said(None, ask, &format!("{HOST}:8080")), HOST);
            // Another one on the same bridge, and itself, by the host's address.
            for from in [&a, &b] {
                for at in [HOST, "172.17.0.1"] {
                    assert!(said(Some(&from.netns), ask, &format!("{at}:8080")).starts_with("172.17.0."));
                }
            }
        }
        assert_eq!(said(None, tcp, "127.0.0.1:8081"), "172.17.0.1");
        for to in [format!("{HOST}:8081"), format!("{HOST}:80")] {
            assert!(is_silent(Some(&world.outside), tcp, &to), "{to}");
        }
        // A neighbour that sends to the container's own address by way of the host.
        let mut there = world.outside.enter(Socket::route).expect("socket");
        there.set_default(HOST.parse().expect("ip"), world.eth0).expect("route");
        for to in ["172.17.0.3:80", "172.17.0.2:80"] {
            assert!(is_silent(Some(&world.outside), tcp, to), "{to}");
        }
    });
}

#[test]
fn nobody_but_the_host_reaches_what_listens_at_127_0_0_1() {
    both_ways("martian", |world| {
        let a = world.attach("a", "bridge", &["127.0.0.1:8081:80/udp"]);
        let socket = |at: &str| -> Result<UdpSocket> {
            let socket = UdpSocket::bind(at)?;
            socket.set_read_timeout(Some(SILENCE))?;
            Ok(socket)
        };
        let on_host = socket("127.0.0.1:90").expect("bind");
        let inside = a.netns.enter(|| socket("0.0.0.0:80")).expect("bind");
        let receives = |socket: &UdpSocket| socket.recv(&mut [0; 64]).is_ok();
        let send = |port: u16| {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.send_to(b"x", ("127.0.0.1", port))?;
            Ok(())
        };
        send(90).expect("send");
        send(8081).expect("send");
        assert!(receives(&on_host) && receives(&inside));
        // One that has root in its namespace sends what it likes.
        for (netns, gateway, source) in
            [(&a.netns, "172.17.0.1", "172.17.0.2"), (&world.outside, HOST, OUTSIDE)]
        {
            netns
                .enter(|| {
                    run("ip route flush table local dev lo");
                    run(&format!("ip route add 127.0.0.1/32 via {gateway} src {source}"));
                    send(90)?;
                    send(8081)
                })
                .expect("attack");
            assert!(!receives(&on_host) && !receives(&inside), "{source}");
        }
        // The same without the rules, so that it is known to be an attack.
        if nft(&["flush", "chain", "ip", "rrun", "raw"]).is_some() {
            a.netns.enter(|| send(90)).expect("attack");
            assert!(receives(&on_host));
        }
        // For the outside's the rule is one of prerouting: translated, it would be routed on.
        if nft(&["flush", "chain", "ip", "rrun", "prerouting"]).is_some() {
            nft(&[
                "add",
                "rule",
                "ip",
                "rrun",
                "prerouting",
                "dnat",
                "to",
                "ip",
                "daddr",
                ".",
                "meta",
                "l4proto",
                ".",
                "th",
                "dport",
                "map",
                "@ports",
            ]);
            world.outside.enter(|| send(8081)).expect("attack");
            assert!(receives(&inside));
        }
    });
}

#[test]
fn networks_are_apart_and_an_internal_one_is_alone() {
    both_ways("apart", |world| {
        world.create("one", |_| {});
        world.create("two", |_| {});
        world.create("inner", |asked| asked.internal = true);
        world.create("shy", |asked| {
            asked.options.insert("com.docker.network.bridge.enable_icc".into(), "false".into());
        });
        let one = world.attach("a", "one", &[]);
        let two = world.attach("b", "two", &["8080:80"]);
        let inner = [world.attach("c", "inner", &["8081:80"]), world.attach("d", "inner", &[])];
        let shy = [world.attach("e", "shy", &[]), world.attach("f", "shy", &[])];
        for of in [&one, &two, &inner[0], &inner[1], &shy[0], &shy[1]] {
            serve(Some(&of.netns), "0.0.0.0:80");
        }
        serve(Some(&world.outside), "0.0.0.0:91");
        serve(None, "0.0.0.0:90");
        let at = |of: &Container| format!("{}:80", of.ip());
        assert!(is_silent(Some(&one.netns), tcp, &at(&two)) && is_silent(Some(&two.netns), udp, &at(&one)));
        // By a port of the host everybody may, who may leave at all.
        // As from the host: one that is in both networks would answer by its own way otherwise.
        let gateway = world.networks.resolve("two").expect("two").range(true).expect("range").gateway;
        assert_eq!(said(Some(&one.netns), tcp, &format!("{HOST}:8080")), gateway.to_string());
        assert!(
            inner[0].endpoint.ports.is_empty()
                && inner[0].endpoint.ipv4.as_ref().expect("v4").gateway.is_none()
        );
        assert_eq!(said(Some(&inner[0].netns), tcp, &at(&inner[1])), inner[0].ip().to_string());
        assert_eq!(said(Some(&one.netns), tcp, &format!("{OUTSIDE}:91")), HOST);
        // With a default route of its own making, too.
        let gateway = world.networks.resolve("inner").expect("inner").range(true).expect("range").gateway;
        let mut inside = inner[0].netns.enter(Socket::route).expect("socket");
        let link = inside.link("eth0").expect("links").expect("eth0").index;
        inside.set_default(gateway, link).expect("route");
        for to in [format!("{OUTSIDE}:91"), format!("{HOST}:8080"), at(&two)] {
            assert!(is_silent(Some(&inner[0].netns), tcp, &to), "{to}");
        }
        assert!(is_silent(Some(&one.netns), tcp, &at(&inner[0])));
        assert!(is_silent(Some(&shy[0].netns), tcp, &at(&shy[1])));
        assert_eq!(said(Some(&shy[0].netns), tcp, &format!("{OUTSIDE}:91")), HOST);
    });
}

#[test]
fn a_routed_network_is_reached_by_its_own_addresses() {
    alone("routed", |world| {
        let mode = |mode: &'static str| {
            move |asked: &mut CreateNetwork| {
                asked.options.insert("com.docker.network.bridge.gateway_mode_ipv4".into(), mode.into());
            }
        };
        world.create("routed", mode("routed"));
        world.create("open", mode("nat-unprotected"));
        let routed = world.attach("a", "routed", &["80"]);
        let open = world.attach("b", "open", &[]);
        for of in [&routed, &open] {
            serve(Some(&of.netns), "0.0.0.0:80");
            serve(Some(&of.netns), "0.0.0.0:81");
        }
        serve(Some(&world.outside), "0.0.0.0:91");
        let mut there = world.outside.enter(Socket::route).expect("socket");
        there.set_default(HOST.parse().expect("ip"), world.eth0).expect("route");
        assert_eq!(said(Some(&world.outside), tcp, &format!("{}:80", routed.ip())), OUTSIDE);
        assert!(is_silent(Some(&world.outside), tcp, &format!("{}:81", routed.ip())));
        assert_eq!(said(Some(&world.outside), tcp, &format!("{}:81", open.ip())), OUTSIDE);
        assert_eq!(said(Some(&routed.netns), tcp, &format!("{OUTSIDE}:91")), routed.ip().to_string());
        assert!(is_silent(Some(&open.netns), tcp, &format!("{}:81", routed.ip())));
    });
}

#[test]
fn ipv6_is_given_where_it_is_asked_for() {
    both_ways("six", |world| {
        if !Path::new("/proc/sys/net/ipv6").exists() {
            eprintln!("skipped: the kernel has no IPv6");
            return;
        }
        let network = world.create("six", |asked| {
            asked.ipv6 = true;
            asked.subnet = vec!["fd00:1::/64".into()];
        });
        let mut route = Socket::route().expect("socket");
        let up = route.link("up0").expect("links").expect("up0");
        sysctl("ipv6/conf/up0/disable_ipv6", "0").expect("sysctl");
        route.add_address(up.index, "fd00:9::1".parse().expect("ip"), 64).expect("address");
        let mut there = world.outside.enter(Socket::route).expect("socket");
        world.outside.enter(|| sysctl("ipv6/conf/eth0/disable_ipv6", "0")).expect("sysctl");
        there.add_address(world.eth0, "fd00:9::2".parse().expect("ip"), 64).expect("address");
        let a = world.attach("a", "six", &["8080:80/tcp", "8080:80/udp"]);
        let b = world.attach("b", "six", &[]);
        serve(Some(&a.netns), "[::]:80");
        serve(Some(&world.outside), "[::]:91");
        assert_eq!(network.range(false).expect("v6").gateway.to_string(), "fd00:1::1");
        assert_eq!(a.endpoint.ipv6.as_ref().expect("v6").ip.to_string(), "fd00:1::2");
        for ask in [tcp as Ask, udp] {
            assert_eq!(said(Some(&b.netns), ask, "[fd00:1::2]:80"), "fd00:1::3");
            assert_eq!(said(Some(&world.outside), ask, "[fd00:9::1]:8080"), "fd00:9::2");
            assert_eq!(said(Some(&b.netns), ask, "[fd00:9::2]:91"), "fd00:9::1");
            assert_eq!(said(None, ask, "[fd00:9::1]:8080"), "fd00:9::1");
            assert!(said(Some(&a.netns), ask, "[fd00:9::1]:8080").starts_with("fd00:1::"));
        }
        // Nothing translates this one: it arrives at the socket, which refuses until somebody listens there.
        let held = a.endpoint.held.iter().find(|held| held.proxy && held.port.protocol == Protocol::Tcp);
        let held = held.expect("a socket");
        assert_eq!(held.target.to_string(), "[fd00:1::2]:80");
        assert!(is_silent(None, tcp, "[::1]:8080"));
        rustix::net::listen(&held.fd, 1).expect("listen");
        assert!(TcpStream::connect_timeout(&"[::1]:8080".parse().expect("address"), PATIENCE).is_ok());
        // What sends router advertisements to a bridge is no router of the host's (CVE-2020-13401).
        let six = Path::new("/proc/sys/net/ipv6/conf");
        let setting = |link: &str, name: &str| {
            fs::read_to_string(six.join(link).join(name)).expect("a setting").trim().to_owned()
        };
        world.attach("d", "bridge", &[]);
        let of_six = world.networks.resolve("six").expect("six").link();
        for (link, disabled) in [("rrun0", "1"), (&*of_six, "0")] {
            assert_eq!(
                (setting(link, "accept_ra"), setting(link, "disable_ipv6")),
                ("0".into(), disabled.into())
            );
        }
        assert_eq!(setting("default", "accept_ra"), "1");
        // One without IPv6 has no address at all.
        let c = world.attach("c", "bridge", &[]);
        let mut inside = c.netns.enter(Socket::route).expect("socket");
        let six = inside.addresses().expect("addresses");
        assert!(six.iter().all(|(ip, _, _)| ip.is_ipv4() || ip.is_loopback()), "{six:?}");
    });
}

#[test]
fn a_port_is_one_containers() {
    alone("conflicts", |world| {
        let a = world.attach("a", "bridge", &["80:80", "127.0.0.1:81:80"]);
        let refused = |id: &str, ports: &[&str]| {
            let e =
                world.try_attach(id, "bridge", ports, &EndpointSettings::default()).err().expect("refused");
            assert!(world.networks.inspect("bridge").expect("inspect").containers.len() == 1, "{e}");
            e.to_string()
        };
        for (ports, at) in [
            (&["80:90"][..], "0.0.0.0:80"),
            (&["10.99.0.1:80:90"], "10.99.0.1:80"),
            (&["127.0.0.1:81:80"], "127.0.0.1:81"),
            (&["82:82", "81:90"], "0.0.0.0:81"),
        ] {
            let text = refused("b", ports);
            let tail = format!("): Bind for {at} failed: port is already allocated");
            assert!(
                text.starts_with("driver failed programming external connectivity on endpoint b ("),
                "{text}"
            );
            assert!(text.ends_with(&tail), "{text}");
        }
        let theirs = TcpListener::bind("0.0.0.0:83").expect("bind");
        let text = refused("b", &["83:80"]);
        assert!(text.ends_with("failed to bind host port for 0.0.0.0:83: address already in use"), "{text}");
        drop(theirs);
        // Nobody holds the socket: the map remembers, and who is refused takes nothing away from who has the port.
        drop(a.endpoint.held);
        serve(Some(&a.netns), "0.0.0.0:80");
        for _ in 0..2 {
            let text = refused("b", &["80:90"]);
            assert!(text.ends_with("Bind for 0.0.0.0:80 failed: port is already allocated"), "{text}");
            assert_eq!(said(Some(&world.outside), tcp, &format!("{HOST}:80")), OUTSIDE);
        }

        let c = world.attach("c", "bridge", &["80/udp", "7000-7001:1/tcp", "7000-7001:2/tcp"]);
        let numbers: Vec<(u16, u16)> =
            c.endpoint.ports.iter().map(|port| (port.container_port, port.host_port)).collect();
        assert!(ports::random_range().contains(&numbers[0].1));
        // The same number of both families.
        assert_eq!(numbers[0], numbers[1]);
        assert_eq!(numbers[2..], [(1, 7000), (1, 7000), (2, 7001), (2, 7001)]);
        let full = world.try_attach("d", "bridge", &["7000-7001:1"], &EndpointSettings::default());
        assert!(
            full.err()
                .expect("full")
                .to_string()
                .ends_with("Bind for 0.0.0.0:7001 failed: port is already allocated")
        );
        // Given back, it can be had again.
        world.networks.detach(&a.id, None).expect("detach");
        world.attach("e", "bridge", &["80:80"]);
    });
}

#[test]
fn who_was_killed_before_it_got_a_port_takes_it_from_nobody() {
    alone("loser", |world| {
        let a = world.attach("a", "bridge", &["80:80"]);
        serve(Some(&a.netns), "0.0.0.0:80");
        drop(a.endpoint.held);
        // The names sort the other way round.
        world.attach("0", "bridge", &[]);
        let network = world.networks.resolve("bridge").expect("bridge");
        let mut leases = Leases::read(&world.networks.leases_path(&network)).expect("read");
        let mut lease = leases.get("0").expect("get").expect("a lease");
        lease.ports = leases.get("a").expect("get").expect("a lease").ports;
        leases.put("0", &lease).expect("put");
        let still = || assert_eq!(said(Some(&world.outside), tcp, &format!("{HOST}:80")), OUTSIDE);
        world.networks.sweep(&|_| true).expect("sweep");
        still();
        world.networks.sweep(&|id| id == "a").expect("sweep");
        still();
        world.networks.detach("a", None).expect("detach");
        assert!(is_silent(Some(&world.outside), tcp, &format!("{HOST}:80")));
    });
}

#[test]
fn a_table_that_stands_is_whole() {
    alone("whole", |_| {
        let forward = |at: &str, port| Forward {
            bridge: "rrun0".into(),
            at: Some(at.parse().expect("ip")),
            port,
            protocol: Protocol::Tcp,
            to: "172.17.0.2:80".parse().expect("address"),
            routed: false,
        };
        let mut firewall = Firewall::open(Path::new("/")).expect("socket");
        // An address of the other family is no key, so that the kernel refuses it.
        firewall.rebuild(Family::V4, &[], &[forward("fd00::1", 80)]).expect_err("refused");
        assert!(!firewall.stands(Family::V4).expect("get"));
        let many: Vec<Forward> = (1..20_000).map(|port| forward("10.0.0.1", port)).collect();
        firewall.rebuild(Family::V4, &[], &many).expect("rebuild");
        assert!(firewall.stands(Family::V4).expect("get"));
        if let Some(text) = nft(&["list", "map", "ip", "rrun", "ports"]) {
            assert_eq!(text.matches("10.0.0.1").count(), many.len());
        }
        firewall.remove(Family::V4).expect("remove");
    });
}

#[test]
fn nobody_is_attached_while_the_tables_are_made() {
    alone("tables", |world| {
        world.attach("a", "bridge", &[]);
        let network = world.networks.resolve("bridge").expect("bridge");
        let is_known =
            || Leases::read(&world.networks.leases_path(&network)).expect("read").entry("b").is_some();
        // Who makes them has read the leases.
        let tables = world.networks.lock_firewall().expect("lock");
        std::thread::scope(|scope| {
            let attached = scope.spawn(|| world.attach("b", "bridge", &["80:80"]));
            let until = Instant::now() + SILENCE;
            while Instant::now() < until && !attached.is_finished() {
                std::thread::sleep(Duration::from_millis(10));
            }
            let early = is_known();
            drop(tables);
            attached.join().expect("attached");
            assert!(!early && is_known());
        });
    });
}

#[test]
fn a_link_of_somebody_elses_is_not_taken_for_the_bridge() {
    alone("stranger", |world| {
        let network = world.create("net", |asked| {
            asked.options.insert("com.docker.network.bridge.name".into(), "lan0".into());
        });
        let mut route = Socket::route().expect("socket");
        let mut link = || route.link("lan0").expect("links");
        assert!(link().is_some() && network.link() == "lan0");
        // A boot takes ours, and somebody makes theirs.
        run("ip link del lan0");
        run("ip link add lan0 type bridge");
        let theirs = link();
        let e = world.try_attach("a", "net", &[], &EndpointSettings::default()).err().expect("refused");
        assert!(e.to_string().starts_with("lan0 is there and is not the bridge of the network net"), "{e}");
        world.networks.sweep(&|_| true).expect("sweep");
        world.networks.remove("net").expect("remove");
        assert_eq!(link(), theirs);
        let addresses = run("ip -4 addr show lan0").unwrap_or_default();
        assert!(!addresses.contains("inet "), "{addresses}");
    });
}

#[test]
fn addresses_are_the_networks_and_stay_with_the_container() {
    alone("addresses", |world| {
        world.create("net", |asked| asked.subnet = vec!["10.5.0.0/24".into()]);
        let ip =
            |ip: &str| EndpointSettings { ip: Some(ip.parse().expect("ip")), ..EndpointSettings::default() };
        let a = world.try_attach("a", "net", &[], &ip("10.5.0.77")).expect("attach");
        assert_eq!((a.ip().to_string(), a.endpoint.mac.as_str()), ("10.5.0.77".into(), "02:42:0a:05:00:4d"));
        assert_eq!(a.endpoint.ipv4.as_ref().expect("v4").gateway, Some("10.5.0.1".parse().expect("ip")));
        let refused = |id, network, settings| {
            world.try_attach(id, network, &[], &settings).err().expect("refused").to_string()
        };
        assert_eq!(refused("b", "net", ip("10.5.0.77")), "Address already in use");
        assert_eq!(refused("b", "net", ip("10.6.0.1")), "no configured subnet contains IP address 10.6.0.1");
        assert_eq!(
            refused("b", "bridge", ip("172.17.0.9")),
            "user specified IP address is supported on user defined networks only"
        );
        assert_eq!(
            refused("a", "net", EndpointSettings::default()),
            "endpoint with name a already exists in network net"
        );
        assert_eq!(refused("b", "nowhere", EndpointSettings::default()), "network nowhere not found");
        let b = world.attach("b", "net", &[]);
        world.networks.detach("b", None).expect("detach");
        world.networks.detach("b", None).expect("detach twice");
        let c = world.attach("c", "net", &[]);
        assert_eq!(world.attach("b", "net", &[]).ip(), b.ip());
        assert_ne!(c.ip(), b.ip());
        world.networks.release("b").expect("release");
        assert_eq!(world.attach("d", "net", &[]).ip(), b.ip());
        let seen = world.networks.inspect("net").expect("inspect");
        assert_eq!(seen.containers["a"].ipv4_address, "10.5.0.77/24");
        assert_eq!(seen.containers.len(), 3);
        let host = world.try_attach("x", "host", &[], &EndpointSettings::default()).expect("host");
        assert!(host.endpoint.ipv4.is_none() && host.endpoint.interface.is_empty());
    });
}

#[test]
fn a_container_in_two_networks_goes_out_by_the_one_that_is_left() {
    alone("two", |world| {
        world.create("one", |_| {});
        world.create("two", |_| {});
        serve(Some(&world.outside), "0.0.0.0:91");
        let out = format!("{OUTSIDE}:91");
        let one = world.attach("a", "one", &[]);
        let two = world.attach("a", "two", &[]);
        assert_eq!((one.endpoint.interface.as_str(), two.endpoint.interface.as_str()), ("eth0", "eth1"));
        assert_eq!(said(Some(&one.netns), tcp, &out), HOST);
        world.networks.detach("a", Some("one")).expect("detach");
        assert_eq!(said(Some(&one.netns), tcp, &out), HOST);
        world.networks.detach("a", Some("two")).expect("detach");
        assert!(is_silent(Some(&one.netns), tcp, &out));
        assert_eq!(world.attach("a", "one", &[]).ip(), one.ip());
    });
}

#[test]
fn networks_are_made_listed_and_removed_in_dockers_words() {
    alone("life", |world| {
        let names = |networks: &Networks| {
            networks.list().expect("list").into_iter().map(|network| network.name).collect::<Vec<_>>()
        };
        assert_eq!(names(&world.networks), ["bridge", "host", "none"]);
        let first = world.create("first", |_| {});
        assert_eq!(first.ipam.config[0].subnet, "172.18.0.0/16");
        assert_eq!(first.ipam.config[0].gateway, "172.18.0.1");
        let second = world.create("second", |asked| asked.mtu = Some(1400));
        assert_eq!(second.ipam.config[0].subnet, "172.19.0.0/16");
        let link = Socket::route().expect("socket").link(&second.link()).expect("links").expect("a link");
        assert_eq!((link.mtu, link.name), (1400, format!("br-{}", &second.id[..12])));
        let refused = |name: &str, subnet: &str| {
            let subnet = Some(subnet.to_owned()).filter(|subnet| !subnet.is_empty());
            let asked = CreateNetwork {
                name: name.into(),
                subnet: subnet.into_iter().collect(),
                ..CreateNetwork::default()
            };
            world.networks.create(&asked).expect_err("refused").to_string()
        };
        assert_eq!(refused("first", ""), "network with name first already exists");
        assert_eq!(refused("x", "172.18.128.0/24"), "Pool overlaps with other one on this address space");
        let remove =
            |name: &str| world.networks.remove(name).map(|network| network.name).map_err(|e| e.to_string());
        for name in ["bridge", "host", "none"] {
            assert_eq!(remove(name), Err(format!("{name} is a pre-defined network and cannot be removed")));
        }
        assert_eq!(remove("x"), Err("network x not found".into()));
        let a = world.attach("a", &first.id[..8], &["80:80"]);
        let short = &a.endpoint.endpoint_id[..12];
        let text = format!(
            "error while removing network: network first has active endpoints (name:\"a\" id:\"{short}\")"
        );
        assert_eq!(remove("first"), Err(text));
        // What is opened again is the same.
        let again = Networks::open(&world.home, Config::default()).expect("open");
        assert_eq!(names(&again), ["bridge", "first", "host", "none", "second"]);
        assert_eq!(again.prune(&|_| true).expect("prune"), ["second"]);
        world.networks.detach("a", None).expect("detach");
        assert_eq!(remove("first"), Ok("first".into()));
        is_empty();
        let files: Vec<_> = fs::read_dir(&world.networks.dir)
            .expect("readdir")
            .map(|entry| entry.expect("entry").file_name().into_string().expect("utf-8"))
            .filter(|name| name.starts_with(&first.id) || name.starts_with(&second.id))
            .collect();
        assert!(files.is_empty(), "{files:?}");
    });
}

#[test]
fn two_engines_do_not_share_a_host() {
    alone("engines", |world| {
        let a = world.attach("a", "bridge", &["8080:80"]);
        serve(Some(&a.netns), "0.0.0.0:80");
        let home = Home::open(&world.dir.join("other"), &world.dir.join("other-run")).expect("a home");
        let other = Networks::open(&home, Config::default()).expect("networks");
        let refused = other
            .create(&CreateNetwork { name: "net".into(), ..CreateNetwork::default() })
            .expect_err("refused");
        assert!(refused.to_string().contains("that of an engine with another --root"), "{refused}");
        // What it takes down and makes anew is its own.
        other.sweep(&|_| true).expect("sweep");
        other.mend_firewall(true).expect("mend");
        other.prune(&|_| true).expect("prune");
        assert_eq!(said(Some(&world.outside), tcp, &format!("{HOST}:8080")), OUTSIDE);
        world.networks.detach("a", None).expect("detach");
        world.networks.prune(&|_| true).expect("prune");
        other.create(&CreateNetwork { name: "net".into(), ..CreateNetwork::default() }).expect("create");
    });
}

/// Nothing of the engine stands on the host.
fn is_empty() {
    let mut route = Socket::route().expect("socket");
    let mut links: Vec<String> =
        route.links(None).expect("links").into_iter().map(|link| link.name).collect();
    links.retain(|name| name.starts_with("br-") || name.starts_with("veth") || name.starts_with("rrun"));
    assert!(links.is_empty(), "{links:?}");
    let mut firewall = Firewall::open(Path::new("/")).expect("socket");
    for family in [Family::V4, Family::V6] {
        assert_eq!(firewall.table(family).expect("get"), firewall::Table::Missing);
    }
    if let Some(ruleset) = nft(&["list", "ruleset"]) {
        assert_eq!(ruleset, "");
    }
}

#[test]
fn what_a_kill_left_is_found() {
    alone("kill", |world| {
        let a = world.attach("a", "bridge", &["80:80/tcp", "81:81/udp"]);
        let b = world.attach("b", "bridge", &["90:90/tcp"]);
        let network = world.networks.resolve("bridge").expect("bridge");
        let path = world.networks.leases_path(&network);
        let set = |id: &str, state: leases::State| {
            Leases::read(&path).expect("read").set(id, state).expect("set");
        };
        // At every step of an attempt: the lease is written, and what follows is there or not.
        drop((a.endpoint.held, b.endpoint.held));
        let lease = Leases::read(&path).expect("read").get("a").expect("get").expect("a lease");
        let forwards: Vec<Forward> = endpoint::forwards(&network, &lease).collect();
        for step in 0..3 {
            set("a", leases::State::Making);
            if step > 0 {
                Socket::route().expect("socket").remove_link(&lease.veth).expect("remove");
            }
            if step > 1 {
                world.networks.host.firewall().expect("socket").take_back(&forwards[..1]).expect("take back");
            }
            let again = world.attach("a", "bridge", &["80:80/tcp", "81:81/udp"]);
            assert_eq!(again.ip(), a.netns.enter(|| Ok(again.ip())).expect("netns"));
            serve(Some(&again.netns), &format!("{}:{}", again.ip(), 80 + step * 1000 / 500));
            drop(again);
        }
        // Who is not alive has nothing afterwards, and who is has all.
        let stray = Socket::route().expect("socket").links(None).expect("links");
        assert_eq!(stray.iter().filter(|link| link.name.starts_with("veth")).count(), 2);
        serve(Some(&b.netns), "0.0.0.0:90");
        nft(&["flush", "chain", "ip", "rrun", "prerouting"]);
        world.networks.sweep(&|id| id == "b").expect("sweep");
        assert_eq!(said(Some(&world.outside), tcp, &format!("{HOST}:90")), OUTSIDE);
        let links = Socket::route().expect("socket").links(None).expect("links");
        assert_eq!(links.iter().filter(|link| link.name.starts_with("veth")).count(), 1);
        let seen = world.networks.inspect("bridge").expect("inspect");
        assert_eq!(seen.containers.keys().collect::<Vec<_>>(), ["b"]);
        // Without its file, a link of our bridge is a stray.
        home::remove_tree(&path).expect("remove");
        world.networks.sweep(&|_| true).expect("sweep");
        world.networks.prune(&|_| true).expect("prune");
        is_empty();
    });
}

#[test]
fn a_flow_from_before_goes_where_the_port_is_now() {
    alone("flows", |world| {
        let mut first = world.attach("first", "bridge", &["8080:80/udp"]);
        serve(Some(&first.netns), "0.0.0.0:80");
        let client = world.outside.enter(|| Ok(UdpSocket::bind("0.0.0.0:4000")?)).expect("bind");
        client.set_read_timeout(Some(PATIENCE)).expect("timeout");
        let ask = || {
            client.send_to(b"who", (HOST, 8080)).expect("send");
            client.recv(&mut [0; 64])
        };
        ask().expect("an answer");
        world.networks.detach("first", None).expect("detach");
        first.endpoint.held.clear();
        // Somebody else has the address now, so that what goes on as before is lost.
        let stranger = EndpointSettings { mac: "02:42:00:00:00:99".into(), ..EndpointSettings::default() };
        world.networks.release("first").expect("release");
        let stranger = world.try_attach("stranger", "bridge", &[], &stranger).expect("attach");
        assert_eq!(stranger.ip(), first.ip());
        // Nobody is there: this one is for the host, and is remembered so.
        client.send_to(b"who", (HOST, 8080)).expect("send");
        let second = world.attach("second", "bridge", &["8080:80/udp"]);
        serve(Some(&second.netns), "0.0.0.0:80");
        ask().expect("an answer");
    });
}

/// What is killed by the next test.
#[test]
#[ignore = "started by a_kill_at_any_instant_leaves_nothing_that_is_not_found"]
fn attach_and_detach_for_ever() {
    let Some(dir) = std::env::var_os("RRUNCTL_TEST_KILL").map(PathBuf::from) else { return };
    let home = Home::open(&dir.join("root"), &dir.join("run")).expect("a home");
    let networks = Networks::open(&home, Config::default()).expect("networks");
    let ports = published(&["8080:80/tcp", "8081:81/udp", "127.0.0.1:8082:82/tcp"]);
    let (settings, path) = (EndpointSettings::default(), dir.join("ns/k"));
    let asked = Attachment {
        container: "k",
        name: "k",
        hostname: "k",
        netns: &path,
        network: "killed",
        settings: &settings,
        ports: &ports,
    };
    for _ in 0..1000 {
        let _ = networks.create(&CreateNetwork { name: "killed".into(), ..CreateNetwork::default() });
        let _ = networks.attach(&asked);
        let _ = networks.detach("k", None);
        let _ = networks.remove("killed");
    }
}

#[test]
fn a_kill_at_any_instant_leaves_nothing_that_is_not_found() {
    alone("kills", |world| {
        make_netns(&world.dir.join("ns/k")).expect("netns");
        let mut found = [0; 2];
        let mut n = 0;
        while n < 25 || found[1] < 5 {
            assert!(n < 200, "no kill came at a time that matters");
            let mut child = Command::new(std::env::current_exe().expect("this program"))
                .args(["--ignored", "--exact", "network::tests::attach_and_detach_for_ever"])
                .env("RRUNCTL_TEST_KILL", &world.dir)
                .stdout(std::process::Stdio::null())
                .spawn()
                .expect("spawn");
            // Not for luck: whatever instant it is, what follows has to hold.
            std::thread::sleep(Duration::from_millis(20 + n * 13 % 97 + n));
            child.kill().expect("kill");
            child.wait().expect("wait");
            let veths = Socket::route().expect("socket").links(None).expect("links");
            found[usize::from(veths.iter().any(|link| link.name.starts_with("veth")))] += 1;
            if n % 2 == 0 {
                world.networks.sweep(&|_| false).expect("sweep");
            }
            let network = match world.networks.resolve("killed") {
                Ok(network) => network,
                Err(_) => world.create("killed", |_| {}),
            };
            let attach =
                || world.try_attach("k", &network.id, &["8080:80/tcp"], &EndpointSettings::default());
            let attached = attach().or_else(|e| {
                // The kill came after all was done, and nobody has swept.
                assert_eq!(e.to_string(), "endpoint with name k already exists in network killed");
                world.networks.detach("k", None)?;
                attach()
            });
            let k = attached.expect("attach");
            if n == 0 {
                serve(Some(&k.netns), "0.0.0.0:80");
            }
            assert_eq!(said(Some(&world.outside), tcp, &format!("{HOST}:8080")), OUTSIDE);
            world.networks.detach("k", None).expect("detach");
            world.networks.remove("killed").expect("remove");
            is_empty();
            n += 1;
        }
        eprintln!("killed with a veth standing: {}, without: {}", found[1], found[0]);
    });
}

#[test]
fn many_at_a_time_get_addresses_and_ports_of_their_own() {
    alone("many", |world| {
        world.create("one", |_| {});
        world.create("two", |_| {});
        let all = std::sync::Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for thread in 0..6 {
                let all = &all;
                scope.spawn(move || {
                    let own = format!("own{thread}");
                    for n in 0..4 {
                        // Others' tables come and go meanwhile.
                        world.create(&own, |_| {});
                        for network in ["one", "two"] {
                            let id = format!("c{thread}x{n}{network}");
                            let container = world.attach(&id, network, &["80"]);
                            let port = container.endpoint.ports[0].host_port;
                            all.lock().expect("lock").push((container.ip(), port, container));
                        }
                        world.networks.remove(&own).expect("remove");
                    }
                });
            }
        });
        let all = all.into_inner().expect("lock");
        let ips: std::collections::HashSet<_> = all.iter().map(|one| one.0).collect();
        let ports: std::collections::HashSet<_> = all.iter().map(|one| one.1).collect();
        assert_eq!((ips.len(), ports.len()), (48, 48));
        for (_, port, container) in &all {
            serve(Some(&container.netns), "0.0.0.0:80");
            assert_eq!(said(Some(&world.outside), tcp, &format!("{HOST}:{port}")), OUTSIDE);
            world.networks.detach(&container.id, None).expect("detach");
        }
        world.networks.prune(&|_| true).expect("prune");
        is_empty();
    });
}

#[test]
fn what_somebody_flushed_is_made_again() {
    alone("flush", |world| {
        world.create("other", |_| {});
        let a = world.attach("a", "bridge", &["80:80"]);
        serve(Some(&a.netns), "0.0.0.0:80");
        world.networks.host.firewall().expect("socket").remove(Family::V4).expect("remove");
        world.attach("b", "other", &[]);
        assert_eq!(said(Some(&world.outside), tcp, &format!("{HOST}:80")), OUTSIDE);
        // Also where nobody is attached: a timer sees to it.
        world.networks.host.firewall().expect("socket").remove(Family::V4).expect("remove");
        assert!(is_silent(Some(&world.outside), tcp, &format!("{HOST}:80")));
        assert_eq!(world.networks.mend_firewall(false).expect("mend"), Vec::<String>::new());
        assert_eq!(said(Some(&world.outside), tcp, &format!("{HOST}:80")), OUTSIDE);
        if let Some(text) = nft(&["list", "set", "ip", "rrun", "bridges"]) {
            assert!(text.contains("rrun0") && text.contains("br-"), "{text}");
        }
    });
}

#[test]
fn the_bridge_does_not_take_what_the_host_has() {
    alone("clash", |world| {
        let addresses =
            |networks: &Networks| networks.resolve("bridge").expect("bridge").ipam.config[0].clone();
        assert_eq!(addresses(&world.networks).subnet, "172.17.0.0/16");
        // dockerd comes later.
        let mut route = Socket::route().expect("socket");
        route.add_bridge("docker0", [2, 0, 0, 0, 0, 3], 1500).expect("bridge");
        let docker = route.link("docker0").expect("links").expect("docker0");
        route.add_address(docker.index, "172.17.0.1".parse().expect("ip"), 16).expect("address");
        let a = world.attach("a", "bridge", &[]);
        assert_eq!(a.ip().to_string(), "172.18.0.2");
        // While somebody is in it, it stays.
        world.attach("b", "bridge", &[]);
        assert_eq!(addresses(&world.networks).gateway, "172.18.0.1");
        let config = Config::new(Some("10.7.0.1/24"), []).expect("config");
        let networks = Networks::open(&world.home, config).expect("open");
        world.networks.detach("a", None).expect("detach");
        world.networks.detach("b", None).expect("detach");
        networks.prune(&|_| true).expect("prune");
        let path = a.path.clone();
        let settings = EndpointSettings::default();
        let asked = Attachment {
            container: "a",
            name: "a",
            hostname: "a",
            netns: &path,
            network: "bridge",
            settings: &settings,
            ports: &[],
        };
        let moved = networks.attach(&asked).expect("attach");
        assert_eq!(moved.ipv4.expect("v4").ip.to_string(), "10.7.0.2");
    });
}

#[test]
fn settings_are_read_as_the_daemon_reads_them() {
    let config = Config::new(Some("172.26.0.1/16"), [("172.17.0.1/16", 24)]).expect("config");
    assert_eq!(config.pools[0].base.to_string(), "172.17.0.0/16");
    assert_eq!(config.bip.expect("bip").0.to_string(), "172.26.0.1");
    assert!(Config::new(Some("172.26.0.0/16"), []).is_err());
    assert!(Config::new(None, [("10.0.0.0/16", 8)]).is_err());
    assert!(Config::new(Some("x"), []).is_err());
}

#[test]
fn another_firewall_that_drops_is_passed_or_named() {
    alone("foreign", |world| {
        if Command::new("iptables-nft").arg("-V").output().is_err() {
            eprintln!("skipped: iptables-nft is not installed");
            return;
        }
        run("iptables-nft -P FORWARD DROP");
        serve(Some(&world.outside), "0.0.0.0:91");
        let out = format!("{OUTSIDE}:91");
        let a = world.attach("a", "bridge", &[]);
        assert_eq!(a.endpoint.warnings.len(), 1);
        let warning = &a.endpoint.warnings[0];
        assert!(warning.contains("iptables -I FORWARD -i rrun0 -j ACCEPT"), "{warning}");
        assert!(is_silent(Some(&a.netns), tcp, &out));
        run("iptables-nft -N DOCKER-USER");
        run("iptables-nft -I FORWARD -j DOCKER-USER");
        for id in ["b", "c"] {
            let b = world.attach(id, "bridge", &["8080:80"].as_slice()[..usize::from(id == "b")]);
            assert!(b.endpoint.warnings.is_empty());
            assert_eq!(said(Some(&b.netns), tcp, &out), HOST);
            if id == "b" {
                serve(Some(&b.netns), "0.0.0.0:80");
                assert_eq!(said(Some(&world.outside), tcp, &format!("{HOST}:8080")), OUTSIDE);
            }
        }
        let rules = run("iptables-nft -S DOCKER-USER").expect("rules");
        assert_eq!(rules.matches("-i rrun0").count() + rules.matches("-o rrun0").count(), 2, "{rules}");
        for id in ["a", "b", "c"] {
            world.networks.detach(id, None).expect("detach");
        }
        world.networks.prune(&|_| true).expect("prune");
        assert_eq!(run("iptables-nft -S DOCKER-USER").expect("rules").trim(), "-N DOCKER-USER");
    });
}

#[test]
#[ignore = "starts dockerd, which only one may at a time, and takes some seconds"]
fn docker_and_we_share_a_host() {
    struct Daemon(std::process::Child);
    impl Drop for Daemon {
        fn drop(&mut self) {
            let pid = rustix::process::Pid::from_child(&self.0);
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            let _ = self.0.wait();
        }
    }
    let _lock = Lock::exclusive(Path::new("/tmp/dockerd.lock")).expect("lock");
    alone("docker", |world| {
        // Its sockets and the lock of iptables.
        run("mount -t tmpfs none /run");
        run("mkdir -p /run/docker");
        serve(Some(&world.outside), "0.0.0.0:91");
        let out = format!("{OUTSIDE}:91");
        let at = |name: &str| world.dir.join(name).display().to_string();
        let daemon = Command::new("dockerd")
            .args(["--data-root", &at("data"), "--exec-root", "/run/docker", "--pidfile", "/run/docker/pid"])
            .args(["--host", "unix:///run/docker/api", "--storage-driver", "vfs"])
            .stdout(std::process::Stdio::null())
            .stderr(fs::File::create_new(world.dir.join("log")).expect("log"))
            .spawn()
            .expect("dockerd");
        let daemon = Daemon(daemon);
        let until = Instant::now() + Duration::from_secs(120);
        while !Path::new("/run/docker/api").exists()
            || !run("iptables-nft -S").is_some_and(|rules| rules.contains("-P FORWARD DROP"))
        {
            let log = || fs::read_to_string(world.dir.join("log")).unwrap_or_default();
            assert!(Instant::now() < until, "dockerd does not come up: {}", log());
            std::thread::sleep(Duration::from_millis(100));
        }
        let a = world.attach("a", "bridge", &["8080:80"]);
        assert_eq!((a.ip().to_string(), a.endpoint.warnings.len()), ("172.18.0.2".into(), 0));
        serve(Some(&a.netns), "0.0.0.0:80");
        let b = world.attach("b", "bridge", &["8081:80"]);
        // It is started again, and its rules are made anew.
        for flushed in [false, true] {
            if flushed {
                run("iptables-nft -F DOCKER-USER");
                assert!(is_silent(Some(&a.netns), tcp, &out));
                assert_eq!(world.networks.sweep(&|_| true).expect("sweep"), Vec::<String>::new());
            }
            for from in [&a, &b] {
                assert_eq!(said(Some(&from.netns), tcp, &out), HOST);
            }
            assert_eq!(said(Some(&world.outside), tcp, &format!("{HOST}:8080")), OUTSIDE);
            assert_eq!(said(Some(&b.netns), tcp, &format!("{}:80", a.ip())), b.ip().to_string());
        }
        drop(daemon);
        for id in ["a", "b"] {
            world.networks.detach(id, None).expect("detach");
        }
        world.networks.prune(&|_| true).expect("prune");
        assert_eq!(run("iptables-nft -S DOCKER-USER").expect("rules").matches("rrun0").count(), 0);
    });
}

/// What `nft` makes of the text that our tables are meant to be, and what it shows of ours.
#[test]
fn the_tables_are_what_nft_makes_of_the_same_text() {
    const TEXT: &str = include_str!("tables.nft");
    let listed = |world: &World, make: &dyn Fn(&World)| {
        make(world);
        nft(&["list", "ruleset"])
    };
    let (mut ours, mut theirs) = (None, None);
    alone("golden", |world| {
        ours = listed(world, &|_| {
            let subnet = |text| Subnet::parse(text).expect("a subnet").1;
            let bridges = [
                firewall::Bridge {
                    name: "rrun0".into(),
                    subnets: vec![subnet("172.17.0.0/16"), subnet("fd00:1::/64")],
                    internal: false,
                    masquerade: true,
                    icc: true,
                    mode: Mode::Nat,
                },
                firewall::Bridge {
                    name: "br-0123456789ab".into(),
                    subnets: vec![subnet("10.0.0.0/30")],
                    internal: true,
                    masquerade: true,
                    icc: false,
                    mode: Mode::Routed,
                },
                firewall::Bridge {
                    name: "br-x".into(),
                    subnets: Vec::new(),
                    internal: false,
                    masquerade: false,
                    icc: false,
                    mode: Mode::Unprotected,
                },
            ];
            let forward = |at: Option<&str>, port, protocol, to: &str, routed| Forward {
                bridge: "rrun0".into(),
                at: at.map(|at| at.parse().expect("ip")),
                port,
                protocol,
                to: to.parse().expect("address"),
                routed,
            };
            let mut firewall = Firewall::open(Path::new("/")).expect("socket");
            for (family, forwards) in [
                (
                    Family::V4,
                    [
                        forward(None, 80, Protocol::Tcp, "172.17.0.2:8080", false),
                        forward(Some("127.0.0.1"), 53, Protocol::Udp, "172.17.0.3:5353", false),
                        forward(None, 0, Protocol::Tcp, "172.17.0.4:443", true),
                    ],
                ),
                (
                    Family::V6,
                    [
                        forward(None, 80, Protocol::Tcp, "[fd00:1::2]:8080", false),
                        forward(Some("fd00:9::1"), 53, Protocol::Udp, "[fd00:1::3]:5353", false),
                        forward(None, 0, Protocol::Tcp, "[fd00:1::4]:443", true),
                    ],
                ),
            ] {
                firewall.rebuild(family, &bridges, &forwards).expect("rebuild");
                // Twice is once, and what was removed can be removed.
                firewall.rebuild(family, &bridges, &forwards).expect("rebuild");
                let more = [forward(None, 1, Protocol::Tcp, &forwards[0].to.to_string(), false)];
                firewall.add(&more).expect("add");
                firewall.add(&more).expect("add again");
                firewall.take_back(&more).expect("take back");
                firewall.take_back(&more).expect("take back again");
                let other = [forward(None, 80, Protocol::Tcp, &forwards[1].to.to_string(), false)];
                assert!(firewall.add(&other).is_err());
                assert!(firewall.stands(family).expect("get"));
            }
        });
    });
    alone("golden", |world| {
        theirs = listed(world, &|world| {
            let path = world.dir.join("tables.nft");
            fs::write(&path, TEXT).expect("write");
            nft(&["-f", path.to_str().expect("utf-8")]);
        });
    });
    assert_eq!(ours, theirs);
}

#[test]
fn a_container_asks_for_its_neighbours_and_for_the_rest_of_the_world() {
    alone("dns", |world| {
        use super::dns::{Responder, SERVER, listen, question};
        world.create("net", |_| {});
        let settings = EndpointSettings { aliases: vec!["db".into()], ..EndpointSettings::default() };
        let a = world.attach("a", "net", &[]);
        let b = world.try_attach("b", "net", &[], &settings).expect("attach");
        let packet = |name: &str| {
            let mut packet = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
            for label in name.split('.') {
                packet.push(label.len() as u8);
                packet.extend_from_slice(label.as_bytes());
            }
            packet.extend_from_slice(&[0, 0, 1, 0, 1]);
            packet
        };
        // A server of the host's that answers everything, the first one dead.
        let upstream = UdpSocket::bind("127.0.0.1:0").expect("bind");
        let upstream_tcp = TcpListener::bind(upstream.local_addr().expect("address")).expect("bind");
        let servers = vec!["127.0.0.1:1".parse().expect("address"), upstream.local_addr().expect("address")];
        std::thread::spawn(move || {
            let mut bytes = [0; 512];
            while let Ok((length, from)) = upstream.recv_from(&mut bytes) {
                bytes[2] |= 0x80;
                let _ = upstream.send_to(&[&bytes[..length], &b"world"[..]].concat(), from);
            }
        });
        std::thread::spawn(move || {
            for mut stream in upstream_tcp.incoming().flatten() {
                let mut length = [0; 2];
                if stream.read_exact(&mut length).is_ok() {
                    let _ = stream.write_all(b"\x00\x05world");
                }
            }
        });
        let networks = vec![world.networks.names("net").expect("net")];
        let sockets = listen(&a.path).expect("sockets");
        let mut responder = Responder::new(sockets, servers, networks).expect("responder");
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        std::thread::scope(|scope| {
            // Dropped at the end of this, also of one that panics.
            let _stop = stop;
            scope.spawn(move || {
                while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
                    let mut fds = Vec::new();
                    responder.poll(&mut fds);
                    let turn = rustix::event::Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
                    rustix::event::poll(&mut fds, Some(&turn)).expect("poll");
                    drop(fds);
                    responder.ready();
                }
            });
            let by_udp = |name: &str| {
                a.netns
                    .enter(|| {
                        let socket = UdpSocket::bind("0.0.0.0:0")?;
                        socket.set_read_timeout(Some(PATIENCE))?;
                        socket.send_to(&packet(name), (SERVER, 53))?;
                        let mut bytes = [0; 512];
                        let (length, from) = socket.recv_from(&mut bytes)?;
                        assert_eq!(from.to_string(), "127.0.0.11:53");
                        Ok(bytes[..length].to_vec())
                    })
                    .expect("an answer")
            };
            let by_tcp = |name: &str| {
                a.netns
                    .enter(|| {
                        let mut stream = TcpStream::connect((SERVER, 53))?;
                        stream.set_read_timeout(Some(PATIENCE))?;
                        let packet = packet(name);
                        stream.write_all(&(packet.len() as u16).to_be_bytes())?;
                        stream.write_all(&packet)?;
                        let mut length = [0; 2];
                        stream.read_exact(&mut length)?;
                        let mut bytes = vec![0; usize::from(u16::from_be_bytes(length))];
                        stream.read_exact(&mut bytes)?;
                        Ok(bytes)
                    })
                    .expect("an answer")
            };
            assert!(question(&packet("b")).is_ok());
            let IpAddr::V4(ip) = b.ip() else { panic!("IPv4") };
            for name in ["b", "DB", "b.net"] {
                assert!(by_udp(name).ends_with(&ip.octets()), "{name}");
                assert!(by_tcp(name).ends_with(&ip.octets()), "{name}");
            }
            assert!(by_udp("example.org").ends_with(b"world"));
            assert!(by_tcp("example.org").ends_with(b"world"));
            // It has gone, and with it its name: the world is asked.
            world.networks.detach("b", None).expect("detach");
            assert!(by_udp("b").ends_with(b"world"));
        });
        // 53 is the container's own.
        a.netns.enter(|| Ok(UdpSocket::bind("0.0.0.0:53").map(drop)?)).expect("bind");
    });
}

/// What this thread has had of a processor: others work on this machine.
fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[test]
fn the_two_hundredth_container_costs_what_the_first_one_did() {
    alone("flat", |world| {
        let count = 200;
        let mut took = Vec::new();
        for n in 0..count {
            let id = format!("c{n}");
            let path = world.dir.join("ns").join(&id);
            make_netns(&path).expect("netns");
            let ports: Vec<String> =
                (0..5).map(|port| format!("{}:{}", 20000 + n * 5 + port, 80 + port)).collect();
            let ports: Vec<&str> = ports.iter().map(String::as_str).collect();
            let (start, cpu) = (Instant::now(), cpu());
            // The sockets would be the monitors'.
            let _held = world.attach(&id, "bridge", &ports);
            took.push((self::cpu() - cpu, start.elapsed()));
        }
        let median = |of: &[(Duration, Duration)]| {
            let middle = |mut of: Vec<Duration>| {
                of.sort();
                of[of.len() / 2]
            };
            (middle(of.iter().map(|took| took.0).collect()), middle(of.iter().map(|took| took.1).collect()))
        };
        let (first, last) = (median(&took[5..45]), median(&took[count - 40..]));
        let (start, before) = (Instant::now(), cpu());
        for n in 0..count {
            world.networks.detach(&format!("c{n}"), None).expect("detach");
        }
        let detach = ((cpu() - before) / count as u32, start.elapsed() / count as u32);
        eprintln!(
            "CPU time and time, attach with 5 ports: median of 5..45 {first:?}, of the last 40 {last:?}; detach {detach:?}"
        );
        // Rules looked through one by one would be ten times; the leases' file is read and written as a whole.
        assert!(last.0 < first.0 * 3 + Duration::from_millis(2), "{first:?} {last:?}");
        world.networks.prune(&|_| true).expect("prune");
        is_empty();
    });
}
