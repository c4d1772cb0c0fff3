//! CEL over an attempt: its variables, `authorizer`, match conditions and the `variables.*` of policies.

use std::collections::BTreeMap;
use std::sync::Arc;

use cel::{Budget, Environment, EvalError, Host, Program, Type, Value as Cel};
use kube_types::FieldError;
use serde_json::Value;

use super::attempt::{Attempt, Seen};
use crate::authz::{self, Attributes};
use crate::call::Call;
use crate::identity::Identity;

/// The most steps of all expressions of one policy or webhook over one attempt, and of one evaluation.
const BUDGET: u64 = 10_000_000;
const CALL_LIMIT: u64 = 1_000_000;

/// The variables that policies and match conditions have.
pub(crate) fn environment(params: bool) -> Environment {
    let group_kind = |name: &str, last: &'static str| {
        Type::object(name, [("group", Type::string()), ("version", Type::string()), (last, Type::string())])
    };
    let user = Type::object("UserInfo", [
        ("username", Type::string()),
        ("uid", Type::string()),
        ("groups", Type::list(Type::string())),
        ("extra", Type::map(Type::string(), Type::list(Type::string()))),
    ]);
    let request = Type::object("AdmissionRequest", [
        ("kind", group_kind("GroupVersionKind", "kind")),
        ("resource", group_kind("GroupVersionResource", "resource")),
        ("subResource", Type::string()),
        ("requestKind", group_kind("GroupVersionKind", "kind")),
        ("requestResource", group_kind("GroupVersionResource", "resource")),
        ("requestSubResource", Type::string()),
        ("name", Type::string()),
        ("namespace", Type::string()),
        ("operation", Type::string()),
        ("userInfo", user),
        ("dryRun", Type::Bool),
        ("options", Type::Dyn),
    ]);
    let mut all = Environment::default()
        .with("object", Type::Dyn)
        .with("oldObject", Type::Dyn)
        .with("request", request)
        .with("namespaceObject", Type::Dyn)
        .with("authorizer", Type::Opaque("authorizer"))
        .with("authorizer.requestResource", Type::Opaque("authorizer"));
    if params {
        all.declare("params", Type::Dyn);
    }
    all
}

/// A named expression that is run when first wanted.
#[derive(Debug)]
pub(crate) struct Named {
    pub(crate) name: String,
    pub(crate) program: Program,
}

/// Compiles `[{name, expression}]`; what cannot be compiled is reported and left out.
pub(crate) fn named(list: &Value, environment: &Environment, path: &str, errors: &mut Vec<FieldError>) -> Vec<Named> {
    let mut all = Vec::new();
    for (at, item) in list.as_array().into_iter().flatten().enumerate() {
        let name = item["name"].as_str().unwrap_or_default().to_owned();
        let path = format!("{path}[{at}].expression");
        if let Some(program) = bool_program(&item["expression"], environment, &path, errors) {
            all.push(Named { name, program });
        }
    }
    all
}

/// Compiles an expression that has to be true or false.
pub(crate) fn bool_program(
    text: &Value,
    environment: &Environment,
    path: &str,
    errors: &mut Vec<FieldError>,
) -> Option<Program> {
    let program = any_program(text, environment, path, errors)?;
    if !program.result.is_dyn() && !matches!(program.result, Type::Bool) {
        errors.push(FieldError::invalid(path, text.clone(), "must evaluate to bool"));
        return None;
    }
    Some(program)
}

pub(crate) fn any_program(
    text: &Value,
    environment: &Environment,
    path: &str,
    errors: &mut Vec<FieldError>,
) -> Option<Program> {
    let source = text.as_str().unwrap_or_default();
    if source.trim().is_empty() {
        errors.push(FieldError::required(path, ""));
        return None;
    }
    match Program::compile(source, environment) {
        Ok(program) => Some(program),
        Err(error) => {
            errors.push(FieldError::invalid(path, source, error.to_string()));
            None
        }
    }
}

/// What expressions are run over.
pub(crate) struct Scope<'v> {
    variables: BTreeMap<String, Cel<'v>>,
    budget: Budget,
    asker: Asker<'v>,
}

/// The JSON that a scope borrows from.
pub(crate) struct Inputs {
    request: Value,
    object: Value,
    old: Value,
    namespace: Value,
    params: Value,
}

impl Inputs {
    pub(crate) fn new(attempt: &Attempt<'_>, seen: &Seen, new: Option<&Value>, params: Option<&Value>) -> Self {
        Self {
            request: attempt.request(seen),
            object: new.cloned().unwrap_or_default(),
            old: attempt.old.clone().unwrap_or_default(),
            namespace: attempt.namespace_object().cloned().unwrap_or_default(),
            params: params.cloned().unwrap_or_default(),
        }
    }
}

impl<'v> Scope<'v> {
    pub(crate) fn new(attempt: &Attempt<'v>, seen: &Seen, inputs: &'v Inputs) -> Self {
        let request_kind = Type::Dyn;
        let mut variables: BTreeMap<String, Cel<'v>> = [
            ("request", &inputs.request),
            ("object", &inputs.object),
            ("oldObject", &inputs.old),
            ("namespaceObject", &inputs.namespace),
            ("params", &inputs.params),
        ]
        .into_iter()
        .map(|(name, json)| (name.to_owned(), Cel::of_json(json, &request_kind)))
        .collect();
        variables.insert("authorizer".to_owned(), Cel::Authorizer(Arc::new(Vec::new())));
        let own = vec![
            ("group", seen.resource.group.to_string()),
            ("resource", seen.resource.plural.to_string()),
            ("subresource", attempt.target.subresource.clone()),
            ("namespace", attempt.namespace().to_owned()),
            ("name", attempt.name.clone()),
        ];
        variables.insert("authorizer.requestResource".to_owned(), Cel::Authorizer(Arc::new(own)));
        Self { variables, budget: Budget::new(BUDGET), asker: Asker { call: attempt.call } }
    }

    pub(crate) fn eval(&mut self, program: &'v Program) -> Result<Cel<'v>, EvalError> {
        let mut call = Budget::new(self.budget.left.min(CALL_LIMIT));
        let given = call.left;
        let found = program.eval(&self.variables, &mut call, Some(&self.asker));
        self.budget.left -= given - call.left;
        found
    }

    /// Makes the results of `variables` known to what follows. One that fails is simply not there: who asks for it fails.
    pub(crate) fn define(&mut self, variables: &'v [Named]) {
        let mut made: Vec<(Cel<'v>, Cel<'v>)> = Vec::new();
        for variable in variables {
            if let Ok(value) = self.eval(&variable.program) {
                made.push((Cel::text(&variable.name), value));
                self.variables.insert("variables".to_owned(), Cel::Map(Arc::new(made.clone())));
            }
        }
    }

    /// `Ok(false)` as soon as one condition is false; errors count only if none is false.
    pub(crate) fn conditions(&mut self, conditions: &'v [Named]) -> Result<bool, String> {
        let mut problem = None;
        for condition in conditions {
            match self.eval(&condition.program) {
                Ok(Cel::Bool(true)) => {}
                Ok(Cel::Bool(false)) => return Ok(false),
                Ok(_) => problem = Some(format!("matchCondition {:?} is not a boolean", condition.name)),
                Err(error) => problem = Some(format!("error evaluating matchCondition {:?}: {error}", condition.name)),
            }
        }
        problem.map_or(Ok(true), Err)
    }
}

/// Asks the authoriser on behalf of an expression.
struct Asker<'a> {
    call: &'a Call,
}

impl Host for Asker<'_> {
    fn authorized(&self, question: &[(&'static str, String)]) -> (bool, String) {
        let part = |name: &str| question.iter().rev().find(|(own, _)| *own == name).map_or("", |(_, text)| text.as_str());
        let account;
        let user = match part("user") {
            "" => &self.call.user,
            name => {
                let mut parts = name.rsplit(':');
                let (name, namespace) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
                account = Identity::service_account(namespace, name, "");
                &account
            }
        };
        let path = part("path");
        let attributes = Attributes {
            verb: part("verb"),
            group: part("group"),
            resource: part("resource"),
            subresource: part("subresource"),
            namespace: part("namespace"),
            name: part("name"),
            path: (!path.is_empty()).then_some(path),
        };
        (authz::decide(&self.call.server, user, &attributes), String::new())
    }
}
