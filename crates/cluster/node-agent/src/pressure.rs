//! Whether the node runs short of memory, disk, inodes or processes, and who goes then.
//!
//! Housekeeping calls [`look`] every ten seconds, a kubelet's own period: the kernel tells nobody when a file system fills
//! up. Which pod goes is `pod_plan::evict`'s choice. Invariants: one pod a look, so that a freed resource is seen before
//! the next one goes; a condition stays for five minutes after it was last true.

use std::{
    path::Path,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use cri::v1;
use k8s_openapi::api::core::v1::Pod;
use pod_plan::{
    evict::{self, Candidate, Resource, Signal},
    quantity,
};
use tokio::time::Instant;

use crate::{agent::Shared, labels, layout::PodPaths, readings};

const MEMORY_BYTES: u64 = 100 << 20;
/// Of the file system and of its inodes, but of a large file system never more than a gibibyte: Kubernetes' own 10 and
/// 15 % of a terabyte would evict everything from most people's machines.
const DISK_PERCENT: u64 = 5;
const DISK_BYTES: u64 = 1 << 30;
const PID_PERCENT: u64 = 2;
/// `evictionPressureTransitionPeriod`.
const TRANSITION: Duration = Duration::from_secs(300);

/// The thresholds in the words of a kubelet's configuration.
pub(crate) fn thresholds() -> serde_json::Value {
    serde_json::json!({
        "memory.available": "100Mi", "nodefs.available": "1Gi", "nodefs.inodesFree": "5%", "pid.available": "2%",
    })
}

/// What of the node's memory and disk pods cannot have: the thresholds.
pub(crate) fn reserved(disk_bytes: i64) -> (i64, i64) {
    let whole = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    (whole(MEMORY_BYTES), whole(disk_threshold(u64::try_from(disk_bytes).unwrap_or(0))))
}

fn disk_threshold(capacity_bytes: u64) -> u64 {
    (capacity_bytes / 100 * DISK_PERCENT).min(DISK_BYTES)
}

/// When each condition was last true.
#[derive(Debug, Default)]
pub(crate) struct Pressure(Mutex<Vec<(&'static str, Instant)>>);

impl Pressure {
    fn saw(&self, condition: &'static str) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.retain(|(own, _)| *own != condition);
        seen.push((condition, Instant::now()));
    }

    /// Whether the node's condition holds.
    pub(crate) fn holds(&self, condition: &str) -> bool {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.iter().any(|(own, at)| *own == condition && at.elapsed() < TRANSITION)
    }
}

fn signals(root: &Path) -> Vec<Signal> {
    let memory = readings::memory();
    let mut out = Vec::new();
    if memory.total > 0 {
        out.push(Signal { resource: Resource::Memory, available: memory.available, threshold: MEMORY_BYTES });
    }
    if let Some(fs) = readings::file_system(root) {
        let threshold = disk_threshold(fs.capacity_bytes);
        out.push(Signal { resource: Resource::Disk, available: fs.available_bytes, threshold });
        // Some file systems have no fixed number of inodes and say zero.
        if fs.inodes > 0 {
            let threshold = fs.inodes / 100 * DISK_PERCENT;
            out.push(Signal { resource: Resource::Inodes, available: fs.inodes_free, threshold });
        }
    }
    if let Some((current, most)) = readings::processes() {
        let threshold = most / 100 * PID_PERCENT;
        out.push(Signal { resource: Resource::Pids, available: most.saturating_sub(current), threshold });
    }
    out
}

/// One look. Returns whether disk is short, so that images can be removed first the next time.
pub(crate) async fn look(shared: &Shared) -> bool {
    let pods = shared.pods.list();
    for (pod, message) in over_their_limits(shared, &pods).await {
        shared.evict(&pod, message);
    }
    let root = shared.config.root.clone();
    let found = tokio::task::spawn_blocking(move || signals(&root)).await.unwrap_or_default();
    let short: Vec<Signal> = found.into_iter().filter(Signal::is_short).collect();
    for signal in &short {
        if !shared.pressure.holds(signal.resource.condition()) {
            tracing::warn!(resource = signal.resource.word(), available = signal.available, "the node runs short");
        }
        shared.pressure.saw(signal.resource.condition());
    }
    let disk_short = short.iter().any(|one| matches!(one.resource, Resource::Disk | Resource::Inodes));
    // What nobody uses goes before what somebody uses.
    if disk_short && crate::clean_up::make_room(shared).await {
        return true;
    }
    if let Some(signal) = short.first() {
        let candidates = measure(shared, &pods).await;
        if let Some(eviction) = evict::choose(signal, &candidates) {
            shared.evict(candidates[eviction.index].pod, eviction.message);
        }
    }
    disk_short
}

async fn measure<'a>(shared: &Shared, pods: &'a [std::sync::Arc<Pod>]) -> Vec<Candidate<'a>> {
    let stats = shared.config.cri.list_pod_sandbox_stats(None).await.unwrap_or_default();
    let paths: Vec<PodPaths> = pods.iter().map(|pod| PodPaths::new(&shared.config.root, pod)).collect();
    let trees = tokio::task::spawn_blocking(move || {
        let sum = |paths: &PodPaths| {
            let (dir, logs) = (readings::tree_usage(&paths.dir), readings::tree_usage(&paths.logs));
            (dir.0 + logs.0, dir.1 + logs.1)
        };
        paths.iter().map(sum).collect::<Vec<_>>()
    });
    let trees = trees.await.unwrap_or_default();
    pods.iter()
        .zip(trees)
        .map(|(pod, (disk_bytes, inodes))| {
            let uid = pod.metadata.uid.clone().unwrap_or_default();
            let own = |one: &&v1::PodSandboxStats| {
                let metadata = one.attributes.as_ref().and_then(|attributes| attributes.metadata.as_ref());
                metadata.is_some_and(|metadata| metadata.uid == uid)
            };
            let linux = stats.iter().find(own).and_then(|one| one.linux.clone()).unwrap_or_default();
            let memory = linux.containers.iter().filter_map(|one| {
                let name = one.attributes.as_ref()?.labels.get(labels::CONTAINER_NAME)?.clone();
                Some((name, one.memory?.working_set_bytes?.value))
            });
            Candidate {
                pod,
                memory: memory.collect(),
                disk_bytes,
                inodes,
                processes: linux.process.and_then(|process| process.process_count).map_or(0, |count| count.value),
            }
        })
        .collect()
}

/// Pods whose emptyDir volumes hold more than their limits.
async fn over_their_limits(shared: &Shared, pods: &[std::sync::Arc<Pod>]) -> Vec<(std::sync::Arc<Pod>, String)> {
    let mut limited = Vec::new();
    for pod in pods {
        let paths = PodPaths::new(&shared.config.root, pod);
        for volume in pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()) {
            let Some(empty) = &volume.empty_dir else { continue };
            // One in memory cannot grow beyond its limit.
            let limit = empty.size_limit.as_ref().filter(|_| empty.medium.as_deref() != Some("Memory"));
            if let Some((text, limit)) = limit.and_then(|limit| Some((limit.0.clone(), quantity::units(limit)?))) {
                limited.push((pod.clone(), volume.name.clone(), paths.volume(&volume.name), text, limit));
            }
        }
    }
    if limited.is_empty() {
        return Vec::new();
    }
    let measured = tokio::task::spawn_blocking(move || {
        let over = limited.into_iter().filter(|(_, _, dir, _, limit)| {
            i64::try_from(readings::tree_usage(dir).0).unwrap_or(i64::MAX) > *limit
        });
        over.map(|(pod, name, _, text, _)| {
            (pod, format!("Usage of EmptyDir volume \"{name}\" exceeds the limit \"{text}\". "))
        })
        .collect::<Vec<_>>()
    });
    measured.await.unwrap_or_default()
}
