//! ControllerRevisions: the templates that a DaemonSet or StatefulSet has had, for `kubectl rollout history` and `undo`.
//!
//! Used by both. Invariants: two revisions of one owner never hold the same template; the template in use has the
//! highest number; a revision that pods still carry is never deleted.

use crate::deployment::template_hash;
use crate::owners::{self, Claim};
use k8s_openapi::Resource;
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;

pub const HASH_LABEL: &str = "controller-revision-hash";

#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    Create(Box<ControllerRevision>),
    /// An old template is in use again: it gets the highest number.
    Renumber(Box<ControllerRevision>),
    Adopt(Arc<ControllerRevision>),
    Delete(Arc<ControllerRevision>),
}

/// The revisions of one owner, with the one of its template.
pub struct History {
    /// Oldest first, without the one that is still to be made.
    pub known: Vec<Arc<ControllerRevision>>,
    pub update: ControllerRevision,
    pub actions: Vec<Action>,
}

pub struct Owner<'a> {
    pub meta: &'a ObjectMeta,
    pub selector: &'a LabelSelector,
    pub template: &'a PodTemplateSpec,
    pub collisions: Option<i32>,
}

pub fn history<K: Resource>(owner: &Owner<'_>, all: &[Arc<ControllerRevision>]) -> History {
    let (mut known, mut actions) = (Vec::new(), Vec::new());
    for revision in all {
        match owners::claim(owner.meta, owner.selector, &revision.metadata) {
            Claim::Mine => known.push(revision.clone()),
            Claim::Adopt => {
                actions.push(Action::Adopt(revision.clone()));
                known.push(revision.clone());
            }
            Claim::Release | Claim::NotMine => {}
        }
    }
    known.sort_by_key(|r| (r.revision, r.metadata.creation_timestamp.as_ref().map(|t| t.0), r.metadata.name.clone()));
    let data = data(owner.template);
    let latest = known.last().map_or(0, |r| r.revision);
    let same = known.iter().rev().find(|r| r.data.as_ref().is_some_and(|d| d.0 == data));
    let update = match same {
        Some(same) if same.revision == latest => ControllerRevision::clone(same),
        Some(same) => {
            let renumbered = ControllerRevision { revision: latest + 1, ..ControllerRevision::clone(same) };
            actions.push(Action::Renumber(Box::new(renumbered.clone())));
            renumbered
        }
        None => {
            let made = make::<K>(owner, data, latest + 1);
            actions.push(Action::Create(Box::new(made.clone())));
            made
        }
    };
    History { known, update, actions }
}

/// The patch that puts this template back in place, in the form that `kubectl rollout undo` applies.
fn data(template: &PodTemplateSpec) -> Value {
    // What came from JSON can be written as JSON.
    let mut template = serde_json::to_value(template).unwrap_or_default();
    if let Some(fields) = template.as_object_mut() {
        fields.insert("$patch".into(), "replace".into());
    }
    json!({"spec": {"template": template}})
}

/// The template that a revision holds.
pub fn template(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let mut template = revision.data.as_ref()?.0.get("spec")?.get("template")?.clone();
    template.as_object_mut()?.remove("$patch");
    serde_json::from_value(template).ok()
}

fn make<K: Resource>(owner: &Owner<'_>, data: Value, revision: i64) -> ControllerRevision {
    let hash = template_hash(owner.template, owner.collisions);
    let mut labels = owner.template.metadata.as_ref().and_then(|m| m.labels.clone()).unwrap_or_default();
    labels.insert(HASH_LABEL.into(), hash.clone());
    ControllerRevision {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", owner.meta.name.as_deref().unwrap_or_default())),
            namespace: owner.meta.namespace.clone(),
            labels: Some(labels),
            annotations: owner.meta.annotations.clone().map(|mut annotations| {
                annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
                annotations
            }),
            owner_references: Some(vec![owners::reference::<K>(owner.meta)]),
            ..ObjectMeta::default()
        },
        data: Some(RawExtension(data)),
        revision,
    }
}

pub fn name(revision: &ControllerRevision) -> &str {
    revision.metadata.name.as_deref().unwrap_or_default()
}

/// What pods of a DaemonSet carry.
pub fn hash(revision: &ControllerRevision) -> &str {
    let labels = revision.metadata.labels.as_ref();
    labels.and_then(|l| l.get(HASH_LABEL)).map_or_else(|| name(revision), String::as_str)
}

/// Revisions beyond the history to keep that nothing carries, oldest first. `live` holds names or hashes.
pub fn expired(history: &History, limit: Option<i32>, live: &BTreeSet<&str>) -> Vec<Action> {
    let keep = usize::try_from(limit.unwrap_or(10)).unwrap_or(0);
    let is_live = |r: &&Arc<ControllerRevision>| {
        live.contains(name(r)) || live.contains(hash(r)) || name(r) == name(&history.update)
    };
    let dead: Vec<&Arc<ControllerRevision>> = history.known.iter().filter(|r| !is_live(r)).collect();
    let surplus = dead.len().saturating_sub(keep);
    dead.into_iter().take(surplus).cloned().map(Action::Delete).collect()
}
