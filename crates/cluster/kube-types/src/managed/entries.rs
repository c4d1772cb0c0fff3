//! `metadata.managedFields`: who wrote, how, when, and which fields are theirs.

use super::field_set::FieldSet;
use crate::lifecycle::Subresource;
use crate::meta;
use crate::registry::Resource;
use crate::time;
use jiff::Timestamp;
use serde_json::{Value, json};

/// Updaters beyond this many share one entry, oldest first, so that objects stay small.
const MAX_UPDATERS: usize = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Operation {
    Apply,
    Update,
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) manager: String,
    pub(super) operation: Operation,
    pub(super) api_version: String,
    pub(super) subresource: String,
    pub(super) time: Option<Timestamp>,
    pub(super) fields: FieldSet,
}

impl Entry {
    pub(super) fn new(
        manager: &str,
        operation: Operation,
        resource: &Resource,
        subresource: Subresource<'_>,
        fields: FieldSet,
    ) -> Self {
        Self {
            manager: manager.to_owned(),
            operation,
            api_version: resource.api_version(),
            subresource: subresource.as_str().to_owned(),
            time: None,
            fields,
        }
    }

    /// One writer has one entry; an updater has one per version, an applier one for all.
    pub(super) fn is_same_writer(&self, other: &Entry) -> bool {
        self.manager == other.manager
            && self.operation == other.operation
            && self.subresource == other.subresource
            && (self.operation == Operation::Apply || self.api_version == other.api_version)
    }

    /// As conflict messages name it.
    pub(super) fn shown(&self) -> String {
        let mut text = format!("{:?}", self.manager);
        if !self.subresource.is_empty() {
            text.push_str(&format!(" with subresource {:?}", self.subresource));
        }
        if self.operation == Operation::Update {
            text.push_str(&format!(" using {}", self.api_version));
        }
        text
    }
}

/// The entries of a live object. One that nobody recorded yet belongs to `before-first-apply`, so that the first applier
/// takes nothing over unasked.
pub(super) fn read(resource: &Resource, live: &Value) -> Vec<Entry> {
    let given = read_given(live);
    if !given.is_empty() {
        return given;
    }
    let fields = tracked(resource, Subresource::Main, &super::walk::field_set(resource.root(), live));
    vec![Entry::new("before-first-apply", Operation::Update, resource, Subresource::Main, fields)]
}

/// The entries that stand in the object; what cannot be read is left out.
pub(super) fn read_given(object: &Value) -> Vec<Entry> {
    let list = object.get("metadata").and_then(|m| m.get("managedFields")).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(entry).collect()
}

fn entry(value: &Value) -> Option<Entry> {
    let text = |field: &str| value.get(field).and_then(Value::as_str).unwrap_or("").to_owned();
    let operation = match value.get("operation").and_then(Value::as_str)? {
        "Apply" => Operation::Apply,
        "Update" => Operation::Update,
        _ => return None,
    };
    Some(Entry {
        manager: text("manager"),
        operation,
        api_version: text("apiVersion"),
        subresource: text("subresource"),
        time: time::parse(&text("time")),
        fields: FieldSet::from_fields_v1(value.get("fieldsV1")?),
    })
}

/// Sorted as Kubernetes sorts them: appliers first, then by time, then by name.
pub(super) fn write(object: &mut Value, mut entries: Vec<Entry>) {
    entries.retain(|entry| !entry.fields.is_empty());
    entries.sort_by(|a, b| {
        (a.operation, a.time.map(|t| t.as_second()), &a.manager, &a.api_version, &a.subresource).cmp(&(
            b.operation,
            b.time.map(|t| t.as_second()),
            &b.manager,
            &b.api_version,
            &b.subresource,
        ))
    });
    let list: Vec<Value> = entries.iter().map(to_value).collect();
    meta::set(object, "managedFields", (!list.is_empty()).then_some(Value::Array(list)));
}

fn to_value(entry: &Entry) -> Value {
    let mut value = json!({
        "manager": entry.manager,
        "operation": match entry.operation {
            Operation::Apply => "Apply",
            Operation::Update => "Update",
        },
        "apiVersion": entry.api_version,
        "fieldsType": "FieldsV1",
        "fieldsV1": entry.fields.to_fields_v1(),
    });
    if let Some(at) = entry.time {
        value["time"] = time::rfc3339(at).into();
    }
    if !entry.subresource.is_empty() {
        value["subresource"] = entry.subresource.clone().into();
    }
    value
}

/// Merges the oldest updaters into one when there are too many.
pub(super) fn cap(entries: &mut Vec<Entry>) {
    let updaters = entries.iter().filter(|e| e.operation == Operation::Update && e.subresource.is_empty()).count();
    let Some(surplus) = updaters.checked_sub(MAX_UPDATERS).filter(|n| *n > 0) else {
        return;
    };
    entries.sort_by_key(|entry| entry.time);
    let mut ancient: Option<Entry> = None;
    let mut left = surplus + 1;
    entries.retain(|entry| {
        if left == 0 || entry.operation != Operation::Update || !entry.subresource.is_empty() {
            return true;
        }
        left -= 1;
        ancient = Some(match ancient.take() {
            None => Entry { manager: "ancient-changes".to_owned(), ..entry.clone() },
            Some(old) => Entry { fields: old.fields.union(&entry.fields), time: entry.time, ..old },
        });
        false
    });
    entries.extend(ancient);
}

/// Leaves out what nobody can own (identity, what the server sets) and what a write to this subresource cannot change.
pub(super) fn tracked(resource: &Resource, subresource: Subresource<'_>, fields: &FieldSet) -> FieldSet {
    const IDENTITY: [&str; 12] = [
        "f:name",
        "f:namespace",
        "f:creationTimestamp",
        "f:selfLink",
        "f:uid",
        "f:generation",
        "f:managedFields",
        "f:resourceVersion",
        "f:deletionTimestamp",
        "f:deletionGracePeriodSeconds",
        "f:generateName",
        ".",
    ];
    let mut kept = FieldSet::default();
    for (element, child) in &fields.children {
        let mut child = child.clone();
        match (element.as_str(), subresource) {
            ("f:apiVersion" | "f:kind", _) => continue,
            ("f:metadata", _) => {
                child.owned = false;
                child.children.retain(|name, _| !IDENTITY.contains(&name.as_str()));
            }
            ("f:status", Subresource::Main) if resource.has_subresource("status") => continue,
            ("f:status", _) => {}
            (_, Subresource::Status) => continue,
            (_, Subresource::Main | Subresource::Named(_)) => {}
        }
        kept.insert(element.clone(), child);
    }
    kept
}
