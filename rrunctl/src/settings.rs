//! `daemon.json`: what the administrator sets for the whole engine, in Docker's file format.
//!
//! A key that has no effect here is refused, as Docker refuses one that it does not know: a setting that is silently
//! ignored is worse than none.

#![forbid(unsafe_code)]

use crate::error::{Error, Result};
use crate::home;
use serde::de::{self, Deserialize, Deserializer};
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, ToSocketAddrs as _};
use std::path::Path;
use std::str::FromStr;

/// The keys of the file, as an error lists them.
const KEYS: [&str; 9] = [
    "bip",
    "default-address-pools",
    "insecure-registries",
    "log-driver",
    "log-opts",
    "max-concurrent-downloads",
    "max-concurrent-uploads",
    "registry-mirrors",
    "storage-driver",
];

/// What is set for the whole engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Asked before Docker Hub, in turn; each an URL with a slash at its end.
    pub registry_mirrors: Vec<String>,
    /// Registries that may have no certificate, or no TLS; the loopback networks are always among them.
    pub insecure_registries: Vec<Insecure>,
    /// The address of the bridge of the network `bridge`, and its prefix.
    pub bip: Option<Cidr>,
    /// Where networks without a subnet get theirs from; empty where the file names none.
    pub default_address_pools: Vec<AddressPool>,
    /// Of containers that name none: `json-file` or `none`.
    pub log_driver: String,
    /// Of containers that name none: `max-size`, `max-file`.
    pub log_opts: BTreeMap<String, String>,
    /// Layers of one pull at a time; by default twice the CPUs, at least 3 and at most 8.
    pub max_concurrent_downloads: usize,
    /// Layers of one push at a time; 5 by default, as Docker's.
    pub max_concurrent_uploads: usize,
    /// What was accepted though Docker would not have, a line each.
    pub warnings: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        let cpus = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        Self {
            registry_mirrors: Vec::new(),
            insecure_registries: vec![
                Insecure::Net(Cidr { address: IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), prefix: 8 }),
                Insecure::Net(Cidr { address: IpAddr::V6(Ipv6Addr::LOCALHOST), prefix: 128 }),
            ],
            bip: None,
            default_address_pools: Vec::new(),
            log_driver: "json-file".to_owned(),
            log_opts: BTreeMap::new(),
            max_concurrent_downloads: (2 * cpus).clamp(3, 8),
            max_concurrent_uploads: 5,
            warnings: Vec::new(),
        }
    }
}

impl Settings {
    /// Reads `path`; nothing where there is no such file.
    ///
    /// # Errors
    /// The file cannot be read, is no JSON, or has a key or a value that is not valid; the text has the line and the
    /// column where there are any.
    pub fn read(path: &Path) -> Result<Option<Self>> {
        let Some(bytes) = home::read(path)? else { return Ok(None) };
        let text = std::str::from_utf8(&bytes).map_err(|e| {
            Error::invalid(format!("{}: not UTF-8 at byte {}", path.display(), e.valid_up_to()))
        })?;
        // Docker takes an empty file for one with `{}`.
        if text.trim().is_empty() {
            return Ok(Some(Self::default()));
        }
        Self::parse(text).map(Some).map_err(|e| Error::invalid(format!("{}:{e}", path.display())))
    }

    /// Reads the text of such a file.
    ///
    /// # Errors
    /// As [`Settings::read`]; the text begins with `LINE:COLUMN: ` or a blank.
    pub fn parse(text: &str) -> Result<Self> {
        let keys: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(text).map_err(|e| broken(text, &e))?;
        let unknown: Vec<&str> = keys.keys().map(String::as_str).filter(|key| !KEYS.contains(key)).collect();
        if !unknown.is_empty() {
            return Err(Error::invalid(format!(
                " the following directives don't match any configuration option: {}",
                unknown.join(", ")
            ))
            .remedy(format!("known: {}", KEYS.join(", "))));
        }
        let file: File = serde_json::from_str(text).map_err(|e| broken(text, &e))?;
        let mut settings = Self {
            registry_mirrors: file.registry_mirrors.into_iter().map(|mirror| mirror.0).collect(),
            bip: file.bip,
            log_opts: file.log_opts,
            ..Self::default()
        };
        match settings.log_opts.get("compress").map(String::as_str) {
            None | Some("0" | "f" | "F" | "false" | "False" | "FALSE") => {}
            Some("1" | "t" | "T" | "true" | "True" | "TRUE") => {
                return Err(Error::invalid(
                    " log-opts: compress is not supported: rotated logs stay as they are",
                )
                .remedy("leave it out, and take max-size and max-file for the room that there is"));
            }
            Some(other) => {
                return Err(Error::invalid(format!(" log-opts: invalid value for compress: {other:?}")));
            }
        }
        for (entry, warning) in file.insecure_registries.into_iter().map(|entry| (entry.0, entry.1)) {
            settings.insecure_registries.push(entry);
            settings.warnings.extend(warning);
        }
        for pool in file.default_address_pools {
            settings.pool(&pool)?;
        }
        if let Some(driver) = file.log_driver {
            settings.log_driver = driver.0;
        }
        if let Some(most) = file.max_concurrent_downloads {
            settings.max_concurrent_downloads = most.get();
        }
        if let Some(most) = file.max_concurrent_uploads {
            settings.max_concurrent_uploads = most.get();
        }
        Ok(settings)
    }

    /// Adds what `--insecure-registry` names: `HOST`, `HOST:PORT` or `ADDRESS/PREFIX`.
    ///
    /// # Errors
    /// It is none of these.
    pub fn add_insecure_registry(&mut self, entry: &str) -> Result<()> {
        let (entry, warning) = Insecure::parse(entry).map_err(Error::invalid)?;
        self.insecure_registries.push(entry);
        self.warnings.extend(warning);
        Ok(())
    }

    /// Whether the registry `HOST[:PORT]` may have no certificate, or no TLS. A name is looked up where networks beside
    /// the loopback ones are listed.
    pub fn is_insecure(&self, registry: &str) -> bool {
        let (host, _) = split_port(registry);
        if host.eq_ignore_ascii_case("localhost") {
            return true;
        }
        let listed = self.insecure_registries.iter().any(|entry| match entry {
            Insecure::Host(name) => name.eq_ignore_ascii_case(registry),
            Insecure::Net(_) => false,
        });
        if listed {
            return true;
        }
        let nets: Vec<&Cidr> = self
            .insecure_registries
            .iter()
            .filter_map(|entry| match entry {
                Insecure::Net(net) => Some(net),
                Insecure::Host(_) => None,
            })
            .collect();
        match host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            Ok(address) => nets.iter().any(|net| net.contains(address)),
            Err(_) if nets.iter().all(|net| net.address.is_loopback()) => false,
            // Whoever forges the answer is still confined to the networks that the administrator trusts.
            Err(_) => (host, 0).to_socket_addrs().is_ok_and(|mut found| {
                found.any(|address| {
                    nets.iter().any(|net| !net.address.is_loopback() && net.contains(address.ip()))
                })
            }),
        }
    }

    fn pool(&mut self, pool: &PoolFile) -> Result<()> {
        let base = pool.base.network();
        if base != pool.base {
            self.warnings
                .push(format!("default-address-pools: {} has host bits set: {base} is used", pool.base));
        }
        let size = match &pool.size {
            Size::Prefix(size) => *size,
            Size::Mask(mask) => {
                let size = prefix_of(mask, base.address).ok_or_else(|| {
                    Error::invalid(format!(" default-address-pools: size {mask:?} is no netmask"))
                })?;
                self.warnings.push(format!("default-address-pools: size {mask:?} is read as {size}"));
                size
            }
        };
        if size < base.prefix || size > base.bits() {
            return Err(Error::invalid(format!(
                " default-address-pools: size {size} of {base} is not between {} and {}",
                base.prefix,
                base.bits()
            )));
        }
        self.default_address_pools.push(AddressPool { base, size });
        Ok(())
    }
}

/// A registry, or a network of registries, that may have no certificate, or no TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Insecure {
    /// Every registry at an address of it.
    Net(Cidr),
    /// `HOST:PORT`, or `HOST` where names have no port.
    Host(String),
}

impl Insecure {
    fn parse(text: &str) -> Result<(Self, Option<String>), String> {
        let scheme = ["http://", "https://"].into_iter().find(|scheme| text.starts_with(scheme));
        let name = text.strip_prefix(scheme.unwrap_or_default()).unwrap_or(text);
        let warning = scheme.map(|scheme| {
            format!("insecure registry {text} should not contain {scheme:?}, which has been removed from it")
        });
        if name.contains('/') {
            return Ok((Self::Net(name.parse::<Cidr>()?.network()), warning));
        }
        let (host, port) = split_port(name);
        let port_is_right = port.is_none_or(|port| port.parse::<u16>().is_ok());
        let strange = |c: char| !(c.is_ascii_alphanumeric() || "-._:[]".contains(c));
        if host.is_empty() || host.starts_with('-') || host.contains(strange) || !port_is_right {
            return Err(format!("insecure registry {text:?} is not valid"));
        }
        Ok((Self::Host(name.to_owned()), warning))
    }
}

impl fmt::Display for Insecure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Net(net) => fmt::Display::fmt(net, f),
            Self::Host(name) => f.write_str(name),
        }
    }
}

/// A network that subnets are cut from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressPool {
    /// Without host bits.
    pub base: Cidr,
    /// The prefix of each subnet.
    pub size: u8,
}

/// An address and how many of its bits name the network: `172.17.0.1/16`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    /// With its host bits.
    pub address: IpAddr,
    /// At most 32 or 128.
    pub prefix: u8,
}

impl Cidr {
    /// How many bits an address of this family has.
    pub fn bits(&self) -> u8 {
        if self.address.is_ipv4() { 32 } else { 128 }
    }

    /// The same without host bits.
    pub fn network(&self) -> Self {
        let host = u32::from(self.bits() - self.prefix);
        let address = match self.address {
            IpAddr::V4(a) => {
                Ipv4Addr::from_bits(a.to_bits() & u32::MAX.checked_shl(host).unwrap_or_default()).into()
            }
            IpAddr::V6(a) => {
                Ipv6Addr::from_bits(a.to_bits() & u128::MAX.checked_shl(host).unwrap_or_default()).into()
            }
        };
        Self { address, ..*self }
    }

    /// Whether `address` is in the network; an IPv4 address written as an IPv6 one counts as the IPv4 one.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.address.is_ipv4()
            && Self { address, ..*self }.network().address == self.network().address
    }
}

impl FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("invalid CIDR address: {text}");
        let (address, prefix) = text.split_once('/').ok_or_else(wrong)?;
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let prefix: u8 = prefix.parse().map_err(|_| wrong())?;
        let net = Self { address, prefix };
        if prefix > net.bits() { Err(wrong()) } else { Ok(net) }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl<'de> Deserialize<'de> for Cidr {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(de::Error::custom)
    }
}

/// `HOST` and `PORT` of `HOST[:PORT]`, where HOST may be an IPv6 address in brackets.
pub(crate) fn split_port(registry: &str) -> (&str, Option<&str>) {
    match registry.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') && (!host.contains(':') || host.ends_with(']')) => {
            (host, Some(port))
        }
        _ => (registry, None),
    }
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "kebab-case", default)]
#[derive(Default)]
struct File {
    registry_mirrors: Vec<Mirror>,
    insecure_registries: Vec<InsecureEntry>,
    bip: Option<Cidr>,
    default_address_pools: Vec<PoolFile>,
    log_driver: Option<LogDriver>,
    log_opts: BTreeMap<String, String>,
    max_concurrent_downloads: Option<std::num::NonZero<usize>>,
    max_concurrent_uploads: Option<std::num::NonZero<usize>>,
    /// There is one; another is an error.
    #[serde(rename = "storage-driver")]
    _storage_driver: Option<StorageDriver>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct PoolFile {
    base: Cidr,
    size: Size,
}

#[derive(serde::Deserialize)]
#[serde(untagged, expecting = "size is a number of bits (16) or a netmask (\"255.255.0.0\")")]
enum Size {
    Prefix(u8),
    Mask(String),
}

/// How many bits `mask` sets, which is one of the family of `base`: `255.255.0.0`, or a number in quotes.
fn prefix_of(mask: &str, base: IpAddr) -> Option<u8> {
    if let Ok(prefix) = mask.parse() {
        return Some(prefix);
    }
    let IpAddr::V4(_) = base else { return None };
    let bits = mask.parse::<Ipv4Addr>().ok()?.to_bits();
    let ones = bits.leading_ones();
    (ones + bits.trailing_zeros() == 32 || bits == u32::MAX).then(|| u8::try_from(ones).unwrap_or(32))
}

struct Mirror(String);

impl<'de> Deserialize<'de> for Mirror {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        let uri: ureq::http::Uri = text
            .parse()
            .map_err(|e| de::Error::custom(format!("invalid mirror: {text:?} is no URL: {e}")))?;
        let wrong = match uri.scheme_str() {
            Some("http" | "https") if uri.authority().is_some_and(|a| a.as_str().contains('@')) => {
                "username/password not allowed in URI"
            }
            Some("http" | "https") if uri.query().is_some() || text.contains('#') => {
                "query or fragment at the end of the URI"
            }
            Some("http" | "https") => return Ok(Self(format!("{}/", text.trim_end_matches('/')))),
            _ => "unsupported scheme",
        };
        Err(de::Error::custom(format!("invalid mirror: {wrong}: {text:?}")))
    }
}

struct InsecureEntry(Insecure, Option<String>);

impl<'de> Deserialize<'de> for InsecureEntry {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let (entry, warning) = Insecure::parse(&String::deserialize(d)?).map_err(de::Error::custom)?;
        Ok(Self(entry, warning))
    }
}

struct LogDriver(String);

impl<'de> Deserialize<'de> for LogDriver {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let name = String::deserialize(d)?;
        match name.as_str() {
            "json-file" | "none" => Ok(Self(name)),
            _ => Err(de::Error::custom(format!(
                "log-driver {name:?} is not supported: json-file and none are"
            ))),
        }
    }
}

struct StorageDriver;

impl<'de> Deserialize<'de> for StorageDriver {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let name = String::deserialize(d)?;
        match name.as_str() {
            "overlay2" | "overlay" => Ok(Self),
            _ => Err(de::Error::custom(format!("storage-driver {name:?} is not supported: overlay2 is"))),
        }
    }
}

/// `LINE:COLUMN: what`, where a column is a character, not a byte.
fn broken(text: &str, e: &serde_json::Error) -> Error {
    // Course texts and word processors write “key”; the parser would only say what it expected instead.
    if (e.is_syntax() || e.is_eof())
        && let Some((line, column, mark)) = typographic_quote(text)
    {
        return Error::invalid(format!(
            "{line}:{column}: {mark} (U+{:04X}) is no quotation mark of JSON",
            u32::from(mark)
        ))
        .remedy("write \" instead");
    }
    let what = e.to_string();
    let what = what.split(" at line ").next().unwrap_or(&what);
    let line = text.split('\n').nth(e.line().saturating_sub(1)).unwrap_or_default();
    let column = line.char_indices().take_while(|(at, _)| *at < e.column()).count();
    Error::invalid(format!("{}:{column}: {what}", e.line()))
}

/// The first one that is not inside of a string.
fn typographic_quote(text: &str) -> Option<(usize, usize, char)> {
    let (mut line, mut column, mut inside, mut escaped) = (1, 0, false, false);
    for c in text.chars() {
        column += 1;
        match c {
            '\n' => (line, column, inside) = (line + 1, 0, false),
            '"' if !escaped => inside = !inside,
            '“' | '”' | '„' | '‟' | '‘' | '’' | '«' | '»' | '＂' if !inside => {
                return Some((line, column, c));
            }
            _ => {}
        }
        escaped = inside && c == '\\' && !escaped;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        Settings::parse(text).expect_err("must be refused").to_string()
    }

    #[test]
    fn the_file_of_the_courses_is_read() {
        let settings = Settings::parse(
            r#"{
                "registry-mirrors": ["https://abc.mirror.example", "http://127.0.0.1:5001/"],
                "insecure-registries": ["10.0.0.1/8", "http://host:5002", "plain"],
                "bip": "172.17.0.1/16",
                "default-address-pools": [{"base": "172.17.0.1/16", "size": "255.255.0.0"}, {"base": "10.9.0.0/16", "size": 24}],
                "log-driver": "json-file", "log-opts": {"max-size": "10m", "max-file": "3"},
                "storage-driver": "overlay2", "max-concurrent-downloads": 2
            }"#,
        )
        .expect("valid");
        assert_eq!(settings.registry_mirrors, ["https://abc.mirror.example/", "http://127.0.0.1:5001/"]);
        let listed: Vec<String> = settings.insecure_registries.iter().map(ToString::to_string).collect();
        assert_eq!(listed, ["127.0.0.0/8", "::1/128", "10.0.0.0/8", "host:5002", "plain"]);
        assert_eq!(settings.bip.expect("set").to_string(), "172.17.0.1/16");
        let pools: Vec<String> = settings
            .default_address_pools
            .iter()
            .map(|pool| format!("{} {}", pool.base, pool.size))
            .collect();
        assert_eq!(pools, ["172.17.0.0/16 16", "10.9.0.0/16 24"]);
        assert_eq!(settings.log_opts["max-size"], "10m");
        assert_eq!(settings.max_concurrent_downloads, 2);
        assert_eq!(settings.warnings.len(), 3, "{:?}", settings.warnings);
    }

    #[test]
    fn an_empty_file_and_a_missing_one_set_nothing() {
        let dir = std::env::temp_dir().join(format!("rrunctl-settings-{}", home::unique().expect("random")));
        assert_eq!(Settings::read(&dir).expect("no error"), None);
        std::fs::write(&dir, "\n").expect("write");
        assert_eq!(Settings::read(&dir).expect("no error"), Some(Settings::default()));
        std::fs::write(&dir, "{").expect("write");
        let error = Settings::read(&dir).expect_err("cut").to_string();
        assert!(error.starts_with(&format!("{}:1:1: EOF", dir.display())), "{error}");
        std::fs::remove_file(&dir).expect("remove");
    }

    #[test]
    fn typographic_quotes_are_named_with_line_and_column() {
        let error = error("{\n  “registry-mirrors”: [“https://x”]\n}");
        assert_eq!(error, "2:3: “ (U+201C) is no quotation mark of JSON (write \" instead)");
        assert!(Settings::parse(r#"{"log-opts": {"tag": "“x”"}}"#).is_ok());
    }

    #[test]
    fn what_is_no_json_is_told_with_line_and_column() {
        assert_eq!(error("{\n  \"bip\": \"172.17.0.1/16\",\n}"), "3:1: trailing comma");
        assert_eq!(error("{\"bip\": \"172.17.0.1\"}"), "1:21: invalid CIDR address: 172.17.0.1");
        assert_eq!(error("{\"bip\":\n  17}"), "2:4: invalid type: integer `17`, expected a string");
        assert!(error("{\"bip\": null,\n\"bip\": null}").contains("duplicate field"));
    }

    #[test]
    fn a_key_without_effect_is_refused_and_the_known_ones_are_listed() {
        let error = error(r#"{"bip": null, "live-restore": true, "hosts": []}"#);
        assert!(error.starts_with(
            "the following directives don't match any configuration option: live-restore, hosts"
        ));
        assert!(error.contains("registry-mirrors"), "{error}");
    }

    #[test]
    fn values_that_cannot_be_are_refused() {
        for (text, told) in [
            (r#"{"registry-mirrors": ["ftp://x"]}"#, "unsupported scheme"),
            (r#"{"registry-mirrors": ["https://u:p@x"]}"#, "username/password"),
            (r#"{"registry-mirrors": ["https://x/?y"]}"#, "query or fragment"),
            (r#"{"insecure-registries": ["10.0.0.0/33"]}"#, "invalid CIDR"),
            (r#"{"insecure-registries": ["-x"]}"#, "not valid"),
            (r#"{"insecure-registries": ["x:99999"]}"#, "not valid"),
            (r#"{"default-address-pools": [{"base": "10.0.0.0/16", "size": 8}]}"#, "not between 16 and 32"),
            (r#"{"default-address-pools": [{"base": "10.0.0.0/8", "size": "255.0.255.0"}]}"#, "no netmask"),
            (r#"{"default-address-pools": [{"base": "fd00::/8", "size": "255.255.0.0"}]}"#, "no netmask"),
            (r#"{"log-driver": "syslog"}"#, "not supported"),
            (r#"{"storage-driver": "btrfs"}"#, "not supported"),
            (r#"{"max-concurrent-downloads": 0}"#, "nonzero"),
            ("[]", "map"),
        ] {
            let error = error(text);
            assert!(error.contains(told), "{text}: {error}");
        }
    }

    #[test]
    fn rotated_logs_are_not_compressed_and_who_asks_for_it_is_told() {
        let e = error(r#"{"log-opts": {"max-size": "1m", "compress": "true"}}"#);
        assert!(e.contains("compress") && e.contains("not supported"), "{e}");
        let e = error(r#"{"log-opts": {"compress": "gzip"}}"#);
        assert!(e.contains("invalid value"), "{e}");
        assert!(Settings::parse(r#"{"log-opts": {"compress": "false"}}"#).is_ok());
    }

    #[test]
    fn loopback_is_insecure_and_others_only_where_listed() {
        let mut settings = Settings::default();
        for registry in
            ["localhost:5000", "127.0.0.1:5000", "127.9.9.9", "[::1]:5000", "[::ffff:127.0.0.1]:1"]
        {
            assert!(settings.is_insecure(registry), "{registry}");
        }
        for registry in ["docker.io", "10.1.2.3:5000", "host:5002", "host", "[::2]:5000", "1127.0.0.1"] {
            assert!(!settings.is_insecure(registry), "{registry}");
        }
        settings.add_insecure_registry("host:5002").expect("valid");
        settings.add_insecure_registry("any").expect("valid");
        settings.add_insecure_registry("10.0.0.0/8").expect("valid");
        for registry in ["HOST:5002", "any", "10.1.2.3:5000"] {
            assert!(settings.is_insecure(registry), "{registry}");
        }
        for registry in ["host:5003", "host", "any:5000", "11.1.2.3:5000"] {
            assert!(!settings.is_insecure(registry), "{registry}");
        }
    }

    #[test]
    fn a_prefix_of_none_and_of_all_bits_is_right() {
        for (net, inside, outside) in [
            ("0.0.0.0/0", "1.2.3.4", "::1"),
            ("1.2.3.4/32", "1.2.3.4", "1.2.3.5"),
            ("::/0", "fe80::1", "1.2.3.4"),
            ("fd00::1/128", "fd00::1", "fd00::2"),
        ] {
            let net: Cidr = net.parse().expect("valid");
            assert!(net.contains(inside.parse().expect("valid")), "{net}");
            assert!(!net.contains(outside.parse().expect("valid")), "{net}");
        }
    }
}
