//! Which nodes can run the pod at all, and why the others cannot.
//!
//! Invariant: reasons are Kubernetes' own words, because people and tools search for them.

use crate::affinity::Affinity;
use crate::labels;
use crate::resources::Resources;
use crate::snapshot::NodeInfo;
use crate::spread::Spread;
use k8s_openapi::api::core::v1::{Pod, PodSpec, Taint, Toleration};
use std::collections::HashSet;

const UNSCHEDULABLE_TAINT: &str = "node.kubernetes.io/unschedulable";

/// What is computed once for a pod and asked for every node.
pub(crate) struct Wanted<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) requests: Resources,
    pub(crate) affinity: Affinity<'a>,
    pub(crate) spread: Spread<'a>,
}

/// Everything that stands in the way; empty: the pod can run there.
pub(crate) fn reasons(wanted: &Wanted<'_>, info: &NodeInfo) -> Vec<String> {
    let Some(spec) = wanted.pod.spec.as_ref() else {
        return Vec::new();
    };
    if let Some(reason) = first_obstacle(wanted, spec, info) {
        return vec![reason];
    }
    let lacking = lacking(&wanted.requests, info);
    if !lacking.is_empty() {
        return lacking;
    }
    let mut reasons = Vec::new();
    reasons.extend(wanted.spread.obstacle(info).map(str::to_owned));
    if reasons.is_empty() {
        reasons.extend(wanted.affinity.obstacle(info).map(str::to_owned));
    }
    reasons
}

fn first_obstacle(wanted: &Wanted<'_>, spec: &PodSpec, info: &NodeInfo) -> Option<String> {
    let tolerations = spec.tolerations.as_deref().unwrap_or_default();
    let node = info.node.spec.as_ref();
    if node.and_then(|s| s.unschedulable) == Some(true) && !tolerates_unschedulable(tolerations) {
        return Some("node(s) were unschedulable".into());
    }
    if spec.node_name.as_deref().is_some_and(|name| !name.is_empty() && name != info.name()) {
        return Some("node(s) didn't match the requested node name".into());
    }
    let taints = node.and_then(|s| s.taints.as_deref()).unwrap_or_default();
    let untolerated = |t: &&Taint| t.effect != "PreferNoSchedule" && !tolerations.iter().any(|o| tolerates(o, t));
    if let Some(taint) = taints.iter().find(untolerated) {
        let value = taint.value.as_deref().unwrap_or_default();
        return Some(format!("node(s) had untolerated taint {{{}: {value}}}", taint.key));
    }
    if !selects(spec, info) {
        return Some("node(s) didn't match Pod's node affinity/selector".into());
    }
    if ports_clash(wanted.pod, info) {
        return Some("node(s) didn't have free ports for the requested pod ports".into());
    }
    None
}

fn tolerates_unschedulable(tolerations: &[Toleration]) -> bool {
    let taint = Taint { key: UNSCHEDULABLE_TAINT.into(), effect: "NoSchedule".into(), ..Taint::default() };
    tolerations.iter().any(|t| tolerates(t, &taint))
}

pub(crate) fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let (effect, key) = (text(&toleration.effect), text(&toleration.key));
    if !effect.is_empty() && effect != taint.effect {
        return false;
    }
    match toleration.operator.as_deref().unwrap_or("Equal") {
        "Exists" => key.is_empty() || key == taint.key,
        _ => key == taint.key && text(&toleration.value) == text(&taint.value),
    }
}

/// nodeSelector and the required node affinity.
pub(crate) fn selects(spec: &PodSpec, info: &NodeInfo) -> bool {
    let selector = spec.node_selector.iter().flatten();
    if !selector.into_iter().all(|(key, value)| info.label(key) == Some(value)) {
        return false;
    }
    let affinity = spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
    let required = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    required.is_none_or(|required| labels::node_matches_any(&required.node_selector_terms, &info.node))
}

fn lacking(requests: &Resources, info: &NodeInfo) -> Vec<String> {
    let mut reasons = Vec::new();
    let room = info.allocatable.get("pods");
    if info.pods.len() as i64 + 1 > room {
        reasons.push("Too many pods".to_owned());
    }
    for (name, amount) in requests.iter() {
        let left = info.allocatable.get(name).saturating_sub(info.requested.get(name));
        if amount > 0 && amount > left {
            reasons.push(format!("Insufficient {name}"));
        }
    }
    reasons
}

type HostPort<'a> = (&'a str, i32, &'a str);

fn host_ports(pod: &Pod) -> impl Iterator<Item = HostPort<'_>> {
    let spec = pod.spec.as_ref();
    let containers = spec.map(|s| s.containers.as_slice()).unwrap_or_default().iter();
    let init = spec.and_then(|s| s.init_containers.as_deref()).unwrap_or_default().iter();
    let sidecars = init.filter(|c| c.restart_policy.as_deref() == Some("Always"));
    containers.chain(sidecars).flat_map(|c| c.ports.iter().flatten()).filter_map(|port| {
        let number = port.host_port.filter(|p| *p > 0)?;
        let ip = port.host_ip.as_deref().filter(|ip| !ip.is_empty()).unwrap_or("0.0.0.0");
        Some((port.protocol.as_deref().unwrap_or("TCP"), number, ip))
    })
}

/// The same port and protocol clash on the same address, or when either is on all addresses.
fn ports_clash(pod: &Pod, info: &NodeInfo) -> bool {
    let wanted: HashSet<HostPort<'_>> = host_ports(pod).collect();
    if wanted.is_empty() {
        return false;
    }
    let everywhere = |ip: &str| ip == "0.0.0.0" || ip == "::";
    info.pods.iter().flat_map(|p| host_ports(p)).any(|(protocol, port, ip)| {
        let same = |w: &&HostPort<'_>| w.0 == protocol && w.1 == port;
        wanted.iter().filter(same).any(|w| w.2 == ip || everywhere(w.2) || everywhere(ip))
    })
}
