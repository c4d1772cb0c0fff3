//! Makes the victims of a preemption go.
//!
//! Invariant: a victim is deleted with its uid as the guard, and says why before it goes.

use k8s_openapi::api::core::v1::Pod;
use kube_client::informer::Cache;
use kube_client::recorder::{EventRecorder, Severity, reference};
use kube_client::{Client, DeleteOptions, PatchKind};
use serde_json::json;
use std::sync::Arc;

pub(crate) async fn evict(
    client: &Client,
    events: &EventRecorder,
    cache: &Cache<Pod>,
    preemptor: &Pod,
    node: &str,
    victims: &[Arc<Pod>],
) {
    let by = preemptor.metadata.uid.as_deref().unwrap_or_default();
    for victim in victims.iter().filter(|p| p.metadata.deletion_timestamp.is_none()) {
        let name = victim.metadata.name.as_deref().unwrap_or_default();
        let api = client.api::<Pod>().namespace(victim.metadata.namespace.clone().unwrap_or_default());
        let patch = json!({"metadata": {"uid": victim.metadata.uid}, "status": {"conditions": [{
            "type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler",
            "message": format!("{}: preempting to accommodate a higher priority pod", crate::NAME),
            "lastTransitionTime": jiff::Timestamp::now(),
        }]}});
        if let Err(error) = api.patch_status(name, PatchKind::Strategic, &patch).await {
            tracing::debug!(pod = name, %error, "a victim could not be told why it goes");
        }
        match api.delete(name, &DeleteOptions::of(&victim.metadata)).await {
            Ok(Some(going)) => cache.observe(&going),
            Ok(None) => {}
            Err(error) if error.is_not_found() || error.is_conflict() => continue,
            Err(error) => {
                tracing::warn!(pod = name, %error, "a victim could not be deleted");
                continue;
            }
        }
        let message = format!("Preempted by pod {by} on node {node}");
        events.event(&reference(&**victim), Severity::Normal, "Preempted", message);
    }
}
