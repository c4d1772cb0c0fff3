//! `--link`: another container by a name of one's own.
//!
//! On the default network a link is lines of `/etc/hosts` and variables, fixed when the container starts; on a user-defined
//! one it is a name that the embedded resolver answers to this container alone. `create` checks that the other one exists.

use std::net::Ipv4Addr;

use networking::DEFAULT_NETWORK;

use crate::{
    Engine,
    config::EndpointRequest,
    error::{Error, Result},
    record::{Phase, Record},
};

/// What a start needs of one linked container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Linked {
    pub(super) alias: String,
    /// Its name, short ID and host name: all of them lead there.
    pub(super) names: Vec<String>,
    pub(super) address: Ipv4Addr,
    pub(super) env: Vec<String>,
}

/// `name:alias`, or a name that is its own alias.
pub(super) fn parse(link: &str) -> Result<(&str, &str)> {
    let (name, alias) = link.split_once(':').unwrap_or((link, link));
    let (name, alias) = (name.trim_start_matches('/'), alias.rsplit('/').next().unwrap_or_default());
    if name.is_empty() || alias.is_empty() || alias.contains(':') {
        return Err(Error::Invalid(format!("bad format for links: {link}")));
    }
    Ok((name, alias))
}

impl Engine {
    /// As inspect shows them: `/target:/container/alias`.
    pub(super) fn checked_links(&self, links: &[String], container: &str) -> Result<Vec<String>> {
        let one = |link: &String| {
            let (name, alias) = parse(link)?;
            let target = self
                .find(name)
                .map_err(|error| Error::Invalid(format!("could not get container for {name}: {error}")))?
                .record();
            if target.host.network_mode == "host" {
                return Err(Error::Invalid(
                    "conflicting options: host type networking can't be used with links. This would result in undefined behavior"
                        .to_owned(),
                ));
            }
            Ok(format!("/{}:/{container}/{alias}", target.name))
        };
        links.iter().map(one).collect()
    }

    /// The links of a container on the default network, as they are at its start.
    pub(super) fn default_links(&self, record: &Record) -> Result<Vec<Linked>> {
        if record.host.network_mode != DEFAULT_NETWORK {
            return Ok(Vec::new());
        }
        record.host.links.iter().flatten().map(|link| self.linked(record, link)).collect()
    }

    fn linked(&self, record: &Record, link: &str) -> Result<Linked> {
        let (name, alias) = parse(link)?;
        let slot = self.find(name)?;
        let target = slot.record();
        let endpoints = self.0.parts.networking.endpoints(&target.id);
        let address = endpoints.iter().find(|e| e.network_name == DEFAULT_NETWORK).map(|e| e.address);
        let (Phase::Running(_), Some(address)) = (slot.phase(), address) else {
            return Err(Error::Invalid(format!(
                "Cannot link to a non running container: /{} AS /{}/{alias}",
                target.name, record.name
            )));
        };
        let names = vec![target.hostname.clone(), target.name.clone()];
        Ok(Linked { alias: alias.to_owned(), names, address, env: environment(&record.name, alias, &target, address) })
    }

    /// Names for the embedded resolver of a user-defined network.
    pub(super) fn network_links(
        &self,
        record: &Record,
        network: &str,
        request: &EndpointRequest,
    ) -> Result<Vec<(String, String)>> {
        if network == DEFAULT_NETWORK {
            return Ok(Vec::new());
        }
        let own = record.host.links.iter().flatten().filter(|_| record.host.network_mode == network);
        own.chain(request.links.iter().flatten())
            .map(|link| {
                let (name, alias) = parse(link)?;
                // A link to a container that is not there yet is a name that does not resolve yet.
                let target = self.find(name).map_or_else(|_| name.to_owned(), |slot| slot.record().name);
                Ok((alias.to_owned(), target))
            })
            .collect()
    }
}

/// The variables of a link (pure).
fn environment(own: &str, alias: &str, target: &Record, address: Ipv4Addr) -> Vec<String> {
    let prefix = alias.to_ascii_uppercase().replace('-', "_");
    let mut ports: Vec<(u16, &str)> = target
        .config
        .exposed_ports
        .keys()
        .filter_map(|key| {
            let (port, protocol) = key.split_once('/').unwrap_or((key, "tcp"));
            Some((port.parse().ok()?, protocol))
        })
        .collect();
    ports.sort_unstable();
    let mut env = vec![format!("{prefix}_NAME=/{own}/{alias}")];
    if let Some((port, protocol)) = ports.first() {
        env.push(format!("{prefix}_PORT={protocol}://{address}:{port}"));
    }
    for (port, protocol) in ports {
        let name = format!("{prefix}_PORT_{port}_{}", protocol.to_ascii_uppercase());
        env.push(format!("{name}={protocol}://{address}:{port}"));
        env.push(format!("{name}_ADDR={address}"));
        env.push(format!("{name}_PORT={port}"));
        env.push(format!("{name}_PROTO={protocol}"));
    }
    let passed = target.config.env.iter().filter_map(|entry| entry.split_once('='));
    let passed = passed.filter(|(name, _)| !matches!(*name, "HOME" | "PATH"));
    env.extend(passed.map(|(name, value)| format!("{prefix}_ENV_{name}={value}")));
    env
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn links_are_read_in_all_their_notations() {
        for (link, expected) in
            [("db", ("db", "db")), ("db:store", ("db", "store")), ("/db:/web/store", ("db", "store"))]
        {
            assert_eq!(parse(link).unwrap(), expected, "{link}");
        }
        for bad in ["", ":", "a:", ":b", "a:b:c"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
