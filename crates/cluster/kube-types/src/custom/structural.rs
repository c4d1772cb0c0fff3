//! `openAPIV3Schema` → a tree that can be walked along a value.
//!
//! Used by pruning, defaulting, validation and (its `rules`) CEL. Deeper nesting than [`MAX_DEPTH`] is refused, as is a pattern
//! that is no regular expression. Whether the schema keeps the structural rules is [`super::definition`]'s to say.

use crate::schema::StructuralError;
use regex::Regex;
use serde_json::Value;
use std::collections::BTreeMap;

/// Deeper schemas are refused: they only serve to exhaust the stack.
const MAX_DEPTH: usize = 64;
/// The memory that one compiled pattern may take.
const MAX_PATTERN_BYTES: usize = 1 << 20;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Type {
    /// None is given.
    #[default]
    Any,
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ListKind {
    #[default]
    Atomic,
    Set,
    Map(Vec<String>),
}

/// One entry of `x-kubernetes-validations`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rule {
    pub rule: String,
    pub message: String,
    pub message_expression: String,
    pub reason: String,
    pub field_path: String,
    /// `None`: as the rule's use of `oldSelf` says.
    pub optional_old_self: Option<bool>,
}

/// One place of a schema.
#[derive(Clone, Debug, Default)]
pub struct Structural {
    pub kind: Type,
    pub nullable: bool,
    pub default: Option<Value>,
    pub properties: BTreeMap<String, Structural>,
    pub additional: Option<Box<Structural>>,
    /// `additionalProperties: true`
    pub additional_any: bool,
    pub items: Option<Box<Structural>>,
    pub int_or_string: bool,
    pub preserve_unknown: bool,
    pub embedded: bool,
    pub list: ListKind,
    pub map_atomic: bool,
    pub checks: Checks,
    pub rules: Vec<Rule>,
}

/// What is asked of a value beyond its type.
#[derive(Clone, Debug, Default)]
pub struct Checks {
    pub format: String,
    pub maximum: Option<f64>,
    pub exclusive_maximum: bool,
    pub minimum: Option<f64>,
    pub exclusive_minimum: bool,
    pub multiple_of: Option<f64>,
    pub max_length: Option<u64>,
    pub min_length: Option<u64>,
    pub pattern: Option<Regex>,
    pub max_items: Option<u64>,
    pub min_items: Option<u64>,
    pub unique_items: bool,
    pub max_properties: Option<u64>,
    pub min_properties: Option<u64>,
    pub required: Vec<String>,
    pub one_of_values: Option<Vec<Value>>,
    pub all_of: Vec<Structural>,
    pub any_of: Vec<Structural>,
    pub one_of: Vec<Structural>,
    pub not: Option<Box<Structural>>,
}

impl Structural {
    pub fn parse(schema: &Value) -> Result<Self, StructuralError> {
        read(schema, "", 0)
    }

    /// The schema of a property, or of the values of a map.
    pub fn child(&self, key: &str) -> Option<&Structural> {
        self.properties.get(key).or(self.additional.as_deref())
    }
}

fn problem(path: &str, problem: &'static str) -> StructuralError {
    StructuralError { path: path.to_owned(), problem }
}

fn read(schema: &Value, path: &str, depth: usize) -> Result<Structural, StructuralError> {
    if depth > MAX_DEPTH {
        return Err(problem(path, "is nested too deep"));
    }
    let flag = |key: &str| schema[key] == true;
    let child = |value: &Value, name: &str| read(value, &format!("{path}.{name}"), depth + 1);
    let mut properties = BTreeMap::new();
    for (name, value) in schema["properties"].as_object().into_iter().flatten() {
        properties.insert(name.clone(), child(value, name)?);
    }
    let additional = schema.get("additionalProperties").filter(|value| value.is_object());
    let items = schema.get("items").filter(|value| value.is_object());
    Ok(Structural {
        kind: kind(&schema["type"], path)?,
        nullable: flag("nullable"),
        default: schema.get("default").filter(|value| !value.is_null()).cloned(),
        properties,
        additional: additional.map(|value| child(value, "additionalProperties")).transpose()?.map(Box::new),
        additional_any: flag("additionalProperties"),
        items: items.map(|value| child(value, "items")).transpose()?.map(Box::new),
        int_or_string: flag("x-kubernetes-int-or-string"),
        preserve_unknown: flag("x-kubernetes-preserve-unknown-fields"),
        embedded: flag("x-kubernetes-embedded-resource"),
        list: list_kind(schema),
        map_atomic: schema["x-kubernetes-map-type"] == "atomic",
        checks: checks(schema, path, depth)?,
        rules: schema["x-kubernetes-validations"].as_array().into_iter().flatten().map(rule).collect(),
    })
}

fn kind(value: &Value, path: &str) -> Result<Type, StructuralError> {
    Ok(match value.as_str() {
        None | Some("") => Type::Any,
        Some("object") => Type::Object,
        Some("array") => Type::Array,
        Some("string") => Type::String,
        Some("integer") => Type::Integer,
        Some("number") => Type::Number,
        Some("boolean") => Type::Boolean,
        Some(_) => return Err(problem(path, "has an unknown type")),
    })
}

fn list_kind(schema: &Value) -> ListKind {
    match schema["x-kubernetes-list-type"].as_str() {
        Some("set") => ListKind::Set,
        Some("map") => ListKind::Map(texts(&schema["x-kubernetes-list-map-keys"])),
        _ => ListKind::Atomic,
    }
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn rule(value: &Value) -> Rule {
    let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
    Rule {
        rule: text("rule"),
        message: text("message"),
        message_expression: text("messageExpression"),
        reason: text("reason"),
        field_path: text("fieldPath"),
        optional_old_self: value["optionalOldSelf"].as_bool(),
    }
}

fn checks(schema: &Value, path: &str, depth: usize) -> Result<Checks, StructuralError> {
    let all = |key: &str| -> Result<Vec<Structural>, StructuralError> {
        let list = schema[key].as_array();
        list.into_iter().flatten().map(|value| read(value, &format!("{path}.{key}"), depth + 1)).collect()
    };
    let not = schema.get("not").filter(|value| value.is_object());
    Ok(Checks {
        format: schema["format"].as_str().unwrap_or_default().to_owned(),
        maximum: schema["maximum"].as_f64(),
        exclusive_maximum: schema["exclusiveMaximum"] == true,
        minimum: schema["minimum"].as_f64(),
        exclusive_minimum: schema["exclusiveMinimum"] == true,
        multiple_of: schema["multipleOf"].as_f64(),
        max_length: schema["maxLength"].as_u64(),
        min_length: schema["minLength"].as_u64(),
        pattern: schema["pattern"].as_str().map(|text| pattern(text, path)).transpose()?,
        max_items: schema["maxItems"].as_u64(),
        min_items: schema["minItems"].as_u64(),
        unique_items: schema["uniqueItems"] == true,
        max_properties: schema["maxProperties"].as_u64(),
        min_properties: schema["minProperties"].as_u64(),
        required: texts(&schema["required"]),
        one_of_values: schema["enum"].as_array().cloned(),
        all_of: all("allOf")?,
        any_of: all("anyOf")?,
        one_of: all("oneOf")?,
        not: not.map(|value| read(value, &format!("{path}.not"), depth + 1)).transpose()?.map(Box::new),
    })
}

fn pattern(text: &str, path: &str) -> Result<Regex, StructuralError> {
    regex::RegexBuilder::new(text)
        .size_limit(MAX_PATTERN_BYTES)
        .build()
        .map_err(|_| problem(path, "has a pattern that is no regular expression"))
}
