//! `/stats/summary`: what the node, its pods and their containers use.
//!
//! Invariant: the field names and units are those of Kubernetes' stats API v1alpha1.

use std::collections::BTreeMap;

use cri::v1;
use serde_json::{Value, json};

use crate::{agent::Shared, error::Result, labels, observe, readings};

fn number(value: Option<v1::UInt64Value>) -> Value {
    value.map_or(Value::Null, |value| value.value.into())
}

fn at(nanos: i64) -> String {
    observe::time(nanos).strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn file_system(time: &str, found: Option<readings::FileSystem>) -> Value {
    found.map_or(Value::Null, |fs| {
        json!({
            "time": time, "availableBytes": fs.available_bytes, "capacityBytes": fs.capacity_bytes,
            "usedBytes": fs.used_bytes, "inodesFree": fs.inodes_free, "inodes": fs.inodes,
            "inodesUsed": fs.inodes.saturating_sub(fs.inodes_free),
        })
    })
}

fn cpu(usage: Option<v1::CpuUsage>, nanocores: Option<u64>) -> Value {
    let Some(usage) = usage else { return Value::Null };
    let mut out = json!({
        "time": at(usage.timestamp), "usageCoreNanoSeconds": number(usage.usage_core_nano_seconds),
    });
    if let Some(rate) = nanocores {
        out["usageNanoCores"] = rate.into();
    }
    out
}

fn memory(usage: Option<v1::MemoryUsage>) -> Value {
    let Some(usage) = usage else { return Value::Null };
    json!({
        "time": at(usage.timestamp), "availableBytes": number(usage.available_bytes),
        "usageBytes": number(usage.usage_bytes), "workingSetBytes": number(usage.working_set_bytes),
        "rssBytes": number(usage.rss_bytes), "pageFaults": number(usage.page_faults),
        "majorPageFaults": number(usage.major_page_faults),
    })
}

fn network(usage: Option<&v1::NetworkUsage>) -> Value {
    let Some(usage) = usage else { return Value::Null };
    let interface = |one: &v1::NetworkInterfaceUsage| {
        json!({
            "name": one.name, "rxBytes": number(one.rx_bytes), "rxErrors": number(one.rx_errors),
            "txBytes": number(one.tx_bytes), "txErrors": number(one.tx_errors),
        })
    };
    let mut out = usage.default_interface.as_ref().map_or_else(|| json!({}), interface);
    out["time"] = at(usage.timestamp).into();
    out["interfaces"] = usage.interfaces.iter().map(interface).collect();
    out
}

/// Rates by pod and container, from the meter.
type Rates = BTreeMap<(String, String, String), u64>;

fn pod(stats: &v1::PodSandboxStats, rates: &Rates, root: &std::path::Path) -> Option<Value> {
    let attributes = stats.attributes.as_ref()?;
    let metadata = attributes.metadata.as_ref()?;
    let linux = stats.linux.clone().unwrap_or_default();
    let mut total = None;
    let containers: Vec<Value> = linux
        .containers
        .iter()
        .filter_map(|one| {
            let labels = &one.attributes.as_ref()?.labels;
            let name = labels.get(labels::CONTAINER_NAME)?;
            let rate = rates.get(&(metadata.namespace.clone(), metadata.name.clone(), name.clone())).copied();
            total = total.map_or(rate, |sum: u64| Some(sum + rate.unwrap_or(0)));
            Some(json!({"name": name, "cpu": cpu(one.cpu, rate), "memory": memory(one.memory)}))
        })
        .collect();
    let volumes = root.join("pods").join(&metadata.uid).join("volumes");
    let (bytes, files) = readings::tree_usage(&volumes);
    Some(json!({
        "podRef": {"name": metadata.name, "namespace": metadata.namespace, "uid": metadata.uid},
        "containers": containers, "cpu": cpu(linux.cpu, total), "memory": memory(linux.memory),
        "network": network(linux.network.as_ref()),
        "process_stats": {"process_count": number(linux.process.and_then(|process| process.process_count))},
        "ephemeral-storage": {"usedBytes": bytes, "inodesUsed": files},
    }))
}

pub(super) async fn summary(shared: &Shared) -> Result<Value> {
    let usage = shared.meter.usage(shared).await?;
    let rates: Rates = usage
        .pods
        .iter()
        .flat_map(|pod| {
            let place = |name: &String| (pod.namespace.clone(), pod.name.clone(), name.clone());
            pod.containers.iter().map(move |(name, usage)| (place(name), usage.cpu_nanocores))
        })
        .collect();
    let stats = shared.config.cri.list_pod_sandbox_stats(None).await?;
    let root = shared.config.root.clone();
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let for_pods = root.clone();
    let measured = tokio::task::spawn_blocking(move || {
        let pods: Vec<Value> = stats.iter().filter_map(|one| pod(one, &rates, &for_pods)).collect();
        (pods, readings::file_system(&for_pods))
    });
    let (pods, fs) = measured.await.unwrap_or_default();
    let memory = readings::memory();
    let processes = readings::processes();
    Ok(json!({
        "node": {
            "nodeName": shared.node.facts.name,
            "startTime": shared.started.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            "cpu": {"time": now, "usageNanoCores": usage.whole.cpu_nanocores, "usageCoreNanoSeconds": readings::cpu_ns()},
            "memory": {
                "time": now, "availableBytes": memory.available, "usageBytes": memory.usage,
                "workingSetBytes": memory.working_set, "rssBytes": memory.rss,
            },
            "fs": file_system(&now, fs),
            "runtime": {"imageFs": file_system(&now, fs), "containerFs": file_system(&now, fs)},
            "rlimit": {
                "time": now, "maxpid": processes.map(|(_, most)| most), "curproc": processes.map(|(now, _)| now),
            },
        },
        "pods": pods,
    }))
}
