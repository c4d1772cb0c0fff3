//! How containers, sandboxes and pods come to their end.
//!
//! Part of `decide`. Invariants: main containers stop before sidecars, sidecars in reverse order; a sandbox
//! is stopped only when nothing runs in it; the object is finished off last, when CRI shows nothing of
//! the pod and its volumes are gone.

use crate::{
    Action, ActionKey, ContainerKind, ObservedContainer, Presence, StopReason, View, VolumeState,
    decide::{Plan, Scene},
};

/// The grace period of the spec, in seconds.
pub(crate) fn spec_grace(view: &View<'_>) -> i64 {
    view.pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds).unwrap_or(30).max(1)
}

fn stop(one: &ObservedContainer, grace_seconds: i64, reason: StopReason) -> Action {
    Action::StopContainer { container: one.name.clone(), id: one.id.clone(), grace_seconds, reason }
}

/// Whether an orderly stop is under way and this one would only repeat it.
fn is_stopping(view: &View<'_>, one: &ObservedContainer, grace_seconds: i64) -> bool {
    let memory = view.memory;
    let killing = memory.is_in_flight(&ActionKey::Kill(one.id.clone()));
    let stopping = memory.is_in_flight(&ActionKey::Stop(one.id.clone()));
    killing || (stopping && grace_seconds > crate::action::KILL_GRACE_SECONDS)
}

/// Containers that run outside the pod's present sandbox, and sandboxes that are not the newest.
pub(crate) fn strays(scene: &Scene<'_, '_>, plan: &mut Plan) {
    let present = scene.sandbox.map(|one| one.id.as_str());
    for one in scene.view.containers.iter().filter(|one| one.is_running()) {
        if Some(one.sandbox_id.as_str()) != present && !is_stopping(scene.view, one, 2) {
            let grace = spec_grace(scene.view);
            plan.push(scene.view, stop(one, grace, StopReason::SandboxLost));
        }
    }
    for old in scene.view.sandboxes.iter().filter(|one| one.ready) {
        if Some(old.id.as_str()) != present {
            let id = old.id.clone();
            plan.push(scene.view, Action::StopSandbox { id });
        }
    }
}

/// Stops what runs; true when nothing does and nothing is about to.
fn stop_all(scene: &Scene<'_, '_>, grace_seconds: i64, plan: &mut Plan) -> bool {
    let is_sidecar =
        |one: &ObservedContainer| scene.of_kind(&[ContainerKind::Sidecar]).any(|sidecar| sidecar.name() == one.name);
    let running = || scene.view.containers.iter().filter(|one| one.is_running());
    let mut mains = running().filter(|one| !is_sidecar(one)).peekable();
    if mains.peek().is_some() {
        for one in mains {
            if !is_stopping(scene.view, one, grace_seconds) {
                plan.push(scene.view, stop(one, grace_seconds, StopReason::PodEnding));
            }
        }
        return false;
    }
    let last_sidecar =
        scene.of_kind(&[ContainerKind::Sidecar]).rev().find_map(|known| running().find(|one| one.name == known.name()));
    if let Some(one) = last_sidecar {
        if !is_stopping(scene.view, one, grace_seconds) {
            plan.push(scene.view, stop(one, grace_seconds, StopReason::MainsDone));
        }
        return false;
    }
    !scene.starts_in_flight() && !scene.view.memory.is_in_flight(&ActionKey::CreateSandbox)
}

/// The pod has ended by itself: stop the rest, give the network back, keep containers for their logs.
pub(crate) fn finish(scene: &Scene<'_, '_>, grace_seconds: i64, plan: &mut Plan) {
    if !stop_all(scene, grace_seconds, plan) {
        return;
    }
    for sandbox in scene.view.sandboxes.iter().filter(|one| one.ready) {
        let id = sandbox.id.clone();
        plan.push(scene.view, Action::StopSandbox { id });
    }
}

/// The pod is to leave the node.
pub(crate) fn delete(scene: &Scene<'_, '_>, grace_seconds: i64, plan: &mut Plan) {
    let view = scene.view;
    if !stop_all(scene, grace_seconds, plan) {
        wake_for_kill(scene, plan);
        return;
    }
    if view.sandboxes.iter().any(|one| one.ready) {
        for sandbox in view.sandboxes.iter().filter(|one| one.ready) {
            let id = sandbox.id.clone();
            plan.push(view, Action::StopSandbox { id });
        }
        return;
    }
    if !view.sandboxes.is_empty() || !view.containers.is_empty() {
        for sandbox in view.sandboxes {
            let id = sandbox.id.clone();
            plan.push(view, Action::RemoveSandbox { id });
        }
        let orphan = |one: &&ObservedContainer| !view.sandboxes.iter().any(|sandbox| sandbox.id == one.sandbox_id);
        for one in view.containers.iter().filter(orphan) {
            let id = one.id.clone();
            plan.push(view, Action::RemoveContainer { id });
        }
        return;
    }
    if *view.memory.volumes() != VolumeState::Removed {
        plan.push(view, Action::RemoveVolumes);
    } else if view.presence == Presence::Known {
        plan.push(view, Action::FinishDelete);
    }
}

/// A stop that outlasts the API's deadline is overtaken by a kill.
fn wake_for_kill(scene: &Scene<'_, '_>, plan: &mut Plan) {
    if let Some(deadline) = &scene.view.pod.metadata.deletion_timestamp
        && deadline.0 > scene.view.now
    {
        plan.wake(deadline.0);
    }
}
