//! Topology spread: constraints that must hold, and those that are only wished for.
//!
//! Invariant: only nodes that have all the keys, and that the policies count, are domains.

use crate::fit;
use crate::index::{self, Domains, Scope};
use crate::labels;
use crate::snapshot::Snapshot;
use k8s_openapi::api::core::v1::{Pod, PodSpec, TopologySpreadConstraint};
use std::collections::HashSet;

pub(crate) struct Spread {
    hard: Vec<Constraint>,
    soft: Vec<Constraint>,
}

struct Constraint {
    max_skew: i64,
    /// The pod itself counts when it matches.
    own: i64,
    domains: Domains,
    /// Domains with a node that counts.
    eligible: HashSet<usize>,
    least: i64,
}

impl Spread {
    pub(crate) fn new(pod: &Pod, snapshot: &mut Snapshot) -> Self {
        let empty = PodSpec::default();
        let spec = pod.spec.as_ref().unwrap_or(&empty);
        let all = spec.topology_spread_constraints.as_deref().unwrap_or_default();
        let mut of = |hard: bool| -> Vec<Constraint> {
            let rules: Vec<&TopologySpreadConstraint> =
                all.iter().filter(|r| (r.when_unsatisfiable == "DoNotSchedule") == hard).collect();
            rules.iter().map(|rule| constraint(pod, spec, rule, &rules, snapshot)).collect()
        };
        Spread { hard: of(true), soft: of(false) }
    }

    pub(crate) fn obstacle(&self, node: usize) -> Option<(&'static str, bool)> {
        for constraint in &self.hard {
            let Some(here) = constraint.domains.at(node) else {
                let why = "node(s) didn't match pod topology spread constraints (missing required label)";
                return Some((why, false));
            };
            if here + constraint.own - constraint.least > constraint.max_skew {
                return Some(("node(s) didn't match pod topology spread constraints", true));
            }
        }
        None
    }

    pub(crate) fn has_wishes(&self) -> bool {
        !self.soft.is_empty()
    }

    /// How crowded the node's domains are; None: it has none, which is worst.
    pub(crate) fn crowd(&self, node: usize) -> Option<f64> {
        let mut sum = 0.0;
        for constraint in &self.soft {
            let here = constraint.domains.at(node)? as f64;
            let weight = ((constraint.eligible.len() + 2) as f64).ln();
            sum += here * weight + (constraint.max_skew - 1) as f64;
        }
        Some(sum)
    }
}

fn constraint(
    pod: &Pod,
    spec: &PodSpec,
    rule: &TopologySpreadConstraint,
    together: &[&TopologySpreadConstraint],
    snapshot: &mut Snapshot,
) -> Constraint {
    let keys = rule.match_label_keys.as_deref().unwrap_or_default();
    let selector = index::with_keys(rule.label_selector.clone(), keys, "In", pod);
    let own = i64::from(labels::matches(selector.as_ref(), pod.metadata.labels.as_ref()));
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let scopes = [Scope::of_namespace(namespace, selector)];
    let Snapshot { nodes, namespaces, index, .. } = snapshot;
    let honours = |policy: &Option<String>, default: &str| policy.as_deref().unwrap_or(default) == "Honor";
    let by_affinity = honours(&rule.node_affinity_policy, "Honor");
    let by_taints = honours(&rule.node_taints_policy, "Ignore");
    let counts_here = |at: usize| {
        let info = &nodes[at];
        together.iter().all(|r| info.label(&r.topology_key).is_some())
            && (!by_affinity || fit::selects(spec, &info.node))
            && (!by_taints || fit::untolerated(spec, &info.node, &["NoSchedule", "NoExecute"]).is_none())
    };
    let domains = index.count(&scopes, &rule.topology_key, nodes, namespaces, counts_here);
    let eligible: HashSet<usize> =
        (0..nodes.len()).filter(|at| counts_here(*at)).filter_map(|at| domains.domain(at)).collect();
    let mut least = eligible.iter().map(|d| domains.counts[*d]).min().unwrap_or(0);
    let min_domains = i64::from(rule.min_domains.unwrap_or(1));
    if (eligible.len() as i64) < min_domains {
        least = 0;
    }
    Constraint { max_skew: i64::from(rule.max_skew), own, domains, eligible, least }
}
