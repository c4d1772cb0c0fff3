//! Who owns which field: server-side apply and managedFields.
//!
//! Called by the API server: [`apply`] for apply patches, [`record_update`] for every other write, last before storing.
//! Follows structured-merge-diff: sets, keyed lists, granular and atomic maps as the schema says. Invariant: applying the same
//! configuration again changes nothing, not even a time stamp. Versions of one kind share field names here, so entries of
//! another version are taken as they are.

mod entries;
mod field_set;
mod walk;

use crate::lifecycle::Subresource;
use crate::meta;
use crate::registry::Resource;
use entries::{Entry, Operation};
use field_set::FieldSet;
use jiff::Timestamp;
use serde_json::Value;
use std::fmt;

/// One field that another manager owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// `"x" using apps/v1`: the owner, as messages name it.
    pub manager: String,
    /// `.spec.replicas`
    pub field: String,
    /// `conflict with "x" using apps/v1`, the message of the status cause.
    pub message: String,
}

/// `Display` is the message of the Conflict status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflicts(pub Vec<Conflict>);

#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// 409, see [`crate::status::apply_conflict`].
    #[error("{0}")]
    Conflicts(Conflicts),
    /// 400: the configuration cannot be merged (duplicate list keys, missing keys, managedFields set …).
    #[error("{0}")]
    Invalid(String),
}

impl fmt::Display for Conflicts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [only] = self.0.as_slice() {
            return write!(f, "Apply failed with 1 conflict: {}: {}", only.message, only.field);
        }
        write!(f, "Apply failed with {} conflicts: ", self.0.len())?;
        let mut managers: Vec<&str> = self.0.iter().map(|c| c.manager.as_str()).collect();
        managers.sort_unstable();
        managers.dedup();
        for (at, manager) in managers.iter().enumerate() {
            write!(f, "{}conflicts with {manager}:", if at > 0 { "\n" } else { "" })?;
            for conflict in self.0.iter().filter(|c| c.manager == *manager) {
                write!(f, "\n- {}", conflict.field)?;
            }
        }
        Ok(())
    }
}

/// Server-side apply. `live` is `None` when the object is to be created; `config` is decoded but not defaulted.
/// Returns the merged object with its managedFields; the caller defaults, validates and stores it.
pub fn apply(
    resource: &Resource,
    live: Option<&Value>,
    config: &Value,
    manager: &str,
    force: bool,
    subresource: Subresource<'_>,
    now: Timestamp,
) -> Result<Value, ApplyError> {
    if config["metadata"]["managedFields"].as_array().is_some_and(|list| !list.is_empty()) {
        return Err(ApplyError::Invalid("metadata.managedFields must be nil".to_owned()));
    }
    let root = resource.root();
    walk::check_lists(root, config, "").map_err(ApplyError::Invalid)?;
    let empty = Value::Object(serde_json::Map::new());
    let before = live.unwrap_or(&empty);
    let mut entries = live.map_or_else(Vec::new, |live| entries::read(resource, live));
    let mine = Entry::new(manager, Operation::Apply, resource, subresource, FieldSet::default());
    let at = entries.iter().position(|entry| entry.is_same_writer(&mine));
    let last = at.map(|at| entries.remove(at));

    let config_fields = walk::field_set(root, config);
    let mut merged = walk::merge(root, Some(before), config);
    let others = entries.iter().fold(FieldSet::default(), |all, entry| all.union(&entry.fields));
    if let Some(last) = &last {
        walk::prune(root, &mut merged, &last.fields, &config_fields, &others);
    }
    keep_identity(before, &mut merged);

    let changes = walk::compare(root, Some(before), Some(&merged));
    let changed = changes.added.union(&changes.modified);
    let conflicts = conflicts(&entries, &changed);
    if !conflicts.is_empty() && !force {
        return Err(ApplyError::Conflicts(Conflicts(conflicts)));
    }
    let taken = changed.union(&changes.removed);
    for entry in &mut entries {
        entry.fields = entry.fields.difference(&taken);
    }
    let fields = entries::tracked(resource, subresource, &config_fields);
    let time = match &last {
        Some(last) if last.fields == fields => last.time,
        _ => Some(now),
    };
    entries.push(Entry { fields, time: time.or(Some(now)), ..mine });
    entries::write(&mut merged, entries);
    Ok(merged)
}

/// `config` merged over `live` as apply merges it, without regard to owners.
pub fn merge(resource: &Resource, live: &Value, config: &Value) -> Result<Value, ApplyError> {
    let root = resource.root();
    walk::check_lists(root, config, "").map_err(ApplyError::Invalid)?;
    Ok(walk::merge(root, Some(live), config))
}

/// The configuration may not say what only the server says.
fn keep_identity(before: &Value, merged: &mut Value) {
    for field in ["uid", "resourceVersion", "creationTimestamp", "generation", "managedFields"] {
        if let Some(value) = before.get("metadata").and_then(|m| m.get(field)) {
            meta::set(merged, field, Some(value.clone()));
        }
    }
}

fn conflicts(entries: &[Entry], changed: &FieldSet) -> Vec<Conflict> {
    let mut found = Vec::new();
    for entry in entries {
        for field in entry.fields.intersection(changed).paths() {
            let manager = entry.shown();
            found.push(Conflict { message: format!("conflict with {manager}"), manager, field });
        }
    }
    found
}

/// managedFields of a create (`old` is `None`), update or patch. Call it last, just before storing.
/// What changed belongs to `manager` now and to nobody else; what is gone belongs to nobody.
pub fn record_update(
    resource: &Resource,
    old: Option<&Value>,
    new: &mut Value,
    manager: &str,
    subresource: Subresource<'_>,
    now: Timestamp,
) {
    let mut entries = match new.get("metadata").and_then(|m| m.get("managedFields")).and_then(Value::as_array) {
        // A client that sends an entry list replaces the list; one empty entry resets it.
        Some(_) => entries::read_given(new),
        None => old.map_or_else(Vec::new, entries::read_given),
    };
    let changes = walk::compare(resource.root(), old, Some(new));
    let gained = entries::tracked(resource, subresource, &changes.added.union(&changes.modified));
    let lost = gained.union(&changes.removed);
    let mine = Entry::new(manager, Operation::Update, resource, subresource, FieldSet::default());
    let at = entries.iter().position(|entry| entry.is_same_writer(&mine));
    let last = at.map(|at| entries.remove(at));
    for entry in &mut entries {
        entry.fields = entry.fields.difference(&lost);
    }
    let before = last.as_ref().map(|last| last.fields.clone()).unwrap_or_default();
    let fields = before.difference(&changes.removed).union(&gained);
    let time = match last {
        Some(last) if last.fields == fields && gained.is_empty() => last.time,
        _ => Some(now),
    };
    if !fields.is_empty() {
        entries.push(Entry { fields, time, ..mine });
    }
    entries::cap(&mut entries);
    entries::write(new, entries);
}

#[cfg(test)]
mod tests;
