//! The commands about networks, each test in a network namespace of its own.

use crate::containers::{eventually, page, shown, with_site};
use crate::harness::*;
use rrunctl::network::Netns;
use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde_json::Value;
use std::io::{Read as _, Write as _};
use std::net::{TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

#[test]
fn n2_n3_networks_are_made_listed_and_removed() {
    alone(|| {
        let engine = Engine::new();
        let names = engine.prints(&["network", "ls", "--format", "{{.Name}} {{.Driver}} {{.Scope}}"]);
        assert_eq!(names, "bridge bridge local\nhost host local\nnone null local\n");
        let id = engine.prints(&["network", "create", "mynet"]);
        assert_eq!((id.len(), id.chars().filter(char::is_ascii_hexdigit).count()), (65, 64), "{id}");
        let table = engine.prints(&["network", "ls", "--filter", "type=custom"]);
        assert_eq!(
            table,
            format!("NETWORK ID     NAME      DRIVER    SCOPE\n{}   mynet     bridge    local\n", &id[..12])
        );
        assert_eq!(engine.prints(&["network", "list", "-q", "--no-trunc", "-f", "name=myn"]), id);
        let subnet = ["network", "inspect", "-f", "{{range .IPAM.Config}}{{.Subnet}} {{.Gateway}}{{end}}"];
        assert_eq!(engine.prints(&[&subnet[..], &["mynet"]].concat()), "172.18.0.0/16 172.18.0.1\n");
        let made = [
            "network",
            "create",
            "--subnet",
            "10.9.0.0/24",
            "--gateway",
            "10.9.0.254",
            "--label",
            "a=b",
            "office",
        ];
        engine.prints(&made);
        assert_eq!(engine.prints(&[&subnet[..], &["office"]].concat()), "10.9.0.0/24 10.9.0.254\n");
        assert_eq!(engine.prints(&["network", "ls", "-f", "label=a=b", "--format", "{{.Name}}"]), "office\n");
        assert_eq!(engine.prints(&["network", "ls", "-f", "dangling=true", "-q"]).lines().count(), 2);

        // `inspect` finds them too, and says so in docker's JSON.
        let json: Value = serde_json::from_str(&engine.prints(&["inspect", "mynet"])).expect("JSON");
        assert_eq!((&json[0]["Id"], &json[0]["Scope"]), (&id.trim().into(), &"local".into()));
        assert_eq!(engine.refuses(&["inspect", "nowhere"]), "No such object: nowhere");
        assert_eq!(engine.refuses(&["inspect", "--type", "network", "nowhere"]), "network nowhere not found");

        assert_eq!(engine.refuses(&["network", "create", "mynet"]), "network with name mynet already exists");
        let e = engine.refuses(&["network", "create", "-d", "overlay", "far"]);
        assert!(e.starts_with("This node is not a swarm manager."), "{e}");
        engine.refuses(&["network", "create", "--subnet", "10.9.0.0/33", "x"]);
        engine.refuses(&["network", "create", "--subnet", "10.9.0.0/25", "overlaps"]);
        engine.refuses(&["network", "ls", "-f", "type=other"]);
        engine.refuses(&["network", "ls", "-f", "colour=red"]);
        assert!(engine.refuses(&["network", "rm", "bridge"]).contains("pre-defined"));
        assert_eq!(engine.prints(&["network", "rm", "mynet"]), "mynet\n");
        assert_eq!(engine.refuses(&["network", "rm", "mynet"]), "network mynet not found");
        assert_eq!(engine.prints(&["network", "rm", "-f", "mynet", "office"]), "office\n");
    });
}

#[test]
fn n4_unused_networks_are_pruned_after_a_question() {
    alone(|| {
        let engine = Engine::new();
        assert_eq!(engine.prints(&["network", "prune", "-f"]), "");
        engine.prints(&["network", "create", "one"]);
        engine.prints(&["network", "create", "--label", "keep", "two"]);
        let question = "WARNING! This will remove all custom networks not used by at least one container.\n\
                        Are you sure you want to continue? [y/N] \n";
        let output = engine.fed(&["network", "prune"], b"\n");
        assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(0), question));
        let output = engine.fed(&["network", "prune", "--filter", "label!=keep"], b"Y\n");
        assert_eq!(text(&output.stdout), format!("{question}Deleted Networks:\none\n\n"));
        engine.refuses(&["network", "prune", "-f", "--filter", "until=never"]);
        let said = engine.prints(&["system", "prune", "-f"]);
        assert_eq!(said, "Deleted Networks:\ntwo\n\nTotal reclaimed space: 0B\n");
        assert_eq!(engine.prints(&["network", "ls", "-q"]).lines().count(), 3);
    });
}

#[test]
fn e3_e4_addresses_are_those_of_the_settings() {
    alone(|| {
        let engine = Engine::new();
        let config = engine.path("daemon.json");
        let settings =
            r#"{"bip": "172.31.0.1/16", "default-address-pools": [{"base": "10.77.0.0/16", "size": 24}]}"#;
        std::fs::write(&config, settings).expect("write");
        let config = config.to_str().expect("UTF-8");
        engine.prints(&["--config", config, "network", "create", "mynet"]);
        let subnets = engine.prints(&[
            "network",
            "inspect",
            "--config",
            config,
            "-f",
            "{{range .IPAM.Config}}{{.Subnet}}{{end}}",
            "bridge",
            "mynet",
        ]);
        assert_eq!(subnets, "172.31.0.0/16\n10.77.0.0/24\n");
    });
}

/// A socket for UDP in the network namespace of a container's process; busybox has no server that needs no more.
pub fn udp_server(pid: &str, port: u16) -> UdpSocket {
    let netns = Netns::open(Path::new(&format!("/proc/{pid}/ns/net"))).expect("the namespace");
    let server = netns.enter(|| Ok(UdpSocket::bind(("0.0.0.0", port))?)).expect("bind");
    server.set_read_timeout(Some(Duration::from_secs(10))).expect("a time");
    server
}

/// Kills the monitor of the container with this directory.
pub fn kill_monitor(run: &Path) {
    let pid = std::fs::read_to_string(run.join("pid")).expect("a pid").trim().parse().expect("a number");
    let pid = Pid::from_raw(pid).expect("a pid");
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).expect("it lives");
    pidfd_send_signal(&pidfd, Signal::KILL).expect("kill");
    // Its sockets are closed when it has ended.
    rustix::event::poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], None).expect("poll");
}

/// Asks `at`, and has `server` answer what its answer should be from the address that was asked.
#[track_caller]
pub fn is_answered_by(server: &UdpSocket, from: &str, at: &str) {
    let client = UdpSocket::bind((from, 0)).expect("bind");
    client.set_read_timeout(Some(Duration::from_secs(10))).expect("a time");
    let (mut question, mut answer) = ([0; 100], [0; 100]);
    for round in 0..3_u8 {
        client.send_to(&[b'?', round], at).expect("send");
        let (n, asker) = server.recv_from(&mut question).unwrap_or_else(|e| panic!("{at} from {from}: {e}"));
        assert_eq!(question[..n], [b'?', round]);
        server.send_to(&[b'!', round], asker).expect("send");
        let (n, from) = client.recv_from(&mut answer).unwrap_or_else(|e| panic!("no answer of {at}: {e}"));
        assert_eq!((&answer[..n], from.to_string().as_str()), (&[b'!', round][..], at));
    }
}

#[test]
fn n5_udp_is_published_at_every_address_of_the_host() {
    with_site(|engine| {
        let ports = ["-p", "5300:53/udp", "-p", "127.0.0.1:5301:53/udp"];
        engine.prints(&[&["run", "-d", "--name", "dns"][..], &ports, &["site", "sleep", "1000"]].concat());
        let server = udp_server(&shown(engine, "dns", "/State/Pid").to_string(), 53);
        let all = || {
            for (from, at) in [
                ("127.0.0.1", "127.0.0.1:5300"),
                ("127.0.0.1", "127.0.0.1:5301"),
                // No rule of the firewall leads from IPv6 to IPv4: rrunmon does.
                ("::1", "[::1]:5300"),
                ("172.17.0.1", "172.17.0.1:5300"),
            ] {
                is_answered_by(&server, from, at);
            }
        };
        all();
        // Another monitor holds the ports that the last one held.
        let id = shown(engine, "dns", "/Id");
        kill_monitor(&engine.path("run").join(id.as_str().expect("an id")));
        UdpSocket::bind("[::]:5300").expect("nobody holds it");
        engine.prints(&["system", "restore"]);
        all();
        UdpSocket::bind("[::]:5300").expect_err("it is held");
        let taken = engine.run(&["run", "-d", "-p", "5300:54/udp", "site", "true"]);
        assert!(text(&taken.stderr).contains("port is already allocated"), "{}", text(&taken.stderr));
        engine.prints(&["rm", "-f", "dns"]);
        UdpSocket::bind("[::]:5300").expect("it is free");
    });
}

#[test]
fn n5_ports_have_room_and_the_container_the_limits_of_its_caller() {
    with_site(|engine| {
        let run = ["run", "-d", "--name", "web", "-p", "127.0.0.1::80", "site"];
        let plain = engine.command(&[&run[..], &["sh", "-c", "ulimit -Sn; ulimit -Hn; sleep 1000"]].concat());
        let mut command = Command::new("prlimit");
        command.arg("--nofile=600:900").arg(plain.get_program()).args(plain.get_args());
        assert!(command.output().expect("util-linux").status.success());
        eventually("it says", || engine.prints(&["logs", "web"]) == "600\n900\n");
        let id = shown(engine, "web", "/Id");
        let run = engine.path("run").join(id.as_str().expect("an id"));
        let pid = std::fs::read_to_string(run.join("pid")).expect("a pid");
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", pid.trim())).expect("limits");
        let files = limits.lines().find(|line| line.starts_with("Max open files")).expect("a line");
        assert_eq!(files.split_whitespace().skip(3).take(2).collect::<Vec<_>>(), ["900", "900"]);
    });
}

/// Whether `server` was asked for a name with `label`, of all the questions that lie there: a container whose client was
/// killed goes on, and repeats its own.
fn was_asked(server: &UdpSocket, label: &str) -> bool {
    let mut question = [0; 600];
    while let Ok(length) = server.recv(&mut question) {
        if question[..length].windows(label.len()).any(|part| part == label.as_bytes()) {
            return true;
        }
    }
    false
}

#[test]
fn n3_who_cannot_leave_asks_nobody_outside_for_names() {
    with_site(|engine| {
        // The server of a company, which rrunmon reaches from the host.
        let server = UdpSocket::bind("127.0.0.1:53").expect("bind");
        server.set_nonblocking(true).expect("a flag");
        engine.prints(&["network", "create", "net"]);
        engine.prints(&["network", "create", "--internal", "inner"]);
        let is_asked_by = |run: &[&str], label: &str| {
            let mut command = engine.command(run);
            let mut asks = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("rrunctl");
            eventually("it asks", || was_asked(&server, label));
            asks.kill().and_then(|()| asks.wait()).expect("kill");
        };
        let is_not_asked_by = |run: &[&str], label: &str| {
            let output = engine.run(run);
            let (said, why) = (text(&output.stdout), text(&output.stderr));
            assert!(said.contains("SERVFAIL"), "{said}{why}");
            assert!(!was_asked(&server, label), "it was asked for {label}");
        };
        let on = ["run", "--rm", "--dns", "127.0.0.1", "--network"];
        let ask = ["nslookup", "-type=a"];
        let run = |network, name| [&on[..], &[network, "site"], &ask, &[name, "127.0.0.11"]].concat();
        is_asked_by(&run("net", "public.example"), "public");
        // CVE-2024-29018
        is_not_asked_by(&run("inner", "secret.example"), "secret");
        // Whoever comes to lead out does ask, and whoever leaves it does not.
        let boxed = ["run", "-d", "--name", "box", "--dns", "127.0.0.1", "--network", "inner"];
        engine.prints(&[&boxed[..], &["site", "sleep", "1000"]].concat());
        let exec = |name| [&["exec", "box"], &ask[..], &[name, "127.0.0.11"]].concat();
        engine.prints(&["network", "connect", "net", "box"]);
        is_asked_by(&exec("joined.example"), "joined");
        engine.prints(&["network", "disconnect", "net", "box"]);
        is_not_asked_by(&exec("parted.example"), "parted");
    });
}

#[test]
fn n5_ports_follow_the_networks_of_a_container_that_runs() {
    with_site(|engine| {
        for network in ["one", "two"] {
            engine.prints(&["network", "create", network]);
        }
        let httpd = ["site", "httpd", "-f", "-h", "/www"];
        let web = ["run", "-d", "--name", "web", "--network", "one", "-p", "8080:80"];
        engine.prints(&[&web[..], &httpd].concat());
        engine.prints(&["network", "connect", "two", "web"]);
        let both = ["127.0.0.1:8080", "[::1]:8080"];
        for at in both {
            eventually(at, || page(at).as_deref() == Some("a page\n"));
        }
        // The network through which it is published: nobody else's container is meant by its address.
        engine.prints(&["network", "disconnect", "one", "web"]);
        engine.prints(&[&["run", "-d", "--name", "other", "--network", "one"][..], &httpd].concat());
        for at in both {
            assert_eq!(page(at), None, "{at}");
        }
        assert_eq!(engine.prints(&["port", "web"]), "");
        std::net::TcpListener::bind("[::1]:8080").expect("it is free");
        engine.prints(&["network", "connect", "one", "web"]);
        for at in both {
            eventually(at, || page(at).as_deref() == Some("a page\n"));
        }
        assert!(engine.prints(&["port", "web"]).starts_with("80/tcp -> 0.0.0.0:8080\n"));
    });
}

/// Another machine, at 198.51.100.1, whose neighbour this one is at 198.51.100.2.
struct Neighbour(Child);

impl Drop for Neighbour {
    fn drop(&mut self) {
        let _ = self.0.kill().and_then(|()| self.0.wait());
    }
}

impl Neighbour {
    fn new() -> Self {
        let mut child = Command::new("unshare")
            .args(["--net", "sh", "-ec", "echo; exec sleep 1000"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare");
        child.stdout.as_mut().expect("a pipe").read_exact(&mut [0]).expect("the namespace");
        let neighbour = Self(child);
        let pid = neighbour.0.id();
        let script = format!(
            "ip link add near type veth peer name far netns {pid}
             ip addr add 198.51.100.2/24 dev near; ip link set near up
             nsenter --net=/proc/{pid}/ns/net sh -ec 'ip addr add 198.51.100.1/24 dev far; ip link set far up'"
        );
        assert!(Command::new("sh").args(["-ec", &script]).status().expect("sh").success());
        neighbour
    }

    fn runs(&self, line: &str) {
        let netns = format!("--net=/proc/{}/ns/net", self.0.id());
        assert!(Command::new("nsenter").args([&netns, "sh", "-ec", line]).status().expect("sh").success());
    }

    /// What a web server says to it.
    fn page(&self, at: &str) -> Option<String> {
        let netns = Netns::open(Path::new(&format!("/proc/{}/ns/net", self.0.id()))).expect("the namespace");
        let fetched = netns.enter(|| {
            let mut stream =
                TcpStream::connect_timeout(&at.parse().expect("an address"), Duration::from_secs(1))?;
            stream.set_read_timeout(Some(Duration::from_secs(10)))?;
            stream.write_all(b"GET /index.html HTTP/1.0\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        });
        fetched.ok().and_then(|answer| Some(answer.split_once("\r\n\r\n")?.1.to_owned()))
    }
}

#[test]
fn n7_containers_are_reached_from_another_machine_by_a_route() {
    with_site(|engine| {
        let neighbour = Neighbour::new();
        let mode = "com.docker.network.bridge.gateway_mode_ipv4=routed";
        engine.prints(&["network", "create", "--subnet", "172.19.0.0/16", "-o", mode, "far"]);
        let httpd = ["site", "httpd", "-f", "-h", "/www"];
        let web = ["run", "-d", "--name", "web", "--network", "far", "-p", "80"];
        engine.prints(&[&web[..], &httpd].concat());
        engine.prints(&[&["run", "-d", "--name", "near"][..], &httpd].concat());
        let near = shown(engine, "near", "/NetworkSettings/IPAddress").as_str().expect("one").to_owned();
        neighbour
            .runs("ip route add 172.19.0.0/16 via 198.51.100.2; ip route add 172.17.0.0/16 via 198.51.100.2");
        eventually("it is reached", || neighbour.page("172.19.0.2:80").as_deref() == Some("a page\n"));
        // A network that nobody made so is closed to others, whatever routes they have.
        assert_eq!(neighbour.page(&format!("{near}:80")), None);
        // The container is itself there, not this machine.
        let script = "httpd -p 8080 -h /www; ip route | grep -c default";
        engine.prints(&["exec", "web", "sh", "-c", script]);
        let answered = engine.prints(&["exec", "web", "ping", "-c", "1", "-W", "5", "198.51.100.1"]);
        assert!(answered.contains("1 packets received"), "{answered}");
        assert_eq!(neighbour.page("172.19.0.2:8080"), None, "a port that is not published");
    });
}
