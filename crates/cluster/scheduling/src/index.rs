//! What makes affinity and spreading fast: for every selector in use, how many matching pods each node has.
//!
//! Kept by the snapshot with every pod that comes and goes. Invariants: a count is always what a scan over all pods
//! would give; when nodes come, go or change labels everything is forgotten and counted anew when it is next asked for.

use crate::labels::{self, Labels};
use crate::snapshot::NodeInfo;
use k8s_openapi::api::core::v1::{Pod, PodAffinityTerm};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

pub(crate) type Namespaces = BTreeMap<String, Labels>;

/// More selectors than this are not remembered: the least recently asked for goes.
const REMEMBERED: usize = 256;
/// A node that has no value for a topology key.
const NOWHERE: u32 = u32::MAX;

/// Which pods a term means.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub(crate) struct Scope {
    namespaces: Vec<String>,
    namespace_selector: Option<LabelSelector>,
    selector: Option<LabelSelector>,
}

impl Scope {
    pub(crate) fn of_namespace(namespace: &str, selector: Option<LabelSelector>) -> Self {
        Scope { namespaces: vec![namespace.to_owned()], namespace_selector: None, selector }
    }

    /// What `term` means, standing in `pod`.
    pub(crate) fn of_term(term: &PodAffinityTerm, pod: &Pod) -> Self {
        let mut namespaces = term.namespaces.clone().unwrap_or_default();
        if namespaces.is_empty() && term.namespace_selector.is_none() {
            namespaces.push(pod.metadata.namespace.clone().unwrap_or_default());
        }
        let keys = term.match_label_keys.as_deref().unwrap_or_default();
        let mut selector = with_keys(term.label_selector.clone(), keys, "In", pod);
        let keys = term.mismatch_label_keys.as_deref().unwrap_or_default();
        selector = with_keys(selector, keys, "NotIn", pod);
        Scope { namespaces, namespace_selector: term.namespace_selector.clone(), selector }
    }

    pub(crate) fn matches(&self, pod: &Pod, namespaces: &Namespaces) -> bool {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let inside = self.namespaces.iter().any(|n| n == namespace)
            || self.namespace_selector.as_ref().is_some_and(|s| labels::matches(Some(s), namespaces.get(namespace)));
        inside && labels::matches(self.selector.as_ref(), pod.metadata.labels.as_ref())
    }
}

/// Adds what the pod's own labels say for these keys.
pub(crate) fn with_keys(
    selector: Option<LabelSelector>,
    keys: &[String],
    operator: &str,
    pod: &Pod,
) -> Option<LabelSelector> {
    let mut selector = selector?;
    for key in keys {
        let Some(value) = pod.metadata.labels.as_ref().and_then(|l| l.get(key)) else { continue };
        let requirement = k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelectorRequirement {
            key: key.clone(),
            operator: operator.to_owned(),
            values: Some(vec![value.clone()]),
        };
        let expressions = selector.match_expressions.get_or_insert_default();
        if !expressions.contains(&requirement) {
            expressions.push(requirement);
        }
    }
    Some(selector)
}

/// Numbers by the value that nodes have for a topology key.
pub(crate) struct Domains {
    of_node: Arc<Vec<u32>>,
    pub(crate) counts: Vec<i64>,
}

impl Domains {
    /// None: the node has no such label.
    pub(crate) fn at(&self, node: usize) -> Option<i64> {
        self.domain(node).map(|d| self.counts[d])
    }

    pub(crate) fn domain(&self, node: usize) -> Option<usize> {
        let domain = *self.of_node.get(node)?;
        (domain != NOWHERE).then_some(domain as usize)
    }
}

#[derive(Clone)]
struct Topology {
    of_node: Arc<Vec<u32>>,
    size: usize,
}

struct Counted {
    scopes: Vec<Scope>,
    counts: Vec<u32>,
    asked: u64,
}

/// A term that running pods carry, with the sum of its weights on each node.
pub(crate) struct Carried {
    /// Whether it forbids, or only adds to the score.
    pub(crate) forbids: bool,
    pub(crate) topology_key: String,
    scope: Scope,
    sums: Vec<i64>,
    pods: usize,
}

#[derive(Default)]
pub(crate) struct Index {
    topologies: HashMap<String, Topology>,
    counted: HashMap<String, Counted>,
    carried: HashMap<String, Carried>,
    owners: HashMap<String, HashMap<usize, u32>>,
    clock: u64,
}

/// The pod joins a node or leaves it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Move {
    Join,
    Leave,
}

impl Index {
    /// Nodes changed: what is remembered by node is worth nothing any more.
    pub(crate) fn rebuild(&mut self, nodes: &[NodeInfo], namespaces: &Namespaces) {
        *self = Index { clock: self.clock, ..Index::default() };
        for (at, info) in nodes.iter().enumerate() {
            for pod in &info.pods {
                self.moved(pod, at, nodes.len(), namespaces, Move::Join);
            }
        }
    }

    pub(crate) fn moved(&mut self, pod: &Pod, at: usize, nodes: usize, namespaces: &Namespaces, step: Move) {
        for counted in self.counted.values_mut() {
            if counted.scopes.iter().all(|s| s.matches(pod, namespaces)) && pod.metadata.deletion_timestamp.is_none() {
                let count = &mut counted.counts[at];
                *count = if step == Move::Join { *count + 1 } else { count.saturating_sub(1) };
            }
        }
        if let Some(owner) = owner(pod) {
            let on_nodes = self.owners.entry(owner.to_owned()).or_default();
            let count = on_nodes.entry(at).or_default();
            *count = if step == Move::Join { *count + 1 } else { count.saturating_sub(1) };
            if *count == 0 {
                on_nodes.remove(&at);
            }
            if on_nodes.is_empty() {
                self.owners.remove(owner);
            }
        }
        self.carry(pod, at, nodes, step);
    }

    fn carry(&mut self, pod: &Pod, at: usize, nodes: usize, step: Move) {
        for (forbids, weight, term) in carried_terms(pod) {
            let scope = Scope::of_term(term, pod);
            // A scope is plain data: it can always be written.
            let key = format!("{forbids} {} {}", term.topology_key, serde_json::to_string(&scope).unwrap_or_default());
            let carried = self.carried.entry(key.clone()).or_insert_with(|| Carried {
                forbids,
                topology_key: term.topology_key.clone(),
                scope,
                sums: vec![0; nodes],
                pods: 0,
            });
            if step == Move::Join {
                carried.sums[at] += weight;
                carried.pods += 1;
            } else {
                carried.sums[at] -= weight;
                carried.pods = carried.pods.saturating_sub(1);
                if carried.pods == 0 {
                    self.carried.remove(&key);
                }
            }
        }
    }

    /// The terms of running pods that mean this pod, as sums by domain.
    pub(crate) fn about(
        &mut self,
        pod: &Pod,
        nodes: &[NodeInfo],
        namespaces: &Namespaces,
        forbids: bool,
    ) -> Vec<Domains> {
        let hits: Vec<&Carried> =
            self.carried.values().filter(|c| c.forbids == forbids && c.scope.matches(pod, namespaces)).collect();
        let sums: Vec<(String, Vec<i64>)> = hits.iter().map(|c| (c.topology_key.clone(), c.sums.clone())).collect();
        sums.into_iter().map(|(key, sums)| self.fold(&key, nodes, |at| sums[at])).collect()
    }

    pub(crate) fn siblings(&self, pod: &Pod) -> Option<&HashMap<usize, u32>> {
        self.owners.get(owner(pod)?)
    }

    /// Pods that all scopes mean, by domain of the key, on the nodes that count.
    pub(crate) fn count(
        &mut self,
        scopes: &[Scope],
        key: &str,
        nodes: &[NodeInfo],
        namespaces: &Namespaces,
        counts_here: impl Fn(usize) -> bool,
    ) -> Domains {
        let name = serde_json::to_string(scopes).unwrap_or_default();
        self.clock += 1;
        if !self.counted.contains_key(&name) {
            self.forget_oldest();
            let matches = |pod: &&Arc<Pod>| {
                pod.metadata.deletion_timestamp.is_none() && scopes.iter().all(|s| s.matches(pod, namespaces))
            };
            let on_node = |info: &NodeInfo| u32::try_from(info.pods.iter().filter(matches).count()).unwrap_or(u32::MAX);
            let counts = nodes.iter().map(on_node).collect();
            self.counted.insert(name.clone(), Counted { scopes: scopes.to_vec(), counts, asked: 0 });
        }
        let clock = self.clock;
        let counts = match self.counted.get_mut(&name) {
            Some(counted) => {
                counted.asked = clock;
                std::mem::take(&mut counted.counts)
            }
            None => Vec::new(),
        };
        let domains = self.fold(key, nodes, |at| if counts_here(at) { i64::from(counts[at]) } else { 0 });
        if let Some(counted) = self.counted.get_mut(&name) {
            counted.counts = counts;
        }
        domains
    }

    fn forget_oldest(&mut self) {
        if self.counted.len() >= REMEMBERED
            && let Some(oldest) = self.counted.iter().min_by_key(|(_, c)| c.asked).map(|(name, _)| name.clone())
        {
            self.counted.remove(&oldest);
        }
    }

    fn fold(&mut self, key: &str, nodes: &[NodeInfo], amount: impl Fn(usize) -> i64) -> Domains {
        let topology = self.topology(key, nodes);
        let mut counts = vec![0; topology.size];
        for (at, domain) in topology.of_node.iter().enumerate() {
            if *domain != NOWHERE {
                counts[*domain as usize] += amount(at);
            }
        }
        Domains { of_node: topology.of_node, counts }
    }

    fn topology(&mut self, key: &str, nodes: &[NodeInfo]) -> Topology {
        if let Some(known) = self.topologies.get(key) {
            return known.clone();
        }
        let mut values: HashMap<&str, u32> = HashMap::new();
        let of_node = nodes.iter().map(|info| match info.label(key) {
            None => NOWHERE,
            Some(value) => {
                let next = u32::try_from(values.len()).unwrap_or(NOWHERE);
                *values.entry(value).or_insert(next)
            }
        });
        let of_node = Arc::new(of_node.collect());
        let topology = Topology { of_node, size: values.len() };
        self.topologies.insert(key.to_owned(), topology.clone());
        topology
    }
}

fn owner(pod: &Pod) -> Option<&str> {
    let owners = pod.metadata.owner_references.as_ref()?;
    owners.iter().find(|o| o.controller == Some(true)).map(|o| o.uid.as_str())
}

/// What a running pod has to say about others: forbidding terms, and weights (a required nearness counts one).
fn carried_terms(pod: &Pod) -> Vec<(bool, i64, &PodAffinityTerm)> {
    let Some(affinity) = pod.spec.as_ref().and_then(|s| s.affinity.as_ref()) else { return Vec::new() };
    let mut terms = Vec::new();
    if let Some(far) = &affinity.pod_anti_affinity {
        let required = far.required_during_scheduling_ignored_during_execution.iter().flatten();
        terms.extend(required.map(|t| (true, 1, t)));
        let preferred = far.preferred_during_scheduling_ignored_during_execution.iter().flatten();
        terms.extend(preferred.map(|t| (false, -i64::from(t.weight), &t.pod_affinity_term)));
    }
    if let Some(near) = &affinity.pod_affinity {
        let required = near.required_during_scheduling_ignored_during_execution.iter().flatten();
        terms.extend(required.map(|t| (false, 1, t)));
        let preferred = near.preferred_during_scheduling_ignored_during_execution.iter().flatten();
        terms.extend(preferred.map(|t| (false, i64::from(t.weight), &t.pod_affinity_term)));
    }
    terms
}
