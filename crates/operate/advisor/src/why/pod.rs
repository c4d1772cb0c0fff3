//! A pod, from its placement to its containers' ends.
//!
//! Order follows a pod's life: placed, volumes and sandbox, images, init containers, containers, readiness, end.

use serde_json::Value;

use super::explanation::{Cause, Finding, namespace_option};
use super::{Question, container, reference, scheduling};
use crate::facts::{Facts, ObjectName, condition, list, text};

/// The containers whose last words an explanation quotes.
pub(crate) fn questions(pod: &Value) -> Vec<Question> {
    let states = list(pod, "/status/initContainerStatuses").chain(list(pod, "/status/containerStatuses"));
    states
        .filter(|state| container::failed_before(state) || container::failed_now(state))
        .map(|state| Question::Log {
            namespace: text(pod, "/metadata/namespace").to_owned(),
            pod: text(pod, "/metadata/name").to_owned(),
            container: text(state, "/name").to_owned(),
            // The running one is the next attempt: what went wrong stands in the log of the one before.
            previous: !container::failed_now(state),
        })
        .collect()
}

pub(crate) fn findings(subject: &ObjectName, pod: &Value, facts: &Facts) -> Vec<Finding> {
    match text(pod, "/status/phase") {
        "Succeeded" => return Vec::new(),
        "Failed" => return vec![failed(subject, pod, facts)],
        _ => {}
    }
    if text(pod, "/spec/nodeName").is_empty() {
        return vec![scheduling::unplaced(subject, pod, facts)];
    }
    if let Some(lost) = lost_node(subject, pod, facts) {
        return vec![lost];
    }
    let states: Vec<&Value> =
        list(pod, "/status/initContainerStatuses").chain(list(pod, "/status/containerStatuses")).collect();
    let begun =
        states.iter().any(|state| !state["state"]["running"].is_null() || !state["state"]["terminated"].is_null());
    if !begun && let Some(finding) = not_begun(subject, pod, facts) {
        return vec![finding];
    }
    let init = |pod| list(pod, "/status/initContainerStatuses");
    let mut found: Vec<Finding> =
        init(pod).filter_map(|state| container::init_finding(subject, pod, state, facts)).collect();
    if found.is_empty() {
        found.extend(
            list(pod, "/status/containerStatuses").filter_map(|state| container::finding(subject, pod, state, facts)),
        );
    }
    if found.is_empty() {
        found.extend(unready_gates(subject, pod));
    }
    if found.is_empty() && states.is_empty() {
        found.push(
            Finding::new(
                subject,
                Cause::Starting,
                format!("node {} has not begun with it yet", text(pod, "/spec/nodeName")),
            )
            .next(format!("gantry why node/{}", text(pod, "/spec/nodeName"))),
        );
    }
    found
}

/// What keeps every container from starting: mounts, the sandbox.
fn not_begun(subject: &ObjectName, pod: &Value, facts: &Facts) -> Option<Finding> {
    // An old complaint that was overcome counts no more.
    let newest = facts.events(subject).last();
    let latest = |reasons: &[&str]| newest.filter(|event| reasons.contains(&text(event, "/reason")));
    if let Some(event) = latest(&["FailedMount", "FailedAttachVolume", "FailedMapVolume"]) {
        let message = if event["message"].is_null() { text(event, "/note") } else { text(event, "/message") };
        return Some(
            reference::missing(subject, message, facts)
                .unwrap_or_else(|| Finding::new(subject, Cause::MountFailed, "a volume cannot be mounted"))
                .event(Some(event))
                .next(format!("kubectl describe pod {}{}", subject.name, namespace_option(subject))),
        );
    }
    let event = latest(&["FailedCreatePodSandBox", "NetworkNotReady"])?;
    Some(
        Finding::new(
            subject,
            Cause::SandboxFailed,
            "the pod's own namespaces and network could not be made on its node",
        )
        .event(Some(event))
        .next(format!("gantry why node/{}", text(pod, "/spec/nodeName"))),
    )
}

fn lost_node(subject: &ObjectName, pod: &Value, facts: &Facts) -> Option<Finding> {
    let name = ObjectName::new("Node", "", text(pod, "/spec/nodeName"));
    let node = facts.get(&name)?;
    let ready = condition(node, "Ready")?;
    if text(ready, "/status") == "True" {
        return None;
    }
    Some(
        Finding::new(subject, Cause::NodeLost, format!("its node {} is not ready", name.name))
            .because(super::machine::node(&name, node)),
    )
}

fn unready_gates(subject: &ObjectName, pod: &Value) -> Vec<Finding> {
    list(pod, "/spec/readinessGates")
        .map(|gate| text(gate, "/conditionType"))
        .filter(|gate| condition(pod, gate).is_none_or(|condition| text(condition, "/status") != "True"))
        .map(|gate| {
            Finding::new(
                subject,
                Cause::ReadinessGate,
                format!("its readiness gate {gate:?} is not true: whoever sets that condition has not done it"),
            )
            .seen("spec", format!("readinessGates: {gate}"))
        })
        .collect()
}

/// A pod that ended and will not start again.
fn failed(subject: &ObjectName, pod: &Value, facts: &Facts) -> Finding {
    let (reason, message) = (text(pod, "/status/reason"), text(pod, "/status/message"));
    let with = |cause, summary: String| {
        let finding = Finding::new(subject, cause, summary);
        if message.is_empty() { finding } else { finding.seen("status", message) }
    };
    match reason {
        "Evicted" => with(Cause::Evicted, "its node ran short and evicted it".to_owned())
            .event(facts.event(subject, &["Evicted"]))
            .next(format!("gantry why node/{}", text(pod, "/spec/nodeName"))),
        "DeadlineExceeded" => with(
            Cause::DeadlineExceeded,
            format!("it ran longer than its activeDeadlineSeconds ({}) allow", pod["spec"]["activeDeadlineSeconds"]),
        ),
        "NodeLost" | "Terminated" | "Shutdown" => with(Cause::NodeLost, "its node went away".to_owned()),
        "Preempting" | "Preempted" => with(Cause::Preempted, "a pod of higher priority took its place".to_owned()),
        _ => {
            let states = list(pod, "/status/initContainerStatuses").chain(list(pod, "/status/containerStatuses"));
            let causes = states.filter_map(|state| container::ended(subject, pod, state, facts));
            let because: Vec<Finding> = causes.collect();
            with(Cause::ContainerFailed, "it ended with a failure and is not to be restarted".to_owned())
                .because(because)
        }
    }
}
