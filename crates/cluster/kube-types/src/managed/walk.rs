//! Walks values along the schema: which fields are there, how two values merge, what differs, what is to go.

use super::field_set::FieldSet;
use crate::registry::Text;
use crate::schema::{Node, Relation};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// How one value is taken apart.
enum Parts<'v> {
    /// Replaced as a whole.
    Leaf,
    Fields(&'v Map<String, Value>),
    Items(&'v [Value], &'v Relation),
}

fn parts<'v>(node: Node<'v>, value: &'v Value) -> Parts<'v> {
    match value {
        Value::Object(fields) if !node.is_atomic() => Parts::Fields(fields),
        Value::Array(items) => match node.list().map(|list| &list.relation) {
            Some(relation @ (Relation::Set | Relation::Map(_))) => Parts::Items(items, relation),
            Some(Relation::Atomic) | None => Parts::Leaf,
        },
        _ => Parts::Leaf,
    }
}

/// The path element of a list's item; `None` when a keyed item has none of its keys.
fn element_of(node: Node<'_>, relation: &Relation, item: &Value) -> Option<String> {
    match relation {
        Relation::Map(keys) => {
            let found = keys.iter().filter_map(|key| Some((key.as_ref(), key_value(node.element(), key, item)?)));
            let found: BTreeMap<&str, Value> = found.collect();
            (!found.is_empty()).then(|| format!("k:{}", serde_json::to_string(&found).unwrap_or_default()))
        }
        Relation::Set | Relation::Atomic => Some(format!("v:{item}")),
    }
}

fn key_value(element: Node<'_>, key: &Text, item: &Value) -> Option<Value> {
    match item.get(key.as_ref()) {
        Some(value) if !value.is_null() => Some(value.clone()),
        _ => element.default_of(key).map(Value::from),
    }
}

/// Every keyed item of the configuration has its keys, and no two the same ones.
pub(super) fn check_lists(node: Node<'_>, value: &Value, path: &str) -> Result<(), String> {
    match parts(node, value) {
        Parts::Leaf => Ok(()),
        Parts::Fields(fields) => fields
            .iter()
            .try_for_each(|(key, child)| check_lists(node.child_or_any(key), child, &format!("{path}.{key}"))),
        Parts::Items(items, relation) => {
            let mut seen = Vec::new();
            for (at, item) in items.iter().enumerate() {
                if let Relation::Map(keys) = relation
                    && let Some(missing) = keys.iter().find(|key| key_value(node.element(), key, item).is_none())
                    && keys.len() == 1
                {
                    return Err(format!(
                        "{path}: element {at}: associative list with keys has an element that omits key field {missing:?} (and doesn't have default value)"
                    ));
                }
                let element = element_of(node, relation, item).ok_or_else(|| {
                    format!("{path}: element {at}: associative list with keys has an element that omits all key fields")
                })?;
                if seen.contains(&element) {
                    return Err(format!("{path}: duplicate entries for key {element}"));
                }
                seen.push(element);
                check_lists(node.element(), item, &format!("{path}[{at}]"))?;
            }
            Ok(())
        }
    }
}

/// The fields that a configuration names.
pub(super) fn field_set(node: Node<'_>, value: &Value) -> FieldSet {
    collect(node, value, false)
}

/// `whole` also marks the maps and lists themselves: they came to be with this write.
fn collect(node: Node<'_>, value: &Value, whole: bool) -> FieldSet {
    let mut set = FieldSet::default();
    match parts(node, value) {
        Parts::Leaf => set.owned = true,
        Parts::Fields(fields) => {
            set.owned = fields.is_empty() || whole && node.struct_type().is_none();
            for (key, child) in fields {
                set.insert(format!("f:{key}"), collect(node.child_or_any(key), child, whole));
            }
        }
        Parts::Items(items, relation) => {
            set.owned = items.is_empty() || whole;
            for item in items {
                if let Some(element) = element_of(node, relation, item) {
                    let mut child = collect(node.element(), item, whole);
                    child.owned = true;
                    set.insert(element, child);
                }
            }
        }
    }
    set
}

/// `config` over `live`.
pub(super) fn merge(node: Node<'_>, live: Option<&Value>, config: &Value) -> Value {
    match (parts(node, config), live) {
        (Parts::Fields(changes), Some(Value::Object(current))) => {
            let mut fields = current.clone();
            for (key, change) in changes {
                let merged = merge(node.child_or_any(key), current.get(key), change);
                fields.insert(key.clone(), merged);
            }
            Value::Object(fields)
        }
        (Parts::Items(items, relation), Some(Value::Array(current))) => {
            Value::Array(merge_items(node, relation, current, items))
        }
        _ => config.clone(),
    }
}

/// The configuration's items in its own order; what only the live list has comes as early as it can: before whatever
/// followed it there, and before what is new.
fn merge_items(node: Node<'_>, relation: &Relation, live: &[Value], config: &[Value]) -> Vec<Value> {
    let element = |item: &Value| element_of(node, relation, item);
    let live_elements: Vec<Option<String>> = live.iter().map(element).collect();
    let config_elements: Vec<Option<String>> = config.iter().map(element).collect();
    let places: Vec<Option<usize>> =
        config_elements.iter().map(|e| live_elements.iter().position(|live| live == e)).collect();
    let mut waiting = (0..live.len()).filter(|at| !config_elements.contains(&live_elements[*at])).peekable();
    let mut merged = Vec::with_capacity(live.len() + config.len());
    for (at, item) in config.iter().enumerate() {
        // A new item stands where the next shared one does.
        let bound = places[at..].iter().flatten().next().copied().unwrap_or(live.len());
        while let Some(next) = waiting.next_if(|next| *next < bound) {
            merged.push(live[next].clone());
        }
        merged.push(merge(node.element(), places[at].map(|place| &live[place]), item));
    }
    merged.extend(waiting.map(|at| live[at].clone()));
    merged
}

/// Removes what the applier named last time, names no longer, and nobody else owns.
pub(super) fn prune(node: Node<'_>, value: &mut Value, last: &FieldSet, config: &FieldSet, others: &FieldSet) {
    let nothing = FieldSet::default();
    for (element, last_child) in &last.children {
        let (mine, theirs) = (config.children.get(element), others.children.get(element));
        if mine.is_none() && theirs.is_none() {
            remove_element(node, value, element);
        } else if let Some((child_node, child)) = child_at(node, value, element) {
            prune(child_node, child, last_child, mine.unwrap_or(&nothing), theirs.unwrap_or(&nothing));
        }
    }
}

fn child_at<'n, 'v>(node: Node<'n>, value: &'v mut Value, element: &str) -> Option<(Node<'n>, &'v mut Value)> {
    match value {
        Value::Object(fields) => {
            let key = element.strip_prefix("f:")?;
            Some((node.child_or_any(key), fields.get_mut(key)?))
        }
        Value::Array(items) => {
            let relation = &node.list()?.relation;
            let found = items.iter_mut().find(|item| element_of(node, relation, item).as_deref() == Some(element))?;
            Some((node.element(), found))
        }
        _ => None,
    }
}

fn remove_element(node: Node<'_>, value: &mut Value, element: &str) {
    match (value, node.list()) {
        (Value::Object(fields), _) => {
            if let Some(key) = element.strip_prefix("f:") {
                fields.remove(key);
            }
        }
        (Value::Array(items), Some(list)) => {
            items.retain(|item| element_of(node, &list.relation, item).as_deref() != Some(element))
        }
        _ => {}
    }
}

/// What a write did.
#[derive(Default)]
pub(super) struct Changes {
    pub(super) added: FieldSet,
    pub(super) removed: FieldSet,
    pub(super) modified: FieldSet,
}

impl Changes {
    fn insert(&mut self, element: &str, child: Changes) {
        self.added.insert(element.to_owned(), child.added);
        self.removed.insert(element.to_owned(), child.removed);
        self.modified.insert(element.to_owned(), child.modified);
    }
}

pub(super) fn compare(node: Node<'_>, old: Option<&Value>, new: Option<&Value>) -> Changes {
    let mut changes = Changes::default();
    match (old, new) {
        (None, None) => {}
        (None, Some(new)) => changes.added = collect(node, new, true),
        (Some(old), None) => changes.removed = collect(node, old, true),
        (Some(old), Some(new)) => match (parts(node, old), parts(node, new)) {
            (Parts::Fields(before), Parts::Fields(after)) => {
                let added = after.keys().filter(|key| !before.contains_key(*key));
                for key in before.keys().chain(added) {
                    changes
                        .insert(&format!("f:{key}"), compare(node.child_or_any(key), before.get(key), after.get(key)));
                }
            }
            (Parts::Items(before, relation), Parts::Items(after, _)) => {
                compare_items(node, relation, before, after, &mut changes)
            }
            _ if old != new => changes.modified = FieldSet::leaf(),
            _ => {}
        },
    }
    changes
}

fn compare_items(node: Node<'_>, relation: &Relation, before: &[Value], after: &[Value], changes: &mut Changes) {
    let indexed = |items| -> BTreeMap<String, &Value> {
        let items: &[Value] = items;
        items.iter().filter_map(|item| Some((element_of(node, relation, item)?, item))).collect()
    };
    let (before, after) = (indexed(before), indexed(after));
    let added = after.keys().filter(|element| !before.contains_key(*element));
    for element in before.keys().chain(added) {
        let (old, new) = (before.get(element).copied(), after.get(element).copied());
        let mut inner = compare(node.element(), old, new);
        inner.added.owned |= old.is_none();
        inner.removed.owned |= new.is_none();
        changes.insert(element, inner);
    }
}
