//! HorizontalPodAutoscaler: from readings to a number of replicas.
//!
//! Called by the controller manager's shell every 15 seconds for one autoscaler, with what the metrics APIs said.
//! Invariants: the result is within minReplicas and maxReplicas and within what the behaviour allows; when one metric
//! cannot be read, nothing is scaled down; a target that somebody set to zero is left alone.

mod behavior;
mod replicas;
mod status;

pub use behavior::History;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::autoscaling::v2::{HorizontalPodAutoscaler, HorizontalPodAutoscalerStatus, MetricSpec};
use k8s_openapi::api::core::v1::Pod;
use replicas::Proposal;
use std::collections::BTreeMap;
use std::sync::Arc;

/// How often the metrics are looked at.
pub const PERIOD: SignedDuration = SignedDuration::from_secs(15);

/// What one metric read, in thousandths.
#[derive(Clone, Debug, PartialEq)]
pub enum Reading {
    /// By pod; with when it was taken and over how long.
    Pods(BTreeMap<String, Sample>),
    /// One object, or the sum of an external metric.
    Value(i64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    pub value: i64,
    pub at: Timestamp,
    pub window: SignedDuration,
}

pub struct View<'a> {
    pub autoscaler: &'a HorizontalPodAutoscaler,
    /// The replicas that the target is asked to have.
    pub replicas: i32,
    /// The pods of the target.
    pub pods: &'a [Arc<Pod>],
    /// For each metric of the spec, what it read or why it could not be read.
    pub readings: &'a [Result<Reading, String>],
    pub history: &'a History,
    pub now: Timestamp,
}

pub struct Decision {
    /// The new size, if it changes, with the reason for the event.
    pub scale: Option<(i32, String)>,
    pub status: HorizontalPodAutoscalerStatus,
    pub history: History,
    /// Reason and message of a warning.
    pub warnings: Vec<(&'static str, String)>,
}

pub fn decide(view: &View<'_>) -> Decision {
    let spec = &view.autoscaler.spec;
    let mut report = status::Report::new(view);
    let mut history = view.history.clone();
    history.forget(&view.autoscaler.spec, view.now);
    report.able("SucceededGetScale", "the HPA controller was able to get the target's current scale");
    let least = spec.min_replicas.unwrap_or(1);
    if view.replicas == 0 && least != 0 {
        report.active(false, "ScalingDisabled", "scaling is disabled since the replica count of the target is zero");
        return report.finish(None, 0, history);
    }
    let (wanted, why) = if view.replicas > spec.max_replicas {
        (spec.max_replicas, "Current number of replicas above Spec.MaxReplicas".to_owned())
    } else if view.replicas < least {
        (least, "Current number of replicas below Spec.MinReplicas".to_owned())
    } else {
        match propose(view, &mut report) {
            None => return report.finish(None, view.replicas, history),
            Some(proposal) => {
                let why = if proposal.replicas > view.replicas {
                    format!("{} above target", proposal.metric)
                } else {
                    "All metrics below target".to_owned()
                };
                (behavior::limit(view, proposal.replicas, &mut history, &mut report), why)
            }
        }
    };
    if wanted == view.replicas {
        return report.finish(None, wanted, history);
    }
    history.scaled(view.now, wanted - view.replicas);
    report.able("SucceededRescale", &format!("the HPA controller was able to update the target scale to {wanted}"));
    report.finish(Some((wanted, why)), wanted, history)
}

/// The largest of what the metrics propose.
fn propose(view: &View<'_>, report: &mut status::Report) -> Option<Proposal> {
    let empty = Vec::new();
    let metrics: &[MetricSpec] = view.autoscaler.spec.metrics.as_ref().unwrap_or(&empty);
    let mut best: Option<Proposal> = None;
    let mut failures: Vec<(&'static str, String)> = Vec::new();
    for (metric, reading) in metrics.iter().zip(view.readings) {
        let proposal = reading.clone().and_then(|reading| replicas::propose(view, metric, &reading));
        match proposal {
            Ok(proposal) => {
                report.current.push(proposal.current.clone());
                if best.as_ref().is_none_or(|b| proposal.replicas > b.replicas) {
                    best = Some(proposal);
                }
            }
            Err(error) => failures.push((status::failure_reason(metric), error)),
        }
    }
    let all_failed = best.is_none();
    let no_scale_down = !failures.is_empty() && best.as_ref().is_some_and(|b| b.replicas < view.replicas);
    if let Some((reason, error)) = failures.first().filter(|_| all_failed || no_scale_down) {
        let message = format!("the HPA was unable to compute the replica count: {error}");
        report.active(false, reason, &message);
        report.warnings.push((*reason, error.clone()));
        let all =
            format!("invalid metrics ({} invalid out of {}), first error is: {error}", failures.len(), metrics.len());
        report.warnings.push(("FailedComputeMetricsReplicas", all));
        return None;
    }
    let best = best?;
    let message = format!("the HPA was able to successfully calculate a replica count from {}", best.metric);
    report.active(true, "ValidMetricFound", &message);
    Some(best)
}

#[cfg(test)]
mod tests;
