//! Filter and score: which node a pod goes to (pure).
//!
//! Called by the `scheduler` shell with one pod and a picture of the cluster. Invariants: no clock, no randomness (ties
//! are broken by the seed that comes in), no I/O; a pod is never placed where a filter forbids it; messages are in
//! Kubernetes' words. It does not preempt yet.

mod affinity;
mod filter;
mod labels;
pub mod resources;
mod score;
mod snapshot;
mod spread;

pub use labels::Labels;
pub use snapshot::{NodeInfo, Snapshot};

use affinity::Affinity;
use filter::Wanted;
use k8s_openapi::api::core::v1::Pod;
use spread::Spread;
use std::collections::BTreeMap;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placement {
    Node(String),
    /// The message of the PodScheduled condition and the FailedScheduling event.
    Nowhere(String),
}

/// The best node for `pod`. Among equals, `seed` chooses.
pub fn place(pod: &Pod, snapshot: &Snapshot, seed: u64) -> Placement {
    if snapshot.nodes.is_empty() {
        return Placement::Nowhere("no nodes available to schedule pods".into());
    }
    let wanted = Wanted {
        pod,
        requests: resources::pod_requests(pod),
        affinity: Affinity::new(pod, snapshot),
        spread: Spread::new(pod, snapshot),
    };
    let mut obstacles: BTreeMap<String, usize> = BTreeMap::new();
    let mut best: Vec<&NodeInfo> = Vec::new();
    let mut best_score = i64::MIN;
    for info in &snapshot.nodes {
        let reasons = filter::reasons(&wanted, info);
        if !reasons.is_empty() {
            for reason in reasons {
                *obstacles.entry(reason).or_default() += 1;
            }
            continue;
        }
        let score = score::score(pod, info);
        if score > best_score {
            best_score = score;
            best.clear();
        }
        if score == best_score {
            best.push(info);
        }
    }
    if best.is_empty() {
        return Placement::Nowhere(explain(snapshot.nodes.len(), &obstacles));
    }
    let chosen = usize::try_from(seed % best.len() as u64).unwrap_or(0);
    Placement::Node(best[chosen].name().to_owned())
}

fn explain(nodes: usize, obstacles: &BTreeMap<String, usize>) -> String {
    let mut parts: Vec<String> = obstacles.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    parts.sort();
    format!("0/{nodes} nodes are available: {}.", parts.join(", "))
}

/// Pods that go first: higher priority, then older, then by name.
pub fn queue_order(a: &Pod, b: &Pod) -> std::cmp::Ordering {
    let priority = |pod: &Pod| pod.spec.as_ref().and_then(|s| s.priority).unwrap_or(0);
    let age = |pod: &Pod| pod.metadata.creation_timestamp.as_ref().map(|t| t.0);
    let name = |pod: &Pod| (pod.metadata.namespace.clone(), pod.metadata.name.clone());
    priority(b).cmp(&priority(a)).then_with(|| age(a).cmp(&age(b))).then_with(|| name(a).cmp(&name(b)))
}

#[cfg(test)]
mod tests;
