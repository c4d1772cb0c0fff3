//! The ReplicationController shell.

use crate::Context;
use crate::pod_control;
use crate::runner::{Outcome, Queue, Reconcile, feed, own_key, owner_keys, run};
use controllers::replicaset::{self, Action, View};
use controllers::{owners, replication, selection};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use kube_client::informer::{Change, ObjectKey};
use kube_client::recorder::reference;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::task::JoinSet;

struct Replication {
    context: Arc<Context>,
    failures: Mutex<HashMap<ObjectKey, String>>,
}

pub(crate) fn spawn(context: &Arc<Context>, tasks: &mut JoinSet<()>) {
    let queue = Queue::default();
    feed(tasks, &context.caches.replication, &queue, own_key);
    let seen = context.clone();
    feed(tasks, &context.caches.pods, &queue, move |change| pod_keys(&seen, change));
    run(tasks, context, &queue, Replication { context: context.clone(), failures: Mutex::default() }, 2);
}

fn pod_keys(context: &Context, change: &Change<Pod>) -> Vec<ObjectKey> {
    let mut keys = owner_keys(change, "ReplicationController");
    let meta = &change.object().metadata;
    if owners::controller_of(meta).is_none() {
        let all = context.caches.replication.list_namespace(meta.namespace.as_deref().unwrap_or_default());
        let selects = |rc: &ReplicationController| {
            let selector = rc.spec.as_ref().and_then(|s| s.selector.as_ref());
            selector.is_some_and(|s| selection::matches_map(s, meta.labels.as_ref()))
        };
        keys.extend(all.iter().filter(|rc| selects(rc)).map(|rc| ObjectKey::of(&rc.metadata)));
    }
    keys
}

impl Reconcile for Replication {
    const NAME: &'static str = "replicationcontroller";

    async fn reconcile(&self, key: &ObjectKey) -> Outcome {
        let context = &self.context;
        let Some(controller) = context.caches.replication.get_key(key) else {
            self.failures().remove(key);
            return Ok(None);
        };
        let (set, about) = (replication::as_replica_set(&controller), reference(&*controller));
        let pods = pod_control::candidates(context, &set.metadata);
        let failure = self.failures().get(key).cloned();
        let view = View { desired: &set, pods: &pods, now: Timestamp::now(), failure: failure.as_deref() };
        let decision = replicaset::decide(&view);
        let mut failed = None;
        for action in decision.actions {
            let done = match action {
                Action::Create { count } => {
                    let outcome = pod_control::create(context, &about, &vec![replication::pod(&set); count]).await.1;
                    match &outcome {
                        Ok(()) => self.failures().remove(key),
                        Err(error) => self.failures().insert(key.clone(), error.to_string()),
                    };
                    outcome
                }
                Action::Delete(pod) => pod_control::delete(context, &about, &pod).await,
                Action::Adopt(pod) => pod_control::adopt::<ReplicationController>(context, &set.metadata, &pod).await,
                Action::Release(pod) => pod_control::release(context, &set.metadata, &pod).await,
            };
            failed = failed.or(done.err());
        }
        let status = replication::status(decision.status);
        if controller.status.as_ref() != Some(&status) {
            let changed = ReplicationController { status: Some(status), ..ReplicationController::clone(&controller) };
            let written = context.client.api::<ReplicationController>().update_status(&changed).await?;
            context.caches.replication.observe(&written);
        }
        failed.map_or(Ok(decision.wake_at), Err)
    }
}

impl Replication {
    fn failures(&self) -> std::sync::MutexGuard<'_, HashMap<ObjectKey, String>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
