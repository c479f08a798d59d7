//! `linux.sysctl`: only parameters that belong to a namespace of the container's own.

#![forbid(unsafe_code)]

use super::{Kind, Namespaces};
use crate::error::{Error, Result};
use crate::spec;
use std::fmt;

/// One parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sysctl {
    /// The name with dots, as sysctl(8) prints it.
    pub name: String,
    /// The path below /proc/sys; no component is empty, `.` or `..`.
    pub path: Vec<String>,
    /// What is written there.
    pub value: Vec<u8>,
}

/// Every parameter, in the order in which they are written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sysctls {
    /// The parameters, sorted by their name in config.json.
    pub list: Vec<Sysctl>,
    /// A `net.*` among them while the network namespace is joined by path: whether that is the runtime's own
    /// is seen only when it is opened, and then [`host_network`] is the error.
    pub joined_net: Option<String>,
}

/// The error for a `net.*` parameter where the joined network namespace is the runtime's.
pub fn host_network(name: &str) -> Error {
    Error::config(at(name), format!("sysctl {name:?} not allowed in host network namespace"))
}

fn at(key: &str) -> String {
    format!("linux.sysctl.{key:?}")
}

/// Those that belong to an IPC namespace, beside all of `fs.mqueue` (namespaces(7), runc).
const IPC: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

impl Sysctls {
    /// Decides the parameters.
    ///
    /// # Errors
    /// A malformed key, one given twice in two forms, or one that would change the host.
    pub fn build(linux: &spec::Linux, namespaces: &Namespaces) -> Result<Self> {
        let mut out = Self::default();
        for (key, value) in &linux.sysctl {
            let (name, path) = canonical(key)
                .ok_or_else(|| Error::config(at(key), format!("sysctl {key:?} is not a valid key")))?;
            check(key, &name, namespaces)?;
            if value.is_empty() {
                // A write of no bytes does nothing and reports success.
                return Err(Error::config(at(key), format!("sysctl {name:?} has an empty value")));
            }
            if out.list.iter().any(|earlier| earlier.path == path) {
                return Err(Error::config(at(key), format!("duplicated sysctl {name:?}")));
            }
            if name.starts_with("net.") && namespaces.joins(Kind::Network).is_some() {
                out.joined_net.get_or_insert_with(|| name.clone());
            }
            out.list.push(Sysctl { name, path, value: value.clone().into_bytes() });
        }
        Ok(out)
    }
}

/// The name with dots and the path of a key in either form: where the first separator is a slash, slashes
/// separate and dots belong to names (`net/ipv4/conf/eth0.100/rp_filter`), else the other way round
/// (`net.ipv4.conf.eth0/100.rp_filter`; sysctl.d(5)).
fn canonical(key: &str) -> Option<(String, Vec<String>)> {
    let separator = key.chars().find(|c| matches!(c, '.' | '/')).unwrap_or('.');
    let other = if separator == '.' { '/' } else { '.' };
    let path: Vec<String> = key.split(separator).map(|component| component.replace(other, ".")).collect();
    if path.iter().any(|component| matches!(component.as_str(), "" | "." | "..")) {
        return None;
    }
    let name: Vec<String> = path.iter().map(|component| component.replace('.', "/")).collect();
    Some((name.join("."), path))
}

fn check(key: &str, name: &str, namespaces: &Namespaces) -> Result<()> {
    let error = |text: String| Err(Error::config(at(key), text));
    if IPC.contains(&name) || name.starts_with("fs.mqueue.") {
        if !namespaces.has(Kind::Ipc) {
            return error(format!("sysctl {name:?} is not allowed in the hosts ipc namespace"));
        }
        return Ok(());
    }
    if name.starts_with("net.") {
        return if namespaces.has(Kind::Network) { Ok(()) } else { Err(host_network(name)) };
    }
    if namespaces.has(Kind::Uts) {
        match name {
            "kernel.domainname" => return Ok(()),
            "kernel.hostname" => {
                return error(format!(
                    "sysctl {name:?} is not allowed as it conflicts with the OCI \"hostname\" field"
                ));
            }
            _ => {}
        }
    }
    if name.starts_with("user.") {
        // They count per user namespace: without one of its own the host's limits would change.
        if !namespaces.has(Kind::User) {
            return error(format!("setting ucounts without a user namespace not allowed: {name}"));
        }
        return Ok(());
    }
    error(format!("sysctl {name:?} is not in a separate kernel namespace"))
}

impl fmt::Display for Sysctl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {:?}", self.name, String::from_utf8_lossy(&self.value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::read::document;

    fn build(namespaces: &[&str], sysctl: &str) -> Result<Sysctls> {
        let listed: Vec<_> = namespaces
            .iter()
            .map(|entry| match entry.split_once('=') {
                Some((typ, path)) => format!(r#"{{"type":"{typ}","path":"{path}"}}"#),
                None => format!(r#"{{"type":"{entry}"}}"#),
            })
            .collect();
        let json = format!(r#"{{"namespaces":[{}],"sysctl":{sysctl}}}"#, listed.join(","));
        let linux: spec::Linux = document(json.as_bytes()).expect("readable");
        Sysctls::build(&linux, &Namespaces::build(&linux.namespaces).expect("namespaces"))
    }

    fn fails(namespaces: &[&str], key: &str) -> String {
        build(namespaces, &format!(r#"{{"{key}":"1"}}"#)).expect_err(key).to_string()
    }

    const ALL: [&str; 5] = ["ipc", "network", "uts", "user", "mount"];

    #[test]
    fn both_forms_of_a_key_name_the_same_file() {
        for key in ["net.ipv4.conf.eth0/1.rp_filter", "net/ipv4/conf/eth0.1/rp_filter"] {
            let (name, path) = canonical(key).expect(key);
            assert_eq!(name, "net.ipv4.conf.eth0/1.rp_filter");
            assert_eq!(path, ["net", "ipv4", "conf", "eth0.1", "rp_filter"]);
        }
        let both = r#"{"net.ipv4.ip_forward":"1","net/ipv4/ip_forward":"0"}"#;
        assert!(build(&ALL, both).expect_err(both).to_string().contains("duplicated sysctl"));
    }

    #[test]
    fn keys_cannot_leave_proc_sys() {
        for key in [
            "",
            ".",
            "/",
            "net.",
            ".net",
            "/net/ipv4/ip_forward",
            "net..ip_forward",
            "net.ipv4../../../kernel/core_pattern",
            "net/../kernel/core_pattern",
            "net.//.kernel.core_pattern",
            "net.ipv4./.x",
        ] {
            assert!(fails(&ALL, key).contains("is not a valid key"), "{key:?}: {}", fails(&ALL, key));
        }
    }

    #[test]
    fn what_is_the_hosts_is_refused_in_runcs_words() {
        for (namespaces, key, text) in [
            (&ALL[..], "vm.swappiness", "sysctl \"vm.swappiness\" is not in a separate kernel namespace"),
            (&ALL, "kernel.foo", "is not in a separate kernel namespace"),
            (&ALL, "kernel", "is not in a separate kernel namespace"),
            (&ALL, "net", "is not in a separate kernel namespace"),
            (&ALL, "kernel/core_pattern", "\"kernel.core_pattern\" is not in a separate kernel namespace"),
            (&ALL, "kernel.hostname", "conflicts with the OCI \"hostname\" field"),
            (&[], "kernel.hostname", "is not in a separate kernel namespace"),
            (&[], "kernel.domainname", "is not in a separate kernel namespace"),
            (&[], "kernel.shmmax", "sysctl \"kernel.shmmax\" is not allowed in the hosts ipc namespace"),
            (&[], "fs.mqueue.msg_max", "is not allowed in the hosts ipc namespace"),
            (&[], "net.ipv4.ip_forward", "not allowed in host network namespace"),
            (&[], "user.max_user_namespaces", "setting ucounts without a user namespace not allowed"),
        ] {
            let e = fails(namespaces, key);
            assert!(e.contains(text), "{key}: {e}");
        }
        assert!(build(&ALL, r#"{"net.ipv4.ip_forward":""}"#).is_err());
    }

    #[test]
    fn what_is_the_containers_is_accepted_in_order() {
        let out = build(
            &ALL,
            r#"{"user.max_mnt_namespaces":"1","kernel.domainname":"d","fs.mqueue.msg_max":"2",
                "kernel.sem":"1 2 3 4","net.core.somaxconn":"256"}"#,
        )
        .expect("accepted");
        let lines: Vec<_> = out.list.iter().map(ToString::to_string).collect();
        assert_eq!(
            lines,
            [
                "fs.mqueue.msg_max = \"2\"",
                "kernel.domainname = \"d\"",
                "kernel.sem = \"1 2 3 4\"",
                "net.core.somaxconn = \"256\"",
                "user.max_mnt_namespaces = \"1\"",
            ]
        );
        assert_eq!(out.joined_net, None);
        let joined = build(&["network=/proc/1/ns/net"], r#"{"net.core.somaxconn":"256"}"#).expect("accepted");
        assert_eq!(joined.joined_net.as_deref(), Some("net.core.somaxconn"));
    }
}
