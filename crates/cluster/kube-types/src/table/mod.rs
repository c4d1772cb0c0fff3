//! Tables: what `kubectl get` shows, made on the server as Kubernetes does it (meta.k8s.io/v1 Table).
//!
//! Called for list and get with an `as=Table` Accept header, and per event for watches. Columns, their order, their priority
//! (1 is shown with `-o wide` only) and each cell's wording are kubectl's. It never fails: what is missing shows as
//! `<none>` or `<unknown>`.

mod access;
mod cluster;
mod look;
mod network;
mod pod;
mod storage;
mod workload;

use crate::registry::Resource;
use jiff::Timestamp;
use serde_json::{Value, json};

/// What stands in each row's `object`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IncludeObject {
    None,
    Metadata,
    Object,
}

/// Name, type and priority; the format is `name` for the first column of that name and empty else.
struct Column {
    name: &'static str,
    kind: &'static str,
    wide: bool,
}

/// A column of text.
const fn text(name: &'static str) -> Column {
    Column { name, kind: "string", wide: false }
}

/// A column of text for `-o wide`.
const fn wide(name: &'static str) -> Column {
    Column { name, kind: "string", wide: true }
}

const fn number(name: &'static str) -> Column {
    Column { name, kind: "integer", wide: false }
}

/// How one kind is shown.
struct View {
    columns: &'static [Column],
    row: fn(&Value, Timestamp) -> Vec<Value>,
}

static NAME_AND_AGE: View =
    View { columns: &[text("Name"), text("Age")], row: |object, now| vec![look::name(object), look::age(object, now)] };

static NAME_AND_CREATION: View = View {
    columns: &[text("Name"), Column { name: "Created At", kind: "date", wide: false }],
    row: |object, _| vec![look::name(object), object["metadata"]["creationTimestamp"].clone()],
};

fn view(resource: &Resource) -> &'static View {
    let (group, kind) = resource.group_kind();
    pod::view(group, kind)
        .or_else(|| workload::view(group, kind))
        .or_else(|| network::view(group, kind))
        .or_else(|| cluster::view(group, kind))
        .or_else(|| storage::view(group, kind))
        .or_else(|| access::view(group, kind))
        .unwrap_or(match group {
            "" | "apiextensions.k8s.io" => &NAME_AND_CREATION,
            _ => &NAME_AND_AGE,
        })
}

/// A `Table` with kubectl's own columns. The caller sets the list's `metadata` (resourceVersion, continue).
pub fn render(resource: &Resource, objects: &[&Value], now: Timestamp, include: IncludeObject) -> Value {
    if let Some(custom) = resource.custom() {
        return custom_table(&custom.columns, objects, now, include);
    }
    let view = view(resource);
    let definitions: Vec<Value> = view.columns.iter().map(definition).collect();
    let rows: Vec<Value> = objects.iter().map(|object| row(resource, view, object, now, include)).collect();
    json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {},
        "columnDefinitions": definitions,
        "rows": rows,
    })
}

fn definition(column: &Column) -> Value {
    let (kind, format) = match (column.kind, column.name) {
        ("date", _) => ("string", "date-time"),
        (kind, "Name") => (kind, "name"),
        (kind, _) => (kind, ""),
    };
    json!({"name": column.name, "type": kind, "format": format, "description": "", "priority": i32::from(column.wide)})
}

fn row(resource: &Resource, view: &View, object: &Value, now: Timestamp, include: IncludeObject) -> Value {
    let mut row = json!({"cells": (view.row)(object, now)});
    if resource.group_kind() == ("", "Pod")
        && let Some(condition) = pod::row_condition(object)
    {
        row["conditions"] = json!([condition]);
    }
    row["object"] = shown(object, include);
    row
}

/// A table whose columns a definition gives.
fn custom_table(columns: &[crate::custom::Column], objects: &[&Value], now: Timestamp, include: IncludeObject) -> Value {
    let rows: Vec<Value> = objects
        .iter()
        .map(|object| json!({"cells": crate::custom::cells(columns, object, now), "object": shown(object, include)}))
        .collect();
    json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {},
        "columnDefinitions": crate::custom::definitions(columns),
        "rows": rows,
    })
}

fn shown(object: &Value, include: IncludeObject) -> Value {
    match include {
        IncludeObject::None => Value::Null,
        IncludeObject::Object => object.clone(),
        IncludeObject::Metadata => {
            json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]})
        }
    }
}

#[cfg(test)]
mod tests;
