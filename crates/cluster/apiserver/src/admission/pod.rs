//! Pods: the service account and its token volume, default tolerations, priority.

use kube_types::{meta, status};
use serde_json::{Value, json};

use crate::call::{Call, Target};
use crate::error::ApiResult;
use crate::{keys, object};

const TOKEN_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const MIRROR: &str = "kubernetes.io/config.mirror";
const EVICTED_AFTER_SECONDS: i64 = 300;

pub(super) fn on_create(call: &Call, target: &Target, pod: &mut Value) -> ApiResult<()> {
    crate::authz::node::check_pod_create(call, target, pod)?;
    pod["status"] = json!({"phase": "Pending"});
    if meta::annotation(pod, MIRROR).is_none() {
        add_service_account(call, target, pod)?;
    }
    add_tolerations(pod);
    add_priority(call, target, pod)
}

/// Once every default of its resources is there.
pub(super) fn classify(pod: &mut Value) {
    pod["status"]["qosClass"] = qos_class(pod).into();
}

fn add_service_account(call: &Call, target: &Target, pod: &mut Value) -> ApiResult<()> {
    let name = match object::text(pod, "/spec/serviceAccountName") {
        "" => "default".to_owned(),
        name => name.to_owned(),
    };
    pod["spec"]["serviceAccountName"] = name.as_str().into();
    pod["spec"]["serviceAccount"] = name.as_str().into();
    let Some(found) = call.server.store.get(&keys::known("", "serviceaccounts", &target.namespace, &name)) else {
        let text =
            format!("error looking up service account {}/{name}: serviceaccount {name:?} not found", target.namespace);
        return Err(status::forbidden(&target.resource, meta::name(pod), &text).into());
    };
    let account = object::decode(&found.value);
    let secrets = &account["imagePullSecrets"];
    if pod.pointer("/spec/imagePullSecrets").is_none_or(|own| own.as_array().is_none_or(Vec::is_empty))
        && secrets.is_array()
    {
        pod["spec"]["imagePullSecrets"] = secrets.clone();
    }
    let wanted = pod
        .pointer("/spec/automountServiceAccountToken")
        .or_else(|| account.get("automountServiceAccountToken"))
        .and_then(Value::as_bool)
        .unwrap_or(true);
    if wanted {
        mount_token(pod);
    }
    Ok(())
}

/// The projected volume of token, CA and namespace, in every container that has nothing at that place.
fn mount_token(pod: &mut Value) {
    let existing = pod["spec"]["volumes"].as_array().into_iter().flatten();
    let existing =
        existing.filter_map(|volume| volume["name"].as_str()).find(|name| name.starts_with("kube-api-access-"));
    let (name, is_new) = match existing {
        Some(name) => (name.to_owned(), false),
        None => (kube_types::names::generate("kube-api-access-", rand::random()), true),
    };
    let mut mounted = false;
    for list in ["initContainers", "containers"] {
        // `pointer_mut`, because indexing would leave a null where there is no such list.
        let containers = pod.pointer_mut(&format!("/spec/{list}")).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            let present = container.get("volumeMounts").and_then(Value::as_array);
            let mut mounts = present.cloned().unwrap_or_default();
            if !mounts.iter().any(|mount| mount["mountPath"] == TOKEN_PATH) {
                mounts.push(json!({"name": name, "readOnly": true, "mountPath": TOKEN_PATH}));
                container["volumeMounts"] = mounts.into();
                mounted = true;
            }
        }
    }
    if !(mounted && is_new) {
        return;
    }
    let volume = json!({"name": name, "projected": {"defaultMode": 420, "sources": [
        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [
            {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}},
        ]}},
    ]}});
    match pod.pointer_mut("/spec/volumes").and_then(Value::as_array_mut) {
        Some(volumes) => volumes.push(volume),
        None => pod["spec"]["volumes"] = json!([volume]),
    }
}

fn add_tolerations(pod: &mut Value) {
    if !pod["spec"]["tolerations"].is_array() {
        pod["spec"]["tolerations"] = json!([]);
    }
    let Some(tolerations) = pod["spec"]["tolerations"].as_array_mut() else {
        return;
    };
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let tolerated = tolerations.iter().any(|own| {
            let effect = own["effect"].as_str().unwrap_or_default();
            let own_key = own["key"].as_str().unwrap_or_default();
            (own_key == key || own_key.is_empty()) && (effect == "NoExecute" || effect.is_empty())
        });
        if !tolerated {
            tolerations.push(json!({
                "key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": EVICTED_AFTER_SECONDS,
            }));
        }
    }
}

fn add_priority(call: &Call, target: &Target, pod: &mut Value) -> ApiResult<()> {
    let name = object::text(pod, "/spec/priorityClassName").to_owned();
    let class = if name.is_empty() {
        default_priority_class(call)
    } else {
        let found = call.server.store.get(&keys::known("scheduling.k8s.io", "priorityclasses", "", &name));
        let Some(found) = found else {
            let text = format!("no PriorityClass with name {name} was found");
            return Err(status::forbidden(&target.resource, meta::name(pod), &text).into());
        };
        Some(object::decode(&found.value))
    };
    let (value, policy) = match &class {
        Some(class) => {
            if name.is_empty() {
                pod["spec"]["priorityClassName"] = meta::name(class).into();
            }
            let policy = class["preemptionPolicy"].as_str().unwrap_or("PreemptLowerPriority");
            (class["value"].as_i64().unwrap_or(0), policy)
        }
        None => (0, "PreemptLowerPriority"),
    };
    pod["spec"]["priority"] = value.into();
    if pod.pointer("/spec/preemptionPolicy").is_none() {
        pod["spec"]["preemptionPolicy"] = policy.into();
    }
    Ok(())
}

fn default_priority_class(call: &Call) -> Option<Value> {
    let prefix = keys::known("scheduling.k8s.io", "priorityclasses", "", "");
    let classes = call.server.store.range(&prefix, None, 0, None).ok()?.items;
    let classes = classes.iter().map(|class| object::decode(&class.value));
    classes.filter(|class| class["globalDefault"] == true).min_by_key(|class| class["value"].as_i64())
}

/// Guaranteed, Burstable or BestEffort, from the containers' cpu and memory.
fn qos_class(pod: &Value) -> &'static str {
    let (mut any, mut guaranteed) = (false, true);
    for list in ["initContainers", "containers"] {
        for container in pod["spec"][list].as_array().into_iter().flatten() {
            for resource in ["cpu", "memory"] {
                let request = &container["resources"]["requests"][resource];
                let limit = &container["resources"]["limits"][resource];
                any |= !is_nothing(request) || !is_nothing(limit);
                guaranteed &= !is_nothing(limit) && (is_nothing(request) || request == limit);
            }
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

fn is_nothing(quantity: &Value) -> bool {
    quantity.is_null() || quantity == "0" || quantity == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quality_of_service_follows_requests_and_limits() {
        let pod = |resources: Value| json!({"spec": {"containers": [{"resources": resources}]}});
        for (resources, expected) in [
            (json!({}), "BestEffort"),
            (json!({"requests": {"cpu": "1"}}), "Burstable"),
            (json!({"limits": {"cpu": "1"}}), "Burstable"),
            (json!({"limits": {"cpu": "1", "memory": "1Gi"}}), "Guaranteed"),
            (json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}), "Burstable"),
        ] {
            assert_eq!(qos_class(&pod(resources.clone())), expected, "{resources}");
        }
    }

    #[test]
    fn a_pod_with_a_token_mount_of_its_own_gets_no_second_one() {
        let mut pod = json!({"spec": {"containers": [
            {"name": "a", "volumeMounts": [{"name": "mine", "mountPath": TOKEN_PATH}]},
        ]}});
        let before = pod.clone();
        mount_token(&mut pod);
        assert_eq!(pod, before);
    }
}
