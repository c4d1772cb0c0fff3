//! The book-keeping of a Job: which finished pods are noted, which are counted, and the status that says so.
//!
//! Used by the job decision. Invariant: a uid is noted (`uncountedTerminatedPods`) in one stored status, and leaves it
//! for the counter in a later one, when its pod has lost the finalizer; never both in one step.

use super::failure::{Verdict, verdict};
use super::{Action, Decision, Pass, failure, index_of, indexes, is_failed, is_indexed, is_tracked, per_index_limit};
use crate::pods;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{JobCondition, JobStatus, UncountedTerminatedPods};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::collections::HashSet;

/// The wire knows whole seconds only.
pub(super) fn time(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}

/// Moves what is settled into the counters, notes what has newly finished.
pub(super) fn count(pass: &mut Pass<'_>, decision: &mut Decision) {
    let old = pass.status.uncounted_terminated_pods.take().unwrap_or_default();
    let tracked: HashSet<String> =
        pass.mine.iter().filter(|p| is_tracked(p)).filter_map(|p| p.metadata.uid.clone()).collect();
    let keep = |list: Option<Vec<String>>| -> (Vec<String>, i32) {
        let (kept, settled): (Vec<_>, Vec<_>) = list.unwrap_or_default().into_iter().partition(|u| tracked.contains(u));
        (kept, i32::try_from(settled.len()).unwrap_or(i32::MAX))
    };
    let (mut succeeded, new_successes) = keep(old.succeeded);
    let (mut failed, new_failures) = keep(old.failed);
    pass.succeeded += new_successes;
    pass.failed += new_failures;
    pass.status.succeeded = Some(pass.succeeded);
    pass.status.failed = Some(pass.failed);
    for pod in pass.mine.clone().iter().filter(|p| is_tracked(p)) {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        if pods::phase(pod) == "Succeeded" {
            decision.untrack.push(pod.clone());
            if !is_indexed(pass.spec) {
                note(&mut succeeded, uid);
            } else if let Some(index) = index_of(pod).filter(|i| *i < pass.spec.completions.unwrap_or(0)) {
                pass.succeeded_indexes.insert(index);
                pass.failed_indexes.remove(&index);
            }
        } else if is_failed(pass.view.job, pod) {
            decision.untrack.push(pod.clone());
            let verdict = verdict(pass.view.job, pod);
            fail_index(pass, pod, &verdict);
            if let Verdict::FailJob(message) = &verdict {
                pass.fail_job.get_or_insert_with(|| message.clone());
            }
            if verdict != Verdict::Ignore {
                note(&mut failed, uid);
            }
        }
    }
    pass.succeeded += i32::try_from(succeeded.len()).unwrap_or(i32::MAX);
    pass.failed += i32::try_from(failed.len()).unwrap_or(i32::MAX);
    if is_indexed(pass.spec) {
        pass.succeeded = i32::try_from(pass.succeeded_indexes.len()).unwrap_or(i32::MAX);
        pass.status.succeeded = Some(pass.succeeded);
    }
    let list = |uids: Vec<String>| (!uids.is_empty()).then_some(uids);
    pass.status.uncounted_terminated_pods =
        Some(UncountedTerminatedPods { succeeded: list(succeeded), failed: list(failed) });
}

fn note(list: &mut Vec<String>, uid: String) {
    if !list.contains(&uid) {
        list.push(uid);
    }
}

/// An index has failed when its pods failed more often than allowed, or a rule says so.
fn fail_index(pass: &mut Pass<'_>, pod: &k8s_openapi::api::core::v1::Pod, verdict: &Verdict) {
    let (Some(limit), Some(index)) = (per_index_limit(pass.view.job), index_of(pod)) else {
        return;
    };
    let exhausted = *verdict != Verdict::Ignore && failure::failures_of(pod) >= limit;
    if (exhausted || *verdict == Verdict::FailIndex) && !pass.succeeded_indexes.contains(&index) {
        pass.failed_indexes.insert(index);
    }
}

pub(super) fn write(pass: Pass<'_>, decision: &mut Decision) {
    let mut status = pass.status;
    let made: usize = decision.actions.iter().map(|a| if let Action::Create(pods) = a { pods.len() } else { 0 }).sum();
    let number = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
    let some = |n: i32| (n != 0).then_some(n);
    let active = number(pass.active.len() + made);
    status.active = (active != 0).then_some(active);
    status.ready = Some(number(pass.active.iter().filter(|p| pods::is_ready(p)).count()));
    status.terminating = Some(number(pass.terminating));
    status.succeeded = status.succeeded.and_then(some);
    status.failed = status.failed.and_then(some);
    if is_indexed(pass.spec) {
        status.completed_indexes = Some(indexes::format(&pass.succeeded_indexes)).filter(|t| !t.is_empty());
        if per_index_limit(pass.view.job).is_some() {
            status.failed_indexes = Some(indexes::format(&pass.failed_indexes));
        }
    }
    decision.status = Some(status);
}

/// Sets the condition; says whether that changed anything. A condition that is not there is not set to False.
pub(super) fn set_condition(
    status: &mut JobStatus,
    type_: &str,
    on: bool,
    (reason, message): (&str, &str),
    now: Timestamp,
) -> bool {
    let conditions = status.conditions.get_or_insert_default();
    let word = if on { "True" } else { "False" };
    let fresh = JobCondition {
        type_: type_.to_owned(),
        status: word.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_probe_time: Some(time(now)),
        last_transition_time: Some(time(now)),
    };
    let changed = match conditions.iter_mut().find(|c| c.type_ == type_) {
        Some(old) if old.status == word => false,
        Some(old) => {
            *old = fresh;
            true
        }
        None if on => {
            conditions.push(fresh);
            true
        }
        None => false,
    };
    if conditions.is_empty() {
        status.conditions = None;
    }
    changed
}
