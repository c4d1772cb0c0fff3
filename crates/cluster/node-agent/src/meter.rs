//! What the node and its containers use, measured when somebody asks.
//!
//! The gateway asks for `kubectl top` and autoscalers, the kubelet's API for its summary. Invariant: nothing is measured
//! when nobody asks, and never twice within ten seconds: a use of processors is the difference of two readings.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use cri::v1;
use jiff::Timestamp;
use kube_client::node::{NodeUsage, PodUsage, Usage};
use tokio::sync::Mutex;

use crate::{agent::Shared, error::Result, labels, readings};

/// An answer is good for this long.
const FRESH: Duration = Duration::from_secs(10);
/// A reading older than this says too little about now.
const STALE: Duration = Duration::from_secs(120);
/// The window when there is no earlier reading to compare with.
const SHORT_WINDOW: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(crate) struct Meter(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    before: Option<Reading>,
    answer: Option<(tokio::time::Instant, NodeUsage)>,
}

/// Counters at one moment.
#[derive(Debug, Clone)]
struct Reading {
    at: Timestamp,
    node_cpu_ns: u64,
    node_memory: u64,
    containers: Vec<One>,
}

#[derive(Debug, Clone)]
struct One {
    id: String,
    /// namespace, pod, container
    place: (String, String, String),
    cpu_ns: u64,
    memory: u64,
}

fn one(stats: v1::ContainerStats) -> Option<One> {
    let attributes = stats.attributes?;
    let label = |name: &str| attributes.labels.get(name).cloned();
    let place = (label(labels::POD_NAMESPACE)?, label(labels::POD_NAME)?, label(labels::CONTAINER_NAME)?);
    let memory = stats.memory.unwrap_or_default();
    Some(One {
        place,
        cpu_ns: stats.cpu?.usage_core_nano_seconds?.value,
        memory: memory.working_set_bytes.or(memory.usage_bytes).map_or(0, |one| one.value),
        id: attributes.id,
    })
}

async fn read(shared: &Shared) -> Result<Reading> {
    let stats = shared.config.cri.list_container_stats(None).await?;
    Ok(Reading {
        at: Timestamp::now(),
        node_cpu_ns: readings::cpu_ns(),
        node_memory: readings::memory().working_set,
        containers: stats.into_iter().filter_map(one).collect(),
    })
}

fn age(reading: &Reading, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(reading.at)).unwrap_or(Duration::ZERO)
}

/// Whether a difference to `before` says something about every container of `after`.
fn is_comparable(before: &Reading, after: &Reading) -> bool {
    let known = |one: &One| before.containers.iter().any(|old| old.id == one.id);
    let age = age(before, after.at);
    (SHORT_WINDOW..STALE).contains(&age) && after.containers.iter().all(known)
}

fn difference(node: &str, before: &Reading, after: &Reading) -> NodeUsage {
    let window = age(before, after.at).max(Duration::from_millis(1));
    let rate = |old: u64, new: u64| {
        let nanos = u128::from(new.saturating_sub(old)) * 1_000_000_000 / window.as_nanos();
        u64::try_from(nanos).unwrap_or(u64::MAX)
    };
    let usage = |cpu_nanocores, memory_bytes| Usage { at: after.at, window, cpu_nanocores, memory_bytes };
    let old: HashMap<&str, u64> = before.containers.iter().map(|one| (one.id.as_str(), one.cpu_ns)).collect();
    let mut pods: BTreeMap<(&str, &str), Vec<(String, Usage)>> = BTreeMap::new();
    for one in &after.containers {
        let Some(before) = old.get(one.id.as_str()) else { continue };
        let (namespace, pod, container) = &one.place;
        let list = pods.entry((namespace, pod)).or_default();
        list.push((container.clone(), usage(rate(*before, one.cpu_ns), one.memory)));
    }
    let pods = pods.into_iter().map(|((namespace, name), mut containers)| {
        containers.sort_by(|a, b| a.0.cmp(&b.0));
        PodUsage { namespace: namespace.to_owned(), name: name.to_owned(), containers }
    });
    NodeUsage {
        node: node.to_owned(),
        whole: usage(rate(before.node_cpu_ns, after.node_cpu_ns), after.node_memory),
        pods: pods.collect(),
    }
}

impl Meter {
    pub(crate) async fn usage(&self, shared: &Shared) -> Result<NodeUsage> {
        let mut state = self.0.lock().await;
        if let Some((at, answer)) = &state.answer
            && at.elapsed() < FRESH
        {
            return Ok(answer.clone());
        }
        let mut after = read(shared).await?;
        let mut before = match state.before.take() {
            Some(before) if is_comparable(&before, &after) => before,
            Some(_) | None => {
                let first = after;
                tokio::time::sleep(SHORT_WINDOW).await;
                after = read(shared).await?;
                first
            }
        };
        before.at = before.at.min(after.at);
        let answer = difference(&shared.node.facts.name, &before, &after);
        state.before = Some(after);
        state.answer = Some((tokio::time::Instant::now(), answer.clone()));
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(seconds: i64, node_ns: u64, containers: &[(&str, u64)]) -> Reading {
        let containers = containers
            .iter()
            .map(|(id, cpu_ns)| One {
                id: (*id).to_owned(),
                place: ("default".to_owned(), "web".to_owned(), format!("c-{id}")),
                cpu_ns: *cpu_ns,
                memory: 7,
            })
            .collect();
        let at = Timestamp::from_second(seconds).unwrap();
        Reading { at, node_cpu_ns: node_ns, node_memory: 9, containers }
    }

    #[test]
    fn use_of_processors_is_the_difference_over_the_window() {
        let before = reading(100, 5_000_000_000, &[("a", 1_000_000_000)]);
        let after = reading(110, 10_000_000_000, &[("a", 3_000_000_000), ("new", 9)]);
        let usage = difference("n", &before, &after);
        assert_eq!((usage.whole.cpu_nanocores, usage.whole.memory_bytes), (500_000_000, 9));
        assert_eq!(usage.pods.len(), 1);
        let containers = &usage.pods[0].containers;
        assert_eq!(containers.len(), 1, "one that is new since the last reading shows nothing yet");
        assert_eq!((containers[0].1.cpu_nanocores, containers[0].1.window.as_secs()), (200_000_000, 10));
        // A counter that went back (the machine was suspended, a cgroup made anew) is no use at all.
        assert_eq!(difference("n", &after, &reading(120, 0, &[("a", 0)])).whole.cpu_nanocores, 0);
    }

    #[test]
    fn old_readings_and_unknown_containers_ask_for_a_new_comparison() {
        let before = reading(100, 0, &[("a", 0)]);
        assert!(is_comparable(&before, &reading(110, 0, &[("a", 0)])));
        assert!(is_comparable(&before, &reading(110, 0, &[])));
        assert!(!is_comparable(&before, &reading(110, 0, &[("b", 0)])));
        assert!(!is_comparable(&before, &reading(100, 0, &[("a", 0)])));
        assert!(!is_comparable(&before, &reading(500, 0, &[("a", 0)])));
        assert!(!is_comparable(&before, &reading(50, 0, &[("a", 0)])), "a clock that went back");
    }
}
