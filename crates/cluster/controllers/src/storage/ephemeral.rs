//! Claims that live as long as their pod.
//!
//! Invariant: a claim of that name that belongs to another is never taken: the pod waits, and an event says why.

use crate::{owners, pods};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

pub(super) fn name(pod: &Pod, volume: &str) -> String {
    format!("{}-{volume}", pod.metadata.name.as_deref().unwrap_or_default())
}

/// The claims that the pod's ephemeral volumes still lack, or why one cannot be had.
pub fn missing_claims(
    pod: &Pod,
    existing: impl Fn(&str) -> Option<ObjectMeta>,
) -> Result<Vec<PersistentVolumeClaim>, String> {
    if pods::is_terminating(pod) || pods::is_finished(pod) {
        return Ok(Vec::new());
    }
    let mut missing = Vec::new();
    for volume in pod.spec.as_ref().and_then(|s| s.volumes.as_ref()).into_iter().flatten() {
        let Some(template) = volume.ephemeral.as_ref().and_then(|e| e.volume_claim_template.as_ref()) else { continue };
        let name = name(pod, &volume.name);
        match existing(&name) {
            Some(there) if owners::is_controlled_by(&there, &pod.metadata) => {}
            Some(_) => {
                return Err(format!("PVC {name} was not created for pod {} (pod is not owner)", pod_name(pod)));
            }
            None => {
                let meta = template.metadata.clone().unwrap_or_default();
                missing.push(PersistentVolumeClaim {
                    metadata: ObjectMeta {
                        name: Some(name),
                        namespace: pod.metadata.namespace.clone(),
                        labels: meta.labels,
                        annotations: meta.annotations,
                        owner_references: Some(vec![owners::reference::<Pod>(&pod.metadata)]),
                        ..ObjectMeta::default()
                    },
                    spec: Some(template.spec.clone()),
                    status: None,
                });
            }
        }
    }
    Ok(missing)
}

fn pod_name(pod: &Pod) -> String {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    format!("{}/{}", text(&pod.metadata.namespace), text(&pod.metadata.name))
}
