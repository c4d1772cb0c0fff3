//! Volumes, claims and storage classes.

use super::Errors;
use super::look::At;
use super::selectors::label_selector;
use crate::field::FieldError;
use crate::names;
use serde_json::Value;

const MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];

pub(super) fn volume(spec: At<'_>, errors: &mut Errors) {
    access_modes(&spec, errors);
    let capacity = spec.child("capacity");
    if capacity.required(errors) {
        let size = capacity.key("storage");
        if size.is_set() {
            positive(&size, errors);
        } else {
            errors.push(FieldError::not_supported(&capacity.path, capacity.value.clone(), &["storage"]));
        }
    }
    spec.child("persistentVolumeReclaimPolicy").one_of(&["Delete", "Recycle", "Retain"], errors);
    spec.child("volumeMode").one_of(&["Block", "Filesystem"], errors);
    const NO_SOURCE: [&str; 10] = [
        "accessModes",
        "capacity",
        "claimRef",
        "mountOptions",
        "nodeAffinity",
        "persistentVolumeReclaimPolicy",
        "storageClassName",
        "volumeMode",
        "volumeAttributesClassName",
        "status",
    ];
    let sources = spec.value.as_object().into_iter().flatten().filter(|(key, _)| !NO_SOURCE.contains(&key.as_str()));
    match sources.count() {
        0 => errors.push(FieldError::required(&spec.path, "must specify a volume type")),
        1 => {}
        _ => errors.push(FieldError::forbidden(&spec.path, "may not specify more than 1 volume type")),
    }
}

fn access_modes(spec: &At<'_>, errors: &mut Errors) {
    let modes = spec.child("accessModes");
    if modes.is_empty() {
        errors.push(FieldError::required(modes.path.clone(), "at least 1 access mode is required"));
    }
    for mode in modes.items() {
        mode.one_of(&MODES, errors);
    }
}

fn positive(size: &At<'_>, errors: &mut Errors) {
    if size.quantity(errors).is_some_and(crate::quantity::Quantity::is_zero) {
        errors.push(size.invalid("must be greater than zero"));
    }
}

pub(super) fn claim(spec: At<'_>, errors: &mut Errors) {
    access_modes(&spec, errors);
    let size = spec.down("resources.requests").key("storage");
    if size.is_set() {
        positive(&size, errors);
    } else {
        errors.push(FieldError::required(size.path, ""));
    }
    if spec.child("selector").is_set() {
        label_selector(&spec.child("selector"), errors);
    }
    let class = spec.child("storageClassName");
    if !class.is_empty() {
        class.check(names::dns1123_subdomain, errors);
    }
    if spec.child("volumeMode").is_set() {
        spec.child("volumeMode").one_of(&["Block", "Filesystem"], errors);
    }
}

/// A claim's spec is fixed but for its size, and for the volume that it gets.
pub(super) fn claim_change(new: &Value, old: &Value, errors: &mut Errors) {
    let fixed = |object: &Value| {
        let mut spec = object["spec"].as_object().cloned().unwrap_or_default();
        spec.remove("resources");
        spec.remove("volumeAttributesClassName");
        if old["spec"]["volumeName"].as_str().unwrap_or("").is_empty() {
            spec.remove("volumeName");
        }
        if old["spec"].get("storageClassName").is_none() {
            spec.remove("storageClassName"); // the default class may be filled in later
        }
        spec
    };
    if fixed(new) != fixed(old) {
        errors.push(FieldError::forbidden(
            "spec",
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims",
        ));
    }
}

pub(super) fn class(object: &Value, errors: &mut Errors) {
    let root = At::root(object);
    let provisioner = root.child("provisioner");
    if provisioner.required(errors) {
        let lower = provisioner.text().to_lowercase();
        errors.extend(names::qualified_name(&lower).into_iter().map(|problem| provisioner.invalid(problem)));
    }
    root.child("reclaimPolicy").one_of(&["Delete", "Retain"], errors);
    root.child("volumeBindingMode").one_of(&["Immediate", "WaitForFirstConsumer"], errors);
}
