//! The built-in provisioner: a directory on the node, as a volume that only that node can use.
//!
//! Used by the binder. Invariant: the volume's name is made of the claim's uid, so it is never made twice. The
//! directory itself is the node's to make and to remove; the finalizer holds the volume until that is done.

use super::{DEFAULT_CLASS, PROVISIONED_BY};
use k8s_openapi::api::core::v1::{
    HostPathVolumeSource, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, ObjectReference, PersistentVolume,
    PersistentVolumeClaim, PersistentVolumeSpec, VolumeNodeAffinity,
};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

pub const LOCAL_PROVISIONER: &str = "gantry.dev/local";
pub const LOCAL_FINALIZER: &str = "gantry.dev/local-volume";
const HOST_NAME: &str = "kubernetes.io/hostname";

/// The class that claims without one get.
pub fn default_class() -> StorageClass {
    StorageClass {
        metadata: ObjectMeta {
            name: Some("local".into()),
            annotations: Some([(DEFAULT_CLASS.to_owned(), "true".to_owned())].into()),
            ..ObjectMeta::default()
        },
        provisioner: LOCAL_PROVISIONER.into(),
        allow_volume_expansion: Some(true),
        reclaim_policy: Some("Delete".into()),
        volume_binding_mode: Some("WaitForFirstConsumer".into()),
        ..StorageClass::default()
    }
}

pub(super) fn name(claim: &PersistentVolumeClaim) -> String {
    format!("pvc-{}", claim.metadata.uid.as_deref().unwrap_or_default())
}

/// The volume for the claim on the node whose host name label is `host`.
pub(super) fn volume(claim: &PersistentVolumeClaim, class: &StorageClass, host: &str, root: &str) -> PersistentVolume {
    let spec = claim.spec.clone().unwrap_or_default();
    let name = name(claim);
    let requirement =
        NodeSelectorRequirement { key: HOST_NAME.into(), operator: "In".into(), values: Some(vec![host.to_owned()]) };
    let term = NodeSelectorTerm { match_expressions: Some(vec![requirement]), ..NodeSelectorTerm::default() };
    let size = spec.resources.as_ref().and_then(|r| r.requests.as_ref()).and_then(|r| r.get("storage")).cloned();
    PersistentVolume {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            annotations: Some([(PROVISIONED_BY.to_owned(), LOCAL_PROVISIONER.to_owned())].into()),
            finalizers: Some(vec![super::VOLUME_PROTECTION.into(), LOCAL_FINALIZER.into()]),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeSpec {
            access_modes: spec.access_modes,
            capacity: size.map(|size| [("storage".to_owned(), size)].into()),
            claim_ref: Some(reference(claim)),
            host_path: Some(HostPathVolumeSource {
                path: format!("{}/{name}", root.trim_end_matches('/')),
                type_: Some("DirectoryOrCreate".into()),
            }),
            mount_options: class.mount_options.clone(),
            node_affinity: Some(VolumeNodeAffinity {
                required: Some(NodeSelector { node_selector_terms: vec![term] }),
            }),
            persistent_volume_reclaim_policy: Some(class.reclaim_policy.clone().unwrap_or_else(|| "Delete".into())),
            storage_class_name: class.metadata.name.clone(),
            volume_mode: Some("Filesystem".into()),
            ..PersistentVolumeSpec::default()
        }),
        status: None,
    }
}

pub(super) fn reference(claim: &PersistentVolumeClaim) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("PersistentVolumeClaim".into()),
        name: claim.metadata.name.clone(),
        namespace: claim.metadata.namespace.clone(),
        uid: claim.metadata.uid.clone(),
        resource_version: claim.metadata.resource_version.clone(),
        ..ObjectReference::default()
    }
}
