//! Deployment: moves from old ReplicaSets to the one of the current template, within maxSurge and maxUnavailable.
//!
//! Called by the controller manager's shell for one Deployment and the ReplicaSets that it owns or might adopt.
//! Invariants: the desired replicas of all ReplicaSets never exceed `replicas + maxSurge` by a pass of a rolling
//! update, nor does a pass take available pods below `replicas - maxUnavailable`; a second pass over the outcome of
//! the first does nothing. It deliberately never touches pods.

mod hash;
mod rollout;
mod scale;
mod sets;
mod status;

pub use hash::template_hash;
pub use sets::Change;

use crate::owners::{self, Claim};
use crate::portion::{self, Round};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use sets::Sets;
use std::sync::Arc;

pub const REVISION: &str = "deployment.kubernetes.io/revision";
pub const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
pub const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
pub const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";
pub const HASH_LABEL: &str = "pod-template-hash";

pub struct View<'a> {
    pub desired: &'a Deployment,
    /// ReplicaSets of the namespace that it controls, or that nobody controls.
    pub sets: &'a [Arc<ReplicaSet>],
    /// Pods of the ReplicaSets that it controls; only needed for the Recreate strategy.
    pub pods: &'a [Arc<Pod>],
    pub now: Timestamp,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    Adopt(Arc<ReplicaSet>),
    Release(Arc<ReplicaSet>),
    Create(Box<ReplicaSet>),
    /// Write the ReplicaSet as it is here; `scaled` says from how many replicas, for the event.
    Update {
        set: Box<ReplicaSet>,
        scaled_from: Option<i32>,
    },
    Delete(Arc<ReplicaSet>),
    /// Keep the current revision on the Deployment itself, where `kubectl rollout history` looks.
    SetRevision(String),
}

pub struct Decision {
    pub actions: Vec<Action>,
    pub status: DeploymentStatus,
    pub wake_at: Option<Timestamp>,
}

/// The numbers of a Deployment's spec, defaulted and resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) replicas: i32,
    pub(crate) max_surge: i32,
    pub(crate) max_unavailable: i32,
}

pub fn decide(view: &View<'_>) -> Decision {
    let deployment = view.desired;
    let limits = limits(deployment);
    let (mut actions, mine) = claim(view);
    let mut sets = Sets::new(deployment, mine);
    let mut events = status::Happened::default();
    if deployment.metadata.deletion_timestamp.is_some() {
        let (status, wake_at) = status::status(view, &sets, limits, &events);
        return Decision { actions: Vec::new(), status, wake_at };
    }
    let paused = is_paused(deployment);
    let recreate = is_recreate(deployment);
    if paused || scale::is_scaling_event(&sets, limits) {
        sets.sync_revision(deployment);
        scale::scale(deployment, &mut sets, limits);
    } else if recreate {
        rollout::recreate(view, &mut sets, limits, &mut events);
    } else {
        rollout::rolling(view, &mut sets, limits, &mut events);
    }
    let (status, wake_at) = status::status(view, &sets, limits, &events);
    let keep_history = !paused && !status::is_complete(deployment, &status);
    actions.extend(sets.actions(deployment));
    if !keep_history {
        actions.extend(sets.expired(deployment).into_iter().map(Action::Delete));
    }
    Decision { actions, status, wake_at }
}

fn claim(view: &View<'_>) -> (Vec<Action>, Vec<Arc<ReplicaSet>>) {
    let (mut actions, mut mine) = (Vec::new(), Vec::new());
    let empty = Default::default();
    let selector = view.desired.spec.as_ref().map_or(&empty, |s| &s.selector);
    for set in view.sets {
        match owners::claim(&view.desired.metadata, selector, &set.metadata) {
            Claim::Mine => mine.push(set.clone()),
            Claim::Adopt => {
                // It counts from the next pass on, when it is really ours.
                actions.push(Action::Adopt(set.clone()));
            }
            Claim::Release => actions.push(Action::Release(set.clone())),
            Claim::NotMine => {}
        }
    }
    (actions, mine)
}

pub(crate) fn is_paused(deployment: &Deployment) -> bool {
    deployment.spec.as_ref().and_then(|s| s.paused) == Some(true)
}

pub(crate) fn is_recreate(deployment: &Deployment) -> bool {
    let strategy = deployment.spec.as_ref().and_then(|s| s.strategy.as_ref());
    strategy.and_then(|s| s.type_.as_deref()) == Some("Recreate")
}

/// maxSurge rounds up, maxUnavailable down; when both come to nothing, one pod may be missing, or nothing would move.
pub(crate) fn limits(deployment: &Deployment) -> Limits {
    let spec = deployment.spec.as_ref();
    let replicas = spec.and_then(|s| s.replicas).unwrap_or(1).max(0);
    if is_recreate(deployment) {
        return Limits { replicas, max_surge: 0, max_unavailable: 0 };
    }
    let rolling = spec.and_then(|s| s.strategy.as_ref()).and_then(|s| s.rolling_update.as_ref());
    let quarter = IntOrString::String("25%".into());
    let surge = rolling.and_then(|r| r.max_surge.as_ref()).unwrap_or(&quarter);
    let unavailable = rolling.and_then(|r| r.max_unavailable.as_ref()).unwrap_or(&quarter);
    let max_surge = portion::resolve(surge, replicas, Round::Up);
    let mut max_unavailable = portion::resolve(unavailable, replicas, Round::Down);
    if max_surge == 0 && max_unavailable == 0 {
        max_unavailable = 1;
    }
    Limits { replicas, max_surge, max_unavailable: max_unavailable.min(replicas) }
}

#[cfg(test)]
mod tests;
