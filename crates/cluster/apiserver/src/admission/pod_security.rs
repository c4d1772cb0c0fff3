//! PodSecurity: the level that a namespace's labels set for its pods: refused (enforce), noted in the log (audit), told (warn).
//!
//! Workloads are only warned of: what they make is judged when it is made.

use kube_types::lifecycle::Subresource;
use kube_types::pod_security::{Level, describe, violations};
use kube_types::{meta, status};
use serde_json::Value;

use crate::call::{Call, Target};
use crate::error::ApiResult;
use crate::{keys, object};

const PREFIX: &str = "pod-security.kubernetes.io/";
/// Most pods that are looked at when a namespace's level changes.
const MAX_PODS: usize = 3000;

/// One of the three modes of a namespace: level, and the version as it is shown.
struct Mode {
    level: Level,
    version: String,
}

impl Mode {
    fn of(namespace: &Value, mode: &str) -> Self {
        let label = |name: &str| meta::label(namespace, &format!("{PREFIX}{name}"));
        // A label that says nothing known counts as the strictest, as in Kubernetes.
        let level = label(mode).map_or(Level::Privileged, |text| Level::parse(text).unwrap_or(Level::Restricted));
        Self { level, version: label(&format!("{mode}-version")).unwrap_or("latest").to_owned() }
    }

    /// `violates PodSecurity "restricted:latest": …`
    fn complaint(&self, verb: &str, pod: &Value) -> Option<String> {
        let found = violations(self.level, pod);
        (!found.is_empty())
            .then(|| format!("{verb} PodSecurity \"{}:{}\": {}", self.level.as_str(), self.version, describe(&found)))
    }
}

/// Pods, and everything that has a template for them.
pub(super) fn check(
    call: &Call,
    target: &Target,
    old: Option<&Value>,
    new: &Value,
    subresource: Subresource<'_>,
) -> ApiResult<()> {
    let judged = matches!(subresource, Subresource::Main | Subresource::Named("ephemeralcontainers" | "resize"));
    let Some(template) = template(target).filter(|_| judged) else { return Ok(()) };
    let Some(pod) = new.pointer(template) else { return Ok(()) };
    if old.is_some_and(|old| old.pointer(template).is_some_and(|old| old["spec"] == pod["spec"])) {
        return Ok(());
    }
    let Some(found) = call.server.store.get(&keys::known("", "namespaces", "", &target.namespace)) else {
        return Ok(());
    };
    let namespace = object::decode(&found.value);
    let modes = ["enforce", "audit", "warn"].map(|mode| Mode::of(&namespace, mode));
    let [enforce, audit, warn] = modes;
    if template.is_empty()
        && let Some(text) = enforce.complaint("violates", pod)
    {
        return Err(status::forbidden(&target.resource, meta::name(new), &text).into());
    }
    if let Some(text) = warn.complaint("would violate", pod) {
        call.warn(text);
    }
    if let Some(text) = audit.complaint("would violate", pod) {
        call.annotate("pod-security.kubernetes.io/audit-violations", &text);
    }
    Ok(())
}

/// Where a kind holds its pods' metadata and spec.
fn template(target: &Target) -> Option<&'static str> {
    match (target.resource.group.as_ref(), target.resource.plural.as_ref()) {
        ("", "pods") => Some(""),
        ("", "podtemplates") => Some("/template"),
        ("", "replicationcontrollers")
        | ("apps", "deployments" | "replicasets" | "statefulsets" | "daemonsets")
        | ("batch", "jobs") => Some("/spec/template"),
        ("batch", "cronjobs") => Some("/spec/jobTemplate/spec/template"),
        _ => None,
    }
}

/// A namespace's labels must be levels; pods that are there already and break a new level are told.
pub(super) fn check_namespace(call: &Call, target: &Target, old: Option<&Value>, new: &Value) -> ApiResult<()> {
    let mut errors = Vec::new();
    for mode in ["enforce", "audit", "warn"] {
        let label = format!("{PREFIX}{mode}");
        if let Some(text) = meta::label(new, &label).filter(|text| Level::parse(text).is_none()) {
            let detail = "must be one of privileged, baseline, restricted";
            errors.push(kube_types::FieldError::invalid(format!("metadata.labels[{label}]"), text, detail));
        }
        let label = format!("{label}-version");
        if let Some(text) = meta::label(new, &label).filter(|text| !is_version(text)) {
            let detail = "must be \"latest\" or \"v1.x\"";
            errors.push(kube_types::FieldError::invalid(format!("metadata.labels[{label}]"), text, detail));
        }
    }
    if !errors.is_empty() {
        return Err(status::invalid(&target.resource, meta::name(new), &errors).into());
    }
    let (before, after) = (old.map(|old| Mode::of(old, "enforce")), Mode::of(new, "enforce"));
    if before.is_some_and(|before| before.level < after.level) {
        warn_of_pods(call, meta::name(new), &after)?;
    }
    Ok(())
}

fn is_version(text: &str) -> bool {
    text == "latest" || text.strip_prefix("v1.").is_some_and(|minor| minor.parse::<u16>().is_ok())
}

fn warn_of_pods(call: &Call, namespace: &str, mode: &Mode) -> ApiResult<()> {
    let items = call.server.store.range(&keys::known("", "pods", namespace, ""), None, MAX_PODS, None)?.items;
    let mut complaints: std::collections::BTreeMap<String, Vec<String>> = std::collections::BTreeMap::new();
    for item in items {
        let pod = object::decode(&item.value);
        let found = violations(mode.level, &pod);
        if !found.is_empty() {
            let reasons: Vec<&str> = found.iter().map(|one| one.reason).collect();
            complaints.entry(reasons.join(", ")).or_default().push(meta::name(&pod).to_owned());
        }
    }
    if complaints.is_empty() {
        return Ok(());
    }
    call.warn(format!(
        "existing pods in namespace {namespace:?} violate the new PodSecurity enforce level \"{}:{}\"",
        mode.level.as_str(),
        mode.version
    ));
    for (reasons, pods) in complaints {
        let others = match pods.len() {
            1 => String::new(),
            2 => " (and 1 other pod)".to_owned(),
            count => format!(" (and {} other pods)", count - 1),
        };
        call.warn(format!("{}{others}: {reasons}", pods[0]));
    }
    Ok(())
}
