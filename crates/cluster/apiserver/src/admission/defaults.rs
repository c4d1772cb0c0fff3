//! Defaults that come from other objects: storage class, ingress class, runtime class; and claims that may not grow.

use kube_types::{meta, status};
use serde_json::{Value, json};

use crate::call::{Call, Target};
use crate::error::ApiResult;
use crate::{keys, object};

fn all(call: &Call, group: &str, plural: &str) -> ApiResult<Vec<Value>> {
    let found = call.server.store.range(&keys::known(group, plural, "", ""), None, 0, None)?.items;
    Ok(found.iter().map(|item| object::decode(&item.value)).collect())
}

/// The newest of those that are marked as default; the first by name of several of one age.
fn marked(classes: Vec<Value>, annotation: &str) -> Option<Value> {
    let mut marked: Vec<Value> =
        classes.into_iter().filter(|class| meta::annotation(class, annotation) == Some("true")).collect();
    marked.sort_by(|one, other| {
        meta::creation(other).cmp(&meta::creation(one)).then_with(|| meta::name(one).cmp(meta::name(other)))
    });
    (!marked.is_empty()).then(|| marked.swap_remove(0))
}

/// DefaultStorageClass
pub(super) fn storage_class(call: &Call, claim: &mut Value) -> ApiResult<()> {
    let named = claim.pointer("/spec/storageClassName").is_some()
        || meta::annotation(claim, "volume.beta.kubernetes.io/storage-class").is_some();
    if named {
        return Ok(());
    }
    let classes = all(call, "storage.k8s.io", "storageclasses")?;
    if let Some(class) = marked(classes, "storageclass.kubernetes.io/is-default-class") {
        claim["spec"]["storageClassName"] = meta::name(&class).into();
    }
    Ok(())
}

/// PersistentVolumeClaimResize: a claim grows only where its class lets it.
pub(super) fn claim_growth(call: &Call, target: &Target, old: &Value, new: &Value) -> ApiResult<()> {
    let size = |claim: &Value| {
        let text = claim.pointer("/spec/resources/requests/storage").and_then(Value::as_str)?.to_owned();
        kube_types::quantity::parse(&text).ok()
    };
    let (Some(before), Some(after)) = (size(old), size(new)) else { return Ok(()) };
    if after <= before {
        return Ok(());
    }
    let refuse = |text: &str| Err(status::forbidden(&target.resource, &target.name, text).into());
    if old["status"]["phase"] != "Bound" {
        return refuse("Only bound persistent volume claims can be expanded");
    }
    let name = object::text(old, "/spec/storageClassName");
    let class = call.server.store.get(&keys::known("storage.k8s.io", "storageclasses", "", name));
    let expands = class.is_some_and(|class| object::decode(&class.value)["allowVolumeExpansion"] == true);
    if name.is_empty() || !expands {
        return refuse(
            "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize",
        );
    }
    Ok(())
}

/// DefaultIngressClass
pub(super) fn ingress_class(call: &Call, target: &Target, ingress: &mut Value) -> ApiResult<()> {
    let named = ingress.pointer("/spec/ingressClassName").is_some()
        || meta::annotation(ingress, "kubernetes.io/ingress.class").is_some();
    if named {
        return Ok(());
    }
    let classes = all(call, "networking.k8s.io", "ingressclasses")?;
    if let Some(class) = marked(classes, "ingressclass.kubernetes.io/is-default-class") {
        if !ingress["spec"].is_object() {
            return Err(status::bad_request(format!("{} has no spec", target.resource.kind)).into());
        }
        ingress["spec"]["ingressClassName"] = meta::name(&class).into();
    }
    Ok(())
}

/// RuntimeClass: the class must exist; its overhead and its nodes become the pod's.
pub(super) fn runtime_class(call: &Call, target: &Target, pod: &mut Value) -> ApiResult<()> {
    let name = object::text(pod, "/spec/runtimeClassName").to_owned();
    let refuse = |text: String| Err(status::forbidden(&target.resource, "", &text).into());
    if name.is_empty() {
        if pod.pointer("/spec/overhead").and_then(Value::as_object).is_some_and(|overhead| !overhead.is_empty()) {
            return refuse("pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead".to_owned());
        }
        return Ok(());
    }
    let Some(found) = call.server.store.get(&keys::known("node.k8s.io", "runtimeclasses", "", &name)) else {
        return refuse(format!("pod rejected: RuntimeClass {name:?} not found"));
    };
    let class = object::decode(&found.value);
    let overhead = class.pointer("/overhead/podFixed").cloned();
    match (pod.pointer("/spec/overhead"), overhead) {
        (Some(own), wanted) if own.as_object().is_some_and(|own| !own.is_empty()) && wanted.as_ref() != Some(own) => {
            return refuse("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead".to_owned());
        }
        (_, Some(wanted)) => pod["spec"]["overhead"] = wanted,
        (_, None) => {}
    }
    for (key, value) in class["scheduling"]["nodeSelector"].as_object().into_iter().flatten() {
        let own = pod.pointer("/spec/nodeSelector").and_then(|selector| selector.get(key));
        if own.is_some_and(|own| own != value) {
            return refuse(format!(
                "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {}; pod.spec.nodeSelector[{key}] = {}",
                value.as_str().unwrap_or_default(),
                own.and_then(Value::as_str).unwrap_or_default()
            ));
        }
        pod["spec"]["nodeSelector"][key] = value.clone();
    }
    for toleration in class["scheduling"]["tolerations"].as_array().into_iter().flatten() {
        if !pod["spec"]["tolerations"].is_array() {
            pod["spec"]["tolerations"] = json!([]);
        }
        if let Some(own) = pod["spec"]["tolerations"].as_array_mut().filter(|own| !own.contains(toleration)) {
            own.push(toleration.clone());
        }
    }
    Ok(())
}

/// TaintNodesByCondition: a node takes no pods until it has said that it is ready.
pub(super) fn new_node(node: &mut Value) {
    const NOT_READY: &str = "node.kubernetes.io/not-ready";
    if !node["spec"].is_object() {
        node["spec"] = json!({});
    }
    if !node["spec"]["taints"].is_array() {
        node["spec"]["taints"] = json!([]);
    }
    if let Some(taints) = node["spec"]["taints"].as_array_mut()
        && !taints.iter().any(|taint| taint["key"] == NOT_READY && taint["effect"] == "NoSchedule")
    {
        taints.push(json!({"key": NOT_READY, "effect": "NoSchedule"}));
    }
}
