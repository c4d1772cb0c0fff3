//! Requests and limits → cgroup numbers.
//!
//! Pure. Invariant: Kubernetes' own arithmetic (1024 shares a core, 100 ms CFS periods, OOM scores by QoS
//! class), so a pod gets here what it gets anywhere.

use cri::v1;
use k8s_openapi::api::core::v1::{Container, Pod};
use pod_plan::{qos_class, quantity};

const PERIOD_US: i64 = 100_000;

fn amount(container: &Container, limits: bool, name: &str) -> Option<i128> {
    let resources = container.resources.as_ref()?;
    let map = if limits { &resources.limits } else { &resources.requests };
    map.as_ref()?.get(name).and_then(quantity::millis).filter(|value| *value > 0)
}

pub(crate) fn linux(pod: &Pod, container: &Container, node_memory_bytes: i64) -> v1::LinuxContainerResources {
    let cpu_limit = amount(container, true, "cpu");
    let cpu_request = amount(container, false, "cpu").or(cpu_limit);
    let memory_limit = amount(container, true, "memory").map_or(0, |millis| millis / 1000);
    let shares = cpu_request.map_or(2, |millis| (millis * 1024 / 1000).clamp(2, 262_144));
    let quota = cpu_limit.map(|millis| (millis * i128::from(PERIOD_US) / 1000).max(1000));
    v1::LinuxContainerResources {
        cpu_shares: i64::try_from(shares).unwrap_or(2),
        cpu_period: if quota.is_some() { PERIOD_US } else { 0 },
        cpu_quota: quota.map_or(0, |quota| i64::try_from(quota).unwrap_or(i64::MAX)),
        memory_limit_in_bytes: i64::try_from(memory_limit).unwrap_or(i64::MAX),
        oom_score_adj: oom_score_adj(pod, container, node_memory_bytes),
        ..Default::default()
    }
}

/// What a pod asks for, in thousandths: the sum of its containers, or its greediest init container if that is more.
pub(crate) fn request_of(pod: &Pod, name: &str) -> i64 {
    let Some(spec) = &pod.spec else { return 0 };
    let of = |container: &Container| amount(container, false, name).unwrap_or(0);
    let is_sidecar = |one: &&Container| one.restart_policy.as_deref() == Some("Always");
    let inits = || spec.init_containers.iter().flatten();
    let mains: i128 = spec.containers.iter().map(of).sum::<i128>() + inits().filter(is_sidecar).map(of).sum::<i128>();
    let init = inits().filter(|one| !is_sidecar(one)).map(of).max().unwrap_or(0);
    let overhead = spec.overhead.as_ref().and_then(|all| all.get(name)).and_then(quantity::millis).unwrap_or(0);
    i64::try_from(mains.max(init) + overhead).unwrap_or(i64::MAX)
}

fn oom_score_adj(pod: &Pod, container: &Container, node_memory_bytes: i64) -> i64 {
    let Some(spec) = &pod.spec else { return 1000 };
    match qos_class(spec) {
        "Guaranteed" => -997,
        "BestEffort" => 1000,
        _ => {
            let request = amount(container, false, "memory").map_or(0, |millis| millis / 1000);
            let share = 1000 - 1000 * request / i128::from(node_memory_bytes.max(1));
            i64::try_from(share.clamp(3, 999)).unwrap_or(999)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_limits_become_the_cgroup_numbers_of_kubernetes() {
        for (resources, shares, quota, memory, oom) in [
            (serde_json::json!({}), 2, 0, 0, 1000),
            (serde_json::json!({"requests": {"cpu": "500m", "memory": "1Gi"}}), 512, 0, 0, 750),
            (serde_json::json!({"limits": {"cpu": "2", "memory": "64Mi"}}), 2048, 200_000, 67_108_864, -997),
            (serde_json::json!({"limits": {"cpu": "1m"}}), 2, 1000, 0, 999),
        ] {
            let container = serde_json::json!({"name": "a", "resources": resources});
            let pod: Pod = serde_json::from_value(serde_json::json!({"spec": {"containers": [container]}})).unwrap();
            let got = linux(&pod, &pod.spec.as_ref().unwrap().containers[0], 4 << 30);
            let numbers = (got.cpu_shares, got.cpu_quota, got.memory_limit_in_bytes, got.oom_score_adj);
            assert_eq!(numbers, (shares, quota, memory, oom), "{resources}");
        }
    }
}
