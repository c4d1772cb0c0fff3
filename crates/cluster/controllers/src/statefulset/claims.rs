//! The claims of a StatefulSet's pods: made before the pod, owned as the retention policy says.
//!
//! Invariant: only the references to this set and its pods are touched; a claim of which both policies say Retain has
//! none of them.

use super::{Action, Decision, Pass, identity};
use k8s_openapi::Resource;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use std::sync::Arc;

pub(super) fn name(set: &StatefulSet, template: &str, number: i32) -> String {
    format!("{template}-{}", identity::pod_name(set, number))
}

fn names<'a>(pass: &'a Pass<'_>, number: i32) -> impl Iterator<Item = (&'a PersistentVolumeClaim, String)> {
    let templates = pass.spec.volume_claim_templates.iter().flatten();
    templates.map(move |t| (t, name(pass.view.set, t.metadata.name.as_deref().unwrap_or_default(), number)))
}

fn find<'a>(pass: &'a Pass<'_>, name: &str) -> Option<&'a Arc<PersistentVolumeClaim>> {
    pass.view.claims.iter().find(|c| c.metadata.name.as_deref() == Some(name))
}

/// Makes the claims of the number that are missing.
pub(super) fn ensure(pass: &Pass<'_>, number: i32, decision: &mut Decision) {
    for (template, name) in names(pass, number) {
        if find(pass, &name).is_some() {
            continue;
        }
        let mut labels = template.metadata.labels.clone().unwrap_or_default();
        labels.extend(pass.spec.selector.match_labels.clone().unwrap_or_default());
        let owners: Vec<OwnerReference> = wanted_owner(pass, number).into_iter().collect();
        let claim = PersistentVolumeClaim {
            metadata: ObjectMeta {
                name: Some(name),
                namespace: pass.view.set.metadata.namespace.clone(),
                labels: Some(labels),
                annotations: template.metadata.annotations.clone(),
                owner_references: (!owners.is_empty()).then_some(owners),
                ..ObjectMeta::default()
            },
            spec: template.spec.clone(),
            status: None,
        };
        let pod = identity::pod_name(pass.view.set, number);
        decision.actions.push(Action::CreateClaim { claim: Box::new(claim), pod });
    }
}

/// A claim of the number is on its way out: a pod that used it would hold it.
pub(super) fn still_going(pass: &Pass<'_>, number: i32) -> bool {
    names(pass, number).any(|(_, name)| find(pass, &name).is_some_and(|c| c.metadata.deletion_timestamp.is_some()))
}

/// Brings the owners of the claims in line with the policy.
pub(super) fn retain(pass: &Pass<'_>, decision: &mut Decision) {
    let numbers = pass.wanted.keys().chain(pass.condemned.keys());
    for number in numbers {
        for (_, name) in names(pass, *number) {
            let Some(claim) = find(pass, &name).filter(|c| c.metadata.deletion_timestamp.is_none()) else { continue };
            let old = claim.metadata.owner_references.clone().unwrap_or_default();
            let mut owners: Vec<OwnerReference> = old.iter().filter(|o| !is_ours(pass, o, *number)).cloned().collect();
            owners.extend(wanted_owner(pass, *number));
            if owners != old {
                let mut changed = PersistentVolumeClaim::clone(claim);
                changed.metadata.owner_references = Some(owners);
                decision.actions.push(Action::UpdateClaim(Box::new(changed)));
            }
        }
    }
}

fn is_ours(pass: &Pass<'_>, owner: &OwnerReference, number: i32) -> bool {
    let set = &pass.view.set.metadata;
    (owner.kind == "StatefulSet" && Some(&owner.name) == set.name.as_ref())
        || (owner.kind == "Pod" && owner.name == identity::pod_name(pass.view.set, number))
}

fn wanted_owner(pass: &Pass<'_>, number: i32) -> Option<OwnerReference> {
    let policy = pass.spec.persistent_volume_claim_retention_policy.as_ref()?;
    let deletes = |word: &Option<String>| word.as_deref() == Some("Delete");
    let condemned = pass.condemned.get(&number);
    if deletes(&policy.when_scaled)
        && let Some(pod) = condemned
    {
        return Some(reference::<Pod>(&pod.metadata));
    }
    let set = &pass.view.set.metadata;
    let keeps_when_scaled = condemned.is_some() && !deletes(&policy.when_scaled) && !deletes(&policy.when_deleted);
    (deletes(&policy.when_deleted) && !keeps_when_scaled).then(|| reference::<StatefulSet>(set))
}

fn reference<K: Resource>(meta: &ObjectMeta) -> OwnerReference {
    OwnerReference {
        api_version: K::API_VERSION.to_owned(),
        kind: K::KIND.to_owned(),
        name: meta.name.clone().unwrap_or_default(),
        uid: meta.uid.clone().unwrap_or_default(),
        controller: None,
        block_owner_deletion: None,
    }
}
