//! The shell around scheduling: pods without a node → a picture of the cluster → `scheduling::place` → binding.
//!
//! Started by the binary with a client. Invariants: a pod that was given a node counts there at once, before the watch
//! tells of it (assumed), until it is seen bound or its binding failed; a pod that found no place is tried again when
//! something changed that could help it, with a growing pause; nothing polls.
//! It binds only pods whose `schedulerName` is its own.

mod bind;
mod picture;
mod preempt;
mod volumes;
mod waiting;

use k8s_openapi::api::core::v1::{Node, Pod};
use kube_client::Client;
use kube_client::informer::{Cache, Change, Changes, ObjectKey, Scope};
use kube_client::recorder::EventRecorder;
use picture::{Streams, Surroundings};
use rand::Rng;
use scheduling::causes::Causes;
use scheduling::{Placement, Snapshot};
use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use waiting::Waiting;

pub const NAME: &str = "default-scheduler";
/// Pods that are placed between two looks at what has happened.
const STRIDE: usize = 64;

/// The running scheduler; dropping it stops it.
pub struct Scheduler {
    tasks: JoinSet<()>,
}

impl Scheduler {
    /// Must be called inside a tokio runtime; returns at once. `host` is shown as the host of events.
    pub fn start(client: &Client, host: &str) -> Self {
        let worker = Worker {
            client: client.clone(),
            events: EventRecorder::new(client, NAME, host),
            pods: Cache::start(client, Scope::default()),
            nodes: Cache::start(client, Scope::default()),
            around: Surroundings::start(client),
            snapshot: Snapshot::default(),
            waiting: Waiting::default(),
            ready: VecDeque::new(),
            assumed: HashSet::new(),
            writes: JoinSet::new(),
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(worker.run());
        Scheduler { tasks }
    }

    /// Stops and waits until nothing runs any more.
    pub async fn shutdown(mut self) {
        self.tasks.shutdown().await;
    }
}

/// What a task that writes came to.
pub(crate) enum Done {
    Bound(bind::Outcome),
    Said,
}

struct Worker {
    client: Client,
    events: EventRecorder,
    pods: Cache<Pod>,
    nodes: Cache<Node>,
    around: Surroundings,
    snapshot: Snapshot,
    waiting: Waiting,
    /// Pods whose turn it is, in their order.
    ready: VecDeque<Arc<Pod>>,
    /// Uids of pods that have a node and are not seen bound.
    assumed: HashSet<String>,
    writes: JoinSet<Done>,
}

impl Worker {
    async fn run(mut self) {
        self.pods.synced().await;
        self.nodes.synced().await;
        self.around.synced().await;
        self.snapshot.set_nodes(self.nodes.list());
        let (mut pods, mut nodes) = (self.pods.changes(), self.nodes.changes());
        let mut around = self.around.changes();
        loop {
            self.drain(&mut pods, &mut nodes, &mut around);
            self.cycle();
            if !self.ready.is_empty() {
                tokio::task::yield_now().await;
                continue;
            }
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
                event = around.next() => match event {
                    Some(event) => self.surroundings_changed(&event),
                    None => return,
                },
                Some(done) = self.writes.join_next() => self.written(done),
                () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            }
        }
    }

    /// Takes in all that has happened, so that one picture serves all the pods that wait.
    fn drain(&mut self, pods: &mut Changes<Pod>, nodes: &mut Changes<Node>, around: &mut Streams) {
        while let Some(event) = around.try_next() {
            self.surroundings_changed(&event);
        }
        while let Some(change) = nodes.try_next() {
            self.node_changed(&change);
        }
        while let Some(change) = pods.try_next() {
            self.pod_changed(&change);
        }
        while let Some(done) = self.writes.try_join_next() {
            self.written(done);
        }
    }

    fn pod_changed(&mut self, change: &Change<Pod>) {
        let pod = change.object();
        let key = ObjectKey::of(&pod.metadata);
        if let Change::Applied { old: Some(old), new } = change
            && old.metadata.uid != new.metadata.uid
        {
            self.forget(old);
        }
        if matches!(change, Change::Deleted { .. }) {
            self.waiting.remove(&key);
            self.forget(pod);
            self.waiting.wake(Causes::ROOM.and(Causes::NEIGHBOURS), Instant::now());
        } else if let Some(node) = node_name(pod) {
            self.waiting.remove(&key);
            self.assumed.remove(pod.metadata.uid.as_deref().unwrap_or_default());
            let left = has_ended(pod);
            let known = self.snapshot.is_placed(pod);
            self.snapshot.assign(node, pod.clone());
            // A pod has come that another wants to be near, or room has become free.
            let what = if left { Causes::ROOM.and(Causes::NEIGHBOURS) } else { Causes::NEIGHBOURS };
            if left || !known {
                self.waiting.wake(what, Instant::now());
            }
        } else if is_ours(pod) {
            self.pod_waits(key, change);
        } else {
            self.waiting.remove(&key);
        }
    }

    fn forget(&mut self, pod: &Pod) {
        self.assumed.remove(pod.metadata.uid.as_deref().unwrap_or_default());
        self.snapshot.remove(pod);
    }

    fn pod_waits(&mut self, key: ObjectKey, change: &Change<Pod>) {
        let pod = change.object();
        if is_gated(pod) {
            self.waiting.remove(&key);
            if let Some(report) = bind::gated(&self.client, &self.pods, pod) {
                self.writes.spawn(report);
            }
            return;
        }
        if self.assumed.contains(pod.metadata.uid.as_deref().unwrap_or_default()) {
            return;
        }
        if let Some(node) = pod.status.as_ref().and_then(|s| s.nominated_node_name.as_deref()) {
            self.snapshot.nominate(node, pod);
        }
        let changed = match change {
            Change::Applied { old: Some(old), new } => {
                old.metadata.uid != new.metadata.uid
                    || old.spec != new.spec
                    || old.metadata.labels != new.metadata.labels
            }
            Change::Applied { old: None, .. } => true,
            Change::Deleted { .. } => false,
        };
        // A change of status (our own message, mostly) is no reason to try again.
        if changed {
            self.waiting.add(key, Instant::now());
        }
    }

    fn node_changed(&mut self, change: &Change<Node>) {
        let causes = picture::take_in_node(&mut self.snapshot, change);
        if causes != Causes::NONE {
            self.waiting.wake(causes, Instant::now());
        }
    }

    fn surroundings_changed(&mut self, event: &picture::Event) {
        let causes = picture::take_in(&mut self.snapshot, event);
        if causes == Causes::NONE {
            self.around.set_budgets(&mut self.snapshot);
        } else {
            self.waiting.wake(causes, Instant::now());
        }
    }

    fn written(&mut self, done: Result<Done, tokio::task::JoinError>) {
        let Ok(Done::Bound(outcome)) = done else { return };
        let Err(error) = outcome.result else { return };
        tracing::warn!(pod = %outcome.key, node = outcome.node, %error, "a pod could not be bound");
        if self.assumed.remove(&outcome.uid) {
            self.snapshot.remove(&outcome.pod);
        }
        if self.pods.get_key(&outcome.key).is_some_and(|pod| node_name(&pod).is_none() && is_ours(&pod)) {
            self.waiting.retry(outcome.key, Instant::now());
        }
    }

    /// Places some of the pods whose turn it is, the most important first.
    fn cycle(&mut self) {
        let due = self.waiting.take_due(Instant::now());
        if !due.is_empty() {
            for key in due {
                match self.pods.get_key(&key).filter(|pod| node_name(pod).is_none() && is_ours(pod) && !is_gated(pod)) {
                    Some(pod) => self.ready.push_back(pod),
                    None => self.waiting.remove(&key),
                }
            }
            self.ready.make_contiguous().sort_by(|a, b| scheduling::queue_order(a, b));
        }
        for _ in 0..STRIDE {
            let Some(pod) = self.ready.pop_front() else { return };
            // It may have gone, or got a node from somebody else, while it waited here.
            let newest = self.pods.get_key(&ObjectKey::of(&pod.metadata));
            let newest = newest.filter(|p| p.metadata.uid == pod.metadata.uid && node_name(p).is_none());
            if let Some(pod) = newest.filter(|p| is_ours(p)) {
                self.place(pod);
            }
        }
    }

    fn place(&mut self, pod: Arc<Pod>) {
        let key = ObjectKey::of(&pod.metadata);
        match scheduling::place(&pod, &mut self.snapshot, rand::rng().next_u64()) {
            Placement::Node(node) => {
                self.snapshot.assign(&node, pod.clone());
                self.assumed.insert(pod.metadata.uid.clone().unwrap_or_default());
                self.waiting.remove(&key);
                let (client, events, claims) = (self.client.clone(), self.events.clone(), self.around.claims.clone());
                self.writes.spawn(async move { Done::Bound(bind::bind(client, events, claims, pod, node).await) });
            }
            Placement::Preempt { node, victims, message } => {
                self.snapshot.nominate(&node, &pod);
                self.waiting.park(key, Causes::ANY, Instant::now());
                let report = self.report(pod.clone(), message, Some(node.clone()));
                let (client, events, pods) = (self.client.clone(), self.events.clone(), self.pods.clone());
                self.writes.spawn(async move {
                    preempt::evict(&client, &events, &pods, &pod, &node, &victims).await;
                    report.await
                });
            }
            Placement::Nowhere(message) => {
                self.waiting.park(key, Causes::of(&message), Instant::now());
                let report = self.report(pod, message, None);
                self.writes.spawn(report);
            }
        }
    }

    fn report(
        &self,
        pod: Arc<Pod>,
        message: String,
        nominated: Option<String>,
    ) -> impl Future<Output = Done> + Send + 'static {
        let (client, events, pods) = (self.client.clone(), self.events.clone(), self.pods.clone());
        async move {
            bind::report(&client, &events, &pods, &pod, &message, nominated.as_deref()).await;
            Done::Said
        }
    }
}

fn node_name(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|n| !n.is_empty())
}

fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// To be placed by this scheduler.
fn is_ours(pod: &Pod) -> bool {
    let Some(spec) = pod.spec.as_ref() else { return false };
    let name = spec.scheduler_name.as_deref().filter(|n| !n.is_empty()).unwrap_or(NAME);
    name == NAME && pod.metadata.deletion_timestamp.is_none() && !has_ended(pod)
}

/// Somebody holds it back.
fn is_gated(pod: &Pod) -> bool {
    let gates = pod.spec.as_ref().and_then(|s| s.scheduling_gates.as_ref());
    gates.is_some_and(|gates| !gates.is_empty())
}
