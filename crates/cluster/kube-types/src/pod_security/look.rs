//! Reading a pod for the rules: its containers of all kinds, and how they are named in messages.

use serde_json::Value;

/// Containers of all three lists, with their names.
pub(super) fn containers(pod: &Value) -> impl Iterator<Item = (&str, &Value)> {
    ["initContainers", "containers", "ephemeralContainers"]
        .into_iter()
        .flat_map(|list| pod["spec"][list].as_array().into_iter().flatten())
        .map(|container| (container["name"].as_str().unwrap_or_default(), container))
}

/// Names of the containers for which `breaks` holds.
pub(super) fn breaking<'p>(pod: &'p Value, breaks: impl Fn(&'p Value) -> bool) -> Vec<&'p str> {
    containers(pod).filter(|(_, container)| breaks(container)).map(|(name, _)| name).collect()
}

/// `container "a"`, `containers "a", "b"`
pub(super) fn named(names: &[&str]) -> String {
    format!("{} {}", if names.len() == 1 { "container" } else { "containers" }, quoted(names))
}

pub(super) fn quoted(values: &[&str]) -> String {
    values.iter().map(|value| format!("{value:?}")).collect::<Vec<_>>().join(", ")
}

/// Sorted, each once.
pub(super) fn distinct<'v>(values: impl IntoIterator<Item = &'v str>) -> Vec<&'v str> {
    let mut values: Vec<&str> = values.into_iter().collect();
    values.sort_unstable();
    values.dedup();
    values
}

pub(super) fn texts(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str)
}

/// `value`, `values`
pub(super) fn plural(count: usize, word: &str) -> String {
    if count == 1 { word.to_owned() } else { format!("{word}s") }
}
