//! The node shell: watches leases, taints what is silent, evicts, and clears pods of nodes that are gone.
//!
//! Invariant: silence is measured by this process's own clock from the renewals that it saw (see `controllers::node`).

use crate::Context;
use crate::caches::node_word;
use crate::pod_control;
use crate::runner::{Outcome, Queue, Reconcile, feed, or_gone, own_key, run};
use controllers::node::{self, Action, View};
use controllers::pods::node_name;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube_client::informer::{Change, ObjectKey};
use kube_client::recorder::{Severity, reference};
use kube_client::{ClientError, PatchKind};
use serde_json::json;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::task::JoinSet;

/// A node's sign of life: what its lease and its status said, and when that was first seen here.
#[derive(Clone, Copy)]
struct Renewal {
    lease: Option<Timestamp>,
    beat: Option<Timestamp>,
    seen: Timestamp,
}

type Renewals = HashMap<String, Renewal>;

struct Nodes {
    context: Arc<Context>,
    renewals: Mutex<Renewals>,
}

pub(crate) fn spawn(context: &Arc<Context>, tasks: &mut JoinSet<()>) {
    let queue = Queue::default();
    feed(tasks, &context.caches.nodes, &queue, own_key);
    feed(tasks, &context.caches.leases, &queue, |change| {
        change.object().metadata.name.iter().map(|name| ObjectKey::new("", name.clone())).collect()
    });
    feed(tasks, &context.caches.pods, &queue, newly_bound);
    let reconciler = Nodes { context: context.clone(), renewals: Mutex::default() };
    run(tasks, context, &queue, reconciler, 1);
}

/// The node of a pod that was just bound: it may be tainted, or gone.
fn newly_bound(change: &Change<Pod>) -> Vec<ObjectKey> {
    let Change::Applied { old, new } = change else {
        return Vec::new();
    };
    let before = old.as_deref().and_then(node_name);
    node_name(new).filter(|name| before != Some(*name)).map(|name| ObjectKey::new("", name)).into_iter().collect()
}

impl Reconcile for Nodes {
    const NAME: &'static str = "node";

    async fn reconcile(&self, key: &ObjectKey) -> Outcome {
        let caches = &self.context.caches;
        let pods: Vec<Arc<Pod>> = caches.pods.with_word(&node_word(&key.name));
        let Some(node) = caches.nodes.get_key(key) else {
            self.renewals().remove(&key.name);
            return self.clear(&key.name, &pods).await;
        };
        let now = Timestamp::now();
        let view = View { node: &node, pods: &pods, renewed: self.renewed(&node, now), now };
        let decision = node::decide(&view);
        for action in decision.actions {
            self.apply(&node, action).await?;
        }
        Ok(decision.wake_at)
    }
}

impl Nodes {
    fn renewals(&self) -> std::sync::MutexGuard<'_, Renewals> {
        self.renewals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When this process last saw a sign of life.
    fn renewed(&self, node: &Node, now: Timestamp) -> Timestamp {
        let name = node.metadata.name.clone().unwrap_or_default();
        let lease = self.context.caches.leases.get("kube-node-lease", &name);
        let lease = lease.and_then(|l| Some(l.spec.as_ref()?.renew_time.as_ref()?.0));
        let conditions = node.status.as_ref().and_then(|s| s.conditions.as_ref()).into_iter().flatten();
        let beat = conditions.filter_map(|c| Some(c.last_heartbeat_time.as_ref()?.0)).max();
        let mut renewals = self.renewals();
        let fresh = Renewal { lease, beat, seen: now };
        let renewal = renewals.entry(name).or_insert(fresh);
        if (renewal.lease, renewal.beat) != (lease, beat) {
            *renewal = fresh;
        }
        renewal.seen
    }

    async fn apply(&self, node: &Node, action: Action) -> Result<(), ClientError> {
        let nodes = self.context.client.api::<Node>();
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let written = match action {
            Action::SetConditions(conditions) => {
                tracing::info!(node = name, "the node is silent");
                let patch = json!({"metadata": {"uid": node.metadata.uid}, "status": {"conditions": conditions}});
                nodes.patch_status(name, PatchKind::Merge, &patch).await?
            }
            Action::SetTaints(taints) => {
                // Guarded: a list of taints is replaced whole, and users taint nodes too.
                let guard = json!({"uid": node.metadata.uid, "resourceVersion": self.version(node)});
                nodes.patch(name, PatchKind::Merge, &json!({"metadata": guard, "spec": {"taints": taints}})).await?
            }
            Action::MarkNotReady(pod) => return self.mark_not_ready(&pod).await,
            Action::Evict(pod) => {
                let message = "Marking for deletion Pod: its node's taints are not tolerated any longer";
                self.context.events.event(&reference(&*pod), Severity::Normal, "TaintManagerEviction", message);
                return pod_control::remove(&self.context, &pod, None).await;
            }
        };
        self.context.caches.nodes.observe(&written);
        Ok(())
    }

    /// The node's newest version: conditions may have been written a moment ago.
    fn version(&self, node: &Node) -> Option<String> {
        let key = ObjectKey::of(&node.metadata);
        let newest = self.context.caches.nodes.get_key(&key);
        newest.map_or_else(|| node.metadata.resource_version.clone(), |n| n.metadata.resource_version.clone())
    }

    async fn mark_not_ready(&self, pod: &Pod) -> Result<(), ClientError> {
        let mut changed = pod.clone();
        let conditions = changed.status.as_mut().and_then(|s| s.conditions.as_mut());
        for condition in conditions.into_iter().flatten().filter(|c| c.type_ == "Ready") {
            condition.status = "False".into();
            condition.reason = Some("NodeNotReady".into());
            condition.message = Some("Node is not ready".into());
            condition.last_transition_time = Some(Time(Timestamp::now()));
        }
        if let Some(written) = or_gone(self.context.client.api::<Pod>().update_status(&changed).await)? {
            self.context.caches.pods.observe(&written);
        }
        Ok(())
    }

    /// The node does not exist: nobody else will ever finish its pods. The server is asked, not only the cache.
    async fn clear(&self, name: &str, pods: &[Arc<Pod>]) -> Outcome {
        if pods.is_empty() || self.context.client.api::<Node>().get_opt(name).await?.is_some() {
            return Ok(None);
        }
        for pod in pods {
            pod_control::remove(&self.context, pod, Some(0)).await?;
        }
        Ok(None)
    }
}
