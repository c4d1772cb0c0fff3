//! What one pod's worker remembers between passes.
//!
//! The worker owns it; `accept` notes a decision before its actions run, `record` what came of each. All of
//! it may be lost (the agent was killed): sandboxes, containers, restart counts and verdicts are then read
//! back from CRI and from the reported status. Invariant: memory only ever holds back or hastens an
//! action; it never makes one that the observation does not call for.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, ResourceRequirements};

use crate::{
    Action, ActionKey, Backoff, BackoffPolicy, Decision, EventKind, ObservedContainer, Outcome, PodEvent, ProbeKind,
    ProbeOutcome, ProbeState, StartFailure, known,
};

/// Volumes of the pod.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum VolumeState {
    /// Not looked at since the agent started.
    #[default]
    Unknown,
    /// Mounted.
    Ready,
    /// Gone: unmounted and deleted.
    Removed,
}

/// Image of a container, for one start of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageState {
    /// Here.
    Ready {
        /// The start that it was ensured for.
        attempt: u32,
        /// Resolved reference.
        image_ref: String,
    },
    /// Not to be had for now.
    Failed {
        /// `ErrImagePull`, `ErrImageNeverPull`, `InvalidImageName`.
        reason: String,
        /// Why.
        message: String,
        /// How often, and since when.
        backoff: Backoff,
    },
}

/// A start that failed before there was a process to exit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StartError {
    pub(crate) failure: StartFailure,
    pub(crate) message: String,
    pub(crate) retry_at: Timestamp,
}

/// See the file's header.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    pub(crate) in_flight: BTreeSet<ActionKey>,
    pub(crate) volumes: VolumeState,
    pub(crate) images: BTreeMap<String, ImageState>,
    pub(crate) restarts: BTreeMap<String, Backoff>,
    pub(crate) start_errors: BTreeMap<String, StartError>,
    start_failures: BTreeMap<String, Backoff>,
    pub(crate) failures: BTreeMap<ActionKey, Backoff>,
    pub(crate) probes: BTreeMap<(String, ProbeKind), ProbeState>,
    pub(crate) hook_failed: BTreeSet<String>,
    /// What each instance runs with, by CRI id.
    pub(crate) applied: BTreeMap<String, Option<ResourceRequirements>>,
    pub(crate) resize_error: Option<String>,
    /// Why the node sends the pod away, once it does.
    pub(crate) evicted: Option<String>,
    announced: BTreeSet<String>,
    pub(crate) first_seen: Option<Timestamp>,
}

/// A config error is tried again when a referenced object changes, and at the latest after this.
const CONFIG_RETRY: SignedDuration = SignedDuration::from_secs(10);

impl Memory {
    /// Notes what is about to be done. Call before the actions run.
    pub fn accept(&mut self, decision: &Decision, now: Timestamp) {
        self.first_seen.get_or_insert(now);
        self.announced.extend(decision.announcements.iter().map(|(key, _)| key.clone()));
        for action in &decision.actions {
            self.in_flight.insert(action.key());
            if let Action::StartContainer { container, attempt, .. } = action
                && *attempt > 0
            {
                let before = self.restarts.get(container).copied();
                self.restarts.insert(container.clone(), Backoff::next(before, now, BackoffPolicy::RESTART));
            }
        }
    }

    /// Notes what came of an action; returns the events that this calls for.
    pub fn record(&mut self, pod: &Pod, action: &Action, outcome: Outcome, now: Timestamp) -> Vec<PodEvent> {
        let key = action.key();
        self.in_flight.remove(&key);
        if !matches!(outcome, Outcome::Failed { .. }) {
            self.failures.remove(&key);
        }
        match (action, outcome) {
            (_, Outcome::Failed { message }) => self.failed(action, key, message, now),
            (Action::PrepareVolumes, _) => self.set_volumes(VolumeState::Ready),
            (Action::RemoveVolumes, _) => self.set_volumes(VolumeState::Removed),
            (Action::EnsureImage { container, attempt }, outcome) => {
                self.image_answer(container, *attempt, outcome, now)
            }
            (Action::StartContainer { container, .. }, outcome) => {
                if let Outcome::Started { id } | Outcome::StartFailed { id: Some(id), .. } = &outcome {
                    self.applied.insert(id.clone(), resources_of(pod, container));
                }
                self.start_answer(container, outcome, now)
            }
            (Action::ResizeContainer { container, id }, Outcome::Done) => {
                self.applied.insert(id.clone(), resources_of(pod, container));
                self.resize_error = None;
                Vec::new()
            }
            (Action::Probe { container, id, kind }, Outcome::Probed { result, began_at }) => {
                self.probed(pod, container, id, *kind, &result, began_at)
            }
            (
                Action::CreateSandbox { .. }
                | Action::StopContainer { .. }
                | Action::ResizeContainer { .. }
                | Action::RemoveContainer { .. }
                | Action::Probe { .. }
                | Action::StopSandbox { .. }
                | Action::RemoveSandbox { .. }
                | Action::FinishDelete,
                _,
            ) => Vec::new(),
        }
    }

    /// A referenced ConfigMap or Secret changed: starts that failed for their config are due now.
    pub fn config_changed(&mut self, now: Timestamp) {
        for error in self.start_errors.values_mut() {
            if error.failure == StartFailure::CreateContainerConfigError {
                error.retry_at = now;
            }
        }
        if let Some(failure) = self.failures.get_mut(&ActionKey::Volumes) {
            failure.since = Timestamp::UNIX_EPOCH;
        }
    }

    /// Forgets what concerns containers that are not there any more.
    pub fn prune(&mut self, containers: &[ObservedContainer]) {
        let live = |id: &String| containers.iter().any(|one| &one.id == id);
        self.probes.retain(|(id, _), _| live(id));
        self.hook_failed.retain(|id| live(id));
        self.applied.retain(|id, _| live(id));
        self.failures.retain(|key, _| !matches!(key, ActionKey::Resize(id) if !live(id)));
    }

    /// The node is short of something and this pod is to go. The first reason stands.
    pub fn evict(&mut self, message: String) {
        self.evicted.get_or_insert(message);
    }

    /// Whether an action is under way.
    pub fn is_in_flight(&self, key: &ActionKey) -> bool {
        self.in_flight.contains(key)
    }

    /// Volumes of the pod.
    pub fn volumes(&self) -> &VolumeState {
        &self.volumes
    }

    pub(crate) fn is_announced(&self, key: &str) -> bool {
        self.announced.contains(key)
    }

    fn set_volumes(&mut self, state: VolumeState) -> Vec<PodEvent> {
        self.volumes = state;
        Vec::new()
    }

    fn failed(&mut self, action: &Action, key: ActionKey, message: String, now: Timestamp) -> Vec<PodEvent> {
        let before = self.failures.get(&key).copied();
        self.failures.insert(key, Backoff::next(before, now, BackoffPolicy::NODE_WORK));
        let warning = |reason, text| vec![PodEvent::of_pod(EventKind::Warning, reason, text)];
        match action {
            Action::CreateSandbox { .. } => {
                warning("FailedCreatePodSandBox", format!("Failed to create pod sandbox: {message}"))
            }
            Action::PrepareVolumes => warning("FailedMount", message),
            Action::StopContainer { .. } | Action::StopSandbox { .. } | Action::RemoveSandbox { .. } => {
                warning("FailedKillPod", format!("error killing pod: {message}"))
            }
            Action::ResizeContainer { container, .. } => {
                self.resize_error = Some(message.clone());
                vec![PodEvent::of_container(EventKind::Warning, "ResizeError", message, container)]
            }
            Action::EnsureImage { .. }
            | Action::StartContainer { .. }
            | Action::RemoveContainer { .. }
            | Action::Probe { .. }
            | Action::RemoveVolumes
            | Action::FinishDelete => Vec::new(),
        }
    }

    fn image_answer(&mut self, container: &str, attempt: u32, outcome: Outcome, now: Timestamp) -> Vec<PodEvent> {
        let of = |kind, reason, text| vec![PodEvent::of_container(kind, reason, text, container)];
        match outcome {
            Outcome::ImageReady { image_ref, message } => {
                self.images.insert(container.to_owned(), ImageState::Ready { attempt, image_ref });
                of(EventKind::Normal, "Pulled", message)
            }
            Outcome::ImageFailed { reason, message } => {
                let before = match self.images.get(container) {
                    Some(ImageState::Failed { backoff, .. }) => Some(*backoff),
                    Some(ImageState::Ready { .. }) | None => None,
                };
                let word = if reason == "ErrImageNeverPull" { "ErrImageNeverPull" } else { "Failed" };
                let mut events = of(EventKind::Warning, word, message.clone());
                events.extend(of(EventKind::Warning, "Failed", format!("Error: {reason}")));
                let state =
                    ImageState::Failed { reason, message, backoff: Backoff::next(before, now, BackoffPolicy::RESTART) };
                self.images.insert(container.to_owned(), state);
                events
            }
            Outcome::Done
            | Outcome::Started { .. }
            | Outcome::StartFailed { .. }
            | Outcome::Probed { .. }
            | Outcome::Failed { .. } => Vec::new(),
        }
    }

    fn start_answer(&mut self, container: &str, outcome: Outcome, now: Timestamp) -> Vec<PodEvent> {
        let of = |kind, reason, text| PodEvent::of_container(kind, reason, text, container);
        let started = || {
            [
                of(EventKind::Normal, "Created", "Container created".to_owned()),
                of(EventKind::Normal, "Started", "Container started".to_owned()),
            ]
        };
        let Outcome::StartFailed { failure, id, message } = outcome else {
            self.start_errors.remove(container);
            self.start_failures.remove(container);
            return started().to_vec();
        };
        if failure == StartFailure::PostStartHookError {
            self.hook_failed.extend(id);
            let mut events = started().to_vec();
            events.push(of(EventKind::Warning, "FailedPostStartHook", message));
            return events;
        }
        if failure == StartFailure::RunContainerError && id.is_some() {
            // It is there and has ended: what comes next is a restart.
            return vec![of(EventKind::Warning, "Failed", format!("Error: {message}"))];
        }
        let before = self.start_failures.get(container).copied();
        let backoff = Backoff::next(before, now, BackoffPolicy::RESTART);
        self.start_failures.insert(container.to_owned(), backoff);
        let retry_at = if failure == StartFailure::CreateContainerConfigError {
            now.saturating_add(CONFIG_RETRY).unwrap_or(Timestamp::MAX)
        } else {
            backoff.until(now, BackoffPolicy::RESTART)
        };
        let event = of(EventKind::Warning, "Failed", format!("Error: {message}"));
        self.start_errors.insert(container.to_owned(), StartError { failure, message, retry_at });
        vec![event]
    }

    fn probed(
        &mut self,
        pod: &Pod,
        container: &str,
        id: &str,
        kind: ProbeKind,
        outcome: &ProbeOutcome,
        began_at: Timestamp,
    ) -> Vec<PodEvent> {
        let containers = known::pod_containers(pod);
        let Some(probe) = containers.iter().find(|one| one.spec.name == container).and_then(|one| one.probe(kind))
        else {
            return Vec::new();
        };
        let key = (id.to_owned(), kind);
        let before = self.probes.get(&key).copied().unwrap_or_else(|| known::reported_verdict(pod, id, kind));
        self.probes.insert(key, before.after(probe, outcome, began_at));
        let (reason, text) = match outcome {
            ProbeOutcome::Success => return Vec::new(),
            ProbeOutcome::Failure(text) => ("Unhealthy", format!("probe failed: {text}")),
            ProbeOutcome::Unknown(text) => {
                ("Unhealthy", format!("probe errored and resulted in unknown state: {text}"))
            }
        };
        vec![PodEvent::of_container(EventKind::Warning, reason, format!("{} {text}", kind.title()), container)]
    }
}

/// What a container's spec asks for now.
fn resources_of(pod: &Pod, container: &str) -> Option<ResourceRequirements> {
    let containers = known::pod_containers(pod);
    containers.iter().find(|one| one.spec.name == container).and_then(|one| one.spec.resources.clone())
}
