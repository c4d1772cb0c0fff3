//! What must never be, looked at after every write.
//!
//! Invariants that are checked here: no node is promised more than it has; no number of a StatefulSet has two pods; no
//! Job runs more pods than its parallelism or counts a success twice; no eviction goes below a budget.

use crate::objects::{Kind, Object};
use crate::store::Store;
use controllers::pods;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use std::collections::BTreeMap;
use std::sync::Arc;

pub(crate) fn after_write(store: &mut Store, written: &Object) {
    match written {
        Object::Pod(pod) => {
            if let Some(node) = pods::node_name(pod) {
                overfull(store, node);
            }
            if let Some(owner) = controllers::owners::controller_of(&pod.metadata) {
                match owner.kind.as_str() {
                    "StatefulSet" => doubled(store, &owner.uid),
                    "Job" => crowded(store, &owner.uid),
                    _ => {}
                }
            }
        }
        Object::Job(job) => miscounted(store, job),
        _ => {}
    }
}

fn blame(store: &mut Store, what: String) {
    if !store.violations.contains(&what) {
        store.violations.push(what);
    }
}

fn overfull(store: &mut Store, node: &str) {
    let Some(Object::Node(there)) = store.get(&(Kind::Node, node.to_owned())) else { return };
    let room = scheduling::resources::allocatable(&Node::clone(there));
    let mut used = 0;
    for pod in store.typed::<Pod>() {
        if pods::node_name(&pod) == Some(node) && !pods::is_finished(&pod) {
            used += scheduling::resources::pod_requests(&pod).cpu;
        }
    }
    if used > room.cpu {
        blame(store, format!("node {node} has {} and was promised for {used}", room.cpu));
    }
}

fn doubled(store: &mut Store, set: &str) {
    let mut numbers: BTreeMap<String, usize> = BTreeMap::new();
    for pod in store.typed::<Pod>() {
        let mine = controllers::owners::controller_of(&pod.metadata).is_some_and(|o| o.uid == set);
        let number = pod.metadata.labels.as_ref().and_then(|l| l.get("apps.kubernetes.io/pod-index")).cloned();
        if mine && !pods::is_finished(&pod) {
            *numbers.entry(number.unwrap_or_default()).or_default() += 1;
        }
    }
    if let Some((number, _)) = numbers.iter().find(|(_, count)| **count > 1) {
        blame(store, format!("two pods have the number {number} of one StatefulSet"));
    }
}

fn crowded(store: &mut Store, job_uid: &str) {
    let jobs = store.typed::<Job>();
    let Some(job) = jobs.iter().find(|j| j.metadata.uid.as_deref() == Some(job_uid)) else { return };
    let most = job.spec.as_ref().and_then(|s| s.parallelism).unwrap_or(1);
    let active = store.typed::<Pod>().iter().filter(|p| owned(p, job_uid) && pods::is_active(p)).count();
    if active > usize::try_from(most).unwrap_or(0) {
        let name = job.metadata.name.clone().unwrap_or_default();
        blame(store, format!("job {name} runs {active} pods and may run {most}"));
    }
}

fn owned(pod: &Pod, uid: &str) -> bool {
    controllers::owners::controller_of(&pod.metadata).is_some_and(|o| o.uid == uid)
}

fn miscounted(store: &mut Store, job: &Job) {
    let status = job.status.clone().unwrap_or_default();
    let all = job.spec.as_ref().and_then(|s| s.completions).unwrap_or(i32::MAX);
    let noted = status.uncounted_terminated_pods.as_ref().and_then(|u| u.succeeded.as_ref()).map_or(0, Vec::len);
    let counted = status.succeeded.unwrap_or(0) + i32::try_from(noted).unwrap_or(0);
    if counted > all {
        let name = job.metadata.name.clone().unwrap_or_default();
        blame(store, format!("job {name} counted {counted} successes of {all}"));
    }
}

/// Right after an eviction that was granted.
pub(crate) fn after_eviction(store: &mut Store, evicted: &Arc<Pod>) {
    let all = store.typed::<Pod>();
    for budget in store.typed::<PodDisruptionBudget>() {
        if controllers::disruption::covered(&budget, std::slice::from_ref(evicted)).is_empty() {
            continue;
        }
        let healthy = controllers::disruption::covered(&budget, &all);
        let healthy = healthy.iter().filter(|p| pods::is_ready(p) && !pods::is_terminating(p)).count();
        let least = budget.status.as_ref().and_then(|s| s.desired_healthy).unwrap_or(0);
        if healthy < usize::try_from(least).unwrap_or(0) {
            blame(store, format!("an eviction left {healthy} healthy pods where {least} have to stay"));
        }
    }
}
