//! The pods that a Job makes.
//!
//! Used by the job decision. Invariant: every pod carries the tracking finalizer, so it is counted before it goes.

use super::{INDEX, INDEX_FAILURES, INDEX_IGNORED, TRACKING, failure};
use crate::owners;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{EnvVar, EnvVarSource, ObjectFieldSelector, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::sync::Arc;

/// The longest part of a generated name that the server keeps: 63 less its five random letters.
const PREFIX_BYTES: usize = 58;

pub(crate) fn pod(job: &Job) -> Pod {
    let template = job.spec.as_ref().map(|s| s.template.clone()).unwrap_or_default();
    let meta = template.metadata.unwrap_or_default();
    let mut finalizers = meta.finalizers.unwrap_or_default();
    finalizers.push(TRACKING.into());
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", job.metadata.name.as_deref().unwrap_or_default())),
            namespace: job.metadata.namespace.clone(),
            labels: meta.labels,
            annotations: meta.annotations,
            finalizers: Some(finalizers),
            owner_references: Some(vec![owners::reference::<Job>(&job.metadata)]),
            ..ObjectMeta::default()
        },
        spec: template.spec,
        status: None,
    }
}

pub(crate) fn indexed_pod(job: &Job, index: i32, mine: &[Arc<Pod>]) -> Pod {
    let mut pod = pod(job);
    let name = job.metadata.name.as_deref().unwrap_or_default();
    let suffix = format!("-{index}-");
    let mut prefix = name.to_owned();
    prefix.truncate(name.floor_char_boundary(PREFIX_BYTES.saturating_sub(suffix.len())));
    pod.metadata.generate_name = Some(prefix + &suffix);
    pod.metadata.labels.get_or_insert_default().insert(INDEX.into(), index.to_string());
    let annotations = pod.metadata.annotations.get_or_insert_default();
    annotations.insert(INDEX.into(), index.to_string());
    if super::per_index_limit(job).is_some() {
        let (failures, ignored) = history(job, mine, index);
        annotations.insert(INDEX_FAILURES.into(), failures.to_string());
        if ignored > 0 {
            annotations.insert(INDEX_IGNORED.into(), ignored.to_string());
        }
    }
    if let Some(spec) = &mut pod.spec {
        spec.hostname = Some(format!("{name}-{index}"));
        name_the_index(spec);
    }
    pod
}

fn history(job: &Job, mine: &[Arc<Pod>], index: i32) -> (i32, i32) {
    let Some(last) = failure::last_failed(job, mine, index) else {
        return (0, 0);
    };
    let annotations = last.metadata.annotations.as_ref();
    let ignored = annotations.and_then(|a| a.get(INDEX_IGNORED)).and_then(|n| n.parse().ok()).unwrap_or(0);
    match failure::verdict(job, last) {
        failure::Verdict::Ignore => (failure::failures_of(last), ignored + 1),
        failure::Verdict::Count | failure::Verdict::FailIndex | failure::Verdict::FailJob(_) => {
            (failure::failures_of(last) + 1, ignored)
        }
    }
}

fn name_the_index(spec: &mut PodSpec) {
    const VARIABLE: &str = "JOB_COMPLETION_INDEX";
    for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
        let variables = container.env.get_or_insert_default();
        if variables.iter().any(|v| v.name == VARIABLE) {
            continue;
        }
        let field =
            ObjectFieldSelector { api_version: Some("v1".into()), field_path: format!("metadata.labels['{INDEX}']") };
        let source = EnvVarSource { field_ref: Some(field), ..EnvVarSource::default() };
        variables.push(EnvVar { name: VARIABLE.into(), value: None, value_from: Some(source) });
    }
}
