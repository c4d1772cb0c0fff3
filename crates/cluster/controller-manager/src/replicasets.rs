//! The ReplicaSet shell: pods are created in growing batches and deleted with their uid as the guard.
//!
//! Invariant: the server's answer to each write goes into the cache before the next decision about the same key, so a
//! watch that lags can make no pod twice and delete none too many.

use crate::Context;
use crate::runner::{Outcome, Queue, Reconcile, feed, or_gone, own_key, owner_keys, run};
use controllers::replicaset::{self, Action, View, pod_from_template};
use controllers::{owners, selection};
use futures_util::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;
use kube_client::informer::{Change, ObjectKey};
use kube_client::recorder::{Severity, reference};
use kube_client::{ClientError, DeleteOptions, PatchKind};
use serde_json::json;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::task::JoinSet;

const WORKERS: usize = 4;

struct ReplicaSets {
    context: Arc<Context>,
    /// Why the last creation for a key failed.
    failures: Mutex<HashMap<ObjectKey, String>>,
}

pub(crate) fn spawn(context: &Arc<Context>, tasks: &mut JoinSet<()>) {
    let queue = Queue::default();
    feed(tasks, &context.caches.replica_sets, &queue, own_key);
    let seen = context.clone();
    feed(tasks, &context.caches.pods, &queue, move |change| pod_keys(&seen, change));
    let reconciler = ReplicaSets { context: context.clone(), failures: Mutex::default() };
    run(tasks, context, &queue, reconciler, WORKERS);
}

/// The owners of the pod; for one that nobody owns, those who could adopt it.
fn pod_keys(context: &Context, change: &Change<Pod>) -> Vec<ObjectKey> {
    let mut keys = owner_keys(change, "ReplicaSet");
    let meta = &change.object().metadata;
    if owners::controller_of(meta).is_none() {
        let sets = context.caches.replica_sets.list_namespace(meta.namespace.as_deref().unwrap_or_default());
        let matching = sets
            .iter()
            .filter(|set| set.spec.as_ref().is_some_and(|s| selection::matches(&s.selector, meta.labels.as_ref())));
        keys.extend(matching.map(|set| ObjectKey::of(&set.metadata)));
    }
    keys
}

impl Reconcile for ReplicaSets {
    const NAME: &'static str = "replicaset";

    async fn reconcile(&self, key: &ObjectKey) -> Outcome {
        let Some(set) = self.context.caches.replica_sets.get_key(key) else {
            self.failures().remove(key);
            return Ok(None);
        };
        let pods = self.candidates(&set);
        let failure = self.failures().get(key).cloned();
        let view = View { desired: &set, pods: &pods, now: Timestamp::now(), failure: failure.as_deref() };
        let decision = replicaset::decide(&view);
        for action in decision.actions {
            self.apply(&set, action).await?;
        }
        // What was just done comes back through the caches and leads to another pass.
        if set.status.as_ref() != Some(&decision.status) {
            let changed = ReplicaSet { status: Some(decision.status), ..ReplicaSet::clone(&set) };
            let written = self.context.client.api::<ReplicaSet>().update_status(&changed).await?;
            self.context.caches.replica_sets.observe(&written);
        }
        Ok(decision.wake_at)
    }
}

impl ReplicaSets {
    fn failures(&self) -> std::sync::MutexGuard<'_, HashMap<ObjectKey, String>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Pods that are the set's own or nobody's.
    fn candidates(&self, set: &ReplicaSet) -> Vec<Arc<Pod>> {
        let pods = &self.context.caches.pods;
        let mut all = pods.controlled_by(set.metadata.uid.as_deref().unwrap_or_default());
        let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
        let orphans = pods.list_namespace(namespace).into_iter();
        all.extend(orphans.filter(|pod| owners::controller_of(&pod.metadata).is_none()));
        all
    }

    async fn apply(&self, set: &ReplicaSet, action: Action) -> Result<(), ClientError> {
        match action {
            Action::Create { count } => self.create(set, count).await,
            Action::Delete(pod) => self.delete(set, &pod).await,
            Action::Adopt(pod) => {
                let owner = owners::reference::<ReplicaSet>(&set.metadata);
                let mut owners = pod.metadata.owner_references.clone().unwrap_or_default();
                owners.push(owner);
                self.set_owners(&pod, json!(owners)).await
            }
            Action::Release(pod) => {
                let mut owners = pod.metadata.owner_references.clone().unwrap_or_default();
                owners.retain(|o| Some(&o.uid) != set.metadata.uid.as_ref());
                self.set_owners(&pod, json!(owners)).await
            }
        }
    }

    async fn set_owners(&self, pod: &Pod, owners: serde_json::Value) -> Result<(), ClientError> {
        let patch = json!({"metadata": {
            "uid": pod.metadata.uid, "resourceVersion": pod.metadata.resource_version, "ownerReferences": owners,
        }});
        let api = self.context.client.api::<Pod>().namespace(pod.metadata.namespace.clone().unwrap_or_default());
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        if let Some(changed) = or_gone(api.patch(name, PatchKind::Merge, &patch).await)? {
            self.context.caches.pods.observe(&changed);
        }
        Ok(())
    }

    /// Batches of 1, 2, 4, …: when every creation fails for the same reason, few are tried.
    async fn create(&self, set: &ReplicaSet, count: usize) -> Result<(), ClientError> {
        let (key, pod) = (ObjectKey::of(&set.metadata), pod_from_template(set));
        let api = self.context.client.api::<Pod>();
        let (mut left, mut batch) = (count, 1);
        while left > 0 {
            let size = batch.min(left);
            for made in join_all((0..size).map(|_| api.create(&pod))).await {
                match made {
                    Ok(made) => self.created(set, &made),
                    Err(error) if error.is_namespace_terminating() => return Ok(()),
                    Err(error) => {
                        let message = format!("Error creating: {error}");
                        self.context.events.event(&reference(set), Severity::Warning, "FailedCreate", &*message);
                        self.failures().insert(key, error.to_string());
                        return Err(error);
                    }
                }
            }
            left -= size;
            batch *= 2;
        }
        self.failures().remove(&key);
        Ok(())
    }

    fn created(&self, set: &ReplicaSet, pod: &Pod) {
        self.context.caches.pods.observe(pod);
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let message = format!("Created pod: {name}");
        self.context.events.event(&reference(set), Severity::Normal, "SuccessfulCreate", message);
    }

    async fn delete(&self, set: &ReplicaSet, pod: &Pod) -> Result<(), ClientError> {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let api = self.context.client.api::<Pod>().namespace(pod.metadata.namespace.clone().unwrap_or_default());
        match or_gone(api.delete(name, &DeleteOptions::of(&pod.metadata)).await)? {
            Some(Some(going)) => self.context.caches.pods.observe(&going),
            Some(None) | None => {
                let key = ObjectKey::of(&pod.metadata);
                self.context.caches.pods.observe_gone(&key, pod.metadata.uid.as_deref());
            }
        }
        let message = format!("Deleted pod: {name}");
        self.context.events.event(&reference(set), Severity::Normal, "SuccessfulDelete", message);
        Ok(())
    }
}
