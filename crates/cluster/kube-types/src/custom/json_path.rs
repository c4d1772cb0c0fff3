//! The small JSON paths of definitions: `.a.b`, `['a.b']`, `[0]`, `[*]`, `[?(@.type=="Ready")]`.
//!
//! Used for printer columns, selectable fields and scale paths. What cannot be read finds nothing.

use serde_json::Value;

enum Step<'p> {
    Key(&'p str),
    Index(i64),
    All,
    Where { path: Vec<&'p str>, equal: bool, value: &'p str },
}

/// Every value at the path, in order.
pub fn find<'v>(object: &'v Value, path: &str) -> Vec<&'v Value> {
    let Some(steps) = parse(path) else { return Vec::new() };
    steps.iter().fold(vec![object], |found, step| found.into_iter().flat_map(|value| take(value, step)).collect())
}

/// The value at a path of keys alone, the leading dot being optional.
pub fn at<'v>(object: &'v Value, path: &str) -> Option<&'v Value> {
    find(object, path).into_iter().next()
}

/// Sets the value at a path of keys, making objects on the way. False if something else stands there.
pub fn set(object: &mut Value, path: &str, value: Value) -> bool {
    let keys: Vec<&str> = path.trim_start_matches('.').split('.').collect();
    let Some((last, parents)) = keys.split_last() else { return false };
    let mut place = object;
    for key in parents {
        let Some(fields) = place.as_object_mut() else { return false };
        place = fields.entry((*key).to_owned()).or_insert_with(|| Value::Object(serde_json::Map::new()));
    }
    place.as_object_mut().map(|fields| fields.insert((*last).to_owned(), value)).is_some()
}

/// Whether the path can be read at all.
pub fn is_valid(path: &str) -> bool {
    parse(path).is_some()
}

fn take<'v>(value: &'v Value, step: &Step<'_>) -> Vec<&'v Value> {
    match (step, value) {
        (Step::Key(key), Value::Object(fields)) => fields.get(*key).into_iter().collect(),
        (Step::Index(at), Value::Array(items)) => {
            let length = i64::try_from(items.len()).unwrap_or(i64::MAX);
            let at = if *at < 0 { length + at } else { *at };
            usize::try_from(at).ok().and_then(|at| items.get(at)).into_iter().collect()
        }
        (Step::All, Value::Array(items)) => items.iter().collect(),
        (Step::All, Value::Object(fields)) => fields.values().collect(),
        (Step::Where { path, equal, value }, Value::Array(items)) => items
            .iter()
            .filter(|item| {
                let found = path.iter().try_fold(*item, |value, key| value.get(*key));
                found.is_some_and(|found| (plain(found) == *value) == *equal)
            })
            .collect(),
        _ => Vec::new(),
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn parse(path: &str) -> Option<Vec<Step<'_>>> {
    let path = path.trim();
    let mut rest = path.strip_prefix('{').and_then(|inner| inner.strip_suffix('}')).unwrap_or(path);
    rest = rest.strip_prefix('$').unwrap_or(rest);
    let mut steps = Vec::new();
    if !rest.starts_with(['.', '[']) && !rest.is_empty() {
        let end = rest.find(['.', '[']).unwrap_or(rest.len());
        steps.push(Step::Key(&rest[..end]));
        rest = &rest[end..];
    }
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('[') {
            let end = closing(after)?;
            steps.push(bracket(&after[..end])?);
            rest = &after[end + 1..];
        } else {
            let after = rest.strip_prefix('.')?;
            let end = key_end(after);
            if end > 0 {
                steps.push(if &after[..end] == "*" { Step::All } else { Step::Key(&after[..end]) });
            } else if !after.starts_with('[') && !after.is_empty() {
                return None;
            }
            rest = &after[end..];
        }
    }
    Some(steps)
}

fn key_end(text: &str) -> usize {
    text.find(['.', '[']).unwrap_or(text.len())
}

/// The bracket that closes, outside quotes.
fn closing(text: &str) -> Option<usize> {
    let mut quote = None;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (None, ']') => return Some(at),
            (None, '\'' | '"') => quote = Some(c),
            (Some(open), c) if c == open => quote = None,
            _ => {}
        }
    }
    None
}

fn unquote(text: &str) -> Option<&str> {
    let text = text.trim();
    ['\'', '"'].iter().find_map(|q| text.strip_prefix(*q)?.strip_suffix(*q))
}

fn bracket(inner: &str) -> Option<Step<'_>> {
    let inner = inner.trim();
    if inner == "*" {
        return Some(Step::All);
    }
    if let Some(key) = unquote(inner) {
        return Some(Step::Key(key));
    }
    if let Some(condition) = inner.strip_prefix("?(").and_then(|rest| rest.strip_suffix(')')) {
        let (left, right, equal) = match condition.split_once("==") {
            Some((left, right)) => (left, right, true),
            None => condition.split_once("!=").map(|(left, right)| (left, right, false))?,
        };
        let path = left.trim().strip_prefix("@.")?.split('.').collect();
        let right = right.trim();
        return Some(Step::Where { path, equal, value: unquote(right).unwrap_or(right) });
    }
    inner.parse().ok().map(Step::Index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn columns_paths_find_what_they_name() {
        let object = json!({"spec": {"a.b": 1, "list": [{"type": "Ready", "status": "True"}, {"type": "Other", "status": "False"}]}});
        for (path, expected) in [
            (".spec['a.b']", json!([1])),
            (".spec.list[0].type", json!(["Ready"])),
            (".spec.list[-1].type", json!(["Other"])),
            (".spec.list[*].type", json!(["Ready", "Other"])),
            (".spec.list[?(@.type==\"Ready\")].status", json!(["True"])),
            (".spec.list[?(@.type=='Other')].status", json!(["False"])),
            ("{.spec.list[1].status}", json!(["False"])),
            (".spec.none.at.all", json!([])),
            (".spec[", json!([])),
        ] {
            assert_eq!(json!(find(&object, path)), expected, "{path}");
        }
        let mut object = json!({});
        assert!(set(&mut object, ".spec.replicas", 3.into()) && object == json!({"spec": {"replicas": 3}}));
        assert!(!set(&mut object, ".spec.replicas.deeper", 3.into()));
    }
}
