//! What shells do to pods on behalf of an owner: create in growing batches, delete, adopt, let go; with the events.
//!
//! Invariants: every write carries the uid (and, for lists that are replaced whole, the resourceVersion) of what was
//! seen; the server's answer goes into the cache at once, so a watch that lags can make no pod twice.

use crate::Context;
use crate::runner::or_gone;
use controllers::owners;
use futures_util::future::join_all;
use k8s_openapi::Resource;
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube_client::informer::ObjectKey;
use kube_client::recorder::Severity;
use kube_client::{ClientError, DeleteOptions, PatchKind};
use serde_json::{Value, json};
use std::sync::Arc;

/// Batches of 1, 2, 4, …: when every creation fails for the same reason, few are tried. Says how many were made, and
/// why it stopped if it did not make them all.
pub(crate) async fn create(
    context: &Context,
    about: &ObjectReference,
    pods: &[Pod],
) -> (usize, Result<(), ClientError>) {
    let api = context.client.api::<Pod>();
    let (mut made, mut batch) = (0, 1);
    while made < pods.len() {
        let size = batch.min(pods.len() - made);
        let (mut ok, mut failure) = (0, None);
        for outcome in join_all(pods[made..made + size].iter().map(|pod| api.create(pod))).await {
            match outcome {
                Ok(pod) => {
                    ok += 1;
                    context.caches.pods.observe(&pod);
                    let message = format!("Created pod: {}", pod.metadata.name.as_deref().unwrap_or_default());
                    context.events.event(about, Severity::Normal, "SuccessfulCreate", message);
                }
                Err(error) => failure = Some(error),
            }
        }
        made += ok;
        match failure {
            None => batch *= 2,
            Some(error) if error.is_namespace_terminating() => return (made, Ok(())),
            Some(error) => {
                context.events.event(about, Severity::Warning, "FailedCreate", format!("Error creating: {error}"));
                return (made, Err(error));
            }
        }
    }
    (made, Ok(()))
}

pub(crate) async fn delete(context: &Context, about: &ObjectReference, pod: &Pod) -> Result<(), ClientError> {
    remove(context, pod, None).await?;
    let message = format!("Deleted pod: {}", pod.metadata.name.as_deref().unwrap_or_default());
    context.events.event(about, Severity::Normal, "SuccessfulDelete", message);
    Ok(())
}

/// The same without an event; `grace_seconds` of None leaves the pod its own.
pub(crate) async fn remove(context: &Context, pod: &Pod, grace_seconds: Option<u32>) -> Result<(), ClientError> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let api = context.client.api::<Pod>().namespace(pod.metadata.namespace.clone().unwrap_or_default());
    let options = DeleteOptions { grace_seconds, ..DeleteOptions::of(&pod.metadata) };
    match or_gone(api.delete(name, &options).await)? {
        Some(Some(going)) => context.caches.pods.observe(&going),
        Some(None) | None => {
            let key = ObjectKey::of(&pod.metadata);
            context.caches.pods.observe_gone(&key, pod.metadata.uid.as_deref());
        }
    }
    Ok(())
}

pub(crate) async fn adopt<K: Resource>(context: &Context, owner: &ObjectMeta, pod: &Pod) -> Result<(), ClientError> {
    let mut owners = pod.metadata.owner_references.clone().unwrap_or_default();
    owners.push(owners::reference::<K>(owner));
    set_list(context, pod, "ownerReferences", json!(owners)).await
}

pub(crate) async fn release(context: &Context, owner: &ObjectMeta, pod: &Pod) -> Result<(), ClientError> {
    let mut owners = pod.metadata.owner_references.clone().unwrap_or_default();
    owners.retain(|o| Some(&o.uid) != owner.uid.as_ref());
    set_list(context, pod, "ownerReferences", json!(owners)).await
}

pub(crate) async fn drop_finalizer(context: &Context, pod: &Pod, finalizer: &str) -> Result<(), ClientError> {
    // The newest copy: a deletion of this very pass has changed it already.
    let newest = context.caches.pods.get_key(&ObjectKey::of(&pod.metadata));
    let newest = newest.filter(|p| p.metadata.uid == pod.metadata.uid);
    let Some(pod) = newest else { return Ok(()) };
    let mut finalizers = pod.metadata.finalizers.clone().unwrap_or_default();
    let before = finalizers.len();
    finalizers.retain(|f| f != finalizer);
    if finalizers.len() == before {
        return Ok(());
    }
    set_list(context, &pod, "finalizers", json!(finalizers)).await
}

async fn set_list(context: &Context, pod: &Pod, field: &str, list: Value) -> Result<(), ClientError> {
    let mut patch = json!({"metadata": {"uid": pod.metadata.uid, "resourceVersion": pod.metadata.resource_version}});
    patch["metadata"][field] = list;
    let api = context.client.api::<Pod>().namespace(pod.metadata.namespace.clone().unwrap_or_default());
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    match or_gone(api.patch(name, PatchKind::Merge, &patch).await)? {
        // Without its last finalizer a pod that was only held by it is gone.
        Some(changed) if is_gone(&changed) => {
            context.caches.pods.observe_gone(&ObjectKey::of(&pod.metadata), pod.metadata.uid.as_deref());
        }
        Some(changed) => context.caches.pods.observe(&changed),
        None => {}
    }
    Ok(())
}

fn is_gone(pod: &Pod) -> bool {
    let meta = &pod.metadata;
    let held = meta.finalizers.as_ref().is_some_and(|f| !f.is_empty());
    meta.deletion_timestamp.is_some() && meta.deletion_grace_period_seconds == Some(0) && !held
}

/// Pods that are the owner's own or nobody's.
pub(crate) fn candidates(context: &Context, owner: &ObjectMeta) -> Vec<Arc<Pod>> {
    let pods = &context.caches.pods;
    let mut all = pods.controlled_by(owner.uid.as_deref().unwrap_or_default());
    let namespace = owner.namespace.as_deref().unwrap_or_default();
    all.extend(pods.orphans(namespace));
    all
}
