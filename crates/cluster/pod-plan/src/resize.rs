//! In-place resize: a running container gets other limits than it was started with.
//!
//! Part of `decide`. Invariants: nothing is given that the node does not have, a container restarts only when its resize
//! policy says so, and what the status shows is what the container really has.

use k8s_openapi::api::core::v1::{PodCondition, ResourceRequirements};

use crate::{
    Action, ActionKey, ContainerKind, StopReason, View,
    decide::{Plan, Scene},
    known::Known,
    quantity,
    status::api_time,
    stop,
};

/// What the node has for this pod: all of it, less what other pods asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Room {
    /// Processors of the node, in thousandths.
    pub capacity_millicpu: i64,
    /// Memory of the node.
    pub capacity_memory_bytes: i64,
    /// Asked for by others.
    pub used_millicpu: i64,
    /// Asked for by others.
    pub used_memory_bytes: i64,
}

/// Why a wanted resize does not happen now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Obstacle {
    /// The node is too small for it, ever.
    Infeasible(String),
    /// Other pods hold what it needs.
    Deferred(String),
}

/// What the newest instance of a container runs with.
pub(crate) fn applied(view: &View<'_>, one: &Known<'_>) -> Option<ResourceRequirements> {
    let current = one.current?;
    if let Some(resources) = view.memory.applied.get(&current.id) {
        return resources.clone();
    }
    // The agent was restarted: the last report of this very instance counts.
    let reported = one.reported.filter(|status| {
        let id = status.container_id.as_deref().and_then(|text| text.split_once("://"));
        id.is_some_and(|(_, id)| id == current.id)
    });
    match reported {
        Some(status) if status.resources.is_some() => status.resources.clone(),
        Some(_) | None => one.container.spec.resources.clone(),
    }
}

fn amounts(resources: Option<&ResourceRequirements>) -> (Amounts<'_>, Amounts<'_>) {
    let limits = resources.and_then(|one| one.limits.as_ref());
    let requests = resources.and_then(|one| one.requests.as_ref());
    (limits, requests)
}

type Amounts<'a> = Option<
    &'a std::collections::BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>,
>;

/// The resources whose amounts differ; only processors and memory can be changed in place.
fn changed(view: &View<'_>, one: &Known<'_>) -> Vec<&'static str> {
    let has = applied(view, one);
    let (wanted, has) = (amounts(one.container.spec.resources.as_ref()), amounts(has.as_ref()));
    let of = |map: Amounts<'_>, name: &str| map.and_then(|map| map.get(name)).and_then(quantity::millis);
    ["cpu", "memory"]
        .into_iter()
        .filter(|name| of(wanted.0, name) != of(has.0, name) || of(wanted.1, name) != of(has.1, name))
        .collect()
}

/// Containers that run with other amounts than the spec says.
pub(crate) fn wanted<'s, 'a>(scene: &'s Scene<'_, 'a>) -> impl Iterator<Item = (&'s Known<'a>, Vec<&'static str>)> {
    scene
        .of_kind(&[ContainerKind::Sidecar, ContainerKind::Main])
        .filter(|one| one.is_running() && one.in_sandbox)
        .map(|one| (one, changed(scene.view, one)))
        .filter(|(_, changed)| !changed.is_empty())
}

pub(crate) fn obstacle(scene: &Scene<'_, '_>) -> Option<Obstacle> {
    let room = scene.view.room?;
    let total = |name: &str| -> i64 {
        let specs = scene.of_kind(&[ContainerKind::Sidecar, ContainerKind::Main]).map(|one| &one.container.spec);
        let requests = specs.filter_map(|spec| spec.resources.as_ref()?.requests.as_ref()?.get(name));
        i64::try_from(requests.filter_map(quantity::millis).sum::<i128>()).unwrap_or(i64::MAX)
    };
    let (cpu, memory) = (total("cpu"), total("memory") / 1000);
    for (name, asked, used, capacity) in [
        ("cpu", cpu, room.used_millicpu, room.capacity_millicpu),
        ("memory", memory, room.used_memory_bytes, room.capacity_memory_bytes),
    ] {
        if asked > capacity {
            let text = format!("Node didn't have enough capacity: {name}, requested: {asked}, capacity: {capacity}");
            return Some(Obstacle::Infeasible(text));
        }
        if asked.saturating_add(used) > capacity {
            let text = format!(
                "Node didn't have enough resource: {name}, requested: {asked}, used: {used}, capacity: {capacity}"
            );
            return Some(Obstacle::Deferred(text));
        }
    }
    None
}

pub(crate) fn plan(scene: &Scene<'_, '_>, plan: &mut Plan) {
    let mut containers = wanted(scene).peekable();
    if containers.peek().is_none() || obstacle(scene).is_some() {
        return;
    }
    for (one, changed) in containers {
        let Some(current) = one.current else { continue };
        let being_stopped = scene.view.memory.is_in_flight(&ActionKey::Stop(current.id.clone()));
        let starting = scene.view.memory.is_in_flight(&ActionKey::Start(one.name().to_owned()));
        if being_stopped || starting {
            continue;
        }
        let policies = || one.container.spec.resize_policy.iter().flatten();
        let restarts = policies().any(|policy| {
            policy.restart_policy == "RestartContainer" && changed.contains(&policy.resource_name.as_str())
        });
        let (container, id) = (one.name().to_owned(), current.id.clone());
        let action = if restarts {
            let grace_seconds = stop::spec_grace(scene.view);
            Action::StopContainer { container, id, grace_seconds, reason: StopReason::Resized }
        } else {
            Action::ResizeContainer { container, id }
        };
        plan.push(scene.view, action);
    }
}

/// `PodResizePending` or `PodResizeInProgress`, as long as either holds.
pub(crate) fn condition(scene: &Scene<'_, '_>, before: &[PodCondition]) -> Option<PodCondition> {
    let running = matches!(scene.course, crate::decide::Course::Run);
    if !running || wanted(scene).next().is_none() {
        return None;
    }
    let failed = scene.view.memory.failures.keys().any(|key| matches!(key, ActionKey::Resize(_)));
    let (type_, reason, message) = match obstacle(scene) {
        Some(Obstacle::Infeasible(text)) => ("PodResizePending", Some("Infeasible"), Some(text)),
        Some(Obstacle::Deferred(text)) => ("PodResizePending", Some("Deferred"), Some(text)),
        None if failed => ("PodResizeInProgress", Some("Error"), scene.view.memory.resize_error.clone()),
        None => ("PodResizeInProgress", None, None),
    };
    let known = before.iter().find(|one| one.type_ == type_);
    Some(PodCondition {
        last_probe_time: None,
        last_transition_time: known
            .and_then(|one| one.last_transition_time.clone())
            .or_else(|| Some(api_time(scene.view.now))),
        message,
        observed_generation: scene.view.pod.metadata.generation,
        reason: reason.map(str::to_owned),
        status: "True".to_owned(),
        type_: type_.to_owned(),
    })
}
