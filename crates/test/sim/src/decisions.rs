//! How many placements a second the scheduler decides, in a large cluster that is half full.
//!
//! Called by `cargo xtask sim --decisions`. It measures decisions alone: no API, no store, no binding.

use k8s_openapi::api::core::v1::{Node, Pod};
use scheduling::{Placement, Snapshot};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Instant;

/// One kind of pods, and how fast they were placed.
pub struct Rate {
    pub what: &'static str,
    pub pods: usize,
    pub per_second: f64,
}

/// `nodes` nodes with ten pods each; then `pods` more of each kind.
pub fn measure(nodes: usize, pods: usize) -> anyhow::Result<Vec<Rate>> {
    let kinds: [(&'static str, Value); 3] = [
        ("default profile", json!({})),
        (
            "required anti-affinity",
            json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
            {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "apart"}}}]}}}),
        ),
        (
            "topology spread",
            json!({"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone",
            "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"app": "apart"}}}]}),
        ),
    ];
    let mut rates = Vec::new();
    for (what, spec) in kinds {
        let mut snapshot = Snapshot::default();
        let all: Result<Vec<Arc<Node>>, _> = (0..nodes).map(node).collect();
        snapshot.set_nodes(all?);
        for number in 0..nodes * 10 {
            snapshot.assign(&format!("node{}", number % nodes), pod(&format!("old{number}"), "old", &json!({}))?);
        }
        let count = pods.min(nodes);
        let waiting: Result<Vec<Arc<Pod>>, _> = (0..count).map(|n| pod(&format!("new{n}"), "apart", &spec)).collect();
        let waiting = waiting?;
        let begun = Instant::now();
        for (seed, pod) in waiting.into_iter().enumerate() {
            match scheduling::place(&pod, &mut snapshot, seed as u64) {
                Placement::Node(node) => snapshot.assign(&node, pod),
                other => anyhow::bail!("{what}: pod {seed} found no place: {other:?}"),
            }
        }
        rates.push(Rate { what, pods: count, per_second: count as f64 / begun.elapsed().as_secs_f64() });
    }
    Ok(rates)
}

fn node(number: usize) -> serde_json::Result<Arc<Node>> {
    let name = format!("node{number}");
    let labels = json!({"kubernetes.io/hostname": name, "topology.kubernetes.io/zone": format!("zone{}", number % 3)});
    serde_json::from_value(json!({"metadata": {"name": name, "labels": labels},
        "status": {"allocatable": {"cpu": "8", "memory": "32Gi", "pods": "110"}}}))
    .map(Arc::new)
}

fn pod(name: &str, app: &str, more: &Value) -> serde_json::Result<Arc<Pod>> {
    let mut spec = json!({"containers": [{"name": "c", "image": "app:1", "resources": {"requests": {"cpu": "200m", "memory": "256Mi"}}}]});
    if let (Some(fields), Some(more)) = (spec.as_object_mut(), more.as_object()) {
        fields.extend(more.clone());
    }
    serde_json::from_value(
        json!({"metadata": {"name": name, "namespace": "n", "uid": name, "labels": {"app": app}}, "spec": spec}),
    )
    .map(Arc::new)
}
