//! The metrics of ListPodSandboxMetrics, named and labelled as cAdvisor's.
//!
//! Pure: made from the stats of a sandbox. Invariant: every metric has a descriptor, and as many label values as that
//! names keys.

use crate::v1;

const CPU: &str = "container_cpu_usage_seconds_total";
const MEMORY: &str = "container_memory_usage_bytes";
const WORKING_SET: &str = "container_memory_working_set_bytes";
const RSS: &str = "container_memory_rss";
const PROCESSES: &str = "container_processes";
const RECEIVED: &str = "container_network_receive_bytes_total";
const SENT: &str = "container_network_transmit_bytes_total";

/// Keys of what is told of containers and pods: cAdvisor's, in its order.
const KEYS: [&str; 3] = ["id", "name", "image"];

pub(super) fn descriptors() -> Vec<v1::MetricDescriptor> {
    let of = |name: &str, help: &str, more: &[&str]| v1::MetricDescriptor {
        name: name.to_owned(),
        help: help.to_owned(),
        label_keys: KEYS.iter().chain(more).map(|key| (*key).to_owned()).collect(),
    };
    vec![
        of(CPU, "Cumulative cpu time consumed in seconds.", &["cpu"]),
        of(MEMORY, "Current memory usage in bytes, including all memory regardless of when it was accessed", &[]),
        of(WORKING_SET, "Current working set in bytes.", &[]),
        of(RSS, "Size of RSS in bytes.", &[]),
        of(PROCESSES, "Number of processes running inside the container.", &[]),
        of(RECEIVED, "Cumulative count of bytes received", &["interface"]),
        of(SENT, "Cumulative count of bytes transmitted", &["interface"]),
    ]
}

struct Subject {
    labels: Vec<String>,
    timestamp: i64,
    out: Vec<v1::Metric>,
}

impl Subject {
    fn new(id: &str, name: &str, timestamp: i64) -> Self {
        Self { labels: vec![id.to_owned(), name.to_owned(), String::new()], timestamp, out: Vec::new() }
    }

    fn add(&mut self, name: &str, kind: v1::MetricType, more: &[&str], value: Option<v1::UInt64Value>) {
        let Some(value) = value else { return };
        self.out.push(v1::Metric {
            name: name.to_owned(),
            timestamp: self.timestamp,
            metric_type: kind.into(),
            label_values: self.labels.iter().cloned().chain(more.iter().map(|one| (*one).to_owned())).collect(),
            value: Some(value),
        });
    }

    fn usage(&mut self, cpu: Option<&v1::CpuUsage>, memory: Option<&v1::MemoryUsage>) {
        use v1::MetricType::{Counter, Gauge};
        let seconds = |nanos: v1::UInt64Value| v1::UInt64Value { value: nanos.value / 1_000_000_000 };
        self.add(CPU, Counter, &["total"], cpu.and_then(|cpu| cpu.usage_core_nano_seconds).map(seconds));
        self.add(MEMORY, Gauge, &[], memory.and_then(|memory| memory.usage_bytes));
        self.add(WORKING_SET, Gauge, &[], memory.and_then(|memory| memory.working_set_bytes));
        self.add(RSS, Gauge, &[], memory.and_then(|memory| memory.rss_bytes));
    }
}

pub(super) fn of_sandbox(stats: &v1::PodSandboxStats) -> v1::PodSandboxMetrics {
    let linux = stats.linux.clone().unwrap_or_default();
    let attributes = stats.attributes.clone().unwrap_or_default();
    let name = attributes.metadata.as_ref().map_or("", |metadata| metadata.name.as_str());
    let timestamp = linux.cpu.as_ref().map_or(0, |cpu| cpu.timestamp);
    let mut pod = Subject::new(&attributes.id, name, timestamp);
    pod.usage(linux.cpu.as_ref(), linux.memory.as_ref());
    pod.add(PROCESSES, v1::MetricType::Gauge, &[], linux.process.as_ref().and_then(|process| process.process_count));
    for interface in linux.network.iter().flat_map(|network| &network.interfaces) {
        pod.add(RECEIVED, v1::MetricType::Counter, &[&interface.name], interface.rx_bytes);
        pod.add(SENT, v1::MetricType::Counter, &[&interface.name], interface.tx_bytes);
    }
    let containers = linux.containers.iter().map(|one| {
        let attributes = one.attributes.clone().unwrap_or_default();
        let name = attributes.metadata.as_ref().map_or("", |metadata| metadata.name.as_str());
        let mut container = Subject::new(&attributes.id, name, timestamp);
        container.usage(one.cpu.as_ref(), one.memory.as_ref());
        v1::ContainerMetrics { container_id: attributes.id.clone(), metrics: container.out }
    });
    v1::PodSandboxMetrics {
        pod_sandbox_id: attributes.id.clone(),
        container_metrics: containers.collect(),
        metrics: pod.out,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_has_a_descriptor_and_a_value_for_each_of_its_keys() {
        let value = |value| Some(v1::UInt64Value { value });
        let cpu = v1::CpuUsage { usage_core_nano_seconds: value(3_500_000_000), ..Default::default() };
        let memory = v1::MemoryUsage {
            usage_bytes: value(2),
            working_set_bytes: value(1),
            rss_bytes: value(1),
            ..Default::default()
        };
        let interface = v1::NetworkInterfaceUsage {
            name: "eth0".into(),
            rx_bytes: value(5),
            tx_bytes: value(6),
            ..Default::default()
        };
        let container = v1::ContainerStats { cpu: Some(cpu), memory: Some(memory), ..Default::default() };
        let linux = v1::LinuxPodSandboxStats {
            cpu: Some(cpu),
            memory: Some(memory),
            process: Some(v1::ProcessUsage { timestamp: 0, process_count: value(4) }),
            network: Some(v1::NetworkUsage { interfaces: vec![interface], ..Default::default() }),
            containers: vec![container],
        };
        let told = of_sandbox(&v1::PodSandboxStats { linux: Some(linux), ..Default::default() });
        let descriptors = descriptors();
        assert_eq!(told.metrics.len(), descriptors.len());
        for metric in told.metrics.iter().chain(&told.container_metrics[0].metrics) {
            let known = descriptors.iter().find(|one| one.name == metric.name).expect("described");
            assert_eq!(known.label_keys.len(), metric.label_values.len(), "{}", metric.name);
        }
        assert_eq!(told.metrics[0].value, value(3), "seconds");
    }
}
