//! MutatingAdmissionPolicy: CEL that changes what is to be stored, by an apply configuration or a JSON patch.
//!
//! Called by [`super::admit`] before the webhooks, and once more after them for policies that want to be reinvoked.

use std::sync::Arc;

use cel::{Program, Value as Cel};
use kube_types::{FieldError, managed, meta, patch as patches};
use serde_json::Value;

use super::admit;
use super::attempt::{Attempt, Seen};
use super::expressions::{self, Inputs, Scope};
use super::policies::{self, Base};
use crate::call::Call;
use crate::error::ApiResult;
use crate::object::text;

/// A policy with its expressions compiled.
pub(crate) struct Policy {
    base: Base,
    mutations: Vec<Mutation>,
}

struct Mutation {
    is_patch: bool,
    expression: String,
    program: Program,
}

fn read(policy: &Value, errors: &mut Vec<FieldError>) -> Policy {
    let base = Base::read(policy, errors);
    let mut mutations = Vec::new();
    for (at, mutation) in base.spec["mutations"].as_array().into_iter().flatten().enumerate() {
        let path = format!("spec.mutations[{at}]");
        let (key, is_patch) = match text(mutation, "/patchType") {
            "ApplyConfiguration" => ("applyConfiguration", false),
            "JSONPatch" => ("jsonPatch", true),
            "" => {
                errors.push(FieldError::required(format!("{path}.patchType"), ""));
                continue;
            }
            other => {
                errors.push(FieldError::not_supported(format!("{path}.patchType"), other, &["ApplyConfiguration", "JSONPatch"]));
                continue;
            }
        };
        let source = &mutation[key]["expression"];
        let path = format!("{path}.{key}.expression");
        if let Some(program) = expressions::any_program(source, &base.environment, &path, errors) {
            mutations.push(Mutation { is_patch, expression: source.as_str().unwrap_or_default().to_owned(), program });
        }
    }
    Policy { base, mutations }
}

/// What is wrong with a policy.
pub(crate) fn check(policy: &Value, errors: &mut Vec<FieldError>) {
    if policy["spec"]["mutations"].as_array().is_none_or(Vec::is_empty) {
        errors.push(FieldError::required("spec.mutations", "mutations must contain at least one item"));
    }
    if !policy["spec"]["matchConstraints"].is_object() {
        errors.push(FieldError::required("spec.matchConstraints", ""));
    }
    read(policy, errors);
}

/// The stored policies that have bindings.
pub(crate) fn all(call: &Call) -> Vec<(Arc<Policy>, Vec<Value>)> {
    let store = &call.server.store;
    let policies = call.server.hooks.mutating.all(store, "mutatingadmissionpolicies", |policy| read(policy, &mut Vec::new()));
    if policies.is_empty() {
        return Vec::new();
    }
    let bindings = admit::stored(store, "mutatingadmissionpolicybindings");
    let of = |policy: &Policy| -> Vec<Value> {
        bindings.iter().filter(|binding| binding["spec"]["policyName"] == policy.base.name.as_str()).cloned().collect()
    };
    policies.into_iter().map(|policy| (Arc::clone(&policy), of(&policy))).filter(|(_, bound)| !bound.is_empty()).collect()
}

/// Runs the policies over the object; true if it changed. `again`: only those that want to be reinvoked.
pub(crate) async fn run(
    attempt: &Attempt<'_>,
    policies: &[(Arc<Policy>, Vec<Value>)],
    object: &mut Value,
    again: bool,
) -> ApiResult<bool> {
    let before = object.clone();
    for (policy, bindings) in policies {
        if again && policy.base.spec["reinvocationPolicy"] != "IfNeeded" {
            continue;
        }
        for binding in bindings {
            let Some(seen) = policy.base.applies(attempt, Some(object)) else { continue };
            if policies::matches(&binding["spec"]["matchResources"], attempt, Some(object)).is_none() {
                continue;
            }
            let changed = policies::params(&policy.base, binding, attempt).and_then(|all| {
                all.iter().try_fold(object.clone(), |object, params| mutated(policy, attempt, &seen, object, params.as_ref()))
            });
            match changed {
                Ok(changed) => *object = changed,
                Err(_) if policy.base.ignores_errors() => {}
                Err(words) => {
                    let words = format!(
                        "policy '{}' with binding '{}' denied request: {words}",
                        policy.base.name,
                        meta::name(binding)
                    );
                    return Err(policies::denied(attempt, &words, ""));
                }
            }
        }
    }
    Ok(*object != before)
}

fn mutated(policy: &Policy, attempt: &Attempt<'_>, seen: &Seen, object: Value, params: Option<&Value>) -> Result<Value, String> {
    let mut object = object;
    for mutation in &policy.mutations {
        let inputs = Inputs::new(attempt, seen, Some(&object), params);
        let mut scope = Scope::new(attempt, seen, &inputs);
        if !scope.conditions(&policy.base.conditions)? {
            return Ok(object);
        }
        scope.define(&policy.base.variables);
        let made = scope.eval(&mutation.program).map_err(|error| format!("expression '{}' resulted in error: {error}", mutation.expression))?;
        let made = if let Cel::Optional(None) = made { Value::Null } else { made.to_json().ok_or("the expression yields no object")? };
        object = if mutation.is_patch {
            patches::json(&object, &made).map_err(|error| format!("JSON Patch: {error}"))?
        } else {
            if !made.is_object() {
                return Err("applyConfiguration must yield an object".to_owned());
            }
            let resource = &attempt.target.resource;
            managed::merge(resource, &object, &made).map_err(|error| error.to_string())?
        };
    }
    Ok(object)
}
