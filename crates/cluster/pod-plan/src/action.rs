//! What a pass may ask of the node agent, and what the agent answers.
//!
//! Invariant: an action with a key that is in flight is not asked for again, so the agent may run every
//! action as a task of its own. Actions carry the decision (which container, which attempt, how long);
//! how to build mounts or environment is the agent's.

use jiff::Timestamp;

use crate::{EventKind, PodEvent, ProbeKind};

/// Why a container is stopped; it chooses the words of the Killing event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StopReason {
    /// The pod is deleted, or its deadline passed.
    PodEnding,
    /// Liveness or startup probe failed.
    ProbeFailed(ProbeKind),
    /// Its sandbox is not the pod's any more.
    SandboxLost,
    /// The postStart hook failed.
    PostStartFailed,
    /// Every main container is done, so this sidecar is too.
    MainsDone,
    /// Its new limits need a restart.
    Resized,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Mount every volume of the pod.
    PrepareVolumes,
    /// Make a sandbox.
    CreateSandbox {
        /// Its attempt number.
        attempt: u32,
    },
    /// See that a container's image is here, pulling it if the policy asks for that.
    EnsureImage {
        /// Container name.
        container: String,
        /// The start it is for.
        attempt: u32,
    },
    /// Create and start a container, then run its postStart hook.
    StartContainer {
        /// Container name.
        container: String,
        /// Its restart count.
        attempt: u32,
        /// Sandbox to make it in.
        sandbox_id: String,
        /// Resolved image.
        image_ref: String,
    },
    /// preStop hook, then the stop signal, then KILL; all within the grace period.
    StopContainer {
        /// Container name.
        container: String,
        /// CRI id.
        id: String,
        /// Seconds for all of it.
        grace_seconds: i64,
        /// Why.
        reason: StopReason,
    },
    /// Give a running container the limits of the spec.
    ResizeContainer {
        /// Container name.
        container: String,
        /// CRI id.
        id: String,
    },
    /// Remove a dead container.
    RemoveContainer {
        /// CRI id.
        id: String,
    },
    /// Run one probe once.
    Probe {
        /// Container name.
        container: String,
        /// CRI id.
        id: String,
        /// Which.
        kind: ProbeKind,
    },
    /// Stop a sandbox: its network goes.
    StopSandbox {
        /// CRI id.
        id: String,
    },
    /// Remove a sandbox and all that is in it.
    RemoveSandbox {
        /// CRI id.
        id: String,
    },
    /// Unmount and delete the pod's volumes and directories.
    RemoveVolumes,
    /// DELETE the object with grace 0: nothing of the pod is left here.
    FinishDelete,
}

/// Identity of an action: one of each may be in flight.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ActionKey {
    /// Preparing or removing volumes.
    Volumes,
    /// Making a sandbox.
    CreateSandbox,
    /// Image of a container.
    Image(String),
    /// Start of a container.
    Start(String),
    /// Orderly stop of a container, by id.
    Stop(String),
    /// Kill of a container, by id; may overtake its orderly stop.
    Kill(String),
    /// New limits of a container, by id.
    Resize(String),
    /// Removal of a container, by id.
    RemoveContainer(String),
    /// A probe of a container, by id.
    Probe(String, ProbeKind),
    /// Stop or removal of a sandbox, by id.
    Sandbox(String),
    /// The final deletion.
    FinishDelete,
}

/// A grace this short is a kill, and may overtake a longer stop that is under way.
pub(crate) const KILL_GRACE_SECONDS: i64 = 1;

impl Action {
    /// The action's identity.
    pub fn key(&self) -> ActionKey {
        match self {
            Self::PrepareVolumes | Self::RemoveVolumes => ActionKey::Volumes,
            Self::CreateSandbox { .. } => ActionKey::CreateSandbox,
            Self::EnsureImage { container, .. } => ActionKey::Image(container.clone()),
            Self::StartContainer { container, .. } => ActionKey::Start(container.clone()),
            Self::StopContainer { id, grace_seconds, .. } if *grace_seconds <= KILL_GRACE_SECONDS => {
                ActionKey::Kill(id.clone())
            }
            Self::StopContainer { id, .. } => ActionKey::Stop(id.clone()),
            Self::ResizeContainer { id, .. } => ActionKey::Resize(id.clone()),
            Self::RemoveContainer { id } => ActionKey::RemoveContainer(id.clone()),
            Self::Probe { id, kind, .. } => ActionKey::Probe(id.clone(), *kind),
            Self::StopSandbox { id } | Self::RemoveSandbox { id } => ActionKey::Sandbox(id.clone()),
            Self::FinishDelete => ActionKey::FinishDelete,
        }
    }

    /// The event that announces the action, where Kubernetes has one.
    pub fn announcement(&self) -> Option<PodEvent> {
        let Self::StopContainer { container, reason, .. } = self else {
            return None;
        };
        let text = match reason {
            StopReason::PodEnding | StopReason::MainsDone => {
                format!("Stopping container {container}")
            }
            StopReason::ProbeFailed(kind) => {
                format!("Container {container} failed {} probe, will be restarted", kind.word())
            }
            StopReason::SandboxLost => "Pod sandbox changed, it will be killed and re-created.".to_owned(),
            StopReason::PostStartFailed => "FailedPostStartHook".to_owned(),
            StopReason::Resized => format!("Container {container} resize requires restart"),
        };
        Some(PodEvent::of_container(EventKind::Normal, "Killing", text, container))
    }
}

/// How a start failed; the names are the reasons that Kubernetes shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartFailure {
    /// The config could not be built: a missing ConfigMap, a bad user.
    CreateContainerConfigError,
    /// The runtime refused to make the container.
    CreateContainerError,
    /// The runtime could not start it.
    RunContainerError,
    /// The postStart hook failed; the container runs and must be killed.
    PostStartHookError,
}

impl StartFailure {
    /// The waiting reason.
    pub fn reason(self) -> &'static str {
        match self {
            Self::CreateContainerConfigError => "CreateContainerConfigError",
            Self::CreateContainerError => "CreateContainerError",
            Self::RunContainerError => "RunContainerError",
            Self::PostStartHookError => "PostStartHookError",
        }
    }
}

/// What one run of a probe showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeOutcome {
    /// Healthy.
    Success,
    /// Unhealthy, and why.
    Failure(String),
    /// It could not be run; counts neither way, as in Kubernetes.
    Unknown(String),
}

/// What came of an action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Done; what it changed will be observed.
    Done,
    /// An image is here.
    ImageReady {
        /// Its resolved reference.
        image_ref: String,
        /// Event text: `Successfully pulled …` or `… already present on machine`.
        message: String,
    },
    /// An image cannot be had.
    ImageFailed {
        /// `ErrImagePull`, `ErrImageNeverPull` or `InvalidImageName`.
        reason: String,
        /// Why.
        message: String,
    },
    /// A container was created (and perhaps started) and runs.
    Started {
        /// CRI id.
        id: String,
    },
    /// A start failed.
    StartFailed {
        /// At which step.
        failure: StartFailure,
        /// CRI id, when one was made.
        id: Option<String>,
        /// Why.
        message: String,
    },
    /// A probe ran.
    Probed {
        /// What it showed.
        result: ProbeOutcome,
        /// When the run began.
        began_at: Timestamp,
    },
    /// Anything else failed; it is asked for again after a back-off.
    Failed {
        /// Why.
        message: String,
    },
}
