//! The copies of the cluster's objects that the controllers share.
//!
//! Invariant: no controller acts before all of these are filled.

use crate::jobs::tracked_word;
use crate::storage::claim_word;
use controllers::job::is_tracked;
use controllers::namespace::ROOT_CA;
use controllers::owners::controller_of;
use controllers::pods::{is_finished, node_name};
use controllers::storage::claims_of;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    ConfigMap, Endpoints, Namespace, Node, PersistentVolumeClaim, Pod, ReplicationController, Service, ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube_client::Client;
use kube_client::informer::{Cache, Scope};

#[derive(Clone)]
pub(crate) struct Caches {
    pub(crate) pods: Cache<Pod>,
    pub(crate) replica_sets: Cache<ReplicaSet>,
    pub(crate) deployments: Cache<Deployment>,
    pub(crate) daemon_sets: Cache<DaemonSet>,
    pub(crate) stateful_sets: Cache<StatefulSet>,
    pub(crate) revisions: Cache<ControllerRevision>,
    pub(crate) claims: Cache<PersistentVolumeClaim>,
    pub(crate) replication: Cache<ReplicationController>,
    pub(crate) budgets: Cache<PodDisruptionBudget>,
    pub(crate) jobs: Cache<Job>,
    pub(crate) cron_jobs: Cache<CronJob>,
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
            pods: Cache::start_indexed(client, Scope::default(), Some(pod_words)),
            replica_sets: Cache::start(client, Scope::default()),
            deployments: Cache::start(client, Scope::default()),
            daemon_sets: Cache::start(client, Scope::default()),
            stateful_sets: Cache::start(client, Scope::default()),
            revisions: Cache::start(client, Scope::default()),
            claims: Cache::start(client, Scope::default()),
            replication: Cache::start(client, Scope::default()),
            budgets: Cache::start(client, Scope::default()),
            jobs: Cache::start(client, Scope::default()),
            cron_jobs: Cache::start(client, Scope::default()),
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
        self.daemon_sets.synced().await;
        self.stateful_sets.synced().await;
        self.revisions.synced().await;
        self.claims.synced().await;
        self.replication.synced().await;
        self.budgets.synced().await;
        self.jobs.synced().await;
        self.cron_jobs.synced().await;
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

/// Pods are found by their node and, while a Job holds them, by that Job.
fn pod_words(pod: &Pod) -> Vec<String> {
    let mut words: Vec<String> = node_name(pod).map(node_word).into_iter().collect();
    words.extend(is_finished(pod).then(|| ENDED_WORD.to_owned()));
    let owner = controller_of(&pod.metadata).filter(|o| o.kind == "Job");
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    words.extend(claims_of(pod).iter().map(|claim| claim_word(namespace, claim)));
    words.extend(owner.filter(|_| is_tracked(pod)).map(|owner| tracked_word(namespace, &owner.name)));
    words
}

/// What a pod that ended is found by.
pub(crate) const ENDED_WORD: &str = "ended";

/// What a pod of the node is found by.
pub(crate) fn node_word(node: &str) -> String {
    format!("node/{node}")
}
