//! How a Job ends: why, when its conditions say so, and when it is deleted.
//!
//! Used by the job decision. Invariants: `FailureTarget` or `SuccessCriteriaMet` comes first and is final; `Failed` or
//! `Complete` follows when no pod is left that ends or waits to be counted.

use super::status::{set_condition, time};
use super::{Action, Decision, Pass, View, indexes, is_indexed, seconds};
use k8s_openapi::api::batch::v1::{Job, JobSpec, JobStatus};
use k8s_openapi::api::core::v1::Pod;

pub(super) struct Ending {
    success: bool,
    reason: String,
    message: String,
}

fn has(status: Option<&JobStatus>, type_: &str) -> Option<(String, String)> {
    let conditions = status?.conditions.as_ref()?;
    let found = conditions.iter().find(|c| c.type_ == type_ && c.status == "True")?;
    Some((found.reason.clone().unwrap_or_default(), found.message.clone().unwrap_or_default()))
}

pub(super) fn is_finished(job: &Job) -> bool {
    has(job.status.as_ref(), "Complete").is_some() || has(job.status.as_ref(), "Failed").is_some()
}

/// The finished Job goes when its time to live is over.
pub(super) fn expire(view: &View<'_>, spec: &JobSpec, decision: &mut Decision) {
    // Whatever still carries the finalizer has been counted: a finished Job has nothing to note.
    decision.untrack = view.pods.iter().filter(|p| is_ours_and_tracked(view.job, p)).cloned().collect();
    let Some(ttl) = spec.ttl_seconds_after_finished else { return };
    if view.job.metadata.deletion_timestamp.is_some() {
        return;
    }
    let conditions = view.job.status.as_ref().and_then(|s| s.conditions.as_ref()).into_iter().flatten();
    let ended = conditions.filter(|c| matches!(c.type_.as_str(), "Complete" | "Failed") && c.status == "True");
    let Some(at) = ended.filter_map(|c| c.last_transition_time.as_ref()).map(|t| t.0).next() else { return };
    let due = at + seconds(i64::from(ttl));
    if due <= view.now {
        decision.actions.push(Action::DeleteJob);
    } else {
        decision.wake(due);
    }
}

fn is_ours_and_tracked(job: &Job, pod: &Pod) -> bool {
    crate::owners::is_controlled_by(&pod.metadata, &job.metadata) && super::is_tracked(pod)
}

/// Why the Job has to end now, if it has to.
pub(super) fn ending(pass: &mut Pass<'_>, decision: &mut Decision) -> Option<Ending> {
    let failed = |reason: &str, message: &str| {
        Some(Ending { success: false, reason: reason.to_owned(), message: message.to_owned() })
    };
    if let Some((reason, message)) = has(Some(&pass.status), "FailureTarget") {
        return Some(Ending { success: false, reason, message });
    }
    if let Some((reason, message)) = has(Some(&pass.status), "SuccessCriteriaMet") {
        return Some(Ending { success: true, reason, message });
    }
    if let Some(message) = pass.fail_job.take() {
        return failed("PodFailurePolicy", &message);
    }
    let limit = pass.spec.backoff_limit.unwrap_or(6);
    if pass.failed > limit || restarts_exhausted(pass, limit) {
        return failed("BackoffLimitExceeded", "Job has reached the specified backoff limit");
    }
    if let (Some(deadline), Some(start)) = (pass.spec.active_deadline_seconds, &pass.status.start_time)
        && pass.spec.suspend != Some(true)
    {
        let due = start.0 + seconds(deadline);
        if due <= pass.view.now {
            return failed("DeadlineExceeded", "Job was active longer than specified deadline");
        }
        decision.wake(due);
    }
    if is_indexed(pass.spec) { indexed_ending(pass).or_else(|| completion(pass)) } else { completion(pass) }
}

fn indexed_ending(pass: &Pass<'_>) -> Option<Ending> {
    if let Some(rule) = met_rule(pass) {
        let message = format!("Matched rules at index {rule}");
        return Some(Ending { success: true, reason: "SuccessPolicy".into(), message });
    }
    pass.spec.backoff_limit_per_index?;
    let failed = pass.failed_indexes.len();
    let most = pass.spec.max_failed_indexes.and_then(|m| usize::try_from(m).ok());
    let (reason, message) = if most.is_some_and(|most| failed > most) {
        ("MaxFailedIndexesExceeded", "Job has exceeded the specified maximal number of failed indexes")
    } else if failed > 0
        && failed + pass.succeeded_indexes.len() >= usize::try_from(pass.spec.completions.unwrap_or(0)).unwrap_or(0)
    {
        ("FailedIndexes", "Job has failed indexes")
    } else {
        return None;
    };
    Some(Ending { success: false, reason: reason.into(), message: message.into() })
}

fn met_rule(pass: &Pass<'_>) -> Option<usize> {
    let rules = &pass.spec.success_policy.as_ref()?.rules;
    rules.iter().position(|rule| {
        let done = &pass.succeeded_indexes;
        let (candidates, all) = match &rule.succeeded_indexes {
            Some(text) => {
                let wanted = indexes::parse(text, pass.spec.completions.unwrap_or(0));
                (wanted.intersection(done).count(), wanted.len())
            }
            None => (done.len(), usize::MAX),
        };
        let needed = rule.succeeded_count.map_or(all, |count| usize::try_from(count).unwrap_or(usize::MAX));
        candidates >= needed
    })
}

fn completion(pass: &Pass<'_>) -> Option<Ending> {
    let active = !pass.active.is_empty();
    let reached = match pass.spec.completions {
        None => pass.succeeded > 0 && !active,
        Some(all) => pass.succeeded >= all && !active,
    };
    let message = "Reached expected number of succeeded pods";
    reached.then(|| Ending { success: true, reason: "CompletionsReached".into(), message: message.into() })
}

/// Containers that restart in place count as failures of the Job.
fn restarts_exhausted(pass: &Pass<'_>, limit: i32) -> bool {
    let policy = pass.spec.template.spec.as_ref().and_then(|s| s.restart_policy.as_deref());
    if policy != Some("OnFailure") {
        return false;
    }
    let restarts = |pod: &Pod| -> i32 {
        let status = pod.status.as_ref();
        let main = status.and_then(|s| s.container_statuses.as_ref()).into_iter().flatten();
        let init = status.and_then(|s| s.init_container_statuses.as_ref()).into_iter().flatten();
        main.chain(init).map(|c| c.restart_count).sum()
    };
    let sum: i32 = pass.active.iter().map(|p| restarts(p)).sum();
    if limit == 0 { sum > 0 } else { sum >= limit }
}

/// Writes the conditions of the end, or those of suspension.
pub(super) fn conclude(pass: &mut Pass<'_>, ending: Option<Ending>, decision: &mut Decision) {
    let now = pass.view.now;
    let Some(ending) = ending else {
        if pass.view.job.metadata.deletion_timestamp.is_none() {
            suspension(pass, decision);
        }
        return;
    };
    let why = (ending.reason.as_str(), ending.message.as_str());
    let (first, last) = if ending.success { ("SuccessCriteriaMet", "Complete") } else { ("FailureTarget", "Failed") };
    set_condition(&mut pass.status, first, true, why, now);
    let noted = pass.status.uncounted_terminated_pods.as_ref();
    let left = noted.is_some_and(|u| u.succeeded.is_some() || u.failed.is_some());
    if left || !decision.untrack.is_empty() || pass.terminating > 0 {
        return;
    }
    set_condition(&mut pass.status, last, true, why, now);
    let (reason, message) = if ending.success { ("Completed", "Job completed") } else { why };
    if ending.success {
        pass.status.completion_time = Some(time(now));
    }
    decision.actions.push(Action::Event {
        warning: !ending.success,
        reason: reason.to_owned(),
        message: message.to_owned(),
    });
    if let Some(ttl) = pass.spec.ttl_seconds_after_finished {
        decision.wake(now + seconds(i64::from(ttl)));
    }
}

fn suspension(pass: &mut Pass<'_>, decision: &mut Decision) {
    let now = pass.view.now;
    let event = |reason: &str, message: &str| Action::Event {
        warning: false,
        reason: reason.to_owned(),
        message: message.to_owned(),
    };
    if pass.spec.suspend == Some(true) {
        if set_condition(&mut pass.status, "Suspended", true, ("JobSuspended", "Job suspended"), now) {
            decision.actions.push(event("Suspended", "Job suspended"));
        }
    } else if set_condition(&mut pass.status, "Suspended", false, ("JobResumed", "Job resumed"), now) {
        pass.status.start_time = Some(time(now));
        decision.actions.push(event("Resumed", "Job resumed"));
        if let Some(deadline) = pass.spec.active_deadline_seconds {
            decision.wake(now + seconds(deadline));
        }
    }
}
