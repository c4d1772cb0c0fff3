//! CronJob: makes a Job whenever its schedule comes round.
//!
//! Called by the controller manager's shell for one CronJob and the Jobs that it owns. Invariants: a scheduled time
//! makes at most one Job (its name is made of the time); after a pause only the latest missed time is made up for.

mod schedule;

pub use schedule::Schedule;

use crate::owners;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec, CronJobStatus, Job};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use std::sync::Arc;

pub const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
/// More missed times than this are worth a warning.
const MANY: i64 = 100;

pub struct View<'a> {
    pub cron_job: &'a CronJob,
    /// The Jobs that it controls.
    pub jobs: &'a [Arc<Job>],
    /// The zone of the schedule, or why there is none of that name.
    pub zone: Result<&'a TimeZone, &'a str>,
    pub now: Timestamp,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    Create(Box<Job>),
    Delete(Arc<Job>),
    Event { warning: bool, reason: &'static str, message: String },
}

pub struct Decision {
    pub actions: Vec<Action>,
    pub status: CronJobStatus,
    pub wake_at: Option<Timestamp>,
}

pub fn decide(view: &View<'_>) -> Decision {
    let status = view.cron_job.status.clone().unwrap_or_default();
    let mut decision = Decision { actions: Vec::new(), status, wake_at: None };
    if view.cron_job.metadata.deletion_timestamp.is_some() {
        return decision;
    }
    let spec = &view.cron_job.spec;
    trim(view, spec, &mut decision);
    follow_active(view, &mut decision);
    if spec.suspend == Some(true) {
        return decision;
    }
    let zone = match view.zone {
        Ok(zone) => zone,
        Err(error) => {
            let name = spec.time_zone.as_deref().unwrap_or_default();
            warn(&mut decision, "UnknownTimeZone", format!("invalid timeZone: {name:?}: {error}"));
            return decision;
        }
    };
    match Schedule::parse(&spec.schedule) {
        Ok(schedule) => {
            start(view, spec, &schedule, zone, &mut decision);
            decision.wake_at = schedule.next(view.now, zone);
        }
        Err(error) => {
            warn(&mut decision, "UnparseableSchedule", format!("unparseable schedule: {:?} : {error}", spec.schedule));
        }
    }
    decision
}

fn warn(decision: &mut Decision, reason: &'static str, message: String) {
    decision.actions.push(Action::Event { warning: true, reason, message });
}

fn say(decision: &mut Decision, reason: &'static str, message: String) {
    decision.actions.push(Action::Event { warning: false, reason, message });
}

fn name(job: &Job) -> &str {
    job.metadata.name.as_deref().unwrap_or_default()
}

/// How the Job ended, if it did.
fn ended(job: &Job) -> Option<&'static str> {
    let conditions = job.status.as_ref().and_then(|s| s.conditions.as_ref()).into_iter().flatten();
    conditions.filter(|c| c.status == "True").find_map(|c| match c.type_.as_str() {
        "Complete" => Some("Complete"),
        "Failed" => Some("Failed"),
        _ => None,
    })
}

/// Finished Jobs beyond the history to keep go, oldest first.
fn trim(view: &View<'_>, spec: &CronJobSpec, decision: &mut Decision) {
    for (how, keep) in [("Complete", spec.successful_jobs_history_limit), ("Failed", spec.failed_jobs_history_limit)] {
        let Some(keep) = keep.and_then(|k| usize::try_from(k).ok()) else { continue };
        let going = |job: &&Arc<Job>| job.metadata.deletion_timestamp.is_none();
        let mut jobs: Vec<&Arc<Job>> = view.jobs.iter().filter(|j| ended(j) == Some(how)).filter(going).collect();
        jobs.sort_by_key(|j| (j.status.as_ref().and_then(|s| s.start_time.as_ref()).map(|t| t.0), name(j).to_owned()));
        let surplus = jobs.len().saturating_sub(keep);
        decision.actions.extend(jobs.into_iter().take(surplus).cloned().map(Action::Delete));
    }
}

/// The list of Jobs that run, and when one last ended well.
fn follow_active(view: &View<'_>, decision: &mut Decision) {
    let old = decision.status.active.take().unwrap_or_default();
    let mut active = Vec::new();
    for entry in old {
        match view.jobs.iter().find(|j| j.metadata.uid == entry.uid) {
            None => {
                let message = format!("Active job went missing: {}", entry.name.as_deref().unwrap_or_default());
                say(decision, "MissingJob", message);
            }
            Some(job) => match ended(job) {
                None => active.push(reference(job)),
                Some(how) => {
                    say(decision, "SawCompletedJob", format!("Saw completed job: {}, condition: {how}", name(job)))
                }
            },
        }
    }
    for job in view.jobs {
        let listed = active.iter().any(|a: &ObjectReference| a.uid == job.metadata.uid);
        if ended(job).is_none() && !listed && job.metadata.deletion_timestamp.is_none() {
            warn(
                decision,
                "UnexpectedJob",
                format!("Saw a job that the controller did not create or forgot: {}", name(job)),
            );
            active.push(reference(job));
        }
        let done =
            job.status.as_ref().and_then(|s| s.completion_time.clone()).filter(|_| ended(job) == Some("Complete"));
        let known = decision.status.last_successful_time.as_ref().map(|t| t.0);
        if let Some(done) = done.filter(|d| Some(d.0) > known) {
            decision.status.last_successful_time = Some(done);
        }
    }
    decision.status.active = (!active.is_empty()).then_some(active);
}

fn reference(job: &Job) -> ObjectReference {
    ObjectReference {
        api_version: Some("batch/v1".into()),
        kind: Some("Job".into()),
        name: job.metadata.name.clone(),
        namespace: job.metadata.namespace.clone(),
        uid: job.metadata.uid.clone(),
        resource_version: job.metadata.resource_version.clone(),
        ..ObjectReference::default()
    }
}

fn start(view: &View<'_>, spec: &CronJobSpec, schedule: &Schedule, zone: &TimeZone, decision: &mut Decision) {
    let Some(due) = latest_due(view, spec, schedule, zone, decision) else { return };
    let deadline = spec.starting_deadline_seconds.map(|s| SignedDuration::from_secs(s.clamp(0, i64::from(i32::MAX))));
    if deadline.is_some_and(|deadline| due + deadline < view.now) {
        let at = due.to_zoned(zone.clone()).strftime("%a, %d %b %Y %H:%M:%S %z").to_string();
        warn(decision, "MissSchedule", format!("Missed scheduled time to start a job: {at}"));
        return;
    }
    let job = make(view.cron_job, spec, due, zone);
    let last = view.cron_job.status.as_ref().and_then(|s| s.last_schedule_time.as_ref()).map(|t| t.0);
    if last == Some(due) || view.jobs.iter().any(|j| name(j) == name(&job)) {
        return;
    }
    let running = decision.status.active.as_ref().is_some_and(|a| !a.is_empty());
    match spec.concurrency_policy.as_deref() {
        Some("Forbid") if running => {
            let why = "Not starting job because prior execution is running and concurrency policy is Forbid";
            say(decision, "JobAlreadyActive", why.into());
            return;
        }
        Some("Replace") => {
            let active = decision.status.active.take().unwrap_or_default();
            let jobs = view.jobs.iter().filter(|j| active.iter().any(|a| a.uid == j.metadata.uid));
            decision.actions.extend(jobs.cloned().map(Action::Delete));
        }
        Some(_) | None => {}
    }
    decision.status.last_schedule_time = Some(Time(due));
    decision.actions.push(Action::Create(Box::new(job)));
}

/// The latest time that has come since the last one that was acted upon.
fn latest_due(
    view: &View<'_>,
    spec: &CronJobSpec,
    schedule: &Schedule,
    zone: &TimeZone,
    decision: &mut Decision,
) -> Option<Timestamp> {
    let status = view.cron_job.status.as_ref();
    let created = view.cron_job.metadata.creation_timestamp.as_ref().map(|t| t.0);
    let last = status.and_then(|s| s.last_schedule_time.as_ref()).map(|t| t.0);
    let mut since = last.or(created).unwrap_or(view.now);
    if let Some(deadline) = spec.starting_deadline_seconds {
        since = since.max(view.now - SignedDuration::from_secs(deadline.clamp(0, i64::from(i32::MAX))));
    }
    let first = schedule.next(since, zone).filter(|t| *t <= view.now)?;
    let Some(second) = schedule.next(first, zone).filter(|t| *t <= view.now) else {
        return Some(first);
    };
    // Jump near the end, by the first distance, and walk from there.
    let step = (second.as_second() - first.as_second()).max(1);
    let missed = (view.now.as_second() - first.as_second()) / step + 1;
    let jump = first + SignedDuration::from_secs((missed - 2).max(0) * step);
    let mut latest = schedule.next(jump, zone).filter(|t| *t <= view.now).unwrap_or(second);
    while let Some(next) = schedule.next(latest, zone).filter(|t| *t <= view.now) {
        latest = next;
    }
    if missed > MANY && spec.starting_deadline_seconds.is_none() {
        let why = format!(
            "too many missed start times: {missed}. Set or decrease .spec.startingDeadlineSeconds or check clock skew"
        );
        warn(decision, "TooManyMissedTimes", why);
    }
    Some(latest)
}

fn make(cron_job: &CronJob, spec: &CronJobSpec, due: Timestamp, zone: &TimeZone) -> Job {
    let template = spec.job_template.clone();
    let meta = template.metadata.unwrap_or_default();
    let mut annotations = meta.annotations.unwrap_or_default();
    let at = due.to_zoned(zone.clone());
    let written =
        if *zone == TimeZone::UTC { due.to_string() } else { at.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string() };
    annotations.insert(SCHEDULED.into(), written);
    Job {
        metadata: ObjectMeta {
            name: Some(format!("{}-{}", cron_job.metadata.name.as_deref().unwrap_or_default(), due.as_second() / 60)),
            namespace: cron_job.metadata.namespace.clone(),
            labels: meta.labels,
            annotations: Some(annotations),
            owner_references: Some(vec![owners::reference::<CronJob>(&cron_job.metadata)]),
            ..ObjectMeta::default()
        },
        spec: template.spec,
        status: None,
    }
}

/// Takes the Job that was made into the list of those that run.
pub fn started(status: &mut CronJobStatus, job: &Job) {
    status.active.get_or_insert_default().push(reference(job));
}

#[cfg(test)]
mod tests;
