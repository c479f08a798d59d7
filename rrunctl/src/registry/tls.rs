//! Whom a connection trusts, and what it shows of itself: the system's roots, and `/etc/docker/certs.d/HOST[:PORT]`.

#![forbid(unsafe_code)]

use crate::error::{Context as _, Error, Result};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};

/// Where distributions keep the authorities that they trust: Debian, Fedora, SUSE, Alpine.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The authorities that every host is checked with: `SSL_CERT_FILE`, or the system's.
///
/// # Errors
/// `SSL_CERT_FILE` names what cannot be read.
pub(super) fn system_roots() -> Result<Vec<Certificate<'static>>> {
    if let Some(path) = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from) {
        let pem = fs::read(&path).context(|| format!("SSL_CERT_FILE: read {}", path.display()))?;
        return Ok(certificates(&pem));
    }
    Ok(BUNDLES.iter().find_map(|path| fs::read(path).ok()).map_or_else(Vec::new, |pem| certificates(&pem)))
}

/// How to speak TLS to the host `to`, whose directory below `certs` may add authorities, and a certificate to show.
/// A host that `by` redirects to is also checked with the authorities of `by`, as Docker's client does: the storage
/// behind a private registry often has its certificate from the same authority.
///
/// # Errors
/// A file there cannot be read, is none, or lacks its other half.
pub(super) fn config(
    certs: &Path,
    roots: &[Certificate<'static>],
    to: &str,
    by: &str,
    verify: bool,
) -> Result<TlsConfig> {
    let mut trusted = roots.to_vec();
    let own = HostFiles::read(&certs.join(to))?;
    if by != to {
        trusted.extend(HostFiles::read(&certs.join(by))?.authorities);
    }
    trusted.extend(own.authorities);
    Ok(TlsConfig::builder()
        .root_certs(RootCerts::Specific(Arc::new(trusted)))
        .client_cert(own.shown)
        .disable_verification(!verify)
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .build())
}

/// What is in the directory of a host: `*.crt` are authorities, `NAME.cert` and `NAME.key` are shown.
#[derive(Default)]
struct HostFiles {
    authorities: Vec<Certificate<'static>>,
    shown: Option<ClientCert>,
}

impl HostFiles {
    fn read(dir: &Path) -> Result<Self> {
        let mut files = Self::default();
        let mut paths: Vec<PathBuf> = match fs::read_dir(dir) {
            Ok(entries) => entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect(),
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(files);
            }
            Err(e) => return Err(Error::from(e).context(format!("read {}", dir.display()))),
        };
        paths.sort();
        let read = |path: &Path| fs::read(path).context(|| format!("read {}", path.display()));
        for path in &paths {
            match path.extension().and_then(|e| e.to_str()) {
                Some("crt") => {
                    let found = certificates(&read(path)?);
                    if found.is_empty() {
                        return Err(Error::invalid(format!("{}: no certificate in it", path.display())));
                    }
                    files.authorities.extend(found);
                }
                Some("cert") => {
                    let key = path.with_extension("key");
                    if !paths.contains(&key) {
                        return Err(Error::invalid(format!(
                            "missing key {} for client certificate {}",
                            key.display(),
                            path.display()
                        ))
                        .remedy("CA certificates must use the extension .crt"));
                    }
                    let chain = certificates(&read(path)?);
                    let pem = read(&key)?;
                    check(&chain, &pem)
                        .map_err(|e| Error::invalid(format!("{} and its key: {e}", path.display())))?;
                    let key = PrivateKey::from_pem(&pem).map_err(|e| {
                        Error::invalid(format!("{}: no private key in it: {e}", key.display()))
                    })?;
                    files.shown.get_or_insert_with(|| ClientCert::new_with_certs(&chain, key));
                }
                Some("key") => {
                    let cert = path.with_extension("cert");
                    if !paths.contains(&cert) {
                        return Err(Error::invalid(format!(
                            "missing client certificate {} for key {}",
                            cert.display(),
                            path.display()
                        )));
                    }
                }
                _ => {}
            }
        }
        Ok(files)
    }
}

fn certificates(pem: &[u8]) -> Vec<Certificate<'static>> {
    parse_pem(pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect()
}

/// ureq panics where a key does not belong to its certificate; rustls says so.
fn check(chain: &[Certificate<'static>], key: &[u8]) -> Result<(), String> {
    if chain.is_empty() {
        return Err("no certificate in it".to_owned());
    }
    let chain = chain.iter().map(|certificate| CertificateDer::from(certificate.der().to_vec())).collect();
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|e| format!("no private key in it: {e}"))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| {
            builder.with_root_certificates(rustls::RootCertStore::empty()).with_client_auth_cert(chain, key)
        })
        .map(drop)
        .map_err(|e| e.to_string())
}
