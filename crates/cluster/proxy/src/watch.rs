//! From the informers' changes to the kernel.

use crate::applier::{Applier, ServiceKey, StaleUdp};
use crate::{ProxyConfig, node};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kernel::netlink::Conntrack;
use kube_client::informer::Cache;
use service_plan::{SERVICE_NAME_LABEL, ServicePlan, Settings, plan_service};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;

const RETRY: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot {attempt}: {source}")]
    Kernel { attempt: &'static str, source: kernel::netlink::Error },
    #[error("the proxy's task died: {0}")]
    Task(String),
}

/// A running proxy; its task ends when this is dropped, the kernel's rules stay.
#[derive(Debug)]
pub struct Proxy {
    task: JoinHandle<()>,
    applier: Arc<Mutex<Applier>>,
    /// Told after each write to the kernel.
    written: watch::Receiver<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Proxy {
    /// Makes the node's link and routes at once; writes rules as soon as both caches are complete.
    pub async fn start(
        config: ProxyConfig,
        services: Cache<Service>,
        slices: Cache<EndpointSlice>,
    ) -> Result<Self, Error> {
        let for_node = config.clone();
        let applier = blocking(move || {
            node::ensure(&for_node)
                .map_err(|source| Error::Kernel { attempt: "make service addresses reachable", source })?;
            Applier::new(for_node).map_err(|source| Error::Kernel { attempt: "talk to nftables", source })
        })
        .await?;
        let applier = Arc::new(Mutex::new(applier));
        let settings = Settings { node: config.node.clone(), own_addresses: [config.dns_address].into() };
        let (tell, written) = watch::channel(());
        let follower =
            Follower { services, slices, settings, applier: applier.clone(), pending: BTreeSet::new(), tell };
        Ok(Self { task: tokio::spawn(follower.run()), applier, written })
    }

    /// Completes when no service in the kernel sends new connections to these addresses. The caller bounds the wait:
    /// a pod whose service has no other endpoint may serve to its end.
    pub async fn released(&self, addresses: &[String]) {
        let addresses: Vec<Ipv4Addr> = addresses.iter().filter_map(|address| address.parse().ok()).collect();
        let mut written = self.written.clone();
        // Subscribed before it is asked, so that a write in between is not missed.
        written.borrow_and_update();
        while self.applier.lock().unwrap_or_else(PoisonError::into_inner).sends_to(&addresses) {
            if written.changed().await.is_err() {
                return;
            }
        }
    }
}

/// Takes rules, link and routes of a proxy that does not run (any more) out of the kernel.
pub fn purge(config: &ProxyConfig) -> Result<(), Error> {
    let failed = |source| Error::Kernel { attempt: "delete the table of services", source };
    Applier::new(config.clone()).map_err(failed)?.purge().map_err(failed)?;
    node::remove(config).map_err(|source| Error::Kernel { attempt: "delete the service link", source })
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(Error::Task(error.to_string())))
}

struct Follower {
    services: Cache<Service>,
    slices: Cache<EndpointSlice>,
    settings: Settings,
    applier: Arc<Mutex<Applier>>,
    /// Services to look at again.
    pending: BTreeSet<ServiceKey>,
    tell: watch::Sender<()>,
}

impl Follower {
    async fn run(mut self) {
        self.services.synced().await;
        self.slices.synced().await;
        let (mut services, mut slices) = (self.services.changes(), self.slices.changes());
        let mut failed = false;
        loop {
            // Everything that is there goes into one batch.
            while let Some(change) = services.try_next() {
                self.pending.extend(change.sides().filter_map(|s| own_key(&s.metadata)));
            }
            // Both sides count: a slice that was relabelled concerns two services.
            while let Some(change) = slices.try_next() {
                self.pending.extend(change.sides().filter_map(|s| owner_key(&s.metadata)));
            }
            failed = match self.apply(failed).await {
                Ok(()) => {
                    self.tell.send_replace(());
                    false
                }
                Err(error) => {
                    tracing::error!(%error, "services could not be written to the kernel; trying again");
                    true
                }
            };
            tokio::select! {
                change = services.next() => match change {
                    Some(change) => self.pending.extend(change.sides().filter_map(|s| own_key(&s.metadata))),
                    None => return,
                },
                change = slices.next() => match change {
                    Some(change) => self.pending.extend(change.sides().filter_map(|s| owner_key(&s.metadata))),
                    None => return,
                },
                () = tokio::time::sleep(RETRY), if failed => {}
            }
        }
    }

    async fn apply(&mut self, again: bool) -> Result<(), Error> {
        let keys = std::mem::take(&mut self.pending);
        let mut changes: Vec<(ServiceKey, ServicePlan)> = Vec::with_capacity(keys.len());
        let mut slices_of: BTreeMap<String, Vec<Arc<EndpointSlice>>> = BTreeMap::new();
        for key in keys {
            let slices = slices_of.entry(key.0.clone()).or_insert_with(|| self.slices.list_namespace(&key.0));
            let plan = match self.services.get(&key.0, &key.1) {
                Some(service) => {
                    let own: Vec<&Arc<EndpointSlice>> =
                        slices.iter().filter(|s| owner_key(&s.metadata).as_ref() == Some(&key)).collect();
                    plan_service(&service, &own, &self.settings)
                }
                None => ServicePlan::default(),
            };
            changes.push((key, plan));
        }
        let applier = self.applier.clone();
        blocking(move || {
            let failed = |source| Error::Kernel { attempt: "write the table of services", source };
            let mut applier = applier.lock().unwrap_or_else(PoisonError::into_inner);
            if again {
                applier.replace().map_err(failed)?;
            }
            forget_stale(&applier.apply(changes).map_err(failed)?);
            Ok(())
        })
        .await
    }
}

fn own_key(metadata: &ObjectMeta) -> Option<ServiceKey> {
    Some((metadata.namespace.clone()?, metadata.name.clone()?))
}

fn owner_key(metadata: &ObjectMeta) -> Option<ServiceKey> {
    Some((metadata.namespace.clone()?, metadata.labels.as_ref()?.get(SERVICE_NAME_LABEL)?.clone()))
}

/// UDP has no end of a connection: a client that keeps sending would keep an endpoint that is gone.
fn forget_stale(stale: &[StaleUdp]) {
    if stale.is_empty() {
        return;
    }
    let is_stale = |flow: &kernel::netlink::Flow| {
        stale.iter().any(|s| {
            let addressed = (flow.destination_port == s.port && s.addresses.contains(&flow.destination))
                || s.node_port == Some(flow.destination_port);
            addressed && !s.targets.contains(&(flow.answered_by, flow.answered_from_port))
        })
    };
    match Conntrack::open().and_then(|mut table| table.forget(|flow| flow.protocol == 17 && is_stale(flow))) {
        Ok(0) => {}
        Ok(count) => tracing::debug!(count, "stale UDP connections forgotten"),
        Err(error) => tracing::warn!(%error, "stale UDP connections could not be forgotten"),
    }
}
