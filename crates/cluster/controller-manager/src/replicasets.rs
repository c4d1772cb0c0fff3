//! The ReplicaSet shell: pods are created in growing batches and deleted with their uid as the guard.
//!
//! Invariant: the server's answer to each write goes into the cache before the next decision about the same key, so a
//! watch that lags can make no pod twice and delete none too many.

use crate::Context;
use crate::pod_control;
use crate::runner::{Outcome, Queue, Reconcile, feed, own_key, owner_keys, run};
use controllers::replicaset::{self, Action, View, pod_from_template};
use controllers::{owners, selection};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;
use kube_client::ClientError;
use kube_client::informer::{Change, ObjectKey};
use kube_client::recorder::reference;
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
        let pods = pod_control::candidates(&self.context, &set.metadata);
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

    async fn apply(&self, set: &ReplicaSet, action: Action) -> Result<(), ClientError> {
        let context = &self.context;
        match action {
            Action::Create { count } => self.create(set, count).await,
            Action::Delete(pod) => pod_control::delete(context, &reference(set), &pod).await,
            Action::Adopt(pod) => pod_control::adopt::<ReplicaSet>(context, &set.metadata, &pod).await,
            Action::Release(pod) => pod_control::release(context, &set.metadata, &pod).await,
        }
    }

    async fn create(&self, set: &ReplicaSet, count: usize) -> Result<(), ClientError> {
        let key = ObjectKey::of(&set.metadata);
        let pods = vec![pod_from_template(set); count];
        let (_, outcome) = pod_control::create(&self.context, &reference(set), &pods).await;
        match &outcome {
            Ok(()) => self.failures().remove(&key),
            Err(error) => self.failures().insert(key, error.to_string()),
        };
        outcome
    }
}
