//! LimitRanger: a namespace's LimitRanges give containers requests and limits, and refuse what is outside of their bounds.

use kube_types::quantity::{self, Quantity};
use kube_types::usage::{Usage, pod_resources};
use kube_types::{meta, status};
use serde_json::{Value, json};

use crate::call::{Call, Target};
use crate::error::ApiResult;
use crate::{keys, object};

const ANNOTATION: &str = "kubernetes.io/limit-ranger";

fn ranges(call: &Call, namespace: &str) -> ApiResult<Vec<Value>> {
    let found = call.server.store.range(&keys::known("", "limitranges", namespace, ""), None, 0, None)?.items;
    Ok(found.iter().map(|range| object::decode(&range.value)).collect())
}

pub(super) fn on_pod(call: &Call, target: &Target, pod: &mut Value) -> ApiResult<()> {
    let ranges = ranges(call, &target.namespace)?;
    for range in &ranges {
        set_defaults(range, pod);
    }
    refuse(target, meta::name(pod), ranges.iter().flat_map(|range| pod_problems(range, pod)).collect())
}

pub(super) fn on_claim(call: &Call, target: &Target, claim: &Value) -> ApiResult<()> {
    let requests = parse(&claim["spec"]["resources"]["requests"]);
    let mut problems = Vec::new();
    for range in ranges(call, &target.namespace)? {
        for item in items(&range, "PersistentVolumeClaim") {
            for (name, bound) in parse(&item["min"]) {
                problems.extend(at_least(&name, "PersistentVolumeClaim", bound, requests.get(&name), None));
            }
            for (name, bound) in parse(&item["max"]) {
                problems.extend(match requests.get(&name) {
                    None => Some(format!(
                        "maximum {name} usage per PersistentVolumeClaim is {bound}.  No request is specified"
                    )),
                    Some(asked) if *asked > bound => Some(format!(
                        "maximum {name} usage per PersistentVolumeClaim is {bound}, but request is {asked}"
                    )),
                    Some(_) => None,
                });
            }
        }
    }
    refuse(target, meta::name(claim), problems)
}

fn refuse(target: &Target, name: &str, problems: Vec<String>) -> ApiResult<()> {
    let text = match problems.as_slice() {
        [] => return Ok(()),
        [one] => one.clone(),
        several => format!("[{}]", several.join(", ")),
    };
    Err(status::forbidden(&target.resource, name, &text).into())
}

fn items<'r>(range: &'r Value, kind: &'r str) -> impl Iterator<Item = &'r Value> {
    range["spec"]["limits"].as_array().into_iter().flatten().filter(move |item| item["type"] == kind)
}

fn parse(map: &Value) -> Usage {
    let map = map.as_object().into_iter().flatten();
    map.filter_map(|(name, text)| Some((name.clone(), quantity::parse(text.as_str()?).ok()?))).collect()
}

/// Fills in what the containers do not say, and says so in an annotation, as Kubernetes does.
fn set_defaults(range: &Value, pod: &mut Value) {
    let mut notes = Vec::new();
    for item in items(range, "Container") {
        for list in ["containers", "initContainers"] {
            let containers = pod.pointer_mut(&format!("/spec/{list}")).and_then(Value::as_array_mut);
            for container in containers.into_iter().flatten() {
                let what = if list == "containers" { "container" } else { "init container" };
                let name = container["name"].as_str().unwrap_or_default().to_owned();
                for (kind, source, noun) in [("requests", "defaultRequest", "request"), ("limits", "default", "limit")] {
                    let set = fill(container, kind, &item[source]);
                    if !set.is_empty() {
                        notes.push(format!("{} {noun} for {what} {name}", set.join(", ")));
                    }
                }
            }
        }
    }
    if !notes.is_empty() {
        if !pod["metadata"]["annotations"].is_object() {
            pod["metadata"]["annotations"] = json!({});
        }
        pod["metadata"]["annotations"][ANNOTATION] = format!("LimitRanger plugin set: {}", notes.join("; ")).into();
    }
}

fn fill(container: &mut Value, kind: &str, defaults: &Value) -> Vec<String> {
    let mut set = Vec::new();
    for (name, amount) in defaults.as_object().into_iter().flatten() {
        if container.pointer(&format!("/resources/{kind}")).is_none_or(|own| own.get(name).is_none()) {
            container["resources"][kind][name] = amount.clone();
            set.push(name.clone());
        }
    }
    set.sort();
    set
}

fn pod_problems(range: &Value, pod: &Value) -> Vec<String> {
    let mut problems = Vec::new();
    for item in items(range, "Container") {
        for list in ["containers", "initContainers"] {
            for container in pod["spec"][list].as_array().into_iter().flatten() {
                let (requests, limits) =
                    (parse(&container["resources"]["requests"]), parse(&container["resources"]["limits"]));
                problems.extend(bounds("Container", item, &requests, &limits));
            }
        }
    }
    for item in items(range, "Pod") {
        problems.extend(bounds("Pod", item, &pod_resources(pod, "requests"), &pod_resources(pod, "limits")));
    }
    problems
}

fn bounds(kind: &str, item: &Value, requests: &Usage, limits: &Usage) -> Vec<String> {
    let mut problems = Vec::new();
    for (name, bound) in parse(&item["min"]) {
        problems.extend(at_least(&name, kind, bound, requests.get(&name), limits.get(&name)));
    }
    for (name, bound) in parse(&item["max"]) {
        problems.extend(at_most(&name, kind, bound, requests.get(&name), limits.get(&name)));
    }
    for (name, bound) in parse(&item["maxLimitRequestRatio"]) {
        problems.extend(ratio(&name, kind, bound, requests.get(&name), limits.get(&name)));
    }
    problems
}

fn at_least(
    name: &str,
    kind: &str,
    bound: Quantity,
    request: Option<&Quantity>,
    limit: Option<&Quantity>,
) -> Option<String> {
    let head = format!("minimum {name} usage per {kind} is {bound}");
    match (request, limit) {
        (None, _) => Some(format!("{head}.  No request is specified")),
        (Some(request), _) if *request < bound => Some(format!("{head}, but request is {request}")),
        (_, Some(limit)) if *limit < bound => Some(format!("{head}, but limit is {limit}")),
        _ => None,
    }
}

fn at_most(
    name: &str,
    kind: &str,
    bound: Quantity,
    request: Option<&Quantity>,
    limit: Option<&Quantity>,
) -> Option<String> {
    let head = format!("maximum {name} usage per {kind} is {bound}");
    match (request, limit) {
        (_, None) => Some(format!("{head}.  No limit is specified")),
        (_, Some(limit)) if *limit > bound => Some(format!("{head}, but limit is {limit}")),
        (Some(request), _) if *request > bound => Some(format!("{head}, but request is {request}")),
        _ => None,
    }
}

fn ratio(
    name: &str,
    kind: &str,
    bound: Quantity,
    request: Option<&Quantity>,
    limit: Option<&Quantity>,
) -> Option<String> {
    let head = format!("{name} max limit to request ratio per {kind} is {bound}, but");
    let request = request.filter(|request| !request.is_zero());
    let limit = limit.filter(|limit| !limit.is_zero());
    match (request, limit) {
        (None, _) => Some(format!("{head} no request is specified or request is 0")),
        (_, None) => Some(format!("{head} no limit is specified or limit is 0")),
        (Some(request), Some(limit)) => {
            let provided = limit.as_f64() / request.as_f64();
            (provided > bound.as_f64()).then(|| format!("{head} provided ratio is {provided:.6}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range() -> Value {
        json!({"spec": {"limits": [{
            "type": "Container", "default": {"cpu": "500m"}, "defaultRequest": {"cpu": "100m"},
            "max": {"cpu": "1"}, "min": {"cpu": "50m"}, "maxLimitRequestRatio": {"cpu": "10"},
        }, {"type": "Pod", "max": {"memory": "1Gi"}}]}})
    }

    #[test]
    fn containers_get_what_they_do_not_say() {
        let mut pod = json!({"metadata": {}, "spec": {"containers": [{"name": "a"}, {"name": "b", "resources": {"limits": {"cpu": "1"}}}]}});
        set_defaults(&range(), &mut pod);
        assert_eq!(pod["spec"]["containers"][0]["resources"], json!({"requests": {"cpu": "100m"}, "limits": {"cpu": "500m"}}));
        assert_eq!(pod["spec"]["containers"][1]["resources"], json!({"requests": {"cpu": "100m"}, "limits": {"cpu": "1"}}));
        assert_eq!(
            pod["metadata"]["annotations"][ANNOTATION],
            "LimitRanger plugin set: cpu request for container a; cpu limit for container a; cpu request for container b"
        );
    }

    #[test]
    fn what_is_outside_of_the_bounds_is_refused_in_kubernetes_words() {
        for (requests, limits, problem) in [
            (json!({"cpu": "10m"}), json!({"cpu": "60m"}), "minimum cpu usage per Container is 50m, but request is 10m"),
            (json!({"cpu": "1"}), json!({"cpu": "2"}), "maximum cpu usage per Container is 1, but limit is 2"),
            (json!({"cpu": "60m"}), json!({}), "maximum cpu usage per Container is 1.  No limit is specified"),
            (
                json!({"cpu": "50m"}),
                json!({"cpu": "1"}),
                "cpu max limit to request ratio per Container is 10, but provided ratio is 20.000000",
            ),
        ] {
            let resources = json!({"requests": requests, "limits": limits});
            let pod = json!({"spec": {"containers": [{"name": "a", "resources": resources}]}});
            let problems = pod_problems(&range(), &pod);
            assert!(problems.contains(&problem.to_owned()), "{problems:?}");
            assert!(problems.contains(&"maximum memory usage per Pod is 1Gi.  No limit is specified".to_owned()));
        }
    }
}
