//! The conditions of a pod.
//!
//! Part of the status. Invariants: the five conditions of the node in Kubernetes' order, then everybody
//! else's untouched; the transition time moves only when the status word does.

use k8s_openapi::api::core::v1::PodCondition;

use crate::{ContainerKind, decide::{Course, Scene}, known::Known, status::api_time};

const OURS: [&str; 5] = ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"];

/// There only while a resize is wanted.
const RESIZE: [&str; 2] = ["PodResizePending", "PodResizeInProgress"];

/// Status, reason, message.
struct Verdict {
    holds: bool,
    reason: Option<String>,
    message: Option<String>,
}

impl Verdict {
    fn yes() -> Self {
        Self { holds: true, reason: None, message: None }
    }

    fn because(holds: bool, reason: &str, message: Option<String>) -> Self {
        Self { holds, reason: Some(reason.to_owned()), message }
    }
}

pub(crate) fn of(scene: &Scene<'_, '_>, phase: &str) -> Vec<PodCondition> {
    let before: Vec<PodCondition> =
        scene.view.pod.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    let containers = containers_ready(scene, phase);
    let ready = ready(scene, &before, &containers);
    let verdicts = [
        Verdict { holds: scene.sandbox.is_some(), reason: None, message: None },
        initialized(scene, phase),
        ready,
        containers,
        Verdict::yes(),
    ];
    let mut conditions: Vec<PodCondition> =
        OURS.iter().zip(verdicts).map(|(name, verdict)| condition(scene, &before, name, verdict)).collect();
    let resize = crate::resize::condition(scene, &before);
    let evicted = scene.view.memory.evicted.clone().filter(|_| scene.course == Course::Evict).map(|message| {
        let verdict = Verdict::because(true, "TerminationByKubelet", Some(message));
        condition(scene, &before, "DisruptionTarget", verdict)
    });
    let ours = |one: &PodCondition| {
        OURS.contains(&one.type_.as_str())
            || RESIZE.contains(&one.type_.as_str())
            || (evicted.is_some() && one.type_ == "DisruptionTarget")
    };
    conditions.extend(before.into_iter().filter(|one| !ours(one)));
    conditions.extend(evicted);
    conditions.extend(resize);
    conditions
}

fn condition(scene: &Scene<'_, '_>, before: &[PodCondition], name: &str, verdict: Verdict) -> PodCondition {
    let status = if verdict.holds { "True" } else { "False" };
    let since = before
        .iter()
        .find(|one| one.type_ == name && one.status == status)
        .and_then(|one| one.last_transition_time.clone())
        .unwrap_or_else(|| api_time(scene.view.now));
    PodCondition {
        last_probe_time: None,
        last_transition_time: Some(since),
        message: verdict.message,
        observed_generation: scene.view.pod.metadata.generation,
        reason: verdict.reason,
        status: status.to_owned(),
        type_: name.to_owned(),
    }
}

fn names<'a>(containers: impl Iterator<Item = &'a Known<'a>>) -> String {
    let names: Vec<&str> = containers.map(Known::name).collect();
    names.join(" ")
}

fn initialized(scene: &Scene<'_, '_>, phase: &str) -> Verdict {
    if phase == "Succeeded" {
        return Verdict::because(true, "PodCompleted", None);
    }
    if scene.is_initialized() {
        return Verdict::yes();
    }
    let missing = names(scene.of_kind(&[ContainerKind::Init, ContainerKind::Sidecar]).filter(|one| match one.kind() {
        ContainerKind::Sidecar => !one.is_started(scene.view),
        ContainerKind::Init | ContainerKind::Main | ContainerKind::Ephemeral => !scene.init_succeeded(one),
    }));
    if missing.is_empty() {
        return Verdict::yes();
    }
    Verdict::because(false, "ContainersNotInitialized", Some(format!("containers with incomplete status: [{missing}]")))
}

fn containers_ready(scene: &Scene<'_, '_>, phase: &str) -> Verdict {
    match phase {
        "Succeeded" => return Verdict::because(false, "PodCompleted", None),
        "Failed" => return Verdict::because(false, "PodFailed", None),
        _ => {}
    }
    let unready =
        names(scene.of_kind(&[ContainerKind::Sidecar, ContainerKind::Main]).filter(|one| !one.is_ready(scene.view)));
    if unready.is_empty() {
        return Verdict::yes();
    }
    Verdict::because(false, "ContainersNotReady", Some(format!("containers with unready status: [{unready}]")))
}

fn ready(scene: &Scene<'_, '_>, before: &[PodCondition], containers: &Verdict) -> Verdict {
    if !containers.holds {
        return Verdict { holds: false, reason: containers.reason.clone(), message: containers.message.clone() };
    }
    let gates = scene.view.pod.spec.iter().flat_map(|spec| spec.readiness_gates.iter().flatten());
    let closed = gates
        .map(|gate| gate.condition_type.as_str())
        .find(|gate| !before.iter().any(|one| one.type_ == *gate && one.status == "True"));
    match closed {
        None => Verdict::yes(),
        Some(gate) => Verdict::because(
            false,
            "ReadinessGatesNotReady",
            Some(format!("the status of pod readiness gate \"{gate}\" is not \"True\", but False")),
        ),
    }
}
