//! Garbage collection: what its owners leave behind goes, and an owner that waits for it may go afterwards.
//!
//! Called by the controller manager's shell for one object whose owners or dependents changed. Invariants: an object
//! goes only when every owner it names is known to be gone (the shell asks the server, not a cache); an owner's hold
//! (`foregroundDeletion`, `orphan`) is released only after its dependents were dealt with.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

pub const FOREGROUND: &str = "foregroundDeletion";
pub const ORPHAN: &str = "orphan";

/// What is known of one owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    Present,
    /// Being deleted, and waiting for its dependents to go first.
    WaitingForDependents,
    Gone,
}

pub struct View<'a> {
    pub object: &'a ObjectMeta,
    pub owners: &'a [(OwnerReference, Owner)],
    /// Metadata of what names this object as an owner.
    pub dependents: &'a [&'a ObjectMeta],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    Background,
    Foreground,
    Orphan,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    Nothing,
    Delete(Manner),
    /// Keep these owners only.
    SetOwners(Vec<OwnerReference>),
    /// Delete the dependents that hold this object back.
    DeleteDependents,
    /// Take this object out of its dependents' owners.
    OrphanDependents,
    /// Everything that the hold stood for is done.
    ReleaseFinalizer(&'static str),
}

pub fn decide(view: &View<'_>) -> Action {
    let object = view.object;
    if object.deletion_timestamp.is_some() {
        return deleting(view);
    }
    if view.owners.is_empty() {
        return Action::Nothing;
    }
    let present: Vec<OwnerReference> =
        view.owners.iter().filter(|(_, state)| *state == Owner::Present).map(|(o, _)| o.clone()).collect();
    if !present.is_empty() {
        return if present.len() == view.owners.len() { Action::Nothing } else { Action::SetOwners(present) };
    }
    let waited_for = view.owners.iter().any(|(_, state)| *state == Owner::WaitingForDependents);
    Action::Delete(if waited_for && !view.dependents.is_empty() {
        // The owner must not go before what hangs below this object.
        Manner::Foreground
    } else if has_finalizer(object, ORPHAN) {
        Manner::Orphan
    } else if has_finalizer(object, FOREGROUND) {
        Manner::Foreground
    } else {
        Manner::Background
    })
}

fn deleting(view: &View<'_>) -> Action {
    if has_finalizer(view.object, ORPHAN) {
        return match view.dependents.is_empty() {
            true => Action::ReleaseFinalizer(ORPHAN),
            false => Action::OrphanDependents,
        };
    }
    if !has_finalizer(view.object, FOREGROUND) {
        return Action::Nothing;
    }
    let blocking = view.dependents.iter().filter(|d| blocks(d, view.object)).count();
    if blocking == 0 {
        return Action::ReleaseFinalizer(FOREGROUND);
    }
    let untouched = view.dependents.iter().any(|d| d.deletion_timestamp.is_none());
    if untouched { Action::DeleteDependents } else { Action::Nothing }
}

fn blocks(dependent: &ObjectMeta, owner: &ObjectMeta) -> bool {
    let references = dependent.owner_references.iter().flatten();
    let mut to_owner = references.filter(|r| Some(&r.uid) == owner.uid.as_ref());
    to_owner.any(|r| r.block_owner_deletion == Some(true))
}

pub fn has_finalizer(meta: &ObjectMeta, name: &str) -> bool {
    meta.finalizers.iter().flatten().any(|f| f == name)
}

/// How an owner that exists is to be counted.
pub fn owner_state(owner: &ObjectMeta) -> Owner {
    if owner.deletion_timestamp.is_some() && has_finalizer(owner, FOREGROUND) {
        Owner::WaitingForDependents
    } else {
        Owner::Present
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn meta(value: Value) -> ObjectMeta {
        serde_json::from_value(value).unwrap()
    }

    fn owner(uid: &str) -> OwnerReference {
        serde_json::from_value(
            json!({"apiVersion": "v1", "kind": "X", "name": uid, "uid": uid, "blockOwnerDeletion": true}),
        )
        .unwrap()
    }

    fn owned(uid: &str) -> ObjectMeta {
        ObjectMeta { owner_references: Some(vec![owner(uid)]), ..ObjectMeta::default() }
    }

    #[test]
    fn an_object_goes_only_when_every_owner_is_gone() {
        use Owner::{Gone, Present, WaitingForDependents as Waiting};
        let child = ObjectMeta::default();
        let (object, dependents) = (ObjectMeta::default(), [&child]);
        for (states, dependents, expected) in [
            (vec![], &[][..], Action::Nothing),
            (vec![Present], &[], Action::Nothing),
            (vec![Present, Present], &[], Action::Nothing),
            (vec![Present, Gone], &[], Action::SetOwners(vec![owner("0")])),
            (vec![Gone], &[], Action::Delete(Manner::Background)),
            (vec![Gone, Gone], &[], Action::Delete(Manner::Background)),
            (vec![Waiting], &[], Action::Delete(Manner::Background)),
            (vec![Waiting], &dependents[..], Action::Delete(Manner::Foreground)),
        ] {
            let owners: Vec<_> = states.iter().enumerate().map(|(n, state)| (owner(&n.to_string()), *state)).collect();
            assert_eq!(decide(&View { object: &object, owners: &owners, dependents }), expected, "{states:?}");
        }
    }

    #[test]
    fn a_foreground_deletion_waits_for_its_dependents_and_then_lets_go() {
        let object = meta(json!({"uid": "o", "deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": [FOREGROUND]}));
        let view = |dependents: &[&ObjectMeta]| decide(&View { object: &object, owners: &[], dependents });
        let live = owned("o");
        let going = ObjectMeta { deletion_timestamp: object.deletion_timestamp.clone(), ..live.clone() };
        assert_eq!(view(&[&live, &going]), Action::DeleteDependents);
        assert_eq!(view(&[&going]), Action::Nothing);
        assert_eq!(view(&[]), Action::ReleaseFinalizer(FOREGROUND));
        let unrelated = owned("other");
        assert_eq!(view(&[&unrelated]), Action::ReleaseFinalizer(FOREGROUND), "it does not block");
    }

    #[test]
    fn an_orphaning_deletion_frees_its_dependents_first() {
        let object = meta(json!({"uid": "o", "deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": [ORPHAN]}));
        let child = owned("o");
        let view = |dependents: &[&ObjectMeta]| decide(&View { object: &object, owners: &[], dependents });
        assert_eq!(view(&[&child]), Action::OrphanDependents);
        assert_eq!(view(&[]), Action::ReleaseFinalizer(ORPHAN));
    }
}
