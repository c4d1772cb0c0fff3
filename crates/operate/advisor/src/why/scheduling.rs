//! A pod without a node: the scheduler's own words, taken apart.

use serde_json::Value;

use super::explanation::{Cause, Finding, namespace_option};
use super::storage;
use crate::facts::{Facts, ObjectName, condition, event_time, list, text};

/// Phrases of the scheduler's message, what they mean, and what a user would say.
const PHRASES: [(&str, Cause, &str); 14] = [
    ("Insufficient ", Cause::TooFewResources, "no node has enough free of what it requests"),
    ("Too many pods", Cause::TooManyPods, "the nodes run as many pods as they may"),
    (
        "didn't match Pod's node affinity/selector",
        Cause::NodeSelectorMatchesNothing,
        "its nodeSelector or node affinity fits no node",
    ),
    ("didn't match pod affinity rules", Cause::AffinityUnsatisfied, "no node runs the pods that it wants to be near"),
    (
        "didn't match pod anti-affinity rules",
        Cause::AffinityUnsatisfied,
        "every node runs a pod that it keeps away from",
    ),
    ("didn't satisfy existing pods anti-affinity", Cause::AffinityUnsatisfied, "a pod on every node keeps it away"),
    (
        "didn't match pod topology spread",
        Cause::TopologySpread,
        "every placement breaks its topology spread constraints",
    ),
    ("didn't have free ports", Cause::HostPortTaken, "its hostPort is taken on every node"),
    ("were unschedulable", Cause::NodesCordoned, "the nodes are cordoned"),
    ("untolerated taint", Cause::TaintNotTolerated, "the nodes have taints that it does not tolerate"),
    ("unbound immediate PersistentVolumeClaims", Cause::ClaimUnbound, "a volume claim of it has no volume yet"),
    ("persistentvolumeclaim", Cause::ClaimMissing, "a volume claim of it does not exist"),
    ("volume node affinity conflict", Cause::VolumeNotPlaceable, "its volume is on a node where it cannot go"),
    (
        "didn't match the requested node name",
        Cause::NodeSelectorMatchesNothing,
        "it asks for a node by a name that no node has",
    ),
];

pub(crate) fn unplaced(subject: &ObjectName, pod: &Value, facts: &Facts) -> Finding {
    let gates: Vec<&str> = list(pod, "/spec/schedulingGates").map(|gate| text(gate, "/name")).collect();
    if !gates.is_empty() {
        return Finding::new(
            subject,
            Cause::SchedulingGated,
            format!(
                "it is held back by its scheduling gates {}: whoever set them has to remove them",
                gates.join(", ")
            ),
        )
        .seen("spec", format!("schedulingGates: {}", gates.join(", ")));
    }
    let scheduled = condition(pod, "PodScheduled");
    let message = scheduled.map(|condition| text(condition, "/message")).filter(|message| !message.is_empty());
    let event = facts.event(subject, &["FailedScheduling"]);
    let message = message.or_else(|| event.map(|event| text(event, "/message"))).unwrap_or_default();
    if message.is_empty() {
        return unseen(subject, pod);
    }
    let mut finding = Finding::new(subject, Cause::NoNodeFits, "no node can take it").seen("status", message).event(
        // The same sentence twice is no more evidence.
        event.filter(|event| event_time(event).is_some() && text(event, "/message") != message),
    );
    let because: Vec<Finding> = PHRASES
        .iter()
        .filter(|(phrase, _, _)| message.contains(phrase))
        .map(|(phrase, cause, summary)| reason(subject, pod, facts, (phrase, *cause, summary), message))
        .collect();
    if facts.list("Node", "").next().is_none() {
        finding = finding.next("kubectl get nodes");
    }
    finding.because(because)
}

fn reason(
    subject: &ObjectName,
    pod: &Value,
    facts: &Facts,
    (phrase, cause, summary): (&str, Cause, &str),
    message: &str,
) -> Finding {
    let finding = Finding::new(subject, cause, summary);
    match cause {
        Cause::TooFewResources => {
            let short = message.split("Insufficient ").skip(1).filter_map(|rest| rest.split([',', '.', ' ']).next());
            let mut short: Vec<&str> = short.collect();
            short.sort_unstable();
            short.dedup();
            let mut finding = Finding::new(
                subject,
                cause,
                format!("no node has enough {} free for its requests", short.join(" and ")),
            );
            for container in list(pod, "/spec/containers") {
                finding = finding.seen(
                    "spec",
                    format!("container {:?} requests {}", text(container, "/name"), container["resources"]["requests"]),
                );
            }
            for node in facts.list("Node", "") {
                finding = finding
                    .seen("status", format!("node {} has {}", text(node, "/metadata/name"), allocatable(node, &short)));
            }
            finding.next("lower its requests, remove other pods, or add a node")
        }
        Cause::NodeSelectorMatchesNothing => finding
            .seen(
                "spec",
                format!(
                    "nodeSelector: {}, affinity: {}",
                    pod["spec"]["nodeSelector"], pod["spec"]["affinity"]["nodeAffinity"]
                ),
            )
            .next("kubectl get nodes --show-labels"),
        Cause::TaintNotTolerated => {
            let taints = facts.list("Node", "").flat_map(|node| {
                list(node, "/spec/taints").map(move |taint| {
                    format!(
                        "node {}: {}={}:{}",
                        text(node, "/metadata/name"),
                        text(taint, "/key"),
                        text(taint, "/value"),
                        text(taint, "/effect")
                    )
                })
            });
            taints
                .fold(finding, |finding, taint| finding.seen("spec", taint))
                .next("kubectl taint node NODE KEY-, or add a toleration")
        }
        Cause::NodesCordoned => finding.next("kubectl uncordon NODE"),
        Cause::HostPortTaken => finding.next("use a Service instead of hostPort, or another port"),
        Cause::ClaimUnbound | Cause::ClaimMissing if phrase.to_ascii_lowercase().contains("persistentvolumeclaim") => {
            finding.because(storage::claims_of(pod, facts))
        }
        _ => finding,
    }
}

fn allocatable(node: &Value, what: &[&str]) -> String {
    let each = what.iter().map(|name| {
        format!("{} {name} in all", text(node, &format!("/status/allocatable/{}", name.replace('/', "~1"))))
    });
    each.collect::<Vec<_>>().join(", ")
}

/// Nobody has looked at it: it names a scheduler that is not there, or it is very new.
fn unseen(subject: &ObjectName, pod: &Value) -> Finding {
    let scheduler = text(pod, "/spec/schedulerName");
    if !matches!(scheduler, "" | "default-scheduler") {
        return Finding::new(
            subject,
            Cause::NoScheduler,
            format!("it waits for a scheduler called {scheduler:?}, which has not looked at it"),
        )
        .seen("spec", format!("schedulerName: {scheduler}"))
        .next("remove schedulerName, or start that scheduler");
    }
    Finding::new(subject, Cause::WaitingForScheduler, "the scheduler has not placed it yet").next(format!(
        "kubectl get pod {}{} -w",
        subject.name,
        namespace_option(subject)
    ))
}
