//! `ps --filter`: which containers a list is to have.

#![forbid(unsafe_code)]

use super::Engine;
use crate::container::record::Container;
use crate::container::types::State;
use crate::error::{Error, Kind, Result};
use regex_lite::Regex;
use std::collections::{BTreeMap, BTreeSet};

/// What there is to filter by.
pub const FILTERS: [&str; 14] = [
    "ancestor", "before", "exited", "expose", "health", "id", "is-task", "label", "name", "network",
    "publish", "since", "status", "volume",
];
const STATUSES: [&str; 7] = ["created", "restarting", "running", "removing", "paused", "exited", "dead"];
const HEALTHS: [&str; 4] = ["none", "starting", "healthy", "unhealthy"];
/// A pattern is somebody's who may be far away: what it compiles to is no larger.
const PATTERN: usize = 1 << 20;

/// Which containers a list is to have.
#[derive(Debug, Clone, Default)]
pub struct Filters {
    /// Also those that do not run.
    pub all: bool,
    /// Their sizes, too: every file of theirs is looked at.
    pub size: bool,
    /// Only so many, the newest, whether they run or not.
    pub limit: Option<usize>,
    /// Docker's, each with its values, of which one is enough; of labels all are wanted.
    pub given: BTreeMap<String, Vec<String>>,
}

/// What a container does to a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Shown,
    Hidden,
    /// It hides all that are older, too.
    Last,
}

/// [`Filters`], with what they name looked up.
#[derive(Debug, Default)]
pub(super) struct Chosen {
    all: bool,
    names: Vec<Regex>,
    before: Option<String>,
    since: Option<String>,
    images: Option<BTreeSet<String>>,
    exited: Vec<i64>,
    published: Vec<Ports>,
    exposed: Vec<Ports>,
    task: Option<bool>,
    given: BTreeMap<String, Vec<String>>,
}

/// `80`, `8080/udp`, `80-85/tcp`.
#[derive(Debug)]
struct Ports {
    first: u16,
    last: u16,
    protocol: String,
}

impl Ports {
    fn parse(key: &str, text: &str) -> Result<Self> {
        let invalid = || {
            Error::invalid(format!("invalid filter '{key}={text}'"))
                .remedy("a port inside, or a range: 80, 80-85/tcp")
        };
        let (numbers, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let (first, last) = numbers.split_once('-').unwrap_or((numbers, numbers));
        let number = |text: &str| text.parse::<u16>().map_err(|_| invalid());
        let ports = Self { first: number(first)?, last: number(last)?, protocol: protocol.to_lowercase() };
        if ports.first > ports.last || !["tcp", "udp", "sctp"].contains(&ports.protocol.as_str()) {
            return Err(invalid());
        }
        Ok(ports)
    }

    /// Whether it is one of them: `80/tcp`.
    fn has(&self, port: &str) -> bool {
        let (number, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
        protocol == self.protocol
            && number.parse().is_ok_and(|number: u16| (self.first..=self.last).contains(&number))
    }
}

impl Engine {
    /// Looks up what filters name.
    ///
    /// # Errors
    /// A filter or a value that there is not; `before` and `since` a container that there is not.
    pub(super) fn choose(&self, filters: &Filters) -> Result<Chosen> {
        let mut chosen = Chosen {
            all: filters.all || filters.limit.is_some(),
            given: filters.given.clone(),
            ..Chosen::default()
        };
        for (key, values) in &filters.given {
            for value in values {
                let invalid = || Error::invalid(format!("invalid filter '{key}={value}'"));
                let one_of = |known: &[&str]| match known.contains(&value.as_str()) {
                    true => Ok(()),
                    false => Err(invalid().remedy(format!("there are {}", known.join(" ")))),
                };
                match key.as_str() {
                    "name" => chosen
                        .names
                        .push(pattern(value).ok_or_else(|| invalid().remedy("a regular expression"))?),
                    "status" => {
                        one_of(&STATUSES)?;
                        chosen.all = true;
                    }
                    "health" => one_of(&HEALTHS)?,
                    "exited" => {
                        chosen.exited.push(value.parse().map_err(|_| invalid().remedy("an exit code"))?)
                    }
                    "before" => chosen.before = Some(self.resolve(value)?),
                    "since" => chosen.since = Some(self.resolve(value)?),
                    "publish" => chosen.published.push(Ports::parse(key, value)?),
                    "expose" => chosen.exposed.push(Ports::parse(key, value)?),
                    "is-task" => {
                        one_of(&["true", "false", "1", "0"])?;
                        chosen.task = Some(value == "true" || value == "1");
                    }
                    "ancestor" => chosen.images.get_or_insert_default().append(&mut self.descendants(value)?),
                    "id" | "label" | "network" | "volume" => {}
                    _ => {
                        let known = FILTERS.join(" ");
                        return Err(Error::invalid(format!("invalid filter {key:?}"))
                            .remedy(format!("there are {known}")));
                    }
                }
            }
        }
        Ok(chosen)
    }

    /// The ids of an image and of those that were committed from it; none, if there is no such image.
    fn descendants(&self, name: &str) -> Result<BTreeSet<String>> {
        let images = self.store.images();
        let ancestor = match images.resolve(name) {
            Err(e) if matches!(e.kind(), Kind::NotFound | Kind::Invalid) => return Ok(BTreeSet::new()),
            image => image?.id,
        };
        let mut ids = BTreeSet::from([ancestor]);
        let all = images.list()?;
        loop {
            let known = ids.len();
            let children =
                all.iter().filter(|image| image.parent.is_some_and(|parent| ids.contains(&parent)));
            let children: Vec<_> = children.map(|image| image.id).collect();
            ids.extend(children);
            if ids.len() == known {
                return Ok(ids.iter().map(ToString::to_string).collect());
            }
        }
    }
}

fn pattern(text: &str) -> Option<Regex> {
    regex_lite::RegexBuilder::new(text).size_limit(PATTERN).build().ok()
}

impl Chosen {
    /// Without its state, which somebody has to be asked for. From the newest to the oldest, as `before` and `since`
    /// are about the place in the list.
    pub(super) fn by_record(&mut self, container: &Container) -> Verdict {
        let (record, host) = (&container.record, &container.host);
        if let Some(before) = &self.before {
            if *before == record.id {
                self.before = None;
            }
            return Verdict::Hidden;
        }
        if self.since.as_ref().is_some_and(|since| *since == record.id) {
            return Verdict::Last;
        }
        let any = |key: &str, fits: &dyn Fn(&str) -> bool| {
            self.given.get(key).is_none_or(|values| values.iter().any(|value| fits(value)))
        };
        // With the slash, too: `^/web$` is what people write.
        let named = |pattern: &Regex| {
            pattern.is_match(&record.name) || pattern.is_match(record.name.trim_start_matches('/'))
        };
        let labelled = |value: &String| match value.split_once('=') {
            Some((key, value)) => record.config.labels.get(key).is_some_and(|known| known == value),
            None => record.config.labels.contains_key(value),
        };
        let published = || {
            let asked = host.port_bindings.keys();
            let found = record.network_settings.ports.iter().filter(|(_, bindings)| !bindings.is_empty());
            asked.chain(found.map(|(port, _)| port))
        };
        let exposed = || record.config.exposed_ports.keys();
        let shown = (self.names.is_empty() || self.names.iter().any(named))
            && any("id", &|value| record.id.starts_with(value))
            && self.given.get("label").is_none_or(|values| values.iter().all(labelled))
            && self.images.as_ref().is_none_or(|images| images.contains(&record.image))
            && any("volume", &|value| {
                let mut points = record.mount_points.values();
                points.any(|point| {
                    let name = if point.name.is_empty() { &point.source } else { &point.name };
                    name == value || point.destination == value
                })
            })
            && any("network", &|value| {
                let mut networks = record.network_settings.networks.iter();
                networks.any(|(name, one)| {
                    name == value || one.as_ref().is_some_and(|one| one.network_id.starts_with(value))
                })
            })
            && (self.published.is_empty() || published().any(|port| self.published.iter().any(|all| all.has(port))))
            && (self.exposed.is_empty() || exposed().any(|port| self.exposed.iter().any(|all| all.has(port))))
            // Of a swarm; here none is.
            && self.task != Some(true);
        if shown { Verdict::Shown } else { Verdict::Hidden }
    }

    /// With its state.
    pub(super) fn by_state(&self, state: &State) -> bool {
        let any = |key: &str, is: &str| {
            self.given.get(key).is_none_or(|values| values.iter().any(|value| value == is))
        };
        let health = state.health.as_ref().map_or("none", |health| health.status.as_str());
        let ended = !state.running && state.status != "created" && self.exited.contains(&state.exit_code);
        (self.all || state.running)
            && any("status", &state.status)
            && any("health", if health.is_empty() { "none" } else { health })
            && (self.exited.is_empty() || ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::record::Record;
    use crate::container::types::{Health, HostConfig};
    use serde_json::json;

    fn container() -> Container {
        let record: Record = serde_json::from_value(json!({
            "ID": "c0ffee", "Name": "/web-1", "Image": "sha256:aa",
            "Config": {"Labels": {"a": "1", "b": ""}, "ExposedPorts": {"9/udp": {}, "8000/tcp": {}}},
            "MountPoints": {"/data": {"Name": "vol", "Source": "/s", "Destination": "/data"},
                "/etc/x": {"Source": "/srv/x", "Destination": "/etc/x"}},
            "NetworkSettings": {"Networks": {"mynet": {"NetworkID": "abcdef"}},
                "Ports": {"70/tcp": [{"HostIp": "", "HostPort": "32768"}]}},
        }))
        .expect("a record");
        let host: HostConfig =
            serde_json::from_value(json!({"PortBindings": {"80/tcp": [{"HostPort": "8080"}]}}))
                .expect("a host");
        Container { record, host }
    }

    fn chosen(given: &[(&str, &str)]) -> Chosen {
        let mut chosen = Chosen::default();
        for (key, value) in given {
            match *key {
                "name" => chosen.names.push(pattern(value).expect("a pattern")),
                "publish" => chosen.published.push(Ports::parse(key, value).expect("ports")),
                "expose" => chosen.exposed.push(Ports::parse(key, value).expect("ports")),
                _ => chosen.given.entry((*key).to_owned()).or_default().push((*value).to_owned()),
            }
        }
        chosen
    }

    #[test]
    fn a_container_is_shown_by_what_it_is() {
        let shown = |given: &[(&str, &str)]| chosen(given).by_record(&container()) == Verdict::Shown;
        for given in [
            ("name", "web"),
            ("name", "^/web-1$"),
            ("name", "^web-.$"),
            ("id", "c0f"),
            ("label", "a"),
            ("label", "a=1"),
            ("label", "b="),
            ("volume", "vol"),
            ("volume", "/data"),
            ("volume", "/srv/x"),
            ("network", "mynet"),
            ("network", "abc"),
            ("publish", "80"),
            ("publish", "79-81/tcp"),
            ("publish", "70"),
            ("expose", "9/udp"),
            ("expose", "7999-8001"),
        ] {
            assert!(shown(&[given]), "{given:?}");
        }
        for given in [
            ("name", "^eb"),
            ("id", "0ff"),
            ("label", "c"),
            ("label", "a=2"),
            ("volume", "vo"),
            ("volume", "/s"),
            ("network", "my"),
            ("publish", "8080"),
            ("publish", "80/udp"),
            ("expose", "80"),
            ("expose", "9"),
        ] {
            assert!(!shown(&[given]), "{given:?}");
        }
        // Of names one is enough, of labels all are wanted, and of different keys too.
        assert!(shown(&[("name", "db"), ("name", "web")]));
        assert!(!shown(&[("label", "a"), ("label", "c")]));
        assert!(!shown(&[("name", "web"), ("label", "c")]));
    }

    #[test]
    fn a_container_is_shown_by_what_it_is_at() {
        let at = |status: &str, exit_code: i64| State {
            status: status.into(),
            running: ["running", "paused", "restarting"].contains(&status),
            exit_code,
            ..State::default()
        };
        assert!(Chosen::default().by_state(&at("paused", 0)));
        assert!(!Chosen::default().by_state(&at("exited", 0)));
        let all = |given: &[(&str, &str)]| Chosen { all: true, ..chosen(given) };
        assert!(all(&[("status", "created"), ("status", "exited")]).by_state(&at("exited", 0)));
        assert!(!all(&[("status", "exited")]).by_state(&at("running", 0)));
        let three = Chosen { all: true, exited: vec![3], ..Chosen::default() };
        assert!(three.by_state(&at("exited", 3)));
        assert!(!three.by_state(&at("exited", 0)) && !three.by_state(&at("running", 3)));
        let zero = Chosen { all: true, exited: vec![0], ..Chosen::default() };
        assert!(!zero.by_state(&at("created", 0)), "it never ran");
        let healthy = State {
            health: Some(Health { status: "healthy".into(), ..Health::default() }),
            ..at("running", 0)
        };
        assert!(all(&[("health", "healthy")]).by_state(&healthy));
        assert!(all(&[("health", "none")]).by_state(&at("running", 0)));
        assert!(!all(&[("health", "none")]).by_state(&healthy));
    }

    #[test]
    fn before_and_since_are_about_the_place_in_the_list() {
        let named = |id: &str| {
            let mut one = container();
            one.record.id = id.to_owned();
            one
        };
        let all: Vec<_> = ["newest", "newer", "old", "oldest"].map(named).into();
        let mut chosen =
            Chosen { before: Some("newest".into()), since: Some("oldest".into()), ..Chosen::default() };
        let verdicts: Vec<_> = all.iter().map(|one| chosen.by_record(one)).collect();
        assert_eq!(verdicts, [Verdict::Hidden, Verdict::Shown, Verdict::Shown, Verdict::Last]);
    }

    #[test]
    fn ports_and_patterns_that_are_none_are_refused() {
        for bad in ["", "x", "80-", "85-80", "65536", "80:80", "80/icmp", "80/tcp/udp", "-1"] {
            assert!(Ports::parse("publish", bad).is_err(), "{bad}");
        }
        assert!(pattern("(").is_none());
        assert!(pattern(&"(a{1000}){1000}".repeat(50)).is_none(), "it would take all memory");
    }
}
