//! The words of an answer: findings that stand on evidence and on other findings.

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use crate::facts::{ObjectName, event_time, number, text};

/// What it came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// As desired.
    Fine,
    /// On its way; nothing is wrong yet.
    Progressing,
    Broken,
}

/// The kinds of trouble that are told apart. Their names in JSON are stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
#[rustfmt::skip]
pub enum Cause {
    NotFound, WarningEvents, ConditionFalse,
    // Placing a pod
    NoNodeFits, TooFewResources, NodeSelectorMatchesNothing, TaintNotTolerated, NodesCordoned, AffinityUnsatisfied, TopologySpread,
    HostPortTaken, TooManyPods, VolumeNotPlaceable, SchedulingGated, NoScheduler, WaitingForScheduler, Preempted,
    // Starting its containers
    ImageNotFound, RegistryUnreachable, RegistryDenied, RegistryRateLimit, InvalidImageName, ImageNeverPulled, ImagePullFailed, ImagePulling, PullSecretMissing,
    ConfigMapMissing, SecretMissing, KeyMissing, ServiceAccountMissing, RunsAsRoot, ContainerConfig, ContainerCreate, CommandNotFound, CommandNotExecutable,
    MountFailed, SandboxFailed, PostStartHookFailed, Starting, InitContainerFailing, InitContainerRunning,
    // Running them
    CrashLoop, OutOfMemory, LivenessProbeKills, StartupProbeKills, EndsAtOnce, KilledBySignal, ReadinessProbeFails, ReadinessGate, StartupProbePending, Restarted,
    // The pod's end
    Evicted, DeadlineExceeded, NodeLost, ContainerFailed,
    // Deletion
    Finalizer, Terminating, StuckTerminating, NamespaceContent,
    // What makes pods
    RolloutStuck, RolloutPaused, RollingOut, ScaledToZero, QuotaExceeded, ForbiddenByPolicy, PodsRefused, PodsNotReady, WaitingForMinReady, OrderedStart, NoMatchingNodes,
    JobFailed, BackoffLimit, JobSuspended, CronSuspended, CronSchedule, ConcurrencyForbidden,
    // Network
    SelectsNothing, NoSelector, NoReadyEndpoints, PortMismatch, AddressPending, BackendMissing, TlsSecretMissing, NoIngressClass,
    // Storage
    StorageClassMissing, NoDefaultStorageClass, WaitsForConsumer, NoVolumeFits, ProvisioningFailed, ClaimMissing, ClaimUnbound, VolumeLost,
    // Node and the rest
    NodeSilent, NodeNotReady, MemoryPressure, DiskPressure, PidPressure, Cordoned, MetricsMissing, AtMaximum, ScaleTargetMissing, NoDisruptionAllowed, QuotaFull,
    // Containers of the Docker half
    ExitedWithError, ExitedByRequest, NeverStarted, StartFailed, Unhealthy, Restarting, Paused,
}

impl Cause {
    /// Not a fault: waiting, or as it was asked for.
    fn is_progress(self) -> bool {
        matches!(
            self,
            Self::WaitingForScheduler
                | Self::ImagePulling
                | Self::Starting
                | Self::InitContainerRunning
                | Self::StartupProbePending
                | Self::Terminating
                | Self::RollingOut
                | Self::RolloutPaused
                | Self::ScaledToZero
                | Self::WaitingForMinReady
                | Self::OrderedStart
                | Self::JobSuspended
                | Self::CronSuspended
                | Self::CronSchedule
                | Self::NoSelector
                | Self::AddressPending
                | Self::WaitsForConsumer
                | Self::Cordoned
                | Self::AtMaximum
                | Self::ExitedByRequest
                | Self::NeverStarted
                | Self::Paused
                | Self::Restarted
                | Self::SchedulingGated
        )
    }
}

/// One thing that was seen, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Evidence {
    /// `status`, `event`, `log`, `spec`, `change`.
    pub source: &'static str,
    pub text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub subject: ObjectName,
    pub cause: Cause,
    /// One line in plain words.
    pub summary: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<Evidence>,
    /// Commands to try, the most useful first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub next: Vec<String>,
    /// What this comes from.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub because: Vec<Finding>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    pub subject: ObjectName,
    pub verdict: Verdict,
    pub findings: Vec<Finding>,
}

impl Finding {
    pub(crate) fn new(subject: &ObjectName, cause: Cause, summary: impl Into<String>) -> Self {
        let summary = summary.into();
        Self { subject: subject.clone(), cause, summary, evidence: Vec::new(), next: Vec::new(), because: Vec::new() }
    }

    pub(crate) fn seen(mut self, source: &'static str, text: impl Into<String>) -> Self {
        self.evidence.push(Evidence { source, text: text.into(), at: None });
        self
    }

    /// An event as evidence, with its age and how often it came.
    pub(crate) fn event(mut self, event: Option<&Value>) -> Self {
        if let Some(event) = event {
            let count =
                number(event, "/count").max(number(event, "/series/count")).max(number(event, "/deprecatedCount"));
            let times = if count > 1 { format!(" ({count} times)") } else { String::new() };
            let message = if event["message"].is_null() { text(event, "/note") } else { text(event, "/message") };
            let line = format!("{}: {}{times}", text(event, "/reason"), message.trim());
            self.evidence.push(Evidence { source: "event", text: line, at: event_time(event) });
        }
        self
    }

    pub(crate) fn next(mut self, command: impl Into<String>) -> Self {
        self.next.push(command.into());
        self
    }

    pub(crate) fn because(mut self, findings: impl IntoIterator<Item = Finding>) -> Self {
        self.because.extend(findings);
        self
    }

    /// Whether anything at the bottom of it is a fault.
    pub(crate) fn is_fault(&self) -> bool {
        if self.because.is_empty() { !self.cause.is_progress() } else { self.because.iter().any(Self::is_fault) }
    }
}

/// Puts faults before what is only on its way, and says what it comes to.
pub(crate) fn conclude(subject: ObjectName, mut findings: Vec<Finding>) -> Explanation {
    findings.sort_by_key(|finding| !finding.is_fault());
    let verdict = match findings.first() {
        None => Verdict::Fine,
        Some(worst) if worst.is_fault() => Verdict::Broken,
        Some(_) => Verdict::Progressing,
    };
    Explanation { subject, verdict, findings }
}

/// `in NAMESPACE`'s option for commands.
pub(crate) fn namespace_option(subject: &ObjectName) -> String {
    match subject.namespace.as_str() {
        "" | "default" => String::new(),
        other => format!(" -n {other}"),
    }
}

/// "3 pods", "1 pod".
pub(crate) fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}
