//! PodDisruptionBudget: how many pods may be taken away on purpose right now.
//!
//! Called by the controller manager's shell for one budget and the pods of its namespace. Invariants: a pod whose
//! eviction was granted counts as gone before it goes; what cannot be computed allows nothing.

use crate::portion::{self, Round};
use crate::{pods, selection};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::collections::BTreeMap;
use std::sync::Arc;

/// How long a granted eviction may take to become a deletion.
const PATIENCE: SignedDuration = SignedDuration::from_secs(120);

pub struct View<'a> {
    pub budget: &'a PodDisruptionBudget,
    pub pods: &'a [Arc<Pod>],
    /// How many pods the controllers of these pods want, each controller once; None: one cannot be found.
    pub scale: Option<i32>,
    pub now: Timestamp,
}

pub struct Decision {
    pub status: PodDisruptionBudgetStatus,
    pub wake_at: Option<Timestamp>,
    /// No pod matches: worth an event.
    pub empty: bool,
}

/// The pods that the budget is about.
pub fn covered(budget: &PodDisruptionBudget, pods: &[Arc<Pod>]) -> Vec<Arc<Pod>> {
    let selector = budget.spec.as_ref().and_then(|s| s.selector.as_ref());
    let Some(selector) = selector else { return Vec::new() };
    pods.iter().filter(|p| selection::matches(selector, p.metadata.labels.as_ref())).cloned().collect()
}

pub fn decide(view: &View<'_>) -> Decision {
    let covered = covered(view.budget, view.pods);
    let old = view.budget.status.clone().unwrap_or_default();
    let mut wake_at: Option<Timestamp> = None;
    let mut going = BTreeMap::new();
    for (name, since) in old.disrupted_pods.clone().unwrap_or_default() {
        let due = since.0 + PATIENCE;
        let there = covered.iter().find(|p| p.metadata.name.as_ref() == Some(&name));
        if there.is_some_and(|p| !pods::is_terminating(p)) && due > view.now {
            wake_at = Some(wake_at.map_or(due, |w| w.min(due)));
            going.insert(name, since);
        }
    }
    let healthy = |pod: &&Arc<Pod>| {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        pods::is_ready(pod) && !pods::is_terminating(pod) && !going.contains_key(name)
    };
    let healthy = i32::try_from(covered.iter().filter(healthy).count()).unwrap_or(i32::MAX);
    let (expected, desired) = expected(view, i32::try_from(covered.len()).unwrap_or(i32::MAX));
    let allowed = if expected > 0 { (healthy - desired).max(0) } else { 0 };
    let status = PodDisruptionBudgetStatus {
        conditions: Some(vec![condition(view, &old, allowed, expected)]),
        current_healthy: Some(healthy),
        desired_healthy: Some(desired),
        disrupted_pods: (!going.is_empty()).then_some(going),
        disruptions_allowed: Some(allowed),
        expected_pods: Some(expected),
        observed_generation: view.budget.metadata.generation,
    };
    Decision { status, wake_at, empty: covered.is_empty() }
}

/// How many there should be, and how many of them have to stay.
fn expected(view: &View<'_>, here: i32) -> (i32, i32) {
    let spec = view.budget.spec.as_ref();
    if let Some(most) = spec.and_then(|s| s.max_unavailable.as_ref()) {
        let Some(all) = view.scale else { return (0, 0) };
        return (all, (all - portion::resolve(most, all, Round::Up)).max(0));
    }
    match spec.and_then(|s| s.min_available.as_ref()) {
        Some(IntOrString::Int(least)) => (here, (*least).max(0)),
        Some(share) => match view.scale {
            Some(all) => (all, portion::resolve(share, all, Round::Up)),
            None => (0, 0),
        },
        None => (here, 0),
    }
}

fn condition(view: &View<'_>, old: &PodDisruptionBudgetStatus, allowed: i32, expected: i32) -> Condition {
    let (status, reason) = match (expected, allowed) {
        (0, _) if view.scale.is_none() => ("False", "SyncFailed"),
        (_, 0) => ("False", "InsufficientPods"),
        _ => ("True", "SufficientPods"),
    };
    let before = old.conditions.iter().flatten().find(|c| c.type_ == "DisruptionAllowed");
    let since = before.filter(|c| c.status == status).map(|c| c.last_transition_time.clone());
    Condition {
        type_: "DisruptionAllowed".into(),
        status: status.into(),
        reason: reason.into(),
        message: String::new(),
        last_transition_time: since.unwrap_or(Time(view.now)),
        observed_generation: view.budget.metadata.generation,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn run(spec: Value, pods: &[(&str, bool)], scale: Option<i32>, disrupted: Value) -> PodDisruptionBudgetStatus {
        let mut full = json!({"selector": {"matchLabels": {"a": "b"}}});
        full.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        let budget = json!({"metadata": {"name": "p", "namespace": "n"}, "spec": full,
            "status": {"disruptedPods": disrupted}});
        let budget: PodDisruptionBudget = serde_json::from_value(budget).unwrap();
        let pod = |(name, ready): &(&str, bool)| {
            let ready = if *ready { "True" } else { "False" };
            let pod = json!({"metadata": {"name": name, "labels": {"a": "b"}},
                "status": {"conditions": [{"type": "Ready", "status": ready}]}});
            Arc::new(serde_json::from_value(pod).unwrap())
        };
        let pods: Vec<Arc<Pod>> = pods.iter().map(pod).collect();
        let now = "2026-01-01T00:01:00Z".parse().unwrap();
        decide(&View { budget: &budget, pods: &pods, scale, now }).status
    }

    #[test]
    fn a_budget_allows_what_is_healthy_beyond_what_has_to_stay() {
        let three = [("x", true), ("y", true), ("z", false)];
        for (spec, scale, expected) in [
            (json!({"minAvailable": 1}), None, (3, 1, 1)),
            (json!({"minAvailable": 3}), None, (3, 3, 0)),
            (json!({"minAvailable": "50%"}), Some(3), (3, 2, 0)),
            (json!({"minAvailable": "50%"}), None, (0, 0, 0)),
            (json!({"maxUnavailable": 2}), Some(3), (3, 1, 1)),
            (json!({"maxUnavailable": "34%"}), Some(3), (3, 1, 1)),
            (json!({"maxUnavailable": 1}), Some(5), (5, 4, 0)),
        ] {
            let status = run(spec.clone(), &three, scale, json!({}));
            let got =
                (status.expected_pods.unwrap(), status.desired_healthy.unwrap(), status.disruptions_allowed.unwrap());
            assert_eq!(got, expected, "{spec} {scale:?}");
        }
    }

    #[test]
    fn a_granted_eviction_counts_until_the_pod_goes_or_two_minutes_have_passed() {
        let pods = [("x", true), ("y", true)];
        let fresh = run(json!({"minAvailable": 1}), &pods, None, json!({"x": "2026-01-01T00:00:00Z"}));
        assert_eq!((fresh.current_healthy, fresh.disruptions_allowed), (Some(1), Some(0)));
        let stale = run(json!({"minAvailable": 1}), &pods, None, json!({"x": "2025-12-31T23:59:00Z"}));
        assert_eq!((stale.disrupted_pods, stale.disruptions_allowed), (None, Some(1)));
    }
}
