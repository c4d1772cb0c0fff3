//! Probe state machines.
//!
//! `decide` asks when a probe is due and what its verdict is; `Memory::record` feeds results. Invariants:
//! a verdict changes only after the threshold of results in a row; until a first verdict, readiness and
//! startup count as failing and liveness as passing. It runs no probe.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Probe;

use crate::ProbeOutcome;

/// The three probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProbeKind {
    /// Holds back the other two until it passes.
    Startup,
    /// A failure restarts the container.
    Liveness,
    /// A failure takes the pod out of its services.
    Readiness,
}

impl ProbeKind {
    /// The word in events.
    pub fn word(self) -> &'static str {
        match self {
            Self::Startup => "startup",
            Self::Liveness => "liveness",
            Self::Readiness => "readiness",
        }
    }

    /// The word at the start of a sentence.
    pub fn title(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }
}

/// Verdict of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeResult {
    /// Not enough results yet.
    Unknown,
    /// Passing.
    Success,
    /// Failing.
    Failure,
}

/// What is known about one probe of one container instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProbeState {
    /// The verdict.
    pub verdict: ProbeResult,
    /// Start of the last run.
    pub last_run: Option<Timestamp>,
    /// The last result, counted `run_length` times in a row.
    pub last_success: bool,
    /// Results of the same kind in a row.
    pub run_length: u32,
}

impl Default for ProbeState {
    fn default() -> Self {
        Self { verdict: ProbeResult::Unknown, last_run: None, last_success: false, run_length: 0 }
    }
}

fn seconds(value: Option<i32>, default: i32, least: i32) -> SignedDuration {
    SignedDuration::from_secs(i64::from(value.unwrap_or(default).max(least)))
}

/// How long one run of a probe may take.
pub fn probe_timeout(probe: &Probe) -> SignedDuration {
    seconds(probe.timeout_seconds, 1, 1)
}

impl ProbeState {
    /// A verdict taken over from the reported status, for a container that outlived the agent.
    pub(crate) fn carried_over(passing: bool) -> Self {
        Self { verdict: if passing { ProbeResult::Success } else { ProbeResult::Unknown }, ..Self::default() }
    }

    /// When the probe is to run next.
    pub fn due(&self, probe: &Probe, started_at: Timestamp) -> Timestamp {
        let delay = seconds(probe.initial_delay_seconds, 0, 0);
        let earliest = started_at.saturating_add(delay).unwrap_or(Timestamp::MAX);
        match self.last_run {
            None => earliest,
            Some(last) => {
                last.saturating_add(seconds(probe.period_seconds, 10, 1)).unwrap_or(Timestamp::MAX).max(earliest)
            }
        }
    }

    /// The state after one more run.
    pub fn after(self, probe: &Probe, outcome: &ProbeOutcome, began_at: Timestamp) -> Self {
        let success = match outcome {
            ProbeOutcome::Success => true,
            ProbeOutcome::Failure(_) => false,
            ProbeOutcome::Unknown(_) => {
                return Self { last_run: Some(began_at), ..self };
            }
        };
        let run_length =
            if self.run_length > 0 && self.last_success == success { self.run_length.saturating_add(1) } else { 1 };
        let threshold =
            if success { probe.success_threshold.unwrap_or(1) } else { probe.failure_threshold.unwrap_or(3) };
        let reached = i64::from(run_length) >= i64::from(threshold.max(1));
        let verdict = match (reached, success) {
            (true, true) => ProbeResult::Success,
            (true, false) => ProbeResult::Failure,
            (false, _) => self.verdict,
        };
        Self { verdict, last_run: Some(began_at), last_success: success, run_length }
    }
}
