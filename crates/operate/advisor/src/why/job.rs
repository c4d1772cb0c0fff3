//! Jobs that fail or do not begin, and cron jobs that do not fire.

use serde_json::Value;

use super::explanation::{Cause, Finding, namespace_option};
use super::workload::{refusal, troubled_pods};
use crate::facts::{Facts, ObjectName, condition, number, text};

pub(crate) fn job(subject: &ObjectName, object: &Value, facts: &Facts) -> Vec<Finding> {
    let is = |kind: &str| condition(object, kind).filter(|condition| text(condition, "/status") == "True");
    if is("Complete").is_some() {
        return Vec::new();
    }
    let failed_pods = || troubled_pods(subject, facts.owned("Pod", object), facts);
    if let Some(failed) = is("Failed") {
        let (cause, summary) = match text(failed, "/reason") {
            "BackoffLimitExceeded" => (
                Cause::BackoffLimit,
                format!(
                    "it failed: {} of its pods failed, more than its backoffLimit of {} allows",
                    number(object, "/status/failed"),
                    object["spec"]["backoffLimit"]
                ),
            ),
            "DeadlineExceeded" => (
                Cause::DeadlineExceeded,
                format!(
                    "it failed: it ran longer than its activeDeadlineSeconds ({}) allow",
                    object["spec"]["activeDeadlineSeconds"]
                ),
            ),
            reason => (Cause::JobFailed, format!("it failed: {reason}")),
        };
        return vec![
            Finding::new(subject, cause, summary).seen("status", text(failed, "/message")).because(failed_pods()),
        ];
    }
    if object["spec"]["suspend"] == Value::Bool(true) {
        return vec![Finding::new(subject, Cause::JobSuspended, "it is suspended").next(format!(
            "kubectl patch {subject}{} --type merge -p '{{\"spec\":{{\"suspend\":false}}}}'",
            namespace_option(subject)
        ))];
    }
    let mut because: Vec<Finding> = Vec::new();
    if let Some(event) = facts.event(subject, &["FailedCreate"]).filter(|_| number(object, "/status/active") == 0) {
        because.push(refusal(subject, text(event, "/message"), facts).event(Some(event)));
    }
    because.extend(failed_pods());
    let wanted = object["spec"]["completions"].as_i64().unwrap_or(1);
    let summary = format!(
        "{} of {wanted} completions, {} pods active, {} failed",
        number(object, "/status/succeeded"),
        number(object, "/status/active"),
        number(object, "/status/failed")
    );
    let cause = if because.iter().any(Finding::is_fault) { Cause::PodsNotReady } else { Cause::RollingOut };
    vec![Finding::new(subject, cause, summary).because(because)]
}

pub(crate) fn cron_job(subject: &ObjectName, object: &Value, facts: &Facts) -> Vec<Finding> {
    if object["spec"]["suspend"] == Value::Bool(true) {
        return vec![Finding::new(subject, Cause::CronSuspended, "it is suspended, so it starts no jobs").next(
            format!(
                "kubectl patch {subject}{} --type merge -p '{{\"spec\":{{\"suspend\":false}}}}'",
                namespace_option(subject)
            ),
        )];
    }
    let mut found: Vec<Finding> = Vec::new();
    let mut jobs: Vec<&Value> = facts.owned("Job", object).collect();
    jobs.sort_by_key(|job| text(job, "/metadata/creationTimestamp").to_owned());
    if let Some(last) = jobs.last() {
        found.extend(job(&ObjectName::of("Job", last), last, facts));
    }
    if let Some(event) = facts.event(subject, &["JobAlreadyActive"]) {
        found.push(
            Finding::new(
                subject,
                Cause::ConcurrencyForbidden,
                "its last job still runs, and concurrencyPolicy Forbid starts no second one",
            )
            .event(Some(event)),
        );
    }
    if let Some(event) = facts.event(
        subject,
        &["UnparseableSchedule", "InvalidSchedule", "UnknownTimeZone", "MissSchedule", "FailedNeedsStart"],
    ) {
        found.push(
            Finding::new(
                subject,
                Cause::WarningEvents,
                format!("its schedule {:?} cannot be kept", text(object, "/spec/schedule")),
            )
            .event(Some(event)),
        );
    }
    if found.is_empty() && object["status"]["lastScheduleTime"].is_null() {
        found.push(Finding::new(
            subject,
            Cause::CronSchedule,
            format!("its schedule {:?} has not come round since it was made", text(object, "/spec/schedule")),
        ));
    }
    found
}
