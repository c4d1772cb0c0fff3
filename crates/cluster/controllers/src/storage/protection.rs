//! The finalizers that keep claims while pods use them, and volumes while claims do.
//!
//! Invariant: a claim is let go only when no pod that has not ended names it.

use super::ephemeral;
use crate::pods;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::sync::Arc;

pub const CLAIM_PROTECTION: &str = "kubernetes.io/pvc-protection";
pub const VOLUME_PROTECTION: &str = "kubernetes.io/pv-protection";

/// The claims that the pod uses, by name.
pub fn claims_of(pod: &Pod) -> Vec<String> {
    let volumes = pod.spec.as_ref().and_then(|s| s.volumes.as_ref()).into_iter().flatten();
    let claims = volumes.filter_map(|v| match (&v.persistent_volume_claim, &v.ephemeral) {
        (Some(claim), _) => Some(claim.claim_name.clone()),
        (None, Some(_)) => Some(ephemeral::name(pod, &v.name)),
        (None, None) => None,
    });
    claims.collect()
}

/// The finalizers that the claim should have, if they change. `users` are the pods that name it.
pub fn claim_finalizers(claim: &PersistentVolumeClaim, users: &[Arc<Pod>]) -> Option<Vec<String>> {
    let used = users.iter().any(|pod| !pods::is_finished(pod));
    finalizers(&claim.metadata, CLAIM_PROTECTION, used)
}

pub fn volume_finalizers(volume: &PersistentVolume) -> Option<Vec<String>> {
    let bound = volume.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Bound");
    finalizers(&volume.metadata, VOLUME_PROTECTION, bound)
}

fn finalizers(meta: &ObjectMeta, ours: &str, used: bool) -> Option<Vec<String>> {
    let mut list = meta.finalizers.clone().unwrap_or_default();
    let has = list.iter().any(|f| f == ours);
    if meta.deletion_timestamp.is_none() && !has {
        list.push(ours.to_owned());
        return Some(list);
    }
    if meta.deletion_timestamp.is_some() && has && !used {
        list.retain(|f| f != ours);
        return Some(list);
    }
    None
}
