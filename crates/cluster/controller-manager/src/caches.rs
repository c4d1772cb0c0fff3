//! The copies of the cluster's objects that the controllers share.
//!
//! Invariant: no controller acts before all of these are filled.

use controllers::namespace::ROOT_CA;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Endpoints, Namespace, Node, Pod, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube_client::Client;
use kube_client::informer::{Cache, Scope};

pub(crate) struct Caches {
    pub(crate) pods: Cache<Pod>,
    pub(crate) replica_sets: Cache<ReplicaSet>,
    pub(crate) deployments: Cache<Deployment>,
    pub(crate) services: Cache<Service>,
    pub(crate) slices: Cache<EndpointSlice>,
    pub(crate) endpoints: Cache<Endpoints>,
    pub(crate) namespaces: Cache<Namespace>,
    pub(crate) accounts: Cache<ServiceAccount>,
    /// Only those named `kube-root-ca.crt`.
    pub(crate) root_cas: Cache<ConfigMap>,
    pub(crate) nodes: Cache<Node>,
    /// Only the nodes' own.
    pub(crate) leases: Cache<Lease>,
}

impl Caches {
    pub(crate) fn start(client: &Client) -> Self {
        let root_ca = Scope { fields: Some(format!("metadata.name={ROOT_CA}")), ..Scope::default() };
        let node_leases = Scope { namespace: Some("kube-node-lease".into()), ..Scope::default() };
        Caches {
            pods: Cache::start(client, Scope::default()),
            replica_sets: Cache::start(client, Scope::default()),
            deployments: Cache::start(client, Scope::default()),
            services: Cache::start(client, Scope::default()),
            slices: Cache::start(client, Scope::default()),
            endpoints: Cache::start(client, Scope::default()),
            namespaces: Cache::start(client, Scope::default()),
            accounts: Cache::start(client, Scope::default()),
            root_cas: Cache::start(client, root_ca),
            nodes: Cache::start(client, Scope::default()),
            leases: Cache::start(client, node_leases),
        }
    }

    pub(crate) async fn synced(&self) {
        self.pods.synced().await;
        self.replica_sets.synced().await;
        self.deployments.synced().await;
        self.services.synced().await;
        self.slices.synced().await;
        self.endpoints.synced().await;
        self.namespaces.synced().await;
        self.accounts.synced().await;
        self.root_cas.synced().await;
        self.nodes.synced().await;
        self.leases.synced().await;
    }
}
