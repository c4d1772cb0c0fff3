//! Pod affinity and anti-affinity: the required rules of the pod, and those of the pods that run already.
//!
//! Invariant: the first pod of a group that wants to be near itself can be placed anywhere.

use crate::labels::{self, Labels};
use crate::snapshot::{NodeInfo, Snapshot};
use k8s_openapi::api::core::v1::{Pod, PodAffinityTerm};
use std::collections::{BTreeMap, HashSet};

/// A place: a topology key and the value that a node has for it.
type Domain = (String, String);

pub(crate) struct Affinity<'a> {
    near: &'a [PodAffinityTerm],
    /// For each term of `near`, the domains that have a matching pod.
    near_domains: Vec<HashSet<Domain>>,
    /// No pod matches any term, and the pod itself matches all: it is the first of its group.
    first_of_group: bool,
    far_keys: Vec<String>,
    far_domains: HashSet<Domain>,
    /// Where running pods do not want this one.
    unwelcome: HashSet<Domain>,
    unwelcome_keys: HashSet<String>,
}

fn terms(pod: &Pod, anti: bool) -> &[PodAffinityTerm] {
    let Some(affinity) = pod.spec.as_ref().and_then(|s| s.affinity.as_ref()) else {
        return &[];
    };
    let required = if anti {
        affinity.pod_anti_affinity.as_ref().and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref())
    } else {
        affinity.pod_affinity.as_ref().and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref())
    };
    required.map(Vec::as_slice).unwrap_or_default()
}

/// Whether `term`, standing in a pod of namespace `home`, means `other`.
fn term_matches(
    term: &PodAffinityTerm,
    home: Option<&str>,
    other: &Pod,
    namespaces: &BTreeMap<String, Labels>,
) -> bool {
    let namespace = other.metadata.namespace.as_deref().unwrap_or_default();
    let listed = term.namespaces.as_deref().unwrap_or_default();
    let in_scope = match &term.namespace_selector {
        None if listed.is_empty() => home == other.metadata.namespace.as_deref(),
        None => listed.iter().any(|n| n == namespace),
        Some(selector) => {
            listed.iter().any(|n| n == namespace) || labels::matches(Some(selector), namespaces.get(namespace))
        }
    };
    in_scope && labels::matches(term.label_selector.as_ref(), other.metadata.labels.as_ref())
}

fn domain(info: &NodeInfo, key: &str) -> Option<Domain> {
    info.label(key).map(|value| (key.to_owned(), value.to_owned()))
}

impl<'a> Affinity<'a> {
    pub(crate) fn new(pod: &'a Pod, snapshot: &Snapshot) -> Self {
        let (near, far) = (terms(pod, false), terms(pod, true));
        let home = pod.metadata.namespace.as_deref();
        let matches = |term: &PodAffinityTerm, other: &Pod| term_matches(term, home, other, &snapshot.namespaces);
        let mut near_domains = vec![HashSet::new(); near.len()];
        let (mut far_domains, mut unwelcome, mut unwelcome_keys) = (HashSet::new(), HashSet::new(), HashSet::new());
        for info in &snapshot.nodes {
            for other in &info.pods {
                for (term, domains) in near.iter().zip(&mut near_domains) {
                    if matches(term, other) {
                        domains.extend(domain(info, &term.topology_key));
                    }
                }
                for term in far.iter().filter(|t| matches(t, other)) {
                    far_domains.extend(domain(info, &term.topology_key));
                }
                let their_home = other.metadata.namespace.as_deref();
                for term in terms(other, true) {
                    if term_matches(term, their_home, pod, &snapshot.namespaces) {
                        unwelcome.extend(domain(info, &term.topology_key));
                        unwelcome_keys.insert(term.topology_key.clone());
                    }
                }
            }
        }
        let alone = near_domains.iter().all(HashSet::is_empty);
        let first_of_group = alone && near.iter().all(|term| matches(term, pod));
        let far_keys = far.iter().map(|t| t.topology_key.clone()).collect();
        Affinity { near, near_domains, first_of_group, far_keys, far_domains, unwelcome, unwelcome_keys }
    }

    pub(crate) fn obstacle(&self, info: &NodeInfo) -> Option<&'static str> {
        let near = self.near.iter().zip(&self.near_domains).all(|(term, domains)| {
            domain(info, &term.topology_key).is_some_and(|d| self.first_of_group || domains.contains(&d))
        });
        if !near {
            return Some("node(s) didn't match pod affinity rules");
        }
        let inside = |key: &String, domains: &HashSet<Domain>| domain(info, key).is_some_and(|d| domains.contains(&d));
        if self.far_keys.iter().any(|key| inside(key, &self.far_domains)) {
            return Some("node(s) didn't match pod anti-affinity rules");
        }
        if self.unwelcome_keys.iter().any(|key| inside(key, &self.unwelcome)) {
            return Some("node(s) didn't satisfy existing pods anti-affinity rules");
        }
        None
    }
}
