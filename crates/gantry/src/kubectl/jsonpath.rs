//! JSONPath templates as kubectl has them, the part that scripts use: `{.a.b[0].c}`, `[*]`, `['a.b']`, text and `\n` between.

use anyhow::{Result, bail};
use serde_json::Value;

/// Renders a template. Missing fields print as nothing.
pub(crate) fn render(template: &str, object: &Value) -> Result<String> {
    let mut out = String::new();
    let mut rest = template;
    while let Some(start) = rest.find('{') {
        out.push_str(&rest[..start]);
        let Some(length) = rest[start..].find('}') else { bail!("unclosed action in the template {template:?}") };
        let action = rest[start + 1..start + length].trim();
        rest = &rest[start + length + 1..];
        match action.strip_prefix('"').and_then(|text| text.strip_suffix('"')) {
            Some(text) => out.push_str(&text.replace("\\n", "\n").replace("\\t", "\t")),
            None => {
                let found = select(action, object)?;
                out.push_str(&found.into_iter().map(shown).collect::<Vec<_>>().join(" "));
            }
        }
    }
    out.push_str(rest);
    Ok(out)
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn select<'a>(path: &str, object: &'a Value) -> Result<Vec<&'a Value>> {
    let mut found = vec![object];
    let mut rest = path.trim_start_matches(['$', '@']);
    while !rest.is_empty() {
        if let Some(tail) = rest.strip_prefix('.') {
            let end = tail.find(['.', '[']).unwrap_or(tail.len());
            let (name, after) = tail.split_at(end);
            rest = after;
            if !name.is_empty() {
                found = if name == "*" {
                    children(&found)
                } else {
                    found.into_iter().filter_map(|value| value.get(name)).collect()
                };
            }
        } else if let Some(tail) = rest.strip_prefix('[') {
            let Some(end) = tail.find(']') else { bail!("unterminated array in {path:?}") };
            let index = &tail[..end];
            rest = &tail[end + 1..];
            found = indexed(&found, index, path)?;
        } else {
            bail!("unrecognized character in the path {path:?}");
        }
    }
    Ok(found)
}

fn children<'a>(values: &[&'a Value]) -> Vec<&'a Value> {
    values
        .iter()
        .flat_map(|value| match value {
            Value::Array(items) => items.iter().collect::<Vec<_>>(),
            Value::Object(fields) => fields.values().collect(),
            _ => Vec::new(),
        })
        .collect()
}

fn indexed<'a>(values: &[&'a Value], index: &str, path: &str) -> Result<Vec<&'a Value>> {
    if index == "*" {
        return Ok(children(values));
    }
    if let Some(name) = index.strip_prefix(['\'', '"']).and_then(|name| name.strip_suffix(['\'', '"'])) {
        return Ok(values.iter().filter_map(|value| value.get(name)).collect());
    }
    let Ok(number) = index.parse::<i64>() else { bail!("invalid array index {index:?} in {path:?}") };
    let pick = |value: &&'a Value| {
        let items = value.as_array()?;
        let place = if number < 0 { items.len().checked_sub(number.unsigned_abs() as usize)? } else { number as usize };
        items.get(place)
    };
    Ok(values.iter().filter_map(pick).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn templates_of_the_walk_render() {
        let object = json!({"items": [{"metadata": {"name": "a", "labels": {"x.y/z": "1"}}}, {"metadata": {"name": "b"}}], "n": 2});
        for (template, want) in [
            ("{.items[0].metadata.name}", "a"),
            ("{.items[-1].metadata.name}", "b"),
            ("{.items[*].metadata.name}", "a b"),
            ("{.items[0].metadata.labels['x.y/z']}", "1"),
            ("n={.n}{\"\\n\"}", "n=2\n"),
            ("{.missing.deeper}", ""),
        ] {
            assert_eq!(render(template, &object).unwrap(), want, "{template}");
        }
        assert!(render("{.a", &object).is_err());
    }
}
