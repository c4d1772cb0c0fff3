//! `fieldRef` and `resourceFieldRef`: what a pod may know of itself.
//!
//! Used for environment variables and downwardAPI files. Pure. Invariant: an unknown path is an error with
//! Kubernetes' words, never an empty string.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, ObjectFieldSelector, Pod, ResourceFieldSelector};
use pod_plan::quantity;

/// What the pod learns from where it runs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Place {
    pub(crate) node_name: String,
    pub(crate) host_ips: Vec<String>,
    pub(crate) pod_ips: Vec<String>,
    pub(crate) allocatable_millicpu: i64,
    pub(crate) allocatable_memory_bytes: i64,
}

fn escape(value: &str) -> String {
    // As Go's %q, which is what kubelet writes.
    serde_json::to_string(value).unwrap_or_default()
}

fn map_lines(map: Option<&BTreeMap<String, String>>) -> String {
    let lines: Vec<String> = map.into_iter().flatten().map(|(key, value)| format!("{key}={}", escape(value))).collect();
    lines.join("\n")
}

fn subscript<'a>(path: &'a str, field: &str) -> Option<&'a str> {
    path.strip_prefix(field)?.strip_prefix("['")?.strip_suffix("']")
}

/// The value of a field of the pod.
pub(crate) fn field(pod: &Pod, place: &Place, selector: &ObjectFieldSelector) -> Result<String, String> {
    let metadata = &pod.metadata;
    let spec = pod.spec.as_ref();
    let path = selector.field_path.as_str();
    let text = |value: Option<&String>| Ok(value.cloned().unwrap_or_default());
    let of = |map: Option<&BTreeMap<String, String>>, key: &str| {
        Ok(map.and_then(|map| map.get(key)).cloned().unwrap_or_default())
    };
    if let Some(key) = subscript(path, "metadata.labels") {
        return of(metadata.labels.as_ref(), key);
    }
    if let Some(key) = subscript(path, "metadata.annotations") {
        return of(metadata.annotations.as_ref(), key);
    }
    match path {
        "metadata.name" => text(metadata.name.as_ref()),
        "metadata.namespace" => text(metadata.namespace.as_ref()),
        "metadata.uid" => text(metadata.uid.as_ref()),
        "metadata.labels" => Ok(map_lines(metadata.labels.as_ref())),
        "metadata.annotations" => Ok(map_lines(metadata.annotations.as_ref())),
        "spec.nodeName" => Ok(place.node_name.clone()),
        "spec.serviceAccountName" => text(spec.and_then(|spec| spec.service_account_name.as_ref())),
        "status.hostIP" => text(place.host_ips.first()),
        "status.hostIPs" => Ok(place.host_ips.join(",")),
        "status.podIP" => text(place.pod_ips.first()),
        "status.podIPs" => Ok(place.pod_ips.join(",")),
        other => Err(format!("unsupported fieldPath: {other}")),
    }
}

/// The value of a container's request or limit, in units of the divisor, rounded up.
pub(crate) fn resource(
    containers: &[&Container],
    own: Option<&Container>,
    place: &Place,
    selector: &ResourceFieldSelector,
) -> Result<String, String> {
    let container = match &selector.container_name {
        Some(name) => containers
            .iter()
            .copied()
            .find(|one| &one.name == name)
            .ok_or_else(|| format!("container {name} not found"))?,
        None => own.ok_or("resourceFieldRef needs a containerName here")?,
    };
    let (kind, name) = selector
        .resource
        .split_once('.')
        .ok_or_else(|| format!("unsupported container resource : {}", selector.resource))?;
    let resources = container.resources.as_ref();
    let map = match kind {
        "limits" => resources.and_then(|r| r.limits.as_ref()),
        "requests" => resources.and_then(|r| r.requests.as_ref()),
        _ => return Err(format!("unsupported container resource : {}", selector.resource)),
    };
    let found = map.and_then(|map| map.get(name)).and_then(quantity::millis);
    // A missing limit means all that the node has; a missing request means none.
    let millis = found.unwrap_or_else(|| match (kind, name) {
        ("limits", "cpu") => i128::from(place.allocatable_millicpu),
        ("limits", "memory") => i128::from(place.allocatable_memory_bytes) * 1000,
        _ => 0,
    });
    let divisor = selector.divisor.as_ref().and_then(quantity::millis).filter(|divisor| *divisor > 0).unwrap_or(1000);
    let up = millis.div_euclid(divisor) + i128::from(millis.rem_euclid(divisor) != 0);
    Ok(up.to_string())
}
