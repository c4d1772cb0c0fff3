//! `x-kubernetes-validations`: the CEL rules of custom resources.
//!
//! Compiled once per served version ([`Rules::compile`]); the same walk finds, when a definition is written, what cannot be
//! compiled or may cost too much. Run on every write within one budget. On an update what did not change is not judged again;
//! transition rules (`oldSelf`) run where an old value can be told.

use std::collections::BTreeMap;

use cel::{Budget, Environment, EvalError, Program, Type, Value as Cel};
use kube_types::FieldError;
use kube_types::custom::{ListKind, Rule, Structural};
use kube_types::field::Reason;
use serde_json::Value;

/// The most steps of one evaluation and of all rules of one write (kube-apiserver's figures).
const CALL_LIMIT: u64 = 1_000_000;
const WRITE_BUDGET: u64 = 10_000_000;
/// The most that one rule, and all rules of a definition, may cost by estimate.
const RULE_LIMIT: u64 = 10_000_000;
const DEFINITION_LIMIT: u64 = 100_000_000;
const MAX_MESSAGE_BYTES: usize = 5120;

/// A compiled rule.
#[derive(Debug)]
struct Compiled {
    rule: Rule,
    program: Program,
    message: Option<Program>,
    uses_old: bool,
    optional_old: bool,
}

/// The rules of one place in a schema and of what lies below it; only places that have some are there.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    own: Vec<Compiled>,
    kind: Option<Type>,
    properties: BTreeMap<String, Rules>,
    additional: Option<Box<Rules>>,
    items: Option<Box<Rules>>,
    list: ListKind,
}

/// What a definition's rules are refused for.
struct Compiler {
    errors: Vec<FieldError>,
    total: u64,
}

impl Rules {
    pub(crate) fn is_empty(&self) -> bool {
        self.own.is_empty() && self.properties.is_empty() && self.additional.is_none() && self.items.is_none()
    }

    /// The rules that can run.
    pub(crate) fn compile(root: &Structural) -> Self {
        Compiler { errors: Vec::new(), total: 0 }.place(root, "", 1, true)
    }
}

/// Everything wrong with the rules of a definition.
pub(crate) fn check_definition(definition: &Value) -> Vec<FieldError> {
    let mut compiler = Compiler { errors: Vec::new(), total: 0 };
    for (at, version) in definition["spec"]["versions"].as_array().into_iter().flatten().enumerate() {
        let Ok(root) = Structural::parse(&version["schema"]["openAPIV3Schema"]) else { continue };
        let path = format!("spec.versions[{at}].schema.openAPIV3Schema");
        compiler.place(&root, &path, 1, true);
        if compiler.total > DEFINITION_LIMIT {
            let words = over_budget("x-kubernetes-validations estimated cost total for entire OpenAPIv3 schema", compiler.total, DEFINITION_LIMIT);
            compiler.errors.push(FieldError::forbidden(path, words));
        }
        compiler.total = 0;
    }
    compiler.errors
}

fn over_budget(what: &str, cost: u64, limit: u64) -> String {
    let factor = cost as f64 / limit as f64;
    let factor = if factor > 100.0 { "more than 100x".to_owned() } else { format!("{factor:.1}x") };
    let hint = "(try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)";
    let hint = if what.contains("total") { "(try adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)" } else { hint };
    format!("{what} exceeds budget by factor of {factor} {hint}")
}

impl Compiler {
    /// `times`: how often the place can occur in one object.
    fn place(&mut self, schema: &Structural, path: &str, times: u64, resource: bool) -> Rules {
        let mut rules = Rules { list: schema.list.clone(), ..Rules::default() };
        if !schema.rules.is_empty() {
            let kind = Type::of_schema(schema, resource || schema.embedded);
            for (at, rule) in schema.rules.iter().enumerate() {
                let path = format!("{path}.x-kubernetes-validations[{at}]");
                rules.own.extend(self.rule(schema, rule, &kind, &path, times));
            }
            rules.kind = Some(kind);
        }
        for (name, child) in &schema.properties {
            let inner = self.place(child, &format!("{path}.properties[{name}]"), times, false);
            if !inner.is_empty() {
                rules.properties.insert(name.clone(), inner);
            }
        }
        let size = match Type::of_schema(schema, false) {
            Type::List(_, size) | Type::Map(_, _, size) => size,
            _ => 1,
        };
        let times = times.saturating_mul(size);
        if let Some(child) = &schema.additional {
            let inner = self.place(child, &format!("{path}.additionalProperties"), times, false);
            rules.additional = (!inner.is_empty()).then(|| Box::new(inner));
        }
        if let Some(child) = &schema.items {
            let inner = self.place(child, &format!("{path}.items"), times, false);
            rules.items = (!inner.is_empty()).then(|| Box::new(inner));
        }
        rules
    }

    fn rule(&mut self, schema: &Structural, rule: &Rule, kind: &Type, path: &str, times: u64) -> Option<Compiled> {
        let before = self.errors.len();
        if rule.rule.trim().is_empty() {
            self.errors.push(FieldError::required(format!("{path}.rule"), "rule is not specified"));
            return None;
        }
        if rule.message.contains(['\n', '\r']) {
            self.errors.push(FieldError::invalid(format!("{path}.message"), rule.message.as_str(), "message must not contain line breaks"));
        }
        if rule.rule.contains(['\n', '\r']) && rule.message.is_empty() && rule.message_expression.is_empty() {
            self.errors.push(FieldError::required(format!("{path}.message"), "message must be specified if rule contains line breaks"));
        }
        self.reason(rule, path);
        self.field_path(schema, rule, path);
        let optional_old = rule.optional_old_self == Some(true);
        let old = if optional_old { Type::optional(kind.clone()) } else { kind.clone() };
        let environment = Environment::default().with("self", kind.clone()).with("oldSelf", old);
        let program = self.program(&rule.rule, &environment, path, "rule")?;
        if !program.result.is_dyn() && !matches!(program.result, Type::Bool) {
            self.errors.push(FieldError::invalid(format!("{path}.rule"), rule.rule.as_str(), "cel expression must evaluate to a bool"));
        }
        self.cost(&program, &format!("{path}.rule"), "estimated rule cost", times);
        let uses_old = program.uses("oldSelf");
        if rule.optional_old_self.is_some() && !uses_old {
            self.errors.push(FieldError::invalid(format!("{path}.optionalOldSelf"), rule.optional_old_self, "may not be set if oldSelf is not used in rule"));
        }
        let message = if rule.message_expression.is_empty() {
            None
        } else {
            let program = self.program(&rule.message_expression, &environment, path, "messageExpression")?;
            if !program.result.is_dyn() && !matches!(program.result, Type::String(_)) {
                self.errors.push(FieldError::invalid(format!("{path}.messageExpression"), rule.message_expression.as_str(), "messageExpression must evaluate to a string"));
            }
            self.cost(&program, &format!("{path}.messageExpression"), "estimated messageExpression cost", times);
            Some(program)
        };
        (self.errors.len() == before).then(|| Compiled { rule: rule.clone(), program, message, uses_old, optional_old })
    }

    fn reason(&mut self, rule: &Rule, path: &str) {
        const REASONS: [&str; 4] = ["FieldValueRequired", "FieldValueForbidden", "FieldValueInvalid", "FieldValueDuplicate"];
        if !rule.reason.is_empty() && !REASONS.contains(&rule.reason.as_str()) {
            self.errors.push(FieldError::not_supported(format!("{path}.reason"), rule.reason.as_str(), &REASONS));
        }
    }

    fn field_path(&mut self, schema: &Structural, rule: &Rule, path: &str) {
        if rule.field_path.is_empty() {
            return;
        }
        let found = segments(&rule.field_path).and_then(|keys| {
            keys.iter().try_fold(schema, |schema, key| schema.child(key)).map(|_| ())
        });
        if found.is_none() {
            self.errors.push(FieldError::invalid(format!("{path}.fieldPath"), rule.field_path.as_str(), "fieldPath must be a valid path: does not refer to a valid field"));
        }
    }

    fn program(&mut self, text: &str, environment: &Environment, path: &str, field: &str) -> Option<Program> {
        match Program::compile(text, environment) {
            Ok(program) => Some(program),
            Err(error) => {
                let words = if field == "rule" { error.to_string() } else { format!("messageExpression compilation failed: {}", error.0) };
                self.errors.push(FieldError::invalid(format!("{path}.{field}"), text, words));
                None
            }
        }
    }

    fn cost(&mut self, program: &Program, path: &str, what: &str, times: u64) {
        let cost = program.estimate.max.saturating_mul(times);
        self.total = self.total.saturating_add(cost);
        if cost > RULE_LIMIT {
            self.errors.push(FieldError::forbidden(path, over_budget(what, cost, RULE_LIMIT)));
        }
    }
}

/// `.a.b`, `.a['b']` → keys.
fn segments(path: &str) -> Option<Vec<String>> {
    let mut keys = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix("['") {
            let end = after.find("']")?;
            keys.push(after[..end].to_owned());
            rest = &after[end + 2..];
        } else {
            let after = rest.strip_prefix('.')?;
            let end = after.find(['.', '[']).unwrap_or(after.len());
            keys.push(after[..end].to_owned());
            rest = &after[end..];
        }
    }
    Some(keys)
}

/// Everything that the rules refuse in `object`.
pub(crate) fn validate(rules: &Rules, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut walk = Walk { errors: Vec::new(), budget: Budget::new(WRITE_BUDGET), stopped: false };
    walk.place(rules, object, old, String::new());
    walk.errors
}

struct Walk {
    errors: Vec<FieldError>,
    budget: Budget,
    stopped: bool,
}

impl Walk {
    fn place(&mut self, rules: &Rules, value: &Value, old: Option<&Value>, path: String) {
        if value.is_null() || self.stopped {
            return;
        }
        let unchanged = old == Some(value);
        for rule in &rules.own {
            // Rules about the change run even when nothing changed; others were judged when the value came.
            if !self.stopped && (!unchanged || rule.uses_old) {
                self.rule(rules, rule, value, old, &path);
            }
        }
        match value {
            Value::Object(fields) => {
                for (key, child) in fields {
                    let inner = rules.properties.get(key).or(rules.additional.as_deref());
                    if let Some(inner) = inner {
                        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                        self.place(inner, child, old.and_then(|old| old.get(key)), path);
                    }
                }
            }
            Value::Array(items) => {
                let Some(inner) = &rules.items else { return };
                let before = old.and_then(Value::as_array);
                for (at, item) in items.iter().enumerate() {
                    let before = before.and_then(|before| correlated(&rules.list, before, item));
                    self.place(inner, item, before, format!("{path}[{at}]"));
                }
            }
            _ => {}
        }
    }

    fn rule(&mut self, rules: &Rules, rule: &Compiled, value: &Value, old: Option<&Value>, path: &str) {
        let kind = rules.kind.clone().unwrap_or(Type::Dyn);
        let mut variables = BTreeMap::from([("self".to_owned(), Cel::of_json(value, &kind))]);
        if rule.uses_old || rule.message.is_some() {
            let old = old.map(|old| Cel::of_json(old, &kind));
            match (old, rule.optional_old) {
                (old, true) => {
                    variables.insert("oldSelf".to_owned(), Cel::Optional(old.map(std::sync::Arc::new)));
                }
                (Some(old), false) => {
                    variables.insert("oldSelf".to_owned(), old);
                }
                (None, false) if rule.uses_old => return,
                (None, false) => {}
            }
        }
        match self.run(&rule.program, &variables, path, &rule.rule.rule) {
            Some(Ok(Cel::Bool(true))) | None => {}
            Some(Ok(_)) => {
                let message = self.message(rule, &variables, path);
                self.refuse(rule, value, path, message);
            }
            Some(Err(error)) => {
                let words = format!("rule evaluation error: {}: {error}", rule.rule.rule);
                self.errors.push(FieldError::invalid(path, value.clone(), words));
            }
        }
    }

    /// Runs within the budget of the write; `None` when that is used up, which has been reported.
    fn run<'v>(
        &mut self,
        program: &'v Program,
        variables: &BTreeMap<String, Cel<'v>>,
        path: &str,
        text: &str,
    ) -> Option<Result<Cel<'v>, EvalError>> {
        let mut call = Budget::new(self.budget.left.min(CALL_LIMIT));
        let given = call.left;
        let result = program.eval(variables, &mut call, None);
        self.budget.left -= given - call.left;
        if result.as_ref().err() != Some(&EvalError::Budget) {
            return Some(result);
        }
        self.stopped = true;
        let words = if given == CALL_LIMIT {
            format!("no further validation rules will be run due to call cost exceeds limit for rule: {text}")
        } else {
            "validation failed due to running out of cost budget, no further validation rules will be run".to_owned()
        };
        self.errors.push(FieldError::forbidden(path, words));
        None
    }

    fn message<'v>(&mut self, rule: &'v Compiled, variables: &BTreeMap<String, Cel<'v>>, path: &str) -> String {
        if let Some(program) = &rule.message
            && let Some(Ok(Cel::String(text))) = self.run(program, variables, path, &rule.rule.message_expression)
        {
            let text = text.trim();
            if !text.is_empty() && text.len() <= MAX_MESSAGE_BYTES && !text.contains(['\n', '\r']) {
                return text.to_owned();
            }
        }
        match rule.rule.message.trim() {
            "" => format!("failed rule: {}", rule.rule.rule.trim()),
            text => text.to_owned(),
        }
    }

    fn refuse(&mut self, rule: &Compiled, value: &Value, path: &str, message: String) {
        let path = format!("{path}{}", rule.rule.field_path).trim_start_matches('.').to_owned();
        let shown = match value {
            Value::Object(_) => "object".into(),
            Value::Array(_) => "array".into(),
            other => other.clone(),
        };
        let reason = match rule.rule.reason.as_str() {
            "FieldValueRequired" => Reason::Required,
            "FieldValueForbidden" => Reason::Forbidden,
            "FieldValueDuplicate" => Reason::Duplicate,
            _ => Reason::Invalid,
        };
        self.errors.push(FieldError { reason, path, value: Some(shown), detail: message });
    }
}

fn correlated<'v>(list: &ListKind, before: &'v [Value], item: &Value) -> Option<&'v Value> {
    let ListKind::Map(keys) = list else { return None };
    before.iter().find(|old| keys.iter().all(|key| old.get(key) == item.get(key)))
}
