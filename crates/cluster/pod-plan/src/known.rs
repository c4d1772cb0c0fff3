//! The containers of a pod, spec and observation side by side.
//!
//! Every part of a decision reads containers through [`Known`]. Invariant: order is the spec's (init and
//! sidecars, then main, then ephemeral containers), and a container that CRI has lost is still judged by
//! what was last reported, so that a run-once container never runs twice.

use std::borrow::Cow;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, Probe};

use crate::{
    ActionKey, ContainerState, Memory, ObservedContainer, ObservedSandbox, ProbeKind, ProbeResult, ProbeState, View,
};

/// What role a container plays in its pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContainerKind {
    /// Runs to its end before the next one starts.
    Init,
    /// An init container that keeps running (`restartPolicy: Always`).
    Sidecar,
    /// What the pod is for.
    Main,
    /// Added to a running pod for debugging; never restarted.
    Ephemeral,
}

/// A container of the spec.
#[derive(Debug, Clone)]
pub struct PodContainer<'a> {
    /// Its role.
    pub kind: ContainerKind,
    /// Its spec; an ephemeral container is shown as an ordinary one.
    pub spec: Cow<'a, Container>,
}

impl PodContainer<'_> {
    /// The probe of a kind, if it has one.
    pub fn probe(&self, kind: ProbeKind) -> Option<&Probe> {
        match kind {
            ProbeKind::Startup => self.spec.startup_probe.as_ref(),
            ProbeKind::Liveness => self.spec.liveness_probe.as_ref(),
            ProbeKind::Readiness => self.spec.readiness_probe.as_ref(),
        }
    }
}

/// All containers of a pod, in starting order.
pub fn pod_containers(pod: &Pod) -> Vec<PodContainer<'_>> {
    let Some(spec) = pod.spec.as_ref() else {
        return Vec::new();
    };
    let inits = spec.init_containers.iter().flatten().map(|one| PodContainer {
        kind: if one.restart_policy.as_deref() == Some("Always") {
            ContainerKind::Sidecar
        } else {
            ContainerKind::Init
        },
        spec: Cow::Borrowed(one),
    });
    let mains = spec.containers.iter().map(|one| PodContainer { kind: ContainerKind::Main, spec: Cow::Borrowed(one) });
    // The fields of an ephemeral container are a container's, and its target, which CRI gets elsewhere.
    let ephemeral = spec.ephemeral_containers.iter().flatten().filter_map(|one| {
        let value = serde_json::to_value(one).ok()?;
        Some(PodContainer { kind: ContainerKind::Ephemeral, spec: Cow::Owned(serde_json::from_value(value).ok()?) })
    });
    inits.chain(mains).chain(ephemeral).collect()
}

/// When a container may run again after it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RestartRule {
    Always,
    OnFailure,
    Never,
}

impl RestartRule {
    fn of(kind: ContainerKind, own: Option<&str>, pod: Option<&str>) -> Self {
        let parse = |word: &str| match word {
            "Never" => Self::Never,
            "OnFailure" => Self::OnFailure,
            _ => Self::Always,
        };
        let rule = own.or(pod).map_or(Self::Always, parse);
        match kind {
            ContainerKind::Ephemeral => Self::Never,
            ContainerKind::Sidecar => Self::Always,
            ContainerKind::Main => rule,
            // An init container that succeeded is done whatever the pod's policy.
            ContainerKind::Init if rule == Self::Never => Self::Never,
            ContainerKind::Init => Self::OnFailure,
        }
    }

    pub(crate) fn allows(self, code: i32) -> bool {
        match self {
            Self::Always => true,
            Self::OnFailure => code != 0,
            Self::Never => false,
        }
    }
}

/// How an instance ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) finished_at: Option<Timestamp>,
}

/// One container: what is wanted and what is there.
#[derive(Debug)]
pub(crate) struct Known<'a> {
    pub(crate) container: PodContainer<'a>,
    pub(crate) rule: RestartRule,
    /// The newest instance.
    pub(crate) current: Option<&'a ObservedContainer>,
    /// The one before it.
    pub(crate) previous: Option<&'a ObservedContainer>,
    /// What the API server was last told.
    pub(crate) reported: Option<&'a ContainerStatus>,
    /// The newest instance lives in the pod's present sandbox.
    pub(crate) in_sandbox: bool,
}

impl<'a> Known<'a> {
    pub(crate) fn name(&self) -> &str {
        &self.container.spec.name
    }

    pub(crate) fn kind(&self) -> ContainerKind {
        self.container.kind
    }

    pub(crate) fn is_running(&self) -> bool {
        self.current.is_some_and(ObservedContainer::is_running)
    }

    /// The number of the next instance.
    pub(crate) fn next_attempt(&self) -> u32 {
        let reported = self.reported.map_or(0, |status| u32::try_from(status.restart_count).unwrap_or(0));
        match self.current {
            Some(one) if matches!(one.state, ContainerState::Created) => one.attempt,
            Some(one) => one.attempt.max(reported).saturating_add(1),
            None if self.was_reported_started() => reported.saturating_add(1),
            None => reported,
        }
    }

    /// How the newest instance ended, if it ran and ended.
    pub(crate) fn ended(&self) -> Option<Ended> {
        match self.current.map(|one| &one.state) {
            Some(ContainerState::Exited { code, finished_at, .. }) => {
                Some(Ended { code: *code, finished_at: Some(*finished_at) })
            }
            Some(ContainerState::Running { .. } | ContainerState::Created) => None,
            None => self.reported_end(),
        }
    }

    /// It ended and its policy lets it rest.
    pub(crate) fn is_done(&self) -> bool {
        self.ended().is_some_and(|end| !self.rule.allows(end.code))
    }

    /// Some instance of it has run.
    pub(crate) fn has_run(&self) -> bool {
        self.is_running() || self.ended().is_some()
    }

    fn was_reported_started(&self) -> bool {
        self.reported_end().is_some()
    }

    /// A container that CRI has lost: its last report counts, and a lost running one was killed.
    fn reported_end(&self) -> Option<Ended> {
        let state = self.reported?.state.as_ref()?;
        if let Some(terminated) = &state.terminated {
            return Some(Ended {
                code: terminated.exit_code,
                finished_at: terminated.finished_at.as_ref().map(|time| time.0),
            });
        }
        if state.running.is_some() {
            return Some(Ended { code: 137, finished_at: None });
        }
        let last = self.reported?.last_state.as_ref()?.terminated.as_ref()?;
        Some(Ended { code: last.exit_code, finished_at: last.finished_at.as_ref().map(|time| time.0) })
    }

    /// Running, its postStart hook done, its startup probe passed.
    pub(crate) fn is_started(&self, view: &View<'_>) -> bool {
        self.is_running()
            && !view.memory.is_in_flight(&ActionKey::Start(self.name().to_owned()))
            && self.passes(view, ProbeKind::Startup)
    }

    /// Started and passing its readiness probe.
    pub(crate) fn is_ready(&self, view: &View<'_>) -> bool {
        self.is_started(view) && self.passes(view, ProbeKind::Readiness)
    }

    fn passes(&self, view: &View<'_>, kind: ProbeKind) -> bool {
        self.container.probe(kind).is_none()
            || self
                .current
                .is_some_and(|one| probe_state(view.pod, view.memory, &one.id, kind).verdict == ProbeResult::Success)
    }
}

/// The state of a probe, taken over from the reported status when memory has none.
pub(crate) fn probe_state(pod: &Pod, memory: &Memory, id: &str, kind: ProbeKind) -> ProbeState {
    memory.probes.get(&(id.to_owned(), kind)).copied().unwrap_or_else(|| reported_verdict(pod, id, kind))
}

/// What the reported status says of a probe of this very instance.
pub(crate) fn reported_verdict(pod: &Pod, id: &str, kind: ProbeKind) -> ProbeState {
    let passing = pod.status.as_ref().is_some_and(|status| {
        status
            .container_statuses
            .iter()
            .chain(&status.init_container_statuses)
            .flatten()
            .filter(|one| {
                one.container_id
                    .as_deref()
                    .and_then(|text| text.split_once("://"))
                    .is_some_and(|(_, reported)| reported == id)
            })
            .any(|one| match kind {
                ProbeKind::Startup => one.started == Some(true),
                ProbeKind::Readiness => one.ready,
                ProbeKind::Liveness => false,
            })
    });
    ProbeState::carried_over(passing)
}

/// The pod's present sandbox: the newest, if it is ready.
pub(crate) fn current_sandbox<'a>(view: &View<'a>) -> Option<&'a ObservedSandbox> {
    view.sandboxes.iter().max_by_key(|one| (one.attempt, one.created_at)).filter(|one| one.ready)
}

/// Every container of the pod with what is known of it.
pub(crate) fn gather<'a>(view: &View<'a>) -> Vec<Known<'a>> {
    let sandbox = current_sandbox(view).map(|one| one.id.as_str());
    let pod_policy = view.pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref());
    let statuses = view.pod.status.as_ref();
    pod_containers(view.pod)
        .into_iter()
        .map(|container| {
            let mut instances: Vec<&ObservedContainer> =
                view.containers.iter().filter(|one| one.name == container.spec.name).collect();
            instances.sort_by_key(|one| (one.attempt, one.created_at));
            let current = instances.pop();
            let previous = instances.pop().filter(|one| matches!(one.state, ContainerState::Exited { .. }));
            let list = statuses.and_then(|status| match container.kind {
                ContainerKind::Init | ContainerKind::Sidecar => status.init_container_statuses.as_ref(),
                ContainerKind::Main => status.container_statuses.as_ref(),
                ContainerKind::Ephemeral => status.ephemeral_container_statuses.as_ref(),
            });
            let reported = list.and_then(|list| list.iter().find(|one| one.name == container.spec.name));
            let own = container.spec.restart_policy.clone();
            Known {
                rule: RestartRule::of(container.kind, own.as_deref(), pod_policy),
                in_sandbox: current.is_some_and(|one| Some(one.sandbox_id.as_str()) == sandbox),
                container,
                current,
                previous,
                reported,
            }
        })
        .collect()
}
