//! A container's place among the namespaces: its own network, another container's, the pod's or the node's.

use std::{collections::BTreeMap, net::Ipv4Addr, path::PathBuf};

use bundle::NamespaceMode;
use networking::{DEFAULT_NETWORK, Endpoint, EndpointSpec, PublishedPort};

use super::create::is_default_network;
use crate::{
    Engine,
    config::{EndpointIpam, EndpointRequest},
    disk::Durability,
    error::{Error, Result},
    ports,
    record::{Phase, Record},
};

/// Whose `/etc` files a container sees.
pub(super) enum Source {
    /// Its own, written at start.
    Own,
    /// Those in this directory.
    Of(PathBuf),
}

/// Resolved namespaces of one run.
pub(super) struct Places {
    pub(super) network: NamespaceMode,
    pub(super) ipc: NamespaceMode,
    pub(super) pid: NamespaceMode,
    pub(super) uts: NamespaceMode,
    pub(super) shm: Option<PathBuf>,
    pub(super) files: Source,
    pub(super) addresses: Vec<Ipv4Addr>,
    pub(super) gateway: Option<Ipv4Addr>,
    pub(super) embedded_dns: bool,
    pub(super) host_network: bool,
}

/// Networking's errors as the engine's.
pub(crate) fn wire(error: networking::Error) -> Error {
    use networking::ErrorKind;
    let text = error.to_string();
    match error.kind() {
        ErrorKind::NotFound => Error::NotFound(text),
        ErrorKind::Conflict => Error::Conflict(text),
        ErrorKind::Forbidden => Error::Forbidden(text),
        ErrorKind::Invalid => Error::Invalid(text),
        ErrorKind::Internal => Error::System(text),
    }
}

enum NetworkMode<'a> {
    None,
    Host,
    Of(&'a str),
    Networks,
}

fn network_mode(record: &Record) -> NetworkMode<'_> {
    match record.host.network_mode.as_str() {
        _ if record.config.network_disabled => NetworkMode::None,
        "none" => NetworkMode::None,
        "host" => NetworkMode::Host,
        mode => mode.strip_prefix("container:").map_or(NetworkMode::Networks, NetworkMode::Of),
    }
}

impl Engine {
    pub(super) async fn set_up_network(&self, record: &Record) -> Result<Places> {
        let mut places = Places {
            network: NamespaceMode::Private,
            ipc: self.shared(&record.host.ipc_mode, "ipc")?,
            pid: self.shared(&record.host.pid_mode, "pid")?,
            uts: if record.host.uts_mode == "host" { NamespaceMode::Host } else { NamespaceMode::Private },
            shm: (record.host.ipc_mode == "host").then(|| "/dev/shm".into()),
            files: Source::Own,
            addresses: Vec::new(),
            gateway: None,
            embedded_dns: false,
            host_network: false,
        };
        if let Some(pod) = &record.pod {
            return self.pod_places(places, &pod.sandbox);
        }
        match network_mode(record) {
            NetworkMode::None => {
                places.network = NamespaceMode::Path(self.own_namespace(record).await?);
            }
            NetworkMode::Host => {
                places.network = NamespaceMode::Host;
                places.host_network = true;
            }
            NetworkMode::Of(other) => {
                let pid = self.running_pid(other)?;
                places.network = NamespaceMode::Path(format!("/proc/{pid}/ns/net").into());
                places.files = Source::Of(self.find(other)?.dir.clone());
            }
            NetworkMode::Networks => {
                let path = self.own_namespace(record).await?;
                let endpoints = self.connect_all(record).await?;
                places.network = NamespaceMode::Path(path);
                places.addresses = endpoints.iter().map(|endpoint| endpoint.address).collect();
                places.gateway = endpoints.iter().find_map(|endpoint| endpoint.gateway);
                places.embedded_dns = self.any_user_defined(&endpoints);
            }
        }
        Ok(places)
    }

    fn pod_places(&self, mut places: Places, sandbox: &str) -> Result<Places> {
        let shared = self.sandbox_places(sandbox)?;
        places.network = shared.network.map_or(NamespaceMode::Host, NamespaceMode::Path);
        places.ipc = shared.ipc.map_or(NamespaceMode::Host, NamespaceMode::Path);
        places.uts = shared.uts.map_or(NamespaceMode::Host, NamespaceMode::Path);
        if shared.host_pid {
            places.pid = NamespaceMode::Host;
        }
        places.shm = Some(shared.shm);
        places.files = Source::Of(shared.files);
        Ok(places)
    }

    async fn own_namespace(&self, record: &Record) -> Result<PathBuf> {
        self.0.parts.networking.create_namespace(&record.id).await.map_err(wire)
    }

    async fn connect_all(&self, record: &Record) -> Result<Vec<Endpoint>> {
        let mut ports = ports::published(&record.config, &record.host)?;
        let mut endpoints = Vec::new();
        for (network, request) in wanted_networks(record) {
            let mut spec = endpoint_spec(record, &network, &request, std::mem::take(&mut ports))?;
            spec.links = self.network_links(record, &network, &request)?;
            endpoints.push(self.0.parts.networking.connect(&record.id, &network, spec).await.map_err(start_wording)?);
            if let Ok(network) = self.0.parts.networking.network(&network) {
                self.membership_event(record, "connect", &network);
            }
        }
        Ok(endpoints)
    }

    fn any_user_defined(&self, endpoints: &[Endpoint]) -> bool {
        endpoints.iter().any(|endpoint| {
            self.0.parts.networking.network(endpoint.network.as_str()).is_ok_and(|network| network.user_defined)
        })
    }

    /// `host`, `container:<name>`, or a namespace of its own.
    fn shared(&self, mode: &str, kind: &str) -> Result<NamespaceMode> {
        match (mode, mode.strip_prefix("container:")) {
            ("host", _) => Ok(NamespaceMode::Host),
            (_, Some(other)) => Ok(NamespaceMode::Path(format!("/proc/{}/ns/{kind}", self.running_pid(other)?).into())),
            ("" | "private" | "shareable" | "none", None) => Ok(NamespaceMode::Private),
            (other, None) => Err(Error::Invalid(format!("invalid {} mode: {other}", kind.to_ascii_uppercase()))),
        }
    }

    fn running_pid(&self, name: &str) -> Result<i32> {
        match self.find(name)?.phase() {
            Phase::Running(running) => Ok(running.pid),
            _ => Err(Error::Conflict(format!("cannot join network of a non running container: {name}"))),
        }
    }

    pub(super) async fn tear_down_network(&self, record: &Record) {
        if record.pod.is_some() {
            return;
        }
        match network_mode(record) {
            NetworkMode::Host | NetworkMode::Of(_) => {}
            NetworkMode::None | NetworkMode::Networks => {
                let left = self.0.parts.networking.endpoints(&record.id);
                for network in left.iter().filter_map(|e| self.0.parts.networking.network(e.network.as_str()).ok()) {
                    self.membership_event(record, "disconnect", &network);
                }
                if let Err(errors) = self.0.parts.networking.remove_namespace(&record.id).await {
                    errors.iter().for_each(|error| tracing::warn!(container = %record.id, %error, "network leftover"));
                }
            }
        }
    }

    /// Connects a container to one more network, at once when it runs.
    pub async fn connect_network(&self, network: &str, name: &str, request: EndpointRequest) -> Result<()> {
        let slot = self.find(name)?;
        let _life = slot.life.lock().await;
        let record = slot.record();
        match network_mode(&record) {
            NetworkMode::Networks if record.pod.is_none() => {}
            NetworkMode::None => {
                return Err(Error::Invalid(
                    "container cannot be connected to multiple networks with one of the networks in private (none) mode"
                        .to_owned(),
                ));
            }
            NetworkMode::Host | NetworkMode::Of(_) | NetworkMode::Networks => {
                return Err(Error::Invalid(
                    "container sharing network namespace with another container or host cannot be connected to any other network"
                        .to_owned(),
                ));
            }
        }
        let found = self.0.parts.networking.network(network).map_err(wire)?;
        if wanted_networks(&record).iter().any(|(name, _)| *name == found.name) {
            return Err(Error::Forbidden(format!(
                "endpoint with name {} already exists in network {}",
                record.name, found.name
            )));
        }
        if matches!(slot.phase(), Phase::Running(_)) {
            let mut spec = endpoint_spec(&record, &found.name, &request, Vec::new())?;
            spec.links = self.network_links(&record, &found.name, &request)?;
            self.0.parts.networking.connect(&record.id, &found.name, spec).await.map_err(wire)?;
        }
        slot.update_record(Durability::Synced, |record| {
            record.networks = wanted_networks(record).into_iter().collect();
            record.networks_are_all = true;
            record.networks.insert(found.name.clone(), request);
        })?;
        self.membership_event(&record, "connect", &found);
        Ok(())
    }

    /// Takes a container off a network.
    pub async fn disconnect_network(&self, network: &str, name: &str, force: bool) -> Result<()> {
        let slot = self.find(name)?;
        let _life = slot.life.lock().await;
        let record = slot.record();
        let found = self.0.parts.networking.network(network).map_err(wire)?;
        let mut wanted: BTreeMap<String, EndpointRequest> = wanted_networks(&record).into_iter().collect();
        if wanted.remove(&found.name).is_none() && !force {
            return Err(Error::Forbidden(format!(
                "container {} is not connected to network {}",
                record.id, found.name
            )));
        }
        if matches!(slot.phase(), Phase::Running(_)) {
            self.0.parts.networking.disconnect(&record.id, &found.name, force).await.map_err(wire)?;
        }
        slot.update_record(Durability::Synced, |record| {
            record.networks = wanted;
            record.networks_are_all = true;
        })?;
        self.membership_event(&record, "disconnect", &found);
        Ok(())
    }

    /// Removes a user-defined network.
    pub async fn remove_network(&self, name: &str) -> Result<()> {
        let found = self.0.parts.networking.network(name).map_err(wire)?;
        let removed = || async { self.0.parts.networking.remove_network(name).await.map_err(wire) };
        self.0.cleanups.or_after(removed).await?;
        let attributes =
            [("name".to_owned(), found.name), ("type".to_owned(), found.driver.as_str().to_owned())].into();
        self.publish(crate::Subject::Network, "destroy", found.id.as_str(), attributes);
        Ok(())
    }
}

/// The networks that a container is shown with: those that it is connected to, or `host` or `none`.
pub fn shown_networks(record: &Record) -> Vec<String> {
    match network_mode(record) {
        NetworkMode::None => vec!["none".to_owned()],
        NetworkMode::Host => vec!["host".to_owned()],
        NetworkMode::Of(_) => Vec::new(),
        NetworkMode::Networks => wanted_networks(record).into_iter().map(|(name, _)| name).collect(),
    }
}

/// The networks of a record, the one that its mode names first.
pub fn wanted_networks(record: &Record) -> Vec<(String, EndpointRequest)> {
    let canonical = |name: &str| if is_default_network(name) { DEFAULT_NETWORK.to_owned() } else { name.to_owned() };
    if !matches!(network_mode(record), NetworkMode::Networks) {
        return Vec::new();
    }
    let mode = canonical(&record.host.network_mode);
    let mut all: Vec<(String, EndpointRequest)> = Vec::new();
    for (name, request) in &record.networks {
        let entry = (canonical(name), request.clone());
        if entry.0 == mode { all.insert(0, entry) } else { all.push(entry) }
    }
    if !record.networks_are_all && all.first().is_none_or(|(name, _)| *name != mode) {
        all.insert(0, (mode, EndpointRequest::default()));
    }
    all
}

fn endpoint_spec(
    record: &Record,
    network: &str,
    request: &EndpointRequest,
    ports: Vec<PublishedPort>,
) -> Result<EndpointSpec> {
    let EndpointIpam { ipv4_address, .. } = request.ipam_config.clone().unwrap_or_default();
    let ip = match ipv4_address.as_str() {
        "" => None,
        text => Some(text.parse().map_err(|_| Error::Invalid(format!("invalid IPv4 address: {text}")))?),
    };
    if ip.is_some() && network == DEFAULT_NETWORK {
        return Err(Error::Invalid("user specified IP address is supported on user defined networks only".to_owned()));
    }
    let mac =
        match [request.mac_address.as_str(), record.config.mac_address.as_str()].into_iter().find(|m| !m.is_empty()) {
            Some(text) => Some(text.parse().map_err(wire)?),
            None => None,
        };
    let mut aliases: Vec<String> = request.aliases.clone().unwrap_or_default();
    aliases.push(record.id[..12].to_owned());
    if !record.config.hostname.is_empty() {
        aliases.push(record.config.hostname.clone());
    }
    let dns = record.host.dns.iter().filter_map(|server| server.parse().ok()).collect();
    Ok(EndpointSpec { name: record.name.clone(), aliases, ip, mac, ports, dns, links: Vec::new() })
}

/// A port that is taken fails a start in these words.
fn start_wording(error: networking::Error) -> Error {
    match &error {
        networking::Error::PortAllocated { .. }
        | networking::Error::PortInUse { .. }
        | networking::Error::PortBind { .. } => Error::System(format!(
            "failed to set up container networking: driver failed programming external connectivity on endpoint: {error}"
        )),
        _ => wire(error),
    }
}

#[cfg(test)]
mod tests;
