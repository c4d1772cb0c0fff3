//! Shells around the controllers: caches → queue → view → decide → apply.
//!
//! Started by the binary with a client. Invariants: every write carries the uid or resourceVersion of what was seen; a
//! conflict re-queues the key and is decided anew; a step follows its event at once (nothing polls, nothing resyncs).
//! It deliberately decides nothing: that is the `controllers` crate.

mod autoscalers;
mod budgets;
mod caches;
mod certificates;
mod cron_jobs;
mod custom;
mod daemonsets;
mod deployments;
mod discovery;
mod endpoints;
mod garbage;
mod graph;
mod jobs;
mod load_balancers;
mod mirroring;
mod namespaces;
mod nodes;
mod pod_control;
mod pod_gc;
mod quotas;
mod replicasets;
mod replication;
mod revisions;
mod role_aggregation;
mod runner;
mod statefulsets;
mod storage;
mod teardown;

pub use certificates::Signer;

use caches::Caches;
use controllers::load_balancer::Pool;
use kube_client::Client;
use kube_client::recorder::EventRecorder;
use std::sync::Arc;

/// What the controllers cannot know from the API.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// The cluster's CA in PEM, published to every namespace.
    pub root_ca: String,
    pub load_balancer_pool: Pool,
    /// Signs certificate requests; without it they stay unsigned.
    pub signer: Option<Signer>,
    /// Where the built-in provisioner keeps its volumes, on every node.
    pub local_volumes: String,
    /// Shown as the host of events.
    pub host: String,
}

/// What every shell needs.
struct Context {
    client: Client,
    caches: Caches,
    events: EventRecorder,
    config: Config,
}

/// The running controllers; dropping it stops them.
pub struct ControllerManager {
    tasks: tokio::task::JoinSet<()>,
}

impl ControllerManager {
    /// Starts every controller. Must be called inside a tokio runtime; returns at once, work begins when the caches are
    /// filled.
    pub fn start(client: &Client, config: Config) -> Self {
        let context = Arc::new(Context {
            client: client.clone(),
            caches: Caches::start(client),
            events: EventRecorder::new(client, "controllermanager", &config.host),
            config,
        });
        // Events name the controller that they come from, as in Kubernetes.
        let named = |component: &str| {
            Arc::new(Context {
                client: client.clone(),
                caches: context.caches.clone(),
                events: EventRecorder::new(client, component, &context.config.host),
                config: context.config.clone(),
            })
        };
        let mut tasks = tokio::task::JoinSet::new();
        deployments::spawn(&named("deployment-controller"), &mut tasks);
        replicasets::spawn(&named("replicaset-controller"), &mut tasks);
        jobs::spawn(&named("job-controller"), &mut tasks);
        cron_jobs::spawn(&named("cronjob-controller"), &mut tasks);
        daemonsets::spawn(&named("daemonset-controller"), &mut tasks);
        statefulsets::spawn(&named("statefulset-controller"), &mut tasks);
        replication::spawn(&named("replication-controller"), &mut tasks);
        budgets::spawn(&context, &mut tasks);
        pod_gc::spawn(&context, &mut tasks);
        role_aggregation::spawn(&context, &mut tasks);
        mirroring::spawn(&context, &mut tasks);
        storage::spawn(&named("persistentvolume-controller"), &mut tasks);
        autoscalers::spawn(&named("horizontal-pod-autoscaler"), &mut tasks);
        quotas::spawn(&context, &mut tasks);
        certificates::spawn(&context, &mut tasks);
        endpoints::spawn(&named("endpoint-slice-controller"), &mut tasks);
        load_balancers::spawn(&named("service-controller"), &mut tasks);
        namespaces::spawn(&context, &mut tasks);
        nodes::spawn(&named("node-controller"), &mut tasks);
        garbage::spawn(&context, &mut tasks);
        ControllerManager { tasks }
    }

    /// Stops every controller and waits until none runs.
    pub async fn shutdown(mut self) {
        self.tasks.shutdown().await;
    }
}
