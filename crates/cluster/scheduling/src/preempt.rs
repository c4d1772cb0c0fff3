//! Preemption: which pods of lower priority have to go so that this one fits, and on which node that hurts least.
//!
//! Asked when a pod fits nowhere. Invariants: only pods of lower priority go, and none that could have stayed; a node
//! where a disruption budget would be broken is chosen only when every other is worse.

use crate::filter::{self, Wanted};
use crate::labels;
use crate::priority;
use crate::snapshot::Snapshot;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use std::collections::HashMap;
use std::sync::Arc;

/// Most nodes that are tried, as Kubernetes has it: a tenth, and not fewer than a hundred.
const FEW: usize = 100;

pub(crate) struct Found {
    pub(crate) node: String,
    pub(crate) victims: Vec<Arc<Pod>>,
}

/// What it would cost on one node.
struct Cost {
    at: usize,
    violations: usize,
    victims: Vec<Arc<Pod>>,
}

/// `helpful` are the nodes whose obstacle could pass. Err: on how many of them there is nobody to go.
pub(crate) fn preempt(pod: &Pod, snapshot: &mut Snapshot, helpful: &[usize]) -> Result<Found, usize> {
    let most = (snapshot.nodes.len() / 10).max(FEW);
    let mut costs: Vec<Cost> = Vec::new();
    for at in helpful {
        if costs.len() >= most {
            break;
        }
        costs.extend(cost(pod, snapshot, *at));
    }
    let best = costs.into_iter().min_by(|a, b| rank(a).cmp(&rank(b)).then_with(|| later(b).cmp(&later(a))));
    match best {
        Some(best) => Ok(Found { node: snapshot.nodes[best.at].name().to_owned(), victims: best.victims }),
        None => Err(helpful.len()),
    }
}

/// Fewest broken budgets, lowest of the highest priorities, least sum, fewest victims.
fn rank(cost: &Cost) -> (usize, i32, i64, usize) {
    let highest = cost.victims.iter().map(|p| priority(p)).max().unwrap_or(i32::MIN);
    let sum = cost.victims.iter().map(|p| i64::from(priority(p)) + i64::from(i32::MAX) + 1).sum();
    (cost.violations, highest, sum, cost.victims.len())
}

/// Then the node whose most important victim started last: it has done least work.
fn later(cost: &Cost) -> Option<Timestamp> {
    let highest = cost.victims.iter().map(|p| priority(p)).max()?;
    cost.victims.iter().filter(|p| priority(p) == highest).filter_map(|p| started(p)).min()
}

fn started(pod: &Pod) -> Option<Timestamp> {
    pod.status.as_ref().and_then(|s| s.start_time.as_ref()).map(|t| t.0)
}

fn fits(pod: &Pod, snapshot: &mut Snapshot, at: usize) -> bool {
    let Ok(wanted) = Wanted::new(pod, snapshot) else { return false };
    filter::obstacle(&wanted, at, &snapshot.nodes[at]).is_none()
}

/// Takes all lower pods away, then lets back whom there is room for, the most important first. The snapshot is as
/// before on return.
fn cost(pod: &Pod, snapshot: &mut Snapshot, at: usize) -> Option<Cost> {
    let mine = priority(pod);
    let lower: Vec<Arc<Pod>> = snapshot.nodes[at].pods.iter().filter(|p| priority(p) < mine).cloned().collect();
    if lower.is_empty() {
        return None;
    }
    for victim in &lower {
        snapshot.leave(at, &Snapshot::uid_of(victim));
    }
    let possible = fits(pod, snapshot, at);
    let (mut violating, mut others) = split_by_budget(&lower, snapshot);
    if !possible {
        lower.into_iter().for_each(|p| snapshot.join(at, p));
        return None;
    }
    let order = |a: &Arc<Pod>, b: &Arc<Pod>| priority(b).cmp(&priority(a)).then_with(|| started(a).cmp(&started(b)));
    violating.sort_by(order);
    others.sort_by(order);
    let reprieve = |list: Vec<Arc<Pod>>, snapshot: &mut Snapshot| -> Vec<Arc<Pod>> {
        let mut gone = Vec::new();
        for candidate in list {
            snapshot.join(at, candidate.clone());
            if !fits(pod, snapshot, at) {
                snapshot.leave(at, &Snapshot::uid_of(&candidate));
                gone.push(candidate);
            }
        }
        gone
    };
    let mut victims = reprieve(violating, snapshot);
    let violations = victims.len();
    victims.extend(reprieve(others, snapshot));
    for victim in &victims {
        snapshot.join(at, victim.clone());
    }
    victims.sort_by(order);
    (!victims.is_empty()).then_some(Cost { at, violations, victims })
}

/// Pods whose going would break a budget, each budget spent once; and the rest.
fn split_by_budget(pods: &[Arc<Pod>], snapshot: &Snapshot) -> (Vec<Arc<Pod>>, Vec<Arc<Pod>>) {
    let mut left: HashMap<usize, i32> = HashMap::new();
    let mut sorted = pods.to_vec();
    sorted.sort_by_key(|p| std::cmp::Reverse(priority(p)));
    sorted.into_iter().partition(|pod| {
        let mut violates = false;
        for (at, budget) in snapshot.budgets.iter().enumerate() {
            let selector = budget.spec.as_ref().and_then(|s| s.selector.as_ref());
            let same = budget.metadata.namespace == pod.metadata.namespace;
            if !same || pod.metadata.labels.is_none() || !labels::matches(selector, pod.metadata.labels.as_ref()) {
                continue;
            }
            let status = budget.status.as_ref();
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            if status.and_then(|s| s.disrupted_pods.as_ref()).is_some_and(|d| d.contains_key(name)) {
                continue;
            }
            let allowed = left.entry(at).or_insert_with(|| status.and_then(|s| s.disruptions_allowed).unwrap_or(0));
            *allowed -= 1;
            violates |= *allowed < 0;
        }
        violates
    })
}
