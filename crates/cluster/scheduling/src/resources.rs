//! What pods ask for and nodes have, in numbers that can be added.
//!
//! Used by filters and scores. Invariant: a quantity that cannot be read counts as nothing asked (the API server
//! refuses such), never as a panic; sums saturate.

use k8s_openapi::api::core::v1::{Container, Node, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::BTreeMap;

pub const CPU: &str = "cpu";
pub const MEMORY: &str = "memory";
const STORAGE: &str = "ephemeral-storage";
/// What a pod without requests counts for when nodes are compared (not when they are filtered).
const DEFAULT_MILLI_CPU: i64 = 100;
const DEFAULT_MEMORY: i64 = 200 << 20;

/// CPU in thousandths, everything else in units. The three that every pod has are kept apart, for speed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    pub cpu: i64,
    pub memory: i64,
    pub storage: i64,
    others: BTreeMap<String, i64>,
}

impl Resources {
    pub fn get(&self, name: &str) -> i64 {
        match name {
            CPU => self.cpu,
            MEMORY => self.memory,
            STORAGE => self.storage,
            _ => self.others.get(name).copied().unwrap_or(0),
        }
    }

    fn slot(&mut self, name: &str) -> &mut i64 {
        match name {
            CPU => &mut self.cpu,
            MEMORY => &mut self.memory,
            STORAGE => &mut self.storage,
            _ => self.others.entry(name.to_owned()).or_default(),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, i64)> {
        let three = [(CPU, self.cpu), (STORAGE, self.storage), (MEMORY, self.memory)];
        let others = self.others.iter().map(|(name, amount)| (name.as_str(), *amount));
        three.into_iter().filter(|(_, amount)| *amount != 0).chain(others)
    }

    pub fn add(&mut self, other: &Resources) {
        self.change(other, i64::saturating_add);
    }

    pub fn subtract(&mut self, other: &Resources) {
        self.change(other, i64::saturating_sub);
    }

    fn change(&mut self, other: &Resources, by: fn(i64, i64) -> i64) {
        self.cpu = by(self.cpu, other.cpu);
        self.memory = by(self.memory, other.memory);
        self.storage = by(self.storage, other.storage);
        for (name, amount) in &other.others {
            let slot = self.slot(name);
            *slot = by(*slot, *amount);
        }
    }

    fn at_least(&mut self, other: &Resources) {
        self.change(other, i64::max);
    }

    fn parse<'a>(list: impl IntoIterator<Item = (&'a String, &'a Quantity)>) -> Self {
        let mut resources = Resources::default();
        for (name, quantity) in list {
            if let Ok(parsed) = kube_types::quantity::parse(&quantity.0) {
                *resources.slot(name) = if name == CPU { parsed.milli_value() } else { parsed.value() };
            }
        }
        resources
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
    let whole = requests(spec.resources.as_ref());
    for (name, amount) in whole.iter() {
        *running.slot(name) = amount;
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
