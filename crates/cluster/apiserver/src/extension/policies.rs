//! ValidatingAdmissionPolicy: CEL that says what may be stored, bound with parameters by ValidatingAdmissionPolicyBindings.
//!
//! Called by [`super::admit`] with the policies that are stored. A policy without a binding does nothing. Within one attempt a
//! policy's expressions share one budget.

use std::sync::Arc;

use cel::{Environment, EvalError, Field, ObjectType, Program, Type, Value as Cel};
use kube_types::selector::LabelSelector;
use kube_types::status::Cause;
use kube_types::{FieldError, meta, status};
use serde_json::{Value, json};

use super::admit;
use super::attempt::{Attempt, Seen};
use super::expressions::{self, Inputs, Named, Scope};
use super::hooks;
use crate::call::Call;
use crate::error::{ApiError, ApiResult};
use crate::object::text;
use crate::{keys, object};

const AUDIT_KEY: &str = "validation.policy.admission.k8s.io/validation_failure";

/// A policy with its expressions compiled.
pub(crate) struct Policy {
    pub(crate) base: Base,
    validations: Vec<Validation>,
    annotations: Vec<Named>,
}

/// What validating and mutating policies share.
pub(crate) struct Base {
    pub(crate) name: String,
    pub(crate) spec: Value,
    pub(crate) environment: Environment,
    pub(crate) conditions: Vec<Named>,
    pub(crate) variables: Vec<Named>,
}

struct Validation {
    expression: String,
    program: Program,
    message: String,
    message_program: Option<Program>,
    reason: String,
}

impl Base {
    pub(crate) fn read(policy: &Value, errors: &mut Vec<FieldError>) -> Self {
        let spec = &policy["spec"];
        let mut environment = expressions::environment(spec["paramKind"].is_object());
        let conditions = expressions::named(&spec["matchConditions"], &environment, "spec.matchConditions", errors);
        let mut fields = std::collections::BTreeMap::new();
        let mut variables = Vec::new();
        for (at, variable) in spec["variables"].as_array().into_iter().flatten().enumerate() {
            let name = text(variable, "/name").to_owned();
            let kind = ObjectType { name: "kubernetes.variables".to_owned(), fields: std::mem::take(&mut fields), open: false };
            fields = kind.fields.clone();
            environment.declare("variables", Type::Object(Arc::new(kind)));
            let path = format!("spec.variables[{at}].expression");
            if let Some(program) = expressions::any_program(&variable["expression"], &environment, &path, errors) {
                fields.insert(name.clone(), Field { json: name.clone(), kind: program.result.clone() });
                variables.push(Named { name, program });
            }
        }
        let kind = ObjectType { name: "kubernetes.variables".to_owned(), fields, open: false };
        environment.declare("variables", Type::Object(Arc::new(kind)));
        Self { name: meta::name(policy).to_owned(), spec: spec.clone(), environment, conditions, variables }
    }

    /// How the policy sees the attempt, if it is about it.
    pub(crate) fn applies(&self, attempt: &Attempt<'_>, new: Option<&Value>) -> Option<Seen> {
        matches(&self.spec["matchConstraints"], attempt, new)
    }

    pub(crate) fn ignores_errors(&self) -> bool {
        self.spec["failurePolicy"] == "Ignore"
    }
}

/// A `matchConstraints` or `matchResources`; an absent one matches everything.
pub(crate) fn matches(constraints: &Value, attempt: &Attempt<'_>, new: Option<&Value>) -> Option<Seen> {
    let own = Seen { resource: attempt.target.resource.clone() };
    if !constraints.is_object() {
        return Some(own);
    }
    let equivalent = constraints["matchPolicy"] != "Exact";
    let list = |key: &str| constraints[key].as_array().map_or(&[][..], Vec::as_slice);
    if attempt.seen_by(list("excludeResourceRules"), equivalent).is_some() {
        return None;
    }
    let seen = match list("resourceRules") {
        [] => own,
        rules => attempt.seen_by(rules, equivalent)?,
    };
    attempt.selected(constraints, new).then_some(seen)
}

fn read(policy: &Value, errors: &mut Vec<FieldError>) -> Policy {
    let base = Base::read(policy, errors);
    let mut validations = Vec::new();
    for (at, validation) in base.spec["validations"].as_array().into_iter().flatten().enumerate() {
        let path = format!("spec.validations[{at}]");
        let program = expressions::bool_program(&validation["expression"], &base.environment, &format!("{path}.expression"), errors);
        let message_program = if validation["messageExpression"].is_string() {
            let program = expressions::any_program(&validation["messageExpression"], &base.environment, &format!("{path}.messageExpression"), errors);
            if program.as_ref().is_some_and(|program| !program.result.is_dyn() && !matches!(program.result, Type::String(_))) {
                errors.push(FieldError::invalid(format!("{path}.messageExpression"), validation["messageExpression"].clone(), "must evaluate to string"));
            }
            program
        } else {
            None
        };
        let Some(program) = program else { continue };
        validations.push(Validation {
            expression: text(validation, "/expression").to_owned(),
            program,
            message: text(validation, "/message").to_owned(),
            message_program,
            reason: text(validation, "/reason").to_owned(),
        });
    }
    let mut annotations = Vec::new();
    for (at, annotation) in base.spec["auditAnnotations"].as_array().into_iter().flatten().enumerate() {
        let path = format!("spec.auditAnnotations[{at}].valueExpression");
        let program = expressions::any_program(&annotation["valueExpression"], &base.environment, &path, errors);
        annotations.extend(program.map(|program| Named { name: text(annotation, "/key").to_owned(), program }));
    }
    Policy { base, validations, annotations }
}

/// What is wrong with a policy.
pub(crate) fn check(policy: &Value, errors: &mut Vec<FieldError>) {
    let spec = &policy["spec"];
    let empty = |key: &str| spec[key].as_array().is_none_or(Vec::is_empty);
    if empty("validations") && empty("auditAnnotations") {
        errors.push(FieldError::required("spec.validations", "validations or auditAnnotations must contain at least one item"));
    }
    if !spec["matchConstraints"].is_object() {
        errors.push(FieldError::required("spec.matchConstraints", ""));
    } else if spec["matchConstraints"]["resourceRules"].as_array().is_none_or(Vec::is_empty) {
        errors.push(FieldError::required("spec.matchConstraints.resourceRules", ""));
    }
    read(policy, errors);
}

/// The stored policies that have bindings.
pub(crate) fn all(call: &Call) -> Vec<(Arc<Policy>, Vec<Value>)> {
    let store = &call.server.store;
    let policies = call.server.hooks.policies.all(store, "validatingadmissionpolicies", |policy| read(policy, &mut Vec::new()));
    if policies.is_empty() {
        return Vec::new();
    }
    let bindings = admit::stored(store, "validatingadmissionpolicybindings");
    let of = |policy: &Policy| -> Vec<Value> {
        bindings.iter().filter(|binding| binding["spec"]["policyName"] == policy.base.name.as_str()).cloned().collect()
    };
    policies.into_iter().map(|policy| (Arc::clone(&policy), of(&policy))).filter(|(_, bound)| !bound.is_empty()).collect()
}

pub(crate) fn judge(attempt: &Attempt<'_>, policies: &[(Arc<Policy>, Vec<Value>)], new: Option<&Value>) -> ApiResult<()> {
    for (policy, bindings) in policies {
        let Some(seen) = policy.base.applies(attempt, new) else { continue };
        for binding in bindings {
            if matches(&binding["spec"]["matchResources"], attempt, new).is_none() {
                continue;
            }
            let failures = match params(&policy.base, binding, attempt) {
                Ok(all) => {
                    let run = |params: &Option<Value>| run(policy, attempt, &seen, new, params.as_ref());
                    all.iter().flat_map(run).collect()
                }
                Err(_) if policy.base.ignores_errors() => Vec::new(),
                Err(words) => vec![Failure { words, reason: String::new() }],
            };
            enforce(attempt, policy, binding, failures)?;
        }
    }
    Ok(())
}

struct Failure {
    words: String,
    reason: String,
}

/// The parameter objects of a binding; one `None` if there are none to be had and none are needed.
pub(crate) fn params(base: &Base, binding: &Value, attempt: &Attempt<'_>) -> Result<Vec<Option<Value>>, String> {
    let kind = &base.spec["paramKind"];
    let Some(reference) = binding["spec"].get("paramRef").filter(|reference| reference.is_object()) else {
        return Ok(vec![None]);
    };
    if !kind.is_object() {
        return Ok(vec![None]);
    }
    let server = &attempt.call.server;
    let (version, name) = (text(kind, "/apiVersion"), text(kind, "/kind"));
    let Some(resource) = server.served.of_kind(version, name) else {
        return Err(format!("failed to configure binding: no params kind found: {version}, Kind={name}"));
    };
    let namespace = match text(reference, "/namespace") {
        "" if resource.namespaced => attempt.namespace(),
        given => given,
    };
    if resource.namespaced && namespace.is_empty() {
        return Err("failed to configure binding: cannot use namespaced paramRef in policy binding that matches cluster-scoped resources".to_owned());
    }
    let found: Vec<Value> = match text(reference, "/name") {
        "" => {
            let prefix = keys::prefix(&resource, namespace);
            let selector = LabelSelector::from_value(&reference["selector"]).unwrap_or_default();
            let items = server.store.range(prefix.as_bytes(), None, 0, None).map(|range| range.items).unwrap_or_default();
            items.iter().map(|item| object::decode(&item.value)).filter(|object| selector.matches_object(object)).collect()
        }
        name => {
            let key = keys::object(&resource, namespace, name);
            server.store.get(&key).map(|found| object::decode(&found.value)).into_iter().collect()
        }
    };
    match (found.is_empty(), reference["parameterNotFoundAction"] == "Deny") {
        (false, _) => Ok(found.into_iter().map(Some).collect()),
        (true, true) => Err("failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction".to_owned()),
        (true, false) => Ok(Vec::new()),
    }
}

fn run(policy: &Policy, attempt: &Attempt<'_>, seen: &Seen, new: Option<&Value>, params: Option<&Value>) -> Vec<Failure> {
    let inputs = Inputs::new(attempt, seen, new, params);
    let mut scope = Scope::new(attempt, seen, &inputs);
    let ignore = policy.base.ignores_errors();
    let failure = |words: String, reason: &str| Failure { words, reason: reason.to_owned() };
    match scope.conditions(&policy.base.conditions) {
        Ok(true) => {}
        Ok(false) => return Vec::new(),
        Err(_) if ignore => return Vec::new(),
        Err(words) => return vec![failure(words, "")],
    }
    scope.define(&policy.base.variables);
    let mut failures = Vec::new();
    for validation in &policy.validations {
        match scope.eval(&validation.program) {
            Ok(Cel::Bool(true)) => {}
            Ok(_) => {
                let words = message(&mut scope, validation);
                failures.push(failure(words, &validation.reason));
            }
            Err(EvalError::Budget) => {
                failures.push(failure("validation failed due to running out of cost budget, no further validation rules will be run".to_owned(), ""));
                break;
            }
            Err(_) if ignore => {}
            Err(error) => failures.push(failure(format!("expression '{}' resulted in error: {error}", validation.expression), "")),
        }
    }
    for annotation in &policy.annotations {
        if let Ok(Cel::String(value)) = scope.eval(&annotation.program) {
            attempt.call.annotate(format!("{}/{}", policy.base.name, annotation.name), value.trim());
        }
    }
    failures
}

fn message<'v>(scope: &mut Scope<'v>, validation: &'v Validation) -> String {
    if let Some(program) = &validation.message_program
        && let Ok(Cel::String(words)) = scope.eval(program)
        && !words.trim().is_empty()
    {
        return words.trim().to_owned();
    }
    match validation.message.trim() {
        "" => format!("failed expression: {}", validation.expression.trim()),
        words => words.to_owned(),
    }
}

fn enforce(attempt: &Attempt<'_>, policy: &Policy, binding: &Value, failures: Vec<Failure>) -> ApiResult<()> {
    let actions = binding["spec"]["validationActions"].as_array().map_or(&[][..], Vec::as_slice);
    let has = |action: &str| actions.iter().any(|own| own == action);
    let (name, bound) = (&policy.base.name, meta::name(binding));
    for failure in failures {
        if has("Warn") {
            attempt.call.warn(format!(
                "Validation failed for ValidatingAdmissionPolicy '{name}' with binding '{bound}': {}",
                failure.words
            ));
        }
        if has("Audit") {
            let entry = json!([{"message": failure.words, "policy": name, "binding": bound, "validationActions": actions}]);
            attempt.call.annotate(AUDIT_KEY, &entry.to_string());
        }
        if has("Deny") || actions.is_empty() {
            let words = format!("ValidatingAdmissionPolicy '{name}' with binding '{bound}' denied request: {}", failure.words);
            return Err(denied(attempt, &words, &failure.reason));
        }
    }
    Ok(())
}

/// The refusal of a policy: Forbidden's words, with the reason that the validation gives (Invalid if none).
pub(crate) fn denied(attempt: &Attempt<'_>, words: &str, reason: &str) -> ApiError {
    let mut refusal = hooks::with_reason(status::forbidden(&attempt.target.resource, &attempt.name, words), reason);
    if let Some(details) = &mut refusal.details {
        details.causes.push(Cause { reason: String::new(), message: words.to_owned(), field: String::new() });
    }
    refusal.into()
}
