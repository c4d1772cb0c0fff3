//! A Deployment's status: counts, and the conditions that `kubectl rollout status` reads.
//!
//! Invariant: reasons and messages are Kubernetes' own; `lastTransitionTime` moves only when a condition's status does,
//! `lastUpdateTime` only on progress, so that an unchanged Deployment has an unchanged status.

use super::sets::{Change, Sets};
use super::{Limits, View, is_paused};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

const AVAILABLE: &str = "Available";
const PROGRESSING: &str = "Progressing";
const REPLICA_FAILURE: &str = "ReplicaFailure";
const NEW_SET_AVAILABLE: &str = "NewReplicaSetAvailable";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";
const PAUSED: &str = "DeploymentPaused";

/// What this pass did, beyond what the numbers show.
#[derive(Default)]
pub(crate) struct Happened {
    pub(crate) created: bool,
}

pub(crate) fn status(
    view: &View<'_>,
    sets: &Sets,
    limits: Limits,
    happened: &Happened,
) -> (DeploymentStatus, Option<Timestamp>) {
    let deployment = view.desired;
    let old = deployment.status.clone().unwrap_or_default();
    let sum = |count: fn(&Change) -> i32| sets.all().map(count).sum::<i32>();
    let available = sum(Change::available);
    let terminating = sets.all().filter_map(|c| c.now.status.as_ref()?.terminating_replicas).sum();
    let mut status = DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: Some(sum(Change::observed)),
        updated_replicas: Some(sets.new.as_ref().map_or(0, Change::observed)),
        ready_replicas: Some(sum(Change::ready)),
        available_replicas: Some(available),
        unavailable_replicas: Some((sets.total() - available).max(0)),
        terminating_replicas: Some(terminating),
        collision_count: old.collision_count,
        conditions: old.conditions.clone(),
    };
    let mut conditions = Conditions { list: old.conditions.clone().unwrap_or_default(), now: view.now };
    let minimum = available >= limits.replicas - limits.max_unavailable;
    if minimum {
        conditions.set(AVAILABLE, "True", "MinimumReplicasAvailable", "Deployment has minimum availability.");
    } else {
        let message = "Deployment does not have minimum availability.";
        conditions.set(AVAILABLE, "False", "MinimumReplicasUnavailable", message);
    }
    let wake_at = progress(view, sets, &old, &status, &mut conditions, happened);
    replica_failure(sets, &mut conditions);
    status.conditions = Some(conditions.list);
    (status, wake_at)
}

/// Every pod is of the current template and available, and no other is left.
pub(crate) fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let replicas = deployment.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1);
    status.updated_replicas == Some(replicas)
        && status.replicas == Some(replicas)
        && status.available_replicas == Some(replicas)
}

fn progress(
    view: &View<'_>,
    sets: &Sets,
    old: &DeploymentStatus,
    status: &DeploymentStatus,
    conditions: &mut Conditions,
    happened: &Happened,
) -> Option<Timestamp> {
    let deadline = view.desired.spec.as_ref().and_then(|s| s.progress_deadline_seconds);
    let Some(deadline) = deadline.filter(|d| *d != i32::MAX) else {
        conditions.remove(PROGRESSING);
        return None;
    };
    let reason = conditions.get(PROGRESSING).and_then(|c| c.reason.clone());
    if is_paused(view.desired) {
        if reason.as_deref() != Some(PAUSED) {
            conditions.set(PROGRESSING, "Unknown", PAUSED, "Deployment is paused");
        }
        return None;
    }
    if reason.as_deref() == Some(PAUSED) {
        conditions.set(PROGRESSING, "Unknown", "DeploymentResumed", "Deployment is resumed");
    }
    let who = match &sets.new {
        Some(new) => format!("ReplicaSet {:?}", new.name()),
        None => format!("Deployment {:?}", view.desired.metadata.name.as_deref().unwrap_or_default()),
    };
    let settled = status.replicas == status.updated_replicas && reason.as_deref() == Some(NEW_SET_AVAILABLE);
    if happened.created {
        let name = sets.new.as_ref().map_or("", Change::name);
        conditions.renew("NewReplicaSetCreated", format!("Created new replica set {name:?}"));
    } else if settled {
        return None;
    } else if is_complete(view.desired, status) {
        conditions.renew(NEW_SET_AVAILABLE, format!("{who} has successfully progressed."));
        return None;
    } else if has_moved(old, status) {
        conditions.renew("ReplicaSetUpdated", format!("{who} is progressing."));
    } else if reason.is_none() && sets.new.is_some() {
        let name = sets.new.as_ref().map_or("", Change::name);
        conditions.renew("FoundNewReplicaSet", format!("Found new replica set {name:?}"));
    }
    let since = conditions.get(PROGRESSING)?.last_update_time.as_ref()?.0;
    let ends = since + SignedDuration::from_secs(i64::from(deadline));
    if view.now < ends {
        return Some(ends);
    }
    let message = format!("{who} has timed out progressing.");
    conditions.set(PROGRESSING, "False", TIMED_OUT, &message);
    None
}

fn has_moved(old: &DeploymentStatus, new: &DeploymentStatus) -> bool {
    let old_pods = |s: &DeploymentStatus| s.replicas.unwrap_or(0) - s.updated_replicas.unwrap_or(0);
    new.updated_replicas > Some(old.updated_replicas.unwrap_or(0))
        || old_pods(new) < old_pods(old)
        || new.ready_replicas > Some(old.ready_replicas.unwrap_or(0))
        || new.available_replicas > Some(old.available_replicas.unwrap_or(0))
}

/// Passes on why a ReplicaSet cannot make pods.
fn replica_failure(sets: &Sets, conditions: &mut Conditions) {
    let failure = sets.new.iter().chain(&sets.old).find_map(|c| {
        let conditions = c.now.status.as_ref()?.conditions.as_ref()?;
        conditions.iter().find(|c| c.type_ == REPLICA_FAILURE && c.status == "True").cloned()
    });
    match failure {
        Some(failure) => {
            let reason = failure.reason.unwrap_or_default();
            conditions.set(REPLICA_FAILURE, "True", &reason, failure.message.as_deref().unwrap_or_default());
        }
        None => conditions.remove(REPLICA_FAILURE),
    }
}

struct Conditions {
    list: Vec<DeploymentCondition>,
    now: Timestamp,
}

impl Conditions {
    fn get(&self, type_: &str) -> Option<&DeploymentCondition> {
        self.list.iter().find(|c| c.type_ == type_)
    }

    fn remove(&mut self, type_: &str) {
        self.list.retain(|c| c.type_ != type_);
    }

    /// Sets a condition; one with the same status and reason stays as it is.
    fn set(&mut self, type_: &str, status: &str, reason: &str, message: &str) {
        let same = self.get(type_).is_some_and(|c| c.status == status && c.reason.as_deref() == Some(reason));
        if !same {
            self.put(type_, status, reason, message);
        }
    }

    /// Progress was made: the deadline begins anew.
    fn renew(&mut self, reason: &str, message: String) {
        self.put(PROGRESSING, "True", reason, &message);
    }

    fn put(&mut self, type_: &str, status: &str, reason: &str, message: &str) {
        let before = self.get(type_).filter(|c| c.status == status);
        let since = before.and_then(|c| c.last_transition_time.clone()).unwrap_or(Time(self.now));
        let condition = DeploymentCondition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            last_transition_time: Some(since),
            last_update_time: Some(Time(self.now)),
        };
        self.remove(type_);
        self.list.push(condition);
    }
}
