//! Drops what a schema does not name, and nulls where none may stand.
//!
//! Called for every body and patch result of a custom resource (through [`crate::strict::prune`]) before defaulting.

use super::{CustomSchema, Structural};
use serde_json::{Map, Value};

/// Reports beyond this many are not made.
const MAX_REPORTS: usize = 100;

impl CustomSchema {
    /// Removes unknown fields; says which, as `unknown field "spec.foo"`.
    pub fn prune(&self, object: &mut Value) -> Vec<String> {
        let mut reports = Vec::new();
        if let Value::Object(fields) = object {
            prune_fields(&self.root, fields, true, "", &mut reports);
        }
        drop_nulls(&self.root, object);
        reports
    }
}

pub(super) fn value(schema: &Structural, value: &mut Value) {
    prune(schema, value, "", &mut Vec::new());
}

fn prune(schema: &Structural, value: &mut Value, path: &str, reports: &mut Vec<String>) {
    match value {
        Value::Object(fields) => prune_fields(schema, fields, schema.embedded, path, reports),
        Value::Array(items) => {
            if let Some(inner) = &schema.items {
                for (at, item) in items.iter_mut().enumerate() {
                    prune(inner, item, &format!("{path}[{at}]"), reports);
                }
            }
        }
        _ => {}
    }
}

/// `is_resource`: apiVersion, kind and metadata are always known here.
fn prune_fields(
    schema: &Structural,
    fields: &mut Map<String, Value>,
    is_resource: bool,
    path: &str,
    reports: &mut Vec<String>,
) {
    fields.retain(|key, value| {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        if is_resource && matches!(key.as_str(), "apiVersion" | "kind" | "metadata") {
            return true;
        }
        match schema.child(key) {
            Some(child) => {
                prune(child, value, &path, reports);
                true
            }
            None if schema.preserve_unknown || schema.additional_any => true,
            None => {
                if reports.len() < MAX_REPORTS {
                    reports.push(format!("unknown field {path:?}"));
                }
                false
            }
        }
    });
}

/// A null where the schema does not allow one counts as absent.
fn drop_nulls(schema: &Structural, value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|key, value| match schema.properties.get(key) {
                Some(child) if value.is_null() => child.nullable || child.default.is_some(),
                _ => true,
            });
            for (key, value) in fields.iter_mut() {
                if let Some(child) = schema.child(key) {
                    drop_nulls(child, value);
                }
            }
        }
        Value::Array(items) => {
            if let Some(inner) = &schema.items {
                items.iter_mut().for_each(|item| drop_nulls(inner, item));
            }
        }
        _ => {}
    }
}
