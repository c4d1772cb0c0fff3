//! Claims that waited for their pod: tells them the node, and waits until they have a volume.
//!
//! Invariant: a pod is bound only when every claim of it is.

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube_client::informer::Cache;
use kube_client::{Client, ClientError, PatchKind};
use serde_json::json;
use std::time::Duration;

const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// As long as Kubernetes waits for provisioners.
const PATIENCE: Duration = Duration::from_secs(600);

fn claims_of(pod: &Pod) -> Vec<String> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let volumes = pod.spec.as_ref().and_then(|s| s.volumes.as_ref()).into_iter().flatten();
    let claims = volumes.filter_map(|v| match (&v.persistent_volume_claim, &v.ephemeral) {
        (Some(claim), _) => Some(claim.claim_name.clone()),
        (None, Some(_)) => Some(format!("{name}-{}", v.name)),
        (None, None) => None,
    });
    claims.collect()
}

fn is_bound(claim: &PersistentVolumeClaim) -> bool {
    claim.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Bound")
}

pub(crate) async fn bind(
    client: &Client,
    claims: &Cache<PersistentVolumeClaim>,
    pod: &Pod,
    node: &str,
) -> Result<(), ClientError> {
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let api = client.api::<PersistentVolumeClaim>().namespace(namespace.clone());
    let mut open: Vec<String> = claims_of(pod);
    open.retain(|name| !claims.get(&namespace, name).is_some_and(|c| is_bound(&c)));
    if open.is_empty() {
        return Ok(());
    }
    let mut changes = claims.changes();
    for name in &open {
        let patch = json!({"metadata": {"annotations": {SELECTED_NODE: node}}});
        claims.observe(&api.patch(name, PatchKind::Merge, &patch).await?);
    }
    let all_bound = async {
        loop {
            open.retain(|name| !claims.get(&namespace, name).is_some_and(|c| is_bound(&c)));
            if open.is_empty() || changes.next().await.is_none() {
                return;
            }
        }
    };
    if tokio::time::timeout(PATIENCE, all_bound).await.is_err() {
        return Err(ClientError::InvalidRequest(format!(
            "timed out waiting for volumes of {}: {}",
            namespace,
            open.join(", ")
        )));
    }
    Ok(())
}
