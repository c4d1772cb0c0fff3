//! A set of field paths as a tree, one to one with `FieldsV1`.
//!
//! A node's key is its `FieldsV1` text: `f:NAME`, `k:{KEYS}`, `v:VALUE`. A node that is owned itself is a leaf or has `.`.

use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Nesting that no real entry has; a deeper one was made to exhaust the stack.
const MAX_DEPTH: usize = 100;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct FieldSet {
    pub(super) owned: bool,
    pub(super) children: BTreeMap<String, FieldSet>,
}

impl FieldSet {
    pub(super) fn leaf() -> Self {
        Self { owned: true, children: BTreeMap::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        !self.owned && self.children.is_empty()
    }

    /// Adds a child, unless there is nothing in it.
    pub(super) fn insert(&mut self, element: String, child: FieldSet) {
        if !child.is_empty() {
            self.children.insert(element, child);
        }
    }

    pub(super) fn union(&self, other: &FieldSet) -> FieldSet {
        let mut all = self.clone();
        all.owned |= other.owned;
        for (element, child) in &other.children {
            let merged = all.children.get(element).map_or_else(|| child.clone(), |mine| mine.union(child));
            all.children.insert(element.clone(), merged);
        }
        all
    }

    pub(super) fn intersection(&self, other: &FieldSet) -> FieldSet {
        let mut common = FieldSet { owned: self.owned && other.owned, children: BTreeMap::new() };
        for (element, child) in &self.children {
            if let Some(theirs) = other.children.get(element) {
                common.insert(element.clone(), child.intersection(theirs));
            }
        }
        common
    }

    pub(super) fn difference(&self, other: &FieldSet) -> FieldSet {
        let mut rest = FieldSet { owned: self.owned && !other.owned, children: BTreeMap::new() };
        for (element, child) in &self.children {
            let left = other.children.get(element).map_or_else(|| child.clone(), |theirs| child.difference(theirs));
            rest.insert(element.clone(), left);
        }
        rest
    }

    /// Every owned path, as messages show it: `.spec.containers[name="a"].image`.
    pub(super) fn paths(&self) -> Vec<String> {
        let mut found = Vec::new();
        self.collect("", &mut found);
        found
    }

    fn collect(&self, path: &str, found: &mut Vec<String>) {
        if self.owned {
            found.push(path.to_owned());
        }
        for (element, child) in &self.children {
            child.collect(&format!("{path}{}", shown(element)), found);
        }
    }

    pub(super) fn from_fields_v1(fields: &Value) -> Self {
        Self::read(fields, 0)
    }

    fn read(fields: &Value, depth: usize) -> Self {
        let Some(map) = fields.as_object() else {
            return Self::default();
        };
        let mut set = Self { owned: map.contains_key("."), children: BTreeMap::new() };
        for (element, child) in map.iter().filter(|(element, _)| *element != ".") {
            let mut inner = if depth < MAX_DEPTH { Self::read(child, depth + 1) } else { Self::default() };
            // Nothing beneath it: the field itself is owned.
            inner.owned |= inner.children.is_empty();
            set.children.insert(element.clone(), inner);
        }
        set
    }

    pub(super) fn to_fields_v1(&self) -> Value {
        let mut map = Map::new();
        if self.owned && !self.children.is_empty() {
            map.insert(".".to_owned(), Value::Object(Map::new()));
        }
        for (element, child) in &self.children {
            map.insert(element.clone(), child.to_fields_v1());
        }
        Value::Object(map)
    }
}

fn shown(element: &str) -> String {
    match element.split_once(':') {
        Some(("f", name)) => format!(".{name}"),
        Some(("v", value)) => format!("[={value}]"),
        Some(("k", keys)) => {
            let keys: BTreeMap<String, Value> = serde_json::from_str(keys).unwrap_or_default();
            let pairs: Vec<String> = keys.iter().map(|(key, value)| format!("{key}={value}")).collect();
            format!("[{}]", pairs.join(","))
        }
        Some((_, index)) => format!("[{index}]"),
        None => format!(".{element}"),
    }
}
