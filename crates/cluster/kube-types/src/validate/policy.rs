//! Roles, bindings, priority classes, webhooks.

use super::Errors;
use super::look::{At, unique};
use super::selectors::label_selector;
use crate::field::FieldError;
use crate::names;
use serde_json::Value;

const RBAC: &str = "rbac.authorization.k8s.io";

pub(super) fn rbac(object: &Value, kind: &str, errors: &mut Errors) {
    let root = At::root(object);
    match kind {
        "Role" | "ClusterRole" => {
            for rule in root.child("rules").items() {
                policy_rule(&rule, kind == "ClusterRole", errors);
            }
            for selector in root.down("aggregationRule.clusterRoleSelectors").items() {
                label_selector(&selector, errors);
            }
        }
        _ => binding(&root, kind == "ClusterRoleBinding", errors),
    }
}

fn policy_rule(rule: &At<'_>, in_cluster: bool, errors: &mut Errors) {
    let (verbs, urls) = (rule.child("verbs"), rule.child("nonResourceURLs"));
    if verbs.is_empty() {
        errors.push(FieldError::required(verbs.path, "verbs must contain at least one value"));
    }
    if !urls.is_empty() {
        if !in_cluster {
            errors.push(urls.invalid("namespaced rules cannot apply to non-resource URLs"));
        }
        let mixed = ["apiGroups", "resources", "resourceNames"].iter().any(|field| !rule.child(field).is_empty());
        if mixed {
            errors.push(urls.invalid("rules cannot apply to both regular resources and non-resource URLs"));
        }
        return;
    }
    if rule.child("apiGroups").is_empty() {
        errors.push(FieldError::required(
            rule.child("apiGroups").path,
            "resource rules must supply at least one api group",
        ));
    }
    if rule.child("resources").is_empty() {
        errors.push(FieldError::required(
            rule.child("resources").path,
            "resource rules must supply at least one resource",
        ));
    }
}

fn binding(root: &At<'_>, in_cluster: bool, errors: &mut Errors) {
    let role = root.child("roleRef");
    if role.child("apiGroup").text() != RBAC {
        errors.push(FieldError::not_supported(role.child("apiGroup").path, role.child("apiGroup").text(), &[RBAC]));
    }
    let kinds: &[&str] = if in_cluster { &["ClusterRole"] } else { &["Role", "ClusterRole"] };
    role.child("kind").one_of(kinds, errors);
    let name = role.child("name");
    if name.required(errors) {
        name.check(names::path_segment, errors);
    }
    for subject in root.child("subjects").items() {
        let (kind, group, name) = (subject.child("kind"), subject.child("apiGroup"), subject.child("name"));
        name.required(errors);
        match kind.text() {
            "ServiceAccount" => {
                if !name.is_empty() {
                    name.check(names::dns1123_subdomain, errors);
                }
                if !group.is_empty() {
                    errors.push(FieldError::not_supported(&group.path, group.text(), &[""]));
                }
                if in_cluster || subject.child("namespace").is_empty() {
                    subject.child("namespace").required(errors);
                }
            }
            "User" | "Group" if group.text() != RBAC => {
                errors.push(FieldError::not_supported(&group.path, group.text(), &[RBAC]))
            }
            "User" | "Group" => {}
            _ => kind.one_of(&["ServiceAccount", "User", "Group"], errors),
        }
    }
}

pub(super) fn role_ref_change(new: &Value, old: &Value, errors: &mut Errors) {
    if new["roleRef"] != old["roleRef"] {
        errors.push(FieldError::invalid("roleRef", new["roleRef"].clone(), "cannot change roleRef"));
    }
}

pub(super) fn priority_class(object: &Value, errors: &mut Errors) {
    const HIGHEST_OF_USERS: i64 = 1_000_000_000;
    let root = At::root(object);
    let (name, value) = (root.down("metadata.name"), root.child("value"));
    let is_system = name.text().starts_with("system-");
    if is_system && !matches!(name.text(), "system-node-critical" | "system-cluster-critical") {
        errors.push(FieldError::forbidden(
            name.path,
            "priority class names with 'system-' prefix are reserved for system use only",
        ));
    }
    if !is_system && value.number().is_some_and(|n| n > HIGHEST_OF_USERS) {
        let detail = format!("maximum allowed value of a user defined priority is {HIGHEST_OF_USERS}");
        errors.push(FieldError::forbidden(value.path, detail));
    }
    root.child("preemptionPolicy").one_of(&["Never", "PreemptLowerPriority"], errors);
}

pub(super) fn webhooks(object: &Value, errors: &mut Errors) {
    let mut seen = Vec::new();
    for hook in At::root(object).child("webhooks").items() {
        let name = hook.child("name");
        if name.text().split('.').count() < 3 {
            errors.push(name.invalid("should be a domain with at least three segments separated by dots"));
        }
        unique(&mut seen, &name, errors);
        let effects = hook.child("sideEffects");
        if !effects.is_set() {
            errors.push(FieldError::required(effects.path.clone(), ""));
        } else {
            effects.one_of(&["None", "NoneOnDryRun"], errors);
        }
        hook.child("failurePolicy").one_of(&["Fail", "Ignore"], errors);
        let timeout = hook.child("timeoutSeconds");
        if timeout.number().is_some_and(|n| !(1..=30).contains(&n)) {
            errors.push(timeout.invalid("the timeout value must be between 1 and 30 seconds"));
        }
        hook.child("admissionReviewVersions").required(errors);
        let client = hook.child("clientConfig");
        if client.child("url").is_set() == client.child("service").is_set() {
            errors.push(FieldError::required(client.path, "exactly one of url or service is required"));
        }
    }
}
