//! What pods ask for and nodes have, in numbers that can be added.
//!
//! Used by filters and scores. Invariant: a quantity that cannot be read counts as nothing asked (the API server
//! refuses such), never as a panic; sums saturate.

use k8s_openapi::api::core::v1::{Container, Node, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::BTreeMap;

pub const CPU: &str = "cpu";
pub const MEMORY: &str = "memory";
/// What a pod without requests counts for when nodes are compared (not when they are filtered).
const DEFAULT_MILLI_CPU: i64 = 100;
const DEFAULT_MEMORY: i64 = 200 << 20;

/// CPU in thousandths, everything else in units.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources(BTreeMap<String, i64>);

impl Resources {
    pub fn get(&self, name: &str) -> i64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, i64)> {
        self.0.iter().map(|(name, amount)| (name.as_str(), *amount))
    }

    pub fn add(&mut self, other: &Resources) {
        for (name, amount) in &other.0 {
            let sum = self.0.entry(name.clone()).or_default();
            *sum = sum.saturating_add(*amount);
        }
    }

    fn at_least(&mut self, other: &Resources) {
        for (name, amount) in &other.0 {
            let most = self.0.entry(name.clone()).or_default();
            *most = (*most).max(*amount);
        }
    }

    fn parse<'a>(list: impl IntoIterator<Item = (&'a String, &'a Quantity)>) -> Self {
        let amount = |name: &str, quantity: &Quantity| {
            let parsed = kube_types::quantity::parse(&quantity.0).ok()?;
            Some(if name == CPU { parsed.milli_value() } else { parsed.value() })
        };
        Resources(list.into_iter().filter_map(|(name, q)| Some((name.clone(), amount(name, q)?))).collect())
    }
}

fn requests(requirements: Option<&ResourceRequirements>) -> Resources {
    Resources::parse(requirements.and_then(|r| r.requests.as_ref()).into_iter().flatten())
}

fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// What the pod needs at its worst moment: its containers and sidecars together, or one init container beside the
/// sidecars that started before it; and the overhead of its runtime.
pub fn pod_requests(pod: &Pod) -> Resources {
    let Some(spec) = pod.spec.as_ref() else {
        return Resources::default();
    };
    let mut running = Resources::default();
    for container in &spec.containers {
        running.add(&requests(container.resources.as_ref()));
    }
    let (mut sidecars, mut starting) = (Resources::default(), Resources::default());
    for container in spec.init_containers.iter().flatten() {
        let own = requests(container.resources.as_ref());
        if is_sidecar(container) {
            sidecars.add(&own);
            starting.at_least(&sidecars);
        } else {
            let mut moment = sidecars.clone();
            moment.add(&own);
            starting.at_least(&moment);
        }
    }
    running.add(&sidecars);
    running.at_least(&starting);
    // Requests for the pod as a whole go before those of its containers.
    for (name, amount) in requests(spec.resources.as_ref()).0 {
        running.0.insert(name, amount);
    }
    running.add(&Resources::parse(spec.overhead.iter().flatten()));
    running
}

/// As `pod_requests`, with something for pods that ask for nothing: they do use what they run on.
pub fn pod_weight(requests: &Resources) -> (i64, i64) {
    let or = |amount: i64, default| if amount > 0 { amount } else { default };
    (or(requests.get(CPU), DEFAULT_MILLI_CPU), or(requests.get(MEMORY), DEFAULT_MEMORY))
}

pub fn allocatable(node: &Node) -> Resources {
    Resources::parse(node.status.as_ref().and_then(|s| s.allocatable.as_ref()).into_iter().flatten())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_worst_moment_of_a_pod_counts() {
        let cpu =
            |name: &str, cpu: &str| json!({"name": name, "resources": {"requests": {"cpu": cpu, "memory": "1Mi"}}});
        let mut sidecar = cpu("s", "50m");
        sidecar["restartPolicy"] = "Always".into();
        let pod = |init: serde_json::Value| -> Pod {
            serde_json::from_value(json!({"spec": {"overhead": {"cpu": "10m"}, "initContainers": init,
                "containers": [cpu("a", "100m"), cpu("b", "0.2")]}}))
            .unwrap()
        };
        for (init, expected) in [
            (json!([]), 310),
            (json!([cpu("i", "1")]), 1010),
            (json!([cpu("i", "100m"), cpu("j", "200m")]), 310),
            (json!([sidecar.clone()]), 360),
            (json!([sidecar.clone(), cpu("i", "1")]), 1060),
            (json!([cpu("i", "1"), sidecar.clone()]), 1010),
        ] {
            assert_eq!(pod_requests(&pod(init.clone())).get(CPU), expected, "{init}");
        }
        assert_eq!(pod_requests(&pod(json!([]))).get(MEMORY), 2 << 20);
    }
}
