//! What makes pods and keeps their number: deployments, replica sets, stateful sets, daemon sets.

use std::collections::BTreeMap;

use serde_json::Value;

use super::explanation::{Cause, Finding, counted, namespace_option};
use super::{findings, reference};
use crate::facts::{Facts, ObjectName, condition, list, number, text, time};

/// Reasons of events that say that a pod could not even be created.
const REFUSALS: [&str; 2] = ["FailedCreate", "ReplicaSetCreateError"];

pub(crate) fn deployment(subject: &ObjectName, object: &Value, facts: &Facts) -> Vec<Finding> {
    let wanted = number(object, "/spec/replicas");
    let (updated, available) = (number(object, "/status/updatedReplicas"), number(object, "/status/availableReplicas"));
    let all = number(object, "/status/replicas");
    let stuck =
        condition(object, "Progressing").filter(|condition| text(condition, "/reason") == "ProgressDeadlineExceeded");
    if stuck.is_none() && updated == wanted && available == wanted && all == wanted {
        return zero(subject, wanted).into_iter().collect();
    }
    if object["spec"]["paused"] == Value::Bool(true) && updated < wanted {
        return vec![
            Finding::new(
                subject,
                Cause::RolloutPaused,
                format!("its rollout is paused: {updated} of {wanted} pods are of the newest template"),
            )
            .next(format!("kubectl rollout resume {subject}{}", namespace_option(subject))),
        ];
    }
    let mut sets: Vec<&Value> = facts.owned("ReplicaSet", object).collect();
    sets.sort_by_key(|set| revision(set));
    let newest = sets.last().copied();
    let because: Vec<Finding> =
        newest.map(|set| replica_set(&ObjectName::of("ReplicaSet", set), set, facts)).unwrap_or_default();
    let fault = because.iter().any(Finding::is_fault);
    let (cause, summary) = match stuck {
        Some(_) => (
            Cause::RolloutStuck,
            format!(
                "its rollout made no progress for {} s: {updated} of {wanted} pods are updated, {available} are available",
                object["spec"]["progressDeadlineSeconds"]
            ),
        ),
        None if fault => (Cause::PodsNotReady, format!("{available} of {wanted} pods are available")),
        None => (
            Cause::RollingOut,
            format!("it is rolling out: {updated} of {wanted} pods are updated, {available} are available"),
        ),
    };
    let mut finding = Finding::new(subject, cause, summary);
    if fault && let Some(change) = changed(&sets) {
        finding =
            finding.seen("change", change).next(format!("kubectl rollout undo {subject}{}", namespace_option(subject)));
    }
    if let Some(refused) = condition(object, "ReplicaFailure").filter(|_| because.is_empty()) {
        finding = finding.because([refusal(subject, text(refused, "/message"), facts)]);
    }
    vec![finding.because(because)]
}

/// What the newest template has that the one before had not.
fn changed(sets: &[&Value]) -> Option<String> {
    let [.., before, after] = sets else { return None };
    let mut differences = Vec::new();
    differ("", &before["spec"]["template"]["spec"], &after["spec"]["template"]["spec"], &mut differences);
    let when = time(after, "/metadata/creationTimestamp")?;
    let what =
        if differences.is_empty() { "its template's labels or annotations".to_owned() } else { differences.join("; ") };
    Some(format!("at {when} revision {} changed {what}", revision(after)))
}

/// Fields whose values differ, a few of them, as paths.
fn differ(path: &str, before: &Value, after: &Value, found: &mut Vec<String>) {
    if before == after || found.len() >= 5 {
        return;
    }
    match (before, after) {
        (Value::Object(old), Value::Object(new)) => {
            let keys: BTreeMap<&String, ()> = old.keys().chain(new.keys()).map(|key| (key, ())).collect();
            for key in keys.into_keys() {
                let below = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                differ(&below, old.get(key).unwrap_or(&Value::Null), new.get(key).unwrap_or(&Value::Null), found);
            }
        }
        (Value::Array(old), Value::Array(new)) if old.len() == new.len() => {
            for (index, (old, new)) in old.iter().zip(new).enumerate() {
                differ(&format!("{path}[{index}]"), old, new, found);
            }
        }
        // The value of an environment variable may be a secret.
        _ if path.contains("env[") => found.push(path.to_owned()),
        _ => found.push(format!("{path} from {} to {}", short(before), short(after))),
    }
}

fn short(value: &Value) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    if text.chars().count() > 60 { format!("{}…", text.chars().take(60).collect::<String>()) } else { text }
}

fn revision(set: &Value) -> u64 {
    let at = "/metadata/annotations/deployment.kubernetes.io~1revision";
    text(set, at).parse().unwrap_or_default()
}

pub(crate) fn replica_set(subject: &ObjectName, object: &Value, facts: &Facts) -> Vec<Finding> {
    let wanted = number(object, "/spec/replicas");
    let (made, ready) = (number(object, "/status/replicas"), number(object, "/status/readyReplicas"));
    let available = number(object, "/status/availableReplicas");
    if made == wanted && available == wanted {
        return zero(subject, wanted).into_iter().collect();
    }
    let mut found = Vec::new();
    if made < wanted {
        let refused = condition(object, "ReplicaFailure").map(|condition| text(condition, "/message"));
        let event = facts.event(subject, &REFUSALS);
        if let Some(message) = refused.or_else(|| event.map(|event| text(event, "/message"))) {
            found.push(refusal(subject, message, facts).event(event));
        }
    }
    found.extend(troubled_pods(subject, facts.owned("Pod", object), facts));
    if found.is_empty() && ready == wanted {
        found.push(Finding::new(
            subject,
            Cause::WaitingForMinReady,
            format!(
                "its pods are ready and have to stay so for {} s before they count",
                object["spec"]["minReadySeconds"]
            ),
        ));
    }
    if found.is_empty() {
        found.push(Finding::new(
            subject,
            Cause::RollingOut,
            format!("{made} of {wanted} pods exist, {ready} are ready"),
        ));
    }
    found
}

pub(crate) fn stateful_set(subject: &ObjectName, object: &Value, facts: &Facts) -> Vec<Finding> {
    let wanted = number(object, "/spec/replicas");
    let ready = number(object, "/status/readyReplicas");
    let current = text(object, "/status/currentRevision") == text(object, "/status/updateRevision");
    let available = number(object, "/status/availableReplicas");
    if ready == wanted && available == wanted && current {
        return zero(subject, wanted).into_iter().collect();
    }
    let mut because: Vec<Finding> = Vec::new();
    if let Some(event) = facts.event(subject, &REFUSALS).filter(|_| number(object, "/status/replicas") < wanted) {
        because.push(refusal(subject, text(event, "/message"), facts).event(Some(event)));
    }
    because.extend(troubled_pods(subject, facts.owned("Pod", object), facts));
    let ordered = text(object, "/spec/podManagementPolicy") != "Parallel";
    let summary = format!("{ready} of {wanted} pods are ready");
    let cause = if because.iter().any(Finding::is_fault) { Cause::PodsNotReady } else { Cause::OrderedStart };
    let mut finding = Finding::new(subject, cause, summary);
    if ordered && cause == Cause::PodsNotReady {
        finding = finding
            .seen("spec", "its pods start one after another: the first that is not ready holds up all behind it");
    }
    vec![finding.because(because)]
}

pub(crate) fn daemon_set(subject: &ObjectName, object: &Value, facts: &Facts) -> Vec<Finding> {
    let wanted = number(object, "/status/desiredNumberScheduled");
    let ready = number(object, "/status/numberAvailable");
    let updated = number(object, "/status/updatedNumberScheduled");
    if wanted == 0 {
        return vec![
            Finding::new(
                subject,
                Cause::NoMatchingNodes,
                "no node is to run it: its node selector, affinity or tolerations fit none",
            )
            .seen("spec", format!("nodeSelector: {}", object["spec"]["template"]["spec"]["nodeSelector"]))
            .next("kubectl get nodes --show-labels"),
        ];
    }
    if ready == wanted && updated == wanted {
        return Vec::new();
    }
    let because = troubled_pods(subject, facts.owned("Pod", object), facts);
    let cause = if because.iter().any(Finding::is_fault) { Cause::PodsNotReady } else { Cause::RollingOut };
    vec![Finding::new(subject, cause, format!("{ready} of {wanted} nodes run an available pod of it")).because(because)]
}

/// Scaled to nothing is as asked for, and still what a user may have overlooked.
fn zero(subject: &ObjectName, wanted: i64) -> Option<Finding> {
    (wanted == 0).then(|| {
        Finding::new(subject, Cause::ScaledToZero, "it is scaled to 0 replicas, so there are no pods")
            .next(format!("kubectl scale {subject}{} --replicas=1", namespace_option(subject)))
    })
}

/// Why the API server does not take a pod.
pub(crate) fn refusal(subject: &ObjectName, message: &str, facts: &Facts) -> Finding {
    if let Some(found) = reference::missing(subject, message, facts) {
        return found.seen("status", message);
    }
    let (cause, summary) = if message.contains("exceeded quota") {
        (Cause::QuotaExceeded, "the namespace's quota does not allow another pod")
    } else if message.contains("violates PodSecurity") {
        (Cause::ForbiddenByPolicy, "the namespace's pod security level forbids such a pod")
    } else if message.contains("denied the request") || message.contains("ValidatingAdmissionPolicy") {
        (Cause::ForbiddenByPolicy, "an admission policy or webhook refuses the pod")
    } else {
        (Cause::PodsRefused, "the API server refuses the pod")
    };
    let finding = Finding::new(subject, cause, summary).seen("status", message);
    match cause {
        Cause::QuotaExceeded => finding.next(format!("kubectl describe quota{}", namespace_option(subject))),
        Cause::ForbiddenByPolicy => finding.next(format!("kubectl get namespace {} --show-labels", subject.namespace)),
        _ => finding,
    }
}

/// Pods with the same trouble are one finding with a number: a thousand replicas fail alike.
pub(crate) fn troubled_pods<'a>(
    owner: &ObjectName,
    pods: impl Iterator<Item = &'a Value>,
    facts: &Facts,
) -> Vec<Finding> {
    let mut kinds: BTreeMap<(bool, Cause), (usize, Finding)> = BTreeMap::new();
    for pod in pods.filter(|pod| pod["metadata"]["deletionTimestamp"].is_null()) {
        let name = ObjectName::of("Pod", pod);
        let Some(finding) = findings(&name, pod, facts).into_iter().next() else { continue };
        let deepest = deepest(&finding).cause;
        kinds.entry((!finding.is_fault(), deepest)).or_insert((0, finding)).0 += 1;
    }
    kinds
        .into_values()
        .map(|(count, finding)| {
            if count == 1 {
                return finding;
            }
            let summary = format!("{} have the same trouble, such as {}", counted(count, "pod"), finding.subject);
            Finding::new(owner, finding.cause, summary).because([finding])
        })
        .collect()
}

fn deepest(finding: &Finding) -> &Finding {
    finding.because.first().map_or(finding, deepest)
}

/// Pods of a kind that has no status of its own to count with.
pub(crate) fn ready(pod: &Value) -> bool {
    condition(pod, "Ready").is_some_and(|condition| text(condition, "/status") == "True")
}

/// The container ports that a pod declares: number and name.
pub(crate) fn ports(pod: &Value) -> Vec<(i64, &str)> {
    list(pod, "/spec/containers")
        .flat_map(|container| list(container, "/ports"))
        .map(|port| (number(port, "/containerPort"), text(port, "/name")))
        .collect()
}
