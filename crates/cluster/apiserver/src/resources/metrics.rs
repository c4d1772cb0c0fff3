//! `metrics.k8s.io`: what nodes and pods use, measured by the nodes when it is asked for (`kubectl top`, autoscalers).
//!
//! Called by `resources::serve`. Invariant: only nodes and pods that the store has are listed, so a name that was reused
//! or is gone shows nothing of its predecessor; a pod without a measurement yet is left out, as with metrics-server.

use http::StatusCode;
use kube_client::node::{NodeUsage, PodUsage, Usage};
use kube_types::{meta, status};
use serde_json::{Value, json};

use crate::call::{Call, Target};
use crate::error::ApiResult;
use crate::handlers::select::Selection;
use crate::respond::{self, Reply};
use crate::{keys, object};

pub(super) async fn serve(call: &Call, target: &Target) -> ApiResult<Reply> {
    // Labels and names are those of the measured objects.
    let plural = target.resource.plural.as_ref();
    let measured = call.server.served.find("", "v1", plural).ok_or_else(status::path_not_found)?;
    let selection = Selection::parse(call, &Target { resource: measured.clone(), ..target.clone() })?;
    let usage = call.server.nodes()?.usage().await?;
    if !target.name.is_empty() {
        let stored = call.server.store.get(&keys::known("", plural, &target.namespace, &target.name));
        let found = stored.and_then(|stored| item(plural, &object::decode(&stored.value), &usage));
        let found = found.ok_or_else(|| status::not_found(&target.resource, &target.name))?;
        return Ok(respond::json(StatusCode::OK, &found));
    }
    let prefix = keys::prefix(&measured, &target.namespace);
    let range = call.server.store.range(prefix.as_bytes(), None, 0, None)?;
    let items: Vec<Value> = range
        .items
        .iter()
        .filter(|stored| selection.matches(&measured, &stored.value))
        .filter_map(|stored| item(plural, &object::decode(&stored.value), &usage))
        .collect();
    let list = json!({
        "kind": target.resource.list_kind, "apiVersion": target.resource.api_version(),
        "metadata": {}, "items": items,
    });
    Ok(respond::json(StatusCode::OK, &list))
}

fn item(plural: &str, object: &Value, usage: &[NodeUsage]) -> Option<Value> {
    let (namespace, name) = (meta::namespace(object), meta::name(object));
    if plural == "nodes" {
        let node = usage.iter().find(|node| node.node == name)?;
        let mut item = envelope("NodeMetrics", object, &node.whole);
        item["usage"] = amounts(&node.whole);
        return Some(item);
    }
    let pod: &PodUsage =
        usage.iter().flat_map(|node| &node.pods).find(|pod| pod.namespace == namespace && pod.name == name)?;
    let (_, first) = pod.containers.first()?;
    let mut item = envelope("PodMetrics", object, first);
    item["containers"] =
        pod.containers.iter().map(|(name, usage)| json!({"name": name, "usage": amounts(usage)})).collect();
    Some(item)
}

fn envelope(kind: &str, object: &Value, usage: &Usage) -> Value {
    let mut metadata = json!({"name": meta::name(object), "creationTimestamp": kube_types::time::rfc3339(usage.at)});
    if !meta::namespace(object).is_empty() {
        metadata["namespace"] = meta::namespace(object).into();
    }
    if object["metadata"]["labels"].is_object() {
        metadata["labels"] = object["metadata"]["labels"].clone();
    }
    json!({
        "kind": kind, "apiVersion": "metrics.k8s.io/v1beta1", "metadata": metadata,
        "timestamp": kube_types::time::rfc3339(usage.at), "window": format!("{:.3}s", usage.window.as_secs_f64()),
    })
}

fn amounts(usage: &Usage) -> Value {
    json!({"cpu": format!("{}n", usage.cpu_nanocores), "memory": format!("{}Ki", usage.memory_bytes / 1024)})
}
