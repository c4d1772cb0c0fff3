//! Types of expressions, and how a schema becomes one.
//!
//! Sizes ride along for the cost estimate; they play no part in whether two types are the same.

use kube_types::custom::{Structural, Type as SchemaType};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// The request limit: nothing in an object can be larger.
pub(crate) const REQUEST_BYTES: u64 = 3 * 1024 * 1024;

#[derive(Debug, Clone)]
pub enum Type {
    Dyn,
    Null,
    Bool,
    Int,
    Uint,
    Double,
    /// With the most characters that it can have.
    String(u64),
    Bytes(u64),
    Timestamp,
    Duration,
    List(Arc<Type>, u64),
    /// Keys are strings in whatever comes from JSON; literals may have others.
    Map(Arc<Type>, Arc<Type>, u64),
    Object(Arc<ObjectType>),
    Optional(Arc<Type>),
    /// A type as a value.
    Type,
    /// A type of Kubernetes' libraries: `quantity`, `ip`, `url`, …
    Opaque(&'static str),
}

/// A struct with known fields.
#[derive(Debug, Default)]
pub struct ObjectType {
    pub name: String,
    pub fields: BTreeMap<String, Field>,
    /// Fields that are not listed are of any type (and are there or not).
    pub open: bool,
}

#[derive(Debug, Clone)]
pub struct Field {
    /// The name in JSON, which the name in expressions escapes.
    pub json: String,
    pub kind: Type,
}

impl Type {
    pub const fn string() -> Self {
        Self::String(REQUEST_BYTES - 2)
    }

    pub fn list(element: Type) -> Self {
        let most = (REQUEST_BYTES - 2) / (element.least_bytes() + 1);
        Self::List(Arc::new(element), most)
    }

    pub fn map(key: Type, value: Type) -> Self {
        let most = (REQUEST_BYTES - 2) / (key.least_bytes() + value.least_bytes() + 2);
        Self::Map(Arc::new(key), Arc::new(value), most)
    }

    pub fn optional(inner: Type) -> Self {
        Self::Optional(Arc::new(inner))
    }

    /// A struct whose fields have plain names.
    pub fn object(name: &str, fields: impl IntoIterator<Item = (&'static str, Type)>) -> Self {
        let fields = fields.into_iter().map(|(name, kind)| (name.to_owned(), Field { json: name.to_owned(), kind }));
        Self::Object(Arc::new(ObjectType { name: name.to_owned(), fields: fields.collect(), open: false }))
    }

    /// The fewest bytes that a value takes in JSON.
    fn least_bytes(&self) -> u64 {
        match self {
            Self::Int | Self::Uint | Self::Double => 1,
            Self::Bool => 4,
            Self::Timestamp => 12,
            Self::Duration => 4,
            _ => 2,
        }
    }

    /// The most elements, characters or entries; 1 for what has no size.
    pub(crate) fn size(&self) -> u64 {
        match self {
            Self::String(size) | Self::Bytes(size) | Self::List(_, size) | Self::Map(_, _, size) => *size,
            Self::Dyn => REQUEST_BYTES - 2,
            Self::Object(object) => object.fields.len() as u64,
            _ => 1,
        }
    }

    pub fn is_dyn(&self) -> bool {
        matches!(self, Self::Dyn)
    }

    /// Whether a value of the one may stand where the other is wanted.
    pub(crate) fn fits(&self, wanted: &Type) -> bool {
        match (self, wanted) {
            (Self::Dyn, _) | (_, Self::Dyn) => true,
            (Self::List(a, _), Self::List(b, _)) | (Self::Optional(a), Self::Optional(b)) => a.fits(b),
            (Self::Map(ak, av, _), Self::Map(bk, bv, _)) => ak.fits(bk) && av.fits(bv),
            (Self::Object(a), Self::Object(b)) => Arc::ptr_eq(a, b) || a.name == b.name && !a.name.is_empty(),
            // Null stands for any object, time or message.
            (Self::Null, other) | (other, Self::Null) => matches!(
                other,
                Self::Null | Self::Object(_) | Self::Timestamp | Self::Duration | Self::Optional(_) | Self::Opaque(_)
            ),
            (Self::Opaque(a), Self::Opaque(b)) => a == b,
            (a, b) => std::mem::discriminant(a) == std::mem::discriminant(b),
        }
    }

    /// The type of both branches of a choice.
    pub(crate) fn join(&self, other: &Type) -> Type {
        match (self, other) {
            (Self::String(a), Self::String(b)) => Self::String(*a.max(b)),
            (Self::Bytes(a), Self::Bytes(b)) => Self::Bytes(*a.max(b)),
            (Self::List(a, n), Self::List(b, m)) => Self::List(Arc::new(a.join(b)), *n.max(m)),
            (Self::Map(ak, av, n), Self::Map(bk, bv, m)) => {
                Self::Map(Arc::new(ak.join(bk)), Arc::new(av.join(bv)), *n.max(m))
            }
            (Self::Null, other) | (other, Self::Null) => other.clone(),
            (a, b) if a.fits(b) && !a.is_dyn() && !b.is_dyn() => a.clone(),
            _ => Self::Dyn,
        }
    }

    /// The type that a schema gives to `self`. `resource` adds apiVersion, kind and metadata.
    pub fn of_schema(schema: &Structural, resource: bool) -> Type {
        if schema.int_or_string {
            return Self::Dyn;
        }
        match schema.kind {
            SchemaType::Any => Self::Dyn,
            SchemaType::Boolean => Self::Bool,
            SchemaType::Integer => Self::Int,
            SchemaType::Number => Self::Double,
            SchemaType::String => Self::of_string(schema),
            SchemaType::Array => {
                let element = schema.items.as_deref().map_or(Self::Dyn, |items| Self::of_schema(items, items.embedded));
                let Self::List(element, most) = Self::list(element) else { return Self::Dyn };
                Self::List(element, schema.checks.max_items.unwrap_or(most).min(most))
            }
            SchemaType::Object => Self::of_object(schema, resource),
        }
    }

    fn of_string(schema: &Structural) -> Type {
        let most = schema.checks.max_length.unwrap_or(REQUEST_BYTES - 2).min(REQUEST_BYTES - 2);
        match schema.checks.format.as_str() {
            "date-time" | "date" => Self::Timestamp,
            "duration" => Self::Duration,
            "byte" => Self::Bytes(most),
            _ => match &schema.checks.one_of_values {
                Some(values) => {
                    let longest = values.iter().filter_map(|v| v.as_str()).map(|v| v.chars().count() as u64).max();
                    Self::String(longest.unwrap_or(most).min(most))
                }
                None => Self::String(most),
            },
        }
    }

    fn of_object(schema: &Structural, resource: bool) -> Type {
        if let Some(value) = &schema.additional {
            let value = Self::of_schema(value, value.embedded);
            let Self::Map(key, value, most) = Self::map(Self::string(), value) else { return Self::Dyn };
            return Self::Map(key, value, schema.checks.max_properties.unwrap_or(most).min(most));
        }
        let embedded = resource || schema.embedded;
        if schema.properties.is_empty() && !embedded && (schema.preserve_unknown || schema.additional_any) {
            return Self::Dyn;
        }
        let mut fields = BTreeMap::new();
        for (name, child) in &schema.properties {
            if let Some(escaped) = escape(name) {
                fields.insert(escaped, Field { json: name.clone(), kind: Self::of_schema(child, child.embedded) });
            }
        }
        if embedded {
            for name in ["apiVersion", "kind"] {
                fields.insert(name.to_owned(), Field { json: name.to_owned(), kind: Self::String(253) });
            }
            let names = [("name", Self::String(253)), ("generateName", Self::String(253))];
            let metadata = Self::object("", names);
            fields.insert("metadata".to_owned(), Field { json: "metadata".to_owned(), kind: metadata });
        }
        Self::Object(Arc::new(ObjectType { name: String::new(), fields, open: false }))
    }
}

/// A property's name in expressions; `None` if it cannot be named.
pub fn escape(name: &str) -> Option<String> {
    const RESERVED: [&str; 21] = [
        "true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function", "if", "import",
        "let", "loop", "package", "namespace", "return", "var", "void", "while",
    ];
    if RESERVED.contains(&name) {
        return Some(format!("__{name}__"));
    }
    let mut escaped = String::new();
    let mut rest = name;
    while let Some(c) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix("__") {
            escaped.push_str("__underscores__");
            rest = after;
            continue;
        }
        match c {
            '.' => escaped.push_str("__dot__"),
            '-' => escaped.push_str("__dash__"),
            '/' => escaped.push_str("__slash__"),
            c if c.is_ascii_alphanumeric() || c == '_' => escaped.push(c),
            _ => return None,
        }
        rest = &rest[c.len_utf8()..];
    }
    (!escaped.is_empty() && !escaped.starts_with(|c: char| c.is_ascii_digit())).then_some(escaped)
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dyn => f.write_str("dyn"),
            Self::Null => f.write_str("null"),
            Self::Bool => f.write_str("bool"),
            Self::Int => f.write_str("int"),
            Self::Uint => f.write_str("uint"),
            Self::Double => f.write_str("double"),
            Self::String(_) => f.write_str("string"),
            Self::Bytes(_) => f.write_str("bytes"),
            Self::Timestamp => f.write_str("timestamp"),
            Self::Duration => f.write_str("duration"),
            Self::List(element, _) => write!(f, "list({element})"),
            Self::Map(key, value, _) => write!(f, "map({key}, {value})"),
            Self::Object(object) if object.name.is_empty() => f.write_str("object"),
            Self::Object(object) => f.write_str(&object.name),
            Self::Optional(inner) => write!(f, "optional_type({inner})"),
            Self::Type => f.write_str("type"),
            Self::Opaque(name) => write!(f, "kubernetes.{name}"),
        }
    }
}
