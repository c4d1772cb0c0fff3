//! Controlling owners: who an object belongs to, and claiming what has none.
//!
//! Used by every controller that owns objects. Invariant: a controller only ever counts objects that name its own uid.

use crate::selection;
use k8s_openapi::Resource;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};

pub fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.iter().flatten().find(|o| o.controller == Some(true))
}

pub fn is_controlled_by(meta: &ObjectMeta, owner: &ObjectMeta) -> bool {
    controller_of(meta).is_some_and(|o| Some(&o.uid) == owner.uid.as_ref())
}

pub fn reference<K: Resource>(owner: &ObjectMeta) -> OwnerReference {
    OwnerReference {
        api_version: K::API_VERSION.to_owned(),
        kind: K::KIND.to_owned(),
        name: owner.name.clone().unwrap_or_default(),
        uid: owner.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// How an object stands to an owner that could have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    Mine,
    /// Matches and is nobody's: to be adopted.
    Adopt,
    /// Mine, but matches no more: to be let go.
    Release,
    NotMine,
}

pub fn claim(owner: &ObjectMeta, selector: &LabelSelector, object: &ObjectMeta) -> Claim {
    let matches = selection::matches(selector, object.labels.as_ref());
    let going = owner.deletion_timestamp.is_some() || object.deletion_timestamp.is_some();
    match controller_of(object) {
        Some(reference) if Some(&reference.uid) == owner.uid.as_ref() => {
            if matches || going {
                Claim::Mine
            } else {
                Claim::Release
            }
        }
        Some(_) => Claim::NotMine,
        None if matches && !going => Claim::Adopt,
        None => Claim::NotMine,
    }
}
