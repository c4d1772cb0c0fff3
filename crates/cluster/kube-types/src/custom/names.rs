//! Names of custom resources: the order of their versions, their OpenAPI name, and whether a definition may have the names
//! that it wants.
//!
//! Called by the API server's follower of definitions. [`decide`] is pure: it sees the names that others in the group hold.

use serde_json::{Value, json};
use std::cmp::Ordering;

/// `v2` before `v1` before `v1beta2` before `v1beta1` before `v1alpha1` before anything else, in alphabetical order.
pub fn compare_versions(a: &str, b: &str) -> Ordering {
    match (rank(a), rank(b)) {
        (Some(a), Some(b)) => b.cmp(&a),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => a.cmp(b),
    }
}

/// (stability, major, minor)
fn rank(version: &str) -> Option<(u8, u64, u64)> {
    let rest = version.strip_prefix('v')?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let major: u64 = rest[..digits].parse().ok().filter(|_| !rest.starts_with('0'))?;
    let rest = &rest[digits..];
    for (word, stability) in [("alpha", 0), ("beta", 1)] {
        if let Some(minor) = rest.strip_prefix(word) {
            return Some((stability, major, minor.parse().ok().filter(|_| !minor.starts_with('0'))?));
        }
    }
    rest.is_empty().then_some((2, major, 0))
}

/// `com.example.stable.v1.CronTab` of group `stable.example.com`.
pub fn openapi_name(group: &str, version: &str, kind: &str) -> String {
    let mut parts: Vec<&str> = group.split('.').collect();
    parts.reverse();
    format!("{}.{version}.{kind}", parts.join("."))
}

/// What a definition's status is to say about its names.
#[derive(Debug, PartialEq)]
pub struct Naming {
    pub accepted: Value,
    /// NamesAccepted: the reason and message; `true` when all are.
    pub all_accepted: (bool, &'static str, String),
    /// Established is true from now on, or was before.
    pub established: (bool, &'static str, &'static str),
}

/// `others` are the accepted names of the group's other definitions, each plural, singular, short names, kind, list kind.
pub fn decide(definition: &Value, others: &[&Value]) -> Naming {
    let wanted = &definition["spec"]["names"];
    let had = &definition["status"]["acceptedNames"];
    let mut resources: Vec<&str> = Vec::new();
    let mut kinds: Vec<&str> = Vec::new();
    for names in others {
        resources.extend(["plural", "singular"].iter().filter_map(|key| names[*key].as_str()));
        resources.extend(names["shortNames"].as_array().into_iter().flatten().filter_map(Value::as_str));
        kinds.extend(["kind", "listKind"].iter().filter_map(|key| names[*key].as_str()));
    }
    resources.retain(|name| !name.is_empty());
    kinds.retain(|name| !name.is_empty());
    let mut accepted = if had.is_object() { had.clone() } else { json!({"plural": "", "kind": ""}) };
    let mut refusal: Option<(&'static str, String)> = None;
    let mut judge = |key: &str, reason: &'static str, taken: &[&str]| {
        let name = wanted[key].as_str().unwrap_or_default();
        if taken.contains(&name) {
            refusal = Some((reason, format!("{name:?} is already in use")));
        } else if !name.is_empty() {
            accepted[key] = name.into();
        }
    };
    judge("plural", "PluralConflict", &resources);
    judge("singular", "SingularConflict", &resources);
    judge("kind", "KindConflict", &kinds);
    judge("listKind", "ListKindConflict", &kinds);
    let short: Vec<&str> = wanted["shortNames"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let clashes: Vec<String> =
        short.iter().filter(|name| resources.contains(name)).map(|name| format!("{name:?} is already in use")).collect();
    if clashes.is_empty() {
        set_list(&mut accepted, "shortNames", &short);
    } else {
        let text = if clashes.len() == 1 { clashes[0].clone() } else { format!("[{}]", clashes.join(", ")) };
        refusal = Some(("ShortNamesConflict", text));
    }
    let categories: Vec<&str> =
        wanted["categories"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    set_list(&mut accepted, "categories", &categories);
    let was_established = condition(definition, "Established") == Some("True");
    let all_accepted = match refusal {
        None => (true, "NoConflicts", "no conflicts found".to_owned()),
        Some((reason, message)) => (false, reason, message),
    };
    let established = if was_established || all_accepted.0 {
        (true, "InitialNamesAccepted", "the initial names have been accepted")
    } else {
        (false, "NotAccepted", "not all names are accepted")
    };
    Naming { accepted, all_accepted, established }
}

fn set_list(names: &mut Value, key: &str, list: &[&str]) {
    if let Some(names) = names.as_object_mut() {
        if list.is_empty() {
            names.remove(key);
        } else {
            names.insert(key.to_owned(), json!(list));
        }
    }
}

/// The status of a condition of the definition.
pub fn condition<'v>(definition: &'v Value, kind: &str) -> Option<&'v str> {
    let conditions = definition["status"]["conditions"].as_array();
    conditions.into_iter().flatten().find(|c| c["type"] == kind).and_then(|c| c["status"].as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_as_kubernetes_prefers_them() {
        let mut versions = ["v10beta3", "foo1", "v1", "v11alpha2", "v3beta1", "v10", "v2", "foo10", "v11beta2", "v12alpha1"];
        versions.sort_by(|a, b| compare_versions(a, b));
        assert_eq!(
            versions,
            ["v10", "v2", "v1", "v11beta2", "v10beta3", "v3beta1", "v12alpha1", "v11alpha2", "foo1", "foo10"]
        );
    }

    #[test]
    fn names_that_others_hold_are_not_accepted() {
        let wanted = json!({"plural": "crontabs", "singular": "crontab", "kind": "CronTab", "listKind": "CronTabList", "shortNames": ["ct"]});
        let definition = json!({"spec": {"names": wanted}});
        let naming = decide(&definition, &[]);
        assert_eq!((&naming.accepted, naming.all_accepted.0, naming.established.0), (&wanted, true, true));
        let other = json!({"plural": "others", "singular": "other", "kind": "CronTab", "listKind": "OtherList"});
        let naming = decide(&definition, &[&other]);
        assert_eq!(naming.all_accepted, (false, "KindConflict", "\"CronTab\" is already in use".to_owned()));
        assert_eq!((naming.accepted["kind"].clone(), naming.established.0), (json!(""), false));
    }

    #[test]
    fn openapi_names_turn_the_group_around() {
        assert_eq!(openapi_name("stable.example.com", "v1", "CronTab"), "com.example.stable.v1.CronTab");
    }
}
