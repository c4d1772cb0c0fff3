//! ReplicaSet: as many active pods as `spec.replicas` says.
//!
//! Called by the controller manager's shell for one ReplicaSet and the pods of its namespace that it owns or might
//! adopt. Invariants: only pods that name this ReplicaSet's uid are counted or deleted; a pass never creates and
//! deletes; the same pods give the same victims. It relies on the shell's view containing all earlier writes.

use crate::owners::{self, Claim};
use crate::pods::{self, Availability};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use std::collections::HashMap;
use std::sync::Arc;

/// Most pods that one pass creates or deletes.
pub const BURST: usize = 500;

pub struct View<'a> {
    pub desired: &'a ReplicaSet,
    /// Pods of the namespace that it controls, or that nobody controls.
    pub pods: &'a [Arc<Pod>],
    pub now: Timestamp,
    /// Why the last creation failed, if it did: shown as the ReplicaFailure condition.
    pub failure: Option<&'a str>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    Adopt(Arc<Pod>),
    Release(Arc<Pod>),
    /// Create this many pods from the template.
    Create {
        count: usize,
    },
    Delete(Arc<Pod>),
}

pub struct Decision {
    pub actions: Vec<Action>,
    pub status: ReplicaSetStatus,
    pub wake_at: Option<Timestamp>,
}

pub fn decide(view: &View<'_>) -> Decision {
    let set = view.desired;
    let spec = set.spec.as_ref();
    let wanted = usize::try_from(spec.and_then(|s| s.replicas).unwrap_or(1)).unwrap_or(0);
    let (mut actions, active, terminating) = claim(view);
    if set.metadata.deletion_timestamp.is_none() {
        actions.extend(scale(wanted, &active));
    }
    let min_ready = spec.and_then(|s| s.min_ready_seconds).unwrap_or(0);
    let (status, wake_at) = status(view, &active, terminating, min_ready);
    Decision { actions, status, wake_at }
}

/// Which pods count, and which have to be adopted or let go first.
fn claim(view: &View<'_>) -> (Vec<Action>, Vec<Arc<Pod>>, usize) {
    let (mut actions, mut active, mut terminating) = (Vec::new(), Vec::new(), 0);
    let empty = Default::default();
    let selector = view.desired.spec.as_ref().map_or(&empty, |s| &s.selector);
    for pod in view.pods {
        match owners::claim(&view.desired.metadata, selector, &pod.metadata) {
            Claim::Mine if pods::is_active(pod) => active.push(pod.clone()),
            Claim::Mine if pods::is_terminating(pod) => terminating += 1,
            Claim::Mine | Claim::NotMine => {}
            Claim::Adopt if pods::is_active(pod) => {
                actions.push(Action::Adopt(pod.clone()));
                active.push(pod.clone());
            }
            Claim::Adopt => {}
            Claim::Release => actions.push(Action::Release(pod.clone())),
        }
    }
    (actions, active, terminating)
}

fn scale(wanted: usize, active: &[Arc<Pod>]) -> Vec<Action> {
    if active.len() < wanted {
        return vec![Action::Create { count: (wanted - active.len()).min(BURST) }];
    }
    let mut on_node: HashMap<&str, usize> = HashMap::new();
    for pod in active {
        *on_node.entry(pods::node_name(pod).unwrap_or_default()).or_default() += 1;
    }
    let crowd = |pod: &Pod| on_node.get(pods::node_name(pod).unwrap_or_default()).copied().unwrap_or(0);
    let mut ranked: Vec<&Arc<Pod>> = active.iter().collect();
    ranked.sort_by(|a, b| pods::deletion_order((a, crowd(a)), (b, crowd(b))));
    let surplus = (active.len() - wanted).min(BURST);
    ranked.into_iter().take(surplus).map(|pod| Action::Delete(pod.clone())).collect()
}

fn status(
    view: &View<'_>,
    active: &[Arc<Pod>],
    terminating: usize,
    min_ready: i32,
) -> (ReplicaSetStatus, Option<Timestamp>) {
    let (mut ready, mut available, mut labelled) = (0, 0, 0);
    let mut wake_at: Option<Timestamp> = None;
    let template = view.desired.spec.as_ref().and_then(|s| s.template.as_ref());
    let labels = template.and_then(|t| t.metadata.as_ref()).and_then(|m| m.labels.as_ref());
    for pod in active {
        let has = |(k, v): (&String, &String)| pod.metadata.labels.as_ref().and_then(|l| l.get(k)) == Some(v);
        labelled += i32::from(labels.into_iter().flatten().all(has));
        match pods::availability(pod, min_ready, view.now) {
            Availability::NotReady => {}
            Availability::From(at) => {
                ready += 1;
                wake_at = Some(wake_at.map_or(at, |w| w.min(at)));
            }
            Availability::Available => {
                ready += 1;
                available += 1;
            }
        }
    }
    let status = ReplicaSetStatus {
        replicas: active.len() as i32,
        fully_labeled_replicas: Some(labelled),
        ready_replicas: Some(ready),
        available_replicas: Some(available),
        terminating_replicas: Some(terminating as i32),
        observed_generation: view.desired.metadata.generation,
        conditions: failure_condition(view),
    };
    (status, wake_at)
}

fn failure_condition(view: &View<'_>) -> Option<Vec<ReplicaSetCondition>> {
    let old = view.desired.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
    let mut kept: Vec<_> = old.iter().filter(|c| c.type_ != "ReplicaFailure").cloned().collect();
    if let Some(message) = view.failure {
        let before = old.iter().find(|c| c.type_ == "ReplicaFailure" && c.message.as_deref() == Some(message));
        kept.push(before.cloned().unwrap_or_else(|| ReplicaSetCondition {
            type_: "ReplicaFailure".into(),
            status: "True".into(),
            reason: Some("FailedCreate".into()),
            message: Some(message.to_owned()),
            last_transition_time: Some(Time(view.now)),
        }));
    }
    (!kept.is_empty()).then_some(kept)
}

/// A pod of the ReplicaSet's template; the server makes up its name.
pub fn pod_from_template(set: &ReplicaSet) -> Pod {
    let template = set.spec.as_ref().and_then(|s| s.template.clone()).unwrap_or_default();
    let meta = template.metadata.unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", set.metadata.name.as_deref().unwrap_or_default())),
            namespace: set.metadata.namespace.clone(),
            labels: meta.labels,
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            owner_references: Some(vec![owners::reference::<ReplicaSet>(&set.metadata)]),
            ..ObjectMeta::default()
        },
        spec: template.spec,
        status: None,
    }
}

#[cfg(test)]
mod tests;
