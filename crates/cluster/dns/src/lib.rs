//! The resolver of a node: names of the cluster from the informers, everything else from the node's upstreams.
//!
//! The binary starts one a node, after the proxy (which puts 10.43.0.10 on the node). What names mean is decided by `service-plan`, sockets and
//! forwarding are `resolver`'s. Invariants: a name below the cluster's domain is never forwarded; before the caches are complete
//! such a name is a failure (to be asked again), never "no such name". Deliberately not here: zones of other domains, IPv6.

mod index;
mod zone;

use index::Index;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube_client::informer::{Cache, ObjectKey};
use resolver::{Forwarder, Server};
use service_plan::SERVICE_NAME_LABEL;
use service_plan::dns::{ServiceRecords, records};
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinHandle;
use zone::ClusterZone;

#[derive(Clone, Debug)]
pub struct DnsConfig {
    pub listen: Vec<SocketAddr>,
    /// Without a final dot.
    pub domain: String,
    /// Where the node's upstreams are written; read anew for each forwarded name.
    pub host_resolv_conf: PathBuf,
    /// Reverse names in these ranges are ours, known or not.
    pub own_ranges: Vec<(Ipv4Addr, u8)>,
}

impl Default for DnsConfig {
    fn default() -> Self {
        let at = |b: u8, c: u8, d: u8| Ipv4Addr::new(10, b, c, d);
        Self {
            listen: vec![SocketAddr::from((at(43, 0, 10), 53))],
            domain: "cluster.local".into(),
            host_resolv_conf: "/etc/resolv.conf".into(),
            own_ranges: vec![(at(42, 0, 0), 16), (at(43, 0, 0), 16), (at(44, 0, 0), 24)],
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot listen for DNS on {address}: {source}")]
    Listen { address: SocketAddr, source: std::io::Error },
}

/// A running resolver; it ends when this is dropped.
#[derive(Debug)]
pub struct Dns {
    _servers: Vec<Server>,
    follower: JoinHandle<()>,
    addresses: Vec<SocketAddr>,
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.follower.abort();
    }
}

impl Dns {
    pub async fn start(
        config: DnsConfig,
        services: Cache<Service>,
        slices: Cache<EndpointSlice>,
    ) -> Result<Self, Error> {
        let index = Arc::new(RwLock::new(Index::default()));
        let (servers, addresses) = serve(&config, index.clone()).await?;
        let follower = tokio::spawn(follow(index, config.domain, services, slices));
        Ok(Self { _servers: servers, follower, addresses })
    }

    /// Where it listens; with port 0 in the configuration, the port that the kernel chose.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }
}

async fn serve(config: &DnsConfig, index: Arc<RwLock<Index>>) -> Result<(Vec<Server>, Vec<SocketAddr>), Error> {
    let forwarder = Arc::new(Forwarder::new());
    let (mut servers, mut addresses) = (Vec::new(), Vec::new());
    for address in &config.listen {
        let failed = |source| Error::Listen { address: *address, source };
        // TCP first: where the port is left to the kernel, UDP takes the same one.
        let tcp = TcpListener::bind(address).await.map_err(failed)?;
        let bound = tcp.local_addr().map_err(failed)?;
        let udp = UdpSocket::bind(bound).await.map_err(failed)?;
        addresses.push(bound);
        let zone = ClusterZone::new(config, addresses.clone(), index.clone());
        servers.push(Server::spawn(udp, tcp, Arc::new(zone), forwarder.clone()));
    }
    tracing::info!(addresses = ?addresses, domain = %config.domain, "cluster DNS listens");
    Ok((servers, addresses))
}

/// Keeps the index as services and slices are.
async fn follow(index: Arc<RwLock<Index>>, domain: String, services: Cache<Service>, slices: Cache<EndpointSlice>) {
    services.synced().await;
    slices.synced().await;
    let (mut service_changes, mut slice_changes) = (services.changes(), slices.changes());
    loop {
        let mut keys: BTreeSet<ObjectKey> = BTreeSet::new();
        while let Some(change) = service_changes.try_next() {
            keys.extend(change.sides().map(|s| ObjectKey::of(&s.metadata)));
        }
        while let Some(change) = slice_changes.try_next() {
            keys.extend(change.sides().filter_map(|s| owner(s)));
        }
        refresh(&index, &domain, &services, &slices, keys);
        let keys: BTreeSet<ObjectKey> = tokio::select! {
            change = service_changes.next() => match change {
                Some(change) => change.sides().map(|s| ObjectKey::of(&s.metadata)).collect(),
                None => return,
            },
            change = slice_changes.next() => match change {
                Some(change) => change.sides().filter_map(|s| owner(s)).collect(),
                None => return,
            },
        };
        refresh(&index, &domain, &services, &slices, keys);
    }
}

fn refresh(
    index: &RwLock<Index>,
    domain: &str,
    services: &Cache<Service>,
    slices: &Cache<EndpointSlice>,
    keys: BTreeSet<ObjectKey>,
) {
    let fresh: Vec<(ObjectKey, ServiceRecords)> = keys
        .into_iter()
        .map(|key| {
            let found = services.get_key(&key).map(|service| {
                let own: Vec<Arc<EndpointSlice>> = slices
                    .list_namespace(&key.namespace)
                    .into_iter()
                    .filter(|s| owner(s).as_ref() == Some(&key))
                    .collect();
                records(&service, &own, domain)
            });
            (key, found.unwrap_or_default())
        })
        .collect();
    let mut index = index.write().unwrap_or_else(PoisonError::into_inner);
    index.complete = true;
    for (key, records) in fresh {
        index.set((key.namespace.to_ascii_lowercase(), key.name.to_ascii_lowercase()), records);
    }
}

fn owner(slice: &EndpointSlice) -> Option<ObjectKey> {
    let name = slice.metadata.labels.as_ref()?.get(SERVICE_NAME_LABEL)?;
    Some(ObjectKey::new(slice.metadata.namespace.clone()?, name))
}

#[cfg(test)]
mod tests;
