//! metadata: names, labels, annotations, owners, finalizers.

use super::Errors;
use super::look::At;
use crate::field::FieldError;
use crate::names;
use crate::registry::Resource;
use serde_json::Value;

const MAX_ANNOTATION_BYTES: usize = 256 * 1024;

/// The rule for the kind's names.
fn name_rule(resource: &Resource) -> fn(&str) -> Vec<String> {
    match resource.group_kind() {
        ("", "Namespace") => names::dns1123_label,
        ("", "Service") => names::dns1035_label,
        ("rbac.authorization.k8s.io", _) | ("flowcontrol.apiserver.k8s.io", _) => names::path_segment,
        _ => names::dns1123_subdomain,
    }
}

pub(super) fn check(resource: &Resource, object: &Value, errors: &mut Errors) {
    let metadata = At::root(object).child("metadata");
    let rule = name_rule(resource);
    let name = metadata.child("name");
    let base = metadata.child("generateName");
    if !base.is_empty() {
        // The base may end in a dash; what follows it completes the name.
        let whole = format!("{}x", base.text());
        errors.extend(rule(&whole).into_iter().map(|problem| base.invalid(problem)));
    }
    if name.is_empty() {
        errors.push(FieldError::required(name.path, "name or generateName is required"));
    } else {
        name.check(rule, errors);
    }
    namespace(resource, &metadata, errors);
    parts(resource, &metadata, errors);
}

fn namespace(resource: &Resource, metadata: &At<'_>, errors: &mut Errors) {
    let namespace = metadata.child("namespace");
    match (resource.namespaced, namespace.is_empty()) {
        (true, true) => errors.push(FieldError::required(namespace.path, "")),
        (true, false) => namespace.check(names::dns1123_label, errors),
        (false, false) => errors.push(FieldError::forbidden(namespace.path, "not allowed on this type")),
        (false, true) => {}
    }
}

fn parts(resource: &Resource, metadata: &At<'_>, errors: &mut Errors) {
    // Kubernetes asks this of its own kinds only.
    let qualified = resource.custom().is_none() && resource.group != "apiextensions.k8s.io";
    labels(&metadata.child("labels"), errors);
    annotations(&metadata.child("annotations"), errors);
    owners(&metadata.child("ownerReferences"), errors);
    for finalizer in metadata.child("finalizers").items() {
        finalizer.check(names::qualified_name, errors);
        if qualified
            && !finalizer.text().contains('/')
            && !matches!(finalizer.text(), "orphan" | "foregroundDeletion" | "kubernetes")
        {
            errors.push(finalizer.invalid("name is neither a standard finalizer name nor is it fully qualified"));
        }
    }
}

/// Keys and values; also of a pod template's labels.
pub(super) fn labels(labels: &At<'_>, errors: &mut Errors) {
    for (key, value) in labels.entries() {
        for problem in names::qualified_name(key) {
            errors.push(FieldError::invalid(&labels.path, key, problem));
        }
        for problem in names::label_value(value.text()) {
            errors.push(FieldError::invalid(&labels.path, value.text(), problem));
        }
    }
}

pub(super) fn annotations(annotations: &At<'_>, errors: &mut Errors) {
    let mut total = 0;
    for (key, value) in annotations.entries() {
        for problem in names::qualified_name(&key.to_lowercase()) {
            errors.push(FieldError::invalid(&annotations.path, key, problem));
        }
        total += key.len() + value.text().len();
    }
    if total > MAX_ANNOTATION_BYTES {
        errors.push(FieldError::too_long(&annotations.path, MAX_ANNOTATION_BYTES));
    }
}

fn owners(owners: &At<'_>, errors: &mut Errors) {
    let mut controller: Option<String> = None;
    for owner in owners.items() {
        let field = |name: &str| owner.child(name);
        if field("apiVersion").is_empty() {
            errors.push(field("apiVersion").invalid("version must not be empty"));
        }
        for name in ["kind", "name", "uid"] {
            if field(name).is_empty() {
                errors.push(FieldError::invalid(field(name).path, "", "must not be empty"));
            }
        }
        if field("controller").value == true {
            let named = format!("{}/{}", field("kind").text(), field("name").text());
            match &controller {
                Some(first) => errors.push(FieldError::invalid(
                    &owners.path,
                    owners.value.clone(),
                    format!("Only one reference can have Controller set to true. Found \"true\" in references for {first} and {named}"),
                )),
                None => controller = Some(named),
            }
        }
    }
}

pub(super) fn check_update(resource: &Resource, new: &Value, old: &Value, errors: &mut Errors) {
    let (metadata, before) = (At::root(new).child("metadata"), At::root(old).child("metadata"));
    for field in ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp"] {
        let (now, then) = (metadata.child(field), before.child(field));
        let both_empty = now.is_empty() && then.is_empty();
        if now.value != then.value && !both_empty && (resource.namespaced || field != "namespace") {
            errors.push(now.invalid("field is immutable"));
        }
    }
    if before.child("deletionTimestamp").is_set() {
        no_new_finalizers(&metadata, &before, errors);
    }
    parts(resource, &metadata, errors);
}

fn no_new_finalizers(new: &At<'_>, old: &At<'_>, errors: &mut Errors) {
    let had: Vec<&str> = old.child("finalizers").items().map(|f| f.text()).collect();
    let finalizers = new.child("finalizers");
    let added: Vec<&str> = finalizers.items().map(|f| f.text()).filter(|f| !had.contains(f)).collect();
    if !added.is_empty() {
        let detail =
            format!("no new finalizers can be added if the object is being deleted, found new finalizers {added:?}");
        errors.push(FieldError::forbidden(finalizers.path, detail));
    }
}
