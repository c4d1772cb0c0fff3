//! What a failed pod means for its Job: the pod failure policy and the pauses before a replacement.
//!
//! Used by the job decision. Invariants: the first rule that matches decides; a pause is computed from the pods that
//! are there, so a restarted controller waits no longer and no shorter.

use super::{INDEX_FAILURES, index_of, is_tracked};
use crate::pods;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{Job, PodFailurePolicyRule};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use std::sync::Arc;

const FIRST_PAUSE: SignedDuration = SignedDuration::from_secs(10);
const LONGEST_PAUSE: SignedDuration = SignedDuration::from_secs(600);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Count,
    Ignore,
    FailIndex,
    FailJob(String),
}

pub(crate) fn verdict(job: &Job, pod: &Pod) -> Verdict {
    let policy = job.spec.as_ref().and_then(|s| s.pod_failure_policy.as_ref());
    if pods::phase(pod) != "Failed" {
        return Verdict::Count;
    }
    for (at, rule) in policy.into_iter().flat_map(|p| &p.rules).enumerate() {
        let Some(why) = exit_code(rule, pod).or_else(|| pod_condition(rule, pod)) else {
            continue;
        };
        return match rule.action.as_str() {
            "Ignore" => Verdict::Ignore,
            "FailIndex" => Verdict::FailIndex,
            "FailJob" => Verdict::FailJob(format!("{why} matching FailJob rule at index {at}")),
            _ => Verdict::Count,
        };
    }
    Verdict::Count
}

fn statuses(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    let status = pod.status.as_ref();
    let main = status.and_then(|s| s.container_statuses.as_ref()).into_iter().flatten();
    main.chain(status.and_then(|s| s.init_container_statuses.as_ref()).into_iter().flatten())
}

fn full_name(pod: &Pod) -> String {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    format!("{}/{}", text(&pod.metadata.namespace), text(&pod.metadata.name))
}

fn exit_code(rule: &PodFailurePolicyRule, pod: &Pod) -> Option<String> {
    let wanted = rule.on_exit_codes.as_ref()?;
    let of_container = |c: &&ContainerStatus| wanted.container_name.as_ref().is_none_or(|name| *name == c.name);
    statuses(pod).filter(of_container).find_map(|container| {
        let code = container.state.as_ref()?.terminated.as_ref()?.exit_code;
        let listed = wanted.values.contains(&code);
        let matches = if wanted.operator == "NotIn" { !listed } else { listed };
        (code != 0 && matches)
            .then(|| format!("Container {} for pod {} failed with exit code {code}", container.name, full_name(pod)))
    })
}

fn pod_condition(rule: &PodFailurePolicyRule, pod: &Pod) -> Option<String> {
    let patterns = rule.on_pod_conditions.as_ref()?;
    let hit = patterns.iter().find(|pattern| {
        let status = pattern.status.as_deref().unwrap_or("True");
        pods::condition(pod, &pattern.type_).is_some_and(|c| c.status == status)
    })?;
    Some(format!("Pod {} has condition {}", full_name(pod), hit.type_))
}

/// When the pod's last container ended; a pod that never ran one ended when it was deleted, or never.
pub(crate) fn finished_at(pod: &Pod) -> Option<Timestamp> {
    let ended = statuses(pod).filter_map(|c| c.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref());
    ended.map(|t| t.0).max().or_else(|| pod.metadata.deletion_timestamp.as_ref().map(|t| t.0))
}

fn pause(failures: u32) -> SignedDuration {
    if failures == 0 {
        return SignedDuration::ZERO;
    }
    (FIRST_PAUSE * (1 << (failures - 1).min(10))).min(LONGEST_PAUSE)
}

/// Until when no replacement is made: 10 s after the first failure since the last success, doubling up to 10 min.
pub(crate) fn next_start(job: &Job, mine: &[Arc<Pod>]) -> Option<Timestamp> {
    let failed = |pod: &&Arc<Pod>| super::is_failed(job, pod) && verdict(job, pod) != Verdict::Ignore;
    let last_success = mine.iter().filter(|p| pods::phase(p) == "Succeeded").filter_map(|p| finished_at(p)).max();
    let since: Vec<Timestamp> = mine
        .iter()
        .filter(failed)
        .filter_map(|p| finished_at(p))
        .filter(|at| last_success.is_none_or(|success| *at > success))
        .collect();
    let last = since.iter().max()?;
    Some(*last + pause(u32::try_from(since.len()).unwrap_or(u32::MAX)))
}

/// With a limit per index, each index pauses for itself.
pub(crate) fn next_start_of_index(job: &Job, mine: &[Arc<Pod>], index: i32) -> Option<Timestamp> {
    let last = last_failed(job, mine, index)?;
    Some(finished_at(last)? + pause(u32::try_from(failures_of(last) + 1).unwrap_or(u32::MAX)))
}

/// The failed pod of the index with the most failures before it.
pub(crate) fn last_failed<'a>(job: &Job, mine: &'a [Arc<Pod>], index: i32) -> Option<&'a Arc<Pod>> {
    let of_index = mine.iter().filter(|p| index_of(p) == Some(index) && super::is_failed(job, p));
    of_index.max_by_key(|p| (failures_of(p), is_tracked(p)))
}

/// How often the index had failed before this pod.
pub(crate) fn failures_of(pod: &Pod) -> i32 {
    let annotations = pod.metadata.annotations.as_ref();
    annotations.and_then(|a| a.get(INDEX_FAILURES)).and_then(|n| n.parse().ok()).unwrap_or(0)
}
