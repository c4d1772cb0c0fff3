//! What scheduling writes: bindings, and why a pod has none.

use crate::{Done, volumes};
use k8s_openapi::api::core::v1::{Binding, ObjectReference, PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube_client::informer::{Cache, ObjectKey};
use kube_client::recorder::{EventRecorder, Severity, reference};
use kube_client::{Client, ClientError, PatchKind};
use serde_json::{Value, json};
use std::sync::Arc;

/// What became of one binding.
pub(crate) struct Outcome {
    pub(crate) key: ObjectKey,
    pub(crate) uid: String,
    pub(crate) pod: Arc<Pod>,
    pub(crate) node: String,
    pub(crate) result: Result<(), ClientError>,
}

pub(crate) async fn bind(
    client: Client,
    events: EventRecorder,
    claims: Cache<PersistentVolumeClaim>,
    pod: Arc<Pod>,
    node: String,
) -> Outcome {
    let key = ObjectKey::of(&pod.metadata);
    let uid = pod.metadata.uid.clone().unwrap_or_default();
    if let Err(error) = volumes::bind(&client, &claims, &pod, &node).await {
        events.event(
            &reference(&*pod),
            Severity::Warning,
            "FailedScheduling",
            format!("running PreBind plugin \"VolumeBinding\": {error}"),
        );
        return Outcome { key, uid, pod, node, result: Err(error) };
    }
    let binding = Binding {
        metadata: ObjectMeta {
            name: Some(key.name.clone()),
            namespace: Some(key.namespace.clone()),
            // The server refuses when another pod of this name has come in the meantime.
            uid: Some(uid.clone()),
            ..ObjectMeta::default()
        },
        target: ObjectReference { kind: Some("Node".into()), name: Some(node.clone()), ..ObjectReference::default() },
    };
    let pods = client.api::<Pod>().namespace(key.namespace.clone());
    let result = pods.post::<_, Value>(&key.name, "binding", &binding).await.map(|_| ());
    if result.is_ok() {
        let message = format!("Successfully assigned {key} to {node}");
        events.event(&reference(&*pod), Severity::Normal, "Scheduled", message);
    }
    Outcome { key, uid, pod, node, result }
}

/// Says on the pod, and by an event, why it has no node.
pub(crate) async fn report(
    client: &Client,
    events: &EventRecorder,
    cache: &Cache<Pod>,
    pod: &Pod,
    message: &str,
    nominated: Option<&str>,
) {
    events.event(&reference(pod), Severity::Warning, "FailedScheduling", message);
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_ref()).into_iter().flatten();
    let old = conditions.into_iter().find(|c| c.type_ == "PodScheduled");
    if nominated.is_none() && old.is_some_and(|c| c.status == "False" && c.message.as_deref() == Some(message)) {
        return;
    }
    let since = old.filter(|c| c.status == "False").and_then(|c| c.last_transition_time.clone());
    let since = since.unwrap_or_else(|| Time(jiff::Timestamp::now()));
    let mut patch = json!({"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [{
        "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message,
        "lastTransitionTime": since,
    }]}});
    if let Some(node) = nominated {
        patch["status"]["nominatedNodeName"] = node.into();
    }
    write(client, cache, pod, &patch).await;
}

async fn write(client: &Client, cache: &Cache<Pod>, pod: &Pod, patch: &Value) {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let pods = client.api::<Pod>().namespace(pod.metadata.namespace.clone().unwrap_or_default());
    match pods.patch_status(name, PatchKind::Strategic, patch).await {
        Ok(written) => cache.observe(&written),
        // The pod went away, or it is another one by now: there is nothing to say about it.
        Err(error) if error.is_not_found() || error.is_conflict() => {}
        Err(error) => tracing::warn!(pod = name, %error, "cannot write why a pod has no node"),
    }
}

/// Says on a pod that it is held back, unless it says so already.
pub(crate) fn gated(
    client: &Client,
    cache: &Cache<Pod>,
    pod: &Arc<Pod>,
) -> Option<impl Future<Output = Done> + Send + 'static> {
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_ref()).into_iter().flatten();
    if conditions.into_iter().any(|c| c.type_ == "PodScheduled" && c.reason.as_deref() == Some("SchedulingGated")) {
        return None;
    }
    let (client, cache, pod) = (client.clone(), cache.clone(), pod.clone());
    Some(async move {
        let patch = json!({"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [{
            "type": "PodScheduled", "status": "False", "reason": "SchedulingGated",
            "message": "Scheduling is blocked due to non-empty scheduling gates",
            "lastTransitionTime": jiff::Timestamp::now(),
        }]}});
        write(&client, &cache, &pod, &patch).await;
        Done::Said
    })
}
