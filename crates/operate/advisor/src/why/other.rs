//! Autoscalers, disruption budgets, quotas; and what every kind has: conditions and warning events.

use serde_json::Value;

use super::explanation::{Cause, Finding, namespace_option};
use crate::facts::{Facts, ObjectName, condition, list, number, text};

pub(crate) fn autoscaler(subject: &ObjectName, object: &Value) -> Vec<Finding> {
    let is_false = |kind: &str| condition(object, kind).filter(|condition| text(condition, "/status") == "False");
    if let Some(able) = is_false("AbleToScale") {
        return vec![
            Finding::new(
                subject,
                Cause::ScaleTargetMissing,
                format!(
                    "it cannot scale {}/{}",
                    text(object, "/spec/scaleTargetRef/kind"),
                    text(object, "/spec/scaleTargetRef/name")
                ),
            )
            .seen("status", text(able, "/message")),
        ];
    }
    if let Some(active) = is_false("ScalingActive") {
        return vec![
            Finding::new(subject, Cause::MetricsMissing, "it has no metrics to decide by")
                .seen("status", text(active, "/message"))
                .next(format!("kubectl top pods{}   (do the pods have CPU requests?)", namespace_option(subject))),
        ];
    }
    let limited = condition(object, "ScalingLimited").filter(|condition| text(condition, "/status") == "True");
    let at_maximum = number(object, "/status/desiredReplicas") >= number(object, "/spec/maxReplicas");
    limited
        .filter(|_| at_maximum)
        .map(|limited| {
            Finding::new(
                subject,
                Cause::AtMaximum,
                format!("it wants more than its maxReplicas of {} allow", object["spec"]["maxReplicas"]),
            )
            .seen("status", text(limited, "/message"))
        })
        .into_iter()
        .collect()
}

pub(crate) fn disruption_budget(subject: &ObjectName, object: &Value) -> Vec<Finding> {
    if number(object, "/status/disruptionsAllowed") > 0 {
        return Vec::new();
    }
    let (healthy, wanted) = (number(object, "/status/currentHealthy"), number(object, "/status/desiredHealthy"));
    let summary = format!(
        "it allows no eviction: {healthy} of its {} pods are healthy, {wanted} have to be",
        number(object, "/status/expectedPods")
    );
    vec![
        Finding::new(subject, Cause::NoDisruptionAllowed, summary)
            .next(format!("kubectl get pods{} -o wide", namespace_option(subject))),
    ]
}

pub(crate) fn quota(subject: &ObjectName, object: &Value) -> Vec<Finding> {
    let full = object["status"]["hard"]
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(name, hard)| object["status"]["used"].get(name.as_str()) == Some(hard));
    full.map(|(name, hard)| {
        Finding::new(
            subject,
            Cause::QuotaFull,
            format!("all of its {name} is used ({})", hard.as_str().unwrap_or_default()),
        )
        .next(format!("kubectl describe quota {}{}", subject.name, namespace_option(subject)))
    })
    .collect()
}

/// A kind that nothing more is known of.
pub(crate) fn by_conditions_and_events(subject: &ObjectName, object: &Value, facts: &Facts) -> Vec<Finding> {
    let mut found: Vec<Finding> = list(object, "/status/conditions")
        .filter(|condition| {
            text(condition, "/status") == "False"
                && matches!(
                    text(condition, "/type"),
                    "Ready" | "Available" | "Established" | "NamesAccepted" | "Accepted" | "Programmed"
                )
        })
        .map(|condition| {
            Finding::new(
                subject,
                Cause::ConditionFalse,
                format!("its condition {} is False ({})", text(condition, "/type"), text(condition, "/reason")),
            )
            .seen("status", text(condition, "/message"))
        })
        .collect();
    if found.is_empty()
        && let Some(warning) = facts.events(subject).last().filter(|event| text(event, "/type") == "Warning")
    {
        found.push(
            Finding::new(subject, Cause::WarningEvents, "the last that was heard of it is a warning")
                .event(Some(warning)),
        );
    }
    found
}
