//! Job: runs pods until enough of them succeeded, or too many failed.
//!
//! Called by the controller manager's shell for one Job and the pods that it owns or might adopt.
//! Invariants: a finished pod is counted exactly once (it is noted in the status before its tracking finalizer goes,
//! and leaves the note for the counter only afterwards); never more pods are active than parallelism; a Job becomes
//! Complete or Failed only when nothing is left to count. It relies on a view that contains all earlier writes.

mod failure;
mod finish;
mod indexes;
mod status;
mod template;

use crate::owners::{self, Claim};
use crate::pods;
use indexes::Indexes;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{Job, JobSpec, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use std::sync::Arc;

pub const TRACKING: &str = "batch.kubernetes.io/job-tracking";
pub const INDEX: &str = "batch.kubernetes.io/job-completion-index";
pub const INDEX_FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
pub const INDEX_IGNORED: &str = "batch.kubernetes.io/job-index-ignored-failure-count";
const OUR_NAME: &str = "kubernetes.io/job-controller";
/// Most pods that one pass creates.
pub const BURST: usize = 500;

pub struct View<'a> {
    pub job: &'a Job,
    /// Pods of the namespace that it controls, or that nobody controls.
    pub pods: &'a [Arc<Pod>],
    pub now: Timestamp,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    Adopt(Arc<Pod>),
    Release(Arc<Pod>),
    Create(Vec<Pod>),
    /// The pod will be counted as failed when it ends.
    Delete(Arc<Pod>),
    /// The pod is not wanted any more and never counted: its finalizer goes first.
    Discard(Arc<Pod>),
    Event {
        warning: bool,
        reason: String,
        message: String,
    },
    /// The time to live is over: the Job goes, and its pods before it.
    DeleteJob,
}

#[derive(Default)]
pub struct Decision {
    pub actions: Vec<Action>,
    /// None: nothing of this Job's status is ours to write.
    pub status: Option<JobStatus>,
    /// Pods whose finalizer goes, once the status is stored.
    pub untrack: Vec<Arc<Pod>>,
    pub wake_at: Option<Timestamp>,
}

impl Decision {
    fn wake(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |w| w.min(at)));
    }
}

/// What one pass works with.
struct Pass<'a> {
    view: &'a View<'a>,
    spec: &'a JobSpec,
    mine: Vec<Arc<Pod>>,
    active: Vec<Arc<Pod>>,
    terminating: usize,
    succeeded_indexes: Indexes,
    failed_indexes: Indexes,
    status: JobStatus,
    /// Counted and noted, not ignored.
    succeeded: i32,
    failed: i32,
    fail_job: Option<String>,
}

pub fn decide(view: &View<'_>) -> Decision {
    let mut decision = Decision::default();
    let empty = JobSpec::default();
    let spec = view.job.spec.as_ref().unwrap_or(&empty);
    if spec.managed_by.as_deref().is_some_and(|by| by != OUR_NAME) {
        return decision;
    }
    if finish::is_finished(view.job) {
        finish::expire(view, spec, &mut decision);
        return decision;
    }
    let mut pass = gather(view, spec, &mut decision);
    if spec.suspend != Some(true) && pass.status.start_time.is_none() {
        pass.status.start_time = Some(status::time(view.now));
    }
    status::count(&mut pass, &mut decision);
    let ending = finish::ending(&mut pass, &mut decision);
    match &ending {
        Some(_) => {
            for pod in std::mem::take(&mut pass.active) {
                decision.actions.push(Action::Delete(pod));
                pass.terminating += 1;
            }
        }
        None if view.job.metadata.deletion_timestamp.is_none() => manage(&mut pass, &mut decision),
        None => {}
    }
    finish::conclude(&mut pass, ending, &mut decision);
    status::write(pass, &mut decision);
    decision
}

fn gather<'a>(view: &'a View<'a>, spec: &'a JobSpec, decision: &mut Decision) -> Pass<'a> {
    let mut mine = Vec::new();
    let empty = Default::default();
    let selector = spec.selector.as_ref().unwrap_or(&empty);
    for pod in view.pods {
        match owners::claim(&view.job.metadata, selector, &pod.metadata) {
            Claim::Mine => mine.push(pod.clone()),
            Claim::Adopt if spec.selector.is_some() => decision.actions.push(Action::Adopt(pod.clone())),
            Claim::Release => decision.actions.push(Action::Release(pod.clone())),
            Claim::Adopt | Claim::NotMine => {}
        }
    }
    let active: Vec<Arc<Pod>> = mine.iter().filter(|p| pods::is_active(p)).cloned().collect();
    let terminating = mine.iter().filter(|p| pods::is_terminating(p) && !pods::is_finished(p)).count();
    let status = view.job.status.clone().unwrap_or_default();
    let completions = spec.completions.unwrap_or(0);
    let parse = |text: &Option<String>| indexes::parse(text.as_deref().unwrap_or_default(), completions);
    let (succeeded_indexes, failed_indexes) = (parse(&status.completed_indexes), parse(&status.failed_indexes));
    let (succeeded, failed) = (status.succeeded.unwrap_or(0), status.failed.unwrap_or(0));
    Pass {
        view,
        spec,
        mine,
        active,
        terminating,
        succeeded_indexes,
        failed_indexes,
        status,
        succeeded,
        failed,
        fail_job: None,
    }
}

/// Brings the number of active pods to what is wanted.
fn manage(pass: &mut Pass<'_>, decision: &mut Decision) {
    let parallelism = usize::try_from(pass.spec.parallelism.unwrap_or(1)).unwrap_or(0);
    let wanted = if pass.spec.suspend == Some(true) {
        0
    } else {
        match pass.spec.completions {
            // A work queue: after the first success nothing new is started.
            None if pass.succeeded > 0 => pass.active.len().min(parallelism),
            None => parallelism,
            Some(all) => usize::try_from(all - pass.succeeded).unwrap_or(0).min(parallelism),
        }
    };
    remove_surplus(pass, wanted, decision);
    // Pods that still end take their place only when replacements have to wait for them.
    let taken = pass.active.len() + if replaces_failed_only(pass.spec) { pass.terminating } else { 0 };
    let room = wanted.saturating_sub(taken).min(BURST);
    if room > 0 {
        let made = if is_indexed(pass.spec) { indexed(pass, room, decision) } else { plain(pass, room, decision) };
        if !made.is_empty() {
            decision.actions.push(Action::Create(made));
        }
    }
}

fn remove_surplus(pass: &mut Pass<'_>, wanted: usize, decision: &mut Decision) {
    let mut ranked = std::mem::take(&mut pass.active);
    ranked.sort_by(|a, b| pods::deletion_order((a, 0), (b, 0)));
    let mut surplus = ranked.len().saturating_sub(wanted);
    let mut taken = pass.succeeded_indexes.clone();
    let completions = pass.spec.completions.unwrap_or(0);
    // Those that go last are looked at first: of two pods of one index the better stays.
    for pod in ranked.iter().rev() {
        let superfluous = is_indexed(pass.spec) && index_of(pod).is_none_or(|i| i >= completions || !taken.insert(i));
        if superfluous {
            decision.actions.push(Action::Discard(pod.clone()));
            surplus = surplus.saturating_sub(1);
        } else {
            pass.active.push(pod.clone());
        }
    }
    for _ in 0..surplus {
        if let Some(pod) = pass.active.pop() {
            decision.actions.push(Action::Discard(pod));
        }
    }
}

fn plain(pass: &Pass<'_>, room: usize, decision: &mut Decision) -> Vec<Pod> {
    match failure::next_start(pass.view.job, &pass.mine) {
        Some(at) if at > pass.view.now => {
            decision.wake(at);
            Vec::new()
        }
        Some(_) | None => vec![template::pod(pass.view.job); room],
    }
}

fn indexed(pass: &Pass<'_>, room: usize, decision: &mut Decision) -> Vec<Pod> {
    let job = pass.view.job;
    let per_index = per_index_limit(job).is_some();
    if !per_index && let Some(at) = failure::next_start(job, &pass.mine).filter(|at| *at > pass.view.now) {
        decision.wake(at);
        return Vec::new();
    }
    let waits = |pod: &&Arc<Pod>| pods::is_active(pod) || (replaces_failed_only(pass.spec) && !pods::is_finished(pod));
    let busy: Indexes = pass.mine.iter().filter(waits).filter_map(|p| index_of(p)).collect();
    let mut made = Vec::new();
    for index in 0..pass.spec.completions.unwrap_or(0) {
        if made.len() == room {
            break;
        }
        let done = pass.succeeded_indexes.contains(&index) || pass.failed_indexes.contains(&index);
        if done || busy.contains(&index) {
            continue;
        }
        if per_index
            && let Some(at) = failure::next_start_of_index(job, &pass.mine, index).filter(|t| *t > pass.view.now)
        {
            decision.wake(at);
            continue;
        }
        made.push(template::indexed_pod(job, index, &pass.mine));
    }
    made
}

fn is_indexed(spec: &JobSpec) -> bool {
    spec.completion_mode.as_deref() == Some("Indexed")
}

fn per_index_limit(job: &Job) -> Option<i32> {
    job.spec.as_ref()?.backoff_limit_per_index
}

fn replaces_failed_only(spec: &JobSpec) -> bool {
    spec.pod_replacement_policy.as_deref() == Some("Failed")
}

fn index_of(pod: &Pod) -> Option<i32> {
    let index = pod.metadata.annotations.as_ref()?.get(INDEX)?.parse().ok()?;
    (index >= 0).then_some(index)
}

pub fn is_tracked(pod: &Pod) -> bool {
    pod.metadata.finalizers.iter().flatten().any(|f| f == TRACKING)
}

/// Failed for the Job's purposes: one that is being deleted counts at once, unless replacements wait for its end.
fn is_failed(job: &Job, pod: &Pod) -> bool {
    let waits = job.spec.as_ref().is_some_and(replaces_failed_only);
    pods::phase(pod) == "Failed" || (!waits && pods::is_terminating(pod) && pods::phase(pod) != "Succeeded")
}

fn seconds(count: i64) -> SignedDuration {
    SignedDuration::from_secs(count.clamp(0, i64::from(i32::MAX)))
}

#[cfg(test)]
mod tests;
