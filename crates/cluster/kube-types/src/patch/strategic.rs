//! Kubernetes' strategic merge patch: a merge patch that knows which lists are keyed.
//!
//! The directives: `$patch` (replace, delete, merge) in an object or as a list's element, `$retainKeys`,
//! `$deleteFromPrimitiveList/FIELD`, `$setElementOrder/FIELD`. None of them ever stays in the result.

use super::PatchError;
use crate::registry::Resource;
use crate::schema::{MergeBy, Node};
use serde_json::{Map, Value};

const DELETE_PRIMITIVES: &str = "$deleteFromPrimitiveList/";
const ELEMENT_ORDER: &str = "$setElementOrder/";
const RETAIN_KEYS: &str = "$retainKeys";
const DIRECTIVE: &str = "$patch";

type Result<T> = std::result::Result<T, PatchError>;

/// Merges `patch` into `document` by the resource's merge keys.
pub fn strategic(resource: &Resource, document: &Value, patch: &Value) -> Result<Value> {
    let Value::Object(changes) = patch else {
        return Err(PatchError::Malformed(
            "error decoding patch: json: cannot unmarshal into Go value of type map[string]interface {}".to_owned(),
        ));
    };
    let fields = document.as_object().cloned().unwrap_or_default();
    Ok(Value::Object(merge_object(resource.root(), fields, changes)?))
}

fn merge_object(
    node: Node<'_>,
    mut fields: Map<String, Value>,
    changes: &Map<String, Value>,
) -> Result<Map<String, Value>> {
    match changes.get(DIRECTIVE).map(|d| d.as_str()) {
        None | Some(Some("merge")) => {}
        Some(Some("replace")) => fields = Map::new(),
        Some(Some("delete")) => return Ok(Map::new()),
        Some(_) => return Err(unknown_directive(&changes[DIRECTIVE])),
    }
    if let Some(kept) = changes.get(RETAIN_KEYS) {
        let kept = as_list(RETAIN_KEYS, kept)?;
        fields.retain(|key, _| kept.iter().any(|k| k == key.as_str()));
    }
    for (key, items) in changes {
        if let Some(field) = key.strip_prefix(DELETE_PRIMITIVES) {
            let doomed = as_list(key, items)?;
            if let Some(Value::Array(current)) = fields.get_mut(field) {
                current.retain(|item| !doomed.contains(item));
            }
        }
    }
    for (key, change) in changes.iter().filter(|(key, _)| !is_directive(key)) {
        if change.is_null() {
            fields.remove(key);
            continue;
        }
        let order = changes.get(&format!("{ELEMENT_ORDER}{key}"));
        let merged = merge_value(node.child_or_any(key), fields.remove(key), change, order)?;
        fields.insert(key.clone(), merged);
    }
    reorder_untouched(node, &mut fields, changes)?;
    Ok(fields)
}

/// An element order may come without a change of the list itself.
fn reorder_untouched(node: Node<'_>, fields: &mut Map<String, Value>, changes: &Map<String, Value>) -> Result<()> {
    for (key, order) in changes {
        let Some(field) = key.strip_prefix(ELEMENT_ORDER) else {
            continue;
        };
        if changes.contains_key(field) {
            continue;
        }
        let merge = node.child_or_any(field).list().and_then(|l| l.merge.as_ref());
        if let (Some(merge), Some(Value::Array(items))) = (merge, fields.get_mut(field)) {
            let live = items.clone();
            *items = in_order(std::mem::take(items), as_list(key, order)?, &live, merge);
        }
    }
    Ok(())
}

fn is_directive(key: &str) -> bool {
    key == DIRECTIVE || key == RETAIN_KEYS || key.starts_with(DELETE_PRIMITIVES) || key.starts_with(ELEMENT_ORDER)
}

fn merge_value(node: Node<'_>, current: Option<Value>, change: &Value, order: Option<&Value>) -> Result<Value> {
    match change {
        Value::Object(changes) => {
            let fields = match current {
                Some(Value::Object(fields)) => fields,
                _ => Map::new(),
            };
            merge_object(node, fields, changes).map(Value::Object)
        }
        Value::Array(changes) => {
            let items = match current {
                Some(Value::Array(items)) => items,
                _ => Vec::new(),
            };
            merge_list(node, items, changes, order).map(Value::Array)
        }
        plain => Ok(plain.clone()),
    }
}

fn merge_list(node: Node<'_>, items: Vec<Value>, changes: &[Value], order: Option<&Value>) -> Result<Vec<Value>> {
    let Some(merge) = node.list().and_then(|l| l.merge.as_ref()) else {
        return Ok(changes.to_vec());
    };
    let live = items.clone();
    let merged = match merge {
        MergeBy::Value => merge_primitives(items, changes),
        MergeBy::Key(key) => merge_keyed(node.element(), items, changes, key)?,
    };
    match order {
        Some(order) => Ok(in_order(merged, as_list(ELEMENT_ORDER, order)?, &live, merge)),
        None => Ok(merged),
    }
}

fn merge_primitives(mut items: Vec<Value>, changes: &[Value]) -> Vec<Value> {
    for change in changes {
        if !items.contains(change) {
            items.push(change.clone());
        }
    }
    items
}

fn merge_keyed(element: Node<'_>, mut items: Vec<Value>, changes: &[Value], key: &str) -> Result<Vec<Value>> {
    if changes.iter().any(|change| change.get(DIRECTIVE).is_some_and(|d| d == "replace")) {
        // The whole list is replaced by the other elements.
        items.clear();
    }
    for change in changes {
        let Value::Object(fields) = change else {
            return Err(PatchError::Unprocessable(format!(
                "cannot merge a list by {key}: the patch has an element that is no object"
            )));
        };
        match fields.get(DIRECTIVE).and_then(Value::as_str) {
            Some("replace") => continue,
            Some("delete") => {
                let doomed = merge_key(fields, key)?;
                items.retain(|item| item.get(key) != Some(doomed));
                continue;
            }
            Some("merge") | None => {}
            Some(_) => return Err(unknown_directive(&fields[DIRECTIVE])),
        }
        let wanted = merge_key(fields, key)?;
        match items.iter_mut().find(|item| item.get(key) == Some(wanted)) {
            Some(found) => *found = merge_value(element, Some(found.take()), change, None)?,
            None => items.push(merge_value(element, None, change, None)?),
        }
    }
    Ok(items)
}

fn merge_key<'v>(fields: &'v Map<String, Value>, key: &str) -> Result<&'v Value> {
    fields.get(key).ok_or_else(|| {
        PatchError::Unprocessable(format!(
            "map: {} does not contain declared merge key: {key}",
            Value::Object(fields.clone())
        ))
    })
}

/// Elements that `order` names come in that order; the others keep their place in the live list as well as can be.
fn in_order(items: Vec<Value>, order: &[Value], live: &[Value], merge: &MergeBy) -> Vec<Value> {
    let identity = |item: &Value| match merge {
        MergeBy::Value => item.clone(),
        MergeBy::Key(key) => item.get(key.as_ref()).cloned().unwrap_or_default(),
    };
    let ordered: Vec<Value> = order.iter().map(identity).collect();
    let rank = |item: &Value| ordered.iter().position(|o| *o == identity(item));
    let (mut named, server_only): (Vec<Value>, Vec<Value>) = items.into_iter().partition(|item| rank(item).is_some());
    named.sort_by_key(|item| rank(item));
    let live_rank = |item: &Value| live.iter().position(|l| identity(l) == identity(item));
    let mut result = Vec::with_capacity(named.len() + server_only.len());
    let mut waiting = server_only.into_iter().peekable();
    for item in named {
        while let Some(next) = waiting.peek()
            && let (Some(before), Some(here)) = (live_rank(next), live_rank(&item))
            && before < here
        {
            result.extend(waiting.next());
        }
        result.push(item);
    }
    result.extend(waiting);
    result
}

fn as_list<'v>(directive: &str, value: &'v Value) -> Result<&'v [Value]> {
    value
        .as_array()
        .map(Vec::as_slice)
        .ok_or_else(|| PatchError::Malformed(format!("the value of {directive} must be a list")))
}

fn unknown_directive(value: &Value) -> PatchError {
    PatchError::Unprocessable(format!("Unknown patch type found in $patch: {value}"))
}
