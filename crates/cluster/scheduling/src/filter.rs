//! Which nodes can run the pod at all, and why the others cannot.
//!
//! Invariants: reasons are Kubernetes' own words, because people and tools search for them; the filters run in its
//! order, and the first that refuses speaks alone.

use crate::affinity::Affinity;
use crate::fit;
use crate::resources::{self, Resources};
use crate::snapshot::{NodeInfo, Snapshot};
use crate::spread::Spread;
use crate::volumes::Needs;
use k8s_openapi::api::core::v1::{Pod, PodSpec, Taint, Toleration};
use std::borrow::Cow;
use std::collections::HashSet;

const UNSCHEDULABLE_TAINT: &str = "node.kubernetes.io/unschedulable";

pub(crate) type Reason = Cow<'static, str>;

/// What is computed once for a pod and asked for every node.
pub(crate) struct Wanted<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) requests: Resources,
    pub(crate) priority: i32,
    uid: String,
    ports: HashSet<HostPort<'a>>,
    pub(crate) affinity: Affinity,
    pub(crate) spread: Spread,
    pub(crate) volumes: Needs,
}

impl<'a> Wanted<'a> {
    /// Err: there is no node for this pod, whatever the nodes are like.
    pub(crate) fn new(pod: &'a Pod, snapshot: &mut Snapshot) -> Result<Self, String> {
        Ok(Wanted {
            pod,
            requests: resources::pod_requests(pod),
            priority: crate::priority(pod),
            uid: Snapshot::uid_of(pod),
            ports: host_ports(pod).collect(),
            volumes: Needs::new(pod, snapshot)?,
            affinity: Affinity::new(pod, snapshot),
            spread: Spread::new(pod, snapshot),
        })
    }
}

/// Why a node is out.
pub(crate) struct Obstacle {
    pub(crate) reasons: Vec<Reason>,
    /// Whether fewer pods on the node could change that.
    pub(crate) preemptible: bool,
}

impl Obstacle {
    fn lasting(reason: impl Into<Reason>) -> Self {
        Obstacle { reasons: vec![reason.into()], preemptible: false }
    }

    fn passing(reason: impl Into<Reason>) -> Self {
        Obstacle { reasons: vec![reason.into()], preemptible: true }
    }
}

/// None: the pod can run there.
pub(crate) fn obstacle(wanted: &Wanted<'_>, at: usize, info: &NodeInfo) -> Option<Obstacle> {
    let spec = wanted.pod.spec.as_ref()?;
    if let Some(lasting) = lasting(spec, info) {
        return Some(Obstacle::lasting(lasting));
    }
    if ports_clash(&wanted.ports, info) {
        return Some(Obstacle::passing("node(s) didn't have free ports for the requested pod ports"));
    }
    if let Some(lacking) = lacking(wanted, info) {
        return Some(lacking);
    }
    if let Some(reason) = wanted.volumes.obstacle(info) {
        let passing = reason.starts_with("node has pod using");
        return Some(if passing { Obstacle::passing(reason) } else { Obstacle::lasting(reason) });
    }
    let (reason, preemptible) = wanted.spread.obstacle(at).or_else(|| wanted.affinity.obstacle(at))?;
    Some(Obstacle { reasons: vec![reason.into()], preemptible })
}

/// What no other pod's absence would change.
fn lasting(spec: &PodSpec, info: &NodeInfo) -> Option<Reason> {
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
        return Some(format!("node(s) had untolerated taint {{{}: {value}}}", taint.key).into());
    }
    (!fit::selects(spec, &info.node)).then_some("node(s) didn't match Pod's node affinity/selector".into())
}

fn tolerates_unschedulable(tolerations: &[Toleration]) -> bool {
    let taint = Taint { key: UNSCHEDULABLE_TAINT.into(), effect: "NoSchedule".into(), ..Taint::default() };
    tolerations.iter().any(|t| tolerates(t, &taint))
}

pub(crate) fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    fn text(value: &Option<String>) -> &str {
        value.as_deref().unwrap_or_default()
    }
    let (effect, key) = (text(&toleration.effect), text(&toleration.key));
    if !effect.is_empty() && effect != taint.effect {
        return false;
    }
    match toleration.operator.as_deref().unwrap_or("Equal") {
        "Exists" => key.is_empty() || key == taint.key,
        _ => key == taint.key && text(&toleration.value) == text(&taint.value),
    }
}

fn lacking(wanted: &Wanted<'_>, info: &NodeInfo) -> Option<Obstacle> {
    let promised = info.nominees.iter().filter(|n| n.priority >= wanted.priority && n.uid != wanted.uid);
    let mut reserved = Resources::default();
    let mut reserved_pods = 0;
    for nominee in promised {
        reserved.add(&nominee.requests);
        reserved_pods += 1;
    }
    let mut obstacle = Obstacle { reasons: Vec::new(), preemptible: false };
    if info.pods.len() + reserved_pods + 1 > info.room_for_pods {
        obstacle.reasons.push("Too many pods".into());
        obstacle.preemptible = true;
    }
    for (name, amount) in wanted.requests.iter() {
        let all = info.allocatable.get(name);
        let left = all.saturating_sub(info.requested.get(name)).saturating_sub(reserved.get(name));
        if amount > 0 && amount > left {
            obstacle.reasons.push(format!("Insufficient {name}").into());
            // More than the node has at all: nobody's absence helps.
            obstacle.preemptible |= amount <= all;
        }
    }
    let too_large = wanted.requests.iter().any(|(name, amount)| amount > info.allocatable.get(name));
    obstacle.preemptible &= !too_large;
    (!obstacle.reasons.is_empty()).then_some(obstacle)
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
fn ports_clash(wanted: &HashSet<HostPort<'_>>, info: &NodeInfo) -> bool {
    if wanted.is_empty() {
        return false;
    }
    let everywhere = |ip: &str| ip == "0.0.0.0" || ip == "::";
    info.pods.iter().flat_map(|p| host_ports(p)).any(|(protocol, port, ip)| {
        let same = |w: &&HostPort<'_>| w.0 == protocol && w.1 == port;
        wanted.iter().filter(same).any(|w| w.2 == ip || everywhere(w.2) || everywhere(ip))
    })
}
