//! The ReplicaSets of one Deployment as a plan: what stands there, and what it is to become.
//!
//! The steps of a rollout change `now`; comparing with `before` at the end gives the actions. Invariants: at most one
//! ReplicaSet is the new one; revisions only grow; a ReplicaSet that did not change makes no action.

use super::{Action, DESIRED_REPLICAS, HASH_LABEL, Limits, MAX_REPLICAS, REVISION, REVISION_HISTORY, template_hash};
use crate::owners;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::BTreeMap;
use std::sync::Arc;

/// One ReplicaSet, before and after.
#[derive(Clone, Debug)]
pub struct Change {
    /// None: it is to be made.
    pub(crate) before: Option<Arc<ReplicaSet>>,
    pub(crate) now: ReplicaSet,
}

impl Change {
    pub(crate) fn replicas(&self) -> i32 {
        replicas(&self.now)
    }

    pub(crate) fn available(&self) -> i32 {
        self.now.status.as_ref().and_then(|s| s.available_replicas).unwrap_or(0)
    }

    pub(crate) fn observed(&self) -> i32 {
        self.now.status.as_ref().map_or(0, |s| s.replicas)
    }

    pub(crate) fn ready(&self) -> i32 {
        self.now.status.as_ref().and_then(|s| s.ready_replicas).unwrap_or(0)
    }

    pub(crate) fn name(&self) -> &str {
        self.now.metadata.name.as_deref().unwrap_or_default()
    }

    pub(crate) fn annotation(&self, key: &str) -> Option<i32> {
        self.now.metadata.annotations.as_ref()?.get(key)?.parse().ok()
    }

    fn annotate(&mut self, key: &str, value: String) {
        self.now.metadata.annotations.get_or_insert_default().insert(key.to_owned(), value);
    }

    /// Sets the size, and notes for what Deployment it was chosen: proportional scaling needs to know.
    pub(crate) fn scale_to(&mut self, size: i32, limits: Limits) {
        self.now.spec.get_or_insert_default().replicas = Some(size);
        self.annotate(DESIRED_REPLICAS, limits.replicas.to_string());
        self.annotate(MAX_REPLICAS, (limits.replicas + limits.max_surge).to_string());
    }

    fn revision(&self) -> i64 {
        let annotations = self.now.metadata.annotations.as_ref();
        annotations.and_then(|a| a.get(REVISION)).and_then(|r| r.parse().ok()).unwrap_or(0)
    }

    fn created(&self) -> (Option<jiff::Timestamp>, &str) {
        (self.now.metadata.creation_timestamp.as_ref().map(|t| t.0), self.name())
    }
}

pub(crate) fn replicas(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)
}

pub(crate) struct Sets {
    /// Oldest first.
    pub(crate) old: Vec<Change>,
    pub(crate) new: Option<Change>,
}

impl Sets {
    pub(crate) fn new(deployment: &Deployment, mut mine: Vec<Arc<ReplicaSet>>) -> Self {
        let age = |s: &ReplicaSet| (s.metadata.creation_timestamp.as_ref().map(|t| t.0), s.metadata.name.clone());
        mine.sort_by_key(|set| age(set));
        let template = deployment.spec.as_ref().map(|s| &s.template);
        let mut sets = Sets { old: Vec::new(), new: None };
        for set in mine {
            let is_new = sets.new.is_none() && template.is_some_and(|t| same_template(t, &set));
            let change = Change { now: ReplicaSet::clone(&set), before: Some(set) };
            if is_new {
                sets.new = Some(change);
            } else {
                sets.old.push(change);
            }
        }
        sets
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Change> {
        self.old.iter().chain(&self.new)
    }

    pub(crate) fn total(&self) -> i32 {
        self.all().map(Change::replicas).sum()
    }

    fn next_revision(&self) -> i64 {
        self.old.iter().map(Change::revision).max().unwrap_or(0) + 1
    }

    /// Gives the new ReplicaSet the highest revision and the Deployment's own annotations.
    pub(crate) fn sync_revision(&mut self, deployment: &Deployment) {
        let next = self.next_revision();
        let Some(new) = &mut self.new else { return };
        for (key, value) in copied_annotations(deployment) {
            new.annotate(key, value.clone());
        }
        let current = new.revision();
        if current < next {
            if current > 0 {
                let annotations = new.now.metadata.annotations.get_or_insert_default();
                let history = annotations.entry(REVISION_HISTORY.into()).or_default();
                if !history.is_empty() {
                    history.push(',');
                }
                history.push_str(&current.to_string());
            }
            new.annotate(REVISION, next.to_string());
        }
        let min_ready = deployment.spec.as_ref().and_then(|s| s.min_ready_seconds);
        new.now.spec.get_or_insert_default().min_ready_seconds = min_ready;
    }

    /// The new ReplicaSet, made if there is none; says whether it was.
    pub(crate) fn ensure_new(
        &mut self,
        deployment: &Deployment,
        size: impl FnOnce(&Sets) -> i32,
        limits: Limits,
    ) -> bool {
        if self.new.is_some() {
            self.sync_revision(deployment);
            return false;
        }
        let mut change = Change { before: None, now: make(deployment) };
        change.annotate(REVISION, self.next_revision().to_string());
        change.scale_to(0, limits);
        self.new = Some(change);
        let size = size(self);
        if let Some(new) = &mut self.new {
            new.scale_to(size, limits);
        }
        true
    }

    pub(crate) fn actions(&self, deployment: &Deployment) -> Vec<Action> {
        let mut actions = Vec::new();
        for change in self.all() {
            match &change.before {
                None => actions.push(Action::Create(Box::new(change.now.clone()))),
                Some(before) if **before != change.now => {
                    let from = replicas(before);
                    let scaled_from = (from != change.replicas()).then_some(from);
                    actions.push(Action::Update { set: Box::new(change.now.clone()), scaled_from });
                }
                Some(_) => {}
            }
        }
        let revision = self.new.as_ref().map(Change::revision).filter(|r| *r > 0).map(|r| r.to_string());
        let known = deployment.metadata.annotations.as_ref().and_then(|a| a.get(REVISION));
        actions.extend(revision.filter(|r| Some(r) != known).map(Action::SetRevision));
        actions
    }

    /// Old ReplicaSets beyond the history to keep, oldest revisions first.
    pub(crate) fn expired(&self, deployment: &Deployment) -> Vec<Arc<ReplicaSet>> {
        let keep = deployment.spec.as_ref().and_then(|s| s.revision_history_limit).unwrap_or(10);
        let keep = usize::try_from(keep).unwrap_or(0);
        let mut old: Vec<&Change> = self.old.iter().collect();
        old.sort_by_key(|c| (c.revision(), c.created()));
        let surplus = old.len().saturating_sub(keep);
        let idle = |c: &&Change| {
            let observed = c.now.status.as_ref().and_then(|s| s.observed_generation).unwrap_or(0);
            let settled = c.now.metadata.generation.unwrap_or(0) <= observed;
            c.observed() == 0 && c.replicas() == 0 && settled && c.now.metadata.deletion_timestamp.is_none()
        };
        old.into_iter().take(surplus).filter(idle).filter_map(|c| c.before.clone()).collect()
    }
}

/// Whether the ReplicaSet has this template, but for the hash label that it was given.
fn same_template(template: &PodTemplateSpec, set: &ReplicaSet) -> bool {
    let Some(theirs) = set.spec.as_ref().and_then(|s| s.template.as_ref()) else {
        return false;
    };
    if template.spec != theirs.spec {
        return false;
    }
    let (mut ours, mut theirs) =
        (template.metadata.clone().unwrap_or_default(), theirs.metadata.clone().unwrap_or_default());
    for meta in [&mut ours, &mut theirs] {
        meta.labels.get_or_insert_default().remove(HASH_LABEL);
        // The server may or may not write a null creation time into an embedded object.
        meta.creation_timestamp = None;
        meta.annotations.get_or_insert_default();
    }
    ours == theirs
}

/// What a ReplicaSet inherits: the change cause, but not what only concerns the Deployment itself.
fn copied_annotations(deployment: &Deployment) -> impl Iterator<Item = (&str, &String)> {
    let own = |key: &str| {
        [REVISION, REVISION_HISTORY, DESIRED_REPLICAS, MAX_REPLICAS].contains(&key)
            || key == "kubectl.kubernetes.io/last-applied-configuration"
            || key == "deprecated.deployment.rollback.to"
    };
    let all = deployment.metadata.annotations.iter().flatten();
    all.map(|(key, value)| (key.as_str(), value)).filter(move |(key, _)| !own(key))
}

fn make(deployment: &Deployment) -> ReplicaSet {
    let spec = deployment.spec.clone().unwrap_or_default();
    let collisions = deployment.status.as_ref().and_then(|s| s.collision_count);
    let hash = template_hash(&spec.template, collisions);
    let mut template = spec.template;
    let mut selector = spec.selector;
    let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
    labels.insert(HASH_LABEL.into(), hash.clone());
    let labels = labels.clone();
    selector.match_labels.get_or_insert_default().insert(HASH_LABEL.into(), hash.clone());
    let annotations: BTreeMap<String, String> =
        copied_annotations(deployment).map(|(key, value)| (key.to_owned(), value.clone())).collect();
    ReplicaSet {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", deployment.metadata.name.as_deref().unwrap_or_default())),
            namespace: deployment.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: Some(annotations),
            owner_references: Some(vec![owners::reference::<Deployment>(&deployment.metadata)]),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            replicas: Some(0),
            min_ready_seconds: spec.min_ready_seconds,
            selector,
            template: Some(template),
        }),
        status: None,
    }
}
