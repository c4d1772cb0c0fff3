//! Bytes of a request → a [`Value`] of the right types, with Kubernetes' field validation.
//!
//! Called for every body that a client sends. Unknown and duplicate fields are dropped and reported; a value of the wrong
//! type is an error in the words of Go's decoder, which clients show to people. A null field counts as absent, as in Go.
//! Whether the reports are fatal is the caller's decision (`fieldValidation`).

use crate::quantity;
use crate::registry::Resource;
use crate::schema::{Node, Shape};
use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::cell::RefCell;
use std::fmt;

/// Reports beyond this many are not made: a body of garbage must not become an answer of garbage.
const MAX_REPORTS: usize = 100;
/// Nesting beyond this is refused, for YAML as serde_json does it for JSON.
const MAX_DEPTH: usize = 128;

/// The body is not an object of that kind. `Display` is the text of the BadRequest status.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Not JSON or YAML at all.
    #[error("{0}")]
    Syntax(String),
    /// A field of the wrong type, or another kind than the path says.
    #[error("{0}")]
    Type(String),
}

/// Decodes JSON. Unknown and duplicate fields are dropped (the last duplicate wins) and reported as
/// Kubernetes words them: `unknown field "spec.foo"`, `duplicate field "spec.replicas"`.
/// The caller acts on them by its `fieldValidation` (Strict: 400 with [`strict_message`]; Warn: warnings; Ignore).
pub fn decode(resource: &Resource, body: &[u8]) -> Result<(Value, Vec<String>), DecodeError> {
    let reports = RefCell::new(Vec::new());
    let mut reader = serde_json::Deserializer::from_slice(body);
    let seed = Reader { path: String::new(), depth: 0, reports: &reports };
    let value = seed.deserialize(&mut reader).and_then(|value| reader.end().map(|()| value));
    let value = value.map_err(|e| DecodeError::Syntax(format!("couldn't get version/kind; json parse error: {e}")))?;
    finish(resource, value, reports.into_inner())
}

/// The same for a YAML body (`application/yaml`, `application/apply-patch+yaml`); JSON is YAML too.
pub fn decode_yaml(resource: &Resource, body: &[u8]) -> Result<(Value, Vec<String>), DecodeError> {
    let reports = RefCell::new(Vec::new());
    let seed = Reader { path: String::new(), depth: 0, reports: &reports };
    let value = seed.deserialize(serde_yaml_ng::Deserializer::from_slice(body));
    let value = value.map_err(|e| DecodeError::Syntax(format!("error decoding YAML: {e}")))?;
    finish(resource, value, reports.into_inner())
}

/// The check alone, for a value that came another way (a patch's result). Drops unknown fields.
pub fn prune(resource: &Resource, object: &mut Value) -> Result<Vec<String>, DecodeError> {
    let mut checker = Checker { path: Vec::new(), reports: Vec::new() };
    let checked = match resource.custom() {
        None => checker.check(resource.root(), object, "", &resource.kind),
        // Only metadata has types of our own; what else is wrong, the schema's validation says.
        Some(custom) => checker.check_metadata(resource.root(), object).map(|()| {
            checker.reports.extend(custom.prune(object));
        }),
    };
    match checked {
        Ok(()) => Ok(checker.reports),
        Err(problem) => Err(DecodeError::Type(format!(
            "{kind} in version {version:?} cannot be handled as a {kind}: {problem}",
            kind = resource.kind,
            version = resource.version,
        ))),
    }
}

/// The text of a Strict request's BadRequest: `strict decoding error: unknown field "a", unknown field "b"`.
pub fn strict_message(reports: &[String]) -> String {
    format!("strict decoding error: {}", reports.join(", "))
}

fn finish(
    resource: &Resource,
    mut value: Value,
    mut reports: Vec<String>,
) -> Result<(Value, Vec<String>), DecodeError> {
    if !value.is_object() {
        let found = go_value(&value);
        return Err(DecodeError::Syntax(format!(
            "couldn't get version/kind; json parse error: json: cannot unmarshal {found} into Go value of type struct"
        )));
    }
    check_kind(resource, &value)?;
    reports.extend(prune(resource, &mut value)?);
    reports.truncate(MAX_REPORTS);
    Ok((value, reports))
}

/// An object may leave out its apiVersion and kind, the path implies them; others than the path's are refused.
fn check_kind(resource: &Resource, value: &Value) -> Result<(), DecodeError> {
    let expected = resource.api_version();
    let version = value.get("apiVersion").and_then(Value::as_str).unwrap_or("");
    let kind = value.get("kind").and_then(Value::as_str).unwrap_or("");
    let differs = (!version.is_empty() && version != expected) || (!kind.is_empty() && kind != resource.kind);
    if !differs {
        return Ok(());
    }
    let found_version = if version.is_empty() { expected.as_str() } else { version };
    let found_kind = if kind.is_empty() { resource.kind.as_ref() } else { kind };
    Err(DecodeError::Type(format!(
        "the object provided is unrecognized (must be of type {}): the kind of the object ({found_version}, Kind={found_kind}) does not match the expected kind ({expected}, Kind={})",
        resource.kind, resource.kind,
    )))
}

/// Builds a value and notes duplicate keys on the way.
struct Reader<'r> {
    path: String,
    depth: usize,
    reports: &'r RefCell<Vec<String>>,
}

impl Reader<'_> {
    fn under(&self, path: String) -> Self {
        Reader { path, depth: self.depth + 1, reports: self.reports }
    }
}

impl<'de> DeserializeSeed<'de> for Reader<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        if self.depth > MAX_DEPTH {
            return Err(D::Error::custom("exceeded max depth"));
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_f64<E>(self, v: f64) -> Result<Value, E> {
        Ok(Number::from_f64(v).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_string<E>(self, v: String) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(self.under(format!("{}[{}]", self.path, items.len())))? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        while let Some(Key(key)) = map.next_key()? {
            let path = join(&self.path, &key);
            if fields.contains_key(&key) && self.reports.borrow().len() < MAX_REPORTS {
                self.reports.borrow_mut().push(format!("duplicate field {path:?}"));
            }
            let value = map.next_value_seed(self.under(path))?;
            fields.insert(key, value);
        }
        Ok(Value::Object(fields))
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// YAML keys may be numbers and booleans; JSON has only text.
struct Key(String);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;
        impl Visitor<'_> for KeyVisitor {
            type Value = Key;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }
            fn visit_str<E>(self, v: &str) -> Result<Key, E> {
                Ok(Key(v.to_owned()))
            }
            fn visit_bool<E>(self, v: bool) -> Result<Key, E> {
                Ok(Key(v.to_string()))
            }
            fn visit_i64<E>(self, v: i64) -> Result<Key, E> {
                Ok(Key(v.to_string()))
            }
            fn visit_u64<E>(self, v: u64) -> Result<Key, E> {
                Ok(Key(v.to_string()))
            }
            fn visit_f64<E>(self, v: f64) -> Result<Key, E> {
                Ok(Key(v.to_string()))
            }
        }
        deserializer.deserialize_any(KeyVisitor)
    }
}

/// Walks value and schema together: types are checked, unknown fields dropped, nulls removed.
struct Checker {
    /// Field names with list indices, for reports of unknown fields.
    path: Vec<String>,
    reports: Vec<String>,
}

impl Checker {
    fn check_metadata(&mut self, root: Node<'_>, object: &mut Value) -> Result<(), String> {
        let Some(metadata) = object.get_mut("metadata") else {
            return Ok(());
        };
        self.path.push("metadata".to_owned());
        let checked = self.check(root.child_or_any("metadata"), metadata, "metadata", "ObjectMeta");
        self.path.clear();
        checked
    }

    /// `owner` is the struct that has the field and `go_path` the path without indices: Go's decoder names both.
    fn check(&mut self, node: Node<'_>, value: &mut Value, go_path: &str, owner: &str) -> Result<(), String> {
        if value.is_null() {
            return Ok(());
        }
        let fits = match node.shape {
            Shape::Any => true,
            Shape::Object => value.is_object(),
            Shape::String | Shape::Time | Shape::MicroTime => value.is_string(),
            Shape::Bool => value.is_boolean(),
            Shape::Int32 => value.as_i64().is_some_and(|n| i32::try_from(n).is_ok()),
            Shape::Int64 => value.is_i64(),
            Shape::Number => value.is_number(),
            Shape::IntOrString => value.is_string() || value.as_i64().is_some_and(|n| i32::try_from(n).is_ok()),
            Shape::Bytes => return check_bytes(value, go_path, owner),
            Shape::Quantity => return check_quantity(value),
            Shape::Struct { .. } => return self.check_struct(node, value, go_path, owner),
            Shape::Map(_) => return self.check_map(node, value, go_path, owner),
            Shape::List(_) => return self.check_list(node, value, go_path, owner),
        };
        if !fits {
            return Err(mismatch(value, go_path, owner, node));
        }
        match node.shape {
            Shape::Time | Shape::MicroTime => check_time(value),
            _ => Ok(()),
        }
    }

    fn check_struct(&mut self, node: Node<'_>, value: &mut Value, go_path: &str, owner: &str) -> Result<(), String> {
        let Value::Object(fields) = value else {
            return Err(mismatch(value, go_path, owner, node));
        };
        let name = node.struct_type().map_or("", |t| t.short_name());
        let mut unknown = Vec::new();
        for (key, child) in fields.iter_mut() {
            match node.child(key) {
                None => unknown.push(key.clone()),
                Some(child_node) => {
                    self.path.push(if self.path.is_empty() { key.clone() } else { format!(".{key}") });
                    self.check(child_node, child, &join(go_path, key), name)?;
                    self.path.pop();
                }
            }
        }
        for key in unknown {
            self.report(&key);
            fields.remove(&key);
        }
        fields.retain(|key, child| !child.is_null() || matches!(node.child_or_any(key).shape, Shape::Any));
        Ok(())
    }

    fn report(&mut self, key: &str) {
        if self.reports.len() < MAX_REPORTS {
            let path = join(&self.path.concat(), key);
            self.reports.push(format!("unknown field {path:?}"));
        }
    }

    fn check_map(&mut self, node: Node<'_>, value: &mut Value, go_path: &str, owner: &str) -> Result<(), String> {
        let Value::Object(entries) = value else {
            return Err(mismatch(value, go_path, owner, node));
        };
        for (key, child) in entries.iter_mut() {
            let child_node = node.child_or_any(key);
            // Go decodes null into a map of strings as the empty string.
            if child.is_null() && matches!(child_node.shape, Shape::String | Shape::Bytes) {
                *child = Value::String(String::new());
            }
            self.path.push(format!(".{key}"));
            self.check(child_node, child, go_path, owner)?;
            self.path.pop();
        }
        Ok(())
    }

    fn check_list(&mut self, node: Node<'_>, value: &mut Value, go_path: &str, owner: &str) -> Result<(), String> {
        let Value::Array(items) = value else {
            return Err(mismatch(value, go_path, owner, node));
        };
        for (at, item) in items.iter_mut().enumerate() {
            if item.is_null() && matches!(node.element().shape, Shape::Struct { .. }) {
                *item = Value::Object(Map::new());
            }
            self.path.push(format!("[{at}]"));
            self.check(node.element(), item, go_path, owner)?;
            self.path.pop();
        }
        Ok(())
    }
}

fn mismatch(value: &Value, go_path: &str, owner: &str, node: Node<'_>) -> String {
    let found = go_value(value);
    let wanted = go_type(node);
    if go_path.is_empty() {
        return format!("json: cannot unmarshal {found} into Go value of type {wanted}");
    }
    format!("json: cannot unmarshal {found} into Go struct field {owner}.{go_path} of type {wanted}")
}

fn go_value(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(_) => "bool".into(),
        Value::Number(n) if n.is_i64() => "number".into(),
        Value::Number(n) => format!("number {n}"),
        Value::String(_) => "string".into(),
        Value::Array(_) => "array".into(),
        Value::Object(_) => "object".into(),
    }
}

fn go_type(node: Node<'_>) -> String {
    match node.shape {
        Shape::String => "string".into(),
        Shape::Bool => "bool".into(),
        Shape::Int32 | Shape::IntOrString => "int32".into(),
        Shape::Int64 => "int64".into(),
        Shape::Number => "float64".into(),
        Shape::Bytes => "[]uint8".into(),
        Shape::Quantity => "resource.Quantity".into(),
        Shape::Time => "v1.Time".into(),
        Shape::MicroTime => "v1.MicroTime".into(),
        Shape::Object => "map[string]interface {}".into(),
        Shape::Any => "interface {}".into(),
        Shape::Struct { .. } => match node.struct_type() {
            Some(found) => {
                let mut parts = found.name.rsplit('.');
                let (name, version) = (parts.next().unwrap_or(""), parts.next().unwrap_or("v1"));
                format!("{version}.{name}")
            }
            None => "struct".into(),
        },
        Shape::List(_) => format!("[]{}", go_type(node.element())),
        Shape::Map(_) => format!("map[string]{}", go_type(node.child_or_any(""))),
    }
}

fn check_bytes(value: &Value, go_path: &str, owner: &str) -> Result<(), String> {
    use base64::Engine as _;
    let Value::String(text) = value else {
        return Err(format!(
            "json: cannot unmarshal {} into Go struct field {owner}.{go_path} of type []uint8",
            go_value(value)
        ));
    };
    match base64::engine::general_purpose::STANDARD.decode(text.replace(['\n', '\r'], "")) {
        Ok(_) => Ok(()),
        Err(base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _)) => {
            Err(format!("illegal base64 data at input byte {at}"))
        }
        Err(_) => Err(format!("illegal base64 data at input byte {}", text.len() / 4 * 4)),
    }
}

/// Quantities are stored as text in canonical form; a client may send a bare number.
fn check_quantity(value: &mut Value) -> Result<(), String> {
    let text = match &*value {
        Value::String(text) => text.trim().to_owned(),
        Value::Number(number) => number.to_string(),
        other => {
            return Err(format!("json: cannot unmarshal {} into Go value of type resource.Quantity", go_value(other)));
        }
    };
    let parsed = quantity::parse(&text).map_err(|e| e.to_string())?;
    *value = Value::String(parsed.to_string());
    Ok(())
}

fn check_time(value: &Value) -> Result<(), String> {
    let text = value.as_str().unwrap_or("");
    match crate::time::parse(text) {
        Some(_) => Ok(()),
        None => {
            Err(format!("parsing time {text:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse {text:?} as \"2006\""))
        }
    }
}

#[cfg(test)]
mod tests;
