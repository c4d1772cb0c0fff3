//! The endpoints shell: keeps the slices (and the legacy Endpoints) of every Service with a selector.
//!
//! Invariant: a pod's change reaches the slices in one pass; nothing is batched or delayed, because traffic follows.

use crate::Context;
use crate::runner::{Outcome, Queue, Reconcile, feed, or_gone, own_key, run};
use controllers::endpoints::{self, Action, MANAGED_BY, MANAGER, SERVICE_NAME, View};
use controllers::selection;
use k8s_openapi::api::core::v1::{Endpoints, Pod};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube_client::informer::{Change, ObjectKey};
use kube_client::{ClientError, DeleteOptions};
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::task::JoinSet;

const WORKERS: usize = 4;

struct Controller(Arc<Context>);

pub(crate) fn spawn(context: &Arc<Context>, tasks: &mut JoinSet<()>) {
    let queue = Queue::default();
    feed(tasks, &context.caches.services, &queue, own_key);
    let seen = context.clone();
    feed(tasks, &context.caches.pods, &queue, move |change| services_of(&seen, change));
    feed(tasks, &context.caches.slices, &queue, slice_keys);
    feed(tasks, &context.caches.endpoints, &queue, own_key);
    run(tasks, context, &queue, Controller(context.clone()), WORKERS);
}

/// Services that select the pod as it was or as it is.
fn services_of(context: &Context, change: &Change<Pod>) -> Vec<ObjectKey> {
    let namespace = change.object().metadata.namespace.as_deref().unwrap_or_default();
    let mut keys = BTreeSet::new();
    for service in context.caches.services.list_namespace(namespace) {
        let Some(selector) = service.spec.as_ref().and_then(|s| s.selector.as_ref()) else {
            continue;
        };
        if change.sides().any(|pod| selection::matches_map(selector, pod.metadata.labels.as_ref())) {
            keys.insert(ObjectKey::of(&service.metadata));
        }
    }
    keys.into_iter().collect()
}

fn slice_keys(change: &Change<EndpointSlice>) -> Vec<ObjectKey> {
    let keys = change.sides().filter(|slice| is_ours(slice)).filter_map(|slice| {
        let name = slice.metadata.labels.as_ref()?.get(SERVICE_NAME)?;
        Some(ObjectKey::new(slice.metadata.namespace.clone().unwrap_or_default(), name.clone()))
    });
    keys.collect()
}

fn is_ours(slice: &EndpointSlice) -> bool {
    slice.metadata.labels.as_ref().and_then(|l| l.get(MANAGED_BY)).is_some_and(|m| m == MANAGER)
}

impl Reconcile for Controller {
    const NAME: &'static str = "endpoints";

    async fn reconcile(&self, key: &ObjectKey) -> Outcome {
        let caches = &self.0.caches;
        let Some(service) = caches.services.get_key(key) else {
            return self.clean_up(key).await;
        };
        let slices = self.slices(key);
        let pods = caches.pods.list_namespace(&key.namespace);
        let old = caches.endpoints.get_key(key);
        let view = View { service: &service, pods: &pods, slices: &slices, endpoints: old.as_deref() };
        for action in endpoints::decide(&view) {
            self.apply(action).await?;
        }
        Ok(None)
    }
}

impl Controller {
    fn slices(&self, key: &ObjectKey) -> Vec<Arc<EndpointSlice>> {
        let mut slices = self.0.caches.slices.list_namespace(&key.namespace);
        let name = |slice: &EndpointSlice| slice.metadata.labels.as_ref()?.get(SERVICE_NAME).cloned();
        slices.retain(|slice| is_ours(slice) && name(slice).as_ref() == Some(&key.name));
        slices
    }

    async fn apply(&self, action: Action) -> Result<(), ClientError> {
        let (client, caches) = (&self.0.client, &self.0.caches);
        let done = match action {
            Action::CreateSlice(slice) => {
                client.api::<EndpointSlice>().create(&slice).await.map(|made| caches.slices.observe(&made))
            }
            Action::UpdateSlice(slice) => {
                client.api::<EndpointSlice>().update(&slice).await.map(|new| caches.slices.observe(&new))
            }
            Action::DeleteSlice(slice) => return self.delete_slice(&slice).await,
            Action::CreateEndpoints(endpoints) => {
                client.api::<Endpoints>().create(&endpoints).await.map(|made| caches.endpoints.observe(&made))
            }
            Action::UpdateEndpoints(endpoints) => {
                client.api::<Endpoints>().update(&endpoints).await.map(|new| caches.endpoints.observe(&new))
            }
        };
        match done {
            Err(error) if error.is_namespace_terminating() => Ok(()),
            other => other,
        }
    }

    async fn delete_slice(&self, slice: &EndpointSlice) -> Result<(), ClientError> {
        let api = self.0.client.api::<EndpointSlice>();
        let api = api.namespace(slice.metadata.namespace.clone().unwrap_or_default());
        let name = slice.metadata.name.as_deref().unwrap_or_default();
        or_gone(api.delete(name, &DeleteOptions::of(&slice.metadata)).await)?;
        self.0.caches.slices.observe_gone(&ObjectKey::of(&slice.metadata), slice.metadata.uid.as_deref());
        Ok(())
    }

    /// The Service is gone: what was made for it goes at once, not only when garbage collection gets there.
    async fn clean_up(&self, key: &ObjectKey) -> Outcome {
        for slice in self.slices(key) {
            self.delete_slice(&slice).await?;
        }
        let Some(endpoints) = self.0.caches.endpoints.get_key(key).filter(|e| made_here(e)) else {
            return Ok(None);
        };
        let api = self.0.client.api::<Endpoints>().namespace(key.namespace.clone());
        or_gone(api.delete(&key.name, &DeleteOptions::of(&endpoints.metadata)).await)?;
        self.0.caches.endpoints.observe_gone(key, endpoints.metadata.uid.as_deref());
        Ok(None)
    }
}

/// Endpoints that a user made for a Service without a selector are the user's.
fn made_here(endpoints: &Endpoints) -> bool {
    let labels = endpoints.metadata.labels.as_ref();
    labels.and_then(|l| l.get("endpoints.kubernetes.io/managed-by")).is_some_and(|m| m == "endpoint-controller")
}
