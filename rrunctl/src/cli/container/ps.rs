//! `ps`.

#![forbid(unsafe_code)]

use super::super::images::{text, written};
use super::super::table::{self, Row, row};
use super::super::{At, filter, human};
use crate::container::types::{MountPoint, Port, Summary};
use crate::engine::{FILTERS, Filters};
use crate::error::{Error, Result};
use crate::reference::Reference;
use clap::Args;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use time::OffsetDateTime;

/// List containers
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rrunctl ps
  rrunctl ps -a --filter status=exited --filter exited=0
  rrunctl ps -aq --filter name='^/web'
  rrunctl ps --format 'table {{.Names}}\\t{{.Ports}}'

Fields: .ID .Names .Image .Command .CreatedAt .RunningFor .Ports .State .Status .Size .Labels .Label .Mounts .LocalVolumes .Networks
Filters: id=ID name=PATTERN label=KEY[=VALUE] status=STATUS exited=CODE health=HEALTH ancestor=IMAGE before=CONTAINER
  since=CONTAINER volume=VOLUME|PATH network=NETWORK publish=PORT[-PORT][/PROTOCOL] expose=PORT[-PORT][/PROTOCOL] is-task=BOOL")]
pub(in super::super) struct Ps {
    /// Those that do not run, too
    #[arg(short, long)]
    all: bool,
    /// Only those that fit (KEY=VALUE); several times for several
    #[arg(short, long = "filter", value_name = "FILTER")]
    filters: Vec<String>,
    /// Print as `table`, `table TEMPLATE`, `json` or TEMPLATE
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Only so many that were made last, whether they run or not; -1 for no end
    #[arg(short = 'n', long, value_name = "NUMBER", allow_negative_numbers = true)]
    last: Option<i64>,
    /// Only the one that was made last, whether it runs or not
    #[arg(short, long)]
    latest: bool,
    /// Do not shorten ids, commands and names
    #[arg(long)]
    no_trunc: bool,
    /// Only ids
    #[arg(short, long)]
    quiet: bool,
    /// How much they wrote, too
    #[arg(short, long)]
    size: bool,
}

const TITLES: &[(&str, &str)] = &[
    ("Command", "COMMAND"),
    ("CreatedAt", "CREATED AT"),
    ("ID", "CONTAINER ID"),
    ("Image", "IMAGE"),
    ("Labels", "LABELS"),
    ("LocalVolumes", "LOCAL VOLUMES"),
    ("Mounts", "MOUNTS"),
    ("Names", "NAMES"),
    ("Networks", "NETWORKS"),
    ("Ports", "PORTS"),
    ("RunningFor", "CREATED"),
    ("Size", "SIZE"),
    ("State", "STATE"),
    ("Status", "STATUS"),
];
const USUAL: &str = "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}";
const QUIET: &str = "{{.ID}}";

impl Ps {
    pub(in super::super) fn run(self, at: &At) -> Result<()> {
        let limit = match self.last {
            // Docker's: no number of containers, no limit.
            Some(n) => usize::try_from(n).ok().filter(|n| *n > 0),
            None => self.latest.then_some(1),
        };
        let mut format = self.format.filter(|format| !format.is_empty());
        if self.quiet {
            if format.is_some_and(|format| format != "table") {
                at.warn("Ignoring custom format, because both --format and --quiet are set.");
            }
            format = Some(QUIET.to_owned());
        }
        // Every file of a container is looked at for its size.
        let size = self.size || format.as_ref().is_some_and(|format| format.contains(".Size"));
        let mut given: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for text in &self.filters {
            let (key, value) = filter::pair(text, &FILTERS)?;
            given.entry(key).or_default().push(value);
        }
        let (shown, broken) = at.engine()?.list(&Filters { all: self.all, size, limit, given })?;
        let now = OffsetDateTime::now_utc().unix_timestamp();
        let rows =
            shown.iter().map(|(.., one)| summary_row(one, !self.no_trunc, now)).collect::<Result<_>>()?;
        let usual = if self.size { format!("{USUAL}\t{{{{.Size}}}}") } else { USUAL.to_owned() };
        at.print(table::list_labelled(format.as_deref(), &usual, TITLES, rows)?)?;
        broken.iter().for_each(|e| at.complain(e));
        Ok(())
    }
}

/// The table of `system df -v`.
pub(in super::super) fn space(shown: &[Summary], now: i64) -> Result<String> {
    let mut rows = Vec::new();
    for one in shown {
        // The image's size is in another table.
        rows.push(summary_row(&Summary { size_root_fs: 0, ..one.clone() }, true, now)?);
    }
    let usual = "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.LocalVolumes}}\t{{.Size}}\t{{.RunningFor}}\t{{.Status}}\t{{.Names}}";
    table::list_labelled(None, usual, TITLES, rows)
}

fn summary_row(one: &Summary, short: bool, now: i64) -> Result<(Row, BTreeMap<String, String>)> {
    let id = if short { one.id.get(..12).unwrap_or(&one.id) } else { &one.id };
    let names = one.names.iter().map(|name| name.trim_start_matches('/'));
    let command = if short { table::ellipsis(&one.command, 20) } else { one.command.clone() };
    let labels: BTreeMap<String, String> =
        one.labels.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
    let pairs: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let mounts: Vec<String> = one.mounts.iter().map(|mount| mount_name(mount, short)).collect();
    let local = one.mounts.iter().filter(|mount| mount.driver == "local").count();
    let networks: Vec<&str> = one.network_settings.networks.keys().map(String::as_str).collect();
    let created = OffsetDateTime::from_unix_timestamp(one.created)
        .map_err(|e| Error::system(format!("container {}: {e}", one.id)))?;
    let size = |bytes: i64| human::size(u64::try_from(bytes).unwrap_or(0));
    let written_bytes = match one.size_root_fs {
        1.. => format!("{} (virtual {})", size(one.size_rw), size(one.size_root_fs)),
        _ => size(one.size_rw),
    };
    let fields = row([
        ("Command", quoted(&command).into()),
        ("CreatedAt", written(created).into()),
        ("ID", id.into()),
        ("Image", table::printable(&image_name(one, short)).into()),
        ("Labels", table::printable(&pairs.join(",")).into()),
        ("LocalVolumes", text(local)),
        ("Mounts", table::printable(&mounts.join(",")).into()),
        ("Names", names.collect::<Vec<_>>().join(",").into()),
        ("Networks", networks.join(",").into()),
        ("Ports", ports(&one.ports).into()),
        ("RunningFor", human::ago(now, one.created).into()),
        ("Size", written_bytes.into()),
        ("State", one.state.as_str().into()),
        ("Status", one.status.as_str().into()),
    ]);
    Ok((fields, labels.into_iter().map(|(key, value)| (key, table::printable(&value))).collect()))
}

fn mount_name(mount: &MountPoint, short: bool) -> String {
    let name = if mount.name.is_empty() { &mount.source } else { &mount.name };
    if short { table::ellipsis(name, 15) } else { name.clone() }
}

/// The image's name as it was given, without docker.io and digest; its id's begin, if it has no name any more.
fn image_name(one: &Summary, short: bool) -> String {
    let short_id = |id: &str| {
        let digits = id.strip_prefix("sha256:").unwrap_or(id);
        digits.get(..12).unwrap_or(digits).to_owned()
    };
    match one.image.as_str() {
        "" => "<no image>".to_owned(),
        name if !short => name.to_owned(),
        name if short_id(name) == short_id(&one.image_id) => short_id(name),
        name => match Reference::parse(name) {
            Ok(known) => {
                let bare = name.split('@').next().unwrap_or(name);
                let tagged = bare.rsplit('/').next().is_some_and(|last| last.contains(':'));
                let tag = known.tag.as_deref().filter(|_| tagged).map(|tag| format!(":{tag}"));
                known.familiar_name() + &tag.unwrap_or_default()
            }
            Err(_) => name.to_owned(),
        },
    }
}

/// As Go quotes a string (`%q`).
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        let _ = match c {
            '"' | '\\' => write!(out, "\\{c}"),
            '\x07' => write!(out, "\\a"),
            '\x08' => write!(out, "\\b"),
            '\x0c' => write!(out, "\\f"),
            '\n' => write!(out, "\\n"),
            '\r' => write!(out, "\\r"),
            '\t' => write!(out, "\\t"),
            '\x0b' => write!(out, "\\v"),
            '\0'..=' ' | '\x7f' if c != ' ' => write!(out, "\\x{:02x}", u32::from(c)),
            // What turns the direction of writing around is none that a terminal shall get, either.
            '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202f}' | '\u{2060}'..='\u{206f}' | '\u{feff}' => {
                write!(out, "\\u{:04x}", u32::from(c))
            }
            _ if c.is_control() || c.is_whitespace() && c != ' ' => write!(out, "\\u{:04x}", u32::from(c)),
            _ => write!(out, "{c}"),
        };
    }
    out.push('"');
    out
}

/// The column PORTS: neighbours that are published at their own numbers, or only exposed, are one range.
fn ports(ports: &[Port]) -> String {
    struct Range<'a> {
        ip: &'a str,
        protocol: &'a str,
        first: u16,
        last: u16,
    }
    let one = |range: &Range<'_>| {
        let Range { ip, protocol, first, last } = range;
        let numbers = if first == last { first.to_string() } else { format!("{first}-{last}") };
        match *ip {
            "" => format!("{numbers}/{protocol}"),
            ip => format!("{}:{numbers}->{numbers}/{protocol}", host(ip)),
        }
    };
    let mut ports: Vec<&Port> = ports.iter().collect();
    ports.sort_by(|a, b| {
        let key = |port: &Port| (port.private_port, port.ip.clone(), port.public_port, port.r#type.clone());
        key(a).cmp(&key(b))
    });
    // Those that cannot grow any more, in front of those that could, each of its own address and protocol.
    let (mut ended, mut open, mut others): (Vec<String>, Vec<Range<'_>>, Vec<String>) = Default::default();
    for port in ports {
        let Port { ip, private_port, public_port, r#type } = port;
        if !ip.is_empty() && public_port != private_port {
            others.push(format!("{}:{public_port}->{private_port}/{}", host(ip), r#type));
            continue;
        }
        match open.iter_mut().find(|range| range.ip == ip && range.protocol == r#type) {
            Some(range) if range.last.checked_add(1) == Some(*private_port) => range.last = *private_port,
            Some(range) => {
                ended.push(one(range));
                (range.first, range.last) = (*private_port, *private_port);
            }
            None => open.push(Range { ip, protocol: r#type, first: *private_port, last: *private_port }),
        }
    }
    ended.extend(open.iter().map(one));
    ended.extend(others);
    ended.join(", ")
}

/// An address before a port.
pub(super) fn host(ip: &str) -> String {
    if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::time::{Duration, Instant};

    fn port(ip: &str, private_port: u16, public_port: u16, protocol: &str) -> Port {
        Port { ip: ip.to_owned(), private_port, public_port, r#type: protocol.to_owned() }
    }

    // What is expected is what docker 28.2.2 prints of the same JSON.
    #[test]
    fn ports_are_told_as_docker_tells_them() {
        assert_eq!(ports(&[]), "");
        let both = [port("::", 80, 8080, "tcp"), port("0.0.0.0", 80, 8080, "tcp")];
        assert_eq!(ports(&both), "0.0.0.0:8080->80/tcp, [::]:8080->80/tcp");
        let mut many: Vec<Port> = (9000..9010).map(|n| port("", n, 0, "tcp")).collect();
        many.extend([80, 81, 82, 443].map(|n| port("0.0.0.0", n, n, "tcp")));
        many.extend([80, 81, 82].map(|n| port("::", n, n, "tcp")));
        many.extend([
            port("127.0.0.1", 53, 53, "udp"),
            port("0.0.0.0", 53, 53, "tcp"),
            port("", 53, 0, "udp"),
        ]);
        many.extend([port("0.0.0.0", 70, 7000, "tcp"), port("0.0.0.0", 71, 7001, "tcp")]);
        assert_eq!(
            ports(&many),
            "0.0.0.0:53->53/tcp, 0.0.0.0:80-82->80-82/tcp, 53/udp, 0.0.0.0:443->443/tcp, 127.0.0.1:53->53/udp, \
             [::]:80-82->80-82/tcp, 9000-9009/tcp, 0.0.0.0:7000->70/tcp, 0.0.0.0:7001->71/tcp"
        );
    }

    // moby 41834: minutes.
    #[test]
    fn exposing_every_port_does_not_slow_the_list() {
        let all: Vec<Port> = (1025..=65535).rev().map(|n| port("", n, 0, "tcp")).collect();
        let begin = Instant::now();
        assert_eq!(ports(&all), "1025-65535/tcp");
        let scattered: Vec<Port> = (1..=32767).map(|n| port("0.0.0.0", n * 2, n * 2, "tcp")).collect();
        assert_eq!(ports(&scattered).matches("->").count(), 32767);
        assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    }

    fn summary() -> Summary {
        serde_json::from_value(json!({
            "Id": "c0ffee".repeat(11)[..64], "Names": ["/web"], "Image": "busybox:latest",
            "ImageID": format!("sha256:{}", "ab".repeat(32)), "Command": "sh -c 'while true; do sleep 1; done'",
            "Created": 1_795_410_000, "State": "running", "Status": "Up 3 hours", "Labels": {"a": "b", "x": "y,z"},
            "NetworkSettings": {"Networks": {"bridge": {}, "anet": {}}},
            "Mounts": [
                {"Type": "volume", "Name": "a-volume-with-long-name", "Source": "/s", "Destination": "/d", "Driver": "local"},
                {"Type": "bind", "Source": "/srv/x", "Destination": "/y"},
            ],
        }))
        .expect("a summary")
    }

    fn listed(one: &Summary, short: bool, format: &str) -> String {
        let rows = vec![summary_row(one, short, 1_795_410_000 + 4 * 3600).expect("a row")];
        table::list_labelled(Some(format), USUAL, TITLES, rows).expect("a list")
    }

    #[test]
    fn a_container_is_listed_as_docker_lists_it() {
        assert_eq!(
            listed(&summary(), true, "table"),
            "CONTAINER ID   IMAGE            COMMAND                  CREATED       STATUS       PORTS     NAMES\n\
             c0ffeec0ffee   busybox:latest   \"sh -c 'while true; …\"   4 hours ago   Up 3 hours             web\n"
        );
        assert_eq!(
            listed(&summary(), true, "json"),
            "{\"Command\":\"\\\"sh -c 'while true; …\\\"\",\"CreatedAt\":\"2026-11-23 05:00:00 +0000 UTC\",\
             \"ID\":\"c0ffeec0ffee\",\"Image\":\"busybox:latest\",\"Labels\":\"a=b,x=y,z\",\"LocalVolumes\":\"1\",\
             \"Mounts\":\"a-volume-with-…,/srv/x\",\"Names\":\"web\",\"Networks\":\"anet,bridge\",\"Ports\":\"\",\
             \"RunningFor\":\"4 hours ago\",\"Size\":\"0B\",\"State\":\"running\",\"Status\":\"Up 3 hours\"}\n"
        );
        let labels = r#"table {{.ID}}\t{{.Label "x"}}\t{{.Label "no"}}"#;
        assert_eq!(
            listed(&summary(), true, labels),
            "CONTAINER ID   x         no\nc0ffeec0ffee   y,z       \n"
        );
        assert!(
            listed(&summary(), false, "{{.Command}} {{.Mounts}}")
                .contains("done'\" a-volume-with-long-name,")
        );
        let sized = Summary { size_rw: 1_234_567, size_root_fs: 98_765_432, ..summary() };
        assert_eq!(listed(&sized, true, "{{.Size}}"), "1.23MB (virtual 98.8MB)\n");
    }

    #[test]
    fn an_image_is_called_as_it_was_given() {
        let id = format!("sha256:{}", "ab".repeat(32));
        let digest = format!("@sha256:{}", "cd".repeat(32));
        for (given, shown) in [
            ("busybox", "busybox"),
            ("docker.io/library/busybox:1", "busybox:1"),
            (&format!("alpine{digest}"), "alpine"),
            (&format!("reg.io:5000/a/b:1{digest}"), "reg.io:5000/a/b:1"),
            ("reg.io:5000/a/b", "reg.io:5000/a/b"),
            (&id, "abababababab"),
            ("abababababab", "abababababab"),
            ("", "<no image>"),
        ] {
            let one = Summary { image: given.to_owned(), image_id: id.clone(), ..Summary::default() };
            assert_eq!(image_name(&one, true), shown);
        }
        let one = Summary { image: id.clone(), image_id: id.clone(), ..Summary::default() };
        assert_eq!(image_name(&one, false), id);
    }

    #[test]
    fn a_command_is_quoted_as_go_quotes() {
        assert_eq!(
            quoted("a\"b\\\n\x07é\x1b[31m\u{202e} \u{a0}\x7f"),
            "\"a\\\"b\\\\\\n\\aé\\x1b[31m\\u202e \\u00a0\\x7f\""
        );
    }
}
