//! `--link`: what one container is told of another.

#![forbid(unsafe_code)]

use super::types::{Empty, Map};
use crate::error::{Error, Result};
use std::net::IpAddr;

/// `name:alias`, or a name that is its own alias; the form that inspect shows, `/name:/own/alias`, too.
///
/// # Errors
/// What is neither.
pub fn parse(text: &str) -> Result<(&str, &str)> {
    let wrong = || Error::invalid(format!("bad format for links: {text}"));
    let parts: Vec<_> = text.split(':').collect();
    let (name, alias) = match parts[..] {
        [""] => return Err(Error::invalid("empty string specified for links")),
        [name] => (name, name),
        [name, alias] => (name, alias.rsplit('/').next().unwrap_or(alias)),
        _ => return Err(wrong()),
    };
    let name = name.strip_prefix('/').unwrap_or(name);
    if name.is_empty() || alias.is_empty() { Err(wrong()) } else { Ok((name, alias)) }
}

/// The names of a linked container in /etc/hosts: its alias, hostname, and name, each once.
pub fn names(alias: &str, hostname: &str, name: &str) -> String {
    let mut names = vec![alias];
    names.extend([hostname, name].into_iter().filter(|other| *other != alias));
    names.join(" ")
}

/// One port of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Port<'a> {
    number: u32,
    protocol: &'a str,
}

impl Port<'_> {
    fn upper(self) -> String {
        self.protocol.to_uppercase()
    }
}

/// The ports, tcp's first, each protocol's in order.
fn ports(exposed: &Map<Empty>) -> Vec<Port<'_>> {
    let port = |(number, protocol): (&str, _)| Some(Port { number: number.parse().ok()?, protocol });
    let texts = exposed.keys().map(|text| text.split_once('/').unwrap_or((text, "tcp")));
    let mut ports: Vec<_> = texts.filter_map(port).collect();
    ports.sort_by_key(|port| (port.protocol != "tcp", port.protocol.to_owned(), port.number));
    ports
}

/// The variables that a container gets of another one whose address, exposed ports and environment are these.
///
/// `parent` and `alias` make the value of `ALIAS_NAME`. Consecutive ports are told as a range as well.
pub fn environment(
    parent: &str,
    alias: &str,
    address: IpAddr,
    exposed: &Map<Empty>,
    env: &[String],
) -> Vec<String> {
    let prefix = alias.to_uppercase().replace('-', "_");
    let url = |port: Port<'_>| format!("{}://{address}:{}", port.protocol, port.number);
    let of = |port: Port<'_>| format!("{prefix}_PORT_{}_{}", port.number, port.upper());
    let ports = ports(exposed);
    let mut variables = Vec::new();
    if let Some(first) = ports.first() {
        variables.push(format!("{prefix}_PORT={}", url(*first)));
    }
    let mut start = 0;
    for (at, port) in ports.iter().enumerate() {
        let name = of(*port);
        variables.push(format!("{name}={}", url(*port)));
        variables.push(format!("{name}_ADDR={address}"));
        variables.push(format!("{name}_PORT={}", port.number));
        variables.push(format!("{name}_PROTO={}", port.protocol));
        let goes_on = ports
            .get(at + 1)
            .is_some_and(|next| next.protocol == port.protocol && next.number == port.number + 1);
        if goes_on {
            continue;
        }
        if at > start {
            let (first, name) = (ports[start], of(ports[start]));
            variables.push(format!("{name}_START={}", url(first)));
            variables.push(format!("{name}_PORT_START={}", first.number));
            variables.push(format!("{name}_END={}", url(*port)));
            variables.push(format!("{name}_PORT_END={}", port.number));
        }
        start = at + 1;
    }
    variables.push(format!("{prefix}_NAME=/{parent}/{alias}"));
    for variable in env {
        match variable.split_once('=') {
            Some((name, value)) if name != "HOME" && name != "PATH" => {
                variables.push(format!("{prefix}_ENV_{name}={value}"));
            }
            _ => {}
        }
    }
    variables
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exposed(ports: &[&str]) -> Map<Empty> {
        ports.iter().map(|port| ((*port).to_owned(), Empty {})).collect()
    }

    fn variables(alias: &str, ports: &[&str], env: &[&str]) -> Vec<String> {
        let env: Vec<_> = env.iter().map(|variable| (*variable).to_owned()).collect();
        environment("web", alias, "10.0.0.4".parse().expect("an address"), &exposed(ports), &env)
    }

    #[test]
    fn variables_have_dockers_names_and_order() {
        assert_eq!(
            variables("my-db", &["53/udp", "33060/tcp", "3306/tcp"], &["X=1", "PATH=/x", "HOME=/h", "NONE"]),
            [
                "MY_DB_PORT=tcp://10.0.0.4:3306",
                "MY_DB_PORT_3306_TCP=tcp://10.0.0.4:3306",
                "MY_DB_PORT_3306_TCP_ADDR=10.0.0.4",
                "MY_DB_PORT_3306_TCP_PORT=3306",
                "MY_DB_PORT_3306_TCP_PROTO=tcp",
                "MY_DB_PORT_33060_TCP=tcp://10.0.0.4:33060",
                "MY_DB_PORT_33060_TCP_ADDR=10.0.0.4",
                "MY_DB_PORT_33060_TCP_PORT=33060",
                "MY_DB_PORT_33060_TCP_PROTO=tcp",
                "MY_DB_PORT_53_UDP=udp://10.0.0.4:53",
                "MY_DB_PORT_53_UDP_ADDR=10.0.0.4",
                "MY_DB_PORT_53_UDP_PORT=53",
                "MY_DB_PORT_53_UDP_PROTO=udp",
                "MY_DB_NAME=/web/my-db",
                "MY_DB_ENV_X=1",
            ]
        );
        assert_eq!(variables("al", &[], &[]), ["AL_NAME=/web/al"]);
    }

    #[test]
    fn consecutive_ports_are_a_range_too() {
        let all = variables("d", &["80/tcp", "81/tcp", "82/tcp", "90/tcp"], &[]);
        let range: Vec<_> =
            all.iter().filter(|variable| variable.contains("START") || variable.contains("END")).collect();
        assert_eq!(
            range,
            [
                "D_PORT_80_TCP_START=tcp://10.0.0.4:80",
                "D_PORT_80_TCP_PORT_START=80",
                "D_PORT_80_TCP_END=tcp://10.0.0.4:82",
                "D_PORT_80_TCP_PORT_END=82",
            ]
        );
        assert!(all.contains(&"D_PORT_90_TCP_PORT=90".to_owned()));
    }

    #[test]
    fn a_link_is_a_name_and_an_alias() {
        assert_eq!(parse("db:mysql").expect("valid"), ("db", "mysql"));
        assert_eq!(parse("db").expect("valid"), ("db", "db"));
        assert_eq!(parse("/db:/web/mysql").expect("valid"), ("db", "mysql"));
        for (bad, text) in [
            ("a:b:c", "bad format for links: a:b:c"),
            ("", "empty string specified for links"),
            (":x", "bad format for links: :x"),
        ] {
            assert_eq!(parse(bad).expect_err(bad).to_string(), text);
        }
        assert_eq!(names("mysql", "d585", "db"), "mysql d585 db");
        assert_eq!(names("db", "d585", "db"), "db d585");
    }
}
