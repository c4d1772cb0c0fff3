//! The quality-of-service class of a pod.
//!
//! Reported in the status and used by the agent for OOM scores. Invariant: the rules of the API: Guaranteed
//! when every container limits CPU and memory and requests just that, BestEffort when nobody asks for
//! anything, Burstable otherwise.

use k8s_openapi::api::core::v1::{PodSpec, ResourceRequirements};

use crate::quantity::millis;

/// `Guaranteed`, `Burstable` or `BestEffort`.
pub fn qos_class(spec: &PodSpec) -> &'static str {
    let all: Vec<Option<&ResourceRequirements>> = spec
        .containers
        .iter()
        .chain(spec.init_containers.iter().flatten())
        .map(|container| container.resources.as_ref())
        .collect();
    if all.iter().all(|one| asks_for_nothing(*one)) {
        "BestEffort"
    } else if all.iter().all(|one| one.is_some_and(is_guaranteed)) {
        "Guaranteed"
    } else {
        "Burstable"
    }
}

fn amount(
    from: Option<&std::collections::BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>>,
    name: &str,
) -> Option<i128> {
    from?.get(name).and_then(millis).filter(|value| *value > 0)
}

fn asks_for_nothing(resources: Option<&ResourceRequirements>) -> bool {
    resources.is_none_or(|r| {
        ["cpu", "memory"]
            .iter()
            .all(|name| amount(r.limits.as_ref(), name).is_none() && amount(r.requests.as_ref(), name).is_none())
    })
}

fn is_guaranteed(resources: &ResourceRequirements) -> bool {
    ["cpu", "memory"].iter().all(|name| {
        let limit = amount(resources.limits.as_ref(), name);
        let request = amount(resources.requests.as_ref(), name);
        limit.is_some() && (request.is_none() || request == limit)
    })
}
