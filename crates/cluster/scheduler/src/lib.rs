//! The shell around scheduling: pods without a node → a picture of the cluster → `scheduling::place` → binding.
//!
//! Started by the binary with a client. Invariants: a pod that was given a node counts there at once, before the watch
//! tells of it (assumed), until it is seen bound or its binding failed; a pod that found no place is tried again when
//! something changed that could help it, with a growing pause; nothing polls.
//! It does not preempt, and it binds only pods whose `schedulerName` is its own.

mod assumed;
mod bind;
mod waiting;

use assumed::Assumed;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use kube_client::Client;
use kube_client::informer::{Cache, Change, Changes, ObjectKey, Scope};
use kube_client::recorder::EventRecorder;
use rand::Rng;
use scheduling::{Placement, Snapshot};
use std::sync::Arc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use waiting::Waiting;

pub const NAME: &str = "default-scheduler";

/// The running scheduler; dropping it stops it.
pub struct Scheduler {
    tasks: JoinSet<()>,
}

impl Scheduler {
    /// Must be called inside a tokio runtime; returns at once. `host` is shown as the host of events.
    pub fn start(client: &Client, host: &str) -> Self {
        let pods = Cache::start(client, Scope::default());
        let nodes = Cache::start(client, Scope::default());
        let namespaces = Cache::start(client, Scope::default());
        let events = EventRecorder::new(client, NAME, host);
        let mut tasks = JoinSet::new();
        let worker = Worker {
            client: client.clone(),
            events,
            pods,
            nodes,
            namespaces,
            waiting: Waiting::default(),
            assumed: Assumed::default(),
            bindings: JoinSet::new(),
        };
        tasks.spawn(worker.run());
        Scheduler { tasks }
    }

    /// Stops and waits until nothing runs any more.
    pub async fn shutdown(mut self) {
        self.tasks.shutdown().await;
    }
}

struct Worker {
    client: Client,
    events: EventRecorder,
    pods: Cache<Pod>,
    nodes: Cache<Node>,
    namespaces: Cache<Namespace>,
    waiting: Waiting,
    assumed: Assumed,
    bindings: JoinSet<bind::Outcome>,
}

impl Worker {
    async fn run(mut self) {
        self.pods.synced().await;
        self.nodes.synced().await;
        self.namespaces.synced().await;
        let (mut pods, mut nodes) = (self.pods.changes(), self.nodes.changes());
        loop {
            self.drain(&mut pods, &mut nodes);
            self.cycle().await;
            let due = self.waiting.next_due();
            tokio::select! {
                change = pods.next() => match change {
                    Some(change) => self.pod_changed(&change),
                    None => return,
                },
                change = nodes.next() => match change {
                    Some(change) => self.node_changed(&change),
                    None => return,
                },
                Some(done) = self.bindings.join_next() => self.bound(done),
                () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            }
        }
    }

    /// Takes in all that has happened, so that one picture serves all the pods that wait.
    fn drain(&mut self, pods: &mut Changes<Pod>, nodes: &mut Changes<Node>) {
        while let Some(change) = pods.try_next() {
            self.pod_changed(&change);
        }
        while let Some(change) = nodes.try_next() {
            self.node_changed(&change);
        }
        while let Some(done) = self.bindings.try_join_next() {
            self.bound(done);
        }
    }

    fn pod_changed(&mut self, change: &Change<Pod>) {
        let pod = change.object();
        let key = ObjectKey::of(&pod.metadata);
        let deleted = matches!(change, Change::Deleted { .. });
        if deleted || is_bound(pod) {
            self.waiting.remove(&key);
            self.assumed.forget(pod.metadata.uid.as_deref());
            // Room may have become free, or a pod has come that another wants to be near.
            self.waiting.wake_all(Instant::now());
        } else if is_ours(pod) {
            let changed_spec = match change {
                Change::Applied { old: Some(old), new } => {
                    old.metadata.uid != new.metadata.uid
                        || old.spec != new.spec
                        || old.metadata.labels != new.metadata.labels
                }
                Change::Applied { old: None, .. } => true,
                Change::Deleted { .. } => false,
            };
            // A change of status (our own message, mostly) is no reason to try again.
            if changed_spec && !self.assumed.contains(pod.metadata.uid.as_deref()) {
                self.waiting.add(key, Instant::now());
            }
        } else {
            self.waiting.remove(&key);
        }
    }

    /// A heartbeat changes nothing that a filter looks at.
    fn node_changed(&mut self, change: &Change<Node>) {
        if let Change::Applied { old: Some(old), new } = change {
            let capacity = |n: &Node| n.status.as_ref().and_then(|s| s.allocatable.clone());
            if old.spec == new.spec && old.metadata.labels == new.metadata.labels && capacity(old) == capacity(new) {
                return;
            }
        }
        self.waiting.wake_all(Instant::now());
    }

    fn bound(&mut self, done: Result<bind::Outcome, tokio::task::JoinError>) {
        let Ok(outcome) = done else { return };
        if let Err(error) = outcome.result {
            tracing::warn!(pod = %outcome.key, node = outcome.node, %error, "a pod could not be bound");
            self.assumed.forget(Some(&outcome.uid));
            if self.pods.get_key(&outcome.key).is_some_and(|pod| !is_bound(&pod) && is_ours(&pod)) {
                self.waiting.retry(outcome.key, Instant::now());
            }
        }
    }

    /// Places every pod whose turn it is.
    async fn cycle(&mut self) {
        let mut due: Vec<Arc<Pod>> = Vec::new();
        for key in self.waiting.take_due(Instant::now()) {
            match self.pods.get_key(&key).filter(|pod| !is_bound(pod) && is_ours(pod)) {
                Some(pod) => due.push(pod),
                None => self.waiting.remove(&key),
            }
        }
        if due.is_empty() {
            return;
        }
        due.sort_by(|a, b| scheduling::queue_order(a, b));
        let mut snapshot = self.snapshot();
        for pod in due {
            let seed = rand::rng().next_u64();
            match scheduling::place(&pod, &snapshot, seed) {
                Placement::Node(node) => {
                    snapshot.assign(&node, pod.clone());
                    self.assumed.add(&pod, &node);
                    self.waiting.remove(&ObjectKey::of(&pod.metadata));
                    self.bindings.spawn(bind::bind(self.client.clone(), self.events.clone(), pod, node));
                }
                Placement::Nowhere(message) => {
                    self.waiting.park(ObjectKey::of(&pod.metadata), Instant::now());
                    bind::report(&self.client, &self.events, &self.pods, &pod, &message).await;
                }
            }
        }
    }

    fn snapshot(&self) -> Snapshot {
        let all = self.pods.list().into_iter();
        let bound = all.filter_map(|pod| {
            let node = self.assumed.node(&pod).or_else(|| node_name(&pod).map(str::to_owned))?;
            Some((node, pod))
        });
        let mut snapshot = Snapshot::new(self.nodes.list(), bound);
        for namespace in self.namespaces.list() {
            let name = namespace.metadata.name.clone().unwrap_or_default();
            snapshot.namespaces.insert(name, namespace.metadata.labels.clone().unwrap_or_default());
        }
        snapshot
    }
}

fn node_name(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|n| !n.is_empty())
}

fn is_bound(pod: &Pod) -> bool {
    node_name(pod).is_some()
}

/// To be placed by this scheduler, now.
fn is_ours(pod: &Pod) -> bool {
    let Some(spec) = pod.spec.as_ref() else {
        return false;
    };
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    let gated = spec.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty());
    spec.scheduler_name.as_deref().unwrap_or(NAME) == NAME
        && pod.metadata.deletion_timestamp.is_none()
        && !matches!(phase, Some("Succeeded" | "Failed"))
        && !gated
}
