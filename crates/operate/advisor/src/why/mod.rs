//! Why is this not as desired? From the thing asked about down to the causes, each with its evidence and the next command.
//!
//! Called by `gantry why`. One module a family of kinds; each returns findings, the worst first. A kind that no module knows is
//! explained by its conditions and its warning events.

mod container;
mod explanation;
mod job;
mod lifecycle;
mod machine;
mod network;
mod other;
mod pod;
mod pull;
mod reference;
mod scheduling;
mod storage;
mod workload;

#[cfg(test)]
mod tests;

pub use container::explain_container;
pub use explanation::{Cause, Evidence, Explanation, Finding, Verdict};

use serde_json::Value;

use crate::facts::{Facts, ObjectName};
use explanation::conclude;

/// What else has to be known before the explanation is good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// The last lines of a container; of its previous run, where it has been started again.
    Log { namespace: String, pod: String, container: String, previous: bool },
}

/// Logs that an explanation of this object would quote.
pub fn questions(subject: &ObjectName, facts: &Facts) -> Vec<Question> {
    let Some(object) = facts.get(subject) else { return Vec::new() };
    let mut asked = Vec::new();
    for pod in pods_below(subject, object, facts) {
        asked.extend(pod::questions(pod));
    }
    // A thousand replicas fail alike: a few logs tell it all.
    asked.truncate(5);
    asked
}

/// The whole answer.
pub fn explain(subject: &ObjectName, facts: &Facts) -> Explanation {
    match facts.get(subject) {
        None => missing(subject, facts),
        Some(object) => conclude(subject.clone(), findings(subject, object, facts)),
    }
}

/// What is wrong with one object. Deletion comes first: what leaves need not be ready.
pub(crate) fn findings(subject: &ObjectName, object: &Value, facts: &Facts) -> Vec<Finding> {
    if !object["metadata"]["deletionTimestamp"].is_null() {
        return lifecycle::deletion(subject, object, facts);
    }
    match subject.kind.as_str() {
        "Pod" => pod::findings(subject, object, facts),
        "Deployment" => workload::deployment(subject, object, facts),
        "ReplicaSet" | "ReplicationController" => workload::replica_set(subject, object, facts),
        "StatefulSet" => workload::stateful_set(subject, object, facts),
        "DaemonSet" => workload::daemon_set(subject, object, facts),
        "Job" => job::job(subject, object, facts),
        "CronJob" => job::cron_job(subject, object, facts),
        "Service" => network::service(subject, object, facts),
        "Ingress" => network::ingress(subject, object, facts),
        "PersistentVolumeClaim" => storage::claim(subject, object, facts),
        "Node" => machine::node(subject, object),
        "HorizontalPodAutoscaler" => other::autoscaler(subject, object),
        "PodDisruptionBudget" => other::disruption_budget(subject, object),
        "ResourceQuota" => other::quota(subject, object),
        _ => other::by_conditions_and_events(subject, object, facts),
    }
}

fn missing(subject: &ObjectName, facts: &Facts) -> Explanation {
    let mut finding = Finding::new(subject, Cause::NotFound, format!("there is no {subject}"));
    let near = facts.nearest(&subject.kind, &subject.namespace, &subject.name);
    if let Some(near) = near {
        finding = finding.next(format!("gantry why {}/{near}", subject.kind.to_ascii_lowercase()));
    }
    finding = finding.next(format!("kubectl get {} --all-namespaces", subject.kind.to_ascii_lowercase()));
    conclude(subject.clone(), vec![finding])
}

/// The pods that an object stands for: itself, or what it owns directly or through replica sets and jobs.
fn pods_below<'a>(subject: &ObjectName, object: &'a Value, facts: &'a Facts) -> Vec<&'a Value> {
    match subject.kind.as_str() {
        "Pod" => vec![object],
        "Service" => network::selected(object, facts).collect(),
        _ => {
            let direct = facts.owned("Pod", object);
            let through = ["ReplicaSet", "Job"].into_iter().flat_map(|kind| facts.owned(kind, object));
            direct.chain(through.flat_map(|middle| facts.owned("Pod", middle))).collect()
        }
    }
}
