//! metav1.LabelSelector, and whether it chooses the template's labels.

use super::Errors;
use super::look::At;
use crate::field::FieldError;
use crate::names;
use crate::selector::LabelSelector;

pub(super) fn label_selector(selector: &At<'_>, errors: &mut Errors) {
    let labels = selector.child("matchLabels");
    for (key, value) in labels.entries() {
        for problem in names::qualified_name(key) {
            errors.push(FieldError::invalid(&labels.path, key, problem));
        }
        for problem in names::label_value(value.text()) {
            errors.push(FieldError::invalid(format!("{}[{key}]", labels.path), value.text(), problem));
        }
    }
    for expression in selector.child("matchExpressions").items() {
        let (operator, values) = (expression.child("operator"), expression.child("values"));
        match operator.text() {
            "In" | "NotIn" if values.is_empty() => {
                errors.push(FieldError::required(
                    values.path.clone(),
                    "must be specified when `operator` is 'In' or 'NotIn'",
                ));
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                errors.push(FieldError::forbidden(
                    values.path.clone(),
                    "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
                ));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            _ => errors.push(operator.invalid("not a valid selector operator")),
        }
        expression.child("key").check(names::qualified_name, errors);
        for value in values.items() {
            value.check(names::label_value, errors);
        }
    }
}

/// A workload's selector: there, not empty, and choosing its own pods.
pub(super) fn workload_selector(spec: &At<'_>, errors: &mut Errors) {
    let selector = spec.child("selector");
    if !selector.is_set() {
        errors.push(FieldError::required(selector.path, ""));
        return;
    }
    let before = errors.len();
    label_selector(&selector, errors);
    if selector.child("matchLabels").is_empty() && selector.child("matchExpressions").is_empty() {
        errors.push(selector.invalid("empty selector is invalid for deployment"));
    }
    if errors.len() > before {
        return;
    }
    let labels = spec.down("template.metadata.labels");
    let chosen = LabelSelector::from_value(selector.value)
        .is_ok_and(|s| s.matches(|key| labels.value.get(key).and_then(|v| v.as_str())));
    if !chosen {
        errors.push(FieldError::invalid(
            labels.path,
            labels.value.clone(),
            "`selector` does not match template `labels`",
        ));
    }
}
