//! A place in the object that is validated: the value and its path together, and the checks that every kind needs.

use super::Errors;
use crate::field::FieldError;
use serde_json::Value;
use std::fmt::Display;

static NULL: Value = Value::Null;

/// A value and where it stands. What is absent is null.
#[derive(Clone, Debug)]
pub(super) struct At<'v> {
    pub(super) value: &'v Value,
    pub(super) path: String,
}

impl<'v> At<'v> {
    pub(super) fn root(value: &'v Value) -> Self {
        Self { value, path: String::new() }
    }

    pub(super) fn child(&self, name: &str) -> At<'v> {
        let path = if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) };
        At { value: self.value.get(name).unwrap_or(&NULL), path }
    }

    /// By dotted path.
    pub(super) fn down(&self, path: &str) -> At<'v> {
        path.split('.').fold(self.clone(), |at, name| at.child(name))
    }

    /// Entry of a map: `labels[app]`.
    pub(super) fn key(&self, key: &str) -> At<'v> {
        At { value: self.value.get(key).unwrap_or(&NULL), path: format!("{}[{key}]", self.path) }
    }

    pub(super) fn items(&self) -> impl Iterator<Item = At<'v>> + use<'v> {
        let (path, list) = (self.path.clone(), self.value.as_array().map_or(&[][..], Vec::as_slice));
        list.iter().enumerate().map(move |(at, value)| At { value, path: format!("{path}[{at}]") })
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = (&'v str, At<'v>)> + use<'v> {
        let path = self.path.clone();
        let map = self.value.as_object().into_iter().flatten();
        map.map(move |(key, value)| (key.as_str(), At { value, path: format!("{path}[{key}]") }))
    }

    pub(super) fn text(&self) -> &'v str {
        self.value.as_str().unwrap_or("")
    }

    pub(super) fn number(&self) -> Option<i64> {
        self.value.as_i64()
    }

    /// Null, empty text, empty list, empty object.
    pub(super) fn is_empty(&self) -> bool {
        match self.value {
            Value::Null => true,
            Value::String(text) => text.is_empty(),
            Value::Array(items) => items.is_empty(),
            Value::Object(fields) => fields.is_empty(),
            Value::Bool(_) | Value::Number(_) => false,
        }
    }

    pub(super) fn is_set(&self) -> bool {
        !self.value.is_null()
    }

    pub(super) fn required(&self, errors: &mut Errors) -> bool {
        if self.is_empty() {
            errors.push(FieldError::required(&self.path, ""));
        }
        !self.is_empty()
    }

    pub(super) fn invalid(&self, detail: impl Display) -> FieldError {
        FieldError::invalid(&self.path, self.value.clone(), detail.to_string())
    }

    /// One error for each problem that `check` finds with the text.
    pub(super) fn check(&self, check: fn(&str) -> Vec<String>, errors: &mut Errors) {
        errors.extend(check(self.text()).into_iter().map(|problem| self.invalid(problem)));
    }

    pub(super) fn one_of(&self, supported: &[&str], errors: &mut Errors) {
        if !supported.contains(&self.text()) {
            errors.push(FieldError::not_supported(&self.path, self.text(), supported));
        }
    }

    pub(super) fn not_negative(&self, errors: &mut Errors) {
        if self.number().is_some_and(|n| n < 0) {
            errors.push(self.invalid("must be greater than or equal to 0"));
        }
    }

    pub(super) fn port_number(&self, errors: &mut Errors) {
        if !self.number().is_some_and(|n| (1..=65_535).contains(&n)) {
            errors.push(self.invalid("must be between 1 and 65535, inclusive"));
        }
    }

    /// A port by number or by name.
    pub(super) fn port(&self, errors: &mut Errors) {
        match self.value {
            Value::String(_) => self.check(crate::names::port_name, errors),
            Value::Null => errors.push(FieldError::invalid(&self.path, 0, "must be between 1 and 65535, inclusive")),
            _ => self.port_number(errors),
        }
    }

    /// A quantity that is not below zero.
    pub(super) fn quantity(&self, errors: &mut Errors) -> Option<crate::quantity::Quantity> {
        let parsed = crate::quantity::parse(self.text());
        match parsed {
            Ok(amount) if amount.is_negative() => {
                errors.push(self.invalid("must be greater than or equal to 0"));
                None
            }
            Ok(amount) => Some(amount),
            Err(problem) => {
                errors.push(self.invalid(problem));
                None
            }
        }
    }
}

/// Refuses a change of the field at `path`.
pub(super) fn immutable(new: &Value, old: &Value, path: &str, errors: &mut Errors) {
    let (new, old) = (At::root(new).down(path), At::root(old).down(path));
    if new.value != old.value && !(new.is_empty() && old.is_empty()) {
        errors.push(new.invalid("field is immutable"));
    }
}

/// Notes a second use of what must be unique.
pub(super) fn unique(seen: &mut Vec<String>, at: &At<'_>, errors: &mut Errors) {
    let shown = at.value.to_string();
    if seen.contains(&shown) {
        errors.push(FieldError::duplicate(&at.path, at.value.clone()));
    } else {
        seen.push(shown);
    }
}
