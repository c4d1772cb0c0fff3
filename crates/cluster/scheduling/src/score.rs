//! Which of the possible nodes is best: each point of view gives 0 to 100, weighted as Kubernetes does by default.
//!
//! Invariant: scores depend on the snapshot only; ties are broken by the caller's seed.

use crate::filter::{Wanted, tolerates};
use crate::labels;
use crate::resources;
use crate::snapshot::{NodeInfo, Snapshot};
use k8s_openapi::api::core::v1::{Pod, PreferredSchedulingTerm};

/// Images below the first size do not matter, above the second (a container) they cannot matter more.
const SMALL_IMAGE: i64 = 23 << 20;
const LARGE_IMAGE: i64 = 1000 << 20;
const MOST: i64 = 100;

/// The score of each of the nodes, in their order.
pub(crate) fn scores(wanted: &Wanted<'_>, snapshot: &Snapshot, nodes: &[usize]) -> Vec<i64> {
    let pod = wanted.pod;
    let (cpu, memory) = resources::pod_weight(&wanted.requests);
    let mut scores: Vec<i64> = nodes.iter().map(|at| room(&snapshot.nodes[*at], cpu, memory)).collect();
    let mut add = |weight: i64, part: Vec<i64>| {
        scores.iter_mut().zip(part).for_each(|(score, part)| *score += weight * part);
    };
    let info = |at: &usize| &snapshot.nodes[*at];
    let minded: Vec<i64> = nodes.iter().map(|at| minded_taints(pod, info(at))).collect();
    if minded.iter().any(|m| *m > 0) {
        add(3, most_is(minded, true));
    }
    let wishes = node_wishes(pod);
    if !wishes.is_empty() {
        add(2, most_is(nodes.iter().map(|at| wished(wishes, info(at))).collect(), false));
    }
    if wanted.affinity.has_wishes() {
        add(2, between(nodes.iter().map(|at| wanted.affinity.wish(*at)).collect()));
    }
    if wanted.spread.has_wishes() {
        add(2, uncrowded(nodes.iter().map(|at| wanted.spread.crowd(*at)).collect()));
    } else if let Some(siblings) = snapshot.index.siblings(pod) {
        let count = |at: &usize| MOST / (1 + i64::from(siblings.get(at).copied().unwrap_or(0)));
        add(2, nodes.iter().map(count).collect());
    }
    if !snapshot.images.is_empty() {
        add(1, nodes.iter().map(|at| images(pod, info(at), snapshot)).collect());
    }
    scores
}

/// The less is used, and the more evenly, the better.
fn room(info: &NodeInfo, cpu: i64, memory: i64) -> i64 {
    let share = |used: i64, all: i64| if all <= 0 { 1.0 } else { (used as f64 / all as f64).min(1.0) };
    let cpu = share(info.weight.0.saturating_add(cpu), info.allocatable.cpu);
    let memory = share(info.weight.1.saturating_add(memory), info.allocatable.memory);
    let least_used = ((1.0 - cpu) + (1.0 - memory)) * 50.0;
    let balanced = (1.0 - (cpu - memory).abs() / 2.0) * 100.0;
    least_used as i64 + balanced as i64
}

/// Scaled so that the greatest is 100, or, turned round, 0.
fn most_is(values: Vec<i64>, turned: bool) -> Vec<i64> {
    let most = values.iter().copied().max().unwrap_or(0);
    let scale = |v: i64| if most == 0 { 0 } else { v * MOST / most };
    values.into_iter().map(|v| if turned { MOST - scale(v) } else { scale(v) }).collect()
}

/// Scaled so that the least is 0 and the greatest 100.
fn between(values: Vec<i64>) -> Vec<i64> {
    let (least, most) = (values.iter().copied().min().unwrap_or(0), values.iter().copied().max().unwrap_or(0));
    values.into_iter().map(|v| if most == least { 0 } else { (v - least) * MOST / (most - least) }).collect()
}

fn uncrowded(values: Vec<Option<f64>>) -> Vec<i64> {
    let known = || values.iter().flatten().copied();
    let (least, most) = (known().fold(f64::INFINITY, f64::min), known().fold(0.0, f64::max));
    let score = |v: f64| if most == 0.0 { MOST } else { (MOST as f64 * (most + least - v) / most) as i64 };
    values.iter().map(|v| v.map_or(0, score)).collect()
}

/// Taints that only ask to stay away.
fn minded_taints(pod: &Pod, info: &NodeInfo) -> i64 {
    let taints = info.node.spec.as_ref().and_then(|s| s.taints.as_deref()).unwrap_or_default();
    let tolerations = pod.spec.as_ref().and_then(|s| s.tolerations.as_deref()).unwrap_or_default();
    let soft = taints.iter().filter(|t| t.effect == "PreferNoSchedule");
    soft.filter(|t| !tolerations.iter().any(|o| tolerates(o, t))).count() as i64
}

fn node_wishes(pod: &Pod) -> &[PreferredSchedulingTerm] {
    let affinity = pod.spec.as_ref().and_then(|s| s.affinity.as_ref()).and_then(|a| a.node_affinity.as_ref());
    affinity.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_deref()).unwrap_or_default()
}

fn wished(wishes: &[PreferredSchedulingTerm], info: &NodeInfo) -> i64 {
    wishes.iter().filter(|w| labels::node_matches(&w.preference, &info.node)).map(|w| i64::from(w.weight)).sum()
}

/// Images that are there already need not be pulled; one that is nearly everywhere attracts more than a rare one, so
/// that pods do not pile up on the one node that has it.
fn images(pod: &Pod, info: &NodeInfo, snapshot: &Snapshot) -> i64 {
    let containers = pod.spec.as_ref().map(|s| s.containers.as_slice()).unwrap_or_default();
    let value = |image: &str| {
        let name = normalised(image);
        let size = info.images.get(&*name).copied().unwrap_or(0);
        let spread = snapshot.images.get(&*name).copied().unwrap_or(0) as i64;
        size * spread / snapshot.nodes.len().max(1) as i64
    };
    let sum: i64 = containers.iter().filter_map(|c| c.image.as_deref()).map(value).sum();
    let most = LARGE_IMAGE * containers.len().max(1) as i64;
    MOST * (sum.clamp(SMALL_IMAGE, most) - SMALL_IMAGE) / (most - SMALL_IMAGE)
}

/// A name without a tag means the latest.
fn normalised(image: &str) -> std::borrow::Cow<'_, str> {
    let last = image.rsplit('/').next().unwrap_or(image);
    if last.contains(':') { image.into() } else { format!("{image}:latest").into() }
}
