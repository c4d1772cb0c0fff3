//! `gantry up --host tcp://…`: a second door to the Docker API, over TCP.
//!
//! Invariant: without client certificates it opens on loopback only, because whoever passes is root on this machine.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;
use docker_api::TlsFiles;

#[derive(Debug, Args, Clone, Default)]
pub(crate) struct Door {
    /// Serve the Docker API here as well: tcp://ADDRESS:PORT
    #[arg(short = 'H', long, value_name = "URL")]
    host: Option<String>,
    /// Let in only clients with a certificate of --tlscacert
    #[arg(long, requires_all = ["tlscacert", "tlscert", "tlskey"])]
    tlsverify: bool,
    /// Certificates of those who sign the clients'
    #[arg(long, value_name = "FILE")]
    tlscacert: Option<PathBuf>,
    /// This server's certificate
    #[arg(long, value_name = "FILE")]
    tlscert: Option<PathBuf>,
    /// The key of --tlscert
    #[arg(long, value_name = "FILE")]
    tlskey: Option<PathBuf>,
}

impl Door {
    /// Where to listen, and with which certificates; `None` when nobody asked.
    pub(crate) fn parse(&self) -> Result<Option<(SocketAddr, Option<TlsFiles>)>> {
        let Some(host) = &self.host else { return Ok(None) };
        let address = host
            .strip_prefix("tcp://")
            .and_then(|text| text.trim_end_matches('/').replace("localhost", "127.0.0.1").parse::<SocketAddr>().ok())
            .with_context(|| format!("--host {host}: give an address and a port, such as tcp://127.0.0.1:2376"))?;
        let files = match (self.tlsverify, &self.tlscacert, &self.tlscert, &self.tlskey) {
            (true, Some(ca), Some(certificate), Some(key)) => {
                Some(TlsFiles { ca: ca.clone(), certificate: certificate.clone(), key: key.clone() })
            }
            _ if address.ip().is_loopback() => None,
            _ => bail!(
                "--host {host} would make everybody who reaches it root on this machine; add --tlsverify with --tlscacert, --tlscert and --tlskey"
            ),
        };
        Ok(Some((address, files)))
    }

    /// The options again, for the process in the background.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let mut all = Vec::new();
        if let Some(host) = &self.host {
            all.extend(["--host".to_owned(), host.clone()]);
        }
        if self.tlsverify {
            all.push("--tlsverify".to_owned());
        }
        for (name, path) in [("--tlscacert", &self.tlscacert), ("--tlscert", &self.tlscert), ("--tlskey", &self.tlskey)]
        {
            if let Some(path) = path {
                let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
                all.extend([name.to_owned(), path.display().to_string()]);
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_door_is_for_loopback_only() {
        let door = |host: &str| Door { host: Some(host.to_owned()), ..Door::default() };
        assert!(Door::default().parse().unwrap().is_none());
        assert!(door("tcp://127.0.0.1:2375").parse().unwrap().unwrap().1.is_none());
        let refused = door("tcp://0.0.0.0:2375").parse().unwrap_err().to_string();
        assert!(refused.contains("--tlsverify"), "{refused}");
        assert!(door("unix:///x").parse().is_err());
        let verified = Door {
            tlsverify: true,
            tlscacert: Some("ca".into()),
            tlscert: Some("cert".into()),
            tlskey: Some("key".into()),
            ..door("tcp://0.0.0.0:2376")
        };
        assert!(verified.parse().unwrap().unwrap().1.is_some());
        assert_eq!(verified.arguments().len(), 9);
    }
}
