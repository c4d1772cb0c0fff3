//! The status of one container.
//!
//! Part of the status. Invariants: `restartCount` never goes down, `lastState` is the end before the present
//! state, and a waiting container says in Kubernetes' words what it waits for.

use k8s_openapi::api::core::v1::{
    ContainerState as ApiState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
    ContainerStatus, VolumeMountStatus,
};

use crate::{
    ActionKey, BackoffPolicy, ContainerKind, ContainerState, ImageState, ObservedContainer,
    decide::{Course, Scene},
    known::Known,
    start,
    status::api_time,
};

pub(crate) fn of(scene: &Scene<'_, '_>, one: &Known<'_>) -> ContainerStatus {
    let view = scene.view;
    let state = state(scene, one);
    let is_running = state.running.is_some();
    let reported_count = one.reported.map_or(0, |status| status.restart_count);
    let current = one.current;
    let count = current.map_or(0, |c| i32::try_from(c.attempt).unwrap_or(i32::MAX));
    let spec = &one.container.spec;
    let resources = crate::resize::applied(view, one).filter(|_| is_running);
    ContainerStatus {
        container_id: current
            .map(|c| id(scene, c))
            .or_else(|| one.reported.and_then(|status| status.container_id.clone())),
        image: spec.image.clone().unwrap_or_default(),
        image_id: current
            .map(|c| c.image_ref.clone())
            .or_else(|| one.reported.map(|status| status.image_id.clone()))
            .unwrap_or_default(),
        last_state: Some(last_state(scene, one, &state)),
        name: spec.name.clone(),
        ready: match one.kind() {
            ContainerKind::Init => state.terminated.as_ref().is_some_and(|end| end.exit_code == 0),
            ContainerKind::Ephemeral => false,
            ContainerKind::Main | ContainerKind::Sidecar => is_running && one.is_ready(view),
        },
        allocated_resources: resources.as_ref().and_then(|one| one.requests.clone()),
        resources,
        restart_count: count.max(reported_count),
        started: Some(is_running && one.is_started(view)),
        state: Some(state),
        volume_mounts: volume_mounts(one),
        ..ContainerStatus::default()
    }
}

fn id(scene: &Scene<'_, '_>, one: &ObservedContainer) -> String {
    format!("{}://{}", scene.view.node.runtime_scheme, one.id)
}

fn volume_mounts(one: &Known<'_>) -> Option<Vec<VolumeMountStatus>> {
    let mounts = one.container.spec.volume_mounts.as_ref()?;
    Some(
        mounts
            .iter()
            .map(|mount| VolumeMountStatus {
                mount_path: mount.mount_path.clone(),
                name: mount.name.clone(),
                read_only: mount.read_only,
                recursive_read_only: (mount.read_only == Some(true)).then(|| "Disabled".to_owned()),
                volume_status: None,
            })
            .collect(),
    )
}

fn waiting(reason: &str, message: Option<String>) -> ApiState {
    ApiState {
        waiting: Some(ContainerStateWaiting { message, reason: Some(reason.to_owned()) }),
        ..ApiState::default()
    }
}

fn terminated(scene: &Scene<'_, '_>, one: &ObservedContainer) -> Option<ApiState> {
    let ContainerState::Exited { started_at, finished_at, code, reason, message } = &one.state else {
        return None;
    };
    let word = match (reason.as_str(), code) {
        ("", 0) => "Completed",
        ("", _) => "Error",
        (given, _) => given,
    };
    Some(ApiState {
        terminated: Some(ContainerStateTerminated {
            container_id: Some(id(scene, one)),
            exit_code: *code,
            finished_at: Some(api_time(*finished_at)),
            message: (!message.is_empty()).then(|| message.clone()),
            reason: Some(word.to_owned()),
            signal: None,
            started_at: started_at.map(api_time),
        }),
        ..ApiState::default()
    })
}

/// A container that was reported as running and is not to be found.
fn lost(one: &Known<'_>) -> ApiState {
    let id = one.reported.and_then(|status| status.container_id.clone());
    ApiState {
        terminated: Some(ContainerStateTerminated {
            container_id: id,
            exit_code: 137,
            message: Some("The container could not be located when the pod was terminated".to_owned()),
            reason: Some("ContainerStatusUnknown".to_owned()),
            ..ContainerStateTerminated::default()
        }),
        ..ApiState::default()
    }
}

fn state(scene: &Scene<'_, '_>, one: &Known<'_>) -> ApiState {
    if let Some(ContainerState::Running { started_at }) = one.current.map(|c| &c.state) {
        return ApiState {
            running: Some(ContainerStateRunning { started_at: Some(api_time(*started_at)) }),
            ..ApiState::default()
        };
    }
    let ended = one.current.and_then(|c| terminated(scene, c)).or_else(|| reported_end(one));
    let will_run = scene.course == Course::Run && !one.is_done() && !init_is_over(scene, one);
    match ended {
        Some(end) if !will_run => end,
        Some(end) => blocked(scene, one).unwrap_or(end),
        None => blocked(scene, one).unwrap_or_else(|| waits_for_others(scene, one)),
    }
}

fn init_is_over(scene: &Scene<'_, '_>, one: &Known<'_>) -> bool {
    one.kind() == ContainerKind::Init && (scene.is_initialized() || scene.init_succeeded(one))
}

fn reported_end(one: &Known<'_>) -> Option<ApiState> {
    if one.current.is_some() {
        return None;
    }
    let state = one.reported?.state.as_ref()?;
    if state.terminated.is_some() {
        return Some(state.clone());
    }
    state.running.as_ref().map(|_| lost(one))
}

fn waits_for_others(scene: &Scene<'_, '_>, one: &Known<'_>) -> ApiState {
    let has_inits = scene.of_kind(&[ContainerKind::Init, ContainerKind::Sidecar]).next().is_some();
    if has_inits && !scene.is_initialized() || one.kind() == ContainerKind::Init {
        waiting("PodInitializing", None)
    } else {
        waiting("ContainerCreating", None)
    }
}

/// What keeps a container from running, if it is neither time nor its turn.
fn blocked(scene: &Scene<'_, '_>, one: &Known<'_>) -> Option<ApiState> {
    let view = scene.view;
    if scene.course != Course::Run {
        return None;
    }
    if let Some(until) = start::restart_wait(view, one) {
        let since = one.ended()?.finished_at?;
        let seconds = until.duration_since(since).as_secs();
        return Some(waiting(
            "CrashLoopBackOff",
            Some(format!(
                "back-off {} restarting failed container={} pod={}",
                duration(seconds),
                one.name(),
                start::full_name(view)
            )),
        ));
    }
    if let Some(error) = view.memory.start_errors.get(one.name()) {
        return Some(waiting(error.failure.reason(), Some(error.message.clone())));
    }
    if let Some(ImageState::Failed { reason, message, backoff }) = view.memory.images.get(one.name()) {
        return Some(image_wait(scene, one, reason, message, *backoff));
    }
    let starting = ActionKey::Start(one.name().to_owned());
    if one.current.is_some() && view.memory.is_in_flight(&starting) {
        return None;
    }
    None
}

fn image_wait(
    scene: &Scene<'_, '_>,
    one: &Known<'_>,
    reason: &str,
    message: &str,
    backoff: crate::Backoff,
) -> ApiState {
    let now = scene.view.now;
    let shown = backoff.since.saturating_add(start::PULL_ERROR_SHOWN);
    let until = backoff.until(backoff.since, BackoffPolicy::RESTART);
    let turned = shown.is_ok_and(|at| at <= now) && now < until;
    if reason == "ErrImagePull" && turned {
        let image = one.container.spec.image.as_deref().unwrap_or_default();
        let text = format!("Back-off pulling image \"{image}\": {reason}: {message}");
        return waiting("ImagePullBackOff", Some(text));
    }
    waiting(reason, Some(message.to_owned()))
}

/// Seconds as Go prints a duration.
fn duration(seconds: i64) -> String {
    match (seconds / 60, seconds % 60) {
        (0, seconds) => format!("{seconds}s"),
        (minutes, seconds) => format!("{minutes}m{seconds}s"),
    }
}

fn last_state(scene: &Scene<'_, '_>, one: &Known<'_>, state: &ApiState) -> ApiState {
    let of_current = one.current.and_then(|c| terminated(scene, c));
    if state.terminated.is_none()
        && let Some(end) = of_current.or_else(|| reported_end(one))
    {
        return end;
    }
    if let Some(end) = one.previous.and_then(|c| terminated(scene, c)) {
        return end;
    }
    one.reported.and_then(|status| status.last_state.clone()).unwrap_or_default()
}
