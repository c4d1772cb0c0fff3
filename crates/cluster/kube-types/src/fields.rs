//! Fields that a field selector may name, and their values.
//!
//! Used by list, watch and delete-collection. The set is fixed per kind, as in Kubernetes; a custom resource's is name and
//! namespace and what its definition adds.

use crate::registry::{Resource, Text};
use serde_json::Value;
use std::collections::BTreeMap;

/// (label in the selector, path in the object)
type Pair = (&'static str, &'static str);

/// The label is the path.
const fn same(path: &'static str) -> Pair {
    (path, path)
}

static PODS: &[Pair] = &[
    same("spec.nodeName"),
    same("spec.restartPolicy"),
    same("spec.schedulerName"),
    same("spec.serviceAccountName"),
    same("spec.hostNetwork"),
    same("status.phase"),
    same("status.podIP"),
    same("status.nominatedNodeName"),
];
static CORE_EVENTS: &[Pair] = &[
    same("involvedObject.kind"),
    same("involvedObject.namespace"),
    same("involvedObject.name"),
    same("involvedObject.uid"),
    same("involvedObject.apiVersion"),
    same("involvedObject.resourceVersion"),
    same("involvedObject.fieldPath"),
    same("reason"),
    same("reportingComponent"),
    ("source", "source.component"),
    same("type"),
];
static EVENTS: &[Pair] = &[
    same("regarding.kind"),
    same("regarding.namespace"),
    same("regarding.name"),
    same("regarding.uid"),
    same("regarding.apiVersion"),
    same("regarding.resourceVersion"),
    same("regarding.fieldPath"),
    same("reason"),
    same("reportingController"),
    same("type"),
];

fn pairs(resource: &Resource) -> &'static [Pair] {
    match resource.group_kind() {
        ("", "Pod") => PODS,
        ("", "Event") => CORE_EVENTS,
        ("events.k8s.io", "Event") => EVENTS,
        ("", "Node") => const { &[same("spec.unschedulable")] },
        ("", "Namespace") => const { &[("name", "metadata.name"), same("status.phase")] },
        ("", "Secret") => const { &[same("type")] },
        ("", "Service") => const { &[same("spec.clusterIP"), same("spec.type")] },
        ("", "ReplicationController") | ("apps", "ReplicaSet") => const { &[same("status.replicas")] },
        ("batch", "Job") => const { &[("status.successful", "status.succeeded")] },
        ("certificates.k8s.io", "CertificateSigningRequest") => const { &[same("spec.signerName")] },
        ("resource.k8s.io", "ResourceSlice") => const { &[same("spec.nodeName"), same("spec.driver")] },
        _ => &[],
    }
}

/// Label → value for every field that this resource lets a field selector name.
pub fn selectable(resource: &Resource, object: &Value) -> BTreeMap<Text, String> {
    let mut found = BTreeMap::from([("metadata.name".into(), at_path(object, "metadata.name"))]);
    if resource.namespaced {
        found.insert("metadata.namespace".into(), at_path(object, "metadata.namespace"));
    }
    for (label, path) in pairs(resource) {
        found.insert((*label).into(), at_path(object, path));
    }
    for path in own_paths(resource) {
        let value = crate::custom::json_path::at(object, path);
        let value = value.map_or_else(String::new, |v| v.as_str().map_or_else(|| v.to_string(), str::to_owned));
        found.insert(path.clone().into(), value);
    }
    found
}

/// The paths that a custom resource's definition lets a selector name.
fn own_paths(resource: &Resource) -> &[String] {
    resource.custom().map_or(&[], |custom| &custom.selectable)
}

/// Whether a field selector on this resource may name `field`; if not, the request is a 400 ([`unsupported`]).
pub fn is_selectable(resource: &Resource, field: &str) -> bool {
    field == "metadata.name"
        || field == "metadata.namespace" && resource.namespaced
        || pairs(resource).iter().any(|(label, _)| *label == field)
        || own_paths(resource).iter().any(|path| path == field)
}

/// The text of that 400.
pub fn unsupported(resource: &Resource, field: &str) -> String {
    match resource.group_kind() {
        ("", _) => format!("field label not supported: {field}"),
        _ => format!("field label {field:?} not supported for {}", resource.kind),
    }
}

/// Absent reads as Go's zero value: false for the two flags, 0 for the two counts, else empty.
fn at_path(object: &Value, path: &str) -> String {
    let found = path.split('.').try_fold(object, |value, key| value.get(key));
    match found {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None => match path {
            "spec.unschedulable" | "spec.hostNetwork" => "false".into(),
            "status.replicas" | "status.succeeded" => "0".into(),
            _ => String::new(),
        },
        Some(other) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::find_by_gvr;
    use crate::selector::FieldSelector;
    use serde_json::json;

    #[test]
    fn pods_can_be_chosen_by_node_and_phase() {
        let pods = find_by_gvr("", "v1", "pods").unwrap();
        let pod = json!({"metadata": {"name": "a", "namespace": "n"}, "spec": {"nodeName": "one"}, "status": {"phase": "Running"}});
        let fields = selectable(pods, &pod);
        for (selector, expected) in [
            ("spec.nodeName=one", true),
            ("spec.nodeName!=one", false),
            ("status.phase=Running,metadata.name=a", true),
            ("status.podIP=", true),
            ("spec.hostNetwork=false", true),
        ] {
            assert_eq!(FieldSelector::parse(selector).unwrap().matches(&fields), expected, "{selector}");
        }
        assert!(is_selectable(pods, "spec.nodeName") && !is_selectable(pods, "spec.containers"));
        assert!(!is_selectable(find_by_gvr("", "v1", "nodes").unwrap(), "metadata.namespace"));
    }

    #[test]
    fn a_node_without_the_flag_is_schedulable() {
        let nodes = find_by_gvr("", "v1", "nodes").unwrap();
        assert_eq!(selectable(nodes, &json!({"metadata": {"name": "n"}}))["spec.unschedulable"], "false");
    }
}
