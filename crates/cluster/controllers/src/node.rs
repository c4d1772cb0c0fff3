//! Node lifecycle: a node whose lease is not renewed becomes Unknown, is tainted, and loses its pods in time.
//!
//! Called by the controller manager's shell for one Node. Invariants: a node is only judged by renewals that this
//! process saw itself (after a restart the patience begins anew, so a restart evicts nobody); a pod is evicted only
//! when its tolerations have run out. It never removes a Node.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, NodeCondition, Pod, Taint, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::sync::Arc;

/// How long a node may be silent.
pub const PATIENCE: SignedDuration = SignedDuration::from_secs(40);
pub const NOT_READY: &str = "node.kubernetes.io/not-ready";
pub const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
/// The taints that follow from conditions and are kept by this controller alone.
const CONDITION_TAINTS: [(&str, &str); 4] = [
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "node.kubernetes.io/network-unavailable"),
];
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

pub struct View<'a> {
    pub node: &'a Node,
    /// Pods that are bound to it.
    pub pods: &'a [Arc<Pod>],
    /// When this process last saw the lease or the node's status renewed.
    pub renewed: Timestamp,
    pub now: Timestamp,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    SetConditions(Vec<NodeCondition>),
    SetTaints(Vec<Taint>),
    /// Ready is not True any more on these pods, as their node cannot say so itself.
    MarkNotReady(Arc<Pod>),
    Evict(Arc<Pod>),
}

pub struct Decision {
    pub actions: Vec<Action>,
    pub wake_at: Option<Timestamp>,
}

pub fn decide(view: &View<'_>) -> Decision {
    let mut actions = Vec::new();
    let silent_at = view.renewed + PATIENCE;
    let silent = view.now >= silent_at;
    let mut wake_at = (!silent).then_some(silent_at);
    let mut conditions = view.node.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
    if silent && mark_unknown(&mut conditions, view.now) {
        actions.push(Action::SetConditions(conditions.clone()));
    }
    let taints = taints(view, &conditions);
    let old = view.node.spec.as_ref().and_then(|s| s.taints.as_deref()).unwrap_or_default();
    if taints != old {
        actions.push(Action::SetTaints(taints.clone()));
    }
    if silent {
        let ready = view.pods.iter().filter(|pod| crate::pods::is_ready(pod));
        actions.extend(ready.cloned().map(Action::MarkNotReady));
    }
    for pod in view.pods.iter().filter(|pod| !crate::pods::is_terminating(pod)) {
        match evict_at(pod, &taints, view.now) {
            Some(at) if at <= view.now => actions.push(Action::Evict(pod.clone())),
            Some(at) => wake_at = Some(wake_at.map_or(at, |w| w.min(at))),
            None => {}
        }
    }
    Decision { actions, wake_at }
}

fn mark_unknown(conditions: &mut Vec<NodeCondition>, now: Timestamp) -> bool {
    let mut changed = false;
    if !conditions.iter().any(|c| c.type_ == "Ready") {
        conditions.push(NodeCondition { type_: "Ready".into(), ..NodeCondition::default() });
    }
    for condition in conditions.iter_mut().filter(|c| c.status != "Unknown") {
        if !matches!(condition.type_.as_str(), "Ready" | "MemoryPressure" | "DiskPressure" | "PIDPressure") {
            continue;
        }
        condition.status = "Unknown".into();
        condition.reason = Some("NodeStatusUnknown".into());
        condition.message = Some("Kubelet stopped posting node status.".into());
        condition.last_transition_time = Some(Time(now));
        changed = true;
    }
    changed
}

/// The taints that the node should have: those of others as they are, ours as the conditions say.
fn taints(view: &View<'_>, conditions: &[NodeCondition]) -> Vec<Taint> {
    let spec = view.node.spec.as_ref();
    let old = spec.and_then(|s| s.taints.as_deref()).unwrap_or_default();
    let mut wanted: Vec<(&str, &str)> = Vec::new();
    match conditions.iter().find(|c| c.type_ == "Ready").map(|c| c.status.as_str()) {
        Some("True") => {}
        Some("Unknown") => wanted.extend([(UNREACHABLE, "NoSchedule"), (UNREACHABLE, "NoExecute")]),
        Some(_) | None => wanted.extend([(NOT_READY, "NoSchedule"), (NOT_READY, "NoExecute")]),
    }
    for (type_, key) in CONDITION_TAINTS {
        if conditions.iter().any(|c| c.type_ == type_ && c.status == "True") {
            wanted.push((key, "NoSchedule"));
        }
    }
    if spec.and_then(|s| s.unschedulable) == Some(true) {
        wanted.push((UNSCHEDULABLE, "NoSchedule"));
    }
    let ours = |key: &str| {
        key == NOT_READY
            || key == UNREACHABLE
            || key == UNSCHEDULABLE
            || CONDITION_TAINTS.iter().any(|(_, k)| *k == key)
    };
    let is = |t: &Taint, (key, effect): (&str, &str)| t.key == key && t.effect == effect;
    let mut taints: Vec<Taint> =
        old.iter().filter(|t| !ours(&t.key) || wanted.iter().any(|w| is(t, *w))).cloned().collect();
    for (key, effect) in wanted {
        if !taints.iter().any(|t| is(t, (key, effect))) {
            taints.push(Taint {
                key: key.to_owned(),
                effect: effect.to_owned(),
                value: None,
                time_added: (effect == "NoExecute").then_some(Time(view.now)),
            });
        }
    }
    taints
}

/// When the pod has to go because of the node's NoExecute taints; None: it may stay.
fn evict_at(pod: &Pod, taints: &[Taint], now: Timestamp) -> Option<Timestamp> {
    let tolerations = pod.spec.as_ref().and_then(|s| s.tolerations.as_deref()).unwrap_or_default();
    let mut earliest: Option<Timestamp> = None;
    for taint in taints.iter().filter(|t| t.effect == "NoExecute") {
        let matching: Vec<&Toleration> = tolerations.iter().filter(|t| tolerates(t, taint)).collect();
        let since = taint.time_added.as_ref().map_or(now, |t| t.0);
        let at = if matching.is_empty() {
            since
        } else {
            // The shortest patience counts; a toleration without a limit sets none.
            match matching.iter().filter_map(|t| t.toleration_seconds).min() {
                Some(seconds) => since + SignedDuration::from_secs(seconds.clamp(0, i64::from(i32::MAX))),
                None => continue,
            }
        };
        earliest = Some(earliest.map_or(at, |e| e.min(at)));
    }
    earliest
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.as_deref().unwrap_or_default();
    let key = toleration.key.as_deref().unwrap_or_default();
    (effect.is_empty() || effect == taint.effect)
        && match toleration.operator.as_deref().unwrap_or("Equal") {
            "Exists" => key.is_empty() || key == taint.key,
            _ => {
                key == taint.key
                    && toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default()
            }
        }
}

#[cfg(test)]
mod tests;
