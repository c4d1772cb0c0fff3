//! Which container starts next.
//!
//! Part of `decide`. Invariants: init containers one after the other, sidecars before what follows them,
//! main containers in order (a postStart hook holds back the next start, as in Kubernetes), and no start
//! while any instance of the same container runs.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Container;

use crate::{
    Action, ActionKey, Backoff, BackoffPolicy, ContainerKind, ContainerState, EventKind, ImageState, PodEvent, View,
    VolumeState,
    decide::{Plan, Scene, back_off_event},
    known::Known,
};

/// When a registry is asked for an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullPolicy {
    /// At every start.
    Always,
    /// When it is not here.
    IfNotPresent,
    /// Never.
    Never,
}

/// The policy of a container; without one, `Always` for `:latest` and untagged images.
pub fn effective_pull_policy(container: &Container) -> PullPolicy {
    match container.image_pull_policy.as_deref() {
        Some("Always") => PullPolicy::Always,
        Some("Never") => PullPolicy::Never,
        Some("IfNotPresent") => PullPolicy::IfNotPresent,
        Some(_) | None => {
            let image = container.image.as_deref().unwrap_or_default();
            let last = image.rsplit('/').next().unwrap_or_default();
            let latest = !image.contains('@') && (!last.contains(':') || last.ends_with(":latest"));
            if latest { PullPolicy::Always } else { PullPolicy::IfNotPresent }
        }
    }
}

/// What to do about an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageChoice {
    /// Use what is here.
    UsePresent,
    /// Ask the registry.
    Pull,
    /// It is not here and may not be pulled.
    Refuse,
}

/// The choice for an image that is here or not; one of local origin has no registry to ask.
pub fn choose_image(policy: PullPolicy, present: bool, local_origin: bool) -> ImageChoice {
    match (policy, present) {
        (PullPolicy::Never, false) => ImageChoice::Refuse,
        (PullPolicy::Never | PullPolicy::IfNotPresent, true) => ImageChoice::UsePresent,
        (PullPolicy::Always, true) if local_origin => ImageChoice::UsePresent,
        (PullPolicy::Always, _) | (PullPolicy::IfNotPresent, false) => ImageChoice::Pull,
    }
}

pub(crate) fn plan(scene: &Scene<'_, '_>, plan: &mut Plan) {
    let initialized = scene.is_initialized();
    for one in scene.of_kind(&[ContainerKind::Init, ContainerKind::Sidecar]) {
        let passed = match one.kind() {
            ContainerKind::Sidecar => one.is_started(scene.view),
            ContainerKind::Init | ContainerKind::Main | ContainerKind::Ephemeral => {
                initialized || scene.init_succeeded(one)
            }
        };
        if passed {
            continue;
        }
        start(scene, one, plan);
        // Once the main containers run, a sidecar that died holds back nobody.
        if !initialized {
            return;
        }
    }
    for one in scene.of_kind(&[ContainerKind::Main, ContainerKind::Ephemeral]) {
        if one.is_done() {
            continue;
        }
        start(scene, one, plan);
        if is_starting(scene.view, one) || plan.actions.iter().any(|a| starts(a, one.name())) {
            // Images of the later ones are fetched meanwhile; their starts wait.
            later_images(scene, one, plan);
            return;
        }
    }
}

fn starts(action: &Action, name: &str) -> bool {
    matches!(action, Action::StartContainer { container, .. } if container == name)
}

fn is_starting(view: &View<'_>, one: &Known<'_>) -> bool {
    view.memory.is_in_flight(&ActionKey::Start(one.name().to_owned()))
}

fn later_images(scene: &Scene<'_, '_>, before: &Known<'_>, plan: &mut Plan) {
    scene
        .of_kind(&[ContainerKind::Main])
        .skip_while(|one| one.name() != before.name())
        .skip(1)
        .filter(|one| !one.is_running() && !one.is_done())
        .filter(|one| restart_wait(scene.view, one).is_none())
        .for_each(|one| {
            image_of(scene.view, one, plan);
        });
}

/// The one place where a start is asked for.
fn start(scene: &Scene<'_, '_>, one: &Known<'_>, plan: &mut Plan) {
    let view = scene.view;
    if is_starting(view, one) {
        return;
    }
    let mut clear = true;
    for instance in view.containers.iter().filter(|i| i.name == one.name()) {
        match instance.state {
            ContainerState::Running { .. } => return,
            // Made and never started: what a crash between the two leaves.
            ContainerState::Created => {
                let id = instance.id.clone();
                plan.push(view, Action::RemoveContainer { id });
                clear = false;
            }
            ContainerState::Exited { .. } => {}
        }
    }
    if !clear || waits(view, one, plan) {
        return;
    }
    let Some(image_ref) = image_of(view, one, plan) else {
        return;
    };
    if let (Some(sandbox), VolumeState::Ready) = (scene.sandbox, view.memory.volumes()) {
        plan.push(
            view,
            Action::StartContainer {
                container: one.name().to_owned(),
                attempt: one.next_attempt(),
                sandbox_id: sandbox.id.clone(),
                image_ref,
            },
        );
    }
}

/// When a container that ended may run again, if that is not now.
pub(crate) fn restart_wait(view: &View<'_>, one: &Known<'_>) -> Option<Timestamp> {
    let finished_at = one.ended()?.finished_at?;
    let backoff = match view.memory.restarts.get(one.name()) {
        // Ten quiet minutes between the last restart and this end: start over.
        Some(known) => {
            let quiet = finished_at.duration_since(known.since);
            (quiet <= BackoffPolicy::RESTART.max * 2).then_some(*known)?
        }
        // The agent itself was restarted: the restart count stands in for what it had in mind.
        None => {
            let restarts = one.current.map_or(0, |current| current.attempt);
            (restarts > 0).then_some(Backoff { failures: restarts, since: finished_at })?
        }
    };
    let until = backoff.until(finished_at, BackoffPolicy::RESTART);
    (view.now < until).then_some(until)
}

fn waits(view: &View<'_>, one: &Known<'_>, plan: &mut Plan) -> bool {
    if let Some(error) = view.memory.start_errors.get(one.name())
        && view.now < error.retry_at
    {
        plan.wake(error.retry_at);
        return true;
    }
    let Some(until) = restart_wait(view, one) else {
        return false;
    };
    plan.wake(until);
    let instance = one.current.map_or("", |current| current.id.as_str());
    let key = format!("backoff/{}/{instance}", one.name());
    if !view.memory.is_announced(&key) {
        plan.announcements.push((key, back_off_event(one.name(), &full_name(view))));
    }
    true
}

/// `name_namespace(uid)`, as messages call a pod.
pub(crate) fn full_name(view: &View<'_>) -> String {
    let metadata = &view.pod.metadata;
    format!(
        "{}_{}({})",
        metadata.name.as_deref().unwrap_or_default(),
        metadata.namespace.as_deref().unwrap_or_default(),
        metadata.uid.as_deref().unwrap_or_default()
    )
}

/// The image for the next start, or the action that gets it.
fn image_of(view: &View<'_>, one: &Known<'_>, plan: &mut Plan) -> Option<String> {
    let attempt = one.next_attempt();
    match view.memory.images.get(one.name()) {
        Some(ImageState::Ready { attempt: for_attempt, image_ref }) if *for_attempt == attempt => {
            return Some(image_ref.clone());
        }
        Some(ImageState::Failed { backoff, .. }) => {
            let until = backoff.until(backoff.since, BackoffPolicy::RESTART);
            if view.now < until {
                image_waits(view, one, backoff, until, plan);
                return None;
            }
        }
        Some(ImageState::Ready { .. }) | None => {}
    }
    let container = one.name().to_owned();
    plan.push(view, Action::EnsureImage { container, attempt });
    None
}

/// How long `ErrImagePull` is shown before it turns into `ImagePullBackOff`.
pub(crate) const PULL_ERROR_SHOWN: jiff::SignedDuration = jiff::SignedDuration::from_secs(2);

fn image_waits(view: &View<'_>, one: &Known<'_>, backoff: &Backoff, until: Timestamp, plan: &mut Plan) {
    let turns = backoff.since.saturating_add(PULL_ERROR_SHOWN).unwrap_or(Timestamp::MAX);
    if view.now < turns {
        plan.wake(turns);
        return;
    }
    plan.wake(until);
    let key = format!("imagebackoff/{}/{}", one.name(), backoff.failures);
    if !view.memory.is_announced(&key) {
        let image = one.container.spec.image.as_deref().unwrap_or_default();
        let text = format!("Back-off pulling image \"{image}\"");
        plan.announcements.push((key.clone(), PodEvent::of_container(EventKind::Normal, "BackOff", text, one.name())));
        let error = "Error: ImagePullBackOff".to_owned();
        plan.announcements.push((key, PodEvent::of_container(EventKind::Warning, "Failed", error, one.name())));
    }
}
