//! Which nodes can have a pod's volumes: bound ones where they are reachable, others where they could be made.
//!
//! Asked for every node by the filters. Invariant: a pod whose claim is missing or being deleted fits nowhere.

use crate::labels;
use crate::snapshot::{NodeInfo, Snapshot};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use std::collections::HashMap;
use std::sync::Arc;

const ZONES: [&str; 4] = [
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
];

/// Claims, volumes and classes, kept by the shell.
#[derive(Default)]
pub struct Volumes {
    /// By `namespace/name`.
    pub claims: HashMap<String, Arc<PersistentVolumeClaim>>,
    pub volumes: HashMap<String, Arc<PersistentVolume>>,
    pub classes: HashMap<String, Arc<StorageClass>>,
}

/// `namespace/name` of each claim that the pod uses.
pub(crate) fn keys(pod: &Pod) -> Vec<String> {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let (namespace, name) = (text(&pod.metadata.namespace), text(&pod.metadata.name));
    let volumes = pod.spec.as_ref().and_then(|s| s.volumes.as_ref()).into_iter().flatten();
    let claims = volumes.filter_map(|v| match (&v.persistent_volume_claim, &v.ephemeral) {
        (Some(claim), _) => Some(format!("{namespace}/{}", claim.claim_name)),
        (None, Some(_)) => Some(format!("{namespace}/{name}-{}", v.name)),
        (None, None) => None,
    });
    claims.collect()
}

/// What one pod needs of a node, found out once.
#[derive(Default)]
pub(crate) struct Needs {
    bound: Vec<Arc<PersistentVolume>>,
    /// Claims that get a volume when the pod has a node, with the volumes that they could take.
    unbound: Vec<Unbound>,
    /// A claim for one pod only is in use already.
    taken: bool,
}

struct Unbound {
    candidates: Vec<Arc<PersistentVolume>>,
    class: Option<Arc<StorageClass>>,
}

impl Needs {
    /// Err: the pod fits nowhere, and why.
    pub(crate) fn new(pod: &Pod, snapshot: &Snapshot) -> Result<Self, String> {
        let mut needs = Needs::default();
        for key in keys(pod) {
            let name = key.split_once('/').map_or(key.as_str(), |(_, name)| name);
            let Some(claim) = snapshot.volumes.claims.get(&key) else {
                return Err(format!("persistentvolumeclaim \"{name}\" not found"));
            };
            if claim.metadata.deletion_timestamp.is_some() {
                return Err(format!("persistentvolumeclaim \"{name}\" is being deleted"));
            }
            if claim.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Lost") {
                return Err(format!("persistentvolumeclaim \"{name}\" bound to non-existent persistentvolume"));
            }
            needs.add(&key, claim, snapshot)?;
        }
        Ok(needs)
    }

    fn add(&mut self, key: &str, claim: &PersistentVolumeClaim, snapshot: &Snapshot) -> Result<(), String> {
        let Some(spec) = claim.spec.as_ref() else { return Ok(()) };
        let alone = spec.access_modes.iter().flatten().any(|m| m == "ReadWriteOncePod");
        self.taken |= alone && snapshot.users_of(key) > 0;
        if let Some(name) = spec.volume_name.as_ref().filter(|name| !name.is_empty()) {
            let Some(volume) = snapshot.volumes.volumes.get(name) else {
                return Err(format!("persistentvolume \"{name}\" not found"));
            };
            self.bound.push(volume.clone());
            return Ok(());
        }
        let class = spec.storage_class_name.as_ref().and_then(|name| snapshot.volumes.classes.get(name)).cloned();
        let waits = class.as_ref().and_then(|c| c.volume_binding_mode.as_deref()) == Some("WaitForFirstConsumer");
        if !waits {
            return Err("pod has unbound immediate PersistentVolumeClaims".into());
        }
        let free =
            |v: &&Arc<PersistentVolume>| v.spec.as_ref().is_some_and(|s| s.claim_ref.is_none()) && offers(v, claim);
        let candidates = snapshot.volumes.volumes.values().filter(free).cloned().collect();
        self.unbound.push(Unbound { candidates, class });
        Ok(())
    }

    pub(crate) fn obstacle(&self, info: &NodeInfo) -> Option<&'static str> {
        if self.taken {
            return Some(
                "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode",
            );
        }
        if !self.bound.iter().all(|v| reachable(v, info)) {
            return Some("node(s) didn't match PersistentVolume's node affinity");
        }
        for unbound in &self.unbound {
            if unbound.candidates.iter().any(|v| reachable(v, info)) {
                continue;
            }
            let makes = unbound.class.as_ref().filter(|c| c.provisioner != "kubernetes.io/no-provisioner");
            if !makes.is_some_and(|class| topology_allows(class, info)) {
                return Some("node(s) didn't find available persistent volumes to bind");
            }
        }
        (!self.bound.iter().all(|v| in_zone(v, info))).then_some("node(s) had no available volume zone")
    }
}

fn reachable(volume: &PersistentVolume, info: &NodeInfo) -> bool {
    let affinity = volume.spec.as_ref().and_then(|s| s.node_affinity.as_ref()).and_then(|a| a.required.as_ref());
    affinity.is_none_or(|required| labels::node_matches_any(&required.node_selector_terms, &info.node))
}

/// The old way to say where a volume is: its own labels.
fn in_zone(volume: &PersistentVolume, info: &NodeInfo) -> bool {
    let labels = volume.metadata.labels.as_ref();
    ZONES.iter().all(|key| {
        let Some(zones) = labels.and_then(|l| l.get(*key)) else { return true };
        info.label(key).is_some_and(|zone| zones.split("__").any(|z| z == zone))
    })
}

fn topology_allows(class: &StorageClass, info: &NodeInfo) -> bool {
    let terms = class.allowed_topologies.as_deref().unwrap_or_default();
    terms.is_empty()
        || terms.iter().any(|term| {
            let mut expressions = term.match_label_expressions.iter().flatten();
            expressions.all(|e| info.label(&e.key).is_some_and(|v| e.values.iter().any(|w| w == v)))
        })
}

/// Class, modes and size of a free volume.
fn offers(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let (Some(offer), Some(wish)) = (volume.spec.as_ref(), claim.spec.as_ref()) else { return false };
    let size =
        |list: Option<&std::collections::BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>>| {
            let quantity = list.and_then(|l| l.get("storage"));
            quantity.and_then(|q| kube_types::quantity::parse(&q.0).ok()).map_or(0, |q| q.value())
        };
    let offered = offer.access_modes.as_deref().unwrap_or_default();
    offer.storage_class_name == wish.storage_class_name
        && volume.metadata.deletion_timestamp.is_none()
        && wish.access_modes.iter().flatten().all(|m| offered.contains(m))
        && wish.selector.as_ref().is_none_or(|s| labels::matches(Some(s), volume.metadata.labels.as_ref()))
        && size(offer.capacity.as_ref()) >= size(wish.resources.as_ref().and_then(|r| r.requests.as_ref()))
}
