//! /etc/hosts, /etc/hostname and /etc/resolv.conf of a container (engine.md trap 32: bind mounts of the engine's files).

#![forbid(unsafe_code)]

use super::types::Config;
use std::fmt::Write as _;
use std::net::IpAddr;

/// Lines of every /etc/hosts.
const HOSTS: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\n\
    ff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n";

/// An address and its names, as a line of /etc/hosts.
pub type Line = (IpAddr, String);

/// /etc/hosts: what everybody has, `--add-host`, links, and the container itself, in Docker's order.
pub fn hosts(extra: &[Line], links: &[Line], own: &[Line]) -> String {
    let mut text = HOSTS.to_owned();
    for (address, names) in extra.iter().chain(links).chain(own) {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{address}\t{names}");
    }
    text
}

/// /etc/hosts of a container in the host's network: the host's, unless something is to be added.
pub fn hosts_of_host(host: &str, extra: &[Line]) -> String {
    if extra.is_empty() { host.to_owned() } else { hosts(extra, &[], &[]) }
}

/// The names of a container in its own /etc/hosts: `h.example.org h`.
pub fn own_names(config: &Config) -> String {
    let Config { hostname, domainname, .. } = config;
    let full = if domainname.is_empty() { hostname.clone() } else { format!("{hostname}.{domainname}") };
    match full.split_once('.') {
        Some((short, _)) => format!("{full} {short}"),
        None => full,
    }
}

/// /etc/hostname.
pub fn hostname(config: &Config) -> String {
    format!("{}\n", config.hostname)
}

/// `--dns`, `--dns-search`, `--dns-option`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Dns<'a> {
    /// Addresses; the host's if there is none.
    pub servers: &'a [String],
    /// Domains; `.` alone is none.
    pub search: &'a [String],
    /// `ndots:2`.
    pub options: &'a [String],
}

/// Where a container's questions go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolver {
    /// Where the host's go: it has the host's network.
    Host,
    /// To the host's servers that can be reached from there: the default bridge.
    Bridge {
        /// Whether it has IPv6.
        ipv6: bool,
    },
    /// To a resolver in the container's own network namespace, 127.0.0.11.
    Internal,
}

/// Where the host's servers stand: behind systemd-resolved's stub, which no container can reach.
pub fn host_resolv_conf(text: &str) -> &'static str {
    match servers(text).as_slice() {
        ["127.0.0.53"] => "/run/systemd/resolve/resolv.conf",
        _ => "/etc/resolv.conf",
    }
}

/// The servers of a resolv.conf, which [`Resolver::Internal`] asks in turn; `--dns` goes before.
pub fn upstream<'a>(host: &'a str, dns: &Dns<'a>) -> Vec<&'a str> {
    if dns.servers.is_empty() { servers(host) } else { dns.servers.iter().map(String::as_str).collect() }
}

fn servers(text: &str) -> Vec<&str> {
    values(text, "nameserver").into_iter().filter_map(|words| words.first().copied()).collect()
}

/// The words behind each `key`.
fn values<'a>(text: &'a str, key: &str) -> Vec<Vec<&'a str>> {
    let lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    lines.filter(|words| words.first() == Some(&key)).map(|words| words[1..].to_vec()).collect()
}

/// /etc/resolv.conf of a container, from the host's.
pub fn resolv_conf(host: &str, dns: &Dns<'_>, resolver: Resolver) -> String {
    let nothing_asked = dns.servers.is_empty() && dns.search.is_empty() && dns.options.is_empty();
    if resolver == Resolver::Host && nothing_asked {
        return host.to_owned();
    }
    let mut servers: Vec<String> = upstream(host, dns).into_iter().map(str::to_owned).collect();
    match resolver {
        Resolver::Host => {}
        Resolver::Bridge { ipv6 } if dns.servers.is_empty() => {
            servers.retain(|server| match server.split('%').next().unwrap_or_default().parse() {
                Ok(IpAddr::V4(address)) => !address.is_loopback(),
                Ok(IpAddr::V6(address)) => ipv6 && !address.is_loopback(),
                Err(_) => false,
            });
            if servers.is_empty() {
                servers = ["8.8.8.8", "8.8.4.4"].map(str::to_owned).to_vec();
            }
        }
        Resolver::Bridge { .. } => {}
        Resolver::Internal => servers = vec!["127.0.0.11".to_owned()],
    }
    // The last search line of a resolv.conf holds (resolv.conf(5)); `domain` is its old form.
    let search: Vec<String> = if dns.search.is_empty() {
        let all = [values(host, "domain"), values(host, "search")].concat();
        all.last().into_iter().flatten().map(|word| (*word).to_owned()).collect()
    } else {
        dns.search.iter().filter(|domain| *domain != ".").cloned().collect()
    };
    let mut options: Vec<String> = if dns.options.is_empty() {
        values(host, "options").concat().into_iter().map(str::to_owned).collect()
    } else {
        dns.options.to_vec()
    };
    if resolver == Resolver::Internal && !options.iter().any(|option| option.starts_with("ndots:")) {
        // A name without a dot is a container's; asking for it in the search domains first takes time.
        options.push("ndots:0".to_owned());
    }
    let mut text: String = servers.iter().map(|server| format!("nameserver {server}\n")).collect();
    for (key, words) in [("search", search), ("options", options)] {
        if !words.is_empty() {
            let _ = writeln!(text, "{key} {}", words.join(" "));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn hosts_are_in_dockers_order() {
        let line = |address: &str, names: &str| (address.parse().expect("an address"), names.to_owned());
        let text = hosts(
            &[line("1.2.3.4", "a.example"), line("::1", "six")],
            &[line("10.0.0.4", "mysql d585a7f6bdd5 db")],
            &[line("10.0.0.5", "831b06dbc48e")],
        );
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "127.0.0.1\tlocalhost");
        assert_eq!(
            lines[6..],
            ["1.2.3.4\ta.example", "::1\tsix", "10.0.0.4\tmysql d585a7f6bdd5 db", "10.0.0.5\t831b06dbc48e"]
        );
        assert_eq!(hosts_of_host("h\n", &[]), "h\n");
        assert!(hosts_of_host("h\n", &[line("1.2.3.4", "a")]).ends_with("1.2.3.4\ta\n"));
    }

    #[test]
    fn a_container_has_its_short_name_as_well() {
        let names = |hostname: &str, domainname: &str| {
            own_names(&Config {
                hostname: hostname.into(),
                domainname: domainname.into(),
                ..Config::default()
            })
        };
        assert_eq!(names("h", ""), "h");
        assert_eq!(names("myhost", "example.org"), "myhost.example.org myhost");
        assert_eq!(names("h.example.org", ""), "h.example.org h");
    }

    #[test]
    fn servers_that_only_the_host_reaches_are_left_out() {
        let host = "# x\nsearch one two\nnameserver 127.0.0.53\nnameserver 9.9.9.9\nnameserver fe80::1%eth0\n\
            nameserver 2001:db8::1\noptions edns0\noptions timeout:1\n";
        let bridge = |ipv6| resolv_conf(host, &Dns::default(), Resolver::Bridge { ipv6 });
        assert_eq!(bridge(false), "nameserver 9.9.9.9\nsearch one two\noptions edns0 timeout:1\n");
        assert!(bridge(true).contains("nameserver 2001:db8::1\n"));
        assert_eq!(resolv_conf(host, &Dns::default(), Resolver::Host), host);
        let none = resolv_conf("nameserver 127.0.0.1\n", &Dns::default(), Resolver::Bridge { ipv6: false });
        assert_eq!(none, "nameserver 8.8.8.8\nnameserver 8.8.4.4\n");
        assert_eq!(host_resolv_conf("nameserver 127.0.0.53\n"), "/run/systemd/resolve/resolv.conf");
        assert_eq!(host_resolv_conf(host), "/etc/resolv.conf");
    }

    #[test]
    fn what_is_asked_for_replaces_the_hosts() {
        let (servers, search, options) = (words("127.0.0.1"), words("a.b"), words("ndots:2"));
        let dns = Dns { servers: &servers, search: &search, options: &options };
        let text = resolv_conf("nameserver 9.9.9.9\nsearch x\n", &dns, Resolver::Bridge { ipv6: false });
        assert_eq!(text, "nameserver 127.0.0.1\nsearch a.b\noptions ndots:2\n");
        let none = words(".");
        let dns = Dns { search: &none, ..Dns::default() };
        assert_eq!(
            resolv_conf("nameserver 9.9.9.9\nsearch x\n", &dns, Resolver::Host),
            "nameserver 9.9.9.9\n"
        );
    }

    #[test]
    fn a_network_of_ones_own_has_a_resolver() {
        let host = "nameserver 9.9.9.9\noptions edns0\n";
        let text = resolv_conf(host, &Dns::default(), Resolver::Internal);
        assert_eq!(text, "nameserver 127.0.0.11\noptions edns0 ndots:0\n");
        assert_eq!(upstream(host, &Dns::default()), ["9.9.9.9"]);
    }
}
