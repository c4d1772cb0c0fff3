//! Defaults of what makes pods: deployments, sets, jobs, autoscalers.

use super::{Fields, child, each, ensure, is_unset, pod, put, text};
use serde_json::{Value, json};

fn spec(fields: &mut Fields) -> Option<&mut Fields> {
    ensure(fields, "spec")
}

pub(super) fn deployment(fields: &mut Fields) {
    let Some(spec) = spec(fields) else { return };
    pod::template(spec);
    put(spec, "replicas", 1);
    put(spec, "revisionHistoryLimit", 10);
    put(spec, "progressDeadlineSeconds", 600);
    let Some(strategy) = ensure(spec, "strategy") else {
        return;
    };
    put(strategy, "type", "RollingUpdate");
    if text(strategy, "type") == "RollingUpdate"
        && let Some(rolling) = ensure(strategy, "rollingUpdate")
    {
        put(rolling, "maxUnavailable", "25%");
        put(rolling, "maxSurge", "25%");
    }
}

pub(super) fn replica_set(fields: &mut Fields) {
    let Some(spec) = spec(fields) else { return };
    pod::template(spec);
    put(spec, "replicas", 1);
}

/// The oldest workload takes its selector and labels from its template.
pub(super) fn replication_controller(fields: &mut Fields) {
    let Some(spec) = spec(fields) else { return };
    pod::template(spec);
    put(spec, "replicas", 1);
    let Some(labels) = spec.get("template").and_then(|t| t.get("metadata")?.get("labels")).cloned() else {
        return;
    };
    put(spec, "selector", labels.clone());
    if let Some(metadata) = ensure(fields, "metadata") {
        put(metadata, "labels", labels);
    }
}

pub(super) fn stateful_set(fields: &mut Fields) {
    let Some(spec) = spec(fields) else { return };
    pod::template(spec);
    put(spec, "replicas", 1);
    put(spec, "revisionHistoryLimit", 10);
    put(spec, "podManagementPolicy", "OrderedReady");
    if let Some(policy) = ensure(spec, "persistentVolumeClaimRetentionPolicy") {
        put(policy, "whenDeleted", "Retain");
        put(policy, "whenScaled", "Retain");
    }
    if let Some(strategy) = ensure(spec, "updateStrategy") {
        put(strategy, "type", "RollingUpdate");
        if text(strategy, "type") == "RollingUpdate"
            && let Some(rolling) = ensure(strategy, "rollingUpdate")
        {
            put(rolling, "partition", 0);
        }
    }
    for claim in each(spec, "volumeClaimTemplates") {
        put(claim, "apiVersion", "v1");
        put(claim, "kind", "PersistentVolumeClaim");
        super::storage::claim(claim);
        put(claim, "status", json!({"phase": "Pending"}));
    }
}

pub(super) fn daemon_set(fields: &mut Fields) {
    let Some(spec) = spec(fields) else { return };
    pod::template(spec);
    put(spec, "revisionHistoryLimit", 10);
    let Some(strategy) = ensure(spec, "updateStrategy") else {
        return;
    };
    put(strategy, "type", "RollingUpdate");
    if text(strategy, "type") == "RollingUpdate"
        && let Some(rolling) = ensure(strategy, "rollingUpdate")
    {
        put(rolling, "maxUnavailable", 1);
        put(rolling, "maxSurge", 0);
    }
}

pub(super) fn job(fields: &mut Fields) {
    let Some(spec) = spec(fields) else { return };
    pod::template(spec);
    // Neither given means one run; parallelism alone means a work queue, which has no completions.
    if is_unset(spec.get("completions")) && is_unset(spec.get("parallelism")) {
        put(spec, "completions", 1);
    }
    put(spec, "parallelism", 1);
    let unlimited = !is_unset(spec.get("backoffLimitPerIndex"));
    put(spec, "backoffLimit", if unlimited { i32::MAX } else { 6 });
    put(spec, "completionMode", "NonIndexed");
    put(spec, "suspend", false);
    let replacement = if is_unset(spec.get("podFailurePolicy")) { "TerminatingOrFailed" } else { "Failed" };
    put(spec, "podReplacementPolicy", replacement);
    put(spec, "manualSelector", false);
    failure_policy(spec);
}

fn failure_policy(job_spec: &mut Fields) {
    let Some(policy) = child(job_spec, "podFailurePolicy") else {
        return;
    };
    for rule in each(policy, "rules") {
        for pattern in each(rule, "onPodConditions") {
            put(pattern, "status", "True");
        }
    }
}

/// The job's own defaults wait until a job is made.
pub(super) fn cron_job(fields: &mut Fields) {
    let Some(spec) = spec(fields) else { return };
    put(spec, "concurrencyPolicy", "Allow");
    put(spec, "suspend", false);
    put(spec, "successfulJobsHistoryLimit", 3);
    put(spec, "failedJobsHistoryLimit", 1);
    if let Some(job_spec) = child(spec, "jobTemplate").and_then(|t| child(t, "spec")) {
        pod::template(job_spec);
        failure_policy(job_spec);
    }
}

pub(super) fn autoscaler(fields: &mut Fields, version: &str) {
    let Some(spec) = spec(fields) else { return };
    put(spec, "minReplicas", 1);
    if version == "v1" {
        return;
    }
    if spec.get("metrics").and_then(Value::as_array).is_none_or(Vec::is_empty) {
        let metric = json!([{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}]);
        spec.insert("metrics".to_owned(), metric);
    }
    let Some(behavior) = child(spec, "behavior") else {
        return;
    };
    if let Some(up) = ensure(behavior, "scaleUp") {
        put(up, "stabilizationWindowSeconds", 0);
        put(up, "selectPolicy", "Max");
        put(
            up,
            "policies",
            json!([{"type": "Pods", "value": 4, "periodSeconds": 15}, {"type": "Percent", "value": 100, "periodSeconds": 15}]),
        );
    }
    if let Some(down) = ensure(behavior, "scaleDown") {
        put(down, "selectPolicy", "Max");
        put(down, "policies", json!([{"type": "Percent", "value": 100, "periodSeconds": 15}]));
    }
}
