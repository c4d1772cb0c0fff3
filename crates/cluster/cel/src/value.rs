//! Values at run time. JSON is read lazily: a list or an object stays what it is until something looks inside.

use crate::types::Type;
use jiff::Timestamp;
use kube_types::quantity::Quantity;
use serde_json::Value as Json;
use std::cmp::Ordering;
use std::net::IpAddr;
use std::sync::Arc;

#[derive(Debug, Clone)]
pub enum Value<'v> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(Arc<str>),
    Bytes(Arc<[u8]>),
    Timestamp(Timestamp),
    /// Nanoseconds.
    Duration(i64),
    List(Arc<Vec<Value<'v>>>),
    Map(Arc<Vec<(Value<'v>, Value<'v>)>>),
    /// A list or an object of JSON, with what its schema says.
    Json(&'v Json, Type),
    Optional(Option<Arc<Value<'v>>>),
    Type(Arc<str>),
    Quantity(Quantity),
    Ip(IpAddr),
    Cidr(IpAddr, u8),
    Url(Arc<Url>),
    Semver(Arc<Semver>),
    Format(&'static str),
    /// A question to the authoriser that is being put together.
    Authorizer(Arc<Vec<(&'static str, String)>>),
    /// Its answer.
    Decision(bool, Arc<str>),
}

#[derive(Debug, PartialEq, Eq)]
pub struct Url {
    pub text: String,
    pub scheme: String,
    pub host: String,
    pub path: String,
    pub query: String,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Semver {
    pub numbers: [u64; 3],
    pub pre: String,
}

impl<'v> Value<'v> {
    /// JSON as a value of the declared type.
    pub fn of_json(json: &'v Json, kind: &Type) -> Self {
        match (json, kind) {
            (Json::Null, _) => Self::Null,
            (Json::Bool(value), _) => Self::Bool(*value),
            (Json::Number(number), Type::Double) => Self::Double(number.as_f64().unwrap_or(f64::NAN)),
            (Json::Number(number), Type::Uint) if number.is_u64() => Self::Uint(number.as_u64().unwrap_or(0)),
            (Json::Number(number), _) => match number.as_i64() {
                Some(value) => Self::Int(value),
                None => {
                    let value = number.as_f64().unwrap_or(f64::NAN);
                    let whole = matches!(kind, Type::Int) && value.fract() == 0.0 && value.abs() < 9e18;
                    if whole { Self::Int(value as i64) } else { Self::Double(value) }
                }
            },
            (Json::String(text), Type::Timestamp) => {
                kube_types::time::parse(text).map_or_else(|| Self::text(text), Self::Timestamp)
            }
            (Json::String(text), Type::Duration) => {
                crate::functions::parse_duration(text).map_or_else(|| Self::text(text), Self::Duration)
            }
            (Json::String(text), Type::Bytes(_)) => {
                use base64::Engine as _;
                let decoded = base64::engine::general_purpose::STANDARD.decode(text);
                decoded.map_or_else(|_| Self::text(text), |bytes| Self::Bytes(bytes.into()))
            }
            (Json::String(text), _) => Self::text(text),
            (Json::Array(_) | Json::Object(_), kind) => Self::Json(json, kind.clone()),
        }
    }

    pub fn text(text: &str) -> Self {
        Self::String(text.into())
    }

    pub(crate) fn list(items: Vec<Value<'v>>) -> Self {
        Self::List(Arc::new(items))
    }

    pub(crate) fn some(value: Value<'v>) -> Self {
        Self::Optional(Some(Arc::new(value)))
    }

    /// The name of the value's type, as `type()` and messages give it.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "null_type",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Uint(_) => "uint",
            Self::Double(_) => "double",
            Self::String(_) => "string",
            Self::Bytes(_) => "bytes",
            Self::Timestamp(_) => "google.protobuf.Timestamp",
            Self::Duration(_) => "google.protobuf.Duration",
            Self::List(_) | Self::Json(Json::Array(_), _) => "list",
            Self::Map(_) | Self::Json(..) => "map",
            Self::Optional(_) => "optional_type",
            Self::Type(_) => "type",
            Self::Quantity(_) => "kubernetes.Quantity",
            Self::Ip(_) => "net.IP",
            Self::Cidr(..) => "net.CIDR",
            Self::Url(_) => "kubernetes.URL",
            Self::Semver(_) => "kubernetes.Semver",
            Self::Format(_) => "kubernetes.NamedFormat",
            Self::Authorizer(_) => "kubernetes.authorization.Authorizer",
            Self::Decision(..) => "kubernetes.authorization.Decision",
        }
    }

    /// The elements of a list.
    pub(crate) fn items(&self) -> Option<Vec<Value<'v>>> {
        match self {
            Self::List(items) => Some(items.as_ref().clone()),
            Self::Json(Json::Array(items), kind) => {
                let any = Type::Dyn;
                let inner = if let Type::List(element, _) = kind { element.as_ref() } else { &any };
                Some(items.iter().map(|item| Value::of_json(item, inner)).collect())
            }
            _ => None,
        }
    }

    pub(crate) fn is_list(&self) -> bool {
        matches!(self, Self::List(_) | Self::Json(Json::Array(_), _))
    }

    /// One element of a list, without touching the others.
    pub(crate) fn at(&self, at: usize) -> Option<Value<'v>> {
        match self {
            Self::List(items) => items.get(at).cloned(),
            Self::Json(Json::Array(items), kind) => {
                let any = Type::Dyn;
                let inner = if let Type::List(element, _) = kind { element.as_ref() } else { &any };
                items.get(at).map(|item| Value::of_json(item, inner))
            }
            _ => None,
        }
    }

    /// The value under a key that an index names (not escaped). Reads all entries of a map that was computed.
    pub(crate) fn under(&self, key: &Value<'v>) -> Option<Value<'v>> {
        match (self, key) {
            (Self::Json(Json::Object(fields), kind), Value::String(key)) => {
                fields.get(key.as_ref()).map(|value| Value::of_json(value, &member(kind, key)))
            }
            (Self::Map(entries), key) => {
                entries.iter().find(|(own, _)| own.equals(key)).map(|(_, value)| value.clone())
            }
            _ => None,
        }
    }

    /// What a search among the entries costs: nothing for JSON, which is indexed.
    pub(crate) fn search_cost(&self) -> u64 {
        if let Self::Map(entries) = self { entries.len() as u64 / 10 } else { 0 }
    }

    /// The entries of a map or an object.
    pub(crate) fn entries(&self) -> Option<Vec<(Value<'v>, Value<'v>)>> {
        match self {
            Self::Map(entries) => Some(entries.as_ref().clone()),
            Self::Json(Json::Object(fields), kind) => Some(
                fields.iter().map(|(key, value)| (Value::text(key), Value::of_json(value, &member(kind, key)))).collect(),
            ),
            _ => None,
        }
    }

    /// The value under a key; for objects of a schema `name` is the escaped name.
    pub(crate) fn get(&self, name: &str) -> Option<Value<'v>> {
        match self {
            Self::Map(entries) => entries
                .iter()
                .find(|(key, _)| matches!(key, Value::String(own) if own.as_ref() == name))
                .map(|(_, value)| value.clone()),
            Self::Json(Json::Object(fields), Type::Object(object)) => match object.fields.get(name) {
                Some(field) => fields.get(&field.json).map(|value| Value::of_json(value, &field.kind)),
                None => fields.get(name).map(|value| Value::of_json(value, &Type::Dyn)),
            },
            Self::Json(Json::Object(fields), kind) => {
                fields.get(name).map(|value| Value::of_json(value, &member(kind, name)))
            }
            _ => None,
        }
    }

    pub(crate) fn size(&self) -> Option<usize> {
        match self {
            Self::String(text) => Some(text.chars().count()),
            Self::Bytes(bytes) => Some(bytes.len()),
            Self::List(items) => Some(items.len()),
            Self::Map(entries) => Some(entries.len()),
            Self::Json(Json::Array(items), _) => Some(items.len()),
            Self::Json(Json::Object(fields), _) => Some(fields.len()),
            _ => None,
        }
    }

    /// How much work comparing or copying is, in characters and elements.
    pub(crate) fn weight(&self) -> u64 {
        match self {
            Self::String(text) => text.len() as u64,
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::List(items) => items.iter().map(|item| 1 + item.weight()).sum(),
            Self::Map(entries) => entries.iter().map(|(key, value)| 1 + key.weight() + value.weight()).sum(),
            Self::Json(json, _) => json_weight(json),
            _ => 1,
        }
    }

    pub(crate) fn equals(&self, other: &Value<'_>) -> bool {
        match (self, other) {
            (Self::Null, Value::Null) => true,
            (Self::Bool(a), Value::Bool(b)) => a == b,
            (Self::String(a), Value::String(b)) => a == b,
            (Self::Bytes(a), Value::Bytes(b)) => a == b,
            (Self::Type(a), Value::Type(b)) => a == b,
            (Self::Ip(a), Value::Ip(b)) => a == b,
            (Self::Cidr(a, n), Value::Cidr(b, m)) => a == b && n == m,
            (Self::Url(a), Value::Url(b)) => a.text == b.text,
            (Self::Semver(a), Value::Semver(b)) => a == b,
            (Self::Format(a), Value::Format(b)) => a == b,
            (Self::Optional(a), Value::Optional(b)) => match (a, b) {
                (None, None) => true,
                (Some(a), Some(b)) => a.equals(b),
                _ => false,
            },
            (Self::Json(a, _), Value::Json(b, _)) => a == b,
            _ => match (self.items(), other.items(), self.entries(), other.entries()) {
                (Some(a), Some(b), ..) => a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| a.equals(b)),
                (_, _, Some(a), Some(b)) => {
                    a.len() == b.len()
                        && a.iter().all(|(key, value)| {
                            b.iter().find(|(own, _)| own.equals(key)).is_some_and(|(_, theirs)| theirs.equals(value))
                        })
                }
                _ => self.compare(other) == Some(Ordering::Equal),
            },
        }
    }

    /// The order of numbers, texts, times and quantities; `None` for what has none.
    pub(crate) fn compare(&self, other: &Value<'_>) -> Option<Ordering> {
        match (self, other) {
            (Self::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
            (Self::Int(a), Value::Int(b)) => Some(a.cmp(b)),
            (Self::Uint(a), Value::Uint(b)) => Some(a.cmp(b)),
            (Self::Int(a), Value::Uint(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
            (Self::Uint(a), Value::Int(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
            (Self::Double(a), Value::Double(b)) => a.partial_cmp(b),
            (Self::Double(a), Value::Int(b)) => a.partial_cmp(&(*b as f64)),
            (Self::Int(a), Value::Double(b)) => (*a as f64).partial_cmp(b),
            (Self::Double(a), Value::Uint(b)) => a.partial_cmp(&(*b as f64)),
            (Self::Uint(a), Value::Double(b)) => (*a as f64).partial_cmp(b),
            (Self::String(a), Value::String(b)) => Some(a.cmp(b)),
            (Self::Bytes(a), Value::Bytes(b)) => Some(a.cmp(b)),
            (Self::Timestamp(a), Value::Timestamp(b)) => Some(a.cmp(b)),
            (Self::Duration(a), Value::Duration(b)) => Some(a.cmp(b)),
            (Self::Quantity(a), Value::Quantity(b)) => a.partial_cmp(b),
            (Self::Semver(a), Value::Semver(b)) => Some(semver_order(a, b)),
            _ => None,
        }
    }

    /// The value as JSON; `None` for what JSON has no form for.
    pub fn to_json(&self) -> Option<Json> {
        Some(match self {
            Self::Null => Json::Null,
            Self::Bool(value) => (*value).into(),
            Self::Int(value) => (*value).into(),
            Self::Uint(value) => (*value).into(),
            Self::Double(value) => serde_json::Number::from_f64(*value).map_or(Json::Null, Json::Number),
            Self::String(text) => text.as_ref().into(),
            Self::Bytes(bytes) => {
                use base64::Engine as _;
                base64::engine::general_purpose::STANDARD.encode(bytes).into()
            }
            Self::Timestamp(at) => at.to_string().into(),
            Self::Duration(nanos) => crate::functions::show_duration(*nanos).into(),
            Self::Quantity(quantity) => quantity.to_string().into(),
            Self::Ip(address) => address.to_string().into(),
            Self::Cidr(address, bits) => format!("{address}/{bits}").into(),
            Self::Url(url) => url.text.as_str().into(),
            Self::Json(json, _) => (*json).clone(),
            Self::Optional(Some(inner)) => inner.to_json()?,
            Self::List(items) => Json::Array(items.iter().map(Value::to_json).collect::<Option<_>>()?),
            Self::Map(entries) => {
                let mut fields = serde_json::Map::new();
                for (key, value) in entries.iter() {
                    let key = match key {
                        Value::String(text) => text.to_string(),
                        other => other.to_json()?.to_string(),
                    };
                    fields.insert(key, value.to_json()?);
                }
                Json::Object(fields)
            }
            _ => return None,
        })
    }
}

fn member(kind: &Type, key: &str) -> Type {
    match kind {
        Type::Map(_, value, _) => value.as_ref().clone(),
        Type::Object(object) => object.fields.values().find(|f| f.json == key).map_or(Type::Dyn, |f| f.kind.clone()),
        _ => Type::Dyn,
    }
}

fn json_weight(json: &Json) -> u64 {
    match json {
        Json::String(text) => text.len() as u64,
        Json::Array(items) => items.iter().map(|item| 1 + json_weight(item)).sum(),
        Json::Object(fields) => fields.iter().map(|(key, value)| 1 + key.len() as u64 + json_weight(value)).sum(),
        _ => 1,
    }
}

fn semver_order(a: &Semver, b: &Semver) -> Ordering {
    a.numbers.cmp(&b.numbers).then_with(|| match (a.pre.is_empty(), b.pre.is_empty()) {
        (true, true) => Ordering::Equal,
        (true, false) => Ordering::Greater,
        (false, true) => Ordering::Less,
        (false, false) => {
            let (mut left, mut right) = (a.pre.split('.'), b.pre.split('.'));
            loop {
                let order = match (left.next(), right.next()) {
                    (None, None) => return Ordering::Equal,
                    (None, Some(_)) => Ordering::Less,
                    (Some(_), None) => Ordering::Greater,
                    (Some(l), Some(r)) => match (l.parse::<u64>(), r.parse::<u64>()) {
                        (Ok(l), Ok(r)) => l.cmp(&r),
                        (Ok(_), Err(_)) => Ordering::Less,
                        (Err(_), Ok(_)) => Ordering::Greater,
                        (Err(_), Err(_)) => l.cmp(r),
                    },
                };
                if order != Ordering::Equal {
                    return order;
                }
            }
        }
    })
}
