//! What a node's agent may do: its own node, lease and pods, and the secrets, config maps and tokens that those pods need.
//!
//! Basic form of Kubernetes' node authoriser and NodeRestriction: what a pod refers to is read from the pods that are
//! bound to the node, at the time of the request.

use kube_types::{meta, status};
use serde_json::Value;

use super::Attributes;
use crate::call::{Call, Target};
use crate::error::ApiResult;
use crate::identity::Identity;
use crate::keys;
use crate::object::{self, text};
use crate::server::ApiServer;
use crate::token::BoundObject;

pub(crate) fn allows(server: &ApiServer, user: &Identity, attributes: &Attributes<'_>) -> bool {
    let Some(node) = user.node_name() else {
        return false;
    };
    if attributes.path.is_some() {
        return false;
    }
    let reads = matches!(attributes.verb, "get" | "list" | "watch");
    let own = attributes.name == node;
    match (attributes.group, attributes.resource, attributes.subresource) {
        ("", "nodes", "") => {
            reads || (attributes.verb == "create") || (own && matches!(attributes.verb, "update" | "patch"))
        }
        ("", "nodes", "status") => own && matches!(attributes.verb, "update" | "patch"),
        ("", "pods", "") => reads || matches!(attributes.verb, "create" | "delete"),
        ("", "pods", "status") => matches!(attributes.verb, "update" | "patch"),
        ("", "services", "") | ("discovery.k8s.io", "endpointslices", "") => reads,
        ("node.k8s.io", "runtimeclasses", "") => reads,
        ("", "events", "") | ("events.k8s.io", "events", "") => {
            matches!(attributes.verb, "create" | "update" | "patch")
        }
        ("coordination.k8s.io", "leases", "") => {
            attributes.namespace == "kube-node-lease" && (own || attributes.verb == "create")
        }
        ("storage.k8s.io", "csinodes", "") => own || attributes.verb == "create",
        ("storage.k8s.io", "csidrivers" | "volumeattachments", "") => reads,
        ("certificates.k8s.io", "certificatesigningrequests", "") => reads || attributes.verb == "create",
        ("authentication.k8s.io", "tokenreviews", "")
        | ("authorization.k8s.io", "subjectaccessreviews" | "localsubjectaccessreviews", "") => {
            attributes.verb == "create"
        }
        ("", "serviceaccounts", "token") => attributes.verb == "create",
        ("", "secrets" | "configmaps" | "persistentvolumeclaims" | "serviceaccounts", "") => {
            reads && !attributes.name.is_empty() && is_needed(server, node, attributes)
        }
        ("", "persistentvolumes", "") => attributes.verb == "get",
        _ => false,
    }
}

/// Pods that are bound to the node in a namespace.
fn pods_of(server: &ApiServer, node: &str, namespace: &str) -> Vec<Value> {
    let prefix = keys::known("", "pods", namespace, "");
    let range = server.store.range(&prefix, None, 0, None);
    let items = range.map(|range| range.items).unwrap_or_default();
    items.iter().map(|item| object::decode(&item.value)).filter(|pod| text(pod, "/spec/nodeName") == node).collect()
}

fn is_needed(server: &ApiServer, node: &str, attributes: &Attributes<'_>) -> bool {
    if attributes.namespace.is_empty() {
        return false;
    }
    let fields: &[&str] = match attributes.resource {
        "secrets" => &["secretName", "secretRef", "secretKeyRef", "secret", "imagePullSecrets", "nodePublishSecretRef"],
        "configmaps" => &["configMap", "configMapRef", "configMapKeyRef"],
        "persistentvolumeclaims" => &["claimName"],
        _ => &["serviceAccountName"],
    };
    pods_of(server, node, attributes.namespace).iter().any(|pod| {
        let ephemeral = attributes.resource == "persistentvolumeclaims" && has_ephemeral_claim(pod, attributes.name);
        ephemeral || refers(&pod["spec"], fields, attributes.name)
    })
}

/// The claim of an ephemeral volume is named after its pod and the volume; the pod's spec does not say so.
fn has_ephemeral_claim(pod: &Value, name: &str) -> bool {
    let volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
    volumes.filter(|volume| volume["ephemeral"].is_object()).any(|volume| {
        let own = volume["name"].as_str().unwrap_or_default();
        name.strip_prefix(meta::name(pod)).and_then(|rest| rest.strip_prefix('-')) == Some(own)
    })
}

/// Whether a spec names `name` in one of these fields, directly or as `{name: …}`.
fn refers(value: &Value, fields: &[&str], name: &str) -> bool {
    match value {
        Value::Object(members) => members.iter().any(|(key, member)| {
            let hit = fields.contains(&key.as_str())
                && (member == name
                    || member["name"] == name
                    || member.as_array().is_some_and(|list| list.iter().any(|one| one["name"] == name)));
            hit || refers(member, fields, name)
        }),
        Value::Array(items) => items.iter().any(|item| refers(item, fields, name)),
        _ => false,
    }
}

/// A node lists and watches only its own pods.
pub(super) fn check_selector(call: &Call, attributes: &Attributes<'_>) -> ApiResult<()> {
    let Some(node) = restricted(call) else {
        return Ok(());
    };
    if attributes.resource != "pods" || !attributes.group.is_empty() || !matches!(attributes.verb, "list" | "watch") {
        return Ok(());
    }
    let selector = call.query.text("fieldSelector").unwrap_or_default();
    let own = format!("spec.nodeName={node}");
    if selector.split(',').any(|part| part.replace("==", "=") == own) {
        return Ok(());
    }
    Err(super::denial(&call.user, attributes))
}

/// The node that a request is restricted to.
fn restricted(call: &Call) -> Option<&str> {
    if call.user.is_master() { None } else { call.user.node_name() }
}

/// NodeRestriction: a node changes its own object, and not the labels that decide what is placed on it.
pub(crate) fn check_node_write(call: &Call, target: &Target, new: &Value, old: Option<&Value>) -> ApiResult<()> {
    let Some(node) = restricted(call) else {
        return Ok(());
    };
    if meta::name(new) != node {
        let text = format!("node {node:?} is not allowed to modify node {:?}", meta::name(new));
        return Err(status::forbidden(&target.resource, meta::name(new), &text).into());
    }
    let restricted_labels = |object: &Value| -> Vec<(String, String)> {
        let is_restricted = |key: &str| {
            key.split('/').next().is_some_and(|prefix| {
                prefix == "node-restriction.kubernetes.io" || prefix.ends_with(".node-restriction.kubernetes.io")
            })
        };
        meta::labels(object)
            .filter(|(key, _)| is_restricted(key))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect()
    };
    if restricted_labels(new) != old.map(restricted_labels).unwrap_or_default() {
        let text = "is not allowed to modify labels: node-restriction.kubernetes.io";
        return Err(status::forbidden(&target.resource, node, &format!("node {node:?} {text}")).into());
    }
    if old.is_some_and(|old| old["spec"]["taints"] != new["spec"]["taints"]) {
        let text = format!("node {node:?} is not allowed to modify taints");
        return Err(status::forbidden(&target.resource, node, &text).into());
    }
    Ok(())
}

pub(crate) fn check_pod_write(call: &Call, target: &Target, pod: &Value) -> ApiResult<()> {
    let Some(node) = restricted(call) else {
        return Ok(());
    };
    if text(pod, "/spec/nodeName") == node {
        return Ok(());
    }
    let text = format!("node {node:?} can only change pods with spec.nodeName set to itself");
    Err(status::forbidden(&target.resource, &target.name, &text).into())
}

/// A node makes mirror pods of itself only.
pub(crate) fn check_pod_create(call: &Call, target: &Target, pod: &Value) -> ApiResult<()> {
    let Some(node) = restricted(call) else {
        return Ok(());
    };
    if meta::annotation(pod, "kubernetes.io/config.mirror").is_some() && text(pod, "/spec/nodeName") == node {
        return Ok(());
    }
    let text = format!(
        "pod does not have \"kubernetes.io/config.mirror\" annotation, node {node:?} can only create mirror pods"
    );
    Err(status::forbidden(&target.resource, meta::name(pod), &text).into())
}

/// A node gets tokens only for pods that it runs.
pub(crate) fn check_token_request(call: &Call, target: &Target, bound: Option<&BoundObject>) -> ApiResult<()> {
    let Some(node) = restricted(call) else {
        return Ok(());
    };
    let refusal = match bound {
        Some(bound) if bound.plural == "pods" && bound.node == node => return Ok(()),
        Some(bound) if bound.plural == "pods" => "node requested token bound to a pod scheduled on a different node",
        Some(_) | None => "node requested token not bound to a pod",
    };
    Err(status::forbidden(&target.resource, &target.name, refusal).into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_claim_of_an_ephemeral_volume_is_its_pods() {
        let volumes =
            json!([{"name": "data", "ephemeral": {"volumeClaimTemplate": {}}}, {"name": "tmp", "emptyDir": {}}]);
        let pod = json!({"metadata": {"name": "web"}, "spec": {"volumes": volumes}});
        assert!(has_ephemeral_claim(&pod, "web-data"));
        for other in ["web-tmp", "data", "web", "webdata", "other-data"] {
            assert!(!has_ephemeral_claim(&pod, other), "{other}");
        }
    }

    #[test]
    fn a_pod_refers_to_secrets_and_config_maps_in_all_places() {
        let spec = json!({
            "imagePullSecrets": [{"name": "pull"}],
            "containers": [{"env": [{"valueFrom": {"secretKeyRef": {"name": "env", "key": "k"}}}], "envFrom": [{"configMapRef": {"name": "from"}}]}],
            "volumes": [{"secret": {"secretName": "vol"}}, {"projected": {"sources": [{"configMap": {"name": "proj"}}]}}],
        });
        let secrets = ["secretName", "secretRef", "secretKeyRef", "secret", "imagePullSecrets"];
        for name in ["pull", "env", "vol"] {
            assert!(refers(&spec, &secrets, name), "{name}");
        }
        assert!(!refers(&spec, &secrets, "proj"));
        assert!(refers(&spec, &["configMap", "configMapRef"], "proj"));
        assert!(!refers(&spec, &["configMap", "configMapRef"], "k"));
    }
}
