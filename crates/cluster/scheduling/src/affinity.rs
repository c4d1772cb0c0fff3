//! Pod affinity and anti-affinity: the rules of the pod, and those of the pods that run already.
//!
//! Invariant: the first pod of a group that wants to be near itself can be placed anywhere.

use crate::index::{Domains, Scope};
use crate::snapshot::Snapshot;
use k8s_openapi::api::core::v1::{Pod, PodAffinityTerm, WeightedPodAffinityTerm};

pub(crate) struct Affinity {
    near: Vec<Domains>,
    /// No pod matches the terms, and the pod itself does: it is the first of its group.
    first_of_group: bool,
    far: Vec<Domains>,
    /// Where running pods do not want this one.
    unwelcome: Vec<Domains>,
    /// What adds to a node's score.
    wishes: Vec<(i64, Domains)>,
}

fn required(pod: &Pod, anti: bool) -> &[PodAffinityTerm] {
    let Some(affinity) = pod.spec.as_ref().and_then(|s| s.affinity.as_ref()) else { return &[] };
    let terms = if anti {
        affinity.pod_anti_affinity.as_ref().and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref())
    } else {
        affinity.pod_affinity.as_ref().and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref())
    };
    terms.map(Vec::as_slice).unwrap_or_default()
}

fn preferred(pod: &Pod, anti: bool) -> &[WeightedPodAffinityTerm] {
    let Some(affinity) = pod.spec.as_ref().and_then(|s| s.affinity.as_ref()) else { return &[] };
    let terms = if anti {
        affinity
            .pod_anti_affinity
            .as_ref()
            .and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref())
    } else {
        affinity.pod_affinity.as_ref().and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref())
    };
    terms.map(Vec::as_slice).unwrap_or_default()
}

impl Affinity {
    pub(crate) fn new(pod: &Pod, snapshot: &mut Snapshot) -> Self {
        let Snapshot { nodes, namespaces, index, .. } = snapshot;
        let scopes: Vec<Scope> = required(pod, false).iter().map(|t| Scope::of_term(t, pod)).collect();
        let mut count = |scopes: &[Scope], key: &str| index.count(scopes, key, nodes, namespaces, |_| true);
        // A pod counts for nearness when all terms mean it.
        let near: Vec<Domains> = required(pod, false).iter().map(|t| count(&scopes, &t.topology_key)).collect();
        let alone = near.iter().all(|d| d.counts.iter().all(|c| *c == 0));
        let first_of_group = alone && scopes.iter().all(|s| s.matches(pod, namespaces));
        let far = required(pod, true).iter().map(|t| count(&[Scope::of_term(t, pod)], &t.topology_key)).collect();
        let mut wishes = Vec::new();
        for (anti, sign) in [(false, 1), (true, -1)] {
            for wish in preferred(pod, anti) {
                let term = &wish.pod_affinity_term;
                let domains = count(&[Scope::of_term(term, pod)], &term.topology_key);
                wishes.push((sign * i64::from(wish.weight), domains));
            }
        }
        let unwelcome = index.about(pod, nodes, namespaces, true);
        wishes.extend(index.about(pod, nodes, namespaces, false).into_iter().map(|d| (1, d)));
        Affinity { near, first_of_group, far, unwelcome, wishes }
    }

    /// Why the pod cannot go there, and whether fewer pods would help.
    pub(crate) fn obstacle(&self, node: usize) -> Option<(&'static str, bool)> {
        if self.near.iter().any(|d| !d.at(node).is_some_and(|count| self.first_of_group || count > 0)) {
            return Some(("node(s) didn't match pod affinity rules", false));
        }
        let inside = |all: &[Domains]| all.iter().any(|d| d.at(node).is_some_and(|count| count > 0));
        if inside(&self.far) {
            return Some(("node(s) didn't match pod anti-affinity rules", true));
        }
        if inside(&self.unwelcome) {
            return Some(("node(s) didn't satisfy existing pods anti-affinity rules", true));
        }
        None
    }

    pub(crate) fn has_wishes(&self) -> bool {
        !self.wishes.is_empty()
    }

    pub(crate) fn wish(&self, node: usize) -> i64 {
        self.wishes.iter().map(|(weight, domains)| weight * domains.at(node).unwrap_or(0)).sum()
    }
}
