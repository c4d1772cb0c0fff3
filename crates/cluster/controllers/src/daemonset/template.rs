//! The pods that a DaemonSet makes: pinned to their node, tolerant of what comes and goes with a node's health.

use super::revisions::HASH_LABEL;
use crate::owners;
use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetSpec};
use k8s_openapi::api::core::v1::{NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

const NAME_FIELD: &str = "metadata.name";
const GENERATION_LABEL: &str = "pod-template-generation";
const GENERATION: &str = "deprecated.daemonset.template.generation";

/// The template's spec with the tolerations of every daemon.
pub(super) fn pod_spec(spec: &DaemonSetSpec) -> PodSpec {
    let mut pod = spec.template.spec.clone().unwrap_or_default();
    let host_network = pod.host_network == Some(true);
    let tolerations = pod.tolerations.get_or_insert_default();
    let mut add = |key: &str, effect: &str| {
        let full = format!("node.kubernetes.io/{key}");
        let there = tolerations.iter().any(|t| {
            t.key.as_deref() == Some(&*full)
                && t.effect.as_deref() == Some(effect)
                && t.operator.as_deref() == Some("Exists")
        });
        if !there {
            tolerations.push(Toleration {
                key: Some(full),
                operator: Some("Exists".into()),
                effect: Some(effect.into()),
                ..Toleration::default()
            });
        }
    };
    add("not-ready", "NoExecute");
    add("unreachable", "NoExecute");
    for key in ["disk-pressure", "memory-pressure", "pid-pressure", "unschedulable"] {
        add(key, "NoSchedule");
    }
    if host_network {
        add("network-unavailable", "NoSchedule");
    }
    pod
}

pub(super) fn pod(set: &DaemonSet, spec: &DaemonSetSpec, node: &str, hash: &str) -> Pod {
    let meta = spec.template.metadata.clone().unwrap_or_default();
    let mut labels = meta.labels.unwrap_or_default();
    labels.insert(HASH_LABEL.into(), hash.to_owned());
    let generation = set.metadata.annotations.as_ref().and_then(|a| a.get(GENERATION)).cloned();
    let generation = generation.or_else(|| set.metadata.generation.map(|g| g.to_string()));
    labels.extend(generation.map(|g| (GENERATION_LABEL.to_owned(), g)));
    let mut pod_spec = pod_spec(spec);
    pin(&mut pod_spec, node);
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", set.metadata.name.as_deref().unwrap_or_default())),
            namespace: set.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            owner_references: Some(vec![owners::reference::<DaemonSet>(&set.metadata)]),
            ..ObjectMeta::default()
        },
        spec: Some(pod_spec),
        status: None,
    }
}

/// The node was chosen with the template's own rules; from here on only its name counts.
fn pin(spec: &mut PodSpec, node: &str) {
    let name =
        NodeSelectorRequirement { key: NAME_FIELD.into(), operator: "In".into(), values: Some(vec![node.to_owned()]) };
    let term = NodeSelectorTerm { match_fields: Some(vec![name]), ..NodeSelectorTerm::default() };
    let affinity = spec.affinity.get_or_insert_default().node_affinity.get_or_insert_default();
    let required = NodeSelector { node_selector_terms: vec![term] };
    affinity.required_during_scheduling_ignored_during_execution = Some(required);
}

/// The node that a daemon pod is on, or is meant for.
pub fn target_node(pod: &Pod) -> Option<&str> {
    if let Some(node) = crate::pods::node_name(pod) {
        return Some(node);
    }
    let affinity = pod.spec.as_ref()?.affinity.as_ref()?.node_affinity.as_ref()?;
    let terms = &affinity.required_during_scheduling_ignored_during_execution.as_ref()?.node_selector_terms;
    let field = terms.iter().flat_map(|t| t.match_fields.iter().flatten()).find(|f| f.key == NAME_FIELD)?;
    field.values.as_ref()?.first().map(String::as_str)
}
