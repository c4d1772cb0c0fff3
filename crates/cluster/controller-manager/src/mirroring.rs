//! The endpoint mirroring shell.

use crate::Context;
use crate::runner::{Outcome, Queue, Reconcile, feed, or_gone, own_key, run};
use controllers::endpoints::{MANAGED_BY, SERVICE_NAME};
use controllers::mirroring::{self, Action, MANAGER};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube_client::DeleteOptions;
use kube_client::informer::ObjectKey;
use std::sync::Arc;
use tokio::task::JoinSet;

struct Mirroring(Arc<Context>);

pub(crate) fn spawn(context: &Arc<Context>, tasks: &mut JoinSet<()>) {
    let queue = Queue::default();
    feed(tasks, &context.caches.services, &queue, own_key);
    feed(tasks, &context.caches.endpoints, &queue, own_key);
    run(tasks, context, &queue, Mirroring(context.clone()), 1);
}

fn is_mirror(slice: &EndpointSlice, service: &str) -> bool {
    let labels = slice.metadata.labels.as_ref();
    let has = |key: &str, value: &str| labels.and_then(|l| l.get(key)).is_some_and(|v| v == value);
    has(MANAGED_BY, MANAGER) && has(SERVICE_NAME, service)
}

impl Reconcile for Mirroring {
    const NAME: &'static str = "endpointslicemirroring";

    async fn reconcile(&self, key: &ObjectKey) -> Outcome {
        let caches = &self.0.caches;
        let service = caches.services.get_key(key);
        let endpoints = caches.endpoints.get_key(key);
        let mut slices: Vec<Arc<EndpointSlice>> = caches.slices.list_namespace(&key.namespace);
        slices.retain(|s| is_mirror(s, &key.name));
        let api = self.0.client.api::<EndpointSlice>().namespace(key.namespace.clone());
        for action in mirroring::decide(service.as_deref(), endpoints.as_deref(), &slices) {
            match action {
                Action::Create(slice) => match api.create(&slice).await {
                    Ok(made) => caches.slices.observe(&made),
                    Err(error) if error.is_namespace_terminating() => {}
                    Err(error) => return Err(error),
                },
                Action::Update(slice) => caches.slices.observe(&api.update(&slice).await?),
                Action::Delete(slice) => {
                    let name = slice.metadata.name.as_deref().unwrap_or_default();
                    or_gone(api.delete(name, &DeleteOptions::of(&slice.metadata)).await)?;
                    caches.slices.observe_gone(&ObjectKey::of(&slice.metadata), slice.metadata.uid.as_deref());
                }
            }
        }
        Ok(None)
    }
}
