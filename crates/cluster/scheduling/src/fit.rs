//! Whether one node suits a pod, looked at alone: name, selectors and taints, without the room that is left.
//!
//! For controllers that choose nodes themselves (DaemonSet) or judge running pods; the same words as the filters.

use crate::filter::tolerates;
use crate::labels;
use k8s_openapi::api::core::v1::{Node, NodeSelector, PodSpec, Taint};

/// nodeName, nodeSelector and required node affinity.
pub fn selects(spec: &PodSpec, node: &Node) -> bool {
    if spec.node_name.as_ref().is_some_and(|name| !name.is_empty() && Some(name) != node.metadata.name.as_ref()) {
        return false;
    }
    let label = |key: &str| node.metadata.labels.as_ref().and_then(|l| l.get(key));
    if !spec.node_selector.iter().flatten().all(|(key, value)| label(key) == Some(value)) {
        return false;
    }
    let affinity = spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
    let required = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    required.is_none_or(|required| labels::node_matches_any(&required.node_selector_terms, node))
}

/// The first taint with one of the effects that the pod does not tolerate.
pub fn untolerated<'a>(spec: &PodSpec, node: &'a Node, effects: &[&str]) -> Option<&'a Taint> {
    let tolerations = spec.tolerations.as_deref().unwrap_or_default();
    let taints = node.spec.as_ref().and_then(|s| s.taints.as_deref()).unwrap_or_default();
    let minded = |t: &&Taint| effects.contains(&t.effect.as_str()) && !tolerations.iter().any(|o| tolerates(o, t));
    taints.iter().find(minded)
}

/// A selector of nodes, as volumes carry it.
pub fn node_selector_matches(selector: &NodeSelector, node: &Node) -> bool {
    labels::node_matches_any(&selector.node_selector_terms, node)
}
