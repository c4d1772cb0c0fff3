//! What containers, sandboxes and the image store use, in CRI's words.
//!
//! Invariant: everything is read when it is asked for; what ended meanwhile is left out of lists.

use engine::Container;

use super::{EngineCri, containers, matches_labels, nanos};
use crate::{CriError, Result, v1};

fn value(value: u64) -> Option<v1::UInt64Value> {
    Some(v1::UInt64Value { value })
}

/// A number of `memory.stat`, by its name on either hierarchy.
fn stat(stats: &[(String, u64)], names: [&str; 2]) -> u64 {
    let find = |name| stats.iter().find(|(own, _)| own == name).map(|(_, value)| *value);
    names.into_iter().find_map(find).unwrap_or(0)
}

fn memory(timestamp: i64, stats: &engine::ContainerStats) -> v1::MemoryUsage {
    let stats = &stats.cgroup;
    let inactive = stat(&stats.memory_stat, ["total_inactive_file", "inactive_file"]);
    let working_set = stats.memory_usage_bytes.saturating_sub(inactive);
    // Without a limit the kernel shows a number near the largest there is.
    let limited = stats.memory_limit_bytes < 1 << 62;
    v1::MemoryUsage {
        timestamp,
        working_set_bytes: value(working_set),
        available_bytes: limited.then(|| stats.memory_limit_bytes.saturating_sub(working_set)).and_then(value),
        usage_bytes: value(stats.memory_usage_bytes),
        rss_bytes: value(stat(&stats.memory_stat, ["total_rss", "anon"])),
        page_faults: value(stat(&stats.memory_stat, ["total_pgfault", "pgfault"])),
        major_page_faults: value(stat(&stats.memory_stat, ["total_pgmajfault", "pgmajfault"])),
    }
}

fn cpu(timestamp: i64, total_ns: u64) -> v1::CpuUsage {
    v1::CpuUsage { timestamp, usage_core_nano_seconds: value(total_ns), ..Default::default() }
}

impl EngineCri {
    pub(super) async fn stats_matching(&self, filter: v1::ContainerStatsFilter) -> Result<Vec<v1::ContainerStats>> {
        let filter = v1::ContainerFilter {
            id: filter.id,
            pod_sandbox_id: filter.pod_sandbox_id,
            label_selector: filter.label_selector,
            ..Default::default()
        };
        let mut out = Vec::new();
        for one in self.containers_matching(&filter) {
            // One that ended meanwhile has no numbers any more.
            if let Ok(container) = self.pod_container(&one.id)
                && let Ok(stats) = self.stats_of(container).await
            {
                out.push(stats);
            }
        }
        Ok(out)
    }

    pub(super) async fn stats_of(&self, container: Container) -> Result<v1::ContainerStats> {
        let stats = self.engine.container_stats(&container.record.id).await?;
        let timestamp = nanos(stats.time);
        Ok(v1::ContainerStats {
            cpu: Some(cpu(timestamp, stats.cgroup.cpu_total_ns)),
            memory: Some(memory(timestamp, &stats)),
            attributes: Some(v1::ContainerAttributes {
                metadata: Some(containers::metadata(&container)),
                labels: container.record.config.labels.clone().into_iter().collect(),
                annotations: containers::annotations(&container),
                id: container.record.id,
            }),
            ..Default::default()
        })
    }

    /// The sum of a sandbox's containers, and the counters of its network.
    pub(super) async fn sandbox_stats(&self, id: &str) -> Result<v1::PodSandboxStats> {
        let sandbox = self.engine.sandbox(id)?;
        let filter = v1::ContainerStatsFilter { pod_sandbox_id: sandbox.id.clone(), ..Default::default() };
        let containers = self.stats_matching(filter).await?;
        let timestamp = nanos(jiff::Timestamp::now());
        let sum = |pick: fn(&v1::ContainerStats) -> Option<v1::UInt64Value>| -> u64 {
            containers.iter().filter_map(pick).map(|one| one.value).sum()
        };
        let member = containers.first().and_then(|one| one.attributes.as_ref()).map(|one| one.id.clone());
        let mut linux = v1::LinuxPodSandboxStats {
            cpu: Some(cpu(timestamp, sum(|one| one.cpu.as_ref()?.usage_core_nano_seconds))),
            memory: Some(v1::MemoryUsage {
                timestamp,
                working_set_bytes: value(sum(|one| one.memory.as_ref()?.working_set_bytes)),
                usage_bytes: value(sum(|one| one.memory.as_ref()?.usage_bytes)),
                rss_bytes: value(sum(|one| one.memory.as_ref()?.rss_bytes)),
                page_faults: value(sum(|one| one.memory.as_ref()?.page_faults)),
                major_page_faults: value(sum(|one| one.memory.as_ref()?.major_page_faults)),
                ..Default::default()
            }),
            ..Default::default()
        };
        if let Some(member) = member.filter(|_| !sandbox.spec.host_network)
            && let Ok(stats) = self.engine.container_stats(&member).await
        {
            linux.process = Some(v1::ProcessUsage { timestamp, process_count: value(stats.cgroup.pids_current) });
            linux.network = Some(network(timestamp, &stats.networks));
        }
        linux.containers = containers;
        let metadata = v1::PodSandboxMetadata {
            name: sandbox.spec.name.clone(),
            uid: sandbox.spec.uid.clone(),
            namespace: sandbox.spec.namespace.clone(),
            attempt: sandbox.spec.attempt,
        };
        Ok(v1::PodSandboxStats {
            attributes: Some(v1::PodSandboxAttributes {
                id: sandbox.id,
                metadata: Some(metadata),
                labels: sandbox.spec.labels.into_iter().collect(),
                annotations: sandbox.spec.annotations.into_iter().collect(),
            }),
            linux: Some(linux),
            windows: None,
        })
    }

    pub(super) async fn sandboxes_stats(&self, filter: v1::PodSandboxStatsFilter) -> Result<Vec<v1::PodSandboxStats>> {
        let mut out = Vec::new();
        for sandbox in self.engine.sandboxes() {
            let wanted = sandbox.ready
                && sandbox.id.starts_with(&filter.id)
                && matches_labels(&filter.label_selector, |key| sandbox.spec.labels.get(key));
            if !wanted {
                continue;
            }
            match self.sandbox_stats(&sandbox.id).await {
                Ok(stats) => out.push(stats),
                Err(CriError::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(out)
    }
}

/// The interfaces of a sandbox; `eth0` is what CRI calls the default one.
fn network(timestamp: i64, interfaces: &[(String, [u64; 8])]) -> v1::NetworkUsage {
    let usage = |(name, n): &(String, [u64; 8])| v1::NetworkInterfaceUsage {
        name: name.clone(),
        rx_bytes: value(n[0]),
        rx_errors: value(n[2]),
        tx_bytes: value(n[4]),
        tx_errors: value(n[6]),
    };
    let own = || interfaces.iter().filter(|(name, _)| name != "lo");
    v1::NetworkUsage {
        timestamp,
        default_interface: own().find(|(name, _)| name == "eth0").map(usage),
        interfaces: own().map(usage).collect(),
    }
}
