//! Whether a custom resource is what its schema wants, in Kubernetes' words.
//!
//! Called through [`crate::Resource::validate_create`] and `validate_update`. On an update, what did not change is not judged
//! again (ratcheting): a schema may become stricter while old objects live on. CEL rules are run by the API server.

use super::{CustomSchema, ListKind, Structural, Type, formats};
use crate::field::{FieldError, Reason};
use serde_json::Value;
use std::collections::HashSet;

/// More errors than that help nobody, and their text must not outgrow the object.
const MAX_ERRORS: usize = 100;

impl CustomSchema {
    pub fn validate(&self, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let mut walk = Walk { errors: Vec::new() };
        walk.value(&self.root, object, old, "");
        walk.errors.truncate(MAX_ERRORS);
        walk.errors
    }
}

pub(super) fn value(schema: &Structural, value: &Value) -> Vec<FieldError> {
    let mut walk = Walk { errors: Vec::new() };
    walk.value(schema, value, None, "");
    walk.errors
}

struct Walk {
    errors: Vec<FieldError>,
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// The name of a value's type, as messages say it.
fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_f64() && n.as_f64().is_some_and(|f| f.fract() != 0.0) => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn is_integer(value: &Value) -> bool {
    value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|f| f.fract() == 0.0)
}

impl Walk {
    fn push(&mut self, error: FieldError) {
        if self.errors.len() <= MAX_ERRORS {
            self.errors.push(error);
        }
    }

    /// `VALUE: PATH in body WORDS`
    fn invalid(&mut self, path: &str, value: &Value, words: &str) {
        self.push(FieldError::invalid(path, value.clone(), format!("{path} in body {words}")));
    }

    fn value(&mut self, schema: &Structural, value: &Value, old: Option<&Value>, path: &str) {
        if old == Some(value) {
            return;
        }
        if value.is_null() && schema.nullable {
            return;
        }
        if !self.has_type(schema, value, path) {
            return;
        }
        self.checks(schema, value, old, path);
        match value {
            Value::Object(fields) => {
                for (key, child) in fields {
                    let before = old.and_then(|old| old.get(key));
                    if let Some(inner) = schema.child(key) {
                        self.value(inner, child, before, &join(path, key));
                    }
                }
            }
            Value::Array(items) => self.list(schema, items, old, path),
            _ => {}
        }
    }

    fn has_type(&mut self, schema: &Structural, value: &Value, path: &str) -> bool {
        let (fits, wanted) = match schema.kind {
            Type::Any if schema.int_or_string => (value.is_string() || is_integer(value), "integer,string"),
            Type::Any => (true, ""),
            Type::Object => (value.is_object(), "object"),
            Type::Array => (value.is_array(), "array"),
            Type::String => (value.is_string(), "string"),
            Type::Integer => (is_integer(value), "integer"),
            Type::Number => (value.is_number(), "number"),
            Type::Boolean => (value.is_boolean(), "boolean"),
        };
        if !fits {
            let found = type_of(value);
            self.push(FieldError {
                reason: Reason::TypeInvalid,
                path: path.to_owned(),
                value: Some(found.into()),
                detail: format!("{path} in body must be of type {wanted}: {found:?}"),
            });
        }
        fits
    }

    fn list(&mut self, schema: &Structural, items: &[Value], old: Option<&Value>, path: &str) {
        self.no_duplicates(schema, items, path);
        let Some(inner) = &schema.items else { return };
        let before = old.and_then(Value::as_array);
        for (at, item) in items.iter().enumerate() {
            let before = before.and_then(|before| correlated(&schema.list, before, item));
            self.value(inner, item, before, &format!("{path}[{at}]"));
        }
    }

    fn no_duplicates(&mut self, schema: &Structural, items: &[Value], path: &str) {
        let mut seen = HashSet::new();
        for (at, item) in items.iter().enumerate() {
            let shown = match &schema.list {
                ListKind::Atomic => return,
                ListKind::Set => item.clone(),
                ListKind::Map(_) => identity(schema, item),
            };
            if !seen.insert(shown.to_string()) {
                self.push(FieldError::duplicate(format!("{path}[{at}]"), shown));
            }
        }
    }

    fn checks(&mut self, schema: &Structural, value: &Value, old: Option<&Value>, path: &str) {
        let checks = &schema.checks;
        if let Some(allowed) = &checks.one_of_values
            && !allowed.contains(value)
        {
            let shown: Vec<String> = allowed.iter().map(plain).collect();
            let shown: Vec<&str> = shown.iter().map(String::as_str).collect();
            self.push(not_supported(path, value, &shown));
        }
        match value {
            Value::String(text) => self.text(schema, value, text, path),
            Value::Number(_) => self.number(schema, value, path),
            Value::Array(items) => self.size_of_list(schema, value, items, path),
            Value::Object(fields) => {
                let count = fields.len() as u64;
                if let Some(max) = checks.max_properties.filter(|max| count > *max) {
                    self.push(FieldError::too_many(path, fields.len(), max as usize));
                }
                if let Some(min) = checks.min_properties.filter(|min| count < *min) {
                    self.invalid(path, value, &format!("should have at least {min} properties"));
                }
                for name in checks.required.iter().filter(|name| !fields.contains_key(*name)) {
                    self.push(FieldError::required(join(path, name), ""));
                }
            }
            Value::Null | Value::Bool(_) => {}
        }
        self.combinations(schema, value, old, path);
    }

    fn text(&mut self, schema: &Structural, value: &Value, text: &str, path: &str) {
        let checks = &schema.checks;
        let length = text.chars().count() as u64;
        if let Some(max) = checks.max_length.filter(|max| length > *max) {
            self.push(FieldError::too_long(path, max as usize));
        }
        if let Some(min) = checks.min_length.filter(|min| length < *min) {
            self.invalid(path, value, &format!("should be at least {min} chars long"));
        }
        if let Some(pattern) = checks.pattern.as_ref().filter(|pattern| !pattern.is_match(text)) {
            let words = format!("should match '{}'", pattern.as_str());
            self.invalid(path, value, &words);
        }
        if !checks.format.is_empty() && !formats::holds(&checks.format, text) {
            self.push(FieldError {
                reason: Reason::TypeInvalid,
                path: path.to_owned(),
                value: Some(value.clone()),
                detail: format!("{path} in body must be of type {}: {text:?}", checks.format),
            });
        }
    }

    fn number(&mut self, schema: &Structural, value: &Value, path: &str) {
        let checks = &schema.checks;
        let Some(number) = value.as_f64() else { return };
        if let Some(max) = checks.maximum {
            match checks.exclusive_maximum {
                true if number >= max => self.invalid(path, value, &format!("should be less than {max}")),
                false if number > max => self.invalid(path, value, &format!("should be less than or equal to {max}")),
                _ => {}
            }
        }
        if let Some(min) = checks.minimum {
            match checks.exclusive_minimum {
                true if number <= min => self.invalid(path, value, &format!("should be greater than {min}")),
                false if number < min => {
                    self.invalid(path, value, &format!("should be greater than or equal to {min}"))
                }
                _ => {}
            }
        }
        if let Some(factor) = checks.multiple_of.filter(|factor| *factor > 0.0 && (number / factor).fract() != 0.0) {
            self.invalid(path, value, &format!("should be a multiple of {factor}"));
        }
        let out_of_range = match (checks.format.as_str(), value.as_i64()) {
            ("int32", Some(n)) => i32::try_from(n).is_err(),
            ("int32" | "int64", None) => true,
            _ => false,
        };
        if out_of_range && schema.kind == Type::Integer {
            let words = format!("must be of type {}: {:?}", checks.format, schema_type(schema));
            self.invalid(path, value, &words);
        }
    }

    fn size_of_list(&mut self, schema: &Structural, value: &Value, items: &[Value], path: &str) {
        let checks = &schema.checks;
        let count = items.len() as u64;
        if let Some(max) = checks.max_items.filter(|max| count > *max) {
            self.push(FieldError::too_many(path, items.len(), max as usize));
        }
        if let Some(min) = checks.min_items.filter(|min| count < *min) {
            self.invalid(path, value, &format!("should have at least {min} items"));
        }
        if checks.unique_items {
            let mut seen = HashSet::new();
            if items.iter().any(|item| !seen.insert(item.to_string())) {
                self.invalid(path, value, "shouldn't contain duplicates");
            }
        }
    }

    fn combinations(&mut self, schema: &Structural, value: &Value, old: Option<&Value>, path: &str) {
        let checks = &schema.checks;
        let errors_of = |branch: &Structural| {
            let mut walk = Walk { errors: Vec::new() };
            walk.value(branch, value, old, path);
            walk.errors
        };
        for branch in &checks.all_of {
            let errors = errors_of(branch);
            if !errors.is_empty() {
                errors.into_iter().for_each(|error| self.push(error));
                self.push(FieldError::invalid(path, "", format!("{path:?} must validate all the schemas (allOf)")));
            }
        }
        if !checks.any_of.is_empty() {
            self.alternatives(&checks.any_of, &errors_of, path, "must validate at least one schema (anyOf)", |n| n > 0);
        }
        if !checks.one_of.is_empty() {
            let valid = checks.one_of.iter().filter(|branch| errors_of(branch).is_empty()).count();
            let found = match valid {
                0 => "Found none valid".to_owned(),
                n => format!("Found {n} valid alternatives"),
            };
            let words = format!("must validate one and only one schema (oneOf). {found}");
            self.alternatives(&checks.one_of, &errors_of, path, &words, |n| n == 1);
        }
        if let Some(not) = &checks.not
            && errors_of(not).is_empty()
        {
            self.push(FieldError::invalid(path, "", format!("{path:?} must not validate the schema (not)")));
        }
    }

    fn alternatives(
        &mut self,
        branches: &[Structural],
        errors_of: &dyn Fn(&Structural) -> Vec<FieldError>,
        path: &str,
        words: &str,
        good: fn(usize) -> bool,
    ) {
        let all: Vec<Vec<FieldError>> = branches.iter().map(errors_of).collect();
        let valid = all.iter().filter(|errors| errors.is_empty()).count();
        if good(valid) {
            return;
        }
        self.push(FieldError::invalid(path, "", format!("{path:?} {words}")));
        if valid == 0 {
            // What is wrong by the branch that fits best.
            let best = all.into_iter().min_by_key(Vec::len).unwrap_or_default();
            best.into_iter().for_each(|error| self.push(error));
        }
    }
}

fn schema_type(schema: &Structural) -> &'static str {
    if schema.kind == Type::Integer { "integer" } else { "number" }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Unsupported values are listed in the schema's own order.
fn not_supported(path: &str, value: &Value, allowed: &[&str]) -> FieldError {
    let quoted: Vec<String> = allowed.iter().map(|text| format!("{text:?}")).collect();
    FieldError {
        reason: Reason::NotSupported,
        path: path.to_owned(),
        value: Some(value.clone()),
        detail: format!("supported values: {}", quoted.join(", ")),
    }
}

/// The keys of an item of a list map.
fn identity(schema: &Structural, item: &Value) -> Value {
    let ListKind::Map(keys) = &schema.list else { return item.clone() };
    let pairs = keys.iter().filter_map(|key| Some((key.clone(), item.get(key)?.clone())));
    Value::Object(pairs.collect())
}

/// The item of the old list that is the same one. Only a list map tells.
pub(super) fn correlated<'v>(list: &ListKind, before: &'v [Value], item: &Value) -> Option<&'v Value> {
    let ListKind::Map(keys) = list else { return None };
    before.iter().find(|old| keys.iter().all(|key| old.get(key) == item.get(key)))
}
