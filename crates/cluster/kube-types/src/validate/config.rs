//! ConfigMaps, secrets, leases, nodes, quotas.

use super::Errors;
use super::look::{At, immutable};
use crate::field::FieldError;
use crate::names;
use serde_json::Value;

/// Kubernetes' limit for a ConfigMap or Secret.
const MAX_BYTES: usize = 1024 * 1024;

pub(super) fn config_map(object: &Value, errors: &mut Errors) {
    let root = At::root(object);
    let (data, binary) = (root.child("data"), root.child("binaryData"));
    let mut total = 0;
    for (key, value) in data.entries() {
        keys(&value, key, errors);
        if binary.value.get(key).is_some() {
            errors.push(FieldError::invalid(&value.path, key, "duplicate of key present in binaryData"));
        }
        total += value.text().len();
    }
    for (key, value) in binary.entries() {
        keys(&value, key, errors);
        total += decoded_len(value.text());
    }
    if total > MAX_BYTES {
        errors.push(FieldError::too_long("", MAX_BYTES));
    }
}

fn keys(at: &At<'_>, key: &str, errors: &mut Errors) {
    errors.extend(names::config_key(key).into_iter().map(|problem| FieldError::invalid(&at.path, key, problem)));
}

fn decoded_len(base64: &str) -> usize {
    base64.trim_end_matches('=').len() * 3 / 4
}

pub(super) fn secret(object: &Value, errors: &mut Errors) {
    let data = At::root(object).child("data");
    let mut total = 0;
    for (key, value) in data.entries() {
        keys(&value, key, errors);
        total += decoded_len(value.text());
    }
    if total > MAX_BYTES {
        errors.push(FieldError::too_long(&data.path, MAX_BYTES));
    }
    let needs: &[&str] = match object["type"].as_str().unwrap_or("") {
        "kubernetes.io/tls" => &["tls.crt", "tls.key"],
        "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
        "kubernetes.io/dockercfg" => &[".dockercfg"],
        "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
        _ => &[],
    };
    for key in needs {
        if data.value.get(key).is_none() {
            errors.push(FieldError::required(data.key(key).path, ""));
        }
    }
}

pub(super) fn secret_change(new: &Value, old: &Value, errors: &mut Errors) {
    immutable(new, old, "type", errors);
    immutable_data(new, old, &["data"], errors);
}

/// What was once marked immutable stays so, and its data with it.
pub(super) fn immutable_data(new: &Value, old: &Value, fields: &[&str], errors: &mut Errors) {
    if old["immutable"] != true {
        return;
    }
    if new["immutable"] != true {
        errors.push(FieldError::forbidden("immutable", "field is immutable when `immutable` is set"));
    }
    for field in fields {
        if new.get(field) != old.get(field) {
            errors.push(FieldError::forbidden(*field, "field is immutable when `immutable` is set"));
        }
    }
}

pub(super) fn lease(spec: At<'_>, errors: &mut Errors) {
    let duration = spec.child("leaseDurationSeconds");
    if duration.number().is_some_and(|n| n <= 0) {
        errors.push(duration.invalid("must be greater than 0"));
    }
    spec.child("leaseTransitions").not_negative(errors);
}

pub(super) fn node(spec: At<'_>, errors: &mut Errors) {
    let mut seen = Vec::new();
    for taint in spec.child("taints").items() {
        let (key, value, effect) = (taint.child("key"), taint.child("value"), taint.child("effect"));
        key.check(names::qualified_name, errors);
        value.check(names::label_value, errors);
        effect.one_of(&["NoSchedule", "PreferNoSchedule", "NoExecute"], errors);
        let identity = (key.text(), effect.text());
        if seen.contains(&identity) {
            errors.push(FieldError::duplicate(&taint.path, taint.value.clone()));
        }
        seen.push(identity);
    }
}

pub(super) fn quota(spec: At<'_>, errors: &mut Errors) {
    for (key, amount) in spec.child("hard").entries() {
        errors.extend(
            names::qualified_name(key).into_iter().map(|problem| FieldError::invalid(&amount.path, key, problem)),
        );
        amount.quantity(errors);
    }
}
