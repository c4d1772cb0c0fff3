//! What one claim needs next: a class, a volume that is there, a volume that is made, or patience.
//!
//! Called by the claim shell. Invariants: the volume names the claim before the claim names the volume, so that two
//! claims never share one; a claim whose class waits for its first pod is bound only on the node that was chosen.

use super::provision::{self, LOCAL_PROVISIONER};
use super::{BIND_COMPLETED, BOUND_BY_CONTROLLER, SELECTED_NODE, matching};
use k8s_openapi::api::core::v1::{
    Node, PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimSpec, PersistentVolumeClaimStatus,
};
use k8s_openapi::api::storage::v1::StorageClass;
use std::sync::Arc;

pub struct ClaimView<'a> {
    pub claim: &'a PersistentVolumeClaim,
    pub volumes: &'a [Arc<PersistentVolume>],
    pub classes: &'a [Arc<StorageClass>],
    pub nodes: &'a [Arc<Node>],
    /// Where the built-in provisioner has its directories, on every node.
    pub local_root: &'a str,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Write the claim (not its status) as it is here.
    UpdateClaim(Box<PersistentVolumeClaim>),
    CreateVolume(Box<PersistentVolume>),
    UpdateVolume(Box<PersistentVolume>),
    Event {
        warning: bool,
        reason: &'static str,
        message: String,
    },
}

#[derive(Default)]
pub struct Decision {
    /// Carried out in order; after one that writes, the claim is looked at anew.
    pub actions: Vec<Action>,
    pub status: Option<PersistentVolumeClaimStatus>,
}

fn event(warning: bool, reason: &'static str, message: impl Into<String>) -> Action {
    Action::Event { warning, reason, message: message.into() }
}

fn annotation<'a>(claim: &'a PersistentVolumeClaim, key: &str) -> Option<&'a str> {
    claim.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

pub fn decide(view: &ClaimView<'_>) -> Decision {
    let claim = view.claim;
    let empty = PersistentVolumeClaimSpec::default();
    let spec = claim.spec.as_ref().unwrap_or(&empty);
    let named = spec.volume_name.as_deref().filter(|n| !n.is_empty());
    if let Some(name) = named {
        let volume = view.volumes.iter().find(|v| v.metadata.name.as_deref() == Some(name));
        return match volume {
            Some(volume) => with_volume(view, volume),
            None if annotation(claim, BIND_COMPLETED).is_some() => lost(claim),
            None => pending(claim, Vec::new()),
        };
    }
    if claim.metadata.deletion_timestamp.is_some() {
        return pending(claim, Vec::new());
    }
    if spec.storage_class_name.is_none()
        && let Some(class) = default_class(view.classes)
    {
        let mut changed = claim.clone();
        changed.spec.get_or_insert_default().storage_class_name = class.metadata.name.clone();
        return Decision { actions: vec![Action::UpdateClaim(Box::new(changed))], status: None };
    }
    unbound(view, spec)
}

/// The newest of the classes that call themselves the default.
fn default_class(classes: &[Arc<StorageClass>]) -> Option<&Arc<StorageClass>> {
    let is_default = |class: &&Arc<StorageClass>| {
        class.metadata.annotations.as_ref().and_then(|a| a.get(super::DEFAULT_CLASS)).is_some_and(|v| v == "true")
    };
    let key = |c: &&Arc<StorageClass>| (c.metadata.creation_timestamp.as_ref().map(|t| t.0), c.metadata.name.clone());
    classes.iter().filter(is_default).max_by_key(key)
}

fn unbound(view: &ClaimView<'_>, spec: &PersistentVolumeClaimSpec) -> Decision {
    let claim = view.claim;
    let class_name = spec.storage_class_name.as_deref().unwrap_or_default();
    let class = view.classes.iter().find(|c| c.metadata.name.as_deref() == Some(class_name));
    let waits = class.and_then(|c| c.volume_binding_mode.as_deref()) == Some("WaitForFirstConsumer");
    let selected = annotation(claim, SELECTED_NODE);
    let node = selected.and_then(|name| view.nodes.iter().find(|n| n.metadata.name.as_deref() == Some(name)));
    let kept = view.volumes.iter().find(|v| matching::is_bound_to(v, claim) && matching::suits(v, claim));
    if let Some(volume) = kept {
        return bind(view, volume);
    }
    if waits && selected.is_none() {
        let why = "waiting for first consumer to be created before binding";
        return pending(claim, vec![event(false, "WaitForFirstConsumer", why)]);
    }
    let reachable = |v: &&Arc<PersistentVolume>| node.is_none_or(|n| matching::node_affinity_allows(v, n));
    let suitable = view.volumes.iter().filter(|v| matching::suits(v, claim)).filter(reachable);
    let size = |v: &PersistentVolume| matching::size_of(v.spec.as_ref().and_then(|s| s.capacity.as_ref()));
    if let Some(volume) = suitable.min_by_key(|v| (size(v), v.metadata.name.clone())) {
        return bind(view, volume);
    }
    match class {
        None if class_name.is_empty() => {
            let why = "no persistent volumes available for this claim and no storage class is set";
            pending(claim, vec![event(false, "FailedBinding", why)])
        }
        None => {
            let why = format!("storageclass.storage.k8s.io \"{class_name}\" not found");
            pending(claim, vec![event(true, "ProvisioningFailed", why)])
        }
        Some(class) if class.provisioner == LOCAL_PROVISIONER => provision(view, class, node),
        Some(class) if class.provisioner == "kubernetes.io/no-provisioner" => {
            let why = "no persistent volumes available for this claim and no storage class is set";
            pending(claim, vec![event(false, "FailedBinding", why)])
        }
        Some(class) => external(claim, &class.provisioner),
    }
}

fn provision(view: &ClaimView<'_>, class: &StorageClass, chosen: Option<&Arc<Node>>) -> Decision {
    let claim = view.claim;
    if claim.spec.as_ref().and_then(|s| s.volume_mode.as_deref()) == Some("Block") {
        let why = "gantry.dev/local makes directories: volumeMode Block is not possible";
        return pending(claim, vec![event(true, "ProvisioningFailed", why)]);
    }
    // Nobody chose: any node that takes pods will do, the first by name.
    let usable = |n: &&Arc<Node>| n.spec.as_ref().and_then(|s| s.unschedulable) != Some(true);
    let first = view.nodes.iter().filter(usable).min_by_key(|n| n.metadata.name.clone());
    let Some(node) = chosen.or(first) else {
        return pending(claim, vec![event(true, "ProvisioningFailed", "no node is there to have the volume")]);
    };
    let label = node.metadata.labels.as_ref().and_then(|l| l.get("kubernetes.io/hostname"));
    let host = label.or(node.metadata.name.as_ref()).map(String::as_str).unwrap_or_default();
    let volume = provision::volume(claim, class, host, view.local_root);
    let message = format!("Successfully provisioned volume {}", provision::name(claim));
    let mut decision = pending(claim, vec![Action::CreateVolume(Box::new(volume))]);
    decision.actions.push(event(false, "ProvisioningSucceeded", message));
    decision
}

/// Another program makes the volume; it looks for its name in these annotations.
fn external(claim: &PersistentVolumeClaim, provisioner: &str) -> Decision {
    let keys = ["volume.kubernetes.io/storage-provisioner", "volume.beta.kubernetes.io/storage-provisioner"];
    if keys.iter().any(|key| annotation(claim, key) != Some(provisioner)) {
        let mut changed = claim.clone();
        let annotations = changed.metadata.annotations.get_or_insert_default();
        annotations.extend(keys.map(|key| (key.to_owned(), provisioner.to_owned())));
        return Decision { actions: vec![Action::UpdateClaim(Box::new(changed))], status: None };
    }
    let why = format!(
        "Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually by the system \
         administrator. If volume creation is delayed, please verify that the provisioner is running and correctly \
         registered."
    );
    pending(claim, vec![event(false, "ExternalProvisioning", why)])
}

/// The volume first, then the claim: each step is one pass.
fn bind(view: &ClaimView<'_>, volume: &Arc<PersistentVolume>) -> Decision {
    let claim = view.claim;
    let reference = volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref());
    if reference.and_then(|r| r.uid.as_ref()) != claim.metadata.uid.as_ref() {
        let mut changed = PersistentVolume::clone(volume);
        let by_hand = reference.is_some();
        changed.spec.get_or_insert_default().claim_ref = Some(provision::reference(claim));
        if !by_hand {
            changed.metadata.annotations.get_or_insert_default().insert(BOUND_BY_CONTROLLER.into(), "yes".into());
        }
        return Decision { actions: vec![Action::UpdateVolume(Box::new(changed))], status: None };
    }
    let mut changed = claim.clone();
    changed.spec.get_or_insert_default().volume_name = volume.metadata.name.clone();
    let annotations = changed.metadata.annotations.get_or_insert_default();
    annotations.insert(BIND_COMPLETED.into(), "yes".into());
    annotations.insert(BOUND_BY_CONTROLLER.into(), "yes".into());
    Decision { actions: vec![Action::UpdateClaim(Box::new(changed))], status: None }
}

/// The claim names a volume that exists.
fn with_volume(view: &ClaimView<'_>, volume: &Arc<PersistentVolume>) -> Decision {
    let claim = view.claim;
    let free = volume.spec.as_ref().is_some_and(|s| s.claim_ref.is_none());
    if !matching::is_bound_to(volume, claim) && !free {
        return if annotation(claim, BIND_COMPLETED).is_some() { lost(claim) } else { pending(claim, Vec::new()) };
    }
    let reference = volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref());
    if reference.and_then(|r| r.uid.as_ref()) != claim.metadata.uid.as_ref()
        || annotation(claim, BIND_COMPLETED).is_none()
    {
        return bind(view, volume);
    }
    grow(view, volume).unwrap_or_else(|| settled(claim, volume))
}

/// The claim asks for more than the volume has: a directory grows by being called larger.
fn grow(view: &ClaimView<'_>, volume: &Arc<PersistentVolume>) -> Option<Decision> {
    let spec = view.claim.spec.as_ref()?;
    let requests = spec.resources.as_ref()?.requests.as_ref();
    let offer = volume.spec.as_ref()?;
    let wanted = matching::size_of(requests);
    if wanted <= matching::size_of(offer.capacity.as_ref()) {
        return None;
    }
    let class = view.classes.iter().find(|c| c.metadata.name == spec.storage_class_name)?;
    if class.provisioner != LOCAL_PROVISIONER || class.allow_volume_expansion != Some(true) {
        return None;
    }
    let mut changed = PersistentVolume::clone(volume);
    let size = requests.and_then(|r| r.get("storage")).cloned()?;
    changed.spec.get_or_insert_default().capacity.get_or_insert_default().insert("storage".into(), size);
    let done = event(false, "VolumeResizeSuccessful", "Resize volume succeeded");
    Some(Decision { actions: vec![Action::UpdateVolume(Box::new(changed)), done], status: None })
}

fn settled(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Decision {
    let offer = volume.spec.clone().unwrap_or_default();
    let mut status = claim.status.clone().unwrap_or_default();
    status.phase = Some("Bound".into());
    status.access_modes = offer.access_modes;
    status.capacity = offer.capacity;
    Decision { actions: Vec::new(), status: Some(status) }
}

fn pending(claim: &PersistentVolumeClaim, actions: Vec<Action>) -> Decision {
    let mut status = claim.status.clone().unwrap_or_default();
    status.phase = Some("Pending".into());
    Decision { actions, status: Some(status) }
}

fn lost(claim: &PersistentVolumeClaim) -> Decision {
    let mut status = claim.status.clone().unwrap_or_default();
    let already = status.phase.as_deref() == Some("Lost");
    status.phase = Some("Lost".into());
    let why = "Bound claim has lost its PersistentVolume. Data on the volume is lost!";
    let actions = if already { Vec::new() } else { vec![event(true, "ClaimLost", why)] };
    Decision { actions, status: Some(status) }
}
