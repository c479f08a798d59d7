//! Proxies, as the environment names them: `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`, in capitals or not, with the
//! meaning that Go's programs give them (golang.org/x/net/http/httpproxy). An HTTP proxy is asked to CONNECT for plain
//! HTTP too.

#![forbid(unsafe_code)]

use crate::error::{Error, Result};
use crate::settings::{Cidr, split_port};
use std::net::IpAddr;
use ureq::http::Uri;

/// Which proxy leads to which host.
#[derive(Clone, Default)]
pub(super) struct Proxies {
    http: Option<String>,
    https: Option<String>,
    none: String,
}

impl Proxies {
    /// Those of this process.
    pub(super) fn of_environment() -> Self {
        let value = |name: &str| {
            [name.to_ascii_uppercase(), name.to_owned()]
                .iter()
                .find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
        };
        Self {
            http: value("http_proxy"),
            https: value("https_proxy"),
            none: value("no_proxy").unwrap_or_default().to_ascii_lowercase(),
        }
    }

    /// The proxy to `uri`, if there is one.
    ///
    /// # Errors
    /// It is no URL of a proxy.
    pub(super) fn to(&self, uri: &Uri) -> Result<Option<ureq::Proxy>> {
        let https = uri.scheme_str() == Some("https");
        let Some(proxy) = (if https { &self.https } else { &self.http }) else { return Ok(None) };
        let host = uri.host().unwrap_or_default().to_ascii_lowercase();
        if self.is_direct(&host, uri.port_u16().unwrap_or(if https { 443 } else { 80 })) {
            return Ok(None);
        }
        let name = if https { "HTTPS_PROXY" } else { "HTTP_PROXY" };
        // Its text may have a password, and is not told.
        ureq::Proxy::new(proxy).map(Some).map_err(|_| Error::invalid(format!("{name} is no URL of a proxy")))
    }

    fn is_direct(&self, host: &str, port: u16) -> bool {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let address = bare.parse::<IpAddr>().ok();
        if host == "localhost" || address.is_some_and(|address| address.is_loopback()) {
            return true;
        }
        self.none.split(',').map(str::trim).filter(|entry| !entry.is_empty()).any(|entry| {
            if entry == "*" {
                return true;
            }
            if let (Ok(net), Some(address)) = (entry.parse::<Cidr>(), address) {
                return net.contains(address);
            }
            let (name, only) = match entry.parse::<IpAddr>() {
                Ok(_) => (entry, None),
                Err(_) => split_port(entry),
            };
            if only.is_some_and(|only| only != port.to_string()) {
                return false;
            }
            let name = name.trim_start_matches('[').trim_end_matches(']');
            match (address, name.parse::<IpAddr>()) {
                (Some(address), Ok(name)) => address == name,
                (None, Err(_)) => match name.trim_start_matches('*').strip_prefix('.') {
                    Some(domain) => bare.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.')),
                    None => bare == name || bare.strip_suffix(name).is_some_and(|rest| rest.ends_with('.')),
                },
                _ => false,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_reached_directly_where_no_proxy_says_so() {
        let proxies = Proxies {
            http: Some("http://proxy:3128".into()),
            https: Some("http://secure:3128".into()),
            none: "10.0.0.0/8, example.com,.sub.test,*.star.test,one.test:5000,192.168.1.1,[fd00::1]".into(),
        };
        let proxy = |uri: &str| {
            let uri = uri.parse().expect("an URI");
            proxies.to(&uri).expect("valid").map(|proxy| proxy.host().to_owned())
        };
        for direct in [
            "http://localhost:5000/",
            "http://127.0.0.1/",
            "https://[::1]/",
            "https://10.1.2.3/",
            "https://example.com/",
            "https://a.example.com/",
            "https://a.sub.test/",
            "https://a.star.test/",
            "http://one.test:5000/",
            "https://192.168.1.1:444/",
            "https://[fd00::1]/",
        ] {
            assert_eq!(proxy(direct), None, "{direct}");
        }
        for (through, by) in [
            ("https://11.1.2.3/", "secure"),
            ("https://notexample.com/", "secure"),
            ("https://sub.test/", "secure"),
            ("http://one.test/", "proxy"),
            ("http://other.test/", "proxy"),
            ("https://[fd00::2]/", "secure"),
        ] {
            assert_eq!(proxy(through).as_deref(), Some(by), "{through}");
        }
        let all = Proxies { none: "*".into(), ..proxies.clone() };
        assert!(all.to(&"https://x/".parse().expect("an URI")).expect("valid").is_none());
        let socks = Proxies { http: Some("socks5://proxy:1080".into()), ..Proxies::default() };
        assert!(socks.to(&"http://x/".parse().expect("an URI")).expect("valid").is_some());
        let broken = Proxies { https: Some("ftp://user:secret@x".into()), ..Proxies::default() };
        let error = broken.to(&"https://x/".parse().expect("an URI")).expect_err("no proxy").to_string();
        assert!(!error.contains("secret"), "{error}");
    }
}
