//! Pods and pod templates.

use super::container::{self, PodFacts, Role};
use super::look::{At, unique};
use super::{Errors, metadata};
use crate::field::FieldError;
use crate::names;
use serde_json::Value;

/// Where a pod spec stands; it decides which restart policies there are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    Pod,
    /// A workload that keeps its pods running.
    Lasting,
    /// A job.
    Finite,
}

/// `spec.template` of a workload that keeps its pods running.
pub(super) fn template(template: At<'_>, errors: &mut Errors) {
    template_for(template, Use::Lasting, errors);
}

pub(super) fn template_for(template: At<'_>, purpose: Use, errors: &mut Errors) {
    metadata::labels(&template.down("metadata.labels"), errors);
    metadata::annotations(&template.down("metadata.annotations"), errors);
    spec(template.child("spec"), purpose, errors);
}

pub(super) fn spec(spec: At<'_>, purpose: Use, errors: &mut Errors) {
    let volumes = volumes(&spec.child("volumes"), errors);
    let facts = PodFacts { volumes, host_network: spec.child("hostNetwork").value == true };
    containers(&spec, &facts, errors);
    restart_policy(&spec.child("restartPolicy"), purpose, errors);
    spec.child("dnsPolicy").one_of(&["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"], errors);
    metadata::labels(&spec.child("nodeSelector"), errors);
    let account = spec.child("serviceAccountName");
    if !account.is_empty() {
        account.check(names::dns1123_subdomain, errors);
    }
    let node = spec.child("nodeName");
    if !node.is_empty() {
        node.check(names::dns1123_subdomain, errors);
    }
    for field in ["hostname", "subdomain"] {
        let found = spec.child(field);
        if !found.is_empty() {
            found.check(names::dns1123_label, errors);
        }
    }
    let deadline = spec.child("activeDeadlineSeconds");
    if deadline.number().is_some_and(|n| !(1..=i64::from(i32::MAX)).contains(&n)) {
        errors.push(deadline.invalid("must be between 1 and 2147483647, inclusive"));
    }
    spec.child("terminationGracePeriodSeconds").not_negative(errors);
    tolerations(&spec.child("tolerations"), errors);
    spread(&spec.child("topologySpreadConstraints"), errors);
}

fn restart_policy(policy: &At<'_>, purpose: Use, errors: &mut Errors) {
    match purpose {
        Use::Pod => policy.one_of(&["Always", "OnFailure", "Never"], errors),
        Use::Lasting => policy.one_of(&["Always"], errors),
        Use::Finite => {
            if !matches!(policy.text(), "OnFailure" | "Never") {
                errors.push(FieldError::required(&policy.path, r#"valid values: "OnFailure", "Never""#));
            }
        }
    }
}

fn containers(spec: &At<'_>, facts: &PodFacts<'_>, errors: &mut Errors) {
    let mut names = Vec::new();
    let main = spec.child("containers");
    if main.is_empty() {
        errors.push(FieldError::required(main.path.clone(), ""));
    }
    for (list, role) in [(main, Role::Main), (spec.child("initContainers"), Role::Init)] {
        for found in list.items() {
            container::container(&found, role, facts, errors);
            let name = found.child("name");
            if !name.is_empty() {
                unique(&mut names, &name, errors);
            }
        }
    }
}

/// Gives the names of all volumes.
fn volumes<'v>(volumes: &At<'v>, errors: &mut Errors) -> Vec<&'v str> {
    let (mut seen, mut found) = (Vec::new(), Vec::new());
    for volume in volumes.items() {
        let name = volume.child("name");
        if name.required(errors) {
            name.check(names::dns1123_label, errors);
            unique(&mut seen, &name, errors);
            found.push(name.text());
        }
        let sources: Vec<&str> =
            volume.value.as_object().into_iter().flatten().map(|(k, _)| k.as_str()).filter(|k| *k != "name").collect();
        match sources.as_slice() {
            [] => errors.push(FieldError::required(&volume.path, "must specify a volume type")),
            [kind] => source(&volume.child(kind), kind, errors),
            [_, rest @ ..] => {
                for kind in rest {
                    errors.push(FieldError::forbidden(
                        volume.child(kind).path,
                        "may not specify more than 1 volume type",
                    ));
                }
            }
        }
    }
    found
}

fn source(source: &At<'_>, kind: &str, errors: &mut Errors) {
    let mode = source.child("defaultMode");
    if mode.number().is_some_and(|n| !(0..=0o777).contains(&n)) {
        errors.push(mode.invalid("must be a number between 0 and 0777 (octal), both inclusive"));
    }
    match kind {
        "hostPath" => {
            let path = source.child("path");
            if path.required(errors) && path.text().split('/').any(|part| part == "..") {
                errors.push(path.invalid("must not contain '..'"));
            }
        }
        "secret" => {
            source.child("secretName").required(errors);
        }
        "configMap" => {
            source.child("name").required(errors);
        }
        "persistentVolumeClaim" => {
            source.child("claimName").required(errors);
        }
        "emptyDir" => {
            let limit = source.child("sizeLimit");
            if limit.is_set() {
                limit.quantity(errors);
            }
        }
        _ => {}
    }
    if matches!(kind, "secret" | "configMap") {
        for item in source.child("items").items() {
            item.child("key").required(errors);
            let path = item.child("path");
            if path.required(errors)
                && (path.text().starts_with('/') || path.text().split('/').any(|part| part == ".."))
            {
                errors.push(path.invalid("must be a relative path"));
            }
        }
    }
}

fn tolerations(tolerations: &At<'_>, errors: &mut Errors) {
    for toleration in tolerations.items() {
        let (key, operator, effect) =
            (toleration.child("key"), toleration.child("operator"), toleration.child("effect"));
        if !key.is_empty() {
            key.check(names::qualified_name, errors);
        } else if operator.text() != "Exists" {
            errors.push(
                operator.invalid(
                    "operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
                ),
            );
        }
        match operator.text() {
            "" | "Equal" | "Lt" | "Gt" => {}
            "Exists" if !toleration.child("value").is_empty() => {
                errors.push(operator.invalid("value must be empty when `operator` is 'Exists'"));
            }
            "Exists" => {}
            _ => operator.one_of(&["Equal", "Exists"], errors),
        }
        if !effect.is_empty() {
            effect.one_of(&["NoSchedule", "PreferNoSchedule", "NoExecute"], errors);
        }
        if toleration.child("tolerationSeconds").is_set() && effect.text() != "NoExecute" {
            errors.push(effect.invalid("effect must be 'NoExecute' when `tolerationSeconds` is set"));
        }
    }
}

fn spread(constraints: &At<'_>, errors: &mut Errors) {
    for constraint in constraints.items() {
        let skew = constraint.child("maxSkew");
        if skew.number().is_none_or(|n| n <= 0) {
            errors.push(skew.invalid("must be greater than zero"));
        }
        constraint.child("topologyKey").required(errors);
        constraint.child("whenUnsatisfiable").one_of(&["DoNotSchedule", "ScheduleAnyway"], errors);
    }
}

/// Of a pod's spec only images, the deadline, more tolerations and a shorter grace period may change.
pub(super) fn change(new: &Value, old: &Value, errors: &mut Errors) {
    // A pod that was left without a spec has no fields to keep apart.
    let (Some(mut probe), Some(wanted)) = (old["spec"].as_object().cloned(), new["spec"].as_object()) else {
        return;
    };
    for list in ["containers", "initContainers"] {
        let targets = probe.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten();
        let sources = wanted.get(list).and_then(Value::as_array).into_iter().flatten();
        for (target, source) in targets.zip(sources) {
            if let (Some(target), Some(image)) = (target.as_object_mut(), source.get("image")) {
                target.insert("image".to_owned(), image.clone());
            }
        }
    }
    let mut adopt = |field: &str| match wanted.get(field) {
        Some(value) => probe.insert(field.to_owned(), value.clone()),
        None => probe.remove(field),
    };
    for field in ["activeDeadlineSeconds", "tolerations", "terminationGracePeriodSeconds", "schedulingGates"] {
        adopt(field);
    }
    // A pod that nobody placed yet may be placed.
    if old["spec"]["nodeName"].as_str().unwrap_or("").is_empty() {
        adopt("nodeName");
    }
    if probe != *wanted {
        errors.push(FieldError::forbidden(
            "spec",
            "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)",
        ));
    }
    let had = old["spec"]["tolerations"].as_array().into_iter().flatten();
    let has: Vec<&Value> = new["spec"]["tolerations"].as_array().into_iter().flatten().collect();
    if had.into_iter().any(|toleration| !has.contains(&toleration)) {
        errors.push(FieldError::forbidden(
            "spec.tolerations",
            "existing toleration can not be modified except its tolerationSeconds",
        ));
    }
}
