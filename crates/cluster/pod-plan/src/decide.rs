//! The decision over one pod.
//!
//! The node agent calls [`decide`] after every change. The main path: find the pod's [`Course`] (run,
//! finish or delete), plan its actions (`start`, `stop`), and describe what is there (`status`). Invariant:
//! with nothing changed but the completed actions, a second pass asks for nothing.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::PodStatus;

use crate::{
    Action, ActionKey, BackoffPolicy, ContainerKind, EventKind, ObservedSandbox, PodEvent, Presence, ProbeKind,
    ProbeResult, StopReason, View,
    known::{self, Known},
    resize, start, status, stop,
};

/// Output of [`decide`].
#[derive(Debug, Clone)]
pub struct Decision {
    /// To be done now, each as a task of its own.
    pub actions: Vec<Action>,
    /// The complete status; to be written when it differs from the reported one.
    pub status: PodStatus,
    /// Events that no action stands for, each with a key that makes it be told once.
    pub announcements: Vec<(String, PodEvent)>,
    /// When to look again though nothing changes.
    pub wake_at: Option<Timestamp>,
}

/// Where the pod is going.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Course {
    /// Keep it going.
    Run,
    /// It has ended by itself (or by its deadline); keep what is there for inspection.
    Finish { succeeded: bool, deadline_exceeded: bool },
    /// The node is short of something: it ends at once and counts as failed.
    Evict,
    /// It is to leave the node, within this many seconds.
    Delete { grace_seconds: i64 },
}

/// A decision in the making.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) actions: Vec<Action>,
    pub(crate) announcements: Vec<(String, PodEvent)>,
    pub(crate) wake_at: Option<Timestamp>,
}

impl Plan {
    /// Looks again at `at`, unless something earlier does.
    pub(crate) fn wake(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |before| before.min(at)));
    }

    /// Adds an action that is neither in flight nor waiting after a failure.
    pub(crate) fn push(&mut self, view: &View<'_>, action: Action) {
        let key = action.key();
        if view.memory.is_in_flight(&key) || self.actions.iter().any(|one| one.key() == key) {
            return;
        }
        if let Some(backoff) = view.memory.failures.get(&key) {
            let until = backoff.until(backoff.since, BackoffPolicy::NODE_WORK);
            if view.now < until {
                self.wake(until);
                return;
            }
        }
        self.actions.push(action);
    }
}

/// What the parts of a decision read.
#[derive(Debug)]
pub(crate) struct Scene<'v, 'a> {
    pub(crate) view: &'v View<'a>,
    pub(crate) containers: Vec<Known<'a>>,
    pub(crate) sandbox: Option<&'a ObservedSandbox>,
    pub(crate) course: Course,
}

impl<'a> Scene<'_, 'a> {
    pub(crate) fn of_kind(&self, kinds: &'static [ContainerKind]) -> impl DoubleEndedIterator<Item = &Known<'a>> {
        self.containers.iter().filter(move |one| kinds.contains(&one.kind()))
    }

    /// Every init container has succeeded and every sidecar is up, or the main containers went ahead.
    pub(crate) fn is_initialized(&self) -> bool {
        self.of_kind(&[ContainerKind::Main]).any(|one| one.in_sandbox && one.current.is_some())
            || self.containers.iter().all(|one| match one.kind() {
                ContainerKind::Init => self.init_succeeded(one),
                ContainerKind::Sidecar => one.is_started(self.view),
                ContainerKind::Main | ContainerKind::Ephemeral => true,
            })
    }

    /// A success counts only in the present sandbox: a new one is a new start of the pod.
    pub(crate) fn init_succeeded(&self, one: &Known<'_>) -> bool {
        let here = one.in_sandbox || one.current.is_none();
        here && one.ended().is_some_and(|end| end.code == 0)
    }

    pub(crate) fn any_running(&self) -> bool {
        self.view.containers.iter().any(|one| one.is_running())
    }

    pub(crate) fn starts_in_flight(&self) -> bool {
        self.containers.iter().any(|one| self.view.memory.is_in_flight(&ActionKey::Start(one.name().to_owned())))
    }
}

/// One pass over one pod. Pure.
pub fn decide(view: &View<'_>) -> Decision {
    let containers = known::gather(view);
    let scene = Scene { view, sandbox: known::current_sandbox(view), course: course(view, &containers), containers };
    let mut plan = Plan::default();
    match scene.course {
        Course::Run => run(&scene, &mut plan),
        Course::Finish { .. } => stop::finish(&scene, stop::spec_grace(view), &mut plan),
        Course::Evict => stop::finish(&scene, crate::action::KILL_GRACE_SECONDS, &mut plan),
        Course::Delete { grace_seconds } => stop::delete(&scene, grace_seconds, &mut plan),
    }
    Decision {
        status: status::pod_status(&scene),
        actions: plan.actions,
        announcements: plan.announcements,
        wake_at: plan.wake_at,
    }
}

fn course(view: &View<'_>, containers: &[Known<'_>]) -> Course {
    let metadata = &view.pod.metadata;
    if view.presence == Presence::Gone {
        return Course::Delete { grace_seconds: 1 };
    }
    if let Some(deadline) = &metadata.deletion_timestamp {
        let grace = metadata.deletion_grace_period_seconds.unwrap_or(30);
        // The deadline is the API server's, so that a restart of the agent does not lengthen it; it has no
        // fractions of a second, hence the rounding in the pod's favour.
        let left = deadline.0.duration_since(view.now).as_secs().saturating_add(1);
        return Course::Delete { grace_seconds: left.clamp(1, grace.max(1)) };
    }
    let reported = view.pod.status.as_ref();
    let finish = |succeeded, deadline_exceeded| Course::Finish { succeeded, deadline_exceeded };
    match reported.and_then(|status| status.phase.as_deref()) {
        Some("Succeeded") => return finish(true, false),
        Some("Failed") => return finish(false, false),
        Some(_) | None => {}
    }
    if view.memory.evicted.is_some() {
        return Course::Evict;
    }
    if deadline(view).is_some_and(|at| at <= view.now) {
        return finish(false, true);
    }
    let init_failed = containers
        .iter()
        .any(|one| one.kind() == ContainerKind::Init && one.is_done() && one.ended().is_some_and(|end| end.code != 0));
    if init_failed {
        return finish(false, false);
    }
    let mut mains = containers.iter().filter(|one| one.kind() == ContainerKind::Main).peekable();
    if mains.peek().is_some() && mains.clone().all(Known::is_done) {
        let succeeded = mains.all(|one| one.ended().is_some_and(|end| end.code == 0));
        return finish(succeeded, false);
    }
    Course::Run
}

fn deadline(view: &View<'_>) -> Option<Timestamp> {
    let seconds = view.pod.spec.as_ref()?.active_deadline_seconds?;
    let started = view.pod.status.as_ref()?.start_time.as_ref()?.0;
    started.saturating_add(SignedDuration::from_secs(seconds)).ok()
}

fn run(scene: &Scene<'_, '_>, plan: &mut Plan) {
    if let Some(at) = deadline(scene.view) {
        plan.wake(at);
    }
    stop::strays(scene, plan);
    if *scene.view.memory.volumes() != crate::VolumeState::Ready {
        plan.push(scene.view, Action::PrepareVolumes);
    }
    if scene.sandbox.is_none() {
        need_sandbox(scene, plan);
    }
    start::plan(scene, plan);
    probes(scene, plan);
    hook_failures(scene, plan);
    resize::plan(scene, plan);
    prune(scene, plan);
}

/// A new sandbox is made only when nothing runs in an old one.
fn need_sandbox(scene: &Scene<'_, '_>, plan: &mut Plan) {
    if scene.any_running() || scene.starts_in_flight() {
        return;
    }
    let attempt = scene.view.sandboxes.iter().map(|one| one.attempt.saturating_add(1)).max().unwrap_or(0);
    plan.push(scene.view, Action::CreateSandbox { attempt });
}

fn probes(scene: &Scene<'_, '_>, plan: &mut Plan) {
    let view = scene.view;
    for one in &scene.containers {
        let Some(current) = one.current else { continue };
        let crate::ContainerState::Running { started_at } = current.state else {
            continue;
        };
        let being_stopped = view.memory.is_in_flight(&ActionKey::Stop(current.id.clone()));
        let starting = view.memory.is_in_flight(&ActionKey::Start(one.name().to_owned()));
        if being_stopped || starting {
            continue;
        }
        for kind in [ProbeKind::Startup, ProbeKind::Liveness, ProbeKind::Readiness] {
            if let Some(probe) = one.container.probe(kind) {
                probe_pass(scene, plan, one, (&current.id, started_at), (kind, probe));
            }
        }
    }
}

fn probe_pass(
    scene: &Scene<'_, '_>,
    plan: &mut Plan,
    one: &Known<'_>,
    (id, started_at): (&str, Timestamp),
    (kind, probe): (ProbeKind, &k8s_openapi::api::core::v1::Probe),
) {
    let view = scene.view;
    let started = one.is_started(view);
    let state = known::probe_state(view.pod, view.memory, id, kind);
    let applies = match kind {
        ProbeKind::Startup => !started,
        ProbeKind::Liveness | ProbeKind::Readiness => started,
    };
    if !applies {
        return;
    }
    if kind != ProbeKind::Readiness && state.verdict == ProbeResult::Failure {
        let own = probe.termination_grace_period_seconds;
        plan.push(
            view,
            Action::StopContainer {
                container: one.name().to_owned(),
                id: id.to_owned(),
                grace_seconds: own.unwrap_or_else(|| stop::spec_grace(view)).max(1),
                reason: StopReason::ProbeFailed(kind),
            },
        );
        return;
    }
    let key = ActionKey::Probe(id.to_owned(), kind);
    if view.memory.is_in_flight(&key) {
        return;
    }
    let due = state.due(probe, started_at);
    if due > view.now {
        plan.wake(due);
        return;
    }
    plan.push(view, Action::Probe { container: one.name().to_owned(), id: id.to_owned(), kind });
}

fn hook_failures(scene: &Scene<'_, '_>, plan: &mut Plan) {
    for one in &scene.containers {
        if let Some(current) = one.current
            && current.is_running()
            && scene.view.memory.hook_failed.contains(&current.id)
        {
            let action = Action::StopContainer {
                container: one.name().to_owned(),
                id: current.id.clone(),
                grace_seconds: stop::spec_grace(scene.view),
                reason: StopReason::PostStartFailed,
            };
            plan.push(scene.view, action);
        }
    }
}

/// Keeps the newest and the one before it of every container; of the sandboxes, the newest and those in use.
fn prune(scene: &Scene<'_, '_>, plan: &mut Plan) {
    for dead in scene.view.containers.iter().filter(|one| !one.is_running()) {
        let kept = scene
            .containers
            .iter()
            .any(|known| [known.current, known.previous].iter().flatten().any(|one| one.id == dead.id));
        if !kept {
            let id = dead.id.clone();
            plan.push(scene.view, Action::RemoveContainer { id });
        }
    }
    let newest = scene.view.sandboxes.iter().map(|one| one.attempt).max();
    for old in scene.view.sandboxes {
        let in_use = scene.view.containers.iter().any(|one| one.sandbox_id == old.id);
        if !old.ready && Some(old.attempt) != newest && !in_use {
            let id = old.id.clone();
            plan.push(scene.view, Action::RemoveSandbox { id });
        }
    }
}

/// The event of a container that waits before its next restart.
pub(crate) fn back_off_event(container: &str, pod: &str) -> PodEvent {
    PodEvent::of_container(
        EventKind::Warning,
        "BackOff",
        format!("Back-off restarting failed container {container} in pod {pod}"),
        container,
    )
}
