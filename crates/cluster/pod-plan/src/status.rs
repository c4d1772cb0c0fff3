//! The complete PodStatus.
//!
//! Part of `decide`; the node agent writes it when it differs from what was reported. Invariants: the phase
//! never leaves Succeeded or Failed, transition times change only with what they date, and what other
//! parties wrote (their conditions, nominations) is kept.

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{HostIP, PodIP, PodStatus},
    apimachinery::pkg::apis::meta::v1::Time,
};

use crate::{
    ContainerKind, conditions, container_status,
    decide::{Course, Scene},
    qos_class,
};

/// API times have no fractions of a second.
pub(crate) fn api_time(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}

pub(crate) fn pod_status(scene: &Scene<'_, '_>) -> PodStatus {
    let view = scene.view;
    let before = view.pod.status.clone().unwrap_or_default();
    let phase = phase(scene);
    let list = |kinds| {
        let statuses: Vec<_> = scene.of_kind(kinds).map(|one| container_status::of(scene, one)).collect();
        (!statuses.is_empty()).then_some(statuses)
    };
    let ips = pod_ips(scene, &before);
    let hosts = &view.node.host_ips;
    let (reason, message) = match scene.course {
        Course::Finish { deadline_exceeded: true, .. } => (
            Some("DeadlineExceeded".to_owned()),
            Some("Pod was active on the node longer than the specified deadline".to_owned()),
        ),
        Course::Evict => (Some("Evicted".to_owned()), view.memory.evicted.clone()),
        Course::Run | Course::Finish { .. } | Course::Delete { .. } => (before.reason.clone(), before.message.clone()),
    };
    let started = before.start_time.clone().unwrap_or_else(|| api_time(view.memory.first_seen.unwrap_or(view.now)));
    PodStatus {
        conditions: Some(conditions::of(scene, phase)),
        container_statuses: list(&[ContainerKind::Main]),
        ephemeral_container_statuses: list(&[ContainerKind::Ephemeral]),
        init_container_statuses: list(&[ContainerKind::Init, ContainerKind::Sidecar]),
        host_ip: hosts.first().cloned(),
        host_ips: (!hosts.is_empty()).then(|| hosts.iter().map(|ip| HostIP { ip: ip.clone() }).collect()),
        observed_generation: view.pod.metadata.generation,
        phase: Some(phase.to_owned()),
        pod_ip: ips.first().cloned(),
        pod_ips: (!ips.is_empty()).then(|| ips.iter().map(|ip| PodIP { ip: ip.clone() }).collect()),
        qos_class: before.qos_class.clone().or_else(|| view.pod.spec.as_ref().map(|spec| qos_class(spec).to_owned())),
        start_time: Some(started),
        reason,
        message,
        ..before
    }
}

fn pod_ips(scene: &Scene<'_, '_>, before: &PodStatus) -> Vec<String> {
    let spec = scene.view.pod.spec.as_ref();
    if spec.and_then(|spec| spec.host_network) == Some(true) {
        return scene.view.node.host_ips.clone();
    }
    match scene.sandbox {
        Some(sandbox) => sandbox.ips.clone(),
        // A pod that ended keeps the address that it had.
        None => before.pod_ips.iter().flatten().map(|one| one.ip.clone()).collect(),
    }
}

fn phase(scene: &Scene<'_, '_>) -> &'static str {
    let reported = scene.view.pod.status.as_ref();
    match reported.and_then(|status| status.phase.as_deref()) {
        Some("Succeeded") => return "Succeeded",
        Some("Failed") => return "Failed",
        Some(_) | None => {}
    }
    let stopped = !scene.any_running() && !scene.starts_in_flight();
    match scene.course {
        Course::Finish { succeeded, .. } if stopped => {
            if succeeded {
                "Succeeded"
            } else {
                "Failed"
            }
        }
        Course::Evict if stopped => "Failed",
        // Once all is stopped, a deleted pod has ended too, and says how.
        Course::Delete { .. } if stopped => {
            let clean = scene.of_kind(&[ContainerKind::Main]).all(|one| one.ended().is_some_and(|end| end.code == 0));
            if clean { "Succeeded" } else { "Failed" }
        }
        Course::Run | Course::Finish { .. } | Course::Evict | Course::Delete { .. } => {
            let mut mains = scene.of_kind(&[ContainerKind::Main]);
            if scene.is_initialized() && mains.all(|one| one.has_run()) { "Running" } else { "Pending" }
        }
    }
}
