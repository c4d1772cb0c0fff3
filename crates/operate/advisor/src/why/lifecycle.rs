//! Deletions that do not end.

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::explanation::{Cause, Finding, namespace_option};
use super::machine;
use crate::facts::{Facts, ObjectName, condition, list, number, text, time};

/// A pod's end takes a moment even when its grace is over: volumes, network, the status back.
const SLACK: SignedDuration = SignedDuration::from_secs(15);

pub(crate) fn deletion(subject: &ObjectName, object: &Value, facts: &Facts) -> Vec<Finding> {
    let since = time(object, "/metadata/deletionTimestamp");
    if subject.kind == "Namespace" {
        return vec![namespace(subject, object, since)];
    }
    let finalizers: Vec<&str> = list(object, "/metadata/finalizers").filter_map(Value::as_str).collect();
    if subject.kind == "Pod" && finalizers.is_empty() {
        return vec![pod(subject, object, since, facts)];
    }
    if finalizers.is_empty() {
        return vec![Finding::new(subject, Cause::Terminating, "it is being deleted")];
    }
    vec![held(subject, since, &finalizers, facts)]
}

fn held(subject: &ObjectName, since: Option<Timestamp>, finalizers: &[&str], facts: &Facts) -> Finding {
    let names = finalizers.join(", ");
    let summary = match finalizers {
        ["foregroundDeletion"] => "its deletion waits until everything that it owns is gone".to_owned(),
        ["kubernetes.io/pvc-protection"] => "its deletion waits until no pod uses the claim any more".to_owned(),
        ["kubernetes.io/pv-protection"] => {
            "its deletion waits until no claim is bound to the volume any more".to_owned()
        }
        _ => format!("its deletion is held up by {names}: whoever put that there has to take it away"),
    };
    let mut finding = Finding::new(subject, Cause::Finalizer, summary).seen("status", format!("finalizers: {names}"));
    if let Some(since) = since {
        finding = finding.seen("status", format!("deletion was asked for at {since}"));
    }
    if subject.kind == "PersistentVolumeClaim" {
        let users = facts.list("Pod", &subject.namespace).filter(|pod| {
            list(pod, "/spec/volumes").any(|volume| text(volume, "/persistentVolumeClaim/claimName") == subject.name)
        });
        for user in users {
            finding = finding.seen("spec", format!("pod {} uses it", text(user, "/metadata/name")));
        }
    }
    finding.next(format!(
        "if its owner is gone for good: kubectl patch {subject}{} --type merge -p '{{\"metadata\":{{\"finalizers\":null}}}}'",
        namespace_option(subject)
    ))
}

fn pod(subject: &ObjectName, pod: &Value, since: Option<Timestamp>, facts: &Facts) -> Finding {
    let grace = number(pod, "/metadata/deletionGracePeriodSeconds");
    // The timestamp of a deletion is the moment when its grace is over.
    let overdue = since.map(|end| facts.now().duration_since(end)).unwrap_or_default();
    if overdue <= SLACK {
        let left = (-overdue).as_secs().max(0);
        return Finding::new(
            subject,
            Cause::Terminating,
            format!("it is being stopped: its containers have {left} of {grace} s left to end by themselves"),
        )
        .event(facts.event(subject, &["Killing", "FailedPreStopHook"]));
    }
    let node_name = text(pod, "/spec/nodeName");
    let node = ObjectName::new("Node", "", node_name);
    let because = facts.get(&node).map(|object| machine::node(&node, object)).unwrap_or_default();
    Finding::new(
        subject,
        Cause::StuckTerminating,
        format!("its node {node_name} should have ended it {} s ago and has not said that it did", overdue.as_secs()),
    )
    .event(facts.event(subject, &["FailedKillPod", "FailedPreStopHook", "Killing"]))
    .because(because)
    .next(format!("kubectl delete pod {}{} --force --grace-period=0", subject.name, namespace_option(subject)))
}

fn namespace(subject: &ObjectName, object: &Value, since: Option<Timestamp>) -> Finding {
    let mut finding = Finding::new(subject, Cause::NamespaceContent, "its deletion waits for what is still inside");
    for kind in [
        "NamespaceContentRemaining",
        "NamespaceFinalizersRemaining",
        "NamespaceDeletionDiscoveryFailure",
        "NamespaceDeletionContentFailure",
        "NamespaceDeletionGroupVersionParsingFailure",
    ] {
        if let Some(condition) = condition(object, kind).filter(|condition| text(condition, "/status") == "True") {
            finding = finding.seen("status", text(condition, "/message"));
        }
    }
    if let Some(since) = since {
        finding = finding.seen("status", format!("deletion was asked for at {since}"));
    }
    finding.next(format!(
        "kubectl api-resources --verbs=list --namespaced -o name | xargs -n 1 kubectl get -n {} --ignore-not-found --show-kind",
        subject.name
    ))
}
