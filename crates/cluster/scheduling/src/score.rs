//! Which of the possible nodes is best: each point of view gives 0 to 100, the sum decides.
//!
//! Invariant: scores depend on the snapshot only; ties are broken by the caller's seed.

use crate::filter::tolerates;
use crate::labels;
use crate::resources::{self, CPU, MEMORY};
use crate::snapshot::NodeInfo;
use k8s_openapi::api::core::v1::Pod;

/// Images below the first size do not matter, above the second they cannot matter more.
const SMALL_IMAGE: i64 = 23 << 20;
const LARGE_IMAGE: i64 = 1000 << 20;

pub(crate) fn score(pod: &Pod, info: &NodeInfo) -> i64 {
    let requests = resources::pod_requests(pod);
    let (cpu, memory) = resources::pod_weight(&requests);
    let used = (info.weight.0.saturating_add(cpu), info.weight.1.saturating_add(memory));
    let share = |used: i64, all: i64| {
        if all <= 0 { 1.0 } else { (used as f64 / all as f64).min(1.0) }
    };
    let (cpu, memory) = (share(used.0, info.allocatable.get(CPU)), share(used.1, info.allocatable.get(MEMORY)));
    let least_used = ((1.0 - cpu) + (1.0 - memory)) * 50.0;
    let balanced = (1.0 - (cpu - memory).abs() / 2.0) * 100.0;
    least_used as i64
        + balanced as i64
        + 2 * spread(pod, info)
        + 3 * taints(pod, info)
        + 2 * wished(pod, info)
        + images(pod, info)
}

/// Fewer pods of the same owner are better.
fn spread(pod: &Pod, info: &NodeInfo) -> i64 {
    let owner = |pod: &Pod| {
        pod.metadata.owner_references.as_ref()?.iter().find(|o| o.controller == Some(true)).map(|o| o.uid.clone())
    };
    let Some(mine) = owner(pod) else { return 0 };
    let siblings = info.pods.iter().filter(|other| owner(other).as_ref() == Some(&mine)).count();
    100 / (1 + siblings as i64)
}

/// Taints that only ask to stay away.
fn taints(pod: &Pod, info: &NodeInfo) -> i64 {
    let tolerations = pod.spec.as_ref().and_then(|s| s.tolerations.as_deref()).unwrap_or_default();
    let taints = info.node.spec.as_ref().and_then(|s| s.taints.as_deref()).unwrap_or_default();
    let soft = taints.iter().filter(|t| t.effect == "PreferNoSchedule");
    let minded = soft.filter(|t| !tolerations.iter().any(|o| tolerates(o, t))).count();
    100 / (1 + minded as i64)
}

/// The node affinity that is only preferred.
fn wished(pod: &Pod, info: &NodeInfo) -> i64 {
    let affinity = pod.spec.as_ref().and_then(|s| s.affinity.as_ref()).and_then(|a| a.node_affinity.as_ref());
    let wishes = affinity.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_deref());
    let wishes = wishes.unwrap_or_default();
    let all: i64 = wishes.iter().map(|w| i64::from(w.weight)).sum();
    if all <= 0 {
        return 0;
    }
    let met = wishes.iter().filter(|w| labels::node_matches(&w.preference, &info.node));
    100 * met.map(|w| i64::from(w.weight)).sum::<i64>() / all
}

/// Images that are there already need not be pulled.
fn images(pod: &Pod, info: &NodeInfo) -> i64 {
    let there = info.node.status.as_ref().and_then(|s| s.images.as_deref()).unwrap_or_default();
    let containers = pod.spec.as_ref().map(|s| s.containers.as_slice()).unwrap_or_default();
    let size = |image: &str| {
        let found = there.iter().find(|i| i.names.iter().flatten().any(|n| n == image));
        found.and_then(|i| i.size_bytes).unwrap_or(0)
    };
    let sum: i64 = containers.iter().filter_map(|c| c.image.as_deref()).map(size).sum();
    (sum - SMALL_IMAGE).clamp(0, LARGE_IMAGE) * 100 / LARGE_IMAGE
}
