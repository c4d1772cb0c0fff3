//! `GET /containers/{id}/stats`.

use engine::{Container, ContainerStats};
use serde_json::{Map, Value, json};

/// One reading; `before` is the reading that percentages are taken against.
pub(crate) fn stats(container: &Container, now: &ContainerStats, before: Option<&ContainerStats>) -> Value {
    let group = &now.cgroup;
    let limit = if group.memory_limit_bytes > machine_memory() { machine_memory() } else { group.memory_limit_bytes };
    let networks: Map<String, Value> = now
        .networks
        .iter()
        .map(|(name, n)| {
            let counters = json!({
                "rx_bytes": n[0], "rx_packets": n[1], "rx_errors": n[2], "rx_dropped": n[3],
                "tx_bytes": n[4], "tx_packets": n[5], "tx_errors": n[6], "tx_dropped": n[7],
            });
            (name.clone(), counters)
        })
        .collect();
    let memory: Map<String, Value> = group.memory_stat.iter().map(|(k, v)| (k.clone(), (*v).into())).collect();
    let io = group.block_io.iter().flat_map(|device| {
        [("read", device.read_bytes), ("write", device.write_bytes)]
            .map(|(op, value)| json!({"major": device.major, "minor": device.minor, "op": op, "value": value}))
    });
    json!({
        "name": format!("/{}", container.record.name),
        "id": container.record.id,
        "read": now.time.to_string(),
        "preread": before.map_or_else(|| super::time::ZERO.to_owned(), |b| b.time.to_string()),
        "num_procs": 0,
        "storage_stats": {},
        "pids_stats": {"current": group.pids_current, "limit": group.pids_limit.unwrap_or(u64::MAX)},
        "blkio_stats": {
            "io_service_bytes_recursive": io.collect::<Vec<_>>(),
            "io_serviced_recursive": null, "io_queue_recursive": null, "io_service_time_recursive": null,
            "io_wait_time_recursive": null, "io_merged_recursive": null, "io_time_recursive": null, "sectors_recursive": null,
        },
        "cpu_stats": cpu(now),
        "precpu_stats": before.map_or_else(|| json!({
            "cpu_usage": {"total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0},
            "throttling_data": {"periods": 0, "throttled_periods": 0, "throttled_time": 0},
        }), cpu),
        "memory_stats": {
            "usage": group.memory_usage_bytes, "max_usage": group.memory_max_usage_bytes,
            "failcnt": group.memory_fail_count, "limit": limit, "stats": memory,
        },
        "networks": networks,
    })
}

fn cpu(reading: &ContainerStats) -> Value {
    let group = &reading.cgroup;
    json!({
        "cpu_usage": {
            "total_usage": group.cpu_total_ns,
            "percpu_usage": group.cpu_per_core_ns,
            "usage_in_kernelmode": group.cpu_system_ns,
            "usage_in_usermode": group.cpu_user_ns,
        },
        "system_cpu_usage": reading.system_cpu_ns,
        "online_cpus": reading.cpus,
        "throttling_data": {
            "periods": group.periods, "throttled_periods": group.throttled_periods, "throttled_time": group.throttled_ns,
        },
    })
}

/// Bytes of memory of the machine.
pub(crate) fn machine_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = total.and_then(|rest| rest.split_ascii_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}
