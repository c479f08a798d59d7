//! `linux.netDevices`: which network devices move into the container, and under which name.

#![forbid(unsafe_code)]

use super::{Kind, Namespaces};
use crate::error::{Error, Result};
use crate::spec;
use std::fmt;

/// A device to move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetDevice {
    /// Its name in the runtime's namespace.
    pub host: String,
    /// Its name in the container; one that ends in `%d` is a template for the kernel to fill.
    pub container: String,
}

impl NetDevice {
    /// Whether the kernel chooses the number in the name.
    pub fn is_template(&self) -> bool {
        self.container.ends_with("%d")
    }
}

/// Decides `linux.netDevices`, sorted by the name on the host.
///
/// # Errors
/// A name the kernel would not take, two devices of one name, no network namespace to move to.
pub fn build(linux: &spec::Linux, namespaces: &Namespaces) -> Result<Vec<NetDevice>> {
    if linux.net_devices.is_empty() {
        return Ok(Vec::new());
    }
    if !namespaces.has(Kind::Network) {
        let text = "unable to move network devices without a NET namespace";
        return Err(Error::config("linux.netDevices", text));
    }
    let mut out: Vec<NetDevice> = Vec::with_capacity(linux.net_devices.len());
    for (host, device) in &linux.net_devices {
        let at = format!("linux.netDevices.{host:?}");
        if let Some(fault) = fault(host) {
            return Err(Error::config(at, format!("invalid network device name {host:?}: {fault}")));
        }
        let at = format!("{at}.name");
        let container = if device.name.is_empty() { host } else { &device.name };
        if let Some(fault) = fault(container).or_else(|| template_fault(container)) {
            return Err(Error::config(at, format!("invalid network device name {container:?}: {fault}")));
        }
        let device = NetDevice { host: host.clone(), container: container.clone() };
        if !device.is_template() && out.iter().any(|earlier| earlier.container == *container) {
            return Err(Error::config(at, format!("duplicated network device name {container:?}")));
        }
        out.push(device);
    }
    Ok(out)
}

/// Why the kernel would refuse a name (dev_valid_name in net/core/dev.c); its buffer of 16 bytes has a NUL
/// at the end.
fn fault(name: &str) -> Option<&'static str> {
    match name {
        "" => Some("it is empty"),
        "." | ".." => Some("it is reserved"),
        _ if name.len() > 15 => Some("it is longer than 15 bytes"),
        _ if name.bytes().any(|b| matches!(b, b'/' | b':') || b.is_ascii_whitespace() || b == 0x0b) => {
            Some("it contains '/', ':' or a blank")
        }
        _ => None,
    }
}

fn template_fault(name: &str) -> Option<&'static str> {
    let stem = name.strip_suffix("%d").unwrap_or(name);
    stem.contains('%').then_some("'%' is only for a \"%d\" at the end")
}

impl fmt::Display for NetDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} as {}", self.host, self.container)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::read::document;

    fn plan(namespaces: &str, devices: &str) -> Result<Vec<NetDevice>> {
        let json = format!(r#"{{"namespaces":[{namespaces}],"netDevices":{devices}}}"#);
        let linux: spec::Linux = document(json.as_bytes()).expect("readable");
        build(&linux, &Namespaces::build(&linux.namespaces).expect("namespaces"))
    }

    const NET: &str = r#"{"type":"network"}"#;

    #[test]
    fn devices_keep_their_name_or_get_one() {
        let list = plan(NET, r#"{"eth0":{"name":"c%d"},"eth1":{},"eth2":{"name":"c%d"}}"#).expect("accepted");
        let lines: Vec<_> = list.iter().map(ToString::to_string).collect();
        assert_eq!(lines, ["eth0 as c%d", "eth1 as eth1", "eth2 as c%d"]);
    }

    #[test]
    fn names_the_kernel_would_refuse_are_refused() {
        for devices in [
            r#"{"":{}}"#,
            r#"{".":{}}"#,
            r#"{"..":{}}"#,
            r#"{"a/b":{}}"#,
            r#"{"a b":{}}"#,
            r#"{"0123456789abcdef":{}}"#,
            r#"{"eth0":{"name":"0123456789abcdef"}}"#,
            r#"{"eth0":{"name":"a:b"}}"#,
            r#"{"eth0":{"name":"%dx"}}"#,
            r#"{"eth0":{"name":"%d%d"}}"#,
            r#"{"eth0":{"name":"%s"}}"#,
            r#"{"eth0":{"name":"x"},"eth1":{"name":"x"}}"#,
            r#"{"eth0":{"name":"eth1"},"eth1":{}}"#,
        ] {
            assert!(plan(NET, devices).is_err(), "{devices}");
        }
        assert!(plan(NET, r#"{"0123456789abcde":{}}"#).is_ok());
    }

    #[test]
    fn devices_need_a_namespace_to_go_to() {
        assert!(plan("", "{}").is_ok());
        assert!(plan("", r#"{"eth0":{}}"#).is_err());
        assert!(plan(r#"{"type":"network","path":"/n"}"#, r#"{"eth0":{}}"#).is_ok());
    }
}
