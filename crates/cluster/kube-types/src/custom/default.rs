//! Fills in a schema's defaults. Idempotent.
//!
//! Called through [`crate::Resource::default`] on every write, and on reads of objects that were stored before the default
//! came to be.

use super::{CustomSchema, Structural};
use serde_json::Value;

impl CustomSchema {
    pub fn default(&self, object: &mut Value) {
        fill(&self.root, object);
    }
}

fn replaceable(value: &Value, schema: &Structural) -> bool {
    value.is_null() && !schema.nullable
}

fn fill(schema: &Structural, value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (key, child) in &schema.properties {
                let Some(default) = &child.default else { continue };
                if fields.get(key).is_none_or(|value| replaceable(value, child)) {
                    fields.insert(key.clone(), default.clone());
                }
            }
            for (key, value) in fields.iter_mut() {
                let Some(child) = schema.child(key) else { continue };
                fill_one(child, value);
            }
        }
        Value::Array(items) => {
            if let Some(inner) = &schema.items {
                items.iter_mut().for_each(|item| fill_one(inner, item));
            }
        }
        _ => {}
    }
}

fn fill_one(schema: &Structural, value: &mut Value) {
    if let Some(default) = schema.default.as_ref().filter(|_| replaceable(value, schema)) {
        *value = default.clone();
    }
    fill(schema, value);
}
