//! Deployments, sets, jobs, autoscalers, disruption budgets.

use super::look::{At, immutable};
use super::pod::{self, Use};
use super::selectors::{label_selector, workload_selector};
use super::{Errors, storage};
use crate::field::FieldError;
use crate::selector::LabelSelector;
use serde_json::Value;

pub(super) fn deployment(spec: At<'_>, errors: &mut Errors) {
    replicated(&spec, errors);
    for field in ["minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"] {
        spec.child(field).not_negative(errors);
    }
    let (deadline, ready) =
        (spec.child("progressDeadlineSeconds"), spec.child("minReadySeconds").number().unwrap_or(0));
    if deadline.number().is_some_and(|n| n <= ready) {
        errors.push(deadline.invalid("must be greater than minReadySeconds"));
    }
    let strategy = spec.child("strategy");
    let rolling = strategy.child("rollingUpdate");
    match strategy.child("type").text() {
        "Recreate" if rolling.is_set() => {
            errors.push(FieldError::forbidden(rolling.path, "may not be specified when strategy `type` is 'Recreate'"));
        }
        "Recreate" => {}
        "RollingUpdate" => rolling_update(&rolling, errors),
        _ => strategy.child("type").one_of(&["Recreate", "RollingUpdate"], errors),
    }
}

fn rolling_update(rolling: &At<'_>, errors: &mut Errors) {
    let (unavailable, surge) = (rolling.child("maxUnavailable"), rolling.child("maxSurge"));
    for bound in [&unavailable, &surge] {
        int_or_percent(bound, errors);
    }
    if amount(&unavailable) == Some(0) && amount(&surge) == Some(0) {
        errors.push(unavailable.invalid("may not be 0 when `maxSurge` is 0"));
    }
    if unavailable.text().ends_with('%') && amount(&unavailable).is_some_and(|n| n > 100) {
        errors.push(unavailable.invalid("must not be greater than 100%"));
    }
}

/// The number, with or without a percent sign.
fn amount(at: &At<'_>) -> Option<i64> {
    at.number().or_else(|| at.text().strip_suffix('%')?.parse().ok())
}

fn int_or_percent(at: &At<'_>, errors: &mut Errors) {
    match at.value {
        Value::String(text) => {
            let digits = text.strip_suffix('%').is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
            if !digits {
                errors.push(at.invalid("a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')"));
            }
        }
        _ => at.not_negative(errors),
    }
}

fn replicated(spec: &At<'_>, errors: &mut Errors) {
    spec.child("replicas").not_negative(errors);
    workload_selector(spec, errors);
    pod::template(spec.child("template"), errors);
}

pub(super) fn replica_set(spec: At<'_>, errors: &mut Errors) {
    replicated(&spec, errors);
    spec.child("minReadySeconds").not_negative(errors);
}

pub(super) fn replication_controller(spec: At<'_>, errors: &mut Errors) {
    spec.child("replicas").not_negative(errors);
    let selector = spec.child("selector");
    if selector.required(errors) {
        let wanted = LabelSelector::from_map(
            selector.value.as_object().into_iter().flatten().filter_map(|(k, v)| Some((k.as_str(), v.as_str()?))),
        );
        let labels = spec.down("template.metadata.labels");
        if !wanted.matches(|key| labels.value.get(key).and_then(Value::as_str)) {
            errors.push(FieldError::invalid(
                labels.path,
                labels.value.clone(),
                "`selector` does not match template `labels`",
            ));
        }
    }
    if spec.child("template").is_set() {
        pod::template(spec.child("template"), errors);
    } else {
        errors.push(FieldError::required(spec.child("template").path, ""));
    }
}

pub(super) fn stateful_set(spec: At<'_>, errors: &mut Errors) {
    replicated(&spec, errors);
    spec.child("podManagementPolicy").one_of(&["OrderedReady", "Parallel"], errors);
    spec.down("updateStrategy.type").one_of(&["RollingUpdate", "OnDelete"], errors);
    spec.down("updateStrategy.rollingUpdate.partition").not_negative(errors);
    for claim in spec.child("volumeClaimTemplates").items() {
        claim.down("metadata.name").required(errors);
        storage::claim(claim.child("spec"), errors);
    }
}

/// The parts that make a set's pods find their volumes again are fixed.
pub(super) fn stateful_set_change(new: &Value, old: &Value, errors: &mut Errors) {
    const MUTABLE: [&str; 7] = [
        "replicas",
        "ordinals",
        "template",
        "updateStrategy",
        "revisionHistoryLimit",
        "persistentVolumeClaimRetentionPolicy",
        "minReadySeconds",
    ];
    let fixed = |object: &Value| -> Vec<(String, Value)> {
        let fields = object["spec"].as_object().into_iter().flatten();
        fields
            .filter(|(key, _)| !MUTABLE.contains(&key.as_str()))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    };
    if fixed(new) != fixed(old) {
        errors.push(FieldError::forbidden(
            "spec",
            "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden",
        ));
    }
}

pub(super) fn daemon_set(spec: At<'_>, errors: &mut Errors) {
    workload_selector(&spec, errors);
    pod::template(spec.child("template"), errors);
    spec.child("minReadySeconds").not_negative(errors);
    let strategy = spec.child("updateStrategy");
    strategy.child("type").one_of(&["OnDelete", "RollingUpdate"], errors);
    let rolling = strategy.child("rollingUpdate");
    let (unavailable, surge) = (rolling.child("maxUnavailable"), rolling.child("maxSurge"));
    for bound in [&unavailable, &surge] {
        int_or_percent(bound, errors);
    }
    if strategy.child("type").text() == "RollingUpdate" && amount(&unavailable) == Some(0) && amount(&surge) == Some(0)
    {
        errors.push(unavailable.invalid("cannot be 0 when maxSurge is 0"));
    }
}

pub(super) fn job(spec: At<'_>, errors: &mut Errors) {
    for field in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
    ] {
        spec.child(field).not_negative(errors);
    }
    if spec.child("completionMode").is_set() {
        spec.child("completionMode").one_of(&["NonIndexed", "Indexed"], errors);
    }
    if spec.child("completionMode").text() == "Indexed" && !spec.child("completions").is_set() {
        errors.push(FieldError::required(spec.child("completions").path, "when completion mode is Indexed"));
    }
    if spec.child("selector").is_set() {
        label_selector(&spec.child("selector"), errors);
    }
    pod::template_for(spec.child("template"), Use::Finite, errors);
}

pub(super) fn job_change(new: &Value, old: &Value, errors: &mut Errors) {
    for path in ["spec.selector", "spec.completionMode", "spec.podFailurePolicy"] {
        immutable(new, old, path, errors);
    }
    let suspended = old["spec"]["suspend"] == true;
    if !suspended {
        immutable(new, old, "spec.template", errors);
    }
    if new["spec"]["completionMode"] != "Indexed" {
        immutable(new, old, "spec.completions", errors);
    }
}

pub(super) fn cron_job(object: &Value, errors: &mut Errors) {
    let spec = At::root(object).child("spec");
    let schedule = spec.child("schedule");
    if schedule.required(errors) {
        let text = schedule.text();
        if text.contains("TZ") {
            errors.push(schedule.invalid("cannot use TZ or CRON_TZ in schedule, use timeZone field instead"));
        } else if let Some(problem) = schedule_problem(text) {
            errors.push(schedule.invalid(problem));
        }
    }
    spec.child("concurrencyPolicy").one_of(&["Allow", "Forbid", "Replace"], errors);
    for field in ["startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
        spec.child(field).not_negative(errors);
    }
    let name = At::root(object).down("metadata.name");
    if name.text().len() > 52 {
        errors.push(name.invalid("must be no more than 52 characters"));
    }
    pod::template_for(spec.down("jobTemplate.spec.template"), Use::Finite, errors);
}

/// Five fields, or one of the words with an at sign.
fn schedule_problem(text: &str) -> Option<String> {
    if let Some(word) = text.strip_prefix('@') {
        let known = matches!(word, "yearly" | "annually" | "monthly" | "weekly" | "daily" | "midnight" | "hourly")
            || word.starts_with("every ");
        return (!known).then(|| format!("unrecognized descriptor: {text}"));
    }
    let fields = text.split_whitespace().count();
    (fields != 5).then(|| {
        format!(
            "expected exactly 5 fields, found {fields}: [{}]",
            text.split_whitespace().collect::<Vec<_>>().join(" ")
        )
    })
}

pub(super) fn autoscaler(spec: At<'_>, errors: &mut Errors) {
    let (least, most) = (spec.child("minReplicas"), spec.child("maxReplicas"));
    if least.number().is_some_and(|n| n < 1) {
        errors.push(least.invalid("must be greater than or equal to 1"));
    }
    match most.number() {
        None | Some(..=0) => {
            errors.push(FieldError::invalid(&most.path, most.number().unwrap_or(0), "must be greater than 0"))
        }
        Some(n) if least.number().is_some_and(|least| n < least) => {
            errors.push(most.invalid("must be greater than or equal to `minReplicas`"));
        }
        Some(_) => {}
    }
    for field in ["kind", "name"] {
        spec.child("scaleTargetRef").child(field).required(errors);
    }
}

pub(super) fn disruption_budget(spec: At<'_>, errors: &mut Errors) {
    let (least, most) = (spec.child("minAvailable"), spec.child("maxUnavailable"));
    if least.is_set() && most.is_set() {
        errors.push(spec.invalid("minAvailable and maxUnavailable cannot be both set"));
    }
    for bound in [least, most] {
        if bound.is_set() {
            int_or_percent(&bound, errors);
        }
    }
    label_selector(&spec.child("selector"), errors);
}
