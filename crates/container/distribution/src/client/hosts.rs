//! How registries are reached: which are insecure, whose certificates are trusted, which mirrors stand before them.
//!
//! Pure but for [`Hosts::certificates`], which reads a `certs.d` folder. The transport asks here and decides nothing
//! itself. Spelling follows Docker: `insecure-registries` are hosts or networks, `certs.d/HOST:PORT` holds `*.crt`
//! (authorities), and `NAME.cert` with `NAME.key` (ours).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use oci::Reference;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::Deserialize;

use crate::error::{Error, Result};

/// The machine's knowledge of registries.
#[derive(Clone, Debug, Default)]
pub struct Hosts {
    /// `host[:port]` or `address/bits`: any certificate will do there, and no TLS at all, too. Loopback always is so.
    pub insecure: Vec<String>,
    /// Asked in this order, before the registry itself. Credentials for the registry are not sent to them.
    pub mirrors: Vec<Mirror>,
    /// Folders that hold a folder `HOST:PORT` for each registry with certificates of its own.
    pub certificate_dirs: Vec<PathBuf>,
    pub patience: Patience,
}

/// Another place for everything whose name starts with `prefix`, at a boundary of its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// `docker.io`, `ghcr.io/team`.
    pub prefix: String,
    /// `https://mirror:5000`, `http://mirror/path`: what takes the prefix's place.
    pub location: String,
}

/// How long a registry is waited for.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    pub connect: Duration,
    /// For an answer's head.
    pub answer: Duration,
    /// For the next bytes of a body.
    pub idle: Duration,
    /// How often a call is made before its failure counts.
    pub attempts: u32,
    /// Before the second attempt; doubled for each further one.
    pub backoff: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        let s = Duration::from_secs;
        Self { connect: s(15), answer: s(60), idle: s(60), attempts: 5, backoff: Duration::from_millis(400) }
    }
}

impl Patience {
    /// How long to wait before attempt `attempt + 1`; `asked` is what the registry's `Retry-After` says. `None`: give up.
    pub(super) fn pause(&self, attempt: u32, asked: Option<Duration>) -> Option<Duration> {
        const LONGEST: Duration = Duration::from_secs(20);
        if attempt >= self.attempts {
            return None;
        }
        let own = self.backoff.saturating_mul(1 << (attempt.saturating_sub(1)).min(10));
        match asked {
            // A registry that wants to be left alone for longer than a user waits: its message is the better answer.
            Some(asked) if asked > LONGEST => None,
            Some(asked) => Some(asked.max(own)),
            None => Some(own.min(LONGEST)),
        }
    }
}

/// Where one image can be had from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// `host[:port]`.
    pub(super) host: String,
    /// `None`: to be found out (TLS first).
    pub(super) scheme: Option<&'static str>,
    pub(super) repository: String,
    pub(super) is_mirror: bool,
}

/// What a `daemon.json` says of registries, in Docker's keys, and `mirrors` beside them.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Written {
    insecure_registries: Vec<String>,
    /// Of Docker Hub.
    registry_mirrors: Vec<String>,
    mirrors: BTreeMap<String, Vec<String>>,
}

impl Hosts {
    /// Reads a `daemon.json`; keys of other concerns are others' to read.
    pub fn parse(text: &str) -> std::result::Result<Self, serde_json::Error> {
        let written: Written = serde_json::from_str(text)?;
        let of = |prefix: &str, locations: Vec<String>| {
            let mirror = |location| Mirror { prefix: prefix.to_owned(), location };
            locations.into_iter().map(mirror).collect::<Vec<_>>()
        };
        let mut mirrors: Vec<Mirror> = written.mirrors.into_iter().flat_map(|(p, l)| of(&p, l)).collect();
        mirrors.extend(of("docker.io", written.registry_mirrors));
        // The longest prefix knows best.
        mirrors.sort_by_key(|mirror| std::cmp::Reverse(mirror.prefix.len()));
        Ok(Self { insecure: written.insecure_registries, mirrors, ..Self::default() })
    }

    /// Mirrors first, the registry itself last.
    pub(super) fn endpoints(&self, reference: &Reference) -> Vec<Endpoint> {
        let name = reference.name();
        let mirrored = self.mirrors.iter().filter_map(|mirror| {
            let rest = name.strip_prefix(mirror.prefix.trim_end_matches('/'))?;
            let rest = if rest.is_empty() { rest } else { rest.strip_prefix('/')? };
            let (scheme, location) = match mirror.location.split_once("://") {
                Some(("http", location)) => (Some("http"), location),
                Some(("https", location)) => (Some("https"), location),
                _ => (None, mirror.location.as_str()),
            };
            let (host, base) = location.split_once('/').unwrap_or((location, ""));
            let parts = [base.trim_matches('/'), rest];
            let repository = parts.into_iter().filter(|p| !p.is_empty()).collect::<Vec<_>>().join("/");
            Some(Endpoint { host: host.to_owned(), scheme, repository, is_mirror: true })
        });
        mirrored.chain([self.registry(reference.domain(), reference.path())]).collect()
    }

    /// The registry itself.
    pub(super) fn registry(&self, domain: &str, repository: &str) -> Endpoint {
        let host = if domain == "docker.io" { "registry-1.docker.io" } else { domain };
        let scheme = if self.is_insecure(host) { None } else { Some("https") };
        Endpoint { host: host.to_owned(), scheme, repository: repository.to_owned(), is_mirror: false }
    }

    pub(super) fn is_insecure(&self, host: &str) -> bool {
        let name = without_port(host);
        let address: Option<IpAddr> = name.parse().ok();
        is_loopback(host)
            || self.insecure.iter().any(|entry| {
                entry == host || entry == name || address.is_some_and(|address| in_network(entry, address))
            })
    }

    /// What `certs.d` holds for a host, if it holds anything.
    pub(super) fn certificates(&self, host: &str) -> Result<Option<Certificates>> {
        // `..` is no host name, but this becomes a path.
        if host.contains('/') || host.starts_with('.') {
            return Ok(None);
        }
        for base in &self.certificate_dirs {
            let dir = base.join(host);
            if dir.is_dir() {
                return Certificates::read(&dir).map(Some);
            }
        }
        Ok(None)
    }
}

/// A registry's own authorities, and the certificate that it knows us by.
#[derive(Debug, Default)]
pub(super) struct Certificates {
    pub(super) authorities: Vec<CertificateDer<'static>>,
    pub(super) own: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
}

impl Certificates {
    fn read(dir: &Path) -> Result<Self> {
        let failed = |path: &Path, source: std::io::Error| Error::File { path: path.to_owned(), source };
        let bad =
            |path: &Path, error: rustls::pki_types::pem::Error| failed(path, std::io::Error::other(error.to_string()));
        let chain = |path: &Path| {
            let all = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<std::result::Result<Vec<_>, _>>);
            all.map_err(|e| bad(path, e))
        };
        let entries = std::fs::read_dir(dir).map_err(|e| failed(dir, e))?;
        let mut files =
            entries.map(|e| e.map(|e| e.path())).collect::<std::io::Result<Vec<_>>>().map_err(|e| failed(dir, e))?;
        files.sort();
        let mut found = Self::default();
        for path in &files {
            match path.extension().and_then(|e| e.to_str()) {
                Some("crt") => found.authorities.extend(chain(path)?),
                Some("cert") => {
                    let key = path.with_extension("key");
                    let own = PrivateKeyDer::from_pem_file(&key).map_err(|e| bad(&key, e))?;
                    found.own = Some((chain(path)?, own));
                }
                _ => {}
            }
        }
        Ok(found)
    }
}

fn without_port(host: &str) -> &str {
    let name = host
        .rsplit_once(':')
        .map_or(host, |(name, port)| if port.bytes().all(|b| b.is_ascii_digit()) { name } else { host });
    name.trim_start_matches('[').trim_end_matches(']')
}

/// Whether a registry is on this machine by its very name.
pub(super) fn is_loopback(host: &str) -> bool {
    let name = without_port(host);
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// `10.0.0.0/8`, `fd00::/8`.
fn in_network(network: &str, address: IpAddr) -> bool {
    let Some((base, bits)) = network.split_once('/') else { return false };
    let (Ok(base), Ok(bits)) = (base.parse::<IpAddr>(), bits.parse::<u32>()) else { return false };
    let same = |a: u128, b: u128, width: u32| bits <= width && (bits == 0 || (a ^ b) >> (width - bits) == 0);
    match (base, address) {
        (IpAddr::V4(a), IpAddr::V4(b)) => same(u32::from(a).into(), u32::from(b).into(), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => same(a.into(), b.into(), 128),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_take_the_place_of_a_prefix_and_the_registry_comes_last() {
        let mirror = |prefix: &str, location: &str| Mirror { prefix: prefix.into(), location: location.into() };
        let hosts = Hosts {
            mirrors: vec![
                mirror("docker.io", "http://hub:5000"),
                mirror("ghcr.io/team", "https://m/x/"),
                mirror("docker.io/library/nginx", "n:1/web"),
            ],
            ..Hosts::default()
        };
        let of = |name: &str| -> Vec<String> {
            let all = hosts.endpoints(&Reference::parse(name).unwrap());
            all.iter().map(|e| format!("{}://{}/{}", e.scheme.unwrap_or("?"), e.host, e.repository)).collect()
        };
        assert_eq!(of("busybox"), ["http://hub:5000/library/busybox", "https://registry-1.docker.io/library/busybox"]);
        assert_eq!(of("ghcr.io/team/a"), ["https://m/x/a", "https://ghcr.io/team/a"]);
        assert_eq!(of("ghcr.io/teams/a"), ["https://ghcr.io/teams/a"]);
        assert_eq!(of("nginx")[1], "?://n:1/web");
    }

    #[test]
    fn loopback_registries_and_configured_names_and_networks_are_insecure() {
        let insecure = vec!["reg.local:5000".into(), "bare.local".into(), "10.1.0.0/16".into(), "fd00::/8".into()];
        let hosts = Hosts { insecure, ..Hosts::default() };
        for (host, expected) in [
            ("localhost:5000", true),
            ("localhost", true),
            ("127.9.0.1:80", true),
            ("[::1]:5000", true),
            ("ghcr.io", false),
            ("localhost.evil.com", false),
            ("reg.local:5000", true),
            ("reg.local", false),
            ("bare.local:443", true),
            ("10.1.255.9:5000", true),
            ("10.2.0.1:5000", false),
            ("[fd12::1]:5000", true),
            ("[fe80::1]:5000", false),
        ] {
            assert_eq!(hosts.is_insecure(host), expected, "{host}");
        }
    }

    #[test]
    fn a_daemon_json_is_read_in_dockers_keys() {
        let text = r#"{"debug":true,"insecure-registries":["r:5000"],"registry-mirrors":["https://hub"],"mirrors":{"ghcr.io/team":["http://a","http://b"]}}"#;
        let hosts = Hosts::parse(text).unwrap();
        assert!(hosts.is_insecure("r:5000"));
        let shown: Vec<String> = hosts.mirrors.iter().map(|m| format!("{} {}", m.prefix, m.location)).collect();
        assert_eq!(shown, ["ghcr.io/team http://a", "ghcr.io/team http://b", "docker.io https://hub"]);
        assert!(Hosts::parse("{}").unwrap().mirrors.is_empty());
        assert!(Hosts::parse(r#"{"mirrors":7}"#).is_err());
    }

    #[test]
    fn pauses_double_obey_the_registry_and_end() {
        let patience = Patience { attempts: 4, ..Patience::default() };
        let ms = |n| Some(Duration::from_millis(n));
        let s = |n| Some(Duration::from_secs(n));
        for (attempt, asked, pause) in [
            (1, None, ms(400)),
            (2, None, ms(800)),
            (3, None, ms(1600)),
            (4, None, None),
            (1, s(3), s(3)),
            (1, s(0), ms(400)),
            (1, s(60), None),
        ] {
            assert_eq!(patience.pause(attempt, asked), pause, "{attempt} {asked:?}");
        }
    }
}
