//! Objects, lists and watch events as Kubernetes' protobuf, by the same table that reads it.
//!
//! Called when a client accepts it; what the table does not know (custom resources, tables) goes out as JSON. Objects are stored as
//! JSON, so each is decoded for this: clients that want lists fast ask for JSON.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use kube_types::time;
use serde_json::{Map, Value};

use super::{Count, Known, MAGIC, Shape, message_of, messages};
use crate::object;

/// Appends fields in protobuf's wire format.
#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push((value as u8 & 0x7f) | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn number(&mut self, field: u32, value: u64) {
        self.varint(u64::from(field) << 3);
        self.varint(value);
    }

    fn bytes(&mut self, field: u32, bytes: &[u8]) {
        self.varint(u64::from(field) << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }
}

/// `k8s\0`, then the kind and the message.
fn envelope(api_version: &str, kind: &str, message: &[u8]) -> Vec<u8> {
    let mut meta = Writer::default();
    meta.bytes(1, api_version.as_bytes());
    meta.bytes(2, kind.as_bytes());
    let mut unknown = Writer(MAGIC.to_vec());
    unknown.bytes(1, &meta.0);
    unknown.bytes(2, message);
    unknown.bytes(3, b"");
    unknown.bytes(4, b"");
    unknown.0
}

/// One object; `None` when the table does not know its kind.
pub(crate) fn object(value: &Value) -> Option<Vec<u8>> {
    let (api_version, kind) = (object::text(value, "/apiVersion"), object::text(value, "/kind"));
    let message = if kind == "PartialObjectMetadata" {
        partial(value)
    } else {
        encode_message(message_of(api_version, kind)?, value.as_object()?)
    };
    Some(envelope(api_version, kind, &message))
}

fn partial(value: &Value) -> Vec<u8> {
    let mut out = Writer::default();
    if let Some(metadata) = value["metadata"].as_object() {
        out.bytes(1, &encode_message("meta:ObjectMeta", metadata));
    }
    out.0
}

/// A list of objects of one kind. All of Kubernetes' lists have their metadata as field 1 and their items as field 2.
pub(crate) fn list(api_version: &str, list_kind: &str, metadata: &Value, items: &[Value]) -> Option<Vec<u8>> {
    let item_kind = list_kind.strip_suffix("List")?;
    let message = (item_kind != "PartialObjectMetadata").then(|| message_of(api_version, item_kind));
    let mut out = Writer::default();
    out.bytes(1, &encode_message("meta:ListMeta", metadata.as_object()?));
    for item in items {
        match message {
            Some(message) => out.bytes(2, &encode_message(message?, item.as_object()?)),
            None => out.bytes(2, &partial(item)),
        }
    }
    Some(envelope(api_version, list_kind, &out.0))
}

/// One frame of a watch: its length in four bytes, then the event, whose object carries its envelope.
pub(crate) fn event(kind: &str, encoded_object: &[u8]) -> Vec<u8> {
    let mut raw = Writer::default();
    raw.bytes(1, encoded_object);
    let mut event = Writer::default();
    event.bytes(1, kind.as_bytes());
    event.bytes(2, &raw.0);
    let mut frame = (event.0.len() as u32).to_be_bytes().to_vec();
    frame.extend_from_slice(&event.0);
    frame
}

fn encode_message(name: &str, object: &Map<String, Value>) -> Vec<u8> {
    let mut out = Writer::default();
    let Some(message) = messages().get(name) else {
        return out.0;
    };
    let mut fields: Vec<(&u32, &Known)> = message.iter().collect();
    fields.sort_unstable_by_key(|(number, _)| **number);
    for (&number, known) in fields {
        if let Shape::Inline(inner) = known.shape {
            let inlined = encode_message(inner, object);
            if !inlined.is_empty() || known.required {
                out.bytes(number, &inlined);
            }
            continue;
        }
        if let Some(value) = object.get(known.name).filter(|value| !value.is_null()) {
            encode_field(&mut out, number, known, value);
        }
    }
    out.0
}

fn encode_field(out: &mut Writer, number: u32, known: &Known, value: &Value) {
    match known.count {
        Count::One => encode_value(out, number, known.shape, value),
        Count::Repeated => {
            for item in value.as_array().into_iter().flatten() {
                encode_value(out, number, known.shape, item);
            }
        }
        Count::Map => {
            for (key, value) in value.as_object().into_iter().flatten() {
                let mut entry = Writer::default();
                entry.bytes(1, key.as_bytes());
                encode_value(&mut entry, 2, known.shape, value);
                out.bytes(number, &entry.0);
            }
        }
    }
}

fn encode_value(out: &mut Writer, number: u32, shape: Shape, value: &Value) {
    match shape {
        Shape::Text => out.bytes(number, value.as_str().unwrap_or_default().as_bytes()),
        Shape::Bool => out.number(number, u64::from(value.as_bool().unwrap_or(false))),
        Shape::Int => out.number(number, integer(value)),
        Shape::Bytes => {
            out.bytes(number, &BASE64.decode(value.as_str().unwrap_or_default()).unwrap_or_default());
        }
        Shape::Quantity => {
            let mut quantity = Writer::default();
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            quantity.bytes(1, text.as_bytes());
            out.bytes(number, &quantity.0);
        }
        Shape::IntOrString => {
            let mut either = Writer::default();
            match value.as_str() {
                Some(text) => {
                    either.number(1, 1);
                    either.number(2, 0);
                    either.bytes(3, text.as_bytes());
                }
                None => {
                    either.number(1, 0);
                    either.number(2, integer(value));
                    either.bytes(3, b"");
                }
            }
            out.bytes(number, &either.0);
        }
        Shape::Time | Shape::MicroTime => {
            let mut at = Writer::default();
            if let Some(time) = value.as_str().and_then(time::parse) {
                at.number(1, time.as_second().cast_unsigned());
                at.number(2, u64::from(time.subsec_nanosecond().unsigned_abs()));
            }
            out.bytes(number, &at.0);
        }
        Shape::Raw => {
            let mut raw = Writer::default();
            raw.bytes(1, value.to_string().as_bytes());
            out.bytes(number, &raw.0);
        }
        Shape::Strings => {
            let mut list = Writer::default();
            for text in value.as_array().into_iter().flatten().filter_map(Value::as_str) {
                list.bytes(1, text.as_bytes());
            }
            out.bytes(number, &list.0);
        }
        Shape::Message(name) => {
            if let Some(object) = value.as_object() {
                out.bytes(number, &encode_message(name, object));
            }
        }
        // Handled with the message, since its fields stand in the parent.
        Shape::Inline(_) => {}
    }
}

fn integer(value: &Value) -> u64 {
    value.as_i64().map_or_else(|| value.as_u64().unwrap_or(0), i64::cast_unsigned)
}
