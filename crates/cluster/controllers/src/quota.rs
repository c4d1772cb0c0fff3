//! ResourceQuota: how much of each resource a namespace uses.
//!
//! Called by the controller manager's shell. Invariants: pods that have ended use nothing but their own count
//! (`count/pods`); a quota with scopes counts only the pods in all of them.

use crate::{pods, storage};
use k8s_openapi::api::core::v1::{
    Container, PersistentVolumeClaim, Pod, PodSpec, ResourceQuota, ResourceQuotaSpec, ResourceQuotaStatus, Service,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::BTreeMap;
use std::sync::Arc;

pub struct View<'a> {
    pub quota: &'a ResourceQuota,
    pub pods: &'a [Arc<Pod>],
    pub services: &'a [Arc<Service>],
    pub claims: &'a [Arc<PersistentVolumeClaim>],
    /// For each other counted resource of `hard` (`configmaps`, `count/jobs.batch`): how many there are.
    pub counts: &'a BTreeMap<String, i64>,
}

/// What of `hard` is counted by objects that are neither pods, services nor claims.
pub fn counted_elsewhere(quota: &ResourceQuota) -> Vec<String> {
    let hard = quota.spec.as_ref().and_then(|s| s.hard.as_ref());
    let plain = ["configmaps", "secrets", "replicationcontrollers", "resourcequotas"];
    let names = hard.into_iter().flat_map(BTreeMap::keys);
    let ours = ["count/pods", "count/services", "count/persistentvolumeclaims"];
    names
        .filter(|n| plain.contains(&n.as_str()) || (n.starts_with("count/") && !ours.contains(&n.as_str())))
        .cloned()
        .collect()
}

pub fn decide(view: &View<'_>) -> ResourceQuotaStatus {
    let empty = ResourceQuotaSpec::default();
    let spec = view.quota.spec.as_ref().unwrap_or(&empty);
    let hard = spec.hard.clone().unwrap_or_default();
    let in_scope: Vec<&Arc<Pod>> = view.pods.iter().filter(|p| is_in_scope(spec, p)).collect();
    let mut used = BTreeMap::new();
    for name in hard.keys() {
        let millis = amount(view, name, &in_scope);
        let text = match (millis % 1000, is_bytes(name)) {
            (0, true) => bytes(millis / 1000),
            (0, false) => (millis / 1000).to_string(),
            _ => format!("{millis}m"),
        };
        used.insert(name.clone(), Quantity(text));
    }
    ResourceQuotaStatus { hard: Some(hard), used: Some(used) }
}

fn is_bytes(name: &str) -> bool {
    name.contains("memory") || name.contains("storage") && !name.ends_with("persistentvolumeclaims")
}

fn bytes(amount: i64) -> String {
    let units = [("Ti", 1i64 << 40), ("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)];
    let whole = units.iter().find(|(_, unit)| amount != 0 && amount % unit == 0);
    whole.map_or_else(|| amount.to_string(), |(name, unit)| format!("{}{name}", amount / unit))
}

fn millis(quantity: Option<&Quantity>) -> i64 {
    quantity.and_then(|q| kube_types::quantity::parse(&q.0).ok()).map_or(0, |q| q.milli_value())
}

/// In thousandths.
fn amount(view: &View<'_>, name: &str, pods: &[&Arc<Pod>]) -> i64 {
    let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX).saturating_mul(1000);
    let live = || pods.iter().filter(|p| !pods::is_finished(p));
    let service_type = |kind: &str| {
        let is = |s: &&Arc<Service>| s.spec.as_ref().and_then(|s| s.type_.as_deref()) == Some(kind);
        view.services.iter().filter(is).count()
    };
    match name {
        "pods" => count(live().count()),
        "count/pods" => count(pods.len()),
        "services" | "count/services" => count(view.services.len()),
        "services.loadbalancers" => count(service_type("LoadBalancer")),
        "services.nodeports" => count(service_type("NodePort") + service_type("LoadBalancer")),
        "persistentvolumeclaims" | "count/persistentvolumeclaims" => count(view.claims.len()),
        "requests.storage" => view.claims.iter().map(|c| requested_storage(c)).sum(),
        _ => {
            if let Some((class, what)) = name.split_once(".storageclass.storage.k8s.io/") {
                let of_class = |c: &&Arc<PersistentVolumeClaim>| {
                    c.spec.as_ref().and_then(|s| s.storage_class_name.as_deref()) == Some(class)
                };
                let claims = view.claims.iter().filter(of_class);
                return if what == "requests.storage" {
                    claims.map(|c| requested_storage(c)).sum()
                } else {
                    count(claims.count())
                };
            }
            if let Some(there) = view.counts.get(name) {
                return there.saturating_mul(1000);
            }
            let (limits, resource) = match name.split_once('.') {
                Some(("limits", resource)) => (true, resource),
                Some(("requests", resource)) => (false, resource),
                _ => (false, name),
            };
            live().map(|p| pod_amount(p, resource, limits)).sum()
        }
    }
}

fn requested_storage(claim: &PersistentVolumeClaim) -> i64 {
    let requests = claim.spec.as_ref().and_then(|s| s.resources.as_ref()).and_then(|r| r.requests.as_ref());
    storage::size_of(requests).saturating_mul(1000)
}

/// The worst moment of the pod, as the scheduler counts it.
fn pod_amount(pod: &Pod, resource: &str, limits: bool) -> i64 {
    let Some(spec) = pod.spec.as_ref() else { return 0 };
    let of = |c: &Container| {
        let list = c.resources.as_ref().and_then(|r| if limits { r.limits.as_ref() } else { r.requests.as_ref() });
        millis(list.and_then(|l| l.get(resource)))
    };
    let (mut sidecars, mut worst) = (0, 0);
    for container in spec.init_containers.iter().flatten() {
        let own = of(container);
        if container.restart_policy.as_deref() == Some("Always") {
            sidecars += own;
            worst = worst.max(sidecars);
        } else {
            worst = worst.max(sidecars + own);
        }
    }
    let running = spec.containers.iter().map(of).sum::<i64>() + sidecars;
    running.max(worst) + overhead(spec, resource)
}

fn overhead(spec: &PodSpec, resource: &str) -> i64 {
    millis(spec.overhead.as_ref().and_then(|o| o.get(resource)))
}

fn is_in_scope(spec: &ResourceQuotaSpec, pod: &Pod) -> bool {
    let plain = spec.scopes.iter().flatten().all(|scope| has_scope(pod, scope, "Exists", &[]));
    let chosen = spec.scope_selector.as_ref().and_then(|s| s.match_expressions.as_ref()).into_iter().flatten();
    plain
        && chosen
            .into_iter()
            .all(|e| has_scope(pod, &e.scope_name, &e.operator, e.values.as_deref().unwrap_or_default()))
}

fn has_scope(pod: &Pod, scope: &str, operator: &str, values: &[String]) -> bool {
    let spec = pod.spec.as_ref();
    let terminating = spec.and_then(|s| s.active_deadline_seconds).is_some();
    let best_effort = pod.status.as_ref().and_then(|s| s.qos_class.as_deref()) == Some("BestEffort");
    match scope {
        "Terminating" => terminating,
        "NotTerminating" => !terminating,
        "BestEffort" => best_effort,
        "NotBestEffort" => !best_effort,
        "PriorityClass" => {
            let class = spec.and_then(|s| s.priority_class_name.as_ref()).filter(|c| !c.is_empty());
            match operator {
                "In" => class.is_some_and(|c| values.contains(c)),
                "NotIn" => !class.is_some_and(|c| values.contains(c)),
                "DoesNotExist" => class.is_none(),
                _ => class.is_some(),
            }
        }
        "CrossNamespacePodAffinity" => spec.and_then(|s| s.affinity.as_ref()).is_some_and(crosses_namespaces),
        _ => false,
    }
}

fn crosses_namespaces(affinity: &k8s_openapi::api::core::v1::Affinity) -> bool {
    let near = affinity.pod_affinity.as_ref();
    let far = affinity.pod_anti_affinity.as_ref();
    let required = near.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref()).into_iter();
    let required = required.chain(far.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref()));
    let wished = near.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref()).into_iter();
    let wished = wished.chain(far.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref()));
    let mut terms = required.flatten().chain(wished.flatten().map(|w| &w.pod_affinity_term));
    terms.any(|t| t.namespace_selector.is_some() || t.namespaces.as_ref().is_some_and(|n| !n.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(phase: &str, change: impl FnOnce(&mut Value)) -> Arc<Pod> {
        let mut value = json!({"metadata": {"name": "p"}, "status": {"phase": phase, "qosClass": "Burstable"}, "spec": {
            "containers": [{"name": "c", "resources": {"requests": {"cpu": "250m", "memory": "64Mi"}, "limits": {"cpu": "1"}}}]}});
        change(&mut value);
        Arc::new(serde_json::from_value(value).unwrap())
    }

    fn used(spec: Value, pods: &[Arc<Pod>]) -> BTreeMap<String, String> {
        let quota: ResourceQuota = serde_json::from_value(json!({"metadata": {"name": "q"}, "spec": spec})).unwrap();
        let service = json!({"metadata": {"name": "s"}, "spec": {"type": "LoadBalancer"}});
        let claim = json!({"metadata": {"name": "c"}, "spec": {"storageClassName": "local",
            "resources": {"requests": {"storage": "3Gi"}}}});
        let counts = [("configmaps".to_owned(), 4)].into();
        let status = decide(&View {
            quota: &quota,
            pods,
            services: &[Arc::new(serde_json::from_value(service).unwrap())],
            claims: &[Arc::new(serde_json::from_value(claim).unwrap())],
            counts: &counts,
        });
        status.used.unwrap().into_iter().map(|(name, q)| (name, q.0)).collect()
    }

    #[test]
    fn a_namespace_uses_what_its_live_pods_services_and_claims_ask_for() {
        let pods = [pod("Running", |_| {}), pod("Pending", |_| {}), pod("Succeeded", |_| {})];
        let wanted = [
            ("pods", "2"),
            ("count/pods", "3"),
            ("cpu", "500m"),
            ("requests.memory", "128Mi"),
            ("limits.cpu", "2"),
            ("services", "1"),
            ("services.loadbalancers", "1"),
            ("requests.storage", "3Gi"),
            ("local.storageclass.storage.k8s.io/persistentvolumeclaims", "1"),
            ("configmaps", "4"),
        ];
        let hard: BTreeMap<&str, &str> = wanted.iter().map(|(name, _)| (*name, "9")).collect();
        let used = used(json!({"hard": hard}), &pods);
        for (name, amount) in wanted {
            assert_eq!(used[name], amount, "{name}");
        }
    }

    #[test]
    fn scopes_choose_the_pods() {
        let pods = [
            pod("Running", |p| p["spec"]["activeDeadlineSeconds"] = 5.into()),
            pod("Running", |p| p["spec"]["priorityClassName"] = "high".into()),
            pod("Running", |p| p["status"]["qosClass"] = "BestEffort".into()),
        ];
        let by_class =
            json!({"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In", "values": ["high"]}]});
        for (spec, expected) in [
            (json!({"scopes": ["Terminating"]}), "1"),
            (json!({"scopes": ["NotTerminating"]}), "2"),
            (json!({"scopes": ["BestEffort"]}), "1"),
            (json!({"scopes": ["NotTerminating", "NotBestEffort"]}), "1"),
            (json!({"scopeSelector": by_class}), "1"),
        ] {
            let mut spec = spec;
            spec["hard"] = json!({"pods": "9"});
            assert_eq!(used(spec.clone(), &pods)["pods"], expected, "{spec}");
        }
    }
}
