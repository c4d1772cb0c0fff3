//! `/metrics`, `/metrics/resource` and `/metrics/cadvisor` in Prometheus' text format.
//!
//! Invariant: names, labels and units are those of Kubernetes; label values are escaped, whatever a pod is called.

use std::fmt::Write;

use cri::v1;

use crate::{agent::Shared, error::Result, labels, observe, readings};

/// Text in the making.
#[derive(Default)]
struct Page(String);

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn line(&mut self, name: &str, labels: &[(&str, &str)], value: f64, at_ms: Option<i64>) {
        self.0.push_str(name);
        if !labels.is_empty() {
            let pairs: Vec<String> = labels.iter().map(|(key, value)| format!("{key}=\"{}\"", escape(value))).collect();
            let _ = write!(self.0, "{{{}}}", pairs.join(","));
        }
        let _ = write!(self.0, " {value}");
        if let Some(at) = at_ms {
            let _ = write!(self.0, " {at}");
        }
        self.0.push('\n');
    }
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn seconds(value: Option<v1::UInt64Value>) -> f64 {
    value.map_or(0.0, |nanos| nanos.value as f64 / 1e9)
}

fn amount(value: Option<v1::UInt64Value>) -> f64 {
    value.map_or(0.0, |value| value.value as f64)
}

/// The agent's own.
pub(super) async fn own(shared: &Shared) -> String {
    let mut page = Page::default();
    page.head("kubelet_node_name", "gauge", "The node's name. The count is always 1.");
    page.line("kubelet_node_name", &[("node", &shared.node.facts.name)], 1.0, None);
    page.head("kubelet_running_pods", "gauge", "Number of pods that have a running pod sandbox");
    let sandboxes = shared.config.cri.list_pod_sandbox(None).await.unwrap_or_default();
    let ready = sandboxes.iter().filter(|one| one.state == i32::from(v1::PodSandboxState::SandboxReady)).count();
    page.line("kubelet_running_pods", &[], ready as f64, None);
    page.head("kubelet_running_containers", "gauge", "Number of containers currently running");
    let containers = shared.config.cri.list_containers(None).await.unwrap_or_default();
    for (state, word) in [
        (v1::ContainerState::ContainerCreated, "created"),
        (v1::ContainerState::ContainerExited, "exited"),
        (v1::ContainerState::ContainerRunning, "running"),
    ] {
        let count = containers.iter().filter(|one| one.state == i32::from(state)).count();
        if count > 0 {
            page.line("kubelet_running_containers", &[("container_state", word)], count as f64, None);
        }
    }
    page.head("process_start_time_seconds", "gauge", "Start time of the process since unix epoch in seconds.");
    page.line("process_start_time_seconds", &[], shared.started.as_second() as f64, None);
    page.0
}

/// Which pod and container a measurement is about: container, namespace, pod.
fn place(stats: &v1::ContainerStats) -> Option<[(&'static str, String); 3]> {
    let labels = &stats.attributes.as_ref()?.labels;
    Some([
        ("container", labels.get(labels::CONTAINER_NAME)?.clone()),
        ("namespace", labels.get(labels::POD_NAMESPACE)?.clone()),
        ("pod", labels.get(labels::POD_NAME)?.clone()),
    ])
}

fn borrowed<'a, const N: usize>(pairs: &'a [(&'static str, String); N]) -> Vec<(&'static str, &'a str)> {
    pairs.iter().map(|(key, value)| (*key, value.as_str())).collect()
}

/// What metrics-server reads.
pub(super) async fn resource(shared: &Shared) -> Result<String> {
    let pods = shared.config.cri.list_pod_sandbox_stats(None).await?;
    let containers = shared.config.cri.list_containers(None).await?;
    let mut page = Page::default();
    let now = jiff::Timestamp::now().as_millisecond();
    let all: Vec<&v1::ContainerStats> =
        pods.iter().filter_map(|one| one.linux.as_ref()).flat_map(|linux| &linux.containers).collect();
    let placed = || all.iter().filter_map(|one| Some((place(one)?, *one)));
    page.head("container_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed by the container in core-seconds");
    for (place, one) in placed() {
        let cpu = one.cpu.unwrap_or_default();
        let value = seconds(cpu.usage_core_nano_seconds);
        page.line("container_cpu_usage_seconds_total", &borrowed(&place), value, Some(cpu.timestamp / 1_000_000));
    }
    page.head("container_memory_working_set_bytes", "gauge", "Current working set of the container in bytes");
    for (place, one) in placed() {
        let memory = one.memory.unwrap_or_default();
        let value = amount(memory.working_set_bytes);
        page.line("container_memory_working_set_bytes", &borrowed(&place), value, Some(memory.timestamp / 1_000_000));
    }
    page.head("container_start_time_seconds", "gauge", "Start time of the container since unix epoch in seconds");
    for (place, one) in placed() {
        let id = one.attributes.as_ref().map_or("", |attributes| attributes.id.as_str());
        if let Some(found) = containers.iter().find(|one| one.id == id) {
            let value = observe::time(found.created_at).as_second() as f64;
            page.line("container_start_time_seconds", &borrowed(&place), value, Some(now));
        }
    }
    page.head("node_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed by the node in core-seconds");
    page.line("node_cpu_usage_seconds_total", &[], readings::cpu_ns() as f64 / 1e9, Some(now));
    page.head("node_memory_working_set_bytes", "gauge", "Current working set of the node in bytes");
    page.line("node_memory_working_set_bytes", &[], readings::memory().working_set as f64, Some(now));
    let of_pod = |one: &v1::PodSandboxStats| {
        let metadata = one.attributes.as_ref()?.metadata.clone()?;
        Some([("namespace", metadata.namespace), ("pod", metadata.name)])
    };
    page.head("pod_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed by the pod in core-seconds");
    for one in &pods {
        let Some((place, linux)) = of_pod(one).zip(one.linux.as_ref()) else { continue };
        let value = seconds(linux.cpu.and_then(|cpu| cpu.usage_core_nano_seconds));
        page.line("pod_cpu_usage_seconds_total", &borrowed(&place), value, Some(now));
    }
    page.head("pod_memory_working_set_bytes", "gauge", "Current working set of the pod in bytes");
    for one in &pods {
        let Some((place, linux)) = of_pod(one).zip(one.linux.as_ref()) else { continue };
        let value = amount(linux.memory.and_then(|memory| memory.working_set_bytes));
        page.line("pod_memory_working_set_bytes", &borrowed(&place), value, Some(now));
    }
    page.head("resource_scrape_error", "gauge", "1 if there was an error while getting container metrics, 0 otherwise");
    page.line("resource_scrape_error", &[], 0.0, None);
    Ok(page.0)
}

/// What dashboards made for cAdvisor read.
pub(super) async fn cadvisor(shared: &Shared) -> Result<String> {
    let pods = shared.config.cri.list_pod_sandbox_stats(None).await?;
    let mut page = Page::default();
    page.head("machine_cpu_cores", "gauge", "Number of logical CPU cores.");
    page.line("machine_cpu_cores", &[], shared.node.machine.millicpu as f64 / 1000.0, None);
    page.head("machine_memory_bytes", "gauge", "Amount of memory installed on the machine.");
    page.line("machine_memory_bytes", &[], shared.node.machine.memory_bytes as f64, None);
    let rows: Vec<_> = pods
        .iter()
        .filter_map(|one| one.linux.as_ref())
        .flat_map(|linux| &linux.containers)
        .filter_map(|one| {
            let id = one.attributes.as_ref()?.id.clone();
            let [container, namespace, pod] = place(one)?;
            Some(([container, ("id", id.clone()), ("image", String::new()), ("name", id), namespace, pod], one))
        })
        .collect();
    page.head("container_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed in seconds.");
    for (place, one) in &rows {
        let cpu = one.cpu.unwrap_or_default();
        let mut labels = borrowed(place);
        labels.insert(1, ("cpu", "total"));
        let at = Some(cpu.timestamp / 1_000_000);
        page.line("container_cpu_usage_seconds_total", &labels, seconds(cpu.usage_core_nano_seconds), at);
    }
    type Pick = fn(&v1::MemoryUsage) -> Option<v1::UInt64Value>;
    let memories: [(&str, &str, Pick); 3] = [
        ("container_memory_usage_bytes", "Current memory usage in bytes.", |one| one.usage_bytes),
        ("container_memory_working_set_bytes", "Current working set in bytes.", |one| one.working_set_bytes),
        ("container_memory_rss", "Size of RSS in bytes.", |one| one.rss_bytes),
    ];
    for (name, help, pick) in memories {
        page.head(name, "gauge", help);
        for (place, one) in &rows {
            let memory = one.memory.unwrap_or_default();
            page.line(name, &borrowed(place), amount(pick(&memory)), Some(memory.timestamp / 1_000_000));
        }
    }
    network(&mut page, &pods);
    Ok(page.0)
}

fn network(page: &mut Page, pods: &[v1::PodSandboxStats]) {
    type Pick = fn(&v1::NetworkInterfaceUsage) -> Option<v1::UInt64Value>;
    let counters: [(&str, &str, Pick); 4] = [
        ("container_network_receive_bytes_total", "Cumulative count of bytes received", |one| one.rx_bytes),
        ("container_network_receive_errors_total", "Cumulative count of errors encountered while receiving", |one| one.rx_errors),
        ("container_network_transmit_bytes_total", "Cumulative count of bytes transmitted", |one| one.tx_bytes),
        ("container_network_transmit_errors_total", "Cumulative count of errors encountered while transmitting", |one| one.tx_errors),
    ];
    for (name, help, pick) in counters {
        page.head(name, "counter", help);
        for one in pods {
            let Some(metadata) = one.attributes.as_ref().and_then(|attributes| attributes.metadata.clone()) else { continue };
            let id = one.attributes.as_ref().map_or("", |attributes| attributes.id.as_str());
            let Some(network) = one.linux.as_ref().and_then(|linux| linux.network.as_ref()) else { continue };
            for interface in &network.interfaces {
                let labels = [
                    ("id", id), ("image", ""), ("interface", &interface.name), ("name", id),
                    ("namespace", &metadata.namespace), ("pod", &metadata.name),
                ];
                page.line(name, &labels, amount(pick(interface)), Some(network.timestamp / 1_000_000));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped_and_numbers_are_plain() {
        let mut page = Page::default();
        page.head("x", "gauge", "Help.");
        page.line("x", &[("a", "q\"uo\\te\n"), ("b", "")], 0.25, Some(7));
        page.line("x", &[], 3.0, None);
        assert_eq!(page.0, "# HELP x Help.\n# TYPE x gauge\nx{a=\"q\\\"uo\\\\te\\n\",b=\"\"} 0.25 7\nx 3\n");
    }
}
