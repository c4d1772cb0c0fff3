//! Filter, score, preempt: which node a pod goes to (pure).
//!
//! Called by the `scheduler` shell with one pod and a picture of the cluster. Invariants: no clock, no randomness (ties
//! are broken by the seed that comes in), no I/O; a pod is never placed where a filter forbids it; messages are in
//! Kubernetes' words.

mod affinity;
pub mod causes;
mod filter;
pub mod fit;
mod index;
mod labels;
mod preempt;
pub mod resources;
mod score;
mod snapshot;
mod spread;
mod volumes;

pub use labels::Labels;
pub use snapshot::{NodeInfo, Snapshot};
pub use volumes::Volumes;

use filter::{Reason, Wanted};
use k8s_openapi::api::core::v1::Pod;
use std::collections::BTreeMap;
use std::sync::Arc;

/// In a large cluster not every node that would do is looked for: at least these, and a share that falls with size.
const FEW_NODES: usize = 100;
const LEAST_PERCENT: usize = 5;

#[derive(Clone, Debug, PartialEq)]
pub enum Placement {
    Node(String),
    /// Nowhere yet, but on this node once these pods have gone.
    Preempt {
        node: String,
        victims: Vec<Arc<Pod>>,
        message: String,
    },
    /// The message of the PodScheduled condition and the FailedScheduling event.
    Nowhere(String),
}

/// The best node for `pod`. Among equals, `seed` chooses.
pub fn place(pod: &Pod, snapshot: &mut Snapshot, seed: u64) -> Placement {
    let all = snapshot.nodes.len();
    if all == 0 {
        return Placement::Nowhere("no nodes available to schedule pods".into());
    }
    let wanted = match Wanted::new(pod, snapshot) {
        Ok(wanted) => wanted,
        Err(why) => {
            let help = format!("{all} Preemption is not helpful for scheduling");
            return Placement::Nowhere(format!(
                "0/{all} nodes are available: {why}. preemption: 0/{all} nodes are available: {help}."
            ));
        }
    };
    let search = search(&wanted, snapshot);
    if !search.feasible.is_empty() {
        let scores = score::scores(&wanted, snapshot, &search.feasible);
        let best = scores.iter().copied().max().unwrap_or(0);
        let equal: Vec<usize> =
            search.feasible.iter().zip(&scores).filter(|(_, s)| **s == best).map(|(at, _)| *at).collect();
        let chosen = usize::try_from(seed % equal.len().max(1) as u64).unwrap_or(0);
        return Placement::Node(snapshot.nodes[equal[chosen]].name().to_owned());
    }
    let message = explain(all, &search.obstacles);
    drop(wanted);
    give_way(pod, snapshot, message, &search.helpful)
}

struct Search {
    feasible: Vec<usize>,
    obstacles: BTreeMap<Reason, usize>,
    /// Nodes where somebody's going could help.
    helpful: Vec<usize>,
}

fn search(wanted: &Wanted<'_>, snapshot: &mut Snapshot) -> Search {
    let all = snapshot.nodes.len();
    let mut search = Search { feasible: Vec::new(), obstacles: BTreeMap::new(), helpful: Vec::new() };
    // Room that was promised to this pod comes first; then a pod that names its node needs no search.
    let nominated = wanted.pod.status.as_ref().and_then(|s| s.nominated_node_name.as_deref());
    if let Some(at) = nominated.and_then(|name| snapshot.find(name))
        && filter::obstacle(wanted, at, &snapshot.nodes[at]).is_none()
    {
        search.feasible.push(at);
        return search;
    }
    let named = named_node(wanted.pod).map(|name| snapshot.find(name));
    let enough = enough(all);
    let start = snapshot.cursor % all;
    let mut looked_at = 0;
    for step in 0..all {
        if search.feasible.len() >= enough {
            break;
        }
        looked_at += 1;
        let at = (start + step) % all;
        if let Some(named) = named
            && named != Some(at)
        {
            *search.obstacles.entry("node(s) didn't match Pod's node affinity/selector".into()).or_default() += 1;
            continue;
        }
        match filter::obstacle(wanted, at, &snapshot.nodes[at]) {
            None => search.feasible.push(at),
            Some(obstacle) => {
                if obstacle.preemptible {
                    search.helpful.push(at);
                }
                for reason in obstacle.reasons {
                    *search.obstacles.entry(reason).or_default() += 1;
                }
            }
        }
    }
    if named.is_none() {
        snapshot.cursor = (start + looked_at) % all;
    }
    search
}

/// The one node that a daemon's pod is for.
fn named_node(pod: &Pod) -> Option<&str> {
    let affinity = pod.spec.as_ref()?.affinity.as_ref()?.node_affinity.as_ref()?;
    let required = affinity.required_during_scheduling_ignored_during_execution.as_ref()?;
    let [term] = required.node_selector_terms.as_slice() else { return None };
    let [field] = term.match_fields.as_deref()? else { return None };
    let [value] = field.values.as_deref()? else { return None };
    (field.key == "metadata.name" && field.operator == "In").then_some(value.as_str())
}

fn enough(nodes: usize) -> usize {
    if nodes <= FEW_NODES {
        return nodes;
    }
    let percent = 50usize.saturating_sub(nodes / 125).max(LEAST_PERCENT);
    (nodes * percent / 100).max(FEW_NODES)
}

fn give_way(pod: &Pod, snapshot: &mut Snapshot, message: String, helpful: &[usize]) -> Placement {
    let all = snapshot.nodes.len();
    if pod.spec.as_ref().and_then(|s| s.preemption_policy.as_deref()) == Some("Never") {
        return Placement::Nowhere(format!("{message} preemption: not eligible due to preemptionPolicy=Never."));
    }
    if waits_for_victims(pod, snapshot) {
        return Placement::Nowhere(format!(
            "{message} preemption: not eligible due to a terminating pod on the nominated node."
        ));
    }
    match preempt::preempt(pod, snapshot, helpful) {
        Ok(found) => Placement::Preempt { node: found.node, victims: found.victims, message },
        Err(nobody) => {
            let mut reasons: BTreeMap<Reason, usize> = BTreeMap::new();
            reasons.insert("No preemption victims found for incoming pod".into(), nobody);
            reasons.insert("Preemption is not helpful for scheduling".into(), all - nobody);
            reasons.retain(|_, count| *count > 0);
            Placement::Nowhere(format!("{message} preemption: {}", explain(all, &reasons)))
        }
    }
}

/// Room was made for this pod already, and those who make it have not left yet.
fn waits_for_victims(pod: &Pod, snapshot: &Snapshot) -> bool {
    let nominated = pod.status.as_ref().and_then(|s| s.nominated_node_name.as_deref());
    let Some(at) = nominated.and_then(|name| snapshot.find(name)) else { return false };
    let mine = priority(pod);
    snapshot.nodes[at].pods.iter().any(|p| p.metadata.deletion_timestamp.is_some() && priority(p) < mine)
}

fn explain(nodes: usize, obstacles: &BTreeMap<Reason, usize>) -> String {
    let mut parts: Vec<String> = obstacles.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    parts.sort();
    format!("0/{nodes} nodes are available: {}.", parts.join(", "))
}

pub fn priority(pod: &Pod) -> i32 {
    pod.spec.as_ref().and_then(|s| s.priority).unwrap_or(0)
}

/// Pods that go first: higher priority, then older, then by name.
pub fn queue_order(a: &Pod, b: &Pod) -> std::cmp::Ordering {
    let age = |pod: &Pod| pod.metadata.creation_timestamp.as_ref().map(|t| t.0);
    let name = |pod: &Pod| (pod.metadata.namespace.clone(), pod.metadata.name.clone());
    priority(b).cmp(&priority(a)).then_with(|| age(a).cmp(&age(b))).then_with(|| name(a).cmp(&name(b)))
}

#[cfg(test)]
mod tests;
