//! What an object counts for in resource quotas, and which quotas watch it.
//!
//! Called by the API server's admission with every object that is made or changed. Resource names are those of a
//! `ResourceQuota`'s `hard`.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::quantity::{self, Format, Quantity};
use crate::registry::Resource;

pub type Usage = BTreeMap<String, Quantity>;

/// Compute resources that quotas name without a prefix as well.
const COMPUTE: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];

/// Everything that the object uses up.
pub fn of(resource: &Resource, object: &Value) -> Usage {
    let mut usage = Usage::new();
    let one = Quantity::from_units(1, Format::DecimalSi);
    usage.insert(format!("count/{}", resource.group_resource()), one);
    match (resource.group.as_ref(), resource.plural.as_ref()) {
        ("", "pods") if !is_finished(object) => {
            usage.insert("pods".to_owned(), one);
            pod(object, &mut usage);
        }
        ("", "services") => service(object, &mut usage),
        ("", "persistentvolumeclaims") => claim(object, &mut usage),
        ("", plural @ ("configmaps" | "secrets" | "replicationcontrollers" | "resourcequotas")) => {
            usage.insert(plural.to_owned(), one);
        }
        _ => {}
    }
    usage
}

fn is_finished(pod: &Value) -> bool {
    matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"))
}

fn service(service: &Value, usage: &mut Usage) {
    let mut count = |name: &str, amount: i64| {
        usage.insert(name.to_owned(), Quantity::from_units(amount, Format::DecimalSi));
    };
    let ports = service["spec"]["ports"].as_array().map_or(0, Vec::len);
    let ports = i64::try_from(ports).unwrap_or(i64::MAX);
    count("services", 1);
    let (balancer, node_ports) = match service["spec"]["type"].as_str() {
        Some("NodePort") => (0, ports),
        Some("LoadBalancer") => (1, if service["spec"]["allocateLoadBalancerNodePorts"] == false { 0 } else { ports }),
        _ => (0, 0),
    };
    count("services.loadbalancers", balancer);
    count("services.nodeports", node_ports);
}

fn claim(claim: &Value, usage: &mut Usage) {
    let one = Quantity::from_units(1, Format::DecimalSi);
    usage.insert("persistentvolumeclaims".to_owned(), one);
    let class = claim["spec"]["storageClassName"].as_str().unwrap_or_default();
    if !class.is_empty() {
        usage.insert(format!("{class}.storageclass.storage.k8s.io/persistentvolumeclaims"), one);
    }
    let Some(storage) = amount(&claim["spec"]["resources"]["requests"], "storage") else {
        return;
    };
    usage.insert("requests.storage".to_owned(), storage);
    if !class.is_empty() {
        usage.insert(format!("{class}.storageclass.storage.k8s.io/requests.storage"), storage);
    }
}

fn amount(map: &Value, name: &str) -> Option<Quantity> {
    quantity::parse(map[name].as_str()?).ok()
}

fn pod(pod: &Value, usage: &mut Usage) {
    for (kind, prefix) in [("requests", "requests."), ("limits", "limits.")] {
        for (name, total) in pod_resources(pod, kind) {
            if kind == "requests" && (COMPUTE.contains(&name.as_str()) || name.starts_with("hugepages-")) {
                usage.insert(name.clone(), total);
            }
            // Of extended resources only requests are counted.
            if kind == "requests" || COMPUTE.contains(&name.as_str()) {
                usage.insert(format!("{prefix}{name}"), total);
            }
        }
    }
}

/// What a pod asks for as a whole: its containers together, or its greediest moment of initialisation.
pub fn pod_resources(pod: &Value, kind: &str) -> Usage {
    let list = |name: &str| pod["spec"][name].as_array().into_iter().flatten();
    let of = |container: &Value| -> Usage {
        let map = container["resources"][kind].as_object().into_iter().flatten();
        map.filter_map(|(name, text)| Some((name.clone(), quantity::parse(text.as_str()?).ok()?))).collect()
    };
    let mut total = Usage::new();
    for container in list("containers") {
        add(&mut total, &of(container));
    }
    let (mut sidecars, mut peak) = (Usage::new(), Usage::new());
    for container in list("initContainers") {
        let own = of(container);
        if container["restartPolicy"] == "Always" {
            add(&mut total, &own);
            add(&mut sidecars, &own);
            most(&mut peak, &sidecars);
        } else {
            let mut together = sidecars.clone();
            add(&mut together, &own);
            most(&mut peak, &together);
        }
    }
    most(&mut total, &peak);
    let overhead = pod["spec"]["overhead"].as_object().into_iter().flatten();
    let overhead: Usage =
        overhead.filter_map(|(name, text)| Some((name.clone(), quantity::parse(text.as_str()?).ok()?))).collect();
    if kind == "requests" {
        add(&mut total, &overhead);
    } else {
        // A limit that is not set stays unset.
        let known: Usage = overhead.into_iter().filter(|(name, _)| total.contains_key(name)).collect();
        add(&mut total, &known);
    }
    total
}

fn add(to: &mut Usage, more: &Usage) {
    for (name, amount) in more {
        *to.entry(name.clone()).or_insert(Quantity::ZERO) += *amount;
    }
}

fn most(to: &mut Usage, other: &Usage) {
    for (name, amount) in other {
        let own = to.entry(name.clone()).or_insert(*amount);
        *own = (*own).max(*amount);
    }
}

/// Compute resources that the quota limits and some container of the pod does not state, as the plugin words it:
/// `must specify limits.cpu for: a,b; memory for: a`. `None`: nothing is missing.
pub fn unstated(pod: &Value, hard: &Value) -> Option<String> {
    let mut missing = Vec::new();
    let hard = hard.as_object()?;
    for name in hard.keys() {
        let (kind, plain) = match name.split_once('.') {
            Some(("limits", plain)) => ("limits", plain),
            Some(("requests", plain)) => ("requests", plain),
            _ => ("requests", name.as_str()),
        };
        if !COMPUTE.contains(&plain) || plain == "ephemeral-storage" {
            continue;
        }
        let containers = ["initContainers", "containers"];
        let containers = containers.iter().flat_map(|list| pod["spec"][*list].as_array().into_iter().flatten());
        let mut silent: Vec<&str> = containers
            .filter(|container| container["resources"][kind].get(plain).is_none())
            .filter_map(|container| container["name"].as_str())
            .collect();
        silent.sort_unstable();
        if !silent.is_empty() {
            missing.push(format!("{name} for: {}", silent.join(",")));
        }
    }
    (!missing.is_empty()).then(|| format!("must specify {}", missing.join("; ")))
}

/// Whether a quota with these scopes is about the object at all.
pub fn in_scope(quota_spec: &Value, resource: &Resource, object: &Value) -> bool {
    let plain = quota_spec["scopes"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let selected = quota_spec["scopeSelector"]["matchExpressions"].as_array().into_iter().flatten();
    let mut all = plain
        .map(|scope| (scope, None))
        .chain(selected.map(|expression| (expression["scopeName"].as_str().unwrap_or_default(), Some(expression))));
    let is_pod = resource.group.is_empty() && resource.plural == "pods";
    all.all(|(scope, expression)| match scope {
        _ if scope == "VolumeAttributesClass" => false,
        _ if !is_pod => false,
        "Terminating" => !object["spec"]["activeDeadlineSeconds"].is_null(),
        "NotTerminating" => object["spec"]["activeDeadlineSeconds"].is_null(),
        "BestEffort" => crate::defaults::qos_class(object) == "BestEffort",
        "NotBestEffort" => crate::defaults::qos_class(object) != "BestEffort",
        "CrossNamespacePodAffinity" => crosses_namespaces(object),
        "PriorityClass" => has_priority(object, expression),
        _ => false,
    })
}

fn has_priority(pod: &Value, expression: Option<&Value>) -> bool {
    let class = pod["spec"]["priorityClassName"].as_str().unwrap_or_default();
    let Some(expression) = expression else { return !class.is_empty() };
    let values = || expression["values"].as_array().into_iter().flatten().any(|value| value == class);
    match expression["operator"].as_str() {
        Some("In") => values(),
        Some("NotIn") => !values(),
        Some("DoesNotExist") => class.is_empty(),
        _ => !class.is_empty(),
    }
}

fn crosses_namespaces(pod: &Value) -> bool {
    let affinity = &pod["spec"]["affinity"];
    ["podAffinity", "podAntiAffinity"].iter().any(|kind| {
        let required =
            affinity[*kind]["requiredDuringSchedulingIgnoredDuringExecution"].as_array().into_iter().flatten();
        let preferred =
            affinity[*kind]["preferredDuringSchedulingIgnoredDuringExecution"].as_array().into_iter().flatten();
        required.chain(preferred.map(|one| &one["podAffinityTerm"])).any(|term| {
            term["namespaces"].as_array().is_some_and(|names| !names.is_empty()) || !term["namespaceSelector"].is_null()
        })
    })
}

/// `a=1,b=2`, of the resources in `names`.
pub fn pretty<'n>(usage: &Usage, names: impl IntoIterator<Item = &'n String>) -> String {
    let mut parts: Vec<String> = names
        .into_iter()
        .map(|name| format!("{name}={}", usage.get(name).copied().unwrap_or(Quantity::ZERO)))
        .collect();
    parts.sort();
    parts.join(",")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::registry::find_by_gvr;

    fn used(plural: &str, object: &Value) -> Vec<String> {
        let usage = of(find_by_gvr("", "v1", plural).unwrap(), object);
        usage.iter().map(|(name, amount)| format!("{name}={amount}")).collect()
    }

    #[test]
    fn a_pod_counts_its_containers_or_its_greediest_initialisation() {
        let one = |cpu: &str| json!({"name": "c", "resources": {"requests": {"cpu": cpu}, "limits": {"cpu": "2"}}});
        let pod = json!({"spec": {"containers": [one("100m"), one("200m")], "initContainers": [one("1")]}});
        assert_eq!(used("pods", &pod), ["count/pods=1", "cpu=1", "limits.cpu=4", "pods=1", "requests.cpu=1"]);
        let mut finished = pod;
        finished["status"] = json!({"phase": "Succeeded"});
        assert_eq!(used("pods", &finished), ["count/pods=1"]);
    }

    #[test]
    fn services_and_claims_count_by_what_they_take() {
        let service = json!({"spec": {"type": "NodePort", "ports": [{"port": 1}, {"port": 2}]}});
        assert_eq!(
            used("services", &service),
            ["count/services=1", "services=1", "services.loadbalancers=0", "services.nodeports=2"]
        );
        let claim = json!({"spec": {"storageClassName": "fast", "resources": {"requests": {"storage": "1Gi"}}}});
        assert_eq!(
            used("persistentvolumeclaims", &claim),
            [
                "count/persistentvolumeclaims=1",
                "fast.storageclass.storage.k8s.io/persistentvolumeclaims=1",
                "fast.storageclass.storage.k8s.io/requests.storage=1Gi",
                "persistentvolumeclaims=1",
                "requests.storage=1Gi"
            ]
        );
    }

    #[test]
    fn a_quota_of_compute_wants_every_container_to_say_what_it_needs() {
        let pod =
            json!({"spec": {"containers": [{"name": "a"}, {"name": "b", "resources": {"limits": {"cpu": "1"}}}]}});
        assert_eq!(
            unstated(&pod, &json!({"limits.cpu": "1", "pods": "4", "memory": "1Gi"})).as_deref(),
            Some("must specify limits.cpu for: a; memory for: a,b")
        );
        assert_eq!(unstated(&pod, &json!({"pods": "4"})), None);
    }

    #[test]
    fn scopes_choose_pods() {
        let pods = find_by_gvr("", "v1", "pods").unwrap();
        let pod = json!({"spec": {"containers": [{"name": "a"}], "priorityClassName": "high"}});
        for (spec, expected) in [
            (json!({}), true),
            (json!({"scopes": ["BestEffort"]}), true),
            (json!({"scopes": ["NotBestEffort"]}), false),
            (json!({"scopes": ["BestEffort", "Terminating"]}), false),
            (
                json!({"scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In", "values": ["high"]}]}}),
                true,
            ),
            (
                json!({"scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "NotIn", "values": ["high"]}]}}),
                false,
            ),
        ] {
            assert_eq!(in_scope(&spec, pods, &pod), expected, "{spec}");
        }
    }
}
