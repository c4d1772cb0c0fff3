//! Shells around the controllers: caches → queue → view → decide → apply.
//!
//! Started by the binary with a client. Invariants: every write carries the uid or resourceVersion of what was seen; a
//! conflict re-queues the key and is decided anew; a step follows its event at once (nothing polls, nothing resyncs).
//! It deliberately decides nothing: that is the `controllers` crate.

mod caches;
mod cron_jobs;
mod custom;
mod deployments;
mod discovery;
mod endpoints;
mod garbage;
mod graph;
mod jobs;
mod load_balancers;
mod namespaces;
mod nodes;
mod pod_control;
mod replicasets;
mod runner;
mod teardown;

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
        let mut tasks = tokio::task::JoinSet::new();
        deployments::spawn(&context, &mut tasks);
        replicasets::spawn(&context, &mut tasks);
        jobs::spawn(&context, &mut tasks);
        cron_jobs::spawn(&context, &mut tasks);
        endpoints::spawn(&context, &mut tasks);
        load_balancers::spawn(&context, &mut tasks);
        namespaces::spawn(&context, &mut tasks);
        nodes::spawn(&context, &mut tasks);
        garbage::spawn(&context, &mut tasks);
        ControllerManager { tasks }
    }

    /// Stops every controller and waits until none runs.
    pub async fn shutdown(mut self) {
        self.tasks.shutdown().await;
    }
}
