//! Topology spread constraints that must hold (`whenUnsatisfiable: DoNotSchedule`).
//!
//! Invariant: only nodes that the pod could use by its selectors count as domains, as Kubernetes' defaults say.

use crate::filter;
use crate::labels;
use crate::snapshot::{NodeInfo, Snapshot};
use k8s_openapi::api::core::v1::{Pod, TopologySpreadConstraint};
use std::collections::BTreeMap;

pub(crate) struct Spread<'a>(Vec<Constraint<'a>>);

struct Constraint<'a> {
    rule: &'a TopologySpreadConstraint,
    /// Matching pods in each domain.
    counts: BTreeMap<String, i32>,
    /// The pod itself counts when it matches.
    own: i32,
}

impl<'a> Spread<'a> {
    pub(crate) fn new(pod: &'a Pod, snapshot: &Snapshot) -> Self {
        let Some(spec) = pod.spec.as_ref() else {
            return Spread(Vec::new());
        };
        let rules = spec.topology_spread_constraints.iter().flatten();
        let hard = rules.filter(|rule| rule.when_unsatisfiable == "DoNotSchedule");
        let constraints = hard.map(|rule| {
            let mut counts = BTreeMap::new();
            for info in snapshot.nodes.iter().filter(|info| filter::selects(spec, info)) {
                let Some(value) = info.label(&rule.topology_key) else {
                    continue;
                };
                *counts.entry(value.to_owned()).or_insert(0) += matching(pod, rule, info);
            }
            let own = i32::from(labels::matches(rule.label_selector.as_ref(), pod.metadata.labels.as_ref()));
            Constraint { rule, counts, own }
        });
        Spread(constraints.collect())
    }

    pub(crate) fn obstacle(&self, info: &NodeInfo) -> Option<&'static str> {
        for constraint in &self.0 {
            let Some(value) = info.label(&constraint.rule.topology_key) else {
                return Some("node(s) didn't match pod topology spread constraints (missing required label)");
            };
            let here = constraint.counts.get(value).copied().unwrap_or(0);
            let few = constraint.rule.min_domains.is_some_and(|min| (constraint.counts.len() as i32) < min);
            let least = if few { 0 } else { constraint.counts.values().copied().min().unwrap_or(0) };
            if here + constraint.own - least > constraint.rule.max_skew {
                return Some("node(s) didn't match pod topology spread constraints");
            }
        }
        None
    }
}

fn matching(pod: &Pod, rule: &TopologySpreadConstraint, info: &NodeInfo) -> i32 {
    let counts = |other: &Pod| {
        other.metadata.namespace == pod.metadata.namespace
            && other.metadata.deletion_timestamp.is_none()
            && labels::matches(rule.label_selector.as_ref(), other.metadata.labels.as_ref())
    };
    info.pods.iter().filter(|p| counts(p)).count() as i32
}
