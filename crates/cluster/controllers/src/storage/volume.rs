//! The phase of one volume, and what becomes of it when its claim is gone.
//!
//! Called by the volume shell, which asks the server itself whether the claim is gone. Invariant: only Delete deletes,
//! and only what the built-in provisioner made.

use super::PROVISIONED_BY;
use super::provision::LOCAL_PROVISIONER;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, PersistentVolumeStatus};

#[derive(Clone, Debug, PartialEq)]
pub enum VolumeAction {
    Status(Box<PersistentVolumeStatus>),
    Delete,
    Event { reason: &'static str, message: String },
}

/// `claim` is what the volume's reference leads to, if that is there.
pub fn decide(volume: &PersistentVolume, claim: Option<&PersistentVolumeClaim>) -> Vec<VolumeAction> {
    let reference = volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref());
    let Some(reference) = reference else { return phase(volume, "Available", None) };
    let Some(uid) = reference.uid.as_ref().filter(|uid| !uid.is_empty()) else {
        return phase(volume, "Available", None);
    };
    if claim.is_some_and(|c| c.metadata.uid.as_ref() == Some(uid)) {
        return phase(volume, "Bound", None);
    }
    let policy = volume.spec.as_ref().and_then(|s| s.persistent_volume_reclaim_policy.as_deref()).unwrap_or("Retain");
    let made_by = volume.metadata.annotations.as_ref().and_then(|a| a.get(PROVISIONED_BY)).map(String::as_str);
    match (policy, made_by) {
        ("Delete", Some(LOCAL_PROVISIONER)) => {
            let mut actions = phase(volume, "Released", None);
            if volume.metadata.deletion_timestamp.is_none() {
                actions.push(VolumeAction::Delete);
            }
            actions
        }
        // The program that made it deletes it.
        ("Delete", Some(_)) | ("Retain", _) => phase(volume, "Released", None),
        (policy, _) => {
            let message = if policy == "Delete" {
                "error getting deleter volume plugin for volume: no deletable volume plugin matched".to_owned()
            } else {
                format!("reclaim policy {policy} is not supported")
            };
            let mut actions = phase(volume, "Failed", Some(&message));
            if !actions.is_empty() {
                actions.push(VolumeAction::Event { reason: "VolumeFailedDelete", message });
            }
            actions
        }
    }
}

fn phase(volume: &PersistentVolume, phase: &str, message: Option<&str>) -> Vec<VolumeAction> {
    let old = volume.status.clone().unwrap_or_default();
    let status =
        PersistentVolumeStatus { phase: Some(phase.to_owned()), message: message.map(str::to_owned), ..old.clone() };
    if status == old { Vec::new() } else { vec![VolumeAction::Status(Box::new(status))] }
}
