//! The one owner of networks, namespaces and endpoints: what callers ask, in order, journalled, then made real.
//!
//! Every operation runs in a blocking task (a handful of system calls, no waiting). Invariants: what the kernel has was in
//! the journal before; the state lock is never held across a kernel call that waits for another namespace; a failed operation takes back
//! what it did, teardown goes on past failures and reports them all.

mod adopt;
mod connect;
mod networks;

use crate::endpoint::Handle;
use crate::journal::Journal;
use crate::ports::Held;
use crate::rules::{self, Elements, TABLE};
use crate::{Endpoint, EndpointSpec, Error, Network, NetworkId, NetworkSpec, NetworkingConfig};
use kernel::netlink::Route;
use kernel::netns;
use kernel::nft::{Batch, Family, Nft};
use resolver::{Forwarder, Server};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Cheap to clone; all clones are the same.
#[derive(Clone, Debug)]
pub struct Networking {
    inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    config: NetworkingConfig,
    journal: Journal,
    state: Mutex<State>,
    route: Mutex<Route>,
    nft: Mutex<Nft>,
    /// The kernel has the bridge family: senders are checked.
    guarded: bool,
    pool: Mutex<Vec<Handle>>,
    refilling: AtomicBool,
    pub(crate) forwarder: Arc<Forwarder>,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) networks: BTreeMap<NetworkId, Network>,
    pub(crate) namespaces: BTreeMap<String, NamespaceState>,
    /// Endpoints of removed namespaces whose links the kernel still has: their addresses are not free yet.
    leaving: Vec<Endpoint>,
    /// The address given out last, by network.
    last_address: BTreeMap<NetworkId, Ipv4Addr>,
}

#[derive(Debug)]
pub(crate) struct NamespaceState {
    handle: Arc<Handle>,
    pub(crate) endpoints: Vec<Endpoint>,
    /// By endpoint id.
    held: BTreeMap<String, Vec<Held>>,
    resolver: Option<Server>,
}

impl State {
    fn addresses_of(&self, network: &NetworkId) -> BTreeSet<Ipv4Addr> {
        self.namespaces
            .values()
            .flat_map(|n| &n.endpoints)
            .chain(&self.leaving)
            .filter(|e| e.network == *network)
            .map(|e| e.address)
            .collect()
    }

    /// By name, id, or the unambiguous beginning of an id.
    fn find(&self, name_or_id: &str) -> Result<&Network, Error> {
        if let Some(network) = self
            .networks
            .values()
            .find(|n| n.name == name_or_id)
            .or_else(|| self.networks.get(&NetworkId(name_or_id.to_owned())))
        {
            return Ok(network);
        }
        let mut matches =
            self.networks.values().filter(|n| !name_or_id.is_empty() && n.id.as_str().starts_with(name_or_id));
        match (matches.next(), matches.count()) {
            (Some(network), 0) => Ok(network),
            (Some(_), more) => Err(Error::NetworkAmbiguous(name_or_id.to_owned(), more + 1)),
            (None, _) => Err(Error::NetworkNotFound(name_or_id.to_owned())),
        }
    }

    fn with_endpoints(&self, network: &Network) -> Network {
        let endpoints =
            self.namespaces.values().flat_map(|n| &n.endpoints).filter(|e| e.network == network.id).cloned().collect();
        Network { endpoints, ..network.clone() }
    }
}

impl Networking {
    /// Makes or adopts links, tables, saved networks and endpoints; resumes the resolvers. In the calling process's network namespace.
    pub async fn open(config: NetworkingConfig) -> Result<Self, Error> {
        let inner = blocking(move || Inner::open(config)).await?;
        let networking = Self { inner };
        networking.refill();
        Ok(networking)
    }

    pub async fn create_network(&self, spec: NetworkSpec) -> Result<Network, Error> {
        let inner = self.inner.clone();
        blocking(move || inner.create_network(spec)).await
    }

    pub fn networks(&self) -> Vec<Network> {
        let state = self.inner.state();
        state.networks.values().map(|n| state.with_endpoints(n)).collect()
    }

    /// By name, id, or the unambiguous beginning of an id.
    pub fn network(&self, name_or_id: &str) -> Result<Network, Error> {
        let state = self.inner.state();
        state.find(name_or_id).map(|n| state.with_endpoints(n))
    }

    pub async fn remove_network(&self, name_or_id: &str) -> Result<(), Error> {
        let (inner, name) = (self.inner.clone(), name_or_id.to_owned());
        blocking(move || inner.remove_network(&name)).await
    }

    /// A namespace from the pool, pinned at the path that is returned; `lo` is up.
    pub async fn create_namespace(&self, id: &str) -> Result<PathBuf, Error> {
        let (inner, id) = (self.inner.clone(), id.to_owned());
        let path = blocking(move || inner.create_namespace(&id)).await?;
        self.refill();
        Ok(path)
    }

    /// Where [`Networking::create_namespace`] pins it.
    pub fn namespace_path(&self, id: &str) -> PathBuf {
        self.inner.pin(id)
    }

    /// All endpoints of a namespace, in the order in which they were connected.
    pub fn endpoints(&self, id: &str) -> Vec<Endpoint> {
        self.inner.state().namespaces.get(id).map(|n| n.endpoints.clone()).unwrap_or_default()
    }

    pub async fn connect(&self, id: &str, network: &str, spec: EndpointSpec) -> Result<Endpoint, Error> {
        let (inner, id, network) = (self.inner.clone(), id.to_owned(), network.to_owned());
        blocking(move || inner.connect(&id, &network, spec)).await
    }

    /// With `force`, a namespace that is not connected is no error.
    pub async fn disconnect(&self, id: &str, network: &str, force: bool) -> Result<(), Error> {
        let (inner, id, network) = (self.inner.clone(), id.to_owned(), network.to_owned());
        match blocking(move || inner.disconnect(&id, &network)).await {
            Err(Error::NotConnected { .. } | Error::NamespaceNotFound(_)) if force => Ok(()),
            other => other,
        }
    }

    /// Also all its endpoints and ports; idempotent; goes on after a failure and returns them all.
    pub async fn remove_namespace(&self, id: &str) -> Result<(), Vec<Error>> {
        let (inner, id) = (self.inner.clone(), id.to_owned());
        blocking_all(move || inner.remove_namespace(&id)).await
    }

    /// `purge` removes links, tables and namespaces; otherwise everything keeps working in the kernel.
    pub async fn shutdown(&self, purge: bool) -> Result<(), Vec<Error>> {
        for namespace in self.inner.state().namespaces.values_mut() {
            namespace.resolver = None;
        }
        self.inner.pool.lock().unwrap_or_else(PoisonError::into_inner).clear();
        if !purge {
            return Ok(());
        }
        let inner = self.inner.clone();
        blocking_all(move || inner.purge()).await
    }

    /// Fills the pool in the background, one task at a time.
    fn refill(&self) {
        if self.inner.refilling.swap(true, Ordering::AcqRel) {
            return;
        }
        let inner = self.inner.clone();
        tokio::task::spawn_blocking(move || {
            loop {
                if inner.pool().len() >= inner.config.pool_size {
                    break;
                }
                match Handle::create() {
                    Ok(handle) => inner.pool().push(handle),
                    Err(error) => {
                        tracing::warn!(%error, "no network namespace could be made ahead");
                        break;
                    }
                }
            }
            inner.refilling.store(false, Ordering::Release);
        });
    }
}

impl Inner {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pool(&self) -> MutexGuard<'_, Vec<Handle>> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn route(&self) -> MutexGuard<'_, Route> {
        self.route.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn nft(&self) -> MutexGuard<'_, Nft> {
        self.nft.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pin_directory(&self) -> PathBuf {
        self.config.root.join("run/netns")
    }

    fn pin(&self, id: &str) -> PathBuf {
        self.pin_directory().join(id)
    }

    /// The node's resolvers, read anew each time: the file is small and changes with the network.
    pub(crate) fn host_upstreams(&self) -> Vec<SocketAddr> {
        std::fs::read_to_string(&self.config.host_resolv_conf)
            .map(|text| resolver::parse_upstreams(&text))
            .unwrap_or_default()
    }

    fn create_namespace(&self, id: &str) -> Result<PathBuf, Error> {
        check_namespace(id)?;
        if self.state().namespaces.contains_key(id) {
            return Err(Error::NamespaceExists(id.to_owned()));
        }
        let ready = self.pool().pop();
        let handle = match ready {
            Some(handle) => handle,
            None => Handle::create().map_err(Error::kernel("make a network namespace"))?,
        };
        let path = self.pin(id);
        self.journal.save_namespace(id, &[])?;
        let pinned = handle.namespace.pin(&path).map_err(Error::kernel("pin a network namespace"));
        if pinned.is_err() {
            self.journal.forget_namespace(id)?;
        }
        pinned?;
        let fresh =
            NamespaceState { handle: Arc::new(handle), endpoints: Vec::new(), held: BTreeMap::new(), resolver: None };
        self.state().namespaces.insert(id.to_owned(), fresh);
        Ok(path)
    }

    fn remove_namespace(self: &Arc<Self>, id: &str) -> Result<(), Vec<Error>> {
        check_namespace(id).map_err(|e| vec![e])?;
        let endpoints = {
            let mut state = self.state();
            let Some(namespace) = state.namespaces.get_mut(id) else {
                drop(state);
                return self.forget_namespace(id);
            };
            namespace.resolver = None;
            namespace.endpoints.clone()
        };
        let mut errors = Vec::new();
        for endpoint in &endpoints {
            errors.extend(self.clear_rules(endpoint).err());
        }
        {
            // Ports become free now; addresses when their links are gone.
            let mut state = self.state();
            state.namespaces.remove(id);
            state.leaving.extend(endpoints);
        }
        errors.extend(self.forget_namespace(id).err().into_iter().flatten());
        let inner = self.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(error) = inner.remove_leaving_links() {
                tracing::warn!(%error, "a link could not be removed");
            }
        });
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    fn forget_namespace(&self, id: &str) -> Result<(), Vec<Error>> {
        let pin = netns::unpin(&self.pin(id)).map_err(Error::kernel("unpin a network namespace"));
        let errors: Vec<Error> = [pin, self.journal.forget_namespace(id)].into_iter().filter_map(Result::err).collect();
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    /// Adds or removes elements of both tables. A refused change (someone flushed our table) is repaired by writing both anew.
    fn change_elements(&self, endpoint: &Endpoint, routed: bool, add: bool) -> Result<(), Error> {
        let mut batches = vec![batch(Family::Inet, &rules::translation_elements(endpoint, routed), add)];
        if self.guarded {
            batches.push(batch(Family::Bridge, &rules::identity_elements(endpoint), add));
        }
        let done = batches.iter().try_for_each(|b| self.nft().apply(b));
        match done {
            Ok(()) => Ok(()),
            Err(error) => {
                tracing::warn!(%error, "the engine's tables were not as they should be and are written anew");
                self.write_tables(if add { None } else { Some(&endpoint.id) })
            }
        }
    }

    /// Both tables from what the state says, leaving one endpoint out.
    fn write_tables(&self, without: Option<&str>) -> Result<(), Error> {
        let (translation, identity) = {
            let state = self.state();
            let networks: Vec<&Network> = state.networks.values().collect();
            let endpoints: Vec<(&Endpoint, bool)> = state
                .namespaces
                .values()
                .flat_map(|n| &n.endpoints)
                .filter(|e| Some(e.id.as_str()) != without)
                .map(|e| (e, state.networks.get(&e.network).is_some_and(|n| n.routed)))
                .collect();
            (
                rules::translation_table(&networks, endpoints.iter().copied()),
                rules::identity_table(endpoints.iter().map(|(e, _)| *e)),
            )
        };
        self.nft().replace(&translation).map_err(Error::kernel("write the engine's table"))?;
        if self.guarded {
            self.nft().replace(&identity).map_err(Error::kernel("write the engine's bridge table"))?;
        }
        Ok(())
    }
}

fn batch(family: Family, elements: &Elements, add: bool) -> Batch {
    let mut batch = Batch::new(family, TABLE);
    for (set, elements) in elements {
        if add {
            batch.add_elements(set, elements);
        } else {
            batch.delete_elements(set, elements);
        }
    }
    batch
}

/// The name becomes a file's.
fn check_namespace(id: &str) -> Result<(), Error> {
    let fine = (1..=128).contains(&id.len())
        && !id.starts_with('.')
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
    if fine { Ok(()) } else { Err(Error::InvalidNamespace(id.to_owned())) }
}

/// 64 hexadecimal digits.
fn random_id() -> String {
    rand::random::<[u8; 32]>().iter().map(|b| format!("{b:02x}")).collect()
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(Error::Task(error.to_string())))
}

async fn blocking_all(work: impl FnOnce() -> Result<(), Vec<Error>> + Send + 'static) -> Result<(), Vec<Error>> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(vec![Error::Task(error.to_string())]))
}
