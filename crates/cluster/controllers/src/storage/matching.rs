//! Whether a volume suits a claim.
//!
//! Used by the binder and, through it, by the scheduler's volume filter.

use crate::selection;
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::BTreeMap;

/// The amount of storage in a list of resources; what cannot be read is nothing.
pub fn size_of(list: Option<&BTreeMap<String, Quantity>>) -> i64 {
    let quantity = list.and_then(|l| l.get("storage"));
    quantity.and_then(|q| kube_types::quantity::parse(&q.0).ok()).map_or(0, |q| q.value())
}

/// The volume names this very claim. A reference without a uid was written by hand, for a claim still to come.
pub fn is_bound_to(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let reference = volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref());
    reference.is_some_and(|r| {
        r.namespace == claim.metadata.namespace
            && r.name == claim.metadata.name
            && r.uid.as_ref().is_none_or(|uid| uid.is_empty() || Some(uid) == claim.metadata.uid.as_ref())
    })
}

/// Class, size, access modes, mode and labels; and that it is free, or kept for this claim.
pub fn suits(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let (Some(offer), Some(wish)) = (volume.spec.as_ref(), claim.spec.as_ref()) else { return false };
    if volume.metadata.deletion_timestamp.is_some() {
        return false;
    }
    let kept = is_bound_to(volume, claim);
    if offer.claim_ref.is_some() && !kept {
        return false;
    }
    let class = |name: &Option<String>| name.clone().unwrap_or_default();
    let mode = |name: &Option<String>| name.clone().unwrap_or_else(|| "Filesystem".into());
    let offered = offer.access_modes.as_deref().unwrap_or_default();
    let labels = wish.selector.as_ref().is_none_or(|s| selection::matches(s, volume.metadata.labels.as_ref()));
    let size = size_of(wish.resources.as_ref().and_then(|r| r.requests.as_ref()));
    class(&offer.storage_class_name) == class(&wish.storage_class_name)
        && mode(&offer.volume_mode) == mode(&wish.volume_mode)
        && wish.access_modes.iter().flatten().all(|m| offered.contains(m))
        && size_of(offer.capacity.as_ref()) >= size
        && (kept || labels)
}

pub fn node_affinity_allows(volume: &PersistentVolume, node: &Node) -> bool {
    let affinity = volume.spec.as_ref().and_then(|s| s.node_affinity.as_ref()).and_then(|a| a.required.as_ref());
    affinity.is_none_or(|required| scheduling::fit::node_selector_matches(required, node))
}
