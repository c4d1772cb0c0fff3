//! additionalPrinterColumns: what `kubectl get` shows of a custom resource.
//!
//! Called by [`crate::table::render`]. Without columns of its own a resource shows its name and age.

use super::{json_path, text};
use crate::{meta, time};
use jiff::Timestamp;
use serde_json::{Value, json};

const NAME_DESCRIPTION: &str = "Name must be unique within a namespace. Is required when creating resources, although some resources may allow a client to request the generation of an appropriate name automatically. Name is primarily intended for creation idempotence and configuration definition. Cannot be updated. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names";
const CREATION_DESCRIPTION: &str = "CreationTimestamp is a timestamp representing the server time when this object was created. It is not guaranteed to be set in happens-before order across separate operations. Clients may not set this value. It is represented in RFC3339 form and is in UTC.\n\nPopulated by the system. Read-only. Null for lists. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";

/// One column as the definition gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    pub kind: String,
    pub format: String,
    pub description: String,
    pub priority: i64,
    pub path: String,
}

pub(super) fn columns(version: &Value) -> Vec<Column> {
    let given: Vec<Column> = version["additionalPrinterColumns"].as_array().into_iter().flatten().map(column).collect();
    if !given.is_empty() {
        return given;
    }
    vec![Column {
        name: "Age".to_owned(),
        kind: "date".to_owned(),
        format: String::new(),
        description: CREATION_DESCRIPTION.to_owned(),
        priority: 0,
        path: ".metadata.creationTimestamp".to_owned(),
    }]
}

fn column(value: &Value) -> Column {
    let get = |key: &str| text(value, key).to_owned();
    Column {
        name: get("name"),
        kind: get("type"),
        format: get("format"),
        description: match get("description") {
            words if words.is_empty() => format!("Custom resource definition column (in JSONPath format): {}", get("jsonPath")),
            words => words,
        },
        priority: value["priority"].as_i64().unwrap_or(0),
        path: get("jsonPath"),
    }
}

/// The table's column definitions, the name first.
pub(crate) fn definitions(columns: &[Column]) -> Vec<Value> {
    let name = json!({"name": "Name", "type": "string", "format": "name", "description": NAME_DESCRIPTION, "priority": 0});
    let others = columns.iter().map(|c| {
        json!({"name": c.name, "type": c.kind, "format": c.format, "description": c.description, "priority": c.priority})
    });
    std::iter::once(name).chain(others).collect()
}

pub(crate) fn cells(columns: &[Column], object: &Value, now: Timestamp) -> Vec<Value> {
    let name = Value::from(meta::name(object));
    std::iter::once(name).chain(columns.iter().map(|column| cell(column, object, now))).collect()
}

fn cell(column: &Column, object: &Value, now: Timestamp) -> Value {
    let found: Vec<&Value> = json_path::find(object, &column.path).into_iter().filter(|v| !v.is_null()).collect();
    let Some(first) = found.first() else { return Value::Null };
    match column.kind.as_str() {
        "string" => found.iter().map(|value| plain(value)).collect::<Vec<_>>().join(" ").into(),
        "date" => match first.as_str() {
            Some(text) => time::parse(text).map_or_else(|| "<invalid>".into(), |at| time::age(Some(at), now).into()),
            None => Value::Null,
        },
        "integer" => match first.as_i64() {
            Some(number) => number.into(),
            None => first.as_f64().map_or(Value::Null, |number| (number as i64).into()),
        },
        "number" => if first.is_number() { (*first).clone() } else { Value::Null },
        "boolean" => if first.is_boolean() { (*first).clone() } else { Value::Null },
        _ => Value::Null,
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
