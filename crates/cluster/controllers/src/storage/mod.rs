//! Persistent storage: claims find volumes, volumes are made for claims, and nothing goes while it is used.
//!
//! Called by the controller manager's shells. Invariants: a volume is bound to the one claim whose uid it names; a
//! volume is deleted only after its claim is gone and its policy says Delete; claims that pods use and volumes that
//! claims use are held by finalizers.

mod binder;
mod ephemeral;
mod matching;
mod protection;
mod provision;
mod volume;

pub use binder::{Action, ClaimView, Decision, decide as decide_claim};
pub use ephemeral::missing_claims;
pub use matching::{is_bound_to, node_affinity_allows, size_of, suits};
pub use protection::{CLAIM_PROTECTION, VOLUME_PROTECTION, claim_finalizers, claims_of, volume_finalizers};
pub use provision::{LOCAL_FINALIZER, LOCAL_PROVISIONER, default_class};
pub use volume::{VolumeAction, decide as decide_volume};

pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
pub const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
pub const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
pub const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
pub const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";

#[cfg(test)]
mod tests;
